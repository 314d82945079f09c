"""LAUNCH= on a real Slurm of two nodes, which the tests start themselves; in the table the chips are the stand-ins for CANN."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slurm as cluster
from conftest import ROOT
from fake_cann import tiny

pytestmark = pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing()))
SBATCH = ("LAUNCH=slurm", "SLURM_ARGS=--gres=npu:1")
TABLE = ("MODEL=tiny", "CHIPS=310P3 910B3", "BATCHES=1", "PRECISIONS=fp16", "SAMPLES=8", "perf-table")
SLOW = """#!/bin/sh
# Says where it runs, and ends when it may go.
echo $SLURMD_NODENAME > $1.new; mv $1.new $1.begun
until [ -e $1.go ]; do sleep 0.1; done
echo made > $2
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    slurm = cluster.Slurm(tmp_path_factory.mktemp("slurm"), jobs=5)
    yield slurm
    slurm.stop()


class Steps:
    """Steps of tools/make/run.py in a folder with a Makefile, each with a command that waits for a file."""

    def __init__(self, at, slurm):
        self.at, self.running = at, []
        self.env = os.environ | slurm.env | {"PYTHONPATH": str(ROOT)}
        self.until = slurm.until
        (at / "Makefile").touch()
        (at / "slow").write_text(SLOW)
        (at / "slow").chmod(0o755)

    def start(self, name, prefix="slurm"):
        """The running step that makes build/<name>/out."""
        words = ["-m", "tools.make.run", "--step", "infer", f"--launch={prefix}", f"build/{name}/out"]
        command = [sys.executable, *words, "--", f"{self.at}/slow", f"{self.at}/{name}", "{}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.running.append(subprocess.Popen(command, cwd=self.at, env=self.env, **pipes))
        return self.running[-1]

    def begun(self, name) -> str:
        """The node on which its command runs, as soon as it does."""
        self.until((self.at / f"{name}.begun").exists, f"{name} runs")
        return (self.at / f"{name}.begun").read_text().strip()

    def go(self, *names) -> None:
        for name in names:
            (self.at / f"{name}.go").touch()

    def ends(self, step, status=0) -> str:
        """What it says; it ends with that status."""
        out, err = step.communicate(timeout=100)
        assert step.returncode == status, out + err
        return out + err

    def left(self, name) -> set[str]:
        return {p.name for p in (self.at / "build" / name).iterdir()} - {"lost"}


@pytest.fixture
def steps(slurm, tmp_path):
    steps = Steps(tmp_path, slurm)
    yield steps
    for step in steps.running:
        if step.poll() is None:
            step.kill()
        step.communicate()
    for job in slurm.jobs():
        slurm.ask("scancel", job[0])


def test_a_table_over_two_nodes_with_a_full_queue(built, slurm):
    """Eight cells, while Slurm knows of five jobs at most: the rest waits outside."""
    make = lambda *words: built.make(
        *words, *TABLE, *SBATCH, env=tiny.environment(FAKE_NPU="", **slurm.env), check=False
    )
    done = make("-j32")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"time .*\[8 done, 0 running, 0 waiting\]", done.stdout), done.stdout
    assert "MaxJobCount limit" in slurm.log()
    ran = []
    for chip in ("310P3", "910B3"):
        leaf = built.path / f"build/tiny/default/seq64/bs1/{chip}-atc-fp16"
        record = json.loads((leaf / "perf.json").read_text())
        assert [sorted(w) for w in record["launched"]] == [["device", "job", "node"]] * 3
        for k, where in enumerate(record["launched"], 1):
            prov = json.loads((leaf / f"round{k}/MANIFEST.prov.json").read_text())
            assert prov["run"]["launched"] == where
            ran.append((where["node"], where["job"], where["device"]))
    assert len({job for _, job, _ in ran}) == 6 and {device for *_, device in ran} == {"0"}
    assert {node for node, *_ in ran} <= {"n1", "n2"}  # a quick one may take all jobs
    assert make("-q").returncode == 0


def test_a_killed_node_costs_what_srun_ran_and_nothing_of_slurm(slurm, steps):
    """srun says "Node failure" and ends with 0; a job Slurm queues again, and of the killed attempt nothing is left."""
    slurm.ask("scontrol", "update", "nodename=n2", "state=drain", "reason=later")
    lost, again = steps.start("lost", "srun -N1 -n1"), steps.start("again")
    assert {steps.begun("lost"), steps.begun("again")} == {"n1"}
    slurm.ask("scontrol", "update", "nodename=n2", "state=resume")
    slurm.kill("n1")
    slurm.ask("scontrol", "update", "nodename=n1", "state=down", "reason=killed")  # sooner than its timeout
    assert "begun on n1, then lost or cancelled" in steps.ends(lost, 1)
    steps.go("lost", "again")
    steps.ends(again)
    where = json.loads((steps.at / "build/again/out.prov.json").read_text())["run"]["launched"]
    assert where["node"] == "n2" and steps.left("again") == {"out", "out.log", "out.prov.json"}
    assert "2 done, 0 running, 0 waiting" in steps.ends(steps.start("lost", "srun -N1 -n1"))
    slurm.node("n1")
    slurm.until(lambda: slurm.states()["n1"] == "idle", "the node is back")


def test_jobs_that_are_cancelled_interrupted_and_left_behind(slurm, steps):
    """sbatch --wait ends with 0 where its job was cancelled. That of a step that was killed, the next one cancels."""
    names = ("cancelled", "interrupted", "orphan")
    cancelled, interrupted, orphan = map(steps.start, names)
    for name in names:
        steps.begun(name)
    ids = {name: job for job, name, *_ in slurm.jobs()}
    of = lambda name: next(job for full, job in ids.items() if name in full)
    slurm.ask("scancel", of("cancelled"))
    interrupted.terminate()
    orphan.kill()
    orphan.communicate()
    assert re.search("left no result.*then lost or cancelled", steps.ends(cancelled, 1))
    steps.ends(interrupted, 143)
    assert steps.left("cancelled") == steps.left("interrupted") == set()
    steps.go("orphan")
    assert of("orphan") in {job for job, *_ in slurm.jobs()}
    steps.ends(steps.start("orphan"))
    slurm.until(lambda: slurm.jobs() == [], "no job is left")


def asks(step) -> bool:
    """Whether a step's sbatch runs."""
    names = [Path(f"/proc/{pid}/comm") for pid in cluster.descendants(step.pid)]
    return "sbatch" in [name.read_text().strip() for name in names if name.exists()]


def test_a_controller_that_restarts_is_waited_for(slurm, steps):
    """While a job runs, and before one is submitted: neither is lost, and neither runs twice."""
    runs = steps.start("runs")
    steps.begun("runs")
    slurm.end("ctld")
    waits = steps.start("waits")
    slurm.until(lambda: asks(waits), "sbatch asks")
    slurm.until(lambda: not asks(runs) and not asks(waits), "sbatch has given up")
    assert runs.poll() is None and waits.poll() is None
    (steps.at / "runs.begun").unlink()
    slurm.start("ctld", "slurmctld", "-D", "-f", slurm.config)
    steps.go("runs", "waits")
    assert "restarted" not in steps.ends(runs) + steps.ends(waits)
    assert (steps.at / "build/waits/out").exists() and not (steps.at / "runs.begun").exists()
    slurm.until(lambda: slurm.states() == {"n1": "idle", "n2": "idle"}, "both nodes are idle")
