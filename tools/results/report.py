"""One self-contained HTML page of all records: table, pictures, and what stands behind every figure.

    python -m tools.results.report results/records --bench results/bench --save_path build/report.html

    wrote build/report.html: 85 records, 1902 kB

No network and no other file: a policy in the page forbids both. The same records give the same bytes.
"""

import argparse
import base64
import html
import io
import shlex
from functools import partial
from pathlib import Path

from tools.make import cli
from tools.results import peers, plot, published, show, table
from tools.results import record as records_of

STYLE = """
:root { color-scheme: light; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
td.n { text-align: right; font-variant-numeric: tabular-nums }
thead th { position: sticky; top: 0; background: #f4f4f4 }
thead button { all: unset; cursor: pointer; font-weight: 600 }
thead button:focus-visible { outline: 2px solid #06c }
th[aria-sort=ascending] button::after { content: " \\25B2" }
th[aria-sort=descending] button::after { content: " \\25BC" }
input { font: inherit; width: 100%; max-width: 30rem; padding: .4rem; box-sizing: border-box }
img { max-width: 100%; height: auto }
details { border: 1px solid #ddd; border-radius: 4px; margin: .4rem 0; padding: .4rem .6rem }
details:target { border-color: #06c }
summary { cursor: pointer; overflow-wrap: anywhere }
pre { overflow-x: auto; background: #f7f7f7; padding: .5rem; font-size: .8rem }
code { font-size: .8rem; overflow-wrap: anywhere }
dt { font-weight: 600; overflow-wrap: anywhere } dd { margin: 0 0 .6rem 1rem; overflow-wrap: anywhere }
@media print { input, label, .help { display: none } .wide { overflow: visible } thead th { position: static }
  table { font-size: 7pt } th, td { white-space: normal; padding: 1px 3px } img, tr { break-inside: avoid } }
"""

SCRIPT = """
const body = document.querySelector("#cells tbody"), heads = [...document.querySelectorAll("#cells th")];
const value = (row, i) => row.cells[i].dataset.v;
function sort(i) {
  const up = heads[i].getAttribute("aria-sort") !== "ascending";
  heads.forEach((h, k) => k === i ? h.setAttribute("aria-sort", up ? "ascending" : "descending")
                                  : h.removeAttribute("aria-sort"));
  const order = (a, b) => {
    const x = value(a, i), y = value(b, i);
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not measured stays below
    const d = isNaN(x) || isNaN(y) ? (x < y ? -1 : x > y ? 1 : 0) : x - y;
    return up ? d : -d;
  };
  body.append(...[...body.rows].sort(order));
}
heads.forEach((h, i) => h.querySelector("button").addEventListener("click", () => sort(i)));
const filter = document.querySelector("#filter"), count = document.querySelector("#count");
function show() {
  const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(w => text.includes(w));
    shown += !row.hidden;
  }
  count.textContent = shown + " of " + body.rows.length;
}
filter.addEventListener("input", show);
function open() {
  const found = location.hash && document.getElementById(location.hash.slice(1));
  if (found && found.tagName === "DETAILS") { found.open = true; found.scrollIntoView(); }
}
addEventListener("hashchange", open);
show(); open();
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
esc = html.escape


def ident(path: Path) -> str:
    """A record's anchor."""
    return "r-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in path.stem)


def cell(value, link: str | None) -> str:
    """One table cell; numbers to the right, empty ones as a dash; a link to the record behind it."""
    import pandas as pd

    empty = pd.isna(value)
    number = not empty and isinstance(value, (int, float))
    raw = "" if empty else f"{value:g}" if isinstance(value, float) else str(value)
    text = "-" if empty else esc(raw)
    inner = f'<a href="#{link}">{text}</a>' if link and not empty else text
    return f'<td data-v="{esc(raw)}"{" class=n" if number else ""}>{inner}</td>'


def cells(found: dict[Path, dict], rows: list[dict]) -> str:
    """The committed table's rows of records, with each figure linked to its record and the distance to what is published."""
    import pandas as pd

    made = table.frame(list(found.values()))
    identity = table.IDENTITY
    behind = {}
    for path, r in found.items():  # as in table.frame, the last record of a configuration counts
        key = tuple(table.row(r)[k] for k in identity)
        behind.setdefault(key, {}).update(dict.fromkeys([k for k in table.row(r) if k not in identity], (path, r)))
    columns = list(made.columns)
    head = "".join(f"<th scope=col><button>{esc(c)}</button></th>" for c in [*columns, "against published"])
    lines = []
    for line in made.to_dict("records"):
        known = behind.get(tuple(None if pd.isna(line[k]) else line[k] for k in identity), {})  # none of a best row
        link = {c: ident(known[c][0]) for c in columns if c in known}
        words = [published.distance(r, rows) for _, r in {p: (p, r) for p, r in known.values()}.values()]
        tail = cell("; ".join(filter(None, words)) or None, None)
        lines.append("<tr>" + "".join(cell(line[c], link.get(c)) for c in columns) + tail + "</tr>")
    return f"<table id=cells><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"


def behind(path: Path, r: dict) -> str:
    """A record as an element that opens: figures, how to make it again, versions, hashes, commands."""
    kind = "accuracy" if r["kind"] == "accuracy" else "perf"
    again = shlex.join(["make", kind, *records_of.make_words(r)])
    if imported := r.get("imported"):
        again = f"measured elsewhere; imported from {imported['file']}, sha256 {imported['sha256']}"
    engine = ", ".join(f"{k} {v}" for k, v in (r["engine_info"] or {}).items())
    facts = {
        "file": path.as_posix(),
        "started": r["started"] or "not known",
        "commit": f"{r.get('commit')}{' with changes' if r.get('dirty') else ''}",
        "weights": r.get("source", r["weights"]),
        "engine": engine or "not said",
        "machine": ", ".join(f"{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in r["machine"].items()),
    }
    links = []
    for target, link in r["chain"].items():
        commands = "".join(f"<pre>{esc(shlex.join(c))}</pre>" for c in link.get("commands", []))
        links.append(f"<dt>{esc(target)}</dt><dd><code>sha256 {esc(link['sha256'])}</code>{commands}</dd>")
    listed = "".join(f"<dt>{esc(k)}</dt><dd>{esc(str(v))}</dd>" for k, v in facts.items())
    return (
        f'<details id="{ident(path)}"><summary>{esc(path.stem)}</summary>\n<pre>{esc(show.show(r))}</pre>\n'
        f"<p>Again: <code>{esc(again)}</code></p>\n<dl>{listed}</dl>\n"
        f"<details><summary>Chain: {len(links)} files, with hashes and commands</summary>"
        f"<dl>{''.join(links)}</dl></details>\n"
        "</details>"
    )


def picture(heading: str, says: str, draw) -> str:
    """A heading and what draw(file, "svg") draws, as an image inside the page."""
    svg = io.BytesIO()
    draw(svg, "svg")
    data = base64.b64encode(svg.getvalue()).decode()
    return f'<h2>{heading}</h2>\n<img alt="{heading}: {says}" src="data:image/svg+xml;base64,{data}">'


def page(found: dict[Path, dict], rows: list[dict], benches: list[dict] = ()) -> str:
    """The whole page of {path: record}, the published figures and the records of `make bench`."""
    listed = list(found.values())
    draws = [(which, partial(plot.draw, which, listed, rows)) for which in plot.PLOTS]
    pictures = [picture(which.capitalize(), "the figures of the table above", draw) for which, draw in draws]
    if benches:
        pictures.append(picture("Against the peers", "the figures of bench.md", partial(peers.draw, benches)))
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
<p class=help>{len(found)} records. A heading sorts, a figure opens its record: commands, versions, hashes.
A figure that nobody measured is a dash.</p>
<p><label>Filter <input id=filter placeholder="words, such as: openvino bf16"></label> <span id=count></span></p>
<div class=wide>
{cells(found, rows)}
</div>
{chr(10).join(pictures)}
<h2>Records</h2>
{chr(10).join(behind(path, r) for path, r in found.items())}
<script>{SCRIPT}</script>
</body>
</html>
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("records", nargs="+", type=Path, help="or their folder")
    p.add_argument("--bench", nargs="*", default=[], type=Path, help="records of make bench, or their folder")
    p.add_argument("--save_path", required=True, type=Path)
    args = p.parse_args()
    found = records_of.load(args.records)
    if not found:
        raise cli.UserError("no records to report; `make record` keeps what was measured")
    text = page(found, published.read(), peers.newest(list(records_of.load(args.bench, ("bench",)).values())))
    with cli.whole_file(args.save_path, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"wrote {args.save_path}: {len(found)} records, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    cli.run(main)
