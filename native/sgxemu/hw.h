/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGX_HW_H
#define SGX_HW_H

#include "sgx_backend.h"

/* SGX hardware through Linux's driver or one of the two out-of-tree drivers. */
extern const struct sgx_backend hw_backend;

/* The address of a function that the kernel's vDSO exports, or NULL. */
void *vdso_symbol(const char *name);

#endif
