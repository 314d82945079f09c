"""A published folder: made and checked by make, spoilt in each way that its files can be, and claims that do not follow."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import ROOT, Repo, lay, refused
from fake_cann import tiny

from tools.ascend import ais_bench
from tools.base import trip
from tools.cpu import yardstick
from tools.make import cli, cpu
from tools.publish import card, check, folder
from tools.results import record as records

PYTHON = ROOT / ".venv-publish/bin/python"
pytestmark = pytest.mark.skipif(not (PYTHON.parents[1] / "installed").is_file(), reason="make .venv-publish/installed")
# docs/publish.md's, of two keys
KEYS = """
for key; do openssl ecparam -name prime256v1 -genkey -noout -out $key; openssl ec -in $key -pubout -out $key.pub; done
"""
# What check says of many folders, in one process; whatever makes the answers again is left out.
VERDICTS = """
import json, pathlib, sys
from tools.make import cli
from tools.publish import check, folder
check.check_answers, (key, text_file), told = (lambda *about: None), map(pathlib.Path, sys.argv[1:3]), {}
for place in map(pathlib.Path, sys.argv[3:]):
    signer = place.with_name(place.name + ".signer")
    if signer.exists():
        folder.sign(place, pathlib.Path(signer.read_text()))
    try:
        told[place.name] = check.check(place, key.with_name(key.name + ".pub"), text_file)
    except (cli.UserError, OSError) as e:
        told[place.name] = cli.explanation(e)
print(json.dumps(told))
"""
FILES = """README.md .eval_results/glue.yaml accuracy.json answers.json config.json model.ir model.onnx model.sig
    provenance.intoto.json sbom.cdx.json signer.pem test-result.intoto.json tokenizer.json tokenizer_config.json
    vocab.txt""".split()  # noqa: SIM905
ADDED = ("notes.txt", ".hidden", ".eval_results/other.yaml", "model.safetensors", "onnx/model.onnx", "a\nb")


def hard_copy(source: Path, place: Path) -> Path:
    return Path(shutil.copytree(source, place, copy_function=lambda a, b: Path(b).hardlink_to(a)))


def judged(key: Path, text_file: Path, places) -> dict[str, str]:
    """{name of a folder: what check says of it}."""
    done = subprocess.run([PYTHON, "-c", VERDICTS, key, text_file, *places], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes in a file that has two names: the other name keeps its own."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, data)


ONCE = {
    "flipped": flipped,
    "cut short": lambda path: rewrite(path, path.read_bytes()[:-2]),
    "gone": Path.unlink,
    "renamed": lambda path: path.rename(path.with_name(f"{path.name}.old")),
}
# {how: (name of a file in a folder, what spoils it, what check then says)}
SPOILT = {f"{name} {how}": (name, spoil, name) for name in FILES for how, spoil in ONCE.items()}
SPOILT |= {f"{name} added": (name, lambda path: rewrite(path, b"new"), cli.printable(name)) for name in ADDED}
SPOILT |= {
    "vocab.txt linked": ("vocab.txt", lambda path: path.symlink_to(path.rename(f"{path.parent}.target")), "vocab.txt"),
    "model.sig empty": ("model.sig", lambda path: rewrite(path, b""), "model.sig"),
}


def edited(name: str, pattern: str, other, *also: str):
    """Such an entry, of an edit of a file and of others; check then names the first."""

    def edit(path: Path) -> None:
        for file in (path, *map(path.with_name, also)):
            text, count = re.subn(pattern, other, file.read_text())
            assert count, pattern
            rewrite(file, text.encode())

    return name, edit, f"{name}: "


def another_speed(path: Path) -> None:
    """perf.json of another configuration, which the card shows."""
    name = "20261122T040812-vm-tinybert_sst2-seeded-64-1-cpu-onnxruntime-fp32-throughput.json"
    rewrite(path, json.dumps(records.read_record(ROOT / "results/records" / name)).encode())
    page = path.with_name("README.md")
    text = page.read_text()
    for fact, value in card.speed(path.parent).items():
        text = re.sub(rf"\| {fact} \| .*", f"| {fact} | {value} |", text)
    rewrite(page, text.encode())


def another_model(path: Path) -> None:
    """A record, and the provenance that follows from it but for its subject, of a model.onnx with other bytes."""
    for file in (path, path.with_name("provenance.intoto.json")):
        *head, tail = file.read_text().rpartition("predicateType")
        rewrite(file, ("".join(head) + tail.replace(cli.sha256(path.with_name("model.onnx")), "0" * 64)).encode())


# Signed by the very owner of the key.
LABELS, turned = "negative|positive", lambda word: {"negative": "positive", "positive": "negative"}[word[0]]
OVERSTATED = {
    "the card's metric": edited("README.md", r"value: 0\.\d+", "value: 0.99"),
    "the card's words": edited("README.md", r"model.ir`: \d+", "model.ir`: 870"),
    "the card's title": edited("README.md", "openvino fp32\n", "openvino int8\n"),
    "the card's last word": edited("README.md", r"behind it\.\n", "behind it, and 99 % on IMDB.\n"),
    "no YAML in the card": edited("README.md", "license: .*", ": : {"),
    "the SBOM's figure": edited("sbom.cdx.json", r'"value": "0\.\d+"', '"value": "0.99"'),
    "the SBOM's hash": edited("sbom.cdx.json", r'(?s)("model.ir".*?"content": ")\w+', rf"\g<1>{64 * '0'}"),
    "labels turned round": edited("config.json", LABELS, turned),
    "labels of another spelling": edited("config.json", LABELS, lambda word: turned(word).upper()),
    "labels turned round everywhere": edited("answers.json", LABELS, turned, "config.json"),
    "the vocabulary": edited("vocab.txt", r"(.*)\n(.*)\n\Z", r"\2\n\1\n"),
    "the hub's figure": edited(".eval_results/glue.yaml", r"value: 0\.\d+", "value: 0.99"),
    "the hub's other figure": (".eval_results/mmlu.yaml", lambda path: rewrite(path, b"- value: 0.99"), "mmlu.yaml: "),
    "weights that nobody scored": ("model.safetensors", lambda path: rewrite(path, b"new"), "model.safetensors: "),
    "the test result": edited("test-result.intoto.json", r"model.ir: \d+", "model.ir: 870"),
    "the provenance": edited("provenance.intoto.json", "MODEL=tiny", "MODEL=other"),
    "the record": edited("accuracy.json", '"padded_rows": 0.0', '"padded_rows": 0.5'),
    "the record's figure": edited("accuracy.json", r'"correct": \d+', '"correct": 870'),
    "the record's model": ("accuracy.json", another_model, "accuracy.json: "),
    "the speed": ("perf.json", another_speed, "perf.json: "),
    "the answers": edited("answers.json", r'"predictions": \[\d', '"predictions": [-1'),
    "the engine": edited("answers.json", '"engine": "openvino"', '"engine": "atc"'),
    "the number of texts": edited("answers.json", '"rows": 872', '"rows": 87200'),
    "no answers": edited("answers.json", r"(?s).+", "{}"),
    "a file outside": edited("answers.json", r'"model.ir": \{', '"../model.ir": {'),
    "another data set": ("answers.json", edited("answers.json", '"sha256": ".', '"sha256": "g')[1], "dev.tsv: "),
}
EVERY = {"sound": ("", Path.exists, "same bytes, "), "another key": ("", Path.exists, "model.sig: Key mismatch: ")}
EVERY |= SPOILT | OVERSTATED


@pytest.fixture(scope="module")
def published(tmp_path_factory, first_built):
    """A copy of the tree; the folder that `make publish` wrote there, what it said, its key with another beside it."""
    repo = Repo(tmp_path_factory.mktemp("publish") / "repo", first_built)
    (repo.path / ".venv-publish").symlink_to(PYTHON.parents[1])
    plain = {"ignore": shutil.ignore_patterns("MANIFEST*")}
    shutil.copytree(repo.path / "build/tiny/default/checkpoint", repo.path / "mine", **plain)
    key = repo.path.parent / "me.pem"
    subprocess.run(["sh", "-euc", KEYS, "sh", key, key.with_name("other.pem")], check=True)
    words = ["MODEL=tiny", "WEIGHTS=mine", "ENGINE=openvino", "PRECISION=fp32", f"KEY={key}", "FOLDER=out/tiny"]
    said = repo.make("publish", *words).stdout.splitlines()[-1]
    assert "FOLDER=out/tiny: is there already; name a new one" in repo.make("publish", *words, check=False).stderr
    return SimpleNamespace(repo=repo, folder=repo.path / "out/tiny", said=said, key=key)


@pytest.fixture(scope="module")
def verdicts(published, tmp_path_factory):
    """{how a copy of the folder was spoilt: what check says of it}."""
    top, key = tmp_path_factory.mktemp("spoilt"), published.key
    places: dict[str, Path] = {}
    for how, (name, spoil, _) in EVERY.items():
        place = places[how] = hard_copy(published.folder, top / str(len(places)))
        spoil(place / name)
        if how in ("another key", *OVERSTATED):
            for made in ("signer.pem", "model.sig"):  # other copies have the same files
                (place / made).unlink()
            signer = key.with_name("other.pem") if how == "another key" else key
            place.with_name(f"{place.name}.signer").write_text(str(signer))
    told = judged(key, published.repo.path / "build/data/dev.tsv", places.values())
    return {how: told[place.name] for how, place in places.items()}


def test_a_folder_is_made_and_checked_in_another_clone(published, repo):
    source, said, key = published.folder, published.said, published.key
    right = r"model.onnx \d+/872, model.ir \d+/872 \(0 flips\)"
    assert re.fullmatch(rf"wrote out/tiny: 15 files; {right}; signed by .* [0-9a-f]{{64}}", said)
    assert sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()) == sorted(FILES)
    shutil.rmtree(repo.path / "models/tiny")
    (repo.path / ".venv-publish").symlink_to(PYTHON.parents[1])
    moved = shutil.copytree(source, repo.path.parent / "moved")
    told = repo.make("check", f"FOLDER={moved}", f"KEY={key}.pub").stdout.splitlines()[-1]
    assert told == f"same bytes, {re.search(right, said)[0]}, the same answers; signed by the key of {key}.pub"
    assert "no public key" in repo.make("check", f"FOLDER={moved}", f"KEY={key}", check=False).stderr
    assert not (repo.path / "build/tiny").exists()


def test_what_is_in_the_folder(published):
    source = published.folder
    read = lambda name: json.loads((source / name).read_text())
    said, record = read("answers.json"), read("accuracy.json")
    head = yaml.safe_load((source / "README.md").read_text().split("---")[1])
    (entry,) = yaml.safe_load((source / ".eval_results/glue.yaml").read_text())
    (metric,) = head["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == entry["value"] == round(record["correct"] / 872, 6)
    assert entry["dataset"] == {"id": "nyu-mll/glue", "task_id": "sst2"} and head["license"] == "unknown"
    assert said["data"]["sha256"] == cli.sha256(source.parents[1] / "build/data/dev.tsv")
    for name in ("provenance.intoto.json", "test-result.intoto.json"):
        hashes = {one["name"]: one["digest"]["sha256"] for one in read(name)["subject"]}
        assert hashes == {file: cli.sha256(source / file) for file in ("model.onnx", "model.ir")}
    build = read("provenance.intoto.json")["predicate"]
    chained = build["buildDefinition"]["resolvedDependencies"] + build["runDetails"]["byproducts"]
    known = {one["name"]: one["digest"].get("sha256") for one in chained}
    assert {path: link["sha256"] for path, link in record["chain"].items()}.items() <= known.items()
    (model,) = (c for c in read("sbom.cdx.json")["components"] if c["type"] == "machine-learning-model")
    assert {f["name"]: f["hashes"][0]["content"] for f in model["components"]} == hashes
    text = (source / "README.md").read_text()
    assert "| labels of it | 428 negative, 444 positive |" in text and "| its caches | L1" in text
    assert "| joules a sample | null (no perf.json: make perf) |" in text
    example = re.search(r"```python\n(.*?)```", text, re.S)[1]
    done = subprocess.run([ROOT / ".venv/bin/python", "-c", example], cwd=source, capture_output=True, text=True)
    assert done.stdout.startswith("[array([[") and done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", EVERY)
def test_what_is_spoilt_and_a_claim_that_does_not_follow_is_named(verdicts, how):
    assert EVERY[how][2] in verdicts[how] and "\n" not in verdicts[how]


# ---- Files of cards
# The answers of a file made again, where one is published otherwise.
WRONG = """
import pathlib, sys
from tools.base import tasks
from tools.make import cli
from tools.publish import check
from tools.source import data
path, answers, record = pathlib.Path(sys.argv[1]), cli.read_json(sys.argv[2]), cli.read_json(sys.argv[3])
answers["files"][path.name]["predictions"][7] ^= 1
texts = data.read_tsv("build/data/dev.tsv", tasks.by_name(answers["task"]), answers["labels"])[0]
check.check_answers(path, texts, answers, record)
"""
CARDS = {  # a file: its chip, the tool for it, what lets that fail, and how
    "model.om": ("310P3", "ais_bench", {"FAKE_NPU": "910B4-1"}, "is compiled for Ascend310P3"),
    "model.plan": ("T4", "trtexec", {"FAKE_TRTEXEC_FAULT": "fail"}, "trtexec failed (exit 1): OutOfMemory"),
}  # fmt: skip


@pytest.fixture(scope="module")
def unmarked(published):
    """(the copy of the tree, the key, an environment whose stand-ins do not say that they are), as where a card is."""
    repo, key = published.repo, published.key
    here = repo.path / "test/fake_cann"
    marks = {"standin.py": ('"STAND-IN"', '"8.0"'), "ais_bench/__main__.py": ('"standin": True', '"x": 0')}
    for name, (mark, other) in marks.items():
        text = (here / name).read_text()
        assert mark in text
        (here / name).write_text(text.replace(mark, other))
    (repo.path / "out").chmod(0o750)  # ais_bench refuses an --output_dirname out where such a folder is open to others
    path = f"{here}/bin:{tiny.environment()['PATH'].partition(':')[2]}"
    return repo, key, tiny.environment(PATH=path, PYTHONPATH=f"{here}:{repo.path}")


@pytest.mark.parametrize("name", CARDS)
def test_a_file_of_a_card_is_published_and_checked_with_the_card_and_without(unmarked, name):
    (repo, key, env), (chip, tool, fault, complaint) = unmarked, CARDS[name]
    place, last = repo.path / "cards" / name, lambda done: done.stdout.splitlines()[-1]
    words = ("MODEL=tiny", "WEIGHTS=mine", f"CHIP={chip}", "PRECISION=fp16", "BS=200", f"KEY={key}")
    said = last(repo.make("publish", *words, f"FOLDER={place}", env=env))
    graph, own = re.search(rf"(model.onnx \d+/872), ({name} \d+/872 \(0 flips\));", said).groups()
    assert f" cores, {chip} |" in (place / "README.md").read_text()
    words = ("check", f"FOLDER={place}", f"KEY={key}.pub")
    assert last(repo.make(*words, env=env)).startswith(f"same bytes, {graph}, {own}, the same answers; signed by")
    lacks = f"{name} cannot run here (it needs a {chip}, and {tool})"
    assert f"{graph}, {lacks}, the same answers; " in last(repo.make(*words))
    copies = [(spoil, hard_copy(place, repo.path / f"cards/{i}{chip}")) for i, spoil in enumerate(ONCE.values())]
    for spoil, copy in copies:
        spoil(copy / name)
    told = judged(key, repo.path / "build/data/dev.tsv", [copy for _, copy in copies])
    assert all(name in line and "\n" not in line for line in told.values())
    words = (PYTHON, "-c", WRONG, place / name, place / "answers.json", place / "accuracy.json")
    errors = lambda **more: subprocess.run(words, cwd=repo.path, env=env | more, capture_output=True, text=True).stderr
    assert re.search(rf"/{name}: row 7 of the texts, from 0: answers [01], [01] is published\n$", errors())
    assert f"{name}: " in errors(**fault) and complaint in errors(**fault).splitlines()[-1]


# ---- Without make
DATA = {"name": "SST-2's validation set", "get": "make data", "rows": 3, "sha256": "0" * 64}
SAID = {"data": DATA, "task": "sst2", "labels": ["negative", "positive"], "threshold": 0.5, "about": "model.native"}
SAID["files"] = {"model.onnx": {"predictions": [0, 1, 1]}, "model.native": {"predictions": [0, 1, -1]}}


def test_what_a_card_says(tmp_path, monkeypatch):
    """A file's figures and flips; nothing for a leaderboard of seeded weights and of one's own texts."""
    scored = card.scores(SAID, [0, 1, 1])
    assert card.right(scored["model.onnx"]) == "3/3" and card.right(scored["model.native"]) == "2/3 (1 flips)"
    assert scored["model.native"]["flips"] == [2] and "95 % interval" in card.whole(scored["model.native"])
    assert records.classes("01=") == SAID["files"]["model.native"]["predictions"]
    record = {"engine": "native", "precision": "int8", "started": "2026-11-30T00:00:00Z"}
    assert "value: 0.666667" in card.eval_results(SAID, [0, 1, 1], record)
    assert card.eval_results(SAID, [0, 1, 1], record | {"caveat": "seeded"}) is None
    own = SAID | {"data": SAID["data"] | {"name": card.OWN[0]}}
    assert card.eval_results(own, [0, 1, 1], record) is None
    assert card.results(own, [0, 1, 1], record)[0].dataset_type == "custom"
    facts = card.about({"model": "minilm_sst2", "weights": "default"})
    assert facts["license"] == "apache-2.0" and "best of five" in facts["note"]
    others = {"model": "minilm_sst2", "weights": "mine"}, {"model": "tinybert_sst2", "weights": "default"}
    assert [*map(card.about, others)] == [{}, {}]
    speed = {"samples_per_second": 9.5, "bs": 8, "machine": {"cpu": "X"}, "spread": 0.5}
    monkeypatch.setattr(card, "speed_record", lambda folder: speed)
    assert card.speed(Path())["samples a second"] == "9.5 (batch 8, X, noisy)"
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    for text, why in (
        ("licence = 'mit'", "licence is no .* is license meant"),
        ("a = [", "Invalid"),
        ("note = 1", "note"),
    ):
        lay(tmp_path, {"models/m/card.toml": text})
        refused(f"card.toml: {why}", card.about, {"model": "m", "weights": "default"})


def test_the_first_answer_that_differs_is_named(monkeypatch):
    """A score may differ in its last digits, on another CPU."""
    scores = SAID | {"task": "score", "files": {"model.onnx": {"predictions": [0.5, 1.0, 1.0]}}}
    other = (SAID, [[1, 0]] * 3, "row 1 .*: answers 0, 1 .*2 rows"), (scores, [[0.5], [1.0005], [1.002]], "row 2 ")
    for said, logits, says in other:
        monkeypatch.setattr(check, "logits_of", lambda *_, logits=logits: np.array(logits))
        refused(f"f/model.onnx: {says}", check.check_answers, Path("f/model.onnx"), [], said, {})
    record = {"engine": "native", "precision": "int8", "logits_sha256": "0" * 64}
    monkeypatch.setattr(check, "logits_of", lambda *_: np.eye(2)[[0, 1, 1]] - [[0, 0], [0, 0], [0, 1]])
    refused("f/model.native: its logits have sha256", check.check_answers, Path("f/model.native"), [], SAID, record)


def test_what_cannot_run_here_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(cpu, "cpu_flags", lambda limited=True: {"avx2"})
    monkeypatch.setattr(ais_bench, "find_python", lambda: None)
    monkeypatch.setattr(trip, "trtexec", lambda: (None, ()))
    lacking = lambda seq, **file: check.lacking("x", {"files": {"x": file}}, {"chip": "910B4", "seq": seq})
    assert lacking("128", engine="atc", precision="fp16") == "a 910B4, and ais_bench"
    assert lacking("64-128", engine="atc", precision="fp16") == "rows of one length"
    assert lacking("128", engine="trtexec", precision="fp16").endswith(" and trtexec")
    assert not lacking("128", engine="onnxruntime", precision="fp32")
    assert "avx512_bf16" in lacking("128", engine="native", precision="bf16")


# ---- Caches and energy
def test_energy_is_read_where_there_are_counters_or_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "RAPL", tmp_path)
    assert cpu.joules() == f"no counter in {tmp_path}" == cpu.machine()["energy"]
    counts = {"intel-rapl:0": "2500000", "intel-rapl:1": "500000", "intel-rapl:0:0": "9"}
    lay(tmp_path, {f"{name}/energy_uj": count for name, count in counts.items()})
    assert cpu.joules() == 3.0 and cpu.machine()["energy"] == cpu.RAPL_NAME
    missing = lambda **more: records.missing_reasons({"chip": "cpu", "requests": 200, "figures": {"x": {}}, **more})
    assert missing(machine={}) == {} == missing(machine={"energy": cpu.RAPL_NAME}, joules_per_sample=1.0)
    assert missing(machine={"energy": "no counter"}) == {"joules_per_sample": "no counter"}


def test_joules_are_of_the_turns_of_the_engine_alone():
    turns = yardstick.Turns()
    assert turns.joules() is None
    for last, joules in (([7.0, 8.5], 3.5), ([7.0, 6.0], None), (["no counter", "x"], None)):
        turns.energy = [[1.0, 3.0], last]
        assert turns.joules() == joules
    one = {"engine": {"threads": 1}, "yardstick": "fp32", "loop": 3, "pairs": [[8, 1, 1, 1, 1, 1]] * 10, "singles": []}
    assert "joules_per_sample" not in records.turn_fields([one], 1)
    assert records.turn_fields([one | {"joules": 40.0}, one | {"joules": 120.0}], 1)["joules_per_sample"] == 1.0


def test_what_is_refused(monkeypatch):
    sound = {"seq": "128", "chain": {}, "chip": "cpu", "standin": False, "precision": "int8", "engine": "native"}
    monkeypatch.setattr(records, "chain_fault", lambda chain: None)
    assert folder.refuse(Path("leaf"), sound) is None
    for change, why in (
        ({"standin": True}, "made with stand-ins"),
        ({"precision": "fp16-sim"}, "fp16-sim computes what another chip would"),
        ({"seq": "64-128"}, "it takes packed rows or buckets"),
        ({"certify": "0.5"}, "with CERTIFY= its answers are not those"),
    ):
        refused(f"leaf: not published: {why}", folder.refuse, Path("leaf"), sound | change)
    monkeypatch.setattr(records, "chain_fault", lambda chain: "x is gone")
    refused("x is gone; run make accuracy again", folder.refuse, Path("leaf"), sound)
