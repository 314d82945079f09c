"""Write the lock files from requirements.in: requirements.txt and requirements-cuda.txt (make lock; needs uv on PATH).

    python3 tools/lock.py
    wrote requirements.txt: 79 packages
    wrote requirements-cuda.txt: 19 packages

One resolution holds for Python 3.11 and newer, x86-64 and Arm. What only PyPI's CUDA build of PyTorch needs goes into
a file of its own, installed only where that build is.
"""

import re
import subprocess

import cli

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


def main():
    try:
        done = subprocess.run([*COMPILE, "requirements.in"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise cli.UserError("uv: not found; pip install uv") from None
    if done.returncode:
        raise cli.UserError(f"requirements.in: {done.stderr.strip()}")
    blocks = [b.strip() for b in re.split(r"\n(?=[a-z])", done.stdout) if not b.startswith("#")]
    blocks = [
        b.replace(" ; sys_platform != 'emscripten'", "") for b in blocks if "== 'emscripten'" not in b.split("\n")[0]
    ]
    for name, wanted in (("requirements.txt", False), ("requirements-cuda.txt", True)):
        kept = [b for b in blocks if bool(CUDA.match(b)) == wanted]
        with cli.whole_file(name, "w") as f:
            f.write("\n".join(kept) + "\n")
        print(f"wrote {name}: {len(kept)} packages")


if __name__ == "__main__":
    cli.run(main)
