"""The card of a published folder, as the Hugging Face hub reads one: README.md with its metadata, and .eval_results/.

Every figure in it follows from answers.json and the labels of the data: tools/publish/check.py makes them again.
What a model's card cannot know of itself stands in models/<model>/card.toml; where that says nothing, so does the card.
"""

import math
import tomllib
from collections import Counter
from pathlib import Path

from tools.base import input_files, onnxfile, tasks
from tools.make import cli
from tools.results import record as records
from tools.results import show
from tools.setup import sbom
from tools.source import tokens

EVAL_RESULTS, GLUE = ".eval_results/glue.yaml", "nyu-mll/glue"
SPEED = "perf.json"
# What answers.json calls the texts, and how one gets them. Only the first are known to be a data set of the hub.
SST2, OWN = ("SST-2's validation set", "make data"), ("the publisher's own texts", "ask for them; DATA= names the file")
STATED = ("license", "language", "base_model", "training", "note")  # keys of card.toml: the publisher's word
FLOATS = (1, 10, 16)  # onnx.TensorProto: FLOAT, FLOAT16, BFLOAT16


def about(record: dict) -> dict:
    """What models/<model>/card.toml says of the model's own weights, by the keys STATED; {} of other weights, or without
    one. Raises UserError for another key or kind of value."""
    path = cli.ROOT / "models" / record["model"] / "card.toml"
    if record["weights"] != "default" or not path.is_file():
        return {}
    try:
        said = tomllib.loads(cli.regular(path, cli.LARGEST).read_text("utf-8"))
        if wrong := [key for key, value in said.items() if key not in STATED or not isinstance(value, str | list)]:
            raise ValueError(f"{wrong[0]} is no text under one of {', '.join(STATED)}{cli.nearest(wrong[0], STATED)}")
    except (ValueError, RecursionError) as e:
        raise cli.UserError(f"{path}: {onnxfile.first_line(e)}; see models/minilm_sst2/card.toml") from None
    return said


def scores(answers: dict, truth: list) -> dict[str, dict]:
    """{file: {correct, total, metrics, flips}} of answers.json and n labels. flips: the rows, from 0, that have another class
    than model.onnx gives; None of the graph itself, and where answers are scores."""
    task, scores_of = tasks.by_name(answers["task"]), {}
    graph = answers["files"]["model.onnx"]["predictions"]
    for name, one in answers["files"].items():
        classes = one["predictions"]
        scores_of[name] = {
            "correct": None if task.score else sum(a == label for a, label in zip(classes, truth, strict=True)),
            "total": len(truth),
            "metrics": {metric: tasks.figure(metric, truth, classes) for metric in task.metrics},
            "flips": None if task.score or classes is graph else [i for i, a in enumerate(classes) if a != graph[i]],
        }
    return scores_of


def right(one: dict) -> str:
    """`791/872 (0 flips)` of what `scores` has of a file; of scores their first metric."""
    name, figure = next(iter(one["metrics"].items()))
    text = f"{name} {figure['value']}" if one["correct"] is None else f"{one['correct']}/{one['total']}"
    return text + ("" if one["flips"] is None else f" ({len(one['flips'])} flips)")


def whole(one: dict) -> str:
    """The same with each metric and its interval."""
    metrics = (f"{name} {show.metric_in_words(figure)}" for name, figure in one["metrics"].items())
    return ", ".join([right(one), *metrics])


def results(answers: dict, truth: list, record: dict) -> list:
    """The card's figures as huggingface_hub has them; none where a caveat says that they are not the model's."""
    from huggingface_hub import EvalResult

    name = answers["about"]
    hub = {"dataset_type": GLUE, "dataset_config": answers["task"], "dataset_split": "validation"}
    where = {"task_type": "text-classification", "dataset_name": answers["data"]["name"], "dataset_type": "custom"}
    where |= hub if answers["data"]["name"] == SST2[0] else {}
    figures = {} if record.get("caveat") else scores(answers, truth)[name]["metrics"]
    return [EvalResult(**where, metric_type=metric, metric_name=f"{metric} of {name}", metric_value=figure["value"])
            for metric, figure in figures.items() if figure["value"] is not None]  # fmt: skip


def eval_results(answers: dict, truth: list, record: dict) -> str | None:
    """The text of .eval_results/glue.yaml; None of texts that nobody knows to be a data set of the hub."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    figures, name = results(answers, truth, record), answers["about"]
    if answers["data"]["name"] != SST2[0] or not figures:
        return None
    note = f"{name}, {record['engine']} {record['precision']}: {whole(scores(answers, truth)[name])}"
    entry = EvalResultEntry(GLUE, answers["task"], figures[0].metric_value, date=record["started"], notes=note)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def speed_record(folder: Path) -> dict:
    """The record in a folder's perf.json; {} without one."""
    return records.read_record(folder / SPEED) if (folder / SPEED).is_file() else {}


def speed(folder: Path) -> dict[str, str]:
    """The facts that stand in perf.json; null, with the reason, without one."""
    perf = speed_record(folder) or {"missing": {"joules_per_sample": "no perf.json: make perf"}}
    why = f"null ({(perf.get('missing') or {}).get('joules_per_sample', 'not measured')})"
    names = {"samples a second": "samples_per_second", "joules a sample": "joules_per_sample"}
    how = (
        f"batch {perf['bs']}, {perf['machine']['cpu']}{', noisy' * bool(records.noise(perf))}" if "bs" in perf else why
    )
    return {name: f"{perf[field]} ({how})" if field in perf else why for name, field in names.items()}


def facts(folder: Path, answers: dict, truth: list, record: dict) -> dict[str, str]:
    """What a reader asks of a model; what nobody knows is null, with its reason."""
    card, machine, chip = answers["stated"], record["machine"], record["chip"]
    commit = f"{record.get('commit') or 'null (not in git)'}{', with changes' * bool(record.get('dirty'))}"
    stated = lambda field: card.get(field) or f"null (models/{record['model']}/card.toml does not say it)"
    graph = onnxfile.load_model(folder / "model.onnx", weights=False).graph
    sizes = [math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in FLOATS]
    counts = Counter(i for t in truth for i in (t if isinstance(t, list) else [t]))
    spread = ", ".join(f"{counts[i]} {name}" for i, name in enumerate(answers["labels"]))
    return {
        "parameters": f"{sum(sizes):,}",
        "language": "en" if answers["data"]["name"] == SST2[0] else stated("language"),
        "trained on": stated("training"),
        "evaluated on": "{name} ({get}): {rows} texts, sha256 {sha256}".format(**answers["data"]),
        "labels of it": "scores" if tasks.by_name(answers["task"]).score else spread,
        "measured on": f"{machine['cpu']}, {machine['cores']} cores{f', {chip}' * (chip != 'cpu')}",
        "its caches": ", ".join(machine.get("caches") or ["null (the kernel does not say)"]),
        **speed(folder),
        "made from": f"{card.get('base_model', record['source'])}, at commit {commit}",
        "licence": stated("license"),
    }


def example(names: list[str], most: int) -> str:
    """How to run model.onnx, of inputs of these names, by onnxruntime and tokenizers, as Python."""
    fields = {name: tokens.FIELDS[input_files.ROLES[name]] for name in names}
    feeds = "".join(f'    "{name}": np.array([row.{field}], np.int64),\n' for name, field in fields.items())
    return f"""import numpy as np, onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({most})
row = tokenizer.encode("a charming journey")
feeds = {{
{feeds}}}
print(onnxruntime.InferenceSession("model.onnx").run(None, feeds))
"""


def page(folder: Path, answers: dict, truth: list, record: dict) -> str:
    """README.md of a folder that holds its files: metadata and card."""
    from huggingface_hub import ModelCardData

    card, most = answers["stated"], answers["files"]["model.onnx"]["tokens"]
    inputs = [tensor.name for tensor in onnxfile.load_model(folder / "model.onnx", weights=False).graph.input]
    optional = {name: card[name] for name in ("language", "base_model") if name in card}
    data = ModelCardData(license=card.get("license", "unknown"), library_name="onnx", pipeline_tag="text-classification",
                         model_name=record["model"], eval_results=results(answers, truth, record) or None, **optional)  # fmt: skip
    rows = [f"- `{name}`: {whole(one)}" + f"; rows that flip, from 0: {one['flips']}" * bool(one["flips"])
            for name, one in scores(answers, truth).items()]  # fmt: skip
    lines = [f"| {name} | {value} |" for name, value in facts(folder, answers, truth, record).items()]
    notes = [f"**{words}**\n" for words in (record.get("caveat"), card.get("note")) if words]
    return "\n".join([
        f"---\n{data.to_yaml()}\n---\n\n# {record['model']}: {record['engine']} {record['precision']}\n", *notes,
        f"A classifier ({', '.join(answers['labels'])}). Flips are counted against `model.onnx`, which is fp32.\n", *rows,
        f"\n## Run it\n\n```python\n{example(inputs, most)}```\n\n## Facts\n",
        "| | |\n|---|---|", *lines,
        "\n## Check it\n\nIn a clone of bert2om, `make check FOLDER=<this folder> KEY=<the publisher's public key>` verifies",
        "the signature and each hash, and makes every answer again. `accuracy.json` is the record behind it.\n",
    ])  # fmt: skip


def component(folder: Path, answers: dict, truth: list, record: dict) -> dict:
    """The model as a component of CycloneDX: its files by hash, its licence, and its figures as a model card."""
    table, licence, metrics = scores(answers, truth), answers["stated"].get("license", "unknown"), []
    for name, metric, figure in ((n, m, f) for n, one in table.items() for m, f in one["metrics"].items()):
        low, high = map(str, figure["interval95"] or (None, None))
        interval = {"lowerBound": low, "upperBound": high}
        metrics += [{"type": metric, "value": str(figure["value"]), "slice": name, "confidenceInterval": interval}]
    files = [{"type": "file", "name": name, "hashes": sbom.hashed([cli.sha256(folder / name)])} for name in table]
    properties = [{"name": "sha256", "value": answers["data"]["sha256"]}]
    data = {"type": "dataset", "name": answers["data"]["name"], "contents": {"properties": properties}}
    card = {"modelParameters": {"task": "text-classification", "datasets": [data]},
            "quantitativeAnalysis": {"performanceMetrics": metrics}}  # fmt: skip
    return {"type": "machine-learning-model", "bom-ref": "model", "name": record["model"],
            "licenses": [{"license": {"name": licence}}], "components": files, "modelCard": card}  # fmt: skip
