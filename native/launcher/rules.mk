# rune as a program with Python inside; without Python's static library (Debian: libpython3-dev) it is a script.
LAUNCHER_SOURCES := $(addprefix native/launcher/,launcher.c frozen.c boot.py archive.py) $(shell find src -name '*.py')
LAUNCHER_CFLAGS := $(CFLAGS_COMMON) -Wno-overlength-strings -no-pie -rdynamic -D_GNU_SOURCE

$(BUILD)/bin/rune: $(LAUNCHER_SOURCES) Makefile
	@mkdir -p $(@D) $(BUILD)/launcher
	@$(PYTHON) -IX no_debug_ranges native/launcher/archive.py $(BUILD)/launcher; case $$? in \
	0) $(CC) $(LAUNCHER_CFLAGS) -o $@ @$(BUILD)/launcher/flags;; \
	3) echo "rune will be a script, and slower: $(PYTHON) has no static library (Debian: libpython3-dev)"; \
		printf '%s\n' "$$PROGRAM_RUNE" >$@ && chmod 755 $@;; \
	*) exit 1;; esac
