# A directory is a parameter, a file is a fact (tools/make/parameters.py):
#   build/<model>/<weights>/seq<SEQ>/bs<BS>/<chip>-<engine>-<precision>/<artefact>
# In a rule, these read the parameters back from the stem $*.
part      = $(word $1,$(subst /, ,$*))
model     = $(call part,1)
weights   = $(model)/$(call part,2)
shape     = $(weights)/$(call part,3)
batch     = $(shape)/$(call part,4)
leaf      = $(batch)/$(call part,5)
seq       = $(patsubst seq%,%,$(call part,3))
packed    = $(filter %p,$(seq))
real      = $(filter real,$(seq))
bucketed  = $(findstring -,$(seq))
one_length = $(if $(bucketed)$(packed)$(real),,$(seq))
length    = $(patsubst %p,%,$(seq))
lengths   = $(subst -, ,$(length))
longest   = $(lastword $(subst $(comma), ,$($(model).SEQ)))
bs        = $(patsubst bs%,%,$(call part,4))
config    = $(subst -, ,$(firstword $(subst ., ,$(call part,5))))
chip      = $(word 1,$(config))
engine    = $(word 2,$(config))
precision = $(patsubst $(chip)-$(engine)-%,%,$(firstword $(subst ., ,$(call part,5))))
family    = $(family.$(chip))
inputs    = $(if $(packed),$(filter-out %mask,$($(model).INPUTS)) sentence position first,$($(model).INPUTS))
# Input files: one file per row, shared by all batch sizes; with buckets, one file per batch.
input     = build/$(shape)$(if $(bucketed),$(addprefix /,$(call part,4)))/input
checkpoint = build/$(weights)/checkpoint
certified = $(findstring .c,$(call part,5))
model_file = build/$(leaf)/$(if $(certified),certificate.json,$(compiled.$(engine)))

# ---- The configurations that rules are written for: the one asked for, the rows of the tables, what bench measures.
BENCHED := $(if $(BENCHES),cpu-native-bf16 cpu-native-int8 cpu-native-int8-bf16 cpu-native-fp32 cpu-openvino-bf16 \
           cpu-openvino-int8 cpu-onnxruntime-fp32)
REAL    := $(MODEL)/$(weights_name)/seqreal/bs32
leaves  := $(sort $(ONE) $(ROWS) $(KIT_ROWS) $(SCORING) $(BENCHED:%=$(dir $(ONE))%) $(BENCHED:%=$(REAL)/%))
up      = $(sort $(patsubst %/,%,$(foreach p,$1,$(dir $p))))
batches := $(call up,$(leaves))
shapes  := $(call up,$(batches))
sources := $(call up,$(shapes))
rehearsed := $(foreach l,$(leaves),$(if $(findstring -$(REHEARSALS),$(notdir $l)),$l))
of_engine = $(foreach l,$(leaves),$(if $(findstring -$1-,$(notdir $l)),$l))
