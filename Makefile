# make              the native parts, and build/bin/rune and build/bin/runectl for work in the checkout
# make demo         an enclave container, from a bare machine to its greeting
# make demo-containerd      tasks and an enclave under a containerd of its own, through the shim, up to a verified quote
# make test         everything from nothing: packages, tools, build, all tests
# make check        formatters, linters and type checker, then all tests
# make unit         the tests that need neither root nor a daemon
# make test-vm      the tests of containers in virtual machines with systemd and control groups v2, v1
# make fuzz         a million broken inputs for every reader of quotes, certificates, collateral, images and requests
# make install      into PREFIX (default /usr/local), below DESTDIR; make uninstall takes it away again
# make install-containerd, install-docker      make the installed shim known to an engine; uninstall-... unknown again
# make bench        rune beside runc and crun on this machine; bench-shims: its shim beside containerd's
# make soak         what CYCLES containers in turn, CROWD at once and KILLS of rune leave behind (docs/reliability.md)
# make soak-shim    what LIVES of containers and CALLS in one shim, and KILLS of it and of containerd, do
#
# Native parts are built into src/inclavare/_native, where the Python package, the wheel and `make install` find them.
# Each folder of native/ describes its own part in rules.mk: it adds to NATIVE (what is shipped) and NATIVE_TEST (what
# tests need).
SHELL := /bin/bash
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
CC := gcc
PYTHON := /usr/bin/python3
VENV := .venv
OUT := src/inclavare/_native
BUILD := build
CFLAGS_COMMON := -std=c11 -O2 -g0 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -fno-common -Inative/include
NATIVE :=
NATIVE_TEST :=

PROGRAMS := $(BUILD)/bin/rune $(BUILD)/bin/runectl $(BUILD)/bin/containerd-shim-rune-v2

include $(wildcard native/*/rules.mk)

all: $(NATIVE) $(PROGRAMS) $(BUILD)/manual/rune.bash

native-test: $(NATIVE_TEST)

$(OUT) $(BUILD):
	mkdir -p $@

# A program of ours: $(1) Python's options, $(2) module of inclavare.cli, $(3) the library's place, seen from the program's
# folder. It resolves symbolic links, so sbin/rune, a moved checkout and an installation below DESTDIR all work.
define PROGRAM
#!/usr/bin/python3 $(1)
import os
import sys

sys.path.insert(0, os.path.realpath(__file__ + "/../$(3)"))

from inclavare.cli.$(2) import main

sys.exit(main())
endef

# rune needs nothing but the standard library, and saves the time that `site` takes; runectl needs python3-cryptography.
export PROGRAM_RUNE = $(call PROGRAM,-IS,rune,$(LIBRARY))
export PROGRAM_SHIM = $(call PROGRAM,-IS,shim,$(LIBRARY))
export PROGRAM_RUNECTL = $(call PROGRAM,-I,runectl,$(LIBRARY))

$(PROGRAMS): LIBRARY := ../../src
$(BUILD)/bin/runectl: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' "$$PROGRAM_RUNECTL" >$@ && chmod 755 $@

# One program by two names; as a script it is two.
$(BUILD)/bin/containerd-shim-rune-v2: $(BUILD)/bin/rune
	@rm -f $@; if cmp -s -n 2 $< /dev/stdin <<<'#!'; then printf '%s\n' "$$PROGRAM_SHIM" >$@ && chmod 755 $@; \
		else ln -s rune $@; fi

# Manual pages and completions, all from the table of commands.
$(BUILD)/manual/rune.bash: tools/manual.py src/inclavare/cli/table.py $(wildcard src/inclavare/cli/runectl*.py)
	@$(PYTHON) -B tools/manual.py $(@D)

# --- what has to be there -------------------------------------------------------------------------------------------

APT_BUILD := gcc libc6-dev binutils python3 python3-cryptography libpython3-dev
APT_TEST := python3-venv busybox-static clang-format dbus-daemon libseccomp-dev strace valgrind iproute2 iptables procps docker.io containerd runc crun podman buildah netavark uidmap
APT_VM := mmdebstrap qemu-system-x86 e2fsprogs
APT_DEMO = $(if $(shell command -v containerd),,containerd) $(if $(shell command -v busybox),,busybox-static) # of any origin
APT_BENCH := runc crun containerd busybox-static strace valgrind

# Installs the Debian packages $(1) that are missing, or says which they are.
define NEED_PACKAGES
@if ! command -v dpkg-query >/dev/null; then \
	echo "This is not Debian: install what these packages are called here: $(1)" >&2; exit 0; fi; \
missing=; for package in $(1); do \
	[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing+=" $$package"; done; \
[ -n "$$missing" ] || exit 0; \
if [ "$$(id -u)" != 0 ]; then \
	echo "Missing packages:$$missing" >&2; echo "Install them as root: apt-get install$$missing" >&2; exit 1; fi; \
echo "Installing:$$missing"; \
export DEBIAN_FRONTEND=noninteractive; \
apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null && \
apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends $$missing </dev/null >/dev/null
endef

deps: deps-build deps-test $(VENV)/tools

deps-build:
	$(call NEED_PACKAGES,$(APT_BUILD))

deps-test: deps-build
	$(call NEED_PACKAGES,$(APT_TEST))

deps-vm: deps-build
	$(call NEED_PACKAGES,$(APT_VM))

deps-bench: deps-build
	$(call NEED_PACKAGES,$(APT_BENCH))

# What pyproject.toml names, from PyPI; the system's Python has none of it.
$(VENV)/tools: pyproject.toml | deps-test
	@[ -x $(VENV)/bin/pip ] || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*p["dependencies"], *p["optional-dependencies"]["dev"], sep="\n")' >$(VENV)/names
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-input -r $(VENV)/names
	@touch $@

# --- checks ---------------------------------------------------------------------------------------------------------

PYTEST := $(VENV)/bin/pytest
C_FILES = $(shell find native tests -name '*.[ch]')

# The build itself turns every warning of the compiler into an error.
check: lint
	$(MAKE) -s all native-test
	$(PYTEST) -m "not linter"

test: deps
	$(MAKE) -s all native-test
	$(PYTEST)

# VM_ARGUMENTS go to tools/vm.py: --kind v2 tests/vm, for example.
test-vm: deps-vm
	$(MAKE) -s all
	$(PYTHON) tools/vm.py $(VM_ARGUMENTS)

unit: all
	$(PYTEST) -m "not linter" tests/unit

lint: lint-format lint-ruff lint-mypy lint-rooms lint-c

lint-format: $(VENV)/tools
	$(VENV)/bin/ruff format --check --quiet

lint-ruff: $(VENV)/tools
	$(VENV)/bin/ruff check --quiet

lint-mypy: $(VENV)/tools
	$(VENV)/bin/mypy --no-error-summary

lint-rooms: $(VENV)/tools
	@PYTHONPATH=src $(VENV)/bin/lint-imports >$(VENV)/rooms || { cat $(VENV)/rooms; exit 1; }

lint-c: $(VENV)/tools
	@clang-format --dry-run -Werror $(C_FILES)

format:
	$(VENV)/bin/ruff format --quiet
	clang-format -i $(C_FILES)

demo: deps-build
	@$(MAKE) -s all >/dev/null
	@demo/run.sh

demo-containerd: deps-build
	$(if $(strip $(APT_DEMO)),$(call NEED_PACKAGES,$(APT_DEMO)))
	@$(MAKE) -s all >/dev/null
	@demo/containerd.sh

# FUZZ_ARGUMENTS go to tools/fuzz.py: --count 100000000 quote, for example.
fuzz: $(VENV)/tools
	$(VENV)/bin/python -W error tools/fuzz.py $(FUZZ_ARGUMENTS)

bench: deps-bench
	@$(MAKE) -s all
	@$(PYTHON) bench/compare.py

bench-shims: deps-bench
	@$(MAKE) -s all
	@bench/shims.py

CYCLES := 10000
CROWD := 500
KILLS := 1000

soak: deps-test
	@$(MAKE) -s all
	@$(PYTHON) bench/soak.py --cycles $(CYCLES) --crowd $(CROWD) --kills $(KILLS)

LIVES := 2000
CALLS := 20000

soak-shim: KILLS := 500
soak-shim: deps-test
	@$(MAKE) -s all
	@bench/shim_soak.py --lives $(LIVES) --calls $(CALLS) --kills $(KILLS)

# --- installation ---------------------------------------------------------------------------------------------------

PREFIX := /usr/local
INSTALL_ROOT = $(abspath $(DESTDIR)$(PREFIX))
INSTALL_LIBRARY = $(INSTALL_ROOT)/lib/inclavare
# The PALs and the enclave have a second, stable place: configurations name it.
INSTALL_PALS = $(filter $(OUT)/liberpal-%.so,$(NATIVE))
# podman reads /etc; another PREFIX has an etc of its own.
INSTALL_CONFIGURATION = $(abspath $(DESTDIR)$(if $(filter /usr /usr/local,$(PREFIX)),,$(PREFIX))/etc/containers/containers.conf.d)
INSTALL_UNITS = $(INSTALL_ROOT)/lib/systemd/system
COMPLETIONS := bash-completion/completions/rune zsh/site-functions/_rune fish/vendor_completions.d/rune.fish
SHIM := containerd-shim-rune-v2
INSTALL_ENCLAVES = $(filter $(OUT)/skeleton/encl.%,$(NATIVE))

# Byte code is made anew by each installation, and nobody changes installed sources, so Python need not compare the two
# (unchecked-hash), nor may it write any of its own. The code names its sources without DESTDIR (-s).
install: LIBRARY := ../lib/inclavare
install: all
	rm -rf $(INSTALL_LIBRARY)
	install -d $(addprefix $(INSTALL_ROOT)/,bin sbin lib share/inclavare/skeleton share/inclavare/kubernetes)
	cd src && find inclavare -name '*.py' -exec install -D -m 644 {} $(INSTALL_LIBRARY)/{} \;
	$(foreach file,$(NATIVE),install -D $(if $(filter %.bin %.ss,$(file)),-m 644) $(file) $(file:src/%=$(INSTALL_LIBRARY)/%) &&) true
	if [ -e .git ] && commit=$$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null); then \
		printf '%s\n' "$$commit" >$(INSTALL_LIBRARY)/inclavare/_native/commit; fi
	umask 022 && $(PYTHON) -m compileall -q -f -o 0 --invalidation-mode unchecked-hash $(if $(DESTDIR),-s $(abspath $(DESTDIR)) -p /) \
		$(INSTALL_LIBRARY)
	rm -f $(INSTALL_ROOT)/bin/$(SHIM)
	if cmp -s -n 2 $(BUILD)/bin/rune /dev/stdin <<<'#!'; then printf '%s\n' "$$PROGRAM_RUNE" >$(INSTALL_ROOT)/bin/rune; \
		printf '%s\n' "$$PROGRAM_SHIM" >$(INSTALL_ROOT)/bin/$(SHIM); chmod 755 $(INSTALL_ROOT)/bin/$(SHIM); \
		else install --strip $(BUILD)/bin/rune $(INSTALL_ROOT)/bin/rune; ln -s rune $(INSTALL_ROOT)/bin/$(SHIM); fi
	printf '%s\n' "$$PROGRAM_RUNECTL" >$(INSTALL_ROOT)/bin/runectl
	chmod 755 $(INSTALL_ROOT)/bin/rune $(INSTALL_ROOT)/bin/runectl
	ln -sf ../bin/rune $(INSTALL_ROOT)/sbin/rune
	$(if $(INSTALL_PALS),install $(INSTALL_PALS) $(INSTALL_ROOT)/lib)
	install -m 644 $(INSTALL_ENCLAVES) $(INSTALL_ROOT)/share/inclavare/skeleton
	install -m 644 tools/kubernetes/*.yaml $(INSTALL_ROOT)/share/inclavare/kubernetes
	install -d $(INSTALL_CONFIGURATION)
	sed 's|@RUNE@|$(PREFIX)/bin/rune|' tools/podman.conf >$(INSTALL_CONFIGURATION)/50-rune.conf
	install -d $(INSTALL_UNITS)
	sed 's|@RUNECTL@|$(PREFIX)/bin/runectl|' tools/systemd/inclavare-aesmd.service >$(INSTALL_UNITS)/inclavare-aesmd.service
	install -m 644 tools/systemd/inclavare-aesmd.socket $(INSTALL_UNITS)
	sed 's|@RUNECTL@|$(PREFIX)/bin/runectl|' tools/systemd/inclavare-signature-server.service >$(INSTALL_UNITS)/inclavare-signature-server.service
	install -d $(INSTALL_ROOT)/share/man/man8 $(addprefix $(INSTALL_ROOT)/share/,$(dir $(COMPLETIONS)))
	install -m 644 $(BUILD)/manual/man8/* $(INSTALL_ROOT)/share/man/man8
	$(foreach file,$(COMPLETIONS),install -m 644 $(BUILD)/manual/$(if $(filter rune,$(notdir $(file))),rune.bash,$(notdir $(file))) \
		$(INSTALL_ROOT)/share/$(file) &&) true

uninstall:
	rm -rf $(INSTALL_LIBRARY) $(INSTALL_ROOT)/share/inclavare
	rm -f $(addprefix $(INSTALL_ROOT)/,bin/rune sbin/rune bin/$(SHIM) bin/runectl)
	rm -f $(addprefix $(INSTALL_ROOT)/lib/,$(notdir $(INSTALL_PALS)))
	rm -f $(INSTALL_CONFIGURATION)/50-rune.conf $(INSTALL_UNITS)/inclavare-aesmd.service $(INSTALL_UNITS)/inclavare-aesmd.socket $(INSTALL_UNITS)/inclavare-signature-server.service
	rm -f $(INSTALL_ROOT)/share/man/man8/rune.8 $(INSTALL_ROOT)/share/man/man8/rune-*.8 $(INSTALL_ROOT)/share/man/man8/runectl.8 $(addprefix $(INSTALL_ROOT)/share/,$(COMPLETIONS))

# The engine's configuration is the host's, whatever PREFIX is; what else it says stays as it is. Restart the engine then.
install-containerd install-docker: install-%: $(BUILD)/bin/runectl
	$(BUILD)/bin/runectl register $* --root $(abspath $(DESTDIR)/) --shim $(abspath $(PREFIX))/bin/$(SHIM)

uninstall-containerd uninstall-docker: uninstall-%: $(BUILD)/bin/runectl
	$(BUILD)/bin/runectl register $* --root $(abspath $(DESTDIR)/) --undo

clean:
	rm -rf $(OUT) $(BUILD) dist src/*.egg-info
	find src tests bench -name __pycache__ -prune -exec rm -rf {} +

.PHONY: all native-test deps deps-build deps-test deps-vm deps-bench check test test-vm unit lint lint-format lint-ruff lint-mypy lint-rooms
.PHONY: lint-c format demo demo-containerd fuzz bench bench-shims soak soak-shim install uninstall clean
.PHONY: install-containerd install-docker uninstall-containerd uninstall-docker
