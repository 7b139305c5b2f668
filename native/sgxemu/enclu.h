/* SPDX-License-Identifier: Apache-2.0 */
/* The instruction ENCLU and the asynchronous exit, on the registers of a signal frame or of entry.S. */
#ifndef SGXEMU_ENCLU_H
#define SGXEMU_ENCLU_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "sgxemu.h"
#include "thread.h"

enum { SELECTOR_ALLOW = 0, SELECTOR_BLOCK = 1 };
enum { ENCLU_SIZE = 3, SYSCALL_SIZE = 2 };

/* An exception instead of the instruction's result; vector < 0: none. */
struct fault {
    int vector;
    uint32_t code;
    uint64_t address;
};

#define NO_FAULT ((struct fault){.vector = -1})

/* Is there an ENCLU instruction at address? */
bool is_enclu(const uint8_t *address);

/* ENCLU in host code reached by a trap: EENTER and ERESUME. On success the context goes on in entry.S's window. */
struct fault enclu_of_host(ucontext_t *context);

/* ENCLU in the enclave. */
struct fault enclu_of_enclave(struct thread_block *block, ucontext_t *context);

/* Lets a signal handler return into the enclave by way of the window. */
void return_to_window(struct thread_block *block, struct entry_frame *frame, ucontext_t *context);

/* Saves the enclave's registers in its SSA frame and leaves the synthetic state that the host may see. */
void asynchronous_exit(struct thread_block *block, ucontext_t *context, struct fault fault);

/* A signal hit entry.S's window: give the context the registers that the window would have loaded. */
void finish_window(struct thread_block *block, ucontext_t *context);

/* A signal hit the preparation of an entry: undo it and start again from entry.S's retry label. */
void restart_preparation(struct thread_block *block, ucontext_t *context);

/* entry.S */
extern uint8_t sgxemu_aep[], sgxemu_after_enclu[], sgxemu_exception[], sgxemu_retry[];
extern uint8_t sgxemu_window_start[], sgxemu_window_end[], sgxemu_probe_end[];
uint64_t sgxemu_probe(struct thread_block *block);

/* Called by entry.S: the block, or NULL and the fault in host. */
struct thread_block *sgxemu_prepare(struct host_registers *host, struct entry_frame *frame);

extern struct sgxemu_stats sgxemu_counters;

static inline void count(uint64_t *counter) {
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

#endif
