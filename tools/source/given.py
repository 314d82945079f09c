"""One hash for what the user gives by path, so that other bytes are seen whatever their dates say.

    python3 -m tools.source.given SST-2_model
    5d1e3f...

A file is hashed; of a folder, every regular file in it (hidden ones left out), by name and bytes. Sizes and dates are
kept in build/given.json: a file is read again only where these changed. Whatever is no regular file (a pipe, a device)
is refused, since reading it could go on for ever.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

from tools.make import cli

KEPT = Path("build/given.json")
MOST = 10_000  # files of a folder


def members(path):
    """The files that a path stands for; UserError where it is no file and no folder."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise cli.UserError(f"{path}: no such file or folder; is it spelled right?")
    if not path.is_dir():
        raise cli.UserError(f"{path}: neither a file nor a folder; copy what it gives into a file first")
    found = sorted(
        p for p in path.rglob("*") if p.is_file() and not any(d.startswith(".") for d in p.relative_to(path).parts)
    )
    if not found or len(found) > MOST:
        raise cli.UserError(f"{path}: holds {len(found)} files; name the folder of one checkpoint or data set")
    return found


def digest(path, known):
    """[signature, sha256] of a file, from `known` where its size and dates are as they were."""
    stat = path.stat()
    signature = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    return known if known and known[0] == signature else [signature, cli.sha256(path)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("path", type=Path, help="a file or a folder")
    path = p.parse_args().path
    try:
        known = json.loads(KEPT.read_text())
    except (OSError, ValueError):
        known = {}
    files = {str(f.resolve()): digest(f, known.get(str(f.resolve()))) for f in members(path)}
    if any(known.get(name) != value for name, value in files.items()):
        with cli.whole_file(KEPT, "w") as out:
            json.dump(known | files, out)
    lines = [f"{files[str(f.resolve())][1]}  {os.path.relpath(f, path)}\n" for f in members(path)]
    print(hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest())


if __name__ == "__main__":
    cli.run(main)
