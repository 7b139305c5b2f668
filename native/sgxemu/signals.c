/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals: the traps the platform lives on, asynchronous exits, and the host's own handlers.
 *
 * The kernel knows one handler for everything, sgxemu_signal_entry, on the thread's alternate stack. What is an
 * exception in the enclave becomes an asynchronous exit. The host's handlers run on the host's stack, as they would
 * with hardware: the signal frame is moved there, so that a handler may itself enter enclaves, and be interrupted,
 * without losing the alternate stack's content. The frame shows the synthetic state of an exit, never the enclave's
 * registers.
 */
#define _GNU_SOURCE
#include "signals.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "processor.h"

#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif
#define SA_RESTORER_FLAG 0x04000000
#define FP_XSTATE_MAGIC 0x46505853u
#define RED_ZONE 128

/* The kernel's struct sigaction; libc's has another layout and hides the restorer. */
struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

void sgxemu_signal_entry(int sig, siginfo_t *info, void *context);
void sgxemu_restorer(void);
__attribute__((noreturn)) void sgxemu_call_handler(int sig, siginfo_t *info, ucontext_t *context, void *handler,
                                                   void *frame);
void sgxemu_on_signal(int sig, siginfo_t *info, ucontext_t *context, struct thread_block *block, uint8_t *frame);

/* The host's dispositions, as it set them. */
static struct sigaction host_action[NSIG];

static bool is_fault_signal(int sig) {
    return fault_signals >> (sig - 1) & 1;
}

static int set_kernel_action(int sig, void *handler, unsigned long flags, uint64_t mask) {
    struct kernel_sigaction action = {handler, flags | SA_RESTORER_FLAG, sgxemu_restorer, mask};
    return (int)syscall(SYS_rt_sigaction, sig, &action, NULL, sizeof action.mask);
}

static int install_entry(int sig, unsigned long host_flags) {
    unsigned long kept = host_flags & (SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT);
    return set_kernel_action(sig, (void *)sgxemu_signal_entry, kept | SA_SIGINFO | SA_ONSTACK, ~0ul);
}

int signals_sigaction(int sig, const struct sigaction *act, struct sigaction *old) {
    if (sig < 1 || sig >= NSIG || ((sig == SIGKILL || sig == SIGSTOP) && act)) {
        errno = EINVAL;
        return -1;
    }
    struct sigaction previous = host_action[sig];
    if (act) {
        host_action[sig] = *act;
        if (!is_fault_signal(sig)) {
            bool handled = act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
            int result = handled ? install_entry(sig, (unsigned long)act->sa_flags)
                                 : set_kernel_action(sig, (void *)act->sa_handler, (unsigned long)act->sa_flags, 0);
            if (result != 0) {
                host_action[sig] = previous;
                return -1;
            }
        }
    }
    if (old)
        *old = previous;
    return 0;
}

int signals_init(void) {
    for (int sig = 1; sig < NSIG; sig++) {
        /* Real-time signals 32 and 33 are libc's own; sigaction refuses them, and they stay as they are. */
        if (sigaction(sig, NULL, &host_action[sig]) != 0)
            continue;
        bool handled = host_action[sig].sa_handler != SIG_DFL && host_action[sig].sa_handler != SIG_IGN;
        if ((handled || is_fault_signal(sig)) && install_entry(sig, (unsigned long)host_action[sig].sa_flags) != 0)
            return -errno;
    }
    return 0;
}

/* ---- The host's handlers ---- */

static void default_action(int sig, bool refaults) {
    set_kernel_action(sig, (void *)SIG_DFL, 0, 0);
    if (!refaults) /* delivered as soon as the handler's return unblocks it */
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
}

static size_t fpstate_size(const uint8_t *fpstate) {
    const struct _fpx_sw_bytes *software = (const struct _fpx_sw_bytes *)(fpstate + 464);
    return software->magic1 == FP_XSTATE_MAGIC ? software->extended_size : 512;
}

/* Where a handler's frame goes: below the interrupted stack pointer, or on the alternate stack the host asked for. */
static uint64_t handler_stack(const struct sigaction *action, const struct thread_block *block,
                              const ucontext_t *context) {
    uint64_t rsp = (uint64_t)REGISTER(context, RSP);
    const stack_t *stack = &block->host_stack;
    uint64_t start = (uint64_t)stack->ss_sp;
    bool usable = !(stack->ss_flags & SS_DISABLE) && stack->ss_size > 0;
    if ((action->sa_flags & SA_ONSTACK) && usable && rsp - start >= stack->ss_size)
        return start + stack->ss_size;
    return rsp - RED_ZONE;
}

/* Moves the kernel's frame (return address, context, siginfo, then the FP state) to the host's stack. */
static uint8_t *move_frame(uint64_t stack, siginfo_t **info, ucontext_t **context, uint8_t *frame) {
    uint8_t *fpstate = (uint8_t *)(*context)->uc_mcontext.fpregs;
    size_t fp_size = fpstate_size(fpstate), head_size = (size_t)(fpstate - frame);
    uint8_t *new_fpstate = (uint8_t *)((stack - fp_size) & ~63ul);
    uint8_t *new_frame = (uint8_t *)((((uint64_t)new_fpstate - head_size) & ~15ul) - 8); /* as after a call */
    memcpy(new_fpstate, fpstate, fp_size);
    memcpy(new_frame, frame, head_size);
    *context = (ucontext_t *)(new_frame + ((uint8_t *)*context - frame));
    *info = (siginfo_t *)(new_frame + ((uint8_t *)*info - frame));
    (*context)->uc_mcontext.fpregs = (fpregset_t)new_fpstate;
    return new_frame;
}

/* Gives the signal to the host. Returns when there is no handler to call. */
static void deliver(int sig, siginfo_t *info, ucontext_t *context, struct thread_block *block, uint8_t *frame,
                    bool is_fault, bool refaults) {
    struct sigaction action = host_action[sig];
    if (action.sa_handler == SIG_IGN && !is_fault)
        return;
    if (action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL) {
        default_action(sig, refaults);
        return;
    }
    if (action.sa_flags & SA_RESETHAND)
        host_action[sig].sa_handler = SIG_DFL;
    if (block)
        frame = move_frame(handler_stack(&action, block, context), &info, &context, frame);

    uint64_t mask, added;
    memcpy(&mask, &context->uc_sigmask, sizeof mask);
    memcpy(&added, &host_action[sig].sa_mask, sizeof added);
    mask |= added;
    if (!(action.sa_flags & SA_NODEFER))
        mask |= 1ul << (sig - 1);
    thread_set_mask(mask & ~fault_signals); /* a handler may enter enclaves, which needs them */
    sgxemu_call_handler(sig, info, context, (void *)action.sa_sigaction, frame);
}

/* ---- Traps ---- */

static bool is_synchronous(int sig, const siginfo_t *info) {
    return info->si_code > 0 && is_fault_signal(sig) && sig != SIGSYS;
}

static bool is_dispatch(int sig, const siginfo_t *info) {
    return sig == SIGSYS && info->si_code == SYS_USER_DISPATCH;
}

/* The exception that a signal stands for. */
static struct fault fault_of(const ucontext_t *context) {
    return (struct fault){
        .vector = (int)REGISTER(context, TRAPNO),
        .code = (uint32_t)REGISTER(context, ERR),
        .address = REGISTER(context, TRAPNO) == X86_PF ? (uint64_t)REGISTER(context, CR2) : 0,
    };
}

/* The signal by which the kernel tells a host without the vDSO of an exception. */
static int describe_fault(siginfo_t *info, int sig, struct fault fault, ucontext_t *context) {
    REGISTER(context, TRAPNO) = fault.vector;
    REGISTER(context, ERR) = fault.code;
    REGISTER(context, CR2) = (greg_t)(fault.address & ~(SGX_PAGE_SIZE - 1));
    info->si_addr = (void *)REGISTER(context, RIP);
    switch (fault.vector) {
    case X86_UD:
        info->si_signo = SIGILL;
        info->si_code = ILL_ILLOPN;
        return SIGILL;
    case X86_GP:
        info->si_signo = SIGSEGV;
        info->si_code = SI_KERNEL;
        info->si_addr = NULL;
        return SIGSEGV;
    case X86_PF:
        info->si_signo = SIGSEGV;
        info->si_code = SEGV_MAPERR;
        info->si_addr = (void *)(fault.address & ~(SGX_PAGE_SIZE - 1));
        return SIGSEGV;
    default:
        return sig;
    }
}

/* At our entry's ENCLU exceptions become results, as the kernel does it at the vDSO's; but not debug exceptions. */
static bool goes_to_vdso(uint64_t enclu, struct fault fault) {
    return enclu == (uint64_t)sgxemu_aep && fault.vector != X86_DB && fault.vector != X86_BP;
}

static void return_exception(ucontext_t *context, struct fault fault) {
    REGISTER(context, RDI) = fault.vector;
    REGISTER(context, RSI) = (greg_t)fault.code;
    /* The processor hides the low bits of an enclave's address. */
    REGISTER(context, RDX) = (greg_t)(fault.address & ~(SGX_PAGE_SIZE - 1));
    REGISTER(context, RIP) = (greg_t)sgxemu_exception;
}

static void signal_in_enclave(int sig, siginfo_t *info, ucontext_t *context, struct thread_block *block,
                              uint8_t *frame) {
    struct fault fault = NO_FAULT;
    uint64_t rip = (uint64_t)REGISTER(context, RIP);
    uint64_t offset = rip - block->enclave->base;

    if (is_dispatch(sig, info)) {
        /* SYSCALL is #UD in an enclave. The kernel reports the address behind the instruction. */
        REGISTER(context, RIP) = (greg_t)info->si_call_addr - SYSCALL_SIZE;
        fault.vector = X86_UD;
        count(&sgxemu_counters.sud);
    } else if (is_synchronous(sig, info)) {
        bool in_elrange = offset < block->enclave->size && block->enclave->size - offset >= ENCLU_SIZE;
        fault = fault_of(context);
        if (fault.vector == X86_UD && in_elrange && is_enclu(block->enclave->epc + offset)) {
            fault = enclu_of_enclave(block, context);
            if (fault.vector < 0)
                return;
        }
        count(&sgxemu_counters.faults);
    } else {
        count(&sgxemu_counters.async);
    }

    asynchronous_exit(block, context, fault);
    if (fault.vector < 0) {
        deliver(sig, info, context, block, frame, false, false);
    } else if (goes_to_vdso((uint64_t)REGISTER(context, RIP), fault)) {
        return_exception(context, fault);
    } else {
        sig = describe_fault(info, sig, fault, context);
        deliver(sig, info, context, block, frame, true, false);
    }
}

static void signal_in_host(int sig, siginfo_t *info, ucontext_t *context, struct thread_block *block, uint8_t *frame) {
    uint64_t rip = (uint64_t)REGISTER(context, RIP);
    bool is_fault = is_synchronous(sig, info);

    if (is_dispatch(sig, info) && (uint64_t)info->si_call_addr == (uint64_t)sgxemu_probe_end) {
        ((struct thread_block *)REGISTER(context, RDI))->selector = SELECTOR_ALLOW;
        REGISTER(context, RAX) = PROBE_CAUGHT;
        return;
    }
    if (sig == SIGILL && is_fault && is_enclu((const uint8_t *)rip)) {
        struct fault fault = enclu_of_host(context);
        if (fault.vector < 0)
            return;
        sig = describe_fault(info, sig, fault, context);
        deliver(sig, info, context, block, frame, true, false);
        return;
    }
    deliver(sig, info, context, block, frame, is_fault || sig == SIGSYS, is_fault && sig != SIGTRAP);
}

/* Called by entry.S, with the host's FS and GS and system calls allowed; block is NULL off our stacks. */
void sgxemu_on_signal(int sig, siginfo_t *info, ucontext_t *context, struct thread_block *block, uint8_t *frame) {
    if (block && block->frame) {
        uint64_t rip = (uint64_t)REGISTER(context, RIP);
        if (rip >= (uint64_t)sgxemu_window_start && rip < (uint64_t)sgxemu_window_end)
            finish_window(block, context);
        signal_in_enclave(sig, info, context, block, frame);
        return;
    }
    if (block && block->preparing)
        restart_preparation(block, context);
    signal_in_host(sig, info, context, block, frame);
}
