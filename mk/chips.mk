# What each CHIP is: raw values only. The first precision and the first engine are the defaults.
# Ascend: the names in CANN's platform_config (hicann/runtime, August 2026), and 310, which only an older CANN knows:
# tools/ascend/atc.py asks the CANN it finds. A path has hyphens between its parts: 910B4-1 is spelt 910B4_1 there.
CHIPS_ascend := 310P3 310P1 310P5 310P7 310B1 310B2 310B3 310B4 310 910A 910B 910ProA 910ProB 910PremiumA \
                910B1 910B2 910B2C 910B3 910B4 910B4_1 910_9362 910_9372 910_9381 910_9382 910_9391 910_9392
CHIPS_gpu    := T4
CHIPS_cpu    := cpu

ascend.ENGINES := atc
gpu.ENGINES    := trtexec
cpu.ENGINES    := onnxruntime openvino native

# No fp32: atc's force_fp32 still multiplies matrices in fp16 (cube_fp16in_fp32out).
atc.PRECISIONS         := fp16 mix
trtexec.PRECISIONS     := fp16 fp32
onnxruntime.PRECISIONS := fp32 fp16-sim
openvino.PRECISIONS    := bf16 int8 fp32
native.PRECISIONS      := bf16 int8 fp32

# The file that an engine runs.
compiled = $(or $(compiled.$1),model.onnx)
compiled.atc      := model.om
compiled.trtexec  := model.plan
compiled.native   := model.native
compiled.openvino := model.ir

# Rehearsals: what another chip would compute. No table has them unless asked.
REHEARSALS := fp16-sim

# How atc's --precision_mode spells them.
atc.fp16 := force_fp16
atc.mix  := allow_mix_precision

# What ISA may say, rising: oneDNN's names; OpenVINO (not its fp32) and our engine obey (tools/make/cpu.py: STEPS).
ISAS := SSE41 AVX AVX2 AVX2_VNNI AVX2_VNNI_2 AVX512_CORE AVX512_CORE_VNNI AVX512_CORE_BF16 AVX512_CORE_FP16 \
        AVX512_CORE_AMX
# What bench measures of ours, where this CPU can run it.
BENCHED := cpu-native-bf16 cpu-native-int8 cpu-native-fp32 cpu-openvino-bf16 cpu-openvino-int8 cpu-onnxruntime-fp32
unit.cpu-native-bf16   := amx_bf16 avx512_bf16 bf16
unit.cpu-native-int8   := amx_int8 avx512_vnni avx_vnni i8mm
unit.cpu-native-fp32   := avx2 asimd
unit.cpu-openvino-bf16 := avx512_bf16 amx_bf16 bf16
unit.cpu-openvino-int8 := avx512_vnni avx_vnni asimddp i8mm

family_of = $(strip $(foreach f,ascend gpu cpu,$(if $(filter $1,$(CHIPS_$f)),$f)))
engines_of = $($(family_of).ENGINES)
precisions_of = $(foreach e,$(engines_of),$($e.PRECISIONS))
# The units of this CPU, in Linux's words, and those that ISA= leaves (tools/make/cpu.py: STEPS).
UNITS := AVX2:avx2 AVX2_VNNI:avx_vnni AVX512_CORE:avx512f AVX512_CORE_VNNI:avx512_vnni AVX512_CORE_BF16:avx512_bf16 \
         AVX512_CORE_AMX:amx_bf16 AVX512_CORE_AMX:amx_int8 :bf16 :asimd :asimddp :i8mm
cpu_units := $(sort $(filter $(foreach u,$(UNITS),$(lastword $(subst :, ,$u))),$(file </proc/cpuinfo)))
newer      = $(if $2,$(if $(filter $1,$(firstword $2)),$(wordlist 2,99,$2),$(call newer,$1,$(wordlist 2,99,$2))))
forbidden  = $(if $(ISA),$(foreach i,$(call newer,$(ISA),$(ISAS)),$(patsubst $i:%,%,$(filter $i:%,$(UNITS)))))
has_unit   = $(filter $(unit.$1),$(filter-out $(forbidden),$(cpu_units)))
# Where ours is the fastest of those that keep the gates (MiniLM, real sentences, int8 with AVX-VNNI: 1.3 x OpenVINO).
unit.faster-native-bf16 := amx_bf16 avx512_bf16
unit.faster-native-int8 := amx_int8 avx512_vnni avx_vnni
# engine_for CHIP,PRECISION: ENGINE where given; ours where it is the fastest; else the chip's first that has it.
ours_for   = $(if $(PACK),,$(if $(filter cpu,$1),$(if $(call has_unit,faster-native-$2),native)))
engine_for = $(or $(ENGINE),$(ours_for),$(firstword $(foreach e,$(engines_of),$(if $(filter $2,$($e.PRECISIONS)),$e))))
