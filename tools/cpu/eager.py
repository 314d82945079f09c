"""Run the checkpoint itself through PyTorch, on an NPU, a GPU or the CPU.

    python -m tools.cpu.eager compile --engine torch_cpu --precision fp32 --save_path model.torch --input input \\
        --checkpoint build/minilm_sst2/default/checkpoint --reference build/minilm_sst2/default/model.onnx
    python -m tools.cpu.eager run --model model.torch --device 0 ...        (as tools/cpu/runner.py)

    gate: equal: fp32, max |difference| 2.38e-06 (limit 1e-04) over 872 rows, 0 flips
    wrote model.torch

torch_npu needs Huawei's package of that name in this environment, and CANN's set_env.sh; torch_cuda needs a CUDA build of
PyTorch; torch_cpu is how both are tested here: no NPU has run this yet. Layers run one by one (eager), or through
torchair's graphs if that is installed. model.torch names engine, precision, checkpoint and inputs; the runner and the gate
of the CPU engines take it as any other file, so rows, record and table are the same. The whole call is timed, with the
copies to the device and back.
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
FIELDS = {"engine", "precision", "checkpoint", "inputs", "labels", "chip", "weights"}  # of a model.torch


def open_device(engine: str, number: str):
    """The torch.device of an engine. Raises UserError if PyTorch has none here."""
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


def card_facts(engine: str, chip: str, device) -> dict:
    """Which card it is, in the words of its driver. Raises UserError if it is another chip than CHIP= names."""
    import torch

    if engine == "torch_npu":
        facts = trip.facts(None, str(device.index or 0))
        if trip.unlike(chip, facts["npu"]):
            raise cli.UserError(f"CHIP={chip} was asked for, npu-smi says {facts['npu']}: give CHIP={facts['npu']}")
        return {key: value for key, value in facts.items() if value}
    return {"gpu": torch.cuda.get_device_name(device)} if engine == "torch_cuda" else {}


class Torch(engines.Engine):
    """One request at a time, of any shape."""

    name = ""

    def __init__(self, path, threads: int = 0, streams: int = 1, device: str = "0"):
        import torch

        header = cli.read_json(path)
        if header.keys() != FIELDS or header["engine"] not in ENGINES:
            raise cli.UserError(f"{path}: not a model.torch; delete it and run make again")
        self.name, self.precision, self.version = header["engine"], header["precision"], torch.__version__
        torch.set_num_threads(threads or cpu.cores())
        self.device = open_device(self.name, device)
        kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]
        self.module, mode = export.load(header["checkpoint"], header["labels"]).to(self.device, kind), "eager"
        if self.name == "torch_npu":
            with contextlib.suppress(ImportError):
                import torchair

                self.module = torch.compile(self.module, backend=torchair.get_npu_backend(), dynamic=False)
                mode = "torchair"
        self.facts = {"mode": mode, **card_facts(self.name, header["chip"], self.device)}
        self.inputs = [onnxfile.Tensor(name, np.int64, (None, None)) for name in header["inputs"]]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """The float32 logits of one request, arrays in model input order. UserError if PyTorch cannot run on them."""
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


def main():
    if sys.argv[1:2] == ["run"]:
        device = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        device.add_argument("--device", "-d", default="0")
        a, words = device.parse_known_args(sys.argv[2:])
        return runner.main(words, functools.partial(Torch, device=a.device))
    p = cli.parser(__doc__)
    p.add_argument("what", choices=["compile", "run"], help="run takes the options of tools/cpu/runner.py")
    p.add_argument("--chip", default="", help="the chip that npu-smi has to name")
    p.add_argument("--checkpoint", required=True, type=Path)
    p.add_argument("--reference", required=True, type=Path, help="the export to compare with")
    a = compile.parse_common(p, ENGINES)
    open_device(a.engine, "0")  # before the reference runs all sentences
    _, task, labels = tasks.of_inputs(a.input)
    header = {
        "engine": a.engine, "precision": a.precision, "checkpoint": str(a.checkpoint),
        "inputs": [name for name in compile.shapes_of(a.reference) if name in ROLES],
        "labels": labels, "chip": a.chip, "weights": cli.sha256(a.checkpoint / "MANIFEST"),
    }  # fmt: skip
    job = compile.Job(a.reference, a.reference, a.engine, a.precision, a.save_path, task, a.seeded, Torch)
    job.finish(a.input, a.rows, lambda: cli.write(a.save_path, json.dumps(header, indent=1) + "\n"))


if __name__ == "__main__":
    cli.run(main)
