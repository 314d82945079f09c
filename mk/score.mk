# make score: any sentences, at SEQ=real, by the fastest engine of this CPU that obeys ISA=.
##@ Run one configuration
#: score: a file, folder or glob here or at an address (s3://...): TSV, CSV, JSON lines, Parquet
INPUT :=
#: score: a .csv or .parquet for one TSV, else a folder of Parquet parts (build/score/... if empty)
OUT :=
#: score: the column of the sentences, and perhaps that of their labels, such as `text stars` (the task's own if empty)
COLUMNS :=
#: score: columns that are handed on to the parts
KEEP :=
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

# One TSV becomes one file (tools/cpu/score.py), all else becomes parts (tools/scale/score.py).
others   := %.csv %.jsonl %.parquet %.gz %.bz2 %.xz
far       = $(findstring ://,$(INPUT) $(OUT))
many      = $(CLUSTER)$(KEEP)$(far)$(findstring *,$(INPUT))$(filter $(others),$(INPUT))$(wildcard $(INPUT)/.)
to_parts  = $(many)$(COLUMNS)$(filter-out %.csv %.parquet,$(OUT))
one_file  = $(filter %.csv %.parquet,$(OUT))
same_file = $(filter $(abspath $(INPUT)),$(abspath $(OUT)))
$(if $(INPUT),$(if $(same_file),$(error OUT='$(OUT)' is INPUT=; name another file)))
$(if $(one_file),$(if $(to_parts),$(error OUT='$(OUT)' is one file, which is written of one TSV alone; name a folder)))

scored    = build/score/$(subst *,_w,$(call escaped,$(INPUT)))
scoring   = $(SCORING:%=build/%/$(compiled_one)) build/$(MODEL)/$(weights_name)/checkpoint/MANIFEST \
            $(if $(RERUN),$(dir $(SCORING:%=build/%))cpu.onnx) $(if $(filter native,$(ENGINE)),build/lib/native.so)
rerun     = $(if $(RERUN),--rerun build/$(dir $(SCORING))cpu.onnx --margin $(RERUN))
score_options = --model $< --tokenizer_path build/$(MODEL)/$(weights_name)/checkpoint --batchsize $(BS) $(rerun) \
    $(addprefix --task ,$(scored_task)) \
    --max_len $(lastword $(subst $(comma), ,$($(MODEL).SEQ))) \
    --input '$(call need,INPUT,a file of sentences, a folder or a glob)'
score_file  = $(or $(OUT),$(scored).csv)
score_one   = $(py) -m tools.cpu.score $(score_options) --save_path '$(score_file)'
score_parts = $(scale_py) -m tools.scale.score $(score_options) $(if $(COLUMNS),--columns $(COLUMNS)) \
    $(if $(KEEP),--keep $(KEEP)) \
    $(addprefix --cluster=,$(CLUSTER)) --save_path '$(or $(OUT),$(scored).parts)'
score       = $(if $(to_parts),$(score_parts),$(score_one))

# A cluster and s3:// need packages that the rest does not.
scale_env = $(if $(CLUSTER)$(far),.venv-scale)
scale_py  = $(or $(scale_env),$(VENV))/bin/python
.venv-scale/installed: requirements-scale.txt | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-scale requirements-scale.txt --behind $(VENV)
