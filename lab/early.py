"""Certified engines beside the plain ones they leave early from, in turns on the same sentences.

    python -m lab.early build/minilm_sst2/default/seqreal/bs8/cpu-native-bf16.c0.5/certificate.json ...

    cpu-native-bf16.c0.5   1.31 x (median of 40 pairs, 80 % of them 1.27 to 1.36), 1 of 872 differ, left 0.0 5.5 ... %

A pair is one pass of each over the sentences, the order swapped every time; tokens are made, requests are not timed.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from tools.cpu import engines, plan
from tools.cpu.runner import columns_of, sentences

PAIRS = 40


def passes(engines_, requests):
    """Yield the seconds of one pass of each of two engines, first one first, then the other."""
    for k in range(PAIRS + 2):
        took = [0.0, 0.0]
        for i in (0, 1) if k % 2 else (1, 0):
            start = time.perf_counter()
            for request in requests:
                engines_[i].run(request)
            took[i] = time.perf_counter() - start
        if k > 1:
            yield took


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("certificates", type=Path, nargs="+")
    for path in p.parse_args().certificates:
        two = [engines.load(path.with_name("model.native")), engines.load(path)]
        folders = ",".join(str(path.parents[2] / "input" / t.name) for t in two[0].inputs)
        columns = sentences(columns_of(folders, len(two[0].inputs)), two[0].inputs)
        rows = plan.fixed(two[0], columns, 8)
        requests = [plan.feeds(columns, r) for r in rows]
        plain, early = (np.concatenate([e.run(r)[0] for r in requests]).argmax(1) for e in two)
        left = " ".join(f"{100 * n / len(plain):.1f}" for n in two[1].left)
        ratios = [slow / quick for slow, quick in passes(two, requests)]
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        spread = f"{middle:.2f} x (median of {PAIRS} pairs, 80 % of them {low:.2f} to {high:.2f})"
        differ = f"{(plain != early).sum()} of {len(plain)} differ"
        print(f"{path.parent.name:28} {spread}, {differ}, left {left} %", flush=True)


if __name__ == "__main__":
    main()
