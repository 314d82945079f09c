"""A checkpoint from its source to one Hugging Face style folder, checked against the model's architecture.

    python -m tools.source.checkpoint --model tinybert_sst2 --weights seeded --wheel WHEEL --save_path checkpoint
    wrote checkpoint/config.json  545 bytes
    wrote checkpoint/tokenizer_config.json  215 bytes
    wrote checkpoint/vocab.txt  231,508 bytes
    wrote checkpoint/tokenizer.json  711,396 bytes
    wrote checkpoint/model.safetensors  57,411,808 bytes

--weights is one of

    hub:OWNER/REPO@COMMIT[:FOLDER]  a repository of the hub (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE count)
    wheel                           the encoder in --wheel plus models/<model>/adapter.safetensors
    seeded                          random values from a fixed seed, word pieces from --wheel
    anything else                   a path: a folder, a clone or a zip with config, weights and vocab.txt

The folder gets config.json and tokenizer_config.json as models/<model>/ spells them, model.safetensors,
vocab.txt and the tokenizer.json made from it. The bytes depend on the source's values alone.
"""

import argparse
import re
import stat
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tools import cli
from tools.source import architecture, tokens

MODELS = cli.ROOT / "models"
CONFIGS = ("config.json", "bert_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
FILES = (*CONFIGS, *WEIGHTS, *TOKENIZER)
LARGEST = 1 << 31  # bytes that a zip may unpack to; 16 MiB for what is not weights


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

        if zipfile.is_zipfile(path) and sum(i.file_size for i in zipfile.ZipFile(path).infolist()) > 2 * LARGEST:
            raise cli.UserError(f"{path}: unpacks to over {2 * LARGEST} bytes; refused")
        with warnings.catch_warnings(action="ignore"):  # of what it then refuses
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        dense = lambda t: isinstance(t, torch.Tensor) and t.layout is torch.strided and t.device.type == "cpu"
        if not isinstance(tensors, dict) or not all(isinstance(n, str) and dense(t) for n, t in tensors.items()):
            raise cli.UserError(f"{path}: not a plain table of tensors; save the model's state_dict()")
        return tensors
    except cli.UserError:
        raise
    except Exception as e:  # each library raises its own kinds for a damaged or hostile file
        reason = (
            re.split(r"\.\s|\n|\x1b", str(e))[0][:200] or type(e).__name__
        )  # PyTorch goes on to advise weights_only=False
        fault = f"refused, it is cut short or holds more than tensors ({reason})"
        raise cli.UserError(f"{path}: {fault}; download it again, or save the model's state_dict()") from e


def check(config, tensors, where):
    """Bring tensors to transformers' names and float32 numpy arrays, all there and finite.

    Old names (gamma, beta), the bare encoder's (no "bert.") are understood; position_ids and TinyBERT's
    fit_dense (used in distillation only) are dropped. Raises UserError with the name of a tensor that is
    missing, extra, of another shape or kind, or not finite.
    """
    import numpy as np

    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.endswith("embeddings.position_ids") or name.startswith("fit_dense."):
            continue
        if name.split(".")[0] in ("embeddings", "encoder", "pooler"):
            name = f"bert.{name}"
        renamed[name] = tensor
    expected = architecture.shapes(config)
    if missing := [n for n in expected if n not in renamed]:
        raise cli.UserError(f"{where}: {len(missing)} tensors missing, as {missing[0]}; is it a classifier?")
    if extra := sorted(renamed.keys() - expected):
        raise cli.UserError(f"{where}: {len(extra)} tensors too many, as {extra[0]}; is config.json its own?")
    for name, shape in expected.items():
        tensor = renamed[name]
        if tuple(tensor.shape) != shape:
            raise cli.UserError(
                f"{where}: {name} is {list(tensor.shape)}, config.json says {list(shape)}; is config.json its own?"
            )
        if "float" not in str(tensor.dtype):
            raise cli.UserError(f"{where}: {name} is {tensor.dtype}; take a floating-point checkpoint")
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().float().numpy()
        renamed[name] = np.ascontiguousarray(tensor, np.float32)
        if not np.isfinite(renamed[name]).all():
            raise cli.UserError(f"{where}: {name} holds NaN or infinity; take an undamaged checkpoint")
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
    raise cli.UserError(f"{folder}: no {what} there (looked for {', '.join(names)}); give the checkpoint's folder")


def read(folder, adapter_path=None):
    """Config and tensors of a checkpoint folder: ours, Hugging Face's, a clone's or original TinyBERT's.

    adapter_path: an adapter to merge into an encoder without classifier (tools/source/adapter.py).
    Returns (config as read_config, {name: float32 numpy array} as check). Raises UserError.
    """
    folder = checkpoint_folder(folder)
    config = architecture.read_config(first_file(folder, CONFIGS, "configuration"))
    path = first_file(folder, WEIGHTS, "weights")
    tensors = read_tensors(path)
    if any(name.startswith("fit_dense.") for name in tensors):
        config["architectures"] = [architecture.TINYBERT]
    if adapter_path:
        from tools.source import adapter

        tensors = adapter.merge(tensors, adapter_path)
    return config, check(config, tensors, path)


def vocabulary(folder, size):
    """The word pieces of a checkpoint folder (or of the clone around it), in id order, at most `size`."""
    if path := tokens.near(folder, "vocab.txt"):
        pieces = tokens.read_vocab(path)
    elif path := tokens.near(folder, "tokenizer.json"):
        ids = tokens.load(path.parent).get_vocab()
        pieces = sorted(ids, key=ids.get)
    else:
        raise cli.UserError(f"{folder}: no vocab.txt or tokenizer.json there; add the checkpoint's vocab.txt")
    if len(pieces) > size:
        raise cli.UserError(
            f"{path}: {len(pieces)} word pieces, but config.json says vocab_size {size}; is it the checkpoint's own?"
        )
    return pieces


def unzip(archive, into, wanted=FILES):
    """Copy the files named `wanted` out of a zip into folder `into`, each under its own inner path.

    Nothing else is written. A member that would escape (absolute, "..", a link) or that unpacks to more than
    LARGEST says raises UserError. Returns the folder that holds the weights; without any, that of the files.
    """
    left = LARGEST
    try:
        with zipfile.ZipFile(archive) as z:
            for member in z.infolist():
                path = PurePosixPath(member.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
                    raise cli.UserError(f"{archive}: member {member.filename!r} leaves its folder; refused")
                if path.name in wanted and not member.is_dir():
                    left -= copy_member(z, member, into / path, left if path.name in WEIGHTS else min(left, 1 << 24))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise cli.UserError(f"{archive}: not a whole zip ({e}); download it again") from e
    files = [p for p in into.rglob("*") if p.is_file()]
    found = {p.parent for p in files if p.name in WEIGHTS} or {p.parent for p in files}
    top = [f for f in found if not found.intersection(f.parents)]
    if len(top) != 1:
        raise cli.UserError(f"{archive}: holds {len(top)} checkpoints; unpack it and name one folder")
    return top[0]


def copy_member(z, member, path, largest):
    """Copy one zip member to `path`, at most `largest` bytes whatever it declares, else UserError. Returns bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with z.open(member) as source, path.open("xb") as out:
        while block := source.read(1 << 20):
            if out.tell() + len(block) > largest:
                raise cli.UserError(f"{z.filename}: {member.filename!r} is over {largest} bytes; refused")
            with cli.named(path):
                out.write(block)
        return out.tell()


def from_hub(spec):
    """Fetch hub:OWNER/REPO@COMMIT[:FOLDER] into the hub's own cache (resumable) and return the folder.

    Raises UserError with what to do instead when it can be had neither from the cache nor from the network.
    """
    if not (m := re.fullmatch(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})(?::([\w.-]+))?", spec)):
        raise cli.UserError(f"--weights {spec}: write hub:OWNER/REPO@COMMIT[:FOLDER], COMMIT in 40 digits")
    repo, commit, folder = m.groups()
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries are not for people; the reason is in our one line
    print(f"fetching {repo} at {commit[:12]}", flush=True)
    names = [f"{folder}/{name}" for name in FILES] + list(TOKENIZER) if folder else FILES
    try:
        root = Path(snapshot_download(repo, revision=commit, allow_patterns=names))
    except Exception as e:  # the hub library and its network layers raise many kinds
        reason = " ".join(str(e.__cause__ or e).split())[:200]
        raise cli.UserError(
            f"{spec} could not be fetched ({reason}); get online or set HF_ENDPOINT, or give WEIGHTS=PATH to a"
            " folder, clone or zip of it, or WEIGHTS=seeded"
        ) from e
    path = first_file(root / (folder or "."), WEIGHTS, "weights")
    blob = path.resolve()  # the cache names a large file by its sha256
    if re.fullmatch("[0-9a-f]{64}", blob.name) and cli.sha256(blob) != blob.name:
        raise cli.UserError(f"{path}: sha256 is {cli.sha256(blob)}, the hub's is {blob.name}; delete {blob}")
    return path.parent


def source_folder(spec, model, wheel, box):
    """The folder in the original's own layout that --weights names, made in folder `box` where need be."""
    if spec == "seeded":
        from tools.source import seeded

        return seeded.write(box / "seeded", model, vocabulary(unzip(wheel, box, ("vocab.txt",)), 1 << 20))
    if spec == "wheel":
        return unzip(wheel, box)
    if spec.startswith("hub:"):
        return from_hub(spec)
    if Path(spec).is_dir():
        return checkpoint_folder(spec)
    if Path(spec).is_file():
        return checkpoint_folder(unzip(spec, box))
    raise cli.UserError(f"--weights {spec}: no such folder or zip; give one, or seeded")


def make(spec, model, wheel, save_path):
    """Write the checkpoint folder of a model (its folder under models/) from the source `spec` names.

    model.safetensors comes last: a folder that has it is whole. Raises UserError, then nothing is written.
    """
    from safetensors.numpy import save

    wanted = architecture.read_config(model / "config.json")
    lower_case = cli.read_json(model / "tokenizer_config.json").get("do_lower_case", True)
    save_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=save_path.parent) as box:
        folder = source_folder(spec, model, wheel, Path(box))
        config, tensors = read(folder, model / "adapter.safetensors" if spec == "wheel" else None)
        pieces = vocabulary(folder, wanted["vocab_size"])
    for key in wanted:
        if config[key] != wanted[key]:
            raise cli.UserError(
                f"{spec}: {key} is {config[key]}, {model / 'config.json'} says {wanted[key]}; is it another model's checkpoint?"
            )
    files = {
        "config.json": (model / "config.json").read_bytes(),
        "tokenizer_config.json": (model / "tokenizer_config.json").read_bytes(),
        "vocab.txt": "".join(f"{piece}\n" for piece in pieces).encode(),
        "tokenizer.json": tokens.build(pieces, lower_case).to_str(pretty=True).encode(),
        "model.safetensors": save(tensors, {"format": "pt"}),
    }
    (save_path / "model.safetensors").unlink(missing_ok=True)
    for name, data in files.items():
        with cli.whole_file(save_path / name) as f:
            f.write(data)
        print(f"wrote {save_path / name}  {len(data):,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder of models/")
    parser.add_argument("--weights", required=True, metavar="SPEC", help="hub:…, wheel, seeded or a path")
    parser.add_argument("--wheel", type=Path, help="the downloaded wheel, for wheel and seeded")
    parser.add_argument("--save_path", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    if args.weights in ("wheel", "seeded") and not args.wheel:
        parser.error(f"--weights {args.weights} needs --wheel")
    if not (MODELS / args.model / "config.json").is_file():
        known = ", ".join(sorted(p.parent.name for p in MODELS.glob("*/config.json")))
        raise cli.UserError(f"--model {args.model}: not one of {known}")
    make(args.weights, MODELS / args.model, args.wheel, args.save_path)


if __name__ == "__main__":
    cli.run(main)
