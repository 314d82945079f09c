"""Run the commands that make one artefact; the artefact appears whole, described, or not at all.

    python3 -m tools.run [--alone] TARGET PREREQUISITE... -- COMMAND... [-- COMMAND...]

    ==> build/minilm_sst2/default/model.onnx
    ...
    <== build/minilm_sst2/default/model.onnx  90.9 MB  7.1 s

`{}` in a command is a temporary path beside TARGET, `{stem}` the same without its suffix. When every command has ended well the result is hashed,
TARGET.prov.json says what made it, and it is renamed to TARGET. Other files left beside `{}` are dropped.
A TARGET called MANIFEST stands for its whole folder: `{}` is then an empty folder, and MANIFEST lists
`sha256  name` of each file in it, sorted, but for `*_summary.json`: those hold timings, which never repeat.

TARGET.prov.json: `target sha256 inputs commands python` must not vary; `run` (time, host, git) may.

Nothing runs beside a measurement: --alone locks the Makefile exclusively, all other work shares that lock.
Two makes that want one target: the second waits, and takes what the first made.
Only the standard library: this runs before anything is installed.
"""

import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import cli


def split(argv: list[str]) -> tuple[Path, list[str], list[list[str]]]:
    """TARGET, PREREQUISITES and COMMANDS of an argument list in which `--` stands before each command."""
    groups: list[list[str]] = [[]]
    for word in argv:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(word)
    (target, *prerequisites), *commands = groups
    return Path(target), prerequisites, commands


def lock(path: Path, how: int) -> tuple[int, bool]:
    """Lock a file or folder until this process ends; also say whether that meant waiting."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(fd, how)
        return fd, True
    return fd, False


def call(command: list[str]) -> None:
    """Run one command; its failure is ours, named by the command."""
    try:
        status = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise cli.UserError(f"{command[0]}: not found; `make doctor` says what is here") from None
    if status:
        how = signal.Signals(-status).name if status < 0 else f"exit {status}"
        raise cli.UserError(f"{how} from: {' '.join(command)}")


def settle(made: Path) -> None:
    """Fixed modes whatever the umask: ais_bench refuses inputs that others may write."""
    for path in [made, *made.rglob("*")] if made.is_dir() else [made]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def manifest(folder: Path) -> Path:
    """Write MANIFEST of a folder and return its path."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [n for n in names if not n.endswith("_summary.json")]
    path = folder / "MANIFEST"
    path.write_text("".join(f"{cli.sha256(folder / n)}  {n}\n" for n in names))
    return path


def git_state() -> dict:
    """The commit and whether the work tree differs from it; null outside a repository."""
    ask = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    head = ask("rev-parse", "HEAD")
    if head.returncode:
        return {"commit": None, "dirty": None}
    return {"commit": head.stdout.strip(), "dirty": bool(ask("status", "--porcelain", "-uno").stdout)}


def build(target: Path, prerequisites: list[str], commands: list[list[str]], box: Path) -> int:
    """Make TARGET inside `box`, an empty folder beside it, then move it into place. Returns its bytes."""
    folder = target.name == "MANIFEST"
    final = target.parent if folder else target
    made = box / final.name
    if folder:
        made.mkdir()
    started = time.time()
    for command in commands:
        call([word.replace("{}", str(made)).replace("{stem}", str(made.with_suffix(""))) for word in command])
    if not made.exists() or (folder and not any(made.iterdir())):
        raise cli.UserError(f"{commands[-1][0]} ended well but wrote nothing to {target}")
    size = sum(p.stat().st_size for p in made.rglob("*")) if folder else made.stat().st_size
    listed = manifest(made) if folder else made
    settle(made)
    prov = {
        "target": str(target),
        "sha256": cli.sha256(listed),
        "inputs": {p: cli.sha256(p) for p in prerequisites},
        "commands": [["python" if w.endswith("/bin/python") else w for w in c] for c in commands],
        "python": platform.python_version(),
        "run": {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 3),
            "host": platform.node(),
            "platform": platform.platform(),
            **git_state(),
        },
    }
    written = made / "MANIFEST.prov.json" if folder else box / "prov.json"
    written.write_text(json.dumps(prov, indent=1) + "\n")
    written.chmod(0o644)
    os.utime(listed, (0, 0))  # of no use to make until main() has cleared up: killed before that, it is made again
    if not folder:
        written.rename(f"{target}.prov.json")
    if folder and final.exists():
        final.rename(box / "old")
    made.rename(final)
    return size


def main():
    os.umask(0o022)
    argv = sys.argv[1:]
    alone = argv[:1] == ["--alone"]
    target, prerequisites, commands = split(argv[alone:])
    folder = target.name == "MANIFEST"
    parent = target.parent.parent if folder else target.parent
    parent.mkdir(parents=True, exist_ok=True)
    asked = time.time()
    _, waited = lock(parent, fcntl.LOCK_EX)
    if waited and target.exists() and target.stat().st_mtime > asked:
        return print(f"=== {target}  made meanwhile by another make")
    lock(Path("Makefile"), fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    prefix = f".{(target.parent if folder else target).name}."
    for stale in parent.glob(f"{prefix}*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    box = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=".tmp"))
    print(f"==> {target}", flush=True)
    try:
        size = build(target, prerequisites, commands, box)
    except cli.UserError as e:
        full = shutil.disk_usage(parent).free < 1 << 20
        raise cli.UserError(f"{target} was not made: {'the disk is full, make room; ' * full}{e}") from None
    except OSError as e:  # of its own prov.json, MANIFEST or rename
        e.filename = e.filename or str(target)
        raise
    finally:
        shutil.rmtree(box, ignore_errors=True)
    os.utime(target)
    print(f"<== {target}  {size / 1e6:.1f} MB  {time.time() - asked:.1f} s", flush=True)
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cli.run(main)
