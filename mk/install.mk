# The virtual environments, and what each program imports.
locks := requirements.txt requirements-cpu.txt requirements-cuda.txt
# The stamp is a copy of the locks: touching a lock file installs nothing, changing it installs what is new.
$(VENV)/installed: $(locks)
	$(Q)$(PYTHON) -m tools.setup.install $(VENV) $(locks)
# What the peers of `make bench` need on top; the environment sees the product's packages behind its own.
.venv-bench/installed: requirements-bench.txt | $(VENV)/installed
	$(Q)$(PYTHON) -m tools.setup.install .venv-bench requirements-bench.txt --behind $(VENV)

# needs.<module or script> lists what it imports, itself included. Files that came with an older date than when make
# last looked (a backup restored, `cp -p`) but with other bytes are named, and dated now.
looking := help help-dev doctor lock clean distclean
ifneq ($(filter-out $(looking),$(or $(MAKECMDGOALS),help)),)
found := $(shell $(our_python) -m tools.imports build/imports.mk 2>&1)
$(if $(found),$(info $(found)))
include build/imports.mk
endif
