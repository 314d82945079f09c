# make score: any text, at SEQ=real.
scoring = $(SCORING:%=build/%/$(compiled_one)) build/$(MODEL)/$(weights_name)/checkpoint/MANIFEST \
          $(if $(RERUN),$(dir $(SCORING:%=build/%))cpu.onnx) $(if $(filter native,$(ENGINE)),build/lib/native.so)
score_file = $(or $(OUT),build/score/$(basename $(notdir $(INPUT))).csv)
rerun = $(if $(RERUN),--rerun build/$(dir $(SCORING))cpu.onnx --margin $(RERUN))
score = $(py) -m tools.run --step score $(score_file) $(call need,INPUT,a TSV with a column `sentence`) $^ -- \
    $(py) -m tools.cpu.score --model $< --tokenizer_path build/$(MODEL)/$(weights_name)/checkpoint --input $(INPUT) \
    --batchsize $(BS) --max_len $(lastword $(subst $(comma), ,$($(MODEL).SEQ))) $(rerun) --save_path {}
