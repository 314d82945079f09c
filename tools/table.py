"""Tables from a named list of records, by pandas: .csv and .md.

    python tools/table.py --rows results/local/perf-table.rows --save_path results/local/perf-table.csv

The rows file names one record a line; nothing is searched for. One row of the table is one configuration; accuracy
and throughput of the same configuration share it. A figure nobody measured stays empty in .csv and is "-" in .md.
"""

import argparse
from pathlib import Path

import cli
import recipe

KEY = ["model", "weights", "seq", "chip", "engine", "precision", "bs"]


def rounded(value, digits: int, times: float = 1):
    """A figure for a table; None stays None."""
    return None if value is None else round(times * value, digits)


def row(record: dict) -> dict:
    """The cells of one record."""
    cells = {k: record[k] for k in KEY} | {"cpu": record["machine"]["cpu"], "cores": record["machine"]["cores"]}
    if record["kind"] == "accuracy":
        seeded = record["caveat"] is not None
        low, high = record["interval95"]
        return cells | {
            "correct": None if seeded else record["correct"],
            "total": record["total"],
            "accuracy_%": None if seeded else round(100 * record["accuracy"], 2),
            "ci95_%": None if seeded else f"{100 * low:.2f}-{100 * high:.2f}",
        }
    return cells | {
        "samples_per_s": round(record["samples_per_second"], 2),
        "spread_%": rounded(record["spread"], 1, 100),
        "p50_ms": rounded(record["latency_ms"]["p50"], 3),
        "p99_ms": rounded(record["latency_ms"]["p99"], 3),
        "padded_rows_%": rounded(record["padded_rows"], 2, 100),
        **({"sentences_per_row": record["sentences_per_row"]} if "sentences_per_row" in record else {}),
    }


def frame(records: list[dict]):
    """A pandas table, one row a configuration and machine, sorted by KEY."""
    import pandas as pd

    columns = list(dict.fromkeys(k for r in sorted(records, key=lambda r: r["kind"]) for k in row(r)))
    table = pd.DataFrame([row(r) for r in records], columns=columns)
    table = table.groupby([*KEY, "cpu", "cores"], as_index=False, sort=True, dropna=False).last()
    return table.convert_dtypes()  # whole numbers stay whole beside what nobody measured


def text(table, suffix: str) -> str:
    """A table as .csv or .md text."""
    if suffix == ".csv":
        return table.to_csv(index=False, lineterminator="\n")
    known = table.astype(object).where(table.notna(), None)
    return known.to_markdown(index=False, missingval="-", disable_numparse=True) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", required=True, type=Path, help="file that names the records, one a line")
    p.add_argument("--save_path", required=True, type=Path, help=".csv or .md")
    args = p.parse_args()
    paths = args.rows.read_text().split()
    if not paths:
        raise cli.UserError(f"{args.rows}: names no record")
    table = frame([recipe.read_json(Path(p)) for p in paths])
    with cli.whole_file(args.save_path, "w") as f:
        f.write(text(table, args.save_path.suffix))
    print(f"wrote {args.save_path}: {len(table)} rows")


if __name__ == "__main__":
    cli.run(main)
