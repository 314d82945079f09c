"""ais_bench's command line, files and figures, on the CPU.

    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask \\
        --output out --output_dirname run --outfmt TXT
    python -m tools.cpu.runner --model model.onnx --loop 100
    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask --batchsize 8 \\
        --plan measured --output out --output_dirname run

Of ais_bench (sources: 0.0.2, 2023, and msit's, 2024): input folders stand in the model's input order, files in natural
order; as many files make one request as its first input holds; the last request is filled up with its own first file,
and what those rows give is not written; outputs are named {stem of the first input's file}_{output index}; the time of a
request is that of the engine's call alone; without --input it runs zeros; .npy files are whole requests, as
--auto_set_dymdims_mode 1 takes them; <output>/<dirname>_summary.json lies beside the folder. Its summary also says
`engine`, and `stolen`, the share of the processors' time that the host gave to other machines.

Ours are --untimed (each core has a request of its own, which takes less processor time), --plan (each file is a sentence
of its own length, and tools/cpu/plan.py says which go into a request: `fixed` gives the same bytes every time, `measured`
is faster; the throughput is that of whole passes), and --yardstick with --milliseconds: the engine takes turns with a fixed
piece of work (tools/cpu/yardstick.py), and the summary holds what both did (`pairs`, `singles`). With --known, which names
the outputs of the accuracy run, a timed engine has to give the same ones (MLPerf's TEST01): where zeros are timed, random
requests of --asked stand between the timed ones; else the timed outputs themselves are compared.
"""

import json
import os
import platform
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np

from tools.base import input_files
from tools.cpu import yardstick
from tools.make import cli, cpu

ASKED = 1 / 8  # of the timed requests of zeros, how many a request with known outputs follows


def parse(argv=None):
    parser = cli.parser(__doc__)
    positive = lambda text: int(text) if int(text) > 0 else parser.error(f"{text} is not above 0")
    parser.add_argument("--model", "-m", required=True, type=Path, help="a compiled model.onnx")
    parser.add_argument("--input", "-i", help="folders or files, comma separated, in model input order; none: zeros")
    parser.add_argument("--output", "-o", type=Path, help="where results go; none: nothing is kept")
    parser.add_argument("--output_dirname", help="folder under --output (the time if not given)")
    parser.add_argument("--outfmt", choices=["BIN", "NPY", "TXT"], default="BIN")
    parser.add_argument("--loop", "-l", type=positive, default=1, help="runs of each request")
    parser.add_argument("--warmup_count", type=int, default=1, help="runs that do not count, first")
    parser.add_argument("--batchsize", type=positive, help="for the throughput formula (first dimension if not given)")
    parser.add_argument("--auto_set_dymdims_mode", type=int, default=0, help="inputs are .npy, one whole request each")
    parser.add_argument("--dymDims", help='shape of a pure run, as "input_ids:8,64;attention_mask:8,64"')
    parser.add_argument("--untimed", action="store_true", help="outputs alone count: a request a core at a time")
    parser.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    parser.add_argument("--yardstick", type=Path, help="build/lib/peak.so: takes turns with the engine")
    parser.add_argument("--milliseconds", type=int, default=0, help="go on after --loop until the engine had so long")
    parser.add_argument("--known", type=Path, help="outputs of the accuracy run, to be given again")
    parser.add_argument("--asked", help="the input folders of --known, where zeros are timed")
    parser.add_argument("--plan", choices=["fixed", "measured"], help="sentences of any length, by --batchsize at most")
    args = parser.parse_args(argv)
    if args.plan and not (args.input and args.batchsize):
        parser.error("--plan needs --input and --batchsize")
    if args.output_dirname and not args.output:
        parser.error("--output_dirname needs --output")
    return args


def columns_of(spec: str, count: int) -> list[list[Path]]:
    """The files of each model input, in natural order: `count` lists of one length; UserError for other numbers."""
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
    """Yield (files of the first input, feeds, rows a file): each .npy is one whole request; a .bin is a row, of which a
    request holds as many as the model takes, the last one filled up.

    Raises UserError for rows of another length than the model takes, and where nobody says how many it takes.
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
    """Yield one request of zeros: ([name], feeds, rows). Raises UserError where a dimension is open and not given."""
    given = dict(part.split(":") for part in dims.split(";")) if dims else {}
    shapes = [tuple(map(int, given[t.name].split(","))) if t.name in given else t.shape for t in tensors]
    for tensor, shape in zip(tensors, shapes, strict=True):
        if None in shape:
            raise cli.UserError(f"input {tensor.name} has a dynamic shape; name it with --dymDims")
    yield [Path("pure_infer_data")], [np.zeros(s, t.dtype) for s, t in zip(shapes, tensors, strict=True)], shapes[0][0]


def write(folder: Path, stem: str, k: int, array, outfmt: str) -> Path:
    """Write one sample's output: raw little-endian bytes, .npy, or `%f` values, a line per leading row."""
    path = folder / f"{stem}_{k}.{outfmt.lower()}"
    with cli.file_in_error(path):
        if outfmt == "BIN":
            path.write_bytes(array.tobytes())
        elif outfmt == "NPY":
            path.write_bytes(cli.npy_bytes(array))
        else:
            np.savetxt(path, array.reshape(len(array), -1), fmt="%f")
    path.chmod(0o644)
    return path


def figures(times: list[float]) -> dict:
    """ais_bench's figures of a list of milliseconds."""
    mean, median, most = float(np.mean(times)), float(np.median(times)), float(np.percentile(times, 99))
    return {
        "min": min(times), "max": max(times), "mean": mean, "median": median, "percentile(99%)": most, "count": len(times),
    }  # fmt: skip


class Known:
    """The outputs of the accuracy run, held against those of the engine that is timed. rows: how many were compared."""

    def __init__(self, args, engine):
        self.args, self.engine, self.rows = args, engine, 0
        self.columns = columns_of(args.asked, len(engine.inputs)) if args.asked else []

    def ask(self) -> None:
        """Run one request of --asked, picked at random, outside the timing."""
        size = self.args.batchsize
        start = random.randrange(0, len(self.columns[0]), size)
        some = [column[start : start + size] for column in self.columns]
        for files, feeds, rows in requests_of(some, self.engine.inputs, size):
            for file, outputs in by_file(files, rows, self.engine.run(feeds)):
                self.hold(file, outputs[0])

    def hold(self, file: Path, output) -> None:
        """Compare a file's output: equal bytes; in fp32, which another CPU rounds otherwise, and of requests that are cut
        otherwise, the gate's rule. Raises UserError where it is not the accuracy run's."""
        from tools.graph import gate

        path = self.args.known / f"{file.name.split('.')[0]}_0.{self.args.outfmt.lower()}"
        known = cli.read_npy(path) if path.suffix == ".npy" else np.frombuffer(path.read_bytes(), output.dtype)
        same = known.tobytes() == output.tobytes()
        if not same and known.size == output.size and (self.args.plan or self.engine.precision == "fp32"):
            shape = (-1, output.shape[-1])
            same = gate.judge(known.reshape(shape), output.reshape(shape), self.engine.precision).ok
        if not same:
            raise cli.UserError(f"{path}: the engine answers otherwise while it is timed; delete it and run make again")
        self.rows += 1


def timed(engine, feeds, args, turns, times: list[float]):
    """Run one request --loop times, and on until --milliseconds are over, noting each in milliseconds; the last outputs."""
    runs, total = 0, 0.0
    single = (lambda: turns.single.run(feeds)) if turns.single else None
    while runs < args.loop or 1e3 * total < args.milliseconds:
        outputs, seconds = turns.time(len(feeds[0]), lambda: engine.run(feeds), single)
        times.append(seconds * 1e3)
        runs, total = runs + 1, total + seconds
        if turns.known and args.asked and (runs == 1 or random.random() < ASKED):
            turns.known.ask()
    return outputs


def sentences(files: list[list[Path]], tensors) -> list[list]:
    """The int64 rows of each input's files, each row of its sentence's length.

    Raises UserError where the model's shape is fixed, or a sentence is not as long for every input.
    """
    if fixed := [t for t in tensors if t.shape != (None, None)]:
        raise cli.UserError(f"--plan: input {fixed[0].name} has the shape {fixed[0].shape}; both must be open")
    columns = [[input_files.read_rows(file)[0] for file in column] for column in files]
    for file, *rows in zip(files[0], *columns, strict=True):
        if len({*map(len, rows)}) > 1:
            raise cli.UserError(f"{file}: not as many tokens as the other inputs have; preprocess again")
    return columns


def requested(args, engine, turns, times):
    """Run the requests that the inputs make, after some that do not count, each as `timed` does; yield (file, outputs)."""
    from tqdm import tqdm

    if args.input:
        requests = requests_of(columns_of(args.input, len(engine.inputs)), engine.inputs, args.batchsize)
    else:
        requests = pure_requests(engine.inputs, args.dymDims)
    warm = [] if args.untimed else [e for e in (engine, turns.single) if e for _ in range(args.warmup_count)]

    def once(request):
        files, feeds, rows = request
        args.batchsize = args.batchsize or len(feeds[0])
        while warm:
            warm.pop().run(feeds)
        return by_file(files, rows, timed(engine, feeds, args, yardstick.Turns() if args.untimed else turns, times))

    with ThreadPoolExecutor(engine.streams) as pool:
        answers = (pool.map if args.untimed else map)(once, requests)
        for answer in tqdm(answers, desc="infer", unit="request", disable=None):
            yield from answer


def by_file(files, rows: int, outputs) -> list[tuple]:
    """(file, its rows of each output) of a request's files, or of their numbers."""
    return [(file, [out[i * rows : (i + 1) * rows] for out in outputs]) for i, file in enumerate(files)]


def planned(args, engine, turns):
    """Run sentences by a plan: (engine, (file, outputs) in the files' order, ms of each request, ms of each pass)."""
    from tqdm import tqdm

    from tools.cpu import plan

    files = columns_of(args.input, len(engine.inputs))
    columns = sentences(files, engine.inputs)
    if args.plan == "measured":
        engine, rows = plan.fastest(engine, args.model, columns, args.batchsize, args.threads)
    else:
        rows = plan.fixed(engine, columns, args.batchsize)
    requests = [plan.feeds(columns, r) for r in rows]
    tokens, room = sum(map(len, columns[0])), sum(r[0].size for r in requests)
    padding = "none" if engine.ragged else f"{100 - 100 * tokens / room:.1f} % of tokens"
    sizes = f"{len(files[0])} sentences in {len(requests)} requests, {engine.streams} at a time"
    print(f"[INFO] plan {args.plan}: {sizes}; padding: {padding}")
    warm = args.warmup_count if args.plan == "measured" else 0
    total = (warm + args.loop) * len(files[0])
    with tqdm(total=total, desc="infer", unit="sentence", disable=None) as bar:
        one = lambda: plan.run(engine, requests, bar.update)
        for _ in range(warm):
            one()
        passes = [turns.time(len(files[0]), one)[0] for _ in range(args.loop)]
    found = {}
    for numbers, outputs in zip(rows, passes[-1][0], strict=True):
        found |= by_file(numbers, 1, outputs)
    results = [(file, found[i]) for i, file in enumerate(files[0])]
    return engine, results, [ms for _, each, _ in passes for ms in each], [1e3 * seconds for *_, seconds in passes]


def facts(engine, threads: int, count: int) -> dict:
    """What a summary says of the engine, which ran `count` sentences, each as often."""
    told = engine.told
    if engine.certificate:
        from tools.cpu.native import certificate

        told = certificate.told(engine.certificate, engine.left * count // engine.left.sum())
    isa = [unit for unit in cpu.ISA if unit in cpu.cpu_flags(engine.limited)]
    said = {
        "name": engine.name, "version": engine.version, "precision": engine.precision,
        "layers": engine.layers, "threads": threads, "machine": platform.machine(), "isa": isa,
    }  # fmt: skip
    return said | ({"family": engine.family} if engine.family else {}) | told


def main(words=None, load=None):
    """words: the command line's if not given. load: of another kind of engine than the CPU's, as engines.load is."""
    args = parse(words)
    from tools.cpu import engines

    load, threads = load or engines.load, args.threads or cpu.cores()
    engine = load(args.model, args.threads, threads if args.untimed else 1)
    print(f"[INFO] load model {args.model} success: {type(engine).__name__} {engine.version} {engine.precision}")
    turns = yardstick.Turns(args.yardstick, engine.precision, threads)
    known = turns.known = Known(args, engine) if args.known else None
    turns.single = load(args.model, 1) if args.yardstick and threads > 1 and not args.plan else None
    folder, info, count, times, passes = None, {}, 0, [], []
    if args.output:
        folder = args.output / (args.output_dirname or datetime.now().strftime("%Y_%m_%d-%H_%M_%S"))
        folder.mkdir(parents=True, exist_ok=True)
    before = cpu.ticks()
    if args.plan:
        engine, results, times, passes = planned(args, engine, turns)
    else:
        results = requested(args, engine, turns, times)
    for file, outputs in results:
        count += 1
        if known and not args.asked:
            known.hold(file, outputs[0])
        if folder:
            stem = file.name.split(".")[0]
            made = [write(folder, stem, k, out, args.outfmt) for k, out in enumerate(outputs)]
            info[len(info)] = {"infiles": [str(file)], "outfiles": [str(m) for m in made]}
    turns.close()
    stolen, whole = (now - then for now, then in zip(cpu.ticks(), before, strict=True))
    compute = figures(times)
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
            "npu_compute_time_list": times, "pid": os.getpid(), "engine": facts(engine, threads, count),
        }  # fmt: skip
        if passes:
            summary["engine"]["streams"], summary["pass_ms"] = engine.streams, passes
        if known:
            summary["engine"]["rows_as_scored"] = known.rows
        if whole:
            summary["stolen"] = round(stolen / whole, 4)
        if turns.kind:
            summary |= {} if turns.joules() is None else {"joules": turns.joules()}
            summary |= {"yardstick": turns.kind, "loop": args.loop, "pairs": turns.pairs, "singles": turns.singles}
        cli.write(args.output / f"{folder.name}_summary.json", json.dumps(summary, indent=1))
        print(f"wrote {len(info)} results to {folder}, figures to {folder}_summary.json")


if __name__ == "__main__":
    cli.run(main)
