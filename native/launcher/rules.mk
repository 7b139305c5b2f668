# rune as a program with Python inside; without Python's static library (Debian: libpython3-dev) it is a script.
LAUNCHER := $(BUILD)/launcher
LAUNCHER_SOURCES := $(wildcard native/launcher/*.*) $(shell find src -name '*.py')

$(BUILD)/bin/rune: $(LAUNCHER_SOURCES) Makefile
	@mkdir -p $(@D) $(LAUNCHER); rm -f $(LAUNCHER)/launcher
	@$(PYTHON) -IX no_debug_ranges native/launcher/build.py $(LAUNCHER) $@ $(CC) $(CFLAGS_COMMON); case $$? in \
	0) ;; \
	3) echo "rune will be a script, and slower: $(PYTHON) has no static library (Debian: libpython3-dev)"; \
		printf '%s\n' "$$PROGRAM_RUNE" >$@ && chmod 755 $@;; \
	*) exit 1;; esac

# For tests: the reader of JSON as an extension module.
$(LAUNCHER)/launcher_json.so: tests/native/launcher/module.c native/launcher/json.c native/launcher/json.h $(BUILD)/bin/rune
	@rm -f $@; [ ! -f $(LAUNCHER)/launcher ] || $(CC) $(CFLAGS_COMMON) -fsanitize=undefined -fno-sanitize-recover -fPIC -shared -o $@ \
		$$($(PYTHON) -IS -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') \
		tests/native/launcher/module.c native/launcher/json.c

NATIVE_TEST += $(LAUNCHER)/launcher_json.so
