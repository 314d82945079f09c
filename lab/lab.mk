# The laboratory: ours and the peers, side by side; which figure of a speed repeats.
not_sst2 := $(or $(DATA),$($(MODEL).DATA),$(filter-out sst2,$($(MODEL).TASK)))
$(if $(comparing),$(if $(not_sst2),$(error make $(comparing) is of SST-2 alone, not of $(not_sst2); use perf-table)))
here     := $(dir $(ONE))
# What this CPU can run of them: rows that name no unit, or one that it has.
ours_here := $(foreach r,$(BENCHED),$(if $(unit.$r),$(if $(filter $(unit.$r),$(cpu_units)),$r),$r))
engine_of = $(word 2,$(subst -, ,$(notdir $1)))
file_of   = build/$1/$(call compiled,$(call engine_of,$1))
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
    --calibration build/data/calibration.tsv --seq $(lastword $(lengths)) --bs $(bs) --others 1 64 \
    --samples $(SAMPLES) --rounds $(ROUNDS) \
    --ours $(our_names) --peak build/lib/peak.so --save_path {}
$(batches:%=build/%/bench.json): build/%/bench.json: build/$$(weights)/model.onnx \
    build/$$(weights)/checkpoint/MANIFEST $(bench_data) $$(our_files) .venv-bench/installed $$(call by,bench)
	$(call alone,bench)
do.bench_table = -m lab.bench show $(basename $@).json --save_path {}
$(batches:%=build/%/bench.md): %.md: %.json $$(call by,bench_table)
	$(call run,bench_table)
do.peak = -m tools.cpu.native.build tools/cpu/native/peak.c --save_path {}
build/lib/peak.so: tools/cpu/native/peak.c tools/cpu/native/amx.c $(native_h) $$(call by,peak) | $(VENV)/installed
	$(call run,peak)

# The same cells over an hour, alone and beside a load: which figure of a speed repeats.
do.repeat = -m lab.repeat $(static_names) \
    --peak build/lib/peak.so --dims $(call joined_by,;,$(shapes_of_inputs)) --bs $(bs) --milliseconds $(SAMPLES)0 \
    --rounds $(ROUNDS) --save_path {}
$(batches:%=build/%/repeat.md): build/%/repeat.md: build/lib/peak.so \
    $$(foreach l,$$(static_rows),$$(call file_of,$$l)) $$(call by,repeat)
	$(call alone,repeat)
