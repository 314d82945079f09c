"""One JSON per measurement: what was measured, on what, and the chain of hashes and commands behind it.

    python -m tools.results.record accuracy build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32 --save_path accuracy.json
    python -m tools.results.record perf     build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32 --save_path perf.json
    python -m tools.results.record promote  results/records accuracy.json perf.json

`accuracy` and `perf` read what the graph left in that folder, whose path is the parameter list. `promote` copies a
record to results/records/<date>-<host>-<parameters>-<kind>.json (tools/results/store.py), and refuses one that is stale:
every file of its chain must still be here with its hash. Logs from elsewhere: tools/results/imports.py.
"""

import functools
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from graphlib import TopologicalSorter
from pathlib import Path

from tools.base import tasks
from tools.make import cli, cpu, manifest, parameters
from tools.make.stale import PROV
from tools.results import figures
from tools.results.store import keep_record, load_records, read_record, text_of  # noqa: F401  (readers name this module alone)
from tools.source import fetch

SST2 = 872  # sentences of its validation set
NOISY = 0.1  # rounds that differ by more
DEMONSTRATION = "DEMONSTRATION: made with stand-ins for the vendor's tools; no figure here is of a card"
STOLEN = 0.05  # share of the processors' time that the host gave to others
SOURCES = ("tools/", "models/", "data/", "requirements")  # what git keeps of a chain's files


def configuration(leaf: Path) -> dict:
    """The parameters that a configuration's path spells, as fields of a record. Raises UserError for another path."""
    if fields := parameters.of_path(leaf.as_posix()):
        return fields | {"bs": int(fields["bs"])}
    raise cli.UserError(f"{leaf}: not build/<model>/<weights>/seq<N>/bs<N>/<chip>-<engine>-<precision>")


leaf_of = parameters.folder  # of a record: the folder of its configuration below build/


def rows_in_words(seq: str) -> str:
    """A record's `seq` in words: `128, packed, last layer for [CLS]`."""
    (_, length), *others = parameters.seq_values(seq).items()
    words = {"PACK": "packed", "CLS": "last layer for [CLS]"}
    settings = [words.get(name, f"{name}={value}") for name, value in others if value]
    return ", ".join([length.replace(",", "-"), *settings])


def input_of(leaf: Path) -> Path:
    """The folder of a configuration's input files."""
    of_batches = leaf.parent / "input"
    return of_batches if of_batches.is_dir() else leaf.parents[1] / "input"


def chain(target: Path) -> dict:
    """Every file behind a target: {path: {sha256, commands, inputs}} of those that run.py made, {path: {sha256}} of others."""
    links: dict[str, dict] = {}
    waiting = [str(target)]
    while waiting:
        if (path := waiting.pop()) in links:
            continue
        if Path(f"{path}{PROV}").is_file():
            prov = cli.read_json(f"{path}{PROV}")
            links[path] = {key: prov[key] for key in ("sha256", "commands", "inputs")}
            waiting += prov["inputs"]
        else:
            links[path] = {"sha256": cli.sha256(path)}
    return dict(sorted(links.items()))


@functools.cache
def commit_files(commit: str) -> dict[str, str]:
    """{path: sha256} of a commit's files; empty outside a clone that has the commit."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        tar = subprocess.run(["git", "archive", commit], capture_output=True, check=True, env=env, cwd=cli.ROOT).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as files:
        return {m.name: hashlib.sha256(files.extractfile(m).read()).hexdigest() for m in files if m.isfile()}


def edited_sources(commit: str | None, links: dict) -> list[str]:
    """The source files of a chain that differ in the commit or are not in it; none where the commit is not known."""
    tree = commit_files(commit) if commit else {}
    return [p for p, link in links.items() if tree and p.startswith(SOURCES) and tree.get(p) != link["sha256"]]


def own_texts(record: dict) -> bool:
    """Whether a record is of texts of the user's own, not of SST-2's validation set."""
    return "task" in record or "sentences" in record


def of_the_model(record: dict) -> bool:
    """Whether a record is of the model's own weights on SST-2's validation set."""
    return record["weights"] == "default" and not own_texts(record)


def noise(record: dict) -> str | None:
    """Why a throughput is too noisy to compare, in words."""
    if (record["spread"] or 0) > NOISY:
        return f"rounds differ by {100 * record['spread']:.0f} %"
    if (share := max(record.get("stolen", [0]))) > STOLEN:
        return f"the host gave {100 * share:.0f} % of the processors' time to others"
    return None


def common_fields(leaf: Path, kind: str, target: Path, outputs: list[Path]) -> dict:
    """What every record says: parameters, when, where, which commit, the target's chain. outputs: what the chip wrote."""
    run, *runs = (cli.read_json(f"{path}{PROV}")["run"] for path in (target, *outputs))
    links = chain(target)
    edited = bool(edited_sources(run["commit"], links))  # also of files that git does not track: a model of one's own
    launched = [r["launched"] for r in runs if "launched" in r]  # node, job and device, behind LAUNCH=
    return {
        "kind": kind,
        **configuration(leaf),
        "source": cli.regular(leaf.parents[2] / "source").read_text().strip(),
        "started": run["started"],
        "commit": run["commit"],
        "dirty": run["dirty"] or (edited if run["commit"] else run["dirty"]),
        "machine": runs[0].get("machine") or cpu.machine(),
        **({"launched": launched} if len(launched) == len(runs) else {}),
        "chain": links,
    }


def proportion(correct: int | None, total: int) -> dict:
    """correct, total, their quotient and its 95 % interval; only the total of a task whose answers are scores."""
    if correct is None:
        return {"correct": None, "total": total, "accuracy": None, "interval95": None}
    share, interval = round(correct / total, 6), tasks.wilson(correct, total)
    return {"correct": correct, "total": total, "accuracy": share, "interval95": interval}


def sst2_labels() -> list[int]:
    """The labels of the validation set, in its order, as the repo holds them."""
    from tools.source import data

    return [label for label, *_ in data.read_edits("data/dev.edits")[1]]


def labels_of(record: dict) -> list:
    """The right classes or scores of an accuracy's texts; UserError where there are more or fewer predictions."""
    labels = record["truth"] if "truth" in record else sst2_labels()
    if len(record["predictions"]) != len(labels):
        raise cli.UserError(f"{len(record['predictions'])} predictions, {len(labels)} labels: not those of SST-2")
    return labels


def classes(predictions: str | list) -> list:
    """Predictions as class numbers, -1 for a tie, whichever way a record holds them; scores and lists of classes as they are."""
    return [-1 if p == "=" else int(p) for p in predictions] if isinstance(predictions, str) else predictions


def right_answers(record: dict) -> list[bool]:
    """Which texts of an accuracy's record have the right class; UserError where they have scores."""
    if record["correct"] is None:
        raise cli.UserError(f"task {record['task']}: scores, of which none is right or wrong; look at its metrics")
    return [p == label for p, label in zip(classes(record["predictions"]), labels_of(record), strict=True)]


def sentences_of(leaf: Path) -> int | None:
    """How many texts of the user's own a configuration has as inputs; None where they are SST-2's 872."""
    if not (input_of(leaf) / tasks.FILE).is_file():
        return None
    labels = cli.read_json(input_of(leaf) / "labels.json").values()
    return sum(len(v) if isinstance(v, list) else 1 for v in labels) or None


def without_none(**fields) -> dict:
    """The fields that are not None: a record leaves the others out."""
    return {name: value for name, value in fields.items() if value is not None}


def caveat(source: str) -> str | None:
    """Why the accuracy of weights from that source does not count; None where it does."""
    return "seeded weights: not the model's accuracy" if source == "seeded" else None


def accuracy_record(leaf: Path) -> dict:
    """The record of leaf/score.json and the inference behind it."""
    from tools.ascend import fp16

    score, rehearsal = cli.read_json(leaf / "score.json"), leaf / "ranges.json"
    record = common_fields(leaf, "accuracy", leaf / "score.json", [leaf / "output" / "MANIFEST"])
    summary = cli.read_json(leaf / "output" / "out_summary.json")
    return record | {
        **tool_fields(leaf, summary),
        **proportion(score["correct"], score["total"]),
        "caveat": caveat(record["source"]),
        **without_none(devices=len(summary["per_device"]) if "per_device" in summary else None),
        **padding_fields(score["total"], leaf, record, summary),
        "predictions": score["predictions"],
        **without_none(logits_sha256=logits_hash(leaf, record)),
        **{key: score[key] for key in ("task", "labels", "truth", "metrics") if key in score},
        **({"rehearsal": fp16.show(cli.read_json(rehearsal)).splitlines()} if rehearsal.is_file() else {}),
    }


def has_defined_bits(record: dict) -> bool:
    """Whether docs/bits.md defines each bit of a configuration's logits."""
    return record["engine"] == "native" and record["precision"] in ("fp32", "int8") and "certify" not in record


def logits_hash(leaf: Path, record: dict) -> str | None:
    """The sha256 of the logits as little-endian float32 in the order of the inputs, where their bits are defined."""
    if not has_defined_bits(record):
        return None
    from tools.base import output_files

    logits = output_files.outputs_with_labels(leaf / "output" / "out", input_of(leaf) / "labels.json")[0]
    return hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest()


def round_speeds(record: dict) -> list[float]:
    """Sentences per second of each round, from the milliseconds of its passes, or of its requests of `bs` rows; where
    several devices ran, their sum."""
    if "per_device" in record:
        return [sum(round_) for round_ in zip(*record["per_device"].values(), strict=True)]
    passes = record.get("pass_ms")
    sentences = record.get("sentences", SST2) if passes else record["bs"] * record.get("sentences_per_row", 1)
    return [1000 * sentences * len(t) / sum(t) for t in passes or record["times_ms"]]


def padding_fields(total: int, leaf: Path, record: dict, summary: dict) -> dict:
    """padded_rows, the share of rows that hold no sentence when `total` sentences fill batches; of packed rows also
    sentences_per_row, over all rows that run."""
    from tools.ascend.summary import batches_run

    shape, bs = parameters.seq_values(record["seq"]), record["bs"]
    if shape["SEQ"] == "real":
        return {"padded_rows": 0.0}
    rows = len(cli.read_json(input_of(leaf) / "rows.json")) if shape["PACK"] else total
    slots = bs * (len(summary["filesinfo"]) if "-" in record["seq"] else batches_run(rows, bs, summary))
    per_row = {"sentences_per_row": round(total / slots, 6)} if shape["PACK"] else {}
    return {"padded_rows": round(1 - rows / slots, 6), **per_row}


def tool_fields(leaf: Path, summary: dict) -> dict:
    """Which tool ran the model: {engine_info, standin}, and `demonstration` where it was a stand-in."""
    info, standin = summary.get("engine"), bool(summary.get("standin"))
    if (leaf / "model.om").is_file():
        from tools.ascend import om

        facts = om.read_om(leaf / "model.om")
        keys = ("atc_version", "opp_version", "soc_version", "atc_cmdline")
        info = {"name": "ais_bench", **{k: facts.get(k) for k in keys}, **(summary.get("card") or {})}
        standin = standin or facts.get("atc_version") == "STAND-IN"
    elif "tensorrt" in summary:
        info = {"name": "trtexec", "version": summary["tensorrt"], "args": summary.get("args")}
    return {"engine_info": info, "standin": standin, **({"demonstration": DEMONSTRATION} if standin else {})}


def speed_fields(rounds: list[dict], per_row: float) -> dict:
    """Throughput by round, their median and spread, and latency percentiles over all requests. per_row: sentences in a row."""
    import numpy as np

    speed = [r["throughput"] * per_row for r in rounds]
    pooled = np.concatenate([r["times_ms"] for r in rounds])
    many = len(pooled) >= figures.REQUESTS
    percentiles = {f"p{q}": round(float(np.percentile(pooled, q)), 4) if many else None for q in (50, 90, 95, 99)}
    return {
        "samples_per_second": round(float(np.median(speed)), 3),
        "rounds": [round(v, 3) for v in speed],
        "spread": round((max(speed) - min(speed)) / float(np.median(speed)), 4),
        "latency_ms": {"mean": round(float(pooled.mean()), 4), **percentiles},
        "requests": len(pooled),
        "times_ms": [[round(v, 4) for v in r["times_ms"]] for r in rounds],
    }


def turn_fields(summaries: list[dict], per_row: float) -> dict:
    """The turns of engine and yardstick, and their figures; {} where they took none."""
    if not all(s.get("pairs") for s in summaries):
        return {}
    rounds = lambda name: [[[float(f"{v:.7g}") for v in turn] for turn in s[name]] for s in summaries]
    pairs, singles, first = rounds("pairs"), rounds("singles"), summaries[0]
    values = figures.from_turns(sum(pairs, []), sum(singles, []), first["engine"]["threads"], per_row)
    fields = {k: first[k] for k in ("yardstick", "loop")} | {"figures": values, "pairs": pairs, "singles": singles}
    if all("joules" in s for s in summaries):
        samples = per_row * sum(turn[0] for turn in sum(pairs, []))
        fields["joules_per_sample"] = float(f"{sum(s['joules'] for s in summaries) / samples:.4g}")
    return fields


def missing_reasons(record: dict) -> dict:
    """{field: reason} of each field that a throughput record leaves empty."""
    values, few = record.get("figures"), f"fewer than {figures.LEAST} turns"
    busy = f"the machine was busy: {few} in which the yardstick had its processors"
    why = {k: busy if k == "per_tera_quiet" else few for k, v in (values or {}).items() if v is None}
    if "energy" in record["machine"] and record["chip"] == "cpu" and "joules_per_sample" not in record:
        counter = record["machine"]["energy"]
        why["joules_per_sample"] = "its turns were not read by the counter" if counter == cpu.RAPL_NAME else counter
    if not values:
        why["figures"] = "no turns with a yardstick: CHIP=cpu alone takes them"
    return why | without_none(latency_ms=no_percentiles(record))


def no_percentiles(record: dict) -> str | None:
    """Why a record has no percentiles of its latency, in words; None where its requests are enough for them."""
    if (requests := record["requests"]) is None or requests >= figures.REQUESTS:
        return None
    return f"{requests} requests: percentiles need {figures.REQUESTS}"


def workload(seq: str) -> str:
    """What the timed requests held, in words."""
    kinds = {"real": "at their own lengths", "-": "in length buckets", "p": "in packed rows, filler not counted"}
    return next((f"the sentences {words}" for mark, words in kinds.items() if mark in seq), "zeros as input")


def throughput_record(leaf: Path) -> dict:
    """The record of the timed rounds leaf/round1, round2 ...: all samples, pooled and by round. A round of other files or
    another command or CPU than round1 is left over from an earlier make. Raises UserError where none was timed."""
    from tools.ascend import summary

    if not (first := leaf / "round1/MANIFEST").is_file():
        raise cli.UserError(f"{first}: gone; run make perf")
    how = lambda p: [(v := cli.read_json(f"{p}{PROV}"))["inputs"], v["recipe"], v["run"].get("machine", {}).get("cpu")]
    manifests = [path for path in sorted(leaf.glob("round*/MANIFEST")) if how(path) == how(first)]
    record, sentences = common_fields(leaf, "throughput", manifests[0], manifests), sentences_of(leaf)
    paths = [m.with_name("out_summary.json") for m in manifests]
    summaries = [cli.read_json(path) for path in paths]
    if "tensorrt" in summaries[0]:
        rounds = [s | {"times_ms": s["gpu_compute_time_list"]} for s in summaries]
    else:
        rounds = [summary.read_summary(path) for path in paths]
    timed = rounds[0]["timed"] if record["chip"] != "cpu" else "the engine's call alone"
    stolen = [s.get("stolen") for s in summaries]
    padding = padding_fields(sentences or SST2, leaf, record, summaries[0])
    per_row, real = padding.get("sentences_per_row", 1), parameters.seq_values(record["seq"])["SEQ"] == "real"
    record |= {
        **tool_fields(leaf, summaries[0]),
        "timed": f"{timed}; {workload(record['seq'])}",
        **speed_fields(rounds, per_row),
        **without_none(sentences=sentences, stolen=None if None in stolen else stolen),
        **without_none(pass_ms=[s["pass_ms"] for s in summaries] if real else None),
        **padding,
        **summary.speeds_of_cards(summaries, per_row),
        **turn_fields(summaries, per_row),
        "summaries": {str(path): cli.sha256(path) for path in paths},
    }
    return record | {"missing": missing_reasons(record)}


def chain_fault(links: dict) -> str | None:
    """What is wrong with the first file of a record's chain, upstream first, that changed since; None where none did."""
    order = TopologicalSorter({path: sorted(link.get("inputs", {})) for path, link in links.items()}).static_order()
    for path in (p for p in order if p in links):
        if not Path(path).is_file():
            return f"{path} is gone"
        if cli.sha256(path) != links[path]["sha256"]:
            return f"{path} is no longer what it was made from"
        if fetch.pinned_otherwise(path, links[path]["sha256"]):
            return f"{path} is not the file that data/pins.txt names"
        if Path(path).name == "MANIFEST" and (fault := next(manifest.faults(Path(path)), None)):
            return fault
    return None


def name_of(record: dict) -> str:
    """The name that `promote` gives a record's file."""
    day = (record["started"] or record["imported"]["sha256"][:12]).replace(":", "").replace("-", "")[:15]
    spec = "-".join(str(record[k]) for k in parameters.NAMES)
    return f"{day}-{record['machine']['host']}-{spec}{parameters.suffix(record)}-{record['kind']}.json"


def promote(folder: Path, record: dict, path: Path) -> Path:
    """Write a record into `folder` under its own name. Raises UserError where another of that name stands, what it was made
    from has changed since, or it does not follow from the files beside it."""
    if record["standin"]:
        raise cli.UserError(f"{path}: made with the tests' stand-in tools; such a record is never promoted")
    if why := chain_fault(record["chain"]):
        raise cli.UserError(f"{path}: {why}; run make {path.stem} again")
    if path.stem not in MAKERS and not record.get("imported"):
        raise cli.UserError(f"{path}: not accuracy.json or perf.json in its folder; name the file that make wrote")
    if not record.get("imported") and (apart := first_difference(record, MAKERS[path.stem](path.parent))):
        raise cli.UserError(f"{path}: not what the files beside it give: {apart}; run make {path.stem} again")
    return keep_record(folder / name_of(record), record)


def promote_all(folder: Path, paths: list[Path]) -> None:
    """Promote each record. A refused one does not stop the others: UserError comes at the end."""
    if not paths:
        raise cli.UserError("nothing measured for these parameters yet; run make accuracy or make perf first")
    errors = []
    for path in paths:
        try:
            print(f"wrote {promote(folder, read_record(path), path)}")
        except cli.UserError as e:
            errors.append(e)
    for error in errors[:-1]:
        print(f"refused {error}", file=sys.stderr)
    if errors:
        raise cli.UserError(f"{len(errors)} of {len(paths)} records refused: {errors[-1]}")


MAKERS = {"accuracy": accuracy_record, "perf": throughput_record}


def first_difference(one: dict, other: dict) -> str | None:
    """The first field but `machine` in which two records differ, with both values; None where they are the same."""
    for key in (k for k in dict.fromkeys([*one, *other]) if k != "machine"):
        if one.get(key) != other.get(key):
            return f"{key} {str(one.get(key))[:60]} against {str(other.get(key))[:60]}"
    return None


def current_names(record: dict) -> dict:
    """{engine, precision} of a record by their names of today. Until November 2026 `native` was `packed`, and int8-bf16 was
    int8 on a CPU with bf16 units."""
    engine, precision = {"packed": "native"}.get(record["engine"], record["engine"]), record["precision"]
    family = (record.get("engine_info") or {}).get("family") or ""
    narrow = precision == "int8" and (record["engine"] == "packed" or family.endswith("_bf16") or family == "amx")
    return {"engine": engine, "precision": "int8-bf16" if narrow else precision}


def make_words(record: dict) -> list[str]:
    """make's parameters for the configuration of a record."""
    values = parameters.of_record(record | current_names(record))
    if values["WEIGHTS"] not in ("default", "seeded"):
        values["WEIGHTS"] = record.get("source") or values["WEIGHTS"]
    if record.get("devices", 1) > 1:
        values["DEVICE"] = ",".join(record.get("per_device") or map(str, range(record["devices"])))
    one_length = not values["PACK"] and values["SEQ"].isdecimal()
    if record["kind"] == "throughput" and record["chip"] == "cpu" and one_length:  # timed as long as then
        loop = record.get("loop") or len(record["times_ms"][0])
        values["SAMPLES"] = str(min(999, max(1, (loop - 4) * record["bs"])))
    for name, tsv in (("DATA", "dev"), ("TRAIN", "train")):  # texts of one's own
        commands = record["chain"].get(f"build/data/{record['model']}/{tsv}.tsv", {}).get("commands") or [[]]
        if "take" in commands[0][:-1]:
            values[name] = commands[0][commands[0].index("take") + 1]
    return [f"{name}={value}" for name, value in values.items()]


def main():
    p = cli.parser(__doc__)
    sub = p.add_subparsers(dest="command", required=True)
    for kind in MAKERS:
        k = sub.add_parser(kind)
        k.add_argument("leaf", type=Path)
        k.add_argument("--save_path", type=Path, required=True)
    k = sub.add_parser("promote")
    k.add_argument("folder", type=Path)
    k.add_argument("records", type=Path, nargs="*")
    args = p.parse_args()
    if args.command == "promote":
        return promote_all(args.folder, args.records)
    cli.write(args.save_path, text_of(MAKERS[args.command](args.leaf)))
    return print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
