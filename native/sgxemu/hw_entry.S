/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both functions have the ABI of __vdso_sgx_enter_enclave and keep the callee-saved registers, which the vDSO does not:
 * after an asynchronous exit they are 0.
 */
#define EENTER 2
#define ERESUME 3
#define EEXIT 4
#define EINVAL 22
#define RUN_FUNCTION 8
#define RUN_VECTOR 12
#define RUN_ERROR_CODE 14
#define RUN_ADDRESS 16
#define RUN_USER_HANDLER 24
#define RUN_RESERVED 40
#define RUN_SIZE 256

	.macro	enter_frame
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$8, %rsp
	.endm

	.macro	leave_frame
	lea	-40(%rbp), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.endm

	.text
	.globl	hw_call_vdso
	.hidden	hw_call_vdso
	.type	hw_call_vdso, @function
hw_call_vdso:
	enter_frame
	sub	$8, %rsp
	push	16(%rbp)			/* run; RSP is aligned again */
	mov	hw_vdso_enter(%rip), %rax
	call	*%rax
	leave_frame
	.size	hw_call_vdso, . - hw_call_vdso

	.globl	hw_enclu
	.hidden	hw_enclu
	.type	hw_enclu, @function
hw_enclu:
	enter_frame
	mov	%ecx, %eax
.Lenter:
	cmp	$EENTER, %eax
	jb	.Linvalid
	cmp	$ERESUME, %eax
	ja	.Linvalid
	mov	16(%rbp), %rcx
	mov	$RUN_RESERVED, %ebx
1:	cmpq	$0, (%rcx,%rbx)
	jne	.Linvalid
	add	$8, %rbx
	cmp	$RUN_SIZE, %rbx
	jne	1b
	mov	(%rcx), %rbx			/* TCS */
	lea	hw_aep(%rip), %rcx
	.globl	hw_aep
	.hidden	hw_aep
hw_aep:						/* also where asynchronous exits resume: EAX is then ERESUME */
	.byte	0x0f, 0x01, 0xd7		/* ENCLU */
	mov	16(%rbp), %rbx
	movl	$EEXIT, RUN_FUNCTION(%rbx)
.Lexited:
	cld
	cmpq	$0, RUN_USER_HANDLER(%rbx)
	jne	.Lcall_handler
	xor	%eax, %eax
.Lreturn:
	leave_frame
.Linvalid:
	mov	$-EINVAL, %eax
	jmp	.Lreturn

	.globl	hw_exception
	.hidden	hw_exception
hw_exception:					/* EAX leaf, DI vector, SI error code, RDX address */
	mov	16(%rbp), %rbx
	mov	%eax, RUN_FUNCTION(%rbx)
	mov	%di, RUN_VECTOR(%rbx)
	mov	%si, RUN_ERROR_CODE(%rbx)
	mov	%rdx, RUN_ADDRESS(%rbx)
	jmp	.Lexited

.Lcall_handler:
	mov	%rsp, %rcx
	mov	%rbx, %rax
	mov	%rsp, %rbx
	and	$-16, %rsp
	push	%rax
	push	%rax
	call	*RUN_USER_HANDLER(%rax)
	mov	%rbx, %rsp
	test	%eax, %eax
	jg	.Lenter
	jmp	.Lreturn
	.size	hw_enclu, . - hw_enclu

	.section .note.GNU-stack, "", @progbits
