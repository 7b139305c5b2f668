/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RSA-3072 with exponent 3, verified as EINIT does: SIGSTRUCT carries the quotients
 *
 *     q1 = floor(s^2 / n)        q2 = floor(s * (s^2 mod n) / n)
 *
 * so that s^3 mod n needs multiplications and subtractions only. A remainder outside [0, n) exposes a wrong quotient.
 */
#include "rsa3.h"

#include <string.h>

enum { LIMBS = RSA3_SIZE / 4 };

static void load(uint32_t number[LIMBS], const uint8_t bytes[RSA3_SIZE]) {
    memcpy(number, bytes, RSA3_SIZE); /* x86 is little endian, and so is SIGSTRUCT */
}

static void multiply(uint32_t product[2 * LIMBS], const uint32_t a[LIMBS], const uint32_t b[LIMBS]) {
    memset(product, 0, 2 * RSA3_SIZE);
    for (int i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < LIMBS; j++) {
            carry += (uint64_t)a[i] * b[j] + product[i + j];
            product[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        product[i + LIMBS] = (uint32_t)carry;
    }
}

static bool less_than(const uint32_t a[LIMBS], const uint32_t b[LIMBS]) {
    for (int i = LIMBS - 1; i >= 0; i--)
        if (a[i] != b[i])
            return a[i] < b[i];
    return false;
}

/* remainder = a * b - quotient * modulus; false unless that lies in [0, modulus). */
static bool reduce(uint32_t remainder[LIMBS], const uint32_t a[LIMBS], const uint32_t b[LIMBS],
                   const uint32_t quotient[LIMBS], const uint32_t modulus[LIMBS]) {
    uint32_t product[2 * LIMBS], multiple[2 * LIMBS], high = 0;
    int64_t borrow = 0;
    multiply(product, a, b);
    multiply(multiple, quotient, modulus);
    for (int i = 0; i < 2 * LIMBS; i++) {
        borrow += (int64_t)product[i] - multiple[i];
        product[i] = (uint32_t)borrow;
        borrow >>= 32; /* arithmetic: 0 or -1 */
    }
    for (int i = LIMBS; i < 2 * LIMBS; i++)
        high |= product[i];
    memcpy(remainder, product, RSA3_SIZE);
    return borrow == 0 && high == 0 && less_than(remainder, modulus);
}

/* EMSA-PKCS1-v1_5 for SHA-256 (RFC 8017 section 9.2), little endian. */
static void encode_message(uint8_t message[RSA3_SIZE], const uint8_t digest[32]) {
    static const uint8_t digest_info[19] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                            0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    uint8_t big_endian[RSA3_SIZE];
    memset(big_endian, 0xff, sizeof big_endian);
    big_endian[0] = 0;
    big_endian[1] = 1;
    big_endian[RSA3_SIZE - 52] = 0;
    memcpy(big_endian + RSA3_SIZE - 51, digest_info, sizeof digest_info);
    memcpy(big_endian + RSA3_SIZE - 32, digest, 32);
    for (int i = 0; i < RSA3_SIZE; i++)
        message[i] = big_endian[RSA3_SIZE - 1 - i];
}

bool rsa3_verify(const uint8_t modulus[RSA3_SIZE], const uint8_t signature[RSA3_SIZE], const uint8_t q1[RSA3_SIZE],
                 const uint8_t q2[RSA3_SIZE], const uint8_t digest[32]) {
    uint32_t n[LIMBS], s[LIMBS], q[LIMBS], square[LIMBS], cube[LIMBS];
    uint8_t expected[RSA3_SIZE];

    load(n, modulus);
    load(s, signature);
    if (!less_than(s, n))
        return false;
    load(q, q1);
    if (!reduce(square, s, s, q, n))
        return false;
    load(q, q2);
    if (!reduce(cube, s, square, q, n))
        return false;
    encode_message(expected, digest);
    return memcmp(cube, expected, RSA3_SIZE) == 0;
}
