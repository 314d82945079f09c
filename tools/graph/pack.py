"""Rewrite an exported BERT classifier for packed rows, several sentences in each, and prove it equal.

    python -m tools.graph.pack model.onnx pack.onnx --seq_len 128 --input build/minilm_sst2/default/seq128p/input

    872 sentences in 173 rows of 128, 99.1 % full
    gate: equal: fp32, max |difference| 1.79e-06 (limit 1e-04) over 873 rows, 0 flips
    wrote pack.onnx

Against padding: a row of SEQ tokens holds as many whole sentences as fit (tokens.pack: the rows and what the inputs
hold). The graph gets the inputs `sentence` (instead of the attention mask), `position` and `first`, int64; a mask
[batch, 1, length, length] keeps each sentence to itself, so it is computed as if alone; the output is float32
[batch, SEQ // 8, 2], a pair per sentence, and the first sentence's again where a row holds fewer. Nothing is asked of
an engine but a static graph. Written only if each sentence's logits are those of the exported graph; the gate's last
row is an empty one, which must be finite.
"""

from pathlib import Path

import numpy as np

from tools.base import input_files, onnxfile
from tools.graph import encoder, gate, rewrite
from tools.graph.classifier import kind_of_index
from tools.graph.encoder import Miss, const
from tools.make import cli
from tools.source import tokens


def pack_graph(model, seq_len: int):
    """Change an exported onnx_ir model in place: inputs, mask, positions, and a logit pair for each sentence."""
    import onnx_ir as ir

    graph, most = model.graph, seq_len // tokens.PACKED_TOKENS
    enc = encoder.read_encoder(graph)
    w = rewrite.Writer(graph, model.opset_imports[""])
    for v in graph.inputs:
        v.shape = ir.Shape([v.shape[0], seq_len])
    batch = enc.mask_input.shape[0]
    widths = {"sentence": seq_len, "position": seq_len, "first": most}
    sentence, position, first = (
        ir.Value(name=n, shape=ir.Shape([batch, width]), type=ir.TensorType(ir.DataType.INT64))
        for n, width in widths.items()
    )
    gathers = [n for n in graph if n.op_type == "Gather"]
    readers = [n for n in gathers if const(n.inputs[0]) is not None and kind_of_index(n.inputs[1]) == "position"]
    if len(readers) != 1:
        raise Miss(f"packing: {len(readers)} nodes read positions, expected 1")
    (table,) = readers
    if len(const(table.inputs[0])) < seq_len:
        raise Miss(f"packing: {len(const(table.inputs[0]))} positions, rows of {seq_len}; give a shorter SEQ")
    cls = encoder.cls_reader(enc, "packing")

    table.replace_input_with(1, position)
    mask = w.mask(sentence, True, "pack_mask")
    for old in {layer.mask: None for layer in enc.layers}:
        ir.convenience.replace_all_uses_with(old, mask)
    # [CLS] of every sentence: rows of the last layer as a matrix [batch*length, hidden], each counted from its row's.
    hidden = enc.layers[0].query.weight.shape[0]
    flat = w.op("Reshape", "pack_Tokens", enc.last, [-1, hidden])
    scalars = (ir.tensor(np.array(n, np.int64), name=f"pack_{n}") for n in (0, seq_len))
    zero, step = (w.tape.initializer(t, name=t.name) for t in scalars)  # Range takes scalars alone
    batch_size = w.op("Gather", "pack_Batch", w.op("Shape", "pack_Shape", sentence), zero, axis=0)
    starts = w.op("Range", "pack_Starts", zero, w.op("Mul", "pack_Size", batch_size, step), step)
    at = w.op("Add", "pack_At", first, w.unsqueeze("pack_Column", starts, [1]))
    picked = w.op("Gather", "pack_First", flat, w.op("Reshape", "pack_Flat", at, [-1]), axis=0)
    ir.convenience.replace_all_uses_with(cls.outputs[0], picked)
    old = graph.outputs[0]
    out = w.op("Reshape", "pack_Logits", old, [-1, most, old.shape[1]])
    old.name, out.name = "pack_Pairs", old.name
    out.type, out.shape = old.type, ir.Shape([batch, most, old.shape[1]])
    graph.outputs[0] = out
    if enc.pad is None:  # else the mask was made of the ids, which stay
        graph.inputs.remove(enc.mask_input)
    graph.inputs.extend([sentence, position, first])


def unpack(arrays: dict, mask_name: str) -> dict:
    """The sentences of packed rows, one a row: {input: int64 [n, seq_len]} with a mask of that name, in their order;
    UserError where the three packed inputs contradict each other."""
    sentence, position, first = (arrays[n] for n in ("sentence", "position", "first"))
    places = []
    for r, row in enumerate(sentence):
        count = row.max(initial=0)
        for k in range(1, max(count, 0) + 1):
            at = np.flatnonzero(row == k)
            whole = len(at) and k <= first.shape[1] and np.array_equal(at, first[r, k - 1] + np.arange(len(at)))
            if not whole or not np.array_equal(position[r, at], np.arange(len(at))):
                raise cli.UserError(f"packed row {r + 1}: sentence, position and first disagree on its sentence {k}")
            places.append((r, at))
        if row.min() < 0 or position[r, row == 0].any() or first[r, count:].any():
            raise cli.UserError(f"packed row {r + 1}: its padding is not zeros in sentence, position and first")
    names = {n for n in (*arrays, mask_name) if n not in ("sentence", "position", "first", None)}
    unpacked = {n: np.full((len(places), sentence.shape[1]), input_files.padding(n), np.int64) for n in names}
    for i, (r, at) in enumerate(places):
        for name, array in unpacked.items():
            array[i, : len(at)] = 1 if name == mask_name else arrays[name][r, at]
    return unpacked


def compare(plain: str, graph: bytes, arrays: dict) -> gate.Verdict:
    """gate.judge of each sentence's logits: `plain` (path) on it alone, `graph` on packed rows and an empty one."""
    mask_name = input_files.mask_name(i.name for i in onnxfile.session(plain).get_inputs())
    expected = gate.logits(plain, unpack(arrays, mask_name))
    arrays = {name: np.concatenate([a, np.zeros_like(a[:1])]) for name, a in arrays.items()}
    new, real = input_files.by_sentence(gate.logits(graph, arrays), arrays)
    ref = np.zeros_like(new)
    ref[real] = expected
    return gate.judge(ref, new, real=real)


def main():
    p = cli.parser(__doc__)
    p.add_argument("onnx", type=Path, help="exported graph, batch and length open")
    p.add_argument("save_path", type=Path, help="graph to write")
    p.add_argument("--seq_len", type=int, required=True, help="tokens a row")
    p.add_argument("--input", type=Path, required=True, help="folder of preprocess.py --pack: the rows of the gate")
    p.add_argument("--rows", type=int, help="use so many of them, fullest first (all if not given)")
    args = p.parse_args()
    if args.seq_len < tokens.PACKED_TOKENS:
        raise cli.UserError(f"--seq_len {args.seq_len}: must be {tokens.PACKED_TOKENS} or more")
    model = encoder.load(args.onnx)
    try:
        pack_graph(model, args.seq_len)
    except Miss as e:
        raise cli.UserError(f"{args.onnx}: {e}") from None
    data = rewrite.finish(model)
    arrays = input_files.load_inputs(args.input, [v.name for v in model.graph.inputs], args.rows)
    verdict = compare(str(args.onnx), data, arrays)
    verdict.demand(args.save_path)
    cli.write(args.save_path, data)
    full = 100 * (arrays["sentence"] > 0).mean()
    print(f"{verdict.rows - 1} sentences in {len(arrays['sentence'])} rows of {args.seq_len}, {full:.1f} % full")
    print(verdict.line)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
