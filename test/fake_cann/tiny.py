"""A model of a few nodes with BERT's inputs and output, and how tests start tools with the stand-ins on PATH."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
INPUTS = ("input_ids", "attention_mask")
# What atc is told of them: rows of one length, or gears.
SHAPE = "--input_shape=input_ids:4,8;attention_mask:4,8"
GEARS = ("--input_shape=input_ids:4,-1;attention_mask:4,-1", "--input_format=ND", "--dynamic_dims=8,8;16,16")
# conftest.py's, where pytest runs
PYTHON = Path(os.environ["BERT2OM_WARM"], "venv/bin/python") if "BERT2OM_WARM" in os.environ else Path(sys.executable)


def model(path, batch=None, length=None, opset=11):
    """Masked mean of embeddings, times a matrix: int64 [batch, length] twice -> output fp32 [batch, 2]."""
    rng = np.random.default_rng(0)
    weights = {"E": rng.standard_normal((100, 4)), "W": rng.standard_normal((4, 2))}
    nodes = [
        helper.make_node("Gather", ["E", "input_ids"], ["e"], name="Gather_0"),
        helper.make_node("Cast", ["attention_mask"], ["m"], name="Cast_1", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m"], ["m3"], name="Unsqueeze_2", axes=[2]),
        helper.make_node("Mul", ["e", "m3"], ["em"], name="Mul_3"),
        helper.make_node("ReduceMean", ["em"], ["p"], name="ReduceMean_4", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["p", "W"], ["output"], name="MatMul_5"),
    ]
    dims = [batch or "batch", length or "length"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, dims) for n in INPUTS]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [dims[0], 2])
    tensors = [numpy_helper.from_array(w.astype("f4"), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def environment(**more) -> dict:
    """The environment of a process that finds the stand-ins; None removes a variable."""
    paths = {"PATH": f"{HERE / 'bin'}:{PYTHON.parent}:{os.environ['PATH']}", "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
    env = os.environ | paths | {"BERT2OM_TEST_STANDIN": "1", "OMP_NUM_THREADS": "1"} | more
    return {k: v for k, v in env.items() if v is not None}


def tool(name, *words, cwd, **env):
    """Run `python -m tools.<name>`; the finished process, with its output as text."""
    command = [PYTHON, "-m", f"tools.{name}", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(**env), capture_output=True, text=True, check=False)
