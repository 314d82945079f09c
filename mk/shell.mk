# How recipes run: one strict shell, no built-in rules, a clean environment.
override SHELL := bash
# -p: no BASH_ENV, no functions and no SHELLOPTS of the environment, in $(shell) too, which unexport does not reach.
.SHELLFLAGS    := -peu -o pipefail -c
MAKEFLAGS      += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDEXPANSION:
# V=1 shows the commands; tools/make/run.py reads it too.
Q := $(if $(V),,@)
export V
export LC_ALL := C.UTF-8
export PYTHONHASHSEED := 0
# What would run code of its own, or change what Python or oneDNN does.
inert := BASH_ENV ENV PYTHONHOME PYTHONOPTIMIZE PYTHONSTARTUP PYTHONINSPECT ONEDNN_MAX_CPU_ISA
unexport $(inert)
# Names with a dot are values of ours, such as minilm_sst2.SEQ; none of them is taken from the environment.
dotted := $(foreach v,$(.VARIABLES),$(if $(findstring .,$v),$v))
$(foreach v,$(dotted),$(if $(filter environment%,$(origin $v)),$(eval undefine $v)))

# A step has a name. Its command is the variable do.<step>: a module or a script, and what it is given; `{}` is where it
# writes. tools/make/run.py makes the artefact whole, or not at all. Where a step has two commands, `--` stands between them.
py    = $(VENV)/bin/python
# What is asked before VENV is made, PYTHON answers; all else is the environment's, whatever python3 is first on PATH.
our_python = env $(inert:%=-u %) $(if $(realpath $(py)),$(py),$(PYTHON))
ais_python = $(addprefix --python ,$(AIS_PYTHON))
# In a table, a line on the screen says which row it is of.
labelled = $(if $(filter $(TABLES),$(MAKECMDGOALS)),--labelled)
start = $(if $(why.$@),$(info $(why.$@)))$(Q)$(py) -m tools.make.run --step $1 $(labelled)
at_target = $@ $(filter-out FORCE,$^) -- $(py) $(subst ;,';',$(strip $(do.$1)))
run   = $(start) $(at_target)
# Nothing runs beside a measurement: it locks everything else out.
alone = $(start) --alone $(at_target)
# What needs the chip runs behind LAUNCH=, where that is given (tools/make/launch.py); all else stays here.
launch = $(if $(LAUNCH),--launch '$(LAUNCH)$(addprefix $(space),$(SLURM_ARGS))')
$(if $(LAUNCH),$(eval export BERT2OM_MAKE := $(shell echo $$PPID)))
run_there   = $(start) $(launch) $(at_target)
alone_there = $(start) --alone $(launch) $(at_target)

# by STEP: what a rule needs because of its command: the program with all that it imports (needs.<program>, which
# mk/install.mk reads), and FORCE where the artefact's prov.json names another command or, unseen by date, other bytes.
program   = $(if $(filter -m,$(firstword $1)),$(word 2,$1),$(firstword $1))
recorded  = $(findstring "recipe": "python $(subst -- $(py),-- python,$1)",$(file <$@.prov.json))
if_stale  = $(if $(filter $@,$(stale)),FORCE)
unless_recorded = $(if $(call recorded,$(strip $(do.$1))),$(if_stale),FORCE)
by        = $(needs.$(call program,$(do.$1))) tools/make/run.py requirements.txt $(unless_recorded)
# keep FILE,TEXT: FORCE only while FILE does not already say TEXT, so that -n and -q stay truthful.
# Of a text of more than 200 characters, GNU make 4.3 sometimes reads the line's end too; strip takes it off.
says      = x$(strip $(file <$1))x
keep      = $(if $(and $(findstring $(says),x$(strip $2)x),$(findstring x$(strip $2)x,$(says))),,FORCE)
joined_by = $(subst $(space),$1,$(strip $2))
# need NAME,WHAT: the value of a parameter that must be given.
need      = $(or $($1),$(error $1= names $2))
