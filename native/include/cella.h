/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cella's interfaces: what the builder (Python), the enclave's runtime and its host side must agree on, and nothing
 * else. docs/cella-format.md says what it means. Little endian, natural alignment, no implicit padding.
 *
 * Four parts: addresses in the enclave; what is built (enclave.img, the config page, the manifest, trusted.bin); what
 * host and enclave tell each other; what is stored (encrypted files). Freestanding: included by both sides.
 */
#ifndef CELLA_H
#define CELLA_H

#include <stddef.h>
#include <stdint.h>

#define CELLA_CHECK_SIZE(type, size) _Static_assert(sizeof(struct type) == (size), #type " has the format's size")

/* ---- Addresses: SECS.BASE is 0, so that an offset in the enclave is an address ---- */

#define CELLA_ENCLAVE_SIZE 0x100000000ul /* ELRANGE */
#define CELLA_HEAP_START 0x10000ul       /* nothing is below: null pointers fault, mmap_min_addr is respected */
#define CELLA_HEAP_SIZE_MIN 0x1000000ul
#define CELLA_HEAP_SIZE_MAX 0xdffe0000ul /* 64 KiB are absent behind it */
#define CELLA_SLOTS 0xe0000000ul         /* one slot for each TCS */
#define CELLA_SLOT_SIZE 0x40000ul
#define CELLA_RUNTIME 0xf0000000ul /* the ELF's lowest PT_LOAD: the config page */
#define CELLA_RUNTIME_SIZE_MAX 0x4000000ul
#define CELLA_MANIFEST 0xf4000000ul
#define CELLA_MANIFEST_SIZE_MAX 0x100000ul

/* Within a slot; what lies between is absent. */
#define CELLA_SLOT_TCS 0x1000ul
#define CELLA_SLOT_THREAD 0x2000ul /* FS and GS base: struct cella_thread_seed, then the runtime's */
#define CELLA_SLOT_SSA 0x3000ul    /* NSSA frames of one page */
#define CELLA_SLOT_SIGNAL_STACK 0x8000ul
#define CELLA_SLOT_SIGNAL_STACK_END 0x10000ul
#define CELLA_SLOT_STACK 0x18000ul
#define CELLA_SLOT_STACK_END 0x38000ul

#define CELLA_NSSA 3
#define CELLA_SSA_FRAME_PAGES 1 /* holds XFRM 0xe7, EXINFO and GPRSGX: 2888 bytes */
#define CELLA_XFRM_ALLOWED 0xe7ul
#define CELLA_THREADS_MAX 512

/* ---- enclave.img ---- */

#define CELLA_IMAGE_MAGIC "CELLAIMG"
#define CELLA_IMAGE_VERSION 1
#define CELLA_IMAGE_SEGMENTS_MAX 4096

struct cella_image {
    char magic[8];
    uint32_t version;
    uint32_t segment_count; /* struct cella_segment, right behind this */
    uint64_t enclave_size;
    uint64_t base; /* SECS.BASE: 0 */
    uint32_t ssa_frame_pages;
    uint32_t miscselect;
    uint64_t attributes;   /* MODE64BIT, perhaps DEBUG */
    uint64_t xfrm_allowed; /* SECS.XFRM = 3, and of these what XCR0 has */
    uint64_t file_size;
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint32_t date; /* BCD, for the signature; 0: none */
    uint8_t reserved[56];
};
CELLA_CHECK_SIZE(cella_image, 128);

enum cella_segment_kind {
    CELLA_SEGMENT_HEAP = 1,
    CELLA_SEGMENT_TCS = 2,
    CELLA_SEGMENT_THREAD = 3,
    CELLA_SEGMENT_SSA = 4,
    CELLA_SEGMENT_STACK = 5,
    CELLA_SEGMENT_RUNTIME = 6,
    CELLA_SEGMENT_MANIFEST = 7,
};

/* A run of pages that are added alike; ascending, not overlapping. */
struct cella_segment {
    uint64_t offset; /* in the enclave */
    uint64_t size;   /* whole pages */
    uint64_t flags;  /* SECINFO.FLAGS */
    uint64_t data;   /* offset in the file, a whole page; 0: all pages are zero and the file has none of them */
    uint32_t kind;   /* enum cella_segment_kind */
    uint32_t measured;
};
CELLA_CHECK_SIZE(cella_segment, 40);

/* The first page of the runtime: zeros in the ELF, written by the builder. */
#define CELLA_CONFIG_MAGIC "CELLACFG"

struct cella_config {
    char magic[8];
    uint32_t version; /* CELLA_IMAGE_VERSION */
    uint32_t thread_count;
    uint64_t enclave_size;
    uint64_t heap_start;
    uint64_t heap_size;
    uint64_t manifest; /* address */
    uint64_t manifest_size;
    uint64_t runtime_size; /* from CELLA_RUNTIME on, whole pages */
};
CELLA_CHECK_SIZE(cella_config, 64);

/* What the builder writes at the start of each thread page; the rest of the page is zero. */
struct cella_thread_seed {
    uint64_t self; /* address of this page */
    uint64_t stack_end;
    uint64_t signal_stack_end;
    uint32_t index;
    uint32_t reserved;
};
CELLA_CHECK_SIZE(cella_thread_seed, 32);

/* ---- The manifest: header, tables, strings ---- */

#define CELLA_MANIFEST_MAGIC "CELLAMAN"
#define CELLA_MANIFEST_VERSION 1
#define CELLA_TABLE_MAX 4096 /* entries of one table */

enum cella_manifest_flag {
    CELLA_DEBUG = 1u << 0,            /* the log may say what the program's data are */
    CELLA_ANY_ENVIRONMENT = 1u << 1,  /* variables that no rule names pass */
    CELLA_HOST_REPORT_DATA = 1u << 2, /* pal_get_local_report may bind data that the host chose */
    CELLA_PROTECT_PAGES = 1u << 3,    /* mprotect reaches the host's page tables */
    CELLA_PATCH = 1u << 4,            /* known system call sites become jumps */
    CELLA_RDTSC = 1u << 5,            /* the processor lets enclaves read the clock */
    CELLA_ATTESTATION = 1u << 6,      /* /dev/attestation is there */
};

struct cella_table {
    uint32_t offset; /* in the manifest, a multiple of 4 */
    uint32_t count;
};

struct cella_manifest {
    char magic[8];
    uint32_t version;
    uint32_t size; /* of everything, zeros behind it to the end of its last page */
    uint32_t flags;
    uint32_t log_level; /* enum cella_log_level */
    uint64_t stack_size;
    uint64_t brk_size;
    uint32_t thread_count; /* that programs may have */
    uint32_t fd_count;
    uint32_t uid;
    uint32_t gid;
    uint8_t trusted_sha256[32]; /* of trusted.bin */
    uint64_t trusted_size;
    uint32_t cwd;                 /* string */
    uint32_t hostname;            /* string, 0: the host's */
    struct cella_table programs;  /* cella_program, sorted by path */
    struct cella_table arguments; /* uint32_t strings, those of programs */
    struct cella_table variables; /* cella_variable, sorted by name */
    struct cella_table mounts;    /* cella_mount, sorted by path */
    struct cella_table keys;      /* cella_key, sorted by name */
    uint32_t strings;             /* offset; a string's offset counts from here */
    uint32_t strings_size;        /* first byte 0: offset 0 is the empty string; last byte 0 */
    uint8_t reserved[32];
};
CELLA_CHECK_SIZE(cella_manifest, 184);

enum cella_program_flag {
    CELLA_PROGRAM_TOP = 1, /* the host may start it */
    CELLA_PROGRAM_SPAWN = 2,
    CELLA_PROGRAM_ANY_ARGUMENTS = 4, /* of those the host starts */
};

struct cella_program {
    uint32_t path;
    uint32_t flags;
    uint32_t first_argument; /* in arguments; the whole of argv, argv[0] included */
    uint32_t argument_count;
};
CELLA_CHECK_SIZE(cella_program, 16);

enum cella_variable_rule {
    CELLA_VARIABLE_FIXED = 1, /* value; the host may say the same or nothing */
    CELLA_VARIABLE_PASS = 2,  /* whatever the host says, if it does */
    CELLA_VARIABLE_DROP = 3,  /* the program never sees it */
};

struct cella_variable {
    uint32_t name;
    uint32_t rule;
    uint32_t value;
};
CELLA_CHECK_SIZE(cella_variable, 12);

enum cella_mount_kind {
    CELLA_MOUNT_ALLOWED = 1, /* the host's word is taken */
    CELLA_MOUNT_ALLOWED_READ = 2,
    CELLA_MOUNT_ENCRYPTED = 3,
    CELLA_MOUNT_TMPFS = 4, /* the process's own memory */
};

struct cella_mount {
    uint32_t path;      /* absolute, without . .. // and last / */
    uint32_t kind;      /* enum cella_mount_kind */
    uint32_t directory; /* 1: it and all below; 0: this file */
    uint32_t key;       /* string, the name of a key; 0: none */
};
CELLA_CHECK_SIZE(cella_mount, 16);

enum cella_key_source {
    CELLA_KEY_PROVISIONED = 1, /* written to /dev/attestation/keys/NAME */
    CELLA_KEY_MRENCLAVE = 2,   /* sealed to this enclave, on this processor */
    CELLA_KEY_MRSIGNER = 3,
};

struct cella_key {
    uint32_t name;
    uint32_t source;
};
CELLA_CHECK_SIZE(cella_key, 8);

/* ---- trusted.bin: header, records sorted by path, system call sites, chunk hashes, strings ---- */

#define CELLA_TRUSTED_MAGIC "CELLATRU"
#define CELLA_TRUSTED_VERSION 1
#define CELLA_TRUSTED_SIZE_MAX 0x4000000ul
#define CELLA_CHUNK_SIZE 16384ul

struct cella_trusted {
    char magic[8];
    uint32_t version;
    uint32_t record_count; /* right behind this */
    uint64_t sites;        /* offset of uint32_t site[site_count] */
    uint64_t chunks;       /* offset of uint8_t sha256[chunk_count][32] */
    uint64_t strings;
    uint64_t strings_size;
    uint32_t site_count;
    uint32_t chunk_count;
    uint64_t size; /* of everything */
};
CELLA_CHECK_SIZE(cella_trusted, 64);

enum cella_record_type { CELLA_RECORD_FILE = 1, CELLA_RECORD_DIRECTORY = 2, CELLA_RECORD_SYMLINK = 3 };

struct cella_record {
    uint32_t path;
    uint32_t type;
    uint64_t size; /* file: bytes; symlink: length of the target */
    int64_t mtime; /* seconds */
    uint32_t mode; /* 07777 */
    union {
        uint32_t first_chunk; /* file: ceil(size / CELLA_CHUNK_SIZE) of them */
        uint32_t target;      /* symlink: string */
    };
    uint32_t first_site;
    uint32_t site_count;
};
CELLA_CHECK_SIZE(cella_record, 40);

/* A site is the file offset of its first byte, below 2 GiB; the top bit tells the kinds apart. */
#define CELLA_SITE_COMPARE 0x80000000u /* clear: MOV imm32, EAX; SYSCALL. Set: SYSCALL; CMP imm32, RAX */

/* ---- Host and enclave: one block for each thread, in the host's memory ---- */

#define CELLA_DATA_SIZE 0x20000ul
#define CELLA_BLOCK_ALIGN 4096

enum cella_enter {
    CELLA_ENTER_START = 1,
    CELLA_ENTER_RETURN = 2,    /* of an ocall */
    CELLA_ENTER_EXCEPTION = 3, /* the thread left by AEX with an exception */
    CELLA_ENTER_SIGNAL = 4,    /* or with an interrupt, and signals are waiting */
};

struct cella_block {
    /* The request, written by the enclave. */
    uint32_t number; /* enum cella_ocall */
    uint32_t reserved0;
    uint64_t argument[6];
    /* The answer, written by the host. */
    int64_t result;   /* or -errno */
    uint64_t more[4]; /* what a call says it returns there */
    /* Between host threads; the enclave does not look at it. */
    uint32_t park;
    uint32_t kicked;
    uint64_t host[8];
    uint8_t reserved2[3928];
    uint8_t data[CELLA_DATA_SIZE];
};
CELLA_CHECK_SIZE(cella_block, 4096 + CELLA_DATA_SIZE);

/* Number, name. Arguments, results and checks: docs/cella-format.md, "Ocalls". */
#define CELLA_OCALLS(X)                                                                                                \
    X(1, RESUME)                                                                                                       \
    X(2, EXIT)                                                                                                         \
    X(3, THREAD_START)                                                                                                 \
    X(4, THREAD_EXIT)                                                                                                  \
    X(5, READY)                                                                                                        \
    X(6, LOG)                                                                                                          \
    X(7, PARK)                                                                                                         \
    X(8, UNPARK)                                                                                                       \
    X(9, CLOCK)                                                                                                        \
    X(10, CPUID)                                                                                                       \
    X(11, SIGNALS)                                                                                                     \
    X(12, PROTECT)                                                                                                     \
    X(13, MAP_FILE)                                                                                                    \
    X(14, UNMAP_FILE)                                                                                                  \
    X(15, OPEN)                                                                                                        \
    X(16, CLOSE)                                                                                                       \
    X(17, READ)                                                                                                        \
    X(18, WRITE)                                                                                                       \
    X(19, PREAD)                                                                                                       \
    X(20, PWRITE)                                                                                                      \
    X(21, SEEK)                                                                                                        \
    X(22, STAT)                                                                                                        \
    X(23, FSTAT)                                                                                                       \
    X(24, STATFS)                                                                                                      \
    X(25, READ_DIRECTORY)                                                                                              \
    X(26, READ_LINK)                                                                                                   \
    X(27, TRUNCATE)                                                                                                    \
    X(28, SYNC)                                                                                                        \
    X(29, RENAME)                                                                                                      \
    X(30, UNLINK)                                                                                                      \
    X(31, MAKE_DIRECTORY)                                                                                              \
    X(32, LINK)                                                                                                        \
    X(33, SET_MODE)                                                                                                    \
    X(34, SET_TIMES)                                                                                                   \
    X(35, LOCK)                                                                                                        \
    X(36, PIPE)                                                                                                        \
    X(37, EVENTFD)                                                                                                     \
    X(38, TIMERFD)                                                                                                     \
    X(39, TIMERFD_SET)                                                                                                 \
    X(40, SET_FLAGS)                                                                                                   \
    X(41, IOCTL)                                                                                                       \
    X(42, POLL)                                                                                                        \
    X(43, EPOLL)                                                                                                       \
    X(44, EPOLL_SET)                                                                                                   \
    X(45, EPOLL_WAIT)                                                                                                  \
    X(46, SOCKET)                                                                                                      \
    X(47, SOCKET_PAIR)                                                                                                 \
    X(48, BIND)                                                                                                        \
    X(49, CONNECT)                                                                                                     \
    X(50, LISTEN)                                                                                                      \
    X(51, ACCEPT)                                                                                                      \
    X(52, SEND)                                                                                                        \
    X(53, RECEIVE)                                                                                                     \
    X(54, SHUTDOWN)                                                                                                    \
    X(55, SOCKET_NAME)                                                                                                 \
    X(56, GET_OPTION)                                                                                                  \
    X(57, SET_OPTION)                                                                                                  \
    X(58, SPAWN_BEGIN)                                                                                                 \
    X(59, SPAWN_GO)                                                                                                    \
    X(60, WAIT)                                                                                                        \
    X(61, KILL)                                                                                                        \
    X(62, QUOTE_TARGET)                                                                                                \
    X(63, QUOTE)                                                                                                       \
    X(64, KICK)                                                                                                        \
    X(65, ACCEPTED)

enum cella_ocall {
#define CELLA_OCALL_ENUMERATOR(number, name) CELLA_OCALL_##name = number,
    CELLA_OCALLS(CELLA_OCALL_ENUMERATOR)
#undef CELLA_OCALL_ENUMERATOR
        CELLA_OCALL_COUNT = 66
};

enum cella_log_level {
    CELLA_LOG_OFF = 0,
    CELLA_LOG_ERROR = 1,
    CELLA_LOG_WARNING = 2,
    CELLA_LOG_INFO = 3,
    CELLA_LOG_DEBUG = 4,
    CELLA_LOG_TRACE = 5,
};

#define CELLA_CHALLENGE_SIZE 32
#define CELLA_CPUID_LEAVES 64

struct cella_cpuid {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

struct cella_clock {
    uint64_t tsc;
    int64_t realtime_ns;
    int64_t monotonic_ns;
    uint64_t tsc_hz; /* 0: not known, ask each time */
};

/* In data when slot 0 is entered with START; facts that the enclave may doubt. */
struct cella_start {
    uint64_t trusted; /* address of trusted.bin, outside of the enclave */
    uint64_t trusted_size;
    uint32_t pid;
    uint32_t parent;
    uint32_t processors;
    uint32_t cpuid_count;
    struct cella_clock clock;
    uint64_t memory; /* bytes, for /proc/meminfo */
    struct cella_cpuid cpuid[CELLA_CPUID_LEAVES];
};
CELLA_CHECK_SIZE(cella_start, 72 + 24 * CELLA_CPUID_LEAVES);

enum cella_begin_kind {
    CELLA_BEGIN_TOP = 1,    /* cella_begin_top: the PAL's pal_create_process */
    CELLA_BEGIN_CHILD = 2,  /* cella_sealed: a parent enclave's SPAWN_GO */
    CELLA_BEGIN_REPORT = 3, /* cella_begin_report; then READY is called again */
};

/* In data when READY returns, with its size as the result; at SPAWN_GO the same, written by the parent. */
struct cella_begin {
    uint32_t kind;
    uint32_t fd_count; /* int32_t host fd [fd_count] right behind this; TOP has 3 */
};

#define CELLA_SPAWN_FDS_MAX 1024

/* Behind cella_begin and its fds. */
struct cella_begin_top {
    uint32_t strings; /* path, then argv, then env: bytes with their ends, right behind this */
    uint32_t argument_count;
    uint32_t variable_count;
    uint32_t reserved;
};

struct cella_begin_report {
    uint8_t target_info[512];
    uint8_t report_data[64];
    uint32_t has_report_data; /* refused with -EPERM without CELLA_HOST_REPORT_DATA */
    uint32_t reserved;
};

/* AES-128-GCM; what is sealed with which key and additional data: docs/cella-format.md, "Processes". */
struct cella_sealed {
    uint8_t nonce[12];
    uint32_t size; /* of the ciphertext, right behind this */
    uint8_t tag[16];
};
CELLA_CHECK_SIZE(cella_sealed, 32);

/* The plaintext of a child's beginning; what the parent's program had at execve. */
struct cella_spawn {
    uint32_t version; /* 1 */
    uint32_t parent;
    uint32_t process_group;
    uint32_t session;
    uint32_t umask;
    uint32_t fd_count; /* struct cella_spawn_fd */
    uint32_t key_count;
    uint32_t argument_count;
    uint32_t variable_count;
    uint32_t strings_size; /* cwd, path, argv, env, then paths of fds */
    uint64_t signals_ignored;
    uint64_t signals_blocked;
    uint64_t limit_fds;
};
CELLA_CHECK_SIZE(cella_spawn, 64);

enum cella_spawn_fd_kind {
    CELLA_FD_HOST = 1,    /* host is an index into the fds that came along */
    CELLA_FD_TRUSTED = 2, /* a path, opened anew */
    CELLA_FD_SPECIAL = 3, /* a path of /dev or /proc */
};

struct cella_spawn_fd {
    uint32_t fd;
    uint32_t kind;
    uint32_t host;
    uint32_t flags; /* O_* of the open file */
    uint64_t offset;
    uint32_t path; /* offset in strings */
    uint32_t type; /* S_IFMT bits of a host fd, as the parent saw them */
};
CELLA_CHECK_SIZE(cella_spawn_fd, 32);

struct cella_spawn_key {
    uint8_t name[32]; /* SHA-256 of the key's name */
    uint8_t key[16];
    uint64_t generation; /* lowest that is accepted of volumes under this key */
    uint64_t reserved;
};
CELLA_CHECK_SIZE(cella_spawn_key, 64);

/* In data at EXIT: for the parent enclave, cella_sealed and 16 bytes behind it: pid, wait status, zeros. */
#define CELLA_EXIT_PLAIN_SIZE 16

struct cella_signal {
    uint32_t number; /* never SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS */
    int32_t code;    /* SI_USER, SI_QUEUE, SI_TIMER, CLD_* */
    uint32_t pid;
    uint32_t uid;
    int64_t value;
};
CELLA_CHECK_SIZE(cella_signal, 24);

struct cella_stat {
    uint64_t device, inode, links;
    uint32_t mode, uid, gid, reserved;
    uint64_t special; /* st_rdev */
    int64_t size, block_size, blocks;
    int64_t atime, mtime, ctime; /* ns */
};
CELLA_CHECK_SIZE(cella_stat, 96);

/* ---- Encrypted files ---- */

#define CELLA_FILE_MAGIC "CELLAENC"
#define CELLA_FILE_BLOCK 4096ul
#define CELLA_FILE_SIZE_MAX (128ul * 128 * 128 * CELLA_FILE_BLOCK) /* 8 GiB */

struct cella_file_entry {
    uint8_t tag[16];
    uint8_t nonce[12];
    uint32_t state; /* 0 absent, 1 in slot 0, 2 in slot 1 */
};
CELLA_CHECK_SIZE(cella_file_entry, 32);

/* One of two; the rest of its 4096 bytes is zero. */
struct cella_file_header {
    char magic[8];
    uint32_t version; /* 1 */
    uint32_t reserved;
    uint8_t file_id[16];
    uint8_t nonce[12];
    uint32_t reserved1;
    uint8_t tag[16];
    /* Encrypted from here; everything before but the tag is additional data. */
    uint64_t revision;
    uint64_t size;
    uint8_t path_sha256[32]; /* of the path seen from the mount */
    struct cella_file_entry root;
};
CELLA_CHECK_SIZE(cella_file_header, 144);

#define CELLA_VOLUME_MAGIC "CELLAVOL"
#define CELLA_VOLUME_NAME ".cella-volume"
#define CELLA_VOLUME_ENTRIES_MAX 65536

struct cella_volume {
    char magic[8];
    uint32_t version; /* 1 */
    uint32_t source;  /* enum cella_key_source */
    uint8_t salt[32];
    uint8_t cpusvn[16]; /* of the sealing key; 0 for provisioned ones */
    uint16_t isvsvn;
    uint16_t reserved;
    uint32_t entry_count;
    uint64_t generation;
    uint64_t size; /* of the ciphertext, right behind this */
    uint8_t nonce[12];
    uint32_t reserved1;
    uint8_t tag[16];
};
CELLA_CHECK_SIZE(cella_volume, 120);

struct cella_volume_entry {
    uint8_t file_id[16];
    uint64_t revision;
    uint32_t path_size; /* bytes of the path right behind this, zeros up to a multiple of 8 */
    uint32_t reserved;
};
CELLA_CHECK_SIZE(cella_volume_entry, 32);

#endif
