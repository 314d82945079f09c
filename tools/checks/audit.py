"""Hash everything again, from the weights to the cells of tables, and name each link that does not hold.

    python -m tools.checks.audit

    audit: every link holds: 25 artefacts, 6 records, 2 pages

What is checked, upstream first: each artefact that a TARGET.prov.json under build/ describes (its bytes, the files of its
MANIFEST, its inputs); outputs against score.json and accuracy.json; timings against perf.json; each committed record against
itself, its commit, the MANIFEST of its folder, git's last commit, and outputs that are still here; each table, picture and
README against the records, unless some are not in git yet. Mend the first break: later ones may follow from it.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import zip_longest
from pathlib import Path
from statistics import median

from tools.base import tasks
from tools.make import cli, manifest, parameters
from tools.make.stale import PROV, prov_files
from tools.results import figures, readme, record, store, table
from tools.source import fetch

# Files in which make remembers a parameter; in November 2026 also isa and samples. No prov.json describes them.
STAMPS = ("source", "given")
KEPT = (Path("results/records"), Path("results/bench"))


def provenance(build: Path) -> Iterator[tuple[str, dict | str]]:
    """(target, its prov.json) of each target under `build`, inputs first; or (target, what is wrong with its prov.json)."""
    known = {}
    for target in (str(path).removesuffix(PROV) for path in sorted(prov_files(build))):
        try:
            prov = cli.read_json(f"{target}{PROV}")
            if {type(sha) for sha in (*prov["inputs"].values(), prov["sha256"])} != {str}:
                raise ValueError
            known[target] = prov
        except (cli.UserError, OSError) as e:
            yield target, str(e)
        except (AttributeError, KeyError, ValueError):
            yield target, f"{target}{PROV}: says no inputs or no sha256; delete {target} and make it again"
    try:
        order = [*TopologicalSorter({target: sorted(prov["inputs"]) for target, prov in known.items()}).static_order()]
    except CycleError as e:
        yield e.args[1][0], f"{e.args[1][0]}: made from itself, by way of {len(set(e.args[1])) - 1} others"
        order = [target for target in known if target not in e.args[1]]
    yield from ((target, known[target]) for target in order if target in known)


def artefact_faults(target: str, prov: dict, known: dict, sha256) -> Iterator[str]:
    """How an artefact differs from what its prov.json says."""
    of = lambda name: manifest.of_folder(name, sha256) if Path(name).is_dir() else sha256(name)
    for name, sha in prov["inputs"].items():
        if not Path(name).exists():
            yield f"{target}: was made from {name}, which is gone"
        elif of(name) != sha:
            yield f"{target}: was made from another {name} ({sha[:12]}) than the one here ({of(name)[:12]})"
        elif Path(name).is_file() and name.startswith("build/") and name not in known and Path(name).name not in STAMPS:
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


# ---- A record against itself.


def said_faults(r: dict) -> Iterator[str]:
    """How a record contradicts its chain, its commit, or its other fields."""
    end = f"build/{record.leaf_of(r)}/{'score.json' if r['kind'] == 'accuracy' else 'round1/MANIFEST'}"
    if end not in r["chain"]:
        yield f"its chain holds no {end}: are its parameters those it was made with?"
    stamp = r["chain"].get(f"build/{r['model']}/{r['weights']}/source", {}).get("sha256")
    if stamp != hashlib.sha256(f"{r['source']}\n".encode()).hexdigest():
        yield f"source {r['source']} is not the one whose hash its chain holds"
    if r["kind"] == "accuracy" and r["caveat"] != record.caveat(r["source"]):
        yield f"caveat {r['caveat']!r} is not that of the source {r['source']}"
    if "logits_sha256" in r and not record.has_defined_bits(r):
        yield f"logits_sha256: docs/bits.md defines no bits of {r['engine']} {r['precision']}"
    if "missing" in r and r["missing"] != record.missing_reasons(r):
        yield f"missing {r['missing']} is not what the record leaves empty, {record.missing_reasons(r)}"
    commands = r["chain"].get(end, {}).get("commands") or []
    if r["kind"] == "throughput" and "pairs" not in r and any("--yardstick" in words for words in commands):
        yield "its command took turns with a yardstick, and it holds none of them (pairs)"
    for path in record.edited_sources(r.get("commit"), r["chain"]) if r.get("dirty") is False else ():
        yield f"its chain holds another {path} than its commit {r['commit'][:12]}, and `dirty` says that nothing was changed"
    padded = padded_rows(r)
    if padded is not None and not near(r["padded_rows"], padded):
        yield f"padded_rows {r['padded_rows']} is not what {r['bs']} rows a request give, {padded}"


def chain_faults(r: dict) -> Iterator[str]:
    """How a record's chain contradicts itself or data/pins.txt."""
    for target, link in r["chain"].items():
        made = target.startswith("build/") and Path(target).name not in (*STAMPS, "isa", "samples")
        if made and not (link.get("inputs") and link.get("commands")):
            yield f"its chain does not say how {target} was made"
        if fetch.pinned_otherwise(target, link["sha256"]):
            yield f"its chain holds another {target} than the one that data/pins.txt names"
        for name, sha in (link.get("inputs") or {}).items():
            if r["chain"].get(name, {}).get("sha256") != sha:
                yield f"in its chain {target} was made from another {name} than the chain holds"


def near(one, other, part=1e-3) -> bool:
    """Whether two values are equal except for rounding, which may differ between versions of a library."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[k], other[k], part) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(near(a, b, part) for a, b in zip(one, other, strict=True))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=part, abs_tol=part) if numbers else one == other


def padded_rows(r: dict) -> float | None:
    """The share of padded rows, for rows of one length on the CPU; None if a record alone does not tell."""
    own = parameters.seq_values(r["seq"])
    if r["chip"] != "cpu" or own["PACK"] or not own["SEQ"].isdecimal():
        return 0.0 if own["SEQ"] == "real" else None
    count = r.get("total") or r.get("sentences", record.SST2)
    return 1 - count / (-(-count // r["bs"]) * r["bs"])


def speed_faults(r: dict) -> Iterator[str]:
    """How the figures of a throughput record differ from what its own times and turns give."""
    speeds = record.round_speeds(r) if r["chip"] == "cpu" or "per_device" in r else r["rounds"]  # of its tool
    rounds = [{"throughput": v, "times_ms": t} for v, t in zip(speeds, r["times_ms"], strict=True)]
    given = record.speed_fields(rounds, 1)
    if r.get("pairs"):
        turns, singles = (sum(r.get(name) or [], []) for name in ("pairs", "singles"))
        threads, rows = r["engine_info"]["threads"], r.get("sentences_per_row", 1)
        given["figures"] = figures.from_turns(turns, singles, threads, rows)
        took = [sum(turn[1] for turn in round_) for round_ in r["pairs"]]
        if not near(took, [sum(t) / 1000 for t in r.get("pass_ms") or r["times_ms"]]):
            yield "its turns (pairs) took another time than its times_ms"
    # Records from before the least number of requests was fixed have percentiles of fewer.
    given["latency_ms"] = {k: v for k, v in given["latency_ms"].items() if v is not None}
    for key, value in given.items():
        said = {k: r[key].get(k) for k in value} if key == "latency_ms" else r.get(key)
        if not near(said, value, 0.02 if key == "figures" else 1e-3):
            yield f"{key} {str(r.get(key))[:80]} is not what its times_ms give, {str(value)[:80]}"


def contradictions(r: dict) -> Iterator[str]:
    """How a record contradicts itself, its chain, or its commit. A false processor or host, or times, turns and figures that
    were all scaled alike, cannot be seen in a record alone; later edits show in its folder's MANIFEST or in git."""
    if r["standin"]:
        yield "was made with stand-ins for the vendor's tools"
    yield from chain_faults(r)
    if not r.get("imported"):  # a log from elsewhere says nothing of these
        yield from said_faults(r)
        yield from speed_faults(r) if r["kind"] == "throughput" else ()


# ---- Records against what lies beside them.


def rescored(leaf: Path) -> dict:
    """The content of score.json, computed again from the outputs stored in `leaf`."""
    from tools.base import output_files

    threshold = float(record.configuration(leaf).get("threshold", tasks.THRESHOLD))
    return output_files.score(leaf / "output" / "out", record.input_of(leaf) / "labels.json", threshold)


SCORE = ("task", "labels", "correct", "total", "predictions", "truth", "metrics")
PROPORTION = ("correct", "total", "accuracy", "interval95")


def leaf_faults(path: Path) -> Iterator[str]:
    """How a record under build/ differs from what the files beside it give."""
    leaf, made = path.parent, record.read_record(path)
    if path.name == "accuracy.json":
        score = rescored(leaf)
        if apart := record.first_difference(cli.read_json(leaf / "score.json"), score):
            yield f"{leaf / 'score.json'}: not what the stored outputs give: {apart}"
    if apart := record.first_difference(made, record.MAKERS[path.stem](leaf)):
        yield f"{path}: not what {'score.json gives' if path.stem == 'accuracy' else 'the stored rounds give'}: {apart}"


def only(record: dict, names) -> dict:
    """The fields of a record that have these names."""
    return {name: record[name] for name in names if name in record}


def record_faults(path: Path) -> Iterator[str]:
    """How a committed record contradicts its name, itself, the labels, or its outputs if they are still here."""
    r = record.read_record(path)
    yield from (f"{path}: {why}" for why in contradictions(r))
    if path.name != (named := record.name_of(r)):
        yield f"{path}: its own fields (when, where, which parameters) would call it {named}"
    if r["kind"] == "throughput":
        return
    correct = None if r["correct"] is None else sum(record.right_answers(r))
    if apart := record.first_difference(only(r, PROPORTION), record.proportion(correct, len(r["predictions"]))):
        yield f"{path}: not what its predictions give: {apart}"
    for name, metric in (r.get("metrics") or {}).items():
        if not near(metric, made := tasks.figure(name, r["truth"], r["predictions"]), 2e-6):
            yield f"{path}: not what its predictions give: {name} {metric} against {made}"
    scored = next((name for name in r["chain"] if name.endswith("/score.json")), None)
    text = json.dumps(only(r, SCORE), indent=1) + "\n"
    if scored and hashlib.sha256(text.encode()).hexdigest() != r["chain"][scored]["sha256"]:
        yield f"{path}: its predictions are not those whose hash its chain holds as {scored}"
    for name, sha in ((t, link["sha256"]) for t, link in r["chain"].items() if t.endswith("/output/MANIFEST")):
        stored = Path(name).is_file() and cli.sha256(name) == sha
        if stored and (apart := record.first_difference(only(r, SCORE), rescored(Path(name).parents[1]))):
            yield f"{path}: not what the stored outputs give: {apart}"


def kept_faults(folder: Path) -> Iterator[str]:
    """Records that were edited, deleted or added since `make record` kept them, or since git's last commit."""
    path = folder / "MANIFEST"
    if path.is_file():
        yield from manifest.faults(path, store.hashes(folder))
    elif store.hashes(folder):
        yield f"{path}: gone; it lists what `make record` kept"
    changes = cli.git("diff", "--name-only", "--relative", "--diff-filter=DM", "HEAD", "--", f"{folder}/*.json").stdout
    for name in changes.splitlines():
        yield f"{name}: {'not the same' if Path(name).is_file() else 'gone'}, though git's last commit holds it"


def bench_faults(path: Path) -> Iterator[str]:
    """How a record of a bench is malformed or contradicts itself."""
    for line in record.read_record(path, kinds=("bench",))["contenders"]:
        if line["rounds"] and not near(median(line["rounds"]), line["samples_per_second"]):
            yield f"{path}: {line['name']}, {line['shape']}: samples_per_second is not the median of its rounds"


def shown() -> Iterator[tuple[Path, bytes]]:
    """(path, what the records give) of each README, picture and table that is here, those of results/local included."""
    yield from ((path, make()) for path, make in readme.texts() if path.is_file())
    for path in filter(Path.is_file, sorted(Path("results/local").glob("*-table.*"))):
        if path.suffix != ".rows" and (rows := path.with_suffix(".rows")).is_file():
            names = rows.read_text("utf-8", errors="replace").split()
            yield path, table.render(table.from_names(names), path.suffix).encode()


def page_faults(pages: list[Path]) -> Iterator[str]:
    """The first line of each README, picture and table that differs from what the records give. pages: gets their paths."""
    for path, made in shown():
        pages.append(path)
        lines = zip_longest(made.splitlines(), path.read_bytes().splitlines())
        if wrong := next((number for number, (want, got) in enumerate(lines, 1) if want != got), None):
            yield f"{path}:{wrong}: not what results/records give; run make report"


def broken(check, *about) -> Iterator[str]:
    """The faults that a check finds, or the error that stops it, so that the other checks go on."""
    try:
        yield from check(*about)
    except (cli.UserError, OSError) as e:
        yield cli.explanation(e)


def faults(counts: dict) -> Iterator[str]:
    """Every broken link, upstream first. counts: gets the numbers of what was looked at."""
    from tqdm import tqdm

    described = dict(provenance(Path("build")))
    known = {target: prov for target, prov in described.items() if isinstance(prov, dict)}
    yield from (fault for fault in described.values() if isinstance(fault, str))
    sha256 = functools.cache(cli.sha256)  # most files are the input of several others
    for target, prov in tqdm(known.items(), "audit", unit="artefact", leave=False, disable=None):
        yield from broken(artefact_faults, target, prov, known, sha256)
    made = [Path(t) for t in known if Path(t).name in ("accuracy.json", "perf.json")]
    kept, benches = (sorted(folder.glob("*.json")) for folder in KEPT)
    counts |= {"artefacts": len(described), "records": len(made) + len(kept)}
    for check, paths in {leaf_faults: made, kept_faults: KEPT, record_faults: kept, bench_faults: benches}.items():
        for path in paths:
            yield from broken(check, path)
    stale = [*broken(page_faults, pages := [])]
    counts["pages"] = len(pages)
    listed = cli.git("ls-files", "-o", "--exclude-standard", *(f"{folder}/*.json" for folder in KEPT))
    if listed.returncode and Path(".git").exists():
        print(f"records were not compared with git's last commit: {listed.stderr.partition(chr(10))[0]}")
    if stale and (new := listed.stdout.splitlines()):
        print(f"tables, pictures and READMEs are older than {len(new)} records that git does not hold yet: make report")
    else:
        yield from stale


def main():
    cli.parser(__doc__).parse_args()
    counts: dict[str, int] = {}
    first, *others = [*dict.fromkeys(faults(counts)), None]
    if not first:
        return print("audit: every link holds: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    for fault in others[:-1]:
        print(f"also broken: {fault}")
    more = f" (and {len(others) - 1} more, named above)" * (len(others) > 1)
    raise cli.UserError(f"the chain breaks at {first}{more}; delete what is wrong and make it again")


if __name__ == "__main__":
    cli.run(main)
