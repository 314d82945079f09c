"""Run Ascend's ais_bench with care, and read what it leaves.

    python -m tools.ascend.ais_bench run --model model.om --input in/input_ids,in/attention_mask \\
        --output out --output_dirname output --outfmt BIN --device 0,1
    python -m tools.ascend.ais_bench parse out/output_summary.json

    {"times_ms": [0.0531, 0.1209, ...], "compute": {"min": 0.0308, ...}, "count": 4, "throughput": 166554.36,
    "batchsize": 4, "h2d": null, "d2h": null, "samples": 10, "devices": 2, ..., "standin": true, ...}

(The end of the second, of a model of six nodes under the test suite's stand-in; times and digits shortened.)

`run` starts `python3 -m ais_bench` with these words, which may as well be typed directly. It adds what a first
try on a card trips over: a clear line when ais_bench or aclruntime is missing; --divide_input 1 for several
devices, which the 2023 ais_bench does by itself and the 2024 one does not; one folder of outputs and one
summary where ais_bench leaves one per device; and ais_bench's own error with what to do.

`parse` turns a summary, or a log of the screen, into one dict (see `read`). Formats: Ascend/tools @ 9d6da90f
(2023, ais_bench 0.0.2) and Ascend/msit @ 6394cfe1d^ (2024), ais_bench/infer/summary.py.
"""

import argparse
import json
import math
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from tools import cli

INSTALL = (
    "install the aclruntime and ais_bench wheels for this python3 (gitee.com/ascend/tools,"
    " ais-bench_workload/tool/ais_bench), and `source` CANN's set_env.sh"
)
HINTS = (
    (r"illegal char", "move the project to a path of letters, digits, _ - . only"),
    (r"group writable|others writable", "chmod go-w that file or folder"),
    (r"soft link", "give the file itself: this ais_bench refuses links"),
    (r"owner", "the files must belong to the user who runs ais_bench"),
    (r"tensorsize.*filesize|needsize", "inputs and model differ in length or type: rebuild one of them"),
    (r"input dir num|fileslist", "give one folder per model input, in the model's order (tools/ascend/om.py)"),
    (r"dynamic dims|gearcount", "these dims are no gear of the model: see the gears in tools/ascend/om.py FILE.om"),
    (r"load model", "was it compiled for this chip (npu-smi info), by a CANN no newer than here?"),
    (r"open device|set device", "is the device free and visible? see npu-smi info"),
    (r"No module named|libascendcl", INSTALL),
)
LATENCY = ("min", "max", "mean", "median", "percentile(99%)")


def numbers(d: dict, keys, where: str) -> dict:
    """d's values under `keys` as finite floats, not negative."""
    for key in keys:
        value = d.get(key) if isinstance(d, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
            raise cli.UserError(f"{where}.{key}: {value!r} is no number; is the summary whole?")
    return {key: float(d[key]) for key in keys}


def near(a: float, b: float, part=1e-6) -> bool:
    return math.isclose(a, b, rel_tol=part, abs_tol=1e-9)


def batch_of(throughput: float, mean: float) -> float:
    """The batch size behind throughput = 1000 * batch / mean: whole when near a whole number (gears mix)."""
    batch = throughput * mean / 1000
    return round(batch) if near(batch, round(batch)) else batch


def stats(times: list) -> dict:
    """min, max, mean, median and percentile(99%) (linear, as numpy's) of milliseconds."""
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
    found = (min(times), max(times), statistics.fmean(times), statistics.median(times), p99)
    return dict(zip(LATENCY, found, strict=True))


def times_of(summary: dict, where: str) -> list | None:
    """The single times in ms; None for a multi-thread run, whose list holds [start, end] pairs."""
    times = summary.get("npu_compute_time_list")
    if not isinstance(times, list) or not times:
        raise cli.UserError(f"{where}: npu_compute_time_list is missing; is it an ais_bench summary?")
    if all(isinstance(t, list) and len(t) == 2 for t in times):
        return None
    numbers(dict(enumerate(times)), range(len(times)), f"{where}: npu_compute_time_list")
    return times


def from_summary(text: str, where: str) -> dict:
    """One <dirname>_summary.json, ais_bench's own or one that `merge` made."""

    def refuse(name):
        raise cli.UserError(f"{where}: holds {name}, which no whole run gives; was it edited?")

    try:
        s = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise cli.UserError(f"{where}: not JSON ({e}); is it an ais_bench summary, whole?") from None
    if not isinstance(s, dict):
        raise cli.UserError(f"{where}: not a JSON object; is it an ais_bench summary?")
    times = times_of(s, where)
    keys = LATENCY if times else ("mean",)
    key, count = f"{where}: NPU_compute_time", len(s["npu_compute_time_list"])
    compute = numbers(s.get("NPU_compute_time"), keys, key)
    if s["NPU_compute_time"].get("count") != count:
        raise cli.UserError(f"{key}.count is not the {count} times listed; was it edited?")
    if times and not near(compute["mean"], statistics.fmean(times), 1e-4):
        raise cli.UserError(f"{key}.mean is not the mean of the times listed; was it edited?")
    throughput = numbers(s, ["throughput"], where)["throughput"]
    for key in ("batchsize", "devices"):
        numbers({key: s.get(key) or 0}, [key], where)
    if not isinstance(s.get("filesinfo") or {}, dict):
        raise cli.UserError(f"{where}.filesinfo: not an object; is the summary whole?")
    if not throughput:
        raise cli.UserError(f"{where}: throughput is 0: nothing was measured; run it again")
    return {
        "times_ms": times,
        "compute": compute,
        "count": count,
        "throughput": throughput,
        "batchsize": s.get("batchsize") or batch_of(throughput, compute["mean"]),
        "h2d": latency(s.get("H2D_latency"), f"{where}: H2D_latency"),
        "d2h": latency(s.get("D2H_latency"), f"{where}: D2H_latency"),
        "samples": len(s.get("filesinfo") or {}) or None,
        "devices": s.get("devices") or 1,
        "args": s.get("args"),
        "standin": bool(s.get("standin")),
        "missing": {} if times else {"times_ms": "several threads: ais_bench lists overlapping intervals"},
    }


def latency(d, where: str) -> dict | None:
    """A copy's latencies in ms, or None where ais_bench has none."""
    return numbers(d, [k for k in LATENCY if k in d], where) if isinstance(d, dict) and d.get("count") else None


THROUGHPUT = re.compile(
    r"throughput 1000\*batchsize(?:\.mean)?\((?P<batchsize>[\d.]+)\)"
    r"/NPU_compute_time\.mean\((?P<mean>\S+)\): (?P<throughput>\S+)"
)


def from_log(text: str, where: str) -> dict:
    """A stored screen: its performance summary, or those of several devices added up."""
    value = r"= ([-+.\w]+)"
    found, compute = [], None
    for n, line in enumerate(text.splitlines(), 1):
        at = f"{where}:{n}"
        if "NPU_compute_time (ms):" in line:
            pieces = dict(re.findall(r"([a-z]+(?:\(99%\))?) " + value, line))
            compute = numbers(as_floats(pieces), LATENCY if "min" in pieces else ["mean"], at)
        elif m := THROUGHPUT.search(line):
            said = numbers(as_floats(m.groupdict()), m.groupdict(), at)
            if compute is None or not near(compute["mean"], said["mean"]):
                raise cli.UserError(f"{at}: no NPU_compute_time with this mean before it; give the whole log")
            if not said["mean"] or not near(said["throughput"], 1000 * said["batchsize"] / said["mean"]):
                raise cli.UserError(f"{at}: throughput is not 1000 * batchsize / mean; was it edited?")
            found.append((compute, said))
            compute = None
    if not found:
        raise cli.UserError(f"{where}: no `throughput 1000*batchsize...`: no ais_bench log, or cut off; give it whole")
    throughput = sum(said["throughput"] for _, said in found)
    if total := re.findall(r"summary throughput:\s*(\S+)", text):
        said = numbers(as_floats({"summary throughput": total[-1]}), ["summary throughput"], where)
        if not near(*said.values(), throughput):
            raise cli.UserError(f"{where}: summary throughput {total[-1]} is not the sum {throughput}; was it edited?")
    elif len(found) > 1:
        raise cli.UserError(f"{where}: holds {len(found)} runs; give one file per run")
    batches = {said["batchsize"] for _, said in found}
    if len(batches) > 1:
        raise cli.UserError(f"{where}: devices ran different batch sizes {sorted(batches)}")
    why = "a log of the screen holds no single times"
    one = len(found) == 1
    return {
        "times_ms": None,
        "compute": found[0][0] if one else None,
        "count": None,
        "throughput": throughput,
        "batchsize": batch_of(batches.pop() * 1000, 1),
        "h2d": None,
        "d2h": None,
        "samples": None,
        "devices": len(found),
        "args": None,
        "standin": "STAND-IN" in text,
        "missing": {"times_ms": why, "count": why} | ({} if one else {"compute": "several devices in a log"}),
    }


def as_floats(d: dict) -> dict:
    """Texts as floats; what is no number stays, for `numbers` to name."""

    def convert(v):
        try:
            return float(v)
        except ValueError:
            return v

    return {k: convert(v) for k, v in d.items()}


def read(path) -> dict:
    """An ais_bench summary JSON or stored log, in one shape.

    {times_ms: [ms] or None, compute: {min, max, mean, median, percentile(99%)} in ms or None, count,
    throughput (samples/s over all devices), batchsize, h2d, d2h (like compute, or None), samples, devices,
    args, standin, missing: {key: why}, timed, source, sha256}. NPU_compute_time is the host's clock around
    the synchronous aclmdlExecute: no copies, no Python. Raises cli.UserError with file and key.
    """
    path = Path(path)
    text = path.read_bytes().decode("utf-8", "replace")
    found = (from_summary if text.lstrip().startswith("{") else from_log)(text, str(path))
    return found | {"timed": "device only", "source": path.name, "sha256": cli.sha256(path)}


def merge(folder: Path) -> None:
    """Put the outputs of <folder>/device* into <folder>, and their summaries into <folder>_summary.json.

    2024 ais_bench without --divide_input runs everything on every device: equal files are kept once. Raises
    cli.UserError when two devices disagree on a file.
    """
    parts = sorted(p for p in folder.glob("device*") if p.is_dir())
    found = [(p, folder / f"{p.name}_summary.json") for p in parts]
    merged = {"filesinfo": {}, "npu_compute_time_list": [], "throughput": 0.0, "devices": len(found)}
    for part, path in found:
        one, raw = read(path), json.loads(path.read_text())
        if one["times_ms"] is None:
            raise cli.UserError(f"{path}: threads and devices cannot be added up; use --threads 1")
        if one["batchsize"] != merged.setdefault("batchsize", one["batchsize"]):
            raise cli.UserError(f"{path}: batch size differs from the first device's")
        merged["npu_compute_time_list"] += one["times_ms"]
        merged["throughput"] += one["throughput"]
        merged["args"] = raw.get("args")
        if raw.get("standin"):
            merged["standin"] = True
        for file in sorted(part.iterdir()):
            target = folder / file.name
            if not target.exists():
                file.replace(target)
            elif target.read_bytes() != file.read_bytes():
                raise cli.UserError(f"{file}: differs from another device's; a device is faulty")
            else:
                file.unlink()
        part.rmdir()
        for entry in (raw.get("filesinfo") or {}).values():
            outfiles = [str(folder / Path(o).name) for o in entry["outfiles"]]
            merged["filesinfo"][outfiles[0]] = entry | {"outfiles": outfiles}
    merged["filesinfo"] = {str(i): v for i, (_, v) in enumerate(sorted(merged["filesinfo"].items()))}
    times = merged["npu_compute_time_list"]
    merged["NPU_compute_time"] = stats(times) | {"count": len(times)}
    with cli.whole_file(f"{folder}_summary.json", "w") as f:
        json.dump(merged, f)
    for _, path in found:
        path.unlink()


def probe(python: str) -> int:
    """Which option set ais_bench has: 2023 or 2024. Raises cli.UserError when it cannot run here."""
    command = [python, "-m", "ais_bench", "--help"]
    try:
        got = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise cli.UserError(f"{python}: no such program; {INSTALL}") from None
    if got.returncode:
        last = (got.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise cli.UserError(f"`{' '.join(command)}` failed: {last}; {INSTALL}")
    return 2024 if "--divide_input" in got.stdout else 2023


def run(python: str, words: list) -> None:
    """Run ais_bench with these words; merge devices; raise cli.UserError with its error and what to do."""
    year = probe(python)
    p = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (("--output", "-o"), ("--output_dirname",), ("--device", "-d"), ("--divide_input",)):
        p.add_argument(*names)
    a, _ = p.parse_known_args(words)
    several = "," in (a.device or "")
    if several and a.output and not a.output_dirname:
        raise cli.UserError("several devices need --output_dirname: their outputs are put together there")
    if several and year == 2024 and a.divide_input is None:
        words = [*words, "--divide_input", "1"]
    command = [python, "-m", "ais_bench", *words]
    print("+", shlex.join(command), flush=True)
    status, text = cli.stream(command, Path.cwd())
    if status:
        kinds = (r"^\[ERROR\] (.+)", r"^\[WARN\] (.+)", r"^\w*Error: (.+)", r"error: (.+)")
        said = next((m[1] for kind in kinds if (m := re.search(kind, text, re.M))), "it named no error")
        hint = next((h for pattern, h in HINTS if re.search(pattern, said, re.I)), "see its output above")
        raise cli.UserError(f"ais_bench failed (exit {status}): {said.strip()[:300]}; {hint}")
    if several and a.output:
        merge(Path(a.output, a.output_dirname))


def main():
    p = argparse.ArgumentParser(description="Run Ascend's ais_bench, or read what it left.")
    sub = p.add_subparsers(dest="what", required=True)
    r = sub.add_parser("run", usage="%(prog)s [--python PYTHON] AIS_BENCH OPTIONS", allow_abbrev=False)
    r.add_argument("--python", default="python3", help="the interpreter that has ais_bench (python3)")
    sub.add_parser("parse").add_argument("file", nargs="+", type=Path)
    a, words = p.parse_known_args([w for w in sys.argv[1:] if w != "--"])
    if a.what == "run":
        return run(a.python, words)
    if words:
        p.error(f"unknown options {' '.join(words)}")
    for path in a.file:
        print(json.dumps(read(path)))
    return None


if __name__ == "__main__":
    cli.run(main)
