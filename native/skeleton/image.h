/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two files that an enclave is built from, in the working directory: the flat image encl.bin and the SIGSTRUCT
 * encl.ss. Layout and rules are those of src/inclavare/sgx/layout.py, which measures and signs what is built here.
 *
 * Functions return 0 or -errno, and have said on stderr why they failed.
 */
#ifndef SKELETON_IMAGE_H
#define SKELETON_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "sgx_arch.h"

#define IMAGE_PATH "encl.bin"
#define SIGSTRUCT_PATH "encl.ss"

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

/* Reads encl.bin and lays it out for what sigstruct signs. */
int image_read(struct image *image, const struct sgx_sigstruct *sigstruct);

void image_free(struct image *image);

int sigstruct_read(struct sgx_sigstruct *sigstruct);

/* Refuses what the processor or the platform would refuse later, without saying why. */
int sigstruct_check(const struct sgx_sigstruct *sigstruct, bool debug);

/* The state components that the operating system lets programs use; those of x87 and SSE where it does not tell. */
uint64_t probed_xfrm(void);

#endif
