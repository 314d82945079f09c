"""The published figures: models/<model>/published.csv, one row a figure.

Columns: model,variant,seq,chip,bs,precision,metric,value,unit,source,commit,note. metric is accuracy (unit %, or 1 for
a share) or throughput (unit samples/s or fps); a field that the source does not say is empty. A figure of another model,
which stands there for its likeness, has that one's name.
"""

import csv
import math
import re
from pathlib import Path

from tools.make import cli
from tools.results.record import own_texts

MOST = {"accuracy": 100, "throughput": 1e15}
FORMS = {
    "model": (".+", "a name"),
    "bs": (r"([1-9]\d{0,8})?", "a whole number, or empty"),
    "metric": ("|".join(MOST), " or ".join(MOST)),
}
COLUMNS = ["model", "variant", "seq", "chip", "bs", "precision", "metric", "value", "unit", "source", "commit", "note"]


def read_csv(path: Path) -> list[dict]:
    """The figures of one published.csv as dicts of text, `value` a float: percent, or samples per second. Raises
    UserError with file and line of what is wrong."""
    reader = csv.DictReader(cli.regular(path, cli.LARGEST).read_bytes().decode("utf-8", "replace").splitlines())
    try:
        rows = [(f"{path}:{reader.line_num}", row) for row in reader]
    except csv.Error as e:
        raise cli.UserError(f"{path}: {e}; is a quote open?") from None
    if reader.fieldnames != COLUMNS:
        raise cli.UserError(f"{path}:1: the columns are not {','.join(COLUMNS)}; write them")
    for where, row in rows:
        if None in row or None in row.values():
            raise cli.UserError(f"{where}: not {len(COLUMNS)} columns; mend that line")
        if not all(map(str.isprintable, row.values())):
            raise cli.UserError(f"{where}: a control character, or one that turns the line round; mend that line")
        for name, (pattern, words) in FORMS.items():
            if not re.fullmatch(pattern, row[name]):
                raise cli.UserError(f"{where}: {name} {row[name]!r} is not {words}; mend that line")
        try:
            value = float(row["value"]) * (100 if row["unit"] == "1" else 1)
        except ValueError:
            value = math.nan
        if not 0 < value <= MOST[row["metric"]]:
            most = f"a number above 0, up to {MOST[row['metric']]:g}"
            raise cli.UserError(f"{where}: value {row['value']!r} is not {most}; mend that line")
        row["value"] = value
    return [row for _, row in rows]


def all_figures(root: Path = Path("models")) -> list[dict]:
    """All published figures."""
    return [row for path in sorted(root.glob("*/published.csv")) for row in read_csv(path)]


def beside(record: dict, rows: list[dict]) -> list[dict]:
    """The published figures of the same model, quantity and length as `record`, or of no length; throughput of the same
    batch size. None is of packed rows (128p) or of [CLS] alone (128c), or beside texts of the user's own."""
    if record["seq"].endswith(("p", "c")) or own_texts(record):
        return []
    same = [r for r in rows if (r["model"], r["metric"]) == (record["model"], record["kind"])]
    same = [r for r in same if r["seq"].replace(",", "-") in ("", record["seq"])]
    return [r for r in same if record["kind"] == "accuracy" or r["bs"] == str(record["bs"])]


def distance(record: dict, rows: list[dict]) -> str:
    """`record` against each published figure beside it, in words; empty where there is none. Published figures are of one
    card, so a throughput of several is compared by the card."""
    if record["standin"] or record.get("caveat"):
        return ""
    devices = record.get("devices", 1)
    texts = []
    for r in beside(record, rows):
        where = " ".join(filter(None, (r["chip"], r["precision"], r["variant"])))
        where += f", a card of {devices}" if devices > 1 else ""
        if record["kind"] == "accuracy":
            texts.append(f"{100 * record['accuracy'] - r['value']:+.2f} points to {r['value']:g} % ({where})")
        else:
            texts.append(f"{record['samples_per_second'] / devices / r['value']:.3g} x {r['value']:g} ({where})")
    return "; ".join(dict.fromkeys(texts))  # the accuracy of each batch size is often the same
