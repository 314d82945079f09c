"""The project's own code: what a user runs, one folder per stage of the pipeline (lab/ holds what measures and stresses it).

Each folder imports only what stands before it: make, base, source, graph, recipe, cpu, scale, gpu, ascend, results,
checks, setup (test/test_layers.py holds them to it). Modules run from the top folder of the checkout, as
`python3 -m tools.graph.simplify --help`.
"""

import signal
import sys

# Ctrl-C while a command of ours imports its modules ends it without a traceback; then tools/make/cli.py sees to it. Who
# starts it (mk/shell.mk, tools/make/screen.py) holds the signal back until here.
COMMANDS = ("-m", "pth2onnx.py", "preprocess.py", "modify_onnx.py", "postprocess.py")
if sys.argv[0].rsplit("/", 1)[-1] in COMMANDS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

import os  # noqa: E402
from pathlib import Path  # noqa: E402

if sys.version_info < (3, 11):  # noqa: UP036, whoever has an older one is to read this line
    version = ".".join(str(n) for n in sys.version_info[:3])
    sys.exit(f"error: Python 3.11 or newer is needed, {sys.executable} is {version}; give PYTHON=, one that is")
# Packages that the environment puts before ours (CANN's set_env.sh does) are for the tools that we start, not for us.
ROOT = Path(__file__).resolve().parents[1]
FOREIGN = {Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p} - {ROOT}
if "BERT2OM_TEST_STANDIN" not in os.environ:
    sys.path[:] = [p for p in sys.path if not p or Path(p).resolve() not in FOREIGN]
if "BERT2OM_STEP" in os.environ:  # started by tools/make/run.py, or by a process that it started
    from tools.make.cli import die_with_parent

    die_with_parent()
