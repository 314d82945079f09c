"""Every installed package with its version and licence; nothing outside the lock, nothing missing from it.

    python -m lab.sbom [--save_path build/sbom.cdx.json]      (or: make sbom)

    annotated-doc 0.0.7  MIT
    ...
    77 packages, as requirements.txt locks them

Needs the project's own interpreter. Licences are what the packages' metadata say. --save_path also writes the list as
CycloneDX 1.6 JSON (ECMA-424), with the lock's hashes, what each package needs, and the pinned downloads: the same packages
give the same bytes.
"""

import argparse
import importlib.metadata
import json
import re
import uuid
from pathlib import Path

from tools.make import cli
from tools.source import fetch

LOCKS = ("requirements.txt", "requirements-cuda.txt")
TOOLS = {"pip", "setuptools", "wheel"}  # python -m venv brings them


def plain(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(path: Path) -> dict[str, set[str]]:
    """{package: versions} of a lock file; several where they depend on Python's version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", path.read_text(), re.M):
        found.setdefault(plain(name), set()).add(version)
    return found


def licence(meta) -> str:
    """What a package's metadata say of its licence, in a few words."""
    classifiers = [c.split(" :: ")[-1] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    text = meta.get("License-Expression") or ", ".join(classifiers) or (meta.get("License") or "").split("\n")[0]
    return text[:60] or "not stated"


def hashes(path: Path) -> dict[tuple[str, str], list[str]]:
    """{(package, version): sha256 of each file that a lock allows for it}."""
    blocks = re.split(r"\n(?=[A-Za-z])", path.read_text())
    heads = [re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", block) for block in blocks]
    pairs = [(head, block) for head, block in zip(heads, blocks, strict=True) if head]
    return {(plain(h[1]), h[2].split("+")[0]): re.findall(r"sha256:([0-9a-f]{64})", b) for h, b in pairs}


def component(name: str, dist, allowed: dict) -> dict:
    """One package as CycloneDX has it: its package URL, its licence, the files that the lock allows."""
    expression = dist.metadata.get("License-Expression")
    one = {"expression": expression} if expression else {"license": {"name": licence(dist.metadata)}}
    files = allowed.get((name, dist.version.split("+")[0]), [])
    page = {"type": "distribution", "url": f"https://pypi.org/project/{name}/{dist.version.split('+')[0]}/"}
    page |= {"hashes": [{"alg": "SHA-256", "content": digest} for digest in files]} if files else {}
    purl = f"pkg:pypi/{name}@{dist.version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": dist.version, "purl": purl,
            "licenses": [one], "externalReferences": [page]}  # fmt: skip


def pinned(name: str, pin) -> dict:
    """One pinned download as CycloneDX has it; both packages are under the MIT licence (data/README.md)."""
    return {"type": "data", "bom-ref": name, "name": name, "version": pin.version,
            "purl": f"pkg:pypi/{plain(pin.package)}@{pin.version}", "licenses": [{"license": {"id": "MIT"}}],
            "hashes": [{"alg": "SHA-256", "content": pin.sha256}]}  # fmt: skip


def needed(dist, here: dict) -> list[str]:
    """The installed packages that one requires."""
    return sorted({plain(re.match(r"[\w.-]+", line)[0]) for line in dist.requires or []} & here.keys())


def cyclonedx(here: dict) -> str:
    """The packages, what they need, and the pinned downloads as a CycloneDX 1.6 document."""
    build = ["requirements-cpu.txt"] if here["torch"].version.endswith("+cpu") else []  # its own file of PyTorch
    allowed = {key: files for lock in (*LOCKS, *build) for key, files in hashes(Path(lock)).items()}
    packages = {name: component(name, dist, allowed) for name, dist in sorted(here.items())}
    components = [*packages.values(), *(pinned(name, pin) for name, pin in fetch.read_pins().items())]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components))
    version = re.search(r"^version: (\S+)", Path("CITATION.cff").read_text("utf-8"), re.M)[1]
    product = {"type": "application", "bom-ref": "bert2om", "name": "bert2om", "version": version,
               "licenses": [{"expression": "Apache-2.0"}]}  # fmt: skip
    ref = lambda name: packages[name]["bom-ref"]
    graph = [{"ref": ref(name), "dependsOn": [*map(ref, needed(dist, here))]} for name, dist in sorted(here.items())]
    graph.append({"ref": "bert2om", "dependsOn": [one["bom-ref"] for one in components]})
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}",
                       "version": 1, "metadata": {"component": product}, "components": components,
                       "dependencies": graph}, indent=1)  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--save_path", type=Path, help="also write the list there, as CycloneDX JSON")
    args = p.parse_args()
    here = {plain(d.metadata["Name"]): d for d in importlib.metadata.distributions()}
    allowed: dict[str, set[str]] = {}
    for lock in LOCKS:
        allowed |= locked(Path(lock))
    faults = []
    for name, dist in sorted(here.items()):
        print(f"{name} {dist.version}  {licence(dist.metadata)}")
        version = dist.version.split("+")[0]
        if name not in TOOLS and version not in allowed.get(name, ()):
            faults.append(f"{name} {dist.version} is installed but not locked; rm -r .venv and run make setup")
    optional = {"colorama", "hf-xet"}  # on other systems or processors
    missing = [n for n in locked(Path(LOCKS[0])) if n not in here and n not in optional]
    faults += [f"{n} is locked but not installed; rm -r .venv and run make setup" for n in missing]
    if faults:
        raise cli.UserError("; ".join(faults))
    if args.save_path:
        with cli.whole_file(args.save_path, "w", encoding="utf-8") as f:
            f.write(cyclonedx(here) + "\n")
        print(f"wrote {args.save_path}")
    print(f"{len(here)} packages, as requirements.txt locks them")


if __name__ == "__main__":
    cli.run(main)
