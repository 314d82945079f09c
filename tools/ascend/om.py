"""Show what is inside an Ascend offline model (.om), from its bytes alone, without a card or CANN.

    python -m tools.ascend.om model.om

    file        header 0x20000000, type IR
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

import functools
import math
import mmap
import struct
from collections import Counter
from pathlib import Path

from tools.make import cli

HEADER = 256  # bytes; also the value of the header's own size field
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
# An input that GE adds to a model with gears, for the dims to run; no file is fed to it.
GEAR_INPUT = "ascend_mbatch_shape_data"
FACTS = ("soc_version", "atc_version", "opp_version", "atc_cmdline")
# The fields of ge_ir.proto that are read here; * marks a repeated one, :i an integer. A message within another stays bytes
# until it is needed, because a hostile one can take fifty times its size once it is parsed.
MESSAGES = {
    "ModelDef": "graph=7* attr=11*",
    "GraphDef": "name=1 op=6*",
    "OpDef": "name=1 type=2 attr=10* input_desc=33* output_desc=34*",
    "TensorDescriptor": "dtype:i=2 shape=3",
    "ShapeDef": "dim:i=1*",
    "Attribute": "key=1 value=2",  # of the maps called attr
    "AttrDef": "list=1 s=2 i:i=3",
    "ListValue": "s=2* i:i=3*",
}
MOST = 200_000  # entries of a repeated field: far more than any real model has


class Bad(Exception):
    """What is wrong with the bytes. It becomes a UserError that begins with the file's name."""


def unpack(fmt: str, data, at: int) -> tuple:
    """struct.unpack_from. Raises Bad if `data` is too short."""
    if at + struct.calcsize(fmt) > len(data):
        raise Bad(f"cut off: byte {at} of {len(data)} should hold more")
    return struct.unpack_from(fmt, data, at)


def printable(raw: bytes) -> str:
    """A name's bytes as printable text, so that no file can steer a terminal."""
    return cli.printable(raw[: 1 << 20].decode("utf-8", "backslashreplace"))


# ---- ge_ir.proto


@functools.cache
def classes() -> dict:
    """The protobuf class of each of MESSAGES."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="ge_ir.proto", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, number in (field.split("=") for field in fields.split()):
            field = message.field.add(name=label.removesuffix(":i"), number=int(number.rstrip("*")))
            field.type = field.TYPE_INT64 if label.endswith(":i") else field.TYPE_BYTES
            field.label = field.LABEL_REPEATED if number.endswith("*") else field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name], pool)


def parse_message(name: str, encoded: bytes):
    """A message of this name, parsed. Raises Bad if its bytes are damaged."""
    from google.protobuf.message import DecodeError

    try:
        return classes()[name].FromString(encoded)
    except DecodeError as e:
        raise Bad(f"the model definition is damaged: {e}") from None


def messages(name: str, encoded):
    """The parsed messages of a repeated field. Raises Bad if there are too many."""
    if len(encoded) > MOST:
        raise Bad(f"the model definition has {len(encoded)} of {name} in one message, more than {MOST}")
    return (parse_message(name, one) for one in encoded)


def attributes(message) -> dict:
    """{key: encoded AttrDef} of a message."""
    return {printable(entry.key): entry.value for entry in messages("Attribute", message.attr)}


def list_value(attr: dict, key: str):
    """The ListValue of an attribute, empty if it is missing."""
    return parse_message("ListValue", parse_message("AttrDef", attr.get(key, b"")).list)


def tensor(name: str, encoded) -> dict:
    desc = parse_message("TensorDescriptor", encoded)
    dims = list(parse_message("ShapeDef", desc.shape).dim)
    return {"name": name, "dtype": DTYPES.get(desc.dtype, f"type {desc.dtype}"), "dims": dims}


def data_input(op) -> tuple[int, dict]:
    """The index of a Data op among the inputs, and its tensor; with gears, -1 stands for a dim that varies. Raises Bad if it
    has no tensor."""
    attr, descs = attributes(op), [*op.input_desc[:1], *op.output_desc[:1]]
    if not descs:
        raise Bad(f"input {printable(op.name)} has no tensor description")
    facts, dims = tensor(printable(op.name), descs[0]), list(list_value(attr, "_mbatch_origin_input_dims").i)
    return parse_message("AttrDef", attr.get("index", b"")).i, facts | ({"dims": dims} if dims else {})


def gears_of(op) -> list[list[int]]:
    """The gears of a Case op, each a list of dims. Raises Bad if their number makes no sense."""
    attr = attributes(op)
    count = parse_message("AttrDef", attr.get("_batch_num", b"")).i
    if not 0 <= count <= MOST:
        raise Bad(f"_batch_num {count} is not a count of gears")
    return [list(list_value(attr, f"_pred_value_{i}").i) for i in range(count)]


def definition(encoded) -> dict:
    """Facts of a MODEL_DEF (an encoded ge.proto.ModelDef); see `read_om` for the keys."""
    model, graphs, inputs, outputs, gears = parse_message("ModelDef", encoded), [], [], [], None
    attr = attributes(model)
    for graph in messages("GraphDef", model.graph):
        counts: Counter = Counter()
        for op in messages("OpDef", graph.op):
            kind = printable(op.type)
            counts[kind] += 1
            if graphs:
                continue
            if kind in ("Data", "AippData", "AnnData"):
                inputs.append(data_input(op))
            elif kind == "NetOutput":
                outputs = [tensor(f"output_{i}", desc) for i, desc in enumerate(op.input_desc[:MOST])]
            elif kind == "Case":
                gears = gears_of(op)
        graphs.append({"name": printable(graph.name), "ops": dict(sorted(counts.items()))})
    for out, name in zip(outputs, list_value(attr, "attr_model_out_nodes_name").s, strict=False):
        out["name"] = printable(name)
    return {
        **{key: printable(parse_message("AttrDef", attr[key]).s) if key in attr else None for key in FACTS},
        "inputs": [t for _, t in sorted(inputs, key=lambda x: x[0]) if t["name"] != GEAR_INPUT],
        "outputs": outputs,
        "gears": gears,
        "graphs": graphs,
        "ops": dict(sorted(sum((Counter(g["ops"]) for g in graphs), Counter()).items())),
    }


# ---- the file


def header(data) -> dict:
    """The fields of the header that are needed here. Raises Bad if the file is not an .om that atc made from ONNX."""
    if (magic := bytes(data[:4])) != b"IMOD":
        kind = FOREIGN.get(magic, f"its first bytes are {magic!r}")
        raise Bad(f"not an .om file of CANN's atc (IMOD): {kind}")
    (size,) = unpack("<I", data, 4)
    if size != HEADER:
        raise Bad(f"header size {size} at byte 4, expected {HEADER}")
    unpack(f"{HEADER}s", data, 0)
    names = ("version", "is_encrypt", "modeltype", "model_num", "model_length")
    h = dict(zip(names, struct.unpack_from("<8xI68xBxB73xI24xQ", data), strict=True))
    kind = dict(enumerate(MODEL_TYPES)).get(h["modeltype"], str(h["modeltype"]))
    if kind == "bundle" or h["version"] >= 0x20000000 and h["model_num"] > 1:  # 0x10000000 has no model_num
        raise Bad("several models in one file, which atc does not make of an ONNX file")
    h["wide_table"] = kind == "flow" or h["model_length"] != 0  # GE's rule for 64-bit partition entries
    return h | {"version": f"0x{h['version']:08x}", "modeltype": kind}


def partitions(data, wide: bool, size: float) -> list:
    """The partition table, which comes after the header, with absolute offsets. Raises Bad for a partition outside the file,
    which has `size` bytes."""
    (count,) = unpack("<I", data, HEADER)
    entry, start = ("<I4xQQ", HEADER + 8) if wide else ("<III", HEADER + 4)
    parts, end = [], start + count * struct.calcsize(entry)
    base = end
    for i in range(count):
        kind, offset, length = unpack(entry, data, start + i * struct.calcsize(entry))
        name = PARTITIONS.get(kind, f"type {kind}")
        if base + offset != end:
            raise Bad(f"partition {i} ({name}) starts at byte {base + offset}, the one before ends at {end}")
        end += length
        if end > size:
            raise Bad(f"cut off: partition {i} ({name}) ends at byte {end}, the file at {size}")
        parts.append({"type": name, "offset": end - length, "bytes": length})
    return parts


def contents(data, size: float) -> dict:
    """The facts in the first bytes of an .om of `size` bytes. Raises Bad if these are no .om, or end before its definition
    does."""
    head = header(data)
    if head["model_length"] + HEADER > size:
        raise Bad(f"cut off: the header promises {head['model_length'] + HEADER} bytes, the file has {size}")
    parts = partitions(data, head["wide_table"], size)
    facts, span = {"header": head, "partitions": parts}, next((p for p in parts if p["type"] == "MODEL_DEF"), None)
    if not span or head["is_encrypt"]:
        return facts
    return facts | definition(unpack(f"{span['bytes']}s", data, span["offset"])[0])


def read_head(data: bytes, where: str) -> dict:
    """The facts of an .om whose bytes `data` holds up to the end of its definition. Raises UserError if it is no .om."""
    try:
        return contents(data, math.inf)
    except Bad as e:
        raise cli.UserError(f"{where}: {e}; is it of atc?") from None


def read_om(path) -> dict:
    """The facts of an .om file, as plain JSON types.

    {header, partitions: [{type, offset, bytes}], soc_version, atc_version, opp_version, atc_cmdline, inputs,
    outputs: [{name, dtype, dims}], gears: [[int]] or None, graphs: [{name, ops}], ops: {type: count}}. A model whose
    definition is encrypted or missing has only header and partitions. Raises UserError if the file is not a whole .om.
    """
    with cli.regular(Path(path)).open("rb") as f:
        size = f.seek(0, 2)
        if size == 0:
            raise cli.UserError(f"{path}: empty; compile the model again")
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)  # weights of gigabytes are never read
    try:
        return contents(memoryview(data), size)
    except Bad as e:
        raise cli.UserError(f"{path}: {e}; copy it or compile the model again") from None


def show(om: dict) -> str:
    head = om["header"]
    encrypted = ", ENCRYPTED" if head["is_encrypt"] else ""
    lines = [f"file        header {head['version']}, type {head['modeltype']}{encrypted}"]
    lines += [f"partition   {p['type']:18} {p['bytes']:>12} bytes at {p['offset']}" for p in om["partitions"]]
    if "ops" not in om:
        return "\n".join([*lines, "definition  none that can be read"])
    lines += [f"{key:11} {om[key] if om[key] is not None else 'not in the file'}" for key in FACTS]
    for side in ("inputs", "outputs"):
        lines += [f"{side[:-1]:11} {t['name']} {t['dtype']} {t['dims']}" for t in om[side]]
    if om["gears"]:
        lines.append(f"gears       {'; '.join(','.join(map(str, g)) for g in om['gears'])}")
    return "\n".join([*lines, *(f"ops         {count:5} {kind}" for kind, count in om["ops"].items())])


def check(om: dict, where: str, command: list, **facts) -> None:
    """Compare an .om's facts with what atc was to make. Raises UserError naming the first difference.

    command: words that the stored command line must contain. facts: soc_version="Ascend310P3"; inputs={name: dims} of
    every input, -1 where a gear decides; gears=[[int]], as in --dynamic_dims. Others are not compared.
    """
    if "ops" not in om:
        raise cli.UserError(f"{where}: holds no readable model definition, so it cannot be checked; compile it again")
    for word in command:
        if word not in (om["atc_cmdline"] or ""):
            raise cli.UserError(f"{where}: compiled without {word!r}; its command was: {om['atc_cmdline']}")
    om = om | {"inputs": {t["name"]: t["dims"] for t in om["inputs"]}}
    for key, value in facts.items():
        if value != om[key]:
            raise cli.UserError(f"{where}: {key} is {om[key]}, asked for was {value}; compile again")


def main():
    p = cli.parser(__doc__)
    p.add_argument("file", type=Path)
    print(show(read_om(p.parse_args().file)))


if __name__ == "__main__":
    cli.run(main)
