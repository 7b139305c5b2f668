/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_BYTES_H
#define SGXEMU_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool is_zero(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

/* A copy without vector registers, which must pass through EENTER. */
static inline void copy_bytes(void *to, const void *from, size_t size) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

#endif
