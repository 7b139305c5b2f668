/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LAUNCHER_SYSCALL_H
#define LAUNCHER_SYSCALL_H

#include <Python.h>

/* syscall(number, argument...): an argument is an integer, or bytes, of which the call gets the address. */
PyObject *py_syscall(PyObject *self, PyObject *const *given, Py_ssize_t count);

#endif
