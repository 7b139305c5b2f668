/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies a directory's content into a fresh tmpfs (tmpcopyup), with modes, owners, times and extended attributes, and
 * follows no link.
 */
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <linux/time_types.h>
#include <stddef.h>

#include "calls.h"
#include "sys.h"

#define NAMES_SIZE 2048
#define LINK_SIZE 4096
#define ATTRIBUTE_SIZE 4096
#define FILE_TYPE 0170000
#define FILE_DIRECTORY 0040000
#define FILE_REGULAR 0100000
#define FILE_LINK 0120000

struct entry { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
};

static long open_in(long directory, const char *name, int flags, uint32_t mode) {
    return sys4(__NR_openat, directory, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode);
}

static long copy_bytes(long from, long to, const char *name) {
    long in = open_in(from, name, O_RDONLY, 0);
    if (in < 0)
        return in;
    long out = open_in(to, name, O_CREAT | O_EXCL | O_WRONLY, 0600);
    long done = out;
    if (out >= 0) {
        do
            done = sys4(__NR_sendfile, out, in, 0, 1 << 30);
        while (done > 0);
        sys1(__NR_close, out);
    }
    sys1(__NR_close, in);
    return done;
}

static long copy_link(long from, long to, const char *name) {
    char target[LINK_SIZE];
    long size = sys4(__NR_readlinkat, from, name, target, sizeof target - 1);
    if (size < 0)
        return size;
    target[size] = 0;
    return sys3(__NR_symlinkat, target, to, name);
}

static long copy_directory(long from, long to, const char *name, int depth) {
    long made = sys3(__NR_mkdirat, to, name, 0700);
    if (made < 0)
        return made;
    long in = open_in(from, name, O_RDONLY | O_DIRECTORY, 0);
    long out = in < 0 ? in : open_in(to, name, O_RDONLY | O_DIRECTORY, 0);
    long done = out < 0 ? out : copy_content(in, out, depth - 1);
    if (out >= 0)
        sys1(__NR_close, out);
    if (in >= 0)
        sys1(__NR_close, in);
    return done;
}

/* Of a file or directory. Attributes that a tmpfs cannot have (user.* before Linux 6.6) are left out. */
static long copy_attributes(long from, long to, const char *name) {
    char names[ATTRIBUTE_SIZE], value[ATTRIBUTE_SIZE];
    long in = open_in(from, name, O_RDONLY, 0);
    if (in < 0)
        return in;
    long got = sys3(__NR_flistxattr, in, names, sizeof names);
    long out = got > 0 ? open_in(to, name, O_RDONLY, 0) : -1;
    long done = got == -EOPNOTSUPP ? 0 : got > 0 && out < 0 ? out : got;
    for (const char *at = names; got > 0 && done >= 0 && at < names + got;) {
        long size = sys4(__NR_fgetxattr, in, at, value, sizeof value);
        done = size < 0 ? size : sys5(__NR_fsetxattr, out, at, value, size, 0);
        if (done == -EOPNOTSUPP)
            done = 0;
        while (*at++)
            ;
    }
    if (out >= 0)
        sys1(__NR_close, out);
    sys1(__NR_close, in);
    return done;
}

static long copy_entry(long from, long to, const char *name, int depth) {
    struct statx st;
    long done = sys5(__NR_statx, from, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st);
    if (done < 0)
        return done;
    uint32_t type = st.stx_mode & FILE_TYPE;
    if (type == FILE_DIRECTORY)
        done = copy_directory(from, to, name, depth);
    else if (type == FILE_REGULAR)
        done = copy_bytes(from, to, name);
    else if (type == FILE_LINK)
        done = copy_link(from, to, name);
    else
        done = sys4(__NR_mknodat, to, name, st.stx_mode,
                    (st.stx_rdev_minor & 0xff) | st.stx_rdev_major << 8 | (st.stx_rdev_minor & ~0xffu) << 12);
    if (done >= 0)
        done = sys5(__NR_fchownat, to, name, st.stx_uid, st.stx_gid, AT_SYMLINK_NOFOLLOW);
    if (done >= 0 && type != FILE_LINK)
        done = sys3(__NR_fchmodat, to, name, st.stx_mode & 07777);
    if (done >= 0 && (type == FILE_REGULAR || type == FILE_DIRECTORY))
        done = copy_attributes(from, to, name); /* a new owner would have taken security.capability away */
    struct __kernel_timespec times[2] = {{st.stx_atime.tv_sec, st.stx_atime.tv_nsec},
                                         {st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec}};
    return done < 0 ? done : sys4(__NR_utimensat, to, name, times, AT_SYMLINK_NOFOLLOW);
}

long copy_content(long from, long to, int depth) {
    if (depth <= 0)
        return -ELOOP;
    union {
        struct entry first;
        char bytes[NAMES_SIZE];
    } names;
    for (;;) {
        long got = sys3(__NR_getdents64, from, &names, sizeof names);
        if (got <= 0)
            return got;
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(const void *)(names.bytes + at);
            const char *name = entry->name;
            int self = name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
            long done = self ? 0 : copy_entry(from, to, name, depth);
            if (done < 0)
                return done;
            at += entry->size;
        }
    }
}
