"""Certified engines beside the plain ones they leave early from, in turns on the same sentences.

    python -m lab.early build/minilm_sst2/default/seqreal/bs8/cpu-native-bf16.c0.5/certificate.json \\
        --text_file build/data/dev.tsv --tokenizer_path build/minilm_sst2/default/checkpoint --save_path results/certify.csv

    minilm_sst2 default,0.5,bf16,9517,88.8,3 of 872,1.57 x,1.50 x (1.48 to 1.53),1.46 x (1.42 to 1.46),AMD EPYC ...

A pair is one pass of each over all sentences, the order swapped every time: of the engine alone, and from texts to answers.
A factor is the median of PAIRS pairs, with the middle 80 % of them. Operations are the products with weights, each text
counted alike; the last layer has those of all tokens' keys and values only, since [CLS] alone is wanted there. Adds a row a certificate to the file, in place of the older one of the same names.
"""

import csv
import datetime
import functools
import json
import time
from pathlib import Path

import numpy as np

from tools.cpu import plan
from tools.make import cli, cpu
from tools.scale.scorer import Scorer
from tools.source import data

PAIRS, WARM = 12, 2
COLUMNS = ("model", "CERTIFY", "precision", "texts to fit and certify", "left early, %", "another class",
           "fewer operations", "engine alone", "texts to answers", "cpu", "date")  # fmt: skip
NAMES = 3  # of them, what a row is found by


def compared(plain, early) -> str:
    """How much quicker early() is than plain(), in words."""
    ratios = []
    for k in range(PAIRS + WARM):
        took = {}
        for call in (plain, early) if k % 2 else (early, plain):
            start = time.perf_counter()
            call()
            took[call] = time.perf_counter() - start
        ratios.append(took[plain] / took[early])
    low, middle, high = np.quantile(ratios[WARM:], (0.1, 0.5, 0.9))
    return f"{middle:.2f} x ({low:.2f} to {high:.2f})"


def operations(arch: dict, left) -> float:
    """How many times fewer products an early engine computes, of how many texts left after each layer."""
    h, inner, layers = arch["hidden"], arch["inter"], arch["layers"]
    whole, last = 4 * h * h + 2 * h * inner, 2 * h * h
    cost = np.minimum(np.arange(1, layers + 1), layers - 1) * whole + (np.arange(1, layers + 1) == layers) * last
    return cost[-1] * sum(left) / (cost @ left)


def row(path: Path, texts: list[str], tokenizer: str) -> list:
    """A certificate's line of the table."""
    plain, early = (Scorer(model=m, tokenizer=tokenizer) for m in (path.with_name("model.native"), path))
    columns = next(plain.tokenised(texts, set()))
    requests = [plan.feeds_of(columns, rows) for rows in plan.fixed(plain.engine, columns, 8)]
    classes = [np.concatenate([s.engine.run(r)[0] for r in requests]).argmax(1) for s in (plain, early)]
    left, arch = early.engine.left.copy(), early.engine.model.arch
    speed = [compared(*(functools.partial(plan.run_requests, s.engine, requests) for s in (plain, early)))]
    speed += [compared(*(functools.partial(s.texts, texts) for s in (plain, early)))]
    said, (_, model, weights, *_, label, _) = json.loads(path.read_bytes()), path.parts
    names = [f"{model} {weights}", f"{100 * said['eps']:g}", label.split("-", 2)[2].split(".")[0]]
    gone, other = 100 - 100 * left[-1] / len(texts), (classes[0] != classes[1]).sum()
    counts = [said["fitted"] + said["calibrated"], f"{gone:.1f}", f"{other} of {len(texts)}"]
    speeds = [f"{operations(arch, left):.2f} x", *speed, cpu.machine()["cpu"], datetime.date.today()]
    return [*names, *counts, *speeds]


def main():
    p = cli.parser(__doc__)
    p.add_argument("certificates", type=Path, nargs="+")
    p.add_argument("--text_file", required=True)
    p.add_argument("--tokenizer_path", required=True)
    p.add_argument("--save_path", type=Path, default=Path("results/certify.csv"), help="(%(default)s)")
    args = p.parse_args()
    older = list(csv.reader(args.save_path.open(encoding="utf-8")))[1:] if args.save_path.is_file() else []
    kept = {tuple(line[:NAMES]): line for line in older}
    for path in args.certificates:
        line = [str(cell) for cell in row(path, data.read_texts(args.text_file), args.tokenizer_path)]
        kept[tuple(line[:NAMES])] = line
        print(*line, sep=",", flush=True)
    with cli.whole_file(args.save_path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows([COLUMNS, *kept.values()])


if __name__ == "__main__":
    cli.run(main)
