"""The parts of tools/scale/score.py, made on the nodes of a Ray cluster (docs/scale.md).

A task of Ray's reads the files of a unit, and scores and writes every n-th of its parts. The driver sees their entries alone
and writes the manifest. A part that is written twice has the same bytes.
"""

import functools
import itertools
import logging
import os
import re
import socket
import sys
import threading
import time
from collections import ChainMap, defaultdict

from tools.make import cli
from tools.scale import parts, scorer

START = "start one with `.venv-scale/bin/ray start --head`"
THREADS = 8  # processors of a task, at most, where nobody says how many
SHARES = 16  # tasks that share a unit, at most
LOSSES = 20  # of one task: then it is not the nodes
BEAT = 30.0  # seconds after which a task says how far it is
SILENCE = 8.0  # seconds without an answer of the head after which it is gone
load_model = functools.lru_cache(1)(scorer.Scorer)  # once a process
GONE = "the head is gone; start it and its nodes again, then run this again: it goes on"


def listens(address: str) -> bool:
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
    if re.fullmatch(r"[\w.-]+:\d+", address) and not listens(address):  # Ray itself asks for minutes
        raise cli.UserError(f"CLUSTER={address}: nobody answers there; {START}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    env = {k: os.environ[k] for k in ("LC_ALL", "PYTHONHASHSEED", "ONEDNN_MAX_CPU_ISA") if k in os.environ}
    env["PYTHONPATH"] = str(cli.ROOT)
    try:
        ray.init(address, runtime_env={"env_vars": env}, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError) as e:
        why = str(e).strip().splitlines()[0][:200]
        raise cli.UserError(f"CLUSTER={address}: {why}; {START}") from None
    sys.stderr = os.fdopen(os.dup(2), "w", 1)  # what ends a job is said by us, and not by Ray's library too
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=watch, args=(address, ray.get_runtime_context().gcs_address), daemon=True).start()


def watch(address: str, head: str) -> None:
    """End this process with one line where the head of the cluster no longer answers: Ray would wait, or die without one."""
    last = time.monotonic()
    while time.monotonic() - last < SILENCE:
        time.sleep(1)
        if listens(head):
            last = time.monotonic()
    print(f"score.py: error: CLUSTER={address}: {GONE}", file=sys.stderr, flush=True)
    os._exit(1)


def count_rows(beats):
    """done(rows), which puts into a queue every BEAT seconds how many there were: a part may take an hour, and what a task
    yields must be the same when Ray begins it again."""
    rows, last = 0, time.monotonic()

    def done(more: int) -> None:
        nonlocal rows, last
        rows += more
        if time.monotonic() - last > BEAT:
            beats.put_nowait(rows)
            rows, last = 0, time.monotonic()

    return done


def task(fields: dict, beats, address: str, selection, rows: int, unit, share):
    """Yield what parts.make_parts does."""
    model = load_model(**fields)
    model.done = count_rows(beats)
    yield from parts.make_parts(model, parts.Output(address), selection, [unit], rows, share=share)


def size_of(cpus: list[int], request: int) -> int:
    """Processors of a task: as requested, or the most with which nine tenths of all nodes' `cpus` work."""
    used = lambda size: sum(n // size * size for n in cpus)
    return request or max(size for size in range(1, THREADS + 1) if used(size) >= 0.9 * used(1))


def make_parts(args, selection, rows: int, out, progress):
    """As parts.make_parts, on a cluster. UserError where there is none, where it fails, and where nothing comes for --patience
    seconds."""
    connect(args.cluster)
    import ray
    from ray.util.queue import Queue

    size = size_of([int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]], args.threads)
    remote = ray.remote(task).options(num_cpus=size, max_retries=LOSSES, num_returns="streaming")
    fields = scorer.fields(args) | {"threads": size}
    units = out.missing()
    most = 1 if out.single else SHARES  # of a unit: as many as it may have parts
    portions = lambda sources: sum(source.size for source in sources) // max(1, out.portion)
    shares = {unit: max(1, min(most, portions(sources))) for unit, sources, _ in units}
    jobs = ((unit, (k, shares[unit[0]])) for unit in units for k in range(shares[unit[0]]))

    def begin() -> list:
        """Tasks until there are twice as many as run at a time, so that nodes that join find some; at least one."""
        room = 2 * int(ray.cluster_resources().get("CPU", 0)) // size - len(running)
        some = itertools.islice(jobs, max(room, 1))
        return [remote.remote(fields, beats, out.address, selection, rows, *job) for job in some]

    beats = Queue(actor_options={"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1})
    ends: dict[int, list] = defaultdict(list)
    running: list = []
    running += begin()
    written = scored = 0  # rows
    moved = time.monotonic()
    while running:
        ready, running = ray.wait(running, timeout=min(BEAT, args.patience))
        more = 0 if ready else sum(beats.get_nowait_batch(beats.qsize()))
        moved = time.monotonic() if ready or more else moved
        scored += more
        progress(max(written, scored, progress.count) - progress.count)
        if not ready:
            if time.monotonic() - moved < args.patience:
                continue
            fault = f"no row answered in {args.patience:g} s, {len(out.parts)} parts are done; see `ray status`"
            raise cli.UserError(f"CLUSTER={args.cluster}: {fault}, then run it again: it goes on")
        try:
            entry = ray.get(next(ready[0]))
        except StopIteration:
            running += begin()
            continue
        except ray.exceptions.RayError as e:
            if isinstance(cause := getattr(e, "cause", None), cli.UserError):
                raise cause from None
            why = (str(e).strip().splitlines() or [type(e).__name__])[-1][:200]
            raise cli.UserError(f"CLUSTER={args.cluster}: {why}") from None
        running += ready
        if isinstance(entry, dict):
            written += entry["rows"]
            yield entry
        else:
            unit, count, hashes = entry
            ends[unit].append(hashes)
            if len(ends[unit]) == shares[unit]:
                yield unit, count, dict(ChainMap(*ends.pop(unit)))
