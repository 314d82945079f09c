"""tools/ascend/fusion.py: the guards against what is known of the published runs, on graphs and on .om files."""

import onnx
import onnxsim
import pytest
import test_rewrite
from bert_graphs import bert, export
from conftest import module, refused
from fake_cann import om_writer

from tools.ascend import fusion
from tools.graph import rewrite
from tools.make import chips

BASE = {"heads": 12, "head_dim": 64, "hidden": 768}
TINYBERT = {"heads": 12, "head_dim": 26, "hidden": 312}
BATCHES = [1, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(("name", "sizes", "length", "chip", "batches"), [
    ("AttentionScore", BASE, 128, "310P3", [4, 8, 16, 32, 64]),
    ("AttentionLnQKV", BASE, 128, "310P3", [16, 32, 64]),
    ("AttentionLnQKV", BASE, 128, "910A", [16, 32, 64]),
    ("AttentionLnQKV", BASE, 128, "310P1", []),
    ("AttentionLnQKV", BASE, 64, "310P3", [32, 64]),
    ("AttentionScore", TINYBERT, 64, "310P3", []),
    ("AttentionLnQKV", TINYBERT, 64, "310P3", []),
    ("AttentionScore", BASE, 40, "310P3", []),
    ("AttentionScore", BASE, 1024, "310P3", []),
    ("AttentionScore", BASE, 128, "910B3", []),
    ("AttentionScore", BASE, 128, "310", []),
])  # fmt: skip
def test_size_guards(name, sizes, length, chip, batches):
    """The batch sizes at which all of them hold."""
    guards = {b: fusion.size_guards(name, sizes, b, length, chip, "fp16") for b in BATCHES}
    assert [b for b, rules in guards.items() if all(holds for holds, _ in rules)] == batches


@pytest.mark.parametrize(("chip", "precision", "why"), [
    ("310", "fp16", "AI cores of 310: not in the sources"),
    ("310P3", "mix", "under mix precision atc chooses the type of LayerNorm's output"),
])  # fmt: skip
def test_what_the_sources_do_not_say_is_unknown(chip, precision, why):
    sites = {"sites": {"AttentionLnQKV": [None]}} | BASE
    got = fusion.predict(sites, "AttentionLnQKV", 16, 128, chip, precision)
    assert (got["fused"], got["unknown"]) == (None, [why])


def test_a_chip_is_one_of_the_platform_config_written_with_or_without_ascend():
    """hicann/runtime, src/platform/platform_config/*.ini, ai_core_cnt; every chip of tools/make/chips.py stands there."""
    assert {fusion.chip_name(chip) for chip in chips.ASCEND} <= set(fusion.AI_CORES)
    assert [fusion.chip_name(c) for c in ("Ascend310P3", "710", "910B3")] == ["310P3", "310P3", "910B3"]
    refused("--chip 310P33: not one of 310P1, 310P3", fusion.chip_name, "310P33")
    assert "--batch_size 1,x: not whole" in module("tools.ascend.fusion", "no.onnx", "--batch_size", "1,x").stderr


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """One layer of BERT-base's width, simplified, and as rewritten for Ascend."""
    folder = tmp_path_factory.mktemp("base")
    raw = export(folder / "raw.onnx", bert(1, 768, 12, 128))
    shapes = {name: [8, 128] for name in ("input_ids", "attention_mask")}
    sim, _ = onnxsim.simplify(onnx.load(raw), overwrite_input_shapes=shapes)
    onnx.save(sim, folder / "sim.onnx")
    rewrite.modify(folder / "sim.onnx", folder / "ascend.onnx")
    return folder


def row(path, batch, **more):
    """The row of a batch size in a report on a graph."""
    report = fusion.fusion_report(path, batches=BATCHES, **more)
    return next(r for r in report["rows"] if r["batch"] == batch)


def cell(path, batch, name, **more):
    return fusion.cell_text(row(path, batch, **more)[name])


def test_rewritten_graph_qualifies(graphs):
    path = graphs / "ascend.onnx"
    assert fusion.fusion_report(path)["graph"] == {"batch": 8, "length": 128, **BASE}
    fused = {b: [row(path, b)[name]["fused"] for name in fusion.FUSIONS] for b in (1, 8, 16)}
    assert [*fusion.FUSIONS] == ["AttentionScore", "AttentionLnQKV", "LayerNorm", "Gelu"]
    assert fused == {1: [0, 0, 3, 1], 8: [1, 0, 3, 1], 16: [1, 1, 2, 1]}
    assert cell(path, 16, "LayerNorm") == "2: 1 of 3 are inside AttentionLnQKV"
    mixed = row(path, 16, precision="mix")
    assert [mixed[name]["fused"] for name in fusion.FUSIONS] == [None, None, None, 1]
    assert row(path, 1)["AttentionScore"]["failed"] == ["batch x heads 12, not a multiple of 8"]


def test_simplified_graph_does_not_and_no_encoder_is_said(graphs):
    got = row(graphs / "sim.onnx", 16)
    assert got["AttentionScore"]["failed"] == ["the scale node's name does not begin with bert_"]
    assert (got["AttentionLnQKV"]["fused"], got["Gelu"]["fused"]) == (0, 1)
    model = onnx.load(graphs / "sim.onnx")
    for node in (node for node in model.graph.node if node.op_type == "Softmax"):
        node.op_type = "Sigmoid"
        del node.attribute[:]
    onnx.save(model, graphs / "none.onnx")
    refused("0 Softmax", fusion.fusion_report, graphs / "none.onnx")


def mask_not_expanded(nodes, model):
    nodes["layer_0_mask"].input[1] = "mask_Mul_out"


def gelu_as_mul(nodes, model):
    node = nodes["layer_0_gelu_Div"]
    node.op_type = "Mul"
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(1 / onnx.numpy_helper.to_array(tensor), tensor.name))


def gelu_halved_too_early(nodes, model):
    """x * ((1 + erf) * 0.5): the same function, and neither form that the pass looks for."""
    product, last = nodes["layer_0_gelu_Mul"], nodes["layer_0_gelu_Half"]
    product.input[0], last.input[1] = last.input[1], product.input[0]


def gelu_halved_before(nodes, model):
    """(x * 0.5) * (1 + erf)."""
    product, last = nodes["layer_0_gelu_Mul"], nodes["layer_0_gelu_Half"]
    x, one_plus, half = product.input[0], product.input[1], last.input[1]
    product.input[:], last.input[:] = [half, x], [one_plus, product.output[0]]


def one_step_key(nodes, model):
    swap, heads = nodes["layer_0_key_Swap"], nodes["layer_0_key_Transpose"]
    heads.attribute[0].ints[:] = [0, 2, 3, 1]
    nodes["layer_0_scores"].input[1] = heads.output[0]
    model.graph.node.remove(swap)


@pytest.mark.parametrize(("change", "name", "says"), [
    (mask_not_expanded, "AttentionScore", "mask is not expanded"),
    (one_step_key, "AttentionScore", "two steps"),
    (lambda _, model: test_rewrite.two_subs(model), "LayerNorm", "computed twice"),
    (gelu_as_mul, "Gelu", "x / sqrt 2"),
    (gelu_halved_too_early, "Gelu", "1 + erf is not multiplied by x * 0.5"),
    (gelu_halved_before, "Gelu", ""),  # the pass's other form
])  # fmt: skip
def test_each_guard_can_fail(graphs, tmp_path, change, name, says):
    model = onnx.load(graphs / "ascend.onnx")
    change({n.name: n for n in model.graph.node}, model)
    onnx.save(model, tmp_path / "changed.onnx")
    got = row(tmp_path / "changed.onnx", 16)[name]
    assert (got["fused"] < got["of"]) == bool(says) and says in fusion.cell_text(got)


def compiled(path, dims=(16, 128), ops=(), **more):
    words = {"inputs": [("input_ids", "int64", dims)], "outputs": [("output", "float32", [16, 2])]}
    om_writer.write_om(path, ops=ops, **words, **more)
    return path


def test_an_om_decides_the_rows_and_the_precision_that_it_is_of(graphs, tmp_path):
    graph = graphs / "ascend.onnx"
    path = compiled(tmp_path / "model.om", ops=["AttentionScore", "LayerNorm", "LayerNorm", "Gelu"])
    cells = [cell(graph, 16, name, oms=[path]) for name in fusion.FUSIONS]
    assert cells == ["1 in the .om", "0 in the .om, where 1 was predicted", "2 in the .om", "1 in the .om"]
    assert "compiled" not in row(graph, 8, oms=[path])["Gelu"]
    path = compiled(tmp_path / "standin.om", ops=["Erf"], atc_version="STAND-IN")
    said = "0 in the stand-in's .om, which fuses nothing, where 1 was predicted"
    assert cell(graph, 16, "Gelu", oms=[path]) == said
    for name, mode in (("a", "force_fp16"), ("b", "allow_mix_precision")):
        compiled(tmp_path / f"{name}.om", ops=["Gelu"] * (name == "a"), atc_cmdline=f"atc.bin --precision_mode={mode}")
    oms = [tmp_path / "b.om", tmp_path / "a.om"]
    cells = {p: cell(graph, 16, "Gelu", precision=p, oms=oms) for p in ("fp16", "mix")}
    assert cells == {"fp16": "1 in the .om", "mix": "0 in the .om, where 1 was predicted"}


def test_gears_are_counted_each(graphs, tmp_path, monkeypatch):
    path = compiled(tmp_path / "model.om", dims=[16, -1], ops=["AttentionScore"], gears=[[64], [128]])
    facts = fusion.graph_facts(graphs / "ascend.onnx") | {"length": None}
    monkeypatch.setattr(fusion, "graph_facts", lambda _: facts)
    rows = fusion.fusion_report("x", oms=[path])["rows"]
    cells = {r["length"]: fusion.cell_text(r["AttentionScore"]) for r in rows}
    assert cells == {64: "1 in the .om", 128: "1 in the .om"}


def test_command_line(graphs):
    options = ["--chip", "710,Ascend310P1", "--batch_size", "1,16"]
    shown = module("tools.ascend.fusion", graphs / "ascend.onnx", *options)
    assert shown.returncode == 0, shown.stderr
    assert "prediction, not a measurement" in shown.stdout
    assert "| 310P3 | fp16 | 128 | 16 | 1 | 1 | 2: 1 of 3 are inside AttentionLnQKV | 1 |" in shown.stdout
    assert "0 of 1: AI cores of 310P1: 10" in shown.stdout
