/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The enclave runtime PAL API, versions 1, 2 and 3: the only place where its layouts are written.
 *
 * An enclave runtime is a shared library (by convention liberpal-NAME.so) that exports these functions. rune's
 * runelet loads it while the host's files are visible (a constructor sees the host), then calls it inside the
 * container, with the container's root, working directory, credentials and seccomp profile.
 *
 * Layout is the natural alignment of x86-64. argv and env are NULL-terminated arrays; argv[0] is the program's name.
 * A negative result is a failure; runtimes should return -errno, which rune then names in its message.
 *
 * Version 1 exports pal_init, pal_exec (four arguments) and pal_destroy; a library without pal_get_version is
 * version 1. Versions 2 and 3 replace pal_exec by pal_create_process and pal_exec(args), and may export pal_kill.
 * Version 3 extends the attributes of pal_init and adds pal_get_local_report.
 *
 * Define PAL_VERSION as 1, 2 or 3 before including this file to get that version's prototypes.
 */
#ifndef PAL_H
#define PAL_H

#include <stdint.h>

struct pal_attr_v1 {
    const char *args;      /* blank-separated options, never NULL */
    const char *log_level; /* trace debug info warning error fatal panic off */
};

struct pal_attr_v3 {
    const char *args;
    const char *log_level;
    int fd;        /* an open enclave device with an initialised enclave, or -1 */
    uint64_t addr; /* where that enclave is mapped, or 0 */
};

struct pal_stdio_fds {
    int stdin;
    int stdout;
    int stderr;
};

struct pal_create_process_args {
    char *path;
    char **argv;
    char **env;
    struct pal_stdio_fds *stdio;
    int *pid; /* out: names the new process to pal_exec and pal_kill */
};

struct pal_exec_args {
    int pid;
    int *exit_value; /* out */
};

enum {
    PAL_TARGET_INFO_SIZE = 512,
    PAL_REPORT_SIZE = 432,
    PAL_REPORT_DATA_SIZE = 64,
    PAL_KILL_ALL = -1, /* pid of pal_kill: every process of the enclave */
};

#ifdef PAL_VERSION
#ifdef __cplusplus
extern "C" {
#endif
int pal_get_version(void);
int pal_destroy(void);
#if PAL_VERSION == 1
int pal_init(const struct pal_attr_v1 *attr);
int pal_exec(char *path, char *argv[], struct pal_stdio_fds *stdio, int *exit_code);
#else
#if PAL_VERSION == 2
int pal_init(const struct pal_attr_v1 *attr);
#elif PAL_VERSION == 3
int pal_init(struct pal_attr_v3 *attr);
/* target_info_len may be 512 + 64: then what the report says (REPORTDATA) stands behind the target info. A runtime that
 * cannot bind data refuses that length, as those do that were built before there was report data. */
int pal_get_local_report(void *target_info, int target_info_len, void *report, int *report_len);
#else
#error "PAL_VERSION must be 1, 2 or 3"
#endif
int pal_create_process(struct pal_create_process_args *args);
int pal_exec(struct pal_exec_args *args);
int pal_kill(int pid, int sig);
#endif
#ifdef __cplusplus
}
#endif
#endif /* PAL_VERSION */

#endif
