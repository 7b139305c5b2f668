/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways into the enclave and out of it that C cannot write: the host's entry (the ABI of __vdso_sgx_enter_enclave), the
 * window, and the first instructions of the signal handler.
 *
 * The window is the stretch of code between the decision to enter (one store to the thread block's frame pointer) and
 * the IRETQ that jumps into the enclave with all its registers. A signal that arrives in it is rolled forward: the
 * handler gives the interrupted context the registers the window would have loaded, so that the signal seems to have
 * hit the first instruction in the enclave.
 */
#include "offsets.h"

#define SELECTOR_ALLOW 0
#define SELECTOR_BLOCK 1
#define EENTER 2
#define ERESUME 3
#define EEXIT 4
#define EINVAL 22

	.text

/*
 * int sgxemu_enter(rdi, rsi, rdx, function, r8, r9, struct sgx_enclave_run *run)
 *
 * As the vDSO's, but callee-saved registers are kept, which the vDSO leaves to its caller.
 */
	.globl	sgxemu_enter
	.hidden	sgxemu_enter
	.type	sgxemu_enter, @function
sgxemu_enter:
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$8, %rsp
	mov	%ecx, %eax
.Lenter:
	cmp	$EENTER, %eax
	jb	.Linvalid
	cmp	$ERESUME, %eax
	ja	.Linvalid
	mov	16(%rbp), %rcx			/* run */
	mov	$RUN_RESERVED, %ebx
1:	cmpq	$0, (%rcx,%rbx)
	jne	.Linvalid
	add	$8, %rbx
	cmp	$RUN_SIZE, %rbx
	jne	1b
	mov	RUN_TCS(%rcx), %rbx
	lea	sgxemu_aep(%rip), %rcx

/*
 * Here the vDSO would execute ENCLU, and here asynchronous exits return: EAX leaf, RBX TCS, RCX AEP. C reads the TCS
 * and fills an entry frame below this stack; then the window goes in.
 */
	.globl	sgxemu_aep
	.hidden	sgxemu_aep
sgxemu_aep:
	pushfq
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$32, %rsp			/* room for a fault: struct host_registers is complete */
	cld
	.globl	sgxemu_retry
	.hidden	sgxemu_retry
sgxemu_retry:					/* RSP = struct host_registers; a disturbed preparation starts again here */
	mov	%rsp, %rbx
	mov	%rsp, %rdi
	sub	$FRAME_SIZE, %rsp
	and	$-64, %rsp
	mov	%rsp, %rsi
	call	sgxemu_prepare
	test	%rax, %rax
	jz	.Lfault
	mov	%rsp, BLOCK_FRAME(%rax)		/* from here on the thread counts as in the enclave */

	.globl	sgxemu_window_start
	.hidden	sgxemu_window_start
sgxemu_window_start:				/* RAX = thread block, RSP = its frame */
	movq	$0, BLOCK_PREPARING(%rax)
	mov	FRAME_ENCLAVE(%rsp), %rcx
	mov	%rcx, BLOCK_ENCLAVE(%rax)
	mov	FRAME_TCS(%rsp), %rcx
	mov	%rcx, BLOCK_TCS(%rax)
	mov	FRAME_CSSA_WORD(%rsp), %rcx
	mov	FRAME_CSSA(%rsp), %edx
	mov	%edx, (%rcx)
	mov	FRAME_FS_BASE(%rsp), %rcx
	wrfsbase %rcx
	mov	FRAME_GS_BASE(%rsp), %rcx
	wrgsbase %rcx
	pushq	$0x202				/* IRETQ faults when NT is set */
	popfq
	mov	%rax, %rbx
	mov	FRAME_XFRM(%rsp), %rdx
	test	%rdx, %rdx
	jz	1f
	mov	%edx, %eax
	shr	$32, %rdx
	xrstor64 FRAME_XSAVE(%rsp)
1:	movb	$SELECTOR_BLOCK, BLOCK_SELECTOR(%rbx)
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq
	.globl	sgxemu_window_end
	.hidden	sgxemu_window_end
sgxemu_window_end:

.Lfault:					/* RBX = struct host_registers */
	mov	HOST_FAULT_VECTOR(%rbx), %edi
	mov	HOST_FAULT_CODE(%rbx), %esi
	mov	HOST_FAULT_ADDRESS(%rbx), %rdx
	mov	HOST_RAX(%rbx), %eax
	lea	HOST_SIZE(%rbx), %rsp

/* Where the kernel would send an exception at the vDSO's ENCLU: EAX leaf, DI vector, SI error code, RDX address. */
	.globl	sgxemu_exception
	.hidden	sgxemu_exception
sgxemu_exception:
	mov	16(%rbp), %rbx
	mov	%eax, RUN_FUNCTION(%rbx)
	mov	%di, RUN_VECTOR(%rbx)
	mov	%si, RUN_ERROR_CODE(%rbx)
	mov	%rdx, RUN_ADDRESS(%rbx)
	jmp	.Lexited

/* Where EEXIT arrives. */
	.globl	sgxemu_after_enclu
	.hidden	sgxemu_after_enclu
sgxemu_after_enclu:
	mov	16(%rbp), %rbx
	movl	$EEXIT, RUN_FUNCTION(%rbx)
.Lexited:
	cld
	cmpq	$0, RUN_USER_HANDLER(%rbx)
	jne	.Lcall_handler
	xor	%eax, %eax
.Lreturn:
	lea	-40(%rbp), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
.Linvalid:
	mov	$-EINVAL, %eax
	jmp	.Lreturn

/* handler(rdi, rsi, rdx, rsp, r8, r9, run): above 0 it is the leaf to go on with. */
.Lcall_handler:
	mov	%rsp, %rcx
	mov	%rbx, %rax
	mov	%rsp, %rbx			/* the handler keeps RBX; RSP may be unaligned */
	and	$-16, %rsp
	push	%rax				/* alignment */
	push	%rax
	call	*RUN_USER_HANDLER(%rax)
	mov	%rbx, %rsp
	test	%eax, %eax
	jg	.Lenter
	jmp	.Lreturn
	.size	sgxemu_enter, . - sgxemu_enter

/*
 * Every signal arrives here: RDI signal, RSI siginfo, RDX ucontext. If the thread was in the enclave the FS and GS
 * bases are the enclave's, and the selector still blocks: put that right before any C.
 */
	.globl	sgxemu_signal_entry
	.hidden	sgxemu_signal_entry
	.type	sgxemu_signal_entry, @function
sgxemu_signal_entry:
	xor	%ecx, %ecx
	mov	%rsp, %rax
	and	$-SLOT_SIZE, %rax
	mov	%rax, %r8
	sub	sgxemu_arena(%rip), %r8
	cmp	$(SLOT_SIZE * SLOT_COUNT), %r8
	jae	1f				/* not on one of our stacks */
	lea	SLOT_BLOCK(%rax), %rcx
	cmpq	$0, BLOCK_FRAME(%rcx)
	je	1f
	movb	$SELECTOR_ALLOW, BLOCK_SELECTOR(%rcx)
	pushq	$0x202				/* the kernel leaves AC as the enclave had it, and C is not always aligned */
	popfq
	rdfsbase %rax
	mov	%rax, BLOCK_ENCLAVE_FS(%rcx)
	rdgsbase %rax
	mov	%rax, BLOCK_ENCLAVE_GS(%rcx)
	mov	BLOCK_HOST_FS(%rcx), %rax
	wrfsbase %rax
	mov	BLOCK_HOST_GS(%rcx), %rax
	wrgsbase %rax
1:	mov	%rsp, %r8			/* the kernel's frame */
	sub	$8, %rsp
	call	sgxemu_on_signal
	add	$8, %rsp
	ret					/* to sgxemu_restorer */
	.size	sgxemu_signal_entry, . - sgxemu_signal_entry

	.globl	sgxemu_restorer
	.hidden	sgxemu_restorer
	.type	sgxemu_restorer, @function
sgxemu_restorer:
	mov	$15, %eax			/* rt_sigreturn */
	syscall
	.size	sgxemu_restorer, . - sgxemu_restorer

/* void sgxemu_call_handler(signal, siginfo, ucontext, handler, frame): the host's handler, on the stack of frame. */
	.globl	sgxemu_call_handler
	.hidden	sgxemu_call_handler
	.type	sgxemu_call_handler, @function
sgxemu_call_handler:
	mov	%r8, %rsp
	xor	%eax, %eax
	jmp	*%rcx
	.size	sgxemu_call_handler, . - sgxemu_call_handler

/* uint64_t sgxemu_probe(block): what a system call answers while the selector blocks. */
	.globl	sgxemu_probe
	.hidden	sgxemu_probe
	.type	sgxemu_probe, @function
sgxemu_probe:
	movb	$SELECTOR_BLOCK, BLOCK_SELECTOR(%rdi)
	mov	$39, %eax			/* getpid: harmless if it gets through */
	syscall
	.globl	sgxemu_probe_end
	.hidden	sgxemu_probe_end
sgxemu_probe_end:
	movb	$SELECTOR_ALLOW, BLOCK_SELECTOR(%rdi)
	ret
	.size	sgxemu_probe, . - sgxemu_probe

	.section .note.GNU-stack, "", @progbits
