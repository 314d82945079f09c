# make score: any sentences, at SEQ=real, by the fastest engine of this CPU. One TSV becomes one file (tools/cpu/score.py),
# all else becomes parts (tools/scale/score.py); which it is, and by which engine, tools/make/makefile.py says.
scored_task := $(filter-out sst2,$($(MODEL).TASK))
scoring   = $(SCORING:%=build/%/$(compiled_one)) build/$(MODEL)/$(weights_name)/checkpoint/MANIFEST \
            $(if $(RERUN),$(dir $(SCORING:%=build/%))cpu.onnx) $(if $(findstring -native-,$(SCORING)),build/lib/native.so)
rerun     = $(if $(RERUN),--rerun build/$(dir $(SCORING))cpu.onnx --margin $(RERUN))
score_options = --model $< --tokenizer_path build/$(MODEL)/$(weights_name)/checkpoint --batchsize $(BS) $(rerun) \
    $(addprefix --task ,$(scored_task)) \
    --max_len $(lastword $(subst $(comma), ,$($(MODEL).SEQ))) \
    --input '$(call need,INPUT,a file of sentences, a folder or a glob)'
score_file  = $(or $(OUT),$(scored).csv)
score_one   = $(py) -m tools.make.run --step score $(score_file) $(INPUT) $^ -- \
    $(py) -m tools.cpu.score $(score_options) --save_path {}
score_parts = $(scale_py) -m tools.scale.score $(score_options) $(if $(COLUMNS),--columns $(COLUMNS)) \
    $(if $(KEEP),--keep $(KEEP)) \
    $(addprefix --cluster=,$(CLUSTER)) --save_path '$(or $(OUT),$(scored).parts)'
score       = $(if $(to_parts),$(score_parts),$(score_one))
# A cluster and s3:// need packages that the rest does not.
scale_env = $(if $(CLUSTER)$(far),.venv-scale)
scale_py  = $(or $(scale_env),$(VENV))/bin/python
