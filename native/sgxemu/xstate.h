/* SPDX-License-Identifier: Apache-2.0 */
/* The XSAVE image: x87, SSE and vector registers, in SSA frames and in the kernel's signal frames. */
#ifndef SGXEMU_XSTATE_H
#define SGXEMU_XSTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XSTATE_MAX = 4096 };

/* State components (XFRM) an enclave may have here. */
extern uint64_t xstate_supported;

/* False where the processor or the kernel lacks XSAVE. */
bool xstate_init(void);

/* Bytes of the (non-compacted) image of these components. */
size_t xstate_size(uint64_t xfrm);

/* AEX: move the components from a signal frame to an SSA frame and leave their initial values. */
void xstate_save_and_clear(uint8_t *ssa, uint8_t *fpstate, uint64_t xfrm);

/* ERESUME: copy an SSA frame's image for XRSTOR; false where the processor's XRSTOR would raise #GP. */
bool xstate_copy_checked(uint8_t *image, const uint8_t *ssa, uint64_t xfrm);

/* Replace components of a signal frame by those of an image. */
void xstate_load(uint8_t *fpstate, const uint8_t *image, uint64_t xfrm);

#endif
