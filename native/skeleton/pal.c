/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference enclave runtime: the PAL API (pal.h) on top of the smallest enclave. Compiled once for each version of
 * the API, with PAL_VERSION.
 *
 * pal_init builds the enclave from encl.bin and encl.ss in the working directory and prints the greeting that comes out
 * of it. A process is a fork that says so on its stderr: the skeleton shows how a runtime is driven, and leaves running
 * programs inside of the enclave to real ones.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pal.h"
#include "complain.h"
#include "enclave.h"
#include "process.h"

static struct enclave enclave = {.fd = -1, .busy = PTHREAD_MUTEX_INITIALIZER};
static bool initialized;
static bool debug;

/* Reads the blank-separated options. What is unknown is left to who knows it, so it is ignored. */
static int read_options(const char *args) {
    char *copy = strdup(args ? args : "");
    if (!copy)
        return -ENOMEM;
    int result = 0;
    char *rest = NULL;
    for (char *option = strtok_r(copy, " ", &rest); option; option = strtok_r(NULL, " ", &rest)) {
        if (strcmp(option, "debug") == 0)
            debug = true;
        if (strcmp(option, "backend-kvm") == 0) {
            complain("the skeleton hosts an enclave only: there is no backend-kvm");
            result = -ENOSYS;
        }
    }
    free(copy);
    return result;
}

static int check_initialized(void) {
    if (initialized)
        return 0;
    complain("Enclave runtime skeleton uninitialized yet!");
    return -ENOENT;
}

static int initialize(const char *args) {
    if (initialized) {
        complain("cannot initialise the skeleton: it has been already");
        return -EEXIST;
    }
    debug = false;
    int result = read_options(args);
    if (result == 0)
        result = enclave_load(&enclave, debug);
    if (result < 0)
        return result;
    char greeting[64];
    result = enclave_greet(&enclave, greeting, sizeof greeting);
    if (result < 0) {
        enclave_unload(&enclave);
        return result;
    }
    dprintf(STDOUT_FILENO, "%s\n", greeting);
    initialized = true;
    return 0;
}

int pal_get_version(void) {
    return PAL_VERSION;
}

#if PAL_VERSION == 3
int pal_init(struct pal_attr_v3 *attr) {
    if (!attr)
        return -EINVAL;
    if (attr->fd != -1 || attr->addr != 0) {
        complain("cannot use the enclave that is mapped at %#lx: the skeleton builds its own", attr->addr);
        return -ENOSYS;
    }
    return initialize(attr->args);
}
#else
int pal_init(const struct pal_attr_v1 *attr) {
    return attr ? initialize(attr->args) : -EINVAL;
}
#endif

#if PAL_VERSION == 1
int pal_exec(char *path, char *argv[], struct pal_stdio_fds *stdio, int *exit_code) {
    if (!path || !argv || !stdio || !exit_code)
        return -EINVAL;
    int pid;
    int result = check_initialized();
    if (result == 0)
        result = process_create(argv, stdio, &pid);
    return result < 0 ? result : process_wait(pid, exit_code);
}
#else
int pal_create_process(struct pal_create_process_args *args) {
    if (!args || !args->path || !args->argv || !args->stdio || !args->pid)
        return -EINVAL;
    int result = check_initialized();
    return result < 0 ? result : process_create(args->argv, args->stdio, args->pid);
}

int pal_exec(struct pal_exec_args *args) {
    if (!args || !args->exit_value)
        return -EINVAL;
    int result = check_initialized();
    return result < 0 ? result : process_wait(args->pid, args->exit_value);
}

int pal_kill(int pid, int sig) {
    int result = check_initialized();
    return result < 0 ? result : process_kill(pid, sig);
}
#endif

#if PAL_VERSION == 3
int pal_get_local_report(void *target_info, int target_info_len, void *report, int *report_len) {
    if (!target_info || !report || !report_len)
        return -EINVAL;
    const void *data = NULL;
    if (target_info_len == PAL_TARGET_INFO_SIZE + PAL_REPORT_DATA_SIZE)
        data = (const char *)target_info + PAL_TARGET_INFO_SIZE;
    if ((!data && target_info_len != PAL_TARGET_INFO_SIZE) || *report_len < PAL_REPORT_SIZE) {
        complain("cannot make a report: target info has %d bytes (%d with report data) and a report %d, found %d and "
                 "room for %d",
                 PAL_TARGET_INFO_SIZE, PAL_TARGET_INFO_SIZE + PAL_REPORT_DATA_SIZE, PAL_REPORT_SIZE, target_info_len,
                 *report_len);
        return -EINVAL;
    }
    int result = check_initialized();
    if (result == 0)
        result = enclave_report(&enclave, target_info, data, report);
    if (result < 0)
        return result;
    *report_len = PAL_REPORT_SIZE;
    if (debug)
        dprintf(STDOUT_FILENO, "succeed to get local report\n");
    return 0;
}
#endif

int pal_destroy(void) {
    if (!initialized)
        return 0;
    initialized = false;
    enclave_unload(&enclave);
    return 0;
}
