"""Rewrite an exported BERT classifier so that its last layer is computed for [CLS] alone, and prove it equal.

    python -m tools.graph.cls model.onnx cls.onnx --input build/minilm_sst2/default/seq128/input

    layer 5: for 1 of 128 tokens
    gate: equal: fp32, max |difference| 9.54e-07 (limit 1e-04) over 880 rows, 0 flips
    wrote cls.onnx

The pooler reads the last layer at [CLS] and nowhere else, so its other rows are computed for nothing, but for their keys
and values. A Gather takes the rows that are read out of the layer's input; query, attention, projection, residual, both
LayerNorms and the feed-forward follow for these. That is token 0, and in packed rows (pack.py) the first token of each
sentence, by the input `first`. Every node keeps its name and all that comes later (simplify.py, rewrite.py, int8) reads
the graph as before. What it costs: CANN's attention passes want as many queries as keys, so they leave this layer
alone (tools/ascend/sites.py). Written only if the logits are those of the graph before.
"""

import argparse
from pathlib import Path

from tools import cli
from tools.graph import encoder, gate, rewrite
from tools.graph.encoder import Encoder, First, Miss, made_by, need


def swap(node, old, new) -> None:
    """Let a node read `new` in place of `old`. Raises Miss where it does not read `old`."""
    if old not in node.inputs:
        raise Miss(f"[CLS] alone: {node.op_type} {node.name!r} does not read {old.name!r}")
    node.replace_input_with(list(node.inputs).index(old), new)


def reshaped(v, shape: list, w: rewrite.Writer) -> None:
    """Give the one Reshape behind `v`, seen through Mul, Div and Transpose, another shape. Raises Miss without one."""
    while (users := v.consumers()) and len(users) == 1 and users[0].op_type in ("Mul", "Div", "Transpose"):
        v = users[0].outputs[0]
    if len(users) != 1 or users[0].op_type != "Reshape":
        raise Miss(f"[CLS] alone: no Reshape alone reads {v.name!r}")
    users[0].replace_input_with(1, w.const(f"{users[0].name}_first", shape, int))


def read_rows(w: rewrite.Writer, enc: Encoder) -> tuple[First, object]:
    """(which rows of the last layer are read, float [batch, count, hidden] of them from its input).

    Raises Miss where more than [CLS] is read.
    """
    import onnx_ir as ir

    x = enc.layers[-1].key.x
    if not enc.packed:
        encoder.cls_reader(enc, "[CLS] alone")
        return First(None, 1), w.op("Gather", "cls_Rows", x, [0], axis=1)
    (flat,) = (n for n in enc.last.consumers() if n.op_type != "Shape")
    picked = need(flat.outputs[0].consumers()[0].outputs[0], "[CLS] alone", "Gather")  # as pack.py writes them
    at, hidden = picked.inputs[1], enc.layers[-1].dense.weight.shape[1]
    (first,) = encoder.origins(at)[0]
    ir.convenience.replace_all_uses_with(picked.outputs[0], flat.outputs[0])
    rows = w.op("Gather", "cls_Gather", w.op("Reshape", "cls_Tokens", x, [-1, hidden]), at, axis=0)
    return First(at, first.shape[1]), w.op("Reshape", "cls_Rows", rows, [-1, first.shape[1], hidden])


def first_rows(model) -> int:
    """Change an onnx_ir model in place; how many rows its last layer is computed for. Raises Miss for another graph."""
    import onnx_ir as ir

    enc = encoder.read(model.graph)
    layer, w = enc.layers[-1], rewrite.Writer(model.graph, model.opset_imports[""])
    if layer.first:
        raise Miss("[CLS] alone: the last layer is so already")
    softmax = encoder.softmaxes(model.graph)[-1]
    first, rows = read_rows(w, enc)
    bias = made_by(layer.query.out, "Add")
    query = need(encoder.with_const(bias)[0] if bias else layer.query.out, "[CLS] alone: query", "MatMul", "Gemm")
    swap(need(layer.norm1.x, "[CLS] alone: residual", "Add"), layer.key.x, rows)
    swap(query, layer.key.x, rows)
    size = layer.query.weight.shape[1]
    reshaped(layer.query.out, [0, first.count, layer.heads, size // layer.heads], w)
    reshaped(softmax.outputs[0].consumers()[0].outputs[0], [0, first.count, size], w)
    mask = w.mask(enc.mask_input, enc.packed, "cls_mask", first)
    if enc.packed:
        swap(softmax.inputs[0].producer(), layer.mask, mask)
    else:  # one mask for all layers, which is finite on rows of padding alone, whatever the export's was
        for old in {each.mask: None for each in enc.layers}:
            ir.convenience.replace_all_uses_with(old, mask)
    return first.count


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("onnx", type=Path, help="exported or packed graph")
    p.add_argument("save_path", type=Path, help="graph to write")
    p.add_argument("--input", type=Path, required=True, help="folder of preprocess.py: the rows of the gate")
    p.add_argument("--rows", type=int, help="use so many of them, longest first (all if not given)")
    args = p.parse_args()
    if not args.onnx.is_file():
        raise cli.UserError(f"{args.onnx}: no such file")
    model = encoder.load(args.onnx)
    try:
        enc = encoder.read(model.graph)
        arrays = rewrite.gate_inputs(model, enc, args.input, args.rows)
        count = first_rows(model)
    except Miss as e:
        raise cli.UserError(f"{args.onnx}: {e}") from None
    data = rewrite.finish(model)
    verdict = gate.compare(str(args.onnx), data, arrays)
    verdict.demand(args.save_path)
    with cli.whole_file(args.save_path) as f:
        f.write(data)
    print(f"layer {len(enc.layers) - 1}: for {count} of {next(iter(arrays.values())).shape[1]} tokens")
    print(verdict.line)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
