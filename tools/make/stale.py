"""Which artefacts were made from other bytes than those that are here now, whatever the dates of their files say.

tools/make/makefile.py asks at each call of make, which then says the first, and before it makes such a one again, the second:

    7 files had dates in the future, as build/minilm_sst2/default/model.onnx; dated now, in their order.
    build/minilm_sst2/default/model.onnx was made from another data/pins.txt, though its date is newer; made again.

Make goes by dates. These lie where a clock was wrong, where a tree was copied, where a backup brought old dates back.
Each artefact's prov.json says from which bytes it was made: an input that is another now makes it stale. Make itself
sees this where the input is the newer of the two; here only what the dates hide is named. Only the standard library:
this runs before anything is installed.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tools.make import cli, manifest

PROV = ".prov.json"
SMALL = 1 << 20  # bytes of a result that is hashed again where its date or size is another
SKEW = 2  # seconds by which the clock of a file server may be ahead of ours


def described(top: Path) -> Iterator[Path]:
    """The prov.json files below a folder, but for those of other trees (a copy for verify) and in temporary folders."""
    for place, folders, names in os.walk(top):
        if "Makefile" in names or f"MANIFEST{PROV}" in names:
            folders.clear()
        folders[:] = sorted(name for name in folders if not (name[0] == "." and name.endswith(".tmp")))
        if "Makefile" not in names:
            yield from (Path(place, name) for name in sorted(names) if name.endswith(PROV))


def signature(path) -> list[int]:
    """Size, dates and number of a file: where these are the same, so are its bytes."""
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


class Hashes(dict):
    """{path: [signature, sha256]} of files, read again only where the signature is another."""

    def of(self, path: str) -> str:
        """The sha256 of a file; of a folder, that of all its files."""
        if Path(path).is_dir():
            return manifest.of_folder(path, lambda name: self.of(str(name)))
        now = signature(path)
        if self.get(path, [None])[0] != now:
            self[path] = [now, cli.sha256(path)]
        return self[path][1]


def provenance(tops=("build", "results")) -> dict[str, dict]:
    """{target: its prov.json} of what make made here."""
    found = {}
    for prov in (p for top in tops for p in described(Path(top))):
        with contextlib.suppress(
            OSError, ValueError, RecursionError
        ):  # audit names what is damaged, run.py what is not as described
            found[str(prov).removesuffix(PROV)] = json.loads(prov.read_text("utf-8"))
    sound = lambda prov: isinstance(prov, dict) and isinstance(prov.get("inputs"), dict)
    return {target: prov for target, prov in found.items() if sound(prov) and Path(target).exists()}


def dated(paths) -> dict[str, int]:
    """{path: its date in nanoseconds} of those paths that are there."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # a name with a NUL, in somebody's prov.json
            found[path] = Path(path).stat().st_mtime_ns
    return found


def hidden(provs: dict[str, dict], dates: dict[str, int], sha256) -> dict[str, str]:
    """{target: the first input that is another now, though the target's date is not older; or a small target itself}.

    Make sees by itself what is newer, and what is gone; run.py, what a step reads. Nothing reads an accuracy.txt again.
    """
    stale = {}
    for target, prov in provs.items():
        if Path(target).stat().st_size < SMALL and sha256(target) != prov.get("sha256"):
            stale[target] = target
            continue
        for name in (n for n in prov["inputs"] if n in dates and dates[n] <= dates[target]):
            if prov["inputs"][name] != (provs[name].get("sha256") if name in provs else sha256(name)):
                stale[target] = name
                break
    return stale


def date_now(dates: dict[str, int]) -> str:
    """Give files whose dates are in the future the present one, in their order; what was done, in words."""
    late = sorted((date, path) for path, date in dates.items() if date > (time.time() + SKEW) * 1e9)
    for _, path in late:
        with contextlib.suppress(OSError):  # not ours
            os.utime(path)
    files = f"{len(late)} files had dates in the future" if len(late) > 1 else "1 file had a date in the future"
    return f"{files}, as {late[0][1]}; dated now, in their order." if late else ""


def why(target: str, name: str) -> str:
    """Why a stale artefact is made again, in words; name: what `hidden` found of it."""
    why = "is not as it was made" if name == target else f"was made from another {name}, though its date is newer"
    return f"{target} {why}; made again."
