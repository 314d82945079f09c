"""A kit's whole trip: made here, run in another folder by the oldest Python here of nothing but the standard library, in
no environment and without a network, with the stand-ins for CANN as each year has them, its result judged here.

BERT2OM_DEBIAN=FOLDER makes the trip in a chroot of Debian 11 and its Python 3.9, too; as root:

    debootstrap --variant=minbase --include=python3 bullseye FOLDER && BERT2OM_DEBIAN=FOLDER make test
"""

import ast
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT, VENV, fails, lay, refused
from fake_cann import tiny

from tools.make import cli
from tools.results import kit, record, table

WORDS = ("MODEL=tiny", "CHIP=310P3", "BATCHES=8")
NAME = "tiny/default/seq64/bs8/310P3-atc-fp16"
CELL = "cells/tiny.default.seq64.bs8.310P3-atc-fp16"
HERE = "build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32/accuracy.json"
# The oldest Python here that the script is for, pyenv's among them.
OLDER = [p for minor in range(7, 11) for name in [f"python3.{minor}"] for p in (
    shutil.which(name), *map(str, Path(sys.base_prefix).parent.glob(f"3.{minor}.*/bin/{name}"))) if p]  # fmt: skip
OLD = [*OLDER, sys.executable][0]
PATH = f"{tiny.HERE}/bin:{VENV}/bin:/usr/bin:/bin"
ALONE = ["unshare", "-rn"]
if not shutil.which("unshare") or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
    ALONE = []


@pytest.fixture(scope="module")
def away(built, tmp_path_factory):
    """The repository with a kit in it, and the unpacked kit on a host that has the stand-ins alone."""
    for om in built.path.glob("build/tiny/*/*/*/*/model.om*"):  # another test's, which would go with it
        om.unlink()
    built.make("kit", *WORDS)
    host = tmp_path_factory.mktemp("host")
    unpacked(built.path / "build/kit-310P3.tar", host)
    lay(host, {"bench-python": f'#!/bin/sh\nPYTHONPATH={tiny.HERE}:{ROOT} exec {VENV}/bin/python "$@"\n'})
    return built, host / "kit"


def trip(folder, *words, year=2025, **env):
    """run.py there: no site, no environment of ours, no network; its output. The result file."""
    clean = {"BERT2OM_TEST_STANDIN": "1", "FAKE_AIS_BENCH": str(year), "PATH": PATH} | env
    python = [OLD, "-I", "-S", "run.py", "--python", folder.parent / "bench-python", "--rounds", "2", *words]
    return subprocess.run([*ALONE, *python], cwd=folder, env=clean, capture_output=True, text=True, timeout=600)


def judged(built, path, monkeypatch):
    """What is made of a result file, or of the one in a kit's folder."""
    monkeypatch.chdir(built.path)
    return kit.judge_result(next(path.glob("result-*.tar")) if path.is_dir() else path)


# Of the standard library since Python 3.8, as attributes and as names of arguments, as far as such a script may want them.
NEWER = """removeprefix removesuffix bit_count is_relative_to with_stem hardlink_to cached_property cache prod isqrt perm
    comb lcm fmean quantiles pairwise batched file_digest randbytes strict missing_ok dirs_exist_ok filter root_dir umask
    ignore_cleanup_errors process_group exit_on_error graphlib zoneinfo tomllib shlex""".split()  # noqa: SIM905


def test_the_script_is_of_an_old_pythons_standard_library():
    nodes = list(ast.walk(ast.parse((ROOT / "tools/base/trip.py").read_text(), feature_version=(3, 7))))
    names = {n.name.split(".")[0] for i in nodes if isinstance(i, ast.Import) for n in i.names}
    names |= {i.module.split(".")[0] for i in nodes if isinstance(i, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names
    names |= {i.attr for i in nodes if isinstance(i, ast.Attribute)}
    names |= {i.arg for i in nodes if isinstance(i, ast.keyword)}
    assert not names.intersection(NEWER)
    typed = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
    types = [i for node in filter(None, typed) for i in ast.walk(node)]
    unions = [i.lineno for i in nodes if isinstance(i, ast.BinOp) and isinstance(i.op, ast.BitOr) and i not in types]
    assert not unions  # of dictionaries: 3.9


def test_the_same_kit_every_time(away, tmp_path):
    built, _ = away
    first = cli.sha256(built.path / "build/kit-310P3.tar")
    (built.path / "build/kit-310P3.tar").unlink()
    built.make("kit", *WORDS)
    assert cli.sha256(built.path / "build/kit-310P3.tar") == first
    names = [c["name"].split("/")[2] for c in json.loads((away[1] / "kit.json").read_text())["cells"]]
    assert names == ["seq64", "seq32-64", "seq64p"]


DEBIAN = os.environ.get("BERT2OM_DEBIAN", "")
NO_DEBIAN = pytest.mark.skipif(not DEBIAN, reason="BERT2OM_DEBIAN= names no folder: see above")
# In there nothing of this machine is on PATH: the stand-ins are called through its root, which lies under /host.
ENTER = """
mkdir -p $ROOT/host $ROOT$PLACE
mount --rbind / $ROOT/host; mount --rbind /dev $ROOT/dev; mount --bind $PLACE $ROOT$PLACE
cd $ROOT; exec chroot . /bin/sh -c 'cd "$0" && exec "$@"' "$@"
"""
BACK = """#!/bin/sh
exec chroot /host /bin/sh -c 'cd "$0" && PATH={path} PYTHONPATH={python} exec "$@"' "$PWD" {command} "$@"
"""


def in_debian(folder, *words, year=2025):
    place = folder.parent
    commands = {"atc": tiny.HERE / "bin/atc", "npu-smi": tiny.HERE / "bin/npu-smi", "python3.8": VENV / "bin/python"}
    for name, command in commands.items():
        lay(place / "bin", {name: BACK.format(path=PATH, python=f"{tiny.HERE}:{ROOT}", command=command)})
    env = {"PATH": f"{place}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": DEBIAN, "PLACE": str(place),
           "BERT2OM_TEST_STANDIN": "1", "FAKE_AIS_BENCH": str(year)}  # fmt: skip
    python = ["python3", "-I", "-S", "run.py", "--rounds", "2", *words]
    command = ["unshare", "-rmn", "sh", "-euc", ENTER, "sh", folder, *python]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("go", [trip, pytest.param(in_debian, marks=NO_DEBIAN)])
@pytest.mark.parametrize("year", [2023, 2024, 2026])
def test_the_other_years(away, year, go, monkeypatch):
    """Buckets: whole batches, files as NumPy's and modes of both kinds."""
    built, folder = away
    shutil.rmtree(folder / "result", ignore_errors=True)
    done = go(folder, "--only", "seq32-64/", "--rounds", "1", year=year)
    assert done.returncode == 0 and " 0 rows differ" in done.stdout, done.stdout + done.stderr
    assert [r["kind"] for r in judged(built, folder, monkeypatch)[0]] == ["accuracy", "throughput"]


@pytest.mark.parametrize("go", [trip, pytest.param(in_debian, marks=NO_DEBIAN)])
def test_there_and_back(away, go, monkeypatch, tmp_path):
    built, folder = away
    shutil.rmtree(folder / "result", ignore_errors=True)
    done = go(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 rows differ") == 3 and "3 cells, 0 failed" in done.stdout
    results, failures = judged(built, folder, monkeypatch)
    assert failures == [] and [r["kind"] for r in results] == ["accuracy", "throughput"] * 3
    here = cli.read_json(built.path / HERE)
    for r in results[::2]:
        assert r["predictions"] == here["predictions"] and r["correct"] == here["correct"]
    assert results[5]["seq"] == "64p" and results[5]["engine_info"]["sentences_per_row"] > 1
    assert len(results[1]["engine_info"]["rounds"]) == 2 and results[1]["rounds"] == [results[1]["samples_per_second"]]
    said = {"npu": "310P3", "npu_driver": "0.0.0", "npu_firmware": "0.0.0", "soc_version": "Ascend310P3"}
    assert (said | {"kit": cli.sha256(folder / "kit.json")}).items() <= results[1]["engine_info"].items()
    refused("stand-in tools; such a record is never promoted", record.promote, tmp_path, results[0], folder)
    assert results[0]["caveat"] == "seeded weights: not the model's accuracy"
    real = [r | {"standin": False} | ({"caveat": None} if "caveat" in r else {}) for r in results]  # as of a card
    paths = [record.promote(tmp_path, r, folder) for r in real]
    assert len(set(paths)) == 6
    rows = table.frame([cli.read_json(p) for p in paths]).to_dict("records")
    cells = [(r["seq"], r["figure"], r["samples_per_s"] > 0, r["correct"]) for r in rows]
    assert cells == [(seq, "imported", True, here["correct"]) for seq in ("32-64", "64", "64p")]


def test_it_goes_on_after_a_failure_and_where_it_was(away, monkeypatch):
    built, folder = away
    shutil.rmtree(folder / "result")
    only, cell = ("--only", "seq64/"), folder / "result" / CELL / "cell.json"
    done = trip(folder, *only, FAKE_ATC_FAULT="crash")
    assert done.returncode == 1 and "FAILED: atc failed (exit -6)" in done.stdout and "1 cells, 1 failed" in done.stdout
    assert judged(built, folder, monkeypatch)[1][0].startswith(f"{NAME} failed there")
    assert trip(folder, *only).returncode == 0
    before = cell.stat().st_mtime_ns
    assert trip(folder, *only).returncode == 0
    assert cell.stat().st_mtime_ns == before


def test_what_was_stopped_or_is_of_another_kit_is_not_brought_home(away, monkeypatch):
    built, folder = away
    lay(folder / "result/cells", {"stopped/cell.json.part": "", "older/cell.json": '{"kit": "1"}'})
    assert trip(folder, "--only", "seq64/").returncode == 0
    assert judged(built, folder, monkeypatch)[1] == []
    (folder / "result").rename(folder / "away")
    (folder / "result").touch()
    fails(trip(folder, "--only", "seq64/"), "run.py: error: [Errno")
    (folder / "result").unlink()
    (folder / "away").rename(folder / "result")


def test_the_wrong_card_and_no_ais_bench_are_said(away):
    folder = away[1]
    clean = {"BERT2OM_TEST_STANDIN": "1", "PATH": PATH, "FAKE_NPU": "910B4"}
    words = [OLD, "kit/run.py", "--python", "./bench-python"]  # as seen from where it was started
    done = subprocess.run(words, cwd=folder.parent, env=clean, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "a kit for 310P3, npu-smi says 910B4: make kit CHIP=910B4" in done.stderr
    assert "invalid int value: '0,1'" in trip(folder, "--device", "0,1").stderr
    for words in (("--rounds", "0"), ("--device", "-1")):
        assert "--rounds is 1 or more, --device 0 or more" in trip(folder, *words).stderr
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run.py works in this folder" in trip(folder).stderr
    fails(trip(folder, "--python", "/usr/bin/python3"), "has ais_bench and aclruntime; say --python")


def edited(folder, change):
    """A copy of the result of one cell after `change`, as a result file."""
    copy = folder.parent / "edited"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "result" / CELL, copy / "result" / CELL)
    shutil.copy(folder / "result/result.json", copy / "result")
    change(copy / "result" / CELL, copy / "result")
    return packed(copy / "result", copy / "r.tar")


def packed(folder, path):
    with tarfile.open(path, "w") as tar:
        tar.add(folder, "result")
    return path


# Changes of the bytes, or of the JSON, in a file of the cell.
raw = lambda name, edit: lambda cell, _: (cell / name).write_bytes(edit((cell / name).read_bytes()))
fields = lambda name, edit: raw(name, lambda text: json.dumps(edit(json.loads(text))).encode())
changed = lambda **new: fields("cell.json", lambda told: told | new)
used = lambda key: fields("cell.json", lambda told: told | {"used": told["used"] | {key: "0" * 64}})
timed_with = lambda *words: fields("round1/out_summary.json", lambda s: s | {"args": [*s["args"], *words]})
head = lambda old, new: raw("om_head.bin", lambda text: text.replace(old, new))
flip = raw("output/out/1_0.bin", lambda logits: logits[4:] + logits[:4])
no_logits = raw("output/out/1_0.bin", lambda _: b"\0\0\xc0\x7f" * 2)  # NaN
faster = fields("round1/out_summary.json", lambda s: s | {"throughput": 1e6})


@pytest.mark.parametrize(("change", "said"), [
    (changed(kit="0" * 64), f"{NAME}: of kit 000000000000, the others of .*: results are mixed"),
    (changed(cell="tiny/other"), "tiny/other: no cell of the kit"),
    (used("graph"), f"{NAME}: its graph was not the kit's there"),
    (used("input"), f"{NAME}: its input was not the kit's there"),
    (used("run.py"), f"{NAME}: its run.py was not the kit's there"),
    (flip, f"{NAME}: .* its outputs give .*: edited?"),
    (no_logits, f"{NAME}: no logits of 1"),
    (faster, "throughput is not 1000|its summaries are gone, or of another batch size"),
    (timed_with("--profiler", "1"), f"{NAME}/round1/out_summary.json: timed with --profiler"),
    (timed_with("--warmup_count", "0"), "timed with no warm-up"),
    (timed_with("--run_mode", "full"), "timed with --run_mode=full"),
    (head(b"--soc_version=Ascend310P3", b"--soc_version=Ascend310P1"), "compiled without '--soc_version=Ascend310P3'"),
    (head(b"\x0bAscend310P3", b"\x0bAscend310P1"), "soc_version is Ascend310P1, asked for was Ascend310P3"),
    (head(b"IMOD", b"XMOD"), f"{NAME}: its om_head.bin: not an .om file"),
    (lambda cell, _: (cell / "om_head.bin").unlink(), "left no om_head.bin"),
    (lambda cell, _: (cell / "cell.json").write_text('{"kit": 1}'), "results are mixed"),
    (changed(correct=None), f"{NAME}: None right, its outputs give"),
    (changed(used=None), "not as run.py writes it"),
    (lambda cell, _: shutil.rmtree(cell / "round1"), None),
    (lambda _, top: (top / "result.json").write_text("{}"), "not as run.py writes it"),
    (lambda _, top: (top / "result.json").unlink(), "no result/result.json"),
    (lambda _, top: (top / "result.json").write_text(json.dumps({"kit": "1" * 64, "machine": {}})), "no build/kit-.*tar is"),
])  # fmt: skip
def test_what_the_kit_does_not_hold_is_refused_by_name(away, change, said, monkeypatch):
    built, folder = away
    if not (folder / "result" / CELL / "round1").is_dir():
        assert trip(folder, "--only", "seq64/").returncode == 0
    path = edited(folder, change)
    if said is None:
        assert len(judged(built, path, monkeypatch)[0][1]["engine_info"]["rounds"]) == 1
    else:
        refused(said, judged, built, path, monkeypatch)


def test_what_is_no_result_file_is_named_in_one_line(tmp_path):
    (tmp_path / "text").write_text("no tar")
    os.mkfifo(tmp_path / "pipe")
    says = {"text": "truncated header; is it the whole", "pipe": "a pipe or a device"}
    for name, place in {"up": "../out", "top": "/out", "link": "a"}.items():
        says[name] = f"'{place}' is no plain file in it"
        with tarfile.open(tmp_path / name, "w") as tar:
            member = tarfile.TarInfo(place)
            member.type = tarfile.SYMTYPE if name == "link" else tarfile.REGTYPE
            tar.addfile(member)
    for name in says:
        refused(rf"^\S*{name}: {says[name]}", kit.unpack, tmp_path / name, tmp_path / "out")


def test_a_kit_that_is_cut_off_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"build/kit-310P3.tar": "cut"})
    refused("the result is of kit 111111111111, and no build/kit-.*tar is", kit.kit_of, "1" * 64)


def test_a_full_disk_is_no_fault_of_the_result_file(tmp_path, monkeypatch):
    def write_bytes(path, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"No space left on device: '\S*/result'"):
        kit.unpack(packed(Path(__file__), tmp_path / "r.tar"), tmp_path / "out")


def unpacked(path, folder):
    subprocess.run(["tar", "-xf", path, "-C", folder], check=True)
    return folder / "kit"


def test_a_kit_with_om_files_needs_no_atc(away, tmp_path, monkeypatch):
    built, folder = away
    words = ("MODEL=tiny", "CHIP=310P3", "SEQ=64")
    built.make(*words, "BS=8", "om", env=tiny.environment())
    built.make("kit", *words, "BATCHES=8", "-W", "tools/ascend/atc.py")  # an .om older than that needs no atc either
    shutil.copy(folder.parent / "bench-python", tmp_path)
    before = os.umask(0)
    other = unpacked(built.path / "build/kit-310P3.tar", tmp_path)
    done = trip(other, FAKE_ATC_FAULT="crash")
    os.umask(before)
    assert done.returncode == 0, done.stdout
    results, _ = judged(built, other, monkeypatch)
    assert results[0]["engine_info"]["om_sha256"] == cli.sha256(built.path / f"build/{NAME}/model.om")


def test_a_t4(built, tmp_path, monkeypatch):
    """Accuracy by trtexec's --loadInputs, int32 in TensorRT 8, and --exportOutput; speed as make has it."""
    built.make("kit", "MODEL=tiny", "CHIP=T4", "PRECISION=fp32", "BATCHES=200")
    folder = unpacked(built.path / "build/kit-T4.tar", tmp_path)
    lay(tmp_path, {"bin/nvidia-smi": "#!/bin/sh\necho 'Tesla T4, 535.104\n'\n"})
    assert "choose the GPU by CUDA_VISIBLE_DEVICES" in trip(folder, "--device", "1").stderr
    for version, rounds in (("8503", "1"), ("110100", "1"), ("101303", "2")):
        shutil.rmtree(folder / "result", ignore_errors=True)
        done = trip(folder, "--rounds", rounds, FAKE_TENSORRT=version, PATH=f"{tmp_path}/bin:{PATH}")
        assert done.returncode == 0 and " 0 rows differ" in done.stdout, done.stdout + done.stderr
    (accuracy, speed), failures = judged(built, folder, monkeypatch)
    assert failures == [] and (speed["chip"], speed["engine_info"]["tensorrt"]) == ("T4", "10.13.3")
    assert (speed["engine_info"]["gpu"], speed["engine_info"]["gpu_driver"]) == ("Tesla T4", "535.104")
    assert len(speed["engine_info"]["rounds"]) == 2 and speed["timed"].startswith("device compute only")
    assert accuracy["predictions"] == cli.read_json(built.path / HERE)["predictions"]
    [log] = folder.glob("result/cells/*/time1.log")
    log.write_text(log.read_text().replace("Tesla T4", "NVIDIA A10"))
    path = packed(folder / "result", tmp_path / "r.tar")
    refused("time1.log: a kit for T4, which ran on NVIDIA A10", judged, built, path, monkeypatch)
