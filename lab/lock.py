"""Write the lock files from requirements.in, requirements-bench.in and requirements-scale.in (make lock; needs uv).

    python3 -m lab.lock
    wrote requirements.txt: 79 packages
    wrote requirements-cuda.txt: 19 packages
    wrote requirements-bench.txt: 11 packages
    wrote requirements-scale.txt: 41 packages

One resolution holds for Python 3.11 and newer, x86-64 and Arm. A package keeps its locked version where it can; to take
newer ones, delete the lock files first. What only PyPI's CUDA build of PyTorch needs goes into
a file of its own, installed only where that build is. What the peers of `make bench` need beside the product's packages
goes into requirements-bench.txt, and what `make score` needs for a cluster or an S3 into requirements-scale.txt; nothing
else installs these.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from tools.make import cli

COMPILE = [
    "uv",
    "pip",
    "compile",
    "--universal",
    "--generate-hashes",
    "--python-version",
    "3.11",
    "--no-annotate",
    "-q",
]
CUDA = re.compile(r"(nvidia-|cuda-|triton)")


def compiled(source, preferred=""):
    """The lock of every package that `source` resolves to; as in `preferred` wherever it can be.

    Raises UserError where uv is missing or fails.
    """
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as f:
        f.write(preferred)
        f.flush()
        try:
            done = subprocess.run([*COMPILE, source, "-o", f.name], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise cli.UserError("uv: not found; pip install uv") from None
        if done.returncode:
            raise cli.UserError(f"{source}: {done.stderr.strip()}")
        text = Path(f.name).read_text()
    blocks = [b.strip() for b in re.split(r"\n(?=[a-z])", text) if not b.startswith("#")]
    return [
        b.replace(" ; sys_platform != 'emscripten'", "") for b in blocks if "== 'emscripten'" not in b.split("\n")[0]
    ]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    locks = ("requirements.txt", "requirements-cuda.txt", "requirements-bench.txt", "requirements-scale.txt")
    old = "\n".join(Path(name).read_text() for name in locks if Path(name).is_file())
    product = compiled("requirements.in", old)
    beside = lambda name: [
        b for b in compiled(name, "\n".join([*product, old])) if b not in product and not CUDA.match(b)
    ]
    for name, kept in (
        ("requirements.txt", [b for b in product if not CUDA.match(b)]),
        ("requirements-cuda.txt", [b for b in product if CUDA.match(b)]),
        ("requirements-bench.txt", beside("requirements-bench.in")),
        ("requirements-scale.txt", beside("requirements-scale.in")),
    ):
        with cli.whole_file(name, "w") as f:
            f.write("\n".join(kept) + "\n")
        print(f"wrote {name}: {len(kept)} packages")


if __name__ == "__main__":
    cli.run(main)
