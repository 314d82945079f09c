"""Logits as files: what ais_bench leaves, one file per sample, and the score of such a folder."""

import math
from pathlib import Path

import numpy as np

from tools.base import tasks
from tools.base.input_files import row_files
from tools.base.onnxfile import first_line
from tools.make import cli


def margins(logits: np.ndarray) -> np.ndarray:
    """How far the best logit of each row is above the next: float32 [n] of [n, labels]; infinite for one label."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, np.float32)
    best = np.sort(logits, axis=1)
    return best[:, -1] - best[:, -2]


def classes_of(logits: np.ndarray) -> np.ndarray:
    """The class of each row, int [n] of [n, labels]; -1 where two best logits are equal."""
    return np.where(margins(logits) == 0, -1, logits.argmax(axis=1))


def classes_above(logits: np.ndarray, threshold: float) -> list[list[int]]:
    """The labels of each row of [n, labels] whose sigmoid is `threshold` or more, as lists of class numbers."""
    least = math.log(threshold / (1 - threshold))
    return [np.flatnonzero(row >= least).tolist() for row in logits]


def decisions(logits: np.ndarray, task, threshold: float) -> list:
    """The answer to each row of [n, labels]: a class, -1 for a tie, a score, or a list of classes, as the task is."""
    if task.several:
        return classes_above(logits, threshold)
    return (logits[:, 0] if task.score else classes_of(logits)).tolist()


def read_kept(path: Path) -> np.ndarray:
    """Float32 [n, labels] that --save_path kept. Raises UserError where it is no array of logits."""
    try:
        return np.atleast_2d(cli.read_npy(path).astype(np.float32))
    except ValueError as e:
        raise cli.UserError(f"{path}: no logits: {first_line(e)}; delete it and run make again") from None


def read_outputs(folder: Path, inputs: Path) -> np.ndarray:
    """Float32 [n, labels]: ais_bench's outputs in `folder` of the one-row files in `inputs`, in their order."""
    count = len(tasks.of_inputs(inputs.parent)[2])
    return np.concatenate([read_logits(folder, f.stem, 1, count, padded=False) for f in row_files(inputs)])


def read_logits(folder: Path, stem: str, rows: int, labels: int, padded: bool) -> np.ndarray:
    """Float32 [rows, labels] of one output file, which may hold more rows where it is `padded`: a whole batch, a packed row;
    UserError where it is missing, holds other rows, or values that are not finite."""
    readers = {
        ".bin": lambda path: np.frombuffer(cli.regular(path, cli.LARGEST).read_bytes(), "<f4"),
        ".npy": cli.read_npy,
        ".txt": lambda path: np.loadtxt(cli.regular(path, cli.LARGEST)),
    }
    path = next((p for s in readers if (p := folder / f"{stem}_0{s}").is_file()), None)
    if path is None:
        raise cli.UserError(f"{folder}/{stem}_0.bin (or .npy, .txt): missing; run the inference again")
    try:
        values = readers[path.suffix](path).astype(np.float32).reshape(-1, labels)
    except (ValueError, TypeError) as e:
        fault = f"not rows of {labels} float32 ({' '.join(str(e).split())[:200]})"
        raise cli.UserError(f"{path}: {fault}; run the inference again") from None
    if len(values) < rows or (len(values) > rows and not padded):
        raise cli.UserError(f"{path}: {len(values)} rows of logits, {rows} labels; run the inference again")
    if not np.isfinite(values[:rows]).all():
        raise cli.UserError(f"{path}: NaN or infinite logits; does `make accuracy PRECISION=fp32` have them too?")
    return values[:rows]


def numbers_of(labels: list, task, count: int, where) -> list:
    """Labels of labels.json as class numbers below `count`, or as the scores of a task that has one; UserError on others."""
    classes = {str(k): k for k in range(count)}
    try:
        if task.several:
            return [sorted(classes[word] for word in text.split()) for text in labels]
        if not task.score:
            return [classes[text] for text in labels]
        if all(map(math.isfinite, scores := [float(text) for text in labels])):
            return scores
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    span = "scores" if task.score else " or ".join(classes) if count < 4 else f"0 to {count - 1}"
    raise cli.UserError(f"{where}: labels are {labels}, not {span}; run preprocess.py again")


def outputs_with_labels(output_path: Path, label_path: Path) -> tuple[np.ndarray, list]:
    """(logits float32 [n, labels], a list of n labels) in the data's order; UserError where outputs, labels and order disagree.

    labels.json is {"<file>": "<label>"}, or {"<file>": ["<label>", ...]} for whole batches and packed rows; rows.json
    beside it then gives each file's rows of the text file.
    """
    if not output_path.is_dir():
        raise cli.UserError(f"{output_path}: no such folder; run the inference first")
    _, task, names = tasks.of_inputs(label_path.parent)
    labels, count = cli.read_json(label_path), len(names)
    order_path = label_path.with_name("rows.json")
    whole = any(isinstance(v, list) for v in labels.values())
    order = cli.read_json(order_path) if whole else {stem: [i] for i, stem in enumerate(labels)}
    logits, truth, rows = [], [], []
    for stem, label in labels.items():
        file_labels = label if isinstance(label, list) else [label]
        size, numbers = len(file_labels), order.get(stem)
        truth += numbers_of(file_labels, task, count, f"{label_path}: {stem}")
        logits.append(read_logits(output_path, stem, size, count, padded=file_labels is label))
        if not isinstance(numbers, list) or len(numbers) != size:
            raise cli.UserError(f"{order_path}: rows of {stem} are {numbers}, not {size}; run preprocess.py again")
        rows += numbers
    if not truth:
        raise cli.UserError(f"{label_path}: no labels; run preprocess.py again")
    if extra := {p.name.rsplit("_", 1)[0] for p in output_path.glob("*_0.*")} - set(labels):
        raise cli.UserError(f"{output_path}/{min(extra)}_0.*: no label for it; empty the folder and run again")
    if sorted(map(repr, rows)) != sorted(map(repr, range(len(truth)))):
        raise cli.UserError(f"{order_path}: not the rows 0 to {len(truth) - 1}, each once; run preprocess.py again")
    turn = np.argsort(rows)
    return np.concatenate(logits)[turn], [truth[i] for i in turn]


def score(output_path: Path, label_path: Path, threshold: float = tasks.THRESHOLD) -> dict:
    """What score.json says of a folder of outputs.

    SST-2: correct, total and `predictions`, a character a sentence in the data's order: its class, or = for a tie, which
    is wrong, as in the recipe. Where task.json names another task beside labels.json, predictions and truth are lists: of
    classes, -1 for a tie, of scores, or of lists of the classes that reach the threshold; metrics as tasks.figure has them.
    """
    name, task, names = tasks.of_inputs(label_path.parent)
    logits, truth = outputs_with_labels(output_path, label_path)
    answers = decisions(logits, task, threshold)
    correct = None if task.score else sum(p == t for p, t in zip(answers, truth, strict=True))
    if not (label_path.parent / tasks.FILE).is_file():
        text = "".join("=" if p == -1 else str(p) for p in answers)
        return {"correct": correct, "total": len(truth), "predictions": text}
    figures = {metric: tasks.figure(metric, truth, answers) for metric in task.metrics}
    result = {"correct": correct, "total": len(truth), "predictions": answers, "truth": truth}
    return {"task": name, "labels": names, **result, "metrics": figures}
