"""Make in odd environments: variables, closed ends, limits. It says what it says in a plain one, and makes the same bytes.

    python -m lab.environments build/data/tiny/dev.tsv -- MODEL=tiny DATA=few.tsv VENV=.venv

    PYTHONHOME=/nowhere                      well
    ...
    environments: 66, in each the same steps and the same bytes

Each word of CASES is put before make, by a shell. In each, `make -n -B accuracy` shows the commands that it shows in a plain
environment, and the goal, removed before, is made again of the same bytes, with not one line of warning or error.
"""

import re
import subprocess
from pathlib import Path

from lab import counts
from tools.checks import reproduce
from tools.make import cli

HOME = Path("build/environments")
VARIABLES = """
    PYTHONSAFEPATH=1 PYTHONHOME=/nowhere PYTHONPATH=/nowhere PYTHONPATH=$PWD/shadow PYTHONSTARTUP=/nowhere PYTHONOPTIMIZE=2
    PYTHONINSPECT=1 PYTHONUTF8=0 PYTHONIOENCODING=ascii PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX=/nowhere/x
    PYTHONWARNINGS=error PYTHONDEVMODE=1 PYTHONHASHSEED=random PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 PYTHONMALLOC=debug
    PYTHONINTMAXSTRDIGITS=640 PYTHONCASEOK=1 PYTHONCOERCECLOCALE=0 PYTHONUSERBASE=/nowhere PYTHONBREAKPOINT=os.abort
    PYTHONVERBOSE=1 PYTHONPROFILEIMPORTTIME=1 PYTHONTRACEMALLOC=1 PYTHONFAULTHANDLER=1
    LC_ALL=C LC_ALL=tr_TR.UTF-8 LC_ALL=nonsense LANG=zh_CN.GBK LC_NUMERIC=de_DE.UTF-8 TZ=Asia/Tokyo TZ=nonsense
    MAKEFLAGS=k MAKEFLAGS=s MAKEFLAGS=-j8 MAKEFLAGS=r MAKEFLAGS=--no-print-directory MAKEFILES=/nowhere MAKEOVERRIDES=BS=3
    BASH_ENV=/nowhere ENV=/nowhere SHELLOPTS=braceexpand:noglob POSIXLY_CORRECT=1 CDPATH=/tmp IFS=/ PS4=x GREP_OPTIONS=-v
    HOME=/nowhere TMPDIR=/nowhere TERM=dumb COLUMNS=1 NO_COLOR=1 FORCE_COLOR=1 DISPLAY=:9 MPLBACKEND=nonsense
    GIT_DIR=/nowhere GIT_WORK_TREE=/nowhere GIT_CONFIG_GLOBAL=/nowhere GIT_INDEX_FILE=/nowhere
    OMP_NUM_THREADS=2,1 OMP_NUM_THREADS=all LD_LIBRARY_PATH=/nowhere PIP_USER=1 PIP_TARGET=/nowhere VIRTUAL_ENV=/nowhere
    BS=3 CHIP=310P3 MODEL=other SEQ=7 VENV=/nowhere Q=x py=/nowhere ours=x SHELL=/bin/false tiny.SEQ=9 V=
    CC=/bin/false CFLAGS=-nonsense ONEDNN_MAX_CPU_ISA=SSE41 BERT2OM_STEP=x http_proxy=http://127.0.0.1:9
"""
SHELLS = ("umask 077;", "umask 000;", "exec <&-;", "ulimit -n 64;", "ulimit -c 0 -s unlimited;", "trap '' INT;",
          "trap '' HUP TERM;", "cd . ; cd \"$PWD/build/..\";", "nice -n 5", "setsid -w", "env -u HOME -u USER -u LANG")  # fmt: skip
CASES = (*VARIABLES.split(), *SHELLS)


def run_make(folder: Path, case: str, words: list[str]) -> tuple[int, str, str]:
    """(status, stdout, stderr) of make in a folder, in an environment."""
    before = f'env "{case}"' if re.match(r"[\w.]+=", case) else case
    command = ["bash", "-c", f'{before} make "$@"', "bash", *words]
    done = subprocess.run(command, cwd=folder, env=cli.clean_environment(), capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines(keepends=True)  # bash itself names a locale that is not installed
    return done.returncode, done.stdout, "".join(line for line in lines if "warning: setlocale: " not in line)


def fault(folder: Path, case: str, goal: str, words: list[str], plain: list[str], want: str) -> str:
    """What is wrong in an environment; empty where all is well."""
    status, out, err = run_make(folder, case, ["-n", "-B", "accuracy", *words])
    if status or out.split() != plain:
        return f"make -n -B accuracy ({status}) shows other commands: {(err or out)[-300:]}"
    (folder / goal).unlink()
    status, out, err = run_make(folder, case, [goal, *words])
    if status or err or cli.sha256(folder / goal) != want:
        return f"make {goal} ended with {status}: {(err or out)[-300:]}"
    return ""


def main():
    p = cli.parser(__doc__)
    p.add_argument("goal", help="an artefact of one step")
    p.add_argument("parameters", nargs="*", help="make's, after --")
    p.add_argument("--save_path", type=Path, help="keep the counts there, as results/stress.csv")
    args = p.parse_args()
    folder = reproduce.clean_copy(HOME)
    if error := reproduce.make(folder, [args.goal, *args.parameters]):
        raise cli.UserError(f"the undisturbed build failed: {error}")
    (folder / "shadow").mkdir()
    for name in ("json", "numpy", "tools"):
        (folder / f"shadow/{name}.py").write_text("raise SystemExit('shadowed')\n")
    words = list(map(reproduce.from_here, args.parameters))
    plain = run_make(folder, "", ["-n", "-B", "accuracy", *words])[1].split()
    want, faults = cli.sha256(folder / args.goal), []
    for case in CASES:
        wrong = fault(folder, case, args.goal, words, plain, want)
        faults += [f"{case}: {wrong}"] if wrong else []
        print(f"{case:<40} {wrong or 'well'}", flush=True)
    if faults:
        raise cli.UserError(f"{len(faults)} of {len(CASES)} environments, first {faults[0]}")
    print(f"environments: {len(CASES)}, in each the same steps and the same bytes")
    counts.keep(args.save_path, "an odd environment", len(CASES), "the same steps and bytes", [args.goal, *words])


if __name__ == "__main__":
    cli.run(main)
