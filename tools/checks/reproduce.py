"""Two clean builds, in different folders, unlike in -j, locale, time zone and umask: the same bytes, or not.

    python -m tools.checks.reproduce build/.../cpu-onnxruntime-fp32/accuracy.txt build/.../ascend.onnx -- MODEL=...

    ==> build/reproduce/one: make -j1 build/.../accuracy.txt build/.../ascend.onnx MODEL=...
        weights    wrote build/tiny/default/checkpoint/model.safetensors  9,204,112 bytes        2.7 s
        ...
    reproduce: 2645 files of two clean builds are the same, byte for byte

The arguments are make's goals and, after --, its parameters. Downloads and installed packages are shared. All that
was made is compared but for timings: a record's time of day, the rounds of a throughput measurement and what is
made from them, and the `run` part of each TARGET.prov.json.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.make import cli, parameters

HOME = Path("build/reproduce")
BUILDS = {
    "one": {"jobs": 1, "umask": 0o022, "env": {"LC_ALL": "C", "LANG": "C", "TZ": "UTC"}},
    "another/folder": {"jobs": 8, "umask": 0o077, "env": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8",
                                                          "TZ": "Asia/Tokyo"}},
}  # fmt: skip
KEPT = ("records", "bench")
LEFT_OUT = (".git", ".venv", ".venv-bench", "wheels", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")


def clean_copy(folder: Path) -> Path:
    """This tree in `folder`, without what was built but with the records, and with its downloads shared."""
    if folder.exists():
        shutil.rmtree(folder)

    def skip(where, names):
        if Path(where) == Path():
            return {n for n in names if n in (*LEFT_OUT, "build")}
        return {n for n in names if n in LEFT_OUT or (Path(where) == Path("results") and n not in KEPT)}

    shutil.copytree(".", folder, ignore=skip, symlinks=True)
    downloads = Path("build/downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    (folder / "build").mkdir()
    (folder / "build" / "downloads").symlink_to(downloads.resolve())
    return folder


def link_environment(folder: Path, words: list[str]) -> None:
    """Let a relative VENV= of `words` mean in `folder` what it means here: one environment for all copies."""
    for name in (word.removeprefix("VENV=") for word in words if word.startswith("VENV=")):
        link = folder / name
        if not Path(name).is_absolute() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(name).resolve())


def from_here(word: str) -> str:
    """A `NAME=value` as another folder needs it: files of one's own by their whole path."""
    name, _, value = word.partition("=")
    return f"{name}={Path(value).absolute()}" if name in parameters.FILES and value else word


def make(folder: Path, words: list[str], jobs=1, umask=-1, env: dict | None = None, show=print) -> str | None:
    """Run make in `folder`, its output in folder/make.log, a line shown per artefact. The error, if it fails."""
    link_environment(folder, words)
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    command = ["make", f"-j{jobs}", *map(from_here, words)]
    show(f"==> {folder}: {' '.join(command)}", flush=True)
    last = ""
    with (folder / "make.log").open("w") as log, subprocess.Popen(
        command, cwd=folder, env=clean | (env or {}), umask=umask, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as run:  # fmt: skip
        for line in run.stdout:
            log.write(line)
            if re.search(r" \d+\.\d s$", line):  # a step that ended
                show(f"    {line}", end="", flush=True)
            if re.search(r"\berror: |\*\*\* (?!\[)", line):
                last = last or line.strip()
    return (last or f"see {folder}/make.log") if run.returncode else None


def comparable(path: Path) -> bytes:
    """A file's bytes without what may vary from run to run."""
    if path.name.endswith(".prov.json"):
        return json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "run"}).encode()
    if path.name == "accuracy.json":
        when = ("started", "commit", "dirty")  # an edit of the tree beside its copy must not count
        return json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in when}).encode()
    return path.read_bytes()


TIMED = re.compile(
    r"(^|/)(round\d+/.*|perf\..*|perf-table\..*|imports\.(mk|json)|given\.json|[^/]*\.log|[^/]*_summary\.json|accuracy\.(json|txt)\.prov\.json|"
    r"accuracy-table\..*\.prov\.json|make\.log)$"
)


def made(folder: Path) -> dict[str, Path]:
    """{name: path} of what a build made, downloads and timings left out."""
    found = [p for top in ("build", "results") for p in sorted((folder / top).rglob("*")) if p.is_file()]
    names = {p.relative_to(folder).as_posix(): p for p in found}
    shared = ("build/downloads/", *(f"results/{name}/" for name in KEPT))
    return {n: p for n, p in names.items() if not n.startswith(shared) and not TIMED.search(n)}


def differences(one: Path, other: Path) -> tuple[int, list[str]]:
    """How many files two builds made, and the names of those that differ or that only one has."""
    a, b = made(one), made(other)
    modes = lambda p: p.stat().st_mode & 0o777
    unlike = [n for n in sorted(a.keys() & b.keys()) if comparable(a[n]) != comparable(b[n])]
    unlike += [f"{n} (mode {modes(a[n]):o} and {modes(b[n]):o})" for n in sorted(a.keys() & b.keys())
               if modes(a[n]) != modes(b[n]) and n.endswith(("MANIFEST", ".bin", ".npy", ".onnx", ".om"))]  # fmt: skip
    unlike += [f"{n} (in one build only)" for n in sorted(a.keys() ^ b.keys())]
    return len(a.keys() | b.keys()), unlike


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    words = p.parse_args().goals
    folders = [clean_copy(HOME / name) for name in BUILDS]
    for folder, how in zip(folders, BUILDS.values(), strict=True):
        if error := make(folder, words, how["jobs"], how["umask"], {**how["env"], "HOME": str(folder.resolve())}):
            raise cli.UserError(f"{folder}: the build failed: {error}")
    total, unlike = differences(*folders)
    if not total:
        raise cli.UserError(f"{' '.join(words)}: nothing was made, so nothing was compared")
    for name in unlike:
        print(f"differs: {name}")
    if unlike:
        raise cli.UserError(f"{len(unlike)} of {total} files differ under {HOME}, first {unlike[0]}")
    shutil.rmtree(HOME)
    print(f"reproduce: {total} files of two clean builds are the same, byte for byte")


if __name__ == "__main__":
    cli.run(main)
