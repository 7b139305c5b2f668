/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test enclave. It trusts its host's pointers: a test, not an example. The exception handler (CSSA 1) answers
 * system calls with SYSCALL_ANSWER + RAX, other exceptions with CAUGHT | vector, and goes on at the address in R15.
 *
 * Compiled without vector registers, so that assembler may keep values in them.
 */
#include "calls.h"
#include "sgx_arch.h"

#define ALIGNED(n) __attribute__((aligned(n)))

static struct test_exception last;
static int give_up;
static struct { uint64_t offset, value; } damage;

static void copy(void *to, const void *from, uint64_t size) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static uint64_t enclu(uint64_t leaf, void *rbx, void *rcx, void *rdx) {
    __asm__ volatile(".byte 0x0f, 0x01, 0xd7" : "+a"(leaf) : "b"(rbx), "c"(rcx), "d"(rdx) : "memory", "cc");
    return leaf;
}

/* Runs an instruction with RAX, RBX, RCX and RDX; an exception continues behind it with CAUGHT | vector. */
#define TRY(instruction, a, b, c, d)                                                                                   \
    ({                                                                                                                 \
        uint64_t rax_ = (a), rbx_ = (b), rcx_ = (c), rdx_ = (d);                                                       \
        __asm__ volatile("lea 1f(%%rip), %%r15\n\t" instruction "\n1:"                                                 \
                         : "+a"(rax_), "+b"(rbx_), "+c"(rcx_), "+d"(rdx_)                                              \
                         :                                                                                             \
                         : "r15", "r11", "memory", "cc");                                                              \
        rax_;                                                                                                          \
    })

uint64_t enclave_exception(uint8_t *ssa);
uint64_t enclave_call(uint64_t call, uint64_t a, uint64_t b, uint64_t c);

/* 1: the host may resume. 2: there was no exception, or the host asked to give up. */
uint64_t enclave_exception(uint8_t *ssa) {
    struct sgx_gprsgx *saved = (struct sgx_gprsgx *)(ssa + SGX_PAGE_SIZE) - 1;
    const struct sgx_exinfo *information = (const struct sgx_exinfo *)saved - 1;
    const uint8_t *code = (const uint8_t *)saved->rip;
    uint32_t vector = saved->exitinfo & 0xff;

    last.count++;
    last.exitinfo = saved->exitinfo;
    last.rip = saved->rip;
    last.rax = saved->rax;
    last.maddr = information->maddr;
    last.errcd = information->errcd;
    if (damage.offset) {
        *(uint64_t *)(ssa + damage.offset) = damage.value;
        damage.offset = 0;
    }
    if (!(saved->exitinfo & SGX_EXITINFO_VALID) || give_up)
        return 2;
    if (vector == X86_UD && ((code[0] == 0x0f && code[1] == 0x05) || code[0] == 0xcd))
        saved->rax += SYSCALL_ANSWER;
    else
        saved->rax = CAUGHT | vector;
    saved->rip = saved->r15;
    return 1;
}

static uint64_t try_trap(uint64_t trap, uint64_t argument) {
    switch (trap) {
    case TRAP_SYSCALL:
        return TRY("syscall", argument, 0, 0, 0);
    case TRAP_INT80:
        return TRY("int $0x80", argument, 0, 0, 0);
    case TRAP_DIVIDE:
        return TRY("xor %%ecx, %%ecx; div %%rcx", 7, 0, 0, 0);
    case TRAP_UD2:
        return TRY("ud2", 1, 0, 0, 0);
    case TRAP_READ:
        return TRY("mov (%%rdx), %%rax", 0, 0, 0, argument);
    case TRAP_WRITE:
        return TRY("movb $1, (%%rdx)", 0, 0, 0, argument);
    case TRAP_WRITE_CODE:
        return TRY("movb $0x90, 1f(%%rip)", 1, 0, 0, 0);
    case TRAP_INT3:
        return TRY("int3", 1, 0, 0, 0);
    case TRAP_HLT:
        return TRY("hlt", 1, 0, 0, 0);
    default:
        return 0;
    }
}

static uint64_t bases_stay(volatile uint8_t *flag) {
    uint64_t fs = 0, gs = 0, old_fs, old_gs, want_fs = 0x1234567000, want_gs = 0x7654321000;
    __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(old_fs), "=r"(old_gs));
    __asm__ volatile("wrfsbase %0; wrgsbase %1" : : "r"(want_fs), "r"(want_gs));
    while (!*flag) {
    }
    __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(fs), "=r"(gs));
    __asm__ volatile("wrfsbase %0; wrgsbase %1" : : "r"(old_fs), "r"(old_gs));
    return fs == want_fs && gs == want_gs;
}

static uint64_t flags_stay(volatile uint8_t *flag) {
    uint64_t flags;
    __asm__ volatile("pushfq; orq $0x40400, (%%rsp); popfq\n"
                     "1: cmpb $0, (%1); je 1b\n"
                     "pushfq; pop %0; cld; pushfq; andq $~0x40000, (%%rsp); popfq"
                     : "=&r"(flags)
                     : "r"(flag)
                     : "memory", "cc");
    return (flags & 0x40400) == 0x40400;
}

/* Values that only registers hold, over a while: asynchronous exits must bring them back. */
static uint64_t count_changes(uint64_t turns) {
    uint64_t changes = 0;
    for (uint64_t i = 0; i < turns; i++) {
        uint64_t want = i * 0x9e3779b97f4a7c15ul + 1, vector, high, general, wait = 200;
        __asm__ volatile("movq %[want], %%xmm7\n"
                         "pshufd $0x44, %%xmm7, %%xmm15\n"
                         "mov %[want], %%r11\n"
                         "push %[want]\n"
                         "1: dec %[wait]\n"
                         "jnz 1b\n"
                         "movq %%xmm7, %[vector]\n"
                         "psrldq $8, %%xmm15\n"
                         "movq %%xmm15, %[high]\n"
                         "mov %%r11, %[general]\n"
                         "pop %%r11\n"
                         "cmp %%r11, %[general]\n"
                         "je 2f\n"
                         "inc %[changes]\n"
                         "2:"
                         : [vector] "=&r"(vector), [high] "=&r"(high), [general] "=&r"(general), [wait] "+&r"(wait),
                           [changes] "+&r"(changes)
                         : [want] "r"(want)
                         : "r11", "cc", "memory");
        changes += (vector != want) + (high != want) + (general != want);
    }
    return changes;
}

static uint64_t make_syscalls(uint64_t count, uint64_t number) {
    uint64_t caught = 0, kept;
    for (uint64_t i = 0; i < count; i++) {
        __asm__ volatile("movq %0, %%xmm7" : : "r"(i));
        caught += TRY("syscall", number, 0, 0, 0) == SYSCALL_ANSWER + number;
        __asm__ volatile("movq %%xmm7, %0" : "=r"(kept));
        if (kept != i) /* resuming must bring vector registers back too */
            return CAUGHT;
    }
    return caught;
}

uint64_t enclave_call(uint64_t call, uint64_t a, uint64_t b, uint64_t c) {
    static struct sgx_targetinfo target ALIGNED(SGX_TARGETINFO_ALIGN);
    static uint8_t reportdata[SGX_REPORTDATA_SIZE] ALIGNED(SGX_REPORTDATA_ALIGN);
    static struct sgx_report report ALIGNED(SGX_REPORT_ALIGN);
    static struct sgx_keyrequest request ALIGNED(SGX_KEYREQUEST_ALIGN);
    static uint8_t key[SGX_KEY_SIZE] ALIGNED(SGX_KEY_ALIGN);
    uint64_t result = 0;

    switch (call) {
    case CALL_SUM:
        for (uint64_t i = 0; i < b; i++)
            result += ((const uint8_t *)a)[i];
        return result;
    case CALL_REPORT:
        copy(&target, (const void *)a, sizeof target);
        copy(reportdata, (const void *)b, sizeof reportdata);
        enclu(SGX_EREPORT, &target, reportdata, &report);
        copy((void *)c, &report, sizeof report);
        return 0;
    case CALL_GETKEY:
        copy(&request, (const void *)a, sizeof request);
        result = enclu(SGX_EGETKEY, &request, key, 0);
        copy((void *)b, key, sizeof key);
        return result;
    case CALL_TRY:
        return try_trap(a, b);
    case CALL_ENCLU: {
        const struct test_enclu *registers = (const struct test_enclu *)a;
        return TRY(".byte 0x0f, 0x01, 0xd7", registers->rax, registers->rbx, registers->rcx, registers->rdx);
    }
    case CALL_SPIN:
        ((volatile uint8_t *)a)[1] = 1;
        do
            result++;
        while (!*(volatile uint8_t *)a);
        return result;
    case CALL_BASES:
        __asm__ volatile("rdfsbase %0" : "=r"(((uint64_t *)a)[0]));
        __asm__ volatile("rdgsbase %0" : "=r"(((uint64_t *)a)[1]));
        return 0;
    case CALL_KEEP_BASES:
        return bases_stay((volatile uint8_t *)a);
    case CALL_INTEGRITY:
        return count_changes(a);
    case CALL_CALL:
        __asm__ volatile("mov %%rsp, %%r14; lea 1f(%%rip), %%r15; and $-16, %%rsp; call *%1; 1: mov %%r14, %%rsp"
                         : "=a"(result)
                         : "r"(a), "D"(b)
                         : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r14", "r15", "memory", "cc");
        return result;
    case CALL_JUMP:
        return TRY("jmp *%%rdx", b, 0, 0, a);
    case CALL_SYSCALLS:
        return make_syscalls(a, b);
    case CALL_LAST:
        copy((void *)a, &last, sizeof last);
        return 0;
    case CALL_XMM:
        __asm__ volatile("movq %%xmm7, %0; movhlps %%xmm7, %%xmm6; movq %%xmm6, %1; movq %2, %%xmm6"
                         : "=&r"(((uint64_t *)a)[0]), "=&r"(((uint64_t *)a)[1])
                         : "r"(0x1122334455667788ul));
        return 0;
    case CALL_GIVE_UP:
        give_up = (int)a;
        return 0;
    case CALL_DAMAGE_FRAME:
        damage.offset = a;
        damage.value = b;
        return 0;
    case CALL_FLAGS:
        return flags_stay((volatile uint8_t *)a);
    default:
        return (uint64_t)-1;
    }
}
