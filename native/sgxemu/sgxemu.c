/* SPDX-License-Identifier: Apache-2.0 */
/* What libsgxemu.so exports: see sgxemu.h. */
#define _GNU_SOURCE
#include "sgxemu.h"

#include <errno.h>
#include <stdbool.h>

#include "device.h"
#include "enclu.h"
#include "keys.h"
#include "signals.h"
#include "thread.h"
#include "xstate.h"

#define EXPORT __attribute__((visibility("default")))

int sgxemu_enter(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
                 unsigned long r9, struct sgx_enclave_run *run); /* entry.S */

static bool initialised;

static const struct sgx_backend backend = {
    .name = "emulated",
    .open = device_open,
    .ioctl = device_ioctl,
    .mmap = device_mmap,
    .close = device_close,
    .enter = sgxemu_enter,
    .sigaction = signals_sigaction,
};

EXPORT int sgxemu_init(const uint8_t seed[SGXEMU_SEED_SIZE]) {
    int result;
    if (initialised)
        return -EALREADY;
    if (!xstate_init())
        return -ENOSYS;
    result = thread_init();
    if (result != 0)
        return result;
    keys_init(seed, SGXEMU_SEED_SIZE);
    result = signals_init();
    if (result != 0)
        return result;
    initialised = true;
    return 0;
}

EXPORT const struct sgx_backend *sgxemu_backend(void) {
    return initialised ? &backend : NULL;
}

EXPORT void sgxemu_stats(struct sgxemu_stats *out) {
    *out = sgxemu_counters;
}
