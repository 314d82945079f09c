"""A folder to publish: a model's files, its card and its proof, signed with the user's own key.

    python -m tools.publish.folder build/minilm_sst2/default/seq128/bs8/cpu-native-int8 --key me.pem --save_path minilm
    (or: make publish ENGINE=native PRECISION=int8 KEY=me.pem FOLDER=minilm)

    wrote minilm: 15 files; model.onnx 791/872, model.native 791/872 (2 flips); signed by the key with sha256 78b491...

docs/publish.md says what each file is. The signature is OpenSSF's model signing (a Sigstore bundle of an in-toto statement
that lists every file), by a key alone: no network. The folder appears whole, or not at all.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tools.base import output_files, tasks
from tools.make import cli, manifest, models, parameters
from tools.publish import card, statements
from tools.results import record as records
from tools.setup import sbom
from tools.source import data

SIGNATURE, SIGNER, ANSWERS, RECORD = "model.sig", "signer.pem", "answers.json", "accuracy.json"
PROVENANCE, TESTED, SBOM = "provenance.intoto.json", "test-result.intoto.json", "sbom.cdx.json"
WEIGHTS = (".safetensors", ".bin")  # of a checkpoint
COMPILED = (".native", ".ir", ".om", ".plan")  # an engine's own file; onnxruntime runs model.onnx


def refuse(leaf: Path, record: dict) -> None:
    """UserError for a configuration whose figures are not those of the files that would be published."""
    why = "made with stand-ins for the vendor's tools" if record["standin"] else parameters.unpublished(record)
    if not why and (fault := records.chain_fault(record["chain"])):
        why = f"{fault}; run make accuracy again"
    if why:
        raise cli.UserError(f"{leaf}: not published: {why}")


def files_of(leaf: Path) -> dict[str, Path]:
    """{name in the published folder: file here} of a configuration: graph, engine's file, records, tokenizer, config."""
    top = leaf.parents[2]
    tokenizer = [name for name in manifest.sums(top / "checkpoint/MANIFEST") if Path(name).suffix not in WEIGHTS]
    engine = [path for path in sorted(leaf.glob("model.*")) if path.suffix in COMPILED]
    perf = card.speed_record(leaf)
    engine += [leaf / card.SPEED] * (bool(perf) and not records.chain_fault(perf["chain"]))
    here = [top / "model.onnx", *engine, leaf / RECORD, *(top / "checkpoint" / name for name in tokenizer)]
    return {path.name: path for path in here}


def answers_of(leaf: Path, record: dict, files: dict[str, Path], text_file: str) -> dict:
    """answers.json: the data by its hash, what each file answers to each of its texts, cut to so many `tokens`, and which
    file the card is about: the engine's own, else the graph."""
    _, task, labels = tasks.of_inputs(records.input_of(leaf))
    threshold = float(record.get("threshold", tasks.THRESHOLD))
    logits = output_files.read_kept(leaf.parents[2] / "reference.npy")
    exported = models.settings(record["model"])["seq"].split(",")[-1]
    length = parameters.seq_values(record["seq"])["SEQ"].split(",")[-1]
    graph = {"engine": "onnxruntime", "precision": "fp32", "tokens": int(exported)}
    sheet = {"model.onnx": graph | {"predictions": output_files.decisions(logits, task, threshold)}}
    for name in (name for name in files if Path(name).suffix in COMPILED):
        sheet[name] = {key: record[key] for key in ("engine", "precision")}
        sheet[name]["tokens"] = int(exported if length == "real" else length)
        sheet[name]["predictions"] = records.classes(record["predictions"])
    name, get = card.SST2 if text_file == "build/data/dev.tsv" else card.OWN
    data = {"name": name, "get": get, "rows": record["total"], "sha256": record["chain"][text_file]["sha256"]}
    question = {"task": record.get("task", tasks.DEFAULT), "labels": labels, "threshold": threshold}
    return {"data": data, **question, "about": list(sheet)[-1], "files": sheet}


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
    files = files_of(leaf)
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
    text_file = next(name for name in record["chain"] if name.startswith("build/data/") and name.endswith("dev.tsv"))
    answers = answers_of(leaf, record, files, text_file)
    truth = data.read_tsv(text_file, tasks.by_name(answers["task"]), answers["labels"])[1]
    hashes = {name: cli.sha256(folder / name) for name in answers["files"]}
    product = {name: dist for name, dist in sbom.installed().items() if name in sbom.locked(Path("requirements.txt"))}
    for name, value in {
        ANSWERS: answers,
        PROVENANCE: statements.provenance(record, hashes),
        TESTED: statements.test_result(answers, truth, hashes),
        SBOM: sbom.document(product, card.component(folder, answers, truth, record)),
    }.items():
        (folder / name).write_text(records.text_of(value), "utf-8")
    (folder / "README.md").write_text(card.page(folder, answers, truth, record), "utf-8")
    if entries := card.eval_results(answers, truth, record):
        (folder / card.EVAL_RESULTS).parent.mkdir()
        (folder / card.EVAL_RESULTS).write_text(entries, "utf-8")
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
