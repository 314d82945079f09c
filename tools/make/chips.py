"""The one table of chips, engines, precisions and CPU units: which engine runs what, and which one is the fastest.

    chips.engine_for("cpu", "bf16", flags={"avx2", "avx512_bf16", ...})

    native

The first engine of a family and the first precision of an engine are the defaults.
"""

from typing import NamedTuple

# Ascend: the names in CANN's platform_config (hicann/runtime, August 2026), and 310, which only older versions of CANN know;
# tools/ascend/atc.py asks the one that is installed. 910B4-1 is spelled 910B4_1, since hyphens separate the parts of a path.
ASCEND = """310P3 310P1 310P5 310P7 310B1 310B2 310B3 310B4 310 910A 910B 910ProA 910ProB 910PremiumA 910B1 910B2 910B2C
    910B3 910B4 910B4_1 910_9362 910_9372 910_9381 910_9382 910_9391 910_9392""".split()  # noqa: SIM905
FAMILY = {"cpu": "cpu", "T4": "gpu", **dict.fromkeys(ASCEND, "ascend")}

# ---- The units of a CPU, by Linux's names of their flags.
# The values of ONEDNN_MAX_CPU_ISA and ISA=, in rising order, and the units that each adds (oneDNN,
# src/cpu/x64/cpu_isa_traits.hpp). OpenVINO (except in fp32), PyTorch and the native engine obey them.
STEPS = {
    "SSE41": (), "AVX": (), "AVX2": ("avx2",), "AVX2_VNNI": ("avx_vnni",), "AVX2_VNNI_2": (), "AVX512_CORE": ("avx512f",),
    "AVX512_CORE_VNNI": ("avx512_vnni",), "AVX512_CORE_BF16": ("avx512_bf16",), "AVX512_CORE_FP16": ("avx512_fp16",),
    "AVX512_CORE_AMX": ("amx_tile", "amx_bf16", "amx_int8"),
}  # fmt: skip
# The units that a record lists of its CPU. A precision is labelled with the last of these that it needs.
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16",
           "i8mm", "sve")  # fmt: skip
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # each of them multiplies bf16
VNNI = {"avx_vnni", "avx512_vnni", "asimddp", "i8mm"}  # each of them multiplies int8 and sums in 32 bits
# The native engine's families of kernels, and the units that each needs for a precision. The first family whose units are all
# there computes. int8 gives the same bits everywhere (docs/bits.md); int8-bf16 keeps bf16 activations between its products.
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
FAMILIES = {
    "amx": {
        "bf16": AVX512 | {"avx512_bf16", "amx_bf16"},
        "int8-bf16": AVX512 | {"avx512_bf16", "amx_bf16", "amx_int8"},
    },
    "amx_int8": {"int8": AVX512 | {"avx512_vnni", "amx_int8"}},
    "avx512_bf16": {"bf16": AVX512 | {"avx512_bf16"}, "int8-bf16": AVX512 | {"avx512_bf16", "avx512_vnni"}},
    "avx512": {"int8": AVX512 | {"avx512_vnni"}, "fp32": AVX512},
    "avx2_vnni": {"int8": {"avx2", "fma", "avx_vnni"}},
    "avx2": {"int8": {"avx2", "fma"}, "fp32": {"avx2", "fma"}},
    "neon_bf16": {"bf16": {"bf16"}, "int8-bf16": {"bf16", "i8mm"}},
    "neon": {"int8": {"asimd"}, "fp32": {"asimd"}},
}


class Engine(NamedTuple):
    """The family of chips, the file that the engine runs, and {precision: sets of units, of which a CPU needs one set}."""

    family: str
    file: str
    precisions: dict


ANY = [set()]  # every CPU has what is needed
one_of = lambda units: [{unit} for unit in sorted(units)]
of_native = lambda precision: [needs[precision] for needs in FAMILIES.values() if precision in needs]
# atc has no fp32: with force_fp32 it still multiplies matrices in fp16 (cube_fp16in_fp32out).
ENGINES = {
    "atc": Engine("ascend", "model.om", {"fp16": ANY, "mix": ANY}),
    "trtexec": Engine("gpu", "model.plan", {"fp16": ANY, "fp32": ANY}),
    "torch_npu": Engine("ascend", "model.torch", {"fp16": ANY}),
    "torch_cuda": Engine("gpu", "model.torch", {"fp16": ANY, "fp32": ANY}),
    "onnxruntime": Engine("cpu", "model.onnx", {"fp32": ANY, "fp16-sim": ANY}),
    "openvino": Engine("cpu", "model.ir", {"bf16": one_of(BF16), "int8": one_of(VNNI), "fp32": ANY}),
    "native": Engine("cpu", "model.native", {p: of_native(p) for p in ("bf16", "int8", "int8-bf16", "fp32")}),
    "torch_cpu": Engine("cpu", "model.torch", {"fp32": ANY, "bf16": one_of(BF16)}),
}
ATC_MODES = {"fp16": "force_fp16", "mix": "allow_mix_precision"}  # atc's --precision_mode
REHEARSALS = ("fp16-sim",)  # computes what another chip would; tables have it only if it is named
BY_SPEED = ("int8-bf16", "int8", "bf16", "fp32")  # the CPU's precisions, the fastest first


def engines_of(chip: str) -> list[str]:
    """The engines of a chip, its default first."""
    return [name for name, engine in ENGINES.items() if engine.family == FAMILY[chip]]


def precisions_of(chip: str) -> list[str]:
    """All precisions of a chip's engines, its default first."""
    return list(dict.fromkeys(p for name in engines_of(chip) for p in ENGINES[name].precisions))


def leaves(flags: set[str], most: str) -> set[str]:
    """The units of a CPU that a value of ISA= allows; all of them if it is none of STEPS."""
    steps = list(STEPS)
    late = steps[steps.index(most) + 1 :] if most in steps else []
    return flags - {unit for step in late for unit in STEPS[step]}


def main_unit(needs: set[str]) -> str:
    """The unit that labels a set of units."""
    return max(needs & set(TELLING), key=TELLING.index)


def units(engine: str, precision: str, flags: set[str]) -> list[str] | None:
    """The units with which a CPU of these flags runs a precision; [] if any CPU can, None if this one cannot."""
    ways = [way for way in ENGINES[engine].precisions[precision] if way <= flags]
    return list(dict.fromkeys(main_unit(way) for way in ways if way)) if ways else None


def units_needed(engine: str, precision: str) -> list[str]:
    """The units of which a CPU needs one for a precision; [] if any CPU can run it."""
    return sorted({main_unit(way) for way in ENGINES[engine].precisions[precision] if way})


def fastest(precision: str, flags: set[str]) -> bool:
    """Whether the native engine is the fastest within the gates, for a precision on a CPU of these flags (measured with MiniLM on
    real sentences; in int8 with AVX-VNNI it was 1.3 x OpenVINO, which has no int8 on AVX2 without VNNI). It is not chosen on
    Arm, where its speed is not known, nor in fp32, where onnxruntime computes the reference."""
    return precision in BY_SPEED[:-1] and "asimd" not in flags and units("native", precision, flags) is not None


def engine_for(chip: str, precision: str, flags: set[str], packed: bool = False) -> str:
    """The engine of a precision if none was named: the native one if it is the fastest, else the chip's first that has the
    precision. Packed rows, of several sentences each, never run on the native one."""
    if chip == "cpu" and not packed and fastest(precision, flags):
        return "native"
    return next(name for name in engines_of(chip) if precision in ENGINES[name].precisions)


def for_score(task: str, flags: set[str]) -> tuple[str, str]:
    """The (engine, precision) that scores fastest on a CPU of these flags. int8 is left out for other tasks than SST-2: it
    needs TRAIN=."""
    choices = [p for p in BY_SPEED if task == "sst2" or not p.startswith("int8")]
    pairs = ((engine_for("cpu", p, flags), p) for p in choices)
    runs = lambda engine, p: fastest(p, flags) if engine == "native" else units(engine, p, flags) is not None
    return next(pair for pair in pairs if runs(*pair))
