/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest enclave: it greets, and reports on itself. How it is called: ecall.h.
 *
 * It is assembly so that its bytes, hence its MRENCLAVE, are those written here: no compiler of any version has a
 * choice to make. It uses general registers only, so there is no vector state to clear on the way out.
 *
 * The image (encl.lds): page 0 the TCS, then this text, the data, the stack, and the metadata; the loader appends the
 * SSA frame. One thread at a time may enter, since there is one TCS; the processor sees to that.
 */
#include "ecall.h"

#define EFAULT 14
#define ENOSYS 38

#define EREPORT 0
#define EEXIT 4
#define ENCLU .byte 0x0f, 0x01, 0xd7

#define PAGE_SIZE 4096
#define RFLAGS_AC 0x40000
#define TARGETINFO_SIZE 512
#define REPORT_DATA_SIZE 64
#define REPORT_SIZE 432

/* The image's pages and the largest SSA frame that any XFRM needs (3 pages, with AMX): never less than what is loaded
 * where max_mmap_size asks for nothing. */
#define IMAGE_PAGES 5
#define SMALLEST_MMAP_SIZE ((IMAGE_PAGES + 3) * PAGE_SIZE)

        .section .tcs, "aw"
image:
        .quad   0               /* STATE */
        .quad   0               /* FLAGS */
        .quad   0               /* OSSA, set by loader and signer */
        .long   0               /* CSSA */
        .long   1               /* NSSA: an exception is the caller's to handle, there is no second entry */
        .quad   enclave_entry   /* OENTRY, moved by loader and signer */
        .quad   0               /* AEP */
        .quad   0, 0            /* OFSBASE, OGSBASE */
        .long   0xffffffff, 0xffffffff  /* FSLIMIT, GSLIMIT */
        .fill   PAGE_SIZE - 72, 1, 0

        .text
/*
 * RAX = CSSA, RBX = TCS, RCX = where to return to, RDI = the call; RSP and RBP are the caller's.
 * From here: R8 = the call, R9 = where to return to, R10..R11 = first address of the enclave and first one behind it,
 * R12, R13 = the caller's RSP and RBP.
 */
        .globl  enclave_entry
enclave_entry:
        mov     %rdi, %r8
        mov     %rcx, %r9
        mov     %rsp, %r12
        mov     %rbp, %r13
        lea     stack_end(%rip), %rsp
        /* The caller chose the flags: strings go upwards, and alignment checks are off. */
        cld
        pushfq
        andl    $~RFLAGS_AC, (%rsp)
        popfq
        call    find_enclave_range

        mov     $ECALL_SIZE, %esi
        call    is_outside
        jc      leave                   /* no result: there is no place to write it to */
        /* What is checked below is what is used: the caller may change the call meanwhile. */
        mov     (%r8), %rax
        mov     ECALL_OFFSET_ARGUMENTS(%r8), %rdi
        mov     ECALL_OFFSET_ARGUMENTS + 8(%r8), %r14
        mov     ECALL_OFFSET_ARGUMENTS + 16(%r8), %r15
        cmp     $ECALL_INIT, %rax
        je      init
        cmp     $ECALL_REPORT, %rax
        je      report
        mov     $-ENOSYS, %rax
        jmp     answer

init:                                   /* RDI = where the greeting goes */
        mov     $ECALL_GREETING_SIZE, %esi
        call    is_outside
        jc      bad_pointer
        lea     greeting(%rip), %rsi
        mov     $ECALL_GREETING_SIZE / 8, %ecx
        rep movsq
        jmp     succeed

report:                                 /* RDI = TARGETINFO, R14 = report data, R15 = where the REPORT goes */
        mov     $TARGETINFO_SIZE, %esi
        call    is_outside
        jc      bad_pointer
        xchg    %rdi, %r14
        mov     $REPORT_DATA_SIZE, %esi
        call    is_outside
        jc      bad_pointer
        xchg    %rdi, %r15
        mov     $REPORT_SIZE, %esi
        call    is_outside
        jc      bad_pointer
        mov     %rdi, %rbp              /* now R14 = TARGETINFO, R15 = report data, RBP = REPORT */

        mov     %r14, %rsi
        lea     target_info(%rip), %rdi
        mov     $TARGETINFO_SIZE / 8, %ecx
        rep movsq
        mov     %r15, %rsi
        lea     report_data(%rip), %rdi
        mov     $REPORT_DATA_SIZE / 8, %ecx
        rep movsq

        lea     target_info(%rip), %rbx
        lea     report_data(%rip), %rcx
        lea     report_out(%rip), %rdx
        mov     $EREPORT, %eax
        ENCLU

        lea     report_out(%rip), %rsi
        mov     %rbp, %rdi
        mov     $REPORT_SIZE / 8, %ecx
        rep movsq

succeed:
        xor     %eax, %eax
        jmp     answer
bad_pointer:
        mov     $-EFAULT, %rax
answer:
        mov     %rax, ECALL_OFFSET_RESULT(%r8)
leave:
        mov     %r9, %rbx
        mov     %r12, %rsp
        mov     %r13, %rbp
        /* Nothing of the enclave stays in a register, and no flag tells what was compared. */
        xor     %ecx, %ecx
        xor     %edx, %edx
        xor     %esi, %esi
        xor     %edi, %edi
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        xor     %r10d, %r10d
        xor     %r11d, %r11d
        xor     %r12d, %r12d
        xor     %r13d, %r13d
        xor     %r14d, %r14d
        xor     %r15d, %r15d
        mov     $EEXIT, %eax
        ENCLU

/*
 * R10 = first address of the enclave, R11 = first address behind it; at least, since SECS.SIZE cannot be read in here.
 * The size is a power of two that holds the offset of the image and what max_mmap_size asks for. Changes RAX and RCX.
 */
find_enclave_range:
        lea     image(%rip), %r10
        mov     metadata_max_mmap_size(%rip), %rax
        mov     $SMALLEST_MMAP_SIZE, %ecx
        cmp     %rcx, %rax
        cmovb   %rcx, %rax
        cmpb    $0, metadata_null_dereference_protection(%rip)
        je      1f
        add     %r10, %rax              /* the enclave begins at address 0, and the image at its offset */
        xor     %r10d, %r10d
1:      dec     %rax
        bsr     %rax, %rcx
        mov     $2, %r11d
        shl     %cl, %r11
        add     %r10, %r11
        ret

/*
 * Carry is clear if the RSI bytes at RDI lie outside of the enclave and RDI is a multiple of 8, else set. Changes RAX.
 */
is_outside:
        test    $7, %dil
        jnz     2f
        mov     %rdi, %rax
        add     %rsi, %rax
        jc      2f                      /* beyond the end of all addresses */
        cmp     %rax, %r10
        jae     1f                      /* ends before the enclave */
        cmp     %r11, %rdi
        jb      2f
1:      lfence                          /* not even speculatively is anything else touched */
        clc
        ret
2:      stc
        ret

        .balign 8, 0xcc
greeting:
        .ascii  "Hello Inclavare Containers!"
        .fill   ECALL_GREETING_SIZE - (. - greeting), 1, 0

        .data
        /* Alignments that EREPORT demands. */
        .balign 512
target_info:
        .fill   TARGETINFO_SIZE, 1, 0
        .balign 128
report_data:
        .fill   REPORT_DATA_SIZE, 1, 0
        .balign 512
report_out:
        .fill   REPORT_SIZE, 1, 0

        .balign PAGE_SIZE
        .fill   PAGE_SIZE, 1, 0
stack_end:

        .section .metadata, "a"
metadata_max_mmap_size:
        .quad   0
metadata_null_dereference_protection:
        .byte   0
        .quad   0                       /* mmap_min_addr */

        .section .note.GNU-stack, "", @progbits
