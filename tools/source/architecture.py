"""What a config.json says of a BERT classifier: the architecture, and the tensors it has."""

from tools import cli
from tools.cli import read_json

BERT = "BertForSequenceClassification"


TINYBERT = "TinyBertForSequenceClassification"


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


def read_config(path):
    """The architecture values of a config.json: {"architectures": [name], and the keys of DEFAULTS}.

    Raises UserError on a config that does not describe a BERT sentence classifier this project can run.
    """
    given = read_json(path)
    config = {key: given.get(key, default) for key, default in DEFAULTS.items()}
    for key, default in DEFAULTS.items():
        if key in ("hidden_act", "layer_norm_eps"):
            good = config[key] == default or (key == "layer_norm_eps" and type(config[key]) is float)
        else:
            good = type(config[key]) is int and 0 < config[key] < 1 << 24
        if not good:
            raise cli.UserError(f"{path}: {key} is {config[key]!r}; take a BERT classifier's own file")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise cli.UserError(
            f"{path}: hidden_size is not a multiple of num_attention_heads; take the checkpoint's own file"
        )
    if given.get("position_embedding_type", "absolute") != "absolute":
        raise cli.UserError(
            f"{path}: position_embedding_type is not absolute, the only one handled here; take another checkpoint"
        )
    tiny = given.get("architectures") == [TINYBERT]
    return {"architectures": [TINYBERT if tiny else BERT], **config}


def shapes(config):
    """{tensor name: shape} of a BERT classifier with two labels, as transformers names its parameters."""
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
    return expected | linear("bert.pooler.dense", h, h) | linear("classifier", 2, h)
