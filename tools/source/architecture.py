"""What a config.json says of a BERT-like classifier: its family, its sizes as BERT would say them, and its labels."""

from pathlib import Path

from tools.make import cli
from tools.make.cli import read_json
from tools.source.families import FAMILIES, KINDS, REFUSED, first_position

BERT = "BertForSequenceClassification"
TINYBERT = "TinyBertForSequenceClassification"
CONFIGS = ("config.json", "bert_config.json")
WHOLE = ("model.safetensors", "pytorch_model.bin", "checkpoint.pt")  # the last is fairseq's
# A checkpoint in shards: which file holds which tensor.
INDEXES = tuple(f"{name}.index.json" for name in WHOLE[:2])
# Both forms of GELU, and their names: the erf form, and the tanh form of Hendrycks and Gimpel (arXiv 1606.08415).
ACTIVATIONS = {
    "gelu": ("gelu", "gelu_python"),
    "gelu_new": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"),
}
# Classes whose tensors are those of a classifier of texts, and mean something else.
OTHER_HEADS = {"TokenClassification": "a label for each token", "MultipleChoice": "a choice among several texts"}
# What decides the architecture, and the value meant where a config does not say (TinyBERT's has no eps).
DEFAULTS = {
    "vocab_size": None,
    "hidden_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": None,
    "intermediate_size": None,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "embedding_size": None,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "pad_token_id": 0,
}
# What is no BERT, and would take minutes merely to list its tensors.
LIMITS = {"num_hidden_layers": 1 << 10, "inner_group_num": 1 << 4}
# What else a folder may hold, by what its name ends in, and what to do.
THERE = {
    "adapter_config.json": "an adapter (PEFT) without its model; save the merged model, merge_and_unload()",
    "pytorch_adapter.bin": "an adapter without its model; save the merged model",
    ".gguf": "a GGUF file, which is quantised; take the checkpoint that it was made from",
    ".h5": "TensorFlow's weights; save them with from_pretrained(..., from_tf=True) of transformers 4",
    ".msgpack": "Flax's weights; save them with from_pretrained(..., from_flax=True) of transformers 4",
    ".ot": "weights for Rust; take the repository's model.safetensors or pytorch_model.bin",
    ".onnx": "a ready ONNX graph; take the checkpoint that it was exported from",
    ".xml": "an OpenVINO model; take the checkpoint that it was made from",
    ".pt": "a .pt file, TorchScript or a whole module; save the model's state_dict() as pytorch_model.bin",
    ".safetensors": "tensors under another name; call them model.safetensors",
    "training_args.bin": "a trainer's arguments, no weights; copy the weights there too",
    ".bin": "a .bin under another name; if it holds the weights, call it pytorch_model.bin",
}


def first_file(folder, names, what):
    """The first of `names` that is a file in `folder`; UserError when none is."""
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise cli.UserError(f"{folder}: no {what} there (looked for {', '.join(names)}); give the checkpoint's folder")


def has_weights(folder) -> bool:
    """Whether a folder holds weights under a name that is read here."""
    return any((Path(folder) / name).is_file() for name in (*WHOLE, *INDEXES))


def weights_file(folder):
    """The weights of a checkpoint's folder, or their index. UserError, which says what is there instead, where none is."""
    folder = Path(folder)
    if has_weights(folder):
        return first_file(folder, (*WHOLE, *INDEXES), "weights")
    below = sorted(p.parent for name in (*WHOLE, *INDEXES) for p in folder.glob(f"*/{name}"))
    if below:
        raise cli.UserError(f"{folder}: no weights there, but in {below[0]}; name that folder")
    names = [p.relative_to(folder).as_posix() for pattern in ("*", "onnx/*") for p in sorted(folder.glob(pattern))]
    for end, what in THERE.items():
        if there := [name for name in names if name.endswith(end)]:
            raise cli.UserError(f"{folder}: no weights there; {there[0]} is {what}")
    raise cli.UserError(
        f"{folder}: no weights there (looked for {', '.join((*WHOLE, *INDEXES))}); give the checkpoint's folder"
    )


def checkpoint_folder(folder):
    """Where in a user's folder the model is: itself, as a trainer leaves its last one, else its one checkpoint-* folder.

    Raises UserError where it has several.
    """
    folder = Path(folder)
    if has_weights(folder):
        return folder
    below = sorted(p.parent for p in folder.glob("checkpoint-*/config.json"))
    if len(below) > 1:
        raise cli.UserError(f"{folder}: has {len(below)} checkpoints; name one, as in {below[-1]}")
    return below[0] if below else folder


def config_file(folder):
    """The configuration of a user's folder; UserError when there is none."""
    return first_file(checkpoint_folder(folder), CONFIGS, "configuration")


def read_config(path, kind=None):
    """The architecture of a config.json in BERT's terms: {"family", "labels", "task_types", and the keys of DEFAULTS}.

    kind: the family, where the tensors say it. max_position_embeddings counts the positions that a text can use.
    Raises UserError on a config that does not describe a classifier this project can run.
    """
    cli.refuse_pointer(path)
    given = read_json(path)
    kind = family_of(path, given, kind)
    family = FAMILIES[kind]
    refuse_others(path, given, family)
    usual = DEFAULTS | family.defaults
    said = {key: given.get(family.keys.get(key, key)) for key in DEFAULTS}
    config = {"family": kind, "labels": labels_of(path, given)}
    config |= {key: usual[key] if value is None else value for key, value in said.items()}
    config["hidden_act"] = next(name for name, all_ in ACTIVATIONS.items() if config["hidden_act"] in all_)
    if kind not in ("albert", "electra"):
        config["embedding_size"] = config["hidden_size"]
    if not family.shared:
        config |= {"num_hidden_groups": 1, "inner_group_num": 1}
    if not family.from_pad:
        config["pad_token_id"] = 0
    config["task_types"] = given.get("task_type_vocab_size", 3) if kind == "ernie" and given.get("use_task_id") else 0
    refuse_sizes(path, config, family)
    config["max_position_embeddings"] -= first_position(config)
    return config


def refuse_sizes(path, config, family):
    """UserError for a value that is no size, or two that contradict each other."""
    for key in (*DEFAULTS, "task_types"):
        if key == "hidden_act":
            continue
        least = 0 if key in ("type_vocab_size", "pad_token_id", "task_types") else 1
        good = type(config[key]) is int and least <= config[key] < LIMITS.get(key, 1 << 24)
        if key == "layer_norm_eps":
            good = type(config[key]) is float and 0 < config[key] < 1
        if not good:
            name = family.keys.get(key, key) or key
            raise cli.UserError(f"{path}: {name} is {config[key]!r}; take a BERT-like classifier's own file")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise cli.UserError(
            f"{path}: hidden_size is not a multiple of num_attention_heads; take the checkpoint's own file"
        )
    if config["max_position_embeddings"] <= first_position(config):
        raise cli.UserError(
            f"{path}: max_position_embeddings leaves no position for a token; take the checkpoint's own"
        )


def family_of(path, given, kind=None):
    """The name of a configuration's family: `kind` where the tensors have said it, else by model_type.

    Raises UserError, with what it would take, for a family that is not read here.
    """
    names = given.get("architectures") or [None]
    name = names[0] if isinstance(names, list) else names
    said = given.get("model_type") or ("tinybert" if name == TINYBERT else "bert")
    said = KINDS.get(said, said) if isinstance(said, str) else None
    if said in FAMILIES:
        return kind or ("tinybert" if name == TINYBERT else said)
    needs = f", which takes {REFUSED[said]}" if said in REFUSED else ""
    raise cli.UserError(
        f"{path}: another architecture, {name or 'of no name'} of model_type {given.get('model_type')}{needs}; read here"
        f" are {', '.join([*FAMILIES, *KINDS])}; take such a checkpoint"
    )


def refuse_others(path, given, family):
    """UserError, with the true reason, on a config that says what no graph here computes."""
    names = given.get("architectures") or [None]
    name = str(names[0] if isinstance(names, list) else names)
    activation = given.get(family.keys.get("hidden_act", "hidden_act")) or "gelu"
    if other := [what for head, what in OTHER_HEADS.items() if name.endswith(f"For{head}")]:
        fault = f"{name} gives {other[0]}, not a class of a text"
    elif given.get("quantization_config"):
        method = str((given["quantization_config"] or {}).get("quant_method", "of no name"))
        fault = f"its weights are quantised ({method:.40}); this project quantises from the checkpoint it was made from"
    elif given.get("is_decoder"):
        fault = "is_decoder is true: each token sees those before it alone, which no graph here computes"
    elif not any(activation in names for names in ACTIVATIONS.values()):
        fault = f"hidden_act is {activation!r}; the layers are known with GELU alone ({', '.join(ACTIVATIONS)})"
    elif given.get("pruned_heads"):
        fault = f"pruned_heads: heads are gone from layers {', '.join(map(str, given['pruned_heads'])):.60}; only whole layers are read"
    elif given.get("position_embedding_type", "absolute") != "absolute":
        fault = (
            f"position_embedding_type is {given['position_embedding_type']!r}, absolute is the only one handled here"
        )
    else:
        return
    raise cli.UserError(f"{path}: {fault}; take another checkpoint")


def labels_of(path, given):
    """The classifier's label names, in the order of its outputs: id2label's, else label2id's; none where it is silent.

    Raises UserError where the two disagree or leave a hole.
    """
    by_id, by_name = given.get("id2label"), given.get("label2id")
    if not by_id and not by_name:
        count = given.get("num_labels", 0)
        return unnamed(count) if type(count) is int and count < 1 << 16 else []
    try:
        names = {int(number): str(name) for number, name in (by_id or turned(by_name)).items()}
        labels = [names[i] for i in range(len(names))]
        agree = all(by_name[name] == i for i, name in enumerate(labels) if name in (by_name or ()))
    except (KeyError, ValueError, AttributeError, TypeError):
        labels, agree = [], True
    if not labels or len(set(labels)) != len(labels):
        raise cli.UserError(
            f"{path}: id2label is {str(by_id):.200}, not a name for each of 0, 1 ...; take the checkpoint's own file"
        )
    if not agree:
        raise cli.UserError(
            f"{path}: label2id {str(by_name):.200} is not id2label {str(labels):.200} turned round; mend one of them"
        )
    return labels


def unnamed(count):
    """The names that transformers gives classes without one."""
    return [f"LABEL_{i}" for i in range(count)]


def turned(names):
    """{name: number} of a list, {value: key} of a table."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {name: number for number, name in pairs}
