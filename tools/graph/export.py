"""A BERT sentence classifier in PyTorch, and its export to the ONNX graph that every later tool knows.

    from tools.graph import export
    module = export.load("build/minilm_sst2/default/checkpoint")
    export.export(module, "model.onnx", ("input_ids", "attention_mask"), arrays)   # arrays: tokens.encode(...)

Imported by what needs torch: export, training, benches. Architecture values come from config.json.
"""

import io
import math

import numpy as np

from tools import cli
from tools.cpu import engines
from tools.source import checkpoint
from tools.source.tokens import ROLES, mask_of

TOLERANCE = 1e-4  # largest logit difference that the export may show on real sentences, fp32


def load(folder):
    """The classifier of a checkpoint folder in any layout that checkpoint.read knows: eval mode, fp32, CPU.

    Returns transformers' BertForSequenceClassification with eager attention and its own forward:
    module(input_ids=, attention_mask=, token_type_ids=).logits is float32 [batch, labels], inputs are
    int64 [batch, length]. TinyBERT's classifier(relu(pooled)) is the same module with ReLU where BERT has
    dropout. Raises UserError when the folder's checkpoint is not whole.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config, tensors = checkpoint.read(folder)
    tiny = config.pop("architectures") == [checkpoint.TINYBERT]
    module = BertForSequenceClassification(BertConfig(**config, attn_implementation="eager"))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    if tiny:
        module.dropout = torch.nn.ReLU()
    return module.eval()


def logits(module, arrays, batch=32):
    """Run a module of load over encoded sentences.

    arrays: {input name: int64 [n, length]}, any of tokens.ROLES' names. Returns float32 [n, labels].
    """
    import torch

    def run(rows):
        return module(**{ROLES[name]: torch.from_numpy(array) for name, array in rows.items()}).logits.numpy()

    with torch.inference_mode():
        return in_batches(run, arrays, batch)


def in_batches(run, arrays, batch):
    """Call run({name: int64 [b, shorter]}) -> [b, labels] on batches of like length; rows stay in order."""
    from tqdm import tqdm

    lengths = mask_of(arrays).sum(1)
    order = np.argsort(lengths, kind="stable")
    out = []
    for start in tqdm(range(0, len(order), batch), desc="logits", unit="batch", leave=False, disable=None):
        rows = order[start : start + batch]
        longest = lengths[rows].max()
        out.append(run({name: np.ascontiguousarray(array[rows, :longest]) for name, array in arrays.items()}))
    return np.concatenate(out)[np.argsort(order)]


def classic(module, inputs):
    """`module` as the graph that older transformers exported: same weights, positional `inputs`, logits only.

    Differs from transformers 5's own forward in spelling alone: mask (1 - mask) * -10000 added to the scores
    (not finfo.min, which is -inf in fp16), scores divided by sqrt(head size), no copy of the token types per
    row. The fusions of ATC, MagicONNX and onnxruntime look for exactly this.
    """
    import torch
    from transformers import AttentionInterface

    def attention(layer, query, key, value, mask, **_):
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(layer.attention_head_size)
        shares = torch.softmax(scores + mask, dim=-1)
        return torch.matmul(shares, value).transpose(1, 2).contiguous(), None

    class Classic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.dropout, self.classifier = module.bert, module.dropout, module.classifier

        def forward(self, *arrays):
            roles = {ROLES[name]: array for name, array in zip(inputs, arrays, strict=True)}
            ids = roles["input_ids"]
            types = roles.get("token_type_ids", self.bert.embeddings.token_type_ids[:, : ids.size(1)])
            mask = (1.0 - roles["attention_mask"][:, None, None, :].float()) * -10000.0
            hidden = self.bert.embeddings(input_ids=ids, token_type_ids=types)
            hidden = self.bert.encoder(hidden, attention_mask=mask).last_hidden_state
            return self.classifier(self.dropout(self.bert.pooler(hidden)))

    AttentionInterface.register("classic", attention)
    return Classic().eval()


def to_onnx(module, inputs):
    """The ONNX model (onnx.ModelProto) of a module of load: opset 11, int64 inputs [batch, length] named
    `inputs` in that order, one float32 output "output" [batch, labels]."""
    import onnx
    import torch

    was = module.config._attn_implementation
    module.config._attn_implementation = "classic"
    try:
        buffer = io.BytesIO()
        torch.onnx.export(
            classic(module, inputs),
            tuple(torch.ones(2, 8, dtype=torch.int64) for _ in inputs),
            buffer,
            dynamo=False,
            opset_version=11,
            input_names=list(inputs),
            output_names=["output"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs} | {"output": {0: "batch"}},
        )
    finally:
        module.config._attn_implementation = was
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model


def export(module, path, inputs, arrays, batch=32, shape=None):
    """Write module's ONNX to `path` if it agrees with PyTorch on the sentences in `arrays`.

    inputs: the model's input names in its own order; arrays: {input: int64 [n, length]} of tokens.encode.
    shape: (batch, length) that the file's inputs are then fixed to; open if not given.
    Gate: the largest logit difference is at most TOLERANCE and every argmax is the same, over all n rows;
    otherwise UserError with the worst row, and no file. Returns that largest difference.
    """
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    model = to_onnx(module, inputs)
    data = model.SerializeToString(deterministic=True)
    session = engines.session(data)
    want = logits(module, arrays, batch)
    have = in_batches(lambda rows: session.run(["output"], rows)[0], {n: arrays[n] for n in inputs}, batch)
    difference = gate(want, have, path)
    if shape:
        model = update_inputs_outputs_dims(model, dict.fromkeys(inputs, shape), {"output": [shape[0], want.shape[1]]})
        data = model.SerializeToString(deterministic=True)
    with cli.whole_file(path) as f:
        f.write(data)
    return difference


def gate(want, have, where):
    """Largest absolute difference of two float32 [n, labels]; UserError past TOLERANCE or on a new class."""
    apart = np.abs(want - have).max(1)
    flipped = want.argmax(1) != have.argmax(1)
    bad = flipped | ~(apart <= TOLERANCE)
    if bad.any():
        worst = max(np.flatnonzero(bad), key=lambda i: np.nan_to_num(apart[i], nan=np.inf))
        raise cli.UserError(
            f"{where}: not written, ONNX and PyTorch disagree on {bad.sum()} of {len(bad)} sentences"
            f" ({flipped.sum()} of another class); row {worst}: {want[worst]} became {have[worst]}, tolerance"
            f" {TOLERANCE:.0e}; install the versions of requirements.txt"
        )
    return float(apart.max())
