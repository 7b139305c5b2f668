/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGX_HW_H
#define SGX_HW_H

#include <signal.h>
#include <stdint.h>

#include "sgx_backend.h"

/* SGX hardware through Linux's driver or one of the two out-of-tree drivers. */
extern const struct sgx_backend hw_backend;

/* The address of a function that the kernel's vDSO exports, or NULL. */
void *vdso_symbol(const char *name);

/* Entry through the vDSO or, on kernels without it, through our own ENCLU instruction. */
int hw_enter(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
             unsigned long r9, struct sgx_enclave_run *run);
int hw_sigaction(int sig, const struct sigaction *act, struct sigaction *old);

#endif
