"""Check what was typed, and answer the Makefile with its variables, before it does anything else.

    makefile.answer("1234", "accuracy", "MODEL=minilm_sst2", "BS=16")      # 1234: make's process

    override MODEL := minilm_sst2¶override WEIGHTS := default¶ ... ¶ONE := minilm_sst2/default/seq128/bs16/...

The Makefile passes the words as they were typed, each quoted. Each is checked here against its row in
tools/make/parameters.py, and what follows is worked out: the configurations that need rules, the engine if none was named,
the values in the model's folder, the files that are out of date. The answer is text for make, with ¶ for each newline, or one
line that says what is wrong (tools/make/__main__.py). It is not kept on disk, so makes side by side do not share it.
"""

import os
import re
from pathlib import Path

from tools.make import chips, cli, cpu, models, parameters, stale
from tools.make.cli import UserError

END = "¶"  # of a line of make's text; no name and no value holds it
LOOKING = {"help", "help-dev", "doctor", "lock", "clean", "distclean"}  # they make no artefact: no dates are looked at
LOCKS = ("requirements.txt", "requirements-cpu.txt", "requirements-cuda.txt")
RULES = ("Makefile", "mk/*.mk", "lab/*.mk")
ODD = re.compile(r"[^A-Za-z0-9_.,/@:= -]")
ALLOWED = "may hold letters, digits and _ . , / - @ : = only"


def targets() -> dict[str, tuple[str, str, bool]]:
    """{target: (group, help text, whether only `make help-dev` lists it)}, read from the rules: `## text` behind a rule is its
    help, `### text` that of help-dev."""
    table, group = {}, ""
    for path in (p for pattern in RULES for p in sorted(Path().glob(pattern))):
        for line in cli.regular(path).read_text("utf-8").splitlines():
            if line.startswith("##@ "):
                group = line[4:].strip()
            elif match := re.match(r"([a-z][a-z-]*):.*?(###?) (.*)", line):
                table[match[1]] = (group, match[3], match[2] == "###")
    return table


class Request:
    """One call of make. values: {parameter: value} of all parameters; typed: names of those on the command line; goals: as
    typed; models: {name: values of its model.toml} of MODEL and MODELS; flags: this CPU's units that ISA= allows.
    Raises UserError, one line, for a mistake in the call."""

    def __init__(self, words: list[str], goals: list[str], inherited: set[str]):
        self.goals, self.targets = goals, targets()
        self.files = [goal for goal in goals if "/" in goal]
        self.values = {row.name: row.default for row in parameters.ROWS}
        typed = self.typed_values(words, inherited)
        self.typed = [name for name in self.values if name in typed]
        self.values |= typed
        self.check_goals(inherited)
        self.fill()
        self.check_values()
        self.models = {name: models.settings(name) for name in {self["MODEL"], *self.several("MODELS")}}
        self.check_together()
        self.values["WEIGHTS"] = self.weights()

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def several(self, name: str) -> list[str]:
        """The values of a parameter that may have several."""
        return self.values[name].split()

    def asks(self, *names: str) -> bool:
        """Whether one of these targets is a goal."""
        return any(goal in names for goal in self.goals)

    def typed_values(self, words: list[str], inherited: set[str]) -> dict[str, str]:
        """{parameter: value} of the words NAME=value. Raises UserError for characters that a shell or make would interpret."""
        values = {}
        for name, _, value in (word.partition("=") for word in words):
            row, fault = parameters.BY_NAME.get(name), ""
            if row is None:
                if name not in inherited:
                    raise UserError(f"{name}= is no parameter{cli.nearest(name, self.values)}; see make help")
                continue
            if row.free:
                if not value.isprintable() or END in value or "\\" in value:
                    fault = f"may hold any text of one line, but no control character, {END} or \\"
            elif ODD.search(value):
                fault = ALLOWED
            elif not row.many and len(value.split()) > 1:
                fault = "holds blanks; it is one value"
            if fault:
                raise UserError(f"{name}='{value}' {fault}")
            values[name] = value if row.free else " ".join(value.split())
        return values

    def check_goals(self, inherited: set[str]) -> None:
        """Raises UserError for an unknown goal, and for a parameter that is not for these goals or that they lack."""
        for goal in (g for g in self.goals if g not in self.targets and g not in self.files):
            raise UserError(f"there is no target '{goal}'{cli.nearest(goal, self.targets)}; make help lists them")
        goals, placed = " ".join(self.goals) or "help", [row.name for row in parameters.PLACED]
        for row in (parameters.BY_NAME[name] for name in self.typed if name not in inherited):
            if row.targets and not self.files and not self.asks(*row.targets):
                raise UserError(f"{row.name}= means nothing to make {goals}; it is for {' '.join(row.targets)}")
            if self.asks("verify") and row.name not in (*placed, "V", "VENV", "PYTHON"):
                raise UserError(f"{row.name}= means nothing to make verify, which takes {' '.join(placed)}")
            if self["FROM"] and row.name in placed and row.name not in parameters.OF_LOG:
                names = " ".join(parameters.OF_LOG)
                raise UserError(f"{row.name}= means nothing to make record FROM=: a log says {names}")
        for row in parameters.ROWS:
            if not (self[row.name] or self["CHECK"]) and self.asks(*row.needed):
                raise UserError(f"make {goals}: {row.name}= is missing ({row.help})")
        if self["SLURM_ARGS"] and self["LAUNCH"] != "slurm":
            raise UserError("SLURM_ARGS= is for LAUNCH=slurm")

    def fill(self) -> None:
        """Fill in values that follow from others."""
        values = self.values
        soc = lambda name: {"710": "310P3", "910B4-1": "910B4_1"}.get(bare := name.removeprefix("Ascend"), bare)
        values["CHIPS"] = " ".join(map(soc, self.several("CHIPS")))
        if self.goals and {*self.goals} <= {"fusion-report", "demo-ascend"} and "CHIP" not in self.typed:
            values["CHIP"] = (self.several("CHIPS") or ["310P3"])[0]
        values["CHIP"] = soc(values["CHIP"])
        values |= {many: values[many] or values[one] for many, one in (("CHIPS", "CHIP"), ("MODELS", "MODEL"))}

    def check_values(self) -> None:
        """Check each value by its kind, in the order of the table. Raises UserError for the first wrong one."""
        others = self.values | {"models/": " ".join(models.names())}
        for row in parameters.ROWS:
            value = self[row.name]
            for word in (value.split() if row.many else [value]) or [""]:
                if (word or row.default) and (fault := row.kind(word, others)):
                    raise UserError(f"{row.name}='{value}' {fault}")
        self.flags = chips.leaves(cpu.cpu_flags(limited=False), self["ISA"])
        default = not (self["ENGINE"] or self["PRECISION"] or self["ISA"]) and self["CHIP"] == "cpu"
        if self.goals == ["score"] and default:
            task = models.settings(self["MODEL"])["task"] or "sst2"
            self.values["ENGINE"], self.values["PRECISION"] = chips.for_score(task, self.flags)
        engine = self["ENGINE"] or chips.engines_of(self["CHIP"])[0]
        self.values["PRECISION"] = self["PRECISION"] or next(iter(chips.ENGINES[engine].precisions))

    def check_together(self) -> None:
        """Raises UserError for the first combination of values that cannot work."""
        seq, pack, asks, chip = self["SEQ"], self["PACK"], self.asks, self["CHIP"]
        every_chip = [chip, *self.several("CHIPS")]
        by_torch = self["ENGINE"].startswith("torch_")
        by_trtexec = [] if by_torch else [one for one in every_chip if chips.FAMILY[one] == "gpu"]
        rehearsed = [p for p in (self["PRECISION"], *self.several("PRECISIONS")) if p in chips.REHEARSALS]
        fixed = [one for one in every_chip if one != "cpu"] + rehearsed
        others = [self["DATA"] or one["data"] or one["task"].replace("sst2", "") for one in self.models.values()]
        other, folder, key = next(filter(None, others), ""), Path(self["FOLDER"]), self["KEY"]
        model = self.models[self["MODEL"]]
        unpublished = parameters.unpublished(parameters.fields(self.values | {"SEQ": seq or model["seq"]}))
        goals = " ".join(["make", *self.goals])
        wants = "".join(fixed[:1]) + " needs fixed lengths: SEQ=128, or buckets such as SEQ=64,128"
        for wrong, text in (
            (fixed and seq == "real", f"SEQ=real is for CHIP=cpu; {wants}"),
            (fixed and asks("score"), f"make score is for CHIP=cpu; {wants}"),
            (asks("score") and seq not in ("", "real"), f"make score runs SEQ=real; leave SEQ='{seq}' out"),
            (pack and (seq == "real" or "," in seq), f"PACK=1 fills rows of one length: give SEQ=128 or another, not SEQ={seq}"),
            (self["CERTIFY"] and (self["ENGINE"] != "native" or not (seq == "real" or asks("score"))),
             "CERTIFY= is for ENGINE=native and SEQ=real, or make score: give both, or leave it out"),
            (model["task"] not in ("", "sst2") and not (self["TRAIN"] or model["train"])
             and (self["CERTIFY"] or self["PRECISION"].startswith("int8")) and asks("om", "accuracy", "perf", "score"),
             f"int8 and CERTIFY= need texts of the task {model['task']}, without labels: give TRAIN=, a TSV"),
            (pack and self["ENGINE"] == "native",
             "PACK=1 needs no ENGINE=native: that engine has no padding to fill; leave out one of them"),
            (by_torch and (pack or seq == "real" or asks("kit", "score")),
             "ENGINE=torch_... is for accuracy and perf of padded rows: leave out PACK=, SEQ=real, kit, score"),
            (pack and by_trtexec,
             "PACK=1 is for cpu and the Ascend chips: trtexec times no sentences"),
            (rehearsed and asks("perf", "perf-table"),
             f"PRECISION={''.join(rehearsed[:1])} has an accuracy but no speed: it computes what another chip would"),
            (by_trtexec and "," in seq,
             f"SEQ={seq} is for cpu and the Ascend chips: trtexec times one shape; give SEQ=128 or another"),
            (chip in by_trtexec and self["DEVICE"] != "0",
             "DEVICE= is for Ascend cards and torch_cuda: choose trtexec's GPU by CUDA_VISIBLE_DEVICES"),
            (asks("kit") and chip == "cpu", "make kit is for a card elsewhere: say which, as CHIP=310P3, 910B4 or T4"),
            (asks("demo-ascend") and chip not in chips.ASCEND,
             f"make demo-ascend is of an Ascend chip such as CHIP=310P3, not CHIP={chip}"),
            (asks("publish") and folder.exists(), f"FOLDER={folder}: is there already; name a new one"),
            (asks("check") and not folder.is_dir(), f"FOLDER={folder}: no folder; name the one that came from elsewhere"),
            (key and not Path(key).is_file(), f"KEY={key}: no such file; docs/publish.md says how a key is made"),
            (asks("publish") and unpublished, f"make publish: {unpublished}"),
            (other and asks("bench", "end-to-end", "kit"), f"{goals} is of SST-2 alone, not of {other}; use perf-table"),
        ):  # fmt: skip
            if wrong:
                raise UserError(text)

    def weights(self) -> str:
        """WEIGHTS= with its path normalised: mine, ./mine, mine/ and a link to it are the same value. Raises UserError."""
        value = self["WEIGHTS"]
        if value in ("default", "seeded") or value.startswith("hub:"):
            return value
        path = os.path.realpath(value)
        path = os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
        if path in ("default", "seeded", parameters.SEEDED):
            raise UserError(
                f"WEIGHTS={value}: a folder of that name would be taken for a word of ours; give it another"
            )
        return path if Path(value).exists() and not ODD.search(path) else value.rstrip("/").removeprefix("./")

    # ---- The configurations

    def leaf(self, level: str = "leaf", **other: str) -> str:
        """The path of the configuration of this call, with some parameters replaced."""
        values = self.values | other
        values["SEQ"] = values["SEQ"] or self.models[values["MODEL"]]["seq"]
        if values["ENGINE"] not in chips.engines_of(values["CHIP"]):
            values["ENGINE"] = chips.engine_for(values["CHIP"], values["PRECISION"], self.flags, bool(values["PACK"]))
        return parameters.folder(parameters.fields(values), level)

    def precisions(self, chip: str) -> list[str]:
        """The precisions of a chip that a table has rows for."""
        engine, chosen = self["ENGINE"], self.several("PRECISIONS")
        every = chips.ENGINES[engine].precisions if engine in chips.engines_of(chip) else chips.precisions_of(chip)
        return [p for p in every if (p in chosen if chosen else p not in chips.REHEARSALS)]

    def rows(self) -> list[str]:
        """The configurations that a table has rows for."""
        each = ((m, c, p, b) for m in self.several("MODELS") for c in self.several("CHIPS")
                for p in self.precisions(c) for b in self.several("BATCHES"))  # fmt: skip
        return sorted({self.leaf(MODEL=m, CHIP=c, PRECISION=p, BS=b) for m, c, p, b in each})

    def kit(self) -> list[str]:
        """The configurations of a kit. Without SEQ and PACK these are each model's own length and, on Ascend, its buckets and
        its packed rows, too."""
        rows = []
        for model in self.several("MODELS") if self.asks("kit") else ():
            length = self.models[model]["seq"]
            shapes = [(self["SEQ"] or length, self["PACK"])]
            if not (self["SEQ"] or self["PACK"]) and self["CHIP"] in chips.ASCEND and length.isdecimal():
                shapes += [(f"{int(length) // 2},{length}", ""), (length, "1")]
            rows += [self.leaf(MODEL=model, SEQ=s, PACK=p, BS=b, PRECISION=q) for s, p in shapes
                     for q in self.several("PRECISIONS") or [self["PRECISION"]] for b in self.several("BATCHES")]  # fmt: skip
        return rows

    def fusion(self) -> dict[str, str | list[str]]:
        """fusion-report: a row for each chip and batch size. The operators of a row's .om are counted if it is there."""
        precision = self["PRECISION"] if self["PRECISION"] in chips.ENGINES["atc"].precisions else "fp16"
        socs = [chip for chip in self.several("CHIPS") if chip in chips.ASCEND] or ["310P3"]
        batches = list(dict.fromkeys([*self.several("BATCHES"), self["BS"]]))
        rows = [self.leaf(CHIP=c, BS=b, PRECISION=precision) for c in socs for b in batches]
        return {"fusion_rows": rows,
                "fusion_options": f"--precision {precision} --chip {','.join(socs)} --batch_size {','.join(batches)}"}  # fmt: skip

    def score(self) -> dict[str, str]:
        """make score: the model's folder, whether INPUT or OUT is remote, and where answers go if OUT is empty."""
        far = "yes" * any("://" in path for path in (self["INPUT"], self["OUT"]))
        leaf = self.leaf(SEQ="real", PACK="") if self["CHIP"] == "cpu" else ""
        name = parameters.escaped(self["INPUT"]).replace("*", "_w").replace(" ", "_s")
        return {"SCORING": leaf, "far": far, "scored": inert(f"build/score/{name}.parts")}

    # ---- make's text

    def hashes(self, sha256) -> dict[str, str]:
        """{hash.<folder below build/>: hash of what the user named by a path}, or {unread.<folder>: why it cannot be read}, which
        is an error only if it is needed. sha256: a function that hashes a file."""
        texts = {}
        for name, model in self.models.items():
            places = {
                "weights": self.leaf("weights", MODEL=name),
                "data": f"data/{name}/dev",
                "train": f"data/{name}/train",
            }
            for key, place in places.items():
                row = parameters.BY_NAME[key.upper()]
                typed = self[row.name] != row.default
                path = self[row.name] if typed else model[key]
                if not path or (key == "weights" and (path in ("wheel", "seeded") or path.startswith("hub:"))):
                    continue
                try:
                    texts[f"hash.{place}"] = stale.hash_of_path(path, sha256)
                except (UserError, OSError) as e:
                    who = row.name if typed else f"models/{name}/{models.FILE}: {key}"
                    texts[f"unread.{place}"] = inert(f"{who}: {cli.explanation(e)}")
        return texts

    def variables(self) -> dict[str, str | list[str]]:
        """{variable of make: its text, or list of words}: all that follows from this call."""
        tables = self.files or self.asks("record", "accuracy-table", "perf-table")
        words = {name: "'" + inert(f"{name}={self[name]}").replace("'", "'\\''") + "'" for name in self.typed}
        placed = [name for name in self.typed if parameters.BY_NAME[name].place]
        packs = self["PACK"] or self.asks("kit")
        lengths = {(self["SEQ"] or model["seq"]) for model in self.models.values()} if packs else ()
        every = cpu.cpu_flags(limited=False)
        runs = lambda engine, precision: chips.units(engine, precision, every) is not None
        engines = {name: chips.ENGINES[name].precisions for name in chips.engines_of("cpu")}
        return {
            "TARGETS": list(self.targets),
            "typed_names": self.typed,
            # The words as typed, for checks that call make again.
            "parameters": [*(words[n] for n in words if n not in ("V", "VENV")), f"VENV={self['VENV']}"],
            "selected": [words[name] for name in placed],
            "of_log": [name for name in placed if name in parameters.OF_LOG],
            "locks": list(LOCKS),
            "weights_name": parameters.weights_name(self["WEIGHTS"]),
            "ONE": self.leaf(),
            "ROWS": self.rows() if tables else "",
            "KIT_ROWS": self.kit(),
            "BENCHES": "yes" * (self.asks("bench", "end-to-end") or bool(self.files)),
            "REHEARSALS": list(chips.REHEARSALS),
            "runs_here": [f"cpu-{e}-{p}" for e, precisions in engines.items() for p in precisions if runs(e, p)],
            **self.fusion(),
            **self.score(),
            **{f"{chips.FAMILY[chip]}.ENGINES": chips.engines_of(chip) for chip in ("cpu", "310P3", "T4")},
            **{f"family.{chip}": chips.FAMILY[chip] for chip in {self["CHIP"], *self.several("CHIPS"), "cpu"}},
            **{f"compiled.{name}": engine.file for name, engine in chips.ENGINES.items()},
            **{f"atc.{precision}": mode for precision, mode in chips.ATC_MODES.items()},
            **{f"loop.{bs}": str(int(self["SAMPLES"]) // int(bs) + 4) for bs in {self["BS"], *self.several("BATCHES")}},
            # A packed row has one number of the input `first` for every 8 tokens (PACKED_TOKENS in tools/source/tokens.py).
            **{f"first.{n}": str(int(n) // 8) for n in lengths if n.isdecimal()},
            **{f"{name}.{key.upper()}": value for name, model in self.models.items() for key, value in model.items()},
        }


RESULTS = {"records": Path("results/records"), "benches": Path("results/bench")}


def inert(text: str) -> str:
    """A text escaped for make: one line, in which nothing is expanded."""
    return cli.printable(text).replace(END, r"\xb6").replace("\\", "/").replace("$", "$$").replace("#", "\\#")


def results() -> dict[str, list[str]]:
    """{variable of make: files that tables are made of}. Raises UserError for a file name that would not be inert there."""
    files = {}
    for name, folder in RESULTS.items():
        paths = sorted(map(str, folder.glob("*.json")))
        if odd := [path for path in paths if not stale.INERT.fullmatch(path)]:
            raise UserError(f"{odd[0]}: its name {ALLOWED.replace(' : =', '')}; rename it")
        files[name] = [str(folder)] * folder.is_dir() + paths
    tables = sorted(str(path) for path in Path().glob("models/*/published.csv"))
    return files | {"figures": [path for path in tables if stale.INERT.fullmatch(path)]}


def inherited_names(words: list[str], pid: str) -> set[str]:
    """Names of the words handed on by a parent make: they are not on this make's own command line."""
    try:
        line = Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return set()
    typed = {match[1] for word in line if (match := re.match(r"([^\s:=+?!]+)\s*(?:[:+?!]|::)?=", word))}
    return {word.partition("=")[0] for word in words} - typed


def answer(pid: str, goals: str, *words: str) -> str:
    """The text for make. Raises UserError, one line, for a mistake in what was typed."""
    request = Request(list(words), goals.split(), inherited_names(list(words), pid))
    ignored = [name for name in (word.partition("=")[0] for word in words) if name not in request.typed]
    lines = [f"override undefine {name}" for name in ignored if re.fullmatch(r"\w+", name) and name != "SHELL"]
    lines += [f"override {name} := {inert(value)}" for name, value in request.values.items()]
    texts = request.variables() | {"make_pid": pid} | dict.fromkeys(("notice", "stale", *RESULTS, "figures"), "")
    if not {*(request.goals or ["help"])} <= LOOKING:
        if re.search("[\udc80-\udcff]", here := str(Path.cwd())):
            raise UserError(f"{here}: not UTF-8, which PyTorch cannot export in; give that folder another name")
        memory = stale.Memory()
        others = [[f".venv-{name}/installed", f"requirements-{name}.txt"] for name in ("bench", "scale", "publish")]
        stamps = [[f"{request['VENV']}/installed", *LOCKS], *others]
        texts |= {name: inert(text) for name, text in stale.variables(stamps, memory).items()}
        texts |= {**request.hashes(memory.sha256), **results()}
        memory.keep()
    text_of = lambda value: value if isinstance(value, str) else " ".join(value)
    return END.join(lines + [f"override {name} := {text_of(value)}" for name, value in texts.items()])
