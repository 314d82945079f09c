# Input files and graphs: exported, simplified, modified. Each graph is compared with the one before it.
do.export = models/$(model)/pth2onnx.py --model_dir $(checkpoint) --text_file $(sentences) $(task_option) --seq_len $(longest) \
    --save_path {} --save_logits {reference.npy}
$(sources:%=build/%/model.onnx): build/%/model.onnx: build/%/checkpoint/MANIFEST $$(sentences) \
    models/$$(model)/model.toml $$(call by,export) \
    $$(if $$(word 2,$$(wildcard build/$$*/reference.npy build/$$*/reference.npy.prov.json)),,FORCE)
	$(call run,export)
# The logits of the exported graph on all sentences, which its own gate has computed.
$(sources:%=build/%/reference.npy): build/%/reference.npy: build/%/model.onnx ;

# Borrowed sentences (mk/source.mk) have no labels of the task.
unlabelled = $(if $(call user_texts,dev),,$(if $(task),--unlabelled))
row_layout = $(if $(packed),--pack) $(if $(bs),--batch_size $(bs)) $(if $(real),--max_len $(longest))
do.inputs  = models/$(model)/preprocess.py --text_file $(sentences) --tokenizer_path $(checkpoint) \
    --seq_len $(subst -,$(comma),$(length)) $(row_layout) $(task_option) $(unlabelled) --save_path {}
$(foreach f,$(shapes) $(batches),build/$f/input/MANIFEST): build/%/input/MANIFEST: \
    build/$$(weights)/checkpoint/MANIFEST $$(sentences) models/$$(model)/model.toml $$(call by,inputs)
	$(call run,inputs)

# Which rows a comparison takes. The last graph that this machine can run is compared on all sentences (a large model
# has gate_rows in its model.toml), the steps before it on the longest few: those only say which step was to blame.
few_rows  = --rows 16
gate_rows = $(addprefix --rows ,$($(model).GATE_ROWS))

# The same for sentences cut elsewhere than the export's, once for all batch sizes.
do.reference = -m tools.graph.gate build/$(weights)/model.onnx --input $(input) $(gate_rows) --save_path {}
$(shapes:%=build/%/reference.npy): build/%/reference.npy: build/$$(weights)/model.onnx build/%/input/MANIFEST \
    $$(call by,reference)
	$(call run,reference)

# The graph that the later steps are compared with: the export, or with PACK=1, several sentences in a row.
exported = build/$(if $(packed),$(shape)/pack,$(weights)/model).onnx
do.pack = -m tools.graph.pack build/$(weights)/model.onnx {} --seq_len $(length) --input $(input) $(gate_rows)
$(patsubst %,build/%/pack.onnx,$(filter %p,$(shapes))): build/%/pack.onnx: build/$$(weights)/model.onnx \
    build/%/input/MANIFEST $$(call by,pack)
	$(call run,pack)

# shape_of INPUT: its static shape as onnxsim and atc write it, name:batch,length; -1 leaves a dimension open.
shape_of   = $1:$(batch_dim),$(if $(filter first,$1),$(first.$(length)),$(length_dim))
batch_dim  = $(if $(real),-1,$(bs))
length_dim = $(if $(real)$(bucketed),-1,$(length))
shapes_of_inputs = $(foreach i,$(inputs),$(call shape_of,$i))
do.simplify = -m tools.graph.simplify $(exported) {} --overwrite-input-shape $(shapes_of_inputs) --input $(input) \
    $(few_rows)
$(batches:%=build/%/sim.onnx): build/%/sim.onnx: $$(exported) $$(input)/MANIFEST $$(call by,simplify)
	$(call run,simplify)

target    = $(notdir $*)
do.modify = models/$(model)/modify_onnx.py build/$(batch)/sim.onnx {} --target $(target) --input $(input) \
    $(if $(filter cpu,$(target)),$(few_rows),$(gate_rows))
$(foreach t,ascend cpu gpu,$(batches:%=build/%/$t.onnx)): build/%.onnx: build/$$(batch)/sim.onnx $$(input)/MANIFEST \
    $$(call by,modify)
	$(call run,modify)
family_onnx := build/$(dir $(ONE))$(family.$(CHIP)).onnx
