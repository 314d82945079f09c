# The virtual environments, and what each program imports.
locks := requirements.txt requirements-cpu.txt requirements-cuda.txt
# The stamp is a copy of the locks: touching a lock file installs nothing, changing it installs what is new.
$(VENV)/installed: $(locks) $$(if_stale)
	$(Q)$(PYTHON) -m tools.setup.install $(VENV) $(locks)
# What the peers of `make bench` need on top; the environment sees the product's packages behind its own.
.venv-bench/installed: requirements-bench.txt $$(if_stale) | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-bench requirements-bench.txt --behind $(VENV)

# needs.<module or script> lists what it imports, itself included. `stale` lists what dates hide: a wrong clock, a copy
# with its old dates. Files with dates in the future are dated now.
looking := help help-dev doctor lock clean distclean
ifneq ($(filter-out $(looking),$(or $(MAKECMDGOALS),help)),)
stamps := --stamp $(VENV)/installed $(locks) --stamp .venv-bench/installed requirements-bench.txt
found := $(shell $(our_python) -m tools.make.imports build/imports.mk $(stamps) 2>&1)
$(if $(found),$(info $(found)))
include build/imports.mk
endif
