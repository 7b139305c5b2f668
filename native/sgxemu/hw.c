/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SGX hardware: three drivers behind the interface of Linux's own.
 *
 * /dev/sgx_enclave (Linux 5.11) and /dev/sgx/enclave (Intel's DCAP driver) take our calls as they are. The legacy
 * driver, /dev/isgx, differs:
 *   - ELRANGE is mapped as a whole before CREATE, and later mappings are changes of protection;
 *   - pages are added one by one, with a mask of what to measure;
 *   - INIT takes a launch token. Our interface has none to give, so it gets an empty one, which processors accept only
 *     where the enclave's signer is the one they are configured for; elsewhere INIT's result is SGX_INVALID_EINITTOKEN.
 * The legacy driver does not share enclaves with forked children.
 *
 * Written from the drivers' headers. No machine with SGX was at hand: everything behind open() is untested.
 */
#define _GNU_SOURCE
#include "hw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sgx_arch.h"

enum { MISC_MAJOR = 10, MAX_LEGACY_FILES = 64 };

static const char legacy_path[] = "/dev/isgx";
static const char *const device_paths[] = {"/dev/sgx_enclave", "/dev/sgx/enclave", legacy_path};

/* Open files of the legacy driver. Its files share one inode, so descriptors are all there is to tell them apart. */
static struct legacy_file {
    bool used;
    int fd;
    uint64_t base, size; /* ELRANGE after CREATE, else 0 */
} legacy_files[MAX_LEGACY_FILES];

static struct legacy_file *find_legacy(int fd) {
    for (int i = 0; i < MAX_LEGACY_FILES; i++)
        if (legacy_files[i].used && legacy_files[i].fd == fd)
            return &legacy_files[i];
    return NULL;
}

static bool remember_legacy(int fd) {
    for (int i = 0; i < MAX_LEGACY_FILES; i++)
        if (!legacy_files[i].used) {
            legacy_files[i] = (struct legacy_file){.used = true, .fd = fd};
            return true;
        }
    errno = EMFILE;
    return false;
}

/* The SGX drivers register misc devices; anything else under such a name is not theirs. */
static bool is_misc_device(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && major(status.st_rdev) == MISC_MAJOR;
}

static int open_device(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (!is_misc_device(fd))
        errno = ENODEV;
    else if (strcmp(path, legacy_path) != 0 || remember_legacy(fd))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int hw_open(const char *path) {
    if (path)
        return open_device(path);
    for (size_t i = 0; i < sizeof device_paths / sizeof *device_paths; i++) {
        int fd = open_device(device_paths[i]);
        if (fd >= 0 || errno != ENOENT)
            return fd;
    }
    errno = ENODEV;
    return -1;
}

static int hw_close(int fd) {
    struct legacy_file *file = find_legacy(fd);
    if (file)
        file->used = false;
    return close(fd);
}

/* ---- The legacy driver ---- */

static int legacy_create(struct legacy_file *file, struct sgx_enclave_create *arg) {
    const struct sgx_secs *secs = (const struct sgx_secs *)arg->src;
    void *range =
        mmap((void *)secs->base, secs->size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED, file->fd, 0);
    if (range == MAP_FAILED)
        return -1;
    int result = ioctl(file->fd, SGX_IOC_ENCLAVE_CREATE, arg);
    if (result == 0) {
        file->base = secs->base;
        file->size = secs->size;
    }
    return result;
}

static int legacy_add_pages(const struct legacy_file *file, struct sgx_enclave_add_pages *arg) {
    for (arg->count = 0; arg->count < arg->length; arg->count += SGX_PAGE_SIZE) {
        struct isgx_enclave_add_page page = {
            .addr = file->base + arg->offset + arg->count,
            .src = arg->src + arg->count,
            .secinfo = arg->secinfo,
            .mrmask = arg->flags & SGX_PAGE_MEASURE ? ISGX_MRMASK_ALL : 0,
        };
        int result = ioctl(file->fd, ISGX_IOC_ENCLAVE_ADD_PAGE, &page);
        if (result != 0)
            return result;
    }
    return 0;
}

static int legacy_init(const struct legacy_file *file, const struct sgx_enclave_init *arg) {
    static const struct sgx_einittoken no_token;
    struct isgx_enclave_init init = {
        .addr = file->base, .sigstruct = arg->sigstruct, .einittoken = (uint64_t)&no_token};
    return ioctl(file->fd, ISGX_IOC_ENCLAVE_INIT, &init);
}

static int hw_ioctl(int fd, unsigned long request, void *arg) {
    struct legacy_file *file = find_legacy(fd);
    if (!file)
        return ioctl(fd, request, arg);
    switch (request) {
    case SGX_IOC_ENCLAVE_CREATE:
        return legacy_create(file, arg);
    case SGX_IOC_ENCLAVE_ADD_PAGES:
        return legacy_add_pages(file, arg);
    case SGX_IOC_ENCLAVE_INIT:
        return legacy_init(file, arg);
    default: /* the rest is newer than the driver */
        errno = ENOTTY;
        return -1;
    }
}

static void *hw_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
    const struct legacy_file *file = find_legacy(fd);
    if (file && file->size && (uint64_t)addr - file->base < file->size)
        return mprotect(addr, length, prot) == 0 ? addr : MAP_FAILED;
    return mmap(addr, length, prot, flags, fd, offset);
}

const struct sgx_backend hw_backend = {
    .name = "hardware",
    .open = hw_open,
    .ioctl = hw_ioctl,
    .mmap = hw_mmap,
    .close = hw_close,
    .enter = hw_enter,
    .sigaction = hw_sigaction,
};
