"""Compile a graph for a CPU engine: model.onnx in the form and precision that the engine runs.

    python -m tools.cpu.compile --onnx cpu.onnx --reference model.onnx --engine onnxruntime --precision fp32 \\
        --input input --rows 16 --save_path build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32/model.onnx
    gate: equal: fp32, max |difference| 2.16e-06 (limit 1e-04) over 16 rows, 0 flips
    wrote build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32/model.onnx

onnxruntime gets its own fused operators of the level EXTENDED, which do not depend on this very CPU; openvino the graph
and the name of the precision, and for int8 NNCF's quantisation after training, on --calibration; native the --reference
itself, its weights cut into tiles.

The model is then run on the sentences of --input and held to --reference by the rules of tools/graph/gate.py.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tools.base import input_files, onnxfile, output_files, tasks
from tools.cpu import engines
from tools.graph import gate
from tools.make import cli, cpu

WIDER = {"openvino": "fp32", "native": "bf16"}  # what a layer gets that int8 does not suit
APART = ["embeddings", "pooler", "classifier"]  # what int8 leaves alone
MOST = 512  # calibration sentences, the first of the file
LONGEST = 128  # tokens of a calibration sentence where the graph leaves the length open


def parse():
    p = cli.parser(__doc__)
    p.add_argument("--onnx", required=True, type=Path, help="the modified graph")
    p.add_argument("--engine", required=True, choices=["onnxruntime", "openvino", "native"])
    p.add_argument("--precision", required=True, choices=["fp32", "bf16", "int8", "int8-bf16"])
    p.add_argument("--reference", type=Path, help="the export to compare with (--onnx if not given)")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py: the sentences of the gate")
    p.add_argument("--calibration", type=Path, help="int8: training sentences, TSV")
    p.add_argument("--checkpoint", type=Path, help="int8: whose tokenizer reads them")
    p.add_argument("--rows", type=int, help="sentences of the gate, longest first (all if not given)")
    p.add_argument("--task", default=tasks.DEFAULT, help="what the sentences ask (tools/base/tasks.py, %(default)s)")
    p.add_argument("--seeded", action="store_true", help="random weights: judge by classes, not labels")
    p.add_argument("--save_path", required=True, type=Path)
    return p.parse_args()


def shapes_of(path: Path) -> dict:
    """{input: its dimensions, 0 where open} of an ONNX graph."""
    graph = onnxfile.load_model(path, weights=False).graph
    return {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}


def sentences(path: Path, checkpoint: Path, shapes: dict, task) -> dict:
    """The calibration sentences as a graph's inputs: {name: int64 [n, length]}; UserError for none. They need no labels."""
    from tools.source import data, tokens

    plain = [n for n in shapes if n in input_files.ROLES]
    packed = [] if len(plain) == len(shapes) else ["attention_mask"]
    width = shapes[next(n for n in shapes if input_files.ROLES.get(n) == "input_ids")][1]
    texts = data.read_texts(path, task)[:MOST]
    length = tokens.fit(checkpoint, width or LONGEST, cut=not width)
    tokenizer = tokens.load(checkpoint)
    arrays = tokens.encode(tokenizer, texts, length, plain + packed)
    arrays = tokens.pack(arrays, tokenizer.padding["pad_id"])[0] if packed else arrays
    return {name: arrays[name] for name in shapes}


@dataclass(frozen=True)
class Job:
    """A graph and what it is compiled to."""

    onnx: Path  # the modified graph
    reference: Path  # the export, which the result is held to
    engine: str
    precision: str
    save_path: Path
    pairs: bool = False  # of texts: token types count
    seeded: bool = False  # random weights: judged by classes, not labels
    several: bool = False  # labels at once: each is judged by itself
    load: Callable = engines.load


def convert(job: Job, precisions: list[str], arrays: dict | None = None) -> None:
    """Write the job's model. precisions: of each encoder layer, unlike each other for int8 alone; arrays: its inputs
    for int8's statistics, {name: int64 [n, length]}."""
    if job.engine == "native":
        from tools.cpu.native import convert as native

        wide = [i for i, p in enumerate(precisions) if p != job.precision]
        native.convert(job.reference, job.save_path, job.precision, wide, job.pairs)
    elif job.engine == "openvino":
        cpu.check_units(job.precision)
        write_openvino(job, precisions, arrays)
    else:
        write_onnxruntime(job)


def write_openvino(job: Job, precisions: list[str], arrays: dict | None) -> None:
    """Write the job's model.ir. Raises UserError where the process that quantises ends without one."""
    import openvino as ov

    if job.precision != "int8":
        return engines.write_ir(ov.Core().read_model(job.onnx), job.save_path, job.precision, precisions)
    # In a process that keeps to AVX2: newer units do not change the statistics, so not the file.
    with ProcessPoolExecutor(1, get_context("spawn"), os.putenv, (cpu.MAX_ISA, "AVX2")) as pool:
        try:
            pool.submit(write_int8, job, precisions, arrays).result()
        except BrokenProcessPool:
            fault = "OpenVINO crashed while it ran this graph in AVX2, for int8's statistics"
            raise cli.UserError(f"{job.reference}: {fault}; use PRECISION=bf16 or fp32") from None


def write_int8(job: Job, precisions: list[str], arrays: dict) -> None:
    """Write NNCF's quantisation of the export (activations asymmetric, weights per channel), fixed to the graph's shapes."""
    import nncf
    import openvino as ov

    items = []

    def keep(feeds):
        items.append(feeds)
        return np.zeros((len(next(iter(feeds.values()))), 2))

    open_shapes = {name: [d or None for d in shape] for name, shape in shapes_of(job.reference).items()}
    input_files.in_batches(keep, open_shapes, arrays, str(job.reference))
    apart = [*APART, *(rf"layer\.{i}/" for i, precision in enumerate(precisions) if precision != job.precision)]
    export = ov.Core().read_model(job.reference)
    engines.sums_for_means(export)
    model = nncf.quantize(
        export,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
        ignored_scope=nncf.IgnoredScope(patterns=[f".*{p}.*" for p in apart], validate=False),
    )
    engines.means_again(model)
    model.reshape({name: [d or -1 for d in shape] for name, shape in shapes_of(job.onnx).items()})
    engines.write_ir(model, job.save_path, job.precision, precisions)


def write_onnxruntime(job: Job) -> None:
    """Write onnxruntime's own offline optimisation of the job's graph. Raises UserError where it makes none."""
    import onnx
    import onnxruntime as ort

    settings: dict = {"graph_optimization_level": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, **onnxfile.PARTS}
    try:
        onnxfile.session(job.onnx, optimized_model_filepath=str(job.save_path), **settings)
        model = onnx.load(job.save_path)
    except Exception as e:  # onnxruntime has no public base class for its errors; a full disk is one of them
        fault = f"onnxruntime made no {job.save_path} of it: {onnxfile.first_line(e)}"
        raise cli.UserError(f"{job.onnx}: {fault}; is there room for it? else make it again") from None
    onnx.helper.set_model_props(model, {engines.ENGINE: job.engine, engines.PRECISION: job.precision})
    cli.write(job.save_path, model.SerializeToString(deterministic=True))


def logits(job: Job, arrays: dict):
    """(the reference's, the written model's) logits of each sentence, float32 [n, labels]; of several labels at once,
    those of each being wrong or right, [n x labels, 2]."""
    raw = gate.logits(str(job.reference), arrays), engines.logits(job.load(job.save_path), arrays)
    both = [input_files.by_sentence(out, arrays)[0] for out in raw]
    return [np.stack([out.ravel() * 0, out.ravel()], 1) for out in both] if job.several else both


def convert_int8(job: Job, layers: int, arrays: dict) -> None:
    """Write an int8 model with as few of the last layers wider as keep the classes of the rows `arrays`; UserError for none."""
    for count in range(layers):
        precisions = [job.precision] * (layers - count) + [WIDER[job.engine]] * count
        convert(job, precisions, arrays)
        reference, made = logits(job, arrays)
        verdict = gate.judge(reference, made, job.precision, seeded=job.seeded)
        print(f"layers {' '.join(precisions)}: {verdict.line}, of the calibration")
        if verdict.ok:
            return
    fault = f"not one of the {layers} layers keeps its classes in {job.precision}"
    raise cli.UserError(f"{job.save_path}: {fault}; use PRECISION={WIDER[job.engine]}")


def layers_of(path: Path) -> int:
    """How many encoder layers an ONNX graph has. UserError where it has no inputs or outputs."""
    graph = onnxfile.load_model(path, weights=False).graph
    if not graph.input or not graph.output:
        raise cli.UserError(f"{path}: a graph without inputs or outputs; make it again")
    return sum(n.op_type == "Softmax" for n in graph.node)


def judged(job: Job, folder: Path, rows: int | None):
    """The gate's verdict on the written model, of the `rows` longest rows of a folder of preprocess.py (all if None)."""
    arrays = input_files.load_inputs(folder, list(shapes_of(job.onnx)))
    whole = input_files.lengths(arrays) > 0  # no padding rows of whole batches
    arrays = {name: a[whole] for name, a in arrays.items()}
    chosen = np.argsort(-input_files.lengths(arrays), kind="stable")[:rows]
    reference, made = logits(job, {name: a[chosen] for name, a in arrays.items()})
    if not (folder / "labels.json").exists():  # texts to check the graph on, of which nobody knows what is right
        return gate.judge(reference, made, job.precision, seeded=job.seeded)
    _, task, names = tasks.of_inputs(folder)
    given = [g if isinstance(g, list) else [g] for g in cli.read_json(folder / "labels.json").values()]
    given = [output_files.numbers_of(g, task, len(names), folder / "labels.json") for g in given]
    if "first" not in arrays:  # one sentence a row
        given = [[v] for g in given for v in g]
    if len(given) != whole.sum():
        fault = f"labels of {len(given)} rows, {whole.sum()} are here; preprocess again"
        raise cli.UserError(f"{folder / 'labels.json'}: {fault}")
    labels = [v for i in chosen for v in given[i]]
    if job.several:
        labels = [int(k in v) for v in labels for k in range(len(reference) // len(labels))]
    return gate.judge(reference, made, job.precision, np.array(labels), job.seeded)


def main():
    args = parse()
    int8 = args.precision.startswith("int8")
    if int8 and not (args.calibration and args.checkpoint):
        fault = f"--precision {args.precision} needs --calibration and --checkpoint"
        raise cli.UserError(f"{fault}: give TRAIN=, the task's own train.tsv")
    task = tasks.by_name(args.task)
    reference = args.reference or args.onnx
    job = Job(args.onnx, reference, args.engine, args.precision, args.save_path, task.pair, args.seeded, task.several)
    layers = layers_of(job.onnx)
    try:
        if int8:
            convert_int8(job, layers, sentences(args.calibration, args.checkpoint, shapes_of(job.onnx), task))
        else:
            convert(job, [job.precision] * layers)
        print(judged(job, args.input, args.rows).demand(job.save_path))
    except BaseException:
        job.save_path.unlink(missing_ok=True)
        raise
    print(f"wrote {job.save_path}")


if __name__ == "__main__":
    cli.run(main)
