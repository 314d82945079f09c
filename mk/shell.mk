# How recipes run: no built-in rules, a clean environment.
MAKEFLAGS      += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDEXPANSION:
empty :=
space := $(empty) $(empty)
comma := ,
# V=1 shows the commands; tools/make/run.py reads it too.
Q := $(if $(V),,@)
export V
export LC_ALL := C.UTF-8
export PYTHONHASHSEED := 0
# What would run code of its own, or change what Python or oneDNN does or says.
inert := BASH_ENV ENV PYTHONHOME PYTHONOPTIMIZE PYTHONSTARTUP PYTHONINSPECT PYTHONSAFEPATH PYTHONWARNINGS PYTHONDEVMODE \
    PYTHONVERBOSE PYTHONPROFILEIMPORTTIME ONEDNN_MAX_CPU_ISA
unexport $(inert)
# The units that ISA= leaves, for OpenVINO, PyTorch and our own engine (tools/make/chips.py).
$(if $(ISA),$(eval export ONEDNN_MAX_CPU_ISA := $(ISA)))
# Names with a dot are values of ours, such as minilm_sst2.SEQ; none of them is taken from the environment.
foreign := $(foreach v,$(.VARIABLES),$(if $(findstring .,$v),$(if $(filter environment%,$(origin $v)),$v)))
$(foreach v,$(foreign),$(eval undefine $v))

# A step has a name. Its command is the variable do.<step>: a module or a script, and what it is given; `{}` is where it
# writes. tools/make/run.py makes the artefact whole, or not at all. Where a step has two commands, `--` stands between them.
#
# An example, mk/graph.mk's step `pack`, for the target build/m/w/seq128p/pack.onnx, whose stem $* is m/w/seq128p:
#     do.pack = -m tools.graph.pack build/$(weights)/model.onnx {} --seq_len $(length) ...       [1]
#     build/%/pack.onnx: build/$$(weights)/model.onnx build/%/input/MANIFEST $$(call by,pack)    [2]
#     	$(call run,pack)                                                                          [3]
# [1] $(weights) and $(length) are read back from the stem (mk/paths.mk): m/w and 128.
# [2] `by` adds $(needs.tools.graph.pack), which is the program and every file that it imports: an edit of one makes the
#     target again. And FORCE, unless `recorded`: pack.onnx.prov.json holds the very text of do.pack. So another SEQ, another
#     default or another edit of this line makes it again, though no file is newer. What is in no command (a list of rows, a
#     user's folder) is held by `keep`: FORCE, unless a stamp file already says that text.
# [3] runs `python -m tools.make.run --step pack TARGET PREREQUISITES -- COMMAND`, which writes that prov.json.
py    = $(VENV)/bin/python
ours  = $(guard) $(py)
# Until VENV exists, PYTHON runs what needs no package; afterwards it is always VENV's interpreter.
our_python = $(or $(guard),env) $(inert:%=-u %) $(if $(realpath $(py)),$(py),$(PYTHON))
ais_python = $(addprefix --python ,$(AIS_PYTHON))
# In a table, a line on the screen says which row it is of.
labelled = $(if $(filter %-table bench,$(MAKECMDGOALS)),--labelled)
start = $(if $(why.$@),$(info $(why.$@)))$(Q)$(ours) -m tools.make.run --step $1 $(labelled)
at_target = $@ $(filter-out FORCE,$^) -- $(py) $(subst ;,';',$(strip $(do.$1)))
run   = $(start) $(at_target)
# Nothing runs beside a measurement: it locks everything else out.
alone = $(start) --alone $(at_target)
# What needs the chip runs behind LAUNCH=, where that is given (tools/make/launch.py); all else stays here.
launch = $(if $(LAUNCH),--launch '$(LAUNCH)$(addprefix $(space),$(SLURM_ARGS))')
$(if $(LAUNCH),$(eval export BERT2OM_MAKE := $(make_pid)))
run_there   = $(start) $(launch) $(at_target)
alone_there = $(start) --alone $(launch) $(at_target)

doctor    = $(our_python) -m tools.setup.doctor --venv $(VENV) --atc $(ATC) $(addprefix --image ,$(CANN_IMAGE)) $(ais_python)

program   = $(if $(filter -m,$(firstword $1)),$(word 2,$1),$(firstword $1))
recorded  = $(findstring "recipe": "python $(subst -- $(py),-- python,$1)",$(file <$@.prov.json))
# `stale`: the artefact's prov.json names other bytes than those here, unseen by date.
if_stale  = $(if $(filter $@,$(stale)),FORCE)
unless_recorded = $(if $(call recorded,$(strip $(do.$1))),$(if_stale),FORCE)
by        = $(needs.$(call program,$(do.$1))) tools/make/run.py requirements.txt $(unless_recorded)
# keep FILE,TEXT. Of a text of more than 200 characters, GNU make 4.3 sometimes reads the line's end too; strip takes it off.
says      = x$(strip $(file <$1))x
keep      = $(if $(and $(findstring $(says),x$(strip $2)x),$(findstring x$(strip $2)x,$(says))),,FORCE)
stamp     = $(Q)umask 022; mkdir -p $(@D); printf '%s\n' '$1' > $@
joined_by = $(subst $(space),$1,$(strip $2))
# answered TEXT,WHO: what a $(shell ...) printed, if it ended well.
answered  = $(if $(filter 0,$(.SHELLSTATUS)),$1,$(error $2 ended with $(.SHELLSTATUS), see above))
