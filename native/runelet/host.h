/* SPDX-License-Identifier: Apache-2.0 */
/* Hosting a PAL: a library that exports the API of pal.h, in one of its three versions. */
#ifndef RUNELET_HOST_H
#define RUNELET_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "pal.h"
#include "plan.h"

/* A failure's sentence: what was called, what it returned. */
struct sentence {
    char text[1024];
};

struct host {
    void *library;
    const char *path;
    int version;
    bool wait_status; /* exit values are those of wait(2) */
    bool over;        /* pal_destroy has been called */
    pthread_mutex_t kill_lock;
    union {
        int (*v1)(const struct pal_attr_v1 *);
        int (*v3)(struct pal_attr_v3 *);
    } init;
    int (*create_process)(struct pal_create_process_args *);
    union {
        int (*v1)(char *, char **, struct pal_stdio_fds *, int *);
        int (*v2)(struct pal_exec_args *);
    } exec;
    int (*kill)(int, int); /* NULL where the runtime has none */
    int (*destroy)(void);
    int (*get_local_report)(void *, int, void *, int *);
};

/* Each returns 0, or -errno with the sentence filled in. What the runtime itself returned is in the sentence only, and
 * the result is then -EIO: its numbers are not the kernel's answers to rune. */
int host_load(struct host *host, const struct plan_pal *pal, struct sentence *why);
int host_init(struct host *host, const struct plan_pal *pal, struct sentence *why);

/* Runs a program to its end and gives the exit code, 0 to 255. `started` may be NULL; it is called with the runtime's
 * pid once there is one (never for version 1). Returns 0, or -errno with the sentence filled in. */
int host_run(struct host *host, char *path, char **argv, char **env, struct pal_stdio_fds *stdio,
             void (*started)(void *, int pid), void *context, int *code, struct sentence *why);

/* Returns 0, -ENOSYS where the runtime cannot, or its own failure. Does nothing once host_destroy was called. */
int host_kill(struct host *host, int pid, int sig);

/* No call but this one may be under way that needs what pal_init made; a pal_kill is waited for. */
int host_destroy(struct host *host, struct sentence *why);

/* A report of the enclave for target_info (PAL_TARGET_INFO_SIZE bytes, and PAL_REPORT_DATA_SIZE of report data behind
 * them if size says so) into report (PAL_REPORT_SIZE bytes). */
int host_report(struct host *host, void *target_info, int size, void *report, struct sentence *why);

#endif
