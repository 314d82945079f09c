"""Figures of the turns that an engine and the yardstick took, each with its interval, and how figures are written.

    figures.of(pairs, singles, threads=2)

    {"per_core_second": {"value": 141.2, "low": 139.9, "high": 142.1}, "per_tera": {...}, "per_tera_quiet": {...}}

`pairs` are lists of [samples, seconds, processor seconds, operations of the yardstick, its seconds, its processor
seconds], `singles` of [samples, processor seconds, operations and processor seconds of the yardstick], of requests of
one thread (tools/cpu/yardstick.py). per_core_second: samples in a second of processor time. per_tera: samples while the
yardstick would do 10^12 operations in the same processor time; it can be set beside another CPU's. Both are of the
singles, or of the pairs where there are none. per_tera_quiet: the same by the clock, over the pairs in which the
yardstick had at least QUIET of all processors before and after; None where there are fewer than LEAST. Time that the
host or another process took away is in none of them; time that the engine slept, or left a processor idle, is in the
last one alone. `at_work` shows that time apart from all else: the share of the processors that the engine kept at work,
in the same turns.

Why these: `make repeat` timed six cells of minilm_sst2 at batch 8 (onnxruntime fp32; OpenVINO bf16 and int8; the native
engine in bf16, int8 and fp32) 22 times in an hour, on two cores of an AMD EPYC: by turns alone, and beside two busy
processes of its own. Standard deviation in percent of the mean, smallest and largest of the cells (results/repeat.md):

                                                 the 11 alone    the 11 beside   all 22
    samples/s                                    2.2 to 5.8      2.1 to 6.1      35 to 59
    samples per core-second, all threads         2.0 to 6.0      1.7 to 4.3      2.0 to 21
    per operation of the yardstick, all threads  1.3 to 5.0      1.0 to 4.5      1.2 to 21
    samples per core-second, one thread          1.9 to 3.3      1.8 to 4.2      2.1 to 4.1
    per operation of the yardstick, one thread   1.1 to 2.5      0.9 to 3.8      1.1 to 3.4

The last one is what records are held to. Beside the load it was 1 to 2 % lower than alone (native), or 3 to 5 %
(onnxruntime, OpenVINO): whoever runs between two turns takes the caches. Beside heavier work of others as well (load
average 2 to 7) another hour had 3.5 to 5.8 % in place of its 1.1 to 3.4. By the clock, two threads of OpenVINO were in
four cells of another hour 10 to 24 % slower than before, and 4 to 8 % an hour later, though both processors were theirs
(at_work x 0.99 to 1.00) and one thread was slower by at most 5: threads share more of the host than its processors. So
per_tera_quiet is shown, and judged only where at_work moved with it.

Interval: 95 %, bootstrap over the turns (scipy.stats.bootstrap, percentiles; Efron 1979).
"""

import math

QUIET = 0.95
LEAST = 10  # turns that a figure may rest on
REQUESTS = 100  # requests that percentiles of the latency may rest on
NAMES = {"per_core_second": "samples per core-second", "per_tera": "samples per 10^12 operations of the peak"}


def ratio(top, bottom) -> dict | None:
    """sum(top) / sum(bottom) of pairs with its interval; top and bottom float64 [n]. None for fewer than LEAST."""
    import numpy as np
    from scipy import stats

    if len(top) < LEAST:
        return None
    total = lambda a, b, axis: a.sum(axis) / b.sum(axis)
    found = stats.bootstrap(
        (top, bottom), total, paired=True, n_resamples=999, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    return {
        name: float(f"{v:.5g}")
        for name, v in zip(("value", "low", "high"), (total(top, bottom, 0), *found), strict=True)
    }


def columns(pairs: list, threads: int) -> tuple:
    """The columns of float [n][6] pairs, float64 [6, n], and which pairs were quiet, bool [n]."""
    import numpy as np

    found = np.array(pairs, float).reshape(-1, 6).T
    had = found[5] / found[4] / threads
    return found, (had >= QUIET) & (np.roll(had, 1) >= QUIET)


def of(pairs: list, singles: list, threads: int, per_row: float = 1.0) -> dict:
    """The figures of float [n][6] pairs and [m][4] singles; per_row: sentences in a sample. See above."""
    import numpy as np

    (samples, wall, core, work, yard_wall, yard_core), quiet = columns(pairs, threads)
    by_clock = ratio((samples * per_row)[quiet], (wall * work / yard_wall / 1e12)[quiet])
    if singles:
        samples, core, work, yard_core = np.array(singles, float).T
    return {
        "per_core_second": ratio(samples * per_row, core),
        "per_tera": ratio(samples * per_row, core * work / yard_core / 1e12),
        "per_tera_quiet": by_clock,
    }


def at_work(pairs: list, threads: int) -> dict | None:
    """The share of the processors that the engine kept at work, over the quiet ones of float [n][6] pairs; see above."""
    (_, wall, core, *_), quiet = columns(pairs, threads)
    return ratio(core[quiet], wall[quiet] * threads)


def half(figure: dict) -> float:
    """Half the width of a figure's interval."""
    return (figure["high"] - figure["low"]) / 2


def decimals(error: float) -> int:
    """Decimals that an error allows: one digit of it, two where the first is 1."""
    if not 0 < error < math.inf:
        return 2
    first = math.floor(math.log10(error))
    return -first + (error / 10**first < 2)


def rounded(value: float, error: float) -> tuple[float, float]:
    """A value and its error, as far as the error allows."""
    places = decimals(error)
    return round(value, places), round(error, places)


def written(value: float, error: float) -> str:
    """`245 ± 6`."""
    places = max(decimals(error), 0)
    return " ± ".join(f"{v:.{places}f}" for v in rounded(value, error))
