"""Kill the pipeline at random moments; one plain make must then give what an undisturbed build gives.

    python tools/torture.py build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32/score.json --runs 100 -- MODEL=tiny

    torture: 100 runs killed (-j1 48, -j8 52; two makes at once 33), converged to the same bytes each time

The arguments are make's goals and, after --, its parameters. It works in a clean copy under build/torture. A run
starts one make, or two at once, and kills their whole process groups (SIGKILL) after a random part of the time an
undisturbed build takes; sometimes the copy's build/ is removed first. After each, one make has to end well, leave no
temporary file, and give the same bytes; nothing is cleaned by hand.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

import cli
import reproduce

HOME = Path("build/torture")


def start(folder: Path, jobs: int, words: list[str]) -> subprocess.Popen:
    """A make of its own process group, silent."""
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["make", f"-j{jobs}", *words], cwd=folder, env=clean, start_new_session=True, **quiet)


def kill(run: subprocess.Popen) -> None:
    """SIGKILL a whole process group and wait for its leader."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def snapshot(folder: Path) -> dict[str, bytes]:
    """{name: bytes that must not vary} of what a build made."""
    return {name: reproduce.comparable(path) for name, path in reproduce.made(folder).items()}


def converge(folder: Path, words: list[str], want: dict[str, bytes], run: int) -> None:
    """One plain make; UserError unless it gives `want` and nothing else."""
    if error := reproduce.make(folder, words):
        raise cli.UserError(f"run {run}: after the kill, make failed: {error}")
    have = snapshot(folder)
    stray = sorted(n for n in have.keys() - want.keys())
    if stray:
        raise cli.UserError(f"run {run}: {folder}/{stray[0]} was left behind")
    unlike = sorted(n for n in want if have.get(n) != want[n])
    if unlike:
        raise cli.UserError(f"run {run}: {folder}/{unlike[0]} is not what an undisturbed build makes")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    p.add_argument("--runs", type=int, default=100, help="how many are killed (%(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the random moments (%(default)s)")
    args = p.parse_args()
    folder, dice, tally = reproduce.clean_copy(HOME), random.Random(args.seed), Counter()
    began = time.monotonic()
    if error := reproduce.make(folder, args.goals):
        raise cli.UserError(f"the undisturbed build failed: {error}")
    length, want = time.monotonic() - began, snapshot(folder)
    for run in tqdm(range(1, args.runs + 1), desc="killed", unit="run", disable=None):
        if dice.random() < 0.5:
            shutil.rmtree(folder / "build" / "data", ignore_errors=True)
        for path in [p for p in reproduce.made(folder).values() if dice.random() < 0.01]:
            path.unlink()
        jobs, twice = dice.choice([1, 8]), dice.random() < 0.33
        runs = [start(folder, jobs, args.goals) for _ in range(1 + twice)]
        time.sleep(dice.random() * length)
        for one in runs:
            kill(one)
        tally[f"-j{jobs}"] += 1
        tally["twice"] += twice
        converge(folder, args.goals, want, run)
    shutil.rmtree(HOME)
    print(
        f"torture: {args.runs} runs killed (-j1 {tally['-j1']}, -j8 {tally['-j8']}; two makes at once {tally['twice']}), "
        "converged to the same bytes each time"
    )


if __name__ == "__main__":
    cli.run(main)
