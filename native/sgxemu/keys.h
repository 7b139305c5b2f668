/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_KEYS_H
#define SGXEMU_KEYS_H

#include <stdint.h>

#include "sgx_arch.h"

/* What EINIT keeps of an enclave's identity beyond the public fields of SECS. */
struct enclave_identity {
    struct sgx_secs secs;
    uint8_t isvfamilyid[16];
    uint8_t isvextprodid[16];
};

/* Derives the platform's secrets. Call once, before anything else. */
void keys_init(const uint8_t *seed, unsigned seed_size);

/* The made-up platform's security version. */
extern const uint8_t platform_cpusvn[16];

/* EREPORT: fills report for the enclave target describes. */
void make_report(const struct enclave_identity *identity, const struct sgx_targetinfo *target,
                 const uint8_t reportdata[SGX_REPORTDATA_SIZE], struct sgx_report *report);

/*
 * EGETKEY. Returns an enum sgx_error and, on SGX_SUCCESS, the key; or -1 where the processor raises #GP.
 */
int derive_key(const struct enclave_identity *identity, const struct sgx_keyrequest *request,
               uint8_t key[SGX_KEY_SIZE]);

#endif
