"""Write the lock files from requirements.in and requirements-{bench,publish,scale}.in (make lock; needs uv).

    python3 -m lab.lock
    wrote requirements.txt: 79 packages
    wrote requirements-cuda.txt: 19 packages
    wrote requirements-bench.txt: 11 packages
    wrote requirements-publish.txt: 23 packages
    wrote requirements-scale.txt: 41 packages

One resolution holds for Python 3.11 and newer, x86-64 and Arm. A package keeps its locked version where it can; to take
newer ones, delete the lock files first. What only PyPI's CUDA build of PyTorch needs, what the peers of `make bench`, the
signatures of `make publish`, and a cluster or an S3 of `make score` need stand in files of their own, installed only there.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from tools.make import cli

COMPILE = "uv pip compile --universal --generate-hashes --python-version 3.11 --no-annotate -q".split()  # noqa: SIM905
BESIDE = ("bench", "publish", "scale")
LOCKS = ("requirements.txt", "requirements-cuda.txt", *(f"requirements-{name}.txt" for name in BESIDE))
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
    blocks = [b for b in blocks if "== 'emscripten'" not in b.split("\n")[0]]
    return [b.replace(" ; sys_platform != 'emscripten'", "") for b in blocks]


def main():
    cli.parser(__doc__).parse_args()
    old = "\n".join(path.read_text() for path in map(Path, LOCKS) if path.is_file())
    product = compiled("requirements.in", old)
    known = "\n".join([*product, old])
    beside = lambda name: [b for b in compiled(name, known) if b not in product and not CUDA.match(b)]
    locks = (
        [b for b in product if not CUDA.match(b)],
        [b for b in product if CUDA.match(b)],
        *(beside(f"requirements-{name}.in") for name in BESIDE),
    )
    for name, blocks in zip(LOCKS, locks, strict=True):
        cli.write(name, "\n".join(blocks) + "\n")
        print(f"wrote {name}: {len(blocks)} packages")


if __name__ == "__main__":
    cli.run(main)
