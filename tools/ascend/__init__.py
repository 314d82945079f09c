"""The Ascend route: atc, .om files, ais_bench, fusions, the fp16 rehearsal. Imports cpu and below."""
