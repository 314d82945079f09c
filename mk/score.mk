# make score: any sentences, at SEQ=real, by the fastest engine of this CPU, which tools/make/makefile.py names.
scored_task := $(filter-out sst2,$($(MODEL).TASK))
scoring   = $(if $(CHECK),,$(scored_by))
scored_by = $(SCORING:%=build/%/$(if $(CERTIFY),certificate.json,$(compiled_one))) build/$(MODEL)/$(weights_name)/checkpoint/MANIFEST \
            $(if $(RERUN),$(dir $(SCORING:%=build/%))cpu.onnx) $(if $(findstring -native-,$(SCORING)),build/lib/native.so)
rerun     = $(if $(RERUN),--rerun build/$(dir $(SCORING))cpu.onnx --margin $(RERUN))
score_in  = --model $< --tokenizer_path build/$(MODEL)/$(weights_name)/checkpoint --batch_size $(BS) $(rerun) \
    $(addprefix --task ,$(scored_task)) $(patsubst %,--threshold %,$(filter-out 0.5,$(THRESHOLD))) \
    --input=$(call quoted,$(INPUT)) \
    $(if $(COLUMNS),--columns=$(call quoted,$(COLUMNS))) $(if $(KEEP),--keep=$(call quoted,$(KEEP))) \
    $(addprefix --on_bad ,$(ON_BAD)) $(addprefix --rows ,$(PART_ROWS)) $(if $(LOGITS),--logits) \
    $(addprefix --cluster ,$(CLUSTER))
score_out = --save_path=$(call quoted,$(or $(OUT),$(scored)))
score     = $(guard) $(scale_py) -m tools.scale.score $(if $(CHECK),--check,$(score_in)) $(score_out)
# With OUT=- standard output holds nothing but answers.
$(if $(filter -,$(OUT)),$(eval export BERT2OM_SCREEN := stderr))
# Only a cluster and remote addresses need the packages of .venv-scale.
scale_env = $(if $(CLUSTER)$(far),.venv-scale)
scale_py  = $(or $(scale_env),$(VENV))/bin/python
