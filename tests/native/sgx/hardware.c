/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: hardware vdso | open [PATH] | create PATH
 *
 * The hardware backend as far as a machine without SGX can show it: the vDSO's symbols, and what opening and ioctls of
 * devices answer. Prints the result and the errno's name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../../../native/sgxemu/hw.h"
#include "sgx_arch.h"

static int check_vdso(void) {
    struct timespec ours, libc;
    int (*gettime)(clockid_t, struct timespec *) = NULL;
    *(void **)&gettime = vdso_symbol("__vdso_clock_gettime");
    if (!gettime || gettime(CLOCK_MONOTONIC, &ours) != 0 || clock_gettime(CLOCK_MONOTONIC, &libc) != 0)
        return 1;
    int64_t difference = (libc.tv_sec - ours.tv_sec) * 1000000000l + libc.tv_nsec - ours.tv_nsec;
    if (difference < 0 || difference > 1000000000l || vdso_symbol("__vdso_no_such_thing") || vdso_symbol(""))
        return 1;
    printf("vdso sgx=%d\n", vdso_symbol("__vdso_sgx_enter_enclave") != NULL);
    return 0;
}

int main(int argc, char **argv) {
    const struct sgx_backend *backend = sgx_backend();
    if (strcmp(backend->name, "hardware") != 0 || argc < 2)
        return 1;
    if (strcmp(argv[1], "vdso") == 0)
        return check_vdso();
    int fd = backend->open(argc > 2 ? argv[2] : NULL);
    printf("open %s\n", fd < 0 ? strerrorname_np(errno) : "ok");
    if (fd >= 0 && strcmp(argv[1], "create") == 0) {
        static struct sgx_secs secs;
        struct sgx_secinfo secinfo = {.flags = SGX_SECINFO_REG | SGX_SECINFO_R};
        void *range = mmap(NULL, 4 * SGX_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        secs.size = 2 * SGX_PAGE_SIZE;
        secs.base = ((uint64_t)range + secs.size - 1) & ~(secs.size - 1);
        struct sgx_enclave_create create = {.src = (uint64_t)&secs};
        struct sgx_enclave_add_pages add = {
            .src = (uint64_t)&secs, .length = SGX_PAGE_SIZE, .secinfo = (uint64_t)&secinfo, .flags = SGX_PAGE_MEASURE};
        struct sgx_enclave_init init = {.sigstruct = (uint64_t)&secs};
        backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create);
        backend->ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
        backend->ioctl(fd, SGX_IOC_ENCLAVE_INIT, &init);
        backend->ioctl(fd, SGX_IOC_ENCLAVE_PROVISION, &create);
        printf("close %d\n", backend->close(fd));
    }
    return 0;
}
