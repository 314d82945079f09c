"""What maintainers hand on: a release that needs no index, and the container of README's two commands."""

import re
import shutil
import subprocess
import sys
import tarfile

import pytest
from conftest import ROOT, in_git

from lab import release
from tools.make import cli
from tools.setup import install


def test_a_release_is_the_same_bytes_and_brings_its_wheels(repo, tmp_path, monkeypatch):
    """The tree of the commit, wheels and downloads in one folder; without the wheels' index nothing else is asked."""
    (repo.path / ".git_archival.txt").write_text("commit: $Format:%H$\n")  # an unpacked archive names its own commit
    in_git(repo.path, "init", "-q")
    in_git(repo.path, "add", "-A")
    in_git(repo.path, "commit", "-qm", "one")
    monkeypatch.chdir(repo.path)
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    for name in ("one.tar", "two.tar"):
        release.write(tmp_path / name, "bert2om-x", {"wheels/a-1-py3-none-any.whl": wheel})
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        read = lambda name: tar.extractfile(f"bert2om-x/{name}").read().decode()
        assert read(".git_archival.txt") == f"commit: {in_git(repo.path, 'rev-parse', 'HEAD')}\n"
        assert read("wheels/SHA256SUMS") == f"{cli.sha256(wheel)}  a-1-py3-none-any.whl\n"
        assert {m.mtime for m in tar} == {int(in_git(repo.path, "show", "-s", "--format=%ct", "HEAD"))}
    (repo.path / "README.md").write_text("edited")
    monkeypatch.setattr(sys, "argv", ["release", "--save_path", str(tmp_path)])
    with pytest.raises(cli.UserError, match="the work tree differs"):
        release.main()


def test_a_release_installs_from_its_wheels_alone(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(install, "WHEELS", tmp_path)
    monkeypatch.setattr(install, "pip", lambda folder, *words, log=None: asked.append(words) or 0)
    with (tmp_path / "log").open("w") as log:
        install.install(tmp_path, [ROOT / "requirements.txt", ROOT / "requirements-cpu.txt"], log, [])
    fills = [words for words in asked if words[0] == "install" and "--dry-run" not in words]
    assert len(fills) == 2 and all({"--no-index", str(tmp_path)} <= set(words) for words in fills)


def test_the_lock_lines_of_a_release_name_each_package_once(monkeypatch):
    monkeypatch.chdir(ROOT)
    heads = re.findall(r"^([a-z0-9-]+)==\S+(.*?) \\$", release.locked(), re.M)
    plain = [name for name, marker in heads if "python_full_version" not in marker]
    assert len(plain) == len(set(plain)) and "torch" in plain


PODMAN = """#!/bin/sh
echo "$@" >> asked
case "$1 $FAULT" in "run no-containers"|"image "*) exit 125;; "pull no-base") echo no such image >&2; exit 125;; esac
"""


def contained(folder, fault="", *words):
    """lab/container.py with a podman that only notes what it is asked; (the process, what was asked)."""
    (folder / "bin").mkdir(exist_ok=True)
    shutil.copy(ROOT / "Containerfile", folder)
    for name, text in (("podman", PODMAN), ("unshare", 'shift; exec "$@"\n')):
        (folder / "bin" / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
        (folder / "bin" / name).chmod(0o755)
    env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "FAULT": fault, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lab.container", *words, "make accuracy"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done, (folder / "asked").read_text().splitlines()


def test_the_container_runs_offline(tmp_path):
    """Podman is asked by the base that the image is then built on, whichever that is."""
    done, asked = contained(tmp_path, "", "--base", "docker.io/library/debian:13")
    assert done.returncode == 0 and "make accuracy: passed without a network" in done.stdout, done.stderr
    assert asked[1:3] == [
        "pull docker.io/library/debian:13",
        "run --rm --network=none docker.io/library/debian:13 true",
    ]
    assert asked[3].startswith("build --build-arg BASE=docker.io/library/debian:13 -t localhost/bert2om")
    assert asked[4] == "run --rm --network=none localhost/bert2om sh -c make accuracy"


def test_without_containers_the_command_is_the_step_of_a_build(tmp_path):
    done, asked = contained(tmp_path, "no-containers")
    assert done.returncode == 0 and asked[3].startswith("build --isolation=chroot --build-arg"), done.stderr
    assert asked[4].startswith("build --isolation=chroot --no-cache -f")


def test_a_base_that_is_not_to_be_had_is_one_line(tmp_path):
    done, _ = contained(tmp_path, "no-base")
    assert done.returncode == 1 and "podman cannot pull it" in done.stderr and "--debian makes one" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_base_of_the_container_is_pinned():
    text = (ROOT / "Containerfile").read_text()
    assert re.findall(r"(?m)^ARG BASE=\S+@sha256:[0-9a-f]{64}$", text) and re.findall(r"(?m)^FROM .*", text) == [
        "FROM ${BASE}"
    ]


def test_the_container_gets_the_downloads_of_a_release():
    assert {"build/*", "!build/downloads", ".venv*"} <= set((ROOT / ".containerignore").read_text().split())
