"""What kills and spoils a build: lab/torture.py, writes.py and environments.py on its first stages, briefly."""

import random
import re
import subprocess

import pytest
from conftest import VENV, Repo, lay

from lab import counts, environments, torture
from tools.make import cli

FIRST = ["build/data/tiny/dev.tsv", "build/tiny/default/seq64/input/MANIFEST"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory, first_built):
    return Repo(tmp_path_factory.mktemp("stress"), first_built)


def stressed(repo, module: str, rows: int, *words) -> str:
    """What a module of lab/ prints of FIRST, of the first rows of the sentences; its folder is gone at the end."""
    few = repo.path / "few.tsv"
    few.write_text("".join((repo.path / "build/data/dev.tsv").read_text().splitlines(keepends=True)[: rows + 1]))
    command = [VENV / "bin/python", "-m", f"lab.{module}", *words, *FIRST, "--"]
    command += ["MODEL=tiny", f"DATA={few}", f"VENV={VENV}"]
    done = subprocess.run(command, cwd=repo.path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (repo.path / "build" / module).exists()
    return done.stdout


def test_killed_at_random_moments_and_spoilt(repo):
    """Each kind once; `make torture` is all stages, 100 times."""
    said = stressed(repo, "torture", 20, "--runs", "4")
    assert len(re.findall(r"^(?:run|after run) \d: .* the same bytes$", said, re.M)) == 8
    assert re.search(r"^torture: 4 runs killed \(-j1 \d, -j8 \d; two makes at once \d\), the same bytes", said, re.M)
    assert "between them: other dates 1, a flipped byte 1, removed 1, edited 1 (refused" in said


def test_each_write_fails_in_one_line(repo):
    """Each 12th write; `make writes` is all stages, each one."""
    said = stressed(repo, "writes", 4, "--every", "12")
    line = r"^writes: (\d+) failures in \d+ steps \(ENOSPC [1-9]\d*, EIO [1-9]\d*; (\d+) refused in one line"
    total, refused = re.search(line, said, re.M).groups()
    assert int(total) >= int(refused) >= 3 and "the bytes of an undisturbed build" in said


def test_the_dice_do_not_ask_how_fast_a_machine_is():
    seconds = dict(zip("abcd", (9, 5, 2, 1), strict=True))
    quick, slow = ([(name, took**power) for name, took in seconds.items()] for power in (1, 4))
    picks = [[torture.draw_stage(made, random.Random(seed))[0] for seed in range(30)] for made in (quick, slow)]
    assert picks[0] == picks[1] and {*picks[0]} == {*"abcd"}


def test_an_odd_environment_changes_nothing(repo):
    """A few of them; `make environments` is all. One in which make fails is named."""
    words = ["MODEL=tiny", f"VENV={VENV}"]
    repo.make(goal := "build/data/dev.tsv")
    plain = environments.run_make(repo.path, "", ["-n", "-B", "accuracy", *words])[1].split()
    wrong = lambda case: environments.fault(repo.path, case, goal, words, plain, cli.sha256(repo.path / goal))
    few = ("PYTHONHOME=/nowhere", "PYTHONWARNINGS=error", "PYTHONVERBOSE=1", "exec <&-;", "BS=3")
    assert [wrong(case) for case in few] == [""] * len(few)
    assert "make -n -B accuracy (127) shows other commands" in wrong("PATH=/nowhere")
    assert len({*environments.CASES}) >= 60


def test_counts_are_kept_a_line_a_check(tmp_path):
    path = tmp_path / "stress.csv"
    counts.keep(None, "killed", 1, "well", [])
    words = ["build/x/a/b.txt", "MODEL=tiny", "DATA=/home/me/few.tsv", "VENV=/venv"]
    for tried in (3, 300):
        counts.keep(path, "killed", tried, "well", words)
    counts.keep(path, "fuzzed", 5, "well, all", [])
    counts.keep(path, "killed", 7, "well", ["build/x/c.txt"])
    head, one, other, _ = path.read_text().splitlines()
    assert head == ",".join(counts.COLUMNS) and one.startswith("killed,300,well,a/b.txt MODEL=tiny DATA=few.tsv,")
    assert other.startswith('fuzzed,5,"well, all",,')


def test_a_flipped_byte_that_no_step_reads_is_made_again(tmp_path):
    """A listed file of the last folder of a chain: make does not look at its bytes, so its MANIFEST goes."""
    files, target = dict.fromkeys(("MANIFEST", "labels.json"), "0" * 64), tmp_path / "build/input/MANIFEST"
    lay(target.parent, files | {"MANIFEST.prov.json": '{"target": "build/input/MANIFEST", "inputs": {}}'})
    assert "labels.json flipped" in torture.flip(tmp_path, target, random.Random(5))
    assert not target.exists()
