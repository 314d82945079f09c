"""Rewrite a BERT classifier's ONNX graph into the form its target wants, and prove it equal.

    print(rewrite.modify("sim.onnx", "ascend.onnx", "ascend", "build/.../seq128/input"))

    mask from attention_mask: constant -10000.0 -> -10000.0; opset 11
    layer  0: attention 12 x 32, scale 0.176777, mask, LayerNorm x 2, Gelu erf
    ...
    gate: equal: fp32, max |difference| 3.81e-06 (limit 1e-04) over 64 rows, 0 flips

The encoder is found by structure (encoder.py) and read into a normal form; a layer that does not match stops the command
with its number and the missing piece. Targets:

ascend  the whole encoder is written anew as CANN's fusion passes look for it (AttentionScore, AttentionLnQKV,
        LayerNorm, Gelu): LayerNorm and context 2-D [batch*length, hidden], key transposed in two steps,
        scores scaled by a Mul named bert_Mul_<layer>, one mask [batch, 1, length, length] for all layers, and
        a Reshape to 3-D behind the last layer. Effect as MagicONNX's BertBigKernelOptimizer and msit's
        KnowledgeBigKernel.
cpu, gpu  the mask anew. Its constant becomes -10000 everywhere: finfo.min turns into -inf or NaN under fp16.
"""

import numpy as np

from tools.base import input_files, onnxfile
from tools.graph import encoder, gate
from tools.graph.encoder import HEADS, Encoder, Layer, Linear, Miss, Norm, const
from tools.make import cli

MASK = -10000.0
OPSETS = range(11, 17)  # ai.onnx versions that encoder.py reads
LAST_TWO = (0, 1, 3, 2)  # Transpose permutation


class Writer:
    """Adds nodes to a graph. Every constant belongs to one node: fusion passes want single readers."""

    def __init__(self, graph, opset: int):
        from onnx_ir import tape

        self.graph, self.opset, self.tape = graph, opset, tape.Tape(graph)
        self.taken = {n.name for n in graph} | set(graph.initializers)
        self.dims: dict = {}  # what reads the open axes of an input

    def const(self, name: str, data, dtype=np.float32):
        import onnx_ir as ir

        return self.tape.initializer(ir.tensor(np.ascontiguousarray(data, dtype), name=name), name=name)

    def op(self, kind: str, name: str, *inputs, **attributes):
        """A node `name` and its output `name`_out; an input that is a number or array becomes a constant."""
        if name in self.taken:
            raise Miss(f"the graph already has a node {name!r}")
        constant = lambda i, v, dtype=np.float32: self.const(f"{name}_{i}", v, dtype)
        ready = [constant(i, v) if isinstance(v, (float, np.ndarray)) else v for i, v in enumerate(inputs)]
        ready = [constant(i, v, np.int64) if isinstance(v, list) else v for i, v in enumerate(ready)]
        out = self.tape.op(kind, ready, attributes or None, name=name)
        out.name = f"{name}_out"
        return out

    def unsqueeze(self, name: str, v, axes: list):
        return self.op("Unsqueeze", name, v, axes) if self.opset >= 13 else self.op("Unsqueeze", name, v, axes=axes)

    def mean(self, name: str, v):
        return self.op("ReduceMean", name, v, axes=[-1], keepdims=1)

    def linear(self, name: str, x, linear: Linear):
        return self.op("Add", f"{name}_Add", self.op("MatMul", f"{name}_MatMul", x, linear.weight), linear.bias)

    def norm(self, name: str, x, norm: Norm, hidden: int):
        centred = self.op("Sub", f"{name}_Sub", x, self.mean(f"{name}_Mean", x))
        variance = self.mean(f"{name}_Variance", self.op("Pow", f"{name}_Pow", centred, 2.0))
        root = self.op("Sqrt", f"{name}_Sqrt", self.op("Add", f"{name}_Eps", variance, norm.eps))
        unit = self.op("Div", f"{name}_Div", centred, root)
        gamma = np.ones(hidden) if norm.gamma is None else norm.gamma
        beta = np.zeros(hidden) if norm.beta is None else norm.beta
        return self.op("Add", f"{name}_Add", self.op("Mul", f"{name}_Mul", unit, gamma), beta)

    def gelu(self, name: str, x, form: str):
        if form == "tanh":
            cube = self.op("Mul", f"{name}_Share", self.op("Pow", f"{name}_Pow", x, 3.0), 0.044715)
            inner = self.op("Mul", f"{name}_Root", self.op("Add", f"{name}_Sum", x, cube), (2 / np.pi) ** 0.5)
            one_plus = self.op("Add", f"{name}_Add", self.op("Tanh", f"{name}_Tanh", inner), 1.0)
            return self.op("Mul", f"{name}_Mul", self.op("Mul", f"{name}_Half", x, 0.5), one_plus)
        erf = self.op("Erf", f"{name}_Erf", self.op("Div", f"{name}_Div", x, 2**0.5))
        product = self.op("Mul", f"{name}_Mul", x, self.op("Add", f"{name}_Add", erf, 1.0))
        return self.op("Mul", f"{name}_Half", product, 0.5)

    def heads(self, name: str, x, shape):
        return self.op("Transpose", f"{name}_Transpose", self.op("Reshape", f"{name}_Reshape", x, shape), perm=HEADS)

    def layer(self, i: int, layer: Layer, x, mask, shape):
        """One encoder layer in the Ascend form, over x [batch*length, hidden]; shape: [batch, length, heads, head_dim]."""
        n, hidden = f"layer_{i}", layer.query.weight.shape[0]
        q = self.heads(f"{n}_query", self.linear(f"{n}_query", x, layer.query), shape)
        k = self.heads(f"{n}_key", self.linear(f"{n}_key", x, layer.key), shape)
        k = self.op("Transpose", f"{n}_key_Swap", k, perm=LAST_TWO)  # in two steps: q, k and v come in one shape
        v = self.heads(f"{n}_value", self.linear(f"{n}_value", x, layer.value), shape)
        # CANN's AttentionScore pass knows the scale by a node name that begins with bert_.
        scores = self.op("Mul", f"bert_Mul_{i}", self.op("MatMul", f"{n}_scores", q, k), layer.scale)
        weights = self.op("Softmax", f"{n}_Softmax", self.op("Add", f"{n}_mask", scores, mask), axis=-1)
        context = self.op(
            "Transpose", f"{n}_context_Transpose", self.op("MatMul", f"{n}_context", weights, v), perm=HEADS
        )
        context = self.op("Reshape", f"{n}_context_Reshape", context, [-1, layer.value.weight.shape[1]])
        dense = self.linear(f"{n}_dense", context, layer.dense)
        y = self.norm(f"{n}_norm1", self.op("Add", f"{n}_residual1", dense, x), layer.norm1, hidden)
        active = self.gelu(f"{n}_gelu", self.linear(f"{n}_up", y, layer.up), layer.gelu)
        down = self.linear(f"{n}_down", active, layer.down)
        return self.norm(f"{n}_norm2", self.op("Add", f"{n}_residual2", down, y), layer.norm2, hidden)

    def mask(self, source, packed: bool, n: str = "mask", pad: int | None = None):
        """The additive mask, float [batch, 1, 1, length]: 0 where `source` is 1, -10000 where it is 0.

        packed: [batch, 1, length, length], 0 where `source` (the sentence index) is the same for two tokens. pad: -10000
        where `source` (the ids) is this number. int32, as AI cores compare it; int64 would go to the NPU's own CPU.
        """
        if pad is not None:
            ids = self.op("Cast", f"{n}_Ids", source, to=6)
            hidden = self.op("Equal", f"{n}_Equal", ids, self.const(f"{n}_Pad", pad, np.int32))
            hidden = self.op("Cast", f"{n}_Cast", self.unsqueeze(f"{n}_Unsqueeze", hidden, [1, 2]), to=1)
            return self.op("Mul", f"{n}_Mul", hidden, MASK)
        if packed:
            index = self.op("Cast", f"{n}_Index", source, to=6)
            sides = [self.unsqueeze(f"{n}_Rows", index, [1, 3]), self.unsqueeze(f"{n}_Columns", index, [1, 2])]
            shown = self.op("Equal", f"{n}_Equal", *sides)
        else:
            shown = self.unsqueeze(f"{n}_Unsqueeze", source, [1, 2])
        as_float = self.op("Cast", f"{n}_Cast", shown, to=1)
        return self.op("Mul", f"{n}_Mul", self.op("Sub", f"{n}_Sub", 1.0, as_float), MASK)

    def shape(self, name: str, source, *parts, infer: bool = True):
        """A shape for Reshape or Expand; parts: numbers, "batch" and "length", which are those of the input `source`.

        Open ones are read from it once; infer: a single open one becomes -1.
        """
        axes = {"batch": 0, "length": 1}
        sizes = [source.shape[axes[p]] if p in axes else p for p in parts]
        unknown = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
        if infer and len(unknown) == 1:
            sizes[unknown.pop()] = -1
        if not unknown:
            return sizes
        dims = [self.dim(source, axes[p], p) if i in unknown else [sizes[i]] for i, p in enumerate(parts)]
        return self.op("Concat", f"{name}_shape", *dims, axis=0)

    def dim(self, source, axis: int, part: str):
        """The size of an open axis of the input `source`, int64 [1]."""
        if axis not in self.dims:
            if not self.dims:
                self.dims["shape"] = self.op("Shape", "sizes_Shape", source)
            self.dims[axis] = self.op("Gather", f"sizes_{part}", self.dims["shape"], [axis], axis=0)
        return self.dims[axis]


def for_ascend(w: Writer, enc: Encoder):
    """(the value to be replaced, the encoder's new last one), all layers written anew."""
    first, shape = enc.layers[0], lambda name, *parts, **how: w.shape(name, enc.mask_input, *parts, **how)
    hidden, width = first.query.weight.shape
    embedded = hidden if enc.projection is None else enc.projection.weight.shape[0]
    whole = shape("mask_Expand", "batch", 1, "length", "length", infer=False)
    mask = w.op("Expand", "mask_Expand", w.mask(enc.mask_input, enc.packed, pad=enc.pad), whole)
    x = w.op("Reshape", "embedding_Reshape", enc.embedding.x, [-1, embedded])
    x = w.norm("embedding_norm", x, enc.embedding, embedded)
    if enc.projection:
        x = w.linear("embedding_projection", x, enc.projection)
    heads = shape("heads", "batch", "length", first.heads, width // first.heads)
    for i, layer in enumerate(enc.layers):
        x = w.layer(i, layer, x, mask, heads)
    return [enc.last], w.op("Reshape", "encoder_Reshape", x, shape("encoder_Reshape", "batch", "length", hidden))


def for_others(w: Writer, enc: Encoder):
    """(the masks to be replaced, the mask anew with its constant)."""
    return list({layer.mask: None for layer in enc.layers}), w.mask(enc.mask_input, enc.packed, pad=enc.pad)


def finish(model) -> bytes:
    """The model's bytes: unused nodes, doc strings and metadata gone, checked with strict shape inference."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import common

    with onnxfile.refuse("the rewritten graph is not valid ONNX", "please report it"):
        common.RemoveUnusedNodesPass()(model)
        common.ClearMetadataAndDocStringPass()(model)
        model.graph.sort()
        proto = ir.to_proto(model)
        del proto.graph.value_info[:]
        data = proto.SerializeToString(deterministic=True)
        onnx.checker.check_model(data, full_check=True)
    return data


def gate_inputs(model, enc: Encoder, folder, rows) -> dict:
    """Rows for the gate, {input: int64 [n, S]}: fixed tokens of many lengths, and real ones where a folder is given; of
    packed rows real ones alone."""
    names, length = [v.name for v in model.graph.inputs], enc.mask_input.shape[1]
    ids = next(v for v in model.graph.inputs if v is not enc.mask_input or enc.pad is not None)
    tables = (const(n.inputs[0]) for n in ids.consumers() if n.op_type == "Gather")
    vocabulary = min((len(t) for t in tables if t is not None), default=100)
    if enc.packed and not folder:
        raise cli.UserError("packed rows are compared on real ones alone; give --input")
    real = [input_files.load_inputs(folder, names, rows)] if folder else []
    if enc.packed:
        return real[0]
    sets = [gate.examples(names, length if isinstance(length, int) else 24, vocabulary), *real]
    width = max(s[names[0]].shape[1] for s in sets)
    wide = lambda n, a: np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=input_files.padding(n))
    return {n: np.concatenate([wide(n, s[n]) for s in sets]) for n in names}


def modify(in_path, out_path, target="ascend", inputs=None, rows=None) -> str:
    """Rewrite in_path for `target` ("ascend", "cpu", "gpu") into out_path; returns what to say of it. Raises UserError, and
    writes nothing, when a layer does not match or the logits differ.

    inputs: folder of rows as preprocess.py writes them (<inputs>/<input name>/*.bin), used besides fixed token rows;
    rows: how many of them, longest first.
    """
    import onnx_ir as ir

    model = encoder.load(in_path)
    opset = model.opset_imports.get("", 0)
    if opset not in OPSETS:
        raise cli.UserError(f"{in_path}: opset {opset}, must be {OPSETS[0]} to {OPSETS[-1]}; export with opset 11")
    try:
        enc = encoder.read_encoder(model.graph)
        arrays = gate_inputs(model, enc, inputs, rows)
        olds, new = (for_ascend if target == "ascend" else for_others)(Writer(model.graph, opset), enc)
        for old in olds:
            ir.convenience.replace_all_uses_with(old, new)
    except Miss as e:
        raise cli.UserError(f"{in_path}: {e}; is it the simplified graph of a BERT classifier?") from None
    data = finish(model)
    verdict = gate.compare(str(in_path), data, arrays).demand(out_path)
    cli.write(out_path, data)
    constant = "none found" if enc.mask_constant is None else repr(enc.mask_constant)
    lines = [f"mask from {enc.mask_input.name}: constant {constant} -> {MASK}; opset {opset}"]
    for i, layer in enumerate(enc.layers):
        heads = f"{layer.heads} x {layer.query.weight.shape[1] // layer.heads}"
        lines.append(f"layer {i:2}: attention {heads}, scale {layer.scale:.6g}, mask, LayerNorm x 2, Gelu {layer.gelu}")
    return "\n".join([*lines, verdict])
