"""One way to read an ONNX file, and one to open it in onnxruntime."""

import contextlib
import os
import re

import numpy as np

from tools.make import cli, cpu

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "i64": np.int64, "f32": np.float32}


def first_line(error: Exception) -> str:
    """The first line of an error's text; its type if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def refuse(fault: str, advice: str):
    """Turn what fails in the block into one UserError, `fault: reason; advice`: onnx, onnx_ir, onnxsim, onnxruntime and
    protobuf each raise errors of their own kinds."""
    try:
        yield
    except (OSError, cli.UserError):
        raise
    except Exception as e:
        raise cli.UserError(f"{fault}: {first_line(e)}; {advice}") from None


def dtype(path, name: str, kind: str):
    """The numpy type of an input, from its engine's word for it; UserError for a type that no classifier here has."""
    if kind not in DTYPES:
        raise cli.UserError(f"{path}: input {name} is of {kind}, not int64 or float32; export the graph again")
    return DTYPES[kind]


class Tensor:
    """Name, numpy dtype and shape (None for a dynamic dim) of one input or output."""

    def __init__(self, name: str, dtype, shape):
        self.name, self.dtype = name, np.dtype(dtype)
        self.shape = tuple(d if isinstance(d, int) and d > 0 else None for d in shape)


def name_of(model) -> str:
    """How a message names a graph that is given as a path or as bytes."""
    return "the rewritten graph" if isinstance(model, bytes) else str(model)


# What onnxruntime 1.31 is told not to fuse: its SkipLayerNormalization takes longer than the parts (requests of 8 x 128
# tokens took 0.89 x the time without it on MiniLM, 0.93 x on BERT-base; AVX-512, one thread and two).
UNFUSED = "SkipLayerNormFusion"
PARTS = {"optimization.disable_specified_optimizers": UNFUSED}


def session(model, threads: int | None = None, **settings):
    """An onnxruntime CPU session of a path or of serialized bytes; UserError if onnxruntime refuses the graph.

    threads: 0 means all cores; None means the first number of OMP_NUM_THREADS, or all cores without one.

    Numbers below 1.2e-38 count as zero: onnxruntime 1.31's softmax makes such numbers from masked scores, and then took
    ten times as long (37 of 240 ms for a request of 8 x 128 tokens); the logits keep their bytes. onnxruntime takes the
    setting from the first session of a process alone, so every session has it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    if threads is None:  # OMP_NUM_THREADS may be a list, with a number for each level of nested threads
        first = re.match(r"\s*(\d{1,4})\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
        threads = int(first[1]) if first else 0
    # Always a number: by itself onnxruntime starts a thread for each core of the machine, pinned to where it may not run.
    options.intra_op_num_threads = threads or cpu.cores()
    options.log_severity_level = 4  # its errors are raised, too
    for name, value in {"session.set_denormal_as_zero": "1", **settings}.items():
        options.add_session_config_entry(name, value) if "." in name else setattr(options, name, value)
    with refuse(f"{name_of(model)}: onnxruntime refuses it", "make it again"):
        graph = model if isinstance(model, bytes) else str(model)
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def load_model(path, weights=True):
    """An ONNX file as ModelProto; `weights`: with tensors that are in other files of its folder, never outside it.

    Raises UserError if it is no ONNX file, or is cut short.
    """
    import onnx

    with refuse(f"{path}: not an ONNX file, or cut short", "run make again"):
        return onnx.load(cli.regular(path, 1 << 31), load_external_data=weights)  # protobuf's own limit
