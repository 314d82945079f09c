"""Logs, summaries and outputs that were made elsewhere, as users keep them: what each becomes a record of, or why not."""

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

from tools.make import cli
from tools.results import imports, record

SST2 = "minilm_sst2/default/seq128/bs8/310P3-atc-fp16"
T4 = "tinybert_sst2/default/seq64/bs8/T4-trtexec-fp32"
TIMES = [4.0, 4.2, 3.8, 4.0]
LATENCY = {"min": 3.8, "max": 4.2, "mean": 4.0, "median": 4.0, "percentile(99%)": 4.194, "count": 4}
SUMMARY = {
    "filesinfo": {"pure_infer_data": {"infiles": [["pure_infer_data"]], "outfiles": []}},
    "args": ["ais_bench/__main__.py", "--model", "sst2_bs8.om"], "NPU_compute_time": LATENCY,
    "npu_compute_time_list": TIMES, "throughput": 2000.0, "pid": 7,
}  # fmt: skip


def trtexec(command="--onnx=sst2_bs8.onnx --fp16", version="8601", more="", qps=149.1, ms=6.7):
    title = f"TensorRT.trtexec [TensorRT v{version}] # trtexec {command}"
    lines = [
        "[I] Selected Device: Tesla T4",
        *([f"[I] {more}"] if more else []),
        f"[I] Throughput: {qps} qps",
        *(f"[I] {n}: min = {ms} ms, max = {ms} ms, mean = {ms} ms, median = {ms} ms, percentile(99%) = {ms} ms"
          for n in ("Latency", "GPU Compute Time")),
    ]  # fmt: skip
    stamped = [f"[08/22/2025-10:00:00] {line}" for line in lines]
    return "\n".join([f"&&&& RUNNING {title}", *stamped, f"&&&& PASSED {title}", ""])


def screen(batch=8, mean=4.0, before="", line="\n"):
    return before + line.join([
        f"[INFO] NPU_compute_time (ms): min = 3.8, max = 4.2, mean = {mean}, median = 4.0, percentile(99%) = 4.194",
        f"[INFO] throughput 1000*batchsize.mean({batch})/NPU_compute_time.mean({mean}): {1000 * batch / mean}", "",
    ])  # fmt: skip


def record_of(folder, content, leaf, given=("MODEL", "CHIP")):
    """What `content` (bytes, text, or the fields of a summary) becomes as FROM=."""
    path = folder / ("s_summary.json" if isinstance(content, dict) else "run.log")
    text = json.dumps(SUMMARY | content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return imports.import_record(path, Path(leaf), given)


def args(*words):
    return {"args": ["ais_bench/__main__.py", "--model", "sst2.om", *words]}


DIMS = "input_ids:8,64;attention_mask:8,64"
DOCKER = "\n".join(f"2025-08-22T10:00:00.000000000Z \x1b[0m{line}\x1b[0m" for line in trtexec().splitlines())


@pytest.mark.parametrize(("content", "leaf", "told"), [
    ({}, SST2, {"bs": 8, "seq": "128", "samples_per_second": 2000}),
    (args("--batchsize", "8"), SST2, {"bs": 8}),
    *((args(option, DIMS), SST2, {"seq": "64", "bs": 8})
      for option in ("--dymDims", "--dym-dims", "-dd", "--dymShape", "--dym-shape", "-ds")),
    (args(f"--dymShape={DIMS}", "-o", "out", "-od", "r", "-d", "0"), SST2, {"seq": "64"}),
    ({"args": ["ait", "benchmark", "-om", "bert_seq256.om", "--batch-size", "8"]}, SST2, {"seq": "256", "bs": 8}),
    ({"args": ["m", "--model", "bert_910B4-1.om"]}, SST2.replace("310P3", "910B4_1"), {"chip": "910B4_1"}),
    ({"args": ["m", "--model", "Ascend910_9391.om"]}, SST2.replace("310P3", "910_9391"), {"chip": "910_9391"}),
    ({"NPU_compute_time": {"percentile(99%     )" if "9" in k else k: v for k, v in LATENCY.items()}}, SST2,
     {"latency_ms": {"mean": 4.0, "p50": 4.0, "p99": 4.194}}),
    (screen(), SST2, {"bs": 8, "samples_per_second": 2000, "latency_ms": {"mean": 4.0, "p50": 4.0, "p99": 4.194}}),
    (screen().replace("batchsize.mean", "batchsize"), SST2, {"bs": 8}),
    (screen() + screen() + "[INFO] summary throughput:4000.0\n", SST2, {"devices": 2, "samples_per_second": 4000}),
    (screen().encode("utf-16"), SST2, {"bs": 8}),
    (screen(line="\r\n", before="\ufeff"), SST2, {"bs": 8}),
    (screen(before="中文\n").encode("gb18030"), SST2, {"bs": 8}),
    (screen(before="[INFO] load model /x/bert_seq64_bs8.om success\n[INFO] warm up 1 done\n"), SST2, {"seq": "64"}),
    (screen(before=f"+ python3 -m ais_bench --model m.om --dymDims '{DIMS}'\n"), SST2, {"seq": "64"}),
    (DOCKER, T4, {"precision": "fp16", "bs": 8, "samples_per_second": 1192.8}),
    (DOCKER.replace("2025-08", "trt-1  | 2025-08"), T4, {"bs": 8}),
    (trtexec("--onnx=m.onnx", more="Created input binding for input_ids with dimensions 16x32"), T4,
     {"bs": 16, "seq": "32", "precision": "fp32", "samples_per_second": 2385.6}),
    (trtexec("--onnx=m.onnx", "101000", "Input binding for input_ids with dimensions 16x32 is created."), T4,
     {"bs": 16, "seq": "32"}),
    (trtexec("--onnx=sst2_bs8.onnx --int8 --fp16"), T4, {"precision": "int8-fp16"}),
    (trtexec("--onnx=sst2_bs8.onnx --streams=1 --warmUp=500"), T4, {"precision": "fp32"}),
    *((trtexec(f"--onnx=sst2_bs8.onnx {options}"), T4, {"timed": f"device compute, with copies beside it, {words}"})
      for options, words in (("--useCudaGraph", "CUDA graph"), ("--useSpinWait --useCudaGraph", "spin wait, CUDA graph"),
                             ("--builderOptimizationLevel=5", "--builderOptimizationLevel=5"),
                             ("--duration=1 --warmUp=1", "--duration=1, --warmUp=1"), ("--duration=x", "--duration=x"))),
    *((trtexec(f"--onnx=sst2_bs8.onnx --fp16 {options}", "110100"), T4, {"timed": words}) for options, words in (
        ("", "device compute only, spin wait, CUDA graph: no copies"),
        ("--includeDataTransfers --noSpinWait --noCudaGraph", "device compute, with copies beside it"))),
    (trtexec("--onnx=sst2_bs8.onnx --noDataTransfers --useSpinWait"), T4, {"timed": "device compute only, spin wait: no copies"}),
    (args("--run_mode", "full", "--energy-consumption", "1", "--outfmt", "NPY", "--perf", "0"), SST2,
     {"timed": "device only, --run_mode=full, --energy_consumption=1"}),
    ({"card": {"npu": "910B4-1", "cann": "8.5.0"}}, SST2.replace("310P3", "910B4_1"),
     {"chip": "910B4_1", "engine_info": {"name": "ais_bench", "args": SUMMARY["args"], "npu": "910B4-1", "cann": "8.5.0"}}),
    (args("--auto_set_dymdims_mode", "1"), SST2.replace("128", "64-128"), {"seq": "64-128"}),
    ({"args": ["m", "--model", "build/minilm_sst2/seeded2/seq64/bs8/310P3-atc-fp16/model.om"]}, SST2,
     {"weights": "seeded2", "seq": "64"}),
])  # fmt: skip
def test_what_a_log_tells(tmp_path, content, leaf, told):
    given = ("MODEL",) if "910" in leaf else ("MODEL", "CHIP")
    r = record_of(tmp_path, content, leaf, given)
    assert {k: r[k] for k in told} == told
    assert record.promote(tmp_path / "records", r, tmp_path / "x").is_file()


@pytest.mark.parametrize(("content", "leaf", "said"), [
    (args("--warmup_count", "0"), SST2, "timed with no warm-up"),
    (args("-wcount", "0"), SST2, "timed with no warm-up"),
    (args("--profiler", "true"), SST2, "timed with --profiler"),
    *((args(f"--{o}", "x.json"), SST2, f"timed with --{o}") for o in ("acl_json_path", "dymShape_range", "backend")),
    (args("--pipeline", "true"), SST2, "timed with --pipeline"),
    (args("--profiler"), SST2, "timed with --profiler"),
    (screen(before="[INFO] warm up 0 done\n"), SST2, "timed with no warm-up"),
    ({"throughput": 1e6, "batchsize": 8}, SST2, "throughput is not 1000 * batchsize 8 / mean"),
    (args() | {"throughput": 1e6}, SST2, "says BS='4000'"),
    ({"npu_compute_time_list": [[0.0, 8.0], [4.0, 12.0]], "NPU_compute_time": {"mean": 4.0, "count": 2}}, SST2,
     "timed with several threads"),
    (args("--threads", "2"), SST2, "timed with --threads 2"),
    ({"engine": {"name": "native"}}, SST2, "of this project's runner on a CPU"),
    ('{\n "kind": "accuracy",\n "model": "x"}', SST2, "a record of this project, no log; commit results/ there"),
    ({}, SST2.replace("128", "128p"), "counts packed rows, not their sentences"),
    # what nobody gave, its path says
    ({"args": ["m", "--model", f"build/{SST2.replace('128', '128p')}/model.om"]}, SST2, "counts packed rows, not their sentences"),
    (args("--batchsize", "16"), SST2, "its --batchsize says BS=16, its throughput says BS=8"),
    (screen() + screen(64, 20.0), SST2, "holds 2 runs; give one file per run"),
    ((screen() + screen() + "[INFO] summary throughput:4000.0\n") * 2, SST2, "holds 2 runs"),
    (trtexec() + trtexec("--onnx=m_bs64.onnx --fp16", qps=30), T4, "holds 2 runs; give one file per run"),
    *((trtexec(f"--onnx=sst2_bs8.onnx {option}"), T4, f"timed with {option}")
      for option in ("--streams=2", "--infStreams=2", "--dumpProfile", "--sleepTime=20", "--warmUp=0", "--useDLACore=0",
                     "--sparsity=force", "--useManagedMemory", "--exposeDMA", "--allowWeightStreaming")),
    (trtexec(qps=298.0), T4, "several streams, or edited"),
    (trtexec("--onnx=m.onnx --shapes=ids:8x64", more="Created input binding for ids with dimensions 1x64"), T4,
     "says BS=8, its input bindings says BS=1"),
    (trtexec("--loadEngine=m_bs8.plan"), T4, "does not say what PRECISION was"),
    (trtexec("--onnx=sst2_bs8.onnx --duration=0 --iterations=1"), T4, "timed with --duration=0"),
    ({"card": {"npu": "910B4"}}, SST2, "npu-smi there says CHIP=910B4, CHIP=310P3 was given"),
    (args("--auto_set_dymdims_mode", "1"), SST2, "over several lengths, which it does not name: give them, as SEQ=64,128"),
    *((content, leaf.replace("default", "seeded2"), "does not say that its weights were seeded")
      for content, leaf in (({}, SST2), (trtexec(), T4))),
])  # fmt: skip
def test_what_is_no_plain_run_is_refused(tmp_path, content, leaf, said):
    refused(re.escape(said), record_of, tmp_path, content, leaf)


@pytest.mark.parametrize(("start", "leaf"), [
    ("[INFO] NPU_compute_time (ms): ", SST2),
    ("[I] GPU Compute Time: min = ", T4),
    ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=", T4),
    ("[INFO] load model ", SST2),
    ("", SST2),
])  # fmt: skip
def test_a_long_line_costs_no_time(tmp_path, start, leaf):
    """Quadratic in a regular expression: half a minute for 40,000 letters, and an hour for these."""
    letters = "a" * 400_000
    content = f"{start}{letters}\n{trtexec() if leaf == T4 else screen()}"
    for text, at in (content, leaf), ({"args": ["m", "--model", letters]}, SST2):
        try:
            record_of(tmp_path, text, at)
        except cli.UserError as e:
            assert len(str(e)) < 2000


def test_the_screen_and_the_summary_of_a_run_are_one_record(tmp_path, monkeypatch, capsys):
    record_of(tmp_path, {}, SST2), record_of(tmp_path, screen(), SST2)
    for name, said in (("s_summary.json", "wrote "), ("run.log", "is of this run"), ("s_summary.json", "wrote ")):
        words = ("imports", tmp_path / name, SST2, "--given", "MODEL", "CHIP", "--save_path", tmp_path / "kept")
        monkeypatch.setattr("sys.argv", [*map(str, words)])
        imports.main()
        assert said in capsys.readouterr().out
    assert len(list((tmp_path / "kept").glob("*throughput.json"))) == 1
    record_of(tmp_path, args("--dymShape", DIMS), SST2)  # as fast, and by its words of another length
    imports.main()
    assert "wrote " in capsys.readouterr().out


@pytest.mark.parametrize(("prefix", "first"), [("", 1), ("input", 0)])
def test_outputs_of_another_room_are_an_accuracy(tmp_path, prefix, first):
    given, folder = ("MODEL", "CHIP", "BS"), tmp_path / "out"
    folder.mkdir()
    for i, label in enumerate(record.sst2_labels()):
        right = i % 10 != 0
        np.array([label != right, label == right], "f4").tofile(folder / f"{prefix}{i + first}_0.bin")
    r = imports.import_record(folder, Path(SST2), given)
    assert (r["correct"], r["total"], r["chip"]) == (784, 872, "310P3")
    assert r["missing"]["seq"] == "not in the outputs: the default"
    assert record.promote(tmp_path / "records", r, folder).name.endswith("accuracy.json")
    (folder / "data").symlink_to(Path("data").absolute())
    with contextlib.chdir(folder):
        here = imports.import_record(Path(), Path(SST2), given)
    assert (here["correct"], here["imported"]["file"]) == (784, "out")
    (folder / "data").unlink()
    refused("do not say what BS was: give it", imports.import_record, folder, Path(SST2), given[:2])
    seeded2 = Path(SST2.replace("default", "seeded2"))
    refused("does not say that its weights were seeded", imports.import_record, folder, seeded2, given)
    np.zeros(2, "f4").tofile(folder / f"{prefix}9999_0.bin")
    refused("outputs of 873 sentences", imports.import_record, folder, Path(SST2), given)
    for name in ("9999", first):
        (folder / f"{prefix}{name}_0.bin").unlink()
    refused("outputs of 871 sentences", imports.import_record, folder, Path(SST2), given)
