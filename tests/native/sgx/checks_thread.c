/* SPDX-License-Identifier: Apache-2.0 */
/* Several TCS, threads that come and go, and forked children. */
#define _GNU_SOURCE
#include "host.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct enclave_host enclave;
static volatile uint64_t signals;

static void on_alarm(int sig) {
    (void)sig;
    signals++;
}

static void *call_often(void *tcs) {
    uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < 1500; i++) {
        EXPECT_EQUAL(call((uint64_t)tcs, CALL_SUM, (uint64_t)bytes, sizeof bytes, 0), 36);
        if (i % 8 == 0)
            EXPECT_EQUAL(call((uint64_t)tcs, CALL_SYSCALLS, 2, 39, 0), 2);
    }
    return NULL;
}

static void as_many_threads_as_tcs_run_at_once(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {.it_interval.tv_usec = 400, .it_value.tv_usec = 400}, stop = {.it_value.tv_usec = 0};
    pthread_t threads[TCS_COUNT];
    enclave = load_enclave(NULL);
    backend->sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    for (int i = 0; i < TCS_COUNT; i++)
        pthread_create(&threads[i], NULL, call_often, (void *)enclave.tcs[i]);
    for (int i = 0; i < TCS_COUNT; i++)
        pthread_join(threads[i], NULL);
    setitimer(ITIMER_REAL, &stop, NULL);
    struct sgxemu_stats counted = stats();
    EXPECT_EQUAL(counted.sud, TCS_COUNT * 188 * 2);
    EXPECT_EQUAL(counted.aex, counted.sud + counted.faults + counted.async);
}

static volatile uint8_t release[2];

static void *spin(void *tcs) {
    call((uint64_t)tcs, CALL_SPIN, (uint64_t)release, 0, 0);
    return NULL;
}

static void a_busy_tcs_cannot_be_entered(void) {
    pthread_t thread;
    struct sgx_enclave_run run;
    uint64_t answer = 0;
    enclave = load_enclave(NULL);
    pthread_create(&thread, NULL, spin, (void *)enclave.tcs[0]);
    while (!release[1])
        usleep(1000);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, CALL_SUM, 0, 0, 0, &run, &answer), 0);
    EXPECT_EQUAL(run.function, SGX_EENTER);
    EXPECT_EQUAL(run.exception_vector, X86_GP);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_ERESUME, 0, 0, 0, 0, &run, &answer), 0);
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(run.exception_vector, X86_GP);
    EXPECT_EQUAL(call(enclave.tcs[1], CALL_SUM, 0, 0, 0), 0);
    release[0] = 1;
    pthread_join(thread, NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
}

static void *call_once_in_thread(void *tcs) {
    EXPECT_EQUAL(call((uint64_t)tcs, CALL_SYSCALLS, 1, 39, 0), 1);
    return NULL;
}

static void threads_may_come_and_go(void) {
    enclave = load_enclave(NULL);
    for (int i = 0; i < 1100; i++) { /* more than there are slots */
        pthread_t thread;
        pthread_create(&thread, NULL, call_once_in_thread, (void *)enclave.tcs[i % TCS_COUNT]);
        pthread_join(thread, NULL);
    }
    EXPECT_EQUAL(stats().sud, 1100);
}

static void expect_success(pid_t child) {
    int status;
    EXPECT_EQUAL(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's status is %#x", status);
}

static void a_forked_child_shares_the_enclave(void) {
    struct test_exception last;
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, TRAP_UD2, 0, 0), CAUGHT | X86_UD);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++)
            EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, TRAP_DIVIDE, 0, 0), CAUGHT | X86_DE);
        _exit(0);
    }
    expect_success(child);
    call(enclave.tcs[1], CALL_LAST, (uint64_t)&last, 0, 0);
    EXPECT_EQUAL(last.count, 4);
    EXPECT_EQUAL(last.exitinfo & 0xff, X86_DE);
}

static void a_tcs_is_busy_for_other_processes_too(void) {
    volatile uint8_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct sgx_enclave_run run;
    uint64_t answer = 0;
    enclave = load_enclave(NULL);
    pid_t child = fork();
    if (child == 0) {
        call(enclave.tcs[0], CALL_SPIN, (uint64_t)shared, 0, 0);
        _exit(0);
    }
    while (!shared[1])
        usleep(1000);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, CALL_SUM, 0, 0, 0, &run, &answer), 0);
    EXPECT_EQUAL(run.exception_vector, X86_GP);
    shared[0] = 1;
    expect_success(child);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
}

static void an_enclave_made_by_a_child_is_its_own(void) {
    enclave = load_enclave(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct enclave_host own = load_enclave("other");
        EXPECT_EQUAL(call(own.tcs[0], CALL_SUM, 0, 0, 0), 0);
        EXPECT_EQUAL(call(enclave.tcs[1], CALL_SUM, 0, 0, 0), 0);
        _exit(0);
    }
    expect_success(child);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check thread_checks[] = {
    CHECK(as_many_threads_as_tcs_run_at_once),
    CHECK(a_busy_tcs_cannot_be_entered),
    CHECK(threads_may_come_and_go),
    CHECK(a_forked_child_shares_the_enclave),
    CHECK(a_tcs_is_busy_for_other_processes_too),
    CHECK(an_enclave_made_by_a_child_is_its_own),
    {NULL, NULL},
};
