"""tools/ascend/om.py: what it reads from .om files, and that a cut or bent file gives one line, nothing else."""

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fake_cann import om_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.ascend import om
from tools.make import cli

OM = Path(om.__file__)
COMMAND = "atc.bin --framework=5 --input_format=ND --soc_version=Ascend310P3 --model=ascend.onnx"
INPUTS = [("input_ids", "int64", [8, 128]), ("attention_mask", "int64", [8, 128])]
OUTPUTS = [("output:0", "float32", [8, 2])]


def write(path, **changes):
    asked = {"inputs": INPUTS, "outputs": OUTPUTS, "atc_cmdline": COMMAND, "weights": b"w" * 20} | changes
    om_writer.write_om(path, **asked)
    return path


def write_gears(path):
    inputs = [(name, kind, [8, -1]) for name, kind, _ in INPUTS]
    return write(path, inputs=inputs, gears=[[64, 64], [128, 128]], ops=["AttentionScore"] * 6)


def by_hand(definition: bytes, wide: bool) -> bytes:
    """An .om file from the layout's own numbers, sharing nothing with the reader or the writer."""
    table = (
        struct.pack("<II IIQQ IIQQ", 2, 0, 0, 0, 0, len(definition), 1, 0, len(definition), 3)
        if wide
        else struct.pack("<I III III", 2, 0, 0, len(definition), 1, len(definition), 3)
    )
    head = b"IMOD" + struct.pack("<II", 256, 0x20000000) + bytes(64 + 4) + bytes(4) + b"bert".ljust(32, b"\0")
    head += bytes(4 + 32 + 4) + struct.pack("<I", 1) + bytes(24)
    head += struct.pack("<Q", len(table) + len(definition) + 3 if wide else 0)
    return head.ljust(256, b"\0") + table + definition + b"www"


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    out = b""
    for n in (number << 3 | 2, len(payload)):
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        out += bytes([n])
    return out + payload


INT64 = b"\x10\x08"  # TensorDescriptor.dtype = 8
DIMS = field(3, field(1, b"\x08\x80\x01"))  # shape {dim: [8, 128]}
INDEX = field(10, field(1, b"index") + field(2, b"\x18\x00"))  # attr {"index": 0}
SOC = field(11, field(1, b"soc_version") + field(2, field(2, b"Ascend310")))
DATA = field(6, field(1, b"x") + field(2, b"Data") + INDEX + field(34, INT64 + DIMS))
DEFINITION = field(1, b"m") + field(7, DATA + field(6, field(2, b"Gelu"))) + SOC


@pytest.mark.parametrize("wide", [True, False])
def test_layout_by_hand(tmp_path, wide):
    path = tmp_path / "m.om"
    path.write_bytes(by_hand(DEFINITION, wide))
    got = om.read(path)
    assert got["trailing_bytes"] == 0
    assert got["header"]["name"] == "bert"
    (model,) = got["models"]
    sizes = {p["type"]: p["bytes"] for p in model["partitions"]}
    assert sizes == {"MODEL_DEF": len(DEFINITION), "WEIGHTS_DATA": 3}
    assert model["soc_version"] == "Ascend310"
    assert model["inputs"] == [{"name": "x", "dtype": "int64", "dims": [8, 128]}]
    assert model["ops"] == {"Data": 1, "Gelu": 1}


@pytest.mark.parametrize("wide", [True, False])
def test_written_is_read(tmp_path, wide):
    path = write(tmp_path / "m.om", wide=wide, ops=["AttentionScore", "AttentionScore", "Gelu"])
    model = om.read(path)["models"][0]
    assert model["inputs"] == [{"name": n, "dtype": d, "dims": s} for n, d, s in INPUTS]
    assert model["outputs"] == [{"name": "output:0", "dtype": "float32", "dims": [8, 2]}]
    assert model["atc_cmdline"] == COMMAND
    assert model["weight_bytes"] == 20
    assert model["ops"] == {"AttentionScore": 2, "Data": 2, "Gelu": 1, "NetOutput": 1}
    weights = model["partitions"][1]
    assert path.read_bytes()[weights["offset"] :] == b"w" * 20 == b"w" * weights["bytes"]


def test_gears(tmp_path):
    model = om.read(write_gears(tmp_path / "m.om"))["models"][0]
    assert model["gears"] == [[64, 64], [128, 128]]
    assert model["gear_order"] == ["input_ids", "attention_mask"]
    assert [t["dims"] for t in model["inputs"]] == [[8, -1], [8, -1]]
    assert [g["ops"].get("AttentionScore") for g in model["graphs"]] == [None, 6, 6]


def test_several_models_in_one_file(tmp_path):
    once = by_hand(DEFINITION, wide=True)
    twice = bytearray(once + once[256:])
    struct.pack_into("<I", twice, 156, 2)
    (tmp_path / "m.om").write_bytes(twice)
    got = om.read(tmp_path / "m.om")
    assert [m["ops"] for m in got["models"]] == [{"Data": 1, "Gelu": 1}] * 2
    assert got["trailing_bytes"] == 0


def test_same_facts_same_bytes(tmp_path):
    assert write_gears(tmp_path / "a.om").read_bytes() == write_gears(tmp_path / "b.om").read_bytes()


def test_encrypted_is_said_not_guessed(tmp_path):
    path = write(tmp_path / "m.om")
    data = bytearray(path.read_bytes())
    data[80] = 1
    path.write_bytes(data)
    assert "ops" not in om.read(path)["models"][0]
    assert "ENCRYPTED" in om.show(om.read(path))
    with pytest.raises(cli.UserError, match="cannot be checked"):
        om.check(path, soc_version="Ascend310P3")


SHAPES = {name: dims for name, _, dims in INPUTS}


def test_check_accepts_what_was_asked(tmp_path):
    om.check(write(tmp_path / "a.om"), "Ascend310P3", SHAPES, cmdline_has=["--input_format=ND"])
    bucketed = {name: [8, -1] for name in SHAPES}
    om.check(write_gears(tmp_path / "b.om"), "Ascend310P3", bucketed, [(64, 64), (128, 128)])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"soc_version": "Ascend310P1"}, "soc_version is Ascend310P3, asked for was Ascend310P1"),
        ({"shapes": SHAPES | {"input_ids": [1, 128]}}, "asked for was"),
        ({"shapes": {"input_ids": [8, 128]}}, "asked for was"),
        ({"shapes": {n: [8, -1] for n in SHAPES}, "gears": [[64, 64]]}, "asked for was"),
        ({"cmdline_has": ["--precision_mode=force_fp16"]}, "compiled without"),
    ],
)
def test_check_names_the_difference(tmp_path, asked, says):
    with pytest.raises(cli.UserError, match=says):
        om.check(write(tmp_path / "m.om"), **asked)


def test_check_refuses_gears_not_asked_for(tmp_path):
    with pytest.raises(cli.UserError, match="gears"):
        om.check(write_gears(tmp_path / "m.om"), shapes={name: [8, -1] for name in SHAPES})


def write_narrow(path):
    return write(path, wide=False)


@pytest.mark.parametrize("make", [write, write_gears, write_narrow])
def test_cut_at_every_byte(tmp_path, make):
    whole = make(tmp_path / "whole.om").read_bytes()
    cut = tmp_path / "cut.om"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        with pytest.raises(cli.UserError):
            om.read(cut)


def peak_memory(path) -> int:
    """Bytes that reading `path` in a process of its own needs at most; the read may fail with one line."""
    code = """
import resource, sys
from tools.make import cli
from tools.ascend import om
try:
    om.read(sys.argv[1])
except cli.UserError as e:
    assert "\\n" not in str(e)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = [sys.executable, "-c", code, str(path)]
    return int(subprocess.run(done, cwd=OM.parent, capture_output=True, check=True).stdout)


def lying_table(count: int, size: int) -> bytes:
    data = bytearray(by_hand(DEFINITION, wide=True))
    struct.pack_into("<I", data, 256, count)
    struct.pack_into("<Q", data, 256 + 8 + 16, size)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        lying_table(0xFFFFFFFF, 10),
        lying_table(2, 1 << 63),
        by_hand(b"2\0" * 3_000_000, wide=True),  # no graph, only unknown fields
        by_hand(field(7, b"2\0" * 3_000_000), wide=True),  # three million empty ops
        by_hand(field(7, field(6, field(2, b"Data") + b"\x8a\x02\0" * 900_000)), wide=True),  # tensors in an op
        by_hand(field(11, b"\x12\0" * 2_000_000), wide=True),
        by_hand(b"\x0a" + b"\xff" * 9, wide=True),
    ],
    ids=["partitions", "partition size", "fields", "ops", "tensors", "attributes", "varint"],
)
def test_hostile_file_buys_no_memory(tmp_path, data):
    (tmp_path / "m.om").write_bytes(data)
    before, after = (peak_memory(path) for path in (write(tmp_path / "good.om"), tmp_path / "m.om"))
    assert after - before < len(data) + (64 << 20)


def test_terminal_escapes_are_shown_not_sent(tmp_path):
    path = write(tmp_path / "m.om", atc_cmdline="atc \x1b[2J --model=x\n", name="\x07bell")
    shown = om.show(om.read(path))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2J" in shown


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 8), gears=st.booleans())
def test_changed_bytes(tmp_path, seed, changes, gears):
    """Flipped, removed and repeated bytes: a result or one line, nothing else."""
    pick = random.Random(seed)  # noqa: S311  the seed is the test case
    data = bytearray((write_gears if gears else write)(tmp_path / "m.om").read_bytes())
    for _ in range(changes):
        at = pick.randrange(len(data))
        match pick.randrange(3):
            case 0:
                data[at] = pick.randrange(256)
            case 1:
                del data[at : at + pick.randrange(1, 5)]
            case 2:
                data[at:at] = data[at : at + 5]
    (tmp_path / "bent.om").write_bytes(data)
    try:
        om.show(om.read(tmp_path / "bent.om"))
    except cli.UserError as e:
        assert "\n" not in str(e)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(definition=st.binary(max_size=200), wide=st.booleans())
def test_any_definition(tmp_path, definition, wide):
    (tmp_path / "any.om").write_bytes(by_hand(definition, wide))
    try:
        om.show(om.read(tmp_path / "any.om"))
    except cli.UserError as e:
        assert "\n" not in str(e)


def test_command_line(tmp_path):
    def run(*args):
        done = [sys.executable, OM, *map(str, args)]
        return subprocess.run(done, capture_output=True, text=True, check=False)

    path = write(tmp_path / "m.om")
    assert "soc_version Ascend310P3" in run(path).stdout
    shape = "input_ids:8,128;attention_mask:8,128"
    assert run(path, "--soc_version", "Ascend310P3", "--input_shape", shape).returncode == 0
    wrong = run(path, "--soc_version", "Ascend910B3")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    missing = run(tmp_path / "no.om")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
