#include "util/arena.h"

#include "util/log.h"

#include <stdlib.h>

#define CHUNK_BYTES 4096
#define ALIGNMENT   _Alignof(max_align_t)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, cap;
    _Alignas(max_align_t) char bytes[];
};

static struct arena_chunk *chunk_new(struct arena *a, size_t n)
{
    size_t cap = n > CHUNK_BYTES ? n : CHUNK_BYTES;
    struct arena_chunk *c = cap > SIZE_MAX / 2 ? NULL : calloc(1, sizeof(*c) + cap);
    if (c == NULL) {
        log_error("out of memory for a configuration (%zu bytes)", n);
        abort();
    }
    c->cap = cap;
    c->next = a->chunks;
    a->chunks = c;
    a->bytes += sizeof(*c) + cap;
    return c;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t rounded = n > SIZE_MAX / 2 ? n : (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct arena_chunk *c = a->chunks;
    if (c == NULL || rounded > c->cap - c->used)
        c = chunk_new(a, rounded);
    void *p = c->bytes + c->used;
    c->used += rounded;
    return p;
}

struct str arena_str(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    return str_of(p, s.n);
}

void arena_free(struct arena *a)
{
    while (a->chunks != NULL) {
        struct arena_chunk *c = a->chunks;
        a->chunks = c->next;
        explicit_bzero(c->bytes, c->used);
        free(c);
    }
    a->bytes = 0;
}
