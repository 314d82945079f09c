"""A two-layer BERT classifier of random weights, quick enough for every test; imported by the tests that need one."""

import json
import zipfile

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer, Tokenizer

from tools.make import cli
from tools.make.cli import ROOT
from tools.source import checkpoint as sources
from tools.source import families, seeded, tokenizer

SENTENCES = [
    "it 's a charming and often affecting journey . ",
    "unflinchingly bleak and desperate",
    "allows us to hope that nolan is poised to embark a major career as a commercial yet inventive filmmaker . ",
    "the acting , costumes , music , cinematography and sound are all astounding . ",
    "it 's slow -- very , very slow . ",
]


def pieces(words):
    """A vocabulary of BERT's special pieces, letters and words."""
    letters = [*map(chr, range(33, 127))]
    return list(dict.fromkeys([*tokenizer.SPECIAL, *letters, *(f"##{c}" for c in letters), *sorted(words)]))


def wheel(folder):
    """A zip with a vocabulary where the real wheel has it."""
    lines = [f"{piece}\n" for piece in pieces({word for sentence in SENTENCES for word in sentence.split()})]
    with zipfile.ZipFile(folder / "small.whl", "w") as z:
        z.writestr("small/model/vocab.txt", "".join(lines))
    return folder / "small.whl"


def tsv(sentences):
    return "sentence\tlabel\n" + "".join(f"{sentence}\t{i % 2}\n" for i, sentence in enumerate(sentences))


def model(folder, like="minilm_sst2", **values):
    """A folder as under models/, with the configuration of model `like` shrunk, and `values` changed."""
    config = cli.read_json(ROOT / "models" / like / "config.json")
    config |= {"vocab_size": 400, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"intermediate_size": 96, "max_position_embeddings": 64} | values
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    said = (ROOT / "models" / like / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(said)
    return folder


def checkpoint(folder, like="minilm_sst2", **values):
    """The checkpoint folder of such a model, made as `--weights seeded` makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    sources.make("seeded", model(folder / "model", like, **values), wheel(folder), folder / "checkpoint")
    return folder / "checkpoint"


def original(folder, model, pieces):
    """A seeded checkpoint as its authors left theirs: BERT's clone with a checkpoint-12630 below it, TinyBERT's folder with
    fit_dense and a configuration of its own, others in a pytorch_model.bin; the folder of the weights."""
    seeded.write(folder, model, pieces)
    config, tensors = cli.read_json(folder / "config.json"), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if config["architectures"] == ["TinyBertForSequenceClassification"]:
        tensors |= {"fit_dense.weight": torch.zeros((768, config["hidden_size"])), "fit_dense.bias": torch.zeros(768)}
        (folder / "tokenizer_config.json").unlink()
        own = {"cell": {}, "emb_size": config["hidden_size"], "pre_trained": "", "structure": []}
        config = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "layer_norm_eps")} | own
        (folder / "config.json").write_text(json.dumps(config))
    elif config["model_type"] == "bert":
        tensors["bert.embeddings.position_ids"] = torch.arange(config["max_position_embeddings"])[None]
        (folder / "checkpoint-12630").mkdir()
        folder = (folder / "config.json").rename(folder / "checkpoint-12630/config.json").parent
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def sums(path, batch="b", length="l", weight=5.5):
    """input_ids, attention_mask int64 [batch, length] -> output float32 [batch, 2] = (sum of ids, weight x sum of mask)."""
    names, nodes = ("input_ids", "attention_mask"), []
    for name in names:
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"{name}_f"], [f"{name}_s"], axes=[1], keepdims=1),
        ]
    nodes += [
        helper.make_node("Mul", ["attention_mask_s", "weight"], ["scaled"]),
        helper.make_node("Concat", ["input_ids_s", "scaled"], ["output"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, [batch, length]) for n in names]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 2])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1], [weight])
    graph = helper.make_graph(nodes, "sums", inputs, [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)
    return path


def wordpiece(pieces, lowercase=True):
    """BERT's tokenizer (tokenizers.Tokenizer) over a list of word pieces."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    return Tokenizer.from_str(BertWordPieceTokenizer(ids, lowercase=lowercase).to_str())


def vocabulary(folder, words):
    folder.mkdir()
    wordpiece([*tokenizer.SPECIAL, *words]).save(str(folder / "tokenizer.json"))
    return folder


def tokenizer_takes_too_much(monkeypatch):
    """From now on the process in which a tokenizer is tried first says so; nothing reads one in this process."""

    def try_out(folder):
        raise cli.UserError(f"{folder}: its tokenizer takes more than it may")

    monkeypatch.setattr(tokenizer, "try_out", try_out)
    monkeypatch.setattr(tokenizer, "convert", lambda *_: pytest.fail("it was read here"))


FAIRSEQ = families.pairs("""
    roberta.embeddings.word_embeddings=embed_tokens roberta.embeddings.LayerNorm=layernorm_embedding
    roberta.embeddings.position_embeddings=embed_positions roberta.encoder.layer.=layers.
    attention.output.dense=self_attn.out_proj attention.output.LayerNorm=self_attn_layer_norm
    attention.self.query=self_attn.q_proj attention.self.key=self_attn.k_proj attention.self.value=self_attn.v_proj
    intermediate.dense=fc1 output.dense=fc2 output.LayerNorm=final_layer_norm""")
ALBERT_PYTORCH = families.pairs("""
    albert.pooler=albert.pooler.dense albert_layer_groups=transformer.group albert_layers=inner_group
    full_layer_layer_norm=LayerNorm_1 attention.LayerNorm=LayerNorm attention.dense=attention.output.dense
    ffn_output=ffn.intermediate.output.dense attention.query=attention.self.query attention.key=attention.self.key
    attention.value=attention.self.value ffn.weight=ffn.intermediate.dense.weight ffn.bias=ffn.intermediate.dense.bias
    albert.=bert.""")


def fairseq_name(name):
    """fairseq's name of one of RobertaForSequenceClassification's tensors."""
    if name.startswith("classifier."):
        return f"classification_heads.sentence_classification_head.{name.removeprefix('classifier.')}"
    return f"encoder.sentence_encoder.{renamed(name, FAIRSEQ)}"


def renamed(name, pairs):
    """Its name after `pairs`; of ALBERT_PYTORCH, lonePatient's of one of AlbertForSequenceClassification's tensors."""
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name
