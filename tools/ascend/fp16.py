"""The fp16 rehearsal: run the graph that ATC gets on the CPU, with fp16 weights and fp16 rounding between operators.

    python -m tools.ascend.fp16 convert ascend.onnx --save_path model.onnx
    python -m tools.ascend.fp16 ranges  ascend.onnx --input build/.../seq128/input --rows 200 --save_path ranges.json

    fp16        no inf, no NaN on 200 sentences; max |logit difference| to fp32 0.0069, 0 flips
    range       layer_0_norm2_Pow_out: 0 to 4.917e+04, 75 % of the limit
    ...
    underflow   layer_0_norm1_Eps_1 (1e-12): 100 % of its values become 0
    ...
    wrote ranges.json

Weights and the result of every operator are rounded to fp16 (nearest even); the operator itself computes in fp32, as the
NPU's cube unit accumulates. `ranges` runs all sentences, and fails with the tensor's name if a value overflows (above
65504) or is not a number. It writes each tensor's range, the share of its values that underflow to 0, and the sentences
whose class is another than in fp32. A card differs in two ways: CANN's fused operators (LayerNorm, Gelu, Softmax) keep
fp32 inside, so this test is harder; and older SoCs saturate at 65504, for which this test reports an overflow.
"""

import json
from pathlib import Path

import numpy as np

from tools.base import input_files, onnxfile, tasks
from tools.cpu import engines
from tools.graph import gate
from tools.make import cli

# Operators that only move values: rounded inputs give rounded outputs.
MOVES = {"Reshape", "Transpose", "Gather", "Slice", "Squeeze", "Unsqueeze", "Expand", "Concat", "Identity", "Split",
         "Flatten", "Shape", "Constant"}  # fmt: skip
LARGEST = float(np.finfo(np.float16).max)
SHOWN = 8  # tensors of each kind that are printed


def load_with_types(path: Path):
    """An ONNX file and the element type of each of its tensors: (ModelProto, {name: TensorProto type}). UserError if it is
    not a valid graph."""
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(onnxfile.load_model(path, weights=False), strict_mode=True)
    except onnx.shape_inference.InferenceError as e:
        raise cli.UserError(f"{path}: not a valid ONNX graph ({onnxfile.first_line(e)}); make it again") from None
    values = [*model.graph.value_info, *model.graph.output, *model.graph.input]
    del model.graph.value_info[:]
    return model, {v.name: v.type.tensor_type.elem_type for v in values}


def round_constants(model) -> list[dict]:
    """Round the float constants of `model` in place; the range and underflow of each. Raises UserError for an overflow."""
    from onnx import numpy_helper

    nodes, report = [n for n in model.graph.node if n.op_type == "Constant"], []
    constants = [(n.output[0], a.t) for n in nodes for a in n.attribute if a.name == "value"]
    for name, tensor in [*((t.name, t) for t in model.graph.initializer), *constants]:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32:
            continue
        with np.errstate(over="ignore"):
            rounded = value.astype(np.float16).astype(np.float32)
        if not np.isfinite(rounded).all():
            worst = value[~np.isfinite(rounded)].flat[0]
            reader = next((n.name for n in model.graph.node if name in n.input), "nothing")
            raise cli.UserError(
                f"constant {name!r}, read by {reader!r}: {worst:.4g} is {rounded[value == worst].flat[0]} in fp16 "
                f"(limit {LARGEST:g}); a mask wants -10000: make the graph with modify_onnx.py"
            )
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        report.append({"tensor": name, "low": float(value.min()), "high": float(value.max()),
                       "underflow": float(((value != 0) & (rounded == 0)).mean())})  # fmt: skip
    return report


def rounded_graph(path: Path, probes: bool = False):
    """The fp16 rehearsal of a graph: (ModelProto, report on its constants, names of the rounded tensors). With probes, the
    graph has more outputs, PROBES for each rounded tensor: its lowest and highest value before rounding, the sum after it,
    how many values became 0, how many there are. Raises UserError if an output is not computed in float."""
    from onnx import TensorProto, helper

    model, types = load_with_types(path)
    graph, nodes, names, probe_nodes = model.graph, [], [], []
    constants = round_constants(model)
    for node in list(graph.node):
        nodes.append(node)
        if node.op_type in MOVES:
            continue
        for i, name in enumerate(node.output):
            if types.get(name) != TensorProto.FLOAT:
                continue
            node.output[i] = exact = f"{name}:exact"
            half = f"{name}:half"
            nodes.append(helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
            names.append(name)
            if probes:
                probe_nodes[:0] = probe(name, exact)
    if other := [o.name for o in graph.output if types.get(o.name) != TensorProto.FLOAT]:
        raise cli.UserError(f"{path}: output {min(other)} is not computed in float; nothing to rehearse")
    del graph.node[:]
    # onnxruntime visits the last leaf first. In this order, each tensor is probed and freed as soon as it is computed.
    graph.node.extend(nodes + probe_nodes)
    for name, kind in ((n, k) for n in names if probes for k in PROBES):
        dtype = TensorProto.INT64 if kind == "size" else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(f"{name}:{kind}", dtype, []))
    helper.set_model_props(model, {engines.ENGINE: "onnxruntime", engines.PRECISION: "fp16-sim"})
    return model, constants, names


PROBES = ("low", "high", "sum", "lost", "size")


def probe(name: str, exact: str) -> list:
    """Nodes that give `name:low` and the other PROBES of a tensor `name` that was `exact` before rounding."""
    from onnx import TensorProto, helper

    node, at = helper.make_node, lambda kind: f"{name}:{kind}"
    return [
        node("ReduceMin", [exact], [at("low")], keepdims=0),
        node("ReduceMax", [exact], [at("high")], keepdims=0),
        node("ReduceSum", [name], [at("sum")], keepdims=0),  # not finite where any value is not
        node("Cast", [exact], [at("was")], to=TensorProto.BOOL),
        node("Cast", [name], [at("is")], to=TensorProto.BOOL),
        node("Xor", [at("was"), at("is")], [at("gone")]),
        node("Cast", [at("gone")], [at("count")], to=TensorProto.FLOAT),
        node("ReduceSum", [at("count")], [at("lost")], keepdims=0),
        node("Size", [name], [at("size")]),
    ]


class Probe:
    """An engine that runs a graph with probes and keeps what they say of all requests."""

    def __init__(self, model, names: list[str]):
        self.engine = engines.Onnxruntime(model.SerializeToString(), "fp16-sim")
        self.inputs, self.names, self.requests = self.engine.inputs, names, []
        self.order = [self.engine.names.index(f"{n}:{k}") for n in names for k in PROBES]

    def run(self, feeds):
        """Logits of one request. Raises UserError at the first tensor, in graph order, that is not finite."""
        outputs = self.engine.run(feeds)
        values = np.array([outputs[i] for i in self.order], np.float64).reshape(-1, len(PROBES))
        for name, (low, high, total, *_) in zip(self.names, values, strict=True):
            if not np.isfinite(total):
                raise cli.UserError(
                    f"tensor {name!r}: not finite in fp16: {low:.4g} to {high:.4g} before rounding, the limit is "
                    f"{LARGEST:g}; mend the operator that makes it"
                )
        self.requests.append(values)
        return outputs

    def report(self) -> list[dict]:
        """The range and the mean share of underflow of each tensor."""
        low, high, _, lost, size = np.moveaxis(np.array(self.requests), -1, 0)
        rows = zip(self.names, low.min(0), high.max(0), lost.sum(0) / size.sum(0), strict=True)
        return [{"tensor": n, "low": float(a), "high": float(b), "underflow": float(u)} for n, a, b, u in rows]


def measure_ranges(path: Path, folder: Path, rows: int | None = None) -> dict:
    """The report of a rehearsal on the sentences in `folder`, or on the `rows` longest. `flips` are rows of the validation
    set, from 0."""
    model, constants, names = rounded_graph(path, probes=True)
    arrays = input_files.load_inputs(folder, [i.name for i in model.graph.input])
    tokens = input_files.lengths(arrays)
    arrays = {name: a[tokens > 0] for name, a in arrays.items()}  # rows without a token fill up whole batches
    sentences = [[i] for i in range(len(tokens[tokens > 0]))]  # of each row
    if (folder / "rows.json").is_file():  # packed rows, or whole batches grouped by length
        files = list(cli.read_json(folder / "rows.json").values())
        sentences = files if "first" in arrays else [[i] for batch in files for i in batch]
    longest = np.sort(np.arange(len(sentences))[input_files.longest(arrays, rows)])
    arrays = {n: a[longest] for n, a in arrays.items()}
    numbers = np.concatenate([sentences[i] for i in longest])
    probes = Probe(model, names)
    runs = (engines.all_logits(engine, arrays) for engine in (probes, engines.Onnxruntime(path, "fp32")))
    half, full = (input_files.by_sentence(out, arrays)[0] for out in runs)
    classes = [gate.by_label(out, tasks.of_inputs(folder)[1]).argmax(1).reshape(len(out), -1) for out in (half, full)]
    return {
        "sentences": len(full),
        "max_logit_difference": float(np.abs(half - full).max()),
        "flips": sorted(numbers[(classes[0] != classes[1]).any(1)].tolist()),
        "constants": constants,
        "tensors": probes.report(),
    }


def show(report: dict) -> str:
    """The main results of a rehearsal: the flips, the tensors nearest to overflow, and those that underflow."""
    top = lambda t: max(abs(t["low"]), abs(t["high"]))
    flips = [f"dev.tsv:{row + 2}" for row in report["flips"]]
    lines = [
        f"fp16        no inf, no NaN on {report['sentences']} sentences; max |logit difference| to fp32 "
        f"{report['max_logit_difference']:.2g}, {len(flips)} flips{': ' if flips else ''}{' '.join(flips)}"
    ]
    for t in sorted(report["tensors"], key=top, reverse=True)[:SHOWN]:
        share = 100 * top(t) / LARGEST
        lines.append(f"range       {t['tensor']}: {t['low']:.4g} to {t['high']:.4g}, {share:.2g} % of the limit")
    for kind in ("constants", "tensors"):
        lost = sorted((t for t in report[kind] if t["underflow"]), key=lambda t: -t["underflow"])
        for t in lost[:SHOWN]:
            what = f" ({t['low']:.3g})" if t["low"] == t["high"] else ""
            lines.append(f"underflow   {t['tensor']}{what}: {100 * t['underflow']:.3g} % of its values become 0")
        if lost[SHOWN:]:
            lines.append(f"underflow   and {len(lost) - SHOWN} more {kind}")
    return "\n".join(lines)


def main():
    p = cli.parser(__doc__)
    p.add_argument(
        "command", choices=["ranges", "convert"], help="report on the sentences, or write the graph with its rounding"
    )
    p.add_argument("onnx", type=Path, help="ascend.onnx")
    p.add_argument("--input", type=Path, help="ranges: folder of preprocess.py")
    p.add_argument("--rows", type=int, help="ranges: how many sentences, longest first (default: all)")
    p.add_argument("--save_path", required=True, type=Path)
    args = p.parse_args()
    if args.command == "ranges" and not args.input:
        p.error("--input is missing")
    try:
        if args.command == "ranges":
            report = measure_ranges(args.onnx, args.input, args.rows)
            print(show(report))
            data = json.dumps(report, indent=1).encode() + b"\n"
        else:
            data = rounded_graph(args.onnx)[0].SerializeToString(deterministic=True)
    except cli.UserError as e:
        raise cli.UserError(f"{args.onnx}: {e}; nothing was written") from None
    cli.write(args.save_path, data)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
