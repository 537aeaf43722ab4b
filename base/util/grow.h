/* A byte string that grows on the heap up to a maximum, with a sticky error: write straight through, check
 * `failed` once. For the control and writer threads; workers use util/buf.h. */
#pragma once

#include "util/str.h"

struct grow {
    char *p; /* owned; NULL while nothing was written */
    size_t n, cap;
    size_t max;  /* bytes it may hold */
    bool failed; /* more than max, or no memory; what did not fit is dropped whole */
};

static inline struct grow grow_of(size_t max)
{
    return (struct grow){.max = max};
}

static inline struct str grow_str(const struct grow *g)
{
    return str_of(g->p, g->n);
}

void grow_free(struct grow *g);

/* Room for n more bytes at p + n, or NULL (and failed). The caller adds to g->n what it used. */
char *grow_reserve(struct grow *g, size_t n);

void grow_add(struct grow *g, const void *bytes, size_t n);
void grow_add_str(struct grow *g, struct str s);
void grow_add_z(struct grow *g, const char *z);
void grow_add_char(struct grow *g, char c);
void grow_add_u64(struct grow *g, uint64_t value);
void grow_printf(struct grow *g, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As a JSON string with its quotes (see buf_add_json). */
void grow_add_json(struct grow *g, struct str s);

#define grow_add_lit(g, literal) grow_add((g), (literal), sizeof(literal) - 1)
