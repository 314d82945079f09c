# The parameters, checked before any shell or path sees them. A wrong one stops with the list of right ones.
empty :=
space := $(empty) $(empty)
comma := ,
digit := 0 1 2 3 4 5 6 7 8 9
alphabet := $(digit) a b c d e f g h i j k l m n o p q r s t u v w x y z \
            A B C D E F G H I J K L M N O P Q R S T U V W X Y Z _ . , / - @ : =
# without TEXT,WORDS: TEXT with each of WORDS cut out. TEXT is not expanded again: a `$(shell ...)` in it stays inert.
without = $(if $2,$(call without,$(subst $(firstword $2),,$1),$(wordlist 2,99,$2)),$1)
plain = $(if $(strip $(call without,$(value $1),$(alphabet))),$(error $1='$(value $1)' may hold letters, digits and _ . , / - @ : = only))
$(foreach v,$(PARAMETERS),$(call plain,$v))
$(foreach v,$(filter-out MODELS CHIPS BATCHES PRECISIONS,$(PARAMETERS)),$(if $(word 2,$($v)),$(error $v='$($v)' holds blanks; it is one value)))

# pick NAME,LIST and all NAME,LIST: the value of NAME, which is one of LIST, or made only of words of LIST.
stop = $(error $1='$($1)' is not $(if $3,$3,one of: $(sort $2)))
all  = $(if $(strip $($1)),$(if $(filter-out $2,$($1)),$(call stop,$1,$2,$3),$($1)),$(call stop,$1,$2,$3))
pick = $(if $(word 2,$($1)),$(call stop,$1,$2,$3),$(call all,$1,$2,$3))
# 1 2 ... 999
numbers := $(foreach a,$(digit),$(foreach b,$(digit),$(foreach c,$(digit),$a$b$c)))
numbers := $(wordlist 2,1000,$(patsubst 0%,%,$(numbers:0%=%)))
lengths := $(wordlist 8,512,$(numbers))

family_of = $(strip $(foreach f,ascend gpu cpu,$(if $(filter $1,$(CHIPS_$f)),$f)))
engines_of = $($(family_of).ENGINES)
precisions_of = $(foreach e,$(engines_of),$($e.PRECISIONS))
# The engine of CHIP,PRECISION: ENGINE where given, else the chip's first that has the precision.
engine_for = $(or $(ENGINE),$(firstword $(foreach e,$(engines_of),$(if $(filter $2,$($e.PRECISIONS)),$e))))

soc = $(patsubst 710,310P3,$1)
override CHIP   := $(call soc,$(CHIP))
override CHIPS  := $(foreach c,$(or $(CHIPS),$(CHIP)),$(call soc,$c))
override MODELS := $(or $(MODELS),$(MODEL))
CHECKED := $(call pick,MODEL,$(ALL_MODELS)) $(call all,MODELS,$(ALL_MODELS)) \
           $(call pick,CHIP,$(ALL_CHIPS)) $(call all,CHIPS,$(ALL_CHIPS)) \
           $(call pick,BS,$(numbers),a whole number from 1 to 999) \
           $(call all,BATCHES,$(numbers),made of whole numbers from 1 to 999) \
           $(call pick,SAMPLES,$(numbers),a whole number from 1 to 999) \
           $(call pick,RUNS,$(numbers),a whole number from 1 to 999)
CHECKED := $(if $(filter-out . ..,$(WEIGHTS)),,$(error WEIGHTS='$(WEIGHTS)' is not default, seeded, or a path to a checkpoint folder or zip))
CHECKED := $(if $(ENGINE),$(call pick,ENGINE,$(call engines_of,$(CHIP))))
CHECKED := $(if $(PRECISION),$(call pick,PRECISION,$(if $(ENGINE),$($(ENGINE).PRECISIONS),$(call precisions_of,$(CHIP)))))
CHECKED := $(if $(PRECISIONS),$(call all,PRECISIONS,$(foreach c,$(CHIPS),$(call precisions_of,$c))))
CHECKED := $(if $(ISA),$(call pick,ISA,$(ISAS)))
bad_seq := is not a length from 8 to 512, an ascending list of them such as 64,128, or real
CHECKED := $(if $(INPUT),$(if $(filter-out real,$(SEQ)),$(error INPUT= is scored at SEQ=real; leave SEQ='$(SEQ)' out)))
CHECKED := $(if $(INPUT),$(if $(filter $(abspath $(INPUT)),$(abspath $(OUT))),$(error OUT='$(OUT)' is INPUT=; name another file)))
override SEQ := $(if $(INPUT),real,$(SEQ))
buckets := $(subst $(comma), ,$(SEQ))
CHECKED := $(if $(filter-out real,$(SEQ)),$(if $(filter x$(SEQ)x,x$(subst $(space),$(comma),$(filter $(buckets),$(lengths)))x),,$(error SEQ='$(SEQ)' $(bad_seq))))

# Own lengths need an engine that takes any shape; other chips compile shapes, and so does what rehearses them.
fixed_shapes = $(filter-out $(CHIPS_cpu),$(CHIP) $(CHIPS)) $(filter $(REHEARSALS),$(PRECISION) $(PRECISIONS))
CHECKED := $(if $(filter real,$(SEQ)),$(if $(strip $(fixed_shapes)),$(error SEQ=real is for CHIP=cpu; $(firstword $(fixed_shapes)) needs fixed lengths: SEQ=128, or buckets such as SEQ=64,128)))
CHECKED := $(if $(PACK),$(call pick,PACK,1,1 or empty)$(if $(or $(word 2,$(buckets)),$(filter real,$(SEQ))),$(error PACK=1 fills rows of one length: give SEQ=128 or another, not SEQ=$(SEQ))))
CHECKED := $(if $(PACK),$(if $(filter packed,$(ENGINE)),$(error PACK=1 needs no ENGINE=packed: that engine has no padding to fill; leave out one of them)))
CHECKED := $(if $(PACK),$(if $(filter $(CHIPS_gpu),$(CHIP) $(CHIPS)),$(error PACK=1 is for cpu and the Ascend chips: trtexec times no sentences)))

override PRECISION := $(or $(PRECISION),$(firstword $($(or $(ENGINE),$(firstword $(call engines_of,$(CHIP)))).PRECISIONS)))
