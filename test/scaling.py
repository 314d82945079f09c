"""How sentences/s grow with raylets on this host, and how soon scoring goes on after a kill. No test: it takes minutes.

    make .venv-scale/installed; make score INPUT=build/data/dev.tsv ENGINE=openvino PRECISION=int8
    PYTHONPATH=. .venv/bin/python test/scaling.py build/minilm_sst2/default/seqreal/bs8/cpu-openvino-int8/model.ir \\
        --checkpoint build/minilm_sst2/default/checkpoint --text build/data/dev.tsv

    one machine, 1 threads          422.1 sentences/s
    one machine, 2 threads          466.5 sentences/s
    2 raylets                       229.3 sentences/s
    after a raylet was killed         0.9 s to the next part
    after the driver was killed      40.2 s from the next run to its part

(--raylets 2 --rows 8000 on an AMD EPYC with 2 cores that others used, which is why none of its speeds is kept.)
Each raylet has one processor. Nothing else should run on the host, and it should have a core a raylet. Files of the
sentences of --text, over and over, a number behind each; parts of 500 rows; sentences/s is end to end, with loading, as `score` prints it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from test_scale import PYTHON, RAY, ROOT, Ray


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, help="compiled with SEQ=real")
    p.add_argument("--checkpoint", type=Path, required=True, help="its tokenizer's folder")
    p.add_argument("--text", type=Path, required=True, help="a TSV whose first column is `sentence`")
    p.add_argument("--rows", type=int, default=12000, help="sentences of a run, in 8 files (%(default)s)")
    p.add_argument("--raylets", type=int, nargs="*", default=[1, 2, 4])
    return p.parse_args()


def inputs(folder: Path, text: Path, rows: int) -> Path:
    """8 files of rows / 8 sentences."""
    sentences = [line.split("\t")[0] for line in text.read_text("utf-8").splitlines()[1:]]
    folder.mkdir()
    for k in range(8):
        mine = (f"{sentences[n % len(sentences)]} {n}" for n in range(k, rows, 8))  # no two are equal
        (folder / f"{k}.tsv").write_text("sentence\n" + "\n".join(mine) + "\n")
    return folder


def start(args, given: Path, out: Path, *words):
    """The running score.py."""
    command = [PYTHON, "-m", "tools.scale.score", "--model", args.model, "--tokenizer_path", args.checkpoint,
               "--input", given, "--save_path", out, "--rows", 500, *words]  # fmt: skip
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=os.environ | RAY, stdout=pipe, text=True)


def speed(process) -> str:
    """What it prints of its speed; the script ends where it fails."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(said)
    return re.search(r"^([\d.]+) sentences/s", said, re.M)[1]


def parts(out: Path, process, more_than: int) -> int:
    """How many parts there are, as soon as these are more; the script ends where the process does."""
    while (count := len(list(out.glob("*.parquet")))) <= more_than:
        if process.poll() is not None:
            sys.exit(f"it ended with {count} parts: give more --rows")
        time.sleep(0.02)
    return count


def main():
    args = parse()
    show = lambda name, value, unit: print(f"{name:<28} {value:>8} {unit}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as at:
        at = Path(at)
        given, ray = inputs(at / "in", args.text, args.rows), Ray(at)
        for threads in (1, 2):
            value = speed(start(args, given, at / f"alone{threads}", "--threads", threads))
            show(f"one machine, {threads} threads", value, "sentences/s")
        try:
            ray.begin()
            cluster = ("--cluster", ray.address)
            for count in args.raylets:
                while len(ray.nodes) > count:
                    ray.kill(next(name for name in reversed(ray.nodes) if name != "head"))
                while len(ray.nodes) < count:
                    ray.start(f"more{len(ray.nodes)}", f"--address={ray.address}")
                time.sleep(8)  # until the cluster knows who is gone
                show(f"{count} raylets", speed(start(args, given, at / f"of{count}", *cluster)), "sentences/s")
            while len(ray.nodes) < 2:
                ray.start("second", f"--address={ray.address}")
            out = at / "killed"
            process = start(args, given, out, *cluster)
            before = parts(out, process, 2)
            ray.kill(next(name for name in ray.nodes if name != "head"))
            began, before = time.monotonic(), len(list(out.glob("*.parquet")))
            before = parts(out, process, before)
            show("after a raylet was killed", f"{time.monotonic() - began:.1f}", "s to the next part")
            process.kill()
            process.wait()
            before = len(list(out.glob("*.parquet")))
            began, process = time.monotonic(), start(args, given, out, *cluster)
            parts(out, process, before)
            show("after the driver was killed", f"{time.monotonic() - began:.1f}", "s from the next run to its part")
            process.kill()
            process.wait()
        finally:
            for name in list(ray.nodes):
                ray.kill(name)


if __name__ == "__main__":
    main()
