/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ENCLU's leaves and the asynchronous exit (SDM volume 3D, chapters "Enclave Operation", "Enclave Exiting Events" and
 * "SGX Instruction References").
 *
 * Entering has two ways, with one implementation: host code that calls the backend's enter function comes through
 * entry.S without a trap; host code with its own ENCLU instruction comes through SIGILL. Both fill an entry frame that
 * the window of entry.S loads. Leaving is always a trap: EEXIT's ENCLU is #UD on a machine without SGX.
 */
#define _GNU_SOURCE
#include "enclu.h"

#include <immintrin.h>
#include <string.h>

#include "epc.h"
#include "keys.h"

/* CF PF AF ZF SF DF OF AC ID: what code can have in RFLAGS and an exit must keep. Not TF, which is the host's. */
#define RFLAGS_KEPT 0x240cd5ul
#define RFLAGS_STATUS 0x8d5ul /* CF PF AF ZF SF OF */
#define RFLAGS_ALWAYS 0x202ul
#define RFLAGS_ZF 0x40ul
#define RFLAGS_TF 0x100ul
#define RFLAGS_DF 0x400ul
#define RFLAGS_NT 0x4000ul
#define RFLAGS_RF 0x10000ul
#define RFLAGS_AC 0x40000ul

#define REGISTER(context, name) ((context)->uc_mcontext.gregs[REG_##name])

struct sgxemu_stats sgxemu_counters;

static struct fault general_protection(void) {
    return (struct fault){.vector = X86_GP};
}

static struct fault page_fault(uint64_t address) {
    return (struct fault){.vector = X86_PF, .address = address};
}

static bool is_canonical(uint64_t address) {
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

bool is_enclu(const uint8_t *address) {
    return address[0] == 0x0f && address[1] == 0x01 && address[2] == 0xd7;
}

/* ---- Where things are ---- */

static struct sgx_tcs *tcs_at(struct enclave *enclave, uint64_t address) {
    return (struct sgx_tcs *)(enclave->epc + (address - enclave->base));
}

static uint64_t ssa_frame_size(const struct enclave *enclave) {
    return enclave->identity.secs.ssaframesize * SGX_PAGE_SIZE;
}

static uint64_t ssa_offset(const struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return tcs->ossa + index * ssa_frame_size(enclave);
}

static uint8_t *ssa_frame(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return enclave->epc + ssa_offset(enclave, tcs, index);
}

static struct sgx_gprsgx *ssa_registers(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return (struct sgx_gprsgx *)(ssa_frame(enclave, tcs, index + 1) - sizeof(struct sgx_gprsgx));
}

static bool page_allows(struct enclave *enclave, uint64_t offset, uint8_t permissions) {
    const struct epc_page *page;
    if (offset >= enclave->size)
        return false;
    page = epc_page(enclave, offset);
    return page->valid && page->type == SGX_PT_REG && (page->permissions & permissions) == permissions;
}

static struct fault check_ssa_frame(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    uint64_t start = ssa_offset(enclave, tcs, index);
    for (uint64_t at = start; at < start + ssa_frame_size(enclave); at += SGX_PAGE_SIZE)
        if (!page_allows(enclave, at, SGX_SECINFO_R | SGX_SECINFO_W))
            return page_fault(enclave->base + at);
    return NO_FAULT;
}

/* ---- EENTER and ERESUME ---- */

static void release_tcs(struct epc_page *page) {
    __atomic_store_n(&page->busy, 0, __ATOMIC_RELEASE);
}

/* The checks both leaves begin with; makes the TCS busy. */
static struct fault claim_tcs(struct thread_block *block, uint64_t address, uint64_t aep, struct enclave **result) {
    uint32_t nobody = 0;
    if (address & (SGX_PAGE_SIZE - 1))
        return general_protection();
    struct enclave *enclave = epc_find(address);
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

static void fill_iretq(struct entry_frame *frame, uint64_t rip, uint64_t rsp, uint64_t rflags) {
    uint16_t cs, ss;
    __asm__("mov %%cs, %0" : "=r"(cs));
    __asm__("mov %%ss, %0" : "=r"(ss));
    frame->rip = rip;
    frame->cs = cs;
    frame->rflags = (rflags & RFLAGS_KEPT) | RFLAGS_ALWAYS;
    frame->rsp = rsp;
    frame->ss = ss;
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

/* Lets a signal handler return into the window. */
static void return_to_window(struct thread_block *block, struct entry_frame *frame, ucontext_t *context) {
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

static void read_context(struct host_registers *host, const ucontext_t *context) {
    host->r15 = (uint64_t)REGISTER(context, R15), host->r14 = (uint64_t)REGISTER(context, R14);
    host->r13 = (uint64_t)REGISTER(context, R13), host->r12 = (uint64_t)REGISTER(context, R12);
    host->r11 = (uint64_t)REGISTER(context, R11), host->r10 = (uint64_t)REGISTER(context, R10);
    host->r9 = (uint64_t)REGISTER(context, R9), host->r8 = (uint64_t)REGISTER(context, R8);
    host->rdi = (uint64_t)REGISTER(context, RDI), host->rsi = (uint64_t)REGISTER(context, RSI);
    host->rbp = (uint64_t)REGISTER(context, RBP), host->rbx = (uint64_t)REGISTER(context, RBX);
    host->rdx = (uint64_t)REGISTER(context, RDX), host->rcx = (uint64_t)REGISTER(context, RCX);
    host->rax = (uint64_t)REGISTER(context, RAX), host->rflags = (uint64_t)REGISTER(context, EFL);
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

/* ---- ENCLU in the enclave ---- */

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

static bool is_zero(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
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
