"""Say what is inside an Ascend offline model (.om), from its bytes alone: no card, no CANN.

    python -m tools.ascend.om model.om [--json]

    file        1386 bytes, header 0x20000000, type IR, 1 model(s)
    partition   MODEL_DEF                  1010 bytes at 312
    partition   WEIGHTS_DATA                 64 bytes at 1322
    soc_version Ascend310P3
    atc_version stand-in
    opp_version not in the file
    atc_cmdline atc.bin --framework=5 --model=ascend.onnx --output=model --soc_version=Ascend310P3
    input       input_ids int64 [8, 128]
    input       attention_mask int64 [8, 128]
    output      output:0 float32 [8, 2]
    ops            12 AttentionScore
    ops             2 Data
    ops             1 NetOutput

File layout: hicann/ge, inc/framework/common/framework_types_internal.h, base/common/helper/om_file_helper.cc and
graph_metadef/proto/ge_ir.proto (August 2026).
"""

import argparse
import json
import math
import mmap
import struct
from collections import Counter
from pathlib import Path

from tools.make import cli

HEADER = 256  # bytes; also the value of the header's own size field
# name: struct format, offset
FIELDS = {
    "version": ("<I", 8),
    "is_encrypt": ("<B", 80),
    "modeltype": ("<B", 82),
    "model_num": ("<I", 156),
    "model_length": ("<Q", 184),
}
MODEL_TYPES = ("IR", "standard", "tiny", "flow", "lite", "bundle")
PARTITIONS = dict(enumerate("""MODEL_DEF WEIGHTS_DATA TASK_INFO TBE_KERNELS CUST_AICPU_KERNELS SO_BINS FLOW_MODEL
    FLOW_SUBMODEL MODEL_INOUT_INFO STATIC_TASK_DESC DYNAMIC_TASK_DESC TASK_PARAM TILING_DATA""".split()))  # noqa: SIM905  # fmt: skip
FOREIGN = {
    b"PK\x03\x04": "a zip: perhaps an OM2 package, which holds its facts in manifest.json",
    b"PICO": "a PICO model of the SVP tool chain, not of CANN's atc",
    b"HIAI": "a HiAI model for phones, not of CANN's atc",
}
DTYPES = {
    0: "undefined", 1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "int16", 6: "uint16", 7: "int32",
    8: "int64", 9: "uint32", 10: "uint64", 11: "bool", 12: "float64", 27: "bfloat16",
}  # fmt: skip
# GE's own input of a gear model: the dims to run; the caller feeds no file to it.
GEAR_INPUT = "ascend_mbatch_shape_data"
FACTS = ("soc_version", "atc_version", "opp_version", "atc_cmdline")

# A hostile file must not buy memory or time with a few bytes: far above what any real model holds.
MAX_PARTITIONS, MAX_MODELS, MAX_FIELDS, MAX_MESSAGE = 256, 1024, 200_000, 1 << 20


class Bad(Exception):
    """What is wrong with the bytes; becomes a UserError with the file's name in front."""


def unpack(fmt: str, data, at: int) -> tuple:
    """struct.unpack_from. Raises Bad where `data` ends before."""
    if at + struct.calcsize(fmt) > len(data):
        raise Bad(f"cut off: byte {at} of {len(data)} should hold more")
    return struct.unpack_from(fmt, data, at)


def text(raw) -> str:
    """Bytes of a name as printable text: nothing a file says can steer a terminal."""
    s = bytes(raw[:MAX_MESSAGE]).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in s)


# ---- Protobuf, read field by field: the package's parsed messages can be fifty times the size of their bytes.


def varint(data, at: int) -> tuple[int, int]:
    """(value, end) of a protobuf varint. Raises Bad where it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if not data[at - 1] & 128:
            return value, at
    raise Bad("the model definition is damaged: a number has no end")


def fields(data):
    """(number, value) of each field of an encoded message: an int, or a slice of `data`. Raises Bad where it is damaged,
    or has too many."""
    at = 0
    for _ in range(MAX_FIELDS):
        if at >= len(data):
            return
        tag, at = varint(data, at)
        kind = tag & 7
        if kind not in (0, 1, 2, 5):
            raise Bad(f"the model definition is damaged: wire type {kind}")
        value, at = varint(data, at) if kind in (0, 2) else ({1: 8, 5: 4}[kind], at)
        if kind:
            if value > len(data) - at:
                raise Bad(f"the model definition is damaged: {value} bytes promised, {len(data) - at} left")
            at, value = at + value, data[at : at + value]
        yield tag >> 3, value
    raise Bad(f"the model definition has more than {MAX_FIELDS} fields in one message")


def pieces(data, number: int) -> list:
    """The values of the fields `number` that are bytes."""
    return [value for n, value in fields(data) if n == number and not isinstance(value, int)]


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def integers(data, number: int) -> list[int]:
    """The values of a repeated int64, packed or not. Raises Bad where one has no end."""
    found = []
    for n, value in fields(data):
        if n == number and isinstance(value, int):
            found.append(signed(value))
        elif n == number:
            if len(value) > MAX_MESSAGE:
                raise Bad(f"the model definition holds a list of {len(value)} bytes, more than {MAX_MESSAGE}")
            at = 0
            while at < len(value):
                one, at = varint(value, at)
                found.append(signed(one))
    return found


def number_of(data, number: int) -> int:
    return next(iter(integers(data, number)), 0)


def name_of(data, number: int) -> str:
    return next((text(p) for p in pieces(data, number)), "")


class Attributes:
    """A map<string, AttrDef>, fields `number` of a message; each value is decoded as it is asked for."""

    def __init__(self, data, number: int):
        self.raw = {name_of(e, 1): value for e in pieces(data, number) for value in pieces(e, 2)[:1]}

    def integer(self, key: str) -> int:
        return number_of(self.raw.get(key, b""), 3)

    def string(self, key: str) -> str | None:
        return next((text(p) for p in pieces(self.raw.get(key, b""), 2)), None)

    def integers(self, key: str) -> list[int]:
        return [i for part in pieces(self.raw.get(key, b""), 1) for i in integers(part, 3)]

    def strings(self, key: str) -> list[str]:
        return [text(p) for part in pieces(self.raw.get(key, b""), 1) for p in pieces(part, 2)]


# ---- ge.proto


def tensor(name: str, desc) -> dict:
    kind = number_of(desc, 2)
    dims = [i for shape in pieces(desc, 3) for i in integers(shape, 1)]
    return {"name": name, "dtype": DTYPES.get(kind, f"type {kind}"), "dims": dims}


def data_input(op) -> tuple[int, dict]:
    """A Data op's place among the inputs, and its tensor; with gears the dims asked for (-1). Raises Bad where it has
    no tensor."""
    attr, descs = Attributes(op, 10), pieces(op, 33) or pieces(op, 34)
    if not descs:
        raise Bad(f"input {name_of(op, 1)} has no tensor description")
    found = tensor(name_of(op, 1), descs[0])
    return attr.integer("index"), found | {"dims": attr.integers("_mbatch_origin_input_dims") or found["dims"]}


def gears_of(op) -> list[list[int]]:
    """The gears that a Case op names, each a list of dims. Raises Bad for a count that is none."""
    attr = Attributes(op, 10)
    count = attr.integer("_batch_num")
    if not 0 <= count <= MAX_MODELS:
        raise Bad(f"_batch_num {count} is not a count of gears")
    return [attr.integers(f"_pred_value_{i}") for i in range(count)]


def definition(data) -> dict:
    """Facts of one MODEL_DEF (an encoded ge.proto.ModelDef); see `read` for the keys."""
    attr, graphs, inputs, outputs, gears = Attributes(data, 11), [], [], [], None
    for graph in pieces(data, 7):
        counts = Counter()
        for op in pieces(graph, 6):
            kind = name_of(op, 2)
            counts[kind] += 1
            if graphs:
                continue
            if kind in ("Data", "AippData", "AnnData"):
                inputs.append(data_input(op))
            elif kind == "NetOutput":
                outputs = [tensor(f"output_{i}", desc) for i, desc in enumerate(pieces(op, 33))]
            elif kind == "Case":
                gears = gears_of(op)
        graphs.append({"name": name_of(graph, 1), "ops": dict(sorted(counts.items()))})
    for out, name in zip(outputs, attr.strings("attr_model_out_nodes_name"), strict=False):
        out["name"] = name
    return {
        **{key: attr.string(key) for key in FACTS},
        "inputs": [t for _, t in sorted(inputs, key=lambda x: x[0]) if t["name"] != GEAR_INPUT],
        "outputs": outputs,
        "gears": gears,
        "graphs": graphs,
        "ops": dict(sorted(sum((Counter(g["ops"]) for g in graphs), Counter()).items())),
    }


# ---- the file


def header(data) -> dict:
    """The fields of an .om's header. Raises Bad where it is none."""
    magic = bytes(data[:4])
    if magic != b"IMOD":
        kind = FOREIGN.get(magic, f"its first bytes are {magic!r}")
        raise Bad(f"not an .om file of CANN's atc (IMOD): {kind}")
    (size,) = unpack("<I", data, 4)
    if size != HEADER:
        raise Bad(f"header size {size} at byte 4, expected {HEADER}")
    unpack(f"{HEADER}s", data, 0)
    h = {name: unpack(fmt, data, at)[0] for name, (fmt, at) in FIELDS.items()}
    kind = dict(enumerate(MODEL_TYPES)).get(h["modeltype"], str(h["modeltype"]))
    if kind == "bundle":
        raise Bad("a bundle of several models, which atc does not make of an ONNX file")
    h["model_num"] = max(1, h["model_num"]) if h["version"] >= 0x20000000 else 1  # 0x10000000 has no model_num
    h["wide_table"] = kind == "flow" or h["model_length"] != 0  # GE's rule for 64-bit partition entries
    return h | {"version": f"0x{h['version']:08x}", "modeltype": kind}


def partitions(data, at: int, wide: bool, size: float) -> tuple[list, int]:
    """The partition table at byte `at`, offsets made absolute, and the byte after the last partition. Raises Bad for
    one outside the file, which has `size` bytes."""
    (count,) = unpack("<I", data, at)
    entry, start = ("<I4xQQ", at + 8) if wide else ("<III", at + 4)
    if count > MAX_PARTITIONS:
        raise Bad(f"{count} partitions at byte {at}, more than {MAX_PARTITIONS}")
    base = start + count * struct.calcsize(entry)
    found, end = [], base
    for i in range(count):
        kind, offset, length = unpack(entry, data, start + i * struct.calcsize(entry))
        name = PARTITIONS.get(kind, f"type {kind}")
        if base + offset != end:
            raise Bad(f"partition {i} ({name}) starts at byte {base + offset}, the one before ends at {end}")
        end += length
        if end > size:
            raise Bad(f"cut off: partition {i} ({name}) ends at byte {end}, the file at {size}")
        found.append({"type": name, "offset": end - length, "bytes": length})
    return found, end


def contents(data) -> dict:
    """`data`: the bytes of an .om. Raises Bad where they are cut off, or no .om's."""
    head, at, models = header(data), HEADER, []
    if head["model_num"] > MAX_MODELS:
        raise Bad(f"{head['model_num']} models, more than {MAX_MODELS}")
    if head["model_length"] + HEADER > len(data):
        raise Bad(f"cut off: the header promises {head['model_length'] + HEADER} bytes, the file has {len(data)}")
    for _ in range(head["model_num"]):
        parts, at = partitions(data, at, head["wide_table"], len(data))
        model = {"partitions": parts}
        spans = [data[p["offset"] : p["offset"] + p["bytes"]] for p in parts if p["type"] == "MODEL_DEF"]
        if spans and not head["is_encrypt"]:
            model |= definition(spans[0])
        models.append(model)
    return {"file_bytes": len(data), "header": head, "models": models}


def of_head(data: bytes, where: str) -> dict:
    """The facts of an .om's first model, from no more of the file than ends with its definition; {} where that is
    encrypted. Raises cli.UserError where these are no bytes of an .om."""
    try:
        head = header(data)
        first = partitions(data, HEADER, head["wide_table"], math.inf)[0][0]
        span = memoryview(data)[first["offset"] : first["offset"] + first["bytes"]]
        if first["type"] != "MODEL_DEF" or len(span) < first["bytes"]:
            raise Bad("its first bytes do not hold its definition")
        return {} if head["is_encrypt"] else definition(span)
    except (Bad, IndexError) as e:
        raise cli.UserError(f"{where}: {e}; is it of atc?") from None


def read(path) -> dict:
    """The facts of an .om file, as plain JSON types.

    {file_bytes, header, models: [{partitions: [{type, offset, bytes}], soc_version, atc_version, opp_version,
    atc_cmdline, inputs, outputs: [{name, dtype, dims}], gears: [[int]] or None, graphs: [{name, ops}],
    ops: {type: count}}]}. A model without a readable definition (encrypted, or none) has only `partitions`.
    Raises cli.UserError when the file is not a whole .om file.
    """
    with cli.regular(Path(path)).open("rb") as f:
        if f.seek(0, 2) == 0:
            raise cli.UserError(f"{path}: empty; compile the model again")
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)  # weights of gigabytes are never read
    try:
        return contents(memoryview(data))
    except Bad as e:
        raise cli.UserError(f"{path}: {e}; copy it or compile the model again") from None


def show(om: dict) -> str:
    head = om["header"]
    lines = [
        f"file        {om['file_bytes']} bytes, header {head['version']}, type {head['modeltype']}, "
        f"{head['model_num']} model(s)" + (", ENCRYPTED" if head["is_encrypt"] else "")
    ]
    for model in om["models"]:
        lines += [f"partition   {p['type']:18} {p['bytes']:>12} bytes at {p['offset']}" for p in model["partitions"]]
        if "ops" not in model:
            lines.append("definition  none that can be read")
            continue
        lines += [f"{key:11} {model[key] if model[key] is not None else 'not in the file'}" for key in FACTS]
        for side in ("inputs", "outputs"):
            lines += [f"{side[:-1]:11} {t['name']} {t['dtype']} {t['dims']}" for t in model[side]]
        if model["gears"]:
            lines.append(f"gears       {'; '.join(','.join(map(str, g)) for g in model['gears'])}")
        lines += [f"ops         {count:5} {kind}" for kind, count in model["ops"].items()]
    return "\n".join(lines)


def check(path, soc_version: str, shapes: dict | None, gears: list | None, command: list) -> None:
    """Read an .om back and hold it against what was asked of atc. Raises cli.UserError naming the first difference.
    soc_version: "Ascend310P3". shapes: {input name: dims}, -1 where a gear decides, every input named; None where
    none were given. gears: [[int]] as in --dynamic_dims. command: words that the stored command line must contain."""
    model = read(path)["models"][0]
    if "ops" not in model:
        raise cli.UserError(f"{path}: holds no readable model definition, so it cannot be checked; compile it again")
    inputs = {t["name"]: t["dims"] for t in model["inputs"]}
    found = {"soc_version": model["soc_version"], "inputs": inputs, "gears": model["gears"]}
    asked = {"soc_version": soc_version, "inputs": inputs if shapes is None else shapes, "gears": gears}
    for key, want in asked.items():
        if want != found[key]:
            raise cli.UserError(f"{path}: {key} is {found[key]}, asked for was {want}; compile again")
    for word in command:
        if word not in (model["atc_cmdline"] or ""):
            raise cli.UserError(f"{path}: compiled without {word!r}; its command was: {model['atc_cmdline']}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path)
    p.add_argument("--json", action="store_true", help="everything, as JSON")
    a = p.parse_args()
    om = read(a.file)
    print(json.dumps(om, indent=1) if a.json else show(om))


if __name__ == "__main__":
    cli.run(main)
