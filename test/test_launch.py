"""LAUNCH= behind prefixes that lie, fail and disappear; test_slurm.py has a real Slurm."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, lay
from fake_cann import tiny

from tools.make import launch, screen

WRITE = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2]); print('written')", "{}"]


def script(folder: Path, name: str, text: str) -> str:
    lay(folder, {name: f"#!/bin/sh\n{text}\n"})
    return str(folder / name)


@pytest.fixture(autouse=True)
def in_a_folder_with_a_makefile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").touch()


def words_of(prefix, *command):
    """tools/make/run.py behind a prefix."""
    start = [sys.executable, "-m", "tools.make.run", "--step", "infer", f"--launch={prefix}", "build/out", "--"]
    return [*start, *(command or (*WRITE, "a"))]


def run(prefix, *command):
    return subprocess.run(words_of(prefix, *command), capture_output=True, text=True, timeout=60)


def left(folder: Path) -> set[str]:
    return {p.name for p in (folder / "build").iterdir()} - {".launch", "lost"}


def test_the_result_decides_and_not_the_exit_code(tmp_path):
    done = run(script(tmp_path, "liar", '"$@"; exit 9'))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build/out").read_text() == "a" and (tmp_path / "build/out.log").read_text() == "written\n"
    assert left(tmp_path) == {"out", "out.log", "out.prov.json"}
    prov = json.loads((tmp_path / "build/out.prov.json").read_text())
    node = prov["run"]["machine"]["host"]
    assert prov["run"]["launched"] == {"node": node, "job": None, "device": None} and "liar" not in prov["recipe"]
    assert f"{node}: written  [1 done, 0 running, 0 waiting]" in done.stdout


@pytest.mark.parametrize(("text", "command", "says"), [
    ("echo node failure >&2; exit 0", (),
     ("prefix ended (exit 0) and left no result; never begun, then lost or cancelled: node failure; run make again",)),
    ('exec "$@"', (sys.executable, "-c", "print('why'); raise SystemExit(3)", "{}"), ("exit 3 from:", "why\n", "(on ")),
    ('exec "$@"', ("nowhere", "{}"), ("nowhere: not found", "(on ")),
    ("", None, ("LAUNCH: nowhere is not on PATH here",)),
])  # fmt: skip
def test_a_failure_is_named_and_leaves_nothing(tmp_path, text, command, says):
    """Of the prefix, which may lie with its exit code; of a command behind it; of what is not there."""
    done = run("nowhere") if command is None else run(script(tmp_path, "prefix", text), *command)
    assert done.returncode == 1 and left(tmp_path) == set() and "/run." not in done.stderr
    assert all(text in done.stderr for text in says) and done.stderr.count("\n") == 1 + ("why\n" in says), done.stderr


def test_a_second_signal_does_not_keep_a_job_alive(tmp_path, monkeypatch):
    """make passes on to its children the SIGTERM that they got already."""
    script(tmp_path, "sbatch", "touch submitted; exec sleep 60")
    script(tmp_path, "scancel", "touch cancelling; sleep 1; touch cancelled")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    step = subprocess.Popen(words_of("slurm"), stdout=subprocess.DEVNULL)
    for mark in ("submitted", "cancelling"):
        while not (tmp_path / mark).exists():
            assert step.poll() is None
            time.sleep(0.01)
        step.terminate()
    assert step.wait(timeout=30) == 143
    assert (tmp_path / "cancelled").exists() and left(tmp_path) == set()


def test_a_signal_while_a_job_is_submitted_cancels_it(tmp_path, monkeypatch):
    cancelled = []
    monkeypatch.setattr(launch, "forget", cancelled.append)
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *_, **how: sys.exit(143))
    with pytest.raises(SystemExit):
        launch.attempt(["true"], tmp_path, print)
    assert cancelled == [tmp_path]


def test_what_make_exports_is_carried(tmp_path, monkeypatch):
    """sbatch --export=NONE and ssh hand no environment on."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("OTHER", "1")
    show = "import os, sys; open(sys.argv[1], 'w').write(str([*map(os.environ.get, ('ONEDNN_MAX_CPU_ISA', 'OTHER'))]))"
    run(f"env -i PYTHONPATH={ROOT}", sys.executable, "-c", show, "{}")
    assert (tmp_path / "build/out").read_text() == "['AVX2', None]"


def test_a_full_queue_and_a_controller_that_is_away_are_asked_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "AGAIN", 0.01)
    queue = script(tmp_path, "queue", '[ -e was ] && exec "$@"; touch was; echo temporarily unavailable; exit 1')
    made, found = launch.perform([queue], False, [[*WRITE, "a"]], tmp_path, screen.Step("x", Path("out")))
    assert made.read_text() == "a" and found["ended"] >= found["started"]
    script(tmp_path, "sbatch", 'echo "Slurm backup controller in standby mode" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(launch, "queued", lambda box: False)
    said = launch.attempt(["sbatch"], tmp_path / "other", print)[2]
    assert launch.AWAY.search(said) and "no Slurm controller answers" in capsys.readouterr().err


def test_of_two_attempts_the_first_counts(tmp_path):
    """A node that was thought lost goes on beside the job that took its place."""
    job = {"commands": [[*WRITE, "a"]], "target": "out", "alone": False, "host": "elsewhere"}
    (tmp_path / "job.json").write_text(json.dumps(job | {"env": {}, "visible": None}))
    command = [sys.executable, "-m", "tools.make.launch", tmp_path]
    said = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout for _ in "12"]
    assert "another attempt was first" not in said[0] and "another attempt was first" in said[1]
    assert len(list(tmp_path.glob("run.*"))) == 2
    first = json.loads((tmp_path / "result.json").read_text())
    assert first["started"] < json.loads((tmp_path / "started.json").read_text())["started"]


def test_timed_steps_lock_the_machine_they_run_on(tmp_path, monkeypatch):
    """Where no scheduler grants devices; make's own machine is locked as by its own steps."""
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    for host, path in (("elsewhere", tmp_path / "bert2om.lock"), (launch.platform.node(), tmp_path / "Makefile")):
        held = launch.lock_machine(True, host)
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(held)
        held, more = launch.lock_machine(False, host), launch.lock_machine(False, host)
        os.close(held), os.close(more)


def test_ssh_gets_words_quoted_for_a_shell(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.Path, "cwd", lambda: Path("/my $(folder)"))
    assert "'/my $(folder)'" in launch.command_of(["/usr/bin/ssh", "node"], tmp_path)
    assert "/my $(folder)" in launch.command_of(["srun", "-n1"], tmp_path)
    assert "'/my $(folder)'" in launch.command_of(["slurm"], tmp_path)[-1]


def test_what_needs_a_chip_is_launched_and_nothing_else(built):
    text = built.make("-n", "MODEL=tiny", "BS=5", "LAUNCH=srun -n1", "accuracy", "perf").stdout
    launched = set(re.findall(r" --step (\S+) .*--launch 'srun -n1'", text))
    assert launched == {"compile", "infer", "time"} < set(re.findall(r" --step (\S+) ", text))
    assert built.make("-q", "MODEL=tiny", "LAUNCH=srun -n1", "accuracy").returncode == 0  # where it ran stales nothing


def test_a_lost_cell_does_not_lose_the_table(built, tmp_path):
    """What was measured is shown, the lost cell with its reason, and the exit status says so; then it is measured."""
    env = tiny.environment(FAKE_NPU="")
    loses = script(tmp_path, "loses", 'case "$*" in *910B3-atc*) echo node failure >&2; exit 0;; esac; exec "$@"')
    table = ("MODEL=tiny", "CHIPS=310P3 910B3", "BATCHES=7", "PRECISIONS=fp16", "SAMPLES=8", "ROUNDS=1", "perf-table")
    done = built.make(*table, f"LAUNCH={loses}", env=env, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("| tiny ")]
    assert len(shown) == 2, done.stdout + done.stderr
    lines = {chip: line for line in shown for chip in ("310P3", "910B3") if f" {chip} " in line}
    assert "loses ended (exit 0) and left no result" in lines["910B3"] and "node failure" in lines["910B3"], done.stdout
    assert "DEMONSTRATION" in lines["310P3"], done.stdout  # as all that is measured here
    done = built.make(*table, "LAUNCH=nice", env=env)
    assert "left no result" not in done.stdout, done.stdout
