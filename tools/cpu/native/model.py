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


class Graph:
    """An ONNX graph walked from its output to its inputs, by structure: names play no part, except the inputs'.

    Every step states what it expects; anything else raises UserError with the name of the tensor.
    """

    def __init__(self, path):
        import onnx
        from onnx import numpy_helper

        self.path = path
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as e:  # protobuf raises its own kind of error for a truncated file
            raise cli.UserError(f"{path}: not an ONNX file ({type(e).__name__}); export it again") from e
        graph = model.graph
        tensors = {t.name: t for t in graph.initializer}
        constants = (n for n in graph.node if n.op_type == "Constant" and n.attribute[0].HasField("t"))
        tensors |= {n.output[0]: n.attribute[0].t for n in constants}
        for t in tensors.values():
            if t.data_location == onnx.TensorProto.EXTERNAL:
                raise cli.UserError(f"{path}: tensor {t.name} is kept in another file; export the model in one file")
        self.read = {name: (lambda t=t: numpy_helper.to_array(t)) for name, t in tensors.items()}
        self.nodes = {out: n for n in graph.node if n.op_type != "Constant" for out in n.output}
        self.inputs = [i.name for i in graph.input if i.name not in tensors]
        self.outputs = [o.name for o in graph.output]

    def fail(self, name, expected):
        found = self.nodes[name].op_type if name in self.nodes else "an input or a constant"
        raise cli.UserError(f"{self.path}: tensor {name}: expected {expected}, found {found}; {INSTEAD}")

    def node(self, name, *ops):
        """The node that makes `name`, seen through Identity, Cast and Dropout; its op_type must be one of ops."""
        while name in self.nodes and self.nodes[name].op_type in ("Identity", "Cast", "Dropout"):
            name = self.nodes[name].input[0]
        if name not in self.nodes or self.nodes[name].op_type not in ops:
            self.fail(name, " or ".join(ops))
        return self.nodes[name]

    def is_op(self, name, *ops):
        while name in self.nodes and self.nodes[name].op_type in ("Identity", "Cast", "Dropout"):
            name = self.nodes[name].input[0]
        return name in self.nodes and self.nodes[name].op_type in ops

    def const(self, name):
        """The value of a constant as an array, or None when `name` is computed."""
        while name in self.nodes and self.nodes[name].op_type == "Identity":
            name = self.nodes[name].input[0]
        return self.read[name]() if name in self.read else None

    def split(self, node):
        """A two-input node with one constant operand -> (name of the other, the constant)."""
        for a, b in (node.input[:2], node.input[1::-1]):
            if (value := self.const(b)) is not None:
                return a, value
        return self.fail(node.output[0], f"{node.op_type} with a constant")

    def scalar(self, node, value):
        """The other operand of a node whose constant operand is the scalar `value`."""
        name, found = self.split(node)
        if found.size != 1 or abs(float(found.reshape(())) - value) > 1e-4 * abs(value):
            self.fail(node.output[0], f"{node.op_type} with {value:g}")
        return name

    def skip(self, name, *ops):
        while self.is_op(name, *ops):
            name = self.node(name, *ops).input[0]
        return name

    def source(self, name):
        return self.skip(name, "Identity", "Cast", "Dropout")

    def linear(self, name):
        """x W + b -> (name of x, W [k, n], b [n])."""
        name = self.skip(name, "Reshape") if self.is_op(name, "Reshape") else name
        node = self.node(name, "Add", "Gemm")
        if node.op_type == "Gemm":
            at = {a.name: a for a in node.attribute}
            if any(at[k].f != 1 for k in ("alpha", "beta") if k in at) or ("transA" in at and at["transA"].i):
                self.fail(name, "a plain Gemm")
            weight, bias = self.const(node.input[1]), self.const(node.input[2])
            weight = weight.T if "transB" in at and at["transB"].i else weight
            x = self.skip(node.input[0], "Reshape")
        else:
            product, bias = self.split(node)
            x, weight = self.split(self.node(product, "MatMul"))
        if weight.ndim != 2 or bias.shape != (weight.shape[1],):
            self.fail(name, "a dense layer")
        return self.source(x), weight, bias

    def norm(self, name):
        """LayerNorm -> (name of x, gamma, beta, eps), from one node or from its decomposition."""
        if self.is_op(name, "LayerNormalization"):
            node = self.node(name, "LayerNormalization")
            eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            return node.input[0], self.const(node.input[1]), self.const(node.input[2]), float(np.float32(eps))
        scaled, beta = self.split(self.node(name, "Add"))
        ratio, gamma = self.split(self.node(scaled, "Mul"))
        over, root = self.node(ratio, "Div").input
        centred, eps = self.split(self.node(self.node(root, "Sqrt").input[0], "Add"))
        square = self.node(self.node(centred, "ReduceMean").input[0], "Pow", "Mul")
        sub = self.node(over, "Sub")
        mean = self.node(sub.input[1], "ReduceMean")
        if self.source(square.input[0]) != self.source(over) or mean.input[0] != sub.input[0]:
            self.fail(name, "a LayerNorm")
        return sub.input[0], gamma, beta, float(eps.reshape(()))

    def residual(self, name):
        """Add(dense, x) in either order -> (x W + b's output, x)."""
        a, b = self.node(name, "Add").input
        a, b = self.source(a), self.source(b)
        # x is a LayerNorm's output: the dense layer is the operand that is Add(MatMul, constant) or Gemm
        for dense, x in ((a, b), (b, a)):
            inner = self.skip(dense, "Reshape")
            if self.is_op(inner, "Gemm"):
                return dense, x
            if self.is_op(inner, "Add"):
                node = self.node(inner, "Add")
                constant = any(self.const(i) is not None for i in node.input)
                if constant and any(self.is_op(i, "MatMul") for i in node.input):
                    return dense, x
        return self.fail(name, "a residual connection")

    def gelu(self, name):
        """The exact GELU, t/2 (1 + erf(t / sqrt 2)), in its usual spellings -> name of t."""
        if self.is_op(name, "Gelu"):
            return self.node(name, "Gelu").input[0]
        node = self.node(name, "Mul")
        half = [c for i in node.input if (c := self.const(i)) is not None]
        if half:  # (t (1 + erf)) / 2
            node = self.node(self.scalar(node, 0.5), "Mul")
            a, b = node.input
        else:  # (t / 2) (1 + erf)
            a, b = node.input
            halved = a if self.is_op(a, "Mul") else b
            a, b = self.scalar(self.node(halved, "Mul"), 0.5), b if halved == a else a
        one = b if self.is_op(b, "Add") and self.is_op(self.split(self.node(b, "Add"))[0], "Erf") else a
        t = self.source(a if one == b else b)
        node = self.node(self.node(self.scalar(self.node(one, "Add"), 1), "Erf").input[0], "Div", "Mul")
        if self.source(self.scalar(node, 2**0.5 if node.op_type == "Div" else 0.5**0.5)) != t:
            self.fail(name, "GELU")
        return t

    def attention(self, name):
        """Name of the merged heads -> ((x, W, b) of query, key, value, dims of a head)."""
        heads = self.skip(name, "Reshape", "Transpose")
        p, v = self.node(heads, "MatMul").input
        scores = self.node(self.node(p, "Softmax").input[0], "Add")
        candidates = [i for i in scores.input if self.is_op(i, "Mul", "Div")]
        scaled = next((i for i in candidates if self.is_op(self.computed(i), "MatMul")), None)
        if scaled is None:
            self.fail(scores.output[0], "scaled scores + mask")
        node = self.node(scaled, "Mul", "Div")
        product, factor = self.split(node)
        factor = float(factor.reshape(()))
        dims = round(factor**2 if node.op_type == "Div" else factor**-2)
        if abs((factor if node.op_type == "Div" else 1 / factor) - dims**0.5) > 1e-3:
            self.fail(scaled, "scores over the square root of the head's size")
        q, k = self.node(product, "MatMul").input
        return [self.linear(self.skip(i, "Reshape", "Transpose")) for i in (q, k, v)], dims

    def computed(self, name):
        """The computed operand of a node with one constant operand, or the name itself."""
        node = self.node(name, "Mul", "Div")
        return next((i for i in node.input if self.const(i) is None), name)

    def embeddings(self, name):
        """Sum of three table look-ups -> word [vocab, h], position [positions, h], type [types, h]."""
        tables, todo = {}, [name]
        while todo:
            node = self.node(todo.pop(), "Add", "Gather", "Slice")
            if node.op_type == "Add":
                for i in node.input:  # fixed positions may have been folded to a constant
                    value = self.const(i)
                    if value is None:
                        todo.append(i)
                    else:
                        tables["position"] = value.reshape(-1, value.shape[-1])
                continue
            table = self.const(node.input[0])
            if table is None or table.ndim < 2:
                self.fail(node.output[0], "an embedding table")
            index = self.source(node.input[1]) if node.op_type == "Gather" else ""
            # a model without a type input makes its zeros itself; two rows cannot be positions
            kind = "word" if index == "input_ids" else "type" if index in self.inputs or len(table) < 8 else "position"
            if kind in tables:
                self.fail(node.output[0], f"one {kind} table, not two")
            tables[kind] = table.reshape(-1, table.shape[-1])
        if set(tables) != {"word", "position", "type"} and set(tables) != {"word", "position"}:
            self.fail(name, "word, position and type embeddings")
        return tables

    def bert(self):
        """The whole classifier as {"eps", "relu", "heads", "word", …, "layers": [{…}]}, all arrays float32."""
        x, head, head_bias = self.linear(self.outputs[0])
        relu = self.is_op(x, "Relu")
        x, pool, pool_bias = self.linear(self.node(self.node(x, "Relu").input[0] if relu else x, "Tanh").input[0])
        first = self.node(x, "Gather", "Slice", "Squeeze")
        x = self.source(first.input[0])
        layers, eps = [], set()
        while True:
            total, gamma2, beta2, e2 = self.norm(x)
            if not self.is_op(total, "Add") or any(self.is_op(i, "Gather") for i in self.node(total, "Add").input):
                break
            dense, middle = self.residual(total)
            inner, down, down_bias = self.linear(dense)
            below, up_, up_bias = self.linear(self.gelu(inner))
            total, gamma1, beta1, e1 = self.norm(middle)
            dense, x = self.residual(total)
            merged, out, out_bias = self.linear(dense)
            qkv, dims = self.attention(merged)
            if {i[0] for i in qkv} != {x} or below != middle:
                self.fail(merged, "attention and feed-forward over the layer's own input")
            eps |= {e1, e2}
            layers.insert(0, {
                "q": qkv[0][1:], "k": qkv[1][1:], "v": qkv[2][1:], "out": (out, out_bias), "up": (up_, up_bias),
                "down": (down, down_bias), "out.norm": (gamma1, beta1), "down.norm": (gamma2, beta2),
            })  # fmt: skip
        if not layers or len(eps | {e2}) != 1 or head.shape[1] != 2:
            self.fail(self.outputs[0], "a BERT classifier with two labels and one epsilon")
        tables = self.embeddings(total)
        position = tables["position"] + (tables["type"][0] if "type" in tables else 0)
        return {
            "word": tables["word"], "position": position, "norm": (gamma2, beta2), "layers": layers, "eps": e2,
            "heads": out.shape[0] // dims, "relu": relu, "pooler": (pool, pool_bias), "classifier": (head, head_bias),
            "inputs": self.inputs,
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
    try:
        net = Graph(onnx_path).bert()
    except (IndexError, KeyError, AttributeError, ValueError) as e:  # a node or constant that is not there
        raise cli.UserError(f"{onnx_path}: not the graph of a BERT classifier ({e}); export it again") from None
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
