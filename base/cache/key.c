#include "cache/key.h"

#include <errno.h>

struct cache_key cache_key_of(struct str text)
{
    return (struct cache_key){.hash = hash_of(text), .text = text};
}

int cache_key_make(struct buf *out, struct str site, struct str path, struct str kept_query,
                   struct cache_key *key)
{
    size_t from = out->n;

    buf_add_str(out, site);
    buf_add_char(out, ' ');
    buf_add_str(out, path);
    if (kept_query.n > 0) {
        buf_add_char(out, '?');
        buf_add_str(out, kept_query);
    }
    if (out->overflow || out->n - from > CACHE_KEY_BYTES_MAX)
        return -E2BIG;
    *key = cache_key_of(str_of(out->p + from, out->n - from));
    return 0;
}

uint64_t cache_key_id(struct hash128 hash, uint32_t slice, uint64_t variant)
{
    if (slice == 0 && variant == 0)
        return hash.low;
    /* The finaliser of splitmix64, so that slices of one object spread over all shards. */
    uint64_t z = hash.low ^ (hash.high + variant) ^ (slice * 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
