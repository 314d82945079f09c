"""The parts of tools/scale/score.py, made on the nodes of a Ray cluster by Ray Data.

    .venv-scale/bin/ray start --head                       (on the first node)
    .venv-scale/bin/ray start --address=<first>:6379       (on each other one; the checkout lies in the same folder)
    make score CLUSTER=auto INPUT='s3://bucket/reviews/*.parquet' OUT=s3://bucket/scored

Three stages: a task reads a file and cuts it into pieces, an actor scores them, a task writes each as a part. There is
an actor a node, which loads the model once and takes the node's processors but for half a one; reads and writes ask a
tenth of one, so that they always find room. The driver alone writes the manifest. A piece whose node is lost is made
again by Ray or by the next run; a part that is written twice has the same bytes and one line in the manifest.
"""

import dataclasses
import logging
import os
import queue
import re
import socket
import threading

from tools.make import cli
from tools.scale import files, parts, scorer

SMALL = 0.1  # processors that reading or writing asks
SPARE = 0.5  # processors of each node that its actor leaves
START = "start one with `.venv-scale/bin/ray start --head`"


def connect(address: str) -> list[dict]:
    """Join a cluster: its nodes. UserError where there is none."""
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # no cluster of its own where ours is gone
    try:
        import ray
    except ImportError:
        raise cli.UserError("CLUSTER= needs Ray: make score CLUSTER=... installs it in .venv-scale") from None
    if found := re.fullmatch(r"([\w.-]+):(\d+)", address):  # Ray itself asks for minutes
        try:
            socket.create_connection((found[1], int(found[2])), timeout=5).close()
        except (OSError, OverflowError) as e:
            raise cli.UserError(f"CLUSTER={address}: {e}; {START}") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    env = {k: os.environ[k] for k in ("LC_ALL", "PYTHONHASHSEED", "ONEDNN_MAX_CPU_ISA") if k in os.environ}
    env["PYTHONPATH"] = str(cli.ROOT)
    try:
        ray.init(address, runtime_env={"env_vars": env}, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as e:
        why = str(e).strip().splitlines()[0][:200]
        raise cli.UserError(f"CLUSTER={address}: {why}; {START}") from None
    return alive()


def alive() -> list[dict]:
    import ray

    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def failing(function):
    """`function` of a row, whose UserError becomes a row as well: it is the driver's to say."""

    def safe(row):
        if "error" in row:
            return row
        try:
            return function(row)
        except cli.UserError as e:
            return {"error": str(e)}

    return safe


class Reader:
    """A row {source} becomes a row for each piece of that file: {source, number, table (Arrow IPC bytes)}."""

    def __init__(self, sources, columns, rows, done, texts):
        self.sources, self.columns, self.rows, self.done, self.texts = sources, columns, rows, done, texts

    def __call__(self, row):
        i = int(row["source"])
        try:
            for number, table in files.blocks(self.sources[i], self.columns, self.rows, self.done[i], self.texts):
                yield {"source": i, "number": number, "table": packed(table)}
        except cli.UserError as e:
            yield {"error": str(e)}


class Scorer:
    """A piece becomes a part in memory; the model is loaded once."""

    def __init__(self, job, sources):
        self.sources = sources
        self.scorer = scorer.Scorer(job)

    def __call__(self, row):
        return failing(self.scored)(row)

    def scored(self, row):
        source, number = int(row["source"]), int(row["number"])
        made, right = self.scorer.part(self.sources[source], number, unpacked(row["table"]))
        return {"source": source, "number": number, "table": packed(made), "right": -1 if right is None else right}


def packed(table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def unpacked(data: bytes):
    import pyarrow as pa

    return pa.ipc.open_stream(data).read_all()


def writer(folder: str):
    """A function that writes a scored piece as a part: a row is its entry in the manifest."""

    def write(row):
        entry = parts.write(folder, parts.name(int(row["source"]), int(row["number"])), unpacked(row["table"]))
        return entry | {"right": int(row["right"])}

    return failing(write)


def dataset(job, sources, out, nodes):
    """The stages, not started."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context.target_max_block_size = 1  # a piece a block: what is lost with a node is a piece
    cpus = min(n["Resources"]["CPU"] for n in nodes)
    job = dataclasses.replace(
        job, threads=job.threads or max(1, int(cpus)), model=job.model.resolve(), tokenizer=job.tokenizer.resolve(),
        rerun=job.rerun and job.rerun.resolve(),
    )  # fmt: skip
    folder = out.address if "://" in out.address else os.path.realpath(out.address)
    done = [out.done(i) for i in range(len(sources))]
    rows = ray.data.from_items([{"source": i} for i in range(len(sources))], override_num_blocks=len(sources))
    read = Reader(sources, job.wanted, job.rows, done, len(job.texts))
    pieces = rows.flat_map(read.__call__, num_cpus=SMALL)
    scored = pieces.map(
        Scorer,
        fn_constructor_args=(job, sources),
        compute=ActorPoolStrategy(min_size=1, max_size=len(nodes), max_tasks_in_flight_per_actor=2),
        num_cpus=max(cpus - SPARE, SPARE),
    )
    return scored.map(writer(folder), num_cpus=SMALL)


def made(address: str, patience: float, job: scorer.Job, sources, out):
    """Make the parts that are not there; yield their entries as they come.

    Raises UserError where there is no cluster, where it fails, and where no part comes for `patience` seconds.
    """
    nodes = connect(address)
    print(f"Ray: {len(nodes)} nodes, {len(sources)} files", flush=True)
    coming = queue.SimpleQueue()

    def drive():
        try:
            for row in dataset(job, sources, out, nodes).iter_rows():
                coming.put(row)
            coming.put(None)
        except Exception as e:  # Ray's errors are of many kinds
            coming.put(e)

    threading.Thread(target=drive, daemon=True).start()
    while True:
        try:
            row = coming.get(timeout=patience)
        except queue.Empty:
            raise cli.UserError(stuck(patience, out)) from None
        if row is None:
            return
        if isinstance(row, Exception):
            why = str(row).strip().splitlines()[-1][:300]
            raise cli.UserError(f"CLUSTER={address}: {why}; run it again") from None
        if row.get("error"):
            raise cli.UserError(row["error"])
        right = row.pop("right")
        yield {k: row[k] for k in ("part", "input", "first", "rows", "bytes", "sha256")} | {
            "right": None if right < 0 else right
        }


def stuck(patience: float, out) -> str:
    """What is known of a job that makes no progress."""
    import ray

    nodes = alive()
    free = ray.available_resources().get("CPU", 0)
    return (
        f"score to {out.address}: no part in {patience:g} s, {len(out.parts)} are done; "
        f"{len(nodes)} nodes alive, {free:g} processors free; see `ray status`, then run it again: it goes on"
    )
