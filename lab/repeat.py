"""How far each figure of a speed moves when the same cells are timed again: over an hour, alone and beside a load.

    python -m lab.repeat NAME=FILE ... --peak build/lib/peak.so --dims 'input_ids:8,128;...' --bs 8
        --save_path repeat.md        (or: make repeat)

    alone 1 of 11, minute 0, load average 2.0: native-bf16 349.1 native-int8 288.9 ...
    beside 1 of 11, minute 2, load average 1.9: native-bf16 349 native-int8 291.2 ...
    ...
    wrote repeat.md

NAME=FILE: a cell's name and its compiled model. Each is timed PASSES times alone and as often beside a load, which is
one busy process for each core, started and ended here; the passes begin EVERY minutes. A cell is timed by the command
that `make perf` times it by (tools/cpu/runner.py) on zeros of --dims, for as long as the rounds of a record, and each
figure is made from its summary as a record's is (tools/results/figures.py). Spread: the standard deviation (n - 1) of
the values of one cell, in percent of their mean. On a machine where other work runs, `alone` is not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from tools.make import cli, cpu
from tools.results import figures

PASSES, EVERY = 11, 6.0  # 11 starts, 6 minutes apart, span an hour
SIDES = ("alone", "beside")
FIGURES = ("samples/s", "samples per core-second, all threads", "per operation of the yardstick, all threads",
           "samples per core-second, one thread", "per operation of the yardstick, one thread",
           "per operation of the yardstick, by the clock in quiet turns")  # fmt: skip
CHOSEN = FIGURES[4]


def figures_of(summary: dict) -> dict[str, float | None]:
    """Each of FIGURES from a summary of tools/cpu/runner.py; None where it had too few turns."""
    threads = summary["engine"]["threads"]
    all_threads = figures.of(summary["pairs"], [], threads)
    one_thread = figures.of(summary["pairs"], summary["singles"], threads)
    kinds = [(all_threads, "per_core_second"), (all_threads, "per_tera"), (one_thread, "per_core_second"),
             (one_thread, "per_tera"), (one_thread, "per_tera_quiet")]  # fmt: skip
    values = [made[name] and made[name]["value"] for made, name in kinds]
    return dict(zip(FIGURES, [summary["throughput"], *values], strict=True))


def timed(cell: tuple[str, str], args) -> dict[str, float | None]:
    """Time one cell once. Raises UserError where the runner fails."""
    name, model = cell
    dims = ["--dymDims", args.dims] if model.endswith(".native") else []
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-m", "tools.cpu.runner", "--model", model, *dims, "--batchsize", str(args.bs),
             "--warmup_count", "2", "--milliseconds", str(args.milliseconds * args.rounds), "--yardstick", str(args.peak),
             "--output", folder, "--output_dirname", "out"],
            cwd=cli.ROOT, capture_output=True, text=True,
        )  # fmt: skip
        if run.returncode:
            raise cli.UserError(f"{name}={model}: {run.stderr.strip().splitlines()[-1]}")
        return figures_of(json.loads(Path(folder, "out_summary.json").read_text()))


def one_pass(cells: list, side: str, args) -> dict[str, dict]:
    """Time every cell once, alone or beside one busy process for each core: {cell: its figures}."""
    busy = [sys.executable, "-c", "while True: pass"]
    load = [subprocess.Popen(busy) for _ in range(cpu.cores() if side == "beside" else 0)]
    try:
        return {cell[0]: timed(cell, args) for cell in cells}
    finally:
        for process in load:
            process.kill()
            process.wait()


def passes(cells: list, args) -> list[dict]:
    """All passes, each alone and then beside, as {side, minute, load, cells}; one line is printed for each."""
    made, started = [], time.monotonic()
    minute = lambda: (time.monotonic() - started) / 60
    for number in range(args.passes):
        time.sleep(max(0, 60 * (number * args.every - minute())))
        for side in SIDES:
            row = {"side": side, "minute": round(minute()), "load": os.getloadavg()[0]}
            row["cells"] = one_pass(cells, side, args)
            made.append(row)
            told = " ".join(f"{name} {found[CHOSEN] or 0:.4g}" for name, found in row["cells"].items())
            print(f"{side} {number + 1} of {args.passes}, minute {row['minute']}, load average {row['load']:.1f}: {told}",
                  flush=True)  # fmt: skip
    return made


def spread(values: list[float | None]) -> float:
    """Standard deviation (n - 1) in percent of the mean; NaN where a value is missing."""
    import numpy as np

    found = np.array(values, float)
    return 100 * found.std(ddof=1) / found.mean()


def values_of(made: list[dict], cell: str, figure: str, sides: tuple = SIDES) -> list[float | None]:
    return [row["cells"][cell][figure] for row in made if row["side"] in sides]


def tables(made: list[dict], args) -> str:
    """The text that is kept: spreads by figure, spreads of the chosen one by cell, and each of its values."""
    import numpy as np
    from tabulate import tabulate

    cells, groups = list(made[0]["cells"]), [(side,) for side in SIDES] + [SIDES]
    range_of = lambda all_of_them: "not in every pass" if np.isnan(all_of_them).any() else (
        f"{min(all_of_them):.1f} to {max(all_of_them):.1f} %")  # fmt: skip
    by_figure = [
        [figure, *(range_of([spread(values_of(made, c, figure, group)) for c in cells]) for group in groups)]
        for figure in FIGURES
    ]
    mean = lambda cell, side: np.mean(np.array(values_of(made, cell, CHOSEN, (side,)), float))
    by_cell = [
        [c, *(f"{spread(values_of(made, c, CHOSEN, group)):.1f} %" for group in groups),
         f"{mean(c, 'beside') / mean(c, 'alone'):.3f}"]
        for c in cells
    ]  # fmt: skip
    each = [
        [row["minute"], row["side"], f"{row['load']:.1f}", *(f"{row['cells'][c][CHOSEN] or 'none'}" for c in cells)]
        for row in made
    ]
    table = lambda rows, *heads: tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)
    head = ["alone", "beside a load", "both"]
    times = f"{args.passes} times alone and {args.passes} times beside {cpu.cores()} busy processes of its own"
    return "\n\n".join([
        f"{len(cells)} cells at batch {args.bs}, each timed {times}, in {made[-1]['minute'] - made[0]['minute']} minutes\n"
        f"(make repeat, {cpu.machine()['cpu']}, {cpu.cores()} cores, {date.today()}).",
        "Spread of each figure (standard deviation in percent of the mean), smallest and largest of the cells:",
        table(by_figure, "figure", *head),
        f"Spread of the figure that records are held to, {CHOSEN}:",
        table(by_cell, "cell", *head, "beside / alone"),
        "Its values (samples while the yardstick would do 10^12 operations):",
        table(each, "minute", "side", "load average", *cells),
    ]) + "\n"  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cells", nargs="+", help="NAME=FILE: a name and a compiled model")
    p.add_argument("--peak", type=Path, required=True, help="the yardstick's library")
    p.add_argument("--dims", required=True, help="shapes of a request, for an engine that takes any")
    p.add_argument("--bs", type=int, required=True)
    p.add_argument("--milliseconds", type=int, default=2560, help="of the engine, in each round")
    p.add_argument("--rounds", type=int, default=3, help="of a record")
    p.add_argument("--passes", type=int, default=PASSES)
    p.add_argument("--every", type=float, default=EVERY, help="minutes from one pass alone to the next")
    p.add_argument("--save_path", type=Path, required=True)
    args = p.parse_args()
    cells = [tuple(cell.split("=", 1)) for cell in args.cells]
    text = tables(passes(cells, args), args)
    with cli.whole_file(args.save_path, "w") as f:
        f.write(text)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
