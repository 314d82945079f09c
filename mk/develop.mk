# For those who check this project, hand it on, or work on it.
publish_py = $(guard) .venv-publish/bin/python
publishing = build/$(ONE)/accuracy.json build/$(firstword $(subst /seq, ,$(ONE)))/reference.npy .venv-publish/installed
texts      = $(or $(DATA),build/data/dev.tsv)
checking   = $(texts) .venv-publish/installed $(if $(wildcard $(FOLDER)/model.native),build/lib/native.so)
##@ Check and hand on
claims:                            ## what this project claims, and what a claim takes; CLAIM= checks one
	$(Q)$(our_python) -m tools.results.claims $(addprefix --claim ,$(CLAIM)) --make VENV=$(VENV)
publish: $(publishing)             ### a configuration as a folder FOLDER= with card, proof and a signature by KEY=
	$(Q)$(publish_py) -m tools.publish.folder build/$(ONE) --key $(KEY) --save_path $(FOLDER)
check: $(checking)                 ### a folder FOLDER= from elsewhere: signature, hashes, each answer again
	$(Q)$(publish_py) -m tools.publish.check $(FOLDER) $(addprefix --key ,$(KEY)) --text_file $(texts)
release: | $(VENV)/installed       ### one tar of the last commit that needs no package index: build/release/
	$(Q)$(ours) -m lab.release --save_path build/release
container:                         ### podman builds Containerfile and runs README's two commands in it, offline
	$(Q)type -P podman > /dev/null || { echo "make container: podman: not found; apt install podman" >&2; exit 1; }
	$(Q)podman build $(BASE:%=--build-arg BASE=%) -t localhost/bert2om .
	$(Q)podman run --rm --network=none localhost/bert2om sh -c 'make accuracy && make test'
crate: build/$(ONE)/accuracy.json  ### an accuracy and all behind it: build/ro-crate-metadata.json
	$(Q)$(ours) -m lab.crate $< --save_path build/ro-crate-metadata.json
sbom: | $(VENV)/installed          ### every package with its licence; build/sbom.cdx.json
	$(Q)$(ours) -m tools.setup.sbom --save_path build/sbom.cdx.json
doctor:                            ## what this machine can run, what is missing, and how to get it
	@$(doctor)
clean:                             ## remove build/ but for its downloads, and say how much that frees
	$(Q)$(our_python) -m tools.setup.clean
distclean:                         ### remove the downloads and virtual environments too
	$(Q)$(our_python) -m tools.setup.clean --all $(VENV) .venv-bench .venv-scale .venv-publish
##@ Development
help:                              ### what most need
	@$(our_python) -m tools.setup.help
help-dev:                          ### every target and parameter
	@$(our_python) -m tools.setup.help --all
lint: | $(VENV)/installed          ### ruff, mypy and shellcheck
	$(Q)$(py) -m ruff check -q . && $(py) -m ruff format -q --check .
	$(Q)$(py) -m mypy --no-error-summary
	$(Q)find models -path '*/test/*.sh' -print0 | xargs -0 $(VENV)/bin/shellcheck .ci/run
# Three processes on two cores: some tests wait.
pytest = $(Q)$(py) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 10
test: lint                         ### lint, then the product's tests, the ten slowest listed; then audit
	$(pytest) --ignore test/lab
	$(Q)$(ours) -m tools.checks.audit
