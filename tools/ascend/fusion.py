"""Predict which of CANN's fusions an ONNX graph qualifies for, by batch size and chip; count them in an .om.

    python -m tools.ascend.fusion ascend.onnx --chip 310P3 --batch_size 1,16 [--om model.om ...]

    | chip | precision | length | batch | AttentionScore | AttentionLnQKV | LayerNorm | Gelu |
    | 310P3 | fp16 | 128 | 1 | 0 of 12: batch x heads 12, not a multiple of 8 | 0 of 12: ... | 25 | 12 |
    | 310P3 | fp16 | 128 | 16 | 12 | 12 | 13: 12 of 25 are inside AttentionLnQKV | 12 |

This is a prediction, never a measurement. The guards are those of the passes' source text of 2021-22, as far as it is
public, and the CANN that compiles may have others. Only an .om shows what was fused: with --om, the row of its chip,
precision, length and batch has the number of operators in it, and the prediction if that is another number.
"""

import re

from tools.ascend import om
from tools.ascend.sites import graph_facts
from tools.base import trip
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
    "310": None,  # left the platform_config before it was public
}
BATCHES = "1,4,8,16,32,64"  # the published tables' rows


def size_guards(fusion: str, f: dict, batch: int, length: int, chip: str, precision: str) -> list:
    """[(whether it holds, None if unknown; the reason if it does not)] for each guard of one fusion."""
    heads, dim, hidden, rows = f["heads"], f["head_dim"], f["hidden"], batch * length
    typed, by_atc = None if precision == "mix" else True, "under mix precision atc chooses the type of"
    if fusion == "AttentionScore":
        return [
            (chip.startswith("310P"), f"{chip} is no 310P"),
            (typed, f"{by_atc} softmax"),
            (heads in (12, 16), f"{heads} heads, not 12 or 16"),
            (dim == 64, f"head size {dim}, not 64"),
            (length % 32 == 0 and length <= 512, f"length {length}, not a multiple of 32 up to 512"),
            (batch <= 128, f"batch {batch}, over 128"),
            (batch * heads % 8 == 0, f"batch x heads {batch * heads}, not a multiple of 8"),
        ]
    if fusion == "AttentionLnQKV":
        fits = length % 16 == 0 and any(t % (length // 16) == 0 or length // 16 % t == 0 for t in (12, 8))
        cores = AI_CORES[chip]
        return [
            (typed, f"{by_atc} LayerNorm's output"),
            (hidden in (768, 1024), f"hidden size {hidden}, not 768 or 1024"),
            (rows % 1536 == 0 or rows % 2048 == 0, f"batch x length {rows}, no multiple of 1536 or 2048"),
            (fits, f"length / 16 = {length / 16:g} does not go with 12 or 8"),
            (cores and cores in (8, 32), f"AI cores of {chip}: {cores or 'not in the sources'}"),
        ]
    return []


def predict(f: dict, fusion: str, batch: int, length: int, chip: str, precision: str) -> dict:
    """{fused: how many sites, None if that is unknown; of: how many there are; failed, unknown: lists of reasons}."""
    sites = f["sites"][fusion]
    guards = size_guards(fusion, f, batch, length, chip, precision)
    failed = [words for holds, words in guards if holds is False]
    unknown = [words for holds, words in guards if holds is None]
    fit = sites.count(None)
    fused = 0 if failed or not fit else None if unknown else fit
    reasons = sorted({r for r in sites if r}) if sites else ["nothing in the graph to fuse"]
    return {"fused": fused, "of": len(sites), "failed": failed + reasons, "unknown": unknown}


def row_of(f: dict, batch: int, length: int, chip: str, precision: str) -> dict:
    """{chip, batch, length, precision, and for each fusion what predict returns}. AttentionLnQKV contains the LayerNorm
    before it, which is then not fused alone; `inside` is the number of those."""
    row = {k: predict(f, k, batch, length, chip, precision) for k in FUSIONS}
    norms, inside = row["LayerNorm"], row["AttentionLnQKV"]["fused"]
    if norms["fused"] and inside != 0:
        norms |= {"fused": None if inside is None else norms["fused"] - inside, "inside": inside}
        norms["unknown"] = [*norms["unknown"], *([] if inside else ["how many are inside AttentionLnQKV"])]
    return {"chip": chip, "batch": batch, "length": length, "precision": precision} | row


def operators_of(path) -> dict:
    """An .om's chip, precision and batch, whether a stand-in made it, and {length: {operator: count}}. UserError if its
    definition cannot be read, or its first input is not [batch, length]."""
    model = om.read_om(path)
    dims = model["inputs"][0]["dims"] if model.get("inputs") else []
    if len(dims) != 2:
        raise cli.UserError(f"{path}: its first input is {dims}, not [batch, length]")
    graphs = model["graphs"][1:] if model["gears"] else model["graphs"][:1]  # one for each gear
    lengths = [gear[0] for gear in model["gears"] if gear] if model["gears"] else [dims[1]]
    return {
        "chip": (model["soc_version"] or "").removeprefix("Ascend"),
        "standin": model["atc_version"] == "STAND-IN",
        "precision": "mix" if "allow_mix_precision" in (model["atc_cmdline"] or "") else "fp16",
        "batch": dims[0],
        "ops": {length: g["ops"] for length, g in zip(lengths, graphs, strict=False)},
    }


def chip_name(name: str) -> str:
    """A chip's name as npu-smi prints it: Ascend310P3 and 710 are 310P3. UserError for an unknown chip."""
    chip = trip.soc(name).removeprefix("Ascend")
    if chip not in AI_CORES:
        raise cli.UserError(f"--chip {name}: not one of {', '.join(AI_CORES)}")
    return chip


def fusion_report(onnx_path, chips=("310P3",), batches=(16,), precision="fp16", oms=()) -> dict:
    """The prediction for every chip, batch and length, and what the .om files `oms` show, as plain JSON types.
    {graph: {batch, length, heads, head_dim, hidden}, rows: [what row_of returns, with the count `compiled` if there is an
    .om]}. If the graph fixes no length, the lengths are those of the .om files, or 64 and 128."""
    f, compiled = graph_facts(onnx_path), [operators_of(path) for path in oms]
    lengths = [f["length"]] if f["length"] else sorted({n for c in compiled for n in c["ops"]}) or [64, 128]
    rows = [row_of(f, b, n, c, precision) for c in map(chip_name, chips) for n in lengths for b in batches]
    for row in rows:
        for c in compiled:
            if all(c[k] == row[k] for k in ("chip", "precision", "batch")) and row["length"] in c["ops"]:
                for name in FUSIONS:
                    row[name] |= {"compiled": c["ops"][row["length"]].get(name, 0), "standin": c["standin"]}
    return {"graph": {k: v for k, v in f.items() if k != "sites"}, "rows": rows}


def cell_text(p: dict) -> str:
    if "compiled" in p:
        om_name = "the stand-in's .om, which fuses nothing" if p["standin"] else "the .om"
        prediction = "unknown" if p["fused"] is None else p["fused"]
        other = "" if p["compiled"] == p["fused"] else f", where {prediction} was predicted"
        return f"{p['compiled']} in {om_name}{other}"
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
        cells = [
            *(str(row[k]) for k in ("chip", "precision", "length", "batch")),
            *(cell_text(row[k]) for k in FUSIONS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Sources:", *(f"- {k}: {v}" for k, v in SOURCES.items())])


def main():
    p = cli.parser(__doc__)
    p.add_argument("onnx", help="the graph that atc gets")
    p.add_argument(
        "--chip", default="310P3", help="one chip or several, with commas, such as 310P3 or Ascend310P3 (default 310P3)"
    )
    p.add_argument("--batch_size", dest="batch", default=BATCHES, help=f"batch sizes, with commas (default {BATCHES})")
    p.add_argument("--precision", default="fp16", choices=["fp16", "mix"], help="as PRECISION= (fp16)")
    p.add_argument(
        "--om", action="append", default=[], help="a compiled model whose operators are counted; may be repeated"
    )
    a = p.parse_args()
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", a.batch):
        raise cli.UserError(f"--batch_size {a.batch}: not whole numbers with commas between, as {BATCHES}")
    print(show(fusion_report(a.onnx, a.chip.split(","), [*map(int, a.batch.split(","))], a.precision, a.om)))


if __name__ == "__main__":
    cli.run(main)
