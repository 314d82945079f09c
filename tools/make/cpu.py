"""The CPU at hand: its units, what ISA= leaves of them, its name and its cores."""

import os
import platform
import re
from pathlib import Path

from tools.make import cli

# What ONEDNN_MAX_CPU_ISA may say, rising, and the units that each step brings (oneDNN, src/cpu/x64/cpu_isa_traits.hpp).
MAX_ISA = "ONEDNN_MAX_CPU_ISA"
STEPS = {
    "SSE41": (), "AVX": (), "AVX2": ("avx2",), "AVX2_VNNI": ("avx_vnni",), "AVX2_VNNI_2": (), "AVX512_CORE": ("avx512f",),
    "AVX512_CORE_VNNI": ("avx512_vnni",), "AVX512_CORE_BF16": ("avx512_bf16",), "AVX512_CORE_FP16": ("avx512_fp16",),
    "AVX512_CORE_AMX": ("amx_tile", "amx_bf16", "amx_int8"),
}  # fmt: skip

BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # any of them multiplies bf16
VNNI = {"avx_vnni", "avx512_vnni", "asimddp", "i8mm"}  # any of them multiplies int8 and sums in 32 bits
# What each engine runs here, and the units of which the CPU needs one (none: every CPU will do).
ENGINES = {
    "onnxruntime": {"fp32": set(), "fp16-sim": set()},
    "openvino": {"fp32": set(), "bf16": BF16, "int8": VNNI},
    "native": {
        "bf16": {"amx_bf16", "avx512_bf16", "bf16"},
        "int8": {"amx_int8", "avx512_vnni", "avx_vnni", "i8mm"},
        "fp32": {"avx2", "asimd"},
    },
}
# Where ours is faster than OpenVINO, which is what a precision means where it is not (mk/chips.mk: engine_for).
FASTER = {"bf16": {"amx_bf16", "avx512_bf16"}, "int8": {"amx_int8", "avx512_vnni", "avx_vnni"}}


def cpu_flags(limited=True) -> set[str]:
    """Feature flags of this CPU as Linux names them (x86 `flags`, Arm `Features`).

    limited: without the units that ONEDNN_MAX_CPU_ISA forbids. OpenVINO and PyTorch obey it, and so does our native
    engine. onnxruntime's kernels (MLAS) have no such switch, and OpenVINO's fp32 products are MLAS's too (2026.4).
    """
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":")[1].split())
            break
    most = os.environ.get(MAX_ISA, "").upper() if limited else ""
    if most in STEPS:  # oneDNN takes no notice of other words
        flags -= {unit for step in list(STEPS)[list(STEPS).index(most) + 1 :] for unit in STEPS[step]}
    return flags


def without(what: str) -> str:
    """`this CPU has no WHAT`, or who forbids it."""
    most = os.environ.get(MAX_ISA)
    return f"{MAX_ISA}={most} leaves no {what}" if most else f"this CPU has no {what}"


def check_units(precision: str) -> None:
    """UserError where OpenVINO would give other answers in `precision`, for want of a unit.

    int8 without VNNI saturates its sums at 16 bits: 4 to 6 of the 872 sentences came out otherwise.
    """
    units = ENGINES["openvino"][precision]
    if units and not cpu_flags() & units:
        what = f"{precision} unit ({', '.join(sorted(units))})"
        raise cli.UserError(f"PRECISION={precision}: {without(what)}; use PRECISION=fp32")


def cores() -> int:
    return len(os.sched_getaffinity(0))


ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "i8mm", "sve")


def plain(name: str) -> str:
    """A CPU's name as a record may hold it: it stands in tables, pages and terminals, and a hypervisor may choose it."""
    return re.sub(r"[|<>`\\]|[^ -~]", "_", name).lstrip("=+-@ ")[:200] or "unknown"


def machine() -> dict:
    """The processor and system that run now."""
    info = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line
    )
    info = {key.strip(): value.strip() for key, value in info.items()}
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": plain(info.get("model name", platform.processor() or platform.machine())),
        "isa": [flag for flag in ISA if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "host": platform.node(),
    }


def ticks() -> tuple[int, int]:
    """This machine's processor time so far: (what the host gave to other machines, all); zeros where Linux says nothing.

    Source: proc(5), /proc/stat: user nice system idle iowait irq softirq steal.
    """
    try:
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return fields[7], sum(fields)
    except (OSError, ValueError, IndexError):
        return 0, 0
