"""Let the n-th write, rename or sync of a build fail, for every n; each failure is plain, and the build goes on from it.

    python -m lab.writes --every 1 accuracy record report -- MODEL=minilm_sst2 VENV=.venv      (or: make writes)

    write 1, build/data/.dev.tsv.1x_y2z3a.tmp/dev.tsv: No space left on device: well: run.py: error: ...
    ...
    writes: 214 failures in 17 artefacts (ENOSPC 107, EIO 107; 209 refused in one line, 5 did no harm), the same bytes

The arguments are make's goals and, after --, its parameters. It works in a clean copy under build/writes, with
lab/writes.c loaded into every process. What was finished before a failure stays, and the next one fails one write later
in the same artefact, so every write of every artefact fails once. After each failure there is no traceback, no file but
whole ones, and each of the bytes that an undisturbed build makes (but for what holds a record's date). --every K tries
each K-th write alone.
"""

import argparse
import errno
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from lab import torture
from tools.checks import reproduce
from tools.make import cli, stale

HOME = Path("build/writes")
ERRORS = (errno.ENOSPC, errno.EIO)
STRAY = re.compile(r"(^|/)\.[^/]+\.([a-z0-9_]{8}|tmp)$")


class Tree:
    """A clean copy in which writes fail."""

    def __init__(self, words: list[str]):
        self.words, self.folder = [*map(reproduce.from_here, words)], reproduce.clean_copy(HOME / "tree").resolve()
        self.library, self.count = (self.folder.with_name(name) for name in ("writes.so", "count"))
        source = ["gcc", "-O1", "-shared", "-fPIC", "-o", self.library, "lab/writes.c", "-ldl"]
        if subprocess.run(source, check=False).returncode:
            raise cli.UserError("lab/writes.c: gcc stopped, see above")
        reproduce.link_environment(self.folder, words)

    def make(self, number: int, error: int) -> tuple[int, str, str]:
        """(make's status, what it printed, the file whose write failed; none where there were fewer)."""
        self.count.write_bytes(bytes(1008))
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        env |= {"LD_PRELOAD": str(self.library), "FAIL_UNDER": str(self.folder), "FAIL_COUNT": str(self.count)}
        env |= {"FAIL_AT": str(number), "FAIL_ERRNO": str(error), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["make", *self.words], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        count = self.count.read_bytes()
        reached = count[8:].rstrip(b"\0").decode() if int.from_bytes(count[:8], "little") >= number > 0 else ""
        return done.returncode, done.stdout + done.stderr, reached

    def finished(self) -> dict[str, int]:
        """{artefact: its date} of what is made so far."""
        provs = [p for top in ("build", "results") for p in stale.described(self.folder / top)]
        records = (self.folder / "results").glob("*/*.json")
        return {str(p.relative_to(self.folder)): p.stat().st_mtime_ns for p in [*provs, *records] if p.exists()}

    def strays(self) -> list[str]:
        """Temporary files and folders that were left behind."""
        names = (
            p.relative_to(self.folder).as_posix()
            for top in ("build", "results")
            for p in (self.folder / top).rglob("*")
        )
        return [name for name in names if STRAY.search(name)]


def fault(said: str, status: int, tree: Tree, want: dict[str, str]) -> str:
    """What is wrong after a failed write; empty where all is well."""
    try:
        have = torture.snapshot(tree.folder)
    except ValueError as e:
        return f"half a file: {e}"
    unlike = [name for name in want if have.get(name, want[name]) != want[name]]
    errors = [line for line in said.splitlines() if "error:" in line]
    if "Traceback" in said:
        return "a traceback"
    if status and not 1 <= len(errors) <= 2:
        return f"{len(errors)} lines of error"
    if stray := tree.strays():
        return f"{stray[0]} was left behind"
    return f"{unlike[0]} is not what an undisturbed build makes" if unlike else ""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    p.add_argument("--every", type=int, default=1, help="try each K-th write (%(default)s)")
    args = p.parse_args()
    if error := reproduce.make(reproduce.clean_copy(HOME / "undisturbed"), args.goals):
        raise cli.UserError(f"the undisturbed build failed: {error}")
    dated = ("results/", "build/report.html")  # they hold when the record was made
    want = {name: sha for name, sha in torture.snapshot(HOME / "undisturbed").items() if not name.startswith(dated)}
    tree, tally, number, faults = Tree(args.goals), Counter(), 1, []
    kept = HOME / "kept"
    while True:
        before = tree.finished()
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(tree.folder, kept, symlinks=True)
        error = ERRORS[tally.total() // 2 % 2]
        status, said, reached = tree.make(number, error)
        if not reached:
            break
        wrong = fault(said, status, tree, want)
        line = next((line for line in said.splitlines() if "error:" in line), "no harm done")
        print(f"write {number}, {reached}: {os.strerror(error)}: {wrong or 'well'}: {line[:160]}", flush=True)
        faults += [f"write {number}, {reached}: {wrong}: {line}"] if wrong else []
        tally.update({errno.errorcode[error]: 1, "refused" if status else "harmless": 1})
        advanced = tree.finished() != before
        if not status:  # it went on to the end: back to where it was
            shutil.rmtree(tree.folder)
            kept.rename(tree.folder)
        number = 1 if status and advanced else number + args.every
    if status:
        raise cli.UserError(f"the build ended with {status} though no write failed: {said[-300:]}")
    have = torture.snapshot(tree.folder)
    faults += [f"{name} is not what an undisturbed build makes" for name in want if have.get(name) != want[name]]
    counts = ", ".join(f"{errno.errorcode[e]} {tally[errno.errorcode[e]]}" for e in ERRORS)
    total = tally["refused"] + tally["harmless"]
    print(
        f"writes: {total} failures ({counts}; {tally['refused']} refused in one line, {tally['harmless']} did no harm)"
    )
    if faults:
        raise cli.UserError(f"{len(faults)} of {total} went wrong, first {faults[0]}")
    shutil.rmtree(HOME)
    print("writes: after each, whole files alone; at the end, the bytes of an undisturbed build")


if __name__ == "__main__":
    cli.run(main)
