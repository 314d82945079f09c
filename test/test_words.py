"""What messages, help and documents name exists: targets, parameters, options, files. Every script says what it does."""

import ast
import contextlib
import io
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

from tools.make import parameters

SOURCES = sorted(p for top in ("tools", "lab") for p in (ROOT / top).rglob("*.py"))
SCRIPTS = sorted(p for p in SOURCES if '__name__ == "__main__"' in p.read_text())
MAKEFILES = [ROOT / "Makefile", *sorted((ROOT / "mk").glob("*.mk")), ROOT / "lab/lab.mk"]
PAGES = [*ROOT.glob("README*.md"), *(ROOT / "models").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEXTS = [*MAKEFILES, *sorted(PAGES), *SOURCES]
MAKEFILE = "\n".join(p.read_text() for p in MAKEFILES)
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M))
PARAMETERS = {row.name for row in parameters.ROWS}
# `make` followed by one of these is English.
ENGLISH = """a again another both every has in it itself last made makes must of one other room sees stops that the this up what
    would gives builds compiles describes wrote failed"""


def strings(path) -> str:
    """The text constants of a Python file, docstrings too, those of one f-string joined; another file whole."""
    if path.suffix != ".py":
        return path.read_text("utf-8")
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return "\n".join(found)


def name(path) -> str:
    return path.relative_to(ROOT).as_posix()


TARGET = re.compile(r"(?<![-./\w])make +([a-z][a-z-]*)\b(?![/.])")
COMMAND = re.compile(r"(?<![-./\w])make (?:[a-z-]+ )+([A-Z][^`\n]*)")
PARAMETER = re.compile(r"(?<![\w.])([A-Z][A-Z0-9_]+)=")
FILE = re.compile(r"(?<![\w/.-])((?:tools|test|mk|data|models)/[\w./-]+\.(?:py|mk|md|c|h|sh|txt|json))\b")
INVENTED = ("data/dev", "models/mine/")


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_what_a_text_names_exists(path):
    """Targets; parameters, as in `make accuracy BS=8`; files."""
    text = strings(path)
    assert set(TARGET.findall(text)) - TARGETS - {*ENGLISH.split()} == set()
    assert {word for line in COMMAND.findall(text) for word in PARAMETER.findall(line)} - PARAMETERS == set()
    assert [n for n in FILE.findall(text) if not (ROOT / n).exists() and not n.startswith(INVENTED)] == []


OPTION = re.compile(r'\badd(?:_argument)?\(\s*"(--[\w-]+)"|"(--[\w-]+)", "-')
SCRIPTED = [*SOURCES, *(ROOT / "models").rglob("*.py")]
OURS = {a or b for path in SCRIPTED for a, b in OPTION.findall(path.read_text())} | {"--help"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_what_an_error_names_exists(path):
    """Options of our own scripts (those of tools/ascend and tools/gpu speak of atc's and trtexec's, too), and parameters."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    text = "\n".join(ast.unparse(n) for n in calls if getattr(n.func, "attr", "") in ("UserError", "error"))
    if path.parent.name not in ("ascend", "gpu"):
        assert set(re.findall(r"(?<![\w-])(--[a-z][\w-]*)", text)) - OURS == set()
    assert set(re.findall(r"(?<![\w.{}])([A-Z][A-Z0-9_]+)=", text)) - PARAMETERS - {"ONEDNN_MAX_CPU_ISA"} == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_answers_help_with_its_docstring_and_its_command(path, monkeypatch):
    if path.name == "cli.py":
        pytest.skip("no command: its docstring shows how a command ends")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    module, said = name(path).removesuffix(".py").replace("/", "."), io.StringIO()
    monkeypatch.delitem(sys.modules, module, raising=False)
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not end.value.code
    text = said.getvalue()
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring.splitlines()[0] in text
    example = re.search(rf"python3? -m {re.escape(module)}\b.*\n+([^\n]+)", docstring)
    assert example, "the docstring shows no command, or no output"


HELP = f"import runpy\ntry: runpy.run_path('{ROOT}/models/{{}}', run_name='__main__')\nexcept SystemExit: pass"
SAVED = """from tokenizers import BertWordPieceTokenizer
from tools.source import tokenizer, tokens
BertWordPieceTokenizer(dict(zip([*tokenizer.SPECIAL, "a"], range(6)))).save("tokenizer.json")
tokens.encode(tokens.load("."), ["a"], 8)"""


@pytest.mark.parametrize(("code", "heavy"), [
    ("from tools.source import checkpoint", "numpy torch safetensors"),
    (HELP.format("minilm_sst2/preprocess.py"), "torch transformers onnx tokenizers"),
    (HELP.format("tinybert_sst2/postprocess.py"), "torch transformers onnx tokenizers"),
    (SAVED, "torch transformers onnx pandas"),
])  # fmt: skip
def test_what_is_asked_often_loads_no_heavy_package(tmp_path, code, heavy):
    """A checkpoint's script, help, a saved tokenizer."""
    code += f"\nimport sys; sys.exit(' '.join({{*{heavy.split()}}} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code, "--help"], cwd=tmp_path, check=True)
