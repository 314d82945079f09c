"""Cut sentences of different lengths into requests, by what requests cost on the engine at hand.

    engine, requests = plan.fastest(engines.load("model.onnx"), "model.onnx", columns, batch=8)
    outputs, times, seconds = plan.run_requests(engine, [plan.feeds_of(columns, rows) for rows in requests])

`columns` holds, for each model input, n int64 rows, each as long as its sentence. Sentences stand longest first, so
that neighbours need little padding; a request holds at most `batch` of them and is as wide as its first. There are two
plans: `fixed` cuts after every `batch` sentences, so its results repeat byte for byte; `fastest` takes the number of
parallel streams that runs some of those requests quickest, and makes the cuts that cost least with it.
An engine that never computes padding (engines.Native) needs neither: it gets CHUNK sentences at a time.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tools.base import input_files
from tools.cpu import engines
from tools.make import cpu

CHUNK = 1024  # sentences of a request where padding costs nothing
REPEATS = 3
SAMPLE = 8  # requests by which the number of streams is chosen


def longest_first(columns) -> np.ndarray:
    """Row numbers, int64 [n], by falling length; rows of the same length in their order."""
    return np.argsort([-len(row) for row in columns[0]], kind="stable")


def feeds_of(columns, rows) -> list[np.ndarray]:
    """One request: int64 [len(rows), longest of them] for each model input, with padding after each sentence's end.

    A model with a single input has no mask: it recognises padding by its token id.
    """
    width = max(len(columns[0][i]) for i in rows)
    fill = input_files.PADDING if len(columns) == 1 else 0
    request = [np.full((len(rows), width), fill, np.int64) for _ in columns]
    for array, column in zip(request, columns, strict=True):
        for line, i in zip(array, rows, strict=True):
            line[: len(column[i])] = column[i]
    return request


def run_requests(engine, requests, done=lambda rows: None) -> tuple[list, list[float], float]:
    """(outputs, milliseconds of each request, seconds in all) of requests, run engine.streams at a time. After each request
    done(rows) is called."""

    def once(request):
        start = time.perf_counter()
        outputs = engine.run(request)
        milliseconds = (time.perf_counter() - start) * 1e3
        done(len(request[0]))
        return outputs, milliseconds

    start = time.perf_counter()
    if engine.streams == 1:
        results = [once(r) for r in requests]
    else:
        with ThreadPoolExecutor(engine.streams) as pool:
            results = list(pool.map(once, requests))
    seconds = time.perf_counter() - start
    return [outputs for outputs, _ in results], [ms for _, ms in results], seconds


def fixed(engine, columns, batch: int) -> list[np.ndarray]:
    """The rows of each request, cut after every `batch` sentences: they depend on the sentences alone."""
    order = longest_first(columns)
    size = CHUNK if engine.ragged else batch
    return [order[i : i + size] for i in range(0, len(order), size)]


def fit_cost(engine, columns, batch: int):
    """cost(rows, width) in seconds, fitted to requests of this engine with all its streams busy.

    It is c0 + c1 rows width + c2 rows width^2, no coefficient below 0, by least squares of the relative error over long,
    middling and short sentences, one, half a batch and a whole batch at a time.
    """
    from scipy.optimize import nnls

    order = longest_first(columns)
    size = min(batch, len(order))
    shapes, times = [], []
    for start in sorted({0, (len(order) - size) // 2, len(order) - size}):
        for count in sorted({1, max(1, size // 2), size}):
            request = feeds_of(columns, order[start : start + count])
            seconds = [run_requests(engine, [request] * engine.streams)[2] for _ in range(1 + REPEATS)]
            shapes.append(request[0].shape)
            times.append(np.median(seconds[1:]) / engine.streams)
    terms = lambda rows, width: np.stack(np.broadcast_arrays(1.0, rows * width, rows * width**2), -1)
    rows, width = np.array(shapes, float).T
    weights, _ = nnls(terms(rows, width) / np.array(times)[:, None], np.ones(len(times)))
    return lambda rows, width: terms(rows, width) @ weights


def cheapest(lengths, batch: int, cost) -> tuple[list[int], float]:
    """The sizes, at most `batch`, of the requests that cost least for sentences of falling `lengths`; what they cost."""
    lengths = np.asarray(lengths)
    total, size = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, int)
    for end in range(1, len(lengths) + 1):
        sizes = np.arange(min(batch, end), 0, -1)
        sums = total[end - sizes] + cost(sizes, lengths[end - sizes])
        total[end], size[end] = sums.min(), sizes[sums.argmin()]
    cuts, end = [], len(lengths)
    while end:
        cuts.append(int(size[end]))
        end -= cuts[-1]
    return cuts[::-1], float(total[-1])


def is_quicker(other, engine, requests) -> bool:
    """Whether `other` runs the requests in less time than `engine`. They take turns, so that other work slows both."""
    run_requests(other, requests), run_requests(engine, requests)
    ratios = [run_requests(other, requests)[2] / run_requests(engine, requests)[2] for _ in range(REPEATS)]
    return bool(np.median(ratios) < 1)


def fastest(engine, path, columns, batch: int, threads: int = 0):
    """(engine, rows of each request): the number of streams of `engine`'s file, and the cuts, that measure cheapest."""
    even = fixed(engine, columns, batch)
    if engine.ragged:
        return engine, even
    sample = [feeds_of(columns, rows) for rows in even[:: max(1, len(even) // SAMPLE)]]
    while 2 * engine.streams <= (threads or cpu.cores()):
        other = engines.load(path, threads, 2 * engine.streams)
        if not is_quicker(other, engine, sample):
            break
        engine = other
    order = longest_first(columns)
    lengths = [len(columns[0][i]) for i in order]
    sizes, _ = cheapest(lengths, batch, fit_cost(engine, columns, batch))
    return engine, np.split(order, np.cumsum(sizes)[:-1])
