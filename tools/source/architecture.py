"""What a config.json says of a BERT-like classifier: its family, its sizes as BERT would say them, and its labels."""

from pathlib import Path

from tools.make import cli
from tools.make.cli import read_json
from tools.source.families import FAMILIES, KINDS, REFUSED, first_position

TINYBERT = "TinyBertForSequenceClassification"
CONFIGS = ("config.json", "bert_config.json")
WHOLE = ("model.safetensors", "pytorch_model.bin", "checkpoint.pt")  # the last is fairseq's
# A checkpoint in shards: which file holds which tensor.
INDEXES = tuple(f"{name}.index.json" for name in WHOLE[:2])
WEIGHTS = (*WHOLE, *INDEXES)
# The names of both forms of GELU: by erf, and by tanh (Hendrycks and Gimpel, arXiv 1606.08415).
ACTIVATIONS = {
    "gelu": ("gelu", "gelu_python"),
    "gelu_new": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"),
}
# Classes whose tensors look like those of a classifier of texts, with another meaning.
OTHER_HEADS = {"TokenClassification": "a label for each token", "MultipleChoice": "a choice among several texts"}
# The keys that decide the architecture, and their values where a config is silent (TinyBERT's has no eps).
DEFAULTS = dict.fromkeys(
    ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size")
) | {
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "pad_token_id": 0,
}
# A config with larger values is no BERT's, and listing its tensors alone would take minutes.
LIMITS = {"num_hidden_layers": 1 << 10, "inner_group_num": 1 << 4}
# What a folder may hold in place of weights, by the end of a file's name, and what to do then.
THERE = {
    "adapter_config.json": "an adapter (PEFT) without its model; save the merged model, merge_and_unload()",
    ".gguf": "a GGUF file, which is quantised; take the checkpoint that it was made from",
    ".ckpt.index": "TensorFlow 1's checkpoint; save it as a state_dict() with transformers 4",
    ".h5": "TensorFlow's weights; save them with from_pretrained(..., from_tf=True) of transformers 4",
    ".msgpack": "Flax's weights; save them with from_pretrained(..., from_flax=True) of transformers 4",
    ".onnx": "a ready ONNX graph; take the checkpoint that it was exported from",
    "openvino_model.xml": "a ready OpenVINO graph; take the checkpoint that it was made from",
    ".pt": "a .pt file, TorchScript or a whole module; save the model's state_dict() as pytorch_model.bin",
    ".safetensors": "tensors under another name; call them model.safetensors",
    "training_args.bin": "a trainer's arguments, no weights; copy the weights there too",
    ".bin": "a .bin under another name; if it holds the weights, call it pytorch_model.bin",
}


def weights_file(folder):
    """The weights of a checkpoint's folder, or their index; UserError, which names what is there instead, where it has none."""
    folder = Path(folder)
    if path := cli.first_file(folder / name for name in WEIGHTS):
        if (folder / "adapter_config.json").exists():  # peft, where it is installed, would add it to another model's
            raise cli.UserError(
                f"{folder}: whole weights and an adapter; remove adapter_config.json if they are merged"
            )
        return path
    if below := sorted(p.parent for name in WEIGHTS for p in folder.glob(f"*/{name}")):
        raise cli.UserError(f"{folder}: no weights there, but in {below[0]}; name that folder")
    names = [p.relative_to(folder).as_posix() for pattern in ("*", "onnx/*") for p in sorted(folder.glob(pattern))]
    for end, what in THERE.items():
        if there := [name for name in names if name.endswith(end)]:
            raise cli.UserError(f"{folder}: no weights there; {there[0]} is {what}")
    raise cli.UserError(f"{folder}: no weights there (looked for {', '.join(WEIGHTS)}); give the checkpoint's folder")


def checkpoint_folder(folder):
    """Where in a user's folder the model is: itself, as a trainer leaves its last one, else its one checkpoint-* folder."""
    folder = Path(folder)
    if any((folder / name).is_file() for name in WEIGHTS):
        return folder
    below = sorted(p.parent for p in folder.glob("checkpoint-*/config.json"))
    if len(below) > 1:
        raise cli.UserError(f"{folder}: has {len(below)} checkpoints; name one, as in {below[-1]}")
    return below[0] if below else folder


def config_file(folder):
    """The configuration of a user's folder; UserError, which says what is there instead of a checkpoint, when there is none."""
    folder = checkpoint_folder(folder)
    if path := cli.first_file(folder / name for name in CONFIGS):
        return path
    weights_file(folder)
    raise cli.UserError(
        f"{folder}: no configuration there (looked for {', '.join(CONFIGS)}); give the checkpoint's folder"
    )


def read_config(path, kind=None):
    """The architecture of a config.json in BERT's terms: {"family", "labels", "task_types", and the keys of DEFAULTS}, in
    which max_position_embeddings counts those that a text can use. kind: the family, where the tensors say it.

    Raises UserError on a config that does not describe a classifier this project can run.
    """
    cli.refuse_pointer(path)
    config = read_json(path)
    names = config.get("architectures") or [None]
    name = str((names[0] if isinstance(names, list) else names) or "of no name")
    kind = family_of(path, config, name, kind)
    family = FAMILIES[kind]
    activation = config.get(family.keys.get("hidden_act", "hidden_act"))
    if fault := unsupported(config, name, "gelu" if activation is None else activation):
        raise cli.UserError(f"{path}: {fault}; take another checkpoint")
    usual = DEFAULTS | family.defaults
    values = {key: config.get(family.keys.get(key, key)) for key in DEFAULTS}
    sizes = {"family": kind, "labels": labels_of(path, config)}
    sizes |= {key: usual[key] if value is None else value for key, value in values.items()}
    sizes["hidden_act"] = next(name for name, all_ in ACTIVATIONS.items() if sizes["hidden_act"] in all_)
    if "embedding_size" not in family.defaults:
        sizes["embedding_size"] = sizes["hidden_size"]
    if not family.shared:
        sizes |= {"num_hidden_groups": 1, "inner_group_num": 1}
    if not family.from_pad:
        sizes["pad_token_id"] = 0
    used = family.task_types and config.get("use_task_id")
    sizes["task_types"] = config.get("task_type_vocab_size", family.task_types) if used else 0
    refuse_sizes(path, sizes, family)
    sizes["max_position_embeddings"] -= first_position(sizes)
    return sizes


def refuse_sizes(path, config, family):
    """UserError for a value that is no size, or two that contradict each other."""
    for key in [key for key in (*DEFAULTS, "task_types") if key != "hidden_act"]:
        least = 0 if key in ("type_vocab_size", "pad_token_id", "task_types") else 1
        good = type(config[key]) is int and least <= config[key] < LIMITS.get(key, 1 << 24)
        if key == "layer_norm_eps":
            good = type(config[key]) is float and 0 < config[key] < 1
        if not good:
            name = family.keys.get(key, key)
            raise cli.UserError(f"{path}: {name} is {config[key]!r}; take a BERT-like classifier's own file")
    if config["hidden_size"] % config["num_attention_heads"]:
        fault = "hidden_size is not a multiple of num_attention_heads"
    elif config["max_position_embeddings"] <= first_position(config):
        fault = "max_position_embeddings leaves no position for a token"
    else:
        return
    raise cli.UserError(f"{path}: {fault}; take the checkpoint's own file")


def family_of(path, config, name, kind=None):
    """The name of a configuration's family: `kind` where the tensors have said it, else by model_type (`name`: its class);
    UserError, with what it would take, for a family that is not read here."""
    model_type = config.get("model_type") or ("tinybert" if name == TINYBERT else "bert")
    model_type = KINDS.get(model_type, model_type) if isinstance(model_type, str) else None
    if model_type in FAMILIES:
        return kind or ("tinybert" if name == TINYBERT else model_type)
    needs = f", which takes {REFUSED[model_type]}" if model_type in REFUSED else ""
    raise cli.UserError(
        f"{path}: another architecture, {name} of model_type {config.get('model_type')}{needs}; read here"
        f" are {', '.join([*FAMILIES, *KINDS])}; take such a checkpoint"
    )


def unsupported(config, name, activation):
    """What a config says that no graph here computes, None where all is well. name: its class."""
    if heads := [what for head, what in OTHER_HEADS.items() if name.endswith(f"For{head}")]:
        return f"{name} gives {heads[0]}, not a class of a text"
    if how := config.get("quantization_config"):
        return f"its weights are quantised ({how!s:.80}); this project quantises from the checkpoint it was made from"
    if config.get("is_decoder"):
        return "is_decoder is true: each token sees those before it alone, which no graph here computes"
    if not any(activation in names for names in ACTIVATIONS.values()):
        return f"hidden_act is {activation!r}; the layers are known with GELU alone ({', '.join(ACTIVATIONS)})"
    if config.get("pruned_heads"):
        return "pruned_heads: layers lack heads, and only whole layers are read"
    if (kind := config.get("position_embedding_type", "absolute")) != "absolute":
        return f"position_embedding_type is {kind!r}, absolute is the only one handled here"
    return None


def labels_of(path, config):
    """The classifier's label names, in the order of its outputs: id2label's, else label2id's; none where it is silent;
    UserError where the two disagree or leave a hole."""
    by_id, by_name = config.get("id2label"), config.get("label2id")
    if not by_id and not by_name:
        count = config.get("num_labels", 0)
        return default_labels(count) if type(count) is int and count < 1 << 16 else []
    try:
        names = {int(number): str(name) for number, name in (by_id or inverse(by_name)).items()}
        labels = [names[i] for i in range(len(names))]
        agree = all(int(by_name[name]) == i for i, name in enumerate(labels) if name in (by_name or ()))
    except (KeyError, ValueError, AttributeError, TypeError):
        labels, agree = [], True
    if not labels or len(set(labels)) != len(labels):
        fault = f"id2label is {str(by_id):.200}, not a name for each of 0, 1 ..."
    elif not agree:
        fault = f"label2id {str(by_name):.200} is not id2label {str(labels):.200} turned round"
    else:
        return labels
    raise cli.UserError(f"{path}: {fault}; take the checkpoint's own file")


def default_labels(count):
    """The names that transformers gives classes without one."""
    return [f"LABEL_{i}" for i in range(count)]


def inverse(names):
    """{name: number} of a list, {value: key} of a table."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {name: number for number, name in pairs}
