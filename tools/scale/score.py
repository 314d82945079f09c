"""Score files of any number: a class and two logits a row, as Parquet parts and a manifest.

    python -m tools.scale.score --model model.native --tokenizer_path checkpoint --input 'reviews/*.csv' \\
        --columns text --keep id --save_path scored
    make score INPUT='reviews/*.csv' OUT=scored COLUMNS=text KEEP=id

Inputs and outputs are addresses: a folder here, s3://bucket/folder (tools/scale/files.py). The rows of each file are
cut after every --rows; each piece becomes one part, a function of its rows, the model and the options alone: whichever
machine makes it, its bytes are the same. Columns: file, row (from 0, within the file), those of --keep, prediction (the
class from 0, null where the best logits are equal), label (its name), logit0, logit1 ... A run that was killed goes on:
the parts that its manifest names are not made again. Behind the column of the sentences, --columns may name that of
their labels: then the accuracy is printed, equal logits counting as wrong.

--cluster: the same on the nodes of a Ray cluster, `auto` (the one of this machine) or an address
(tools/scale/cluster.py). Sentences/s is end to end, loading the model included.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import time
from pathlib import Path

from tools.base import tasks
from tools.cpu import score as one_file
from tools.make import cli, run
from tools.scale import cluster, files, parts, scorer

ROWS = 1 << 16


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, type=Path, help="compiled with open batch and length (SEQ=real)")
    p.add_argument("--tokenizer_path", required=True, type=Path, help="checkpoint folder")
    p.add_argument("--input", required=True, help="a file, folder or glob: TSV, CSV, JSON lines or Parquet")
    p.add_argument("--columns", nargs="+", default=[], help="of the text, perhaps of the labels (the task's own)")
    p.add_argument("--keep", nargs="*", default=[], help="columns that are handed on")
    p.add_argument("--batchsize", type=int, default=8, help="sentences of a request, at most (%(default)s)")
    p.add_argument("--max_len", type=int, default=128, help="tokens a sentence is cut to (%(default)s)")
    p.add_argument("--rerun", type=Path, help="fp32 graph for the rows that are too close to call")
    p.add_argument("--margin", type=float, default=0.0, help="logits less apart than this are (%(default)s)")
    p.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    p.add_argument("--task", default=tasks.DEFAULT, help="what is asked (tools/base/tasks.py, %(default)s)")
    p.add_argument("--rows", type=int, default=ROWS, help="of a part (%(default)s)")
    p.add_argument("--cluster", help="auto or an address of Ray; none: this machine")
    p.add_argument(
        "--patience", type=float, default=900, help="seconds without a part after which a cluster has failed"
    )
    p.add_argument("--save_path", required=True, help="folder of the parts")
    args = p.parse_args()
    if bool(args.rerun) != (args.margin > 0):
        p.error(f"--margin {args.margin}: needs --rerun and a number above 0")
    for name in ("batchsize", "rows"):
        if getattr(args, name) < 1:
            p.error(f"--{name} {getattr(args, name)}: must be 1 or more")
    job = scorer.Job(
        args.model, args.tokenizer_path, args.task,
        tuple(args.columns or tasks.known(args.task).text[-1]), tuple(args.keep), args.batchsize, args.max_len, args.rows,
        args.threads, args.rerun, args.margin,
    )  # fmt: skip
    few = len(tasks.known(job.task).text[0])
    if not 0 <= len(job.columns) - few <= 1:
        p.error(f"--columns {' '.join(job.columns)}: the task {job.task} has {few} of text, and one label")
    ours = ("file", "row", "prediction", "label", *(f"logit{i}" for i in range(1000)))
    if twice := [c for c in job.keep if c in (*job.texts, *ours)]:
        p.error(f"--keep {twice[0]}: a column of the text or of the result")
    return args, job


def config(job: scorer.Job) -> dict:
    """All that decides the bytes of a part, beside its rows."""
    said = [p for p in sorted(job.tokenizer.iterdir()) if p.suffix in (".json", ".txt") and "MANIFEST" not in p.name]
    return {
        "model": cli.sha256(job.model),
        "rerun": job.rerun and cli.sha256(job.rerun),
        "labels": one_file.labels_of(job.tokenizer, tasks.known(job.task)),
        "tokenizer": {p.name: cli.sha256(p) for p in said},
        "task": job.task,
        "columns": list(job.columns),
        "keep": list(job.keep),
        "batchsize": job.batch,
        "max_len": job.most,
        "margin": job.margin,
        "rows": job.rows,
    }


def here(job: scorer.Job, sources, out):
    """Make the parts that are not there, on this machine; yield their entries."""
    model = scorer.Scorer(job)
    print(f"{type(model.engine).__name__} {model.engine.precision}, {len(sources)} files", flush=True)
    pieces = (
        (i, source, *piece)
        for i, source in enumerate(sources)
        for piece in files.blocks(source, job.wanted, job.rows, out.done(i), len(job.texts))
    )
    for i, source, number, table in one_file.ahead(pieces):
        made, right = model.part(source, number, table)
        yield parts.write(out.address, parts.name(i, number), made) | {"right": right}


def main():
    args, job = parse()
    from tqdm import tqdm

    if Path("Makefile").exists():
        run.lock(Path("Makefile"), fcntl.LOCK_SH)  # nothing runs beside a measurement
    sources = files.sources(args.input)
    spellings = tasks.known(job.task).text
    if not args.columns and len(spellings) > 1:
        job = dataclasses.replace(job, columns=files.spelled(sources[0], spellings))
    parts.apart(args.save_path, args.input, sources)
    out = parts.Folder(args.save_path, config(job), sources)
    kept, fresh, seconds = len(out.parts), 0, 0.0
    if not out.complete:
        start = time.perf_counter()
        making = (
            cluster.made(args.cluster, args.patience, job, sources, out) if args.cluster else here(job, sources, out)
        )
        with contextlib.closing(making), tqdm(desc="score", unit="sentence", disable=None) as bar:
            for entry in making:
                out.add(entry)
                bar.update(entry["rows"])
                fresh += entry["rows"]
            out.save(complete=True)
        seconds = time.perf_counter() - start
    entries = out.parts.values()
    rows = sum(e["rows"] for e in entries)
    speed = f"{fresh / seconds:.1f} sentences/s, " if fresh else ""
    print(f"{speed}{rows} sentences in {len(entries)} parts, {kept} of them there before")
    if rows and all(e["right"] is not None for e in entries):
        right = sum(e["right"] for e in entries)
        print(f"accuracy {100 * right / rows:.2f} % ({right}/{rows})")
    print(f"wrote {out.address}/{parts.MANIFEST}")


if __name__ == "__main__":
    cli.run(main, abrupt=True)  # Arrow reads ahead; its threads abort a process that ends while they do
