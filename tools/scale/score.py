"""Score texts: a class, its name and its probability for each row of files, folders, buckets or standard input.

    python -m tools.scale.score --model model.native --tokenizer_path checkpoint --input 'reviews/*.csv' \\
        --columns text --keep id --save_path scored

docs/scale.md says what is read and written. The rows of --rows become one part, a function of its rows, the model and the
options alone: whichever machine makes it, its bytes are the same. A run that was killed goes on. --cluster: the same on the
nodes of a Ray cluster, `auto` (the one of this machine) or an address. Sentences/s is end to end, with loading the model.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import re
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from tools.base import input_files, tasks
from tools.cpu.native import certificate
from tools.make import cli, run
from tools.recipe import options
from tools.scale import cluster, files, parts, scorer

OURS = {"file", "row", "text0", "text1", "prediction", "label", "probability", "truth", "error"}
SHARES = {"cut": "longer than the model takes, and cut", "duplicates": "equal to one before it in its part",
          "amiss": "amiss; the column error says why", "rerun": "run again in fp32", "changed": "of another class in fp32"}  # fmt: skip
RESAMPLED = 100_000  # rows: of more, a metric is said without the interval, which takes as many resamples as ever


def parse():
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, help="compiled with open batch and length (SEQ=real)")
    p.add_argument("--tokenizer_path", dest="tokenizer", type=Path, help="checkpoint folder")
    p.add_argument("--input", help="a file, folder or glob of TSV, CSV, JSON lines or Parquet; - is standard input")
    p.add_argument("--columns", nargs="+", default=[], help="of the text, perhaps of the labels (the task's own)")
    p.add_argument("--keep", nargs="*", default=[], help="columns that are handed on")
    p.add_argument("--on_bad", choices=("stop", "null"), default="stop", help="what a row that is amiss does")
    p.add_argument("--logits", action="store_true", help="also the logits")
    p.add_argument("--batch_size", dest="batch", type=int, default=8, help="of a request, at most (%(default)s)")
    p.add_argument("--max_len", dest="most", type=int, default=0, help="tokens a text is cut to (the model's own)")
    p.add_argument("--rerun", type=Path, help="fp32 graph for the rows that are too close to call")
    p.add_argument("--margin", type=float, default=0.0, help="logits less apart than this are (%(default)s)")
    p.add_argument("--threshold", type=float, default=tasks.THRESHOLD, help="if several labels fit (%(default)s)")
    p.add_argument("--threads", type=int, default=0, help="cores (all if 0)")
    p.add_argument("--task", default=tasks.DEFAULT, help="what is asked (tools/base/tasks.py, %(default)s)")
    p.add_argument("--rows", type=int, default=0, help="of a part (65,536 or more, for about a hundred parts)")
    p.add_argument("--cluster", help="auto or an address of Ray; none: this machine")
    p.add_argument("--patience", type=float, default=900, help="seconds without an answer that end a cluster's run")
    p.add_argument("--check", action="store_true", help="only compare what lies there with its manifest")
    p.add_argument("--save_path", required=True, help="folder of Parquet parts, one .csv or .parquet, or -")
    args = p.parse_args()
    args.null = args.on_bad == "null"
    try:
        args.columns, args.keep = (shlex.split(" ".join(words)) for words in (args.columns, args.keep))
    except ValueError:
        p.error("--columns, --keep: a quote that is not closed; put a name that has one into quotes of the other kind")
    if not args.check and not (args.model and args.tokenizer and args.input):
        p.error("--model, --tokenizer_path and --input are needed")
    if bool(args.rerun) != (args.margin > 0):
        p.error(f"--margin {args.margin}: needs --rerun and a number above 0")
    few = len(tasks.by_name(args.task).text[0])
    if args.columns and not 0 <= len(args.columns) - few <= 1:
        p.error(f"--columns {' '.join(args.columns)}: the task {args.task} has {few} of text, and one label")
    if args.input == "-" and args.save_path != "-":
        p.error("--input -: goes to --save_path -; send that to a file")
    return args


def select(args, names, sources) -> files.Selection:
    """What is read of each row; the columns of all files are looked at. UserError for what is amiss with one."""
    task, keep = tasks.by_name(args.task), {}
    for column in dict.fromkeys(args.keep):
        name, taken = column, OURS | {name.lower() for name in keep}
        while name.lower() in taken or re.fullmatch(r"(?i)logit\d+", name):  # DuckDB and Spark tell no cases apart
            name = f"input_{name}"
        keep[name] = (column, pa.string())
    few = len(task.text[0])
    texts = (tuple(args.columns[:few]),) if args.columns else task.text
    labels = tuple(args.columns[few:]) if args.columns else task.label
    selection = files.Selection(task, tuple(names), texts, labels, len(args.columns) > few, keep, args.null)
    if args.input == "-":
        return selection if args.columns else dataclasses.replace(selection, labels=())
    with ThreadPoolExecutor(parts.THREADS) as pool:
        columns, extremes, filled = zip(*pool.map(lambda source: files.head(source, selection), sources), strict=True)
    list_names("no row in", [source.name for source, row in zip(sources, filled, strict=True) if not row])
    pairs = [*zip(sources, columns, strict=True)]
    fields = dict.fromkeys(name for source, there in pairs if source.suffixes[0] == files.JSON for name in there)
    selection = dataclasses.replace(selection, fields=tuple(fields))
    for source, there in pairs:
        selection.columns(source, there)
    labelled = (set(labels) & set(there) or selection.has_columns_of_labels(there) for there in columns)
    labels = labels if args.columns or any(labelled) else ()
    keep = {name: (column, one_type([e.get(column) for e in extremes])) for name, (column, _) in keep.items()}
    return dataclasses.replace(selection, labels=labels, keep=keep)


def list_names(title: str, names: list[str]) -> None:
    """Name the first ten of some files on stderr."""
    if names:
        print(f"{title}: {', '.join(names[:10])}{' ...' * (len(names) > 10)} ({len(names)} files)", file=sys.stderr)


def one_type(columns: list) -> pa.DataType:
    """The type of a kept column: of Parquet files, one that holds the values of all; else strings, as they are written."""
    with contextlib.suppress(pa.ArrowException, TypeError):  # None, of a file of text
        tables = [pa.table([values], ["x"]) for values in columns]
        return pa.concat_tables(tables, promote_options="permissive").field(0).type
    return pa.string()


def config(args, selection: files.Selection, rows: int) -> dict:
    """All that decides the bytes of a part, beside its rows."""
    paths = [p for p in sorted(args.tokenizer.iterdir()) if p.suffix in (".json", ".txt") and "MANIFEST" not in p.name]
    claim = args.model.suffix == ".json" and certificate.read_certificate(args.model)
    verbatim = ["task", "columns", "on_bad", "logits", "margin"] + ["threshold"] * selection.task.several
    return {
        "model": cli.sha256(args.model),
        "rerun": args.rerun and cli.sha256(args.rerun),
        "labels": list(selection.names),
        "tokenizer": {p.name: cli.sha256(p) for p in paths},
        "truth": bool(selection.labels),
        "keep": {name: [column, str(kind)] for name, (column, kind) in selection.keep.items()},
        **{name: getattr(args, name) for name in verbatim},
        "max_len": args.most,
        "batchsize": args.batch,
        "rows": rows,
        **({"certificate": {k: v for k, v in claim.items() if k != "heads"}} if claim else {}),
    }


class Progress:
    """How far it is, of `size` bytes that are to be read: on a terminal a line that moves, in a log a line a minute."""

    def __init__(self, size: int):
        self.size, self.count, self.rows, self.bytes = size, 0, 0, 0  # rows and bytes: what was read
        self.moves = sys.stderr.isatty()
        self.began = self.shown = time.monotonic()

    def __call__(self, rows: int) -> None:
        self.count += rows
        if time.monotonic() - self.shown > (0.2 if self.moves else 60):
            self.shown = time.monotonic()
            print(f"\r{self.text()}\x1b[K" if self.moves else f"{self.text()}\n", end="", file=sys.stderr, flush=True)

    def text(self) -> str:
        rate = self.count / (self.shown - self.began)
        if not self.bytes or self.size <= self.bytes:
            return f"{self.count} sentences, {rate:.1f} sentences/s"
        total = max(self.count, int(self.rows * self.size / self.bytes))
        left = datetime.timedelta(seconds=int((total - self.count) / rate) if rate else 0)
        return f"{self.count} of about {total} sentences, {rate:.1f} sentences/s, {left} left"

    def clear(self) -> None:
        if self.moves:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def load(args, progress) -> scorer.Scorer:
    """The model; it says what it is."""
    model = scorer.Scorer(**scorer.fields(args), done=progress)
    engine = model.engine
    print(f"{type(engine).__name__} {engine.precision}, texts cut to {model.most} tokens", file=sys.stderr, flush=True)
    return model


def to_pipe(args, selection, sources) -> None:
    """Write the answers to standard output as they come; then say how many."""
    progress = Progress(sum(source.size for source in sources))
    model = load(args, progress)
    pieces = parts.read_pieces(sources, selection, args.rows or scorer.GROUP, progress)
    answers = (model.answers(table) for _, table in pieces)
    kind = sources[0].suffixes[0] or files.pipe_kind()
    total = parts.stream(sys.stdout.buffer, files.JSON if kind == ".parquet" else kind, answers)
    if claim := model.engine.certificate:
        print(f"certified: {certificate.in_words(certificate.facts_of_run(claim, model.engine.left))}", file=sys.stderr)
    shares = [f", {total[key]} of them {SHARES[key]}" for key in ("cut", "amiss") if total[key]]
    print(f"{total['rows']} sentences{''.join(shares)}", file=sys.stderr)


def check(out: parts.Output) -> int:
    """Compare the parts with their manifest; the exit status."""
    out.read()
    count = len(out.parts)
    faults = out.believe()
    for name, fault in faults.items():
        print(f"{out.folder}/{name}: {fault}")
    print(f"{count - len(faults)} of {count} parts of {out.manifest} are as it describes them")
    return int(bool(faults) or not count)


def summary(out: parts.Output, task) -> None:
    """Say what the parts hold: what was cut, repeated or amiss, and the task's metrics where they have the truth."""
    total = {key: sum(entry.get(key, 0) for entry in out.parts.values()) for key in ("rows", *SHARES)}
    for key, text in SHARES.items():
        if total[key]:
            print(f"{total[key]} of {total['rows']} ({100 * total[key] / total['rows']:.2f} %) {text}")
    for claim in out.certified().values():
        print(f"certified: {certificate.in_words(claim)}")
    for row in out.bad(10):
        print(f"{row['file']}: row {row['row']} (from 0): {row['error']}")
    truth, answers = out.labelled(task.several) if out.config["truth"] else ((), ())
    for metric in task.metrics if len(truth) else ():
        value = tasks.measure(metric, truth, answers)
        if metric == "accuracy":
            print(f"accuracy {100 * value:.2f} % ({round(value * len(truth))}/{len(truth)})")
            continue
        interval = tasks.figure(metric, truth, answers)["interval95"] if len(truth) <= RESAMPLED else None
        ends = "; 95 % interval {:.4f} to {:.4f}".format(*interval) if interval else ""
        print(f"{metric} {value:.4f} ({len(truth)} rows{ends})")


def main():
    args = parse()
    if Path("Makefile").exists() and "BERT2OM_STEP" not in os.environ:  # a step has locked it
        run.lock(Path("Makefile"), fcntl.LOCK_SH)  # nothing runs beside a measurement
    if args.check:
        return check(parts.Output(args.save_path))
    sources, others = files.sources(args.input)
    list_names("left out", others)
    _, names = options.task_and_labels(args.task, args.tokenizer, tuple(input_files.ROLES))
    selection = select(args, names, sources)
    if args.save_path == "-":
        return to_pipe(args, selection, sources)
    out = parts.Output(args.save_path)
    out.refuse_overlap(args.input)
    with out.alone():
        return to_output(args, selection, sources, out)


def to_output(args, selection, sources, out) -> None:
    """Make what is missing of the parts, and say what there is. UserError where there is no row: nobody reads that."""
    rows, row = parts.sizes(sources, selection, args.logits)
    rows = args.rows or (out.config.get("rows") if out.parts else rows)
    for line in out.resume(config(args, selection, rows), sources, row):
        print(line, flush=True)
    before, fresh, start = len(out.parts), 0, time.perf_counter()
    if missing := out.missing():
        progress = Progress(sum(source.size for _, sources, _ in missing for source in sources))
        with contextlib.ExitStack() as last:
            last.callback(out.save)
            last.callback(progress.clear)
            if args.cluster:
                entries = cluster.make_parts(args, selection, rows, out, progress)
            else:
                entries = parts.make_parts(load(args, progress), out, selection, missing, rows, progress)
            for entry in last.enter_context(contextlib.closing(entries)):
                if isinstance(entry, dict):
                    out.add(entry)
                    fresh += entry["rows"]
                else:
                    out.finish(*entry)
    if not out.parts:
        raise cli.UserError(f"{args.input}: no row there; give at least one sentence")
    speed = f"{fresh / (time.perf_counter() - start):.1f} sentences/s, " if fresh else ""
    count = sum(entry["rows"] for entry in out.parts.values())
    print(f"{speed}{count} sentences in {len(out.parts)} parts, {before} of them there before")
    summary(out, tasks.by_name(args.task))
    print(f"wrote {out.path(0, 0) if out.single else out.manifest}")


if __name__ == "__main__":
    cli.run(main)
