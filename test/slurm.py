"""A Slurm of this host's own: one slurmctld and two slurmd (n1, n2; a device `npu` each) on 127.0.0.1, as root.

Without munge, systemd or cgroups, so nothing of the host is changed; Debian's package slurm-wlm holds the programs.
"""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

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
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
GresTypes=npu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=4
MinJobAge=2
MessageTimeout=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=npu:1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=npu:1 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here, in words."""
    if gone := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"{gone[0]} is not here: apt-get install slurm-wlm"
    return None if os.geteuid() == 0 else "a slurmd without munge needs root"


class Slurm:
    def __init__(self, at: Path):
        """Start it in folder `at`, which takes its files."""
        self.at, self.config, self.daemons = at, at / "slurm.conf", {}
        for name in ("state", "spool"):
            (at / name).mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [one.getsockname()[1] for one in free]
        host = platform.node().split(".")[0]
        self.config.write_text(SETTINGS.format(at=at, host=host, ports=ports))
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
        return subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True).stdout

    def states(self) -> dict[str, str]:
        return dict(line.split() for line in self.ask("sinfo", "-hN", "-o", "%N %T").splitlines())

    def jobs(self) -> list[str]:
        return self.ask("squeue", "-h", "-t", "PD,R,CF,CG", "-o", "%i").split()

    def until(self, true, what: str, seconds=90) -> None:
        """Wait until true(); AssertionError with what was waited for."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited {seconds} s in vain until {what}: {self.states()} {self.jobs()}"
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """SIGKILL of a node: its daemon, and its job steps' managers, which have left its tree but hold a socket of its."""
        spool = f"{self.at}/spool/{name}/"
        managers = {c.pid for c in psutil.net_connections("unix") if c.pid and c.laddr.startswith(spool)}
        daemon = self.daemons.pop(name)
        kill(daemon.pid, *managers)
        daemon.wait()

    def stop(self) -> None:
        for name in sorted(self.daemons, reverse=True):  # the controller last
            self.kill(name)


def kill(*pids: int) -> None:
    """SIGKILL of processes and of all that they started, parents first: none can say that its child was killed."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [parent := psutil.Process(pid), *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
