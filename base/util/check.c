#include "util/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "<2>segue: %s:%d: %s: check failed: %s\n", file, line, func, expr);
    abort();
}
