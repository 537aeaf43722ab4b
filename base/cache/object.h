/* A stored response, or one slice of one: immutable once made, counted by atomic references, shared by all
 * workers. It is 48 bytes, then what only few objects need (struct object_extra), key text and head in one
 * piece of memory; the body is a second one, exactly as long as it must be.
 *
 * The head is HTTP/1.1 as it will be sent, without Date, Age, Cache-Status and the empty line:
 *
 *     HTTP/1.1 200 OK\r\n
 *     Content-Length: 400000\r\n       <- up to here the prefix, which a 206 or 304 replaces
 *     Content-Type: audio/ogg\r\n ...  <- from head_tail_at on: the end-to-end fields that are stored
 *
 * The head of an answer under way whose length is not known yet is the same without its Content-Length.
 *
 * An object never knows what holds it: making, charging and freeing are memory.h's. Reading a field needs no
 * lock while a reference is held. */
#pragma once

#include "cache/key.h"
#include "util/check.h"
#include "util/str.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define OBJECT_MAGIC          0xb1
#define OBJECT_HEAD_BYTES_MAX 65535u /* a longer head is not stored */
#define OBJECT_TAGS_BYTES_MAX                                                                                \
    4096u /* of Surrogate-Key that is kept; more makes the response not storable                             \
           */
#define OBJECT_VARY_BYTES_MAX 1024u
#define OBJECT_VARIANTS_MAX   8u /* of one key; the oldest goes */

enum object_flag {
    OBJECT_MUST_REVALIDATE = 1 << 0,  /* must-revalidate, proxy-revalidate or s-maxage: never served stale */
    OBJECT_NO_CACHE = 1 << 1,         /* validate before every use */
    OBJECT_STRONG_VALIDATOR = 1 << 2, /* has a strong ETag: If-Range and combining slices are allowed */
    OBJECT_IMMUTABLE = 1 << 3,        /* RFC 8246 */
    OBJECT_NEGATIVE = 1 << 4,         /* an error kept shortly */
    OBJECT_HAS_EXTRA = 1 << 14,       /* set by object_init */
    OBJECT_MARKER = 1 << 15,          /* memory.c's own; never given out by a lookup */
};

/* What few objects have; kept between struct object and the key text when one of them is not at its default.
 */
struct object_extra {
    uint64_t total_bytes;      /* of the representation; default: body_bytes */
    uint64_t variant;          /* default: 0 */
    struct object *body_owner; /* whose body this one shows since a 304; a reference is held */
    uint32_t slice;
    uint32_t swr_s, sie_s;
    uint16_t vary_bytes, tags_bytes; /* they follow, in this order */
};

struct object {
    uint8_t magic;
    uint8_t head_tail_at;
    uint16_t flags;
    _Atomic uint32_t refs; /* the index holds one, each reader one */
    char *body;
    uint32_t body_bytes;   /* at most CACHE_SLICE_BYTES */
    uint32_t birth_unix_s; /* response time less its initial age: age is now - birth */
    uint32_t lifetime_s;
    uint16_t status;
    uint16_t key_bytes;
    uint64_t epoch; /* when its fill began; memory.h */
    uint16_t head_bytes;
    _Atomic uint16_t hits;              /* object_count_hit */
    uint16_t etag_at, last_modified_at; /* of the value in the head, which ends before CR; 0: none */
    char data[];                        /* extra, vary, tags, key text, head */
};

/* What an object is made of. All strings are copied. */
struct object_spec {
    struct cache_key key;
    uint32_t slice;
    uint64_t variant;
    struct str head;
    uint16_t head_tail_at, etag_at, last_modified_at; /* object_head_scan fills them */
    uint16_t status;
    uint16_t flags;
    uint64_t total_bytes; /* of the whole representation */
    uint64_t birth_unix_s;
    uint32_t lifetime_s, swr_s, sie_s;
    uint64_t epoch;
    struct str vary; /* the field names of Vary as they came; empty without Vary */
    struct str tags; /* of Surrogate-Key, separated by spaces */
};

/* Finds head_tail_at, etag_at, last_modified_at and OBJECT_STRONG_VALIDATOR in spec->head. Returns 0, or
 * -EINVAL when the head does not have the shape above. */
int object_head_scan(struct object_spec *spec);

/* 0, -E2BIG when a part is longer than the limits above, or -EINVAL. Says nothing of the body. */
int object_spec_check(const struct object_spec *spec);

static inline void object_ref(struct object *o)
{
    CHECK_MAGIC(o, OBJECT_MAGIC);
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
}
/* object_unref is in memory.h, which keeps the account. */

/* For who wants to know how often it was served from the cache. Stays at its maximum, and may lose one of two that come
 * at the same moment: it decides nothing. */
static inline void object_count_hit(struct object *o)
{
    uint16_t hits = atomic_load_explicit(&o->hits, memory_order_relaxed);

    if (hits < UINT16_MAX)
        atomic_store_explicit(&o->hits, (uint16_t)(hits + 1), memory_order_relaxed);
}

static inline const struct object_extra *object_extra(const struct object *o)
{
    return o->flags & OBJECT_HAS_EXTRA ? (const struct object_extra *)(const void *)o->data : NULL;
}

static inline struct str object_body(const struct object *o)
{
    return str_of(o->body, o->body_bytes);
}

static inline uint64_t object_total_bytes(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? x->total_bytes : o->body_bytes;
}

static inline uint32_t object_slice(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? x->slice : 0;
}

static inline uint64_t object_variant(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? x->variant : 0;
}

static inline uint32_t object_swr_s(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? x->swr_s : 0;
}

static inline uint32_t object_sie_s(const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    return x ? x->sie_s : 0;
}

struct str object_key_text(const struct object *o);
struct str object_vary(const struct object *o);
struct str object_tags(const struct object *o);
struct str object_head(const struct object *o);
struct str object_head_tail(const struct object *o);     /* the stored fields after Content-Length */
struct str object_etag(const struct object *o);          /* with quotes and W/; empty: none */
struct str object_last_modified(const struct object *o); /* the date as it came; empty: none */

static inline uint64_t object_age_s(const struct object *o, uint64_t now_unix_s)
{
    return now_unix_s > o->birth_unix_s ? now_unix_s - o->birth_unix_s : 0;
}

/* For memory.h, which allocates, charges and frees. What the object needs beside its body: */
size_t object_spec_bytes(const struct object_spec *spec, size_t body_bytes, const struct object *body_owner);
size_t object_own_bytes(const struct object *o); /* the same of one that is made */
/* Fills that memory. Copies the spec's strings, takes *body (NULL when there are no bytes) or, with
 * `body_owner`, a reference to that object, whose body it shows. One reference, the caller's. */
struct object *object_init(void *memory, const struct object_spec *spec, char **body, size_t body_bytes,
                           struct object *body_owner);
bool object_is(const struct object *o, struct str key_text, uint32_t slice, uint64_t variant);
