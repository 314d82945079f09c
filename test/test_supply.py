"""What is installed: every requirement is locked, and nothing lies outside the lock."""

import hashlib
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, lay, refused

from tools.cpu.native import build
from tools.make import cli, stale
from tools.setup import doctor, install, sbom


def test_the_lock_is_hashed_and_holds_every_requirement():
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements.txt").read_text().strip())
    assert all(re.match(r"[\w.\[\]-]+==", b) and "--hash=sha256:" in b for b in blocks if not b.startswith("#"))
    locked, cpu = sbom.locked(ROOT / "requirements.txt"), (ROOT / "requirements-cpu.txt").read_text()
    assert set(locked) >= {*map(sbom.normalized, re.findall(r"(?m)^[\w.-]+", (ROOT / "requirements.in").read_text()))}
    assert f"torch=={max(locked['torch'])}+cpu ; " in cpu and cpu.count("--hash=sha256:") == 2 * len(range(11, 15))


# What sends a package elsewhere, or stops pip from installing it, in any of pip's files.
BREAKING = """user=true target=elsewhere prefix=elsewhere root=elsewhere src=elsewhere dry-run=true require-virtualenv=true
    ignore-installed=true no-deps=false only-binary=:none: no-binary=:all: python=/nowhere/python report=elsewhere log=elsewhere
    constraint=/nowhere/constraints.txt requirement=/nowhere/requirements.txt"""


@pytest.fixture
def one(tmp_path, monkeypatch):
    """A lock of one package, whose wheel lies in a folder that pip.conf names beside what breaks; (lock, environment)."""
    files = {"one.py": "", "one-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: one\nVersion: 1\n",
             "one-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
             "one-1.dist-info/RECORD": ""}  # fmt: skip
    wheel = tmp_path / "wheels/one-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
    lock = tmp_path / "lock.txt"
    lock.write_text(f"one==1 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    settings = ["[global]", "no-index = true", f"find-links = {wheel.parent}", *BREAKING.split()]
    lay(tmp_path, {"home/.config/pip/pip.conf": "\n".join(settings)})
    for name in [name for name in os.environ if name.startswith(("PIP_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lock, tmp_path / "venv"


def set_up(lock, venv, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["install", str(venv), str(lock)])
    install.main()


def holds(venv) -> bool:
    return not subprocess.run([venv / "bin/python", "-c", "import one"], capture_output=True, check=False).returncode


def test_a_stamp_means_that_the_packages_are_there(one, monkeypatch, capsys):
    """Whatever pip is told, by files or variables, and though the environment's Python goes away."""
    lock, venv = one
    stamp, pip = venv / "installed", install.pip
    deaf = lambda folder, *words, log=None: pip(folder, *words, log=log) if "--dry-run" in words else 0
    with monkeypatch.context() as patch, pytest.raises(cli.UserError, match="pip ended well, and yet not all"):
        patch.setattr(install, "pip", deaf)
        set_up(lock, venv, monkeypatch)
    silent = {"PIP_CONFIG_FILE": os.devnull, "HTTPS_PROXY": "http://127.0.0.1:9", "PIP_RETRIES": "0"}
    with monkeypatch.context() as patch, pytest.raises(cli.UserError, match="proxy does not answer: .*Connection ref"):
        patch.setattr(os, "environ", os.environ | silent)
        set_up(lock, venv, monkeypatch)
    assert install.is_ours(venv) and not stamp.exists() and not holds(venv)
    set_up(lock, venv, monkeypatch)
    assert holds(venv) and stamp.read_text() == lock.read_text() and not Path("elsewhere").exists()
    (cpu := lock.with_name("lock-cpu.txt")).write_text(f"two==1 --hash=sha256:{'0' * 64}\n")
    with (venv / "installed.log").open("w") as log:
        install.install(venv, [lock, cpu], log, [])
    assert "no CPU build: ERROR: No matching distribution found for two" in capsys.readouterr().out
    another = lock.with_name("python3.99")  # whatever /usr/bin/python3 is since the system's upgrade
    another.touch()
    for python in (another, Path("/nowhere/python")):
        (venv / "bin/python").unlink()
        (venv / "bin/python").symlink_to(python)
        assert stale.stale_environments([[str(stamp), str(lock)]]) == [str(stamp)]
    set_up(lock, venv, monkeypatch)
    assert holds(venv) and stale.stale_environments([[str(stamp), str(lock)]]) == []


def test_downloads_wait_where_the_environment_is(one, monkeypatch):
    """Debian 13 has its /tmp in memory, where 3 GB of wheels do not fit beside what a small machine runs."""
    lock, venv = one
    folders, popen = set(), subprocess.Popen
    note = lambda command, env=None, **_: folders.add(env.get("TMPDIR")) if "pip" in command else None
    monkeypatch.setattr(install.subprocess, "Popen", lambda *words, **how: note(*words, **how) or popen(*words, **how))
    set_up(lock, venv, monkeypatch)
    (venv / "installed").unlink()
    (venv / "tmp/pip-unpack-killed").mkdir(parents=True)
    set_up(lock, venv, monkeypatch)
    assert folders == {str(venv / "tmp")} and not any((venv / "tmp").iterdir())


@pytest.mark.parametrize(("places", "said"), [
    ({"find-links": "wheels"}, "2.3 GB: PyTorch's CPU build, from wheels"),
    ({"find-links": "elsewhere PAGE"}, "2.3 GB: PyTorch's CPU build, from file:"),
    ({"no-index": "true"}, "6.3 GB: PyTorch's CUDA build (no place"),
    ({"no-index": "no", "index-url": "a.org", "proxy": "http://127.0.0.1:9"}, "Connection refused; for 2.3 GB lead pip to"),
])  # fmt: skip
def test_the_size_is_foretold(tmp_path, monkeypatch, places, said):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_{platform.machine()}.whl"
    lay(tmp_path, {f"wheels/{wheel}": "", "page.html": f'<a href="{wheel.replace("+", "%2B")}">x</a>'})
    places = {name: value.replace("PAGE", (tmp_path / "page.html").as_uri()) for name, value in places.items()}
    lock = tmp_path / "requirements-cpu.txt"
    lock.write_text("torch==2.13.0+cpu ; sys_platform == 'linux' and python_version < '3.99' \\\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(install.fetch, "pip_settings", lambda *_: places)
    assert said in install.size(*install.cpu_build(tmp_path / "venv", (lock,)))


def test_doctor_names_what_a_bare_machine_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.install, "cpu_build", lambda *_: ("no index answers", None))
    lacking = [text for needed, here, text in doctor.ours(tmp_path / "venv") if needed and not here]
    assert lacking == []  # nothing is installed yet, and can be
    (*_, disk), (*_, memory) = doctor.room(tmp_path / "venv")
    assert int(re.search(r"takes ([\d,]+)", disk)[1].replace(",", "")) >= 9400, disk  # the wheels lie beside it
    assert "takes 1,900 at its peak" in memory
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.build, "missing_tool", lambda: "gcc 12 lacks math.h; apt install libc6-dev")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "\n".join(text for _, here, text in doctor.ours(tmp_path / "venv") if not here)
    assert all(f"apt install {name}" in said for name in ("make", "git", "libc6-dev", "python3-venv")), said
    assert "6.3 GB: PyTorch's CUDA build (no index answers" in said


def test_a_compiler_without_headers_is_said_to_lack_them(tmp_path, monkeypatch):
    assert build.missing_tool() == ""
    fails = 'echo "<stdin>:1: fatal error: math.h: No such file" >&2; exit 1'
    lay(tmp_path, {"gcc": f'#!/bin/sh\n[ "$1" = -dumpversion ] && exec echo 12\n{fails}\n'})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert build.missing_tool() == "gcc 12 lacks math.h; apt install libc6-dev"
    monkeypatch.setattr(sys, "argv", ["build", "a.c", "--save_path", str(tmp_path / "a.so")])
    refused("^gcc cannot compile here: gcc 12 lacks math.h", build.main)
