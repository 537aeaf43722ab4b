/* XXH3-128 with a secret of this node, so that nobody outside can make keys collide. */
#pragma once

#include "util/str.h"

struct hash128 {
    uint64_t low, high;
};

/* Fills the node's secret from getrandom(2); once, before the first hash. A fixed seed is for tests and
 * simulations that must replay. */
void hash_init_random(void);
void hash_init_fixed(uint64_t seed);

struct hash128 hash_of(struct str bytes);

static inline bool hash_eq(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

/* XXH3-64 that goes on from another hash (or any seed): for tables whose keys are the operator's own, not a peer's. The
 * same in every process. */
uint64_t hash_chain(uint64_t before, struct str bytes);
