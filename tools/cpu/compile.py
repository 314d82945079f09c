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
from tools.make import chips, cli, cpu

WIDER = {"openvino": "fp32", "native": "bf16"}  # what a layer gets that int8 does not suit
APART = ["embeddings", "pooler", "classifier"]  # the parts that stay in fp32 beside int8 layers
MOST = 512  # calibration sentences: the first ones of the file
LONGEST = 128  # tokens of a calibration sentence where the graph leaves the length open


def parse_common(p, names):
    """The options of a parser, with those of every command that writes a model of one of these engines and holds it to the
    gate."""
    p.add_argument("--engine", required=True, choices=names)
    p.add_argument("--precision", required=True, help="one that the engine has, of tools/make/chips.py")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py: the sentences of the gate")
    p.add_argument("--rows", type=int, help="how many of these sentences the gate takes, longest first (default: all)")
    p.add_argument("--seeded", action="store_true", help="the weights are random: the gate goes by classes, not labels")
    p.add_argument("--save_path", required=True, type=Path)
    args = p.parse_args()
    right = chips.ENGINES[args.engine].precisions.keys() - chips.REHEARSALS
    if args.precision not in right:
        p.error(f"--precision {args.precision}: {args.engine} has {', '.join(sorted(right))}")
    return args


def shapes_of(path: Path) -> dict:
    """{input: its dimensions, 0 where open} of an ONNX graph."""
    graph = onnxfile.load_model(path, weights=False).graph
    return {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}


def calibration_inputs(path: Path, checkpoint: Path, shapes: dict, task) -> dict:
    """The calibration sentences as a graph's inputs, {name: int64 [n, length]}. They need no labels. UserError if there are none."""
    from tools.source import data, tokens

    names = [n for n in shapes if n in input_files.ROLES]
    packed = [] if len(names) == len(shapes) else ["attention_mask"]
    width = shapes[next(n for n in shapes if input_files.ROLES.get(n) == "input_ids")][1]
    texts = data.read_texts(path, task)[:MOST]
    length = tokens.fit(checkpoint, width or LONGEST, cut=not width)
    tokenizer = tokens.load(checkpoint)
    arrays = tokens.encode(tokenizer, texts, length, names + packed)
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
    task: tasks.Task = tasks.TASKS[tasks.DEFAULT]
    seeded: bool = False  # random weights: judged by classes, not labels
    load: Callable = engines.load

    def finish(self, folder: Path, rows: int | None, write: Callable) -> None:
        """Call write() and judge the model that it wrote, which is deleted unless the gate lets it pass."""
        try:
            write()
            print(judge_model(self, folder, rows).demand(self.save_path))
        except BaseException:
            self.save_path.unlink(missing_ok=True)
            raise
        print(f"wrote {self.save_path}")


def write_model(job: Job, precisions: list[str], arrays: dict | None = None) -> None:
    """Write the job's model. precisions: one for each encoder layer, which differ for int8 alone. arrays: the inputs for
    int8's statistics, {name: int64 [n, length]}."""
    if job.engine == "native":
        from tools.cpu.native import convert as native

        bf16_layers = [i for i, p in enumerate(precisions) if p != job.precision]
        native.convert(job.reference, job.save_path, job.precision, bf16_layers, job.task.pair)
    elif job.engine == "openvino":
        cpu.check_units(job.precision)
        write_openvino(job, precisions, arrays)
    else:
        write_onnxruntime(job)


def write_openvino(job: Job, precisions: list[str], arrays: dict | None) -> None:
    """Write the job's model.ir. Raises UserError if the process that quantises crashes."""
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


def both_logits(job: Job, arrays: dict):
    """The logits of each sentence, of the reference and of the written model, as `gate.by_label` has them."""
    outputs = gate.logits(str(job.reference), arrays), engines.all_logits(job.load(job.save_path), arrays)
    return [gate.by_label(input_files.by_sentence(rows, arrays)[0], job.task) for rows in outputs]


def convert_int8(job: Job, layers: int, arrays: dict) -> None:
    """Write an int8 model, with as few of the last layers in a wider precision as the classes of the rows `arrays` need.
    Raises UserError if even one int8 layer changes too many of them."""
    for count in range(layers):
        precisions = [job.precision] * (layers - count) + [WIDER[job.engine]] * count
        write_model(job, precisions, arrays)
        reference, logits = both_logits(job, arrays)
        verdict = gate.judge(reference, logits, job.precision, seeded=job.seeded)
        print(f"layers {' '.join(precisions)}: {verdict.line}, of the calibration")
        if verdict.ok:
            return
    fault = f"not one of the {layers} layers keeps its classes in {job.precision}"
    raise cli.UserError(f"{job.save_path}: {fault}; use PRECISION={WIDER[job.engine]}")


def count_layers(path: Path) -> int:
    """How many encoder layers an ONNX graph has. Raises UserError if it has no inputs or outputs."""
    graph = onnxfile.load_model(path, weights=False).graph
    if not graph.input or not graph.output:
        raise cli.UserError(f"{path}: a graph without inputs or outputs; make it again")
    return sum(n.op_type == "Softmax" for n in graph.node)


def judge_model(job: Job, folder: Path, rows: int | None):
    """The gate's verdict on the written model, from the `rows` longest rows of a folder of preprocess.py. If None, from all of
    them in their order: a flip is then named by its place in the data."""
    arrays = input_files.load_inputs(folder, list(shapes_of(job.onnx)))
    real = input_files.lengths(arrays) > 0  # whole batches are filled up with rows of padding
    arrays = {name: a[real] for name, a in arrays.items()}
    chosen = np.arange(real.sum())[input_files.longest(arrays, rows)]
    reference, logits = both_logits(job, {name: a[chosen] for name, a in arrays.items()})
    path = folder / "labels.json"
    if not path.exists():  # these texts only check the graph: nobody has labelled them
        return gate.judge(reference, logits, job.precision, seeded=job.seeded)
    _, task, names = tasks.of_inputs(folder)
    files = [value if isinstance(value, list) else [value] for value in cli.read_json(path).values()]
    of_rows = [output_files.numbers_of(texts, task, len(names), path) for texts in files]
    if "first" not in arrays:  # one sentence a row
        of_rows = [[label] for row in of_rows for label in row]
    if len(of_rows) != real.sum():
        raise cli.UserError(f"{path}: labels of {len(of_rows)} rows, {real.sum()} are here; preprocess again")
    labels = [label for i in chosen for label in of_rows[i]]
    if task.several:
        labels = [int(k in label) for label in labels for k in range(len(reference) // len(labels))]
    return gate.judge(reference, logits, job.precision, np.array(labels), job.seeded)


def main():
    p = cli.parser(__doc__)
    p.add_argument("--onnx", required=True, type=Path, help="the modified graph")
    p.add_argument("--reference", type=Path, help="the export to compare with (--onnx if not given)")
    p.add_argument("--calibration", type=Path, help="int8: a TSV of training sentences")
    p.add_argument("--checkpoint", type=Path, help="int8: the checkpoint whose tokenizer reads the training sentences")
    p.add_argument("--task", default=tasks.DEFAULT, help="the task, of tools/base/tasks.py (%(default)s)")
    args = parse_common(p, ("onnxruntime", "openvino", "native"))
    int8 = args.precision.startswith("int8")
    if int8 and not (args.calibration and args.checkpoint):
        fault = f"--precision {args.precision} needs --calibration and --checkpoint"
        raise cli.UserError(f"{fault}: give TRAIN=, the task's own train.tsv")
    task = tasks.by_name(args.task)
    graphs = args.onnx, args.reference or args.onnx
    job = Job(*graphs, args.engine, args.precision, args.save_path, task, args.seeded)
    layers = count_layers(job.onnx)

    def write():
        if int8:
            convert_int8(job, layers, calibration_inputs(args.calibration, args.checkpoint, shapes_of(job.onnx), task))
        else:
            write_model(job, [job.precision] * layers)

    job.finish(args.input, args.rows, write)


if __name__ == "__main__":
    cli.run(main)
