"""Run the commands that make one artefact. It appears whole and with its provenance, or not at all.

    python3 -m tools.make.run --step simplify [--alone] TARGET PREREQUISITE... -- COMMAND... [-- COMMAND...]

    simplify   gate: equal: fp32, max |difference| 2.15e-06 (limit 1e-04) over 16 rows, 0 flips       2.7 s

Each prerequisite must still match its own prov.json and MANIFEST; a folder counts as all files in it. In a command, `{}` is a
temporary path beside TARGET, `{stem}` the same path without its suffix, and `{NAME.npy}` the path of a second artefact beside
TARGET. When every command has succeeded and no prerequisite has changed meanwhile, the result is hashed, TARGET.prov.json
is written, and the result is renamed to TARGET. A TARGET called MANIFEST stands for its whole folder: `{}` is then an empty
folder, and MANIFEST lists `sha256  name` of each file in it except `*_summary.json`. Those hold timings, which never repeat, so
their hashes stand under `run`. In TARGET.prov.json, `target sha256 inputs recipe commands python` must not vary; `run` (time,
host, git) may. `recipe` holds the commands as make wrote them, so that a change in one is noticed.

The commands' output goes to TARGET.log; the screen shows one line per step (tools/make/screen.py). --alone locks the
Makefile exclusively, so that nothing runs beside a measurement; all other steps share that lock. --launch PREFIX runs the
commands on another machine (tools/make/launch.py). If two makes want the same target, the second one waits, and accepts the
result of the first if its inputs and commands are the same. Processes started here end when this one does.
"""

import argparse
import fcntl
import itertools
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tools.make import cli, launch, manifest, screen, stale


def split(words: list[str]) -> tuple[Path, list[str], list[list[str]]]:
    """TARGET, PREREQUISITES and COMMANDS of an argument list that has `--` before each command."""
    groups = (list(group) for dashes, group in itertools.groupby(words, "--".__eq__) if not dashes)
    (target, *prerequisites), *commands = groups
    return Path(target), prerequisites, commands


def lock(path: Path, how: int) -> tuple[int, bool]:
    """Lock a file or folder until this process ends: (file descriptor, whether it had to wait)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(fd, how)
        return fd, True
    return fd, False


def fix_modes(top: Path) -> None:
    """Set modes that do not depend on the umask. ais_bench refuses inputs that others can write."""
    for path in [top, *top.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def write_manifest(folder: Path) -> Path:
    """Write MANIFEST of a folder and return its path."""
    path = folder / "MANIFEST"
    path.write_text(manifest.content({name: cli.sha256(folder / name) for name in manifest.members(folder)}))
    return path


def hash_of_input(path: str) -> str:
    """The hash of a prerequisite: a file, or all files of a folder. Raises UserError if it has changed since it was made."""
    if Path(path).is_dir():
        return manifest.of_folder(path)
    sha256, prov = cli.sha256(path), Path(f"{path}.prov.json")
    if prov.is_file() and cli.read_json(prov).get("sha256") != sha256:
        raise cli.UserError(f"{path}: its bytes are not those that {prov} describes; delete {path} and run make again")
    if Path(path).name == "MANIFEST" and (fault := next(manifest.faults(Path(path)), None)):
        raise cli.UserError(f"{fault}; delete {path} and run make again")
    return sha256


REFUSES = "git refuses this folder, which is another user's; git config --global --add safe.directory "


def git_state() -> dict:
    """{commit, dirty: whether the work tree differs from it, commit_from: who says so, or why git does not}; None if unknown.
    An unpacked archive has the commit that `git archive` wrote into .git_archival.txt, and its `dirty` is None."""
    where = cli.git("rev-parse", "--show-toplevel", "HEAD")
    top, *head = where.stdout.splitlines() or [""]
    if where.returncode == 0 and cli.ROOT.samefile(top):
        return {"commit": head[0], "dirty": bool(cli.git("status", "--porcelain", "-uno").stdout), "commit_from": "git"}
    if "dubious ownership" in where.stderr:
        return {"commit": None, "dirty": None, "commit_from": f"{REFUSES}{cli.ROOT}"}
    note = cli.ROOT / ".git_archival.txt"
    commit = re.fullmatch(r"commit: ([0-9a-f]{40})\n", note.read_text("utf-8")) if note.is_file() else None
    return {"commit": commit and commit[1], "dirty": None, "commit_from": commit and note.name}


def refuse_changes(before: dict[str, list[int]], inputs: dict[str, str]) -> None:
    """Raises UserError if a prerequisite has changed since the commands began."""
    for path in (p for p in before if before[p] != stale.signature(p)):
        if hash_of_input(path) != inputs[path]:
            raise cli.UserError(f"{path} changed while it was read; run make again")


def side_artefacts(target: Path, commands: list[list[str]]) -> list[Path]:
    """The further artefacts, beside TARGET, that the commands write."""
    return [target.with_name(name) for command in commands for word in command for name in screen.BESIDE.findall(word)]


def portable(commands: list[list[str]]) -> list[list[str]]:
    """The commands, with `python` in place of the path of the environment's interpreter."""
    return [["python" if c[0].endswith("/bin/python") else c[0], *c[1:]] for c in commands]


def recipe(commands: list[list[str]]) -> str:
    """The commands as make wrote them, on one line."""
    return " -- ".join(map(" ".join, portable(commands)))


def build(perform, inputs: dict[str, str], commands: list[list[str]], box: Path, show: screen.Step) -> None:
    """Make the step's target inside `box`, an empty folder beside it, then move it into place. perform: Step.perform, or that
    of tools/make/launch.py. Raises UserError if the commands wrote nothing."""
    target, final = show.target, show.final
    is_folder = final != target
    before = {path: stale.signature(path) for path in inputs}
    product, place = perform(commands, box)
    started, ended = place.pop("started"), place.pop("ended")
    if not product.exists() or (is_folder and not any(product.iterdir())):
        raise cli.UserError(f"{commands[-1][0]} ended well but wrote nothing to {target}")
    refuse_changes(before, inputs)
    parts = {path: box / path.name for path in side_artefacts(target, commands)}
    parts[target] = write_manifest(product) if is_folder else product
    summaries = {p.relative_to(product).as_posix(): cli.sha256(p) for p in sorted(product.rglob("*_summary.json"))}
    for path in (product, *parts.values()):
        fix_modes(path)
    prov = {
        "inputs": inputs,
        "recipe": recipe(commands),
        "commands": portable(commands),
        "python": platform.python_version(),
        "run": {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(ended - started, 3),
            **place,
            **git_state(),
            **({"summaries": summaries} if summaries else {}),
        },
    }
    # Everything is written inside the box first. Then files are only renamed, each artefact before its prov.json.
    for path, part in parts.items():
        text = json.dumps({"target": str(path), "sha256": cli.sha256(part), **prov}, indent=1)
        Path(f"{part}{stale.PROV}").write_text(text + "\n")
    log = Path(f"{parts[target]}.log")
    log.write_text(show.log_text())
    os.utime(parts[target], (0, 0))  # it looks old until main() has cleaned up: after a kill it is made again
    if is_folder:
        if final.exists():
            final.rename(box / "old")
        product.rename(final)
        return
    for path, part in parts.items():
        part.rename(path)
        Path(f"{part}{stale.PROV}").rename(f"{path}{stale.PROV}")
    log.rename(f"{target}.log")


def is_done(target: Path, since: float, inputs: dict[str, str], commands: list[list[str]]) -> bool:
    """Whether another make has made TARGET since that time, from the same inputs by the same commands."""
    try:
        prov = cli.read_json(f"{target}{stale.PROV}")
        return target.stat().st_mtime > since and (prov["inputs"], prov["recipe"]) == (inputs, recipe(commands))
    except (OSError, cli.UserError, KeyError):
        return False


BOX = f"{manifest.MARK}.tmp"  # suffix of a step's temporary folder
LOST = "lost"  # a file beside a target that --launch failed to make; it tells the table why

# Steps copy weights of 100 MB and more a dozen times. These settings let glibc keep freed memory, instead of returning it to
# the kernel and asking for it again page by page. Measurements run without them, as they would outside this project.
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


def main():
    os.umask(0o022)
    p = cli.parser(__doc__)
    p.add_argument("--step", required=True, help="its name on the screen")
    p.add_argument("--alone", action="store_true", help="nothing else runs meanwhile")
    p.add_argument("--launch", metavar="PREFIX", help="run the commands behind it, on another machine")
    p.add_argument("--labelled", action="store_true", help="show which configuration it is")
    p.add_argument("words", nargs=argparse.REMAINDER, metavar="TARGET PREREQUISITE... -- COMMAND...")
    args = p.parse_args()
    target, prerequisites, commands = split(args.words)
    start = time.time()
    show = screen.Step(args.step, target, args.labelled)
    parent = show.final.parent
    parent.mkdir(parents=True, exist_ok=True)
    _, waited = lock(parent, fcntl.LOCK_EX)
    inputs = {path: hash_of_input(path) for path in prerequisites}
    if waited and is_done(target, start, inputs, commands):
        return show.print_line("made meanwhile by another make")
    if not args.launch:  # tools/make/launch.py locks the machine that runs them
        lock(Path("Makefile"), fcntl.LOCK_EX if args.alone else fcntl.LOCK_SH)
    if not args.alone:
        os.environ.update(KEEP_FREED)
    elsewhere = lambda commands, box: launch.perform(args.launch.split(), args.alone, commands, box, show)
    prefix = f".{show.final.name}."
    for old in parent.glob(f"{prefix}*{BOX}"):
        if (old / "job.json").exists():
            launch.forget(old)
        shutil.rmtree(old, ignore_errors=True)
    box = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=BOX))
    try:
        build(elsewhere if args.launch else show.perform, inputs, commands, box, show)
        (parent / LOST).unlink(missing_ok=True)
    except cli.UserError as e:
        show.print_log()
        if args.launch:
            (parent / LOST).write_text(f"{args.step}: {e}\n")
        full = shutil.disk_usage(parent).free < 1 << 20
        raise cli.UserError(f"{target} was not made: {'the disk is full, make room; ' * full}{e}") from None
    except OSError as e:  # of its own prov.json, MANIFEST or rename
        e.filename = e.filename or str(target)
        raise
    finally:
        shutil.rmtree(box, ignore_errors=True)
    for file in (*side_artefacts(target, commands), target):
        os.utime(file)
    show.print_line()
    if args.step in ("accuracy", "perf") and (reason := git_state()["commit_from"] or "").startswith(REFUSES):
        print(f"{args.step}: no commit and no dirty in it: {reason}", file=sys.stderr)


def terminated(*_):
    """Exit, so that `finally` blocks clean up. A second SIGTERM, which children get from make, must not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    cli.run(main)
