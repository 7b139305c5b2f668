/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static void say(struct sentence *why, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(why->text, sizeof why->text, format, list);
    va_end(list);
}

/* "CALL returned N (NAME: words)" for a result that may be a negative errno. Some runtimes return -1 and set errno,
 * which the caller has cleared before. */
static int refuse(struct sentence *why, const char *call, int result) {
    bool by_errno = result == -1 && errno;
    int number = by_errno ? errno : result < 0 && result > -4096 ? -result : 0;
    const char *name = number ? strerrorname_np(number) : NULL;
    if (name)
        say(why, "%s returned %d (%s%s: %s)", call, result, by_errno ? "errno is " : "", name, strerrordesc_np(number));
    else
        say(why, "%s returned %d", call, result);
    return -EIO;
}

/* What a runtime printed must come before what follows. Another thread of it may sit in a blocked print for ever, so
 * fflush, which waits for it, would not do. */
static void flush_stdout(void) {
    if (ftrylockfile(stdout) == 0) {
        fflush_unlocked(stdout);
        funlockfile(stdout);
    }
}

int host_load(struct host *host, const struct plan_pal *pal, struct sentence *why) {
    pthread_mutex_init(&host->kill_lock, NULL);
    host->path = pal->path;
    host->wait_status = pal->flags & PLAN_PAL_WAIT_STATUS;
    host->library = dlopen(pal->path, RTLD_NOW);
    if (host->library)
        return 0;
    say(why, "failed to load %s, dlerror: %s", pal->path, dlerror());
    return -ELIBACC;
}

static int read_version(struct host *host, struct sentence *why) {
    int (*get_version)(void) = (int (*)(void))dlsym(host->library, "pal_get_version");
    host->version = get_version ? get_version() : 1;
    if (host->version >= 1 && host->version <= 3)
        return 0;
    say(why, "unsupported pal api version %d of %s: versions 1, 2 and 3 are supported", host->version, host->path);
    return -EPROTONOSUPPORT;
}

/* Looks a required symbol up; remembers the first that is missing. */
static void *need(struct host *host, const char *symbol, const char **missing) {
    void *found = dlsym(host->library, symbol);
    if (!found && !*missing)
        *missing = symbol;
    return found;
}

static int find_symbols(struct host *host, struct sentence *why) {
    const char *missing = NULL;
    void *init = need(host, "pal_init", &missing);
    void *exec = need(host, "pal_exec", &missing);
    if (host->version == 1) {
        host->init.v1 = (int (*)(const struct pal_attr_v1 *))init;
        host->exec.v1 = (int (*)(char *, char **, struct pal_stdio_fds *, int *))exec;
    } else {
        if (host->version == 2)
            host->init.v1 = (int (*)(const struct pal_attr_v1 *))init;
        else
            host->init.v3 = (int (*)(struct pal_attr_v3 *))init;
        host->exec.v2 = (int (*)(struct pal_exec_args *))exec;
        host->create_process = (int (*)(struct pal_create_process_args *))need(host, "pal_create_process", &missing);
        host->kill = (int (*)(int, int))dlsym(host->library, "pal_kill");
    }
    if (host->version == 3)
        host->get_local_report = (int (*)(void *, int, void *, int *))dlsym(host->library, "pal_get_local_report");
    host->destroy = (int (*)(void))need(host, "pal_destroy", &missing);
    if (!missing)
        return 0;
    say(why, "%s says it has pal api version %d but does not export %s, which that version requires", host->path,
        host->version, missing);
    return -ELIBBAD;
}

int host_init(struct host *host, const struct plan_pal *pal, struct sentence *why) {
    int result = read_version(host, why);
    if (result == 0)
        result = find_symbols(host, why);
    if (result < 0)
        return result;
    errno = 0;
    if (host->version == 3) {
        struct pal_attr_v3 attr = {.args = pal->args, .log_level = pal->log_level, .fd = -1, .addr = 0};
        result = host->init.v3(&attr);
    } else {
        struct pal_attr_v1 attr = {.args = pal->args, .log_level = pal->log_level};
        result = host->init.v1(&attr);
    }
    if (result < 0)
        return refuse(why, "pal_init", result);
    flush_stdout();
    return 0;
}

static int exit_code(const struct host *host, int value) {
    if (!host->wait_status)
        return value & 0xff;
    int sig = value & 0x7f;
    return sig ? 128 + sig : (value >> 8) & 0xff;
}

int host_run(struct host *host, char *path, char **argv, char **env, struct pal_stdio_fds *stdio,
             void (*started)(void *, int pid), void *context, int *code, struct sentence *why) {
    int value = 0;
    errno = 0;
    if (host->version == 1) {
        int result = host->exec.v1(path, argv, stdio, &value);
        if (result < 0)
            return refuse(why, "pal_exec", result);
        *code = exit_code(host, value);
        return 0;
    }
    int pid = 0;
    struct pal_create_process_args process = {.path = path, .argv = argv, .env = env, .stdio = stdio, .pid = &pid};
    int result = host->create_process(&process);
    if (result < 0)
        return refuse(why, "pal_create_process", result);
    if (started)
        started(context, pid);
    struct pal_exec_args exec = {.pid = pid, .exit_value = &value};
    errno = 0;
    result = host->exec.v2(&exec);
    if (result < 0)
        return refuse(why, "pal_exec", result);
    *code = exit_code(host, value);
    return 0;
}

int host_kill(struct host *host, int pid, int sig) {
    pthread_mutex_lock(&host->kill_lock);
    int result = host->over ? 0 : host->kill ? host->kill(pid, sig) : -ENOSYS;
    pthread_mutex_unlock(&host->kill_lock);
    return result;
}

int host_destroy(struct host *host, struct sentence *why) {
    pthread_mutex_lock(&host->kill_lock);
    host->over = true;
    pthread_mutex_unlock(&host->kill_lock);
    errno = 0;
    int result = host->destroy();
    flush_stdout();
    return result < 0 ? refuse(why, "pal_destroy", result) : 0;
}

int host_report(struct host *host, void *target_info, int target_info_size, void *report, struct sentence *why) {
    if (!host->get_local_report) {
        say(why, "%s has pal api version %d and no pal_get_local_report: it cannot attest", host->path, host->version);
        return -ENOSYS;
    }
    int size = PAL_REPORT_SIZE;
    errno = 0;
    int result = host->get_local_report(target_info, target_info_size, report, &size);
    if (result)
        return refuse(why, "pal_get_local_report", result);
    if (size == PAL_REPORT_SIZE)
        return 0;
    say(why, "pal_get_local_report gave a report of %d bytes, not %d", size, PAL_REPORT_SIZE);
    return -EPROTO;
}
