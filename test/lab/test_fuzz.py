"""The short run of fuzz.py: the same targets, fewer inputs, the same each time and on each machine."""

import json
import re
import subprocess
import sys

import pytest

from lab import corpus, fuzz


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return corpus.good(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_any_bytes_are_read_or_refused_in_one_line(target, folder):
    tally = fuzz.run(target, folder, 150, 1)
    assert tally["inputs"] >= 100 and tally["refused"] > 0


@pytest.mark.parametrize("target, change", [
    ("config", lambda b: json.dumps(json.loads(b) | {"hidden_act": 0}).encode()),
    ("bench", lambda b: re.sub(rb'"cpu": "[^"]*"', b'"cpu": null', b, count=1)),
    ("csv", lambda b: b'"\nentence",n\na,1\n'),
])  # fmt: skip
def test_what_fuzz_has_found_is_refused_in_one_line(target, change, folder):
    path = folder / fuzz.TARGETS[target][1]
    sound = path.read_bytes()
    assert not fuzz.check(target, folder, change(sound)) and fuzz.check(target, folder, sound)


def test_make_fuzz_runs_it_and_says_how_many_inputs_each_parser_saw(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "lab.fuzz", "--runs", "50", "pins", "--save_path", tmp_path / "x"]
    done = subprocess.run(command, cwd=corpus.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"pins +50 inputs, \d+ refused, 0 failures, .*\n", done.stdout)
    assert ' refused in one line, the others read, by 1 parser",,' in (tmp_path / "x").read_text()


def test_a_parser_that_breaks_is_found(folder, monkeypatch):
    careless = lambda path: int(path.read_bytes()[:1] or b"0", 16)
    monkeypatch.setitem(fuzz.TARGETS, "careless", (careless, "careless", "dev.tsv"))
    with pytest.raises(ValueError, match="invalid literal"):
        fuzz.run("careless", folder, 150, 1)
