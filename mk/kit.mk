# A kit for a host with a card and no network, and the records of its result: docs/ascend.md.
kit_graph     = build/$(batch)/$(family).onnx
kit_reference = $(if $(filter $(longest),$(lastword $(lengths))),build/$(weights)/reference.npy,\
                $(if $(packed),,build/$(shape)/reference.npy))
elsewhere = $(subst {},@out,$(subst {stem},@out,$1))
words_of  = $(if $(filter atc,$(engine)),@atc $(do.atc) @infer $(do.infer) @time $(do.time))
do.cell = -m tools.results.kit cell --leaf $* --graph $(kit_graph) --input $(input) \
    $(addprefix --reference ,$(kit_reference)) --save_path {} $(call elsewhere,$(words_of))
$(KIT_ROWS:%=build/%/cell.json): build/%/cell.json: $$(kit_graph) $$(input)/MANIFEST $$(kit_reference) $$(call by,cell)
	$(call run,cell)
do.kit = -m tools.results.kit pack $(KIT_ROWS:%=build/%/cell.json) --save_path {}
# An .om that is here, and was made from this graph, goes into the kit (kit.add_cell). None is made for it.
oms_here = $(wildcard $(KIT_ROWS:%=build/%/model.om.prov.json))
build/kit-$(CHIP).tar: $(KIT_ROWS:%=build/%/cell.json) $(oms_here) $$(call by,kit)
	$(call run,kit)
judge = $(ours) -m tools.results.kit judge $(FROM) --save_path results/records
