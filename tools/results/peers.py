"""The benches that `make record` kept: ours beside what one would use instead, as a table and a picture."""

from pathlib import Path

from tools.base import tasks
from tools.results import plot, store

SHAPES = ("sorted", "padded")
OVER = "A share above 100 % is no gain: the peak is measured before and after the rounds, where the clock may be lower."
# What a caption says in English and in Chinese: the whole, each of its parts, what ends a part, and what stands between two.
WORDS = {
    False: ("{model} on {cpu}, sentences at their own lengths, the fastest of each: {parts}.",
            "{kind}: {name}, {speed:.0f} sentences/s per core", " with {:.2f} % right", "; "),
    True: ("{model}，{cpu}，句子按真实长度，各类中最快的：{parts}。", "{kind}：{name}，每核每秒 {speed:.0f} 句", "，精度 {:.2f} %", "；"),
}  # fmt: skip
CHINESE = {"ours": "本项目", "peers": "其他引擎"}


def name_of(line: dict) -> str:
    """A contender by its name of today."""
    return line["name"].replace("ENGINE=packed", "ENGINE=native")


def speed_heads(shape: str) -> list[str]:
    """The heads of the columns that `speeds` fills."""
    return [f"{shape}: sent/s", "x recipe's way", "of peak"]


def speeds(line: dict) -> list[str]:
    """Sentences a second, the ratio to the recipe's way with its spread, and the share of the peak."""
    if line["samples_per_second"] is None:
        return ["-", "-", "-"]
    ratio = "-" if line["ratio"] is None else f"{line['ratio']:.2f} ({line['ratio_low']:.2f}-{line['ratio_high']:.2f})"
    share = "-" if line["share_of_peak"] is None else f"{100 * line['share_of_peak']:.0f} %"
    return [f"{line['samples_per_second']:.1f}", ratio, share]


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a table, whose first row is its head, and an empty one."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])] + [""]


def section(record: dict) -> str:
    """One record as Markdown."""
    r, m, lines = record, record["machine"], record["contenders"]
    contenders: dict[str, dict] = {}  # {name: {shape: line}}, ours in bold letters
    for line in lines:
        name = f"**{name_of(line)}**" if line["ours"] else name_of(line)
        contenders.setdefault(name, {})[line["shape"]] = line
    work = {k: v / 1e9 for k, v in r["operations_per_sentence"].items()}
    peaks = {kind: (peak["median"], peak["best"]) for kind, peak in r["peak_per_second"].items() if peak["median"]}
    peak = lambda k, unit=1e12, form=".2f": " to ".join(f"{v / unit:{form}}" for v in peaks.get(k, ()) if v) or "none"
    padded = speed_heads(f"padded {r['seq']}, batch {r['bs']}")
    rows, reasons = [["contender", *speed_heads("real"), "accuracy %", "flips", *padded, "version"]], []
    for name, shapes in contenders.items():
        line = shapes["sorted"]
        accuracy = "-" if line["accuracy"] is None else f"{100 * line['accuracy']:.2f}"
        flips = "-" if line["flips"] is None else str(len(line["flips"]))
        rows.append([name, *speeds(line), accuracy, flips, *speeds(shapes["padded"]), line["version"] or "-"])
        why = {one["missing"]["all"] for one in shapes.values() if one["missing"].get("all")}
        reasons += [f"- {name.strip('*')}: {reason}" for reason in sorted(why)]
    unscored = [v for line in lines if line["shape"] == "sorted" and (v := line["missing"].get("accuracy"))]
    rounds = max((len(line["rounds"] or []) for line in lines), default=0)
    conditions = (
        f"{m['cpu']}, {r['threads']} threads, {r['started'][:10]}. Median over {rounds} interleaved rounds, smallest and "
        f"largest in brackets; {r['timed']}. Real: all {lines[0]['sentences']} sentences, sorted by length, batch "
        f"{r['batch']} (ENGINE=native: all at once). Padded: {lines[1]['sentences']} of them. Recipe's way: transformers fp32, "
        "padded. Flips: labels unlike fp32's."
    )
    conditions += f" Accuracy: not given ({unscored[0]})." if unscored else ""
    stolen = max(r.get("stolen") or [0])
    conditions += f" The host gave up to {100 * stolen:.0f} % of a round to others." * bool(r.get("stolen"))
    limits = (
        f"Operations a sentence: {work['sorted']:.2f} G real, {work['padded']:.2f} G padded. Peak, TOP/s, its median, of which "
        f"shares are, to its best: fp32 {peak('fp32')}, bf16 {peak('bf16')}, int8 {peak('int8')} in registers; bf16 "
        f"{peak('bf16_l2')}, int8 {peak('int8_l2')} fed from L2. Memory {peak('memory', 1e9, '.0f')} GB/s."
    )
    limits += f" {OVER}" * any((line["share_of_peak"] or 0) > 1 for line in lines)
    text = [f"### {r['model']}, weights: {r['weights']}", "", conditions, "", limits, "", *markdown(rows)]
    text += [*reasons, ""] if reasons else []
    if others := [shape for shape in next(iter(contenders.values()), {}) if shape not in SHAPES]:
        rows = [["contender", *sum((speed_heads(s.replace("padded", "batch")) for s in others), [])]]
        rows += [[name, *sum((speeds(shapes[s]) for s in others), [])] for name, shapes in contenders.items()]
        title = f"Padded to {r['seq']} in batches of other sizes, beside the recipe's way in the same batches:"
        text += [title, "", *markdown(rows)]
    return "\n".join(text)


def page(records: list[dict]) -> str:
    """results/bench.md: the newest record of each."""
    return "\n".join(map(section, newest(records)))


def newest(records: list[dict]) -> list[dict]:
    """The last record of each model, weights and CPU."""
    keyed = {(r["model"], r["weights"], r["machine"]["cpu"]): r for r in sorted(records, key=lambda r: r["started"])}
    return [keyed[k] for k in sorted(keyed)]


def pictured(records: list[dict]) -> dict | None:
    """The bench that the picture is of: the newest of trained weights, else the newest; None where there is none."""
    trained = [r for r in records if any(line["accuracy"] is not None for line in r["contenders"])]
    return max(trained or records, key=lambda r: r["started"], default=None)


def points(record: dict) -> list[dict]:
    """The contenders of a bench at the sentences' own lengths, slowest first: {name, kind, speed, interval}, the speed in
    sentences a second by the clock, per core, the interval the share right and its 95 % interval, or None."""
    lines = [line for line in record["contenders"] if line["shape"] == "sorted" and line["samples_per_second"]]
    short = lambda line: name_of(line).replace("ENGINE=", "").replace("onnxruntime", "ORT")
    interval = lambda n, share: None if share is None else (share, *tasks.wilson(round(share * n), n))
    contenders = [{"name": short(line), "kind": "ours" if line["ours"] else "peers",
                   "speed": line["samples_per_second"] / record["threads"],
                   "interval": interval(line["sentences"], line["accuracy"])} for line in lines]  # fmt: skip
    return sorted(contenders, key=lambda point: point["speed"])


def caption(record: dict, chinese: bool = False) -> str:
    """What the picture shows, in a sentence."""
    whole, part, right, comma = WORDS[chinese]
    fastest, parts = {point["kind"]: point for point in points(record)}, []
    for point in (fastest[kind] for kind in CHINESE if kind in fastest):
        end = right.format(100 * point["interval"][0]) if point["interval"] else ""
        parts.append(part.format(**point | {"kind": CHINESE[point["kind"]] if chinese else point["kind"]}) + end)
    return whole.format(model=record["model"], cpu=record["machine"]["cpu"], parts=comma.join(parts))


def draw(records: list[dict]) -> str:
    """Speed and accuracy of ours and the peers, at the sentences' own lengths, as .svg."""
    record = pictured(records)
    title = f"{record['model']} on {plot.short(record['machine']['cpu'])}, {record['threads']} cores"
    kinds = {"ours": (plot.ORANGE, "o", 0.02, "ours"), "peers": (plot.BLUE, "o", 0.12, "peers")}
    return plot.dots(caption(record), title, points(record), kinds, "sentences/s\nper core")


def promote(folder: Path, record: dict) -> Path:
    """Write a record as folder/<date>-<host>-<model>-<weights>.json; another of that name is never overwritten."""
    day = record["started"].replace(":", "").replace("-", "")[:15]
    name = f"{day}-{record['machine']['host']}-{record['model']}-{record['weights']}.json"
    return store.keep_record(folder / name, record, ("bench",))
