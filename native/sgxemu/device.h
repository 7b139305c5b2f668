/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_DEVICE_H
#define SGXEMU_DEVICE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "epc.h"

/* As the system calls on /dev/sgx_enclave and /dev/sgx_provision, setting errno. */
int device_open(const char *path);
int device_ioctl(int fd, unsigned long request, void *arg);
void *device_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
int device_close(int fd);

/* The enclave whose ELRANGE holds address, or NULL. Safe in signal handlers. */
struct enclave *device_find_enclave(uint64_t address);

/* The enclave behind fd, or NULL and errno. */
struct enclave *device_enclave(int fd);

#endif
