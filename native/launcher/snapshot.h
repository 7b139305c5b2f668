/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LAUNCHER_SNAPSHOT_H
#define LAUNCHER_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>

/* From now on until save(), memory comes from what is saved. */
void record(void);

/* Memory of that kind for Python's arenas. */
void *take_arena(void *context, size_t size);
void give_back_arena(void *context, void *arena, size_t size);

/* Writes this program, with all that Python and the launcher have in memory, as the program `path`. */
void save(const char *path);

/* Whether this program was written by save(). */
extern bool saved;

_Noreturn void fail(const char *what);

#endif
