"""Say what is inside an Ascend offline model (.om), from its bytes alone: no card, no CANN.

    python -m tools.ascend.om model.om [--json]
    python -m tools.ascend.om model.om --soc_version Ascend310P3 --input_shape "input_ids:8,128;attention_mask:8,128"

    file        1386 bytes, header 0x20000000, type IR, 1 model(s)
    partition   MODEL_DEF                  1010 bytes at 312
    partition   WEIGHTS_DATA                 64 bytes at 1322
    model_name  ascend
    soc_version Ascend310P3
    atc_version stand-in
    opp_version not in the file
    atc_cmdline atc.bin --framework=5 --model=ascend.onnx --output=model --soc_version=Ascend310P3
    memory      1048576 bytes
    weight      64 bytes
    input       input_ids int64 [8, 128]
    input       attention_mask int64 [8, 128]
    output      output:0 float32 [8, 2]
    ops            12 AttentionScore
    ops             2 Data
    ops             1 NetOutput

The second form also checks: exit 1 when the file was compiled for something else. The options are spelt as
atc spells them. File layout: hicann/ge, inc/framework/common/framework_types_internal.h,
base/common/helper/om_file_helper.cc and graph_metadef/proto/ge_ir.proto (August 2026).
"""

import argparse
import json
import mmap
import struct
from collections import Counter
from functools import cache
from pathlib import Path

from tools.make import cli

HEADER = 256  # bytes; also the value of the header's own size field
# name: struct format, offset
FIELDS = {
    "version": ("<I", 8),
    "length": ("<I", 76),
    "is_encrypt": ("<B", 80),
    "is_checksum": ("<B", 81),
    "modeltype": ("<B", 82),
    "genmode": ("<B", 83),
    "name": ("32s", 84),
    "ops": ("<I", 116),
    "om_ir_version": ("<I", 152),
    "model_num": ("<I", 156),
    "platform_version": ("20s", 160),
    "platform_type": ("<B", 180),
    "model_length": ("<Q", 184),
    "need_check_os_cpu_info": ("<B", 192),
    "is_unknow_model": ("<B", 193),
}
# Version 0x10000000 has no model_num.
FIELDS_V1 = {"platform_version": ("20s", 156), "platform_type": ("<B", 176)}
MODEL_TYPES = ("IR", "standard", "tiny", "flow", "lite", "bundle")
FLOW = 3
BUNDLED = "BUNDLE_MODEL_INFO"
PARTITIONS = {
    0: "MODEL_DEF", 1: "WEIGHTS_DATA", 2: "TASK_INFO", 3: "TBE_KERNELS", 4: "CUST_AICPU_KERNELS",
    5: "SO_BINS", 6: "FLOW_MODEL", 7: "FLOW_SUBMODEL", 8: "MODEL_INOUT_INFO", 9: "STATIC_TASK_DESC",
    10: "DYNAMIC_TASK_DESC", 11: "TASK_PARAM", 12: "TILING_DATA", 20: "PRE_MODEL_DESC", 21: "PRE_MODEL_SQE",
    22: "PRE_KERNEL_ARGS", 23: "PRE_MODEL_DESC_EXTEND", 24: "BUNDLE_MODEL_INFO",
    25: "BUNDLE_MODEL_VAR_INFO", 26: "CUSTOM_OPS",
}  # fmt: skip
FOREIGN = {
    b"PK\x03\x04": "a zip: perhaps an OM2 package, which holds its facts in manifest.json",
    b"PICO": "a PICO model of the SVP tool chain, not of CANN's atc",
    b"HIAI": "a HiAI model for phones, not of CANN's atc",
}
DTYPES = {
    0: "undefined", 1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "int16", 6: "uint16", 7: "int32",
    8: "int64", 9: "uint32", 10: "uint64", 11: "bool", 12: "float64", 27: "bfloat16",
}  # fmt: skip
GEAR_INPUT = (
    "ascend_mbatch_shape_data"  # GE's own input of a gear model: the dims to run; the caller feeds no file to it
)
SIZES = ("weight", "tbe_kernels", "cust_aicpu_kernels", "task_info", "so_store")  # order of om_info_list

# A hostile file must not buy memory or time with a few bytes: far above what any real model holds.
MAX_PARTITIONS, MAX_MODELS, MAX_FIELDS, MAX_MESSAGE = 256, 1024, 200_000, 1 << 20

# The fields we read, and their numbers; a map is on the wire a repeated entry {key=1, value=2}.
SCHEMA = {
    "List": {"s": (2, "bytes*"), "i": (3, "int64*"), "f": (4, "float*"), "b": (5, "bool*")},
    "Attr": {"list": (1, "List"), "s": (2, "bytes"), "i": (3, "int64"), "f": (4, "float"), "b": (5, "bool")},
    "Entry": {"key": (1, "bytes"), "value": (2, "Attr")},
    "Shape": {"dim": (1, "int64*")},
    "Tensor": {
        "name": (1, "bytes"), "dtype": (2, "int32"), "shape": (3, "Shape"), "layout": (4, "bytes"),
        "attr": (5, "Entry*"), "size": (10, "int64"),
    },
    "Op": {
        "name": (1, "bytes"), "type": (2, "bytes"), "input": (5, "bytes*"), "attr": (10, "Entry*"),
        "id": (21, "int64"), "src_name": (24, "bytes*"), "src_index": (25, "int64*"),
        "input_desc": (33, "Tensor*"), "output_desc": (34, "Tensor*"),
    },
    "Graph": {"name": (1, "bytes"), "input": (4, "bytes*"), "output": (5, "bytes*"), "op": (6, "Op*"),
              "attr": (11, "Entry*")},
    "Model": {"name": (1, "bytes"), "version": (2, "uint32"), "custom_version": (3, "bytes"),
              "graph": (7, "Graph*"), "attr": (11, "Entry*")},
}  # fmt: skip


@cache
def messages() -> dict:
    """Protobuf classes for SCHEMA, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="om.proto", package="om", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in SCHEMA.items():
        m = file.message_type.add(name=message)
        if message == "Attr":  # a oneof, so that "is it set" can be asked
            m.oneof_decl.add(name="value")
        for name, (number, kind) in fields.items():
            f = m.field.add(name=name, number=number, label=3 if kind.endswith("*") else 1)
            kind = kind.rstrip("*")
            if kind in SCHEMA:
                f.type, f.type_name = kinds.TYPE_MESSAGE, f".om.{kind}"
            else:
                f.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            if message == "Attr":
                f.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {m: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"om.{m}")) for m in SCHEMA}


class Bad(Exception):
    """What is wrong with the bytes; becomes a UserError with the file's name in front."""


def unpack(fmt: str, data, at: int) -> tuple:
    """struct.unpack_from. Raises Bad where `data` ends before."""
    if at + struct.calcsize(fmt) > len(data):
        raise Bad(f"cut off: byte {at} of {len(data)} should hold more")
    return struct.unpack_from(fmt, data, at)


def text(raw) -> str:
    """Bytes of a name as printable text: nothing a file says can steer a terminal."""
    s = bytes(raw).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in s)


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


def pieces(data, number: int):
    """The length-delimited fields `number` of one encoded message, one at a time, as slices of `data`.

    The outer levels are walked here and only small inner messages go to protobuf, because a parsed message
    can be fifty times the size of its bytes. Raises Bad where they are damaged, or too many.
    """
    at, width = 0, {1: 8, 5: 4}
    for _ in range(MAX_FIELDS):
        if at >= len(data):
            return
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = varint(data, at)
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in width:
            size = width[kind]
        else:
            raise Bad(f"the model definition is damaged: wire type {kind}")
        if size > len(data) - at:
            raise Bad(f"the model definition is damaged: {size} bytes promised, {len(data) - at} left")
        if kind == 2 and tag >> 3 == number:
            yield data[at : at + size]
        at += size
    raise Bad(f"the model definition has more than {MAX_FIELDS} fields in one message")


def parse(message: str, data):
    """`data` as a protobuf message of that name. Raises Bad where it is too large or damaged."""
    from google.protobuf.message import DecodeError

    if len(data) > MAX_MESSAGE:
        raise Bad(f"the model definition holds a {message} of {len(data)} bytes, more than {MAX_MESSAGE}")
    try:
        return messages()[message].FromString(bytes(data))
    except DecodeError:
        raise Bad(f"the model definition is damaged: a {message} does not decode") from None


def value(attr):
    """An Attr as int, float, bool, str or a list of these; None when it is of a kind not in SCHEMA."""
    kind = attr.WhichOneof("value")
    if kind == "list":
        return [text(s) for s in attr.list.s] or list(attr.list.i) or list(attr.list.f) or list(attr.list.b)
    got = getattr(attr, kind) if kind else None
    return text(got) if kind == "s" else got


def attrs(data, number: int) -> dict:
    """The attributes of an encoded message; large ones (weights) are left out."""
    small = (parse("Entry", e) for e in pieces(data, number) if len(e) <= MAX_MESSAGE)
    return {text(e.key): value(e.value) for e in small}


def pick(attr: dict, key: str, kind, of=None):
    """attr[key] if it has the type that CANN gives it, else None; `of`: the type of a list's elements."""
    got = attr.get(key)
    good = isinstance(got, kind) and (of is None or all(isinstance(x, of) for x in got))
    return got if good else None


def first(data, number: int) -> str:
    return next((text(p) for p in pieces(data, number)), "")


def tensor(name: str, desc) -> dict:
    return {"name": name, "dtype": DTYPES.get(desc.dtype, f"type {desc.dtype}"), "dims": list(desc.shape.dim)}


def data_input(raw) -> tuple[int, dict]:
    """A Data op's place among the inputs, and its tensor; with gears the dims asked for (-1).

    Raises Bad where it has no tensor.
    """
    op, attr = parse("Op", raw), attrs(raw, 10)
    descs = op.input_desc or op.output_desc
    if not descs:
        raise Bad(f"input {text(op.name)} has no tensor description")
    got = tensor(text(op.name), descs[0])
    got["dims"] = pick(attr, "_mbatch_origin_input_dims", list, int) or got["dims"]
    return pick(attr, "index", int) or 0, got


def gears_of(attr: dict) -> list:
    """The gears that a graph's attributes name, each a list of dims. Raises Bad for a count that is none."""
    count = pick(attr, "_batch_num", int) or 0
    if not 0 <= count <= MAX_MODELS:
        raise Bad(f"_batch_num {count} is not a count of gears")
    return [pick(attr, f"_pred_value_{i}", list, int) or [] for i in range(count)]


def definition(data) -> dict:
    """Facts of one MODEL_DEF (an encoded ge.proto.ModelDef); see `read` for the keys."""
    attr = attrs(data, 11)
    graphs, inputs, outputs, gears, order = [], [], [], None, None
    for g, graph in enumerate(pieces(data, 7)):
        counts = Counter()
        for op in pieces(graph, 6):
            kind = first(op, 2)
            counts[kind] += 1
            if g == 0 and kind in ("Data", "AippData", "AnnData"):
                inputs.append(data_input(op))
            elif g == 0 and kind == "NetOutput":
                net = parse("Op", op)
                ends = zip(net.input_desc, net.src_name, net.src_index, strict=False)
                outputs = [tensor(f"output_{i}_{text(s)}_{k}", d) for i, (d, s, k) in enumerate(ends)]
            elif g == 0 and kind == "Case":
                case = attrs(op, 10)
                gears, order = gears_of(case), pick(case, "user_designate_shape_order", list, str)
        graphs.append({"name": first(graph, 1), "ops": dict(sorted(counts.items()))})
    for out, name in zip(outputs, pick(attr, "attr_model_out_nodes_name", list, str) or [], strict=False):
        out["name"] = name
    sizes = pick(attr, "om_info_list", list, int) or []
    found = [t for _, t in sorted(inputs, key=lambda x: x[0])]
    return {
        "model_name": first(data, 1),
        "atc_cmdline": pick(attr, "atc_cmdline", str),
        "atc_version": pick(attr, "atc_version", str),
        "opp_version": pick(attr, "opp_version", str),
        "soc_version": pick(attr, "soc_version", str),
        "memory_bytes": pick(attr, "memory_size", int),
        "weight_bytes": pick(attr, "weight_size", int),
        "section_bytes": dict(zip(SIZES, sizes, strict=False)) or None,
        "inputs": [t for t in found if t["name"] != GEAR_INPUT],
        "gear_input": next((t for t in found if t["name"] == GEAR_INPUT), None),
        "outputs": outputs,
        "gears": gears,
        "gear_order": order,
        "graphs": graphs,
        "ops": dict(sorted(sum((Counter(g["ops"]) for g in graphs), Counter()).items())),
    }


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
    if h["version"] < 0x20000000:
        h |= {name: unpack(fmt, data, at)[0] for name, (fmt, at) in FIELDS_V1.items()} | {"model_num": 1}
    for name in ("name", "platform_version"):
        h[name] = text(h[name].split(b"\0")[0])
    h["version"] = f"0x{h['version']:08x}"
    h["model_num"] = max(1, h["model_num"])
    kind = h["modeltype"]
    h["modeltype"] = MODEL_TYPES[kind] if kind < len(MODEL_TYPES) else str(kind)
    h["wide_table"] = kind == FLOW or h["model_length"] != 0  # GE's rule for 64-bit partition entries
    return h


def partitions(data, at: int, wide: bool) -> tuple[list, int]:
    """The partition table at byte `at`, offsets made absolute, and the byte after the last partition.

    Raises Bad for one outside the file.
    """
    (count,) = unpack("<I", data, at)
    entry, start = ("<I4xQQ", at + 8) if wide else ("<III", at + 4)
    if count > MAX_PARTITIONS:
        raise Bad(f"{count} partitions at byte {at}, more than {MAX_PARTITIONS}")
    base = start + count * struct.calcsize(entry)
    found, end = [], base
    for i in range(count):
        kind, offset, size = unpack(entry, data, start + i * struct.calcsize(entry))
        name = PARTITIONS.get(kind, f"type {kind}")
        if base + offset != end:
            raise Bad(f"partition {i} ({name}) starts at byte {base + offset}, the one before ends at {end}")
        end += size
        if end > len(data):
            raise Bad(f"cut off: partition {i} ({name}) ends at byte {end}, the file at {len(data)}")
        found.append({"type": name, "offset": end - size, "bytes": size})
    return found, end


def bundled(data, head: dict) -> dict:
    """The facts of a bundle: a table whose BUNDLE_MODEL_INFO partitions are .om files, each whole."""
    parts, end = partitions(data, HEADER, head["wide_table"])
    models = []
    for part in (p for p in parts if p["type"] == BUNDLED):
        inner = contents(data[part["offset"] : part["offset"] + part["bytes"]], part["offset"])
        models += inner["models"]
    return {"file_bytes": len(data), "trailing_bytes": len(data) - end, "header": head, "models": models}


def contents(data, start: int = 0) -> dict:
    """`data`: the bytes of an .om, which begin at byte `start` of the file.

    Raises Bad where they are cut off, or no .om's.
    """
    head, at, models = header(data), HEADER, []
    if head["model_num"] > MAX_MODELS:
        raise Bad(f"{head['model_num']} models, more than {MAX_MODELS}")
    if head["modeltype"] == "bundle" and start:
        raise Bad(f"a bundle inside a bundle, at byte {start}")
    # GE counts a bundle's header in its length, and no other model's.
    promised = head["model_length"] + HEADER * (head["modeltype"] != "bundle")
    if promised > len(data):
        raise Bad(f"cut off: the header promises {promised} bytes, the file has {len(data)}")
    if head["modeltype"] == "bundle":
        return bundled(data, head)
    for _ in range(head["model_num"]):
        parts, at = partitions(data, at, head["wide_table"])
        model = {"partitions": [p | {"offset": p["offset"] + start} for p in parts]}
        spans = [p for p in parts if p["type"] == "MODEL_DEF"]
        if spans and not head["is_encrypt"]:
            begin = spans[0]["offset"]
            model |= definition(data[begin : begin + spans[0]["bytes"]])
        models.append(model)
    return {"file_bytes": len(data), "trailing_bytes": len(data) - at, "header": head, "models": models}


def read(path) -> dict:
    """The facts of an .om file, as plain JSON types.

    {file_bytes, trailing_bytes, header, models: [{partitions: [{type, offset, bytes}], model_name,
    atc_cmdline, atc_version, opp_version, soc_version, memory_bytes, weight_bytes, section_bytes, inputs,
    outputs: [{name, dtype, dims}], gear_input (GE's own, of gear models, or None), gears: [[int]] or None, gear_order, graphs: [{name, ops}],
    ops: {type: count}}]}. Offsets count from the start of the file. A model without a readable definition
    (encrypted, or none) has only `partitions`. Raises cli.UserError when the file is not a whole .om file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise cli.UserError(f"{path}: not a file; give an .om file")
    with cli.regular(path).open("rb") as f:
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
    if om["trailing_bytes"]:
        lines.append(f"            {om['trailing_bytes']} bytes after the last partition")
    for model in om["models"]:
        for part in model["partitions"]:
            lines.append(f"partition   {part['type']:18} {part['bytes']:>12} bytes at {part['offset']}")
        if "ops" not in model:
            lines.append("definition  none that can be read")
            continue
        for key in ("model_name", "soc_version", "atc_version", "opp_version", "atc_cmdline"):
            lines.append(f"{key:11} {model[key] if model[key] is not None else 'not in the file'}")
        for key in ("memory", "weight"):
            lines.append(f"{key:11} {model[f'{key}_bytes']} bytes")
        for side in ("inputs", "outputs"):
            lines += [f"{side[:-1]:11} {t['name']} {t['dtype']} {t['dims']}" for t in model[side]]
        if model["gear_input"]:
            lines.append("gear_input  {name} {dtype} {dims}".format(**model["gear_input"]))
        if model["gears"]:
            lines.append(f"gears       {'; '.join(','.join(map(str, g)) for g in model['gears'])}")
        lines += [f"ops         {count:5} {kind}" for kind, count in model["ops"].items()]
    return "\n".join(lines)


def check(path, soc_version=None, shapes=None, gears=None, cmdline_has=()) -> dict:
    """Read an .om back and hold it against what was asked of atc.

    soc_version: "Ascend310P3". shapes: {input name: dims}, -1 where a gear decides, every input named.
    gears: [[int]] as in --dynamic_dims. cmdline_has: strings that the stored command line must contain.
    Returns `read`'s dict. Raises cli.UserError naming the first difference.
    """
    om = read(path)
    model = om["models"][0]
    if "ops" not in model:
        raise cli.UserError(f"{path}: holds no readable model definition, so it cannot be checked; compile it again")
    asked = {"soc_version": soc_version, "inputs": shapes, "gears": gears}
    found = {
        "soc_version": model["soc_version"],
        "inputs": {t["name"]: t["dims"] for t in model["inputs"]},
        "gears": model["gears"],
    }
    if shapes is not None:
        asked["inputs"] = {name: list(dims) for name, dims in shapes.items()}
    if gears is not None:
        asked["gears"] = [list(g) for g in gears]
    for key, want in asked.items():
        if want is not None and want != found[key]:
            raise cli.UserError(f"{path}: {key} is {found[key]}, asked for was {want}; compile again")
    if gears is None and shapes is not None and model["gears"]:
        raise cli.UserError(f"{path}: has gears {model['gears']}, none were asked for; compile again")
    for part in cmdline_has:
        if part not in (model["atc_cmdline"] or ""):
            raise cli.UserError(f"{path}: compiled without {part!r}; its command was: {model['atc_cmdline']}")
    return om


def input_shape(spec: str) -> dict:
    """atc's --input_shape "a:8,128;b:8,128" as {name: dims}. Raises argparse's error for another spelling."""
    try:
        pairs = (item.rsplit(":", 1) for item in spec.split(";"))
        return {name: [int(n) for n in dims.split(",")] for name, dims in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{spec!r} is not like 'ids:8,128;mask:8,128'") from None


def dynamic_dims(spec: str) -> list:
    """atc's --dynamic_dims "64,64;128,128" as [[64, 64], [128, 128]]. Raises argparse's error for another spelling."""
    try:
        return [[int(n) for n in gear.split(",")] for gear in spec.split(";")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{spec!r} is not like '64,64;128,128'") from None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path)
    p.add_argument("--json", action="store_true", help="everything, as JSON")
    p.add_argument("--soc_version", help="must be compiled for this, e.g. Ascend310P3")
    p.add_argument("--input_shape", type=input_shape, help="must have these inputs, spelt as for atc")
    p.add_argument("--dynamic_dims", type=dynamic_dims, help="must have these gears, spelt as for atc")
    p.add_argument("--cmdline_has", action="append", default=[], help="must be in its atc command line")
    a = p.parse_args()
    asked = (a.soc_version, a.input_shape, a.dynamic_dims, a.cmdline_has)
    om = check(a.file, *asked) if any(asked) else read(a.file)
    print(json.dumps(om, indent=1) if a.json else show(om))


if __name__ == "__main__":
    cli.run(main)
