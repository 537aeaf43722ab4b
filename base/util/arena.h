/* Memory that is built up piece by piece and freed all at once: what a configuration snapshot owns. Not for
 * the path of a request. It aborts when there is no memory, since only loading uses it. What it held is
 * overwritten before it is freed, because configurations hold secrets. */
#pragma once

#include "util/str.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks;
    size_t bytes; /* taken from the allocator */
};

/* Zeroed, aligned for any type. */
void *arena_alloc(struct arena *a, size_t n);

#define arena_new(a, type, count) ((type *)arena_alloc((a), sizeof(type) * (count)))

/* Copies, with a NUL after the last byte that n does not count. */
struct str arena_str(struct arena *a, struct str s);

void arena_free(struct arena *a);
