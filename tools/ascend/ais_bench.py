"""Run Ascend's ais_bench with care, in the Python that has it; what it leaves, tools/ascend/summary.py reads.

    python3 -m tools.ascend.ais_bench --model model.om --input in/input_ids,in/attention_mask \\
        --output out --output_dirname output --outfmt BIN --device 0,1

    + .../bin/python -m ais_bench --model model.om --input in/input_ids,in/attention_mask ... --divide_input 1
    [INFO] multidevice:[0, 1] run begin
    ...
    [INFO] summary throughput:166554.36

(The end, of a model of six nodes under the test suite's stand-in; no real card has run this yet.)

This starts `PYTHON -m ais_bench` with these words, which may as well be typed directly. PYTHON need not be the one
that runs this: aclruntime's wheels are for 3.7 to 3.11. Without --python it is the first found that has both
ais_bench and aclruntime: this one, those on PATH, those in the usual places. It adds what a first try on a card
trips over: a clear line when ais_bench or aclruntime is missing; inputs given in another order than the .om's own,
which ais_bench feeds by position without a word; --divide_input 1 for several devices, which the 2023 ais_bench does
by itself and later ones do not; one folder of outputs and one summary where ais_bench leaves one per device, and that
folder made before devices race for it; the spelling of the fork of 2026; which card, driver, CANN and ais_bench it
was, into the summary, and a refusal where that is not the chip of the .om; and ais_bench's own error with what to do.

Of an --output folder that is there already, the official ais_bench since February 2024 takes none that others may
enter, so that tools/make/run.py makes it 0750 (gitee ascend/tools 1ff4acca, path_security_check.py).
"""

import argparse
import functools
import json
import re
import shlex
import stat
import subprocess
from pathlib import Path

from tools.ascend import om, summary
from tools.base import trip
from tools.make import cli

INSTALL = (
    "install the aclruntime and ais_bench wheels (gitee.com/ascend/tools, ais-bench_workload/tool/ais_bench: for Python"
    " 3.7 to 3.11), say AIS_PYTHON= if that Python is not on PATH, and `source` CANN's set_env.sh"
)
OTHER = "its ais_bench is PyPI's ais_bench_benchmark, another tool"
HINTS = (
    (r"illegal char", "move the project to a path of letters, digits, _ - . only"),
    (r"soft link", "give the file itself: this ais_bench refuses links"),
    (r"owner", "the files must belong to the user who runs ais_bench"),
    (r"tensorsize.*filesize|needsize", "inputs and model differ in length or type: rebuild one of them"),
    (r"input dir num|fileslist", "give one folder per model input, in the model's order (tools/ascend/om.py)"),
    (r"dynamic.dims|dymdims|gear", "these dims are no gear of the model: see the gears in tools/ascend/om.py FILE.om"),
    (r"load model", "was it compiled for this chip (npu-smi info), by a CANN no newer than here?"),
    (r"open device|set device", "is the device free and visible? see npu-smi info"),
    (
        r"pkg_resources|aclruntime_version",
        "this ais_bench needs pkg_resources, which setuptools 82 dropped: install"
        " 'setuptools<82' for its Python, or today's ais_bench of gitee.com/ascend/tools",
    ),
    (r"No module named|libascendcl", INSTALL),
)
# How the published versions of ais_bench, and msit benchmark, spell the options that matter here.
SPELLED = ("--model -m --om-model -om", "--input -i", "--output -o", "--output_dirname --output-dirname -od", "--loop -l",
           "--device -d", "--batchsize --batch-size", "--dymDims --dym-dims -dd", "--dymShape --dym-shape -ds",
           "--dymBatch --dym-batch -db", "--dymHW --dym-hw -dhw", "--warmup_count --warmup-count -wcount",
           "--threads", "--divide_input --divide-input", "--profiler -pf", "--dump", "--debug", "--pipeline",
           "--acl_json_path --acl-json-path -acl", "--dump_npy --dump-npy", "--backend",
           "--dymShape_range --dymShape-range --dym-shape-range -dr", "--auto_set_dymdims_mode --auto-set-dymdims-mode",
           "--auto_set_dymshape_mode --auto-set-dymshape-mode")  # fmt: skip
# Of all others these leave a figure what it is.
QUIET = {"outfmt", "output_batchsize_axis", "pure_data_type", "display_all_summary", "npu_id"}
REFUSED = re.compile(r"The file (\S+) is group writable, or is others writable, as (import|export)")


class Words(argparse.ArgumentParser):
    """ais_bench's options, by argparse as it reads them itself."""

    def error(self, message):
        """Raises UserError in place of ending the program."""
        raise cli.UserError(f"its arguments: {message}; are they ais_bench's?")


def options(words: list[str]) -> argparse.Namespace:
    """What these words say of SPELLED's options, however they spell them; None of one that they do not say. `others`: the
    options besides them and QUIET, as --name=value."""
    p = Words(add_help=False, allow_abbrev=False)
    for names in map(str.split, SPELLED):
        p.add_argument(*names, dest=names[0].strip("-"), nargs="?", const="1")
    said, rest = p.parse_known_args(words)
    pairs = re.findall(r"(?:^| )-+(\w[\w-]*)(?:[ =]([^-\s]\S*))?", " ".join(rest))
    named = [(name.replace("-", "_"), value[:80]) for name, value in pairs if value.lower() not in ("0", "false")]
    said.others = [f"--{name[:80]}={value}".rstrip("=") for name, value in named if name not in QUIET]
    return said


def lacks(python: str) -> str | None:
    """What an interpreter lacks to run .om files; None where it has ais_bench and aclruntime."""
    return {0: None, 2: OTHER}.get(trip.query(python, "-c", trip.PROBE)[0], "no ais_bench and aclruntime")


@functools.cache
def find() -> str | None:
    """The first interpreter that has ais_bench; None where none has."""
    return next((python for python in trip.pythons() if lacks(python) is None), None)


def none_has() -> str:
    """That no Python here has ais_bench, in words; those with PyPI's tool of that name are told."""
    others = "".join(f" ({python}: {OTHER})" for python in trip.pythons() if lacks(python) == OTHER)
    return f"none of {len(trip.pythons())} Pythons has ais_bench and aclruntime{others}"


def wrong_mode(line: str) -> list[str]:
    """What to do about a path that ais_bench refuses for its mode, and the mode it has; [] for another complaint."""
    m = REFUSED.search(line)
    if not m or not Path(m[1]).exists():
        return []
    limit, change = ("0750", "g-w,o-rwx") if m[2] == "export" and "0o750" in line else ("0755", "go-w")
    mode = stat.S_IMODE(Path(m[1]).stat().st_mode)
    return [f"its mode is {mode:04o}, {limit} at most is taken: chmod {change} {m[1]}"]


def failure(python: str, text: str, status: int) -> str:
    """One line for a run that failed: the first cause it names, and what to do."""
    if "No module named ais_bench" in text:
        why = OTHER if "ais_bench.__main__" in text else "No module named ais_bench"
        return f"AIS_PYTHON={python}: {why}; {INSTALL}"
    modes = [("", hint) for line in trip.errors(text) for hint in wrong_mode(line)]
    return trip.failure("ais_bench", text, status, (*modes, *HINTS))


def divides(python: str) -> bool:
    """Whether this ais_bench divides the inputs among devices only when asked to. UserError when it cannot run here."""
    command = [python, "-m", "ais_bench", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise cli.UserError(failure(python, done.stdout + done.stderr, done.returncode))
    return re.search("--divide[_-]input", done.stdout) is not None


def check_model(model: str, given: str | None, npu: str | None) -> None:
    """UserError where the .om is for another chip than npu-smi names, or its inputs stand in another order than the
    folders that are named after them: ais_bench would feed them by position."""
    if not model.endswith(".om") or not Path(model).is_file():
        return
    facts = om.read(model)
    if trip.unlike(facts.get("soc_version"), npu):
        raise cli.UserError(f"{model} is compiled for {facts['soc_version']}, npu-smi says {npu}: give CHIP={npu}")
    own = [t["name"] for t in facts.get("inputs", [])]
    names = [Path(folder).name for folder in (given or "").split(",")]
    if names != own and sorted(names) == sorted(own):
        raise cli.UserError(
            f"--input has {', '.join(names)}, but {model} takes {', '.join(own)}: give them in its order"
        )


def make_empty(folder: Path) -> None:
    """The folder of all devices' outputs, before they race to make it, with modes that each ais_bench takes. Raises
    UserError where an earlier run's outputs would be taken for those of a device of this one."""
    if folder.is_dir() and any(folder.iterdir()):
        raise cli.UserError(f"{folder}: holds an earlier run's outputs; empty it, or name another --output_dirname")
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            path.mkdir(0o750)


def started(python: str, words: list[str]) -> tuple[int, str]:
    """Run ais_bench: exit status and the end of its output, which is shown as it comes."""
    command = [python, "-m", "ais_bench", *words]
    print("+", shlex.join(command), flush=True)
    return cli.run_shown(command, Path.cwd())


def run(python: str | None, words: list) -> None:
    """Run ais_bench with these words; merge devices; raise cli.UserError with its error and what to do."""
    a = options(words)
    kept = Path(a.output, a.output_dirname) if a.output and a.output_dirname else None
    several = "," in (a.device or "") and a.output
    if several and not kept:
        raise cli.UserError("several devices need --output_dirname: their outputs are put together there")
    if several:
        make_empty(kept)
    python = python or find()
    card = trip.facts(python, a.device or "0")
    check_model(a.model or "", a.input, card["npu"])
    if not python:
        raise cli.UserError(f"{none_has()}; {INSTALL}")
    try:
        if several and a.divide_input is None and divides(python):
            words = [*words, "--divide_input", "1"]
        status, text = started(python, words)
        if status and "No such option" in text:
            status, text = started(python, trip.as_in_2026(words))
    except OSError as e:
        raise cli.UserError(f"AIS_PYTHON={python}: {e.strerror}; {INSTALL}") from None
    if status:
        raise cli.UserError(failure(python, text, status))
    if several:
        summary.merge(kept)
    if kept:
        told = kept.with_name(f"{kept.name}_summary.json")
        content = cli.read_json(told) | {"card": card}
        cli.write(told, json.dumps(content))


def main():
    p = cli.parser(__doc__, usage="%(prog)s [--python PYTHON] AIS_BENCH OPTIONS", allow_abbrev=False)
    p.add_argument("--python", help="the interpreter that has ais_bench (found by looking)")
    a, words = p.parse_known_args()
    run(a.python, words)


if __name__ == "__main__":
    cli.run(main)
