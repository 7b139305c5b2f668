/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the skeleton's host side calls its enclave. Both include this; the enclave is assembly.
 *
 * EENTER with RDI = the address of a struct ecall outside of the enclave, aligned to 8. The enclave reads it once,
 * serves the call, and writes `result`: 0 or -errno. It leaves `result` alone when the address itself is no good, so
 * the caller sets it before. Registers carry nothing back, because __vdso_sgx_enter_enclave shows them to nobody.
 *
 * All memory that arguments point at must lie outside of the enclave and be aligned to 8, else -EFAULT. The enclave
 * touches it in aligned pieces of 8 bytes only, as INTEL-SA-00657 asks.
 */
#ifndef SKELETON_ECALL_H
#define SKELETON_ECALL_H

/* argument[0]: ECALL_GREETING_SIZE bytes, where the greeting goes, with the zeros that end it. */
#define ECALL_INIT 0
/* argument[0]: TARGETINFO, 512 bytes; [1]: report data, 64 bytes; [2]: where the REPORT goes, 432 bytes. */
#define ECALL_REPORT 1

#define ECALL_GREETING_SIZE 32
#define ECALL_ARGUMENTS 3

#define ECALL_OFFSET_ARGUMENTS 8
#define ECALL_OFFSET_RESULT 32
#define ECALL_SIZE 40

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

struct ecall {
    uint64_t number;
    uint64_t argument[ECALL_ARGUMENTS];
    int64_t result;
};

_Static_assert(offsetof(struct ecall, argument) == ECALL_OFFSET_ARGUMENTS, "the enclave reads arguments here");
_Static_assert(offsetof(struct ecall, result) == ECALL_OFFSET_RESULT, "the enclave writes the result here");
_Static_assert(sizeof(struct ecall) == ECALL_SIZE, "the enclave checks this many bytes");
#endif

#endif
