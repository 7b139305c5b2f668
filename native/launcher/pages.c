/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a resident process keeps of its program. To start it has read most of the file; idle, it needs little of that,
 * and what is mapped counts as its memory and is harder to reclaim than what is only cached. Pages that were written to
 * are ours alone, and stay.
 *
 * Between the look at a page and its end nothing may write to it: so no signal is taken meanwhile, nothing here writes
 * but to the stack, and there is one thread. The wait is here, too: on the way back to Python much would be mapped
 * again.
 */
#include "pages.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE_SIZE = 4096, AT_ONCE = 512 };

/* proc(5), pagemap */
#define PRESENT (UINT64_C(1) << 63)
#define OF_A_FILE (UINT64_C(1) << 61)

extern char __executable_start[], python_end[]; /* the linker's, and snapshot.ld's */

static int unmap_file(int pagemap) {
    uint64_t pages[AT_ONCE];
    char *place = __executable_start;
    while (place < python_end) {
        size_t count = (size_t)(python_end - place) / PAGE_SIZE;
        if (count > AT_ONCE)
            count = AT_ONCE;
        ssize_t size =
            pread(pagemap, pages, count * sizeof *pages, (off_t)((uintptr_t)place / PAGE_SIZE * sizeof *pages));
        if (size != (ssize_t)(count * sizeof *pages))
            return -1;
        for (size_t begin = 0, end; begin < count; begin = end + 1) {
            for (end = begin; end < count && (pages[end] & PRESENT) && (pages[end] & OF_A_FILE); end++)
                ;
            if (end > begin && madvise(place + begin * PAGE_SIZE, (end - begin) * PAGE_SIZE, MADV_DONTNEED) < 0)
                return -1;
        }
        place += count * PAGE_SIZE;
    }
    return 0;
}

PyObject *py_rest(PyObject *Py_UNUSED(self), PyObject *const *given, Py_ssize_t count) {
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "rest wants a file and milliseconds");
    struct pollfd ready = {.fd = (int)PyLong_AsLong(given[0]), .events = POLLIN};
    long milliseconds = PyLong_AsLong(given[1]);
    if (PyErr_Occurred())
        return NULL;
    struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    sigset_t all, before;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int result = unmap_file(pagemap);
    if (!result)
        ppoll(&ready, 1, milliseconds < 0 ? NULL : &time, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(pagemap);
    return result < 0 ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
}
