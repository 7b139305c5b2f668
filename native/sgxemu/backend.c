/* SPDX-License-Identifier: Apache-2.0 */
/* Which SGX a process has: part of libsgxbackend.a, which enclave runtimes link. */
#define _GNU_SOURCE
#include "sgx_backend.h"

#include <dlfcn.h>
#include <stddef.h>

#include "hw.h"

/*
 * The emulator is found only where someone loaded it, globally, and gave it a seed: the runelet does that when
 * emulation was asked for. An emulator that was asked for and could not start is the runelet's error, not a reason to
 * try the hardware.
 */
const struct sgx_backend *sgx_backend(void) {
    const struct sgx_backend *(*emulator)(void) = NULL;
    *(void **)&emulator = dlsym(RTLD_DEFAULT, "sgxemu_backend");
    const struct sgx_backend *emulated = emulator ? emulator() : NULL;
    return emulated ? emulated : &hw_backend;
}
