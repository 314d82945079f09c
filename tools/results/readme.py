"""Keep the READMEs' tables, pictures and figures as the records have them.

    python -m tools.results.readme --write      python -m tools.results.readme --check

    readme: READMEs, tables and pictures say what the records say

Between `<!-- table -->` and `<!-- /table -->` stands what `rows` makes of results/records, ten lines at most; between
`<!-- picture -->` and its end, results/bench.svg with its result as alternative text; between `<!-- parameters -->` and its
end, make's parameters. A figure in prose stands between `<!-- = QUESTION -->` and `<!-- /= -->`; `answer` has the questions. --check changes nothing and fails
where a text, a table or a picture of the repository says something else than the records.
"""

import argparse
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tools.make import cli, parameters
from tools.results import figures, peers, plot, published, record, table

FIGURE = re.compile(r"(<!-- = ([^>]*?) -->)(.*?)(<!-- /= -->)", re.S)
FILES, PARAMETERS = ("README.md", "README.zh-CN.md"), Path("docs/parameters.md")
RECORDS, BENCHES, VERIFIED = "results/records", "results/bench", Path("results/verify.md")
HEADS = {
    "model": "模型",
    "engine": "引擎",
    "accuracy": "精度",
    "per core-second (batch)": "每核·秒样本数（batch）",
    "samples/s (batch)": "每秒样本数（batch）",
    "own lengths, samples/s": "真实长度，每秒样本数",
    "another hour": "另一时段复测",
}  # what a README in Chinese calls the columns


def again(path: Path = VERIFIED) -> dict[str, float]:
    """{"model weights seq bs chip engine precision": what `make verify` measured in another hour, as a multiple of the
    record}, of throughputs of that machine, by operations of the yardstick."""
    text = path.read_text("utf-8") if path.is_file() else ""
    lines = re.findall(r"^\| (\S.*?) +\| perf .*per_tera x ([\d.]+) \(", text, re.M)
    return {name: float(ratio) for name, ratio in lines}


def per_core(r: dict) -> float:
    """Samples per core-second of a throughput record; 0 where it has none."""
    return ((r.get("figures") or {}).get("per_core_second") or {"value": 0})["value"]


def rows(records: list[dict], limit: int = 10) -> list[dict]:
    """A line a model, engine and precision of the newest machine that have an accuracy, by HEADS; the fastest first. The
    batch size behind a speed is the one at which that same speed is highest; `~` marks one too noisy to compare."""
    groups: dict[tuple, list] = {}
    here = plot.newest_machine(records)
    for r in (r for r in table.newest(records) if not r["standin"] and plot.machine(r) == here):
        spelled = parameters.rows_of(r["seq"]) | {name.upper(): r.get(name) for name in parameters.OPTIONAL}
        label = plot.engine(r) + "".join(f", {k}={v}" for k, v in spelled.items() if v and k != "SEQ")
        if r["weights"] != parameters.SEEDED and not parameters.gone(r):
            model = r["model"] + f", {r['weights']}" * (r["weights"] != "default")
            groups.setdefault((model, label), []).append(r)
    lines, ratios = [], again()
    for (model, label), found in groups.items():
        accuracy = max((r for r in found if r["kind"] == "accuracy"), key=lambda r: r["started"], default=None)
        if accuracy is None or accuracy["caveat"]:
            continue
        timed = [r for r in found if r["kind"] == "throughput"]
        static = [r for r in timed if not r["seq"].startswith("real")]
        own = max((r for r in timed if r not in static), key=lambda r: r["started"], default=None)
        core, wall = (max(static, key=f, default=None) for f in (per_core, lambda r: r["samples_per_second"]))
        core = core if core and per_core(core) else None
        ratio = core and ratios.get(" ".join(str(core[k]) for k in parameters.NAMES))
        shown = [r and table.words(r) for r in (accuracy, core, wall, own)]
        cells = (
            model,
            label,
            shown[0]["accuracy"],
            core and f"{shown[1]['per core-second']} ({core['bs']})",
            wall and f"{shown[2]['samples/s']} ({wall['bs']})",
            own and shown[3]["samples/s"],
            ratio and f"x {ratio:.2f}",
        )
        lines.append((per_core(core) if core else 0, dict(zip(HEADS, cells, strict=True))))
    return [cells for _, cells in sorted(lines, key=lambda line: (line[1]["model"], -line[0]))][:limit]


def block(chinese: bool = False) -> str:
    """The table of a README."""
    import pandas as pd

    records = list(record.load([RECORDS]).values())
    lines = rows(records) if records else []
    if not lines:
        return "\nNo measurement of an accuracy is committed yet.\n\n"
    cells = pd.DataFrame(lines, dtype=object).dropna(axis="columns", how="all")
    return "\n" + table.text(cells.rename(columns=HEADS if chinese else {}), ".md") + "\n"


def picture() -> str:
    """results/bench.svg, with its result as alternative text."""
    benches = list(record.load([BENCHES], ("bench",)).values())
    if not benches or not Path("results/bench.svg").is_file():
        return "\n"
    bench = peers.pictured(benches)
    return f"\n![{peers.said(bench, peers.points(bench, published.read()))}](results/bench.svg)\n\n"


FIELDS = {
    "accuracy": lambda r: f"{100 * r['accuracy']:.2f} %",
    "right": lambda r: f"{r['correct']}/{r['total']}",
    "interval": lambda r: "{:.2f} to {:.2f} %".format(*(100 * share for share in r["interval95"])),
    "speed": lambda r: figures.written(r["samples_per_second"]),
    "per-core": lambda r: per_core(r) and figures.written(per_core(r)),
    "cpu": lambda r: r["machine"]["cpu"],
    "date": lambda r: r["started"][:10],
}


def answer(question: str) -> str:
    """What belongs after `<!-- = QUESTION -->`, from the newest record or a committed table.

    FIELD NAME=value ...    of the newest record with these parameters; FIELD: accuracy (90.71 %), right (791/872), interval,
                            speed (samples/s), per-core, cpu, date
    FILE.csv ROW COLUMN     a cell, by the first column's word
    again within 5          how many of the speeds that `make verify` made again came within 5 % (`68 of 78`)
    again median NAME=value their median, of these parameters (`0.99`)

    Raises UserError where nothing answers.
    """
    field, *words = question.split()
    if field.endswith(".csv"):
        with cli.regular(field).open(encoding="utf-8", newline="") as f:
            for line in csv.DictReader(f):
                if next(iter(line.values())) == words[0] and line.get(words[-1]):
                    return line[words[-1]]
    if field == "again":
        ratios, (kind, *rest) = again(), words
        if kind == "within":
            near = sum(abs(ratio - 1) <= float(rest[0]) / 100 for ratio in ratios.values())
            return f"{near} of {len(ratios)}"
        choice = {word.split("=", 1)[1] for word in rest}
        if chosen := [ratio for name, ratio in ratios.items() if choice <= set(name.split())]:
            return f"{median(chosen):.2f}"
    wanted = dict(word.lower().split("=", 1) for word in words if "=" in word)
    same = lambda r: all(str(r.get(name)).lower() == value for name, value in wanted.items())
    kind = "accuracy" if field in ("accuracy", "right", "interval") else "throughput"
    sound = lambda r: r["kind"] == kind and r["started"] and r.get("correct", 0) is not None
    kept = [r for r in record.load([RECORDS]).values() if sound(r) and same(r)]
    if field in FIELDS and kept and (answered := FIELDS[field](max(kept, key=lambda r: r["started"]))):
        return answered
    raise cli.UserError(
        f"<!-- = {question} -->: nothing answers that; see tools/results/readme.py for what can be asked"
    )


def pictures() -> Iterator[tuple[Path, bytes]]:
    """Each picture of results/ that is here, with what the records give now."""
    records, benches = record.load([RECORDS]), list(record.load([BENCHES], ("bench",)).values())
    for path in sorted(filter(Path.is_file, Path("results").glob("*.svg"))):
        made = io.BytesIO()
        if path.stem == "bench" and benches:
            peers.draw(benches, published.read(), made, "svg")
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


def prose(path: Path) -> str:
    """A README, or a page of docs/, with its tables and each of its figures as they are now. Raises UserError where nothing gives one."""
    text = path.read_text("utf-8")
    if path.name in FILES or "<!-- table -->" in text:
        text = spliced(path, text, block("zh" in path.name))
    if "<!-- picture -->" in text:
        text = spliced(path, text, picture(), "picture")
    if path in (Path("README.md"), PARAMETERS) and "<!-- parameters -->" in text:
        text = spliced(
            path, text, parameter_table(parameters.ROWS if path == PARAMETERS else parameters.PLACED), "parameters"
        )
    try:
        return FIGURE.sub(lambda m: m[1] + answer(m[2]) + m[4], text)
    except cli.UserError as e:
        raise cli.UserError(f"{path}: {e}") from None


def texts() -> dict[Path, str]:
    """The READMEs, docs/*.md, results/table.* and results/bench.md, those that are here, as the records have them."""
    found = {p: prose(p) for p in (*map(Path, FILES), *sorted(Path("docs").glob("*.md"))) if p.is_file()}
    tables = [p for p in (Path("results/table.csv"), Path("results/table.md")) if p.is_file()]
    made = table.of(table.committed()) if tables else None
    found |= {p: table.text(made, p.suffix) for p in tables}
    if Path("results/bench.md").is_file():
        found[Path("results/bench.md")] = peers.page(list(record.load([BENCHES], ("bench",)).values()))
    return found


def stale() -> list[Path]:
    """Texts, tables and pictures that say something else than the records."""
    wrong = [path for path, text in texts().items() if path.read_text("utf-8", errors="replace") != text]
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
    new = {f: text for f, text in texts().items() if f.parent != Path("results") and f.read_text("utf-8") != text}
    for f, text in new.items():
        with cli.whole_file(f, "w", encoding="utf-8") as out:
            out.write(text)
    return print(f"wrote {', '.join(map(str, new))}" if new else "readme: nothing to change")


if __name__ == "__main__":
    cli.run(main)
