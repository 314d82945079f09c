"""PACK=1: rows of several sentences, the graph for them, and the whole pipeline on both routes."""

import functools
import hashlib
import json
import sys

import bert_graphs
import numpy as np
import onnx
import onnxsim
import pytest
import test_table
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.base import input_files, onnxfile
from tools.checks import audit, verify
from tools.graph import encoder, pack, rewrite
from tools.make import chips, cpu
from tools.results import published, record
from tools.source import tokens

SEQ = 16
KINDS = {
    "plain": {},
    "token_types": {"names": ["input_ids", "segment_ids", "input_mask"]},
    "minus_inf": {"mask": bert_graphs.minus_inf, "opset": 16},
}


def encoded(lengths, names=("input_ids", "attention_mask"), seed=0):
    """Sentences of these lengths as tokens.encode gives them: random ids, the mask, token types."""
    mask = (np.arange(SEQ) < np.array(lengths)[:, None]).astype(np.int64)
    pick = np.random.default_rng(seed)
    fill = {"input_ids": pick.integers(1, 100, mask.shape) * mask, "token_type_ids": np.zeros_like(mask)}
    return {n: fill.get(input_files.ROLES[n], mask) for n in names}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(exported graph, packed graph, names of the exported graph's inputs) of a kind."""
    folder, lengths = tmp_path_factory.mktemp("pack"), [9, 3, 5, 16, 7, 2, 2]

    @functools.cache
    def get(kind):
        names = KINDS[kind].get("names", bert_graphs.NAMES)
        plain, graph = folder / f"{kind}.onnx", folder / f"{kind}-pack.onnx"
        bert_graphs.export(plain, bert_graphs.bert(), **KINDS[kind])
        packed, _ = tokens.pack(encoded(lengths, names))
        input_files.write_bins(folder / kind, packed, "0101010", rows=tokens.share_rows(lengths, SEQ, 2))
        run(plain, graph, folder / kind)
        return plain, graph, names

    return get


def run(plain, out, rows, seq_len=SEQ):
    """tools/graph/pack.py in this process."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sys, "argv", ["pack.py", *map(str, (plain, out, "--seq_len", seq_len, "--input", rows))])
        pack.main()


@given(st.lists(st.integers(0, 64), max_size=60), st.integers(1, 8))
@settings(deadline=None)
def test_a_plan_holds_every_sentence_once_and_no_row_too_many(lengths, most):
    rows = tokens.share_rows(lengths, 64, most)
    assert sorted(i for row in rows for i in row) == [i for i, n in enumerate(lengths) if n]
    assert all(row == sorted(row) and 0 < len(row) <= most and sum(lengths[i] for i in row) <= 64 for row in rows)
    free = [64 - sum(lengths[i] for i in row) for row in rows]
    for later, row in enumerate(rows):  # first fit: no sentence of a row fits an earlier one
        shortest = min(lengths[i] for i in row)
        assert all(f < shortest or len(rows[r]) == most for r, f in enumerate(free[:later]))


@pytest.mark.parametrize(("name", "at", "value", "says"), [
    ("sentence", slice(0, 9), 3, "row 2: .* sentence 1"),  # left out
    ("first", 1, 0, "row 2: .* sentence 2"),  # no [CLS]
    ("position", 9, 9, "row 2: .* sentence 2"),  # does not restart
    ("position", 15, 99, "row 2: its padding"),
])  # fmt: skip
def test_malformed_rows_are_named(name, at, value, says):
    arrays, _ = tokens.pack(encoded([16, 9, 5]))
    arrays[name][1, at] = value
    refused(says, pack.unpack, arrays, "attention_mask")


@pytest.mark.parametrize("kind", KINDS)
def test_packed_logits_are_those_of_each_sentence_alone(made, kind):
    plain, graph, names = made(kind)
    lengths = [16, 3, 8, 4, 9, 7, 2, 5, 12, 3, 3]
    packed, _ = tokens.pack(encoded(lengths, names, seed=7))
    assert [i.name for i in onnxfile.session(str(graph)).get_inputs()] == list(packed)
    assert pack.compare(str(plain), graph.read_bytes(), packed).ok


@pytest.mark.parametrize("kind, target", [("plain", "cpu"), ("token_types", "ascend")])
def test_targets_keep_one_mask_of_whole_rows(made, tmp_path, kind, target):
    _, graph, _ = made(kind)
    shapes = {i.name: [3, i.shape[1]] for i in onnxfile.session(str(graph)).get_inputs()}
    onnx.save(onnxsim.simplify(onnx.load(graph), overwrite_input_shapes=shapes)[0], tmp_path / "sim.onnx")
    said = rewrite.modify(tmp_path / "sim.onnx", tmp_path / "new.onnx", target, graph.parent / kind)
    assert said.startswith("mask from sentence: ")
    enc = encoder.read_encoder(encoder.load(tmp_path / "new.onnx").graph)
    assert enc.packed and enc.mask_constant == -10000.0
    assert len({layer.mask for layer in enc.layers}) == 1
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "new.onnx"))
    types = {v.name: v.type.tensor_type for v in model.graph.value_info}
    (equal,) = (n for n in model.graph.node if n.op_type == "Equal")
    assert types[equal.input[0]].elem_type == onnx.TensorProto.INT32
    assert [d.dim_value for d in types[enc.layers[0].mask.name].shape.dim] == [3, 1, SEQ, SEQ]
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [3, SEQ // 8, 2]


leaking = lambda w, mask, sentence: w.op("Mul", "leak", mask, 0.0)


def infinite_where_empty(w, mask, sentence):
    """Minus infinity on a row without a sentence; what is added to all scores of a row changes no other one."""
    count = w.op("ReduceMax", "odd_Max", w.op("Cast", "odd_Cast", sentence, to=1), axes=[1], keepdims=1)
    return w.op("Add", "odd", mask, w.unsqueeze("odd_Unsqueeze", w.op("Log", "odd_Log", count), [1, 2]))


@pytest.mark.parametrize(("spoil", "says"), [(leaking, "limit 1e-04"), (infinite_where_empty, "1 rows not finite")])
def test_a_wrong_mask_leaves_no_graph(made, tmp_path, monkeypatch, spoil, says):
    plain, graph, _ = made("plain")
    whole = rewrite.Writer.mask
    monkeypatch.setattr(rewrite.Writer, "mask", lambda w, s, packed, n: spoil(w, whole(w, s, packed, n), s))
    refused(f"NOT EQUAL.*{says}.*nothing was written", run, plain, tmp_path / "new.onnx", graph.parent / "plain")
    assert not (tmp_path / "new.onnx").exists()


def test_rows_longer_than_the_positions_are_refused(made, tmp_path):
    plain, graph, _ = made("plain")
    words = (tmp_path / "new.onnx", graph.parent / "plain")
    refused("64 positions, rows of 128", run, plain, *words, 128)
    refused("packing: 0 nodes read positions", run, graph, *words)  # packed already


def test_packed_throughput_stands_beside_nothing_published():
    figure = {"model": "m", "metric": "throughput", "seq": "", "bs": "8"}
    value = {"model": "m", "kind": "throughput", "bs": 8}
    assert [published.beside(value | {"seq": seq}, [figure]) for seq in ("128", "128p")] == [[figure], []]


def test_records_of_packed_rows_are_chosen_rebuilt_and_audited(tmp_path):
    one = {"requests": 1, "spread": 0.0, "engine_info": {"name": "e"}}
    at = "m/default/seq{}/bs8/cpu-e-fp32"
    packed = test_table.record(at.format("128p"), 30.0, **one, times_ms=[[800.0]], sentences_per_row=3.0)
    plain = test_table.record(at.format("128"), 30.0, **one, times_ms=[[800 / 3]])
    for r in (packed, plain):
        source, sha256 = "build/m/default/source", hashlib.sha256(b"wheel\n").hexdigest()
        rounds = {"sha256": "0" * 64, "commands": [["x"]], "inputs": {source: sha256}}
        r["chain"] = {f"build/{at.format(r['seq'])}/round1/MANIFEST": rounds, source: {"sha256": sha256}}
        r["timed"] = f"the engine's call alone; {record.workload(r['seq'])}"
        r["latency_ms"] = {"mean": r["times_ms"][0][0], "p50": None, "p99": None}
    paths = [tmp_path / record.name_of(r) for r in (plain, packed)]
    for path, r in zip(paths, (plain, packed), strict=True):
        path.write_text(json.dumps(r))
        assert list(audit.record_faults(path)) == []
    assert verify.choose(paths, ["SEQ=128", "PACK=1"]) == paths[1:]
    assert verify.choose(paths, ["SEQ=128", "PACK="]) == paths[:1]
    assert verify.choose(paths, ["SEQ=128"]) == paths
    assert {"SEQ=128", "PACK=1"} <= set(record.make_words(packed))
    assert {"SEQ=128", "PACK="} <= set(record.make_words(plain))
    paths[1].write_text(json.dumps(packed | {"sentences_per_row": 4.0}))
    assert "is not what its times_ms give" in "".join(audit.record_faults(paths[1]))


def test_predictions_are_those_of_unpacked_rows_and_neither_remakes_the_other(built):
    """The Ascend route is test_routes.py's; int8 computes the same packed graph."""
    words, packed = ("MODEL=tiny", "PACK=1"), "tiny/default/seq64p"
    built.make(*words, "accuracy", "perf", "SAMPLES=8", "ROUNDS=1")
    read = built.read
    got, perf = (read(f"{packed}/bs8/cpu-onnxruntime-fp32/{kind}.json") for kind in ("accuracy", "perf"))
    want = read("tiny/default/seq64/bs8/cpu-onnxruntime-fp32/accuracy.json")
    assert got["predictions"] == want["predictions"] and got["total"] == 872
    rows = len(read(f"{packed}/input/rows.json"))
    assert got["sentences_per_row"] == pytest.approx(872 / (-(-rows // 8) * 8), abs=1e-5)
    assert perf["sentences_per_row"] == got["sentences_per_row"] and "packed rows" in perf["timed"]
    row_rate = 1000 * 8 * len(perf["times_ms"][0]) / sum(perf["times_ms"][0])
    assert perf["rounds"][0] == pytest.approx(row_rate * got["sentences_per_row"], rel=1e-3)
    if cpu.cpu_flags() & chips.VNNI:
        built.make(*words, "ENGINE=openvino", "PRECISION=int8", "accuracy")
    assert built.remade("MODEL=tiny", "accuracy") == built.remade(*words, "accuracy") == set()
    first = {f"{packed}/{name}" for name in ("pack.onnx", "bs8/sim.onnx", "bs8/cpu.onnx")}
    assert built.remade(*words, "-W", "tools/graph/pack.py", "accuracy") >= first
    assert built.remade("MODEL=tiny", "-W", "tools/graph/pack.py", "accuracy") == set()
    more = built.remade("MODEL=tiny", "PACK=1", "BS=4", "accuracy")
    assert f"{packed}/pack.onnx" not in more and f"{packed}/bs4/sim.onnx" in more
