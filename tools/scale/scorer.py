"""A model, loaded once, and a piece of a file to a table of answers: the same here and on a cluster's nodes."""

import dataclasses
from pathlib import Path

from tools.base import tasks
from tools.cpu import score
from tools.make import cli
from tools.scale import files


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked of each row, and of which model."""

    model: Path  # compiled with open batch and length
    tokenizer: Path  # checkpoint folder
    task: str  # of tools/base/tasks.py
    columns: tuple[str, ...]  # of the text (two of a pair), perhaps of the labels
    keep: tuple[str, ...]  # columns that are handed on
    batch: int  # sentences of a request, at most
    most: int  # tokens a sentence is cut to
    rows: int  # of a part
    threads: int  # 0: all cores
    rerun: Path | None  # fp32 graph for rows whose best logits are less than `margin` apart
    margin: float

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that hold the text."""
        return self.columns[: len(tasks.known(self.task).text[0])]

    @property
    def wanted(self) -> list[str]:
        """The columns that are read, those of the text first."""
        return list(dict.fromkeys([*self.columns, *self.keep]))


class Scorer:
    """A model, loaded once."""

    def __init__(self, job: Job):
        """Raises UserError where the model cannot do what is asked."""
        from tools.cpu import engines
        from tools.source import tokens

        self.job, self.engine, self.tried = job, engines.load(job.model, job.threads), False
        if fixed := [t.name for t in self.engine.inputs if t.shape != (None, None)]:
            raise cli.UserError(f"--model {job.model}: input {fixed[0]} has a fixed shape; compile it with SEQ=real")
        self.inputs, self.task = [t.name for t in self.engine.inputs], tasks.known(job.task)
        tasks.refuse_without_types(self.inputs, self.task, job.model)
        self.names = score.labels_of(job.tokenizer, self.task)
        self.exact = job.rerun and engines.load(job.rerun, job.threads)
        self.tokenizer = tokens.load(job.tokenizer)
        self.most = tokens.fit(job.tokenizer, job.most, cut=True)

    def tokenised(self, table):
        """Yield the rows of each model input, of score.WINDOW sentences (or pairs) at a time."""
        from tools.source import tokens

        columns = [table[name].to_pylist() for name in self.job.texts]
        sentences = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        for start in range(0, len(sentences), score.WINDOW):
            window = sentences[start : start + score.WINDOW]
            yield list(tokens.ragged(self.tokenizer, window, self.most, self.inputs).values())

    def logits(self, columns):
        """Float32 [n, labels] of n sentences; the first time, what runs them quickest is tried.

        Raises UserError where the model was exported for another task.
        """
        from tools.cpu import plan

        job = self.job
        if not self.tried:
            self.engine, _ = plan.fastest(self.engine, job.model, columns, job.batch, job.threads)
            self.tried = True
        found = score.logits(self.engine, columns, job.batch, lambda rows: None)
        if found.shape[1] != len(self.names):
            fault = f"{found.shape[1]} outputs, the task {job.task} has {len(self.names)} ({', '.join(self.names)})"
            raise cli.UserError(f"--model {job.model}: {fault}; export it for this task")
        if self.exact:
            score.rerun(self.exact, columns, found, job.margin, job.batch)
        return found

    def part(self, source: files.Source, number: int, table):
        """(the part as a pyarrow table, how many labels are right or None) of a table of `wanted` columns.

        Raises UserError for a label that the task does not know, and for logits that are no numbers.
        """
        import numpy as np
        import pyarrow as pa

        found, first = (
            np.concatenate([self.logits(c) for c in score.ahead(self.tokenised(table))]),
            number * self.job.rows,
        )
        if not np.isfinite(found).all():
            bad = first + int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise cli.UserError(f"{source.url}: row {bad}: NaN or infinite logits; try PRECISION=fp32")
        values, chosen = score.answers(found, self.task, self.names)
        answers = score.schema_of(self.task, self.names).remove(0)
        told = {"file": pa.array([source.name] * len(table)), "row": np.arange(first, first + len(table))}
        told |= {name: table[name] for name in self.job.keep}
        told |= {field.name: pa.array(v, field.type) for field, v in zip(answers, values, strict=True)}
        return pa.table(told), self.right(source, first, table, chosen)

    def right(self, source, first: int, table, chosen) -> int | None:
        """How many classes are those of the label column; None without one, or without classes."""
        said = self.job.columns[len(self.job.texts) :]
        if not said or self.task.score:
            return None
        where = lambda row: f"{source.url}: row {row}"
        labels = [
            tasks.label_of(str(v), self.task, self.names, where(row))
            for row, v in enumerate(table[said[0]].to_pylist(), first)
        ]
        return sum(label == value for label, value in zip(labels, chosen, strict=True))
