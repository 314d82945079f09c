"""Check a published folder that came from elsewhere: its signature, its hashes, its figures, and every answer made again.

    python -m tools.publish.check minilm --key publisher.pem --text_file build/data/dev.tsv
    (or: make check FOLDER=minilm KEY=publisher.pem)

    same bytes, model.onnx 791/872, model.native 791/872 (2 flips), the same answers; signed by the key of publisher.pem

Needs the folder and this source tree: no file that was built. The first thing that differs is named in one line. Without a
key, the folder's own signer.pem is taken: that shows that nothing changed since it was signed, and not by whom.
"""

import ast
from pathlib import Path

from tools.base import onnxfile, output_files, tasks
from tools.checks import audit
from tools.cpu import engines
from tools.make import chips, cli, cpu
from tools.publish import card, folder, statements
from tools.results import record as records
from tools.source import data, tokens

APART = 1e-3  # of two scores on unlike CPUs


def signed(place: Path, key: Path) -> None:
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
        raise cli.UserError(
            f"{place}: {what.split(': Expected')[0][:200]}; it is not what {key} signed: take the original"
        ) from None


def claims(place: Path, answers: dict, truth: list, record: dict) -> None:
    """UserError unless all that the texts of a folder claim follows from its answers, its files and the labels."""
    from huggingface_hub import ModelCard

    hashes = {name: cli.sha256(place / name) for name in answers["files"]}
    text = (place / "README.md").read_text("utf-8")
    metrics = lambda results: [(one.metric_type, one.metric_value) for one in results or []]
    results, entries = card.results(answers, truth, record), place / card.EVAL_RESULTS
    named = [f"- `{name}`: {card.whole(one)}" for name, one in card.scores(answers, truth).items()]
    named += [f"| {name} | {value} |" for name, value in card.speed(place).items()]
    for name, claim, proof in (
        (folder.PROVENANCE, cli.read_json(place / folder.PROVENANCE), statements.provenance(record, hashes)),
        (folder.TESTED, cli.read_json(place / folder.TESTED), statements.test_result(answers, truth, hashes)),
        ("README.md", metrics(ModelCard(text, ignore_metadata_errors=True).data.get("eval_results")), metrics(results)),
        ("README.md", [line for line in named if line in text], named),
        (
            card.EVAL_RESULTS,
            entries.read_text("utf-8") if entries.is_file() else None,
            card.eval_results(answers, truth, record),
        ),
        (folder.RECORD, folder.classes(record["predictions"]), answers["files"][answers["about"]]["predictions"]),
        (folder.RECORD, next(audit.contradictions(record), None), None),
    ):
        if claim != proof:
            raise cli.UserError(
                f"{place / name}: claims what {folder.ANSWERS} and the files do not give: {claim!r:.150}"
            )


def lacking(engine: str, precision: str) -> str:
    """What an engine needs for a precision that is not here; nothing where it runs."""
    if chips.ENGINES[engine].family != "cpu":
        return "another chip"
    here = chips.units(engine, precision, cpu.cpu_flags())
    return " or ".join(chips.units_needed(engine, precision)) if here is None else ""


def again(path: Path, texts: list, answers: dict) -> list:
    """The answers of a file to texts, made now from it and the tokenizer beside it."""
    engine, task = engines.load(path), tasks.by_name(answers["task"])
    names = [tensor.name for tensor in engine.inputs]
    inputs = tokens.encode(tokens.load(path.parent), texts, answers["files"][path.name]["tokens"], names)
    return output_files.decisions(engines.all_logits(engine, inputs), task, answers["threshold"])


def answered(path: Path, texts: list, answers: dict) -> None:
    """UserError for the first text to which a file now gives another answer than is published."""
    score = tasks.by_name(answers["task"]).score
    pairs = zip(again(path, texts, answers), answers["files"][path.name]["predictions"], strict=True)
    apart = [(i, a, b) for i, (a, b) in enumerate(pairs) if (abs(a - b) > APART if score else a != b)]
    for row, now, then in apart[:1]:
        more = f" ({len(apart)} rows differ)" * (len(apart) > 1)
        raise cli.UserError(f"{path}: row {row} of the texts, from 0: answers {now}, {then} is published{more}")


def check(place: Path, key: Path, text_file: Path) -> str:
    """What holds of a folder, in a line. Raises UserError for the first thing that does not."""
    signed(place, key)
    words, answers, record = [], cli.read_json(place / folder.ANSWERS), records.read_record(place / folder.RECORD)
    try:
        if (here := cli.sha256(text_file)) != answers["data"]["sha256"]:
            wanted = "is of {name}, sha256 {sha256}: {get}".format(**answers["data"])
            raise cli.UserError(f"{text_file}: sha256 {here}; {folder.ANSWERS} {wanted}")
        texts, truth = data.read_tsv(text_file, tasks.by_name(answers["task"]), answers["labels"])
        claims(place, answers, truth, record)
        for name, one in card.scores(answers, truth).items():
            if needs := lacking(answers["files"][name]["engine"], answers["files"][name]["precision"]):
                words.append(f"{name} cannot run here (it needs {needs})")
            else:
                answered(place / Path(name).name, texts, answers)
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
