/* A pool of equal objects with a named maximum, for one thread. What is freed last is given out first, so
 * that hot memory stays hot. Objects beyond `keep` go back to the allocator. */
#pragma once

#include <stddef.h>

struct pool {
    const char *name;
    size_t object_bytes;
    size_t in_use, in_use_max; /* in_use_max: the limit; pool_get returns NULL at it */
    size_t kept, keep_max;
    void *free_head; /* linked through the objects' first bytes */
};

void pool_init(struct pool *pool, const char *name, size_t object_bytes, size_t in_use_max, size_t keep_max);

/* Gives back the kept memory; nothing may be in use. */
void pool_destroy(struct pool *pool);

/* Uninitialised memory, or NULL at the limit or when there is no memory. */
void *pool_get(struct pool *pool);
void pool_put(struct pool *pool, void *object);
