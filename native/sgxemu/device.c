/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulated device: open, ioctl, mmap and close with the interface and the errors of Linux's driver.
 *
 * An open device is a memfd. CREATE gives it the size of ELRANGE; the host maps it at ELRANGE with the permissions it
 * asks for, cut down to those of each page (none for TCS and absent pages, as the processor would have it), and the
 * emulator keeps a second mapping of the whole for itself. Pages, SECS and EPCM are shared memory, so a forked child
 * has the same enclave, as with the driver.
 */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "einit.h"

enum { MAX_FILES = 256 };

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

struct enclave *device_find_enclave(uint64_t address) {
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

struct enclave *device_enclave(int fd) {
    struct device_file *file = find_file(fd);
    if (file && !file->enclave)
        errno = EINVAL;
    return file ? file->enclave : NULL;
}

/* ---- open and close ---- */

static void destroy(struct device_file *file) {
    struct enclave *enclave = file->enclave;
    __atomic_store_n(&file->enclave, NULL, __ATOMIC_RELEASE);
    if (enclave)
        epc_destroy(enclave);
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

int device_open(const char *path) {
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

int device_close(int fd) {
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

/* ---- ioctl ---- */

static int create(struct device_file *file, int fd, const struct sgx_enclave_create *arg) {
    struct enclave *enclave;
    if (file->enclave)
        return -EINVAL;
    if (!arg->src)
        return -EFAULT;
    int result = epc_create(fd, (const struct sgx_secs *)arg->src, &enclave);
    if (result == 0)
        __atomic_store_n(&file->enclave, enclave, __ATOMIC_RELEASE);
    return result;
}

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
        result = epc_add_pages(enclave, fd, arg);
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

int device_ioctl(int fd, unsigned long request, void *arg) {
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

void *device_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
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
    epc_apply_permissions(enclave, start, length);
    return mapping;
}
