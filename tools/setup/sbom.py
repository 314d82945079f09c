"""List every installed package with its version and licence, and compare the list with the lock.

    python -m tools.setup.sbom [--save_path build/sbom.cdx.json]      (or: make sbom)

    annotated-doc 0.0.7  MIT
    ...
    77 packages, as requirements.txt locks them

It needs the project's own interpreter. Licences are those in the packages' metadata. --save_path also writes the list as
CycloneDX 1.6 JSON (ECMA-424), with the lock's hashes, dependencies and the pinned downloads; the same packages give the same
bytes. A published folder's list has one more component, the model with its card. It is written as plain JSON because
cyclonedx-python-lib 11 has no model cards.
"""

import importlib.metadata
import json
import re
import uuid
from pathlib import Path

from tools.make import cli
from tools.source import fetch

LOCKS = ("requirements.txt", "requirements-cuda.txt")
TOOLS = {"pip", "setuptools", "wheel"}  # python -m venv installs them
OPTIONAL = {"colorama", "hf-xet"}  # locked for other systems or processors only


def normalized(name: str) -> str:
    """A package's name in PyPI's normalised form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(*paths: Path) -> dict[str, dict[str, list[str]]]:
    """{package: {version: sha256 of each allowed file}} of lock files."""
    packages: dict[str, dict[str, list[str]]] = {}
    text = "\n".join(path.read_text() for path in paths)
    for name, version, rest in re.findall(r"^([\w.-]+)==([^ ;\\+]+)(.*(?:\n .*)*)", text, re.M):
        packages.setdefault(normalized(name), {}).setdefault(version, []).extend(re.findall(r"sha256:(\w{64})", rest))
    return packages


def installed() -> dict:
    """{package: its importlib.metadata distribution} of the installed packages."""
    return {normalized(d.metadata["Name"]): d for d in importlib.metadata.distributions()}


def licence(meta) -> str:
    """A package's licence in a few words, from its metadata."""
    classifiers = [c.split(" :: ")[-1] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    text = meta.get("License-Expression") or ", ".join(classifiers) or (meta.get("License") or "").split("\n")[0]
    return text[:60] or "not stated"


def hashed(digests) -> list[dict]:
    """Hashes in CycloneDX's form."""
    return [{"alg": "SHA-256", "content": digest} for digest in digests]


def component(name: str, dist, allowed: dict) -> dict:
    """The component of a package: package URL, licence, and the files that the lock allows."""
    expression, version = dist.metadata.get("License-Expression"), dist.version.split("+")[0]
    one = {"expression": expression} if expression else {"license": {"name": licence(dist.metadata)}}
    page: dict = {"type": "distribution", "url": f"https://pypi.org/project/{name}/{version}/"}
    page |= {"hashes": hashed(files)} if (files := allowed.get(name, {}).get(version)) else {}
    purl = f"pkg:pypi/{name}@{dist.version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": dist.version, "purl": purl,
            "licenses": [one], "externalReferences": [page]}  # fmt: skip


def pinned(name: str, pin) -> dict:
    """The component of a pinned download. Both packages have the MIT licence (data/README.md)."""
    return {"type": "data", "bom-ref": name, "name": name, "version": pin.version,
            "purl": f"pkg:pypi/{normalized(pin.package)}@{pin.version}", "licenses": [{"license": {"id": "MIT"}}],
            "hashes": hashed([pin.sha256])}  # fmt: skip


def document(here: dict, *models: dict) -> dict:
    """A CycloneDX 1.6 document of packages, their dependencies, the pinned downloads, and models."""
    build = ["requirements-cpu.txt"] if here["torch"].version.endswith("+cpu") else []  # the lock of that build
    allowed = locked(*map(Path, (*LOCKS, *build)))
    packages = {name: component(name, dist, allowed) for name, dist in sorted(here.items())}
    components = [*models, *packages.values(), *(pinned(name, pin) for name, pin in fetch.read_pins().items())]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components))
    version = re.search(r"^version: (\S+)", Path("CITATION.cff").read_text("utf-8"), re.M)[1]
    product = {"type": "application", "bom-ref": "bert2om", "name": "bert2om", "version": version,
               "licenses": [{"expression": "Apache-2.0"}]}  # fmt: skip
    refs = lambda names: [packages[name]["bom-ref"] for name in sorted(names & packages.keys())]
    needs = lambda dist: refs({normalized(re.match(r"[\w.-]+", line)[0]) for line in dist.requires or []})
    graph = [{"ref": packages[name]["bom-ref"], "dependsOn": needs(here[name])} for name in packages]
    graph.append({"ref": "bert2om", "dependsOn": [one["bom-ref"] for one in components]})
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
            "metadata": {"component": product}, "components": components, "dependencies": graph}  # fmt: skip


def main():
    p = cli.parser(__doc__)
    p.add_argument("--save_path", type=Path, help="also write the list there, as CycloneDX JSON")
    args = p.parse_args()
    here, allowed = installed(), locked(*map(Path, LOCKS))
    for name, dist in sorted(here.items()):
        print(f"{name} {dist.version}  {licence(dist.metadata)}")
    stray = {n for n, dist in here.items() if dist.version.split("+")[0] not in allowed.get(n, {})} - TOOLS
    faults = [f"{name} {here[name].version} is installed but not locked" for name in sorted(stray)]
    lacking = [name for name in locked(Path(LOCKS[0])) if name not in here.keys() | OPTIONAL]
    if faults := faults + [f"{name} is locked but not installed" for name in lacking]:
        raise cli.UserError(f"{'; '.join(faults)}; rm -r .venv and run make setup")
    if args.save_path:
        cli.write(args.save_path, json.dumps(document(here), indent=1) + "\n")
        print(f"wrote {args.save_path}")
    print(f"{len(here)} packages, as requirements.txt locks them")


if __name__ == "__main__":
    cli.run(main)
