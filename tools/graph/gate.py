"""The numeric gate between two ONNX graphs of one model: the same logits, row by row, or failure.

    python -m tools.graph.gate model.onnx sim.onnx --input build/minilm_sst2/default/seq128/input [--rows 64]

    gate: equal: max |difference| 3.81e-06 (limit 0.0001) over 64 rows, 0 argmax flips, 0 rows not finite

In place of the second graph may stand a folder of ais_bench outputs, one file a row; in place of the first its logits,
which `python -m tools.graph.gate model.onnx --input ... --save_path reference.npy` keeps.
Rows whose mask is all zero carry no sentence (padding of the last batch): their logits must be finite, not
equal, since a softmax over masked scores alone depends on the mask constant.
"""

import argparse
import os
import re
from pathlib import Path

import numpy as np

from tools import cli
from tools.cpu import engines
from tools.cpu.engines import first_line

CHUNK = 16  # rows a run where the graph leaves the batch free
TOLERANCE = 1e-4  # max abs logit difference, fp32


def session(model):
    """An onnxruntime CPU session of a path or of serialized bytes."""
    try:
        return engines.session(model, int(os.environ.get("OMP_NUM_THREADS", "0")))
    except Exception as e:  # onnxruntime has no public base class for its errors
        raise cli.UserError(f"{name_of(model)}: onnxruntime refuses it: {first_line(e)}; make it again") from None


def name_of(model) -> str:
    return "the rewritten graph" if isinstance(model, bytes) else str(model)


def mask_of(names) -> str | None:
    """The name of the attention mask among input names, or of the sentence index that packed rows have instead."""
    return next((n for n in names if "mask" in n or n == "sentence"), None)


def lengths(inputs: dict) -> np.ndarray:
    """Tokens of each row up to the last one not masked, int64 [n]; the full length where there is no mask."""
    name = mask_of(inputs)
    n, s = next(iter(inputs.values())).shape
    if name is None:
        return np.full(n, s)
    return (np.where(inputs[name] != 0, np.arange(1, s + 1), 0)).max(axis=1)


def logits(model, inputs: dict) -> np.ndarray:
    """First output of `model` (path or bytes) for inputs {name: int64 [n, S]}: float32 [n, labels], or
    [n, most sentences a row, labels] of packed rows."""
    run = session(model)

    def once(feeds):
        try:
            return run.run(None, feeds)[0]
        except Exception as e:
            raise cli.UserError(
                f"{name_of(model)}: onnxruntime cannot run it on these inputs: {first_line(e)}; make both again"
            ) from None

    return in_batches(once, {i.name: i.shape for i in run.get_inputs()}, inputs, name_of(model))


def in_batches(once, shapes: dict, inputs: dict, where: str) -> np.ndarray:
    """once({name: int64 [batch, length]}) -> [batch, labels] over all rows of {name: int64 [n, S]}, in their order.

    shapes: {input name: (batch, length)}, a number where the graph fixes it. A static batch is filled by repeating
    a chunk's last row. Where the length is free, rows run sorted by length and cut to the longest of their chunk.
    """
    from tqdm import tqdm

    if missing := [name for name in shapes if name not in inputs]:
        raise cli.UserError(f"{where}: no rows for its input {missing[0]!r}")
    batch, length = next(iter(shapes.values()))
    n, s = inputs[next(iter(shapes))].shape
    if isinstance(length, int) and length != s:
        raise cli.UserError(f"{where}: takes rows of {length} tokens, the inputs have {s}; preprocess for it")
    size = batch if isinstance(batch, int) else CHUNK
    real = lengths(inputs)
    order = np.argsort(-real, kind="stable")
    got = None
    for at in tqdm(range(0, n, size), desc="compare", unit="batch", leave=False, disable=None):
        rows = order[at : at + size]
        width = length if isinstance(length, int) else max(1, int(real[rows].max()))
        filled = np.pad(rows, (0, size - len(rows)), mode="edge") if isinstance(batch, int) else rows
        out = once({k: np.ascontiguousarray(inputs[k][filled, :width]) for k in shapes})
        if got is None:
            got = np.empty((n, *out.shape[1:]), out.dtype)
        got[rows] = out[: len(rows)]
    return got


def compare(ref_onnx, new_onnx, inputs: dict, tol: float = TOLERANCE) -> dict:
    """Run both graphs (paths or bytes) on {name: int64 [n, S]} and compare their first output.

    In place of a graph may stand its logits, float32 [n, labels].

    Returns dict(ok, rows, padding_rows, max_abs, argmax_flips: row numbers, not_finite: row numbers).
    ok: every row of the new graph finite, and on rows with a sentence max_abs <= tol and no argmax differs.
    """
    ref, new = (g if isinstance(g, np.ndarray) else logits(g, inputs) for g in (ref_onnx, new_onnx))
    if ref.shape != new.shape:
        raise cli.UserError(f"the outputs differ in shape, {ref.shape} and {new.shape}; make both again")
    return judge(by_sentence(ref, inputs)[0], *by_sentence(new, inputs), tol)


def by_sentence(out: np.ndarray, inputs: dict) -> tuple:
    """(logits float32 [m, labels], which of them are a sentence's: bool [m]); an empty row counts as one, not real."""
    real = lengths(inputs) > 0
    if "first" not in inputs:
        return out, real
    used = inputs["first"] > 0
    used[:, 0] = True
    return out[used], np.repeat(real, used.sum(axis=1))


def judge(ref: np.ndarray, new: np.ndarray, real: np.ndarray, tol: float = TOLERANCE) -> dict:
    """`compare` of the logits themselves, float32 [n, labels] both; real: bool [n], rows with a sentence."""
    bad = ~np.isfinite(new).all(axis=1) | (real & ~np.isfinite(ref).all(axis=1))
    flips = real & (ref.argmax(axis=1) != new.argmax(axis=1))
    gap = np.abs(ref - new)[real & ~bad]
    max_abs = float(gap.max()) if gap.size else 0.0
    return {
        "ok": bool(real.any() and not bad.any() and not flips.any() and max_abs <= tol),
        "rows": len(real),
        "padding_rows": int((~real).sum()),
        "max_abs": max_abs,
        "argmax_flips": np.flatnonzero(flips).tolist(),
        "not_finite": np.flatnonzero(bad).tolist(),
    }


def line(result: dict, tol: float = TOLERANCE) -> str:
    """`compare`'s result as one line."""
    verdict = "equal" if result["ok"] else "NOT EQUAL"
    flips, bad = result["argmax_flips"], result["not_finite"]
    return (
        f"gate: {verdict}: max |difference| {result['max_abs']:.2e} (limit {tol:g}) over {result['rows']} "
        f"rows, {len(flips)} argmax flips{some(flips)}, {len(bad)} rows not finite{some(bad)}"
    )


def some(rows: list) -> str:
    return f" (rows {', '.join(map(str, rows[:5]))}{' ...' if len(rows) > 5 else ''})" if rows else ""


def natural(path: Path) -> list:
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)]


def row_files(folder: Path) -> list[Path]:
    """The files of rows in `folder`, .bin or .npy, in natural order."""
    return sorted((f for f in folder.iterdir() if f.suffix in (".bin", ".npy")), key=natural)


def rows_of(folder: Path) -> tuple[np.ndarray, list[int]]:
    """Rows in `folder`, int64 [n, S]: one .bin per row, or .npy [rows, length], in natural order; each file's length.

    Shorter files are filled up with zeros.
    """
    parts = []
    for f in row_files(folder):
        try:
            part = cli.read_npy(f) if f.suffix == ".npy" else np.fromfile(f, "<i8")[None]
            dtype, ndim, size = part.dtype, part.ndim, part.nbytes
        except ValueError as e:
            raise cli.UserError(f"{f}: not an array of int64: {first_line(e)}; preprocess again") from None
        if dtype != np.int64 or ndim != 2 or f.suffix == ".bin" and size != f.stat().st_size:
            raise cli.UserError(f"{f}: not whole int64 rows; preprocess again")
        parts.append(part)
    if not parts:
        raise cli.UserError(f"{folder}: no .bin or .npy files; preprocess first")
    width = max(p.shape[1] for p in parts)
    whole = np.zeros((sum(map(len, parts)), width), np.int64)
    ends = np.cumsum([len(p) for p in parts])
    for part, end in zip(parts, ends, strict=True):
        whole[end - len(part) : end, : part.shape[1]] = part
    return whole, [p.shape[1] for p in parts]


def load_inputs(folder, names, rows: int | None = None) -> dict:
    """{name: int64 [n, S]} from <folder>/<name>/*.bin or *.npy as preprocess.py writes them.

    rows: take only that many, the longest sentences first.
    """
    folder = Path(folder)
    if rows is not None and rows < 1:
        raise cli.UserError(f"--rows {rows}: must be 1 or more")
    for name in names:
        if not (folder / name).is_dir():
            raise cli.UserError(f"{folder / name}: no such folder of inputs; preprocess first")
    found = {name: rows_of(folder / name) for name in names}
    inputs = {name: rows for name, (rows, _) in found.items()}
    wide = {name: a for name, a in inputs.items() if name != "first"}
    if len({a.shape for a in wide.values()}) > 1 or len({len(a) for a in inputs.values()}) > 1:
        shapes = {k: a.shape for k, a in inputs.items()}
        raise cli.UserError(f"{folder}: inputs differ in shape: {shapes}; preprocess again")
    of_rows = {tuple(widths) for name, (_, widths) in found.items() if name in wide}
    if len(of_rows) > 1 or ("first" in found and len(set(found["first"][1])) > 1):
        raise cli.UserError(f"{folder}: rows of different length from input to input; preprocess again")
    keep = longest(inputs, rows)
    return {name: a[keep] for name, a in inputs.items()}


def longest(inputs: dict, rows: int | None):
    """Index of the `rows` longest rows, longest first; of all, as they stand, where None."""
    return np.argsort(-lengths(inputs), kind="stable")[:rows] if rows else slice(None)


def input_names(folder: Path) -> list[str]:
    """The model inputs that preprocess.py wrote to `folder`."""
    if not (names := sorted(f.name for f in folder.iterdir() if f.is_dir())):
        raise cli.UserError(f"{folder}: no folder of a model input; preprocess first")
    return names


def read_kept(path: Path) -> np.ndarray:
    """Float32 [n, labels] that --save_path kept."""
    try:
        return cli.read_npy(path).astype(np.float32).reshape(-1, 2)
    except ValueError as e:
        raise cli.UserError(f"{path}: no logits: {first_line(e)}; delete it and run make again") from None


def read_outputs(folder: Path, given: Path) -> np.ndarray:
    """Float32 [n, 2]: ais_bench's outputs in `folder` of the one-row files in `given`, in rows_of's order."""
    from tools import recipe

    return np.concatenate([recipe.read_logits(folder, f.stem, 1, padded=False) for f in row_files(given)])


def examples(names, length: int, vocabulary: int, rows: int = 8, most: int = 0) -> dict:
    """Fixed pseudo-random rows of falling length, the last all masked: {name: int64 [rows, length]}.

    most: of a packed graph, the sentences a row may hold; row r then holds up to r + 1.
    """
    pick = np.random.default_rng(0)
    tokens = pick.integers(1, vocabulary, (rows, length), dtype=np.int64)
    ends = np.linspace(length, 0, rows).astype(np.int64)
    mask = (np.arange(length) < ends[:, None]).astype(np.int64)
    mask_name = mask_of(names)
    kinds = {name: np.zeros_like(mask) for name in names if "segment" in name or "type" in name}
    made = {name: mask if name == mask_name else kinds.get(name, tokens * mask) for name in names}
    if most:
        packed = {"sentence": mask, "position": np.zeros_like(mask), "first": np.zeros((rows, most), np.int64)}
        for r, end in enumerate(ends):
            parts = np.array_split(np.arange(end), max(1, min(r + 1, most, end)))
            for k, at in enumerate(parts):
                packed["sentence"][r, at] = k + 1
                packed["position"][r, at] = np.arange(len(at))
                packed["first"][r, k] = at[0] if len(at) else 0
        made |= packed
    return made


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("reference", help="the graph to hold to, or its logits")
    p.add_argument("new", nargs="?", help="the graph to judge, or a folder of its outputs")
    p.add_argument("--input", required=True, type=Path, help="folder with one sub-folder of rows per model input")
    p.add_argument("--rows", type=int, help="only so many rows, longest sentences first (default: all)")
    p.add_argument("--tolerance", type=float, default=TOLERANCE, help="max abs logit difference (default 1e-4)")
    p.add_argument("--save_path", type=Path, help="in place of a comparison: where the reference's logits go, .npy")
    a = p.parse_args()
    if (a.new is None) == (a.save_path is None):
        p.error("give either a second graph, or a folder of its outputs, or --save_path")
    for path in filter(None, (a.reference, a.new, a.input)):
        if not Path(path).exists():
            raise cli.UserError(f"{path}: no such file")
    kept = Path(a.reference).suffix == ".npy"
    names = input_names(a.input) if kept else [i.name for i in session(a.reference).get_inputs()]
    inputs = load_inputs(a.input, names, a.rows)
    if a.save_path:
        made = logits(a.reference, inputs)
        with cli.whole_file(a.save_path) as f:
            f.write(cli.npy(made))
        return print(f"wrote the logits of {len(made)} rows to {a.save_path}")
    new = a.new
    if Path(new).is_dir():
        new = read_outputs(Path(new), Path(a.input, names[0]))[longest(load_inputs(a.input, names), a.rows)]
    result = compare(read_kept(Path(a.reference)) if kept else a.reference, new, inputs, a.tolerance)
    if not result["ok"]:
        raise cli.UserError(f"{a.new}: {line(result, a.tolerance)}; it must not take the place of {a.reference}")
    return print(line(result, a.tolerance))


if __name__ == "__main__":
    cli.run(main)
