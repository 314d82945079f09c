"""Hash everything again, from the weights to a table's cell, and name the first link that does not hold.

    python -m tools.checks.audit

    audit: every link holds: 25 artefacts, 6 records, 2 tables

Checked, upstream first: each artefact that a TARGET.prov.json under build/ describes (its bytes, the members of its
MANIFEST, what it was made from), the outputs against score.json and accuracy.json, the timings against perf.json,
each committed record against itself, its commit (tools/checks/consistency.py), the MANIFEST of its folder, and outputs
that are still here; each table, picture and README against its records. What nobody can see stands in consistency.py.
The fix is always the same: delete what is named, and make it again.
"""

import argparse
import functools
import hashlib
import json
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

from tools.base import tasks
from tools.checks import consistency
from tools.checks.consistency import near
from tools.make import cli, manifest
from tools.make.stale import PROV, described
from tools.results import readme, record, store, table
from tools.source import fetch

# Made by make itself to remember a parameter: a cause, so nothing describes how it came about.
STAMPS = ("source", "given")
KEPT = (Path("results/records"), Path("results/bench"))


def provenance(build: Path) -> dict[str, dict]:
    """{target: its prov.json} of everything under `build`, each after what it was made from.

    Raises UserError for one without inputs or sha256.
    """
    found = {str(p).removesuffix(PROV): cli.read_json(p) for p in sorted(described(build))}
    for target, prov in found.items():
        if not {"inputs", "sha256"} <= prov.keys():
            raise cli.UserError(f"{target}{PROV}: says no inputs or no sha256; delete {target} and make it again")
    order = TopologicalSorter({target: sorted(prov["inputs"]) for target, prov in found.items()})
    return {target: found[target] for target in order.static_order() if target in found}


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
    if fetch.pinned_otherwise(target, sha256(target)):
        yield f"{target}: not the file that data/pins.txt names"
    if sha256(target) != prov["sha256"]:
        yield f"{target}: its bytes are not those that {target}{PROV} describes"
    if Path(target).name == "MANIFEST":
        yield from manifest.faults(Path(target), sha256=sha256)


def rescored(leaf: Path) -> dict:
    """score.json's content, computed again from the outputs that `leaf` stores."""
    from tools.base import output_files

    return output_files.score(leaf / "output" / "out", record.input_of(leaf) / "labels.json")


SCORE = ("task", "labels", "correct", "total", "predictions", "truth", "metrics")
PROPORTION = ("correct", "total", "accuracy", "interval95")


def leaf_faults(path: Path) -> Iterator[str]:
    """Why a record under build/ does not follow from the files beside it."""
    leaf, made = path.parent, record.read(path)
    if path.name == "accuracy.json":
        score = rescored(leaf)
        if apart := record.differing(cli.read_json(leaf / "score.json"), score):
            yield f"{leaf / 'score.json'}: not what the stored outputs give: {apart}"
    if apart := record.differing(made, record.MAKERS[path.stem](leaf)):
        yield f"{path}: not what {'score.json gives' if path.stem == 'accuracy' else 'the stored rounds give'}: {apart}"


def only(found: dict, names) -> dict:
    return {name: found[name] for name in names if name in found}


def record_faults(path: Path) -> Iterator[str]:
    """Why a committed record contradicts itself, the labels, or the outputs where they are still here."""
    r = record.read(path)
    yield from (f"{path}: {why}" for why in consistency.faults(r))
    if r["kind"] == "throughput":
        return
    correct = None if r["correct"] is None else sum(record.right(r))
    if apart := record.differing(only(r, PROPORTION), record.proportion(correct, len(r["predictions"]))):
        yield f"{path}: not what its predictions give: {apart}"
    for name, metric in (r.get("metrics") or {}).items():
        if not near(metric, made := tasks.figure(name, r["truth"], r["predictions"]), 2e-6):
            yield f"{path}: not what its predictions give: {name} {metric} against {made}"
    scored = next((name for name in r["chain"] if name.endswith("/score.json")), None)
    text = json.dumps(only(r, SCORE), indent=1) + "\n"
    if scored and hashlib.sha256(text.encode()).hexdigest() != r["chain"][scored]["sha256"]:
        yield f"{path}: its predictions are not those whose hash its chain holds as {scored}"
    outputs = next((Path(t) for t in r["chain"] if t.endswith("/output/MANIFEST")), None)
    stored = outputs and outputs.is_file() and cli.sha256(outputs) == r["chain"][str(outputs)]["sha256"]
    if stored and (apart := record.differing(only(r, SCORE), rescored(outputs.parents[1]))):
        yield f"{path}: not what the stored outputs give: {apart}"


def name_faults(path: Path) -> Iterator[str]:
    """Why a committed record is called otherwise than by its own fields."""
    if path.name != (named := record.name_of(record.read(path))):
        yield f"{path}: its own fields (when, where, which parameters) would call it {named}"


def kept_faults(folder: Path) -> Iterator[str]:
    """Records that were edited, deleted or added since `make record` kept them."""
    path = folder / "MANIFEST"
    if path.is_file():
        yield from manifest.faults(path, store.listed(folder))
    elif store.listed(folder):
        yield f"{path}: gone; it lists what `make record` kept"


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


def benches() -> list[Path]:
    return sorted(Path("results/bench").glob("*.json"))


def bench_faults(path: Path) -> Iterator[str]:
    """Why a record of a bench is none, or contradicts itself."""
    r = record.read(path, kinds=("bench",))
    for line in r["contenders"]:
        if line["rounds"] and not near(median(line["rounds"]), line["samples_per_second"]):
            yield f"{path}: {line['name']}, {line['shape']}: samples_per_second is not the median of its rounds"


def page_faults() -> Iterator[str]:
    """The READMEs and pictures that the records do not give."""
    for path in readme.stale():
        yield f"{path}: not what results/records give; run make report"


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
    for check, paths in (
        (leaf_faults, made),
        (kept_faults, KEPT),
        (record_faults, kept),
        (name_faults, kept),
        (bench_faults, benches()),
    ):
        for path in paths:
            try:
                yield from check(path)
            except cli.UserError as e:
                yield str(e)
    shown = list(tables())
    counts["tables"] = len(shown)
    for path, rows in shown:
        yield from table_faults(path, rows)
    yield from page_faults()


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    counts: dict[str, int] = {}
    first = next(faults(counts), None)
    if first:
        raise cli.UserError(f"the chain breaks at {first}; delete what is wrong and make it again")
    print("audit: every link holds: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    cli.run(main)
