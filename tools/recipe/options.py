"""What the commands have in common: how they show their help, whose script runs, and what is asked."""

import argparse
import sys
from pathlib import Path

from tools.base import tasks


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that shows the calling script's own docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def model() -> Path:
    """The folder of the running script, under models/."""
    return Path(sys.argv[0]).resolve().parent


def task(p: argparse.ArgumentParser) -> None:
    """The option --task."""
    p.add_argument("--task", help="what is asked, a name of tools/base/tasks.py (sst2 if not given)")


def asked(name: str | None, folder: Path, inputs: tuple[str, ...]):
    """(the task of --task, its class names) for a checkpoint folder and the model's inputs; UserError if they cannot do it."""
    from tools.source import architecture

    task = tasks.known(name or tasks.DEFAULT)
    if task.labels and not task.pair:  # a folder of a tokenizer alone will do
        return task, list(task.labels)
    path = architecture.config_file(folder)
    config = architecture.read_config(path)
    tasks.refuse_without_types(inputs, task, folder, config["type_vocab_size"])
    return task, tasks.labels(task, config["labels"], path)
