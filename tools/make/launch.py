"""Run the commands of a step on another machine, behind a prefix such as `srun`, or as a job of Slurm.

    python3 -m tools.make.run --step infer --launch "srun -N1 -n1 --gres=npu:1" TARGET PREREQUISITE... -- COMMAND...
    python3 -m tools.make.run --step infer --launch "slurm --gres=npu:1" TARGET PREREQUISITE... -- COMMAND...

    infer      n2, job 41, device 0: 872 rows in 109 requests     [3 done, 2 running, 5 waiting]     12.4 s

Both machines share the folder of the checkout. `perform` leaves the step's commands in <box>/job.json and starts `PREFIX env
-C <checkout> python -m tools.make.launch <box>`; `slurm` stands for `sbatch`. There, each attempt works in a folder of its
own, and links its result.json to its name last: the first one there is the answer. Exit codes cannot be trusted: srun
returns 0 when a node is lost, sbatch as soon as the job is queued. Slurm queues a job again that loses its node; behind any
other prefix the step fails, and the next `make` runs it.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.make import cli, cpu, screen

# What make exports and the commands depend on: a scheduler may not pass the environment on.
CARRIED = ("LC_ALL", "PYTHONHASHSEED", cpu.MAX_ISA)
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"  # CANN: which devices a process sees, numbered from 0 for it
# Messages of a full queue, and of a Slurm controller that does not answer: both are asked again after AGAIN seconds.
FULL = re.compile(r"temporarily unavailable|temporarily unable|submit limit|MaxSubmit", re.I)
AWAY = re.compile("contact slurm controller|controller not responding|timed out on send/recv|zero bytes were|"
                  "in standby mode|connection (failure|refused)", re.I)  # fmt: skip
AGAIN = 10.0
LATE = 5.0  # seconds that a shared folder may need to show a file that another machine wrote


# ---- On make's machine


def perform(prefix: list[str], alone: bool, commands: list[list[str]], box: Path, step) -> tuple[Path, dict]:
    """The same as screen.Step.perform, on another machine: (the path of what the commands wrote, when and where they ran).

    box: an empty folder that both machines see; step: the screen.Step, which gets the output. UserError if a command failed,
    or no attempt left a result.
    """
    job = {"commands": commands, "target": str(step.target), "alone": alone, "host": platform.node()}
    job |= {"env": {k: os.environ[k] for k in CARRIED if k in os.environ}, "visible": os.environ.get(VISIBLE)}
    (box / "job.json").write_text(json.dumps(job))
    with board(step) as tell:
        result = wait_for_result(command_of(prefix, box), box, tell)
    product, place = box / result["made"], {k: result[k] for k in ("node", "job", "device")}
    step.take((product.parent / "log").read_bytes())
    if result["failed"]:
        raise cli.UserError(f"{result['failed']} (on {result['node']})")
    step.where = ", ".join([place["node"], *(f"{k} {place[k]}" for k in ("job", "device") if place[k] is not None)])
    return product, result["ran"] | {"machine": result["machine"], "launched": place}


def command_of(prefix: list[str], box: Path) -> list[str]:
    """The command that runs `main` of this file elsewhere."""
    words = ["env", "-C", str(Path.cwd()), sys.executable, "-m", "tools.make.launch", str(box)]
    if prefix[0] == "slurm":
        how = ["--requeue", "-N1", "-n1", "--job-name", job_name(box), "--open-mode=append"]
        log = ["--output", str(box.absolute() / "job.log")]
        return ["sbatch", *prefix[1:], *how, *log, "--wrap", f"exec {shlex.join(words)}"]
    if Path(prefix[0]).name == "ssh":  # its words are read by a shell
        words = [shlex.quote(word) for word in words]
    return [*prefix, *words]


def job_name(box: Path) -> str:
    """A name that no other job has: that of the job's temporary folder."""
    return f"bert2om{box.absolute().parent.name}{box.name}"


def wait_for_result(command: list[str], box: Path, tell) -> dict:
    """The content of result.json, once it is there. Raises UserError if nothing is left that could write one."""
    while True:
        result, status, text = attempt(command, box, tell)
        if result:
            return result
        refused = FULL.search(text) or (command[0] == "sbatch" and AWAY.search(text))
        if read_if_there(box / "started.json") or not refused:
            return late_result(box, command[0], status, text)
        tell(None)
        time.sleep(AGAIN)


def attempt(command: list[str], box: Path, tell) -> tuple[dict | None, int, str]:
    """Launch the commands, and wait until result.json is there, or the launcher and its job have ended without one: (the
    content of that file or None, the launcher's exit status, what it printed)."""
    if not shutil.which(command[0]):
        raise cli.UserError(f"LAUNCH: {command[0]} is not on PATH here")
    with tempfile.TemporaryFile() as output:
        null, ends, looked, launcher = subprocess.DEVNULL, cli.die_with_parent, 0.0, None
        said = lambda: (output.seek(0), output.read().decode(errors="replace").strip())[1]
        try:  # a signal may come before Popen has returned
            launcher = subprocess.Popen(command, stdin=null, stdout=output, stderr=output, preexec_fn=ends)
            while not (result := read_if_there(box / "result.json")):
                tell(read_if_there(box / "started.json"))
                if launcher.poll() is not None and time.monotonic() > looked + AGAIN:
                    if not looked and command[0] == "sbatch" and AWAY.search(said()):
                        screen.moving("")
                        print("launch     no Slurm controller answers; asked until one does", file=sys.stderr)
                    if command[0] != "sbatch" or not queued(box):
                        break
                    looked = time.monotonic()
                time.sleep(0.2)
            else:  # the launcher is about to end
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(timeout=LATE)
        except BaseException:
            forget(box)
            raise
        finally:
            if launcher:
                launcher.terminate()
                launcher.wait()
        return result, launcher.returncode, said()


def queued(box: Path) -> bool:
    """Whether Slurm has a job of this box that waits or runs. If Slurm does not answer, we take it that there is one."""
    jobs = ["squeue", "--noheader", "--name", job_name(box)]
    listing = subprocess.run(jobs, capture_output=True, text=True, check=False)
    return listing.returncode != 0 or bool(listing.stdout.strip())


def late_result(box: Path, program: str, status: int, text: str) -> dict:
    """The content of result.json, if it comes late; else UserError with all that is known."""
    start, log, end = read_if_there(box / "started.json"), box / "job.log", time.monotonic() + LATE
    while start and time.monotonic() < end:
        with tempfile.TemporaryFile(dir=box):  # over NFS, the folder is then read anew
            if result := read_if_there(box / "result.json"):
                return result
        time.sleep(0.5)
    where = f"begun on {start['node']}" if start else "never begun"
    lines = (text + "\n" + (log.read_text(errors="replace") if log.exists() else "")).strip().splitlines()
    why = ": " * bool(lines) + " / ".join(lines[-3:])[:300]
    raise cli.UserError(
        f"{program} ended (exit {status}) and left no result; {where}, then lost or cancelled{why}; run make again"
    )


def read_if_there(path: Path) -> dict | None:
    """The content of a JSON file, which is whole or absent; None if it is absent."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def forget(box: Path) -> None:
    """Cancel the job of a box for which nobody waits any more, if there is one, and a Slurm."""
    with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
        subprocess.run(["scancel", "--name", job_name(box)], capture_output=True, timeout=60, check=False)


@contextlib.contextmanager
def board(step):
    """Count the launched steps of this make; each has a file that says done, running or waiting.

    Yields tell(the content of started.json, None while the step waits). The counts are shown while the step runs and at its
    end. BERT2OM_MAKE, which the Makefile exports, is the process id of make.
    """
    host = f"{platform.node()}."
    folder = Path("build/.launch", host + os.environ.get("BERT2OM_MAKE", str(os.getppid())))
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob(f"{host}*"):
        if not Path("/proc", other.name.removeprefix(host)).exists():
            shutil.rmtree(other, ignore_errors=True)
    mine = folder / step.target.as_posix().replace("/", "_")

    def tell(started: dict | None, state: str = "") -> None:
        state = state or ("running" if started else "waiting")
        if not mine.exists() or mine.read_text() != state:
            mine.write_text(state)
        states = [file.read_text() for file in folder.iterdir()]
        step.counts = ", ".join(f"{states.count(word)} {word}" for word in ("done", "running", "waiting"))
        step.progress = f"{'on ' + started['node'] if started else 'waiting in the queue'}  [{step.counts}]"
        step.move()

    tell(None)
    end = "lost"
    try:
        yield tell
        end = "done"
    finally:
        tell(None, end)


# ---- On the other machine


def device_of(job: str | None, node: str) -> str | None:
    """The devices that Slurm gave this job on this node, such as `0`; None if it gives none, or no numbers."""
    if not job or not shutil.which("scontrol"):
        return None
    details = subprocess.run(["scontrol", "show", "job", "-d", job], capture_output=True, text=True, check=False)
    line = re.search(rf"Nodes={re.escape(node)} .*GRES=\S+?\(IDX:([\d,-]+)\)", details.stdout)
    return line[1] if line else None


def lock_machine(alone: bool, host: str) -> int:
    """Wait until no step is timed on this machine; alone: until no step runs on it. The lock's file, which stays open.

    On make's own machine this is the lock of make's own steps.
    """
    path = Path("Makefile")
    if platform.node() != host:
        path = Path(tempfile.gettempdir(), "bert2om.lock")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    return fd


def write_once(path: Path, value: dict) -> bool:
    """Write a whole file under its name; False if there is one already."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as f:
        json.dump(value, f)
        f.flush()
        os.fsync(f.fileno())
        try:
            os.link(f.name, path)
        except FileExistsError:
            return False
    return True


def main():
    p = cli.parser(__doc__)
    p.add_argument("box", type=Path, help="the folder that holds job.json")
    box = p.parse_args().box
    job = cli.read_json(box / "job.json")
    number, node = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME", platform.node())
    device = device_of(number, node)
    if device is not None and os.environ.get(VISIBLE) == job["visible"]:  # Slurm knows of the device, CANN not yet
        os.environ[VISIBLE] = device
    os.environ.update(job["env"])
    lock_machine(job["alone"] and device is None, job["host"])
    facts = {"node": node, "job": number, "device": device, "machine": cpu.machine(), "started": time.time()}
    cli.write(box / "started.json", json.dumps(facts))  # in place of that of an attempt whose node was lost
    folder, step = Path(tempfile.mkdtemp(dir=box, prefix="run.")), screen.Step("", Path(job["target"]))
    times, error = {}, None
    try:
        _, times = step.perform(job["commands"], folder)
    except cli.UserError as e:
        error = str(e)
    (folder / "log").write_text(step.log_text())
    facts |= {"made": f"{folder.name}/{step.final.name}", "ran": times, "failed": error}
    first = write_once(box / "result.json", facts)
    print(f"{step.final.name}: {error or 'made'}{'' if first else ', but another attempt was first'}")


if __name__ == "__main__":
    cli.run(main)
