"""Checkpoints as people have them: each is read as transformers reads it, or refused by one line that says why."""

import json
import shutil

import numpy as np
import pytest
import small
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from tools.graph import export
from tools.make import cli
from tools.recipe import pth2onnx
from tools.source import architecture, checkpoint, tensors, tokenizer, tokens

TEXTS = ["Café naïve Ångström cafe\u0301", "a film 你好 great", "HOPE @user 😀 [MASK]", "x" * 101, "it 's slow"]
# A config.json that is another architecture, or says what no graph here computes, and the reason that is given.
OTHERS = {
    "MPNetForSequenceClassification of model_type mpnet, which takes a bias by distance": {
        "architectures": ["MPNetForSequenceClassification"],
        "model_type": "mpnet",
    },
    "of no name of model_type gpt2; read here are bert, tinybert": {"architectures": None, "model_type": "gpt2"},
    "BertForTokenClassification gives a label for each token": {"architectures": ["BertForTokenClassification"]},
    "its weights are quantised .*bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "is_decoder is true": {"is_decoder": True},
    "hidden_act is 'swish'": {"hidden_act": "swish"},
    "problem_type is multi_label_classification: several labels": {"problem_type": "multi_label_classification"},
    "the labels are L0, L1, L2; the task's are negative, positive": {"id2label": {i: f"L{i}" for i in range(3)}},
    "the labels are NEGATIVE, NEUTRAL": {"id2label": {0: "NEGATIVE", 1: "NEUTRAL"}},
    "label2id .* turned round": {"label2id": {"negative": 1, "positive": 0}},
    "not a name for each of 0, 1": {"id2label": {"0": "a", "2": "b"}},
    "fine-tuned on mrpc, a pair of texts a row; this task has one text": {"finetuning_task": "mrpc"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(the model's folder, a checkpoint folder as transformers saves it) of a small BERT classifier."""
    box = tmp_path_factory.mktemp("whole")
    made = small.checkpoint(box)
    return box / "model", made


@pytest.fixture
def given(whole, tmp_path):
    """(the model's folder, a copy of its checkpoint to change, read(): what is made of it)."""
    shutil.copytree(whole[1], tmp_path / "given")

    def read():
        checkpoint.make(str(tmp_path / "given"), whole[0], None, tmp_path / "out")
        return load_file(tmp_path / "out/model.safetensors")

    return tmp_path / "given", read


def edit(path, **values):
    path.write_text(json.dumps((cli.read_json(path) if path.exists() else {}) | values))


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# --- tensors ----------------------------------------------------------------------------------------------------------
FORMS = {
    "shards": lambda folder, t: sharded(folder, t, "model", ".safetensors", save_file),
    "shards of .bin": lambda folder, t: sharded(folder, t, "pytorch_model", ".bin", save_bin),
    "_orig_mod.": lambda folder, t: save_file(
        {f"_orig_mod.module.{n}": v for n, v in t.items()}, folder / "model.safetensors"
    ),
    "old names, fit_denses": lambda folder, t: save_bin(
        {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for n, v in t.items()},
        folder / "pytorch_model.bin",
    ),
}  # fmt: skip


def save_bin(t, path):
    torch.save({name: torch.from_numpy(array) for name, array in t.items()}, path)


def sharded(folder, t, stem, suffix, save):
    parts = {f"{stem}-{i:05}-of-00002{suffix}": dict(list(t.items())[i - 1 :: 2]) for i in (1, 2)}
    for name, part in parts.items():
        save(part, folder / name)
    table = {name: file for file, part in parts.items() for name in part}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_tensors(given, form):
    folder, read = given
    want = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    FORMS[form](folder, want)
    same(read(), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_formats_of_safetensors(given, dtype):
    from safetensors.torch import save_file as save_torch

    folder, read = given
    halved = {n: torch.from_numpy(t).to(dtype) for n, t in load_file(folder / "model.safetensors").items()}
    save_torch(halved, folder / "model.safetensors")
    same(read(), {n: t.float().numpy() for n, t in halved.items()})


def test_shards_stay_in_their_folder_and_are_all_there(given):
    folder, read = given
    want = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(want, "../outside.safetensors")}))
    with pytest.raises(cli.UserError, match="weight_map is no table of tensors and file names"):
        read()
    index.write_text(json.dumps({"weight_map": dict.fromkeys(want, "model-1.safetensors")}))
    with pytest.raises(cli.UserError, match=r"1 of 1 shards are missing, as model-1.safetensors"):
        read()


def test_a_git_lfs_pointer_is_named_with_the_command(given):
    folder, read = given
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 433\n")
        with pytest.raises(cli.UserError, match=f"Git LFS pointer.*`git -C .*given lfs pull --include {name}`"):
            read()
        (folder / name).write_bytes(kept)


INSTEAD = {  # of weights that are read here, and what is said of it
    ("adapter_model.safetensors", "adapter_config.json"): "adapter_config.json is an adapter .PEFT. without its model",
    ("tf_model.h5",): "tf_model.h5 is TensorFlow's weights",
    ("onnx/model.onnx",): "onnx/model.onnx is a ready ONNX graph",
    ("openvino_model.bin", "openvino_model.xml"): "openvino_model.xml is a ready OpenVINO graph",
    ("flax_model.msgpack",): "flax_model.msgpack is Flax's weights",
    ("bert_model.ckpt.index", "bert_model.ckpt.meta"): "bert_model.ckpt.index is TensorFlow 1's checkpoint",
    ("model-Q8_0.gguf",): "model-Q8_0.gguf is a GGUF file, which is quantised",
    ("traced_model.pt",): "traced_model.pt is a .pt file, TorchScript",
    ("model.fp16.safetensors",): "model.fp16.safetensors is tensors under another name",
    ("training_args.bin",): "training_args.bin is a trainer's arguments, no weights",
    ("below/model.safetensors",): "no weights there, but in .*below; name that folder",
    (): "no weights there .looked for model.safetensors, ",
}


@pytest.mark.parametrize("names", INSTEAD)
def test_what_is_there_in_place_of_weights_is_named(given, names):
    """With a config.json and, as an adapter has it or the folder above, without; of an adapter's zip, too."""
    folder, read = given
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    for gone in ("model.safetensors", "config.json"):
        (folder / gone).unlink()
        with pytest.raises(cli.UserError, match=INSTEAD[names]) as e:
            read()
        assert "\n" not in str(e.value)
    if "adapter_config.json" in names:
        shutil.make_archive(folder, "zip", folder)
        with pytest.raises(cli.UserError, match=f"given.zip: .*{INSTEAD[names]}"):
            checkpoint.read_checkpoint(checkpoint.source_folder(f"{folder}.zip", None, None, folder.parent / "box"))


def test_an_adapter_beside_whole_weights_is_refused(given):
    """Which of the two is meant, the folder does not say."""
    folder, read = given
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(cli.UserError, match="whole weights and an adapter; remove adapter_config.json"):
        read()


def fewer(names):
    return lambda t: [t.pop(name) for name in [n for n in t if n.startswith(names)]]


def as_float8(t):
    import ml_dtypes

    t["classifier.weight"] = t["classifier.weight"].astype(ml_dtypes.float8_e4m3fn)


def as_another_family(t):
    for name in list(t):
        if "attention.self" in name:
            t[name.replace("attention.self.query", "attention.attn.q")] = t.pop(name)


@pytest.mark.parametrize("change, says", [
    (fewer("classifier."), "an encoder without a classifier"),
    (fewer(("classifier.", "bert.pooler")), "an encoder without a classifier"),
    (fewer("bert.encoder.layer.1.output"), "is config.json its own"),
    (as_another_family, "others are there, as bert.encoder.layer.0.attention.attn.q.weight: is it of this family, bert"),
    (as_float8, "quantised, classifier.weight is of 8 bits or fewer; take the checkpoint that it was made from"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_named(given, change, says):
    folder, read = given
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")
    with pytest.raises(cli.UserError, match=says):
        read()


def test_what_pytorch_quantised_is_named(given):
    """A state_dict() of its dynamic quantisation, which is a table all the same."""
    folder, read = given
    (folder / "model.safetensors").unlink()
    parts = {"classifier.scale": torch.tensor(1.0), "classifier._packed_params.dtype": torch.qint8}
    torch.save(parts, folder / "pytorch_model.bin")
    with pytest.raises(cli.UserError, match="quantised, by PyTorch; take the checkpoint that it was made from"):
        read()


@pytest.mark.parametrize("names", [["BertForMaskedLM"], ["BertModel"], ["AnythingForSequenceClassification"], None])
def test_the_tensors_decide_and_not_a_class_name(given, names):
    """With a head of its training left in, too."""
    folder, read = given
    edit(folder / "config.json", architectures=names, model_type=None)
    want = load_file(folder / "model.safetensors")
    save_file(want | {"cls.predictions.bias": np.zeros(3, np.float32)}, folder / "model.safetensors")
    same(read(), want)


def test_weights_that_no_onnx_file_holds_are_refused_before_they_are_read(given, monkeypatch):
    folder, read = given
    monkeypatch.setattr(checkpoint, "LARGEST", 200_000)
    monkeypatch.setattr(tensors, "read_tensors", lambda folder: pytest.fail("the weights were read"))
    for step in (lambda: checkpoint.read_checkpoint(folder), read):
        with pytest.raises(cli.UserError, match="its weights are 0.00 GiB in fp32, and one .onnx file, .* holds 2"):
            step()
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
@pytest.mark.parametrize("says", OTHERS)
def test_what_is_not_read_is_refused_for_its_true_reason(given, says):
    folder, read = given
    if "id2label" in OTHERS[says]:
        edit(folder / "config.json", label2id=None)
    edit(folder / "config.json", **OTHERS[says])
    with pytest.raises(cli.UserError, match=says) as e:
        read()
    assert "\n" not in str(e.value) and not (folder.parent / "out").exists()


@pytest.mark.parametrize("names, turned", [
    ({"0": "POSITIVE", "1": "NEGATIVE"}, True), ({"0": "pos", "1": "neg"}, True), ({"0": "NEGATIVE", "1": "POSITIVE"}, False),
    ({"0": "LABEL_0", "1": "LABEL_1"}, False), (None, False)])  # fmt: skip
def test_labels_go_by_name(given, names, turned):
    """Whatever order a checkpoint has its classes in, output 0 of every graph is the task's class 0; numbers may be texts."""
    folder, read = given
    edit(folder / "config.json", id2label=names, label2id={name: number for number, name in (names or {}).items()})
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
    with pytest.raises(cli.UserError, match="64 positions, fewer than SEQ=128; give SEQ=64 or less"):
        tokens.fit(folder, 128)
    assert tokens.fit(folder, 128, cut=True) == 64
    edit(folder / "tokenizer_config.json", model_max_length=16)
    assert tokens.fit(folder, 128, cut=True) == 16
    assert tokens.fit(folder.parent, 128) == 128
    edit(folder / "tokenizer_config.json", model_max_length=-5)
    assert "model_max_length" not in tokenizer.convert(folder)[1]


# --- the tokenizer ----------------------------------------------------------------------------------------------------
def holes(folder):
    """tokenizer.json alone, of a vocabulary whose ids are not all in use."""
    table = cli.read_json(folder / "tokenizer.json")
    table["model"]["vocab"] = {p: i + 2 * (i > 30) for p, i in table["model"]["vocab"].items() if i < 300}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    (folder / "vocab.txt").unlink()


def silent(folder, **flags):
    """vocab.txt and tokenizer_config.json alone."""
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", **flags)


def flagged(folder, **flags):
    """Both files, which agree."""
    edit(folder / "tokenizer_config.json", **flags)
    table = cli.read_json(folder / "tokenizer.json")
    table["normalizer"] |= {tokenizer.FLAGS[name][0]: value for name, value in flags.items()}
    (folder / "tokenizer.json").write_text(json.dumps(table))


def added(folder):
    """A token that was added after pretraining."""
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


TOKENIZERS = {
    "holes": holes,
    "a length inside": padded,
    "cased": lambda f: flagged(f, do_lower_case=False),
    "cased, as tokenizer_config.json alone says": lambda f: edit(f / "tokenizer_config.json", do_lower_case=False),
    "accents kept": lambda f: flagged(f, strip_accents=False),
    "cased vocab.txt, Chinese not split": lambda f: silent(
        f, do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False
    ),
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
    tokenizer.build(tokenizer.read_vocab(folder / "vocab.txt")).save(str(folder / "tokenizer.json"))
    TOKENIZERS[form](folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    want = theirs(TEXTS, truncation=True, max_length=64)["input_ids"]
    read()
    for place in (folder, folder.parent / "out"):
        rows = tokens.encode_unpadded(tokens.load(place), TEXTS, 64)["input_ids"]
        assert [row.tolist() for row in rows] == want, place
    padding = tokens.encode(tokens.load(folder.parent / "out"), ["a"], 64)["input_ids"][0, -1]
    assert padding == theirs.pad_token_id


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(given):
    folder, read = given
    edit(folder / "tokenizer_config.json", do_lower_case=True)
    table = cli.read_json(folder / "tokenizer.json")
    table["normalizer"]["clean_text"] = False
    (folder / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(
        cli.UserError, match="tokenizer.json gives other ids than BertTokenizer of transformers, as of 'nul"
    ):
        read()
    edit(folder / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(cli.UserError, match="not a tokenizer|Python code"):
        read()


def test_the_tokenizer_is_tried_apart_first(given, monkeypatch):
    _, read = given

    def too_much(folder):
        raise cli.UserError(f"{folder}: its tokenizer takes more than it may")

    monkeypatch.setattr(tokenizer, "try_out", too_much)
    monkeypatch.setattr(tokenizer, "convert", lambda *_: pytest.fail("it was read here"))
    with pytest.raises(cli.UserError, match="takes more than it may"):
        read()


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
    with pytest.raises(cli.UserError, match="in transformers"):
        pth2onnx.pth2onnx("", ("input_ids", "attention_mask"), words)
    assert not (folder.parent / "m.onnx").exists()
