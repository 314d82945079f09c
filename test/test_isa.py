"""A CPU without the units: with ONEDNN_MAX_CPU_ISA every precision runs within its gate, or says that it cannot."""

import json
import os
import subprocess
import sys

import pytest
import small

from tools.base import input_files
from tools.cpu import engines
from tools.make import chips, cpu
from tools.recipe import pth2onnx
from tools.source import tokens

ROWS = 24
NEEDS = {  # what a precision cannot do without
    ("onnxruntime", "fp32"): set(),
    ("openvino", "fp32"): set(),
    ("openvino", "bf16"): chips.BF16,
    ("openvino", "int8"): chips.VNNI,
    ("native", "bf16"): {"amx_bf16", "avx512_bf16"},
    ("native", "int8"): {"avx2"},
    ("native", "int8-bf16"): {"amx_int8", "avx512_bf16"},
    ("native", "fp32"): {"avx2"},
}


@pytest.fixture(scope="module", autouse=True)
def library(native_library):
    """The engine that all that the tests start will load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERT2OM_NATIVE", str(native_library or "none"))
        yield native_library


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("isa"))


def filled(folder, **values):
    """A small model exported, its sentences as inputs, and training sentences."""
    from tools.graph import export

    checkpoint = small.checkpoint(folder, **values)
    sentences = (pth2onnx.SENTENCES * ROWS)[:ROWS]
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "".join(f"{s}\t{i % 2}\n" for i, s in enumerate(sentences)))
    names = ("input_ids", "attention_mask")
    arrays = tokens.encode(tokens.load(checkpoint), sentences, 16, names)
    export.export(export.load(checkpoint), folder / "m.onnx", names, arrays, shape=(8, 16))
    export.export(export.load(checkpoint), folder / "free.onnx", names, arrays)
    input_files.write_bins(folder / "input", arrays, [i % 2 for i in range(ROWS)])
    return folder


def tool(script, words, most):
    env = {k: v for k, v in os.environ.items() if k != cpu.MAX_ISA} | {"OMP_NUM_THREADS": "1"}
    env |= {cpu.MAX_ISA: most} if most else {}
    command = [sys.executable, "-m", f"tools.{script}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def compiled(box, made, engine, precision, most):
    """tools.cpu.compile of the box's graph to the file `made`."""
    words = ["--onnx", box / "m.onnx", "--reference", box / "free.onnx", "--engine", engine, "--precision", precision]
    words += ["--input", box / "input", "--save_path", made]
    words += ["--calibration", box / "train.tsv", "--checkpoint", box / "checkpoint"] * precision.startswith("int8")
    return tool("cpu.compile", words, most)


@pytest.mark.parametrize(("precision", "most"), [("fp32", "AVX2"), ("int8", "")])
def test_a_hidden_size_that_is_no_multiple_of_16(tmp_path, precision, most):
    """OpenVINO's own AVX2 kernel ends the process there, and int8 takes its statistics in AVX2 on any CPU."""
    if precision == "int8" and not cpu.cpu_flags() & chips.VNNI:
        pytest.skip("this CPU has no int8 unit")
    done = compiled(filled(tmp_path, hidden_size=40), tmp_path / "model.ir", "openvino", precision, most)
    assert done.returncode == 0 and f"gate: equal: {precision}" in done.stdout, done.stderr
    graph = engines.read_ir(tmp_path / "model.ir")
    kinds = {node.get_type_name() for node in graph.get_ops()}
    assert "ReduceMean" in kinds and "ReduceSum" not in kinds, "newer units are faster on means"


CASES = [(*which, "AVX2") for which in NEEDS] + [
    ("openvino", "bf16", "AVX512_CORE_BF16"),
    ("native", "int8-bf16", "AVX512_CORE_BF16"),
    ("native", "int8", "AVX512_CORE_VNNI"),
    ("native", "fp32", "AVX512_CORE"),
    ("native", "int8", "AVX2_VNNI"),
]


@pytest.mark.parametrize(("engine", "precision", "most"), CASES)
def test_runs_within_its_gate_or_says_that_it_cannot(box, library, tmp_path, monkeypatch, engine, precision, most):
    if engine == "native" and not library:
        pytest.skip("gcc is needed to build the engine")
    monkeypatch.setenv(cpu.MAX_ISA, most)
    needs, here = NEEDS[engine, precision], cpu.cpu_flags()
    made = tmp_path / {"native": "model.native", "openvino": "model.ir", "onnxruntime": "model.onnx"}[engine]
    done = compiled(box, made, engine, precision, most)
    if needs and not needs & here:
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not made.exists(), done.stderr
        assert (f"{cpu.MAX_ISA}={most} leaves no" in done.stderr or "this CPU" in done.stderr) and "use" in done.stderr
        return
    assert done.returncode == 0 and f"gate: equal: {precision}, max |difference|" in done.stdout, done.stderr
    if most != "AVX2":
        return
    folders = ",".join(str(box / "input" / n) for n in ("input_ids", "attention_mask"))
    words = ["--model", made, "--input", folders, "--batchsize", 8, "--output", tmp_path, "--output_dirname", "out"]
    done = tool("cpu.runner", words, most)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "out_summary.json").read_text())["engine"]["isa"]
    flags = cpu.cpu_flags(limited=(engine, precision) not in (("onnxruntime", "fp32"), ("openvino", "fp32")))
    assert set(said) <= flags
    assert ("amx_int8" in said) == ("amx_int8" in flags)


def test_int8_is_one_file_whatever_units_make_it(box, tmp_path):
    made, files = tmp_path / "m.ir", set()
    for most in ("", "AVX2_VNNI"):
        done = compiled(box, made, "openvino", "int8", most)
        if "no int8 unit" in done.stderr:
            pytest.skip("this CPU has no VNNI")
        assert done.returncode == 0, done.stderr
        files.add(made.read_bytes())
    assert len(files) == 1


def test_the_limit_takes_units_away_and_unknown_words_do_not(monkeypatch):
    every = "flags : avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8\n"
    monkeypatch.setattr(engines.Path, "read_text", lambda self: every)
    for most, have in [
        ("", {"amx_int8", "avx512_bf16", "avx2"}), ("avx2", {"avx2"}), ("AVX512_CORE_VNNI", {"avx512_vnni", "avx512f"}),
        ("ALL", {"amx_bf16"}), ("SSE41", set()),
    ]:  # fmt: skip
        monkeypatch.setenv(cpu.MAX_ISA, most)
        found = cpu.cpu_flags()
        assert have <= found and (most != "avx2" or found == {"avx2"})
        assert ("amx_bf16" in found) == (most in ("", "ALL"))
        assert cpu.cpu_flags(limited=False) >= {"amx_bf16", "avx2"}
    assert not found
