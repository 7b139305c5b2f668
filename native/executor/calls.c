/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

#include <asm/ioctls.h>
#include <asm/statfs.h>
#include <asm/termios.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/stat.h>
#include <stddef.h>

#include "fds.h"
#include "plan.h"
#include "sys.h"

#define PATH_MAX 4096
/* linux/stat.h has these only where there is no libc */
#define FILE_TYPE 0170000
#define FILE_DIRECTORY 0040000
#define FILE_REGULAR 0100000
#define FILE_CHARACTER 0020000
#define O_PATH_DIRECTORY (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define COPY_DEPTH 128
#define PASSWD_MAX (1 << 20) /* an image's /etc/passwd is read no further */

static long length(const char *text) {
    long n = 0;
    while (text[n])
        n++;
    return n;
}

/* Copies size bytes and a NUL to out; returns the end. */
static char *append(char *out, const char *text, long size) {
    for (long i = 0; i < size; i++)
        *out++ = text[i];
    *out = 0;
    return out;
}

static long open_at(const char *path, int flags, uint32_t mode) {
    return sys4(__NR_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

void call_say(const char *text) {
    sys3(__NR_write, 2, text, length(text));
}

/* Opens a place in the container as O_PATH. Links like /proc/self/fd/7 could lead out of it (CVE-2024-21626). */
static long open_place(const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = resolve};
    return sys4(__NR_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* A mount point in proc would let an image choose what later reads and writes of it meet (CVE-2019-16884). */
static long outside_proc(long fd) {
    struct statfs fs;
    long done = sys2(__NR_fstatfs, fd, &fs);
    return done < 0 ? done : fs.f_type == PROC_SUPER_MAGIC ? -EXDEV : 0;
}

static long is_directory(const char *path, uint32_t mode) {
    long fd = open_place(path, O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return fd;
    long done = mode & PLAN_OUTSIDE_PROC ? outside_proc(fd) : 0;
    sys1(__NR_close, fd);
    return done;
}

/* Makes the first `end` bytes of path and what leads there. */
static long make_parents(const char *path, long end, uint32_t mode) {
    char part[PATH_MAX];
    if (end >= PATH_MAX)
        return -ENAMETOOLONG;
    for (long i = 1; i <= end; i++) {
        if (i < end && path[i] != '/')
            continue;
        append(part, path, i);
        long made = sys3(__NR_mkdirat, AT_FDCWD, part, mode & PLAN_MODE);
        if (made == -EEXIST)
            made = is_directory(part, 0);
        if (made < 0)
            return made;
    }
    append(part, path, end);
    return is_directory(part, mode);
}

long call_mkdirs(const char *path, uint32_t mode) {
    long there = is_directory(path, mode);
    return there == -ENOENT ? make_parents(path, length(path), mode) : there;
}

static long is_file(const char *path, uint32_t mode) {
    long fd = open_place(path, 0, RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return fd;
    struct statx st;
    long done = sys5(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
    if (done >= 0)
        done = (st.stx_mode & FILE_TYPE) == FILE_DIRECTORY ? -EISDIR : mode & PLAN_OUTSIDE_PROC ? outside_proc(fd) : 0;
    sys1(__NR_close, fd);
    return done;
}

long call_mkfile(const char *path, uint32_t mode) {
    long there = is_file(path, mode);
    if (there != -ENOENT)
        return there;
    long slash = length(path);
    while (slash > 0 && path[slash] != '/')
        slash--;
    long made = slash > 0 ? make_parents(path, slash, 0755) : 0;
    if (made < 0)
        return made;
    long fd = open_at(path, O_CREAT | O_RDONLY | O_NONBLOCK | O_NOCTTY, mode & PLAN_MODE);
    if (fd < 0)
        return fd;
    sys1(__NR_close, fd);
    return is_file(path, mode);
}

long call_check_fs(const char *path, uint64_t magic) {
    long fd = open_place(path, O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return fd;
    struct statfs fs;
    long done = sys2(__NR_fstatfs, fd, &fs);
    sys1(__NR_close, fd);
    return done < 0 ? done : (uint64_t)fs.f_type == magic ? 0 : -EXDEV;
}

/* What an image has at path gives way if it is the same device; one mounted there stays (EBUSY). */
static long replace_device(const char *path, uint32_t mode, uint64_t device) {
    struct statx st;
    long there = sys5(__NR_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st);
    if (there < 0)
        return there;
    uint64_t number =
        (st.stx_rdev_minor & 0xff) | (uint64_t)st.stx_rdev_major << 8 | (uint64_t)(st.stx_rdev_minor & ~0xffu) << 12;
    if ((st.stx_mode & FILE_TYPE) != (mode & FILE_TYPE) || number != device)
        return -EEXIST;
    long gone = sys3(__NR_unlinkat, AT_FDCWD, path, 0);
    return gone == -EBUSY ? 0 : gone < 0 ? gone : sys4(__NR_mknodat, AT_FDCWD, path, mode, device);
}

long call_device(const char *path, uint32_t mode, uint64_t device, uint32_t uid, uint32_t gid) {
    long made = sys4(__NR_mknodat, AT_FDCWD, path, mode, device);
    if (made == -EEXIST)
        made = replace_device(path, mode, device);
    if (made >= 0 && (uid || gid))
        made = sys5(__NR_fchownat, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
    return made;
}

/* Copies what is in the directory `old` to the one mounted at path. */
static long copy_up(long old, const char *path) {
    long from = sys4(__NR_openat, old, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long to = from < 0 ? from : open_at(path, O_RDONLY | O_DIRECTORY, 0);
    long done = to < 0 ? to : copy_content(from, to, COPY_DEPTH);
    if (to >= 0)
        sys1(__NR_close, to);
    if (from >= 0)
        sys1(__NR_close, from);
    return done;
}

static long fill_tmpfs(long old, const char *path, uint64_t how) {
    struct statx st;
    long done = how & PLAN_TMPFS_COPY ? copy_up(old, path) : 0;
    if (done >= 0)
        done = sys5(__NR_statx, old, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
    if (done >= 0 && how & PLAN_TMPFS_COPY)
        done = sys5(__NR_fchownat, AT_FDCWD, path, st.stx_uid, st.stx_gid, 0);
    if (done >= 0 && how & PLAN_TMPFS_MODE)
        done = sys3(__NR_fchmodat, AT_FDCWD, path, st.stx_mode & 07777);
    return done;
}

long call_tmpfs(const char *source, const char *path, uint64_t flags, const char *data, uint64_t how) {
    long old = open_place(path, O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    long done = call_mkdirs(path, 0755 | PLAN_OUTSIDE_PROC);
    if (done >= 0)
        done = sys5(__NR_mount, source, path, "tmpfs", flags & ~(uint64_t)MS_RDONLY, data);
    if (done >= 0 && old >= 0)
        done = fill_tmpfs(old, path, how);
    if (done >= 0 && flags & MS_RDONLY)
        done = sys5(__NR_mount, 0, path, 0, flags | MS_REMOUNT, data);
    if (old >= 0)
        sys1(__NR_close, old);
    return done;
}

static long attach(long tree, const char *path) {
    return sys5(__NR_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS);
}

long call_mask(const char *path, int fd, const char *options) {
    long done = attach(fd, path);
    sys1(__NR_close, fd);
    if (done == -ENOENT)
        return 0;
    if (done == -EINVAL || done == -ENOTDIR) /* the target is a directory */
        return sys5(__NR_mount, "tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
    return done;
}

long call_read_only(const char *path) {
    long tree = sys3(__NR_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree == -ENOENT)
        return 0;
    if (tree < 0)
        return tree;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    long done = sys5(__NR_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr);
    if (done >= 0)
        done = attach(tree, path);
    sys1(__NR_close, tree);
    return done;
}

long call_write_file(const char *path, const char *bytes, uint64_t size) {
    long fd = open_at(path, O_WRONLY, 0);
    if (fd < 0)
        return fd;
    long done = sys3(__NR_write, fd, bytes, size);
    sys1(__NR_close, fd);
    return done < 0 ? done : done != (long)size ? -EIO : 0;
}

long call_bounding_set(uint64_t mask, int last) {
    for (int cap = 0; cap <= last; cap++)
        if (!(mask >> cap & 1)) {
            long done = sys2(__NR_prctl, PR_CAPBSET_DROP, cap);
            if (done < 0)
                return done;
        }
    return 0;
}

/* A directory outside the root has no path: getcwd answers "(unreachable)..." (CVE-2024-21626). */
long call_check_cwd(void) {
    char path[PATH_MAX];
    long got = sys2(__NR_getcwd, path, sizeof path);
    return got < 0 ? got : path[0] == '/' ? 0 : -ENOENT;
}

/* The field of a passwd line that starts after `colons` colons; its size goes to *size. */
static const char *field(const char *line, long line_size, int colons, long *size) {
    long start = 0;
    for (; colons && start < line_size; start++)
        colons -= line[start] == ':';
    if (colons)
        return NULL;
    long end = start;
    while (end < line_size && line[end] != ':')
        end++;
    *size = end - start;
    return line + start;
}

/* Copies the home directory in this passwd line to out when the line is uid's. Returns its size, or 0. */
static long home_in_line(const char *line, long line_size, uint32_t uid, char *out, long room) {
    long size;
    const char *text = field(line, line_size, 2, &size);
    if (!text || size < 1 || size > 10)
        return 0;
    uint64_t number = 0;
    for (long i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    text = number == uid ? field(line, line_size, 5, &size) : NULL;
    if (!text || size < 1 || size >= room)
        return 0;
    append(out, text, size);
    return size;
}

long call_home(uint32_t uid, uint64_t *word, char *buffer, uint64_t size) {
    char block[PATH_MAX * 2];
    char *home = append(buffer, "HOME=", 5);
    long room = (long)size - 5;
    append(home, "/", 1);
    *word = (uint64_t)buffer;
    long fd = open_at("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return 0;
    long have = 0;
    long total = 0;
    long found = 0;
    while (!found && total < PASSWD_MAX) {
        long got = sys3(__NR_read, fd, block + have, (long)sizeof block - have);
        if (got <= 0) {
            found = have ? home_in_line(block, have, uid, home, room) : 0; /* a last line without newline */
            break;
        }
        total += got;
        have += got;
        long start = 0;
        for (long i = 0; i < have && !found; i++)
            if (block[i] == '\n') {
                found = home_in_line(block + start, i - start, uid, home, room);
                start = i + 1;
            }
        if (start == 0 && have == (long)sizeof block)
            break; /* no line is that long */
        for (long i = start; i < have; i++)
            block[i - start] = block[i];
        have -= start;
    }
    sys1(__NR_close, fd);
    return 0;
}

static long executable(const char *path) {
    struct statx st;
    long there = sys5(__NR_statx, AT_FDCWD, path, 0, STATX_TYPE, &st);
    if (there < 0)
        return there;
    if ((st.stx_mode & FILE_TYPE) == FILE_DIRECTORY)
        return -EACCES;
    return sys4(__NR_faccessat2, AT_FDCWD, path, 1 /* X_OK */, AT_EACCESS);
}

long call_look_up(const char *file, const char *path_list, char *buffer, uint64_t size) {
    long file_size = length(file);
    for (long i = 0; i < file_size; i++)
        if (file[i] == '/') {
            if (file_size >= (long)size)
                return -ENAMETOOLONG;
            append(buffer, file, file_size);
            return executable(buffer);
        }
    long verdict = -ENOENT;
    for (const char *start = path_list;; start++) {
        const char *end = start;
        while (*end && *end != ':')
            end++;
        if (file_size && end - start + 2 + file_size < (long)size) {
            char *at = append(buffer, start, end - start);
            at = append(at, at == buffer ? "./" : "/", at == buffer ? 2 : 1);
            append(at, file, file_size);
            long there = executable(buffer);
            if (there >= 0)
                return 0;
            if (there == -EACCES)
                verdict = there;
        }
        if (!*end) {
            append(buffer, file, file_size < (long)size ? file_size : 0);
            return verdict;
        }
        start = end;
    }
}

/* Mounts the pty's slave on /dev/console, which the image must not redirect (CVE-2025-52565). */
static long bind_console(long slave) {
    long made = open_at("/dev/console", O_CREAT | O_EXCL | O_RDONLY | O_NOFOLLOW | O_NOCTTY, 0620);
    if (made >= 0)
        sys1(__NR_close, made);
    else if (made != -EEXIST)
        return made;
    long target = open_at("/dev/console", O_PATH | O_NOFOLLOW, 0);
    if (target < 0)
        return target;
    struct statx st;
    long done = sys5(__NR_statx, target, "", AT_EMPTY_PATH, STATX_TYPE, &st);
    uint32_t type = st.stx_mode & FILE_TYPE;
    if (done >= 0 && type != FILE_REGULAR && type != FILE_CHARACTER)
        done = -ELOOP;
    long tree = done < 0 ? done : sys3(__NR_open_tree, slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree >= 0) {
        done = sys5(__NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        sys1(__NR_close, tree);
    }
    sys1(__NR_close, target);
    return tree < 0 ? tree : done;
}

long call_console(int socket, uint32_t window, uint32_t uid, uint32_t flags) {
    static const char ptmx[] = "/dev/pts/ptmx";
    long master = open_at(ptmx, O_RDWR | O_NOCTTY, 0);
    if (master < 0)
        return master;
    int unlocked = 0;
    long done = sys3(__NR_ioctl, master, TIOCSPTLCK, &unlocked);
    long slave = done < 0 ? done : sys3(__NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return slave;
    struct winsize size = {.ws_row = window & 0xffff, .ws_col = window >> 16};
    if (window)
        done = sys3(__NR_ioctl, slave, TIOCSWINSZ, &size);
    if (done >= 0)
        done = sys3(__NR_fchown, slave, uid, -1);
    if (done >= 0 && (flags & PLAN_CONSOLE_BIND))
        done = bind_console(slave);
    if (done >= 0)
        done = send_fd(socket, (int)master, ptmx, sizeof ptmx - 1);
    if (done >= 0)
        done = sys3(__NR_ioctl, slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3 && done >= 0; fd++)
        done = sys3(__NR_dup3, slave, fd, 0);
    sys1(__NR_close, slave);
    sys1(__NR_close, master);
    sys1(__NR_close, socket);
    return done < 0 ? done : 0;
}

long call_wait_fifo(int fd) {
    char byte;
    long got;
    do
        got = sys3(__NR_read, fd, &byte, 1);
    while (got == -EINTR);
    sys1(__NR_close, fd);
    return got < 0 ? got : 0;
}

static char *decimal(char *end, uint32_t number) {
    *end = 0;
    do
        *--end = (char)('0' + number % 10);
    while (number /= 10);
    return end;
}

long call_runelet(int fd, int plan_fd, uint32_t next_op) {
    char fd_text[12];
    char op_text[12];
    char *argv[] = {"init-runelet", decimal(fd_text + 11, (uint32_t)plan_fd), decimal(op_text + 11, next_op), NULL};
    char *envp[] = {NULL}; /* a loader that read the image's LD_PRELOAD here would run it on the host */
    return sys5(__NR_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
}
