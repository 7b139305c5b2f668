/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_EINIT_H
#define SGXEMU_EINIT_H

#include "epc.h"

/* SIGSTRUCT by itself: header, exponent, signature, q1 and q2. */
enum sgx_error sigstruct_verify(const struct sgx_sigstruct *sig);

/* EINIT without a launch token, for any signer, as on processors with flexible launch control. */
enum sgx_error einit(struct enclave *enclave, const struct sgx_sigstruct *sig);

#endif
