"""lab/train.py on a tiny encoder."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from conftest import refused
from safetensors.numpy import save

from lab import quantise, train
from tools.source import adapter


def test_no_training_row_is_a_piece_of_a_held_out_sentence():
    sentences = ["a b c d e f", "b c", "c d e f", "x y z u v w", "y z", "p q r s t", "a", "short one", "b c"]
    recipe = {"shortest_sentence": 5}
    held, numbers = train.hold_out(sentences, recipe, 1)
    assert (held, numbers) == train.hold_out(sentences, recipe, 1)
    assert train.hold_out(sentences, recipe, 0) == ([], list(range(len(sentences))))
    assert sentences[held[0]] in ("a b c d e f", "x y z u v w", "p q r s t")
    assert numbers == [i for i, s in enumerate(sentences) if f" {s} " not in f" {sentences[held[0]]} "]


def test_rounding_error_is_at_most_half_a_step_or_the_clipped_tail():
    delta = np.random.default_rng(1).normal(0, 0.01, (6, 8))
    packed, scale = quantise.quantize(delta)
    back = adapter.apply_delta(np.zeros((6, 8), np.float32), packed, scale)
    inside = np.abs(delta) <= 7.5 * scale[:, None]
    assert (np.abs(back - delta) <= 0.5001 * scale[:, None])[inside].all()
    assert np.linalg.norm(back - delta) < 0.12 * np.linalg.norm(delta)
    packed, scale = quantise.quantize(np.zeros((2, 4)))
    assert not adapter.apply_delta(np.zeros((2, 4), np.float32), packed, scale).any()


def test_a_wheel_and_a_folder_give_the_same_base(tmp_path):
    base = {"encoder.weight": np.ones((2, 2), np.float32)}
    members = {"model.safetensors": save(base), "config.json": b'{"hidden_size": 8}', "vocab.txt": b"[PAD]\n"}
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as z:
        for name, data in members.items():
            z.writestr(f"package/model/{name}", data)
            (tmp_path / name).write_bytes(data)
    one, other = train.read_base(tmp_path / "w.whl"), train.read_base(tmp_path)
    assert adapter.digest(one[0]) == adapter.digest(other[0])
    assert one[1:] == other[1:] == ({"hidden_size": 8}, {"vocab.txt": b"[PAD]\n"})


def test_another_training_file_is_refused(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    refused("the official SST-2 train.tsv has 48eac263", train.read_rows, tmp_path / "train.tsv")


def test_training_learns_leaves_embeddings_alone_and_repeats_itself(monkeypatch):
    """The second time its runs have no process each, which changes no bit."""
    config = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "max_position_embeddings": 16}
    recipe = train.RECIPE | {"epochs": 8, "batch_size": 4}
    recipe |= {"learning_rate": 2e-2, "ema_decay": 0.9, "runs": 2}
    ids = [[1, 5 + i % 2, 10 + i % 7, 2] for i in range(80)]
    labels = [i % 2 for i in range(80)]

    def once():
        torch.manual_seed(recipe["seed"])
        before = train.tuned(train.build_model({}, config, recipe))
        mean, log = train.train_runs({}, config, ids, labels, list(range(60, 80)), list(range(60)), recipe)
        assert np.array_equal(mean[words], before[words])
        return mean, log

    words = "bert.embeddings.word_embeddings.weight"
    first, log = once()
    monkeypatch.setattr(train, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    second, _ = once()
    assert adapter.digest(first) == adapter.digest(second)
    assert [(row["run"], row["epoch"]) for row in log] == [(r, e) for r in (1, 2) for e in range(1, 9)]
    assert log[7]["mean_loss_so_far"] != log[15]["mean_loss_so_far"]  # another order of rows
    assert log[-1]["held_out"] == 1.0
    assert first[f"{words}.left"].shape == (40, 8)
    assert not first[f"{words}.left"][20:].any()  # words never seen stay as they were


def test_compare_is_relative_to_the_change_of_the_reference():
    base = {"w": np.zeros((1, 2), np.float32), "kept": np.ones(1, np.float32)}
    reference = {"w": np.array([[3, 4]], np.float32), "kept": base["kept"], "new": np.array([2], np.float32)}
    ours = reference | {"w": np.array([[3, 3]], np.float32), "new": np.array([1], np.float32)}
    assert train.compare(base, ours, reference) == {"w": 0.2, "new": 0.5}
