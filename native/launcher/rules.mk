# rune as a program with Python inside; without Python's static library (Debian: libpython3-dev) it is a script.
LAUNCHER_SOURCES := $(addprefix native/launcher/,launcher.c frozen.c json.c json.h boot.py archive.py) $(shell find src -name '*.py')
LAUNCHER_CFLAGS := $(CFLAGS_COMMON) -Wno-overlength-strings -static -Wl,--no-warnings -D_GNU_SOURCE

$(BUILD)/bin/rune: $(LAUNCHER_SOURCES) Makefile
	@mkdir -p $(@D) $(BUILD)/launcher; rm -f $(BUILD)/launcher/flags
	@$(PYTHON) -IX no_debug_ranges native/launcher/archive.py $(BUILD)/launcher; case $$? in \
	0) $(CC) $(LAUNCHER_CFLAGS) -o $@ @$(BUILD)/launcher/flags;; \
	3) echo "rune will be a script, and slower: $(PYTHON) has no static library (Debian: libpython3-dev)"; \
		printf '%s\n' "$$PROGRAM_RUNE" >$@ && chmod 755 $@;; \
	*) exit 1;; esac

# For tests: the reader of JSON as an extension module.
$(BUILD)/launcher/launcher_json.so: tests/native/launcher/module.c native/launcher/json.c native/launcher/json.h $(BUILD)/bin/rune
	@rm -f $@; [ ! -f $(BUILD)/launcher/flags ] || $(CC) $(CFLAGS_COMMON) -fsanitize=undefined -fno-sanitize-recover -fPIC -shared -o $@ \
		$$($(PYTHON) -IS -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') \
		tests/native/launcher/module.c native/launcher/json.c

NATIVE_TEST += $(BUILD)/launcher/launcher_json.so
