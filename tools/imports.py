"""What each program of this project imports, as Make variables, so that an edit remakes just what it can change.

    python3 -m tools.imports build/imports.mk

    tools/graph/gate.py: other bytes, but an older date than when make last looked; dated now

Writes a line `needs.<module or script> := <files>` for each module below tools/ and each script of a model folder: the
file itself, every module of tools/ that it imports, directly or not, at its top or within a function, and the packages
that hold them. Beside it lies build/imports.json, the size, dates and sha256 of each file when it was last looked at:
what did not change since is not read again. Make goes by dates, so a file that came back with other bytes and an old
date (`cp -p`, `rsync -t`, a backup) is dated now, and named. Only the standard library: this runs before anything is
installed.
"""

import argparse
import ast
import hashlib
import json
import os
import sys
from pathlib import Path

PATTERNS = ("tools/**/*.py", "models/*/*.py", "tools/**/*.[ch]")


def look(path, known):
    """{size, dates, sha256, imports} of a file, taken from `known` where its size and dates are as they were."""
    stat = path.stat()
    signature = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    if known and known["signature"] == signature:
        return known
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if known and known["sha256"] != sha256 and stat.st_mtime_ns <= known["signature"][1]:
        os.utime(str(path))
        print(f"{path}: other bytes, but an older date than when make last looked; dated now")
        return look(path, None)
    found = imports(path, data) if path.suffix == ".py" else []
    return {"signature": signature, "sha256": sha256, "imports": found}


def imports(path, data):
    """The files of tools/ that a Python file imports, directly, and the packages that it lies in; none where it cannot
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
    ours = [name.replace(".", "/") for name in names if name.split(".")[0] == "tools"]
    found = [f"{name}{end}" for name in ours for end in (".py", "/__init__.py")]
    found += [f"{folder.as_posix()}/__init__.py" for folder in path.parents if folder.parts[:1] == ("tools",)]
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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("save_path", type=Path, help="the .mk file to write; its .json lies beside it")
    args = p.parse_args()
    kept = args.save_path.with_suffix(".json")
    by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    known = known["files"] if known.get("by") == by else {}
    paths = sorted({p for pattern in PATTERNS for p in Path().glob(pattern)})
    files = {p.as_posix(): look(p, known.get(p.as_posix())) for p in paths}
    if files == known and args.save_path.is_file():
        return
    lines = []
    for name in (n for n in files if n.endswith(".py")):
        program = name[:-3].replace("/", ".") if name.startswith("tools/") else name
        lines.append(f"needs.{program} := {' '.join(closure(name, files))}\n")
    write(args.save_path, "".join(lines))
    write(kept, json.dumps({"by": by, "files": files}, indent=0))


if __name__ == "__main__":
    sys.exit(main())
