"""The one table of parameters, of chips and of a model's values: what comes of a row, and what is refused. It drives the
real Makefile."""

import json
import os
import re
import subprocess

import onnx
import pytest
from conftest import ROOT, VENV, Repo, edit_json, lay, refused

from tools.ascend import atc
from tools.base import tasks
from tools.checks import verify
from tools.make import chips, makefile, models, parameters
from tools.results import readme, record
from tools.setup import doctor, help

ROW = """    Parameter("OPSET", "11", whole(7, 20), RUN, "the ONNX opset of the export", place=Place("weights", "_o{}")),
"""
USE = {
    "tools/make/parameters.py": ('    Parameter("DATA"', ROW + '    Parameter("DATA"'),
    "mk/graph.mk": ("--seq_len $(longest) \\\n", "--seq_len $(longest) --opset $(OPSET) \\\n"),
    # What the rule's command does with it.
    "tools/recipe/pth2onnx.py": ("    options.task(p)\n", '    p.add_argument("--opset")\n    options.task(p)\n'),
    "tools/graph/export.py": ("opset_version=11", 'opset_version=int(sys.argv[sys.argv.index("--opset") + 1])'),
}


def test_a_new_parameter_is_one_row_and_its_use(tmp_path, first_built):
    """In the path, in the artefact, in prov.json, in help, in the record, in what verify makes again; and checked."""
    repo = Repo(tmp_path, first_built)
    for name, (old, new) in USE.items():
        text = (repo.path / name).read_text()
        assert old in text
        (repo.path / name).write_text(text.replace(old, new, 1))
    export = repo.path / "tools/graph/export.py"
    export.write_text(re.sub(r"^import ", "import sys\nimport ", export.read_text(), count=1, flags=re.M))
    repo.make("MODEL=tiny", "OPSET=12", "accuracy", "record")
    assert ROW.strip() in (ROOT / "docs/parameters.md").read_text()
    made = repo.path / "build/tiny/default_o12/model.onnx"
    assert onnx.load(made).opset_import[0].version == 12
    assert "--opset 12" in json.loads((made.parent / "model.onnx.prov.json").read_text())["recipe"]
    assert "tiny/default/model.onnx" in repo.remade("MODEL=tiny", "accuracy")  # the default stands in no path
    assert re.search(r"^ +OPSET=11 +the ONNX opset of the export$", repo.make("help").stdout, re.M)
    (path,) = (repo.path / "results/records").glob("*-tiny-*")
    kept = json.loads(path.read_text())
    assert (kept["opset"], kept["weights"]) == ("12", "default") and "_o12-accuracy" in path.name
    code = f"""  # in the copy, with its own modules
from pathlib import Path
from tools.checks import verify
from tools.results import record, table
r = record.read_record(Path("{path}"))
print(record.leaf_of(r), *record.make_words(r))
print(*[len(verify.choose([Path("results/records")], ["MODEL=tiny", f"OPSET={{n}}"])) for n in (11, 12)])
print(table.row(r)["precision"])"""
    env = os.environ | {"PYTHONPATH": str(repo.path)}
    done = subprocess.run([VENV / "bin/python", "-c", code], cwd=repo.path, env=env, capture_output=True, text=True)
    leaf, chosen, cell = done.stdout.splitlines()
    assert leaf.startswith("tiny/default_o12/seq64/bs8/") and "OPSET=12" in leaf.split()
    assert (chosen, cell) == ("0 1", "fp32 OPSET=12")
    assert "--only 'OPSET=12'" in repo.make("-n", "verify", "OPSET=12").stdout
    repo.refuses("OPSET='99' is not a whole number from 7 to 20", "MODEL=tiny", "OPSET=99", "onnx")


def test_a_path_can_be_read_back_whatever_stands_in_it():
    """Of a new row too: its mark must be none that a value before it may hold."""
    default = {row.name: row.default for row in parameters.ROWS}
    default |= {"SEQ": "128", "ENGINE": "native", "PRECISION": "fp32"}
    samples = "tiny seeded 64,128 16 1 cpu T4 openvino int8 AVX2 0.25".split()  # noqa: SIM905
    others = default | {"models/": "minilm_sst2 tiny"}
    sample = lambda row: next(v for v in samples if v != row.default and not row.kind(v, others))
    values = {row.name: sample(row) for row in parameters.PLACED}
    for some in (values, *({name: value} for name, value in values.items())):
        texts = parameters.fields(default | some)
        assert parameters.of_path(f"build/{parameters.folder(texts)}") == texts, some
        assert some.items() <= parameters.of_record(texts).items()


def test_every_record_says_its_configuration_by_the_table():
    """Names, folders and words of all committed records, as they are."""
    for path in sorted((ROOT / "results/records").glob("*.json")):
        r = record.read_record(path)
        assert record.name_of(r) == path.name
        said = parameters.of_path(f"build/{record.leaf_of(r)}")
        assert said == {name: str(r[name]) for name in parameters.FIELDS if r.get(name)}
        if not parameters.gone(r):
            values = dict(word.split("=", 1) for word in record.make_words(r))
            words = [f"{name}={values[name]}" for name in ("MODEL", "SEQ", "PACK", "BS", "PRECISION")]
            assert parameters.agrees(r | record.current_names(r), words)


def test_a_parameter_that_is_gone_is_a_verdict_of_its_own(tmp_path):
    """CLS=1, which older records have, is read, named, and neither dropped nor a failure."""
    records = sorted((ROOT / "results/records").glob("*.json"))
    path = next(p for p in records if parameters.gone(record.read_record(p)) == ["CLS="])
    line = verify.verify(path, tmp_path, [])
    assert (line["verdict"], line["result"]) == ("older", "this version has no CLS=")
    assert "last layer for [CLS]" in record.rows_in_words(record.read_record(path)["seq"])


@pytest.mark.parametrize(("goal", "word", "says"), [
    ("accuracy", "PRECISON=bf16", "PRECISON= is no parameter, is PRECISION meant?"),
    ("acuracy", "BS=8", "there is no target 'acuracy', is accuracy meant?; make help lists them"),
    ("nonsense", "BS=8", "there is no target 'nonsense'; make help lists them"),
    ("accuracy", "BATCHES=1", "BATCHES= means nothing to make accuracy; it is for accuracy-table perf-table"),
    ("verify", "NOTE=`pwned`", "NOTE= is no parameter"),
    ("verify", "SAMPLES=8", "SAMPLES= means nothing to make verify, which takes MODEL"),
    ("verify", "CLS=1", "CLS= is no parameter"),
    ("record", "FROM=-h", "FROM='-h' begins with -; name a file by ./-h"),
    ("record", "FROM=x ISA=AVX2", "ISA= means nothing to make record FROM="),
    ("accuracy", "CHIP=310P33", ", is 310P3 meant?"),
    ("accuracy", "CERTIFY=50", "CERTIFY='50' is no percentage from 0.01 to 9, such as 0.5"),
    ("accuracy", "CERTIFY=1 ENGINE=native", "CERTIFY= is for ENGINE=native and SEQ=real, or make score"),
    ("accuracy", "MODEL=bert_base_cased_mrpc PRECISION=int8", "int8 and CERTIFY= need texts of the task mrpc"),
    ("score", "MODEL=bert_base_cased_mrpc CERTIFY=1 ENGINE=native PRECISION=bf16 INPUT=a.tsv", "give TRAIN="),
    ("accuracy", "PYTHON=nope", "PYTHON='nope' is no program here"),
    ("perf", "LAUNCH=srun;id", "LAUNCH='srun;id' may hold letters"),
    ("perf", "LAUNCH=srun SLURM_ARGS=--gres=npu:1", "SLURM_ARGS= is for LAUNCH=slurm"),
    ("bench", "LAUNCH=srun", "LAUNCH= means nothing to make bench"),
    ("accuracy", "SEQ=real CHIP=310P3", "SEQ=real is for CHIP=cpu; 310P3 needs fixed lengths: SEQ=128, or buckets"),
    ("accuracy", "SEQ=real PRECISION=fp16-sim", "SEQ=real is for CHIP=cpu; fp16-sim needs"),
    ("accuracy", "PACK=1 SEQ=32,64", "PACK=1 fills rows of one length"),
    ("accuracy", "PACK=1 ENGINE=native", "PACK=1 needs no ENGINE=native"),
    ("accuracy", "PACK=1 CHIP=T4", "PACK=1 is for cpu and the Ascend chips"),
    ("kit", "CHIP=T4 SEQ=32,64", "SEQ=32,64 is for cpu and the Ascend chips: trtexec times one shape"),
    ("perf", "CHIP=T4 DEVICE=1", "by CUDA_VISIBLE_DEVICES"),
    ("score", "SEQ=64 INPUT=a.tsv", "make score runs SEQ=real; leave SEQ='64' out"),
    ("publish", "KEY=Makefile FOLDER=models", "FOLDER=models: is there already; name a new one"),
    ("publish", "KEY=nothing FOLDER=new", "KEY=nothing: no such file; docs/publish.md says how"),
    ("publish", "KEY=Makefile FOLDER=new PACK=1", "make publish: it takes packed rows or buckets; leave PACK=1 out"),
    ("publish", "KEY=Makefile FOLDER=new ENGINE=torch_cpu", "make publish: PyTorch runs the checkpoint itself"),
    ("check", "FOLDER=nothing", "FOLDER=nothing: no folder; name the one that came from elsewhere"),
    ("kit", "CHIP=310P3 DATA=Makefile", "make kit is of SST-2 alone, not of Makefile"),
    ("kit", "CHIP=310P3 MODELS=bert_base_cased_mrpc", "make kit is of SST-2 alone, not of mrpc"),
    ("score", "CHIP=T4 INPUT=a.tsv", "make score is for CHIP=cpu; T4 needs"),
    ("score", "BS=8", "make score: INPUT= is missing (score: file, folder, glob"),
    ("new-model", "NAME=mine", "make new-model: FROM= is missing"),
    ("new-model", "FROM=mine", "make new-model: NAME= is missing"),
    ("publish", "FOLDER=out", "make publish: KEY= is missing (publish: your private key"),
])  # fmt: skip
def test_what_would_be_dropped_or_misread_is_refused(monkeypatch, goal, word, says):
    monkeypatch.chdir(ROOT)
    refused(re.escape(says), makefile.answer, "0", goal, *word.split())


def test_what_make_itself_refuses_is_one_line(built):
    done = built.make("record", "FROM=x", "NOTE=$(shell touch pwned)", check=False)
    assert done.returncode == 2 and "NOTE= is no parameter" in done.stderr and done.stderr.count("\n") == 1
    assert not (built.path / "pwned").exists()


def test_help_is_one_screen():
    shown, every = help.lines(all_of_them=False), help.lines(all_of_them=True)
    asked = [f"  make {name} " in " ".join(lines) for name in ("perf-table", "torture") for lines in (shown, every)]
    assert asked == [True, True, False, True]
    for mark in ("  make ", "  [A-Z0-9_]+="):
        assert 10 < len([line for line in shown if re.match(mark, line)]) <= 20
    assert len(shown) <= 45 and max(map(len, every)) <= 100


def test_what_stands_twice_is_the_same():
    """The Chinese table's parameters, the defaults by which the first Python is found, and the tasks."""
    assert set(readme.CHINESE) == {row.name for row in parameters.PLACED}
    for name in ("VENV", "PYTHON"):
        default = f"$(call or_typed,{name},{parameters.BY_NAME[name].default})"
        assert default in (ROOT / "Makefile").read_text()
    assert list(tasks.TASKS) == models.TASKS


# ---- Names in the tree are data
ODD = ["$(shell touch ran)", "two words", "x#y", "q'\"", "c:d", "e%f", "g\x1bh"]
ODD += ["i\nj$(shell touch ran)", "¶override BS := 3"]


def test_no_name_in_the_tree_is_maketext(built, tmp_path):
    """An artefact folder that came from somebody else is read, never executed; a record of an odd name is refused."""
    repo = Repo(tmp_path / "repo", built.path)
    plain = repo.make("-n", "MODEL=tiny", "accuracy").stdout
    inputs = {"models/tiny/$(shell touch ran)\n#": "0" * 64, "a\0b": "1"}
    for name in ODD:
        for folder in (repo.path / "build/odd" / name, repo.path / "models" / name):
            lay(folder, dict.fromkeys(("f", "model.toml", "published.csv", "a.py"), ""))
        edit_json(repo.path / "build/odd" / name / "f.prov.json", inputs=inputs, sha256="0" * 64)
    (repo.path / "build/imports.mk").write_text("$(shell touch ran)\n")
    assert repo.make("-n", "MODEL=tiny", "accuracy").stdout.split() == plain.split()
    repo.make("-n", "report")
    assert repo.make("-q", "MODEL=tiny", "accuracy").returncode == 0
    (repo.path / "results/records" / f"{ODD[0]}.json").write_text("{}")
    repo.refuses("results/records/$(shell touch ran).json: its name may hold letters", "-n", "report")
    assert not (repo.path / "ran").exists()


# ---- What make asks first
@pytest.mark.parametrize(("name", "text", "says"), [
    ("tools/graph/gate.py", "\ndef broken(:\n", "tools/graph/gate.py:"),
    ("tools/make/parameters.py", "\ndef broken(:\n", "parameters.py:"),
    ("tools/make/chips.py", "\nraise ValueError('spoilt')\n", "tools/make/chips.py:"),
    ("models/tiny/model.toml", "\ngate_rows = 0\n", ": gate_rows = 0 is not a whole number"),
])  # fmt: skip
def test_what_is_broken_stops_make_with_one_line(built, name, text, says):
    path = built.path / name
    kept, stat = path.read_text(), path.stat()
    path.write_text(kept + text)
    try:
        done = built.make("-n", "MODEL=tiny", "accuracy", check=False)
        other = built.make("-n", "help", "data", check=False)  # of another model
    finally:
        path.write_text(kept)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert other.returncode == (0 if "model" in name else 2), other.stderr


def test_what_is_remembered_of_files_may_be_anything(built):
    path = built.path / "build/imports.json"
    for text in ("[" * 100_000, "{}", '{"by": 1}', "[1]", ""):
        path.write_text(text)
        (left := path.with_name(".imports.json.abcd1234")).touch()  # by a make that was killed
        assert built.make("-q", "MODEL=tiny", "accuracy").returncode == 0
        assert not left.exists() and json.loads(path.read_text())["files"]


def test_an_environment_does_not_change_what_make_does(built, tmp_path):
    """A loader's warning, which is no hash of WEIGHTS=; a make above, with variables of its own."""
    words = ("-n", "MODEL=tiny", "WEIGHTS=README.md", "accuracy")
    stamps = [re.findall(r"printf .* '(\S+)' > build/tiny/README.md/given", built.make(*words, env=env).stdout)
              for env in ({}, {"LD_PRELOAD": "/nowhere/libx.so"})]  # fmt: skip
    assert stamps[0] == stamps[1] and re.fullmatch("[0-9a-f]{64}", stamps[0][0])
    above = tmp_path / "above.mk"
    above.write_text(f"all:\n\t@$(MAKE) --no-print-directory -C {built.path} -n MODEL=tiny $(WORDS) accuracy\n")
    said = lambda *words, **more: subprocess.run(["make", *words], capture_output=True, text=True, **more)
    run = lambda *more: said("-f", above, "CC=gcc", "py=x", f"VENV={VENV}", *more)
    plain = built.make("-n", "MODEL=tiny", "accuracy").stdout
    assert run().stdout.replace("make[1]", "make").split() == plain.split()
    assert "build/tiny/default/seq64/bs4/" in run("BS=4").stdout
    above.write_text(above.read_text().replace("$(WORDS)", "BTCHES=4"))
    assert "BTCHES= is no parameter, is BATCHES meant?" in run().stderr
    done = said("-f", built.path / "Makefile", "help", cwd=tmp_path)
    assert done.returncode == 2 and f"give make -C {built.path}/ in place of -f" in done.stderr


# ---- What a model's folder says
GOOD = 'weights = "wheel"\nseq = 128\ninputs = ["input_ids", "attention_mask"]\n'


@pytest.mark.parametrize(("text", "says"), [
    (GOOD + "gate_row = 3", ":4: gate_row is no value of a model, is gate_rows meant?"),
    (GOOD + "gate_rows = 0", ":4: gate_rows = 0 is not a whole number from 1 to 100000"),
    (GOOD + "seq = 64\n", ":4: Cannot overwrite a value"),
    (GOOD.replace("128", "513"), ":2: seq = 513 is not a length from 8 to 512"),
    (GOOD.replace("128", "true"), ":2: seq = True is no length"),
    (GOOD.replace('"wheel"', '"$(shell touch ran)"'), ":1: weights = '$(shell touch ran)' is no text of"),
    (GOOD.replace('["input_ids", "attention_mask"]', '"input_ids"'), ":3: inputs = 'input_ids' is no list"),
    (GOOD.replace('"wheel"', '"hub:a/b@main"'), ":1: weights = 'hub:a/b@main' is not hub:OWNER/REPO@COMMIT"),
    (GOOD + 'task = "sst3"', ":4: task = 'sst3' is not one of: sst2 cola"),
    (GOOD.replace("seq = 128", "seq := 128"), ":2: Expected '='"),
    (GOOD.replace("seq = 128\n", ""), ": says no seq"),
    (GOOD + "# \udcff\n", ": 'utf-8' codec can't decode byte 0xff"),
    (GOOD.replace("seq = 128", "seq = 128  # a note"), None),
    (GOOD.replace("128", '"64,128"'), None),
])  # fmt: skip
def test_a_wrong_value_of_a_model_is_named_with_file_and_line(tmp_path, text, says):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / models.FILE).write_text(text, "utf-8", "surrogateescape")
    if says:
        refused(rf"^{re.escape(f'{tmp_path}/tiny/model.toml{says}')}", models.settings, "tiny", tmp_path)
    else:
        models.settings("tiny", tmp_path)


def test_a_copy_of_a_model_is_a_model_of_its_own(tmp_path):
    lay(tmp_path, {f"one/{models.FILE}": GOOD.replace("128", "64"), f"one_old/{models.FILE}": GOOD})
    assert [models.settings(name, tmp_path)["seq"] for name in models.names(tmp_path)] == ["64", "128"]


def test_weights_that_are_not_here_stop_only_what_needs_them(built):
    words = ("MODEL=tinybert_sst2", "-n")
    for goals in (["data"], ["help"], ["perf-table", "CHIPS=310P3"], ["record", "FROM=x", "CHIP=310P3"]):
        built.make(*words, *goals)
    named = "models/tinybert_sst2/model.toml: weights: models/tinybert_sst2/SST-2_model"
    for given, text in ((words, named), (("MODEL=tiny", "-n", "DATA=nope"), "DATA: nope")):
        built.refuses(f"{text}: no such file or folder; is it spelled right?", *given, "accuracy")


# ---- One table of chips
def test_units_stand_in_one_table():
    """No second list of them: neither in make's text, nor in a module that decides by them."""
    names = r"avx_vnni|avx512_vnni|amx_int8|i8mm"
    texts = [*ROOT.glob("mk/*.mk"), ROOT / "Makefile", ROOT / "lab/lab.mk", *ROOT.glob("tools/**/*.py")]
    holders = {p.relative_to(ROOT).as_posix() for p in texts if re.search(rf"[\"' ]({names})[\"' ,]", p.read_text())}
    assert holders - {"tools/setup/doctor.py"} == {"tools/make/chips.py"}, holders


def test_each_unit_that_openvino_needs_one_of():
    ways = {"int8": {"avx_vnni", "avx512_vnni", "asimddp", "i8mm"}, "bf16": {"avx512_bf16", "amx_bf16", "bf16"}}
    for precision, units in ways.items():
        assert {u for u in chips.TELLING if chips.units("openvino", precision, {u}) is not None} == units


OLD, ARM = {"avx2", "fma"}, {"asimd", "asimddp"}


@pytest.mark.parametrize(("flags", "bf16", "int8", "score"), [
    (OLD, "openvino", "native", ("native", "int8")),
    (OLD | {"avx_vnni"}, "openvino", "native", ("native", "int8")),
    (chips.AVX512 | OLD | {"avx512_vnni"}, "openvino", "native", ("native", "int8")),
    (chips.AVX512 | OLD | {"avx512_bf16", "avx512_vnni"}, "native", "native", ("native", "int8-bf16")),
    (chips.AVX512 | OLD | {"avx512_bf16", "amx_bf16", "amx_int8"}, "native", "native", ("native", "int8-bf16")),
    (ARM | {"bf16", "i8mm"}, "openvino", "openvino", ("openvino", "int8")),
])  # fmt: skip
def test_which_engine_a_cpu_gets(flags, bf16, int8, score):
    """The fastest, of a precision and of make score; ISA= takes units away again."""
    assert [chips.engine_for("cpu", p, flags) for p in ("bf16", "int8", "fp32")] == [bf16, int8, "onnxruntime"]
    assert chips.engine_for("cpu", "bf16", flags, packed=True) == "openvino"
    assert chips.for_score("sst2", flags) == score and chips.for_score("mrpc", flags)[1] != "int8"
    if flags >= OLD:
        assert chips.for_score("sst2", chips.leaves(flags, "AVX2")) == ("native", "int8")


def test_atc_is_where_the_compile_step_and_doctor_look(tmp_path, monkeypatch):
    """Under ~/Ascend, or where ATC= says, for one as for the other."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    assert atc.atc_path() == ""
    root, other = tmp_path / "Ascend/ascend-toolkit/latest", tmp_path / "other/bin"
    lay(tmp_path, {f"{folder}/atc": "#!/bin/sh\n" for folder in (root / "bin", other)})
    assert atc.find_cann("auto", [])["root"] == str(root) and atc.atc_path() == f"{root}/bin/atc"
    monkeypatch.setattr(doctor.ais_bench, "find_python", lambda: "python3")
    assert doctor.engines("auto", None)[:1] == ["atc"]
    assert any(here and f"{root}/bin/atc" in text for _, here, text in doctor.ascend("auto", None))
    said = doctor.ascend(str(other / "atc"), None)[0]
    assert said[1] and f"{other}/atc" in said[2] and atc.atc_path(str(other / "atc")) == f"{other}/atc"
    said = doctor.ascend("/nowhere/bin/atc", None)[0]
    assert not said[1] and "none is ATC=/nowhere/bin/atc" in said[2]


def test_a_table_of_an_engine_has_its_precisions_alone():
    table = makefile.Request(["ENGINE=onnxruntime", "BATCHES=4"], ["perf-table"], set())
    assert table.rows() == ["minilm_sst2/default/seq128/bs4/cpu-onnxruntime-fp32"]
