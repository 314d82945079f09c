"""The build engine: one command makes one artefact, whole and described, or none (run.py); which are out of date (imports.py,
stale.py); the CPU at hand; one-line errors, whole files and hashes (cli.py) for all. Only the standard library."""
