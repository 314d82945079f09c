"""Small seeded BERT classifiers as ONNX, the way transformers and torch's legacy exporter write them."""

import torch
from transformers import BertConfig, BertForSequenceClassification

LAYERS, HEADS, HIDDEN, LENGTH = 2, 4, 32, 16
NAMES = ["input_ids", "attention_mask"]


def bert(layers=LAYERS, hidden=HIDDEN, heads=HEADS, positions=64, types=2, labels=2, trained=True):
    """A seeded classifier; if trained, its biases and LayerNorm weights are not zeros and ones, which onnxsim drops."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=64,
        max_position_embeddings=positions, type_vocab_size=types, initializer_range=0.3, num_labels=labels,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    for name, weight in model.named_parameters() if trained else ():
        if name.endswith("bias"):
            weight.data.normal_(0, 0.3)
        elif "LayerNorm" in name:
            weight.data.uniform_(0.5, 1.5)
    return model


# What is added to the scores of a mask [batch, length].
classic = lambda mask: (1.0 - mask[:, None, None, :].float()) * -10000.0
finfo_min = lambda mask: (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
minus_inf = lambda mask: mask.new_zeros(1).float().masked_fill(mask[:, None, None, :] == 0, float("-inf"))
full_rows = lambda mask: classic(mask).expand(-1, 1, mask.shape[1], -1)


def export(path, model, mask=classic, names=NAMES, opset=11):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = model

        def forward(self, ids, *rest):
            types, m = rest if len(rest) == 2 else (torch.zeros_like(ids), rest[0])
            return self.bert(input_ids=ids, token_type_ids=types, attention_mask=mask(m)).logits

    rows = torch.ones(2, LENGTH, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "length"} for name in names} | {"output": {0: "batch"}}
    inputs = (rows,) + (rows * 0,) * (len(names) - 2) + (rows,)
    torch.onnx.export(
        Classifier(), inputs, str(path), dynamo=False, opset_version=opset, input_names=names,
        output_names=["output"], dynamic_axes=axes,
    )  # fmt: skip
    return path
