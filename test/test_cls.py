"""CLS=1: the last layer for [CLS] alone, through make, on every kind of row, and into records and tables."""

import json
from pathlib import Path

import pytest
from fake_cann import tiny

from tools import cli
from tools.checks import audit, verify
from tools.results import imports, plot, published, readme, record, show, table

PLAIN = "tiny/default/seq64/bs8/cpu-onnxruntime-fp32"
LEAF = "tiny/default/seq64c/bs8/cpu-onnxruntime-fp32"
ROUTES = {
    LEAF: (),
    "tiny/default/seq64pc/bs8/310P3-atc-fp16": ("PACK=1", "CHIP=310P3"),
    "tiny/default/seqrealc/bs8/cpu-openvino-int8": ("SEQ=real", "ENGINE=openvino", "PRECISION=int8"),
    "tiny/default/seq32-64c/bs8/cpu-onnxruntime-fp32": ("SEQ=32,64",),
}


@pytest.mark.parametrize("leaf", ROUTES)
def test_predictions_are_those_of_the_whole_layer(built, leaf):
    words, env = ("MODEL=tiny", "CLS=1", *ROUTES[leaf]), tiny.environment()
    built.make(*words, "accuracy", env=env)
    read = lambda name: json.loads((built.path / "build" / name).read_text())
    got, want = read(f"{leaf}/accuracy.json"), read(f"{PLAIN}/accuracy.json")
    if "int8" not in leaf:
        assert got["predictions"] == want["predictions"]
    assert got["total"] == 872 and got["seq"] == leaf.split("/")[2].removeprefix("seq")
    assert built.make("-q", *words, "accuracy", env=env).returncode == 0
    assert not list((built.path / "build" / leaf).parents[1].glob("**/input"))  # they are those of the whole layer
    assert built.make("-q", "MODEL=tiny", "accuracy").returncode == 0
    assert built.remade("MODEL=tiny", "-W", "tools/graph/cls.py", "accuracy") == set()


def test_a_record_finds_its_way_back(built, tmp_path, monkeypatch):
    """make, record, table, page, verify and audit spell the same configuration."""
    built.make("MODEL=tiny", "CLS=1", "accuracy", "perf", "SAMPLES=8")
    monkeypatch.chdir(built.path)
    made = [Path("build", LEAF, f"{kind}.json") for kind in ("accuracy", "perf")]
    kept = [record.promote(tmp_path, record.read(path), path) for path in made]
    assert [fault for path in kept for fault in audit.record_faults(path)] == []
    assert [fault for path in made for fault in audit.leaf_faults(path)] == []
    speed = record.read(kept[1])
    assert record.leaf_of(speed) == LEAF
    assert {"SEQ=64", "PACK=", "CLS=1", "SAMPLES=8"} <= set(record.make_words(speed))
    assert verify.chosen(kept, ["SEQ=64", "CLS=1"]) == kept and verify.chosen(kept, ["CLS="]) == []
    assert "sequence 64, last layer for [CLS]" in show.show(speed)
    rows = table.frame([record.read(path) for path in kept])
    assert rows["seq"].tolist() == ["64c"] and rows["samples_per_s"].notna().all()
    assert readme.short(rows)["engine"].tolist() == ["onnxruntime fp32, CLS=1"]
    assert list(plot.curves([speed, speed | {"seq": "realc"}], "throughput")) == [("tiny", "64c")]
    more = [speed | {"seq": "64", "bs": bs} for bs in (8, 16)]  # beside a curve, a point stands in the tables alone
    assert list(plot.curves([speed, *more], "throughput")) == [("tiny", "64")]


SPELLED = {"128": ("128", "", ""), "64-128c": ("64,128", "", "1"), "128p": ("128", "1", ""),
           "128pc": ("128", "1", "1"), "real": ("real", "", ""), "realc": ("real", "", "1")}  # fmt: skip


@pytest.mark.parametrize("seq", SPELLED)
def test_a_path_spells_seq_pack_and_cls(seq):
    assert tuple(record.spelled(seq).values()) == SPELLED[seq]


def test_no_figure_of_others_stands_beside_it(tmp_path):
    figure = {"model": "m", "seq": "", "metric": "throughput", "bs": "8"}
    assert not published.beside({"model": "m", "kind": "throughput", "bs": 8, "seq": "128c"}, [figure])
    with pytest.raises(cli.UserError, match="a log says nothing of the last layer; measure with make perf CLS=1"):
        imports.imported(tmp_path / "log", Path("m/default/seq128c/bs8/310P3-atc-fp16"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("CLS=yes", "accuracy"), "CLS='yes' is not 1 or empty"),
        (("CLS=1", "ENGINE=native", "accuracy"), "CLS=1 needs no ENGINE=native"),
        (("CLS=1", "bench"), "make bench compares the whole last layer; use make perf CLS=1"),
    ],
)
def test_what_it_is_not_for_is_refused(built, words, says):
    done = built.make("-n", "MODEL=tiny", *words, check=False)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_the_engine_is_one_that_profits(built):
    """Ours needs no CLS=1, so OpenVINO runs where ours is the default; make score takes it too."""
    assert "/cpu-openvino-bf16/" in built.make("-n", "MODEL=tiny", "CLS=1", "PRECISION=bf16", "accuracy").stdout
    text = built.make("-n", "MODEL=tiny", "CLS=1", "INPUT=build/data/dev.tsv", "score").stdout
    assert "/seqrealc/bs8/" in text and "model.native" not in text
