"""tools/gpu/trtexec.py against a stand-in that plays TensorRT 8.5.3, 10.13.3 and 11.1.0."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import test_imports
from conftest import fails, refused
from fake_cann import tiny

from tools.base import trip
from tools.gpu import trtexec

LOG = test_imports.trtexec("--onnx=m.onnx --fp16 --noDataTransfers", "8501", qps=120.5, ms=8.3)
V8, V10, V11 = "8503", "101303", "110100"


@pytest.fixture
def folder(tmp_path):
    tiny.model(tmp_path / "static.onnx", 4, 8)
    return tmp_path


BUILD = ("--onnx", "static.onnx")


def run(folder, *words, version=V10, precision="fp32", **env):
    fixed = ["--engine", "e.plan", "--batch_size", 4, "--precision", precision, "--summary", "s.json"]
    return tiny.tool("gpu.trtexec", *fixed, *words, cwd=folder, FAKE_TENSORRT=version, **env)


@pytest.mark.parametrize(("version", "dotted"), [(V8, "8.5.3"), (V10, "10.13.3"), (V11, "11.1.0")])
def test_build_then_run(folder, version, dotted):
    for words in (BUILD, ()):
        got = run(folder, *words, version=version)
        assert got.returncode == 0, got.stderr
        found = json.loads((folder / "s.json").read_text())
        assert found["standin"] is True
    assert (found["tensorrt"], found["timed"]) == (dotted, trtexec.MEANING)
    assert found["throughput"] == found["qps"] * 4 and f"{found['throughput']:.2f} samples/s" in got.stdout
    times = found["gpu_compute_time_list"]
    for p in (90, 95, 99):
        assert found["GPU_compute_time"][f"percentile({p}%)"] == pytest.approx(np.percentile(times, p))
    assert found["GPU_compute_time"]["count"] == len(times)
    assert "is deprecated" not in got.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["e.plan", "s.json", "static.onnx"]


def test_flags_mean_the_same_in_every_version():
    build = lambda version, fp16=False: set(trip.trtexec_words(version, "e", onnx="m", fp16=fp16))
    alone = {"--noDataTransfers", "--useSpinWait", "--useCudaGraph"}  # defaults of 11
    for version, words in (((8, 5, 3), alone), ((10, 13, 3), alone), ((11, 1, 0), set())):
        assert alone & set(trip.trtexec_words(version, "e", times="t")) == words
    assert all("--noTF32" in build(version) for version in ((8, 0, 1), (8, 5, 3), (10, 0, 0), (11, 1, 0)))
    assert "--workspace=5000" in build((8, 0, 1))
    assert "--memPoolSize=workspace:5000" in build((8, 4, 1)) & build((11, 1, 0))
    assert "--fp16" in build((8, 5, 3), True) & build((10, 0, 0), True)
    assert "--fp16" not in build((11, 1, 0), True) | build((10, 0, 0))


def test_fp16_in_11_is_the_graphs_own(folder):
    tiny.model(folder / "half.onnx", 4, 8)
    for version, graph in ((V10, "static"), (V11, "half")):
        got = run(folder, *BUILD, "--onnx_fp16", "half.onnx", version=version, precision="fp16")
        assert f"--onnx={graph}.onnx" in got.stdout and got.returncode == 0
    assert "has no --fp16: give --onnx_fp16" in run(folder, *BUILD, version=V11, precision="fp16").stderr


def test_failures_leave_nothing(folder):
    fails(run(folder, *BUILD, FAKE_TRTEXEC_FAULT="fail"), "OutOfMemory", "nvidia-smi")
    fails(run(folder, "--onnx", "none.onnx"), "Could not open file none.onnx")
    fixed = ("gpu.trtexec", "--engine", "e.plan", "--batch_size", 4)
    assert "--summary is missing" in tiny.tool(*fixed, *BUILD, cwd=folder).stderr
    assert "--output is missing" in tiny.tool(*fixed, "--input", "in", cwd=folder).stderr
    bare = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    fails(run(folder, *BUILD, PATH=bare), "no trtexec that names its version: looked on PATH")
    assert [p.name for p in folder.iterdir()] == ["static.onnx"]
    assert run(folder, *BUILD, version=V8).returncode == 0
    fails(run(folder, version=V10), "build it here")  # an engine of another version
    # Times must agree with the summary.
    refused("do not have the mean printed", trtexec.summary, LOG, [{"computeMs": 1.0}, {"computeMs": 2.0}], 8, "x")
    refused("without computeMs", trtexec.summary, LOG, [{}], 8, "x")
