/* SPDX-License-Identifier: Apache-2.0 */
/* EINIT (SDM volume 3D): the checks in the manual's order, each with the manual's error code. */
#include "einit.h"

#include <string.h>

#include "bytes.h"
#include "rsa3.h"

static bool has_valid_form(const struct sgx_sigstruct *sig) {
    static const uint8_t header[12] = SGX_SIGSTRUCT_HEADER, header2[16] = SGX_SIGSTRUCT_HEADER2;
    /* The manual wants the type to be 0; signing tools set its top bit for debug enclaves, and those load. */
    return memcmp(sig->header, header, sizeof header) == 0 && (sig->type & ~SGX_SIGSTRUCT_TYPE_DEBUG) == 0 &&
           (sig->vendor == 0 || sig->vendor == SGX_SIGSTRUCT_VENDOR_INTEL) &&
           memcmp(sig->header2, header2, sizeof header2) == 0 && sig->exponent == 3 &&
           is_zero(sig->reserved1, sizeof sig->reserved1) && is_zero(sig->reserved2, sizeof sig->reserved2) &&
           is_zero(sig->reserved3, sizeof sig->reserved3) && is_zero(sig->reserved4, sizeof sig->reserved4);
}

enum sgx_error sigstruct_verify(const struct sgx_sigstruct *sig) {
    uint8_t digest[SHA256_SIZE];
    struct sha256 hash;

    if (!has_valid_form(sig))
        return SGX_INVALID_SIG_STRUCT;
    sha256_init(&hash);
    sha256_update(&hash, sig, SGX_SIGSTRUCT_SIGNED_RUN);
    sha256_update(&hash, (const uint8_t *)sig + SGX_SIGSTRUCT_BODY_OFFSET, SGX_SIGSTRUCT_SIGNED_RUN);
    sha256_final(&hash, digest);
    if (!rsa3_verify(sig->modulus, sig->signature, sig->q1, sig->q2, digest))
        return SGX_INVALID_SIGNATURE;
    return SGX_SUCCESS;
}

static bool differs_under_mask(uint64_t have, uint64_t want, uint64_t mask) {
    return ((have ^ want) & mask) != 0;
}

enum sgx_error einit(struct enclave *enclave, const struct sgx_sigstruct *sig) {
    struct enclave_identity *identity = &enclave->identity;
    struct sgx_secs *secs = &identity->secs;
    struct sha256 measurement = enclave->measurement;
    uint8_t mrenclave[SHA256_SIZE];

    enum sgx_error error = sigstruct_verify(sig);
    if (error)
        return error;
    sha256_final(&measurement, mrenclave);
    if (memcmp(mrenclave, sig->enclavehash, sizeof mrenclave) != 0)
        return SGX_INVALID_MEASUREMENT;
    if (differs_under_mask(secs->attributes, sig->attributes, sig->attributes_mask) ||
        differs_under_mask(secs->xfrm, sig->xfrm, sig->xfrm_mask) ||
        differs_under_mask(secs->miscselect, sig->miscselect, sig->miscmask) ||
        (sig->cet_attributes & sig->cet_attributes_mask))
        return SGX_INVALID_ATTRIBUTE;

    memcpy(secs->mrenclave, mrenclave, sizeof secs->mrenclave);
    sha256(sig->modulus, sizeof sig->modulus, secs->mrsigner);
    secs->isvprodid = sig->isvprodid;
    secs->isvsvn = sig->isvsvn;
    if (secs->attributes & SGX_ATTR_KSS) {
        memcpy(identity->isvfamilyid, sig->isvfamilyid, sizeof identity->isvfamilyid);
        memcpy(identity->isvextprodid, sig->isvextprodid, sizeof identity->isvextprodid);
    }
    secs->attributes |= SGX_ATTR_INIT;
    __atomic_store_n(&enclave->initialised, true, __ATOMIC_RELEASE);
    return SGX_SUCCESS;
}
