/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host side of one enclave: built from a flat image and its SIGSTRUCT, then called.
 *
 * Functions return 0 or -errno, and have said on stderr why they failed.
 */
#ifndef SKELETON_ENCLAVE_H
#define SKELETON_ENCLAVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sgx_backend.h"

struct enclave {
    const struct sgx_backend *backend;
    int fd;
    uint64_t base;     /* of the enclave, */
    uint64_t size;     /* which may begin below the first address that can be mapped: */
    uint64_t reserved; /* from here to base + size addresses are ours; none are when size is 0 */
    uint64_t tcs;
    bool broken;          /* an exception was left in its only SSA frame: it cannot be entered any more */
    pthread_mutex_t busy; /* held while a thread is inside: there is one TCS */
};

/*
 * Builds the enclave from encl.bin and encl.ss in the working directory. debug: set the DEBUG attribute, and tell on
 * stdout what is built.
 */
int enclave_load(struct enclave *enclave, bool debug);

/* Has the enclave write its greeting: a string of at most size bytes, end included. */
int enclave_greet(struct enclave *enclave, char *greeting, size_t size);

/* Has the enclave make a REPORT (432 bytes) for target_info (512 bytes), with report data (64 bytes; NULL: zeros). */
int enclave_report(struct enclave *enclave, const void *target_info, const void *report_data, void *report);

/* Unmaps and closes it. */
void enclave_unload(struct enclave *enclave);

#endif
