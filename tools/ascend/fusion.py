"""Predict which of CANN's fusions an ONNX graph qualifies for, by batch size and chip; count them in an .om.

    python -m tools.ascend.fusion ascend.onnx --chip 310P3 --batch_size 1,16 [--om model.om ...] [--json]

    | chip | precision | length | batch | AttentionScore | AttentionLnQKV | LayerNorm | Gelu |
    | 310P3 | fp16 | 128 | 1 | 0 of 12: batch x heads 12, not a multiple of 8 | 0 of 12: ... | 25 | 12 |
    | 310P3 | fp16 | 128 | 16 | 12 | 12 | 13: 12 of 25 are inside AttentionLnQKV | 12 |

A prediction, never a measurement: the guards are those of the passes' source text of 2021-22, as far as it is
public; the CANN that compiles may have others. Only an .om tells: with --om, the rows of its chip, precision, length
and batch show the operators counted in it instead, and a count that is not the predicted one says so.
"""

import argparse
import json
from pathlib import Path

from tools.ascend import om
from tools.ascend.sites import graph_facts
from tools.make import cli

SOURCES = {
    "AttentionScore": "canndev, attention score fusion pass, 2021-22; node name: msit surgeon, 2026-07-01",
    "AttentionLnQKV": "canndev, attention LN QKV fusion pass, 2021-22",
    "LayerNorm": "canndev, LayerNormONNXFusionPass, 2021-22; hicann/ops-nn (2026-08) not compared",
    "Gelu": "canndev, GeluONNXFusionPass, 2021-22",
    "ai_core_cnt": "hicann/runtime platform_config, 2026-08-22",
}
FUSIONS = ("AttentionScore", "AttentionLnQKV", "LayerNorm", "Gelu")
AI_CORES = {
    **{"310P1": 10, "310P3": 8, "310P5": 8, "310P7": 8},
    **dict.fromkeys(("310B1", "310B2", "310B3", "310B4"), 1),
    **dict.fromkeys(("910A", "910ProA", "910PremiumA"), 32),
    **dict.fromkeys(("910B", "910ProB"), 30),
    **dict.fromkeys(("910B1", "910B2", "910B2C", "910_9381", "910_9382", "910_9391", "910_9392"), 24),
    **dict.fromkeys(("910B3", "910B4", "910B4-1", "910_9362", "910_9363", "910_9372"), 20),
}
OLD_NAMES = {"710": "310P3", "910B4_1": "910B4-1"}
UNLISTED = ("310",)  # left the platform_config before it was public
MIXED = "under mix precision atc chooses the type of"
BATCHES = [1, 4, 8, 16, 32, 64]  # the published tables' rows


# ---- sizes: guards that depend on batch, length, chip and precision --------------------------------------


def typed(what: str, precision: str) -> tuple:
    """The guard that `what` is fp16."""
    return (
        (None, f"{MIXED} {what}") if precision == "mix" else (precision == "fp16", f"{what} is {precision}, not fp16")
    )


def size_guards(fusion: str, f: dict, batch: int, length: int, chip: str, precision: str) -> list:
    """[(does it hold: True, False or None if unknown, what is so if it does not)] of one fusion."""
    heads, dim, hidden, rows = f["heads"], f["head_dim"], f["hidden"], batch * length
    if fusion == "AttentionScore":
        return [
            (chip.startswith("310P"), f"{chip} is no 310P"),
            typed("softmax", precision),
            (heads in (12, 16), f"{heads} heads, not 12 or 16"),
            (dim == 64, f"head size {dim}, not 64"),
            (length % 32 == 0 and length <= 512, f"length {length}, not a multiple of 32 up to 512"),
            (batch <= 128, f"batch {batch}, over 128"),
            (batch * heads % 8 == 0, f"batch x heads {batch * heads}, not a multiple of 8"),
        ]
    if fusion == "AttentionLnQKV":
        fits = length % 16 == 0 and any(t % (length // 16) == 0 or length // 16 % t == 0 for t in (12, 8))
        cores = AI_CORES.get(chip)
        return [
            typed("LayerNorm's output", precision),
            (hidden in (768, 1024), f"hidden size {hidden}, not 768 or 1024"),
            (rows % 1536 == 0 or rows % 2048 == 0, f"batch x length {rows}, no multiple of 1536 or 2048"),
            (fits, f"length / 16 = {length / 16:g} does not go with 12 or 8"),
            (
                None if cores is None else cores in (8, 32),
                f"AI cores of {chip}: {cores or 'not in the sources'}",
            ),
        ]
    return []


def predict(f: dict, fusion: str, batch: int, length: int, chip: str, precision: str) -> dict:
    """{fused: how many or None if unknown, of: how many sites, failed: [words], unknown: [words]}."""
    sites = f["sites"][fusion]
    guards = size_guards(fusion, f, batch, length, chip, precision)
    failed = [words for holds, words in guards if holds is False]
    unknown = [words for holds, words in guards if holds is None]
    found = sites.count(None)
    fused = 0 if failed or not found else None if unknown else found
    reasons = sorted({r for r in sites if r})
    if not sites:
        reasons = ["nothing in the graph to fuse"]
    return {"fused": fused, "of": len(sites), "failed": failed + reasons, "unknown": unknown}


def row_of(f: dict, batch: int, length: int, chip: str, precision: str) -> dict:
    """{chip, batch, length, precision, <fusion>: predict's dict}. AttentionLnQKV takes the LayerNorm before it in: those
    are not fused on their own; `inside` says how many."""
    row = {k: predict(f, k, batch, length, chip, precision) for k in FUSIONS}
    norms, taken = row["LayerNorm"], row["AttentionLnQKV"]["fused"]
    if norms["fused"] and taken != 0:
        norms |= {"fused": None if taken is None else norms["fused"] - taken, "inside": taken}
        norms["unknown"] = [*norms["unknown"], *([] if taken else ["how many are inside AttentionLnQKV"])]
    return {"chip": chip, "batch": batch, "length": length, "precision": precision} | row


def seen(path) -> dict:
    """What an .om shows: its chip, precision, batch, lengths, and the fused operators of each graph (one per gear).

    Raises UserError where its definition cannot be read, or its first input is not [batch, length].
    """
    model = om.read(path)["models"][0]
    if "ops" not in model:
        raise cli.UserError(f"{path}: holds no readable model definition")
    dims = model["inputs"][0]["dims"] if model["inputs"] else []
    if len(dims) != 2:
        raise cli.UserError(f"{path}: its first input is {dims}, not [batch, length]")
    graphs = model["graphs"][1:] if model["gears"] else model["graphs"][:1]
    return {
        "file": Path(path).name,
        "soc_version": model["soc_version"],
        "standin": model["atc_version"] == "STAND-IN",
        "precision": "mix" if "allow_mix_precision" in (model["atc_cmdline"] or "") else "fp16",
        "batch": dims[0],
        "lengths": [gear[0] for gear in model["gears"] if gear] if model["gears"] else [dims[1]],
        "graphs": [{k: g["ops"].get(k, 0) for k in FUSIONS} for g in graphs],
    }


def decide(rows: list, compiled: dict) -> None:
    """Put an .om's counts into the rows that it is of."""
    chip = (compiled["soc_version"] or "").removeprefix("Ascend")
    for length, ops in zip(compiled["lengths"], compiled["graphs"], strict=False):
        own = {"chip": chip, "precision": compiled["precision"], "batch": compiled["batch"], "length": length}
        for row in (r for r in rows if own.items() <= r.items()):
            for name, count in ops.items():
                row[name] |= {"compiled": count, "standin": compiled["standin"]}


def known_chip(name: str) -> str:
    """A chip's name as `make` has it: Ascend310P3 and 710 are 310P3. UserError where it is none."""
    chip = OLD_NAMES.get(name.removeprefix("Ascend"), name.removeprefix("Ascend"))
    if chip not in AI_CORES and chip not in UNLISTED:
        raise cli.UserError(f"--chip {name}: not one of {', '.join([*AI_CORES, *UNLISTED])}")
    return chip


def fusion_report(onnx_path, chips=("310P3",), batches=None, lengths=None, precision="fp16", oms=()) -> dict:
    """The prediction for every chip, batch and length, and what the .om files `oms` show, as plain JSON types.

    {kind: "prediction", sources, graph: {batch, length, heads, head_dim, hidden}, rows: [row_of's dicts, with `compiled`
    counts where an .om decides], compiled: [seen's dict with the prediction for it]}. Lengths default to the graph's
    own, or to 64 and 128 where it is free.
    """
    f = graph_facts(onnx_path)
    chips = [known_chip(c) for c in chips]
    lengths = lengths or ([f["length"]] if f["length"] else [64, 128])
    rows = [row_of(f, b, n, c, precision) for c in chips for n in lengths for b in batches or BATCHES]
    graph = {k: v for k, v in f.items() if k != "sites"}
    compiled = [seen(path) for path in oms]
    for c in compiled:
        decide(rows, c)
        chip = known_chip(c["soc_version"] or chips[0])
        was = [row_of(f, c["batch"], length, chip, c["precision"]) for length in c["lengths"]]
        c["predicted"] = [{k: row[k]["fused"] for k in FUSIONS} for row in was]
    return {"kind": "prediction", "sources": SOURCES, "graph": graph, "rows": rows, "compiled": compiled}


def cell(p: dict) -> str:
    if "compiled" in p:
        whose = "the stand-in's .om, which fuses nothing" if p["standin"] else "the .om"
        predicted = "unknown" if p["fused"] is None else p["fused"]
        other = "" if p["compiled"] == p["fused"] else f", where {predicted} was predicted"
        return f"{p['compiled']} in {whose}{other}"
    if p.get("inside"):
        return "; ".join([f"{p['fused']}: {p['inside']} of {p['of']} are inside AttentionLnQKV", *p["failed"]])
    if p["fused"] == p["of"] and p["of"]:
        return f"{p['fused']}"
    count = "unknown" if p["fused"] is None else f"{p['fused']} of {p['of']}"
    return f"{count}: {'; '.join(p['failed'] or p['unknown'])}"


def show(report: dict) -> str:
    """The report as Markdown."""
    g = report["graph"]
    lines = [
        "# CANN fusions: a prediction, not a measurement",
        "",
        f"Encoder: hidden {g['hidden']}, {g['heads']} heads of {g['head_dim']}. A number is how many sites "
        "fuse; where fewer do, the guard that fails is named.",
        "",
        f"| chip | precision | length | batch | {' | '.join(FUSIONS)} |",
        f"|---|---|---:|---:|{'---|' * len(FUSIONS)}",
    ]
    for row in report["rows"]:
        start = f"| {row['chip']} | {row['precision']} | {row['length']} | {row['batch']} | "
        lines.append(start + " | ".join(cell(row[k]) for k in FUSIONS) + " |")
    lines += ["", "Sources:", *(f"- {k}: {v}" for k, v in report["sources"].items())]
    for c in report["compiled"]:
        stands = " by a stand-in for atc, which fuses nothing: its counts say nothing" if c["standin"] else ""
        made = f"Compiled{stands}: {c['file']} for {c['soc_version'] or 'an unnamed chip'}, {c['precision']}, "
        made += f"batch {c['batch']}:"
        lines += ["", made]
        for length, ops, was in zip(c["lengths"], c["graphs"], c["predicted"], strict=False):
            counts = (f"{k} {n} (predicted {'unknown' if was[k] is None else was[k]})" for k, n in ops.items())
            lines.append(f"- length {length}: " + ", ".join(counts))
    return "\n".join(lines)


def numbers(text: str) -> list:
    """The whole numbers of a list with commas. Raises argparse's error for anything else."""
    try:
        got = [int(n) for n in text.split(",")]
    except ValueError:
        got = []
    if not got or min(got) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1,4,8")
    return got


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("onnx", help="the graph that atc gets")
    p.add_argument("--chip", default="310P3", help="one or several, by comma, as 310P3 or Ascend310P3 (default 310P3)")
    p.add_argument("--batch_size", dest="batch", type=numbers, help="batch sizes by comma (default 1,4,8,16,32,64)")
    p.add_argument("--seq_len", dest="seq", type=numbers, help="lengths by comma (default: the graph's own)")
    p.add_argument("--precision", default="fp16", choices=["fp16", "mix", "fp32"], help="as PRECISION= (fp16)")
    p.add_argument("--om", action="append", default=[], help="a compiled model to count operators in; more than once")
    p.add_argument("--output", help="write the report there instead of printing it")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    report = fusion_report(a.onnx, a.chip.split(","), a.batch, a.seq, a.precision, a.om)
    text = json.dumps(report, indent=1) if a.json else show(report)
    if not a.output:
        print(text)
        return
    with cli.whole_file(a.output, "w") as f:
        f.write(text + "\n")
    print(f"wrote {a.output}")


if __name__ == "__main__":
    cli.run(main)
