# SEQ, PACK and WEIGHTS, checked; what cannot go together stops here, in words.
wrong_seq := is not a length from 8 to 512, an ascending list of them such as 64,128, or real
buckets := $(subst $(comma), ,$(SEQ))
ascending := $(subst $(space),$(comma),$(filter $(buckets),$(wordlist 8,512,$(numbers))))
$(if $(filter-out real,$(SEQ)),$(if $(filter x$(SEQ)x,x$(ascending)x),,$(error SEQ='$(SEQ)' $(wrong_seq))))

# SEQ=real needs an engine that takes any shape; other chips compile shapes, and so does what rehearses them.
fixed_shapes := $(filter-out $(CHIPS_cpu),$(CHIP) $(CHIPS)) $(filter $(REHEARSALS),$(PRECISION) $(PRECISIONS))
wants = needs fixed lengths: SEQ=128, or buckets such as SEQ=64,128
needs_fixed = $1 is for CHIP=cpu; $(firstword $(fixed_shapes)) $(wants)
$(if $(strip $(fixed_shapes)),$(if $(filter real,$(SEQ)),$(error $(call needs_fixed,SEQ=real))))
scores := $(filter score,$(MAKECMDGOALS))
$(if $(scores),$(if $(strip $(fixed_shapes)),$(error $(call needs_fixed,make score))))
$(if $(scores),$(if $(filter-out real,$(SEQ)),$(error make score runs SEQ=real; leave SEQ='$(SEQ)' out)))

$(if $(filter-out 1,$(PACK)),$(error PACK='$(PACK)' is not 1 or empty))
one_static_length := $(if $(or $(word 2,$(buckets)),$(filter real,$(SEQ))),,yes)
$(if $(PACK),$(if $(one_static_length),,\
    $(error PACK=1 fills rows of one length: give SEQ=128 or another, not SEQ=$(SEQ))))
$(if $(PACK),$(if $(filter native,$(ENGINE)),\
    $(error PACK=1 needs no ENGINE=native: that engine has no padding to fill; leave out one of them)))
$(if $(PACK),$(if $(filter $(CHIPS_gpu),$(CHIP) $(CHIPS)),\
    $(error PACK=1 is for cpu and the Ascend chips: trtexec times no sentences)))

comparing := $(filter bench repeat,$(MAKECMDGOALS))
$(if $(filter repeat,$(comparing)),$(if $(PACK)$(if $(one_static_length),,no),\
    $(error make repeat times rows of one length, padded: leave out PACK=, SEQ=real and buckets)))
$(if $(filter $(REHEARSALS),$(PRECISION) $(PRECISIONS)),$(if $(filter perf perf-table,$(MAKECMDGOALS)),\
    $(error PRECISION=$(REHEARSALS) has an accuracy but no speed: it computes what another chip would)))

# Two spellings of one path (mine, ./mine, mine/, a link) are one value of WEIGHTS.
bad_weights = WEIGHTS='$(WEIGHTS)' is not default, seeded, hub:OWNER/REPO@COMMIT or a path to a checkpoint folder or zip
real_path = $(subst $(CURDIR)/,,$(realpath $(WEIGHTS)))
$(if $(filter-out . ..,$(WEIGHTS)),,$(error $(bad_weights)))
ours_by_name := $(filter default seeded hub:%,$(WEIGHTS))
override WEIGHTS := $(or $(ours_by_name),$(real_path),$(patsubst ./%,%,$(WEIGHTS:%/=%)))
