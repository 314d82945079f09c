"""The parts of tools/scale/score.py, made on the nodes of a Ray cluster.

    .venv-scale/bin/ray start --head                       (on the first node)
    .venv-scale/bin/ray start --address=<first>:6379       (on each other one; the checkout lies in the same folder)
    make score CLUSTER=auto INPUT='s3://bucket/reviews/*.parquet' OUT=s3://bucket/scored

A task on the driver's node reads the files of a unit and cuts them into pieces; actors score these, and write those of a
part. An actor has all processors of its node, or --threads of them, and then there are as many as fit; nodes that join later get theirs.
What passes between them are Ray's references: the driver sees counts alone, and writes the manifest. A piece whose actor is
lost goes to another; a unit of which more is lost is read again. A part that is written twice has the same bytes.
"""

import asyncio
import contextlib
import logging
import os
import queue
import re
import socket
import threading
import time
from collections import Counter

from tools.make import cli
from tools.scale import files, parts, scorer

START = "start one with `.venv-scale/bin/ray start --head`"
AHEAD = 2  # pieces that an actor has at a time
READERS = 16  # units that are read at a time
LOOK = 5.0  # seconds after which nodes are looked for
LOSSES = 20  # of one unit, or of one node's actors: then it is not the nodes
SILENCE = 8.0  # seconds without an answer of the head after which it is gone
GONE = "the head is gone; start it and its nodes again, then run this again: it goes on"


def answers(address: str) -> bool:
    """Whether somebody listens at host:port."""
    try:
        host, port = address.rsplit(":", 1)
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, OverflowError):
        return False
    return True


def connect(address: str) -> None:
    """Join a cluster. UserError where there is none."""
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # no cluster of its own where ours is gone
    try:
        import ray
    except ImportError:
        raise cli.UserError("CLUSTER= needs Ray: make score CLUSTER=... installs it in .venv-scale") from None
    if re.fullmatch(r"[\w.-]+:\d+", address) and not answers(address):  # Ray itself asks for minutes
        raise cli.UserError(f"CLUSTER={address}: nobody answers there; {START}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    env = {k: os.environ[k] for k in ("LC_ALL", "PYTHONHASHSEED", "ONEDNN_MAX_CPU_ISA") if k in os.environ}
    env["PYTHONPATH"] = str(cli.ROOT)
    try:
        ray.init(address, runtime_env={"env_vars": env}, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError) as e:
        why = str(e).strip().splitlines()[0][:200]
        raise cli.UserError(f"CLUSTER={address}: {why}; {START}") from None
    threading.Thread(target=watch, args=(address, ray.get_runtime_context().gcs_address), daemon=True).start()


def watch(address: str, head: str) -> None:
    """End this process with one line where the head of the cluster no longer answers: Ray would wait, or die without one."""
    last = time.monotonic()
    while time.monotonic() - last < SILENCE:
        time.sleep(1)
        if answers(head):
            last = time.monotonic()
    os.write(2, f"score.py: error: CLUSTER={address}: {GONE}\n".encode())
    os._exit(1)


def told(function, *words):
    """(None, what a function makes), or (its UserError, None): it is the driver's to say."""
    try:
        return None, function(*words)
    except cli.UserError as e:
        return e, None


def read(sources, wanted, rows: int, done: set):
    """Yield the number of a part and then a piece of it, for each piece; at the end (how many parts,) or a UserError."""
    count = 0
    try:
        tables = (table for source in sources for table in files.tables(source, wanted))
        for number, piece in parts.pieces(tables, rows):
            count = number + 1
            if number not in done:
                yield number
                yield piece
    except cli.UserError as e:
        yield e
    yield (count,)


class Actor:
    """A model on a node. Each method gives what `told` does."""

    def load(self, fields: dict):
        fault, self.scorer = told(lambda: scorer.Scorer(**fields))
        return fault

    def answers(self, piece):
        return told(self.scorer.answers, piece)

    def write(self, address: str, path: str, *pieces):
        return told(parts.write, files.system(address)[0], path, pieces)


class Cluster:
    """The actors of a cluster, and what is on its way there."""

    def __init__(self, args, wanted, rows: int, out):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.args, self.out, self.deaths = args, out, Counter()
        self.nodes, self.idle, self.entries = {}, asyncio.Queue(), queue.SimpleQueue()  # nodes: {actor: its node}
        at = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.reader = ray.remote(read).options(
            num_cpus=0, max_retries=0, scheduling_strategy=at, num_returns="streaming",
            _generator_backpressure_num_objects=2 * AHEAD,
        )  # fmt: skip
        self.read = (wanted, 1 << 62 if out.single else rows)
        job = {"task": args.task, "batch": args.batchsize, "most": args.max_len, "margin": args.margin}
        job |= {
            "threshold": args.threshold,
            "logits": args.logits,
            "null": wanted.null,
            "rerun": args.rerun and args.rerun.resolve(),
        }
        self.fields = job | {"model": args.model.resolve(), "tokenizer": args.tokenizer_path.resolve()}

    async def run(self, missing) -> None:
        """Make what is missing; what comes of it lies in `entries`, at the end None or what went wrong."""
        helpers = [asyncio.create_task(self.look())]  # they end with the loop
        try:
            room = asyncio.Semaphore(READERS)
            async with asyncio.TaskGroup() as group:
                for unit in missing:
                    group.create_task(self.unit(room, *unit))
            self.entries.put(None)
        except* Exception as e:  # Ray's errors are of many kinds
            self.entries.put(first(e))
        helpers.clear()

    async def look(self) -> None:
        """Start the actors of nodes that have none, for ever."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        loading = set()
        while True:
            alive = {n["NodeID"]: int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]}
            there = Counter(self.nodes.values())
            for node, cpus in alive.items():
                size = min(self.args.threads or cpus, cpus)
                for _ in range(cpus // size - there[node] if size else 0):
                    where = NodeAffinitySchedulingStrategy(node, soft=False)
                    actor = ray.remote(Actor).options(num_cpus=size, scheduling_strategy=where).remote()
                    self.nodes[actor] = node
                    loading.add(asyncio.create_task(self.load(actor, size)))
            await asyncio.sleep(LOOK)

    async def load(self, actor, threads: int) -> None:
        """Let an actor that has its model have AHEAD pieces at a time."""
        try:
            with self.losing(actor):
                refused(await actor.load.remote(self.fields | {"threads": threads}))
                for _ in range(AHEAD):
                    self.idle.put_nowait(actor)
        except Exception as e:
            self.entries.put(e)

    @contextlib.contextmanager
    def losing(self, actor):
        """An actor that dies in the block is forgotten. UserError where it is the node's last chance."""
        from ray.exceptions import RayActorError

        try:
            yield
        except RayActorError as e:
            if node := self.nodes.pop(actor, None):
                self.deaths[node] += 1
                if self.deaths[node] == LOSSES:
                    raise cli.UserError(
                        f"{last_line(e)}; an actor's {LOSSES}th end on one node: is there memory?"
                    ) from None

    async def unit(self, room, number: int, sources, done: set) -> None:
        """Make the parts of a unit; read it again where more than an actor is lost."""
        from ray.exceptions import RayError

        for losses in range(LOSSES + 1):
            try:
                async with room:
                    return self.entries.put((number, await self.pieces(number, sources, done)))
            except* RayError as e:
                if losses == LOSSES:
                    raise cli.UserError(f"{sources[0].url}: {last_line(first(e))}; {LOSSES} times") from None

    async def pieces(self, unit: int, sources, done: set) -> int:
        """Hand the pieces of a unit to actors and their answers to writers: how many parts it has."""
        part, scoring, count = None, [], 0
        async with asyncio.TaskGroup() as group:
            pieces = self.reader.remote(sources, *self.read, done)
            async for reference in pieces:
                number = refused(await reference)
                if scoring and number != part:
                    group.create_task(self.part(unit, part, scoring, done))
                    scoring = []
                if isinstance(number, tuple):
                    return number[0]
                part, piece = number, await anext(pieces)
                scoring.append(group.create_task(self.ask(await self.idle.get(), "answers", piece)))
        return count

    async def ask(self, actor, method: str, *words):
        """A reference to what an actor makes, this one or, where that is lost, others."""
        while True:
            with self.losing(actor):
                status, made = getattr(actor, method).options(num_returns=2).remote(*words)
                refused(await status)
                self.idle.put_nowait(actor)
                return made
            actor = await self.idle.get()

    async def part(self, unit: int, number: int, scoring, done: set) -> None:
        pieces = await asyncio.gather(*scoring)
        made = await self.ask(await self.idle.get(), "write", self.out.address, self.out.path(unit, number), *pieces)
        self.entries.put(await made)
        done.add(number)


def refused(value):
    """A value of the cluster's; raised where it is a UserError."""
    if isinstance(value, cli.UserError):
        raise value
    return value


def first(e: BaseException) -> BaseException:
    """The first exception of nested groups, a UserError before others."""
    while isinstance(e, BaseExceptionGroup):
        e = (e.subgroup(cli.UserError) or e).exceptions[0]
    return e


def last_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[-1][:200]


def made(args, wanted, rows: int, out, progress):
    """Make what is missing, on a cluster; yield the entries of its parts, and (unit, how many parts) of what is whole.

    Raises UserError where there is no cluster, where it fails, and where no part comes for --patience seconds.
    """
    connect(args.cluster)
    cluster = Cluster(args, wanted, rows, out)
    missing = out.missing()
    threading.Thread(target=lambda: asyncio.run(cluster.run(missing)), daemon=True).start()
    while True:
        try:
            entry = cluster.entries.get(timeout=args.patience)
        except queue.Empty:
            raise cli.UserError(stuck(args.patience, out)) from None
        if entry is None:
            return
        if isinstance(entry, Exception):
            raise (
                entry
                if isinstance(entry, cli.UserError)
                else cli.UserError(f"CLUSTER={args.cluster}: {last_line(entry)}")
            )
        progress(entry["rows"] if isinstance(entry, dict) else 0)
        yield entry


def stuck(patience: float, out) -> str:
    """What is known of a job that makes no progress."""
    import ray

    nodes, free = sum(n["Alive"] for n in ray.nodes()), ray.available_resources().get("CPU", 0)
    return (
        f"score to {out.address}: no part in {patience:g} s, {len(out.parts)} are done; {nodes} nodes alive, "
        f"{free:g} processors free; see `ray status`, then run it again: it goes on"
    )
