/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter of plans, shared by the executor (no libc) and the runelet.
 *
 * It calls no library function, so that it means the same in both programs.
 */
#ifndef EXECUTOR_WALK_H
#define EXECUTOR_WALK_H

#include <stdint.h>

#include "plan.h"

struct plan_walk;

/* Carries out a call that the walk itself does not know (PAL_LOAD ...). Returns >= 0, or -errno; then it may point
 * error_text to a sentence that is sent along. */
typedef long (*plan_extra_fn)(struct plan_walk *w, uint32_t call, const uint64_t arg[6]);

struct plan_walk {
    unsigned char *data;
    const struct plan_op *ops;
    uint32_t op_count;
    uint32_t op; /* the op being walked */
    int plan_fd;
    int sync_fd;            /* -1 once nobody waits for this process */
    plan_extra_fn extra;    /* may be NULL */
    const char *error_text; /* more words for the next error, or NULL */
    long slot[PLAN_SLOTS];
};

/* Maps the plan in fd privately and relocates it. Returns 0 or -errno. */
long plan_open(struct plan_walk *w, int fd, plan_extra_fn extra);

/* Walks from first_op; never returns. */
_Noreturn void plan_walk(struct plan_walk *w, uint32_t first_op);

/* Sends a line to the log of the rune command that waits; does nothing when none does. */
void plan_log(struct plan_walk *w, enum plan_log level, const char *text);

/* Sends the failure of the current op to who waits (or writes it to stderr) and exits. */
_Noreturn void plan_fail(struct plan_walk *w, int error_number);

/* The decimal number in text, or -1. */
long plan_number(const char *text);

#endif
