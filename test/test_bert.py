"""The PyTorch classifier is transformers' own; its ONNX is the graph that ATC knows, and agrees with it."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import small
import torch
from onnx import numpy_helper

from tools.base import input_files
from tools.graph import encoder, export, gate
from tools.make import cli
from tools.source import architecture, tokens

BERT = ("input_ids", "attention_mask")
TINY = ("input_ids", "segment_ids", "input_mask")


MODELS = {"minilm_sst2": BERT, "tinybert_sst2": TINY}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{model: the checkpoint folder of a small one like it}."""
    return {like: small.checkpoint(tmp_path_factory.mktemp(like), like) for like in MODELS}


@pytest.fixture(scope="module", params=MODELS, ids=["bert", "tinybert"])
def case(request, folders):
    """(folder, module, inputs, arrays, onnx path) of one small model, exported once."""
    folder, inputs = folders[request.param], MODELS[request.param]
    module = export.load(folder)
    arrays = tokens.encode(tokens.load(folder), small.SENTENCES, 48, inputs)
    path = folder.parent / "model.onnx"
    assert export.export(module, path, inputs, arrays).max_abs < 1e-5
    return folder, module, inputs, arrays, path


AGAIN = """
import sys
from tools.graph import export
from tools.source import tokens
folder, path, *names = sys.argv[1:]
arrays = tokens.encode(tokens.load(folder), ["another sentence", "bleak"], 16, names)
export.export(export.load(folder), path, names, arrays)
"""


def test_logits_are_those_of_transformers(case):
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification

    folder, module, inputs, arrays, _ = case
    config = architecture.read_config(folder / "config.json")
    theirs = BertForSequenceClassification(BertConfig(**config)).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        feeds = {input_files.ROLES[n]: torch.from_numpy(a) for n, a in arrays.items()}
        pooled = theirs.bert(**feeds).pooler_output
        want = theirs.classifier(torch.relu(pooled) if inputs == TINY else pooled).numpy()
        assert (theirs.classifier(torch.relu(pooled)) - theirs.classifier(pooled)).abs().max() > 0.01
    np.testing.assert_allclose(export.logits(module, arrays), want, atol=2e-6)
    assert not module.training and {p.dtype for p in module.parameters()} == {torch.float32}


def test_graph_is_the_classic_one(case):
    _, _, inputs, _, path = case
    model = onnx.load(path)
    graph = model.graph
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 11)]
    assert [i.name for i in graph.input] == list(inputs)
    assert [o.name for o in graph.output] == ["output"]
    dims = [[d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in [*graph.input, *graph.output]]
    assert dims == [["batch", "length"]] * len(inputs) + [["batch", 2]]
    assert {i.type.tensor_type.elem_type for i in graph.input} == {onnx.TensorProto.INT64}

    enc = encoder.read_encoder(encoder.load(path).graph)
    assert (len(enc.layers), enc.mask_constant, enc.pad, enc.packed) == (2, -10000.0, None, False)
    assert [layer.scale for layer in enc.layers] == [pytest.approx(12**-0.5)] * 2
    nodes, maker = list(graph.node), {o: n for n in graph.node for o in n.output}
    count = lambda op: sum(n.op_type == op for n in nodes)
    assert not {n.op_type for n in nodes} & {"Where", "Expand", "Erfc", "LayerNormalization", "Trilu", "If", "Loop"}
    assert count("ReduceMean") == 2 * 5 and count("Sqrt") == 5 and count("Erf") == 2
    assert (count("Relu") == 1) == (inputs == TINY)
    for softmax in (n for n in nodes if n.op_type == "Softmax"):  # scores are divided, then the mask is added
        div = maker[maker[softmax.input[0]].input[0]]
        assert (div.op_type, maker[div.input[0]].op_type) == ("Div", "MatMul")
    for sqrt in (n for n in nodes if n.op_type == "Sqrt"):  # a LayerNorm's two uses of x - mean are one
        norm = next(n for n in nodes if sqrt.output[0] in n.input)
        power = maker[maker[maker[sqrt.input[0]].input[0]].input[0]]
        assert (norm.op_type, power.op_type) == ("Div", "Pow") and power.input[0] == norm.input[0]
    floats = [c for c in map(numpy_helper.to_array, graph.initializer) if c.dtype.kind == "f"]
    assert max(np.abs(c).max() for c in floats) <= 65504  # fp16 holds every constant


def test_same_bytes_anywhere(folders, case, tmp_path):
    """Of other sentences, in another process, locale and folder, by another name."""
    folder, _, inputs, _, path = case
    if inputs == BERT:
        (tmp_path / "other").symlink_to(folder, target_is_directory=True)
        environment = dict(os.environ, PYTHONPATH=str(small.ROOT), PYTHONHASHSEED="7", LC_ALL="C")
        words = [sys.executable, "-c", AGAIN, "other", "again.onnx", *inputs]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
        assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert not any(word in path.read_bytes() for word in (b"site-packages", b".py", b"/tmp", b"transformers"))


@pytest.mark.parametrize("damage, says", [(0.5, "NOT EQUAL"), (np.nan, "5 rows not finite")])
def test_a_graph_that_disagrees_is_not_written(case, tmp_path, monkeypatch, damage, says):
    _, module, inputs, arrays, _ = case
    right = export.to_onnx

    def wrong(*args):
        model = right(*args)
        bias = next(i for i in model.graph.initializer if i.name == "classifier.bias")
        bias.CopyFrom(numpy_helper.from_array(np.array([damage, 0], np.float32), bias.name))
        return model

    monkeypatch.setattr(export, "to_onnx", wrong)
    with pytest.raises(cli.UserError, match=says):
        export.export(module, tmp_path / "model.onnx", inputs, arrays)
    assert not list(tmp_path.iterdir())


def test_the_gate_knows_the_size_of_logits_and_ties():
    """Logits of 400 in fp32 differ by more than 1e-4 between two right runs, and a sentence tied to within that has no class."""
    want = np.array([[400.0, -400], [7, 7.0015]], np.float32)
    made = gate.judge(want, want + np.float32([[0.003, 0], [0.002, 0]]))
    assert made.ok and "0 flips, 1 tied within the limit (rows 1)" in made.line
    for largest, limit in ((1, 1e-4), (10, 1e-4), (20, 2e-4), (400, 4e-3)):
        want = np.float32([[largest, 0]])
        near, far = (gate.judge(want, want + np.float32([[0, share * limit]])).ok for share in (0.9, 1.2))
        assert near and not far, largest
    small = np.array([[1.0, -1], [0.5, 0.501]], np.float32)
    assert "2 flips (rows 0, 1)" in gate.judge(small, small[:, ::-1]).line
