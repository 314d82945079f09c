"""What a classifier is asked: which columns hold its text, what its classes are called, how it is scored.

    task = "mrpc" in a model.toml;   tasks.TASKS["mrpc"].columns, .labels, .metrics

One entry a task of GLUE, by its own definition (Wang et al. 2019, arXiv 1804.07461, table 1; the label order is that of
the benchmark's data sets), and four for data of one's own, whose class names are those of the model's config.json.
Columns: the benchmark's own files first, then as the hub's data sets name them.
"""

import contextlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from tools.make import cli


@dataclass(frozen=True)
class Task:
    """text: the columns of one text, or of the two of a pair, in each known spelling; label: likewise.

    labels: the classes in the order of the outputs; empty where the model's config.json says it. metrics: the first is
    the one that tables show. bare: the columns of a file without a header. score: one number, not a class.
    """

    text: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    label: tuple[str, ...] = ("label",)
    bare: tuple[str, ...] = ()
    score: bool = False

    @property
    def pair(self) -> bool:
        return len(self.text[0]) == 2


ONE, TWO = ("sentence",), ("sentence1", "sentence2")
SAME = ("not_equivalent", "equivalent")
FOLLOWS = ("entailment", "not_entailment")
THREE = ("entailment", "neutral", "contradiction")
MNLI = {"labels": THREE, "label": ("gold_label", "label")}
TASKS = {
    "sst2": Task((ONE,), ("negative", "positive")),
    "cola": Task((ONE,), ("unacceptable", "acceptable"), ("matthews",), bare=("source", "label", "star", "sentence")),
    "mrpc": Task((("#1 String", "#2 String"), TWO), SAME, ("accuracy", "f1"), ("Quality", "label")),
    "qqp": Task(
        (("question1", "question2"),), ("not_duplicate", "duplicate"), ("accuracy", "f1"), ("is_duplicate", "label")
    ),
    "stsb": Task((TWO,), (), ("pearson", "spearman"), ("score", "label"), score=True),
    "mnli": Task((TWO, ("premise", "hypothesis")), **MNLI),
    "mnli-mm": Task((TWO, ("premise", "hypothesis")), **MNLI),
    "qnli": Task((("question", "sentence"),), FOLLOWS),
    "rte": Task((TWO,), FOLLOWS),
    "wnli": Task((TWO,), ("not_entailment", "entailment")),
    # One's own data: classes as config.json names them; the label a name or a number.
    "sentence": Task((ONE,)),
    "pair": Task((TWO,)),
    "score": Task((ONE,), (), ("pearson", "spearman"), ("score", "label"), score=True),
    "pair-score": Task((TWO,), (), ("pearson", "spearman"), ("score", "label"), score=True),
}
DEFAULT = "sst2"
FILE = "task.json"
SYNONYMS = {"neg": "negative", "pos": "positive", "notparaphrase": "notequivalent", "paraphrase": "equivalent"}


def known(name: str) -> Task:
    """The task of a name; UserError with the list of names."""
    if name not in TASKS:
        raise cli.UserError(f"TASK {name!r} is not one of: {' '.join(TASKS)} (tools/base/tasks.py)")
    return TASKS[name]


def labels(task: Task, named, where) -> list[str]:
    """The classes of a task in their order: its own, else those `named` by a config.json; of a score, its one name.

    Raises UserError where these do not fit the task.
    """
    if task.score and len(named) > 1:
        raise cli.UserError(
            f"{where}: {len(named)} labels ({', '.join(named)}); this task has one score; name its own TASK"
        )
    if not task.score and len(task.labels or named) < 2:
        raise cli.UserError(f"{where}: names {len(named)} labels, this task has classes; say them in id2label")
    return list(task.labels or named or ("score",))


def write(folder, name, names) -> None:
    """Say beside the inputs in `folder` what they ask: task.json, {"task", "labels"}; none where `name` is None: SST-2."""
    path = Path(folder) / FILE
    if name is None:
        return path.unlink(missing_ok=True)
    with cli.whole_file(path, "w") as f:
        return f.write(json.dumps({"task": name, "labels": list(names)}, indent=1) + "\n")


def read(folder):
    """(name, Task, class names) of a folder of inputs, SST-2's where task.json is not there; UserError where it is wrong."""
    path = Path(folder) / FILE
    if not path.is_file():
        return DEFAULT, TASKS[DEFAULT], list(TASKS[DEFAULT].labels)
    said = cli.read_json(path)
    name, names = str(said.get("task")), said.get("labels")
    good = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
    if not good or name not in TASKS or (TASKS[name].labels or tuple(names)) != tuple(names):
        raise cli.UserError(f"{path}: no task of tools/base/tasks.py with its labels; run preprocess.py again")
    return name, TASKS[name], names


def plain(label: str) -> str:
    """A label's name as names are compared: letters and digits alone, in lower case."""
    name = re.sub(r"[\W_]+", "", label.lower())
    return SYNONYMS.get(name, name)


def numbered(labels) -> bool:
    """Whether labels say nothing but their number: LABEL_0, LABEL_1 ..., or 0, 1 ..."""
    return [plain(label).removeprefix("label") for label in labels] == [str(i) for i in range(len(labels))]


def refuse_pairs(said, task: Task, where) -> None:
    """UserError where a checkpoint says that it was fine-tuned on pairs and the task has single texts, or the reverse."""
    other = TASKS.get(re.sub(r"[\W_]+", "", str(said).lower()))
    if other and other.pair != task.pair:
        kinds = ["one text", "a pair of texts"]
        raise cli.UserError(
            f"{where}: fine-tuned on {said}, {kinds[other.pair]} a row; this task has {kinds[task.pair]}"
        )


def refuse_without_types(inputs, task: Task, where) -> None:
    """UserError where a model of these inputs cannot tell the first text of a pair from the second."""
    if task.pair and not any("type" in name or "segment" in name for name in inputs):
        fault = f"pairs of texts, but its inputs are {', '.join(inputs)}"
        raise cli.UserError(f"{where}: {fault}; add token_type_ids to inputs in model.toml")


def order(given, wanted, where) -> list[int]:
    """For each of the `wanted` labels, which of the `given` ones it is, by name; numbers alone are taken as they stand.

    UserError with both lists where the names do not fit.
    """
    if len(given) == len(wanted):
        names = [plain(label) for label in given]
        if len(given) == 1 or numbered(given) or numbered(wanted):
            return list(range(len(given)))
        if sorted(names) == sorted(map(plain, wanted)):
            return [names.index(plain(label)) for label in wanted]
    shown = [f"{', '.join(map(str, labels)) or 'none':.200}" for labels in (given, wanted)]
    raise cli.UserError(f"{where}: the labels are {shown[0]}; the task's are {shown[1]}; is it of this task?")


def label_of(text: str, task: Task, names, where):
    """The class number (by number or name) or score that a TSV's label spells; None for -1 or nothing: it is unknown.

    Raises UserError for any other.
    """
    if text.strip() in ("", "-1", "-1.0"):
        return None
    if task.score:
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(text)):
                return value
        raise cli.UserError(f"{where}: label {text[:20]!r} is not a number; mend it")
    classes = task.labels or names
    if len(text) < 4 and text.isascii() and text.isdigit() and int(text) < len(classes):
        return int(text)
    found = [i for i, name in enumerate(classes) if plain(name) == plain(text) != ""]
    if not found:
        numbers = " or ".join(map(str, range(len(classes)))) if len(classes) < 4 else f"0 to {len(classes) - 1}"
        raise cli.UserError(f"{where}: label {text[:20]!r} is not {numbers} or one of {', '.join(classes)}; mend it")
    return found[0]


def measure(metric: str, truth, predicted) -> float:
    """A metric of GLUE, by scikit-learn or scipy; NaN where it is not defined (a correlation of constants).

    truth: classes or scores [n]; predicted: likewise, -1 for a tie, which is right for no class.
    """
    import warnings

    import numpy as np

    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if metric == "accuracy":
        return float((truth == predicted).mean())
    with warnings.catch_warnings(action="ignore"):  # of what is then NaN
        if metric in ("pearson", "spearman"):
            from scipy import stats

            found = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[metric](truth, predicted)
            return float(found.statistic)
        from sklearn import metrics

        if metric == "f1":  # of class 1, as in the benchmark
            return float(metrics.f1_score(truth, predicted, labels=[1], average="macro", zero_division=np.nan))
        return float(metrics.matthews_corrcoef(truth, predicted))


def bootstrap(metric: str, truth, predicted, resamples=1000) -> list[float]:
    """The 95 % interval of a metric: percentiles over resampled rows, from a fixed seed, so that it repeats.

    Source: B. Efron, Bootstrap Methods: Another Look at the Jackknife, 1979. Resamples without a value do not count.
    """
    import numpy as np

    truth, predicted = np.asarray(truth), np.asarray(predicted)
    picked = np.random.default_rng(0).integers(0, len(truth), (resamples, len(truth)))
    if metric == "f1":  # many resamples a call, a column each, which takes a fortieth of the time
        from sklearn.metrics import f1_score

        parts = [(truth[rows].T == 1, predicted[rows].T == 1) for rows in np.array_split(picked, 20)]
        found = np.concatenate([f1_score(*part, average=None, zero_division=np.nan) for part in parts])
    else:
        found = [measure(metric, truth[rows], predicted[rows]) for rows in picked]
    return [round(float(v), 6) for v in np.nanpercentile(found, [2.5, 97.5])]


def wilson(correct: int, total: int) -> list[float]:
    """The 95 % interval of a share: the p at which it is 1.96 standard errors off.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    z2, p = NormalDist().inv_cdf(0.975) ** 2 / total, correct / total
    middle, half = p + z2 / 2, math.sqrt(z2 * (p * (1 - p) + z2 / 4))
    return [round((middle + side) / (1 + z2), 6) for side in (-half, half)]


def figure(metric: str, truth, predicted) -> dict:
    """A metric as records hold it: value and interval95 (both None where it is not defined), and the interval's method."""
    value = measure(metric, truth, predicted)
    if metric == "accuracy":
        return {
            "value": round(value, 6),
            "interval95": wilson(round(value * len(truth)), len(truth)),
            "method": "Wilson",
        }
    if math.isnan(value):
        return {"value": None, "interval95": None, "method": "not defined: one side is constant"}
    return {"value": round(value, 6), "interval95": bootstrap(metric, truth, predicted), "method": "bootstrap"}
