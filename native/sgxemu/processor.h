/* SPDX-License-Identifier: Apache-2.0 */
/* What entering and leaving share: flags, exceptions, the places of TCS and SSA, the registers of a signal frame. */
#ifndef SGXEMU_PROCESSOR_H
#define SGXEMU_PROCESSOR_H

#ifndef _GNU_SOURCE
#error "REG_* of <ucontext.h> need _GNU_SOURCE"
#endif

#include "enclu.h"

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

static inline struct fault general_protection(void) {
    return (struct fault){.vector = X86_GP};
}

static inline struct fault page_fault(uint64_t address) {
    return (struct fault){.vector = X86_PF, .address = address};
}

static inline bool is_canonical(uint64_t address) {
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static inline struct sgx_tcs *tcs_at(struct enclave *enclave, uint64_t address) {
    return (struct sgx_tcs *)(enclave->epc + (address - enclave->base));
}

static inline uint64_t ssa_frame_size(const struct enclave *enclave) {
    return enclave->identity.secs.ssaframesize * SGX_PAGE_SIZE;
}

static inline uint64_t ssa_offset(const struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return tcs->ossa + index * ssa_frame_size(enclave);
}

static inline uint8_t *ssa_frame(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return enclave->epc + ssa_offset(enclave, tcs, index);
}

static inline struct sgx_gprsgx *ssa_registers(struct enclave *enclave, const struct sgx_tcs *tcs, uint32_t index) {
    return (struct sgx_gprsgx *)(ssa_frame(enclave, tcs, index + 1) - sizeof(struct sgx_gprsgx));
}

static inline bool page_allows(struct enclave *enclave, uint64_t offset, uint8_t permissions) {
    const struct epc_page *page;
    if (offset >= enclave->size)
        return false;
    page = epc_page(enclave, offset);
    return page->valid && page->type == SGX_PT_REG && (page->permissions & permissions) == permissions;
}

static inline void release_tcs(struct epc_page *page) {
    __atomic_store_n(&page->busy, 0, __ATOMIC_RELEASE);
}

static inline void fill_iretq(struct entry_frame *frame, uint64_t rip, uint64_t rsp, uint64_t rflags) {
    uint16_t cs, ss;
    __asm__("mov %%cs, %0" : "=r"(cs));
    __asm__("mov %%ss, %0" : "=r"(ss));
    frame->rip = rip;
    frame->cs = cs;
    frame->rflags = (rflags & RFLAGS_KEPT) | RFLAGS_ALWAYS;
    frame->rsp = rsp;
    frame->ss = ss;
}

static inline void read_context(struct host_registers *host, const ucontext_t *context) {
    host->r15 = (uint64_t)REGISTER(context, R15), host->r14 = (uint64_t)REGISTER(context, R14);
    host->r13 = (uint64_t)REGISTER(context, R13), host->r12 = (uint64_t)REGISTER(context, R12);
    host->r11 = (uint64_t)REGISTER(context, R11), host->r10 = (uint64_t)REGISTER(context, R10);
    host->r9 = (uint64_t)REGISTER(context, R9), host->r8 = (uint64_t)REGISTER(context, R8);
    host->rdi = (uint64_t)REGISTER(context, RDI), host->rsi = (uint64_t)REGISTER(context, RSI);
    host->rbp = (uint64_t)REGISTER(context, RBP), host->rbx = (uint64_t)REGISTER(context, RBX);
    host->rdx = (uint64_t)REGISTER(context, RDX), host->rcx = (uint64_t)REGISTER(context, RCX);
    host->rax = (uint64_t)REGISTER(context, RAX), host->rflags = (uint64_t)REGISTER(context, EFL);
}

#endif
