/* SPDX-License-Identifier: Apache-2.0 */
/* What each thread that enters enclaves has: an alternate signal stack and the state of its logical processor. */
#ifndef SGXEMU_THREAD_H
#define SGXEMU_THREAD_H

#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "epc.h"
#include "offsets.h"
#include "xstate.h"

/* Registers with which the window of entry.S enters the enclave: pops, then IRETQ's five words. */
struct entry_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t rip, cs, rflags, rsp, ss;
    uint64_t fs_base, gs_base;
    struct enclave *enclave;
    uint64_t tcs;
    uint64_t xfrm;       /* XSAVE components to load (ERESUME), 0 to keep what is there (EENTER) */
    uint32_t *cssa_word; /* TCS.CSSA, and what it becomes: written in the window, so that it happens once */
    uint32_t cssa;
    uint8_t xsave[XSTATE_MAX] __attribute__((aligned(64)));
};

/* The host's registers at ENCLU, as entry.S pushes them; RSP was just behind. */
struct host_registers {
    uint64_t fault_vector, fault_code, fault_address; /* out, when the leaf faults */
    uint64_t unused;
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t rflags;
};

struct thread_block {
    /* Not NULL: the thread is in the enclave, or in entry.S's window on its way in. */
    struct entry_frame *frame;
    /* Not NULL: ENCLU is being carried out by C code, which a signal makes start again from these registers. */
    struct host_registers *preparing;
    uint64_t host_fs, host_gs;
    uint64_t enclave_fs, enclave_gs;
    struct enclave *enclave;
    uint64_t tcs;
    volatile uint8_t selector; /* of Syscall User Dispatch */
    uint32_t tid;
    struct epc_page *claimed; /* TCS page that ENCLU is making busy */
    stack_t host_stack;       /* the alternate signal stack the host had */
};

SGX_CHECK_OFFSET(entry_frame, fs_base, FRAME_FS_BASE);
SGX_CHECK_OFFSET(entry_frame, gs_base, FRAME_GS_BASE);
SGX_CHECK_OFFSET(entry_frame, enclave, FRAME_ENCLAVE);
SGX_CHECK_OFFSET(entry_frame, tcs, FRAME_TCS);
SGX_CHECK_OFFSET(entry_frame, xfrm, FRAME_XFRM);
SGX_CHECK_OFFSET(entry_frame, cssa_word, FRAME_CSSA_WORD);
SGX_CHECK_OFFSET(entry_frame, cssa, FRAME_CSSA);
SGX_CHECK_OFFSET(entry_frame, xsave, FRAME_XSAVE);
SGX_CHECK_SIZE(entry_frame, FRAME_SIZE);
SGX_CHECK_OFFSET(host_registers, fault_vector, HOST_FAULT_VECTOR);
SGX_CHECK_OFFSET(host_registers, fault_code, HOST_FAULT_CODE);
SGX_CHECK_OFFSET(host_registers, fault_address, HOST_FAULT_ADDRESS);
SGX_CHECK_OFFSET(host_registers, rbx, HOST_RBX);
SGX_CHECK_OFFSET(host_registers, rax, HOST_RAX);
SGX_CHECK_SIZE(host_registers, HOST_SIZE);
SGX_CHECK_OFFSET(thread_block, frame, BLOCK_FRAME);
SGX_CHECK_OFFSET(thread_block, preparing, BLOCK_PREPARING);
SGX_CHECK_OFFSET(thread_block, host_fs, BLOCK_HOST_FS);
SGX_CHECK_OFFSET(thread_block, host_gs, BLOCK_HOST_GS);
SGX_CHECK_OFFSET(thread_block, enclave_fs, BLOCK_ENCLAVE_FS);
SGX_CHECK_OFFSET(thread_block, enclave_gs, BLOCK_ENCLAVE_GS);
SGX_CHECK_OFFSET(thread_block, enclave, BLOCK_ENCLAVE);
SGX_CHECK_OFFSET(thread_block, tcs, BLOCK_TCS);
SGX_CHECK_OFFSET(thread_block, selector, BLOCK_SELECTOR);
SGX_CHECK_OFFSET(sgx_enclave_run, exception_vector, RUN_VECTOR);
SGX_CHECK_OFFSET(sgx_enclave_run, user_handler, RUN_USER_HANDLER);
SGX_CHECK_OFFSET(sgx_enclave_run, reserved, RUN_RESERVED);
_Static_assert(SLOT_SPARE_FRAME + FRAME_SIZE <= SLOT_BLOCK, "a slot's parts do not overlap");
_Static_assert(SLOT_SPARE_FRAME % 64 == 0, "XRSTOR wants 64 bytes of alignment");

/* 0, or -errno: -ENOSYS where Syscall User Dispatch cannot be armed. */
int thread_init(void);

/*
 * The calling thread's block, ready to enter: made if need be, dispatch armed and proven, fault signals unblocked.
 * NULL when there are too many threads. In a signal handler pass its context, else NULL. Dies when arming fails.
 */
struct thread_block *thread_ready(ucontext_t *context);

static inline struct entry_frame *thread_spare_frame(struct thread_block *block) {
    return (struct entry_frame *)((uint8_t *)block - SLOT_BLOCK + SLOT_SPARE_FRAME);
}

/* Signals the platform lives on; the kernel must never find them blocked. As a kernel signal mask. */
extern const uint64_t fault_signals;

/* Replace the calling thread's signal mask; returns the old one. */
uint64_t thread_set_mask(uint64_t mask);

#endif
