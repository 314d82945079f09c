"""Tables from a named list of files, by pandas: .csv and .md.

    python -m tools.results.table --rows results/local/perf-table.rows --save_path results/local/perf-table.csv

The rows file names records (.json, or the folder results/records) and published figures (.csv); a row is one
configuration. Of several records of a configuration the newest one counts, whole; each log from elsewhere has its own row. A
figure that nobody measured is empty in .csv and "-" in .md, and so is one of stand-ins. docs/results.md has the columns.

A rows file may also name configurations (tinybert_sst2/default/seq64/bs8/310P3-atc-fp16, of an accuracy with /accuracy
behind) that this machine cannot measure. Each becomes a row from the files named after them: its record, else its
published figure (of 310P for 310P3), else an empty row with the reason.

Where 310P3 and T4 or 310 stand in one table, a column has their ratio, card by card, and names both precisions (a partner of
the same kind is preferred), and a row "best" has the fastest batch size of each, which is the recipe's last row.
"""

import html
from pathlib import Path

from tools.make import cli, parameters
from tools.results import figures, published
from tools.results import record as records_of

KEY = [*(name for name in parameters.NAMES if name != "bs"), "bs"]
IDENTITY = [*KEY, "cpu", "cores", "figure"]
ACCURACY = ["correct", "total", "accuracy_%", "ci95_%"]
FIGURES = ("measured", "imported", "published", "none")
OTHERS = ("310", "T4")  # what 310P is compared with
LACKING = {
    "atc": "atc and ais_bench are not both here",
    "trtexec": "trtexec is not here",
    "torch_npu": "torch_npu is not here",
    "torch_cuda": "no GPU is here",
}


def settings(record: dict) -> str:
    """The parameters of a record that not every path has, as ` ISA=AVX2`; empty where it has none."""
    return "".join(f" {name.upper()}={record[name]}" for name in parameters.OPTIONAL if record.get(name))


def row(record: dict) -> dict:
    """The cells of one record."""
    cells = {k: record[k] for k in KEY} | {"cpu": record["machine"]["cpu"], "cores": record["machine"]["cores"]}
    cells |= {"figure": "imported" if record.get("imported") else "measured", "own": records_of.own_texts(record)}
    cells["precision"] += settings(record)
    if record["seq"] == "real" and records_of.current_names(record)["engine"] == "native":
        cells["bs"] = None  # it takes the sentences in requests of its own size
    if record["standin"]:
        return cells | {"figure": "none", "samples_per_s": None, "timed": None, "reason": records_of.DEMONSTRATION}
    if record.get("devices", 1) > 1:
        cells["devices"] = record["devices"]
    if record.get("imported"):
        cells["reason"] = "log {file}, sha256 {sha256:.12}".format(**record["imported"])
    return cells | (accuracy_cells if record["kind"] == "accuracy" else speed_cells)(record)


def accuracy_cells(record: dict) -> dict:
    """The cells of an accuracy's figures; none of seeded weights."""
    trained = record["caveat"] is None
    metrics = {name: m["value"] for name, m in record.get("metrics", {}).items() if name != "accuracy"}
    cells = {k: record[k] for k in ("total", "task") if k in record}
    cells |= {name: value and round(value, 4) if trained else None for name, value in metrics.items()}
    if record["correct"] is None or not trained:
        return cells | dict.fromkeys(("correct", "accuracy_%", "ci95_%"))
    interval = "{:.2f}-{:.2f}".format(*(100 * share for share in record["interval95"]))
    return cells | {"correct": record["correct"], "accuracy_%": round(100 * record["accuracy"], 2), "ci95_%": interval}


def speed_cells(record: dict) -> dict:
    """The cells of a throughput's figures; `noisy` where rounds are too unlike to compare."""
    latency = {} if records_of.no_percentiles(record) else record["latency_ms"]
    padding = record["padded_rows"]
    values = {k: figures.three_digits(f["value"]) for k, f in (record.get("figures") or {}).items() if f}
    columns = {"per_core_second": "per_core_s", "per_tera": "per_Tera_op"}
    return {
        "samples_per_s": figures.three_digits(record["samples_per_second"]),
        "noisy": "noisy" if records_of.noise(record) else None,
        **{column: values[name] for name, column in columns.items() if name in values},
        "requests": record["requests"],
        **{f"{q}_ms": latency.get(q) and round(latency[q], 3) for q in ("p50", "p99")},
        "padded_rows_%": None if padding is None else round(100 * padding, 2),
        "timed": record["timed"].split(";")[0].split(":")[0],
        **({"sentences_per_row": record["sentences_per_row"]} if "sentences_per_row" in record else {}),
    }


def words(record: dict) -> dict:
    """The figures of a record as a page shows them; `~` before a speed whose rounds are too unlike to compare."""
    if record["standin"] or record.get("caveat"):
        return {"remark": records_of.DEMONSTRATION if record["standin"] else record["caveat"]}
    if record["kind"] == "accuracy":
        right = f"{100 * (record['accuracy'] or 0):.2f} % ({record['correct']}/{record['total']})"
        values = {name: m["value"] for name, m in record.get("metrics", {}).items() if name != "accuracy"}
        metrics = [f"{name} {'-' if value is None else value}" for name, value in values.items()]
        return {"accuracy": ", ".join([right] * (record["correct"] is not None) + metrics)}
    cells = row(record)
    return {
        "samples/s": "~" * bool(cells["noisy"]) + figures.in_digits(cells["samples_per_s"]),
        "per core-second": "per_core_s" in cells and figures.in_digits(cells["per_core_s"]),
        **{f"{q}, ms": cells[f"{q}_ms"] and figures.in_digits(record["latency_ms"][q]) for q in ("p50", "p99")},
        "padding": record["padded_rows"] and f"{100 * record['padded_rows']:.1f} %",
        "timed": None if record["chip"] == "cpu" else cells["timed"],
        "remark": record.get("imported") and f"imported: {cells['reason']}",
    }


def place_of(r: dict) -> tuple:
    """What tells one row of the table from another."""
    log = r["reason"] if r["figure"] == "imported" else None
    return *(r[k] for k in IDENTITY), r.get("devices"), r.get("variant"), bool(r.get("own")), log


def newest(records: list[dict]) -> list[dict]:
    """One record of each kind for each row: the newest, whole."""
    dated = sorted(records, key=lambda r: r["started"] or "")
    return list({(place_of(row(r)), r["kind"]): r for r in dated}.values())


def published_row(figure: dict) -> dict:
    """The cells of one figure of published.csv."""
    cells = dict.fromkeys(IDENTITY) | {k: figure[k] or None for k in ("model", "chip", "precision")}
    cells |= {"weights": "default", "seq": figure["seq"].replace(",", "-") or None, "figure": "published"}
    cells |= {"bs": int(figure["bs"]) if figure["bs"] else None, "variant": figure["variant"]}
    cells["reason"] = "; ".join(filter(None, (figure["variant"], figure["note"])))
    value = round(figure["value"], 2)
    accuracy = figure["metric"] == "accuracy"
    return cells | ({"accuracy_%": value} if accuracy else {"samples_per_s": value, "timed": "not said"})


def series(chip: str | None) -> str | None:
    """The name that published figures have for a chip: 310P is the card, 310P3 its SoC."""
    return "310P" if chip == "310P3" else chip


def look_up(leaf: str, records: list[dict], figures: list[dict]) -> list[dict]:
    """The rows of a configuration that cannot be measured here."""
    kind = "accuracy" if leaf.endswith("/accuracy") else "throughput"
    leaf = leaf.removesuffix("/accuracy")
    spec = records_of.configuration(Path(leaf))
    empty = ("accuracy_%",) if kind == "accuracy" else ("samples_per_s", "timed")
    none = dict.fromkeys(IDENTITY) | spec | {"figure": "none"} | dict.fromkeys(empty)
    if kind == "throughput" and (lost := Path("build", leaf, "lost")).is_file():
        return [none | {"reason": " ".join(lost.read_text(errors="replace").split())[:300]}]
    if same := [r for r in records if r["kind"] == kind and records_of.leaf_of(r) == leaf]:
        return [row(r) for r in newest(same)]
    rows = [published_row(f) for f in figures if f["metric"] == kind]
    rows = [r for r in rows if all(r[k] == spec[k] for k in ("model", "seq", "bs", "precision"))]
    if rows := [r for r in rows if series(r["chip"]) == series(spec["chip"])]:
        place = {k: spec[k] for k in ("chip", "engine")}
        return [r | place | {"reason": f"published for {r['chip']}: {r['reason']}"} for r in rows]
    return [none | {"reason": f"{LACKING[spec['engine']]}; no record, nothing published"}]


def best(rows: list[dict]) -> list[dict]:
    """The fastest batch size of each side of a ratio, as rows of their own."""
    sides: dict[tuple, set] = {}
    groups: dict[tuple, list] = {}
    for r in (r for r in rows if r.get("samples_per_s") and series(r["chip"]) in ("310P", *OTHERS)):
        sides.setdefault((r["model"], r["seq"]), set()).add(series(r["chip"]))
        groups.setdefault(place_of(r | {"bs": None}), []).append(r)
    fastest = [max(g, key=lambda r: r["samples_per_s"]) for g in groups.values() if len(g) > 1]
    compared = [r for r in fastest if len(chips := sides[(r["model"], r["seq"])]) > 1 and "310P" in chips]
    return [r | {"bs": f"best ({r['bs']})"} for r in compared]


def ratios(one: dict, rows: list[dict]) -> dict:
    """{"310P fp16/T4 fp32": times as fast ...} of a row of 310P, against the same model, length and batch size."""
    if series(one["chip"]) != "310P" or not one.get("samples_per_s"):
        return {}
    place = lambda r: (r["model"], r["seq"], "best" if isinstance(r["bs"], str) else r["bs"])
    unlike = lambda r: (r["figure"] != one["figure"], FIGURES.index(r["figure"]))
    per_card = lambda r: r["samples_per_s"] / r.get("devices", 1)
    others = [r for r in rows if r["chip"] in OTHERS and r.get("samples_per_s") and place(r) == place(one)]
    others = [r for r in others if r["chip"] == "T4" or r["precision"] == one["precision"]]
    return {
        f"310P {one['precision']}/{r['chip']} {r['precision']}": round(per_card(one) / per_card(r), 2)
        for r in sorted(others, key=unlike, reverse=True)  # the one most alike is the last, which stays
    }


def sort_key(r: dict) -> tuple:
    """What was measured, then what others say by variant; within these by KEY, the best batch size last."""
    text = [str(r.get(k) or "") for k in ("variant", "weights", "seq", "chip", "engine", "precision")]
    bs = (1, 0) if isinstance(r["bs"], str) else (0, r["bs"] or 0)
    return (FIGURES.index(r["figure"]), r["model"], *text, *bs, r["cpu"] or "", r["cores"] or 0)


def frame(records: list[dict], more: list[dict] | tuple = ()):
    """A pandas table of records, and of `more` rows; one row a configuration, machine and kind of figure."""
    import pandas as pd

    merged: dict[tuple, dict] = {}
    for r in [*(row(r) for r in sorted(newest(records), key=lambda r: r["kind"])), *more]:
        cells = merged.setdefault(place_of(r), dict.fromkeys(IDENTITY))
        cells |= {k: v for k, v in r.items() if v is not None or k not in cells}
    rows = sorted([*merged.values(), *best(list(merged.values()))], key=sort_key)
    rows = [r | ratios(r, rows) for r in rows]
    names = {k for r in rows for k in r} - {"variant", "own"}  # a published row's reason begins with its variant
    last = [*sorted(k for k in names if "/" in k), "timed", "reason"]
    first = dict.fromkeys([*IDENTITY, *ACCURACY, *(k for r in rows for k in r)])
    columns = [k for k in first if k not in last] + last
    table = pd.DataFrame(rows, columns=[k for k in columns if k in names])
    return table.convert_dtypes()  # whole numbers stay whole beside what nobody measured


def from_names(names: list[str]):
    """The table that a rows file with these words stands for; UserError where it has no row."""
    leaves = [n for n in names if not n.endswith(("/records", ".json", ".csv"))]
    cut = names.index(leaves[0]) if leaves else len(names)
    load = lambda part: (
        list(records_of.load_records([n for n in part if n.endswith(("/records", ".json"))]).values()),
        [f for n in part if n.endswith(".csv") for f in published.read_csv(Path(n))],
    )
    records, figures = load(names[:cut])
    # accuracy first: what is said of a throughput is then what stays
    more = [published_row(f) for f in sorted(figures, key=lambda f: f["metric"])]
    sources = load(names[cut:])
    more += [r for leaf in leaves for r in look_up(leaf, *sources)]
    if not records and not more:
        raise cli.UserError("no record and no published figure is named: nothing to show; run make again")
    return frame(records, more)


def committed() -> list[str]:
    """What results/table.* is made from: the committed records, and what is published."""
    return ["results/records", *(str(p) for p in sorted(Path().glob("models/*/published.csv")))]


def render(table, suffix: str) -> str:
    """A table as .csv or .md text, in which no cell is anything but text or a number: no formula of a spreadsheet, no end
    of a cell, no markup."""
    if suffix == ".csv":
        plain = lambda v: f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@", "\t", "\r") else v
        texts = table.select_dtypes(("object", "string")).astype(object).map(plain)
        return table.assign(**texts).to_csv(index=False, lineterminator="\n")
    from tabulate import tabulate

    one_line = lambda v: " ".join(html.escape(v, quote=False).replace("|", "\\|").split()) if isinstance(v, str) else v
    rows = [[*map(one_line, row)] for row in table.astype(object).where(table.notna(), None).to_numpy()]
    return tabulate(rows, [*table], tablefmt="pipe", missingval="-", disable_numparse=True) + "\n"


def main():
    p = cli.parser(__doc__)
    p.add_argument("--rows", required=True, type=Path, help="file that names the records and what else is shown")
    p.add_argument("--save_path", required=True, type=Path, help=".csv or .md")
    args = p.parse_args()
    table = from_names(cli.regular(args.rows, cli.LARGEST).read_text("utf-8", errors="replace").split())
    cli.write(args.save_path, render(table, args.save_path.suffix))
    print(f"wrote {args.save_path}: {len(table)} rows")


if __name__ == "__main__":
    cli.run(main)
