"""Let engine and yardstick take turns of tens of milliseconds, so that whatever slows the machine slows both.

    turns = yardstick.Turns("build/lib/peak.so", "bf16", threads=2)
    outputs, seconds = turns.time(8, lambda: engine.run(feeds))  # a request of 8 samples; other turns may follow
    turns.close()
    turns.pairs                      # a list of [samples, seconds, processor seconds, the yardstick's three]

The yardstick is multiply-adds in registers on every core (tools/cpu/native/peak.c), in the unit of the engine's
precision if this CPU has it, else in AVX-512 or AVX2, else in whatever it has. Its work is counted in operations, two for
each multiply-add. Processor seconds leave out the time that the host or another process took away.

On a busy machine a request of several threads uses processor time up while some of them wait for one that has none: by
a fifth with OpenVINO, by a third with onnxruntime. So a third turn is a request of one thread, whose processor seconds
nothing else moves (`single` of `time`); turns.singles is a list of [samples, processor seconds, operations and
processor seconds of the yardstick just before]. tools/results/figures.py makes figures of both lists.
"""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.make import cpu

KINDS = ("memory", "fp32", "bf16", "int8", "bf16_l2", "int8_l2", "any")  # as in peak.c
SLICE = 0.04  # seconds of a turn


def clocks() -> tuple[float, float]:
    """Seconds on the clock, and processor seconds of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def elapsed(before: tuple[float, float]) -> list[float]:
    """Seconds and processor seconds since clocks() gave `before`."""
    return [now - then for now, then in zip(clocks(), before, strict=True)]


def load_work(library):
    """work(kind, seconds) of peak.so: the operations (or bytes), seconds and processor seconds of one thread."""
    function = ctypes.CDLL(str(Path(library).absolute())).work

    def work(kind: str, seconds: float) -> list[float]:
        done = (ctypes.c_double * 3)()
        function(KINDS.index(kind), ctypes.c_double(seconds), done)
        return list(done)

    return work


class Turns:
    """Times requests of an engine, and lets the yardstick work in between. Without a library it only times."""

    def __init__(self, library: Path | None = None, precision: str = "fp32", threads: int = 1):
        self.pairs, self.singles, self.kind, self.threads = [], [], None, threads
        self.turn, self.spent = [0, 0.0, 0.0], 0.0  # the engine's turn so far; its seconds beyond those of one thread
        self.energy: list = []  # [joules before, joules after] of each turn of the engine, as cpu.joules has them
        if library is None:
            return
        self.work, self.pool = load_work(library), ThreadPoolExecutor(threads)
        kinds = (precision.removesuffix("-bf16"), "fp32", "any")
        self.kind = next(kind for kind in kinds if kind in KINDS and self.run_yardstick(kind, 0.001)[0])
        self.run_yardstick(self.kind)  # starts the threads

    def run_yardstick(self, kind: str, seconds: float = SLICE) -> list[float]:
        """Operations, seconds and processor seconds of one turn of the yardstick on all threads."""
        start = time.perf_counter()
        each = list(self.pool.map(self.work, [kind] * self.threads, [seconds] * self.threads))
        return [sum(e[0] for e in each), time.perf_counter() - start, sum(e[2] for e in each)]

    def time(self, samples: int, call, single=None):
        """The result of call(), a turn of the engine or part of one, and its seconds. After SLICE the others have their turns.

        single() runs the same request in one thread; such requests get no more time than the engine has had.
        """
        if self.kind and not self.turn[0]:
            self.energy.append([cpu.joules(), None])
        before = clocks()
        result = call()
        took = elapsed(before)
        self.turn = [a + b for a, b in zip(self.turn, [samples, *took], strict=True)]
        self.spent += took[0]
        if self.turn[1] >= SLICE:
            self.close()
            if single and self.kind and self.spent >= 0:
                before = clocks()
                single()
                seconds, processor = elapsed(before)
                self.singles.append([samples, processor, *self.pairs[-1][3::2]])
                self.spent -= seconds
        return result, took[0]

    def joules(self) -> float | None:
        """What the CPU's packages used in the turns of the engine; None without a counter, or if one wrapped around."""
        counted = all(isinstance(v, float) for turn in self.energy for v in turn)
        used = [after - before for before, after in self.energy] if counted else []
        return sum(used) if used and min(used) >= 0 else None

    def close(self) -> None:
        """End the engine's turn, if it has had one, with a turn of the yardstick."""
        if self.kind and self.turn[0]:
            self.energy[-1][1] = cpu.joules()
            self.pairs.append([*self.turn, *self.run_yardstick(self.kind)])
        self.turn = [0, 0.0, 0.0]
