/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and checks what the skeleton loads: see image.h. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "complain.h"
#include "image.h"

enum { METADATA_SIZE = 17 };
static const uint64_t DEFAULT_PROTECTED_OFFSET = 16 << 20;
static const uint64_t MAX_ENCLAVE_SIZE = 1UL << 36; /* as src/inclavare/sgx/layout.py */
static const uint64_t ALLOWED_ATTRIBUTES =
    SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_PROVISIONKEY | SGX_ATTR_EINITTOKENKEY | SGX_ATTR_KSS;

static uint64_t page_round(uint64_t size) {
    return (size + SGX_PAGE_SIZE - 1) & ~(SGX_PAGE_SIZE - 1);
}

static uint64_t power_of_two(uint64_t size) {
    uint64_t power = SGX_PAGE_SIZE;
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

int sigstruct_read(struct sgx_sigstruct *sigstruct) {
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
    *pages = (uint32_t)(page_round(end + GPRSGX_SIZE + (miscselect & 1 ? EXINFO_SIZE : 0)) / SGX_PAGE_SIZE);
    return 0;
}

uint64_t probed_xfrm(void) {
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
        return SGX_XFRM_LEGACY;
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
        if (image->offset % SGX_PAGE_SIZE || image->offset < lowest) {
            complain("Invalid mmap_min_addr value, the valid mmap_min_addr is %lu", lowest);
            return -EINVAL;
        }
    }
    uint64_t needed = image->size + (uint64_t)image->ssa_frame_pages * SGX_PAGE_SIZE;
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

static int read_open_image(int fd, struct image *image, const struct sgx_sigstruct *sigstruct) {
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return -errno;
    size_t size = (size_t)stat.st_size;
    if (size < SGX_PAGE_SIZE + METADATA_SIZE || size % SGX_PAGE_SIZE != METADATA_SIZE) {
        complain("cannot read %s: an image has whole pages and %d bytes, found %zu", IMAGE_PATH, METADATA_SIZE, size);
        return -EINVAL;
    }
    uint8_t metadata[METADATA_SIZE];
    if (pread(fd, metadata, sizeof metadata, (off_t)(size - sizeof metadata)) != sizeof metadata) {
        complain("cannot read the metadata of %s", IMAGE_PATH);
        return -EIO;
    }
    image->size = page_round(size);
    int result = ssa_frame_pages(sigstruct->xfrm, sigstruct->miscselect, &image->ssa_frame_pages);
    if (result == 0)
        result = lay_out(image, metadata);
    if (result < 0)
        return result;
    void *pages = mmap(NULL, image->mmap_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        int error = errno;
        complain("cannot reserve %lu bytes for %s: %s", image->mmap_size, IMAGE_PATH, strerror(error));
        return -error;
    }
    image->pages = pages;
    result = read_all(fd, IMAGE_PATH, image->pages, size);
    if (result == 0)
        complete_tcs(image);
    else
        image_free(image);
    return result;
}

int image_read(struct image *image, const struct sgx_sigstruct *sigstruct) {
    *image = (struct image){0};
    int fd = open_file(IMAGE_PATH);
    if (fd < 0)
        return fd;
    int result = read_open_image(fd, image, sigstruct);
    close(fd);
    return result;
}

void image_free(struct image *image) {
    if (image->pages)
        munmap(image->pages, image->mmap_size);
    image->pages = NULL;
}

/* What the processor or the platform would refuse later, without saying why. */
int sigstruct_check(const struct sgx_sigstruct *sigstruct, bool debug) {
    uint64_t unsupported = sigstruct->attributes & ~ALLOWED_ATTRIBUTES;
    if (unsupported)
        complain("Invalid attributes value. The unsupported attributes %#lx are set.", unsupported);
    else if (!(sigstruct->attributes & SGX_ATTR_MODE64BIT))
        complain("Invalid attributes value. The bits %#lx must be set.", SGX_ATTR_MODE64BIT);
    else if (!(sigstruct->attributes_mask & SGX_ATTR_MODE64BIT))
        complain("Invalid attributes mask value. The bits %#lx must be set.", SGX_ATTR_MODE64BIT);
    else if ((sigstruct->xfrm & SGX_XFRM_LEGACY) != SGX_XFRM_LEGACY)
        complain("Invalid xfrm value. The bits %#lx must be set.", SGX_XFRM_LEGACY);
    else if ((sigstruct->xfrm_mask & SGX_XFRM_LEGACY) != SGX_XFRM_LEGACY)
        complain("Invalid xfrm mask value. The bits %#lx must be set.", SGX_XFRM_LEGACY);
    else if (sigstruct->xfrm & sigstruct->xfrm_mask & ~probed_xfrm())
        complain("Unsupported xfrm bits %#lx", sigstruct->xfrm & sigstruct->xfrm_mask & ~probed_xfrm());
    else if (debug && sigstruct->attributes_mask & ~sigstruct->attributes & SGX_ATTR_DEBUG)
        complain("%s prohibits debugging: leave the argument debug out, or sign without --no-debugger", SIGSTRUCT_PATH);
    else
        return 0;
    return -EINVAL;
}
