"""Parquet parts and the manifest that says which there are.

    out = parts.Folder("build/score/reviews", config, sources)
    out.done(2)                                  # numbers of the parts of source 2 that need not be made again
    entry = parts.write("build/score/reviews", parts.name(2, 0), table)
    out.add(entry)

    {"config": {"model": "<sha256>", ...}, "complete": true, "rows": 872,
     "inputs": [{"name": "dev.tsv", "size": 105000, "mark": "..."}],
     "parts": {"00000-00000.parquet": {"input": 0, "first": 0, "rows": 872, "bytes": 14052, "sha256": "..."}}}

A part is written whole: locally under another name that it then leaves, elsewhere in one upload. manifest.json is
replaced as a whole, after the parts it names; what a killed run had written and not yet listed is made again, with the
same bytes.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.make import cli
from tools.scale import files

MANIFEST = "manifest.json"
PART = re.compile(r"(\d{5,})-(\d{5,})\.parquet")
# As tools.make.cli.whole_file names what it has not yet written whole.
HALF = re.compile(r"\.(\d{5,}-\d{5,}\.parquet|manifest\.json)\.[a-z0-9_]{8}")
SHARE = 20  # the manifest is written again when this many times as long has passed as that takes


def name(source: int, number: int) -> str:
    """The name of a part: that many parts of `rows` rows into source number `source`."""
    return f"{source:05d}-{number:05d}.parquet"


def local(fs) -> bool:
    """Whether an fsspec file system is this machine's own folders."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def apart(address: str, given: str, sources: list[files.Source]) -> None:
    """UserError where the parts would lie among the inputs, or the inputs among the parts."""
    place = lambda url: (lambda fs, path: (type(fs), f"{os.path.realpath(path) if local(fs) else path.rstrip('/')}/"))(
        *files.system(url)
    )
    within = lambda inner, outer: inner[0] is outer[0] and inner[1].startswith(outer[1])
    out = place(address)
    folder = len(sources) > 1 or sources[0].name != given.rstrip("/").rpartition("/")[2]
    if any(within(place(s.url), out) for s in sources) or (folder and within(out, place(given))):
        raise cli.UserError(f"OUT={address}: holds INPUT={given} or lies in it; name a folder apart from it")


def put(address: str, data: bytes) -> None:
    """Write a file whole."""
    fs, path = files.system(address)
    if local(fs):
        with cli.whole_file(path) as f:
            f.write(data)
    else:
        fs.pipe_file(path, data)


def write(folder: str, part: str, table) -> dict:
    """Write a pyarrow table as a part; its entry in the manifest."""
    from pyarrow import parquet

    box = io.BytesIO()
    parquet.write_table(table, box)
    put(f"{folder.rstrip('/')}/{part}", box.getvalue())
    source, _ = map(int, PART.fullmatch(part).groups())
    size, digest = len(box.getvalue()), hashlib.sha256(box.getvalue()).hexdigest()
    return {"part": part, "input": source, "first": table["row"][0].as_py(), "rows": len(table), "bytes": size,
            "sha256": digest}  # fmt: skip


class Folder:
    """The folder of the parts, of which one run at a time is the only writer of the manifest."""

    def __init__(self, address: str, config: dict, sources: list[files.Source]):
        """Go on with what is there. UserError where that is another run's, or anything else's."""
        self.address = address.rstrip("/")
        self.config, self.parts, self.seconds, self.written = config, {}, 0.0, 0.0
        self.inputs = [{"name": s.name, "size": s.size, "mark": s.mark} for s in sources]
        self.fs, self.path = files.system(self.address)
        self.lock()
        there = {i["name"].rpartition("/")[2]: i["size"] for i in self.listed()}
        manifest = self.read() if MANIFEST in there else None
        if manifest is None and there:
            raise cli.UserError(f"OUT={address}: files that are not ours lie there; name a new folder")
        for key, mine in (("config", config), ("inputs", self.inputs)):
            if manifest and manifest[key] != mine:
                raise cli.UserError(
                    f"OUT={address}: holds parts of {self.difference(key, manifest[key], mine)}; name another folder"
                )
        entries = manifest["parts"] if manifest else {}
        with ThreadPoolExecutor(8) as pool:
            sound = dict(
                zip(
                    entries,
                    pool.map(lambda n: n in there and self.hash(n) == entries[n]["sha256"], entries),
                    strict=True,
                )
            )
        for part in (n for n in there if n in sound and not sound[n]):
            print(f"{self.address}/{part}: not the bytes that {MANIFEST} describes; made again")
        self.parts = {n: e for n, e in entries.items() if sound[n]}
        self.complete = bool(manifest and manifest["complete"] and len(self.parts) == len(entries))
        if manifest is None:
            self.save()

    def hash(self, part: str) -> str:
        with self.fs.open(f"{self.path}/{part}", "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def lock(self) -> None:
        """Hold a local folder while this process lives, and clear what a killed one left half written.

        Raises UserError where another process has it.
        """
        if not local(self.fs):
            return
        Path(self.path).mkdir(parents=True, exist_ok=True)
        self.held = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise cli.UserError(f"OUT={self.address}: another make score writes there; wait for it") from None
        for half in Path(self.path).iterdir():
            if HALF.fullmatch(half.name):
                half.unlink(missing_ok=True)

    def listed(self) -> list[dict]:
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return [i for i in self.fs.ls(self.path, detail=True) if i["name"].rstrip("/") != self.path]
        return []

    def read(self) -> dict:
        """What the manifest says of its parts. Raises UserError where it is none of ours."""
        try:
            manifest = json.loads(self.fs.cat_file(f"{self.path}/{MANIFEST}"))
            manifest["config"], manifest["inputs"], manifest["complete"]
            if not all(
                PART.fullmatch(n) and {"bytes", "rows", "sha256"} <= e.keys() for n, e in manifest["parts"].items()
            ):
                raise ValueError("a part is not described")
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise cli.UserError(
                f"{self.address}/{MANIFEST}: not a manifest of ours ({e}); name another folder"
            ) from None
        return manifest

    @staticmethod
    def difference(key: str, old, new) -> str:
        if key == "config" and isinstance(old, dict):
            words = [k for k in new if old.get(k) != new[k]]
            return f"another {words[0] if words else 'configuration'}"
        return "other inputs, or of these before they changed"

    def done(self, source: int) -> set[int]:
        """Numbers of the parts of an input that are there."""
        return {int(PART.fullmatch(n)[2]) for n, e in self.parts.items() if e["input"] == source}

    def add(self, entry: dict) -> None:
        """Take a written part into the manifest."""
        self.parts[entry["part"]] = {k: v for k, v in entry.items() if k != "part"}
        if time.monotonic() - self.written > SHARE * self.seconds:
            self.save()

    def save(self, complete: bool = False) -> None:
        start = time.monotonic()
        value = {"config": self.config, "complete": complete, "rows": sum(e["rows"] for e in self.parts.values()),
                 "inputs": self.inputs, "parts": dict(sorted(self.parts.items()))}  # fmt: skip
        put(f"{self.address}/{MANIFEST}", (json.dumps(value, indent=1) + "\n").encode())
        self.written = time.monotonic()
        self.seconds = self.written - start
