"""What maintainers hand on: a release that needs no index, a container, a crate, an SBOM, what targets cost."""

import json
import re
import subprocess
import sys
import tarfile

from conftest import ROOT, fails, in_git, lay, refused

from lab import crate, release
from tools.make import cli
from tools.results import claims
from tools.setup import install, sbom
from tools.source import fetch

LEAF = "build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32"


def test_a_release_is_the_same_bytes_and_brings_its_wheels(repo, tmp_path, monkeypatch):
    """The tree of the commit, wheels and downloads in one folder; without the wheels' index nothing else is asked."""
    (repo.path / ".git_archival.txt").write_text("commit: $Format:%H$\n")  # an unpacked archive names its own commit
    for words in ("init -q", "add -A", "commit -qm one"):
        in_git(repo.path, *words.split())
    monkeypatch.chdir(repo.path)
    lay(tmp_path, {"a-1-py3-none-any.whl": "wheel", "pinned.tar.gz": "pinned"})
    wheel, pinned = tmp_path / "a-1-py3-none-any.whl", tmp_path / "pinned.tar.gz"
    for name in ("one.tar", "two.tar"):
        release.write(tmp_path / name, "bert2om-x", [wheel], [pinned])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        read = lambda name: tar.extractfile(f"bert2om-x/{name}").read().decode()
        assert read(".git_archival.txt") == f"commit: {in_git(repo.path, 'rev-parse', 'HEAD')}\n"
        assert read("wheels/SHA256SUMS") == f"{cli.sha256(wheel)}  a-1-py3-none-any.whl\n"
        assert read("build/downloads/pinned.tar.gz") == "pinned"
        assert {m.mtime for m in tar} == {int(in_git(repo.path, "show", "-s", "--format=%ct", "HEAD"))}
    (repo.path / "README.md").write_text("edited")
    monkeypatch.setattr(sys, "argv", ["release", "--save_path", str(tmp_path)])
    refused("the work tree differs", release.main)


def test_a_release_installs_from_its_wheels_alone_and_locks_each_package_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(install, "WHEELS", tmp_path)
    monkeypatch.setattr(install, "pip", lambda folder, *words, log=None: asked.append(words) or 0)
    with (tmp_path / "log").open("w") as log:
        install.install(tmp_path, [ROOT / "requirements.txt", ROOT / "requirements-cpu.txt"], log, [])
    fills = [words for words in asked if words[0] == "install" and "--dry-run" not in words]
    assert len(fills) == 2 and all({"--no-index", str(tmp_path)} <= set(words) for words in fills)
    monkeypatch.chdir(ROOT)
    heads = re.findall(r"^([a-z0-9-]+)==\S+(.*?) \\$", release.locked(), re.M)
    plain = [name for name, marker in heads if "python_full_version" not in marker]
    assert len(plain) == len(set(plain)) and "torch" in plain


def test_the_container_runs_offline():
    """README's two commands, in an image that is built on BASE, which is pinned, of the downloads of a release."""
    text = (ROOT / "Containerfile").read_text()
    assert re.findall(r"(?m)^ARG BASE=\S+@sha256:[0-9a-f]{64}$", text)
    assert re.findall(r"(?m)^FROM .*", text) == ["FROM ${BASE}"]
    assert {"build/*", "!build/downloads", ".venv*"} <= set((ROOT / ".containerignore").read_text().split())
    command = ["make", "-n", "container", "BASE=debian:13"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    _, build, run = said.stdout.splitlines()
    assert build == "podman build --build-arg BASE=debian:13 -t localhost/bert2om ."
    assert run == "podman run --rm --network=none localhost/bert2om sh -c 'make accuracy && make test'"


def test_costs_are_of_claims(monkeypatch):
    """In their order, so that each row says what it adds to those above it."""
    monkeypatch.chdir(ROOT)
    known = [claim["id"] for claim in claims.read_claims()]
    assert [*claims.costs()] == [name for name in known if name in claims.costs()]


def test_a_crate_describes_every_step(built, tmp_path):
    built.make("MODEL=tiny", "crate")
    document = json.loads((built.path / "build/ro-crate-metadata.json").read_text())
    entities = {e["@id"]: e for e in document["@graph"]}
    record = json.loads((built.path / LEAF / "accuracy.json").read_text())
    for path, link in record["chain"].items():
        name = path.removeprefix("build/") if path.startswith("build/") else f"#{path}"
        assert entities[name]["sha256"] == link["sha256"]
    actions = [e for e in entities.values() if e["@type"] == "CreateAction"]
    refer = lambda value: {link["@id"] for link in (value if isinstance(value, list) else [value])}
    assert all(refer(a[key]) <= entities.keys() for a in actions for key in ("instrument", "object", "result", "agent"))
    assert any(refer(a["result"]) == {LEAF.removeprefix("build/") + "/accuracy.json"} for a in actions)
    assert not any(len(v) == 1 for e in entities.values() for v in e.values() if isinstance(v, list))
    assert all((built.path / "build" / part["@id"]).is_file() for part in entities["./"]["hasPart"])
    files = [e for e in entities.values() if e["@type"] == "File"]
    assert all("/" in e["encodingFormat"] and e["license"]["@id"] in entities for e in files)
    assert entities["data/dev.tsv"]["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    assert {entities["./"][k]["@id"] for k in ("author", "publisher")} == {"#make"}
    refused("make nothing.json first", crate.steps, "nothing.json")


def test_a_crate_names_scripts_by_the_address_of_the_clone(monkeypatch, tmp_path):
    for words in ("init -q", "remote add origin https://example.org/a/b.git", "commit -q --allow-empty -m one"):
        in_git(tmp_path, *words.split())
    monkeypatch.chdir(tmp_path)
    crate.home.cache_clear(), crate.commit.cache_clear()
    script = crate.file("tools/x.py", "0", tmp_path / "build", "wheel")
    assert script["@id"] == script["url"] == f"https://example.org/a/b/blob/{script['version']}/tools/x.py"
    crate.home.cache_clear(), crate.commit.cache_clear()
    assert crate.licence("build/m/w/a.onnx", "/data/theirs") == {}  # of whoever's weights they are


def test_the_sbom_is_cyclonedx(monkeypatch):
    monkeypatch.chdir(ROOT)
    here = sbom.installed()
    document = sbom.document(here)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    names = {kind: {c["name"] for c in document["components"] if c["type"] == kind} for kind in ("library", "data")}
    assert names == {"library": set(here), "data": set(fetch.read_pins())}
    refs = {c["bom-ref"] for c in document["components"]}
    needs = {one["ref"]: set(one["dependsOn"]) for one in document["dependencies"]}
    assert needs.pop("bert2om") == refs and needs.keys() < refs and set().union(*needs.values()) <= refs
    assert any(ref.startswith("pkg:pypi/numpy@") for ref in next(v for k, v in needs.items() if "/onnx@" in k))
    assert document["metadata"]["component"]["version"] in (ROOT / "CHANGELOG.md").read_text()
    assert document == sbom.document(here)
    (torch,) = (c for c in document["components"] if c["name"] == "torch")
    assert torch["externalReferences"][0]["hashes"][0]["alg"] == "SHA-256"


def test_sbom_finds_what_is_outside_the_lock(tmp_path):
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "BERT2OM_TEST_STANDIN": "1"}
    command = [sys.executable, "-m", "tools.setup.sbom"]
    run = lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    done = run()
    assert done.returncode == 0 and "packages, as requirements.txt locks them" in done.stdout, done.stderr
    assert "not stated" not in done.stdout
    lay(tmp_path, {"stray-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n"})
    fails(run(), "stray 1.0 is installed but not locked")
