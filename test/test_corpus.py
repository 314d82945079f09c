"""Every malformed input of corpus.py: one line that names the file and what to do, exit 1 or 2, nothing left behind."""

import runpy
import subprocess
import sys
import traceback

import pytest
from conftest import ROOT

from lab import corpus
from tools.make import cli, makefile


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    return corpus.good(tmp_path_factory.mktemp("good"))


def here(folder) -> dict[str, str | None]:
    """Every file with its hash, every folder."""
    hashed = lambda p: p.stat().st_size if p.stat().st_size >= corpus.HOLE else cli.sha256(p)
    return {str(p.relative_to(folder)): hashed(p) if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """run(words): (status, stdout, stderr) of a script in this process, as `python -m MODULE WORDS` or a script gives them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(words):
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        script = words[0].endswith(".py")
        status = 0
        try:
            start = runpy.run_path if script else runpy.run_module
            start(str(corpus.ROOT / words[0]) if script else words[0], run_name="__main__")
        except SystemExit as e:  # what the interpreter does with it
            status = e.code or 0
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        return status, *capfd.readouterr()

    return run


@pytest.mark.parametrize("kind", corpus.COMMANDS)
def test_the_good_one_is_taken(kind, good, tmp_path, run):
    """So that what is refused below is refused for the change."""
    case = corpus.Case(kind, corpus.COMMANDS[kind][0][0], lambda b: b, "")
    if (good / case.file).is_dir():
        case = case._replace(file=str(next(p for p in (good / case.file).rglob("*") if p.is_file()).relative_to(good)))
    status, _, err = run(corpus.spoil(case, good, tmp_path))
    expected = dict.fromkeys(("edits", "archive"), "sha256 is") | {"pins": "some.whl: ", "promote": "is gone"}
    assert (expected[kind] in err) if kind in expected else status == 0, err


NUMBERED = [pytest.param(c, id=f"{c.kind}-{c.file.split('/')[-1]}-{i}") for i, c in enumerate(corpus.CASES)]


@pytest.mark.parametrize("case", NUMBERED)
def test_refused_in_one_line(case, good, tmp_path, run):
    words = corpus.spoil(case, good, tmp_path)
    before = here(tmp_path)
    status, out, err = run(words)
    assert status in (1, 2), out + err
    assert err.count("\n") == 1 and len(err) < 1000, err
    named = [*case.file.split("/"), *corpus.COMMANDS[case.kind][0], case.says]
    assert case.says in err and any(name.split(".")[0] in err for name in named), err
    assert "; " in err or "?" in err or "No such file" in err, f"what to do? {err}"
    assert here(tmp_path) == before


# Targets for the parameters that mean nothing to `make accuracy`.
GOALS = dict.fromkeys(("MODELS", "CHIPS", "BATCHES", "PRECISIONS"), "accuracy-table")
GOALS |= {"RUNS": "torture", "FROM": "record", "INPUT": "score", "OUT": "score"}
GOALS |= {"TRAIN": "train", "A": "compare", "B": "compare"}


@pytest.mark.parametrize("word", corpus.MAKE)
def test_make_refuses_the_parameter(word, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(cli.UserError) as e:
        makefile.answer("0", GOALS.get(word.split("=")[0], "accuracy"), word.replace("\n", "¶"))
    assert corpus.MAKE[word] in str(e.value) and "\n" not in str(e.value).strip()


def test_make_itself_hands_over_what_is_typed(tmp_path):
    """Nothing in it is expanded, by make or by a shell, before it is checked; the answer is one line."""
    for name in ("Makefile", "mk", "tools", "lab", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    odd = [word for word in corpus.MAKE if set(word) & set("$`'\n;|~*")]
    assert len(odd) > 10
    for word in odd:
        command = ["make", "-n", word, GOALS.get(word.split("=")[0], "accuracy")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and corpus.MAKE[word] in done.stderr, done.stderr
    assert not (tmp_path / "pwned").exists()
