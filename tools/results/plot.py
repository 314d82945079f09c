"""Pictures of speed and accuracy, a line a point: the frontier of SST-2, and with tools/results/peers.py the benches.

The frontier is what is published for a 310P beside what was measured on the CPU of the newest record. Speed and accuracy have
a panel each: models of one accuracy would hide each other's names in a plot of one against the other. A picture is 400
pixels wide with letters of 12, so that a telephone shows it as it is; the same records give the same bytes. It keeps its
letters as text, takes dark colours where the reader's system is dark (prefers-color-scheme), and says its result in <title>.
"""

import html
import io
import re

from tools.base import tasks
from tools.make import parameters
from tools.results import figures, table
from tools.results import record as records_of

# Colours that stay apart for eyes that see few (Okabe and Ito 2008), on white and on black.
INK, GREY, PAPER, GRID, BLUE, ORANGE = "#1f2328", "#6a737d", "#fefefe", "#d8dee4", "#0072b2", "#d55e00"
DARK = {INK: "#e6edf3", GREY: "#9198a1", PAPER: "#0d1117", GRID: "#30363d", BLUE: "#58b0ee", ORANGE: "#ff8f4a"}
STYLE: dict = {"svg.hashsalt": "bert2om", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 9,
         "axes.edgecolor": GRID, "axes.facecolor": PAPER, "figure.facecolor": PAPER, "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
         "axes.axisbelow": True, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}  # fmt: skip


def dots(says: str, title: str, points: list[dict], kinds: dict[str, tuple], unit: str) -> str:
    """An .svg with a line a point, the first one below.

    says: the result in words, for who cannot see it. points: {name, kind, speed, interval}, which is the share right and its
    95 % interval, or None. kinds: {kind: (ink, marker, where its words begin, words)}. unit: of the speed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    tall = 0.175 * len(points) + 1.1
    edges = {"left": 0.47, "right": 0.97, "top": 1 - 0.5 / tall, "bottom": 0.55 / tall, "wspace": 0.2}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever matplotlibrc says here
        matplotlib.rcParams.update(STYLE)
        figure, (speed, right) = pyplot.subplots(
            ncols=2, figsize=(4.17, tall), sharey=True, width_ratios=(3, 2), gridspec_kw=edges
        )
        for y, point in enumerate(points):
            ink, mark, *_ = kinds[point["kind"]]
            speed.plot(point["speed"], y, mark, color=ink, markersize=5)
            if point["interval"]:
                share, low, high = (100 * v for v in point["interval"])
                right.plot([low, high], [y, y], color=ink, linewidth=1, alpha=0.6)
                right.plot(share, y, mark, color=ink, markersize=4)
        speed.set_xscale("log")
        speed.margins(x=0.12)  # the last number below it stays apart from the first of the panel beside it
        speed.xaxis.set_major_formatter("{x:g}")
        speed.set_yticks(range(len(points)), [point["name"] for point in points])
        for label, point in zip(speed.get_yticklabels(), points, strict=True):
            label.set_color(kinds[point["kind"]][0])
        speed.set_ylim(-0.7, max(len(points), 1) - 0.3)
        for ax in (speed, right):
            ax.tick_params(axis="y", length=0)
        figure.text(0.02, 1 - 0.2 / tall, title, weight="bold")
        for ink, _, x, words in kinds.values():
            figure.text(x, 1 - 0.38 / tall, words, color=ink)
        right.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
        speed.set_xlabel(unit)
        right.set_xlabel("% right")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return light_and_dark(text.getvalue(), says)


def light_and_dark(svg: str, says: str) -> str:
    """An .svg of light colours that takes the dark ones by itself, whose letters are any plain font's, with a title."""
    rules = "".join(f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
                    for light, dark in DARK.items() for part in ("fill", "stroke"))  # fmt: skip
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head, tag, rest = svg.partition("<svg ")
    attributes, _, body = rest.partition(">")
    title = html.escape(says)
    body = body.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    return f'{head}{tag}role="img" aria-label="{title}" {attributes}>\n <title>{title}</title>\n {style}{body}'


def frontier(records: list[dict], rows: list[dict]):
    """A pandas table of the SST-2 models that have an accuracy and a speed, on a published 310P and on the CPU of the newest
    record: model, what was run, on what, batch size, % right, samples/s at the best batch size, `~` where noisy,
    and whether published or measured; the fastest first."""
    import pandas as pd

    ours = [r for r in current(records) if r["chip"] == "cpu" and records_of.of_the_model(r)]
    cells = [table.row(r) | {"run": f"{engine(r)}, {r['seq']}", "on": machine(r)} for r in ours]
    for r in (table.published_row(row) for row in rows):
        if table.series(r["chip"]) == "310P":
            variant = r["variant"].replace("static", "").replace("without padding", "unpadded")
            cells.append(r | {"run": f"{variant} {r['seq']}".strip(), "on": "310P"})
    key, columns = ["model", "run", "on", "figure"], ["bs", "accuracy_%", "samples_per_s", "noisy"]
    every = pd.DataFrame(cells, columns=[*key, *columns])
    every = every[every["model"].str.endswith("_sst2", na=False)]
    right = every.groupby(key, as_index=False)["accuracy_%"].max().dropna()
    fastest = every.dropna(subset="samples_per_s").sort_values("samples_per_s").drop_duplicates(key, keep="last")
    both = right.merge(fastest.drop(columns="accuracy_%"), on=key).sort_values("samples_per_s", ascending=False)
    marked = both.assign(noisy=both["noisy"].map({"noisy": "~"}).fillna(""))
    return marked[[*key[:3], *columns, "figure"]].reset_index(drop=True)


def engine(record: dict) -> str:
    """Engine and precision of a record, and what else its configuration says."""
    return "{engine} {precision}".format(**records_of.current_names(record)) + table.settings(record)


def machine(record: dict) -> str:
    """Where a record is from: its CPU, or the chip and that its log is from elsewhere."""
    if record.get("imported") or record["chip"] != "cpu":
        cards = f", {record['devices']} devices" if (record.get("devices") or 1) > 1 else ""
        return record["chip"] + cards + ", imported" * bool(record.get("imported"))
    return f"{record['machine']['cpu']}, {record['machine']['cores']} cores"


def newest_machine(records: list[dict]) -> str:
    """The machine of the newest speed on a CPU, or of the newest record where there is none; nothing without records."""
    age = lambda r: (r["chip"] == "cpu", r["kind"] == "throughput", r["started"] or "")
    return machine(max(records, key=age)) if records else ""


def current(records: list[dict]) -> list[dict]:
    """The newest records of the newest machine, of what this version still makes with all units of its CPU."""
    here = newest_machine(records)
    sound = lambda r: not (r["standin"] or r.get("isa") or parameters.gone(r))
    return [r for r in table.newest(records) if machine(r) == here and sound(r)]


def short(machine: str) -> str:
    """A machine's name without its stepping and what is in each name, for a picture."""
    return re.sub(r" \(family[^)]*\)|\(R\)| Processor", "", machine)


def caption(points) -> str:
    """What the picture shows, in a sentence."""
    parts = []
    for kind, group in points.groupby("figure"):
        best = {"fastest": group.index[0], "most right": group["accuracy_%"].idxmax()}
        for index in dict.fromkeys(best.values()):
            r, what = group.loc[index], " and ".join(name for name in best if best[name] == index)
            speed = f"{r['noisy']}{figures.in_digits(r['samples_per_s'])} samples a second"
            parts.append(f"{what} {kind}: {r['model']} {r['run']} on {r['on']}, {speed}, {r['accuracy_%']:.2f} % right")
    return f"SST-2: {'; '.join(parts) or 'nothing is known yet'}."


def draw(records: list[dict], rows: list[dict]) -> str:
    """The frontier as .svg."""
    cells = frontier(records, rows)
    points = [
        {"name": f"{r['model'].split('_')[0]} {r['run'].replace('onnxruntime', 'ORT')}", "kind": r["figure"], "speed": r["samples_per_s"],
         "interval": (r["accuracy_%"] / 100, *tasks.wilson(round(8.72 * r["accuracy_%"]), 872))}
        for r in cells[::-1].to_dict("records")
    ]  # fmt: skip
    kinds = {
        "published": (BLUE, "x", 0.02, "published: a 310P card"),
        "measured": (ORANGE, "o", 0.42, short(newest_machine(records))),
    }
    return dots(caption(cells), "SST-2: speed and accuracy", points, kinds, "samples\na second")
