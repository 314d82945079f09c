# Raw values of tinybert_sst2; the Makefile gives them meaning.
tinybert_sst2.WEIGHTS := models/tinybert_sst2/SST-2_model
tinybert_sst2.SEQ     := 64
tinybert_sst2.INPUTS  := input_ids segment_ids input_mask
