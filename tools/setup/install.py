"""Make a virtual environment that holds the locked packages, and nothing of the user's environment.

    python3 -m tools.setup.install .venv requirements.txt requirements-cpu.txt requirements-cuda.txt
    setup      .venv: 86 locked packages, about 2 GB                          74.0 s

The first file is installed; the files named -cpu and -cuda hold what replaces or completes it: PyTorch's CPU build is
tried first where pip finds one, and what only PyPI's CUDA build needs is installed where that build is. The stamp
<folder>/installed is a copy of the locks and is written last; where it is missing, what is already installed is kept
and the rest is added. The folder is one that this script made (it holds a mark), an empty one or a new one; any other
is refused, so nothing of the user's is ever cleared. pip's settings for where packages come from (index, proxy,
certificates) are obeyed, all others are not. A release brings a folder `wheels`: then no index is asked. Only the standard library: this runs before anything is installed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tools.make import cli, manifest, screen

WHEELS = cli.ROOT / "wheels"  # of a release
# Where packages come from is the user's business; where they go, and what may be skipped, is ours.
OBEYED = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "TRUSTED_HOST", "PROXY", "CERT", "CLIENT_CERT", "TIMEOUT",
          "DEFAULT_TIMEOUT", "RETRIES", "CACHE_DIR", "NO_CACHE_DIR", "NO_INDEX", "CONFIG_FILE", "KEYRING_PROVIDER")  # fmt: skip


def environment():
    """This environment without Python's own variables and without the settings of pip that are not in OBEYED."""
    keep = lambda k: not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV")) or k.removeprefix("PIP_") in OBEYED
    return {k: v for k, v in os.environ.items() if keep(k)} | {"PYTHONNOUSERSITE": "1"}


def pip(folder, *words, log=None):
    """Run pip of an environment, its output added to `log`; its exit status."""
    command = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *words]
    try:
        run = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return screen.wait(run, f"{folder}: pip {words[0]}")
    except OSError:
        return 1


def ours(folder):
    """Whether an environment was made here: it is one, and has our mark, or the stamp that older ones have alone."""
    try:
        stamp = (folder / "installed").read_text("utf-8")
    except (OSError, ValueError):
        stamp = ""
    lock = re.match(r"[a-z0-9][a-z0-9-]*==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", stamp)
    return (folder / "pyvenv.cfg").is_file() and (manifest.marked(folder) or bool(lock))


def make(folder):
    """The environment itself; UserError where the folder is not ours to fill."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    begun = manifest.marked(folder) and names <= {manifest.MARK, "bin", "include", "lib", "lib64"}  # and then killed
    if names and not begun and not ours(folder):
        raise cli.UserError(f"VENV={folder}: a folder with files that are not ours; name a new one")
    if not (folder / "bin" / "python").exists() or pip(folder, "--version", log=subprocess.DEVNULL):
        manifest.mark(folder)
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(folder)], env=environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise cli.UserError(
                f"{folder}: {(done.stderr or done.stdout).strip().splitlines()[-1]}; is python3-venv installed?"
            )
    manifest.mark(folder)


def install(folder, locks, log):
    """Install the locked packages into an environment; UserError with pip's own last error."""
    kind = lambda name: next((p for p in locks if p.stem.endswith(name)), None)
    source = ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() and len(locks) > 1 else []
    fill = lambda path: pip(folder, "install", "--no-deps", "--require-hashes", *source, "-r", str(path), log=log)
    if kind("-cpu"):
        fill(kind("-cpu"))  # where pip finds no such build, the next line takes PyPI's
    if fill(locks[0]):
        raise failed(folder, log, "install")
    if kind("-cuda") and pip(folder, "check", log=log) and fill(kind("-cuda")):
        raise failed(folder, log, "install")
    if len(locks) > 1 and pip(folder, "check", log=log):
        raise failed(folder, log, "check")


def failed(folder, log, what):
    """UserError for a pip that stopped."""
    log.flush()
    lines = Path(log.name).read_text(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if "ERROR" in line or "has requirement" in line), "no reason given")
    other = "; for another Python or processor than the release's, move `wheels` away" if WHEELS.is_dir() else ""
    return cli.UserError(
        f"{folder}: pip {what} failed: {said.strip()[:300]} (all of it in {log.name}); mend it and make again{other}"
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("locks", type=Path, nargs="+", help="lock files; the first is the whole")
    p.add_argument("--behind", type=Path, help="another environment, whose packages this one sees behind its own")
    args = p.parse_args()
    stamp, wanted = args.folder / "installed", b"".join(lock.read_bytes() for lock in args.locks)
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return stamp.touch()
    started, count = time.time(), sum(line[:1].isalnum() for line in args.locks[0].read_text().splitlines())
    what = f"{args.folder}: {count} locked packages" + ("" if args.behind else ", about 2 GB")
    print(f"setup      {what} ...", end="", flush=True)
    make(args.folder)
    with (args.folder / "installed.log").open("w") as log:
        install(args.folder, args.locks, log)
    if args.behind:
        (site,) = (args.folder / "lib").glob("python*/site-packages")
        (other,) = (args.behind.resolve() / "lib").glob("python*/site-packages")
        (site / "product.pth").write_text(f"{other}\n")
    with cli.whole_file(stamp) as f:
        f.write(wanted)
    print(f"\rsetup      {what:<62} {time.time() - started:7.1f} s")
    return None


if __name__ == "__main__":
    cli.run(main)
