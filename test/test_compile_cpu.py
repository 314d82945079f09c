"""The gate of compile.py: labels where they mean something, fp32's classes where the weights are random."""

import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import openvino as ov
import pytest
import small
from conftest import refused

from tools.base import input_files
from tools.cpu import compile as compile_cpu
from tools.cpu import eager, engines
from tools.graph import gate

ROWS = 872
LABELS = np.arange(ROWS) % 2


def flipped(count, margin=2.0):
    """float32 [872, 2] of fp32, whose largest |logit| is 2, and of a result with the last `count` rows flipped, decided by
    `margin` in fp32."""
    margins = np.where(np.arange(ROWS) < ROWS - count, 2.0, margin)
    side = np.where(LABELS == 1, 1, -1) * margins / 2
    reference = np.stack([-side, side], 1).astype("f4")
    reference[0] *= 2
    outputs = reference.copy()
    outputs[ROWS - count :] = outputs[ROWS - count :, ::-1]
    return reference, outputs


def verdict_of(*args, **how):
    """What the gate says, `refused: ` before it where it fails."""
    verdict = gate.judge(*args, **how)
    return verdict.line if verdict.ok else f"refused: {verdict.line}"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_random_weights_may_flip_as_many_rows_as_others_may_lose_and_near_ties(precision):
    """A margin of 2/8 is a tie."""
    line = verdict_of(*flipped(3), precision, LABELS, seeded=True)
    assert "3 flips but for near ties (limit 3), 3 flips (rows 869, 870, 871)" in line and "refused" not in line
    line = verdict_of(*flipped(4), precision, LABELS, seeded=True)
    assert line.startswith("refused") and "4 flips but for near ties (limit 3)" in line
    line = verdict_of(*flipped(50, 0.24), precision, LABELS, seeded=True)
    assert ", 0 flips but for near ties (limit 3), 50 flips" in line
    assert verdict_of(*flipped(50, 0.26), precision, LABELS, seeded=True).startswith("refused")


def test_labels_do_not_count_with_random_weights():
    """40 rows flip away from the labels and 40 towards them: nothing is lost by labels, yet the classes are others."""
    reference, outputs = flipped(80)
    labels = np.where(np.arange(ROWS) >= ROWS - 40, outputs.argmax(1), LABELS)
    assert ", 0 more wrong" in verdict_of(reference, outputs, "int8", labels)
    assert verdict_of(reference, outputs, "int8", labels, seeded=True).startswith("refused")


def test_fp32_may_flip_nothing_and_no_result_may_be_infinite():
    for seeded in (False, True):
        line = verdict_of(*flipped(1, 1e-3), "fp32", LABELS, seeded)
        assert line.startswith("refused: gate: NOT EQUAL: fp32,") and line.endswith(", 1 flip (rows 871)")
    reference, outputs = flipped(0)
    outputs[5] = np.nan
    assert verdict_of(reference, outputs, "bf16", LABELS, seeded=True).startswith("refused")


@pytest.mark.parametrize(("engine", "wider"), [("openvino", "fp32"), ("native", "bf16")])
def test_int8_leaves_the_last_layers_wider_until_the_calibration_keeps_its_classes(monkeypatch, capsys, engine, wider):
    tried = []
    monkeypatch.setattr(compile_cpu, "write_model", lambda job, precisions, arrays: tried.append(precisions))
    monkeypatch.setattr(compile_cpu, "both_logits", lambda *args: flipped(9 if len(tried) < 3 else 3))
    compile_cpu.convert_int8(compile_cpu.Job(None, None, engine, "int8", None), 4, {})
    assert tried == [["int8"] * (4 - n) + [wider] * n for n in range(3)]
    assert f"layers int8 int8 {wider} {wider}: " in capsys.readouterr().out
    monkeypatch.setattr(compile_cpu, "both_logits", lambda *args: flipped(9))
    says = f"not one of the 4 layers keeps its classes in int8; use PRECISION={wider}"
    refused(says, compile_cpu.convert_int8, compile_cpu.Job(None, None, engine, "int8", "m.ir"), 4, {})


def test_the_gate_names_a_row_by_its_place_in_the_data(tmp_path, monkeypatch):
    """Not by its length; and no row is too few."""
    rows = {n: [np.full(k, v, np.int64) for k in (2, 4, 3)] for n, v in (("input_ids", 7), ("attention_mask", 1))}
    input_files.write_bins(tmp_path / "rows", rows, None)
    reference = np.float32([[2, -2], [1, -1], [1, -1]])

    def both(job, arrays):
        short = input_files.lengths(arrays) == 2
        return reference, np.where(short[:, None], -reference, reference)

    monkeypatch.setattr(compile_cpu, "both_logits", both)
    job = compile_cpu.Job(small.sums(tmp_path / "m.onnx"), None, "onnxruntime", "fp32", None)
    assert compile_cpu.judge_model(job, tmp_path / "rows", None).line.endswith("1 flip (rows 0)")
    refused("--rows 0: must be 1 or more", compile_cpu.judge_model, job, tmp_path / "rows", 0)


def ends(*args):
    """What a crash looks like from outside."""
    os._exit(11)


def test_a_crash_of_openvino_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cpu, "write_int8", ends)
    monkeypatch.setattr(compile_cpu.cpu, "check_units", lambda precision: None)
    job = compile_cpu.Job(tmp_path / "m.onnx", tmp_path / "export.onnx", "openvino", "int8", tmp_path / "m.ir")
    says = "export.onnx: OpenVINO crashed .* use PRECISION=bf16 or fp32"
    refused(says, compile_cpu.write_openvino, job, ["int8"], {})


def test_a_file_that_is_no_ir_is_refused(tmp_path):
    path = tmp_path / "model.ir"

    def refuse(data):
        path.write_bytes(data)
        refused("model.ir: no model that OpenVINO knows", engines.load, path)

    refuse(b"<xml>")
    for members in ({"xml": b"<net>"}, {"xml": b"<net></net>", "bin": b""}, {"xml": b"x" * 5000, "bin": b"y" * 5000}):
        with tarfile.open(path, "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(f"model.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        refuse(path.read_bytes()[:6000] if len(data) == 5000 else path.read_bytes())


def test_inputs_of_another_shape_are_one_line(tmp_path):
    """OpenVINO says first where in its own sources it found them."""
    graph = ov.Core().read_model(small.sums(tmp_path / "m.onnx", 4, 3))
    engines.write_ir(graph, tmp_path / "m.ir", "fp32", [])
    for name in ("m.onnx", "m.ir"):
        says = r"m\.\w+: cannot run on these inputs: (?!.*Exception from).+; make both again$"
        refused(says, engines.load(tmp_path / name).run, [np.ones((2, 3), np.int64)] * 2)


@pytest.mark.parametrize(("engine", "precision"), [("onnxruntime", "bf16"), ("onnxruntime", "fp16-sim"),
                                                   ("openvino", "int8-bf16")])  # fmt: skip
def test_a_precision_that_the_engine_has_not_is_no_name_for_another(monkeypatch, capsys, engine, precision):
    words = ["--onnx", "m.onnx", "--input", "rows", "--save_path", "m", "--engine", engine, "--precision", precision]
    monkeypatch.setattr(sys, "argv", ["compile.py", *words, "--calibration", "train.tsv", "--checkpoint", "c"])
    with pytest.raises(SystemExit, match="2"):
        compile_cpu.main()
    assert f"--precision {precision}: {engine} has " in capsys.readouterr().err


def test_a_card_that_is_not_here_is_named_first_and_a_damaged_file_in_one_line(monkeypatch, tmp_path):
    words = "--engine torch_npu --precision fp16 --checkpoint c --reference none.onnx --input none --save_path m"
    monkeypatch.setattr(sys, "argv", ["eager.py", "compile", *words.split()])
    refused("ENGINE=torch_npu: no such device here", eager.main)
    (tmp_path / "model.torch").write_text('{"engine": "torch_cpu"}')
    refused("not a model.torch", eager.Torch, tmp_path / "model.torch")


def test_a_masked_score_is_no_denormal():
    """onnxruntime's softmax gives 4e-39 for it, which slowed all after it; only a process of its own shows the setting."""
    script = """import numpy as np, onnx
from tools.base import onnxfile
from onnx import helper, TensorProto as T
x, y = (helper.make_tensor_value_info(n, T.FLOAT, [64, 64]) for n in "xy")
graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
scores = np.zeros((64, 64), np.float32)
scores[:, 8:] = -10000
print(*np.unique(onnxfile.session(model.SerializeToString()).run(None, {"x": scores})[0]))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0.0 0.125\n"


def test_onnxruntime_leaves_the_processors_after_a_request(tmp_path):
    """By itself its threads look out for more work for 30 ms, in which the yardstick has one processor of two."""
    options = engines.Onnxruntime(small.sums(tmp_path / "m.onnx"), "fp32").session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
