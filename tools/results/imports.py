"""A record of a summary or log that ais_bench or trtexec left elsewhere, held to what is claimed of it.

    python3 -m tools.results.imports bs16_summary.json minilm_sst2/default/seq128/bs8/310P3-atc-fp16 \\
        --given CHIP --save_path results/records

    wrote results/records/e867fa548ca4-imported-minilm_sst2-default-128-16-310P3-atc-fp16-throughput.json
    BS=16 ENGINE=atc (as the log says)
    MODEL=minilm_sst2 SEQ=128 PRECISION=fp16 (by default: the log does not say)

The path claims parameters, as a path under build/ does. Those that --given names were asked for: the log has to agree
with each that it tells of, or one line says where it does not. The others are taken from the log. What a log may tell:
batch size, length, chip, engine, precision and the number of devices, by its arguments, the name of its model, its own
arithmetic. `make record FROM=` runs this; the record says that it is imported, and has no chain.
"""

import argparse
import re
from pathlib import Path

from tools.make import cli, parameters
from tools.results import record as records

SHOWN = parameters.OF_LOG
SOCS = r"310P[1-7]|310B[1-4]|910(?:Pro[AB]|PremiumA|_\d{4}|B[1-4]C?|[AB])|310"
NPU = (
    "a log of ais_bench, which runs on Ascend chips, does not say which: give CHIP=310P3, or what `npu-smi info` names"
)
KEYS = ("name", "precision")
Told = list[tuple[str, str, str]]  # parameter, its value, where the log tells it


def words_of(name: str, where: str) -> Told:
    """What a model's path tells: all, where it is one of ours, else what bs8, seq128 and 310P3 in its name say."""
    if ours := parameters.of_path(Path(name).parent.as_posix()):
        return [(key, ours[key.lower()], f"its model's path {name}") for key in SHOWN]
    edge = r"(?:^|[^A-Za-z0-9])", r"(?![A-Za-z0-9])"
    patterns = {"BS": r"bs_?(\d+)", "SEQ": r"seq_?(\d+)", "CHIP": rf"(?:Ascend_?)?({SOCS})"}
    found = {key: re.search(pattern.join(edge), Path(name).name, re.I) for key, pattern in patterns.items()}
    return [(key, m[1], where) for key, m in found.items() if m]


def option(args: list, *names: str) -> str | None:
    """The value of an option in an argument list, as `--x 1` or `--x=1`."""
    for i, word in enumerate(args):
        key, equals, value = str(word).partition("=")
        if key in names:
            return value if equals else str(args[i + 1]) if i + 1 < len(args) else None
    return None


def shapes(text: str, split: str, where: str) -> Told:
    """Batch size and length in "ids:8,64;mask:8,64", or as trtexec writes it, "ids:8x64,mask:8x64"."""
    dims = {tuple(re.split("[x,]", found)) for found in re.findall(rf":(\d+(?:{split}\d+)+)", text)}
    return [(key, d[i], where) for d in dims for i, key in enumerate(("BS", "SEQ"))]


def engine_of(found: dict) -> dict | None:
    """What our CPU runner says of its engine; None in ais_bench's own summaries.

    Raises UserError where that has no name and precision.
    """
    engine = found["engine"]
    if engine is not None and not (isinstance(engine, dict) and all(isinstance(engine.get(k), str) for k in KEYS)):
        raise cli.UserError(f"{found['source']}: engine: {engine!r:.40} has no name and precision; was it edited?")
    return engine


def told_by_ais_bench(found: dict) -> Told:
    args = found["args"] if isinstance(found["args"], list) else []
    told = [("BS", option(args, "--batchsize"), "its --batchsize")] if option(args, "--batchsize") else []
    told += words_of(option(args, "--model", "--om-model", "-m") or "", "its model's name")
    told += shapes(option(args, "--dymDims", "--dym-dims") or "", ",", "its --dymDims")
    told.append(("BS", f"{found['batchsize']:g}", "its throughput"))
    told.append(("DEVICE", str(found["devices"]), "its summaries of devices"))
    if engine := engine_of(found):
        told += [("CHIP", "cpu", "its engine"), ("ENGINE", engine["name"], "its engine")]
        told += [("PRECISION", engine["precision"], "its engine")]
    return told


def told_by_trtexec(text: str, version: str) -> Told:
    args = next(iter(re.findall(r"&&&& RUNNING TensorRT\.trtexec.*?# (.*)", text)), "").split()
    wide = option(args, "--shapes") or option(args, "--optShapes") or ""
    told = shapes(wide, "x", "its --shapes")
    told += shapes(" ".join(re.findall(r"Input inference shape ?(:? \S+)", text)).replace("=", ":"), "x", "its shapes")
    told += [("BS", option(args, "--batch"), "its --batch")] if option(args, "--batch") else []
    told += words_of(option(args, "--onnx") or option(args, "--loadEngine") or "", "its model's name")
    kinds = [kind for kind in ("fp16", "bf16", "int8", "best", "fp8") if f"--{kind}" in args]
    typed = "--stronglyTyped" in args or int(version.split(".")[0]) >= 11 or not option(args, "--onnx")
    told += [("PRECISION", kind, f"its --{kind}") for kind in kinds]
    told += [] if kinds or typed else [("PRECISION", "fp32", "no --fp16 in its command")]
    told += [("CHIP", device, "its device") for device in re.findall(r"Selected Device: (.*\S)", text)]
    return [*told, ("ENGINE", "trtexec", "its command"), ("DEVICE", "1", "its command")]


def agreed(path: Path, told: Told) -> dict:
    """{parameter: (value, where)} of what a log tells; UserError where it contradicts itself."""
    found: dict[str, tuple[str, str]] = {}
    for key, value, where in told:
        said, first = found.setdefault(key, (value, where))
        if said != value:
            raise cli.UserError(f"{path}: {first} says {key}={said}, {where} says {key}={value}; which run is this?")
    return found


def same(key: str, claimed: str, said: str) -> bool:
    """Whether a log's word fits the parameter. The name of a GPU's chip stands somewhere in its product's."""
    if key == "CHIP" and claimed == "T4":
        return re.search(r"\bT4\b", said) is not None
    return claimed == said


def settled(path: Path, spec: dict, given: set, told: Told, default: dict) -> tuple[dict, dict]:
    """The parameters of a log's record, and why each that nothing tells is what it is.

    default: the chip, engine and precision that a log of this tool has where nobody says. UserError where what was
    given differs from what the log tells.
    """
    found, why = agreed(path, told), {}
    known = {key: str(spec[key.lower()]) for key in SHOWN} | default
    for key in SHOWN:
        claimed = str(spec[key.lower()])
        if key in found and key in given and not same(key, claimed, found[key][0]):
            raise cli.UserError(
                f"{path}: {found[key][1]} says {key}={found[key][0]}, {key}={claimed} was given; give what it was"
            )
        if key in given:
            known[key] = claimed
        elif key in found:
            known[key] = "T4" if key == "CHIP" and re.search(r"\bT4\b", found[key][0]) else found[key][0]
        else:
            why[key.lower()] = "not in the log: the default"
    why.pop("engine", None)
    for key, value in known.items():
        if not re.fullmatch(r"[1-9]\d{0,2}" if key == "BS" else r"[\w-]+", value):
            raise cli.UserError(f"{path}: {found.get(key, ('', 'it'))[1]} says {key}={value!r:.40}, which no {key} is")
    return {key.lower(): value for key, value in known.items()} | {"bs": int(known["BS"])}, why


def devices_given(path: Path, asked: str | None, count: int) -> None:
    """UserError unless `asked`, a list as DEVICE=0,1 has it, is of `count` devices."""
    if asked and len(asked.split(",")) != count:
        raise cli.UserError(
            f"{path}: holds {count} device(s), DEVICE={asked} was given; give the whole log, or leave it"
        )


def of_ais_bench(path: Path, spec: dict, given: set) -> tuple[dict, dict, dict, dict]:
    """The log of ais_bench, or of our CPU runner, which leaves the same: its content, parameters, defaults, tool.

    Raises UserError for the log of an NPU booked as the CPU.
    """
    from tools.ascend import summary

    found = summary.read(path)
    told = told_by_ais_bench(found)
    named = {key for key, _, _ in told}
    if engine := engine_of(found):
        return found, *settled(path, spec, given, told, {}), engine
    npu = spec["engine"] == "atc" and "CHIP" in given
    if not npu and ("CHIP" in given or "CHIP" not in named):
        raise cli.UserError(f"{path}: {NPU}")
    told.append(("ENGINE", "atc", "ais_bench, which runs .om files"))
    default = {"PRECISION": spec["precision"] if spec["engine"] == "atc" else "fp16"}
    return found, *settled(path, spec, given, told, default), {"name": "ais_bench", "args": found["args"]}


def of_trtexec(path: Path, spec: dict, given: set) -> tuple[dict, dict, dict, dict]:
    """The log of trtexec: its content, parameters, defaults, tool.

    Raises UserError for another chip than T4, or where neither log nor parameters say what was run.
    """
    from tools.gpu import trtexec

    text = cli.regular(path).read_bytes().decode("utf-8", "replace")
    version = ".".join(map(str, trtexec.verdict(text, str(path))))
    told = told_by_trtexec(text, version)
    named = {key for key, _, _ in told}
    for key, example in (("BS", "BS=8"), ("CHIP", "CHIP=T4"), ("PRECISION", "PRECISION=fp32")):
        if key not in given | named:
            raise cli.UserError(f"{path}: the log does not say what {key} was: give it, as {example}")
    spec, why = settled(path, spec, given, told, {})
    if spec["chip"] != "T4":
        raise cli.UserError(
            f"{path}: a trtexec log of {spec['chip']}; this project knows CHIP=T4 alone of those it runs on"
        )
    found = trtexec.read(path, spec["bs"])
    info = {"name": "trtexec", "version": found["tensorrt"], "args": re.findall(r"&&&& RUNNING .*?# (.*)", text)[:1]}
    return found | {"devices": 1, "per_device": []}, spec, why, info


def plain_rows(path: Path, seq: str) -> None:
    """UserError for packed rows: of these a log does not say enough."""
    if parameters.rows_of(seq)["PACK"]:
        raise cli.UserError(f"{path}: a log counts packed rows, not their sentences; measure with make perf PACK=1")


def imported(path: Path, leaf: Path, given=SHOWN, devices: str | None = None) -> dict:
    """A throughput record of a summary or log from elsewhere: its own figures, no chain.

    leaf: the parameters as a path. given: the names of those that the log must agree with. devices: DEVICE=, if it was
    given. Raises cli.UserError in one line for what is no log, and for one that is not what is claimed of it.
    """
    spec, given = records.parameters(leaf), set(given)
    plain_rows(path, spec["seq"])
    text = cli.regular(path, cli.LARGEST).read_bytes()
    read = of_trtexec if b"TensorRT.trtexec" in text or b"gpu_compute_time_list" in text else of_ais_bench
    found, spec, why, info = read(path, spec, given)
    plain_rows(path, spec["seq"])  # the log may be of a model of ours, whose path says so
    devices_given(path, devices, found["devices"])
    from tools.ascend import summary

    compute = found.get("compute") or found.get("GPU_compute_time") or {}
    times = found.get("times_ms") or found.get("gpu_compute_time_list")
    nothing = {} if times else {"times_ms": "a log without single times"}
    return {
        "kind": "throughput",
        **records.parameters(leaf),
        **spec,
        "imported": {"file": path.name, "sha256": cli.sha256(path)},
        "started": None,
        "machine": {"cpu": None, "isa": None, "cores": None, "host": "imported"},
        "engine_info": info,
        "standin": bool(found.get("standin")),
        "timed": found["timed"],
        "samples_per_second": round(found["throughput"], 3),
        "rounds": [round(found["throughput"], 3)],
        "spread": None,
        "latency_ms": {
            "mean": compute.get("mean"),
            "p50": compute.get("median"),
            "p99": compute.get("percentile(99%)"),
        },
        "requests": len(times) if times else None,
        "missing": {"chain": "measured elsewhere", "spread": "one run", **nothing, **why},
        "padded_rows": None,
        **summary.cards([found]),
        "chain": {},
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="a summary or log of ais_bench or trtexec")
    p.add_argument("leaf", type=Path, help="<model>/<weights>/seq<N>/bs<N>/<chip>-<engine>-<precision>")
    p.add_argument("--given", nargs="*", default=SHOWN, help="parameters that the log must agree with (all)")
    p.add_argument("--devices", help="as DEVICE= of the Makefile: the log must be of as many")
    p.add_argument("--save_path", type=Path, required=True, help="folder of records")
    args = p.parse_args()
    made = imported(args.file, args.leaf, args.given, args.devices)
    print(f"wrote {records.promote(args.save_path, made, args.file)}")
    defaults = [name for name in SHOWN if name.lower() in made["missing"]]
    taken = [name for name in SHOWN if name not in (*args.given, *defaults)]
    for names, where in ((taken, "as the log says"), (defaults, "by default: the log does not say")):
        if names:
            print(" ".join(f"{name}={made[name.lower()]}" for name in names), f"({where})")


if __name__ == "__main__":
    cli.run(main)
