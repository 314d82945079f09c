"""A disk that is full or read-only, at every stage: one clear line, no half artefact, and success on the next try."""

import contextlib
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import openvino
import pytest
import small
from conftest import ROOT, Repo, edit_json, lay

from tools.base import input_files, onnxfile
from tools.cpu import engines, runner
from tools.make import cli, cpu, run
from tools.source import checkpoint

LEAF = "build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32"
TABLE = "results/local/accuracy-table.csv"
# One of each kind of writer, from the end to the beginning: what a stage is made from is there when it fails.
STAGES = [
    TABLE,
    *(f"{LEAF}/{name}" for name in ("score.json", "output/MANIFEST", "model.onnx")),
    *(f"build/tiny/default/{name}" for name in ("seq64/input/MANIFEST", "model.onnx")),
    "build/tiny/default/checkpoint/MANIFEST",
    "build/data/dev.tsv",
]
ROWS = ["BATCHES=8", "PRECISIONS=fp32"]  # of the table
GOALS = ["accuracy", "accuracy-table"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory, first_built):
    repo = Repo(tmp_path_factory.mktemp("faults"), first_built)
    repo.make("MODEL=tiny", *ROWS, *GOALS)
    repo.want = {name: cli.sha256(repo.path / name) for name in STAGES}
    return repo


def make(repo, *words, within=()):
    rows = ROWS if any("table" in word for word in words) else []
    return repo.make("MODEL=tiny", *words, *rows, check=False, within=within)


def stray(repo) -> list[str]:
    tops = (repo.path / top for top in ("build", "results"))
    return [str(p) for top in tops for p in top.rglob("*") if p.name.startswith(".") or p.name.endswith(".tmp")]


def failed_plainly(done, stage, why):
    assert done.returncode == 2, done.stdout
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "Traceback" not in done.stderr and re.search(why, done.stderr), done.stderr
    assert len(errors) <= 2 and stage in errors[-1], done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_no_room_for_half_of_it(repo, stage):
    """RLIMIT_FSIZE needs no root, and stops a write in the middle as a full disk does."""
    path = repo.path / stage
    files = [p for p in path.parent.rglob("*") if p.is_file()] if path.name == "MANIFEST" else [path]
    limit = max(p.stat().st_size for p in files) // 2
    path.unlink()
    done = make(repo, stage, within=["prlimit", f"--fsize={limit}"])
    failed_plainly(done, stage, r"File too large|No space left|is there room")
    assert not path.exists() and stray(repo) == []


def test_and_with_room_it_is_as_before(repo):
    for stage in STAGES:
        (repo.path / stage).unlink(missing_ok=True)
    repo.make("MODEL=tiny", *ROWS, *GOALS)
    now = {name: cli.sha256(repo.path / name) for name in STAGES}
    assert [name for name in STAGES if now[name] != repo.want[name]] in ([], [TABLE])  # which says when it was made


def test_a_read_only_build_folder(repo):
    """As root a mode stops nobody, so the folder is mounted read-only, by a command with mounts of its own."""
    command = ["unshare", "-rm", "bash", "-euc"]
    permitted = lambda: subprocess.run([*command, "mount -t tmpfs t /mnt"], capture_output=True).returncode == 0
    if not shutil.which("unshare") or not permitted():
        pytest.skip("this system permits no mount to an ordinary user (unshare -rm)")
    for stage in (f"{LEAF}/score.json", "build/data/dev.tsv"):
        (repo.path / stage).rename(repo.path / "kept")
        script = 'mount --bind build build; mount -o remount,ro,bind build; exec "$@"'
        done = make(repo, stage, within=[*command, script, "bash"])
        (repo.path / "kept").rename(repo.path / stage)
        failed_plainly(done, stage.rsplit("/", 1)[0], "Read-only file system")
    assert make(repo, *GOALS).returncode == 0


def test_killed_before_it_had_cleared_up(repo):
    """The artefact is in place, its temporary folder not yet gone: make has to see that it is not done."""
    (repo.path / LEAF / f".score.json.abc{run.BOX}").mkdir()
    os.utime(repo.path / LEAF / "score.json", (0, 0))
    assert make(repo, *GOALS).returncode == 0
    assert stray(repo) == []


def test_modes_are_those_that_ais_bench_takes(repo):
    top = repo.path / "build/tiny/seeded2"
    for umask in ("000", "077"):
        shutil.rmtree(top, ignore_errors=True)
        done = make(repo, "WEIGHTS=seeded", "build/tiny/seeded2/checkpoint/MANIFEST",
                    within=["bash", "-c", f'umask {umask}; exec "$@"', "bash"])  # fmt: skip
        assert done.returncode == 0, done.stderr
        modes = {(p.is_dir(), oct(p.stat().st_mode & 0o777)) for p in (top, *top.rglob("*")) if p.name != "source"}
        assert modes == {(True, "0o755"), (False, "0o644")}


def test_a_file_where_the_folder_should_be(repo):
    path = repo.path / "build/tiny"
    other = path.rename(repo.path / "build/other")
    path.write_text("")
    done = make(repo, "accuracy")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "tiny" in done.stderr
    path.unlink()
    other.rename(path)
    assert make(repo, "accuracy").returncode == 0


@pytest.mark.parametrize("writer", ["buckets", "runner", "openvino", "unzip"])
def test_no_room_for_a_file_that_a_library_writes(tmp_path, monkeypatch, writer):
    """np.save into a file says `[Errno None] None` of a full disk, OpenVINO `basic_ios::clear: iostream error`."""
    graph = openvino.Core().read_model(small.sums(tmp_path / "sums.onnx"))
    with zipfile.ZipFile(zipped := tmp_path / "a.zip", "w") as z:
        z.writestr("vocab.txt", bytes(3000))
    monkeypatch.setattr(engines.tempfile, "tempdir", "/nowhere")  # TMPDIR may be too small
    mask = {"attention_mask": np.ones((2, 64), int)}
    write = {
        "buckets": lambda: input_files.write_buckets(tmp_path, mask, "01", [64], 2),
        "runner": lambda: runner.write_output(tmp_path, "1", 0, np.ones((8, 64)), "NPY"),
        "openvino": lambda: engines.write_ir(graph, tmp_path / "model.ir", "fp32", []),
        "unzip": lambda: checkpoint.make(str(zipped), ROOT / "models/minilm_sst2", None, tmp_path / "no/npy"),
    }[writer]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises((OSError, cli.UserError), match="File too large.*npy|model.ir: OpenVINO cannot.*disk full"):
            write()
        assert not list(tmp_path.glob(".*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def in_a_terminal(folder, *words, until="here"):
    """Run a command of this project in a terminal and press Ctrl-C once it has made the file `until`: (status, output)."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test that runs in the background ignores it
        os.execv(sys.executable, [sys.executable, *words])
    while not (folder / until).exists():
        time.sleep(0.02)
    os.write(terminal, b"\x03")
    output = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while piece := os.read(terminal, 4096):
            output += piece
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.decode()


def test_ctrl_c_shows_no_traceback(repo):
    """In a step, whose progress bars have room to draw, and while a command still imports its modules."""
    code = "import os,time,sys; open('here','w').write(str(os.get_terminal_size(2).columns)); time.sleep(20)"
    words = ["-m", "tools.make.run", "--step", "slow", "build/slow.txt", "Makefile", "--", sys.executable, "-c", code]
    status, said = in_a_terminal(repo.path, *words)
    assert status == 130 and "Traceback" not in said and not list((repo.path / "build").glob("*slow*")), said
    assert 20 < int((repo.path / "here").read_text()) <= 96
    (repo.path / "here").rename(script := repo.path / "tools/slow.py")
    script.write_text(code)
    status, said = in_a_terminal(repo.path, "-m", "tools.slow")
    script.unlink()
    assert status == -2 and "Traceback" not in said, said


@pytest.mark.parametrize("words", ["-m tools.make.run", "models/tiny/preprocess.py", "-ISs tools/make/__main__.py"])
def test_ctrl_c_in_a_pythons_first_moments_shows_no_traceback(repo, words):
    """Before a line of ours has run: the signal is held back until one has."""
    assert repo.make("-n", "-B", "MODEL=tiny", "data").stdout.count("env --block-signal=INT") > 2

    def pressed():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test that runs in the background ignores it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)

    done = subprocess.run([sys.executable, *words.split()], cwd=repo.path, capture_output=True, preexec_fn=pressed)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_names_that_are_not_utf8(repo):
    """Of what lies in build/, in a checkpoint, beside the records: named, and no traceback."""
    odd = os.fsdecode(b"\xff")
    places = (f"build/{odd}.prov.json", f"models/tiny/{odd}", f"results/records/{odd}.json", f"mine/{odd}", "mine/a")
    lay(repo.path, dict.fromkeys(places, "{}"))
    for goal in ("-n accuracy", "WEIGHTS=mine weights -n accuracy", "report", "audit", "record", "clean"):
        done = make(repo, *goal.split())
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "kept       build/\\udcff.prov.json" in done.stdout + done.stderr
    for name in places[:3]:
        (repo.path / name).unlink()
    path, repo.path = repo.path, repo.path.rename(repo.path.with_name(odd))
    assert "udcff: not UTF-8, which PyTorch cannot export in" in make(repo, "-n", "accuracy").stderr
    repo.path = repo.path.rename(path)


def test_what_another_make_made_is_taken_where_it_is_the_same(tmp_path):
    """Newer than the question, from the same inputs, by the same commands."""
    target, same = tmp_path / "out", (0, {"a": "1"}, [["cp", "a", "{}"]])
    target.touch()
    assert not run.is_done(target, *same)  # nothing says what it was made of
    edit_json(tmp_path / "out.prov.json", inputs=same[1], recipe=run.recipe(same[2]))
    others = (time.time() + 9, *same[1:]), (0, {"a": "2"}, same[2]), (*same[:2], [["cp", "-a", "a", "{}"]])
    assert [run.is_done(target, *asked) for asked in (same, *others)] == [True, False, False, False]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked release, which nobody clones")
def test_a_clone_has_the_bytes_of_the_commit(tmp_path):
    """Whatever core.autocrlf says: Git for Windows sets it, and make in WSL then reads the files."""
    for words in (["clone", "-q", "-c", "core.autocrlf=true", ROOT, "clone"], ["-C", "clone", "ls-files", "--eol"]):
        eol = subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "w/lf" in eol and "crlf" not in eol


def test_a_clone_of_another_user_loses_no_commit_without_a_word(tmp_path, monkeypatch):
    lay(tmp_path, {"git": "#!/bin/sh\necho fatal: detected dubious ownership in repository at x >&2; exit 128\n"})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    state = run.git_state()
    assert (state["commit"], state["dirty"]) == (None, None)
    assert "another user's; git config --global --add safe.directory /" in state["commit_from"]


@pytest.mark.parametrize(("text", "threads"), [("2,1", 2), ("4", 4), (" 8 ", 8), ("", 0), ("all", 0), ("-1", 0)])
def test_threads_of_openmp_may_be_a_list(monkeypatch, tmp_path, text, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    options = onnxfile.session(small.sums(tmp_path / "sums.onnx")).get_session_options()
    assert options.intra_op_num_threads == (threads or cpu.cores())
