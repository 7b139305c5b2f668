/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_RSA3_H
#define SGXEMU_RSA3_H

#include <stdbool.h>
#include <stdint.h>

enum { RSA3_SIZE = 384 };

/*
 * Whether signature is modulus's PKCS#1 v1.5 signature of a SHA-256 digest, and q1 and q2 are SIGSTRUCT's quotients.
 * All numbers are 3072 bits, little endian.
 */
bool rsa3_verify(const uint8_t modulus[RSA3_SIZE], const uint8_t signature[RSA3_SIZE], const uint8_t q1[RSA3_SIZE],
                 const uint8_t q2[RSA3_SIZE], const uint8_t digest[32]);

#endif
