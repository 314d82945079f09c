"""Files of texts, wherever they lie: TSV, CSV, JSON lines and Parquet, read once, in constant memory.

An address is any of fsspec's: a path, file://, s3:// (with s3fs), or - for standard input. It names a file, a folder or
a glob. Of a folder all files count whose names end as KINDS says, in any case, perhaps with one of PACKED behind, at any
depth, but not those whose own or folder's name begins with a dot or an underscore, nor links to others in the folder.

A TSV has no quotes, CSV is RFC 4180's, JSON is an object a line. Text files are read by the standard library: Arrow's
readers stop at the first row that is amiss, name no line, and take what follows an open quote for text.
"""

import bz2
import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from tools.base import tasks
from tools.make import cli

JSON = ".jsonl"
KINDS = {k: k for k in (".tsv", ".csv", ".parquet")} | dict.fromkeys((JSON, ".ndjson", ".json"), JSON)
PACKED: dict[str, Callable] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": lambda file: pa.CompressedInputStream(file, "zstd"),
}  # fmt: skip
BATCH = 4096  # rows read at a time
LARGEST = 1 << 26  # characters of a row of a text file, at most
# Of a file that is not whole, or holds what Python cannot: a date of the year 10000.
BROKEN = (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, lzma.LZMAError, zlib.error)
NO_TEXT = ((b"\x1f\x8b", "gzip; name it .gz"), (b"\x28\xb5\x2f\xfd", "Zstandard; name it .zst"),
           (b"\xff\xfe", "UTF-16; convert it"), (b"\xfe\xff", "UTF-16; convert it"))  # fmt: skip
NO_OBJECT = "no JSON object on this line; `jq -c .` writes one a line, `jq -c '.[]'` those of an array"


@dataclasses.dataclass(frozen=True)
class Source:
    """One input file. name: its path below what the address names; mark: what changes where its content does."""

    url: str
    name: str
    size: int = 0
    mark: str = ""

    @property
    def suffixes(self) -> tuple[str, str]:
        """(what KINDS makes of its name's suffix, or nothing; the suffix of PACKED behind that, or nothing)."""
        *_, last, packed = ["", "", *(s.lower() for s in PurePosixPath(self.name).suffixes)]
        return (KINDS.get(last, ""), packed) if packed in PACKED else (KINDS.get(packed, ""), "")


def is_utf8(text: str) -> bool:
    """Whether a text has no half surrogate pair, which is what Python makes of other bytes."""
    return text.isascii() or text.encode(errors="replace").decode() == text


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is read of each row.

    names: of the classes; texts: the columns of the text (two of a pair), in each spelling that is known; labels: names
    that the column of the labels may have, which a file may lack unless it is `required`; keep: {name in the result: (column,
    pyarrow type)}; null: a row that is amiss has no text and a reason in `error`, and stops nothing; fields: those that files
    of JSON have, of which one file need not have all.
    """

    task: tasks.Task
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()
    required: bool = False
    keep: dict = dataclasses.field(default_factory=dict)
    null: bool = False
    fields: tuple[str, ...] = ()

    def columns(self, source: Source, names: list[str]) -> tuple[tuple[str, ...], list[str], list[str]]:
        """(columns of the text, that of the label if any, those that are kept) of a file of these columns; UserError for
        one that is missing, or there twice, unless the file is empty."""
        keep = [column for column, _ in self.keep.values()]
        texts = next((t for t in self.texts if set(t) <= set(names)), self.texts[-1])
        label = [name for name in self.labels if name in names][:1] or list(self.labels[:1] if self.required else ())
        label = list(self.names) if self.has_columns_of_labels(names) else label
        known = list(dict.fromkeys((*names, *self.fields))) if source.suffixes[0] == JSON else names
        for name in (*texts, *label, *keep) if names else ():
            if (count := known.count(name)) != 1:
                near = f"no column {name}{cli.nearest(name, known)}"
                fault = f"{count} columns are called {name}" if count else near
                there = f"its first {BATCH} rows have" if source.suffixes[0] == JSON else "it has"
                header = ", ".join(known)[:200].replace("\n", "\\n")
                raise cli.UserError(f"{source.url}: {fault}; {there} {header}; see COLUMNS= and KEEP=")
        return texts, label, keep

    def has_columns_of_labels(self, names) -> bool:
        """Whether a file of these columns has one for each label of a task that may give a text several."""
        return bool(self.task.several and self.labels and not self.required and set(self.names) <= set(names))

    def truth(self, record: dict, columns: list[str]) -> int | float | list[int] | None:
        """The class number, the score or the class numbers that a row's label spells in its column, or its columns, one
        of 0 or 1 for each label. None where it is unknown; UserError for any other."""
        values = [int(v) if isinstance(v, bool) else v for v in map(record.get, columns)]
        if any(value is None or value == "" or value != value for value in values):  # NaN is not itself
            return None
        if columns == list(self.names):
            return tasks.marked([re.sub(r"\.0+$", "", str(value)) for value in values], columns, "")
        value = values[0].decode(errors="replace") if isinstance(values[0], bytes) else values[0]
        text = (json.dumps(value) if isinstance(value, list) else str(value)).strip()
        if not self.task.score and text.lower() not in map(str.lower, self.names):
            text = {"true": "1", "false": "0"}.get(text.lower(), re.sub(r"\.0+$", "", text))
        return tasks.label_of(text, self.task, list(self.names), "")


def is_local(fs) -> bool:
    """Whether an fsspec file system is this machine's own folders."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


@contextlib.contextmanager
def explain(address: str):
    """What a file system raises in the block, of whatever library, becomes one line that names the address."""
    try:
        yield
    except (cli.UserError, BrokenPipeError):
        raise
    except Exception as e:
        why = " ".join((str(e.strerror) if isinstance(e, OSError) and e.strerror else str(e)).split())[:200]
        why = "no such file or folder" if isinstance(e, FileNotFoundError) else f"{type(e).__name__}: {why}"
        raise cli.UserError(f"{address}: {why}; is it spelled right, and is this machine let in?") from None


def system(address: str):
    """(fsspec file system, path there) of an address; UserError where no such thing is installed."""
    import fsspec

    with explain(address):
        if "://" in address:
            return fsspec.core.url_to_fs(address)
        fs = fsspec.filesystem("file")  # whose names may hold :: too
        return fs, fs._strip_protocol(address)


def described(source: Source, info: dict) -> Source:
    """The source with what a file system says of it: its size, and an ETag or the time it was written."""
    keys = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    mark = next((info[key] for key in keys if info.get(key)), "")
    return dataclasses.replace(source, size=info["size"] or 0, mark=str(mark))


def sources(address: str) -> tuple[list[Source], list[str]]:
    """(the files that an address names, by name; files left out, with a reason); UserError where there is none."""
    if address == "-":
        return [Source("-", "-")], []
    fs, path = system(address)
    good, others = [], []
    with explain(address):
        top, infos = list_files(fs, path)
    outside = lambda path: not os.path.realpath(path).startswith(f"{os.path.realpath(top)}/")
    for one, info in sorted(infos.items()):
        name = one[len(top) :].lstrip("/")
        source = Source(one if is_local(fs) else fs.unstrip_protocol(one), name)
        suffix = source.suffixes[0]
        hidden = one != path and any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)
        if hidden or (info["type"] == "directory" and not suffix):
            continue
        if (info["size"] is None or (info.get("islink") and outside(one))) and fs.exists(one):
            info = fs.info(one)  # of a folder over HTTP, of what a link leads to
        if not suffix or info["type"] != "file":
            others.append(name + " (not a regular file)" * bool(suffix))
        elif is_utf8(name):
            good.append(described(source, info))
        else:
            raise cli.UserError(f"{address}: the name {ascii(name)} is not UTF-8; rename that file")
    if not good:
        kinds = f"{' '.join(KINDS)}, nor one of these with {' '.join(PACKED)} behind"
        raise cli.UserError(f"{address}: no file there that ends in {kinds}; name a file, a folder or a glob")
    return good, others


def list_files(fs, path: str) -> tuple[str, dict]:
    """(the folder that names begin below, {path: what the file system says of it})."""
    if fs.isdir(path):
        return path.rstrip("/"), fs.find(path, detail=True)
    if (signs := re.search(r"[*?[]", path)) and not fs.exists(path):
        return path[: signs.start()].rpartition("/")[0], fs.glob(path, detail=True)
    return path.rpartition("/")[0], {path: fs.info(path)}


def current(source: Source) -> Source:
    """The source as it is by now; UserError where it is gone."""
    fs, path = system(source.url)
    with explain(source.url):
        fs.invalidate_cache()
        return described(source, fs.info(path))


def digest(source: Source) -> str | None:
    """sha256 of a file of this machine; None of another's, whose ETag is its mark."""
    fs, path = system(source.url)
    return cli.sha256(path) if is_local(fs) else None


class Open(NamedTuple):
    """A file that is read. columns: none of an empty one; read(columns): an iterator of (line, {column: value}, fault) of its
    rows; tell(rows): its bytes so far, of so many rows; table: of Parquet."""

    columns: list[str]
    read: Callable
    tell: Callable
    table: parquet.ParquetFile | None = None


def buffered(file):
    """The file, of which one can see what comes next."""
    return file if hasattr(file, "peek") else io.BufferedReader(file)


def pipe_kind() -> str:
    """The kind of the text on standard input, by its first character, which stays to be read. UserError where there is none."""
    pipe = buffered(sys.stdin.buffer)
    if not pipe.peek(1):
        raise cli.UserError("-: empty; its first line must name its columns")
    return JSON if pipe.peek(1).lstrip(b"\xef\xbb\xbf \r\n")[:1] in (b"{", b"[") else ".tsv"


def characters(file, where: str) -> io.TextIOWrapper:
    """A file's text, which is UTF-8; a byte that is not becomes half a surrogate pair, and a fault of its row. UserError
    for what NO_TEXT lists."""
    file = buffered(file)
    if fault := next((fault for sign, fault in NO_TEXT if file.peek(4).startswith(sign)), None):
        raise cli.UserError(f"{where}: not UTF-8 text but {fault}")
    return io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")


def lines(text, where: str) -> Iterator[str]:
    """The lines of a text; UserError for one that is too long for any row."""
    while line := text.readline(LARGEST + 1):
        if len(line) > LARGEST:
            raise cli.UserError(f"{where}: a line of more than {LARGEST} characters; are these rows?")
        yield line


def fields(text, where: str, kind: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row of a TSV or CSV that is not empty; UserError for quotes that are not closed."""
    csv.field_size_limit(LARGEST)
    how: dict = {"strict": True} if kind == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    rows, first = csv.reader(text, **how), 1
    try:
        for row in rows:
            if row:
                yield first, row
            first = rows.line_num + 1
    except csv.Error as e:
        fault = "a quote that is not closed" if re.search("end of data|limit", str(e)) else f"quotes amiss ({e})"
        raise cli.UserError(f"{where}: line {first}: the row that begins here has {fault}; mend its quotes") from None


def separated(rows):
    """(columns, read) of a TSV or CSV."""
    _, header = next(rows, (1, []))

    def read(columns):
        places = [(name, header.index(name)) for name in columns if header]
        for line, row in rows:
            if len(row) == len(header):
                yield line, {name: row[place] for name, place in places}, None
            else:
                yield line, {}, f"{len(row)} columns, the header has {len(header)}"

    return header, read


def objects(text) -> Iterator[tuple[int, dict, str | None]]:
    """(line, object, fault) of each line of JSON that is not empty."""
    for number, line in enumerate(text, 1):
        try:
            value = json.loads(line) if line.strip() else None
            if isinstance(value, dict):
                yield number, value, None
            elif line.strip():
                yield number, {}, NO_OBJECT
        except (ValueError, RecursionError) as e:
            yield number, {}, f"{NO_OBJECT} ({str(e)[:60]})"


@contextlib.contextmanager
def open_source(source: Source):
    """An Open of a file. Raises UserError, which names the file, for whatever is amiss with it."""
    where, (kind, packed) = source.url, source.suffixes
    try:
        with contextlib.ExitStack() as stack:
            if where == "-":
                raw = file = buffered(sys.stdin.buffer)
                kind = pipe_kind()
            else:
                fs, path = system(where)
                raw = buffered(stack.enter_context(fs.open(path, "rb")))
                file = stack.enter_context(PACKED[packed](raw)) if packed and raw.peek(1) else raw
            tell = lambda rows: 0 if where == "-" else raw.tell()
            if kind == ".parquet" and raw.peek(1):
                whole = parquet.ParquetFile(file)
                names = whole.schema_arrow.names
                if whole.metadata.num_rows and not names:
                    raise ValueError("no column")
                tell = lambda rows: source.size * rows // whole.metadata.num_rows
                batches = lambda columns: (b.select(columns) for b in whole.iter_batches(BATCH, columns=columns))
                read = lambda columns: ((None, row, None) for batch in batches(columns) for row in batch.to_pylist())
                yield Open(names, read, tell, whole)
                return
            text = characters(file, where)  # which would close the file if nobody held it
            if kind == JSON:
                rows = objects(lines(text, where))
                first = list(itertools.islice(rows, BATCH))
                names = dict.fromkeys(name for _, row, _ in first for name in row)
                yield Open(list(names), lambda columns: itertools.chain(first, rows), tell)
            else:
                names, read = separated(fields(lines(text, where), where, kind))
                yield Open(names, read, tell)
    except BROKEN as e:
        message = str(getattr(e, "strerror", None) or e)
        why = (message.strip("'\"").splitlines() or [type(e).__name__])[0][:200]
        raise cli.UserError(f"{where}: {why}; mend it, or take it out") from None


def head(source: Source, selection: Selection) -> tuple[list[str], dict, bool]:
    """(a file's columns, extremes() of those of Parquet that are kept, whether it has a row); UserError for a broken one."""
    with open_source(source) as file:
        keep = {column for column, _ in selection.keep.values() if file.table and column in file.columns}
        return file.columns, {name: extremes(file.table, name) for name in keep}, next(file.read([]), None) is not None


def extremes(table: parquet.ParquetFile, column: str) -> pa.Array:
    """An array of a column's type; of integers and times the least and largest of each group of rows, as far as it is known."""
    kind = table.schema_arrow.field(column).type
    groups = range(table.num_row_groups if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) else 0)
    place = [table.schema.column(k).path for k in range(len(table.schema.names))].index(column) if groups else 0
    statistics = [table.metadata.row_group(k).column(place).statistics for k in groups]
    return pa.array([v for one in statistics if one and one.has_min_max for v in (one.min, one.max)], kind)


def text_of(value) -> str:
    """A text as a string; ValueError that says why it is none."""
    if isinstance(value, (int, float)):
        value = json.dumps(value) if value == value else None  # NaN is where nothing stands
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__}, not a text")
    if not value or not value.strip():
        raise ValueError("no text")
    if not is_utf8(value):
        raise ValueError("not UTF-8")
    return value


def convert(value, kind):
    """A value that is handed on as it is; for a column of strings as written, bytes that are not UTF-8 spelled out."""
    if kind != pa.string() or value is None:
        return value
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, (bool, int, float, list, dict)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    try:
        return str(value).encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair that JSON spells
        return str(value).encode(errors="backslashreplace").decode()


def tables(source: Source, selection: Selection, tally=None) -> Iterator[pa.Table]:
    """Yield the rows of a file as pyarrow tables: file, row (from 0), text0 (text1), what is kept, truth, error. UserError for
    what is amiss with the file, and, unless selection.null, for the first row that is. tally: its rows and bytes count up."""
    first = offset = 0
    with open_source(source) as file:
        texts, label, keep = selection.columns(source, file.columns)
        rows = file.read(list(dict.fromkeys([*texts, *label, *keep])))
        while batch := list(itertools.islice(rows, BATCH)):
            if tally:
                now = file.tell(first + len(batch))
                tally.rows, tally.bytes, offset = tally.rows + len(batch), tally.bytes + now - offset, now
            yield table(source, selection, texts, label, first, batch)
            first += len(batch)


def table(source: Source, selection: Selection, texts, label, first: int, batch) -> pa.Table:
    """One table of `tables`, of the rows from number `first` on."""
    answers, truth, faults = [], [], []
    for k, (line, record, fault) in enumerate(batch, first):
        answer: list = [None] * len(texts)
        true = None
        fault = fault or next((f"no text: no field {name} on this line" for name in texts if name not in record), None)
        try:
            if not fault:
                answer = [text_of(record.get(name)) for name in texts]
                true = selection.truth(record, label) if label else None
        except (ValueError, cli.UserError) as e:
            fault = str(e).removeprefix(": ").removesuffix("; mend it")
        if fault and not selection.null:
            where = f"row {k} (from 0)" + (f", line {line}" if line else "")
            raise cli.UserError(f"{source.url}: {where}: {fault}; mend it, or give ON_BAD=null")
        answers.append(answer)
        truth.append(true)
        faults.append(fault)
    columns = {"file": pa.array([source.name] * len(batch))}
    columns["row"] = pa.array(range(first, first + len(batch)), pa.int64())
    columns |= {f"text{k}": pa.array(column, pa.string()) for k, column in enumerate(zip(*answers, strict=True))}
    for name, (column, kind) in selection.keep.items():
        columns[name] = pa.array([convert(record.get(column), kind) for _, record, _ in batch], kind)
    if selection.labels and selection.task.several:  # as their predictions are written
        columns["truth"] = pa.array([t if t is None else json.dumps(t) for t in truth], pa.string())
    elif selection.labels:
        columns["truth"] = pa.array(truth, pa.float32() if selection.task.score else pa.int32())
    return pa.table(columns | {"error": pa.array(faults, pa.string())})
