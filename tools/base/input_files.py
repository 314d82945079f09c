"""The model inputs of a set of sentences as files: written by preprocess.py, read by gates, engines and runners.

    inputs = input_files.load_inputs("build/minilm_sst2/default/seq128/input", ["input_ids", "attention_mask"])

One folder per model input, named as it is; in it one int64 .bin per row, or one .npy per whole batch.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tools.base import onnxfile
from tools.make import cli

CHUNK = 16  # rows a run where the graph leaves the batch free
LONGEST = 1 << 14  # tokens of a row: no BERT has more positions
# The recipes' input names, and what transformers calls each.
ROLES = {
    **dict.fromkeys(("input_ids", "src_tokens"), "input_ids"),
    **dict.fromkeys(("attention_mask", "input_mask"), "attention_mask"),
    **dict.fromkeys(("token_type_ids", "segment_ids"), "token_type_ids"),
}
# fairseq's only input. Its padding is a token whose number fairseq's dictionaries fix.
UNMASKED, PADDING = "src_tokens", 1


def mask_name(names) -> str | None:
    """The name of the attention mask among input names, or of the index of sentences that packed rows have instead."""
    return next((n for n in names if "mask" in n or n == "sentence"), None)


def padding(name) -> int:
    """The number that fills up rows of the model input `name`."""
    return PADDING if name == UNMASKED else 0


def real_tokens(inputs: dict) -> np.ndarray | None:
    """An array [n, S] that is not 0 where a token is no padding: the mask among the inputs; None if no input says it."""
    if name := mask_name(inputs):
        return inputs[name]
    return inputs[UNMASKED] != PADDING if UNMASKED in inputs else None


def lengths(inputs: dict) -> np.ndarray:
    """The length of each row up to the last token that is not masked, int64 [n]; the full length if there is no mask."""
    mask = real_tokens(inputs)
    n, s = next(iter(inputs.values())).shape
    if mask is None:
        return np.full(n, s)
    return (np.where(mask != 0, np.arange(1, s + 1), 0)).max(axis=1)


def in_batches(once, shapes: dict, inputs: dict, where: str) -> np.ndarray:
    """once({name: int64 [batch, length]}) -> [batch, labels] over all rows of {name: int64 [n, S]}, in their order.

    shapes: {input name: (batch, length)}, each a number if the graph fixes it. A fixed batch is filled by repeating the
    last row of a chunk. If the length is free, rows run sorted by length, cut to the longest one of their chunk.
    Raises UserError if an input has no rows, or rows of another length than the graph takes.
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
    outputs = []
    for at in tqdm(range(0, n, size), desc="compare", unit="batch", leave=False, disable=None):
        rows = order[at : at + size]
        width = length if isinstance(length, int) else max(1, int(real[rows].max()))
        filled = np.pad(rows, (0, size - len(rows)), mode="edge") if isinstance(batch, int) else rows
        outputs.append(once({k: np.ascontiguousarray(inputs[k][filled, :width]) for k in shapes})[: len(rows)])
    return np.concatenate(outputs)[np.argsort(order)]


def by_sentence(out: np.ndarray, inputs: dict) -> tuple:
    """(logits float32 [m, labels], bool [m]: whether each belongs to a sentence); of an empty row, one that does not."""
    real = lengths(inputs) > 0
    if "first" not in inputs:
        return out, real
    used = inputs["first"] > 0
    used[:, 0] = True
    return out[used], np.repeat(real, used.sum(axis=1))


def row_files(folder: Path) -> list[Path]:
    """The files of rows in `folder`, .bin or .npy, in natural order."""
    natural = lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)]
    return sorted((f for f in folder.iterdir() if f.suffix in (".bin", ".npy")), key=natural)


def read_rows(path: Path) -> np.ndarray:
    """The rows of one file, int64 [n, length]; UserError if it does not hold whole rows."""
    try:
        if path.suffix == ".bin" and path.stat().st_size > 8 * LONGEST:
            raise ValueError("longer than any row")
        rows = cli.read_npy(path) if path.suffix == ".npy" else np.fromfile(path, "<i8")[None]
        whole = rows.dtype == np.int64 and rows.ndim == 2 and rows.nbytes > 0 and rows.shape[1] <= LONGEST
    except ValueError as e:
        raise cli.UserError(f"{path}: not an array of int64: {onnxfile.first_line(e)}; preprocess again") from None
    if not whole or (path.suffix == ".bin" and rows.nbytes != path.stat().st_size):
        raise cli.UserError(f"{path}: not whole int64 rows; preprocess again")
    return rows


def load_rows(folder: Path) -> tuple[np.ndarray, list[int]]:
    """The rows in `folder` in natural order, int64 [n, S], shorter ones filled up with padding; the length of each file."""
    parts = [read_rows(path) for path in row_files(folder)]
    if not parts:
        raise cli.UserError(f"{folder}: no .bin or .npy files; preprocess first")
    width = max(p.shape[1] for p in parts)
    filled = [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=padding(folder.name)) for p in parts]
    return np.concatenate(filled), [p.shape[1] for p in parts]


def load_inputs(folder, names, rows: int | None = None) -> dict:
    """{name: int64 [n, S]} from <folder>/<name>/*.bin or *.npy as preprocess.py writes them.

    rows: take only that many, the longest sentences first. Raises UserError if a folder is missing or the inputs
    differ in shape.
    """
    if missing := [name for name in names if not Path(folder, name).is_dir()]:
        raise cli.UserError(f"{folder}/{missing[0]}: no such folder of inputs; preprocess first")
    parts = {name: load_rows(Path(folder, name)) for name in names}
    inputs = {name: array for name, (array, _) in parts.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    if len({s for name, s in shapes.items() if name != "first"}) > 1 or len({n for n, _ in shapes.values()}) > 1:
        raise cli.UserError(f"{folder}: inputs differ in shape: {shapes}; preprocess again")
    if len({tuple(widths) for name, (_, widths) in parts.items() if name != "first"}) > 1:
        raise cli.UserError(f"{folder}: rows of different length from input to input; preprocess again")
    keep = longest(inputs, rows)
    return {name: a[keep] for name, a in inputs.items()}


def longest(inputs: dict, rows: int | None):
    """The index of the `rows` longest rows, longest first; of all, in their order, if None. UserError for less than 1."""
    if rows is not None and rows < 1:
        raise cli.UserError(f"--rows {rows}: must be 1 or more")
    return np.argsort(-lengths(inputs), kind="stable")[:rows] if rows else slice(None)


def input_names(folder: Path) -> list[str]:
    """The model inputs that preprocess.py wrote to `folder`. Raises UserError if there are none."""
    if not (names := sorted(f.name for f in folder.iterdir() if f.is_dir())):
        raise cli.UserError(f"{folder}: no folder of a model input; preprocess first")
    return names


@contextlib.contextmanager
def fresh_folder(path):
    """An empty folder that takes the place of `path` when the block ends well, so that no file of an earlier run stays.

    Only a folder of .bin and .npy files is replaced; UserError if it holds anything else.
    """
    path = Path(path)
    if path.exists() and any(p.suffix not in (".bin", ".npy") for p in path.iterdir()):
        raise cli.UserError(f"{path}: holds other files than .bin and .npy; name another --save_path")
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o750)  # in the recipe, ais_bench writes its outputs there, and accepts no wider mode
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    new.chmod(0o755)
    try:
        yield new
        if path.exists():
            shutil.rmtree(path)
        new.replace(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def write_file(path, data):
    """Write bytes-like `data` to a new file, 0644 whatever the umask (ais_bench refuses other modes)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with cli.file_in_error(path), os.fdopen(fd, "wb") as f:
        os.fchmod(fd, 0o644)
        f.write(data)


def write_json(path, value):
    """Write `value` as JSON with one entry a line, whole or not at all."""
    cli.write(path, json.dumps(value, indent=0, ensure_ascii=False) + "\n")


def write_bins(folder, arrays, labels, first_index=1, prefix="", rows=None):
    """Write one file for each row and input, folder/<input>/<prefix><index>.bin, as long as the row; then
    folder/labels.json, {"<file name without .bin>": "<label>"}.

    arrays: {input: int64 [n, seq_len], or n rows of different lengths}; labels: n values, kept as text; None if nobody knows
    them. BERT's recipe counts 1.bin, 2.bin ...; TinyBERT's input0.bin, input1.bin ... (first_index=0, prefix="input").
    rows: what `pack` returns; labels.json then holds lists, and folder/rows.json the sentences of each file as in
    write_buckets.
    """
    stems = [f"{prefix}{i}" for i in range(first_index, first_index + len(next(iter(arrays.values()))))]
    for name, array in arrays.items():
        with fresh_folder(Path(folder) / name) as new:
            for stem, row in zip(stems, array, strict=True):
                write_file(new / f"{stem}.bin", row.astype("<i8").tobytes())
    if rows is not None:
        write_json(Path(folder) / "rows.json", dict(zip(stems, rows, strict=True)))
    write_labels(folder, dict(zip(stems, range(len(stems)) if rows is None else rows, strict=True)), labels)


def write_labels(folder, rows: dict, labels) -> None:
    """Write folder/labels.json: the label of each file's row, or a list of its rows' labels. Remove it if `labels` is None."""
    if labels is None:
        return Path(folder, "labels.json").unlink(missing_ok=True)
    of = lambda row: [str(labels[i]) for i in row] if isinstance(row, list) else str(labels[row])
    return write_json(Path(folder) / "labels.json", {stem: of(row) for stem, row in rows.items()})


def batches_of(lengths, buckets, batch):
    """[(seq_len, row numbers)] of each batch, buckets ascending, rows in their order, each in the smallest bucket that fits.

    lengths: tokens of each row, int64 [n].
    """
    batches, below = [], 0
    for seq_len in sorted(buckets):
        rows = np.flatnonzero((lengths > below) & (lengths <= seq_len))
        batches += [(seq_len, rows[i : i + batch]) for i in range(0, len(rows), batch)]
        below = seq_len
    return batches


def write_buckets(folder, arrays, labels, buckets, batch):
    """Write one file for each batch and input, folder/<input>/<k>.npy, int64 [batch, bucket length], k = 1, 2 ...

    arrays: {input: int64 [n, max(buckets)]}; batches: those of batches_of. The last batch of a bucket is filled with rows
    of padding (zeros, in ids and mask), and its list of labels is shorter. Then it writes folder/rows.json,
    {"<k>": [row of the text file from 0, ...]}, and folder/labels.json, {"<k>": ["<label>", ...]}.
    Returns the number of batches.
    """
    batches = batches_of(lengths(arrays), buckets, batch)
    for name, array in arrays.items():
        with fresh_folder(Path(folder) / name) as new:
            for k, (seq_len, rows) in enumerate(batches, 1):
                whole = np.full((batch, seq_len), padding(name), "<i8")
                whole[: len(rows)] = array[rows, :seq_len]
                write_file(new / f"{k}.npy", cli.npy_bytes(whole))
    numbers = {str(k): rows.tolist() for k, (_, rows) in enumerate(batches, 1)}
    write_json(Path(folder) / "rows.json", numbers)
    write_labels(folder, numbers, labels)
    return len(batches)
