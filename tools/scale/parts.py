"""What score writes: Parquet parts with the manifest that says which there are, one file, or standard output.

    out = parts.Output("scored")
    for line in out.resume(config, sources): print(line)    # goes on with what is there
    for unit, sources, done in out.missing():               # what is read together, the parts that it has
        out.add(parts.write(out.fs, out.path(unit, 0), answers))
        out.finish(unit)

    {"config": {"model": "<sha256>", ...}, "complete": true, "rows": 872,
     "inputs": {"dev.tsv": {"size": 105000, "mark": "1764480000.0", "unit": 0, "sha256": "...", "parts": 1}},
     "parts": {"00000-00000.parquet": {"rows": 872, "duplicates": 0, "cut": 0, "amiss": 0, "bytes": 14052, "sha256": "..."}}}

Small files that follow one another are a unit: the part 00002-00001 is the second of the third unit's rows. A part is
written whole: locally under another name that it then leaves, elsewhere in one upload. _manifest.json is replaced as a
whole, after the parts it names; what a killed run had written and not yet listed is made again, with the same bytes.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.make import cli
from tools.scale import files
from tools.scale.scorer import GROUP

MANIFEST = "_manifest.json"
PART = re.compile(r"(\d{5,})-(\d{5,})\.parquet")
HALF = re.compile(rf"\.({PART.pattern}|{MANIFEST})\.[a-z0-9_]{{8}}")  # as cli.whole_file names what is not yet whole
OURS = b"bert2om"  # the key of what a part's footer says of it
SINGLE = (".csv", ".parquet")
SHARE = 20  # the manifest is written again when this many times as long has passed as that takes
UNIT = 1 << 23  # bytes of the files that are read together
THREADS = 16


# --- Writing


class Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file):
        self.file, self.hash, self.bytes, self.closed = file, hashlib.sha256(), 0, False

    def write(self, data) -> int:
        self.hash.update(data)
        self.bytes += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        """pyarrow closes what it writes to; whoever opened the file closes it."""


class Lines:
    """A writer like pyarrow's, of JSON lines, or of a TSV, where a tab or a line's end within a value becomes a blank."""

    def __init__(self, file, names):
        """names: the columns of a TSV; None for JSON lines."""
        self.file, self.names = file, names
        if names:
            self.file.write(self.line(names))

    def line(self, values) -> bytes:
        return ("\t".join("" if v is None else re.sub(r"[\t\r\n]", " ", str(v)) for v in values) + "\n").encode()

    def write_table(self, table) -> None:
        as_json = lambda row: (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
        for row in table.to_pylist():
            self.file.write(self.line(row.values()) if self.names else as_json(row))

    def close(self) -> None:
        """As pyarrow's; nothing is left to write."""


def writer(file, suffix: str, schema):
    """A pyarrow writer of tables to an open file, or one like it."""
    from pyarrow import csv, parquet

    if suffix == ".parquet":
        return parquet.ParquetWriter(file, schema)
    return csv.CSVWriter(file, schema) if suffix == ".csv" else Lines(file, schema.names if suffix == ".tsv" else None)


@contextlib.contextmanager
def whole(fs, path: str):
    """A Hashed file that has its name when the block ends well."""
    if files.local(fs):
        with cli.whole_file(path) as file:
            yield Hashed(file)
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield Hashed(file)
            file.flush()
            with files.named(fs.unstrip_protocol(path)):
                fs.put_file(file.name, path)


def write(fs, path: str, answers) -> dict:
    """Write the tables of an iterator of (table, Counter) as one file: its entry in the manifest, with the path as `part`.

    Raises UserError for a column that a CSV cannot hold.
    """
    import pyarrow as pa

    suffix, counts, out = Path(path).suffix.lower(), Counter(), None
    with whole(fs, path) as file:
        for table, told in answers:
            counts.update(told)
            try:
                out = out or writer(file, suffix, table.schema)
                out.write_table(table)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
                raise cli.UserError(f"{path}: {str(e).splitlines()[0][:200]}; write it as Parquet") from None
        if suffix == ".parquet":
            out.add_key_value_metadata({OURS: json.dumps(counts)})
        out.close()
    return {"part": path, **counts, "bytes": file.bytes, "sha256": file.hash.hexdigest()}


def footer(fs, path: str) -> dict | None:
    """What the footer of a part says of it; None where it is none of ours."""
    import pyarrow as pa
    from pyarrow import parquet

    with contextlib.suppress(pa.ArrowException, OSError, ValueError, TypeError), fs.open(path, "rb") as file:
        return json.loads((parquet.read_metadata(file).metadata or {})[OURS])
    return None


def stream(file, suffix: str, answers) -> int:
    """Write tables to an open file as they come; how many rows."""
    out, rows = None, 0
    for table, _ in answers:
        out = out or writer(file, suffix, table.schema)
        out.write_table(table)
        file.flush()
        rows += len(table)
    return rows


def pieces(tables, rows: int):
    """Yield (number of the part, table of at most GROUP rows) of the tables of a unit, for parts of `rows` rows."""
    import pyarrow as pa

    waiting, at = [], 0
    for table in itertools.chain(tables, [None]):
        waiting += [] if table is None else [table]
        while have := sum(map(len, waiting)):
            size = min(GROUP, rows - at % rows)
            if have < size and table is not None:
                break
            joined = pa.concat_tables(waiting)
            yield at // rows, joined.slice(0, size)
            waiting, at = [joined.slice(size)], at + min(size, have)


# --- What is there


def apart(address: str, given: str, sources: list[files.Source]) -> None:
    """UserError where the parts would lie among the inputs, or the inputs among the parts."""
    place = lambda url: (
        lambda fs, path: (type(fs), f"{os.path.realpath(path) if files.local(fs) else path.rstrip('/')}/")
    )(*files.system(url))
    within = lambda inner, outer: inner[0] is outer[0] and inner[1].startswith(outer[1])
    out = place(address)
    folder = len(sources) > 1 or sources[0].name != given.rstrip("/").rpartition("/")[2]
    if any(within(place(s.url), out) for s in sources) or (folder and within(out, place(given))):
        raise cli.UserError(f"OUT={address}: holds INPUT={given} or lies in it; name a folder apart from it")


class Output:
    """A folder of parts, or one file with its manifest beside it; one run at a time writes there."""

    def __init__(self, address: str):
        """Take what a manifest there says, if there is one. UserError where it is none of ours."""
        self.address = address.rstrip("/")
        self.fs, path = files.system(self.address)
        self.single = path.rpartition("/")[2] if path.lower().endswith(SINGLE) and not self.fs.isdir(path) else ""
        self.folder = path[: -len(self.single) - 1] if self.single else path
        self.manifest = f"{self.folder}/{self.single}{MANIFEST}"
        self.config, self.inputs, self.parts, self.units = {}, {}, {}, {}
        self.seconds, self.written = 0.0, 0.0
        self.held: int | None = None
        with files.named(self.address):
            text = self.fs.cat_file(self.manifest) if self.fs.exists(self.manifest) else None
        try:
            if text is not None:
                self.describe(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise cli.UserError(f"{self.manifest}: not a manifest of ours ({e}); name another folder") from None

    def describe(self, said: dict) -> None:
        """Take what a manifest says; ValueError where it does not say all."""
        self.config, self.inputs, self.parts = said["config"], said["inputs"], said["parts"]
        needed = {"size", "mark", "unit", "sha256", "parts"}
        if not all(self.key(n) and {"rows", "sha256"} <= e.keys() for n, e in self.parts.items()):
            raise ValueError("a part is not described")
        if not (self.config and all(needed <= pin.keys() for pin in self.inputs.values())):
            raise ValueError("an input is not described")

    def path(self, unit: int, number: int) -> str:
        return f"{self.folder}/{self.single or f'{unit:05d}-{number:05d}.parquet'}"

    def key(self, name: str) -> tuple[int, int] | None:
        """(unit, number) of a part by its name."""
        found = PART.fullmatch(name)
        return (0, 0) if self.single else (int(found[1]), int(found[2])) if found else None

    def lock(self) -> None:
        """Hold a local folder while this process lives. Raises UserError where another process has it."""
        if self.single or not files.local(self.fs):
            return
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        self.held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise cli.UserError(f"OUT={self.address}: another make score writes there; wait for it") from None

    def close(self) -> None:
        """Let others write there."""
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def listed(self) -> list[str]:
        """Names of the files there; of one file, it and its manifest."""
        with files.named(self.address):
            self.fs.invalidate_cache()
            if self.single:
                paths = [p for p in (self.path(0, 0), self.manifest) if self.fs.exists(p)]
            else:
                paths = self.fs.ls(self.folder, detail=False) if self.fs.isdir(self.folder) else []
        return [p.rstrip("/").rpartition("/")[2] for p in paths if p.rstrip("/") != self.folder]

    def believe(self) -> dict[str, str]:
        """{name: what is amiss} of the parts, which only then stay if their bytes have the manifest's hash; of these the
        counts are taken from their footers."""

        def fault(name):
            path = f"{self.folder}/{name}"
            try:
                with self.fs.open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != self.parts[name]["sha256"]:
                        return "not the bytes that the manifest describes"
            except FileNotFoundError:
                return "gone"
            self.parts[name] |= footer(self.fs, path) or {}
            return ""

        with ThreadPoolExecutor(THREADS) as pool:
            faults = {n: f for n, f in zip(self.parts, pool.map(fault, list(self.parts)), strict=True) if f}
        self.parts = {name: entry for name, entry in self.parts.items() if name not in faults}
        return faults

    def resume(self, config: dict, sources: list[files.Source]) -> list[str]:
        """Go on with what is there; what is to be said of it. UserError where that is another run's, or anything else's."""
        self.lock()
        foreign = lambda name: cli.UserError(
            f"OUT={self.address}: {name} is not what score wrote; name another, or move it"
        )
        there = self.listed()
        if there and not self.config:
            raise foreign(min(there))
        if self.config and self.config != config:
            words = [k for k in config if self.config.get(k) != config[k]] or ["version"]
            raise cli.UserError(f"OUT={self.address}: holds the answers of another {words[0]}; name another folder")
        faults = self.believe()
        for name in there:
            if self.key(name) and name not in self.parts and name != self.manifest.rpartition("/")[2]:
                if footer(self.fs, f"{self.folder}/{name}") is None and (self.single or name not in faults):
                    raise foreign(name)
                self.fs.rm_file(f"{self.folder}/{name}")
            elif HALF.fullmatch(name) and not self.single:
                self.fs.rm_file(f"{self.folder}/{name}")
        self.config = config
        said = [f"{self.folder}/{name}: {fault}; made again" for name, fault in faults.items()] + self.pin(sources)
        self.save()
        return said

    def pin(self, sources: list[files.Source]) -> list[str]:
        """Take the sources into units, new ones into new units; what is to be said of those that changed.

        Raises UserError for one that is gone.
        """
        if gone := self.inputs.keys() - {source.name for source in sources}:
            fault = f"has the answers of {min(gone)}, which is gone from INPUT"
            raise cli.UserError(f"OUT={self.address}: {fault}; bring it back, or name another folder")
        said, again, new = [], set(), [s for s in sources if s.name not in self.inputs]
        for source in sources:
            pin = self.inputs.get(source.name)
            if pin and (pin["size"], pin["mark"]) != (source.size, source.mark):
                if pin["sha256"] is None or files.digest(source) != pin["sha256"]:
                    said.append(f"{source.name}: changed; its answers are made again")
                    again.add(pin["unit"])
                pin |= {"size": source.size, "mark": source.mark}
        unit, size = max((pin["unit"] for pin in self.inputs.values()), default=-1), UNIT
        for source in new:
            if size >= UNIT and not (self.single and unit == 0):
                unit, size = unit + 1, 0
            size += source.size
            self.inputs[source.name] = {"size": source.size, "mark": source.mark, "unit": unit}
            again.add(unit)
        for name in [name for name in self.parts if self.key(name)[0] in again]:
            del self.parts[name]
            self.fs.rm_file(f"{self.folder}/{name}")
        for source in sources:
            pin = self.inputs[source.name]
            self.units.setdefault(pin["unit"], []).append(source)
            if pin["unit"] in again:
                pin |= {"sha256": None, "parts": None}
        return said

    def missing(self) -> list[tuple[int, list[files.Source], set[int]]]:
        """(unit, its sources, the numbers of its parts that are there) of each unit that is not whole."""
        done = {unit: set() for unit in self.units}
        for unit, number in map(self.key, self.parts):
            done[unit].add(number)
        whole = lambda unit: self.inputs[self.units[unit][0].name]["parts"] == len(done[unit])
        return [(unit, self.units[unit], done[unit]) for unit in sorted(self.units) if not whole(unit)]

    def table(self, name: str, columns: list[str], several=False):
        """Some columns of a part. several: labels at once, which are texts."""
        import pyarrow as pa
        from pyarrow import csv, parquet

        with self.fs.open(f"{self.folder}/{name}", "rb") as file:
            if name.lower().endswith(".csv"):
                kinds = dict.fromkeys(("truth", "prediction"), pa.string() if several else pa.float64())
                how = csv.ConvertOptions(include_columns=columns, column_types=kinds, strings_can_be_null=True)
                return csv.read_csv(file, convert_options=how)
            return parquet.ParquetFile(file).read(columns, use_threads=False)

    def bad(self, name: str) -> list[dict]:
        """The rows of a part that are amiss: file, row, error."""
        return [row for row in self.table(name, ["file", "row", "error"]).to_pylist() if row["error"]]

    def labelled(self, name: str, several=False):
        """(the truth, the prediction or -1) of the rows of a part whose truth is known: n numbers each, or lists of them."""
        names = ["truth", "prediction"]
        table = self.table(name, names, several)
        table = table.filter(table["truth"].is_valid())
        if several:
            return [[json.loads(v) for v in table[side].fill_null("[]").to_pylist()] for side in names]
        return table["truth"].to_numpy(), table["prediction"].fill_null(-1).to_numpy()

    def add(self, entry: dict) -> None:
        """Take a written part into the manifest."""
        self.parts[entry["part"].rpartition("/")[2]] = {k: v for k, v in entry.items() if k != "part"}
        if time.monotonic() - self.written > SHARE * self.seconds:
            self.save()

    def finish(self, unit: int, count: int) -> None:
        """Pin the sources of a unit of so many parts, now that they are read; UserError for one that changed meanwhile."""
        for source in self.units[unit]:
            sha256 = files.digest(source)
            if files.today(source) != source:
                raise cli.UserError(f"{source.url}: changed while it was read; run it again")
            self.inputs[source.name] |= {"sha256": sha256, "parts": count}

    def save(self) -> None:
        start = time.monotonic()
        value = {"config": self.config, "complete": not self.missing(), "rows": sum(e["rows"] for e in self.parts.values()),
                 "inputs": self.inputs, "parts": dict(sorted(self.parts.items()))}  # fmt: skip
        with whole(self.fs, self.manifest) as file:
            file.write((json.dumps(value, indent=1) + "\n").encode())
        self.written = time.monotonic()
        self.seconds = self.written - start
