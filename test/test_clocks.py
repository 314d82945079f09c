"""Dates that lie: make ends with artefacts of the bytes that are here, says what it did, and then has nothing to do."""

import json
import os
import time

import pytest
from conftest import lay

from tools.make import cli, stale

LEAF = "build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32"
DAY = 86400


@pytest.fixture
def tree(built):
    """The shared copy, its small step `score` to be made again: sources and artefacts as they were afterwards."""
    names = ["models/tiny/postprocess.py", "models/tiny/config.json"]
    kept = {name: ((built.path / name).read_text(), (built.path / name).stat()) for name in names}
    yield built
    for name, (text, stat) in kept.items():
        (built.path / name).write_text(text)
        os.utime(built.path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    built.make("MODEL=tiny", "accuracy")


def moved(folder, days: float) -> None:
    """Other dates for all files of a folder, in the order that they had."""
    for path in [folder, *folder.rglob("*")] if folder.is_dir() else [folder]:
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + int(days * DAY * 1e9)))


def edited(repo) -> None:
    with (repo.path / "models/tiny/postprocess.py").open("a") as f:
        f.write("# edited\n")


def all_is_of_the_future(repo):
    """A stamp of a model that was never made, too."""
    lay(repo.path, {"build/tiny/seeded2/source": "seeded\n"})
    for name in ("Makefile", "mk", "models", "tools", "lab", "data", "build"):
        moved(repo.path / name, 5)
    edited(repo)
    return " files had dates in the future, as "


def one_source_is_of_the_future(repo):
    edited(repo)
    moved(repo.path / "models/tiny/postprocess.py", 5)
    return "1 file had a date in the future, as models/tiny/postprocess.py; dated now"


def an_older_source_came_back(repo):
    edited(repo)
    moved(repo.path / "models/tiny/postprocess.py", -300)
    return f"{LEAF}/score.json was made from another models/tiny/postprocess.py, though its date is newer"


def an_artefact_was_copied_from_elsewhere(repo):
    """As `cp -r` of another build: newer than what it should be made from."""
    edited(repo)
    now = time.time() - 1
    for name in ("output/MANIFEST", "score.json", "accuracy.json", "accuracy.txt"):
        now += 0.1
        os.utime(repo.path / LEAF / name, (now, now))
    moved(repo.path / "models/tiny/postprocess.py", -0.5)
    return "score.json was made from another models/tiny/postprocess.py"


@pytest.mark.parametrize("spoil", [all_is_of_the_future, one_source_is_of_the_future, an_older_source_came_back,
                                   an_artefact_was_copied_from_elsewhere])  # fmt: skip
def test_the_next_make_ends_with_the_right_bytes_and_says_what_it_did(tree, spoil):
    says = spoil(tree)
    done = tree.make("MODEL=tiny", "accuracy")
    assert says in done.stdout and "Clock skew" not in done.stderr, done.stdout + done.stderr
    prov = json.loads((tree.path / LEAF / "score.json.prov.json").read_text())
    assert prov["inputs"]["models/tiny/postprocess.py"] == cli.sha256(tree.path / "models/tiny/postprocess.py")
    assert "future" not in tree.make("-q", "MODEL=tiny", "accuracy").stdout
    done = tree.make("-n", "MODEL=tiny", "WEIGHTS=seeded", "accuracy")
    assert "Clock skew" not in done.stderr


def test_a_clock_that_was_behind_makes_more_than_it_must_and_no_less(tree):
    edited(tree)
    moved(tree.path / "build", -5)
    assert f"{LEAF}/score.json".removeprefix("build/") in tree.remade("MODEL=tiny", "accuracy")
    moved(tree.path / "build", 5)


def test_every_source_counts_not_only_scripts(tree):
    """-n says it, and writes no artefact."""
    path = tree.path / "models/tiny/config.json"
    path.write_text(path.read_text() + "\n")
    os.utime(path, (1, 1))
    done = tree.make("-n", "MODEL=tiny", "accuracy")
    assert "checkpoint/MANIFEST was made from another models/tiny/config.json" in done.stdout
    assert "tiny/default/checkpoint/MANIFEST" in tree.remade("MODEL=tiny", "accuracy")
    assert tree.make("-q", "MODEL=tiny", "accuracy", check=False).returncode == 1


@pytest.mark.parametrize("name", ["accuracy.txt", "score.json"])
def test_a_forged_result_is_made_again_whatever_its_date(tree, name):
    path = tree.path / LEAF / name
    right = str(json.loads((tree.path / LEAF / "accuracy.json").read_text())["correct"])
    kept, stat = path.read_text(), path.stat()
    path.write_text(kept.replace(right, "872"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert name not in tree.make("data").stdout  # which does not make it
    done = tree.make("MODEL=tiny", "accuracy")
    assert f"{LEAF}/{name} is not as it was made" in done.stdout and "(872/872)" not in done.stdout
    assert right in path.read_text()


def test_a_lock_of_an_old_date_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"a.txt": "one\n", "b.txt": "two\n", "installed": "one\ntwo\n", "bin/python": ""})
    stamps = [["installed", "a.txt", "b.txt"], ["not/there", "a.txt"]]
    assert stale.stale_environments(stamps) == []
    (tmp_path / "b.txt").write_text("three\n")
    os.utime(tmp_path / "b.txt", (1, 1))
    assert stale.stale_environments(stamps) == ["installed"]


def test_copies_for_verify_and_half_made_boxes_are_left_alone(tmp_path):
    lay(tmp_path, dict.fromkeys(("a.prov.json", "verify/x/Makefile", "verify/x/build/b.prov.json", ".c.1.tmp/d.prov.json",
                                 "in/MANIFEST.prov.json", "in/deep/e.prov.json"), ""))  # fmt: skip
    names = {p.relative_to(tmp_path).as_posix() for p in stale.prov_files(tmp_path)}
    assert names == {"a.prov.json", "in/MANIFEST.prov.json"}
