/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that goes on where another one stopped. When `rune` is built, it starts Python, imports its modules, and
 * writes itself with all that is in Python's memory by then; each later start finds all that done. For Python it is a
 * fork of the process that was saved.
 *
 * The program is static and does not move, so addresses stay what they were. Saved is what belongs to Python and to
 * the launcher: their variables, and the memory they took, which is a variable too (`pool`). The C library is not
 * saved: it starts anew each time, as it must (thread, random values, the processor's features). So nothing that is
 * saved may point into the C library's own memory or to the stack. The kernel puts these elsewhere each time: that two
 * programs saved one after the other are the same shows that it is so (rules.mk).
 *
 * The kernel maps the file copy on write: what a command does not touch costs nothing.
 */
#include "snapshot.h"

#include <Python.h>
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern char python_begin[], python_end[]; /* snapshot.ld */

enum { POOL_SIZE = 12 << 20, ALIGNMENT = 16 };

static _Alignas(4096) char pool[POOL_SIZE] __attribute__((section(".pool")));
static size_t used;
static size_t outside;          /* how many blocks were taken from no arena */
static void *free_blocks[4096]; /* by size, of the pool while it grows */
static bool recording, full;
bool saved;

void record(void) {
    recording = true;
}

static bool in_pool(const void *place) {
    return (uintptr_t)place - (uintptr_t)pool < POOL_SIZE;
}

static void *take(size_t size, size_t alignment) {
    size_t begin = (used + alignment - 1) & ~(alignment - 1);
    if (size > POOL_SIZE - begin)
        fail("the pool of the launcher is too small");
    used = begin + size;
    return pool + begin;
}

/* --- the functions of the C library, by the linker's --wrap: what was saved is not given back -------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

/* A block of the pool has its size before it. */
static size_t *size_of(void *block) {
    return (size_t *)block - 1;
}

void *__wrap_malloc(size_t size) {
    if (!recording)
        return __real_malloc(size);
    outside++;
    size_t units = size / ALIGNMENT + 1;
    if (units < sizeof free_blocks / sizeof *free_blocks && free_blocks[units]) {
        void **block = free_blocks[units];
        free_blocks[units] = *block;
        return block;
    }
    char *block = (char *)take((units + 1) * ALIGNMENT, ALIGNMENT) + ALIGNMENT;
    *size_of(block) = units * ALIGNMENT;
    return block;
}

void *__wrap_calloc(size_t count, size_t size) {
    if (!recording)
        return __real_calloc(count, size);
    size_t total;
    void *block = __builtin_mul_overflow(count, size, &total) ? NULL : __wrap_malloc(total);
    return block ? memset(block, 0, total) : NULL;
}

void *__wrap_realloc(void *block, size_t size) {
    if (!recording && !in_pool(block))
        return __real_realloc(block, size);
    void *other = __wrap_malloc(size);
    if (other && in_pool(block)) {
        memcpy(other, block, *size_of(block) < size ? *size_of(block) : size);
        __wrap_free(block);
    } else if (other && block)
        fail("the launcher enlarges a block of memory from before it began to record");
    return other;
}

void __wrap_free(void *block) {
    if (!in_pool(block)) {
        __real_free(block);
    } else if (recording) { /* to lie together */
        size_t units = *size_of(block) / ALIGNMENT;
        if (units < sizeof free_blocks / sizeof *free_blocks) {
            *(void **)block = free_blocks[units];
            free_blocks[units] = block;
        }
    }
}

/* What Python keeps of its thread shall be the same each time, too. */
pthread_t __real_pthread_self(void);
pthread_t __wrap_pthread_self(void);

pthread_t __wrap_pthread_self(void) {
    return recording ? (pthread_t)pool : __real_pthread_self();
}

void *take_arena(void *context, size_t size) {
    (void)context;
    if (recording)
        return full ? NULL : take(size, 4096);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

void give_back_arena(void *context, void *arena, size_t size) {
    (void)context;
    if (!in_pool(arena))
        munmap(arena, size);
}

/* So that what comes later lies together, in arenas of its own, and not in every hole that was left. */
static void fill_arenas(void) {
    full = true;
    for (size_t size = ALIGNMENT; size <= 512; size += ALIGNMENT)
        for (size_t before = outside; outside == before;)
            PyObject_Malloc(size);
}

/* --- saving -------------------------------------------------------------------------------------- */

/* Where python_begin is in the program's file. */
static size_t place_in_file(void) {
    const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);
    for (size_t i = 0; i < getauxval(AT_PHNUM); i++, header++)
        if (header->p_type == PT_LOAD && header->p_vaddr <= (uintptr_t)python_begin &&
            header->p_vaddr + header->p_filesz >= (uintptr_t)python_end)
            return header->p_offset + ((uintptr_t)python_begin - header->p_vaddr);
    fail("the launcher is not linked as it must be");
}

static void write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t count = write(fd, data, size);
        if (count < 0)
            fail("cannot write the launcher");
        data += count;
        size -= (size_t)count;
    }
}

void save(const char *path) {
    fill_arenas();
    recording = false;
    saved = true;
    struct stat status;
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    if (self < 0 || copy < 0 || fstat(self, &status) < 0)
        fail("cannot open what the launcher is copied from or to");
    char *program = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, self, 0);
    if (program == MAP_FAILED)
        fail("cannot read the launcher");
    size_t begin = place_in_file(), end = begin + (size_t)(python_end - python_begin);
    write_all(copy, program, begin);
    write_all(copy, python_begin, end - begin);
    write_all(copy, program + end, (size_t)status.st_size - end);
    if (close(copy) < 0)
        fail("cannot write the launcher");
}
