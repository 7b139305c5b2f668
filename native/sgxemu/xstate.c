/* SPDX-License-Identifier: Apache-2.0 */
#include "xstate.h"

#include <cpuid.h>
#include <string.h>

#include "bytes.h"

/* x87, SSE, AVX and AVX-512. Not PKRU, whose value is the host's to keep; not AMX, which needs permission first. */
#define XFRM_KNOWN 0xe7ul
#define XFRM_LEGACY 3ul

enum {
    XSAVE_LEGACY_SIZE = 512,
    XSAVE_HEADER_SIZE = 64,
    XSAVE_SOFTWARE_OFFSET = 464, /* 48 bytes of the legacy area that the kernel uses in signal frames */
    FIRST_EXTENDED = 2,
    LAST_EXTENDED = 7,
    MXCSR_OFFSET = 24,
    MXCSR_INITIAL = 0x1f80,
    MXCSR_KNOWN = 0xffff,
    FCW_INITIAL = 0x37f,
};

uint64_t xstate_supported = XFRM_LEGACY;

/* CPUID is slow under a hypervisor (microseconds), so its answers are kept. */
static struct { uint32_t offset, size; } component[LAST_EXTENDED + 1];

static bool cpu_has_xsave(void) {
    uint32_t eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_OSXSAVE);
}

bool xstate_init(void) {
    uint32_t eax, edx, ebx, ecx;
    if (!cpu_has_xsave())
        return false;
    __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    xstate_supported = XFRM_LEGACY | (eax & XFRM_KNOWN);
    for (int i = FIRST_EXTENDED; i <= LAST_EXTENDED; i++) {
        if (!(xstate_supported >> i & 1))
            continue;
        __cpuid_count(0xd, i, eax, ebx, ecx, edx);
        component[i].size = eax;
        component[i].offset = ebx;
        if (ebx + eax > XSTATE_MAX)
            xstate_supported &= ~(1ul << i);
    }
    return true;
}

size_t xstate_size(uint64_t xfrm) {
    size_t size = XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE;
    for (int i = FIRST_EXTENDED; i <= LAST_EXTENDED; i++)
        if ((xfrm >> i & 1) && component[i].offset + component[i].size > size)
            size = component[i].offset + component[i].size;
    return size;
}

static uint64_t load64(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void store64(uint8_t *bytes, uint64_t value) {
    memcpy(bytes, &value, sizeof value);
}

static void copy_components(uint8_t *to, const uint8_t *from, uint64_t mask) {
    for (int i = FIRST_EXTENDED; i <= LAST_EXTENDED; i++)
        if (mask >> i & 1)
            copy_bytes(to + component[i].offset, from + component[i].offset, component[i].size);
}

void xstate_save_and_clear(uint8_t *ssa, uint8_t *fpstate, uint64_t xfrm) {
    const uint32_t mxcsr = MXCSR_INITIAL;
    const uint16_t fcw = FCW_INITIAL;
    uint64_t present = load64(fpstate + XSAVE_LEGACY_SIZE) & xfrm;

    memcpy(ssa, fpstate, XSAVE_SOFTWARE_OFFSET);
    memset(ssa + XSAVE_SOFTWARE_OFFSET, 0, XSAVE_LEGACY_SIZE - XSAVE_SOFTWARE_OFFSET + XSAVE_HEADER_SIZE);
    store64(ssa + XSAVE_LEGACY_SIZE, present);
    for (int i = FIRST_EXTENDED; i <= LAST_EXTENDED; i++) /* no left-overs of the signal stack */
        if ((xfrm & ~present) >> i & 1)
            memset(ssa + component[i].offset, 0, component[i].size);
    copy_components(ssa, fpstate, present);

    store64(fpstate + XSAVE_LEGACY_SIZE, load64(fpstate + XSAVE_LEGACY_SIZE) & ~xfrm);
    memcpy(fpstate, &fcw, sizeof fcw);
    memcpy(fpstate + MXCSR_OFFSET, &mxcsr, sizeof mxcsr); /* loaded even when the SSE component is initial */
}

bool xstate_copy_checked(uint8_t *image, const uint8_t *ssa, uint64_t xfrm) {
    uint32_t mxcsr;
    uint64_t present;

    /* Copy first: another thread of the enclave may write the frame meanwhile. */
    copy_bytes(image, ssa, XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE);
    present = load64(image + XSAVE_LEGACY_SIZE);
    memcpy(&mxcsr, image + MXCSR_OFFSET, sizeof mxcsr);
    if ((present & ~xfrm) || (mxcsr & ~(uint32_t)MXCSR_KNOWN))
        return false;
    for (int offset = 8; offset < XSAVE_HEADER_SIZE; offset += 8)
        if (load64(image + XSAVE_LEGACY_SIZE + offset))
            return false;
    copy_components(image, ssa, present);
    return true;
}

void xstate_load(uint8_t *fpstate, const uint8_t *image, uint64_t xfrm) {
    uint64_t present = load64(image + XSAVE_LEGACY_SIZE) & xfrm;
    memcpy(fpstate, image, XSAVE_SOFTWARE_OFFSET);
    store64(fpstate + XSAVE_LEGACY_SIZE, (load64(fpstate + XSAVE_LEGACY_SIZE) & ~xfrm) | present);
    copy_components(fpstate, image, present);
}
