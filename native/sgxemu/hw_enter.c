/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering enclaves on hardware: through the vDSO, or with our own ENCLU where the kernel (before 5.11, with an
 * out-of-tree driver) has no such function. Then exceptions arrive as signals at our ENCLU, and a handler turns them
 * into the result that the vDSO would give.
 */
#define _GNU_SOURCE
#include "hw.h"

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "sgx_arch.h"

typedef int (*enter_function)(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function,
                              unsigned long r8, unsigned long r9, struct sgx_enclave_run *run);

/* hw_entry.S */
int hw_call_vdso(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
                 unsigned long r9, struct sgx_enclave_run *run);
int hw_enclu(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
             unsigned long r9, struct sgx_enclave_run *run);
extern uint8_t hw_aep[], hw_exception[];
extern void *hw_vdso_enter;

void *hw_vdso_enter;
static enter_function enter = hw_call_vdso;
static pthread_once_t choice = PTHREAD_ONCE_INIT;
static const int fault_signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP};
static struct sigaction host_action[NSIG];
static bool owns_faults;

/* ---- The vDSO ---- */

/* The dynamic section of an ELF image in memory, as far as looking up a symbol needs it. */
struct dynamic {
    const Elf64_Sym *symbols;
    const char *strings;
    const uint32_t *hash;
    const uint32_t *gnu_hash;
};

static bool read_dynamic(const uint8_t *image, struct dynamic *dynamic, uint64_t *bias) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(image + header->e_phoff);
    const Elf64_Dyn *entries = NULL;
    bool loaded = false;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD && !loaded) {
            *bias = (uint64_t)image + segments[i].p_offset - segments[i].p_vaddr;
            loaded = true;
        } else if (segments[i].p_type == PT_DYNAMIC) {
            entries = (const Elf64_Dyn *)(image + segments[i].p_offset);
        }
    }
    if (!loaded || !entries)
        return false;
    for (; entries->d_tag != DT_NULL; entries++) {
        const void *address = (const void *)(entries->d_un.d_ptr + *bias);
        if (entries->d_tag == DT_SYMTAB)
            dynamic->symbols = address;
        else if (entries->d_tag == DT_STRTAB)
            dynamic->strings = address;
        else if (entries->d_tag == DT_HASH)
            dynamic->hash = address;
        else if (entries->d_tag == DT_GNU_HASH)
            dynamic->gnu_hash = address;
    }
    return dynamic->symbols && dynamic->strings;
}

/* The symbol table does not tell its length; either hash table does. */
static uint32_t symbol_count(const struct dynamic *dynamic) {
    if (dynamic->hash)
        return dynamic->hash[1];
    if (!dynamic->gnu_hash)
        return 0;
    uint32_t bucket_count = dynamic->gnu_hash[0], first = dynamic->gnu_hash[1], bloom_size = dynamic->gnu_hash[2];
    const uint32_t *buckets = dynamic->gnu_hash + 4 + 2 * (size_t)bloom_size;
    const uint32_t *chain = buckets + bucket_count;
    uint32_t last = 0;
    for (uint32_t i = 0; i < bucket_count; i++)
        if (buckets[i] > last)
            last = buckets[i];
    if (last < first)
        return first;
    while (!(chain[last - first] & 1)) /* the lowest bit ends a chain */
        last++;
    return last + 1;
}

void *vdso_symbol(const char *name) {
    const uint8_t *image = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    struct dynamic dynamic = {NULL, NULL, NULL, NULL};
    uint64_t bias = 0;
    if (!image || memcmp(image, ELFMAG, SELFMAG) != 0 || !read_dynamic(image, &dynamic, &bias))
        return NULL;
    for (uint32_t i = 0, count = symbol_count(&dynamic); i < count; i++) {
        const Elf64_Sym *symbol = &dynamic.symbols[i];
        if (symbol->st_shndx != SHN_UNDEF && strcmp(dynamic.strings + symbol->st_name, name) == 0)
            return (void *)(symbol->st_value + bias);
    }
    return NULL;
}

/* ---- Faults at our own ENCLU ---- */

static void pass_on(int sig, siginfo_t *info, void *context) {
    const struct sigaction *action = &host_action[sig];
    if (action->sa_flags & SA_SIGINFO) {
        action->sa_sigaction(sig, info, context);
    } else if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN) {
        sigaction(sig, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        if (info->si_code <= 0) /* sent, not met: it does not come again by itself */
            raise(sig);
    } else {
        action->sa_handler(sig);
    }
}

static void on_fault(int sig, siginfo_t *info, void *pointer) {
    ucontext_t *context = pointer;
    greg_t *registers = context->uc_mcontext.gregs;
    bool is_trap = registers[REG_TRAPNO] == X86_DB || registers[REG_TRAPNO] == X86_BP;
    if (registers[REG_RIP] != (greg_t)hw_aep || info->si_code <= 0 || is_trap) {
        pass_on(sig, info, pointer);
        return;
    }
    registers[REG_RDI] = registers[REG_TRAPNO];
    registers[REG_RSI] = registers[REG_ERR];
    registers[REG_RDX] = registers[REG_TRAPNO] == X86_PF ? registers[REG_CR2] : 0;
    registers[REG_RIP] = (greg_t)hw_exception;
}

static void choose_entry(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    hw_vdso_enter = vdso_symbol("__vdso_sgx_enter_enclave");
    if (hw_vdso_enter)
        return;
    enter = hw_enclu;
    owns_faults = true;
    for (size_t i = 0; i < sizeof fault_signals / sizeof *fault_signals; i++)
        sigaction(fault_signals[i], &action, &host_action[fault_signals[i]]);
}

int hw_enter(unsigned long rdi, unsigned long rsi, unsigned long rdx, unsigned int function, unsigned long r8,
             unsigned long r9, struct sgx_enclave_run *run) {
    pthread_once(&choice, choose_entry);
    return enter(rdi, rsi, rdx, function, r8, r9, run);
}

int hw_sigaction(int sig, const struct sigaction *act, struct sigaction *old) {
    pthread_once(&choice, choose_entry);
    for (size_t i = 0; owns_faults && i < sizeof fault_signals / sizeof *fault_signals; i++)
        if (fault_signals[i] == sig) {
            struct sigaction previous = host_action[sig];
            if (act)
                host_action[sig] = *act;
            if (old)
                *old = previous;
            return 0;
        }
    return sigaction(sig, act, old);
}
