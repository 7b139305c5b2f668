/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EENTER and ERESUME (SDM volume 3D, "SGX Instruction References").
 *
 * Entering has two ways, with one implementation: host code that calls the backend's enter function comes through
 * entry.S without a trap; host code with its own ENCLU instruction comes through SIGILL. Both fill an entry frame that
 * the window of entry.S loads.
 *
 * A signal may come at any instruction. Before the entry is committed everything can be undone, and the preparation
 * starts again after the signal; from then on the window's work can be finished by the signal's handler. So ENCLU looks
 * indivisible, as it is in hardware.
 */
#define _GNU_SOURCE
#include <immintrin.h>

#include "bytes.h"
#include "device.h"
#include "processor.h"

static struct fault check_ssa_frame(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    uint64_t start = ssa_offset(enclave, tcs, index), size = ssa_frame_size(enclave);
    if (start >= enclave->size || size > enclave->size - start)
        return page_fault(enclave->base + start);
    for (uint64_t at = start; at < start + size; at += SGX_PAGE_SIZE)
        if (!page_allows(enclave, at, SGX_SECINFO_R | SGX_SECINFO_W))
            return page_fault(enclave->base + at);
    return NO_FAULT;
}

/* The checks both leaves begin with; makes the TCS busy. */
static struct fault claim_tcs(struct thread_block *block, uint64_t address, uint64_t aep, struct enclave **result) {
    uint32_t nobody = 0;
    if (address & (SGX_PAGE_SIZE - 1))
        return general_protection();
    struct enclave *enclave = device_find_enclave(address);
    if (!enclave)
        return page_fault(address);
    struct epc_page *page = epc_page(enclave, address - enclave->base);
    if (!page->valid || page->type != SGX_PT_TCS)
        return page_fault(address);
    if (!__atomic_load_n(&enclave->initialised, __ATOMIC_ACQUIRE) || !is_canonical(aep))
        return general_protection();
    block->claimed = page;
    if (!__atomic_compare_exchange_n(&page->busy, &nobody, block->tid, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        block->claimed = NULL;
        return general_protection();
    }
    *result = enclave;
    return NO_FAULT;
}

static struct fault eenter(struct enclave *enclave, struct sgx_tcs *tcs, const struct host_registers *host,
                           uint64_t host_rsp, uint64_t return_address, struct entry_frame *frame) {
    if (tcs->cssa >= tcs->nssa)
        return general_protection();
    struct fault fault = check_ssa_frame(enclave, tcs, tcs->cssa);
    uint64_t fs_base = enclave->base + tcs->ofsbase, gs_base = enclave->base + tcs->ogsbase;
    uint64_t entry = enclave->base + tcs->oentry;
    if (fault.vector >= 0)
        return fault;
    if (!is_canonical(fs_base) || !is_canonical(gs_base) || !is_canonical(entry))
        return general_protection();

    struct sgx_gprsgx *saved = ssa_registers(enclave, tcs, tcs->cssa);
    saved->ursp = host_rsp;
    saved->urbp = host->rbp;
    frame->r15 = host->r15, frame->r14 = host->r14, frame->r13 = host->r13, frame->r12 = host->r12;
    frame->r11 = host->r11, frame->r10 = host->r10, frame->r9 = host->r9, frame->r8 = host->r8;
    frame->rdi = host->rdi, frame->rsi = host->rsi, frame->rdx = host->rdx, frame->rbp = host->rbp;
    frame->rax = tcs->cssa;
    frame->rbx = host->rbx;
    frame->rcx = return_address;
    fill_iretq(frame, entry, host_rsp, host->rflags);
    frame->fs_base = fs_base;
    frame->gs_base = gs_base;
    frame->xfrm = 0;
    frame->cssa = tcs->cssa;
    return NO_FAULT;
}

static struct fault eresume(struct enclave *enclave, struct sgx_tcs *tcs, const struct host_registers *host,
                            uint64_t host_rsp, struct entry_frame *frame) {
    if (tcs->cssa == 0)
        return general_protection();
    struct fault fault = check_ssa_frame(enclave, tcs, tcs->cssa - 1);
    if (fault.vector >= 0)
        return fault;
    struct sgx_gprsgx *saved = ssa_registers(enclave, tcs, tcs->cssa - 1);
    struct sgx_gprsgx state;
    copy_bytes(&state, saved, sizeof state); /* another thread of the enclave may write it between check and use */
    if (!is_canonical(state.rip) || !is_canonical(state.fsbase) || !is_canonical(state.gsbase) ||
        !xstate_copy_checked(frame->xsave, ssa_frame(enclave, tcs, tcs->cssa - 1), enclave->identity.secs.xfrm))
        return general_protection();

    frame->r15 = state.r15, frame->r14 = state.r14, frame->r13 = state.r13, frame->r12 = state.r12;
    frame->r11 = state.r11, frame->r10 = state.r10, frame->r9 = state.r9, frame->r8 = state.r8;
    frame->rdi = state.rdi, frame->rsi = state.rsi, frame->rbp = state.rbp, frame->rbx = state.rbx;
    frame->rdx = state.rdx, frame->rcx = state.rcx, frame->rax = state.rax;
    fill_iretq(frame, state.rip, state.rsp, state.rflags);
    frame->fs_base = state.fsbase;
    frame->gs_base = state.gsbase;
    frame->xfrm = enclave->identity.secs.xfrm;
    frame->cssa = tcs->cssa - 1;
    saved->ursp = host_rsp;
    saved->urbp = host->rbp;
    return NO_FAULT;
}

/* Everything of EENTER and ERESUME but what the window does. May be interrupted and started again. */
static struct fault enter(struct thread_block *block, const struct host_registers *host, uint64_t host_rsp,
                          uint64_t return_address, struct entry_frame *frame) {
    struct enclave *enclave = NULL;
    uint32_t leaf = (uint32_t)host->rax;
    struct fault fault = claim_tcs(block, host->rbx, host->rcx, &enclave);
    if (fault.vector >= 0)
        return fault;
    struct sgx_tcs *tcs = tcs_at(enclave, host->rbx);
    if (leaf == SGX_EENTER)
        fault = eenter(enclave, tcs, host, host_rsp, return_address, frame);
    else
        fault = eresume(enclave, tcs, host, host_rsp, frame);
    if (fault.vector >= 0) {
        release_tcs(block->claimed);
        block->claimed = NULL;
        return fault;
    }
    tcs->aep = host->rcx;
    frame->cssa_word = &tcs->cssa;
    frame->enclave = enclave;
    frame->tcs = host->rbx;
    block->host_fs = _readfsbase_u64();
    block->host_gs = _readgsbase_u64();
    return NO_FAULT;
}

struct thread_block *sgxemu_prepare(struct host_registers *host, struct entry_frame *frame) {
    struct thread_block *block = thread_ready(NULL);
    struct fault fault = general_protection();
    if (block) {
        block->claimed = NULL;
        __atomic_store_n(&block->preparing, host, __ATOMIC_SEQ_CST);
        fault = enter(block, host, (uint64_t)(host + 1), (uint64_t)sgxemu_after_enclu, frame);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (fault.vector < 0) {
            count((uint32_t)host->rax == SGX_EENTER ? &sgxemu_counters.eenter_direct : &sgxemu_counters.eresume_direct);
            return block;
        }
        block->preparing = NULL;
    }
    host->fault_vector = (uint64_t)fault.vector;
    host->fault_code = fault.code;
    host->fault_address = fault.address;
    return NULL;
}

void restart_preparation(struct thread_block *block, ucontext_t *context) {
    struct epc_page *page = block->claimed;
    if (page && page->busy == block->tid)
        release_tcs(page);
    REGISTER(context, RSP) = (greg_t)block->preparing;
    REGISTER(context, RIP) = (greg_t)sgxemu_retry;
    block->claimed = NULL;
    block->preparing = NULL;
}

/* What the window does beside loading registers; doing it twice does no harm. */
static void commit(struct thread_block *block, struct entry_frame *frame) {
    block->frame = frame;
    block->preparing = NULL;
    block->enclave = frame->enclave;
    block->tcs = frame->tcs;
    *frame->cssa_word = frame->cssa;
}

void return_to_window(struct thread_block *block, struct entry_frame *frame, ucontext_t *context) {
    commit(block, frame);
    REGISTER(context, RAX) = (greg_t)block;
    REGISTER(context, RSP) = (greg_t)frame;
    REGISTER(context, RIP) = (greg_t)sgxemu_window_start;
    REGISTER(context, EFL) &= (greg_t) ~(RFLAGS_DF | RFLAGS_TF);
}

void finish_window(struct thread_block *block, ucontext_t *context) {
    struct entry_frame *frame = block->frame;
    commit(block, frame);
    REGISTER(context, R15) = (greg_t)frame->r15;
    REGISTER(context, R14) = (greg_t)frame->r14;
    REGISTER(context, R13) = (greg_t)frame->r13;
    REGISTER(context, R12) = (greg_t)frame->r12;
    REGISTER(context, R11) = (greg_t)frame->r11;
    REGISTER(context, R10) = (greg_t)frame->r10;
    REGISTER(context, R9) = (greg_t)frame->r9;
    REGISTER(context, R8) = (greg_t)frame->r8;
    REGISTER(context, RDI) = (greg_t)frame->rdi;
    REGISTER(context, RSI) = (greg_t)frame->rsi;
    REGISTER(context, RBP) = (greg_t)frame->rbp;
    REGISTER(context, RBX) = (greg_t)frame->rbx;
    REGISTER(context, RDX) = (greg_t)frame->rdx;
    REGISTER(context, RCX) = (greg_t)frame->rcx;
    REGISTER(context, RAX) = (greg_t)frame->rax;
    REGISTER(context, RIP) = (greg_t)frame->rip;
    REGISTER(context, RSP) = (greg_t)frame->rsp;
    REGISTER(context, EFL) = (greg_t)frame->rflags;
    block->enclave_fs = frame->fs_base;
    block->enclave_gs = frame->gs_base;
    if (frame->xfrm)
        xstate_load((uint8_t *)context->uc_mcontext.fpregs, frame->xsave, frame->xfrm);
    count(&sgxemu_counters.rolled_forward);
}

struct fault enclu_of_host(ucontext_t *context) {
    struct host_registers host;
    uint32_t leaf = (uint32_t)REGISTER(context, RAX);
    if (leaf != SGX_EENTER && leaf != SGX_ERESUME)
        return general_protection();
    struct thread_block *block = thread_ready(context);
    if (!block)
        return general_protection();
    struct entry_frame *frame = thread_spare_frame(block);
    read_context(&host, context);
    struct fault fault =
        enter(block, &host, (uint64_t)REGISTER(context, RSP), (uint64_t)REGISTER(context, RIP) + ENCLU_SIZE, frame);
    if (fault.vector >= 0)
        return fault;
    count(leaf == SGX_EENTER ? &sgxemu_counters.eenter_trapped : &sgxemu_counters.eresume_trapped);
    return_to_window(block, frame, context);
    return NO_FAULT;
}
