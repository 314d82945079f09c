# Tables, pictures and the page are pure functions of records. results/local holds the tables of this machine. Commands get
# the folders of records, not the many files in them; the date of a folder shows that a file was added or removed.
folders  = $(sort $(patsubst results/records/%,results/records,$(patsubst results/bench/%,results/bench,$1)))
from_folders = $(start) $@ $(call folders,$(filter-out FORCE,$^)) -- $(py) $(strip $(do.$1))
# A table measures the chips whose tools are on this machine. For others it shows records, published figures, or why there
# are none, as with DATA=. doctor is asked once, and only if a table has such chips; with LAUNCH= the tools are elsewhere.
doctor_says = $(shell $(doctor) --engines)
tools_here  = $(call answered,$(doctor_says),tools.setup.doctor)
tools_there = $(if $(LAUNCH),$(ascend.ENGINES) $(gpu.ENGINES),$(tools_here))
measurable  = $(cpu.ENGINES) $(if $(filter-out cpu,$(CHIPS)),$(tools_there))
present     = $(eval present := $(call with_engine,$(measurable)))$(present)
with_engine = $(foreach r,$(ROWS),$(if $(filter $1,$(word 2,$(subst -, ,$(notdir $r)))),$(if $(call lost,$r),,$r)))
# Behind LAUNCH= a cell that fails does not stop the others. The table says why it is missing, and the end is still an error.
# So the Makefile is run twice: BERT2OM_LOST is 0 in the first run, 1 in the second.
lost        = $(if $(filter 1,$(BERT2OM_LOST)),$(wildcard build/$1/lost))
in_two      = $(if $(LAUNCH),$(if $(BERT2OM_LOST),,yes))
again       = BERT2OM_LOST=$1 $(MAKE) --no-print-directory
two_makes   = +@$(call again,0) -k $@ || { $(call again,1) $@; exit 1; }
absent      = $(filter-out $(present),$(ROWS))
rows_of.accuracy-table = $(strip $(present:%=build/%/accuracy.json) $(if $(absent),$(absent:%=%/accuracy) $(on_record)))
on_record   = $(if $(DATA),,$(call folders,$(records)) $(figures))
rows_of.perf-table     = $(strip $(present:%=build/%/perf.json) $(if $(absent),$(absent) $(on_record)))
rows        = $(rows_of.$(notdir $*))
row_files   = $(wildcard $(absent:%=build/%/lost)) $(filter %.json %.csv,$(rows)) $(if $(filter results/records,$(rows)),$(records))
tables := results/local/accuracy-table results/local/perf-table
$(tables:%=%.rows): %.rows: $$(call keep,$$@,$$(rows))
	$(call stamp,$(rows))
results/local/perf-table.rows: | $$(call timed,$$(present))
do.table = -m tools.results.table --rows $(basename $@).rows --save_path {}
$(tables:%=%.csv): %.csv: %.rows $$(row_files) $$(call by,table)
	$(call from_folders,table)
$(tables:%=%.md): %.md: %.rows %.csv $$(row_files) $$(call by,table)
	$(call from_folders,table)

# The committed part of results/, and the READMEs, are written by tools/results/readme.py.
do.report = -m tools.results.report results/records $(if $(benches),--bench results/bench) --save_path {}
build/report.html: $(records) $(figures) $(benches) $$(call by,report)
	$(call from_folders,report)

leaf_results = $(wildcard $(leaves:%=build/%/accuracy.json) $(leaves:%=build/%/perf.json))
bench_result = $(wildcard build/$(dir $(ONE))bench.json)
# A log must agree with the parameters that were typed; the others are read from the log.
import = $(ours) -m tools.results.imports $(FROM) $(ONE) --given $(of_log) \
    $(if $(filter DEVICE,$(typed_names)),--devices $(DEVICE)) --save_path results/records
keep_all = $(ours) -m tools.results.record promote results/records $(leaf_results)
keep_bench = $(ours) -m lab.bench promote $(bench_result) --save_path results/bench
measured = $(if $(bench_result),$(keep_bench);) $(if $(leaf_results)$(if $(bench_result),,none),$(keep_all))
record = $(if $(filter %.tar,$(FROM)),$(judge),$(if $(FROM),$(import),$(measured)))
# The verdicts are kept only if all records are judged.
verdicts   = $(if $(selected),,--save_path results/verify.md)
