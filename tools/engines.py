"""The CPU engines: load a compiled model.onnx, run one request.

A compiled model names its engine and precision in its ONNX metadata (`bert2om.engine`, `bert2om.precision`), as an
.om file names its chip, so whoever runs it needs only the file.
"""

import re
from pathlib import Path

import numpy as np

import cli

ENGINE, PRECISION = "bert2om.engine", "bert2om.precision"
DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "i64": np.int64, "f32": np.float32}


def natural(path) -> list:
    """Sort key that puts 2.bin before 10.bin, as ais_bench orders files."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def cpu_flags() -> set[str]:
    """Feature flags of this CPU as Linux names them (x86 `flags`, Arm `Features`)."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.split(":")[1].split())
    return set()


class Tensor:
    """Name, numpy dtype and shape (None where dynamic) of one input or output."""

    def __init__(self, name: str, dtype, shape):
        self.name, self.dtype = name, np.dtype(dtype)
        self.shape = tuple(d if isinstance(d, int) and d > 0 else None for d in shape)

    @property
    def bytes(self) -> int:
        """Size of one whole tensor; 0 where a dimension is dynamic."""
        return 0 if None in self.shape else int(np.prod(self.shape)) * self.dtype.itemsize


class Onnxruntime:
    """fp32 reference. One request uses all cores."""

    def __init__(self, path, precision: str, threads: int = 0):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.precision, self.version = precision, ort.__version__
        self.inputs = [Tensor(i.name, DTYPES[i.type], i.shape) for i in self.session.get_inputs()]
        self.names = [o.name for o in self.session.get_outputs()]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to arrays in model output order."""
        return self.session.run(self.names, dict(zip([i.name for i in self.inputs], feeds, strict=True)))


class Openvino:
    """fp32, bf16 and int8 in the units the CPU has. One request uses all cores (latency hint)."""

    HINT = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # int8: what is not quantised stays bf16

    def __init__(self, path, precision: str, threads: int = 0):
        import openvino as ov

        flags = cpu_flags()
        bf16 = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
        if precision == "bf16" and not bf16:
            raise cli.UserError("PRECISION=bf16: this CPU has no bf16 unit (avx512_bf16, amx_bf16); use PRECISION=fp32")
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.HINT[precision] if bf16 else "f32"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        self.model = ov.Core().compile_model(str(path), "CPU", config)
        self.request = self.model.create_infer_request()
        self.precision, self.version = precision, ov.__version__.split("-")[0]
        shape = lambda t: [d.get_length() if d.is_static else None for d in t.get_partial_shape()]
        self.inputs = [
            Tensor(t.get_any_name(), DTYPES[t.element_type.get_type_name()], shape(t)) for t in self.model.inputs
        ]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to arrays in model output order."""
        self.request.infer(feeds, share_inputs=True)
        return [o.data.copy() for o in self.request.output_tensors]


ENGINES = {"onnxruntime": Onnxruntime, "openvino": Openvino}


def load(path, threads: int = 0):
    """Open a compiled model.onnx with the engine and precision its metadata names."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise cli.UserError(f"{path}: not an ONNX file, or cut short; delete it and run make again") from None
    props = {p.key: p.value for p in model.metadata_props}
    engine, precision = props.get(ENGINE, "onnxruntime"), props.get(PRECISION, "fp32")
    if engine not in ENGINES:
        raise cli.UserError(f"{path}: made for engine '{engine}', which is not one of: {' '.join(ENGINES)}")
    return ENGINES[engine](path, precision, threads)


def read_inputs(folder, names) -> dict[str, np.ndarray]:
    """The int64 [n, length] arrays that preprocess.py wrote to `folder`, in the natural order of their files.

    One row a .bin file; rows of whole-batch .npy files without their padding rows, at the longest length.
    """
    folder = Path(folder)
    arrays = {}
    for name in names:
        files = sorted((folder / name).iterdir(), key=natural)
        if files and files[0].suffix == ".npy":
            blocks = [np.load(f) for f in files]
            longest = max(b.shape[1] for b in blocks)
            arrays[name] = np.concatenate([np.pad(b, ((0, 0), (0, longest - b.shape[1]))) for b in blocks])
        else:
            arrays[name] = np.stack([np.fromfile(f, np.int64) for f in files])
    used = next(iter(arrays.values())).any(1)
    return {name: a[used] for name, a in arrays.items()}


def logits(engine, arrays: dict[str, np.ndarray], batch: int = 32) -> np.ndarray:
    """Float32 [n, 2] logits of int64 [n, length] arrays, in their order.

    A static graph gets its own shape, the last request filled up with its first row; a dynamic one gets batches of
    like length, cut to the longest of them.
    """
    from tqdm import tqdm

    columns = [arrays[t.name] for t in engine.inputs]
    rows, length = engine.inputs[0].shape
    mask = next((arrays[n] for n in ("attention_mask", "input_mask") if n in arrays), columns[0] != 0)
    used = mask.sum(1)
    order = np.argsort(used, kind="stable")
    out = [None] * len(order)
    step = rows or batch
    for start in tqdm(range(0, len(order), step), desc="logits", unit="batch", leave=False, disable=None):
        chosen = order[start : start + step]
        padded = np.concatenate([chosen, np.repeat(chosen[:1], step - len(chosen))]) if rows else chosen
        cut = length or int(used[chosen].max())
        made = engine.run([np.ascontiguousarray(c[padded, :cut]) for c in columns])[0]
        for row, values in zip(chosen, made, strict=False):
            out[row] = values
    return np.array(out, np.float32)
