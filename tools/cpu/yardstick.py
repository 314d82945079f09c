"""Engine and yardstick in turns of tens of milliseconds, so that what slows the machine down slows both.

    turns = yardstick.Turns("build/lib/peak.so", "bf16", threads=2)
    outputs, seconds = turns.time(8, lambda: engine.run(feeds))  # a request of 8 samples; the yardstick's turn may follow
    turns.close()
    turns.pairs                                 # a list of [samples, seconds, processor seconds, the yardstick's three]

The yardstick is a fixed piece of work: multiply-adds in registers on every core (tools/cpu/native/peak.c), in the unit
of the engine's precision where this CPU has it, else in AVX-512, else in whatever it has. Its amount is in operations,
a multiply-add being two. Processor seconds are of getrusage's kind: time that the host or another process took away
is in the seconds on the clock, and not in these. tools/results/figures.py makes figures of the pairs.
"""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KINDS = ("memory", "fp32", "bf16", "int8", "bf16_l2", "int8_l2", "any")  # as in peak.c
SLICE = 0.04  # seconds of a turn


def precise() -> tuple[float, float]:
    """Seconds on the clock, and processor seconds of this process with all its threads."""
    return time.perf_counter(), time.process_time()


class Turns:
    """Times requests of an engine, and lets the yardstick work in between. Without a library it only times."""

    def __init__(self, library: Path | None = None, precision: str = "fp32", threads: int = 1):
        self.pairs, self.open, self.kind, self.threads = [], [0, 0.0, 0.0], None, threads
        if library is None:
            return
        self.work = ctypes.CDLL(str(Path(library).absolute())).work
        self.work.restype, self.work.argtypes = None, [ctypes.c_int, ctypes.c_double, ctypes.c_void_p]
        self.pool = ThreadPoolExecutor(threads)
        self.kind = next(kind for kind in (precision, "fp32", "any") if kind in KINDS and self.once(kind, 0.001)[0])
        self.once(self.kind, SLICE)  # starts the threads

    def once(self, kind: str, seconds: float) -> list[float]:
        """Operations, seconds and processor seconds of one turn of the yardstick on all threads."""

        def one(_):
            done = (ctypes.c_double * 3)()
            self.work(KINDS.index(kind), seconds, done)
            return list(done)

        start = time.perf_counter()
        each = list(self.pool.map(one, range(self.threads)))
        return [sum(e[0] for e in each), time.perf_counter() - start, sum(e[2] for e in each)]

    def time(self, samples: int, call):
        """call() as a turn of the engine, or part of one: its result, and its seconds. The yardstick works after SLICE."""
        before = precise()
        result = call()
        took = [now - then for now, then in zip(precise(), before, strict=True)]
        self.open = [a + b for a, b in zip(self.open, [samples, *took], strict=True)]
        if self.open[1] >= SLICE:
            self.close()
        return result, took[0]

    def close(self) -> None:
        """End the engine's turn, if it has had one: the yardstick's follows."""
        if self.kind and self.open[0]:
            self.pairs.append([*self.open, *self.once(self.kind, SLICE)])
        self.open = [0, 0.0, 0.0]
