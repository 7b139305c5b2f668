/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules that the interpreter is born with: importlib alone. Python's own table brings 20 more as ready-made
 * objects, whose strings are interned and whose 800 KiB of memory are written to at every start: a quarter of the
 * start. They are only needed when the interpreter is made whole, and come from the archive and the standard library
 * then.
 *
 * This is the table of Python 3.11 (Python/frozen.c, Include/internal/pycore_import.h there); others keep their own.
 */
#include <Python.h>
#include <stdbool.h>

#if PY_VERSION_HEX >> 16 == 0x030B

#define FROZEN_MODULE(label, file)                                                                                     \
    __asm__(".section .rodata\n" label ": .incbin \"" FROZEN file "\"\n" label "_end:\n.previous\n")

struct _module_alias {
    const char *name;
    const char *orig;
};

FROZEN_MODULE("bootstrap", "_bootstrap.bin");
FROZEN_MODULE("bootstrap_external", "_bootstrap_external.bin");
extern const unsigned char bootstrap[], bootstrap_end[], bootstrap_external[], bootstrap_external_end[];

static struct _frozen modules[] = {{"_frozen_importlib", bootstrap, 0, false, NULL},
                                   {"_frozen_importlib_external", bootstrap_external, 0, false, NULL},
                                   {0}};
static const struct _frozen no_modules[] = {{0}};
static const struct _module_alias aliases[] = {{"_frozen_importlib", "importlib._bootstrap"},
                                               {"_frozen_importlib_external", "importlib._bootstrap_external"},
                                               {0}};

const struct _frozen *_PyImport_FrozenBootstrap = modules;
const struct _frozen *_PyImport_FrozenStdlib = no_modules;
const struct _frozen *_PyImport_FrozenTest = no_modules;
const struct _frozen *PyImport_FrozenModules = NULL;
const struct _module_alias *_PyImport_FrozenAliases = aliases;

/* The first thing that the interpreter does with frozen modules; its own would make those ready-made objects. */
int _Py_Deepfreeze_Init(void);
void _Py_Deepfreeze_Fini(void);

int _Py_Deepfreeze_Init(void) {
    modules[0].size = (int)(bootstrap_end - bootstrap);
    modules[1].size = (int)(bootstrap_external_end - bootstrap_external);
    return 0;
}

void _Py_Deepfreeze_Fini(void) {}

#endif
