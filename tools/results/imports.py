"""A record of a summary or log that ais_bench or trtexec left elsewhere, held to what is claimed of it.

    python3 -m tools.results.imports bs16_summary.json minilm_sst2/default/seq128/bs8/310P3-atc-fp16 \\
        --given CHIP --save_path results/records

    wrote results/records/e867fa548ca4-imported-minilm_sst2-default-128-16-310P3-atc-fp16-throughput.json
    BS=16 ENGINE=atc (as the log says)
    MODEL=minilm_sst2 SEQ=128 PRECISION=fp16 (by default: the log does not say)

The path states parameters, as a path under build/ does. --given names those that the user typed: a log that says another
value of one is refused. The others are taken from the log, as far as its arguments, its model's name and its arithmetic say
them. `make record FROM=` runs this; the record says that it is imported, and has no chain. A log of anything but a plain run
(with a profiler, pauses, several streams, or no warm-up) is refused. A log and the summary of one run are one record. A
folder of outputs is an accuracy, scored against SST-2's labels.
"""

import json
import re
import tempfile
from pathlib import Path

from tools.ascend import ais_bench, summary
from tools.base import logs, output_files
from tools.make import cli, manifest, parameters
from tools.results import record as records

NAMES = parameters.OF_LOG
SOCS = r"310P[1-7]|310B[1-4]|910(?:Pro[AB]|PremiumA|_\d{4}|B[1-4](?:-1|C)?|[AB])|310"
Clues = list[tuple[str, str, str]]  # parameter, its value, where the log says so
TRUE = ("yes", "true", "t", "y", "1")
# Options of trtexec that change what is timed, unless they have this value.
OTHERWISE = {"streams": "1", "infStreams": "1", "sleepTime": "0", "idleTime": "0", "sparsity": "disable", "dumpProfile": None,
             "exportProfile": None, "useDLACore": None, "useManagedMemory": None, "exposeDMA": None,
             "allowWeightStreaming": None}  # fmt: skip


def of_model_name(name: str, where: str) -> Clues:
    """What a model's path says: all, where it is one of ours, else what bs8, seq128 and 310P3 in its name say."""
    name = name[-logs.LONGEST :]
    if ours := parameters.of_path(Path(name).parent.as_posix()):
        return [(key, ours[key.lower()], f"its model's path {name}") for key in NAMES]
    edge = r"(?:^|[^A-Za-z0-9])", r"(?![A-Za-z0-9])"
    patterns = {"BS": r"bs_?(\d+)", "SEQ": r"seq_?(\d+)", "CHIP": rf"(?:Ascend_?)?({SOCS})"}
    matches = {key: re.search(pattern.join(edge), Path(name).name, re.I) for key, pattern in patterns.items()}
    return [(key, m[1].replace("-", "_"), where) for key, m in matches.items() if m]


def of_shapes(text: str | None, split: str, where: str) -> Clues:
    """Batch size and length in "ids:8,64;mask:8,64", or as trtexec writes it, "ids:8x64,mask:8x64"."""
    dims = {tuple(re.split("[x,]", one)) for one in re.findall(rf":(\d+(?:{split}\d+)+)", text or "")}
    return [(key, d[i], where) for d in dims for i, key in enumerate(("BS", "SEQ"))]


def refuse_others(path: Path, others: list[str]) -> None:
    """UserError where a run was timed with other options than a plain run has."""
    if others:
        raise cli.UserError(f"{path}: timed with {others[0]}: no figure to stand beside others; time it without")


def options_of(run: dict):
    """The options of ais_bench in a summary or screen."""
    return ais_bench.parse_options([str(word) for word in run["args"]] if isinstance(run["args"], list) else [])


def of_ais_bench(path: Path, run: dict) -> Clues:
    """What a summary or screen of ais_bench says. Raises UserError where it did not time a plain run."""
    options, switches = options_of(run), ("profiler", "dump", "dump_npy", "pipeline")
    others = ["no warm-up"] * (options.warmup_count == "0")
    others += [f"--threads {options.threads}"] * ((options.threads or "1") != "1")
    others += [f"--{name}" for name in switches if str(getattr(options, name)).lower() in TRUE]
    others += [f"--{name}" for name in ("acl_json_path", "dymShape_range", "backend") if getattr(options, name)]
    refuse_others(path, others)
    npu = run["card"].get("npu", "910").replace("-", "_")  # of A3 npu-smi says no more than 910
    batches = ((options.batchsize, "its --batchsize"), (options.dymBatch, "its --dymBatch"))
    return [
        *(("BS", value, where) for value, where in batches if value),
        *of_model_name(options.model or "", "its model's name"),
        *of_shapes(options.dymDims, ",", "its --dymDims"),
        *of_shapes(options.dymShape, ",", "its --dymShape"),
        ("BS", f"{run['batchsize']:g}", "its throughput"),
        *([("CHIP", npu, "npu-smi there")] if npu != "910" else []),
        ("ENGINE", "atc", "ais_bench, which runs .om files"),
    ]


def of_trtexec(path: Path, text: str, version: str) -> Clues:
    """What a log of trtexec says. Raises UserError where it did not time a plain run."""
    from tools.gpu import trtexec

    args = trtexec.options(text)
    few = trtexec.number(args, "duration") < 1 and trtexec.number(args, "iterations") < 10
    others = [name for name, usual in OTHERWISE.items() if args.get(name, usual) != usual]
    others += ["warmUp"] * (trtexec.number(args, "warmUp") <= 0) + ["duration"] * few
    refuse_others(path, [f"--{name}={args[name]}".rstrip("=") for name in others])
    bindings = re.findall(r"nput binding for \S+ with dimensions (\d+(?:x\d+)+)", text)
    inferred = " ".join(re.findall(r"Input inference shape ?(:? \S+)", text)).replace("=", ":")
    kinds = [kind for kind in ("int8", "fp8", "bf16", "fp16", "best") if kind in args]
    typed = "stronglyTyped" in args or int(version.split(".")[0]) >= 11 or "onnx" not in args
    plain = [] if kinds or typed else [("PRECISION", "fp32", "no --fp16 in its command")]
    devices = re.findall(r"Selected Device: (.*\S)", text)
    return [
        *of_shapes(args.get("shapes") or args.get("optShapes"), "x", "its --shapes"),
        *of_shapes(inferred, "x", "its shapes"),
        *of_shapes("".join(f":{dims}" for dims in bindings), "x", "its input bindings"),
        *([("BS", args["batch"], "its --batch")] if "batch" in args else []),
        *of_model_name(args.get("onnx") or args.get("loadEngine") or "", "its model's name"),
        *([("PRECISION", "-".join(kinds), " ".join(f"its --{kind}" for kind in kinds))] if kinds else plain),
        *(("CHIP", "T4" if re.search(r"\bT4\b", device) else device, "its device") for device in devices),
        ("ENGINE", "trtexec", "its command"),
    ]


def settle(path: Path, spec: dict, given: set, clues: Clues) -> tuple[dict, dict]:
    """The parameters of a log's record, and the reason for each that the log does not say. Raises UserError where the log
    contradicts itself or what was given."""
    values, why, source = {}, {}, {}
    for key, value, where in clues:
        first = source.setdefault(key, where)
        if (other := values.setdefault(key, value)) != value:
            raise cli.UserError(f"{path}: {first} says {key}={other}, {where} says {key}={value}; which run is this?")
    for key in NAMES:
        claim = str(spec[key.lower()])
        if key in given and values.setdefault(key, claim) != claim:
            fault = f"{source[key]} says {key}={values[key]}, {key}={claim} was given"
            raise cli.UserError(f"{path}: {fault}; give what it was")
        if key not in values:
            values[key], why[key.lower()] = claim, "not in the log: the default"
    if "WEIGHTS" not in source:
        refuse_seeded(path, values["WEIGHTS"])
    for key, value in values.items():
        if not re.fullmatch({"BS": r"[1-9]\d{0,2}", "WEIGHTS": r"[\w.-]+"}.get(key, r"[\w-]+"), value):
            raise cli.UserError(f"{path}: {source.get(key, 'it')} says {key}={value!r:.40}, which no {key} is")
    return {key.lower(): value for key, value in values.items()} | {"bs": int(values["BS"])}, why


def read_ais_bench(path: Path, spec: dict, given: set) -> tuple[dict, dict, dict, dict]:
    """The log of ais_bench: its content, parameters, defaults, tool. Raises UserError where nobody says which NPU ran, and for
    a log of our CPU runner, which has the same form."""
    run = summary.read_summary(path)
    if run["engine"]:
        raise cli.UserError(f"{path}: of this project's runner on a CPU; run make record there, and bring that by git")
    clues, options = of_ais_bench(path, run), options_of(run)
    mixed = options.auto_set_dymdims_mode or options.auto_set_dymshape_mode
    if str(mixed).lower() in TRUE and "-" not in spec["seq"]:
        raise cli.UserError(f"{path}: timed over several lengths, which it does not name: give them, as SEQ=64,128")
    run["timed"] = ", ".join([run["timed"], *options.others])
    npu = spec["engine"] == "atc" and "CHIP" in given
    if not npu and ("CHIP" in given or "CHIP" not in {key for key, _, _ in clues}):
        fault = "a log of ais_bench, which runs on Ascend chips, does not say which"
        raise cli.UserError(f"{path}: {fault}: give CHIP=310P3, or what `npu-smi info` names")
    spec = spec if spec["engine"] == "atc" else spec | {"precision": "fp16"}
    return run, *settle(path, spec, given, clues), {"name": "ais_bench", "args": run["args"]} | run["card"]


def read_trtexec(path: Path, spec: dict, given: set) -> tuple[dict, dict, dict, dict]:
    """The same of a log of trtexec. Raises UserError for another chip than T4, or where nobody says what was run."""
    from tools.gpu import trtexec

    text = logs.bare_text(logs.decoded(cli.regular(path).read_bytes()))
    numbers = trtexec.verdict(text, str(path))
    version = ".".join(map(str, numbers))
    clues = of_trtexec(path, text, version)
    for key, example in (("BS", "BS=8"), ("CHIP", "CHIP=T4"), ("PRECISION", "PRECISION=fp32")):
        if key not in given | {name for name, _, _ in clues}:
            raise cli.UserError(f"{path}: the log does not say what {key} was: give it, as {example}")
    spec, why = settle(path, spec, given, clues)
    if spec["chip"] != "T4":
        raise cli.UserError(f"{path}: a trtexec log of {spec['chip']}; of GPUs this project knows CHIP=T4 alone")
    info = {"name": "trtexec", "version": version, "args": re.findall(r"&&&& RUNNING .*?# (.*)", text)[:1]}
    run = trtexec.summary(text, None, spec["bs"], str(path)) | {"timed": trtexec.timing(trtexec.options(text), numbers)}
    return run | {"devices": 1, "per_device": []}, spec, why, info


def refuse_seeded(path: Path, weights: str) -> None:
    """UserError for random weights, which a log is of only if its model's path says so."""
    if weights == parameters.SEEDED:
        raise cli.UserError(f"{path}: does not say that its weights were seeded; leave WEIGHTS=seeded out")


def refuse_packed(path: Path, seq: str) -> None:
    """UserError for packed rows, whose sentences a log does not count."""
    if parameters.seq_values(seq)["PACK"]:
        raise cli.UserError(f"{path}: a log counts packed rows, not their sentences; measure with make perf PACK=1")


def imported_fields(kind: str, path: Path, spec: dict, info: dict | None, standin: bool, missing: dict) -> dict:
    """What every record of a measurement made elsewhere says. path: the file or folder that came from there."""
    sha256 = manifest.of_folder(path) if path.is_dir() else cli.sha256(path)
    return {
        "kind": kind,
        **{name: spec[name] for name in map(str.lower, NAMES)},
        "imported": {"file": path.absolute().name, "sha256": sha256},
        "started": None,
        "machine": {"cpu": None, "isa": None, "cores": None, "host": "imported"},
        "engine_info": info,
        "standin": standin,
        "missing": {"chain": "measured elsewhere", **missing},
        "padded_rows": None,
        "chain": {},
    }


def accuracy_of_outputs(folder: Path, spec: dict, given: set) -> dict:
    """The accuracy of a folder of SST-2's outputs, one file a sentence, or as labels.json and rows.json beside it say. Raises
    UserError where nobody says which chip or batch size they are of, or they are not of 872 sentences."""
    if lacking := [key for key in ("CHIP", "BS") if key not in given]:
        raise cli.UserError(f"{folder}: outputs do not say what {lacking[0]} was: give it, as CHIP=310P3 BS=8")
    refuse_seeded(folder, spec["weights"])
    why = {key.lower(): "not in the outputs: the default" for key in NAMES if key not in given | {"ENGINE"}}
    with tempfile.TemporaryDirectory() as work:
        if not (labels := folder.parent / "labels.json").is_file():
            stems = {p.name.rsplit("_0.", 1)[0] for p in folder.glob("*_0.*")}
            order = sorted(stems, key=lambda stem: int("0" + "".join(filter(str.isdigit, stem))))
            labels = Path(work, "labels.json")
            truth = [*records.sst2_labels(), *[0] * len(order)]  # enough for more outputs, which are refused below
            labels.write_text(json.dumps(dict(zip(order, map(str, truth), strict=False))))
        score = output_files.score(folder, labels)
    if score["total"] != records.SST2:
        raise cli.UserError(f"{folder}: outputs of {score['total']} sentences, not of SST-2's {records.SST2}")
    return imported_fields("accuracy", folder, spec, None, False, why) | {
        "caveat": None,
        "predictions": score["predictions"],
        **records.proportion(sum(records.right_answers(score)), score["total"]),
    }


def import_record(path: Path, leaf: Path, given=NAMES, devices: str | None = None) -> dict:
    """The record of a summary or log from elsewhere, or of a folder of outputs: its figures, and no chain. leaf: the parameters
    as a path. given: the names of those that the log must agree with. devices: DEVICE=, if given. Raises UserError for what is
    no log, and for one that is not what is claimed of it."""
    spec, given = records.configuration(leaf), set(given)
    if path.is_dir():
        return accuracy_of_outputs(path, spec, given)
    refuse_packed(path, spec["seq"])
    text = logs.decoded(cli.regular(path, cli.LARGEST).read_bytes())
    if re.match(r'\s*{\s*"kind"\s*:', text):
        raise cli.UserError(f"{path}: a record of this project, no log; commit results/ there and merge it by git")
    read = read_trtexec if "TensorRT.trtexec" in text else read_ais_bench
    run, values, why, info = read(path, spec, given)
    refuse_packed(path, values["seq"])  # the log may be of a model of ours, whose path says so
    if devices and len(devices.split(",")) != run["devices"]:
        raise cli.UserError(f"{path}: holds {run['devices']} device(s), DEVICE={devices} was given; give the whole log")
    compute = run.get("compute") or run.get("GPU_compute_time") or {}
    times = run.get("times_ms") or run.get("gpu_compute_time_list")
    missing = {"spread": "one run"} | ({} if times else {"times_ms": "a log without single times"}) | why
    speed, latency = round(run["throughput"], 3), {"mean": "mean", "p50": "median", "p99": "percentile(99%)"}
    return imported_fields("throughput", path, spec | values, info, run["standin"], missing) | {
        "timed": run["timed"],
        "samples_per_second": speed,
        "rounds": [speed],
        "spread": None,
        "latency_ms": {name: compute.get(key) for name, key in latency.items()},
        "requests": len(times) if times else None,
        **summary.speeds_of_cards([run]),
    }


def record_of_same_run(folder: Path, record: dict) -> Path | None:
    """The record of the same run by another file: its summary, or its screen, which has no single times."""
    fields = ("kind", "model", "bs", "chip", "samples_per_second")
    run = lambda r: [*map(r.get, fields), r.get("latency_ms", {}).get("mean")]
    for path in sorted(folder.glob("*-imported-*-throughput.json")):
        other = records.read_record(path)
        one_of_each = None in (other["requests"], record["requests"])
        if run(other) == run(record) and other["imported"] != record["imported"] and one_of_each:
            return path
    return None


def main():
    p = cli.parser(__doc__)
    p.add_argument("file", type=Path, help="a summary or log of ais_bench or trtexec, or a folder of outputs")
    p.add_argument("leaf", type=Path, help="<model>/<weights>/seq<N>/bs<N>/<chip>-<engine>-<precision>")
    p.add_argument("--given", nargs="*", default=NAMES, help="parameters that the log must agree with (all)")
    p.add_argument("--devices", help="as DEVICE= of the Makefile: the log must be of as many")
    p.add_argument("--save_path", type=Path, required=True, help="folder of records")
    args = p.parse_args()
    record = import_record(args.file, args.leaf, args.given, args.devices)
    if other := record_of_same_run(args.save_path, record):
        return print(f"{other} is of this run already: nothing to write")
    print(f"wrote {records.promote(args.save_path, record, args.file)}")
    defaults = [name for name in NAMES if name.lower() in record["missing"]]
    from_log = [name for name in NAMES if name not in (*args.given, *defaults)]
    for names, where in ((from_log, "as the log says"), (defaults, "by default: the log does not say")):
        if names:
            print(" ".join(f"{name}={record[name.lower()]}" for name in names), f"({where})")
    return None


if __name__ == "__main__":
    cli.run(main)
