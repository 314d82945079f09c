"""Make again what committed records claim, in a clean copy of this tree, and give each a verdict.

    python -m tools.checks.verify results/records [--only MODEL=minilm_sst2 BS=8 ...] [--make VENV=...]

    | record                                 | kind     | verdict | bytes          | result               |
    |:---------------------------------------|:---------|:--------|:---------------|:---------------------|
    | tiny default 64 8 cpu onnxruntime fp32 | accuracy | holds   | 11 of 11 equal | 426/872, as recorded |
    verify: 1 records: 1 holds

bytes       The sha256 of each artefact in the record's chain is compared with that of the one made now, and the first that
            differs is named. For a record of another CPU this ends at the compiled model: other units round otherwise.
result      Accuracy: if docs/bits.md defines the bits of the logits, these must be the same on any CPU; otherwise the same
            sentences must be right, or those that flipped are named. Throughput: the ratio of per_tera
            (tools/results/figures.py) now to per_tera in the record, with its 95 % interval. It differs if the whole interval
            lies outside BAND, and holds if the interval is narrow enough to show a loss of LOST. It also differs if the
            engine idles more than it did: the ratio by the clock is outside BAND and that of at_work outside IDLE. One round
            is timed, then another, until it holds, ROUNDS in all.
verdict     docs/checks.md explains the words.
"""

import math
import re
import shutil
from collections import Counter
from datetime import date
from graphlib import TopologicalSorter
from pathlib import Path

from tools.checks import reproduce
from tools.make import cli, cpu, parameters
from tools.results import compare, figures
from tools.results import record as records_of

BAND = (0.92, 1.09)  # ratios to the recorded figure that the same machine gave in another hour, or beside other work
IDLE = (0.96, 1.04)  # allowed ratios to the recorded share of the processors at work
LOST = 0.85  # a ratio that never counts as the same
ROUNDS = 6
NARROW = ("bf16", "int8", "int8-bf16")
LIBRARIES, KEPT_LOGITS = "build/lib/", "reference.npy"
LACKING = re.compile(r"this CPU has no |_ISA=\S+ leaves no |gcc cannot compile here")  # as tools/cpu says it
HOME = Path("build/verify")


def artefacts(record: dict, here: bool) -> dict[str, str]:
    """{target: sha256} of what the commands in a record's chain made, inputs first, under the names of today.

    Left out are C libraries, whose bytes depend on the compiler (outputs show what they compute), and outputs of a measured
    plan, which cuts other requests each time and so moves the last digits of logits. here: whether the record is of this CPU;
    if not, what an engine computed is left out, too, since other units add up in another order.
    """
    chain, made = record["chain"], {}
    leaf, now = (f"build/{records_of.leaf_of(r)}/" for r in (record, record | records_of.current_names(record)))
    for target in TopologicalSorter({t: sorted(link.get("inputs", {})) for t, link in chain.items()}).static_order():
        ran = chain.get(target, {}).get("commands", [])
        name = Path(target).name
        computed = name == KEPT_LOGITS or target.startswith(leaf) and not name.startswith("model.")
        unlike = target.startswith(LIBRARIES) or any("measured" in words for words in ran) or computed > here
        if ran and not unlike:
            made[name_today(target.replace(leaf, now))] = chain[target]["sha256"]
    return made


def name_today(target: str) -> str:
    """The name that an artefact of an older record has today."""
    if Path(target).name == KEPT_LOGITS:
        return "/".join([*Path(target).parts[:3], KEPT_LOGITS])  # it lay one folder deeper
    return target.replace("cpu-packed-", "cpu-native-").replace("model.packed", "model.native")


def bytes_verdict(old: dict, new: dict) -> tuple[bool, str]:
    """Compare the chains of two records: (whether they agree, words)."""
    here = old["machine"]["cpu"] == new["machine"]["cpu"]
    was, now = artefacts(old, here), artefacts(new, here)
    unlike = [t for t in was if now.get(t) != was[t]]
    if not unlike:
        return True, f"{len(was)} of {len(was)} equal"
    sources = [n for n, link in old["chain"].items() if "commands" not in link and new["chain"].get(n) != link]
    why = f"; {len(sources)} inputs differ: {', '.join(sources[:3])}" if sources else "; from the same inputs"
    return False, f"{len(was) - len(unlike)} of {len(was)} equal, first other: {unlike[0]}{why}"


def result_text(record: dict) -> str:
    """The result of an accuracy record in words: `791/872`, or the metrics of a task that has scores."""
    if record["correct"] is not None:
        return f"{record['correct']}/{record['total']}"
    return " ".join(f"{name} {m['value']}" for name, m in record["metrics"].items())


def accuracy_verdict(old: dict, new: dict) -> tuple[str, str]:
    """Compare two accuracy records: (verdict, words). If both have a hash of the logits, these must be the same on any CPU.
    Otherwise predictions are compared; in precisions below fp32 they may differ on another CPU."""
    flips = compare.flips(old, new)
    lines = ", ".join(f"dev.tsv:{i + 2}" for i in flips[:8]) + (" ..." if flips[8:] else "")
    same = not flips and result_text(old) == result_text(new)
    was_other = f"recorded {result_text(old)}; {len(flips)} flips: {lines}"
    words = f"{result_text(new)}, {'as recorded' if same else was_other}"
    was, now = (r.get("logits_sha256") for r in (old, new))
    if was and now:
        return ("holds", f"{words}, bit for bit") if was == now else ("FAILED", f"{words}; logits of other bits")
    cpus = [r["machine"]["cpu"] for r in (old, new)]
    if not same and cpus[0] != cpus[1] and old["precision"] in NARROW:
        return "another CPU", f"recorded on cpu {cpus[0]}, here {cpus[1]}; {words}"
    return ("holds" if same else "FAILED"), words


def other_machine(old: dict, new: dict) -> str | None:
    """Why two throughputs are not comparable, being of different machines, engines or yardsticks; None if they are."""
    for key in ("cpu", "cores"):
        if old["machine"][key] != new["machine"][key]:
            return f"recorded on {key} {old['machine'][key]}, here {new['machine'][key]}"
    a, b = old["engine_info"] or {}, new["engine_info"] or {}
    for key in ("version", "threads", "isa"):  # the first records say no isa
        if key in a and key in b and a[key] != b[key]:
            return f"recorded with engine {key} {a.get(key)}, here {b.get(key)}"
    both = {r["yardstick"] for r in (old, new) if r.get("yardstick")}
    return f"held to another yardstick, {' and '.join(sorted(both))}" if len(both) > 1 else None


def ratio_of(old: dict, new: dict) -> tuple[float, float, float]:
    """The ratio new / old of two figures with its 95 % interval: the squares of their relative errors add up."""
    ratio = new["value"] / old["value"]
    error = math.hypot(*((f["high"] - f["low"]) / 2 / f["value"] for f in (old, new)))
    return ratio, ratio * math.exp(-error), ratio * math.exp(error)


def outside(ratio: tuple[float, float, float], band: tuple[float, float]) -> bool:
    """Whether the whole interval of a ratio lies outside a band."""
    _, low, high = ratio
    return high < band[0] or low > band[1]


def is_same(ratio: tuple[float, float, float]) -> bool | None:
    """Whether a ratio with its interval shows that two figures are the same; None if it shows neither."""
    _, low, high = ratio
    if outside(ratio, BAND):
        return False
    return True if low > LOST and high < 1 / LOST else None


def ratios_of(old: dict, new: dict) -> dict[str, tuple]:
    """{figure: (ratio, low, high)} of the figures that two throughputs both have, whose engines took turns."""
    known = lambda r: {
        "per_tera": r["figures"]["per_tera"],
        "at_work": figures.at_work(sum(r["pairs"], []), r["engine_info"]["threads"]),
        "by the clock": r["figures"]["per_tera_quiet"],
    }
    a, b = known(old), known(new)
    return {name: ratio_of(a[name], b[name]) for name in a if a[name] and b[name]}


def perf_verdict(old: dict, new: dict) -> tuple[str, str]:
    """Compare two throughputs: (verdict, words)."""
    said = f"{new['samples_per_second']:.3g}/s, recorded {old['samples_per_second']:.3g}"
    if why := other_machine(old, new):
        measured = [("recorded", old.get("figures")), ("here", new.get("figures"))]
        side = [f"{when} {figures.in_digits(f['per_tera']['value'])}" for when, f in measured if f and f["per_tera"]]
        return "another CPU", "; ".join([why, *side, said]) + f" ({figures.NAMES['per_tera']})" * bool(side)
    if not old.get("figures"):
        return "bytes hold", f"{said}; recorded without turns, by the clock alone"
    ratios = ratios_of(old, new)
    if "per_tera" not in ratios:
        return "bytes hold", f"too few turns; {said}"
    words = ", ".join(f"{n} x {r:.3f} ({low:.3f} to {high:.3f})" for n, (r, low, high) in ratios.items())
    clock, at_work, holds = ratios.get("by the clock"), ratios.get("at_work"), is_same(ratios["per_tera"])
    if not (clock and at_work):
        words += "; no quiet turns, so that time asleep would not show"
    elif outside(clock, BAND) and outside(at_work, IDLE):
        holds = False
    verdict = {True: "holds", False: "differs", None: "bytes hold"}[holds]
    return verdict, f"{words}; {said}"


def judge(old: dict, new: dict) -> dict:
    """The verdict on one record, given what was made now."""
    same_bytes, in_bytes = bytes_verdict(old, new)
    verdict, result = (accuracy_verdict if old["kind"] == "accuracy" else perf_verdict)(old, new)
    return {"verdict": verdict if same_bytes else "FAILED", "bytes": in_bytes, "result": result}


def verify(path: Path, tree: Path, extra: list[str]) -> dict:
    """Make again inside `tree` what one record claims, and return its row of the table."""
    old = records_of.read_record(path)
    kind = "accuracy" if old["kind"] == "accuracy" else "perf"
    cell = {"record": " ".join(str(old[n]) for n in parameters.NAMES), "kind": kind, "verdict": None, "bytes": "-"}
    if log := old.get("imported"):
        return cell | {"verdict": "imported", "result": f"measured elsewhere: {log['file']}"}
    if gone := parameters.gone(old):
        return cell | {"verdict": "older", "result": f"this version has no {' and no '.join(gone)}"}
    made = tree / "build" / records_of.leaf_of(old | records_of.current_names(old)) / f"{kind}.json"
    here = old["machine"]["cpu"] == cpu.machine()["cpu"]
    for count in range(1, ROUNDS + 1):
        rounds = [f"ROUNDS={count}"] if kind == "perf" else []
        missing = here or kind == "accuracy" or not made.exists()  # another CPU's speed, never judged, is timed once
        if missing and (error := reproduce.make(tree, [kind, *records_of.make_words(old), *rounds, *extra])):
            verdict = "not on this CPU" if LACKING.search(error) else "FAILED"
            return cell | {"verdict": verdict, "result": f"not rebuilt: {error}"}
        judged = judge(old, records_of.read_record(made))
        if not rounds or judged["verdict"] not in ("bytes hold", "differs") or not old.get("figures"):
            break
    return cell | judged


def choose(paths: list[Path], only: list[str]) -> list[Path]:
    """The newest record of each configuration and machine that agrees with every NAME=value in `only`, those of this CPU
    first."""
    newest, ours = {}, cpu.machine()["cpu"]
    for path, r in records_of.load_records(paths).items():
        if parameters.agrees(r, only):
            of = records_of.own_texts(r), *(str(r.get(n)) for n in parameters.FIELDS)
            newest[(r["kind"], r["machine"]["cpu"], *of)] = path
    return [path for (_, machine, *_), path in sorted(newest.items(), key=lambda item: item[0][1] != ours)]


def main():
    p = cli.parser(__doc__)
    p.add_argument("records", type=Path, nargs="*", help="or their folder")
    p.add_argument("--only", nargs="*", default=[], metavar="NAME=value", help="only records with these parameters")
    p.add_argument("--make", nargs="*", default=[], metavar="NAME=value", help="further parameters for make")
    p.add_argument("--save_path", type=Path, help="also write it there")
    args = p.parse_args()
    import pandas as pd

    from tools.results import table

    paths = choose(args.records, args.only)
    if not paths:
        raise cli.UserError("results/records: no record with these parameters; `make record` keeps what was measured")
    tree = reproduce.clean_copy(HOME)
    lines = []
    for path in paths:
        lines.append(verify(path, tree, args.make))
        print(f"{len(lines)} of {len(paths)}: {lines[-1]['record']}: {lines[-1]['verdict']}", flush=True)
    result = pd.DataFrame(lines)
    text = table.render(result, ".md")
    print(text, end="")
    counts = Counter(result["verdict"])
    words = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    if args.save_path:
        heading = f"{len(result)} records made again on {cpu.machine()['cpu']}, {date.today()}: {words}."
        cli.write(args.save_path, f"{heading}\n\n{text}")
        print(f"wrote {args.save_path}")
    if wrong := counts["FAILED"] + counts["differs"]:
        raise cli.UserError(f"{wrong} of {len(result)} records do not hold ({words}); what was made now is in {HOME}")
    shutil.rmtree(HOME)
    print(f"verify: {len(result)} records: {words}")


if __name__ == "__main__":
    cli.run(main)
