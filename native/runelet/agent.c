/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: `rune exec` in an enclave container arrives here. One thread a connection; each runs its program in the
 * enclave with the stdio it was sent, and answers with the exit code. A peer that says nonsense loses its connection
 * and nothing else. docs/pal.md tells the conversation.
 */
#include "agent.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../executor/calls.h"
#include "wire.h"

enum { FD_SIGNALS, FD_STDIN, FD_STDOUT, FD_STDERR, FD_COUNT };
static const char *const FD_NAMES[FD_COUNT] = {"signal", "stdin", "stdout", "stderr"};

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

/* Programs that were started through the agent and are not answered for yet. */
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t running_less = PTHREAD_COND_INITIALIZER;
static int running;
static bool stopped;

static char *home; /* HOME=... of the container, or NULL */

static bool begin_running(void) {
    pthread_mutex_lock(&running_lock);
    bool allowed = !stopped;
    running += allowed;
    pthread_mutex_unlock(&running_lock);
    return allowed;
}

static void end_running(void) {
    pthread_mutex_lock(&running_lock);
    running--;
    pthread_cond_signal(&running_less);
    pthread_mutex_unlock(&running_lock);
}

void agent_stop(struct host *host) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec++;
    pthread_mutex_lock(&running_lock);
    stopped = true;
    bool any = running > 0;
    pthread_mutex_unlock(&running_lock);
    if (!any || host_kill(host, PAL_KILL_ALL, SIGKILL) < 0)
        return;
    pthread_mutex_lock(&running_lock);
    while (running > 0 && pthread_cond_timedwait(&running_less, &running_lock, &deadline) == 0)
        ;
    pthread_mutex_unlock(&running_lock);
}

/* Waits until the signal pipe has something. False when the conversation is over. */
static bool wait_for_signal(struct connection *connection) {
    struct pollfd fds[2] = {{.fd = connection->fds[FD_SIGNALS], .events = POLLIN}, {.fd = connection->socket}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return false;
    return fds[0].revents && !__atomic_load_n(&connection->done, __ATOMIC_ACQUIRE);
}

static bool read_all(struct connection *connection, int fd, void *out, size_t size) {
    char *at = out;
    while (size) {
        if (fd != connection->socket && !wait_for_signal(connection))
            return false;
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

/* Reads a frame and parses it. Returns as request_parse; -ENODATA at the end of the stream; -EMSGSIZE for a length that
 * cannot be, after which nothing more can be read. */
static int read_request(struct connection *connection, int fd, struct request *request, const char **problem) {
    memset(request, 0, sizeof *request);
    unsigned char head[4];
    if (!read_all(connection, fd, head, sizeof head))
        return -ENODATA;
    uint32_t size = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    *problem = "the request's length is out of bounds (1 byte to 1 MiB)";
    unsigned char *message = size == 0 || size > WIRE_FRAME_MAX ? NULL : malloc(size);
    if (!message)
        return -EMSGSIZE;
    int result = read_all(connection, fd, message, size) ? request_parse(request, message, size, problem) : -ENODATA;
    free(message);
    return result;
}

/* One fd, sent with its name as payload. What came besides is closed, and then it is nonsense. */
static int receive_fd(int socket) {
    char name[4096];
    union {
        char bytes[CMSG_SPACE(8 * sizeof(int))];
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
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return -1;
    int fds[8];
    size_t size = head->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(head), size);
    if (size == sizeof(int))
        return fds[0];
    for (size_t i = 0; i < size / sizeof(int); i++)
        close(fds[i]);
    return -1;
}

static void close_fd(struct connection *connection, int which) {
    if (connection->fds[which] >= 0)
        close(connection->fds[which]);
    connection->fds[which] = -1;
}

/* Passes the peer's signals on. A pipe that ends before the program does means that the peer was killed. */
static void *relay_signals(void *argument) {
    struct connection *connection = argument;
    int result;
    do {
        struct request request;
        const char *problem;
        result = read_request(connection, connection->fds[FD_SIGNALS], &request, &problem);
        if (result == 0 && request.kind == REQUEST_KILL)
            host_kill(connection->host, connection->pid, request.sig);
        request_free(&request);
    } while (result != -ENODATA && result != -EMSGSIZE);
    if (result == -ENODATA && !__atomic_load_n(&connection->done, __ATOMIC_ACQUIRE))
        host_kill(connection->host, connection->pid, SIGKILL);
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

static bool receive_fds(struct connection *connection) {
    for (int i = 0; i < FD_COUNT; i++)
        if ((connection->fds[i] = receive_fd(connection->socket)) < 0) {
            char problem[64];
            snprintf(problem, sizeof problem, "the request came without its file descriptor %s", FD_NAMES[i]);
            answer(connection, REQUEST_EXEC, 1, problem, NULL);
            return false;
        }
    return true;
}

/* The value of the last entry NAME=..., as rune takes PATH; NULL where there is none. */
static const char *look_for(const struct words *env, const char *name, size_t size) {
    for (size_t i = env->count; i-- > 0;)
        if (strncmp(env->list[i], name, size) == 0 && env->list[i][size] == '=')
            return env->list[i] + size + 1;
    return NULL;
}

/* What rune does for a program of the container: HOME, and the search in PATH. The program may exist in the enclave
 * only, then its name stays as it is. Returns the path, in `buffer` or the request. */
static char *find_program(struct request *request, char *buffer, size_t size) {
    if (home && !look_for(&request->env, "HOME", 4))
        words_add(&request->env, home, strlen(home)); /* without memory it goes without */
    const char *list = look_for(&request->env, "PATH", 4);
    return call_look_up(request->argv.list[0], list ? list : "", buffer, size) < 0 ? request->argv.list[0] : buffer;
}

static void execute(struct connection *connection, struct request *request) {
    if (!receive_fds(connection))
        return;
    if (!begin_running()) {
        answer(connection, REQUEST_EXEC, 1, "the container is ending", NULL);
        return;
    }
    struct pal_stdio_fds stdio = {connection->fds[FD_STDIN], connection->fds[FD_STDOUT], connection->fds[FD_STDERR]};
    struct sentence why = {""};
    int code = 1;
    char path[PATH_MAX];
    char *program = find_program(request, path, sizeof path);
    host_run(connection->host, program, request->argv.list, request->env.list, &stdio, start_relay, connection, &code,
             &why);
    __atomic_store_n(&connection->done, true, __ATOMIC_RELEASE);
    /* Who reads the program's output to its end before our answer must find an end. */
    close_fd(connection, FD_STDIN);
    close_fd(connection, FD_STDOUT);
    close_fd(connection, FD_STDERR);
    answer(connection, REQUEST_EXEC, code, why.text, NULL);
    end_running();
    shutdown(connection->socket, SHUT_RDWR); /* wakes the relay */
    if (connection->relaying)
        pthread_join(connection->relay, NULL);
}

static void attest(struct connection *connection, struct request *request) {
    struct sentence why = {""};
    unsigned char report[512] __attribute__((aligned(512)));
    int result = host_report(connection->host, request->target_info, request->target_info_size, report, &why);
    answer(connection, REQUEST_ATTEST, result < 0, why.text, result < 0 ? NULL : report);
}

static void *serve(void *argument) {
    struct connection *connection = argument;
    struct request request;
    const char *problem = "";
    int result = read_request(connection, connection->socket, &request, &problem);
    if (result < 0 && result != -ENODATA)
        answer(connection, request.kind, 1, problem, NULL);
    else if (result == 0 && request.kind == REQUEST_EXEC)
        execute(connection, &request);
    else if (result == 0 && request.kind == REQUEST_ATTEST)
        attest(connection, &request);
    else if (result == 0)
        host_kill(connection->host, PAL_KILL_ALL, request.sig);
    request_free(&request);
    for (int i = 0; i < FD_COUNT; i++)
        close_fd(connection, i);
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
    const char *directory = getenv("HOME"); /* now: later the runtime may be changing the environment */
    if (directory && asprintf(&home, "HOME=%s", directory) < 0)
        home = NULL;
    pthread_t thread;
    int result = pthread_create(&thread, NULL, accept_all, server);
    if (result) {
        free(server);
        return -result;
    }
    pthread_detach(thread);
    return 0;
}
