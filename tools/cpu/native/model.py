"""Run a BERT classifier from a model.native file on the CPU, by the newest units it has, without padding.

    from tools.cpu.native import model as native
    model = native.Model("model.native", threads=2)
    logits = model.run([[101, 2023, 102], [101, 102]])      # float32 [2, 2]

The engine is engine.c and a C file for each family of processor units (chips.FAMILIES says which units each needs), all
in build/lib/native.so. README.md here describes the file, and docs/bits.md the logits that have the same bits everywhere.
"""

import contextlib
import ctypes
import itertools
import json
import mmap
import os
import struct
import threading
from pathlib import Path

import numpy as np

from tools.base.input_files import ROLES, UNMASKED, mask_name
from tools.make import cli, cpu
from tools.make.chips import FAMILIES

MAGIC = b"bert2om1"
PRECISIONS = ("bf16", "int8", "fp32")  # in the order of net.h's enum number
HEADS = ("tanh", "tanh relu", "relu", "gelu")  # activations behind the pooler, in the order of net.h's enum head
GELUS = ("erf", "tanh")  # the two forms of the feed-forward's GELU
MIXES = ({"fp32"}, {"bf16"}, {"int8"}, {"int8", "bf16"})  # precisions of the layers of one file
BYTES = {"bf16": 2, "int8": 1, "fp32": 4}  # of a weight
LIBRARY = cli.ROOT / "build" / "lib" / "native.so"
INSTEAD = "use ENGINE=openvino or ENGINE=onnxruntime"
GELU_FLOOR = 0.171875  # the same in pieces.h: int8 moves GELU's result up by this, to fill an unsigned byte
LIMITS = {  # of a header's values: others are not BERT classifiers, and would overflow an index in C
    "layers": (1, 96), "hidden": (1, 4096), "heads": (1, 64), "inter": (1, 16384), "vocab": (1, 1 << 20),
    "positions": (1, 4096), "labels": (1, 1024), "types": (0, 1024), "width": (1, 4096),
}  # fmt: skip
CHOICES = {"relu": (True, False), "head": HEADS, "gelu": GELUS, "activations": ("bf16", "fp32")}
LARGEST = 1 << 32  # bytes of weights: BERT-large has a sixth of it


def up(x, to):
    return (x + to - 1) // to * to


# ---- the file's layout ------------------------------------------------------------------------------------------


def sizes(arch):
    """Padded sizes of an architecture, in the order of net.h's struct size."""
    head, qkv = arch["hidden"] // arch["heads"], up(3 * arch["hidden"], 32)
    ways = -(-arch["inter"] // 1024) if arch["inter"] > 1536 else 1
    return {
        "slice": up(-(-arch["inter"] // ways), 64),  # of the feed-forward: what leaves room in a 2 MB L2
        "h": up(arch["hidden"], 64),
        "e": up(arch["width"], 64),
        "hd": head,
        "hdp": up(head, 32),
        "ctx": up(arch["heads"] * up(head, 32), 64),
        "inter": up(arch["inter"], 64),
        "qkv": qkv,
        "ld": qkv + 32,  # an odd number of cache lines: rows do not fall into the same L1 sets
    }


def with_defaults(header):
    """A header's architecture; a field that it lacks means what it meant before there was such a field.

    width: columns of the embeddings; where the layers have more, a linear layer stands between. types: token types, 0 if
    the file has type 0 alone. wide: the precision of the embeddings and the pooler. precision: PRECISION= of the file.
    """
    wide = "fp32" if "fp32" in header["precisions"] else "bf16"
    defaults = {"labels": 2, "types": 0, "width": header["hidden"], "gelu": "erf", "activations": "bf16"}
    arch = defaults | {"head": "tanh relu" if header["relu"] else "tanh"} | header
    int8 = "int8" if arch["activations"] == "fp32" else "int8-bf16"
    return arch | {"wide": wide, "precision": int8 if "int8" in header["precisions"] else wide}


def tensors(arch):
    """Names and sizes in bytes of the payload's tensors, in the file's order, by which net.h numbers them."""
    s, f32, wide = sizes(arch), 4, BYTES[arch["wide"]]
    width = s["e"]
    yield "word", arch["vocab"] * width * wide
    yield "position", arch["positions"] * width * f32
    yield from ((name, width * f32) for name in ("norm.gamma", "norm.beta"))
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
    yield "classifier.weight", arch["labels"] * s["h"] * f32
    yield "classifier.bias", arch["labels"] * f32
    yield "type", arch["types"] * width * f32
    if arch["width"] != arch["hidden"]:
        yield from (("projection.weight", width * s["h"] * wide), ("projection.bias", s["h"] * f32))


def check_arch(header, where):
    """The architecture of a header. UserError unless the C code can index by its values, which it does unchecked."""
    within = lambda value, least, most: type(value) is int and least <= value <= most
    try:
        arch = with_defaults(header)
        h, heads, precisions = arch["hidden"], arch["heads"], arch["precisions"]
        wrong = {name: not within(arch[name], *limits) for name, limits in LIMITS.items()}
        wrong |= {name: arch[name] not in choices for name, choices in CHOICES.items()}
        if not any(wrong.values()):
            wrong["heads"] = h % heads or h // heads % 2 or h // heads > 64
            wrong["width"] = arch["width"] > h
        wrong["eps"] = type(arch["eps"]) is not float or not 0 < arch["eps"] < 1
        wrong["precisions"] = len(precisions) != arch["layers"] or set(precisions) not in MIXES
        fault = next((name for name, is_wrong in wrong.items() if is_wrong), None)
    except (AttributeError, KeyError, TypeError) as e:
        fault = str(e)
    if fault:
        raise cli.UserError(f"{where}: no architecture the native engine knows: {fault}; {INSTEAD}")
    return arch


# ---- running ----------------------------------------------------------------------------------------------------


class Net(ctypes.Structure):
    """struct net of net.h."""

    NAMES = ("layers", "hidden", "heads", "width", "head", "wide", "labels", "gelu")
    _fields_ = [
        ("sizes", ctypes.c_int32 * 9),
        *((name, ctypes.c_int32) for name in NAMES),
        ("eps", ctypes.c_float),
        ("sure", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("base", "off", "precision", "sums", "exits")),
    ]


def load_library():
    """The engine as a ctypes library, from BERT2OM_NATIVE or build/lib/native.so. UserError if that cannot be loaded."""
    path = Path(os.environ.get("BERT2OM_NATIVE") or LIBRARY)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as e:
        fault = f"cannot load the native engine ({e}); make it with `make build/lib/native.so`"
        raise cli.UserError(f"{path}: {fault}") from e
    library.native_bytes.restype = ctypes.c_int64
    return library


def tiles_allowed():
    """Whether the kernel lets this process use AMX's tiles: arch_prctl(ARCH_REQ_XCOMP_PERM, tile data) of x86-64."""
    return not ctypes.CDLL(None).syscall(158, 0x1023, 18)


def family_for(precision):
    """The family of units that computes a precision here. Raises UserError if none can."""
    flags = cpu.cpu_flags()
    for name, needs in FAMILIES.items():
        if needs.get(precision, {""}) <= flags and (not name.startswith("amx") or tiles_allowed()):
            return name
    raise cli.UserError(f"{cpu.without(f'unit for {precision}')} that the native engine knows; {INSTEAD}")


def memory(size):
    """Memory in 2 MB pages if the kernel has them: far fewer TLB misses when weights stream by.

    It is private: shared memory has small pages, whatever madvise says, and a forked process would compute in it too.
    """
    m = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        m.madvise(mmap.MADV_HUGEPAGE)
    return m


def address(m):
    return ctypes.addressof(ctypes.c_char.from_buffer(m))


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def read_header(f, path):
    """(architecture, where the payload starts) of a model.native file. UserError if the header is damaged."""
    start = f.read(12)
    if len(start) < 12 or start[:8] != MAGIC:
        raise cli.UserError(f"{path}: not a model.native file; run make again")
    (length,) = struct.unpack("<I", start[8:])
    try:
        arch = json.loads(f.read(min(length, 1 << 20)))
    except (ValueError, RecursionError) as e:
        raise cli.UserError(f"{path}: the header is damaged; make the file again") from e
    arch = check_arch(arch, path)
    inputs = arch.get("inputs")
    names = list(map(str, inputs)) if isinstance(inputs, list) else []
    if "input_ids" not in map(ROLES.get, names) or not (mask_name(names) or UNMASKED in names):
        raise cli.UserError(f"{path}: the header names no inputs; make the file again")
    return arch, up(12 + length, 4096)


class Model:
    """A model.native file in memory. `run` may be called from several threads: calls wait for each other."""

    BLOCK, GROUP = 320, 4  # rows of a block; blocks a thread takes through the layers together

    def __init__(self, path, threads=2):
        """Raises UserError for a damaged file, a missing library, and a CPU without the units."""
        with cli.regular(path).open("rb") as f:
            self.arch, start = read_header(f, path)
            *starts, size = itertools.accumulate((up(n, 64) for _, n in tensors(self.arch)), initial=0)
            if size > LARGEST:
                raise cli.UserError(f"{path}: {size} bytes of weights, more than {LARGEST}; make the file again")
            if (actual := os.fstat(f.fileno()).st_size) != start + size:
                raise cli.UserError(f"{path}: {actual} bytes where the header promises {start + size}; make it again")
            self.library, self.family = load_library(), family_for(self.arch["precision"])
            self.weights = memory(size)
            f.seek(start)
            if f.readinto(self.weights) != size:
                raise cli.UserError(f"{path}: the file got shorter while it was read")
        self.threads, self.lock, self.work = threads, threading.Lock(), memory(0)
        self.units = ctypes.byref(ctypes.c_byte.in_dll(self.library, f"native_{self.family}"))
        self.tile = self.library.native_rows(self.units)
        s, arch = sizes(self.arch), self.arch
        self.offsets = np.array(starts, np.int64)
        self.numbers = np.array([PRECISIONS.index(p) for p in arch["precisions"]], np.int32)
        self.sums = np.zeros(arch["layers"] * (s["qkv"] + s["h"] + s["inter"]), np.int32)
        fields = arch | {
            "head": HEADS.index(arch["head"]), "gelu": GELUS.index(arch["gelu"]), "wide": PRECISIONS.index(arch["wide"]),
        }  # fmt: skip
        arrays = (a.ctypes.data for a in (self.offsets, self.numbers, self.sums))
        numbers = (fields[name] for name in Net.NAMES)
        self.net = Net(tuple(s.values()), *numbers, arch["eps"], 0, address(self.weights), *arrays)
        self.left = np.zeros(arch["layers"], np.int64)  # sentences that were answered after each layer
        self.library.native_sums(self.units, ctypes.byref(self.net), pointer(self.sums))

    def leave_early(self, heads, sure):
        """From now on a sentence is answered by the first layer whose best score is at least `sure` above the next.

        heads: float32 [layers - 1, labels, 2 hidden + 1], for [CLS], the mean of the rows, and 1. Their scores are the logits.
        """
        hidden, h = self.arch["hidden"], sizes(self.arch)["h"]
        if heads.shape != (shape := (self.arch["layers"] - 1, self.arch["labels"], 2 * hidden + 1)):
            raise cli.UserError(f"heads of the shape {heads.shape}, not {shape}; make the certificate again")
        wide = np.zeros((*heads.shape[:2], 2, h), np.float32)
        wide[..., :hidden] = heads[..., :-1].reshape(*heads.shape[:2], 2, hidden)
        flat = wide.reshape(len(heads), -1)
        self.exits = np.ascontiguousarray(np.concatenate([flat, heads[..., -1]], 1), np.float32)
        self.net.exits, self.net.sure = self.exits.ctypes.data, sure

    def run(self, batch, types=None, head_inputs=None):
        """Logits float32 [n, labels].

        batch: a list of n lists of token ids, computed without padding; or (ids int [n, S], lengths [n]) to compute
        all S tokens of each row, with those from lengths[i] on masked as keys. types: token types in the same form, all 0
        if None. head_inputs: float32 [n, layers - 1, 2, hidden up to a multiple of 64], which gets [CLS] and the mean of
        each layer. Raises UserError for an unknown type or id, and for a sentence that is empty or too long.
        """
        batch, lengths = batch if isinstance(batch, tuple) else (batch, None)
        rows = np.fromiter(map(len, batch), np.int32, len(batch))
        keys = rows if lengths is None else np.ascontiguousarray(lengths, np.int32)
        ids = np.concatenate([np.zeros(0, np.int64), *batch])
        arch, n, kinds = self.arch, len(rows), max(self.arch["types"], 1)
        if types is not None:
            types = np.concatenate([np.zeros(0, np.int64), *types])
            if len(types) != len(ids) or types.min(initial=0) < 0 or types.max(initial=0) >= kinds:
                raise cli.UserError(f"token types: not one below {kinds} for each token")
            types = np.ascontiguousarray(types, np.int32) if types.any() else None
        if not n:
            return np.zeros((0, arch["labels"]), np.float32)
        bad = (rows > arch["positions"]) | (keys < 1) | (keys > rows)
        if bad.any():
            i = int(bad.argmax())
            raise cli.UserError(f"sentence {i}: {keys[i]} of {rows[i]} tokens; cut it to 1 to {arch['positions']}")
        bad = (ids < 0) | (ids >= arch["vocab"])
        if bad.any():
            t = int(bad.argmax())
            i = int(np.searchsorted(rows.cumsum(), t, "right"))
            fault = f"token id {ids[t]} is outside the vocabulary of {arch['vocab']}"
            raise cli.UserError(f"sentence {i}: {fault}; preprocess again")
        start = np.concatenate([[0], rows[:-1].cumsum(dtype=np.int64)])
        ids = np.ascontiguousarray(ids, np.int32)
        logits, left = np.empty((n, arch["labels"]), np.float32), np.full(n, arch["layers"], np.int32)
        # every thread gets the same number of equal blocks, of whole tiles
        room = -(-int(rows.sum()) // self.threads)
        block = up(-(-room // -(-room // self.BLOCK)), self.tile)
        plan = (n, block, self.GROUP, int(rows.max()), self.threads)
        with self.lock:
            need = self.library.native_bytes(self.units, ctypes.byref(self.net), *plan)
            if len(self.work) < need:
                self.work = memory(need)
            inputs = map(pointer, (ids, types, start, rows, keys))
            work, outputs = ctypes.c_void_p(address(self.work)), map(pointer, (logits, left, head_inputs))
            self.library.native_run(self.units, ctypes.byref(self.net), *inputs, *plan, work, *outputs)
            self.left += np.bincount(left - 1, minlength=arch["layers"])
        return logits
