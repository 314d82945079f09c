"""The one numeric gate: two sets of logits of one model are the same, sentence by sentence, or nothing is written.

    python3 -m tools.graph.gate model.onnx sim.onnx --input build/minilm_sst2/default/seq128/input --rows 64

    gate: equal: fp32, max |difference| 3.81e-06 (limit 1e-04) over 64 rows, 0 flips

In place of the second graph may stand a folder of ais_bench outputs, one file per row; in place of the first, its
logits, which `python3 -m tools.graph.gate model.onnx --input ... --save_path reference.npy` keeps.

fp32 is held to the logits: none may differ by more than TOLERANCE (where logits are larger than USUAL, by as many
times more), and no sentence may change its class. A sentence whose two best logits are nearer to each other than that is a
tie: its class says nothing, so it is counted apart. Lower precisions are held to the classes: at most 3 of 872
sentences may become wrong. A score has no class: there the correlation with fp32's is at least 1 - 3 / 872.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tools.base import input_files, onnxfile, output_files
from tools.make import cli

TOLERANCE = 1e-4  # fp32: the largest logit difference
USUAL = 10.0  # logits of trained classifiers stay below; of larger ones, fp32 keeps as many digits and no more
LOSS = 3 / 872  # other precisions: the share of sentences that may become wrong, or flip where labels mean nothing
NOISE = 1 / 8  # of the largest |logit|; margins of seeded minilm_sst2 move by up to 1 / 23 (bf16), 1 / 28 (int8)


class Verdict(NamedTuple):
    """What the gate has to say, of how many rows, and the largest difference of two logits."""

    ok: bool
    line: str
    rows: int
    max_abs: float

    def demand(self, where) -> str:
        """The verdict's line; UserError with it where the gate is not passed. where: the file that would be written."""
        if not self.ok:
            raise cli.UserError(f"{where}: {self.line}; nothing was written")
        return self.line


def judge(reference, outputs, precision="fp32", labels=None, seeded=False, real=None) -> Verdict:
    """Hold `outputs` to `reference`, float32 [n, labels] both; UserError where they differ in shape.

    labels: int [n], the right classes (the reference's own where None). seeded: the weights are random, so labels mean
    nothing and near ties may flip (NOISE). real: bool [n], False for rows without a sentence, which fill up batches:
    their logits must be finite, not equal, since a softmax over masked scores alone depends on the mask constant.
    """
    if reference.shape != outputs.shape:
        raise cli.UserError(f"the outputs differ in shape, {reference.shape} and {outputs.shape}; make both again")
    real = np.ones(len(outputs), bool) if real is None else real
    bad = ~np.isfinite(outputs).all(axis=1) | (real & ~np.isfinite(reference).all(axis=1))
    good = real & ~bad
    gap = float(np.abs(reference - outputs)[good].max(initial=0))
    largest = float(np.abs(reference[good]).max(initial=0))
    limit = TOLERANCE * max(1.0, largest / USUAL)
    other = good & (reference.argmax(axis=1) != outputs.argmax(axis=1))
    tied = other & (output_files.margins(reference) <= 2 * limit)
    flips = other & ~tied
    if precision == "fp32":
        ok = not flips.any() and gap <= limit
        figures = f"max |difference| {gap:.2e} (limit {limit:.0e}) over {len(real)} rows, {count(flips)}"
    elif reference.shape[1] == 1:
        alike = agreement(reference[good, 0], outputs[good, 0])
        ok = alike >= 1 - LOSS
        figures = f"max |difference| {gap:.2g} over {len(real)} rows, correlation {alike:.5f} (limit {1 - LOSS:.5f})"
    else:
        allowed = int(LOSS * len(outputs))
        lost, what = int((flips & (output_files.margins(reference) > NOISE * largest)).sum()), "flips but for near ties"
        if not seeded:
            right = reference.argmax(1) if labels is None else np.asarray(labels)
            lost = int((reference.argmax(1) == right)[good].sum() - (outputs.argmax(1) == right)[good].sum())
            what = "more wrong"
        ok = lost <= allowed
        figures = (
            f"max |difference| {gap:.2g} over {len(real)} rows, {lost} {what} (limit {allowed}), {count(flips, 99)}"
        )
    ok = bool(ok and good.any() and not bad.any())
    line = f"gate: {'equal' if ok else 'NOT EQUAL'}: {precision}, {figures}"
    line += f", {int(tied.sum())} tied within the limit{row_numbers(tied)}" * bool(tied.any())
    line += f", {int(bad.sum())} rows not finite{row_numbers(bad)}" * bool(bad.any())
    return Verdict(ok, line, len(real), gap)


def by_label(logits: np.ndarray, task) -> np.ndarray:
    """Logits [n, labels] for `judge`. If a text may have several labels, each label is a row of two classes: [n x labels, 2]."""
    return np.stack([logits.ravel() * 0, logits.ravel()], 1) if task.several else logits


def agreement(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Pearson's correlation of two sets of scores, float32 [n]; 1 where they are equal, 0 where one is constant."""
    if np.array_equal(reference, outputs):
        return 1.0
    if len(outputs) < 2 or not reference.std() or not outputs.std():
        return 0.0
    return float(np.corrcoef(reference, outputs)[0, 1])


def count(flips: np.ndarray, most: int = 5) -> str:
    """`3 flips (rows 2, 5, 9)` of bool [n]."""
    number = int(flips.sum())
    return f"{number} flip{'s' * (number != 1)}{row_numbers(flips, most)}"


def row_numbers(which: np.ndarray, most: int = 5) -> str:
    """` (rows 2, 5, 9 ...)` of bool [n], at most so many; nothing where none is set."""
    rows = np.flatnonzero(which).tolist()
    return f" (rows {', '.join(map(str, rows[:most]))}{' ...' * (len(rows) > most)})" if rows else ""


def logits(model, inputs: dict) -> np.ndarray:
    """First output of `model` (a path, or an ONNX file's bytes) for inputs {name: int64 [n, S]}: float32 [n, labels], or
    [n, most sentences a row, labels] of packed rows. UserError where onnxruntime refuses.

    Its threads wait asleep: spinning, they take the cores from whatever runs beside, and give the same bytes.
    """
    run, name = onnxfile.session(model, None, **{"session.intra_op.allow_spinning": "0"}), onnxfile.name_of(model)

    def once(feeds):
        with onnxfile.refuse(f"{name}: onnxruntime cannot run it on these inputs", "make both again"):
            return run.run(None, feeds)[0]

    return input_files.in_batches(once, {i.name: i.shape for i in run.get_inputs()}, inputs, name)


def compare(reference, candidate, inputs: dict) -> Verdict:
    """Run two graphs (paths or bytes; or float32 [n, labels], their logits) on {name: int64 [n, S]}; fp32's verdict."""
    both = [g if isinstance(g, np.ndarray) else logits(g, inputs) for g in (reference, candidate)]
    (reference, _), (candidate, real) = (input_files.by_sentence(out, inputs) for out in both)
    return judge(reference, candidate, real=real)


def examples(names, length: int, vocabulary: int) -> dict:
    """Fixed pseudo-random rows of falling length, the last all masked: {name: int64 [8, length]}."""
    if length > input_files.LONGEST:
        raise cli.UserError(f"rows of {length} tokens are longer than {input_files.LONGEST}; export the graph again")
    tokens = np.random.default_rng(0).integers(1, vocabulary, (8, length), dtype=np.int64)
    ends = np.linspace(length, 0, len(tokens)).astype(np.int64)
    mask = (np.arange(length) < ends[:, None]).astype(np.int64)
    mask_name = input_files.mask_name(names)
    ids = lambda name: np.where(mask, tokens, input_files.padding(name))
    is_type = lambda name: "segment" in name or "type" in name
    return {name: mask if name == mask_name else 0 * mask if is_type(name) else ids(name) for name in names}


def main():
    p = cli.parser(__doc__)
    p.add_argument("reference", help="the graph to hold to, or its logits")
    p.add_argument("new", nargs="?", help="the graph to judge, or a folder of its outputs")
    p.add_argument("--input", required=True, type=Path, help="folder with one sub-folder of rows per model input")
    p.add_argument("--rows", type=int, help="only so many rows, longest sentences first (default: all)")
    p.add_argument("--save_path", type=Path, help="in place of a comparison: where the reference's logits go, .npy")
    a = p.parse_args()
    if (a.new is None) == (a.save_path is None):
        p.error("give either a second graph, or a folder of its outputs, or --save_path")
    reference, outputs, saved = a.reference, a.new, Path(a.reference).suffix == ".npy"
    names = input_files.input_names(a.input) if saved else [i.name for i in onnxfile.session(reference).get_inputs()]
    inputs = input_files.load_inputs(a.input, names, a.rows)
    if a.save_path:
        cli.write(a.save_path, cli.npy_bytes(logits(reference, inputs)))
        print(f"wrote the logits of {len(inputs[names[0]])} rows to {a.save_path}")
        return
    if Path(outputs).is_dir():
        whole = input_files.load_inputs(a.input, names)
        outputs = output_files.read_outputs(Path(outputs), Path(a.input, names[0]))[input_files.longest(whole, a.rows)]
    verdict = compare(output_files.read_kept(Path(reference)) if saved else reference, outputs, inputs)
    if not verdict.ok:
        raise cli.UserError(f"{a.new}: {verdict.line}; it must not take the place of {reference}")
    print(verdict.line)


if __name__ == "__main__":
    cli.run(main)
