"""make score: what is read, what is written, runs that are killed or damaged, pipes, Python, an S3 stand-in, a Ray cluster
that loses a node. One small model of exact sums, so that every answer is known."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import math
import os
import pty
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import slurm
import small
from conftest import ROOT, edit_json, fails, lay, refused
from pyarrow import dataset, parquet

from tools.base import tasks
from tools.make import chips, cli, cpu
from tools.scale import cluster, files, parts, scorer
from tools.scale import score as command

PYTHON = ROOT / ".venv-scale/bin/python"
scale = pytest.mark.skipif(not (ROOT / ".venv-scale/installed").is_file(), reason="make .venv-scale/installed")
WORDS = ["good", "bad", "film"]
TIE = "film film film film"  # 2 + 4 x 7 + 3 = 5.5 x 6
TEXT = ("--columns", "text")


def sentences(n, start=0):
    return [" ".join(WORDS[(i * j + i) % 3] for j in range(1 + i % 5)) for i in range(start, start + n)]


def logits(text):
    ids = [2, *(5 + WORDS.index(w) for w in text.split()), 3]
    return float(sum(ids)), 5.5 * len(ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Options of the script for the small model of 64 positions."""
    at = tmp_path_factory.mktemp("model")
    checkpoint = small.vocabulary(at / "checkpoint", WORDS)
    sizes = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), 64)
    edit_json(checkpoint / "config.json", **sizes, num_hidden_layers=1, num_attention_heads=1, model_type="bert")
    return ["--model", small.sums(at / "m.onnx"), "--tokenizer_path", checkpoint]


@pytest.fixture
def score(model, monkeypatch, capsys):
    """score(input, output, *options): its exit status and what it says, in this process."""

    def run(source, out, *words):
        words = ["score.py", *model, "--input", source, "--save_path", out, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        capsys.readouterr()
        try:
            status, fault = command.main() or 0, ""
        except cli.UserError as e:
            status, fault = 1, str(e)
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err, fault=fault)

    return run


@pytest.fixture(scope="module")
def start(model):
    """start(input, output, *options, python=, env=): the running process; process(...) waits for it."""

    def run(source, out, *words, python=sys.executable, env=None):
        words = [python, "-m", "tools.scale.score", *model, "--input", source, "--save_path", out, *words]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"text": True}
        return subprocess.Popen(list(map(str, words)), cwd=ROOT, env=os.environ | (env or {}), **pipes)

    return run


def ended(running, stdin=None):
    said = running.communicate(stdin, timeout=120)
    return subprocess.CompletedProcess(running.args, running.returncode, *said)


@pytest.fixture(scope="module")
def process(start):
    return lambda *words, stdin=None, **how: ended(start(*words, **how), stdin)


def frame(n, start=0):
    texts = sentences(n, start)
    labels = [str(int(b > a)) for a, b in map(logits, texts)]
    return pd.DataFrame({"id": [f"r{i}" for i in range(start, start + n)], "text": texts, "stars": labels})


manifest = lambda out: json.loads((Path(out) / "_manifest.json").read_text())


def rows(out):
    """All rows of the parts that the manifest names, in its order; each part is held to its hash."""
    named = manifest(out)["parts"]
    assert all(cli.sha256(Path(out) / name) == entry["sha256"] for name, entry in named.items())
    assert {p.name for p in Path(out).iterdir()} == {*named, "_manifest.json"}
    return pd.concat([pd.read_parquet(Path(out) / name) for name in named], ignore_index=True)


def column(out, name):
    """A column of the parts, of which pandas would make other types."""
    return dataset.dataset(out).to_table(columns=[name])[name].to_pylist()


def correct(table, texts):
    pairs = [logits(t) for t in texts]
    assert table["prediction"].tolist() == [int(b > a) for a, b in pairs]
    assert table["label"].tolist() == [("negative", "positive")[b > a] for a, b in pairs]
    assert table["probability"].tolist() == pytest.approx([1 / (1 + math.exp(-abs(a - b))) for a, b in pairs])


# ---- What is read
tsv = lambda f, **how: f.to_csv(sep="\t", index=False, **how).encode()
csv = lambda f: f.to_csv(index=False).encode()
lines = lambda f: f.to_json(orient="records", lines=True).encode()
FORMATS = {
    "a.tsv": tsv,
    "B.CSV": csv,
    "c/d.jsonl": lines,
    "c/e.parquet": lambda f: f.to_parquet(row_group_size=7),
    "f.csv.gz": lambda f: gzip.compress(csv(f)),
    "g.tsv.bz2": lambda f: bz2.compress(tsv(f)),
    "h.ndjson.xz": lambda f: lzma.compress(lines(f)),
    "i.csv.zst": lambda f: pa.compress(csv(f), "zstd", asbytes=True),
    "j.json": lines,
    "评论 [1]+::x.tsv": lambda f: b"\xef\xbb\xbf" + tsv(f, lineterminator="\r\n"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same 30 rows in each format, and files that are none of the inputs."""
    top = tmp_path_factory.mktemp("many")
    lay(top, dict.fromkeys(("notes.txt", "x.zip", ".old.csv", "_hidden/x.csv", "c/notes.txt"), "text\nno\n"))
    (top / "c/notes.txt").unlink()
    for name, encode in FORMATS.items():
        (top / name).write_bytes(encode(frame(30)))
    return top


def test_a_folder_of_every_format(score, folder, tmp_path):
    """Small files share a part; what is left out is named; a second run makes nothing; others read it as one data set."""
    out, words = tmp_path / "out", ("--columns", "text", "stars", "--keep", "id", "--rows", 77)
    done = score(folder, out, *words)
    assert done.returncode == 0, done.fault
    table, listing = rows(out), manifest(out)
    assert list(table) == ["file", "row", "id", "prediction", "label", "probability", "truth"]
    assert set(listing["inputs"]) == set(FORMATS) and listing["complete"] and listing["rows"] == 300
    assert [entry["rows"] for entry in listing["parts"].values()] == [77, 77, 77, 69]
    for name in FORMATS:
        mine = table[table["file"] == name]
        assert mine["row"].tolist() == list(range(30)) and mine["id"].tolist() == [f"r{i}" for i in range(30)]
        correct(mine, sentences(30))
    assert "accuracy 100.00 % (300/300)" in done.stdout and "300 sentences in 4 parts, 0 of them" in done.stdout
    assert "left out: notes.txt, x.zip (2 files)" in done.stderr
    assert files.sources(f"{folder}/**")[1] == ["notes.txt", "x.zip"]
    assert score(folder, out, *words).stdout.startswith("300 sentences in 4 parts, 4 of them")
    assert "1 sentences" in score(folder / ".old.csv", tmp_path / "hidden", *TEXT).stdout  # asked for by its name
    assert len(pd.read_parquet(out)) == parquet.read_table(out).num_rows == dataset.dataset(out).count_rows() == 300


def test_one_file_is_the_same_rows(score, folder, tmp_path):
    words = ("--columns", "text", "stars", "--keep", "id", "--on_bad", "null", "--logits")
    for name in ("out", "out.csv", "out.parquet"):
        assert "accuracy 100.00 % (300/300)" in score(folder, tmp_path / name, *words).stdout
    whole = rows(tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out.parquet").equals(whole)
    assert [*zip(whole["logit0"], whole["logit1"], strict=True)] == [*map(logits, sentences(30))] * 10
    read = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, dtype={"id": str})
    rest = [name for name in read if name not in ("probability", "error")]
    assert read[rest].equals(whole[rest].astype(read.dtypes[rest].to_dict()))
    files_of = {f"out.{kind}{end}" for kind in ("csv", "parquet") for end in ("", "_manifest.json")}
    assert {p.name for p in tmp_path.iterdir()} == {"out", *files_of}


LABELS = {  # what is written: the class, or None where it is unknown
    "csv": {"0": 0, "1": 1, "1.0": 1, "True": 1, "positive": 1, "neg": 0} | dict.fromkeys(["-1", "-1.0", "", " "]),
    "json": {"0": 0, "1.0": 1, "true": 1, '"positive"': 1, '"0"': 0} | dict.fromkeys(["-1", '""', "null"]),
    "parquet": {1.0: 1, 0.0: 0, math.nan: None},
    "bool.parquet": {True: 1, False: 0, None: None},
    "bytes.parquet": {b"1": 1, b"neg": 0, b"": None},
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("out", ["out", "out.csv"])
def test_labels_are_read_alike(score, tmp_path, kind, out):
    path, (labels, truth) = tmp_path / f"a.{kind}", zip(*LABELS[kind].items(), strict=True)
    if kind.endswith("parquet"):
        parquet.write_table(pa.table({"text": ["good"] * 3, "y": labels}), path)
    else:
        lines = [f"good,{v}" if kind == "csv" else f'{{"text": "good", "y": {v}}}' for v in labels]
        path.write_text("\n".join(["text,y"] * (kind == "csv") + lines) + "\n")
    done = score(path, tmp_path / out, "--columns", "text", "y")
    assert out != "out" or column(tmp_path / "out", "truth") == [*truth]
    known = [v for v in truth if v is not None]
    assert f"({sum(known)}/{len(known)})" in done.stdout, done.fault + done.stdout


@pytest.mark.parametrize("text, accuracy", [
    ("index\tsentence\n0\tgood\n", []), ("sentence\tlabel\tidx\ngood\t-1\t0\n", []),
    ("sentence\tlabel\ngood\t1\n", ["100.00 % (1/1)"])])  # fmt: skip
def test_files_of_the_benchmark(score, tmp_path, text, accuracy):
    (tmp_path / "test.tsv").write_text(text)
    assert re.findall(r"accuracy (.*\))", score(tmp_path / "test.tsv", tmp_path / "out").stdout) == accuracy


OPTIONAL = {
    "null, then a text": [None, "s"], "a number, then a text": [1, "s"], "a whole number, then not": [1, 1.5], "late": ["", 1],
    "a date, then not": ["2024-01-01", "yesterday"], "nested": [{"a": [1]}, [2]],
}  # fmt: skip


def test_other_fields_of_json_may_change(score, tmp_path):
    """Those that nobody asked for, and kept ones, which are strings as written."""
    row = lambda k: {"text": "good"} | {name: pair[k] for name, pair in OPTIONAL.items() if pair[k] != ""}
    (tmp_path / "a.jsonl").write_text((json.dumps(row(0)) + "\n") * 4000 + (json.dumps(row(1)) + "\n") * 10)
    assert score(tmp_path / "a.jsonl", tmp_path / "out", *TEXT).returncode == 0
    quoted = [f"'{name}'" for name in OPTIONAL]
    assert score(tmp_path / "a.jsonl", tmp_path / "kept", *TEXT, "--keep", *quoted).returncode == 0
    spelled = lambda v: v if isinstance(v, str) or v is None else json.dumps(v)
    for name, (a, b) in OPTIONAL.items():
        assert column(tmp_path / "kept", name) == [spelled(a or None)] * 4000 + [spelled(b)] * 10
    (tmp_path / "b.jsonl").write_text('{"text": "good", "x": "\\ud83d"}\n')  # half a surrogate pair
    assert score(tmp_path / "b.jsonl", tmp_path / "half", *TEXT, "--keep", "x").returncode == 0
    assert column(tmp_path / "half", "x") == ["\\ud83d"]
    score(f"{tmp_path}/*.jsonl", tmp_path / "sparse", *TEXT, "--keep", "x", "late")  # which one file need not have
    assert column(tmp_path / "sparse", "late") == [None] * 4000 + ["1"] * 10 + [None]
    for words in (("--columns", "text", "lat"), ("--columns", "lat", "--on_bad", "null"), (*TEXT, "--keep", "lat")):
        fault = score(tmp_path / "a.jsonl", tmp_path / "near", *words).fault
        assert "no column lat, is late meant?; its first 4096 rows have text, " in fault


def test_kept_columns(score, tmp_path, capsys):
    """Any column, the text and the label too; one type in all parts; names that do not collide, also where no case counts."""
    row = {"text": "good", "label": "1", "row": "x", "logit0": "7", "when": "2024-01-01", "5": "d", "Truth": "e"}
    row |= {"review text": "a", "评论": "b", "?[+": "c"}
    pd.DataFrame([row, row | {"when": "007"}]).to_csv(tmp_path / "a.csv", index=False)
    quoted = [f"'{name}'" for name in row]
    done = score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text", "label", "--keep", *quoted)
    table = rows(tmp_path / "out")
    names = [f"input_{name}" if name in ("label", "row", "logit0", "Truth") else name for name in row]
    assert table[names].iloc[0].tolist() == list(row.values()), done.fault
    assert table["when"].tolist() == ["2024-01-01", "007"]
    assert score(tmp_path / "a.csv", tmp_path / "of", "--columns", "'review text'", "--on_bad", "null").returncode == 0
    with pytest.raises(SystemExit):
        score(tmp_path / "a.csv", tmp_path / "of", "--columns", "reader's text")
    assert "a quote that is not closed" in capsys.readouterr().err


TYPES = {
    "d": pa.array([1, 2], pa.date32()), "ts": pa.array([1, 2], pa.timestamp("ns", "UTC")), "l": pa.array([["a"], []]),
    "dec": pa.array([1, 2]).cast(pa.decimal128(22, 2)), "s": pa.array([{"x": 1}, None]), "b": pa.array([b"\0", None]),
    "dic": pa.array(["p", "q"]).dictionary_encode(), "big": pa.array(["p", None], pa.large_string()), "n": pa.array([1, 2]),
}  # fmt: skip


def test_kept_columns_of_parquet_keep_their_types_and_texts_are_of_any_type_of_string(score, tmp_path):
    (top := tmp_path / "in").mkdir()
    plain = pa.array(["good", "bad"])
    casts = [plain.cast(pa.large_string()), plain.cast(pa.string_view()), plain.dictionary_encode()]
    for k, texts in enumerate([pa.array([b"good", b"bad"]), *casts]):
        other = {"n": pa.array([1.5, 2.5])} if k == 3 else {}
        parquet.write_table(pa.table({"text": texts, **TYPES, **other}), top / f"{k}.parquet")
    assert score(top / "0.parquet", tmp_path / "one", *TEXT, "--keep", *TYPES).returncode == 0
    table = parquet.read_table(tmp_path / "one/00000-00000.parquet").select(list(TYPES))
    assert table.equals(pa.table(TYPES))
    score(top, tmp_path / "two", *TEXT, "--keep", "n")
    correct(table := rows(tmp_path / "two"), ["good", "bad"] * 4)
    assert table["n"].tolist() == [1, 2] * 3 + [1.5, 2.5]
    numbers = ["1", "2"] * 3 + ["1.5", "2.5"]
    parquet.write_table(pa.table({"text": ["good"], "n": pa.array([2**53 + 1])}), top / "b2.parquet")
    score(top, tmp_path / "exact", *TEXT, "--keep", "n")  # which no float is
    assert rows(tmp_path / "exact")["n"].tolist() == [*numbers, "9007199254740993"]
    (top / "b2.parquet").unlink()
    (top / "c.csv").write_text("text,n\ngood,3\n")
    score(top, tmp_path / "three", *TEXT, "--keep", "n")
    assert rows(tmp_path / "three")["n"].tolist() == [*numbers, "3"]
    late = pa.table({"text": ["good"], "t": pa.array([1 << 62], pa.timestamp("us"))})  # Python ends with the year 9999
    parquet.write_table(late, tmp_path / "d.parquet")
    fault = score(tmp_path / "d.parquet", tmp_path / "four", *TEXT, "--keep", "t").fault
    assert "d.parquet: date value out of range; mend it" in fault


# ---- What is amiss
@pytest.mark.parametrize(("name", "data", "says"), [  # of the whole file: it stops whatever ON_BAD says
    ("a.csv", b"txt\ngood\n", "no column text, is txt meant?; it has txt"),
    ("a.csv", b"text,text\ngood,bad\n", "2 columns are called text"),
    ("a.parquet", b"PAR1 not", "a.parquet: "),
    ("a.csv.gz", b"not gzip", "a.csv.gz: Not a gzipped file"),
    ("a.csv.gz", gzip.compress(b"text\n" + b"good\n" * 9999, mtime=0)[:-40], "a.csv.gz: Compressed file ended"),
    ("a.csv", gzip.compress(b"text\ngood\n", mtime=0), "but gzip; name it .gz"),
    ("a.csv", pa.compress(b"text\ngood\n", "zstd", asbytes=True), "but Zstandard; name it .zst"),
    ("a.csv", "text\ngood\n".encode("utf-16"), "not UTF-8 text but UTF-16; convert it"),
    ("a.csv", b'id,text\n1,good\n2,"open\n3,bad\n', "line 3: the row that begins here has a quote that is not closed"),
    ("a.csv", b'id,text\n1,"good\n2,bad\n3,"film"\n4,great\n', "line 2: the row that begins here has"),
    ("a.txt", b"good", "no file there that ends in .tsv .csv"),
])  # fmt: skip
def test_what_is_amiss_with_a_file_is_one_line(score, tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    done = score(tmp_path / name, tmp_path / "out", *TEXT, "--on_bad", "null")
    assert done.returncode == 1 and says in done.fault and done.fault.count("\n") == 0, done.fault
    assert str(tmp_path / name) in done.fault and not list(tmp_path.glob("out/*.parquet"))


@pytest.mark.parametrize(("name", "data", "bad", "says", "line"), [  # of one row: ON_BAD=null hands it on
    ("a.csv", b"text,id\n%s,1\nbad,2\n", b" ", "no text", 1),
    ("a.csv", b"text,id\n%s\nbad,2\n", b"good,1,2", "3 columns, the header has 2", 1),
    ("a.tsv", b"text\tid\n%s\nbad\t2\n", b"good", "1 columns, the header has 2", 1),
    ("a.csv", b"text,id\n%s,1\nbad,2\n", b"caf\xe9", "not UTF-8", 1),
    ("a.jsonl", b'{"text": %s}\n{"text": "bad"}\n', b"null", "no text", 1),
    ("a.jsonl", b'{"text": %s}\n{"text": "bad"}\n', b'"\\ud83d"', "not UTF-8", 1),
    ("a.jsonl", b'{"text": %s}\n{"text": "bad"}\n', b"[1]", "a list, not a text", 1),
    ("a.jsonl", b'{"text": "bad"}\n%s\n', b'{"other": 5}', "no text: no field text on this line", 2),
    ("a.jsonl", b'{"text": "bad"}\n%s\n', b"[1, 2]", "no JSON object on this line", 2),
    ("a.jsonl", b'{"text": "bad"}\n%s\n', b'{"text": "good"}{', "no JSON object on this line", 2),
    ("a.jsonl", b'{"text": "bad"}\n%s\n', b"[" * 99999, "no JSON object on this line", 2),
])  # fmt: skip
def test_a_row_that_is_amiss_stops_or_is_null(score, tmp_path, name, data, bad, says, line):
    (tmp_path / name).write_bytes(data.replace(b"%s", bad))
    row, at = line - 1, line + (not name.endswith("l"))
    fault = score(tmp_path / name, tmp_path / "out", *TEXT).fault
    assert f"{name}: row {row} (from 0), line {at}: {says}" in fault and "or give ON_BAD=null" in fault
    keep = ["--keep", "id"] if b"id" in data else []
    done = score(tmp_path / name, tmp_path / "null", *TEXT, "--on_bad", "null", *keep)
    table = rows(tmp_path / "null")
    assert len(table) == 2 and says in table["error"][row] and table.loc[row, ["prediction", "label"]].isna().all()
    correct(table.drop(row), ["bad"])
    assert "1 of 2 (50.00 %) amiss" in done.stdout and f"{name}: row {row} (from 0): {says}" in done.stdout


def test_files_without_a_row_are_named(score, tmp_path):
    """Of every kind, packed ones too, without a byte and with columns alone; so is a pipe, which is not read."""
    (tmp_path / "in").mkdir()
    for name, encode in FORMATS.items():
        for k, data in enumerate((b"", encode(frame(0)))):
            (tmp_path / f"in/{k}{Path(name).name}").write_bytes(data)
    os.mkfifo(tmp_path / "in/p.csv.gz")
    done = score(tmp_path / "in", tmp_path / "out", *TEXT)
    assert done.fault == f"{tmp_path}/in: no row there; give at least one sentence"
    assert re.search("no row in: 0.* [(]20 files[)]", done.stderr)
    assert "left out: p.csv.gz (not a regular file) (1 files)" in done.stderr
    frame(5).to_csv(tmp_path / "in/a.csv", index=False)
    assert "5 sentences in 1 parts" in score(tmp_path / "in", tmp_path / "out", *TEXT).stdout


def test_what_a_message_advises_works(score, tmp_path):
    """ON_BAD=null, or to take a file out, for the same OUT; a row whose label is amiss has its answer."""
    lay(tmp_path / "in", {"a.csv": "text,y\ngood,1\n", "b.csv": "text,y\ngood,5\n"})
    words = [(tmp_path / "in", tmp_path / out, "--columns", "text", "y") for out in ("null", "less")]
    for source in words:
        assert "line 2: label '5' is not 0 or 1" in score(*source, "--rows", 1).fault
    text = score(*words[0], "--on_bad", "null").stdout
    assert "2 sentences in 1 parts" in text and "(1/1)" in text
    assert "1 of 2 (50.00 %) amiss; the column error says why" in text
    correct(rows(tmp_path / "null"), ["good"] * 2)
    (tmp_path / "in/b.csv").unlink()
    assert score(*words[1]).returncode == 0 and len(rows(tmp_path / "less")) == 1


def test_a_name_that_is_not_utf8_and_odd_addresses(score, tmp_path, monkeypatch):
    (tmp_path / os.fsdecode(b"\xff\xfe.tsv")).write_bytes(b"sentence\nfine\n")
    assert "is not UTF-8; rename that file" in score(tmp_path, tmp_path / "../o4").fault
    for address in ("reference://x", "data:text/csv,sentence@x", "s3://bucket/x", "nowhere.csv", f"{tmp_path}/*.csv"):
        done = score(address, tmp_path / "../o4")
        assert done.returncode == 1 and address.split("/")[-1] in done.fault and done.fault.count("\n") == 0, done.fault
    assert not (tmp_path / "../o4").exists()
    path = tmp_path / "a.csv"
    lay(tmp_path, dict.fromkeys(("a.csv", "links/own.csv"), "sentence\nfine\n"))
    for name, path_of in (("out.csv", "../a.csv"), ("again.csv", "own.csv"), ("lost.csv", "nowhere")):
        (tmp_path / "links" / name).symlink_to(path_of)
    good, others = files.sources(str(tmp_path / "links"))
    assert [s.name for s in good] == ["out.csv", "own.csv"]
    assert others == [f"{name}.csv (not a regular file)" for name in ("again", "lost")]
    assert [files.current(s) for s in good] == good
    # over HTTP a folder lists no sizes
    monkeypatch.setattr(files, "list_files", lambda *_: (str(tmp_path), {str(path): {"size": None, "type": "file"}}))
    assert [files.current(source) for source in files.sources(str(path))[0]] == files.sources(str(path))[0]


def test_long_rows_and_memory(tmp_path):
    """No row is too long for its block; a file is read as it is asked for, not ahead."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "good " * 60000, "html": "x" * 300000}) + "\n")
    selection = files.Selection(tasks.TASKS["sst2"], ("negative", "positive"), (("text",),))
    (table,) = files.tables(files.Source(str(tmp_path / "a.jsonl"), "a.jsonl"), selection)
    assert len(table["text0"][0].as_py()) == 300000
    for name, row in (("b.tsv", "good film\n"), ("b.jsonl", '{"text": "good"}\n')):
        (tmp_path / name).write_text("text\n" * (name == "b.tsv") + row * (20_000_000 // len(row)))
        tally = SimpleNamespace(rows=0, bytes=0)
        reading = files.tables(files.Source(str(tmp_path / name), name), selection, tally)
        next(reading)
        assert tally.rows == files.BATCH and tally.bytes < 1e6


# ---- What is answered
def test_ties_cut_texts_and_duplicates(score, tmp_path):
    lines = [("text", "y"), (TIE, 0), ("good", 1), (TIE, 0), ("good " * 300, 1), ("good", 1), ("good " * 300, 1)]
    (tmp_path / "a.csv").write_text("".join(f"{text},{y}\n" for text, y in lines))
    done = score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text", "y", "--logits")
    table = rows(tmp_path / "out")
    assert column(tmp_path / "out", "prediction") == [None, 1, None, 1, 1, 1]
    assert table["label"].isna().tolist() == [True, False, True, False, False, False]
    assert table["logit1"].tolist() == [33, 16.5, 33, 5.5 * 64, 16.5, 5.5 * 64]  # the model has 64 positions
    assert "accuracy 66.67 % (4/6)" in done.stdout  # equal logits are no class, and wrong
    assert "2 of 6 (33.33 %) longer than the model takes, and cut" in done.stdout
    entry = manifest(tmp_path / "out")["parts"]["00000-00000.parquet"]
    assert (entry["cut"], entry["duplicates"], entry["amiss"]) == (2, 3, 0)
    score(tmp_path / "a.csv", tmp_path / "short", *TEXT, "--logits", "--max_len", 16)
    assert rows(tmp_path / "short")["logit1"][3] == 5.5 * 16


def test_what_is_too_close_is_run_again(score, tmp_path):
    many = [" ".join(WORDS[(i * i) % 3] for i in range(n)) for n in (3, 1, 9, 2, 14, 30, 5, 6, 7)]
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(many) + "\n")
    again = ("--rerun", small.sums(tmp_path / "other.onnx", weight=4.0), "--margin", 3)
    said = score(tmp_path / "a.csv", tmp_path / "out", *TEXT, "--logits", *again).stdout
    first, table = np.array([*map(logits, many)]), rows(tmp_path / "out")
    close = np.abs(first[:, 0] - first[:, 1]) < 3
    second = np.where(close[:, None], first * [1, 4 / 5.5], first)
    assert 0 < close.sum() < 9 and np.allclose(table[["logit0", "logit1"]], second, rtol=1e-7)
    changed = (first.argmax(1) != second.argmax(1)).sum()
    assert changed and f"{close.sum()} of 9 ({100 * close.mean():.2f} %) run again in fp32" in said
    assert f"{changed} of 9 ({100 * changed / 9:.2f} %) of another class in fp32" in said


def test_logits_that_are_no_numbers(score, tmp_path, monkeypatch):
    """Nothing is half-written; handed on with the reason where that is asked for."""
    whole = scorer.logits
    with_nan = lambda e, columns, *a: whole(e, columns, *a) * [[math.nan if len(row) > 3 else 1] for row in columns[0]]
    monkeypatch.setattr(scorer, "logits", with_nan)
    (tmp_path / "a.csv").write_text("text\ngood\nbad film\n")
    fault = score(tmp_path / "a.csv", tmp_path / "x.parquet", *TEXT).fault
    assert "row 1: NaN or infinite logits; try PRECISION=fp32" in fault
    assert not (tmp_path / "x.parquet").exists()
    assert score(tmp_path / "a.csv", tmp_path / "out", *TEXT, "--on_bad", "null").returncode == 0
    assert column(tmp_path / "out", "error") == [None, "NaN or infinite logits"]


@pytest.fixture
def dull(model, tmp_path):
    checkpoint = shutil.copytree(model[3], tmp_path / "checkpoint")
    edit_json(checkpoint / "config.json", id2label={"0": "dull", "1": "fun"})
    return ("--tokenizer_path", checkpoint)


def test_classes_that_the_checkpoint_names(score, dull, tmp_path):
    """TASK=sentence has none of its own; a score has a probability where it is a logit."""
    (tmp_path / "a.csv").write_text("sentence\n" + "\n".join(sentences(30)) + "\n")
    score(tmp_path / "a.csv", tmp_path / "out", "--task", "sentence", *dull)
    table = rows(tmp_path / "out")
    assert table["label"].tolist() == ["fun" if i else "dull" for i in table["prediction"]]
    assert manifest(tmp_path / "out")["config"]["labels"] == ["dull", "fun"]
    for kind, columns in (("regression", ["prediction"]), (None, ["prediction", "probability"])):
        edit_json(dull[1] / "config.json", problem_type=kind)
        logit = SimpleNamespace(question=tasks.TASKS["score"], task="score", tokenizer=dull[1])
        answer = scorer.Scorer.columns(logit, np.float32([[0], [2]]), np.array([False, True]))
        assert list(answer) == columns
    assert answer["probability"].to_pylist() == [0.5, None]


def test_several_labels_at_once(score, dull, tmp_path):
    """The labels whose sigmoid reaches the threshold, as JSON lists in .csv and .parquet; micro and macro F1 of them.

    What is right is a text of JSON, a list of names as JSON lines and Parquet have it, or a column of 0 and 1 for each.
    """
    truth, names = [[0], [0, 1], []] * 10, ("dull", "fun")
    named = lambda classes: [[names[k] for k in row] for row in classes]
    table = pd.DataFrame({"sentence": sentences(30), "labels": named(truth)})
    table.to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "c.parquet")
    table.assign(labels=[*map(json.dumps, truth)]).to_csv(tmp_path / "a.csv", index=False)
    marks = {name: [float(k in row) for row in truth] for k, name in enumerate(names)}
    table[["sentence"]].assign(**marks).to_csv(tmp_path / "d.csv", index=False)
    runs = ("a.csv", "out", 0.5), ("b.jsonl", "out.parquet", 0.5), ("c.parquet", "high", 1 - 1e-9)
    for name, out, threshold in (*runs, ("d.csv", "marks", 0.5)):
        columns = ["--columns", "sentence", "labels"] if name != "d.csv" else []
        words = ("--task", "labels", *dull, *columns, "--logits", "--threshold", threshold)
        done = score(tmp_path / name, tmp_path / out, *words)
        assert not done.fault, done.fault
        table = pd.read_parquet(tmp_path / out) if out.endswith(".parquet") else rows(tmp_path / out)
        values = table[["logit0", "logit1"]].to_numpy().astype(float)
        classes = [[k for k in range(2) if row[k] >= np.log(threshold / (1 - threshold))] for row in values]
        assert table["prediction"].map(json.loads).tolist() == classes
        assert table["label"].map(json.loads).tolist() == named(classes)
        assert table["truth"].map(json.loads).tolist() == truth
        np.testing.assert_allclose([*table["probability"].map(json.loads)], 1 / (1 + np.exp(-values)), atol=1e-6)
        micro = tasks.measure("f1_micro", truth, classes)
        ends = "{:.4f} to {:.4f}".format(*tasks.bootstrap("f1_micro", truth, classes))
        assert f"f1_micro {micro:.4f} (30 rows; 95 % interval {ends})" in done.stdout + done.stderr


def test_from_python(score, model, tmp_path, monkeypatch):
    """The same answers as the parts; what is there twice is computed once; what is no text is refused by its place."""
    frame(30).to_csv(tmp_path / "a.csv", index=False)
    score(tmp_path / "a.csv", tmp_path / "out", *TEXT)
    classifier, ran, whole = scorer.Scorer(model=model[1], tokenizer=model[3]), [], scorer.logits
    monkeypatch.setattr(scorer, "logits", lambda *how: ran.append(len(how[1][0])) or whole(*how))
    parts_of = rows(tmp_path / "out").drop(columns=["file", "row"])
    reference = parts_of.astype({"prediction": "int64", "probability": "float64"})
    assert pd.DataFrame(classifier.texts(sentences(30) * 2)).equals(pd.concat([reference] * 2, ignore_index=True))
    assert classifier.texts([]) == [] and ran == [len({*sentences(30)})]
    refused("one text; give a list", classifier.texts, "good")
    for wrong, says in ((None, "no text"), ("", "no text"), (math.nan, "no text"), (["a"], "a list, not a text")):
        refused(rf"row 1 \(from 0\): {says}", classifier.texts, ["good", wrong])


# ---- Going on
def test_a_part_that_is_damaged_is_made_again(score, tmp_path):
    """Believed by its hash; what the manifest says of it comes from the part; CHECK only looks."""
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    score(*(words := (tmp_path / "a.csv", tmp_path / "out", "--columns", "text", "stars")))
    before, part = rows(tmp_path / "out"), tmp_path / "out/00000-00000.parquet"
    whole = manifest(tmp_path / "out")
    (tmp_path / "out/_manifest.json").write_text(json.dumps(whole).replace('"cut": 0', '"cut": 7'))
    assert "cut" not in score(*words).stdout and manifest(tmp_path / "out") == whole
    part.write_bytes(part.read_bytes()[:50] + b"?" + part.read_bytes()[51:])
    done = score(*words, "--check")
    assert done.returncode == 1 and f"{part}: not the bytes that the manifest describes" in done.stdout
    done = score(*words)
    assert f"{part}: not the bytes that the manifest describes; made again" in done.stdout, done.stdout
    assert rows(tmp_path / "out").equals(before) and manifest(tmp_path / "out") == whole
    assert score(*words, "--check").returncode == 0


def test_what_score_did_not_make_stays(score, tmp_path):
    """A file beside OUT, a part of another's, a hidden one, a CSV that was edited."""
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    (out := tmp_path / "out").mkdir()
    for name in ("00000-00000.parquet", ".keep.parquet.mine", "notes.txt"):
        (out / name).write_text("dear")
        assert f"{name} is not what score wrote" in score(tmp_path / "a.csv", out, *TEXT).fault
        assert [p.read_text() for p in out.iterdir()] == ["dear"]
        (out / name).unlink()
    (out / "._manifest.json.h4lf_abc").write_text("{")  # of a first run that was killed at once
    assert score(tmp_path / "a.csv", out, *TEXT).returncode == 0
    for name in (".keep.parquet.mine", ".00000-00000.parquet.mine", "00001-00000.parquet"):
        (out / name).write_text("dear")
        score(tmp_path / "a.csv", out, *TEXT)
        assert (out / name).read_text() == "dear"
    one, *beside = [tmp_path / f"x.csv{end}" for end in ("", ".log", ".prov.json")]
    for path in (one, *beside):
        path.write_text("dear")
    assert "x.csv is not what score wrote" in score(tmp_path / "a.csv", one, *TEXT).fault and one.read_text() == "dear"
    one.unlink()
    score(tmp_path / "a.csv", one, *TEXT)
    one.write_text(edited := one.read_text() + "mine\n")
    assert "x.csv is not what score wrote; move it away and run again" in score(tmp_path / "a.csv", one, *TEXT).fault
    assert one.read_text() == edited and [path.read_text() for path in beside] == ["dear"] * 2
    one.unlink()
    assert f"{one}: gone; made again" in score(tmp_path / "a.csv", one, *TEXT).stdout and one.exists()
    whole = tmp_path / "x.parquet"  # which nobody edits
    score(tmp_path / "a.csv", whole, *TEXT)
    whole.write_bytes((before := whole.read_bytes())[:-9])
    assert "made again" in score(tmp_path / "a.csv", whole, *TEXT).stdout and whole.read_bytes() == before
    for end in ("json", "JSONL", "tsv", "csv.gz", "txt", "parquet.zst"):
        assert "end it in .csv or .parquet, or name" in score(tmp_path / "a.csv", tmp_path / f"y.{end}", *TEXT).fault


def test_inputs_are_never_written_over(score, tmp_path):
    """OUT in the folder of the inputs, around it, and through a link; INPUT itself; no manifest of ours."""
    (tmp_path / "in").mkdir()
    frame(5).to_parquet(tmp_path / "in/00000-00000.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = (tmp_path / "in/00000-00000.parquet").read_bytes()
    assert "in is not what score wrote" in score(tmp_path / "in", tmp_path, *TEXT).fault
    for case in ("in in", "in link", "in in/out", "in in/x.csv", "in/** link/out", "i?/* in/x.csv"):
        source, out = case.split()
        assert "name a folder apart from it" in score(tmp_path / source, tmp_path / out, *TEXT).fault, out
    one = tmp_path / "in/00000-00000.parquet"
    assert "name a folder apart from it" in score(one, tmp_path / "link/00000-00000.parquet", *TEXT).fault
    (tmp_path / "full").mkdir()
    pin = {"size": 1, "mark": "1", "unit": 0, "sha256": None, "parts": None}
    part, name = {"rows": 1, "amiss": 0, "sha256": ""}, "00000-00000.parquet"
    for wrong in ({"inputs": {"a": 5}}, {"inputs": {"a": pin}, "parts": {"../a.parquet": part}},
                  {"parts": 7}, {"inputs": ...}, {"parts": {name: part}}, {"parts": {name: 1}}):  # fmt: skip
        edit_json(tmp_path / "full/_manifest.json", **{"config": {}, "inputs": {}, "parts": {}} | wrong)
        assert "not a manifest of ours" in score(tmp_path / "in", tmp_path / "full", *TEXT).fault
    assert [p.read_bytes() for p in (tmp_path / "in").iterdir()] == [before]


def test_inputs_that_are_touched_added_changed_or_gone(score, tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(2):
        frame(9, 9 * k).to_csv(tmp_path / f"in/{k}.csv", index=False)
    score(*(words := (tmp_path / "in", tmp_path / "out", *TEXT)))
    os.utime(tmp_path / "in/0.csv", (1, 1))
    assert "1 of them there before" in score(*words).stdout
    frame(9, 18).to_csv(tmp_path / "in/2.csv", index=False)
    done = score(*words)
    assert "27 sentences in 2 parts, 1 of them there before" in done.stdout and "changed" not in done.stdout
    correct(rows(tmp_path / "out"), sentences(27))
    frame(12, 18).to_csv(tmp_path / "in/2.csv", index=False)
    done = score(*words)
    assert "2.csv: changed; its answers are made again" in done.stdout
    assert "30 sentences in 2 parts, 1 of them there before" in done.stdout
    correct(rows(tmp_path / "out"), sentences(30))
    assert "holds the answers of another batchsize" in score(*words, "--batch_size", 2).fault
    (tmp_path / "in/1.csv").unlink()
    assert "has the answers of 1.csv, which is gone from INPUT" in score(*words).fault


def test_a_file_that_changes_while_it_is_read(score, tmp_path, monkeypatch):
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    whole = scorer.Scorer.answers

    def answers(self, table):
        frame(5).to_csv(tmp_path / "a.csv", index=False)
        return whole(self, table)

    monkeypatch.setattr(scorer.Scorer, "answers", answers)
    assert "a.csv: changed while it was read; run it again" in score(tmp_path / "a.csv", tmp_path / "out", *TEXT).fault
    assert not manifest(tmp_path / "out")["complete"]
    frame(9).to_csv(tmp_path / "b.csv", index=False)
    monkeypatch.setattr(scorer.Scorer, "answers", lambda *how: (tmp_path / "b.csv").unlink(True) or whole(*how))
    fault = score(f"{tmp_path}/*.csv", tmp_path / "gone", *TEXT, "--rows", 2).fault
    assert fault == f"{tmp_path}/b.csv: No such file or directory; mend it, or take it out"


def test_a_disk_without_room(start, tmp_path):
    """One line; nothing half written, and the manifest has no part that is not there."""
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    running = start(tmp_path / "a.csv", tmp_path / "out", *TEXT, "--rows", 5)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (1500, 1500))  # more than the manifest, less than a part
    assert "00000-00000.parquet: File too large; make room on that disk" in running.communicate(timeout=120)[1]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["_manifest.json"]
    assert not manifest(tmp_path / "out")["parts"]


def test_a_second_writer_waits_for_the_first(score, tmp_path):
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    score(*(words := (tmp_path / "a.csv", tmp_path / "out", *TEXT)))
    listing = manifest(tmp_path / "out")
    with ThreadPoolExecutor(1) as pool:
        with parts.Output(str(tmp_path / "out")).alone():
            (tmp_path / "out/_manifest.json").unlink()
            second = pool.submit(score, *words)
            time.sleep(0.5)
            assert not second.done()
            (tmp_path / "out/_manifest.json").write_text(json.dumps(listing))
        assert "1 of them there before" in second.result().stdout


def test_parts_and_pieces(monkeypatch):
    """A part is cut into pieces of at most GROUP rows; rows of small files share one; many inputs cost as much each as few."""
    monkeypatch.setattr(parts, "GROUP", 10)
    tables = [pa.table({"x": list(range(k, k + 7))}) for k in range(0, 70, 7)]
    pieces = [(number, table["x"].to_pylist()) for number, table in parts.pieces(tables, 25)]
    sizes = [(number, len(x)) for number, x in pieces]
    assert sizes == [*((k, n) for k in (0, 1) for n in (10, 10, 5)), (2, 10), (2, 10)]
    assert [i for _, x in pieces for i in x] == list(range(70))
    for count, size, portion, shares in ((16, 1 << 20, None, [8, 8]), (42, 10**8, 100 << 24, [14, 14, 14])):
        out = parts.Output("nowhere")  # of 10^9 rows in small files: nothing is left over
        monkeypatch.setattr(out, "save", lambda: None)
        out.portion = portion or out.portion
        out.pin([files.Source(f"{i}.csv", f"{i}.csv", size) for i in range(count)])
        assert [len(sources) for _, sources, _ in out.missing()] == shares


@pytest.mark.parametrize(("name", "width", "keep"), [
    ("B.CSV", 20, ""), ("f.csv.gz", 20, "id"), ("c/e.parquet", 300, "id"), ("c/d.jsonl", 1000, "text"),
    ("a.tsv", 9, "id")])  # fmt: skip
def test_parts_of_a_thousand_million_rows_are_of_100_to_500_MB(score, tmp_path, monkeypatch, name, width, keep):
    """However long the rows are, packed or not, and whatever is kept of them: from the bytes a row that were written."""
    n, whole, path = 2000, parts.sizes, tmp_path / Path(name).name
    rng = np.random.default_rng(0)
    texts = [f"good {rng.bytes(width // 2).hex()}" for _ in range(n)]
    path.write_bytes(FORMATS[name](frame(n).assign(text=texts)))
    monkeypatch.setattr(parts, "sizes", lambda sources, *how: whole(sources * (10**9 // n), *how))
    assert score(path, tmp_path / "out", *TEXT, *["--keep", keep] * bool(keep)).returncode == 0
    listing = manifest(tmp_path / "out")
    (entry,) = listing["parts"].values()
    assert 1e8 < entry["bytes"] / n * listing["config"]["rows"] < 5e8, listing["config"]["rows"]


# ---- On the way
def test_a_terminal_of_no_size_shows_how_far_it_is(monkeypatch):
    """tqdm by itself prints nothing on one; a log gets a line a minute."""
    ends = pty.openpty()
    with os.fdopen(ends[1], "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        for size, says in ((1000, "100 of about 1000 sentences, "), (0, "100 sentences, ")):
            progress = command.Progress(size)
            progress.rows, progress.bytes, progress.shown = 100, 100, progress.began - 10
            progress.began -= 10
            progress(100)
            assert says in (text := os.read(ends[0], 1000).decode()) and ("left" in text) == bool(size)
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    progress = command.Progress(0)
    progress(5)
    progress.shown -= 61
    progress(5)
    assert re.fullmatch(r"10 sentences, .*\n", log.getvalue())


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_through_a_pipe(process, kind):
    """The same kind out as in; nothing else on standard output; a reader that leaves ends it quietly."""
    lines = [json.dumps({"text": t}) if kind == "jsonl" else t for t in sentences(30)]
    stdin = "\ufeff\n" + "".join(f"{line}\n" for line in ["text"] * (kind == "tsv") + lines)
    done = process("-", "-", *TEXT, "--rows", 7, stdin=stdin)
    assert done.returncode == 0, done.stderr
    text = io.StringIO(done.stdout)
    read = pd.read_json(text, lines=True) if kind == "jsonl" else pd.read_csv(text, sep="\t")
    correct(read, sentences(30))
    assert read["row"].tolist() == list(range(30)) and "30 sentences\n" in done.stderr
    stdin += "\n" + (" \n" if kind == "tsv" else '{"text": ""}\n')
    shares = process("-", "-", *TEXT, "--max_len", 3, "--on_bad", "null", stdin=stdin).stderr
    assert "31 sentences, 24 of them longer than the model takes, and cut, 1 of them amiss; the column" in shares
    done = process("-", "-", *TEXT, stdin=stdin)
    assert done.returncode == 1 and "no text" in done.stderr and "Traceback" not in done.stderr


def kill(process, out, count):
    """SIGKILL when the manifest names `count` parts."""
    wait_for(out, count, process)
    process.kill()
    process.communicate()


def wait_for(out, count, process):
    """Until the manifest names `count` parts while the process runs."""
    end = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            if len(manifest(out)["parts"]) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1] if process.poll() is not None else "no part in 90 s")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    top = tmp_path_factory.mktemp("large")
    for k in range(4):
        frame(2500, 2500 * k).to_csv(top / f"{k}.csv", index=False)
    return top


LARGE = ("--columns", "text", "--rows", 100)


@pytest.fixture(scope="module")
def whole(large, process, tmp_path_factory):
    """What an undisturbed run on one machine makes of them: {part: sha256}."""
    process(large, out := tmp_path_factory.mktemp("whole") / "out", *LARGE).check_returncode()
    correct(rows(out), sentences(10000))
    return {name: entry["sha256"] for name, entry in manifest(out)["parts"].items()}


def same(out, whole):
    rows(out)
    assert {name: entry["sha256"] for name, entry in manifest(out)["parts"].items()} == whole
    assert manifest(out)["complete"]


def test_a_killed_run_goes_on(start, process, large, whole, tmp_path):
    out = tmp_path / "out"
    kill(start(large, out, *LARGE), out, 2)
    for name in ("_manifest.json", "00000-00009.parquet"):  # as a kill in the middle of a write leaves them
        (out / f".{name}.h4lf_abc").write_text("{")
    names = list(manifest(out)["parts"])
    dates = {name: (out / name).stat().st_mtime_ns for name in names}
    assert 2 <= len(names) < len(whole)
    done = process(large, out, *LARGE)
    assert done.returncode == 0 and f"{len(names)} of them there before" in done.stdout, done.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in names} == dates
    same(out, whole)
    (out / names[0]).unlink()
    assert f"{len(whole) - 1} of them there before" in process(large, out, *LARGE).stdout
    same(out, whole)


# ---- Through make
def test_make_scores_a_glob_and_goes_on(built, folder, tmp_path):
    """Names of any letters; a pipe; a check; nothing beside OUT."""
    top = built.path
    (top / "my file's.csv").write_text("review text,评论\ngood,1\nbad,2\n")
    words = ("MODEL=tiny", "PRECISION=fp32", "score", "COLUMNS='review text'", "KEEP=评论")
    done = built.make(*words, "INPUT=my file's.csv", f"OUT={tmp_path}/o u't")
    assert "2 sentences in 1 parts, 0 of them there before" in done.stdout
    assert list(rows(tmp_path / "o u't")) == ["file", "row", "评论", "prediction", "label", "probability"]
    assert "1 of them there before" in built.make(*words, "INPUT=my file's.csv", f"OUT={tmp_path}/o u't").stdout
    assert "1 of 1 parts" in built.make("score", "CHECK=1", f"OUT={tmp_path}/o u't").stdout
    assert "30 sentences" in built.make(*words[:3], f"INPUT={folder}/*.gz", "COLUMNS=text").stdout
    assert list((top / "build/score").glob("*_w.gz.parts/00000-00000.parquet"))
    piped = built.make("-s", *words[:3], f"INPUT={folder}/a.tsv", "OUT=-", "COLUMNS=text").stdout
    assert piped.startswith("file\trow\tprediction\t")
    evil = "$(shell touch pwned)"
    done = built.make(*words[:3], f"INPUT={evil}", f"OUT=x{evil}", f"KEEP={evil}", check=False)
    assert done.returncode == 2 and "no such file or folder" in done.stderr and not (top / "pwned").exists()
    wrong = {"ON_BAD=skip": "is not one of: null stop", "CHECK=2": "is not 1 or empty"}
    wrong |= {"PART_ROWS=1e5": "is not a whole number", "KEEP=a\nb": "may hold any text of one line"}
    for word, says in wrong.items():
        assert says in built.make(*words, "INPUT=a.tsv", word, check=False).stderr


def test_two_inputs_of_one_base_name_have_places_of_their_own_and_the_fastest_engine_answers(built):
    for name in ("one/y.tsv", "two/y.tsv", "build/score/y.csv"):
        lay(built.path, {name: "sentence\ngood\n"})
        built.make("MODEL=tiny", "PRECISION=fp32", "score", f"INPUT={name}")
        assert (built.path / name).read_text() == "sentence\ngood\n"
    names = {p.name for p in (built.path / "build/score").iterdir()}
    assert {"one_-y.tsv.parts", "two_-y.tsv.parts", "build_-score_-y.csv.parts", "y.csv"} <= names
    fastest = chips.for_score("sst2", cpu.cpu_flags(limited=False))
    for words, engine in ((), fastest), (("PRECISION=fp32",), ("onnxruntime", "fp32")):
        text = built.make("-n", "MODEL=tiny", "score", "INPUT=a.tsv", "OUT=x/", *words).stdout
        assert re.search(r"--model build/\S+/cpu-(\w+)-([\w-]+)/model", text).groups() == engine


# ---- What needs .venv-scale
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def s3():
    """moto as S3: the environment that leads there, with a bucket."""
    port = free_port()
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test") | {"AWS_DEFAULT_REGION": "us-east-1"}
    env = keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with subprocess.Popen([PYTHON, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        make = "s3fs.S3FileSystem().mkdir('bucket'); break"
        code = f"import s3fs, time\nfor _ in range(100):\n try: {make}\n except Exception: time.sleep(.1)"
        subprocess.run([PYTHON, "-c", code], env=os.environ | env, check=True, timeout=60)
        yield env
        server.kill()


def copy(source, target, env):
    code = "import sys, s3fs; getattr(s3fs.S3FileSystem(), sys.argv[1])(*sys.argv[2:4], recursive=True)"
    how = "put" if str(target).startswith("s3://") else "get"
    subprocess.run([PYTHON, "-c", code, how, f"{source}/", f"{target}/"], env=os.environ | env, check=True)


@scale
def test_from_s3_to_s3(start, process, s3, large, whole, tmp_path):
    copy(large, "s3://bucket/in", s3)
    how = {"python": PYTHON, "env": s3}
    done = process("s3://bucket/in/*.csv", "s3://bucket/out", *LARGE, **how)
    assert done.returncode == 0, done.stderr
    copy("s3://bucket/out", tmp_path / "out", s3)
    same(tmp_path / "out", whole)
    assert "100 of them there before" in process("s3://bucket/in/*.csv", "s3://bucket/out", *LARGE, **how).stdout
    nowhere = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    nowhere |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    run = lambda source, out, **env: start(f"s3://{source}", f"s3://{out}", *LARGE, python=PYTHON, env=s3 | env)
    running = {
        "name a folder apart": run("bucket/in", "bucket/in/out"),
        "s3://nobucket/in: ": run("nobucket/in", "bucket/o"),
        "s3://nobucket/o": run("bucket/in", "nobucket/o"),
        "s3://bucket/in: ": run("bucket/in", "bucket/o", **nowhere),
    }
    for says, process in running.items():
        fails(ended(process), says)


# Of this host alone, whatever the user's own clusters ask for.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def ray():
    """Two raylets on this host, a processor each: address; start(name, *words); kill(name), with what it started."""
    nodes, port = {}, free_port()

    def start(name, *words):
        command = [PYTHON.with_name("ray"), "start", "--block", "--num-cpus=1", "--object-store-memory=100000000"]
        command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", *words]
        with (log := Path(at, f"{name}.log")).open("w") as stream:
            nodes[name] = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | RAY)
        end = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < end and nodes[name].poll() is None, log.read_text()
            time.sleep(0.2)

    def kill(name):
        slurm.kill(nodes[name].pid)
        nodes.pop(name).wait()

    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as at:  # short: it holds sockets
        try:
            start("head", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={at}")
            start("worker", address := f"--address=127.0.0.1:{port}")
            yield SimpleNamespace(address=address.partition("=")[2], start=start, kill=kill)
        finally:
            for name in list(nodes):
                kill(name)


@scale
def test_a_raylet_and_then_the_driver_are_killed(start, process, ray, large, whole, tmp_path):
    """Every row once in the manifest, and the bytes of one machine; a node that joins later works too."""
    out, words = tmp_path / "out", (*LARGE, "--cluster", ray.address)
    running = start(large, out, *words, python=PYTHON, env=RAY)
    wait_for(out, 4, running)
    ray.kill("worker")
    kill(running, out, 12)
    count = len(manifest(out)["parts"])
    assert 12 <= count < len(whole)
    ray.start("worker", f"--address={ray.address}", "--num-cpus=3")
    done = process(large, out, *words, python=PYTHON, env=RAY)
    assert done.returncode == 0 and f"{count} of them there before" in done.stdout, done.stdout + done.stderr
    assert "rror" not in done.stderr, done.stderr
    same(out, whole)


def test_a_part_that_takes_long_is_no_job_that_stands_still(monkeypatch):
    """A task tells how many rows were answered long before its part is whole; what it yields does not depend on time."""
    nodes = ([1, 3], [2, 64, 64, 64], [6], [10, 10], [1])  # of nodes that are unlike nearly all processors work
    assert [cluster.size_of(cpus, 0) for cpus in nodes] == [1, 8, 6, 5, 1] and cluster.size_of([6], 2) == 2
    counts, model = [], SimpleNamespace()

    def make_parts(model, *how, share):
        for rows in (5, 7, 9):
            model.done(rows)
            time.sleep(0.03)
        yield {"rows": 21}

    monkeypatch.setattr(cluster, "BEAT", 0.02)
    monkeypatch.setattr(cluster, "load_model", lambda: model)
    monkeypatch.setattr(parts, "make_parts", make_parts)
    assert [*cluster.task({}, SimpleNamespace(put_nowait=counts.append), "out", None, 1, None, (0, 1))] == [
        {"rows": 21}
    ] and counts == [12, 9]


@scale
def test_a_cluster_that_fails_is_one_line(start, ray, large, tmp_path):
    """A bad row there, nobody at the address, a job that stands still, a head that dies."""
    (tmp_path / "a.csv").write_text("text\ngood\n \n")
    run = lambda source, out, *words: start(source, tmp_path / out, *TEXT, *words, python=PYTHON, env=RAY)
    still = run(large, "still", "--cluster", ray.address, "--patience", 0.1)
    bad = run(tmp_path / "a.csv", "bad", "--cluster", ray.address)
    none = run(tmp_path / "a.csv", "none", "--cluster", "127.0.0.1:9")
    fails(ended(none), "CLUSTER=127.0.0.1:9: nobody answers there")
    fails(ended(still), "no row answered in 0.1 s, 0 parts are done")
    fails(ended(bad), "row 1 (from 0), line 3: no text")
    running = run(large, "out", "--rows", 2, "--cluster", ray.address)
    wait_for(tmp_path / "out", 1, running)
    ray.kill("head")
    fails(ended(running), "the head is gone")
