"""A folder to publish: a model's files, its card and its proof, signed with the user's own key.

    python -m tools.publish.folder build/minilm_sst2/default/seq128/bs8/cpu-native-int8 --key me.pem --save_path minilm
    (or: make publish ENGINE=native PRECISION=int8 KEY=me.pem FOLDER=minilm)

    wrote minilm: 15 files; model.onnx 791/872, model.native 791/872 (2 flips); signed by the key with sha256 78b491...

docs/publish.md says what each file is. The signature is OpenSSF's model signing (a Sigstore bundle of an in-toto statement
that lists every file), by a key alone: no network. The folder appears whole, or not at all.
"""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from tools.base import output_files, tasks
from tools.make import chips, cli, manifest, models, parameters
from tools.publish import card, statements
from tools.results import record as records
from tools.setup import sbom
from tools.source import data

SIGNATURE, SIGNER, ANSWERS, RECORD = "model.sig", "signer.pem", "answers.json", "accuracy.json"
PROVENANCE, TESTED, SBOM = "provenance.intoto.json", "test-result.intoto.json", "sbom.cdx.json"
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")  # and the labels
BESIDE = (SIGNATURE, SIGNER, RECORD, card.SPEED, SBOM, *TOKENIZER)  # what `texts_of` does not write, but for models


def refuse(leaf: Path, record: dict) -> None:
    """UserError for a configuration whose figures are not those of the files that would be published."""
    why = "made with stand-ins for the vendor's tools" if record["standin"] else parameters.unpublished(record)
    if not why and (fault := records.chain_fault(record["chain"])):
        why = f"{fault}; run make accuracy again"
    if why:
        raise cli.UserError(f"{leaf}: not published: {why}")


def files_of(leaf: Path, record: dict) -> dict[str, Path]:
    """{name in the published folder: file here} of a configuration: graph, engine's file, records, tokenizer, config."""
    tokenizer = [path for name in TOKENIZER if (path := leaf.parents[2] / "checkpoint" / name).is_file()]
    perf = card.speed_record(leaf)
    speed = [leaf / card.SPEED] * (bool(perf) and not records.chain_fault(perf["chain"]))
    return {path.name: path for path in (*map(Path, origins(record).values()), *speed, leaf / RECORD, *tokenizer)}


def origins(record: dict) -> dict[str, str]:
    """{file of the folder: its name in the chain of a record} of the engine's own file and the exported graph, which stands
    for onnxruntime's."""
    own, top = chips.ENGINES[record["engine"]].file, parameters.folder(record, "weights")
    return {own: f"build/{records.leaf_of(record)}/{own}"} | {"model.onnx": f"build/{top}/model.onnx"}


def answers_of(record: dict, stated: dict, exported: int, graph: list) -> dict:
    """answers.json: the data by its hash, what each file answers to each of its texts, cut to so many `tokens`, which file the
    card is about (the engine's own, else the graph), and what card.toml states. exported, graph: model.onnx's tokens, answers."""
    task, own = record.get("task", tasks.DEFAULT), chips.ENGINES[record["engine"]].file
    (sha256,) = (
        link["sha256"] for name, link in record["chain"].items() if re.fullmatch("build/data/(.*/)?dev.tsv", name)
    )
    files = {"model.onnx": {"engine": "onnxruntime", "precision": "fp32", "tokens": exported, "predictions": graph}}
    if own not in files:
        length = parameters.seq_values(record["seq"])["SEQ"].split(",")[-1]
        files[own] = {key: record[key] for key in ("engine", "precision")}
        files[own]["tokens"] = exported if length == "real" else int(length)
        files[own]["predictions"] = records.classes(record["predictions"])
    official = task == tasks.DEFAULT and sha256 == data.read_edits("data/dev.edits")[0]
    name, get = card.SST2 if official else card.OWN
    texts = {"name": name, "get": get, "rows": record["total"], "sha256": sha256}
    labels = record.get("labels") or list(tasks.by_name(task).labels)
    question = {"task": task, "labels": labels, "threshold": float(record.get("threshold", tasks.THRESHOLD))}
    return {"data": texts, **question, "stated": stated, "about": own, "files": files}


def texts_of(folder: Path, answers: dict, truth: list, record: dict) -> dict[str, str]:
    """{name: text} of all files that follow from the answers, the labels, the record, and the files that the folder holds."""
    hashes = {name: cli.sha256(folder / name) for name in answers["files"]}
    proof = {PROVENANCE: statements.provenance(record, hashes), TESTED: statements.test_result(answers, truth, hashes)}
    made = {name: records.text_of(value) for name, value in ({ANSWERS: answers} | proof).items()}
    made |= {"README.md": card.page(folder, answers, truth, record)}
    entries = card.eval_results(answers, truth, record)
    return made | ({card.EVAL_RESULTS: entries} if entries else {})


def sign(folder: Path, key: Path) -> str:
    """Write signer.pem, the public half of a private key, and model.sig over every file of a folder; the key's sha256.
    Raises UserError where the key is none that signs."""
    from cryptography.hazmat.primitives import serialization
    from model_signing import hashing, signing

    try:
        private = serialization.load_pem_private_key(cli.regular(key, cli.LARGEST).read_bytes(), None)
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError, AttributeError):
        make = "openssl ecparam -name prime256v1 -genkey -noout -out me.pem"
        raise cli.UserError(f"KEY={key}: no private key of a NIST curve without a password; make one: {make}") from None
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(*form)
    (folder / SIGNER).write_bytes(public)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE])).sign(folder, folder / SIGNATURE)
    return hashlib.sha256(public).hexdigest()


def fill(folder: Path, leaf: Path, record: dict) -> dict:
    """Write all files but signature and key into an empty folder; what card.scores has of them."""
    for name, path in files_of(leaf, record).items():
        shutil.copyfile(path, folder / name)
    threshold, task = float(record.get("threshold", tasks.THRESHOLD)), tasks.by_name(record.get("task", tasks.DEFAULT))
    graph = output_files.decisions(output_files.read_kept(leaf.parents[2] / "reference.npy"), task, threshold)
    exported = models.settings(record["model"])["seq"].split(",")[-1]
    answers, truth = answers_of(record, card.about(record), int(exported), graph), records.labels_of(record)
    product = {name: dist for name, dist in sbom.installed().items() if name in sbom.locked(Path("requirements.txt"))}
    parts = sbom.document(product, card.component(folder, answers, truth, record))
    for name, text in (texts_of(folder, answers, truth, record) | {SBOM: records.text_of(parts)}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return card.scores(answers, truth)


def main():
    p = cli.parser(__doc__)
    p.add_argument("leaf", type=Path, help="folder of a configuration that has an accuracy.json")
    p.add_argument("--key", type=Path, required=True, help="private key of an elliptic curve, as PEM")
    p.add_argument("--save_path", type=Path, required=True, help="the folder, a new one")
    args = p.parse_args()
    if args.save_path.exists():
        raise cli.UserError(f"FOLDER={args.save_path}: is there already; name a new one")
    record = records.read_record(args.leaf / RECORD)
    refuse(args.leaf, record)
    os.umask(0o022)
    args.save_path.parent.mkdir(parents=True, exist_ok=True)
    box = Path(tempfile.mkdtemp(dir=args.save_path.parent, prefix=f".{args.save_path.name}."))
    try:
        scores, signer = fill(box, args.leaf, record), sign(box, args.key)
        box.chmod(0o755)
        box.rename(args.save_path)
    finally:
        shutil.rmtree(box, ignore_errors=True)
    words = ", ".join(f"{name} {card.right(one)}" for name, one in scores.items())
    count = len(manifest.names_in(args.save_path))
    print(f"wrote {args.save_path}: {count} files; {words}; signed by the key with sha256 {signer}")


if __name__ == "__main__":
    cli.run(main)
