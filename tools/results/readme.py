"""Keep the READMEs' table and pictures as the records have them.

    python -m tools.results.readme --write      python -m tools.results.readme --check

    readme: README.md, README.zh-CN.md say what the records say

Between `<!-- table -->` and `<!-- /table -->` stands, shorter, what results/table.md says of results/records, and under it
two of the pictures of results/; README.md and docs/parameters.md have the parameters of make. `~` before a figure: its rounds differ by more than 10 %, or the host gave away more
than 5 % of the processors. --check changes nothing and fails where a README, a table or a picture says something else.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

from tools.base import tasks
from tools.make import cli, parameters
from tools.results import peers, plot, published, record, table

FILES, PARAMETERS = ("README.md", "README.zh-CN.md"), Path("docs/parameters.md")
SPEEDS = ("samples/s, best batch", "per core-second", "own lengths")
RECORDS, BENCHES = "results/records", "results/bench"
# A screen of pictures; the page that `make report` writes has more.
PICTURES = {"throughput": "throughput against batch size, measured and published",
            "bench": "ours and the peers, in multiples of the recipe's speed"}  # fmt: skip


def block() -> str:
    """What belongs between the markers."""
    records = list(record.load([RECORDS]).values())
    if not records:
        return "\nNo measurement is committed yet.\n\n"
    text = table.text(short(table.frame(records)), ".md")
    here = [n for n in PICTURES if Path(f"results/{n}.svg").is_file()]
    return f"\n{text}\n" + "".join(f"![{PICTURES[n]}](results/{n}.svg)\n\n" for n in here)


def short(rows):
    """A line a model, engine, precision and processor: its accuracy, samples/s of the best batch size (by core-second
    where that was measured; named behind the figure), its samples per core-second, and samples/s at own lengths."""
    import pandas as pd

    rows = rows[~rows["bs"].map(lambda bs: isinstance(bs, str))]  # not the rows "best (32)"
    lines: dict[tuple, dict] = {}
    fastest: dict[tuple, float] = {}
    for r, shown in zip(rows.to_dict("records"), table.with_errors(rows).to_dict("records"), strict=True):
        rows_of = parameters.rows_of(r["seq"])
        own = {
            "model": r["model"] + ", seeded" * (r["weights"] == "seeded"),
            "engine": f"{r['engine']} {r['precision']}"
            + "".join(f", {name}=1" for name, value in rows_of.items() if name != "SEQ" and value),
        }
        own |= {"processor": f"{shown['cpu']}, {shown['cores']} cores"}
        place = *own.values(), r["weights"], r["chip"]
        cells = lines.setdefault(place, own | dict.fromkeys(("accuracy", *SPEEDS)))
        metric = tasks.known(shown["task"]).metrics[0] if shown.get("task") else "accuracy"
        if metric != "accuracy" and shown.get(metric) is not None:
            cells["accuracy"] = f"{metric} {shown[metric]}"
        elif metric == "accuracy" and shown.get("correct") is not None:
            cells["accuracy"] = f"{shown['accuracy_%']} % ({shown['correct']}/{shown['total']})"
        if pd.isna(r.get("samples_per_s")):
            continue
        figure = "~" * (shown.get("noisy") is not None) + str(shown["samples_per_s"])
        if rows_of["SEQ"] == "real":
            cells[SPEEDS[2]] = figure
        elif (speed := r["samples_per_s"] if pd.isna(r.get("per_core_s")) else r["per_core_s"]) > fastest.get(place, 0):
            fastest[place], cells[SPEEDS[0]] = speed, f"{figure} ({r['bs']})"
            cells[SPEEDS[1]] = shown.get("per_core_s")
    return pd.DataFrame(list(lines.values()), dtype=object).dropna(axis="columns", how="all")


def pictures() -> Iterator[tuple[Path, bytes]]:
    """Each picture of results/ that is here, with what the records give now."""
    records, benches = record.load([RECORDS]), peers.shown(list(record.load([BENCHES], ("bench",)).values()))
    for path in sorted(Path("results").glob("*.svg")):
        made = io.BytesIO()
        if path.stem == "bench":
            peers.draw(benches, made, "svg")
        elif path.stem in plot.PLOTS:
            plot.draw(path.stem, list(records.values()), published.read(), made, "svg")
        else:
            continue
        yield path, made.getvalue()


def parameter_table(rows) -> str:
    """Rows of tools/make/parameters.py: each with its default, what it is, and the targets that it is for, if only some."""
    only = lambda row: f" (only {', '.join(row.targets)})" if row.targets else ""
    cells = (f"| `{row.name}={row.default}` | {row.help}{only(row)} |" for row in rows)
    lines = ["| parameter | what it is |", "|:--|:--|", *cells]
    return "\n" + "\n".join(lines) + "\n\n"


def spliced(path: Path, text: str, new: str, mark: str = "table") -> str:
    """A page's text with `new` between its markers. Raises UserError, which names `path`, where they are not there once."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise cli.UserError(f"{path}: needs one {start} and, below it, one {end}")
    return text[: text.index(start) + len(start)] + "\n" + new + text[text.index(end) :]


def texts() -> dict[Path, str]:
    """The READMEs, results/table.* and results/bench.md, those that are here, as the records have them."""
    new = block()
    found = {f: spliced(f, f.read_text("utf-8"), new) for f in map(Path, FILES) if f.is_file()}
    for path, rows in ((Path("README.md"), parameters.PLACED), (PARAMETERS, parameters.ROWS)):
        if path.is_file() and "<!-- parameters -->" in (text := found.get(path) or path.read_text("utf-8")):
            found[path] = spliced(path, text, parameter_table(rows), "parameters")
    tables = [p for p in (Path("results/table.csv"), Path("results/table.md")) if p.is_file()]
    made = table.of(table.committed()) if tables else None
    found |= {p: table.text(made, p.suffix) for p in tables}
    if Path("results/bench.md").is_file():
        found[Path("results/bench.md")] = peers.page(list(record.load([BENCHES], ("bench",)).values()))
    return found


def stale() -> list[Path]:
    """READMEs, tables and pictures that say something else than the records."""
    wrong = [path for path, text in texts().items() if path.read_text("utf-8") != text]
    return wrong + [path for path, data in pictures() if path.read_bytes() != data]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true")
    how.add_argument("--check", action="store_true")
    args = p.parse_args()
    if args.check:
        if wrong := stale():
            raise cli.UserError(f"{', '.join(map(str, wrong))}: not what results/records give; run `make report`")
        return print("readme: READMEs, tables and pictures say what the records say")
    new = {
        f: text for f, text in texts().items() if (f.name in FILES or f == PARAMETERS) and f.read_text("utf-8") != text
    }
    for f, text in new.items():
        with cli.whole_file(f, "w", encoding="utf-8") as out:
            out.write(text)
    return print(f"wrote {', '.join(map(str, new))}" if new else "readme: nothing to change")


if __name__ == "__main__":
    cli.run(main)
