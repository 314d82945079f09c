"""Benchmarks: ours beside its peers, and the settings of each engine. Imports checks and below."""
