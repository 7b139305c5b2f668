/* SPDX-License-Identifier: Apache-2.0 */
/* The test enclave's entry: CSSA 0 is a call, CSSA 1 the handler of an exception in that call. */
#define ENCLU .byte 0x0f, 0x01, 0xd7
#define EEXIT 4
#define NSSA 2
#define STACK_SIZE 16384

	/* Offsets of a thread's data page, which GS points to. */
#define THREAD_SSA 8
#define THREAD_STACK 16
#define THREAD_HANDLER_STACK 24

	.macro	tcs number
	.balign	4096
	.quad	0, 0, ssa\number
	.long	0, NSSA
	.quad	enclave_entry, 0, thread\number, thread\number
	.long	0xffffffff, 0xffffffff
	.fill	4024, 1, 0
	.endm

	.section .tcs, "a"
	tcs	0
	tcs	1
	tcs	2
	tcs	3

	.macro	thread number
	.balign	4096
ssa\number:
	.fill	4096 * NSSA, 1, 0
thread\number:
	.quad	thread\number, ssa\number, stack\number, stack\number + STACK_SIZE, \number
	.balign	4096
	.fill	STACK_SIZE, 1, 0
stack\number:
	.fill	STACK_SIZE, 1, 0
	.endm

	.section .data, "aw"
	thread	0
	thread	1
	thread	2
	thread	3

	.text
	.globl	enclave_entry
enclave_entry:
	cld
	mov	%rcx, %r12			/* where to exit to */
	mov	%rsp, %r13
	mov	%rbp, %r14
	lea	enclave_base(%rip), %r15
	test	%rax, %rax
	jnz	1f
	mov	%gs:THREAD_STACK, %rsp
	add	%r15, %rsp
	xor	%ebp, %ebp
	mov	%r8, %rcx
	call	enclave_call
	jmp	2f
1:	mov	%gs:THREAD_HANDLER_STACK, %rsp
	add	%r15, %rsp
	mov	%gs:THREAD_SSA, %rdi
	add	%r15, %rdi
	call	enclave_exception
2:	mov	%rax, %rdi
	mov	%r12, %rbx
	mov	%r13, %rsp
	mov	%r14, %rbp
	mov	$EEXIT, %eax
	ENCLU
	ud2
	.hidden	enclave_base

	.section .note.GNU-stack, "", @progbits
