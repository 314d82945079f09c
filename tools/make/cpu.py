"""This machine's CPU: its units, those that ISA= allows, its name, cores, caches and energy counter."""

import contextlib
import math
import os
import platform
import re
from pathlib import Path

from tools.make import chips, cli

MAX_ISA = "ONEDNN_MAX_CPU_ISA"
ISA = tuple(unit for unit in chips.TELLING if not unit.startswith("asimd"))  # units that a record lists of its CPU
CGROUPS, CPUS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")
RAPL, RAPL_NAME = Path("/sys/class/powercap"), "intel-rapl"


def info() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags(limited=True) -> set[str]:
    """Feature flags of this CPU as Linux names them (x86 `flags`, Arm `Features`).

    limited: without the units that ONEDNN_MAX_CPU_ISA forbids. OpenVINO, PyTorch and the native engine obey it.
    onnxruntime's kernels (MLAS) have no such switch, and OpenVINO (2026.4) computes fp32 products with MLAS, too.
    """
    cpu = info()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    return chips.leaves(flags, os.environ.get(MAX_ISA, "").upper()) if limited else flags


def without(what: str) -> str:
    """`this CPU has no WHAT`, or that ISA= forbids it."""
    most = os.environ.get(MAX_ISA)
    return f"{MAX_ISA}={most} leaves no {what}" if most else f"this CPU has no {what}"


def check_units(precision: str) -> None:
    """Raises UserError if this CPU lacks the unit with which OpenVINO gives right answers in `precision`. Without VNNI, its int8
    sums saturate at 16 bits, which changed 4 to 6 of the 872 answers."""
    if chips.units("openvino", precision, cpu_flags()) is None:
        what = f"{precision} unit ({', '.join(chips.units_needed('openvino', precision))})"
        raise cli.UserError(f"PRECISION={precision}: {without(what)}; use PRECISION=fp32")


def quota() -> float:
    """How many processors' worth of time the cgroups (v1 or v2) of this process grant it; inf without a limit."""
    least = math.inf
    groups = Path("/proc/self/cgroup").read_text().splitlines() if CGROUPS.is_dir() else []
    for kinds, group in (line.split(":", 2)[1:] for line in groups):
        if kinds and "cpu" not in kinds.split(","):
            continue
        path = Path(group.strip("/"))
        for folder in (CGROUPS / kinds / part for part in (path, *path.parents)):
            with contextlib.suppress(OSError, ValueError):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if kinds else ("cpu.max",)
                time, period = " ".join((folder / name).read_text() for name in names).split()
                if time not in ("max", "-1"):
                    least = min(least, int(time) / int(period))
    return least


def cores() -> int:
    """The number of threads that an engine starts: the physical cores that this process may use, at most its quota. Two
    hyper-threads count as one, since they share the multipliers of a core."""
    physical = set()
    for n in os.sched_getaffinity(0):
        siblings = CPUS / f"cpu{n}/topology/thread_siblings_list"
        physical.add(siblings.read_text().strip() if siblings.is_file() else str(n))
    return max(1, min(len(physical), math.ceil(min(quota(), len(physical)))))


def caches() -> list[str]:
    """The caches of the first processor, such as `L2 2048K`; empty if the kernel does not list them."""
    names = []
    for folder in sorted((CPUS / "cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            names.append(f"L{level}{kind[0].lower() if kind in ('Data', 'Instruction') else ''} {size}")
    return names


def joules() -> float | str:
    """Joules that the CPU's packages have used so far, by their counters; or a sentence that says why they cannot be read."""
    packages = sorted(RAPL.glob("intel-rapl:[0-9]*")) if RAPL.is_dir() else []
    packages = [path for path in packages if path.name.count(":") == 1]
    if not packages:
        return f"no counter in {RAPL}"
    try:
        return sum(int((path / "energy_uj").read_text()) for path in packages) / 1e6
    except (OSError, ValueError) as e:
        return f"{getattr(e, 'filename', RAPL)}: {getattr(e, 'strerror', e)}"


def safe_name(name: str) -> str:
    """A CPU's name without characters that tables, pages and terminals interpret: a hypervisor may have chosen it."""
    return re.sub(r"[|<>`\\]|[^ -~]", "_", name).lstrip("=+-@ ")[:200] or "unknown"


def machine() -> dict:
    """This processor and system, as a record holds them."""
    cpu, flags, energy = info(), cpu_flags(limited=False), joules()
    # Two generations may have one name, as "AMD EPYC" in a virtual machine.
    words = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    kind = ", ".join(f"{w.removeprefix('cpu ').removeprefix('CPU ')} {cpu[w]}" for w in words if w in cpu)
    name = cpu.get("model name", platform.processor() or platform.machine())
    return {
        "cpu": safe_name(f"{name} ({kind})" if kind else name),
        "isa": [flag for flag in ISA if flag in flags],
        "cores": cores(),
        "caches": caches(),
        "energy": energy if isinstance(energy, str) else RAPL_NAME,
        "system": platform.platform(),
        "python": platform.python_version(),
        "host": platform.node(),
    }


def ticks() -> tuple[int, int]:
    """Processor time of this machine so far, in ticks: (what the host gave to other machines, all of it); zeros if unknown."""
    try:
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]  # proc(5)
        return fields[7], sum(fields)
    except (OSError, ValueError, IndexError):
        return 0, 0
