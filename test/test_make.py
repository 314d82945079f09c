"""What make says to people: mistyped words, the screen, help, folders that are not ours. It drives the real Makefile."""

import itertools
import json
import os
import re
import subprocess

import pytest
from conftest import VENV, WARM, lay, refused

from tools.checks import reproduce
from tools.make import chips, cli, cpu, stale

LEAF = "tiny/default/seq64/bs8/cpu-onnxruntime-fp32"


@pytest.mark.parametrize(("words", "module", "texts"), [
    ("PRECISION=fp32 SEQ=real CERTIFY=0.5 accuracy", "certify", "--texts build/data/snippets.tsv"),
    ("PRECISION=int8 om", "compile", "--calibration build/data/calibration.tsv"),
])  # fmt: skip
def test_neither_a_certificate_nor_int8_is_of_the_validation_set(built, words, module, texts):
    lines = built.make("-n", "MODEL=tiny", "ENGINE=native", *words.split()).stdout.splitlines()
    made = [line for line in lines if f"-m tools.cpu.{module} " in line and texts.split()[0] in line]
    assert made and all(texts in line and "dev.tsv" not in line for line in made)


def test_no_value_is_expanded_before_it_is_checked(built):
    names = ("V", "PYTHON", "MAKE_VERSION", "RUNNING", "digit", "PARAMETERS", "typed_names", "py", "NOTE")
    built.make(*(f"{name}=$(shell touch pwned)" for name in names), "-n", "help", check=False)
    assert not (built.path / "pwned").exists()


ENVIRONMENT = {
    "MODEL": "other", "BS": "64", "CHIP": "T4", "PRECISION": "bf16", "SEQ": "7", "BATCHES": "x", "SAMPLES": "y",
    "tiny.GATE_ROWS": "3", "compiled.onnxruntime": "x.onnx", "tiny.TASK": "mrpc", "tiny.DATA": "x",
    **dict.fromkeys(("stale", "native_alone", "seeded", "task_option", "task", "user_texts", "leaf_results"), "x"),
    "BASH_ENV": "start", "ENV": "start", "SHELLOPTS": "xtrace", "PYTHONSAFEPATH": "1",
    "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONSTARTUP": "start", "PYTHONHOME": "/nowhere",
}  # fmt: skip


def test_no_variable_of_the_environment_changes_a_command(built):
    """Parameters, names of ours, what starts a shell, what Python takes."""
    (built.path / "start").write_text("echo printed\n")
    words = ("-n", "-B", "MODEL=tiny", "PACK=1", "perf")
    env = {name: str(built.path / "start") if text == "start" else text for name, text in ENVIRONMENT.items()}
    plain, odd = built.make(*words), built.make(*words, env=env)
    # GNU make 4.3 reads a file's last line end too, or not, as its memory happens to lie (mk/shell.mk: says).
    assert (odd.stdout.rstrip(), odd.stderr) == (plain.stdout.rstrip(), plain.stderr)
    assert built.make("-q", "MODEL=tiny", "accuracy", env=env, check=False).returncode == 0
    assert "BS=8" in built.make("help", env=env).stdout


def test_a_closed_stream_is_no_fault(built):
    (built.path / "build" / LEAF / "score.json").unlink()
    command = ["bash", "-c", '"$@" >&- 2>&- <&-', "bash", "make", f"VENV={VENV}", "MODEL=tiny", "accuracy"]
    assert subprocess.run(command, cwd=built.path, check=False).returncode == 0
    assert (built.path / "build" / LEAF / "score.json").is_file()
    done = subprocess.run("make help | true", shell=True, cwd=built.path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr  # who stops reading sees none


def test_two_makes_with_unlike_values_each_make_their_own(built):
    """Started at once: the second waits for the first, and does not take what that made for its own."""
    leaf = built.path / "build" / LEAF
    command = ["make", f"VENV={WARM}", "MODEL=tiny", "build/" + LEAF + "/perf.json"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    runs = [subprocess.Popen([*command, "ROUNDS=2", f"SAMPLES={n}"], cwd=built.path, **quiet) for n in (8, 40)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    # Whoever came last wrote perf.json; both rounds in it are of one value, which prov.json names.
    loops = {json.loads((leaf / f"round{r}/MANIFEST.prov.json").read_text())["recipe"] for r in (1, 2)}
    loops = {re.search(r"--loop (\d+)", text)[1] for text in loops}
    assert loops in ({"5"}, {"9"}), said
    for count in ("8", "40"):  # and each, asked again, has its own
        built.make(*command[2:], "ROUNDS=1", f"SAMPLES={count}")
        assert json.loads((leaf / "perf.json").read_text())["loop"] == int(count) // 8 + 4


def test_a_relative_environment_is_the_same_one_in_a_copy(tmp_path, monkeypatch):
    """`make reproduce` hands VENV=.venv on to makes in clean copies, which must not install it anew."""
    monkeypatch.chdir(tmp_path)
    for name in ("my venv", "copy"):
        (tmp_path / name).mkdir()
    for venv in ("my venv", f"{tmp_path}/my venv", "../other"):  # the last leads out of the tree: no link is made there
        reproduce.link_environment(tmp_path / "copy", ["BS=8", f"VENV={venv}"])
    assert (tmp_path / "copy/my venv").resolve() == tmp_path / "my venv"
    assert [len(list(folder.iterdir())) for folder in (tmp_path, tmp_path / "copy")] == [2, 1]


def test_the_screen_has_a_line_a_step_and_no_temporary_path(built):
    """Of a table, a line says which row it is of."""
    (built.path / "build" / LEAF / "score.json").unlink()
    text = built.make("MODEL=tiny", "accuracy-table", "BATCHES=8", "PRECISIONS=fp32").stdout
    assert re.search(r"^score +tiny bs8 cpu-onnxruntime-fp32: ", text, re.M), text
    (built.path / "build" / LEAF / "score.json").unlink()
    text = built.make("MODEL=tiny", "accuracy").stdout
    steps = re.findall(r"^(\w+) +.* \d+\.\d s$", text, re.M)
    assert steps == ["score", "accuracy", "show"]
    assert ".tmp" not in text and "tools.make.run" not in text
    assert "accuracy" in (built.path / f"build/{LEAF}/score.json.log").read_text()
    assert "tools.make.run" in built.make("MODEL=tiny", "V=1", "-W", "models/tiny/postprocess.py", "accuracy").stdout


def test_an_import_is_a_prerequisite_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    late = "def f():\n    from tools.x import b"
    lay(tmp_path / "tools", {"x/a.py": late, "x/b.py": "from tools import cli", "x/c.py": "", "cli.py": ""})
    texts = stale.variables([], stale.Memory())
    assert texts["needs.tools.x.a"] == "tools/cli.py tools/x/a.py tools/x/b.py"
    assert texts["needs.tools.x.c"] == "tools/x/c.py"


@pytest.mark.parametrize(("date", "other"), [(4, {"b": "a"}), (5, {"b": "a"}), (6, {})])
def test_another_input_is_seen_where_its_date_hides_it(tmp_path, monkeypatch, date, other):
    """Of a newer one make sees it by itself."""
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"a": "a", "b": "b"})
    provs = {"b": {"sha256": cli.sha256("b"), "inputs": {"a": "0" * 64}}}
    assert stale.outdated(provs, {"a": date, "b": 5}, cli.sha256) == other


def test_what_lies_beside_an_artefact_is_made_again_with_it(built):
    for name in ("reference.npy", "reference.npy.prov.json"):
        path = built.path / "build/tiny/default" / name
        path.rename(built.path / "away")
        try:
            assert "tiny/default/model.onnx" in built.remade("MODEL=tiny", "accuracy")
        finally:
            (built.path / "away").rename(path)


def test_what_is_given_is_known_by_its_bytes_and_has_an_end(tmp_path, monkeypatch):
    memory, hashes = stale.Memory(), []
    for text in ("one", "two", "one"):
        lay(tmp_path, {"vocab.txt": text})
        os.utime(tmp_path / "vocab.txt", (1, 1))
        hashes.append(stale.hash_of_path(str(tmp_path), memory.sha256))
    assert hashes[0] == hashes[2] != hashes[1]
    refused("/dev/zero: neither a file nor a folder; copy what it gives", stale.hash_of_path, "/dev/zero")
    monkeypatch.setattr(stale.os, "walk", lambda top: itertools.repeat((top, [], ["vocab.txt"])))  # such as WEIGHTS=/
    refused("holds more than 10000 files; name the folder of one", stale.hash_of_path, str(tmp_path))


@pytest.mark.parametrize("name", ["build/imports.json", "build/data/dev.tsv.prov.json", "build/m/default/source",
                                  "results/local/perf-table.rows", "requirements.txt"])  # fmt: skip
def test_a_pipe_in_place_of_what_make_reads_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, dict.fromkeys(("venv/installed", "venv/bin/python", name), ""))
    (tmp_path / name).unlink()
    os.mkfifo(name)
    read = lambda: stale.variables([["venv/installed", "requirements.txt"]], stale.Memory())
    refused(f"^{name}: a pipe or a device", read)


def test_unlike_weights_lie_in_unlike_folders(built):
    """Whose names atc and ais_bench take: both refuse paths with other characters than these; WEIGHTS= may hold more."""
    folders = set()
    for name in ("x/y", "x_y", "odd,a@b:c=d"):
        lay(built.path / name, {"config.json": "{}"})
        text = built.make("-n", "MODEL=tiny", f"WEIGHTS={name}", "CHIP=310P3", "accuracy").stdout
        (folder,) = set(re.findall(r"build/tiny/([^/\s]+)/", text))
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", folder) and f"--model=build/tiny/{folder}/" in text
        folders.add(folder)
    assert len(folders) == 3


def test_fusion_report_is_of_an_ascend_chip_and_its_own_oms(built):
    asked = lambda *words: built.make("-n", "MODEL=tiny", "fusion-report", *words).stdout.splitlines()[-1]
    assert "--precision fp16 --chip 310P3 --batch_size 1,4,8,16,32,64" in asked()
    assert "--precision mix --chip 310P3 --batch_size 1,4" in asked("PRECISION=mix", "BATCHES=1 4", "BS=4")
    assert "--precision fp16 --chip 910B3,310P3" in asked("CHIPS=Ascend910B3 710")
    om = built.path / "build/tiny/default/seq64/bs4/910B3-atc-mix/model.om"
    lay(om.parent, {om.name: ""})
    assert f"--om {om.relative_to(built.path)}" in asked("CHIPS=310P3 910B3", "PRECISION=mix")
    assert str(om.relative_to(built.path)) not in asked("CHIPS=310P3 910B3")
    om.unlink()
    om.parent.rmdir()


def test_doctor_says_what_each_engine_of_this_cpu_runs_or_needs(built):
    text, flags = built.make("doctor", check=False).stdout, cpu.cpu_flags(limited=False)
    for engine in chips.engines_of("cpu"):
        lines = [line for line in text.splitlines() if f"ENGINE={engine}" in line]
        for precision, ways in chips.ENGINES[engine].precisions.items():
            runs = any(line.startswith("ok") and precision in line for line in lines)
            assert runs == any(way <= flags for way in ways), (engine, precision)
            assert runs or any(line.startswith("missing") and f"{precision} needs" in line for line in lines)
    for precision, engine in re.findall(r"^ok +PRECISION=(\S+) is ENGINE=(\w+): ", text, re.M):
        made = built.make("-n", "MODEL=tiny", "om", f"PRECISION={precision}").stdout
        assert f"cpu-{engine}-{precision}/model" in made
    # A folder called bf16.AVX2 must not hold what other units computed.
    built.refuses("ONEDNN_MAX_CPU_ISA=AVX2 leaves no bf16 unit", "MODEL=tiny", "ISA=AVX2", "PRECISION=bf16", "om")
    assert "cpu-openvino-int8.AVX/" in built.make("-n", "MODEL=tiny", "om", "PRECISION=int8", "ISA=AVX").stdout
    assert "/nowhere: nothing installed yet" in built.make("doctor", "VENV=/nowhere", check=False).stdout
