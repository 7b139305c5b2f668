/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: slots and the arming of Syscall User Dispatch.
 *
 * Dispatch is exclusive (mode 1) with an empty allowed range: while a thread's selector says BLOCK, which it does
 * exactly while enclave code runs, no system call instruction anywhere in the address space reaches the kernel's system
 * call table. Dispatch ends with fork and with exec and is not inherited by threads; so the note that a thread is armed
 * is its thread id in memory that a fork wipes. Both are needed: after vfork the memory is shared but the thread id is
 * another, and in a new PID namespace a child may have its parent's id.
 */
#define _GNU_SOURCE
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "enclu.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF 0
#define PR_SYS_DISPATCH_ON 1
#endif
#define HWCAP2_FSGSBASE 2ul

#define SIGNAL_BIT(sig) (1ul << ((sig)-1))
const uint64_t fault_signals = SIGNAL_BIT(SIGILL) | SIGNAL_BIT(SIGTRAP) | SIGNAL_BIT(SIGBUS) | SIGNAL_BIT(SIGFPE) |
                               SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGSYS);

uint8_t *sgxemu_arena; /* SLOT_COUNT slots, aligned to SLOT_SIZE; entry.S reads it */
static uint8_t slot_used[SLOT_COUNT];
static uint32_t *armed_tid; /* one for each slot, wiped by fork */
static pthread_key_t block_key;

uint64_t thread_set_mask(uint64_t mask) {
    uint64_t old = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, sizeof mask);
    return old;
}

static int slot_of(const struct thread_block *block) {
    return (int)(((uint8_t *)block - sgxemu_arena) / SLOT_SIZE);
}

static int dispatch(int mode, struct thread_block *block) {
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, 0, 0, mode == PR_SYS_DISPATCH_ON ? &block->selector : NULL);
}

static stack_t signal_stack(struct thread_block *block) {
    uint8_t *slot = (uint8_t *)block - SLOT_BLOCK;
    return (stack_t){.ss_sp = slot + SLOT_STACK, .ss_size = SLOT_SPARE_FRAME - SLOT_STACK};
}

/* A thread ends: its slot is the next one's. */
static void release(void *pointer) {
    struct thread_block *block = pointer;
    int slot = slot_of(block);
    dispatch(PR_SYS_DISPATCH_OFF, block);
    sigaltstack(&block->host_stack, NULL);
    armed_tid[slot] = 0;
    __atomic_store_n(&slot_used[slot], 0, __ATOMIC_RELEASE);
}

static struct thread_block *take_slot(void) {
    for (int slot = 0; slot < SLOT_COUNT; slot++) {
        if (__atomic_exchange_n(&slot_used[slot], 1, __ATOMIC_ACQUIRE))
            continue;
        uint8_t *start = sgxemu_arena + (size_t)slot * SLOT_SIZE;
        struct thread_block *block = (struct thread_block *)(start + SLOT_BLOCK);
        mprotect(start, SLOT_STACK, PROT_NONE);
        memset(block, 0, sizeof *block);
        return block;
    }
    return NULL;
}

__attribute__((noreturn)) static void die_unarmed(void) {
    static const char sentence[] =
        "sgxemu: cannot arm Syscall User Dispatch (prctl(2) was refused or has no effect), so system calls of the "
        "enclave would reach the kernel; the enclave was not entered\n";
    if (write(STDERR_FILENO, sentence, sizeof sentence - 1) < 0) {
        /* Nobody listens; the signal below says enough. */
    }
    abort();
}

/*
 * Arms dispatch and then proves it: a system call must come back as SIGSYS. A prctl that was answered with success but
 * not carried out (a seccomp filter can do that) would otherwise go unnoticed.
 */
static void arm(struct thread_block *block, ucontext_t *context, uint32_t tid) {
    stack_t stack = signal_stack(block);
    if (context) /* returning from a handler sets the stack from here */
        context->uc_stack = stack;
    else
        sigaltstack(&stack, NULL);
    block->tid = tid;
    block->selector = SELECTOR_ALLOW;
    if (dispatch(PR_SYS_DISPATCH_ON, block) != 0)
        die_unarmed();
    uint64_t old = thread_set_mask(~SIGNAL_BIT(SIGSYS));
    uint64_t answer = sgxemu_probe(block);
    thread_set_mask(old);
    if (answer != PROBE_CAUGHT)
        die_unarmed();
    armed_tid[slot_of(block)] = tid;
}

struct thread_block *thread_ready(ucontext_t *context) {
    struct thread_block *block = pthread_getspecific(block_key);
    if (!block) {
        block = take_slot();
        if (!block || pthread_setspecific(block_key, block) != 0)
            return NULL;
        if (context)
            block->host_stack = context->uc_stack;
        else
            sigaltstack(NULL, &block->host_stack);
    }
    uint32_t tid = (uint32_t)syscall(SYS_gettid);
    if (armed_tid[slot_of(block)] != tid)
        arm(block, context, tid);
    /* ENCLU is a fault to the kernel; a blocked fault signal would end the process. */
    if (context)
        *(uint64_t *)&context->uc_sigmask &= ~fault_signals;
    else
        syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &fault_signals, NULL, sizeof fault_signals);
    return block;
}

int thread_init(void) {
    struct thread_block *block;
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return -ENOSYS;
    size_t size = (size_t)SLOT_SIZE * SLOT_COUNT;
    uint8_t *memory =
        mmap(NULL, size + SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    sgxemu_arena = (uint8_t *)(((uintptr_t)memory + SLOT_SIZE - 1) & ~(uintptr_t)(SLOT_SIZE - 1));
    armed_tid = mmap(NULL, SLOT_COUNT * sizeof *armed_tid, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (armed_tid == MAP_FAILED)
        return -errno;
    if (madvise(armed_tid, SLOT_COUNT * sizeof *armed_tid, MADV_WIPEONFORK) != 0)
        return -ENOSYS;
    block = take_slot();
    if (dispatch(PR_SYS_DISPATCH_ON, block) != 0 || dispatch(PR_SYS_DISPATCH_OFF, block) != 0)
        return -ENOSYS;
    slot_used[0] = 0;
    return -pthread_key_create(&block_key, release);
}
