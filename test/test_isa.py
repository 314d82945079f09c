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
ENGINES = ("onnxruntime", "openvino", "native")


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


def compiled(box, path, engine, precision, most):
    """tools.cpu.compile of the box's graph to the file `made`."""
    words = ["--onnx", box / "m.onnx", "--reference", box / "free.onnx", "--engine", engine, "--precision", precision]
    words += ["--input", box / "input", "--save_path", path]
    words += ["--calibration", box / "train.tsv", "--checkpoint", box / "checkpoint"] * precision.startswith("int8")
    return tool("cpu.compile", words, most)


@pytest.mark.parametrize(("precision", "limits"), [("fp32", ["AVX2"]), ("int8", ["", "AVX2_VNNI"])])
def test_a_hidden_size_that_is_no_multiple_of_16_and_one_file_whatever_units_make_it(tmp_path, precision, limits):
    """OpenVINO's own AVX2 kernel ends the process there, and int8 takes its statistics in AVX2 on any CPU."""
    files, model = set(), tmp_path / "model.ir"
    filled(tmp_path, hidden_size=40)
    for most in limits:
        done = compiled(tmp_path, model, "openvino", precision, most)
        if "no int8 unit" in done.stderr:
            pytest.skip("this CPU has no VNNI")
        assert done.returncode == 0 and f"gate: equal: {precision}" in done.stdout, done.stderr
        files.add(model.read_bytes())
    kinds = {node.get_type_name() for node in engines.read_ir(model).get_ops()}
    assert "ReduceMean" in kinds and "ReduceSum" not in kinds, "newer units are faster on means"
    assert len(files) == 1


CASES = [(e, p, "AVX2") for e in ENGINES for p in chips.ENGINES[e].precisions if p != "fp16-sim"] + [
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
    path = tmp_path / chips.ENGINES[engine].file
    done = compiled(box, path, engine, precision, most)
    if chips.units(engine, precision, cpu.cpu_flags()) is None:
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not path.exists(), done.stderr
        assert (f"{cpu.MAX_ISA}={most} leaves no" in done.stderr or "this CPU" in done.stderr) and "use" in done.stderr
        return
    assert done.returncode == 0 and f"gate: equal: {precision}, max |difference|" in done.stdout, done.stderr
    if most != "AVX2":
        return
    folders = ",".join(str(box / "input" / n) for n in ("input_ids", "attention_mask"))
    words = ["--model", path, "--input", folders, "--batchsize", 8, "--output", tmp_path, "--output_dirname", "out"]
    done = tool("cpu.runner", words, most)
    assert done.returncode == 0, done.stderr
    units = json.loads((tmp_path / "out_summary.json").read_text())["engine"]["isa"]
    flags = cpu.cpu_flags(limited=(engine, precision) not in (("onnxruntime", "fp32"), ("openvino", "fp32")))
    assert set(units) <= flags
    assert ("amx_int8" in units) == ("amx_int8" in flags)


def test_the_limit_takes_units_away_and_unknown_words_do_not(monkeypatch):
    every = "flags : avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8\n"
    monkeypatch.setattr(engines.Path, "read_text", lambda self: every)
    for most, have in [
        ("", {"amx_int8", "avx512_bf16", "avx2"}), ("avx2", {"avx2"}), ("AVX512_CORE_VNNI", {"avx512_vnni", "avx512f"}),
        ("ALL", {"amx_bf16"}), ("SSE41", set()),
    ]:  # fmt: skip
        monkeypatch.setenv(cpu.MAX_ISA, most)
        flags = cpu.cpu_flags()
        assert have <= flags and (most != "avx2" or flags == {"avx2"})
        assert ("amx_bf16" in flags) == (most in ("", "ALL"))
        assert cpu.cpu_flags(limited=False) >= {"amx_bf16", "avx2"}
    assert not flags
