"""Files of sentences, wherever they lie: TSV, CSV, JSON lines and Parquet, read once, in constant memory.

    for number, table in files.blocks(source, ["sentence"], rows=65536): ...

An address is any of fsspec's: a path, file://, s3:// (with s3fs). It names a file, a folder or a glob (`*`). Of a
folder all files count whose names end in .tsv .csv .jsonl .parquet, perhaps with .gz .bz2 or .xz behind, at any depth, but
not those whose own or folder's name begins with a dot or an underscore.
"""

import contextlib
import dataclasses
import itertools
import lzma
import zlib
from pathlib import PurePosixPath

from tools.make import cli

KINDS = (".tsv", ".csv", ".jsonl", ".parquet")
PACKED = (".gz", ".bz2", ".xz")
BLOCK = 1 << 18  # bytes of a text file at a time: no row is longer, and Arrow reads 32 of them ahead
BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)  # what a file that is not whole raises
BATCH = 4096  # rows read at a time from Parquet


@dataclasses.dataclass(frozen=True)
class Source:
    """One input file. name: its path below what the address names; mark: what changes where its content does."""

    url: str
    name: str
    size: int
    mark: str

    @property
    def kind(self) -> str:
        return next((s for s in reversed(PurePosixPath(self.name).suffixes) if s not in PACKED), "")

    def open(self):
        import fsspec

        return fsspec.open(self.url, "rb", compression="infer")


def known(name: str) -> bool:
    """Whether a path is one that we read, by its name alone."""
    path = PurePosixPath(name)
    suffixes = path.suffixes[-2:] if path.suffix in PACKED else path.suffixes[-1:]
    return bool(suffixes) and suffixes[0] in KINDS and not any(p.startswith((".", "_")) for p in path.parts)


def system(address: str):
    """(fsspec file system, path there) of an address; UserError where no such thing is installed."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as e:
        raise cli.UserError(
            f"{address}: {e}; make score installs what s3:// needs, others are yours to install"
        ) from None


def mark(info: dict) -> str:
    """What a file system says of a file's content: an ETag, or the time it was written."""
    keys = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    return str(next((info[k] for k in keys if info.get(k)), ""))


def sources(address: str) -> list[Source]:
    """The files that an address names, by name; UserError where there is none."""
    fs, path = system(address)
    if any(sign in address for sign in "*?["):
        top, found = path.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0], fs.glob(path, detail=True)
    elif fs.isdir(path):
        top, found = path.rstrip("/"), fs.find(path, detail=True)
    else:
        top, found = path.rpartition("/")[0], {path: fs.info(path)} if fs.exists(path) else {}
    below = lambda name: name[len(top) :].lstrip("/")
    infos = {below(name): (name, info) for name, info in found.items() if info["type"] == "file" and known(below(name))}
    if not infos:
        raise cli.UserError(f"{address}: no file there that ends in {' '.join(KINDS)}; name a file, a folder or a glob")
    return [Source(fs.unstrip_protocol(p), name, i["size"], mark(i)) for name, (p, i) in sorted(infos.items())]


def batches(source: Source, file, columns: list[str]):
    """Yield pyarrow record batches of some columns (all if none) of an open file; pyarrow's own errors."""
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    if source.kind == ".parquet":
        yield from parquet.ParquetFile(file).iter_batches(BATCH, columns=columns or None)
    elif source.kind == ".jsonl":
        options = json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in columns[:1]]))
        yield from json.open_json(file, json.ReadOptions(block_size=BLOCK, use_threads=False), options)
    else:
        quoted = source.kind == ".csv"
        parse = {"newlines_in_values": True} if quoted else {"delimiter": "\t", "quote_char": False}
        types = {name: pa.string() for name in columns}
        yield from csv.open_csv(
            file,
            csv.ReadOptions(block_size=BLOCK, use_threads=False),  # its threads end a process that stops on an error
            csv.ParseOptions(**parse),
            csv.ConvertOptions(include_columns=columns, column_types=types, strings_can_be_null=False),
        )


def spelled(source: Source, spellings):
    """Which of several spellings of some columns a file has: the first one; the last where it has none."""
    import pyarrow as pa

    with contextlib.suppress(pa.ArrowException, *BROKEN), source.open() as file:  # said when it is read
        first = next(batches(source, file, []), None)
        there = set() if first is None else set(first.schema.names)
        return next((names for names in spellings if set(names) <= there), spellings[-1])
    return spellings[-1]


def tables(source: Source, columns: list[str], texts: int = 1):
    """Yield the rows of a file as pyarrow tables of `columns`, the first `texts` as strings.

    UserError names what is amiss, and where.
    """
    import pyarrow as pa
    from pyarrow import compute

    first = 0
    try:
        with source.open() as file:
            for batch in batches(source, file, columns):
                if missing := [c for c in columns if c not in batch.schema.names]:
                    raise cli.UserError(
                        f"{source.url}: no column {missing[0]}; it has {' '.join(batch.schema.names)[:200]}"
                    )
                table = pa.Table.from_batches([batch]).select(columns)
                for k, name in enumerate(columns[:texts]):
                    text = table[name].cast(pa.string())
                    empty = compute.fill_null(compute.equal(compute.utf8_trim_whitespace(text), ""), True)
                    if compute.any(empty).as_py():
                        row = first + compute.index(empty, True).as_py()
                        raise cli.UserError(f"{source.url}: row {row} (from 0): no {name}; write one or drop the row")
                    table = table.set_column(k, name, text)
                first += len(table)
                yield table
    except (pa.ArrowException, *BROKEN) as e:
        why = str(e).strip("'\"").splitlines()[0][:200]
        raise cli.UserError(f"{source.url}: near row {first} (from 0): {why}; mend it, or take it out") from None


def blocks(source: Source, columns: list[str], rows: int, done=(), texts: int = 1):
    """Yield (number, table of `rows` rows, the last one of fewer) of a file, but for the numbers in `done`."""
    import pyarrow as pa

    waiting, count, number = [], 0, itertools.count()
    for table in itertools.chain(tables(source, columns, texts), [None]):
        while count >= rows or (table is None and count):
            whole = pa.concat_tables(waiting).combine_chunks()
            if (k := next(number)) not in done:
                yield k, whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], max(0, count - rows)
        if table is not None:
            waiting.append(table)
            count += len(table)
