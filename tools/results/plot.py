"""Pictures of a list of records and the published figures, the same bytes from the same lists, for light and dark pages.

    python -m tools.results.plot throughput results/records --save_path results/throughput.svg

    wrote results/throughput.svg: 85 records

throughput: samples a second against batch size, a panel a model; dashed and grey, what is published for that model.
latency: median to 99th percentile of a request, of records with enough requests. Both show the machine of the newest
record; the tables have the others. An engine and precision has one colour in all panels. What has no batch size
(`SEQ=real`) stands in the tables. .svg or .png by the name. tools/results/peers.py draws the third, with `page`.

A picture is 400 pixels wide with letters of 12, so that a telephone shows it as it is. An .svg keeps its letters as text,
takes dark colours where the reader's system is dark (prefers-color-scheme), and says its result in <title>.
"""

import argparse
import contextlib
import html
import io
from pathlib import Path

from tools.make import cli, parameters
from tools.results import published
from tools.results import record as records_of

# Colours that stay apart for eyes that see few (Okabe and Ito 2008), on white and on black.
INK, GREY, PAPER, GRID = "#1f2328", "#6a737d", "#fefefe", "#d8dee4"
DARK = {INK: "#e6edf3", GREY: "#9198a1", PAPER: "#0d1117", GRID: "#30363d", "#0072b2": "#58b0ee", "#d55e00": "#ff8f4a",
        "#007a57": "#2fc79a", "#a0527f": "#e59bc6", "#8a5a00": "#e0b040", "#5b3fb8": "#a893ff"}  # fmt: skip
BLUE, ORANGE, GREEN, PINK, BROWN, VIOLET = list(DARK)[4:]
COLOURS = {"onnxruntime fp32": BLUE, "openvino bf16": ORANGE, "openvino int8": PINK, "native bf16": GREEN,
           "native int8": VIOLET, "native int8-bf16": VIOLET, "native fp32": BROWN}  # fmt: skip
WIDE, LINE, NEAR = 4.17, 0.16, 12  # inches of a picture; of a line of text; points between the middles of two labels


def engine(record: dict) -> str:
    """Engine and precision, which have a colour."""
    return "{engine} {precision}".format(**records_of.today(record))


def machine(record: dict) -> str:
    """Where a record is from: its CPU, or the chip and that its log is from elsewhere."""
    if record.get("imported") or record["chip"] != "cpu":
        cards = f", {record['devices']} devices" if (record.get("devices") or 1) > 1 else ""
        return record["chip"] + cards + ", imported" * bool(record.get("imported"))
    return f"{record['machine']['cpu']}, {record['machine']['cores']} cores"


def newest_machine(records: list[dict]) -> str:
    """The machine of the newest record."""
    return machine(max(records, key=lambda r: r["started"] or ""))


def curves(records: list[dict]) -> dict[tuple, dict[str, list[dict]]]:
    """{(model, seq): {engine and precision, and ISA=: its newest records by batch size}} of the newest machine and of chips,
    of static shapes alone; of those with one batch size only where none has more: a point is no curve."""
    timed = [r for r in records if r["kind"] == "throughput" and not r["seq"].startswith("real") and not r["standin"]]
    mine = newest_machine([r for r in timed if r["chip"] == "cpu"] or timed) if timed else ""
    panels: dict[tuple, dict] = {}
    for r in sorted(timed, key=lambda r: r["started"] or ""):
        if r["chip"] != "cpu" or machine(r) == mine:
            name = engine(r) + "".join(f" {name.upper()}={r[name]}" for name in parameters.OPTIONAL if r.get(name))
            label = name if r["chip"] == "cpu" else f"{machine(r)} {r['precision']}"
            panels.setdefault((r["model"], r["seq"]), {}).setdefault(label, {})[r["bs"]] = r
    order = lambda lines: {k: [lines[k][bs] for bs in sorted(lines[k])] for k in sorted(lines)}
    several = {key for key, lines in panels.items() if len({bs for points in lines.values() for bs in points}) > 1}
    return {key: order(panels[key]) for key in sorted(several or panels)}


def published_curves(rows: list[dict], model: str, seq: str) -> dict[str, list[tuple[int, float]]]:
    """{label: [(batch size, samples/s)]} of the published throughput of one model."""
    lines: dict[str, list] = {}
    for r in rows:
        if r["metric"] == "throughput" and r["model"] == model and published.fits(r, seq) and r["bs"]:
            variant = "" if r["variant"] == "static" else r["variant"].split(",")[0]
            name = " ".join(filter(None, (r["chip"], r["precision"], variant)))
            lines.setdefault(name, []).append((int(r["bs"]), r["value"]))
    return {name: sorted(points) for name, points in sorted(lines.items())}


def throughput(ax, lines: dict) -> None:
    """Samples a second of each line's records."""
    for label, found in lines.items():
        speed = [r["samples_per_second"] for r in found]
        ax.plot([r["bs"] for r in found], speed, "o-", markersize=3.5, color=colour(label), label=label)


def latency(ax, lines: dict) -> None:
    """Milliseconds a request of each line's records, where there are enough: median, and up to the 99th percentile."""
    for label, found in lines.items():
        times = [(r["bs"], r["latency_ms"]) for r in found if not records_of.no_percentiles(r)]
        known = [(bs, ms["p50"], ms["p99"]) for bs, ms in times if ms["p50"] and ms["p99"]]
        if known:
            at, low, high = zip(*known, strict=True)
            up = [max(b - a, 0) for a, b in zip(low, high, strict=True)]
            ax.errorbar(at, low, [[0] * len(at), up], fmt="o-", color=colour(label), markersize=3.5, elinewidth=1,
                        label=label)  # fmt: skip


PLOTS = {"throughput": throughput, "latency": latency}
UNITS = {"throughput": "samples a second", "latency": "ms a request, up to p99"}


def colour(label: str) -> str:
    """The colour of an engine and precision, the same in all panels."""
    return COLOURS.get(" ".join(label.split()[:2]), INK)


def scales(ax) -> None:
    """Batch size by powers of 2, the other axis by powers of 10, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("batch size")


def name_lines(ax) -> None:
    """Write each line's name right of its last point, none over another."""
    height = lambda y: ax.transData.transform((1, y))[1] * 72 / ax.figure.dpi
    handles, labels = ax.get_legend_handles_labels()
    lines = [getattr(handle, "lines", [handle])[0] for handle in handles]
    ends = [(line.get_ydata()[-1], label, line.get_color()) for line, label in zip(lines, labels, strict=True)]
    placed = height(ax.get_ylim()[1]) + NEAR
    for y, text, ink in sorted(ends, reverse=True):
        placed = min(height(y), placed - NEAR)
        ax.annotate(text, (1, y), (4, placed - height(y)), xycoords=("axes fraction", "data"), va="center",
                    textcoords="offset points", color=ink, annotation_clip=False)  # fmt: skip


@contextlib.contextmanager
def page(file, suffix: str, says: str, rows: int, tall: float = 2.7, **options):
    """Axes [rows, columns], each row `tall` inches, saved into an open binary file as "svg" or "png" when the block ends.

    says: the picture's result in words, for who cannot see it. options: of pyplot.subplots.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever matplotlibrc says here
        matplotlib.rcParams.update({"svg.hashsalt": "bert2om", "svg.fonttype": "none", "font.family": "DejaVu Sans",
            "font.size": 9, "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left",
            "axes.edgecolor": GRID, "axes.facecolor": PAPER, "figure.facecolor": PAPER, "axes.spines.top": False,
            "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
            "axes.axisbelow": True, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
            "ytick.color": INK})  # fmt: skip
        size = (WIDE, tall * rows)
        figure, axes = pyplot.subplots(rows, figsize=size, squeeze=False, **options)
        yield axes
        empty = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
        box = io.BytesIO()
        figure.savefig(box, format=suffix, metadata=empty, dpi=160)
        pyplot.close(figure)
    file.write(light_and_dark(box.getvalue().decode(), says).encode() if suffix == "svg" else box.getvalue())


def light_and_dark(svg: str, says: str) -> str:
    """An .svg of light colours that takes the dark ones by itself, whose letters are any plain font's, with a title."""
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head, tag, rest = svg.partition("<svg ")
    attributes, _, body = rest.partition(">")
    said = html.escape(says)
    body = body.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    return f'{head}{tag}role="img" aria-label="{said}" {attributes}>\n <title>{said}</title>\n {style}{body}'


def result(which: str, panels: dict) -> str:
    """What a picture shows, in a sentence: the highest line of each panel (of latencies, the lowest)."""
    value = {"throughput": lambda r: r["samples_per_second"], "latency": lambda r: -(r["latency_ms"]["p50"] or 1e99)}[
        which
    ]
    words = []
    for (model, _), lines in panels.items():
        label, r = max(((label, r) for label, found in lines.items() for r in found), key=lambda pair: value(pair[1]))
        figure = f"{value(r):.3g} samples a second" if which == "throughput" else f"{-value(r):.3g} ms"
        words.append(f"{model}: {label} {figure} at batch {r['bs']}")
    what = {"throughput": "Most samples a second", "latency": "Shortest median request"}[which]
    return f"{what}: {'; '.join(words)}." if words else "Nothing measured yet."


def draw(which: str, records: list[dict], rows: list[dict], file, suffix: str) -> None:
    """Draw one of PLOTS into an open binary file, as "svg" or "png"."""
    panels = curves(records)
    count = max(len(panels), 1)
    edges = {"left": 0.12, "right": 0.55, "top": 1 - 0.24 / count, "bottom": 0.17 / count, "hspace": 0.55}
    with page(file, suffix, result(which, panels), count, gridspec_kw=edges) as axes:
        for ax, (model, seq), lines in zip(axes.flat, panels, panels.values(), strict=False):
            PLOTS[which](ax, lines)
            others = published_curves(rows, model, seq) if which == "throughput" else {}
            for name, points in others.items():
                ax.plot(*zip(*points, strict=True), "x--", color=GREY, markersize=4, linewidth=1, label=name)
            unit = UNITS[which] + "; grey: published" * bool(others)
            ax.set_title(f"{model}, {records_of.rows_said(seq).replace('-', ' and ')} tokens\n{unit}")
        on = {machine(r) for lines in panels.values() for found in lines.values() for r in found if r["chip"] == "cpu"}
        axes[0][0].figure.text(0.02, 1 - 0.07 / count, "; ".join(sorted(on)), weight="bold")
        for ax in axes.flat:
            if ax.has_data():
                scales(ax)
            else:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "nothing measured", ha="center", color=GREY, transform=ax.transAxes)
        axes[0][0].figure.canvas.draw()  # the scales are settled: a point has its place
        for ax in axes.flat:
            name_lines(ax)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("which", choices=list(PLOTS))
    p.add_argument("records", nargs="*", type=Path, help="or their folder")
    p.add_argument("--save_path", required=True, type=Path, help=".svg or .png")
    args = p.parse_args()
    suffix = args.save_path.suffix.lstrip(".")
    if suffix not in ("svg", "png"):
        p.error(f"--save_path {args.save_path}: give a name that ends in .svg or .png")
    records = list(records_of.load(args.records).values())
    with cli.whole_file(args.save_path) as f:
        draw(args.which, records, published.read(), f, suffix)
    print(f"wrote {args.save_path}: {len(records)} records")


if __name__ == "__main__":
    cli.run(main)
