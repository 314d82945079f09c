"""Options that the recipes' commands have in common, and what --task stands for."""

import argparse
from pathlib import Path

from tools.base import tasks


def count(text: str) -> int:
    """The value of an option that is a whole number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return number


def new_file(text: str) -> Path:
    """The value of an option that names a file to write: what is a folder is refused before any work."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder; name a file")
    return Path(text)


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
