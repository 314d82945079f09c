"""Build Containerfile with podman and run README's two commands in the image, without a network.

    python3 -m tools.setup.container [--release build/release/bert2om-....tar] [--debian]      (or: make container)

    container  built localhost/bert2om from build/container/bert2om-54f54b0eeaed                        412.0 s
    container  make accuracy: passed without a network                                                    81.3 s
    container  make test: passed without a network                                                       355.2 s

The tree is the release's, where one is given or lies in build/release, so that the build asks no package index; else it
is this folder. --debian builds the base from Debian's packages with mmdebstrap, for those who reach no image registry.
Where podman starts no container (no cgroups, no name spaces), it builds with --isolation=chroot, and the commands run as
the step of a build inside unshare(1) --net, which only root can do. Only the standard library.
"""

import argparse
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from tools.make import cli, screen

IMAGE, BASE, HOME = "localhost/bert2om", "localhost/bert2om-debian", Path("build/container")
COMMANDS = ("make accuracy", "make test")


def run(*command) -> bool:
    """Whether a command ends well; what it prints is added to build/container/log."""
    with (HOME / "log").open("ab") as log:
        log.write(f"$ {' '.join(map(str, command))}\n".encode())
        log.flush()
        return not screen.wait(subprocess.Popen(command, stdout=log, stderr=log), " ".join(map(str, command))[:70])


def step(what: str, done: bool, started: float) -> None:
    """Say that a step has ended; UserError where it failed."""
    if not done:
        last = (HOME / "log").read_text(errors="replace").strip().splitlines()[-1]
        raise cli.UserError(f"{what}: failed: {last[:300]}; all of it in {HOME}/log")
    print(f"container  {what:<85} {time.time() - started:7.1f} s", flush=True)


def debian() -> bool:
    """Import a Debian 12 made of its packages as the image BASE."""
    root = HOME / "debian.tar"
    made = run("mmdebstrap", "--variant=minbase", "bookworm", str(root))
    return made and run("podman", "import", str(root), BASE)


def starts_containers(base: str) -> bool:
    """Whether podman runs a container here, and not only a build in a chroot."""
    return run("podman", "run", "--rm", "--network=none", base, "true")


def offline(command: str, isolation: list[str]) -> bool:
    """Run a command in the image without a network."""
    if not isolation:
        return run("podman", "run", "--rm", "--network=none", IMAGE, "sh", "-c", command)
    with tempfile.NamedTemporaryFile("w", suffix=".Containerfile") as f:
        f.write(f"FROM {IMAGE}\nRUN {command}\n")
        f.flush()
        return run("unshare", "--net", "podman", "build", *isolation, "--no-cache", "-f", f.name, HOME / "empty")


def context(release: Path | None) -> Path:
    """The folder to build from: the unpacked release, or this tree."""
    found = release or next(iter(sorted(Path("build/release").glob("*.tar"), key=os.path.getmtime, reverse=True)), None)
    if not found:
        return Path()
    with tarfile.open(found) as tar:
        tar.extractall(HOME, filter="data")
        return HOME / tar.getnames()[0].split("/")[0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--release", type=Path, help="a tar of make release")
    p.add_argument("--debian", action="store_true", help="make the base of Debian's packages")
    p.add_argument("commands", nargs="*", default=COMMANDS, help="what to run in it (README's two)")
    args = p.parse_args()
    for tool in ("podman", *(["mmdebstrap"] if args.debian else [])):
        if not shutil.which(tool):
            raise cli.UserError(f"{tool}: not found; apt install {tool}")
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "empty").mkdir(parents=True)
    started = time.time()
    if args.debian:
        step(f"made {BASE} of Debian's packages", debian(), started)
    base = ["--build-arg", f"BASE={BASE}"] if args.debian else []
    probe = BASE if args.debian else IMAGE
    tree, started = context(args.release), time.time()
    isolation = [] if starts_containers(probe) else ["--isolation=chroot"]
    built = run("podman", "build", *isolation, *base, "-t", IMAGE, "-f", "Containerfile", tree)
    step(f"built {IMAGE} from {tree}", built, started)
    for command in args.commands:
        started = time.time()
        step(f"{command}: passed without a network", offline(command, isolation), started)


if __name__ == "__main__":
    cli.run(main)
