/* What every fuzz target includes. A broken invariant is a failed CHECK, which aborts. */
#pragma once

#include "util/check.h"
#include "util/str.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy that ends where its memory does, so that the address sanitizer sees a byte read past its end. */
static inline char *exact_copy(const void *p, size_t n)
{
    char *copy = malloc(n ? n : 1);

    CHECK(copy);
    if (n > 0)
        memcpy(copy, p, n);
    return copy;
}

/* Takes the first n bytes of the input, or what there is. */
static inline struct str fuzz_take(struct str *in, size_t n)
{
    struct str taken = str_of(in->p, n < in->n ? n : in->n);

    *in = str_skip(*in, taken.n);
    return taken;
}

static inline unsigned fuzz_byte(struct str *in)
{
    struct str s = fuzz_take(in, 1);

    return s.n ? (unsigned char)s.p[0] : 0;
}

/* Up to the next LF, which is left out. */
static inline struct str fuzz_line(struct str *in)
{
    const char *lf = in->n ? memchr(in->p, '\n', in->n) : NULL;
    struct str line = str_of(in->p, lf ? (size_t)(lf - in->p) : in->n);

    *in = str_skip(*in, line.n + 1);
    return line;
}
