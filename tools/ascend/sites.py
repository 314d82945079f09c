"""The places in a BERT graph where CANN's fusions could take hold, and why one does not: tools/ascend/fusion.py's eyes.

Guards that hold or fail whatever the batch size; those of sizes, chip and precision are fusion.py's. Sources there.
"""

from pathlib import Path

from tools.graph import encoder
from tools.graph.encoder import HEADS, Miss, const, made_by, near, perm_of, scalar
from tools.make import cli


def users(v, *ops) -> bool:
    """Is `v` read by nodes of exactly these types, in this order?"""
    return tuple(n.op_type for n in sorted(v.consumers(), key=lambda n: n.graph.index(n))) == ops


def same_length(parts: list) -> bool:
    """Are these four parts of a shape [any, 1, S, S] with S not 1?"""
    if len(parts) != 4:
        return False
    _, one, rows, columns = parts
    return one == 1 and rows != 1 and (rows is columns or rows == columns)


def expanded(v) -> list:
    """The shape that an Expand gives `v`, as numbers and values; [] when nothing is expanded."""
    node = made_by(v, "Expand")
    if node is None:
        return []
    shape, concat = node.inputs[1], made_by(node.inputs[1], "Concat")
    if concat is None:
        c = const(shape)
        return [] if c is None else c.tolist()
    return [int(scalar(p)) if scalar(p) is not None else p for p in concat.inputs]


def attention_score(softmax) -> str | None:
    """Why the attention around `softmax` is not the pass's pattern, or None."""
    add = made_by(softmax.inputs[0], "Add")
    mul = made_by(add.inputs[0], "Mul") if add else None
    if mul is None or scalar(mul.inputs[1]) is None:
        return "scores are not MatMul, Mul by a constant, Add of the mask (FusedMulAdd)"
    if not (mul.name or "").startswith("bert_"):
        return "the scale node's name does not begin with bert_"
    if not same_length(expanded(add.inputs[1])):
        return "mask is not expanded to [B, 1, S, S]"
    scores = made_by(mul.inputs[0], "MatMul")
    key = made_by(scores.inputs[1], "Transpose") if scores else None
    inner = made_by(key.inputs[0], "Transpose") if key else None
    if inner is None or perm_of(key) != (0, 1, 3, 2):
        return "key is not transposed in two steps, so q, k and v differ in shape"
    context = softmax.outputs[0].consumers()[0]
    back = context.outputs[0].consumers()[0]
    if back.op_type != "Transpose" or perm_of(back) != HEADS:
        return "context is not transposed back"
    if not users(back.outputs[0], "Reshape"):
        return "context is not reshaped (ConfusionTransposeD)"
    return None


def attention_ln_qkv(layer, index) -> str | None:
    """Why the LayerNorm that feeds a layer's query, key and value is not the pass's pattern, or None."""
    norm = index.norm_by_out.get(layer.key.x)
    if norm is None:
        return "a projection of the embeddings, no LayerNorm, feeds query, key and value"
    if reason := layer_norm(norm):
        return reason
    if not users(norm.out, "MatMul", "MatMul", "MatMul", "Add"):
        return "LayerNorm's readers are not query, key, value, residual in this order"
    if norm.out.shape is None or len(norm.out.shape) != 2:
        return "LayerNorm's output is not 2-D"
    return None


def layer_norm(norm) -> str | None:
    v = norm.out
    if made_by(v, "LayerNormalization"):
        return "is one LayerNormalization operator, not the nodes the pass looks for"
    for op, vector in (("Add", norm.beta), ("Mul", norm.gamma)):
        if vector is not None:
            v = encoder.with_const(made_by(v, op))[0]
            if made_by(v, "Reshape"):
                return "a Reshape stands inside"
    div = v.producer()
    variance = encoder.with_const(made_by(made_by(div.inputs[1], "Sqrt").inputs[0], "Add"))[0]
    square = made_by(made_by(variance, "ReduceMean").inputs[0], "Pow")
    if square is None:
        return "the square is not a Pow"
    centred = square.inputs[0]
    centred = centred.producer().inputs[0] if made_by(centred, "Cast") else centred
    return None if centred is div.inputs[0] else "x - mean is computed twice"


def gelu(erf) -> str | None:
    div = made_by(erf.inputs[0], "Div")
    if div is None or not near(scalar(div.inputs[1]), 2**0.5):
        return "Erf does not read x / sqrt 2"
    if not users(div.outputs[0], "Erf") or not users(erf.outputs[0], "Add"):
        return "Div or Erf has other readers"
    add = erf.outputs[0].consumers()[0]
    if not near(scalar(add.inputs[1]), 1.0) or not users(add.outputs[0], "Mul"):
        return "Erf is not followed by Add(1) and one Mul"
    return halved(div.inputs[0], add.outputs[0])


def halved(x, one_plus) -> str | None:
    """Why neither x * 0.5 nor (x * (1 + erf)) * 0.5 follows, in either order of factors, or None."""
    mul = one_plus.consumers()[0]
    other = mul.inputs[1] if mul.inputs[0] is one_plus else mul.inputs[0]
    if other is not x:
        half = made_by(other, "Mul")
        factors = list(half.inputs) if half else []
        halves = x in factors and any(near(scalar(f), 0.5) for f in factors if f is not x)
        return None if halves and users(other, "Mul") else "1 + erf is not multiplied by x * 0.5"
    if not users(mul.outputs[0], "Mul"):
        return "x * (1 + erf) is not multiplied by 0.5"
    last = mul.outputs[0].consumers()[0]
    halves = any(near(scalar(f), 0.5) for f in last.inputs if f is not mul.outputs[0])
    return None if halves else "x * (1 + erf) is not multiplied by 0.5"


def graph_facts(path) -> dict:
    """Sizes of the encoder, and for every fusion its sites in the graph: why each fails, or None.

    Raises UserError where the file is missing or no BERT classifier.
    """
    from onnx_ir.passes import common

    if not Path(path).is_file():
        raise cli.UserError(f"{path}: no such file")
    model = encoder.load(path)
    common.ShapeInferencePass()(model)
    try:
        enc = encoder.read(model.graph)
    except Miss as e:
        raise cli.UserError(f"{path}: {e}") from None
    index = encoder.Index(model.graph)
    layer = enc.layers[0]
    scores = [attention_score(n) for n in encoder.softmaxes(model.graph)]
    inputs = [attention_ln_qkv(x, index) for x in enc.layers]
    batch, length = (d if isinstance(d, int) else None for d in enc.mask_input.shape)
    return {
        "batch": batch,
        "length": length,
        "heads": layer.heads,
        "head_dim": layer.query.weight.shape[1] // layer.heads,
        "hidden": layer.query.weight.shape[0],
        "sites": {
            "AttentionScore": scores,
            "AttentionLnQKV": inputs,
            "LayerNorm": [layer_norm(n) for n in index.norms.values()],
            "Gelu": [gelu(n) for n in model.graph if n.op_type == "Erf"]
            + [
                "GELU's tanh form; the pass, as far as it is public, looks for erf"
                for x in enc.layers
                if x.gelu == "tanh"
            ],
        },
    }
