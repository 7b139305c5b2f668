/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous exits and the host's signal handlers. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static struct enclave_host enclave;
static volatile uint64_t signals, synthetic, leaked, nested;
static volatile uint8_t flag;

static void handle(int sig, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    EXPECT_EQUAL(backend->sigaction(sig, &action, NULL), 0);
}

static void start_timer(int period_us) {
    struct itimerval timer = {.it_interval.tv_usec = period_us, .it_value.tv_usec = period_us};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* A while, and on a busy machine longer, until enough was seen. */
static bool may_go_on(double start, double while_seconds, bool enough) {
    double passed = seconds() - start;
    return passed < while_seconds || (!enough && passed < 10);
}

static void look(const ucontext_t *context) {
    const greg_t *registers = context->uc_mcontext.gregs;
    bool at_exit = registers[REG_RAX] == SGX_ERESUME && (uint64_t)registers[REG_RBX] == enclave.tcs[0];
    signals++;
    leaked += (uint64_t)registers[REG_RIP] - enclave.base < enclave.size;
    /* After an exit every other register is 0, whatever the enclave had in them. */
    if (at_exit && registers[REG_RIP] == registers[REG_RCX]) {
        synthetic++;
        leaked += registers[REG_RDX] || registers[REG_RSI] || registers[REG_RDI] || registers[REG_R8] ||
                  registers[REG_R9] || registers[REG_R10] || registers[REG_R11] || registers[REG_R12] ||
                  registers[REG_R13] || registers[REG_R14] || registers[REG_R15];
        leaked += context->uc_mcontext.fpregs->mxcsr != 0x1f80;
    }
}

static void on_alarm(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info;
    look(context);
}

static void expect_consistent_counters(void) {
    struct sgxemu_stats counted = stats();
    EXPECT_EQUAL(counted.aex, counted.sud + counted.faults + counted.async);
    EXPECT_EQUAL(leaked, 0);
}

static void registers_survive_a_storm_of_signals(void) {
    enclave = load_enclave("avx");
    handle(SIGALRM, on_alarm, 0);
    start_timer(150);
    uint64_t changes = 0;
    for (double start = seconds(); may_go_on(start, 0.8, synthetic > 50 && stats().eresume_direct > 50);)
        changes += call(enclave.tcs[0], CALL_INTEGRITY, 20000, 0, 0);
    start_timer(0);
    EXPECT_EQUAL(changes, 0);
    EXPECT(synthetic > 50, "only %lu of %lu signals met the enclave", synthetic, signals);
    EXPECT(stats().eresume_direct > 50, "%lu resumptions", stats().eresume_direct);
    expect_consistent_counters();
}

static void calls_survive_a_storm_of_signals(void) {
    uint8_t bytes[64];
    uint64_t calls = 0;
    memset(bytes, 2, sizeof bytes);
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm, 0);
    start_timer(100);
    double start = seconds();
    /* Long enough for signals to hit the window of direct entry, which is some 1 % of a call. */
    while (may_go_on(start, 1, stats().rolled_forward > 0)) {
        calls++;
        EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, (uint64_t)bytes, sizeof bytes, 0), 128);
    }
    start_timer(0);
    EXPECT(stats().rolled_forward > 0, "%lu signals never hit the window in %lu calls", signals, calls);
    EXPECT_EQUAL(stats().eexit, calls);
    EXPECT(stats().eenter_direct >= calls, "%lu entries", stats().eenter_direct);
    expect_consistent_counters();
}

static void calls_with_exceptions_survive_a_storm_of_signals(void) {
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm, 0);
    start_timer(100);
    uint64_t calls = 0;
    for (double end = seconds() + 0.7; seconds() < end; calls++) {
        uint64_t answer = call(enclave.tcs[0], CALL_SYSCALLS, 3, 39, 0);
        EXPECT_EQUAL(answer, 3);
    }
    start_timer(0);
    EXPECT_EQUAL(stats().sud, 3 * calls);
    expect_consistent_counters();
}

static void real_enclu_survives_a_storm_of_signals(void) {
    uint8_t bytes[64];
    memset(bytes, 2, sizeof bytes);
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm, 0);
    start_timer(100);
    uint64_t calls = 0;
    for (double end = seconds() + 0.5; seconds() < end; calls++)
        EXPECT_EQUAL(enclu_in_host(SGX_EENTER, enclave.tcs[0], CALL_SUM, (uint64_t)bytes, sizeof bytes), 128);
    start_timer(0);
    EXPECT_EQUAL(stats().eenter_trapped, calls);
    EXPECT_EQUAL(stats().eresume_trapped, stats().aex);
    expect_consistent_counters();
}

static void on_alarm_enter(int sig, siginfo_t *info, void *context) {
    uint8_t bytes[3] = {1, 2, 3};
    struct sgx_enclave_run run;
    uint64_t answer = 0;
    (void)sig, (void)info;
    look(context);
    if (call(enclave.tcs[1], CALL_SUM, (uint64_t)bytes, sizeof bytes, 0) == 6)
        nested++;
    /* The TCS that was interrupted: in the enclave its next frame is free, outside it is at CSSA 0. */
    if (enter(enclave.tcs[0], SGX_EENTER, CALL_SUM, (uint64_t)bytes, sizeof bytes, 0, &run, &answer) == 0 &&
        run.function == SGX_EEXIT && (answer == 6 || answer == 2))
        nested++;
    else
        leaked++;
}

static void a_handler_may_enter_the_interrupted_tcs_and_others(void) {
    uint8_t bytes[64];
    memset(bytes, 2, sizeof bytes);
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm_enter, 0);
    start_timer(300);
    for (double start = seconds(); may_go_on(start, 0.8, signals > 100);) {
        EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, (uint64_t)bytes, sizeof bytes, 0), 128);
        EXPECT_EQUAL(call(enclave.tcs[0], CALL_INTEGRITY, 100, 0, 0), 0);
    }
    start_timer(0);
    EXPECT(signals > 100, "%lu signals", signals);
    EXPECT_EQUAL(nested, 2 * signals);
    expect_consistent_counters();
}

static void *raise_flag(void *unused) {
    (void)unused;
    for (int i = 0; i < 5000 && synthetic <= 5; i++)
        usleep(1000);
    flag = 1;
    return NULL;
}

static void with_interruptions(enum test_call number, uint64_t want) {
    pthread_t thread;
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm, 0);
    pthread_create(&thread, NULL, raise_flag, NULL);
    start_timer(500);
    EXPECT_EQUAL(call(enclave.tcs[0], number, (uint64_t)&flag, 0, 0), want);
    start_timer(0);
    pthread_join(thread, NULL);
    EXPECT(synthetic > 5, "%lu exits", synthetic);
    expect_consistent_counters();
}

static void segment_bases_the_enclave_set_itself_survive_exits(void) {
    with_interruptions(CALL_KEEP_BASES, 1);
}

static void direction_and_alignment_flags_survive_exits(void) {
    with_interruptions(CALL_FLAGS, 1);
}

static uint64_t handler_stack;

static void on_signal_note_stack(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info, (void)context;
    handler_stack = (uint64_t)__builtin_frame_address(0);
}

static void interrupted_spin(int sig) {
    volatile uint8_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        while (!shared[1])
            usleep(1000);
        kill(parent, sig);
        shared[0] = 1; /* the parent handles the signal before it runs on */
        _exit(0);
    }
    EXPECT(call(enclave.tcs[0], CALL_SPIN, (uint64_t)shared, 0, 0) > 0, "no turns");
}

static void handlers_run_on_the_host_s_stack(void) {
    uint64_t here = (uint64_t)__builtin_frame_address(0);
    enclave = load_enclave(NULL);
    handle(SIGUSR1, on_signal_note_stack, 0);
    interrupted_spin(SIGUSR1);
    EXPECT(here - handler_stack < 64 << 10, "the handler ran at %#lx, not below %#lx", handler_stack, here);
    expect_consistent_counters();
    EXPECT_EQUAL(stats().async, 1);
}

static void handlers_run_on_the_alternate_stack_they_ask_for(void) {
    static uint8_t own[64 << 10] __attribute__((aligned(16)));
    stack_t stack = {.ss_sp = own, .ss_size = sizeof own};
    EXPECT_EQUAL(sigaltstack(&stack, NULL), 0);
    enclave = load_enclave(NULL);
    handle(SIGUSR1, on_signal_note_stack, SA_ONSTACK);
    interrupted_spin(SIGUSR1);
    EXPECT(handler_stack - (uint64_t)own < sizeof own, "the handler ran at %#lx", handler_stack);
}

static sigset_t handler_mask;

static void on_signal_note_mask(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info, (void)context;
    sigprocmask(SIG_BLOCK, NULL, &handler_mask);
}

static void handlers_have_their_mask_but_faults_stay_free(void) {
    struct sigaction action = {.sa_sigaction = on_signal_note_mask, .sa_flags = SA_SIGINFO}, old;
    sigset_t after;
    sigfillset(&action.sa_mask);
    sigdelset(&action.sa_mask, SIGUSR2);
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(backend->sigaction(SIGUSR1, &action, NULL), 0);
    interrupted_spin(SIGUSR1);
    EXPECT(sigismember(&handler_mask, SIGUSR1) && sigismember(&handler_mask, SIGHUP), "the mask was not applied");
    EXPECT(!sigismember(&handler_mask, SIGUSR2), "SIGUSR2 was blocked");
    EXPECT(!sigismember(&handler_mask, SIGILL) && !sigismember(&handler_mask, SIGSEGV) &&
               !sigismember(&handler_mask, SIGSYS) && !sigismember(&handler_mask, SIGTRAP),
           "a fault signal was blocked");
    sigprocmask(SIG_BLOCK, NULL, &after);
    EXPECT(!sigismember(&after, SIGUSR1) && !sigismember(&after, SIGHUP), "the mask stayed");
    EXPECT_EQUAL(backend->sigaction(SIGUSR1, NULL, &old), 0);
    EXPECT_EQUAL(old.sa_sigaction, action.sa_sigaction);
}

static void blocking_all_signals_does_not_stop_the_platform(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, TRAP_READ, 0, 0), CAUGHT | X86_PF);
    sigprocmask(SIG_BLOCK, &all, NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SYSCALLS, 2, 39, 0), 2);
}

extern volatile int early_signals; /* host.c: a handler set before the emulator came */

static void handlers_set_before_the_emulator_are_kept(void) {
    enclave = load_enclave(NULL);
    interrupted_spin(SIGUSR2);
    EXPECT_EQUAL(early_signals, 1);
    EXPECT_EQUAL(stats().async, 1);
}

static void once_handlers_run_once_and_ignored_signals_never(void) {
    enclave = load_enclave(NULL);
    handle(SIGUSR1, on_alarm, SA_RESETHAND);
    interrupted_spin(SIGUSR1);
    EXPECT_EQUAL(signals, 1);
    struct sigaction now, ignore = {.sa_handler = SIG_IGN};
    EXPECT_EQUAL(backend->sigaction(SIGUSR1, &ignore, &now), 0);
    EXPECT_EQUAL(now.sa_handler, SIG_DFL);
    interrupted_spin(SIGUSR1);
    EXPECT_EQUAL(signals, 1);
}

/* Sent, not met: an interruption like any other. */
static void a_sent_fault_signal_is_an_interruption(void) {
    enclave = load_enclave(NULL);
    handle(SIGSEGV, on_alarm, 0);
    interrupted_spin(SIGSEGV);
    EXPECT_EQUAL(signals, 1);
    EXPECT_EQUAL(synthetic, 1);
    EXPECT_EQUAL(stats().faults, 0);
    EXPECT_EQUAL(stats().async, 1);
}

static sigjmp_buf back;
static void *fault_address;

static void on_host_fault(int sig, siginfo_t *info, void *context) {
    (void)context;
    EXPECT_EQUAL(sig, SIGSEGV);
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

static void the_host_s_own_faults_go_to_its_handler(void) {
    enclave = load_enclave(NULL);
    handle(SIGSEGV, on_host_fault, 0);
    for (int i = 0; i < 3; i++) {
        fault_address = NULL;
        if (sigsetjmp(back, 1) == 0)
            *(volatile uint8_t *)0x1234 = 1;
        EXPECT_EQUAL(fault_address, 0x1234);
        EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
    }
}

static void the_host_s_own_fault_kills_it_without_a_handler(void) {
    enclave = load_enclave(NULL);
    call(enclave.tcs[0], CALL_SUM, 0, 0, 0);
    *(volatile uint8_t *)0x1234 = 1;
}

static void on_alarm_jump(int sig, siginfo_t *info, void *context) {
    on_alarm(sig, info, context);
    siglongjmp(back, 1);
}

static void a_handler_may_jump_out_of_the_enclave(void) {
    uint8_t never[2] = {0, 0};
    enclave = load_enclave(NULL);
    handle(SIGALRM, on_alarm_jump, 0);
    for (int i = 1; i < 4; i++)
        if (sigsetjmp(back, 1) == 0) {
            struct itimerval once = {.it_value.tv_usec = 5000};
            setitimer(ITIMER_REAL, &once, NULL);
            call(enclave.tcs[i], CALL_SPIN, (uint64_t)never, 0, 0);
        }
    EXPECT_EQUAL(signals, 3);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
    expect_consistent_counters();
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check signal_checks[] = {
    CHECK(registers_survive_a_storm_of_signals),
    CHECK(calls_survive_a_storm_of_signals),
    CHECK(calls_with_exceptions_survive_a_storm_of_signals),
    CHECK(real_enclu_survives_a_storm_of_signals),
    CHECK(a_handler_may_enter_the_interrupted_tcs_and_others),
    CHECK(segment_bases_the_enclave_set_itself_survive_exits),
    CHECK(direction_and_alignment_flags_survive_exits),
    CHECK(handlers_run_on_the_host_s_stack),
    CHECK(handlers_run_on_the_alternate_stack_they_ask_for),
    CHECK(handlers_have_their_mask_but_faults_stay_free),
    CHECK(blocking_all_signals_does_not_stop_the_platform),
    CHECK(handlers_set_before_the_emulator_are_kept),
    CHECK(once_handlers_run_once_and_ignored_signals_never),
    CHECK(a_sent_fault_signal_is_an_interruption),
    CHECK(the_host_s_own_faults_go_to_its_handler),
    CHECK(the_host_s_own_fault_kills_it_without_a_handler),
    CHECK(a_handler_may_jump_out_of_the_enclave),
    {NULL, NULL},
};
