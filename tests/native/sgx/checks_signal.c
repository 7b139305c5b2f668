#include "host.h"
const struct check signal_checks[] = {{NULL, NULL}};
