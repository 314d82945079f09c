"""Give a graph fp16 types for TensorRT 11, which has no --fp16: it takes the types of the graph itself.

    python -m tools.gpu.half gpu.onnx gpu-fp16.onnx --input build/minilm_sst2/default/seq128/input --rows 64

onnxruntime's converter does it. Inputs and outputs keep their types, and so do the operators of LayerNorm and Softmax,
whose sums and squares need fp32. The graph is written only if at most 3 of 872 sentences change class (tools/graph/gate.py).
"""

from pathlib import Path

from tools.graph import gate
from tools.make import cli

FP32 = ["Pow", "ReduceMean", "Sqrt", "Softmax", "LayerNormalization"]


def main():
    from tools.base import input_files, onnxfile, tasks

    p = cli.parser(__doc__)
    p.add_argument("source", type=Path, metavar="IN.onnx")
    p.add_argument("save_path", type=Path, metavar="OUT.onnx")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py to compare on")
    p.add_argument("--rows", type=int, help="compare on this many rows, longest first (all if not given)")
    p.add_argument("--seeded", action="store_true", help="random weights: near ties may change class")
    args = p.parse_args()
    from onnxruntime.transformers import float16

    model = onnxfile.load_model(args.source)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *FP32]
    half = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    data = half.SerializeToString(deterministic=True)
    arrays = input_files.load_inputs(args.input, [i.name for i in model.graph.input], args.rows)
    real = input_files.lengths(arrays) > 0  # no padding rows of whole batches
    arrays = {name: a[real] for name, a in arrays.items()}
    task = tasks.of_inputs(args.input)[1]
    exact, rounded = (gate.by_label(gate.logits(graph, arrays), task) for graph in (str(args.source), data))
    line = gate.judge(exact, rounded, "fp16", seeded=args.seeded).demand(args.save_path)
    cli.write(args.save_path, data)
    print(f"{line}\nwrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
