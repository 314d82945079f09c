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

from tools.base import tasks
from tools.make import cli

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


def labels_of(checkpoint, task) -> list[str]:
    """The names of the classes: the task's, else those of the checkpoint's config.json."""
    from tools.source import architecture

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


def logits(engine, columns, batch: int, done=lambda rows: None):
    """Float32 [n, labels] of n sentences, in their order; done(rows) after each request."""
    import numpy as np

    from tools.cpu import plan

    rows = plan.fixed(engine, columns, batch)
    outputs = plan.run(engine, (plan.feeds(columns, r) for r in rows), done)[0]
    made = np.concatenate([out[0] for out in outputs])
    found = np.empty_like(made, np.float32)
    found[np.concatenate(rows)] = made
    return found


class Scorer:
    """A model, loaded once, for tables and lists of texts."""

    def __init__(self, model, tokenizer, done=lambda rows: None, **fields):
        """fields: the others of Job; done(rows) is called after each request. UserError where the model cannot do it."""
        from tools.base import input_files
        from tools.cpu import engines
        from tools.source import architecture, tokens

        self.job = job = Job(Path(model), Path(tokenizer), **fields)
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
        import numpy as np

        from tools.source import tokens

        for start in range(0, len(texts), WINDOW):
            rows = tokens.encodings(self.tokenizer, texts[start : start + WINDOW], self.most)
            counts["cut"] += sum(bool(row.overflowing) for row in rows)
            yield [[np.array(getattr(row, field), np.int64) for row in rows] for field in self.fields]

    def run(self, columns, counts):
        """Float32 [n, labels] of the n rows of each input; the first time, what runs them quickest is tried.

        Raises UserError where the model was exported for another task.
        """
        import numpy as np

        from tools.base import output_files
        from tools.cpu import plan

        job = self.job
        if not self.tried:
            self.engine, _ = plan.fastest(self.engine, job.model, columns, job.batch, job.threads)
            self.tried = True
        found = logits(self.engine, columns, job.batch, self.done)
        if found.shape[1] != len(self.names):
            fault = f"{found.shape[1]} outputs, the task {job.task} has {len(self.names)} ({', '.join(self.names)})"
            raise cli.UserError(f"--model {job.model}: {fault}; export it for this task")
        thin = np.flatnonzero(output_files.margins(found) < job.margin) if self.exact else ()
        if len(thin):
            before = found[thin].argmax(1)
            found[thin] = logits(self.exact, [[column[i] for i in thin] for column in columns], job.batch)
            counts["rerun"] += len(thin)
            counts["changed"] += int((found[thin].argmax(1) != before).sum())
        return found

    def answers(self, table):
        """(a table of files.tables with its answers in place of its texts, a Counter of what is told of them).

        Raises UserError for logits that are no numbers, unless the job hands on rows that are amiss.
        """
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute

        columns = [table[f"text{k}"].to_pylist() for k in range(len(self.task.text[0]))]
        texts = columns[0] if len(columns) == 1 else [None if None in t else t for t in zip(*columns, strict=True)]
        places = {text: k for k, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
        sound = [i for i, text in enumerate(texts) if text is not None]
        counts = Counter(rows=len(texts), duplicates=len(sound) - len(places), cut=0)
        found = np.full((len(texts), len(self.names)), np.nan, np.float32)
        if places:
            windows = ahead(self.tokenised(list(places), counts))
            unique = np.concatenate([self.run(window, counts) for window in windows])
            found[sound] = unique[[places[texts[i]] for i in sound]]
        lost = np.zeros(len(texts), bool)
        lost[sound] = ~np.isfinite(found[sound]).all(1)
        faults = table["error"]
        if lost.any():
            first = int(lost.argmax())
            where = f"{table['file'][first]}: row {table['row'][first]}"
            if not self.job.null:
                raise cli.UserError(f"{where}: NaN or infinite logits; try PRECISION=fp32")
            faults = compute.if_else(pa.array(lost), "NaN or infinite logits", faults)
        counts["amiss"] = len(faults) - faults.null_count
        told = {name: table[name] for name in table.column_names if name not in ("text0", "text1", "truth", "error")}
        told |= self.told(found, np.isnan(found).any(1) | lost)
        told |= {"truth": table["truth"]} if "truth" in table.column_names else {}
        return pa.table(told | ({"error": faults} if self.job.null else {})), counts

    def told(self, found, none) -> dict:
        """The columns that say what float32 [n, labels] logits mean; null where `none`, bool [n], and classes where two tie.

        Where a text may have several labels, each cell is a JSON list; probability is of all labels then.
        probability: of the class, by softmax; of a score that its checkpoint does not call a regression, by the logistic
        function.
        """
        import numpy as np
        import pyarrow as pa
        from scipy import special

        from tools.base import output_files

        found = np.where(none[:, None], 0, found)
        column = lambda values, kind, mask=none: pa.array(values, kind, mask=mask)
        if self.task.score:
            made = {"prediction": column(found[:, 0], pa.float32())}
            return made | (
                {} if self.regression() else {"probability": column(special.expit(found[:, 0]), pa.float32())}
            )
        logits = {f"logit{k}": column(v, pa.float32()) for k, v in enumerate(found.T)} if self.job.logits else {}
        if self.task.several:
            several = output_files.several(found, self.job.threshold)
            lists: dict[str, list] = {"prediction": several, "label": [[self.names[k] for k in row] for row in several]}
            lists |= {"probability": special.expit(found.astype(float)).round(6).tolist()}
            texts = {name: [json.dumps(row, ensure_ascii=False) for row in rows] for name, rows in lists.items()}
            return {name: column(np.array(rows), pa.string()) for name, rows in texts.items()} | logits
        chosen = output_files.chosen(found)
        tied, kind = none | (chosen < 0), pa.int8() if len(self.names) < 128 else pa.int32()
        made = {
            "prediction": column(chosen, kind, tied),
            "label": column(np.array(self.names)[chosen], pa.string(), tied),
        }
        made |= {"probability": column(special.softmax(found, axis=1).max(1), pa.float32())}
        return made | logits

    def regression(self) -> bool:
        """Whether a score is a number on a scale of its own, and no logit."""
        from tools.source import architecture

        said = cli.read_json(architecture.config_file(self.job.tokenizer)).get("problem_type")
        return self.job.task == "stsb" or said == "regression"

    def texts(self, texts) -> list[dict]:
        """The answer to each text (of a pair task, each pair of them): {prediction, label, probability} and as Job says.

        Raises UserError for what is no text.
        """
        from tools.scale import files

        wanted = files.Wanted(self.task, tuple(self.names), self.task.text, null=self.job.null)
        names, made = wanted.texts[0], []
        rows = [(None, dict(zip(names, text if self.task.pair else [text], strict=True)), None) for text in texts]
        for start in range(0, len(rows), GROUP):
            table = files.table(files.Source("texts", "texts"), wanted, names, [], start, rows[start : start + GROUP])
            made += self.answers(table)[0].drop_columns(["file", "row"]).to_pylist()
        return made
