"""`make ... CHIP=310P3` and `CHIP=T4` end to end, with the stand-ins on PATH: the real Makefile and our real tools."""

import csv
import json
import shutil

import numpy as np
import pytest
import test_imports
from conftest import ROOT, VENV, WARM, lay
from fake_cann import tiny

LEAF = "tiny/default/seq64/bs8/310P3-atc-fp16"
CPU = "tiny/default/seq64/bs8/cpu-onnxruntime-fp32"


@pytest.fixture(scope="module")
def ascend(built):
    built.make("MODEL=tiny", "CHIP=310P3", "accuracy", "perf", "SAMPLES=8", "ROUNDS=1", env=tiny.environment())
    return built


def test_predictions_are_the_cpus(ascend):
    npu, cpu = ascend.read(f"{LEAF}/accuracy.json"), ascend.read(f"{CPU}/accuracy.json")
    assert npu["predictions"] == cpu["predictions"]
    words = {"soc_version": "Ascend310P3", "npu": "310P3", "npu_health": "OK", "npu_driver": "0.0.0"}
    assert {name: npu["engine_info"][name] for name in words} == words
    assert ascend.make("-q", "MODEL=tiny", "CHIP=310P3", "accuracy", env=tiny.environment()).returncode == 0
    text = npu["engine_info"]["atc_cmdline"]
    for flag in ("--framework=5", "--soc_version=Ascend310P3", "--precision_mode=force_fp16", "--input_format=ND",
                 "--input_shape=input_ids:8,64;attention_mask:8,64"):  # fmt: skip
        assert flag in text


def test_a_stand_ins_record_and_another_card_than_the_chip_are_refused(ascend):
    words = ("MODEL=tiny", "CHIP=310P3")
    assert ascend.read(f"{LEAF}/perf.json")["standin"] is True
    ascend.refuses("such a record is never promoted", *words, "record")
    says = "compiled for Ascend310P3, npu-smi says 910B4-1: give CHIP=910B4-1"
    ascend.refuses(says, *words, "-W", f"build/{LEAF}/model.om", OUTPUT, env=tiny.environment(FAKE_NPU="910B4-1"))


def test_buckets_are_gears(ascend):
    ascend.make("MODEL=tiny", "CHIP=310P3", "SEQ=32,64", "accuracy", env=tiny.environment())
    npu = ascend.read("tiny/default/seq32-64/bs8/310P3-atc-fp16/accuracy.json")
    assert npu["predictions"] == ascend.read(f"{CPU}/accuracy.json")["predictions"]
    assert "--dynamic_dims=32,32;64,64" in npu["engine_info"]["atc_cmdline"]
    batches = (ascend.path / "build/tiny/default/seq32-64/bs8/input/input_ids").iterdir()
    assert {np.load(path).shape for path in batches} == {(8, 32), (8, 64)}


def test_several_cards_are_several_cards(ascend):
    """PACK=1, 16 rows a batch, two cards: each fills up its own last batch, and the record says whose speed is whose."""
    words = ("MODEL=tiny", "CHIP=310P3", "PACK=1", "BS=16", "DEVICE=0,1")
    ascend.make(*words, "accuracy", "perf", "ROUNDS=2", env=tiny.environment())
    at = "tiny/default/seq64p/bs16/310P3-atc-fp16"
    perf, accuracy = ascend.read(f"{at}/perf.json"), ascend.read(f"{at}/accuracy.json")
    rows = len(ascend.read("tiny/default/seq64p/input/rows.json"))
    batches = sum(-(-own // 16) for own in (rows - rows // 2, rows // 2))
    for r in (perf, accuracy):
        assert (r["devices"], r["padded_rows"]) == (2, round(1 - rows / (16 * batches), 6))
        assert r["sentences_per_row"] == round(872 / (16 * batches), 6)
    assert sorted(perf["per_device"]) == ["0", "1"]
    assert [sum(v) for v in zip(*perf["per_device"].values(), strict=True)] == pytest.approx(perf["rounds"], abs=0.01)
    assert accuracy["correct"] == ascend.read(f"{CPU}/accuracy.json")["correct"]
    assert "devices     2, the sum of 0: " in (ascend.path / "build" / at / "perf.txt").read_text()


OUTPUT = f"build/{LEAF}/output/MANIFEST"


def test_ais_bench_runs_in_a_python_of_its_own(ascend, tmp_path):
    """Here the environment has no ais_bench; the one that has is named, or found on PATH."""
    python = tmp_path / "bin/python"
    lay(python.parent, {"python": f'#!/bin/bash\nPYTHONPATH={tiny.HERE}:{ROOT} exec {VENV}/bin/python "$@"\n'})
    words, bare = ("MODEL=tiny", "CHIP=310P3", OUTPUT), tiny.environment(PYTHONPATH=str(ROOT))
    log = ascend.path / "build" / LEAF / "output/MANIFEST.log"
    ascend.make(f"AIS_PYTHON={python}", *words, env=bare)
    assert f"+ {python} -m ais_bench" in log.read_text()
    assert ascend.make("-q", f"AIS_PYTHON={python}", *words, env=bare).returncode == 0
    doctor = ascend.make("doctor", f"AIS_PYTHON={python}", env=bare, check=False).stdout
    assert f"of {python}: ais_bench, make accuracy CHIP=310P3" in doctor
    assert f"of {WARM}/bin/python: everything of this project" in doctor
    python.rename(tmp_path / "bin/python3.9")
    ascend.make("-W", f"build/{LEAF}/model.om", *words, env=bare | {"PATH": f"{tmp_path}/bin:{bare['PATH']}"})
    assert f"+ {tmp_path}/bin/python3.9 -m ais_bench" in log.read_text()
    ascend.refuses(f"AIS_PYTHON={python}: No such file", f"AIS_PYTHON={python}", *words, env=bare)


OLD = """import hashlib, runpy, sys
words = [word for word in sys.argv[1:] if word not in ("-m", "-I", "-S")]
sys.version_info, sys.argv = (3, 10, 12, "final", 0), words
del hashlib.file_digest
sys.path.insert(0, "")
run = runpy.run_path if words[0].endswith(".py") else runpy.run_module
run(words[0], run_name="__main__", **({} if words[0].endswith(".py") else {"alter_sys": True}))
"""


def test_an_older_python_first_on_path_is_not_ours(built, tmp_path):
    """What `python3 -m` does where that is 3.10: nothing of ours runs in it once VENV is here, else one line says so."""
    lay(tmp_path, {"old.py": OLD, "python3": f'#!/bin/bash\nexec {VENV}/bin/python {tmp_path}/old.py "$@"\n'})
    old = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    shutil.copytree(built.path / "models/tiny", built.path / "mine", dirs_exist_ok=True)
    assert built.make("-n", "MODEL=tiny", "WEIGHTS=mine", "accuracy", env=old).returncode == 0
    assert "everything of this project" in built.make("doctor", env=old, check=False).stdout
    says = "Python 3.11 or newer is needed, not 3.10; name one, as PYTHON="
    built.refuses(says, f"VENV={tmp_path}/new", "setup", env=old)
    assert not (tmp_path / "new").exists()


def test_the_demonstration_says_so_everywhere(built):
    done = built.make("demo-ascend", "MODEL=tiny", "SAMPLES=8")
    copy = built.path / "build/demo"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("DEMONSTRATION") and lines[-1] == lines[0] and lines.count(lines[0]) == 4
    steps = [line for line in (copy / "make.log").read_text().splitlines() if line.endswith(" s")]
    assert len(steps) > 10 and all(" demonstration: " in line for line in steps)
    for kind in ("accuracy", "perf"):
        made = json.loads((copy / "build" / LEAF / f"{kind}.json").read_text())
        assert made["standin"] is True and made["demonstration"] == lines[0]
        assert kind == "perf" or made["correct"] == built.read(f"{CPU}/accuracy.json")["correct"]
    assert "0 in the stand-in's .om, which fuses nothing" in done.stdout
    built.refuses("is of an Ascend chip such as CHIP=310P3", "demo-ascend", "CHIP=cpu")
    shutil.rmtree(copy)


def test_the_checkpoint_itself_through_pytorch(built):
    """On the CPU, as on an NPU or a GPU: the same rows, gate, record and table."""
    words = ("MODEL=tiny", "ENGINE=torch_cpu")
    built.make(*words, "accuracy", "perf", "SAMPLES=8", "ROUNDS=1")
    leaf = "tiny/default/seq64/bs8/cpu-torch_cpu-fp32"
    accuracy, perf = built.read(f"{leaf}/accuracy.json"), built.read(f"{leaf}/perf.json")
    assert accuracy["predictions"] == built.read(f"{CPU}/accuracy.json")["predictions"]
    assert (perf["engine_info"]["name"], perf["engine_info"]["mode"]) == ("torch_cpu", "eager")
    assert built.make("-q", *words, "accuracy").returncode == 0
    npu = ("MODEL=tiny", "CHIP=910B4", "ENGINE=torch_npu")
    built.refuses("ENGINE=torch_npu: no such device here (", *npu, "om")
    built.refuses("is for accuracy and perf of padded rows", *npu, "kit")


BARE = {"PATH": "/usr/bin:/bin", "ASCEND_HOME_PATH": ""}
CROSS = ("MODEL=tiny", "CHIPS=310P3 T4 cpu", "PRECISIONS=fp16 fp32", "BATCHES=8", "SAMPLES=8", "ROUNDS=1", "perf-table")


def test_a_missing_tool_is_named_before_anything_is_made(built):
    no_bench = tiny.environment(PYTHONPATH=str(ROOT))
    for goal, word, says, here in (
        ("om", "CHIP=310P3", "no atc found: looked on PATH", BARE),
        ("accuracy", "CHIP=310P3", "Pythons has ais_bench and aclruntime", no_bench),
        ("perf", "CHIP=T4", "no trtexec that names its version", BARE),
    ):
        words = ("MODEL=tiny", "BS=3", goal, word)
        done = built.make(*words, env=here, check=False)
        assert (done.returncode, done.stdout) == (2, "") and says in done.stderr and done.stderr.count("\n") == 1, done
        assert "--step simplify" in built.make("-n", *words, env=here).stdout
        assert built.make("-q", *words, env=here, check=False).returncode == 1


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


def test_what_others_published_needs_no_weights(built, tmp_path):
    """tinybert_sst2's weights are the user's, and not here: help, records from elsewhere and tables do without."""
    words = ("MODEL=tinybert_sst2", "CHIPS=310P3 T4", "PRECISIONS=fp16 fp32", "BATCHES=8")
    built.make("accuracy-table", *words, env=BARE)
    with (built.path / "results/local/accuracy-table.csv").open(newline="") as f:
        rows = {(r["chip"], r["precision"]): r for r in csv.DictReader(f)}
    assert rows["310P3", "fp16"]["accuracy_%"] == "92.32" and rows["310P3", "fp16"]["figure"] == "published"
    assert rows["T4", "fp32"]["reason"] == "trtexec is not here; no record, nothing published"
    built.make("help", words[0])
    (tmp_path / "t.log").write_text(test_imports.trtexec())
    built.make("record", f"FROM={tmp_path / 't.log'}", words[0], "CHIP=T4")
    [kept] = (built.path / "results/records").glob("*-imported-tinybert_sst2-*")
    assert json.loads(kept.read_text())["weights"] == "default"
    kept.unlink()
    built.refuses("models/tinybert_sst2/SST-2_model: no such file or folder", "accuracy", words[0])


def test_the_cross_chip_table_measures_where_the_tools_are(built):
    built.make(*CROSS, env=tiny.environment())
    text = (built.path / "results/local/perf-table.csv").read_text()
    assert text.count(",measured,") == 1 and text.count(",none,") == 3
    assert text.count("DEMONSTRATION: made with stand-ins") == 3  # measured, and no figure of it in a table
    assert built.read(f"{LEAF}/perf.json")["samples_per_second"] > 0
    assert built.make("-q", *CROSS, env=tiny.environment()).returncode == 0
    assert built.make("-q", *CROSS, env=BARE, check=False).returncode == 1


@pytest.mark.parametrize("version", ["8503", "110100"])
def test_t4_throughput_is_queries_times_batch_and_its_answers_are_the_cpus(built, version):
    leaf = built.path / "build/tiny/default/seq64/bs8/T4-trtexec-fp16"
    (leaf / "model.plan").unlink(missing_ok=True)  # another test's, of another TensorRT
    words, env = ("MODEL=tiny", "CHIP=T4", "PRECISION=fp16"), tiny.environment(FAKE_TENSORRT=version)
    built.make(*words, "perf", "ROUNDS=1", env=env)
    perf, summary = built.read(leaf / "perf.json"), built.read(leaf / "round1/out_summary.json")
    assert summary["throughput"] == pytest.approx(8 * summary["qps"])
    assert perf["rounds"][0] == pytest.approx(summary["throughput"], abs=1e-2)
    assert "no copies" in perf["timed"]
    built.make(*words, "accuracy", env=env)
    accuracy = built.read(leaf / "accuracy.json")
    assert accuracy["predictions"] == built.read(f"{CPU}/accuracy.json")["predictions"]
    assert accuracy["standin"] is True and accuracy["engine_info"]["version"] == summary["tensorrt"]
    (leaf / "model.plan").unlink()
