"""Other tasks than SST-2: metrics against values worked out by hand, GLUE's own columns, and three kinds of model
(pairs, five classes, scores) through the real Makefile. The models are small and seeded, the texts made up here."""

import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT, VENV, Repo

from tools import cli
from tools.base import cpu, tasks
from tools.checks import audit, verify
from tools.graph import export
from tools.results import record as records_of
from tools.results import schema
from tools.source import data, tokenizer, tokens

# --- metrics ----------------------------------------------------------------------------------------------------------
# Of [1, 1, 0, 0, 1] against [1, 0, 0, 1, 1]: 2 true positives, 1 true negative, 1 false positive, 1 false negative.
TRUTH, MADE = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]
BY_HAND = [
    ("accuracy", TRUTH, MADE, 3 / 5),
    ("f1", TRUTH, MADE, 2 * 2 / (2 * 2 + 1 + 1)),
    ("matthews", TRUTH, MADE, (2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5),
    ("accuracy", [1, 1], [1, -1], 1 / 2),  # a tie is wrong
    ("f1", [1, 1], [1, -1], 2 * 1 / (2 * 1 + 0 + 1)),
    ("pearson", [1, 2, 3, 4], [1, 2, 3, 5], 6.5 / (5 * 8.75) ** 0.5),
    ("spearman", [1, 2, 3, 4], [1, 3, 2, 40], 1 - 6 * 2 / (4 * 15)),
]


@pytest.mark.parametrize("metric, truth, made, want", BY_HAND)
def test_metrics_as_worked_out_by_hand(metric, truth, made, want):
    assert tasks.measure(metric, truth, made) == pytest.approx(want, abs=1e-9)
    figure = tasks.figure(metric, truth, made)
    low, high = figure["interval95"]
    assert low <= figure["value"] <= high and figure["value"] == round(want, 6)
    assert figure == tasks.figure(metric, truth, made), "the bootstrap repeats"
    assert figure["method"] == ("Wilson" if metric == "accuracy" else "bootstrap")


def test_a_metric_that_is_not_defined_is_none_with_the_reason():
    for metric, made in (("pearson", [2.0, 2.0, 2.0]), ("spearman", [2.0, 2.0, 2.0])):
        figure = tasks.figure(metric, [1.0, 2.0, 3.0], made)
        assert figure == {"value": None, "interval95": None, "method": "not defined: one side is constant"}
    assert np.isnan(tasks.measure("f1", [0, 0], [0, 0]))


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


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_benchmark(name, tmp_path):
    lines, text, label = FILES[name]
    (tmp_path / "dev.tsv").write_text(lines)
    assert data.read_tsv(tmp_path / "dev.tsv", tasks.TASKS[name]) == ([text], [label])


def test_every_task_of_the_benchmark_is_here_and_files_of_others_are_refused(tmp_path):
    assert set(FILES) | {"sentence", "pair", "score", "pair-score"} == set(tasks.TASKS)
    (tmp_path / "dev.tsv").write_text(FILES["sst2"][0])
    with pytest.raises(cli.UserError, match="names no column `#1 String` and `#2 String` or `sentence1` and"):
        data.read_tsv(tmp_path / "dev.tsv", tasks.TASKS["mrpc"])
    with pytest.raises(cli.UserError, match="TASK 'mprc' is not one of: sst2 cola"):
        tasks.known("mprc")


def test_pairs_need_inputs_that_tell_the_two_apart():
    pair = tasks.TASKS["mrpc"]
    tasks.refuse_without_types(("input_ids", "segment_ids", "input_mask"), pair, "m")
    with pytest.raises(cli.UserError, match="inputs are input_ids, attention_mask; add token_type_ids to INPUTS"):
        tasks.refuse_without_types(("input_ids", "attention_mask"), pair, "m")


# --- through make -------------------------------------------------------------------------------------------------------
WORDS = [
    "a",
    "the",
    "film",
    "plot",
    "actor",
    "music",
    "never",
    "not",
    "good",
    "bad",
    "slow",
    "fine",
    "is",
    "was",
    "ends",
]
PIECES = [*tokenizer.SPECIAL, *map(chr, range(33, 127)), *(f"##{chr(c)}" for c in range(33, 127)), *WORDS]
ROWS = 40
PAIR_NAMES = ["not_equivalent", "equivalent"]
FIVE = ["terrible", "bad", "so so", "good", "great"]


def texts(seed: int, count: int) -> list[str]:
    pick = np.random.default_rng(seed)
    return [" ".join(pick.choice(WORDS, pick.integers(3, 15))) for _ in range(count)]


def tsv(path, header: str, *columns):
    rows = ("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def save_checkpoint(folder, names):
    """A 2-layer BERT classifier of `names` with random weights, saved by transformers itself."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = BertConfig(vocab_size=len(PIECES), initializer_range=0.3, **small, **labels)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.build(PIECES, lowercase=True).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


def add(repo, name, like, checkpoint, task, inputs):
    """A model folder as README's "Add a model" makes it."""
    folder = repo.path / "models" / name
    subprocess.run(["cp", "-r", repo.path / "models" / like, folder], check=True)
    for file in ("config.json", "tokenizer_config.json"):
        (folder / file).write_bytes((checkpoint / file).read_bytes())
    values = {"WEIGHTS": checkpoint, "SEQ": 64, "INPUTS": " ".join(inputs), "TASK": task}
    (folder / "model.mk").write_text("".join(f"{name}.{k} := {v}\n" for k, v in values.items()))


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    repo = Repo(tmp_path_factory.mktemp("tasks"))
    shutil.rmtree(repo.path / "build", ignore_errors=True)  # no download is needed
    return repo


def transformers_says(checkpoint, given, inputs):
    """Float32 [n, labels] of PyTorch and the checkpoint's own tokenizer."""
    arrays = tokens.encode(tokens.load(checkpoint), given, 64, inputs)
    return export.logits(export.load(checkpoint), arrays)


def accuracy_of(repo, model, leaf="cpu-onnxruntime-fp32", seq="64"):
    return json.loads((repo.path / f"build/{model}/default/seq{seq}/bs8/{leaf}/accuracy.json").read_text())


def refuse_edits(box, record, **edits):
    """The record is one and follows from its predictions; with a better metric or any of the edits it is none."""
    assert schema.faults(record) == []
    (box / "record.json").write_text(json.dumps(record))
    assert list(audit.record_faults(box / "record.json")) == []
    metric = next(iter(record["metrics"]))
    better = record["metrics"][metric] | {"value": record["metrics"][metric]["value"] + 0.01}
    (box / "record.json").write_text(json.dumps(record | {"metrics": record["metrics"] | {metric: better}}))
    assert f"not what its predictions give: {metric}" in next(audit.record_faults(box / "record.json"))
    for field, value in edits.items():
        assert schema.faults(record | {field: value}), field


PAIR_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def test_pairs_by_the_readme(repo, tmp_path_factory):
    """README's "Other tasks", literally; then int8 from the task's own sentences, packed rows, score, audit, refusals."""
    box = tmp_path_factory.mktemp("pairs")
    checkpoint = save_checkpoint(box / "mine", PAIR_NAMES)
    first, second = texts(1, ROWS), texts(2, ROWS)
    truth = [i % 3 % 2 for i in range(ROWS)]
    own = tsv(box / "mine.tsv", "Quality\t#1 String\t#2 String", truth, first, second)
    section = re.search(r"^## Other tasks\n(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)[1]
    commands = re.search(r"^```bash\n(.*?)^```", section, re.M | re.S)[1]
    assert len(commands.splitlines()) == 5
    commands = commands.replace("/data/mine", str(box / "mine")).replace("make ", f"make VENV={VENV} SEQ=64 SAMPLES=4 ")
    done = subprocess.run(["bash", "-euc", commands], cwd=repo.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    logits = transformers_says(checkpoint, list(zip(first, second, strict=True)), PAIR_INPUTS)
    want = logits.argmax(1).tolist()
    assert 0 < sum(want) < ROWS, "the model gives one class alone: this test could not fail"
    alone = transformers_says(checkpoint, list(zip(first, texts(9, ROWS), strict=True)), PAIR_INPUTS)
    assert np.abs(alone - logits).max() > 0.01, "the second text changes nothing: this test could not fail"
    record = accuracy_of(repo, "mine")
    assert (record["task"], record["labels"], record["truth"]) == ("mrpc", PAIR_NAMES, truth)
    assert record["predictions"] == want
    right = sum(a == b for a, b in zip(want, truth, strict=True))
    hits = sum(a == b == 1 for a, b in zip(want, truth, strict=True))
    assert (record["correct"], record["total"]) == (right, ROWS) and f"({right}/{ROWS})" in done.stdout
    assert record["metrics"]["f1"]["value"] == pytest.approx(2 * hits / (sum(want) + sum(truth)), abs=1e-6)
    refuse_edits(box, record, truth=[2] * ROWS, predictions="1" * ROWS, task="mprc", metrics={}, correct=None)
    perf = json.loads((repo.path / "build/mine/default/seq64/bs8/cpu-onnxruntime-fp32/perf.json").read_text())
    assert perf["sentences"] == ROWS and perf["padded_rows"] == 0
    table = (repo.path / "results/local/accuracy-table.csv").read_text()
    assert ",task,f1" in table and f",{right},{ROWS}," in table and "mrpc" in table

    train = tsv(box / "train.tsv", "Quality\t#1 String\t#2 String", truth, texts(4, ROWS), texts(5, ROWS))
    given = ["MODEL=mine", "SEQ=64", f"DATA={own}"]
    assert "give TRAIN=" in repo.make(*given, "PRECISION=int8", "om", check=False).stderr
    repo.make(*given, "ENGINE=openvino", "PRECISION=int8", f"TRAIN={train}", "accuracy")
    assert len(accuracy_of(repo, "mine", "cpu-openvino-int8")["predictions"]) == ROWS
    repo.make(*given, "PACK=1", "accuracy")
    assert accuracy_of(repo, "mine", seq="64p")["predictions"] == want
    if has_native():
        repo.make(*given, "PRECISION=bf16", "accuracy")
        found = accuracy_of(repo, "mine", "cpu-native-bf16")["predictions"]
        assert sum(a != b for a, b in zip(found, want, strict=True)) <= 3
    assert "make bench is of SST-2 alone" in repo.make("MODEL=mine", "bench", check=False).stderr
    repo.make(*given[::2], f"INPUT={own}", "ENGINE=onnxruntime", "OUT=scored.csv", "score")
    scored = (repo.path / "scored.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in scored] == want
    assert "every link holds" in repo.make("audit").stdout
    words = records_of.make_words(accuracy_of(repo, "mine", "cpu-openvino-int8"))
    assert {f"DATA={own}", f"TRAIN={train}"} <= set(words)

    add(repo, "one", "mine", checkpoint, "sst2", PAIR_INPUTS)
    done = repo.make("MODEL=one", "onnx", check=False)
    assert done.returncode and "not_equivalent, equivalent; the task's are negative, positive" in done.stderr


def test_five_classes_by_name_in_columns_of_ones_own(repo, tmp_path_factory):
    box = tmp_path_factory.mktemp("five")
    checkpoint = save_checkpoint(box / "checkpoint", FIVE)
    add(repo, "five", "minilm_sst2", checkpoint, "sentence", PAIR_INPUTS[:2])
    given, truth = texts(6, ROWS), [i % 5 for i in range(ROWS)]
    own = tsv(box / "own.tsv", "who\tlabel\tsentence", itertools.repeat("me", ROWS), [FIVE[i] for i in truth], given)
    want = transformers_says(checkpoint, given, PAIR_INPUTS[:2]).argmax(1).tolist()
    assert len(set(want)) > 1, "the model gives one class alone: this test could not fail"
    repo.make("MODEL=five", f"DATA={own}", "accuracy")
    record = accuracy_of(repo, "five")
    assert (record["labels"], record["truth"], record["predictions"]) == (FIVE, truth, want)
    assert record["correct"] == sum(a == b for a, b in zip(want, truth, strict=True))
    if has_native():
        repo.make("MODEL=five", f"DATA={own}", "PRECISION=bf16", "accuracy")
        found = accuracy_of(repo, "five", "cpu-native-bf16")["predictions"]
        assert sum(a != b for a, b in zip(found, want, strict=True)) <= 3


def has_native():
    """Whether this CPU has the units for ENGINE=native in bf16."""
    return bool(cpu.ENGINES["native"]["bf16"] & cpu.cpu_flags())


def test_a_record_is_verified_with_its_own_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verify.from_here("DATA=mine.tsv") == f"DATA={tmp_path}/mine.tsv"
    assert verify.from_here("DATA=/a/mine.tsv") == "DATA=/a/mine.tsv" and verify.from_here("BS=8") == "BS=8"


def test_scores(repo, tmp_path_factory):
    """Regression: the record holds scores and correlations, and says of nothing that it is right."""
    box = tmp_path_factory.mktemp("scores")
    checkpoint = save_checkpoint(box / "checkpoint", ["score"])
    add(repo, "stsb", "bert_base_cased_mrpc", checkpoint, "stsb", PAIR_INPUTS)
    first, second = texts(7, ROWS), texts(8, ROWS)
    truth = [round(5 * i / ROWS, 2) for i in range(ROWS)]
    own = tsv(box / "own.tsv", "sentence1\tsentence2\tscore", first, second, truth)
    want = transformers_says(checkpoint, list(zip(first, second, strict=True)), PAIR_INPUTS)[:, 0]
    done = repo.make("MODEL=stsb", f"DATA={own}", "accuracy")
    record = accuracy_of(repo, "stsb")
    assert record["correct"] is record["accuracy"] is record["interval95"] is None
    refuse_edits(box, record, correct=3, accuracy=0.5, truth=["1"] * ROWS, predictions=[float("nan")] * ROWS)
    np.testing.assert_allclose(record["predictions"], want, atol=1e-4)
    pearson = float(np.corrcoef(want, truth)[0, 1])
    assert record["metrics"]["pearson"]["value"] == pytest.approx(pearson, abs=1e-4)
    assert re.search(r"^pearson +-?0\.\d{4}, 95 % interval", done.stdout, re.M) and "spearman" in done.stdout
