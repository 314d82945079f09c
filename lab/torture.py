"""Kill the pipeline at random moments and spoil its files; one plain make must then give the undisturbed bytes.

    python -m lab.torture --runs 4 build/data/dev.tsv -- VENV=.venv

    ...
    run 4: build/data/dev.tsv removed, -j8, killed after 0.3 s while making dev.tsv; the same bytes
    after run 4: other dates for build/data/dev.tsv tools/make/run.py tools/make/cli.py; the same bytes
    torture: 4 runs killed (-j1 2, -j8 2; two makes at once 3), the same bytes after each
    between them: other dates 1, a flipped byte 1, removed 1, edited 1 (refused first: 0), the same bytes after each
    killed while making: dev.tsv 3, nothing 1

The arguments are make's goals and, after --, its parameters. It works in a clean copy under build/torture. A run removes one
artefact at random, those near the end more often, starts one make, or two at once, and kills their whole process groups
(SIGKILL) at a random moment of the time that this takes. Then one make has to end well, leave no temporary file, and give the
same bytes. The last line says what was being made at the kill. After each kill something is spoilt, the four kinds in turn
(KINDS), and one make has to give the same bytes again. A flipped byte of a large file, or of one that a MANIFEST lists, is not
seen before a step reads it, so one that does is removed too, and may be refused in one line that names what to delete. Each
run has dice of its own: but for the moment of the kill, run 7 is the same on every machine.
"""

import functools
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from lab import counts
from tools.checks import reproduce
from tools.make import cli, manifest, run, stale
from tools.make.stale import PROV

HOME = Path("build/torture")
DAY = 86400  # seconds


def make_copy() -> Path:
    """A clean copy with downloads of its own: moved dates make it fetch them again, and give them new ones."""
    folder = reproduce.clean_copy(HOME)
    downloads = folder / "build/downloads"
    shared = downloads.resolve()
    downloads.unlink()
    shutil.copytree(shared, downloads)
    return folder


def kill_at(moment: float, folder: Path, artefact: Path, count: int, jobs: int, words: list[str]) -> bool:
    """Remove an artefact, start so many makes at once, each silent and of its own process group, and SIGKILL the groups after
    `moment` seconds; whether one was still at work."""
    artefact.unlink(missing_ok=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": cli.clean_environment()}
    command = ["make", f"-j{jobs}", *words]
    makes = [subprocess.Popen(command, cwd=folder, start_new_session=True, **quiet) for _ in range(count)]
    try:
        time.sleep(moment)
    finally:
        running = [make for make in makes if make.poll() is None]  # their numbers are still their own
        for make in running:
            os.killpg(make.pid, signal.SIGKILL)
        for make in running:
            make.wait()
    return bool(running)


def snapshot(folder: Path) -> dict[str, str]:
    """{name: sha256 of the bytes that must not vary} of what a build made."""
    digest = lambda path: hashlib.sha256(reproduce.comparable_bytes(path)).hexdigest()
    return {name: digest(path) for name, path in reproduce.made_files(folder).items()}


def stages(folder: Path) -> list[tuple[Path, float]]:
    """(artefact, seconds to make it and what came after it) of an undisturbed build, in the order they were made."""
    provs = [p for p in stale.prov_files(folder / "build") if "downloads" not in p.parts]
    provs.sort(key=lambda p: p.stat().st_mtime_ns)
    seconds = [json.loads(p.read_text())["run"]["seconds"] + 0.5 for p in provs]  # make itself takes a while
    return [(Path(str(p).removesuffix(PROV)), sum(seconds[i:])) for i, p in enumerate(provs)]


def draw_stage(build: list[tuple[Path, float]], dice: random.Random) -> tuple[Path, float]:
    """One of the stages, by its place alone: the last most often."""
    return dice.choices(build, [1 / (len(build) - place) for place in range(len(build))])[0]


def names_in_making(folder: Path) -> list[str]:
    """What was being made when the kill came: the temporary folders of tools/make/run.py."""
    return [p.name.removesuffix(run.BOX).rpartition(".")[0][1:] for p in (folder / "build").rglob(f".*{run.BOX}")]


def other_dates(folder: Path, artefact: Path, dice: random.Random) -> str:
    """Up to nine days ago or ahead: the artefact, and two files of this copy that it was made from."""
    inputs = cli.read_json(Path(f"{artefact}{PROV}"))["inputs"]  # not the lock: its date is one of the shared VENV's
    names = [n for n in inputs if n.startswith(("build/", "data/", "models/", "tools/")) and "/downloads/" not in n]
    names = [str(artefact.relative_to(folder)), *dice.sample(names, min(2, len(names)))]
    for name in names:
        date = time.time() + dice.uniform(-9, 9) * DAY
        os.utime(folder / name, (date, date))
    return f"other dates for {' '.join(names)}"


def flip(folder: Path, artefact: Path, dice: random.Random) -> str:
    """One bit of the artefact or of a file that it lists, in place, its date kept; what reads it is removed."""
    listed = manifest.members(artefact.parent) if artefact.name == "MANIFEST" else []
    path = dice.choice([artefact, *sorted(artefact.parent / name for name in listed)])
    stat = path.stat()
    with path.open("r+b") as f:
        place = dice.randrange(stat.st_size)
        f.seek(place)
        (byte,) = f.read(1)
        f.seek(place)
        f.write(bytes([byte ^ 1 << dice.randrange(8)]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    provs = {p: cli.read_json(p) for p in sorted(stale.prov_files(folder / "build"))}
    name = str(artefact.relative_to(folder))
    readers = [r["target"] for r in provs.values() if name in r["inputs"]]
    removed = readers[:1] or [name] * (path != artefact)  # what no step reads is made again with its list
    for name in removed:
        (folder / name).unlink()
    return f"byte {place} of {path.relative_to(folder)} flipped, {' '.join(removed) or 'nothing'} removed"


def remove(folder: Path, artefact: Path, dice: random.Random) -> str:
    """The artefact's prov.json, or its MANIFEST where it is a folder's."""
    names = [Path(f"{artefact}{PROV}"), *[artefact] * (artefact.name == "MANIFEST")]
    path = dice.choice(names)
    path.unlink()
    return f"{path.relative_to(folder)} removed"


def edit(folder: Path, artefact: Path, dice: random.Random) -> str:
    """Other digits in an accuracy.txt, its date kept or not."""
    stat, digits = artefact.stat(), b"0123456789"
    artefact.write_bytes(artefact.read_bytes().translate(bytes.maketrans(digits, digits[::-1])))
    if kept := dice.random() < 0.5:
        os.utime(artefact, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return f"{artefact.relative_to(folder)} edited, its date {'kept' if kept else 'new'}"


KINDS = {"other dates": other_dates, "a flipped byte": flip, "removed": remove, "edited": edit}
ADVICE = re.compile(r"run\.py: error: .*; delete (\S+) and run make again")


def converge(folder: Path, words: list[str], expected: dict[str, str], when: str, may_refuse: bool = False) -> bool:
    """One plain make; whether it refused first. UserError unless it gives `want` and nothing else. may_refuse: it may say in
    one line which file to delete; that is done, and the second make counts."""
    plain = functools.partial(reproduce.make, folder, words, show=lambda *_, **__: None)
    error = plain()
    errors = [line for line in (folder / "make.log").read_text().splitlines() if "error: " in line]
    refused = bool(may_refuse and error and len(errors) == 1 and (advice := ADVICE.fullmatch(error)))
    if refused:
        (folder / advice[1]).unlink()
        error = plain()
    if error:
        raise cli.UserError(f"{when}: then make failed: {error}")
    have = snapshot(folder)
    stray = sorted(have.keys() - expected.keys())
    if stray:
        raise cli.UserError(f"{when}: {folder}/{stray[0]} was left behind")
    unlike = sorted(n for n in expected if have.get(n) != expected[n])
    if unlike:
        raise cli.UserError(f"{when}: {folder}/{unlike[0]} is not what an undisturbed build makes")
    return refused


def main():
    p = cli.parser(__doc__)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    p.add_argument("--runs", type=int, default=100, help="how many are killed (%(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the dice (%(default)s)")
    p.add_argument("--save_path", type=Path, help="keep the counts there, as results/stress.csv")
    args = p.parse_args()
    folder, tally, targets_hit = make_copy(), Counter(), Counter()
    pace = 1.0  # of this machine now against the undisturbed build
    if error := reproduce.make(folder, args.goals):
        raise cli.UserError(f"the undisturbed build failed: {error}")
    expected, build = snapshot(folder), stages(folder)
    for number in range(1, args.runs + 1):
        dice = random.Random(f"{args.seed} {number}")
        artefact, seconds = draw_stage(build, dice)
        jobs, twice, share = dice.choice([1, 8]), dice.random() < 0.33, dice.random()
        killed = False
        while not killed:  # one that has ended by itself is no run
            moment = share * seconds * pace
            killed = kill_at(moment, folder, artefact, 1 + twice, jobs, args.goals)
            targets = names_in_making(folder) or ["nothing"]
            how = f"run {number}: {artefact.relative_to(folder)} removed, -j{jobs}{' twice' if twice else ''}, killed "
            how += f"after {moment:.1f} s while making {' '.join(targets)}"
            converge(folder, args.goals, expected, how)
            pace *= 1 if killed else 0.8
        targets_hit.update(targets)
        tally.update({f"-j{jobs}": 1, "twice": int(twice)})
        print(f"{how}; the same bytes", flush=True)
        kind = list(KINDS)[number % len(KINDS)]
        artefact = folder / args.goals[0] if kind == "edited" else draw_stage(build, dice)[0]
        spoiling = KINDS[kind](folder, artefact, dice)
        when = f"after run {number}: {spoiling}"
        refused = converge(folder, args.goals, expected, when, may_refuse=kind == "a flipped byte")
        tally.update({kind: 1, "refused": refused})
        print(f"{when}; {'refused in one line, then ' * refused}the same bytes", flush=True)
    shutil.rmtree(HOME)
    how = f"-j1 {tally['-j1']}, -j8 {tally['-j8']}; two makes at once {tally['twice']}"
    print(f"torture: {args.runs} runs killed ({how}), the same bytes after each")
    kinds = ", ".join(f"{kind} {tally[kind]}" for kind in KINDS)
    print(f"between them: {kinds} (refused first: {tally['refused']}), the same bytes after each")
    print("killed while making: " + ", ".join(f"{name} {n}" for name, n in sorted(targets_hit.items())))
    same = "the next make gives the same bytes"
    counts.keep(args.save_path, "a build killed at a random moment", args.runs, f"{same} ({how})", args.goals)
    counts.keep(args.save_path, "a file spoilt", args.runs, f"{same} ({kinds})", args.goals)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cli.run(main)
