"""make bench: figures from given samples, real contenders on a small model, one that fails, the same bytes twice."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import openvino
import pytest
import small
from conftest import ROOT

from lab import bench, contenders
from tools.cpu import engines
from tools.cpu.native.build import FLAGS
from tools.graph import export, gate
from tools.make import cpu
from tools.results import peers
from tools.source import tokens

BERT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
PEAK = {"median": 1e12, "best": 2e12}
NAMES = ["input_ids", "attention_mask"]


def test_operations_are_the_models_and_ratios_those_within_a_round():
    """By hand: 12 layers x (2 x 128 x 12 x 768^2 + 4 x 128^2 x 768), pooler and classifier once."""
    want = 12 * (2 * 128 * 12 * 768**2 + 4 * 128**2 * 768) + 2 * 768**2 + 4 * 768
    assert bench.operations(BERT, [128]) == want == pytest.approx(22.35e9, rel=1e-3)
    assert bench.operations(BERT, [10, 30]) == (bench.operations(BERT, [10]) + bench.operations(BERT, [30])) / 2
    # Ratios are taken within a round: in the second the machine is twice as slow, and the ratio is 4 all the same.
    assert bench.ratios([400, 200, 500], [100, 50, 100]) == {"ratio": 4, "ratio_low": 4, "ratio_high": 5}


def line(found, truth=(0, 1, 1, 0), rows=(0, 1, 2, 3), seeded=False, base=(10, 10), peak=PEAK, reference="0110"):
    return bench.row("x", "sorted", found, base, reference, truth, rows, 1e9, peak, seeded)


def test_a_row_is_right_or_says_why_not():
    found = {"rates": [100, 120], "labels": "0111", "peak_bytes": 5}
    row = line(found)
    assert (row["samples_per_second"], row["ratio"], row["accuracy"], row["flips"]) == (110, 11, 0.75, [3])
    assert row["share_of_peak"] == 0.11 and row["missing"] == {}
    assert line(found, seeded=True)["missing"] == {"accuracy": "seeded weights"}
    part = line(found | {"labels": "10"}, rows=(1, 3))
    assert (part["accuracy"], part["flips"]) == (None, []) and "2 of 4" in part["missing"]["accuracy"]
    bare = line(found, base=None, reference=None, peak={"median": None, "missing": "this CPU has no AMX int8"})
    assert (bare["ratio"], bare["flips"], bare["share_of_peak"]) == (None, None, None)
    assert set(bare["missing"]) == {"ratio", "flips", "share_of_peak"}
    failed = line({"rates": [], "missing": "no such unit"})
    assert failed["missing"] == {"all": "no such unit"} and failed["samples_per_second"] is None


class Given:
    """A worker that answers with given seconds, and keeps the turns."""

    def __init__(self, name, seconds, turns):
        self.name, self.seconds, self.turns = name, iter(seconds), turns

    def ask(self, shape, rows, seconds):
        self.turns.append((self.name, shape))
        now = next(self.seconds)
        return {"missing": "broke"} if now is None else {"labels": "0" * len(rows), "seconds": [now], "peak_bytes": 1}


def test_rounds_go_round_and_a_failure_stops_nobody_else(monkeypatch):
    turns, clock = [], iter([(0, 0), (0, 50), (1, 150), (5, 190)])  # the warm-up, two rounds, the end
    monkeypatch.setattr("tools.make.cpu.ticks", lambda: next(clock))
    workers = {"a": Given("a", [9, 9, 1, 2, 0.5, 1], turns), "b": Given("b", [9, 9, None, 2, 4], turns)}
    found, stolen = bench.measure(workers, {"sorted": [0, 1], "padded": [0]}, rounds=2)
    assert stolen == [0.01, 0.1]
    once = [("a", "sorted"), ("a", "padded"), ("b", "sorted"), ("b", "padded")]
    assert turns == once + once + [t for t in once if t != ("b", "sorted")]
    rates = {key: value["rates"] for key, value in found.items()}  # not of the warm-up
    assert [rates[pair] for pair in once if pair != ("b", "sorted")] == [[2, 4], [0.5, 1], [0.5, 0.25]]
    assert found["b", "sorted"]["missing"] == "broke"
    monkeypatch.setattr("tools.make.cpu.ticks", lambda: (0, 0))  # what the host stole is not zero where nobody knows
    assert bench.measure({"a": Given("a", [1] * 4, [])}, {"sorted": [0], "padded": [0]}, rounds=1)[1] is None


def test_batches_hold_every_sentence_once_unpadded_or_as_the_recipe(tmp_path):
    checkpoint = small.checkpoint(tmp_path)
    names = ["input_ids", "segment_ids", "input_mask"]
    job = SimpleNamespace(checkpoint=checkpoint, seq=32, bs=2, batch=3, names=names)
    work = lambda shape: list(contenders.batches(job, contenders.tokenizer_of(job), small.SENTENCES, shape))
    want = tokens.encode(tokens.load(checkpoint), small.SENTENCES, 32, job.names)
    longest = want["input_mask"].sum(1)
    for shape, size in (("sorted", 3), ("padded", 2), ("padded 5", 5)):
        assert sorted(i for rows, _ in work(shape) for i in rows) == list(range(5))
        for rows, feed in work(shape):
            width = longest[rows].max() if shape == "sorted" else 32
            assert len(rows) <= size and list(feed) == job.names
            for name, array in feed.items():
                np.testing.assert_array_equal(array, want[name][rows, :width])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a small model, its graph, its five sentences and the yardstick."""
    folder = tmp_path_factory.mktemp("bench")
    checkpoint = small.checkpoint(folder)
    arrays = tokens.encode(tokens.load(checkpoint), small.SENTENCES, 32, NAMES)
    export.export(export.load(checkpoint), folder / "model.onnx", NAMES, arrays)
    (folder / "dev.tsv").write_text(small.tsv(small.SENTENCES))
    command = ["gcc", *FLAGS, "-Wall", "-Werror", "-o", folder / "peak.so", ROOT / "tools/cpu/native/peak.c"]
    subprocess.run(command, check=True)
    return folder


def run(folder, *options):
    command = [
        sys.executable, "-m", "lab.bench", "run", "--model", "tiny", "--weights", "x", "--source", "wheel",
        "--checkpoint", folder / "checkpoint", "--onnx", folder / "model.onnx", "--inputs", *NAMES,
        "--text_file", folder / "dev.tsv", "--calibration", folder / "dev.tsv", "--seq_len", 32, "--batch_size", 2, "--samples", 4,
        "--rounds", 2, "--seconds", 0.01, "--threads", 1, "--peak", folder / "peak.so", "--peers", folder / "none",
        "--save_path", folder / "bench.json", *options,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "bench.json").read_text())


@pytest.fixture(scope="module")
def record(tiny):
    names = [contenders.BASE, "onnxruntime fp32", "onnxruntime dynamic int8", "OpenVINO bf16"]
    return run(tiny, "--others", 1, 2, "--only", *names, "CTranslate2 int8", "ENGINE=native bf16")


def test_real_contenders_on_a_small_model(record):
    lines = {(r["name"], r["shape"]): r for r in record["contenders"]}
    base = lines[contenders.BASE, "padded"]
    assert [base[name] for name in ("ratio", "ratio_low", "ratio_high", "sentences")] == [1, 1, 1, 4]
    for shape in (*peers.SHAPES, "padded 1"):  # not "padded 2": that is the recipe's own
        assert lines[contenders.BASE, shape]["ratio"] == 1 or shape == "sorted"
        assert lines["onnxruntime fp32", shape]["flips"] == []
        r = lines["onnxruntime dynamic int8", shape]
        assert len(r["rounds"]) == 2 and min(r["rounds"]) > 0 and r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
        r = lines["OpenVINO bf16", shape]
        assert r["rounds"] or r["missing"]["all"] == "UserError: this CPU has no bf16 unit"
    assert 0 <= lines["onnxruntime fp32", "sorted"]["accuracy"] <= 1
    assert "4 of 5" in lines["onnxruntime fp32", "padded"]["missing"]["accuracy"]
    # what cannot run here is null, with its reason
    assert "not installed" in lines["CTranslate2 int8", "sorted"]["missing"]["all"]
    assert len(lines) == 6 * 3
    speed = lines["onnxruntime fp32", "padded 1"]["samples_per_second"]
    assert f"| onnxruntime fp32 | {speed:.1f} | " in peers.section(record)
    native = lines["ENGINE=native bf16", "padded"]["missing"]["all"]
    assert "UserError: native-bf16: not compiled, since this CPU" in native
    assert record["peak_per_second"]["memory"]["median"] > 0
    flags = cpu.cpu_flags(limited=False)
    for kind, units in {"fp32": {"avx512f"}, "bf16": {"avx512_bf16"}, "int8": {"avx512_vnni"}}.items():
        if flags & units:  # every CPU with AMX has them too
            assert record["peak_per_second"][kind]["median"] > 0, kind


def test_openvino_of_ours_gives_the_exports_labels_in_both_shapes(tiny):
    core, ours = openvino.Core(), {}
    for name, shape in (("openvino-fp32", [2, 32]), ("openvino-fp32-real", [-1, -1])):
        model = core.read_model(tiny / "model.onnx")
        model.reshape(dict.fromkeys(NAMES, openvino.PartialShape(shape)))
        ours[name] = tiny / f"{name}.ir"
        engines.write_ir(model, ours[name], "fp32", ["fp32"] * 2)
    job = contenders.Job(tiny / "checkpoint", "", NAMES, ours, "", "", seq=32, bs=2, batch=3, threads=2)
    _, labels = contenders.openvino_of_ours("fp32")(job)
    arrays = tokens.encode(tokens.load(tiny / "checkpoint"), small.SENTENCES, 32, NAMES)
    want = gate.logits(tiny / "model.onnx", arrays).argmax(1)
    np.testing.assert_array_equal(labels(small.SENTENCES, "sorted"), want)
    np.testing.assert_array_equal(labels(small.SENTENCES[:4], "padded"), want[:4])  # whole batches, as in a bench


def test_no_worker_outlives_the_bench(record, tiny):
    commands = subprocess.run("cat /proc/[0-9]*/cmdline", shell=True, capture_output=True).stdout  # some end meanwhile
    assert str(tiny).encode() not in commands


def test_a_contender_that_dies_has_a_reason(tiny, tmp_path):
    job = {"threads": 1, "text_file": str(tiny / "dev.tsv")}
    worker = bench.Worker("no such contender", sys.executable, job, tmp_path / "w", 0)
    assert worker.missing and worker.ask(shape="sorted", rows=[0], seconds=0) == {"missing": worker.missing}
    worker.close()
    poor = bench.Worker("x", sys.executable, {"threads": 1}, tmp_path / "p", 1 << 60)
    assert "GiB" in poor.missing


def test_the_table_is_of_the_newest_record_and_says_what_is_missing(record, tmp_path):
    for said in (r"\| onnxruntime fp32 \| [\d.]+ \| [\d.]+ \([\d.]+-[\d.]+\)", r"- CTranslate2 int8: .* is not installed",
                 r"batch 32 \(ENGINE=native: all at once\)\. Padded: 4 of them"):  # fmt: skip
        assert re.search(said, peers.section(record))
    path = peers.promote(tmp_path, record)
    assert json.loads(path.read_text()) == record and path.name.endswith("-tiny-x.json")
    old, other = record | {"started": "2000-01-01T00:00:00Z"}, record | {"model": "another"}
    assert peers.newest([record, old, other]) == [other, record]
