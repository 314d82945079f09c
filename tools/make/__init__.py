"""The build engine: what may be asked for (parameters.py, chips.py, models.py), what the Makefile gets of it (makefile.py);
which artefacts are out of date (stale.py); one command makes one artefact, whole and described, or none (run.py), here or
elsewhere (launch.py); the CPU at hand; one-line errors, whole files and hashes (cli.py). Only the standard library, since it
runs before anything is installed."""
