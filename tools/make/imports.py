"""What each program of this project imports, as Make variables, so that an edit remakes just what it can change.

    from tools.make import imports
    imports.variables([[".venv/installed", "requirements.txt"]], imports.Known())["needs.tools.make.cli"]

    "tools/__init__.py tools/make/__init__.py tools/make/cli.py"

`needs.<module or script>` are the files of each module below tools/ and lab/ and of each script of a model folder: the
file itself, every module of ours that it imports, directly or not, at its top or within a function, and the packages
that hold them. `stale` names what is to be made again though its date hides it (tools/make/stale.py),
and `why.<target>` says in words why. A name of the tree that make's text could not hold is left out.
build/imports.json keeps the sha256 of each file when it was last looked at: what did not change since is not read again.
"""

import ast
import contextlib
import hashlib
import json
import re
from pathlib import Path

from tools.make import cli, stale

PATTERNS = ("tools/**/*.py", "lab/*.py", "models/*/*.py", "tools/**/*.[ch]")
OURS = ("tools", "lab")  # packages
OTHERS = ("Makefile", "requirements*.txt", "mk/*", "lab/*.mk", "models/*/*", "data/*", "results/*", "results/*/*")
KEPT = Path("build/imports.json")
PLAIN = re.compile(r"[A-Za-z0-9_.,/@+-]+")  # a name that is inert in make's text


def look(path, known):
    """{signature, sha256, imports} of a file, taken from `known` where its size and dates are as they were."""
    signature = stale.signature(path)
    if known and known["signature"] == signature:
        return known
    data = path.read_bytes()
    found = imports(path, data) if path.suffix == ".py" else []
    return {"signature": signature, "sha256": hashlib.sha256(data).hexdigest(), "imports": found}


def imports(path, data):
    """The files of tools/ and lab/ that a Python file imports, directly, and the packages that it lies in.

    Raises UserError where a file of ours cannot be parsed; of a model's script, none: the step that runs it says why.
    """
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError) as e:
        if path.parts[0] not in OURS:
            return []
        where = f"{path}:{e.lineno}: {e.msg}" if isinstance(e, SyntaxError) else f"{path}: {e}"
        raise cli.UserError(f"{where}; mend it") from None
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.replace(".", "/") for name in names if name.split(".")[0] in OURS]
    found = [f"{name}{end}" for name in ours for end in (".py", "/__init__.py")]
    found += [
        f"{folder.as_posix()}/__init__.py" for folder in path.parents if folder.parts[:1] and folder.parts[0] in OURS
    ]
    return sorted({file for file in found if Path(file).is_file()} - {path.as_posix()})


def closure(name, files):
    """A file and all that it imports, sorted."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found and one in files:
            found.add(one)
            waiting += files[one]["imports"]
    return sorted(found)


def installed(stamps):
    """The stamps of environments that are no copy of their locks, or whose Python is gone, whatever their dates say."""
    read = lambda name: Path(name).read_bytes()
    whole = lambda to: Path(to).with_name("bin").joinpath("python").exists()
    there = [(to, locks) for to, *locks in stamps if Path(to).is_file()]
    return [to for to, locks in there if not whole(to) or read(to) != b"".join(map(read, locks))]


class Known:
    """What was known of files when make last looked: files, {path: what `look` says} of ours; others, stale.Hashes.

    Kept in build/imports.json; nothing of what another version of this program wrote.
    """

    def __init__(self):
        self.by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        self.files, self.others = {}, stale.Hashes()
        with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            kept = json.loads(KEPT.read_bytes())
            if kept["by"] == self.by:
                keys = ("signature", "sha256", "imports")
                self.files = {path: {key: one[key] for key in keys} for path, one in kept["files"].items()}
                self.others = stale.Hashes({path: [*pair] for path, pair in kept["others"].items() if len(pair) == 2})
        self.before = self.files, dict(self.others)

    def keep(self) -> None:
        """Remember it for the next make; a folder that cannot be written costs that one some time."""
        if self.before == (self.files, self.others):
            return
        with contextlib.suppress(OSError), cli.whole_file(KEPT, "w") as f:
            json.dump({"by": self.by, "files": self.files, "others": self.others}, f, indent=0)


def variables(stamps: list[list[str]], known: Known) -> dict[str, str]:
    """{make's variable: its text}; `notice` is what is to be said of dates. stamps: each environment's, and its locks.

    Raises UserError for a file of ours that cannot be read or parsed.
    """
    provs = {target: prov for target, prov in stale.provenance().items() if PLAIN.fullmatch(target)}
    paths = sorted({p for pattern in PATTERNS for p in Path().glob(pattern) if PLAIN.fullmatch(str(p)) and p.is_file()})
    sources = {str(p) for pattern in OTHERS for p in Path().glob(pattern)} | set(map(str, paths))
    inputs = {name for prov in provs.values() for name in prov["inputs"]}
    dates = stale.dated({*sources, *inputs, *provs, *(stamp[0] for stamp in stamps)})
    said = stale.date_now(dates)
    known.files = files = {p.as_posix(): look(p, known.files.get(p.as_posix())) for p in paths}
    sha256 = lambda name: files[name]["sha256"] if name in files else known.others.of(name)
    hidden = stale.hidden(provs, stale.dated(dates), sha256)
    known.keep()
    found = {"notice": said, "stale": " ".join([*hidden, *installed(stamps)])}
    found |= {f"why.{target}": stale.why(target, name) for target, name in hidden.items()}
    for name in (n for n in files if n.endswith(".py")):
        program = name[:-3].replace("/", ".") if name.split("/")[0] in OURS else name
        found[f"needs.{program}"] = " ".join(closure(name, files))
    return found
