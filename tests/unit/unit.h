/* What every unit test includes first: cmocka wants these headers before its own. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "util/check.h"
#include "util/str.h"

/* A run of bytes equals a literal, and the message shows both. */
#define assert_str(s, literal) assert_str_(s, literal, sizeof(literal) - 1, __FILE__, __LINE__)

static inline void assert_str_(struct str s, const char *expected, size_t n, const char *file, int line)
{
    if (s.n == n && (n == 0 || memcmp(s.p, expected, n) == 0))
        return;
    print_error("got \"%.*s\" (%zu bytes), expected \"%.*s\" (%zu)\n", (int)s.n, s.p ? s.p : "", s.n, (int)n,
                expected, n);
    _fail(file, line);
}

/* A copy that ends where its memory does, so that the address sanitizer sees a byte read past its end. */
static inline char *exact_copy(const void *p, size_t n)
{
    char *copy = malloc(n ? n : 1);

    assert_non_null(copy);
    if (p != NULL)
        memcpy(copy, p, n);
    return copy;
}
