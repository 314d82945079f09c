"""LAUNCH= on a real Slurm of two nodes, which the tests start themselves; the chips are the stand-ins for CANN."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
import slurm as cluster
from conftest import VENV
from fake_cann import tiny

pytestmark = pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing()))
SBATCH = ("LAUNCH=slurm", "SLURM_ARGS=--gres=npu:1")
SRUN = ("LAUNCH=srun -N1 -n1 --exclusive --gres=npu:1",)
TABLE = ("MODEL=tiny", "CHIPS=310P3 910B3", "BATCHES=1", "PRECISIONS=fp16", "SAMPLES=8", "perf-table")
SLOW = """#!/bin/sh
# atc for 310P3 takes for ever, once
case "$*" in *Ascend310P3*)
    if ! [ -e {0}/begun ]; then echo $SLURMD_NODENAME > {0}/new; mv {0}/new {0}/begun
        for i in $(seq 300); do [ -e {0}/go ] && break; sleep 1; done; fi;;
esac
exec {1} "$@"
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    slurm = cluster.Slurm(tmp_path_factory.mktemp("slurm"), jobs=5)
    yield slurm
    slurm.stop()


@pytest.fixture
def start(built, slurm, tmp_path):
    """start(*words): make in the copy, atc for 310P3 being endless the first time; the running process."""
    env = tiny.environment(FAKE_NPU="", **slurm.env)
    shutil.copytree(tiny.HERE, tmp_path / "cann")
    (atc := tmp_path / "cann/bin/atc").rename(real := tmp_path / "cann/bin/atc.real")
    atc.write_text(SLOW.format(tmp_path, real))
    atc.chmod(0o755)
    env["PATH"] = f"{tmp_path}/cann/bin:{env['PATH']}"
    running = []

    def run(*words):
        make = ["make", f"VENV={VENV}", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(make, cwd=built.path, env=env, start_new_session=True, **pipes))
        return running[-1]

    yield run
    for make in running:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
        make.communicate()


def leaf(repo, bs, chip):
    return repo.path / f"build/tiny/default/seq64/bs{bs}/{chip}-atc-fp16"


def begun(slurm, tmp_path):
    """The node that runs the endless atc."""
    slurm.until((tmp_path / "begun").exists, "atc runs")
    return (tmp_path / "begun").read_text().strip()


def test_a_table_over_two_nodes_with_a_full_queue(built, slurm, start, tmp_path):
    """Eight cells, while Slurm knows of five jobs at most: the rest waits outside."""
    (tmp_path / "begun").touch()
    out, err = (make := start("-j32", *TABLE, *SBATCH)).communicate(timeout=300)
    assert make.returncode == 0, out + err
    assert re.search(r"time .*\[8 done, 0 running, 0 waiting\]", out), out
    assert "MaxJobCount limit" in slurm.log()
    ran = []
    for chip in ("310P3", "910B3"):
        record = json.loads((leaf(built, 1, chip) / "perf.json").read_text())
        assert [sorted(w) for w in record["launched"]] == [["device", "job", "node"]] * 3
        for k, where in enumerate(record["launched"], 1):
            prov = json.loads((leaf(built, 1, chip) / f"round{k}/MANIFEST.prov.json").read_text())
            assert prov["run"]["launched"] == where
            ran.append((where["node"], where["job"], where["device"]))
    assert len({job for _, job, _ in ran}) == 6 and {device for *_, device in ran} == {"0"}
    assert {node for node, *_ in ran} <= {"n1", "n2"}  # a quick one may take all jobs
    assert start("-q", *TABLE, *SBATCH).wait() == 0


def test_a_node_killed_behind_srun_costs_its_cell(built, slurm, start, tmp_path):
    """srun says "Node failure" and ends with 0."""
    goals = [str(leaf(built, 2, chip).relative_to(built.path) / "model.om") for chip in ("310P3", "910B3")]
    words = ("-k", "-j8", "MODEL=tiny", "CHIPS=310P3 910B3", "BATCHES=2", *goals)
    make = start(*words, *SRUN)
    node = begun(slurm, tmp_path)
    slurm.kill(node)
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")  # sooner than its timeout
    out, err = make.communicate(timeout=200)
    assert make.returncode == 2 and f"begun on {node}, then lost or cancelled" in err, out + err
    assert not (leaf(built, 2, "310P3") / "model.om").exists()
    other = (leaf(built, 2, "910B3") / "model.om").stat()
    slurm.node(node)
    out, err = (make := start(*words, *SRUN)).communicate(timeout=200)
    assert make.returncode == 0 and "1 done, 0 running, 0 waiting" in out, out + err
    assert (leaf(built, 2, "910B3") / "model.om").stat() == other


def test_a_node_killed_under_a_job_of_slurm_costs_nothing(built, slurm, start, tmp_path):
    """Slurm queues the job again; of the killed attempt nothing is left."""
    (leaf(built, 2, "310P3") / "model.om").unlink(missing_ok=True)
    make = start("MODEL=tiny", "CHIP=310P3", "BS=2", "om", *SBATCH)
    node = begun(slurm, tmp_path)
    slurm.kill(node)
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")
    out, err = make.communicate(timeout=200)
    slurm.node(node)
    assert make.returncode == 0, out + err
    where = json.loads((leaf(built, 2, "310P3") / "model.om.prov.json").read_text())["run"]["launched"]
    assert where["node"] == {"n1": "n2", "n2": "n1"}[node]
    assert not [p for p in leaf(built, 2, "310P3").iterdir() if p.name.startswith(".")]
    slurm.until(lambda: slurm.states()[node] == "idle", "the node is back")


def test_a_job_cancelled_and_one_left_behind(built, slurm, start, tmp_path):
    """sbatch --wait ends with 0 where its job was cancelled. A job whose make was killed is cancelled by the next."""
    (leaf(built, 2, "310P3") / "model.om").unlink(missing_ok=True)
    words = ("MODEL=tiny", "CHIP=310P3", "BS=2", "om", *SBATCH)
    make = start(*words)
    begun(slurm, tmp_path)
    slurm.ask("scancel", slurm.jobs()[0][0])
    out, err = make.communicate(timeout=100)
    assert make.returncode == 2 and "left no result" in err and "then lost or cancelled" in err, out + err
    assert not (leaf(built, 2, "310P3") / "model.om").exists()

    (tmp_path / "begun").unlink()
    make = start(*words)
    begun(slurm, tmp_path)
    os.killpg(make.pid, signal.SIGKILL)
    make.communicate()
    (orphan,) = slurm.jobs()
    out, err = (make := start(*words)).communicate(timeout=100)
    assert make.returncode == 0, out + err
    slurm.until(lambda: orphan[0] not in [job[0] for job in slurm.jobs()], "the orphan is gone")


def test_an_interrupted_make_cancels_its_job(slurm, start, tmp_path):
    make = start("MODEL=tiny", "CHIP=310P3", "BS=4", "om", *SBATCH)
    begun(slurm, tmp_path)
    os.killpg(make.pid, signal.SIGTERM)
    make.communicate(timeout=60)
    slurm.until(lambda: slurm.jobs() == [], "no job is left")


def test_a_controller_that_restarts_is_waited_for(built, slurm, start, tmp_path):
    """While a job runs, and before one is submitted: neither is lost, and neither runs twice."""
    for bs, restarted_when_it_runs in ((8, True), (16, False)):
        (leaf(built, bs, "310P3") / "model.om").unlink(missing_ok=True)
        (tmp_path / "begun").unlink(missing_ok=True)
        if not restarted_when_it_runs:
            (tmp_path / "begun").touch()
            slurm.end("ctld")
        make = start("MODEL=tiny", "CHIP=310P3", f"BS={bs}", "om", *SBATCH)
        if restarted_when_it_runs:
            begun(slurm, tmp_path)
            slurm.end("ctld")
        with pytest.raises(subprocess.TimeoutExpired):
            make.communicate(timeout=15)
        slurm.start("ctld", "slurmctld", "-D", "-f", slurm.config)
        if restarted_when_it_runs:
            (tmp_path / "go").touch()
        out, err = make.communicate(timeout=200)
        assert make.returncode == 0, out + err
        assert (leaf(built, bs, "310P3") / "model.om").exists() and "restarted" not in err
    slurm.until(lambda: slurm.states() == {"n1": "idle", "n2": "idle"}, "both nodes are idle")
