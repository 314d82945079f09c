"""Show the targets and parameters of the Makefile, in groups, from its own comments.

    python3 -m tools.setup.help [--all] Makefile mk/*.mk

    Run one configuration
      make accuracy         accuracy of one configuration on the SST-2 validation set (75 s, 370 MB)
      ...
      BS=8                  batch size

Seconds and MB of disk are those of results/costs.csv: what a target adds, where it was measured. `##@ Title` begins a group, `#: text` stands above a parameter, `## text` behind a target. The group Development is
shown with --all alone.
"""

import argparse
import re
from pathlib import Path

from tools.checks import claims

HIDDEN = "Development"


def read(texts):
    """{group: ([(target, text)], [(NAME=default, text)])} of Makefiles' texts, in their order."""
    groups, title, said = {}, None, None
    for line in "\n".join(texts).splitlines():
        if line.startswith("##@ "):
            title = line[4:].strip()
            groups.setdefault(title, ([], []))
        elif line.startswith("#:"):
            said = line[2:].strip()
        elif said is not None and (m := re.match(r"([A-Z0-9_]+) *:= ?(.*)", line)):
            groups[title][1].append((f"{m[1]}={m[2]}", said))
            said = None
        elif m := re.match(r"([a-z][a-z-]*):.*?## (.*)", line):
            groups[title][0].append((f"make {m[1]}", m[2]))
    return groups


def taken() -> dict[str, str]:
    """{`make accuracy`: ` (75 s, 370 MB)`} of the targets that were measured, with their first parameters."""
    rows = {f"make {words.split()[0]}": row for words, row in reversed(claims.costs().items())}
    return {name: f" ({float(r['seconds']):.0f} s, {r['disk_mb']} MB)" for name, r in rows.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--all", action="store_true", help="also what is for the project's own development")
    p.add_argument("makefiles", nargs="+", type=Path)
    args, costs = p.parse_args(), taken()
    for title, (targets, parameters) in read([path.read_text("utf-8") for path in args.makefiles]).items():
        if title == HIDDEN and not args.all:
            continue
        print(title)
        for name, text in targets + parameters:
            print(f"  {name:<21} {text}{costs.get(name, '')}".rstrip())
        print()
    if not args.all:
        print("make help-dev shows the rest. Parameters are given on the command line: make accuracy BS=16")


if __name__ == "__main__":
    main()
