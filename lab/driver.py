"""What `make score` costs beside scoring: its driver with a scorer that answers at once, small files on Ray, a head that dies.

    .venv-scale/bin/python -m lab.driver --model model.onnx --tokenizer_path checkpoint --save_path results/driver.md

    | | where | files | parts | stands for rows | seconds | parts/s | CPU ms a part |

The scorer that answers at once names parts that it does not write, as many as the sizes of the files stand for at ROW bytes a
row; the files are holes. Listing and taking in the inputs, handing out the work, the answers' way back and the manifest are
score's own. Ray is one head of --cpus processors on this machine, which it shares with the driver; joining it is not counted.
The small files are scored in earnest, each time by a process of its own, with its start.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from lab.end_to_end import where
from tools.make import cli, cpu
from tools.scale import cluster, files, parts, score

ROW = 100  # bytes of a row
RUNS = (  # a name, files, bytes of each, rows of a part, on Ray
    ("files of a part", 10_000, 10_000_000, 100_000, False),
    ("twice as many", 20_000, 10_000_000, 100_000, False),
    ("four times as many", 40_000, 10_000_000, 100_000, False),
    ("files of a part", 1000, 10_000_000, 100_000, True),
    ("twice as many", 2000, 10_000_000, 100_000, True),
    ("10^8 rows", 100, 100_000_000, 1 << 16, True),
    ("10^8 rows in parts of 8,192", 100, 100_000_000, 1 << 13, True),
    ("10^9 rows, parts as they come", 1000, 100_000_000, 1 << 24, True),
)
SMALL = 500  # files of ten rows


def instant(fields, beats, address, selection, rows, unit, share):
    """As cluster.task, of parts that nobody makes."""
    number, sources, _ = unit
    total = sum(source.size for source in sources) // ROW
    count = -(-total // rows)
    entry = {"duplicates": 0, "cut": 0, "amiss": 0, "bytes": 0, "sha256": "0" * 64}
    for k in range(share[0], count, share[1]):
        yield {"part": f"{address}/{number:05d}-{k:05d}.parquet", "rows": min(rows, total - k * rows), **entry}
    yield number, count, {source.name: "0" * 64 for source in sources}


def drive(args) -> None:
    """Print {parts, rows, seconds, cpu} of one of RUNS, as JSON. It replaces what score calls: for a process of its own."""
    _, count, size, rows, ray = RUNS[args.one]
    joined, connect = {"seconds": 0.0, "cpu": 0.0}, cluster.connect

    def join(address):
        start, spent = time.perf_counter(), time.process_time()
        connect(address)
        joined.update(seconds=time.perf_counter() - start, cpu=time.process_time() - spent)

    cluster.connect, cluster.task = join, instant
    parts.sizes = lambda *how: (rows, float(ROW))
    parts.make_parts = lambda model, out, selection, units, rows, progress: (
        entry for unit in units for entry in instant((), None, out.address, selection, rows, unit, (0, 1))
    )
    score.load = lambda args, progress: None
    score.select = lambda args, names, sources: files.Selection(
        score.tasks.by_name(args.task), tuple(names), (("text",),)
    )
    with tempfile.TemporaryDirectory() as box:
        (Path(box) / "in").mkdir()
        for k in range(count):
            with (Path(box) / f"in/{k:06d}.csv").open("wb") as file:
                file.truncate(size)
        sys.argv = ["score.py", *words(args, f"{box}/in", f"{box}/out"), *["--cluster", args.address] * ray]
        start, spent = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            score.main()
        seconds, spent = time.perf_counter() - start - joined["seconds"], time.process_time() - spent - joined["cpu"]
        manifest = cli.read_json(f"{box}/out/{parts.MANIFEST}")
    print(json.dumps({"parts": len(manifest["parts"]), "rows": manifest["rows"], "seconds": seconds, "cpu": spent}))


def words(args, source: str, out: str) -> list[str]:
    """The options of score."""
    model = ["--model", str(args.model), "--tokenizer_path", str(args.tokenizer_path)]
    return [*model, "--input", source, "--save_path", out, "--columns", "text"]


def timed(command) -> float:
    """The seconds of a command; UserError where it fails, with its last line."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cli.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise cli.UserError((done.stderr.strip().splitlines() or ["no word"])[-1])
    return time.perf_counter() - start


@contextlib.contextmanager
def head(cpus: int):
    """A Ray of one node: (its address, its process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"]
    how = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as at, tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*ray, *how, f"--temp-dir={at}"], stdout=log, stderr=log, start_new_session=True)
        address = f"127.0.0.1:{port}"
        try:
            while not cluster.listens(address) and process.poll() is None:
                time.sleep(0.5)
            time.sleep(5)  # the node joins
            yield address, process
        finally:
            end(process)


def end(process) -> None:
    """SIGKILL of all processes of its session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(") ", 1)[1].split()[3]) == process.pid:
                os.kill(int(path.parent.name), signal.SIGKILL)
    process.wait()


def dies(args, address: str, process) -> tuple[float, str]:
    """(seconds from the death of the head to the end of a job, all that the job says then)."""
    with tempfile.TemporaryDirectory() as box:
        source, out = Path(box, "a.csv"), Path(box, "out")
        source.write_text("text\n" + "a fine film\n" * 400_000)
        command = [sys.executable, "-m", "tools.scale.score", *words(args, str(source), str(out))]
        command += ["--rows", "2", "--cluster", address]
        job = subprocess.Popen(command, cwd=cli.ROOT, stderr=subprocess.PIPE, text=True)
        while not list(out.glob("*.parquet")) and job.poll() is None:
            time.sleep(0.1)
        end(process)
        start = time.perf_counter()
        _, message = job.communicate()
    return time.perf_counter() - start, message.strip()


def main():
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="compiled with open batch and length (SEQ=real)")
    p.add_argument("--tokenizer_path", type=Path, required=True, help="checkpoint folder")
    p.add_argument("--cpus", type=int, default=cpu.cores(), help="of Ray (%(default)s)")
    p.add_argument("--save_path", type=Path, help="where the page goes")
    p.add_argument("--one", type=int, help=argparse.SUPPRESS)
    p.add_argument("--address", help=argparse.SUPPRESS)
    args = p.parse_args()
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")  # a cluster of this host alone
    args.model, args.tokenizer_path = args.model.resolve(), args.tokenizer_path.resolve()
    if args.one is not None:
        return drive(args)
    same = ["--model", args.model, "--tokenizer_path", args.tokenizer_path]
    lines = [f"On {where()}; Ray with {args.cpus} processors.\n"]
    lines += ["| | on | files | parts | rows | seconds | parts/s | CPU ms a part |"]
    lines += ["| :-- | :-- | --: | --: | --: | --: | --: | --: |"]
    with head(args.cpus) as (address, process), tempfile.TemporaryDirectory() as box:
        for k, (name, count, _, _, ray) in enumerate(RUNS):
            command = [sys.executable, "-m", "lab.driver", *same, "--one", k, "--address", address]
            done = subprocess.run(list(map(str, command)), cwd=cli.ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise cli.UserError(f"{name}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
            r = SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]))
            figures = f"{r.seconds:.1f} | {r.parts / r.seconds:.0f} | {1000 * r.cpu / r.parts:.2f}"
            lines += [
                f"| {name} | {'Ray' if ray else 'one machine'} | {count:,} | {r.parts:,} | {r.rows:,} | {figures} |"
            ]
            print(lines[-1], file=sys.stderr, flush=True)
        (Path(box) / "in").mkdir()
        for k in range(SMALL):
            (Path(box) / f"in/{k}.csv").write_text("text\n" + "a fine film\n" * 10)
        score_of = lambda out: [sys.executable, "-m", "tools.scale.score", *words(args, f"{box}/in", f"{box}/{out}")]
        here, there = timed(score_of("here")), timed([*score_of("there"), "--cluster", address])
        seconds, message = dies(args, address, process)
    both = f"{here:.1f} s on one machine, {there:.1f} s on Ray"
    lines += [f"\n{SMALL} files of ten rows, scored with the start of all processes: {both}."]
    count = len(message.splitlines())
    lines += [f"\nA head that is killed: {seconds:.1f} s later the job ends and has said {count} line: {message}"]
    text = "\n".join(lines)
    if args.save_path:
        cli.write(args.save_path, f"{text}\n")
    return print(text)


if __name__ == "__main__":
    cli.run(main)
