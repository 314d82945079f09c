# The virtual environments. The stamp is a copy of the locks: touching a lock file installs nothing, changing it installs
# what is new.
$(VENV)/installed: $(locks) $$(if_stale)
	$(Q)$(PYTHON) -m tools.setup.install $(VENV) $(locks)
# What the peers of `make bench` need on top; the environment sees the product's packages behind its own.
.venv-bench/installed: requirements-bench.txt $$(if_stale) | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-bench requirements-bench.txt --behind $(VENV)
# What a cluster and s3:// need on top.
.venv-scale/installed: requirements-scale.txt | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-scale requirements-scale.txt --behind $(VENV)
