/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <stddef.h>

#include "calls.h"
#include "sys.h"

#define MSG_NOSIGNAL 0x4000

static long send_message(struct plan_walk *w, uint32_t type, int32_t value, const char *text) {
    if (w->sync_fd < 0)
        return -EBADF;
    struct {
        struct plan_msg head;
        char text[PLAN_MSG_MAX];
    } message;
    uint32_t size = 0;
    while (text && text[size] && size < PLAN_MSG_MAX) {
        message.text[size] = text[size];
        size++;
    }
    message.head = (struct plan_msg){.type = type, .op = w->op, .value = value, .text_size = size};
    return sys6(__NR_sendto, w->sync_fd, SYS_ARG(&message), SYS_ARG(sizeof message.head + size), MSG_NOSIGNAL, 0, 0);
}

void plan_log(struct plan_walk *w, enum plan_log level, const char *text) {
    send_message(w, PLAN_MSG_LOG, level, text);
}

_Noreturn static void exit_now(long status) {
    for (;;)
        sys1(__NR_exit_group, status);
}

_Noreturn void plan_fail(struct plan_walk *w, int error_number) {
    if (send_message(w, PLAN_MSG_ERROR, error_number, w->error_text) >= 0)
        exit_now(1);
    /* Nobody waits any more: the container's own stderr is the only place left. */
    const struct plan_op *op = &w->ops[w->op];
    const char *what = w->error_text                                            ? w->error_text
                       : op->call == PLAN_CALL_EXEC && op->kind[0] == PLAN_DATA ? (const char *)w->data + op->arg[0]
                                                                                : "the container cannot be started";
    call_say("rune: ");
    call_say(what);
    call_say(w->error_text             ? ""
             : error_number == ENOEXEC ? ": exec format error"
             : error_number == ENOENT  ? ": no such file or directory"
             : error_number == EACCES  ? ": permission denied"
                                       : ": execve failed");
    call_say("\n");
    exit_now(error_number == ENOENT ? 127 : 126);
}

/* Waits until who planned us says go on. It has gone away when the socket closes: then this container must not be. */
static long call_sync(struct plan_walk *w, int32_t id) {
    long sent = send_message(w, PLAN_MSG_SYNC, id, NULL);
    if (sent < 0)
        exit_now(1);
    struct plan_msg answer;
    long got;
    do
        got = sys6(__NR_recvfrom, w->sync_fd, SYS_ARG(&answer), sizeof answer, 0, 0, 0);
    while (got == -EINTR);
    if (got != (long)sizeof answer || answer.type != PLAN_MSG_SYNC || answer.value != id)
        exit_now(1);
    return 0;
}

static long call_clone(uint64_t flags) {
    struct clone_args args = {.flags = flags};
    if (!(flags & CLONE_PARENT))
        args.exit_signal = 17; /* SIGCHLD; with CLONE_PARENT the child inherits ours and the field must be 0 */
    return sys2(__NR_clone3, &args, sizeof args);
}

static long call_end_sync(struct plan_walk *w) {
    long result = sys1(__NR_close, w->sync_fd);
    w->sync_fd = -1;
    return result;
}

static long walk_call(struct plan_walk *w, uint32_t call, const uint64_t arg[6], uint32_t *next) {
    switch (call) {
    case PLAN_CALL_CLONE: {
        long pid = call_clone(arg[0]);
        if (pid == 0)
            *next = (uint32_t)arg[1];
        return pid;
    }
    case PLAN_CALL_SEND_PID:
        return send_message(w, PLAN_MSG_PID, (int32_t)arg[0], NULL);
    case PLAN_CALL_SYNC:
        return call_sync(w, (int32_t)arg[0]);
    case PLAN_CALL_EXIT:
        exit_now((long)arg[0]);
    case PLAN_CALL_MKDIRS:
        return call_mkdirs((const char *)arg[0], (uint32_t)arg[1]);
    case PLAN_CALL_MKFILE:
        return call_mkfile((const char *)arg[0], (uint32_t)arg[1]);
    case PLAN_CALL_MASK:
        return call_mask((const char *)arg[0], (int)arg[1], (const char *)arg[2]);
    case PLAN_CALL_READ_ONLY:
        return call_read_only((const char *)arg[0]);
    case PLAN_CALL_WRITE_FILE:
        return call_write_file((const char *)arg[0], (const char *)arg[1], arg[2]);
    case PLAN_CALL_BOUNDING_SET:
        return call_bounding_set(arg[0], (int)arg[1]);
    case PLAN_CALL_CHECK_CWD:
        return call_check_cwd();
    case PLAN_CALL_HOME:
        return call_home((uint32_t)arg[0], (uint64_t *)arg[1], (char *)arg[2], arg[3]);
    case PLAN_CALL_LOOK_UP:
        return call_look_up((const char *)arg[0], (const char *)arg[1], (char *)arg[2], arg[3]);
    case PLAN_CALL_CONSOLE:
        return call_console((int)arg[0], (uint32_t)arg[1], (uint32_t)arg[2], (uint32_t)arg[3]);
    case PLAN_CALL_WAIT_FIFO:
        return call_wait_fifo((int)arg[0]);
    case PLAN_CALL_STORE:
        *(uint32_t *)arg[0] = (uint32_t)arg[1];
        return 0;
    case PLAN_CALL_END_SYNC:
        return call_end_sync(w);
    case PLAN_CALL_EXEC:
        return sys3(__NR_execve, arg[0], arg[1], arg[2]);
    case PLAN_CALL_RUNELET:
        return call_runelet((int)arg[0], w->plan_fd, w->op + 1);
    case PLAN_CALL_CHECK_FS:
        return call_check_fs((const char *)arg[0], arg[1]);
    case PLAN_CALL_DEVICE:
        return call_device((const char *)arg[0], (uint32_t)arg[1], arg[2], (uint32_t)arg[3], (uint32_t)arg[4]);
    case PLAN_CALL_TMPFS:
        return call_tmpfs((const char *)arg[0], (const char *)arg[1], arg[2], (const char *)arg[3], arg[4]);
    case PLAN_CALL_AGENT_EXEC:
        exit_now(call_agent_exec((int)arg[0], (const char *)arg[1], arg[2]));
    default:
        return w->extra ? w->extra(w, call, arg) : -ENOSYS;
    }
}

static int tolerated(const struct plan_op *op, long result) {
    return (op->tolerate[0] && -result == op->tolerate[0]) || (op->tolerate[1] && -result == op->tolerate[1]);
}

_Noreturn void plan_walk(struct plan_walk *w, uint32_t first_op) {
    for (uint32_t next, at = first_op;; at = next) {
        if (at >= w->op_count)
            exit_now(1);
        const struct plan_op *op = &w->ops[at];
        uint64_t arg[6];
        for (int i = 0; i < 6; i++)
            arg[i] = op->kind[i] == PLAN_DATA   ? (uint64_t)(w->data + op->arg[i])
                     : op->kind[i] == PLAN_SLOT ? (uint64_t)w->slot[op->arg[i] % PLAN_SLOTS]
                                                : op->arg[i];
        w->op = at;
        next = at + 1;
        long result;
        if (op->call >= PLAN_CALL_BASE)
            result = walk_call(w, op->call, arg, &next);
        else
            do
                result = sys6(op->call, SYS_ARG(arg[0]), SYS_ARG(arg[1]), SYS_ARG(arg[2]), SYS_ARG(arg[3]),
                              SYS_ARG(arg[4]), SYS_ARG(arg[5]));
            while (result == -EINTR && op->call != __NR_close);
        if (result < 0 && result >= -4095) {
            if (!tolerated(op, result))
                plan_fail(w, (int)-result);
            next = at + 1 + op->skip;
            result = -1;
        }
        if (op->out != PLAN_NO_SLOT)
            w->slot[op->out] = result;
    }
}

long plan_open(struct plan_walk *w, int fd, plan_extra_fn extra) {
    struct plan_header head;
    long got = sys4(__NR_pread64, fd, &head, sizeof head, 0);
    if (got != (long)sizeof head || head.magic != PLAN_MAGIC || head.version != PLAN_VERSION)
        return -EINVAL;
    uint64_t ops_size = (uint64_t)head.op_count * sizeof(struct plan_op);
    uint64_t relocs_size = (uint64_t)head.reloc_count * sizeof(uint32_t);
    if (sizeof head + ops_size + relocs_size + head.data_size != head.size)
        return -EINVAL;
    long base = sys6(__NR_mmap, 0, head.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (base < 0 && base >= -4095)
        return base;
    unsigned char *plan = (unsigned char *)base;
    const uint32_t *reloc = (const uint32_t *)(plan + sizeof head + ops_size);
    w->ops = (const struct plan_op *)(plan + sizeof head);
    w->op_count = head.op_count;
    w->data = plan + sizeof head + ops_size + relocs_size;
    for (uint32_t i = 0; i < head.reloc_count; i++) {
        if (reloc[i] > head.data_size - sizeof(uint64_t) || reloc[i] % sizeof(uint64_t))
            return -EINVAL;
        *(uint64_t *)(w->data + reloc[i]) += (uint64_t)w->data;
    }
    w->plan_fd = fd;
    w->sync_fd = (int)head.sync_fd;
    w->slot[PLAN_SYNC_SLOT] = w->sync_fd;
    w->extra = extra;
    w->error_text = NULL;
    return 0;
}

long plan_number(const char *text) {
    long number = 0;
    if (!text || !*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || number > 100000000)
            return -1;
        number = number * 10 + (*text - '0');
    }
    return number;
}
