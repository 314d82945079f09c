"""ais_bench's command line, files and figures, on the CPU.

    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask \\
        --output out --output_dirname run --outfmt TXT
    python -m tools.cpu.runner --model model.onnx --loop 100
    python -m tools.cpu.runner --model model.onnx --input input/input_ids,input/attention_mask --batchsize 8 \\
        --plan measured --output out --output_dirname run

What it keeps of ais_bench (sources: ais_bench 0.0.2, 2023, and msit's, 2024):
input folders stand in the model's input order, files in natural order; as many files make one request as its first
input holds; the last request is filled up with its own first file, and what those rows give is not written; outputs
are named {stem of the first input's file}_{output index}; <output>/<dirname>_summary.json lies beside the folder;
without --input it runs zeros (pure inference); the time of a request is that of the engine's call alone.
.npy files are whole requests, as --auto_set_dymdims_mode 1 takes them. What it adds to the summary: `engine`, and
`stolen`, the share of the processors' time that the host gave to other machines meanwhile.

--untimed and --plan are ours. --untimed: outputs alone are wanted, so each core has a request of its own, which is faster
than all cores at one. --plan: each file is a sentence of its own length, and tools/cpu/plan.py says which go into one
request. `fixed` gives the same bytes every time; `measured` is faster. A pass runs all requests, --loop passes count.
With either, the throughput is that of whole passes (`pass_ms`, one a pass), since requests may overlap.

--yardstick and --milliseconds are ours too, for timing. --yardstick build/lib/peak.so: the engine takes turns with a fixed
piece of work (tools/cpu/yardstick.py), and the summary holds what both did in each turn (`pairs`). --milliseconds: at least
so long, after --loop. Every so often a request runs in one thread, for the figures of tools/results/figures.py (`singles`).
"""

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tools.cpu import yardstick
from tools.make import cli, cpu


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    positive = lambda text: int(text) if int(text) > 0 else parser.error(f"{text} is not above 0")
    parser.add_argument("--model", "-m", required=True, type=Path, help="a compiled model.onnx")
    parser.add_argument("--input", "-i", help="folders or files, comma separated, in model input order; none: zeros")
    parser.add_argument("--output", "-o", type=Path, help="where results go; none: nothing is kept")
    parser.add_argument("--output_dirname", help="folder under --output (the time if not given)")
    parser.add_argument("--outfmt", choices=["BIN", "NPY", "TXT"], default="BIN")
    parser.add_argument("--loop", "-l", type=positive, default=1, help="runs of each request")
    parser.add_argument("--warmup_count", type=int, default=1, help="runs that do not count, first")
    parser.add_argument("--batchsize", type=positive, help="for the throughput formula (first dimension if not given)")
    parser.add_argument("--device", "-d", default="0", help="accepted for ais_bench's sake; the CPU is device 0")
    parser.add_argument("--auto_set_dymdims_mode", type=int, default=0, help="inputs are .npy, one whole request each")
    parser.add_argument("--dymDims", help='shape of a pure run, as "input_ids:8,64;attention_mask:8,64"')
    parser.add_argument("--pure_data_type", choices=["zero"], default="zero")
    parser.add_argument("--display_all_summary", type=int, default=0)
    parser.add_argument(
        "--untimed", action="store_true", help="outputs alone are wanted: as many requests at a time as cores"
    )
    parser.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    parser.add_argument("--yardstick", type=Path, help="build/lib/peak.so: takes turns with the engine")
    parser.add_argument("--milliseconds", type=int, default=0, help="go on after --loop until the engine had so long")
    parser.add_argument("--plan", choices=["fixed", "measured"], help="sentences of any length, by --batchsize at most")
    args = parser.parse_args(argv)
    if args.plan and not (args.input and args.batchsize):
        parser.error("--plan needs --input and --batchsize")
    if args.untimed and (args.plan or args.loop > 1 or not args.input):
        parser.error("--untimed is for --input, without --plan and --loop")
    if args.output_dirname and not args.output:
        parser.error("--output_dirname needs --output")
    return args


@dataclass
class Job:
    """What is run, and how often."""

    model: Path
    input: str | None  # folders or files, comma separated; zeros if None
    batchsize: int | None  # rows a request; those of the first request if None
    dims: str | None  # shapes of a run of zeros, as --dymDims has them
    loop: int
    milliseconds: int
    warmup_count: int
    plan: str | None
    threads: int


def columns_of(spec: str, count: int) -> list[list[Path]]:
    """The files of each model input, in natural order: `count` lists of one length.

    Raises UserError for other numbers of folders or files.
    """
    from tools.base import input_files

    columns = []
    for name in map(Path, spec.split(",")):
        files = input_files.row_files(name) if name.is_dir() else [name]
        if not files or not files[0].is_file():
            raise cli.UserError(f"--input {name}: no .bin or .npy file there")
        columns.append(files)
    if len(columns) != count:
        raise cli.UserError(f"--input names {len(columns)} inputs, the model has {count}")
    if len({len(c) for c in columns}) > 1:
        raise cli.UserError(
            f"--input: the folders hold {[len(c) for c in columns]} files; each needs the same number; preprocess again"
        )
    return columns


def npy_requests(columns, tensors):
    """Yield (files of the first input, feeds): each .npy is one whole request.

    Raises UserError for arrays of another type or shape.
    """
    import numpy as np

    for files in zip(*columns, strict=True):
        feeds = []
        for file, tensor in zip(files, tensors, strict=True):
            try:
                feeds.append(feed := np.array(cli.read_npy(file)))
            except ValueError as e:
                raise cli.UserError(f"{file}: no array ({e}); preprocess again") from None
            if feed.dtype != tensor.dtype or feed.ndim != len(tensor.shape):
                raise cli.UserError(f"{file}: {feed.dtype} {feed.shape} for input {tensor.name}, a {tensor.dtype}")
        yield [files[0]], feeds, len(feeds[0])


def bin_requests(columns, tensors, batchsize):
    """Yield (files of the first input, feeds, rows a file): as many files as one request holds, the last one filled up.

    Raises UserError for files that are no whole rows.
    """
    import numpy as np

    from tools.base import onnxfile

    size = columns[0][0].stat().st_size
    whole = size and size % tensors[0].dtype.itemsize == 0
    if not tensors[0].bytes and batchsize and whole:  # an engine without padding takes any shape: a row a file
        shape = (batchsize, size // tensors[0].dtype.itemsize)
        tensors = [onnxfile.Tensor(t.name, t.dtype, shape) for t in tensors]
    if not tensors[0].bytes and not batchsize:
        raise cli.UserError(f"input {tensors[0].name} has a dynamic shape; give --batchsize, or .npy whole requests")
    if not whole or tensors[0].bytes % size:
        sizes = f"tensorsize {tensors[0].bytes}, filesize {size} not match"
        raise cli.UserError(f"{columns[0][0]}: {sizes}; preprocess again, for this model's length")
    per_request = tensors[0].bytes // size
    for start in range(0, len(columns[0]), per_request):
        feeds = []
        for column, tensor in zip(columns, tensors, strict=True):
            files = column[start : start + per_request]
            files = files + files[:1] * (per_request - len(files))
            size = sum(f.stat().st_size for f in files)
            if size != tensor.bytes:
                raise cli.UserError(
                    f"{files[0]} and the {per_request - 1} files after it: {size} bytes, not {tensor.bytes}; preprocess again"
                )
            data = b"".join(f.read_bytes() for f in files)
            feeds.append(np.frombuffer(data, tensor.dtype).reshape(tensor.shape))
        yield columns[0][start : start + per_request], feeds, tensors[0].shape[0] // per_request


def pure_requests(tensors, dims):
    """Yield one request of zeros: ([name], feeds, rows). Raises UserError where a dimension is open and not given."""
    import numpy as np

    given = dict(part.split(":") for part in dims.split(";")) if dims else {}
    shapes = [tuple(map(int, given[t.name].split(","))) if t.name in given else t.shape for t in tensors]
    for tensor, shape in zip(tensors, shapes, strict=True):
        if None in shape:
            raise cli.UserError(f"input {tensor.name} has a dynamic shape; name it with --dymDims")
    yield [Path("pure_infer_data")], [np.zeros(s, t.dtype) for s, t in zip(shapes, tensors, strict=True)], shapes[0][0]


def write(folder: Path, stem: str, k: int, array, outfmt: str) -> Path:
    """Write one sample's output: raw little-endian bytes, .npy, or `%f` values, a line per leading row."""
    import numpy as np

    path = folder / f"{stem}_{k}.{outfmt.lower()}"
    with cli.named(path):
        if outfmt == "BIN":
            path.write_bytes(array.tobytes())
        elif outfmt == "NPY":
            path.write_bytes(cli.npy(array))
        else:
            np.savetxt(path, array.reshape(len(array), -1), fmt="%f")
    path.chmod(0o644)
    return path


def figures(times: list[float]) -> dict:
    """ais_bench's figures of a list of milliseconds."""
    import numpy as np

    return {
        "min": min(times),
        "max": max(times),
        "mean": float(np.mean(times)),
        "median": float(np.median(times)),
        "percentile(99%)": float(np.percentile(times, 99)),
        "count": len(times),
    }


def timed(engine, feeds, job, turns, times: list[float]):
    """Run one request --loop times, and on until --milliseconds are over, noting each in milliseconds; the last outputs."""
    runs, total = 0, 0.0
    single = (lambda: turns.single.run(feeds)) if turns.single else None
    while runs < job.loop or 1e3 * total < job.milliseconds:
        outputs, seconds = turns.time(len(feeds[0]), lambda: engine.run(feeds), single)
        times.append(seconds * 1e3)
        runs, total = runs + 1, total + seconds
    return outputs


def sentences(files: list[list[Path]], tensors) -> list[list]:
    """The int64 rows of each input's files, each row of its sentence's length.

    Raises UserError where the model's shape is fixed, or a sentence is not as long for every input.
    """
    import numpy as np

    from tools.base import input_files

    columns, lengths = [], []
    for column, tensor in zip(files, tensors, strict=True):
        if tensor.shape != (None, None):
            raise cli.UserError(f"--plan: input {tensor.name} has the shape {tensor.shape}; both must be open")
        data = [cli.regular(f, 8 * input_files.LONGEST).read_bytes() for f in column]
        lengths = lengths or [len(row) for row in data]  # of the first input, in bytes
        for file, length, row in zip(column, lengths, data, strict=True):
            if not row or len(row) % tensor.dtype.itemsize or len(row) != length:
                raise cli.UserError(f"{file}: {len(row)} bytes, not whole tokens as many as in {files[0][0].parent}")
        columns.append([np.frombuffer(row, tensor.dtype) for row in data])
    return columns


def requested(job, engine, turns, times):
    """Run the requests that the inputs make, noting each one's milliseconds in `times`; yield (file, outputs)."""
    from tqdm import tqdm

    if job.input:
        columns = columns_of(job.input, len(engine.inputs))
        whole = columns[0][0].suffix == ".npy"
        requests = (
            npy_requests(columns, engine.inputs) if whole else bin_requests(columns, engine.inputs, job.batchsize)
        )
    else:
        requests = pure_requests(engine.inputs, job.dims)
    made = (
        together(job, engine, requests, times) if engine.streams > 1 else in_turn(job, engine, requests, turns, times)
    )
    for files, rows, outputs in tqdm(made, desc="infer", unit="request", disable=None):
        for i, file in enumerate(files):
            yield file, [out[i * rows : (i + 1) * rows] for out in outputs]


def in_turn(job, engine, requests, turns, times):
    """Run one request after the other, each as `timed` does, after some that do not count; yield (files, rows, outputs)."""
    warm = [e for e in (engine, turns.single) if e for _ in range(job.warmup_count)]
    for files, feeds, rows in requests:
        job.batchsize = job.batchsize or len(feeds[0])
        while warm:
            warm.pop().run(feeds)
        yield files, rows, timed(engine, feeds, job, turns, times)


def together(job, engine, requests, times):
    """Run each request once, as many at a time as the engine has streams; yield (files, rows, outputs) in their order."""

    def once(request):
        files, feeds, rows = request
        job.batchsize = job.batchsize or len(feeds[0])
        return files, rows, timed(engine, feeds, job, yardstick.Turns(), times)

    with ThreadPoolExecutor(engine.streams) as pool:
        yield from pool.map(once, requests)


def planned(job, engine, turns):
    """Run sentences by a plan: (engine, (file, outputs) in the files' order, ms of each request, ms of each pass)."""
    from tqdm import tqdm

    from tools.cpu import plan

    files = columns_of(job.input, len(engine.inputs))
    columns = sentences(files, engine.inputs)
    if job.plan == "measured":
        engine, rows = plan.fastest(engine, job.model, columns, job.batchsize, job.threads)
    else:
        rows = plan.fixed(engine, columns, job.batchsize)
    requests = [plan.feeds(columns, r) for r in rows]
    tokens, room = sum(map(len, columns[0])), sum(r[0].size for r in requests)
    padding = "none" if engine.ragged else f"{100 - 100 * tokens / room:.1f} % of tokens"
    print(
        f"[INFO] plan {job.plan}: {len(files[0])} sentences in {len(requests)} requests, "
        f"{engine.streams} at a time; padding: {padding}"
    )
    warm = job.warmup_count if job.plan == "measured" else 0
    total = (warm + job.loop) * len(files[0])
    with tqdm(total=total, desc="infer", unit="sentence", disable=None) as bar:
        one = lambda: plan.run(engine, requests, bar.update)
        for _ in range(warm):
            one()
        passes = [turns.time(len(files[0]), one)[0] for _ in range(job.loop)]
    found = {}
    for numbers, outputs in zip(rows, passes[-1][0], strict=True):
        found |= {i: [out[k : k + 1] for out in outputs] for k, i in enumerate(numbers)}
    results = [(file, found[i]) for i, file in enumerate(files[0])]
    return engine, results, [ms for _, each, _ in passes for ms in each], [1e3 * seconds for *_, seconds in passes]


def main():
    args = parse()
    if not args.model.is_file():
        raise cli.UserError(f"--model {args.model}: no such file")
    from tools.cpu import engines

    engine = engines.load(args.model, args.threads, (args.threads or cpu.cores()) if args.untimed else 1)
    print(f"[INFO] load model {args.model} success: {type(engine).__name__} {engine.version} {engine.precision}")
    threads = args.threads or cpu.cores()
    turns = yardstick.Turns(args.yardstick, engine.precision, threads)
    turns.single = engines.load(args.model, 1) if args.yardstick and threads > 1 and not args.plan else None
    folder, info, times, passes = None, {}, [], []
    if args.output:
        folder = args.output / (args.output_dirname or datetime.now().strftime("%Y_%m_%d-%H_%M_%S"))
        folder.mkdir(parents=True, exist_ok=True)
    job = Job(args.model, args.input, args.batchsize, args.dymDims, args.loop, args.milliseconds,
              args.warmup_count, args.plan, args.threads)  # fmt: skip
    before, started, count = cpu.ticks(), time.perf_counter(), 0
    if args.plan:
        engine, results, times, passes = planned(job, engine, turns)
    else:
        results = requested(job, engine, turns, times)
    for file, outputs in results:
        count += 1
        if folder:
            stem = file.name.split(".")[0]
            made = [write(folder, stem, k, out, args.outfmt) for k, out in enumerate(outputs)]
            info[len(info)] = {"infiles": [str(file)], "outfiles": [str(m) for m in made]}
    if args.untimed:
        passes = [1e3 * (time.perf_counter() - started)]
    turns.close()
    stolen, whole = (now - then for now, then in zip(cpu.ticks(), before, strict=True))
    compute = figures(times)
    throughput = 1000 * job.batchsize / compute["mean"]
    formula = f"1000*batchsize.mean({job.batchsize})/NPU_compute_time.mean({compute['mean']})"
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
            "filesinfo": info,
            "args": sys.argv,
            "NPU_compute_time": compute,
            "throughput": throughput,
            "npu_compute_time_list": times,
            "pid": os.getpid(),
            "engine": {
                "name": type(engine).__name__.lower(),
                "version": engine.version,
                "precision": engine.precision,
                "layers": engine.layers,
                "threads": threads,
                "machine": platform.machine(),
                "isa": [unit for unit in cpu.ISA if unit in cpu.cpu_flags(engine.limited)],
                **({"family": engine.family} if engine.family else {}),
                **({"streams": engine.streams} if passes else {}),
            },
            **({"pass_ms": passes} if passes else {}),
            **({"stolen": round(stolen / whole, 4)} if whole else {}),
            **(
                {"yardstick": turns.kind, "loop": args.loop, "pairs": turns.pairs, "singles": turns.singles}
                if turns.kind
                else {}
            ),
        }
        with cli.whole_file(args.output / f"{folder.name}_summary.json", "w") as f:
            json.dump(summary, f, indent=1)
        print(f"wrote {len(info)} results to {folder}, figures to {folder}_summary.json")


if __name__ == "__main__":
    cli.run(main)
