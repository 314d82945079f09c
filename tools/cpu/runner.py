"""ais_bench's command line, files and figures, on the CPU.

    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask \\
        --output out --output_dirname run --outfmt TXT
    python -m tools.cpu.runner --model model.onnx --loop 100
    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask --batchsize 8 \\
        --plan measured --output out --output_dirname run

As in ais_bench (sources: 0.0.2, 2023, and msit's, 2024), input folders stand in the model's input order, files in natural
order; a request takes as many files as its first input holds; the last one is filled up with its own first file, and the
outputs of those rows are not written; outputs are named {stem of the first input's file}_{output index}; the time of a
request is that of the engine's call alone; without --input it runs zeros; .npy files are whole requests, as
--auto_set_dymdims_mode 1 takes them; <output>/<dirname>_summary.json lies beside the folder. The summary also has
`engine`, and `stolen`, the share of the processors' time that the host gave to other machines.

These options are not ais_bench's: --untimed, --threads, --milliseconds; --plan (tools/cpu/plan.py), whose throughput is that
of whole passes; --yardstick (tools/cpu/yardstick.py), whose `pairs` and `singles` the summary then holds; --known and --asked,
as in MLPerf's TEST01: where zeros are timed, random requests of --asked run in between, else the timed outputs are compared.
"""

import io
import json
import os
import platform
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np

from tools.base import input_files, logs
from tools.cpu import yardstick
from tools.make import cli, cpu

CHECKED = 1 / 8  # the share of the timed requests of zeros after which a request with known outputs runs


def parse_options(argv=None):
    parser = cli.parser(__doc__)
    add = parser.add_argument
    positive = lambda text: int(text) if int(text) > 0 else parser.error(f"{text} is not above 0")
    add("--model", "-m", required=True, type=Path, help="a compiled model")
    add("--input", "-i", help="folders or files, comma separated, in model input order; none: zeros")
    add("--output", "-o", type=Path, help="the folder of results; without it nothing is kept")
    add("--output_dirname", help="folder under --output (the time if not given)")
    add("--outfmt", choices=["BIN", "NPY", "TXT"], default="BIN")
    add("--loop", "-l", type=positive, default=1, help="runs of each request")
    add("--warmup_count", type=int, default=1, help="runs before those that count")
    add("--batchsize", type=positive, help="for the throughput formula (first dimension if not given)")
    add("--auto_set_dymdims_mode", type=int, default=0, help="inputs are .npy, one whole request each")
    add("--dymDims", help='shape of a pure run, as "input_ids:8,64;attention_mask:8,64"')
    add("--untimed", action="store_true", help="only the outputs count: each core runs a request of its own")
    add("--threads", type=int, default=0, help="cores (all if 0)")
    add("--yardstick", type=Path, help="build/lib/peak.so, which takes turns with the engine")
    add("--milliseconds", type=int, default=0, help="go on after --loop until the engine has run so long")
    add("--known", type=Path, help="outputs of the accuracy run, which the engine has to give again")
    add("--asked", help="if zeros are timed: the input folders of --known")
    add("--plan", choices=["fixed", "measured"], help="sentences of any length, at most --batchsize a request")
    args = parser.parse_args(argv)
    if args.plan and not (args.input and args.batchsize):
        parser.error("--plan needs --input and --batchsize")
    if args.output_dirname and not args.output:
        parser.error("--output_dirname needs --output")
    return args


def columns_of(spec: str, count: int) -> list[list[Path]]:
    """The files of each model input, in natural order: `count` lists of the same length; else UserError."""
    columns = []
    for name in map(Path, spec.split(",")):
        files = input_files.row_files(name) if name.is_dir() else [name]
        if not files or not files[0].is_file():
            raise cli.UserError(f"--input {name}: no .bin or .npy file there")
        columns.append(files)
    if len(columns) != count:
        raise cli.UserError(f"--input names {len(columns)} inputs, the model has {count}")
    counts = [len(c) for c in columns]
    if len(set(counts)) > 1:
        raise cli.UserError(f"--input: the folders hold {counts} files; each needs the same number; preprocess again")
    return columns


def requests_of(columns, tensors, batchsize):
    """Yield (files of the first input, feeds, rows a file). Each .npy is one whole request; a .bin is a row, and a request
    holds as many as the model takes, or --batchsize; the last request is filled up.

    Raises UserError for rows of another length than the model takes, and if neither says how many rows it takes.
    """
    whole = columns[0][0].suffix == ".npy"
    if not (size := 1 if whole else tensors[0].shape[0] or batchsize):
        raise cli.UserError(f"input {tensors[0].name} has a dynamic shape; give --batchsize, or .npy whole requests")
    for start in range(0, len(columns[0]), size):
        feeds = []
        for column, tensor in zip(columns, tensors, strict=True):
            files = column[start : start + size]
            rows = [input_files.read_rows(file) for file in [*files, *files[:1] * (size - len(files))]]
            width = tensor.shape[1] or rows[0].shape[1]
            if unlike := [f for f, row in zip(files, rows, strict=False) if row.shape[1] != width and not whole]:
                raise cli.UserError(f"{unlike[0]}: not {width} tokens; preprocess again, for this model's length")
            feeds.append(np.concatenate(rows))
        yield columns[0][start : start + size], feeds, len(feeds[0]) if whole else 1


def pure_requests(tensors, dims):
    """Yield one request of zeros: ([name], feeds, rows). UserError if a dimension is open and --dymDims lacks it."""
    sizes = dict(part.rpartition(":")[::2] for part in dims.split(";")) if dims else {}
    if len({*sizes.values()}) > 1 or not all(re.fullmatch(r"[1-9]\d{0,5},[1-9]\d{0,5}", v) for v in sizes.values()):
        raise cli.UserError(f"--dymDims {dims}: not input:rows,tokens for each input, all alike, with ; between them")
    shapes = [tuple(map(int, sizes[t.name].split(","))) if t.name in sizes else t.shape for t in tensors]
    for tensor, shape in zip(tensors, shapes, strict=True):
        if None in shape:
            raise cli.UserError(f"input {tensor.name} has a dynamic shape; name it with --dymDims")
    yield [Path("pure_infer_data")], [np.zeros(s, t.dtype) for s, t in zip(shapes, tensors, strict=True)], shapes[0][0]


def write_output(folder: Path, stem: str, k: int, array, outfmt: str) -> Path:
    """Write one sample's output: raw little-endian bytes, .npy, or `%f` values, a line per leading row."""
    path, text = folder / f"{stem}_{k}.{outfmt.lower()}", io.BytesIO()
    if outfmt == "TXT":
        np.savetxt(text, array.reshape(len(array), -1), fmt="%f")
    with cli.file_in_error(path):
        path.write_bytes(text.getvalue() or (cli.npy_bytes(array) if outfmt == "NPY" else array.tobytes()))
    path.chmod(0o644)
    return path


class ScoredOutputs:
    """The outputs of the accuracy run, which the timed engine has to give again. rows: how many were compared."""

    def __init__(self, args, engine):
        self.args, self.engine, self.rows = args, engine, 0
        self.columns = columns_of(args.asked, len(engine.inputs)) if args.asked else []

    def run_one(self) -> None:
        """Run a random request of --asked, outside the timing, and compare its outputs."""
        size = self.args.batchsize
        start = random.randrange(0, len(self.columns[0]), size)
        columns = [column[start : start + size] for column in self.columns]
        for files, feeds, rows in requests_of(columns, self.engine.inputs, size):
            for file, outputs in by_file(files, rows, self.engine.run(feeds)):
                self.compare(file, outputs[0])

    def compare(self, file: Path, output) -> None:
        """Raise UserError if a file's output is not that of the accuracy run: the same numbers, or what the gate lets pass, in
        fp32, which another CPU rounds otherwise, and with --plan, which cuts requests otherwise."""
        from tools.base import output_files
        from tools.graph import gate

        stem, logits = file.name.split(".")[0], output.reshape(-1, output.shape[-1])
        scored = output_files.read_logits(self.args.known, stem, len(logits), logits.shape[1], False)
        judged = self.args.plan or self.engine.precision == "fp32"
        if not (np.array_equal(scored, logits) or (judged and gate.judge(scored, logits, self.engine.precision).ok)):
            fault = "the engine answers otherwise while it is timed; delete it and run make again"
            raise cli.UserError(f"{self.args.known}/{stem}_0.*: {fault}")
        self.rows += 1


def read_sentences(files: list[list[Path]], tensors) -> list[list]:
    """The int64 row of each input's files, as long as its sentence.

    Raises UserError if the model's shape is fixed, and for a file that is not one row as long as the other inputs' rows.
    """
    if fixed := [t for t in tensors if t.shape != (None, None)]:
        raise cli.UserError(f"--plan: input {fixed[0].name} has the shape {fixed[0].shape}; both must be open")
    columns = [list(map(input_files.read_rows, column)) for column in files]
    for file, *rows in zip(files[0], *columns, strict=True):
        if {row.shape for row in rows} != {(1, rows[0].size)}:
            raise cli.UserError(f"{file}: not one row of as many tokens as the other inputs have; preprocess again")
    return [[row for (row,) in column] for column in columns]


def run_all(args, engine, single, turns, scored, times: list[float]):
    """Run the requests of the inputs, after --warmup_count runs: each --loop times and until --milliseconds are over. Yield
    (file, outputs); each run's milliseconds go to `times`. single: the engine with one thread, which takes turns too."""
    from tqdm import tqdm

    if args.input:
        requests = requests_of(columns_of(args.input, len(engine.inputs)), engine.inputs, args.batchsize)
    else:
        requests = pure_requests(engine.inputs, args.dymDims)
    warm = [] if args.untimed else [e for e in (engine, single) if e for _ in range(args.warmup_count)]

    def once(request):
        files, feeds, rows = request
        args.batchsize = args.batchsize or len(feeds[0])
        while warm:
            warm.pop().run(feeds)
        clock = yardstick.Turns() if args.untimed else turns
        runs, total = 0, 0.0
        while runs < args.loop or 1e3 * total < args.milliseconds:
            alone = single and (lambda: single.run(feeds))
            outputs, seconds = clock.time(len(feeds[0]), lambda: engine.run(feeds), alone)
            times.append(seconds * 1e3)
            runs, total = runs + 1, total + seconds
            if scored and args.asked and (runs == 1 or random.random() < CHECKED):
                scored.run_one()
        return by_file(files, rows, outputs)

    with ThreadPoolExecutor(engine.streams) as pool:
        answers = (pool.map if args.untimed else map)(once, requests)
        for answer in tqdm(answers, desc="infer", unit="request", disable=None):
            yield from answer


def by_file(files, rows: int, outputs) -> list[tuple]:
    """(file, its rows of each output) for a request's files, or for their numbers."""
    return [(file, [out[i * rows : (i + 1) * rows] for out in outputs]) for i, file in enumerate(files)]


def run_plan(args, engine, turns):
    """Run sentences by --plan: (engine, [(file, outputs)] in the files' order, ms of each request, ms of each pass)."""
    from tqdm import tqdm

    from tools.cpu import plan

    files = columns_of(args.input, len(engine.inputs))
    columns = read_sentences(files, engine.inputs)
    if args.plan == "measured":
        engine, rows = plan.fastest(engine, args.model, columns, args.batchsize, args.threads)
    else:
        rows = plan.fixed(engine, columns, args.batchsize)
    requests = [plan.feeds_of(columns, r) for r in rows]
    tokens, room = sum(map(len, columns[0])), sum(r[0].size for r in requests)
    padding = "none" if engine.ragged else f"{100 - 100 * tokens / room:.1f} % of tokens"
    sizes = f"{len(files[0])} sentences in {len(requests)} requests, {engine.streams} at a time"
    print(f"[INFO] plan {args.plan}: {sizes}; padding: {padding}")
    warm = args.warmup_count if args.plan == "measured" else 0
    total = (warm + args.loop) * len(files[0])
    with tqdm(total=total, desc="infer", unit="sentence", disable=None) as bar:
        run_pass = lambda: plan.run_requests(engine, requests, bar.update)
        for _ in range(warm):
            run_pass()
        passes = [turns.time(len(files[0]), run_pass)[0] for _ in range(args.loop)]
    by_number = dict(
        pair for numbers, out in zip(rows, passes[-1][0], strict=True) for pair in by_file(numbers, 1, out)
    )
    results = [(file, by_number[i]) for i, file in enumerate(files[0])]
    return engine, results, [ms for _, times, _ in passes for ms in times], [1e3 * seconds for *_, seconds in passes]


def engine_facts(engine, threads: int, count: int) -> dict:
    """What a summary says of the engine, which ran `count` sentences, each equally often."""
    more = {"family": engine.family} if engine.family else {}
    if engine.certificate:
        from tools.cpu.native import certificate

        more |= certificate.facts_of_run(engine.certificate, engine.left * count // engine.left.sum())
    isa = [unit for unit in cpu.ISA if unit in cpu.cpu_flags(engine.limited)]
    return {
        "name": engine.name, "version": engine.version, "precision": engine.precision,
        "layers": engine.layers, "threads": threads, "machine": platform.machine(), "isa": isa, **more, **engine.facts,
    }  # fmt: skip


def main(words=None, load=None):
    """words: those of the command line if None. load: opens a model as engines.load does, for another kind of engine."""
    args = parse_options(words)
    from tools.cpu import engines

    load, threads = load or engines.load, args.threads or cpu.cores()
    engine = load(args.model, args.threads, threads if args.untimed else 1)
    print(f"[INFO] load model {args.model} success: {type(engine).__name__} {engine.version} {engine.precision}")
    turns = yardstick.Turns(args.yardstick, engine.precision, threads)
    scored = ScoredOutputs(args, engine) if args.known else None
    single = load(args.model, 1) if args.yardstick and threads > 1 and not args.plan else None
    folder, info, count, times, passes = None, {}, 0, [], []
    if args.output:
        folder = args.output / (args.output_dirname or datetime.now().strftime("%Y_%m_%d-%H_%M_%S"))
        folder.mkdir(parents=True, exist_ok=True)
    before = cpu.ticks()
    if args.plan:
        engine, results, times, passes = run_plan(args, engine, turns)
    else:
        results = run_all(args, engine, single, turns, scored, times)
    for file, outputs in results:
        count += 1
        if scored and not args.asked:
            scored.compare(file, outputs[0])
        if folder:
            stem = file.name.split(".")[0]
            paths = [write_output(folder, stem, k, out, args.outfmt) for k, out in enumerate(outputs)]
            info[len(info)] = {"infiles": [str(file)], "outfiles": list(map(str, paths))}
    turns.close()
    stolen, ticks = (now - then for now, then in zip(cpu.ticks(), before, strict=True))
    compute = logs.stats(times)
    throughput = 1000 * args.batchsize / compute["mean"]
    formula = f"1000*batchsize.mean({args.batchsize})/NPU_compute_time.mean({compute['mean']})"
    if passes:
        throughput = 1000 * count / (sum(passes) / len(passes))
        formula = f"1000*sentences({count})/pass.mean({sum(passes) / len(passes)})"
    line = ", ".join(f"{k} = {v}" for k, v in compute.items() if k != "count")
    print("[INFO] -----------------Performance Summary------------------")
    print(f"[INFO] NPU_compute_time (ms): {line}")
    print(f"[INFO] throughput {formula}: {throughput}")
    print("[INFO] ------------------------------------------------------")
    if folder:
        summary = {
            "filesinfo": info, "args": sys.argv, "NPU_compute_time": compute, "throughput": throughput,
            "npu_compute_time_list": times, "pid": os.getpid(), "engine": engine_facts(engine, threads, count),
        }  # fmt: skip
        if passes:
            summary["engine"]["streams"], summary["pass_ms"] = engine.streams, passes
        if scored:
            summary["engine"]["rows_as_scored"] = scored.rows
        if ticks:
            summary["stolen"] = round(stolen / ticks, 4)
        if turns.kind:
            summary |= {} if turns.joules() is None else {"joules": turns.joules()}
            summary |= {"yardstick": turns.kind, "loop": args.loop, "pairs": turns.pairs, "singles": turns.singles}
        cli.write(args.output / f"{folder.name}_summary.json", json.dumps(summary, indent=1))
        print(f"wrote {len(info)} results to {folder}, figures to {folder}_summary.json")


if __name__ == "__main__":
    cli.run(main)
