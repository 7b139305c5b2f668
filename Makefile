# Native parts are built into src/inclavare/_native, where the Python package, the wheel and `make install` find them.
# Each folder of native/ describes its own part in rules.mk: it adds to NATIVE (what is shipped) and NATIVE_TEST (what
# tests need).
SHELL := /bin/bash
.DEFAULT_GOAL := all
CC := gcc
PYTHON := /usr/bin/python3
VENV := .venv
OUT := src/inclavare/_native
BUILD := build
CFLAGS_COMMON := -std=c11 -O2 -g0 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -fno-common -Inative/include
NATIVE :=
NATIVE_TEST :=

include $(wildcard native/*/rules.mk)

all: $(NATIVE)

native-test: $(NATIVE_TEST)

$(OUT) $(BUILD):
	mkdir -p $@

.PHONY: all native-test
