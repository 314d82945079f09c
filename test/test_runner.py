"""The CPU runner keeps ais_bench's contract: command line, files, remainder batch, summary. A model of three nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

RUNNER = ["-m", "tools.cpu.runner"]


@pytest.fixture
def model(tmp_path):
    """input_ids, attention_mask int64 [4, 3] -> output float32 [4, 2] = (sum of ids, sum of mask)."""
    nodes = []
    for name in ("input_ids", "attention_mask"):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"{name}_f"], [f"{name}_s"], axes=[1], keepdims=1),
        ]
    nodes += [helper.make_node("Concat", ["input_ids_s", "attention_mask_s"], ["output"], axis=1)]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, [4, 3]) for n in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [4, 2])
    graph = helper.make_graph(nodes, "sums", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def inputs(tmp_path):
    """Ten samples: ids (i, i, i), mask (1, 0, 1), i from 1; as files 1.bin to 10.bin."""
    for name, row in (("input_ids", lambda i: [i] * 3), ("attention_mask", lambda i: [1, 0, 1])):
        (tmp_path / name).mkdir()
        for i in range(1, 11):
            (tmp_path / name / f"{i}.bin").write_bytes(np.array(row(i), "<i8").tobytes())
    return f"{tmp_path}/input_ids,{tmp_path}/attention_mask"


def run(*words, check=True):
    done = subprocess.run([sys.executable, *RUNNER, *map(str, words)], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_files_remainder_and_summary(model, inputs, tmp_path):
    text = run("--model", model, "--input", inputs, "--output", tmp_path / "o", "--output_dirname", "d").stdout
    made = sorted(p.name for p in (tmp_path / "o/d").iterdir())
    assert made == sorted(f"{i}_0.bin" for i in range(1, 11))  # the rows that fill the third request are dropped
    for i in range(1, 11):
        assert np.fromfile(tmp_path / f"o/d/{i}_0.bin", "<f4").tolist() == [3 * i, 2]
    summary = json.loads((tmp_path / "o/d_summary.json").read_text())
    assert summary["NPU_compute_time"]["count"] == 3
    assert len(summary["npu_compute_time_list"]) == 3
    mean = summary["NPU_compute_time"]["mean"]
    assert summary["throughput"] == pytest.approx(1000 * 4 / mean)  # padded rows count, as in ais_bench
    assert summary["filesinfo"]["9"]["outfiles"] == [str(tmp_path / "o/d/10_0.bin")]
    assert set(summary) >= {"filesinfo", "args", "NPU_compute_time", "throughput", "npu_compute_time_list", "pid"}
    assert f"[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean({mean}): " in text


def test_the_record_parser_reads_it(model, inputs, tmp_path):
    from tools.ascend import summary

    run("--model", model, "--input", inputs, "--output", tmp_path, "--output_dirname", "d", "--loop", 5)
    found = summary.read(tmp_path / "d_summary.json")
    assert found["count"] == 15
    assert found["batchsize"] == pytest.approx(4)


@pytest.mark.parametrize(("outfmt", "text"), [("TXT", "3.000000 2.000000\n"), ("NPY", None)])
def test_formats(model, inputs, tmp_path, outfmt, text):
    run("-m", model, "-i", inputs, "-o", tmp_path, "--output_dirname", "d", "--outfmt", outfmt)
    first = tmp_path / "d" / f"1_0.{outfmt.lower()}"
    if text:
        assert first.read_text() == text
    else:
        assert np.load(first).tolist() == [[3, 2]]


def test_whole_batch_npy(model, tmp_path):
    for name in ("input_ids", "attention_mask"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.ones((4, 3), np.int64))
    spec = f"{tmp_path}/input_ids,{tmp_path}/attention_mask"
    run(
        "-m",
        model,
        "-i",
        spec,
        "-o",
        tmp_path,
        "--output_dirname",
        "d",
        "--auto_set_dymdims_mode",
        1,
        "--outfmt",
        "NPY",
    )
    assert np.load(tmp_path / "d/1_0.npy").tolist() == [[3, 3]] * 4


def test_untimed_gives_the_same_files(model, inputs, tmp_path):
    for name, how in (("in_turn", ()), ("together", ("--untimed", "--threads", 3))):
        text = run("-m", model, "-i", inputs, "-o", tmp_path, "--output_dirname", name, *how).stdout
    files = lambda name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
    assert files("together") == files("in_turn") and len(files("together")) == 10
    summary = json.loads((tmp_path / "together_summary.json").read_text())
    assert [Path(f["infiles"][0]).stem for f in summary["filesinfo"].values()] == [str(i) for i in range(1, 11)]
    assert summary["engine"]["streams"] == 3 and len(summary["npu_compute_time_list"]) == 3
    [whole] = summary["pass_ms"]
    assert summary["throughput"] == pytest.approx(10_000 / whole) and "1000*sentences(10)/pass.mean" in text


def test_a_damaged_npy_is_one_line(model, tmp_path):
    for name in ("input_ids", "attention_mask"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.ones((4, 3), np.int64))
    for content in (b"PK\x03\x04", b"", (tmp_path / "input_ids/1.npy").read_bytes()[:-4]):
        (tmp_path / "attention_mask/1.npy").write_bytes(content)
        done = run("-m", model, "-i", f"{tmp_path}/input_ids,{tmp_path}/attention_mask", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "1.npy: no array" in done.stderr, done.stderr


def test_pure_inference_runs_zeros(model, tmp_path):
    run("--model", model, "--loop", 7, "--output", tmp_path, "--output_dirname", "d")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["pure_infer_data_0.bin"]
    assert json.loads((tmp_path / "d_summary.json").read_text())["NPU_compute_time"]["count"] == 7


def test_files_are_0644_whatever_the_umask(model, inputs, tmp_path):
    before = os.umask(0)
    try:
        run("-m", model, "-i", inputs, "-o", tmp_path, "--output_dirname", "d")
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "d").iterdir()} == {"0o644"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: (t / "m.onnx").write_bytes(b"not a model"), "m.onnx: not an ONNX file, or cut short"),
        (lambda t: (t / "m.onnx").unlink(), "m.onnx: no such file"),
        (lambda t: (t / "attention_mask/10.bin").unlink(), "the folders hold [10, 9] files"),
        (lambda t: [f.unlink() for f in (t / "input_ids").iterdir()], "no .bin or .npy file there"),
        (lambda t: (t / "input_ids/1.bin").write_bytes(b"12345"), "filesize 5 not match"),
        (lambda t: (t / "attention_mask/2.bin").write_bytes(b""), "bytes, not 96"),
    ],
)
def test_faults_are_one_line(model, inputs, tmp_path, spoil, says):
    spoil(tmp_path)
    done = run("-m", model, "-i", inputs, "-o", tmp_path, "--output_dirname", "d", check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d_summary.json").exists()


def test_usage_is_exit_2(model):
    assert run("--model", model, "--output_dirname", "d", check=False).returncode == 2
    assert run("--model", model, "--loop", 0, check=False).returncode == 2
    assert run("--model", model, "--untimed", check=False).returncode == 2
    assert run(check=False).returncode == 2
