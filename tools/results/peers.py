"""The benches that `make record` kept: ours beside what one would use instead, as a table and a picture."""

from pathlib import Path

from tools.results import store

SHAPES = ("sorted", "padded")


UNITS = {"fp32": "AVX-512", "bf16": "AMX or AVX-512 with bf16", "int8": "AMX or AVX-512 with VNNI"}


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
    share = "-" if line["share_of_peak"] is None else f"{100 * line['share_of_peak']:.1f} %"
    return [f"{line['samples_per_second']:.1f}", ratio, share]


def table(record: dict) -> str:
    """One record as Markdown."""
    r, m = record, record["machine"]
    work = {k: v / 1e9 for k, v in r["operations_per_sentence"].items()}
    peak = lambda k: "none" if (v := r["peak_per_second"][k]["median"]) is None else f"{v / 1e12:.2f}"
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
        f"{peak('int8_l2')} fed from L2. Memory {r['peak_per_second']['memory']['median'] / 1e9:.0f} GB/s.",
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


def shown(records: list[dict]) -> list[dict]:
    """The benches of trained weights, or the first where there are none: a screen's worth."""
    found = newest(records)
    return [r for r in found if r["weights"] != "seeded"] or found[:1]


def draw(records: list[dict], file, suffix: str) -> None:
    """Ratios as bars with the range of the rounds, the figure at the side: a row of panels a record, real and padded."""
    from tools.results import plot

    tall = 0.24 * max(len(pairs(r)) for r in records) + 0.8
    with plot.page(file, suffix, len(records), 2, (13, tall)) as axes:
        for both, r in zip(axes, records, strict=True):
            for ax, shape in zip(both, SHAPES, strict=True):
                lines = [line for line in r["contenders"] if line["shape"] == shape][::-1]
                beside = ax.get_yaxis_transform()
                for y, line in enumerate(lines):
                    if line["ratio"] is None:
                        ax.text(1.01, y, "not measured", va="center", color="gray", fontsize=8, transform=beside)
                        continue
                    spread = [[line["ratio"] - line["ratio_low"]], [line["ratio_high"] - line["ratio"]]]
                    ax.barh(y, line["ratio"], height=0.7, color="tab:orange" if line["ours"] else "tab:blue")
                    ax.errorbar(line["ratio"], y, xerr=spread, color="black", capsize=2, elinewidth=1)
                    ax.text(1.01, y, f"{line['ratio']:.1f} x", va="center", fontsize=8, transform=beside)
                ax.set_yticks(range(len(lines)), [name_of(line) for line in lines], fontsize=8)
                ax.set_ylim(-0.6, len(lines) - 0.4)
                ax.set_xlim(left=0)
                ax.grid(axis="y", visible=False)
                kind = "real sentences" if shape == "sorted" else f"padded to {r['seq']}, batch {r['bs']}"
                cpu = r["machine"]["cpu"].replace("(R)", "").replace(" Processor", "")
                ax.set_title(f"{r['model']} on {cpu}, {kind}: times the recipe's speed", fontsize=9)


def promote(folder: Path, record: dict) -> Path:
    """Write a record as folder/<date>-<host>-<model>-<weights>.json; another of that name is never overwritten."""
    day = record["started"].replace(":", "").replace("-", "")[:15]
    name = f"{day}-{record['machine']['host']}-{record['model']}-{record['weights']}.json"
    return store.keep(folder / name, record, ("bench",))
