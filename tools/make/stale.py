"""Find what must be made again: what each program imports, and which artefacts were made from other bytes than those here.

    stale.variables([[".venv/installed", "requirements.txt"]], stale.Memory())

    {"notice": "7 files had dates in the future, as build/minilm_sst2/default/model.onnx; dated now, in their order.",
     "stale": "build/minilm_sst2/default/model.onnx", "needs.tools.make.cli": "tools/__init__.py tools/make/...", ...}

`needs.<module or script>` lists a program of tools/, lab/ or a model's folder, every module of this project that it imports,
directly or indirectly, at its top or inside a function, and their packages. Make compares dates, which mislead after a wrong
clock, a copied tree or a restored backup. Each artefact's prov.json says from which bytes it was made: `stale` names the
artefacts that make would take for up to date by mistake, `why.<target>` says why in words.
"""

import ast
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tools.make import cli, manifest

PATTERNS = ("tools/**/*.py", "lab/*.py", "models/*/*.py", "tools/**/*.[ch]")
OURS = ("tools", "lab")  # packages
OTHERS = ("Makefile", "requirements*.txt", "mk/*", "lab/*.mk", "models/*/*", "data/*", "results/*", "results/*/*")
MEMORY = Path("build/imports.json")  # hashes and imports of files, from the last make
INERT = re.compile(r"[A-Za-z0-9_.,/@+-]+")  # names that make does not interpret; files with others are left out
PROV = ".prov.json"
STAMPS = ("build/*/*/source", "build/*/*/given", "build/data/*/*/given", "results/*.rows", "results/local/*.rows")
SMALL = 1 << 20  # results below this size (bytes) are hashed again if their date or size has changed
SKEW = 2  # seconds that the clock of a file server may be ahead of ours
MOST = 10_000  # files in a folder that the user names


def prov_files(top: Path) -> Iterator[Path]:
    """The prov.json files below a folder, except in temporary folders and in copies of this tree (as of `make verify`)."""
    for place, folders, names in os.walk(top):
        if "Makefile" in names or f"MANIFEST{PROV}" in names:
            folders.clear()
        folders[:] = sorted(name for name in folders if not (name[0] == "." and name.endswith(".tmp")))
        if "Makefile" not in names:
            yield from (Path(place, name) for name in sorted(names) if name.endswith(PROV))


def signature(path) -> list[int]:
    """Size, dates and inode of a file. As long as these are the same, so are its bytes."""
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


class Memory:
    """{path: [signature, sha256, imports]} of files, read again only if their signature has changed. Kept in the file MEMORY,
    and not used if another version of this module wrote it."""

    def __init__(self):
        self.version, self.files = hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), {}
        with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            content = json.loads(cli.regular(MEMORY).read_bytes())
            if content["by"] == self.version:
                self.files = {path: [a, b, [*c]] for path, (a, b, c) in content["files"].items()}
        self.before = dict(self.files)

    def file(self, path: str) -> list:
        """[signature, sha256, imports] of a file. Raises UserError for a program of this project that cannot be parsed."""
        now = signature(path)
        if self.files.get(path, [None])[0] != now:
            program = path.endswith(".py") and path.split("/")[0] in (*OURS, "models")
            self.files[path] = [now, cli.sha256(path), imports(Path(path)) if program else []]
        return self.files[path]

    def sha256(self, path) -> str:
        """The hash of a file, or of all files of a folder."""
        return manifest.of_folder(path, self.sha256) if Path(path).is_dir() else self.file(str(path))[1]

    def keep(self) -> None:
        """Write it for the next make. If it cannot be written, the next call only takes longer."""
        with contextlib.suppress(OSError):
            for part in MEMORY.parent.glob(f".{MEMORY.name}.*"):  # left by a killed make; a running one does without
                part.unlink()
            if self.before != self.files:
                cli.write(MEMORY, json.dumps({"by": self.version, "files": self.files}))


def imports(path: Path) -> list[str]:
    """The files of tools/ and lab/ that a Python file imports directly, and the packages it lies in. Raises UserError for a
    file there that cannot be parsed. For a model's script that cannot, there are none: the step that runs it says why."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        if path.parts[0] not in OURS:
            return []
        where = f"{path}:{e.lineno}: {e.msg}" if isinstance(e, SyntaxError) else f"{path}: {e}"
        raise cli.UserError(f"{where}; mend it") from None
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.replace(".", "/") for name in names if name.split(".")[0] in OURS]
    files = {f"{name}{end}" for name in ours for end in (".py", "/__init__.py")}
    if path.parts[0] in OURS:
        files |= {f"{folder.as_posix()}/__init__.py" for folder in path.parents if folder.parts}
    return sorted({file for file in files if Path(file).is_file()} - {path.as_posix()})


def closure(name: str, programs: dict[str, list[str]]) -> list[str]:
    """A file and all that it imports, sorted."""
    reached, more = set(), {name}
    while more:
        reached |= more
        more = {file for one in more for file in programs[one]} & programs.keys() - reached
    return sorted(reached)


def has_python(folder: Path) -> bool:
    """Whether an environment has a Python, of the same version as the packages in it."""
    python = folder / "bin/python"
    version = re.fullmatch(r"python3\.\d+", python.resolve().name)
    return python.exists() and (not version or not (lib := folder / "lib").exists() or (lib / version[0]).is_dir())


def stale_environments(stamps: list[list[str]]) -> list[str]:
    """The stamps of environments whose Python is gone, or which are no longer a copy of their locks, whatever their dates."""
    copies = [(Path(stamp), locks) for stamp, *locks in stamps if Path(stamp).is_file()]
    content = lambda locks: b"".join(cli.regular(name).read_bytes() for name in locks)
    return [str(s) for s, locks in copies if not has_python(s.parent) or s.read_bytes() != content(locks)]


def provs_here() -> dict[str, dict]:
    """{target: content of its prov.json} of the artefacts here. Damaged files are left out: `make audit` and run.py name them.
    Raises UserError for a pipe, which reading would never end."""
    provs = {}
    for path in (p for top in ("build", "results") for p in prov_files(Path(top))):
        target = str(cli.regular(path)).removesuffix(PROV)
        with contextlib.suppress(OSError, ValueError, RecursionError):
            prov = json.loads(path.read_text("utf-8"))
            if isinstance(prov, dict) and isinstance(prov.get("inputs"), dict) and Path(target).exists():
                provs[target] = prov
    return provs


def dates_of(paths) -> dict[str, int]:
    """{path: date of modification in nanoseconds} of the paths that exist."""
    dates = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # a name with a NUL, in somebody's prov.json
            dates[path] = Path(path).stat().st_mtime_ns
    return dates


def outdated(provs: dict[str, dict], dates: dict[str, int], sha256) -> dict[str, str]:
    """{target: the first input whose bytes have changed although its date is not newer; or the target itself, if it is small and
    has changed}. Make notices newer and missing files by itself, and run.py checks the inputs of a step. No step reads the
    final files, such as accuracy.txt, so they are checked here."""
    now = lambda name: provs[name].get("sha256") if name in provs else sha256(name)
    causes = {}
    for target, prov in provs.items():
        older = [name for name in prov["inputs"] if name in dates and dates[name] <= dates[target]]
        if Path(target).stat().st_size < SMALL and sha256(target) != prov.get("sha256"):
            causes[target] = target
        elif cause := next((name for name in older if prov["inputs"][name] != now(name)), None):
            causes[target] = cause
    return causes


def date_now(dates: dict[str, int]) -> str:
    """Set dates that lie in the future to the present, in their order; returns a sentence that says so, or ""."""
    late = sorted((date, path) for path, date in dates.items() if date > (time.time() + SKEW) * 1e9)
    for _, path in late:
        with contextlib.suppress(OSError):  # another user's file
            os.utime(path)
    files = f"{len(late)} files had dates in the future" if len(late) > 1 else "1 file had a date in the future"
    return f"{files}, as {late[0][1]}; dated now, in their order." if late else ""


def variables(stamps: list[list[str]], memory: Memory) -> dict[str, str]:
    """{variable of make: its text}; `notice` is a sentence about dates. stamps: [stamp, lock files] of each environment.
    Raises UserError for a program of this project that cannot be read or parsed."""
    stamped = {str(cli.regular(path)) for pattern in STAMPS for path in Path().glob(pattern)}  # make itself reads them
    provs = {target: prov for target, prov in provs_here().items() if INERT.fullmatch(target)}
    paths = sorted({p for pattern in PATTERNS for p in Path().glob(pattern) if INERT.fullmatch(str(p)) and p.is_file()})
    sources = {str(p) for pattern in OTHERS for p in Path().glob(pattern)} | set(map(str, paths))
    inputs = {name for prov in provs.values() for name in prov["inputs"]}
    dates = dates_of({*sources, *inputs, *provs, *stamped, *(stamp[0] for stamp in stamps)})
    notice = date_now(dates)
    programs = {path.as_posix(): memory.file(path.as_posix())[2] for path in paths}
    causes = outdated(provs, dates_of(dates), memory.sha256)
    texts = {"notice": notice, "stale": " ".join([*causes, *stale_environments(stamps)])}
    for target, name in causes.items():
        why = "is not as it was made" if name == target else f"was made from another {name}, though its date is newer"
        texts[f"why.{target}"] = f"{target} {why}; made again."
    for name in (n for n in programs if n.endswith(".py")):
        program = name[:-3].replace("/", ".") if name.split("/")[0] in OURS else name
        texts[f"needs.{program}"] = " ".join(closure(name, programs))
    return texts


def files_in(top: Path) -> Iterator[Path]:
    """The regular files below a folder, without hidden files and folders."""
    for place, folders, names in os.walk(top):
        folders[:] = [folder for folder in folders if folder[0] != "."]
        yield from (p for p in (Path(place, name) for name in names if name[0] != ".") if p.is_file())


def hash_of_path(name: str, sha256=cli.sha256) -> str:
    """One hash for a file or folder that the user names, so that a change is seen whatever the dates say. For a folder it covers
    name and bytes of every file that is not hidden. sha256: a function that hashes a file. Raises UserError for a path that
    does not exist, is a pipe or device, or is a folder without files or with more than MOST."""
    path = Path(name)
    if not path.exists():
        raise cli.UserError(f"{path}: no such file or folder; is it spelled right?")
    if not path.is_file() and not path.is_dir():
        raise cli.UserError(f"{path}: neither a file nor a folder; copy what it gives into a file first")
    inside = sorted(islice(files_in(path), MOST + 1)) if path.is_dir() else [path]
    if not 0 < len(inside) <= MOST:
        count = "no file" if not inside else f"more than {MOST} files"
        raise cli.UserError(f"{path}: holds {count}; name the folder of one checkpoint or data set")
    lines = [f"{sha256(str(f.resolve()))}  {os.path.relpath(f, name)}\n" for f in inside]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
