"""A classifier, loaded once, and a table of texts to a table of answers: the same for files, pipes, clusters and Python.

docs/scale.md shows how Python calls it. A text that stands more than once in a table is computed once. A thread tokenises
WINDOW texts at a time while the ones before them run, longest first. tools/cpu/plan.py's `fixed` plan cuts them into
requests, so the same table and model give the same bytes.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from tools.base import input_files, output_files, tasks
from tools.cpu import engines, plan
from tools.make import cli
from tools.recipe import options
from tools.scale import files
from tools.source import architecture, tokens

WINDOW = 4096  # texts tokenised at a time
GROUP = 1 << 16  # rows of a table, at most
LONGEST = 1 << 20  # tokens: more than any model has positions


def ahead(items):
    """The items of an iterator, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def logits(engine, columns, batch: int, done=lambda rows: None) -> np.ndarray:
    """Float32 [n, labels] of n sentences, in their order; done(rows) after each request."""
    rows = plan.fixed(engine, columns, batch)
    outputs = plan.run_requests(engine, (plan.feeds_of(columns, r) for r in rows), done)[0]
    sorted_rows = np.concatenate([out[0] for out in outputs])
    in_order = np.empty_like(sorted_rows, np.float32)
    in_order[np.concatenate(rows)] = sorted_rows
    return in_order


@dataclasses.dataclass(eq=False)
class Scorer:
    """A model, loaded once, for tables and lists of texts. UserError where the model cannot do it."""

    model: Path  # compiled with open batch and length
    tokenizer: Path  # checkpoint folder
    task: str = tasks.DEFAULT  # of tools/base/tasks.py
    batch: int = 8  # texts of a request, at most
    most: int = 0  # tokens a text is cut to; 0: as many as the model takes
    threads: int = 0  # 0: all cores
    rerun: Path | None = None  # fp32 graph for rows whose best logits are less than `margin` apart
    margin: float = 0.0
    threshold: float = tasks.THRESHOLD  # of a label's sigmoid, where a text may have several
    logits: bool = False  # also the logits themselves
    null: bool = False  # a row that is amiss is handed on, with its reason
    done: Callable = lambda rows: None  # called after each request

    def __post_init__(self):
        self.model, self.tokenizer = Path(self.model), Path(self.tokenizer)
        if not self.model.is_file():
            raise cli.UserError(f"--model {self.model}: no such file")
        self.engine, self.tried = engines.load(self.model, self.threads), False
        inputs = [t.name for t in self.engine.inputs]
        if fixed := [t.name for t in self.engine.inputs if t.shape != (None, None)]:
            raise cli.UserError(f"--model {self.model}: input {fixed[0]} has a fixed shape; compile it with SEQ=real")
        self.question, self.names = options.task_and_labels(self.task, self.tokenizer, tuple(inputs))
        self.exact = self.rerun and engines.load(self.rerun, self.threads)
        self.most = tokens.fit(self.tokenizer, self.most or LONGEST, cut=True)
        if self.most == LONGEST:
            raise cli.UserError(f"{self.tokenizer}: no config.json says how many positions there are; give --max_len")
        self.pieces = tokens.load(self.tokenizer)
        tokens.check(self.pieces, self.question.pair, self.most, inputs)
        self.fields = [tokens.FIELDS[input_files.ROLES[name]] for name in inputs]
        self.pieces.no_padding()

    def tokenised(self, texts, cut):
        """Yield the rows of each model input, of WINDOW texts at a time; `cut`: a set that gets the texts that were cut."""
        for start in range(0, len(texts), WINDOW):
            some = texts[start : start + WINDOW]
            rows = tokens.encodings(self.pieces, some, self.most)
            cut.update(text for text, row in zip(some, rows, strict=True) if row.overflowing)
            yield [[np.array(getattr(row, field), np.int64) for row in rows] for field in self.fields]

    def run(self, columns, counts) -> np.ndarray:
        """Float32 [n, labels] of the n rows of each input; the first time, what runs them quickest is tried. UserError where
        the model was exported for another task."""
        if not self.tried:
            self.engine, _ = plan.fastest(self.engine, self.model, columns, self.batch, self.threads)
            self.tried = True
        before = self.exits()
        answers = logits(self.engine, columns, self.batch, self.done)
        counts.update({name: n - before[name] for name, n in self.exits().items()})
        if answers.shape[1] != len(self.names):
            fault = f"{answers.shape[1]} outputs, the task {self.task} has {len(self.names)} ({', '.join(self.names)})"
            raise cli.UserError(f"--model {self.model}: {fault}; export it for this task")
        thin = np.flatnonzero(output_files.margins(answers) < self.margin) if self.exact else ()
        if len(thin):
            before = answers[thin].argmax(1)
            answers[thin] = logits(self.exact, [[column[i] for i in thin] for column in columns], self.batch)
            counts["rerun"] += len(thin)
            counts["changed"] += int((answers[thin].argmax(1) != before).sum())
        return answers

    def exits(self) -> dict[str, int]:
        """{left<k>: how many texts were answered after layer k} since the model was loaded; {} without a certificate."""
        return {} if not self.engine.certificate else {f"left{k}": int(n) for k, n in enumerate(self.engine.left, 1)}

    def answers(self, table: pa.Table) -> tuple[pa.Table, Counter]:
        """(a table of files.tables with its answers in place of its texts, a Counter of what is told of them). UserError for
        logits that are no numbers, unless rows that are amiss are handed on."""
        columns = [table[f"text{k}"].to_pylist() for k in range(len(self.question.text[0]))]
        texts = columns[0] if len(columns) == 1 else [None if None in t else t for t in zip(*columns, strict=True)]
        places = {text: k for k, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
        sound = [i for i, text in enumerate(texts) if text is not None]
        counts = Counter(rows=len(texts), duplicates=len(sound) - len(places), cut=0)
        values = np.full((len(texts), len(self.names)), np.nan, np.float32)
        if places:
            cut: set = set()
            unique = np.concatenate([self.run(some, counts) for some in ahead(self.tokenised(list(places), cut))])
            values[sound] = unique[[places[texts[i]] for i in sound]]
            counts["cut"] = sum(text in cut for text in texts)
        none = ~np.isfinite(values).all(1)
        lost = none & np.isin(np.arange(len(texts)), sound)
        if lost.any() and not self.null:
            where = f"{table['file'][lost.argmax()]}: row {table['row'][lost.argmax()]}"
            raise cli.UserError(f"{where}: NaN or infinite logits; try PRECISION=fp32")
        faults = compute.if_else(pa.array(lost), "NaN or infinite logits", table["error"])
        counts["amiss"] = len(faults) - faults.null_count
        result = {name: table[name] for name in table.column_names if name not in ("text0", "text1", "truth", "error")}
        result |= self.columns(values, none)
        result |= {"truth": table["truth"]} if "truth" in table.column_names else {}
        return pa.table(result | ({"error": faults} if self.null else {})), counts

    def columns(self, values, none) -> dict:
        """The columns that say what float32 [n, labels] logits mean; null where `none`, bool [n], and classes where two tie.

        probability: of the class, by softmax; of a score that its checkpoint does not call a regression, by the logistic
        function. Where a text may have several labels, each cell is a JSON list, probability of all labels.
        """
        from scipy import special

        values = np.where(none[:, None], 0, values)
        column = lambda numbers, kind, mask=none: pa.array(numbers, kind, mask=mask)
        if self.question.score:
            score = {"prediction": column(values[:, 0], pa.float32())}
            kind = cli.read_json(architecture.config_file(self.tokenizer)).get("problem_type")
            if self.task == "stsb" or kind == "regression":  # on a scale of its own, and no logit
                return score
            return score | {"probability": column(special.expit(values[:, 0]), pa.float32())}
        logits = {f"logit{k}": column(v, pa.float32()) for k, v in enumerate(values.T)} if self.logits else {}
        if self.question.several:
            several = output_files.classes_above(values, self.threshold)
            lists: dict[str, list] = {"prediction": several, "label": [[self.names[k] for k in row] for row in several]}
            lists |= {"probability": special.expit(values.astype(float)).round(6).tolist()}
            texts = {name: [json.dumps(row, ensure_ascii=False) for row in rows] for name, rows in lists.items()}
            return {name: column(np.array(rows), pa.string()) for name, rows in texts.items()} | logits
        chosen = output_files.classes_of(values)
        tied, kind = none | (chosen < 0), pa.int8() if len(self.names) < 128 else pa.int32()
        classes = {"prediction": column(chosen, kind, tied)}
        classes |= {"label": column(np.array(self.names)[chosen], pa.string(), tied)}
        return classes | {"probability": column(special.softmax(values, axis=1).max(1), pa.float32())} | logits

    def texts(self, texts) -> list[dict]:
        """The answer to each text (of a pair task, each pair of them): {prediction, label, probability}, and more as is
        asked. UserError for what is no text."""
        if isinstance(texts, str):
            raise cli.UserError("texts: one text; give a list of texts")
        selection = files.Selection(self.question, tuple(self.names), self.question.text, null=self.null)
        source, names, answers = files.Source("texts", "texts"), selection.texts[0], []
        rows = [(None, dict(zip(names, text if self.question.pair else [text], strict=True)), None) for text in texts]
        for start in range(0, len(rows), GROUP):
            table = files.table(source, selection, names, [], start, rows[start : start + GROUP])
            answers += self.answers(table)[0].drop_columns(["file", "row"]).to_pylist()
        return answers


def fields(args) -> dict:
    """The fields of a Scorer that score.py's options say; whole paths, which a node of a cluster knows too."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Scorer) if field.name in args}
    return {name: value.resolve() if isinstance(value, Path) else value for name, value in values.items()}
