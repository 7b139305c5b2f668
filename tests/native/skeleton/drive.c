/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a PAL as rune's runelet does, for tests: drive EMULATOR PAL VERB...
 *
 * EMULATOR is the path of libsgxemu.so, initialised with a fixed seed, or - for none. Verbs are carried out in order,
 * and each writes one line `> verb result...` to stdout:
 *
 *   version | destroy           the call of that name
 *   init:ARGS                   pal_init with the blank-separated ARGS; pooled:ARGS claims to bring an enclave (v3)
 *   stdio:IN,OUT,ERR            descriptors for the processes created from now on
 *   run:ARGV                    pal_exec of version 1, ARGV blank-separated
 *   create:ARGV                 pal_create_process; the pid becomes the current one
 *   exec | exec:PID             pal_exec of the current or another pid
 *   kill:SIG | kill:SIG,PID     pal_kill of the current or another pid
 *   report | report:SIZE,ROOM   pal_get_local_report; writes the report in hexadecimal
 *   threads:N                   N threads at once, each create, then exec; writes how many got 0 and exit value 0
 *   reports:N                   N threads at once, each 20 reports; writes how many succeeded
 *   alarm:MS                    from now on a signal without SA_RESTART interrupts every MS ms
 *   ignore:SIG | block:SIG      the caller's own disposition and mask
 *   fds                         writes how many descriptors are open
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "pal.h"
#include "sgxemu.h"

enum { MAX_WORDS = 16, MAX_THREADS = 64, REPORTS_PER_THREAD = 20 };

static void *pal;
static struct pal_stdio_fds stdio = {0, 1, 2};
static int current;

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "drive: %s\n", dlerror());
        exit(99);
    }
    return found;
}

/* Splits text at blanks, in place. */
static void split(char *text, char *words[MAX_WORDS + 1]) {
    size_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(text, " ", &rest); word && count < MAX_WORDS; word = strtok_r(NULL, " ", &rest))
        words[count++] = word;
    words[count] = NULL;
}

static int init(const char *args, int fd) {
    struct pal_attr_v3 attr = {.args = args, .log_level = "info", .fd = fd};
    int (*pal_init)(struct pal_attr_v3 *) = (int (*)(struct pal_attr_v3 *))symbol(pal, "pal_init");
    return pal_init(&attr);
}

static int create(char *argv[], int *pid) {
    char *env[] = {NULL};
    struct pal_create_process_args args = {.path = argv[0], .argv = argv, .env = env, .stdio = &stdio, .pid = pid};
    int (*call)(struct pal_create_process_args *) =
        (int (*)(struct pal_create_process_args *))symbol(pal, "pal_create_process");
    return call(&args);
}

static int exec(int pid, int *exit_value) {
    struct pal_exec_args args = {.pid = pid, .exit_value = exit_value};
    int (*call)(struct pal_exec_args *) = (int (*)(struct pal_exec_args *))symbol(pal, "pal_exec");
    return call(&args);
}

static int get_report(int target_info_size, uint8_t *report, int *room) {
    uint8_t target_info[PAL_TARGET_INFO_SIZE] = {0};
    int (*call)(void *, int, void *, int *) = (int (*)(void *, int, void *, int *))symbol(pal, "pal_get_local_report");
    return call(target_info, target_info_size, report, room);
}

static void *one_process(void *unused) {
    (void)unused;
    char *argv[] = {"thread", NULL};
    int pid, exit_value = -1;
    return (void *)(long)(create(argv, &pid) == 0 && exec(pid, &exit_value) == 0 && exit_value == 0);
}

static void *some_reports(void *unused) {
    (void)unused;
    long succeeded = 0;
    for (int i = 0; i < REPORTS_PER_THREAD; i++) {
        uint8_t report[PAL_REPORT_SIZE];
        int room = sizeof report;
        succeeded += get_report(PAL_TARGET_INFO_SIZE, report, &room) == 0;
    }
    return (void *)succeeded;
}

static long in_threads(int count, void *(*work)(void *)) {
    pthread_t threads[MAX_THREADS];
    long succeeded = 0;
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < count; i++) {
        void *result;
        pthread_join(threads[i], &result);
        succeeded += (long)result;
    }
    return succeeded;
}

static int count_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count - 3; /* . and .. and the directory's own */
}

static void on_alarm(int sig) {
    (void)sig;
}

static void set_handler(int sig, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    const struct sgx_backend *(*emulator)(void) =
        (const struct sgx_backend *(*)(void))dlsym(RTLD_DEFAULT, "sgxemu_backend");
    if (emulator && emulator())
        emulator()->sigaction(sig, &action, NULL);
    else
        sigaction(sig, &action, NULL);
}

static void carry_out(const char *verb, char *rest) {
    int number = atoi(rest);
    if (strcmp(verb, "version") == 0) {
        int (*call)(void) = (int (*)(void))symbol(pal, "pal_get_version");
        printf("> version %d\n", call());
    } else if (strcmp(verb, "destroy") == 0) {
        int (*call)(void) = (int (*)(void))symbol(pal, "pal_destroy");
        printf("> destroy %d\n", call());
    } else if (strcmp(verb, "init") == 0) {
        printf("> init %d\n", init(rest, -1));
    } else if (strcmp(verb, "pooled") == 0) {
        printf("> pooled %d\n", init(rest, 0));
    } else if (strcmp(verb, "stdio") == 0) {
        sscanf(rest, "%d,%d,%d", &stdio.stdin, &stdio.stdout, &stdio.stderr);
        printf("> stdio\n");
    } else if (strcmp(verb, "run") == 0) {
        char *argv[MAX_WORDS + 1];
        split(rest, argv);
        int exit_code = -1;
        int (*call)(char *, char *[], struct pal_stdio_fds *, int *) =
            (int (*)(char *, char *[], struct pal_stdio_fds *, int *))symbol(pal, "pal_exec");
        int result = call(argv[0], argv, &stdio, &exit_code);
        printf("> run %d %d\n", result, exit_code);
    } else if (strcmp(verb, "create") == 0) {
        char *argv[MAX_WORDS + 1];
        split(rest, argv);
        printf("> create %d\n", create(argv, &current));
    } else if (strcmp(verb, "exec") == 0) {
        int exit_value = -1;
        int result = exec(*rest ? number : current, &exit_value);
        printf("> exec %d %d\n", result, exit_value);
    } else if (strcmp(verb, "kill") == 0) {
        const char *pid = strchr(rest, ',');
        int (*call)(int, int) = (int (*)(int, int))symbol(pal, "pal_kill");
        printf("> kill %d\n", call(pid ? atoi(pid + 1) : current, number));
    } else if (strcmp(verb, "report") == 0) {
        int size = PAL_TARGET_INFO_SIZE, room = PAL_REPORT_SIZE;
        sscanf(rest, "%d,%d", &size, &room);
        uint8_t report[PAL_REPORT_SIZE];
        int result = get_report(size, report, &room);
        printf("> report %d %d ", result, room);
        for (int i = 0; result == 0 && i < room; i++)
            printf("%02x", report[i]);
        printf("\n");
    } else if (strcmp(verb, "threads") == 0) {
        printf("> threads %ld\n", in_threads(number, one_process));
    } else if (strcmp(verb, "reports") == 0) {
        printf("> reports %ld\n", in_threads(number, some_reports));
    } else if (strcmp(verb, "alarm") == 0) {
        set_handler(SIGALRM, on_alarm);
        struct itimerval timer = {.it_interval.tv_usec = number * 1000, .it_value.tv_usec = number * 1000};
        setitimer(ITIMER_REAL, &timer, NULL);
        printf("> alarm\n");
    } else if (strcmp(verb, "ignore") == 0) {
        set_handler(number, SIG_IGN);
        printf("> ignore\n");
    } else if (strcmp(verb, "block") == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, number);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        printf("> block\n");
    } else if (strcmp(verb, "fds") == 0) {
        printf("> fds %d\n", count_descriptors());
    } else {
        fprintf(stderr, "drive: unknown verb %s\n", verb);
        exit(99);
    }
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 99;
    setvbuf(stdout, NULL, _IONBF, 0); /* in order with what the PAL writes */
    if (strcmp(argv[1], "-") != 0) {
        void *emulator = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
        if (!emulator) {
            fprintf(stderr, "drive: %s\n", dlerror());
            return 99;
        }
        uint8_t seed[SGXEMU_SEED_SIZE];
        memset(seed, 0x5e, sizeof seed);
        int (*start)(const uint8_t *) = (int (*)(const uint8_t *))symbol(emulator, "sgxemu_init");
        int result = start(seed);
        if (result < 0) {
            fprintf(stderr, "drive: sgxemu_init: %s\n", strerror(-result));
            return 99;
        }
    }
    pal = dlopen(argv[2], RTLD_NOW);
    if (!pal) {
        fprintf(stderr, "drive: %s\n", dlerror());
        return 99;
    }
    for (int i = 3; i < argc; i++) {
        char *rest = strchr(argv[i], ':');
        if (rest)
            *rest++ = 0;
        carry_out(argv[i], rest ? rest : "");
    }
    return 0;
}
