"""Compile ONNX to an Ascend .om with CANN's own atc, wherever that is, and verify the .om before it is kept.

    python -m tools.ascend.atc --implmode Gelu=high_performance --framework=5 --model=ascend.onnx \\
        --output=model --soc_version=Ascend310P3 --input_shape="input_ids:8,128;attention_mask:8,128"

    atc of CANN 8.5.0 in .../test/fake_cann
    + atc --framework=5 --model=model.onnx --output=model --soc_version=Ascend310P3
      '--input_shape=input_ids:8,128;attention_mask:8,128' --op_precision_mode=op_precision.ini
    ATC start working now, please wait for a moment.
    ...
    ATC run success, welcome to the next use.

    wrote model.om (3142 bytes)

(With the test suite's stand-in for atc, which fuses nothing; no real atc has run this yet.)

All options but --atc, --image and --implmode are atc's own. Three things are changed in them. Model and output are
named relative to a private folder: atc leaves fusion_result.json and kernel_meta/ where it runs, and writes its command
line into the .om, which must not depend on our folder. Ascend710 becomes Ascend310P3. --implmode is spelled as the CANN
version wants it: --op_precision_mode=<ini> from 8.0 on, where --op_select_implmode and
--optypelist_for_implmode are frozen, and those two before.

--atc: `auto` looks on PATH, in $ASCEND_HOME_PATH, then in the usual places, and sources set_env.sh in a
subshell; `docker` or `podman` runs atc in the image that --image names; anything else is the path of atc.
atc needs no NPU. Its behaviour: hicann/ge, api/atc and docs/zh/user_guides/atc_tools (August 2026).
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from tools.ascend import om
from tools.base import trip
from tools.make import cli

WHERE = "get the CANN toolkit at https://www.hiascend.com/software/cann (no NPU is needed to compile)"
CONTAINERS = ("docker", "podman")
PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")
# The first pattern that matches atc's output gives the hint.
HINTS = (
    (r"libascend_hal\.so", "no driver here: <toolkit>/<arch>-linux/devlib must be on LD_LIBRARY_PATH"),
    (r"soc_version|platform.?info", "`npu-smi info` shows the chip's Name; say CHIP=<Name>, as CHIP=310P3"),
    (r"unknown command line flag", "this CANN does not know that option: drop it, or use another version"),
    (r"E10016", "the names in --input_shape must be the ONNX inputs, separated by ; inside quotes"),
    (r"E10035|E10036", "give 2 to 100 gears, as in --dynamic_dims='64,64;128,128'"),
    (r"E1003[789]|E1004[056]", "every gear needs one number per -1 in --input_shape, all gears different"),
    (r"E10002|E10011|E10049|set input_shape", "name every input: --input_shape='input_ids:8,128;...'"),
    (r"E10054|E10007|E10004", "a parameter is missing, or a value with ; in it was not quoted"),
    (r"can only contain 'a-z'", "move the project to a path of letters, digits, - _ . only"),
    (r"E10410|E1300[0-4]|No such file", "check that the file named exists and can be read"),
    (r"E16001|E16004|E16005|E10041|E13005", "atc cannot parse this ONNX file: rebuild it, run onnx.checker"),
    (r"E10501|E11009|E16002|E19010|EZ3003", "this CANN lacks an operator or its opset: export with opset 11; CANN 8.5 and"
     " later also need the ops package of the target chip"),
    (r"np\.float_|NumPy 2|numpy 2", "CANN's compiler imports the python3 that is first on PATH, whose NumPy is too new for"
     " it: put a Python with numpy<2, decorator, attrs and cffi first, and no .venv of this project"),
    (r"EC0010|E4000\d|ModuleNotFoundError", "a Python module of CANN's compiler is missing: install numpy<2 decorator sympy"
     " attrs psutil cffi pyyaml protobuf scipy requests for the python3 that is first on PATH"),
    (r"E2\d\d\d\d|E40\d\d\d|EZ9999", "the operator compiler failed: use --log=error, see ~/ascend/log/debug/plog"),
    (r"E19999", "atc's own inner error: set ASCEND_SLOG_PRINT_TO_STDOUT=1, see the first error it prints"),
)  # fmt: skip


def parse_flags(words: list) -> dict:
    """atc's words --key=value as {key: value}, in their order. Raises UserError for another word, for a flag that is given
    twice, and if the model, the output or the SoC is missing."""
    flags: dict = {}
    for word in words:
        option = re.fullmatch(r"--(\w+)=(.*)", word)
        if not option or option[1] in flags:
            raise cli.UserError(f"{word!r}: atc's options are written --key=value, each once")
        flags[option[1]] = option[2]
    for key in ("model", "output", "soc_version"):
        if not flags.get(key):
            raise cli.UserError(f"--{key} is missing")
    return flags


def container(engine: str, image: str | None, work: Path) -> list:
    """The command that runs a program in CANN's image, without a network, under our uid, with only `work` mounted. Raises
    UserError if `image` is not pinned by digest, or the engine is missing."""
    if not shutil.which(engine):
        raise cli.UserError(f"ATC={engine}: {engine} is not on PATH; install it, or {WHERE}")
    if not PINNED.fullmatch(image or ""):
        raise cli.UserError(f"CANN_IMAGE={image or ''}: pin it by digest, as ascendai/cann@sha256:<64 hex>")
    return [
        *(engine, "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}"),
        *(["--userns=keep-id"] if engine == "podman" else []),
        *(f"--volume={work}:/compile", "--workdir=/compile", "--env=HOME=/compile", "--entrypoint=", image),
    ]


def find_cann(atc: str, prefix: list) -> dict:
    """The facts of trip.cann for the CANN that ATC= names. prefix: the command that runs a program in a container, or [].
    Raises UserError if there is no such CANN."""
    if prefix:
        roots = [r for r in trip.ROOTS if r[0] == "/"]
    elif atc == "auto":
        roots = trip.roots()
    elif Path(atc).parent.name == "bin" and os.access(atc, os.X_OK):
        roots = [str(Path(atc).absolute().parents[1])]
    else:
        raise cli.UserError(f"ATC={atc}: give auto, docker, podman, or the path of CANN's bin/atc")
    if tool := trip.cann([*prefix, "bash"], roots):
        return tool
    if prefix:
        raise cli.UserError(f"{prefix[0]}: no atc in {prefix[-1]}; is it CANN's, and does {prefix[0]} run?")
    places = f"on PATH, in ASCEND_HOME_PATH ({os.environ.get('ASCEND_HOME_PATH', 'not set')}), {', '.join(roots)}"
    raise cli.UserError(f"no atc found: looked {places}; {WHERE}, or say ATC=docker CANN_IMAGE=name@sha256:...")


def atc_path(atc: str = "auto") -> str:
    """The path of the atc that ATC= names, or of docker or podman itself, on this machine; "" if there is none."""
    if atc in CONTAINERS:
        return shutil.which(atc) or ""
    try:
        return f"{find_cann(atc, [])['root']}/bin/atc"
    except cli.UserError:
        return ""


def soc_name(chip: str, tool: dict) -> str:
    """The present name of a SoC. Raises UserError if this CANN does not list it."""
    name = trip.soc(chip)
    if name != chip:
        print(f"{chip} is {'another spelling' if '_' in chip else 'the old name'} of {name}")
    if tool["socs"] and name not in tool["socs"]:
        why = "; plain 310 left CANN, use an older toolkit for that card" if name == "Ascend310" else ""
        near = sorted(s for s in tool["socs"] if s.startswith(name[:9])) or sorted(tool["socs"])
        cann = f"CANN {tool['version'] or '(version unknown)'} in {tool['root']}"
        raise cli.UserError(f"--soc_version={name} is unknown to {cann}{why}; it knows {', '.join(near)}")
    return name


def facts_of(flags: dict) -> dict:
    """{inputs, gears} of an .om that is compiled with these flags, as om.check compares them: each where the flags fix it."""
    numbers = lambda text: [int(n) for n in text.split(",")]
    shapes = dict(item.rpartition(":")[::2] for item in flags.get("input_shape", "").split(";") if item)
    fixed = shapes and not any("~" in dims for dims in shapes.values())  # 1~10: a range
    facts = {"inputs": {name: numbers(dims) for name, dims in shapes.items()}} if fixed else {}
    if flags.keys() & {"dynamic_batch_size", "dynamic_image_size"}:
        return facts
    return facts | {"gears": [numbers(gear) for gear in flags.get("dynamic_dims", "").split(";") if gear] or None}


def failure(text: str, status: int) -> str:
    """One line for a failed run: atc's first error, with the hint that fits, or the solution that atc prints."""
    solutions = re.findall(r"^\s*Solution: *(?! |N/A)(.+)", text, re.M)
    output = text if status else "it ended without 'ATC run success'"
    return trip.failure("atc", output, status, (*HINTS, *(("", solution) for solution in solutions)))


def compile_om(a, flags: dict, work: Path) -> Path:
    """Run atc in `work`; the path of the .om there, whose definition has been compared with the flags. Raises UserError
    if atc fails, with its own words, or if the .om is not what the flags ask for."""
    prefix = container(a.atc, a.image, work) if a.atc in CONTAINERS else []
    tool = find_cann(a.atc, prefix)
    soc = soc_name(flags["soc_version"], tool)
    shutil.copyfile(flags["model"], work / "model.onnx")
    flags = flags | {"model": "model.onnx", "output": "model", "soc_version": soc}
    flags |= trip.implmode(a.implmode, trip.number(tool["version"]), str(work))
    words = [f"--{k}={v}" for k, v in flags.items()]
    image = f" of {a.image}" if prefix else ""
    print(f"atc of CANN {tool['version'] or '(version unknown)'} in {tool['root']}{image}")
    print("+", shlex.join(["atc", *words]), flush=True)
    status, text = cli.run_shown([*prefix, *trip.atc_command(tool, words)], work)
    if status or "ATC run success" not in text:
        raise cli.UserError(failure(text, status))
    oms = sorted(work.glob("model*.om"))  # model_linux_x86_64.om when the model carries host code
    if len(oms) != 1:
        raise cli.UserError(f"atc said success but left {len(oms)} .om files; nothing is kept")
    om.check(om.read_om(oms[0]), oms[0].name, words, soc_version=soc, **facts_of(flags))
    return oms[0]


def main():
    p = cli.parser(__doc__, usage="%(prog)s [options] ATC FLAGS", allow_abbrev=False)
    p.add_argument("--atc", default="auto", metavar="WHERE", help="auto, docker, podman, or the path of atc")
    p.add_argument("--image", help="docker, podman: CANN's image, pinned as repository@sha256:...")
    p.add_argument("--implmode", default="", metavar="OP=MODE", help="Gelu=high_performance")
    a, words = p.parse_known_args([w for w in sys.argv[1:] if w != "--"])
    flags = parse_flags(words)
    target = Path(flags["output"].removesuffix(".om") + ".om")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.resolve(), prefix=".atc-") as work:
        path = compile_om(a, flags, Path(work))
        path.chmod(0o644)  # ais_bench refuses a model that others may write
        path.replace(target)
    print(f"wrote {target} ({target.stat().st_size} bytes)")


if __name__ == "__main__":
    cli.run(main)
