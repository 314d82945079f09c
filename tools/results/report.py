"""One self-contained HTML page of all records: table, pictures, and what stands behind every figure.

    python -m tools.results.report results/records --bench results/bench --save_path build/report.html

    wrote build/report.html: 85 records, 402 kB

No network and no other file: a policy in the page forbids both. The same records give the same bytes. Chains are long and
share most of their links, so each link lies in the page once, in a gzip that the browser unpacks when a record is opened.
"""

import argparse
import base64
import gzip
import html
import io
import json
import shlex
from functools import partial
from pathlib import Path

from tools.make import cli
from tools.results import peers, plot, published, show, table
from tools.results import record as records_of

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; --line: #8886;
  --head: #f2f4f6; --paper: #fff; --ink: #1f2328; --link: #0757b0 }
@media (prefers-color-scheme: dark) { :root { --head: #20262d; --paper: #0d1117; --ink: #e6edf3; --link: #6cb4ff } }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
a { color: var(--link) }
.wide { overflow: auto; max-height: 80vh }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td { font-variant-numeric: tabular-nums } td:nth-child(10) { min-width: 16rem }
thead th { position: sticky; top: 0; background: var(--head); z-index: 1 }
tr > :first-child { position: sticky; left: 0; background: var(--paper); min-width: 9.5rem;
  overflow-wrap: anywhere }
thead th:first-child { z-index: 2; background: var(--head) }
thead button { all: unset; cursor: pointer; font-weight: 600 }
thead button:focus-visible { outline: 2px solid var(--link) }
th[aria-sort=ascending] button::after { content: " \\25B2" }
th[aria-sort=descending] button::after { content: " \\25BC" }
input { font: inherit; width: 100%; max-width: 30rem; padding: .4rem; box-sizing: border-box }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; max-width: 100% } img { max-width: 100%; height: auto }
details { border: 1px solid var(--line); border-radius: 4px; margin: .4rem 0; padding: .4rem .6rem }
details:target { border-color: var(--link) }
summary { cursor: pointer; overflow-wrap: anywhere }
pre { overflow-x: auto; background: var(--head); padding: .5rem; font-size: .8rem }
code { font-size: .8rem; overflow-wrap: anywhere }
dt { font-weight: 600; overflow-wrap: anywhere } dd { margin: 0 0 .6rem 1rem; overflow-wrap: anywhere }
@media print { input, label, .help { display: none } .wide { overflow: visible; max-height: none }
  thead th, tr > :first-child { position: static } table { font-size: 7pt } th, td { padding: 1px 3px }
  img, tr { break-inside: avoid } }
"""

SCRIPT = """
const body = document.querySelector("#cells tbody"), heads = [...document.querySelectorAll("#cells th")];
const value = (row, i) => row.cells[i].textContent.replace(/^~/, "");
function sort(i) {
  const up = heads[i].getAttribute("aria-sort") !== "ascending";
  heads.forEach((h, k) => k === i ? h.setAttribute("aria-sort", up ? "ascending" : "descending")
                                  : h.removeAttribute("aria-sort"));
  const order = (a, b) => {
    const x = value(a, i), y = value(b, i), p = parseFloat(x), q = parseFloat(y);
    if (x === "-" || y === "-") return (x === "-") - (y === "-");  // what is not measured stays below
    const d = isNaN(p) || isNaN(q) ? (x < y ? -1 : x > y ? 1 : 0) : p - q;
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
const bytes = Uint8Array.from(atob(document.querySelector("#behind").textContent), c => c.charCodeAt(0));
const packed = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
const behind = new Response(packed).json();
async function fill(place) {
  if (place.dataset.filled) return;
  place.dataset.filled = 1;
  const add = (parent, name, text) => parent.appendChild(Object.assign(document.createElement(name), {textContent: text}));
  const {records, links} = await behind, found = records[place.id];
  add(place, "pre", found.text);
  add(place, "p", "Again: ").append(add(place, "code", found.again));
  const facts = add(place, "dl", ""), chain = add(place, "details", "");
  for (const [name, text] of Object.entries(found.facts)) { add(facts, "dt", name); add(facts, "dd", text); }
  add(chain, "summary", "Chain: " + found.chain.length + " files, with hashes and commands");
  const list = add(chain, "dl", "");
  for (const [name, sha256, commands] of found.chain.map(number => links[number])) {
    add(list, "dt", name);
    const one = add(list, "dd", "");
    add(one, "code", "sha256 " + sha256);
    commands.forEach(words => add(one, "pre", words));
  }
}
document.querySelectorAll("#records > details").forEach(d => d.addEventListener("toggle", () => d.open && fill(d)));
async function open() {
  const found = location.hash && document.getElementById(location.hash.slice(1));
  if (found && found.tagName === "DETAILS") { await fill(found); found.open = true; found.scrollIntoView(); }
}
addEventListener("hashchange", open);
show(); open();
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
esc = html.escape


def ident(path: Path) -> str:
    """A record's anchor."""
    return "r-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in path.stem)


def cells(found: dict[Path, dict], rows: list[dict]) -> str:
    """A line a configuration, machine and log of the records, its newest, each figure linked to its record, and how far it
    is from what is published."""
    places: dict[tuple, dict[str, tuple]] = {}
    for path, r in sorted(found.items(), key=lambda item: item[1]["started"] or ""):
        places.setdefault(table.place_of(table.row(r)), {})[r["kind"]] = path, r
    some = lambda kinds: next(iter(kinds.values()))[1]
    order = lambda kinds: [
        plot.machine(some(kinds)),
        *(some(kinds)[k] for k in ("model", "engine", "precision", "seq", "bs")),
    ]
    lines = []
    for kinds in sorted(places.values(), key=order):
        r, row = some(kinds), table.row(some(kinds))
        distance = "; ".join(filter(None, (published.distance(r, rows) for _, r in kinds.values())))
        name = f"{r['model']} {r['engine']} {row['precision']}"
        plain = (name, records_of.rows_said(r["seq"]), row["bs"], distance, r["weights"], plot.machine(r))
        cell = {column: esc(str(text)) for column, text in zip(PLAIN, plain, strict=True) if text}
        for path, r in kinds.values():
            cell |= {k: f"<a href=#{ident(path)}>{esc(text)}</a>" for k, text in table.words(r).items() if text}
        lines.append(cell)
    columns = [c for c in COLUMNS if any(c in cell for cell in lines)]
    head = "".join(f"<th scope=col><button>{esc(c)}</button></th>" for c in columns)
    text = "\n".join("<tr>" + "".join(f"<td>{cell.get(c, '-')}" for c in columns) for cell in lines)
    return f"<table id=cells><thead><tr>{head}</tr></thead><tbody>\n{text}\n</tbody></table>"


PLAIN = ("configuration", "length", "batch", "against published", "weights", "on")
COLUMNS = ("configuration", "length", "batch", "accuracy", "samples/s", "per core-second", "p50, ms", "p99, ms", "padding",
           "against published", "weights", "on", "timed", "remark")  # fmt: skip


def link_of(name: str, link: dict) -> tuple:
    """A file of a chain as the page has it: name, sha256, the commands that made it."""
    return name, link["sha256"], tuple(map(shlex.join, link.get("commands", [])))


def behind(path: Path, r: dict, numbers: dict[tuple, int]) -> dict:
    """What stands behind a record's figures: its text, how to make it again, versions, the numbers of its chain's links."""
    again = shlex.join(["make", {"accuracy": "accuracy"}.get(r["kind"], "perf"), *records_of.make_words(r)])
    if imported := r.get("imported"):
        again = f"measured elsewhere; imported from {imported['file']}, sha256 {imported['sha256']}"
    facts = {
        "file": path.as_posix(),
        "started": r["started"] or "not known",
        "commit": f"{r.get('commit')}{' with changes' if r.get('dirty') else ''}",
        "weights": r.get("source", r["weights"]),
        "engine": ", ".join(f"{k} {v}" for k, v in (r["engine_info"] or {}).items()) or "not said",
        "machine": ", ".join(f"{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in r["machine"].items()),
    }
    chain = [numbers[link_of(*item)] for item in r["chain"].items()]
    return {"text": show.show(r), "again": again, "facts": facts, "chain": chain}


def picture(which: str, draw) -> str:
    """What draw(file, "svg") draws, as an image inside the page; what it shows stands in its <title>."""
    svg = io.BytesIO()
    draw(svg, "svg")
    text = svg.getvalue().decode()
    says = text.partition("<title>")[2].partition("</title>")[0]
    data = base64.b64encode(text.encode()).decode()
    return f'<figure><h2>{which}</h2>\n<img alt="{says}" src="data:image/svg+xml;base64,{data}"></figure>'


def page(found: dict[Path, dict], rows: list[dict], benches: list[dict] | None = None, pictures: bool = True) -> str:
    """The whole page of {path: record}, the published figures and the records of `make bench`."""
    listed = list(found.values())
    draws = {which.capitalize(): partial(plot.draw, which, listed, rows) for which in plot.PLOTS}
    draws |= {"Against the peers": partial(peers.draw, benches, rows)} if benches else {}
    drawn = [picture(which, draw) for which, draw in draws.items()] if pictures else []
    links = list(dict.fromkeys(link_of(*item) for r in listed for item in r["chain"].items()))
    numbers = {link: number for number, link in enumerate(links)}
    facts = {"records": {ident(path): behind(path, r, numbers) for path, r in found.items()}, "links": links}
    packed = base64.b64encode(gzip.compress(json.dumps(facts).encode(), mtime=0)).decode()
    records = "\n".join(f'<details id="{ident(p)}"><summary>{esc(p.stem)}</summary></details>' for p in found)
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
A figure that nobody measured is a dash; ~ marks a speed whose rounds are too unlike to compare. Of a CPU the engine's call
alone is timed.</p>
<p><label>Filter <input id=filter placeholder="words, such as: openvino bf16"></label> <span id=count></span></p>
<div class=wide>
{cells(found, rows)}
</div>
<div class=pictures>{chr(10).join(drawn)}</div>
<h2>Records</h2>
<div id=records>
{records}
</div>
<script type="application/gzip" id=behind>{packed}</script>
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
    text = page(found, published.read(), list(records_of.load(args.bench, ("bench",)).values()))
    with cli.whole_file(args.save_path, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"wrote {args.save_path}: {len(found)} records, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    cli.run(main)
