"""The one table of make's parameters: what each may be, and how paths, records and checks spell it.

    parameters.folder(parameters.fields({"MODEL": "minilm_sst2", "SEQ": "64,128", ...}))

    minilm_sst2/default/seq64-128/bs8/cpu-onnxruntime-fp32

A parameter is one row. From it come its check and default (tools/make/makefile.py), its lines in `make help` and README, its
place in the paths of artefacts, its field in records, and the words that name a configuration. A rule reads it as $(NAME), or
back from a path (mk/paths.mk): a directory is a parameter, a file is a fact. An artefact lies below every parameter that can
change its bytes, and below no other. docs/parameters.md adds a parameter step by step.
"""

import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from tools.make import chips, cli, models

RUN, TABLES, RECORDS = "Run one configuration", "Tables of many configurations", "Records"
CHECK, ASCEND, DEVELOP = "Check and hand on", "Ascend and GPU", "Development"


# ---- Kinds. A kind is a function of a value that returns what is wrong with it, or "". o: the values of all parameters, and
# under the key `models/` the names of all models.


def among(value: str, right) -> str:
    return "" if value in right else f"is not one of: {' '.join(sorted(right))}{cli.nearest(value, right)}"


def whole(low: int, high: int) -> Callable:
    right = lambda value: re.fullmatch(r"0|[1-9]\d{0,8}", value) and low <= int(value) <= high
    return lambda value, o: "" if right(value) else f"is not a whole number from {low} to {high}"


def path(value: str, o: dict) -> str:
    """The path of a user's file. A command would take one that begins with - for an option."""
    return f"begins with -; name a file by ./{value}" if value.startswith("-") else ""


def program(value: str, o: dict) -> str:
    return path(value, o) or ("" if shutil.which(value) else "is no program here; is it spelled right?")


def weights(value: str, o: dict) -> str:
    if value in ("", ".", ".."):
        return "is not default, seeded, hub:OWNER/REPO@COMMIT or a path to a checkpoint folder or zip"
    return path(value, o) or models.hub(value)


def precision(value: str, o: dict) -> str:
    return among(value, chips.ENGINES[o["ENGINE"]].precisions if o["ENGINE"] else chips.precisions_of(o["CHIP"]))


def devices(value: str, o: dict) -> str:
    numbers = value.split(",")
    plain = all(re.fullmatch(r"0|[1-9]\d{0,2}", n) and int(n) <= 255 for n in numbers)
    what = "is not made of numbers from 0 to 255, each once, with commas between, as 0 or 0,1"
    return "" if plain and len({*numbers}) == len(numbers) else what


text = lambda value, o: ""
name = lambda value, o: path(value, o)  # like a path, but not that of a user's file
model = lambda value, o: among(value, o["models/"].split())
chip = lambda value, o: among(value, chips.FAMILY)
engine = lambda value, o: among(value, chips.engines_of(o["CHIP"]))
precisions = lambda value, o: among(value, {p for c in o["CHIPS"].split() for p in chips.precisions_of(c)})
step = lambda value, o: among(value, chips.STEPS)
on_bad = lambda value, o: among(value, ("stop", "null"))
lengths = models.lengths
percent = models.matching(r"0\.\d?[1-9]|[1-9]", "is no percentage from 0.01 to 9, such as 0.5")
share = models.matching(r"0\.\d{0,3}[1-9]", "is no number between 0 and 1, such as 0.5")
switch = models.matching("1", "is not 1 or empty")


# ---- How a path spells them


def escaped(value: str) -> str:
    """A folder name for any value, in characters that atc accepts. Different values give different names."""
    for mark, code in (("_", "__"), ("/", "_-"), (":", "_."), ("@", "_a"), (",", "_c"), ("=", "_e")):
        value = value.replace(mark, code)
    return value


# The second version of the random weights. Its biases are not 0 and its LayerNorm weights not 1: onnxsim would drop those.
SEEDED = "seeded2"


weights_name = lambda value: SEEDED if value == "seeded" else escaped(value)
dashed = lambda value: value.replace(",", "-")


class Place(NamedTuple):
    """Where a parameter stands in the path of an artefact. level: in which folder's name; written: as which text, `{}` being its
    value; always: even if it has its default value; field: records have a field for it (otherwise it is a part of `seq`); as_is:
    turns a value into its spelling."""

    level: str
    written: str
    always: bool = False
    field: bool = True
    as_is: Callable = str


class Parameter(NamedTuple):
    """A row. targets: the only ones that it is for (all, where there are none); needed: those that cannot do without; many:
    several values, with blanks between; free: any text on one line, which stands quoted wherever a shell reads it; dev: `make
    help` leaves it to `make help-dev`."""

    name: str
    default: str
    kind: Callable
    group: str
    help: str
    targets: tuple = ()
    needed: tuple = ()
    place: Place | None = None
    many: bool = False
    free: bool = False
    dev: bool = False


IN_TABLES = ("accuracy-table", "perf-table", "record")
IN_ROWS = (*IN_TABLES, "kit")
REPORTED = (*IN_ROWS, "fusion-report", "demo-ascend")
TIMED = ("perf", "perf-table", "bench", "end-to-end", "demo-ascend")
LAUNCHED = ("om", "accuracy", "perf", "accuracy-table", "perf-table")
SCORE, COMPARED, NEW, PUBLISHED = ("score",), ("compare",), ("new-model",), ("publish", "check")
ROWS = (
    Parameter("MODEL", "minilm_sst2", model, RUN, "a folder of models/", place=Place("model", "{}", always=True)),
    Parameter("WEIGHTS", "default", weights, RUN, "default (the model's own), seeded (random), or a checkpoint's folder or zip",
              place=Place("weights", "{}", always=True, as_is=weights_name)),
    Parameter("SEQ", "", lengths, RUN, "a length, buckets such as 64,128, or real: no padding (the model's if empty)",
              place=Place("shape", "seq{}", always=True, as_is=dashed)),
    Parameter("PACK", "", switch, RUN, "1: several sentences share each row of SEQ tokens, with the same answers",
              place=Place("shape", "p", field=False)),
    Parameter("BS", "8", whole(1, 999), RUN, "batch size (native with SEQ=real: its own)", place=Place("batch", "bs{}", always=True)),
    Parameter("CHIP", "cpu", chip, RUN, "cpu, T4, or an Ascend SoC such as 310P3 (710 is its old name)",
              place=Place("leaf", "{}", always=True)),
    Parameter("ENGINE", "", engine, RUN, "onnxruntime openvino native, atc, trtexec; or torch_cpu torch_npu torch_cuda",
              place=Place("leaf", "-{}", always=True)),
    Parameter("PRECISION", "", precision, RUN, "cpu: fp32 bf16 int8 int8-bf16 fp16-sim; Ascend: fp16 mix; T4: fp16 fp32",
              place=Place("leaf", "-{}", always=True)),
    Parameter("ISA", "", step, RUN, "use no newer units of the CPU than these (oneDNN's names, such as AVX2)",
              place=Place("leaf", ".{}"), dev=True),
    Parameter("DATA", "", path, RUN, "a TSV of your own in place of SST-2's validation set, a label in each row"),
    Parameter("TRAIN", "", path, RUN, "texts for int8's calibration (SST-2's if empty); train: SST-2's train.tsv",
              needed=("train",), dev=True),
    Parameter("V", "", text, RUN, "V=1 shows every command and all that it prints"),
    Parameter("INPUT", "", text, RUN, "score: file, folder, glob, s3://... or -: TSV, CSV, JSON lines, Parquet",
              SCORE, SCORE, free=True),
    Parameter("OUT", "", text, RUN, "score: a folder of parts (build/score/ if empty), a .csv or .parquet, or -", SCORE,
              free=True),
    Parameter("COLUMNS", "", text, RUN, "score: the sentences' column, and perhaps their labels', as `text stars`",
              SCORE, free=True, dev=True),
    Parameter("KEEP", "", text, RUN, "score: columns that are handed on", SCORE, free=True, dev=True),
    Parameter("ON_BAD", "", on_bad, RUN, "score: null hands on a row that is amiss, with its reason", SCORE,
              dev=True),
    Parameter("CHECK", "", switch, RUN, "score: 1: only compare OUT with its manifest", SCORE, dev=True),
    Parameter("PART_ROWS", "", whole(1, 999999999), RUN, "score: rows of a part (65536 or more if empty)", SCORE, dev=True),
    Parameter("LOGITS", "", switch, RUN, "score: 1: the logits too", SCORE, dev=True),
    Parameter("CLUSTER", "", text, RUN, "score: auto or the address of a Ray cluster (this machine if empty)", SCORE, dev=True),
    Parameter("RERUN", "", text, RUN, "score: sentences whose logits differ by less, as 0.5, run again in fp32", SCORE,
              dev=True),
    Parameter("MODELS", "", model, TABLES, "several models (MODEL if empty)", IN_ROWS, many=True),
    Parameter("CHIPS", "", chip, TABLES, "several chips (CHIP if empty)", REPORTED, many=True),
    Parameter("BATCHES", "1 4 8 16 32 64", whole(1, 999), TABLES, "several batch sizes", REPORTED, many=True),
    Parameter("PRECISIONS", "", precisions, TABLES, "several precisions (all that the chip has if empty)", IN_ROWS,
              many=True),
    Parameter("SAMPLES", "256", whole(1, 999), TABLES, "samples per timed round, plus 4 requests (CPU: at least 10 ms a sample)",
              dev=True),
    Parameter("ROUNDS", "3", whole(1, 9), TABLES, "how many rounds each configuration is timed", TIMED, dev=True),
    Parameter("LAUNCH", "", text, TABLES, "a prefix that runs what needs a chip elsewhere, as `srun -N1`; or slurm",
              LAUNCHED, many=True, dev=True),
    Parameter("SLURM_ARGS", "", text, TABLES, "LAUNCH=slurm: options of sbatch, such as --gres=npu:1", many=True, dev=True),
    Parameter("A", "", path, RECORDS, "compare: a record, or a folder that holds an accuracy.json", COMPARED, COMPARED, dev=True),
    Parameter("B", "", path, RECORDS, "compare: the other one", COMPARED, COMPARED, dev=True),
    Parameter("FROM", "", path, RECORDS, "record: a log, outputs or a kit's result; new-model: a checkpoint",
              ("record", *NEW), NEW),
    Parameter("NAME", "", name, RUN, "new-model: what its folder of models/ is called", NEW, NEW, dev=True),
    Parameter("TASK", "", text, RUN, "new-model: what is asked of it, where the checkpoint does not say", NEW, dev=True),
    Parameter("THRESHOLD", "0.5", share, RUN, "of each label's sigmoid, where a text may have several labels",
              place=Place("leaf", ".t{}"), dev=True),
    Parameter("CERTIFY", "", percent, RUN, "native, SEQ=real: % of answers that may change, as 0.5: docs/certify.md",
              ("accuracy", "perf", *SCORE, *IN_TABLES, "verify"), place=Place("leaf", ".c{}"), dev=True),
    Parameter("FOLDER", "", path, CHECK, "publish: the new folder; check: the folder that came from elsewhere", PUBLISHED,
              PUBLISHED, dev=True),
    Parameter("KEY", "", path, CHECK, "publish: your private key; check: the publisher's public one", PUBLISHED,
              ("publish",), dev=True),
    Parameter("CLAIM", "", text, CHECK, "claims: check this one (its id), the short ones (short) or all (all)",
              ("claims",), dev=True),
    Parameter("ATC", "auto", text, ASCEND, "where atc is: auto, its path, or docker or podman with CANN_IMAGE", dev=True),
    Parameter("CANN_IMAGE", "", text, ASCEND, "the container image that holds atc, as repository@sha256:...", dev=True),
    Parameter("DEVICE", "0", devices, ASCEND, "the Ascend devices that run, such as 0 or 0,1"),
    Parameter("AIS_PYTHON", "", name, ASCEND, "the Python that has ais_bench, often an older one (found if empty)", dev=True),
    Parameter("RUNS", "100", whole(1, 999), DEVELOP, "torture: how many are killed; fuzz: hundreds of inputs a parser",
              ("torture", "fuzz"), dev=True),
    Parameter("BASE", "", text, DEVELOP, "container: a Debian image to build on (Containerfile's if empty)",
              ("container",), dev=True),
    Parameter("VENV", ".venv", name, DEVELOP, "where the locked packages are installed", dev=True),
    Parameter("PYTHON", "python3", program, DEVELOP, "the Python that makes VENV, 3.11 or newer", dev=True),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
# Parameters that only older records have, and the end of `seq` that says so. These records can be read but not made again.
GONE = {"CLS": "c"}
OF_LOG = ("MODEL", "WEIGHTS", "SEQ", "BS", "CHIP", "ENGINE", "PRECISION")  # those that an imported log is compared with
FILES = [row.name for row in ROWS if row.kind is path]  # the user's own

LEVELS = ("model", "weights", "shape", "batch", "leaf")
PLACED = [row for row in ROWS if row.place]
FIELDS = [row.name.lower() for row in PLACED if row.place.field]  # fields of a record
NAMES = [row.name.lower() for row in PLACED if row.place.always]  # fields that every record has
OPTIONAL = [name for name in FIELDS if name not in NAMES]
WITHIN = {row.name: row.place.written for row in PLACED if not row.place.field}  # parameters that `seq` holds, and how


def fields(values: dict[str, str]) -> dict[str, str]:
    """{field: its text in a path} of {parameter: value}. A field that is not in every path is left out at its default."""
    value = {row.name: values.get(row.name, row.default) for row in PLACED}
    rows = [row for row in PLACED if row.place.always or value[row.name] != row.default]
    texts = {row.name.lower(): row.place.as_is(value[row.name]) for row in rows if row.place.field}
    texts["seq"] += "".join(row.place.written for row in rows if not row.place.field)
    return texts


def folder(texts: dict, level: str = "leaf") -> str:
    """The path below build/ that {field: text} (from `fields`, or a record) stands for, down to a level."""
    parts = dict.fromkeys(LEVELS[: LEVELS.index(level) + 1], "")
    for row in PLACED:
        text = texts.get(row.name.lower())
        if row.place.field and row.place.level in parts and text not in (None, ""):
            parts[row.place.level] += row.place.written.format(text)
    return "/".join(parts.values())


def unpublished(texts: dict) -> str:
    """Why a configuration, as `fields` or a record has it, cannot be published: its figures are not those of its files."""
    shape, precision = seq_values(texts["seq"]), texts["precision"]
    whys = (
        (precision in chips.REHEARSALS, f"{precision} computes what another chip would"),
        (texts["chip"] == "cpu" and (shape["PACK"] or "," in shape["SEQ"]),
         "it takes packed rows or buckets; leave PACK=1 out, and give one length"),
        (texts.get("certify"), "with CERTIFY= its answers are not those of the whole model"),
        (texts["engine"].startswith("torch_"), "PyTorch runs the checkpoint itself; name another ENGINE="),
    )  # fmt: skip
    return next((text for wrong, text in whys if wrong), "")


def suffix(record: dict) -> str:
    """The part of a record's file name that stands for its OPTIONAL fields."""
    pairs = ((BY_NAME[name.upper()].place.written, record.get(name)) for name in OPTIONAL)
    return "".join(form.format(value) for form, value in pairs if value not in (None, ""))


PATTERNS = {"weights": r"(?:[^/_]|_[^/])+?", "bs": r"\d+", "isa": "[A-Z0-9_]+", "threshold": r"0\.\d+",
            "certify": r"0\.\d+|\d"}  # fmt: skip


def pattern() -> re.Pattern:
    """The regular expression that reads the fields back from a path which `folder` made."""
    levels = dict.fromkeys(LEVELS, "")
    for row in (row for row in PLACED if row.place.field):
        name, (before, after) = row.name.lower(), row.place.written.split("{}")
        group = f"(?P<{name}>{PATTERNS.get(name, '[^/.]+?' if row.place.level == 'leaf' else '[^/]+?')})"
        text = f"{re.escape(before)}{group}{re.escape(after)}"
        levels[row.place.level] += text if row.place.always else f"(?:{text})?"
    return re.compile("/".join(levels.values()) + "$")


PATH = pattern()


def of_path(path: str) -> dict[str, str] | None:
    """{field: text} of a configuration's path; None for any other path."""
    match = PATH.search(path)
    return {name: value for name, value in match.groupdict().items() if value is not None} if match else None


def seq_values(seq: str) -> dict[str, str]:
    """{parameter: value} of the `seq` in a path or record: `64-128p` is SEQ=64,128 with PACK=1. In older records it may also
    name a parameter of GONE: `128c` is CLS=1."""
    values = {}
    for name, end in reversed((WITHIN | GONE).items()):
        values[name] = "1" * seq.endswith(end)
        seq = seq.removesuffix(end) if values[name] else seq
    return {"SEQ": seq.replace("-", ",")} | {n: v for n, v in values.items() if v or n not in GONE}


def of_record(record: dict) -> dict[str, str]:
    """{parameter: value} of a record's configuration, with WEIGHTS spelled as in its path."""
    values = {name.upper(): str(record[name]) for name in FIELDS if record.get(name) not in (None, "")}
    return values | seq_values(values["SEQ"])


def gone(record: dict) -> list[str]:
    """What an older record was made with and this version no longer has."""
    older = ["WEIGHTS=seeded of the first version"] if record["weights"] == "seeded" else []
    if (record["chip"], record["engine"], record["precision"]) == ("cpu", "onnxruntime", "fp32"):
        older += ["SkipLayerNormalization"] if "unfused" not in (record.get("engine_info") or {}) else []
    return older + [f"{name}=" for name in seq_values(record["seq"]) if name in GONE]


def agrees(record: dict, words: list[str]) -> bool:
    """Whether a record was made with every NAME=value in `words`. Raises UserError for a NAME that is not a part of paths."""
    values = of_record(record)
    for name, _, value in (word.partition("=") for word in words):
        if name not in BY_NAME or not BY_NAME[name].place:
            raise cli.UserError(f"{name}= is no parameter of a record{cli.nearest(name, [row.name for row in PLACED])}")
        recorded, as_is = values.get(name, BY_NAME[name].default), BY_NAME[name].place.as_is
        if as_is(value) not in (recorded, as_is(recorded)):
            return False
    return True
