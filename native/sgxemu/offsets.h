/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that entry.S shares with thread.h, which checks them. */
#ifndef SGXEMU_OFFSETS_H
#define SGXEMU_OFFSETS_H

/* A thread's slot: guard page, alternate signal stack, spare entry frame, thread block. */
#define SLOT_SIZE 0x10000
#define SLOT_COUNT 512
#define SLOT_STACK 0x1000
#define SLOT_SPARE_FRAME 0xd000
#define SLOT_BLOCK 0xf000

/* struct thread_block */
#define BLOCK_FRAME 0
#define BLOCK_PREPARING 8
#define BLOCK_HOST_FS 16
#define BLOCK_HOST_GS 24
#define BLOCK_ENCLAVE_FS 32
#define BLOCK_ENCLAVE_GS 40
#define BLOCK_ENCLAVE 48
#define BLOCK_TCS 56
#define BLOCK_SELECTOR 64

/* struct entry_frame */
#define FRAME_FS_BASE 160
#define FRAME_GS_BASE 168
#define FRAME_ENCLAVE 176
#define FRAME_TCS 184
#define FRAME_XFRM 192
#define FRAME_CSSA_WORD 200
#define FRAME_CSSA 208
#define FRAME_XSAVE 256
#define FRAME_SIZE 4352

/* struct host_registers */
#define HOST_FAULT_VECTOR 0
#define HOST_FAULT_CODE 8
#define HOST_FAULT_ADDRESS 16
#define HOST_RBX 120
#define HOST_RAX 144
#define HOST_SIZE 160

/* struct sgx_enclave_run */
#define RUN_TCS 0
#define RUN_FUNCTION 8
#define RUN_VECTOR 12
#define RUN_ERROR_CODE 14
#define RUN_ADDRESS 16
#define RUN_USER_HANDLER 24
#define RUN_RESERVED 40
#define RUN_SIZE 256

/* What the proof of arming leaves in RAX instead of getpid's result. */
#define PROBE_CAUGHT 0x53474d55

#endif
