"""Build a TensorRT engine from ONNX, time it, and get its answers with trtexec, alike under TensorRT 8, 10 and 11.

    python -m tools.gpu.trtexec --onnx gpu.onnx --engine model.plan --batch_size 8 --precision fp16 --summary build.json
    python -m tools.gpu.trtexec --engine model.plan --batch_size 8 --precision fp16 --summary perf.json
    python -m tools.gpu.trtexec --engine model.plan --batchsize 8 --input in/input_ids,in/attention_mask --output output

    trtexec of TensorRT 10.13.3: device compute only: no copies, spin wait, CUDA graph, no TF32, one stream
    + trtexec --loadEngine=model.plan --noDataTransfers --useSpinWait --useCudaGraph --warmUp=1000 ...
    ...
    68447.60 samples/s = 17111.90 qps * 4
    wrote perf.json

(The end of the second command's output, for six nodes and with the test suite's stand-in; no real GPU has run this yet.)

The same command means different things to different versions: TensorRT 11 leaves copies out, spins and uses a
CUDA graph where 8 and 10 do not; 8.4 renamed --workspace; 11 has no --fp16: a graph's own types decide there.
tools/base/trip.py chooses the flags for the version at hand, so that a timing always has no copies, spin wait, a CUDA
graph, no TF32 and one stream. trtexec's `qps` counts queries, so throughput here is qps * batch. Sources: samples/common
(sampleOptions, sampleReporting) of NVIDIA/TensorRT at 8.0.1, 8.4.1, 8.5.3, 23.08 (8.6), v10.0.0, v10.13.3, a892d222 (11.1).
"""

import json
import re
import shlex
import statistics
import tempfile
from pathlib import Path

from tools.base import logs, tasks, trip
from tools.base.input_files import row_files
from tools.make import cli

MEANING = "device compute only: no copies, spin wait, CUDA graph, no TF32, one stream"
HINTS = (
    (r"Unknown option", "this trtexec does not know that option; tell us the version"),
    (r"out of memory|OutOfMemory", "another program holds the GPU's memory: see nvidia-smi"),
    (r"deserializ|version tag|platform", "an engine fits one kind of GPU and one TensorRT: build it here"),
    (r"Could not open file|failed to open|parse", "check the ONNX file with onnx.checker"),
    (r"CUDA|driver|no .*device", "is there a GPU and a driver? see nvidia-smi"),
)
# Options of trtexec that do not change the meaning of a figure, and those that do not if they are at least their default.
NEUTRAL = """onnx loadEngine saveEngine shapes minShapes optShapes maxShapes batch maxBatch explicitBatch fp16 int8 fp8 bf16
    best stronglyTyped noTF32 workspace memPoolSize buildOnly skipInference avgRuns percentile verbose exportTimes exportOutput
    loadInputs timingCacheFile device threads streams infStreams sleepTime idleTime sparsity noDataTransfers useSpinWait
    useCudaGraph includeDataTransfers noSpinWait noCudaGraph""".split()  # noqa: SIM905
DEFAULTS = {"warmUp": 200, "duration": 3, "iterations": 10}


def latency(text: str, name: str, where: str) -> dict:
    """The numbers of one latency line of the performance summary, in ms. Raises UserError if there is no such line, or it
    has no numbers."""
    lines = re.findall(rf"\] (?:\[I\] )?{name}: (min = .*)", text)
    if not lines:
        raise cli.UserError(f"{where}: no `{name}: min = ...` line; is it trtexec's whole output?")
    pairs = logs.pairs(lines[-1])
    return logs.numbers(pairs, pairs, f"{where}: {name}")


def verdict(text: str, where: str) -> tuple:
    """The TensorRT version of a run that PASSED. Raises UserError if it failed, was cut off, ran at shapes that trtexec made
    up, is one of several, or is of TensorRT 7 or older."""
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
        raise cli.UserError(f"{where}: {trip.failure('trtexec', text, 1, HINTS)}")
    if "Automatically overriding shape" in text:
        raise cli.UserError(f"{where}: a dynamic ONNX was timed at shapes trtexec made up; give --shapes")
    return trip.dotted(int(last[-1][1]))


def summary(text: str, times: list | None, batch: int, where: str) -> dict:
    """A run's output and its list from --exportTimes, or None, in the form of ais_bench's summary.

    {GPU_compute_time: {min, max, mean, median, percentile(90|95|99%), count} ms, gpu_compute_time_list: [ms]
    or None, throughput (samples/s: qps * batch), qps, batchsize, tensorrt, standin}. Raises cli.UserError.
    """
    version = verdict(text, where)
    rates = dict(re.findall(r"(Throughput): (\S+) qps", text))
    qps = logs.numbers(rates, ["Throughput"], f"{where}: summary")["Throughput"]
    compute, milliseconds = latency(text, "GPU Compute Time", where), None
    mean = compute.get("mean")
    if times is not None:
        try:
            milliseconds = [float(t["computeMs"]) for t in times]
        except (TypeError, KeyError, ValueError):
            raise cli.UserError(f"{where}: --exportTimes wrote entries without computeMs") from None
        if len(milliseconds) < 2 or abs(statistics.fmean(milliseconds) - mean) > 1e-3 * mean:
            raise cli.UserError(f"{where}: the times listed do not have the mean printed, {mean}")
        compute = logs.stats(milliseconds, (90, 95, 99))
    if not qps or not mean:
        raise cli.UserError(f"{where}: nothing was measured (throughput {qps} qps); was it cut off?")
    if qps * mean > 1100:  # one query after another
        raise cli.UserError(f"{where}: {qps} qps of {mean} ms each: several streams, or edited; time one stream")
    return {
        "GPU_compute_time": compute,
        "gpu_compute_time_list": milliseconds,
        "qps": qps,
        "batchsize": batch,
        "throughput": qps * batch,
        "tensorrt": ".".join(map(str, version)),
        "standin": "STAND-IN" in text,
    }


def options(text: str) -> dict[str, str]:
    """{option: value} of the command at the beginning of a log."""
    words = next(iter(re.findall(r"&&&& RUNNING TensorRT\.trtexec.*?# (.*)", text)), "").split()
    parts = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
    return {key: value for key, _, value in parts}


def number(args: dict, name: str) -> float:
    """The value of an option of DEFAULTS as a number; -1 if it is no number."""
    text = args.get(name, str(DEFAULTS[name]))
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else -1


def timing(args: dict, version: tuple) -> str:
    """What these options timed, in words; each option that changes the meaning of the figure is named."""
    on = lambda new, old: new not in args if version >= (11,) else old in args
    longer = lambda name: name in DEFAULTS and number(args, name) >= DEFAULTS[name]
    parts = ["spin wait"] * on("noSpinWait", "useSpinWait") + ["CUDA graph"] * on("noCudaGraph", "useCudaGraph")
    others = [name for name in args if name not in NEUTRAL and not longer(name)]
    parts += [f"--{name}={args[name]}".rstrip("=") for name in others]
    if on("includeDataTransfers", "noDataTransfers"):
        return ", ".join(["device compute only", *parts]) + ": no copies"
    return ", ".join(["device compute, with copies beside it", *parts])


def call_trtexec(program: str, words: list[str]) -> str:
    """The output of trtexec, which is shown as it comes. Raises UserError with trtexec's own words if it fails."""
    print("+", shlex.join([program, *words]), flush=True)
    status, text = cli.run_shown([program, *words], Path.cwd())
    if status:
        raise cli.UserError(trip.failure("trtexec", text, status, HINTS))
    return text


def infer(a, program: str, version: tuple) -> bool:
    """Run the rows of --input through an engine, one call of trtexec for each batch, and leave the outputs as ais_bench
    does. Whether a stand-in for trtexec did that."""
    folders, marks = a.input.split(","), set()
    cell = {"inputs": folders, "stems": [path.stem for path in row_files(Path(folders[0]))], "bs": a.batch,
            "labels": len(tasks.of_inputs(Path(folders[0]).parent)[2])}  # fmt: skip
    execute = lambda words: marks.add("STAND-IN" in call_trtexec(program, words))
    with tempfile.TemporaryDirectory() as work:
        trip.infer_by_trtexec(cell, execute, version, str(a.engine), work, str(a.output / a.output_dirname))
    return any(marks)


def main():
    p = cli.parser(__doc__)
    p.add_argument("--onnx", type=Path, help="build the engine from this; without it, time the engine")
    p.add_argument("--onnx_fp16", type=Path, help="the same with fp16 types (tools/gpu/half.py), for TensorRT 11")
    p.add_argument("--engine", type=Path, required=True)
    p.add_argument("--batch_size", "--batchsize", dest="batch", type=int, required=True, help="samples in one query")
    p.add_argument("--precision", choices=("fp32", "fp16"))
    p.add_argument("--summary", type=Path, help="JSON to write: what was built or timed")
    p.add_argument("--input", help="folders of rows, with commas between: run them, as ais_bench does")
    p.add_argument("--output", type=Path, help="where their logits go, and a summary")
    p.add_argument("--output_dirname", default="out")
    a = p.parse_args()
    if not (a.output if a.input else a.summary):
        p.error(f"{'--output' if a.input else '--summary'} is missing")
    program, version = trip.trtexec()
    if not program:
        raise cli.UserError(trip.NO_TRTEXEC)
    if a.onnx and a.precision == "fp16" and version >= (11,) and not a.onnx_fp16:
        raise cli.UserError("TensorRT 11 has no --fp16: give --onnx_fp16, a graph with fp16 types (tools/gpu/half.py)")
    release = ".".join(map(str, version))
    if a.input:
        answer = {"tensorrt": release, "standin": infer(a, program, version), "args": [program]}
        return cli.write(a.output / f"{a.output_dirname}_summary.json", json.dumps(answer))
    with tempfile.TemporaryDirectory(dir=a.engine.parent if a.onnx else None) as work:
        engine, times = Path(work, a.engine.name) if a.onnx else a.engine, Path(work, "times.json")
        typed = a.onnx_fp16 if version >= (11,) else None  # has no --fp16: the graph's own types decide
        build = {"onnx": str(typed or a.onnx), "fp16": a.precision == "fp16"}
        words = trip.trtexec_words(version, str(engine), **(build if a.onnx else {"times": str(times)}))
        print(f"trtexec of TensorRT {release}: {MEANING}")
        text = call_trtexec(program, words)
        if a.onnx:
            verdict(text, program)
            if not engine.is_file() or not engine.stat().st_size:
                raise cli.UserError(f"trtexec passed but wrote no engine for {a.engine}")
            engine.replace(a.engine)
            result = {"tensorrt": release, "standin": "STAND-IN" in text}
            print(f"wrote {a.engine} ({a.engine.stat().st_size} bytes)")
        else:
            result = summary(text, json.loads(times.read_text()), a.batch, program) | {"timed": MEANING}
            print(f"{result['throughput']:.2f} samples/s = {result['qps']:.2f} qps * {a.batch}")
    args = [w.replace(str(engine), str(a.engine)) for w in (program, *words) if not w.startswith("--exportTimes")]
    cli.write(a.summary, json.dumps(result | {"precision": a.precision, "args": args}, indent=1))
    return print(f"wrote {a.summary}")


if __name__ == "__main__":
    cli.run(main)
