"""Check a published folder that came from elsewhere: its signature, its hashes, its figures, and every answer made again.

    python -m tools.publish.check minilm --key publisher.pem --text_file build/data/dev.tsv
    (or: make check FOLDER=minilm KEY=publisher.pem)

    same bytes, model.onnx 791/872, model.native 791/872 (2 flips), the same answers; signed by the key of publisher.pem

Needs the folder and this source tree: no file that was built. The first thing that differs is named in one line. Without a
key, the folder's own signer.pem is taken: that shows that nothing changed since it was signed, and not by whom.
"""

import ast
import hashlib
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

from tools.ascend import ais_bench
from tools.base import input_files, onnxfile, output_files, tasks, trip
from tools.checks import audit
from tools.cpu import engines
from tools.make import chips, cli, cpu, manifest
from tools.publish import card, folder
from tools.results import record as records
from tools.source import architecture, data, tokenizer, tokens

APART = 1e-3  # of two scores on unlike CPUs
GIT = (".git", ".gitattributes", ".gitignore", ".github")  # what a signature leaves out
# What runs a card's files, by their engine, and how it is called here.
TOOLS = {"atc": ("ais_bench", "tools.ascend.ais_bench --model"), "trtexec": ("trtexec", "tools.gpu.trtexec --engine")}


def check_signature(place: Path, key: Path) -> None:
    """UserError, naming the first fault, unless a key signed exactly the files of a folder."""
    from model_signing import verifying

    path = place / folder.SIGNATURE
    if not path.is_file():
        raise cli.UserError(f"{path}: gone; nothing says that this folder is as it was published")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=cli.regular(key, cli.LARGEST))
    except (ValueError, AttributeError):
        raise cli.UserError(f"{key}: no public key of a NIST curve, as PEM; take the publisher's") from None
    try:
        config.verify(place, path)
    except Exception as e:  # base64, JSON, pydantic, cryptography and model_signing each raise their own
        kind, _, apart = str(e).partition("mismatch: ")
        what = ast.literal_eval(apart)[0] if kind == "Signature " else f"{folder.SIGNATURE}: {onnxfile.first_line(e)}"
        fault = cli.printable(what.split(": Expected")[0])[:200]
        raise cli.UserError(f"{place}: {fault}; it is not what {key} signed: take the original") from None


def apart(task: tasks.Task, answers: list, others: list) -> list[tuple]:
    """(row, answer, other) of each text to which two lists have unlike answers."""
    rows = zip(range(len(others)), answers, others, strict=True)
    return [(i, a, b) for i, a, b in rows if (abs(a - b) > APART if task.score else a != b)]


def check_claims(place: Path, answers: dict, truth: list, record: dict) -> None:
    """UserError unless all that a folder claims follows from its answers, its files and the labels."""
    graph, given = answers["files"]["model.onnx"], records.classes(record["predictions"])
    answers = folder.answers_of(record, answers["stated"], graph["tokens"], graph["predictions"])
    texts, model = folder.texts_of(place, answers, truth, record), card.component(place, answers, truth, record)
    said = lambda name: cli.regular(place / name, cli.LARGEST).read_bytes().decode("utf-8", "backslashreplace")
    lines = lambda name: zip_longest(said(name).split("\n"), texts[name].split("\n"))
    known = {*texts, *answers["files"], *folder.BESIDE}
    strange = [n for n in manifest.names_in(place) if n not in known and n.split("/")[0] not in GIT]
    parts = cli.read_json(place / folder.SBOM)["components"]
    labels = architecture.read_config(place / "config.json")["labels"]
    order = labels and tasks.order(labels, answers["labels"], place / "config.json")
    number, pieces = tokenizer.from_file(place / "tokenizer.json").token_to_id, place / "vocab.txt"
    words = enumerate(tokenizer.read_vocab(pieces) if pieces.is_file() else [])
    one, task = answers["files"][answers["about"]], tasks.by_name(answers["task"])
    score = card.scores(answers, truth)[answers["about"]]
    due = records.proportion(score["correct"], len(truth)) | {"truth": truth, "metrics": score["metrics"]}
    alike = lambda name: record.get(name) is None or audit.near(record[name], due[name], APART if task.score else 2e-6)
    hashes = {name: cli.sha256(place / name) for name in answers["files"]}
    sound = {"fault": None, "leaf": records.leaf_of(record), **hashes}
    found = lambda r: {name: r["chain"].get(path, {}).get("sha256") for name, path in folder.origins(r).items()}
    facts = lambda r: {"fault": next(audit.contradictions(r), None), "leaf": records.leaf_of(r), **found(r)}
    kept = {folder.RECORD: record, card.SPEED: card.speed_record(place)}
    for file, claim, proof in (
        *((name, *pair) for name in texts for pair in lines(name)),
        *((name, "to be a file that make publish writes", None) for name in strange),
        (folder.SBOM, [c for c in parts if "modelCard" in c or c["type"] == model["type"]], [model]),
        ("config.json", order, labels and [*range(len(labels))]),
        ("vocab.txt", [(i, word) for i, word in words if number(word) != i][:1], []),
        (folder.RECORD, apart(task, given, one["predictions"])[:1], []),
        (folder.RECORD, [(name, record[name]) for name in due if not alike(name)], []),
        *((name, {*facts(r).items()} - {*sound.items()}, set()) for name, r in kept.items() if r),
    ):
        if claim != proof:
            why = f"claims what {folder.ANSWERS} and the files do not give"
            raise cli.UserError(f"{place / file}: {why}: {claim!r:.150}")


def lacking(name: str, answers: dict, record: dict) -> str:
    """What this machine lacks to run a file of the folder; empty where it lacks nothing."""
    engine, precision = (answers["files"][name][key] for key in ("engine", "precision"))
    if engine not in TOOLS:
        here = chips.units(engine, precision, cpu.cpu_flags())
        return " or ".join(chips.units_needed(engine, precision)) if here is None else ""
    if not record["seq"].isdigit():
        return "rows of one length"
    tool, _ = TOOLS[engine]
    place = trip.trtexec()[0] if tool == "trtexec" else ais_bench.find_python()
    return "" if place else f"a {record['chip']}, and {tool}"


def logits_of(path: Path, texts: list, answers: dict, record: dict):
    """The logits that a file gives to texts now, with the tokenizer beside it. Raises UserError where it gives none."""
    facts, reader = answers["files"][path.name], tokens.load(path.parent)
    if facts["engine"] not in TOOLS:
        engine = engines.load(path)
        return engines.all_logits(
            engine, tokens.encode(reader, texts, facts["tokens"], [t.name for t in engine.inputs])
        )
    names = [tensor.name for tensor in onnxfile.load_model(path.with_name("model.onnx"), weights=False).graph.input]
    with tempfile.TemporaryDirectory() as box:
        rows, out = Path(box, "input"), Path(box, "output")
        input_files.write_bins(rows, tokens.encode(reader, texts, facts["tokens"], names), None)
        tasks.write_task(rows, answers["task"], answers["labels"])
        out.mkdir(0o750)
        folders = ",".join(str(rows / name) for name in names)
        words = [*f"--batchsize {record['bs']} --output_dirname answers --input".split(), folders, "--output", str(out)]
        command = [sys.executable, "-m", *TOOLS[facts["engine"]][1].split(), str(path), *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise cli.UserError(f"{path}: {done.stderr.strip().split('error: ')[-1]}")
        return output_files.read_outputs(out / "answers", rows / names[0])


def check_answers(path: Path, texts: list, answers: dict, record: dict) -> None:
    """UserError for the first text to which a file now gives another answer than is published, and for logits of other bits than
    the record's, where docs/bits.md defines them."""
    logits, task = logits_of(path, texts, answers, record), tasks.by_name(answers["task"])
    now = output_files.decisions(logits, task, answers["threshold"])
    unlike = apart(task, now, answers["files"][path.name]["predictions"])
    for row, answer, published in unlike[:1]:
        more = f" ({len(unlike)} rows differ)" * (len(unlike) > 1)
        raise cli.UserError(f"{path}: row {row} of the texts, from 0: answers {answer}, {published} is published{more}")
    defined = path.suffix == ".native" and records.has_defined_bits(record)
    if defined and record["logits_sha256"] != (bits := hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest()):
        raise cli.UserError(f"{path}: its logits have sha256 {bits}, {folder.RECORD} says {record['logits_sha256']}")


def check(place: Path, key: Path, text_file: Path) -> str:
    """What holds of a folder, in a line. Raises UserError for the first thing that does not."""
    check_signature(place, key)
    words, answers, record = [], cli.read_json(place / folder.ANSWERS), records.read_record(place / folder.RECORD)
    try:
        if (here := cli.sha256(text_file)) != answers["data"]["sha256"]:
            wanted = "is of {name}, sha256 {sha256}: {get}".format(**answers["data"])
            raise cli.UserError(f"{text_file}: sha256 {here}; {folder.ANSWERS} {wanted}")
        texts, truth = data.read_tsv(text_file, tasks.by_name(answers["task"]), answers["labels"])
        check_claims(place, answers, truth, record)
        for name, one in card.scores(answers, truth).items():
            if needs := lacking(name, answers, record):
                words.append(f"{name} cannot run here (it needs {needs})")
            else:
                check_answers(place / name, texts, answers, record)
                words.append(f"{name} {card.right(one)}")
    except (LookupError, TypeError, ValueError, AttributeError) as e:
        raise cli.UserError(f"{place / folder.ANSWERS}: not as make publish writes one ({e!r:.100})") from None
    return f"same bytes, {', '.join(words)}, the same answers"


def main():
    p = cli.parser(__doc__)
    p.add_argument("folder", type=Path)
    p.add_argument("--key", type=Path, help="the publisher's public key, as PEM (the folder's own if not given)")
    p.add_argument("--text_file", type=Path, required=True, help="the texts that answers.json is about")
    args = p.parse_args()
    line = check(args.folder, args.key or args.folder / folder.SIGNER, args.text_file)
    nobody = f"in {folder.SIGNER}: KEY= would say whose it is"
    print(f"{line}; signed by the key {f'of {args.key}' if args.key else nobody}")


if __name__ == "__main__":
    cli.run(main)
