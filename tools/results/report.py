"""One self-contained HTML page of all records: table, pictures, and what stands behind every figure.

    python -m tools.results.report results/records --bench results/bench --save_path build/report.html

    wrote build/report.html: 85 records, 402 kB

No network and no other file: a policy in the page forbids both. The same records give the same bytes. The chain of files
behind a figure stands in its record, which the page names.
"""

import base64
import html
import shlex
from functools import partial
from pathlib import Path

from tools.make import cli
from tools.results import peers, plot, published, show, table
from tools.results import record as records_of

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; background: Canvas }
body { margin: 0 auto; max-width: 90rem; padding: 1rem }
.wide { overflow: auto; max-height: 80vh }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; font-variant-numeric: tabular-nums; width: max-content }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top; max-width: min(24rem, 36vw) }
th { position: sticky; top: 0; background: Canvas; cursor: pointer }
tr > :first-child { position: sticky; left: 0; background: Canvas }
input { font: inherit; width: 100%; max-width: 30rem }
figure { margin: 0 } img { max-width: 100%; height: auto }
summary, pre { overflow-wrap: anywhere; white-space: pre-wrap }
@media print { input { display: none } .wide { overflow: visible; max-height: none } table { font-size: 7pt; width: auto } }
"""

SCRIPT = """
const body = document.querySelector("#cells tbody"), filter = document.querySelector("#filter");
document.querySelectorAll("#cells th").forEach((head, i) => head.addEventListener("click", () => {
  const up = head.dataset.up = head.dataset.up === "1" ? "" : "1";
  const value = row => row.cells[i].textContent.replace(/^~/, "");
  const order = (a, b) => (a === "-") - (b === "-")  // what is not measured stays below
    || (up ? 1 : -1) * a.localeCompare(b, "en", {numeric: true});
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
}));
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\\s+/);
  for (const row of body.rows) row.hidden = !words.every(w => row.textContent.toLowerCase().includes(w));
});
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
COLUMNS = ("configuration", "batch", "accuracy", "samples/s", "per core-second", "length", "p50, ms", "p99, ms", "padding",
           "against published", "weights", "on", "timed", "remark")  # fmt: skip
esc = partial(html.escape, quote=False)


def html_table(records: dict[Path, dict], rows: list[dict]) -> str:
    """A row for each configuration, machine and imported log: the figures of its newest records, each linked to its record,
    and how far they are from published ones."""
    places: dict[tuple, dict[str, tuple]] = {}
    for number, r in sorted(enumerate(records.values()), key=lambda item: item[1]["started"] or ""):
        places.setdefault(table.place_of(table.row(r)), {})[r["kind"]] = number, r
    lines = []
    for kinds in places.values():
        r = next(iter(kinds.values()))[1]
        row, on = table.row(r), plot.machine(r)
        distance = "; ".join(filter(None, (published.distance(r, rows) for _, r in kinds.values())))
        plain = {"configuration": f"{r['model']} {r['engine']} {row['precision']}", "batch": row["bs"], "on": on,
                 "length": records_of.rows_in_words(r["seq"]), "against published": distance, "weights": r["weights"]}  # fmt: skip
        cell = {column: esc(str(text)) for column, text in plain.items() if text}
        for number, r in kinds.values():
            cell |= {k: f"<a href=#r{number}>{esc(text)}</a>" for k, text in table.words(r).items() if text}
        lines.append(((on, r["model"], r["engine"], r["precision"], r["seq"], r["bs"]), cell))
    cells = [cell for _, cell in sorted(lines, key=lambda line: line[0])]
    columns = [c for c in COLUMNS if any(c in cell for cell in cells)]
    head = "".join(f"<th>{esc(c)}" for c in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{cell.get(c, '-')}" for c in columns) for cell in cells)
    return f"<table id=cells><thead><tr>{head}</thead><tbody>\n{body}\n</tbody></table>"


def details(path: Path, r: dict) -> str:
    """What stands behind a record's figures: its text, how to make it again, versions, and where its chain stands."""
    again = shlex.join(["make", "accuracy" if r["kind"] == "accuracy" else "perf", *records_of.make_words(r)])
    if imported := r.get("imported"):
        again = f"measured elsewhere; imported from {imported['file']}, sha256 {imported['sha256']}"
    in_words = lambda facts: ", ".join(f"{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in facts.items())
    facts = {
        "again": again,
        "started": r["started"] or "not known",
        "commit": f"{r.get('commit')}{' with changes' if r.get('dirty') else ''}",
        "weights": r.get("source", r["weights"]),
        "engine": in_words(r["engine_info"] or {}) or "not said",
        "machine": in_words(r["machine"]),
        "chain": f"{len(r['chain'])} files, with hashes and commands, in {path.parent}",
    }
    return show.text_block(r) + "".join(f"{name:11} {text}\n" for name, text in facts.items())


def picture(svg: str) -> str:
    """An .svg as an image inside the page, with its <title> as alternative text."""
    title = svg.partition("<title>")[2].partition("</title>")[0]
    return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"></figure>'


def page(records: dict[Path, dict], rows: list[dict], benches: list[dict] | None = None) -> str:
    """The whole page of {path: record}, the published figures and the records of `make bench`."""
    svgs = [plot.draw([*records.values()], rows), *([peers.draw(benches)] if benches else [])]
    blocks = "\n".join(
        f"<details><summary>{esc(path.stem)}</summary><pre id=r{i}>{esc(details(path, r))}</pre></details>"
        for i, (path, r) in enumerate(records.items())
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>bert2om: measurements</title>
<style>{STYLE}</style>
</head>
<body>
<h1>bert2om: measurements</h1>
<p>{len(records)} records. A heading sorts, a figure opens its record. A figure that nobody measured is a dash; ~ marks a
speed whose rounds are too unlike to compare. Of a CPU the engine's call alone is timed.</p>
<p><label>Filter <input id=filter placeholder="words, such as: openvino bf16"></label></p>
<div class=wide>
{html_table(records, rows)}
</div>
{chr(10).join(map(picture, svgs))}
<h2>Records</h2>
{blocks}
<script>{SCRIPT}</script>
</body>
</html>
"""


def main():
    p = cli.parser(__doc__)
    p.add_argument("records", nargs="+", type=Path, help="or their folder")
    p.add_argument("--bench", nargs="*", default=[], type=Path, help="records of make bench, or their folder")
    p.add_argument("--save_path", required=True, type=Path)
    args = p.parse_args()
    records = records_of.load_records(args.records)
    if not records:
        raise cli.UserError("no records to report; `make record` keeps what was measured")
    text = page(records, published.all_figures(), list(records_of.load_records(args.bench, ("bench",)).values()))
    cli.write(args.save_path, text)
    print(f"wrote {args.save_path}: {len(records)} records, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    cli.run(main)
