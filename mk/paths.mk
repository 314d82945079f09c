# A directory is a parameter, a file is a fact:
#   build/<model>/<weights>/seq<SEQ>/bs<BS>/<chip>-<engine>-<precision>/<artefact>
# Each artefact sits at the depth of the last parameter that can change its bytes.

# path MODEL,BS,CHIP,PRECISION: where that configuration lives. A list of lengths is written seq64-128, packed rows seq128p.
path = $1/$(subst /,_,$(WEIGHTS))/seq$(subst $(comma),-,$(or $(SEQ),$($1.SEQ)))$(if $(PACK),p)/bs$2/$3-$(call engine_for,$3,$4)-$4

# In a rule, these read the parameters back from the stem $*.
part      = $(word $1,$(subst /, ,$*))
model     = $(call part,1)
weights   = $(model)/$(call part,2)
shape     = $(weights)/$(call part,3)
batch     = $(shape)/$(call part,4)
leaf      = $(batch)/$(call part,5)
seq       = $(patsubst seq%,%,$(call part,3))
packed    = $(filter %p,$(seq))
length    = $(patsubst %p,%,$(seq))
bs        = $(patsubst bs%,%,$(call part,4))
config    = $(subst -, ,$(call part,5))
chip      = $(word 1,$(config))
engine    = $(word 2,$(config))
precision = $(patsubst $(chip)-$(engine)-%,%,$(call part,5))
inputs    = $(if $(packed),$(filter-out %mask,$($(model).INPUTS)) sentence position first,$($(model).INPUTS))
# Inputs are one file a sample, whatever the batch; whole batches where lengths are mixed.
# SEQ=real: every sentence at its own length, so the graph leaves batch and length open.
real      = $(filter real,$(seq))
fed       = $(if $(findstring -,$(seq)),$(batch),$(shape))/input

# keep FILE,TEXT: FORCE only while FILE does not already say TEXT, so that -n and -q stay truthful.
keep = $(if $(and $(findstring x$(file <$1)x,x$2x),$(findstring x$2x,x$(file <$1)x)),,FORCE)
# One wrapper makes every artefact: whole or not at all, hashed, described. alone: nothing runs beside it.
run   = python3 -m tools.run $@ $(filter-out FORCE,$^) --
alone = python3 -m tools.run --alone $@ $(filter-out FORCE,$^) --
# script FILE: how Python is told to run it. Files below tools/ are modules of one package.
script = $(if $(filter tools/%,$1),-m $(subst /,.,$(basename $1)),$1)
