"""Compile C for this machine's kind of processor: a shared library that runs on every one of that kind.

python3 -m tools.cpu.native.build tools/cpu/native/peak.c --save_path build/lib/peak.so
wrote build/lib/peak.so: 103552 bytes
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.make import cli

FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]
HEADERS = "".join(f"#include <{name}>\n" for name in ("math.h", "pthread.h", "stdint.h", "stdlib.h", "sys/mman.h"))


def missing_tool() -> str:
    """What keeps gcc from compiling here, and the package that has it; empty if nothing does."""
    if not shutil.which("gcc"):
        return "gcc: not found; apt install gcc libc6-dev"
    version = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=False).stdout.strip()
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) < 11:
        return f"gcc {version}: gcc 11 or newer is needed"
    with tempfile.TemporaryDirectory() as box:
        command = ["gcc", *FLAGS, "-x", "c", "-", "-o", f"{box}/a.so"]
        done = subprocess.run(command, input=HEADERS, capture_output=True, text=True, check=False)
    if header := re.search(r"fatal error: (\S+): No such file", done.stderr):
        return f"gcc {version} lacks {header[1]}; apt install libc6-dev"
    return f"gcc {version}: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""


def main():
    p = cli.parser(__doc__)
    p.add_argument("sources", type=Path, nargs="+", help=".c files")
    p.add_argument("--save_path", type=Path, required=True, help="the .so to write")
    args = p.parse_args()
    command = ["gcc", *FLAGS, "-o", args.save_path, *args.sources, "-lm"]
    if not shutil.which("gcc") or subprocess.run(command, check=False).returncode:
        why = missing_tool()
        fault = f"gcc cannot compile here: {why}" if why else f"{args.sources[0]}: gcc stopped, see above"
        raise cli.UserError(f"{fault}; or use another ENGINE=")
    print(f"wrote {args.save_path}: {args.save_path.stat().st_size} bytes")


if __name__ == "__main__":
    cli.run(main)
