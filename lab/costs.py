"""Measure what each target takes: seconds, MB of disk, MB of memory; written to results/costs.csv.

    python -m lab.costs --save_path results/costs.csv      (or: make costs)

    target                                   seconds  disk_mb  memory_mb
    setup                                       81.3     2094        313
    accuracy                                    74.9      527       1493
    ...
    wrote results/costs.csv

Each is run in one clean copy of this tree, after those above it, so a row says what it adds. `setup` fills a virtual
environment of its own; the others use this one. disk_mb: by how much build/ and that environment grow. memory_mb: the
peak of the largest process, not the sum of those side by side. load: the machine's load average before it began. The
downloads, 86 MB, are here before. A target that fails has no row and is named; the longest (bench, torture) are left out.
"""

import argparse
import csv
import datetime
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.checks import reproduce
from tools.make import cli, cpu
from tools.results import claims
from tools.setup import clean

HOME = Path("build/costs")
# What a user runs, in an order in which each finds what it needs; what the claims run besides comes after these.
FIRST = ("setup", "data", "onnx", "om", "accuracy", "perf", "score INPUT=build/data/dev.tsv")
LAST = ("compare A=build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32 "
        "B=build/minilm_sst2/default/seq128p/bs8/cpu-onnxruntime-fp32", "fusion-report", "report",
        "verify MODEL=minilm_sst2 BS=8 PRECISION=fp32", "sbom", "crate")  # fmt: skip
COLUMNS = ("make", "seconds", "disk_mb", "memory_mb", "load", "cpu", "cores", "date")


def targets() -> list[str]:
    """The words of each make, once."""
    return list(dict.fromkeys([*FIRST, *(words for claim in claims.read() for words in claim["make"]), *LAST]))


def measure(words: str, tree: Path) -> dict | None:
    """Run one make in `tree`: its row, or None where it fails."""
    venv = ".venv" if words == "setup" else sys.prefix
    disk = lambda: sum(clean.size(folder) for folder in (tree / "build", tree / ".venv") if clean.plain(folder))
    before, load, started = disk(), os.getloadavg()[0], time.time()
    with (tree / "costs.log").open("w") as log:
        run = subprocess.Popen(
            ["make", *words.split(), f"VENV={venv}"], cwd=tree, env=cli.nobodys_child(), stdout=log, stderr=log
        )
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = status
    if status:
        return None
    machine = cpu.machine()
    numbers = (time.time() - started, (disk() - before) / 1e6, usage.ru_maxrss / 1e3)
    rounded = (f"{numbers[0]:.1f}", f"{numbers[1]:.0f}", f"{numbers[2]:.0f}")
    date = datetime.datetime.now(datetime.UTC).date()
    return dict(zip(COLUMNS, (words, *rounded, f"{load:.1f}", machine["cpu"], machine["cores"], date), strict=True))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--save_path", type=Path, required=True)
    p.add_argument("targets", nargs="*", help="the words of some makes alone (all if none)")
    args = p.parse_args()
    tree, rows, failed = reproduce.clean_copy(HOME), [], []
    print(f"{'target':<60} seconds  disk_mb  memory_mb")
    for words in args.targets or targets():
        row = measure(words, tree)
        if not row:
            failed.append(words)
            print(f"{words[:60]:<60} failed: {(tree / 'costs.log').read_text().strip().splitlines()[-1]}", flush=True)
            continue
        rows.append(row)
        print(f"{words[:60]:<60} {row['seconds']:>7} {row['disk_mb']:>8} {row['memory_mb']:>10}", flush=True)
    shutil.rmtree(HOME)
    with cli.whole_file(args.save_path, "w", newline="", encoding="utf-8") as f:
        table = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(f"wrote {args.save_path}")
    if failed:
        raise cli.UserError(f"these failed here and have no row: {'; '.join(failed)}")


if __name__ == "__main__":
    cli.run(main)
