"""The folder of records: one JSON a measurement, chains/ with what several share, and MANIFEST, which lists them all.

A record holds the links of its chain that lie in its own folder of build/. The links above that folder are the same for
many records and stand once, in chains/<sha256>.json, which the record names as `upstream` (older records hold all). A record
is written whole, and never over another. `make audit` compares each file with its line in MANIFEST.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from tools.make import cli, manifest, parameters, run

FLAT = re.compile(r"\[[\s\d.,eE+-]*\]")


def text_of(value: dict) -> str:
    """A JSON text, lists of numbers on one line."""
    flat = lambda m: " ".join(m[0].split()).replace("[ ", "[").replace(" ]", "]")
    return FLAT.sub(flat, json.dumps(value, indent=1)) + "\n"


def read_record(path: Path, kinds=("accuracy", "throughput")) -> dict:
    """A record from its file, with its whole chain; UserError names the first field that no record of this project holds so."""
    from tools.results import schema

    path = Path(path)
    record = cli.read_json(path)
    if upstream := record.pop("upstream", None):
        if not isinstance(upstream, str) or not re.fullmatch("[0-9a-f]{64}", upstream):
            raise cli.UserError(f"{path}: upstream: not a sha256; measure again")
        above = path.parent / "chains" / f"{upstream}.json"
        if not above.is_file() or cli.sha256(above) != upstream:
            raise cli.UserError(f"{path}: upstream: {above} is gone, or has another sha256; measure again")
        if isinstance(record.get("chain"), dict):
            record["chain"] = cli.read_json(above) | record["chain"]
    if faults := schema.faults(record, kinds):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise cli.UserError(f"{path}: {faults[0]}{more}; measure again")
    return record


def load_records(places, kinds=("accuracy", "throughput")) -> dict[Path, dict]:
    """{path: record} of files, and of the .json files of folders, by name. A file that is no record is an error; one in a
    folder is named on stderr and left out."""
    records = {}
    for place in map(Path, places):
        for path in [place] if place.suffix == ".json" else sorted(place.glob("*.json")):
            try:
                records[path] = read_record(path, kinds)
            except cli.UserError as e:
                if path == place:
                    raise
                print(f"left out: {e}", file=sys.stderr, flush=True)
    return dict(sorted(records.items()))


def write_new(target: Path, text: str) -> None:
    """Write a file whole, and only where none of that name stands; UserError where one of other content does."""
    if not target.exists():
        cli.write(target, text)
    if target.read_text("utf-8") != text:
        raise cli.UserError(f"{target}: exists with other content; records are never overwritten")


def hashes(folder: Path) -> dict[str, str]:
    """{name: sha256} of the records and chains that are in a folder."""
    paths = [*folder.glob("*.json"), *folder.glob("chains/*.json")]
    return {p.relative_to(folder).as_posix(): cli.sha256(p) for p in paths}


def keep_record(target: Path, record: dict, kinds=("accuracy", "throughput")) -> Path:
    """Write a record and its line of MANIFEST; UserError where another of that name stands, or it is no record."""
    from tools.results import schema

    if faults := schema.faults(record, kinds):
        raise cli.UserError(f"{target.name}: {faults[0]}; measure again")
    folder, names = target.parent, [target.name]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, run.lock(folder, fcntl.LOCK_EX)[0])  # another make may add to MANIFEST, too
        if chain := record.get("chain"):
            below = f"build/{parameters.folder(record, 'batch')}/"
            text = text_of({name: chain[name] for name in sorted(chain) if not name.startswith(below)})
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            links = {name: link for name, link in chain.items() if name.startswith(below)}
            record = record | {"upstream": sha256, "chain": links}
            names.append(f"chains/{sha256}.json")
            write_new(folder / names[1], text)
        write_new(target, text_of(record))
        path = folder / "MANIFEST"
        lines = (manifest.sums(path) if path.is_file() else {}) | {name: cli.sha256(folder / name) for name in names}
        cli.write(path, manifest.content(lines))
    return target
