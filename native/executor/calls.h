/* SPDX-License-Identifier: Apache-2.0 */
/* The plan's calls that take more than one system call; plan.h says what each does. All return >= 0 or -errno. */
#ifndef EXECUTOR_CALLS_H
#define EXECUTOR_CALLS_H

#include <stdint.h>

long call_mkdirs(const char *path, uint32_t mode);
long call_mkfile(const char *path, uint32_t mode);
long call_mask(const char *path, int fd, const char *options);
long call_read_only(const char *path);
long call_check_fs(const char *path, uint64_t magic);
long call_device(const char *path, uint32_t mode, uint64_t device, uint32_t uid, uint32_t gid);
long call_tmpfs(const char *source, const char *path, uint64_t flags, const char *data, uint64_t how);
long call_write_file(const char *path, const char *bytes, uint64_t size);
long call_bounding_set(uint64_t mask, int last);
long call_check_cwd(void);
long call_home(uint32_t uid, uint64_t *word, char *buffer, uint64_t size);
long call_look_up(const char *file, const char *path_list, char *buffer, uint64_t size);
long call_console(int socket, uint32_t window, uint32_t uid, uint32_t flags);
long call_wait_fifo(int fd);
long call_runelet(int fd, int plan_fd, uint32_t next_op);
/* Copies what is in one directory to another, at most `depth` directories deep. */
long copy_content(long from, long to, int depth);
/* Returns the exit status. */
long call_agent_exec(int socket, const char *request, uint64_t size);

/* Writes text to stderr. */
void call_say(const char *text);

#endif
