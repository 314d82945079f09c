# make score: any sentences, at SEQ=real, by the fastest engine of this CPU that obeys ISA=.
##@ Run one configuration
#: score: a file, folder or glob here or at an address (s3://...): TSV, CSV, JSON lines, Parquet; - is standard input
INPUT :=
#: score: a folder of Parquet parts (build/score/... if empty), a .csv or .parquet, or - for standard output
OUT :=
#: score: the column of the sentences, and perhaps that of their labels, such as `text stars` (the task's own if empty)
COLUMNS :=
#: score: columns that are handed on to the parts
KEEP :=
#: score: null: a row that is amiss is handed on with its reason (stop: it ends the run, if empty)
ON_BAD :=
#: score: 1: only compare OUT with its manifest
CHECK :=
#: score: rows of a part (65536, or more where there are very many, if empty)
PART_ROWS :=
#: score: 1: the logits too
LOGITS :=
#: score: auto or the address of a Ray cluster (this machine if empty)
CLUSTER :=
#: score: sentences whose logits differ by less than this are run again in fp32, such as 0.5 (none if empty)
RERUN :=

# The engines by speed; int8 of another task needs TRAIN=.
scored_task := $(filter-out sst2,$($(MODEL).TASK))
by_speed := $(if $(scored_task),,native-int8 openvino-int8) native-bf16 openvino-bf16 onnxruntime-fp32
runs_here = $(if $(unit.cpu-$1),$(call has_unit,$(if $(unit.faster-$1),faster,cpu)-$1),yes)
chosen    = $(filter-out score,$(MAKECMDGOALS))$(filter-out $(CHIPS_cpu),$(CHIP))$(ENGINE)$(PRECISION)$(ISA)
fastest  := $(firstword $(foreach e,$(by_speed),$(if $(call runs_here,$e),$e)))
fastest  := $(if $(filter score,$(MAKECMDGOALS)),$(if $(chosen),,$(subst -, ,$(fastest))))
$(if $(fastest),$(eval override ENGINE := $(word 1,$(fastest)))$(eval override PRECISION := $(word 2,$(fastest))))

scoring   = $(if $(CHECK),,$(scored_by))
scored_by = $(SCORING:%=build/%/$(compiled_one)) build/$(MODEL)/$(weights_name)/checkpoint/MANIFEST \
            $(if $(RERUN),$(dir $(SCORING:%=build/%))cpu.onnx) $(if $(filter native,$(ENGINE)),build/lib/native.so)
rerun     = $(if $(RERUN),--rerun build/$(dir $(SCORING))cpu.onnx --margin $(RERUN))
quoted    = '$(subst ','\'',$1)'
far       = $(findstring ://,$(INPUT) $(OUT))
scored    = build/score/$(call escaped,$(subst *,_w,$(subst $(space),_s,$(INPUT)))).parts
score_out = --save_path=$(call quoted,$(or $(OUT),$(scored)))
score_in  = --model $< --tokenizer_path build/$(MODEL)/$(weights_name)/checkpoint --batchsize $(BS) $(rerun) \
    $(addprefix --task ,$(scored_task)) \
    --input=$(call quoted,$(call need,INPUT,a file of sentences, a folder or a glob)) \
    $(if $(COLUMNS),--columns=$(call quoted,$(COLUMNS))) $(if $(KEEP),--keep=$(call quoted,$(KEEP))) \
    $(addprefix --on_bad ,$(ON_BAD)) $(addprefix --rows ,$(PART_ROWS)) $(if $(LOGITS),--logits) $(addprefix --cluster ,$(CLUSTER))
# What is written to standard output is the answers alone.
$(if $(filter -,$(OUT)),$(eval export BERT2OM_SCREEN := stderr))
score     = $(scale_py) -m tools.scale.score $(if $(CHECK),--check,$(score_in)) $(score_out)

# A cluster and s3:// need packages that the rest does not.
scale_env = $(if $(CLUSTER)$(far),.venv-scale)
scale_py  = $(or $(scale_env),$(VENV))/bin/python
.venv-scale/installed: requirements-scale.txt | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-scale requirements-scale.txt --behind $(VENV)
