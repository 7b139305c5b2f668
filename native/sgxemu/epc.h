/* SPDX-License-Identifier: Apache-2.0 */
/* Enclaves and their pages: what the processor keeps in SECS and EPCM, and the leaves that build it. */
#ifndef SGXEMU_EPC_H
#define SGXEMU_EPC_H

#include <stdbool.h>
#include <stdint.h>

#include "keys.h"
#include "sgx_arch.h"
#include "sha256.h"

/* EPCM entry of one page. */
struct epc_page {
    bool valid;
    uint8_t type;        /* enum sgx_page_type */
    uint8_t permissions; /* SECINFO R, W, X */
    uint8_t vma_prot;    /* PROT_* with which the host mapped it */
    uint32_t busy;       /* TCS: thread id of the logical processor inside, 0 when free */
};

/* Lives in shared memory: a forked child runs the same enclave, as with Linux's driver. */
struct enclave {
    uint64_t base; /* ELRANGE */
    uint64_t size;
    uint8_t *epc; /* the pages as the emulator reaches them, whatever the host's mapping allows */
    struct epc_page *pages;
    struct enclave_identity identity;
    struct sha256 measurement;
    bool initialised;
    bool may_provision;
    uint32_t in_ioctl;
};

/* ECREATE; fd becomes the enclave's memory. Returns -errno, -EIO where ECREATE faults. */
int epc_create(int fd, const struct sgx_secs *secs, struct enclave **created);
void epc_destroy(struct enclave *enclave);

/* EADD and EEXTEND of a run of pages; arg->count says how far it came. Returns -errno. */
int epc_add_pages(struct enclave *enclave, int fd, struct sgx_enclave_add_pages *arg);

/* Gives the host's mapping of these pages the permissions that EPCM leaves. */
void epc_apply_permissions(struct enclave *enclave, uint64_t offset, uint64_t length);

static inline struct epc_page *epc_page(struct enclave *enclave, uint64_t offset) {
    return &enclave->pages[offset / SGX_PAGE_SIZE];
}

#endif
