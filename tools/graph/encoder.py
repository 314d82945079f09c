"""Read the encoder of a BERT classifier out of an ONNX graph, by structure and never by node names.

    model = encoder.load("sim.onnx")
    enc = encoder.read_encoder(model.graph)        # an Encoder: weights, heads, scales, mask of every layer

Exports of opset 11 to 16, what onnxsim makes of them and what rewrite.py writes match: constants as nodes or
initializers, Gemm or MatMul + Add, Div or Mul for the score scale, 2-D and 3-D views, biases and LayerNorm weights that
were simplified away.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tools.base import onnxfile

if TYPE_CHECKING:
    import onnx_ir as ir

HEADS, KEY = (0, 2, 1, 3), (0, 2, 3, 1)  # Transpose permutations of query/value and of the key
SCALAR_OPS = {"Mul": lambda s, c: s * c, "Div": lambda s, c: s / c}


@dataclass
class Linear:
    x: "ir.Value"  # seen through Reshape
    weight: np.ndarray  # [in, out]
    bias: np.ndarray  # [out]
    out: "ir.Value"


@dataclass
class Norm:
    x: "ir.Value"
    gamma: np.ndarray | None  # [hidden]; None where simplified away (all ones)
    beta: np.ndarray | None
    eps: float
    out: "ir.Value"


@dataclass
class Layer:
    query: Linear
    key: Linear
    value: Linear
    heads: int
    scale: float  # scores are multiplied by it
    mask: "ir.Value"
    dense: Linear
    norm1: Norm
    up: Linear
    gelu: str  # its form: erf or tanh
    down: Linear
    norm2: Norm


@dataclass
class Encoder:
    embedding: Norm
    projection: Linear | None  # between embeddings of another size and the first layer
    layers: list[Layer]
    mask_input: "ir.Value"  # int64 [batch, length]: the attention mask, the sentence index of packed rows, or ids
    packed: bool  # the mask compares that input with itself, token by token
    pad: int | None  # the mask hides the tokens of this id: its input is the ids themselves
    mask_constant: float | None  # what the graph had
    last: "ir.Value"  # value that leaves the encoder


class Miss(Exception):
    """A piece of a layer that does not match."""


def const(v) -> np.ndarray | None:
    return v.const_value.numpy() if v is not None and v.const_value is not None else None


def scalar(v) -> float | None:
    c = const(v)
    return float(c.reshape(-1)[0]) if c is not None and c.size == 1 else None


def is_near(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) <= 1e-5


def made_by(v, *ops):
    """The node of one of these types that made `v`, or None."""
    node = v.producer() if v is not None else None
    return node if node is not None and node.op_type in ops else None


def need(v, piece: str, *ops):
    """The node that made `v`, of one of the types `ops`. Raises Miss, which begins with `piece`, for another."""
    node = made_by(v, *ops)
    if node is None:
        other = v.producer()
        instead = f"{other.op_type} {other.name!r}" if other else f"{v.name!r}"
        raise Miss(f"{piece}: expected {' or '.join(ops)}, found {instead}")
    return node


def perm_of(transpose) -> tuple:
    attr = transpose.attributes.get("perm")
    return tuple(attr.value) if attr else (3, 2, 1, 0)


def base(v):
    """`v` before any Reshape: 2-D and 3-D views of a tensor count as one."""
    while node := made_by(v, "Reshape", "Identity"):
        v = node.inputs[0]
    return v


def with_const(node):
    """(other input, constant) of a node with two inputs, the constant on either side; else None."""
    a, b = node.inputs[:2]
    if const(b) is not None:
        return a, b
    return (b, a) if const(a) is not None and node.op_type in ("Add", "Mul") else None


def sole_user(v):
    """The one node that reads `v`, seen through Reshape; None if several do."""
    users = v.consumers()
    if len(users) == 1 and users[0].op_type == "Reshape":
        return sole_user(users[0].outputs[0])
    return users[0] if len(users) == 1 else None


def vector_after(v, op: str):
    """(result, constant) when the only reader of `v` is `op` with a constant vector; else (v, None)."""
    node = sole_user(v)
    if node is not None and node.op_type == op and (pair := with_const(node)):
        c = const(pair[1])
        if base(pair[0]) is base(v) and c.ndim == 1 and c.size > 1:
            return node.outputs[0], c
    return v, None


def as_linear(node) -> Linear | None:
    """MatMul [+ Add], or Gemm [+ Add], with a constant weight."""
    weight = const(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return None
    bias = None
    if node.op_type == "Gemm":
        attr = {k: a.value for k, a in node.attributes.items()}
        if attr.get("transA", 0) or attr.get("alpha", 1.0) != 1 or attr.get("beta", 1.0) != 1:
            return None
        weight = weight.T if attr.get("transB", 0) else weight
        bias = const(node.inputs[2]) if len(node.inputs) > 2 else None
    out, added = vector_after(node.outputs[0], "Add")
    if bias is None:
        bias = np.zeros(weight.shape[1], np.float32) if added is None else added
    else:
        out = node.outputs[0]
    return Linear(base(node.inputs[0]), weight, bias, out)


def as_norm(node) -> Norm | None:
    """A LayerNorm from its Div: (x - mean) / sqrt(mean((x - mean)^2) + eps) [* gamma] [+ beta], last axis."""
    top, root = made_by(node.inputs[0], "Sub"), made_by(node.inputs[1], "Sqrt")
    add = root and made_by(root.inputs[0], "Add")
    if not (top and add and (pair := with_const(add))):
        return None
    variance, eps = made_by(pair[0], "ReduceMean"), scalar(pair[1])
    square = variance and made_by(variance.inputs[0], "Pow")
    inner = made_by(square.inputs[0], "Sub") if square and is_near(scalar(square.inputs[1]), 2) else None
    if inner is None:
        return None
    x = top.inputs[0]
    for sub in (top, inner):
        mean = made_by(sub.inputs[1], "ReduceMean")
        if sub.inputs[0] is not x or mean is None or mean.inputs[0] is not x:
            return None
    out, gamma = vector_after(node.outputs[0], "Mul")
    out, beta = vector_after(out, "Add")
    return Norm(base(x), gamma, beta, eps, out)


def factors(v):
    """The factors of a product of Mul and Div-by-constant nodes."""
    if node := made_by(v, "Mul"):
        return [f for side in node.inputs for f in factors(side)]
    return [v]


def as_gelu(v):
    """(x, "erf" or "tanh") when `v` is x * 0.5 * (1 + erf(x / sqrt 2)) in any order, or its tanh form; else None."""
    parts = factors(v)
    numbers = [scalar(p) for p in parts if scalar(p) is not None]
    rest = [p for p in parts if scalar(p) is None]
    if len(rest) != 2 or not is_near(float(np.prod(numbers)), 0.5):
        return None
    for x, total in (rest, rest[::-1]):
        add = made_by(total, "Add")
        pair = with_const(add) if add else None
        if not pair or not is_near(scalar(pair[1]), 1):
            continue
        if is_tanh_form(pair[0], x):
            return x, "tanh"
        erf = made_by(pair[0], "Erf")
        value, scale = unscale(erf.inputs[0]) if erf else (None, 0)
        if erf and base(value) is base(x) and is_near(scale, 0.5**0.5):
            return x, "erf"
    return None


def is_tanh_form(v, x) -> bool:
    """Whether `v` is tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))."""
    tanh = made_by(v, "Tanh")
    total, root = unscale(tanh.inputs[0]) if tanh else (None, 0)
    add = made_by(total, "Add")
    if add is None or not is_near(root, (2 / np.pi) ** 0.5):
        return False
    for same, other in (add.inputs, add.inputs[::-1]):
        cube, share = unscale(other)
        power = made_by(cube, "Pow")
        cubes = power.inputs[:1] * 3 if power and is_near(scalar(power.inputs[1]), 3) else factors(cube)
        if is_near(share, 0.044715) and len(cubes) == 3 and all(base(c) is base(x) for c in (same, *cubes)):
            return True
    return False


def unscale(v):
    """(value, scale) with every multiplication by a constant scalar taken off `v`."""
    scale = 1.0
    while (node := made_by(v, *SCALAR_OPS)) and (pair := with_const(node)) and scalar(pair[1]) is not None:
        scale, v = SCALAR_OPS[node.op_type](scale, scalar(pair[1])), pair[0]
    return v, scale


def split_heads(v, piece: str, perm: tuple, linears: dict):
    """(Linear, head_dim, scale) of q, k or v: Linear, Reshape to heads, Transposes that make `perm`."""
    v, scale = unscale(v)
    total = (0, 1, 2, 3)
    while node := made_by(v, "Transpose"):
        axes = perm_of(node)
        total, v = tuple(axes[p] for p in total), node.inputs[0]
    if total != perm:
        raise Miss(f"{piece}: transposed by {total}, expected {perm}")
    shape = need(v, piece, "Reshape").inputs[1]
    v, more = unscale(base(v))
    while node := made_by(shape, "Concat"):
        shape = node.inputs[-1]
    sizes = const(shape)
    if sizes is None or sizes.reshape(-1)[-1] <= 0:
        raise Miss(f"{piece}: the size of a head is not a constant")
    return dense(v, piece, linears), int(sizes.reshape(-1)[-1]), scale * more


def dense(v, piece: str, linears: dict) -> Linear:
    """The linear layer whose output is `v`, of Index.by_out. Raises Miss, which begins with `piece`, for another value."""
    if base(v) not in linears:
        raise Miss(f"{piece}: {v.name!r} is no linear layer with constant weights")
    return linears[base(v)]


class Index:
    """What follows what, seen through Reshape: linear layers, norms, gelus and sums, by their input."""

    def __init__(self, graph):
        nodes = list(graph)
        linears = [as_linear(n) for n in nodes if n.op_type in ("MatMul", "Gemm")]
        self.linears = [x for x in linears if x]
        self.by_out = {base(x.out): x for x in self.linears}
        norms = [as_norm(n) for n in nodes if n.op_type == "Div"]
        self.norms = {n.x: n for n in norms if n}
        self.norm_by_out = {n.out: n for n in self.norms.values()}
        pairs = [(n, as_gelu(n.outputs[0])) for n in nodes if n.op_type == "Mul"]
        self.gelus = {base(gelu[0]): (base(n.outputs[0]), gelu[1]) for n, gelu in pairs if gelu}
        self.sums = {frozenset(map(base, n.inputs)): base(n.outputs[0]) for n in nodes if n.op_type == "Add"}

    def linear_from(self, x, piece: str) -> Linear:
        """The one linear layer that reads `x`. Raises Miss where there is none, or more."""
        readers = [y for y in self.linears if y.x is x]
        if len(readers) != 1:
            raise Miss(f"{piece}: {len(readers)} linear layers read {x.name!r}, expected 1")
        return readers[0]

    def norm_of_sum(self, a, b, piece: str) -> Norm:
        """The LayerNorm over a + b. Raises Miss where there is no such sum, or none over it."""
        total = self.sums.get(frozenset((base(a), b)))
        if total is None:
            raise Miss(f"{piece}: no Add of {base(a).name!r} and {b.name!r} (the residual)")
        if total not in self.norms:
            raise Miss(f"{piece}: no LayerNorm over {total.name!r}")
        return self.norms[total]


def cls_reader(enc: Encoder, piece: str):
    """The one node that reads the last layer, which takes [CLS] of each row; Miss where more is read."""
    readers = [n for n in enc.last.consumers() if n.op_type != "Shape"]
    if len(readers) != 1:
        raise Miss(f"{piece}: {len(readers)} nodes read the last layer, expected 1")
    (node,) = readers
    axis = node.attributes.get("axis")
    if node.op_type != "Gather" or axis is None or axis.value != 1 or scalar(node.inputs[1]) != 0:
        raise Miss(f"{piece}: {node.op_type} {node.name!r} reads more of the last layer than [CLS]")
    return node


def read_layer(softmax, index: Index) -> Layer:
    """The encoder layer around one Softmax node. Raises Miss with the piece that is not a BERT layer's."""
    add = need(softmax.inputs[0], "mask", "Add")
    sides = [(unscale(v), m) for v, m in (add.inputs, add.inputs[::-1])]
    dots = [(s, m) for s, m in sides if made_by(s[0], "MatMul") and const(made_by(s[0], "MatMul").inputs[1]) is None]
    if not dots:
        raise Miss("attention: no MatMul of query and key under the Softmax")
    (scores, scale), mask = dots[0]
    q, k = made_by(scores, "MatMul").inputs
    query, dim, q_scale = split_heads(q, "query", HEADS, index.by_out)
    key, _, k_scale = split_heads(k, "key", KEY, index.by_out)
    context = sole_user(softmax.outputs[0])
    if context is None or context.op_type != "MatMul":
        raise Miss("attention: the Softmax does not feed one MatMul")
    value, _, v_scale = split_heads(context.inputs[1], "value", HEADS, index.by_out)
    x = key.x
    if query.x is not x or value.x is not x or v_scale != 1:
        raise Miss("attention: query, key and value do not read one tensor")
    back = sole_user(context.outputs[0])
    if back is None or back.op_type != "Transpose" or perm_of(back) != HEADS:
        raise Miss("context: no Transpose back behind the attention")
    dense = index.linear_from(back.outputs[0], "attention output")
    norm1 = index.norm_of_sum(dense.out, x, "attention LayerNorm")
    up = index.linear_from(norm1.out, "feed-forward")
    if base(up.out) not in index.gelus:
        raise Miss(f"Gelu: none reads {up.out.name!r}")
    active, gelu = index.gelus[base(up.out)]
    down = index.linear_from(active, "feed-forward output")
    norm2 = index.norm_of_sum(down.out, norm1.out, "output LayerNorm")
    heads = query.weight.shape[1] // dim
    scale *= q_scale * k_scale
    return Layer(query, key, value, heads, scale, mask, dense, norm1, up, gelu, down, norm2)


def origins(v) -> tuple[set, list, list]:
    """The graph inputs whose values (not shapes) reach `v`, the float constants on the way, and what is compared there:
    None for two tensors made from graph inputs, else the number that one is compared with."""
    inputs, floats, compared, todo, visited = set(), [], [], [v], set()
    while todo:
        v = todo.pop()
        if v is None or v in visited:
            continue
        visited.add(v)
        node = v.producer()
        if v.is_graph_input():
            inputs.add(v)
        elif node is None:
            c = const(v)
            floats += c.reshape(-1).tolist() if c is not None and c.dtype.kind == "f" and c.size == 1 else []
        elif node.op_type not in ("Shape", "Size"):
            if node.op_type == "Equal":
                numbers = [n for n in map(scalar, node.inputs) if n is not None]
                compared += numbers or [None] * all(origins(x)[0] for x in node.inputs)
            todo += node.inputs
    return inputs, floats, compared


def read_mask(layers: list):
    """(mask input, its additive constant or None, packed, pad). The constant may be -10000, finfo.min or -inf."""
    sources = [origins(layer.mask) for layer in layers]
    for i, (inputs, *_) in enumerate(sources):
        if len(inputs) != 1 or inputs != sources[0][0]:
            names = sorted(v.name for v in inputs)
            raise Miss(f"layer {i}: mask: made from inputs {names}, expected the one attention mask of all layers")
    (source,) = sources[0][0]
    if source.shape is None or len(source.shape) != 2:
        raise Miss(f"layer 0: mask: input {source.name!r} is not [batch, length]")
    large = [f for f in sources[0][1] if f <= -100]
    compared = sources[0][2]
    numbers = [int(n) for n in compared if n is not None]
    ids = any(n.op_type == "Gather" and n.inputs[1] is source for n in source.consumers())  # a mask is never looked up
    return source, min(large, default=None), None in compared, min(numbers) if ids and numbers else None


def softmaxes(graph) -> list:
    """The Softmax nodes of the attention layers, in order."""
    nodes = [n for n in graph if n.op_type == "Softmax"]
    return [n for n in nodes if any(u.op_type == "MatMul" for u in n.outputs[0].consumers())]


def read_encoder(graph) -> Encoder:
    """The graph's encoder in normal form. Raises Miss with the layer and the piece that does not match."""
    index, tops = Index(graph), softmaxes(graph)
    if not tops:
        raise Miss("attention: 0 Softmax nodes feed a MatMul")
    layers = []
    for i, softmax in enumerate(tops):
        try:
            layer = read_layer(softmax, index)
            if layers and layer.key.x is not layers[-1].norm2.out:
                raise Miss(f"attention: reads {layer.key.x.name!r}, not the layer before")
        except Miss as e:
            raise Miss(f"layer {i}: {e}") from None
        layers.append(layer)
    x = layers[0].key.x
    projection = index.by_out.get(x)
    norm = index.norm_by_out.get(projection.x if projection else x)
    if norm is None:
        raise Miss(f"layer 0: embedding LayerNorm: {x.name!r} is none")
    mask_input, constant, packed, pad = read_mask(layers)
    return Encoder(norm, projection, layers, mask_input, packed, pad, constant, layers[-1].norm2.out)


def load(path):
    """An ONNX file as onnx_ir model, constants as initializers. Raises UserError where it is none, or is not there."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import common

    proto = onnxfile.load_model(path)
    with onnxfile.refuse(f"{path}: not a valid ONNX file", "export it again"):
        onnx.checker.check_model(proto, full_check=True)  # reading relies on arity and order
        model = ir.from_proto(proto)
        for tidy in (
            common.RemoveInitializersFromInputsPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
        ):
            tidy(model)
    return model
