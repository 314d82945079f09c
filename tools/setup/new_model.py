"""make new-model: write a folder of models/ for the user's checkpoint, from what the checkpoint says.

    python -m tools.setup.new_model mine /data/mine
    models/mine: 3 labels (negative, neutral, positive), one text a row, 128 tokens of at most 512
    task sentence: config.json does not say whether a row has one text or two, one label or several; for pairs: ...
    seq 128: longer texts are cut; for more: SEQ=, or seq in models/mine/model.toml
    next: make MODEL=mine accuracy DATA=dev.tsv, with the columns sentence and label

FROM is a folder, a zip or hub:OWNER/REPO@COMMIT. The new folder is written whole, or not at all.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

from tools.base import tasks
from tools.make import cli, models
from tools.source import architecture, checkpoint, tokenizer

LIKE = "minilm_sst2"  # the model whose four scripts are copied: they hold no values
SCRIPTS = ("preprocess.py", "postprocess.py", "pth2onnx.py", "modify_onnx.py")
LENGTH = 128  # tokens of a row, or fewer if the checkpoint takes fewer
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def task_of(said: dict, labels: list[str]) -> tuple[str, str]:
    """(name of the task, what config.json leaves open about it). said: the content of config.json."""
    name = re.sub(r"[\W_]+", "", str(said.get("finetuning_task", "")).lower()).removeprefix("glue")
    name = {"sst": "sst2", "mnlimm": "mnli"}.get(name, name)
    if name in tasks.TASKS and fits(tasks.TASKS[name], labels):
        return name, ""
    several = said.get("problem_type") == "multi_label_classification"
    kind = "labels" if several else "score" if len(labels) == 1 else "sentence"
    pair = "pair" if kind == "sentence" else f"pair-{kind}"
    nli = fits(tasks.TASKS["mnli"], labels) and not tasks.numbered(labels)
    if "sentence_transformers" in said or (kind == "sentence" and nli):
        return pair, f"taken for pairs, as such labels and files are; for single texts: TASK={kind}"
    unsaid, others = "whether a row has one text or two", f"for pairs: TASK={pair}"
    if kind == "sentence" and not said.get("problem_type"):
        unsaid, others = f"{unsaid}, one label or several", f"{others}, for several labels: TASK=labels"
    return kind, f"config.json does not say {unsaid}; {others}"


def fits(task: tasks.Task, labels: list[str]) -> bool:
    """Whether labels fit a task."""
    if task.score or not task.labels:
        return task.score == (len(labels) == 1)
    try:
        return bool(tasks.order(labels, task.labels, ""))
    except cli.UserError:
        return False


def refuse_name(name: str, source: str) -> None:
    """Raises UserError for a name that cannot be a folder's or is taken, and for a source that is not a checkpoint."""
    fault = None
    if not models.NAME.fullmatch(name) or len(name) > 64:
        fault = f"NAME={name}: not letters, digits and _ . - alone, at most 64; give another"
    elif (checkpoint.MODELS / name).exists():
        fault = f"models/{name}: is there already; give another NAME, or remove it first"
    elif source in ("seeded", "wheel"):
        fault = f"FROM={source}: no checkpoint of one's own; give a folder, a zip or hub:OWNER/REPO@COMMIT"
    elif wrong := models.weights(source):
        fault = f"FROM={source}: {wrong}; give it another path"
    if fault:
        raise cli.UserError(fault)


def make(name: str, source: str, task_name: str = "") -> list[str]:
    """Write models/<name> for a checkpoint and return the lines to print. Raises UserError if it cannot be served."""
    refuse_name(name, source)
    with tempfile.TemporaryDirectory(dir=checkpoint.MODELS, prefix=".new.") as box:
        folder = checkpoint.source_folder(source, None, None, Path(box))
        said, config = cli.read_json(architecture.config_file(folder)), checkpoint.read_checkpoint(folder)[0]
        labels, most = config["labels"], config["max_position_embeddings"]
        name_of_task, unknown = (task_name, "") if task_name else task_of(said, labels)
        task = tasks.by_name(name_of_task)
        tasks.refuse_others(said, task, source)
        if task.labels:
            tasks.order(labels, task.labels, source)
        tasks.labels(task, labels, source)
        tokenizer.try_out(folder)
        reader, tokens, line = tokenizer.convert(folder, most)
        checkpoint.vocabulary(reader, folder, config["vocab_size"])
        most = min(most, tokens.get("model_max_length", most))
        length = min(LENGTH, most)
        write(Path(box, "model"), name, source, name_of_task, length, config, said, tokens)
        Path(box, "model").rename(checkpoint.MODELS / name)
    shown = ", ".join(labels) if len(labels) < 8 else f"{', '.join(labels[:7])} ..."
    count = f"{len(labels)} label{'s' * (len(labels) > 1)} ({shown})"
    rows, texts = "two texts" if task.pair else "one text", " and ".join(task.text[0])
    lines = [line, f"models/{name}: {count}, {rows} a row, {length} tokens of at most {most}"]
    lines += [f"task {name_of_task}: {unknown}"] if unknown else []
    if most > length:
        lines.append(f"seq {length}: longer texts are cut; for more: SEQ=, or seq in models/{name}/model.toml")
    column = "a column for each label, or labels" if task.several else task.label[-1]
    data = f" DATA=dev.tsv, with the columns {texts} and {column}" if name_of_task != tasks.DEFAULT else ""
    return [*lines, f"next: make MODEL={name} accuracy{data}"]


def write(folder: Path, name: str, source: str, task: str, seq: int, config: dict, said: dict, tokens: dict) -> None:
    """Write the files of a model's folder. config: as architecture.read_config returns it; said: the content of the checkpoint's
    config.json; tokens: the keys of its tokenizer_config.json."""
    folder.mkdir()
    labels = dict(enumerate(config["labels"]))
    own = {key: value for key, value in said.items() if not key.startswith("_") and key != "transformers_version"}
    own |= {"id2label": labels, "label2id": architecture.inverse(labels)}
    for file, table in (("config.json", own), ("tokenizer_config.json", tokens)):
        (folder / file).write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")
    inputs = INPUTS if tasks.by_name(task).pair and config["type_vocab_size"] > 1 else INPUTS[:2]
    values = {"weights": source, "seq": seq, "inputs": list(inputs)} | ({} if task == tasks.DEFAULT else {"task": task})
    lines = ["# Raw values; what each key means: tools/make/models.py. The model's name is its folder's."]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (folder / models.FILE).write_text("\n".join(lines) + "\n")
    for script in SCRIPTS:
        text = (checkpoint.MODELS / LIKE / script).read_text("utf-8")
        (folder / script).write_text(text.replace("MiniLM-L6 SST-2", name), "utf-8")
        shutil.copymode(checkpoint.MODELS / LIKE / script, folder / script)


def main():
    p = cli.parser(__doc__)
    p.add_argument("name", help="of the folder below models/")
    p.add_argument("source", help="a checkpoint's folder or zip")
    p.add_argument("--task", default="", help="a name of tools/base/tasks.py (as the checkpoint says if not given)")
    args = p.parse_args()
    print("\n".join(make(args.name, args.source, args.task)))


if __name__ == "__main__":
    cli.run(main)
