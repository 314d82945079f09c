"""Records as data from anywhere: what is refused, in which words; nothing else breaks; how they are kept."""

import functools
import json
import operator
import shutil
import subprocess
from pathlib import Path

import measured
import pytest
from conftest import module

from tools.checks import verify
from tools.make import cli, cpu
from tools.results import figures, peers, record, schema, store, table

SPEED = "cpu-openvino-bf16"
EVIL = ["=1+1", "a|b", "<img src=x>", "\x1b[31m", "a\nb", "\ud800"]


@pytest.fixture
def repo(pristine, spare):
    """A copy to spoil; what a test did to it is undone."""
    with measured.spoilt(spare, pristine) as folder:
        yield folder


@pytest.fixture
def files(pristine, tmp_path, monkeypatch):
    """The records alone, for tests that need nothing of what they were made from."""
    shutil.copytree(pristine / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)


def record_path(kind: str) -> Path:
    return min(Path("results/records").glob(f"*-128-8-*-fp32-{kind}.json"))


def changed(path: Path, *keys, to=None) -> dict:
    """A record with one field, deep or not, replaced, or deleted where `to` is ..."""
    value = json.loads(path.read_text())
    field = functools.reduce(operator.getitem, keys[:-1], value)
    if to is ...:
        del field[keys[-1]]
    else:
        field[keys[-1]] = to
    path.write_text(json.dumps(value))
    return value


# ---- what is refused

LINK, LOG = f"{measured.MODEL}/seq128/bs8/cpu-onnxruntime-fp32/score.json", {"file": "x.log", "sha256": "0" * 64}
FAULTS = {
    "an empty round": ("throughput", ["times_ms", 0], [], r"times_ms[0]: List should have at least 1 item"),
    "no times": ("throughput", ["times_ms"], ..., "times_ms is missing, and the record is not imported"),
    "a text for a number": ("throughput", ["times_ms", 0, 3], "x", "times_ms[0][3]: Input should be a valid number"),
    "no time": ("throughput", ["times_ms"], [[0.0]], "adds up to nothing"),
    "a huge integer": ("throughput", ["samples_per_second"], 10**400, "samples_per_second: "),
    "infinite": ("throughput", ["spread"], float("inf"), "spread: Input should be"),
    "imported: true": ("throughput", ["imported"], True, "imported: Input should be"),
    "no source": ("accuracy", ["source"], ..., "source is missing, and the record is not imported"),
    "a path": ("accuracy", ["started"], "../../../zz", "started: String should match pattern"),
    "a list for a text": ("accuracy", ["model"], ["x"], "model: Input should be a valid string"),
    "an unknown field": ("accuracy", ["colour"], "red", "colour: Extra inputs are not permitted"),
    "too short": ("accuracy", ["predictions"], "01", "predictions is 2 long, total 872"),
    "no chain": ("accuracy", ["upstream"], "0" * 64, "is gone, or has another sha256"),
    "a text for a chain": ("accuracy", ["upstream"], "../x", "upstream: not a sha256"),
    "another kind": ("accuracy", ["kind"], ["x"], "kind: "),
    "null commands": ("accuracy", ["chain", LINK, "commands"], None, "commands: Input should be a valid list"),
    "a circle": ("accuracy", ["chain", LINK, "inputs", LINK], "0" * 64, "chain: goes in a circle"),
    "a null link": ("accuracy", ["chain", LINK], None, "Input should be a valid dictionary"),
    "a null task": ("accuracy", ["task"], None, "task: Input should be"),
    "a number of 401 digits": ("throughput", ["engine_info", "threads"], 10**400, "engine_info.threads"),
    "no CPU": ("throughput", ["machine", "cpu"], None, "machine.cpu is missing, and the record is not imported"),
    "no threads": ("throughput", ["engine_info", "threads"], ..., "engine_info.threads is no count"),
    "turns dropped": ("throughput", ["pairs"], ..., "pairs, singles, yardstick, loop, figures stand together"),
    "a round fewer": ("throughput", ["rounds"], [1.0], "its times, turns or devices are not of 1 rounds"),
    "imported": ("accuracy", ["imported"], LOG, "holds source, which only a run of this project leaves"),
    "a turn of no time": ("throughput", ["pairs", 0, 0, 1], 0, "hold a turn of no samples or no time"),
} | {f"CPU {ascii(name)}": ("throughput", ["machine", "cpu"], name, "machine.cpu: ") for name in EVIL}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_record_is_named_with_its_field(files, fault):
    kind, keys, value, says = FAULTS[fault]
    changed(record_path(kind), *keys, to=value)
    with pytest.raises(cli.UserError) as stop:
        record.read_record(record_path(kind))
    assert str(stop.value).startswith(f"{record_path(kind)}: ") and says in str(stop.value), stop.value
    assert str(stop.value).isascii()


def test_the_others_go_on(repo):
    """Every reader names the bad ones, and ends as it does without them."""
    folder = Path("results/records")
    good = record_path("accuracy").read_text()
    for i, text in enumerate(["", "[]", "{", '"x"', "1", '{"kind": "throughput"}', "[" * 10**5, "{}", '{"kind": {}}']):
        (folder / f"bad{i}.json").write_text(text)
    (folder / "bad-bytes.json").write_bytes(b"\xff\xfe")
    (folder / "deep.json").write_text(good.replace('"seq"', '"times_ms"'))
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
        with pytest.raises(cli.UserError, match=str(bad)):
            record.read_record(bad)


# ---- what is shown


def test_a_cell_is_text_and_nothing_else():
    import pandas as pd

    cells = pd.DataFrame({"reason": ["=1+1", "a|b", "<b>x", "plain"], "speed": [1.0, 2.0, 3.0, None]})
    csv = table.render(cells, ".csv").splitlines()
    assert csv[1] == "'=1+1,1.0"
    text = table.render(cells, ".md").splitlines()
    assert "a\\|b" in text[3] and "&lt;b&gt;x" in text[4]


@pytest.mark.parametrize("name", EVIL)
def test_a_strange_name_of_a_cpu_is_measured_under_a_harmless_one(name):
    assert schema.plain(cpu.safe_name(name)) == cpu.safe_name(name)
    assert cpu.safe_name("Intel(R) Core(TM) i7 CPU @ 2.40GHz, v2.5+") == "Intel(R) Core(TM) i7 CPU @ 2.40GHz, v2.5+"


def test_speeds_have_three_digits_and_no_table_an_interval_of_one_run():
    assert [figures.in_digits(v) for v in (244.65, 3005.16, 6.342, 0.0123, 11160.4)] == [
        "245", "3010", "6.34", "0.0123", "11200"]  # fmt: skip
    assert figures.interval({"value": 124.61, "low": 123.9, "high": 125.14}) == "125 (124 to 125)"


def test_real_lengths_stand_under_no_batch_size_that_the_engine_ignores(files):
    value = record.read_record(record_path("throughput")) | {"seq": "real"}
    assert table.row(value)["bs"] == 8
    for name in ("native", "packed"):
        assert table.row(value | {"engine": name})["bs"] is None


# ---- figures


def test_the_interval_is_that_of_the_turns():
    """Twenty turns of 100 samples a processor second, give or take 2 %; the yardstick does 1e12 a second."""
    pairs = [[10, 0.05, 0.1 * (1 + 0.02 * (-1) ** i), 4e10, 0.02, 0.04] for i in range(20)]
    values = figures.from_turns(pairs, [], threads=2)
    core = values["per_core_second"]
    assert core["value"] == pytest.approx(100) and 98 < core["low"] < 100 < core["high"] < 102
    assert values["per_tera"]["value"] == pytest.approx(100)
    assert values["per_tera_quiet"]["value"] == pytest.approx(10 / 0.05 / 2)
    assert figures.from_turns(pairs, [], 2) == values  # the same every time
    assert figures.from_turns(pairs[:9], [], 2) == dict.fromkeys(values)
    busy = [[*p[:5], 0.03] for p in pairs]  # the yardstick had three quarters of two processors
    assert figures.from_turns(busy, [], 2)["per_tera_quiet"] is None
    _, quiet = figures.turn_columns(
        [[*p[:5], core] for p, core in zip(pairs, (0.04, 0.03, 0.04, 0.04), strict=False)], 2
    )
    assert quiet.tolist() == [True, False, False, True]  # before it and after it
    assert figures.from_turns(pairs, [[10, 0.08, 4e10, 0.04]] * 12, 2)["per_core_second"]["value"] == 125


# ---- how they are kept


def test_what_records_share_of_their_chains_stands_once(repo):
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
    with pytest.raises(cli.UserError, match=r"upstream: .* is gone, or has another sha256"):
        record.read_record(paths[0])


def test_a_record_is_never_overwritten(files):
    path, value = record_path("accuracy"), record.read_record(record_path("accuracy"))
    before = path.read_bytes()
    assert store.keep_record(path, value) == path and path.read_bytes() == before
    with pytest.raises(cli.UserError, match="exists with other content; records are never overwritten"):
        store.keep_record(path, value | {"commit": "1" * 40})
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_a_crafted_record_is_not_written_anywhere(repo):
    """`started` becomes part of the file's name."""
    path = measured.leaf(8, "cpu-onnxruntime-fp32") / "accuracy.json"
    files = lambda: {p for p in Path("..").resolve().rglob("*") if p.is_file() and p.suffix != ".pyc"}
    before = files()
    for name, value in (("started", "../../../zz"), ("commit", "1" * 40), ("correct", 872)):
        text = path.read_text()
        changed(path, name, to=value)
        refused(path)
        path.write_text(text)
    assert files() == before


def refused(path: Path) -> None:
    """A record that is not promoted, which is said in one line that names it."""
    with pytest.raises(cli.UserError) as stop:
        record.promote_all(Path("new"), [path])
    assert str(path) in str(stop.value) and "\n" not in str(stop.value) and not Path("new").exists()


@pytest.mark.parametrize("name", ["output/out/3_0.bin", "model.onnx"])
def test_what_was_changed_in_place_makes_no_artefact_and_no_record(repo, name):
    """With the old dates, so that make sees nothing."""
    leaf = measured.leaf(8, "cpu-onnxruntime-fp32")
    (leaf / name).write_bytes(bytes(8))
    step = {"score.json": f"{leaf}/output/MANIFEST", "output/MANIFEST": f"{leaf}/model.onnx"}
    failed = []
    for target, source in step.items():
        done = module("tools.make.run", "--step", "x", leaf / target, source, "--", "false")
        failed.append(done.stderr)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert any("run make again" in text and "false" not in text for text in failed)
    refused(leaf / "accuracy.json")


def test_a_forged_summary_makes_no_speed(repo):
    leaf = measured.leaf(8, SPEED)
    changed(leaf / "round1/out_summary.json", "throughput", to=9e9)
    done = module("tools.make.run", "--step", "perf", leaf / "perf.json", leaf / "round1/MANIFEST", "--", "true")
    assert done.returncode == 1 and "round1/out_summary.json: gone, or other than it was when" in done.stderr
    refused(leaf / "perf.json")


def test_a_record_of_isa_is_made_again_with_it(files):
    value = record.read_record(record_path("throughput")) | {"isa": "AVX2"}
    assert "ISA=AVX2" in record.make_words(value)
    assert record.leaf_of(value).endswith("-fp32.AVX2")
    assert schema.faults(value) == []
    assert table.row(value)["precision"] == "fp32 ISA=AVX2"


def test_bench_records_are_held_to_the_schema_too(files):
    good = sorted((measured.ROOT / "results/bench").glob("*.json"))
    benches = record.load_records(good, ("bench",))
    assert len(benches) == len(good) > 0
    for path, value in benches.items():
        Path("results/bench").mkdir(exist_ok=True)
        (Path("results/bench") / path.name).write_text(json.dumps(value | {"started": "../../zz"}))
    assert record.load_records(["results/bench"], ("bench",)) == {}
    with pytest.raises(cli.UserError, match="started: String should match"):
        peers.promote(Path("new"), next(iter(benches.values())) | {"started": "../../zz"})


def test_a_thousand_records_make_a_page_of_two_megabytes(repo):
    """No list of them is an argument of a command."""
    value = json.loads(record_path("throughput").read_text()) | {"requests": None}
    for key in schema.TURNS:
        value.pop(key)
    value["times_ms"] = [t[:1] for t in value["times_ms"]]
    for i in range(999):
        name = f"20261127T000000-{i:04}-{'x' * 180}.json"  # in all more than an argument may have
        (Path("results/records") / name).write_text(json.dumps(value | {"bs": 1 + i}))
    command = ["make", f"VENV={measured.ROOT / '.venv'}", "build/report.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("build/report.html").stat().st_size < 2e6
