"""A fine-tuned encoder as the 4-bit adapter of tools/source/adapter.py, which has the format; and back.

python -m lab.quantise adapter.safetensors --base FOLDER --save_path merged.safetensors
wrote merged.safetensors
"""

import json

import numpy as np
from safetensors.numpy import save

from tools.make import cli
from tools.source import adapter, tensors


def quantize(delta):
    """Round a matrix to 15 levels per row.

    delta: float [rows, columns], columns even.
    Returns (packed uint8 [rows, columns / 2], scale float32 [rows]).
    Each row takes the step of least squared error among 31 between max|row| / 14 and max|row| / 7.
    """
    delta = np.asarray(delta, np.float64)
    largest = np.maximum(np.abs(delta).max(axis=1), 1e-12)
    best = np.full(len(delta), np.inf)
    scale = np.zeros(len(delta), np.float32)
    for share in np.linspace(0.5, 1, 31):
        step = (largest * share / 7).astype(np.float32)
        error = ((delta - step[:, None] * levels(delta, step)) ** 2).sum(axis=1)
        scale = np.where(error < best, step, scale)
        best = np.minimum(error, best)
    codes = (levels(delta, scale) + 8).astype(np.uint8)
    return codes[:, 0::2] | codes[:, 1::2] << 4, scale


def levels(delta, scale):
    """The nearest of -7..7 steps for each element of `delta` [rows, columns]; `scale` [rows]; float64."""
    return np.clip(np.rint(delta / scale[:, None].astype(np.float64)), -7, 7)


def quantize_left(left, right):
    """(int8 [rows, rank], float32 [rank, columns]) whose product is nearly that of two float matrices."""
    scale = np.maximum(np.abs(left).max(axis=0), 1e-12) / 127
    return np.rint(left / scale).astype(np.int8), (right * scale[:, None]).astype(np.float32)


def pack(base_tensors, tuned):
    """The adapter's tensors that turn `base_tensors` into (nearly) `tuned`.

    Both dict[str, np.ndarray] of float32, `tuned` under the merged checkpoint's names. Matrices that both
    have become 4-bit differences, unchanged tensors are left out, everything else is stored whole.
    """
    base, out = adapter.encoder(base_tensors), {}
    for name, t in tuned.items():
        if name.endswith(".right"):
            continue
        if name.endswith(".left"):
            right = name.removesuffix("left") + "right"
            out[name], out[right] = quantize_left(t, tuned[right])
            continue
        if name in base and t.ndim == 2 and not np.array_equal(t, base[name]):
            out[f"{name}.delta"], out[f"{name}.scale"] = quantize(t.astype(np.float64) - base[name])
        elif name not in base or not np.array_equal(t, base[name]):
            out[name] = t
    return out


def write(path, base_tensors, packed, **facts):
    """Write `packed` (from `pack`) and, as metadata, `facts` (JSON values); returns the merged tensors."""
    merged = adapter.combine(base_tensors, packed, path)
    # One metadata entry only: safetensors does not keep the order of several, and the bytes must not vary.
    facts = json.dumps({**facts, "merged_sha256": adapter.digest(merged)}, sort_keys=True)
    cli.write(path, save(packed, {"adapter": facts}))
    return merged


def main():
    p = cli.parser(__doc__)
    p.add_argument("adapter", help="the adapter's .safetensors")
    p.add_argument("--base", required=True, help="folder of the encoder that it was trained on")
    p.add_argument("--save_path", required=True, help="the merged .safetensors to write")
    args = p.parse_args()
    merged = adapter.merge(tensors.read_tensors(args.base)[1], args.adapter)
    cli.write(args.save_path, save(merged, {"format": "pt"}))
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
