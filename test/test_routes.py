"""`make ... CHIP=310P3` and `CHIP=T4` end to end, with the stand-ins on PATH: the real Makefile and our real tools."""

import csv
import json

import pytest
from fake_cann import tiny

LEAF = "tiny/default/seq64/bs8/310P3-atc-fp16"
CPU = "tiny/default/seq64/bs8/cpu-onnxruntime-fp32"


def env(**more):
    return tiny.environment(**more)


@pytest.fixture(scope="module")
def ascend(built):
    built.make("MODEL=tiny", "CHIP=310P3", "accuracy", "perf", "SAMPLES=8", env=env())
    return built


def record(repo, name):
    return json.loads((repo.path / "build" / name).read_text())


def test_predictions_are_the_cpus(ascend):
    npu, cpu = record(ascend, f"{LEAF}/accuracy.json"), record(ascend, f"{CPU}/accuracy.json")
    assert npu["predictions"] == cpu["predictions"]
    assert npu["engine_info"]["soc_version"] == "Ascend310P3"
    assert "--soc_version=Ascend310P3" in npu["engine_info"]["atc_cmdline"]


def test_every_atc_flag_is_visible_in_a_dry_run(ascend):
    text = ascend.make("-n", "MODEL=tiny", "CHIP=310P3", "BS=4", "om").stdout
    for flag in ("--framework=5", "--soc_version=Ascend310P3", "--precision_mode=force_fp16", "--input_format=ND"):
        assert flag in text
    assert "--input_shape=input_ids:4,64';'attention_mask:4,64" in text


def test_up_to_date_after_a_build(ascend):
    assert ascend.make("-q", "MODEL=tiny", "CHIP=310P3", "accuracy", env=env()).returncode == 0


def test_stand_in_records_are_never_promoted(ascend):
    assert record(ascend, f"{LEAF}/perf.json")["standin"] is True
    done = ascend.make("MODEL=tiny", "CHIP=310P3", "record", check=False)
    assert done.returncode == 2
    assert "such a record is never promoted" in done.stderr


def test_buckets_are_gears(ascend):
    ascend.make("MODEL=tiny", "CHIP=310P3", "SEQ=32,64", "accuracy", env=env())
    npu = record(ascend, "tiny/default/seq32-64/bs8/310P3-atc-fp16/accuracy.json")
    assert npu["predictions"] == record(ascend, f"{CPU}/accuracy.json")["predictions"]
    assert "--dynamic_dims=32,32;64,64" in npu["engine_info"]["atc_cmdline"]


def test_without_a_toolkit_one_line_and_no_om(built):
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(built.path), "ASCEND_HOME_PATH": ""}
    done = built.make("MODEL=tiny", "CHIP=310P3", "BS=2", "om", env=bare, check=False)
    assert done.returncode == 2
    assert "atc" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (built.path / "build" / LEAF.replace("bs8", "bs2") / "model.om").exists()


BARE = {"PATH": "/usr/bin:/bin", "ASCEND_HOME_PATH": ""}
CROSS = ("MODEL=tiny", "CHIPS=310P3 T4 cpu", "PRECISIONS=fp16 fp32", "BATCHES=8", "SAMPLES=8", "perf-table")


def test_the_cross_chip_table_needs_no_tool_of_another_chip(built):
    built.make(*CROSS, env=BARE)
    with (built.path / "results/local/perf-table.csv").open(newline="") as f:
        figures = list(csv.DictReader(f))
    assert [(f["chip"], f["figure"], bool(f["samples_per_s"])) for f in figures] == [
        ("cpu", "measured", True), ("310P3", "none", False), ("T4", "none", False), ("T4", "none", False),
    ]  # fmt: skip
    assert figures[0]["timed"] == "the engine's call alone"
    assert figures[1]["reason"].startswith("atc and ais_bench are not both here")
    assert built.make("-q", *CROSS, env=BARE).returncode == 0


def test_the_cross_chip_table_measures_where_the_tools_are(built):
    built.make(*CROSS, env=env())
    text = (built.path / "results/local/perf-table.csv").read_text()
    assert text.count(",measured,") == 1 and text.count(",none,") == 3
    assert text.count("DEMONSTRATION: made with stand-ins") == 3  # measured, and no figure of it in a table
    assert record(built, f"{LEAF}/perf.json")["samples_per_second"] > 0
    assert built.make("-q", *CROSS, env=env()).returncode == 0
    assert built.make("-q", *CROSS, env=BARE, check=False).returncode == 1


def test_a_failing_atc_leaves_nothing(built):
    done = built.make("MODEL=tiny", "CHIP=310P3", "BS=2", "om", env=env(FAKE_ATC_FAULT="truncated_om"), check=False)
    assert done.returncode == 2
    folder = built.path / "build" / LEAF.replace("bs8", "bs2")
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("version", ["8503", "101303", "110100"])
def test_t4_throughput_is_queries_times_batch(built, version):
    leaf = built.path / "build/tiny/default/seq64/bs8/T4-trtexec-fp16"
    (leaf / "model.plan").unlink(missing_ok=True)  # another test's, of another TensorRT
    built.make("MODEL=tiny", "CHIP=T4", "PRECISION=fp16", "perf", env=env(FAKE_TENSORRT=version))
    perf, summary = record(built, leaf / "perf.json"), json.loads((leaf / "round1/out_summary.json").read_text())
    assert summary["throughput"] == pytest.approx(8 * summary["qps"])
    assert perf["rounds"][0] == pytest.approx(summary["throughput"], abs=1e-2)
    assert "no copies" in perf["timed"]
    (leaf / "model.plan").unlink()
