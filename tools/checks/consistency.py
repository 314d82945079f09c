"""Where a record contradicts itself, its own chain, or the commit that it names.

    for why in consistency.faults(record): ...

    padded_rows 0.3 is not what 8 rows a request give, 0.0

Nobody can see, of a record alone: another processor, host or version of a library; times, turns and figures that are all
scaled alike; other commands in its chain. What is edited later shows in the MANIFEST of its folder.
"""

import hashlib
import math
from collections.abc import Iterator

from tools.make import parameters
from tools.results import figures, record
from tools.source import fetch


def said_faults(r: dict) -> Iterator[str]:
    """Where a record is not what its source, its command and its other fields say."""
    if r["standin"]:
        yield "was made with stand-ins for the vendor's tools"
    if r.get("imported"):
        return
    stamp = r["chain"].get(f"build/{r['model']}/{r['weights']}/source", {}).get("sha256")
    if stamp != hashlib.sha256(f"{r['source']}\n".encode()).hexdigest():
        yield f"source {r['source']} is not the one whose hash its chain holds"
    if r["kind"] == "accuracy" and r["caveat"] != record.caveat(r["source"]):
        yield f"caveat {r['caveat']!r} is not that of the source {r['source']}"
    if "missing" in r and r["missing"] != record.unsaid(r):
        yield f"missing {r['missing']} is not what the record leaves empty, {record.unsaid(r)}"
    commands = [c for t, link in r["chain"].items() if t.endswith("/round1/MANIFEST") for c in link.get("commands", [])]
    if "pairs" not in r and any("--yardstick" in words for words in commands):
        yield "its command took turns with a yardstick, and it holds none of them (pairs)"


def commit_faults(r: dict) -> Iterator[str]:
    """Where a record's chain holds another source file than the commit that it names."""
    for path in record.edited(r.get("commit"), r["chain"]) if r.get("dirty") is False else ():
        yield f"its chain holds another {path} than its commit {r['commit'][:12]}, and `dirty` says that nothing was changed"


def chain_faults(r: dict) -> Iterator[str]:
    """Where a record's chain contradicts itself, the pins or the record's own parameters."""
    for target, link in r["chain"].items():
        if fetch.pinned_otherwise(target, link["sha256"]):
            yield f"its chain holds another {target} than the one that data/pins.txt names"
        for name, sha in (link.get("inputs") or {}).items():
            if r["chain"].get(name, {}).get("sha256") != sha:
                yield f"in its chain {target} was made from another {name} than the chain holds"
    if not r.get("imported") and not any(t.startswith(f"build/{record.leaf_of(r)}/") for t in r["chain"]):
        yield f"its chain holds nothing of build/{record.leaf_of(r)}: are its parameters those it was made with?"


def near(one, other, part=1e-3) -> bool:
    """Equal but for what rounding changes, or another version of a library."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[k], other[k], part) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(near(a, b, part) for a, b in zip(one, other, strict=True))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=part, abs_tol=part) if numbers else one == other


def padded_rows(r: dict) -> float | None:
    """The share of padded rows in requests of one length on the CPU; None where that takes more than the record."""
    own = parameters.rows_of(r["seq"])
    if r["chip"] != "cpu" or own["PACK"] or not own["SEQ"].isdecimal():
        return 0.0 if own["SEQ"] == "real" else None
    count = r.get("total") or r.get("sentences", record.SST2)
    return 1 - count / (-(-count // r["bs"]) * r["bs"])


def speed_faults(r: dict) -> Iterator[str]:
    """Where the figures of a throughput record are not what its own times and turns give."""
    if r.get("imported") or (r["chip"] != "cpu" and "per_device" not in r):
        return
    rounds = [{"throughput": v, "times_ms": t} for v, t in zip(record.speeds(r), r["times_ms"], strict=False)]
    given = record.throughput(rounds, 1)
    if r.get("pairs"):
        turns, singles = (sum(r.get(name) or [], []) for name in ("pairs", "singles"))
        given["figures"] = figures.of(turns, singles, r["engine_info"]["threads"], r.get("sentences_per_row", 1))
        took = [sum(turn[1] for turn in round_) for round_ in r["pairs"]]
        if not near(took, [sum(t) / 1000 for t in r.get("pass_ms") or r["times_ms"]]):
            yield "its turns (pairs) took another time than its times_ms"
    # Records from before the least number of requests was fixed have percentiles of fewer.
    given["latency_ms"] = {k: v for k, v in given["latency_ms"].items() if v is not None}
    for key, value in given.items():
        said = {k: r[key].get(k) for k in value} if key == "latency_ms" else r.get(key)
        if not near(said, value, 0.02 if key == "figures" else 1e-3):
            yield f"{key} {str(r.get(key))[:80]} is not what its times_ms give, {str(value)[:80]}"


def faults(r: dict) -> Iterator[str]:
    """Why a record contradicts itself, the chain in it, or its commit."""
    yield from chain_faults(r)
    yield from said_faults(r)
    yield from commit_faults(r)
    if r["kind"] == "throughput":
        yield from speed_faults(r)
    padded = padded_rows(r)
    if not r.get("imported") and padded is not None and not near(r["padded_rows"], padded):
        yield f"padded_rows {r['padded_rows']} is not what {r['bs']} rows a request give, {padded}"
