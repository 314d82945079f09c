"""tools/ascend/atc.py against a stand-in that accepts and refuses what CANN's atc does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import fails, lay, refused
from fake_cann import tiny
from fake_cann.tiny import GEARS, SHAPE

from tools.ascend import atc, om
from tools.base import trip

IMAGE = "ascendai/cann@sha256:" + "0" * 64
BARE = f"{Path(sys.executable).parent}:/usr/bin:/bin"  # no atc on PATH


@pytest.fixture
def folder(tmp_path):
    tiny.model(tmp_path / "m.onnx")
    return tmp_path


def run(folder, *flags, soc="Ascend310P3", before=(), **env):
    words = ["--framework=5", "--model=m.onnx", "--output=out/model", f"--soc_version={soc}", *flags]
    return tiny.tool("ascend.atc", *before, *words, cwd=folder, **({"ASCEND_HOME_PATH": None} | env))


def toolkit(folder, version=None, socs=()):
    """A CANN root whose set_env.sh tells the stand-in which CANN to play, and must not see arguments."""
    root = folder / "my cann" / "latest"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "atc").symlink_to(tiny.HERE / "bin" / "atc")
    if version:
        lay(root / "x-linux", {"ascend_toolkit_install.info": f"package_name=x\nversion={version}\n"})
        lay(root.parent, {"set_env.sh": f"[ $# = 0 ] || exit 9\nexport FAKE_CANN_VERSION={version}\nfalse\n"})
    lay(root / "x-linux/data/platform_config", {f"{soc}.ini": "" for soc in socs})
    return {"ASCEND_HOME_PATH": str(root), "PATH": BARE}


@pytest.mark.parametrize("host_code", [{}, {"FAKE_ATC_HOST_CODE": "1"}])
def test_a_verified_om_and_nothing_else(folder, host_code):
    """Under the same name, too, if it carries host code, which atc says in its name."""
    got = run(folder, SHAPE, **host_code)
    assert got.returncode == 0, got.stderr
    assert "ATC run success" in got.stdout  # atc's own output was shown
    assert "+ atc --framework=5 --model=model.onnx" in got.stdout
    assert sorted(p.name for p in folder.rglob("*")) == ["m.onnx", "model.om", "out"]
    assert om.read_om(folder / "out/model.om")["atc_version"] == "STAND-IN"
    assert (folder / "out/model.om").stat().st_mode & 0o777 == 0o644


def test_same_bytes_in_any_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    tiny.model(other / "m.onnx")
    dashes = ["--implmode", "Gelu=high_performance", "--"]
    assert run(folder, SHAPE, before=dashes).returncode == run(other, SHAPE, before=dashes).returncode == 0
    assert (folder / "out/model.om").read_bytes() == (other / "out/model.om").read_bytes()


@pytest.mark.parametrize(("soc", "words"), [("Ascend710", "old name of Ascend310P3"),
                                              ("Ascend910B4_1", "another spelling of Ascend910B4-1")])  # fmt: skip
def test_a_chips_present_name(folder, soc, words):
    assert words in run(folder, SHAPE, soc=soc).stdout
    assert om.read_om(folder / "out/model.om")["soc_version"] == words.split()[-1]


OLD = "--op_select_implmode=high_performance --optypelist_for_implmode=Gelu"


@pytest.mark.parametrize(("version", "soc", "flag"), [
    ("8.5.0", "Ascend310P3", "--op_precision_mode=op_precision.ini"),
    ("7.0.0", "Ascend310P3", OLD), ("6.0.RC1", "Ascend310", OLD), (None, "Ascend310P3", OLD),
])  # fmt: skip
def test_implmode_is_spelt_for_the_version_found(folder, version, soc, flag):
    got = run(folder, SHAPE, soc=soc, before=["--implmode", "Gelu=high_performance"], **toolkit(folder, version))
    assert got.returncode == 0, got.stderr
    assert flag in got.stdout and f"CANN {version or '(version unknown)'}" in got.stdout
    assert flag in om.read_om(folder / "out/model.om")["atc_cmdline"]


def test_soc_is_held_against_the_list_of_the_cann_found(folder):
    env = toolkit(folder, "9.0.0", ["Ascend310P1", "Ascend310P3", "Ascend910B3"])
    assert run(folder, SHAPE, **env).returncode == 0
    unknown = ("Ascend310 is unknown to CANN 9.0.0", "plain 310 left CANN", "it knows Ascend310P1, Ascend310P3")
    fails(run(folder, SHAPE, soc="Ascend310", **env), *unknown)
    assert not (folder / "out/model.om").exists()


def test_version_files():
    cfg = "# version: 1.0\ntoolkit_running_version=[1.84.15.1.310:6.0.1]\n"
    assert trip.version_of(cfg) == "6.0.1"
    assert trip.version_of("Version=7.6.0.1.220\nversion_dir=8.0.0\n") == "8.0.0"
    assert trip.version_of("Version=7.6.0.1.220\nversion=8.1.RC1\n") == "8.1.RC1"
    assert trip.version_of("package_name=x") is None
    assert trip.number("8.0.RC1") == (8, 0)
    assert trip.number(None) == ()


@pytest.mark.parametrize(("flags", "fault", "says"), [
    ([], "", ("E10001", "name every input")),
    ([*GEARS[:2], "--dynamic_dims=8,8"], "", ("E10035", "2 to 100 gears")),
    ([SHAPE, "--nosuch=1"], "", ("unknown command line flag 'nosuch'", "drop it")),
    ([SHAPE], "foreign_onnx", ("E13005", "rebuild it")),
    ([SHAPE], "no_success_line", ("without 'ATC run success'",)),
    ([SHAPE], "crash", ("atc failed (exit -6)",)),
    ([SHAPE], "truncated_om", ("cut off",)),
    ([SHAPE], "wrong_soc", ("soc_version is Ascend910B",)),
])  # fmt: skip
def test_what_fails_or_only_says_success_leaves_one_line(folder, flags, fault, says):
    (folder / "out").mkdir()
    (folder / "out/model.om").write_text("of an earlier run")
    if fault == "foreign_onnx":
        (folder / "m.onnx").write_bytes(b"not onnx")
    fails(run(folder, *flags, FAKE_ATC_FAULT=fault), *says)
    assert list((folder / "out").iterdir()) == []


def test_nothing_found(folder):
    places = ("PATH", "/nowhere", "/usr/local/Ascend/cann", f"{folder}/Ascend/cann", "hiascend.com", "ATC=docker")
    fails(run(folder, SHAPE, PATH=BARE, HOME=str(folder), ASCEND_HOME_PATH="/nowhere"), *places)


FAKE_DOCKER = """#!/usr/bin/env python3
import os, sys
open(os.environ["DOCKER_LOG"], "a").write("\\n".join(sys.argv[1:]) + "\\n--end--\\n")
at = next(i for i, w in enumerate(sys.argv) if "@sha256:" in w)
os.chdir(next(w for w in sys.argv if w.startswith("--volume=")).split("=")[1].split(":")[0])
rest = [w.replace("/usr/local/Ascend/cann", os.environ["FAKE_ROOT"]) for w in sys.argv[at + 1:]]
os.execvp(rest[0], rest)
"""


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_in_a_container(folder, engine):
    env = toolkit(folder, "8.5.0")
    lay(folder, {f"bin/{engine}": FAKE_DOCKER})
    env = {"PATH": f"{folder}/bin:{BARE}", "FAKE_ROOT": env["ASCEND_HOME_PATH"], "DOCKER_LOG": f"{folder}/log"}
    got = run(folder, SHAPE, before=["--atc", engine, "--image", IMAGE], **env)
    assert got.returncode == 0, got.stderr
    assert (folder / "out/model.om").is_file()
    for call in (folder / "log").read_text().split("--end--\n")[:-1]:
        words = call.splitlines()
        (volume,) = (w for w in words if w.startswith("--volume="))
        assert volume.startswith(f"--volume={folder}/out/.atc-")
        assert {"--network=none", f"--user={os.getuid()}:{os.getgid()}", IMAGE} <= set(words)


@pytest.mark.parametrize("image", [(), ("--image", "ascendai/cann:8.5.0"), ("--image", "x@sha256:12")])
def test_container_image_must_be_pinned(folder, image):
    (folder / "bin").mkdir()
    (folder / "bin/docker").symlink_to("/bin/true")
    got = run(folder, SHAPE, before=["--atc", "docker", *image], PATH=f"{folder}/bin:{os.environ['PATH']}")
    fails(got, "pin it by digest")


BLOCK = "ATC start working now\n...\nATC run failed, Please check the detail log\n{}\n        TraceBack (most recent call last):\n"
AT = "[PID: 7] 2025-07-08-10:25:28.680.962 "
# Texts as atc printed them for others (public repositories and issues), or of its own list of codes.
SAID = (
    (f"E10007: {AT}[--framework] is required.", ("E10007: [--framework] is required", "parameter is missing")),
    ("E10016: Op name ids specified in --input_shape is not found in the model.", ("must be the ONNX inputs",)),
    ("E10036: It has 101 profiles.", ("2 to 100",)),
    *((f"{code}: It is so.", ("name every input",)) for code in ("E10002", "E10011", "E10049")),
    *((f"{code}: It is so.", ("one number per -1",)) for code in ("E10037", "E10039", "E10040", "E10045", "E10046")),
    (f"EC0010: {AT}Failed to import Python module [ModuleNotFoundError: No module named 'decorator'.].\n        Solution:"
     " Check that all required components are properly installed", ("EC0010: Failed to import", "decorator sympy")),
    (f"EC0010: {AT}Failed to import.\nModuleNotFoundError: No module named 'attrs'", ("module of CANN's compiler is missing",)),
    (f"EC0010: {AT}Failed to import te_fusion.\nAttributeError: `np.float_` was removed",
     ("EC0010: Failed to import", "whose NumPy is too new")),
    ("EZ3003: No supported Ops kernel and engine are found for [AddDsl], optype [AddDsl].\n        Possible Cause: The"
     " operator is not supported by the system.", ("EZ3003: No supported", "ops package")),
    ("/usr/local/Ascend/ascend-toolkit/8.0.0/x86_64-linux/bin/atc.bin: error while loading shared libraries:"
     " libascend_hal.so: cannot open shared object file: No such file or directory", ("libascend_hal.so", "devlib")),
    *((f"{code}: {AT}It is so.", (f"{code}: It", hint)) for code, hint in (
        ("E40000", "Python module"), ("E40021", "operator compiler failed"), ("E20001", "operator compiler failed"),
        ("E10410", "can be read"), ("E10501", "opset 11"), ("E16002", "opset 11"), ("E19010", "opset 11"))),
    (f"EZ9999: Inner Error!\nEZ9999: {AT}Build op fail.", ("EZ9999: Build op fail", "plog")),
    ("E19999: Inner Error!\nE19999  Call InferShape for node:a failed[FUNC:x]", ("E19999: Call InferShape",)),
    ("E77777: A new thing.\n        Solution: Do that.", ("E77777: A new thing", "Do that.")),
    ("E77777: A new thing.\n        Solution: N/A", ("E77777: A new thing", "see its output above")),
)  # fmt: skip


@pytest.mark.parametrize(("text", "words"), SAID)
def test_the_line_that_says_what(text, words):
    line = atc.failure(BLOCK.format(text), 255)
    assert "\n" not in line and "PID" not in line and all(w in line for w in words), line
    for status in (137, -9):
        assert all(w in atc.failure(text, status) for w in (f"exit {status}", "want of memory"))


@pytest.mark.parametrize(("words", "complaint"), [
    (["model=x"], "atc's options are written"),
    (["--model=x", "--model=y"], "each once"),
    (["--model=x", "--output"], "'--output': atc's options"),
    (["--model=x", "--output=y"], "--soc_version is missing"),
])  # fmt: skip
def test_flags_are_read_strictly(words, complaint):
    refused(complaint, atc.parse_flags, words)
    assert atc.parse_flags(["--model=x", "--output=y=z", "--soc_version=a"])["output"] == "y=z"
    # An .om is held to what its flags fix.

    assert atc.facts_of({"input_shape": "a:-1,64", "dynamic_batch_size": "1,4"}) == {"inputs": {"a": [-1, 64]}}
    assert atc.facts_of({"input_shape": "a:1~4,64"}) == {"gears": None}


@pytest.mark.parametrize("name", ["atc", "trtexec", "npu-smi"])
def test_stand_ins_refuse_to_run_outside_tests(name):
    env = tiny.environment(BERT2OM_TEST_STANDIN=None)
    fails(subprocess.run([tiny.HERE / "bin" / name], env=env, capture_output=True, text=True), "stand-in")


def test_shell_pieces_pass_shellcheck():
    for piece in (trip.FIND, trip.RUN):
        command = ["shellcheck", "--shell=bash", "--exclude=SC1090", "-"]
        got = subprocess.run(command, input=piece, env=tiny.environment(), capture_output=True, text=True, check=False)
        assert got.returncode == 0, got.stdout


def test_cann_compiles_without_our_environment(folder):
    """Our NumPy 2 is none that CANN's compiler can import; what set_env.sh adds stays."""
    env = toolkit(folder, "8.5.0")
    (folder / "my cann/latest/bin/atc").unlink()
    lay(folder, {"my cann/latest/bin/atc": "#!/bin/sh\necho PATH=$PATH PYTHONPATH=$PYTHONPATH\nexit 1\n"})
    with (folder / "my cann/set_env.sh").open("a") as f:
        f.write("export PYTHONPATH=/cann:$PYTHONPATH\n")
    venv = Path(sys.executable).parents[1]
    got = run(folder, SHAPE, **env | {"VIRTUAL_ENV": str(venv), "PATH": f"{venv}/bin:/usr/bin:/bin"})
    assert "PATH=/usr/bin:/bin PYTHONPATH=/cann:\n" in got.stdout
