#include "host.h"
const struct check key_checks[] = {{NULL, NULL}};
