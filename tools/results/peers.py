"""The benches that `make record` kept: ours beside what one would use instead, as a table and a picture.

The picture has a line a contender, its speed and its accuracy side by side: twenty of them share four accuracies, so that in
a plane of both no name could be read."""

from pathlib import Path

from tools.base import tasks
from tools.results import store

SHAPES = ("sorted", "padded")
OVER = (
    "A share above 100 % is no gain: the peak is the median of seven measurements before the rounds, and the processor's "
    "clock was higher in them, so that a share is good to some percent."
)


UNITS = {"fp32": "AVX-512 or AVX2", "bf16": "AMX or AVX-512 with bf16", "int8": "AMX or AVX-512 with VNNI"}


def pairs(record: dict) -> dict:
    """{contender: {shape: line}}, ours last, as the record has them."""
    out: dict[str, dict] = {}
    for line in record["contenders"]:
        out.setdefault(name_of(line), {})[line["shape"]] = line
    return out


def name_of(line: dict) -> str:
    """A contender by its name of today."""
    return line["name"].replace("ENGINE=packed", "ENGINE=native")


def cells(line: dict) -> list[str]:
    """sentences/s, ratio with spread, share of the peak."""
    if line["samples_per_second"] is None:
        return ["-", "-", "-"]
    ratio = "-" if line["ratio"] is None else f"{line['ratio']:.2f} ({line['ratio_low']:.2f}-{line['ratio_high']:.2f})"
    share = "-" if line["share_of_peak"] is None else f"{100 * line['share_of_peak']:.0f} %"
    return [f"{line['samples_per_second']:.1f}", ratio, share]


def table(record: dict) -> str:
    """One record as Markdown."""
    r, m = record, record["machine"]
    work = {k: v / 1e9 for k, v in r["operations_per_sentence"].items()}
    known = {kind: peak["median"] for kind, peak in r["peak_per_second"].items()}
    peak = lambda k: "none" if known.get(k) is None else f"{known[k] / 1e12:.2f}"
    head = [
        "contender", "real: sent/s", "x recipe's way", "of peak", "accuracy %", "flips",
        f"padded {r['seq']}, batch {r['bs']}: sent/s", "x recipe's way", "of peak", "version",
    ]  # fmt: skip
    lines, why = [head, ["---"] * len(head)], []
    for name, by in pairs(r).items():
        line, padded = by["sorted"], by["padded"]
        accuracy = "-" if line["accuracy"] is None else f"{100 * line['accuracy']:.2f}"
        flips = "-" if line["flips"] is None else str(len(line["flips"]))
        shown = f"**{name}**" if line["ours"] else name
        lines.append([shown, *cells(line), accuracy, flips, *cells(padded), line["version"] or "-"])
        reasons = {f"{reason}" for one in by.values() if (reason := one["missing"].get("all"))}
        why += [f"- {name}: {reason}" for reason in sorted(reasons)]
    some = next(
        (v for line in r["contenders"] if (v := line["missing"].get("accuracy")) and line["shape"] == "sorted"), ""
    )
    text = [
        f"### {r['model']}, weights: {r['weights']}",
        "",
        f"{m['cpu']}, {r['threads']} threads, {r['started'][:10]}. Median over "
        f"{max((len(x['rounds'] or []) for x in r['contenders']), default=0)} interleaved rounds, smallest and largest in "
        f"brackets; {r['timed']}. Real: all {r['contenders'][0]['sentences']} sentences, sorted by length, batch {r['batch']}. "
        f"Padded: {r['contenders'][1]['sentences']} of them. Flips: labels unlike fp32's."
        + (f" Accuracy: not given ({some})." if some else "")
        + (f" The host gave up to {100 * max(r['stolen']):.0f} % of a round to others." if r.get("stolen") else ""),
        "",
        f"Operations a sentence: {work['sorted']:.2f} G real, {work['padded']:.2f} G padded. Peak, TOP/s: fp32 "
        f"{peak('fp32')}, bf16 {peak('bf16')}, int8 {peak('int8')} in registers; bf16 {peak('bf16_l2')}, int8 "
        f"{peak('int8_l2')} fed from L2. Memory {(known.get('memory') or 0) / 1e9:.0f} GB/s."
        + f" {OVER}"
        * any((line["share_of_peak"] or 0) > 1 for line in r["contenders"]),
        "",
        *("| " + " | ".join(cells) + " |" for cells in lines),
        "",
        *([*why, ""] if why else []),
        *others(r),
    ]
    return "\n".join(text)


def others(record: dict) -> list[str]:
    """The lines of a table of the other batch sizes; none where a record has none."""
    by = pairs(record)
    shapes = [shape for shape in next(iter(by.values()), {}) if shape not in SHAPES]
    if not shapes:
        return []
    head = [f"{shape.replace('padded', 'batch')}: sent/s | x recipe's way | of peak" for shape in shapes]
    lines = [["contender", *head], ["---"] * (1 + 3 * len(shapes))]
    for name, line in by.items():
        lines.append([f"**{name}**" if line["sorted"]["ours"] else name, *sum((cells(line[s]) for s in shapes), [])])
    said = f"Padded to {record['seq']} in batches of other sizes, beside the recipe's way in the same batches:"
    return [said, "", *("| " + " | ".join(line) + " |" for line in lines), ""]


def page(records: list[dict]) -> str:
    """results/bench.md: the newest record of each."""
    return "\n".join(map(table, newest(records)))


def newest(records: list[dict]) -> list[dict]:
    """The last record of each model, weights and CPU."""
    keyed = {(r["model"], r["weights"], r["machine"]["cpu"]): r for r in sorted(records, key=lambda r: r["started"])}
    return [keyed[k] for k in sorted(keyed)]


def pictured(records: list[dict]) -> dict | None:
    """The bench that the picture is of: the newest of trained weights, else the newest; None where there is none."""
    trained = [r for r in records if any(line["accuracy"] is not None for line in r["contenders"])]
    return max(trained or records, key=lambda r: r["started"], default=None)


def points(record: dict, rows: list[dict]) -> list[dict]:
    """The contenders of a bench that have an accuracy, or no weights to have one with, at the sentences' own lengths, and
    the published cards that have both: {name, kind, speed, interval}, slowest first. speed: sentences per core-second, or
    per second of a card. interval: share right, and its 95 % interval."""
    lines = [line for line in record["contenders"] if line["shape"] == "sorted" and line["samples_per_second"]]
    total = max((line["sentences"] for line in lines), default=0)
    interval = lambda share, total: None if share is None else (share, *tasks.wilson(round(share * total), total))
    made = [{"name": name_of(line).replace("ENGINE=", "").replace("onnxruntime", "ORT"), "kind": "ours" if line["ours"] else "peers",
             "speed": line["samples_per_second"] / record["threads"], "interval": interval(line["accuracy"], total)}
            for line in lines]  # fmt: skip
    exact = {
        (r["model"], r["chip"], r["precision"], r["variant"]): r["value"] for r in rows if r["metric"] == "accuracy"
    }
    cards: dict[tuple, float] = {}
    for r in rows:
        key = r["model"], r["chip"], r["precision"], r["variant"]
        if r["metric"] == "throughput" and key in exact:
            cards[key] = max(cards.get(key, 0), r["value"])
    best = {key[:3]: (speed, exact[key]) for key, speed in sorted(cards.items(), key=lambda item: item[1])}
    made += [{"name": f"{chip} {precision}, {model.removesuffix('_sst2')}", "kind": "published", "speed": speed,
              "interval": interval(share / 100, 872)}
             for (model, chip, precision), (speed, share) in best.items() if model.endswith("_sst2")]  # fmt: skip
    return sorted(made, key=lambda point: point["speed"])


def said(record: dict, found: list[dict]) -> str:
    """What the picture shows, in a sentence."""
    words = []
    for kind in ("ours", "peers", "published"):
        if fastest := max((p for p in found if p["kind"] == kind), key=lambda p: p["speed"], default=None):
            share = f" with {100 * fastest['interval'][0]:.2f} % right" if fastest["interval"] else ""
            unit = "per second of a card" if kind == "published" else "per core-second"
            words.append(f"{kind}: {fastest['name']}, {fastest['speed']:.0f} sentences {unit}{share}")
    return f"{record['model']} on {record['machine']['cpu']}, the fastest of each: {'; '.join(words)}."


def draw(records: list[dict], rows: list[dict], file, suffix: str) -> None:
    """Speed and accuracy of ours, the peers and the published cards, a line each, from a bench's sentences at their own
    lengths, text to label; into an open binary file, as "svg" or "png"."""
    from matplotlib.ticker import MaxNLocator

    from tools.results import plot

    record = pictured(records)
    found = points(record, rows)
    inks = {"ours": plot.ORANGE, "peers": plot.BLUE, "published": plot.GREY}
    tall = 0.175 * len(found) + 1.1
    edges = {"left": 0.47, "right": 0.97, "top": 1 - 0.5 / tall, "bottom": 0.55 / tall, "wspace": 0.12}
    with plot.page(
        file, suffix, said(record, found), 1, tall, ncols=2, sharey=True, width_ratios=(3, 2), gridspec_kw=edges
    ) as axes:
        speed, right = axes[0]
        for y, point in enumerate(found):
            ink, mark = inks[point["kind"]], "x" if point["kind"] == "published" else "o"
            speed.plot(point["speed"], y, mark, color=ink, markersize=5)
            if point["interval"]:
                share, low, high = (100 * v for v in point["interval"])
                right.plot([low, high], [y, y], color=ink, linewidth=1, alpha=0.6)
                right.plot(share, y, mark, color=ink, markersize=4)
        speed.set_xscale("log")
        speed.xaxis.set_major_formatter("{x:g}")
        speed.set_yticks(range(len(found)), [point["name"] for point in found])
        for label, point in zip(speed.get_yticklabels(), found, strict=True):
            label.set_color(inks[point["kind"]])
        speed.set_ylim(-0.7, len(found) - 0.3)
        for ax in (speed, right):
            ax.tick_params(axis="y", length=0)
        cpu = record["machine"]["cpu"].replace("(R)", "").replace(" Processor", "")
        speed.figure.text(0.02, 1 - 0.2 / tall, f"{record['model']} on {cpu}, {record['threads']} cores", weight="bold")
        for x, kind, words in (
            (0.02, "ours", "ours"),
            (0.12, "peers", "peers"),
            (0.24, "published", "published: a card, another model"),
        ):
            speed.figure.text(x, 1 - 0.38 / tall, words, color=inks[kind])
        right.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        speed.set_xlabel("sentences per\ncore-second")
        right.set_xlabel("% right")


def promote(folder: Path, record: dict) -> Path:
    """Write a record as folder/<date>-<host>-<model>-<weights>.json; another of that name is never overwritten."""
    day = record["started"].replace(":", "").replace("-", "")[:15]
    name = f"{day}-{record['machine']['host']}-{record['model']}-{record['weights']}.json"
    return store.keep(folder / name, record, ("bench",))
