/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One interface over SGX hardware and the software SGX platform.
 *
 * Callers speak the ABI of Linux's in-tree driver (arch/x86/include/uapi/asm/sgx.h): the ioctls of /dev/sgx_enclave,
 * MAP_SHARED mappings of its fd, and the entry of __vdso_sgx_enter_enclave. The hardware backend translates for the
 * out-of-tree drivers (/dev/sgx/enclave, /dev/isgx); the emulator implements the ABI in process.
 *
 * sgx_backend() picks the emulator if and only if the process has loaded libsgxemu.so and initialised it (which the
 * runelet does when, and only when, emulation was asked for), else the hardware. There is no fallback between them.
 */
#ifndef SGX_BACKEND_H
#define SGX_BACKEND_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

struct sgx_enclave_run;

struct sgx_backend {
    const char *name; /* "hardware" or "emulated" */
    /* The enclave device, O_RDWR|O_CLOEXEC; -1 and errno. path NULL: the first of the known devices that exists. */
    int (*open)(const char *path);
    int (*ioctl)(int fd, unsigned long request, void *arg);
    void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
    int (*close)(int fd);
    /* As __vdso_sgx_enter_enclave, but callee-saved registers are preserved. function: EENTER 2 or ERESUME 3. */
    int (*enter)(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
                 unsigned long r9, struct sgx_enclave_run *run);
    /* For programs that enter enclaves: signal handlers must be set through the backend. */
    int (*sigaction)(int sig, const struct sigaction *act, struct sigaction *old);
};

const struct sgx_backend *sgx_backend(void);

#endif
