"""Make a virtual environment of the locked packages, independent of the user's own environment.

    python3 -m tools.setup.install .venv requirements.txt requirements-cpu.txt requirements-cuda.txt
    setup      .venv: 87 locked packages, 2.3 GB: PyTorch's CPU build, from download.pytorch.org ...

The first file is the main lock; -cpu holds the hashes of PyTorch's CPU build, -cuda the packages that only its CUDA build
needs. The CPU build is installed if pip's own settings lead to it, or if download.pytorch.org can be reached; otherwise PyPI's
CUDA build is. The first line says which, before the download begins. The stamp <folder>/installed is a copy of the locks. It
is written last, when pip confirms that everything is there; without it, missing packages are added. The folder must be new,
empty, or marked as made by this script; any other is refused. Of pip's settings only those are used that say where packages
come from (SOURCES in tools/source/fetch.py). Downloads are kept in the folder until pip ends, since /tmp may lie in memory. A
release brings a folder `wheels`, and then no index is asked. Only the standard library is used, since this runs before
anything is installed.
"""

import contextlib
import fcntl
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tools.make import cli, manifest, run, screen
from tools.source import fetch

WHEELS = cli.ROOT / "wheels"  # a release brings it
PYTORCH = "https://download.pytorch.org/whl/cpu"
GIGABYTES = {"CPU": 2.3, "CUDA": 6.3}  # size of an environment by PyTorch's build, measured on Debian 12 and 13
DOWNLOADED = {"CPU": 0.5, "CUDA": 3.1}  # GB of downloads beside it until pip ends
MEMORY = {"CPU": 1.1, "CUDA": 1.9}  # GB of the largest process of `make accuracy`, which loads PyTorch


def environment(folder):
    """The environment variables for pip: without Python's own, and of pip's only those that say where packages come from."""
    prefixes = ("PYTHON", "PIP_", "VIRTUAL_ENV")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    settings = fetch.pip_settings("install", str(folder))
    settings |= {"retries": "1"} if settings.get("retries") == "0" else {}  # with 0 pip names no silent server
    sources = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
    return plain | sources | {"PIP_CONFIG_FILE": os.devnull, "PYTHONNOUSERSITE": "1"}


def pip(folder, *words, log=None):
    """Run the pip of an environment, append its output to `log`, and return its exit status."""
    command = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *words]
    downloads = folder / "tmp"
    shutil.rmtree(downloads, ignore_errors=True)  # of a run that was killed
    downloads.mkdir()
    variables, ends = environment(folder) | {"TMPDIR": str(downloads.resolve())}, cli.die_with_parent
    run = subprocess.Popen(command, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=ends)
    return screen.wait(run, f"{folder}: pip {words[0]}")


def has_pip(folder):
    """Whether an environment still has Python and pip: both break when the Python that it was made from is removed."""
    command = ["env", folder / "bin" / "python", "-Ic", "import pip"]  # env ends with 127 where there is no Python
    return not subprocess.run(command, capture_output=True).returncode


def is_ours(folder):
    """Whether a folder is an environment that this script made."""
    return (folder / "pyvenv.cfg").is_file() and manifest.marked(folder)


def make(folder):
    """Make the environment itself. Raises UserError for a folder that has files of somebody else."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    begun = manifest.marked(folder) and names <= {manifest.MARK, "bin", "include", "lib", "lib64"}  # was killed
    if names and not begun and not is_ours(folder):
        raise cli.UserError(f"VENV={folder}: a folder with files that are not ours; name a new one")
    if not has_pip(folder):
        manifest.mark(folder)
        command = [sys.executable, "-m", "venv", "--clear", str(folder)]
        done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False)
        if done.returncode:
            last = ((done.stderr or done.stdout).strip().splitlines() or ["no reason given"])[-1]
            raise cli.UserError(f"{folder}: {last}; is python3-venv installed?")
    manifest.mark(folder)


@functools.cache
def cpu_build(folder, locks=(Path("requirements-cpu.txt"),)):
    """(where PyTorch's CPU build for this Python is, pip's options to find it), or (why there is none, None)."""
    lock = next((path for path in locks if path.stem.endswith("-cpu")), None)
    if not lock:
        return "", None
    version, newest = re.search(r"^torch==(\S+?)\+cpu .*python_version \S+ '3\.(\d+)'", lock.read_text(), re.M).groups()
    if sys.version_info >= (3, int(newest)) and "<" in lock.read_text():
        return f"the lock has no CPU build for Python {platform.python_version()}", None
    if any((folder / "lib").glob(f"python*/site-packages/torch-{version}+cpu.dist-info")):
        return str(folder), []
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    name = rf"torch-{re.escape(version)}\+cpu-{tag}-{tag}-.*linux.*_{platform.machine()}\.whl"
    settings = fetch.pip_settings("install", str(folder))
    index = fetch.Index(settings)
    for place in [str(WHEELS)] if WHEELS.is_dir() else map(os.path.expanduser, settings.get("find-links", "").split()):
        with contextlib.suppress(OSError, ValueError, fetch.Broken):
            names = [p.name for p in Path(place).iterdir()] if Path(place).is_dir() else index.links(place)
            if any(re.fullmatch(name, file) for file in names):
                return place, []
    if WHEELS.is_dir() or settings.get("no-index", "").lower() in ("1", "on", "t", "true", "y", "yes"):
        return "no place that pip looks into has that for the CPU", None
    if url := index.find("torch", name)[0]:
        return urlsplit(url).hostname or url, []
    index.urls, index.timeout = [PYTORCH], min(index.timeout, 10)
    url, answer = index.find("torch", name)
    return (urlsplit(PYTORCH).hostname, ["--extra-index-url", PYTORCH]) if url else (answer, None)


def size(place, cpu):
    """The size of the environment in words. place, cpu: as `cpu_build` returns them."""
    if cpu is not None:
        return f"{GIGABYTES['CPU']} GB: PyTorch's CPU build, from {place}"
    smaller = f"for {GIGABYTES['CPU']} GB lead pip to that for the CPU by PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS"
    return f"{GIGABYTES['CUDA']} GB: PyTorch's CUDA build ({place}; {smaller})"


def install(folder, locks, log, cpu=None):
    """Install the locked packages into an environment. Raises UserError with pip's last error. cpu: as from `cpu_build`."""
    kind = {path.stem.rpartition("-")[2]: path for path in locks[1:]}
    source = ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() and kind else []
    words = ["--no-deps", "--require-hashes", *source]
    fill = lambda path, *more: pip(folder, "install", *words, *more, "-r", str(path), log=log)
    if cpu is not None and fill(kind["cpu"], *cpu):
        print(f"setup      no CPU build: {reason(log)}; PyPI's, {GIGABYTES['CUDA']} GB, instead ...", flush=True)
    if fill(locks[0]) or ("cuda" in kind and pip(folder, "check", log=log) and fill(kind["cuda"])):
        raise failed(folder, log, "install")
    if kind and pip(folder, "check", log=log):
        raise failed(folder, log, "check")
    asked = pip(folder, "install", "--dry-run", "--no-index", "--no-deps", "-r", str(locks[0]), log=log)
    if asked or "Would install" in Path(log.name).read_text(errors="replace"):
        raise cli.UserError(f"{folder}: pip ended well, and yet not all that {locks[0]} names is there: see {log.name}")


def reason(log):
    """Why pip failed: its last error, or why no server answered."""
    lines = Path(log.name).read_text(errors="replace").strip().splitlines() or ["no reason given"]
    said = ([line for line in lines if "ERROR" in line or "has requirement" in line] or lines)[-1]
    silent = [line.split(" broken by ", 1)[1] for line in lines if "connection broken by" in line]
    if silent and "No matching distribution" in said:
        said = f"the {'proxy' if 'Proxy' in silent[-1] else 'package index'} does not answer: {silent[-1]}"
    return f"{said.strip()[:300]} (all of it in {log.name})"


def failed(folder, log, what):
    """The UserError for a failed pip."""
    other = "; for another Python or processor than the release's, move `wheels` away" if WHEELS.is_dir() else ""
    return cli.UserError(f"{folder}: pip {what} failed: {reason(log)}; mend it and make again{other}")


def main():
    p = cli.parser(__doc__)
    p.add_argument("folder", type=Path)
    p.add_argument("locks", type=Path, nargs="+", help="lock files; the first is the whole")
    p.add_argument("--behind", type=Path, help="another environment, whose packages this one sees behind its own")
    args = p.parse_args()
    stamp, wanted = args.folder / "installed", b"".join(lock.read_bytes() for lock in args.locks)
    complete = lambda: stamp.is_file() and stamp.read_bytes() == wanted and has_pip(args.folder)
    if complete():
        return stamp.touch()
    started, count = time.time(), sum(line[:1].isalnum() for line in args.locks[0].read_text().splitlines())
    what, cpu = f"{args.folder}: {count} locked packages", None
    if not args.behind:
        place, cpu = cpu_build(args.folder, tuple(args.locks))
        what += f", {size(place, cpu)}" * bool(place)
    print(f"setup      {what} ...", flush=True)
    with contextlib.suppress(OSError):  # NFS locks for one alone only what can be written
        run.lock(Path("Makefile"), fcntl.LOCK_EX)
    if complete():  # another make was at it
        return None
    make(args.folder)
    with (args.folder / "installed.log").open("w") as log:
        install(args.folder, args.locks, log, cpu)
    if args.behind:
        (site,) = (args.folder / "lib").glob("python*/site-packages")
        (other,) = (args.behind.resolve() / "lib").glob("python*/site-packages")
        (site / "product.pth").write_text(f"{other}\n")
    cli.write(stamp, wanted)
    print(f"setup      {args.folder}: {count} locked packages, {time.time() - started:.1f} s")
    return None


if __name__ == "__main__":
    cli.run(main)
