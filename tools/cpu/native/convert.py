"""Convert an exported BERT classifier to a model.native file, with its weights in the tiles that the engine reads.

README.md here describes the file. The same ONNX file gives the same bytes.
"""

import json
import struct

import numpy as np

from tools.base.input_files import PADDING, UNMASKED
from tools.cpu.native.model import GELU_FLOOR, INSTEAD, MAGIC, check_arch, sizes, tensors
from tools.graph import classifier, encoder
from tools.make import cli

# ---- reading the ONNX graph -------------------------------------------------------------------------------------


def norm_of(norm, hidden):
    """(gamma, beta), float32 [hidden] each, of a LayerNorm; ones and zeros may be missing from a simplified graph."""
    gamma = np.ones(hidden, np.float32) if norm.gamma is None else norm.gamma
    return gamma, np.zeros(hidden, np.float32) if norm.beta is None else norm.beta


def layer_of(layer, hidden):
    """One encoder layer as {name: (weight [in, out], bias [out])}, and {name.norm: (gamma, beta)} of what follows."""
    parts = {"q": layer.query, "k": layer.key, "v": layer.value, "out": layer.dense, "up": layer.up, "down": layer.down}
    dense = {name: (part.weight, part.bias) for name, part in parts.items()}
    return {**dense, "out.norm": norm_of(layer.norm1, hidden), "down.norm": norm_of(layer.norm2, hidden)}


def read_classifier(path):
    """An exported BERT classifier as {"word", "position", "layers", "heads", "eps", ...}, arrays float32. UserError for a
    graph that the engine cannot compute."""
    model = encoder.load(path)
    try:
        bert = classifier.read_classifier(model.graph)
        layers, hidden = bert.encoder.layers, bert.pooler.weight.shape[0]
        inputs = [v.name for v in model.graph.inputs]
        eps = {norm.eps for layer in layers for norm in (layer.norm1, layer.norm2)} | {bert.encoder.embedding.eps}
        if len(eps) != 1:
            raise encoder.Miss(f"LayerNorm: {len(eps)} epsilons, expected one")
        if bert.encoder.projection and bert.word.shape[1] == hidden:
            raise encoder.Miss("embeddings: as wide as the layers, and yet a linear layer stands between them")
        if bert.encoder.pad is not None and (inputs, bert.encoder.pad) != ([UNMASKED], PADDING):
            raise encoder.Miss(f"mask: hides {bert.encoder.pad} of {', '.join(inputs)}, not {PADDING} of {UNMASKED}")
        for i, layer in enumerate(layers):
            if (layer.gelu == "tanh") != (layers[0].gelu == "tanh"):
                raise encoder.Miss(f"layer {i}: another form of GELU than layer 0's, expected one")
            if abs(layer.scale**2 * hidden / layer.heads - 1) > 1e-3:
                raise encoder.Miss(f"layer {i}: scores times {layer.scale:g}, expected 1 / sqrt(size of a head)")
    except encoder.Miss as e:
        raise cli.UserError(f"{path}: not what the native engine computes: {e}; {INSTEAD}") from None
    types = np.zeros((1, bert.word.shape[1]), np.float32) if bert.type is None else bert.type
    return {
        "word": bert.word, "position": bert.position + types[0], "types": types,
        "norm": norm_of(bert.encoder.embedding, bert.word.shape[1]), "projection": bert.encoder.projection,
        "layers": [layer_of(layer, hidden) for layer in layers], "inputs": inputs,
        "eps": float(np.float32(*eps)), "heads": layers[0].heads, "head": bert.head,
        "gelu": "tanh" if layers[0].gelu == "tanh" else "erf",
        "pooler": (bert.pooler.weight, bert.pooler.bias), "classifier": (bert.last.weight, bert.last.bias),
    }  # fmt: skip


# ---- writing the file -------------------------------------------------------------------------------------------


def narrow(x, precision):
    """float32 as it is for fp32, and for bf16 the nearest (ties to even) as uint16."""
    x = np.ascontiguousarray(x, np.float32)
    u = x.view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16) if precision == "bf16" else x


def pad(x, *shape):
    """x in the top left corner of zeros."""
    out = np.zeros(shape, x.dtype)
    out[tuple(slice(n) for n in x.shape)] = x
    return out


def tile(w):
    """Weights [k, n], float32, uint16 (bf16) or int8, as B tiles: [n/32][k/KT][2][16][16 columns x 1, 2 or 4 k's]."""
    k, n = w.shape
    group = 4 // w.itemsize
    w = w.reshape(k // (16 * group), 16, group, n // 32, 2, 16)
    return np.ascontiguousarray(w.transpose(3, 0, 4, 1, 5, 2))


def dense(layer, k, n, precision, slice_=0, smooth=None, floor=0.0):
    """The tensors of a (weight, bias): tiled weight, bias[, scale per column[, smooth]]. In int8 each column has a scale."""
    weight, bias, more = pad(layer[0], k, n), pad(layer[1], n), []
    if precision != "int8":
        q = narrow(weight, precision)
    else:
        if smooth is not None:
            weight /= smooth[:, None]
        top = np.abs(weight).max(0)
        step = np.where(top > 0, top / np.float32(127), np.float32(1)).astype(np.float32)
        q = np.rint(weight / step).astype(np.int8)
        bias = bias - floor * q.sum(0, dtype=np.int64) * step
        more = [step] if smooth is None else [step, smooth]
    step = slice_ or k
    tiles = np.concatenate([tile(q[i : i + step]).reshape(-1) for i in range(0, k, step)])
    return [tiles, bias.astype(np.float32), *more]


def smoothing(norm, weight, width):
    """A factor per input channel that evens out the result of a LayerNorm, (gamma, beta), against the weights' rows:
    SmoothQuant's rule with alpha 1/2 (arXiv:2211.10438). It takes 3 |gamma| + |beta| for a channel's range, and so needs
    no calibration data."""
    gamma, beta = norm
    x = np.maximum(3 * np.abs(gamma) + np.abs(beta), 1e-5)
    w = np.maximum(np.abs(weight).max(1), 1e-5)
    factor = np.sqrt(w / x)
    return np.concatenate([factor / factor.mean(), np.ones(width - len(x))]).astype(np.float32)


def payload(net, arch):
    """All tensors of the file, in the order of `tensors(arch)`, as a list of arrays."""
    s, hidden, heads = sizes(arch), arch["hidden"], arch["heads"]
    wide, width, projection = arch["wide"], s["e"], net["projection"]
    parts = [narrow(pad(net["word"], arch["vocab"], width), wide), pad(net["position"], arch["positions"], width)]
    parts += [pad(x, width) for x in net["norm"]]
    before = gamma, beta = net["norm"]  # spread and mean of each column that enters a layer
    if projection is not None:
        before = np.sqrt(gamma**2 @ projection.weight**2), beta @ projection.weight + projection.bias
    for layer, precision in zip(net["layers"], arch["precisions"], strict=True):
        int8 = precision == "int8"
        qkv = [np.concatenate([layer[i][part] for i in "qkv"], -1) for part in (0, 1)]
        smooth = smoothing(before, qkv[0], s["h"]) if int8 else None
        parts += dense(qkv, s["h"], s["qkv"], precision, smooth=smooth)
        # attention leaves each head at a multiple of 32 columns: the weights' rows follow
        out = pad(layer["out"][0].reshape(heads, -1, hidden), heads, s["hdp"], hidden).reshape(-1, hidden)
        parts += dense((out, layer["out"][1]), s["ctx"], s["h"], precision)
        parts += [pad(x, s["h"]) for x in layer["out.norm"]]
        smooth = smoothing(layer["out.norm"], layer["up"][0], s["h"]) if int8 else None
        parts += dense(layer["up"], s["h"], s["inter"], precision, smooth=smooth)
        parts += dense(layer["down"], s["inter"], s["h"], precision, s["slice"], floor=GELU_FLOOR)
        before = layer["down.norm"]
        parts += [pad(x, s["h"]) for x in before]
    parts += dense(net["pooler"], s["h"], s["h"], wide)
    weight, bias = net["classifier"]
    parts += [pad(weight.T, len(bias), s["h"]), bias]
    if arch["types"]:
        parts.append(pad(net["types"] - net["types"][0], arch["types"], width))
    if projection is not None:
        parts += dense((projection.weight, projection.bias), width, s["h"], wide)
    return parts


def architecture(net, precisions, types):
    """The header's facts. What BERT with two labels has is left out, so that such files keep their bytes."""
    labels = len(net["classifier"][1])
    hidden, inter = net["layers"][0]["up"][0].shape
    more = {
        "head": not net["head"].startswith("tanh") and net["head"], "gelu": net["gelu"] != "erf" and net["gelu"],
        "labels": labels != 2 and labels, "types": types and len(net["types"]),
        "width": net["projection"] is not None and net["word"].shape[1],
    }  # fmt: skip
    return {
        "layers": len(net["layers"]), "hidden": hidden, "heads": net["heads"], "inter": inter,
        "vocab": len(net["word"]), "positions": len(net["position"]), "relu": net["head"] == "tanh relu",
        "eps": net["eps"], "precisions": precisions, **{name: value for name, value in more.items() if value},
    }  # fmt: skip


def convert(onnx_path, out_path, precision, bf16_layers=(), types=False):
    """Convert an ONNX BERT classifier (float32) to `out_path`, in a precision of chips.ENGINES["native"]. Raises UserError for
    a weight that is not finite.

    int8-bf16 keeps bf16 activations between its products. int8 needs no calibration: weights have a scale per output
    channel, activations one per token. bf16_layers: numbers of the layers that stay bf16. types: whether the file holds
    all token types, for pairs of texts, and not type 0 alone.
    """
    net, number = read_classifier(onnx_path), precision.removesuffix("-bf16")
    facts = architecture(net, ["bf16" if i in bf16_layers else number for i in range(len(net["layers"]))], types)
    facts |= {"activations": "fp32"} if precision == "int8" else {}
    arch = check_arch(facts, onnx_path)
    facts |= {"inputs": net["inputs"], "source_sha256": cli.sha256(onnx_path)}
    header = json.dumps(facts, sort_keys=True).encode()
    with cli.whole_file(out_path) as f:
        f.write(MAGIC + struct.pack("<I", len(header)) + header)
        f.write(bytes(-f.tell() % 4096))
        for (name, size), value in zip([t for t in tensors(arch) if t[1]], payload(net, arch), strict=True):
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise cli.UserError(f"{onnx_path}: {name} holds a value that is not a finite number; export it again")
            assert value.nbytes == size, (name, value.nbytes, size)
            f.write(value.tobytes() + bytes(-size % 64))
