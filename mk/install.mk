# The virtual environments. The stamp is a copy of the locks: only another lock installs, and only what is new.
$(VENV)/installed: $(locks) $$(if_stale)
	$(Q)$(guard) $(PYTHON) -m tools.setup.install $(VENV) $(locks)
# What the peers of `make bench`, a cluster and s3://, and signatures need on top; the product's packages are seen behind.
.venv-bench/installed .venv-scale/installed .venv-publish/installed: .venv-%/installed: requirements-%.txt $$(if_stale) | $(VENV)/installed
	$(Q)$(guard) $(PYTHON) -m tools.setup.install $(@D) $< --behind $(VENV)
