"""Remove what was made here, and say how much that frees: build/ but for its downloads, or all that can be got again.

    python3 -m tools.setup.clean [--all .venv .venv-bench]      (or: make clean, make distclean)

    kept       build/notes.txt: nothing that make made
    clean      removed build/minilm_sst2, build/data, build/imports.mk and 4 more: 527 MB freed

--all also removes the downloads and the named virtual environments. Nothing else is touched: an entry of build/ that
is not made by a target is kept and named, and so is a folder without the mark of tools/setup/install.py. A link is
kept too, and never followed. It waits for a build that is at work. Only the
standard library: it has to work where nothing is installed.
"""

import argparse
import fcntl
import os
import shutil
from pathlib import Path

from tools.make import cli, run
from tools.setup import install

BUILD, DOWNLOADS = Path("build"), Path("build/downloads")
# What stands in build/ beside the folders of models, which hold <weights>/source.
OURS = {"data", "lib", "score", "verify", "reproduce", "torture", "costs", "train", "release", "container"}
FILES = {"imports.mk", "imports.json", "given.json", "sbom.cdx.json", "ro-crate-metadata.json"}
ELSEWHERE = (".pytest_cache", ".ruff_cache", ".hypothesis", "results/local")


def size(path: Path) -> int:
    """Bytes that a file or a folder takes on disk; links are not followed, and a file with two names counts once."""
    found = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum({(s.st_dev, s.st_ino): 512 * s.st_blocks for s in map(os.lstat, found)}.values())


def made_here(path: Path) -> bool:
    """Whether an entry of build/ is one that make makes."""
    if path.is_dir() and not path.is_symlink():
        return path.name in OURS or any(path.glob("*/source"))
    return path.name in FILES


def chosen(everything: bool, environments: list[Path]) -> tuple[list[Path], list[Path]]:
    """(what to remove, what is kept because it is not ours)."""
    entries = [p for p in sorted(BUILD.iterdir()) if p != DOWNLOADS] if BUILD.is_dir() else []
    remove, kept = [p for p in entries if made_here(p)], [p for p in entries if not made_here(p)]
    remove += [p for p in map(Path, ELSEWHERE) if p.is_dir() and not p.is_symlink()]
    remove += sorted(p for top in ("tools", "test", "models") for p in Path(top).rglob("__pycache__"))
    if everything:
        for folder in (p for p in [DOWNLOADS, *environments] if p.exists() or p.is_symlink()):
            ours = folder == DOWNLOADS or (folder / install.MARK).is_file()
            (remove if ours and not folder.is_symlink() else kept).append(folder)
    return remove, kept


def drop(path: Path) -> None:
    """Remove a folder or a file."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--all", nargs="*", type=Path, metavar="VENV", help="the downloads and these environments too")
    args = p.parse_args()
    run.lock(Path("Makefile"), fcntl.LOCK_EX)
    remove, kept = chosen(args.all is not None, args.all or [])
    freed = sum(map(size, remove))
    for path in remove:
        drop(path)
    for path in kept:
        print(f"kept       {path}: {'a link' if path.is_symlink() else 'nothing that make made'}")
    names = ", ".join(str(p) for p in remove[:3]) + (f" and {len(remove) - 3} more" if remove[3:] else "")
    print(f"clean      removed {names}: {freed / 1e6:,.0f} MB freed" if remove else "clean      nothing to remove")


if __name__ == "__main__":
    cli.run(main)
