"""Kill the pipeline at random moments; one plain make must then give what an undisturbed build gives.

    python -m tools.checks.torture --runs 100 build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32/accuracy.txt

    ...
    run 100: build/.../accuracy.json removed, -j1, killed after 1.0 s while making accuracy.json; the same bytes
    torture: 100 runs killed (-j1 42, -j8 58; two makes at once 35), the same bytes after each
    killed while making: accuracy.json 19, accuracy.txt 3, cpu.onnx 7, model.onnx 3, nothing 47, output 14, ...

The arguments are make's goals and, after --, its parameters. It works in a clean copy under build/torture. A run
removes one artefact, so that it and all that is made from it have to be made again, starts one make, or two at once,
and kills their whole process groups (SIGKILL) at a random moment of the time that this takes. Then one make has to end
well, leave no temporary file, and give the same bytes; nothing is cleaned by hand. The artefact is drawn at random,
the ones near the end, which are soon made again, much more often. The last line says what was being made at the kill:
nothing, where it fell before, between or after the steps.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tools import cli
from tools.checks import reproduce

HOME = Path("build/torture")
PROV = ".prov.json"


def start(folder: Path, jobs: int, words: list[str]) -> subprocess.Popen:
    """A make of its own process group, silent."""
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["make", f"-j{jobs}", *words], cwd=folder, env=clean, start_new_session=True, **quiet)


def kill(run: subprocess.Popen) -> bool:
    """SIGKILL a whole process group and wait for its leader; whether it was still running."""
    running = run.poll() is None
    if running:  # its number is still its own
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return running


def snapshot(folder: Path) -> dict[str, str]:
    """{name: sha256 of the bytes that must not vary} of what a build made."""
    digest = lambda path: hashlib.sha256(reproduce.comparable(path)).hexdigest()
    return {name: digest(path) for name, path in reproduce.made(folder).items()}


def stages(folder: Path) -> list[tuple[Path, float]]:
    """(artefact, seconds to make it and what came after it) of an undisturbed build, in the order they were made."""
    found = [p for p in (folder / "build").rglob(f"*{PROV}") if "downloads" not in p.parts]
    found.sort(key=lambda p: p.stat().st_mtime)
    seconds = [json.loads(p.read_text())["run"]["seconds"] + 0.5 for p in found]  # make itself takes a while
    return [(Path(str(p).removesuffix(PROV)), sum(seconds[i:])) for i, p in enumerate(found)]


def in_making(folder: Path) -> list[str]:
    """What was being made when the kill came: the temporary folders of tools/run.py."""
    names = [p.name.split(".")[1:-2] for p in (folder / "build").rglob(".*.tmp")]
    return [".".join(name) for name in names]


def converge(folder: Path, words: list[str], want: dict[str, str], run: str) -> None:
    """One plain make; UserError unless it gives `want` and nothing else."""
    if error := reproduce.make(folder, words, show=lambda *_, **__: None):
        raise cli.UserError(f"{run}: after the kill, make failed: {error}")
    have = snapshot(folder)
    stray = sorted(have.keys() - want.keys())
    if stray:
        raise cli.UserError(f"{run}: {folder}/{stray[0]} was left behind")
    unlike = sorted(n for n in want if have.get(n) != want[n])
    if unlike:
        raise cli.UserError(f"{run}: {folder}/{unlike[0]} is not what an undisturbed build makes")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("goals", nargs="+", help="make's goals; after --, its parameters")
    p.add_argument("--runs", type=int, default=100, help="how many are killed (%(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the random moments (%(default)s)")
    args = p.parse_args()
    folder, dice, tally, hit = reproduce.clean_copy(HOME), random.Random(args.seed), Counter(), Counter()
    if error := reproduce.make(folder, args.goals):
        raise cli.UserError(f"the undisturbed build failed: {error}")
    want, made = snapshot(folder), stages(folder)
    weights = [1 / (seconds + made[0][1] / 16) for _, seconds in made]
    run, pace = 1, 1.0  # of this machine now against the undisturbed build
    while run <= args.runs:
        ((artefact, seconds),) = dice.choices(made, weights)
        jobs, twice, moment = dice.choice([1, 8]), dice.random() < 0.33, dice.random() * seconds * pace
        artefact.unlink(missing_ok=True)
        runs = [start(folder, jobs, args.goals) for _ in range(1 + twice)]
        try:
            time.sleep(moment)
        finally:
            killed = [kill(one) for one in runs]
        here = in_making(folder)
        how = f"run {run}: {artefact.relative_to(folder)} removed, -j{jobs}{' twice' if twice else ''}, killed "
        how += f"after {moment:.1f} s while making {' '.join(here) or 'nothing'}"
        converge(folder, args.goals, want, how)
        if not any(killed):  # it had ended by itself: no run
            pace *= 0.8
            continue
        hit.update(here or ["nothing"])
        tally.update({f"-j{jobs}": 1, "twice": twice})
        print(f"{how}; the same bytes", flush=True)
        run += 1
    shutil.rmtree(HOME)
    print(
        f"torture: {args.runs} runs killed (-j1 {tally['-j1']}, -j8 {tally['-j8']}; two makes at once {tally['twice']}), "
        "the same bytes after each"
    )
    print("killed while making: " + ", ".join(f"{name} {n}" for name, n in sorted(hit.items())))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cli.run(main)
