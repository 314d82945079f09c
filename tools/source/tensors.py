"""The tensors of a checkpoint folder: .safetensors or .bin, whole or in shards, in any float format, never running code.

    from tools.source import tensors
    path, weights = tensors.read_tensors("mine")    # {name: numpy array or torch tensor}, as the files spell the names
    tensors.rename(weights, "bert")                 # the same, as transformers names them today

A .bin is a pickle: PyTorch reads it with weights_only, which builds tensors and calls nothing else.
"""

import argparse
import re
import warnings
import zipfile

from tools.make import cli
from tools.source import families
from tools.source.architecture import WHOLE, weights_file

LARGEST = 1 << 32  # bytes that a .bin, which is a zip, may unpack to
# DataParallel and torch.compile put these before the names of a model that they wrap.
WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
OLD = {"gamma": "weight", "beta": "bias"}  # LayerNorm's names in older tools
BARE = ("embeddings", "embeddings_project", "encoder", "transformer", "pooler")  # of an encoder saved by itself


def read_file(path):
    """{name: tensor} of a .safetensors (numpy) or .bin file (torch, weights_only: nothing in it is executed); UserError
    on a file that is cut short, holds other things than tensors, or is a Git LFS pointer."""
    cli.refuse_pointer(path)
    try:
        return read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    except cli.UserError:
        raise
    except Exception as e:  # each library raises its own kinds for a damaged or hostile file
        reason = re.split(r"\.\s|\n|\x1b", str(e))[0][:200] or type(e).__name__  # PyTorch goes on: weights_only=False
        fault = f"refused, it is cut short or holds more than tensors ({reason})"
        raise cli.UserError(f"{path}: {fault}; download it again, or save the model's state_dict()") from e


def read_safetensors(path):
    import ml_dtypes  # noqa: F401  gives numpy bfloat16, which safetensors asks for by name
    from safetensors import safe_open
    from safetensors.numpy import load_file

    with safe_open(path, "numpy") as f:
        small = sorted(n for n in f.keys() if f.get_slice(n).get_dtype().startswith(("F8", "F4")))  # noqa: SIM118
    if small:
        fault = f"{small[0]} is of 8 bits or fewer"
        raise cli.UserError(f"{path}: quantised, {fault}; take the checkpoint that it was made from")
    return load_file(path)


def read_pickle(path):
    import torch

    if zipfile.is_zipfile(path) and sum(i.file_size for i in zipfile.ZipFile(path).infolist()) > LARGEST:
        raise cli.UserError(f"{path}: unpacks to over {LARGEST} bytes; refused")
    # A .pt of fairseq holds its arguments beside the model: plain values, in a class that does nothing.
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".pt" and isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
        tensors = tensors["model"]
    if isinstance(tensors, dict) and any("_packed_params" in str(name) for name in tensors):
        raise cli.UserError(f"{path}: quantised, by PyTorch; take the checkpoint that it was made from")
    dense = lambda t: isinstance(t, torch.Tensor) and t.layout is torch.strided and t.device.type == "cpu"
    if not isinstance(tensors, dict) or not all(isinstance(n, str) and dense(t) for n, t in tensors.items()):
        raise cli.UserError(f"{path}: not a plain table of tensors; save the model's state_dict()")
    return tensors


def read_tensors(folder):
    """(the file that was read, or the index of several; {name: tensor}) of a checkpoint folder. Raises UserError."""
    path = weights_file(folder)
    if path.name in WHOLE:
        return path, read_file(path)
    table = cli.read_json(path).get("weight_map")
    plain = lambda name: isinstance(name, str) and re.fullmatch(r"[\w-]+\.(safetensors|bin)", name)
    shards = sorted(set(table.values())) if isinstance(table, dict) and all(map(plain, table.values())) else []
    if not shards:
        raise cli.UserError(f"{path}: weight_map is no table of tensors and file names; download it again")
    if missing := [name for name in shards if not (path.parent / name).is_file()]:
        count = f"{len(missing)} of {len(shards)} shards"
        raise cli.UserError(f"{path}: {count} are missing, as {missing[0]}; download them")
    return path, {name: t for shard in shards for name, t in read_file(path.parent / shard).items()}


def rename(tensors, kind=None):
    """Tensors by transformers' names of today: without what wraps a model, other projects' translated (families.FOREIGN),
    a bare encoder's with the prefix of its family, of config.json."""
    today = lambda name: re.sub(r"LayerNorm\.(gamma|beta)", lambda m: f"LayerNorm.{OLD[m[1]]}", WRAPPERS.sub("", name))
    plain = {today(name): tensor for name, tensor in tensors.items()}
    prefix = families.FAMILIES[kind or "bert"].prefix
    with_prefix = lambda name: f"{prefix}.{name}" if name.split(".")[0] in BARE else name
    return {with_prefix(name): tensor for name, tensor in families.translate(plain).items()}
