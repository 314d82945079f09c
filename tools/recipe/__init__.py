"""The four commands that both recipes share; each script of a model folder calls one with its own values.

Options and files are those of Bert_Base_Cased_SST2; what is added has a default. One module a command, so that an edit
of one remakes nothing of another. Imports base, source and graph.
"""
