/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LAUNCHER_JSON_H
#define LAUNCHER_JSON_H

#include <Python.h>

/* The module `_json`, for PyImport_AppendInittab. */
PyObject *make_json_module(void);

#endif
