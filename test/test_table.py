"""The cross-chip table: measured before published before nothing, and the recipe's ratios and best batch size."""

import json
from pathlib import Path

import measured
import pytest
from conftest import lay, refused

from tools.results import published, table
from tools.results import record as records_of

figures_of = lambda model: str(measured.ROOT / f"models/{model}/published.csv")
TINYBERT, BERT = figures_of("tinybert_sst2"), figures_of("bert_base_cased_sst2")
BATCHES = (1, 4, 8, 16, 32, 64)
# What the recipe prints, batch sizes 1 to 64 and the best: an oracle that no cell is copied from.
PRINTED = {"310": [1.87, 1.72, 2.04, 2.29, 2.45, 2.78, 2.59], "T4": [1.36, 1.24, 1.77, 2.54, 2.81, 2.52, 2.52]}


def leaf(chip, bs, model="tinybert_sst2", seq=64):
    return f"{model}/default/seq{seq}/bs{bs}/{chip}"


def record(path, speed, **more):
    model, weights, seq, bs, config = path.split("/")
    chip, engine, precision = config.split("-")
    spec = {"model": model, "weights": weights, "seq": seq[3:], "bs": int(bs[2:])}
    return spec | {
        "kind": "throughput", "chip": chip, "engine": engine, "precision": precision, "samples_per_second": speed,
        "machine": {"cpu": "x", "cores": 2, "host": "h"}, "spread": 0.01, "latency_ms": {"mean": 1.0, "p50": 1.0, "p99": 2.0},
        "started": "2026-11-27T00:00:00Z", "source": "wheel", "engine_info": None, "standin": False, "rounds": [speed],
        "requests": 300, "times_ms": [[1.0] * 3], "chain": {},
        "padded_rows": 0.0, "timed": "device only; zeros as input",
    } | more  # fmt: skip


def log(path, speed, name="x", **more):
    value = record(path, speed, imported={"file": f"{name}.log", "sha256": (name * 64)[:64]}, started=None, padded_rows=None,
                  spread=None, machine={"cpu": None, "cores": None, "host": "imported"}) | more  # fmt: skip
    return {key: field for key, field in value.items() if key not in ("source", "times_ms")}


def stored(folder: Path, *records) -> list[str]:
    paths = [folder / f"{i}.json" for i, _ in enumerate(records)]
    for path, r in zip(paths, records, strict=True):
        path.write_text(json.dumps(r))
    return [str(p) for p in paths]


def cells(frame, **where) -> list[dict]:
    """The rows that have these values, what is empty as None."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [r for r in rows if all(r[k] == v for k, v in where.items())]


def test_ratios_and_best_batch_are_those_the_recipe_prints():
    configs = ("310P3-atc-fp16", "310-atc-fp16", "T4-trtexec-fp32")
    frame = table.from_names([*(leaf(config, bs) for bs in BATCHES for config in configs), TINYBERT])
    rows = cells(frame, chip="310P3")
    assert [r["bs"] for r in rows] == [*BATCHES, "best (64)"]
    assert [r["310P fp16/310 fp16"] for r in rows] == PRINTED["310"]
    assert [r["310P fp16/T4 fp32"] for r in rows] == PRINTED["T4"]
    assert [r["samples_per_s"] for r in cells(frame, bs="best (32)")] == [4301.24]
    assert {(r["figure"], r["timed"]) for r in cells(frame)} == {("published", "not said")}
    assert all(r["reason"].startswith("published for 310P: static") for r in rows)
    frame = table.from_names([leaf("310P3-atc-fp16", b) for b in BATCHES] + [TINYBERT])
    assert len(frame) == 6 and not [c for c in frame.columns if "/" in c]  # one side alone has no ratio and no best row


def test_nothing_known_is_empty_with_the_reason():
    refused("nothing to show", table.from_names, [])
    frame = table.from_names([leaf("310P3-atc-mix", 8), leaf("T4-trtexec-fp16", 8), TINYBERT])
    for row, tools in zip(cells(frame), ("atc and ais_bench are not both", "trtexec is not"), strict=True):
        reason = f"{tools} here; no record, nothing published"
        assert (row["figure"], row["samples_per_s"], row["reason"]) == ("none", None, reason)
    text = table.render(frame, ".csv").splitlines()
    assert text[1].startswith("tinybert_sst2,default,64,310P3,atc,mix,8,,,none,,,")


def test_a_record_comes_before_what_is_published(tmp_path):
    here = record(leaf("310P3-atc-fp16", 8), 6000.0)
    elsewhere = log(leaf("T4-trtexec-fp32", 8), 3000.0, "0", timed="device compute only: a")
    other = record(leaf("T4-trtexec-fp32", 16), 9.0)  # not asked for
    leaves = [leaf("310P3-atc-fp16", 8), leaf("T4-trtexec-fp32", 8), leaf("310-atc-fp16", 8)]
    frame = table.from_names([*leaves, *stored(tmp_path, here, elsewhere, other), TINYBERT])
    assert [(r["chip"], r["figure"], r["timed"]) for r in cells(frame)] == [
        ("310P3", "measured", "device only"),
        ("T4", "imported", "device compute only"),
        ("310", "published", "not said"),
    ]
    (row,) = cells(frame, chip="310P3")
    assert (row["310P fp16/T4 fp32"], row["310P fp16/310 fp16"]) == (2.0, round(6000 / 2883.62, 2))


def test_the_committed_table_keeps_measured_and_published_apart(tmp_path):
    """Both stand in one table; each is compared with its own kind where that exists."""
    mine = [record(leaf("310P3-atc-fp16", 8), 6000.0), record(leaf("T4-trtexec-fp32", 8), 3000.0),
            record(leaf("cpu-onnxruntime-fp32", 8), 50.0)]  # fmt: skip
    frame = table.from_names([*stored(tmp_path, *mine), TINYBERT])
    assert [r["figure"] for r in cells(frame)][:3] == ["measured"] * 3
    assert {r["figure"] for r in cells(frame)[3:]} == {"published"}
    assert [r["310P fp16/T4 fp32"] for r in cells(frame, bs=8) if r["chip"] in ("310P3", "310P")] == [2.0, 1.77]
    assert [r["accuracy_%"] for r in cells(frame, chip="310P", bs=8)] == [92.32]


def test_two_logs_of_one_configuration_are_two_rows_and_two_records_one(tmp_path):
    """Neither order of hashes nor of files lets a row take one cell here and another there."""
    at = leaf("310P3-atc-fp16", 8)
    logs = [log(at, v, name, latency_ms=ms)
            for name, v, ms in (("ab", 100.0, {"mean": 1.0, "p50": 1.0, "p99": None}),
                                ("cd", 200.0, {"mean": None, "p50": None, "p99": 9.0}))]  # fmt: skip
    for both in (logs, logs[::-1]):
        rows = cells(table.from_names(stored(tmp_path, *both)))
        times = sorted((r["samples_per_s"], r["p50_ms"], r["p99_ms"]) for r in rows)
        assert times == [(100, 1.0, None), (200, None, 9.0)]
        assert {r["reason"] for r in rows} == {"log ab.log, sha256 abababababab", "log cd.log, sha256 cdcdcdcdcdcd"}
        rows = cells(table.from_names([at, *stored(tmp_path, *both)]))
        assert sorted(r["samples_per_s"] for r in rows) == [100, 200]
    old = record(at, 300.0, started="2026-01-01T00:00:00Z", sentences_per_row=5.0)
    new = record(at, 400.0, started="2026-01-02T00:00:00Z")
    for both in ((old, new), (new, old)):
        (row,) = cells(table.from_names(stored(tmp_path, *both)))
        assert row["samples_per_s"] == 400 and "sentences_per_row" not in row


def test_ratios_are_of_one_card_to_one_card(tmp_path):
    two = record(leaf("310P3-atc-fp16", 8), 6000.0, devices=2, per_device={"0": [2900.0], "1": [3100.0]})
    one = record(leaf("310P3-atc-fp16", 8), 3000.0)
    frame = table.from_names([*stored(tmp_path, two, one, record(leaf("T4-trtexec-fp32", 8), 1000.0)), TINYBERT])
    rows = cells(frame, chip="310P3")
    assert sorted((r["devices"] or 1, r["samples_per_s"], r["310P fp16/T4 fp32"]) for r in rows) == [
        (1, 3000, 3.0), (2, 6000, 3.0),
    ]  # fmt: skip
    assert "DEVICE=0,1" in records_of.make_words(two) and "DEVICE" not in " ".join(records_of.make_words(one))
    words = published.distance(two, published.read_csv(Path(TINYBERT)))
    assert f"{3000 / 5871.86:.3g} x 5871.86 (310P fp16 static, a card of 2)" in words


def test_what_stand_ins_made_is_no_figure_and_a_row_of_another_threshold_none_of_this_one(tmp_path):
    (row,) = cells(table.from_names(stored(tmp_path, record(leaf("310P3-atc-fp16", 8), 6000.0, standin=True))))
    assert (row["figure"], row["samples_per_s"]) == ("none", None)
    assert row["reason"].startswith("DEMONSTRATION")
    paths = stored(tmp_path, record(leaf("310P3-atc-fp16", 8), 100.0))
    rows = [cells(table.from_names([leaf(f"310P3-atc-{name}", 8), *paths])) for name in ("fp16", "fp16.t0.3")]
    assert [row["samples_per_s"] for (row,) in rows] == [100, None]


def test_published_variants_of_one_shape_stay_apart():
    """Those of another model stand under its own name, and beside no configuration of ours."""
    frame = table.from_names([BERT])
    rows = [(r["model"], r["samples_per_s"], r["accuracy_%"]) for r in cells(frame, seq="128", bs=8)]
    assert sorted(rows)[0] == ("bert_base_cased_sst2", 1336.38, 92.43) and rows[1] == ("bert_base_squad", 1321.87, None)
    (row,) = cells(table.from_names(["bert_base_cased_sst2/default/seq128/bs8/310P3-atc-fp16", BERT]))
    assert row["samples_per_s"] == 1336.38
    assert len(frame) == len(published.read_csv(Path(BERT))) - 12  # accuracy beside speed
    assert "variant" not in frame.columns


@pytest.mark.parametrize(("column", "text"), [("model", ""), ("bs", "8x"), ("metric", "latency"), ("value", "9232"),
                                              ("value", "-1")])  # fmt: skip
def test_a_published_figure_that_is_none_is_named(tmp_path, column, text):
    texts = ["m", "v", "128", "310P", "8", "fp16", "accuracy", "92.32", "%", "s", "c", "n"]
    row = dict(zip(published.COLUMNS, texts, strict=True)) | {column: text}
    lay(tmp_path, {"published.csv": f"{','.join(published.COLUMNS)}\n{','.join(row.values())}\n"})
    says = rf"published.csv:2: {column} '{text}' is not .*; mend that line"
    refused(says, published.read_csv, tmp_path / "published.csv")
