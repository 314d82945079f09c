"""The CPU runner keeps ais_bench's contract: command line, files, remainder batch, summary. A model of three nodes."""

import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import small
from conftest import ROOT, lay, module

from tools.ascend import summary
from tools.base import input_files, logs
from tools.cpu import engines, runner, yardstick
from tools.make import cli, cpu


@pytest.fixture
def model(tmp_path):
    """input_ids, attention_mask int64 [4, 3] -> output float32 [4, 2] = (sum of ids, sum of mask)."""
    return small.sums(tmp_path / "m.onnx", 4, 3, 1)


@pytest.fixture
def inputs(tmp_path):
    """Ten samples: ids (i, i, i), mask (1, 0, 1), i from 1; as files 1.bin to 10.bin."""
    rows = {"input_ids": np.int64([[i] * 3 for i in range(1, 11)]), "attention_mask": np.int64([[1, 0, 1]] * 10)}
    input_files.write_bins(tmp_path, rows, None)
    return f"{tmp_path}/input_ids,{tmp_path}/attention_mask"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*words): what `python -m tools.cpu.runner --output tmp_path --output_dirname d` prints; ends(*words): how it ends."""

    def ends(*words):
        monkeypatch.setattr(sys, "argv", ["runner.py", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.run(runner.main)
        return end.value.code

    def call(*words):
        assert not ends(*words, "--output", tmp_path, "--output_dirname", "d")
        return capsys.readouterr().out

    call.ends = ends
    return call


result = lambda folder: json.loads((folder / "d_summary.json").read_text())


def test_files_remainder_and_summary(run, model, inputs, tmp_path):
    before = os.umask(0)
    text = run("--model", model, "--input", inputs)
    os.umask(before)
    files = {p.name: p for p in (tmp_path / "d").iterdir()}
    assert set(files) == {f"{i}_0.bin" for i in range(1, 11)}  # the rows that fill the third request are dropped
    for i in range(1, 11):
        assert np.fromfile(files[f"{i}_0.bin"], "<f4").tolist() == [3 * i, 2]
    assert {oct(p.stat().st_mode & 0o777) for p in files.values()} == {"0o644"}  # whatever the umask
    info = result(tmp_path)
    assert info["NPU_compute_time"]["count"] == len(info["npu_compute_time_list"]) == 3
    mean = info["NPU_compute_time"]["mean"]
    assert info["throughput"] == pytest.approx(1000 * 4 / mean)  # padded rows count, as in ais_bench
    assert info["filesinfo"]["9"]["outfiles"] == [str(tmp_path / "d/10_0.bin")]
    assert set(info) >= {"args", "pid"} and not {"pairs", "yardstick"} & set(info)
    assert f"[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean({mean}): " in text
    *_, (files, feeds, _) = runner.requests_of(runner.columns_of(inputs, 2), engines.load(model, 1).inputs, 4)
    assert [file.stem for file in files] == ["9", "10"]
    assert feeds[0].tolist() == [[i] * 3 for i in (9, 10, 9, 9)]  # the last request is filled with its own first file


def test_the_record_parser_reads_it(run, model, inputs, tmp_path):
    ends = {"min": 1, "max": 101, "mean": 51.0, "median": 51.0, "percentile(99%)": 100.0, "count": 101}
    assert logs.stats([*range(1, 102)]) == ends
    run("--model", model, "--input", inputs, "--loop", 5, "--outfmt", "TXT")
    facts = summary.read_summary(tmp_path / "d_summary.json")
    assert (facts["count"], facts["batchsize"]) == (15, pytest.approx(4))
    assert (tmp_path / "d/1_0.txt").read_text() == "3.000000 2.000000\n"


def test_whole_batch_npy(run, model, inputs, tmp_path):
    for path in map(Path, inputs.split(",")):
        shutil.rmtree(path)
        path.mkdir()
        np.save(path / "1.npy", np.ones((4, 3), np.int64))
    run("-m", model, "-i", inputs, "--auto_set_dymdims_mode", 1, "--outfmt", "NPY")
    assert np.load(tmp_path / "d/1_0.npy").tolist() == [[3, 3]] * 4
    for content in (b"PK\x03\x04", b"", (tmp_path / "input_ids/1.npy").read_bytes()[:-4]):
        (tmp_path / "attention_mask/1.npy").write_bytes(content)
        message = run.ends("-m", model, "-i", inputs)
        assert "1.npy: not an array of int64" in message and "\n" not in message


def test_untimed_gives_the_same_files(run, model, inputs, tmp_path):
    files = lambda: {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()}
    run("-m", model, "-i", inputs)
    in_turn = files()
    shutil.rmtree(tmp_path / "d")
    run("-m", model, "-i", inputs, "--untimed", "--threads", 3)
    assert files() == in_turn and len(in_turn) == 10
    infiles = [Path(f["infiles"][0]).stem for f in result(tmp_path)["filesinfo"].values()]
    assert infiles == [str(i) for i in range(1, 11)]


def test_the_timed_engine_gives_the_outputs_that_were_scored(run, model, inputs, tmp_path, monkeypatch):
    """Zeros are timed, and requests of the scored inputs run in between: another engine's outputs stop the run."""
    monkeypatch.setattr(runner, "random", random.Random(0))  # of any others, one in thirty compares too few rows
    run("-m", model, "-i", inputs, "--batchsize", 4)
    scored = (tmp_path / "d").rename(tmp_path / "known")
    as_scored = ("--batchsize", 4, "--known", scored, "--asked", inputs)
    run("-m", model, "--loop", 60, *as_scored)
    assert result(tmp_path)["engine"]["rows_as_scored"] > 10 and result(tmp_path)["NPU_compute_time"]["count"] == 60
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["pure_infer_data_0.bin"]
    run("-m", model, "-i", inputs, *as_scored[:4])
    assert result(tmp_path)["engine"]["rows_as_scored"] == 10
    for file in scored.iterdir():
        file.write_bytes(np.array([3, 2.5], "<f4").tobytes())
    (tmp_path / "d_summary.json").unlink()
    for words in (("--loop", 3, *as_scored), ("-i", inputs, *as_scored[:4])):
        message = run.ends("-m", model, *words, "-o", tmp_path, "--output_dirname", "d")
        assert "_0.*: the engine answers otherwise while it is timed" in message
    (scored / "1_0.bin").write_bytes(b"cut")
    assert "1_0.bin: not rows of 2 float32" in run.ends("-m", model, "-i", inputs, *as_scored[:4])
    assert not (tmp_path / "d_summary.json").exists()


def takes_int32(folder):
    graph = onnx.load(folder / "m.onnx")
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(graph, folder / "m.onnx")


@pytest.mark.parametrize(("fault", "says"), [
    (takes_int32, "m.onnx: input input_ids is of tensor(int32), not int64 or float32"),
    (lambda t: (t / "m.onnx").unlink(), "m.onnx: No such file"),
    (lambda t: (t / "attention_mask/10.bin").unlink(), "the folders hold [10, 9] files"),
    (lambda t: [f.unlink() for f in (t / "input_ids").iterdir()], "no .bin or .npy file there"),
    ("--threads -1", "--threads -1: not from 1 to 4096, or 0 for all cores"),
    ("--dymDims input_ids", "--dymDims input_ids: not input:rows,tokens for each input"),
    ("--dymDims input_ids:0,3;attention_mask:0,3", "not input:rows,tokens"),
    ("--dymDims input_ids:4,3;attention_mask:2,3", "not input:rows,tokens for each input, all alike"),
])  # fmt: skip
def test_faults_are_one_line(run, model, inputs, tmp_path, fault, says):
    """Of a spoilt folder, and of words that no run can have."""
    words = fault.split() if isinstance(fault, str) else ["-i", inputs]
    if not isinstance(fault, str):
        fault(tmp_path)
    message = run.ends("-m", model, *words, "-o", tmp_path, "--output_dirname", "d")
    assert says in message and "\n" not in message
    assert not (tmp_path / "d_summary.json").exists()


def test_usage_is_exit_2(run, model):
    for words in (["--output_dirname", "d"], ["--loop", 0], ["--plan", "fixed"]):
        assert run.ends("--model", model, *words) == 2


# ---- the processor
@pytest.mark.parametrize(("groups", "files", "siblings", "want"), [
    ("0::/\n", {}, ["0", "1", "2", "3"], 4),
    ("0::/\n", {}, ["0,2", "1,3", "0,2", "1,3"], 2),  # hyper-threads
    ("0::/\n", {"cpu.max": "max 100000"}, ["0", "1", "2", "3"], 4),
    ("0::/a/b\n", {"a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}, ["0", "1", "2", "3"], 3),
    ("0::/gone\n", {"cpu.max": "50000 100000"}, ["0", "1", "2", "3"], 1),  # of a container, which sees only its root
    ("4:cpu,cpuacct:/x\n3:cpuset:/y\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000",
     "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, ["0", "1", "2", "3"], 2),
    ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ["0", "1", "2", "3"], 4),
])  # fmt: skip
def test_threads_are_the_cores_that_a_process_may_use(tmp_path, monkeypatch, groups, files, siblings, want):
    lay(tmp_path / "groups", {"tasks": "", **files})
    lay(tmp_path / "cpus", {f"cpu{n}/topology/thread_siblings_list": f"{text}\n" for n, text in enumerate(siblings)})
    monkeypatch.setattr(cpu, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cpu, "CPUS", tmp_path / "cpus")
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(len(siblings))))
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda p, *a: groups if str(p) == "/proc/self/cgroup" else real(p, *a))
    assert cpu.cores() == cpu.machine()["cores"] == want


def test_a_process_on_one_cpu_starts_no_second_thread(model, tmp_path):
    """onnxruntime by itself starts one for each core of the machine."""
    code = f"""import os, onnxruntime
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from tools.base import onnxfile
before = len(os.listdir("/proc/self/task"))
for threads in (0, None):
    kept = onnxfile.session({str(model)!r}, threads)
    print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["0", "0"], done.stderr


def test_two_generations_of_one_name_are_two_machines(monkeypatch):
    text, real = "cpu family\t: {}\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 1\nflags : \n\n", Path.read_text
    for family in (25, 26):
        fake_read = lambda p, *a, f=family: text.format(f) if str(p) == "/proc/cpuinfo" else real(p, *a)
        monkeypatch.setattr(Path, "read_text", fake_read)
        assert cpu.machine()["cpu"] == f"AMD EPYC (family {family}, model 1, stepping 1)"


# ---- turns with the yardstick
@pytest.fixture(scope="module")
def peak(tmp_path_factory):
    library = tmp_path_factory.mktemp("peak") / "peak.so"
    module("tools.cpu.native.build", ROOT / "tools/cpu/native/peak.c", "--save_path", library, check=True)
    return library


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the yardstick has units of x86 alone")
def test_the_yardstick_runs_each_unit_that_this_cpu_has_and_no_other(peak):
    """Each in a process of its own, which a foreign instruction would end (AVX-512 did on AVX2 alone, SIGILL)."""
    code = "import sys; from tools.cpu import yardstick; print(yardstick.load_work(sys.argv[1])(sys.argv[2], 0.01)[0])"
    here = cpu.cpu_flags(limited=False)
    units = {"fp32": {"avx512f", "fma"}, "bf16": {"avx512_bf16", "amx_bf16"}, "int8": {"avx512_vnni", "amx_int8"},
             "bf16_l2": {"amx_bf16"}, "int8_l2": {"amx_int8"}}  # fmt: skip
    for kind in yardstick.KINDS:
        done = subprocess.run([sys.executable, "-c", code, peak, kind], capture_output=True, text=True)
        assert done.returncode == 0, (kind, done.returncode)
        assert (float(done.stdout) > 0) == bool(kind not in units or units[kind] & here), kind


@pytest.mark.skipif(platform.machine() != "x86_64" or not shutil.which("objdump"), reason="objdump and x86 are needed")
def test_what_every_cpu_runs_of_the_yardstick_is_compiled_for_every_cpu(peak):
    command = ["objdump", "-d", "--no-show-raw-insn", peak]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    code = dict(re.findall(r"^\w+ <([\w.]+)>:\n((?:.+\n)*)", text, re.M))
    newer = {name.split(".")[0] for name, lines in code.items() if re.search(r"\t(v[a-z]|tile|tdp)", lines)}
    assert "tiles_bf16" in newer and not newer & {"work", "triad", "portable", "unit", "has_tiles"}
    wide = {name.split(".")[0] for name, lines in code.items() if "zmm" in lines}
    assert "sums_fp32" in wide and "sums_avx2" not in wide


def test_engine_and_yardstick_take_turns(run, model, peak, tmp_path):
    """A request of three nodes takes microseconds: a turn is many, and the yardstick's work and time stand beside it."""
    run("-m", model, "--loop", 3, "--milliseconds", 300, "--yardstick", peak, "--threads", 2)
    info = result(tmp_path)
    times = info["npu_compute_time_list"]
    assert info["loop"] == 3 < len(times) and sum(times) >= 300 and info["yardstick"] in yardstick.KINDS
    assert sum(pair[0] for pair in info["pairs"]) == 4 * len(times)  # the last turn is closed too
    assert sum(pair[1] for pair in info["pairs"]) == pytest.approx(sum(times) / 1e3, rel=1e-6)
    assert all(len(pair) == 6 and min(pair) > 0 for pair in info["pairs"])
    assert info["singles"] and all(len(single) == 4 and single[0] == 4 for single in info["singles"])


def test_a_turn_is_what_its_requests_took_and_one_thread_gets_no_more_time(monkeypatch):
    """On a clock on which only what is told takes time: requests of two threads that sleep too, two a turn."""
    now = np.zeros(2)  # seconds, processor seconds
    spend = lambda seconds, processors: now.__iadd__([seconds, seconds * processors])
    monkeypatch.setattr(yardstick, "clocks", lambda: tuple(now))
    monkeypatch.setattr(yardstick.Turns, "run_yardstick", lambda *_: [2e10, 0.04, 0.08])
    turns = yardstick.Turns()
    turns.kind = "fp32"
    for _ in range(100):
        turns.time(8, lambda: [spend(0.025, 2), spend(0.005, 0)], lambda: spend(0.23, 1))
    np.testing.assert_allclose(turns.pairs, [[16, 0.06, 0.1, 2e10, 0.04, 0.08]] * 50)
    np.testing.assert_allclose(turns.singles, [[8, 0.23, 2e10, 0.08]] * 14)  # of 3 s
