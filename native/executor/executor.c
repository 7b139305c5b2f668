/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executor: walks the plan in the fd that argv[1] names. Static, without libc, started from a sealed memfd, so
 * that neither the host's files nor the planner's memory can be reached from what it becomes.
 */
#include <asm/unistd.h>
#include <stddef.h>

#include "calls.h"
#include "sys.h"
#include "walk.h"

/* The compiler may call these for copies of structs and arrays. */
void *memcpy(void *restrict out, const void *restrict in, size_t size);
void *memset(void *out, int value, size_t size);

void *memcpy(void *restrict out, const void *restrict in, size_t size) {
    void *start = out;
    __asm__ volatile("rep movsb" : "+D"(out), "+S"(in), "+c"(size)::"memory");
    return start;
}

void *memset(void *out, int value, size_t size) {
    void *start = out;
    __asm__ volatile("rep stosb" : "+D"(out), "+c"(size) : "a"(value) : "memory");
    return start;
}

__attribute__((used)) _Noreturn void executor_main(const long *stack);

_Noreturn void executor_main(const long *stack) {
    static struct plan_walk walk;
    long argc = stack[0];
    const char *const *argv = (const char *const *)(stack + 1);
    long fd = argc == 2 ? plan_number(argv[1]) : -1;
    if (fd < 0 || plan_open(&walk, (int)fd, NULL) < 0) {
        call_say("rune-executor: started by `rune` only: argv[1] must name the fd of a plan\n");
        for (;;)
            sys1(__NR_exit_group, 1);
    }
    plan_walk(&walk, 0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call executor_main\n");
