/* SPDX-License-Identifier: Apache-2.0 */
/* The software SGX platform's in-process half, libsgxemu.so. */
#ifndef SGXEMU_H
#define SGXEMU_H

#include <stdint.h>

#include "sgx_backend.h"

enum { SGXEMU_SEED_SIZE = 32 };

/*
 * Counters of this process, for tests and diagnosis. sud is the number of system calls attempted in enclaves, and
 * aex == sud + faults + async holds while no thread is in the emulator.
 */
struct sgxemu_stats {
    uint64_t eenter_trapped, eenter_direct; /* direct: an entry that a signal made start again counts twice */
    uint64_t eexit;
    uint64_t eresume_trapped, eresume_direct;
    uint64_t aex;            /* asynchronous exits */
    uint64_t sud;            /* of them system calls, caught by Syscall User Dispatch */
    uint64_t faults;         /* of them other exceptions */
    uint64_t async;          /* of them interruptions by signals */
    uint64_t rolled_forward; /* signals that hit the last instructions of an entry */
};

/* Derives the platform's fuse keys from seed. Returns 0, or -errno: -ENOSYS when Syscall User Dispatch cannot be armed.
 * Must be called once, before the first open. */
int sgxemu_init(const uint8_t seed[SGXEMU_SEED_SIZE]);

/* The emulator's backend once sgxemu_init has succeeded, else NULL. */
const struct sgx_backend *sgxemu_backend(void);

void sgxemu_stats(struct sgxemu_stats *out);

#endif
