"""The Make graph tells the truth: parameters, -n, -q, -j, edits, deletions, failures. It drives the real Makefile."""

import json
import re
import shutil
from pathlib import Path

import pytest
import warm
from conftest import VENV, Repo, module

from tools.make import cli, run
from tools.results import record as records

LEAF = "tiny/default/seq64/bs8/cpu-onnxruntime-fp32"
AFTER_COMPILE = {f"{LEAF}/{n}" for n in ("output/MANIFEST", "score.json", "accuracy.json", "accuracy.txt")}
AFTER_SIM = AFTER_COMPILE | {f"{LEAF}/model.onnx", "tiny/default/seq64/bs8/cpu.onnx"}
AFTER_EXPORT = AFTER_SIM | {"tiny/default/seq64/bs8/sim.onnx"}
ALL = AFTER_EXPORT | {f"tiny/default/{n}" for n in ("checkpoint/MANIFEST", "model.onnx", "seq64/input/MANIFEST")}

STRACE = "strace --seccomp-bpf -ff -y -s 99999 -e trace=openat,execve,fork,vfork,clone,clone3 -o".split()  # noqa: SIM905
# Kinds of steps that `make accuracy` of the default engine has none of, at the least that shows what they read.
MORE = ("PACK=1 {}/seq64p/bs8/cpu-onnxruntime-fp32/score.json",
        "ENGINE=native PRECISION=int8 {}/seq64/bs8/cpu-native-int8/output/MANIFEST",
        "PRECISION=fp16-sim {}/seq64/bs8/cpu-onnxruntime-fp16-sim/output/MANIFEST",
        "perf ROUNDS=1 SAMPLES=1", "accuracy-table BATCHES=8 PRECISIONS=fp32")  # fmt: skip
# Imported by the runner, and at work in a measurement alone (mk/run.mk).
BESIDES = {"infer": ("tools/cpu/yardstick.py",)}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A second copy, built at -j8 in another folder, locale and time zone; where strace is, with a file a thread in `traces`."""
    repo, box = Repo(tmp_path_factory.mktemp("elsewhere")), tmp_path_factory.mktemp("traced")
    (repo.path / "traces").mkdir()
    build = repo.path / "tools/cpu/native/build.py"
    build.write_text(build.read_text().replace('"-O3"', '"-O0"'))  # the C is to be read here, not to be fast
    within = [*STRACE, str(repo.path / "traces/t")] if shutil.which("strace") else []
    server = warm.start(box, VENV, within)  # whose forks strace follows
    env = {"LC_ALL": "C", "TZ": "Asia/Kolkata"}
    for words in ("-j8 accuracy", *(MORE if within else ())):
        repo.make("MODEL=tiny", *words.format("build/tiny/default").split(), env=env, within=within, venv=box / "venv")
    server.kill()
    server.wait()
    return repo


def read_by_steps(repo) -> list[tuple[str, Path, list[str], set[str]]]:
    """(name, target, prerequisites, files of the tree that its commands have read) of each step that was traced."""
    texts = {path.suffix[1:]: path.read_text(errors="replace") for path in (repo.path / "traces").iterdir()}
    parents, steps = {}, {}
    for process, text in texts.items():
        parents |= dict.fromkeys(re.findall(r"^(?:v?fork|clone3?)\(.*\) = (\d+)$", text, re.M), process)
        if step := re.search(r'^execve\(.*"tools\.make\.run", "--step", (.*)\], 0x', text, re.M):
            name, *words = re.findall(r'"((?:[^"\\]|\\.)*)"', step[1])
            target, needs, _ = run.split([word for word in words if word not in ("--alone", "--labelled")])
            steps[process] = (name, target, needs, set())
    for process, text in texts.items():  # what a fork of warm.py does, START does
        if start := re.search(r'^openat\(.*"/proc/(\d+)/comm"', text, re.M):
            parents[process] = start[1]
        if start and start[1] in steps:
            parents[process], steps[process] = parents[start[1]], steps.pop(start[1])
    for process, text in texts.items():
        above = parents.get(process)
        while above and above not in steps:
            above = parents.get(above)
        for file in re.findall(r"^openat\(.*O_RD(?:ONLY|WR)(?!.*O_(?:CREAT|DIRECTORY)).*\) = \d+<(/.*)>$", text, re.M):
            if above and repo.path in Path(file).parents:
                name = Path(file).relative_to(repo.path).as_posix()
                steps[above][3].add(re.sub(r"__pycache__/(\w+)\.cpython-\d+\.pyc$", r"\1.py", name))
    return list(steps.values())


def test_up_to_date_after_a_build_and_printed_again(built):
    assert built.make("-q", "MODEL=tiny", "accuracy").returncode == 0
    assert built.remade("MODEL=tiny", "accuracy") == set()
    text = built.make("MODEL=tiny", "accuracy").stdout
    assert all(words in text for words in ("/872)", "95 % interval", "not the model's accuracy"))


def test_dry_run_writes_nothing(built):
    built.make("-q", "MODEL=tiny", "accuracy")  # build/imports.json is of the files of this copy
    before = built.files()
    built.make("-n", "MODEL=tiny", "accuracy-table", "perf-table", "BATCHES=1 2 3")
    built.make("-q", "MODEL=tiny", "perf", "SAMPLES=99", check=False)
    assert built.files() == before


def test_a_table_times_all_its_rows_once_and_then_all_again(built):
    lines = built.make("-n", "MODEL=tiny", "perf-table", "BATCHES=1 2 3", "PRECISIONS=fp32").stdout.splitlines()
    rounds = [re.search(r"(round\d)/MANIFEST", line)[1] for line in lines if " --alone " in line]
    assert rounds == [f"round{r}" for r in (1, 2, 3) for _ in range(3)]


@pytest.mark.parametrize(("word", "made"), [
    ("ENGINE=openvino", {f"tiny/default/seq64/bs8/cpu-openvino-bf16/{n}" for n in
                        ("model.ir", "output/MANIFEST", "score.json", "accuracy.json", "accuracy.txt")}),
    ("ISA=AVX2", {n.replace("fp32", "fp32.AVX2") for n in AFTER_COMPILE | {f"{LEAF}/model.onnx"}}),
    ("BS=4", {n.replace("bs8", "bs4") for n in AFTER_SIM} | {"tiny/default/seq64/bs4/sim.onnx"}),
    ("SEQ=32", {n.replace("seq64", "seq32") for n in AFTER_EXPORT} | {
        f"tiny/default/seq32/{n}" for n in ("input/MANIFEST", "reference.npy")}),
    ("WEIGHTS=README.md", {n.replace("default", "README.md") for n in ALL}),
])  # fmt: skip
def test_a_parameter_remakes_what_depends_on_it_and_nothing_else(built, word, made):
    assert built.remade("MODEL=tiny", word, "accuracy") == made
    assert built.make("-q", "MODEL=tiny", "accuracy").returncode == 0


@pytest.mark.parametrize(("script", "made"), [
    ("models/tiny/postprocess.py", {f"{LEAF}/{n}" for n in ("score.json", "accuracy.json", "accuracy.txt")}),
    ("tools/cpu/compile.py", AFTER_COMPILE | {f"{LEAF}/model.onnx"}),
    ("models/tiny/modify_onnx.py", AFTER_SIM),
    ("models/tiny/preprocess.py", AFTER_EXPORT | {"tiny/default/seq64/input/MANIFEST"}),
    ("models/tiny/pth2onnx.py", AFTER_EXPORT | {"tiny/default/model.onnx"}),
])  # fmt: skip
def test_an_edited_script_remakes_exactly_its_outputs(built, script, made):
    assert built.remade("MODEL=tiny", "-W", script, "accuracy") == made


def after(names: set[str], inputs: dict) -> set[str]:
    """These files and all that is made of them, directly or not. inputs: {artefact: the files it is made of}."""
    while more := {made for made, own in inputs.items() if own & names} - names:
        names = names | more
    return names


def test_an_edit_of_any_module_remakes_what_imports_it_and_nothing_else(built):
    """Against prov.json, which says what each artefact was made of."""
    build, inputs = built.path / "build", {}
    for prov in build.rglob("*.prov.json"):
        name = prov.relative_to(built.path).as_posix().removesuffix(".prov.json")
        inputs[name] = set(json.loads(prov.read_text())["inputs"])
    made = {f"build/{name}" for name in built.remade("MODEL=tiny", "-B", "accuracy")} & inputs.keys()
    modules = sorted(path.relative_to(built.path).as_posix() for path in (built.path / "tools").rglob("*.py"))
    want = {module: (after({module}, inputs) - {module}) & made for module in modules}
    # Those that remake nothing remake nothing together either, and if one of them did, all of them together would.
    for edited in [[m for m in modules if not want[m]], *([m] for m in [m for m in modules if want[m]][::5])]:
        words = [word for module in edited for word in ("-W", module)]
        have = {f"build/{name}" for name in built.remade("MODEL=tiny", *words, "accuracy")} & made
        assert have == want[edited[0]], edited


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is needed: apt install strace")
def test_each_step_reads_its_prerequisites_and_nothing_else(traced):
    """What the commands of a step have opened in the tree, against what make knows. A MANIFEST stands for its folder."""
    steps, faults = read_by_steps(traced), {}
    kinds = {"export", "pack", "compile", "engine", "infer", "score", "time", "rehearse", "table"}
    assert kinds <= {name for name, _, _, files in steps if files}
    for name, target, needs, files in steps:
        folders = [f"{Path(need).parent}/" for need in needs if Path(need).name == "MANIFEST"]
        folders += [f"{need}/" for need in needs if (traced.path / need).is_dir()]
        known = {*needs, *(f"{need}.prov.json" for need in needs), str(target), *BESIDES.get(name, ())}
        boxes = lambda file: ".tmp/" in file or file.startswith("traces/")
        left = {f for f in files - known if not boxes(f) and not f.startswith(tuple(folders))}
        if left and name not in ("accuracy", "perf"):  # a record hashes all that is behind it, as its chain says
            faults[f"{name} {target}"] = sorted(left)
    assert not faults, json.dumps(faults, indent=1)


def test_the_export_keeps_the_logits_that_its_gate_computed(built, tmp_path):
    """The bytes that the gate's own command gives, described as the export's; made again; used by `infer`."""
    top, leaf = built.path / "build/tiny/default", built.path / "build" / LEAF
    (top / "reference.npy").unlink()
    built.make("MODEL=tiny", "accuracy")
    assert built.make("-q", "MODEL=tiny", "accuracy").returncode == 0
    words = ("--input", top / "seq64/input", top / "model.onnx", "--save_path", tmp_path / "again.npy")
    module("tools.graph.gate", *words, cwd=built.path, check=True)
    assert (tmp_path / "again.npy").read_bytes() == (top / "reference.npy").read_bytes()
    words = json.loads((leaf / "output/MANIFEST.prov.json").read_text())["commands"][1]
    assert "build/tiny/default/reference.npy" in words and "--rows" not in words
    made, kept = (json.loads((top / f"{name}.prov.json").read_text()) for name in ("model.onnx", "reference.npy"))
    assert kept["sha256"] == cli.sha256(top / "reference.npy") and kept["inputs"] == made["inputs"]
    assert json.loads((leaf / "output/MANIFEST.prov.json").read_text())["inputs"]["build/tiny/default/reference.npy"]


def test_the_gate_knows_random_weights(built):
    for words, random in {"tiny": True, "minilm_sst2": False, "minilm_sst2 WEIGHTS=seeded": True}.items():
        assert (" --seeded " in built.make("-n", "-B", "om", *f"MODEL={words}".split()).stdout) == random
    scored = ("-n", "MODEL=minilm_sst2", "WEIGHTS=seeded", "INPUT=build/data/dev.tsv", "score")
    assert "seeded2/checkpoint" in built.make(*scored).stdout


def test_every_artefact_says_what_made_it(built):
    prov, record = (built.read(f"{LEAF}/{name}.json") for name in ("model.onnx.prov", "accuracy"))
    needs = {"tools/cpu/compile.py", "build/tiny/default/seq64/bs8/cpu.onnx", "requirements.txt"}
    assert prov["inputs"].keys() >= needs and prov["commands"][0][:3] == ["python", "-m", "tools.cpu.compile"]
    assert record["chain"]["build/data/dev.tsv"]["sha256"].startswith("54a9c12c77e402fc")
    assert all(link["sha256"] for link in record["chain"].values())
    labels = [line.split("\t")[1] for line in (built.path / "build/data/dev.tsv").read_text().splitlines()[1:]]
    assert record["correct"] == sum(p == label for p, label in zip(record["predictions"], labels, strict=True))


def test_perf_times_rounds_and_prints_them(built):
    assert "samples/s, median of 3 rounds" in built.make("MODEL=tiny", "perf", "SAMPLES=8").stdout
    assert built.make("-q", "MODEL=tiny", "perf", "SAMPLES=8").returncode == 0
    assert built.make("-q", "MODEL=tiny", "perf", "SAMPLES=16", check=False).returncode == 1
    record = built.read(f"{LEAF}/perf.json")
    assert record["requests"] >= 3 * (8 // 8 + 4)  # and on, until a round had 80 ms
    assert all(sum(times) >= 80 for times in record["times_ms"]) and record["loop"] == 5
    assert "SAMPLES=8" in records.make_words(record)
    assert record["samples_per_second"] > 0


def test_own_lengths_give_the_padded_predictions(built):
    real = f"{LEAF}/".replace("seq64", "seqreal")
    built.make("MODEL=tiny", "SEQ=real", "accuracy")
    assert built.make("-q", "MODEL=tiny", "SEQ=real", "accuracy").returncode == 0
    assert built.read(f"{real}score.json") == built.read(f"{LEAF}/score.json")
    made = {name.replace("seq64", "seqreal") for name in AFTER_COMPILE}
    assert built.remade("MODEL=tiny", "SEQ=real", "-W", "tools/cpu/plan.py", "accuracy") == made
    assert built.remade("MODEL=tiny", "-W", "tools/cpu/plan.py", "accuracy") == set()

    text = built.make("MODEL=tiny", "SEQ=real", "perf", "ROUNDS=2").stdout
    assert "timed       the engine's call alone; the sentences at their own lengths" in text
    assert built.make("-q", "MODEL=tiny", "SEQ=real", "perf", "ROUNDS=2").returncode == 0
    record = built.read(f"{real}perf.json")
    assert record["rounds"] == [pytest.approx(5 * 872_000 / sum(passes), rel=1e-4) for passes in record["pass_ms"]]
    assert len(record["stolen"]) == 2 and all(0 <= share <= 1 for share in record["stolen"])
    assert record["seq"] == "real"
    outputs = {(built.path / "build" / real / f"{d}/MANIFEST").read_text() for d in ("round1", "round2", "output")}
    assert len(outputs) == 1  # on onnxruntime, the plan does not change a bit


def test_a_shorter_list_remakes_the_table(built):
    words = ("MODEL=tiny", "perf-table", "SAMPLES=8", "PRECISIONS=fp32", "ROUNDS=1")
    for batches, lines in (("8 4", 3), ("8", 2)):
        assert "| tiny" in built.make(*words, f"BATCHES={batches}").stdout
        assert len((built.path / "results/local/perf-table.csv").read_text().splitlines()) == lines


def test_j8_in_another_folder_and_locale_gives_the_same_bytes(built, traced):
    for name in (f"build/{name}" for name in ALL if "accuracy" not in name):  # which say when they were made
        assert (built.path / name).read_bytes() == (traced.path / name).read_bytes(), name
