"""Convert an exported BERT classifier to a model.native file, and run it on the CPU's matrix units without padding.

    python -m tools.cpu.native.model --onnx model.onnx --precision int8 --bf16_layers 5 --save_path model.native

        model.native: 37124672 bytes, layers int8 int8 int8 int8 int8 bf16

    from tools.cpu.native import model as native
    model = native.Model("model.native", threads=2)
    logits = model.run([[101, 2023, 102], [101, 102]])      # float32 [2, 2]

The engine itself is tools/cpu/native/engine.c (make builds build/lib/native.so of it). It needs AMX and AVX-512;
elsewhere `Model.cpu_supports` says so and names what to use instead.

A model.native file is, in this order:
    8 bytes   magic "bert2om1"
    4 bytes   little-endian length of the header
    header    JSON: architecture, precision of every layer, sha256 of the ONNX file
    zeros     up to a multiple of 4096
    payload   the tensors that `tensors()` lists, each at a multiple of 64; their sizes follow from the header
The weights are cut into tiles as the matrix units read them. The same ONNX file gives the same bytes.
"""

import argparse
import ctypes
import json
import mmap
import os
import platform
import struct
import threading
from pathlib import Path

import numpy as np

from tools import cli
from tools.base import cpu

MAGIC = b"bert2om1"
PRECISIONS = ("bf16", "int8")
LIBRARY = cli.ROOT / "build" / "lib" / "native.so"
INSTEAD = "use ENGINE=openvino or ENGINE=onnxruntime"
GELU_FLOOR = 0.171875  # the same in engine.c: int8 moves GELU's result up by this, to fill an unsigned byte
LIMITS = {  # what a header may say: larger values are not BERT classifiers, and would overflow an index in C
    "layers": 96, "hidden": 4096, "heads": 64, "inter": 16384, "vocab": 1 << 20, "positions": 4096,
}  # fmt: skip


def up(x, to):
    return (x + to - 1) // to * to


# ---- the file's layout ------------------------------------------------------------------------------------------


def sizes(arch):
    """Padded sizes of an architecture: what engine.c's `sizes` computes."""
    hdp = up(arch["hidden"] // arch["heads"], 32)
    ways = -(-arch["inter"] // 1024) if arch["inter"] > 1536 else 1
    return {
        "slice": up(-(-arch["inter"] // ways), 64),  # of the feed-forward: what leaves room in a 2 MB L2
        "h": up(arch["hidden"], 64),
        "hdp": hdp,
        "ctx": up(arch["heads"] * hdp, 64),
        "inter": up(arch["inter"], 64),
        "qkv": up(3 * arch["hidden"], 32),
    }


def tensors(arch):
    """Names and sizes in bytes of the payload's tensors, in the file's order. engine.c indexes them by position."""
    s, bf16, f32 = sizes(arch), 2, 4
    yield "word", arch["vocab"] * s["h"] * bf16
    yield "position", arch["positions"] * s["h"] * f32
    yield from ((name, s["h"] * f32) for name in ("norm.gamma", "norm.beta"))
    for i, precision in enumerate(arch["precisions"]):
        int8 = precision == "int8"
        for name, k, n, smooth in (
            ("qkv", s["h"], s["qkv"], True),
            ("out", s["ctx"], s["h"], False),
            ("up", s["h"], s["inter"], True),
            ("down", s["inter"], s["h"], False),
        ):
            yield f"{i}.{name}.weight", k * n * (1 if int8 else bf16)
            yield f"{i}.{name}.bias", n * f32
            yield f"{i}.{name}.scale", n * f32 * int8
            if smooth:
                yield f"{i}.{name}.smooth", k * f32 * int8
            if name in ("out", "down"):
                yield from ((f"{i}.{name}.{part}", s["h"] * f32) for part in ("gamma", "beta"))
    yield "pooler.weight", s["h"] * s["h"] * bf16
    yield "pooler.bias", s["h"] * f32
    yield "classifier.weight", 2 * s["h"] * f32
    yield "classifier.bias", 2 * f32


def offsets(arch):
    """Where each tensor starts in the payload, and the payload's length."""
    at, where = 0, []
    for _, size in tensors(arch):
        where.append(at)
        at += up(size, 64)
    return where, at


def check_arch(arch, where):
    """Raise UserError unless a header's values are ones that engine.c can index without a check of its own."""
    try:
        bad = next((k for k, most in LIMITS.items() if type(arch[k]) is not int or not 0 < arch[k] <= most), None)
        h, heads = arch["hidden"], arch["heads"]
        if not bad and (h % heads or h // heads % 2 or h // heads > 64):
            bad = "heads"
        if not bad and (type(arch["eps"]) is not float or not 0 < arch["eps"] < 1):
            bad = "eps"
        if not bad and arch["relu"] not in (True, False):
            bad = "relu"
        precisions = arch["precisions"]
        if not bad and (len(precisions) != arch["layers"] or not set(precisions) <= set(PRECISIONS)):
            bad = "precisions"
    except (KeyError, TypeError) as e:
        bad = str(e)
    if bad:
        raise cli.UserError(f"{where}: no architecture the native engine knows: {bad}; {INSTEAD}")


# ---- reading the ONNX graph -------------------------------------------------------------------------------------


def norm_of(norm, hidden):
    """(gamma, beta), float32 [hidden] each, of a LayerNorm whose ones and zeros may have been simplified away."""
    gamma = np.ones(hidden, np.float32) if norm.gamma is None else norm.gamma
    return gamma, np.zeros(hidden, np.float32) if norm.beta is None else norm.beta


def layer_of(layer, hidden):
    """One encoder layer as {name: (weight [in, out], bias [out])}, and {name.norm: (gamma, beta)} of what follows."""
    parts = {"q": "query", "k": "key", "v": "value", "out": "dense", "up": "up", "down": "down"}
    found = {name: (getattr(layer, whole).weight, getattr(layer, whole).bias) for name, whole in parts.items()}
    return {**found, "out.norm": norm_of(layer.norm1, hidden), "down.norm": norm_of(layer.norm2, hidden)}


def read(path):
    """An exported BERT classifier as {"word", "position", "layers", "heads", "eps", ...}, arrays float32.

    Raises UserError where the graph is another one, or has what the engine does not compute.
    """
    from tools.graph import classifier, encoder

    model = encoder.load(path)
    try:
        found = classifier.read(model.graph)
        layers, hidden = found.encoder.layers, found.word.shape[1]
        eps = {norm.eps for layer in layers for norm in (layer.norm1, layer.norm2)} | {found.encoder.embedding.eps}
        if len(eps) != 1:
            raise encoder.Miss(f"LayerNorm: {len(eps)} epsilons, expected one")
        if found.last.weight.shape[1] != 2:
            raise encoder.Miss(f"classifier: {found.last.weight.shape[1]} labels, expected 2")
        for i, layer in enumerate(layers):
            if abs(layer.scale**2 * hidden / layer.heads - 1) > 1e-3:
                raise encoder.Miss(f"layer {i}: scores times {layer.scale:g}, expected 1 / sqrt(size of a head)")
    except encoder.Miss as e:
        raise cli.UserError(f"{path}: not what the native engine computes: {e}; {INSTEAD}") from None
    return {
        "word": found.word, "position": found.position + (0 if found.type is None else found.type[0]),
        "norm": norm_of(found.encoder.embedding, hidden), "layers": [layer_of(layer, hidden) for layer in layers],
        "eps": float(np.float32(*eps)), "heads": layers[0].heads, "relu": found.relu,
        "pooler": (found.pooler.weight, found.pooler.bias), "classifier": (found.last.weight, found.last.bias),
        "inputs": [v.name for v in model.graph.inputs],
    }  # fmt: skip


# ---- writing the file -------------------------------------------------------------------------------------------


def to_bf16(x):
    """float32 -> the nearest bfloat16 (ties to even) as uint16."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def pad(x, *shape):
    """x in the top left corner of zeros."""
    out = np.zeros(shape, x.dtype)
    out[tuple(slice(n) for n in x.shape)] = x
    return out


def tile(w):
    """Weights [k, n], uint16 (bf16) or int8, as B tiles: [n/32][k/KT][2][16][16 columns x 2 or 4 k's]."""
    k, n = w.shape
    group = 4 // w.itemsize
    w = w.reshape(k // (16 * group), 16, group, n // 32, 2, 16)
    return np.ascontiguousarray(w.transpose(3, 0, 4, 1, 5, 2))


def dense(weight, bias, k, n, precision, slice_=0, smooth=None, floor=0.0):
    """One dense layer's tensors: tiled weight, bias[, scale per column]. int8 rounds each column to its own scale."""
    weight, bias, scale = pad(weight, k, n), pad(bias, n), []
    if precision == "bf16":
        q = to_bf16(weight)
    else:
        if smooth is not None:
            weight /= smooth[:, None]
        top = np.abs(weight).max(0)
        step = np.where(top > 0, top / np.float32(127), np.float32(1)).astype(np.float32)
        q = np.rint(weight / step).astype(np.int8)
        bias = bias - floor * q.sum(0, dtype=np.int64) * step
        scale = [step]
    step = slice_ or k
    tiles = np.concatenate([tile(q[i : i + step]).reshape(-1) for i in range(0, k, step)])
    return [tiles, bias.astype(np.float32), *scale]


def smoothing(gamma, beta, weight, width):
    """Factor per input channel that evens out LayerNorm's result against the weights' rows (SmoothQuant's rule with
    alpha 1/2, arXiv:2211.10438), with 3 |gamma| + |beta| for the channel's range: it needs no calibration data."""
    x = np.maximum(3 * np.abs(gamma) + np.abs(beta), 1e-5)
    w = np.maximum(np.abs(weight).max(1), 1e-5)
    factor = np.sqrt(w / x)
    return np.concatenate([factor / factor.mean(), np.ones(width - len(x))]).astype(np.float32)


def payload(net, arch):
    """All tensors of the file, in the order of `tensors(arch)`, as a list of arrays."""
    s, hidden, heads = sizes(arch), arch["hidden"], arch["heads"]
    parts = [to_bf16(pad(net["word"], arch["vocab"], s["h"])), pad(net["position"], arch["positions"], s["h"])]
    parts += [pad(x, s["h"]) for x in net["norm"]]
    gamma, beta = net["norm"]
    for layer, precision in zip(net["layers"], arch["precisions"], strict=True):
        int8 = precision == "int8"
        qkv = np.concatenate([layer[i][0] for i in "qkv"], 1)
        smooth = [smoothing(gamma, beta, qkv, s["h"])] if int8 else []
        parts += dense(qkv, np.concatenate([layer[i][1] for i in "qkv"]), s["h"], s["qkv"], precision, 0, *smooth)
        parts += smooth
        # attention leaves each head at a multiple of 32 columns: the weights' rows follow
        out = pad(layer["out"][0].reshape(heads, -1, hidden), heads, s["hdp"], hidden).reshape(-1, hidden)
        parts += dense(out, layer["out"][1], s["ctx"], s["h"], precision)
        parts += [pad(x, s["h"]) for x in layer["out.norm"]]
        smooth = [smoothing(*layer["out.norm"], layer["up"][0], s["h"])] if int8 else []
        parts += dense(*layer["up"], s["h"], s["inter"], precision, 0, *smooth)
        parts += smooth
        parts += dense(*layer["down"], s["inter"], s["h"], precision, s["slice"], floor=GELU_FLOOR)
        gamma, beta = layer["down.norm"]
        parts += [pad(x, s["h"]) for x in (gamma, beta)]
    parts += dense(*net["pooler"], s["h"], s["h"], "bf16")
    return [*parts, pad(net["classifier"][0].T, 2, s["h"]), net["classifier"][1]]


def architecture(net, precisions):
    layer = net["layers"][0]
    hidden, inter = layer["up"][0].shape
    return {
        "layers": len(net["layers"]), "hidden": hidden, "heads": net["heads"], "inter": inter,
        "vocab": len(net["word"]), "positions": len(net["position"]), "relu": net["relu"],
        "eps": net["eps"], "precisions": precisions,
    }  # fmt: skip


def write(net, arch, source, path):
    """Write a model.native file. Raises UserError for a weight that is not finite."""
    header = json.dumps({**arch, "inputs": net["inputs"], "source_sha256": cli.sha256(source)}, sort_keys=True).encode()
    with cli.whole_file(path) as f:
        f.write(MAGIC + struct.pack("<I", len(header)) + header)
        f.write(bytes(-f.tell() % 4096))
        for (name, size), value in zip([t for t in tensors(arch) if t[1]], payload(net, arch), strict=True):
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise cli.UserError(f"{source}: {name} holds a value that is not a finite number; export it again")
            assert value.nbytes == size, (name, value.nbytes, size)
            f.write(value.tobytes() + bytes(-size % 64))


def convert(onnx_path, out_path, precision, bf16_layers=()):
    """Convert an ONNX BERT classifier (float32) to `out_path`; returns a report as a dict.

    precision: "bf16" or "int8". int8 needs no calibration: weights have a scale per output channel, activations one
    per token, found as they pass. bf16_layers: numbers of layers that stay bf16 all the same.
    Raises cli.UserError when the graph is not a BERT classifier or a layer does not exist.
    """
    if precision not in PRECISIONS:
        raise cli.UserError(f"--precision {precision}: the native engine knows {' and '.join(PRECISIONS)}")
    net = read(onnx_path)
    layers = range(len(net["layers"]))
    if wrong := set(bf16_layers) - set(layers):
        raise cli.UserError(f"--bf16_layers: no layer {min(wrong)}; {onnx_path} has layers 0 to {layers[-1]}")
    arch = architecture(net, ["bf16" if i in bf16_layers else precision for i in layers])
    check_arch(arch, onnx_path)
    write(net, arch, onnx_path, out_path)
    return {"precision": precision, "precisions": arch["precisions"], "bytes": Path(out_path).stat().st_size}


# ---- running ----------------------------------------------------------------------------------------------------


class Net(ctypes.Structure):
    """struct net of engine.c."""

    _fields_ = [
        *((n, ctypes.c_int32) for n in ["layers", "hidden", "heads", "inter", "vocab", "positions", "slice", "relu"]),
        ("eps", ctypes.c_float),
        *((n, ctypes.c_void_p) for n in ("base", "off", "int8")),
    ]


def load_library(path=None):
    path = Path(path or os.environ.get("BERT2OM_NATIVE") or LIBRARY)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as e:
        raise cli.UserError(
            f"{path}: cannot load the native engine ({e}); make it with `make build/lib/native.so`"
        ) from e
    library.native_bytes.restype = ctypes.c_int64
    return library


def memory(size):
    """Memory in 2 MB pages where the kernel has them: far fewer TLB misses when weights stream by."""
    m = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        m.madvise(mmap.MADV_HUGEPAGE)
    return m


def address(m):
    return ctypes.addressof(ctypes.c_char.from_buffer(m))


class Model:
    """A model.native file in memory. `run` may be called from several threads: calls wait for each other."""

    BLOCK, GROUP = 320, 4  # rows of a block; blocks a thread takes through the layers together

    def __init__(self, path, threads=2, library=None):
        """Raises cli.UserError for a file that is not whole or not ours, a missing library, or a CPU without AMX."""
        with Path(path).open("rb") as f:
            head = f.read(12)
            if len(head) < 12 or head[:8] != MAGIC:
                raise cli.UserError(f"{path}: not a model.native file; make it with tools/cpu/native/model.py")
            (length,) = struct.unpack("<I", head[8:])
            try:
                self.arch = json.loads(f.read(min(length, 1 << 20)))
            except ValueError as e:
                raise cli.UserError(f"{path}: the header is damaged; make the file again") from e
            check_arch(self.arch, path)
            inputs = self.arch.get("inputs")
            if not isinstance(inputs, list) or "input_ids" not in inputs or not any("mask" in str(i) for i in inputs):
                raise cli.UserError(f"{path}: the header names no inputs; make the file again")
            where, size = offsets(self.arch)
            start = up(12 + length, 4096)
            found = os.fstat(f.fileno()).st_size
            if found != start + size:
                raise cli.UserError(f"{path}: {found} bytes where the header promises {start + size}; make it again")
            self.library = load_library(library)
            self.precision = "int8" if "int8" in self.arch["precisions"] else "bf16"
            ok, why = self.cpu_supports(self.precision, library)
            if not ok:
                raise cli.UserError(f"{path}: {why}")
            self.weights = memory(size)
            f.seek(start)
            if f.readinto(self.weights) != size:
                raise cli.UserError(f"{path}: the file got shorter while it was read")
        self.offsets = np.array(where, np.int64)
        self.int8 = np.array([p == "int8" for p in self.arch["precisions"]], np.int32)
        self.threads, self.lock, self.work = threads, threading.Lock(), memory(0)
        known = self.arch | sizes(self.arch)
        names = [name for name, _ in Net._fields_[:9]]
        self.net = Net(
            *(known[name] for name in names), address(self.weights), self.offsets.ctypes.data, self.int8.ctypes.data
        )

    @staticmethod
    def cpu_supports(precision, library=None):
        """(True, "AMX") or (False, one line that says why and what to use instead)."""
        if platform.machine() not in ("x86_64", "AMD64"):
            return False, f"the native engine needs an x86-64 CPU with AMX, this is {platform.machine()}; {INSTEAD}"

        needs = {"avx512f", "avx512_bf16", "amx_int8" if precision == "int8" else "amx_bf16"}
        if cpu.cpu_flags(limited=False) >= needs > cpu.cpu_flags() & needs:
            return False, f"{cpu.without('AMX')}, which the native engine needs; {INSTEAD}"
        has = load_library(library).native_cpu()
        need, name = (2, "AMX int8") if precision == "int8" else (1, "AMX bf16 and AVX-512 bf16")
        if not has & need:
            return False, f"this CPU or its kernel has no {name}, which the native engine needs; {INSTEAD}"
        if not has & 4:
            return False, f"the kernel does not let this process use AMX (arch_prctl); {INSTEAD}"
        return True, name

    def run(self, batch):
        """Logits float32 [n, 2].

        batch: a list of n lists of token ids, computed without padding; or (ids int [n, S], lengths [n]) to compute
        all S tokens of each row, with those from lengths[i] on masked as keys. Token types are all 0.
        Raises cli.UserError for an id outside the vocabulary or a sentence that is empty or too long.
        """
        if isinstance(batch, tuple):
            ids, keys = np.asarray(batch[0]), np.asarray(batch[1], np.int32)
            rows = np.full(len(ids), ids.shape[1], np.int32)
            ids = ids.reshape(-1)
        else:
            rows = keys = np.fromiter(map(len, batch), np.int32, len(batch))
            ids = np.concatenate([np.zeros(0, np.int64), *batch])
        n, arch = len(rows), self.arch
        if not n:
            return np.zeros((0, 2), np.float32)
        bad = (rows > arch["positions"]) | (keys < 1) | (keys > rows)
        if bad.any():
            i = int(bad.argmax())
            raise cli.UserError(f"sentence {i}: {keys[i]} of {rows[i]} tokens; must be 1 to {arch['positions']}")
        if ids.min() < 0 or ids.max() >= arch["vocab"]:
            i = int(((ids < 0) | (ids >= arch["vocab"])).argmax())
            i, t = int(np.searchsorted(rows.cumsum(), i, "right")), ids[i]
            raise cli.UserError(f"sentence {i}: token id {t} is outside the vocabulary of {arch['vocab']}")
        start = np.concatenate([[0], rows[:-1].cumsum(dtype=np.int64)])
        ids, keys = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(keys)
        logits = np.empty((n, 2), np.float32)
        longest = int(rows.max())
        # every thread gets the same number of equal blocks
        room = -(-int(rows.sum()) // self.threads)
        block = max(up(-(-room // -(-room // self.BLOCK)), 32), 32)
        plan = (n, block, self.GROUP, longest, self.threads)
        with self.lock:
            need = self.library.native_bytes(ctypes.byref(self.net), *plan)
            if len(self.work) < need:
                self.work = memory(need)
            arrays = (a.ctypes.data_as(ctypes.c_void_p) for a in (ids, start, rows, keys))
            work, out = ctypes.c_void_p(address(self.work)), logits.ctypes.data_as(ctypes.c_void_p)
            self.library.native_run(ctypes.byref(self.net), *arrays, *plan, work, out)
        return logits


def main():
    parser = argparse.ArgumentParser(description="Convert an ONNX BERT classifier for the native CPU engine.")
    parser.add_argument("--onnx", required=True, help="exported model, float32")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--bf16_layers", type=int, nargs="*", default=[], help="layers that int8 leaves in bf16")
    parser.add_argument("--save_path", required=True, help="where to write model.native")
    args = parser.parse_args()
    report = convert(args.onnx, args.save_path, args.precision, args.bf16_layers)
    print(f"{args.save_path}: {report['bytes']} bytes, layers {' '.join(report['precisions'])}")


if __name__ == "__main__":
    cli.run(main)
