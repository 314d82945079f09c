"""Build a TensorRT engine from ONNX and time it with trtexec, alike under TensorRT 8, 10 and 11.

    python -m tools.gpu.trtexec --onnx sim.onnx --batch_size 8 --precision fp16 --save_engine model.plan \\
        --build_only --summary build.json
    python -m tools.gpu.trtexec --load_engine model.plan --batch_size 8 --precision fp16 --summary perf.json

    trtexec of TensorRT 10.13.3: device compute only: no copies, spin wait, CUDA graph, no TF32, one stream
    + trtexec --loadEngine=model.plan --noDataTransfers --useSpinWait --useCudaGraph --warmUp=1000 ...
    ...
    68447.60 samples/s = 17111.90 qps * 4
    wrote perf.json

(The end of the second, of a model of six nodes under the test suite's stand-in; no real GPU has run this yet.)

The same command means different things to different versions: TensorRT 11 leaves copies out, spins and uses a
CUDA graph where 8 and 10 do not; 8.4 renamed --workspace; 11 has no --fp16: a graph's own types decide there.
Flags are chosen by the version found, so that always: no copies, spin wait, CUDA graph, no TF32, one stream.
--precision graph keeps the types that the ONNX has (strongly typed), which is the only way to fp16 in 11.
trtexec's `qps` counts queries, so throughput here is qps * batch. Sources: NVIDIA/TensorRT, samples/common
(sampleOptions, sampleReporting) at 8.0.1, 8.4.1, 8.5.3, 23.08 (8.6), v10.0.0, v10.13.3 and a892d222 (11.1).
"""

import argparse
import json
import math
import re
import shlex
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from tools.base import logs, trip
from tools.make import cli

WORKSPACE = 5000  # MiB, as in the recipe
WHERE = "get TensorRT at https://developer.nvidia.com/tensorrt, or work in its container"
MEANING = "device compute only: no copies, spin wait, CUDA graph, no TF32, one stream"
HINTS = (
    (r"Static model does not take explicit shapes", "the ONNX has fixed shapes: leave --shapes out"),
    (r"Unknown option", "this trtexec does not know that option; tell us the version"),
    (r"out of memory|OutOfMemory", "another program holds the GPU's memory: see nvidia-smi"),
    (r"deserializ|version tag|platform", "an engine fits one kind of GPU and one TensorRT: build it here"),
    (r"Could not open file|failed to open|parse", "check the ONNX file with onnx.checker"),
    (r"CUDA|driver|no .*device", "is there a GPU and a driver? see nvidia-smi"),
)
PERCENTILES = (90, 95, 99)


def find(program: str) -> str:
    """The path of a program of TensorRT. Raises UserError, with the places looked at, where there is none."""
    found = shutil.which(program) or shutil.which("/usr/src/tensorrt/bin/trtexec")
    if not found:
        raise cli.UserError(f"no {program}: looked on PATH and in /usr/src/tensorrt/bin; {WHERE}")
    return found


def version_of(program: str) -> tuple:
    """(major, minor, patch), from the first line of --help. Raises UserError where it names none."""
    got = subprocess.run([program, "--help"], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"TensorRT\.trtexec \[TensorRT v(\d+)\]", got.stdout + got.stderr)
    if not found:
        raise cli.UserError(f"{program} --help does not name its TensorRT version; is it NVIDIA's trtexec?")
    return trip.dotted(int(found[1]))


def precision_flags(precision: str, version: tuple) -> list:
    """trtexec's flags for a precision. Raises UserError where that TensorRT `version` (major, minor, patch) has none."""
    if precision == "fp32":
        return ["--noTF32"]
    if precision == "fp16" and version < (11,):
        return ["--noTF32", "--fp16"]
    if precision == "fp16":
        raise cli.UserError(
            "--precision fp16: TensorRT 11 has no --fp16, the graph's own types decide; use TensorRT 10, or"
            " give --onnx_fp16 a graph of tools/gpu/half.py"
        )
    if version < (10,):
        raise cli.UserError("--precision graph: TensorRT before 10 cannot; use fp32 or fp16")
    return ["--noTF32"] + (["--stronglyTyped"] if version < (11,) else [])


def flags(a, version: tuple, times: str) -> list:
    """trtexec's options for this version."""
    if a.load_engine:
        words = [f"--loadEngine={a.load_engine}"]
    else:
        pool = f"--memPoolSize=workspace:{WORKSPACE}" if version >= (8, 4) else f"--workspace={WORKSPACE}"
        typed = a.onnx_fp16 if a.precision == "fp16" and version >= (11,) else None
        words = [f"--onnx={typed or a.onnx}", pool, *precision_flags("graph" if typed else a.precision, version)]
        words += [f"--saveEngine={a.save_engine}"] if a.save_engine else []
    words += [f"--shapes={a.shapes}"] if a.shapes else []
    if a.build_only:
        return [*words, "--skipInference" if version >= (8, 6) else "--buildOnly"]
    same = [] if version >= (11,) else ["--noDataTransfers", "--useSpinWait", "--useCudaGraph"]
    timed = [f"--warmUp={a.warm_up_ms}", f"--duration={a.seconds}", "--iterations=100"]
    return [*words, *same, *timed, f"--exportTimes={times}"]


def failure(text: str, status: int) -> str:
    errors = re.findall(r"\[E\] (?:Error\[\d+\]: )?(.+)", text) or ["it named no error"]
    hint = next((h for pattern, h in HINTS if re.search(pattern, errors[0], re.I)), "see its output above")
    return f"trtexec failed (exit {status}): {errors[0].strip()[:300]}; {hint}"


def finite(text: str) -> float:
    """A printed number; ValueError where it is none, or infinite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def value(text: str, pattern: str, where: str) -> float:
    """The number that `pattern` finds in trtexec's output. Raises UserError, which begins with `where`, without such a
    line.
    """
    found = re.findall(pattern, text)
    try:
        return finite(found[-1])
    except (IndexError, ValueError):
        raise cli.UserError(f"{where}: no line like {pattern!r}; is it trtexec's whole output?") from None


def stats(times: list) -> dict:
    """min, max, mean, median, percentiles (linear, as numpy's) and count of at least two times, in ms."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    found = {"min": min(times), "max": max(times), "mean": statistics.fmean(times)}
    found |= {"median": statistics.median(times)} | {f"percentile({p}%)": cuts[p - 1] for p in PERCENTILES}
    return found | {"count": len(times)}


def printed(text: str, name: str, where: str) -> dict:
    """One latency line of the performance summary, in ms.

    Raises UserError where there is no such line, or no numbers in it.
    """
    lines = re.findall(rf"\] (?:\[I\] )?{name}: (min = .*)", text)
    if not lines:
        raise cli.UserError(f"{where}: no `{name}: min = ...` line; is it trtexec's whole output?")
    try:
        return {"mean": None} | {k: finite(v) for k, v in logs.pairs(lines[-1]).items()}
    except ValueError as e:
        raise cli.UserError(f"{where}: {name}: {e}; was it edited?") from None


def verdict(text: str, where: str) -> tuple:
    """The TensorRT version of a run that PASSED.

    Raises UserError where it failed, was cut off, ran at shapes of its own, is one of several, or of TensorRT 7 or older.
    """
    if (runs := text.count("&&&& RUNNING TensorRT.trtexec")) > 1:
        raise cli.UserError(f"{where}: holds {runs} runs; give one file per run")
    if re.search(r"&&&& (?:PASSED|FAILED) TensorRT\.trtexec #", text):
        raise cli.UserError(
            f"{where}: of TensorRT 7 or older, whose trtexec counts no queries of an explicit batch (throughput: 0 qps);"
            " measure with TensorRT 8 or newer"
        )
    last = re.findall(r"&&&& (PASSED|FAILED) TensorRT\.trtexec \[TensorRT v(\d+)\]", text)
    if not last:
        raise cli.UserError(f"{where}: no line `&&&& PASSED TensorRT.trtexec`; was it cut off?")
    if last[-1][0] != "PASSED":
        raise cli.UserError(f"{where}: {failure(text, 1)}")
    if "Automatically overriding shape" in text:
        raise cli.UserError(f"{where}: a dynamic ONNX was timed at shapes trtexec made up; give --shapes")
    return trip.dotted(int(last[-1][1]))


def summary(text: str, times, batch: int, where: str) -> dict:
    """A run's output, and its --exportTimes list or None, in the shape of ais_bench's summary.

    {GPU_compute_time: {min, max, mean, median, percentile(90|95|99%), count} ms, gpu_compute_time_list: [ms]
    or None, H2D_latency, D2H_latency (None: left out), throughput (samples/s: qps * batch), qps, batchsize,
    walltime_s, build_seconds or None, tensorrt, standin, missing}. Raises cli.UserError.
    """
    version = verdict(text, where)
    qps = value(text, r"Throughput: ([\d.e+]+) qps", where)
    compute = printed(text, "GPU Compute Time", where)
    listed = None
    if times is not None:
        try:
            listed = [float(t["computeMs"]) for t in times]
        except (TypeError, KeyError, ValueError):
            raise cli.UserError(f"{where}: --exportTimes wrote entries without computeMs") from None
        if len(listed) < 2 or abs(statistics.fmean(listed) - compute["mean"]) > 1e-3 * compute["mean"]:
            raise cli.UserError(f"{where}: the times listed do not have the mean printed, {compute['mean']}")
        compute = stats(listed)
    if not qps or not compute["mean"]:
        raise cli.UserError(f"{where}: nothing was measured (throughput {qps} qps); was it cut off?")
    if qps * compute["mean"] > 1100:  # one query after another
        raise cli.UserError(
            f"{where}: {qps} qps of {compute['mean']} ms each: several streams, or edited; time one stream"
        )
    built = re.findall(r"Engine built in ([\d.]+) sec", text)
    copies = "no copies were timed"
    return {
        "GPU_compute_time": compute,
        "H2D_latency": None,
        "D2H_latency": None,
        "gpu_compute_time_list": listed,
        "qps": qps,
        "batchsize": batch,
        "throughput": qps * batch,
        "walltime_s": value(text, r"Total Host Walltime: ([\d.e+]+) s", where),
        "build_seconds": value(text, r"Engine built in ([\d.]+) sec", where) if built else None,
        "tensorrt": ".".join(map(str, version)),
        "standin": "STAND-IN" in text,
        "missing": {"H2D_latency": copies, "D2H_latency": copies}
        | ({} if listed else {"gpu_compute_time_list": "a log holds no single times"})
        | ({} if built else {"build_seconds": "the engine was loaded, not built"}),
    }


def read(path, batch: int) -> dict:
    """A stored log of trtexec as `summary` has it, with source and sha256. `batch`: what one query held."""
    path = Path(path)
    text = logs.plain(logs.decoded(path.read_bytes()))
    default_off = verdict(text, str(path)) >= (11,) and "--includeDataTransfers" not in text
    alone = default_off or "--noDataTransfers" in text
    timed = "device compute only: no copies" if alone else "device compute, with copies beside it"
    found = summary(text, None, batch, str(path))
    return found | {"timed": timed, "source": path.name, "sha256": cli.sha256(path)}


def execute(a, work: Path) -> dict:
    """Run trtexec in the folder `work` as the options `a` say: its output. Raises UserError with its own words where it
    fails.
    """
    program = find(a.trtexec)
    version = version_of(program)
    times = work / "times.json"
    command = [program, *flags(a, version, str(times))]
    print(f"trtexec of TensorRT {'.'.join(map(str, version))}: {MEANING}")
    print("+", shlex.join(command), flush=True)
    status, text = cli.stream(command, Path.cwd())
    if status:
        raise cli.UserError(failure(text, status))
    if a.build_only:
        verdict(text, program)
        seconds = value(text, r"Engine built in ([\d.e+-]+) sec", program)
        found = {"build_seconds": seconds, "tensorrt": ".".join(map(str, version)), "standin": "STAND-IN" in text}
    else:
        found = summary(text, json.loads(times.read_text()), a.batch, program) | {"timed": MEANING}
    kept = [w for w in command if not w.startswith("--exportTimes=")]
    return found | {"precision": a.precision, "args": kept}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--onnx", type=Path)
    p.add_argument(
        "--onnx_fp16", type=Path, help="the same with fp16 types (tools/gpu/half.py), which TensorRT 11 takes"
    )
    p.add_argument("--load_engine", type=Path, help="time this engine instead of building one")
    p.add_argument("--save_engine", type=Path)
    p.add_argument("--build_only", action="store_true")
    p.add_argument("--batch_size", dest="batch", type=int, required=True, help="samples in one query")
    p.add_argument("--shapes", help="for dynamic ONNX only: input_ids:8x64,attention_mask:8x64")
    p.add_argument("--precision", choices=("fp32", "fp16", "graph"), required=True)
    p.add_argument("--summary", type=Path, required=True, help="JSON to write")
    p.add_argument("--warm_up_ms", type=int, default=1000)
    p.add_argument("--seconds", type=int, default=10, help="how long to time")
    p.add_argument("--trtexec", default="trtexec", help="its name or path")
    a = p.parse_args()
    if bool(a.onnx) == bool(a.load_engine):
        p.error("give either --onnx or --load_engine")
    if a.build_only and not a.save_engine:
        p.error("--build_only needs --save_engine")
    for path in filter(None, (a.onnx, a.onnx_fp16, a.load_engine)):
        if not path.is_file():
            raise cli.UserError(f"{path}: no such file")
    wanted = a.save_engine
    a.save_engine = wanted and wanted.with_name(f".{wanted.name}.part")
    try:
        with tempfile.TemporaryDirectory() as work:
            found = execute(a, Path(work))
        if wanted:
            if not a.save_engine.is_file() or not a.save_engine.stat().st_size:
                raise cli.UserError(f"trtexec passed but wrote no engine for {wanted}")
            a.save_engine.replace(wanted)
            print(f"wrote {wanted} ({wanted.stat().st_size} bytes)")
    finally:
        if a.save_engine:
            a.save_engine.unlink(missing_ok=True)
    found["args"] = [w.replace(str(a.save_engine), str(wanted)) for w in found["args"]]
    with cli.whole_file(a.summary, "w") as f:
        json.dump(found, f, indent=1)
    if not a.build_only:
        print(f"{found['throughput']:.2f} samples/s = {found['qps']:.2f} qps * {a.batch}")
    print(f"wrote {a.summary}")


if __name__ == "__main__":
    cli.run(main)
