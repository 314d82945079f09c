"""tools/gpu/trtexec.py against a stand-in that plays TensorRT 8.5.3, 10.13.3 and 11.1.0."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tools.make import cli

sys.path.insert(0, str(Path(__file__).parent / "fake_cann"))

import tiny

from tools.base import trip
from tools.gpu import trtexec

V8, V10, V11 = "8503", "101303", "110100"
ALL = pytest.mark.parametrize("version", [V8, V10, V11])
ALONE = {"--noDataTransfers", "--useSpinWait", "--useCudaGraph"}


@pytest.fixture
def folder(tmp_path):
    tiny.model(tmp_path / "static.onnx", 4, 8)
    tiny.model(tmp_path / "dynamic.onnx")
    return tmp_path


def run(folder, *words, version=V10, batch=4, precision="fp32", **env):
    fixed = ["--batch_size", batch, "--precision", precision, "--summary", "s.json"]
    return tiny.tool("gpu.trtexec", *fixed, *words, cwd=folder, FAKE_TENSORRT=version, **env)


def result(folder):
    return json.loads((folder / "s.json").read_text())


@ALL
def test_build_then_run(folder, version):
    got = run(folder, "--onnx", "static.onnx", "--save_engine", "e.plan", "--build_only", version=version)
    assert got.returncode == 0, got.stderr
    built = result(folder)
    assert built["build_seconds"] > 0
    assert built["standin"] is True
    got = run(folder, "--load_engine", "e.plan", version=version)
    assert got.returncode == 0, got.stderr
    found = result(folder)
    assert found["build_seconds"] is None
    assert found["throughput"] == found["qps"] * 4
    assert found["tensorrt"] == {V8: "8.5.3", V10: "10.13.3", V11: "11.1.0"}[version]
    assert found["timed"] == trtexec.MEANING
    assert "is deprecated" not in got.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["dynamic.onnx", "e.plan", "s.json", "static.onnx"]


def test_build_and_run_in_one(folder):
    got = run(folder, "--onnx", "static.onnx", "--save_engine", "e.plan", precision="fp16")
    assert got.returncode == 0, got.stderr
    found = result(folder)
    assert found["build_seconds"] > 0
    assert found["precision"] == "fp16"
    assert f"{found['throughput']:.2f} samples/s" in got.stdout
    times = found["gpu_compute_time_list"]
    for p in (90, 95, 99):
        assert found["GPU_compute_time"][f"percentile({p}%)"] == pytest.approx(np.percentile(times, p))
    assert found["GPU_compute_time"]["count"] == len(times)


def words_for(version, precision="fp32", **more):
    a = {"load_engine": None, "onnx": "m", "onnx_fp16": None, "save_engine": None, "shapes": None, "build_only": False}
    a |= {"precision": precision, "warm_up_ms": 1, "seconds": 1}
    return set(trtexec.flags(SimpleNamespace(**(a | more)), version, "t.json"))


def test_flags_mean_the_same_in_every_version():
    assert words_for((8, 5, 3)) >= ALONE
    assert words_for((10, 13, 3)) >= ALONE
    assert not words_for((11, 1, 0)) & ALONE  # they are its defaults
    for version in ((8, 0, 1), (8, 5, 3), (10, 0, 0), (11, 1, 0)):
        assert "--noTF32" in words_for(version)
        assert not [w for w in words_for(version) if w.startswith("--batch")]
    assert "--workspace=5000" in words_for((8, 0, 1))
    assert "--memPoolSize=workspace:5000" in words_for((8, 4, 1))
    assert "--memPoolSize=workspace:5000" in words_for((11, 1, 0))
    assert "--buildOnly" in words_for((8, 5, 3), build_only=True)
    assert "--skipInference" in words_for((8, 6, 1), build_only=True)


def test_precision_by_version():
    assert "--fp16" in words_for((8, 5, 3), "fp16") & words_for((10, 0, 0), "fp16")
    assert "--stronglyTyped" in words_for((10, 0, 0), "graph")
    assert "--stronglyTyped" not in words_for((11, 1, 0), "graph")
    with pytest.raises(cli.UserError, match="TensorRT 11 has no --fp16"):
        words_for((11, 1, 0), "fp16")
    assert "--onnx=h" in words_for((11, 1, 0), "fp16", onnx_fp16="h")
    assert "--onnx=m" in words_for((10, 0, 0), "fp16", onnx_fp16="h")
    assert "--onnx=m" in words_for((11, 1, 0), "fp32", onnx_fp16="h")
    with pytest.raises(cli.UserError, match="before 10"):
        words_for((8, 5, 3), "graph")


def test_fp16_in_11_is_refused_before_anything_is_written(folder):
    got = run(folder, "--onnx", "static.onnx", "--save_engine", "e.plan", version=V11, precision="fp16")
    assert got.returncode == 1
    assert "tools/gpu/half.py" in got.stderr
    assert not (folder / "e.plan").exists()
    assert not (folder / "s.json").exists()


def test_shapes(folder):
    shapes = ("--shapes", "input_ids:4x8,attention_mask:4x8")
    assert run(folder, "--onnx", "dynamic.onnx", *shapes).returncode == 0
    assert "made up" in run(folder, "--onnx", "dynamic.onnx").stderr
    assert "leave --shapes out" in run(folder, "--onnx", "static.onnx", *shapes).stderr


def test_failures_leave_nothing(folder):
    got = run(folder, "--onnx", "static.onnx", "--save_engine", "e.plan", FAKE_TRTEXEC_FAULT="fail")
    assert got.returncode == 1
    assert got.stderr.count("\n") == 1
    assert "OutOfMemory" in got.stderr
    assert "nvidia-smi" in got.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["dynamic.onnx", "static.onnx"]


def test_engine_of_another_version(folder):
    assert run(folder, "--onnx", "static.onnx", "--save_engine", "e.plan", "--build_only", version=V8).returncode == 0
    assert "build it here" in run(folder, "--load_engine", "e.plan", version=V10).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--onnx", "none.onnx"], "none.onnx: no such file"),
        (["--onnx", "static.onnx", "--trtexec", "no-such"], "no no-such: looked on PATH"),
        (["--onnx", "static.onnx", "--trtexec", "true"], "is it NVIDIA's trtexec?"),
        ([], "give either --onnx or --load_engine"),
        (["--onnx", "static.onnx", "--build_only"], "--build_only needs --save_engine"),
    ],
)
def test_user_mistakes(folder, words, said):
    got = run(folder, *words)
    assert got.returncode in (1, 2)
    assert said in got.stderr


# A run of 8.5.1 as NVIDIA/TensorRT's samples/trtexec prints it.
LOG = """&&&& RUNNING TensorRT.trtexec [TensorRT v8501] # trtexec --onnx=m.onnx --fp16 --noDataTransfers
[11/02/2022-10:00:00] [I] Engine built in 25.1 sec.
[11/02/2022-10:00:12] [I] === Performance summary ===
[11/02/2022-10:00:12] [I] Throughput: 120.5 qps
[11/02/2022-10:00:12] [I] Latency: min = 8.2 ms, max = 8.6 ms, mean = 8.3 ms, median = 8.3 ms, percentile(99%) = 8.5 ms
[11/02/2022-10:00:12] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
[11/02/2022-10:00:12] [I] GPU Compute Time: min = 8.2 ms, max = 8.6 ms, mean = 8.3 ms, median = 8.3 ms, \
percentile(90%) = 8.4 ms, percentile(95%) = 8.45 ms, percentile(99%) = 8.5 ms
[11/02/2022-10:00:12] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
[11/02/2022-10:00:12] [I] Total Host Walltime: 3.01 s
[11/02/2022-10:00:12] [I] Total GPU Compute Time: 3.0 s
&&&& PASSED TensorRT.trtexec [TensorRT v8501] # trtexec --onnx=m.onnx --fp16 --noDataTransfers
"""


def test_stored_log(tmp_path):
    (tmp_path / "log").write_text(LOG)
    found = trtexec.read(tmp_path / "log", 8)
    assert found["throughput"] == 120.5 * 8
    assert found["GPU_compute_time"]["percentile(95%)"] == 8.45
    assert (found["tensorrt"], found["build_seconds"], found["standin"]) == ("8.5.1", 25.1, False)
    assert found["gpu_compute_time_list"] is None
    assert "no single times" in found["missing"]["gpu_compute_time_list"]
    assert found["timed"].startswith("device compute only")


@pytest.mark.parametrize(
    ("version", "flag", "timed"),
    [
        ("8501", "", "device compute, with copies beside it"),
        ("110100", "", "device compute only: no copies"),
        ("110100", " --includeDataTransfers", "device compute, with copies beside it"),
    ],
)
def test_what_a_stored_log_timed(tmp_path, version, flag, timed):
    text = LOG.replace(" --noDataTransfers", flag).replace("v8501", f"v{version}")
    (tmp_path / "log").write_text(text)
    assert trtexec.read(tmp_path / "log", 1)["timed"] == timed


def test_times_must_agree_with_the_summary():
    with pytest.raises(cli.UserError, match="do not have the mean printed"):
        trtexec.summary(LOG, [{"computeMs": 1.0}, {"computeMs": 2.0}], 8, "x")
    with pytest.raises(cli.UserError, match="without computeMs"):
        trtexec.summary(LOG, [{}], 8, "x")


def test_version_numbers():
    assert [trip.dotted(n) for n in (8001, 8503, 100000, 101303)] == [(8, 0, 1), (8, 5, 3), (10, 0, 0), (10, 13, 3)]


@pytest.mark.parametrize(("version", "option"), [(V8, "--skipInference"), (V10, "--workspace=1"), (V11, "--fp16")])
def test_stand_in_refuses_what_that_version_does_not_have(folder, version, option):
    import subprocess

    command = [str(tiny.HERE / "bin/trtexec"), "--onnx=static.onnx", option]
    env = tiny.environment(FAKE_TENSORRT=version)
    got = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert got.returncode == 1
    assert f"[E] Unknown option: {option.split('=')[0]}" in got.stdout
