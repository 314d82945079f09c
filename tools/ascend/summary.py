"""Read the summaries and screens of ais_bench, and merge the summaries of several devices.

    summary.read_summary("out/output_summary.json")

    {"times_ms": [0.0531, 0.1209, ...], "compute": {"min": 0.0308, ...}, "count": 4, "throughput": 166554.36,
    "batchsize": 4, "samples": 10, "devices": 2, "per_device": [...], "standin": true, ...}

(For a model of six nodes with the test suite's stand-in; times and digits are shortened.) Formats: ais_bench/infer/
summary.py of Ascend/tools @ 9d6da90f (2023, ais_bench 0.0.2) and 1ff4acca (December 2025), of Ascend/msit @ 6394cfe1d^
(2024), and of the fork of 2026 (Yanguan619/aclruntime @ df1f9a44), which calls the 99th percentile P99.
"""

import json
import math
import re
import statistics
from pathlib import Path

from tools.base import logs
from tools.base.logs import numbers
from tools.make import cli

LATENCY = ("min", "max", "mean", "median", "percentile(99%)")
PURE = "pure_infer_data"  # the name that ais_bench gives to input of its own
TIMES = "npu_compute_time_list"


def is_near(a: float, b: float, part=1e-6) -> bool:
    return math.isclose(a, b, rel_tol=part, abs_tol=1e-9)


def whole_near(batch: float) -> float:
    """A batch size that was computed as throughput * mean / 1000, rounded if it is near a whole number: with gears it is a
    mean of several."""
    return round(batch) if is_near(batch, round(batch)) else batch


def with_usual_names(d):
    """Latencies with the usual name for the 99th percentile, which some builds call P99 or write with blanks."""
    name = lambda key: {"P99": "percentile(99%)"}.get(key, "".join(key.split()))
    return {name(k): v for k, v in d.items()} if isinstance(d, dict) else d


def sample_count(summary: dict) -> int | None:
    """How many samples ais_bench read; None if it made its own input."""
    names = [str(e.get("infiles")) for e in (summary.get("filesinfo") or {}).values() if isinstance(e, dict)]
    return None if not names or PURE in names[0] else len(names)


def per_device_of(summary: dict, where: str) -> list[dict]:
    """The entries of the devices that `merge` wrote, or one entry without a name. UserError if their throughputs do not add
    up to the sum."""
    alone = {"device": None, "throughput": summary["throughput"], "samples": sample_count(summary)}
    devices = summary.get("per_device", [alone])
    if not isinstance(devices, list) or not devices:
        raise cli.UserError(f"{where}.per_device: not a list of devices; was it edited?")
    devices = [d | numbers(d, ["throughput"], f"{where}.per_device") for d in devices]
    total = sum(d["throughput"] for d in devices)
    if not is_near(total, summary["throughput"]):
        raise cli.UserError(f"{where}: throughput is not the sum {total} of its devices; was it edited?")
    return devices


def parse_json(text: str, where: str) -> dict:
    """The JSON object of a summary, its list of times checked. Raises UserError for anything else."""

    def refuse(name):
        raise cli.UserError(f"{where}: holds {name}, which no whole run gives; was it edited?")

    try:
        s = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise cli.UserError(f"{where}: not JSON ({e}); is it an ais_bench summary, whole?") from None
    if not isinstance(s, dict):
        raise cli.UserError(f"{where}: not a JSON object; is it an ais_bench summary?")
    times = s.get(TIMES)
    if not isinstance(times, list) or not times:
        raise cli.UserError(f"{where}: {TIMES} is missing; is it an ais_bench summary?")
    if all(isinstance(t, list) for t in times):
        raise cli.UserError(f"{where}: timed with several threads: no figure to stand beside others; time with one")
    if not isinstance(s.get("filesinfo") or {}, dict):
        raise cli.UserError(f"{where}.filesinfo: not an object; is the summary whole?")
    return s | {TIMES: [*numbers(dict(enumerate(times)), range(len(times)), f"{where}: {TIMES}").values()]}


def from_summary(text: str, where: str) -> dict:
    """One <dirname>_summary.json, of ais_bench or of `merge`. Raises UserError for anything else, and if it contradicts
    itself."""
    s = parse_json(text, where)
    times, key, latency = s[TIMES], f"{where}: NPU_compute_time", with_usual_names(s.get("NPU_compute_time"))
    compute = numbers(latency, LATENCY, key)
    if latency.get("count") != len(times):
        raise cli.UserError(f"{key}.count is not the {len(times)} times listed; was it edited?")
    if not is_near(compute["mean"], statistics.fmean(times), 1e-4):
        raise cli.UserError(f"{key}.mean is not the mean of the times listed; was it edited?")
    throughput, batch = numbers({"batchsize": 0} | s, ["throughput", "batchsize"], where).values()
    if not throughput:
        raise cli.UserError(f"{where}: throughput is 0: nothing was measured; run it again")
    devices = per_device_of(s | {"throughput": throughput}, where)
    batch = whole_near(batch or throughput * compute["mean"] / 1000)
    # Passes of our runner overlap, and devices have each their own mean.
    if "pass_ms" not in s and len(devices) == 1 and not is_near(throughput * compute["mean"], 1000 * batch, 1e-4):
        raise cli.UserError(f"{where}: throughput is not 1000 * batchsize {batch} / mean; was it edited?")
    return {
        "times_ms": times,
        "compute": compute,
        "count": len(times),
        "throughput": throughput,
        "batchsize": batch,
        "samples": sample_count(s),
        "per_device": devices,
        "args": s.get("args"),
        "engine": s.get("engine"),
        "card": {k: v for k, v in s["card"].items() if isinstance(v, str)} if isinstance(s.get("card"), dict) else {},
        "standin": bool(s.get("standin")),
    }


THROUGHPUT = re.compile(
    r"[Tt]hroughput 1000\*batchsize(?:\.mean)?\((?P<batchsize>[\d.]+)\)"
    r"/NPU_compute_time\.mean\((?P<mean>\S+)\): (?P<throughput>\S+)"
)


def from_log(text: str, where: str) -> dict:
    """The facts of a stored screen: those of its performance summary, or of the sum over several devices. Raises UserError if
    it has none, or several runs, or figures that contradict each other."""
    runs, compute, args = [], None, []
    for n, line in enumerate(text.splitlines(), 1):
        at = f"{where}:{n}"
        if "NPU_compute_time (ms):" in line:
            latency = with_usual_names(logs.pairs(line.partition("(ms):")[2]))
            compute = numbers(latency, LATENCY if "min" in latency else ["mean"], at)
        elif row := re.match(r"│ NPU_compute_time \(ms\) +│(.+)│", line):  # as the fork of 2026 draws it
            compute = numbers(dict(zip(LATENCY, row[1].split("│"), strict=False)), LATENCY, at)
        elif " -m ais_bench " in line:
            args = line.partition(" -m ais_bench ")[2].replace('"', "").replace("'", "").split()
        elif m := re.match(r"\[INFO\] (?:load model (\S+) success|warm up (\d+) done)$", line):
            args += ["--model", m[1]] if m[1] else ["--warmup_count", m[2]]
        elif m := THROUGHPUT.search(line):
            run = numbers(m.groupdict(), m.groupdict(), at)
            if compute is None or abs(compute["mean"] - run["mean"]) > 1e-4:
                raise cli.UserError(f"{at}: no NPU_compute_time with this mean before it; give the whole log")
            if not run["mean"] or not is_near(run["throughput"], 1000 * run["batchsize"] / run["mean"]):
                raise cli.UserError(f"{at}: throughput is not 1000 * batchsize / mean; was it edited?")
            runs.append(run | {"compute": compute})
            compute = None
    if not runs:
        raise cli.UserError(f"{where}: no `throughput 1000*batchsize...`: no ais_bench log, or cut off; give it whole")
    total = re.findall(r"summary throughput:[ ]*(\S+)", text)
    if len(total) > 1 or (len(runs) > 1 and not total):
        raise cli.UserError(f"{where}: holds {len(total) or len(runs)} runs; give one file per run")
    throughput, key = sum(run["throughput"] for run in runs), "summary throughput"
    if total and not is_near(numbers({key: total[0]}, [key], where)[key], throughput):
        raise cli.UserError(f"{where}: {key} {total[0]} is not the sum {throughput}; was it edited?")
    if len(batches := {run["batchsize"] for run in runs}) > 1:
        raise cli.UserError(f"{where}: devices ran different batch sizes {sorted(batches)}")
    return dict.fromkeys(("times_ms", "count", "samples", "engine")) | {  # a screen shows no single times
        "compute": runs[0]["compute"] if len(runs) == 1 else None,
        "throughput": throughput,
        "batchsize": whole_near(batches.pop()),
        "per_device": [{"device": None, "throughput": run["throughput"], "samples": None} for run in runs],
        "args": args,
        "card": {},
        "standin": "STAND-IN" in text,
    }


def read_summary(path) -> dict:
    """The same facts from an ais_bench summary or a stored log of its screen.

    {times_ms: [ms] or None, compute: {min, max, mean, median, percentile(99%)} in ms or None, count or None,
    throughput (samples/s over all devices), batchsize, samples or None, devices, per_device: [{device, throughput,
    samples}], args, engine (our CPU runner's), card (trip.facts), standin, timed}. NPU_compute_time is the host's clock around the
    synchronous aclmdlExecute: no copies, no Python. Raises cli.UserError with file and key.
    """
    text, where = logs.decoded(Path(path).read_bytes()), str(path)
    content = from_summary(text, where) if text.lstrip().startswith("{") else from_log(logs.bare_text(text), where)
    timed = "the engine's call, copies included" if content["engine"] else "device only"
    return content | {"timed": timed, "devices": len(content["per_device"])}


def merge(folder: Path) -> None:
    """Move the outputs of <folder>/device* to <folder>, and merge their summaries into <folder>_summary.json. Without
    --divide_input the ais_bench of 2024 runs everything on every device: equal files are kept once. UserError if two
    devices disagree on a file."""
    parts = [(p, folder / f"{p.name}_summary.json") for p in sorted(folder.glob("device*")) if p.is_dir()]
    merged: dict = {"filesinfo": {}, TIMES: [], "throughput": 0.0, "per_device": []}
    for part, path in parts:
        one, raw = read_summary(path), json.loads(path.read_text())
        if one["batchsize"] != merged.setdefault("batchsize", one["batchsize"]):
            raise cli.UserError(f"{path}: batch size differs from the first device's")
        merged[TIMES] += one["times_ms"]
        merged["throughput"] += one["throughput"]
        device = re.sub(r"device(\d+)(_\d+)?$", r"\1", part.name)
        merged["per_device"].append({"device": device, "throughput": one["throughput"], "samples": one["samples"]})
        merged |= {k: raw[k] for k in ("args", "standin") if k in raw}
        for file in sorted(part.iterdir()):
            target = folder / file.name
            if target.exists() and target.read_bytes() != file.read_bytes():
                raise cli.UserError(f"{file}: differs from another device's; a device is faulty")
            file.replace(target)
        part.rmdir()
        for key, entry in (raw.get("filesinfo") or {}).items():
            outfiles = [str(folder / Path(o).name) for o in entry["outfiles"]]
            merged["filesinfo"][outfiles[0] if outfiles else key] = entry | {"outfiles": outfiles}
    merged["filesinfo"] = {str(i): v for i, (_, v) in enumerate(sorted(merged["filesinfo"].items()))}
    merged["NPU_compute_time"] = logs.stats(merged[TIMES])
    cli.write(f"{folder}_summary.json", json.dumps(merged))
    for _, path in parts:
        path.unlink()


def batches_run(rows: int, bs: int, summary: dict) -> int:
    """How many batches of `bs` the devices ran for `rows` rows. Each device fills up its own last batch."""
    devices = summary.get("per_device") or [{"samples": rows}]
    count = len(devices)
    even = [rows // count + (i < rows % count) for i in range(count)]  # where ais_bench made its own input
    return sum(-(-(d["samples"] or share) // bs) for d, share in zip(devices, even, strict=True))


def speeds_of_cards(summaries: list[dict], per_row: float = 1.0) -> dict:
    """{devices, per_device: {device: [samples/s of each summary]}}, {} for a single device. per_row: sentences in a row."""
    devices = summaries[0].get("per_device") or []
    if len(devices) < 2:
        return {}
    speeds = zip(*([round(d["throughput"] * per_row, 3) for d in s["per_device"]] for s in summaries), strict=True)
    names = [str(d.get("device") or i) for i, d in enumerate(devices)]
    return {"devices": len(devices), "per_device": dict(zip(names, map(list, speeds), strict=True))}
