"""Write one tar of the last commit that needs no package index: the tree, the wheels of the lock, the pinned downloads.

    python -m lab.release --save_path build/release      (or: make release)

    release    78 wheels and 2 downloads, each with a hash of the lock or of data/pins.txt
    wrote build/release/bert2om-54f54b0eeaed-cp311-linux_x86_64.tar: 606 MB, sha256 cfce...

The wheels are those of this interpreter and this processor, which the tar's name says; wheels/SHA256SUMS lists them, and
tools/setup/install.py takes them from there. .git_archival.txt names the commit (git archive's export-subst), since
there is no .git. The same commit and wheels give the same bytes: names are sorted, dates are the commit's. The peers of
`make bench` are not in it. Needs the project's own interpreter, git, and the package index that it was installed from.
"""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from tools.make import cli
from tools.setup import install
from tools.source import fetch

DOWNLOADS = Path("build/downloads")
DOWNLOAD = "download --no-deps --require-hashes --only-binary :all:".split()  # noqa: SIM905


def git(*words: str) -> bytes:
    """What a git command prints; UserError where it fails."""
    done = subprocess.run(["git", *words], capture_output=True, check=False)
    if done.returncode:
        raise cli.UserError(f"git {words[0]}: {done.stderr.decode().strip()}; a release is made of a commit")
    return done.stdout


def locked() -> str:
    """The lock lines of what is installed: PyTorch's CPU build instead of PyPI's, and CUDA's packages, where they are."""
    read = lambda name: Path(name).read_text("utf-8")
    blocks = re.split(r"\n(?=[a-z])", read("requirements.txt").strip())
    if importlib.metadata.version("torch").endswith("+cpu"):
        blocks = [b for b in blocks if not b.startswith("torch==")] + [read("requirements-cpu.txt").strip()]
    elif any(d.name.startswith("nvidia-") for d in importlib.metadata.distributions()):
        blocks.append(read("requirements-cuda.txt").strip())
    return "\n".join(blocks) + "\n"


def wheels(folder: Path) -> list[Path]:
    """The lock's wheels for this interpreter, in `folder`, each with a hash of the lock.

    Raises UserError where pip finds one missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = folder / "chosen.txt"
    chosen.write_text(locked())
    words = [*DOWNLOAD, "-d", str(folder), "-r", str(chosen)]
    with (folder / "pip.log").open("w") as log:
        if install.pip(Path(sys.prefix), *words, log=log):
            raise install.failed(folder, log, "download")
    hashes = set(re.findall(r"sha256:([0-9a-f]{64})", locked()))
    for path in folder.glob("*.whl"):
        if cli.sha256(path) not in hashes:  # of an older lock
            path.unlink()
    return sorted(folder.glob("*.whl"))


def downloads() -> list[Path]:
    """The pinned files, fetched where they are not here yet."""
    pins = fetch.read_pins()
    for name, pin in pins.items():
        fetch.fetch(pin, DOWNLOADS / name)
    return [DOWNLOADS / name for name in pins]


def write(path: Path, name: str, packages: list[Path], pinned: list[Path]) -> None:
    """The tar: HEAD's tree as git archives it, then wheels/ with their hashes, then the downloads, all below one folder."""
    listed, part = path.with_name("SHA256SUMS"), path.with_suffix(".part")
    listed.write_text("".join(f"{cli.sha256(p)}  {p.name}\n" for p in packages))
    beside = lambda place, files: [f"--prefix={name}/{place}/", *(f"--add-file={p}" for p in sorted(files))]
    words = [*beside("wheels", [listed, *packages]), *beside(DOWNLOADS, pinned), f"--prefix={name}/", "HEAD"]
    git("archive", "--format=tar", f"--output={part}", *words)
    part.replace(path)


def main():
    p = cli.parser(__doc__)
    p.add_argument("--save_path", type=Path, required=True, help="the folder to write into")
    args = p.parse_args()
    commit = git("rev-parse", "HEAD").decode().strip()
    if git("status", "--porcelain", "-uno"):
        raise cli.UserError("the work tree differs from its commit; a release is of a commit: git commit or git stash")
    packages, pinned = wheels(args.save_path / "wheels"), downloads()
    counts = f"{len(packages)} wheels and {len(pinned)} downloads"
    print(f"release    {counts}, each with a hash of the lock or of data/pins.txt")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_platform().replace('-', '_')}"
    path = args.save_path / f"bert2om-{commit[:12]}-{tag}.tar"
    write(path, f"bert2om-{commit[:12]}", packages, pinned)
    print(f"wrote {path}: {path.stat().st_size / 1e6:,.0f} MB, sha256 {cli.sha256(path)}")


if __name__ == "__main__":
    cli.run(main)
