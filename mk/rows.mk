# Exported graphs for other rows than the recipes' (PACK=1, CLS=1). The graphs after them are compared with these.
exported = build/$(if $(cls),$(shape)/cls.onnx,$(all_tokens))
all_tokens = $(if $(packed),$(whole)/pack,$(weights)/model).onnx

# PACK=1: several sentences in a row.
do.pack = -m tools.graph.pack build/$(weights)/model.onnx {} --seq_len $(length) --input $(input) $(gate_rows)
$(patsubst %,build/%/pack.onnx,$(filter %p,$(wholes))): build/%/pack.onnx: build/$$(weights)/model.onnx \
    build/%/input/MANIFEST $$(call by,pack)
	$(call run,pack)

# CLS=1: the last layer for [CLS] alone.
cls_input = build/$(whole)/input
do.cls = -m tools.graph.cls build/$(all_tokens) {} --input $(cls_input) $(gate_rows)
$(patsubst %,build/%/cls.onnx,$(filter %c,$(shapes))): build/%/cls.onnx: build/$$(all_tokens) \
    $$(cls_input)/MANIFEST $$(call by,cls)
	$(call run,cls)
