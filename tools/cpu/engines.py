"""The CPU engines: load a compiled model, run one request.

A compiled model is one file that names its precision: for onnxruntime an .onnx with metadata (`bert2om.engine`,
`bert2om.precision`), a .native (tools/cpu/native/model.py) or the certificate.json beside one, or an .ir, a tar of OpenVINO's
model.xml and model.bin.
"""

import os
import queue
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from tools.base import input_files, onnxfile
from tools.make import cli, cpu

ENGINE, PRECISION, LAYERS = "bert2om.engine", "bert2om.precision", "bert2om.layers"
IR = ("model.xml", "model.bin")


class Engine:
    """What all engines have. run(feeds) computes one request: arrays in model input order to arrays in model output order,
    or a UserError. It may be called from `streams` threads at a time, each with its share of the cores."""

    ragged = False  # rows of different lengths cost no padding
    limited = True  # it obeys ONEDNN_MAX_CPU_ISA
    layers: str | None = None  # the precision of each encoder layer, if the file names it
    family = None  # the native engine's family of processor units
    streams = 1
    facts: dict = {}  # what else a record says of it
    certificate: dict | None = None  # the one by which sentences leave early
    left: np.ndarray | None = None  # with a certificate: how many sentences were answered after each layer

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


class Onnxruntime(Engine):
    """fp32 reference, and the fp16 rehearsal of fp16.py, whose roundings nothing may optimise away.

    Its threads spin during a request, but not for some milliseconds after it, as they would by default: requests take as
    long, and whatever runs between two of them has the processors.
    """

    limited = False

    def __init__(self, path, precision: str, threads: int = 0, streams: int = 1):
        import onnxruntime as ort

        if precision == "fp16-sim":
            settings: dict = {"graph_optimization_level": ort.GraphOptimizationLevel.ORT_DISABLE_ALL}
        else:
            settings, self.facts = onnxfile.PARTS, {"unfused": onnxfile.UNFUSED}
        settings, share = settings | {"session.force_spinning_stop": "1"}, max(1, (threads or cpu.cores()) // streams)
        self.path, self.session = path, onnxfile.session(path, share, **settings)
        self.precision, self.version, self.streams = precision, ort.__version__, streams
        kind = lambda i: onnxfile.dtype(path, i.name, i.type)
        self.inputs = [onnxfile.Tensor(i.name, kind(i), i.shape) for i in self.session.get_inputs()]
        self.names = [o.name for o in self.session.get_outputs()]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return self.session.run(self.names, dict(zip([i.name for i in self.inputs], feeds, strict=True)))
        except Exception as e:  # onnxruntime has no public base class for its errors
            fault = f"cannot run on these inputs: {onnxfile.first_line(e)}; make both again"
            raise cli.UserError(f"{self.path}: {fault}") from None


def last_line(error: Exception) -> str:
    """The last line that an error says: OpenVINO's say before it where in its sources they were found."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


class Openvino(Engine):
    """fp32, bf16 and int8 in the units that the CPU has. With one stream, a request uses all cores (latency hint)."""

    # Beside int8, the rest stays fp32: with bf16, rows of 32 tokens came out wrong (2026.4, open shapes).
    HINT = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

    def __init__(self, path, threads: int = 0, streams: int = 1):
        import openvino as ov

        self.path, model = path, read_ir(path)
        if not cpu.cpu_flags() & {"avx512f", "asimd"}:
            sums_for_means(model)
        self.precision, self.version = model.get_rt_info(PRECISION).astype(str), ov.__version__.split("-")[0]
        self.layers = model.get_rt_info(LAYERS).astype(str) if model.has_rt_info(LAYERS) else None
        cpu.check_units(self.precision)
        config: dict = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.HINT[self.precision]}
        if streams > 1:
            config |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
        config["INFERENCE_NUM_THREADS"] = threads or cpu.cores()
        self.model = ov.Core().compile_model(model, "CPU", config)
        self.idle, self.streams = queue.SimpleQueue(), streams
        for _ in range(streams):
            self.idle.put(self.model.create_infer_request())
        self.limited = self.precision != "fp32"  # the products of fp32 are MLAS's, which asks the CPU alone
        shape = lambda t: [d.get_length() if d.is_static else None for d in t.get_partial_shape()]
        kind = lambda t: onnxfile.dtype(path, t.get_any_name(), t.element_type.get_type_name())
        self.inputs = [onnxfile.Tensor(t.get_any_name(), kind(t), shape(t)) for t in self.model.inputs]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        request = self.idle.get()
        try:
            request.infer(feeds, share_inputs=True)
            return [o.data.copy() for o in request.output_tensors]
        except RuntimeError as e:
            raise cli.UserError(f"{self.path}: cannot run on these inputs: {last_line(e)}; make both again") from None
        finally:
            self.idle.put(request)


class Native(Engine):
    """The engine of tools/cpu/native: it computes a sentence's own tokens, a <pad> among them too, and never its padding.

    Rows without any mask, as pure inference gives them, are computed whole: the recipe's padded shape. With a certificate,
    sentences leave early.
    """

    ragged = True

    def __init__(self, path, threads: int = 0):
        from tools.cpu.native import certificate
        from tools.cpu.native import model as native

        if Path(path).suffix == ".json":
            self.certificate, path = certificate.read_certificate(path), Path(path).with_name("model.native")
        self.model = native.Model(path, threads or cpu.cores())
        if self.certificate:
            self.model.leave_early(self.certificate["heads"], self.certificate["sure"])
            self.left = self.model.left
        self.precision, self.version = self.model.arch["precision"], "1"
        self.layers, self.family = " ".join(self.model.arch["precisions"]), self.model.family
        self.inputs = [onnxfile.Tensor(name, np.int64, (None, None)) for name in self.model.arch["inputs"]]

    def run(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        inputs = dict(zip([t.name for t in self.inputs], feeds, strict=True))
        lengths, mask = input_files.lengths(inputs), input_files.mask_name(inputs)
        if mask and (np.count_nonzero(inputs[mask], 1) != lengths).any():
            raise cli.UserError(f"input {mask} hides a token before another that counts; use another ENGINE=")
        roles = {input_files.ROLES.get(name): rows for name, rows in inputs.items()}
        types = roles.get("token_type_ids")
        cut = lambda rows: [row[: max(n, 1)] for row, n in zip(rows, lengths, strict=True)] if lengths.any() else rows
        return [self.model.run(cut(roles["input_ids"]), None if types is None else cut(types))]


SUFFIX = "/sum_for_mean"


def sums_for_means(model) -> None:
    """Spell each mean over a hidden size that is no multiple of 16 as a sum and a product, in an ov.Model.

    OpenVINO fuses means into MVN, whose AVX2 kernel crashes the process there (2026.4; hidden sizes 312, 104, 40).
    """
    from openvino import opset13 as op

    for node in model.get_ordered_ops():
        shape = node.get_input_partial_shape(0) if node.get_type_name() == "ReduceMean" else None
        if shape is None or shape.rank.is_dynamic or shape[-1].is_dynamic or shape[-1].get_length() % 16 == 0:
            continue
        total = op.reduce_sum(node.input_value(0), node.input_value(1), node.get_attributes()["keep_dims"])
        product = op.multiply(total, op.constant(np.float32(1 / shape[-1].get_length())))
        product.set_friendly_name(node.get_friendly_name() + SUFFIX)
        node.output(0).replace(product.output(0))


def means_again(model) -> None:
    """Undo sums_for_means, in that model or its quantised form: newer units are faster on means, which OpenVINO fuses."""
    from openvino import opset13 as op

    for node in model.get_ordered_ops():
        if node.get_friendly_name().endswith(SUFFIX):
            total = node.input_value(0).get_node()
            mean = op.reduce_mean(total.input_value(0), total.input_value(1), total.get_attributes()["keep_dims"])
            mean.set_friendly_name(node.get_friendly_name().removesuffix(SUFFIX))
            node.output(0).replace(mean.output(0))


def write_ir(model, path: Path, precision: str, layers: list[str]) -> None:
    """Write an ov.Model as a tar of model.xml and model.bin, with the same bytes each time. layers: each one's precision."""
    import openvino as ov

    model.set_rt_info(precision, PRECISION)
    model.set_rt_info(" ".join(layers), LAYERS)
    with cli.whole_file(path) as f, tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".") as folder:
        try:
            ov.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)
        except RuntimeError as e:  # OpenVINO calls a full disk `basic_ios::clear: iostream error`
            raise cli.UserError(f"{path}: OpenVINO cannot write it ({e}); is the disk full?") from None
        with tarfile.open(fileobj=f, mode="w") as tar:
            for name in IR:
                member = tarfile.TarInfo(name)
                member.size = Path(folder, name).stat().st_size
                with Path(folder, name).open("rb") as content:
                    tar.addfile(member, content)


def ir_member(tar, name: str) -> bytes:
    """A file of an .ir. KeyError or tarfile.TarError if it is not whole, or claims to be larger than the .ir."""
    member = tar.getmember(name)
    if not member.isreg() or member.issparse() or member.size > os.fstat(tar.fileobj.fileno()).st_size:
        raise tarfile.ReadError(f"{name} is no plain file of its size")
    return tar.extractfile(member).read()


def read_ir(path):
    """The ov.Model of an .ir file. UserError if it is no such file."""
    import openvino as ov

    try:
        with tarfile.open(cli.regular(path, 1 << 32), "r:") as tar:
            xml, weights = (ir_member(tar, name) for name in IR)
        model = ov.Core().read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))
        if (precision := model.get_rt_info(PRECISION).astype(str)) not in Openvino.HINT:
            raise RuntimeError(f"its precision is {precision!r:.20}")
        return model
    except (tarfile.TarError, KeyError, OSError, EOFError, ValueError, RuntimeError) as e:
        if isinstance(e, OSError) and e.filename:
            raise
        raise cli.UserError(
            f"{path}: no model that OpenVINO knows ({last_line(e)}); delete it and run make again"
        ) from None


def load(path, threads: int = 0, streams: int = 1):
    """Open a compiled model with the engine and precision that it names. threads: 0 for all cores. UserError for a damaged file."""
    if not 0 <= threads <= 4096:
        raise cli.UserError(f"--threads {threads}: not from 1 to 4096, or 0 for all cores")
    if Path(path).suffix in (".native", ".json"):
        return Native(path, threads)
    if Path(path).suffix == ".ir":
        return Openvino(path, threads, streams)
    props = {p.key: p.value for p in onnxfile.load_model(path, weights=False).metadata_props}
    return Onnxruntime(path, props.get(PRECISION, "fp32"), threads, streams)


def all_logits(engine, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """An engine's logits, float32 [n, labels], of int64 [n, length] inputs, in their order."""
    once = lambda feeds: engine.run(list(feeds.values()))[0]
    return input_files.in_batches(once, {t.name: t.shape for t in engine.inputs}, inputs, type(engine).__name__)
