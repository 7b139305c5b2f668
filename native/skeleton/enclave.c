/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the skeleton's enclave and calls it: see enclave.h. The layout of a flat image is that of
 * src/inclavare/sgx/layout.py, which measures and signs what is built here.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ecall.h"
#include "enclave.h"
#include "pal.h"
#include "sgx_arch.h"

#define IMAGE_PATH "encl.bin"
#define SIGSTRUCT_PATH "encl.ss"

enum {
    PAGE = 4096,
    METADATA_SIZE = 17,
    REPORT_DATA_SIZE = 64,
    BUSY_TIMEOUT_S = 1,
};
static const uint64_t DEFAULT_PROTECTED_OFFSET = 16 << 20;
static const uint64_t MAX_ENCLAVE_SIZE = 1UL << 36; /* as src/inclavare/sgx/layout.py */
static const uint64_t XFRM_LEGACY = 3;
static const uint64_t ALLOWED_ATTRIBUTES =
    SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_PROVISIONKEY | SGX_ATTR_EINITTOKENKEY | SGX_ATTR_KSS;

/* A flat image, read and laid out. Sizes in bytes; offsets from the enclave's base. */
struct image {
    uint8_t *pages; /* mmap_size bytes: the image, then zeros */
    uint64_t size;  /* of the image, in whole pages */
    uint64_t mmap_size;
    uint64_t offset; /* of the first page */
    uint64_t enclave_size;
    uint32_t ssa_frame_pages;
    bool protects_null;
};

void complain(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s\n", line);
}

static uint64_t page_round(uint64_t size) {
    return (size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

static uint64_t power_of_two(uint64_t size) {
    uint64_t power = PAGE;
    while (power < size)
        power <<= 1;
    return power;
}

/* Opens a file of the working directory. */
static int open_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int error = errno;
    char where[256];
    complain("open() %s failed, errno=%d. (%s, in the working directory %s)", path, error, strerror(error),
             getcwd(where, sizeof where) ? where : "?");
    return -error;
}

/* Reads exactly size bytes. */
static int read_all(int fd, const char *path, uint8_t *buffer, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, buffer + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int error = got < 0 ? errno : ENOENT;
            complain("cannot read %s: %s after %zu of %zu bytes", path, got < 0 ? strerror(error) : "it ends", done,
                     size);
            return -error;
        }
        done += (size_t)got;
    }
    return 0;
}

static int read_sigstruct(struct sgx_sigstruct *sigstruct) {
    int fd = open_file(SIGSTRUCT_PATH);
    if (fd < 0)
        return fd;
    int result = read_all(fd, SIGSTRUCT_PATH, (uint8_t *)sigstruct, sizeof *sigstruct);
    close(fd);
    return result;
}

/* The pages of one SSA frame that saves xfrm: sizes and offsets of the state components are those of Intel's processors
 * (CPUID leaf 0DH), fixed, so that every machine builds what was measured. */
static int ssa_frame_pages(uint64_t xfrm, uint32_t miscselect, uint32_t *pages) {
    static const struct {
        uint8_t bit;
        uint16_t end;
    } components[] = {{0, 576},  {1, 576},  {2, 832},  {3, 1024},  {4, 1088},  {5, 1152},
                      {6, 1664}, {7, 2688}, {9, 2696}, {17, 2816}, {18, 11008}};
    uint32_t end = 576;
    for (size_t i = 0; i < sizeof components / sizeof components[0]; i++) {
        if (xfrm >> components[i].bit & 1 && components[i].end > end)
            end = components[i].end;
        xfrm &= ~(1UL << components[i].bit);
    }
    if (xfrm) {
        complain("Unsupported xfrm bits %#lx", xfrm);
        return -EINVAL;
    }
    enum { GPRSGX_SIZE = 184, EXINFO_SIZE = 16 };
    *pages = (uint32_t)(page_round(end + GPRSGX_SIZE + (miscselect & 1 ? EXINFO_SIZE : 0)) / PAGE);
    return 0;
}

/* The state components that the operating system lets programs use; those of x87 and SSE where it does not tell. */
static uint64_t probed_xfrm(void) {
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
        return XFRM_LEGACY;
    __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (uint64_t)edx << 32 | eax;
}

/* The lowest address that a process may map, or 0 if /proc does not tell. */
static uint64_t mmap_min_addr(void) {
    char text[32] = "";
    int fd = open("/proc/sys/vm/mmap_min_addr", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    return got > 0 ? strtoull(text, NULL, 10) : 0;
}

/* Decides where everything lies, from the image's metadata: u64 max_mmap_size, u8 null_dereference_protection, u64
 * mmap_min_addr. */
static int lay_out(struct image *image, const uint8_t metadata[METADATA_SIZE]) {
    uint64_t max_mmap_size, min_addr;
    memcpy(&max_mmap_size, metadata, sizeof max_mmap_size);
    memcpy(&min_addr, metadata + 9, sizeof min_addr);
    image->protects_null = metadata[8];
    if (image->protects_null) {
        image->offset = min_addr ? min_addr : DEFAULT_PROTECTED_OFFSET;
        uint64_t lowest = mmap_min_addr();
        if (image->offset % PAGE || image->offset < lowest) {
            complain("Invalid mmap_min_addr value, the valid mmap_min_addr is %lu", lowest);
            return -EINVAL;
        }
    }
    uint64_t needed = image->size + (uint64_t)image->ssa_frame_pages * PAGE;
    if (max_mmap_size && max_mmap_size < needed) {
        complain("Invalid enclave mmap size %lu, set enclave mmap size larger than %lu.", max_mmap_size, needed);
        return -EINVAL;
    }
    if (max_mmap_size > MAX_ENCLAVE_SIZE || image->offset > MAX_ENCLAVE_SIZE) {
        complain("cannot lay out the enclave: its metadata ask for more than %lu bytes", MAX_ENCLAVE_SIZE);
        return -EINVAL;
    }
    image->mmap_size = page_round(max_mmap_size ? max_mmap_size : needed);
    image->enclave_size = power_of_two(image->offset + image->mmap_size);
    return 0;
}

/* The TCS page knows two offsets only once the image is laid out. */
static void complete_tcs(struct image *image) {
    struct sgx_tcs *tcs = (struct sgx_tcs *)image->pages;
    tcs->ossa = image->offset + image->size;
    tcs->oentry += image->offset;
}

static int read_image(struct image *image, const struct sgx_sigstruct *sigstruct) {
    int fd = open_file(IMAGE_PATH);
    if (fd < 0)
        return fd;
    struct stat stat;
    uint8_t metadata[METADATA_SIZE];
    int result = fstat(fd, &stat) < 0 ? -errno : 0;
    if (result == 0 && (stat.st_size < PAGE + METADATA_SIZE || stat.st_size % PAGE != METADATA_SIZE)) {
        complain("cannot read %s: an image has whole pages and %d bytes, found %ld", IMAGE_PATH, METADATA_SIZE,
                 stat.st_size);
        result = -EINVAL;
    }
    if (result == 0)
        result = ssa_frame_pages(sigstruct->xfrm, sigstruct->miscselect, &image->ssa_frame_pages);
    if (result == 0) {
        image->size = page_round((uint64_t)stat.st_size);
        if (pread(fd, metadata, sizeof metadata, stat.st_size - METADATA_SIZE) != METADATA_SIZE) {
            complain("cannot read the metadata of %s", IMAGE_PATH);
            result = -EIO;
        }
    }
    if (result == 0)
        result = lay_out(image, metadata);
    if (result == 0) {
        void *pages = mmap(NULL, image->mmap_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) {
            result = -errno;
            complain("cannot reserve %lu bytes for %s: %s", image->mmap_size, IMAGE_PATH, strerror(errno));
        } else {
            image->pages = pages;
            result = read_all(fd, IMAGE_PATH, pages, (size_t)stat.st_size);
        }
    }
    close(fd);
    if (result == 0)
        complete_tcs(image);
    return result;
}

/* What the processor or the platform would refuse later, without saying why. */
static int check_sigstruct(const struct sgx_sigstruct *sigstruct, bool debug) {
    uint64_t unsupported = sigstruct->attributes & ~ALLOWED_ATTRIBUTES;
    if (unsupported)
        complain("Invalid attributes value. The unsupported attributes %#lx are set.", unsupported);
    else if (!(sigstruct->attributes & SGX_ATTR_MODE64BIT))
        complain("Invalid attributes value. The bits %#x must be set.", SGX_ATTR_MODE64BIT);
    else if (!(sigstruct->attributes_mask & SGX_ATTR_MODE64BIT))
        complain("Invalid attributes mask value. The bits %#x must be set.", SGX_ATTR_MODE64BIT);
    else if ((sigstruct->xfrm & XFRM_LEGACY) != XFRM_LEGACY)
        complain("Invalid xfrm value. The bits %#lx must be set.", XFRM_LEGACY);
    else if ((sigstruct->xfrm_mask & XFRM_LEGACY) != XFRM_LEGACY)
        complain("Invalid xfrm mask value. The bits %#lx must be set.", XFRM_LEGACY);
    else if (sigstruct->xfrm & sigstruct->xfrm_mask & ~probed_xfrm())
        complain("Unsupported xfrm bits %#lx", sigstruct->xfrm & sigstruct->xfrm_mask & ~probed_xfrm());
    else if (debug && sigstruct->attributes_mask & ~sigstruct->attributes & SGX_ATTR_DEBUG)
        complain("%s prohibits debugging: leave the argument debug out, or sign without --no-debugger", SIGSTRUCT_PATH);
    else
        return 0;
    return -EINVAL;
}

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
    struct sgx_secs secs __attribute__((aligned(PAGE))) = {
        .size = enclave->size,
        .base = enclave->base,
        .ssa_frame_size = image->ssa_frame_pages,
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
        return "SGX_INVALID_SIG_STRUCT: the SIGSTRUCT's header, exponent, q1 or q2 is wrong";
    case SGX_INVALID_ATTRIBUTE:
        return "SGX_INVALID_ATTRIBUTE: the enclave's attributes are not those that were signed";
    case SGX_INVALID_MEASUREMENT:
        return "SGX_INVALID_MEASUREMENT: the enclave is not the one that was signed";
    case SGX_INVALID_SIGNATURE:
        return "SGX_INVALID_SIGNATURE: the SIGSTRUCT is not signed by its key";
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
    if (backend->mmap(start, PAGE, PROT_READ | PROT_WRITE, flags, enclave->fd, 0) == MAP_FAILED ||
        backend->mmap(start + PAGE, image->mmap_size - PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, enclave->fd,
                      0) == MAP_FAILED) {
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
        result = add_pages(enclave, image, 0, PAGE, SGX_SECINFO_TCS);
    if (result == 0)
        result = add_pages(enclave, image, PAGE, image->mmap_size - PAGE,
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
    struct sgx_sigstruct sigstruct __attribute__((aligned(PAGE)));
    struct image image = {0};
    enclave->backend = sgx_backend();
    enclave->fd = -1;
    enclave->size = 0;
    enclave->broken = false;
    int result = read_sigstruct(&sigstruct);
    if (result == 0)
        result = check_sigstruct(&sigstruct, debug);
    if (result == 0)
        result = read_image(&image, &sigstruct);
    if (result == 0) {
        enclave->fd = enclave->backend->open(NULL);
        if (enclave->fd < 0) {
            result = -errno;
            complain("no SGX device available: %s (platform: %s)", strerror(errno), enclave->backend->name);
        }
    }
    if (result == 0)
        result = build(enclave, &image, &sigstruct, debug);
    if (image.pages)
        munmap(image.pages, image.mmap_size);
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
        entered = enclave->backend->enter((uint64_t)call, 0, 0, EENTER, 0, 0, &run);
    if (entered == 0 && run.function != EEXIT)
        enclave->broken = true;
    pthread_mutex_unlock(&enclave->busy);

    if (entered < 0) {
        complain("cannot enter the enclave: %s", strerror(-entered));
        return entered;
    }
    if (run.function != EEXIT) {
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

int enclave_report(struct enclave *enclave, const void *target_info, void *report) {
    /* The enclave wants aligned memory, and the caller's may be anywhere. */
    _Alignas(8) uint8_t target[PAL_TARGET_INFO_SIZE];
    _Alignas(8) uint8_t data[REPORT_DATA_SIZE] = {0};
    _Alignas(8) uint8_t made[PAL_REPORT_SIZE];
    memcpy(target, target_info, sizeof target);
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
