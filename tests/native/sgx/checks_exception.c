#include "host.h"
const struct check exception_checks[] = {{NULL, NULL}};
