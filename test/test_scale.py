"""make score of many files: formats, parts, killed runs, an S3 stand-in, a Ray cluster that loses a node."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import slurm as processes
import small
from conftest import ROOT

from tools.make import cli, cpu
from tools.scale import files

PYTHON = ROOT / ".venv-scale/bin/python"
scale = pytest.mark.skipif(
    not (ROOT / ".venv-scale/installed").is_file(), reason="make .venv-scale/installed was not run"
)
WORDS = ["good", "bad", "film"]


def sentences(n, start=0):
    return [" ".join(WORDS[(i * j + i) % 3] for j in range(1 + i % 5)) for i in range(start, start + n)]


def logits(text):
    ids = [2, *(5 + WORDS.index(w) for w in text.split()), 3]
    return float(sum(ids)), 5.5 * len(ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Options of the script for the small model: exact sums, so that every logit is known."""
    at = tmp_path_factory.mktemp("model")
    return ["--model", small.sums(at / "m.onnx"), "--tokenizer_path", small.vocabulary(at / "checkpoint", WORDS)]


@pytest.fixture
def score(model):
    """score(input, output, *options, python=, env=, wait=): the finished process, or the running one."""

    def run(given, out, *words, python=sys.executable, env=None, wait=True):
        words = [python, "-m", "tools.scale.score", *model, "--input", given, "--save_path", out, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(list(map(str, words)), cwd=ROOT, env=os.environ | (env or {}), **pipes)
        if not wait:
            return process
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    return run


def frame(n, start=0):
    texts = sentences(n, start)
    labels = [str(int(b > a)) for a, b in map(logits, texts)]
    return pd.DataFrame({"id": [f"r{i}" for i in range(start, start + n)], "text": texts, "stars": labels})


def manifest(out):
    return json.loads((Path(out) / "manifest.json").read_text())


def rows(out):
    """All rows of the parts that the manifest names, in its order; each part is held to its hash."""
    parts = manifest(out)["parts"]
    assert all(cli.sha256(Path(out) / name) == entry["sha256"] for name, entry in parts.items())
    assert {p.name for p in Path(out).iterdir()} == {*parts, "manifest.json"}
    return pd.concat([pd.read_parquet(Path(out) / name) for name in parts], ignore_index=True)


def correct(found, texts):
    assert list(zip(found["logit0"], found["logit1"], strict=True)) == [logits(t) for t in texts]
    assert found["prediction"].tolist() == [int(b > a) for a, b in map(logits, texts)]


FORMATS = {
    "a.tsv": lambda f, p: f.to_csv(p, sep="\t", index=False),
    "b.csv": lambda f, p: f.to_csv(p, index=False),
    "c/d.jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    "c/e.parquet": lambda f, p: f.to_parquet(p, row_group_size=7),
    "f.csv.gz": lambda f, p: p.write_bytes(gzip.compress(f.to_csv(index=False).encode())),
    "h.jsonl.xz": lambda f, p: p.write_bytes(lzma.compress(f.to_json(orient="records", lines=True).encode())),
    "g.tsv.bz2": lambda f, p: p.write_bytes(bz2.compress(f.to_csv(sep="\t", index=False).encode())),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same 30 rows in each format, and files that are none of the inputs."""
    top = tmp_path_factory.mktemp("many")
    (top / "c").mkdir()
    (top / "_hidden").mkdir()
    for name, write in FORMATS.items():
        write(frame(30), top / name)
    for name in ("notes.txt", ".old.csv", "_hidden/x.csv"):
        (top / name).write_text("text\nno\n")
    return top


def test_a_folder_of_every_format(score, folder, tmp_path):
    done = score(folder, tmp_path / "out", "--columns", "text", "stars", "--keep", "id", "--rows", 11)
    assert done.returncode == 0, done.stderr
    found, said = rows(tmp_path / "out"), manifest(tmp_path / "out")
    assert list(found) == ["file", "row", "id", "prediction", "label", "logit0", "logit1"]
    assert [i["name"] for i in said["inputs"]] == sorted(FORMATS)
    assert len(said["parts"]) == 7 * 3 and said["complete"] and said["rows"] == 210
    for name in FORMATS:
        mine = found[found["file"] == name]
        assert mine["row"].tolist() == list(range(30)) and mine["id"].tolist() == [f"r{i}" for i in range(30)]
        correct(mine, sentences(30))
    assert "accuracy 100.00 % (210/210)" in done.stdout and "210 sentences in 21 parts, 0 of them" in done.stdout
    assert score(
        folder, tmp_path / "out", "--columns", "text", "stars", "--keep", "id", "--rows", 11
    ).stdout.startswith("210 ")


def test_classes_that_the_checkpoint_names(score, model, tmp_path):
    """TASK=sentence has none of its own."""
    checkpoint = shutil.copytree(model[3], tmp_path / "checkpoint")
    config = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), 64)
    config |= {"num_hidden_layers": 1, "num_attention_heads": 1, "id2label": {"0": "dull", "1": "fun"}}
    config["model_type"] = "bert"
    (checkpoint / "config.json").write_text(json.dumps(config))
    (tmp_path / "a.csv").write_text("sentence\n" + "\n".join(sentences(30)) + "\n")
    done = score(tmp_path / "a.csv", tmp_path / "out", "--task", "sentence", "--tokenizer_path", checkpoint)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    correct(found, sentences(30))
    assert found["label"].tolist() == ["fun" if i else "dull" for i in found["prediction"]] and manifest(
        tmp_path / "out"
    )["config"]["labels"] == ["dull", "fun"]


def test_a_glob_and_a_quoted_line_break(score, tmp_path):
    frame(3).assign(text=["good\nbad", 'film "good"', "bad, film"]).to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "y.jsonl").write_text('{"text": "good"}\n')
    done = score(tmp_path / "*.csv", tmp_path / "out/here", "--columns", "text")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "out/here")["logit1"].tolist() == [5.5 * n for n in (4, 6, 5)]


class Counting(io.BytesIO):
    """A file that counts how many bytes were read."""

    total = 0

    def read(self, size=-1):
        data = super().read(size)
        self.total += len(data)
        return data


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_a_large_file_is_not_read_far_ahead(kind):
    """Arrow reads 32 blocks ahead, whatever is asked of it; memory must not grow with the file."""
    row = b"good film\n" if kind == "tsv" else b'{"sentence": "good"}\n'
    file = Counting(b"sentence\n" * (kind == "tsv") + row * (40_000_000 // len(row)))
    next(files.batches(files.Source("x", f"a.{kind}", 0, ""), file, ["sentence"]))
    before = -1
    while before != file.total:
        before = file.total
        time.sleep(0.1)
    assert file.total < 12e6


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"text\ngood\n \n", "row 1 (from 0): no text"),
        ("a.jsonl", b'{"text": "good"}\n{"text": null}\n', "row 1 (from 0): no text"),
        ("a.tsv", b"text\tid\ngood\t1\nbad\n", "Expected 2 columns, got 1"),
        ("a.csv", b"other\ngood\n", "text"),
        ("a.jsonl", b"[1, 2]\n", "near row 0"),
        ("a.parquet", b"PAR1 not", "near row 0"),
        ("a.csv.gz", b"not gzip", "a.csv.gz"),
        ("a.csv", b"text\n\xff\xfe\n", "UTF8"),
        ("a.csv", b"", "Empty CSV"),
        ("a.csv", b"text\n" + b"x" * 600_000, "a.csv: near row 0"),
        ("a.jsonl", b'{"text": "' + b"x" * 600_000 + b'"}', "a.jsonl: near row 0"),
        ("a.txt", b"good", "no file there that ends in"),
    ],
)
def test_what_is_amiss_is_one_line(score, tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    done = score(tmp_path / name, tmp_path / "out", "--columns", "text")
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("out/*.parquet"))


def test_inputs_are_never_written_over(score, tmp_path):
    """OUT in the folder of the inputs, around it, and through a link; a folder of something else's."""
    (tmp_path / "in").mkdir()
    frame(5).to_parquet(tmp_path / "in/00000-00000.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = (tmp_path / "in/00000-00000.parquet").read_bytes()
    for out in ("in", "link", "in/out", "."):
        done = score(tmp_path / "in", tmp_path / out, "--columns", "text")
        assert done.returncode == 1 and "name a folder apart from it" in done.stderr, (out, done.stderr)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo").write_text("dear")
    assert "files that are not ours" in score(tmp_path / "in", tmp_path / "full", "--columns", "text").stderr
    assert [p.read_bytes() for p in (tmp_path / "in").iterdir()] == [before]


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
    """Four files of 2,500 rows."""
    top = tmp_path_factory.mktemp("large")
    for k in range(4):
        frame(2500, 2500 * k).to_csv(top / f"{k}.csv", index=False)
    return top


LARGE = ("--columns", "text", "--rows", 250)


@pytest.fixture(scope="module")
def whole(large, model, tmp_path_factory):
    """What an undisturbed run on one machine makes of them: {part: sha256}."""
    out = tmp_path_factory.mktemp("whole") / "out"
    words = [sys.executable, "-m", "tools.scale.score", *model, "--input", large, "--save_path", out, *LARGE]
    subprocess.run(list(map(str, words)), cwd=ROOT, check=True, capture_output=True)
    correct(rows(out), sentences(10000))
    return {name: entry["sha256"] for name, entry in manifest(out)["parts"].items()}


def same(out, whole):
    rows(out)
    assert {name: entry["sha256"] for name, entry in manifest(out)["parts"].items()} == whole
    assert manifest(out)["complete"]


def test_a_killed_run_goes_on(score, large, whole, tmp_path):
    out = tmp_path / "out"
    process = score(large, out, *LARGE, wait=False)
    wait_for(out, 2, process)
    process.kill()
    process.communicate()
    for name in (
        ".manifest.json.h4lf_abc",
        ".00000-00009.parquet.h4lf_abc",
    ):  # as a kill in the middle of a write leaves them
        (out / name).write_text("{")
    kept = list(manifest(out)["parts"])
    dates = {name: (out / name).stat().st_mtime_ns for name in kept}
    assert 2 <= len(kept) < len(whole)
    done = score(large, out, *LARGE)
    assert done.returncode == 0 and f"{len(kept)} of them there before" in done.stdout, done.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == dates
    same(out, whole)
    (out / kept[0]).unlink()
    assert f"{len(whole) - 1} of them there before" in score(large, out, *LARGE).stdout
    same(out, whole)


def test_a_damaged_part_is_made_again(score, tmp_path):
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    assert score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text").returncode == 0
    before, part = rows(tmp_path / "out"), tmp_path / "out/00000-00000.parquet"
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"PAR2", 1))
    done = score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text")
    assert f"{part}: not the bytes that manifest.json describes; made again" in done.stdout, done.stdout
    assert rows(tmp_path / "out").equals(before)


def test_what_score_did_not_make_stays(score, tmp_path):
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    for name in ("00000-00000.parquet", ".keep.parquet.mine"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("dear")
        assert "not ours" in score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text").stderr
        assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["dear"]
        (tmp_path / "out" / name).unlink()


def test_other_rows_or_options_need_another_folder(score, tmp_path):
    frame(9).to_csv(tmp_path / "a.csv", index=False)
    assert score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text").returncode == 0
    assert (
        "parts of another batchsize"
        in score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text", "--batchsize", 2).stderr
    )
    frame(10).to_csv(tmp_path / "a.csv", index=False)
    assert "other inputs, or of these before" in score(tmp_path / "a.csv", tmp_path / "out", "--columns", "text").stderr


# ---- Through make


def test_make_scores_a_glob_and_goes_on(built, folder, tmp_path):
    words = (
        "MODEL=tiny",
        "PRECISION=fp32",
        "score",
        f"INPUT={folder}/*.csv",
        f"OUT={tmp_path}/out",
        "COLUMNS=text",
        "KEEP=id",
    )
    assert "30 sentences in 1 parts, 0 of them there before" in built.make(*words).stdout
    assert list(rows(tmp_path / "out")) == ["file", "row", "id", "prediction", "label", "logit0", "logit1"]
    assert "30 sentences in 1 parts, 1 of them there before" in built.make(*words).stdout
    done = built.make(*words[:3], f"INPUT={folder}/a.tsv", f"OUT={tmp_path}/x.csv", "KEEP=id", check=False)
    assert done.returncode == 2 and "x.csv' is one file, which is written of one TSV alone" in done.stderr


def test_score_never_destroys_its_input(built):
    """Through a linked folder; a file where results go by default; two inputs of one base name."""
    top, text = built.path, "sentence\ngood\n"
    for name in ("one/y.tsv", "two/y.tsv", "build/score/y.csv"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "link").symlink_to("one")

    make = lambda *words: built.make("MODEL=tiny", "PRECISION=fp32", "score", *words, check=False)
    (top / "two/y.csv").hardlink_to(top / "two/y.tsv")
    assert "two/y.csv is two/y.tsv, which it would be made from" in make("INPUT=two/y.tsv", "OUT=two/y.csv").stderr
    (top / "one/t.csv").symlink_to("y.tsv")
    assert "link/t.csv is one/y.tsv, which it would be made from" in make("INPUT=one/y.tsv", "OUT=link/t.csv").stderr
    for name in ("one/y.tsv", "two/y.tsv", "build/score/y.csv"):
        done = make(f"INPUT={name}")
        assert done.returncode == 0 and (top / name).read_text() == text, done.stderr
    names = {p.name for p in (top / "build/score").iterdir() if not p.name.endswith((".log", ".json"))}
    assert names == {"one_-y.tsv.csv", "two_-y.tsv.csv", "build_-score_-y.csv.parts", "y.csv"}


def test_score_takes_the_fastest_engine_of_this_cpu(built):
    text = built.make("-n", "MODEL=tiny", "score", "INPUT=a.tsv", "OUT=x/").stdout
    fastest = re.search(r"--model build/\S+/cpu-(\w+)-(\w+)/model", text).groups()
    order = [
        ("native", "int8"),
        ("openvino", "int8"),
        ("native", "bf16"),
        ("openvino", "bf16"),
        ("onnxruntime", "fp32"),
    ]
    units = {row: cpu.FASTER[row[1]] if row[0] == "native" else cpu.ENGINES[row[0]][row[1]] for row in order}
    assert fastest == next(row for row in order if not units[row] or units[row] & cpu.cpu_flags(limited=False))
    text = built.make("-n", "MODEL=tiny", "score", "INPUT=a.tsv", "OUT=x/", "PRECISION=fp32").stdout
    assert "cpu-onnxruntime-fp32/model.onnx" in text


# ---- What needs .venv-scale


@pytest.fixture(scope="module")
def s3():
    """moto as S3: the environment that leads there, with a bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
def test_from_s3_to_s3(score, s3, large, whole, tmp_path):
    copy(large, "s3://bucket/in", s3)
    done = score("s3://bucket/in/*.csv", "s3://bucket/out", *LARGE, python=PYTHON, env=s3)
    assert done.returncode == 0, done.stderr
    copy("s3://bucket/out", tmp_path / "out", s3)
    same(tmp_path / "out", whole)
    assert (
        "40 of them there before"
        in score("s3://bucket/in/*.csv", "s3://bucket/out", *LARGE, python=PYTHON, env=s3).stdout
    )
    assert "name a folder apart" in score("s3://bucket/in", "s3://bucket/in/out", *LARGE, python=PYTHON, env=s3).stderr


# Of this host alone, whatever the user's own clusters ask for.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}


class Ray:
    """Two raylets on this host, with a processor each."""

    def __init__(self, at):
        self.at, self.nodes = at, {}

    def begin(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.start("head", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.at}")
        self.start("worker", f"--address={self.address}")

    def start(self, name, *words):
        ray = [PYTHON.with_name("ray"), "start", "--block", "--num-cpus=1", "--object-store-memory=100000000"]
        ray += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", *words]
        with (self.at / f"{name}.log").open("w") as log:
            self.nodes[name] = subprocess.Popen(ray, stdout=log, stderr=log, env=os.environ | RAY)
        end = time.monotonic() + 60
        while "Ray runtime started" not in (self.at / f"{name}.log").read_text():
            assert time.monotonic() < end and self.nodes[name].poll() is None, (self.at / f"{name}.log").read_text()
            time.sleep(0.2)

    def kill(self, name):
        """SIGKILL of a node with all that it started."""
        node = self.nodes.pop(name)
        for pid in reversed(processes.descendants(node.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


@pytest.fixture(scope="module")
def ray():
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as at:  # short: it holds sockets
        ray = Ray(Path(at))
        try:
            ray.begin()
            yield ray
        finally:
            for name in list(ray.nodes):
                ray.kill(name)


@scale
def test_a_raylet_and_then_the_driver_are_killed(score, ray, large, whole, tmp_path):
    """Every row once in the manifest, and the bytes of one machine."""
    out, words = tmp_path / "out", (*LARGE, "--cluster", ray.address)
    process = score(large, out, *words, python=PYTHON, env=RAY, wait=False)
    wait_for(out, 4, process)
    ray.kill("worker")
    wait_for(out, 12, process)
    process.kill()
    process.communicate()
    kept = len(manifest(out)["parts"])
    assert 12 <= kept < len(whole)
    ray.start("worker", f"--address={ray.address}")
    done = score(large, out, *words, python=PYTHON, env=RAY)
    assert done.returncode == 0 and f"{kept} of them there before" in done.stdout, done.stdout + done.stderr
    same(out, whole)


@scale
def test_the_watchdog_names_a_job_that_stands_still(score, ray, large, tmp_path):
    done = score(large, tmp_path / "out", *LARGE, "--cluster", ray.address, "--patience", 0.5, python=PYTHON, env=RAY)
    assert done.returncode == 1 and "no part in 0.5 s, 0 are done; " in done.stderr, done.stderr


@scale
def test_a_bad_row_and_no_cluster(score, ray, tmp_path):
    (tmp_path / "a.csv").write_text("text\ngood\n \n")
    done = score(
        tmp_path / "a.csv", tmp_path / "out", "--columns", "text", "--cluster", ray.address, python=PYTHON, env=RAY
    )
    assert done.returncode == 1 and "row 1 (from 0): no text" in done.stderr, done.stderr
    done = score(
        tmp_path / "a.csv", tmp_path / "o", "--columns", "text", "--cluster", "127.0.0.1:9", python=PYTHON, env=RAY
    )
    assert done.returncode == 1 and "CLUSTER=127.0.0.1:9" in done.stderr and done.stderr.count("\n") == 1, done.stderr
