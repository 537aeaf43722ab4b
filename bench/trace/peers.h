/* What ours is measured against: LRU, and the bound of a policy that knows the future. Each counts the bytes
 * of objects and nothing else. */
#pragma once

#include "generate.h"

struct trace_result {
    uint64_t misses, missed_bytes;
};

/* Least recently used goes first. */
struct trace_result peer_lru(const struct trace *t, uint64_t capacity_bytes);

/* MIN of Belady by next use alone, sizes not weighed: what is used farthest in the future goes first, and
 * what comes is not kept when it is the farthest itself. Where sizes differ this is not the exact optimum,
 * which is NP-hard. */
struct trace_result peer_belady(const struct trace *t, uint64_t capacity_bytes);
