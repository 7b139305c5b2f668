/* SPDX-License-Identifier: Apache-2.0 */
/* What the test enclave can be asked to do: RDI of EENTER. Arguments are RSI, RDX and R8; the result is RDI of EEXIT.
 */
#ifndef SGX_TEST_CALLS_H
#define SGX_TEST_CALLS_H

#include <stdint.h>

enum test_call {
    CALL_SUM,          /* bytes, size: their sum */
    CALL_REPORT,       /* target info, report data, report: EREPORT */
    CALL_GETKEY,       /* request, key: EGETKEY's code */
    CALL_TRY,          /* enum test_trap, argument: RAX behind the instruction, or CAUGHT | vector */
    CALL_ENCLU,        /* struct test_enclu: RAX behind the instruction, or CAUGHT | vector */
    CALL_SPIN,         /* flag: set flag[1], then wait until flag[0] is not 0; the number of turns */
    CALL_BASES,        /* two words: FS and GS base */
    CALL_KEEP_BASES,   /* flag: as SPIN, with own FS and GS bases; 1 when they stayed */
    CALL_INTEGRITY,    /* turns: how often a register changed by itself */
    CALL_CALL,         /* function, argument: call host code; CAUGHT | vector when that faults */
    CALL_JUMP,         /* address, RAX: jump there; CAUGHT | vector */
    CALL_SYSCALLS,     /* count, number: so many system calls; how many came back as exceptions */
    CALL_LAST,         /* struct test_exception: what the exception handler saw last */
    CALL_XMM,          /* two words: XMM7 on entry; leaves XMM6 = 0x1122334455667788 */
    CALL_GIVE_UP,      /* on or off: make the exception handler leave the frame as it is */
    CALL_DAMAGE_FRAME, /* offset, value: the next exception handler writes a word of SSA frame 0 */
    CALL_FLAGS,        /* sets the direction and alignment flags, spins until *flag; 1 when they stayed */
};

enum test_trap {
    TRAP_SYSCALL,
    TRAP_INT80,
    TRAP_DIVIDE,
    TRAP_UD2,
    TRAP_READ,
    TRAP_WRITE,
    TRAP_WRITE_CODE,
    TRAP_INT3,
    TRAP_HLT,
};

#define CAUGHT 0xdead0000ul
#define SYSCALL_ANSWER 0x5ca11000ul /* plus RAX */

struct test_enclu {
    uint64_t rax, rbx, rcx, rdx;
};

struct test_exception {
    uint64_t count, exitinfo, rip, rax, maddr, errcd;
};

#endif
