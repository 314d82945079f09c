"""The committed fine-tuning of minilm_sst2: a 4-bit difference to a public BERT encoder, and how to add it.

    tensors = adapter.merge(base_tensors, "models/minilm_sst2/adapter.safetensors")

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

Merging is elementwise: each step is one IEEE 754 operation on one element, so the bits are the same on any machine; those
of a matrix product would depend on the order in which the CPU's BLAS sums.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from tools.make import cli


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
    return {n if n.startswith("bert.") else f"bert.{n}": t for n, t in base_tensors.items() if t.dtype == np.float32}


def merge(base_tensors, adapter_path):
    """A BertForSequenceClassification's tensors, {name: float32}, of those of its encoder, names with or without `bert.`;
    UserError where the file is no adapter, does not fit the base, or merges to another digest than it records."""
    tensors, facts = read_adapter(adapter_path)
    merged = combine(base_tensors, tensors, adapter_path)
    if (sha256 := digest(merged)) != facts["merged_sha256"]:
        raise cli.UserError(
            f"{adapter_path}: merging gives {sha256}, the adapter was made to give {facts['merged_sha256']}; "
            "the base is not the one it was trained on"
        )
    return merged


def read_adapter(path):
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
    """`merge` without the digest; UserError, which begins with `where`, where the two do not fit."""
    merged = dict(encoder(base_tensors))
    for name, tensor in tensors.items():
        matrix, _, kind = name.rpartition(".")
        part = lambda kind, name=matrix: tensors[f"{name}.{kind}"]
        try:
            if kind == "delta":
                merged[matrix] = apply_delta(merged[matrix], tensor, part("scale"))
            elif kind == "left":
                merged[matrix] = apply_low_rank(merged[matrix], tensor, part("right"))
            elif kind not in ("scale", "right"):
                merged[name] = tensor
        except (KeyError, ValueError, IndexError, TypeError) as e:
            raise cli.UserError(f"{where}: {name} does not fit the base ({e}); is it the right base?") from None
    return merged
