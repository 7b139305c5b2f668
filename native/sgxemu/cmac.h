/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_CMAC_H
#define SGXEMU_CMAC_H

#include <stddef.h>
#include <stdint.h>

/* AES-128-CMAC (RFC 4493). */
void aes_cmac(const uint8_t key[16], const void *data, size_t size, uint8_t mac[16]);

#endif
