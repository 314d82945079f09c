# bert2om: BERT classifiers from PyTorch weights to ONNX, to .om (or the CPU at hand), to accuracy and throughput tables.
# Read next: tools/make/parameters.py (the parameters, and how paths spell them), mk/shell.mk (how a step runs, with an
# example), mk/graph.mk (the first stages), one folder of models/.

override old_make := $(filter 3.% 4.0 4.0.% 4.1 4.1.%,$(value MAKE_VERSION))
$(if $(old_make),$(error GNU make 4.2 or newer is needed, not $(old_make)))
$(if $(filter $(realpath Makefile),$(realpath $(value MAKEFILE_LIST))),,\
    $(error give make -C $(strip $(patsubst %Makefile,%,$(value MAKEFILE_LIST))) in place of -f: paths are its folder's))
# The typed words go to tools/make/makefile.py, each quoted, and nothing expands them. It checks them and answers with lines
# for make: the parameters and all that follows from them. bash -p reads no start-up files or functions of the environment.
override SHELL       := bash
override .SHELLFLAGS := -peu -o pipefail -c
override define newline :=


endef
override quoted = '$(subst ','\'',$(subst $(newline),¶,$1))'
override typed_names := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
override typed_words := $(foreach v,$(typed_names),$(call quoted,$v=$(value $v)))
override or_typed = $(call quoted,$(if $(filter $1,$(typed_names)),$(value $1),$2))
ifneq ($(typed_names),)
unexport $(typed_names)
endif
override a_python := p=$(call or_typed,VENV,.venv)/bin/python; [ -x "$$p" ] || \
    p=$$(type -P $(call or_typed,PYTHON,python3) || type -P python3)
# Blocks Ctrl-C until a starting Python can end without a traceback (tools/__init__.py); empty if `env` is too old for it.
override guard  := $(shell env --block-signal=INT echo env --block-signal=INT 2>/dev/null)
override answer := $(shell $(a_python); $(guard) "$$p" -I -S tools/make/__main__.py "$$PPID" $(call quoted,$(value MAKECMDGOALS)) $(typed_words))
ifneq ($(.SHELLSTATUS),0)
override no_python = no Python 3.11 or newer answers (exit $(.SHELLSTATUS)); name one, as PYTHON=/usr/bin/python3.11
$(error $(or $(answer),$(no_python)))
endif
$(eval $(subst ¶,$(newline),$(answer)))
$(if $(notice),$(info $(notice)))

.PHONY: $(TARGETS) FORCE
.DEFAULT_GOAL := help
include mk/shell.mk mk/paths.mk mk/install.mk mk/source.mk mk/graph.mk mk/compile.mk mk/run.mk mk/score.mk
include mk/tables.mk mk/kit.mk lab/lab.mk mk/develop.mk

# ---- Targets for people. A recipe here only prints what was made, so `make -q` and `make -n` stay truthful.
# The text behind `##` is shown by `make help`, that behind `###` only by `make help-dev`.
##@ Run one configuration
setup: $(VENV)/installed           ## install the locked packages into VENV
data: build/data/dev.tsv           ## rebuild SST-2's validation set, 872 rows, byte for byte
	$(info $<)
new-model: | $(VENV)/installed     ## a folder of models/, NAME=, for a checkpoint of your own, FROM=
	$(Q)$(ours) -m tools.setup.new_model $(NAME) $(FROM) $(TASK:%=--task %)
onnx: $(family_onnx)               ## the graph that the compiler gets: export, simplify, modify
	$(info $<)
om: build/$(ONE)/$(compiled_one)   ## compile: an .om, a .plan, or the CPU engine's file
	$(info $<)
accuracy: build/$(ONE)/accuracy.txt  ## accuracy on the SST-2 validation set
	$(info $(file <$<))
perf: build/$(ONE)/perf.txt        ## throughput and latency
	$(info $(file <$<))
score: $(scoring) | $(VENV)/installed $$(addsuffix /installed,$$(scale_env))  ## a class and logits for each sentence of INPUT=, to OUT=
	$(Q)$(score)
##@ Tables of many configurations
accuracy-table: results/local/accuracy-table.md  ## accuracy of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
perf-table: $(if $(in_two),,results/local/perf-table.md)  ## throughput of MODELS x CHIPS x PRECISIONS x BATCHES
	$(if $(in_two),$(two_makes),$(info $(file <$<)))
##@ Records
kit: build/kit-$(CHIP).tar         ### all that a card in another room needs, in one file
	$(info $<)
record: | $(VENV)/installed        ## keep what was measured here, or the log FROM=, in results/
	$(Q)$(record)
report: build/report.html          ## remake results/, the READMEs' tables and the page of records
	$(Q)$(ours) -m tools.results.readme
audit: | $(VENV)/installed         ## hash everything again, weights to table; name each link that breaks
	$(Q)$(ours) -m tools.checks.audit
verify: | $(VENV)/installed        ## make again what committed records claim (MODEL= BS= ...)
	$(Q)$(ours) -m tools.checks.verify results/records --only $(selected) $(verdicts) --make VENV=$(VENV)
reproduce: | $(VENV)/installed     ## two builds, as unlike as this machine allows: the same bytes?
	$(Q)$(ours) -m tools.checks.reproduce build/$(ONE)/accuracy.txt build/$(dir $(ONE))ascend.onnx -- $(parameters)
compare: | $(VENV)/installed       ## two accuracies, A= and B=: exact McNemar test, list of flips
	$(Q)$(ours) -m tools.results.compare $(A) $(B)
##@ Ascend and GPU
fusion-report: build/$(dir $(ONE))ascend.onnx  ## which CANN fusions the graph gets, by chip and batch size
	$(Q)$(ours) -m tools.ascend.fusion $< $(fusion_options) $(addprefix --om ,$(wildcard $(fusion_rows:%=build/%/model.om)))
demo-ascend: | $(VENV)/installed   ### the Ascend route with stand-ins for CANN and card: no figure of it counts
	$(Q)$(ours) -m tools.checks.demo $(CHIP) -- $(parameters)
