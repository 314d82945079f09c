"""Sentences at their own lengths: the plan against brute force, order, remainder, extremes."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import small
from conftest import ROOT, refused

from tools.cpu import engines, plan, runner
from tools.recipe import preprocess as preprocess_command

WORDS = ["good", "bad", "film"]


@pytest.fixture
def model(tmp_path):
    return small.sums(tmp_path / "m.onnx")


@pytest.fixture
def tokenizer(tmp_path):
    return small.vocabulary(tmp_path / "checkpoint", WORDS)


def preprocess(monkeypatch, tmp_path, tokenizer, sentences, *words):
    (tmp_path / "dev.tsv").write_text(small.tsv(sentences))
    script = ROOT / "models/minilm_sst2/preprocess.py"
    fixed = ["--text_file", tmp_path / "dev.tsv", "--tokenizer_path", tokenizer, "--save_path", tmp_path / "in"]
    monkeypatch.setattr(sys, "argv", [*map(str, (script, *fixed)), *words])
    preprocess_command.preprocess("")
    return tmp_path / "in"


def bench(monkeypatch, model, folder, out, *words):
    given = ["--model", model, "--input", f"{folder}/input_ids,{folder}/attention_mask", "--output", out]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, given), "--output_dirname", "d", *map(str, words)])
    runner.main()
    return json.loads((out / "d_summary.json").read_text())


@pytest.mark.parametrize(("tokens", "best"), [(3, [3, 4, 1]), (1000, [4, 4])])
def test_the_cheapest_plan_is_the_best_of_all(tokens, best):
    """Of requests that cost some tokens besides; for 3, full batches of 4 would pad one row from 4 to 9, and cost more."""
    lengths, batch, cost = [9, 9, 8, 4, 4, 4, 4, 1], 4, lambda rows, width: tokens + rows * width

    def price(sizes):
        starts = [0, *itertools.accumulate(sizes)][:-1]
        return sum(cost(n, lengths[s]) for s, n in zip(starts, sizes, strict=True))

    every = [c for k in range(1, 9) for c in itertools.product(range(1, batch + 1), repeat=k) if sum(c) == len(lengths)]
    sizes, total = plan.cheapest(lengths, batch, cost)
    assert total == min(map(price, every)) == price(sizes) and sizes == best


@pytest.mark.parametrize("streams", [1, 2])
def test_the_cost_is_that_of_the_engine(monkeypatch, streams):
    engine = engines.Engine()
    engine.streams = streams
    true = lambda rows, width: 0.002 + 1e-5 * rows * width + 1e-8 * rows * width**2
    monkeypatch.setattr(plan, "run_requests", lambda e, requests: (None, None, e.streams * true(*requests[0][0].shape)))
    cost = plan.fit_cost(engine, [[np.ones(n, np.int64) for n in range(5, 105, 5)]] * 2, 8)
    assert cost(np.array([8, 1]), np.array([50, 7])) == pytest.approx([true(8, 50), true(1, 7)], rel=1e-6)


@pytest.mark.parametrize("share", [0.8, 1.25])
def test_streams_take_turns_on_a_machine_that_slows_down(monkeypatch, share):
    """Each run is slower than the one before by more than the streams differ."""
    moment = itertools.count(1)
    seconds = lambda engine: {"one": 1, "two": share}[engine] * 1.1 ** next(moment)
    monkeypatch.setattr(plan, "run_requests", lambda engine, _: (None, None, seconds(engine)))
    assert plan.is_quicker("two", "one", []) == (share < 1)


@pytest.mark.parametrize("batch", [1, 4, 99])
@pytest.mark.parametrize("how", ["fixed", "measured"])
def test_results_stand_under_their_own_names(monkeypatch, tmp_path, model, tokenizer, batch, how):
    # in no order; ten of them (a remainder for 4); one of no known character at all; one cut at 16
    sentences = [" ".join(WORDS[i % 3] for i in range(n)) for n in (3, 1, 9, 2, 14, 3, 1, 30, 5)] + ["\u200b"]
    folder = preprocess(monkeypatch, tmp_path, tokenizer, sentences, "--seq_len", "real", "--max_len", "16")
    assert (folder / "input_ids/8.bin").stat().st_size == 16 * 8
    assert (folder / "input_ids/10.bin").stat().st_size == 2 * 8  # [CLS] [SEP]
    found = bench(monkeypatch, model, folder, tmp_path / "o", "--batchsize", batch, "--plan", how, "--threads", 2)
    ids = {n: np.fromfile(folder / f"input_ids/{n}.bin", "<i8") for n in range(1, 11)}
    for n, row in ids.items():
        assert np.fromfile(tmp_path / f"o/d/{n}_0.bin", "<f4").tolist() == [row.sum(), 5.5 * len(row)]
    names = [Path(i["outfiles"][0]).name for i in found["filesinfo"].values()]
    assert names == [f"{n}_0.bin" for n in range(1, 11)]  # the data's order
    assert found["throughput"] == pytest.approx(10_000 / np.mean(found["pass_ms"]))
    if how == "fixed":
        assert len(found["npu_compute_time_list"]) == -(-10 // batch)


def test_rows_of_different_length_and_models_of_one_length_have_no_plan(monkeypatch, tmp_path, model, tokenizer):
    folder = preprocess(monkeypatch, tmp_path, tokenizer, ["good", "bad film"], "--seq_len", "real")
    (folder / "attention_mask/2.bin").write_bytes(bytes(8))
    fixed = small.sums(tmp_path / "fixed.onnx", length=4)
    run = lambda path: bench(monkeypatch, path, folder, tmp_path / "o", "--batchsize", 2, "--plan", "fixed")
    refused("2.bin: not one row of as many tokens as", run, model)
    refused(r"the shape \(None, 4\); both must be open", run, fixed)
    for name in ("input_ids", "attention_mask"):
        np.save(folder / name / "2.npy", np.ones((2, 4), np.int64))
        (folder / name / "2.bin").unlink()
    refused("2.npy: not one row of as many tokens", run, model)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_streams_give_what_one_stream_gives(tmp_path, model, engine):
    if engine == "openvino":
        graph, model = openvino.Core().read_model(model), tmp_path / "m.ir"
        engines.write_ir(graph, model, "fp32", [])
    requests = [[np.full((n, 5), n), np.ones((n, 5), np.int64)] for n in range(1, 9)]
    one, two = (plan.run_requests(engines.load(model, 2, n), requests)[0] for n in (1, 2))
    assert [a[0].tolist() for a in one] == [b[0].tolist() for b in two] == [[[5 * n, 27.5]] * n for n in range(1, 9)]
