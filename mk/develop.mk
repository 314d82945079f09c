# For those who check this project, hand it on, or work on it.
##@ Check and hand on
claims: | $(VENV)/installed        ## what this project claims, and what a claim takes; CLAIM= checks one
	$(Q)$(py) -m tools.checks.claims $(addprefix --claim ,$(CLAIM)) --make VENV=$(VENV)
costs: | $(VENV)/installed         ## measure the time, disk and memory of each target into results/costs.csv
	$(Q)$(py) -m lab.costs --save_path results/costs.csv
release: | $(VENV)/installed       ## one tar of the last commit that needs no package index: build/release/
	$(Q)$(py) -m lab.release --save_path build/release
container:                         ## build Containerfile with podman, and run the two commands of README offline in it
	$(Q)$(our_python) -m lab.container $(addprefix --base ,$(BASE))
crate: build/$(ONE)/accuracy.json  ## one accuracy and all behind it as an RO-Crate, build/ro-crate-metadata.json
	$(Q)$(py) -m lab.crate $< --save_path build/ro-crate-metadata.json
sbom: | $(VENV)/installed          ## every installed package with its licence, and as CycloneDX in build/sbom.cdx.json
	$(Q)$(py) -m lab.sbom --save_path build/sbom.cdx.json
clean:                             ## remove build/ but for its downloads, and say how much that frees
	$(Q)$(our_python) -m tools.setup.clean
distclean:                         ## remove the downloads and virtual environments too
	$(Q)$(our_python) -m tools.setup.clean --all $(VENV) .venv-bench .venv-scale
##@ Development
help:                              ## this text
	@$(our_python) -m tools.setup.help $(MAKEFILE_LIST)
help-dev:                          ## every target and parameter
	@$(our_python) -m tools.setup.help --all $(MAKEFILE_LIST)
doctor:                            ## what this machine can run, what is missing, and how to get it
	@$(our_python) -m tools.setup.doctor --venv $(VENV) $(ais_python)
train: | $(wheel)                  ## train the adapter of minilm_sst2 again from TRAIN=; how near it comes
	$(Q)$(train)
torture: | $(VENV)/installed       ## kill the pipeline RUNS times, spoil files between; each make gives the same bytes
	$(Q)$(py) -m lab.torture --runs $(RUNS) build/$(ONE)/accuracy.txt -- $(parameters)
writes: | $(VENV)/installed        ## let each write of a build fail, one after the other, and go on from there
	$(Q)$(py) -m lab.writes accuracy record report -- $(parameters)
fuzz: | $(VENV)/installed          ## give every parser malformed inputs
	$(Q)$(py) -W ignore -m lab.fuzz --runs $(RUNS)00
lock:                              ## resolve requirements*.in into the lock files (needs uv)
	$(Q)$(our_python) -m lab.lock
lint: | $(VENV)/installed          ## ruff and shellcheck
	$(Q)$(py) -m ruff check -q . && $(py) -m ruff format -q --check .
	$(Q)$(VENV)/bin/shellcheck .ci/run $(wildcard models/*/test/*.sh)
# Three processes on two cores: some tests wait.
test: lint                         ## lint, then every test; the ten slowest are listed
	$(Q)$(py) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 10
