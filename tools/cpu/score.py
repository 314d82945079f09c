"""Score any TSV with a task's columns: a class, its name and the logits a row, as .csv or .parquet, in constant memory.

    python -m tools.cpu.score --model model.onnx --tokenizer_path checkpoint --input train.tsv --save_path train.csv

The model takes sentences of any length (SEQ=real). WINDOW sentences at a time are tokenised, in a thread, while the
ones before them run, longest first; they are cut into requests by tools/cpu/plan.py's `fixed` plan, so the same file and
model give the same bytes. Columns: row (from 0), prediction (the class from 0, empty where the best logits are equal),
label (its name), logit0, logit1 ...; of a task that has a score, row and prediction alone. Rows whose best logits are less
than --margin apart are run again by the --rerun graph, in fp32; their share is printed.
Of the rows that say a label (not -1, not nothing) the task's metrics are printed; equal logits count as wrong, as in the
recipe. Every line is checked before the first one runs. Sentences/s is end to end: reading, tokenising, running, writing; not loading the model.
"""

import argparse
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.base import tasks
from tools.make import cli

WINDOW = 4096


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, type=Path, help="compiled with open batch and length (SEQ=real)")
    p.add_argument("--tokenizer_path", required=True, type=Path, help="checkpoint folder")
    p.add_argument(
        "--input",
        required=True,
        type=Path,
        help="TSV: `sentence` (or a task's own columns), perhaps `label`, others are skipped",
    )
    p.add_argument("--batchsize", type=int, default=8, help="sentences of a request, at most (%(default)s)")
    p.add_argument("--max_len", type=int, default=128, help="tokens a sentence is cut to (%(default)s)")
    p.add_argument("--rerun", type=Path, help="fp32 graph for the rows that are too close to call")
    p.add_argument("--margin", type=float, default=0.0, help="logits less apart than this are (%(default)s)")
    p.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    p.add_argument("--task", default=tasks.DEFAULT, help="what is asked (tools/base/tasks.py, %(default)s)")
    p.add_argument("--save_path", required=True, type=Path, help=".csv or .parquet")
    args = p.parse_args()
    if args.save_path.suffix not in (".csv", ".parquet"):
        p.error(f"--save_path {args.save_path}: end it in .csv or .parquet")
    if bool(args.rerun) != (args.margin > 0):
        p.error(f"--margin {args.margin}: needs --rerun and a number above 0")
    if args.batchsize < 1:
        p.error(f"--batchsize {args.batchsize}: must be 1 or more")
    return args


def labels_of(checkpoint, task) -> list[str]:
    """The names of the classes: the task's, else those of the checkpoint's config.json."""
    from tools.source import architecture

    if task.labels:
        return list(task.labels)
    path = architecture.config_file(checkpoint)
    return tasks.labels(task, architecture.read_config(path)["labels"], path)


def tokenised(path, checkpoint, longest: int, names, task, labels):
    """Yield (rows of each model input, labels) of WINDOW sentences of the TSV `path` at a time."""
    from tools.source import data, tokens

    tokenizer = tokens.load(checkpoint)
    most = tokens.fit(checkpoint, longest, cut=True)
    rows = data.iter_tsv(path, task, labels)
    while window := list(itertools.islice(rows, WINDOW)):
        sentences, labels = zip(*window, strict=True)
        yield list(tokens.ragged(tokenizer, sentences, most, names).values()), labels


def ahead(items):
    """The items of an iterator, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def logits(engine, columns, batch: int, done):
    """Float32 [n, labels] of n sentences, in their order; done(rows) after each request."""
    import numpy as np

    from tools.cpu import plan

    rows = plan.fixed(engine, columns, batch)
    outputs = plan.run(engine, (plan.feeds(columns, r) for r in rows), done)[0]
    made = np.concatenate([out[0] for out in outputs])
    found = np.empty_like(made, np.float32)
    found[np.concatenate(rows)] = made
    return found


def rerun(exact, columns, found, margin: float, batch: int) -> tuple[int, int]:
    """Run the rows of float32 [n, labels] `found` that are too close to call again, in place: (how many, class changes)."""
    import numpy as np

    from tools.base import output_files

    thin = np.flatnonzero(output_files.margins(found) < margin)
    if not len(thin):
        return 0, 0
    before = found[thin].argmax(1)
    found[thin] = logits(exact, [[column[i] for i in thin] for column in columns], batch, lambda rows: None)
    return len(thin), int((found[thin].argmax(1) != before).sum())


def writer(file, suffix: str, schema):
    """A pyarrow writer of tables to an open file."""
    if suffix == ".parquet":
        from pyarrow import parquet

        return parquet.ParquetWriter(file, schema)
    from pyarrow import csv

    return csv.CSVWriter(file, schema, write_options=csv.WriteOptions(quoting_header="none"))


def main():
    args = parse()
    from tools.source import data

    if args.save_path.exists() and args.input.exists() and args.save_path.samefile(args.input):
        raise cli.UserError(f"{args.save_path} is {args.input}, which it would be made from; name another file")
    task = tasks.known(args.task)
    names = labels_of(args.tokenizer_path, task)
    count = sum(1 for _ in data.iter_tsv(args.input, task, names))
    if not count:
        raise cli.UserError(f"{args.input}:2: no row after the header; give at least one sentence")
    if not args.model.is_file():
        raise cli.UserError(f"--model {args.model}: no such file")
    import numpy as np
    import pyarrow as pa
    from tqdm import tqdm

    from tools.cpu import engines, plan

    engine = engines.load(args.model, args.threads)
    if fixed := [t.name for t in engine.inputs if t.shape != (None, None)]:
        raise cli.UserError(f"--model {args.model}: input {fixed[0]} has a fixed shape; compile it with SEQ=real")
    inputs = [t.name for t in engine.inputs]
    tasks.refuse_without_types(inputs, task, args.model)
    windows = ahead(tokenised(args.input, args.tokenizer_path, args.max_len, inputs, task, names))
    first = next(windows)
    engine, _ = plan.fastest(engine, args.model, first[0], args.batchsize, args.threads)
    exact = args.rerun and engines.load(args.rerun, args.threads)
    schema, row, thin, changed, known = schema_of(task, names), 0, 0, 0, []
    bar = tqdm(total=count, desc="score", unit="sentence", disable=None)
    start = time.perf_counter()
    with cli.whole_file(args.save_path) as file, writer(file, args.save_path.suffix, schema) as out, bar:
        for columns, labels in itertools.chain([first], windows):
            found = logits(engine, columns, args.batchsize, bar.update)
            if found.shape[1] != len(names):
                fault = f"{found.shape[1]} outputs, the task {args.task} has {len(names)} ({', '.join(names)})"
                raise cli.UserError(f"--model {args.model}: {fault}; export it for this task")
            if exact:
                again, other = rerun(exact, columns, found, args.margin, args.batchsize)
                thin, changed = thin + again, changed + other
            if not np.isfinite(found).all():
                bad = int(np.flatnonzero(~np.isfinite(found).all(1))[0]) + row
                raise cli.UserError(f"{args.input}: row {bad}: NaN or infinite logits; try PRECISION=fp32")
            values, chosen = answers(found, task, names)
            out.write_table(pa.table([np.arange(row, row + len(found)), *values], schema=schema))
            known += [(label, value) for label, value in zip(labels, chosen, strict=True) if label is not None]
            row += len(found)
    seconds = time.perf_counter() - start
    print(f"{row / seconds:.1f} sentences/s, {row} sentences, {type(engine).__name__} {engine.precision}")
    if exact:
        print(f"run again in fp32: {100 * thin / row:.2f} % (closer than {args.margin:g}), {changed} changed class")
    for metric in task.metrics if known else ():
        print(figure(metric, *zip(*known, strict=True)))
    print(f"wrote {args.save_path}")


def schema_of(task, names):
    """The columns of the file."""
    import pyarrow as pa

    if task.score:
        return pa.schema([("row", pa.int64()), ("prediction", pa.float32())])
    kind = pa.int8() if len(names) < 128 else pa.int32()
    logits = [(f"logit{i}", pa.float32()) for i in range(len(names))]
    return pa.schema([("row", pa.int64()), ("prediction", kind), ("label", pa.string()), *logits])


def answers(found, task, names):
    """(the columns after `row` of float32 [n, labels] logits, what is predicted: classes [n], -1 for a tie, or scores)."""
    import pyarrow as pa

    from tools.base import output_files

    if task.score:
        return [found[:, 0]], found[:, 0].tolist()
    chosen = output_files.chosen(found)
    tied = chosen < 0
    kind = pa.int8() if len(names) < 128 else pa.int32()
    said = pa.array([None if i < 0 else names[i] for i in chosen], pa.string())
    return [pa.array(chosen, kind, mask=tied), said, *found.T.copy()], chosen.tolist()


def figure(metric: str, truth, predicted) -> str:
    """`accuracy 90.71 % (791/872)`, or another metric, as a line."""
    value = tasks.measure(metric, truth, predicted)
    if metric != "accuracy":
        return f"{metric} {value:.4f} ({len(truth)} rows)"
    return f"accuracy {100 * value:.2f} % ({round(value * len(truth))}/{len(truth)})"


if __name__ == "__main__":
    cli.run(main)
