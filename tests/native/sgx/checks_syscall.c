/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canary: no system call issued in an enclave reaches the kernel. Each check counts them; run under strace they use
 * a number that nothing else uses (SGX_TEST_SYSCALL), and the test looks for it.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 200 };

static struct enclave_host enclave;

/* getpid answers something when it gets through; an unused number shows up in strace. */
static uint64_t number(void) {
    const char *text = getenv("SGX_TEST_SYSCALL");
    return text ? strtoul(text, NULL, 0) : SYS_getpid;
}

static void expect_caught(uint64_t before, uint64_t syscalls) {
    struct sgxemu_stats counted = stats();
    EXPECT_EQUAL(counted.sud - before, syscalls);
    EXPECT_EQUAL(counted.aex, counted.sud + counted.faults + counted.async);
}

static void make_syscalls(uint64_t tcs) {
    uint64_t before = stats().sud;
    EXPECT_EQUAL(call(tcs, CALL_SYSCALLS, MANY, number(), 0), MANY);
    expect_caught(before, MANY);
}

static void a_syscall_is_an_undefined_instruction(void) {
    enclave = load_enclave(NULL);
    make_syscalls(enclave.tcs[0]);
    struct sgx_enclave_run run = call_once(enclave.tcs[1], CALL_TRY, TRAP_SYSCALL, number());
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(run.exception_vector, X86_UD);
}

static void an_int80_is_an_undefined_instruction(void) {
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_TRY, TRAP_INT80, number(), 0), SYSCALL_ANSWER + number());
    expect_caught(0, 1);
}

/* Host code; the enclave calls it. Hardware would fault on the fetch, the emulator on the system call. */
__attribute__((naked, noinline)) static uint64_t host_syscall(uint64_t nr) {
    __asm__("mov %rdi, %rax; syscall; ret");
    (void)nr;
}

static void a_syscall_instruction_of_the_host_is_caught_in_the_enclave(void) {
    enclave = load_enclave(NULL);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_CALL, (uint64_t)host_syscall, number(), 0), SYSCALL_ANSWER + number());
    expect_caught(0, 1);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_CALL, (uint64_t)dlsym(RTLD_DEFAULT, "syscall"), number(), 0),
                 SYSCALL_ANSWER + number());
    expect_caught(0, 2);
    EXPECT_EQUAL(host_syscall(SYS_getpid), (uint64_t)getpid()); /* outside it works */
}

/* Even the emulator's own system call instruction, the one that returns from signals. */
static void the_emulator_s_own_syscall_instruction_is_caught_too(void) {
    static const uint8_t sigreturn[] = {0xb8, SYS_rt_sigreturn, 0, 0, 0, 0x0f, 0x05};
    Dl_info where;
    int found = 0;
    enclave = load_enclave(NULL);
    EXPECT(dladdr((void *)backend->enter, &where), "dladdr");
    const uint8_t *text = (const uint8_t *)((uint64_t)backend->enter & ~4095ul);
    for (size_t i = 0; i < 4096 && !found; i++)
        if (memcmp(text + i, sigreturn, sizeof sigreturn) == 0) {
            found = 1;
            EXPECT_EQUAL(call(enclave.tcs[0], CALL_JUMP, (uint64_t)text + i + 5, number(), 0),
                         SYSCALL_ANSWER + number());
        }
    EXPECT(found, "no sigreturn beside the entry code");
    expect_caught(0, 1);
}

static void *make_syscalls_in_thread(void *tcs) {
    make_syscalls((uint64_t)tcs);
    return NULL;
}

static void new_threads_are_armed(void) {
    enclave = load_enclave(NULL);
    make_syscalls(enclave.tcs[0]);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, make_syscalls_in_thread, (void *)enclave.tcs[i]);
        pthread_join(thread, NULL);
    }
}

static void expect_success(pid_t child) {
    int status;
    EXPECT(child > 0, "fork: %s", strerror(errno));
    EXPECT_EQUAL(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's status is %#x", status);
}

static void a_forked_child_is_armed(void) {
    enclave = load_enclave(NULL);
    make_syscalls(enclave.tcs[0]);
    pid_t child = fork();
    if (child == 0) {
        make_syscalls(enclave.tcs[0]);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            make_syscalls(enclave.tcs[1]);
            _exit(0);
        }
        expect_success(grandchild);
        _exit(0);
    }
    expect_success(child);
    make_syscalls(enclave.tcs[0]);
}

static void a_vforked_child_is_armed_and_so_is_its_parent(void) {
    enclave = load_enclave(NULL);
    make_syscalls(enclave.tcs[0]);
    pid_t child = vfork();
    if (child == 0) {
        make_syscalls(enclave.tcs[0]);
        _exit(0);
    }
    expect_success(child);
    make_syscalls(enclave.tcs[0]);
}

/* A child whose thread id in its PID namespace is that of its parent: only the wiped memory tells them apart. */
static void a_child_with_its_parent_s_pid_is_armed(void) {
    enclave = load_enclave(NULL);
    EXPECT(unshare(CLONE_NEWPID) == 0, "unshare: %s", strerror(errno));
    pid_t first = fork();
    if (first == 0) {
        EXPECT_EQUAL(getpid(), 1);
        make_syscalls(enclave.tcs[0]);
        EXPECT(unshare(CLONE_NEWPID) == 0, "unshare: %s", strerror(errno));
        pid_t second = fork();
        if (second == 0) {
            EXPECT_EQUAL(getpid(), 1);
            make_syscalls(enclave.tcs[0]);
            _exit(0);
        }
        expect_success(second);
        _exit(0);
    }
    expect_success(first);
}

static void set_next_tid(int tid) {
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    char text[16];
    int size = snprintf(text, sizeof text, "%d", tid - 1);
    EXPECT(fd >= 0 && write(fd, text, (size_t)size) == size, "ns_last_pid: %s", strerror(errno));
    close(fd);
}

/* A thread with the id, and the slot, of one that ended. */
static void a_thread_with_an_earlier_thread_s_id_is_armed(void) {
    enclave = load_enclave(NULL);
    EXPECT(unshare(CLONE_NEWPID) == 0, "unshare: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++) {
            pthread_t thread;
            set_next_tid(77);
            pthread_create(&thread, NULL, make_syscalls_in_thread, (void *)enclave.tcs[0]);
            pthread_join(thread, NULL);
        }
        _exit(0);
    }
    expect_success(child);
}

/* ---- Arming that fails ---- */

static void filter_dispatch(int error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp: %s", strerror(errno));
}

static void enter_unarmed(int error) {
    enclave = load_enclave(NULL);
    filter_dispatch(error);
    call(enclave.tcs[0], CALL_SYSCALLS, 1, number(), 0);
    EXPECT(false, "the enclave ran");
}

static void an_enclave_is_not_entered_when_arming_is_refused(void) {
    enter_unarmed(EPERM);
}

static void an_enclave_is_not_entered_when_arming_has_no_effect(void) {
    enter_unarmed(0);
}

static void an_armed_process_may_still_be_unable_to_arm_a_thread(void) {
    pthread_t thread;
    enclave = load_enclave(NULL);
    make_syscalls(enclave.tcs[0]);
    filter_dispatch(EPERM);
    make_syscalls(enclave.tcs[0]);
    pthread_create(&thread, NULL, make_syscalls_in_thread, (void *)enclave.tcs[1]);
    pthread_join(thread, NULL);
    EXPECT(false, "the enclave ran");
}

void refuse_dispatch(void) {
    filter_dispatch(EPERM);
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check syscall_checks[] = {
    CHECK(a_syscall_is_an_undefined_instruction),
    CHECK(an_int80_is_an_undefined_instruction),
    CHECK(a_syscall_instruction_of_the_host_is_caught_in_the_enclave),
    CHECK(the_emulator_s_own_syscall_instruction_is_caught_too),
    CHECK(new_threads_are_armed),
    CHECK(a_forked_child_is_armed),
    CHECK(a_vforked_child_is_armed_and_so_is_its_parent),
    CHECK(a_thread_with_an_earlier_thread_s_id_is_armed),
    CHECK(a_child_with_its_parent_s_pid_is_armed),
    CHECK(an_enclave_is_not_entered_when_arming_is_refused),
    CHECK(an_enclave_is_not_entered_when_arming_has_no_effect),
    CHECK(an_armed_process_may_still_be_unable_to_arm_a_thread),
    {NULL, NULL},
};
