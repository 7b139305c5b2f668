/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runelet: init of an enclave container. The executor executes it in the container's namespaces while the host's
 * files are still visible; it goes on with the plan (native/executor/walk.c), and carries out the calls that need a
 * libc:
 *
 *   PAL_LOAD  before the pivot: the runtime's path is the host's
 *   PAL_INIT  in the container, with its credentials and filter; then signals and the agent are served
 *   PAL_RUN   the program, to its end
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../executor/walk.h"
#include "agent.h"
#include "host.h"
#include "sgxemu.h"

static struct host host;
static struct sentence why;
static sigset_t forwarded;
static sigset_t blocked; /* these, and SIGPIPE */

static void unblock_in_child(void) {
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
}

/* Before anything may start a thread: all threads must leave these signals to the forwarder. SIGPIPE of a program whose
 * reader went away must not end the others: who writes gets EPIPE. Blocked, not ignored, because execve keeps what is
 * ignored, and not handled, because a handler would break off the runtime's system calls. */
static int block_signals(const int32_t *signals) {
    sigemptyset(&forwarded);
    for (; *signals; signals++)
        sigaddset(&forwarded, *signals);
    blocked = forwarded;
    sigaddset(&blocked, SIGPIPE);
    int result = pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    /* What the runtime forks must not inherit our blocked signals. */
    return result ? -result : -pthread_atfork(NULL, NULL, unblock_in_child);
}

static void preload(struct plan_walk *w, const char *const *libraries) {
    for (; *libraries; libraries++)
        if (!dlopen(*libraries, RTLD_NOW)) {
            char line[256];
            snprintf(line, sizeof line, "not preloaded: %.200s", dlerror());
            plan_log(w, PLAN_LOG_DEBUG, line);
        }
}

static int emulate(const struct plan_pal *pal) {
    void *library = dlopen(pal->emulator, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        snprintf(why.text, sizeof why.text, "failed to load the software platform: %s", dlerror());
        return -ELIBACC;
    }
    int (*init)(const uint8_t *) = (int (*)(const uint8_t *))dlsym(library, "sgxemu_init");
    if (!init) {
        snprintf(why.text, sizeof why.text, "%s does not export sgxemu_init", pal->emulator);
        return -ELIBBAD;
    }
    int result = init(pal->seed);
    if (result < 0)
        snprintf(why.text, sizeof why.text, "the software platform cannot be used here: %s%s", strerror(-result),
                 result == -ENOSYS ? " (the kernel lacks Syscall User Dispatch)" : "");
    return result;
}

/* Credentials, capabilities and the filter that the plan sets later are those of the calling thread, so no other may be
 * there. Without /proc nothing can be said. */
static int check_alone(const struct plan_pal *pal) {
    struct stat status;
    if (stat("/proc/self/task", &status) < 0 || status.st_nlink <= 2 + 1)
        return 0;
    snprintf(why.text, sizeof why.text,
             "%.700s, or a library that it needs, started a thread when it was loaded; that thread would keep rune's "
             "privileges in the container",
             pal->path);
    return -EBUSY;
}

static int load(struct plan_walk *w, const struct plan_pal *pal) {
    extern char **environ;
    prctl(PR_SET_NAME, "init-runelet");
    environ = (char **)pal->env;
    int result = block_signals(pal->signals);
    if (result < 0)
        return result;
    plan_log(w, PLAN_LOG_DEBUG, "loading the enclave runtime");
    preload(w, pal->preload);
    if (pal->emulator && (result = emulate(pal)) < 0)
        return result;
    result = host_load(&host, pal, &why);
    return result < 0 ? result : check_alone(pal);
}

/* pal_kill where the runtime has it; else what the signal does to a program that does not handle it: end it. The
 * enclave is then not taken down: its program is in the middle of it. */
static void *forward_signals(void *unused) {
    (void)unused;
    for (;;) {
        int sig;
        if (sigwait(&forwarded, &sig))
            continue;
        if (host_kill(&host, PAL_KILL_ALL, sig) == -ENOSYS && sig != SIGCONT)
            _exit(128 + sig);
    }
    return NULL;
}

static int init(struct plan_walk *w, const struct plan_pal *pal) {
    plan_log(w, PLAN_LOG_DEBUG, "initialising the enclave runtime");
    int result = host_init(&host, pal, &why);
    if (result < 0)
        return result;
    char line[256];
    snprintf(line, sizeof line, "pal_init of %.180s succeeded, api version %d", pal->path, host.version);
    plan_log(w, PLAN_LOG_DEBUG, line);
    pthread_t forwarder;
    result = -pthread_create(&forwarder, NULL, forward_signals, NULL);
    if (result == 0)
        result = agent_start(&host, pal->agent_fd);
    if (result < 0)
        snprintf(why.text, sizeof why.text, "cannot start a thread of the runelet: %s", strerror(-result));
    return result;
}

_Noreturn static void run(char *path, char **argv, char **env) {
    struct pal_stdio_fds stdio = {0, 1, 2};
    int code = 1;
    if (host_run(&host, path, argv, env, &stdio, NULL, NULL, &code, &why) < 0)
        dprintf(STDERR_FILENO, "rune: %s\n", why.text);
    agent_stop(&host);
    if (host_destroy(&host, &why) < 0)
        dprintf(STDERR_FILENO, "rune: %s\n", why.text);
    _exit(code);
}

static long carry_out(struct plan_walk *w, uint32_t call, const uint64_t arg[6]) {
    why.text[0] = 0;
    w->error_text = why.text;
    switch (call) {
    case PLAN_CALL_PAL_LOAD:
        return load(w, (const struct plan_pal *)arg[0]);
    case PLAN_CALL_PAL_INIT:
        return init(w, (const struct plan_pal *)arg[0]);
    case PLAN_CALL_PAL_RUN:
        run((char *)arg[0], (char **)arg[1], (char **)arg[2]);
    default:
        return -ENOSYS;
    }
}

int main(int argc, char **argv) {
    static struct plan_walk walk;
    long fd = argc == 3 ? plan_number(argv[1]) : -1;
    long first_op = argc == 3 ? plan_number(argv[2]) : -1;
    if (fd < 0 || first_op < 0 || plan_open(&walk, (int)fd, carry_out) < 0) {
        fprintf(stderr, "init-runelet: started by `rune` only\n");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* what a runtime prints is seen when it is printed */
    plan_walk(&walk, (uint32_t)first_op);
}
