# Raw values of bert_base_cased_sst2; the Makefile gives them meaning.
bert_base_cased_sst2.WEIGHTS := hub:gchhablani/bert-base-cased-finetuned-sst2@e3a2a13efbaaf56afd02eb7333952ea22a693c45:checkpoint-12630
bert_base_cased_sst2.SEQ     := 128
bert_base_cased_sst2.INPUTS  := input_ids attention_mask
# Sentences of a gate between two graphs, longest first: all 872 at length 128 take minutes a gate on a CPU. The export
# is compared on all of them, at their own length.
bert_base_cased_sst2.GATE_ROWS := 64
