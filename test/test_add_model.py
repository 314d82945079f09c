"""make new-model: a folder of models/ at the first try, for whatever labels and files a checkpoint has; and on to its accuracy."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
from conftest import ROOT, Repo
from test_tasks import PIECES, accuracy_of, has_native, refuse_edits, save_checkpoint, texts, tsv

from tools.base import tasks
from tools.checks import audit
from tools.graph import export
from tools.make import cli, models
from tools.setup import new_model
from tools.source import architecture, checkpoint, data, tokenizer, tokens

TWO, THREE = ("input_ids", "attention_mask"), ("input_ids", "attention_mask", "token_type_ids")
FILES = {*new_model.SCRIPTS, "config.json", "tokenizer_config.json", "model.toml"}
NLI = ["entailment", "neutral", "contradiction"]
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
    "nli": (NLI, {}, "", "pair"),
    "pair": (["no", "yes"], {}, "pair", "pair"),
    "mrpc": (["not_equivalent", "equivalent"], {"finetuning_task": "glue:mrpc"}, "", "mrpc"),
    "several": (["toxic", "obscene", "threat"], {"problem_type": "multi_label_classification"}, "", "labels"),
    "unsaid": (["toxic", "obscene"], {}, "labels", "labels"),
}


def edit(path, **values):
    path.write_text(json.dumps({k: v for k, v in (cli.read_json(path) | values).items() if v is not None}))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of models that holds one of ours."""
    shutil.copytree(ROOT / "models/minilm_sst2", tmp_path / "models/minilm_sst2")
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path / "models")
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_the_checkpoint_says_it_all(here, case):
    names, more, given, task = CASES[case]
    mine = save_checkpoint(here / "mine", names or ["a", "b"])
    edit(mine / "config.json", **more)
    if names is None:
        edit(mine / "config.json", id2label=None, label2id=None)
    lines = new_model.make("mine", str(mine), given)
    values = models.settings("mine", here / "models")
    name = values["task"] or tasks.DEFAULT
    pair = tasks.TASKS[name].pair
    assert (values["weights"], values["seq"], values["task"]) == (str(mine), "128", task)
    assert values["inputs"] == list(THREE if pair else TWO)
    assert lines[-1].startswith("next: make MODEL=mine accuracy") and ("DATA=" in lines[-1]) == (name != "sst2")
    unsure = [line for line in lines if line.startswith(f"task {name}: ")]
    assert bool(unsure) == (not given and "finetuning_task" not in more)
    assert ["for several labels: TASK=labels" in line for line in unsure] == [name == "sentence"] * len(unsure)
    made = {p.name for p in (here / "models/mine").iterdir()}
    assert made == FILES
    assert not [p for p in (here / "models").iterdir() if p.name.startswith(".")]
    # and the steps after it take the folder as it is
    checkpoint.make(str(mine), here / "models/mine", None, here / "out", name)
    labels = architecture.read_config(here / "out/config.json")["labels"]
    labels = tasks.labels(tasks.TASKS[name], labels, "")
    assert labels == list(tasks.TASKS[name].labels or names)
    text = ("a", "b") if pair else "a"
    if not tasks.TASKS[name].score:
        said = json.dumps(labels[1:]) if tasks.TASKS[name].several else labels[-1]
        columns = [*tasks.TASKS[name].text[-1], tasks.TASKS[name].label[0]]
        own = tsv(here / "own.tsv", "\t".join(columns), *([t] for t in text), [said])
        want = list(range(1, len(labels))) if tasks.TASKS[name].several else len(labels) - 1
        assert data.read_tsv(own, tasks.TASKS[name], labels) == ([text], [want])


@pytest.mark.parametrize("values, says", [
    ({"name": "min ilm"}, "not letters, digits"), ({"name": "../x"}, "not letters, digits"), ({"name": ".x"}, "not letters"),
    ({"name": "minilm_sst2"}, "models/minilm_sst2: is there already; give another NAME"),
    ({"source": "wheel"}, "no checkpoint of one's own"), ({"source": "/nowhere"}, "no such folder or zip"),
    ({"task": "mprc"}, "TASK 'mprc' is not one of"), ({"task": "score"}, "this task has one score"),
    ({"task": "mnli"}, "the labels are a, b; the task's are entailment"),
    ({"problem_type": "regression"}, "problem_type is regression: numbers"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(here, values, says):
    mine = save_checkpoint(here / "mine", ["a", "b"])
    asked = {"name": "mine", "source": str(mine), "task": "", "problem_type": None} | values
    edit(mine / "config.json", problem_type=asked.pop("problem_type"))
    with pytest.raises(cli.UserError, match=says) as e:
        new_model.make(*asked.values())
    assert "\n" not in str(e.value) and [p.name for p in (here / "models").iterdir()] == ["minilm_sst2"]


def test_a_tokenizer_is_tried_apart_first(here, monkeypatch):
    mine = save_checkpoint(here / "mine", ["a", "b"])

    def too_much(folder):
        raise cli.UserError(f"{folder}: its tokenizer takes more than it may")

    monkeypatch.setattr(tokenizer, "try_out", too_much)
    monkeypatch.setattr(tokenizer, "convert", lambda *_: pytest.fail("it was read here"))
    with pytest.raises(cli.UserError, match="takes more than it may"):
        new_model.make("two", str(mine))


# --- through make -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    repo = Repo(tmp_path_factory.mktemp("add"))
    shutil.rmtree(repo.path / "build", ignore_errors=True)  # no download is needed
    return repo


def logits_of(folder, given, inputs):
    return export.logits(export.load(folder), tokens.encode(tokens.load(folder), given, 32, inputs))


def test_odd_labels_and_a_vocabulary_alone(repo, tmp_path):
    """Five labels that only exact names tell apart, by name in a column of one's own, and no file that says how to tokenise."""
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
    assert added == {f"models/odd/{n}" for n in FILES}
    words = ("MODEL=odd", "SEQ=32", f"DATA={own}", "accuracy")
    done = repo.make(*words, "PRECISION=fp16-sim")
    want = logits_of(mine, given, TWO).argmax(1).tolist()
    record = accuracy_of(repo, "odd", "cpu-onnxruntime-fp16-sim", "32")
    assert len(set(want)) > 1, "the model gives one class alone: this test could not fail"
    assert (record["labels"], record["predictions"], record["truth"]) == (names, want, truth)
    assert f"({sum(map(np.equal, want, truth))}/40)" in done.stdout
    if has_native():
        repo.make(*words, "PRECISION=bf16")
        classes = accuracy_of(repo, "odd", "cpu-native-bf16", "32")["predictions"]
        assert sum(a != b for a, b in zip(classes, want, strict=True)) <= 3


def test_several_labels_at_once(repo, tmp_path, monkeypatch):
    """From a zip to the record: sigmoid and threshold for each label, micro and macro F1."""
    names = ["toxic", "obscene", "threat"]
    mine = save_checkpoint(tmp_path, names)
    edit(mine / "config.json", problem_type="multi_label_classification")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as z:
        for path in mine.glob("*.json"):
            z.write(path, f"mine/{path.name}")
        z.write(mine / "model.safetensors", "mine/model.safetensors")
    given = texts(22, 40)
    marks = np.random.default_rng(5).integers(0, 2, (3, 40))
    own = tsv(tmp_path / "own.tsv", "sentence\t" + "\t".join(names), given, *marks)
    repo.make("new-model", "NAME=several", f"FROM={tmp_path / 'mine.zip'}")
    chance = 1 / (1 + np.exp(-logits_of(mine, given, TWO).astype(np.float64)))
    threshold = str(float(np.round(np.quantile(chance, 0.6), 3)))
    truth = [np.flatnonzero(row).tolist() for row in marks.T]
    for word, leaf, least in ((), "", 0.5), ((f"THRESHOLD={threshold}",), f".t{threshold}", float(threshold)):
        done = repo.make("MODEL=several", "SEQ=32", f"DATA={own}", "accuracy", *word)
        record = accuracy_of(repo, "several", f"cpu-onnxruntime-fp32{leaf}", "32")
        want = [np.flatnonzero(row >= least).tolist() for row in chance]
        assert (record["task"], record["labels"], record["truth"]) == ("labels", names, truth)
        assert record["predictions"] == want and record.get("threshold", "0.5") == str(least)
        assert record["correct"] == sum(a == b for a, b in zip(want, truth, strict=True))
        hits = sum(len({*a} & {*b}) for a, b in zip(want, truth, strict=True))
        micro = 2 * hits / (sum(map(len, want)) + sum(map(len, truth)))
        assert record["metrics"]["f1_micro"]["value"] == pytest.approx(micro, abs=1e-6)
        assert set(record["metrics"]) == {"f1_micro", "f1_macro"} and "f1_micro" in done.stdout
        refuse_edits(tmp_path, record, truth=[[3]] * 40, predictions=[0] * 40, metrics={})
    monkeypatch.chdir(repo.path)
    leaves = [p.relative_to(repo.path) for p in repo.path.glob("build/several/default/seq32/bs8/*/accuracy.json")]
    assert len(leaves) == 2 and [list(audit.leaf_faults(leaf)) for leaf in leaves] == [[], []]
    done = repo.make("MODEL=several", "THRESHOLD=1.5", "accuracy", check=False)
    assert re.search(r"THRESHOLD='1.5' is no number between 0 and 1", done.stderr) and done.stderr.count("\n") == 1
    repo.make("MODEL=several", "SEQ=32", f"DATA={own}", "record")


def test_new_model_says_what_it_lacks(repo):
    for words, says in (((), "NAME"), (("NAME=x",), "FROM"), (("NAME=x", "FROM=/nowhere"), "/nowhere")):
        done = repo.make("new-model", *words, check=False)
        assert done.returncode and says in done.stderr.splitlines()[0], done.stderr
