"""What score writes: Parquet parts with the manifest that says which there are, one file, or standard output.

    {"config": {"model": "<sha256>", ...}, "complete": true, "rows": 872,
     "inputs": {"dev.tsv": {"size": 105000, "mark": "1764480000.0", "unit": 0, "sha256": "...", "parts": 1}},
     "parts": {"00000-00000.parquet": {"rows": 872, "duplicates": 0, "cut": 0, "amiss": 0, "bytes": 14052, "sha256": "..."}}}

Small files that follow one another are a unit: the part 00002-00001 is the second of the third unit's rows. A part is
written whole: locally under another name that it then leaves, elsewhere in one upload. _manifest.json is replaced as a
whole, after the parts it names; what a killed run had written and not yet listed is made again, with the same bytes.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from fsspec.utils import glob_translate
from pyarrow import csv, parquet
from pydantic import BaseModel

from tools.cpu.native import certificate
from tools.make import cli, run
from tools.scale import files
from tools.scale.scorer import GROUP, ahead

MANIFEST = "_manifest.json"
PART = re.compile(r"(\d{5,})-(\d{5,})\.parquet")
HALF = re.compile(rf"\.({PART.pattern}|{MANIFEST})\.[a-z0-9_]{{8}}")  # as cli.whole_file names what is not yet whole
OURS = b"bert2om"  # the key of what a part's footer says of it
SINGLE = (".csv", ".parquet")
NOT_WRITTEN = {*files.KINDS, *files.PACKED, ".txt", ".pq", ".arrow", ".feather", ".orc", ".xlsx", ".zip"} - {*SINGLE}
SHARE = 20  # the manifest is written again when this many times as long has passed as that takes
UNIT = 1 << 23  # bytes of small files that are read together, at most, where a part is less
FULL = 7 / 8  # of a part, at most, are the files that share it: rows may be shorter than the first ones
PARTS = 100  # about as many, where the input is large
LARGEST = 400e6  # bytes of a part, at most
THREADS = 16


@contextlib.contextmanager
def whole_file(fs, path: str):
    """A file that has its name when the block ends well."""
    if files.is_local(fs):
        with cli.whole_file(path, "w+b") as file:
            yield file
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            with files.explain(fs.unstrip_protocol(path)):
                fs.put_file(file.name, path)


def write(fs, path: str, answers) -> dict:
    """Write the tables of an iterator of (table, Counter) as one file: its entry in the manifest, with the path as `part`.
    UserError for a column that a CSV cannot hold."""
    kind = csv.CSVWriter if path.lower().endswith(".csv") else parquet.ParquetWriter
    first = next(answers)
    counts: Counter = Counter()
    with whole_file(fs, path) as file:
        try:
            with kind(file, first[0].schema) as out:
                for table, more in itertools.chain([first], answers):
                    counts.update(more)
                    out.write_table(table)
                if kind is parquet.ParquetWriter:
                    out.add_key_value_metadata({OURS: json.dumps(counts)})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
            raise cli.UserError(f"{path}: {str(e).splitlines()[0][:200]}; write it as Parquet") from None
        size = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"part": path, **counts, "bytes": size, "sha256": sha256}


def footer(fs, path: str) -> dict | None:
    """What the footer of a part says of it; None where it is none of ours."""
    with contextlib.suppress(pa.ArrowException, OSError, ValueError, TypeError), fs.open(path, "rb") as file:
        return json.loads((parquet.read_metadata(file).metadata or {})[OURS])
    return None


def stream(file, kind: str, answers) -> Counter:
    """Write tables to an open file as they come, as JSON lines, or as a TSV, where a tab or a line's end within a value
    becomes a blank; the sum of their counts."""
    total: Counter = Counter()
    line = lambda values: "\t".join("" if v is None else re.sub(r"[\t\r\n]", " ", str(v)) for v in values)
    for table, counts in answers:
        if kind == files.JSON:
            lines = [json.dumps(row, ensure_ascii=False, default=str) for row in table.to_pylist()]
        else:
            lines = [line(table.column_names)] * (not total) + [line(row.values()) for row in table.to_pylist()]
        file.write("".join(f"{text}\n" for text in lines).encode())
        file.flush()
        total += counts
    return total


def pieces(tables, rows: int):
    """Yield (number of the part, table of at most GROUP rows) of the tables of a unit, for parts of `rows` rows."""
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


def read_pieces(sources, selection, rows: int, progress=None):
    """The pieces of a unit, each read while the one before it is used."""
    tables = itertools.chain.from_iterable(files.tables(source, selection, progress) for source in sources)
    return ahead(pieces(tables, rows))


def sizes(sources, selection, logits=False) -> tuple[int, float]:
    """(rows of a part, bytes of a row of the input), from the first rows of the largest source.

    Rows: GROUP, or more where the input would then have more than PARTS parts, as long as they stay below LARGEST bytes. A
    row's answers are 6 bytes beside what stands in the table already: a file of 2^18 took 12.2 with its key.
    """
    tally = SimpleNamespace(rows=0, bytes=0)
    largest = max(sources, key=lambda source: source.size)
    tables = files.tables(largest, dataclasses.replace(selection, null=True), tally)
    if (table := next(tables, None)) is None:
        return GROUP, 1.0
    box = io.BytesIO()
    parquet.write_table(table.drop_columns([f"text{k}" for k in range(len(selection.task.text[0]))]), box)
    answer = box.tell() / len(table) + 6 + len(selection.names) * (4 * logits + 12 * selection.task.several)
    row = max(1.0, tally.bytes / len(table))
    count = sum(source.size for source in sources) / row
    most = 1 << int(math.log2(LARGEST / answer))
    return max(GROUP, min(most, 1 << int(count / PARTS).bit_length())), row


def make_parts(model, out, selection, units, rows: int, progress=None, share=(0, 1)):
    """Make parts that are missing; yield their entries, and after each unit (its number, how many parts it has, {source:
    sha256}). UserError for a source that changed while it was read.

    model: a Scorer; units: as Output.missing gives them; share: (k, n), of each n parts the one of number k, and of these
    the first alone hashes the sources.
    """
    for unit, sources, done in units:
        count = 0
        whole = read_pieces(sources, selection, sys.maxsize if out.single else rows, progress)
        for number, group in itertools.groupby(whole, key=lambda piece: piece[0]):
            count = number + 1
            if number not in done and number % share[1] == share[0]:
                yield write(out.fs, out.path(unit, number), (model.answers(table) for _, table in group))
        hashes = {source.name: files.digest(source) for source in sources if not share[0]}
        for source in sources:
            if files.current(source) != source:
                raise cli.UserError(f"{source.url}: changed while it was read; run it again")
        yield unit, count, hashes


class Pin(BaseModel):
    """What a manifest says of an input."""

    size: int
    mark: str
    unit: int
    sha256: str | None
    parts: int | None


class Part(BaseModel):
    """What a manifest says of a part, beside other counts."""

    rows: int
    amiss: int
    sha256: str


class Manifest(BaseModel):
    config: dict
    inputs: dict[str, Pin]
    parts: dict[str, Part]


class Output:
    """A folder of parts, or one file with its manifest beside it."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self.fs, path = files.system(self.address)
        self.single = path.rpartition("/")[2] if path.lower().endswith(SINGLE) and not self.fs.isdir(path) else ""
        if Path(path).suffix.lower() in NOT_WRITTEN and not self.fs.isdir(path):
            fault = f"nothing is written as {Path(path).suffix}"
            raise cli.UserError(f"OUT={address}: {fault}; end it in {' or '.join(SINGLE)}, or name a folder, or -")
        self.folder = path[: -len(self.single) - 1] if self.single else path
        self.manifest = f"{self.folder}/{self.single}{MANIFEST}"
        self.config, self.inputs, self.parts, self.units = {}, {}, {}, {}
        self.portion = 0  # bytes of the input that make a part
        self.seconds = self.written = 0.0

    def read(self) -> None:
        """Take what a manifest there says, if there is one. UserError where it is none of ours."""
        with files.explain(self.address):
            text = self.fs.cat_file(self.manifest) if self.fs.exists(self.manifest) else b""
        try:
            manifest = json.loads(text or '{"config": {}, "inputs": {}, "parts": {}}')
            units = {pin.unit for pin in Manifest.model_validate(manifest).inputs.values()}
            self.config, self.inputs, self.parts = (manifest[key] for key in ("config", "inputs", "parts"))
            if foreign := [name for name in self.parts if not (key := self.key(name)) or key[0] not in units]:
                raise ValueError(f"{foreign[0]} is a part of no input")
        except (ValueError, RecursionError) as e:
            why = " ".join(str(e).split())[:200]
            raise cli.UserError(f"{self.manifest}: not a manifest of ours ({why}); name another folder") from None

    @contextlib.contextmanager
    def alone(self):
        """The block is the only one that writes to a local folder: another one waits. The manifest is read."""
        with contextlib.ExitStack() as last:
            if files.is_local(self.fs) and not self.single:
                Path(self.folder).mkdir(parents=True, exist_ok=True)
                last.callback(os.close, run.lock(Path(self.folder), fcntl.LOCK_EX)[0])
            self.read()
            yield

    def refuse_overlap(self, address: str) -> None:
        """UserError where the parts would lie among the inputs that an address names, so that the next run would read them."""
        fs, top = files.system(address)
        part, inputs = (os.path.realpath(p) if files.is_local(fs) else p.rstrip("/") for p in (self.path(0, 0), top))
        inside = f"{part}/".startswith(f"{inputs}/") or re.match(glob_translate(inputs), part)
        if type(fs) is type(self.fs) and inside:
            raise cli.UserError(f"OUT={self.address}: lies in INPUT={address}; name a folder apart from it")

    def path(self, unit: int, number: int) -> str:
        return f"{self.folder}/{self.single or f'{unit:05d}-{number:05d}.parquet'}"

    def key(self, name: str) -> tuple[int, int] | None:
        """(unit, number) of a part by its name; None of another file."""
        if self.single:
            return (0, 0) if name == self.single else None
        match = PART.fullmatch(name)
        return (int(match[1]), int(match[2])) if match else None

    def names(self) -> list[str]:
        """Names of the files there; of one file, it and its manifest."""
        with files.explain(self.address):
            self.fs.invalidate_cache()
            if self.single:
                paths = [p for p in (self.path(0, 0), self.manifest) if self.fs.exists(p)]
            else:
                paths = self.fs.ls(self.folder, detail=False) if self.fs.isdir(self.folder) else []
        return [p.rstrip("/").rpartition("/")[2] for p in paths if p.rstrip("/") != self.folder]

    def believe(self) -> dict[str, str]:
        """{name: what is amiss} of the parts; those stay whose bytes have the manifest's hash, with their footer's counts."""

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

    def resume(self, config: dict, sources: list[files.Source], row: float) -> list[str]:
        """Go on with what is there, the input having `row` bytes a row; the lines to print of it. UserError where that is
        another run's, or anything else's."""
        foreign = "is not what score wrote; move it away and run again, or name another OUT"
        names = self.names()
        if not self.config and (others := [name for name in names if not HALF.fullmatch(name)]):
            raise cli.UserError(f"OUT={self.address}: {min(others)} {foreign}")
        if self.parts and self.config != config:
            words = [k for k in config if self.config.get(k) != config[k]] or ["version"]
            raise cli.UserError(f"OUT={self.address}: holds the answers of another {words[0]}; name another folder")
        faults = self.believe()
        for name in names:
            path, part = f"{self.folder}/{name}", self.key(name) and name not in self.parts
            if part and footer(self.fs, path) is None and (name not in faults or name.lower().endswith(".csv")):
                raise cli.UserError(f"OUT={self.address}: {name} {foreign}")
            if part or HALF.fullmatch(name):
                self.fs.rm_file(path)
        self.config, self.portion = config, int(row * config["rows"])
        lines = [f"{self.folder}/{name}: {fault}; made again" for name, fault in faults.items()] + self.pin(sources)
        self.save()
        return lines

    def pin(self, sources: list[files.Source]) -> list[str]:
        """Take the sources into units, new ones into new units; a line of each that changed. UserError for one that is gone,
        unless a run that stopped had not finished it."""
        lines, again, most = [], set(), max(UNIT, FULL * self.portion)
        for name in sorted(self.inputs.keys() - {source.name for source in sources}):
            if self.inputs[name]["parts"] is not None:
                fault = f"has the answers of {name}, which is gone from INPUT"
                raise cli.UserError(f"OUT={self.address}: {fault}; bring it back, or name another folder")
            again.add(self.inputs.pop(name)["unit"])
        unit, size = max((pin["unit"] for pin in self.inputs.values()), default=-1), math.inf
        for source in sources:
            now = {"size": source.size, "mark": source.mark}
            if not (pin := self.inputs.get(source.name)):
                if size + source.size > most and not (self.single and unit == 0):
                    unit, size = unit + 1, 0
                size += source.size
                pin = self.inputs[source.name] = {**now, "unit": unit}
                again.add(unit)
            elif (pin["size"], pin["mark"]) != (source.size, source.mark):
                if pin["sha256"] is None or files.digest(source) != pin["sha256"]:
                    lines.append(f"{source.name}: changed; its answers are made again")
                    again.add(pin["unit"])
                pin |= now
            self.units.setdefault(pin["unit"], []).append(source)
        for pin in self.inputs.values():
            if pin["unit"] in again:
                pin |= {"sha256": None, "parts": None}
        for name in [name for name in self.parts if self.key(name)[0] in again]:
            del self.parts[name]
            self.fs.rm_file(f"{self.folder}/{name}")
        return lines

    def missing(self) -> list[tuple[int, list[files.Source], set[int]]]:
        """(unit, its sources, the numbers of its parts that are there) of each unit that is not whole."""
        done = {unit: set() for unit in self.units}
        for unit, number in map(self.key, self.parts):
            done[unit].add(number)
        whole = lambda unit: self.inputs[self.units[unit][0].name]["parts"] == len(done[unit])
        return [(unit, self.units[unit], done[unit]) for unit in sorted(self.units) if not whole(unit)]

    def rows(self, names, columns: list[str], several=False):
        """A scanner of some columns of some parts, where the first is not null. several: labels at once, which are texts."""
        from pyarrow import dataset  # which imports pandas

        kinds = dict.fromkeys(("truth", "prediction"), pa.string() if several else pa.float64())
        options = csv.ConvertOptions(column_types=kinds | {"error": pa.string()}, strings_can_be_null=True)
        kind = dataset.CsvFileFormat(convert_options=options) if self.single.lower().endswith(".csv") else "parquet"
        paths = [f"{self.folder}/{name}" for name in names]
        valid = dataset.field(columns[0]).is_valid()
        return dataset.dataset(paths, filesystem=self.fs, format=kind).scanner(columns=columns, filter=valid)

    def bad(self, most: int) -> list[dict]:
        """The first rows that are amiss: error, file, row."""
        names = [name for name, entry in self.parts.items() if entry["amiss"]]
        return self.rows(names, ["error", "file", "row"]).head(most).to_pylist() if names else []

    def labelled(self, several=False) -> list[list]:
        """[the truth, the prediction or -1] of the rows whose truth is known: n numbers each, or lists of them."""
        table = self.rows(self.parts, ["truth", "prediction"], several).to_table()
        if several:
            return [[json.loads(v) for v in column.fill_null("[]").to_pylist()] for column in table.columns]
        return [column.fill_null(-1).to_pylist() for column in table.columns]

    def add(self, entry: dict) -> None:
        """Take a written part into the manifest."""
        self.parts[entry["part"].rpartition("/")[2]] = {k: v for k, v in entry.items() if k != "part"}
        if time.monotonic() - self.written > SHARE * self.seconds:
            self.save()

    def finish(self, unit: int, count: int, hashes: dict) -> None:
        """Pin the sources of a unit of so many parts, now that they are read."""
        for source in self.units[unit]:
            self.inputs[source.name] |= {"sha256": hashes[source.name], "parts": count}

    def certified(self) -> dict:
        """{certified: what is guaranteed of the answers}, where texts left early."""
        claim = self.config.get("certificate")
        names = [f"left{k}" for k, _ in enumerate(claim["left"], 1)] if claim else []
        left = [sum(entry.get(name, 0) for entry in self.parts.values()) for name in names]
        return {"certified": certificate.facts_of_run(claim, left)} if claim else {}

    def save(self) -> None:
        """Write the manifest."""
        start = time.monotonic()
        value = {"config": self.config, **self.certified(), "complete": not self.missing(), "rows": sum(e["rows"] for e in self.parts.values()),
                 "inputs": self.inputs, "parts": dict(sorted(self.parts.items()))}  # fmt: skip
        with whole_file(self.fs, self.manifest) as file:
            file.write((json.dumps(value, indent=1) + "\n").encode())
        self.written = time.monotonic()
        self.seconds = self.written - start
