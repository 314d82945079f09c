"""A classifier, loaded once, and a table of texts to a table of answers: the same for files, pipes, clusters and Python.

    from tools.scale.scorer import Scorer
    scorer = Scorer(model="build/minilm_sst2/default/seqreal/bs8/cpu-onnxruntime-fp32/model.onnx",
                    tokenizer="build/minilm_sst2/default/checkpoint")
    scorer.texts(["a charming journey", "bleak and desperate"])
    [{'prediction': 1, 'label': 'positive', 'probability': 0.99}, {'prediction': 0, 'label': 'negative', ...}]

A text that stands more than once in a table is computed once. WINDOW texts at a time are tokenised, in a thread, while the
ones before them run, longest first; tools/cpu/plan.py's `fixed` plan cuts them into requests, so the same table and model
give the same bytes.
"""

import dataclasses
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from tools.base import input_files, output_files, tasks
from tools.cpu import engines, plan
from tools.make import cli
from tools.scale import files
from tools.source import architecture, tokens

WINDOW = 4096  # texts tokenised at a time
GROUP = 1 << 16  # rows of a table, at most
LONGEST = 1 << 20  # tokens: more than any model has positions


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked, and of which model."""

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


def fields(args) -> dict:
    """The fields of a Job, but for the threads, as score.py's options say them."""
    paths = {"model": args.model.resolve(), "tokenizer": args.tokenizer_path.resolve()}
    same = {name: getattr(args, name) for name in ("task", "margin", "threshold", "logits")}
    more = {"batch": args.batch_size, "most": args.max_len, "null": args.on_bad == "null"}
    return paths | same | more | {"rerun": args.rerun and args.rerun.resolve()}


def labels_of(checkpoint, task) -> list[str]:
    """The names of the classes: the task's, else those of the checkpoint's config.json."""
    if task.labels:
        return list(task.labels)
    path = architecture.config_file(checkpoint)
    return tasks.labels(task, architecture.read_config(path)["labels"], path)


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
    outputs = plan.run(engine, (plan.feeds(columns, r) for r in rows), done)[0]
    sorted_rows = np.concatenate([out[0] for out in outputs])
    in_order = np.empty_like(sorted_rows, np.float32)
    in_order[np.concatenate(rows)] = sorted_rows
    return in_order


class Scorer:
    """A model, loaded once, for tables and lists of texts."""

    def __init__(self, model, tokenizer, done=lambda rows: None, **more):
        """more: the other fields of Job; done(rows) is called after each request. UserError where the model cannot do it."""
        self.job = job = Job(Path(model), Path(tokenizer), **more)
        if not job.model.is_file():
            raise cli.UserError(f"--model {job.model}: no such file")
        self.engine, self.tried, self.done = engines.load(job.model, job.threads), False, done
        inputs = [t.name for t in self.engine.inputs]
        if fixed := [t.name for t in self.engine.inputs if t.shape != (None, None)]:
            raise cli.UserError(f"--model {job.model}: input {fixed[0]} has a fixed shape; compile it with SEQ=real")
        self.task = tasks.known(job.task)
        if self.task.pair:
            config = architecture.read_config(architecture.config_file(job.tokenizer))
            tasks.refuse_without_types(inputs, self.task, job.model, config["type_vocab_size"])
        self.names = labels_of(job.tokenizer, self.task)
        self.exact = job.rerun and engines.load(job.rerun, job.threads)
        self.most = tokens.fit(job.tokenizer, job.most or LONGEST, cut=True)
        if self.most == LONGEST:
            raise cli.UserError(f"{job.tokenizer}: no config.json says how many positions there are; give --max_len")
        tokens.check(self.most, inputs)
        self.fields = [tokens.FIELDS[input_files.ROLES[name]] for name in inputs]
        self.tokenizer = tokens.load(job.tokenizer)
        self.tokenizer.no_padding()

    def tokenised(self, texts, counts):
        """Yield the rows of each model input, of WINDOW texts at a time; counts how many were cut."""
        for start in range(0, len(texts), WINDOW):
            rows = tokens.encodings(self.tokenizer, texts[start : start + WINDOW], self.most)
            counts["cut"] += sum(bool(row.overflowing) for row in rows)
            yield [[np.array(getattr(row, field), np.int64) for row in rows] for field in self.fields]

    def run(self, columns, counts) -> np.ndarray:
        """Float32 [n, labels] of the n rows of each input; the first time, what runs them quickest is tried.

        Raises UserError where the model was exported for another task.
        """
        job = self.job
        if not self.tried:
            self.engine, _ = plan.fastest(self.engine, job.model, columns, job.batch, job.threads)
            self.tried = True
        before = self.left()
        answers = logits(self.engine, columns, job.batch, self.done)
        counts.update({name: n - before[name] for name, n in self.left().items()})
        if answers.shape[1] != len(self.names):
            fault = f"{answers.shape[1]} outputs, the task {job.task} has {len(self.names)} ({', '.join(self.names)})"
            raise cli.UserError(f"--model {job.model}: {fault}; export it for this task")
        thin = np.flatnonzero(output_files.margins(answers) < job.margin) if self.exact else ()
        if len(thin):
            before = answers[thin].argmax(1)
            answers[thin] = logits(self.exact, [[column[i] for i in thin] for column in columns], job.batch)
            counts["rerun"] += len(thin)
            counts["changed"] += int((answers[thin].argmax(1) != before).sum())
        return answers

    def left(self) -> dict[str, int]:
        """{left<k>: how many texts were answered after layer k} since the model was loaded; {} without a certificate."""
        return {} if not self.engine.certificate else {f"left{k}": int(n) for k, n in enumerate(self.engine.left, 1)}

    def answers(self, table: pa.Table) -> tuple[pa.Table, Counter]:
        """(a table of files.tables with its answers in place of its texts, a Counter of what is told of them).

        Raises UserError for logits that are no numbers, unless the job hands on rows that are amiss.
        """
        columns = [table[f"text{k}"].to_pylist() for k in range(len(self.task.text[0]))]
        texts = columns[0] if len(columns) == 1 else [None if None in t else t for t in zip(*columns, strict=True)]
        places = {text: k for k, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
        sound = [i for i, text in enumerate(texts) if text is not None]
        counts = Counter(rows=len(texts), duplicates=len(sound) - len(places), cut=0)
        values = np.full((len(texts), len(self.names)), np.nan, np.float32)
        if places:
            unique = np.concatenate([self.run(some, counts) for some in ahead(self.tokenised(list(places), counts))])
            values[sound] = unique[[places[texts[i]] for i in sound]]
        none = ~np.isfinite(values).all(1)
        lost = none & np.isin(np.arange(len(texts)), sound)
        if lost.any() and not self.job.null:
            where = f"{table['file'][lost.argmax()]}: row {table['row'][lost.argmax()]}"
            raise cli.UserError(f"{where}: NaN or infinite logits; try PRECISION=fp32")
        faults = compute.if_else(pa.array(lost), "NaN or infinite logits", table["error"])
        counts["amiss"] = len(faults) - faults.null_count
        told = {name: table[name] for name in table.column_names if name not in ("text0", "text1", "truth", "error")}
        told |= self.told(values, none)
        told |= {"truth": table["truth"]} if "truth" in table.column_names else {}
        return pa.table(told | ({"error": faults} if self.job.null else {})), counts

    def told(self, values, none) -> dict:
        """The columns that say what float32 [n, labels] logits mean; null where `none`, bool [n], and classes where two tie.

        Where a text may have several labels, each cell is a JSON list; probability is of all labels then.
        probability: of the class, by softmax; of a score that its checkpoint does not call a regression, by the logistic
        function.
        """
        from scipy import special

        values = np.where(none[:, None], 0, values)
        column = lambda numbers, kind, mask=none: pa.array(numbers, kind, mask=mask)
        if self.task.score:
            score = {"prediction": column(values[:, 0], pa.float32())}
            chance = {} if self.regression() else {"probability": column(special.expit(values[:, 0]), pa.float32())}
            return score | chance
        logits = {f"logit{k}": column(v, pa.float32()) for k, v in enumerate(values.T)} if self.job.logits else {}
        if self.task.several:
            several = output_files.several(values, self.job.threshold)
            lists: dict[str, list] = {"prediction": several, "label": [[self.names[k] for k in row] for row in several]}
            lists |= {"probability": special.expit(values.astype(float)).round(6).tolist()}
            texts = {name: [json.dumps(row, ensure_ascii=False) for row in rows] for name, rows in lists.items()}
            return {name: column(np.array(rows), pa.string()) for name, rows in texts.items()} | logits
        chosen = output_files.chosen(values)
        tied, kind = none | (chosen < 0), pa.int8() if len(self.names) < 128 else pa.int32()
        classes = {"prediction": column(chosen, kind, tied)}
        classes |= {"label": column(np.array(self.names)[chosen], pa.string(), tied)}
        return classes | {"probability": column(special.softmax(values, axis=1).max(1), pa.float32())} | logits

    def regression(self) -> bool:
        """Whether a score is a number on a scale of its own, and no logit."""
        said = cli.read_json(architecture.config_file(self.job.tokenizer)).get("problem_type")
        return self.job.task == "stsb" or said == "regression"

    def texts(self, texts) -> list[dict]:
        """The answer to each text (of a pair task, each pair of them): {prediction, label, probability} and as Job says.

        Raises UserError for what is no text.
        """
        wanted = files.Wanted(self.task, tuple(self.names), self.task.text, null=self.job.null)
        names, answers = wanted.texts[0], []
        rows = [(None, dict(zip(names, text if self.task.pair else [text], strict=True)), None) for text in texts]
        for start in range(0, len(rows), GROUP):
            table = files.table(files.Source("texts", "texts"), wanted, names, [], start, rows[start : start + GROUP])
            answers += self.answers(table)[0].drop_columns(["file", "row"]).to_pylist()
        return answers
