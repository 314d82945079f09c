# The virtual environments. The stamp is a copy of the locks: only a changed lock installs again.
$(VENV)/installed: $(locks) $$(if_stale)
	$(Q)$(guard) $(PYTHON) -m tools.setup.install $(VENV) $(locks)
# Further ones: for the peers of `make bench`, for a cluster and s3://, for signatures. They also see the packages of VENV.
.venv-bench/installed .venv-scale/installed .venv-publish/installed: .venv-%/installed: requirements-%.txt $$(if_stale) | $(VENV)/installed
	$(Q)$(guard) $(PYTHON) -m tools.setup.install $(@D) $< --behind $(VENV)
