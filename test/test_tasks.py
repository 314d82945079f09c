"""Other tasks than SST-2: metrics against values worked out by hand, GLUE's own columns, make new-model, and four kinds
(pairs, three classes, scores, several labels) through the real Makefile. The models are small and seeded."""

import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import small
import torch
import transformers
from conftest import ROOT, WARM, Repo, edit_json, refused
from fake_cann import tiny
from sklearn import metrics

from tools.base import output_files, tasks
from tools.checks import audit, demo, reproduce, verify
from tools.graph import export
from tools.make import chips, cli, cpu, models
from tools.recipe import postprocess
from tools.results import compare, readme, schema
from tools.results import record as records_of
from tools.setup import new_model
from tools.source import architecture, checkpoint, data, tokenizer, tokens


# --- metrics ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric, truth, made, want", [  # scikit-learn says the rest
    ("accuracy", [1, 1, 0, 0, 1], [1, 0, 0, 1, 1], 3 / 5),
    ("accuracy", [1, 1], [1, -1], 1 / 2),  # a tie is wrong
    ("f1", [1, 1], [1, -1], 2 * 1 / (2 * 1 + 0 + 1)),
    ("pearson", [1, 2, 3, 4], [1, 2, 3, 5], 6.5 / (5 * 8.75) ** 0.5),
    ("spearman", [1, 2, 3, 4], [1, 3, 2, 40], 1 - 6 * 2 / (4 * 15)),
    ("f1_macro", [[4]], [[4]], 1.0),  # labels that nobody named do not count
])  # fmt: skip
def test_metrics_as_worked_out_by_hand(metric, truth, made, want):
    assert tasks.measure(metric, truth, made) == pytest.approx(want, abs=1e-9)
    figure = tasks.figure(metric, truth, made)
    low, high = figure["interval95"]
    assert low <= figure["value"] <= high and figure["value"] == round(want, 6)
    assert figure == tasks.figure(metric, truth, made), "the bootstrap repeats"
    assert figure["method"] == ("Wilson" if metric == "accuracy" else "bootstrap")


def test_metrics_and_their_bootstrap_against_scikit_learn():
    """The interval is the middle 95 percent of resamples one by one."""
    pick = np.random.default_rng(1)
    truth, made = pick.integers(0, 2, (2, 40))
    ties = np.where(pick.random(40) < 0.2, -1, made)
    many = pick.random((2, 40, 3)) < 0.4
    lists = [[np.flatnonzero(row).tolist() for row in side] for side in many]
    f1 = lambda how: lambda a, b: metrics.f1_score(a, b, average=how, zero_division=np.nan)
    cases = [("f1", truth, made, metrics.f1_score), ("matthews", truth, ties, metrics.matthews_corrcoef)]
    cases += [(f"f1_{how}", *many, f1(how)) for how in ("micro", "macro")]
    for metric, a, b, want in cases:
        given = lists if a.ndim == 2 else (a, b)
        assert tasks.measure(metric, *given) == pytest.approx(want(a, b)), metric
        rows = np.random.default_rng(0).integers(0, 40, (200, 40))
        low, high = tasks.bootstrap(metric, *given, resamples=200)
        found = np.nanpercentile([want(a[r], b[r]) for r in rows], [2.5, 97.5])
        assert (low, high) == pytest.approx(found, abs=1e-5), metric
    assert tasks.measure("matthews", [1, 0], [1, 1]) == metrics.matthews_corrcoef([1, 0], [1, 1]) == 0
    assert np.isnan(tasks.measure("f1", [0, 0], [0, 0]))


def test_a_correlation_of_one_row_or_of_a_constant_is_not_defined():
    for rows, metric in itertools.product(([1.0], [1.0, 2.0]), ("pearson", "spearman")):
        figure = tasks.figure(metric, rows, [2.0] * len(rows))
        assert figure == {"value": None, "interval95": None, "method": "not defined: one side is constant"}
        lines = list(postprocess.lines_of({"metrics": {metric: figure}, "total": len(rows)}, ""))
        assert lines == [f"{metric}: not defined: one side is constant"]


def test_margin_and_class_of_logits():
    logits = np.float32([[1, 3, 2], [5, 5, 1], [4, 1, 4], [-2, -3, -2.5], [0, 0, 0], [7, 7.5, 7]])
    np.testing.assert_array_equal(output_files.margins(logits), np.float32([1, 0, 0, 0.5, 0, 0.5]))
    assert output_files.classes_of(logits).tolist() == [1, -1, -1, 0, -1, 1]
    assert output_files.margins(logits[:, :1]).tolist() == [np.inf] * 6
    assert output_files.classes_of(logits[:, :1]).tolist() == [0] * 6
    assert output_files.classes_above(logits, 0.5) == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [], [0, 1, 2], [0, 1, 2]]
    assert output_files.classes_above(np.float32([[1.38, 1.39, -9]]), 0.8) == [[1]]  # log(0.8 / 0.2) = 1.3863


# --- labels: (the checkpoint's, the task's, where each of the task's is among the checkpoint's; None: refused) -------------
@pytest.mark.parametrize("given, wanted, order", [
    (["C", "C++", "C#"], ["C", "C++", "C#"], [0, 1, 2]), (["C#", "C", "C++"], ["C", "C++", "C#"], [1, 2, 0]),
    (["A", "A+", "A-"], ["A-", "A", "A+"], [2, 0, 1]), (["+", "-"], ["-", "+"], [1, 0]),
    (["❤", "😍", "😂"], ["😂", "❤", "😍"], [2, 0, 1]), (["us", "US", "Us"], ["Us", "us", "US"], [2, 0, 1]),
    (["c#", "c", "c++"], ["C", "C++", "C#"], [1, 2, 0]), (["NEG", "POS"], ["negative", "positive"], [0, 1]),
    (["LABEL_0", "LABEL_1"], ["negative", "positive"], [0, 1]),
    (["5", "4", "3", "2", "1"], ["1", "2", "3", "4", "5"], [4, 3, 2, 1, 0]),
    (["C.", "C!", "D"], ["C++", "C#", "D"], None), (["+", "-"], ["positive", "negative"], None),
    (["us", "US"], ["Us", "uS"], None), (["1", "2", "3"], ["-1", "0", "1"], None),
])  # fmt: skip
def test_labels_are_told_apart_exactly(given, wanted, order):
    if order is not None:
        assert tasks.order(given, wanted, "x") == order
    else:
        says = f"the labels are {', '.join(given)}; the task's are {', '.join(wanted)}"
        refused(re.escape(says), tasks.order, given, wanted, "x")


STARS, GRADES, JOY = ("1", "2", "3", "4", "5"), ("A", "A+", "A-"), ("joy, or love", "fear")
ONE_CLASS, NO_STAR = "several at once; this task has one class a text: write task = .labels", "not one of 1, 2"
# {(task, its labels): {what stands in the data: its class, or what is said of it}}
SAID = {
    ("sst2", ()): {"NEG": 0},
    ("sentence", STARS): {"1": 0, "5": 4, "-1": None, "-1.0": None, "0": NO_STAR, "1.0": NO_STAR, "-2": NO_STAR},
    ("sentence", ("-1", "0", "1")): {"-1": 0},
    ("sentence", ("1 star", "2 stars")): {"1": "label '1' is not one of 1 star, 2 stars", "2 Stars": 1},
    ("sentence", ("LABEL_0", "LABEL_1")): {"1": 1},
    ("sentence", GRADES): {"A+": 1, "a-": 2, "2": 2, "A*": "not 0 or 1 or 2 or one of A, A", "A,A+": ONE_CLASS},
    ("sentence", ("❤", "😍", "😂")): {"😍": 1},
    ("sentence", ("a", "b", "ab")): {"a,b": ONE_CLASS, '["a"]': ONE_CLASS, "[]": ONE_CLASS},
    ("sentence", ("joy, or love", "joy")): {"Joy, or love": 0},
    ("sentence", ("[A] b", "c")): {"[a] B": 0},
    ("pair", GRADES): {"0, 2": "several at once"},
    ("labels", GRADES): {"0,2": [0, 2], "A-, A": [0, 2], '["A+", "A+"]': [1], "[]": [], "": None,
                         "A,B": "label 'B' is not", "['A']": "are no JSON list", "[" * 60000: "are no JSON list"},
    ("labels", JOY): {"joy, or love": [0]},
}  # fmt: skip


@pytest.mark.parametrize("question", SAID)
def test_what_a_label_of_the_data_says(question):
    (name, names), label_of = question, tasks.label_of
    for text, want in SAID[question].items():
        if isinstance(want, str):
            refused(want, label_of, text, tasks.TASKS[name], names, "x:2")
        else:
            assert label_of(text, tasks.TASKS[name], names, "x:2") == want, text


def test_several_labels_in_columns_of_their_own(tmp_path):
    path = tsv(tmp_path / "x.tsv", "id\tsentence\ttoxic\tobscene", [7, 8], ["a", "b"], [1, 0], ["1", "0"])
    assert data.read_tsv(path, tasks.TASKS["labels"], ["obscene", "toxic"]) == (["a", "b"], [[0, 1], []])
    for name, columns, row, says in (
        ("labels", "toxic\tobscene", "1\tyes", "x.tsv:2: obscene is 'yes', not 0 or 1"),
        ("labels", "toxic", "1", "no column `labels` or `label`, or one for each label"),
        ("sentence", "toxic\tobscene", "1\t1", "a column for each label; this task has one class a text"),
    ):
        path.write_text(f"sentence\t{columns}\na\t{row}\n")
        refused(says, data.read_tsv, path, tasks.TASKS[name], ["toxic", "obscene"])


@pytest.mark.parametrize("key, problem, name, says", [
    ("problem_type", "multi_label_classification", "sentence", "is {}: several labels at once; give the task labels or"),
    ("problem_type", "single_label_classification", "labels", "is {}: one class a text"),
    ("problem_type", "regression", "sentence", "is {}: numbers; give the task score or pair-score, which have one"),
    ("finetuning_task", "SST-2", "mrpc", "fine-tuned on {}, one text a row; this task has a pair of texts"),
])  # fmt: skip
def test_a_checkpoint_of_another_kind_of_problem_is_refused(key, problem, name, says):
    refused(says.format(problem), tasks.refuse_others, {key: problem}, tasks.TASKS[name], "x")


# --- columns, as the benchmark's files have them: (first lines of a file, the text and the label of its first row) ------
FILES = {
    "cola": ("gj04\t1\t\tOur friends.\n", "Our friends.", 1),
    "sst2": ("sentence\tlabel\na film\t0\n", "a film", 0),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe \"said\tso.\n", ('He "said', "so."), 1),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy?\tHow?\t0\n", ("Why?", "How?"), 0),
    "stsb": ("index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t3.25\n", ("a", "b"), 3.25),
    "mnli": ("index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n", ("a", "b"), 2),
    "mnli-mm": ("premise\thypothesis\tlabel\na\tb\t1\n", ("a", "b"), 1),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n", ("a", "b"), 1),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", ("a", "b"), 1),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t0\n", ("a", "b"), 0),
}  # fmt: skip


def test_files_of_the_benchmark_and_those_of_other_tasks(tmp_path):
    path = tmp_path / "dev.tsv"
    for name, (lines, text, label) in FILES.items():
        path.write_text(lines)
        assert data.read_tsv(path, tasks.TASKS[name]) == ([text], [label]), name
    assert set(FILES) | {"sentence", "pair", "score", "pair-score", "labels", "pair-labels"} == set(tasks.TASKS)
    path.write_text(FILES["sst2"][0])
    says = "names no column `#1 String` and `#2 String` or `sentence1` and"
    refused(says, data.read_tsv, path, tasks.TASKS["mrpc"])
    refused("TASK 'mprc' is not one of: sst2 cola", tasks.by_name, "mprc")


def test_pairs_need_inputs_that_tell_the_two_apart():
    pair = tasks.TASKS["mrpc"]
    tasks.refuse_without_types(("input_ids", "segment_ids", "input_mask"), pair, "m")
    says = "inputs are input_ids, attention_mask; add token_type_ids to inputs"
    refused(says, tasks.refuse_without_types, ("input_ids", "attention_mask"), pair, "m")


# --- through make -------------------------------------------------------------------------------------------------------
WORDS = "a the film plot actor music never not good bad slow fine is was ends".split()  # noqa: SIM905
PIECES = [*tokenizer.SPECIAL, *map(chr, range(33, 127)), *(f"##{chr(c)}" for c in range(33, 127)), *WORDS]
ROWS = 40
PAIR_NAMES = ["not_equivalent", "equivalent"]
PAIR_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HAS_NATIVE = chips.units("native", "bf16", cpu.cpu_flags()) is not None


def texts(seed: int, count: int) -> list[str]:
    pick = np.random.default_rng(seed)
    return [" ".join(pick.choice(WORDS, pick.integers(3, 15))) for _ in range(count)]


def tsv(path, header: str, *columns):
    rows = ("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def save_checkpoint(folder, names, seed=3):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = transformers.BertConfig(vocab_size=len(PIECES), initializer_range=0.3, **sizes, **labels)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    small.wordpiece(PIECES).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


def add(repo, name, checkpoint, task):
    """A model folder of pairs as somebody would copy it."""
    folder = repo.path / "models" / name
    shutil.copytree(repo.path / "models/bert_base_cased_mrpc", folder)
    for file in ("config.json", "tokenizer_config.json"):
        (folder / file).write_bytes((checkpoint / file).read_bytes())
    values = {"weights": str(checkpoint), "seq": 64, "inputs": list(PAIR_INPUTS), "task": task}
    (folder / "model.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    repo = Repo(tmp_path_factory.mktemp("tasks"))
    shutil.rmtree(repo.path / "build", ignore_errors=True)  # of the downloads, which audit would hold to other sources
    return repo


def logits_of(checkpoint, given, inputs=PAIR_INPUTS):
    """Float32 [n, labels] of PyTorch and the checkpoint's own tokenizer."""
    return export.logits(export.load(checkpoint), tokens.encode(tokens.load(checkpoint), given, 64, inputs))


def accuracy_of(repo, model, leaf="cpu-onnxruntime-fp32", seq="64"):
    return cli.read_json(repo.path / f"build/{model}/default/seq{seq}/bs8/{leaf}/accuracy.json")


def refuse_edits(box, record, **edits):
    """The record is one and follows from its predictions; with a better metric or any of the edits it is none."""
    assert schema.faults(record) == []
    path = box / records_of.name_of(record)
    path.write_text(json.dumps(record))
    assert list(audit.record_faults(path)) == []
    metric = next(iter(record["metrics"]))
    better = record["metrics"][metric] | {"value": record["metrics"][metric]["value"] + 0.01}
    path.write_text(json.dumps(record | {"metrics": record["metrics"] | {metric: better}}))
    assert f"not what its predictions give: {metric}" in next(audit.record_faults(path))
    for field, value in edits.items():
        assert schema.faults(record | {field: value}), field


@pytest.fixture(scope="module")
def pairs(repo, tmp_path_factory):
    """docs/models.md's "Add a model", literally: the model `mine` in the copy, and all that the tests hold it to."""
    box = tmp_path_factory.mktemp("pairs")
    checkpoint = save_checkpoint(box / "mine", PAIR_NAMES)
    first, second = texts(1, ROWS), texts(2, ROWS)
    truth = [i % 3 % 2 for i in range(ROWS)]
    own = tsv(box / "mine.tsv", "Quality\t#1 String\t#2 String", truth, first, second)
    edit_json(checkpoint / "config.json", finetuning_task="mrpc")
    section = (ROOT / "docs/models.md").read_text("utf-8").split("## Add a model\n")[1].split("\n## ")[0]
    commands = "\n".join(re.findall(r"^    (make .*)", section, re.M))
    assert len(commands.splitlines()) == 3
    commands = commands.replace("/data/mine", str(box / "mine")).replace(" perf-table ", " perf-table ROUNDS=1 ")
    commands = commands.replace("make ", f"make VENV={WARM} SEQ=64 SAMPLES=4 ")
    done = subprocess.run(["bash", "-euc", commands], cwd=repo.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    logits = logits_of(checkpoint, list(zip(first, second, strict=True)))
    want = logits.argmax(1).tolist()
    assert 0 < sum(want) < ROWS, "the model gives one class alone: these tests could not fail"
    alone = logits_of(checkpoint, list(zip(first, texts(9, ROWS), strict=True)))
    assert np.abs(alone - logits).max() > 0.01, "the second text changes nothing: these tests could not fail"
    return SimpleNamespace(box=box, checkpoint=checkpoint, own=own, truth=truth, want=want, said=done.stdout)


def test_pairs_by_the_page(repo, pairs):
    want, truth, record = pairs.want, pairs.truth, accuracy_of(repo, "mine")
    assert (record["task"], record["labels"]) == ("mrpc", PAIR_NAMES)
    assert (record["truth"], record["predictions"]) == (truth, want)
    right = sum(map(np.equal, want, truth))
    assert (record["correct"], record["total"]) == (right, ROWS) and f"({right}/{ROWS})" in pairs.said
    assert record["metrics"]["f1"]["value"] == pytest.approx(tasks.measure("f1", truth, want), abs=1e-6)
    refuse_edits(pairs.box, record, truth=[2] * ROWS, predictions="1" * ROWS, task="mprc", metrics={}, correct=None)
    perf = json.loads((repo.path / "build/mine/default/seq64/bs8/cpu-onnxruntime-fp32/perf.json").read_text())
    assert perf["sentences"] == ROWS and perf["padded_rows"] == 0
    table = (repo.path / "results/local/accuracy-table.csv").read_text()
    assert ",task,f1" in table and f",{right},{ROWS}," in table and "mrpc" in table


@pytest.mark.parametrize("words, leaf", [
    ("SEQ=real ENGINE=openvino PRECISION=bf16", "seqreal/bs8/cpu-openvino-bf16"),
    ("PACK=1 CHIP=310P3", "seq64p/bs8/310P3-atc-fp16"),
], ids=lambda v: v if "=" in v else "")  # fmt: skip
def test_pairs_on_every_route(repo, pairs, words, leaf):
    """Own lengths, another precision, packed rows, and an Ascend chip by the stand-ins: the same classes."""
    if "bf16" in words and not cpu.cpu_flags() & chips.BF16:
        pytest.skip("this CPU has no bf16 unit")
    ascend = tiny.environment() if "CHIP" in words else None
    repo.make("MODEL=mine", "SEQ=64", f"DATA={pairs.own}", *words.split(), "accuracy", env=ascend)
    record = cli.read_json(repo.path / f"build/mine/default/{leaf}/accuracy.json")
    assert (record["predictions"], record["truth"]) == (pairs.want, pairs.truth)
    assert record["task"] == "mrpc" and record["standin"] is bool(ascend)


def test_pairs_on_a_gpu(repo, pairs):
    """trtexec times zeros: what it is given is the graph, with its three inputs."""
    words = ("MODEL=mine", "SEQ=64", f"DATA={pairs.own}", "CHIP=T4", "perf", "SAMPLES=4", "ROUNDS=1")
    repo.make(*words, env=tiny.environment())
    leaf = repo.path / "build/mine/default/seq64/bs8"
    assert json.loads((leaf / "T4-trtexec-fp16/perf.json").read_text())["sentences"] == ROWS
    assert {i.name for i in onnx.load(leaf / "gpu.onnx").graph.input} == set(PAIR_INPUTS)


def test_pairs_int8_score_and_refusals(repo, pairs):
    """int8 from the task's own sentences; score of one file and of many, audit, and what is refused."""
    own, want, box = pairs.own, pairs.want, pairs.box
    train = tsv(box / "train.tsv", "Quality\t#1 String\t#2 String", pairs.truth, texts(4, ROWS), texts(5, ROWS))
    given = ["MODEL=mine", "SEQ=64", f"DATA={own}"]
    repo.refuses("give TRAIN=", *given, "PRECISION=int8", "om")
    engine = "openvino" if cpu.cpu_flags() & chips.VNNI else "native"
    repo.make(*given, f"ENGINE={engine}", "PRECISION=int8", f"TRAIN={train}", "accuracy")
    assert len(accuracy_of(repo, "mine", f"cpu-{engine}-int8")["predictions"]) == ROWS
    if HAS_NATIVE:
        repo.make(*given, "PRECISION=bf16", "accuracy")
        assert sum(map(np.not_equal, accuracy_of(repo, "mine", "cpu-native-bf16")["predictions"], want)) <= 3
    audited = repo.make("audit", check=False)  # of this tree's own tables it may say more
    assert "broken: build/" not in audited.stdout and "breaks at build/" not in audited.stderr
    words = records_of.make_words(accuracy_of(repo, "mine", f"cpu-{engine}-int8"))
    assert {f"DATA={own}", f"TRAIN={train}"} <= set(words)
    repo.refuses("models/mine has none", "-n", *given, "WEIGHTS=wheel", "om")
    repo.refuses("make bench is of SST-2 alone", "MODEL=mine", "bench")
    scoring = ("MODEL=mine", "ENGINE=onnxruntime", "score")  # without DATA=: its graph is checked on SST-2's sentences
    if (ROOT / "build/downloads").is_dir():
        shutil.copytree(ROOT / "build/downloads", repo.path / "build/downloads")
    (many := repo.path / "many").mkdir()
    (many / "a.tsv.gz").write_bytes(gzip.compress(own.read_bytes()))  # the benchmark's names of the columns
    frame = pd.read_csv(own, sep="\t").rename(columns={"#1 String": "sentence1", "#2 String": "sentence2"})
    frame.to_parquet(many / "b.parquet")
    assert f"{2 * ROWS} sentences in 1 parts" in repo.make(*scoring, "INPUT=many", "OUT=scored").stdout
    part = pd.read_parquet(repo.path / "scored/00000-00000.parquet")
    assert part["prediction"].tolist() == 2 * want and part["label"].tolist() == [PAIR_NAMES[i] for i in 2 * want]

    add(repo, "one", pairs.checkpoint, "sst2")
    repo.refuses("not_equivalent, equivalent; the task's are negative, positive", "MODEL=one", "onnx")


def test_texts_by_a_relative_path_are_found_in_a_copy(repo, pairs, monkeypatch, capsys):
    """make reproduce, demo-ascend and verify work in copies of the tree."""
    monkeypatch.chdir(repo.path)
    given = os.path.relpath(pairs.own)
    repo.make("MODEL=mine", f"DATA={given}", "build/data/mine/dev.tsv")
    words = ["build/data/mine/dev.tsv", "--", "MODEL=mine", f"DATA={given}", f"VENV={WARM}"]
    monkeypatch.setattr(sys, "argv", ["reproduce", *words])
    reproduce.main()
    assert "are the same, byte for byte" in capsys.readouterr().out
    monkeypatch.setattr(demo, "GOALS", words[:1])
    monkeypatch.setattr(sys, "argv", ["demo", "310P3", *words[1:]])
    demo.main()
    made = repo.path / "build/demo/build/data/mine/dev.tsv"
    assert made.read_bytes() == (repo.path / "build/data/mine/dev.tsv").read_bytes()


NLI = ["contradiction", "entailment", "neutral"]  # the checkpoint's own order, which is not the benchmark's


def test_three_classes_of_pairs(repo, tmp_path):
    """MNLI: the matched set as the benchmark's files have it, through buckets to an Ascend chip by the stand-ins."""
    checkpoint = save_checkpoint(tmp_path / "checkpoint", NLI, seed=9)
    add(repo, "mnli", checkpoint, "mnli")
    given, truth = list(zip(texts(11, ROWS), texts(12, ROWS), strict=True)), [i % 3 for i in range(ROWS)]
    wanted = list(tasks.TASKS["mnli"].labels)
    said = [wanted[i] for i in truth]
    own = tsv(tmp_path / "own.tsv", "sentence1\tsentence2\tgold_label", *zip(*given, strict=True), said)
    want = [wanted.index(NLI[i]) for i in logits_of(checkpoint, given).argmax(1)]
    assert len(set(want)) > 1, "the model gives one class alone: this test could not fail"
    repo.make("MODEL=mnli", f"DATA={own}", "CHIP=310P3", "SEQ=32,64", "accuracy", env=tiny.environment())
    record = accuracy_of(repo, "mnli", "310P3-atc-fp16", "32-64")
    assert (record["task"], record["labels"], record["truth"]) == ("mnli", wanted, truth)
    assert record["predictions"] == want


def test_scores(repo, tmp_path, monkeypatch):
    """Regression: the record holds scores and correlations, and says of nothing that it is right."""
    checkpoint = save_checkpoint(tmp_path / "checkpoint", ["score"])
    add(repo, "stsb", checkpoint, "stsb")
    first, second = texts(7, ROWS), texts(8, ROWS)
    truth = [round(5 * i / ROWS, 2) for i in range(ROWS)]
    tsv(repo.path / "own.tsv", "sentence1\tsentence2\tscore", first, second, truth)
    want = logits_of(checkpoint, list(zip(first, second, strict=True)))[:, 0]
    done = repo.make("MODEL=stsb", "DATA=own.tsv", "accuracy")
    record = accuracy_of(repo, "stsb")
    assert record["correct"] is record["accuracy"] is record["interval95"] is None
    refuse_edits(tmp_path, record, correct=3, accuracy=0.5, truth=["1"] * ROWS, predictions=[float("nan")] * ROWS)
    np.testing.assert_allclose(record["predictions"], want, atol=1e-4)
    pearson = float(np.corrcoef(want, truth)[0, 1])
    assert record["metrics"]["pearson"]["value"] == pytest.approx(pearson, abs=1e-4)
    assert re.search(r"^pearson +-?0\.\d{4}, 95 % interval", done.stdout, re.M) and "spearman" in done.stdout
    repo.make("MODEL=stsb", "record")
    monkeypatch.chdir(repo.path)
    value = record["metrics"]["pearson"]["value"]
    ours = [r for r in readme.records() if r["model"] == "stsb"]  # of whatever machine
    assert f"| pearson {value:.4g}, spearman " in readme.best_table(repo.path, ours).replace("  ", "")
    held, words = verify.accuracy_verdict(record, record)
    assert held and words.startswith(f"pearson {value} spearman") and words.endswith("as recorded")
    refused("scores, of which none is right", compare.comparison, record, record)


# --- make new-model: a folder of models/ at the first try, for whatever labels and files a checkpoint has ------------
MODEL_FILES = {*new_model.SCRIPTS, "config.json", "tokenizer_config.json", "model.toml"}
# (labels, more of config.json, TASK=, the task that is written)
CASES = {
    "two": (["NEGATIVE", "POSITIVE"], {}, "", "sentence"),
    "said-sst2": (["NEGATIVE", "POSITIVE"], {"finetuning_task": "glue:sst2"}, "", ""),
    "no-names": (None, {"finetuning_task": "sst2"}, "", ""),
    "three": (["负面", "中性", "正面"], {}, "", "sentence"),
    "five": (["1", "2", "3", "4", "5"], {}, "", "sentence"),
    "odd": (["joy, or love", "😍", "C++"], {}, "", "sentence"),
    "score": (["LABEL_0"], {}, "", "score"),
    "reranker": (["LABEL_0"], {"sentence_transformers": {"version": "4.1.0"}}, "", "pair-score"),
    "nli": (["entailment", "neutral", "contradiction"], {}, "", "pair"),
    "pair": (["no", "yes"], {}, "pair", "pair"),
    "mrpc": (["not_equivalent", "equivalent"], {"finetuning_task": "glue:mrpc"}, "", "mrpc"),
    "several": (["toxic", "obscene", "threat"], {"problem_type": "multi_label_classification"}, "", "labels"),
    "unsaid": (["toxic", "obscene"], {}, "labels", "labels"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "models/minilm_sst2", tmp_path / "models/minilm_sst2")
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path / "models")
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_the_checkpoint_says_it_all(here, case):
    names, more, given, task = CASES[case]
    mine = save_checkpoint(here / "mine", names or ["a", "b"])
    edit_json(mine / "config.json", **more, **({} if names else {"id2label": ..., "label2id": ...}))
    lines = new_model.make("mine", str(mine), given)
    values = models.settings("mine", here / "models")
    task_of_it = tasks.TASKS[name := values["task"] or tasks.DEFAULT]
    assert (values["weights"], values["seq"], values["task"]) == (str(mine), "128", task)
    assert values["inputs"] == list(PAIR_INPUTS if task_of_it.pair else PAIR_INPUTS[:2])
    assert lines[-1].startswith("next: make MODEL=mine accuracy") and ("DATA=" in lines[-1]) == (name != "sst2")
    unsure = [line for line in lines if line.startswith(f"task {name}: ")]
    assert bool(unsure) == (not given and "finetuning_task" not in more)
    assert ["for several labels: TASK=labels" in line for line in unsure] == [name == "sentence"] * len(unsure)
    assert {p.name for p in (here / "models/mine").iterdir()} == MODEL_FILES
    assert not [p for p in (here / "models").iterdir() if p.name.startswith(".")]
    # and the steps after it take the folder as it is
    checkpoint.make(str(mine), here / "models/mine", None, here / "out", name)
    labels = tasks.labels(task_of_it, architecture.read_config(here / "out/config.json")["labels"], "")
    assert labels == list(task_of_it.labels or names)


@pytest.mark.parametrize("values, says", [
    ({"name": "min ilm"}, "not letters, digits"), ({"name": "../x"}, "not letters, digits"), ({"name": ".x"}, "not letters"),
    ({"name": "minilm_sst2"}, "models/minilm_sst2: is there already; give another NAME"),
    ({"source": "wheel"}, "no checkpoint of one's own"), ({"source": "/nowhere"}, "no such folder or zip"),
    ({"task": "mprc"}, "TASK 'mprc' is not one of"), ({"task": "score"}, "this task has one score"),
    ({"task": "mnli"}, "the labels are a, b; the task's are entailment"),
    ({"config": {"problem_type": "regression"}}, "problem_type is regression: numbers"),
    ({"config": {"model_type": ..., "num_hidden_groups": 1}}, "those of fairseq or albert_pytorch; give it as WEIGHTS= to"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(here, values, says):
    mine = save_checkpoint(here / "mine", ["a", "b"])
    asked = {"name": "mine", "source": str(mine), "task": "", "config": {}} | values
    edit_json(mine / "config.json", **asked.pop("config"))
    refused(says, new_model.make, *asked.values())
    assert [p.name for p in (here / "models").iterdir()] == ["minilm_sst2"]


def test_a_tokenizer_is_tried_apart_first(here, monkeypatch):
    small.tokenizer_takes_too_much(monkeypatch)
    refused("takes more than it may", new_model.make, "two", str(save_checkpoint(here / "mine", ["a", "b"])))


def test_odd_labels_and_a_vocabulary_alone(repo, tmp_path):
    """Five labels that only exact names tell apart, in a column of one's own, and no file that says how to tokenise."""
    names = ["正面, 非常", "C", "C++", "so so", "😍"]
    mine = save_checkpoint(tmp_path, names, seed=7)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mine / name).unlink()
    (mine / "vocab.txt").write_text("".join(f"{p}\n" for p in PIECES))
    given, truth = texts(21, 40), [i % 5 for i in range(40)]
    own = tsv(tmp_path / "own.tsv", "who\tlabel\tsentence", ["me"] * 40, [names[i] for i in truth], given)
    before = repo.files()
    done = repo.make("new-model", "NAME=odd", f"FROM={mine}")
    assert "no file says do_lower_case; transformers' own default for such a folder is true" in done.stdout
    after = repo.files()
    added = {n for n in after if before.get(n) != after[n] and not n.startswith("build/") and "__pycache__" not in n}
    assert added == {f"models/odd/{n}" for n in MODEL_FILES}
    done = repo.make("MODEL=odd", "SEQ=32", f"DATA={own}", "PRECISION=fp16-sim", "accuracy")
    want = logits_of(mine, given, PAIR_INPUTS[:2]).argmax(1).tolist()
    record = accuracy_of(repo, "odd", "cpu-onnxruntime-fp16-sim", "32")
    assert len(set(want)) > 1, "the model gives one class alone: this test could not fail"
    assert (record["labels"], record["predictions"], record["truth"]) == (names, want, truth)
    assert f"({sum(map(np.equal, want, truth))}/40)" in done.stdout


def test_several_labels_at_once(repo, tmp_path, monkeypatch):
    """From a zip to the record: sigmoid and threshold for each label, micro and macro F1."""
    names = ["toxic", "obscene", "threat"]
    mine = save_checkpoint(tmp_path / "mine", names)
    edit_json(mine / "config.json", problem_type="multi_label_classification")
    zipped = shutil.make_archive(mine, "zip", tmp_path, "mine")
    given = texts(22, 40)
    marks = np.random.default_rng(5).integers(0, 2, (3, 40))
    own = tsv(tmp_path / "own.tsv", "sentence\t" + "\t".join(names), given, *marks)
    repo.make("new-model", "NAME=several", f"FROM={zipped}")
    chance = 1 / (1 + np.exp(-logits_of(mine, given, PAIR_INPUTS[:2]).astype(np.float64)))
    threshold = str(float(np.round(np.quantile(chance, 0.6), 3)))
    truth = [np.flatnonzero(row).tolist() for row in marks.T]
    for word, leaf, least in ((), "", 0.5), ((f"THRESHOLD={threshold}",), f".t{threshold}", float(threshold)):
        done = repo.make("MODEL=several", "SEQ=32", f"DATA={own}", "accuracy", *word)
        record = accuracy_of(repo, "several", f"cpu-onnxruntime-fp32{leaf}", "32")
        want = [np.flatnonzero(row >= least).tolist() for row in chance]
        assert (record["task"], record["labels"], record["truth"]) == ("labels", names, truth)
        assert record["predictions"] == want and record.get("threshold", "0.5") == str(least)
        assert record["correct"] == sum(a == b for a, b in zip(want, truth, strict=True))
        micro = tasks.measure("f1_micro", truth, want)
        assert record["metrics"]["f1_micro"]["value"] == pytest.approx(micro, abs=1e-6)
        assert set(record["metrics"]) == {"f1_micro", "f1_macro"} and "f1_micro" in done.stdout
        refuse_edits(tmp_path, record, truth=[[3]] * 40, predictions=[0] * 40, metrics={})
    monkeypatch.chdir(repo.path)
    leaves = [p.relative_to(repo.path) for p in repo.path.glob("build/several/default/seq32/bs8/*/accuracy.json")]
    assert len(leaves) == 2 and [list(audit.leaf_faults(leaf)) for leaf in leaves] == [[], []]
    repo.refuses("THRESHOLD='1.5' is no number between 0 and 1", "MODEL=several", "THRESHOLD=1.5", "accuracy")
    repo.make("MODEL=several", "SEQ=32", f"DATA={own}", "record")
