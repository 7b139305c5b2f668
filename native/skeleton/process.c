/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of the skeleton: see process.h. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "complain.h"
#include "process.h"

static const char SUCCESS[] = "Enclave runtime skeleton initialization succeeded\n";

struct process {
    struct process *next;
    pid_t pid;
};

/* Every process that has not been reaped. A pid is reaped and forgotten in one go under the lock, so nothing is ever
 * sent to a process that has got the number of a former one. */
static struct process *processes;
static pthread_mutex_t processes_lock = PTHREAD_MUTEX_INITIALIZER;

/* The place that points to the process, so that it can be unlinked; NULL if there is none. Call with the lock held. */
static struct process **find(pid_t pid) {
    for (struct process **place = &processes; *place; place = &(*place)->next)
        if ((*place)->pid == pid)
            return place;
    return NULL;
}

static void forget(pid_t pid) {
    struct process **place = find(pid);
    if (!place)
        return;
    struct process *process = *place;
    *place = process->next;
    free(process);
}

static time_t seconds_to_wait(char *const argv[]) {
    for (size_t i = 0; argv[i] && argv[i + 1]; i++)
        if (strcmp(argv[i], "wait_timeout") == 0)
            return (time_t)strtoul(argv[i + 1], NULL, 10);
    return 0;
}

/* All signals but those that are faults of the program itself, which must never be blocked in a process that can enter
 * an enclave. */
static void block_signals(sigset_t *old) {
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGSYS);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_SETMASK, &all, old);
}

/* Makes the three descriptors 0, 1 and 2. They may be any of 0, 1 and 2 in another order, hence the copies. */
static bool take_stdio(const int stdio[3]) {
    int copies[3];
    for (int i = 0; i < 3; i++)
        if ((copies[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3)) < 0)
            return false;
    for (int i = 0; i < 3; i++)
        if (dup2(copies[i], i) < 0)
            return false;
    /* What else the caller has open, the other ends of pipes among it, must not live on in here. */
    close_range(3, ~0U, 0);
    return true;
}

/* The life of the child. Other threads of the parent may have held any lock, so only async-signal-safe functions. */
static _Noreturn void run_child(const int stdio[3], time_t seconds) {
    /* The caller handles and blocks signals for itself; the child dies of them. */
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &action, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    if (!take_stdio(stdio))
        _exit(EXIT_FAILURE);
    struct timespec left = {.tv_sec = seconds};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
    _exit(write(STDERR_FILENO, SUCCESS, sizeof SUCCESS - 1) == sizeof SUCCESS - 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

int process_create(char *const argv[], const struct pal_stdio_fds *stdio, int *pid) {
    const int descriptors[3] = {stdio->stdin, stdio->stdout, stdio->stderr};
    for (int i = 0; i < 3; i++) {
        if (fcntl(descriptors[i], F_GETFD) < 0) {
            int error = errno;
            complain("cannot create a process: its stdio descriptor %d is not open: %s", descriptors[i],
                     strerror(error));
            return -error;
        }
    }
    struct process *process = malloc(sizeof *process);
    if (!process)
        return -ENOMEM;
    time_t seconds = seconds_to_wait(argv);

    /* Nothing may be delivered to the child before its handlers are gone, and nobody may signal or wait for a process
     * that is not on the list yet. */
    sigset_t old;
    block_signals(&old);
    pthread_mutex_lock(&processes_lock);
    pid_t child = fork();
    if (child == 0)
        run_child(descriptors, seconds);
    int error = errno;
    if (child > 0) {
        process->pid = child;
        process->next = processes;
        processes = process;
    }
    pthread_mutex_unlock(&processes_lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (child < 0) {
        free(process);
        complain("cannot create a process: %s", strerror(error));
        return -error;
    }
    *pid = child;
    return 0;
}

int process_wait(int pid, int *exit_value) {
    pthread_mutex_lock(&processes_lock);
    bool known = find(pid) != NULL;
    pthread_mutex_unlock(&processes_lock);
    if (!known) {
        complain("cannot wait for process %d: there is none of that number", pid);
        return -ESRCH;
    }

    siginfo_t info;
    int result;
    while ((result = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT)) < 0 && errno == EINTR)
        ;
    int error = result < 0 ? errno : 0;
    pthread_mutex_lock(&processes_lock);
    int status = 0;
    if (!error && waitpid(pid, &status, 0) < 0)
        error = errno;
    forget(pid);
    pthread_mutex_unlock(&processes_lock);
    if (error) {
        complain("cannot wait for process %d: %s (it may have been waited for elsewhere)", pid, strerror(error));
        return -error;
    }
    *exit_value = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return 0;
}

int process_kill(int pid, int sig) {
    int error = 0;
    bool found = pid == PAL_KILL_ALL; /* all of none is no error */
    pthread_mutex_lock(&processes_lock);
    for (const struct process *process = processes; process; process = process->next) {
        if (pid != PAL_KILL_ALL && pid != process->pid)
            continue;
        found = true;
        if (kill(process->pid, sig) < 0)
            error = errno;
    }
    pthread_mutex_unlock(&processes_lock);
    if (!found)
        error = ESRCH;
    if (error)
        complain("cannot send signal %d to process %d: %s", sig, pid, strerror(error));
    return -error;
}
