# What each CHIP is. Raw values only: CHIP.family, .soc, .engine (the first is the default), .precision (likewise).
# Ascend names: CANN's platform_config/*.ini (hicann/runtime, August 2026). atc runs them in fp16 unless told not to;
# the bf16 that A2/A3 know, a 310P does not. Plain 310 left CANN 8.5: tools/atc.py says so when it finds such a CANN.

ASCEND := 310P1 310P3 310P5 310P7 310B1 310B2 310B3 310B4 310 910A 910B 910ProA 910ProB 910PremiumA \
          910B1 910B2 910B2C 910B3 910B4 910B4-1 910_9362 910_9372 910_9381 910_9382 910_9391 910_9392
GPU    := T4
CHIPS  := cpu $(ASCEND) $(GPU)

# Old names, as the recipes write them.
CHIP.alias.710 := 310P3

# How atc's --precision_mode spells a PRECISION. No fp32: the 310P's matrix unit has none.
ATC.precision.fp16 := force_fp16
ATC.precision.mix  := allow_mix_precision

cpu.family    := cpu
cpu.engine    := ort openvino
cpu.precision := fp32 bf16 int8

T4.family     := gpu
T4.engine     := trtexec
T4.precision  := fp32 fp16

$(foreach c,$(ASCEND),$(eval $c.family := ascend))
$(foreach c,$(ASCEND),$(eval $c.soc := Ascend$c))
$(foreach c,$(ASCEND),$(eval $c.engine := ais_bench))
$(foreach c,$(ASCEND),$(eval $c.precision := fp16 mix))
