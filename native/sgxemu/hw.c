/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "hw.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int hw_open(const char *path) {
    return open(path ? path : "/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
}

static int hw_ioctl(int fd, unsigned long request, void *arg) {
    return ioctl(fd, request, arg);
}

static int hw_enter(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
                    unsigned long r9, struct sgx_enclave_run *run) {
    (void)rdi, (void)rsi, (void)rdx, (void)function, (void)r8, (void)r9, (void)run;
    return -ENOSYS;
}

const struct sgx_backend hw_backend = {
    .name = "hardware",
    .open = hw_open,
    .ioctl = hw_ioctl,
    .mmap = mmap,
    .close = close,
    .enter = hw_enter,
    .sigaction = sigaction,
};
