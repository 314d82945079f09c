"""A demonstration of the whole Ascend route without CANN and without a card; none of its figures counts.

    python -m tools.checks.demo 310P3 -- MODEL=minilm_sst2

    DEMONSTRATION: made with stand-ins for the vendor's tools; no figure here is of a card
    ==> build/demo: make -j1 om accuracy perf fusion-report CHIP=310P3 MODEL=minilm_sst2
    ...
    DEMONSTRATION: made with stand-ins for the vendor's tools; no figure here is of a card

Make runs in a clean copy of this tree, build/demo, with the stand-ins of test/fake_cann first on PATH. They take the
command lines of atc, ais_bench and npu-smi, follow their rules and print what they print; the model itself runs on the
CPU, in fp32. No table shows a figure of such a record, and `make record` refuses it. After -- come make's parameters.
"""

import os
import re
from pathlib import Path

from tools.checks import reproduce
from tools.make import cli
from tools.results.record import DEMONSTRATION

HOME = Path("build/demo")
GOALS = ("om", "accuracy", "perf", "fusion-report")


def main():
    p = cli.parser(__doc__)
    p.add_argument("chip", help="an Ascend chip, as CHIP= has it")
    p.add_argument("parameters", nargs="*", help="make's parameters, after --")
    args = p.parse_args()
    words = [w for w in args.parameters if not w.startswith(("CHIP=", "AIS_PYTHON=", "ATC="))]
    venv = next((w.removeprefix("VENV=") for w in words if w.startswith("VENV=")), ".venv")
    print(DEMONSTRATION, flush=True)
    copy = reproduce.clean_copy(HOME)
    stand_ins = copy.resolve() / "test" / "fake_cann"
    found = {"PATH": f"{stand_ins}/bin:{Path(venv).absolute()}/bin:{os.environ['PATH']}",
             "PYTHONPATH": f"{stand_ins}:{copy.resolve()}", "BERT2OM_TEST_STANDIN": "1"}  # fmt: skip
    if error := reproduce.make(copy, [*GOALS, f"CHIP={args.chip}", *words], env=found):
        raise cli.UserError(f"{HOME}: the demonstration failed: {error}")
    log = (copy / "make.log").read_text(errors="replace")
    print(*(line for line in log.splitlines() if not re.search(r" \d+\.\d s$", line)), sep="\n")  # steps were shown
    print(DEMONSTRATION)


if __name__ == "__main__":
    cli.run(main)
