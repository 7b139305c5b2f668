/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PAL that hosts nothing and records everything: each call becomes a line of JSON in the file whose fd the variable
 * RECORD names, or in the file RECORD_PATH. Strings are written as the hexadecimal of their bytes.
 *
 * PAL_VERSION chooses the prototypes, SAYS_VERSION what pal_get_version returns, WITHOUT_... leaves a symbol out. What
 * a call does is told by enclave.runtime.args ("crash", "result=-22", see behave) and by the program's arguments (see
 * live).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pal.h"

#ifndef SAYS_VERSION
#define SAYS_VERSION PAL_VERSION
#endif

enum { PROCESSES = 64, FIRST_PID = 1000 };

struct process {
    char **argv;
    struct pal_stdio_fds stdio;
    int killed_by;
};

static char *options; /* a copy of the runtime's arguments */
static struct process processes[PROCESSES];
static int process_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t killed = PTHREAD_COND_INITIALIZER;

/* --- recording ---------------------------------------------------------------------------------------------------- */

struct line {
    char *text;
    size_t size;
    FILE *file;
};

static void add_hex(struct line *line, const char *name, const char *text) {
    fprintf(line->file, ", \"%s\": ", name);
    if (!text) {
        fputs("null", line->file);
        return;
    }
    fputc('"', line->file);
    for (; *text; text++)
        fprintf(line->file, "%02x", (unsigned char)*text);
    fputc('"', line->file);
}

static void add_words(struct line *line, const char *name, char **words) {
    fprintf(line->file, ", \"%s\": [", name);
    for (char **word = words; *word; word++) {
        fputs(word == words ? "\"" : ", \"", line->file);
        for (const char *at = *word; *at; at++)
            fprintf(line->file, "%02x", (unsigned char)*at);
        fputc('"', line->file);
    }
    fputc(']', line->file);
}

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vfprintf(line->file, format, list);
    va_end(list);
}

static void begin(struct line *line, const char *call) {
    line->file = open_memstream(&line->text, &line->size);
    char cwd[4096] = "", name[17] = "";
    struct stat root;
    prctl(PR_GET_NAME, name);
    stat("/", &root);
    if (!getcwd(cwd, sizeof cwd))
        cwd[0] = 0;
    add(line, "{\"call\": \"%s\", \"pid\": %d, \"uid\": %d, \"root\": %lu", call, getpid(), geteuid(), root.st_ino);
    add_hex(line, "cwd", cwd);
    add_hex(line, "name", name);
}

static void end(struct line *line) {
    add(line, "}\n");
    fclose(line->file);
    const char *record = getenv("RECORD");
    const char *path = getenv("RECORD_PATH");
    int fd = record ? atoi(record) : path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd >= 0 && write(fd, line->text, line->size) != (ssize_t)line->size)
        abort();
    if (!record && fd >= 0)
        close(fd);
    free(line->text);
}

/* --- behaviour ---------------------------------------------------------------------------------------------------- */

/* The number behind `name` (such as "result=") in the options, or `otherwise`. */
static int option(const char *name, int otherwise) {
    const char *found = options ? strstr(options, name) : NULL;
    return found ? (int)strtol(found + strlen(name), NULL, 0) : otherwise;
}

static bool has_option(const char *name) {
    return options && strstr(options, name);
}

static int behave(const char *args) {
    free(options);
    options = strdup(args);
    if (has_option("crash"))
        *(volatile int *)8 = 0;
    if (has_option("abort"))
        abort();
    if (has_option("hang"))
        for (;;)
            pause();
    if (has_option("print"))
        printf("printed\n");
    if (option("exit=", -1) >= 0)
        exit(option("exit=", 0));
    errno = option("errno=", errno);
    return option("result=", 0);
}

static int copy(int in, int out) {
    char buffer[4096];
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, (size_t)got) != got)
            return 1;
    return got < 0;
}

/* The blocked signals of a child, on stdout. */
static int tell_mask_of_child(int out) {
    pid_t child = fork();
    if (child == 0) {
        sigset_t mask;
        sigprocmask(SIG_BLOCK, NULL, &mask);
        for (int sig = 1; sig <= 64; sig++)
            if (sigismember(&mask, sig) == 1)
                dprintf(out, "%d ", sig);
        _exit(0);
    }
    int status;
    return waitpid(child, &status, 0) == child ? WEXITSTATUS(status) : 1;
}

static int wait_for_kill(struct process *process) {
    pthread_mutex_lock(&lock);
    while (!process->killed_by)
        pthread_cond_wait(&killed, &lock);
    pthread_mutex_unlock(&lock);
    return 128 + process->killed_by;
}

/* The life of a program: argv[1] says what it does. Gives the exit value. */
static int live(struct process *process) {
    char **argv = process->argv;
    const char *verb = argv[0] && argv[1] ? argv[1] : "";
    const char *word = *verb && argv[2] ? argv[2] : "";
    if (strcmp(verb, "exit") == 0)
        return (int)strtol(word, NULL, 0);
    if (strcmp(verb, "cat") == 0)
        return copy(process->stdio.stdin, process->stdio.stdout);
    if (strcmp(verb, "say") == 0)
        return dprintf(process->stdio.stdout, "out %s", word) < 0 || dprintf(process->stdio.stderr, "err %s", word) < 0;
    if (strcmp(verb, "lock") == 0) /* as one does who prints to a full pipe */
        flockfile(stdout);
    if (strcmp(verb, "wait") == 0 || strcmp(verb, "lock") == 0) {
        dprintf(process->stdio.stdout, "waiting\n");
        return wait_for_kill(process);
    }
    if (strcmp(verb, "mask") == 0)
        return tell_mask_of_child(process->stdio.stdout);
    return 0;
}

/* What a call shall return, if the program's arguments say so: "create=-2", "exec=-2". */
static int result_of(char **argv, const char *name) {
    for (char **word = argv; *word; word++)
        if (strncmp(*word, name, strlen(name)) == 0) {
            errno = argv[1] && word[1] ? atoi(word[1]) : 0;
            return atoi(*word + strlen(name));
        }
    return 0;
}

static char **copy_words(char **words) {
    size_t count = 0;
    while (words[count])
        count++;
    char **copies = calloc(count + 1, sizeof *copies);
    for (size_t i = 0; i < count; i++)
        copies[i] = strdup(words[i]);
    return copies;
}

static struct process *begin_process(char **argv, const struct pal_stdio_fds *stdio) {
    pthread_mutex_lock(&lock);
    struct process *process = &processes[process_count++];
    pthread_mutex_unlock(&lock);
    *process = (struct process){.argv = copy_words(argv), .stdio = *stdio};
    return process;
}

static void record_process(const char *call, const char *path, char **argv, char **env,
                           const struct pal_stdio_fds *fds) {
    struct line line;
    begin(&line, call);
    add_hex(&line, "path", path);
    add_words(&line, "argv", argv);
    if (env)
        add_words(&line, "env", env);
    add(&line, ", \"stdio\": [%d, %d, %d]", fds->stdin, fds->stdout, fds->stderr);
    end(&line);
}

static void record_init(const char *args, const char *log_level, int fd, uint64_t addr) {
    struct line line;
    begin(&line, "init");
    add_hex(&line, "args", args);
    add_hex(&line, "log_level", log_level);
    add(&line, ", \"fd\": %d, \"addr\": %lu", fd, addr);
    end(&line);
}

/* --- the API ------------------------------------------------------------------------------------------------------ */

#ifdef THREAD_IN_CONSTRUCTOR
static void *sleep_for_ever(void *unused) {
    while (pause())
        ;
    return unused;
}
#endif

__attribute__((constructor)) static void load(void) {
    extern char **environ;
    struct line line;
    begin(&line, "load");
    add_words(&line, "env", environ);
    end(&line);
#ifdef THREAD_IN_CONSTRUCTOR
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_for_ever, NULL);
#endif
}

#ifndef WITHOUT_GET_VERSION
int pal_get_version(void) {
    struct line line;
    begin(&line, "get_version");
    end(&line);
    return SAYS_VERSION;
}
#endif

#ifndef WITHOUT_INIT
#if PAL_VERSION == 3
int pal_init(struct pal_attr_v3 *attr) {
    record_init(attr->args, attr->log_level, attr->fd, attr->addr);
    return behave(attr->args);
}
#else
int pal_init(const struct pal_attr_v1 *attr) {
    record_init(attr->args, attr->log_level, -1, 0);
    return behave(attr->args);
}
#endif
#endif

#if PAL_VERSION == 1
#ifndef WITHOUT_EXEC
int pal_exec(char *path, char *argv[], struct pal_stdio_fds *stdio, int *exit_code) {
    record_process("exec", path, argv, NULL, stdio);
    int result = result_of(argv, "exec=");
    if (result >= 0)
        *exit_code = live(begin_process(argv, stdio));
    return result;
}
#endif
#else
#ifndef WITHOUT_CREATE_PROCESS
int pal_create_process(struct pal_create_process_args *args) {
    record_process("create_process", args->path, args->argv, args->env, args->stdio);
    struct process *process = begin_process(args->argv, args->stdio);
    *args->pid = FIRST_PID + (int)(process - processes);
    return result_of(args->argv, "create=");
}
#endif

#ifndef WITHOUT_EXEC
int pal_exec(struct pal_exec_args *args) {
    struct process *process = &processes[args->pid - FIRST_PID];
    struct line line;
    begin(&line, "exec");
    add(&line, ", \"of\": %d", args->pid);
    end(&line);
    *args->exit_value = live(process);
    return result_of(process->argv, "exec=");
}
#endif

#ifndef WITHOUT_KILL
int pal_kill(int pid, int sig) {
    struct line line;
    begin(&line, "kill");
    add(&line, ", \"of\": %d, \"sig\": %d", pid, sig);
    end(&line);
    if (has_option("kill="))
        return option("kill=", 0);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < process_count; i++)
        if (pid == PAL_KILL_ALL || pid == FIRST_PID + i)
            processes[i].killed_by = sig;
    pthread_cond_broadcast(&killed);
    pthread_mutex_unlock(&lock);
    return 0;
}
#endif
#endif

#if PAL_VERSION == 3 && !defined(WITHOUT_GET_LOCAL_REPORT)
int pal_get_local_report(void *target_info, int target_info_len, void *report, int *report_len) {
    struct line line;
    begin(&line, "get_local_report");
    add(&line, ", \"sizes\": [%d, %d], \"aligned\": %d", target_info_len, *report_len,
        ((uintptr_t)target_info | (uintptr_t)report) % 512 == 0);
    end(&line);
    *report_len = option("report_len=", *report_len);
    memcpy(report, target_info, PAL_REPORT_SIZE);
    return option("report=", 0);
}
#endif

#ifndef WITHOUT_DESTROY
int pal_destroy(void) {
    struct line line;
    begin(&line, "destroy");
    end(&line);
    return option("destroy=", 0);
}
#endif
