"""Two pictures of a list of records and the published figures, the same bytes from the same lists.

    python -m tools.results.plot throughput results/records --save_path results/throughput.svg

    wrote results/throughput.svg: 85 records

throughput: samples/s against batch size, a panel a model, with the range of the rounds; below, what is published for
that model. latency: median to 99th percentile of a request, of records with enough requests. An engine and precision has
one colour in all panels, a CPU one kind of line. What has no batch size (`SEQ=real`) stands in the tables. .svg or .png
by the name.
"""

import argparse
import contextlib
from pathlib import Path

from tools.make import cli, parameters
from tools.results import published
from tools.results import record as records_of

COLOURS = {"onnxruntime fp32": "tab:blue", "openvino fp32": "tab:cyan", "openvino bf16": "tab:orange",
           "openvino int8": "tab:red", "native bf16": "tab:green", "native int8": "tab:purple",
           "atc fp16": "tab:olive", "atc mix": "tab:brown", "trtexec fp16": "tab:pink", "trtexec fp32": "black"}  # fmt: skip
LINES = ("-", "--", ":", "-.")
GREYS = ("0.25", "0.4", "0.55", "0.7")
NEAR = 11  # points between the middles of two labels, at least


def engine(record: dict) -> str:
    """Engine and precision, which have a colour."""
    return f"{records_of.engine_today(record)} {record['precision']}"


def machine(record: dict) -> str:
    """What a record's kind of line stands for: its CPU, or the chip and that its log is from elsewhere."""
    if record.get("imported") or record["chip"] != "cpu":
        cards = f", {record['devices']} devices" if (record.get("devices") or 1) > 1 else ""
        return record["chip"] + cards + ", imported" * bool(record.get("imported"))
    limit = "".join(f", {name.upper()}={record[name]}" for name in parameters.OPTIONAL if record.get(name))
    return f"{record['machine']['cpu']}, {record['machine']['cores']} cores{limit}"


def curves(records: list[dict], kind: str) -> dict[tuple, dict[tuple, list[dict]]]:
    """{(model, seq): {(engine and precision, machine): its newest records by batch size}}, of static shapes alone; of
    those with one batch size only where none has more: a point is no curve."""
    panels: dict[tuple, dict] = {}
    for r in sorted(records, key=lambda r: r["started"] or ""):
        if r["kind"] == kind and not r["seq"].startswith("real") and not r["standin"]:
            found = panels.setdefault((r["model"], r["seq"]), {})
            found.setdefault((engine(r), machine(r)), {})[r["bs"]] = r
    order = lambda lines: {k: [lines[k][bs] for bs in sorted(lines[k])] for k in sorted(lines)}
    several = {key for key, lines in panels.items() if len({bs for found in lines.values() for bs in found}) > 1}
    return {key: order(panels[key]) for key in sorted(several or panels)}


def published_curves(rows: list[dict], model: str, seq: str) -> dict[str, list[tuple[int, float]]]:
    """{label: [(batch size, samples/s)]} of the published throughput of one model."""
    lines: dict[str, list] = {}
    for r in rows:
        if r["metric"] == "throughput" and r["model"] == model and published.fits(r, seq) and r["bs"]:
            name = " ".join(filter(None, (r["chip"], r["precision"], r["variant"])))
            lines.setdefault(name, []).append((int(r["bs"]), r["value"]))
    return {name: sorted(points) for name, points in sorted(lines.items())}


def scales(ax) -> None:
    """Batch size by powers of 2, the other axis by powers of 10, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("batch size")


def name_lines(ax, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name (y of its last point, text, colour) right of the axes, none over another."""
    height = lambda y: ax.transData.transform((1, y))[1] * 72 / ax.figure.dpi
    placed = -1e9
    for y, text, colour in sorted(ends):
        placed = max(height(y), placed + NEAR)
        ax.annotate(text, (1, y), (4, placed - height(y)), xycoords=("axes fraction", "data"), va="center",
                    textcoords="offset points", color=colour, fontsize=8, annotation_clip=False)  # fmt: skip


def published_lines(ax, curves: dict[str, list[tuple[int, float]]]) -> list:
    """One panel of what others published, in grey; its lines' ends."""
    ends = []
    for i, (name, points) in enumerate(curves.items()):
        grey = GREYS[i % len(GREYS)]
        ax.plot(*zip(*points, strict=True), "x--", color=grey, markersize=4, label=name)
        ends.append((points[-1][1], name, grey))
    ax.set_ylabel("samples / s")
    return ends


def styles(panels) -> dict[tuple, tuple[str, str, str]]:
    """{(engine and precision, machine): (colour, kind of line, label)}, the same in all panels."""
    keys = sorted({key for lines in panels.values() for key in lines})
    machines = sorted({m for _, m in keys})
    others = [name for name in dict.fromkeys(e for e, _ in keys) if name not in COLOURS]
    colour = lambda name: COLOURS.get(name) or f"C{others.index(name)}"
    label = lambda name, on: f"{name}, {on}" if len(machines) > 1 else name
    return {(e, m): (colour(e), LINES[machines.index(m) % len(LINES)], label(e, m)) for e, m in keys}


def throughput(ax, lines, style) -> list:
    """One panel of samples/s; its lines' ends."""
    ends = []
    for key, found in lines.items():
        colour, kind, label = style[key]
        speed = [r["samples_per_second"] for r in found]
        ranges = [[v - min(r["rounds"]) for v, r in zip(speed, found, strict=True)],
                  [max(r["rounds"]) - v for v, r in zip(speed, found, strict=True)]]  # fmt: skip
        ax.errorbar(
            [r["bs"] for r in found],
            speed,
            ranges,
            fmt=f"o{kind}",
            color=colour,
            markersize=4,
            elinewidth=1,
            label=label,
        )
        ends.append((speed[-1], label, colour))
    ax.set_ylabel("samples / s")
    return ends


def latency(ax, lines, style) -> list:
    """One panel of milliseconds a request; its lines' ends."""
    ends = []
    for key, found in lines.items():
        found = [
            r for r in found if not records_of.no_percentiles(r) and r["latency_ms"]["p50"] and r["latency_ms"]["p99"]
        ]
        if not found:
            continue
        colour, kind, label = style[key]
        at, low, high = [r["bs"] for r in found], *([r["latency_ms"][q] for r in found] for q in ("p50", "p99"))
        ax.errorbar(at, low, [[0] * len(at), [b - a for a, b in zip(low, high, strict=True)]], fmt=f"o{kind}", color=colour,
                    markersize=4, elinewidth=1, capsize=2, label=label)  # fmt: skip
        ends.append((low[-1], label, colour))
    ax.set_ylabel("ms a request: median, and up to p99")
    return ends


PLOTS = {"throughput": throughput, "latency": latency}


@contextlib.contextmanager
def page(file, suffix: str, rows: int, columns: int = 1, panel=(8, 6)):
    """Axes [rows, columns] of `panel` inches, saved into an open binary file as "svg" or "png" when the block ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever matplotlibrc says here
        matplotlib.rcParams.update({"svg.hashsalt": "bert2om", "svg.fonttype": "path", "font.size": 9,
                                    "axes.grid": True, "grid.alpha": 0.3, "font.family": "DejaVu Sans"})  # fmt: skip
        size = (panel[0], panel[1] * rows)
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        yield axes
        empty = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
        figure.savefig(file, format=suffix, metadata=empty, bbox_inches="tight", dpi=120)
        pyplot.close(figure)


def draw(which: str, records: list[dict], rows: list[dict], file, suffix: str) -> None:
    """Draw one of PLOTS into an open binary file, as "svg" or "png"."""
    panels = curves(records, "throughput")
    style = styles(panels)
    said = {key: published_curves(rows, *key) for key in panels} if which == "throughput" else {}
    below = any(said.values())
    with page(file, suffix, 1 + below, max(len(panels), 1), (4.6 * max(len(panels), 1), 3.4)) as axes:
        if not panels:
            axes[0][0].text(0.5, 0.5, "nothing measured yet", ha="center", transform=axes[0][0].transAxes)
        named = []
        for (above, *under), (key, lines) in zip(axes.T, panels.items(), strict=False):
            named.append((above, key, PLOTS[which](above, lines, style), "measured here"))
            named += [(ax, key, published_lines(ax, said[key]), "published by others") for ax in under]
        for ax, (model, seq), ends, words in named:
            ax.set_title(f"{model}, {records_of.rows_said(seq).replace('-', ' and ')}: {words}", fontsize=9)
            if ends:
                scales(ax)
            else:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "nothing " + words.split()[0], ha="center", color="gray", transform=ax.transAxes)
        axes[0][0].figure.canvas.draw()  # the scales are settled: a point has its place
        for ax, _, ends, _ in named:
            name_lines(ax, ends)


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
