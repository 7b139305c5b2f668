/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: what a container is made of, as a flat list of system calls.
 *
 * The planner (src/inclavare/container/plan.py) turns a spec and the host's facts into a plan. The executor (static,
 * no libc) and the runelet (hosts an enclave runtime) walk it with one interpreter, native/executor/walk.c. This file
 * is the only place where the wire layout is written; tests compare it with the Python encoder.
 *
 *   struct plan_header | struct plan_op[op_count] | uint32_t reloc[reloc_count] | data[data_size]
 *
 * An op is a system call (call < PLAN_CALL_BASE) or one of a few calls that take more than one system call. An
 * argument is an immediate, the address of data, or a slot: a variable that holds an earlier op's result. relocs are
 * offsets into data of 64-bit words that hold data offsets and become addresses (argv, envp, sock_fprog.filter).
 *
 * An op fails when its result is negative and not one of its tolerated errno values. The walk then sends PLAN_MSG_ERROR
 * and exits: a half-built container is never used.
 */
#ifndef PLAN_H
#define PLAN_H

#include <stdint.h>

#define PLAN_MAGIC 0x4e4c5052u /* "RPLN" */
#define PLAN_VERSION 1u
#define PLAN_SLOTS 4096
#define PLAN_NO_SLOT 0xffff
#define PLAN_CALL_BASE 0x1000u
#define PLAN_SYNC_SLOT 0 /* slot 0 holds the sync socket's fd when the walk begins */

struct plan_header {
    uint32_t magic;
    uint32_t version;
    uint32_t size; /* of the whole plan in bytes */
    uint32_t op_count;
    uint32_t reloc_count;
    uint32_t data_size;
    uint32_t sync_fd;  /* SOCK_SEQPACKET, inherited */
    uint32_t reserved; /* 0 */
};

enum plan_kind {
    PLAN_IMMEDIATE = 0,
    PLAN_DATA = 1, /* offset into data */
    PLAN_SLOT = 2, /* index of a slot */
};

struct plan_op {
    uint32_t call;
    uint8_t kind[6];
    uint16_t out;        /* slot that takes the result, or PLAN_NO_SLOT */
    uint8_t skip;        /* ops to skip when a tolerated error happened */
    uint8_t tolerate[2]; /* errno values that are no failure, 0 = none */
    uint8_t reserved;    /* 0 */
    uint64_t arg[6];
};

/* Calls beyond single system calls: name(arguments). Strings are NUL-terminated data. */
enum plan_call {
    /* clone(flags, child_op): clone3; the child jumps to child_op, the parent goes on with the pid in out */
    PLAN_CALL_CLONE = PLAN_CALL_BASE,
    /* send_pid(pid): sends PLAN_MSG_PID */
    PLAN_CALL_SEND_PID,
    /* sync(id): sends PLAN_MSG_SYNC and waits for the same message; the end of the stream ends the walk */
    PLAN_CALL_SYNC,
    /* exit(status) */
    PLAN_CALL_EXIT,
    /* mkdirs(path, mode | PLAN_OUTSIDE_PROC): the directory and its parents; an existing directory is kept */
    PLAN_CALL_MKDIRS,
    /* mkfile(path, mode | PLAN_OUTSIDE_PROC): an empty file and its parents; an existing file of any kind but
     * directory is kept */
    PLAN_CALL_MKFILE,
    /* mask(path, fd, options): hides a file under the detached mount fd (/dev/null), a directory under a tmpfs with
     * these options; absent is fine */
    PLAN_CALL_MASK,
    /* read_only(path): makes the tree at path read-only; absent is fine */
    PLAN_CALL_READ_ONLY,
    /* write_file(path, bytes, size): into an existing file, in one write */
    PLAN_CALL_WRITE_FILE,
    /* bounding_set(mask, last): drops every capability up to last that is not in mask */
    PLAN_CALL_BOUNDING_SET,
    /* check_cwd(): the working directory must lie below the root */
    PLAN_CALL_CHECK_CWD,
    /* home(uid, word, buffer, size): HOME= from /etc/passwd into buffer, whose address goes to word; "/" when unknown
     */
    PLAN_CALL_HOME,
    /* look_up(file, path_list, buffer, size): finds the executable as execvp would; buffer is file itself if there is
     * none */
    PLAN_CALL_LOOK_UP,
    /* console(socket, rows | columns << 16 or 0, uid, PLAN_CONSOLE_*): a new pty, its master to socket, its slave to
     * stdio and /dev/console */
    PLAN_CALL_CONSOLE,
    /* wait_fifo(fd): waits for one byte (`rune start`) */
    PLAN_CALL_WAIT_FIFO,
    /* store(word, value): puts a 32-bit value, such as an fd, into data */
    PLAN_CALL_STORE,
    /* end_sync(): closes the sync socket; from here on nobody waits for this process */
    PLAN_CALL_END_SYNC,
    /* exec(path, argv, envp): execve; a failure is sent, or written to stderr once the sync socket is closed */
    PLAN_CALL_EXEC,
    /* runelet(fd): becomes the runelet, argv {"init-runelet", plan fd, next op}, which goes on after this op */
    PLAN_CALL_RUNELET,
    /* agent_exec(socket, request, size): runs in the enclave through the agent, and ends as it ended */
    PLAN_CALL_AGENT_EXEC,
    /* check_fs(path, magic): a directory without symlinks on the way must be of this filesystem (statfs(2)) */
    PLAN_CALL_CHECK_FS,
    /* device(path, mode with type, dev_t, uid, gid): mknod; an existing one must be the same device */
    PLAN_CALL_DEVICE,
    /* tmpfs(source, path, flags, data, PLAN_TMPFS_*): mounts a tmpfs with the mode or content of the directory below,
     * if there was one */
    PLAN_CALL_TMPFS,
    /* The rest is the runelet's. pal_load(struct plan_pal), before the pivot */
    PLAN_CALL_PAL_LOAD,
    /* pal_init(struct plan_pal), in the container */
    PLAN_CALL_PAL_INIT,
    /* pal_run(path, argv, envp): the payload, pal_destroy, exit */
    PLAN_CALL_PAL_RUN,
    PLAN_CALL_END,
};

enum {
    PLAN_MODE = 0xffff,          /* of MKDIRS and MKFILE: the mode */
    PLAN_OUTSIDE_PROC = 0x10000, /* the place must not be in a proc filesystem */
};

enum {
    PLAN_TMPFS_MODE = 1, /* of TMPFS: the mode of the directory */
    PLAN_TMPFS_COPY = 2, /* its content */
};

enum {
    PLAN_CONSOLE_BIND = 1, /* of CONSOLE: mount the slave on /dev/console (init, not exec) */
};

/* What the runelet needs of an enclave configuration; pointers are relocated data offsets. */
struct plan_pal {
    const char *path;           /* host path of the PAL */
    const char *args;           /* for pal_init */
    const char *log_level;      /* for pal_init */
    const char *const *preload; /* libraries to load first, NULL-terminated; absent ones are only reported */
    const char *emulator;       /* host path of libsgxemu.so, or NULL: hardware */
    const uint8_t *seed;        /* 32 bytes for the emulator, or NULL */
    const char *const *env;     /* environment of the runelet, NULL-terminated, ENCLAVE_* removed */
    const int32_t *signals;     /* signals to forward to pal_kill, 0-terminated */
    int32_t agent_fd;           /* listening socket */
    int32_t flags;              /* PLAN_PAL_* */
};

enum {
    PLAN_PAL_WAIT_STATUS = 1, /* the PAL returns wait(2)-style values */
};

/* Messages on the sync socket, both ways: this header and, behind errors and log lines, text up to PLAN_MSG_MAX. */
enum plan_msg_type {
    PLAN_MSG_PID = 1,      /* value = pid */
    PLAN_MSG_SYNC = 2,     /* value = id */
    PLAN_MSG_ERROR = 3,    /* op, value = errno; text = more words or empty */
    PLAN_MSG_LOG = 4,      /* value = enum plan_log; text */
    PLAN_MSG_LISTENER = 5, /* value = fd of the sender's seccomp listener; waits for PLAN_MSG_SYNC */
};

enum plan_log { PLAN_LOG_DEBUG = 0, PLAN_LOG_INFO = 1, PLAN_LOG_WARNING = 2 };

#define PLAN_MSG_MAX 4096

struct plan_msg {
    uint32_t type;
    uint32_t op;
    int32_t value;
    uint32_t text_size;
};

#endif
