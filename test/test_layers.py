"""The folders of tools/ are layers: each imports only what stands before it, and no module imports in a circle."""

import ast
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
