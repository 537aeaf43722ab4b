/* Objects for the tests of base/cache. */
#pragma once

#include "cache/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define KIB 1024u
#define MIB (1024u * 1024u)

struct made {
    const char *key;
    uint32_t slice;
    uint64_t variant, total_bytes, epoch;
    size_t body_bytes;
    const char *vary;
    char fill; /* every byte of the body */
};

static inline struct cache_key key_z(const char *text)
{
    return cache_key_of(str_z(text));
}

/* NULL when the tier refuses. */
static inline struct object *make_object(struct memory *m, const struct made *how)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"v1\"\r\n"
                               "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: audio/ogg\r\n";
    char *body = memory_body_new(m, how->body_bytes);
    struct object *o = NULL;
    struct object_spec spec = {
        .key = key_z(how->key),
        .slice = how->slice,
        .variant = how->variant,
        .vary = str_z(how->vary),
        .total_bytes = how->total_bytes ? how->total_bytes : how->body_bytes,
        .epoch = how->epoch ? how->epoch : memory_epoch(m),
        .head = str_of(head, sizeof head - 1),
        .status = 200,
        .birth_unix_s = 1000,
        .lifetime_s = 60,
    };

    if (!body)
        return NULL;
    memset(body, how->fill ? how->fill : 'x', how->body_bytes);
    assert_int_equal(object_head_scan(&spec), 0);
    if (memory_object_new(m, &spec, &body, how->body_bytes, &o) < 0)
        memory_body_free(m, &body);
    return o;
}

/* Makes and inserts; false when the tier refuses. */
static inline bool put_object(struct memory *m, const struct made *how)
{
    struct object *o = make_object(m, how);
    if (!o)
        return false;
    int rc = memory_insert(m, o);
    object_unref(m, &o);
    return rc == 0;
}

static inline struct object *get(struct memory *m, const char *key_text)
{
    struct cache_key key = key_z(key_text);
    return memory_lookup(m, &key, 0, NULL);
}

static inline struct memory *tier(uint64_t bytes, unsigned shards)
{
    struct memory *m = memory_new(&(struct memory_config){.size_bytes = bytes, .shards = shards});
    assert_non_null(m);
    return m;
}

static inline uint64_t bytes_in_use(struct memory *m)
{
    struct memory_stats s;
    memory_stats(m, &s);
    assert_true(s.bytes + s.idle_bytes <= s.size_bytes);
    return s.bytes;
}

/* Does the account say that there are no objects and no bodies? */
static inline bool holds_nothing(struct memory *m)
{
    struct memory_stats s;
    memory_stats(m, &s);
    return s.objects == 0 && s.bytes == s.index_bytes && s.indexed_bytes == 0;
}
