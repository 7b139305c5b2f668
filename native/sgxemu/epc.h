/* SPDX-License-Identifier: Apache-2.0 */
/* Enclaves and their pages: what the processor keeps in SECS and EPCM, and the driver's ioctls that build it. */
#ifndef SGXEMU_EPC_H
#define SGXEMU_EPC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

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

/* The four driver calls: as open, ioctl, mmap and close, setting errno. */
int epc_open(const char *path);
int epc_ioctl(int fd, unsigned long request, void *arg);
void *epc_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
int epc_close(int fd);

/* The enclave whose ELRANGE holds address, or NULL. Safe in signal handlers. */
struct enclave *epc_find(uint64_t address);

/* The enclave behind fd, or NULL and errno. */
struct enclave *epc_of_fd(int fd);

static inline struct epc_page *epc_page(struct enclave *enclave, uint64_t offset) {
    return &enclave->pages[offset / SGX_PAGE_SIZE];
}

#endif
