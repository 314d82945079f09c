"""Let the n-th write, rename or sync of a build fail, for every n; each failure is plain, and the build goes on from it.

    python -m lab.writes accuracy record report -- MODEL=minilm_sst2 VENV=.venv      (or: make writes)

    build/data/dev.tsv, write 1 of data/.dev.tsv.1x_y2z3a.tmp/dev.tsv: No space left on device: well: run.py: error: ...
    ...
    writes: 1146 failures in 23 steps (ENOSPC 573, EIO 573; 1127 refused in one line, 19 did no harm)

The arguments are make's goals and, after --, its parameters. An undisturbed build says which artefacts there are, and in which
order; they and the goals are the steps. lab/writes.c is loaded into every process of a clean copy under build/writes, whose
Python starts warm (test/warm.py). Each step is made again and again, alone, from the tree as it was before it, and each time one write later fails. Then there is no
traceback, at most two lines of error, no file but whole ones, and each byte as an undisturbed build makes it (but for what
holds a record's date). Where the tree is not as it was before the step, a plain make has to go on from it to the same bytes.
--every K tries each K-th write alone.
"""

import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from lab import counts
from tools.checks import reproduce
from tools.make import cli, stale

HOME = Path("build/writes")
WARM = HOME / "warm"
ERRORS = (errno.ENOSPC, errno.EIO)
STRAY = re.compile(r"(^|/)\.[^/]+\.([a-z0-9_]{8}|tmp)$")
DATED = ("results/", "build/report.html")  # they hold when a record was made
LARGE = 1 << 20  # bytes; such a file is never written in place


def copy(source: Path, to: Path) -> None:
    """A copy of a tree, dates kept; large files are linked."""
    one = lambda a, b: os.link(a, b) if Path(a).stat().st_size > LARGE else shutil.copy2(a, b)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to, symlinks=True, copy_function=one)


def dates(folder: Path) -> dict[str, tuple[int, int]]:
    """{name: size and date} of a tree's files, but for Python's bytecode and what is remembered of dates."""
    paths = {p.relative_to(folder).as_posix(): p.lstat() for p in folder.rglob("*") if not p.is_dir()}
    seen = (name for name in paths if name != stale.MEMORY.as_posix() and "/__pycache__/" not in name)
    return {name: (paths[name].st_size, paths[name].st_mtime_ns) for name in seen}


@functools.cache
def digest(path: Path, size: int, date: int) -> str:
    return hashlib.sha256(reproduce.comparable_bytes(path)).hexdigest()


def snapshot(folder: Path) -> dict[str, str]:
    """{name: sha256 of the bytes that must not vary} of what a build made. ValueError for half a prov.json."""
    stats = {name: (path, path.stat()) for name, path in reproduce.made_files(folder).items()}
    return {name: digest(path, s.st_size, s.st_mtime_ns) for name, (path, s) in stats.items()}


def build_undisturbed(goals: list[str], parameters: list[str]) -> tuple[list[str], dict[str, str]]:
    """(the steps in their order, what each file has to be). Raises UserError where the build fails."""
    folder, steps = reproduce.clean_copy(HOME / "undisturbed"), []
    for goal in goals:
        if error := reproduce.make(folder, [goal, *parameters]):
            raise cli.UserError(f"the undisturbed build failed: {error}")
        provs = [p for top in ("build", "results") for p in stale.prov_files(folder / top)]
        provs.sort(key=lambda p: p.stat().st_mtime_ns)
        names = [str(p.relative_to(folder)).removesuffix(stale.PROV) for p in provs]
        steps += [name for name in [*names, goal] if name not in steps]
    return steps, {name: sha for name, sha in snapshot(folder).items() if not name.startswith(DATED)}


@contextlib.contextmanager
def warm_python(venv: Path):
    """WARM/venv is an environment like `venv` meanwhile, whose Python starts warm, with lab/writes.c loaded."""
    library = HOME.absolute() / "writes.so"
    compile_it = ["gcc", "-O1", "-shared", "-fPIC", "-o", library, "lab/writes.c", "-ldl"]
    if subprocess.run(compile_it, check=False).returncode:
        raise cli.UserError("lab/writes.c: gcc stopped, see above")
    os.environ["LD_PRELOAD"] = str(library)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.path.insert(0, "test")
    import warm

    with warm.start(WARM.absolute(), venv.absolute()) as server:
        try:
            yield
        finally:
            server.kill()


class Tree:
    """A clean copy in which writes fail."""

    def __init__(self, parameters: list[str], expected: dict[str, str]):
        self.folder, self.expected = reproduce.clean_copy(HOME / "tree").resolve(), expected
        self.backup, self.count = (self.folder.with_name(name) for name in ("kept", "count"))
        self.words = [*map(reproduce.from_here, parameters), f"VENV={WARM.absolute() / 'venv'}"]
        reproduce.link_environment(self.folder, parameters)

    def make(self, goal: str, number: int = 0, error: int = 0) -> tuple[int, str, str]:
        """(make's status, what it printed, the file whose write failed; none where there were fewer)."""
        self.count.write_bytes(bytes(1008))
        env = cli.clean_environment() | {"FAIL_UNDER": str(self.folder), "FAIL_COUNT": str(self.count)}
        env |= {"FAIL_AT": str(number), "FAIL_ERRNO": str(error)}
        command = ["make", goal, *self.words]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        count = self.count.read_bytes()
        reached = count[8:].rstrip(b"\0").decode() if int.from_bytes(count[:8], "little") >= number > 0 else ""
        return done.returncode, done.stdout + done.stderr, reached

    def fault(self, status: int, output: str) -> str:
        """What is wrong with the tree, and with what was said; empty where all is well."""
        try:
            have = snapshot(self.folder)
        except ValueError as e:
            return f"half a file: {e}"
        tops = (self.folder / top for top in ("build", "results"))
        names = [p.relative_to(self.folder).as_posix() for top in tops for p in top.rglob("*")]
        errors = [line for line in output.splitlines() if "error:" in line]
        faults = ["a traceback"] if "Traceback" in output else []
        faults += [f"{len(errors)} lines of error"] if status and not 1 <= len(errors) <= 2 else []
        faults += [f"{name} was left behind" for name in names if STRAY.search(name)]
        unlike = [name for name, sha in self.expected.items() if have.get(name, sha) != sha]
        return next(iter([*faults, *(f"{name} is not what an undisturbed build makes" for name in unlike)]), "")

    def recover(self, step: str) -> str:
        """What is wrong after one plain make of the step; then the tree is as it was before the step."""
        status, output, _ = self.make(step)
        wrong = f"the next make failed ({status}): {output[-300:]}" if status else self.fault(status, output)
        copy(self.backup, self.folder)
        return wrong

    def fail_each(self, step: str, every: int, tally: Counter) -> list[str]:
        """Make a step, each time with one later write that fails, then whole; what went wrong."""
        copy(self.folder, self.backup)
        before, number, faults = dates(self.backup), 1, []
        while True:
            error = ERRORS[tally.total() // 2 % 2]
            status, output, reached = self.make(step, number, error)
            if not reached:
                end = f"{step}: ended with {status} though no write failed: {output[-300:]}"
                return faults + [end] * bool(status)
            wrong = self.fault(status, output)
            if dates(self.folder) != before:
                wrong = wrong or self.recover(step)
            line = next((line for line in output.splitlines() if "error:" in line), "no harm done")
            text = f"{step}, write {number} of {reached}: {os.strerror(error)}: {wrong or 'well'}: {line[:160]}"
            print(text, flush=True)
            faults += [text] if wrong else []
            tally.update({errno.errorcode[error]: 1, "refused" if status else "harmless": 1})
            number += every


def main():
    p = cli.parser(__doc__)
    p.add_argument("words", nargs="+", help="make's goals; after --, its parameters")
    p.add_argument("--every", type=int, default=1, help="try each K-th write (%(default)s)")
    p.add_argument("--save_path", type=Path, help="keep the counts there, as results/stress.csv")
    args = p.parse_args()
    parameters = [word for word in args.words if "=" in word]
    steps, expected = build_undisturbed([word for word in args.words if "=" not in word], parameters)
    tree, tally = Tree(parameters, expected), Counter()
    venv = next((Path(word.removeprefix("VENV=")) for word in parameters if word.startswith("VENV=")), Path(".venv"))
    with warm_python(venv):
        faults = [fault for step in steps for fault in tree.fail_each(step, args.every, tally)]
    have = snapshot(tree.folder)
    unlike = [name for name in expected if have.get(name) != expected[name]]
    faults += [f"{name} is not what an undisturbed build makes" for name in unlike]
    total = tally["refused"] + tally["harmless"]
    errors = ", ".join(f"{errno.errorcode[e]} {tally[errno.errorcode[e]]}" for e in ERRORS)
    result = f"{tally['refused']} refused in one line, {tally['harmless']} did no harm"
    print(f"writes: {total} failures in {len(steps)} steps ({errors}; {result})")
    if faults:
        raise cli.UserError(f"{len(faults)} of {total} went wrong, first {faults[0]}")
    shutil.rmtree(HOME)
    print("writes: after each, whole files alone; at the end, the bytes of an undisturbed build")
    which = "the n-th write, for every n" if args.every == 1 else f"each {args.every}th write"
    counts.keep(args.save_path, f"a failure of {which}", total, f"{result} ({errors}; {len(steps)} steps)", args.words)


if __name__ == "__main__":
    cli.run(main)
