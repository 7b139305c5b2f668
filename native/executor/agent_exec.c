/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of `rune exec` in an enclave container: it runs nothing itself. It hands its stdio to the agent in the
 * runelet, which starts the payload in the enclave, passes on the signals it gets, and ends as the payload ended.
 *
 * The messages are those of the agent socket (docs/pal.md): a u32 little-endian length, then protobuf.
 */
#include <asm/poll.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/signalfd.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <stddef.h>

#include "calls.h"
#include "fds.h"
#include "sys.h"

#define MSG_NOSIGNAL 0x4000
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define STATUS_LOST 137 /* the container went away, as a killed process would */
#define RESPONSE_MAX 4096

struct msghdr64 {
    void *name;
    uint64_t name_size;
    struct iovec *iov;
    uint64_t iov_count;
    void *control;
    uint64_t control_size;
    uint64_t flags;
};

long send_fd(int socket, int fd, const char *name, long name_size) {
    struct {
        uint64_t size;
        int level;
        int type;
        int fd;
        int padding;
    } control = {.size = 20, .level = SOL_SOCKET, .type = SCM_RIGHTS, .fd = fd};
    struct iovec iov = {.iov_base = (void *)name, .iov_len = (uint64_t)name_size};
    struct msghdr64 message = {.iov = &iov, .iov_count = 1, .control = &control, .control_size = sizeof control};
    long sent;
    do
        sent = sys3(__NR_sendmsg, socket, &message, MSG_NOSIGNAL);
    while (sent == -EINTR);
    return sent;
}

static long send_all(int socket, const char *bytes, uint64_t size) {
    while (size) {
        long sent = sys6(__NR_sendto, socket, SYS_ARG(bytes), SYS_ARG(size), MSG_NOSIGNAL, 0, 0);
        if (sent == -EINTR)
            continue;
        if (sent < 0)
            return sent;
        bytes += sent;
        size -= (uint64_t)sent;
    }
    return 0;
}

/* A protobuf varint; advances *at. Truncated or overlong input gives UINT64_MAX, which is no length and no status. */
static uint64_t varint(const unsigned char **at, const unsigned char *end) {
    uint64_t value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        unsigned char byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    return UINT64_MAX;
}

/* AgentServiceResponse { Execute exec = 1 { int32 exitCode = 1; string error = 2; } } */
static long status_of(const unsigned char *at, const unsigned char *end) {
    if (at == end || *at++ != 0x0a || varint(&at, end) != (uint64_t)(end - at))
        return STATUS_LOST;
    long status = 0;
    while (at < end) {
        unsigned char tag = *at++;
        uint64_t value = varint(&at, end);
        if (tag == 0x08) {
            status = (long)(value & 0xff);
        } else if (tag == 0x12 && value <= (uint64_t)(end - at)) {
            call_say("rune: ");
            sys3(__NR_write, 2, at, value);
            call_say("\n");
            at += value;
        } else {
            return STATUS_LOST;
        }
    }
    return status;
}

static long read_response(int socket, unsigned char *buffer, long *have) {
    long got = sys3(__NR_read, socket, buffer + *have, RESPONSE_MAX - *have);
    if (got == -EINTR)
        return -1;
    if (got <= 0)
        return STATUS_LOST;
    *have += got;
    if (*have < 4)
        return -1;
    uint64_t size =
        (uint64_t)buffer[0] | (uint64_t)buffer[1] << 8 | (uint64_t)buffer[2] << 16 | (uint64_t)buffer[3] << 24;
    if (size > RESPONSE_MAX - 4)
        return STATUS_LOST;
    return (uint64_t)*have < size + 4 ? -1 : status_of(buffer + 4, buffer + 4 + size);
}

/* Request { Kill kill = 2 { int32 sig = 1; } } for one signal of ours. */
static void forward_signal(int signals, int pipe) {
    struct signalfd_siginfo info;
    if (sys3(__NR_read, signals, &info, sizeof info) != (long)sizeof info)
        return;
    const unsigned char frame[] = {4, 0, 0, 0, 0x12, 2, 0x08, (unsigned char)info.ssi_signo};
    sys3(__NR_write, pipe, frame, sizeof frame);
}

long call_agent_exec(int socket, const char *request, uint64_t size) {
    /* All but the signals that are the process's own affair: SIGCHLD 17, SIGURG 23, SIGWINCH 28, SIGPIPE 13, stops. */
    uint64_t mask = ~(1ul << 16 | 1ul << 22 | 1ul << 27 | 1ul << 17 | 1ul << 19 | 1ul << 20 | 1ul << 21);
    sys4(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &mask, 0, sizeof mask);
    long signals = sys4(__NR_signalfd4, -1, &mask, sizeof mask, O_CLOEXEC | O_NONBLOCK);
    int pipe[2];
    if (signals < 0 || sys2(__NR_pipe2, pipe, O_CLOEXEC) < 0)
        return STATUS_LOST;
    if (send_all(socket, request, size) < 0 || send_fd(socket, pipe[0], "signal", 6) < 0 ||
        send_fd(socket, 0, "stdin", 5) < 0 || send_fd(socket, 1, "stdout", 6) < 0 ||
        send_fd(socket, 2, "stderr", 6) < 0)
        return STATUS_LOST;
    sys1(__NR_close, pipe[0]);
    unsigned char response[RESPONSE_MAX];
    long have = 0;
    long status = -1;
    while (status < 0) {
        struct pollfd fds[2] = {{.fd = socket, .events = POLLIN}, {.fd = (int)signals, .events = POLLIN}};
        if (sys5(__NR_ppoll, fds, 2, 0, 0, 0) < 0)
            continue;
        if (fds[1].revents)
            forward_signal((int)signals, pipe[1]);
        if (fds[0].revents)
            status = read_response(socket, response, &have);
    }
    return status;
}
