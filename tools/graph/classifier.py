"""Read what stands before and behind the encoder of a BERT classifier: the embedding tables, the pooler, the labels.

    whole = classifier.read_classifier(encoder.load("model.onnx").graph)   # a Classifier: tables, encoder, pooler, labels

By structure, as encoder.py does, and never by node names; of the inputs' names only that of the ids counts.
"""

from dataclasses import dataclass

import numpy as np

from tools.base.input_files import ROLES
from tools.graph import encoder
from tools.graph.encoder import Encoder, Linear, Miss, as_gelu, base, const, dense, made_by, need


@dataclass
class Classifier:
    word: np.ndarray  # [vocabulary, hidden]
    position: np.ndarray  # [positions, hidden]
    type: np.ndarray | None  # [types, hidden]; None where the graph adds none
    encoder: Encoder
    pooler: Linear  # the first layer of the head
    head: str  # what follows it: tanh, relu, gelu (its erf form), or tanh relu (TinyBERT's): as families.Family.head
    last: Linear  # [hidden, labels]


def kind_of_index(v) -> str:
    """Which table an index reads: `word`, `type` (an input of the graph, or all zeros) or `position` (0, 1, 2, ...); Miss
    where it is made in another way, as RoBERTa's positions are."""
    while node := made_by(v, "Cast", "Identity", "Slice", "Expand", "Unsqueeze", "Reshape"):
        v = node.inputs[0]
    if v.is_graph_input():
        return "word" if ROLES.get(v.name) == "input_ids" else "type"
    values = const(v)
    if made_by(v, "ConstantOfShape") or (values is not None and not values.any()):
        return "type"
    rising = values is not None and np.array_equal(values.ravel(), np.arange(values.size))
    if rising or made_by(v, "Range"):
        return "position"
    raise Miss(f"embeddings: index {v.name!r} is neither an input, nor zeros, nor 0, 1, 2, ...")


def addends(v) -> list:
    """The summands of a tree of Add nodes."""
    node = made_by(base(v), "Add")
    return [a for side in node.inputs for a in addends(side)] if node else [base(v)]


def table(v) -> tuple[str, np.ndarray]:
    """(kind, [rows, hidden]) of one summand of the embeddings: a look-up, or what a simplifier folded it to."""
    folded = const(v)
    if folded is None:
        node = need(v, "embeddings", "Gather", "Slice")
        folded = const(node.inputs[0])
        if folded is None or folded.ndim < 2:
            raise Miss(f"embeddings: {node.inputs[0].name!r} is no table of constants")
        kind = kind_of_index(node.inputs[1]) if node.op_type == "Gather" else "position"
    else:
        rows = folded.reshape(-1, folded.shape[-1])
        kind = "type" if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)) else "position"
    return kind, folded.reshape(-1, folded.shape[-1])


def tables(v) -> dict:
    """{word, position and perhaps type: float32 [rows, hidden]} of the sum that enters the first LayerNorm."""
    arrays = {}
    for kind, values in map(table, addends(v)):
        if kind in arrays:
            raise Miss(f"embeddings: two {kind} tables, expected one")
        arrays[kind] = values
    if missing := {"word", "position"} - set(arrays):
        raise Miss(f"embeddings: no {' and no '.join(sorted(missing))} table")
    return arrays


def first_token(v, last) -> None:
    """Raises Miss unless `v` is the encoder's output `last` at token 0."""
    while node := made_by(base(v), "Gather", "Slice", "Squeeze"):
        at = const(node.inputs[1]) if node.op_type != "Squeeze" and len(node.inputs) > 1 else None
        if at is not None and at.any():
            raise Miss(f"pooler: reads token {at.ravel()[0]}, expected the first")
        v = node.inputs[0]
    if base(v) is not base(last):
        raise Miss(f"pooler: reads {base(v).name!r}, not the encoder's output")


def activation(x) -> tuple:
    """(what stands before the last layer's input `x`, as Classifier.head names it; what it reads). Raises Miss for another."""
    gelu = as_gelu(x)
    if gelu and gelu[1] != "tanh":
        return "gelu", gelu[0]
    relu = made_by(x, "Relu")
    inner = base(relu.inputs[0]) if relu else x
    if tanh := made_by(inner, "Tanh"):
        return "tanh relu" if relu else "tanh", tanh.inputs[0]
    return "relu", need(x, "pooler", "Tanh", "Relu").inputs[0]


def read_classifier(graph) -> Classifier:
    """The whole classifier of an export. Raises Miss with the piece that does not match."""
    enc, by_out = encoder.read_encoder(graph), encoder.Index(graph).by_out
    last = dense(graph.outputs[0], "classifier", by_out)
    head, inner = activation(base(last.x))
    pooler = dense(inner, "pooler", by_out)
    first_token(pooler.x, enc.last)
    arrays = tables(enc.embedding.x)
    return Classifier(arrays["word"], arrays["position"], arrays.get("type"), enc, pooler, head, last)
