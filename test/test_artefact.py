"""What an evaluator of this artefact does: claims, what targets take, clean, a release, provenance; links that work."""

import csv
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import ROOT, in_git, lay, module, refused

from tools.checks import reproduce
from tools.make import chips, cli, manifest, run, screen
from tools.results import claims, record
from tools.scale import parts
from tools.setup import install

LEAF = "build/tiny/default/seq64/bs8/cpu-onnxruntime-fp32"
PAGES = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("models/*/*.md")] if "/build/" not in str(p)]


@pytest.mark.parametrize(("holds", "words", "status", "says"), [
    ("= 872", "", 0, r"^one +holds +872 \(= 872\)"),
    (">= 873", "", 2, r"^one +differs +872 \(>= 873\)"),
    ("= 872", " BS=0", 2, "make accuracy MODEL=tiny BS=0 ended with 2"),
])  # fmt: skip
def test_a_claim_is_checked_by_its_command(built, holds, words, status, says):
    text = f'[[claim]]\nid = "one"\nsays = "x"\nmake = ["accuracy MODEL=tiny{words}"]\nholds = "{holds}"\n'
    text += f'reads = {{key = "total", file = "{LEAF}/accuracy.json"}}\n'
    (built.path / "data/claims.toml").write_text(text)
    done = built.make("claims", "CLAIM=one", check=False)
    shutil.copy(ROOT / "data/claims.toml", built.path / "data/claims.toml")
    assert done.returncode == status and re.search(says, done.stdout, re.M), done.stdout + done.stderr
    (row,) = csv.DictReader((built.path / "build/claims.csv").read_text().splitlines())
    assert row["claim"] == "one" and float(row["seconds"]) >= 0 and int(row["memory_mb"]) > 10
    page = (built.path / "build/claims.md").read_text()
    assert f"| `one` | x | {holds} | {row['verdict']}: {row['value']} | {row['seconds']} | " in page


def test_what_was_checked_before_a_ctrl_c_is_kept(tmp_path, monkeypatch):
    checked = iter([dict.fromkeys(claims.COLUMNS) | {"claim": "setup", "verdict": "holds", "value": "7"}])
    monkeypatch.setattr(claims, "check", lambda claim, extra: next(checked))
    monkeypatch.setattr(claims, "PAGE", tmp_path / "claims.md")
    monkeypatch.setattr("sys.argv", ["claims", "--claim", "short"])
    monkeypatch.chdir(ROOT)
    with pytest.raises(StopIteration):
        claims.main()
    assert "checked: 1 hold, 0 differ" in (tmp_path / "claims.md").read_text()
    assert "setup,holds,7," in (tmp_path / "claims.csv").read_text()


def test_a_claim_that_needs_an_absent_unit_cannot_run(monkeypatch):
    monkeypatch.setattr(claims.cpu, "cpu_flags", lambda: {"sse4_1"})
    row = claims.check({"id": "x", "needs": ["bf16"], "make": ["nonsense"], "holds": "= 0"}, [])
    assert row["verdict"] == "cannot run here" and "has no bf16" in row["value"] and row["seconds"] is None
    for claim in claims.read_claims(ROOT / "data/claims.toml"):
        for engine, precision in re.findall(r"ENGINE=(\w+) PRECISION=(\S+)", " ".join(claim["make"])):
            for flags in map(set, map(str.split, ("sse4_1", "avx2 fma", "avx2 fma avx_vnni", "asimd", "asimd bf16"))):
                assert not flags & {*claim["needs"]} or chips.units(engine, precision, flags) is not None, claim


def test_the_lead_over_peers_is_that_of_the_precision_where_it_is_least(tmp_path):
    line = lambda name, precision, speed, shape="sorted": {
        "name": name, "precision": precision, "shape": shape, "samples_per_second": speed, "ours": "ENGINE" in name}  # fmt: skip
    lines = [line("a", "int8", 100), line("b", "int8", 200), line("c", "int8", None), line("b", "int8", 900, "padded"),
             line("a", "bf16", 50), line("ENGINE=openvino int8", "int8", 150), line("ENGINE=native int8", "int8", 300),
             line("ENGINE=native bf16", "bf16", 60), line("ENGINE=native fp32", "fp32", None)]  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps({"contenders": lines}))
    assert claims.value({"ahead": str(tmp_path / "bench.json")}) == 1.2
    assert claims.lead([line("ENGINE=native int8", "int8", 300)]) == 0  # no peer runs here


def test_a_claim_reads_what_its_command_makes(built):
    """Each file that a claim reads is one that the last of its makes would make, or is made from."""
    built.refuses("CLAIM=nonsense is not short, all or one of: setup data fp32", "claims", "CLAIM=nonsense")
    made = functools.cache(lambda words: built.make("-n", "-B", *words.split(), "V=1").stdout)
    listed = claims.read_claims(ROOT / "data/claims.toml")
    assert {field for claim in listed for field in claim} == {"id", "says", "make", "reads", "holds", "needs", "short"}
    for claim in (c for c in listed if "reads" in c):
        reads, makes = claim["reads"], " ".join(map(made, claim["make"]))
        files = [reads.get(key) for key in ("file", "length", "sha256", "ahead")]
        for file in filter(None, [*files, *reads.get("ratio", []), *reads.get("flips", [])]):
            assert file in makes or f"{file.rsplit('/', 1)[0]}/MANIFEST" in makes, (claim["id"], file)


def test_every_record_has_the_bits_that_are_claimed():
    claimed = {c["id"]: c["holds"].removeprefix("= ") for c in claims.read_claims(ROOT / "data/claims.toml")}
    kept = record.load_records([ROOT / "results/records"]).values()
    kept = [r for r in kept if (r["model"], r["weights"]) == ("minilm_sst2", "default") and "logits_sha256" in r]
    bits = {"fp32": claimed["bits"], "int8": claimed["bits-int8"]}
    assert [r["logits_sha256"] for r in kept] == [bits[r["precision"]] for r in kept]


def cleaned(folder, *words) -> str:
    return module("tools.setup.clean", *words, cwd=folder, check=True, timeout=60).stdout


def described(*targets) -> dict[str, str]:
    """The prov.json of some artefacts, each in its place."""
    prov = lambda target: json.dumps({"target": target, "sha256": "0", "recipe": "x", "inputs": {}})
    return {f"{target}.prov.json": prov(target) for target in targets}


ONES = "build/m/default/seq64/output/MANIFEST"
ENVIRONMENT = {".venv/pyvenv.cfg": "home = x", ".venv/.bert2om": "made by make", ".venv/installed": "x"}
MADE = {"build/imports.mk": " " * 1_000_000, "build/data/dev.tsv": "", "build/data/dev.tsv.log": "x", "build/m/default/source": "x",
        ONES: f"{'0' * 64}  1.bin\n", ONES.replace("MANIFEST", "1.bin"): "x", "build/data/m/dev/given": "x",
        "build/.imports.json.abcd1234": "x", "build/data/.dev.tsv.abcd1234": "x",
        "build/m/.a.onnx.abcd1234.bert2om.tmp/a.onnx": "x",
        f"build/score/a.parts/{parts.MANIFEST}": '{"parts": {"0-0.parquet": {}}}', "build/score/a.parts/0-0.parquet": "x",
        "build/demo/.bert2om": "made by make", "build/demo/any": "x", "results/local/perf-table.csv": "x",
        "build/.mypy_cache/3.11/cache.0.db": "x",
        **described("build/data/dev.tsv", ONES, "results/local/perf-table.csv")}  # fmt: skip
LATER = {"build/downloads/vaderSentiment-3.3.2.tar.gz": "x", **ENVIRONMENT}
THEIRS = {"build/notes.txt": "x", "build/mywork/exp1/thesis.txt": "x", "build/data/mytrain.tsv": "x",
          "build/lib/book.pdf": "x", "build/m/default/seq64/output/mine.bin": "x", "build/mywork/exp1/source/a": "x",
          "build/mywork/.README.markdown": "x", "build/data/.dev.20261130.tmp/a": "x", "build/data/source": "x",
          "build/m/mine/source": "two words", "build/m/mine/deeper/given": "x",
          "results/local/notes.txt": "x", "build/downloads/my_dataset.zip": "x", "build/verify/a": "x",
          "build/best/a.onnx": "x", "build/best/a.onnx.prov.json": described("build/m/a.onnx")["build/m/a.onnx.prov.json"],
          ".venv-bench/installed": "x", ".venv-bench/.bert2om": "made by x"}  # fmt: skip


def test_clean_removes_what_make_made_and_nothing_else(tmp_path):
    lay(tmp_path, {"Makefile": "x", "mine/photo": "x", "models/m/model.toml": "x"} | MADE | LATER | THEIRS)
    (tmp_path / "build/graphs").symlink_to(tmp_path / "mine")
    here = lambda names: [n for n in names if (tmp_path / n).exists()]
    said = cleaned(tmp_path)
    assert (here(MADE), here(LATER), here(THEIRS)) == ([], [*LATER], [*THEIRS])
    kept, removed = (re.findall(rf"^{word} +([^:\n]+)", said, re.M) for word in ("kept", "removed"))
    assert {"build/graphs", "build/mywork", "build/data/mytrain.tsv", "results/local/notes.txt"} <= set(kept)
    assert {"build/data/dev.tsv", "build/demo", "build/score", "build/m/default/source"} <= set(removed)
    assert "build/graphs: a link" in said and re.search(r"clean +\d+ MB freed", said)
    said = cleaned(tmp_path, "--all", ".venv", ".venv-bench")
    assert (here(LATER), here(THEIRS), here(["mine/photo"])) == ([], [*THEIRS], ["mine/photo"])
    assert "kept       .venv-bench: nothing that make made" in said and "kept       build/downloads" in said
    assert "nothing to remove" in cleaned(tmp_path)


@pytest.mark.parametrize("link", ["build", ".venv"])
def test_clean_follows_no_link(tmp_path, link):
    """build/ on another disk, an environment that several trees share."""
    files = {name.replace(link, "disk", 1): text for name, text in (MADE | LATER).items() if name.startswith(link)}
    lay(tmp_path, {"Makefile": "x"} | files)
    (tmp_path / link).symlink_to("disk")
    assert f"kept       {link}: a link" in cleaned(tmp_path, "--all", ".venv")
    assert all((tmp_path / name).exists() for name in files)


def test_clean_waits_for_no_pipe(tmp_path):
    names = ("build/a.prov.json", "build/data/m/dev/given", "build/x/.bert2om", "build/y/MANIFEST")
    lay(tmp_path, {"Makefile": "x"} | dict.fromkeys(names, "x") | described("build/y/MANIFEST"))
    for path in (tmp_path / name for name in names):
        path.unlink()
        os.mkfifo(path)
    assert cleaned(tmp_path).count("kept ") == 3


@pytest.mark.parametrize("files", [{"installed": "x"}, {"installed": "x", ".bert2om": "made by x"}, {"bin/x": "x"}])
def test_a_folder_of_ones_own_is_no_environment(tmp_path, files):
    lay(tmp_path, files | {"thesis": "x"})
    before = sorted(tmp_path.rglob("*"))
    refused("files that are not ours", install.make, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before and not install.is_ours(tmp_path)


@pytest.mark.parametrize("commit", ["a" * 40, None])
def test_an_archive_names_its_commit(tmp_path, monkeypatch, commit):
    (tmp_path / ".git_archival.txt").write_text(f"commit: {commit or '$Format:%H$'}\n")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run.git_state() == {"commit": commit, "dirty": None, "commit_from": ".git_archival.txt" if commit else None}


@pytest.mark.parametrize("git", [True, False])
def test_clean_copy_holds_the_sources_and_nothing_else(repo, git, monkeypatch):
    """Not what lies about in the tree, of any size; a new model that is not yet committed, and what its model.toml names."""
    monkeypatch.chdir(repo.path)
    monkeypatch.setattr(cli, "ROOT", repo.path)
    theirs = ["videos/a.mp4", "notes.mp4", "mine/weights.bin", "models/tiny/own/a.tsv", "results/local/a"]
    theirs += ["data/a.mp4", "docs/a.mp4", "models/tiny/more/a.mp4", "lab/a.mp4"] * git
    lay(Path(), dict.fromkeys([*theirs, "models/tiny/__pycache__/a.pyc"], "x"))
    values = Path("models/tiny/model.toml")
    own = 'weights = "mine"\ndata = "models/tiny/own"'
    values.write_text(re.sub(r"(?m)^weights = .*", own, values.read_text()))
    if git:
        for words in ("init -q", "add Makefile mk tools results data/*.edits", "commit -qm one"):
            in_git(repo.path, *words.split())
    folder = reproduce.clean_copy(Path("build/reproduce/one"))
    for name in ("Makefile", "mk", "data", "models/tiny/config.json", "results/costs.csv"):  # which README quotes
        assert (folder / name).exists(), name
    assert not [p for p in folder.rglob("*") if p.suffix in (".mp4", ".pyc") or p.match("results/local")]
    assert all((folder / name).is_symlink() for name in ("mine", "models/tiny/own"))
    assert [p.name for p in (folder / "build").iterdir()] == ["downloads"]
    assert (folder / "tools/make/run.py").read_bytes() == Path("tools/make/run.py").read_bytes()


def test_a_copy_takes_the_place_of_no_folder_of_ones_own(tmp_path, monkeypatch):
    """Neither where it is made, nor of what the check removes when it has ended well."""
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"build/verify/thesis": "x", "build/reproduce/notes": "x"})
    for folder in ("build/verify", "build/reproduce/one"):
        refused(r"holds files that are not ours; move it away first", reproduce.clean_copy, Path(folder))
    assert Path("build/verify/thesis").exists() and Path("build/reproduce/notes").exists()
    Path("build/reproduce/notes").unlink()
    for _ in "12":
        reproduce.clean_copy(Path("build/reproduce/one"))
    assert manifest.marked(Path("build/reproduce"))


def anchor(heading: str) -> str:
    """How GitHub turns a heading into an anchor."""
    kept = [c for c in heading.strip().lower() if c in "- " or unicodedata.category(c)[0] in "LNM" or c == "_"]
    return "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_work(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    broken = []
    for link in (x for x in links if not re.match(r"[a-z]+:", x)):
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        anchors = re.findall(r"(?m)^#+ (.*)$", target.read_text("utf-8")) if fragment and target.is_file() else []
        if not target.exists() or (fragment and fragment not in map(anchor, anchors)):
            broken.append(link)
    assert broken == []


def test_both_readmes_have_the_same_sections_and_commands():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert len(re.findall(r"(?m)^## ", english)) == len(re.findall(r"(?m)^## ", chinese))
    commands = lambda text: {" ".join(c.split()) for c in re.findall(r"(?m)^(?: {4})?(make [^#\n]*)", text)}
    assert commands(english) == commands(chinese)


def test_a_terminal_sees_that_a_long_command_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert screen.wait(subprocess.Popen(["sh", "-c", "sleep 1.2; exit 3"]), "pip install") == 3
    assert "pip install: 1 s ..." in capsys.readouterr().err
