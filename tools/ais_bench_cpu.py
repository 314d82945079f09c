"""ais_bench's command line, files and figures, on the CPU.

    python tools/ais_bench_cpu.py --model model.onnx --input input/input_ids,input/attention_mask \\
        --output out --output_dirname run --outfmt TXT
    python tools/ais_bench_cpu.py --model model.onnx --loop 100

What it keeps of ais_bench (sources: ais_bench 0.0.2, 2023, and msit's, 2024):
input folders stand in the model's input order, files in natural order; as many files make one request as its first
input holds; the last request is filled up with its own first file, and what those rows give is not written; outputs
are named {stem of the first input's file}_{output index}; <output>/<dirname>_summary.json lies beside the folder;
without --input it runs zeros (pure inference); the time of a request is that of the engine's call alone.
.npy files are whole requests, as --auto_set_dymdims_mode 1 takes them. What it adds to the summary: `engine`.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path

import cli


def parse(argv=None):
    positive = lambda text: int(text) if int(text) > 0 else parser.error(f"{text} is not above 0")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    parser.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    args = parser.parse_args(argv)
    if args.output_dirname and not args.output:
        parser.error("--output_dirname needs --output")
    return args


def input_files(spec: str, count: int) -> list[list[Path]]:
    """The files of each model input, in natural order: `count` lists of one length."""
    import gate

    columns = []
    for name in map(Path, spec.split(",")):
        files = (
            sorted((f for f in name.iterdir() if f.suffix in (".bin", ".npy")), key=gate.natural)
            if name.is_dir()
            else [name]
        )
        if not files or not files[0].is_file():
            raise cli.UserError(f"--input {name}: no .bin or .npy file there")
        columns.append(files)
    if len(columns) != count:
        raise cli.UserError(f"--input names {len(columns)} inputs, the model has {count}")
    if len({len(c) for c in columns}) > 1:
        raise cli.UserError(f"--input: the folders hold {[len(c) for c in columns]} files; each needs the same number")
    return columns


def npy_requests(columns, tensors):
    """Yield (files of the first input, feeds): each .npy is one whole request."""
    import numpy as np

    for files in zip(*columns, strict=True):
        feeds = [np.load(f, allow_pickle=False) for f in files]
        for file, tensor, feed in zip(files, tensors, feeds, strict=True):
            if feed.dtype != tensor.dtype or feed.ndim != len(tensor.shape):
                raise cli.UserError(f"{file}: {feed.dtype} {feed.shape} for input {tensor.name}, a {tensor.dtype}")
        yield [files[0]], feeds, len(feeds[0])


def bin_requests(columns, tensors, batchsize):
    """Yield (files of the first input, feeds, rows a file): as many files as one request holds, the last one filled up."""
    import numpy as np

    import engines

    size = columns[0][0].stat().st_size
    if not tensors[0].bytes and batchsize and size:  # an engine without padding takes any shape: a row a file
        shape = (batchsize, size // tensors[0].dtype.itemsize)
        tensors = [engines.Tensor(t.name, t.dtype, shape) for t in tensors]
    if not tensors[0].bytes:
        raise cli.UserError(f"input {tensors[0].name} has a dynamic shape; give --batchsize, or .npy whole requests")
    if not size or tensors[0].bytes % size:
        raise cli.UserError(f"{columns[0][0]}: tensorsize {tensors[0].bytes}, filesize {size} not match")
    per_request = tensors[0].bytes // size
    for start in range(0, len(columns[0]), per_request):
        feeds = []
        for column, tensor in zip(columns, tensors, strict=True):
            files = column[start : start + per_request]
            files = files + files[:1] * (per_request - len(files))
            data = b"".join(f.read_bytes() for f in files)
            if len(data) != tensor.bytes:
                raise cli.UserError(
                    f"{files[0]} and the {per_request - 1} files after it: {len(data)} bytes, not {tensor.bytes}"
                )
            feeds.append(np.frombuffer(data, tensor.dtype).reshape(tensor.shape))
        yield columns[0][start : start + per_request], feeds, tensors[0].shape[0] // per_request


def pure_requests(tensors, dims):
    """Yield one request of zeros: ([name], feeds, rows)."""
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
    if outfmt == "BIN":
        path.write_bytes(array.tobytes())
    elif outfmt == "NPY":
        np.save(path, array)
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


def timed(engine, feeds, loop: int, times: list[float]):
    """Run one request `loop` times, noting each in milliseconds; the last outputs."""
    for _ in range(loop):
        start = time.perf_counter()
        outputs = engine.run(feeds)
        times.append((time.perf_counter() - start) * 1e3)
    return outputs


def main():
    args = parse()
    if not args.model.is_file():
        raise cli.UserError(f"--model {args.model}: no such file")
    from tqdm import tqdm

    import engines

    engine = engines.load(args.model, args.threads)
    print(f"[INFO] load model {args.model} success: {type(engine).__name__} {engine.version} {engine.precision}")
    if args.input:
        columns = input_files(args.input, len(engine.inputs))
        whole = columns[0][0].suffix == ".npy"
        requests = (
            npy_requests(columns, engine.inputs) if whole else bin_requests(columns, engine.inputs, args.batchsize)
        )
    else:
        requests = pure_requests(engine.inputs, args.dymDims)
    folder = None
    if args.output:
        folder = args.output / (args.output_dirname or datetime.now().strftime("%Y_%m_%d-%H_%M_%S"))
        folder.mkdir(parents=True, exist_ok=True)

    times, info, batchsize, warm = [], {}, args.batchsize, args.warmup_count
    for files, feeds, rows in tqdm(requests, desc="infer", unit="request", disable=None):
        batchsize = batchsize or len(feeds[0])
        for _ in range(warm):
            engine.run(feeds)
        warm = 0
        outputs = timed(engine, feeds, args.loop, times)
        if not folder:
            continue
        for i, file in enumerate(files):
            stem = file.name.split(".")[0]
            made = [
                write(folder, stem, k, out[i * rows : (i + 1) * rows], args.outfmt) for k, out in enumerate(outputs)
            ]
            info[len(info)] = {"infiles": [str(file)], "outfiles": [str(m) for m in made]}

    compute = figures(times)
    throughput = 1000 * batchsize / compute["mean"]
    line = ", ".join(f"{k} = {v}" for k, v in compute.items() if k != "count")
    print("[INFO] -----------------Performance Summary------------------")
    print(f"[INFO] NPU_compute_time (ms): {line}")
    print(f"[INFO] throughput 1000*batchsize.mean({batchsize})/NPU_compute_time.mean({compute['mean']}): {throughput}")
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
                "threads": args.threads or len(os.sched_getaffinity(0)),
                "machine": platform.machine(),
            },
        }
        with cli.whole_file(args.output / f"{folder.name}_summary.json", "w") as f:
            json.dump(summary, f, indent=1)
        print(f"wrote {len(info)} results to {folder}, figures to {folder}_summary.json")


if __name__ == "__main__":
    cli.run(main)
