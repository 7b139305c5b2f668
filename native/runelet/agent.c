/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: `rune exec` in an enclave container arrives here. One thread a connection; each runs its program in the
 * enclave with the stdio it was sent, and answers with the exit code. A peer that says nonsense loses its connection
 * and nothing else.
 */
#include "agent.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

enum { FD_SIGNALS, FD_STDIN, FD_STDOUT, FD_STDERR, FD_COUNT };

struct connection {
    struct host *host;
    int socket;
    int fds[FD_COUNT];
    int pid; /* as the runtime names the program */
    bool relaying;
    bool done; /* the program has ended */
    pthread_t relay;
};

struct server {
    struct host *host;
    int socket;
};

static bool read_all(int fd, void *out, size_t size) {
    char *at = out;
    while (size) {
        ssize_t got = read(fd, at, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

static void send_all(int socket, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(socket, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return; /* the peer went away: nobody wants to know */
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* Reads a frame and parses it. Returns as request_parse, or -ENODATA at the end of the stream. */
static int read_request(int fd, struct request *request) {
    memset(request, 0, sizeof *request);
    unsigned char head[4];
    if (!read_all(fd, head, sizeof head))
        return -ENODATA;
    uint32_t size = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    if (size == 0 || size > WIRE_FRAME_MAX)
        return -EPROTO;
    unsigned char *message = malloc(size);
    if (!message)
        return -ENOMEM;
    int result = read_all(fd, message, size) ? request_parse(request, message, size) : -ENODATA;
    free(message);
    return result;
}

/* One fd, sent with its name as payload. */
static int receive_fd(int socket) {
    char name[4096];
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = name, .iov_len = sizeof name};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

/* Passes the peer's signals on. A pipe that ends before the program does means that the peer was killed. */
static void *relay_signals(void *argument) {
    struct connection *connection = argument;
    for (;;) {
        struct request request;
        int result = read_request(connection->fds[FD_SIGNALS], &request);
        if (result == 0 && request.kind == REQUEST_KILL)
            host_kill(connection->host, connection->pid, request.sig);
        request_free(&request);
        if (result < 0)
            break;
    }
    if (!__atomic_load_n(&connection->done, __ATOMIC_ACQUIRE))
        host_kill(connection->host, connection->pid, 9);
    return NULL;
}

static void start_relay(void *context, int pid) {
    struct connection *connection = context;
    connection->pid = pid;
    connection->relaying = pthread_create(&connection->relay, NULL, relay_signals, connection) == 0;
}

static void answer(struct connection *connection, enum request_kind kind, int code, const char *error,
                   const unsigned char *report) {
    unsigned char response[WIRE_RESPONSE_MAX];
    send_all(connection->socket, response, response_write(response, kind, code, error, report));
}

static void execute(struct connection *connection, struct request *request) {
    for (int i = 0; i < FD_COUNT; i++)
        if ((connection->fds[i] = receive_fd(connection->socket)) < 0)
            return;
    struct pal_stdio_fds stdio = {connection->fds[FD_STDIN], connection->fds[FD_STDOUT], connection->fds[FD_STDERR]};
    struct sentence why = {""};
    int code = 1;
    host_run(connection->host, request->argv[0], request->argv, request->env, &stdio, start_relay, connection, &code,
             &why);
    __atomic_store_n(&connection->done, true, __ATOMIC_RELEASE);
    answer(connection, REQUEST_EXEC, code, why.text, NULL);
    shutdown(connection->socket, SHUT_RDWR);
    if (connection->relaying)
        pthread_join(connection->relay, NULL);
}

static void attest(struct connection *connection, struct request *request) {
    struct sentence why = {""};
    unsigned char report[512] __attribute__((aligned(512)));
    int result = host_report(connection->host, request->target_info, report, &why);
    answer(connection, REQUEST_ATTEST, result < 0, why.text, result < 0 ? NULL : report);
}

static void *serve(void *argument) {
    struct connection *connection = argument;
    struct request request;
    int result = read_request(connection->socket, &request);
    if (result == -EPROTO)
        answer(connection, REQUEST_EXEC, 1, "the request is malformed", NULL);
    else if (result == 0 && request.kind == REQUEST_EXEC)
        execute(connection, &request);
    else if (result == 0 && request.kind == REQUEST_ATTEST)
        attest(connection, &request);
    else if (result == 0)
        host_kill(connection->host, PAL_KILL_ALL, request.sig);
    request_free(&request);
    for (int i = 0; i < FD_COUNT; i++)
        if (connection->fds[i] >= 0)
            close(connection->fds[i]);
    close(connection->socket);
    free(connection);
    return NULL;
}

static void *accept_all(void *argument) {
    struct server server = *(struct server *)argument;
    free(argument);
    for (;;) {
        int socket = accept4(server.socket, NULL, NULL, SOCK_CLOEXEC);
        if (socket < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                usleep(10000); /* until somebody closes something */
            else if (errno != EINTR && errno != ECONNABORTED)
                return NULL;
            continue;
        }
        struct connection *connection = malloc(sizeof *connection);
        pthread_t thread;
        if (connection) {
            *connection = (struct connection){.host = server.host, .socket = socket, .fds = {-1, -1, -1, -1}};
            if (pthread_create(&thread, NULL, serve, connection) == 0) {
                pthread_detach(thread);
                continue;
            }
            free(connection);
        }
        close(socket);
    }
}

int agent_start(struct host *host, int listening_fd) {
    struct server *server = malloc(sizeof *server);
    if (!server)
        return -ENOMEM;
    *server = (struct server){host, listening_fd};
    pthread_t thread;
    int result = pthread_create(&thread, NULL, accept_all, server);
    if (result) {
        free(server);
        return -result;
    }
    pthread_detach(thread);
    return 0;
}
