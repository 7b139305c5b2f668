/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions in the enclave: what the host is told, what the enclave finds in its SSA frame, how it goes on. */
#define _GNU_SOURCE
#include "host.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

static struct enclave_host enclave;

static struct test_exception last_exception(void) {
    struct test_exception last;
    call(enclave.tcs[1], CALL_LAST, (uint64_t)&last, 0, 0);
    return last;
}

static uint32_t exit_information(uint32_t vector) {
    uint32_t type = vector == X86_BP ? SGX_EXIT_TYPE_SOFTWARE : SGX_EXIT_TYPE_HARDWARE;
    return SGX_EXITINFO_VALID | type << SGX_EXITINFO_TYPE_SHIFT | vector;
}

/* The host sees the exception first (TCS 2), then the enclave handles one (TCS 0). */
static struct sgx_enclave_run trap(enum test_trap which, uint64_t argument, uint32_t vector) {
    struct sgx_enclave_run run = call_once(enclave.tcs[2], CALL_TRY, which, argument);
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(run.exception_vector, vector);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, which, argument, 0), CAUGHT | vector);
    EXPECT_EQUAL(last_exception().exitinfo, exit_information(vector));
    struct sgxemu_stats counted = stats();
    EXPECT_EQUAL(counted.aex, counted.faults + counted.sud + counted.async);
    return run;
}

static void a_division_by_zero_is_caught(void) {
    enclave = load_enclave(NULL);
    trap(TRAP_DIVIDE, 0, X86_DE);
}

static void an_undefined_instruction_is_caught(void) {
    enclave = load_enclave(NULL);
    trap(TRAP_UD2, 0, X86_UD);
}

static void a_privileged_instruction_is_caught(void) {
    enclave = load_enclave(NULL);
    trap(TRAP_HLT, 0, X86_GP);
}

static void a_read_of_nothing_is_caught_with_its_address(void) {
    enclave = load_enclave(NULL);
    struct sgx_enclave_run run = trap(TRAP_READ, 0x123, X86_PF);
    EXPECT_EQUAL(run.exception_addr, 0); /* the host sees the page only */
    EXPECT_EQUAL(run.exception_error_code & 7, 4);
    EXPECT_EQUAL(last_exception().maddr, 0x123);
    EXPECT_EQUAL(last_exception().errcd & 7, 4);
}

static void a_write_to_code_is_caught(void) {
    enclave = load_enclave(NULL);
    struct sgx_enclave_run run = trap(TRAP_WRITE_CODE, 0, X86_PF);
    EXPECT_EQUAL(run.exception_error_code & 7, 7);
    EXPECT(run.exception_addr > enclave.base, "address %#lx", run.exception_addr);
}

static void a_read_of_a_tcs_is_caught(void) {
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(trap(TRAP_READ, enclave.tcs[3], X86_PF).exception_addr, enclave.tcs[3]);
}

static void a_read_of_an_absent_page_is_caught(void) {
    enclave = load_enclave(NULL);
    uint64_t absent = enclave.base + enclave.size - SGX_PAGE_SIZE;
    EXPECT_EQUAL(trap(TRAP_READ, absent + 8, X86_PF).exception_addr, absent);
}

static void page_faults_are_not_reported_without_exinfo(void) {
    uint64_t verdict = 0;
    enclave = load_enclave("noexinfo");
    struct sgx_enclave_run run = call_once(enclave.tcs[0], CALL_TRY, TRAP_READ, 0);
    EXPECT_EQUAL(run.exception_vector, X86_PF);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, 0, 0, 0, 0, &run, &verdict), 0);
    EXPECT_EQUAL(verdict, 2);
    EXPECT_EQUAL(last_exception().exitinfo, 0);
    EXPECT_EQUAL(call(enclave.tcs[2], CALL_TRY, TRAP_UD2, 0, 0), CAUGHT | X86_UD);
}

static volatile int breakpoints;
static uint64_t seen_rax, seen_rbx;

static void on_breakpoint(int sig, siginfo_t *info, void *context) {
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)info;
    seen_rax = (uint64_t)registers[REG_RAX];
    seen_rbx = (uint64_t)registers[REG_RBX];
    breakpoints++;
    /* The handler enters the same TCS, at CSSA 1, to have the exception handled; then ERESUME goes on. */
    struct sgx_enclave_run run;
    uint64_t verdict = 0;
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, 0, 0, 0, 0, &run, &verdict), 0);
    EXPECT_EQUAL(verdict, 1);
}

static void a_breakpoint_is_a_signal_to_the_host(void) {
    struct sigaction action = {.sa_sigaction = on_breakpoint, .sa_flags = SA_SIGINFO};
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(backend->sigaction(SIGTRAP, &action, NULL), 0);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, TRAP_INT3, 0, 0), CAUGHT | X86_BP);
    EXPECT_EQUAL(breakpoints, 1);
    EXPECT_EQUAL(seen_rax, SGX_ERESUME);
    EXPECT_EQUAL(seen_rbx, enclave.tcs[0]);
    EXPECT_EQUAL(last_exception().exitinfo, exit_information(X86_BP));
}

static volatile int faults_seen;
static siginfo_t seen_info;
static uint64_t seen_rip;

extern uint8_t host_enclu_aep[];

static void on_fault(int sig, siginfo_t *info, void *context) {
    (void)sig;
    seen_info = *info;
    seen_rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    faults_seen++;
    struct sgx_enclave_run run;
    uint64_t verdict = 0;
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, 0, 0, 0, 0, &run, &verdict), 0);
    EXPECT_EQUAL(verdict, 1);
}

static void without_the_vdso_entry_exceptions_are_signals_at_the_aep(void) {
    static const struct {
        enum test_trap trap;
        uint64_t argument;
        int signal;
        uint32_t vector;
    } cases[] = {
        {TRAP_DIVIDE, 0, SIGFPE, X86_DE},
        {TRAP_UD2, 0, SIGILL, X86_UD},
        {TRAP_READ, 0x5123, SIGSEGV, X86_PF},
        {TRAP_HLT, 0, SIGSEGV, X86_GP},
    };
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    enclave = load_enclave(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EXPECT_EQUAL(backend->sigaction(cases[i].signal, &action, NULL), 0);
        uint64_t answer = enclu_in_host(SGX_EENTER, enclave.tcs[0], CALL_TRY, cases[i].trap, cases[i].argument);
        EXPECT_EQUAL(answer, CAUGHT | cases[i].vector);
        EXPECT_EQUAL(faults_seen, i + 1);
        EXPECT_EQUAL(seen_rip, host_enclu_aep);
        EXPECT_EQUAL(seen_info.si_signo, cases[i].signal);
        if (cases[i].vector == X86_PF)
            EXPECT_EQUAL(seen_info.si_addr, 0x5000);
    }
    EXPECT_EQUAL(stats().eresume_trapped, sizeof cases / sizeof *cases);
    /* A system call is #UD, so SIGILL, like UD2. */
    EXPECT_EQUAL(enclu_in_host(SGX_EENTER, enclave.tcs[0], CALL_TRY, TRAP_SYSCALL, 39), SYSCALL_ANSWER + 39);
    EXPECT_EQUAL(seen_info.si_signo, SIGILL);
}

static void a_fault_of_enclu_in_the_host_is_a_signal(void) {
    /* Not a TCS: #PF. The handler would enter; let it not be called. */
    enclave = load_enclave(NULL);
    struct sigaction action = {.sa_handler = SIG_DFL};
    backend->sigaction(SIGSEGV, &action, NULL);
    fflush(NULL);
    enclu_in_host(SGX_EENTER, enclave.tcs[0] + 8, 0, 0, 0);
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check exception_checks[] = {
    CHECK(a_division_by_zero_is_caught),
    CHECK(an_undefined_instruction_is_caught),
    CHECK(a_privileged_instruction_is_caught),
    CHECK(a_read_of_nothing_is_caught_with_its_address),
    CHECK(a_write_to_code_is_caught),
    CHECK(a_read_of_a_tcs_is_caught),
    CHECK(a_read_of_an_absent_page_is_caught),
    CHECK(page_faults_are_not_reported_without_exinfo),
    CHECK(a_breakpoint_is_a_signal_to_the_host),
    CHECK(without_the_vdso_entry_exceptions_are_signals_at_the_aep),
    CHECK(a_fault_of_enclu_in_the_host_is_a_signal),
    {NULL, NULL},
};
