/* SPDX-License-Identifier: Apache-2.0 */
/* Building enclaves: ECREATE, EADD and EEXTEND (SDM volume 3D), with the checks of the processor and of the driver. */
#define _GNU_SOURCE
#include "epc.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "xstate.h"

_Static_assert(PROT_READ == SGX_SECINFO_R && PROT_WRITE == SGX_SECINFO_W && PROT_EXEC == SGX_SECINFO_X,
               "page permissions and PROT_* have the same bits");

/* ---- ECREATE ---- */

/* ECREATE's checks of SECS. */
static bool secs_is_valid(const struct sgx_secs *secs) {
    const uint64_t attributes =
        SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_PROVISIONKEY | SGX_ATTR_EINITTOKENKEY | SGX_ATTR_KSS;
    const uint64_t size_max = 1ul << 47; /* the user's half of the address space */
    if (secs->size < 2 * SGX_PAGE_SIZE || secs->size > size_max || (secs->size & (secs->size - 1)) ||
        (secs->base & (secs->size - 1)) || secs->base + secs->size > size_max)
        return false;
    if ((secs->attributes & ~attributes) || !(secs->attributes & SGX_ATTR_MODE64BIT))
        return false;
    if ((secs->xfrm & SGX_XFRM_LEGACY) != SGX_XFRM_LEGACY || (secs->xfrm & ~xstate_supported) ||
        (secs->miscselect & ~(uint32_t)SGX_MISCSELECT_EXINFO))
        return false;
    size_t frame = xstate_size(secs->xfrm) + sizeof(struct sgx_gprsgx);
    if (secs->miscselect & SGX_MISCSELECT_EXINFO)
        frame += sizeof(struct sgx_exinfo);
    if (secs->ssaframesize * SGX_PAGE_SIZE < frame)
        return false;
    if (!(secs->attributes & SGX_ATTR_KSS) && (secs->configsvn || !is_zero(secs->configid, sizeof secs->configid)))
        return false;
    return secs->cet_leg_bitmap_offset == 0 && secs->cet_attributes == 0 &&
           is_zero(secs->reserved1, sizeof secs->reserved1) && is_zero(secs->reserved2, sizeof secs->reserved2) &&
           is_zero(secs->reserved3, sizeof secs->reserved3) && is_zero(secs->reserved4, sizeof secs->reserved4);
}

static void *map_shared(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void measure_ecreate(struct enclave *enclave) {
    struct {
        char tag[8];
        uint32_t ssaframesize;
        uint64_t size;
        uint8_t zero[44];
    } __attribute__((packed)) record = {"ECREATE", enclave->identity.secs.ssaframesize, enclave->size, {0}};
    sha256_init(&enclave->measurement);
    sha256_update(&enclave->measurement, &record, sizeof record);
}

int epc_create(int fd, const struct sgx_secs *secs, struct enclave **created) {
    if (!secs_is_valid(secs))
        return -EIO; /* what the driver makes of a faulting ECREATE */
    if (ftruncate(fd, (off_t)secs->size) != 0)
        return -errno;

    struct enclave *enclave = map_shared(sizeof *enclave);
    if (!enclave)
        return -ENOMEM;
    enclave->base = secs->base;
    enclave->size = secs->size;
    enclave->identity.secs = *secs;
    /* These two are the processor's to fill. */
    memset(enclave->identity.secs.mrenclave, 0, sizeof secs->mrenclave);
    memset(enclave->identity.secs.mrsigner, 0, sizeof secs->mrsigner);
    enclave->identity.secs.isvprodid = enclave->identity.secs.isvsvn = 0;
    enclave->pages = map_shared(secs->size / SGX_PAGE_SIZE * sizeof *enclave->pages);
    enclave->epc = mmap(NULL, secs->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (!enclave->pages || enclave->epc == MAP_FAILED) {
        if (enclave->pages)
            munmap(enclave->pages, secs->size / SGX_PAGE_SIZE * sizeof *enclave->pages);
        munmap(enclave, sizeof *enclave);
        return -ENOMEM;
    }
    measure_ecreate(enclave);
    *created = enclave;
    return 0;
}

void epc_destroy(struct enclave *enclave) {
    munmap(enclave->epc, enclave->size);
    munmap(enclave->pages, enclave->size / SGX_PAGE_SIZE * sizeof *enclave->pages);
    munmap(enclave, sizeof *enclave);
}

/* ---- EADD and EEXTEND ---- */

/* The driver's sgx_validate_secinfo(). */
static bool secinfo_is_valid(const struct sgx_secinfo *secinfo) {
    uint64_t permissions = secinfo->flags & SGX_SECINFO_PERMISSION_MASK;
    uint64_t type = secinfo->flags & SGX_SECINFO_PAGE_TYPE_MASK;
    if (secinfo->flags & ~(SGX_SECINFO_PERMISSION_MASK | SGX_SECINFO_PAGE_TYPE_MASK))
        return false;
    if (type != SGX_SECINFO_REG && type != SGX_SECINFO_TCS)
        return false;
    if (((permissions & SGX_SECINFO_W) && !(permissions & SGX_SECINFO_R)) || (type == SGX_SECINFO_TCS && permissions))
        return false;
    return is_zero(secinfo->reserved, sizeof secinfo->reserved);
}

/* EADD's checks of a TCS, and the fields it resets. */
static bool prepare_tcs(struct sgx_tcs *tcs) {
    if ((tcs->flags & ~1ul) || ((tcs->ossa | tcs->ofsbase | tcs->ogsbase) & (SGX_PAGE_SIZE - 1)) || tcs->ocetssa ||
        tcs->oprevssp || !is_zero(tcs->reserved, sizeof tcs->reserved))
        return false;
    tcs->state = 0;
    tcs->flags = 0;
    tcs->cssa = 0;
    tcs->aep = 0;
    return true;
}

static void measure_page(struct enclave *enclave, uint64_t offset, uint64_t flags, bool extend) {
    struct {
        char tag[8];
        uint64_t offset, flags;
        uint8_t zero[40];
    } eadd = {"EADD", offset, flags, {0}};
    sha256_update(&enclave->measurement, &eadd, sizeof eadd);
    for (uint64_t part = 0; extend && part < SGX_PAGE_SIZE; part += SGX_EEXTEND_SIZE) {
        struct {
            char tag[8];
            uint64_t offset;
            uint8_t zero[48];
        } eextend = {"EEXTEND", offset + part, {0}};
        sha256_update(&enclave->measurement, &eextend, sizeof eextend);
        sha256_update(&enclave->measurement, enclave->epc + offset + part, SGX_EEXTEND_SIZE);
    }
}

static bool page_is_zero(const void *page) {
    const uint64_t *words = page;
    for (size_t i = 0; i < SGX_PAGE_SIZE / sizeof *words; i++)
        if (words[i])
            return false;
    return true;
}

/* The memfd already reads as zero there, and large heaps are mostly zero: leave such pages without memory. */
static bool may_skip_copy(const uint8_t *source) {
    unsigned char resident;
    return mincore((void *)(uintptr_t)source, SGX_PAGE_SIZE, &resident) == 0 && page_is_zero(source);
}

static int add_page(struct enclave *enclave, int fd, const uint8_t *source, uint64_t offset, uint64_t flags,
                    bool measure) {
    struct epc_page *page = epc_page(enclave, offset);
    bool is_tcs = (flags & SGX_SECINFO_PAGE_TYPE_MASK) == SGX_SECINFO_TCS;
    if (page->valid)
        return -EBUSY;
    /* pwrite, so that a bad source is EFAULT, as with the driver, and not a signal. */
    if (!may_skip_copy(source) && pwrite(fd, source, SGX_PAGE_SIZE, (off_t)offset) != (ssize_t)SGX_PAGE_SIZE)
        return errno ? -errno : -EIO;
    if (is_tcs && !prepare_tcs((struct sgx_tcs *)(enclave->epc + offset)))
        return -EIO;
    measure_page(enclave, offset, flags, measure);
    page->type = is_tcs ? SGX_PT_TCS : SGX_PT_REG;
    page->permissions = flags & SGX_SECINFO_PERMISSION_MASK;
    page->busy = 0;
    page->valid = true;
    return 0;
}

static int effective_prot(const struct epc_page *page) {
    return page->valid && page->type == SGX_PT_REG ? page->permissions & page->vma_prot : PROT_NONE;
}

void epc_apply_permissions(struct enclave *enclave, uint64_t offset, uint64_t length) {
    for (uint64_t start = offset, end; start < offset + length; start = end) {
        int prot = effective_prot(epc_page(enclave, start));
        bool mapped = epc_page(enclave, start)->vma_prot != 0;
        for (end = start + SGX_PAGE_SIZE; end < offset + length; end += SGX_PAGE_SIZE)
            if (effective_prot(epc_page(enclave, end)) != prot || (epc_page(enclave, end)->vma_prot != 0) != mapped)
                break;
        if (mapped)
            mprotect((void *)(enclave->base + start), end - start, prot);
    }
}

int epc_add_pages(struct enclave *enclave, int fd, struct sgx_enclave_add_pages *arg) {
    const struct sgx_secinfo *secinfo = (const struct sgx_secinfo *)arg->secinfo;
    int result = 0;
    if (enclave->initialised || ((arg->offset | arg->length | arg->src) & (SGX_PAGE_SIZE - 1)) || arg->length == 0 ||
        arg->offset >= enclave->size || arg->length > enclave->size - arg->offset)
        return -EINVAL;
    if (!secinfo)
        return -EFAULT;
    if (!secinfo_is_valid(secinfo))
        return -EINVAL;
    for (arg->count = 0; arg->count < arg->length && result == 0;) {
        result = add_page(enclave, fd, (const uint8_t *)(arg->src + arg->count), arg->offset + arg->count,
                          secinfo->flags, arg->flags & SGX_PAGE_MEASURE);
        if (result == 0)
            arg->count += SGX_PAGE_SIZE;
    }
    epc_apply_permissions(enclave, arg->offset, arg->count);
    return result;
}
