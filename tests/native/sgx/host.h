/* SPDX-License-Identifier: Apache-2.0 */
/* The test host: loads images made by image.py through the backend interface and calls the test enclave. */
#ifndef SGX_TEST_HOST_H
#define SGX_TEST_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "calls.h"
#include "sgx_arch.h"
#include "sgx_backend.h"
#include "sgxemu.h"

enum { TCS_COUNT = 4 };

/* A check is a function; a wrong expectation ends the program with a sentence. */
struct check {
    const char *name;
    void (*run)(void);
};
extern const struct check build_checks[], entry_checks[], exception_checks[], key_checks[], signal_checks[],
    thread_checks[], syscall_checks[];

#define EXPECT(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, #condition);                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define EXPECT_EQUAL(have, want)                                                                                       \
    do {                                                                                                               \
        uint64_t have_ = (uint64_t)(have), want_ = (uint64_t)(want);                                                   \
        EXPECT(have_ == want_, #have " is %#lx, expected %#lx", have_, want_);                                         \
    } while (0)

struct image_header {
    char magic[8];
    uint64_t size, ssaframesize, attributes, xfrm, miscselect, page_count, configsvn;
    uint8_t configid[64];
};

struct image_record {
    uint64_t offset, flags, measure;
};

/* A private copy of an image file: a check may change it before loading. */
struct image {
    struct image_header *header;
    struct sgx_sigstruct *sigstruct;
    struct image_record *records;
    uint8_t *data;
};

struct enclave_host {
    int fd;
    uint64_t base, size;
    uint64_t tcs[TCS_COUNT];
};

extern const struct sgx_backend *backend;
extern bool at_base_zero; /* command line: where enclaves go */

/* The image named by environment variable SGX_TEST_IMAGE, or SGX_TEST_IMAGE_suffix. */
struct image open_image(const char *suffix);

/* CREATE and ADD_PAGES; dies where they fail. */
struct enclave_host create_enclave(const struct image *image);
/* INIT: its result, or -errno. */
int init_enclave(const struct enclave_host *enclave, const struct image *image);
void map_enclave(const struct enclave_host *enclave, const struct image *image);
/* All of it; dies where anything fails. */
struct enclave_host load_enclave(const char *suffix);

/* One EENTER or ERESUME. Returns the entry's result; the enclave's RDI is in *answer if it exited. */
int enter(uint64_t tcs, unsigned function, uint64_t rdi, uint64_t rsi, uint64_t rdx, uint64_t r8,
          struct sgx_enclave_run *run, uint64_t *answer);

/* A whole call: exceptions go to the enclave's handler, and its frame is resumed. */
uint64_t call(uint64_t tcs, enum test_call number, uint64_t rsi, uint64_t rdx, uint64_t r8);

/* A call whose exception is left standing (CSSA stays 1): how it ended. */
struct sgx_enclave_run call_once(uint64_t tcs, enum test_call number, uint64_t rsi, uint64_t rdx);

struct sgxemu_stats stats(void);
double seconds(void);

/* From here on Syscall User Dispatch cannot be armed. */
void refuse_dispatch(void);

/* Entry with a real ENCLU instruction in host code, as third-party hosts have it. */
uint64_t enclu_in_host(uint64_t leaf, uint64_t tcs, uint64_t rdi, uint64_t rsi, uint64_t rdx);

#endif
