# Graphs compiled for their chip.
compiled_one := $(compiled.$(word 2,$(subst -, ,$(notdir $(ONE)))))

# fp32 outputs of rows of one length are compared on all sentences as they are made (mk/run.mk), so here on few.
gated_by_outputs = $(if $(one_length),$(filter cpu-%-fp32,$(call part,5)))
calibration = $(if $(filter int8%,$(precision)),$(training))
calibrated  = $(addprefix --calibration ,$(calibration)) $(if $(calibration),--checkpoint $(checkpoint))
gated_on    = --input $(input) $(if $(gated_by_outputs),$(few_rows),$(gate_rows)) $(seeded)
do.compile  = -m tools.cpu.compile --onnx build/$(batch)/cpu.onnx --reference $(exported) --engine $(engine) \
    --precision $(precision) $(gated_on) $(calibrated) $(of_task) --save_path {}
# A change in a module that only another engine uses does not make this engine's files again.
native_alone  = tools/cpu/native/% $(filter-out $(needs.tools.cpu.engines) $(needs.tools.graph.gate),\
                $(needs.tools.cpu.native.convert))
other_engines = $(if $(filter native,$(engine)),,$(native_alone))
library       = $(if $(filter native,$(engine)),build/lib/native.so)
compile_needs = build/$(batch)/cpu.onnx $(exported) $(input)/MANIFEST $(calibration) $(library) \
                $(if $(calibration),$(checkpoint)/MANIFEST) \
                $(filter-out $(other_engines),$(call by,compile))
cpu_files    := $(foreach e,onnxruntime openvino native,$(patsubst %,build/%/$(compiled.$e),\
                $(filter-out $(rehearsed),$(call of_engine,$e))))
$(cpu_files): build/%: $$(compile_needs)
	$(call run_there,compile)
native_c := $(patsubst %,tools/cpu/native/%.c,engine amx amx_f32 avx512 avx512_f32 avx2 avx2_vnni neon neon_f32)
native_h := $(patsubst %,tools/cpu/native/%.h,net vectors pieces rows tiles attention layers)
do.engine = -m tools.cpu.native.build $(native_c) --save_path {}
build/lib/native.so: $(native_c) $(native_h) $$(call by,engine) | $(VENV)/installed
	$(call run,engine)
# CERTIFY=: the thresholds by which sentences leave the native engine early, fitted on texts without labels.
certify_on = $(if $(call user_texts,train)$(task),$(training),build/data/snippets.tsv)
do.certify = -m tools.cpu.certify --model build/$(leaf)/model.native $(addprefix --texts ,$(certify_on)) \
    --checkpoint $(checkpoint) $(of_task) --percent $(CERTIFY) --save_path {}
$(foreach l,$(leaves),$(if $(findstring .c,$(notdir $l)),build/$l/certificate.json)): build/%/certificate.json: \
    build/%/model.native $$(certify_on) $$(checkpoint)/MANIFEST build/lib/native.so $$(call by,certify)
	$(call run_there,certify)
# The checkpoint itself through PyTorch: ENGINE=torch_npu, torch_cuda, torch_cpu.
do.torch = -m tools.cpu.eager compile --engine $(engine) --chip $(chip) --precision $(precision) \
    --checkpoint $(checkpoint) --reference $(exported) $(gated_on) --save_path {}
of_torch := $(foreach e,npu cuda cpu,$(call of_engine,torch_$e))
$(of_torch:%=build/%/model.torch): build/%/model.torch: $$(checkpoint)/MANIFEST $$(exported) $$(input)/MANIFEST \
    $$(call by,torch)
	$(call run_there,torch)

# The fp16 rehearsal: the graph that atc gets, run with the rounding of fp16; its ranges are made before its model.
do.ranges  = -m tools.ascend.fp16 ranges build/$(batch)/ascend.onnx --input $(input) $(gate_rows) --save_path {}
$(rehearsed:%=build/%/ranges.json): build/%/ranges.json: build/$$(batch)/ascend.onnx $$(input)/MANIFEST \
    $$(call by,ranges)
	$(call run,ranges)
do.rehearse = -m tools.ascend.fp16 convert build/$(batch)/ascend.onnx --save_path {}
$(rehearsed:%=build/%/model.onnx): build/%/model.onnx: build/$$(batch)/ascend.onnx build/%/ranges.json \
    $$(call by,rehearse)
	$(call run,rehearse)

# Buckets become atc's gears: for each length, one number per input.
gear_of = $(call joined_by,$(comma),$(inputs:%=$1))
gears   = $(if $(bucketed),--dynamic_dims=$(call joined_by,;,$(foreach n,$(lengths),$(call gear_of,$n))))
do.atc  = -m tools.ascend.atc --atc $(ATC) $(addprefix --image ,$(CANN_IMAGE)) --implmode Gelu=high_performance \
    --framework=5 --model=build/$(batch)/ascend.onnx --output={stem} --input_format=ND --log=error \
    --soc_version=Ascend$(chip) --precision_mode=$(atc.$(precision)) \
    --input_shape=$(call joined_by,;,$(shapes_of_inputs)) $(gears)
$(patsubst %,build/%/model.om,$(call of_engine,atc)): build/%/model.om: build/$$(batch)/ascend.onnx $$(call by,atc)
	$(call run_there,atc)

# TensorRT 11 has no --fp16: it uses the types in the graph.
do.half = -m tools.gpu.half build/$(batch)/gpu.onnx {} --input $(input) $(gate_rows) $(seeded)
$(batches:%=build/%/gpu-fp16.onnx): build/%/gpu-fp16.onnx: build/%/gpu.onnx $$(input)/MANIFEST $$(call by,half)
	$(call run,half)
half_typed = $(if $(filter fp16,$(precision)),build/$(batch)/gpu-fp16.onnx)
do.plan = -m tools.gpu.trtexec --onnx build/$(batch)/gpu.onnx $(addprefix --onnx_fp16 ,$(half_typed)) --batch_size $(bs) \
    --precision $(precision) --engine {} --summary {}.json
$(patsubst %,build/%/model.plan,$(call of_engine,trtexec)): build/%/model.plan: build/$$(batch)/gpu.onnx $$(half_typed) \
    $$(call by,plan)
	$(call alone_there,plan)
