"""What the settings of the CPU engines cost: one changed at a time from a plain use of each engine.

    python -m tools.bench.knobs --export model.onnx --simplified sim.onnx --modified cpu.onnx --static bs8/cpu.onnx \\
        --checkpoint checkpoint --text_file dev.tsv --calibration calibration.tsv --native model.native --save_path knobs.md

    | openvino bf16, real | sent/s | x first row | flips | |
    | :-- | --: | --: | --: | :-- |
    | modified graph, 1 stream, latency hint, 32 sentences a request | 401 | 1.00 (1.00-1.00) | 0 | slower |
    ...
    | **requests and streams of least measured cost** | 595 | 1.46 (1.37-1.75) | 0 | in use |
    ...

The first row of each group is that plain use; the others change the one thing they name. **Bold** is what engines.py,
plan.py and compile.py do by rule; the last column says why another row is not in use: slower in every round, not told
apart where the rounds disagree, or the reason why a faster one was not taken. All are loaded side by side and take
turns, round after round; a ratio compares two speeds of one round. Real: all sentences at their own lengths, longest
first. Padded: --rows of them in the shape of the --static graph. Flips: classes unlike those of onnxruntime in fp32 on the exported graph.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np

from tools import cli, run
from tools.base import cpu, tasks
from tools.cpu import compile as compile_cpu
from tools.cpu import engines, plan
from tools.source import tokens

REQUEST = 32  # sentences of a request where lengths are free
ROUNDS = 3
UNTRIED = (
    "int8 files keep their bytes: embeddings and head are apart in the graphs of all three models, and were held to the "
    "gate so; the flips of this one model on these sentences are too few to choose by"
)


@dataclass
class Setting:
    """One row: `engine` computes all `requests`, each one array an input, of the sentences `rows`."""

    group: str
    words: str
    engine: engines.Engine
    requests: list
    rows: np.ndarray
    kept: bool = False
    why: str = ""  # it is not taken although it may be faster
    rates: list = field(default_factory=list)  # sentences/s of each round
    classes: np.ndarray = None

    def run(self):
        outputs, _, seconds = plan.run(self.engine, self.requests)
        self.rates.append(len(self.rows) / seconds)
        self.classes = np.concatenate([out[0] for out in outputs]).argmax(1)


def by_tokens(columns, budget: int) -> list[np.ndarray]:
    """Rows of requests of at most `budget` tokens, padding included, longest first."""
    out = [[]]
    for i in plan.longest_first(columns):
        if out[-1] and len(columns[0][out[-1][0]]) * (len(out[-1]) + 1) > budget:
            out.append([])
        out[-1].append(i)
    return [np.array(rows) for rows in out]


@dataclass(frozen=True)
class Given:
    """The graphs and the texts that are measured."""

    export: Path
    simplified: Path
    modified: Path
    static: Path
    native: Path | None  # None where the CPU does not run it
    checkpoint: str
    text_file: str
    calibration: Path
    rows: int


def openvino(given, precision, columns, whole, folder):
    """Settings of OpenVINO in `precision`; columns: see plan.py; whole: padded requests."""
    import openvino as ov

    load = lambda path, streams=1, **changed: engines.Openvino(path, precision, 0, streams, **changed)
    compiled = Path(folder, "modified.ir")
    engines.write_ir(ov.Core().read_model(given.modified), compiled, precision, [])
    cut = lambda engine: plan.fixed(engine, columns, REQUEST)
    real = partial(setting, f"openvino {precision}, real", columns=columns)
    plain = load(given.modified)
    yield real(f"modified graph, 1 stream, latency hint, {REQUEST} sentences a request", plain, cut(plain))
    for name in ("simplified", "export"):
        yield real(f"graph: {name}", engine := load(getattr(given, name)), cut(engine))
    yield real("1 thread", engine := load(given.modified, INFERENCE_NUM_THREADS=1), cut(engine))
    yield real(
        "1 stream, throughput hint",
        engine := load(given.modified, PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=1),
        cut(engine),
    )
    yield real("2 streams, throughput hint", engine := load(given.modified, 2), cut(engine))
    for budget in (512, 1024, 2048, 4096):
        yield real(f"requests of {budget} tokens", plain, by_tokens(columns, budget))
    yield real(
        "requests and streams of least measured cost", *plan.fastest(plain, compiled, columns, REQUEST), kept=True
    )
    padded = partial(setting, f"openvino {precision}, padded", requests=whole)
    yield padded("static graph, 1 stream, latency hint", load(given.static), kept=True)
    yield padded("graph of open shape", load(given.modified))
    yield padded(
        "2 streams, throughput hint", load(given.static, 2),
        why="two requests at a time, each slower: the recipe's padded run is one after the other, as on a card",
    )  # fmt: skip


def onnxruntime(given, columns, whole, folder):
    """Settings of onnxruntime, fp32."""
    import onnx
    import onnxruntime as ort

    fused = f"{folder}/fused.onnx"
    onnx.save(compile_cpu.fuse(given.static, Path(folder, "optimised.onnx")), fused)
    load = lambda path, threads=0, **changed: engines.Onnxruntime(path, "fp32", threads, **changed)
    padded = partial(setting, "onnxruntime fp32, padded", requests=whole)
    yield padded("fused ahead (EXTENDED)", load(fused), kept=True)
    yield padded("fused when loaded (ALL)", load(given.static))
    yield padded(
        "fused no further than BASIC",
        load(given.static, graph_optimization_level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC),
        why="it would change the file's bytes for a hundredth on an AMD EPYC; on an Intel Xeon it was 0.86 x",
    )
    yield padded("weights not laid out ahead", load(fused, **{"session.disable_prepacking": "1"}))
    yield padded("threads do not spin", load(fused, **{"session.intra_op.allow_spinning": "0"}))
    yield padded("1 thread", load(fused, 1))


def native(given, columns):
    """Settings of our engine: a request of any size holds no padding."""
    real = partial(setting, "native, real", columns=columns)
    engine = engines.Native(given.native, "")
    yield real(f"{plan.CHUNK} sentences a request", engine, plan.fixed(engine, columns, plan.CHUNK), kept=True)
    for size in (8, 32, 128):
        yield real(
            f"{size} sentences a request",
            engine,
            np.split(order := plan.longest_first(columns), range(size, len(order), size)),
        )
    yield real("1 thread", engine := engines.Native(given.native, "", 1), plan.fixed(engine, columns, plan.CHUNK))


def int8(given, columns, folder):
    """What NNCF quantises of the exported graph."""
    shapes = compile_cpu.shapes_of(given.export)
    arrays = compile_cpu.sentences(given.calibration, given.checkpoint, shapes, tasks.TASKS[tasks.DEFAULT])
    real = partial(setting, "openvino int8, real", columns=columns)
    for words, apart in (
        ("encoder layers", compile_cpu.APART),
        ("the pooler and classifier too", ["embeddings"]),
        ("all", []),
    ):
        path = Path(folder, f"{len(apart)}.ir")
        engines.write_ir(compile_cpu.quantise(given.export, arrays, shapes, [], apart), path, "int8", [])
        engine = engines.Openvino(path, "int8")
        cuts, kept = plan.fixed(engine, columns, REQUEST), apart == compile_cpu.APART
        yield real(f"quantised: {words}", engine, cuts, kept=kept, why=UNTRIED)


def setting(group, words, engine, rows=None, columns=None, requests=None, kept=False, why=""):
    """A Setting of the requests that `rows` cut from `columns`, or of whole `requests`."""
    if requests is None:
        requests = [plan.feeds(columns, r) for r in rows]
    return Setting(
        group,
        words,
        engine,
        requests,
        np.concatenate(rows) if rows is not None else range(sum(len(r[0]) for r in requests)),
        kept,
        why,
    )


def first_calls(given, precision, request, folder):
    """(words, median seconds from a file to its first answer), the libraries already imported."""
    core = {"CACHE_DIR": f"{folder}/cache"}
    for words, load in (
        ("**openvino**", lambda: engines.Openvino(given.static, precision)),
        ("openvino, empty cache folder", lambda: engines.Openvino(given.static, precision, **core)),
        ("openvino, from its cache folder", lambda: engines.Openvino(given.static, precision, **core)),
        ("**onnxruntime, fused ahead**", lambda: engines.Onnxruntime(f"{folder}/fused.onnx", "fp32")),
        ("onnxruntime, fuses when it loads", lambda: engines.Onnxruntime(given.static, "fp32")),
        *([("**native**", lambda: engines.Native(given.native, ""))] if given.native else []),
    ):
        seconds = []
        for _ in range(1 if "empty" in words else ROUNDS):  # a second time it is empty no more
            start = time.perf_counter()
            load().run(request)
            seconds.append(time.perf_counter() - start)
        yield words, np.median(seconds)


def reason(s: Setting, kept: Setting) -> str:
    """Why a setting is not the one in use: slower in every round, not told apart by the rounds, or for `why`."""
    if s is kept:
        return "in use"
    ratios = np.array(s.rates) / kept.rates
    if ratios.max() <= 1:
        return "slower"
    if ratios.min() <= 1:
        return "not told apart" + f"; {s.why}" * bool(s.why)
    return s.why or "FASTER, and no reason is known: take it"


def table(settings) -> list[str]:
    """Markdown: a table for each group, ratios against its first row, and why a row is not in use."""
    out = []
    for group in dict.fromkeys(s.group for s in settings):
        rows = [s for s in settings if s.group == group]
        kept = next(s for s in rows if s.kept)
        out += ["", f"| {group} | sent/s | x first row | flips | |", "| :-- | --: | --: | --: | :-- |"]
        for s in rows:
            ratios = np.sort(np.array(s.rates) / rows[0].rates)
            spread = f"{np.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
            words = f"**{s.words}**" if s.kept else s.words
            out.append(f"| {words} | {np.median(s.rates):.0f} | {spread} | {s.flips} | {reason(s, kept)} |")
    return out


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--export", required=True, type=Path, help="pth2onnx.py's graph")
    p.add_argument("--simplified", required=True, type=Path, help="onnxsim's graph, its shape open")
    p.add_argument("--modified", required=True, type=Path, help="modify_onnx.py's graph, its shape open")
    p.add_argument("--static", required=True, type=Path, help="modify_onnx.py's graph of the recipe's shape")
    p.add_argument("--native", type=Path, help="ENGINE=native's file, where the CPU runs it")
    p.add_argument("--checkpoint", required=True, help="folder with the tokenizer")
    p.add_argument("--text_file", required=True, help="TSV of the sentences")
    p.add_argument("--calibration", required=True, type=Path, help="TSV of training sentences")
    p.add_argument("--rows", type=int, default=256, help="padded: this many sentences (256)")
    p.add_argument("--save_path", required=True, type=Path)
    return p.parse_args()


def measure(given, folder) -> list[str]:
    from tqdm import tqdm

    from tools.source import data

    texts, shapes = data.read_tsv(given.text_file)[0], compile_cpu.shapes_of(given.static)
    batch, length = shapes["input_ids"]
    tokenizer, count = tokens.load(given.checkpoint), given.rows // batch * batch
    columns = list(tokens.ragged(tokenizer, texts, length, list(shapes)).values())
    arrays = list(tokens.encode(tokens.load(given.checkpoint), texts[:count], length, list(shapes)).values())
    whole = [[a[i : i + batch] for a in arrays] for i in range(0, count, batch)]
    reference = engines.Onnxruntime(given.export, "fp32")
    exact = setting("", "", reference, plan.fixed(reference, columns, REQUEST), columns)
    exact.run()
    expected = np.empty(len(texts), int)
    expected[exact.rows] = exact.classes
    precision = "bf16" if cpu.cpu_flags() & cpu.BF16 else "fp32"

    settings = [*openvino(given, precision, columns, whole, folder), *onnxruntime(given, columns, whole, folder)]
    if given.native:
        settings += native(given, columns)
    if cpu.cpu_flags() & cpu.VNNI:
        settings += int8(given, columns, folder)
    for number in range(1 + ROUNDS):
        for s in tqdm(settings, "warm-up" if not number else f"round {number} of {ROUNDS}"):
            s.run()
    for s in settings:
        s.rates.pop(0)
        s.flips = int((s.classes != expected[np.array(s.rows)]).sum())
    git = run.git_state()
    made = f"Commit {git['commit']}{' and changes to it' if git['dirty'] else ''}, {time.strftime('%F', time.gmtime())}"
    return [
        f"{made}: {cpu.machine()['cpu']}, {cpu.cores()} threads, OpenVINO {settings[0].engine.version}, onnxruntime {reference.version}. Median of "
        f"{ROUNDS} interleaved rounds, the engine's calls alone; smallest and largest ratio in brackets. Padded: {count} sentences "
        f"of {length} tokens, batch {batch}; real: all {len(texts)}. **Bold**: what this repository does.",
        *table(settings),
        "",
        "| from a file to its first answer | seconds |",
        "| :-- | --: |",
        *(f"| {words} | {seconds:.2f} |" for words, seconds in first_calls(given, precision, whole[0], folder)),
    ]


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(measure(Given(**{f.name: getattr(args, f.name) for f in fields(Given)}), folder)) + "\n"
    print(text, end="")
    with cli.whole_file(args.save_path, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
