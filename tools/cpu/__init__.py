"""The CPU route: compile for an engine, run it as ais_bench runs an .om, score a file. Imports graph and below."""
