/* SPDX-License-Identifier: Apache-2.0 */
/* For the calls that Python's modules do not have; inclavare.linux.syscall is who uses it, and has another way without.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "syscall.h"

enum { ARGUMENTS = 6 };

PyObject *py_syscall(PyObject *Py_UNUSED(self), PyObject *const *given, Py_ssize_t count) {
    long values[1 + ARGUMENTS] = {0};
    if (count < 1 || count > 1 + ARGUMENTS)
        return PyErr_Format(PyExc_TypeError, "syscall wants a number and up to %d arguments", ARGUMENTS);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyBytes_Check(given[i]))
            values[i] = (long)PyBytes_AsString(given[i]);
        else {
            values[i] = PyLong_AsLong(given[i]);
            if (values[i] == -1 && PyErr_Occurred())
                return NULL;
        }
    }
    long result = syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
    return result == -1 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(result);
}
