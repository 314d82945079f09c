"""Predict which of CANN's fusions an ONNX graph qualifies for, by batch size and chip; count them in an .om.

    python -m tools.ascend.fusion ascend.onnx --chip 310P3 --batch 1,16 [--om model.om] [--json]

    | chip | precision | length | batch | AttentionScore | AttentionLnQKV | LayerNorm | Gelu |
    | 310P3 | fp16 | 128 | 1 | 0 of 12: batch x heads 12, not a multiple of 8 | 0 of 12: ... | 25 | 12 |
    | 310P3 | fp16 | 128 | 16 | 12 | 12 | 25 | 12 |

A prediction, never a measurement: the guards are those of the passes' source text of 2021-22, as far as it is
public; the CANN that compiles may have others. Only an .om tells, which is why --om counts its operators.
"""

import argparse
import json
from pathlib import Path

from tools import cli
from tools.ascend import om
from tools.graph import encoder
from tools.graph.encoder import HEADS, Miss, const, made_by, near, perm_of, scalar

SOURCES = {
    "AttentionScore": "canndev, attention score fusion pass, 2021-22; node name: msit surgeon, 2026-07-01",
    "AttentionLnQKV": "canndev, attention LN QKV fusion pass, 2021-22",
    "LayerNorm": "canndev, LayerNormONNXFusionPass, 2021-22; hicann/ops-nn (2026-08) not compared",
    "Gelu": "canndev, GeluONNXFusionPass, 2021-22",
    "ai_core_cnt": "hicann/runtime platform_config, 2026-08-22",
}
FUSIONS = ("AttentionScore", "AttentionLnQKV", "LayerNorm", "Gelu")
AI_CORES = {"310P3": 8}
OLD_NAMES = {"710": "310P3"}
BATCHES = [1, 4, 8, 16, 32, 64]  # the published tables' rows


# ---- the graph: guards that hold or fail whatever the batch size -----------------------------------------


def users(v, *ops) -> bool:
    """Is `v` read by nodes of exactly these types, in this order?"""
    return tuple(n.op_type for n in sorted(v.consumers(), key=lambda n: n.graph.index(n))) == ops


def same_length(parts: list) -> bool:
    """Are these four parts of a shape [any, 1, S, S] with S not 1?"""
    if len(parts) != 4:
        return False
    _, one, rows, columns = parts
    return one == 1 and rows != 1 and (rows is columns or rows == columns)


def expanded(v) -> list:
    """The shape that an Expand gives `v`, as numbers and values; [] when nothing is expanded."""
    node = made_by(v, "Expand")
    if node is None:
        return []
    shape, concat = node.inputs[1], made_by(node.inputs[1], "Concat")
    if concat is None:
        c = const(shape)
        return [] if c is None else c.tolist()
    return [int(scalar(p)) if scalar(p) is not None else p for p in concat.inputs]


def attention_score(softmax) -> str | None:
    """Why the attention around `softmax` is not the pass's pattern, or None."""
    add = made_by(softmax.inputs[0], "Add")
    mul = made_by(add.inputs[0], "Mul") if add else None
    if mul is None or scalar(mul.inputs[1]) is None:
        return "scores are not MatMul, Mul by a constant, Add of the mask (FusedMulAdd)"
    if not (mul.name or "").startswith("bert_"):
        return "the scale node's name does not begin with bert_"
    if not same_length(expanded(add.inputs[1])):
        return "mask is not expanded to [B, 1, S, S]"
    scores = made_by(mul.inputs[0], "MatMul")
    key = made_by(scores.inputs[1], "Transpose") if scores else None
    inner = made_by(key.inputs[0], "Transpose") if key else None
    if inner is None or perm_of(key) != (0, 1, 3, 2):
        return "key is not transposed in two steps, so q, k and v differ in shape"
    context = softmax.outputs[0].consumers()[0]
    back = context.outputs[0].consumers()[0]
    if back.op_type != "Transpose" or perm_of(back) != HEADS:
        return "context is not transposed back"
    if not users(back.outputs[0], "Reshape"):
        return "context is not reshaped (ConfusionTransposeD)"
    return None


def attention_ln_qkv(layer, index) -> str | None:
    """Why the LayerNorm that feeds a layer's query, key and value is not the pass's pattern, or None."""
    norm = index.norm_by_out[layer.query.x]
    if reason := layer_norm(norm):
        return reason
    if not users(norm.out, "MatMul", "MatMul", "MatMul", "Add"):
        return "LayerNorm's readers are not query, key, value, residual in this order"
    if norm.out.shape is None or len(norm.out.shape) != 2:
        return "LayerNorm's output is not 2-D"
    return None


def layer_norm(norm) -> str | None:
    v = norm.out
    if made_by(v, "LayerNormalization"):
        return "is one LayerNormalization operator, not the nodes the pass looks for"
    for op, vector in (("Add", norm.beta), ("Mul", norm.gamma)):
        if vector is not None:
            v = encoder.with_const(made_by(v, op))[0]
            if made_by(v, "Reshape"):
                return "a Reshape stands inside"
    div = v.producer()
    variance = encoder.with_const(made_by(made_by(div.inputs[1], "Sqrt").inputs[0], "Add"))[0]
    square = made_by(made_by(variance, "ReduceMean").inputs[0], "Pow")
    if square is None:
        return "the square is not a Pow"
    centred = square.inputs[0]
    centred = centred.producer().inputs[0] if made_by(centred, "Cast") else centred
    return None if centred is div.inputs[0] else "x - mean is computed twice"


def gelu(erf) -> str | None:
    div = made_by(erf.inputs[0], "Div")
    if div is None or not near(scalar(div.inputs[1]), 2**0.5):
        return "Erf does not read x / sqrt 2"
    if not users(div.outputs[0], "Erf") or not users(erf.outputs[0], "Add"):
        return "Div or Erf has other readers"
    add = erf.outputs[0].consumers()[0]
    if not near(scalar(add.inputs[1]), 1.0) or not users(add.outputs[0], "Mul"):
        return "Erf is not followed by Add(1) and one Mul"
    return None


def graph_facts(path) -> dict:
    """Sizes of the encoder, and for every fusion its sites in the graph: why each fails, or None."""
    from onnx_ir.passes import common

    if not Path(path).is_file():
        raise cli.UserError(f"{path}: no such file")
    model = encoder.load(path)
    common.ShapeInferencePass()(model)
    try:
        enc = encoder.read(model.graph)
    except Miss as e:
        raise cli.UserError(f"{path}: {e}") from None
    index = encoder.Index(model.graph)
    layer = enc.layers[0]
    batch, length = (d if isinstance(d, int) else None for d in enc.mask_input.shape)
    return {
        "batch": batch,
        "length": length,
        "heads": layer.heads,
        "head_dim": layer.query.weight.shape[1] // layer.heads,
        "hidden": layer.query.weight.shape[0],
        "sites": {
            "AttentionScore": [attention_score(n) for n in encoder.softmaxes(model.graph)],
            "AttentionLnQKV": [attention_ln_qkv(x, index) for x in enc.layers],
            "LayerNorm": [layer_norm(n) for n in index.norms.values()],
            "Gelu": [gelu(n) for n in model.graph if n.op_type == "Erf"],
        },
    }


# ---- sizes: guards that depend on batch, length, chip and precision --------------------------------------


def size_guards(fusion: str, f: dict, batch: int, length: int, chip: str, precision: str) -> list:
    """[(does it hold: True, False or None if unknown, what is so if it does not)] of one fusion."""
    heads, dim, hidden, rows = f["heads"], f["head_dim"], f["hidden"], batch * length
    if fusion == "AttentionScore":
        return [
            (chip.startswith("310P"), f"{chip} is no 310P"),
            (precision == "fp16", f"softmax is {precision}, not fp16"),
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
            (precision == "fp16", f"LayerNorm output is {precision}, not fp16"),
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


def seen(path) -> dict:
    """What an .om shows: its chip, batch, lengths, and the fused operators of each graph (one per gear)."""
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
        "batch": dims[0],
        "lengths": [gear[0] for gear in model["gears"] if gear] if model["gears"] else [dims[1]],
        "graphs": [{k: g["ops"].get(k, 0) for k in FUSIONS} for g in graphs],
    }


def fusion_report(onnx_path, chips=("310P3",), batches=None, lengths=None, precision="fp16", om_path=None) -> dict:
    """The prediction for every chip, batch and length, and what `om_path` shows, as plain JSON types.

    {kind: "prediction", sources, graph: {batch, length, heads, head_dim, hidden}, rows: [{chip, batch,
    length, precision, <fusion>: predict's dict}], compiled: seen's dict with the prediction for it, or
    None}. Lengths default to the
    graph's own, or to 64 and 128 where it is free.
    """
    f = graph_facts(onnx_path)
    lengths = lengths or ([f["length"]] if f["length"] else [64, 128])
    rows = [
        {"chip": chip, "batch": batch, "length": length, "precision": precision}
        | {k: predict(f, k, batch, length, chip, precision) for k in FUSIONS}
        for chip in (OLD_NAMES.get(c, c) for c in chips)
        for length in lengths
        for batch in batches or BATCHES
    ]
    graph = {k: v for k, v in f.items() if k != "sites"}
    compiled = seen(om_path) if om_path else None
    if compiled:
        chip = (compiled["soc_version"] or chips[0]).removeprefix("Ascend")
        compiled["predicted"] = [
            {k: predict(f, k, compiled["batch"], length, chip, precision)["fused"] for k in FUSIONS}
            for length in compiled["lengths"]
        ]
    return {"kind": "prediction", "sources": SOURCES, "graph": graph, "rows": rows, "compiled": compiled}


def cell(p: dict) -> str:
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
    if c := report["compiled"]:
        lines += [
            "",
            f"Compiled: {c['file']} for {c['soc_version'] or 'an unnamed chip'}, batch {c['batch']}:",
        ]
        for length, ops, was in zip(c["lengths"], c["graphs"], c["predicted"], strict=False):
            counts = (f"{k} {n} (predicted {was[k]})" for k, n in ops.items())
            lines.append(f"- length {length}: " + ", ".join(counts))
    return "\n".join(lines)


def numbers(text: str) -> list:
    try:
        got = [int(n) for n in text.split(",")]
    except ValueError:
        got = []
    if not got or min(got) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1,4,8")
    return got


def main():
    p = argparse.ArgumentParser(description="Predict CANN's fusions of a BERT graph, and count them in an .om.")
    p.add_argument("onnx", help="the graph that atc gets")
    p.add_argument("--chip", default="310P3", help="one or several, by comma (default 310P3)")
    p.add_argument("--batch", type=numbers, help="batch sizes by comma (default 1,4,8,16,32,64)")
    p.add_argument("--seq", type=numbers, help="lengths by comma (default: the graph's own)")
    p.add_argument("--precision", default="fp16", choices=["fp16", "fp32"])
    p.add_argument("--om", help="a compiled model to count operators in")
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
