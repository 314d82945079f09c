"""Run a BERT classifier from a model.native file on the CPU, by the newest units it has, without padding.

    from tools.cpu.native import model as native
    model = native.Model("model.native", threads=2)
    logits = model.run([[101, 2023, 102], [101, 102]])      # float32 [2, 2]

The engine itself is engine.c, and one small C file for each family of processor units (make builds build/lib/native.so
of them). tools/make/chips.py says which units each needs; `Model.cpu_supports` names the one that runs a precision here, or what to
use instead. fp32's logits are the same bits on all of them, and so are int8's (docs/bits.md).

A model.native file is, in this order:
    8 bytes   magic "bert2om1"
    4 bytes   little-endian length of the header
    header    JSON: architecture, precision of every layer, sha256 of the ONNX file
              (the embeddings and the pooler are bf16 beside bf16 and int8 layers, else fp32)
    zeros     up to a multiple of 4096
    payload   the tensors that `tensors()` lists, each at a multiple of 64; their sizes follow from the header
The weights are cut into tiles as AMX, VDPBF16PS, VPDPBUSD, BFDOT and USDOT all read them (convert.py does it).
"""

import ctypes
import json
import mmap
import os
import struct
import threading
from pathlib import Path

import numpy as np

from tools.make import cli, cpu
from tools.make.chips import AVX512, FAMILIES  # noqa: F401

MAGIC = b"bert2om1"
PRECISIONS = ("bf16", "int8", "fp32")  # in the order of engine.c's enum number
HEADS = ("tanh", "tanh relu", "relu", "gelu")  # what follows the pooler, in the order of net.h's enum head
GELUS = ("erf", "tanh")  # the two forms of the feed-forward's GELU
BYTES = {"bf16": 2, "int8": 1, "fp32": 4}  # of a weight
LIBRARY = cli.ROOT / "build" / "lib" / "native.so"
INSTEAD = "use ENGINE=openvino or ENGINE=onnxruntime"
GELU_FLOOR = 0.171875  # the same in engine.c: int8 moves GELU's result up by this, to fill an unsigned byte
LIMITS = {  # what a header may say: larger values are not BERT classifiers, and would overflow an index in C
    "layers": 96, "hidden": 4096, "heads": 64, "inter": 16384, "vocab": 1 << 20, "positions": 4096,
}  # fmt: skip

LARGEST = 1 << 32  # bytes of weights: BERT-large has a sixth of it


def precision_of(arch):
    """PRECISION= of a file. Beside int8 layers activations are fp32 where the header says so, else bf16."""
    if "int8" not in arch["precisions"]:
        return widest(arch)
    return "int8" if arch.get("activations") == "fp32" else "int8-bf16"


def up(x, to):
    return (x + to - 1) // to * to


# ---- the file's layout ------------------------------------------------------------------------------------------


def sizes(arch):
    """Padded sizes of an architecture: what engine.c's `sizes` computes."""
    hdp = up(arch["hidden"] // arch["heads"], 32)
    ways = -(-arch["inter"] // 1024) if arch["inter"] > 1536 else 1
    return {
        "slice": up(-(-arch["inter"] // ways), 64),  # of the feed-forward: what leaves room in a 2 MB L2
        "h": up(arch["hidden"], 64),
        "hdp": hdp,
        "ctx": up(arch["heads"] * hdp, 64),
        "inter": up(arch["inter"], 64),
        "qkv": up(3 * arch["hidden"], 32),
    }


def widest(arch):
    """The precision of the embeddings and the pooler."""
    return "fp32" if "fp32" in arch["precisions"] else "bf16"


def labels_of(arch):
    """Outputs of the classifier. Files of two do not say so, nor those without token types."""
    return arch.get("labels", 2)


def types_of(arch):
    """Token types, 0 where the file knows type 0 alone."""
    return arch.get("types", 0)


def head_of(arch):
    """What follows the pooler, as HEADS has it."""
    return arch.get("head", "tanh relu" if arch["relu"] else "tanh")


def tensors(arch):
    """Names and sizes in bytes of the payload's tensors, in the file's order. engine.c indexes them by position."""
    s, f32, wide = sizes(arch), 4, BYTES[widest(arch)]
    yield "word", arch["vocab"] * s["h"] * wide
    yield "position", arch["positions"] * s["h"] * f32
    yield from ((name, s["h"] * f32) for name in ("norm.gamma", "norm.beta"))
    for i, precision in enumerate(arch["precisions"]):
        int8 = precision == "int8"
        for name, k, n, smooth in (
            ("qkv", s["h"], s["qkv"], True),
            ("out", s["ctx"], s["h"], False),
            ("up", s["h"], s["inter"], True),
            ("down", s["inter"], s["h"], False),
        ):
            yield f"{i}.{name}.weight", k * n * BYTES[precision]
            yield f"{i}.{name}.bias", n * f32
            yield f"{i}.{name}.scale", n * f32 * int8
            if smooth:
                yield f"{i}.{name}.smooth", k * f32 * int8
            if name in ("out", "down"):
                yield from ((f"{i}.{name}.{part}", s["h"] * f32) for part in ("gamma", "beta"))
    yield "pooler.weight", s["h"] * s["h"] * wide
    yield "pooler.bias", s["h"] * f32
    yield "classifier.weight", labels_of(arch) * s["h"] * f32
    yield "classifier.bias", labels_of(arch) * f32
    yield "type", types_of(arch) * s["h"] * f32


def offsets(arch):
    """Where each tensor starts in the payload, and the payload's length."""
    at, where = 0, []
    for _, size in tensors(arch):
        where.append(at)
        at += up(size, 64)
    return where, at


def check_arch(arch, where):
    """Raise UserError unless a header's values are ones that engine.c can index without a check of its own."""
    try:
        bad = next((k for k, most in LIMITS.items() if type(arch[k]) is not int or not 0 < arch[k] <= most), None)
        h, heads = arch["hidden"], arch["heads"]
        if not bad and (h % heads or h // heads % 2 or h // heads > 64):
            bad = "heads"
        for key, value, least in (("labels", labels_of(arch), 1), ("types", types_of(arch), 0)):
            if not bad and (type(value) is not int or not least <= value <= 1024):
                bad = key
        if not bad and (type(arch["eps"]) is not float or not 0 < arch["eps"] < 1):
            bad = "eps"
        if not bad and arch["relu"] not in (True, False):
            bad = "relu"
        for key, value, known in (("head", head_of(arch), HEADS), ("gelu", arch.get("gelu", "erf"), GELUS)):
            if not bad and value not in known:
                bad = key
        precisions = arch["precisions"]
        if not bad and arch.get("activations", "fp32") != "fp32":
            bad = "activations"
        if not bad and (len(precisions) != arch["layers"] or not set(precisions) <= set(PRECISIONS)):
            bad = "precisions"
        if not bad and "fp32" in precisions and len(set(precisions)) > 1:
            bad = "precisions"
    except (AttributeError, KeyError, TypeError) as e:
        bad = str(e)
    if bad:
        raise cli.UserError(f"{where}: no architecture the native engine knows: {bad}; {INSTEAD}")


# ---- running ----------------------------------------------------------------------------------------------------


class Net(ctypes.Structure):
    """struct net of engine.c."""

    _fields_ = [
        *(
            (n, ctypes.c_int32)
            for n in [
                "layers",
                "hidden",
                "heads",
                "inter",
                "vocab",
                "positions",
                "slice",
                "head",
                "wide",
                "labels",
                "gelu",
            ]
        ),
        ("eps", ctypes.c_float),
        *((n, ctypes.c_void_p) for n in ("base", "off", "precision", "sums")),
    ]


def load_library(path=None):
    """The engine as a ctypes library. path: BERT2OM_NATIVE of the environment, else build/lib/native.so, if None.

    Raises UserError where it cannot be loaded.
    """
    path = Path(path or os.environ.get("BERT2OM_NATIVE") or LIBRARY)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as e:
        raise cli.UserError(
            f"{path}: cannot load the native engine ({e}); make it with `make build/lib/native.so`"
        ) from e
    library.native_bytes.restype = ctypes.c_int64
    return library


def memory(size):
    """Memory in 2 MB pages where the kernel has them: far fewer TLB misses when weights stream by.

    It is private: shared memory has small pages, whatever is advised, and a forked process would compute in it too.
    """
    m = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        m.madvise(mmap.MADV_HUGEPAGE)
    return m


def address(m):
    return ctypes.addressof(ctypes.c_char.from_buffer(m))


class Model:
    """A model.native file in memory. `run` may be called from several threads: calls wait for each other."""

    BLOCK, GROUP = 320, 4  # rows of a block; blocks a thread takes through the layers together

    def __init__(self, path, threads=2, library=None):
        """Raises cli.UserError for a file that is not whole or not ours, a missing library, or a CPU without the units."""
        with Path(path).open("rb") as f:
            head = f.read(12)
            if len(head) < 12 or head[:8] != MAGIC:
                raise cli.UserError(f"{path}: not a model.native file; make it with tools/cpu/native/convert.py")
            (length,) = struct.unpack("<I", head[8:])
            try:
                self.arch = json.loads(f.read(min(length, 1 << 20)))
            except (ValueError, RecursionError) as e:
                raise cli.UserError(f"{path}: the header is damaged; make the file again") from e
            check_arch(self.arch, path)
            inputs = self.arch.get("inputs")
            if not isinstance(inputs, list) or "input_ids" not in inputs or not any("mask" in str(i) for i in inputs):
                raise cli.UserError(f"{path}: the header names no inputs; make the file again")
            where, size = offsets(self.arch)
            if size > LARGEST:
                raise cli.UserError(f"{path}: {size} bytes of weights, more than {LARGEST}; make the file again")
            start = up(12 + length, 4096)
            found = os.fstat(f.fileno()).st_size
            if found != start + size:
                raise cli.UserError(f"{path}: {found} bytes where the header promises {start + size}; make it again")
            self.library = load_library(library)
            self.precision = precision_of(self.arch)
            ok, self.family = self.cpu_supports(self.precision, library)
            if not ok:
                raise cli.UserError(f"{path}: {self.family}")
            self.weights = memory(size)
            f.seek(start)
            if f.readinto(self.weights) != size:
                raise cli.UserError(f"{path}: the file got shorter while it was read")
        self.offsets = np.array(where, np.int64)
        self.numbers = np.array([PRECISIONS.index(p) for p in self.arch["precisions"]], np.int32)
        self.threads, self.lock, self.work = threads, threading.Lock(), memory(0)
        known = (
            self.arch
            | (s := sizes(self.arch))
            | {"wide": PRECISIONS.index(widest(self.arch)), "labels": labels_of(self.arch)}
            | {"head": HEADS.index(head_of(self.arch)), "gelu": GELUS.index(self.arch.get("gelu", "erf"))}
        )
        names = [field[0] for field in Net._fields_[:12]]
        self.sums = np.zeros(self.arch["layers"] * (s["qkv"] + s["h"] + s["inter"]), np.int32)
        arrays = (a.ctypes.data for a in (self.offsets, self.numbers, self.sums))
        self.net = Net(*(known[name] for name in names), address(self.weights), *arrays)
        self.number = list(FAMILIES).index(self.family)
        self.tile = self.library.native_rows(self.number)
        if self.library.native_shifted(self.number):
            self.library.native_sums(ctypes.byref(self.net), self.sums.ctypes.data_as(ctypes.c_void_p))

    @staticmethod
    def cpu_supports(precision, library=None):
        """(True, the family that computes a precision here) or (False, one line that says why not and what to use)."""
        here = cpu.cpu_flags()
        for name, needs in FAMILIES.items():
            if needs.get(precision, {""}) <= here and (name != "amx" or load_library(library).native_amx_allowed()):
                return True, name
        return False, f"{cpu.without(f'unit for {precision}')} that the native engine knows; {INSTEAD}"

    def run(self, batch, types=None):
        """Logits float32 [n, labels].

        batch: a list of n lists of token ids, computed without padding; or (ids int [n, S], lengths [n]) to compute
        all S tokens of each row, with those from lengths[i] on masked as keys. types: token types in the same form, all 0
        if None.
        Raises cli.UserError for a type that the file does not know, an id outside the vocabulary or a sentence that is empty or too long.
        """
        if isinstance(batch, tuple):
            ids, keys = np.asarray(batch[0]), np.asarray(batch[1], np.int32)
            rows = np.full(len(ids), ids.shape[1], np.int32)
            ids = ids.reshape(-1)
        else:
            rows = keys = np.fromiter(map(len, batch), np.int32, len(batch))
            ids = np.concatenate([np.zeros(0, np.int64), *batch])
        if types is not None:
            types = np.concatenate([np.zeros(0, np.int64), *types])
            if (
                len(types) != len(ids)
                or types.min(initial=0) < 0
                or types.max(initial=0) >= max(types_of(self.arch), 1)
            ):
                raise cli.UserError(f"token types: not one below {max(types_of(self.arch), 1)} for each token")
            types = np.ascontiguousarray(types, np.int32) if types.any() else None
        n, arch = len(rows), self.arch
        if not n:
            return np.zeros((0, labels_of(arch)), np.float32)
        bad = (rows > arch["positions"]) | (keys < 1) | (keys > rows)
        if bad.any():
            i = int(bad.argmax())
            raise cli.UserError(f"sentence {i}: {keys[i]} of {rows[i]} tokens; must be 1 to {arch['positions']}")
        if ids.min() < 0 or ids.max() >= arch["vocab"]:
            i = int(((ids < 0) | (ids >= arch["vocab"])).argmax())
            i, t = int(np.searchsorted(rows.cumsum(), i, "right")), ids[i]
            raise cli.UserError(f"sentence {i}: token id {t} is outside the vocabulary of {arch['vocab']}")
        start = np.concatenate([[0], rows[:-1].cumsum(dtype=np.int64)])
        ids, keys = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(keys)
        logits = np.empty((n, labels_of(arch)), np.float32)
        longest = int(rows.max())
        # every thread gets the same number of equal blocks, of whole tiles
        room = -(-int(rows.sum()) // self.threads)
        block = up(-(-room // -(-room // self.BLOCK)), self.tile)
        plan = (n, block, self.GROUP, longest, self.threads)
        with self.lock:
            need = self.library.native_bytes(self.number, ctypes.byref(self.net), *plan)
            if len(self.work) < need:
                self.work = memory(need)
            given = (ids, types, start, rows, keys)
            arrays = (None if a is None else a.ctypes.data_as(ctypes.c_void_p) for a in given)
            work, out = ctypes.c_void_p(address(self.work)), logits.ctypes.data_as(ctypes.c_void_p)
            self.library.native_run(self.number, ctypes.byref(self.net), *arrays, *plan, work, out)
        return logits
