"""The claims of data/claims.toml: show them, or check them.

    python -m tools.results.claims [--claim fp32] [--make VENV=.venv]      (or: make claims [CLAIM=fp32])

    $ make accuracy
    ...
    fp32       holds    791 (= 791)                              MiniLM in fp32 gets 791 of the 872 validation sentences right
    claims: 1 hold, 0 differ, 0 cannot run here

A claim holds, differs, or cannot run here: the processor lacks a unit that it needs. --claim takes an id, `short` (those
that the default model shows in minutes) or `all`. Seconds and MB are those of results/costs.csv (lab/costs.py).
"""

import argparse
import csv
import json
import operator
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

from tools.make import chips, cli, cpu

CLAIMS, COSTS = Path("data/claims.toml"), Path("results/costs.csv")
UNITS = {"bf16": chips.BF16, "int8": chips.VNNI}
FIELDS = {"id", "says", "make", "reads", "holds", "needs", "short"}
HOLDS = {"=": operator.eq, ">=": operator.ge, "<=": operator.le}


def read(path: Path = CLAIMS) -> list[dict]:
    """The claims; UserError names the first that lacks a field or has one that nothing reads."""
    claims = tomllib.loads(path.read_text("utf-8"))["claim"]
    for claim in claims:
        lacking = {"id", "says", "make", "holds"} - claim.keys()
        unread = claim.keys() - FIELDS
        if lacking or unread or claim["holds"].split()[0] not in HOLDS:
            raise cli.UserError(f"{path}: claim {claim.get('id')}: see the fields at the top of the file")
    return claims


def value(reads: dict):
    """What a claim's makes have left, read as its `reads` says; 0 where make's own verdict is all."""
    of = lambda path, key: cli.read_json(path)[key]
    match reads:
        case {"key": key, "file": path}:
            return of(path, key)
        case {"key": key, "ratio": [one, other]}:
            return round(of(one, key) / of(other, key), 2)
        case {"flips": [one, other]}:
            return sum(a != b for a, b in zip(of(one, "predictions"), of(other, "predictions"), strict=True))
        case {"length": path}:
            return len(json.loads(Path(path).read_text("utf-8")))
        case {"sha256": path}:
            return cli.sha256(path)
    return 0


def as_claimed(found, holds: str) -> bool:
    """Whether a value is one that `holds` names: `= 791`, `>= 3`, `= <a hash>`."""
    sign, wanted = holds.split()
    return HOLDS[sign](found, type(found)(wanted))


def check(claim: dict, extra: list[str]) -> tuple[str, str]:
    """Run a claim's makes: (holds, differs or cannot run, what was found)."""
    if claim.get("needs") and not cpu.cpu_flags() & UNITS[claim["needs"]]:
        return "cannot run here", cpu.without(f"{claim['needs']} unit")
    env = cli.nobodys_child()  # CLAIM= is not for these makes
    for words in claim["make"]:
        print(f"$ make {words}", flush=True)
        if status := subprocess.run(["make", *words.split(), *extra], env=env, check=False).returncode:
            return "differs", f"make {words} ended with {status}"
    found = value(claim.get("reads", {}))
    return ("holds" if as_claimed(found, claim["holds"]) else "differs"), f"{short(found)} ({short(claim['holds'])})"


def short(text) -> str:
    """A hash by its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", str(text))


def costs() -> dict[str, dict]:
    """The measured rows of results/costs.csv by their make words."""
    if not COSTS.is_file():
        return {}
    with COSTS.open(newline="", encoding="utf-8") as f:
        return {row["make"]: row for row in csv.DictReader(f)}


def takes(claim: dict) -> tuple[str, str]:
    """(seconds, MB of disk) of a claim's makes; `-` where one was not measured."""
    known = costs()
    rows = [known.get(words) for words in claim["make"]]
    total = lambda name: f"{sum(float(row[name]) for row in rows):.0f}" if all(rows) else "-"
    return total("seconds"), total("disk_mb")


def markdown() -> str:
    """The table of claims."""
    wanted = lambda c: short(c["holds"]) if "reads" in c else "the command ends well"
    lines = [" | ".join((f"| `{c['id']}`", c["says"], wanted(c), *takes(c))) + " |" for c in read()]
    return "\n".join(["| `CLAIM=` | claim | holds if | seconds | MB |", "|---|---|---|---:|---:|", *lines])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--claim", help="an id, short, or all: check; without it the claims are shown")
    p.add_argument("--make", nargs="*", default=[], metavar="NAME=value", help="further parameters for make")
    args = p.parse_args()
    if not args.claim:
        return print(f"{markdown()}\nmake claims CLAIM=short checks the short ones, CLAIM=all every one")
    claims = read()
    chosen = [c for c in claims if args.claim in (c["id"], "all") or (args.claim == "short" and c.get("short"))]
    if not chosen:
        raise cli.UserError(f"CLAIM={args.claim} is not short, all or one of: {' '.join(c['id'] for c in claims)}")
    results = [(claim, *check(claim, args.make)) for claim in chosen]
    for claim, verdict, found in results:
        print(f"{claim['id']:<12} {verdict:<16} {found:<36} {claim['says']}")
    counts = Counter(verdict for _, verdict, _ in results)
    text = f"{counts['holds']} hold, {counts['differs']} differ, {counts['cannot run here']} cannot run here"
    if counts["differs"]:
        raise cli.UserError(text)
    return print(f"claims: {text}")


if __name__ == "__main__":
    cli.run(main)
