"""Write a small .om file in CANN's own layout, for the stand-in atc and for tests.

    import om_writer
    om_writer.write_om("model.om", name="bert", inputs=[("input_ids", "int64", [8, 128])],
                       outputs=[("output", "float32", [8, 2])], soc_version="Ascend310P3",
                       atc_cmdline="atc.bin --model=ascend.onnx ...", weights=b"...")

Only the layout is genuine; what stands in the weights is the caller's business.
"""

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.ascend import om
from tools.make import cli

DTYPE = {name: number for number, name in om.DTYPES.items()}
PARTITION = {name: number for number, name in om.PARTITIONS.items()}


def attr(x):
    """A Python value as an Attr message."""
    Attr, List = om.messages()["Attr"], om.messages()["List"]
    match x:
        case bool():
            return Attr(b=x)
        case int():
            return Attr(i=x)
        case float():
            return Attr(f=x)
        case str():
            return Attr(s=x.encode())
        case [str(), *_]:
            return Attr(list=List(s=[s.encode() for s in x]))
        case list() | tuple():
            return Attr(list=List(i=x))
    raise TypeError(f"no attribute of type {type(x)}")


def entries(values: dict):
    Entry = om.messages()["Entry"]
    return [Entry(key=k.encode(), value=attr(v)) for k, v in values.items()]


def tensor(name, dtype, dims):
    M = om.messages()
    return M["Tensor"](name=name.encode(), dtype=DTYPE[dtype], shape=M["Shape"](dim=dims), layout=b"ND")


def ops_of(inputs, outputs, kinds, gears, order):
    """Data ops, one op per name in `kinds`, with gears a Case, and NetOutput."""
    Op = om.messages()["Op"]
    largest = [max(gear[i] for gear in gears) for i in range(len(gears[0]))] if gears else []
    free = iter(largest)
    ops = []
    for i, (name, dtype, dims) in enumerate(inputs):
        facts = {"index": i} | ({"_mbatch_origin_input_dims": list(dims)} if gears else {})
        desc = tensor(name, dtype, [next(free) if d == -1 else d for d in dims])
        ops.append(Op(name=name.encode(), type=b"Data", input_desc=[desc], attr=entries(facts)))
    ops += [Op(name=f"{kind}_{i}".encode(), type=kind.encode()) for i, kind in enumerate(kinds)]
    if gears:  # GE: multi_batch_clone_pass.cc
        desc, facts = tensor("", "int32", [len(gears[0])]), {"index": len(inputs), "_is_multi_batch_shape_data": True}
        ops.append(
            Op(name=om.GEAR_INPUT.encode(), type=b"Data", input_desc=[desc], output_desc=[desc], attr=entries(facts))
        )
        ops.append(Op(name=b"ascend_mbatch_shape_const", type=b"Constant"))
        ops.append(Op(name=b"ascend_mbatch_shape_mapindex", type=b"MapIndex"))
        facts = {f"_pred_value_{i}": list(gear) for i, gear in enumerate(gears)}
        facts |= {"_batch_num": len(gears), "mbatch_dynamic_type": 3, "user_designate_shape_order": order}
        ops.append(Op(name=b"case", type=b"Case", attr=entries(facts)))
    ops.append(
        Op(
            name=b"Node_Output",
            type=b"NetOutput",
            input_desc=[tensor(*t) for t in outputs],
            src_name=[name.split(":")[0].encode() for name, _, _ in outputs],
            src_index=[0] * len(outputs),
        )
    )
    for i, op in enumerate(ops):
        op.id = i
    return ops


def model_def(name, inputs, outputs, *, ops=(), gears=None, atc_cmdline, soc_version, atc_version, weight_bytes=0):
    """An encoded ge.proto.ModelDef; with gears, as in GE, the given ops stand once per gear in sub-graphs."""
    M = om.messages()
    order = [n for n, _, _ in inputs]
    root = ops_of(inputs, outputs, [] if gears else ops, gears, order)
    graphs = [M["Graph"](name=name.encode(), op=root, input=[n.encode() for n in order])]
    for i in range(len(gears or ())):
        inner = [M["Op"](name=f"{kind}_{k}".encode(), type=kind.encode()) for k, kind in enumerate(ops)]
        graphs.append(M["Graph"](name=f"Batch_{i}".encode(), op=inner))
    facts = {
        "atc_cmdline": atc_cmdline,
        "atc_version": atc_version,
        "soc_version": soc_version,
        "framework_type": "Onnx",
        "memory_size": 1 << 20,
        "weight_size": weight_bytes,
        "om_info_list": [weight_bytes, 0, 0, 0, 0],
        "attr_model_out_nodes_name": [n for n, _, _ in outputs],
    }
    model = M["Model"](name=name.encode(), version=1, graph=graphs, attr=entries(facts))
    return model.SerializeToString(deterministic=True)


def write_om(
    path,
    *,
    name="model",
    inputs,
    outputs,
    atc_cmdline="",
    soc_version="Ascend310P3",
    atc_version="stand-in",
    ops=(),
    gears=None,
    weights=b"",
    wide=True,
    extra=(),
) -> None:
    """Write one static or gear model.

    inputs, outputs: [(name, dtype such as "int64", dims)], -1 in dims where a gear decides.
    ops: op type names, one per op. gears: [[int]], one number per -1, in input order.
    weights: bytes of the WEIGHTS_DATA partition. wide: 64-bit partition table, as today's GE writes.
    extra: further partitions [(type name of om.PARTITIONS, bytes)].
    """
    definition = model_def(
        name, inputs, outputs, ops=ops, gears=gears, atc_cmdline=atc_cmdline, soc_version=soc_version,
        atc_version=atc_version, weight_bytes=len(weights),
    )  # fmt: skip
    parts = [("MODEL_DEF", definition), ("WEIGHTS_DATA", weights), *extra]
    entry, table, at = ("<I4xQQ" if wide else "<III"), struct.pack("<I4x" if wide else "<I", len(parts)), 0
    for kind, data in parts:
        table += struct.pack(entry, PARTITION[kind], at, len(data))
        at += len(data)
    head = bytearray(om.HEADER)
    struct.pack_into("<4sII", head, 0, b"IMOD", om.HEADER, 0x20000000)
    struct.pack_into("<32s", head, 84, name.encode()[:31])
    struct.pack_into("<I", head, 76, 0 if wide else len(table) + at)
    struct.pack_into("<I", head, 156, 1)
    struct.pack_into("<Q", head, 184, len(table) + at if wide else 0)
    with cli.whole_file(path) as f:
        for data in (head, table, *(data for _, data in parts)):
            f.write(data)
