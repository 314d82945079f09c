"""Logs of other tools as people keep them: from docker, from a terminal with colours, in another encoding.

    logs.bare_text(logs.decoded(b"2025-08-22T10:00:00.000000000Z \\x1b[0m[INFO] acl init success\\x1b[0m"))

    [INFO] acl init success

A line is cut at 4096 characters, so that no regular expression meets a long one.
"""

import codecs
import math
import re
import statistics

from tools.make import cli

LONGEST = 4096
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# `docker logs -t`, `kubectl logs --timestamps`, and the service's name that docker compose puts before them.
STAMP = re.compile(r"^(?:[\w.-]{1,80} +\| )?(?:\d{4}-\d\d-\d\dT[\d:.,]{8,18}(?:Z|[+-]\d\d:?\d\d) )?")


def decoded(raw: bytes) -> str:
    """Bytes as text: UTF-8, or UTF-16 if a mark or zeros at the beginning show it. What cannot be decoded is replaced."""
    encoding = next(
        (name for mark, name in MARKS if raw.startswith(mark)), "utf-16-le" if b"\0" in raw[:8] else "utf-8"
    )
    return raw.decode(encoding, "replace")


def bare_text(text: str) -> str:
    """The lines of a log without colours and without a container's time stamps."""
    return "\n".join(STAMP.sub("", COLOURS.sub("", line[:LONGEST])) for line in text.splitlines())


def pairs(line: str) -> dict[str, str]:
    """`min = 5.9, percentile(99% ) = 6.2 ms` as {min: 5.9, percentile(99%): 6.2}; no blank counts in a key."""
    parts = (part.partition("=") for part in line.split(","))
    return {"".join(key.split()): value.strip().removesuffix(" ms") for key, _, value in parts}


def numbers(d, keys, where: str) -> dict:
    """d's values under `keys`, numbers or their texts, as floats. UserError for one that is missing, negative or not finite."""
    values = {}
    for key in keys:
        value = d.get(key) if isinstance(d, dict) else None
        try:
            values[key] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            values[key] = math.nan
        if not 0 <= values[key] < 1e300:
            raise cli.UserError(f"{where}.{key}: {value!r:.80} is no number; is it whole?")
    return values


def stats(times: list, percentiles=(99,)) -> dict:
    """min, max, mean, median, percentiles (linear, as numpy's) and count of milliseconds."""
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    values = {"min": min(times), "max": max(times), "mean": statistics.fmean(times), "median": statistics.median(times)}
    return values | {f"percentile({p}%)": cuts[p - 1] for p in percentiles} | {"count": len(times)}
