"""Make again what committed records claim, in a clean copy of this tree, and judge each.

    python -m tools.checks.verify results/records/*.json [--only MODEL=minilm_sst2 BS=8 ...] [--make VENV=...]

    | record                                 | kind     | verdict | bytes          | result               | published |
    |:---------------------------------------|:---------|:--------|:---------------|:---------------------|:----------|
    | tiny default 64 8 cpu onnxruntime fp32 | accuracy | holds   | 11 of 11 equal | 426/872, as recorded | -         |
    verify: 1 of 1 records hold, 0 of them in bytes alone (a speed that cannot be compared); 0 are imported

bytes       each artefact's sha256 in the record's chain against the one made now; the first that differs is named
result      accuracy: the same sentences right, or which flipped; throughput: within 10 % plus both measurements'
            spreads, or why it cannot be compared (another CPU, cores, engine version; rounds that differ by 10 %; a
            host that gave more than 5 % of the processors to others)
published   the distance to models/<model>/published.csv, which is information, not a verdict
"""

import argparse
import shutil
from graphlib import TopologicalSorter
from pathlib import Path

from tools import cli
from tools.checks import reproduce
from tools.results import compare, published
from tools.results import record as records_of

BAND = 0.10  # of the recorded throughput
HOME = Path("build/verify")


def bytes_verdict(old: dict, new: dict) -> tuple[bool, str]:
    """Compare two records' chains: (ok, words).

    Not of outputs by a measured plan: it cuts other requests each time, which moves a logit's last digits.
    """
    order = TopologicalSorter({t: sorted(link.get("inputs", {})) for t, link in old["chain"].items()}).static_order()
    commands = {t: old["chain"].get(t, {}).get("commands", []) for t in order}
    targets = [t for t, ran in commands.items() if ran and not any("measured" in words for words in ran)]
    unlike = [t for t in targets if new["chain"].get(t, {}).get("sha256") != old["chain"][t]["sha256"]]
    if not unlike:
        return True, f"{len(targets)} of {len(targets)} equal"
    sources = [n for n, link in old["chain"].items() if "commands" not in link and new["chain"].get(n) != link]
    why = f"; {len(sources)} inputs differ: {', '.join(sources[:3])}" if sources else "; from the same inputs"
    return False, f"{len(targets) - len(unlike)} of {len(targets)} equal, first other: {unlike[0]}{why}"


def accuracy_verdict(old: dict, new: dict) -> tuple[bool, str]:
    """Compare two accuracy records' predictions: (ok, words)."""
    flips = compare.flips(old, new)
    if not flips and old["correct"] == new["correct"]:
        return True, f"{new['correct']}/{new['total']}, as recorded"
    lines = ", ".join(f"dev.tsv:{i + 2}" for i in flips[:8]) + (" ..." if flips[8:] else "")
    return False, f"{new['correct']}/{new['total']}, recorded {old['correct']}; {len(flips)} flips: {lines}"


def incomparable(old: dict, new: dict) -> str | None:
    """Why two throughputs cannot be compared, if so."""
    for key in ("cpu", "cores"):
        if old["machine"][key] != new["machine"][key]:
            return f"recorded on {key} {old['machine'][key]}, here {new['machine'][key]}"
    a, b = old["engine_info"] or {}, new["engine_info"] or {}
    for key in ("version", "threads", "isa"):  # the first records say no isa
        if key in a and key in b and a[key] != b[key]:
            return f"recorded with engine {key} {a.get(key)}, here {b.get(key)}"
    return None


def perf_verdict(old: dict, new: dict) -> tuple[bool | None, str]:
    """Compare two throughputs: (ok, or None where that cannot be said, words)."""
    rate, band = new["samples_per_second"] / old["samples_per_second"] - 1, BAND + old["spread"] + new["spread"]
    figure = f"{new['samples_per_second']:.1f}/s, recorded {old['samples_per_second']:.1f} ({100 * rate:+.1f} %)"
    if why := incomparable(old, new):
        return None, f"{figure}; not comparable: {why}"
    for r, when in ((old, "recorded"), (new, "here")):
        if why := records_of.noise(r):
            return None, f"{figure}; not comparable: noisy, {when} {why}"
    ok = abs(rate) <= band
    return ok, f"{figure}, {'within' if ok else 'outside'} {100 * band:.0f} %"


def judge(old: dict, new: dict, rows: list[dict]) -> dict:
    """The verdict on one record, given what was made now."""
    same, in_bytes = bytes_verdict(old, new)
    ok, result = (accuracy_verdict if old["kind"] == "accuracy" else perf_verdict)(old, new)
    verdict = "FAILED" if ok is False or not same else "holds" if ok else "bytes hold"
    return {"verdict": verdict, "bytes": in_bytes, "result": result, "published": published.distance(new, rows) or "-"}


def verify(path: Path, tree: Path, extra: list[str], rows: list[dict]) -> dict:
    """Rebuild what one record claims inside `tree`; its line of the table."""
    old = records_of.read(path)
    if "imported" in old:
        cell = {"record": " ".join(str(old[n]) for n in records_of.NAMES), "kind": "perf", "verdict": "imported"}
        words = f"measured elsewhere: {old['imported']['file']}"
        return {**cell, "bytes": "-", "result": words, "published": published.distance(old, rows) or "-"}
    kind = "accuracy" if old["kind"] == "accuracy" else "perf"
    cell = {"record": " ".join(str(old[n]) for n in records_of.NAMES), "kind": kind}
    if error := reproduce.make(tree, [kind, *records_of.make_words(old), *extra]):
        return {**cell, "verdict": "FAILED", "bytes": "-", "result": f"not rebuilt: {error}", "published": "-"}
    leaf = f"build/{old['model']}/{old['weights']}/seq{old['seq']}/bs{old['bs']}/"
    leaf += f"{old['chip']}-{records_of.engine_today(old)}-{old['precision']}"
    return {**cell, **judge(old, cli.read_json(tree / leaf / f"{kind}.json"), rows)}


def chosen(paths: list[Path], only: list[str]) -> list[Path]:
    """The records that agree with every NAME=value in `only`, the newest of each configuration and machine."""
    wanted = dict(
        word.lower().split("=", 1) for word in only if word.split("=")[0].lower() in (*records_of.NAMES, "pack")
    )
    newest = {}
    for path in sorted(paths, key=lambda p: p.name):
        r = records_of.read(path)
        packed = r["seq"].endswith("p")
        own = {**r, "seq": r["seq"].removesuffix("p"), "pack": "1" if packed else ""}
        if all(str(own[name]).lower().replace("-", ",") == value.replace("-", ",") for name, value in wanted.items()):
            newest[(r["kind"], r["machine"]["cpu"], *(str(r[n]) for n in records_of.NAMES))] = path
    return list(newest.values())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("records", type=Path, nargs="*")
    p.add_argument("--only", nargs="*", default=[], metavar="NAME=value", help="only records with these parameters")
    p.add_argument("--make", nargs="*", default=[], metavar="NAME=value", help="further parameters for make")
    p.add_argument("--save_path", type=Path, help="also write the table there")
    args = p.parse_args()
    import pandas as pd

    from tools.results import table

    paths = chosen(args.records, args.only)
    if not paths:
        raise cli.UserError("results/records: no record with these parameters; `make record` keeps what was measured")
    tree, rows = reproduce.clean_copy(HOME), published.read()
    result = pd.DataFrame([verify(path, tree, args.make, rows) for path in paths])
    text = table.text(result, ".md")
    print(text, end="")
    if args.save_path:
        with cli.whole_file(args.save_path, "w") as f:
            f.write(text)
        print(f"wrote {args.save_path}")
    failed = int((result["verdict"] == "FAILED").sum())
    if failed:
        raise cli.UserError(f"{failed} of {len(result)} records do not hold; what was made now is in {HOME}")
    shutil.rmtree(HOME)
    held = int((result["verdict"] != "imported").sum())
    unsaid = int((result["verdict"] == "bytes hold").sum())
    print(
        f"verify: {held} of {len(result)} records hold, {unsaid} of them in bytes alone (a speed that cannot be "
        f"compared); {len(result) - held} are imported"
    )


if __name__ == "__main__":
    cli.run(main)
