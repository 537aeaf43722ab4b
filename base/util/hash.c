#include "util/hash.h"

#include "util/check.h"

#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

static unsigned char secret[XXH3_SECRET_SIZE_MIN];
static bool ready;

void hash_init_random(void)
{
    CHECK(getrandom(secret, sizeof secret, 0) == (ssize_t)sizeof secret);
    ready = true;
}

void hash_init_fixed(uint64_t seed)
{
    for (size_t i = 0; i < sizeof secret; i++) { /* splitmix64, a byte at a time */
        seed += 0x9e3779b97f4a7c15ull;
        uint64_t z = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ull;
        secret[i] = (unsigned char)(z >> 56);
    }
    ready = true;
}

struct hash128 hash_of(struct str bytes)
{
    CHECK(ready);
    XXH128_hash_t h = XXH3_128bits_withSecret(bytes.p, bytes.n, secret, sizeof secret);
    return (struct hash128){h.low64, h.high64};
}

uint64_t hash_chain(uint64_t before, struct str bytes)
{
    return XXH3_64bits_withSeed(bytes.p, bytes.n, before);
}
