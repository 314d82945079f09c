"""README's "Add a model", followed literally with a checkpoint as transformers saves it."""

import json
import re
import subprocess

import numpy as np
from conftest import ROOT, VENV

from tools.graph import export
from tools.source import data, tokenizer, tokens

PIECES = [*tokenizer.SPECIAL, *map(chr, range(33, 127)), *(f"##{chr(c)}" for c in range(33, 127))]


def save_checkpoint(folder):
    """A 2-layer BERT classifier with random weights from a fixed seed, saved by transformers itself."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(PIECES), initializer_range=0.2, **small)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.build(PIECES, lowercase=True).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))


def steps():
    """The commands of README's section."""
    section = re.search(r"^## Add a model\n(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)[1]
    return re.search(r"^```bash\n(.*?)^```", section, re.M | re.S)[1]


def test_add_a_model(repo, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(checkpoint)
    before = repo.files()
    commands = steps().replace("/data/mine", str(checkpoint)).replace("make ", f"make VENV={VENV} ")
    done = subprocess.run(["bash", "-euc", commands], cwd=repo.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    after = repo.files()
    outside = {name for name, stat in after.items() if before.get(name) != stat}
    outside = {
        n for n in outside if not n.startswith(("models/mine/", "build/", "results/local/")) and "__pycache__" not in n
    }
    assert not outside and before.keys() <= after.keys()

    sentences, labels = data.read_tsv(repo.path / "build/data/dev.tsv")
    arrays = tokens.encode(tokens.load(checkpoint), sentences, 128)
    want = export.logits(export.load(checkpoint), arrays)
    correct = int((want.argmax(1) == np.array(labels)).sum())
    assert 0 < want.argmax(1).mean() < 1, "the model gives one class alone: this test could not fail"
    assert f"({correct}/872)" in done.stdout

    graphs = [n for n in after if n.startswith("build/mine/default/") and n.endswith(".onnx")]
    assert {n.split("/")[-1] for n in graphs} == {"model.onnx", "sim.onnx", "cpu.onnx"}
    assert sum(n.startswith("build/mine/default/seq128/input/input_ids/") for n in after) == 872
    table = (repo.path / "results/local/accuracy-table.md").read_text()
    assert re.search(rf"^\| mine .*\| {correct} .*\| 872 ", table, re.M), table
