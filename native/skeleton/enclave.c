/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the skeleton's enclave and calls it: see enclave.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "complain.h"
#include "ecall.h"
#include "enclave.h"
#include "image.h"
#include "pal.h"
#include "sgx_arch.h"

enum { BUSY_TIMEOUT_S = 1 };

/* Reserves the enclave's range of addresses, which is aligned to its size, or begins at 0 to protect it. */
static int reserve_range(struct enclave *enclave, const struct image *image) {
    if (image->protects_null) {
        void *wanted = (void *)image->offset; /* nobody may map anything below */
        size_t length = image->enclave_size - image->offset;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        if (mmap(wanted, length, PROT_NONE, flags, -1, 0) == MAP_FAILED) {
            int error = errno;
            complain("cannot reserve the enclave's addresses from %p, %zu bytes: %s", wanted, length, strerror(error));
            return -error;
        }
        enclave->base = 0;
        enclave->size = image->enclave_size;
        enclave->reserved = (uint64_t)wanted;
        return 0;
    }
    uint64_t size = image->enclave_size;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *start = mmap(NULL, 2 * size, PROT_NONE, flags, -1, 0);
    if (start == MAP_FAILED) {
        int error = errno;
        complain("cannot reserve %lu bytes for the enclave: %s", size, strerror(error));
        return -error;
    }
    enclave->base = ((uint64_t)start + size - 1) & ~(size - 1);
    enclave->size = size;
    enclave->reserved = enclave->base;
    uint64_t before = enclave->base - (uint64_t)start;
    if (before)
        munmap(start, before);
    munmap((void *)(enclave->base + size), size - before);
    return 0;
}

static int create(struct enclave *enclave, const struct image *image, const struct sgx_sigstruct *sigstruct,
                  bool debug) {
    struct sgx_secs secs __attribute__((aligned(SGX_PAGE_SIZE))) = {
        .size = enclave->size,
        .base = enclave->base,
        .ssaframesize = image->ssa_frame_pages,
        .miscselect = sigstruct->miscselect,
        .attributes = sigstruct->attributes | (debug ? SGX_ATTR_DEBUG : 0),
        .xfrm = sigstruct->xfrm,
    };
    struct sgx_enclave_create request = {.src = (uint64_t)&secs};
    if (enclave->backend->ioctl(enclave->fd, SGX_IOC_ENCLAVE_CREATE, &request) == 0)
        return 0;
    int error = errno;
    complain("ECREATE failed rc=%d, err=%d. (%s)", -1, error, strerror(error));
    return -error;
}

/* Adds and measures length bytes of the image from start on. */
static int add_pages(struct enclave *enclave, const struct image *image, uint64_t start, uint64_t length,
                     uint64_t flags) {
    struct sgx_secinfo secinfo __attribute__((aligned(64))) = {.flags = flags};
    /* A signal may end the request early; count says how far it came. */
    while (length) {
        struct sgx_enclave_add_pages request = {
            .src = (uint64_t)image->pages + start,
            .offset = image->offset + start,
            .length = length,
            .secinfo = (uint64_t)&secinfo,
            .flags = SGX_PAGE_MEASURE,
        };
        int result = enclave->backend->ioctl(enclave->fd, SGX_IOC_ENCLAVE_ADD_PAGES, &request);
        int error = result < 0 ? errno : request.count ? 0 : EIO;
        if (error && error != EINTR && error != EAGAIN) {
            uint64_t where = request.offset + request.count;
            complain("EADD failed rc=%d. (%s, at offset %#lx)", -error, strerror(error), where);
            return -error;
        }
        start += request.count;
        length -= request.count;
    }
    return 0;
}

/* EINIT's answers: SDM, volume 3D, "Error Codes" of EINIT. */
static const char *einit_error(int code) {
    switch (code) {
    case SGX_INVALID_SIG_STRUCT:
        return "SGX_INVALID_SIG_STRUCT: the SIGSTRUCT's header, exponent or reserved bytes are wrong";
    case SGX_INVALID_ATTRIBUTE:
        return "SGX_INVALID_ATTRIBUTE: the enclave's attributes are not those that were signed";
    case SGX_INVALID_MEASUREMENT:
        return "SGX_INVALID_MEASUREMENT: the enclave is not the one that was signed";
    case SGX_INVALID_SIGNATURE:
        return "SGX_INVALID_SIGNATURE: the SIGSTRUCT's signature, q1 or q2 is wrong";
    case SGX_INVALID_EINITTOKEN:
        return "SGX_INVALID_EINITTOKEN: the platform wants a launch token, and the skeleton has none";
    default:
        return "the platform does not say why";
    }
}

static int initialise(struct enclave *enclave, struct sgx_sigstruct *sigstruct) {
    struct sgx_enclave_init request = {.sigstruct = (uint64_t)sigstruct};
    int result = enclave->backend->ioctl(enclave->fd, SGX_IOC_ENCLAVE_INIT, &request);
    if (result == 0)
        return 0;
    /* Linux answers -EPERM for whatever EINIT says; other platforms answer EINIT's code. */
    int error = result < 0 ? errno : EPERM;
    complain("EINIT failed rc=%d (%s); `runectl inspect %s --image %s` checks every step", result < 0 ? -error : result,
             einit_error(result), SIGSTRUCT_PATH, IMAGE_PATH);
    return -error;
}

static int map_pages(struct enclave *enclave, const struct image *image) {
    uint8_t *start = (uint8_t *)enclave->base + image->offset;
    const int flags = MAP_SHARED | MAP_FIXED;
    const struct sgx_backend *backend = enclave->backend;
    if (backend->mmap(start, SGX_PAGE_SIZE, PROT_READ | PROT_WRITE, flags, enclave->fd, 0) == MAP_FAILED ||
        backend->mmap(start + SGX_PAGE_SIZE, image->mmap_size - SGX_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                      flags, enclave->fd, 0) == MAP_FAILED) {
        int error = errno;
        complain("cannot map the enclave's pages: %s", strerror(error));
        return -error;
    }
    enclave->tcs = (uint64_t)start;
    return 0;
}

static void describe(const struct enclave *enclave, const struct image *image, const struct sgx_sigstruct *sigstruct) {
    uint64_t first = enclave->base + image->offset;
    dprintf(STDOUT_FILENO, "platform: %s\n", enclave->backend->name);
    dprintf(STDOUT_FILENO, "sig.attrs %#lx, sig.attrs_mask %#lx\n", sigstruct->attributes, sigstruct->attributes_mask);
    dprintf(STDOUT_FILENO, "probed xfrm %#lx, sig.xfrm %#lx, sig.xfrm_mask %#lx\n", probed_xfrm(), sigstruct->xfrm,
            sigstruct->xfrm_mask);
    if (!image->protects_null)
        dprintf(STDOUT_FILENO, "the enclave is not protected against null dereference (see runectl sign -n)\n");
    dprintf(STDOUT_FILENO, "enclave range [%#lx, %#lx], length %lu-byte\n", enclave->base,
            enclave->base + enclave->size - 1, enclave->size);
    dprintf(STDOUT_FILENO, "enclave mmap [%#lx, %#lx]\n", first, first + image->mmap_size - 1);
    dprintf(STDOUT_FILENO, "load area [%#lx, %#lx]\n", first, first + image->size - 1);
}

static int build(struct enclave *enclave, const struct image *image, struct sgx_sigstruct *sigstruct, bool debug) {
    int result = reserve_range(enclave, image);
    if (result == 0)
        result = create(enclave, image, sigstruct, debug);
    if (result == 0)
        result = add_pages(enclave, image, 0, SGX_PAGE_SIZE, SGX_SECINFO_TCS);
    if (result == 0)
        result = add_pages(enclave, image, SGX_PAGE_SIZE, image->mmap_size - SGX_PAGE_SIZE,
                           SGX_SECINFO_REG | SGX_SECINFO_R | SGX_SECINFO_W | SGX_SECINFO_X);
    if (result == 0)
        result = initialise(enclave, sigstruct);
    if (result == 0)
        result = map_pages(enclave, image);
    if (result == 0 && debug)
        describe(enclave, image, sigstruct);
    return result;
}

int enclave_load(struct enclave *enclave, bool debug) {
    struct sgx_sigstruct sigstruct __attribute__((aligned(SGX_PAGE_SIZE)));
    struct image image;
    enclave->backend = sgx_backend();
    enclave->fd = -1;
    enclave->size = 0;
    enclave->broken = false;
    int result = sigstruct_read(&sigstruct);
    if (result == 0)
        result = sigstruct_check(&sigstruct, debug);
    if (result == 0)
        result = image_read(&image, &sigstruct);
    if (result < 0)
        return result;
    enclave->fd = enclave->backend->open(NULL);
    if (enclave->fd < 0) {
        result = -errno;
        complain("no SGX device available: %s (platform: %s)", strerror(-result), enclave->backend->name);
    } else {
        result = build(enclave, &image, &sigstruct, debug);
    }
    image_free(&image);
    if (result < 0)
        enclave_unload(enclave);
    return result;
}

/* Enters the enclave with call and comes back with its result. */
static int call_enclave(struct enclave *enclave, struct ecall *call) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += BUSY_TIMEOUT_S;
    if (pthread_mutex_clocklock(&enclave->busy, CLOCK_MONOTONIC, &deadline) != 0) {
        complain("the enclave is busy: another thread has used its only TCS for %d s", BUSY_TIMEOUT_S);
        return -EBUSY;
    }
    struct sgx_enclave_run run = {.tcs = enclave->tcs};
    int entered = -EIO;
    call->result = -EFAULT;
    if (!enclave->broken)
        entered = enclave->backend->enter((uint64_t)call, 0, 0, SGX_EENTER, 0, 0, &run);
    if (entered == 0 && run.function != SGX_EEXIT)
        enclave->broken = true;
    pthread_mutex_unlock(&enclave->busy);

    if (entered < 0) {
        complain("cannot enter the enclave: %s", strerror(-entered));
        return entered;
    }
    if (run.function != SGX_EEXIT) {
        complain("the enclave ended with exception %u at %#llx, in call %lu", run.exception_vector,
                 (unsigned long long)run.exception_addr, call->number);
        return -EIO;
    }
    if (call->result < 0)
        complain("the enclave refused call %lu: %s", call->number, strerror((int)-call->result));
    return (int)call->result;
}

int enclave_greet(struct enclave *enclave, char *greeting, size_t size) {
    _Alignas(8) char text[ECALL_GREETING_SIZE];
    struct ecall call = {.number = ECALL_INIT, .argument = {(uint64_t)text}};
    int result = call_enclave(enclave, &call);
    if (result == 0)
        snprintf(greeting, size, "%.*s", (int)sizeof text, text);
    return result;
}

int enclave_report(struct enclave *enclave, const void *target_info, const void *report_data, void *report) {
    /* The enclave wants aligned memory, and the caller's may be anywhere. */
    _Alignas(8) uint8_t target[PAL_TARGET_INFO_SIZE];
    _Alignas(8) uint8_t data[SGX_REPORTDATA_SIZE] = {0};
    _Alignas(8) uint8_t made[PAL_REPORT_SIZE];
    memcpy(target, target_info, sizeof target);
    if (report_data)
        memcpy(data, report_data, sizeof data);
    struct ecall call = {.number = ECALL_REPORT, .argument = {(uint64_t)target, (uint64_t)data, (uint64_t)made}};
    int result = call_enclave(enclave, &call);
    if (result == 0)
        memcpy(report, made, sizeof made);
    return result;
}

void enclave_unload(struct enclave *enclave) {
    if (enclave->size)
        munmap((void *)enclave->reserved, enclave->base + enclave->size - enclave->reserved);
    if (enclave->fd >= 0)
        enclave->backend->close(enclave->fd);
    enclave->size = 0;
    enclave->fd = -1;
}
