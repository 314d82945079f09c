"""One hash for what the user gives by path, so that other bytes are seen whatever their dates say.

    given.hashed("SST-2_model", sha256)

    "5d1e3f..."

A file is hashed; of a folder, every regular file in it (hidden ones left out), by name and bytes. Whatever is no regular
file (a pipe, a device) is refused, since reading it could go on for ever.
"""

import hashlib
import os
from pathlib import Path

from tools.make import cli

MOST = 10_000  # files of a folder


def members(path: Path) -> list[Path]:
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


def hashed(name: str, sha256=cli.sha256) -> str:
    """The hash of what a path holds. sha256: that of a file. Raises UserError where there is nothing that can be read."""
    lines = [f"{sha256(str(f.resolve()))}  {os.path.relpath(f, name)}\n" for f in members(Path(name))]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
