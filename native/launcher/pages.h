/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LAUNCHER_PAGES_H
#define LAUNCHER_PAGES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/*
 * rest(file, milliseconds): unmap the pages of this program's file that were only read, and wait until the file is
 * readable, a signal comes or the time (-1 for ever) is over. The pages come back when they are needed.
 */
PyObject *py_rest(PyObject *self, PyObject *const *given, Py_ssize_t count);

#endif
