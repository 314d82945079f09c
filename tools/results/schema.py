"""What a record may hold, field by field. A record is read from anywhere, and shown in tables, pages and terminals.

    schema.faults({"kind": "throughput", "times_ms": [["x"]], ...})

    ["times_ms[0][0]: Input should be a valid number", ...]

Every number is finite and bounded, every text short and printable (so no control characters, escape sequences or lone
surrogates); names that end up in paths or tables hold the characters of names alone, so no formula of a spreadsheet, no
markup and no column of a table. Fields that this project does not know are refused. A field whose type has no None may be
left out, and is never null: readers need not tell the two apart.
"""

import re
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)

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
Several = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=10_000)]
One = Annotated[int, Field(ge=-1, le=10**15)] | Finite
Answers = Annotated[list[One | Several], Field(min_length=1, max_length=10**6)]
Some = Field(min_length=1, max_length=100_000)
Times = Annotated[list[Number], Some]
Turn6 = Annotated[list[Number], Field(min_length=6, max_length=6)]
Turn4 = Annotated[list[Number], Field(min_length=4, max_length=4)]
Turns6 = Annotated[list[Annotated[list[Turn6], Some]], Some]  # by round
Turns4 = Annotated[list[Annotated[list[Turn4], Field(max_length=100_000)]], Some]
Simple = Text | bool | Annotated[int, Field(ge=-(10**15), le=10**15)] | Finite | None
Facts = Annotated[dict[Text, Simple | Annotated[list[Simple], Field(max_length=1000)]], Field(max_length=100)]


Task: Any = Literal[tuple(tasks.TASKS)]
ABSENT: Any = Field(None)  # of a field that may be left out; null is another thing

# What a run of this project leaves, and a log from elsewhere does not.
MEASURED = (
    "source",
    "started",
    "commit",
    "dirty",
    *parameters.OPTIONAL,
    "launched",
    "padded_rows",
    "sentences_per_row",
)
TIMED = ("spread", "times_ms", "pass_ms", "summaries", "stolen", "sentences")
TURNS = ("pairs", "singles", "yardstick", "loop", "figures")


class Strict(BaseModel):
    """No value is turned into another kind, and no field is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Link(Strict):
    """One file of a chain: its hash, and how it was made where it was made here."""

    sha256: Hash
    commands: Annotated[list[list[Word]], Field(max_length=20)] = ABSENT
    inputs: dict[Text, Hash] = ABSENT


Chain = Annotated[dict[Text, Link], Field(max_length=2000), AfterValidator(acyclic)]


class Machine(Strict):
    """Where it ran; all None of a log from elsewhere."""

    cpu: Plain | None
    isa: Annotated[list[Name], Field(max_length=50)] | None = None
    cores: Annotated[int, Field(ge=1, le=100_000)] | None
    system: Text = ABSENT
    python: Text = ABSENT
    host: Host


class Imported(Strict):
    """The log that a record was made from."""

    file: Plain
    sha256: Hash


class Launched(Strict):
    """Where the chip was that a run behind LAUNCH= used."""

    node: Plain
    job: Text | None = ABSENT  # null behind a prefix that has none
    device: Text | None = ABSENT


def fields(kind, *names: str) -> Any:
    """A model of fields of one kind, each of which must be there."""
    return create_model("Fields", __base__=Strict, **dict.fromkeys(names, (kind, ...)))


Figure = fields(Above, "value", "low", "high")  # with its 95 % interval
Figures = fields(Figure | None, "per_core_second", "per_tera", "per_tera_quiet")  # tools/results/figures.py
Millis = Number | None


class Latency(Strict):
    """Milliseconds of a request."""

    mean: Millis
    p50: Millis
    p90: Millis = None
    p95: Millis = None
    p99: Millis


FIELDS: dict[str, Any] = dict.fromkeys(parameters.NAMES, (Name, ...))
FIELDS |= {"bs": (Annotated[int, Field(ge=1, le=999)], ...)} | dict.fromkeys(parameters.OPTIONAL, (Name, ABSENT))
Configuration: Any = create_model("Configuration", __base__=Strict, **FIELDS)


class Record(Configuration):
    """What every record says, besides the parameters of its configuration (tools/make/parameters.py)."""

    source: Text = ABSENT
    started: Moment | None
    commit: Commit | None = None
    dirty: bool | None = None
    machine: Machine
    launched: Annotated[list[Launched], Some] = ABSENT
    engine_info: Facts | None
    standin: bool
    demonstration: Text = ABSENT
    padded_rows: Share | None
    sentences_per_row: Above = ABSENT
    devices: Count = ABSENT
    imported: Imported = ABSENT
    missing: dict[Name, Text] = ABSENT
    chain: Chain

    @model_validator(mode="after")
    def made_here_or_elsewhere(self):
        """Raises ValueError where a record of this project lacks what only an imported one may lack, and where an imported
        one holds what only a run of this project leaves: no word of a record switches its checks off."""
        if not self.imported:
            if lacking := [field for field in ("source", "started") if getattr(self, field) is None]:
                raise ValueError(f"{lacking[0]} is missing, and the record is not imported")
            return self
        more = [f for f in (*MEASURED, *TIMED, *TURNS) if getattr(self, f, None) is not None]
        more += ["chain"] * bool(self.chain) + ["machine"] * (self.machine.cpu is not None)
        if more:
            raise ValueError(f"holds {more[0]}, which only a run of this project leaves, and is imported")
        if self.kind == "throughput" and self.rounds != [self.samples_per_second]:
            raise ValueError("samples_per_second is not that of its one round, and the record is imported")
        return self


class Metric(Strict):
    """A metric of a task with its 95 % interval; both None where it is not defined, which `method` then says."""

    value: Finite | None
    interval95: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None
    method: Plain


class Accuracy(Record):
    """Which of the sentences were right. Of SST-2, `predictions` has a character a sentence. Of another task or of texts
    of one's own it is a list of classes (-1 for a tie) or scores, beside task, labels, truth and metrics; where the task
    has a score nothing is right or wrong, and correct, accuracy and interval95 are None."""

    kind: Literal["accuracy"]
    correct: Annotated[int, Field(ge=0, le=10**6)] | None
    total: Annotated[int, Field(ge=1, le=10**6)]
    accuracy: Share | None
    interval95: Annotated[list[Share], Field(min_length=2, max_length=2)] | None
    predictions: Annotated[str, StringConstraints(pattern=r"^[01=]+$", max_length=10**6)] | Answers
    task: Task = ABSENT
    labels: Annotated[list[Text], Field(min_length=1, max_length=10_000)] = ABSENT
    truth: Answers = ABSENT
    metrics: dict[Name, Metric] = ABSENT
    caveat: Plain | None
    rehearsal: Annotated[list[Text], Field(max_length=1000)] = ABSENT
    logits_sha256: Hash = ABSENT  # of the native engine, where docs/bits.md defines them

    @model_validator(mode="after")
    def answers_of_its_task(self):
        """Raises ValueError where predictions and total differ, and where fields of a task are missing, or of another task."""
        if len(self.predictions) != self.total:
            raise ValueError(f"predictions is {len(self.predictions)} long, total {self.total}")
        own = (self.task, self.labels, self.truth, self.metrics)
        if any(v is None for v in own) and (any(v is not None for v in own) or not isinstance(self.predictions, str)):
            raise ValueError("task, labels, truth, metrics and a list of predictions stand together or not at all")
        task = tasks.TASKS[self.task or tasks.DEFAULT]
        if any((v is None) != task.score for v in (self.correct, self.accuracy, self.interval95)):
            raise ValueError("correct, accuracy and interval95 are None of a task that has a score, and of no other")
        if self.task and (isinstance(self.predictions, str) or set(self.metrics) != set(task.metrics)):
            raise ValueError(f"predictions or metrics are not those of the task {self.task}")
        if self.task and (len(self.truth) != self.total or not self.in_range()):
            raise ValueError(f"truth or predictions are not {self.total} of the {len(self.labels)} classes")
        return self

    def in_range(self) -> bool:
        """Whether truth and predictions are scores, class numbers, of which -1 is a tie, or lists of them, as the task is."""
        task, span, answers = tasks.TASKS[self.task], range(-1, len(self.labels)), [*self.truth, *self.predictions]
        if task.several:
            return all(type(v) is list and set(v) <= set(span) for v in answers)
        if task.score:
            return not any(type(v) is list for v in answers)
        return all(type(v) is int and v in span for v in answers) and -1 not in self.truth


class Throughput(Record):
    """How fast."""

    kind: Literal["throughput"]
    timed: Plain
    sentences: Count = ABSENT
    samples_per_second: Above
    rounds: Annotated[list[Above], Some]
    spread: Number | None
    stolen: Annotated[list[Share], Some] = ABSENT
    latency_ms: Latency
    requests: Count | None
    times_ms: Annotated[list[Times], Some] = ABSENT
    pass_ms: Annotated[list[Times], Some] = ABSENT
    per_device: Annotated[dict[Name, Times], Some] = ABSENT
    summaries: dict[Text, Hash] = ABSENT
    loop: Count = ABSENT
    yardstick: Name = ABSENT
    pairs: Turns6 = ABSENT
    singles: Turns4 = ABSENT
    figures: Figures = ABSENT

    @model_validator(mode="after")
    def times_of_what_was_made_here(self):
        """Raises ValueError where a record of this project has no times, other numbers of them, or half of its turns."""
        if not self.imported and not self.times_ms:
            raise ValueError("times_ms is missing, and the record is not imported")
        timed = [*(self.times_ms or []), *(self.pass_ms or [])]
        if any(sum(times) <= 0 for times in timed):
            raise ValueError("times_ms or pass_ms adds up to nothing")
        each: list[list] = [self.times_ms, self.pass_ms, self.pairs, self.singles, *(self.per_device or {}).values()]
        if any(part is not None and len(part) != len(self.rounds) for part in each):
            raise ValueError(f"its times, turns or devices are not of {len(self.rounds)} rounds, as rounds says")
        if len({getattr(self, field) is None for field in TURNS}) > 1:
            raise ValueError(f"{', '.join(TURNS)} stand together or not at all")
        turns = sum([*(self.pairs or []), *(self.singles or [])], [])
        if any(not all(turn) for turn in turns):
            raise ValueError("pairs or singles hold a turn of no samples or no time")
        threads = (self.engine_info or {}).get("threads")
        if self.pairs and (type(threads) is not int or threads < 1):
            raise ValueError("engine_info.threads is no count, and the record has turns")
        return self


class Peak(Strict):
    """Operations (memory: bytes) a second of all threads: median and largest of some measurements, or why there are none."""

    median: Number | None
    best: Number | None
    missing: Text = ABSENT


class Contender(Strict):
    """A line of a bench."""

    name: Plain
    precision: Name
    ours: bool
    version: Text | None
    shape: Annotated[str, Field(pattern=r"^(sorted|padded( \d+)?)$")]
    sentences: Count
    samples_per_second: Above | None
    rounds: Annotated[list[Above], Some] | None
    ratio: Number | None
    ratio_low: Number | None
    ratio_high: Number | None
    share_of_peak: Number | None
    accuracy: Share | None
    flips: Annotated[list[Annotated[int, Field(ge=0, le=10**6)]], Field(max_length=100_000)] | None
    peak_bytes: Annotated[int, Field(ge=1, le=10**15)] = ABSENT
    missing: dict[Name, Text]


class Bench(Strict):
    """A run of `make bench`."""

    kind: Literal["bench"]
    model: Name
    weights: Name
    source: Text
    seq: Annotated[int, Field(ge=1, le=100_000)]
    bs: Count
    batch: Count
    threads: Count
    timed: Text
    started: Moment
    commit: Commit | None
    dirty: bool | None
    commit_from: Text = ABSENT
    machine: Machine
    tokens: dict[Name, Number]
    operations_per_sentence: dict[Name, Number]
    peak_per_second: dict[Name, Peak]
    stolen: list[Share] = ABSENT
    contenders: Annotated[list[Contender], Some]
    inputs: dict[Text, Hash]
    standin: bool

    @model_validator(mode="after")
    def both_shapes(self):
        """Raises ValueError where a contender, or the operations, lack one of the two shapes that each bench has."""
        shapes = {
            name: {c.shape for c in self.contenders if c.name == name} for name in (c.name for c in self.contenders)
        }
        if any(not {"sorted", "padded"} <= {*one} for one in (self.operations_per_sentence, *shapes.values())):
            raise ValueError("contenders and operations_per_sentence have both shapes, sorted and padded")
        return self


KINDS = {"accuracy": Accuracy, "throughput": Throughput, "bench": Bench}


def place(where: tuple) -> str:
    """A field as one writes it: times_ms[0]."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in where).lstrip(".")


def faults(value: Any, kinds=("accuracy", "throughput")) -> list[str]:
    """What is wrong with a record, a text a field; empty where nothing is."""
    if (kind := value.get("kind")) not in kinds:
        return [f"kind: {ascii(kind)[:40]} is not {' or '.join(kinds)}"]
    try:
        KINDS[kind].model_validate(value)
    except ValidationError as e:
        errors = {
            place(error["loc"]): error["msg"].removeprefix("Value error, ") for error in e.errors(include_url=False)
        }
        return [ascii(f"{where or kind}: {text}")[1:-1][:300] for where, text in errors.items()]
    return []
