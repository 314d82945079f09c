"""A Slurm of this host's own: one slurmctld and two slurmd (n1, n2; a device `npu` each) on 127.0.0.1, as root.

Without munge, systemd or cgroups, so nothing of the host is changed; Debian's package slurm-wlm holds the programs.
"""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
SETTINGS = """
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool/%n
SlurmctldPidFile={at}/ctld.pid
SlurmdPidFile={at}/%n.pid
SlurmctldLogFile={at}/ctld.log
SlurmdLogFile={at}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
GresTypes=npu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=4
MinJobAge=2
MaxJobCount={jobs}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=npu:1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=npu:1 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here, in words."""
    gone = [name for name in PROGRAMS if not shutil.which(name)]
    if gone:
        return f"{gone[0]} is not here: apt-get install slurm-wlm"
    return None if os.geteuid() == 0 else "a slurmd without munge needs root"


class Slurm:
    def __init__(self, at: Path, jobs: int = 1000):
        """Start it in folder `at`, which takes its files; at most `jobs` jobs are known to it at a time."""
        self.at, self.config, self.daemons = at, at / "slurm.conf", {}
        for name in ("state", "spool"):
            (at / name).mkdir(parents=True)
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            for free in (a, b, c):
                free.bind(("127.0.0.1", 0))
            ports = [free.getsockname()[1] for free in (a, b, c)]
        host = platform.node().split(".")[0]
        self.config.write_text(SETTINGS.format(at=at, host=host, ports=ports, jobs=jobs))
        (at / "gres.conf").write_text("NodeName=n1 Name=npu File=/dev/null\nNodeName=n2 Name=npu File=/dev/zero\n")
        self.env = {"SLURM_CONF": str(self.config)}
        self.start("ctld", "slurmctld", "-D", "-f", self.config)
        self.node("n1"), self.node("n2")
        self.until(lambda: self.states() == {"n1": "idle", "n2": "idle"}, "both nodes are idle")

    def start(self, name: str, *command) -> None:
        """A daemon in a process group of its own, so that a node can be killed with all that runs on it."""
        with (self.at / f"{name}.out").open("w") as out:
            self.daemons[name] = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out,
                                                  env=os.environ | self.env, start_new_session=True)  # fmt: skip

    def node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name, "-f", self.config)

    def ask(self, *command) -> str:
        done = subprocess.run(list(map(str, command)), env=os.environ | self.env, capture_output=True, text=True)
        return done.stdout

    def states(self) -> dict[str, str]:
        """State of each node, such as idle, mixed, allocated, down*."""
        return dict(line.split() for line in self.ask("sinfo", "-hN", "-o", "%N %T").splitlines())

    def jobs(self) -> list[list[str]]:
        """[id, name, state, node] of each job that waits or runs."""
        lines = self.ask("squeue", "-h", "-t", "PD,R,CF,CG", "-o", "%i|%j|%T|%N").splitlines()
        return [line.split("|") for line in lines]

    def log(self) -> str:
        """What the controller logged."""
        return (self.at / "ctld.log").read_text(errors="replace")

    def until(self, true, what: str, seconds: float = 90) -> None:
        """Wait until true(); AssertionError with what was waited for."""
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, f"waited {seconds} s in vain until {what}: {self.states()} {self.jobs()}"
            time.sleep(0.2)
        return found

    def kill(self, name: str) -> None:
        """SIGKILL of a node: its daemon, its job steps' managers, and all that these started."""
        for pid in reversed(descendants(self.daemons[name].pid) + self.stepds(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemons.pop(name).wait()

    def end(self, name: str) -> None:
        """SIGTERM of a daemon, as a restart sends it."""
        self.daemons[name].terminate()
        self.daemons.pop(name).wait()

    def stepds(self, name: str) -> list[int]:
        """The managers of a node's job steps, which leave slurmd's tree: those whose socket is in its spool folder."""
        pids = set()
        for line in Path("/proc/net/unix").read_text().splitlines():
            if f"{self.at}/spool/{name}/" in line:
                pids |= holders(line.split()[6])
        return [p for pid in pids for p in descendants(pid)]

    def stop(self) -> None:
        for name in [n for n in self.daemons if n != "ctld"]:
            self.kill(name)
        if "ctld" in self.daemons:
            self.kill("ctld")


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and those started, parents first."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def holders(inode: str) -> set[int]:
    """The processes that hold a socket."""
    found = set()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(fd.readlink()) == f"socket:[{inode}]":
                found.add(int(fd.parts[2]))
        except OSError:
            continue
    return found
