/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LAUNCHER_PAGES_H
#define LAUNCHER_PAGES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* unmap_file(): unmap the pages of this program's file that were only read. They come back when they are needed. */
PyObject *py_unmap_file(PyObject *self, PyObject *none);

#endif
