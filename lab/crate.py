"""Describe an artefact and all that it was made from as an RO-Crate, from the prov.json files.

    python -m lab.crate build/.../accuracy.json --save_path build/ro-crate-metadata.json      (or: make crate)

    wrote build/ro-crate-metadata.json: 13 steps, 50 scripts and other inputs from outside its folder

The crate is build/ itself: put the folder into an archive, with this file in it. It follows RO-Crate 1.1 and its profile
Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5): each step is a CreateAction with its script as
`instrument`, its inputs as `object` and what it wrote as `result`; files have their sha256. Terms of W3C PROV: a File is
an Entity, a CreateAction an Activity, object is `used`, result is the inverse of `wasGeneratedBy`. Scripts and other
files outside build/ are named with their hash, not held; by their address, where the clone has an https remote `origin`.
Then roc-validator's required and recommended checks pass; without one, three recommended ones want addresses.
Written by hand: the format is one list of plain JSON objects.
"""

import datetime
import functools
import json
import mimetypes
import re
from pathlib import Path

from tools.make import cli
from tools.results import record

VERSION, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
SHA256 = "https://w3id.org/ro/terms/workflow-run#sha256"
SPDX = "https://spdx.org/licenses/"
LICENCES = {
    "Apache-2.0": "Apache License 2.0: this project, its adapter and the model",
    "MIT": "MIT License: the sentences",
}


def steps(target: str) -> dict[str, dict]:
    """{path: its prov.json} of `target` and of every file behind it that has one; UserError where `target` has none."""
    if not Path(f"{target}.prov.json").is_file():
        raise cli.UserError(f"{target}.prov.json: not there; make {target} first")
    links = record.chain(Path(target))
    return {path: cli.read_json(f"{path}.prov.json") for path, link in links.items() if "inputs" in link}


@functools.cache
def home() -> str:
    """The address of this clone's remote, or nothing where that is none for a browser."""
    url = cli.git("remote", "get-url", "origin").stdout.strip().removesuffix(".git")
    return url if url.startswith("https://") and "@" not in url else ""  # a token may stand before the @


@functools.cache
def commit() -> str:
    return cli.git("rev-parse", "HEAD").stdout.strip()


def identifier(path: str, crate: Path) -> str:
    """A file's @id: its path in the crate; where it lies outside, its address or `#` and its path."""
    inside = Path(path)
    if inside.is_relative_to(crate):
        return inside.relative_to(crate).as_posix()
    return f"{home()}/blob/{commit()}/{path}" if home() else f"#{path}"


def licence(path: str, source: str) -> dict:
    """{license} of a file: sentences and packages are MIT, all else is ours, but for what a user's own weights gave."""
    if path.startswith("build/downloads/") or re.fullmatch(r"build/data/\w+\.(tsv|edits)", path):
        return {"license": {"@id": f"{SPDX}MIT"}}
    theirs = path.startswith("build/") and source not in ("wheel", "seeded")
    return {} if theirs else {"license": {"@id": f"{SPDX}Apache-2.0"}}


def file(path: str, sha256: str, crate: Path, source: str) -> dict:
    """A file, or a script outside the crate."""
    name, facts = identifier(path, crate), {"name": path, "sha256": sha256, **licence(path, source)}
    if Path(path).is_relative_to(crate):
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        size = str(Path(path).stat().st_size)
        return {"@id": name, "@type": "File", **facts, "encodingFormat": kind, "contentSize": size}
    kinds = ["SoftwareSourceCode", "SoftwareApplication"] if path.endswith(".py") else "SoftwareSourceCode"
    version = {"version": commit()} if commit() else {}
    return {"@id": name, "@type": kinds, **facts, **version, **({"url": name} if home() else {})}


def script(command: list[str]) -> str:
    """The file of a command's program: `python models/minilm_sst2/pth2onnx.py`, `python -m tools.graph.gate`."""
    return f"{command[2].replace('.', '/')}.py" if command[1] == "-m" else command[1]


def action(path: str, prov: dict, crate: Path) -> dict:
    """The step that made one file."""
    refer = lambda paths: [{"@id": identifier(p, crate)} for p in paths]
    run = prov["run"]
    start = datetime.datetime.fromisoformat(run["started"])
    end = start + datetime.timedelta(seconds=run["seconds"])
    return {
        "@id": f"#step/{path}",
        "@type": "CreateAction",
        "name": f"make {path}",
        "description": prov["recipe"],
        "instrument": refer(dict.fromkeys(script(c) for c in prov["commands"])),
        "object": refer(prov["inputs"]),
        "result": refer([path]),
        "startTime": start.isoformat(),
        "endTime": end.isoformat(timespec="seconds"),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "agent": {"@id": "#make"},
    }


def describe(target: str, crate: Path) -> list[dict]:
    """The crate's entities."""
    artefacts = steps(target)
    hashes = {p: digest for prov in artefacts.values() for p, digest in prov["inputs"].items()}
    hashes |= {path: prov["sha256"] for path, prov in artefacts.items()}
    for command in (c for prov in artefacts.values() for c in prov["commands"]):
        hashes.setdefault(script(command), cli.sha256(script(command)))
    source = next(Path(path).read_text().strip() for path in hashes if path.endswith("/source"))
    files = [file(path, digest, crate, source) for path, digest in sorted(hashes.items())]
    actions = [action(path, prov, crate) for path, prov in artefacts.items()]
    run = artefacts[target]["run"]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"bert2om: {target}",
        "description": f"{target} and every file behind it, of commit {run['commit']}",
        "datePublished": run["started"][:10],
        "license": {"@id": f"{SPDX}Apache-2.0"},
        "author": {"@id": "#make"},
        "publisher": {"@id": "#make"},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": f["@id"]} for f in files if f["@type"] == "File"],
        "mentions": [{"@id": a["@id"]} for a in actions],
    }
    entities = [
        {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"}, "conformsTo": {"@id": VERSION}},
        root,
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        *({"@id": SPDX + one, "@type": "CreativeWork", "name": one, "description": text} for one, text in LICENCES.items()),
        {"@id": "#make", "@type": "Organization", "name": "whoever ran make", **({"url": home()} if home() else {})},
        *files,
        *actions,
    ]  # fmt: skip
    one = lambda value: value[0] if isinstance(value, list) and len(value) == 1 else value  # as the format recommends
    return [{name: one(value) for name, value in entity.items()} for entity in entities]


def main():
    p = cli.parser(__doc__)
    p.add_argument("target", help="an artefact that make made")
    p.add_argument("--save_path", type=Path, required=True, help="ro-crate-metadata.json in the crate's folder")
    args = p.parse_args()
    graph = describe(args.target, args.save_path.parent)
    context = [f"{VERSION}/context", {"sha256": SHA256}]
    cli.write(args.save_path, json.dumps({"@context": context, "@graph": graph}, indent=1) + "\n")
    actions = sum(e["@type"] == "CreateAction" for e in graph)
    scripts = sum("SoftwareSourceCode" in e["@type"] for e in graph)
    print(f"wrote {args.save_path}: {actions} steps, {scripts} scripts and other inputs from outside its folder")


if __name__ == "__main__":
    cli.run(main)
