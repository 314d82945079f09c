"""Fuzz every parser that is ours: any bytes are read, or refused by one line.

    python -m lab.fuzz --runs 200 om log
    om       200 inputs, 97 refused, 0 failures, 1.0 s
    log      200 inputs, 193 refused, 0 failures, 0.5 s

`make fuzz` gives each target 100 x RUNS inputs: sound files of corpus.py (and all committed records) with bytes flipped,
cut and repeated, JSON with values exchanged, and noise. test_fuzz.py is the short run of the tests.
"""

import contextlib
import copy
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from lab import corpus, counts
from tools.ascend import om
from tools.base import input_files, onnxfile, output_files, tasks
from tools.checks import audit, verify
from tools.cpu import engines
from tools.cpu.native import model as native
from tools.make import cli, manifest
from tools.results import compare, imports, peers, plot, published, record, report, show, table
from tools.scale import files
from tools.source import adapter, architecture, checkpoint, data, families, fetch, tensors, tokenizer

PUBLISHED, DRAWN = published.all_figures(cli.ROOT / "models"), set()
SNIPPETS = [data.spell_canonical("A fine film."), data.spell_canonical("A dull film.")]


def tsv(path):
    sentences, labels = data.read_tsv(path)
    assert data.tsv_bytes(zip(sentences, labels, strict=True)).rstrip(b"\n") == path.read_bytes().rstrip(b"\n")


def records(path):
    """A record, and all that reads one. A picture takes nothing of a chain: of two records that differ there, one is drawn."""
    value = record.read_record(path)
    show.text_block(value)
    for suffix in (".md", ".csv"):
        table.render(table.frame([value]), suffix)
    report.html_table({path: value}, PUBLISHED), report.details(path, value)
    record.make_words(value)
    list(audit.contradictions(value))
    verify.judge(value, value)
    with contextlib.suppress(cli.UserError):  # scores have no flips
        compare.comparison(value, value) if value["kind"] == "accuracy" else None
    drawn = json.dumps(value | {"chain": None})
    if drawn not in DRAWN:
        DRAWN.add(drawn)
        plot.draw([value], PUBLISHED)


def benches(path):
    """A record of a bench, and all that reads one."""
    values = list(record.load_records([path], ("bench",)).values())
    peers.page(values)
    peers.draw(values)
    list(audit.bench_faults(path))


def imported(leaf):
    """What reads a log from elsewhere, of a configuration x/y/seq64/bs8/LEAF."""
    return lambda path: show.text_block(imports.import_record(path, Path("x/y/seq64/bs8", leaf)))


def figures_file(path):
    """A published.csv, and what shows it."""
    rows = published.all_figures(path.parents[1])
    table.frame([], [table.published_row(row) for row in rows])
    plot.frontier([], rows)


def adapted(path):
    adapter.combine(tensors.read_tensors(path.parent / "base")[1], adapter.read_adapter(path)[0], path)


def table_file(path):
    selection = files.Selection(tasks.TASKS["sst2"], ("negative", "positive"), (("sentence",),))
    sum(len(table) for table in files.tables(files.Source(str(path), path.name), selection))


# What reads it, the file it is given, and the sound ones of corpus.good that it starts from, where they are others.
TARGETS = {
    "tsv": (tsv, "dev.tsv"),
    "edits": (lambda path: data.rebuild(path, SNIPPETS), "x.edits"),
    "archive": (data.read_snippets, "x.tar.gz"),
    "om": (lambda path: om.show(om.read_om(path)), "m.om"),
    "log": (imported("310P3-atc-fp16"), "s", "s.json", "s.log"),
    "trtexec": (imported("T4-trtexec-fp16"), "t", "t.log"),
    "record": (records, "a.json", "a.json", "p.json"),
    "bench": (benches, "bench.json"),
    "published": (figures_file, "models/x/published.csv"),
    "labels": (lambda path: output_files.score(path.parent / "out", path), "labels.json"),
    "pins": (fetch.read_pins, "pins.txt"),
    "adapter": (adapted, "a.safetensors"),
    "native": (native.Model, "m.native"),
    "ir": (engines.read_ir, "m.ir"),
    "npy": (lambda path: input_files.load_rows(path.parent), "npy/1.npy"),
    "safetensors": (tensors.read_file, "made/model.safetensors"),
    "config": (lambda path: families.shapes(architecture.read_config(path)), "made/config.json"),
    "tokenizer": (lambda path: tokenizer.load(path.parent).encode("a fine film"), "made/tokenizer.json"),
    "zip": (lambda path: checkpoint.unzip(path, Path(tempfile.mkdtemp(dir=path.parent))), "zip/model.zip", "model.zip"),
    "onnx": (onnxfile.load_model, "m.onnx"),
    "csv": (table_file, "t.csv"),
    "jsonl": (table_file, "t.jsonl"),
    "parquet": (table_file, "t.parquet"),
    "manifest": (lambda path: list(manifest.faults(path)), "listed/MANIFEST"),
}


def check(target: str, folder: Path, content: bytes) -> bool:
    """Give a target one input; False if it was refused. Anything but a result or one line is raised."""
    read, name, *_ = TARGETS[target]
    path = folder / name
    path.write_bytes(content)
    try:
        read(path)
    except cli.UserError as e:
        assert "\n" not in str(e) and str(e).isprintable(), str(e)
        return False
    except OSError as e:  # cli.run makes one line of it
        assert e.filename, repr(e)
        return False
    return True


JUNK = [None, True, 0, -1, 1e308, 5e-324, 10**30, "", "x", "\ud800", "\x1b[2J", "=1", [], [[]], {}, {"": None}, [None]]
JSON = st.sampled_from(JUNK) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def inputs(draw, seeds: list[bytes]) -> bytes:
    """A sound file, changed; or noise."""
    content = draw(st.sampled_from(seeds))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    if content[:1] == b"{" and content.count(b"\n{") == 0 and draw(st.booleans()):
        return exchanged(draw, json.loads(content))
    out = bytearray(content)
    kinds = draw(st.sampled_from([["set"], ["set", "put", "cut", "again", "end"]]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(out) - 1, 0)))
        size = draw(st.integers(1, 5))
        change = draw(st.sampled_from(kinds))
        if change == "set":
            out[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "put":
            out[at:at] = draw(st.binary(max_size=8) | st.sampled_from([b"\0", b"\r", b"nan", b"1e999", b"-1", b"\xff"]))
        elif change == "cut":
            del out[at : at + size]
        elif change == "again":
            out[at:at] = out[at : at + 20 * size]
        else:
            del out[at:]
    return bytes(out)


def exchanged(draw, whole) -> bytes:
    """JSON with one to three members replaced or dropped, at any depth."""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        node = whole
        while isinstance(node, dict | list) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], dict | list) or not node[key] or draw(st.booleans()):
                break
            node = node[key]
        if not node:
            break
        if isinstance(node, dict) and draw(st.booleans()):
            del node[key]
        else:
            node[key] = copy.deepcopy(draw(JSON))  # it may be changed in its turn
    return json.dumps(whole).encode()


def thinned(value):
    """JSON whose long lists hold two elements: so that a change hits each field of a record, not its thousand times."""
    if isinstance(value, dict):
        return {key: thinned(inner) for key, inner in value.items()}
    return [thinned(inner) for inner in (value[:2] if len(value) > 9 else value)] if isinstance(value, list) else value


def committed(folder: Path) -> list[bytes]:
    """The records of a folder, thinned."""
    return [json.dumps(thinned(value)).encode() for value in record.load_records([folder]).values()]


def run(target: str, folder: Path, examples: int, number=None, more: list[bytes] | None = None) -> Counter:
    """Hypothesis on one target, in a folder of corpus.good's files: how many inputs, how many refused. more: seeds."""
    _, name, *sound = TARGETS[target]
    seeds = [(folder / name).read_bytes() for name in sound or [name]] + (more or [])
    tally, given_to = Counter(), folder / name
    before = given_to.read_bytes() if given_to.exists() else None

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(seeds))
    def once(content):
        tally["inputs"] += 1
        tally["refused"] += not check(target, folder, content)

    try:
        (seed(number)(once) if number is not None else once)()
    finally:
        given_to.unlink(missing_ok=True) if before is None else given_to.write_bytes(before)
    return tally


def main():
    p = cli.parser(__doc__)
    p.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=" ".join(TARGETS))
    p.add_argument("--runs", type=int, default=10_000, help="inputs for each target (%(default)s)")
    p.add_argument("--save_path", type=Path, help="keep the counts there, as results/stress.csv")
    args = p.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        p.error(f"{min(unknown)}: not one of {' '.join(TARGETS)}")
    failed, refused = [], Counter()
    with tempfile.TemporaryDirectory() as box:
        with contextlib.redirect_stdout(None):
            folder = corpus.good(Path(box))
        for target in args.targets:
            began, tally, said = time.monotonic(), Counter(), "0 failures"
            try:
                more = committed(cli.ROOT / "results/records") if target == "record" else []
                tally = run(target, folder, args.runs, more=more)
            except Exception as e:  # whatever a parser raises is what this looks for
                failed.append(target)
                notes = lambda one: " ".join(getattr(one, "__notes__", []))[:600]
                every = getattr(e, "exceptions", [e])  # of failures of several kinds
                kinds = [f"{type(one).__name__}: {str(one)[:300]} {notes(one)}" for one in every]
                said = f"FAILED: {' AND '.join(kinds)}"
            seen = f"{tally['inputs']} inputs, {tally['refused']} refused"
            print(f"{target:9} {seen}, {said}, {time.monotonic() - began:.1f} s", flush=True)
            kind = "mutated record" if target in ("record", "bench") else "malformed input"
            refused.update({(kind, name): tally[name] for name in ("inputs", "refused")} | {(kind, "parsers"): 1})
    if failed:
        names = " ".join(failed)
        raise cli.UserError(f"{len(failed)} of {len(args.targets)} parsers failed: {names}; see the inputs above")
    for kind in sorted({kind for kind, _ in refused}):
        by = f"{refused[kind, 'parsers']} parser{'s' * (refused[kind, 'parsers'] > 1)}"
        said = f"{refused[kind, 'refused']} refused in one line, the others read, by {by}"
        counts.keep(args.save_path, kind, refused[kind, "inputs"], said, [])


if __name__ == "__main__":
    cli.run(main)
