# A directory is a parameter, a file is a fact:
#   build/<model>/<weights>/seq<SEQ>/bs<BS>/<chip>-<engine>-<precision>/<artefact>
# Each artefact lies as deep as the last parameter that can change its bytes.

# A folder name for any WEIGHTS: each unlike value gives an unlike name, in characters that atc takes.
escaped = $(subst =,_e,$(subst $(comma),_c,$(subst @,_a,$(subst :,_.,$(subst /,_-,$(subst _,__,$1))))))
weights_name := $(call escaped,$(WEIGHTS))
# path MODEL,SEQ,BS,CHIP,PRECISION: where that configuration lives. Buckets are written seq64-128, packed rows
# seq128p; ISA= stands behind the precision, as in cpu-openvino-bf16.AVX2.
path   = $1/$(weights_name)/seq$2/bs$3/$4-$(call engine_for,$4,$5)-$5$(addprefix .,$(ISA))
seq_of = $(subst $(comma),-,$(or $(SEQ),$($1.SEQ)))$(if $(PACK),p)

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
family    = $(call family_of,$(chip))
inputs    = $(if $(packed),$(filter-out %mask,$($(model).INPUTS)) sentence position first,$($(model).INPUTS))
# The input files: a file a row, for all batch sizes; whole batches where rows differ by bucket.
input     = build/$(shape)$(if $(bucketed),$(addprefix /,$(call part,4)))/input
checkpoint = build/$(weights)/checkpoint
model_file = build/$(leaf)/$(call compiled,$(engine))

# ---- The configurations that rules are written for: the one asked for, the rows of the tables, what bench measures.
ONE := $(call path,$(MODEL),$(call seq_of,$(MODEL)),$(BS),$(CHIP),$(PRECISION))
table_precisions = $(or $(filter $(PRECISIONS),$(call precisions_of,$1)),\
                        $(if $(PRECISIONS),,$(filter-out $(REHEARSALS),$(call precisions_of,$1))))
row           = $(call path,$1,$(call seq_of,$1),$2,$3,$4)
rows_of_chip  = $(foreach p,$(call table_precisions,$2),$(foreach b,$(BATCHES),$(call row,$1,$b,$2,$p)))
rows_of_model = $(foreach c,$(CHIPS),$(call rows_of_chip,$1,$c))
ROWS    := $(sort $(foreach m,$(MODELS),$(call rows_of_model,$m)))
SCORING := $(if $(filter $(CHIPS_cpu),$(CHIP)),$(call path,$(MODEL),real,$(BS),cpu,$(PRECISION)))
REAL    := $(MODEL)/$(weights_name)/seqreal/bs32
buckets_of := 64:32-64 128:64-128 256:128-256 512:256-512
kit_variants = $($1.SEQ) $(if $(filter $(CHIPS_ascend),$(CHIP)),$(patsubst $($1.SEQ):%,%,$(filter $($1.SEQ):%,$(buckets_of))) $($1.SEQ)p)
kit_seqs = $(if $(SEQ)$(PACK),$(call seq_of,$1),$(kit_variants))
kit_of  = $(foreach s,$(kit_seqs),$(foreach b,$(BATCHES),$(foreach p,$(or $(PRECISIONS),$(PRECISION)),$(call path,$1,$s,$b,$(CHIP),$p))))
KIT_ROWS := $(if $(filter kit,$(MAKECMDGOALS)),$(foreach m,$(MODELS),$(call kit_of,$m)))
leaves  := $(sort $(ONE) $(ROWS) $(KIT_ROWS) $(SCORING) $(BENCHED:%=$(dir $(ONE))%) $(BENCHED:%=$(REAL)/%))
up      = $(sort $(patsubst %/,%,$(foreach p,$1,$(dir $p))))
batches := $(call up,$(leaves))
shapes  := $(call up,$(batches))
sources := $(call up,$(shapes))
rehearsed := $(foreach l,$(leaves),$(if $(findstring -$(REHEARSALS),$(notdir $l)),$l))
of_engine = $(foreach l,$(leaves),$(if $(findstring -$1-,$(notdir $l)),$l))
