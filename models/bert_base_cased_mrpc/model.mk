# Raw values of bert_base_cased_mrpc; the Makefile gives them meaning.
bert_base_cased_mrpc.WEIGHTS := seeded
bert_base_cased_mrpc.SEQ     := 128
bert_base_cased_mrpc.INPUTS  := input_ids attention_mask token_type_ids
# A name of tools/base/tasks.py: which columns hold the texts, what the classes are called, which metrics count.
bert_base_cased_mrpc.TASK    := mrpc
# Rows of a gate between two graphs, longest first, as for bert_base_cased_sst2.
bert_base_cased_mrpc.GATE_ROWS := 64
