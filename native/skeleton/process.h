/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that stand for what runs in the enclave: created, waited for and signalled from any thread.
 *
 * Functions return 0 or -errno, and have said on stderr why they failed.
 */
#ifndef SKELETON_PROCESS_H
#define SKELETON_PROCESS_H

#include "pal.h"

/*
 * Forks a process with the given stdio, which stay open in the caller. It sleeps for N seconds if argv has
 * `wait_timeout N`, says on its stderr that the skeleton works, and ends with 0.
 */
int process_create(char *const argv[], const struct pal_stdio_fds *stdio, int *pid);

/* Waits for the process's end. *exit_value: its exit code, or 128 and the signal that ended it. */
int process_wait(int pid, int *exit_value);

/* Sends sig to one process, or to all that have not been waited for yet with PAL_KILL_ALL. */
int process_kill(int pid, int sig);

#endif
