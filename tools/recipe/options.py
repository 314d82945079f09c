"""What pth2onnx.py and preprocess.py have in common: the option --task, and what it stands for."""

from pathlib import Path

from tools.base import tasks


def task(p) -> None:
    """The option --task."""
    p.add_argument("--task", help="what is asked, a name of tools/base/tasks.py (sst2 if not given)")


def task_and_labels(name: str | None, folder: Path, inputs: tuple[str, ...]):
    """(the task of --task, its class names) for a checkpoint folder and the model's inputs; UserError if they cannot do it."""
    from tools.source import architecture

    task = tasks.by_name(name or tasks.DEFAULT)
    if task.labels and not task.pair:  # a folder of a tokenizer alone will do
        return task, list(task.labels)
    path = architecture.config_file(folder)
    config = architecture.read_config(path)
    tasks.refuse_without_types(inputs, task, folder, config["type_vocab_size"])
    return task, tasks.labels(task, config["labels"], path)
