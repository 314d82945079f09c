"""What kills and spoils a build: lab/torture.py and lab/writes.py on its first stages, briefly."""

import random
import re
import subprocess

import pytest
from conftest import VENV, Repo

from lab import torture

FIRST = ["build/data/tiny/dev.tsv", "build/tiny/default/seq64/input/MANIFEST"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory, first_built):
    return Repo(tmp_path_factory.mktemp("stress"), first_built)


def stressed(repo, module: str, rows: int, *words) -> str:
    """What a module of lab/ prints of FIRST, of the first rows of the sentences; its folder is gone at the end."""
    few = repo.path / "few.tsv"
    few.write_text("".join((repo.path / "build/data/dev.tsv").read_text().splitlines(keepends=True)[: rows + 1]))
    command = [
        VENV / "bin/python",
        "-m",
        f"lab.{module}",
        *words,
        *FIRST,
        "--",
        "MODEL=tiny",
        f"DATA={few}",
        f"VENV={VENV}",
    ]
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
    counts = re.search(
        r"^writes: (\d+) failures in \d+ steps \(ENOSPC [1-9]\d*, EIO [1-9]\d*; (\d+) refused in one line", said, re.M
    )
    assert int(counts[1]) >= int(counts[2]) >= 3 and "the bytes of an undisturbed build" in said


def test_a_flipped_byte_that_no_step_reads_is_made_again(tmp_path):
    """A listed file of the last folder of a chain: make does not look at its bytes, so its MANIFEST goes."""
    folder = tmp_path / "build/input"
    folder.mkdir(parents=True)
    for name in ("MANIFEST", "labels.json"):
        (folder / name).write_text("0" * 64)
    (folder / "MANIFEST.prov.json").write_text('{"target": "build/input/MANIFEST", "inputs": {}}')
    assert "labels.json flipped" in torture.flip(tmp_path, folder / "MANIFEST", random.Random(5))
    assert not (folder / "MANIFEST").exists()
