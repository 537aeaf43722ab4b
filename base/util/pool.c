#include "util/pool.h"

#include "util/check.h"

#include <stdlib.h>
#include <string.h>

void pool_init(struct pool *pool, const char *name, size_t object_bytes, size_t in_use_max, size_t keep_max)
{
    CHECK(object_bytes >= sizeof(void *));
    *pool = (struct pool){
        .name = name, .object_bytes = object_bytes, .in_use_max = in_use_max, .keep_max = keep_max};
}

void pool_destroy(struct pool *pool)
{
    CHECK(pool->in_use == 0);
    while (pool->free_head != NULL) {
        void *object = pool->free_head;
        memcpy(&pool->free_head, object, sizeof(void *));
        free(object);
    }
    pool->kept = 0;
}

void *pool_get(struct pool *pool)
{
    void *object = pool->free_head;

    if (pool->in_use == pool->in_use_max)
        return NULL;
    if (object != NULL) {
        memcpy(&pool->free_head, object, sizeof(void *));
        pool->kept--;
    } else {
        object = malloc(pool->object_bytes);
        if (object == NULL)
            return NULL;
    }
    pool->in_use++;
    return object;
}

void pool_put(struct pool *pool, void *object)
{
    CHECK(object != NULL && pool->in_use > 0);
    pool->in_use--;
    if (pool->kept == pool->keep_max) {
        free(object);
        return;
    }
    memcpy(object, &pool->free_head, sizeof(void *));
    pool->free_head = object;
    pool->kept++;
}
