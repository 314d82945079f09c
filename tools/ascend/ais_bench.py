"""Run Ascend's ais_bench with care, in the Python that has it; what it leaves, tools/ascend/summary.py reads.

    python3 -m tools.ascend.ais_bench run --model model.om --input in/input_ids,in/attention_mask \\
        --output out --output_dirname output --outfmt BIN --device 0,1

    + .../bin/python -m ais_bench --model model.om --input in/input_ids,in/attention_mask ... --divide_input 1
    [INFO] multidevice:[0, 1] run begin
    ...
    [INFO] summary throughput:166554.36

(The end, of a model of six nodes under the test suite's stand-in; no real card has run this yet.)

`run` starts `PYTHON -m ais_bench` with these words, which may as well be typed directly. PYTHON need not be the one
that runs this: the published aclruntime wheels end at 3.10. Without --python it is the first found that has both
ais_bench and aclruntime: this one, those on PATH, those in the usual places. `run` adds what a first try on a card
trips over: a clear line when ais_bench or aclruntime is missing; inputs given in another order than the .om's own,
which ais_bench feeds by position without a word; --divide_input 1 for several devices, which the 2023 ais_bench does
by itself and the 2024 one does not; one folder of outputs and one summary where ais_bench leaves one per device; and
ais_bench's own error with what to do.
"""

import argparse
import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tools.ascend import om, summary
from tools.make import cli

INSTALL = (
    "install the aclruntime and ais_bench wheels (gitee.com/ascend/tools, ais-bench_workload/tool/ais_bench; the published"
    " ones end at Python 3.10), say AIS_PYTHON= if that Python is not on PATH, and `source` CANN's set_env.sh"
)
HINTS = (
    (r"illegal char", "move the project to a path of letters, digits, _ - . only"),
    (r"group writable|others writable", "chmod go-w that file or folder"),
    (r"soft link", "give the file itself: this ais_bench refuses links"),
    (r"owner", "the files must belong to the user who runs ais_bench"),
    (r"tensorsize.*filesize|needsize", "inputs and model differ in length or type: rebuild one of them"),
    (r"input dir num|fileslist", "give one folder per model input, in the model's order (tools/ascend/om.py)"),
    (r"dynamic.dims|dymdims|gear", "these dims are no gear of the model: see the gears in tools/ascend/om.py FILE.om"),
    (r"load model", "was it compiled for this chip (npu-smi info), by a CANN no newer than here?"),
    (r"open device|set device", "is the device free and visible? see npu-smi info"),
    (r"pkg_resources", "setuptools 82 dropped it: install 'setuptools<82' for the Python that has ais_bench"),
    (r"No module named|libascendcl", INSTALL),
)
HAS = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ('ais_bench', 'aclruntime'))))"
ELSEWHERE = ("/usr/local/python3*/bin/python3", "~/*conda3/bin/python3", "~/*conda3/envs/*/bin/python3")


def pythons() -> list[str]:
    """Interpreters that may have ais_bench, this one first."""
    names = ["python3", *(f"python3.{minor}" for minor in range(7, 15))]
    there = [Path(folder, name) for folder in os.get_exec_path() for name in names]
    for pattern in ELSEWHERE:
        whole = Path(pattern).expanduser()
        there += sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))))
    return list(dict.fromkeys([sys.executable, *(str(p) for p in there if os.access(p, os.X_OK))]))


def has_ais_bench(python: str) -> bool:
    """Whether an interpreter finds ais_bench and aclruntime; neither is imported."""
    try:
        return subprocess.run([python, "-c", HAS], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@functools.cache
def find() -> str | None:
    """The first interpreter that has ais_bench; None where none has."""
    return next(filter(has_ais_bench, pythons()), None)


def said_in(text: str) -> list[str]:
    """What ais_bench complained of, the likeliest cause first: its [ERROR]s, wherever on a line, then an exception, then
    its [WARN]s. An [INFO] that ends in `error: ...` is none: it says so of a backend that nobody asked for."""
    marked = {kind: re.findall(rf"\[{kind}\] *([^\r\n]+)", text) for kind in ("ERROR", "WARN")}
    loud = re.sub(r"\[(?:INFO|DEBUG|WARN)\][^\r\n]*", "", text)
    raised = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception): [^\r\n]+)", loud, re.M) + re.findall(
        r"error: ([^\r\n]+)", loud
    )
    return [line.strip()[:300] for line in (*marked["ERROR"], *raised, *marked["WARN"])]


def failure(text: str, status: int) -> str:
    """One line for a run that failed: the first cause it names, and the hint that fits, which may be of a later line."""
    said = said_in(text) or [line[:300] for line in text.split("\n") if line.strip()][-1:] or ["it said nothing"]
    hints = (hint for line in said for pattern, hint in HINTS if re.search(pattern, line, re.I))
    return f"ais_bench failed (exit {status}): {said[0]}; {next(hints, 'see its output above')}"


def probe(python: str) -> int:
    """Which option set ais_bench has: 2023 or 2024. Raises cli.UserError when it cannot run here."""
    command = [python, "-m", "ais_bench", "--help"]
    try:
        got = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as e:
        raise cli.UserError(f"AIS_PYTHON={python}: {e.strerror}; {INSTALL}") from None
    if got.returncode:
        said = got.stdout + got.stderr
        if "No module named ais_bench" in said:
            raise cli.UserError(f"AIS_PYTHON={python}: No module named ais_bench; {INSTALL}")
        raise cli.UserError(f"`{' '.join(command)}`: {failure(said, got.returncode)}")
    return 2024 if "--divide_input" in got.stdout else 2023


def check_order(model: str, given: str | None) -> None:
    """UserError where the input folders are named as the .om's inputs and stand in another order: ais_bench would feed
    them by position."""
    if not given or not model.endswith(".om") or not Path(model).is_file():
        return
    own = [t["name"] for t in om.read(model)["models"][0].get("inputs", [])]
    names = [Path(folder).name for folder in given.split(",")]
    if names != own and sorted(names) == sorted(own):
        raise cli.UserError(
            f"--input has {', '.join(names)}, but {model} takes {', '.join(own)}: give them in its order"
        )


def check_empty(folder: Path) -> None:
    """UserError where an earlier run's outputs would be taken for those of a device of this one."""
    if folder.is_dir() and any(folder.iterdir()):
        raise cli.UserError(f"{folder}: holds an earlier run's outputs; empty it, or name another --output_dirname")


def run(python: str | None, words: list) -> None:
    """Run ais_bench with these words; merge devices; raise cli.UserError with its error and what to do."""
    p = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (("--output", "-o"), ("--output_dirname",), ("--device", "-d"), ("--divide_input",), ("--model", "-m"),
                  ("--input", "-i")):  # fmt: skip
        p.add_argument(*names)
    a, _ = p.parse_known_args(words)
    several = "," in (a.device or "")
    if several and a.output and not a.output_dirname:
        raise cli.UserError("several devices need --output_dirname: their outputs are put together there")
    if several and a.output:
        check_empty(Path(a.output, a.output_dirname))
    check_order(a.model or "", a.input)
    python = python or find()
    if not python:
        raise cli.UserError(f"no Python with ais_bench and aclruntime: looked at {len(pythons())}; {INSTALL}")
    if several and probe(python) == 2024 and a.divide_input is None:
        words = [*words, "--divide_input", "1"]
    command = [python, "-m", "ais_bench", *words]
    print("+", shlex.join(command), flush=True)
    try:
        status, text = cli.stream(command, Path.cwd())
    except OSError as e:
        raise cli.UserError(f"AIS_PYTHON={python}: {e.strerror}; {INSTALL}") from None
    if status and "No module named ais_bench" in text:
        raise cli.UserError(f"AIS_PYTHON={python}: No module named ais_bench; {INSTALL}")
    if status:
        raise cli.UserError(failure(text, status))
    if several and a.output:
        summary.merge(Path(a.output, a.output_dirname))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    r = sub.add_parser("run", usage="%(prog)s [--python PYTHON] AIS_BENCH OPTIONS", allow_abbrev=False)
    r.add_argument("--python", help="the interpreter that has ais_bench (found by looking)")
    a, words = p.parse_known_args([w for w in sys.argv[1:] if w != "--"])
    return run(a.python, words)


if __name__ == "__main__":
    cli.run(main)
