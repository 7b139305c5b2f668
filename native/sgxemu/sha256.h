/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_SHA256_H
#define SGXEMU_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32 };

struct sha256 {
    uint32_t state[8];
    uint64_t size; /* bytes hashed so far */
    uint8_t block[64];
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t size);
/* Leaves the state unusable; copy the struct first to go on. */
void sha256_final(struct sha256 *hash, uint8_t digest[SHA256_SIZE]);
void sha256(const void *data, size_t size, uint8_t digest[SHA256_SIZE]);

#endif
