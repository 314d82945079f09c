"""Certificates: the test that they rest on holds its level, what they refuse, what a run with one says."""

import json
import sys

import numpy as np
import pytest
import small
from conftest import edit_json, refused
from scipy.stats import binom

from tools.cpu import certify, engines
from tools.cpu.native import certificate, convert
from tools.graph import export
from tools.make import cli
from tools.scale import score
from tools.source import tokens

EPS, DRAWS, MANY = 0.02, 1000, 5000
# Of 1000 draws each with a chance of at most 5 %, more than this many come out in less than one of 1000 such tests.
TOLERATED = binom.ppf(0.999, DRAWS, 1 - certify.CONFIDENCE)


def crossing(rng):
    """Heads that are right less often where they are less sure: the true risk crosses eps between two numbers."""
    margins = rng.exponential(2, (MANY, 3))
    return margins, rng.random((MANY, 3)) < 0.5 * np.exp(-margins)


def at_the_edge(rng):
    """The worst case: at one number the risk jumps from nothing to just above eps."""
    number = np.arange(MANY)[:, None]
    return np.where(number < 0.9 * MANY, 6.0, rng.uniform(0, 6, (MANY, 1))), number < 1.01 * EPS * MANY


@pytest.mark.parametrize("population", [crossing, at_the_edge])
def test_at_most_one_draw_in_twenty_certifies_what_is_not_so(population):
    rng = np.random.default_rng(0)
    lost = certify.other_classes(*population(rng))
    risk, n = lost.mean(1), 2000
    assert risk.max() > EPS
    draws = rng.multinomial(n, np.full(MANY, 1 / MANY), DRAWS).astype(np.float32)
    counts = [certify.count_passing(drawn, n, EPS) for drawn in draws @ lost.T.astype(np.float32)]
    assert sum(count > 0 and risk[count - 1] > EPS for count in counts) <= TOLERATED and max(counts) > 0


def test_a_number_that_passes_by_luck_after_others_have_failed_certifies_nothing():
    counts = np.random.default_rng(0).binomial(1000, 1.1 * EPS, (DRAWS, 40))
    assert sum(certify.count_passing(c, 1000, EPS) > 0 for c in counts) <= TOLERATED


def test_as_many_texts_as_are_said_to_be_needed_suffice():
    for eps in (0.0001, 0.005, 0.01, 0.09):
        n = certify.texts_needed(eps)
        assert [certify.count_passing(np.array([0]), texts, eps) for texts in (n - 1, n)] == [0, 1]


def test_a_share_is_unlike_where_chance_alone_hardly_explains_it():
    facts = {"eps": 0.005, "confidence": 0.95, "texts": "", "calibrated": 1000, "differ": 0, "left": [100, 500, 400]}
    runs = [np.random.default_rng(k).multinomial(1 + k % 900, [0.1, 0.5, 0.4]) for k in range(0, 900, 3)]
    assert sum(certificate.facts_of_run(facts, run)["claimed"] for run in runs) >= 297
    other = certificate.facts_of_run(facts, [300, 500, 100])
    assert other["unlike"] == [1, 3] and not other["claimed"] and "NOT for these texts" in certificate.in_words(other)
    assert certificate.facts_of_run(facts, [0, 0, 0])["claimed"]


@pytest.fixture(scope="module")
def box(tmp_path_factory, native_library):
    if not native_library:
        pytest.skip("gcc is needed to build the engine")
    at = tmp_path_factory.mktemp("certify")
    checkpoint = small.checkpoint(at, num_hidden_layers=3)
    arrays = tokens.encode(tokens.load(checkpoint), ["good film"], 16)
    export.export(export.load(checkpoint), at / "m.onnx", tuple(arrays), arrays)
    convert.convert(at / "m.onnx", at / "model.native", "fp32")
    rng = np.random.default_rng(0)
    words = ["slow", "very", "bleak", "charming", "journey", "music"]
    texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(900)]
    (at / "texts.tsv").write_text("sentence\n" + "\n".join(texts) + "\n")
    return at


@pytest.fixture
def run(box, monkeypatch, capsys, native_library):
    """run(percent, *options): what the script prints, in this process."""
    monkeypatch.setenv("BERT2OM_NATIVE", str(native_library))

    def run(percent, *words):
        words = ["--model", box / "model.native", "--texts", box / "texts.tsv", "--percent", percent, *words]
        words += ["--checkpoint", box / "checkpoint", "--save_path", box / "certificate.json"]
        monkeypatch.setattr(sys, "argv", ["certify.py", *map(str, words)])
        certify.main()
        return capsys.readouterr().out

    return run


def test_too_few_texts_and_tasks_without_a_class_are_refused(run):
    refused("needs 5990, half of them to fit", run, 0.1)
    refused("one class a text", run, 5, "--task", "score")


def test_a_certificate_from_texts_to_a_scored_file(box, run, monkeypatch, capsys):
    """The manifest says what is guaranteed; RERUN's graph is the last word; a damaged certificate is refused."""
    assert "texts get another class; left after each layer" in run(5)
    facts = certificate.read_certificate(box / "certificate.json")
    assert facts["calibrated"] + facts["fitted"] == len(set((box / "texts.tsv").read_text().splitlines())) - 1
    assert binom.cdf(facts["differ"], facts["calibrated"], 0.05) <= 0.05 and sum(facts["left"]) == facts["calibrated"]

    def scored(name, text, *words):
        (box / name).write_text(text)
        words = [box / "certificate.json", "--tokenizer_path", box / "checkpoint", "--input", box / name, *words]
        words += ["--save_path", box / f"{name}.parts"]
        monkeypatch.setattr(sys, "argv", ["score.py", "--model", *map(str, words)])
        score.main()
        manifest = json.loads((box / f"{name}.parts/_manifest.json").read_text())
        return manifest["config"]["certificate"], manifest["certified"], capsys.readouterr().out

    text = (box / "texts.tsv").read_text()
    config, run_facts, out = scored("same.tsv", text)
    assert run_facts["claimed"] and sum(run_facts["left"]) == facts["calibrated"] + facts["fitted"]
    assert "certified: at most 5 %" in out
    assert config["texts"] == cli.sha256(box / "texts.tsv") == run_facts["texts"] and "heads" not in config
    again = scored("again.tsv", text, "--rerun", box / "m.onnx", "--margin", 1e9)
    assert f"{sum(run_facts['left'])} of" in again[2]
    good = (box / "certificate.json").read_text()
    for old, new in (('"eps": 0.05', '"eps": 2'), ('"left": [', '"left": [0.5, '), (facts["model"], "0" * 64)):
        (box / "certificate.json").write_text(good.replace(old, new))
        refused("not a certificate of", certificate.read_certificate, box / "certificate.json")
    edit_json(box / "certificate.json", **json.loads(good) | {"heads": facts["heads"].tolist()[:1], "left": [1, 1]})
    refused(r"heads of the shape \(1, 2, 97\), not \(2, 2, 97\)", engines.load, box / "certificate.json")
    (box / "certificate.json").write_text(good + " " * cli.LARGEST)  # as with the heads of many classes
    assert certificate.read_certificate(box / "certificate.json")["differ"] == facts["differ"]
    (box / "certificate.json").write_text(good)


def test_a_small_bound_gets_all_the_texts_that_it_needs(run, monkeypatch, box):
    """More of them are counted than heads are fitted to."""
    monkeypatch.setattr(certify, "MOST", 400)
    run(1)
    facts = certificate.read_certificate(box / "certificate.json")
    assert (facts["fitted"], facts["calibrated"], facts["differ"]) == (200, certify.texts_needed(0.01), 0)
    with pytest.raises(SystemExit, match="2"):
        run(0)
