"""Compile a graph for a CPU engine: model.onnx in the form and precision that the engine runs.

    python tools/compile_cpu.py --onnx cpu.onnx --engine openvino --precision int8 --calibration calibration.tsv \\
        --checkpoint checkpoint --input input --save_path model.onnx

onnxruntime gets its own fused operators (level EXTENDED: those that do not depend on this very CPU). OpenVINO
compiles when it loads, so fp32 and bf16 only name the precision; int8 is quantised by NNCF after training, on the
training sentences of --calibration. packed (AMX, no padding) converts the --reference itself. Whatever is written has been run first on every sentence of --input:
fp32 gives the same logits within 1e-4 and the same classes; bf16 and int8 stay within 3 correct sentences of 872,
and every sentence that flips is listed. Labels mean nothing to --seeded weights: there bf16 and int8 may flip 3 of
872 against fp32, not counting near ties, the rows that fp32 itself decides by less than 1/8 of its largest |logit|.
"""

import argparse
from pathlib import Path

import cli
import engines

TOLERANCE = 1e-4  # fp32, logits
LOSS = 3 / 872  # bf16, int8: the share of sentences that may be lost, or flip where labels mean nothing
NOISE = 1 / 8  # of the largest |logit|; margins of seeded minilm_sst2 move by up to 1 / 23 (bf16), 1 / 28 (int8)


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--onnx", required=True, type=Path, help="the modified graph")
    p.add_argument("--engine", required=True, choices=list(engines.ENGINES))
    p.add_argument("--precision", required=True, choices=["fp32", "bf16", "int8"])
    p.add_argument("--reference", type=Path, help="graph to compare with (--onnx if not given; an export is quicker)")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py: the sentences of the gate")
    p.add_argument("--calibration", type=Path, help="int8: training sentences, TSV")
    p.add_argument("--checkpoint", type=Path, help="int8: whose tokenizer reads them")
    p.add_argument(
        "--rows", type=int, help="use only this many sentences in the gate, longest first (all if not given)"
    )
    p.add_argument("--seeded", action="store_true", help="random weights: judge by classes, not labels")
    p.add_argument("--save_path", required=True, type=Path)
    return p.parse_args()


def fuse(path: Path, out: Path):
    """onnxruntime's own offline optimisation of a graph, as a ModelProto."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(out)
    except Exception as e:  # onnxruntime has no public base class for its errors; a full disk is one of them
        raise cli.UserError(
            f"{path}: onnxruntime made no {out} of it: {engines.first_line(e)}; is there room for it? else make it again"
        ) from None


def quantise(path: Path, calibration: Path, checkpoint: Path):
    """NNCF's int8 post-training quantisation of a graph (activations asymmetric, weights symmetric per channel)."""
    import nncf

    import data
    import tokens

    model = engines.read(path)
    shape = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input][0]
    names = [i.name for i in model.graph.input]
    length = shape[1] or 128
    plain = [n for n in names if n in tokens.ROLES]
    packed = [] if len(plain) == len(names) else ["attention_mask"]
    arrays = tokens.encode(tokens.load(checkpoint), data.read_tsv(calibration)[0], length, plain + packed)
    arrays = tokens.pack(arrays)[0] if packed else arrays
    step = shape[0] or 8
    count = len(next(iter(arrays.values()))) // step
    items = [{n: a[i * step : (i + 1) * step] for n, a in arrays.items()} for i in range(count)]
    return nncf.quantize(
        model,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=count,
    )


def compare(reference, made, labels: list[int], precision: str, seeded: bool = False) -> str:
    """The gate: one line on how far `made` is from `reference` (float32 [n, 2] both), or UserError.

    seeded: the weights are random, so that classes are compared with the reference's, not with the labels.
    """
    import numpy as np

    apart = float(np.abs(made - reference).max()) if np.isfinite(made).all() else float("inf")
    flips = np.flatnonzero(made.argmax(1) != reference.argmax(1))
    lost = int((reference.argmax(1) == labels).sum() - (made.argmax(1) == labels).sum())
    what = "more wrong"
    if seeded:
        margins = np.abs(reference[flips, 1] - reference[flips, 0])
        lost = int((margins > NOISE * np.abs(reference).max()).sum())
        what = "flips but for near ties"
    allowed = int(LOSS * len(labels))
    ok = (apart <= TOLERANCE and not len(flips)) if precision == "fp32" else (np.isfinite(apart) and lost <= allowed)
    line = (
        f"{precision} against fp32 on {len(labels)} sentences: max |logit difference| {apart:.2g}, "
        f"{lost} {what}, {len(flips)} flips{': rows ' + ' '.join(map(str, flips)) if len(flips) else ''}"
    )
    if not ok:
        limit = f"{TOLERANCE:.0e} and no flips" if precision == "fp32" else f"{allowed} {what}"
        raise cli.UserError(f"{line}; allowed are {limit}; nothing was written")
    return line


def main():
    args = parse()
    if args.precision == "int8" and args.engine != "packed" and not (args.calibration and args.checkpoint):
        raise cli.UserError("--precision int8 needs --calibration and --checkpoint")
    try:
        print(make(args))
    except BaseException:
        args.save_path.unlink(missing_ok=True)
        raise
    print(f"wrote {args.save_path}")


def make(args) -> str:
    """Write args.save_path and hold it to the gate: its line, or UserError."""
    import numpy as np

    import gate

    given = read_labels(args.input / "labels.json")
    graph = engines.read(args.onnx, weights=False).graph
    names = [i.name for i in graph.input]
    if not names or not graph.output:
        raise cli.UserError(f"{args.onnx}: a graph without inputs or outputs; make it again")
    compiled(args)
    arrays = gate.load_inputs(args.input, names)
    arrays = {name: a[gate.lengths(arrays) > 0] for name, a in arrays.items()}  # no padding rows of whole batches
    if "first" not in arrays:  # one sentence a row
        given = [[v] for g in given for v in g]
    if len(given) != len(arrays[names[0]]):
        raise cli.UserError(
            f"{args.input / 'labels.json'}: labels of {len(given)} rows, {len(arrays[names[0]])} are here; preprocess again"
        )
    chosen = np.argsort(-gate.lengths(arrays), kind="stable")[: args.rows]
    arrays = {n: a[chosen] for n, a in arrays.items()}
    labels = np.array([v for i in chosen for v in given[i]])
    made = engines.logits(engines.load(args.save_path), arrays)
    reference = gate.logits(str(args.reference or args.onnx), arrays)
    reference, made = (gate.by_sentence(out, arrays)[0] for out in (reference, made))
    return compare(reference, made, labels, args.precision, args.seeded)


def read_labels(path: Path) -> list[list[int]]:
    """The labels of each file of preprocess.py's labels.json."""
    import recipe

    given = [g if isinstance(g, list) else [g] for g in recipe.read_json(path).values()]
    if not all(v in ("0", "1") for g in given for v in g):
        raise cli.UserError(f"{path}: labels are not 0 or 1; preprocess again")
    return [[int(v) for v in g] for g in given]


def compiled(args) -> None:
    """Write args.save_path in the form that the engine runs."""
    import onnx

    if args.engine == "packed":
        import packed

        packed.convert(args.reference or args.onnx, args.save_path, args.precision)
        return
    if args.engine == "onnxruntime":
        model = fuse(args.onnx, args.save_path)
    elif args.precision == "int8":
        model = quantise(args.onnx, args.calibration, args.checkpoint)
    else:
        model = engines.read(args.onnx)
    onnx.helper.set_model_props(model, {engines.ENGINE: args.engine, engines.PRECISION: args.precision})
    with cli.whole_file(args.save_path) as f:
        f.write(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    cli.run(main)
