"""The benches that `make record` kept: ours beside what one would use instead, as a table and a picture."""

from pathlib import Path

from tools.base import tasks
from tools.results import plot, store

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


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a table, whose first row is its head."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def table(record: dict) -> str:
    """One record as Markdown."""
    r, m, by, lines = record, record["machine"], pairs(record), record["contenders"]
    work = {k: v / 1e9 for k, v in r["operations_per_sentence"].items()}
    known = {kind: peak["median"] for kind, peak in r["peak_per_second"].items()}
    peak = lambda k: "none" if known.get(k) is None else f"{known[k] / 1e12:.2f}"
    speed = ("sent/s", "x recipe's way", "of peak")
    head = ["contender", f"real: {speed[0]}", *speed[1:], "accuracy %", "flips",
            f"padded {r['seq']}, batch {r['bs']}: {speed[0]}", *speed[1:], "version"]  # fmt: skip
    rows, why = [head], []
    for name, shapes in by.items():
        line = shapes["sorted"]
        accuracy = "-" if line["accuracy"] is None else f"{100 * line['accuracy']:.2f}"
        flips = "-" if line["flips"] is None else str(len(line["flips"]))
        padded, version = cells(shapes["padded"]), line["version"] or "-"
        rows.append([shown(name, line), *cells(line), accuracy, flips, *padded, version])
        reasons = {one["missing"]["all"] for one in shapes.values() if one["missing"].get("all")}
        why += [f"- {name}: {reason}" for reason in sorted(reasons)]
    missing = [v for line in lines if line["shape"] == "sorted" and (v := line["missing"].get("accuracy"))]
    rounds = max((len(line["rounds"] or []) for line in lines), default=0)
    said = (
        f"{m['cpu']}, {r['threads']} threads, {r['started'][:10]}. Median over {rounds} interleaved rounds, smallest and "
        f"largest in brackets; {r['timed']}. Real: all {lines[0]['sentences']} sentences, sorted by length, batch "
        f"{r['batch']}. Padded: {lines[1]['sentences']} of them. Flips: labels unlike fp32's."
    )
    said += f" Accuracy: not given ({missing[0]})." if missing else ""
    said += f" The host gave up to {100 * max(r['stolen']):.0f} % of a round to others." if r.get("stolen") else ""
    limits = (
        f"Operations a sentence: {work['sorted']:.2f} G real, {work['padded']:.2f} G padded. Peak, TOP/s: fp32 "
        f"{peak('fp32')}, bf16 {peak('bf16')}, int8 {peak('int8')} in registers; bf16 {peak('bf16_l2')}, int8 "
        f"{peak('int8_l2')} fed from L2. Memory {(known.get('memory') or 0) / 1e9:.0f} GB/s."
    )
    limits += f" {OVER}" * any((line["share_of_peak"] or 0) > 1 for line in lines)
    text = [f"### {r['model']}, weights: {r['weights']}", "", said, "", limits, "", *markdown(rows), ""]
    text += [*why, ""] if why else []
    if others := [shape for shape in next(iter(by.values()), {}) if shape not in SHAPES]:
        rows = [["contender", *(f"{s.replace('padded', 'batch')}: {speed[0]}" if w == speed[0] else w
                                for s in others for w in speed)]]  # fmt: skip
        rows += [[shown(name, line["sorted"]), *sum((cells(line[s]) for s in others), [])] for name, line in by.items()]
        said = f"Padded to {r['seq']} in batches of other sizes, beside the recipe's way in the same batches:"
        text += [said, "", *markdown(rows), ""]
    return "\n".join(text)


def shown(name: str, line: dict) -> str:
    """A contender's name, ours in bold letters."""
    return f"**{name}**" if line["ours"] else name


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


def points(record: dict) -> list[dict]:
    """The contenders of a bench at the sentences' own lengths, slowest first: {name, kind, speed, interval}, the speed in
    sentences per core-second, the interval the share right and its 95 % interval, or None."""
    lines = [line for line in record["contenders"] if line["shape"] == "sorted" and line["samples_per_second"]]
    short = lambda line: name_of(line).replace("ENGINE=", "").replace("onnxruntime", "ORT")
    interval = lambda n, share: None if share is None else (share, *tasks.wilson(round(share * n), n))
    found = [{"name": short(line), "kind": "ours" if line["ours"] else "peers",
              "speed": line["samples_per_second"] / record["threads"],
              "interval": interval(line["sentences"], line["accuracy"])} for line in lines]  # fmt: skip
    return sorted(found, key=lambda point: point["speed"])


SAYS = (
    "{model} on {cpu}, the fastest of each: {words}.",
    "{}: {}, {:.0f} sentences per core-second",
    " with {:.2f} % right",
    "; ",
)
IN_CHINESE = "{model}，{cpu}，各类中最快的：{words}。", "{}：{}，每核·秒 {:.0f} 句", "，精度 {:.2f} %", "；"
KINDS = {"ours": "本项目", "peers": "其他引擎"}


def said(record: dict, chinese: bool = False) -> str:
    """What the picture shows, in a sentence."""
    whole, one, right, mark = IN_CHINESE if chinese else SAYS
    words = []
    for kind, in_chinese in KINDS.items():
        for point in [p for p in points(record) if p["kind"] == kind][-1:]:
            share = right.format(100 * point["interval"][0]) if point["interval"] else ""
            words.append(one.format(in_chinese if chinese else kind, point["name"], point["speed"]) + share)
    return whole.format(model=record["model"], cpu=record["machine"]["cpu"], words=mark.join(words))


def draw(records: list[dict], file) -> None:
    """Speed and accuracy of ours and the peers, at the sentences' own lengths, into an open binary file, as .svg."""
    record = pictured(records)
    title = f"{record['model']} on {plot.short(record['machine']['cpu'])}, {record['threads']} cores"
    kinds = {"ours": (plot.ORANGE, "o", 0.02, "ours"), "peers": (plot.BLUE, "o", 0.12, "peers")}
    plot.dots(file, said(record), title, points(record), kinds, "sentences per\ncore-second")


def promote(folder: Path, record: dict) -> Path:
    """Write a record as folder/<date>-<host>-<model>-<weights>.json; another of that name is never overwritten."""
    day = record["started"].replace(":", "").replace("-", "")[:15]
    name = f"{day}-{record['machine']['host']}-{record['model']}-{record['weights']}.json"
    return store.keep(folder / name, record, ("bench",))
