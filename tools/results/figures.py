"""Figures of the turns that an engine and the yardstick took, each with its interval, and how figures are written.

    figures.from_turns(pairs, singles, threads=2)

    {"per_core_second": {"value": 141.2, "low": 139.9, "high": 142.1}, "per_tera": {...}, "per_tera_quiet": {...}}

`pairs` are lists of [samples, seconds, processor seconds, operations of the yardstick, its seconds, its processor
seconds], `singles` of [samples, processor seconds, operations and processor seconds of the yardstick], of requests of
one thread (tools/cpu/yardstick.py). per_core_second: samples in a second of processor time. per_tera: samples while the
yardstick would do 10^12 operations in the same time. Both are of the singles, or of the pairs where there are none, and
move by 1 to 4 % in an hour (results/repeat.md). per_tera_quiet: by the clock, over the pairs in which the yardstick had
QUIET of all processors before and after; it moves by up to 21 %, so `at_work` shows separately how long the engine slept.

Interval: 95 %, bootstrap over the turns (scipy.stats.bootstrap, percentiles). It is that of one run: most figures of another
hour lie outside it (results/verify.md), so that no table prints it, and each figure has three digits.
"""

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
    how = {"paired": True, "n_resamples": 999, "method": "percentile", "random_state": np.random.default_rng(0)}
    interval = stats.bootstrap((top, bottom), total, **how).confidence_interval
    values = (total(top, bottom, 0), *interval)
    return {name: float(f"{v:.5g}") for name, v in zip(("value", "low", "high"), values, strict=True)}


def turn_columns(pairs: list, threads: int) -> tuple:
    """The columns of float [n][6] pairs, float64 [6, n], and which pairs were quiet, bool [n]."""
    import numpy as np

    values = np.array(pairs, float).reshape(-1, 6).T
    share = values[5] / values[4] / threads
    return values, (share >= QUIET) & (np.roll(share, 1) >= QUIET)


def from_turns(pairs: list, singles: list, threads: int, per_row: float = 1.0) -> dict:
    """The figures of float [n][6] pairs and [m][4] singles; per_row: sentences in a sample. See above."""
    import numpy as np

    (samples, wall, core, work, yard_wall, yard_core), quiet = turn_columns(pairs, threads)
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
    (_, wall, core, *_), quiet = turn_columns(pairs, threads)
    return ratio(core[quiet], wall[quiet] * threads)


def three_digits(value: float) -> float:
    """A speed as far as another hour confirms it: three digits."""
    return float(f"{value:.3g}")


def in_digits(value: float) -> str:
    """`245`, `3050`, `0.0123` of a speed."""
    return f"{three_digits(value):.10g}"


def interval(figure: dict) -> str:
    """`125 (124 to 126)` of a figure with its interval, which is that of one run."""
    return "{} ({} to {})".format(*(in_digits(figure[key]) for key in ("value", "low", "high")))
