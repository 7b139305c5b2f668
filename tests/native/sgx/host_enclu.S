/* SPDX-License-Identifier: Apache-2.0 */
/* A host with its own ENCLU instruction and its own asynchronous exit pointer, as third-party hosts have them. */

	.text
/* uint64_t enclu_in_host(leaf, tcs, rdi, rsi, rdx): the enclave's RDI at EEXIT. */
	.globl	enclu_in_host
	.type	enclu_in_host, @function
enclu_in_host:
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$8, %rsp
	mov	%rdi, %rax
	mov	%rsi, %rbx
	mov	%rdx, %rdi
	mov	%rcx, %rsi
	mov	%r8, %rdx
	lea	host_enclu_aep(%rip), %rcx
	.globl	host_enclu_aep
host_enclu_aep:
	.byte	0x0f, 0x01, 0xd7
	mov	%rdi, %rax
	lea	-40(%rbp), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.size	enclu_in_host, . - enclu_in_host

	.section .note.GNU-stack, "", @progbits
