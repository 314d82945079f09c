"""Hash everything again, from the weights to a table's cell, and name the first link that does not hold.

    python -m tools.checks.audit

    audit: every link holds: 25 artefacts, 6 records, 2 tables

Checked, upstream first: each artefact that a TARGET.prov.json under build/ describes (its bytes, the members of its
MANIFEST, what it was made from), the outputs against score.json and accuracy.json, the timings against perf.json,
each committed record against itself and against outputs that are still here, each table against its records.
The fix is always the same: delete what is named, and make it again.
"""

import argparse
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

from tools import cli
from tools.results import record, table

# Made by make itself to remember a parameter: a cause, so nothing describes how it came about.
STAMPS = ("source", "given")
PROV = ".prov.json"
COPIES = ("verify", "reproduce")  # whole trees, which their own make describes


def provenance(build: Path) -> dict[str, dict]:
    """{target: its prov.json} of everything under `build`, each after what it was made from."""
    files = [p for p in build.rglob(f"*{PROV}") if p.parts[1] not in COPIES and not any(d[0] == "." for d in p.parts)]
    found = {str(p).removesuffix(PROV): cli.read_json(p) for p in sorted(files)}
    for target, prov in found.items():
        if not {"inputs", "sha256"} <= prov.keys():
            raise cli.UserError(f"{target}{PROV}: says no inputs or no sha256; delete {target} and make it again")
    order = TopologicalSorter({target: sorted(prov["inputs"]) for target, prov in found.items()})
    return {target: found[target] for target in order.static_order() if target in found}


def manifest_faults(manifest: Path, sha256) -> Iterator[str]:
    """What MANIFEST lists and the folder does not hold, or holds and MANIFEST does not list."""
    folder = manifest.parent
    listed = dict(reversed(line.split("  ", 1)) for line in manifest.read_text().splitlines())
    for name, sha in listed.items():
        if not (folder / name).is_file():
            yield f"{folder / name}: gone, though {manifest} lists it"
        elif sha256(str(folder / name)) != sha:
            yield f"{folder / name}: its bytes are not those that {manifest} lists"
    here = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    spare = ("MANIFEST", f"MANIFEST{PROV}", "MANIFEST.log")
    for name in sorted(n for n in here - set(listed) if n not in spare and not n.endswith("_summary.json")):
        yield f"{folder / name}: {manifest} does not list it"


def artefact_faults(target: str, prov: dict, known: dict, sha256) -> Iterator[str]:
    """Why one artefact is not what its prov.json says."""
    for name, sha in prov["inputs"].items():
        if not Path(name).is_file():
            yield f"{target}: was made from {name}, which is gone"
        elif sha256(name) != sha:
            yield f"{target}: was made from another {name} ({sha[:12]}) than the one here ({sha256(name)[:12]})"
        elif name.startswith("build/") and name not in known and Path(name).name not in STAMPS:
            yield f"{name}: no {Path(name).name}{PROV} says where it comes from"
    if not Path(target).is_file():
        yield f"{target}: gone, though {target}{PROV} describes it"
        return
    if sha256(target) != prov["sha256"]:
        yield f"{target}: its bytes are not those that {target}{PROV} describes"
    if Path(target).name == "MANIFEST":
        yield from manifest_faults(Path(target), sha256)


def rescored(leaf: Path) -> dict:
    """score.json's content, computed again from the outputs that `leaf` stores."""
    from tools.base import output_files

    fed = next(d / "input" for d in leaf.parents if (d / "input").is_dir())
    return output_files.score(leaf / "output" / "out", fed / "labels.json")


def differing(one: dict, other: dict, keys) -> str | None:
    """The first of `keys` in which two objects differ, with both values."""
    for key in keys:
        if one.get(key) != other.get(key):
            return f"{key} {str(one.get(key))[:60]} against {str(other.get(key))[:60]}"
    return None


SCORE = ("correct", "total", "predictions")
PROPORTION = ("correct", "total", "accuracy", "interval95")
PERF = ("times_ms", "pass_ms", "samples_per_second", "rounds", "spread", "latency_ms", "requests")


def leaf_faults(path: Path) -> Iterator[str]:
    """Why a record under build/ does not follow from the files beside it."""
    leaf, made = path.parent, cli.read_json(path)
    if path.name == "perf.json":
        if apart := differing(made, record.perf(leaf), PERF):
            yield f"{path}: not what the stored rounds give: {apart}"
        return
    score = rescored(leaf)
    if apart := differing(cli.read_json(leaf / "score.json"), score, SCORE):
        yield f"{leaf / 'score.json'}: not what the stored outputs give: {apart}"
    if apart := differing(made, record.accuracy(leaf), (*PROPORTION, "predictions")):
        yield f"{path}: not what score.json gives: {apart}"


def record_faults(path: Path) -> Iterator[str]:
    """Why a committed record contradicts itself, the labels, or the outputs where they are still here."""
    r = record.read(path)
    for target, link in r["chain"].items():
        for name, sha in link.get("inputs", {}).items():
            if r["chain"].get(name, {}).get("sha256") != sha:
                yield f"{path}: in its chain {target} was made from another {name} than the chain holds"
    if r["kind"] == "accuracy":
        right = record.right(r["predictions"])
        if apart := differing(r, record.proportion(sum(right), len(right)), PROPORTION):
            yield f"{path}: not what its predictions give: {apart}"
        outputs = next((Path(t) for t in r["chain"] if t.endswith("/output/MANIFEST")), None)
        stored = outputs and outputs.is_file() and cli.sha256(outputs) == r["chain"][str(outputs)]["sha256"]
        if stored and (apart := differing(r, rescored(outputs.parents[1]), SCORE)):
            yield f"{path}: not what the stored outputs give: {apart}"
        return
    if r["chip"] == "cpu" and abs(median(record.speeds(r)) / r["samples_per_second"] - 1) > 1e-3:
        yield f"{path}: samples_per_second {r['samples_per_second']} is not what its times_ms give"


def table_faults(path: Path, rows: list[str]) -> Iterator[str]:
    """The first cell of a .csv or .md table that its records do not give."""
    gone = [r for r in rows if r.endswith((".json", ".csv")) and not Path(r).is_file()]
    if gone or not rows:
        yield f"{path}: made from {gone[0] if gone else 'records of results/records'}, which is gone"
        return
    made = table.text(table.of(rows), path.suffix).split("\n")
    here = path.read_text("utf-8").split("\n")
    cut = "," if path.suffix == ".csv" else "|"
    for number, (want, got) in enumerate(zip(made, here, strict=False), 1):
        cells = zip(made[0].split(cut), want.split(cut), got.split(cut), strict=False)
        for column, a, b in ((c, a, b) for c, a, b in cells if a != b):
            yield f"{path}:{number}: {column.strip()} is {b.strip()}, its records give {a.strip()}"
            return
    if made != here:
        yield f"{path}: {len(here)} lines, its records give {len(made)}"


def tables() -> Iterator[tuple[Path, list[str]]]:
    """Each table that is here, with what its rows file names."""
    for path in sorted(p for s in (".csv", ".md") for p in Path("results/local").glob(f"*-table{s}")):
        names = path.with_suffix(".rows")
        yield path, names.read_text().split() if names.is_file() else []
    for path in (Path("results/table.csv"), Path("results/table.md")):
        if path.is_file():
            yield path, table.committed()


def faults(counts: dict) -> Iterator[str]:
    """Every broken link, upstream first; counts what was looked at."""
    from tqdm import tqdm

    known = provenance(Path("build"))
    counts["artefacts"] = len(known)
    sha256 = functools.cache(cli.sha256)  # most files are the input of several others
    for target, prov in tqdm(known.items(), "audit", unit="artefact", leave=False, disable=None):
        yield from artefact_faults(target, prov, known, sha256)
    made = [Path(t) for t in known if Path(t).name in ("accuracy.json", "perf.json")]
    kept = sorted(Path("results/records").glob("*.json"))
    counts["records"] = len(made) + len(kept)
    for path in made:
        yield from leaf_faults(path)
    for path in kept:
        yield from record_faults(path)
    shown = list(tables())
    counts["tables"] = len(shown)
    for path, rows in shown:
        yield from table_faults(path, rows)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    counts: dict[str, int] = {}
    first = next(faults(counts), None)
    if first:
        raise cli.UserError(f"the chain breaks at {first}; delete what is wrong and make it again")
    print("audit: every link holds: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    cli.run(main)
