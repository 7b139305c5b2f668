/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SGX as its two manuals write it: the data structures of Intel's SDM (volume 3D, "Enclave Access Control and Data
 * Structures") and the interface of Linux's driver (arch/x86/include/uapi/asm/sgx.h). Little endian throughout.
 *
 * Names follow the manuals. Do not include <asm/sgx.h> beside this file: it declares the same driver structures.
 */
#ifndef SGX_ARCH_H
#define SGX_ARCH_H

#include <stddef.h>
#include <stdint.h>

#define SGX_PAGE_SIZE 4096ul

/* ---- ATTRIBUTES ---- */
#define SGX_ATTR_INIT 0x01ul /* set by EINIT */
#define SGX_ATTR_DEBUG 0x02ul
#define SGX_ATTR_MODE64BIT 0x04ul
#define SGX_ATTR_PROVISIONKEY 0x10ul
#define SGX_ATTR_EINITTOKENKEY 0x20ul
#define SGX_ATTR_CET 0x40ul
#define SGX_ATTR_KSS 0x80ul
#define SGX_ATTR_AEXNOTIFY 0x400ul

#define SGX_XFRM_LEGACY 3ul       /* x87 and SSE: always set */
#define SGX_MISCSELECT_EXINFO 1ul /* SSA frames say where #PF and #GP happened */

/* ---- SECINFO.FLAGS ---- */
#define SGX_SECINFO_R 0x01ul
#define SGX_SECINFO_W 0x02ul
#define SGX_SECINFO_X 0x04ul
#define SGX_SECINFO_PERMISSION_MASK 0x07ul
#define SGX_SECINFO_PENDING 0x08ul
#define SGX_SECINFO_MODIFIED 0x10ul
#define SGX_SECINFO_PR 0x20ul
#define SGX_SECINFO_PAGE_TYPE_MASK 0xff00ul
#define SGX_SECINFO_TCS 0x0100ul
#define SGX_SECINFO_REG 0x0200ul
#define SGX_SECINFO_TRIM 0x0400ul

enum sgx_page_type { SGX_PT_SECS = 0, SGX_PT_TCS = 1, SGX_PT_REG = 2, SGX_PT_VA = 3, SGX_PT_TRIM = 4 };

/* ---- ENCLU leaves (EAX) ---- */
enum sgx_enclu {
    SGX_EREPORT = 0,
    SGX_EGETKEY = 1,
    SGX_EENTER = 2,
    SGX_ERESUME = 3,
    SGX_EEXIT = 4,
    SGX_EACCEPT = 5,
    SGX_EMODPE = 6,
    SGX_EACCEPTCOPY = 7,
};

/* ---- Error codes of EINIT, EGETKEY and EACCEPT (EAX) ---- */
enum sgx_error {
    SGX_SUCCESS = 0,
    SGX_INVALID_SIG_STRUCT = 1,
    SGX_INVALID_ATTRIBUTE = 2,
    SGX_INVALID_MEASUREMENT = 4,
    SGX_INVALID_SIGNATURE = 8,
    SGX_INVALID_EINITTOKEN = 16,
    SGX_PAGE_ATTRIBUTES_MISMATCH = 19,
    SGX_INVALID_CPUSVN = 32,
    SGX_INVALID_ISVSVN = 64, /* also for CONFIGSVN */
    SGX_UNMASKED_EVENT = 128,
    SGX_INVALID_KEYNAME = 256,
};

/* ---- Exceptions an enclave meets ---- */
enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_BP = 3,
    X86_BR = 5,
    X86_UD = 6,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_XM = 19,
};

/* SSA.GPRSGX.EXITINFO */
#define SGX_EXITINFO_VALID 0x80000000u
#define SGX_EXITINFO_TYPE_SHIFT 8
#define SGX_EXIT_TYPE_HARDWARE 3u
#define SGX_EXIT_TYPE_SOFTWARE 6u /* INT3 */

/* ---- Structures of the processor ---- */

struct sgx_secs {
    uint64_t size;         /* of ELRANGE: a power of two */
    uint64_t base;         /* aligned to size */
    uint32_t ssaframesize; /* pages */
    uint32_t miscselect;
    uint64_t cet_leg_bitmap_offset;
    uint8_t cet_attributes;
    uint8_t reserved1[15];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t configid[64];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint16_t configsvn;
    uint8_t reserved4[3834];
} __attribute__((packed, aligned(8)));

struct sgx_tcs {
    uint64_t state;
    uint64_t flags;
    uint64_t ossa; /* offset in the enclave of the first SSA frame */
    uint32_t cssa;
    uint32_t nssa;
    uint64_t oentry; /* offset of the entry point */
    uint64_t aep;
    uint64_t ofsbase;
    uint64_t ogsbase;
    uint32_t fslimit;
    uint32_t gslimit;
    uint64_t ocetssa;
    uint64_t oprevssp;
    uint8_t reserved[4008];
};

struct sgx_secinfo {
    uint64_t flags;
    uint8_t reserved[56];
} __attribute__((aligned(64)));

/* Saved registers: the last 184 bytes of an SSA frame. */
struct sgx_gprsgx {
    uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rflags, rip;
    uint64_t ursp, urbp; /* the host's */
    uint32_t exitinfo;
    uint8_t reserved[3];
    uint8_t aexnotify;
    uint64_t fsbase, gsbase;
};

/* Directly below GPRSGX in an SSA frame when MISCSELECT.EXINFO is set. */
struct sgx_exinfo {
    uint64_t maddr;
    uint32_t errcd;
    uint32_t reserved;
};

struct sgx_sigstruct {
    /* Signed: header to reserved1, and miscselect to isvsvn. */
    uint8_t header[12];
    uint32_t type; /* 0, or bit 31 for a debug enclave */
    uint32_t vendor;
    uint32_t date; /* BCD 0xYYYYMMDD by custom; not checked */
    uint8_t header2[16];
    uint32_t swdefined;
    uint8_t reserved1[84];
    uint8_t modulus[384];
    uint32_t exponent;
    uint8_t signature[384];
    uint32_t miscselect;
    uint32_t miscmask;
    uint8_t cet_attributes;
    uint8_t cet_attributes_mask;
    uint8_t reserved2[2];
    uint8_t isvfamilyid[16];
    uint64_t attributes;
    uint64_t xfrm;
    uint64_t attributes_mask;
    uint64_t xfrm_mask;
    uint8_t enclavehash[32];
    uint8_t reserved3[16];
    uint8_t isvextprodid[16];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint8_t reserved4[12];
    uint8_t q1[384];
    uint8_t q2[384];
} __attribute__((packed));

#define SGX_SIGSTRUCT_HEADER                                                                                           \
    { 0x06, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 0x01, 0 }
#define SGX_SIGSTRUCT_HEADER2                                                                                          \
    { 0x01, 0x01, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 0x01, 0, 0, 0 }
#define SGX_SIGSTRUCT_TYPE_DEBUG 0x80000000u
#define SGX_SIGSTRUCT_VENDOR_INTEL 0x8086u
/* The signed bytes are two runs of 128: [0, 128) and [900, 1028). */
#define SGX_SIGSTRUCT_SIGNED_RUN 128
#define SGX_SIGSTRUCT_BODY_OFFSET 900

struct sgx_targetinfo {
    uint8_t mrenclave[32];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t cet_attributes;
    uint8_t reserved1;
    uint16_t configsvn;
    uint32_t miscselect;
    uint8_t reserved2[8];
    uint8_t configid[64];
    uint8_t reserved3[384];
};

struct sgx_report_body {
    uint8_t cpusvn[16];
    uint32_t miscselect;
    uint8_t cet_attributes;
    uint8_t reserved1[11];
    uint8_t isvextprodid[16];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t configid[64];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint16_t configsvn;
    uint8_t reserved4[42];
    uint8_t isvfamilyid[16];
    uint8_t reportdata[64];
};

struct sgx_report {
    struct sgx_report_body body;
    uint8_t keyid[32];
    uint8_t mac[16]; /* AES-128-CMAC of body under the target's report key */
};

struct sgx_keyrequest {
    uint16_t keyname;
    uint16_t keypolicy;
    uint16_t isvsvn;
    uint8_t cet_attributes_mask;
    uint8_t reserved1;
    uint8_t cpusvn[16];
    uint64_t attributes_mask;
    uint64_t xfrm_mask;
    uint8_t keyid[32];
    uint32_t miscmask;
    uint16_t configsvn;
    uint8_t reserved2[434];
} __attribute__((packed, aligned(8)));

enum sgx_keyname {
    SGX_KEY_EINITTOKEN = 0,
    SGX_KEY_PROVISION = 1,
    SGX_KEY_PROVISION_SEAL = 2,
    SGX_KEY_REPORT = 3,
    SGX_KEY_SEAL = 4,
};

enum sgx_keypolicy {
    SGX_KEYPOLICY_MRENCLAVE = 0x01,
    SGX_KEYPOLICY_MRSIGNER = 0x02,
    SGX_KEYPOLICY_NOISVPRODID = 0x04, /* this and the next three need ATTRIBUTES.KSS */
    SGX_KEYPOLICY_CONFIGID = 0x08,
    SGX_KEYPOLICY_ISVFAMILYID = 0x10,
    SGX_KEYPOLICY_ISVEXTPRODID = 0x20,
};

struct sgx_einittoken {
    uint32_t valid;
    uint8_t reserved1[44];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t cpusvnle[16];
    uint16_t isvprodidle;
    uint16_t isvsvnle;
    uint8_t reserved4[24];
    uint32_t maskedmiscselectle;
    uint64_t maskedattributesle;
    uint64_t maskedxfrmle;
    uint8_t keyid[32];
    uint8_t mac[16];
} __attribute__((packed, aligned(8)));

enum {
    SGX_TARGETINFO_ALIGN = 512,
    SGX_REPORTDATA_SIZE = 64,
    SGX_REPORTDATA_ALIGN = 128,
    SGX_REPORT_ALIGN = 512,
    SGX_KEYREQUEST_ALIGN = 512,
    SGX_KEY_SIZE = 16,
    SGX_KEY_ALIGN = 16,
    SGX_EEXTEND_SIZE = 256,
};

/* ---- Linux's driver: ioctls of /dev/sgx_enclave, magic 0xA4 ---- */

struct sgx_enclave_create {
    uint64_t src; /* struct sgx_secs */
};

struct sgx_enclave_add_pages {
    uint64_t src;
    uint64_t offset;
    uint64_t length;
    uint64_t secinfo; /* struct sgx_secinfo */
    uint64_t flags;   /* SGX_PAGE_MEASURE */
    uint64_t count;   /* out: bytes added */
};

#define SGX_PAGE_MEASURE 1ul

struct sgx_enclave_init {
    uint64_t sigstruct;
};

struct sgx_enclave_provision {
    uint64_t fd; /* of /dev/sgx_provision */
};

#define SGX_IOC_ENCLAVE_CREATE 0x4008a400ul
#define SGX_IOC_ENCLAVE_ADD_PAGES 0xc030a401ul
#define SGX_IOC_ENCLAVE_INIT 0x4008a402ul
#define SGX_IOC_ENCLAVE_PROVISION 0x4008a403ul
/* Enclave dynamic memory management (SGX2). */
#define SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS 0xc028a405ul
#define SGX_IOC_ENCLAVE_MODIFY_TYPES 0xc028a406ul
#define SGX_IOC_ENCLAVE_REMOVE_PAGES 0xc018a407ul

/* ---- The out-of-tree driver /dev/isgx, where it differs ---- */

struct isgx_enclave_add_page {
    uint64_t addr;
    uint64_t src;
    uint64_t secinfo;
    uint16_t mrmask; /* one bit for each 256 bytes to EEXTEND */
} __attribute__((packed));

struct isgx_enclave_init {
    uint64_t addr;
    uint64_t sigstruct;
    uint64_t einittoken; /* struct sgx_einittoken */
} __attribute__((packed));

#define ISGX_IOC_ENCLAVE_ADD_PAGE 0x401aa401ul
#define ISGX_IOC_ENCLAVE_INIT 0x4018a402ul
#define ISGX_MRMASK_ALL 0xffffu

/* ---- The vDSO's entry, __vdso_sgx_enter_enclave ---- */

struct sgx_enclave_run {
    uint64_t tcs;
    uint32_t function; /* out: EEXIT 4, or the leaf that faulted (EENTER 2, ERESUME 3: an exception inside) */
    uint16_t exception_vector;
    uint16_t exception_error_code;
    uint64_t exception_addr;
    uint64_t user_handler; /* sgx_enclave_user_handler_t or 0 */
    uint64_t user_data;
    uint8_t reserved[216]; /* 0 */
};

/* Called after every exit when set. A positive result is the leaf to enter again with, others are the entry's result.
 */
typedef int (*sgx_enclave_user_handler_t)(long rdi, long rsi, long rdx, long rsp, long r8, long r9,
                                          struct sgx_enclave_run *run);

#define SGX_CHECK_SIZE(type, size) _Static_assert(sizeof(struct type) == (size), #type " has the manual's size")
#define SGX_CHECK_OFFSET(type, field, offset)                                                                          \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " is where the manual says")

SGX_CHECK_SIZE(sgx_secs, 4096);
SGX_CHECK_OFFSET(sgx_secs, attributes, 48);
SGX_CHECK_OFFSET(sgx_secs, mrsigner, 128);
SGX_CHECK_OFFSET(sgx_secs, configid, 192);
SGX_CHECK_OFFSET(sgx_secs, isvprodid, 256);
SGX_CHECK_SIZE(sgx_tcs, 4096);
SGX_CHECK_OFFSET(sgx_tcs, cssa, 24);
SGX_CHECK_OFFSET(sgx_tcs, oentry, 32);
SGX_CHECK_OFFSET(sgx_tcs, fslimit, 64);
SGX_CHECK_SIZE(sgx_secinfo, 64);
SGX_CHECK_SIZE(sgx_gprsgx, 184);
SGX_CHECK_OFFSET(sgx_gprsgx, ursp, 144);
SGX_CHECK_OFFSET(sgx_gprsgx, exitinfo, 160);
SGX_CHECK_SIZE(sgx_exinfo, 16);
SGX_CHECK_SIZE(sgx_sigstruct, 1808);
SGX_CHECK_OFFSET(sgx_sigstruct, modulus, 128);
SGX_CHECK_OFFSET(sgx_sigstruct, miscselect, 900);
SGX_CHECK_OFFSET(sgx_sigstruct, attributes, 928);
SGX_CHECK_OFFSET(sgx_sigstruct, enclavehash, 960);
SGX_CHECK_OFFSET(sgx_sigstruct, isvprodid, 1024);
SGX_CHECK_OFFSET(sgx_sigstruct, q1, 1040);
SGX_CHECK_SIZE(sgx_targetinfo, 512);
SGX_CHECK_OFFSET(sgx_targetinfo, configsvn, 50);
SGX_CHECK_OFFSET(sgx_targetinfo, configid, 64);
SGX_CHECK_SIZE(sgx_report_body, 384);
SGX_CHECK_OFFSET(sgx_report_body, attributes, 48);
SGX_CHECK_OFFSET(sgx_report_body, isvprodid, 256);
SGX_CHECK_OFFSET(sgx_report_body, isvfamilyid, 304);
SGX_CHECK_OFFSET(sgx_report_body, reportdata, 320);
SGX_CHECK_SIZE(sgx_report, 432);
SGX_CHECK_SIZE(sgx_keyrequest, 512);
SGX_CHECK_OFFSET(sgx_keyrequest, keyid, 40);
SGX_CHECK_OFFSET(sgx_keyrequest, configsvn, 76);
SGX_CHECK_SIZE(sgx_einittoken, 304);
SGX_CHECK_OFFSET(sgx_einittoken, cpusvnle, 192);
SGX_CHECK_OFFSET(sgx_einittoken, maskedmiscselectle, 236);
SGX_CHECK_OFFSET(sgx_einittoken, keyid, 256);
SGX_CHECK_SIZE(sgx_enclave_add_pages, 48);
SGX_CHECK_SIZE(isgx_enclave_add_page, 26);
SGX_CHECK_SIZE(isgx_enclave_init, 24);
SGX_CHECK_SIZE(sgx_enclave_run, 256);
SGX_CHECK_OFFSET(sgx_enclave_run, user_handler, 24);

#endif
