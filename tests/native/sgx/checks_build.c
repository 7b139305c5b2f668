#include "host.h"
const struct check build_checks[] = {{NULL, NULL}};
