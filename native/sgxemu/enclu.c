/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ENCLU inside the enclave, and the asynchronous exit (SDM volume 3D, "Enclave Exiting Events" and "SGX Instruction
 * References"). They arrive as traps: on a machine without SGX, ENCLU is #UD.
 */
#define _GNU_SOURCE
#include "enclu.h"

#include <string.h>

#include "bytes.h"
#include "keys.h"
#include "processor.h"

struct sgxemu_stats sgxemu_counters;

bool is_enclu(const uint8_t *address) {
    return address[0] == 0x0f && address[1] == 0x01 && address[2] == 0xd7;
}

/* An operand in enclave memory: misaligned or outside ELRANGE is #GP, an absent or forbidden page #PF. */
static struct fault operand(struct enclave *enclave, uint64_t address, uint64_t size, uint64_t align,
                            uint8_t permissions, uint8_t **memory) {
    uint64_t offset = address - enclave->base;
    if ((address & (align - 1)) || offset >= enclave->size || size > enclave->size - offset)
        return general_protection();
    for (uint64_t at = offset & ~(SGX_PAGE_SIZE - 1); at < offset + size; at += SGX_PAGE_SIZE)
        if (!page_allows(enclave, at, permissions))
            return page_fault(enclave->base + at);
    *memory = enclave->epc + offset;
    return NO_FAULT;
}

static struct fault ereport(struct enclave *enclave, ucontext_t *context) {
    uint8_t *target_memory, *data_memory, *output;
    struct sgx_targetinfo target;
    struct sgx_report report;
    struct fault fault = operand(enclave, (uint64_t)REGISTER(context, RBX), sizeof target, SGX_TARGETINFO_ALIGN,
                                 SGX_SECINFO_R, &target_memory);
    if (fault.vector < 0)
        fault = operand(enclave, (uint64_t)REGISTER(context, RCX), SGX_REPORTDATA_SIZE, SGX_REPORTDATA_ALIGN,
                        SGX_SECINFO_R, &data_memory);
    if (fault.vector < 0)
        fault = operand(enclave, (uint64_t)REGISTER(context, RDX), sizeof report, SGX_REPORT_ALIGN,
                        SGX_SECINFO_R | SGX_SECINFO_W, &output);
    if (fault.vector >= 0)
        return fault;
    memcpy(&target, target_memory, sizeof target);
    if (target.reserved1 || !is_zero(target.reserved2, sizeof target.reserved2) ||
        !is_zero(target.reserved3, sizeof target.reserved3))
        return general_protection();
    make_report(&enclave->identity, &target, data_memory, &report);
    memcpy(output, &report, sizeof report);
    return NO_FAULT;
}

static struct fault egetkey(struct enclave *enclave, ucontext_t *context) {
    uint8_t *request_memory, *output, key[SGX_KEY_SIZE];
    struct sgx_keyrequest request;
    struct fault fault = operand(enclave, (uint64_t)REGISTER(context, RBX), sizeof request, SGX_KEYREQUEST_ALIGN,
                                 SGX_SECINFO_R, &request_memory);
    if (fault.vector < 0)
        fault = operand(enclave, (uint64_t)REGISTER(context, RCX), SGX_KEY_SIZE, SGX_KEY_ALIGN,
                        SGX_SECINFO_R | SGX_SECINFO_W, &output);
    if (fault.vector >= 0)
        return fault;
    memcpy(&request, request_memory, sizeof request);
    int error = derive_key(&enclave->identity, &request, key);
    if (error < 0)
        return general_protection();
    if (error == SGX_SUCCESS)
        memcpy(output, key, sizeof key);
    REGISTER(context, RAX) = error;
    REGISTER(context, EFL) = (REGISTER(context, EFL) & (greg_t)~RFLAGS_STATUS) | (error ? (greg_t)RFLAGS_ZF : 0);
    return NO_FAULT;
}

static struct fault eexit(struct thread_block *block, ucontext_t *context) {
    struct enclave *enclave = block->enclave;
    if (!is_canonical((uint64_t)REGISTER(context, RBX)))
        return general_protection();
    REGISTER(context, RIP) = REGISTER(context, RBX);
    REGISTER(context, RCX) = (greg_t)tcs_at(enclave, block->tcs)->aep;
    REGISTER(context, EFL) &= (greg_t)~RFLAGS_TF;
    release_tcs(epc_page(enclave, block->tcs - enclave->base));
    block->frame = NULL;
    count(&sgxemu_counters.eexit);
    return NO_FAULT;
}

/* Goes on in the enclave behind the current instruction: through the window, so that the selector blocks again. */
static void continue_in_enclave(struct thread_block *block, ucontext_t *context) {
    struct entry_frame *frame = thread_spare_frame(block);
    struct enclave *enclave = block->enclave;
    struct host_registers registers;
    read_context(&registers, context);
    frame->r15 = registers.r15, frame->r14 = registers.r14, frame->r13 = registers.r13, frame->r12 = registers.r12;
    frame->r11 = registers.r11, frame->r10 = registers.r10, frame->r9 = registers.r9, frame->r8 = registers.r8;
    frame->rdi = registers.rdi, frame->rsi = registers.rsi, frame->rbp = registers.rbp, frame->rbx = registers.rbx;
    frame->rdx = registers.rdx, frame->rcx = registers.rcx, frame->rax = registers.rax;
    fill_iretq(frame, (uint64_t)REGISTER(context, RIP) + ENCLU_SIZE, (uint64_t)REGISTER(context, RSP),
               registers.rflags);
    frame->fs_base = block->enclave_fs;
    frame->gs_base = block->enclave_gs;
    frame->enclave = enclave;
    frame->tcs = block->tcs;
    frame->xfrm = 0; /* returning from the signal restores them */
    frame->cssa_word = &tcs_at(enclave, block->tcs)->cssa;
    frame->cssa = *frame->cssa_word;
    return_to_window(block, frame, context);
}

struct fault enclu_of_enclave(struct thread_block *block, ucontext_t *context) {
    struct fault fault;
    switch ((uint32_t)REGISTER(context, RAX)) {
    case SGX_EEXIT:
        return eexit(block, context);
    case SGX_EREPORT:
        fault = ereport(block->enclave, context);
        break;
    case SGX_EGETKEY:
        fault = egetkey(block->enclave, context);
        break;
    default: /* EENTER, ERESUME, and the leaves of dynamic memory management, which is not there */
        fault = general_protection();
    }
    if (fault.vector < 0)
        continue_in_enclave(block, context);
    return fault;
}

/* ---- AEX ---- */

static uint32_t exit_information(const struct enclave *enclave, int vector) {
    bool extended = enclave->identity.secs.miscselect & SGX_MISCSELECT_EXINFO;
    uint32_t type = vector == X86_BP ? SGX_EXIT_TYPE_SOFTWARE : SGX_EXIT_TYPE_HARDWARE;
    switch (vector) {
    case X86_PF:
    case X86_GP:
        if (!extended)
            return 0;
        break;
    case X86_DE:
    case X86_DB:
    case X86_BP:
    case X86_BR:
    case X86_UD:
    case X86_MF:
    case X86_AC:
    case X86_XM:
        break;
    default: /* interrupts, and exceptions enclaves are not told of */
        return 0;
    }
    return SGX_EXITINFO_VALID | type << SGX_EXITINFO_TYPE_SHIFT | (uint32_t)vector;
}

void asynchronous_exit(struct thread_block *block, ucontext_t *context, struct fault fault) {
    struct enclave *enclave = block->enclave;
    struct sgx_tcs *tcs = tcs_at(enclave, block->tcs);
    struct sgx_gprsgx *saved = ssa_registers(enclave, tcs, tcs->cssa);
    struct host_registers now;

    read_context(&now, context);
    saved->rax = now.rax, saved->rcx = now.rcx, saved->rdx = now.rdx, saved->rbx = now.rbx;
    saved->rsp = (uint64_t)REGISTER(context, RSP);
    saved->rbp = now.rbp, saved->rsi = now.rsi, saved->rdi = now.rdi, saved->r8 = now.r8, saved->r9 = now.r9;
    saved->r10 = now.r10, saved->r11 = now.r11, saved->r12 = now.r12, saved->r13 = now.r13;
    saved->r14 = now.r14, saved->r15 = now.r15, saved->rflags = now.rflags;
    saved->rip = (uint64_t)REGISTER(context, RIP);
    saved->fsbase = block->enclave_fs;
    saved->gsbase = block->enclave_gs;
    saved->exitinfo = exit_information(enclave, fault.vector);
    if ((saved->exitinfo & SGX_EXITINFO_VALID) && (fault.vector == X86_PF || fault.vector == X86_GP)) {
        struct sgx_exinfo *information = (struct sgx_exinfo *)saved - 1;
        information->maddr = fault.vector == X86_PF ? fault.address : 0;
        information->errcd = fault.code;
        information->reserved = 0;
    }
    xstate_save_and_clear(ssa_frame(enclave, tcs, tcs->cssa), (uint8_t *)context->uc_mcontext.fpregs,
                          enclave->identity.secs.xfrm);
    tcs->cssa++;

    REGISTER(context, RAX) = SGX_ERESUME;
    REGISTER(context, RBX) = (greg_t)block->tcs;
    REGISTER(context, RCX) = REGISTER(context, RIP) = (greg_t)tcs->aep;
    REGISTER(context, RSP) = (greg_t)saved->ursp;
    REGISTER(context, RBP) = (greg_t)saved->urbp;
    REGISTER(context, RDX) = REGISTER(context, RSI) = REGISTER(context, RDI) = 0;
    REGISTER(context, R8) = REGISTER(context, R9) = REGISTER(context, R10) = REGISTER(context, R11) = 0;
    REGISTER(context, R12) = REGISTER(context, R13) = REGISTER(context, R14) = REGISTER(context, R15) = 0;
    REGISTER(context, EFL) &= (greg_t) ~(RFLAGS_STATUS | RFLAGS_DF | RFLAGS_RF | RFLAGS_TF | RFLAGS_NT | RFLAGS_AC);
    release_tcs(epc_page(enclave, block->tcs - enclave->base));
    block->frame = NULL;
    count(&sgxemu_counters.aex);
}
