"""Build Containerfile with podman and run README's two commands in the image, without a network.

    python3 -m lab.container [--base docker.io/library/debian:13] [--debian]      (or: make container [BASE=...])

    container  built localhost/bert2om on docker.io/library/debian@sha256:2424...                         412.0 s
    container  make accuracy: passed without a network                                                    81.3 s
    container  make test: passed without a network                                                       355.2 s

The tree is this folder; an unpacked release asks no package index. --debian makes the base of Debian's packages with
mmdebstrap, for those who reach no image registry. Podman is asked by the base, before anything is built, whether it
starts containers here: an ordinary user's need subordinate ids (/etc/subuid; apt install uidmap). Where it does not
(no cgroups, no name spaces), it builds with --isolation=chroot, and as root the commands run as the step of a build
inside unshare(1) --net.
"""

import argparse
import re
import shutil
import subprocess
import time
from pathlib import Path

from tools.make import cli, screen

IMAGE, DEBIAN, HOME = "localhost/bert2om", "localhost/bert2om-debian", Path("build/container")
FETCH = (("image", "exists"), ("pull",))


def run(what: str, *command, may_fail=False) -> bool:
    """Run a command, its output added to build/container/log; whether it ended well. UserError where it had to."""
    started = time.time()
    with (HOME / "log").open("ab") as log:
        log.write(f"$ {' '.join(map(str, command))}\n".encode())
        log.flush()
        failed = screen.wait(subprocess.Popen(command, stdout=log, stderr=log), what[:70])
    if failed and not may_fail:
        last = (HOME / "log").read_text(errors="replace").strip().splitlines()[-1]
        raise cli.UserError(f"{what}: failed: {last[:300]}; all of it in {HOME}/log")
    if not may_fail:
        print(f"container  {what:<85} {time.time() - started:7.1f} s", flush=True)
    return not failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pinned = re.search(r"(?m)^ARG BASE=(\S+)$", Path("Containerfile").read_text("utf-8"))[1]
    p.add_argument("--base", default=pinned, help="a Debian or Ubuntu image, by tag or digest (%(default)s)")
    p.add_argument("--debian", action="store_true", help="make the base of Debian's packages")
    p.add_argument(
        "commands", nargs="*", default=("make accuracy", "make test"), help="what to run in it (README's two)"
    )
    args = p.parse_args()
    for tool in ("podman", *(["mmdebstrap"] if args.debian else [])):
        if not shutil.which(tool):
            raise cli.UserError(f"{tool}: not found; apt install {tool}")
    base = DEBIAN if args.debian else args.base
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "empty").mkdir(parents=True)
    if args.debian:
        run("made a base of Debian's packages", "mmdebstrap", "--variant=minbase", "bookworm", HOME / "debian.tar")
        run(f"imported {base}", "podman", "import", HOME / "debian.tar", base)
    elif not any(run(f"podman {' '.join(how)} {base}", "podman", *how, base, may_fail=True) for how in FETCH):
        raise cli.UserError(f"{base}: podman cannot pull it, see {HOME}/log; BASE= names another, --debian makes one")
    isolation = ["--isolation=chroot"]
    if run("does podman start containers", "podman", "run", "--rm", "--network=none", base, "true", may_fail=True):
        isolation = []
    build = ["podman", "build", *isolation, "--build-arg", f"BASE={base}", "-t", IMAGE, "-f", "Containerfile", "."]
    run(f"built {IMAGE} on {base}", *build)
    for command in args.commands:
        offline = ["podman", "run", "--rm", "--network=none", IMAGE, "sh", "-c", command]
        if isolation:
            (HOME / "Containerfile").write_text(f"FROM {IMAGE}\nRUN {command}\n")
            step = ["podman", "build", *isolation, "--no-cache", "-f", HOME / "Containerfile", HOME / "empty"]
            offline = ["unshare", "--net", *step]
        run(f"{command}: passed without a network", *offline)


if __name__ == "__main__":
    cli.run(main)
