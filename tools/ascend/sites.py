"""Find the places in a BERT graph where CANN's fusions could apply, and why one does not, for tools/ascend/fusion.py.

The guards here do not depend on the batch size; those of sizes, chip and precision, and the sources, are in fusion.py.
"""

from tools.graph import encoder
from tools.graph.encoder import HEADS, Miss, const, is_near, made_by, perm_of, scalar
from tools.make import cli


def is_read_by(v, *ops) -> bool:
    """Is `v` read by nodes of exactly these types, in this order?"""
    return tuple(n.op_type for n in sorted(v.consumers(), key=lambda n: n.graph.index(n))) == ops


def is_square(v) -> bool:
    """Does an Expand give `v` the shape [any, 1, S, S] with S not 1?"""
    node = made_by(v, "Expand")
    concat, fixed = (made_by(node.inputs[1], "Concat"), const(node.inputs[1])) if node else (None, None)
    parts = [] if fixed is None else fixed.tolist()
    if concat:
        parts = [p if scalar(p) is None else int(scalar(p)) for p in concat.inputs]
    return len(parts) == 4 and parts[1] == 1 and parts[2] != 1 and parts[2] == parts[3]


def attention_score(softmax) -> str | None:
    """Why the attention around `softmax` is not the pass's pattern; None if it is."""
    add = made_by(softmax.inputs[0], "Add")
    mul = made_by(add.inputs[0], "Mul") if add else None
    if mul is None or scalar(mul.inputs[1]) is None:
        return "scores are not MatMul, Mul by a constant, Add of the mask (FusedMulAdd)"
    if not (mul.name or "").startswith("bert_"):
        return "the scale node's name does not begin with bert_"
    if not is_square(add.inputs[1]):
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
    if not is_read_by(back.outputs[0], "Reshape"):
        return "context is not reshaped (ConfusionTransposeD)"
    return None


def attention_ln_qkv(layer, index) -> str | None:
    """Why the LayerNorm that feeds a layer's query, key and value is not the pass's pattern; None if it is."""
    norm = index.norm_by_out.get(layer.key.x)
    if norm is None:
        return "a projection of the embeddings, no LayerNorm, feeds query, key and value"
    if reason := layer_norm(norm):
        return reason
    if not is_read_by(norm.out, "MatMul", "MatMul", "MatMul", "Add"):
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
    if div is None or not is_near(scalar(div.inputs[1]), 2**0.5):
        return "Erf does not read x / sqrt 2"
    if not is_read_by(div.outputs[0], "Erf") or not is_read_by(erf.outputs[0], "Add"):
        return "Div or Erf has other readers"
    add = erf.outputs[0].consumers()[0]
    if not is_near(scalar(add.inputs[1]), 1.0) or not is_read_by(add.outputs[0], "Mul"):
        return "Erf is not followed by Add(1) and one Mul"
    x, one_plus = div.inputs[0], add.outputs[0]
    product = one_plus.consumers()[0]
    halved = lambda node, v: v in node.inputs and any(is_near(scalar(f), 0.5) for f in node.inputs if f is not v)
    if x in product.inputs:  # (x * (1 + erf)) * 0.5
        product = product.outputs[0]
        fits = is_read_by(product, "Mul") and halved(product.consumers()[0], product)
        return None if fits else "x * (1 + erf) is not multiplied by 0.5"
    other = product.inputs[1] if product.inputs[0] is one_plus else product.inputs[0]
    half = made_by(other, "Mul")  # (x * 0.5) * (1 + erf)
    return None if half and halved(half, x) and is_read_by(other, "Mul") else "1 + erf is not multiplied by x * 0.5"


def graph_facts(path) -> dict:
    """Sizes of the encoder, and for each fusion a reason why each of its sites fails, or None. UserError if the file is
    missing or not a BERT classifier."""
    from onnx_ir.passes import common

    model = encoder.load(path)
    common.ShapeInferencePass()(model)
    try:
        enc = encoder.read_encoder(model.graph)
    except Miss as e:
        raise cli.UserError(f"{path}: {e}") from None
    index, layer = encoder.Index(model.graph), enc.layers[0]
    batch, length = (d if isinstance(d, int) else None for d in enc.mask_input.shape)
    tanh = ["GELU's tanh form; the pass, as far as it is public, looks for erf"]
    return {
        "batch": batch,
        "length": length,
        "heads": layer.heads,
        "head_dim": layer.query.weight.shape[1] // layer.heads,
        "hidden": layer.query.weight.shape[0],
        "sites": {
            "AttentionScore": [attention_score(n) for n in encoder.softmaxes(model.graph)],
            "AttentionLnQKV": [attention_ln_qkv(x, index) for x in enc.layers],
            "LayerNorm": [layer_norm(n) for n in index.norms.values()],
            "Gelu": [gelu(n) for n in model.graph if n.op_type == "Erf"]
            + tanh * sum(x.gelu == "tanh" for x in enc.layers),
        },
    }
