/* What names an object in the cache: the text `site path?kept-query`, its hash with this node's secret, and
 * the number of the slice. Two texts of one hash are still two keys, since every hit compares the text. The
 * method is not part of the key. Pure; owns nothing: a key borrows its text. */
#pragma once

#include "util/buf.h"
#include "util/hash.h"
#include "util/str.h"

#include <stdint.h>

/* An object longer than this is fetched and kept in slices of it, each an object of its own. */
#define CACHE_SLICE_BYTES   (1024u * 1024u)
#define CACHE_KEY_BYTES_MAX 65535u
#define CACHE_SLICES_MAX    (1u << 20) /* a longer representation (1 TiB) is passed, not kept */

struct cache_key {
    struct hash128 hash; /* of text */
    struct str text;     /* borrowed */
};

struct cache_key cache_key_of(struct str text);

/* Writes `site SP path[?query]` to `out` and returns its key, which borrows that memory. The path is
 * canonical (it holds no space and no '?'), the query what the rule keeps, without its '?'. Returns 0 or
 * -E2BIG, when `out` or CACHE_KEY_BYTES_MAX is too small. */
int cache_key_make(struct buf *out, struct str site, struct str path, struct str kept_query,
                   struct cache_key *key);

/* What the index and the disk tier look up: key, slice and variant in one number. `variant` is 0 for a
 * response without Vary. Different keys may share it by chance. */
uint64_t cache_key_id(struct hash128 hash, uint32_t slice, uint64_t variant);

static inline uint32_t cache_slice_of(uint64_t offset)
{
    return (uint32_t)(offset / CACHE_SLICE_BYTES);
}

static inline uint32_t cache_slices_in(uint64_t total_bytes)
{
    return total_bytes == 0 ? 1 : (uint32_t)((total_bytes - 1) / CACHE_SLICE_BYTES + 1);
}
