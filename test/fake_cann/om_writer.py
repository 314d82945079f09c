"""Write a small .om file in CANN's own layout, for the stand-in atc and for tests: only the layout is genuine."""

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.ascend import om
from tools.make import cli

DTYPE = {name: number for number, name in om.DTYPES.items()}
PARTITION = {name: number for number, name in om.PARTITIONS.items()}


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number: int, value) -> bytes:
    """A protobuf field: an int, text or bytes, or a list of them, integers packed."""
    match value:
        case int():
            return varint(number << 3) + varint(value)
        case str():
            return field(number, value.encode())
        case [int(), *_]:
            return field(number, b"".join(map(varint, value)))
        case list() | tuple():
            return b"".join(field(number, one) for one in value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def attributes(number: int, values: dict) -> bytes:
    """A map<string, AttrDef>: texts, whole numbers, and lists of either."""
    kinds = {bool: lambda v: field(5, int(v)), int: lambda v: field(3, v), str: lambda v: field(2, v)}
    listed = lambda v: field(1, field(2 if isinstance(v[0], str) else 3, v))
    one = lambda v: kinds.get(type(v), listed)(v)
    return b"".join(field(number, field(1, key) + field(2, one(value))) for key, value in values.items())


def tensor(name, dtype, dims):
    return field(1, name) + field(2, DTYPE[dtype]) + field(3, field(1, list(dims)))


def op(name, kind, more=b""):
    return field(6, field(1, name) + field(2, kind) + more)


def ops_of(inputs, outputs, kinds, gears, order):
    """Data ops, one op per name in `kinds`, with gears a Case, and NetOutput."""
    largest = [max(gear[i] for gear in gears) for i in range(len(gears[0]))] if gears else []
    free, ops = iter(largest), b""
    for i, (name, dtype, dims) in enumerate(inputs):
        facts = {"index": i} | ({"_mbatch_origin_input_dims": list(dims)} if gears else {})
        full = [next(free) if d == -1 else d for d in dims]
        ops += op(name, "Data", field(33, tensor(name, dtype, full)) + attributes(10, facts))
    ops += b"".join(op(f"{kind}_{i}", kind) for i, kind in enumerate(kinds))
    if gears:  # GE: multi_batch_clone_pass.cc
        desc, facts = tensor("", "int32", [len(gears[0])]), {"index": len(inputs), "_is_multi_batch_shape_data": True}
        ops += op(om.GEAR_INPUT, "Data", field(33, desc) + field(34, desc) + attributes(10, facts))
        ops += op("ascend_mbatch_shape_const", "Constant") + op("ascend_mbatch_shape_mapindex", "MapIndex")
        facts = {f"_pred_value_{i}": list(gear) for i, gear in enumerate(gears)}
        facts |= {"_batch_num": len(gears), "mbatch_dynamic_type": 3, "user_designate_shape_order": order}
        ops += op("case", "Case", attributes(10, facts))
    sources = [name.split(":")[0] for name, _, _ in outputs]
    return ops + op("Node_Output", "NetOutput", b"".join(field(33, tensor(*t)) for t in outputs) + field(24, sources))


def write_om(
    path, *, name="model", inputs, outputs, ops=(), gears=None, weights=b"", atc_cmdline="", soc_version="Ascend310P3",
    atc_version="stand-in",
):  # fmt: skip
    """Write one static or gear model; with gears, as in GE, the given ops stand once per gear in sub-graphs.

    inputs, outputs: [(name, dtype such as "int64", dims)], -1 in dims where a gear decides.
    ops: op type names, one per op. gears: [[int]], one number per -1, in input order.
    """
    order = [n for n, _, _ in inputs]
    graphs = field(7, field(1, name) + ops_of(inputs, outputs, [] if gears else ops, gears, order))
    for i in range(len(gears or ())):
        inner = b"".join(op(f"{kind}_{k}", kind) for k, kind in enumerate(ops))
        graphs += field(7, field(1, f"Batch_{i}") + inner)
    facts = {"atc_cmdline": atc_cmdline, "atc_version": atc_version, "soc_version": soc_version}
    facts |= {"framework_type": "Onnx", "weight_size": len(weights)}
    facts["attr_model_out_nodes_name"] = [name for name, _, _ in outputs]
    definition = field(1, name) + graphs + attributes(11, facts)
    table = struct.pack("<I4x", 2)
    for kind, at, data in (("MODEL_DEF", 0, definition), ("WEIGHTS_DATA", len(definition), weights)):
        table += struct.pack("<I4xQQ", PARTITION[kind], at, len(data))  # as today's GE writes
    head = bytearray(om.HEADER)
    struct.pack_into("<4sII", head, 0, b"IMOD", om.HEADER, 0x20000000)
    struct.pack_into("<32s", head, 84, name.encode()[:31])
    struct.pack_into("<I", head, 156, 1)
    struct.pack_into("<Q", head, 184, len(table) + len(definition) + len(weights))
    cli.write(path, bytes(head) + table + definition + weights)
