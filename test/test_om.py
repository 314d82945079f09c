"""tools/ascend/om.py: what it reads from .om files, and that a cut file gives one line (of bent ones: lab/fuzz.py)."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import fails, refused
from fake_cann import om_writer

from tools.ascend import om
from tools.base import trip
from tools.make import cli

OM = Path(om.__file__)
COMMAND = "atc.bin --framework=5 --input_format=ND --soc_version=Ascend310P3 --model=ascend.onnx"
INPUTS = [("input_ids", "int64", [8, 128]), ("attention_mask", "int64", [8, 128])]
OUTPUTS = [("output:0", "float32", [8, 2])]


def write(path, **changes):
    content = {"inputs": INPUTS, "outputs": OUTPUTS, "atc_cmdline": COMMAND, "weights": b"w" * 20} | changes
    om_writer.write_om(path, **content)
    return path


def write_gears(path):
    inputs = [(name, kind, [8, -1]) for name, kind, _ in INPUTS]
    return write(path, inputs=inputs, gears=[[64, 64], [128, 128]], ops=["AttentionScore"] * 6)


def by_hand(definition: bytes, wide: bool, first: bytes = b"") -> bytes:
    """An .om file from the layout's own numbers, sharing nothing with the reader or the writer; `first`: MODEL_INOUT_INFO."""
    n, size = len(first), len(definition)
    table = struct.pack("<I III III III", 3, 8, 0, n, 0, n, size, 1, n + size, 3)
    if wide:
        table = struct.pack("<II IIQQ IIQQ IIQQ", 3, 0, 8, 0, 0, n, 0, 0, n, size, 1, 0, n + size, 3)
    head = b"IMOD" + struct.pack("<II", 256, 0x20000000) + bytes(64 + 4) + bytes(4) + b"bert".ljust(32, b"\0")
    head += bytes(4 + 32 + 4) + struct.pack("<I", 1) + bytes(24)
    head += struct.pack("<Q", len(table) + n + size + 3 if wide else 0)
    return head.ljust(256, b"\0") + table + first + definition + b"www"


field = om_writer.field
INT64 = b"\x10\x08"  # TensorDescriptor.dtype = 8
DIMS = field(3, field(1, b"\x08\x80\x01"))  # shape {dim: [8, 128]}
INDEX = field(10, field(1, b"index") + field(2, b"\x18\x00"))  # attr {"index": 0}
SOC = field(11, field(1, b"soc_version") + field(2, field(2, b"Ascend310")))
DATA = field(6, field(1, b"x") + field(2, b"Data") + INDEX + field(34, INT64 + DIMS))
DEFINITION = field(1, b"m") + field(7, DATA + field(6, field(2, b"Gelu"))) + SOC


@pytest.mark.parametrize("wide", [True, False])
def test_layout_by_hand_whole_and_cut_short(tmp_path, wide):
    path = tmp_path / "m.om"
    path.write_bytes(whole := by_hand(DEFINITION, wide))
    model = om.read_om(path)
    sizes = {p["type"]: p["bytes"] for p in model["partitions"]}
    assert sizes == {"MODEL_INOUT_INFO": 0, "MODEL_DEF": len(DEFINITION), "WEIGHTS_DATA": 3}
    assert model["soc_version"] == "Ascend310"
    assert model["inputs"] == [{"name": "x", "dtype": "int64", "dims": [8, 128]}]
    assert model["ops"] == {"Data": 1, "Gelu": 1}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(cli.UserError):
            om.read_om(path)


@pytest.mark.parametrize("wide", [True, False])
def test_a_head_ends_with_the_definition_wherever_that_stands(tmp_path, wide):
    (tmp_path / "m.om").write_bytes(by_hand(DEFINITION, wide, b"i" * 70_000))
    head = trip.head_of(tmp_path / "m.om")
    assert head.endswith(DEFINITION) and om.read_head(head, "m.om")["soc_version"] == "Ascend310"
    refused("m.om: cut off", om.read_head, head[:-1], "m.om")


def test_encrypted_and_several_are_said_not_guessed(tmp_path):
    path = write(tmp_path / "m.om")
    data = bytearray(path.read_bytes())
    data[80] = 1
    path.write_bytes(data)
    assert "ENCRYPTED" in om.show(om.read_om(path))
    refused("cannot be checked", om.check, om.read_om(path), "m.om", command=[])
    data[156] = 2
    path.write_bytes(data)
    refused("several models in one file", om.read_om, path)


SHAPES = {name: dims for name, _, dims in INPUTS}
OF_GEARS = {"inputs": {name: [8, -1] for name in SHAPES}, "gears": [[64, 64], [128, 128]]}


@pytest.mark.parametrize(("make", "facts", "says"), [
    (write, {"command": ["--input_format=ND"]}, None),
    (write_gears, OF_GEARS, None),
    (write, {"soc_version": "Ascend310P1"}, "soc_version is Ascend310P3, asked for was Ascend310P1"),
    (write, {"inputs": SHAPES | {"input_ids": [1, 128]}}, "asked for was"),
    (write, {"inputs": {"input_ids": [8, 128]}}, "asked for was"),
    (write, OF_GEARS, "asked for was"),
    (write_gears, OF_GEARS | {"gears": None}, "gears is .* asked for was None"),
    (write, {"command": ["--precision_mode=force_fp16"]}, "compiled without"),
])  # fmt: skip
def test_check_names_the_difference(tmp_path, make, facts, says):
    facts = {"soc_version": "Ascend310P3", "inputs": SHAPES, "gears": None, "command": []} | facts
    definition = om.read_om(make(tmp_path / "m.om"))
    if says is None:
        return om.check(definition, "m.om", **facts)
    refused(says, om.check, definition, "m.om", **facts)


PEAK = """
import resource, sys
from tools.make import cli
from tools.ascend import om
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        om.read_om(path)
    except cli.UserError as e:
        assert "\\n" not in str(e)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def lying_table(count: int, size: int) -> bytes:
    data = bytearray(by_hand(DEFINITION, wide=True))
    struct.pack_into("<I", data, 256, count)
    struct.pack_into("<Q", data, 256 + 8 + 16, size)
    return bytes(data)


HOSTILE = {
    "partitions": lying_table(0xFFFFFFFF, 10),
    "partition size": lying_table(2, 1 << 63),
    "fields": by_hand(b"2\0" * 3_000_000, wide=True),  # no graph, only unknown fields
    "ops": by_hand(field(7, b"2\0" * 3_000_000), wide=True),  # three million empty ops
    "tensors": by_hand(field(7, field(6, field(2, b"Data") + b"\x8a\x02\0" * 900_000)), wide=True),
    "attributes": by_hand(field(11, b"\x12\0" * 2_000_000), wide=True),
    "varint": by_hand(b"\x0a" + b"\xff" * 9, wide=True),
}


def test_hostile_files_buy_no_memory(tmp_path):
    for name, data in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    words = [sys.executable, "-c", PEAK, write(tmp_path / "good.om"), *(tmp_path / name for name in HOSTILE)]
    done = subprocess.run(words, cwd=OM.parent, capture_output=True, check=True)
    grown = dict(zip(["good", *HOSTILE], map(int, done.stdout.split()), strict=True))
    assert {name: kib for name, kib in grown.items() if kib > len(HOSTILE.get(name, b"")) / 1024 + (64 << 10)} == {}


def test_terminal_escapes_are_shown_not_sent(tmp_path):
    run = lambda path: subprocess.run([sys.executable, OM, path], capture_output=True, text=True, check=False)
    shown = run(write(tmp_path / "m.om", atc_cmdline="atc \x1b[2J --model=x\x07\n")).stdout
    assert "soc_version Ascend310P3" in shown and not set("\x1b\x07") & set(shown) and "\\x1b[2J" in shown
    fails(run(tmp_path / "no.om"), "no.om")
