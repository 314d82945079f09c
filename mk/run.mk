# How models are run, scored and timed: on every chip through ais_bench's command line.
runner.cpu    = -m tools.cpu.runner --model $(model_file)
runner.ascend = -m tools.ascend.ais_bench $(ais_python) --device $(DEVICE) --model $(model_file)
runner.gpu    = -m tools.gpu.trtexec --engine $(model_file)
runner.torch  = -m tools.cpu.eager run --device $(DEVICE) --model $(model_file)
eager         = $(findstring torch_,$(engine))
runner        = $(runner.$(if $(eager),torch,$(family)))
input_folders = $(call joined_by,$(comma),$(inputs:%=$(input)/%))
on_sentences  = --input $(input_folders) $(if $(bucketed),--auto_set_dymdims_mode 1 --outfmt NPY)
# onnxruntime gives the same bytes whether all cores share one request or each core has its own, which is cheaper.
untimed       = $(if $(filter onnxruntime,$(engine)),--untimed)
not_used      = $(other_engines) $(if $(real),,tools/cpu/plan.py)

# If a tool is missing that a goal needs here, make stops before it exports a graph. -n, -q and -t make nothing.
dry   := $(strip $(foreach flag,n q t,$(findstring $(flag),$(filter-out --%,$(firstword -$(MAKEFLAGS))))))
asked := $(if $(or $(dry),$(LAUNCH),$(filter cpu,$(CHIP))),,$(filter om accuracy perf,$(MAKECMDGOALS)))
fault := $(if $(asked),$(shell $(doctor) --lacks build/$(ONE) $(asked)))
$(if $(fault),$(error $(fault)))

# fp32 outputs of rows of one length are compared with the exported graph's logits. Where the export cut its sentences to
# that length, it kept the logits of all, and all are compared, whatever gate_rows says.
cut_alike     = $(filter $(longest),$(seq))
reference     = build/$(if $(cut_alike),$(weights),$(shape))/reference.npy
outputs_gate  = $(if $(gated_by_outputs),-- $(py) -m tools.graph.gate $(reference) {}/out --input $(input) \
    $(if $(cut_alike),,$(gate_rows)))
gate_needs    = $(if $(gated_by_outputs),$(reference) $(needs.tools.graph.gate))
do.infer      = $(runner) $(on_sentences) $(if $(real),--plan fixed,$(untimed)) --batchsize $(bs) --output {} \
    --output_dirname out $(outputs_gate)
$(leaves:%=build/%/output/MANIFEST): build/%/output/MANIFEST: $$(model_file) $$(input)/MANIFEST $$(library) \
    $$(gate_needs) $$(filter-out $$(not_used) tools/cpu/yardstick.py,$$(call by,infer))
	$(call run_there,infer)

do.score = models/$(model)/postprocess.py --output_path build/$*/output/out --label_path $(input)/labels.json \
    --save_path {} $(patsubst %,--threshold %,$(filter-out 0.5,$(THRESHOLD)))
$(leaves:%=build/%/score.json): build/%/score.json: build/%/output/MANIFEST $$(input)/MANIFEST $$(call by,score)
	$(call run,score)
do.accuracy = -m tools.results.record accuracy build/$* --save_path {}
$(leaves:%=build/%/accuracy.json): build/%/accuracy.json: build/%/score.json $$(call by,accuracy)
	$(call run,accuracy)

# Rounds, not one long run: a table times all its rows once, then all again, so that a slow spell hits every row.
timed = $(foreach r,$(wordlist 1,$(ROUNDS),1 2 3 4 5 6 7 8 9),$(1:%=build/%/round$r/MANIFEST))
# Rows of one length are timed on zeros, as the recipes do; buckets, packed rows and real lengths on the sentences.
loop    = --loop $(loop.$(bs))
# On the CPU a round lasts at least 10 ms per sample, in turns with a fixed piece of work: tools/cpu/yardstick.py.
yardstick = $(if $(filter cpu,$(family)),$(if $(eager),,build/lib/peak.so))
# The native engine takes any shape, so the timing names the recipe's: batch size and length.
shaped  = $(if $(filter native torch_%,$(engine)),--dymDims $(call joined_by,;,$(shapes_of_inputs)))
timed_on = $(if $(one_length),$(loop) $(shaped),$(on_sentences))
how_long = $(if $(real),--plan measured --loop 5,$(if $(one_length),--milliseconds $(SAMPLES)0))
# On the CPU the timed engine has to answer as it did when it was scored.
scored_as = $(if $(yardstick),build/$(leaf)/output/MANIFEST $(input)/MANIFEST)
as_scored = --known build/$(leaf)/output/out $(if $(one_length),--asked $(input_folders))
time.runner  = $(runner) $(timed_on) --warmup_count 2 --batchsize $(bs) --output {} --output_dirname out \
    $(if $(yardstick),$(how_long) --yardstick $(yardstick) $(as_scored))
time.trtexec = -m tools.gpu.trtexec --engine $(model_file) --batch_size $(bs) --precision $(precision) \
    --summary {}/out_summary.json
do.time      = $(time.$(if $(filter trtexec,$(engine)),trtexec,runner))
$(call timed,$(leaves)): build/%/MANIFEST: $$(model_file) $$(if $$(one_length),,$$(input)/MANIFEST) $$(library) \
    $$(yardstick) $$(scored_as) $$(filter-out $$(not_used),$$(call by,time))
	$(call alone_there,time)
do.perf = -m tools.results.record perf build/$* --save_path {}
own_labels = $(if $(task_option),$(input)/MANIFEST)
$(leaves:%=build/%/perf.json): build/%/perf.json: $$(call timed,$$*) $$(own_labels) $$(call by,perf)
	$(call run,perf)
do.show = -m tools.results.show $(basename $@).json --save_path {}
$(foreach k,accuracy perf,$(leaves:%=build/%/$k.txt)): %.txt: %.json $$(call by,show)
	$(call run,show)
