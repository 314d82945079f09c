"""Score any TSV with a `sentence` column: a class and two logits a row, as .csv or .parquet, in constant memory.

    python -m tools.cpu.score --model model.onnx --tokenizer_path checkpoint --input train.tsv --save_path train.csv

The model takes sentences of any length (SEQ=real). WINDOW sentences at a time are tokenised, in a thread, while the
ones before them run, longest first; they are cut into requests by tools/cpu/plan.py's `fixed` plan, so the same file and
model give the same bytes. Columns: row (from 0), prediction (0 or 1, empty where the logits are equal), logit0, logit1.
Rows whose logits are less than --margin apart are run again by the --rerun graph, in fp32; their share is printed.
With a `label` column the accuracy is printed; equal logits count as wrong, as in the recipe. Every line is checked
before the first one runs. Sentences/s is end to end: reading, tokenising, running, writing; not loading the model.
"""

import argparse
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import cli

WINDOW = 4096


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, type=Path, help="compiled with open batch and length (SEQ=real)")
    p.add_argument("--tokenizer_path", required=True, type=Path, help="checkpoint folder")
    p.add_argument(
        "--input", required=True, type=Path, help="TSV: `sentence`, perhaps `label`, other columns are skipped"
    )
    p.add_argument("--batchsize", type=int, default=8, help="sentences of a request, at most (%(default)s)")
    p.add_argument("--max_len", type=int, default=128, help="tokens a sentence is cut to (%(default)s)")
    p.add_argument("--rerun", type=Path, help="fp32 graph for the rows that are too close to call")
    p.add_argument("--margin", type=float, default=0.0, help="logits less apart than this are (%(default)s)")
    p.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    p.add_argument("--save_path", required=True, type=Path, help=".csv or .parquet")
    args = p.parse_args()
    if args.save_path.suffix not in (".csv", ".parquet"):
        p.error(f"--save_path {args.save_path}: end it in .csv or .parquet")
    if bool(args.rerun) != (args.margin > 0):
        p.error(f"--margin {args.margin}: needs --rerun and a number above 0")
    if args.batchsize < 1:
        p.error(f"--batchsize {args.batchsize}: must be 1 or more")
    return args


def tokenised(args, names):
    """Yield (rows of each model input, labels) of WINDOW sentences of --input at a time."""
    from tools.source import data, tokens

    tokenizer = tokens.load(args.tokenizer_path)
    rows = data.iter_tsv(args.input)
    while window := list(itertools.islice(rows, WINDOW)):
        sentences, labels = zip(*window, strict=True)
        yield list(tokens.ragged(tokenizer, sentences, args.max_len, names).values()), labels


def ahead(items):
    """The items of an iterator, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def logits(engine, columns, batch: int, done):
    """Float32 [n, 2] of n sentences, in their order; done(rows) after each request."""
    import numpy as np

    from tools.cpu import plan

    rows = plan.fixed(engine, columns, batch)
    outputs = plan.run(engine, (plan.feeds(columns, r) for r in rows), done)[0]
    found = np.empty((len(columns[0]), 2), np.float32)
    found[np.concatenate(rows)] = np.concatenate([out[0] for out in outputs])
    return found


def rerun(exact, columns, found, args) -> tuple[int, int]:
    """Run the rows of float32 [n, 2] `found` that are too close to call again, in place: (how many, class changes)."""
    import numpy as np

    thin = np.flatnonzero(abs(found[:, 0] - found[:, 1]) < args.margin)
    if not len(thin):
        return 0, 0
    before = found[thin].argmax(1)
    found[thin] = logits(exact, [[column[i] for i in thin] for column in columns], args.batchsize, lambda rows: None)
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

    count = sum(1 for _ in data.iter_tsv(args.input))
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
    windows = ahead(tokenised(args, [t.name for t in engine.inputs]))
    first = next(windows)
    engine, _ = plan.fastest(engine, args.model, first[0], args.batchsize, args.threads)
    schema = pa.schema(
        [("row", pa.int64()), ("prediction", pa.int8()), ("logit0", pa.float32()), ("logit1", pa.float32())]
    )
    exact = args.rerun and engines.load(args.rerun, args.threads)
    row = correct = labelled = thin = changed = 0
    bar = tqdm(total=count, desc="score", unit="sentence", disable=None)
    start = time.perf_counter()
    with cli.whole_file(args.save_path) as file, writer(file, args.save_path.suffix, schema) as out, bar:
        for columns, labels in itertools.chain([first], windows):
            found = logits(engine, columns, args.batchsize, bar.update)
            if exact:
                again, other = rerun(exact, columns, found, args)
                thin, changed = thin + again, changed + other
            if not np.isfinite(found).all():
                bad = int(np.flatnonzero(~np.isfinite(found).all(1))[0]) + row
                raise cli.UserError(f"{args.input}: row {bad}: NaN or infinite logits; try PRECISION=fp32")
            tied = found[:, 0] == found[:, 1]
            chosen = found.argmax(1).astype(np.int8)
            values = [np.arange(row, row + len(found)), pa.array(chosen, mask=tied), found[:, 0], found[:, 1]]
            out.write_table(pa.table(values, schema=schema))
            correct += int(((chosen == np.array(labels)) & ~tied).sum())
            labelled += sum(label is not None for label in labels)
            row += len(found)
    seconds = time.perf_counter() - start
    print(f"{row / seconds:.1f} sentences/s, {row} sentences, {type(engine).__name__} {engine.precision}")
    if exact:
        print(f"run again in fp32: {100 * thin / row:.2f} % (closer than {args.margin:g}), {changed} changed class")
    if labelled:
        print(f"accuracy {100 * correct / row:.2f} % ({correct}/{row})")
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
