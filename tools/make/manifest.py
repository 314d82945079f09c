"""MANIFEST: the list of the files in a folder, sorted, with a line `sha256  name` for each.

list(manifest.faults(Path("build/.../output/MANIFEST")))

["build/.../output/out/7_0.bin: its bytes are not those that build/.../output/MANIFEST lists"]
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.make import cli

MARK = ".bert2om"  # marks a folder whose whole content this project made: a copy of this tree, an environment
BESIDE = ("MANIFEST", "MANIFEST.prov.json", "MANIFEST.log")


def mark(folder: Path) -> None:
    """Mark a folder as made by this project; make it if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("made by make, which may remove this folder\n")


def marked(folder: Path) -> bool:
    """Whether a folder has the MARK."""
    try:
        return cli.regular(folder / MARK).read_text("utf-8").startswith("made by ")
    except (cli.UserError, OSError, ValueError):
        return False


def take(folder: Path) -> None:
    """Make an empty marked folder in place of an older one. Raises UserError if that is not marked and holds files."""
    if folder.is_symlink() or (folder.exists() and not marked(folder) and any(folder.iterdir())):
        raise cli.UserError(f"{folder}: a link, or holds files that are not ours; move it away first")
    shutil.rmtree(folder, ignore_errors=True)
    mark(folder)


def size(path: Path) -> int:
    """Bytes that a file or folder takes on disk. Links are not followed; a file with two names counts once."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum({(s.st_dev, s.st_ino): 512 * s.st_blocks for s in map(os.lstat, paths)}.values())


def sums(path: Path) -> dict[str, str]:
    """{name: sha256} of a MANIFEST. Raises UserError for a damaged line."""
    content = cli.regular(path, cli.LARGEST).read_text("utf-8", errors="replace")
    lines = [line.split("  ", 1) for line in content.splitlines()]
    if any(len(line) != 2 for line in lines):
        raise cli.UserError(f"{path}: not lines of sha256 and name; mend it, or delete its folder below build")
    return {name: sha for sha, name in lines}


def content(files: dict[str, str]) -> str:
    """The text of a MANIFEST for {name: sha256}."""
    return "".join(f"{sha}  {name}\n" for name, sha in sorted(files.items()))


def names_in(folder: Path) -> list[str]:
    """The files of a folder, at any depth."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def members(folder: Path) -> set[str]:
    """The files of a folder that its MANIFEST lists: all but the summaries, whose timings never repeat."""
    return {n for n in names_in(folder) if n not in BESIDE and not n.endswith("_summary.json")}


def summaries(path: Path) -> dict[str, str]:
    """{name: sha256} of the summaries in a MANIFEST's folder, from when run.py made it."""
    prov = path.with_name(f"{path.name}.prov.json")
    return cli.read_json(prov).get("run", {}).get("summaries", {}) if prov.is_file() else {}


def of_folder(folder, sha256=cli.sha256) -> str:
    """One hash for all files in a folder: the hash of the sorted lines `sha256  name`. sha256: a function that hashes a file."""
    lines = "".join(f"{sha256(Path(folder, name))}  {name}\n" for name in names_in(Path(folder)))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def faults(path: Path, here: dict[str, str] | None = None, sha256=cli.sha256) -> Iterator[str]:
    """How a MANIFEST and its folder differ, a sentence for each file. here: {name: sha256} of the files that count (by default
    all but the summaries)."""
    folder, listed = path.parent, sums(path)
    here = {n: sha256(str(folder / n)) for n in members(folder)} if here is None else here
    for name, sha in listed.items():
        if name not in here:
            yield f"{folder / name}: gone, though {path} lists it"
        elif here[name] != sha:
            yield f"{folder / name}: its bytes are not those that {path} lists"
    for name, sha in summaries(path).items():
        if not (folder / name).is_file() or sha256(str(folder / name)) != sha:
            yield f"{folder / name}: gone, or other than it was when {path} was made"
    for name in sorted(set(here) - set(listed)):
        yield f"{folder / name}: {path} does not list it"
