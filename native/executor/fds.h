/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXECUTOR_FDS_H
#define EXECUTOR_FDS_H

/* Sends one fd with SCM_RIGHTS, its name as payload. Returns >= 0 or -errno. */
long send_fd(int socket, int fd, const char *name, long name_size);

#endif
