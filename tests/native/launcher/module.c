/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher's module `_json`, as an extension module that the tests' own Python can load. */
#include "../../../native/launcher/json.h"

PyMODINIT_FUNC PyInit_launcher_json(void);

PyMODINIT_FUNC PyInit_launcher_json(void) {
    return make_json_module();
}
