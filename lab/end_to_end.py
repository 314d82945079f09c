"""From a file of texts to Parquet of answers: make score's script beside what one would use instead, in turns.

    python -m lab.end_to_end --help        (make end-to-end ROUNDS=1 compiles, measures and prints the table)

    | | sentences | sentences/s | CPU ms a sentence | peak MB | other classes |
    | make score, cpu-native-fp32 | 100,000 | ... |

The texts are a TSV with a column `sentence`, --text, or else 100,000 real sentences, no two alike: those of the docstrings
of the Python packages at hand, which no lock leaves out. Each takes its turn --rounds times in a process of its own with all
processors, from reading the file to Parquet written; the median counts. CPU time is that of the process and its children;
other classes are those that differ from the first row's. A peer that is not installed has its reason in place of figures.

Those of SLOW get the first --sample sentences alone, which stand in the order of their hashes; their time counts from where
all is loaded, so that their start, which more sentences would share, is not held against them.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from tools.make import cli, cpu, run

BATCH = 32
SENTENCE = re.compile(r"[A-Z][^=<>{}\[\]|\\_*`]{20,400}[.!?]")


def sentences(count: int) -> list[str]:
    """So many sentences of docstrings, in the order of their hashes. UserError where there are fewer."""
    unlike = {}
    for path in sorted(p for key in ("stdlib", "purelib") for p in Path(sysconfig.get_paths()[key]).rglob("*.py")):
        for text in re.findall(r'"""(.*?)"""', path.read_text("utf-8", errors="ignore"), re.S):
            for paragraph in re.split(r"\n\s*\n", text):
                parts = re.split(r"(?<=[.!?]) ", " ".join(paragraph.split()))
                unlike |= dict.fromkeys(s for s in parts if SENTENCE.fullmatch(s) and 4 <= len(s.split()) <= 60)
    if len(unlike) < count:
        raise cli.UserError(f"{len(unlike)} sentences in the docstrings here, not {count}; give --text")
    return sorted(unlike, key=lambda s: hashlib.sha256(s.encode()).digest())[:count]


# ---- The peers: each reads args.text and writes args.out


def read(args) -> list[str]:
    import pandas as pd

    return list(pd.read_csv(args.text, sep="\t", quoting=3, dtype=str, keep_default_na=False)["sentence"])


def begin(args) -> None:
    """Say that all is loaded, and how much processor time that took."""
    Path(f"{args.out}.begun").write_text(json.dumps([time.time(), sum(os.times()[:4])]))


def write(args, **columns) -> None:
    import pandas as pd

    pd.DataFrame(columns).to_parquet(args.out)


def pipeline(args, model):
    """https://huggingface.co/docs/transformers/pipeline_tutorial#batch-inference: a generator of texts, in batches."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.checkpoint)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = read(args)
    begin(args)
    answers = list(classify((text for text in texts), batch_size=BATCH, truncation=True))
    write(args, label=[a["label"] for a in answers], score=[a["score"] for a in answers])


def transformers_pipeline(precision, args):
    import torch
    import transformers

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    pipeline(args, transformers.AutoModelForSequenceClassification.from_pretrained(args.checkpoint, dtype=dtype))


def optimum_onnxruntime(args):
    """https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/models"""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    pipeline(args, ORTModelForSequenceClassification.from_pretrained(args.checkpoint, export=True))


def sentence_transformers(args):
    """https://sbert.net/docs/cross_encoder/usage/usage.html: a list is taken for one pair, so each text is asked alone."""
    from sentence_transformers import CrossEncoder

    encoder, texts = CrossEncoder(args.checkpoint, device="cpu"), read(args)
    begin(args)
    scores = [encoder.predict(text, apply_softmax=True) for text in texts]
    write(args, label=[s.argmax() for s in scores], score=[s.max() for s in scores])


def openvino(precision, args):
    """https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html:
    texts sorted by length, in batches, as many at a time as it likes; int8 is NNCF's, as make compiles it."""
    import openvino as ov
    import transformers

    core, path = ov.Core(), args.onnx
    with tempfile.TemporaryDirectory() as box:
        if precision == "int8":
            subprocess.run(["tar", "-xf", args.int8, "-C", box], check=True)
            path = f"{box}/model.xml"
        model = core.read_model(path)
        kind = {"fp32": {"INFERENCE_PRECISION_HINT": "f32"}, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}, "int8": {}}
        how = {"PERFORMANCE_HINT": "THROUGHPUT", **kind[precision]}
        queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", how))
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.checkpoint)
    texts = read(args)
    labels = [0] * len(texts)

    def done(request, rows):
        for row, label in zip(rows, request.get_output_tensor(0).data.argmax(1), strict=True):
            labels[row] = int(label)

    queue.set_callback(done)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    names = [i.any_name for i in model.inputs]
    for at in range(0, len(order), BATCH):
        rows = order[at : at + BATCH]
        fed = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="np")
        queue.start_async({name: fed[name] for name in names}, rows)
    queue.wait_all()
    write(args, label=labels)


PEERS = {
    "transformers pipeline, fp32": partial(transformers_pipeline, "fp32"),
    "transformers pipeline, bf16": partial(transformers_pipeline, "bf16"),
    "optimum onnxruntime pipeline, fp32": optimum_onnxruntime,
    "sentence-transformers, one by one, fp32": sentence_transformers,
    "OpenVINO, fp32": partial(openvino, "fp32"),
    "OpenVINO, bf16": partial(openvino, "bf16"),
    "OpenVINO, int8": partial(openvino, "int8"),
}
# which the product's environment lacks
APART = ("optimum onnxruntime pipeline, fp32", "sentence-transformers, one by one, fp32")
SLOW = {name for name in PEERS if not name.startswith("OpenVINO")}


# ---- The measurement


def classes(path: str) -> list[int]:
    """The class of each row of what was written, whatever a peer calls it."""
    import pandas as pd

    frame = pd.read_parquet(path)
    column = frame["prediction"] if "prediction" in frame else frame["label"]
    names = {"negative": 0, "positive": 1, "LABEL_0": 0, "LABEL_1": 1}
    return [names.get(c, c) for c in column]


def turn(command: list[str], out: Path) -> dict:
    """One run: {seconds, cpu (seconds), peak (MB)}, the former from where a peer says that it begins, or {missing: the reason}."""
    start, env = time.time(), os.environ | {"HF_HUB_OFFLINE": "1", "CI": "true"}  # nothing is asked or told
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    if status or not out.exists():
        return {"missing": (lines or ["it ended without a word"])[-1][:100]}
    begun = Path(f"{out}.begun")
    start, loading = json.loads(begun.read_text()) if begun.exists() else (start, 0)
    spent = used.ru_utime + used.ru_stime - loading
    return {"seconds": time.time() - start, "cpu": spent, "peak": used.ru_maxrss / 1024}


def commands(args, out: Path) -> dict[str, list]:
    """{what it is called: its command, which writes `out`}."""
    score = [sys.executable, "-m", "tools.scale.score", "--tokenizer_path", args.checkpoint, "--batch_size", BATCH]
    score += ["--input", args.text, "--columns", "sentence", "--save_path", out, "--model"]
    fp32_first = sorted(args.ours, key=lambda model: "fp32" not in model)  # the row that the others are compared with
    ours = {f"make score, {Path(model).parent.name}": [*score, model] for model in fp32_first}
    words = ["-m", "lab.end_to_end", "--checkpoint", args.checkpoint, "--onnx", args.onnx, "--out", out]
    words += ["--int8", args.int8] if args.int8 else []
    python = lambda name: args.bench if name in APART else sys.executable
    text = lambda name: f"{out}.sample.tsv" if name in SLOW else args.text
    return ours | {name: [python(name), *words, "--one", name, "--text", text(name)] for name in PEERS}


def table(runs: dict, answers: dict) -> str:
    """The rows of all that ran, and the reasons of what did not."""
    heads = ("", "sentences", "sentences/s", "CPU ms a sentence", "peak MB", "other classes")
    lines = [f"| {' | '.join(heads)} |", "| :-- | --: | --: | --: | --: | --: |"]
    first = next(iter(answers.values()), [])
    for name, all_of in runs.items():
        if missing := [run["missing"] for run in all_of if "missing" in run]:
            lines.append(f"| {name} | - | - | - | - | {missing[0]} |")
            continue
        middle = {key: median(run[key] for run in all_of) for key in all_of[0]}
        count = len(answers[name])
        other = sum(a != b for a, b in zip(first[:count], answers[name], strict=True))
        speed, spent = count / middle["seconds"], 1000 * middle["cpu"] / count
        lines.append(f"| {name} | {count:,} | {speed:.0f} | {spent:.3f} | {middle['peak']:.0f} | {other} |")
    return "\n".join(lines)


def where() -> str:
    """The machine, the date and the commit of a measurement."""
    machine, today = cpu.machine(), time.strftime("%Y-%m-%d", time.gmtime())
    return f"{machine['cpu']}, {machine['cores']} cores, {today}, at {run.git_state()['commit']}"


def main():
    p = cli.parser(__doc__)
    p.add_argument("--checkpoint", required=True, help="folder")
    p.add_argument("--text", help="a TSV with a column `sentence` (docstrings if not given)")
    p.add_argument("--rows", type=int, default=100_000, help="sentences of docstrings (%(default)s)")
    p.add_argument("--sample", type=int, default=5000, help="sentences of a slow peer (%(default)s)")
    p.add_argument("--onnx", required=True, help="the export, for OpenVINO")
    p.add_argument("--int8", help="OpenVINO's int8 model, .ir")
    p.add_argument("--ours", nargs="*", default=[], help="models compiled with SEQ=real")
    p.add_argument("--bench", default=".venv-bench/bin/python", help="of the peers' environment (%(default)s)")
    p.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    p.add_argument("--save_path", type=Path, help="where the table goes")
    p.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    p.add_argument("--out", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        try:
            return PEERS[args.one](args)
        except ImportError as e:
            raise cli.UserError(f"{args.one}: not installed ({e.name})") from None
    with tempfile.TemporaryDirectory() as box:
        out = Path(box, "answers.parquet")
        if not args.text:
            args.text = f"{box}/sentences.tsv"
            Path(args.text).write_text("\n".join(["sentence", *sentences(args.rows)]) + "\n", "utf-8")
        with Path(args.text).open("rb") as whole:
            Path(f"{out}.sample.tsv").write_bytes(b"".join(itertools.islice(whole, 1 + args.sample)))
        runs, answers = {name: [] for name in commands(args, out)}, {}
        for _ in range(args.rounds):
            for name, command in commands(args, out).items():
                runs[name].append(turn(list(map(str, command)), out))
                print(f"{name}: {json.dumps(runs[name][-1])}", file=sys.stderr, flush=True)
                if "missing" not in runs[name][-1]:
                    answers[name] = classes(out)
                for end in ("", "_manifest.json", ".begun"):
                    Path(f"{out}{end}").unlink(missing_ok=True)
    rows = max(map(len, answers.values()), default=0)
    turns = f"{args.rounds} turn{'s' * (args.rounds > 1)} of each ({where()})"
    sample = f"Where {min(rows, args.sample):,} stand, those are the first ones, and the start is left out. Other classes: unlike the first row's."
    text = f"{rows:,} sentences, a TSV to Parquet, {turns}. {sample}\n\n{table(runs, answers)}"
    if args.save_path:
        cli.write(args.save_path, f"{text}\n")
    return print(text)


if __name__ == "__main__":
    cli.run(main)
