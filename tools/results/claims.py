"""The claims of data/claims.toml: show them, or check them.

    python3 -m tools.results.claims [--claim fp32] [--make VENV=.venv]      (or: make claims [CLAIM=fp32])

    $ make accuracy
    ...
    fp32         holds            791 (= 791)    30 s  MiniLM in fp32 gets 791 of the 872 validation sentences right
    claims: 1 hold, 0 differ, 0 cannot run here: build/claims.md

A claim holds, differs, or cannot run here: the processor lacks a unit that it needs. --claim takes an id, `short` (those
that the default model shows in minutes) or `all`. build/claims.md is a page to hand in; build/claims.csv has its figures:
seconds, MB of disk and of memory (the largest process) that a claim took beyond those above it. results/costs.csv is
that file of CLAIM=all in a fresh clone. Only the standard library: the first claim is that the rest can be installed.
"""

import csv
import datetime
import json
import operator
import os
import re
import subprocess
import time
import tomllib
from collections import Counter
from pathlib import Path

from tools.make import cli, cpu, manifest, run

CLAIMS, COSTS, PAGE = Path("data/claims.toml"), Path("results/costs.csv"), Path("build/claims.md")
HOLDS = {"=": operator.eq, ">=": operator.ge, "<=": operator.le}
TOOK = {"seconds": "seconds", "disk_mb": "MB of disk", "memory_mb": "MB of memory"}
COLUMNS = ("claim", "verdict", "value", "make", *TOOK, "load", "cpu", "cores", "date")


def read_claims(path: Path = CLAIMS) -> list[dict]:
    """The claims; the top of the file says what each field is."""
    return tomllib.loads(path.read_text("utf-8"))["claim"]


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
        case {"ahead": path}:
            return lead(of(path, "contenders"))
    return 0


def lead(contenders: list[dict]) -> float:
    """The speed of our native engine over that of the fastest peer of the same precision, at the sentences' own lengths, in
    the precision where that ratio is smallest; 0 where there is no peer."""
    lines = [line for line in contenders if line["shape"] == "sorted" and line["samples_per_second"]]
    by_speed = sorted(lines, key=lambda line: line["samples_per_second"])
    fastest = {line["precision"]: line["samples_per_second"] for line in by_speed if not line["ours"]}
    native = [line for line in lines if line["name"].startswith("ENGINE=native") and line["precision"] in fastest]
    ratios = [line["samples_per_second"] / fastest[line["precision"]] for line in native]
    return round(min(ratios, default=0), 2)


def check(claim: dict, extra: list[str]) -> dict:
    """Run a claim's makes: its row of COLUMNS, the verdict one of holds, differs and cannot run here."""
    row = dict.fromkeys(COLUMNS) | {"claim": claim["id"], "make": "; ".join(claim["make"])}
    if "needs" in claim and not cpu.cpu_flags() & {*claim["needs"]}:
        return row | {"verdict": "cannot run here", "value": cpu.without(" and no ".join(claim["needs"]))}
    machine, before, load, started = cpu.machine(), disk(), os.getloadavg()[0], time.time()
    verdict, shown, memory = "differs", "", 0.0
    for words in claim["make"]:
        status, most = make([*words.split(), *extra])
        memory = max(memory, most)
        if status:
            shown = f"make {words} ended with {status}"
            break
    else:
        result, (sign, limit) = value(claim.get("reads", {})), claim["holds"].split()  # as `>= 3`, `= <a hash>`
        verdict = "holds" if HOLDS[sign](result, type(result)(limit)) else verdict
        shown = short(result) if "reads" in claim else ""
    return row | {
        "verdict": verdict, "value": shown, "seconds": f"{time.time() - started:.0f}",
        "disk_mb": f"{(disk() - before) / 1e6:.0f}", "memory_mb": f"{memory:.0f}", "load": f"{load:.1f}",
        "cpu": machine["cpu"], "cores": machine["cores"], "date": datetime.datetime.now(datetime.UTC).date(),
    }  # fmt: skip


def make(words: list[str]) -> tuple[int, float]:
    """(exit status, MB of memory of the largest process) of a make, which CLAIM= of this one does not reach."""
    print(f"$ make {' '.join(words)}", flush=True)
    process = subprocess.Popen(["make", *words], env=cli.clean_environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024 / 1e6


def disk() -> int:
    """Bytes that build/ and the environments here take."""
    return sum(manifest.size(path) for path in [*Path().glob("build"), *Path().glob(".venv*")] if not path.is_symlink())


def short(text) -> str:
    """A hash by its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", str(text))


def costs() -> dict[str, dict]:
    """The measured rows of results/costs.csv by their claim. Raises UserError for a row that `make claims` does not write."""
    rows = [*csv.DictReader(COSTS.read_text("utf-8", "replace").splitlines())] if COSTS.is_file() else []
    whole = lambda row: {*row} == {*COLUMNS} and None not in row.values()
    if wrong := [r for r in rows if not whole(r) or not all(re.fullmatch(r"-?\d*", r[name]) for name in TOOK)]:
        raise cli.UserError(f"{COSTS}: no row of make claims: {[*wrong[0].values()]!r:.60}; take its build/claims.csv")
    return {row["claim"]: row for row in rows}


def table(measured: dict[str, dict], claims: list[dict]) -> str:
    """Claims as Markdown, a line each, with what `measured` has of it: its verdict, and what it took. Then the total."""
    rows = [measured.get(claim["id"], dict.fromkeys(COLUMNS)) for claim in claims]
    lines = [["`CLAIM=`", "claim", "holds if", "verdict", *TOOK.values()], ["---"] * 4 + ["---:"] * 3]
    for claim, row in zip(claims, rows, strict=True):
        condition = short(claim["holds"]) if "reads" in claim else "the command ends well"
        verdict = ": ".join(filter(None, (row["verdict"] or "-", row["value"])))
        lines.append([f"`{claim['id']}`", claim["says"], condition, verdict, *(row[name] or "-" for name in TOOK)])
    numbers = [[float(row[name]) for row in rows if row[name]] for name in TOOK]
    total = (f"{sum(numbers[0]):.0f}", f"{sum(numbers[1]):.0f}", f"{max(numbers[2], default=0):.0f}")
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, ["all", "", "", "", *total]])


def markdown() -> str:
    """The claims as results/costs.csv has them: where and when they were measured, and the table."""
    measured = costs()
    where = sorted({"{date} on {cpu}, {cores} cores".format(**row) for row in measured.values() if row["date"]})
    return f"Measured {'; '.join(where) or 'nowhere yet'}.\n\n{table(measured, read_claims())}"


def write_page(before: int, claims: list[dict], rows: dict[str, dict]) -> str:
    """Write build/claims.md, the page that a reviewer hands in, and build/claims.csv, of the claims checked so far; the
    verdicts in words. before: bytes on disk at the start."""
    counts = Counter(row["verdict"] for row in rows.values())
    verdicts = f"{counts['holds']} hold, {counts['differs']} differ, {counts['cannot run here']} cannot run here"
    tree = run.git_state()
    changes = {True: ", with changes", False: ", unchanged", None: ""}[tree["dirty"]]
    where = "{cpu}, {cores} cores, {system}, Python {python}".format(**cpu.machine())
    heading = (
        f"# Claims of bert2om, checked: {verdicts}\n\nCommit {tree['commit']}{changes}. {where}, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC. Seconds and MB are what a claim took beyond those "
        f"above it; before the first, build/ and the environments held {before / 1e6:.0f} MB.\n\n"
    )
    cli.write(PAGE, f"{heading}{table(rows, claims)}\n")
    with cli.whole_file(PAGE.with_suffix(".csv"), "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    return verdicts


def main():
    p = cli.parser(__doc__)
    p.add_argument("--claim", help="an id, short, or all: check; without it the claims are shown")
    p.add_argument("--make", nargs="*", default=[], metavar="NAME=value", help="further parameters for make")
    args = p.parse_args()
    if not args.claim:
        return print(f"{markdown()}\nmake claims CLAIM=short checks the short ones, CLAIM=all every one")
    claims = read_claims()
    chosen = [c for c in claims if args.claim in (c["id"], "all") or (args.claim == "short" and c.get("short"))]
    if not chosen:
        raise cli.UserError(f"CLAIM={args.claim} is not short, all or one of: {' '.join(c['id'] for c in claims)}")
    before, rows = disk(), {}
    for claim in chosen:
        rows[claim["id"]] = check(claim, args.make)
        verdicts = write_page(before, chosen, rows)
    for claim, row in zip(chosen, rows.values(), strict=True):
        shown = f"{row['value']} ({short(claim['holds'])})"
        print(f"{claim['id']:<12} {row['verdict']:<16} {shown:<36} {row['seconds'] or '-':>6} s  {claim['says']}")
    if any(row["verdict"] == "differs" for row in rows.values()):
        raise cli.UserError(f"{verdicts}: {PAGE}")
    return print(f"claims: {verdicts}: {PAGE}")


if __name__ == "__main__":
    cli.run(main)
