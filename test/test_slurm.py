"""LAUNCH= on a real Slurm of two nodes, which the tests start themselves; the chips are the stand-ins for CANN."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
import slurm as cluster
from conftest import VENV, lay
from fake_cann import tiny

pytestmark = pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing()))
SBATCH = ("LAUNCH=slurm", "SLURM_ARGS=--gres=npu:1")
SRUN = ("LAUNCH=srun -N1 -n1 --exclusive --gres=npu:1",)
TABLE = ["MODEL=tiny", "CHIPS=310P3 910B3", "BATCHES=1", "PRECISIONS=fp16", "SAMPLES=8", "ROUNDS=2", "perf-table"]
SLOW = """#!/bin/sh
# atc for 310P3 takes for ever, once
case "$*" in *Ascend310P3*)
    if ! [ -e {0}/begun ]; then echo $SLURMD_NODENAME > {0}/new; mv {0}/new {0}/begun
        for i in $(seq 300); do [ -e {0}/go ] && break; sleep 1; done; fi;;
esac
exec {1} "$@"
"""


@pytest.fixture(scope="module")
def slurm(built, tmp_path_factory):
    """A job without a result, and a controller that is away, are asked for again after 1 second, not after 10."""
    source = built.path / "tools/make/launch.py"
    before = source.stat()
    source.write_text((text := source.read_text()).replace("\nAGAIN = 10.0\n", "\nAGAIN = 1.0\n"))
    slurm = cluster.Slurm(tmp_path_factory.mktemp("slurm"))
    yield slurm
    slurm.stop()
    source.write_text(text)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # so that nothing is made again in other tests


@pytest.fixture
def start(built, slurm, tmp_path):
    """start(*words): make in the copy, atc for 310P3 being endless the first time; the running process."""
    lay(tmp_path, {"bin/atc": SLOW.format(tmp_path, tiny.HERE / "bin/atc")})
    env = tiny.environment(FAKE_NPU="", PATH=f"{tmp_path}/bin:{tiny.environment()['PATH']}", **slurm.env)
    running = []

    def run(*words):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        make = ["make", f"VENV={VENV}", "MODEL=tiny", *words]
        running.append(subprocess.Popen(make, cwd=built.path, env=env, start_new_session=True, **pipes))
        return running[-1]

    yield run
    for make in running:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
        make.communicate()


def ended(make, status=0):
    """What a make has said, now that it has ended with `status`."""
    said = "".join(make.communicate(timeout=200))
    assert make.returncode == status, said
    return said


def leaf(repo, bs=2, chip="310P3"):
    return repo.path / f"build/tiny/default/seq64/bs{bs}/{chip}-atc-fp16"


def begun(slurm, tmp_path):
    slurm.until((tmp_path / "begun").exists, "atc runs")
    return (tmp_path / "begun").read_text().strip()


def lose(slurm, node):
    """SIGKILL of a node, of which Slurm learns sooner than by its timeout."""
    slurm.kill(node)
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")


def test_a_table_over_two_nodes(built, slurm, start, tmp_path):
    """Six jobs, each on a device that Slurm grants; the records say where."""
    (tmp_path / "begun").touch()
    said = ended(start("-j32", *TABLE, *SBATCH))
    assert re.search(r"time .*\[6 done, 0 running, 0 waiting\]", said), said
    read, ran = lambda path: json.loads(path.read_text()), []
    for at in (leaf(built, 1, chip) for chip in ("310P3", "910B3")):
        rounds = [read(at / f"round{k}/MANIFEST.prov.json")["run"]["launched"] for k in (1, 2)]
        assert read(at / "perf.json")["launched"] == rounds
        ran += rounds
    assert len({where["job"] for where in ran}) == 4 and {where["device"] for where in ran} == {"0"}
    assert {where["node"] for where in ran} <= {"n1", "n2"}  # a quick one may take all jobs
    ended(start("-q", *TABLE, *SBATCH))


def test_a_node_killed_behind_srun_costs_its_cell(built, slurm, start, tmp_path):
    """srun says "Node failure" and ends with 0."""
    models = [leaf(built, 2, chip) / "model.om" for chip in ("310P3", "910B3")]
    words = ("-k", "-j8", "CHIPS=310P3 910B3", "BATCHES=2", *(str(m.relative_to(built.path)) for m in models), *SRUN)
    make = start(*words)
    lose(slurm, node := begun(slurm, tmp_path))
    assert f"begun on {node}, then lost or cancelled" in ended(make, 2)
    assert not models[0].exists()
    other = models[1].stat()
    slurm.node(node)
    assert "1 done, 0 running, 0 waiting" in ended(start(*words)) and models[1].stat() == other


OM = ("CHIP=310P3", "BS=2", "om", *SBATCH)


@pytest.fixture
def om(built):
    (model := leaf(built) / "model.om").unlink(missing_ok=True)
    return model


def test_a_node_killed_under_a_job_of_slurm_costs_nothing(om, slurm, start, tmp_path):
    """Slurm queues the job again; of the killed attempt nothing is left."""
    make = start(*OM)
    lose(slurm, node := begun(slurm, tmp_path))
    ended(make)
    slurm.node(node)
    where = json.loads(om.with_name("model.om.prov.json").read_text())["run"]["launched"]
    assert where["node"] == {"n1": "n2", "n2": "n1"}[node]
    assert not [p for p in om.parent.iterdir() if p.name.startswith(".")]
    slurm.until(lambda: slurm.states()[node] == "idle", "the node is back")


def test_a_job_cancelled_and_those_left_behind(om, slurm, start, tmp_path):
    """sbatch ended with 0 long before its job was cancelled. The job of a make that was stopped is cancelled, after SIGKILL
    by the next one."""
    make = start(*OM)
    begun(slurm, tmp_path)
    slurm.ask("scancel", *slurm.jobs())
    said = ended(make, 2)
    assert "left no result" in said and "then lost or cancelled" in said and not om.exists()
    for number in (signal.SIGTERM, signal.SIGKILL):
        (tmp_path / "begun").unlink()
        make = start(*OM)
        begun(slurm, tmp_path)
        (job,) = slurm.jobs()
        os.killpg(make.pid, number)
        make.communicate(timeout=60)
        if number == signal.SIGKILL:
            ended(start(*OM))
        slurm.until(lambda job=job: job not in slurm.jobs(), "the job is gone")


def test_a_controller_that_restarts_is_waited_for(om, built, slurm, start, tmp_path):
    """By a job that runs, and by one that is yet to be submitted: neither is lost."""
    runs = start(*OM)
    begun(slurm, tmp_path)
    slurm.daemons["ctld"].terminate()
    slurm.daemons.pop("ctld").wait()
    real, away = shutil.which("sbatch"), tmp_path / "away"
    lay(tmp_path, {"bin/sbatch": f'#!/bin/sh\n[ -e {away} ] && exec {real} "$@"\n{real} "$@" || ! touch {away}\n'})
    other = leaf(built, 1) / "model.om"
    other.unlink(missing_ok=True)
    waits = start("CHIP=310P3", "BS=1", "om", *SBATCH)
    slurm.until(away.exists, "sbatch fails")
    slurm.start("ctld", "slurmctld", "-D", "-f", slurm.config)
    (tmp_path / "go").touch()
    assert "no Slurm controller answers" in ended(runs) + ended(waits) and om.exists() and other.exists()
