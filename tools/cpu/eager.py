"""The checkpoint itself through PyTorch, on a device that is a name: an NPU, a GPU, or the CPU.

    python -m tools.cpu.eager compile --engine torch_cpu --precision fp32 --save_path model.torch --input input \\
        --checkpoint build/minilm_sst2/default/checkpoint --reference build/minilm_sst2/default/model.onnx
    python -m tools.cpu.eager run --model model.torch --device 0 ...        (as tools/cpu/runner.py)

    gate: equal: fp32, max |difference| 2.38e-06 (limit 1e-04) over 872 rows, 0 flips
    wrote model.torch

torch_npu needs Huawei's package of that name in this environment, and CANN's set_env.sh; torch_cuda a CUDA build of
PyTorch; torch_cpu is how both are tested here: no NPU has run this yet. Layers run one by one (eager), but through
torchair's graphs where that is installed. model.torch names engine, precision, checkpoint and inputs; the CPU engines'
runner and gate take it as any other file, so rows, record and table are the same. What is timed is the whole call, the
copies to the device and back included.
"""

import argparse
import contextlib
import functools
import json
import sys
from pathlib import Path

import numpy as np

from tools.base import onnxfile, tasks, trip
from tools.base.input_files import ROLES
from tools.cpu import compile, engines, runner
from tools.graph import export
from tools.make import cli, cpu

ENGINES = ("torch_npu", "torch_cuda", "torch_cpu")


def started(engine: str, number: str):
    """The torch.device of an engine. Raises UserError where PyTorch has none here."""
    import torch

    kind = engine.removeprefix("torch_")
    try:
        if kind == "npu":
            import torch_npu  # noqa: F401  it makes `npu` a name that PyTorch knows
        device = torch.device("cpu" if kind == "cpu" else f"{kind}:{number}")
        torch.zeros(1, device=device)
    except (ImportError, RuntimeError, AssertionError) as e:
        fault = f"no such device here ({onnxfile.first_line(e)}); is its build of PyTorch installed?"
        raise cli.UserError(f"ENGINE={engine}: {fault}") from None
    return device


def card(engine: str, chip: str, device) -> dict:
    """Which card it is, in the words of its driver. Raises UserError where it is not the chip asked for."""
    import torch

    if engine == "torch_npu":
        told = trip.facts(None, str(device.index or 0))
        if trip.unlike(chip, told["npu"]):
            raise cli.UserError(f"CHIP={chip} was asked for, npu-smi says {told['npu']}: give CHIP={told['npu']}")
        return {key: value for key, value in told.items() if value}
    return {"gpu": torch.cuda.get_device_name(device)} if engine == "torch_cuda" else {}


class Torch(engines.Engine):
    """One request at a time, of any shape."""

    name = ""

    def __init__(self, path, threads: int = 0, streams: int = 1, device: str = "0"):
        import torch

        said = cli.read_json(path)
        self.name, self.precision, self.version = said["engine"], said["precision"], torch.__version__
        torch.set_num_threads(threads or cpu.cores())
        self.device = started(self.name, device)
        kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]
        self.module, mode = export.load(said["checkpoint"], said["labels"]).to(self.device, kind), "eager"
        if self.name == "torch_npu":
            with contextlib.suppress(ImportError):
                import torchair

                self.module = torch.compile(self.module, backend=torchair.get_npu_backend(), dynamic=False)
                mode = "torchair"
        self.told = {"mode": mode, **card(self.name, said["chip"], self.device)}
        self.inputs = [onnxfile.Tensor(name, np.int64, (None, None)) for name in said["inputs"]]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to the logits, float32.

        Raises UserError where PyTorch cannot run on them.
        """
        import torch

        rows = {t.name: array for t, array in zip(self.inputs, feeds, strict=True)}
        try:
            with torch.inference_mode():
                tensors = {
                    name: torch.tensor(array, device=self.device) for name, array in export.with_mask(rows).items()
                }
                return [self.module(**tensors).logits.float().cpu().numpy()]
        except RuntimeError as e:
            raise cli.UserError(f"{self.name}: {onnxfile.first_line(e)}; is the device free?") from None


def run(words: list[str]) -> None:
    """The runner's command line, on one device of an engine of model.torch."""
    p = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    p.add_argument("--device", "-d", default="0")
    a, words = p.parse_known_args(words)
    runner.main(words, functools.partial(Torch, device=a.device))


def main():
    if sys.argv[1:2] == ["run"]:
        return run(sys.argv[2:])
    p = cli.parser(__doc__)
    p.add_argument("what", choices=["compile", "run"], help="run takes the options of tools/cpu/runner.py")
    p.add_argument("--engine", required=True, choices=ENGINES)
    p.add_argument("--chip", default="", help="what npu-smi has to name")
    p.add_argument("--precision", required=True, choices=["fp32", "fp16", "bf16"])
    p.add_argument("--checkpoint", required=True, type=Path)
    p.add_argument("--reference", required=True, type=Path, help="the export to compare with")
    p.add_argument("--input", required=True, type=Path, help="folder of preprocess.py: the sentences of the gate")
    p.add_argument("--rows", type=int, help="use only this many of them, longest first (all if not given)")
    p.add_argument("--seeded", action="store_true", help="random weights: judge by classes, not labels")
    p.add_argument("--save_path", required=True, type=Path)
    a = p.parse_args()
    _, task, labels = tasks.of_inputs(a.input)
    said = {
        "engine": a.engine, "precision": a.precision, "checkpoint": str(a.checkpoint),
        "inputs": [name for name in compile.shapes_of(a.reference) if name in ROLES],
        "labels": labels, "chip": a.chip, "weights": cli.sha256(a.checkpoint / "MANIFEST"),
    }  # fmt: skip
    cli.write(a.save_path, json.dumps(said, indent=1) + "\n")
    graphs = (a.reference, a.reference)
    job = compile.Job(*graphs, a.engine, a.precision, a.save_path, task.pair, a.seeded, task.several, Torch)
    try:
        print(compile.judged(job, a.input, a.rows).demand(a.save_path))
    except BaseException:
        a.save_path.unlink(missing_ok=True)
        raise
    print(f"wrote {a.save_path}")


if __name__ == "__main__":
    cli.run(main)
