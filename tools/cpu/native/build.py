"""Compile C for this machine's kind of processor: a shared library that runs on every one of that kind.

python3 -m tools.cpu.native.build tools/cpu/native/peak.c --save_path build/lib/peak.so
wrote build/lib/peak.so: 103552 bytes
"""

import argparse
import subprocess
from pathlib import Path

from tools.make import cli

FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sources", type=Path, nargs="+", help=".c files")
    p.add_argument("--save_path", type=Path, required=True, help="the .so to write")
    args = p.parse_args()
    try:
        done = subprocess.run(["gcc", *FLAGS, "-o", args.save_path, *args.sources], check=False)
    except FileNotFoundError:
        raise cli.UserError("gcc: not found; install it (apt install gcc), or use another ENGINE=") from None
    if done.returncode:
        raise cli.UserError(f"{args.sources[0]}: gcc stopped, see above; gcc 11 or newer is needed")
    print(f"wrote {args.save_path}: {args.save_path.stat().st_size} bytes")


if __name__ == "__main__":
    cli.run(main)
