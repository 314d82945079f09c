"""The four commands that the recipes share; a script of a model's folder calls one with its own values.

Options and files are those of Bert_Base_Cased_SST2; what is added has a default. One module a command, so that an edit
of one remakes nothing of another. Imports base, source and graph.
"""

from tools.make import cli


def run(command, description: str, **values) -> None:
    """A script's whole work: command(its docstring, **values), a user's mistake as one line."""
    cli.run(lambda: command(description, **values))
