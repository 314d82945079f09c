"""Simplify an exported graph with onnxsim and fix its shape; written only if the logits stay the same.

    python -m tools.graph.simplify model.onnx sim.onnx --overwrite-input-shape input_ids:8,128 attention_mask:8,128 \\
        --input build/minilm_sst2/default/seq128/input --rows 16

    onnxsim v0.8.1: 541 nodes became 317
    gate: equal: fp32, max |difference| 1.91e-06 (limit 1e-04) over 16 rows, 0 flips
    wrote sim.onnx

`python -m onnxsim` with the same option writes the same file, without a gate.
"""

import sys
from pathlib import Path

from tools.base import input_files, onnxfile
from tools.graph import gate
from tools.make import cli


def shape(text: str) -> tuple[str, list[int]]:
    """("input_ids", [8, 128]) of "input_ids:8,128"; -1 leaves a dimension open."""
    name, _, dims = text.rpartition(":")
    return name, [int(d) for d in dims.split(",")]


def simplify(path: Path, shapes: dict):
    """onnxsim's form of a graph, as a ModelProto; shapes: {input: its dimensions, -1 where open}; UserError where onnxsim
    fails, or its own check of the result."""
    import onnxsim

    model = onnxfile.load_model(path)
    with onnxfile.refuse(f"{path}: onnxsim cannot simplify it", "export it again"):
        simple, ok = onnxsim.simplify(model, overwrite_input_shapes=shapes)
    if not ok:
        raise cli.UserError(f"{path}: onnxsim found its own result unlike the graph; please report it")
    print(f"onnxsim {onnxsim.__version__}: {len(model.graph.node)} nodes became {len(simple.graph.node)}")
    return simple


def main():
    p = cli.parser(__doc__)
    p.add_argument("source", type=Path, metavar="IN.onnx")
    p.add_argument("save_path", type=Path, metavar="OUT.onnx")
    p.add_argument("--overwrite-input-shape", nargs="+", type=shape, default=[], metavar="INPUT:D,D", help="-1: open")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py to compare on")
    p.add_argument("--rows", type=int, help="compare on this many rows, longest first (all if not given)")
    args = p.parse_args()
    sys.modules.setdefault("torch", None)  # onnxsim imports it for a quantiser that nothing here uses: half of the time
    simple = simplify(args.source, dict(args.overwrite_input_shape))
    data, names = simple.SerializeToString(deterministic=True), [i.name for i in simple.graph.input]
    verdict = gate.compare(str(args.source), data, input_files.load_inputs(args.input, names, args.rows))
    print(verdict.demand(args.save_path))
    cli.write(args.save_path, data)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
