"""What a record may hold, field by field. A record is read from anywhere, and shown in tables, pages and terminals.

    schema.faults({"kind": "throughput", "times_ms": [["x"]], ...})

    ["times_ms[0][0]: Input should be a valid number", ...]

Every number is finite and bounded, every text short and printable (so no control characters, escape sequences or lone
surrogates); names that end up in paths or tables hold the characters of names alone, so no formula of a spreadsheet, no
markup and no column of a table. Fields that this project does not know are refused.
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
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Number = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Finite = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Answers = Annotated[list[int | Finite], Field(min_length=1, max_length=10**6)]
Some = Field(min_length=1, max_length=100_000)
Times = Annotated[list[Number], Some]
Turn6 = Annotated[list[Number], Field(min_length=6, max_length=6)]
Turn4 = Annotated[list[Number], Field(min_length=4, max_length=4)]
Turns6 = Annotated[list[Annotated[list[Turn6], Some]], Some]  # by round
Turns4 = Annotated[list[Annotated[list[Turn4], Field(max_length=100_000)]], Some]
Simple = Text | bool | int | Annotated[float, Field(allow_inf_nan=False)] | None
Facts = Annotated[dict[Text, Simple | Annotated[list[Simple], Field(max_length=1000)]], Field(max_length=100)]


class Strict(BaseModel):
    """No value is turned into another kind, and no field is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Link(Strict):
    """One file of a chain: its hash, and how it was made where it was made here."""

    sha256: Hash
    commands: Annotated[list[list[Word]], Field(max_length=20)] | None = None
    inputs: dict[Text, Hash] | None = None


Chain = Annotated[dict[Text, Link], Field(max_length=2000), AfterValidator(acyclic)]


class Machine(Strict):
    """Where it ran; all None of a log from elsewhere."""

    cpu: Plain | None
    isa: Annotated[list[Name], Field(max_length=50)] | None = None
    cores: Annotated[int, Field(ge=1, le=100_000)] | None
    system: Text | None = None
    python: Text | None = None
    host: Host


class Imported(Strict):
    """The log that a record was made from."""

    file: Plain
    sha256: Hash


class Figure(Strict):
    """A figure with its 95 % interval."""

    value: Above
    low: Number
    high: Number


class Figures(Strict):
    """See tools/results/figures.py."""

    per_core_second: Figure | None
    per_tera: Figure | None
    per_tera_quiet: Figure | None


class Latency(Strict):
    """Milliseconds of a request."""

    mean: Number | None
    p50: Number | None
    p90: Number | None = None
    p95: Number | None = None
    p99: Number | None


class Launched(Strict):
    """Where the chip was that a run behind LAUNCH= used."""

    node: Plain
    job: Text | None = None
    device: Text | None = None


KINDS = dict.fromkeys(parameters.NAMES, Name) | {"bs": Annotated[int, Field(ge=1, le=999)]}
Configuration = create_model(
    "Configuration",
    __base__=Strict,
    **{name: (kind, ...) for name, kind in KINDS.items()},
    **dict.fromkeys(parameters.OPTIONAL, (Name | None, None)),
)


class Record(Configuration):
    """What every record says, besides the parameters of its configuration (tools/make/parameters.py)."""

    source: Text | None = None
    started: Moment | None
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")] | None = None
    dirty: bool | None = None
    machine: Machine
    launched: Annotated[list[Launched], Some] | None = None
    engine_info: Facts | None
    standin: bool
    demonstration: Text | None = None
    padded_rows: Share | None
    sentences_per_row: Above | None = None
    devices: Count | None = None
    imported: Imported | None = None
    missing: dict[Name, Text] | None = None
    chain: Chain

    @model_validator(mode="after")
    def made_here_or_elsewhere(self):
        """Raises ValueError where a record of this project lacks what only an imported one may lack."""
        for field in () if self.imported else ("source", "started"):
            if getattr(self, field) is None:
                raise ValueError(f"{field} is missing, and the record is not imported")
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
    task: Literal[tuple(tasks.TASKS)] | None = None
    labels: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None
    truth: Answers | None = None
    metrics: dict[Name, Metric] | None = None
    caveat: Plain | None
    rehearsal: Annotated[list[Text], Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def one_prediction_a_sentence(self):
        """Raises ValueError where predictions and total differ."""
        if len(self.predictions) != self.total:
            raise ValueError(f"predictions is {len(self.predictions)} long, total {self.total}")
        return self

    @model_validator(mode="after")
    def answers_of_its_task(self):
        """Raises ValueError where fields of a task are missing, or of another task."""
        own = (self.task, self.labels, self.truth, self.metrics)
        if any(v is None for v in own) and (any(v is not None for v in own) or not isinstance(self.predictions, str)):
            raise ValueError("task, labels, truth, metrics and a list of predictions stand together or not at all")
        task = tasks.TASKS[self.task or tasks.DEFAULT]
        if any((v is None) != task.score for v in (self.correct, self.accuracy, self.interval95)):
            raise ValueError("correct, accuracy and interval95 are None of a task that has a score, and of no other")
        if self.task and (isinstance(self.predictions, str) or set(self.metrics) != set(task.metrics)):
            raise ValueError(f"predictions or metrics are not those of the task {self.task}")
        if self.task and (len(self.truth) != self.total or not (task.score or self.in_range())):
            raise ValueError(f"truth or predictions are not {self.total} of the {len(self.labels)} classes")
        return self

    def in_range(self) -> bool:
        """Whether truth and predictions are class numbers; -1 is a tie."""
        span = range(-1, len(self.labels))
        return all(type(v) is int and v in span for v in self.truth + self.predictions) and min(self.truth) >= 0


class Throughput(Record):
    """How fast."""

    kind: Literal["throughput"]
    timed: Plain
    sentences: Count | None = None
    samples_per_second: Above
    rounds: Annotated[list[Above], Some]
    spread: Number | None
    stolen: Annotated[list[Share], Some] | None = None
    latency_ms: Latency
    requests: Count | None
    times_ms: Annotated[list[Times], Some] | None = None
    pass_ms: Annotated[list[Times], Some] | None = None
    per_device: Annotated[dict[Name, Times], Some] | None = None
    summaries: dict[Text, Hash] | None = None
    loop: Count | None = None
    yardstick: Name | None = None
    pairs: Turns6 | None = None
    singles: Turns4 | None = None
    figures: Figures | None = None

    @model_validator(mode="after")
    def times_of_what_was_made_here(self):
        """Raises ValueError where a record of this project has no times."""
        if not self.imported and not self.times_ms:
            raise ValueError("times_ms is missing, and the record is not imported")
        if self.times_ms and any(sum(times) <= 0 for times in self.times_ms + (self.pass_ms or [])):
            raise ValueError("times_ms or pass_ms adds up to nothing")
        turns = sum([*(self.pairs or []), *(self.singles or [])], [])
        if any(not all(turn) for turn in turns):
            raise ValueError("pairs or singles hold a turn of no samples or no time")
        return self


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
    peak_bytes: Annotated[int, Field(ge=1, le=10**15)] | None = None
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
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")] | None
    dirty: bool | None
    commit_from: Text | None = None
    machine: Machine
    tokens: dict[Name, Number]
    operations_per_sentence: dict[Name, Number]
    peak_per_second: dict[Name, dict[Name, Number | Text | None]]
    stolen: list[Share] | None = None
    contenders: Annotated[list[Contender], Some]
    inputs: dict[Text, Hash]
    standin: bool


KINDS = {"accuracy": Accuracy, "throughput": Throughput, "bench": Bench}


def place(where: tuple) -> str:
    """A field as one writes it: times_ms[0]."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in where).lstrip(".")


def faults(value: Any, kinds=("accuracy", "throughput")) -> list[str]:
    """What is wrong with a record, a text a field; empty where nothing is."""
    kind = value.get("kind")
    if kind not in kinds:
        return [f"kind: {ascii(kind)[:40]} is not {' or '.join(kinds)}"]
    try:
        KINDS[kind].model_validate(value)
    except ValidationError as e:
        found = [(place(error["loc"]), error) for error in e.errors(include_url=False, include_input=True)]
        said = {where: f"{where or kind}: {error['msg'].removeprefix('Value error, ')}" for where, error in found}
        return [ascii(text)[1:-1][:300] for text in said.values()]
    return []
