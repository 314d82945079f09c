"""A small copy of the repository in which things were measured: real run.py, postprocess.py and record.py.

The logits are invented and the heavy steps (checkpoint, export, compilation) are `cp`s, so that a whole chain takes
seconds; each still goes through run.py, with its hashes.
"""

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import PYTHON, ROOT, module

from tools.base import logs
from tools.make import cli
from tools.results import record, table

MODEL = "build/minilm_sst2/default"
WRITE = 'mkdir -p "$(dirname "$0")"; printf %s "$1" > "$0"'


def tree(folder: Path) -> Path:
    keep = {"ignore": shutil.ignore_patterns("__pycache__", "*.safetensors", "tiny")}
    for name in ("tools", "lab", "mk", "models", "data"):
        shutil.copytree(ROOT / name, folder / name, **keep)
    for name in ("Makefile", *(p.name for p in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, folder)
    (folder / "models/minilm_sst2/adapter.safetensors").touch()  # make asks for it; nothing here reads it
    (folder / "results/records").mkdir(parents=True)
    return folder


def run(*words) -> None:
    done = module("tools.make.run", "--step", "test", *words)
    assert done.returncode == 0, done.stderr


def write(target: str, inputs: list[str], name: str, text: str) -> None:
    """An artefact of one text file, through run.py; in `name` of its folder where it is a MANIFEST."""
    run(target, *inputs, "--", "sh", "-euc", WRITE, f"{{}}/{name}" if name else "{}", text)


def weights() -> None:
    Path(MODEL).mkdir(parents=True, exist_ok=True)
    Path(f"{MODEL}/source").write_text("wheel\n")
    labels = {str(i): str(v) for i, v in enumerate(record.sst2_labels(), 1)}
    at, made = f"{MODEL}/checkpoint", f"{MODEL}/checkpoint/MANIFEST"
    write(made, [f"{MODEL}/source", "tools/source/checkpoint.py"], "model.safetensors", "weights")
    run(f"{MODEL}/model.onnx", made, "--", "cp", f"{at}/model.safetensors", "{}")
    write(f"{MODEL}/seq128/input/MANIFEST", [made], "labels.json", json.dumps(labels))


def leaf(bs: int, config: str) -> Path:
    return Path(f"{MODEL}/seq128/bs{bs}/{config}")


OUTPUTS = """
import json, pathlib, sys
import numpy as np
folder, classes, engine = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / "out").mkdir(parents=True)
for i, c in enumerate(classes, 1):
    (folder / "out" / f"{i}_0.bin").write_bytes(np.float32([1 - int(c), int(c)]).tobytes())
(folder / "out_summary.json").write_text(json.dumps({"engine": {"name": engine, "version": "1.2.3", "threads": 2, "unfused": "x"}}))
"""


def accuracy(bs: int = 8, config: str = "cpu-onnxruntime-fp32", wrong: int = 80, shift: int = 0) -> Path:
    """leaf/accuracy.json of a run that has `wrong` sentences wrong, from row `shift` on."""
    at, (_, engine, _) = leaf(bs, config), config.split("-", 2)
    classes = [v ^ (shift <= i < shift + wrong) for i, v in enumerate(record.sst2_labels())]
    run(f"{at}/model.onnx", f"{MODEL}/model.onnx", "--", "cp", f"{MODEL}/model.onnx", "{}")
    run(f"{at}/output/MANIFEST", f"{at}/model.onnx", f"{MODEL}/seq128/input/MANIFEST", "--",
        sys.executable, "-c", OUTPUTS, "{}", "".join(map(str, classes)), engine)  # fmt: skip
    run(f"{at}/score.json", f"{at}/output/MANIFEST", "tools/recipe/postprocess.py", "--", str(PYTHON),
        "models/minilm_sst2/postprocess.py", "--output_path", f"{at}/output/out",
        "--label_path", f"{MODEL}/seq128/input/labels.json", "--save_path", "{}")  # fmt: skip
    run(f"{at}/accuracy.json", "tools/results/record.py", f"{at}/score.json", "--",
        str(PYTHON), "-m", "tools.results.record", "accuracy", str(at), "--save_path", "{}")  # fmt: skip
    return at / "accuracy.json"


ROUND = """
import json, pathlib, sys
folder, rounds = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
(folder / "out").mkdir()
(folder / "out/zeros_0.bin").write_text("x")
(folder / "out_summary.json").write_text(json.dumps(rounds[folder.name]))
"""


def perf(bs: int = 8, config: str = "cpu-onnxruntime-fp32", ms: float = 10.0) -> Path:
    """leaf/perf.json of three rounds of about `ms` a request, 1.8 `ms` in one thread, on a quiet machine."""
    at, (_, engine, _) = leaf(bs, config), config.split("-", 2)
    infos = {}
    for k in (1, 2, 3):
        times = (ms * np.random.default_rng(k).uniform(0.97, 1.03, 40)).tolist()
        compute = logs.stats(times)
        infos[f"round{k}"] = {
            "engine": {"name": engine, "version": "1.2.3", "threads": 2, "unfused": "x"},
            "npu_compute_time_list": times,
            "NPU_compute_time": compute,
            "throughput": 1000 * bs / compute["mean"],
            "yardstick": "fp32",
            "loop": 36,
            "pairs": [[bs, t / 1e3, 2 * t / 1e3, 2e10, 0.04, 0.08] for t in times],
            "singles": [[bs, 1.8 * t / 1e3, 2e10, 0.08] for t in times],
        }
    rounds = [f"{at}/{name}/MANIFEST" for name in infos]
    for path in rounds:
        command = [sys.executable, "-c", ROUND, "{}", json.dumps(infos), "--yardstick", "fp32"]
        run(path, f"{MODEL}/model.onnx", "--", *command)
    run(f"{at}/perf.json", "tools/results/record.py", *rounds, "--",
        str(PYTHON), "-m", "tools.results.record", "perf", str(at), "--save_path", "{}")  # fmt: skip
    return at / "perf.json"


def promote(*paths: Path) -> list[Path]:
    return [record.promote(Path("results/records"), cli.read_json(p), p) for p in paths]


def everything(folder: Path) -> None:
    """A copy in which two accuracies and three speeds were measured and recorded, and the tables made of them."""
    tree(folder)
    with contextlib.chdir(folder):
        weights()
        fp32, bf16 = "cpu-onnxruntime-fp32", "cpu-openvino-bf16"
        made = [accuracy(8, fp32), perf(8, fp32), perf(1, fp32, 7), accuracy(8, bf16, 75, 20), perf(8, bf16, 9)]
        promote(*made)
        text = table.from_names(table.committed())
        for suffix in (".csv", ".md"):
            Path(f"results/table{suffix}").write_text(table.render(text, suffix))


def copy(source: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-a", source, folder], check=True)  # thousands of files
    return folder


def states(folder: Path) -> dict[Path, tuple]:
    """Of each file below `folder` what no change leaves as it is; of a folder nothing."""
    files = {path.relative_to(folder): path.lstat() for path in folder.rglob("*") if "__pycache__" not in path.parts}
    told = lambda s: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return {name: () if stat.S_ISDIR(s.st_mode) else told(s) for name, s in files.items()}


@contextlib.contextmanager
def spoilt(folder: Path, source: Path):
    """Work in `folder`, a copy of `source`, in which everything is put back at the end."""
    before = states(folder)
    with contextlib.chdir(folder):
        yield folder
    after = states(folder)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    for path in (folder / name for name in changed):  # parents first
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in (name for name in changed if name in before):
        if before[name]:
            shutil.copy2(source / name, folder / name)
        else:
            (folder / name).mkdir()
