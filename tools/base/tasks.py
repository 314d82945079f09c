"""The tasks of a classifier: which columns hold its texts, what its classes are called, how its answers are scored.

    task = "mrpc" in a model.toml;   tasks.TASKS["mrpc"].columns, .labels, .metrics

One entry a task of GLUE, by its own definition (Wang et al. 2019, arXiv 1804.07461, table 1; the label order is that of
the benchmark's data sets), and six for data of one's own, whose class names are those of the model's config.json.
Columns: the benchmark's own files first, then as the hub's data sets name them.
"""

import contextlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from tools.make import cli


@dataclass(frozen=True)
class Task:
    """text: the columns of one text, or of the two of a pair, in each known spelling; label: likewise.

    labels: the classes in the order of the outputs; empty where the model's config.json says it. metrics: the first is
    the one that tables show. bare: the columns of a file without a header. score: one number, not a class. several: any
    number of the classes at once, each where its sigmoid reaches a threshold.
    """

    text: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    label: tuple[str, ...] = ("label",)
    bare: tuple[str, ...] = ()
    score: bool = False
    several: bool = False

    @property
    def pair(self) -> bool:
        return len(self.text[0]) == 2


ONE, TWO, QUESTIONS = ("sentence",), ("sentence1", "sentence2"), ("question1", "question2")
SAME = ("not_equivalent", "equivalent")
FOLLOWS = ("entailment", "not_entailment")
THREE = ("entailment", "neutral", "contradiction")
MNLI = Task((TWO, ("premise", "hypothesis")), THREE, label=("gold_label", "label"))
SEVERAL = Task((ONE,), (), ("f1_micro", "f1_macro"), ("labels", "label"), several=True)
TASKS = {
    "sst2": Task((ONE,), ("negative", "positive")),
    "cola": Task((ONE,), ("unacceptable", "acceptable"), ("matthews",), bare=("source", "label", "star", "sentence")),
    "mrpc": Task((("#1 String", "#2 String"), TWO), SAME, ("accuracy", "f1"), ("Quality", "label")),
    "qqp": Task((QUESTIONS,), ("not_duplicate", "duplicate"), ("accuracy", "f1"), ("is_duplicate", "label")),
    "stsb": Task((TWO,), (), ("pearson", "spearman"), ("score", "label"), score=True),
    "mnli": MNLI,
    "mnli-mm": MNLI,
    "qnli": Task((("question", "sentence"),), FOLLOWS),
    "rte": Task((TWO,), FOLLOWS),
    "wnli": Task((TWO,), ("not_entailment", "entailment")),
    # One's own data: classes as config.json names them; the label a name or a number.
    "sentence": Task((ONE,)),
    "pair": Task((TWO,)),
    "score": Task((ONE,), (), ("pearson", "spearman"), ("score", "label"), score=True),
    "pair-score": Task((TWO,), (), ("pearson", "spearman"), ("score", "label"), score=True),
    "labels": SEVERAL,
    "pair-labels": replace(SEVERAL, text=(TWO,)),
}
DEFAULT = "sst2"
FILE = "task.json"
THRESHOLD = 0.5  # of a sigmoid, where a text may have several labels
PROBLEMS = {
    "multi_label_classification": "several labels at once; give the task labels or pair-labels",
    "single_label_classification": "one class a text; give a task of classes",
    "regression": "numbers; give the task score or pair-score, which have one",
}
ONE_CLASS = 'this task has one class a text: write task = "labels", or "pair-labels", in model.toml'
SYNONYMS = {"neg": "negative", "pos": "positive", "notparaphrase": "notequivalent", "paraphrase": "equivalent"}


def by_name(name: str) -> Task:
    """The task of a name; UserError with the list of names."""
    if name not in TASKS:
        raise cli.UserError(f"TASK {name!r} is not one of: {' '.join(TASKS)} (tools/base/tasks.py)")
    return TASKS[name]


def labels(task: Task, names, where) -> list[str]:
    """The classes of a task in their order: its own, else the `names` of a config.json; of a score, its one name; UserError
    where these do not fit the task."""
    if task.score and len(names) > 1:
        fault = f"{len(names)} labels ({', '.join(names)}); this task has one score; name its own TASK"
        raise cli.UserError(f"{where}: {fault}")
    if not task.score and len(task.labels or names) < 2 - task.several:
        raise cli.UserError(f"{where}: names {len(names)} labels, this task has classes; say them in id2label")
    return list(task.labels or names or ("score",))


def write_task(folder, name, names) -> None:
    """Write task.json, {"task", "labels"}, beside the inputs in `folder`; none where `name` is None, which is SST-2."""
    path = Path(folder) / FILE
    if name is None:
        return path.unlink(missing_ok=True)
    return cli.write(path, json.dumps({"task": name, "labels": list(names)}, indent=1) + "\n")


def of_inputs(folder):
    """(name, Task, class names) of a folder of inputs, SST-2's where task.json is not there; UserError where it is wrong."""
    path = Path(folder) / FILE
    content = cli.read_json(path) if path.is_file() else {"task": DEFAULT, "labels": list(TASKS[DEFAULT].labels)}
    name, names = str(content.get("task")), content.get("labels")
    good = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
    if not good or name not in TASKS or (TASKS[name].labels or tuple(names)) != tuple(names):
        raise cli.UserError(f"{path}: no task of tools/base/tasks.py with its labels; run preprocess.py again")
    return name, TASKS[name], names


def bare_label(label: str) -> str:
    """A label's name as names are compared: letters and digits alone, in lower case."""
    name = re.sub(r"[\W_]+", "", label.lower())
    return SYNONYMS.get(name, name)


def numbered(labels) -> bool:
    """Whether labels are nothing but their numbers: LABEL_0, LABEL_1 ..., or 0, 1 ..."""
    return [bare_label(label).removeprefix("label") for label in labels] == [str(i) for i in range(len(labels))]


# Names are compared as they stand, then by looser keys, each only where it tells all of them apart.
KEYS = (str.strip, str.casefold, bare_label)
NUMBER = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{0,9})?")


def keyed(labels, key) -> dict | None:
    """{key: number} of labels; None where two have one key, or one has none."""
    numbers = {key(label): i for i, label in enumerate(labels)}
    return numbers if len(numbers) == len(labels) and "" not in numbers else None


def refuse_others(config, task: Task, where) -> None:
    """UserError where a checkpoint's config.json says that it was trained for something else than the task.

    That is pairs or single texts (finetuning_task), and one class, several, or numbers (problem_type).
    """
    name, problem = config.get("finetuning_task"), config.get("problem_type")
    other = TASKS.get(re.sub(r"[\W_]+", "", str(name).lower()))
    if other and other.pair != task.pair:
        kinds = ["one text", "a pair of texts"]
        fault = f"fine-tuned on {name}, {kinds[other.pair]} a row; this task has {kinds[task.pair]}"
        raise cli.UserError(f"{where}: {fault}")
    kind = (
        "multi_label_classification" if task.several else "regression" if task.score else "single_label_classification"
    )
    if problem in PROBLEMS and problem != kind:
        raise cli.UserError(f"{where}: problem_type is {problem}: {PROBLEMS[problem]}")


def refuse_without_types(inputs, task: Task, where, types=2) -> None:
    """UserError where a model of these inputs cannot tell the first text of a pair from the second, by its `types` of
    tokens; one that has a single type tells them by the tokens between."""
    if task.pair and types > 1 and not any("type" in name or "segment" in name for name in inputs):
        fault = f"pairs of texts, but its inputs are {', '.join(inputs)}"
        raise cli.UserError(f"{where}: {fault}; add token_type_ids to inputs in model.toml")


def order(labels, others, where) -> list[int]:
    """For each of the `others`, which of the labels it is: by its exact name, or else by the first of KEYS that tells the
    names apart on both sides; numbers alone are taken as they stand.

    UserError with both lists where the names do not fit.
    """
    if len(labels) == len(others):
        if len(labels) == 1:
            return [0]
        for key in KEYS:
            numbers, keys = keyed(labels, key), keyed(others, key)
            if numbers and keys and numbers.keys() == keys.keys():
                return [numbers[name] for name in keys]
        if numbered(labels) or numbered(others):
            return list(range(len(labels)))
    lists = [f"{', '.join(map(str, names)) or 'none':.200}" for names in (labels, others)]
    raise cli.UserError(f"{where}: the labels are {lists[0]}; the task's are {lists[1]}; is it of this task?")


def label_of(text: str, task: Task, names, where):
    """The class number (by name or number), score or list of class numbers that a TSV's label spells; None for -1 or
    nothing: it is unknown.

    Several labels are a JSON list, or separated by commas. Raises UserError for any other.
    """
    classes = task.labels or names
    if text.strip() in ("", "-1", "-1.0") and text.strip() not in classes:
        return None
    if task.score:
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(text)):
                return value
        raise cli.UserError(f"{where}: label {text[:20]!r} is not a number; mend it")
    bare, numbers = text.strip(), map(str, range(len(classes)))
    if not task.several:
        parts = {part.strip(' "') for part in bare.strip("[]").split(",")}
        if bare not in classes and (bare[0] == "[" or "," in bare) and parts <= {"", *classes, *numbers}:
            raise cli.UserError(f"{where}: label {text[:40]!r} is several at once; {ONE_CLASS}")
        return class_of(text, classes, where)
    try:
        labels = [bare] if bare in classes else json.loads(bare) if bare[0] == "[" else bare.split(",")
    except (ValueError, RecursionError):
        raise cli.UserError(f"{where}: labels {text[:40]!r} are no JSON list; mend them") from None
    return sorted({class_of(str(label), classes, where) for label in labels})


def class_of(text: str, classes, where) -> int:
    """The number of the class that a text gives by its name or its number; UserError where it is neither.

    Where names are numbers, or contain others than their own (1 star, 2 stars), only a name counts: 1 could mean either.
    """
    inside = [re.findall(r"[0-9]{1,9}", name) for name in classes]
    others = all(len(n) == 1 for n in inside) and [int(n) for (n,) in inside] != list(range(len(classes)))
    bare, by_name_alone = text.strip(), others or any(map(NUMBER.fullmatch, classes))
    number = NUMBER.fullmatch(bare)
    if number and not by_name_alone and bare.isdigit() and int(bare) < len(classes):
        return int(bare)
    for key in KEYS[:1] if number else KEYS:  # -1 and 1.0 are no looser spellings of 1 and 10
        if (numbers := keyed(classes, key)) and key(bare) in numbers:
            return numbers[key(bare)]
    span = " or ".join(map(str, range(len(classes)))) if len(classes) < 4 else f"0 to {len(classes) - 1}"
    span = "one of" if by_name_alone else f"{span} or one of"
    raise cli.UserError(f"{where}: label {text[:20]!r} is not {span} {', '.join(classes):.200}; mend it")


def marked(cells, names, where):
    """The class numbers of a row with a column of 0 or 1 for each class, None where one says -1; UserError for others."""
    if bad := [(name, cell) for name, cell in zip(names, cells, strict=True) if cell.strip() not in ("0", "1", "-1")]:
        raise cli.UserError(f"{where}: {bad[0][0]} is {bad[0][1][:20]!r}, not 0 or 1; mend it")
    return None if "-1" in map(str.strip, cells) else [i for i, cell in enumerate(cells) if cell.strip() == "1"]


def arrays(metric: str, truth, predicted):
    """Truth and predictions as arrays: [n], or bool [n, labels] of lists of class numbers."""
    import numpy as np

    if metric not in SEVERAL.metrics or isinstance(truth, np.ndarray):
        return [np.asarray(truth), np.asarray(predicted)]
    count = 1 + max((i for rows in (truth, predicted) for row in rows for i in row), default=0)
    return [np.array([np.isin(range(count), row) for row in rows]) for rows in (truth, predicted)]


def measure(metric: str, truth, predicted) -> float:
    """A metric; NaN where it is not defined (a correlation of constants).

    truth: n classes or scores, or where a text has several labels, lists of them, or `arrays`; predicted: likewise, -1
    for a tie, which is right for no class. f1 is of class 1, as in GLUE; f1_macro is the mean of the labels that truth
    or prediction hold.
    """
    import warnings

    import numpy as np

    truth, predicted = arrays(metric, truth, predicted)
    if metric == "accuracy":
        return float((truth == predicted).mean())
    with warnings.catch_warnings(action="ignore"):  # of what is then NaN
        if metric in ("pearson", "spearman"):
            from scipy import stats

            correlation = getattr(stats, f"{metric}r")
            return float(correlation(truth, predicted).statistic) if len(truth) > 1 else math.nan
        if metric == "matthews":  # of any number of classes, as scikit-learn has it, and in a hundredth of its time
            marks = [np.equal.outer(side, np.unique([truth, predicted])) for side in (truth, predicted)]
            t, p = (side - side.mean(0) for side in marks)
            size = np.sqrt((t * t).sum() * (p * p).sum())
            return float((t * p).sum() / size) if size else 0.0
        truth, predicted = (truth == 1, predicted == 1) if metric == "f1" else (truth, predicted)
        axis = None if metric == "f1_micro" else 0
        hits, either = (truth & predicted).sum(axis), truth.sum(axis) + predicted.sum(axis)
        return float(np.nanmean(2 * hits / either))


def bootstrap(metric: str, truth, predicted, resamples=1000) -> list[float]:
    """The 95 % interval of a metric: percentiles over resampled rows, from a fixed seed, so that it repeats.

    Source: B. Efron, Bootstrap Methods: Another Look at the Jackknife, 1979. Resamples without a value do not count.
    """
    import numpy as np

    truth, predicted = arrays(metric, truth, predicted)
    generator, n = np.random.default_rng(0), len(truth)
    resampled = (generator.integers(0, n, n) for _ in range(resamples))
    values = [measure(metric, truth[rows], predicted[rows]) for rows in resampled]
    return [round(float(v), 6) for v in np.nanpercentile(values, [2.5, 97.5])]


def wilson(correct: int, total: int) -> list[float]:
    """The 95 % interval of a share, by Wilson's score."""
    from scipy.stats import binomtest

    return [round(float(end), 6) for end in binomtest(correct, total).proportion_ci(method="wilson")]


def figure(metric: str, truth, predicted) -> dict:
    """A metric as records hold it: value and interval95 (both None where it is not defined), and the interval's method."""
    value = measure(metric, truth, predicted)
    if math.isnan(value):
        return {"value": None, "interval95": None, "method": "not defined: one side is constant"}
    share = metric == "accuracy"
    interval = wilson(round(value * len(truth)), len(truth)) if share else bootstrap(metric, truth, predicted)
    return {"value": round(value, 6), "interval95": interval, "method": "Wilson" if share else "bootstrap"}
