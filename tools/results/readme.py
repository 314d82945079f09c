"""Keep the READMEs' table and pictures as the records have them.

    python -m tools.results.readme --write      python -m tools.results.readme --check

    readme: README.md, README.zh-CN.md say what the records say

Between `<!-- table -->` and `<!-- /table -->` stands, shorter, what results/table.md says of results/records, and under it
the pictures of results/ that are here. --check changes nothing and fails where a README, or results/table.*, says
something else.
"""

import argparse
from pathlib import Path

from tools import cli
from tools.results import record, table

START, END = "<!-- table -->", "<!-- /table -->"
FILES = ("README.md", "README.zh-CN.md")
PICTURES = {"throughput": "throughput against batch size", "latency": "latency against batch size",
            "accuracy": "accuracy against throughput", "bench": "ours and the peers, in multiples of the recipe's way"}  # fmt: skip


def block() -> str:
    """What belongs between the markers."""
    records = sorted(Path("results/records").glob("*.json"))
    if not records:
        return "\nNo measurement is committed yet.\n\n"
    text = table.text(wide(table.frame([record.read(r) for r in records])), ".md")
    here = [n for n in PICTURES if Path(f"results/{n}.svg").is_file()]
    return f"\n{text}\n" + "".join(f"![{PICTURES[n]}](results/{n}.svg)\n\n" for n in here)


def wide(rows):
    """A line a configuration: its accuracy, and samples/s by batch size."""
    import pandas as pd

    one = ["model", "weights", "seq", "chip", "engine", "precision", "cpu", "cores"]
    if "devices" in rows:
        rows, one = rows.fillna({"devices": 1}), [*one, "devices"]
    speed = rows.pivot_table("samples_per_s", one, "bs", dropna=True) if "samples_per_s" in rows else pd.DataFrame()
    score = rows.groupby(one)[[c for c in ("correct", "accuracy_%", "ci95_%") if c in rows]].last()
    out = score.join(speed.rename(columns=lambda bs: f"samples/s, batch {bs}"), how="outer").reset_index()
    out["cpu"] = out["cpu"] + ", " + out["cores"].astype(str) + " cores"
    return out.drop(columns="cores").convert_dtypes()


def spliced(path: Path, new: str) -> str:
    """The README's text with `new` between its markers."""
    text = path.read_text("utf-8")
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise cli.UserError(f"{path}: needs one {START} and, below it, one {END}")
    return text[: text.index(START) + len(START)] + "\n" + new + text[text.index(END) :]


def stale_tables() -> list[str]:
    """Committed tables that the committed records and the published figures do not give."""
    here = [p for p in (Path("results/table.csv"), Path("results/table.md")) if p.is_file()]
    made = table.of(table.committed()) if here else None
    return [str(p) for p in here if p.read_text("utf-8") != table.text(made, p.suffix)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true")
    how.add_argument("--check", action="store_true")
    args = p.parse_args()
    new, files = block(), [Path(f) for f in FILES if Path(f).is_file()]
    texts = {f: spliced(f, new) for f in files}
    stale = [f for f in files if f.read_text("utf-8") != texts[f]]
    if args.check:
        wrong = [str(f) for f in stale] + stale_tables()
        if wrong:
            raise cli.UserError(f"{', '.join(wrong)}: not what results/records give; run `make report`")
        return print(f"readme: {', '.join(map(str, files)) or 'no README, but tables'} say what the records say")
    for f in stale:
        with cli.whole_file(f, "w", encoding="utf-8") as out:
            out.write(texts[f])
    return print(f"wrote {', '.join(map(str, stale))}" if stale else "readme: nothing to change")


if __name__ == "__main__":
    cli.run(main)
