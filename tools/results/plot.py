"""Three pictures of a list of records and the published figures, the same bytes from the same lists.

    python -m tools.results.plot throughput results/records --save_path results/throughput.svg

    wrote results/throughput.svg: 3 records

throughput: samples/s against batch size per chip and precision, published curves dashed. latency: median to 99th
percentile of a request against batch size. accuracy: accuracy with its 95 % interval against the best throughput of
the same configuration. .svg or .png by the name.
"""

import argparse
import contextlib
from math import nan
from pathlib import Path

from tools import cli
from tools.results import published
from tools.results import record as records_of


def label(record: dict, records: list[dict]) -> str:
    """A configuration's name in a legend; with its CPU where the list holds several."""
    name = " ".join((record["chip"], record["engine"], record["precision"]))
    if record.get("devices", 1) > 1:
        name += f", {record['devices']} devices"
    if "imported" in record:
        return f"{name}, imported"
    several = len({r["machine"]["cpu"] for r in records if "imported" not in r}) > 1
    return f"{name}, {record['machine']['cpu']} ({record['machine']['cores']})" if several else name


def newest(records: list[dict], kind: str) -> dict[tuple, dict]:
    """{(model, seq, weights, label, batch size): the record of `kind` that started last}."""
    keyed = {}
    for r in sorted((r for r in records if r["kind"] == kind), key=lambda r: r["started"] or ""):
        keyed[(r["model"], r["seq"], r["weights"], label(r, records), r["bs"])] = r
    return dict(sorted(keyed.items()))


def curves(keyed: dict[tuple, dict]) -> dict[tuple, list[dict]]:
    """{(model, seq): {label: records by batch size}}."""
    panels: dict[tuple, dict] = {}
    for (model, seq, weights, name, _), r in keyed.items():
        name = name if weights == "default" else f"{name} ({weights} weights)"
        panels.setdefault((model, seq), {}).setdefault(name, []).append(r)
    return panels


def published_curves(rows: list[dict], model: str, seq: str) -> dict[str, list[tuple[int, float]]]:
    """{label: [(batch size, samples/s)]} of the published throughput of one model."""
    lines: dict[str, list] = {}
    for r in rows:
        if r["metric"] == "throughput" and r["model"] == model and published.fits(r, seq) and r["bs"]:
            name = " ".join(filter(None, ("published:", r["chip"], r["precision"], r["variant"])))
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


def throughput(axes, panels, records, rows):
    for ax, (model, seq) in zip(axes, panels, strict=True):
        for name, found in panels[(model, seq)].items():
            ax.plot([r["bs"] for r in found], [r["samples_per_second"] for r in found], "o-", label=name)
        for name, points in published_curves(rows, model, seq).items():
            ax.plot(*zip(*points, strict=True), "x--", label=name)
        ax.set_ylabel("samples / s")
        scales(ax)


def latency(axes, panels, records, rows):
    for ax, key in zip(axes, panels, strict=True):
        for name, found in panels[key].items():
            found = [r for r in found if r["latency_ms"]["p50"] and r["latency_ms"]["p99"]]
            at = [r["bs"] for r in found]
            cut = {q: [r["latency_ms"].get(q, nan) for r in found] for q in ("p50", "p90", "p95", "p99")}
            (line,) = ax.plot(at, cut["p50"], "o-", label=f"{name}: p50, band to p99")
            ax.fill_between(at, cut["p50"], cut["p99"], alpha=0.2, color=line.get_color(), linewidth=0)
            for q in ("p90", "p95", "p99"):
                ax.plot(at, cut[q], "_", color=line.get_color())
        ax.set_ylabel("ms a request")
        scales(ax)


def accuracy(axes, panels, records, rows):
    fastest: dict[tuple, float] = {}
    for (model, seq, _, name, _), r in newest(records, "throughput").items():
        key = (model, seq, name)
        fastest[key] = max(fastest.get(key, 0), r["samples_per_second"])
    for ax, (model, seq) in zip(axes, panels, strict=True):
        for name, found in panels[(model, seq)].items():
            if speed := fastest.get((model, seq, name)):
                r = found[-1]
                low, high = (100 * abs(r["accuracy"] - v) for v in r["interval95"])
                ax.errorbar([speed], [100 * r["accuracy"]], [[low], [high]], fmt="o", capsize=3, label=name)
        levels = [r for r in rows if r["metric"] == "accuracy" and r["model"] == model and published.fits(r, seq)]
        names = [" ".join(filter(None, ("published:", r["chip"], r["precision"], r["variant"]))) for r in levels]
        for name, value in dict.fromkeys((n, r["value"]) for n, r in zip(names, levels, strict=True)):
            ax.axhline(value, linestyle="--", linewidth=1, color="gray", label=f"{name}, {value:.4g} %")
        ax.set_xlabel("samples / s, best batch size")
        ax.set_ylabel("accuracy, %")


PLOTS = {"throughput": throughput, "latency": latency, "accuracy": accuracy}


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
    kind = "accuracy" if which == "accuracy" else "throughput"
    kept = {k: r for k, r in newest(records, kind).items() if not (which == "accuracy" and r["caveat"])}
    panels = curves(kept)
    with page(file, suffix, max(len(panels), 1)) as axes:
        axes = axes[:, 0]
        if panels:
            PLOTS[which](axes, panels, records, rows)
        else:
            axes[0].text(0.5, 0.5, "nothing measured yet", ha="center", transform=axes[0].transAxes)
        for ax, (model, seq) in zip(axes, panels, strict=False):
            ax.set_title(f"{model}, sequence {seq.replace('-', ' and ').replace('p', ', packed')}")
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12), borderaxespad=0, ncols=2)


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
