# What each CHIP is: raw values only. The first precision and the first engine are the defaults.
CHIPS_ascend := 310P3 310P1 310P5 310P7 310B1 310B2 310B3 310B4 910A 910B 910B1 910B2 910B3 910B4
CHIPS_gpu    := T4
CHIPS_cpu    := cpu

ascend.ENGINES := atc
gpu.ENGINES    := trtexec
cpu.ENGINES    := onnxruntime openvino

atc.PRECISIONS         := fp16 mix fp32
trtexec.PRECISIONS     := fp16 fp32
onnxruntime.PRECISIONS := fp32
openvino.PRECISIONS    := bf16 int8 fp32
