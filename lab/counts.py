"""The counts of what stresses this project: a line a check, of its newest run, in results/stress.csv.

counts.keep(Path("results/stress.csv"), "killed", 300, "the same bytes after each", ["build/data/x", "MODEL=tiny", "VENV=.venv"])

check,tried,result,of,commit,cpu,cores,date
killed,300,the same bytes after each,data/x MODEL=tiny,0123456789ab,Intel(R) Xeon(R),2,2026-11-30
"""

import csv
import datetime
import re
from pathlib import Path

from tools.make import cli, cpu, run

COLUMNS = ("check", "tried", "result", "of", "commit", "cpu", "cores", "date")


def keep(path: Path | None, check: str, tried: int, result: str, words: list[str]) -> None:
    """Write a check's line in place of its older one of the same goals; nothing without a path. words: the goals and parameters."""
    if not path:
        return
    short = lambda word: re.sub(r"=.*/", "=", word) if "=" in word else "/".join(word.split("/")[-2:])
    of = " ".join(short(word) for word in words if not word.startswith("VENV="))
    machine, commit = cpu.machine(), run.git_state()["commit"] or ""
    new = (check, tried, result, of, commit[:12], machine["cpu"], machine["cores"], datetime.date.today())
    older = csv.DictReader(path.read_text("utf-8").splitlines()) if path.is_file() else ()
    rows = [row for row in older if (row["check"], row["of"]) != (check, of)] + [dict(zip(COLUMNS, new, strict=True))]
    with cli.whole_file(path, "w", newline="", encoding="utf-8") as f:
        table = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
