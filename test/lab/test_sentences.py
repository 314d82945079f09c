"""lab/sentences.py: the committed edit scripts, and how they were made."""

import hashlib

from conftest import refused
from hypothesis import example, given
from hypothesis import strategies as st

from lab import sentences as edits_of
from tools.make import cli
from tools.source import data


def test_calibration_is_apart_from_dev(dev, snippets):
    want, made = data.rebuild(cli.ROOT / "data/calibration.edits", snippets)
    assert hashlib.sha256(made).hexdigest() == want
    rows = [line.split("\t") for line in made.decode().splitlines()[1:]]
    sentences = [edits_of.letters(row[0]) for row in rows]
    known = [edits_of.letters(sentence) for sentence in data.read_tsv(dev)[0]]
    assert len(set(sentences)) == 512
    assert all(row[0].endswith(" ") for row in rows)
    assert not any(a in b or b in a for a in sentences for b in known)
    lengths = sorted(len(row[0].split()) for row in rows)
    validation = sorted(len(sentence.split()) for sentence in data.read_tsv(dev)[0])
    assert abs(lengths[256] - validation[436]) <= 1


def test_derive_then_rebuild(dev, snippets, tmp_path):
    rows = dev.read_bytes().splitlines(keepends=True)
    some, edits = tmp_path / "some.tsv", tmp_path / "some.edits"
    some.write_bytes(b"".join([rows[0], *rows[1:60:3]]))
    edits.write_text(edits_of.derive(some, snippets), "utf-8")
    assert data.rebuild(edits, snippets) == (cli.sha256(some), some.read_bytes())
    some.write_text("sentence\tlabel\nzxqv wvut srqp onml\t1\n")
    refused("some.tsv:2: this sentence lies in no snippet", edits_of.derive, some, snippets)


TEXT = st.text("ab19 _<>=é'", max_size=30)


@given(TEXT, TEXT)
@example("a bc", "1<2>_=")
def test_any_difference_edits_back(snippet, sentence):
    _, start, edits = edits_of.difference(snippet, sentence)
    assert data.edit(edits, start, snippet) == sentence


def test_choose_leaves_validation_sentences_out(tmp_path):
    texts = ("A fine film.", "A dull film. Truly.", "Warm and wise.", "Old hat.")
    snippets = [data.spell_canonical(text) for text in texts]
    edits, train = tmp_path / "dev.edits", tmp_path / "train.tsv"
    text = data.tsv_bytes([("a dull film . ", 0)])
    edits.write_text(f"sha256 {hashlib.sha256(text).hexdigest()} rows 1\n0 2 0 14\n")
    rows = [("a fine film . ", 1), ("fine film . ", 1), ("truly . ", 1), ("warm and ", 1), ("old hat . ", 0)]
    train.write_bytes(data.tsv_bytes(rows))
    assert sorted(edits_of.choose(train, edits, snippets, 2)) == [("a fine film . ", 1), ("old hat . ", 0)]
    refused("only 2 rows fit, not 3", edits_of.choose, train, edits, snippets, 3)
