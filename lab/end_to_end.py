"""From a file of texts to Parquet of answers: make score's script beside what one would use instead, in turns.

    make score INPUT=build/data/dev.tsv PRECISION=fp32           (compiles; likewise bf16 and int8, where this CPU has the units)
    PYTHONPATH=. .venv/bin/python -m lab.end_to_end --checkpoint build/minilm_sst2/default/checkpoint --text reviews.tsv \\
        --onnx build/minilm_sst2/default/model.onnx --ours build/minilm_sst2/default/seqreal/bs8/cpu-native-fp32/model.native

    | | sentences/s | CPU ms a sentence | peak MB | other classes |
    | make score, model.native of cpu-native-fp32 | ... |

--text is a TSV of real sentences (a column `sentence`), 100,000 or more, so that loading counts for little. Each takes its turn
--rounds times in a process of its own with all processors, from reading the file to Parquet written; the median counts. CPU
time is that of the process and its children. A peer that is not installed has its reason in place of figures.
No figure of it is kept: none was taken on a machine that was idle.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tools.make import cli

BATCH = 32


def pipeline(args, model):
    """https://huggingface.co/docs/transformers/pipeline_tutorial#batch-inference: a generator of texts, in batches."""
    import pandas as pd
    import transformers

    texts = pd.read_csv(args.text, sep="\t", quoting=3)["sentence"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.checkpoint)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    pd.DataFrame(list(classify(iter(texts), batch_size=BATCH, truncation=True))).to_parquet(args.out)


def transformers_pipeline(args):
    import transformers

    pipeline(args, transformers.AutoModelForSequenceClassification.from_pretrained(args.checkpoint))


def optimum_onnxruntime(args):
    """https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/models"""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    pipeline(args, ORTModelForSequenceClassification.from_pretrained(args.checkpoint, export=True))


def sentence_transformers(args):
    """https://sbert.net/docs/cross_encoder/usage/usage.html: texts sorted by length, in batches."""
    import pandas as pd
    from sentence_transformers import CrossEncoder

    texts = pd.read_csv(args.text, sep="\t", quoting=3)["sentence"]
    found = CrossEncoder(args.checkpoint).predict(list(texts), batch_size=BATCH, apply_softmax=True)
    pd.DataFrame({"label": found.argmax(1), "score": found.max(1)}).to_parquet(args.out)


def openvino(args):
    """https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html"""
    import openvino as ov
    import pandas as pd
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.checkpoint)
    texts = list(pd.read_csv(args.text, sep="\t", quoting=3)["sentence"])
    queue = ov.AsyncInferQueue(ov.Core().compile_model(args.onnx, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"}))
    labels = [0] * len(texts)

    def done(request, rows):
        for row, label in zip(rows, request.get_output_tensor(0).data.argmax(1), strict=True):
            labels[row] = int(label)

    queue.set_callback(done)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    names = [i.any_name for i in ov.Core().read_model(args.onnx).inputs]
    for at in range(0, len(order), BATCH):
        rows = order[at : at + BATCH]
        fed = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="np")
        queue.start_async({name: fed[name] for name in names}, rows)
    queue.wait_all()
    pd.DataFrame({"label": labels}).to_parquet(args.out)


PEERS = {
    "transformers pipeline": transformers_pipeline,
    "optimum onnxruntime pipeline": optimum_onnxruntime,
    "sentence-transformers": sentence_transformers,
    "OpenVINO": openvino,
}


def classes(path: str) -> list[int]:
    """The class of each row of what was written, whatever a peer calls it."""
    import pandas as pd

    found = pd.read_parquet(path)
    said = found["prediction"] if "prediction" in found else found["label"]
    names = {"negative": 0, "positive": 1, "LABEL_0": 0, "LABEL_1": 1}
    return [names.get(c, c) for c in said]


def turn(command: list[str], out: str) -> dict:
    """One run: {seconds, cpu (seconds), peak (MB)}, or {missing: the reason}."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
    if status or not Path(out).exists():
        return {"missing": (said.strip().splitlines() or ["it ended without a word"])[-1][:100]}
    return {"seconds": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}


def commands(args, out: str) -> dict[str, list[str]]:
    """{what it is called: its command, which writes `out`}."""
    ours = {
        f"make score, {Path(model).parent.name}": [
            sys.executable, "-m", "tools.scale.score", "--model", model, "--tokenizer_path", args.checkpoint,
            "--input", args.text, "--columns", "sentence", "--save_path", out,
        ]
        for model in args.ours
    }  # fmt: skip
    words = [sys.executable, "-m", "lab.end_to_end", "--checkpoint", args.checkpoint, "--text", args.text]
    return ours | {name: [*words, "--onnx", args.onnx, "--one", name, "--out", out] for name in PEERS}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", required=True, help="folder")
    p.add_argument("--text", required=True, help="a TSV with a column `sentence`")
    p.add_argument("--onnx", required=True, help="the export, for OpenVINO")
    p.add_argument("--ours", nargs="*", default=[], help="models compiled with SEQ=real")
    p.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    p.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    p.add_argument("--out", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        try:
            return PEERS[args.one](args)
        except ImportError as e:
            raise cli.UserError(f"{args.one}: not installed ({e.name})") from None
    runs, found = {}, {}
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as box:
            for name, command in commands(args, f"{box}/{number}.parquet").items():
                for left in Path(box).iterdir():
                    left.unlink()
                runs.setdefault(name, []).append(turn(command, f"{box}/{number}.parquet"))
                if "missing" not in runs[name][-1]:
                    found[name] = classes(f"{box}/{number}.parquet")
    print("| | sentences/s | CPU ms a sentence | peak MB | other classes |\n| :-- | --: | --: | --: | --: |")
    first = next(iter(found.values()), [])
    for name, all_runs in runs.items():
        if missing := [run["missing"] for run in all_runs if "missing" in run]:
            print(f"| {name} | - | - | - | {missing[0]} |")
            continue
        middle = {key: median(run[key] for run in all_runs) for key in all_runs[0]}
        other = sum(a != b for a, b in zip(first, found[name], strict=True))
        print(
            f"| {name} | {len(first) / middle['seconds']:.0f} | {1000 * middle['cpu'] / len(first):.3f} | {middle['peak']:.0f} | {other} |"
        )
    return print(json.dumps(runs), file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
