"""A BERT sentence classifier in PyTorch, and its export to the ONNX graph that every later tool knows.

    from tools.graph import export
    module = export.load("build/minilm_sst2/default/checkpoint")
    export.export(module, "model.onnx", ("input_ids", "attention_mask"), arrays)   # arrays: tokens.encode(...)

Imported by what needs torch: export, training, benches. Architecture values come from config.json.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor

from tools.base import input_files
from tools.base.input_files import ROLES
from tools.graph import gate
from tools.make import cli
from tools.source import architecture, checkpoint, families

ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "gelu": "GELU"}  # of families.Family.head, in torch.nn


def load(folder, labels=None):
    """The classifier of a checkpoint folder, as checkpoint.read_checkpoint: eval mode, fp32, CPU.

    Returns transformers' BertForSequenceClassification with eager attention and its own forward:
    module(input_ids=, attention_mask=, token_type_ids=).logits is float32 [batch, labels], inputs are int64
    [batch, length]. Another family is the same module with its tensors (families.as_bert) and its head's activation;
    TinyBERT's has ReLU where BERT has dropout. module.config.id2label names the labels.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.models.bert.modeling_bert import BertEmbeddings

    class Projected(BertEmbeddings):
        """Embeddings of another size than the layers', and the linear layer between (ELECTRA's small models, ALBERT)."""

        def __init__(self, sizes, hidden):
            super().__init__(sizes)
            self.projection = torch.nn.Linear(sizes.hidden_size, hidden)

        def forward(self, *args, **kwargs):
            return self.projection(super().forward(*args, **kwargs))

    config, tensors = checkpoint.read_checkpoint(folder, labels=labels)
    tensors = families.as_bert(config, tensors)
    head, names = families.FAMILIES[config["family"]].head, config.pop("labels")
    sizes = config | {"num_hidden_layers": families.layers(config), "type_vocab_size": len(tensors[families.TYPE])}
    sizes |= {"pad_token_id": 0, "id2label": dict(enumerate(names)), "label2id": architecture.inverse(names)}
    module = BertForSequenceClassification(BertConfig(**sizes, attn_implementation="eager"))
    if families.has_projection(config):
        hidden = config["hidden_size"]
        module.bert.embeddings = Projected(BertConfig(**sizes | {"hidden_size": config["embedding_size"]}), hidden)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    first, *more = (ACTIVATIONS[name] for name in head.split())
    module.bert.pooler.activation = getattr(torch.nn, first)()
    if more:
        module.dropout = getattr(torch.nn, *more)()
    return module.eval()


def with_mask(rows):
    """{role: int64 [n, length]} of a model's inputs by name, with a mask where the ids alone say what is padding."""
    feeds = {ROLES[name]: array for name, array in rows.items()}
    if "attention_mask" not in feeds and (mask := input_files.real_tokens(rows)) is not None:
        feeds["attention_mask"] = mask.astype(int)
    return feeds


def logits(module, arrays):
    """float32 [n, labels] of a module of load; arrays: {input name, any of input_files.ROLES: int64 [n, length]}."""
    import torch

    feeds = lambda rows: {role: torch.from_numpy(array) for role, array in with_mask(rows).items()}
    run = lambda rows: module(**feeds(rows)).logits.numpy()
    with torch.inference_mode():
        return input_files.in_batches(run, dict.fromkeys(arrays, (None, None)), arrays, "PyTorch")


def classic(module, inputs):
    """`module` as the graph that older transformers exported: same weights, positional `inputs`, logits only.

    Differs from transformers 5's own forward in spelling alone: mask (1 - mask) * -10000 added to the scores (not
    finfo.min, which is -inf in fp16), scores divided by sqrt(head size), no copy of the token types per row. The fusions
    of ATC, MagicONNX and onnxruntime look for exactly this. Without a mask as an input it is made of the ids.
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
            ids, mask = roles["input_ids"], roles.get("attention_mask")
            types = roles.get("token_type_ids", self.bert.embeddings.token_type_ids[:, : ids.size(1)])
            if mask is None:
                mask = (ids == input_files.PADDING)[:, None, None, :].float() * -10000.0
            else:
                mask = (1.0 - mask[:, None, None, :].float()) * -10000.0
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


def export(module, path, inputs, arrays, shape=None, logits_path=None):
    """Write module's ONNX to `path` if it agrees with PyTorch on the sentences in `arrays`, {input: int64 [n, length]}.

    shape: (batch, length) that the file's inputs are then fixed to; logits_path: where its logits on the sentences go, an
    .npy of float32 [n, labels]. Returns the gate.Verdict; UserError, and no file, where PyTorch and ONNX disagree.
    """
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    model = to_onnx(module, inputs)
    data = model.SerializeToString(deterministic=True)
    with ThreadPoolExecutor(1) as beside:  # neither keeps all cores at work
        theirs = beside.submit(lambda: logits(module, arrays))
        ours = gate.logits(data, {n: arrays[n] for n in inputs})
    theirs = theirs.result()
    verdict = gate.judge(theirs, ours)
    verdict.demand(path)
    if shape:
        model = update_inputs_outputs_dims(model, dict.fromkeys(inputs, shape), {"output": [shape[0], theirs.shape[1]]})
        data = model.SerializeToString(deterministic=True)
    if logits_path:
        cli.write(logits_path, cli.npy_bytes(ours))
    cli.write(path, data)
    return verdict
