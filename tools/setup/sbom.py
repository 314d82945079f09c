"""Every installed package with its version and licence; nothing outside the lock, nothing missing from it.

    python -m tools.setup.sbom

    annotated-doc 0.0.7  MIT
    ...
    77 packages, as requirements.txt locks them

Needs the project's own interpreter (make sbom). Licences are what the packages' metadata say.
"""

import argparse
import importlib.metadata
import re
from pathlib import Path

from tools import cli

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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.parse_args()
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
    print(f"{len(here)} packages, as requirements.txt locks them")


if __name__ == "__main__":
    cli.run(main)
