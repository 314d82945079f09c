"""Certified engines beside the plain ones they leave early from, in turns on the same sentences.

    python -m lab.early build/minilm_sst2/default/seqreal/bs8/cpu-native-bf16.c0.5/certificate.json \\
        --text_file build/data/dev.tsv --tokenizer_path build/minilm_sst2/default/checkpoint

    cpu-native-bf16.c0.5: 2 of 872 differ; left 17.8 12.4 26.3 21.3 9.9 12.4 %
        engine   1.62 x (12 pairs, 80 % of them 1.58 to 1.66)
        texts    1.55 x (12 pairs, 80 % of them 1.50 to 1.60)

A pair is one pass of each over all sentences, the order swapped every time: of the engine alone, and from texts to answers.
"""

import argparse
import functools
import time
from pathlib import Path

import numpy as np

from tools.cpu import plan
from tools.scale.scorer import Scorer
from tools.source import data

PAIRS, WARM = 12, 2


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
    return f"{middle:.2f} x ({PAIRS} pairs, 80 % of them {low:.2f} to {high:.2f})"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("certificates", type=Path, nargs="+")
    p.add_argument("--text_file", required=True)
    p.add_argument("--tokenizer_path", required=True)
    args = p.parse_args()
    texts = data.read_texts(args.text_file)
    for path in args.certificates:
        plain, early = (Scorer(model=m, tokenizer=args.tokenizer_path) for m in (path.with_name("model.native"), path))
        columns = next(plain.tokenised(texts, {"cut": 0}))
        requests = [plan.feeds(columns, rows) for rows in plan.fixed(plain.engine, columns, 8)]
        classes = [np.concatenate([s.engine.run(r)[0] for r in requests]).argmax(1) for s in (plain, early)]
        left = " ".join(f"{100 * n / len(texts):.1f}" for n in early.engine.left)
        print(f"{path.parent.name}: {(classes[0] != classes[1]).sum()} of {len(texts)} differ; left {left} %")
        whole = [functools.partial(s.texts, texts) for s in (plain, early)]
        calls = [functools.partial(plan.run, s.engine, requests) for s in (plain, early)]
        print(f"    engine   {compared(*calls)}\n    texts    {compared(*whole)}", flush=True)


if __name__ == "__main__":
    main()
