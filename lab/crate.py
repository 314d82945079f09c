"""Describe an artefact and all that it was made from as an RO-Crate, from the prov.json files.

    python -m lab.crate build/.../accuracy.json --save_path build/ro-crate-metadata.json      (or: make crate)

    wrote build/ro-crate-metadata.json: 13 steps, 50 scripts and other inputs from outside build

The crate is build/ itself: put the folder into an archive, with this file in it. It follows RO-Crate 1.1 and its profile
Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5): each step is a CreateAction with its script as
`instrument`, its inputs as `object` and what it wrote as `result`; files have their sha256. Terms of W3C PROV: a File is
an Entity, a CreateAction an Activity, object is `used`, result is the inverse of `wasGeneratedBy`. Scripts and other
files outside build/ are named with their hash, not held. Written by hand: the format is one list of plain JSON objects.
"""

import argparse
import datetime
import json
from pathlib import Path

from tools.make import cli

VERSION, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
SHA256 = "https://w3id.org/ro/terms/workflow-run#sha256"


def steps(target: str) -> dict[str, dict]:
    """{path: its prov.json} of `target` and of every file behind it that has one.

    Raises UserError where `target` has none.
    """
    found, waiting = {}, [target]
    while waiting:
        path = waiting.pop()
        prov = Path(f"{path}.prov.json")
        if path not in found and prov.is_file():
            found[path] = cli.read_json(prov)
            waiting += found[path]["inputs"]
    if not found:
        raise cli.UserError(f"{target}.prov.json: not there; make {target} first")
    return dict(sorted(found.items()))


def identifier(path: str, crate: Path) -> str:
    """A file's @id: its path in the crate, or `#` and its path where it lies outside."""
    path = Path(path)
    return path.relative_to(crate).as_posix() if path.is_relative_to(crate) else f"#{path.as_posix()}"


def file(path: str, sha256: str, crate: Path) -> dict:
    """A file, or a script outside the crate."""
    name = identifier(path, crate)
    kind = "SoftwareSourceCode" if name.startswith("#") else "File"
    kind = ["SoftwareSourceCode", "SoftwareApplication"] if path.endswith(".py") else kind
    size = {} if name.startswith("#") else {"contentSize": str(Path(path).stat().st_size)}
    return {"@id": name, "@type": kind, "name": path, "sha256": sha256, **size}


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
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        "agent": {"@id": "#make"},
    }


def describe(target: str, crate: Path) -> list[dict]:
    """The crate's entities."""
    made = steps(target)
    hashes = {p: digest for prov in made.values() for p, digest in prov["inputs"].items()}
    hashes |= {path: prov["sha256"] for path, prov in made.items()}
    for command in (c for prov in made.values() for c in prov["commands"]):
        hashes.setdefault(script(command), cli.sha256(script(command)))
    files = [file(path, digest, crate) for path, digest in sorted(hashes.items())]
    actions = [action(path, prov, crate) for path, prov in made.items()]
    run = made[target]["run"] if target in made else next(iter(made.values()))["run"]
    held = [{"@id": f["@id"]} for f in files if not f["@id"].startswith("#")]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"bert2om: {target}",
        "description": f"{target} and every file behind it, of commit {run['commit']}",
        "datePublished": run["started"][:10],
        "license": {"@id": "https://spdx.org/licenses/Apache-2.0"},
        "conformsTo": {"@id": PROFILE},
        "hasPart": held,
        "mentions": [{"@id": a["@id"]} for a in actions],
    }
    return [
        {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"}, "conformsTo": {"@id": VERSION}},
        root,
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "https://spdx.org/licenses/Apache-2.0", "@type": "CreativeWork", "name": "Apache License 2.0"},
        {"@id": "#make", "@type": "Organization", "name": "whoever ran make"},
        *files,
        *actions,
    ]  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("target", help="an artefact that make made")
    p.add_argument(
        "--save_path", type=Path, required=True, help="ro-crate-metadata.json in the folder that is the crate"
    )
    args = p.parse_args()
    graph = describe(args.target, args.save_path.parent)
    context = [f"{VERSION}/context", {"sha256": SHA256}]
    with cli.whole_file(args.save_path, "w", encoding="utf-8") as f:
        f.write(json.dumps({"@context": context, "@graph": graph}, indent=1) + "\n")
    made = sum(e["@type"] == "CreateAction" for e in graph)
    given = sum(e["@id"].startswith("#") for e in graph) - made - 1
    print(
        f"wrote {args.save_path}: {made} steps, {given} scripts and other inputs from outside {args.save_path.parent}"
    )


if __name__ == "__main__":
    cli.run(main)
