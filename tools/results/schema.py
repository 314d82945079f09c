"""What a record may hold, field by field. A record is read from anywhere, and shown in tables, pages and terminals.

    schema.faults({"kind": "throughput", "times_ms": [["x"]], ...})

    ["times_ms[0][0]: Input should be a valid number", ...]

Every number is finite and bounded, every text short and printable (so no control characters, escape sequences or lone
surrogates); names that end up in paths or tables hold the characters of names alone, so no formula of a spreadsheet, no
markup and no column of a table. Fields that this project does not know are refused. A field whose type has no None may be
left out, and is never null: readers need not tell the two apart.
"""

# mypy: disable-error-code="valid-type"
import re
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tools.base import tasks
from tools.make import parameters


def printable(text: str) -> str:
    """A text without control characters or lone surrogates. Raises ValueError for another."""
    if not text.isprintable():
        raise ValueError("holds control characters or surrogates")
    return text


def command(text: str) -> str:
    """A word of a command: a script may have lines."""
    printable(re.sub(r"[\n\t]", "", text))
    return text


def plain(text: str) -> str:
    """Text for the cell of a table. Raises ValueError for one that would be markup or a formula there."""
    if re.search(r"^[=+@\s-]|[|<>`\\]", printable(text)):
        raise ValueError("holds | < > ` or \\, or begins like a formula")
    return text


def acyclic(chain: dict) -> dict:
    """A chain in which no file is made of itself. Raises ValueError for another."""
    try:
        TopologicalSorter({name: list(link.inputs or ()) for name, link in chain.items()}).prepare()
    except CycleError:
        raise ValueError("goes in a circle") from None
    return chain


Text = Annotated[str, StringConstraints(max_length=4000), AfterValidator(printable)]
Word = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(command)]
Plain = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(plain)]
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.,=:@-]*$", max_length=200), AfterValidator(printable)]
Host = Annotated[str, StringConstraints(pattern=r"^[\w][\w.-]*$", max_length=100), AfterValidator(printable)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Number = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Finite = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
SOME = Field(min_length=1, max_length=100_000)
T = TypeVar("T")
Many = Annotated[list[T], SOME]
ListOf = Annotated[list[T], Field(max_length=100_000)]
Two = Annotated[list[T], Field(min_length=2, max_length=2)]
Turn4 = Annotated[list[Number], Field(min_length=4, max_length=4)]
Turn6 = Annotated[list[Number], Field(min_length=6, max_length=6)]
Answer = (
    Annotated[int, Field(ge=-1, le=10**15)] | Finite | ListOf[Annotated[int, Field(ge=0)]]
)  # a list: several classes
Answers = Annotated[list[Answer], Field(min_length=1, max_length=10**6)]
Simple = Text | bool | Annotated[int, Field(ge=-(10**15), le=10**15)] | Finite | None
Facts = Annotated[dict[Text, Simple | ListOf[Simple]], Field(max_length=100)]


class Strict(BaseModel):
    """No value is turned into another kind, and no field is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid")


def model(*required, optional=(), base=Strict, check=None) -> Any:
    """A model of fields as rows (type, names with blanks between); optional: those that may be left out, and are never null.
    check: a function that raises ValueError where fields contradict each other."""
    fields: dict[str, Any] = {name: (kind, ...) for kind, names in required for name in names.split()}
    fields |= {name: (kind, Field(None)) for kind, names in optional for name in names.split()}
    checks: dict[str, Any] = {check.__name__: pydantic.model_validator(mode="after")(check)} if check else {}
    return pydantic.create_model("Fields", __base__=base, __validators__=checks, **fields)


# What a run of this project leaves, and a log from elsewhere does not.
MEASURED = ("source", "started", "commit", "dirty", "launched", "padded_rows", "sentences_per_row")
TIMED = ("spread", "times_ms", "pass_ms", "summaries", "stolen", "sentences", "joules_per_sample")
TURNS = ("pairs", "singles", "yardstick", "loop", "figures")


# ---- What a record is made of
Link = model((Hash, "sha256"), optional=[(ListOf[ListOf[Word]], "commands"), (dict[Text, Hash], "inputs")])
Chain = Annotated[dict[Text, Link], Field(max_length=2000), AfterValidator(acyclic)]
Machine = model((Plain | None, "cpu"), (Count | None, "cores"), (Host, "host"),  # all None of a log from elsewhere
                optional=[(Text, "system python energy"), (ListOf[Name] | None, "isa"), (ListOf[Text], "caches")])  # fmt: skip
Imported = model((Plain, "file"), (Hash, "sha256"))  # the log that a record was made from
# Where the chip was that a run behind LAUNCH= used; `job` is null behind a prefix that has none.
Launched = model((Plain, "node"), optional=[(Text | None, "job device")])
Figure = model((Above, "value low high"))  # with its 95 % interval
Figures = model((Figure | None, "per_core_second per_tera per_tera_quiet"))  # tools/results/figures.py
Latency = model((Number | None, "mean p50 p99"), optional=[(Number | None, "p90 p95")])  # milliseconds of a request
# A metric of a task with its 95 % interval; both None where it is not defined, which `method` then says.
Metric = model((Finite | None, "value"), (Two[Finite] | None, "interval95"), (Plain, "method"))


def made_here(self):
    """Check that a record of a run of this project says of which weights, when and where it was."""
    fields = {"source": self.source, "started": self.started}
    fields |= {f"machine.{name}": getattr(self.machine, name) for name in ("cpu", "cores", "host")}
    if missing := [name for name, value in fields.items() if value is None]:
        raise ValueError(f"{missing[0]} is missing, and the record is not imported")
    return self


def made_here_or_elsewhere(self):
    """Check that a record of this project lacks nothing, and that an imported one holds nothing that only a run of this project
    leaves. So no record escapes its checks by calling itself imported."""
    if not self.imported:
        return made_here(self)
    foreign = [f for f in (*MEASURED, *parameters.OPTIONAL, *TIMED, *TURNS) if getattr(self, f, None) is not None]
    foreign += ["chain"] * bool(self.chain) + ["machine"] * (self.machine.cpu is not None)
    if foreign:
        raise ValueError(f"holds {foreign[0]}, which only a run of this project leaves, and is imported")
    if self.kind == "throughput" and self.rounds != [self.samples_per_second]:
        raise ValueError("samples_per_second is not that of its one round, and the record is imported")
    return self


def answers_of_its_task(self):
    """Check that there are as many predictions as total says, and the fields of the task, each in its range."""
    if len(self.predictions) != self.total:
        raise ValueError(f"predictions is {len(self.predictions)} long, total {self.total}")
    absent = {v is None for v in (self.task, self.labels, self.truth, self.metrics)}
    if len(absent) > 1 or (absent == {True} and not isinstance(self.predictions, str)):
        raise ValueError("task, labels, truth, metrics and a list of predictions stand together or not at all")
    task = tasks.TASKS[self.task or tasks.DEFAULT]
    if any((v is None) != task.score for v in (self.correct, self.accuracy, self.interval95)):
        raise ValueError("correct, accuracy and interval95 are None of a task that has a score, and of no other")
    if self.task and (isinstance(self.predictions, str) or set(self.metrics) != set(task.metrics)):
        raise ValueError(f"predictions or metrics are not those of the task {self.task}")
    if self.task and (len(self.truth) != self.total or not in_range(self, task)):
        raise ValueError(f"truth or predictions are not {self.total} of the {len(self.labels)} classes")
    return self


def in_range(record, task) -> bool:
    """Whether truth and predictions are scores, class numbers, of which -1 is a tie, or lists of them, as the task is."""
    span, answers = range(-1, len(record.labels)), [*record.truth, *record.predictions]
    if task.several:
        return all(type(v) is list and set(v) <= set(span) for v in answers)
    if task.score:
        return not any(type(v) is list for v in answers)
    return all(type(v) is int and v in span for v in answers) and -1 not in record.truth


def times_of_its_rounds(self):
    """Check that times are of as many rounds as there are, and that all fields of turns are there or none."""
    if not self.imported and not self.times_ms:
        raise ValueError("times_ms is missing, and the record is not imported")
    if any(sum(times) <= 0 for times in [*(self.times_ms or []), *(self.pass_ms or [])]):
        raise ValueError("times_ms or pass_ms adds up to nothing")
    lists: list[list] = [self.times_ms, self.pass_ms, self.pairs, self.singles, *(self.per_device or {}).values()]
    if any(values is not None and len(values) != len(self.rounds) for values in lists):
        raise ValueError(f"its times, turns or devices are not of {len(self.rounds)} rounds, as rounds says")
    if len({getattr(self, field) is None for field in TURNS}) > 1:
        raise ValueError(f"{', '.join(TURNS)} stand together or not at all")
    if not all(all(turn) for turn in sum([*(self.pairs or []), *(self.singles or [])], [])):
        raise ValueError("pairs or singles hold a turn of no samples or no time")
    threads = (self.engine_info or {}).get("threads")
    if self.pairs and (type(threads) is not int or threads < 1):
        raise ValueError("engine_info.threads is no count, and the record has turns")
    return self


def both_shapes(self):
    """Check that each contender, and the operations, are of both shapes, and each ratio has its range."""
    shapes = {name: {c.shape for c in self.contenders if c.name == name} for name in (c.name for c in self.contenders)}
    if any(not {"sorted", "padded"} <= {*one} for one in (self.operations_per_sentence, *shapes.values())):
        raise ValueError("contenders and operations_per_sentence have both shapes, sorted and padded")
    for c in self.contenders:
        if len({v is None for v in (c.ratio, c.ratio_low, c.ratio_high)}) > 1 or (c.ratio and not c.rounds):
            raise ValueError("ratio, ratio_low, ratio_high stand together, with rounds, or not at all")
    return made_here(self)


# ---- The records. `bs` and what stands in a path besides: tools/make/parameters.py.
Record = model(
    (Name, " ".join(name for name in parameters.NAMES if name != "bs")), (Annotated[int, Field(ge=1, le=999)], "bs"),
    (Moment | None, "started"), (Machine, "machine"), (Facts | None, "engine_info"), (bool, "standin"),
    (Share | None, "padded_rows"), (Chain, "chain"),
    optional=[(Name, " ".join(parameters.OPTIONAL)), (Text, "source demonstration"), (Commit | None, "commit"),
              (bool | None, "dirty"), (Many[Launched], "launched"), (Above, "sentences_per_row"), (Count, "devices"),
              (Imported, "imported"), (dict[Name, Text], "missing")],
    check=made_here_or_elsewhere,
)  # fmt: skip
# Of SST-2, `predictions` has a character a sentence. Of another task or of texts of one's own it is a list of classes (-1 for
# a tie) or scores, beside task, labels, truth and metrics; where the task has a score nothing is right or wrong, and correct,
# accuracy and interval95 are None. logits_sha256: of the native engine, where docs/bits.md defines them.
Accuracy = model(
    (Literal["accuracy"], "kind"), (Annotated[int, Field(ge=0, le=10**6)] | None, "correct"), (Count, "total"),
    (Share | None, "accuracy"), (Two[Share] | None, "interval95"), (Plain | None, "caveat"),
    (Annotated[str, StringConstraints(pattern=r"^[01=]+$", max_length=10**6)] | Answers, "predictions"),
    optional=[(Literal[tuple(tasks.TASKS)], "task"), (Many[Text], "labels"), (Answers, "truth"),
              (dict[Name, Metric], "metrics"), (ListOf[Text], "rehearsal"), (Hash, "logits_sha256")],
    base=Record, check=answers_of_its_task,
)  # fmt: skip
Throughput = model(
    (Literal["throughput"], "kind"), (Plain, "timed"), (Above, "samples_per_second"), (Many[Above], "rounds"),
    (Number | None, "spread"), (Latency, "latency_ms"), (Count | None, "requests"),
    optional=[(Count, "sentences loop"), (Above, "joules_per_sample"), (Many[Share], "stolen"), (Many[Many[Number]], "times_ms pass_ms"),
              (Annotated[dict[Name, Many[Number]], SOME], "per_device"), (dict[Text, Hash], "summaries"),
              (Name, "yardstick"), (Many[Many[Turn6]], "pairs"), (Many[ListOf[Turn4]], "singles"), (Figures, "figures")],
    base=Record, check=times_of_its_rounds,
)  # fmt: skip
# A line of a bench, and operations (memory: bytes) a second of all threads: some measurements, or why there are none.
Contender = model(
    (Plain, "name"), (Name, "precision"), (bool, "ours"), (Text | None, "version"), (Count, "sentences"),
    (Annotated[str, Field(pattern=r"^(sorted|padded( \d+)?)$")], "shape"), (Above | None, "samples_per_second"),
    (Many[Above] | None, "rounds"), (Number | None, "ratio ratio_low ratio_high share_of_peak"), (Share | None, "accuracy"),
    (ListOf[Annotated[int, Field(ge=0, le=10**6)]] | None, "flips"), (dict[Name, Text], "missing"),
    optional=[(Annotated[int, Field(ge=1, le=10**15)], "peak_bytes")],
)  # fmt: skip
Peak = model((Number | None, "median best"), optional=[(Text, "missing")])
Bench = model(
    (Literal["bench"], "kind"), (Name, "model weights"), (Text, "source timed"), (Count, "seq bs batch threads"),
    (Moment, "started"), (Commit | None, "commit"), (bool | None, "dirty"), (Machine, "machine"), (bool, "standin"),
    (dict[Name, Number], "tokens operations_per_sentence"), (dict[Name, Peak], "peak_per_second"),
    (Many[Contender], "contenders"), (dict[Text, Hash], "inputs"),
    optional=[(Text, "commit_from"), (ListOf[Share], "stolen")], check=both_shapes,
)  # fmt: skip
KINDS = {"accuracy": Accuracy, "throughput": Throughput, "bench": Bench}


def faults(value: Any, kinds=("accuracy", "throughput")) -> list[str]:
    """What is wrong with a record, a text for each field."""
    if (kind := value.get("kind")) not in kinds:
        return [f"kind: {ascii(kind)[:40]} is not {' or '.join(kinds)}"]
    place = lambda keys: "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    try:
        KINDS[kind].model_validate(value)
    except ValidationError as e:
        errors = {place(error["loc"]): error["msg"].removeprefix("Value error, ") for error in e.errors()}
        return [ascii(f"{where or kind}: {text}")[1:-1][:300] for where, text in errors.items()]
    return []
