/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: host [--zero | --refuse | --hardware] CHECK: run one check of the emulator.
 *
 * --zero puts enclaves at base 0. --refuse loads the emulator where Syscall User Dispatch cannot be armed. --hardware
 * enters with the hardware backend's own ENCLU instruction, which the emulator then traps: the nearest thing to
 * hardware.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../../native/sgxemu/hw.h"

const struct sgx_backend *backend;
bool at_base_zero;
static void (*read_stats)(struct sgxemu_stats *);

double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct sgxemu_stats stats(void) {
    struct sgxemu_stats result;
    read_stats(&result);
    return result;
}

struct image open_image(const char *suffix) {
    char variable[64];
    struct stat status;
    snprintf(variable, sizeof variable, "SGX_TEST_IMAGE%s%s", suffix ? "_" : "", suffix ? suffix : "");
    const char *path = getenv(variable);
    EXPECT(path, "%s must name an image", variable);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(fd >= 0 && fstat(fd, &status) == 0, "cannot open %s: %s", path, strerror(errno));
    uint8_t *file = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    EXPECT(file != MAP_FAILED, "cannot map %s: %s", path, strerror(errno));
    close(fd);
    struct image image = {.header = (struct image_header *)file,
                          .sigstruct = (struct sgx_sigstruct *)(file + SGX_PAGE_SIZE),
                          .records = (struct image_record *)(file + 2 * SGX_PAGE_SIZE)};
    size_t records_size = image.header->page_count * sizeof *image.records;
    image.data = (uint8_t *)image.records + ((records_size + SGX_PAGE_SIZE - 1) & ~(SGX_PAGE_SIZE - 1));
    return image;
}

/* Finds room for ELRANGE, aligned to its size. */
static uint64_t reserve(uint64_t size) {
    if (at_base_zero) { /* image.py leaves the first 64 KiB free, which the kernel never maps */
        void *range = mmap((void *)0x10000, size - 0x10000, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        EXPECT(range == (void *)0x10000 || errno == EEXIST, "cannot reserve ELRANGE at 0: %s", strerror(errno));
        return 0;
    }
    uint8_t *range = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(range != MAP_FAILED, "cannot reserve ELRANGE: %s", strerror(errno));
    return ((uint64_t)range + size - 1) & ~(size - 1);
}

struct enclave_host create_enclave(const struct image *image) {
    static struct sgx_secs secs;
    const struct image_header *header = image->header;
    struct enclave_host enclave = {.fd = backend->open(NULL), .base = reserve(header->size), .size = header->size};
    int tcs = 0;
    EXPECT(enclave.fd >= 0, "cannot open the device: %s", strerror(errno));
    secs = (struct sgx_secs){
        .size = header->size,
        .base = enclave.base,
        .ssaframesize = (uint32_t)header->ssaframesize,
        .miscselect = (uint32_t)header->miscselect,
        .attributes = header->attributes,
        .xfrm = header->xfrm,
        .configsvn = (uint16_t)header->configsvn,
    };
    memcpy(secs.configid, header->configid, sizeof secs.configid);
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    EXPECT(backend->ioctl(enclave.fd, SGX_IOC_ENCLAVE_CREATE, &create) == 0, "CREATE: %s", strerror(errno));
    for (uint64_t i = 0; i < header->page_count; i++) {
        const struct image_record *record = &image->records[i];
        struct sgx_secinfo secinfo = {.flags = record->flags};
        struct sgx_enclave_add_pages add = {
            .src = (uint64_t)image->data + i * SGX_PAGE_SIZE,
            .offset = record->offset,
            .length = SGX_PAGE_SIZE,
            .secinfo = (uint64_t)&secinfo,
            .flags = record->measure ? SGX_PAGE_MEASURE : 0,
        };
        EXPECT(backend->ioctl(enclave.fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add) == 0, "ADD_PAGES %#lx: %s", record->offset,
               strerror(errno));
        EXPECT_EQUAL(add.count, SGX_PAGE_SIZE);
        if ((record->flags & SGX_SECINFO_PAGE_TYPE_MASK) == SGX_SECINFO_TCS && tcs < TCS_COUNT)
            enclave.tcs[tcs++] = enclave.base + record->offset;
    }
    return enclave;
}

int init_enclave(const struct enclave_host *enclave, const struct image *image) {
    struct sgx_enclave_init init = {.sigstruct = (uint64_t)image->sigstruct};
    int result = backend->ioctl(enclave->fd, SGX_IOC_ENCLAVE_INIT, &init);
    return result < 0 ? -errno : result;
}

void map_enclave(const struct enclave_host *enclave, const struct image *image) {
    for (uint64_t i = 0; i < image->header->page_count; i++) {
        const struct image_record *record = &image->records[i];
        bool is_tcs = (record->flags & SGX_SECINFO_PAGE_TYPE_MASK) == SGX_SECINFO_TCS;
        int prot = is_tcs ? PROT_READ | PROT_WRITE : (int)(record->flags & SGX_SECINFO_PERMISSION_MASK);
        void *want = (void *)(enclave->base + record->offset);
        void *have = backend->mmap(want, SGX_PAGE_SIZE, prot, MAP_SHARED | MAP_FIXED, enclave->fd, 0);
        EXPECT(have == want, "mmap %p: %s", want, strerror(errno));
    }
}

struct enclave_host load_enclave(const char *suffix) {
    struct image image = open_image(suffix);
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
    map_enclave(&enclave, &image);
    return enclave;
}

static int remember_answer(long rdi, long rsi, long rdx, long rsp, long r8, long r9, struct sgx_enclave_run *run) {
    (void)rsi, (void)rdx, (void)rsp, (void)r8, (void)r9;
    if (run->function == SGX_EEXIT)
        *(uint64_t *)run->user_data = (uint64_t)rdi;
    return 0;
}

int enter(uint64_t tcs, unsigned function, uint64_t rdi, uint64_t rsi, uint64_t rdx, uint64_t r8,
          struct sgx_enclave_run *run, uint64_t *answer) {
    *run =
        (struct sgx_enclave_run){.tcs = tcs, .user_handler = (uint64_t)remember_answer, .user_data = (uint64_t)answer};
    return backend->enter(rdi, rsi, rdx, function, r8, 0, run);
}

uint64_t call(uint64_t tcs, enum test_call number, uint64_t rsi, uint64_t rdx, uint64_t r8) {
    struct sgx_enclave_run run, handler_run;
    uint64_t answer = 0, verdict = 0;
    unsigned function = SGX_EENTER;
    for (;;) {
        EXPECT_EQUAL(enter(tcs, function, number, rsi, rdx, r8, &run, &answer), 0);
        if (run.function == SGX_EEXIT)
            return answer;
        EXPECT(run.function == SGX_ERESUME, "call %d: EENTER ended with vector %d", number, run.exception_vector);
        EXPECT_EQUAL(enter(tcs, SGX_EENTER, 0, 0, 0, 0, &handler_run, &verdict), 0);
        EXPECT(handler_run.function == SGX_EEXIT && verdict == 1, "call %d: vector %d was not handled (%lu)", number,
               run.exception_vector, verdict);
        function = SGX_ERESUME;
    }
}

struct sgx_enclave_run call_once(uint64_t tcs, enum test_call number, uint64_t rsi, uint64_t rdx) {
    struct sgx_enclave_run run;
    uint64_t answer = 0;
    EXPECT_EQUAL(enter(tcs, SGX_EENTER, number, rsi, rdx, 0, &run, &answer), 0);
    return run;
}

/* The emulator is loaded at run time and globally, as the runelet does it; the backend is then found by name. */
static void load_emulator(void) {
    static const uint8_t seed[SGXEMU_SEED_SIZE] = "the seed of the emulator's tests";
    const char *path = getenv("SGX_TEST_EMULATOR");
    EXPECT(path, "SGX_TEST_EMULATOR must name libsgxemu.so");
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    EXPECT(library, "%s", dlerror());
    int (*init)(const uint8_t *) = (int (*)(const uint8_t *))dlsym(library, "sgxemu_init");
    read_stats = (void (*)(struct sgxemu_stats *))dlsym(library, "sgxemu_stats");
    int result = init(seed);
    EXPECT(result == 0, "sgxemu_init: %s", strerror(-result));
    backend = sgx_backend();
    EXPECT(backend && strcmp(backend->name, "emulated") == 0, "the backend is not the emulator's");
}

volatile int early_signals;

static void on_early_signal(int sig) {
    (void)sig;
    early_signals++;
}

int main(int argc, char **argv) {
    static const struct check *const groups[] = {build_checks,  entry_checks,  exception_checks, key_checks,
                                                 signal_checks, thread_checks, syscall_checks};
    const char *name = argv[argc - 1];
    if (argc > 2 && strcmp(argv[1], "--zero") == 0)
        at_base_zero = true;
    if (argc > 2 && strcmp(argv[1], "--refuse") == 0)
        refuse_dispatch();
    signal(SIGUSR2, on_early_signal); /* before the emulator takes over */
    if (argc > 2 && strcmp(argv[1], "--hardware") == 0) {
        EXPECT(!vdso_symbol("__vdso_sgx_enter_enclave"),
               "the kernel has the vDSO's entry, which would be used instead");
        hw_sigaction(SIGUSR1, NULL, NULL); /* its fault handlers come first, and the emulator calls them */
        load_emulator();
        static struct sgx_backend mixed;
        mixed = *backend;
        mixed.enter = hw_backend.enter;
        backend = &mixed;
    } else {
        load_emulator();
    }
    for (size_t group = 0; group < sizeof groups / sizeof *groups; group++)
        for (const struct check *check = groups[group]; check->name; check++)
            if (strcmp(check->name, name) == 0) {
                check->run();
                EXPECT(backend->enter != hw_backend.enter || stats().eenter_direct == 0,
                       "the emulator's entry was used");
                printf("ok %s\n", name);
                return 0;
            }
    fprintf(stderr, "there is no check %s\n", name);
    return 2;
}
