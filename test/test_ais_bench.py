"""tools/ascend/ais_bench.py, and the stand-in for ais_bench whose results must be the CPU's."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from conftest import fails, refused
from fake_cann import om_writer, tiny

from tools.ascend import summary
from tools.base import trip
from tools.setup import doctor

ROWS, LENGTH, BATCH = 10, 8, 4
FLAGS = ("--model", "model.om", "--input", "in/input_ids,in/attention_mask", "--output", "out")
SHORT = {"--model": "-om", "--input": "-i", "--output": "-o", "--output_dirname": "-od", "--device": "-d"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with model.om [4, 8], gears.om, inputs 1.bin to 10.bin, and what onnxruntime says of them."""
    folder = tmp_path_factory.mktemp("made")
    tiny.model(folder / "m.onnx")
    for name, flags in (("model", [tiny.SHAPE, "--input_format=ND"]), ("gears", tiny.GEARS)):
        words = ["--framework=5", "--model=m.onnx", f"--output={name}", "--soc_version=Ascend310P3", *flags]
        env = tiny.environment()
        subprocess.run([tiny.HERE / "bin/atc", *words], cwd=folder, env=env, check=True, capture_output=True)
    rng = np.random.default_rng(1)
    data = {"input_ids": rng.integers(0, 100, (ROWS, LENGTH)), "attention_mask": rng.integers(0, 2, (ROWS, LENGTH))}
    for name, rows in data.items():
        (folder / "in" / name).mkdir(parents=True)
        for i, row in enumerate(rows, 1):
            path = folder / "in" / name / f"{i}.bin"
            row.astype("i8").tofile(path)
            path.chmod(0o644)
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    return folder, session, session.run(None, data)[0]


@pytest.fixture
def folder(example, tmp_path):
    shutil.copytree(example[0], tmp_path / "w")
    return tmp_path / "w"


YEARS = (2023, 2024, 2025, 2026)


def run(folder, *words, year=2025, python=None, **env):
    options = ["--python", python] if python else []
    return tiny.tool("ascend.ais_bench", *options, *words, cwd=folder, FAKE_AIS_BENCH=str(year), **env)


def outputs(folder):
    return np.stack([np.fromfile(folder / f"{i}_0.bin", "f4") for i in range(1, ROWS + 1)])


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("devices", [1, 2])
def test_results_are_the_cpus_and_padding_is_dropped(folder, example, year, devices):
    """Those of several devices are put together; short options are understood."""
    words = [*FLAGS, "--output_dirname", "r", *("--device", "0,3") * (devices - 1)]
    got = run(folder, *([SHORT.get(word, word) for word in words] if year == 2024 else words), year=year)
    assert got.returncode == 0, got.stderr
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["r", "r_summary.json"]
    assert len(list((folder / "out/r").iterdir())) == ROWS
    np.testing.assert_allclose(outputs(folder / "out/r"), example[2], rtol=1e-5, atol=1e-6)
    facts = summary.read_summary(folder / "out/r_summary.json")
    numbers = [facts[name] for name in ("devices", "samples", "count", "batchsize", "standin", "timed")]
    assert numbers == [devices, ROWS, {1: 3, 2: 4}[devices], BATCH, True, "device only"]
    (folder / "log").write_text(got.stdout)
    assert summary.read_summary(folder / "log")["throughput"] == pytest.approx(facts["throughput"])
    assert ("--divide_input 1" in got.stdout) == (year >= 2024 and devices == 2)
    if devices == 1:
        assert f"filesperbatch:{BATCH} runcount:3" in got.stdout  # natural order: 10.bin is in the third batch
        assert facts["throughput"] == pytest.approx(1000 * BATCH / np.mean(facts["times_ms"]))
    else:
        assert f"out/r/{'device3' if year == 2023 else 'device3_1'}" in got.stdout


def test_each_device_fills_up_its_own_last_batch():
    samples = lambda *counts: {"per_device": [{"samples": n} for n in counts]}
    assert summary.batches_run(872, 8, samples(None, None, None)) == 111  # 291, 291 and 290 sentences
    assert summary.batches_run(173, 16, samples(87, 86)) == 12


def test_devices_that_ran_everything_must_agree(folder):
    words = (*FLAGS, "--output_dirname", "r", "--device", "0,1", "--divide_input", "0")
    assert run(folder, *words).returncode == 0  # equal files are kept once
    assert len(list((folder / "out/r").iterdir())) == ROWS
    fails(run(folder, *words), "out/r: holds an earlier run's outputs")
    part = folder / "out/r/device0_0"
    part.mkdir()
    (part / "1_0.bin").write_bytes(b"other")
    shutil.copy(folder / "out/r_summary.json", folder / "out/r/device0_0_summary.json")
    refused("differs from another device", summary.merge, folder / "out/r")


@pytest.mark.parametrize("year", YEARS)
def test_gears(folder, example, year):
    feeds = [{name: np.full((4, length), i + 1) for name in tiny.INPUTS} for i, length in enumerate((16, 8))]
    for i, name in itertools.product(range(2), tiny.INPUTS):
        path = folder / f"np/{name}/{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, feeds[i][name])
        path.chmod(0o644)
    words = ["--model", "gears.om", "--input", "np/input_ids,np/attention_mask", "--auto_set_dymdims_mode", "1"]
    got = run(folder, *words, "--output", "out", "--output_dirname", "r", "--outfmt", "NPY", year=year)
    assert got.returncode == 0, got.stderr
    for i, feed in enumerate(feeds):
        rows = np.load(folder / f"out/r/{i}_0.npy")
        np.testing.assert_allclose(rows, example[1].run(None, feed)[0], rtol=1e-5, atol=1e-6)
    assert summary.read_summary(folder / "out/r_summary.json")["batchsize"] == 4
    np.save(folder / "np/input_ids/0.npy", np.ones((4, 9), "i8"))
    for wrong in (words, words[:2]):
        fails(run(folder, *wrong, year=year), "no gear of the model")
    dims = "input_ids:4,16;attention_mask:4,16"
    assert run(folder, "--model", "gears.om", "--dymDims", dims, year=year).returncode == 0


# As an ordinary user, whose the files are: root's rights to any file are gone in there.
ANOTHER = ("unshare", "-U", "--map-user=1000", "--map-group=1000")
CAN = shutil.which("unshare") and not subprocess.run([*ANOTHER, "true"], capture_output=True, check=False).returncode
OTHERS = pytest.param(ANOTHER, marks=pytest.mark.skipif(not CAN, reason="no unshare(1) that maps to another user here"))
UMASKS = [(2025, u) for u in (0, 0o002, 0o022, 0o027, 0o077)]


@pytest.mark.parametrize("user", [(), OTHERS], ids=["as_we_are", "as_another"])
@pytest.mark.parametrize(("year", "umask"), [*UMASKS, (2024, 0), (2024, 0o077), (2023, 0), (2026, 0)])
def test_what_we_hand_over_is_taken_under_any_umask(folder, year, umask, user):
    """By tools/make/run.py, as mk/run.mk calls it; afterwards others can read what was made."""
    (folder / "Makefile").touch()
    here = [sys.executable, "-m"]
    words = [*here, "tools.make.run", "--step", "infer", "build/output/MANIFEST", "--", *here, "tools.ascend.ais_bench"]
    env = tiny.environment(FAKE_AIS_BENCH=str(year))
    done = subprocess.run([*user, *words, *FLAGS[:4], "--output", "{}", "--output_dirname", "out"], cwd=folder, env=env,
                          umask=umask, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {oct(p.stat().st_mode & 0o777) for p in (folder / "build/output/out").iterdir()} == {"0o644"}
    assert oct((folder / "build/output").stat().st_mode & 0o777) == "0o755"


def mode(bits, path):
    """Give a path this mode; folders of outputs are made first, out/ itself as the tool makes it."""

    def spoil(folder):
        (folder / "out").mkdir(0o750)
        (folder / path).mkdir(exist_ok=True) if path.startswith("out") else None
        (folder / path).chmod(bits)

    return spoil


LATER, NAMED = (2024, 2025), "its mode is {}, {} at most is taken: chmod {}"
THIRD = "in/input_ids/3.bin"
SPOILT = [
    (lambda f: ((f / THIRD).unlink(), (f / THIRD).symlink_to("2.bin")), LATER, "refuses links"),
    (lambda f: (f / THIRD).rename(f / "in/input_ids/3 b.bin"), LATER, "letters, digits"),
    (mode(0o664, THIRD), LATER, NAMED.format("0664", "0755", "go-w")),
    (mode(0o666, "model.om"), LATER, NAMED.format("0666", "0755", "go-w")),
    (mode(0o755, "out"), (2025, 2026), NAMED.format("0755", "0750", "g-w,o-rwx")),
    (mode(0o770, "out"), (2024,), NAMED.format("0770", "0755", "go-w")),
    (mode(0o770, "out"), (2025,), NAMED.format("0770", "0750", "g-w,o-rwx")),
    (mode(0o775, "out/r"), (2025,), NAMED.format("0775", "0755", "go-w")),
]


@pytest.mark.parametrize(("spoil", "hint", "year"), [(s, hint, year) for s, years, hint in SPOILT for year in years])
def test_each_years_rules_for_paths(folder, spoil, hint, year):
    spoil(folder)
    fails(run(folder, *FLAGS, "--output_dirname", "r", year=year), hint)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_files(folder):
    os.chown(folder / THIRD, 12345, 12345)
    assert "must belong to the user who runs ais_bench" in run(folder, *FLAGS).stderr
    assert run(folder, *FLAGS, year=2023).returncode == 0


def test_without_pkg_resources(folder):
    old = run(folder, *FLAGS, year=2024, FAKE_AIS_SETUPTOOLS="82")
    fails(old, "UnboundLocalError", "install 'setuptools<82'")
    assert run(folder, *FLAGS, year=2025, FAKE_AIS_SETUPTOOLS="82").returncode == 0


@pytest.mark.parametrize(("words", "starts", "hint"), [
    (["--model", "model.om", "--input", "in/input_ids"], True, "one folder per model input"),
    (["--model", "model.om", "--output_dirname", "r"], True, "cann't be used alone"),
    (["--model", "m.onnx"], True, "file type not in ['om']"),
    (["--model", "model.om", "--loop", "100001"], True, "--loop: 100001 is over 100000"),
    (["--model", "real.om"], True, "was it compiled for this chip"),
    ([*FLAGS, "--device", "0,1"], False, "--output_dirname"),
    (["--model", "model.om", "--input", "in/attention_mask,in/input_ids"], False,
     "model.om takes input_ids, attention_mask: give them in its order"),
    (["--model", "model.om", "--input", "short/input_ids,in/attention_mask"], True,
     "arg0 tensorsize: 256 filesize: 56 not match"),
])  # fmt: skip
def test_refusals(folder, words, starts, hint):
    om_writer.write_om(folder / "real.om", inputs=[("x", "int64", [1])], outputs=[("y", "float32", [1])])
    (folder / "short/input_ids").mkdir(parents=True)
    np.zeros(7, "i8").tofile(folder / "short/input_ids/1.bin")
    got = run(folder, *words)
    fails(got, hint, *["rebuild one of them"] * ("filesize" in hint))
    assert ("-m ais_bench" in got.stdout) == starts


@pytest.mark.parametrize(("python", "other", "says"), [
    (None, False, "Pythons has ais_bench and aclruntime"),
    ("/no/python3", False, "AIS_PYTHON=/no/python3: No such file"),
    (sys.executable, False, "No module named ais_bench; install the aclruntime"),
    *((python, True, "PyPI's ais_bench_benchmark, another tool") for python in (None, sys.executable)),
])  # fmt: skip
def test_missing_ais_bench_says_what_to_install(folder, python, other, says):
    """PyPI's ais_bench_benchmark has a package of that name, and no program in it."""
    for name in ("ais_bench/benchmark/__init__.py", "ais_bench/__init__.py", "aclruntime.py") * other:
        (folder / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "other" / name).touch()
    got = run(folder, "--model", "model.om", python=python, PYTHONPATH=f"{folder / 'other'}:{tiny.HERE.parents[1]}")
    fails(got, says, "AIS_PYTHON=")


NPU_SMI = """
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     {0:<20}| OK            | 90.9        36                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3161 / 65536         |
| 1     {0:<20}| Alarm         | 90.9        36                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3161 / 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
| 0       0                 | 2765424       | python3                  | 3100                    |
"""


@pytest.mark.parametrize("name", ["910B4-1", "310P3", "Ascend910", "910_9391"])
def test_what_npu_smi_names(name):
    plain = name.removeprefix("Ascend")
    assert trip.cards(NPU_SMI.format(name)) == [(plain, "OK", "0"), (plain, "Alarm", "1")]
    assert not trip.unlike(f"Ascend{plain}", plain) and trip.unlike("Ascend310B4", plain)
    assert not trip.unlike("Ascend910_9362", "910") and not trip.unlike("Ascend310P3", None)
    assert not trip.unlike(None, "x") and not trip.unlike("910B4_1", "910B4-1")


def test_the_card_of_a_record_is_the_one_that_ran(monkeypatch):
    board = lambda *words: f"Firmware Version : 7.{words[-1]}" if "board" in words else NPU_SMI.format("310P3")
    monkeypatch.setattr(trip, "query", lambda *words: (0, board(*words)))
    cards = [trip.facts(None, device) for device in ("0", "1", "1,0", "9")]
    assert [t["npu_health"] for t in cards] == ["OK", "Alarm", "Alarm", "OK"]
    assert [t["npu_firmware"] for t in cards] == ["7.0", "7.1", "7.1", "7.0"]


@pytest.mark.parametrize(("answer", "here", "words"), [
    ((0, NPU_SMI.format("310P3")), False, "310P3 OK, 310P3 Alarm: CHIP=310P3"),
    ((0, NPU_SMI.format("310P3").replace("Alarm", "OK   ")), True, "CHIP=310P3"),
    ((255, "dcmi model initialized failed, because the device is used. ret is -8020"), False, "npu-smi fails (exit 255: dcmi"),
    ((None, ""), False, "no Ascend driver here"),
])  # fmt: skip
def test_doctor_on_the_card(monkeypatch, answer, here, words):
    monkeypatch.setattr(doctor.trip, "query", lambda *_: answer)
    assert doctor.card()[1] == here and words in doctor.card()[2]
