"""The commands of both recipes, as each model's README shows them, run in order from inside the model's folder.

atc, ais_bench and trtexec are the stand-ins of fake_cann; everything else is real. The checkpoint is a small seeded
one in the original's own layout.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import small
import torch
from conftest import ROOT, edit_json, lay
from fake_cann import tiny

from tools.graph import export
from tools.make import cli
from tools.recipe import pth2onnx
from tools.results import published
from tools.source import tokens

BERT, TINYBERT = "bert_base_cased_sst2", "tinybert_sst2"
SMALL = {"vocab_size": 1500, "max_position_embeddings": 514}
ROWS = 20  # at batch 8 the last request is half full
SENTENCES = [*pth2onnx.SENTENCES, *small.SENTENCES, *(f"{s} and {s}" for s in pth2onnx.SENTENCES)][:ROWS]


def folder_of(model, tmp_path, clone):
    """models/<model> in a copy of what its commands reach, with sentences, and a small checkpoint under `clone`."""
    for part in ("tools", f"models/{model}"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    lay(tmp_path, {"build/data/dev.tsv": small.tsv(SENTENCES)})
    folder, words = tmp_path / "models" / model, {w for s in SENTENCES for w in s.lower().split()}
    shape = small.model(tmp_path / "shape", model, **SMALL)
    if model not in (BERT, TINYBERT):  # whose scripts read the clone's configuration
        shutil.copy(shape / "config.json", folder)
    return folder, small.original(folder / clone, shape, small.pieces(words))


def run(folder, script, check=True):
    """Run a piece of bash in `folder`, with the stand-ins first on PATH; the finished process."""
    env = tiny.environment(PYTHONPATH=f"{tiny.HERE}:{folder.parents[1]}")
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def documented(model):
    """Every ```bash block of the model's README: what it promises to work as written."""
    return "\n".join(re.findall(r"^```bash\n(.*?)^```", (ROOT / f"models/{model}/README.md").read_text(), re.M | re.S))


def expected(checkpoint, inputs, length):
    arrays = tokens.encode(tokens.load(checkpoint), SENTENCES, length, inputs)
    logits = export.logits(export.load(checkpoint), arrays)
    assert logits.std(0).min() > 1e-3, "the checkpoint tells no sentence from another: this test could not fail"
    return logits


def correct(logits):
    return int((logits.argmax(1) == np.arange(ROWS) % 2).sum())


def test_bert_base_cased(tmp_path):
    folder, checkpoint = folder_of(BERT, tmp_path, "bert-base-cased-finetuned-sst2")
    assert checkpoint.name == "checkpoint-12630"
    done = run(folder, documented(BERT))
    want = expected(checkpoint, ("input_ids", "attention_mask"), 128)
    line = f"accuracy: {correct(want) / ROWS:.6f} ({correct(want)}/{ROWS})"
    assert re.findall(r"^accuracy: .*", done.stdout, re.M) == [line, line], "static and buckets"
    assert len(re.findall(r"^\[INFO\] throughput 1000", done.stdout, re.M)) == 4

    have = [np.fromfile(folder / f"data_bin/output/{i}_0.bin", "<f4") for i in range(1, ROWS + 1)]
    assert np.abs(have - want).max() < 1e-4
    files = json.loads((folder / "data_bin/8/rows.json").read_text())
    for k, rows in files.items():
        assert np.abs(np.load(folder / f"data_bin/8/output/{k}_0.npy")[: len(rows)] - want[rows]).max() < 1e-4
    assert sorted(r for rows in files.values() for r in rows) == list(range(ROWS))

    old = 'python3 -m onnxsim bert_base_sst2.onnx old.onnx --input-shape "input_ids:8,128" "attention_mask:8,128"'
    assert "renamed" in run(folder, old).stdout
    assert (folder / "old.onnx").read_bytes() == (folder / "bert_base_sst2_bs8.onnx").read_bytes()


def test_tinybert(tmp_path):
    folder, checkpoint = folder_of(TINYBERT, tmp_path, "SST-2_model")
    assert {p.name for p in checkpoint.iterdir()} == {"config.json", "pytorch_model.bin", "vocab.txt"}
    # ais_bench refuses a folder that others may enter or write
    done = run(folder, f"umask 000\n{documented(TINYBERT)}")
    inputs = ("input_ids", "segment_ids", "input_mask")
    want = expected(checkpoint, inputs, 64)
    assert f"acc:{correct(want) / ROWS:.6f}" in done.stdout
    assert "PASSED" in done.stdout

    made = next(p for p in (folder / "result").iterdir() if p.is_dir())
    have = [np.loadtxt(made / f"input{i}_0.txt") for i in range(ROWS)]
    assert np.abs(have - want).max() < 1e-4
    for name in inputs:
        sizes = {p.name: p.stat().st_size for p in (folder / "bert_bin" / name).iterdir()}
        assert sizes == {f"input{i}.bin": 64 * 8 for i in range(ROWS)}
    for name in ("TinyBERT_bs8.onnx", "TinyBERT_sim_bs8.onnx"):
        assert shapes(folder / name) == {n: [8, 64] for n in inputs} | {"output": [8, 2]}

    # The 310P3's old name, and the options as the Makefile spells them: another spelling, the same bytes.
    om = (folder / "TinyBERT_bs8.om").read_bytes()
    assert "Ascend710 is the old name of Ascend310P3" in run(folder, "bash ./test/onnx2om.sh 8 710").stdout
    assert (folder / "TinyBERT_bs8.om").read_bytes() == om
    ours = "--model_dir SST-2_model --save_path ours.onnx --text_file glue_dir/SST-2/dev.tsv --seq_len 64"
    done = run(folder, f"OMP_DISPLAY_ENV=true {sys.executable} pth2onnx.py {ours} --eval_batch_size 8")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr  # as GNU's OpenMP says that it understood it
    assert (folder / "ours.onnx").read_bytes() == (folder / "TinyBERT_bs8.onnx").read_bytes()


def test_roberta(tmp_path):
    """fairseq's files: its checkpoint with what training leaves in it, GPT-2's tokens, and labels in its own order."""
    folder, hub = folder_of("roberta_base_sst2", tmp_path, "hub")
    found = torch.load(hub / "pytorch_model.bin", weights_only=True)
    found["roberta.embeddings.token_type_embeddings.weight"].zero_()  # fairseq has none
    torch.save(found, hub / "pytorch_model.bin")
    theirs = {small.fairseq_name(n): t for n, t in found.items() if "token_type" not in n}
    for end in ("weight", "bias"):  # output 0 is label 1
        name = f"classification_heads.sentence_classification_head.out_proj.{end}"
        theirs[name] = theirs[name].flip(0)
    arguments = argparse.Namespace(arch="roberta_base", lr=[1e-5])
    (folder / "checkpoints").mkdir()
    torch.save({"args": arguments, "model": theirs, "extra_state": {"epoch": 3}}, folder / "checkpoints/checkpoint.pt")
    known = json.loads((hub / "vocab.json").read_text())
    ids = {t: 2 * i for i, t in enumerate(t for t in known if not t.startswith("<") or t == "<")}
    lay(folder, {
        "encoder.json": json.dumps(ids), "vocab.bpe": (hub / "merges.txt").read_text(),
        "data/SST-2-bin/input0/dict.txt": "".join(f"{ids.get(t, t)} 1\n" for t in list(known)[4:-1]),
        "data/SST-2-bin/label/dict.txt": "1 37569\n0 29780\n",
    })  # fmt: skip
    done = run(folder, documented("roberta_base_sst2"))
    want = expected(hub, ("src_tokens",), 70)
    assert f"acc = {correct(want) / ROWS:.3f} ({correct(want)}/{ROWS})" in done.stdout
    have = [np.fromfile(folder / f"results/seq70_bs1/src_tokens_{i}_0.bin", "<f4") for i in range(ROWS)]
    assert np.abs(have - want).max() < 1e-4
    assert shapes(folder / "outputs/roberta_base_seq70_bs1_opt.onnx") == {"src_tokens": [1, 70], "output": [1, 2]}
    assert np.fromfile(folder / "data/SST-2-bin/roberta_base.label", "<i8").tolist() == [i % 2 for i in range(ROWS)]

    other = "python3 opt_onnx.py outputs/roberta_base_seq70_bs1_sim.onnx x.onnx 8 70"
    assert "is of [1, 70], not of [8, 70]" in run(folder, other, check=False).stderr
    again = documented("roberta_base_sst2").splitlines()
    line = next(x for x in again if "RoBERTa_pth2onnx.py" in x)
    (folder / "data/SST-2-bin/label/dict.txt").write_bytes(b"\xff 1\n")
    assert "label/dict.txt: not UTF-8 at byte 0" in run(folder, line, check=False).stderr
    (folder / "data/SST-2-bin/label/dict.txt").unlink()
    assert "no label/dict.txt, which says the order of the outputs" in run(folder, line, check=False).stderr


def test_albert(tmp_path):
    """albert_pytorch's folder: its own names, no model_type, and a classifier that reads 0.1 more than the pooler gives."""
    folder, checkpoint = folder_of("albert_base_sst2", tmp_path, "albert_pytorch/outputs/SST-2")
    found = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    shutil.copytree(checkpoint, tmp_path / "hub")
    found["classifier.bias"] -= 0.1 * found["classifier.weight"].sum(1)
    torch.save({small.renamed(n, small.ALBERT_PYTORCH): t for n, t in found.items()}, checkpoint / "pytorch_model.bin")
    absent = dict.fromkeys(("architectures", "model_type", "id2label", "label2id"), ...)
    edit_json(checkpoint / "config.json", **absent, finetuning_task="sst-2", num_labels=2)
    (checkpoint / "training_args.bin").write_bytes(b"not read")
    done = run(folder, documented("albert_base_sst2"))
    want = expected(tmp_path / "hub", ("input_ids", "attention_mask", "token_type_ids"), 128)
    assert f"acc = {correct(want) / ROWS:.3f} ({correct(want)}/{ROWS})" in done.stdout
    have = [np.load(folder / f"results/seq128_bs32/{i}_0.npy").reshape(2) for i in range(ROWS)]
    assert np.abs(have - want).max() < 1e-4
    assert np.load(folder / "preprocessed_data_seq128/label.npy").ravel().tolist() == [i % 2 for i in range(ROWS)]


@pytest.mark.parametrize("command, says", [
    ("albert_base_sst2/Albert_pth2onnx.py --pth_dir mine", "error: mine: no weights there"),
    ("roberta_base_sst2/RoBERTa_pth2onnx.py --batch_size 0", "argument --batch_size: 0: must be 1 or more"),
    ("minilm_sst2/preprocess.py --batch_size 0", "argument --batch_size: 0: must be 1 or more"),
    ("minilm_sst2/pth2onnx.py --save_path mine", "argument --save_path/--output_file: mine: is a folder"),
    ("minilm_sst2/modify_onnx.py a.onnx b.onnx --rows 5", "--rows 5: needs --input"),
])  # fmt: skip
def test_a_wrong_option_is_named_before_any_work(tmp_path, command, says):
    (tmp_path / "mine").mkdir()
    command = f"{sys.executable} {ROOT}/models/{command}"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and re.search(says, done.stderr.splitlines()[-1]), done.stderr


def test_a_file_that_cannot_take_its_name_is_named_itself(tmp_path):
    with pytest.raises(OSError) as e:
        cli.write(tmp_path, b"")
    assert cli.explanation(e.value) == f"{tmp_path}: Is a directory"


def shapes(path):
    graph = onnx.load(path).graph
    dims = lambda v: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
    return {v.name: dims(v) for v in [*graph.input, *graph.output]}


def test_tinybert_scripts_name_their_arguments():
    wrong = {"pth2onnx": "0", "onnx2om": "8 '310P3;ls'", "preprocess_data": "8", "ais_inference": "-1"}
    for name, words in (wrong | {"postprocess_data": "../x"}).items():
        command = f"bash test/{name}.sh {words}"
        done = subprocess.run(command, shell=True, cwd=ROOT / "models" / TINYBERT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"usage: bash ./test/{name}.sh") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("model", sorted(p.parent.name for p in ROOT.glob("models/*/published.csv")))
def test_published_figures_are_whole(model):
    rows = published.read_csv(ROOT / f"models/{model}/published.csv")
    keys = [tuple(r[k] for k in ("variant", "seq", "chip", "bs", "precision", "metric", "source")) for r in rows]
    assert len(set(keys)) == len(keys)
    others = ("bert_base_squad", "bert_base_chinese_ner")  # the same encoder, published with another head
    for r in rows:
        assert r["model"] in (model, *others) and r["source"] and re.fullmatch("[0-9a-f]{40}", r["commit"]), r
        assert (r["metric"], r["unit"]) in {("throughput", "samples/s"), ("accuracy", "%")} and float(r["value"]) > 0, r
        if sentences_right := re.match(r"(\d+)/872", r["note"]):
            assert abs(float(r["value"]) - 100 * int(sentences_right[1]) / 872) < 0.006, r
