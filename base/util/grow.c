#include "util/grow.h"

#include "util/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define GROW_FIRST_BYTES 256

void grow_free(struct grow *g)
{
    free(g->p);
    *g = (struct grow){.max = g->max};
}

char *grow_reserve(struct grow *g, size_t n)
{
    if (n > g->max - g->n) {
        g->failed = true;
        return NULL;
    }
    if (n > g->cap - g->n || g->p == NULL) {
        size_t cap = g->cap < GROW_FIRST_BYTES / 2 ? GROW_FIRST_BYTES : g->cap * 2;
        char *p;

        if (cap < g->n + n)
            cap = g->n + n;
        if (cap > g->max)
            cap = g->max;
        p = realloc(g->p, cap > 0 ? cap : 1);
        if (p == NULL) {
            g->failed = true;
            return NULL;
        }
        g->p = p;
        g->cap = cap;
    }
    return g->p + g->n;
}

void grow_add(struct grow *g, const void *bytes, size_t n)
{
    char *to = grow_reserve(g, n);

    if (to == NULL || n == 0)
        return;
    memcpy(to, bytes, n);
    g->n += n;
}

void grow_add_str(struct grow *g, struct str s)
{
    grow_add(g, s.p, s.n);
}

void grow_add_z(struct grow *g, const char *z)
{
    grow_add(g, z, strlen(z));
}

void grow_add_char(struct grow *g, char c)
{
    grow_add(g, &c, 1);
}

void grow_add_u64(struct grow *g, uint64_t value)
{
    char digits[20];
    struct buf b = buf_of(digits, sizeof digits);

    buf_add_u64(&b, value);
    grow_add(g, b.p, b.n);
}

void grow_printf(struct grow *g, const char *format, ...)
{
    va_list args, again;
    char small[256];
    int n;

    va_start(args, format);
    va_copy(again, args);
    n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n < 0) {
        g->failed = true;
    } else if ((size_t)n < sizeof small) {
        grow_add(g, small, (size_t)n);
    } else {
        char *large = malloc((size_t)n + 1); /* vsnprintf wants a byte more than it may be allowed to keep */

        if (large == NULL) {
            g->failed = true;
        } else {
            vsnprintf(large, (size_t)n + 1, format, again);
            grow_add(g, large, (size_t)n);
            free(large);
        }
    }
    va_end(again);
}

void grow_add_json(struct grow *g, struct str s)
{
    /* buf_add_json makes at most 6 bytes of one. */
    size_t left = g->max - g->n, worst = s.n > (SIZE_MAX - 2) / 6 ? SIZE_MAX : s.n * 6 + 2;
    struct buf tail;
    char *to;

    to = grow_reserve(g, worst < left ? worst : left);
    if (to == NULL)
        return;
    tail = buf_of(to, g->cap - g->n);
    buf_add_json(&tail, s);
    if (tail.overflow)
        g->failed = true;
    else
        g->n += tail.n;
}
