"""Show make's targets and parameters, in groups.

    python3 -m tools.setup.help [--all]

    Run one configuration
      make accuracy         accuracy on the SST-2 validation set
      ...
      BS=8                  batch size

Parameters are read from tools/make/parameters.py, targets from the Makefiles. Only --all shows those for developers.
"""

from tools.make import cli, makefile, parameters


def lines(all_of_them: bool) -> list[str]:
    """The lines of the help, group by group. all_of_them: include what only developers need."""
    groups = {row.group: [] for row in parameters.ROWS}
    for name, (group, text, dev) in makefile.targets().items():
        if all_of_them or not dev:
            groups[group].append(f"  {f'make {name}':<21} {text}")
    for row in parameters.ROWS:
        if all_of_them or not row.dev:
            groups[row.group].append(f"  {f'{row.name}={row.default}':<21} {row.help}")
    found = [line for title, under in groups.items() if under for line in (title, *under)]
    last = "make help-dev shows the rest. Parameters are given on the command line: make accuracy BS=16"
    return found if all_of_them else [*found, last]


def main():
    p = cli.parser(__doc__)
    p.add_argument("--all", action="store_true", help="also what is for the project's own development")
    print("\n".join(lines(p.parse_args().all)))


if __name__ == "__main__":
    cli.run(main)
