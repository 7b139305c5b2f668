#include "host.h"
const struct check thread_checks[] = {{NULL, NULL}};
