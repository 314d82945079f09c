# What was typed, checked before anything else is expanded: a value of the command line may hold `$(shell ...)`.
# `override`: these names must not be set from the command line themselves.
override empty :=
override space := $(empty) $(empty)
override comma := ,
override digit := 0 1 2 3 4 5 6 7 8 9
override letter := a b c d e f g h i j k l m n o p q r s t u v w x y z \
                   A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
override alphabet := $(digit) $(letter) _ . , / - @ : =
# without TEXT,WORDS: TEXT with each of WORDS cut out. TEXT is not expanded again: a `$(shell ...)` in it stays inert.
override without = $(if $2,$(call without,$(subst $(firstword $2),,$1),$(wordlist 2,99,$2)),$1)
override odd_in  = $(strip $(call without,$1,$(alphabet)))
override given   := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
override unknown := $(filter-out $(PARAMETERS),$(given))
# nearest WORD,LIST: which word of LIST was most likely meant. It asks the default Python: PYTHON= is not checked yet.
override nearest = $(if $(call odd_in,$1),,$(shell python3 -m tools.setup.nearest $1 $2 2>/dev/null))
$(foreach v,$(unknown),$(error $v= is no parameter$(call nearest,$v,$(PARAMETERS)); see make help))
# What names files and columns of the user's may be any text on one line: it stands quoted wherever a shell reads it.
override free  := INPUT OUT COLUMNS KEEP
override define newline


endef
$(foreach v,$(free),$(if $(findstring $(newline),$(value $v)),$(error $v= holds a line's end; it is one line)))
# From here on they are what was typed, which nothing expands.
$(foreach v,$(filter $(free),$(given)),$(eval override $v := $$(value $v)))
override plain = $(if $(call odd_in,$(value $1)),$(error $1='$(value $1)' $(allowed)))
override allowed := may hold letters, digits and _ . , / - @ : = only
$(foreach v,$(filter-out $(free),$(PARAMETERS)),$(call plain,$v))
# Paths that stand alone in a command, which would take such a one for an option.
override option = $(if $(filter -%,$(value $1)),$(error $1='$(value $1)' begins with -; name a file by ./$(value $1)))
$(foreach v,FROM A B,$(call option,$v))
