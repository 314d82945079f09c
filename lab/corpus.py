"""The bad input corpus: small generators of malformed inputs, each with the command that must refuse it.

A kind of input has a command, run in a folder that holds `good(folder)`'s files. A case changes one of them (bytes, a
function of the good bytes, a number: the file is so long, with a hole at its end; None: it is gone; "pipe", "socket" or
"device": it is one) and says what the one line of error has to hold. test_corpus.py runs them.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import socket
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lab import quantise
from tools.base import input_files
from tools.results import record
from tools.results.published import COLUMNS
from tools.source import data, tokenizer

ROOT = Path(__file__).resolve().parents[1]


class Case(NamedTuple):
    """`file` of the good ones becomes `change`; `says` is in the error."""

    kind: str
    file: str
    change: object
    says: str


# The command of each kind, and which of the good files it needs.
COMMANDS = {
    "tsv": (["dev.tsv", "made"], "models/minilm_sst2/preprocess.py --text_file dev.tsv --tokenizer_path made --seq_len 64 --save_path o"),
    "tokenizer": (["dev.tsv", "made"], "models/minilm_sst2/preprocess.py --text_file dev.tsv --tokenizer_path made --seq_len 64 --save_path o"),
    "edits": (["x.edits", "x.tar.gz"], "tools.source.data rebuild x.edits --archive x.tar.gz --save_path o.tsv"),
    "archive": (["x.edits", "x.tar.gz"], "tools.source.data rebuild x.edits --archive x.tar.gz --save_path o.tsv"),
    "pins": (["pins.txt"], "tools.source.fetch some.whl --pins pins.txt --save_path o.whl"),
    "checkpoint": (["model", "clone"], "tools.source.checkpoint --model {here}/model --weights clone --save_path o"),
    "safetensors": (["model", "made"], "tools.source.checkpoint --model {here}/model --weights made --save_path o"),
    "zip": (["model", "model.zip"], "tools.source.checkpoint --model {here}/model --weights model.zip --save_path o"),
    "adapter": (["a.safetensors", "base"], "lab.quantise a.safetensors --base base --save_path o"),
    "onnx": (["m.onnx"], "models/minilm_sst2/modify_onnx.py m.onnx o.onnx"),
    "gate": (["m.onnx", "rows"], "tools.graph.gate m.onnx m.onnx --input rows"),
    "kept": (["r.npy", "m.onnx", "rows"], "tools.graph.gate r.npy m.onnx --input rows"),
    "simplify": (["m.onnx", "rows"], "tools.graph.simplify m.onnx o.onnx --input rows"),
    "compile": (["m.onnx", "rows"], "tools.cpu.compile --onnx m.onnx --engine onnxruntime --precision fp32 --input rows --save_path o.onnx"),
    "runner": (["m.onnx", "rows"], "tools.cpu.runner --model m.onnx --input rows/input_ids,rows/attention_mask --batchsize 1"),
    "ir": (["m.ir", "rows"], "tools.cpu.runner --model m.ir --input rows/input_ids,rows/attention_mask --batchsize 1"),
    "score": (["out", "labels.json"], "models/minilm_sst2/postprocess.py --output_path out --label_path labels.json --save_path o.json"),
    "buckets": (["wide", "w/labels.json", "w/rows.json"], "models/minilm_sst2/postprocess.py --output_path wide --label_path w/labels.json --save_path o.json"),
    "summary": (["s.json"], "tools.results.imports s.json x/y/seq64/bs8/310P3-atc-fp16 --save_path o"),
    "log": (["s.log"], "tools.results.imports s.log x/y/seq64/bs8/310P3-atc-fp16 --save_path o"),
    "trtexec": (["t.log"], "tools.results.imports t.log x/y/seq64/bs8/T4-trtexec-fp16 --save_path o"),
    "accuracy": (["a.json"], "tools.results.show a.json --save_path o.txt"),
    "perf": (["p.json"], "tools.results.show p.json --save_path o.txt"),
    "promote": (["a.json"], "tools.results.record promote o a.json"),
    "table": (["p.json", "x.rows"], "tools.results.table --rows x.rows --save_path o.csv"),
    "compare": (["a.json", "b.json", "data"], "tools.results.compare a.json b.json"),
    "published": (["p.json", "models"], "tools.results.report p.json --save_path o.html"),
    "om": (["m.om"], "tools.ascend.om m.om"),
}  # fmt: skip

CASES: list[Case] = []


def bad(kind: str, file: str, *changes) -> None:
    """Add cases of one kind and file: (change, says) each."""
    CASES.extend(Case(kind, file, change, says) for change, says in changes)


def cut(*sizes):
    """Changes that keep so many bytes, or that share, of a file."""
    return [lambda b, s=s: b[: int(len(b) * s) if isinstance(s, float) else s] for s in sizes]


def edited(**values):
    """A change of a JSON object's members; ... (Ellipsis) drops one."""

    def change(b):
        new = json.loads(b) | values
        return json.dumps({k: v for k, v in new.items() if v is not ...}).encode()

    return change


def replaced(old: bytes, new: bytes):
    def change(b):
        assert old in b
        return b.replace(old, new)

    return change


NOT_JSON = [(b"", "not JSON"), (b"{", "not JSON"), (b"[]", "not a JSON object"), (b"\xff\xfe", "not JSON"),
            (b"null", "not a JSON object"), (b"[" * 100_000, "not JSON")]  # fmt: skip

HOLE = (1 << 32) + 1  # bytes: more than any file that is read whole


# --- TSV -------------------------------------------------------------------------------------------------------------
HEADER = b"sentence\tlabel\n"
bad("tsv", "dev.tsv",
    (b"", ":1: the header"), (b"\n", ":1: the header"), (HEADER, ":2: no row"), (HEADER[:-1], ":2: no row"),
    (b"a fine film\t1\n", ":1: the header"), (b"label\ttext\n1\ta fine film\n", ":1: the header"),
    (b"sentence\na\n", ":1: the header"), (b"\xef\xbb" + HEADER + b"a\t1\n", ":1: byte 1"),
    (HEADER.replace(b"\n", b"\r\n") + b"a\t1\r\n", ":1: carriage return"), (HEADER + b"a\t1\r\n", ":2: carriage return"),
    (HEADER + b"a\rb\t1\n", ":2: carriage return"), (HEADER + b"a\t1\nb\0\t1\n", ":3: NUL byte"),
    (HEADER + b"a\n", ":2: 1 columns"), (HEADER + b"a\t1\t0\n", ":2: 3 columns"), (HEADER + b"a\t1\n\n", ":3: 1 columns"),
    (HEADER + b"a\t2\n", ":2: label '2'"), (HEADER + b"a\t\n", ":2: no label"), (HEADER + b"a\tone\n", ":2: label 'one'"),
    (HEADER + b"a\t-1\n", ":2: no label"), (HEADER + b"a\t1.0\n", ":2: label '1.0'"), (HEADER + b"a\tnan\n", ":2: label 'nan'"),
    (HEADER + "a\t١\n".encode(), ":2: label"), (HEADER + b"a\tneutral\n", ":2: label 'neutral'"),
    (HEADER + b"a\t" + b"1" * 60_000 + b"\n", ":2: label"), (HEADER + b"a\t\x1b[2J\n", ":2: label '\\x1b"),
    (HEADER + b"\t1\n", ":2: no sentence"), (HEADER + b"  \t1\n", ":2: no sentence"),
    (HEADER + b"a\t1\nna\xefve\t0\n", ":3: byte 3 is not UTF-8"), (HEADER + b"\xc0\x80\t1\n", ":2: byte 1 is not UTF-8"),
    (HEADER + b"a\xed\xa0\x80\t1\n", ":2: byte 2 is not UTF-8"), (HEADER + b"a" * 10_000_000 + b"\t1\n", ":2: longer than"),
    (b"a" * 10_000_000, ":1: longer than"), (HEADER.decode().encode("utf-16"), ":1: NUL byte"),
    (b"PK\x03\x04" + bytes(100), ":1: NUL byte"), (None, "No such file"))  # fmt: skip
bad("tokenizer", "made/tokenizer.json", (b"{", "not a tokenizer"), (b"", "not a tokenizer"), (b"\xff", "not a tokenizer"),
    (b"{}", "not a tokenizer"), (b'{"version":"1.0","model":{"type":"X"}}', "not a tokenizer"))  # fmt: skip

# --- edit scripts, archives, the user's own copy, pins -----------------------------------------------------------------
HEAD = f"sha256 {'0' * 64} rows 1\n".encode()
bad("edits", "x.edits", (b"", ":1:"), (b"sha256 12 rows 1\n1 1 0 5\n", ":1:"), (HEAD, ":1:"), (HEAD + b"1 1 0 5\n1 1 0 5\n", ":1:"),
    (HEAD + b"2 1 0 5\n", ":2:"), (HEAD + b"1 0 0 5\n", ":2:"), (HEAD + b"1 99999 0 5\n", ":2:"), (HEAD + b"1 9999999 0 5\n", ":2:"),
    (HEAD + b"1 1 0 999999\n", ":2:"), (HEAD + b"1 1 0 " + b"9" * 5000 + b"\n", ":2:"), (HEAD + b"1 1 0 <999999>5\n", ":2:"),
    (HEAD + b"1 1 999999 x\n", ":2:"), (HEAD + b"1 1 -1 5\n", ":2:"), (HEAD + b"1 1 0\n", ":2:"), (HEAD + b"1 1 0 5 6\n", ":2:"),
    (HEAD + "1 1 ٣ 5\n".encode(), ":2:"), (HEAD + b"1 1 0 \xff\n", "0" * 64), (b"x" * (data.FILE_LIMIT + 1), "larger"),
    (HEAD + b"1 1 0 5\n", "0" * 64), (None, "No such file"))  # fmt: skip


def tar_gz(*members) -> bytes:
    """A .tar.gz of (name, bytes) or ready TarInfo members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            body = b"" if info is member else member[1]
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


INNER, TEXT = (f"p/{name}" for name in data.SNIPPETS)
SNIPPETS = b"1\t0.5\tA fine film.\n2\t0.1\tA dull film.\n"


def archive(snippets=SNIPPETS) -> bytes:
    return tar_gz((INNER, tar_gz((TEXT, snippets))))


def link(kind, name=INNER):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


bad("archive", "x.tar.gz", (b"", "not a sound"), (b"not a gzip", "not a sound"), (lambda b: b[:-20], "0" * 64),
    (tar_gz(("p/other.txt", b"text")), "not one plain"), (tar_gz((INNER, b"one"), (f"q/{INNER}", b"two")), "not one plain"),
    (tar_gz(link(tarfile.SYMTYPE)), "not one plain"), (tar_gz(link(tarfile.LNKTYPE)), "not one plain"),
    (tar_gz(link(tarfile.DIRTYPE)), "not one plain"), (tar_gz(link(tarfile.FIFOTYPE)), "not one plain"),
    (tar_gz((INNER, b"no gzip")), "not a sound"), (tar_gz((INNER, tar_gz(("p/x", b"")))), "not one plain"),
    (lambda b: tar_gz((INNER, bytes(data.FILE_LIMIT + 1))), "not one plain"),
    (zlib.compress(b"\xff" * 2048, wbits=31), "not a sound"), (archive(b"\xff\t\t\n"), "not UTF-8"), (archive(b"1\n"), "lines of number"))  # fmt: skip


def zip_of(*members) -> bytes:
    """A zip of (name or ZipInfo, bytes) members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, body in members:
            z.writestr(name, body, zipfile.ZIP_DEFLATED)
    return out.getvalue()


PIN = f"{'0' * 64}  10  some.whl  some==1"
bad("pins", "pins.txt", (PIN.replace("some.whl", "../../x").encode(), ":1:"), (PIN.replace("10", "-1").encode(), ":1:"),
    (f"# pins\n{PIN[2:]}".encode(), ":2:"), (PIN.replace("==", "=").encode(), ":1:"), (b"", "no some.whl"),
    (b"\xff\xfe", ":1:"), (PIN.replace("some.whl", "other.whl").encode(), "no some.whl"))  # fmt: skip

# --- checkpoints -------------------------------------------------------------------------------------------------------
BIN, CONFIG = "clone/checkpoint-12630/pytorch_model.bin", "clone/checkpoint-12630/config.json"


def saved(change):
    """A pytorch_model.bin whose dict `change` edits, or replaces by what it returns."""

    def spoil(b):
        import torch

        tensors, out = torch.load(io.BytesIO(b), weights_only=True), io.BytesIO()
        changed = change(torch, tensors)
        torch.save(tensors if changed is None else changed, out)
        return out.getvalue()

    return spoil


def poisoned(torch, t):
    t["bert.pooler.dense.weight"][3, 2] = float("nan")


class Evil:
    """Unpickled by anything but weights_only, it says so."""

    def __reduce__(self):
        return exec, ("open('pwned', 'w')",)


bad("checkpoint", BIN,
    (saved(lambda torch, t: t.__delitem__("classifier.weight")), "1 tensors missing, as classifier.weight"),
    (saved(lambda torch, t: t.clear()), "tensors missing"),
    (saved(lambda torch, t: t.update({"head.weight": torch.zeros(2)})), "1 tensors too many, as head.weight"),
    (saved(lambda torch, t: t.update({"classifier.weight": torch.zeros(3, 48)})), "classifier.weight is [3, 48]"),
    (saved(lambda torch, t: t.update({"classifier.weight": torch.zeros(1).expand(1 << 40)})), "classifier.weight is"),
    (saved(poisoned), "bert.pooler.dense.weight holds NaN or infinity"),
    (saved(lambda torch, t: t.update({"classifier.bias": torch.full((2,), float("inf"))})), "classifier.bias holds NaN"),
    (saved(lambda torch, t: t.update({"classifier.bias": torch.zeros(2, dtype=torch.int64)})), "classifier.bias is torch.int64"),
    (saved(lambda torch, t: t.update({"classifier.bias": torch.zeros(2).to_sparse()})), "not a plain table of tensors"),
    (saved(lambda torch, t: t.update({"classifier.bias": torch.zeros(2, dtype=torch.complex64)})), "classifier.bias is"),
    (saved(lambda torch, t: {"model": t}), "not a plain table of tensors"), (saved(lambda torch, t: [1, 2]), "not a plain table"),
    (saved(lambda torch, t: {1: torch.zeros(2)}), "not a plain table"), (saved(lambda torch, t: torch.zeros(2)), "not a plain table"),
    (saved(lambda torch, t: {"x": Evil()}), "refused"), (pickle.dumps(Evil()), "refused"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 433\n", "a Git LFS pointer"), (None, "no weights there"),
    *[(c, "refused, it is cut short") for c in cut(0, 1, 7, 100, 0.5, 0.999)])  # fmt: skip
bad("safetensors", "made/model.safetensors", *[(c, "refused, it is cut short") for c in cut(0, 1, 7, 100, 0.5, 0.999)],
    (lambda b: struct.pack("<Q", 1 << 60) + b[8:], "refused"), (replaced(b'"F32"', b'"I32"'), "int32"),
    (replaced(b'"classifier.bias"', b'"classifier.bOOO"'), "1 tensors missing"))  # fmt: skip
bad("checkpoint", CONFIG, *NOT_JSON, (None, "name that folder"), *[(edited(**change), says) for change, says in [
    ({"num_hidden_layers": 3}, "tensors missing, as bert.encoder.layer.2"), ({"num_attention_heads": 3}, "model/config.json says 4"),
    ({"num_attention_heads": 5}, "not a multiple"), ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"hidden_size": "48"}, "hidden_size is '48'"), ({"hidden_size": -1}, "hidden_size is -1"), ({"hidden_size": 1 << 60}, "hidden_size is"),
    ({"vocab_size": True}, "vocab_size is True"), ({"vocab_size": None}, "vocab_size is None"), ({"vocab_size": ...}, "vocab_size is None"),
    ({"vocab_size": [400]}, "vocab_size is [400]"), ({"hidden_act": "gelu_new"}, "hidden_act is gelu_new"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type"), ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"), ({"architectures": ["TinyBertForSequenceClassification"]}, "family is tinybert"),
]])  # fmt: skip
bad("checkpoint", CONFIG, (HOLE, "larger than"), (edited(num_hidden_layers=(1 << 24) - 1), "num_hidden_layers is 16777215"),
    (edited(id2label={str(i): f"l{i}" for i in range(10_000)}), "the labels are l0, l1"),
    (edited(pruned_heads={str(i): [1] for i in range(10_000)}), "pruned_heads: layers lack heads"),
    (edited(model_type=1), "of model_type 1"), (edited(model_type={"x": None}), "another architecture"),
    (edited(architectures=["\x1b[2J"], model_type="x"), "another architecture, \\x1b[2J"))  # fmt: skip
bad("checkpoint", "clone/vocab.txt", (HOLE, "larger than"), (None, "no tokenizer.json or vocab.txt"), (b"[PAD]\n[UNK]\n", "no line [CLS]"), (b"\xff\xfe", "not UTF-8 at byte 0"),
    (("\n".join([*tokenizer.SPECIAL, *map(str, range(500))]) + "\n").encode(), "505 word pieces, but config.json says vocab_size 400"))  # fmt: skip


def member(name, body=b"[PAD]\n", mode=0):
    """A zip with one more member."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16

    def change(b):
        out = io.BytesIO(b)
        with zipfile.ZipFile(out, "a") as z:
            z.writestr(info, body, zipfile.ZIP_DEFLATED)
        return out.getvalue()

    return change


def flipped(b: bytes) -> bytes:
    b = bytearray(b)
    b[len(b) // 2] ^= 1
    return bytes(b)


def packed_by_lzma(b: bytes) -> bytes:
    """A zip with one more member, in LZMA, whose stream is damaged."""
    out = io.BytesIO(b)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_LZMA) as z:
        z.writestr("x/vocab.txt", b"[PAD]" * 100)
    made = bytearray(out.getvalue())
    made[made.index(b"x/vocab.txt") + 26] ^= 0xFF
    return bytes(made)


bad("zip", "model.zip", (packed_by_lzma, "not a whole zip"), (lambda b: b[1:], "not a whole zip"), *[(member(n), "leaves its folder; refused") for n in ("../vocab.txt", "/tmp/vocab.txt", "a/../../vocab.txt")],
    (member("x/vocab.txt", b"/etc/passwd", 0o120777), "leaves its folder; refused"), (flipped, "not a whole zip"),
    (member("two/pytorch_model.bin"), "holds 2 checkpoints"),
    (zip_of(), "holds 0 checkpoints"), (None, "no such folder or zip"), *[(c, "not a whole zip") for c in cut(0, 10, 0.5, 0.99)])  # fmt: skip


# --- adapter -----------------------------------------------------------------------------------------------------------
def tensors(**changes):
    """An adapter with tensors replaced, added or (None) dropped; its metadata kept."""

    def change(b):
        from safetensors.numpy import load, save

        (size,) = struct.unpack("<Q", b[:8])
        meta = json.loads(b[8 : 8 + size])["__metadata__"]
        return save({n: t for n, t in (load(b) | changes).items() if t is not None}, meta)

    return change


def described(value):
    """An adapter whose metadata entry is `value`."""

    def change(b):
        from safetensors.numpy import load, save

        return save(load(b), None if value is None else {"adapter": value})

    return change


W = "bert.encoder.weight"
UNFIT, OTHER = "does not fit the base", "the base is not the one"
bad("adapter", "a.safetensors", *[(tensors(**{name: value}), says) for name, value, says in [
    (f"{W}.delta", np.full((6, 3), 0x88, np.uint8), UNFIT), (f"{W}.delta", np.full((6, 4), 8, np.int8), OTHER),
    (f"{W}.scale", None, UNFIT), (f"{W}.scale", np.ones(6), OTHER), (f"{W}.scale", np.full(6, np.nan, np.float32), OTHER),
    ("bert.encoder.bias", np.zeros(5, np.float32), OTHER), ("classifier.weight", None, OTHER),
    ("bert.other.weight.delta", np.full((6, 4), 0x88, np.uint8), UNFIT), (f"{W}.left", np.zeros((6, 2), np.int8), UNFIT),
]], *[(described(v), "not an adapter") for v in (None, "", "[]", "{}", '{"merged_sha256": 5}')], *[(c, "not an adapter") for c in cut(0, 7, 20, 0.9)],
    (b"PK\x03\x04", "not an adapter"), (None, "no such adapter"))  # fmt: skip
bad("adapter", "base/model.safetensors", (b"", "refused"), (None, "no weights there"),
    (lambda b: b[:-1] + bytes([b[-1] ^ 1]), OTHER))  # fmt: skip


# --- ONNX --------------------------------------------------------------------------------------------------------------
def graph(change):
    """An ONNX file whose model `change` edits."""

    def spoil(b):
        import onnx

        model = onnx.load_from_string(b)
        change(model)
        return model.SerializeToString()

    return spoil


def external(where):
    def change(model):
        tensor = next(t for t in model.graph.initializer if list(t.dims) == [32])
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        tensor.external_data.add(key="location", value=where)

    return graph(change)


def nan(model):
    next(t for t in model.graph.initializer if list(t.dims) == [2]).raw_data = np.float32([np.nan, 0]).tobytes()


def opset(number):
    return graph(lambda m: setattr(m.opset_import[0], "version", number))


def other_input(model):
    model.graph.input[1].type.tensor_type.elem_type = 1


def other_name(model):
    for node in model.graph.node:
        node.input[:] = ["x" if i == "attention_mask" else i for i in node.input]
    model.graph.input[1].name = "x"


GRAPHS = [*cut(0, 1, 100, 5000, 0.5, 0.99), b"PK\x03\x04", b"\xff" * 300, b"version https://git-lfs.github.com/spec/v1\n", graph(lambda m: m.ClearField("graph")),
          graph(lambda m: m.graph.ClearField("output")), graph(lambda m: m.graph.ClearField("node")), external("../secret"), external("/etc/passwd"),
          external("gone.bin"), graph(lambda m: m.graph.ClearField("initializer"))]  # fmt: skip
for kind in ("onnx", "gate", "simplify", "compile", "runner"):
    bad(kind, "m.onnx", *[(g, "m.onnx") for g in GRAPHS])
bad("onnx", "m.onnx", (opset(10), "opset 10, must be 11 to 16"), (opset(99), "export it again"), (opset(0), "export it again"),
    (graph(nan), "not finite"), (graph(other_input), "m.onnx"))  # fmt: skip
bad("gate", "m.onnx", (graph(nan), "not finite"), (graph(other_name), "rows/x: no such folder"))
bad("compile", "m.onnx", (graph(nan), "rows not finite"), (graph(other_name), "rows/x: no such folder"))
bad("gate", "rows/attention_mask/1.bin", (b"12345", "1.bin: not whole int64 rows"), (bytes(8), "rows of different length"),
    (None, "differ in shape"))  # fmt: skip
bad("gate", "rows/input_ids/1.npy",
    *[(c, "1.npy: not an array") for c in (b"no array", pickle.dumps(Evil()), b"PK\x03\x04")])  # fmt: skip
bad("gate", "rows/input_ids/1.bin", *[(np.full(16, n).tobytes(), "cannot run it") for n in (1 << 40, -1000)])


def header(shape, dtype="<i8", content=b""):
    """A .npy file whose header says this shape, whatever follows."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content


bad("gate", "rows/input_ids/1.npy",
    *[(header(shape), "1.npy: not") for shape in ("(1099511627776, 16)", "(0, 1125899906842624)", "(-1, 16)")])  # fmt: skip
bad("gate", "rows/input_ids/1.bin", (HOLE, "1.bin: not an array of int64"))
bad("runner", "rows/input_ids/2.bin", (HOLE, "2.bin: not an array of int64"))
npy = lambda array: lambda b: (f := io.BytesIO(), np.save(f, array), f.getvalue())[2]
bad("kept", "r.npy", *[(c, "r.npy: no logits") for c in (
        *(header(shape, "<f4") for shape in ("(1099511627776, 2)", "(4611686018427387904, 8)", "(-1, 2)")),
        header("(2,)", "<U500000000"), lambda b: b.replace(b"'<f4'", b"'<f4  "), *cut(0, 6, -4), pickle.dumps(Evil()), b"PK\x03\x04")],
    (npy(np.zeros((1, 2), "f4")), "differ in shape"), *[(npy(np.full((2, 2), n, "f4")), "NOT EQUAL") for n in (0, np.nan)])  # fmt: skip
bad("runner", "rows/input_ids/1.bin", (b"12345", "1.bin: not whole int64 rows"), (b"", "1.bin"), (None, "needs the same number"),
    (np.full(16, 1 << 40).tobytes(), "m.onnx"))  # fmt: skip
bad("runner", "rows/attention_mask/2.bin", (b"", "not whole int64 rows"), (bytes(1000), "cannot run on"))
bad("compile", "rows/labels.json", *NOT_JSON, *[(c, "labels.json") for c in (b'{"1": "x"}', b'{"1": "0"}')])


# --- a compiled model of OpenVINO's -----------------------------------------------------------------------------------
def said_size(size):
    """A tar whose first member's header says another size."""

    def change(b):
        b = bytearray(b)
        b[124:136] = b"\x80" + size.to_bytes(11, "big")
        b[148:156] = b"%06o\0 " % (sum(b[:148]) + sum(b[156:512]) + 8 * ord(" "))
        return bytes(b)

    return change


bad("ir", "m.ir", *[(c, "m.ir: no model that OpenVINO knows") for c in (*cut(0, 100, 600, 0.5), said_size(1 << 60), said_size(1 << 33), gzip.compress,
    replaced(b'size="128"', b'size="1099511627776"'), replaced(b'offset="128"', b'offset="18446744073709551615"'))], (HOLE, "larger than"),
    (replaced(b"bert2om.precision", b"bert2om.precisiom"), "no model that OpenVINO knows"))  # fmt: skip

# --- outputs -----------------------------------------------------------------------------------------------------------
bad("score", "out/2_0.bin", (b"", "2_0.bin"), (b"1234567", "2_0.bin: not rows of 2 float32"), (bytes(4), "2_0.bin: not rows of 2 float32"), (bytes(16), "2 rows of logits, 1 labels"),
    (np.float32([np.nan, 0]).tobytes(), "NaN or infinite"), (np.float32([0, np.inf]).tobytes(), "NaN or infinite"), (None, "2_0.bin (or .npy, .txt): missing"))  # fmt: skip
bad("score", "out/9_0.bin", (bytes(8), "9_0.*: no label for it"))
bad("score", "labels.json", *NOT_JSON, (b"{}", "no labels"), (b'{"1": "2"}', "not 0 or 1"), (b'{"1": 1}', "not 0 or 1"), (b'{"1": {}}', "not 0 or 1"), (b'{"1": [[]]}', "rows.json"),
    (b'{"1": null}', "not 0 or 1"), (b'{"../../x": "1"}', "missing"), (b'{"1": "1"}', "no label for it"), (None, "No such file"))  # fmt: skip
bad("score", "task.json", *NOT_JSON, (b"{}", "no task of tools/base/tasks.py"), (b'{"task": [], "labels": ["a"]}', "no task of"),
    (b'{"task": "sst2", "labels": []}', "no task of"), (b'{"task": "sst2", "labels": [1, 2]}', "no task of"),
    (b'{"task": "mrpc", "labels": ["a"]}', "no task of"))  # fmt: skip
bad("buckets", "wide/1_0.npy", (b"", "1_0.npy"), (b"\x93NUMPY", "1_0.npy: not rows of 2 float32"), (lambda b: b[:-4], "1_0.npy: not rows of 2 float32"), (npy(np.zeros((1, 2), "f4")), "1 rows of logits, 2 labels"),
    (npy(np.array([{}, {}])), "1_0.npy: not rows of 2 float32"), (npy(np.array(["a", "b"])), "1_0.npy: not rows of 2 float32"), (npy(np.zeros(3)), "1_0.npy: not rows of 2 float32"), (zip_of(("x.npy", b"")), "1_0.npy"),
    (b"PK\x03\x04", "1_0.npy: not rows of 2 float32"))  # fmt: skip
bad("buckets", "w/rows.json", *NOT_JSON, *[(c, "rows.json") for c in (
    b"{}", b'{"1": [0]}', b'{"1": [0, 0]}', b'{"1": ["a", "b"]}', b'{"1": 5}', None)])  # fmt: skip

# --- summaries and logs ------------------------------------------------------------------------------------------------
SCREEN = """[INFO] -----------------Performance Summary------------------
[INFO] H2D_latency (ms): min = 0.05, max = 0.06, mean = 0.055, median = 0.055, percentile(99%) = 0.06
[INFO] NPU_compute_time (ms): min = 5.9, max = 6.2, mean = 6.0, median = 6.0, percentile(99%) = 6.19
[INFO] throughput 1000*batchsize.mean(8)/NPU_compute_time.mean(6.0): 1333.3333333333333
"""
SUMMARY = {"filesinfo": {"0": {"infiles": ["a/1.bin"], "outfiles": ["o/1_0.bin"]}}, "args": ["x"], "npu_compute_time_list": [5, 7],
           "NPU_compute_time": {"min": 5, "max": 7, "mean": 6.0, "median": 6.0, "percentile(99%)": 6.98, "count": 2},
           "throughput": 8000 / 6, "pid": 1}  # fmt: skip
bad("summary", "s.json", *[(edited(**change), says) for change, says in [
    ({"throughput": 0}, "nothing was measured"), ({"throughput": "fast"}, "throughput: 'fast' is no number"), ({"throughput": ...}, "throughput: None is no number"),
    ({"throughput": -5}, "throughput: -5 is no number"), ({"throughput": True}, "throughput: True is no number"), ({"throughput": 10**400}, "throughput"),
    ({"npu_compute_time_list": []}, "npu_compute_time_list is missing"), ({"npu_compute_time_list": [5, -7]}, "npu_compute_time_list.1: -7 is no number"),
    ({"npu_compute_time_list": [5, 7, 6]}, "count is not the 3 times"), ({"npu_compute_time_list": [5, 8]}, "mean is not the mean of the times"),
    ({"npu_compute_time_list": {}}, "npu_compute_time_list is missing"), ({"npu_compute_time_list": [5, None]}, "npu_compute_time_list.1: None"),
    ({"NPU_compute_time": None}, "NPU_compute_time.min: None"), ({"NPU_compute_time": []}, "NPU_compute_time.min: None"), ({"batchsize": "x"}, "batchsize"), ({"filesinfo": 5}, "filesinfo"),
    ({"per_device": "two"}, "per_device: not a list"), ({"per_device": [{"throughput": 5}]}, "not the sum 5.0 of its devices"),
    ({"per_device": [5]}, "per_device.throughput"), ({"args": ["m", "--batchsize", "16"]}, "its --batchsize says BS=16"), ({"engine": {"name": 5}}, "of this project's runner"),
    ({"args": ["--model", "a_910B3.om"]}, "its model's name says CHIP=910B3"), ({"args": ["--model", "a_bs4.om"]}, "says BS=4"), ({"args": ["--dymDims=a:8,32"]}, "its --dymDims says SEQ=32"),
]], (replaced(b"6.98", b"NaN"), "holds NaN"), (lambda b: b[:-9], "not JSON"), (b"{}", "npu_compute_time_list is missing"), (b"", "no `throughput"), (b"\xff\xfe\x00", "no `throughput"),
    (b"{" * 100_000, "not JSON"), (None, "No such file"))  # fmt: skip
for kind, file in (("summary", "s.json"), ("log", "s.log"), ("trtexec", "t.log"), ("pins", "pins.txt"), ("table", "x.rows"),
                   ("published", "models/x/published.csv"), ("score", "labels.json"), ("tokenizer", "made/tokenizer.json"),
                   ("onnx", "m.onnx"), ("simplify", "m.onnx")):  # fmt: skip
    bad(kind, file, (HOLE, "larger than"))
bad("score", "out/2_0.bin", (HOLE, "larger than"))
bad("log", "s.log", (replaced(b"1333.3", b"2333.3"), ":4: throughput is not 1000"), (replaced(b"mean = 6.0", b"mean = 6.1"), ":4: no NPU_compute_time with this mean"),
    (replaced(b"min = 5.9", b"min = nan"), ":3.min"), (lambda b: b + b, "holds 2 runs"), (lambda b: b + b + b"[INFO] summary throughput:99.0\n", "is not the sum"),
    (lambda b: b + b + b"[INFO] summary throughput:fast\n", "summary throughput"), (replaced(b"(8)", b"(8.8.8)"), "s.log:4"), (replaced(b"(6.0)", b"(0)"), "s.log:4"),
    (replaced(b"[INFO] NPU_compute_time", b"[INFO] NPU"), ":4: no NPU_compute_time"), (lambda b: b[: b.index(b"throughput")], "cut off"))  # fmt: skip
bad("trtexec", "t.log", (replaced(b"&&&& PASSED", b""), "no line `&&&& PASSED"), (replaced(b"&&&& PASSED", b"[E] Error[2]: boom\n&&&& FAILED"), "boom"),
    (replaced(b"Throughput: 120.5 qps", b""), "Throughput: None is no number"), (replaced(b"Throughput: 120.5", b"Throughput: 0"), "nothing was measured"), (replaced(b"120.5", b"1.2.3"), "t.log"),
    (replaced(b"120.5", b"1e999"), "t.log: "), (replaced(b"GPU Compute Time: min", b"GPU: min"), "no `GPU Compute Time"), (replaced(b"min = 8.3", b"min = e"), "t.log"),
    (b"", "t.log"), (b"\xff" * 50, "t.log"))  # fmt: skip

# --- records -----------------------------------------------------------------------------------------------------------
SPOILT = [(name, value) for name, values in {
    "kind": (..., None, "speed", []), "model": (..., 5, "../x"), "bs": (..., "8", -1), "precision": (..., None), "machine": (..., None, []), "chain": (..., []), "engine_info": ("x",),
    "started": (5, "../../../zz"), "standin": (..., "no"), "padded_rows": ("x",)}.items() for value in values]  # fmt: skip
MEASURED = {"accuracy": [("correct", ...), ("correct", "778"), ("total", 0), ("accuracy", 5.0), ("interval95", [1]), ("interval95", ["a", "b"]), ("predictions", ...), ("predictions", 5), ("predictions", "01"), ("caveat", 5)],
            "throughput": [("samples_per_second", ...), ("samples_per_second", "fast"), ("samples_per_second", -1.0), ("rounds", []), ("rounds", ["x"]), ("latency_ms", {}), ("latency_ms", None), ("timed", ...), ("spread", "x"), ("spread", float("inf"))]}  # fmt: skip
spoilt = lambda values: [(edited(**{name: value}), f": {name}") for name, value in values]
bad("accuracy", "a.json", *NOT_JSON, (None, "No such file"), *spoilt(SPOILT + MEASURED["accuracy"]))
bad("perf", "p.json", *NOT_JSON, (None, "No such file"), *spoilt(SPOILT + MEASURED["throughput"]))
bad("promote", "a.json", *spoilt(SPOILT), (edited(standin=True), "stand-in"), (edited(model="a/b"), "model: "))
bad("table", "p.json", *NOT_JSON, *spoilt(MEASURED["throughput"]), (edited(machine={"host": "x"}), "machine"))
bad("table", "x.rows", (b"", "nothing to show"), (b"gone.json\n", "gone.json: No such file"))
bad("compare", "b.json", *NOT_JSON, (edited(kind="throughput"), "b.json"), (edited(predictions="01"), "predictions"),
    (edited(predictions=...), "predictions"), (None, "no such record"))  # fmt: skip
for kind, file in (("accuracy", "a.json"), ("table", "x.rows"), ("published", "models/x/published.csv"), ("pins", "pins.txt"),
                   ("summary", "s.json"), ("log", "s.log"), ("trtexec", "t.log"), ("tsv", "dev.tsv"),
                   ("tokenizer", "made/tokenizer.json"), ("checkpoint", "clone/vocab.txt"), ("checkpoint", CONFIG),
                   ("safetensors", "made/model.safetensors")):  # fmt: skip
    bad(kind, file, ("pipe", "a pipe or a device"), ("device", "a pipe or a device"))
bad("om", "m.om", ("pipe", "a pipe or a device"), ("device", "a pipe or a device"))
bad("tsv", "dev.tsv", ("socket", "a pipe or a device"))

# --- published figures, .om --------------------------------------------------------------------------------------------
bad("published", "models/x/published.csv", (b"", ":1: the columns are not"), (b"model,value\n", ":1: the columns are not"), (replaced(b"120.5", b"fast"), ":2: value 'fast' is not a number"),
    (replaced(b"120.5", b""), ":2: value '' is not a number"), (replaced(b"120.5", b"nan"), ":2: value 'nan' is not a number"), (replaced(b"120.5", b"-3"), ":2: value '-3' is not"), (lambda b: b + b"x\n", ":3:"), (lambda b: b.replace(b"120.5", b"120.5,1,2,3"), ":2:"),
    (replaced(b"somewhere", b"a\x1b[2Jb"), ":2: a control character"), (replaced(b"somewhere", "\u202eb".encode()), ":2: a control character"),
    (b"\xff\xfe", ":1: the columns are not"), (lambda b: b + b'"' + b"x" * 200_000, ":"))  # fmt: skip


def packed_at(offset, fmt, value):
    def change(b):
        b = bytearray(b)
        struct.pack_into(fmt, b, offset, value)
        return bytes(b)

    return change


bad("om", "m.om", *[(c, "m.om") for c in cut(0, 1, 3, 100, 255, 256, 300, 400, 0.8, 0.99)], (b"PK\x03\x04" + bytes(300), "OM2"), (b"PICO" + bytes(300), "SVP"), (b"HIAI" + bytes(300), "HiAI"),
    (b"\x08\x07\x12" + bytes(300), "IMOD"), (packed_at(4, "<I", 512), "header size 512"), (packed_at(156, "<I", 1 << 30), "several models"), (packed_at(256, "<I", 1 << 31), "cut off: partition 0"), (packed_at(184, "<Q", 1 << 62), "the header promises"), (None, "No such file"))  # fmt: skip


# --- Make parameters: word on the command line, what make's one line says ----------------------------------------------
PLAIN, NUMBER, LENGTH = (
    "may hold letters, digits and _ . , / - @ : = only",
    "is not a whole number from 1 to 999",
    "is not a length from 8 to 512",
)
MAKE = {
    "SEQ=real,64": "64,128, or real",
    "INPUT=a\nb": "may hold any text of one line",
    "PACK=2": "PACK='2' is not 1 or empty", "PACK=1 1": "holds blanks; it is one value",
    "MODEL=other": "MODEL='other' is not one of: ", "MODEL=": "MODEL='' is not one of: ", "MODEL=tiny minilm_sst2": "holds blanks; it is one value", "MODEL=../minilm_sst2": "is not one of: ",
    "MODEL=`touch pwned`": PLAIN, "MODEL=%": PLAIN, "MODELS=minilm_sst2 other": "MODELS='minilm_sst2 other' is not one of: ", "CHIP=gpu": "CHIP='gpu' is not one of: ", 'CHIP="cpu': PLAIN, "CHIP=cpu|ls": PLAIN,
    "CHIPS=cpu 310P9": "is not one of: ", "PRECISION=fp64": "PRECISION='fp64' is not one of: ", "PRECISION=fp16": "PRECISION='fp16' is not one of: ", "PRECISION=bf16,int8": "is not one of: ", "PRECISIONS=fp32 fp64": "is not one of: ",
    "ENGINE=atc": "ENGINE='atc' is not one of: ", "ENGINE=../native": "is not one of: ", "BS=0": f"BS='0' {NUMBER}", "BS=-1": f"BS='-1' {NUMBER}", "BS=08": f"BS='08' {NUMBER}", "BS=1000000": NUMBER,
    "BS=99999999999999999999": NUMBER, "BS=8x": NUMBER, "BS=1e3": NUMBER, "BS=8.0": NUMBER, "BS=8 8": "holds blanks; it is one value", "BS=": NUMBER, "BS=8;ls": PLAIN, "BS=$$(ls)": PLAIN, "BATCHES=1 x": NUMBER, "BATCHES=": NUMBER,
    "BATCHES=1,4": NUMBER, "SAMPLES=1e3": "SAMPLES='1e3' is not a whole number", "SAMPLES=0": NUMBER, "RUNS=-5": NUMBER, "RUNS=1000": NUMBER, "SEQ=7": f"SEQ='7' {LENGTH}", "SEQ=513": LENGTH, "SEQ=-128": LENGTH, "SEQ=0": LENGTH, "SEQ=128,64": LENGTH, "SEQ=64,64": LENGTH,
    "SEQ=64,,128": LENGTH, "SEQ=../x": LENGTH, "SEQ=64 128": "holds blanks; it is one value", "WEIGHTS=a;b": PLAIN, "WEIGHTS=a b": "holds blanks; it is one value", "WEIGHTS=$(shell touch pwned)": PLAIN, "WEIGHTS=${HOME}": PLAIN, "WEIGHTS=x\ntouch pwned": PLAIN, "WEIGHTS=a'b": PLAIN,
    "WEIGHTS=a&b": PLAIN, "WEIGHTS=a>b": PLAIN, "WEIGHTS=~/x": PLAIN, "WEIGHTS=x*": PLAIN, "WEIGHTS=x\\": PLAIN, "WEIGHTS=é": PLAIN, "WEIGHTS=": "WEIGHTS=''", "WEIGHTS=..": "WEIGHTS='..'",
    "VENV=a'b": PLAIN, "ATC=a;ls": PLAIN, "CANN_IMAGE=a b": "holds blanks", "DEVICE=0;ls": PLAIN, **dict.fromkeys(("DEVICE=abc", "DEVICE=0,", "DEVICE=256", "DEVICE=0,0", "DEVICE=0,,1", "DEVICE=00", "DEVICE="), "is not made of numbers from 0 to 255, each once"), "ISA=AVX3": "is not one of: AVX AVX2", "FROM=`x`": PLAIN, "PYTHON=python3 -c": "holds blanks", "TRAIN=<x": PLAIN, "A=(x)": PLAIN, "B=[x]": PLAIN,
}  # fmt: skip


# --- the good inputs ---------------------------------------------------------------------------------------------------
def good(folder: Path) -> Path:
    """Write one sound input of each kind into `folder`, by the makers of the tests."""
    sys.path.insert(0, str(ROOT / "test"))
    import bert_graphs
    import openvino
    import pyarrow
    import small
    import test_adapter
    import test_trtexec
    from fake_cann import om_writer
    from pyarrow import csv, parquet
    from safetensors.numpy import save

    from tools.cpu import engines
    from tools.cpu.native import convert as native
    from tools.graph import gate
    from tools.make import manifest, run
    from tools.source import checkpoint

    box = folder / "box"
    small.checkpoint(box, "bert_base_cased_sst2").rename(folder / "made")
    (box / "model").rename(folder / "model")
    vocabulary = checkpoint.unzip(box / "small.whl", box / "w", ("vocab.txt",)) / "vocab.txt"
    small.original(folder / "clone", folder / "model", tokenizer.read_vocab(vocabulary))
    shutil.rmtree(box)
    clone = folder / "clone"
    files = {name: (clone / name).read_bytes() for name in manifest.names_in(clone)}
    base, tuned = test_adapter.tensors()
    bert_graphs.export(folder / "m.onnx", bert_graphs.bert())
    quantise.write(folder / "a.safetensors", base, quantise.pack(base, tuned))
    om_writer.write_om(folder / "m.om", name="x", inputs=[(n, "int64", [8, 128]) for n in bert_graphs.NAMES], outputs=[("o", "float32", [8, 2])], atc_cmdline="atc", weights=b"w")  # fmt: skip
    newest = lambda kind: max((ROOT / "results/records").glob(f"*-8-cpu-onnxruntime-fp32-{kind}.json"))
    accuracy, perf = (json.dumps(record.read_record(newest(k))).encode() for k in ("accuracy", "throughput"))
    row = "x,,64,T4,8,fp16,throughput,120.5,samples/s,somewhere,0123456789,\n"
    pad = lambda values: np.int64([*values, *[0] * (16 - len(values))]).tobytes()
    ids, ones = {1: [2, 9, 3], 2: [2, 3]}, {1: [1, 1, 1], 2: [1, 1]}
    texts = {
        "dev.tsv": HEADER + b"a fine film\t1\n", "x.edits": HEAD + b"1 1 0 5\n", "x.tar.gz": archive(), "pins.txt": PIN.encode(),
        "model.zip": zip_of(*files.items()), "base/model.safetensors": save(base), "base/config.json": b'{"hidden_size": 8}',
        **{f"rows/input_ids/{i}.bin": pad(v) for i, v in ids.items()}, **{f"rows/attention_mask/{i}.bin": pad(v) for i, v in ones.items()}, "rows/labels.json": b'{"1": "0", "2": "1"}',
        "out/1_0.bin": np.float32([0, 1]).tobytes(), "out/2_0.bin": np.float32([1, 0]).tobytes(), "labels.json": b'{"1": "1", "2": "0"}',
        "wide/1_0.npy": npy(np.float32([[0, 1], [1, 0]]))(b""), "w/labels.json": b'{"1": ["1", "0"]}', "w/rows.json": b'{"1": [1, 0]}',
        "s.json": json.dumps(SUMMARY).encode(), "s.log": SCREEN.encode(), "t.log": test_trtexec.LOG.encode(), "a.json": accuracy, "b.json": accuracy, "p.json": perf, "x.rows": b"p.json\n",
        "bench.json": max((ROOT / "results/bench").glob("*minilm*.json")).read_bytes(),
        "data/dev.edits": (ROOT / "data/dev.edits").read_bytes(), "models/x/published.csv": f"{','.join(COLUMNS)}\n{row}".encode(),
    }  # fmt: skip
    for name, content in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    model = openvino.Core().read_model(folder / "m.onnx")
    engines.write_ir(model, folder / "m.ir", "fp32", ["fp32"])
    native.convert(folder / "m.onnx", folder / "m.native", "bf16")
    for name in ("npy", "zip"):
        (folder / name).mkdir()
    np.save(folder / "npy/1.npy", np.ones((2, 16), np.int64))
    shutil.copytree(folder / "out", folder / "listed")
    run.write_manifest(folder / "listed")
    for name, write in {"t.csv": csv.write_csv, "t.parquet": parquet.write_table}.items():
        write(pyarrow.table({"sentence": ["a fine film", "a dull film"], "n": [1, 2]}), folder / name)
    (folder / "t.jsonl").write_text('{"sentence": "a fine film"}\n{"sentence": "a dull film"}\n')
    rows = input_files.load_inputs(folder / "rows", bert_graphs.NAMES)
    np.save(folder / "r.npy", gate.logits(str(folder / "m.onnx"), rows))
    return folder


MAKERS = {
    "pipe": os.mkfifo,
    "socket": lambda name: socket.socket(socket.AF_UNIX).bind(name),
    "device": lambda name: Path(name).symlink_to("/dev/zero"),
}


def spoil(case: Case, good: Path, here: Path) -> list[str]:
    """The case's files in folder `here`, and the command that reads them: script and words."""
    needs, command = COMMANDS[case.kind]
    for name in needs:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (good / name).is_dir() else shutil.copy)(good / name, here / name)
    path = here / case.file
    before = path.read_bytes() if path.exists() else b""
    content = case.change(before) if callable(case.change) else case.change
    if isinstance(content, int):
        path.write_bytes(before)
        os.truncate(path, content)
    elif isinstance(content, str):
        path.unlink()
        with contextlib.chdir(path.parent):  # a socket's whole path may be too long for one
            MAKERS[content](path.name)
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return command.format(here=here).split(" ")
