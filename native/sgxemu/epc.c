/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building enclaves: ECREATE, EADD and EEXTEND behind the calls of Linux's driver.
 *
 * An open device is a memfd. CREATE gives it the size of ELRANGE; the host maps it at ELRANGE with the permissions it
 * asks for, cut down to those of each page (none for TCS and absent pages, as the processor would have it), and the
 * emulator keeps a second mapping of the whole for itself. Pages, SECS and EPCM are shared memory, so a forked child
 * has the same enclave, as with the driver.
 */
#define _GNU_SOURCE
#include "epc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "einit.h"
#include "xstate.h"

_Static_assert(PROT_READ == SGX_SECINFO_R && PROT_WRITE == SGX_SECINFO_W && PROT_EXEC == SGX_SECINFO_X,
               "page permissions and PROT_* have the same bits");

enum { MAX_FILES = 256, ZERO_SCAN_PAGES = 256 };

/* An open device, found by inode so that duplicated descriptors work. A closed one lives on while it is mapped. */
struct device_file {
    bool used;
    bool closed;
    dev_t dev;
    ino_t ino;
    struct enclave *enclave; /* NULL before CREATE */
};

static struct device_file files[MAX_FILES];
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    dev_t dev;
    ino_t ino;
    int fd;
} provision_device = {.fd = -1};

struct enclave *epc_find(uint64_t address) {
    struct enclave *closed = NULL;
    for (int i = 0; i < MAX_FILES; i++) {
        struct enclave *enclave = __atomic_load_n(&files[i].enclave, __ATOMIC_ACQUIRE);
        if (!enclave || address - enclave->base >= enclave->size)
            continue;
        if (!files[i].closed)
            return enclave;
        closed = enclave; /* where an open enclave replaced a closed one, the open one counts */
    }
    return closed;
}

static struct device_file *find_file(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return NULL;
    for (int i = 0; i < MAX_FILES; i++)
        if (files[i].used && files[i].dev == status.st_dev && files[i].ino == status.st_ino)
            return &files[i];
    errno = ENOTTY;
    return NULL;
}

struct enclave *epc_of_fd(int fd) {
    struct device_file *file = find_file(fd);
    if (file && !file->enclave)
        errno = EINVAL;
    return file ? file->enclave : NULL;
}

/* ---- open and close ---- */

static void destroy(struct device_file *file) {
    struct enclave *enclave = file->enclave;
    __atomic_store_n(&file->enclave, NULL, __ATOMIC_RELEASE);
    if (enclave) {
        munmap(enclave->epc, enclave->size);
        munmap(enclave->pages, enclave->size / SGX_PAGE_SIZE * sizeof *enclave->pages);
        munmap(enclave, sizeof *enclave);
    }
    file->used = false;
}

/* Whether the host may still have the enclave mapped: each page of its first mapping would be ours. */
static bool may_be_mapped(const struct enclave *enclave) {
    for (uint64_t offset = 0; offset < enclave->size; offset += SGX_PAGE_SIZE) {
        if (enclave->pages[offset / SGX_PAGE_SIZE].vma_prot == 0)
            continue;
        /* ENOMEM: nothing is mapped there any more. Something else may be; then the enclave stays, which costs memory
         * only. */
        return msync((void *)(enclave->base + offset), SGX_PAGE_SIZE, MS_ASYNC) == 0;
    }
    return false;
}

static struct device_file *new_file(int fd) {
    struct stat status;
    struct device_file *file = NULL;
    if (fstat(fd, &status) != 0)
        return NULL;
    pthread_mutex_lock(&files_lock);
    for (int i = 0; i < MAX_FILES; i++) {
        if (files[i].used && files[i].closed && !may_be_mapped(files[i].enclave))
            destroy(&files[i]);
        if (!files[i].used && !file)
            file = &files[i];
    }
    if (file)
        *file = (struct device_file){.used = true, .dev = status.st_dev, .ino = status.st_ino};
    pthread_mutex_unlock(&files_lock);
    if (!file)
        errno = ENFILE;
    return file;
}

static int open_provision(void) {
    if (provision_device.fd < 0) {
        struct stat status;
        int fd = memfd_create("sgx_provision", MFD_CLOEXEC);
        if (fd < 0 || fstat(fd, &status) != 0)
            return -1;
        provision_device.fd = fd;
        provision_device.dev = status.st_dev;
        provision_device.ino = status.st_ino;
    }
    return fcntl(provision_device.fd, F_DUPFD_CLOEXEC, 0);
}

int epc_open(const char *path) {
    if (path && (strcmp(path, "/dev/sgx_provision") == 0 || strcmp(path, "/dev/sgx/provision") == 0))
        return open_provision();
    if (path && strcmp(path, "/dev/sgx_enclave") != 0 && strcmp(path, "/dev/sgx/enclave") != 0) {
        errno = ENOENT;
        return -1;
    }
    int fd = memfd_create("sgx_enclave", MFD_CLOEXEC);
    if (fd >= 0 && !new_file(fd)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int epc_close(int fd) {
    struct device_file *file = find_file(fd);
    if (file) {
        pthread_mutex_lock(&files_lock);
        file->closed = true;
        if (!file->enclave || !may_be_mapped(file->enclave))
            destroy(file);
        pthread_mutex_unlock(&files_lock);
    }
    return close(fd);
}

/* ---- CREATE ---- */

static bool is_zero(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

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

static int create(struct device_file *file, int fd, const struct sgx_enclave_create *arg) {
    const struct sgx_secs *secs = (const struct sgx_secs *)arg->src;
    if (file->enclave)
        return -EINVAL;
    if (!secs)
        return -EFAULT;
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
    __atomic_store_n(&file->enclave, enclave, __ATOMIC_RELEASE);
    return 0;
}

/* ---- ADD_PAGES ---- */

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

/* Gives the host's mapping of these pages the permissions that EPCM leaves. */
static void apply_permissions(struct enclave *enclave, uint64_t offset, uint64_t length) {
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

static int add_pages(struct enclave *enclave, int fd, struct sgx_enclave_add_pages *arg) {
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
    apply_permissions(enclave, arg->offset, arg->count);
    return result;
}

/* ---- INIT and PROVISION ---- */

/*
 * Returns EINIT's code, as the out-of-tree drivers do; the in-tree driver says EPERM for all of them. Saying which
 * check failed is what an emulator is for.
 */
static int init(struct enclave *enclave, const struct sgx_enclave_init *arg) {
    const uint64_t privileged = SGX_ATTR_PROVISIONKEY | SGX_ATTR_EINITTOKENKEY;
    uint64_t allowed = enclave->may_provision ? SGX_ATTR_PROVISIONKEY : 0;
    if (enclave->initialised)
        return -EINVAL;
    if (!arg->sigstruct)
        return -EFAULT;
    if (enclave->identity.secs.attributes & privileged & ~allowed)
        return -EACCES;
    return (int)einit(enclave, (const struct sgx_sigstruct *)arg->sigstruct);
}

static int provision(struct enclave *enclave, const struct sgx_enclave_provision *arg) {
    struct stat status;
    if (provision_device.fd < 0 || fstat((int)arg->fd, &status) != 0 || status.st_dev != provision_device.dev ||
        status.st_ino != provision_device.ino)
        return -EINVAL;
    enclave->may_provision = true;
    return 0;
}

static int ioctl_of_enclave(struct enclave *enclave, int fd, unsigned long request, void *arg) {
    int result;
    if (__atomic_exchange_n(&enclave->in_ioctl, 1, __ATOMIC_ACQUIRE))
        return -EBUSY;
    switch ((uint32_t)request) {
    case SGX_IOC_ENCLAVE_ADD_PAGES:
        result = add_pages(enclave, fd, arg);
        break;
    case SGX_IOC_ENCLAVE_INIT:
        result = init(enclave, arg);
        break;
    case SGX_IOC_ENCLAVE_PROVISION:
        result = provision(enclave, arg);
        break;
    default:
        result = -ENOTTY;
    }
    __atomic_store_n(&enclave->in_ioctl, 0, __ATOMIC_RELEASE);
    return result;
}

static bool is_known(unsigned long request) {
    return request == SGX_IOC_ENCLAVE_CREATE || request == SGX_IOC_ENCLAVE_ADD_PAGES ||
           request == SGX_IOC_ENCLAVE_INIT || request == SGX_IOC_ENCLAVE_PROVISION;
}

int epc_ioctl(int fd, unsigned long request, void *arg) {
    struct device_file *file = find_file(fd);
    int result;
    if (!file)
        return -1;
    if (!is_known((uint32_t)request))
        result = -ENOTTY;
    else if (!arg)
        result = -EFAULT;
    else if ((uint32_t)request == SGX_IOC_ENCLAVE_CREATE)
        result = create(file, fd, arg);
    else
        result = file->enclave ? ioctl_of_enclave(file->enclave, fd, request, arg) : -EINVAL;
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

/* ---- mmap ---- */

static void *fail(int error) {
    errno = error;
    return MAP_FAILED;
}

void *epc_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
    struct device_file *file = find_file(fd);
    const int fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (!file)
        return mmap(addr, length, prot, flags, fd, offset);
    if ((flags & MAP_TYPE) == MAP_PRIVATE)
        return fail(EINVAL);
    struct enclave *enclave = file->enclave;
    uint64_t start = (uint64_t)addr - (enclave ? enclave->base : 0);
    length = (length + SGX_PAGE_SIZE - 1) & ~(SGX_PAGE_SIZE - 1);
    if (!enclave || start >= enclave->size || length > enclave->size - start) {
        if (enclave && enclave->initialised)
            return fail(EACCES);
        /* Before CREATE hosts map the device to find room for ELRANGE. */
        return mmap(addr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    }
    if (length == 0 || (start & (SGX_PAGE_SIZE - 1)))
        return fail(EINVAL);
    for (uint64_t at = start; at < start + length; at += SGX_PAGE_SIZE) {
        const struct epc_page *page = epc_page(enclave, at);
        int most = page->type == SGX_PT_TCS ? PROT_READ | PROT_WRITE : page->permissions;
        if (page->valid && (prot & (PROT_READ | PROT_WRITE | PROT_EXEC) & ~most))
            return fail(EACCES);
    }
    void *mapping = mmap(addr, length, PROT_NONE, MAP_SHARED | MAP_NORESERVE | fixed, fd, (off_t)start);
    if (mapping == MAP_FAILED)
        return MAP_FAILED;
    if (mapping != addr) { /* without MAP_FIXED, and the place is taken */
        munmap(mapping, length);
        return fail(EINVAL);
    }
    for (uint64_t at = start; at < start + length; at += SGX_PAGE_SIZE)
        epc_page(enclave, at)->vma_prot = (uint8_t)(prot & (PROT_READ | PROT_WRITE | PROT_EXEC));
    apply_permissions(enclave, start, length);
    return mapping;
}
