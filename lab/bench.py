"""Ours and the peers on the same sentences in the same run: ratios with spread, accuracy, share of the CPU's limit.

    make bench MODEL=minilm_sst2              # runs, prints the table
    make record MODEL=minilm_sst2             # keeps it in results/bench
    python -m lab.bench show results/bench    # the tables of those that are kept

Every contender (lab/contenders.py) has a process of its own, which is paused while another one works. A round asks
each of them once, in turn; a contender's ratio is taken within a round, to the recipe's way (transformers, fp32, padded).
Padded rows are measured in the recipe's batches, and in batches of --others, beside the recipe's way in the same ones.
One that fails is null with its reason and does not stop the rest.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil

from tools.cpu import yardstick
from tools.make import cli, cpu
from tools.results import peers, store

SECONDS = 1.0  # a contender works at least this long a round
BATCH = 32  # sorted sentences of a request
QUIET = {"HF_HUB_OFFLINE": "1", "CI": "true"}  # nothing is downloaded; OpenVINO and NNCF send no usage statistics
SPARE = 2 << 30  # bytes of memory that stay free
UNITS = {"fp32": "AVX-512 or AVX2", "bf16": "AMX or AVX-512 with bf16", "int8": "AMX or AVX-512 with VNNI"}


# ---- the limit --------------------------------------------------------------------------------------------------


def operations(config: dict, lengths) -> float:
    """Mean operations a sentence of a BERT classifier (a multiply-add is two) for token counts `lengths`.

    Matrix products alone, all layers for all tokens: what the model says, not what an engine may skip.
    """
    h, inter, layers = (config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    one = lambda n: layers * (2 * n * (4 * h * h + 2 * h * inter) + 4 * n * n * h) + 2 * h * h + 4 * h
    return sum(map(one, lengths)) / len(lengths)


def peaks(library: str, threads: int, seconds: float, times: int = 7) -> dict:
    """{kind: median and best over `times` of all threads' operations (memory: bytes) a second, or null and why}.

    seconds: of each of the `times`.
    """
    work, found = yardstick.load_work(library), {}
    for kind in yardstick.KINDS[: yardstick.KINDS.index("any")]:
        with ThreadPoolExecutor(threads) as pool:
            turns = [list(pool.map(work, [kind] * threads, [seconds] * threads)) for _ in range(times)]
        sums = [sum(done / (clock or 1) for done, clock, _ in turn) for turn in turns]
        unit = UNITS.get(kind.removesuffix("_l2"))
        known = {"median": median(sums), "best": max(sums)}
        found[kind] = known if all(sums) else {"median": None, "best": None, "missing": f"this CPU has no {unit}"}
    return found


# ---- the run ----------------------------------------------------------------------------------------------------


class Worker:
    """A contender's process: asked by JSON lines, paused in between. `missing` is why it cannot answer, or None."""

    def __init__(self, name: str, python: str, job: dict, box: Path, need: int):
        self.missing, self.version, self.process = None, None, None
        if not Path(python).is_file():
            self.missing = f"{python} is not installed"
            return
        if (free := psutil.virtual_memory().available) < need:
            self.missing = f"needs about {need / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free"
            return
        box.mkdir()
        self.log = box / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", "lab.contenders", name, json.dumps(job | {"box": str(box)})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True, env=os.environ | QUIET | {"OMP_NUM_THREADS": str(job["threads"])},
            )  # fmt: skip
        first = self.read()
        self.missing, self.version = first.get("missing"), first.get("version")
        if not self.missing:
            self.tell(signal.SIGSTOP)

    def tell(self, number) -> None:
        """To the worker and to whatever its libraries have started."""
        os.killpg(self.process.pid, number)

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return {"missing": f"ended with {self.process.wait()}: {lines[-1][:200] if lines else 'no word'}"}

    def ask(self, **request) -> dict:
        """{labels, seconds, peak_bytes} of some passes, or {missing}."""
        if self.missing:
            return {"missing": self.missing}
        self.tell(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.read()
        if self.process.poll() is None:
            self.tell(signal.SIGSTOP)
        else:
            self.missing = answer["missing"]
        return answer

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.tell(signal.SIGKILL)
            self.process.wait()


def measure(workers: dict, rows: dict, rounds: int, seconds: float = SECONDS) -> tuple[dict, list[float] | None]:
    """{(contender, shape): {labels, rates: sentences/s by round, peak_bytes} or {missing}}, and `stolen` of each round.

    rows: {shape: row numbers}. The first pass of each is not timed: it warms caches and compiles shapes. stolen: the share
    of the processors' time that the host gave to other machines, None where Linux does not say.
    """
    from tqdm import tqdm

    found, clock = {}, []
    turns = [(name, shape) for name in workers for shape in rows]
    with tqdm(total=len(turns) * (rounds + 1), desc="bench", unit="turn", disable=None) as bar:
        for number in range(rounds + 1):
            clock.append(cpu.ticks())
            for name, shape in turns:
                bar.set_postfix_str(f"{name}, {shape}")
                so_far = found.setdefault((name, shape), {"rates": []})
                if "missing" not in so_far:
                    answer = workers[name].ask(shape=shape, rows=rows[shape], seconds=seconds if number else 0)
                    if times := answer.pop("seconds", None):
                        so_far["rates"] += [len(rows[shape]) * len(times) / sum(times)] * bool(number)
                    so_far |= answer
                bar.update()
    clock = [*clock[1:], cpu.ticks()]
    spans = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(clock)]
    return found, [round(stolen / whole, 4) for stolen, whole in spans] if all(whole for _, whole in spans) else None


def ratios(rates: list[float], base: list[float]) -> dict:
    """The ratio to `base` of the same round: median, smallest, largest."""
    each = [a / b for a, b in zip(rates, base, strict=True)]
    return {"ratio": round(median(each), 3), "ratio_low": round(min(each), 3), "ratio_high": round(max(each), 3)}


FIELDS = "samples_per_second rounds ratio ratio_low ratio_high share_of_peak accuracy flips".split()  # noqa: SIM905
EMPTY = dict.fromkeys(FIELDS)


def row(name, shape, found, base, reference, truth, rows, work, peak, seeded) -> dict:
    """One line of the record; what could not be measured is null, `missing` says why."""
    if "missing" in found:
        return EMPTY | {"missing": {"all": found["missing"]}}
    missing, speed = {}, median(found["rates"])
    share = speed * work / peak["median"] if peak["median"] else None
    if share is None:
        missing["share_of_peak"] = peak["missing"]
    given = None
    if base:
        given = ratios(found["rates"], base)
    else:
        missing["ratio"] = "the recipe's way was not measured"
    right = sum(int(a) == truth[i] for a, i in zip(found["labels"], rows, strict=True))
    if seeded or len(rows) < len(truth):
        missing["accuracy"] = "seeded weights" if seeded else f"run on {len(rows)} of {len(truth)} sentences"
    flips = None
    if reference:
        flips = [i for a, i in zip(found["labels"], rows, strict=True) if a != reference[i]]
    else:
        missing["flips"] = "fp32 on all sentences was not measured"
    return EMPTY | {
        "samples_per_second": round(speed, 2),
        "rounds": [round(r, 2) for r in found["rates"]],
        **(given or {}),
        "share_of_peak": None if share is None else round(share, 4),
        "accuracy": None if "accuracy" in missing else round(right / len(rows), 6),
        "flips": flips,
        "peak_bytes": found["peak_bytes"],
        "missing": missing,
    }


def contest(chosen: dict, job: dict, packages: Path, rows: dict, rounds: int, seconds: float, folder: Path):
    """Start the contenders `chosen` and let them take turns: (what `measure` found, `stolen`, {name: version or None}).

    job: what each is given (contenders.Job, without its box); packages: the environment of the peers' packages; rows: as
    in `measure`; folder: where their temporary files go.
    """
    need = SPARE + 4 * Path(job["onnx"]).stat().st_size
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="bench.", dir=folder) as box:
        try:
            for k, (name, c) in enumerate(chosen.items()):
                print(f"prepare {name}", flush=True)
                python = str(packages / "bin" / "python") if c.peers else sys.executable
                workers[name] = Worker(name, python, job, Path(box) / str(k), need)
                if workers[name].missing:
                    print(f"        missing: {workers[name].missing}", flush=True)
            return *measure(workers, rows, rounds, seconds), {name: w.version for name, w in workers.items()}
        finally:
            for worker in workers.values():
                worker.close()


def spread(count: int, samples: int, batch: int) -> list[int]:
    """At most `samples` of `count` row numbers, in whole batches and evenly apart."""
    few = max(min(samples, count) // batch, 1) * batch
    return list(range(count)) if few >= count else [i * count // few for i in range(few)]


def compare(args) -> dict:
    """The record that `run` writes."""
    from lab import contenders
    from tools.make import run
    from tools.source import data

    texts, truth = data.read_tsv(args.text_file)
    lengths = [len(row.ids) for row in contenders.tokenizer_of(args).encode_batch_fast(texts)]
    rows = {"sorted": list(range(len(texts))), "padded": spread(len(texts), args.samples, args.bs)}
    rows |= {f"padded {n}": spread(len(texts), args.samples, n) for n in args.others if n != args.bs}
    config = cli.read_json(args.checkpoint / "config.json")
    work = {shape: operations(config, lengths if shape == "sorted" else [args.seq]) for shape in rows}
    ours = dict(pair.split("=", 1) for pair in args.ours)
    job = {k: str(getattr(args, k)) for k in ("checkpoint", "onnx", "calibration", "text_file")}
    job |= {k: getattr(args, k) for k in ("seq", "bs", "batch", "threads")} | {"names": args.inputs, "ours": ours}
    chosen = {n: c for n, c in contenders.ALL.items() if not args.only or n in args.only}
    limit = functools.partial(peaks, args.peak, args.threads, min(0.3, args.seconds))
    peak = limit()
    folder = args.save_path.absolute().parent
    found, stolen, versions = contest(chosen, job, args.peers, rows, args.rounds, args.seconds, folder)
    # Twice, as a busy moment makes a peak too low, and never too high.
    peak = {k: max(v, peak[k], key=lambda f: f["median"] or 0) for k, v in limit().items()}
    base = lambda shape: found.get((contenders.BASE, "padded" if shape == "sorted" else shape), {}).get("rates")
    reference = found.get((contenders.BASE, "sorted"), {}).get("labels")
    seeded = args.source == "seeded"
    lines = [
        {"name": name, "precision": c.precision, "ours": c.ours, "version": versions[name], "shape": shape,
         "sentences": len(rows[shape]),
         **row(name, shape, found[name, shape], base(shape), reference, truth, rows[shape], work[shape], peak[c.precision], seeded)}
        for name, c in chosen.items() for shape in rows
    ]  # fmt: skip
    given = [args.checkpoint / "MANIFEST", args.onnx, args.text_file, args.calibration, *map(Path, ours.values())]
    return {
        "kind": "bench",
        **{k: getattr(args, k) for k in ("model", "weights", "source", "seq", "bs", "batch", "threads")},
        "timed": "text to label: tokenising, batches, engine, argmax; each contender paused while another works",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(args.started)),
        **run.git_state(),
        "machine": cpu.machine(),
        "tokens": {"mean": round(sum(lengths) / len(lengths), 3), "longest": max(lengths)},
        "operations_per_sentence": {k: round(work[k]) for k in peers.SHAPES},
        "peak_per_second": peak,
        "stolen": stolen,
        "contenders": lines,
        "inputs": {str(p): cli.sha256(p) for p in given if p.is_file()},
        "standin": False,
    }


# ---- shown ------------------------------------------------------------------------------------------------------


def parse():
    p = cli.parser(__doc__)
    sub = p.add_subparsers(dest="command", required=True)
    r = sub.add_parser("run", help="measure")
    r.set_defaults(batch=BATCH)
    for name in ("model", "weights", "source", "peak"):  # a source `seeded` has no accuracy; peak: build/lib/peak.so
        r.add_argument(f"--{name}", required=True)
    for name in ("checkpoint", "onnx", "text_file", "calibration", "save_path"):  # int8 of the peers is calibrated
        r.add_argument(f"--{name}", type=Path, required=True)
    r.add_argument("--inputs", nargs="+", required=True, help="those of the export")
    r.add_argument("--seq_len", dest="seq", type=int, required=True, help="the recipe's length")
    r.add_argument("--batch_size", dest="bs", type=int, required=True, help="the recipe's batch size")
    r.add_argument("--others", type=int, nargs="*", default=[], help="padded: in batches of these sizes too")
    r.add_argument("--samples", type=int, default=256, help="padded: so many of the sentences (%(default)s)")
    r.add_argument("--rounds", type=int, default=3)
    r.add_argument("--seconds", type=float, default=SECONDS, help="a turn takes at least so long (%(default)s)")
    r.add_argument("--threads", type=int, default=cpu.cores())
    r.add_argument("--ours", nargs="*", default=[], metavar="ENGINE-PRECISION=FILE", help="our compiled models")
    r.add_argument("--peers", type=Path, default=Path(".venv-bench"), help="environment of the peers' packages")
    r.add_argument("--only", nargs="*", help="these contenders (all)")
    for name in ("show", "promote"):
        s = sub.add_parser(name)
        s.add_argument("records", type=Path, nargs="*", help="or their folder")
        s.add_argument("--save_path", type=Path, required=name != "show", help="promote: a folder")
    return p.parse_args()


def main():
    args = parse()
    if args.command == "run":
        args.started = time.time()
        cli.write(args.save_path, json.dumps(compare(args), indent=1) + "\n")
        print(f"wrote {args.save_path}")
        return
    records = list(store.load_records(args.records, ("bench",)).values())
    if not records:
        raise cli.UserError("no record of a bench; run make bench and make record")
    if args.command == "promote":
        for r in records:
            print(f"wrote {peers.promote(args.save_path, r)}")
        return
    if args.save_path:
        cli.write(args.save_path, peers.page(records))
        print(f"wrote {args.save_path}: {len(records)} records")
    else:
        print(peers.page(records), end="")


if __name__ == "__main__":
    cli.run(main)
