"""The folders of tools/ are layers: each imports only what stands before it, and no module imports in a circle."""

import ast
import importlib
from graphlib import TopologicalSorter

from conftest import ROOT

LAYERS = "make base source graph recipe cpu scale gpu ascend results checks setup publish".split()  # noqa: SIM905


def imported(path) -> set[str]:
    """The modules of tools/ that a file imports, at its top or in a function, as paths below tools/ without suffix."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    names = {name.removeprefix("tools.").replace(".", "/") for name in found if name.startswith("tools.")}
    return {name for name in names if (ROOT / f"tools/{name}.py").is_file()}


GRAPH = {
    path.relative_to(ROOT / "tools").with_suffix("").as_posix(): imported(path)
    for path in (ROOT / "tools").rglob("*.py")
    if path.name != "__init__.py"
}


def test_there_is_no_import_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


def test_nothing_imports_upward():
    depth = lambda name: LAYERS.index(name.split("/")[0])
    assert [f"{a} imports {b}" for a, names in GRAPH.items() for b in names if depth(b) > depth(a)] == []


def test_every_folder_says_what_lives_there():
    folders = [p for p in (ROOT / "tools").rglob("*") if p.is_dir() and p.name != "__pycache__"]
    assert [p.name for p in folders if not ast.get_docstring(ast.parse((p / "__init__.py").read_text()))] == []


def taken(path) -> set[tuple[str, str]]:
    """(module of ours, name) of each attribute that a file takes of such a module, wherever it imports that."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    froms = [node for node in froms if (node.module or "").split(".")[0] in ("tools", "lab")]
    modules = {alias.asname or alias.name: f"{n.module}.{alias.name}" for n in froms for alias in n.names}
    files = {name: module for name, module in modules.items() if (ROOT / f"{module.replace('.', '/')}.py").is_file()}
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}  # a variable of the same name
    uses = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    return {(files[n.value.id], n.attr) for n in uses if n.value.id in files.keys() - bound}


def test_every_name_that_is_taken_of_a_module_is_there():
    """Most of the peers in make bench run where no test does."""
    every = set().union(*(taken(path) for top in ("tools", "models", "lab") for path in (ROOT / top).rglob("*.py")))
    assert len(every) > 200
    assert [f"{module}.{name}" for module, name in every if not hasattr(importlib.import_module(module), name)] == []
