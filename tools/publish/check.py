"""Check a published folder that came from elsewhere: its signature, its hashes, its figures, and every answer made again.

    python -m tools.publish.check minilm --key publisher.pem --text_file build/data/dev.tsv
    (or: make check FOLDER=minilm KEY=publisher.pem)

    same bytes, model.onnx 791/872, model.native 791/872 (2 flips), the same answers; signed by the key of publisher.pem

Needs the folder and this source tree: no file that was built. The first thing that differs is named in one line. Without a
key, the folder's own signer.pem is taken: that shows that nothing changed since it was signed, and not by whom.
"""

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.ascend import ais_bench
from tools.base import input_files, onnxfile, output_files, tasks, trip
from tools.checks import audit
from tools.cpu import engines
from tools.make import chips, cli, cpu
from tools.publish import card, folder, statements
from tools.results import record as records
from tools.source import architecture, data, tokens

APART = 1e-3  # of two scores on unlike CPUs
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
        fault = what.split(": Expected")[0][:200]
        raise cli.UserError(f"{place}: {fault}; it is not what {key} signed: take the original") from None


def check_claims(place: Path, answers: dict, truth: list, record: dict) -> None:
    """UserError unless all that the texts of a folder claim follows from its answers, its files and the labels."""
    from huggingface_hub import ModelCard

    hashes = {name: cli.sha256(place / name) for name in answers["files"]}
    text = (place / "README.md").read_text("utf-8")
    metrics = lambda results: [(one.metric_type, one.metric_value) for one in results or []]
    results, path = card.results(answers, truth, record), place / card.EVAL_RESULTS
    entries = path.read_text("utf-8") if path.is_file() else None
    scores = card.scores(answers, truth)
    own = records.proportion(scores[answers["about"]]["correct"], len(truth))
    lines = [f"- `{name}`: {card.whole(one)}" for name, one in scores.items()]
    facts = card.facts(place, answers, truth, record).items()
    lines += [f"| {name} | {value} |" for name, value in facts if name not in card.STATED]
    model = next((c for c in cli.read_json(place / folder.SBOM)["components"] if c.get("bom-ref") == "model"), {})
    perf = card.speed_record(place)
    names = architecture.read_config(place / "config.json")["labels"]
    turned = names if sorted(names) == sorted(answers["labels"]) else answers["labels"]
    for name, claim, proof in (
        (folder.PROVENANCE, cli.read_json(place / folder.PROVENANCE), statements.provenance(record, hashes)),
        (folder.TESTED, cli.read_json(place / folder.TESTED), statements.test_result(answers, truth, hashes)),
        ("README.md", metrics(ModelCard(text, ignore_metadata_errors=True).data.get("eval_results")), metrics(results)),
        ("README.md", [line for line in lines if line in text], lines),
        (card.EVAL_RESULTS, entries, card.eval_results(answers, truth, record)),
        (folder.SBOM, model.get("modelCard"), card.component(place, answers, truth, record)["modelCard"]),
        ("config.json", turned, answers["labels"]),
        (folder.RECORD, records.classes(record["predictions"]), answers["files"][answers["about"]]["predictions"]),
        (folder.RECORD, records.first_difference(audit.only(record, audit.PROPORTION), own), None),
        (folder.RECORD, next(audit.contradictions(record), None), None),
        (card.SPEED, perf and records.leaf_of(perf), perf and records.leaf_of(record)),
        (card.SPEED, next(audit.contradictions(perf), None) if perf else None, None),
    ):
        if claim != proof:
            why = f"claims what {folder.ANSWERS} and the files do not give"
            raise cli.UserError(f"{place / name}: {why}: {claim!r:.150}")


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
    facts, tokenizer = answers["files"][path.name], tokens.load(path.parent)
    if facts["engine"] not in TOOLS:
        engine = engines.load(path)
        names = [tensor.name for tensor in engine.inputs]
        return engines.all_logits(engine, tokens.encode(tokenizer, texts, facts["tokens"], names))
    names = [tensor.name for tensor in onnxfile.load_model(path.with_name("model.onnx"), weights=False).graph.input]
    with tempfile.TemporaryDirectory() as box:
        rows, out = Path(box, "input"), Path(box, "output")
        input_files.write_bins(rows, tokens.encode(tokenizer, texts, facts["tokens"], names), None)
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
    """UserError for the first text to which a file now gives another answer than is published."""
    task = tasks.by_name(answers["task"])
    now = output_files.decisions(logits_of(path, texts, answers, record), task, answers["threshold"])
    pairs = zip(now, answers["files"][path.name]["predictions"], strict=True)
    apart = [(i, a, b) for i, (a, b) in enumerate(pairs) if (abs(a - b) > APART if task.score else a != b)]
    for row, answer, published in apart[:1]:
        more = f" ({len(apart)} rows differ)" * (len(apart) > 1)
        raise cli.UserError(f"{path}: row {row} of the texts, from 0: answers {answer}, {published} is published{more}")


def check(place: Path, key: Path, text_file: Path) -> str:
    """What holds of a folder, in a line. Raises UserError for the first thing that does not."""
    check_signature(place, key)
    words, answers, record = [], cli.read_json(place / folder.ANSWERS), records.read_record(place / folder.RECORD)
    try:
        if outside := [name for name in answers["files"] if "/" in name]:
            raise cli.UserError(f"{place / folder.ANSWERS}: {outside[0]!r:.80} is no file of this folder")
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
