"""Make two clean builds, as unlike as one machine allows, and compare their bytes.

    python -m tools.checks.reproduce build/.../cpu-onnxruntime-fp32/accuracy.txt build/.../ascend.onnx -- MODEL=...

    ==> build/reproduce/one: make -j1 build/.../accuracy.txt build/.../ascend.onnx MODEL=...
        weights    wrote build/tiny/default/checkpoint/model.safetensors  9,204,112 bytes        2.7 s
        ...
    reproduce: 2645 files of two clean builds are the same, byte for byte

The arguments are make's goals and, after --, its parameters. Downloads and installed packages are shared. The builds differ
in folder, -j, locale, time zone, umask, HOME, user and host name, number of processors, address randomisation, the CPU units
that PyTorch uses, and, by lab/unlike.c, the order in which folders are read and the clock (a year ahead). What cannot be
varied on this machine is named. All files are compared, without the parts that never repeat: time and machine in a record,
timed rounds and what is made of them, `run` in a TARGET.prov.json. If two ONNX files differ, so do initializers: each is named.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools.make import cli, manifest, models, parameters, run

HOME = Path("build/reproduce")
UNLIKE = HOME / "unlike.so"
HOST = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
# within: commands that run another command, given behind their own words; those that do not work here are left out.
BUILDS: dict[str, dict] = {
    "one": {"jobs": 1, "umask": 0o022, "env": {"LC_ALL": "C", "TZ": "UTC", "USER": "one"},
            "within": [["setarch", "-R"], ["taskset", "-c", str(min(os.sched_getaffinity(0)))]]},
    "another/folder": {"jobs": 8, "umask": 0o077, "env": {"LC_ALL": "C.UTF-8", "TZ": "JST-9", "USER": "other",
                                                          "LOGNAME": "other", "ATEN_CPU_CAPABILITY": "avx2"},
                       "within": [HOST, ["env", "LC_ALL=tr_TR.UTF-8"], ["env", f"LD_PRELOAD={UNLIKE.absolute()}"]]},
}  # fmt: skip
LOCAL = Path("results/local")
# Files that a build may need: new ones that git does not track yet; in a tree without git, all.
NEW = ("mk/*.mk", "lab/*.mk", *(f"{top}/*.{kind}" for top in ("tools", "lab") for kind in ("py", "[ch]")),
       ":(glob)models/*/*", "results/records/*.json", "results/bench/*.json")  # fmt: skip
FOLDERS = ("mk", "tools", "lab", "models", "data", "test", "docs", ".ci", "results")
FILES = ("Makefile", "requirements*", "*.toml", "*.md", "*.cff", "LICENSE", "Containerfile", ".containerignore",
         ".git[ai_]*")  # fmt: skip


def sources() -> list[Path]:
    """The files of this tree that a build may need: tracked ones, and new ones that match NEW. The user's files that a
    model.toml names are left out: they may be of any size."""
    tracked: list[Path] = []
    listing = lambda *words: [Path(name) for name in cli.git("ls-files", *words).stdout.split("\0") if name]
    if run.git_state()["commit_from"] == "git":
        tracked, new = listing("-z"), listing("-oz", "--exclude-standard", *NEW)
    else:
        tops = [path for pattern in (*FOLDERS, *FILES) for path in Path().glob(pattern)]
        new = [path for top in tops for path in (top, *top.rglob("*"))]
    own_files = model_files()
    tracked += [path for path in new if not any(path.is_relative_to(name) for name in own_files)]
    present = (path for path in tracked if path.is_file() or path.is_symlink())
    return [p for p in present if "__pycache__" not in p.parts and p.parts[:2] != LOCAL.parts]


def model_files() -> set[str]:
    """The user's files that model.toml files name and that exist. A broken model.toml names none."""
    names = set()
    for name in models.names(Path("models")):
        with contextlib.suppress(cli.UserError):
            values = models.settings(name, Path("models"))
            names |= {values[key] for key in ("weights", "data", "train")}
    return {name for name in names if name and Path(name).exists()}


def clean_copy(folder: Path) -> Path:
    """Copy this tree's sources and records to `folder`; link its downloads and what its model.toml files name."""
    home = Path(*folder.parts[:2])  # build/<name of the check>, removed when the check succeeds
    if folder != home and not manifest.marked(home):
        manifest.take(home)
    manifest.take(folder)
    for path in sources():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / path, follow_symlinks=False)
    downloads = Path("build/downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    (folder / "build").mkdir()
    (folder / "build" / "downloads").symlink_to(downloads.resolve())
    link(folder, model_files())
    return folder


def link(folder: Path, names: Iterable[str]) -> None:
    """Link each relative path, unless it leads out of this tree, so that it means in `folder` what it means here."""
    for name in names:
        inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if inside and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(Path(name).resolve())


def link_environment(folder: Path, words: list[str]) -> None:
    """`link` what VENV= and WEIGHTS= among make's words name. Raises UserError if WEIGHTS leads out of the tree by `..`."""
    values = {name: value for name, _, value in (word.partition("=") for word in words)}
    weights = values.get("WEIGHTS", "")
    if ".." in Path(weights).parts:
        raise cli.UserError(f"WEIGHTS={weights}: leads out of a copy of this tree; give its whole path")
    link(folder, [values.get("VENV", ""), weights if Path(weights).exists() else ""])


def from_here(word: str) -> str:
    """A word `NAME=value` for make in another folder: the user's files get their absolute paths."""
    name, _, value = word.partition("=")
    return f"{name}={Path(value).absolute()}" if name in parameters.FILES and value else word


def make(
    folder: Path, words: list[str], jobs=1, umask=-1, env: dict | None = None, show=print, within=()
) -> str | None:
    """Run make in `folder`, with its output in folder/make.log and one line shown per step. Returns its error, or None."""
    link_environment(folder, words)
    command = [*within, "make", f"-j{jobs}", *map(from_here, words)]
    show(f"==> {folder}: {' '.join(command[len(within) :])}", flush=True)
    last = ""
    with (folder / "make.log").open("w") as log, subprocess.Popen(
        command, cwd=folder, env=cli.clean_environment() | (env or {}), umask=umask, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout:
            log.write(line)
            if re.search(r" \d+\.\d s$", line):  # a step has ended
                show(f"    {line}", end="", flush=True)
            if re.search(r"\berror: |\*\*\* (?!\[)", line):
                last = last or line.strip()
    return (last or f"see {folder}/make.log") if process.returncode else None


# Fields of a record, and of its engine_info, that may differ.
VARIES = ("started", "commit", "dirty", "machine", "threads", "streams")


def usable_commands(commands: list[list[str]]) -> list[str]:
    """The commands in which `locale` says what it should, joined into one prefix. Those in which it does not are printed."""
    prefix: list[str] = []
    for command in commands:
        done = subprocess.run(["env", "LC_ALL=C", *command, "locale"], capture_output=True, text=True, check=False)
        if fault := done.stderr.strip():
            print(f"not varied here: {' '.join(command)}: {fault.splitlines()[-1]}")
        prefix += [] if fault else command
    return prefix


def comparable_bytes(path: Path) -> bytes:
    """The bytes of a file without the parts that may differ between runs."""
    varies = ("run",) if path.name.endswith(".prov.json") else VARIES
    if path.name == "accuracy.txt":  # as tools/results/show.py writes it; the builds have unlike numbers of processors
        return re.sub(rb"(?m)^chip .*\n", b"", path.read_bytes())
    if path.name != "accuracy.json" and varies is VARIES:
        return path.read_bytes()
    fields = json.loads(path.read_text())
    for part in (fields, fields.get("engine_info") or {}):
        for name in varies:
            part.pop(name, None)
    return json.dumps(fields).encode()


def unlike_initializers(one: Path, other: Path) -> list[str]:
    """A line for each initializer in which two ONNX files differ, or one line that says that none does."""
    import numpy as np
    from onnx import numpy_helper

    from tools.base import onnxfile

    both = [{t.name: numpy_helper.to_array(t) for t in onnxfile.load_model(p).graph.initializer} for p in (one, other)]
    lines = [f"{name}: in one file only" for name in sorted(both[0].keys() ^ both[1].keys())]
    for name in sorted(both[0].keys() & both[1].keys()):
        a, b = (arrays[name] for arrays in both)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            lines.append(f"{name}: {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
        elif a.tobytes() != b.tobytes():
            most = np.abs(a.astype(float) - b.astype(float)).max()
            lines.append(f"{name}: {np.sum(a != b)} of {a.size} values differ, by {most:.3g} at most")
    return lines or ["every initializer is the same: the nodes differ"]


TIMED = re.compile(
    r"(^|/)(round\d+/.*|perf\..*|perf-table\..*|imports\.(mk|json)|given\.json|[^/]*\.log|[^/]*_summary\.json|"
    r"accuracy\.(json|txt)\.prov\.json|accuracy-table\..*\.prov\.json)$"
)


def made_files(folder: Path) -> dict[str, Path]:
    """{name: path} of the files that a build made, without downloads and timings."""
    paths = [p for top in ("build", LOCAL) for p in sorted((folder / top).rglob("*")) if p.is_file()]
    names = {p.relative_to(folder).as_posix(): p for p in paths}
    return {n: p for n, p in names.items() if not n.startswith("build/downloads/") and not TIMED.search(n)}


def differences(one: Path, other: Path) -> tuple[int, list[str]]:
    """(how many files two builds made, the names of those that differ or that only one has)."""
    a, b = made_files(one), made_files(other)
    both, mode = sorted(a.keys() & b.keys()), lambda p: p.stat().st_mode & 0o777
    unlike = [n for n in both if comparable_bytes(a[n]) != comparable_bytes(b[n])]
    held = (n for n in both if n.endswith(("MANIFEST", ".bin", ".npy", ".onnx", ".om")) and mode(a[n]) != mode(b[n]))
    unlike += [f"{n} (mode {mode(a[n]):o} and {mode(b[n]):o})" for n in held]
    unlike += [f"{n} (in one build only)" for n in sorted(a.keys() ^ b.keys())]
    return len(a.keys() | b.keys()), unlike


def main():
    p = cli.parser(__doc__)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    words = p.parse_args().goals
    folders = [clean_copy(HOME / name) for name in BUILDS]
    if shutil.which("gcc"):
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", UNLIKE, cli.ROOT / "lab/unlike.c"], check=False)
    for folder, how in zip(folders, BUILDS.values(), strict=True):
        env, within = {**how["env"], "HOME": str(folder.resolve())}, usable_commands(how["within"])
        if error := make(folder, words, how["jobs"], how["umask"], env, within=within):
            raise cli.UserError(f"{folder}: the build failed: {error}")
    total, unlike = differences(*folders)
    if not total:
        raise cli.UserError(f"{' '.join(words)}: nothing was made, so nothing was compared")
    for name in unlike:
        print(f"differs: {name}")
        if name.endswith(".onnx"):
            print(*(f"    {line}" for line in unlike_initializers(*(folder / name for folder in folders))), sep="\n")
    if unlike:
        raise cli.UserError(f"{len(unlike)} of {total} files differ under {HOME}, first {unlike[0]}")
    shutil.rmtree(HOME)
    print(f"reproduce: {total} files of two clean builds are the same, byte for byte")


if __name__ == "__main__":
    cli.run(main)
