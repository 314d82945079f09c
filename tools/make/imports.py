"""What each program of this project imports, as Make variables, so that an edit remakes just what it can change.

    python3 -m tools.make.imports build/imports.mk

Writes a line `needs.<module or script> := <files>` for each module below tools/ and each script of a model folder: the
file itself, every module of tools/ that it imports, directly or not, at its top or within a function, and the packages
that hold them. The line `stale := <targets>` names what is to be made again though its date hides it (tools/make/stale.py),
and `why.<target> :=` says in words why.
Beside it lies build/imports.json, the sha256 of each file when it was last looked at: what did not change since is not
read again. Only the standard library: this runs before anything is installed.
"""

import argparse
import ast
import hashlib
import json
import os
from pathlib import Path

from tools.make import cli, stale

PATTERNS = ("tools/**/*.py", "lab/*.py", "models/*/*.py", "tools/**/*.[ch]")
OURS = ("tools", "lab")  # packages
OTHERS = ("Makefile", "requirements*.txt", "mk/*", "lab/*.mk", "models/*/*", "data/*", "results/*", "results/*/*")


def look(path, known):
    """{signature, sha256, imports} of a file, taken from `known` where its size and dates are as they were."""
    signature = stale.signature(path)
    if known and known["signature"] == signature:
        return known
    data = path.read_bytes()
    found = imports(path, data) if path.suffix == ".py" else []
    return {"signature": signature, "sha256": hashlib.sha256(data).hexdigest(), "imports": found}


def imports(path, data):
    """The files of tools/ and lab/ that a Python file imports, directly, and the packages that it lies in; none where it cannot
    be parsed."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError) as e:
        print(f"{path}: {e}")
        return []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.replace(".", "/") for name in names if name.split(".")[0] in OURS]
    found = [f"{name}{end}" for name in ours for end in (".py", "/__init__.py")]
    found += [
        f"{folder.as_posix()}/__init__.py" for folder in path.parents if folder.parts[:1] and folder.parts[0] in OURS
    ]
    return sorted({file for file in found if Path(file).is_file()} - {path.as_posix()})


def closure(name, files):
    """A file and all that it imports, sorted."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found and one in files:
            found.add(one)
            waiting += files[one]["imports"]
    return sorted(found)


def write(path, text):
    """Write a file whole, if it does not say `text` already."""
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def installed(stamps):
    """The stamps of environments that are no copy of their locks, or whose Python is gone, whatever their dates say."""
    read = lambda name: Path(name).read_bytes()
    whole = lambda to: Path(to).with_name("bin").joinpath("python").exists()
    there = [(to, locks) for to, *locks in stamps if Path(to).is_file()]
    return [to for to, locks in there if not whole(to) or read(to) != b"".join(map(read, locks))]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("save_path", type=Path, help="the .mk file to write; its .json lies beside it")
    p.add_argument("--stamp", nargs="+", action="append", default=[], help="an environment's stamp, and its locks")
    args = p.parse_args()
    kept = args.save_path.with_suffix(".json")
    by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) and known.get("by") == by else {"files": {}, "others": {}}
    provs = stale.provenance()
    paths = sorted({p for pattern in PATTERNS for p in Path().glob(pattern)})
    sources = {str(p) for pattern in OTHERS for p in Path().glob(pattern)} | set(map(str, paths))
    inputs = {name for prov in provs.values() for name in prov["inputs"]}
    dates = stale.dated({*sources, *inputs, *provs, *(stamp[0] for stamp in args.stamp), str(args.save_path)})
    said = stale.date_now(dates)
    files = {p.as_posix(): look(p, known["files"].get(p.as_posix())) for p in paths}
    hashes = stale.Hashes(known["others"])
    sha256 = lambda name: files[name]["sha256"] if name in files else hashes.of(name)
    hidden = stale.hidden(provs, stale.dated(dates), sha256)
    print(said, end="")
    inert = lambda text: text.replace("$", "$$").replace("#", "\\#")
    lines = [inert(f"stale := {' '.join([*hidden, *installed(args.stamp)])}\n")]
    lines += [inert(f"why.{target} := {stale.why(target, name)}\n") for target, name in hidden.items()]
    for name in (n for n in files if n.endswith(".py")):
        program = name[:-3].replace("/", ".") if name.split("/")[0] in OURS else name
        lines.append(f"needs.{program} := {' '.join(closure(name, files))}\n")
    write(args.save_path, "".join(lines))
    if known.get("files") != files or known["others"] != hashes:
        write(kept, json.dumps({"by": by, "files": files, "others": hashes}, indent=0))


if __name__ == "__main__":
    cli.run(main)
