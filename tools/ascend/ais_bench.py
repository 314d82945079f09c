"""Run Ascend's ais_bench with care, in the Python that has it; tools/ascend/summary.py reads its results.

    python3 -m tools.ascend.ais_bench --model model.om --input in/input_ids,in/attention_mask \\
        --output out --output_dirname output --outfmt BIN --device 0,1

    + .../bin/python -m ais_bench --model model.om --input in/input_ids,in/attention_mask ... --divide_input 1
    [INFO] multidevice:[0, 1] run begin
    ...
    [INFO] summary throughput:166554.36

(The end of the output for a model of six nodes, with the test suite's stand-in; no real card has run this yet.)

This starts `PYTHON -m ais_bench` with these words, which may also be typed directly. PYTHON need not be the interpreter
that runs this: aclruntime's wheels are for 3.7 to 3.11. Without --python it is the first that has both ais_bench and
aclruntime: this one, those on PATH, those in the usual places. This module prevents what goes wrong in a first try on a
card. It says what is missing, and what to do about an error of ais_bench. It refuses an .om for another chip, and
inputs in another order than the .om's, which ais_bench would feed by position without a warning. For several devices it
adds --divide_input 1, which every ais_bench since 2024 needs, makes the folder of outputs before the devices race to
make it, and merges their outputs and summaries. It spells the options as the fork of 2026 does if that is what runs, and
adds card, driver, CANN and ais_bench to the summary.

The official ais_bench since February 2024 refuses an existing --output folder that others may enter, so
tools/make/run.py makes it 0750 (gitee ascend/tools 1ff4acca, path_security_check.py).
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
    (r"pkg_resources|aclruntime_version", "this ais_bench needs pkg_resources, which setuptools 82 dropped: install"
     " 'setuptools<82' for its Python, or today's ais_bench of gitee.com/ascend/tools"),
    (r"No module named|libascendcl", INSTALL),
)  # fmt: skip
# The spellings, in the published versions of ais_bench and in msit benchmark, of the options that matter here.
SPELLED = ("--model -m --om-model -om", "--input -i", "--output -o", "--output_dirname --output-dirname -od", "--loop -l",
           "--device -d", "--batchsize --batch-size", "--dymDims --dym-dims -dd", "--dymShape --dym-shape -ds",
           "--dymBatch --dym-batch -db", "--dymHW --dym-hw -dhw", "--warmup_count --warmup-count -wcount",
           "--threads", "--divide_input --divide-input", "--profiler -pf", "--dump", "--debug", "--pipeline",
           "--acl_json_path --acl-json-path -acl", "--dump_npy --dump-npy", "--backend",
           "--dymShape_range --dymShape-range --dym-shape-range -dr", "--auto_set_dymdims_mode --auto-set-dymdims-mode",
           "--auto_set_dymshape_mode --auto-set-dymshape-mode")  # fmt: skip
# Other options that do not change the meaning of a figure.
QUIET = {"outfmt", "output_batchsize_axis", "pure_data_type", "display_all_summary", "npu_id"}
REFUSED = re.compile(r"The file (\S+) is group writable, or is others writable, as (import|export)")


def parse_options(words: list[str]) -> argparse.Namespace:
    """The values of SPELLED's options in these words, in any spelling; None for an option that is missing. `others` lists the
    options that are neither in SPELLED nor in QUIET, as --name=value."""
    p = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in map(str.split, SPELLED):
        p.add_argument(*names, dest=names[0].strip("-"), nargs="?", const="1")
    options, rest = p.parse_known_args(words)
    pairs = re.findall(r"(?:^| )-+(\w[\w-]*)(?:[ =]([^-\s]\S*))?", " ".join(rest))
    others = [(name.replace("-", "_"), value[:80]) for name, value in pairs if value.lower() not in ("0", "false")]
    options.others = [f"--{name[:80]}={value}".rstrip("=") for name, value in others if name not in QUIET]
    return options


def missing_packages(python: str) -> str | None:
    """What an interpreter lacks to run .om files; None if it has ais_bench and aclruntime."""
    return {0: None, 2: OTHER}.get(trip.query(python, "-c", trip.PROBE)[0], "no ais_bench and aclruntime")


@functools.cache
def find_python() -> str | None:
    """The first interpreter that has ais_bench and aclruntime, if any."""
    return next((python for python in trip.pythons() if missing_packages(python) is None), None)


def absence(python: str | None = None) -> str:
    """One line: this Python lacks ais_bench, or all that are here do, and how to get it."""
    if python:
        return f"AIS_PYTHON={python}: {missing_packages(python)}; {INSTALL}"
    others = "".join(f" ({python}: {OTHER})" for python in trip.pythons() if missing_packages(python) == OTHER)
    return f"none of {len(trip.pythons())} Pythons has ais_bench and aclruntime{others}; {INSTALL}"


def mode_hints(line: str) -> list[str]:
    """For a path whose mode ais_bench refuses, that mode and the command that changes it; [] for another complaint."""
    m = REFUSED.search(line)
    if not m or not Path(m[1]).exists():
        return []
    limit, change = ("0750", "g-w,o-rwx") if m[2] == "export" and "0o750" in line else ("0755", "go-w")
    mode = stat.S_IMODE(Path(m[1]).stat().st_mode)
    return [f"its mode is {mode:04o}, {limit} at most is taken: chmod {change} {m[1]}"]


def failure(python: str, text: str, status: int) -> str:
    """One line for a run that failed: the likeliest cause that it names, and what to do."""
    if "No module named ais_bench" in text:
        why = OTHER if "ais_bench.__main__" in text else "No module named ais_bench"
        return f"AIS_PYTHON={python}: {why}; {INSTALL}"
    modes = [("", hint) for line in trip.errors(text) for hint in mode_hints(line)]
    return trip.failure("ais_bench", text, status, (*modes, *HINTS))


def divides_on_request(python: str) -> bool:
    """Whether this ais_bench has --divide_input, by which devices share the inputs. UserError if it cannot run here."""
    command = [python, "-m", "ais_bench", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if process.returncode:
        raise cli.UserError(failure(python, process.stdout + process.stderr, process.returncode))
    return re.search("--divide[_-]input", process.stdout) is not None


def check_model(model: str, folders: str | None, npu: str | None) -> None:
    """UserError if the .om is for another chip than npu-smi names, or takes its inputs in another order than that of the
    folders that are named after them: ais_bench would feed them by position."""
    if not model.endswith(".om") or not Path(model).is_file():
        return
    facts = om.read_om(model)
    if trip.unlike(facts.get("soc_version"), npu):
        raise cli.UserError(f"{model} is compiled for {facts['soc_version']}, npu-smi says {npu}: give CHIP={npu}")
    inputs = [t["name"] for t in facts.get("inputs", [])]
    names = [Path(folder).name for folder in (folders or "").split(",")]
    if names != inputs and sorted(names) == sorted(inputs):
        fault = f"--input has {', '.join(names)}, but {model} takes {', '.join(inputs)}"
        raise cli.UserError(f"{fault}: give them in its order")


def make_empty(folder: Path) -> None:
    """Make the folder of all devices' outputs, before they race to make it, with a mode that every ais_bench accepts.
    UserError if it holds an earlier run's outputs, which would be taken for those of a device of this one."""
    if folder.is_dir() and any(folder.iterdir()):
        raise cli.UserError(f"{folder}: holds an earlier run's outputs; empty it, or name another --output_dirname")
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            path.mkdir(0o750)


def start_ais_bench(python: str, words: list[str]) -> tuple[int, str]:
    """The exit status of ais_bench, and the end of its output, which is shown as it comes."""
    command = [python, "-m", "ais_bench", *words]
    print("+", shlex.join(command), flush=True)
    return cli.run_shown(command, Path.cwd())


def run_ais_bench(python: str | None, words: list) -> None:
    """Run ais_bench with these words and merge the devices' outputs. UserError with its error and what to do."""
    a = parse_options(words)
    outputs = Path(a.output, a.output_dirname) if a.output and a.output_dirname else None
    several = "," in (a.device or "") and a.output
    if several:
        if not outputs:
            raise cli.UserError("several devices need --output_dirname: their outputs are put together there")
        make_empty(outputs)
    python = python or find_python()
    card = trip.facts(python, a.device or "0")
    check_model(a.model or "", a.input, card["npu"])
    if not python:
        raise cli.UserError(absence())
    try:
        if several and a.divide_input is None and divides_on_request(python):
            words = [*words, "--divide_input", "1"]
        status, text = start_ais_bench(python, words)
        if status and "No such option" in text:
            status, text = start_ais_bench(python, trip.as_in_2026(words))
    except OSError as e:
        raise cli.UserError(f"AIS_PYTHON={python}: {e.strerror}; {INSTALL}") from None
    if status:
        raise cli.UserError(failure(python, text, status))
    if several:
        summary.merge(outputs)
    if outputs:
        path = outputs.with_name(f"{outputs.name}_summary.json")
        cli.write(path, json.dumps(cli.read_json(path) | {"card": card}))


def main():
    p = cli.parser(__doc__, usage="%(prog)s [--python PYTHON] AIS_BENCH OPTIONS", allow_abbrev=False)
    p.add_argument("--python", help="the interpreter that has ais_bench (default: the first that has it)")
    a, words = p.parse_known_args()
    run_ais_bench(a.python, words)


if __name__ == "__main__":
    cli.run(main)
