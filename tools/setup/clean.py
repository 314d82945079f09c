"""Remove what make made, name it, and say how much space that frees: build/ without its downloads, or everything.

    python3 -m tools.setup.clean [--all .venv .venv-bench]      (or: make clean, make distclean)

    kept       build/data/mytrain.tsv: nothing that make made
    removed    build/data/dev.tsv
    removed    build/minilm_sst2
    clean      527 MB freed

--all also removes the pinned downloads and the named virtual environments. A file is removed if its own prov.json, or that
of a MANIFEST which lists it, says that make made it there, or if one of the patterns below matches; a folder if all its files
are; an environment if tools/setup/install.py made it. Everything else is kept and named, and no link is followed. It waits
for a running build. It uses only the standard library, since it has to work where nothing is installed.
"""

import fcntl
import re
import shutil
from pathlib import Path

from tools.make import cli, manifest, run
from tools.make.stale import PROV
from tools.setup import install
from tools.source import fetch

BUILD, DOWNLOADS, TABLES = Path("build"), Path("build/downloads"), Path("results/local")
# Files that are made without a prov.json: lists, the rows of tables, what `make train` writes.
LISTED = re.compile(
    r"build/(imports\.(mk|json)(\.\d+)?|given\.json|sbom\.cdx\.json|ro-crate-metadata\.json|claims\.(md|csv)|"
    r"train/(adapter\.safetensors|training\.json))|results/local/(accuracy|perf)-table\.rows"
)
SCORED = "_manifest.json"
CACHES = (".pytest_cache", ".ruff_cache", ".hypothesis", "build/.launch", "build/.mypy_cache")
STAMP = re.compile(r"build/(data/[^/]+/(dev|train)/given|[^/]+/[^/]+/(source|given))")  # such a file holds one word
UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # the temporary file that a killed write leaves


def is_folder(path: Path) -> bool:
    """Whether a path is a folder and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_described(target: Path) -> bool:
    """Whether TARGET.prov.json says that make made the target in this place."""
    try:
        prov = cli.read_json(f"{target}{PROV}")
        return prov["target"] == target.as_posix() and {"recipe", "sha256"} <= prov.keys()
    except (cli.UserError, OSError, KeyError):
        return False


def listed_files(folder: Path) -> set[Path]:
    """The files that the MANIFEST of this folder, or the SCORED list of `make score`, lists; and these lists themselves."""
    names: list[str] = []
    try:
        if is_described(folder / "MANIFEST"):
            names += [*manifest.sums(folder / "MANIFEST"), *manifest.summaries(folder / "MANIFEST"), *manifest.BESIDE]
        if folder.suffix == ".parts" and (folder / SCORED).is_file():
            names += [*cli.read_json(folder / SCORED)["parts"], SCORED]
    except (cli.UserError, OSError, KeyError, TypeError, AttributeError):
        return set()
    return {folder / name for name in names}


def is_ours(path: Path, names: frozenset[Path]) -> bool:
    """Whether make made a file, or a folder with everything in it. names: files that lists in its folder and above name."""
    if path.is_symlink():
        return False
    if path.is_dir():
        unfinished = path.name.startswith(".") and path.name.endswith(run.BOX)
        return unfinished or path.name == "__pycache__" or path.as_posix() in CACHES or manifest.marked(path)
    if STAMP.fullmatch(path.as_posix()):
        return path.is_file() and len(path.read_bytes().split()) == 1
    if beside := UNFINISHED.fullmatch(path.name):
        path = path.with_name(beside[1])
    target = Path(re.sub(rf"({re.escape(PROV)}|\.log)$", "", str(path)))
    known = path in names or LISTED.fullmatch(path.as_posix()) or is_described(target)
    return bool(known) or (path.parent == DOWNLOADS and target.name in fetch.read_pins())


def divide(folder: Path, names: frozenset[Path] = frozenset()) -> tuple[list[Path], list[Path]]:
    """(what to remove, what to keep) of a folder. A folder that goes, or stays, as a whole is named once; an empty one not."""
    ours: list[Path] = []
    others: list[Path] = []
    names = names | listed_files(folder)
    for path in sorted(folder.iterdir()):
        mine = is_ours(path, names)
        whole = [path] * mine, [path] * (not mine)
        inner_ours, inner_others = divide(path, names) if is_folder(path) and not mine else whole
        ours += inner_ours if inner_others else [path] * bool(inner_ours)
        others += inner_others if inner_ours else [path] * bool(inner_others)
    return ours, others


def choose(environments: list[Path] | None) -> tuple[list[Path], list[Path]]:
    """(what to remove, what to keep). environments: those to remove together with the downloads; None for neither."""
    ours = [p for p in map(Path, CACHES) if is_folder(p) and p.parent != BUILD]
    ours += sorted(p for top in ("tools", "lab", "test", "models") for p in Path(top).rglob("__pycache__"))
    others = [top for top in (BUILD, TABLES) if top.is_symlink()]
    for top in filter(is_folder, (BUILD, TABLES)):
        inner_ours, inner_others = divide(top)
        ours, others = ours + inner_ours, others + inner_others
    if environments is None:
        below = lambda p: p == DOWNLOADS or DOWNLOADS in p.parents
        return [p for p in ours if not below(p)], [p for p in others if not below(p)]
    for folder in (p for p in environments if p.exists() or p.is_symlink()):
        (ours if is_folder(folder) and install.is_ours(folder) else others).append(folder)
    return ours, others


def main():
    p = cli.parser(__doc__)
    p.add_argument("--all", nargs="*", type=Path, metavar="VENV", help="the downloads and these environments too")
    args = p.parse_args()
    run.lock(Path("Makefile"), fcntl.LOCK_EX)
    ours, others = choose(args.all)
    for path in others:
        print(f"kept       {cli.printable(path)}: {'a link' if path.is_symlink() else 'nothing that make made'}")
    freed = sum(map(manifest.size, ours))
    for path in ours:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"removed    {cli.printable(path)}")
    print(f"clean      {freed / 1e6:,.0f} MB freed" if ours else "clean      nothing to remove")


if __name__ == "__main__":
    cli.run(main)
