/* A writer into a fixed run of memory with a sticky error: write straight through, check `overflow` once.
 * What does not fit is dropped whole; nothing is ever written past `cap`. */
#pragma once

#include "util/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
    char *p;
    size_t n;   /* bytes written */
    size_t cap; /* bytes p holds; the memory belongs to whoever made the buf */
    bool overflow;
};

static inline struct buf buf_of(char *p, size_t cap)
{
    return (struct buf){.p = p, .cap = cap};
}

static inline struct str buf_str(const struct buf *b)
{
    return str_of(b->p, b->n);
}

static inline void buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (__builtin_expect(n > b->cap - b->n, 0)) {
        b->overflow = true;
        return;
    }
    if (n > 0)
        memcpy(b->p + b->n, bytes, n);
    b->n += n;
}

static inline void buf_add_str(struct buf *b, struct str s)
{
    buf_add(b, s.p, s.n);
}

static inline void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

#define buf_add_lit(b, literal) buf_add((b), (literal), sizeof(literal) - 1)

void buf_add_u64(struct buf *b, uint64_t value);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As a JSON string with its quotes; bytes that are not valid UTF-8 become U+FFFD. */
void buf_add_json(struct buf *b, struct str s);
