"""Say what this machine has, what that enables, what is missing and how to get it.

    python3 -m tools.setup.doctor        (or: make doctor)

    ok       Python 3.11.7 of .venv/bin/python: everything of this project
    ok       gcc (Debian 12.2.0-14+deb12u1) 12.2.0: ENGINE=native, make perf
    ...
    ok       disk  66,012 MB free; make accuracy takes 2,520 of it
    ok       memory  22,340 MB available; make accuracy takes 1,540 at its peak
    ok       CPU  AMD EPYC, 2 cores
    ok       ENGINE=openvino PRECISION=fp32, bf16 (avx512_bf16), int8 (avx512_vnni avx_vnni)
    missing  atc: CHIP=310P3 and its like; install CANN and source its set_env.sh, or ATC=docker CANN_IMAGE=...

It uses only the standard library, since it has to work where nothing is installed yet. It exits with 0 if the default route
(MODEL=minilm_sst2 CHIP=cpu) can work, else with 1.
"""

import importlib.util
import platform
import re
import shutil
import ssl
import sys
from pathlib import Path

from tools.ascend import ais_bench, atc
from tools.base import trip
from tools.cpu.native import build
from tools.make import chips, cli, cpu
from tools.setup import install
from tools.source import fetch

ROUTE = 0.6  # GB that `make accuracy` writes into build/


def first_line(*command) -> str:
    """The first line that a command prints; "" if it is missing or fails."""
    status, text = trip.query(*command)
    return text.strip().split("\n")[0] if status == 0 else ""


def bench(python: str | None) -> str | None:
    """The Python that has ais_bench and aclruntime: the one named, or the first that is found; None if it has not."""
    if python is None:
        return ais_bench.find_python()
    return python if ais_bench.missing_packages(python) is None else None


def engines(wanted: str, python: str | None) -> list[str]:
    """The engines of other chips whose tools are on this machine. wanted: the value of ATC=; python: that of AIS_PYTHON=, or
    None."""
    ascend = bench(python) and atc.atc_path(wanted)
    torch_npu, gpu = importlib.util.find_spec("torch_npu"), first_line("nvidia-smi", "-L").startswith("GPU")
    places = {"atc": ascend, "trtexec": trip.trtexec()[0], "torch_npu": torch_npu, "torch_cuda": gpu}
    return [name for name, here in places.items() if here]


def lack(leaf: Path, goals: list[str], args) -> str:
    """The tool that is missing here for these goals of a configuration (om, accuracy, perf), and how to get it; "" if none
    is. What is made already needs no tool."""
    engine, results = leaf.name.split("-")[1], {"accuracy": "output/MANIFEST", "perf": "round1/MANIFEST"}
    compiles = not (leaf / chips.ENGINES[engine].file).exists()
    runs = any(not (leaf / results[goal]).exists() for goal in goals if goal in results)
    if engine == "trtexec" and (compiles or runs) and not trip.trtexec()[0]:
        return trip.NO_TRTEXEC
    if engine == "atc" and compiles:
        try:
            atc.container(args.atc, args.image, Path()) if args.atc in atc.CONTAINERS else atc.find_cann(args.atc, [])
        except cli.UserError as e:
            return str(e)
    return ais_bench.absence(args.python) if engine == "atc" and runs and not bench(args.python) else ""


def ours(venv: Path) -> list[tuple[bool, bool, str]]:
    """[(whether the default route needs it, whether it is here, text)] of what every target needs."""
    lacking, git, places = build.missing_tool(), first_line("git", "--version"), ssl.get_default_verify_paths()
    certificates = bool(places.cafile or (places.capath and any(Path(places.capath).iterdir())))
    where = f"certificates  {places.cafile or places.capath}"
    return [
        (True, True, f"Python {platform.python_version()} of {sys.executable}: everything of this project"),
        (True, bool(shutil.which("make")), first_line("make", "--version") or "make: apt install make"),
        (True, certificates, where if certificates else "certificates of web servers: apt install ca-certificates"),
        (False, not lacking, lacking or f"{first_line('gcc', '--version')}: ENGINE=native, make perf"),
        (False, bool(git), git or "git: apt install git; without it a record names no commit"),
        *packages(venv),
    ]


def packages(venv: Path) -> list[tuple[bool, bool, str]]:
    """The same for the engines in the virtual environment, or for what its installation takes and lacks."""
    if not (venv / "installed").is_file():
        lacks = [] if importlib.util.find_spec("ensurepip") else [(True, False, "venv: apt install python3-venv")]
        size = install.size(*install.cpu_build(venv))
        return [*lacks, (False, False, f"{venv}: nothing installed yet; make setup: {size}")]
    names = ("torch", "onnxruntime", "openvino")
    code = f"import importlib.metadata as m; print(*[n + ' ' + m.version(n) for n in {names}], sep=', ')"
    line = first_line(str(venv / "bin" / "python"), "-c", code)
    return [(True, bool(line), line or f"{venv}: broken; delete it and run make setup")]


def room(venv: Path) -> list[tuple[bool, bool, str]]:
    """The same for disk and memory, beside what the default route took when it was measured."""
    installed, nvidia = (venv / "installed").is_file(), any(venv.glob("lib/*/site-packages/nvidia"))
    build_for = "CUDA" if (nvidia if installed else install.cpu_build(venv)[1] is None) else "CPU"
    beside = ROUTE if installed else install.GIGABYTES[build_for] + max(ROUTE, install.DOWNLOADED[build_for])
    downloads = (pin.size for name, pin in fetch.read_pins().items() if not Path("build/downloads", name).is_file())
    disk, memory = 1000 * beside + sum(downloads) / 1e6, 1000 * install.MEMORY[build_for]
    free = shutil.disk_usage(".").free / 1e6
    available = int(re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024 / 1e6
    take = "make accuracy takes"
    return [
        (True, free >= disk, f"disk  {free:,.0f} MB free; {take} {disk:,.0f} of it"),
        (True, available >= memory, f"memory  {available:,.0f} MB available; {take} {memory:,.0f} at its peak"),
    ]


def engines_of_cpu() -> list[tuple[bool, bool, str]]:
    """The same for this CPU: which engine runs which precision on it, with which unit, and what the others need."""
    machine, flags = cpu.machine(), cpu.cpu_flags(limited=False)
    lines = [(True, True, f"CPU  {machine['cpu']}, {machine['cores']} cores")]
    for engine in chips.engines_of("cpu"):
        units = {p: chips.units(engine, p, flags) for p in chips.ENGINES[engine].precisions}
        runs = [f"{p} ({' '.join(sorted(names))})" if names else p for p, names in units.items() if names is not None]
        lacks = [f"{p} needs {' or '.join(chips.units_needed(engine, p))}" for p in units if units[p] is None]
        lines += [(False, True, f"ENGINE={engine} PRECISION={', '.join(runs)}")] if runs else []
        lines += [(False, False, f"ENGINE={engine}: {', '.join(lacks)}")] if lacks else []
    for precision in chips.BY_SPEED:
        engine = chips.engine_for("cpu", precision, flags)
        if chips.units(engine, precision, flags):
            lines += [(False, True, f"PRECISION={precision} is ENGINE={engine}: the fastest here, within the gates")]
    return lines


def ascend(wanted: str, python: str | None) -> list[tuple[bool, bool, str]]:
    """The same for the Ascend route: compiler, the Python that has ais_bench, the card. wanted, python: as in `engines`."""
    where, here = atc.atc_path(wanted), bench(python)
    asked = "" if wanted == "auto" else f"none is ATC={wanted}; "
    missing = f"atc: {asked}make om CHIP=310P3 needs CANN (hiascend.com); source its set_env.sh"
    compiler = f"atc  {where}: make om CHIP=310P3" if where else missing
    if here:
        version = first_line(here, "-c", "import platform; print(platform.python_version())")
    runner = f"Python {version} of {here}: ais_bench, make accuracy CHIP=310P3" if here else ais_bench.absence(python)
    return [(False, bool(where), compiler), (False, bool(here), runner), card()]


def card() -> tuple[bool, bool, str]:
    """The same for the card: its chip and health. A driver that fails is told apart from one that is missing."""
    status, text = trip.query("npu-smi", "info")
    if status is None:
        return False, False, "npu-smi: no Ascend driver here"
    cards = trip.cards(text) if status == 0 else []
    if not cards:
        why = " ".join(text.split())[:120] or "no word"
        return False, False, f"npu-smi fails (exit {status}: {why}): is the driver loaded, may we use /dev/davinci*?"
    told = ", ".join(f"{name} {health}" for name, health, _ in cards)
    return False, all(health == "OK" for _, health, _ in cards), f"npu-smi  {told}: CHIP={cards[0][0]}"


def main():
    p = cli.parser(__doc__)
    p.add_argument("--venv", type=Path, default=Path(".venv"))
    p.add_argument("--engines", action="store_true", help="name the engines of other chips that can be measured here")
    p.add_argument(
        "--lacks", nargs="+", metavar=("FOLDER", "GOAL"), help="the tool that is missing here for these goals"
    )
    p.add_argument("--atc", default="auto", help="as ATC= of the Makefile")
    p.add_argument("--image", help="as CANN_IMAGE= of the Makefile")
    p.add_argument("--python", help="as AIS_PYTHON= of the Makefile (found by looking)")
    args = p.parse_args()
    if args.engines:
        return print(*engines(args.atc, args.python))
    if args.lacks:
        return print(lack(Path(args.lacks[0]), args.lacks[1:], args))
    trtexec, _ = trip.trtexec()
    gpu = f"trtexec  {trtexec}: make perf CHIP=T4" if trtexec else "trtexec: CHIP=T4 needs TensorRT"
    lines = ours(args.venv) + room(args.venv) + engines_of_cpu() + ascend(args.atc, args.python)
    for _, here, text in [*lines, (False, bool(trtexec), gpu)]:
        print("ok      " if here else "missing ", text)
    return int(any(needed and not here for needed, here, _ in lines))


if __name__ == "__main__":
    cli.run(main)
