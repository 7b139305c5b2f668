/* SPDX-License-Identifier: Apache-2.0 */
/* The software SGX platform's in-process half, libsgxemu.so. */
#ifndef SGXEMU_H
#define SGXEMU_H

#include <stdint.h>

#include "sgx_backend.h"

enum { SGXEMU_SEED_SIZE = 32 };

/* Counters, for tests and diagnosis. Identities that hold: sud == syscalls attempted in enclaves; aex == sud + faults + async. */
struct sgxemu_stats {
    uint64_t eenter_trapped, eenter_direct, eexit, eresume_trapped, eresume_direct, aex, sud, faults, async, rolled_forward;
};

/* Derives the platform's fuse keys from seed. Returns 0, or -errno: -ENOSYS when Syscall User Dispatch cannot be armed.
 * Must be called once, before the first open. */
int sgxemu_init(const uint8_t seed[SGXEMU_SEED_SIZE]);

/* The emulator's backend once sgxemu_init has succeeded, else NULL. */
const struct sgx_backend *sgxemu_backend(void);

void sgxemu_stats(struct sgxemu_stats *out);

#endif
