"""The CPU engines: load a compiled model, run one request.

A compiled model is one file that names its engine and precision, as an .om file names its chip, so whoever runs it needs
only the file: an .onnx with metadata (`bert2om.engine`, `bert2om.precision`); a .packed (tools/cpu/native/model.py); or an .ir, a
tar of OpenVINO's model.xml and model.bin.
"""

import os
import queue
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from tools import cli

ENGINE, PRECISION, LAYERS = "bert2om.engine", "bert2om.precision", "bert2om.layers"
IR = ("model.xml", "model.bin")
DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "i64": np.int64, "f32": np.float32}


# What ONEDNN_MAX_CPU_ISA may say, rising, and the units that each step brings (oneDNN, src/cpu/x64/cpu_isa_traits.hpp).
MAX_ISA = "ONEDNN_MAX_CPU_ISA"
STEPS = {
    "SSE41": (), "AVX": (), "AVX2": ("avx2",), "AVX2_VNNI": ("avx_vnni",), "AVX2_VNNI_2": (), "AVX512_CORE": ("avx512f",),
    "AVX512_CORE_VNNI": ("avx512_vnni",), "AVX512_CORE_BF16": ("avx512_bf16",), "AVX512_CORE_FP16": ("avx512_fp16",),
    "AVX512_CORE_AMX": ("amx_tile", "amx_bf16", "amx_int8"),
}  # fmt: skip
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # any of them multiplies bf16
VNNI = {"avx_vnni", "avx512_vnni", "asimddp", "i8mm"}  # any of them multiplies int8 and sums in 32 bits


def cpu_flags(limited=True) -> set[str]:
    """Feature flags of this CPU as Linux names them (x86 `flags`, Arm `Features`).

    limited: without the units that ONEDNN_MAX_CPU_ISA forbids. OpenVINO and PyTorch obey it, and so does our packed
    engine; onnxruntime's kernels have no such switch.
    """
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":")[1].split())
            break
    most = os.environ.get(MAX_ISA, "").upper() if limited else ""
    if most in STEPS:  # oneDNN takes no notice of other words
        flags -= {unit for step in list(STEPS)[list(STEPS).index(most) + 1 :] for unit in STEPS[step]}
    return flags


def without(what: str) -> str:
    """`this CPU has no WHAT`, or who forbids it."""
    most = os.environ.get(MAX_ISA)
    return f"{MAX_ISA}={most} leaves no {what}" if most else f"this CPU has no {what}"


def first_line(error: Exception) -> str:
    """The first line that an error says that says something."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_units(precision: str) -> None:
    """UserError where OpenVINO would give other answers in `precision`, for want of a unit.

    int8 without VNNI saturates its sums at 16 bits: 4 to 6 of the 872 sentences came out otherwise.
    """
    needs = {"bf16": (BF16, "bf16 unit (avx512_bf16, amx_bf16)"), "int8": (VNNI, "int8 unit (avx_vnni, avx512_vnni)")}
    if precision in needs and not cpu_flags() & needs[precision][0]:
        raise cli.UserError(f"PRECISION={precision}: {without(needs[precision][1])}; use PRECISION=fp32")


class Tensor:
    """Name, numpy dtype and shape (None where dynamic) of one input or output."""

    def __init__(self, name: str, dtype, shape):
        self.name, self.dtype = name, np.dtype(dtype)
        self.shape = tuple(d if isinstance(d, int) and d > 0 else None for d in shape)

    @property
    def bytes(self) -> int:
        """Size of one whole tensor; 0 where a dimension is dynamic."""
        return 0 if None in self.shape else int(np.prod(self.shape)) * self.dtype.itemsize


class Engine:
    """What all have: `run` may be called from `streams` threads at a time, each with its share of the cores.

    settings: the library's own, over those chosen here; tools/bench/knobs.py measures them.

    ragged: rows of any lengths cost no padding. limited: it obeys ONEDNN_MAX_CPU_ISA. layers: the precision of each
    encoder layer, where the file says it.
    """

    ragged = False
    limited = True
    layers = None
    streams = 1


def cores() -> int:
    return len(os.sched_getaffinity(0))


def session(model, threads: int = 0, **settings):
    """An onnxruntime CPU session of a path or of serialized bytes; threads: all cores if 0.

    Numbers below 1.2e-38 count as zero: onnxruntime 1.31's softmax makes such of masked scores, and took ten times as long
    over them (37 of 240 ms a request of 8 x 128 tokens; the logits keep their bytes). It heeds the first session of a
    process alone, so every session says it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its errors are raised, too
    for name, value in {"session.set_denormal_as_zero": "1", **settings}.items():
        options.add_session_config_entry(name, value) if "." in name else setattr(options, name, value)
    model = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Onnxruntime(Engine):
    """fp32 reference, and the fp16 rehearsal of fp16.py, whose roundings nothing may optimise away."""

    limited = False

    def __init__(self, path, precision: str, threads: int = 0, streams: int = 1, **settings):
        import onnxruntime as ort

        if precision == "fp16-sim":
            settings["graph_optimization_level"] = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        share = threads if streams == 1 else max(1, (threads or cores()) // streams)
        self.path, self.session = path, session(path, share, **settings)
        self.precision, self.version, self.streams = precision, ort.__version__, streams
        self.inputs = [Tensor(i.name, DTYPES[i.type], i.shape) for i in self.session.get_inputs()]
        self.names = [o.name for o in self.session.get_outputs()]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to arrays in model output order."""
        try:
            return self.session.run(self.names, dict(zip([i.name for i in self.inputs], feeds, strict=True)))
        except Exception as e:  # onnxruntime has no public base class for its errors
            raise cli.UserError(f"{self.path}: cannot run on these inputs: {first_line(e)}; make both again") from None


class Openvino(Engine):
    """fp32, bf16 and int8 in the units the CPU has. With one stream, a request uses all cores (latency hint)."""

    limited = True
    # int8: what is not quantised stays fp32. Beside bf16, rows of 32 tokens came out wrong (2026.4, open shapes).
    HINT = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

    def __init__(self, path, precision: str, threads: int = 0, streams: int = 1, **settings):
        import openvino as ov

        model = read_ir(path) if Path(path).suffix == ".ir" else ov.Core().read_model(path)
        said = {n: model.get_rt_info(n).astype(str) for n in (PRECISION, LAYERS) if model.has_rt_info(n)}
        precision, self.layers = said.get(PRECISION, precision), said.get(LAYERS)
        check_units(precision)
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.HINT[precision]}
        if streams > 1:
            config |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
        if threads or streams > 1:
            config["INFERENCE_NUM_THREADS"] = threads or cores()
        self.model = ov.Core().compile_model(model, "CPU", config | settings)
        self.idle, self.streams = queue.SimpleQueue(), streams
        for _ in range(streams):
            self.idle.put(self.model.create_infer_request())
        self.precision, self.version = precision, ov.__version__.split("-")[0]
        shape = lambda t: [d.get_length() if d.is_static else None for d in t.get_partial_shape()]
        self.inputs = [
            Tensor(t.get_any_name(), DTYPES[t.element_type.get_type_name()], shape(t)) for t in self.model.inputs
        ]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to arrays in model output order."""
        request = self.idle.get()
        try:
            request.infer(feeds, share_inputs=True)
            return [o.data.copy() for o in request.output_tensors]
        finally:
            self.idle.put(request)


class Packed(Engine):
    """bf16 and int8 in AMX, through tools/cpu/native/model.py: a sentence's own tokens are computed, its padding never.

    Rows without any mask, as pure inference gives them, are computed whole: the recipe's padded shape.
    """

    ragged = True

    def __init__(self, path, precision: str, threads: int = 0):
        from tools.cpu.native import model as packed

        self.model = packed.Model(path, threads or cores())
        self.precision, self.version = precision or self.model.precision, "1"
        self.layers = " ".join(self.model.arch["precisions"])
        self.names = self.model.arch["inputs"]
        self.inputs = [Tensor(name, np.int64, (None, None)) for name in self.names]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """One request: arrays in model input order to arrays in model output order."""
        given = dict(zip(self.names, feeds, strict=True))
        ids, mask = given["input_ids"], next(a for name, a in given.items() if "mask" in name)
        lengths = mask.sum(1)
        if not lengths.any():
            return [self.model.run((ids, np.full(len(ids), ids.shape[1])))]
        return [self.model.run([row[: max(n, 1)] for row, n in zip(ids, lengths, strict=True)])]


def write_ir(model, path: Path, precision: str, layers: list[str]) -> None:
    """Write an ov.Model as a tar of model.xml and model.bin, of the same bytes each time; layers: their precisions."""
    import openvino as ov

    model.set_rt_info(precision, PRECISION)
    model.set_rt_info(" ".join(layers), LAYERS)
    with tempfile.TemporaryDirectory() as folder, cli.whole_file(path) as f, tarfile.open(fileobj=f, mode="w") as tar:
        ov.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)
        for name in IR:
            member = tarfile.TarInfo(name)
            member.size = Path(folder, name).stat().st_size
            with Path(folder, name).open("rb") as content:
                tar.addfile(member, content)


def read_ir(path):
    """The ov.Model of an .ir file; UserError where it is none."""
    import openvino as ov

    try:
        with tarfile.open(path) as tar:
            xml, weights = (tar.extractfile(tar.getmember(name)).read() for name in IR)
        return ov.Core().read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))
    except (tarfile.TarError, KeyError, AttributeError, EOFError, RuntimeError) as e:
        why = (str(e) or type(e).__name__).splitlines()[0]
        raise cli.UserError(f"{path}: no model that OpenVINO knows ({why}); delete it and run make again") from None


ENGINES = {"onnxruntime": Onnxruntime, "openvino": Openvino, "packed": Packed}


def read(path, weights=True):
    """An ONNX file as ModelProto; `weights`: with tensors that lie in other files of its folder, never outside it."""
    import onnx

    try:
        return onnx.load(path, load_external_data=weights)
    except OSError:
        raise
    except Exception as e:  # protobuf's and onnx's own kinds
        raise cli.UserError(f"{path}: not an ONNX file, or cut short ({first_line(e)}); run make again") from None


def load(path, threads: int = 0, streams: int = 1):
    """Open a compiled model with the engine and precision it names. threads: all cores if 0."""
    if Path(path).suffix == ".packed":
        return Packed(path, "", threads)
    if Path(path).suffix == ".ir":
        return Openvino(path, "", threads, streams)
    props = {p.key: p.value for p in read(path, weights=False).metadata_props}
    engine, precision = props.get(ENGINE, "onnxruntime"), props.get(PRECISION, "fp32")
    if engine not in ENGINES:
        raise cli.UserError(f"{path}: made for engine '{engine}', which is not one of: {' '.join(ENGINES)}")
    try:
        return ENGINES[engine](path, precision, threads, streams)
    except cli.UserError:
        raise
    except Exception as e:  # each engine raises its own kinds for a graph it does not take
        raise cli.UserError(f"{path}: {engine} refuses it: {first_line(e)}; delete it and run make again") from None


def logits(engine, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Float32 [n, 2] of int64 [n, length] inputs, in their order, through an engine."""
    from tools.graph import gate

    once = lambda feeds: engine.run(list(feeds.values()))[0]
    return gate.in_batches(once, {t.name: t.shape for t in engine.inputs}, inputs, type(engine).__name__)
