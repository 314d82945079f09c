"""rewrite.py, encoder.py, gate.py: graphs of several origins, rewritten and held to the original."""

import functools
import re

import bert_graphs
import numpy as np
import onnx
import onnxsim
import pytest
from bert_graphs import HEADS, HIDDEN, LAYERS, LENGTH, NAMES, bert, export
from conftest import fails, module, refused
from onnx import helper, numpy_helper

from tools.ascend import sites
from tools.base import input_files
from tools.graph import encoder, gate, rewrite


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    get = functools.cache(lambda kind: build(kind, folder / f"{kind}.onnx", get))
    return get


def build(kind, path, get):
    """One of the graphs under test, each a different way in which BERT comes out of its tools."""
    match kind:
        case "raw" | "opset16":
            return export(path, bert(), opset=16 if kind == "opset16" else 11)
        case "one_layer":
            return export(path, bert(1))
        case "tinybert_inputs":
            return export(path, bert(), names=["input_ids", "segment_ids", "input_mask"])
        case "finfo_min" | "minus_inf" | "full_rows":
            return export(path, bert(), mask=getattr(bert_graphs, kind))
        case "static" | "seeded":  # as transformers starts: zero biases, which onnxsim drops
            raw = get("raw") if kind == "static" else export(path, bert(trained=False))
            graph, _ = onnxsim.simplify(onnx.load(raw), overwrite_input_shapes={n: [4, LENGTH] for n in NAMES})
        case "bucketed":
            graph = onnx.load(get("raw"))
            for value in graph.graph.input:
                value.type.tensor_type.shape.dim[0].dim_value = 4
            graph, _ = onnxsim.simplify(graph)
        case _:
            graph = {"anonymous": anonymous, "div_scale": div_scale, "two_subs": two_subs}[kind](onnx.load(get("raw")))
    onnx.save(graph, path)
    return path


def producers(model):
    return {out: n for n in model.graph.node for out in n.output}


def anonymous(model):
    """Every node and inner value renamed to a number, as exporters without scopes do."""
    keep = {v.name for v in [*model.graph.input, *model.graph.output]}
    new = {}
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                if name and name not in keep:
                    names[k] = new.setdefault(name, str(len(new)))
    for value in model.graph.initializer:
        value.name = new.get(value.name, value.name)
    del model.graph.value_info[:]
    return model


def div_scale(model):
    """scores / c in place of scores * (1/c), as transformers 4 wrote it."""
    product = producers(model)
    for add in [product[n.input[0]] for n in model.graph.node if n.op_type == "Softmax"]:
        node = product[add.input[0]]
        tensor = product[node.input[1]].attribute[0]
        node.op_type = "Div"
        tensor.t.CopyFrom(numpy_helper.from_array(np.float32(1) / numpy_helper.to_array(tensor.t)))
    return model


def two_subs(model):
    """LayerNorm with x - mean computed twice, as TinyBERT's own class does."""
    product = producers(model)
    for i, node in enumerate([n for n in model.graph.node if n.op_type == "Pow"]):
        sub = product[node.input[0]]
        twin = helper.make_node("Sub", list(sub.input), [f"twin_{i}"], name=f"twin_{i}")
        model.graph.node.insert(list(model.graph.node).index(node), twin)
        node.input[0] = f"twin_{i}"
    return model


KINDS = [
    "raw", "one_layer", "tinybert_inputs", "opset16", "finfo_min", "minus_inf", "full_rows", "static", "bucketed", "seeded",
    "anonymous", "div_scale", "two_subs",
]  # fmt: skip


def rows(graph, n=9, seed=1):
    pick = np.random.default_rng(seed)
    names = [v.name for v in onnx.load(graph).graph.input]
    ends = np.r_[pick.integers(1, LENGTH + 1, n - 1), 0]
    mask = (np.arange(LENGTH) < ends[:, None]).astype(np.int64)
    ids = pick.integers(1, 100, (n, LENGTH), dtype=np.int64) * mask
    types = pick.integers(0, 2, (n, LENGTH), dtype=np.int64) * mask
    return {name: mask if "mask" in name else types if "segment" in name else ids for name in names}


@pytest.fixture(scope="session")
def rewritten(graphs, tmp_path_factory):
    """(kind, target) -> (the rewritten graph, what was said of it), each made once."""
    folder = tmp_path_factory.mktemp("rewritten")

    @functools.cache
    def get(kind, target="ascend"):
        path = folder / f"{kind}-{target}.onnx"
        return path, rewrite.modify(graphs(kind), path, target)

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_ascend_form(rewritten, kind):
    """What CANN's passes ask of the graph, for every origin, and one mask for all layers."""
    path, said = rewritten(kind)
    layers = 1 if kind == "one_layer" else LAYERS
    assert said.count(f": attention {HEADS} x {HIDDEN // HEADS}, ") == layers
    counts = {"AttentionScore": layers, "AttentionLnQKV": layers, "LayerNorm": 1 + 2 * layers, "Gelu": layers}
    assert sites.graph_facts(path)["sites"] == {name: [None] * count for name, count in counts.items()}
    model = encoder.load(path)
    enc = encoder.read_encoder(model.graph)
    assert [layer.scale for layer in enc.layers] == [pytest.approx(1 / np.sqrt(HIDDEN // HEADS))] * layers
    assert enc.mask_constant == -10000 and {v.dtype.name for v in model.graph.inputs} == {"INT64"}
    (mask,) = {layer.mask.producer() for layer in enc.layers}
    if kind in ("static", "seeded"):
        assert encoder.const(mask.inputs[1]).tolist() == [4, 1, LENGTH, LENGTH]
    if kind == "bucketed":  # the length from an input's shape
        batch, one, *length = mask.inputs[1].producer().inputs
        assert (encoder.scalar(batch), encoder.scalar(one)) == (4, 1)
        assert [v.producer().op_type for v in length] == ["Gather", "Gather"]


@pytest.mark.parametrize("target", ["ascend", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_logits_as_before(graphs, rewritten, kind, target):
    """The gate again, on other rows, and padding rows finite; no constant that fp16 cannot hold; rows do differ."""
    path, said = rewritten(kind, target)
    inputs = rows(graphs(kind))
    result = gate.compare(str(graphs(kind)), str(path), inputs)
    assert result.ok, result.line
    assert np.ptp(gate.logits(str(path), inputs), axis=0).max() > 0.1
    assert ("constant -3.4" in said) == (kind == "finfo_min") and ("constant -inf" in said) == (kind == "minus_inf")
    floats = [t for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(np.abs(numpy_helper.to_array(t)).max() for t in floats) <= 65504


def test_same_bytes_in_any_folder_and_not_twice(graphs, rewritten, tmp_path):
    rewrite.modify(graphs("static"), tmp_path / "b c" / "y.onnx")
    first = rewritten("static")[0]
    assert (tmp_path / "b c" / "y.onnx").read_bytes() == first.read_bytes()
    model = onnx.load(first)
    assert not model.doc_string
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)
    assert str(tmp_path).encode() not in first.read_bytes()
    refused("already has a node", rewrite.modify, first, tmp_path / "twice.onnx")


def nth(model, op, i):
    return [n for n in model.graph.node if n.op_type == op][i]


def retyped(op, i, other):
    return lambda model: setattr(nth(model, op, i), "op_type", other)


def key_perm(model):
    nth(model, "Transpose", 2).attribute[0].ints[:] = [0, 2, 1, 3]


def no_mask(model):
    softmax = nth(model, "Softmax", 1)
    softmax.input[0] = producers(model)[softmax.input[0]].input[0]


def inverted_mask(model):
    """A mask that hides what it should show: the form matches, only numbers can tell."""
    sub = nth(model, "Sub", 0)
    sub.input[:] = list(sub.input)[::-1]


@pytest.mark.parametrize(("change", "says"), [
    (retyped("Erf", 1, "Tanh"), "layer 1: Gelu"),
    (retyped("Sqrt", 3, "Exp"), "layer 1: attention LayerNorm"),
    (retyped("Pow", 0, "Mul"), "layer 0: embedding LayerNorm"),
    (key_perm, "layer 0: key"),
    (no_mask, "layer 1: mask"),
    (inverted_mask, "NOT EQUAL"),
])  # fmt: skip
def test_unmatched_piece_is_named(graphs, tmp_path, change, says):
    change(model := onnx.load(graphs("raw")))
    onnx.save(model, tmp_path / "bad.onnx")
    refused(says, rewrite.modify, tmp_path / "bad.onnx", tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def write_rows(folder, inputs):
    for name, table in inputs.items():
        (folder / name).mkdir(parents=True)
        for i, row in enumerate(table):
            (folder / name / f"{i + 1}.bin").write_bytes(row.tobytes())
    return folder


def test_inputs_come_in_natural_order_longest_first_when_limited(graphs, tmp_path):
    inputs = rows(graphs("raw"), 12)
    write_rows(tmp_path, inputs)
    got = input_files.load_inputs(tmp_path, NAMES)
    assert all((got[n] == inputs[n]).all() for n in NAMES)
    few = input_files.load_inputs(tmp_path, NAMES, 3)
    assert input_files.lengths(few).tolist() == sorted(input_files.lengths(inputs))[::-1][:3]
    for path in (tmp_path / "input_ids").iterdir():
        path.unlink()
    refused("no .bin", input_files.load_inputs, tmp_path, NAMES)
    (tmp_path / "attention_mask").rename(tmp_path / "x")
    refused("no such folder", input_files.load_inputs, tmp_path, NAMES)


def test_gate_command(graphs, tmp_path):
    """Two graphs, one of a batch of 4, whose last is filled up; a graph or its kept logits and a folder of outputs."""
    folder, kept, raw = tmp_path / "out", tmp_path / "kept.npy", graphs("raw")
    inputs = ("--input", write_rows(tmp_path / "in", rows(raw)))
    same = module("tools.graph.gate", raw, graphs("static"), *inputs, "--rows", 5)
    assert (same.returncode, same.stdout.count("\n")) == (0, 1) and "over 5 rows" in same.stdout
    fails(module("tools.graph.gate", raw, graphs("one_layer"), *inputs), "NOT EQUAL")
    folder.mkdir()
    for i, two in enumerate(gate.logits(str(raw), rows(raw)), 1):
        two.tofile(folder / f"{i}_0.bin")
    some = ("--rows", 3)
    assert module("tools.graph.gate", raw, *inputs, "--save_path", kept, *some).returncode == 0
    for reference in (raw, kept):
        outputs = module("tools.graph.gate", reference, folder, *inputs, *some)
        assert outputs.returncode == 0 and "difference| 0.00e+00" in outputs.stdout, outputs.stderr
    (folder / "8_0.bin").unlink()
    fails(module("tools.graph.gate", raw, folder, *inputs), "8_0.bin (or .npy, .txt): missing")


def test_simplify_writes_what_onnxsim_writes(graphs, tmp_path):
    write_rows(tmp_path / "in", rows(graphs("raw")))
    shape = ["--overwrite-input-shape", *(f"{name}:4,-1" for name in NAMES)]
    assert module("onnxsim", graphs("raw"), tmp_path / "cli.onnx", *shape).returncode == 0
    done = module("tools.graph.simplify", graphs("raw"), tmp_path / "ours.onnx", *shape, "--input", tmp_path / "in")
    assert re.search(r"nodes became \d+\ngate: equal: .* over 9 rows", done.stdout), done.stdout
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "cli.onnx").read_bytes()
