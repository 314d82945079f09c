"""What a config.json says of a BERT classifier: the architecture, its labels, and the tensors it has."""

from pathlib import Path

from tools.make import cli
from tools.make.cli import read_json

BERT = "BertForSequenceClassification"
TINYBERT = "TinyBertForSequenceClassification"
# An encoder without classifier, as the wheel's; its tensors decide whether that will do. None: the original TinyBERT.
READ = (BERT, TINYBERT, "BertModel", None)
CONFIGS = ("config.json", "bert_config.json")
# The erf form of GELU, the one that the graphs' rewrites and fusions know, and its names.
GELU = ("gelu", "gelu_python")
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
}
# What is no BERT, and would take minutes merely to list its tensors.
LIMITS = {"num_hidden_layers": 1 << 10}


def first_file(folder, names, what):
    """The first of `names` that is a file in `folder`; UserError when none is."""
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise cli.UserError(f"{folder}: no {what} there (looked for {', '.join(names)}); give the checkpoint's folder")


def checkpoint_folder(folder):
    """Where in a user's folder the model is: itself, as a trainer leaves its last one, else its one checkpoint-* folder.

    Raises UserError where it has several.
    """
    folder = Path(folder)
    weights = (p for pattern in ("*.safetensors", "*.bin") for p in folder.glob(pattern))
    if any((folder / name).is_file() for name in CONFIGS) and any(weights):
        return folder
    below = sorted(p.parent for p in folder.glob("checkpoint-*/config.json"))
    if len(below) > 1:
        raise cli.UserError(f"{folder}: has {len(below)} checkpoints; name one, as in {below[-1]}")
    return below[0] if below else folder


def config_file(folder):
    """The configuration of a user's folder; UserError when there is none."""
    return first_file(checkpoint_folder(folder), CONFIGS, "configuration")


def read_config(path):
    """The architecture values of a config.json: {"architectures": [name], "labels": [names], and the keys of DEFAULTS}.

    Raises UserError on a config that does not describe a BERT sentence classifier this project can run.
    """
    cli.refuse_pointer(path)
    given = read_json(path)
    refuse_others(path, given)
    config = {key: given.get(key, default) for key, default in DEFAULTS.items()}
    config["hidden_act"] = "gelu"
    for key in DEFAULTS:
        if key == "hidden_act":
            continue
        good = type(config[key]) is int and 0 < config[key] < LIMITS.get(key, 1 << 24)
        if key == "layer_norm_eps":
            good = type(config[key]) is float and 0 < config[key] < 1
        if not good:
            raise cli.UserError(f"{path}: {key} is {config[key]!r}; take a BERT classifier's own file")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise cli.UserError(
            f"{path}: hidden_size is not a multiple of num_attention_heads; take the checkpoint's own file"
        )
    tiny = given.get("architectures") == [TINYBERT]
    return {"architectures": [TINYBERT if tiny else BERT], "labels": labels_of(path, given), **config}


def refuse_others(path, given):
    """UserError, with the true reason, on a config of anything else than a BERT encoder with a classifier of sentences."""
    names = given.get("architectures") or [None]
    names = names if isinstance(names, list) else [names]
    kind = given.get("model_type", "bert")
    if kind not in ("bert", "tinybert") or names[0] not in READ:
        raise cli.UserError(
            f"{path}: another architecture, {names[0] or 'of no name'} of model_type {kind}; only {BERT} and {TINYBERT}"
            " are read here; take such a checkpoint"
        )
    if given.get("is_decoder"):
        fault = "is_decoder is true: each token sees those before it alone, which no graph here computes"
    elif given.get("hidden_act", "gelu") not in GELU:
        fault = f"hidden_act is {given['hidden_act']!r}; the layers are known with GELU's erf form alone ({GELU[0]!r})"
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


def shapes(config):
    """{tensor name: shape} of a BERT classifier (of two labels where config names none), as transformers names its parameters."""
    h, ff = config["hidden_size"], config["intermediate_size"]
    linear = lambda name, out, into: {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    norm = lambda name: {f"{name}.weight": (h,), f"{name}.bias": (h,)}
    e = "bert.embeddings"
    expected = {
        f"{e}.word_embeddings.weight": (config["vocab_size"], h),
        f"{e}.position_embeddings.weight": (config["max_position_embeddings"], h),
        f"{e}.token_type_embeddings.weight": (config["type_vocab_size"], h),
        **norm(f"{e}.LayerNorm"),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            expected |= linear(f"{layer}.attention.self.{part}", h, h)
        expected |= linear(f"{layer}.attention.output.dense", h, h)
        expected |= norm(f"{layer}.attention.output.LayerNorm")
        expected |= linear(f"{layer}.intermediate.dense", ff, h)
        expected |= linear(f"{layer}.output.dense", h, ff)
        expected |= norm(f"{layer}.output.LayerNorm")
    return expected | linear("bert.pooler.dense", h, h) | linear("classifier", len(config["labels"]) or 2, h)
