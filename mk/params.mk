# The parameters, checked before any shell or path sees them. A wrong one stops with the list of right ones.
lists := MODELS CHIPS BATCHES PRECISIONS LAUNCH SLURM_ARGS COLUMNS KEEP
single := $(filter-out $(lists),$(PARAMETERS))
$(foreach v,$(single),$(if $(word 2,$($v)),$(error $v='$($v)' holds blanks; it is one value)))

# A mistyped target is a mistake, and so is a parameter that the targets asked for do not use.
TARGETS := $(RUNNING) $(TABLES) $(RECORDING) $(HANDING_ON) $(DEVELOPING)
files := $(foreach g,$(MAKECMDGOALS),$(if $(findstring /,$g),$g))
$(foreach g,$(filter-out $(TARGETS) $(files),$(MAKECMDGOALS)),\
    $(error there is no target '$g'$(call nearest,$g,$(TARGETS)); make help lists them))
# Parameters of some targets alone.
only := MODELS:accuracy-table,perf-table,record,kit CHIPS:accuracy-table,perf-table,record,fusion-report \
        BATCHES:accuracy-table,perf-table,record,fusion-report,kit PRECISIONS:accuracy-table,perf-table,record,kit \
        $(addsuffix :score,INPUT OUT RERUN COLUMNS KEEP CLUSTER) A:compare B:compare FROM:record \
        CLAIM:claims RUNS:torture,fuzz ROUNDS:perf,perf-table,bench LAUNCH:om,accuracy,perf,accuracy-table,perf-table
users_of = $(subst $(comma), ,$(patsubst $1:%,%,$(filter $1:%,$(only))))
unused   = $(if $(call users_of,$1),$(if $(files)$(filter $(call users_of,$1),$(MAKECMDGOALS)),,$1))
means_nothing = $(error $1= means nothing to make $(MAKECMDGOALS); it is for $(call users_of,$1))
$(foreach v,$(given),$(if $(call unused,$v),$(call means_nothing,$v)))
$(if $(SLURM_ARGS),$(if $(filter slurm,$(LAUNCH)),,$(error SLURM_ARGS= is for LAUNCH=slurm)))

# pick NAME,LIST and all NAME,LIST: the value of NAME, which is one of LIST, or made only of words of LIST.
stop = $(error $1='$($1)' is not $(if $3,$3,one of: $(sort $2)))
all  = $(if $(strip $($1)),$(if $(filter-out $2,$($1)),$(call stop,$1,$2,$3),$($1)),$(call stop,$1,$2,$3))
pick = $(if $(word 2,$($1)),$(call stop,$1,$2,$3),$(call all,$1,$2,$3))
numbers := $(foreach a,$(digit),$(foreach b,$(digit),$(foreach c,$(digit),$a$b$c)))
numbers := $(wordlist 2,1000,$(patsubst 0%,%,$(numbers:0%=%)))
number  := a whole number from 1 to 999
digits  := $(wordlist 1,9,$(numbers))
ALL_MODELS := $(patsubst models/%/model.mk,%,$(wildcard models/*/model.mk))
ALL_CHIPS  := $(CHIPS_cpu) $(CHIPS_gpu) $(CHIPS_ascend)
soc = $(patsubst 910B4-1,910B4_1,$(patsubst 710,310P3,$(patsubst Ascend%,%,$1)))
# These are of an Ascend chip, the first of CHIPS= or 310P3 where none is given.
ascend_only := $(if $(filter-out fusion-report demo-ascend,$(or $(MAKECMDGOALS),help)),,yes)
$(if $(ascend_only),$(if $(filter CHIP,$(given)),,$(eval override CHIP := $(firstword $(CHIPS) 310P3))))
override CHIP   := $(call soc,$(CHIP))
not_ascend := $(if $(filter demo-ascend,$(MAKECMDGOALS)),$(filter-out $(CHIPS_ascend),$(CHIP)))
$(if $(filter kit,$(MAKECMDGOALS)),$(if $(filter $(CHIPS_cpu),$(CHIP)),\
    $(error make kit is for a card elsewhere: say which, as CHIP=310P3, 910B4 or T4)))
$(if $(not_ascend),$(error make demo-ascend is of an Ascend chip such as CHIP=310P3, not CHIP=$(not_ascend)))
override CHIPS  := $(foreach c,$(or $(CHIPS),$(CHIP)),$(call soc,$c))
override MODELS := $(or $(MODELS),$(MODEL))
checked := $(call pick,MODEL,$(ALL_MODELS)) $(call all,MODELS,$(ALL_MODELS)) $(call pick,BS,$(numbers),$(number)) \
           $(call pick,CHIP,$(ALL_CHIPS)) $(call all,CHIPS,$(ALL_CHIPS)) $(call pick,SAMPLES,$(numbers),$(number)) \
           $(call pick,RUNS,$(numbers),$(number)) $(call pick,ROUNDS,$(digits),a whole number from 1 to 9) \
           $(call all,BATCHES,$(numbers),made of whole numbers from 1 to 999)
device_list := $(subst $(comma), ,$(DEVICE))
devices := $(filter 0 $(wordlist 1,255,$(numbers)),$(device_list))
each_once := $(filter $(words $(device_list)),$(words $(sort $(devices))))
wrong_device = DEVICE='$(DEVICE)' is not made of numbers from 0 to 255, each once, with commas between, as 0 or 0,1
rejoined := $(call joined_by,$(comma),$(devices))
$(if $(and $(devices),$(each_once),$(filter x$(DEVICE)x,x$(rejoined)x)),,$(error $(wrong_device)))
checked := $(if $(ENGINE),$(call pick,ENGINE,$(call engines_of,$(CHIP)))) $(if $(ISA),$(call pick,ISA,$(ISAS)))
precisions_here := $(if $(ENGINE),$($(ENGINE).PRECISIONS),$(call precisions_of,$(CHIP)))
checked := $(if $(PRECISION),$(call pick,PRECISION,$(precisions_here)))
checked := $(if $(PRECISIONS),$(call all,PRECISIONS,$(foreach c,$(CHIPS),$(call precisions_of,$c))))
first_engine := $(or $(ENGINE),$(firstword $(call engines_of,$(CHIP))))
override PRECISION := $(or $(PRECISION),$(firstword $($(first_engine).PRECISIONS)))
# The units that ISA= leaves, for OpenVINO, PyTorch and our own engine (tools/make/cpu.py).
$(if $(ISA),$(eval export ONEDNN_MAX_CPU_ISA := $(ISA)))
