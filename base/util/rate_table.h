/* How often each of many (users, addresses) may do something: one GCRA a key, in a table of fixed size that all
 * threads share without a lock. Pure: the caller gives the time. It owns nothing but its memory.
 *
 * The generic cell rate algorithm in its form of virtual scheduling (ITU-T I.371, annex A; ATM Forum
 * af-tm-0056) keeps one moment a key, its theoretical arrival time TAT. With T the interval between two events
 * at the rate and tau = (burst - 1) * T:
 *
 *     an event at t conforms if t >= TAT - tau, and then TAT becomes max(t, TAT) + T; else nothing changes
 *
 * So after rest `burst` events conform at once, then one every T. A key whose TAT is past is as one never seen,
 * so its place is free for others: the table holds only those who have just been faster than their rate.
 *
 * A key's places are the four of one cache line. When other keys that are active hold them all, the answer is
 * RATE_UNKNOWN: nothing is counted and the caller lets it pass (and counts that), since to forget who is over
 * the limit would help those whom it is for. Keys are hashes with this process's secret: nobody can aim at a line.
 *
 * Place and TAT are two words. Threads that take the same free place for two keys at the same moment may leave
 * one event uncounted or counted for the other key, once; nothing else can go wrong. */
#pragma once

#include "util/hash.h"

#include <stddef.h>
#include <stdint.h>

#define RATE_TABLE_WAYS        4
#define RATE_TABLE_ENTRY_BYTES 16
#define RATE_TABLE_ENTRIES_MIN 1024u
#define RATE_TABLE_ENTRIES_MAX (1u << 26)

/* The product of interval and burst stays far below 2^64 ns, the sum of both and any uptime, too. */
#define RATE_INTERVAL_NS_MAX (3600ull * 1000000000ull)
#define RATE_BURST_MAX       1000000u

struct rate {
    uint64_t interval_ns; /* T; 0: no limit, and rate_table_take is not asked */
    uint32_t burst;       /* 1 or more */
};

enum rate_verdict {
    RATE_WITHIN,
    RATE_OVER,
    RATE_UNKNOWN, /* no place for it: let pass, not counted */
};

struct rate_table;

/* `entries` are rounded up to a power of two within the bounds above; memory is touched as it is used. NULL: no
 * memory. */
struct rate_table *rate_table_create(size_t entries);
void rate_table_destroy(struct rate_table **t);

/* One event of `key` at now_ns (of the monotonic clock; threads' may differ by a little). A rate that changes
 * is to be part of what is hashed, so that the new one begins anew. RATE_OVER: *wait_ns (else 0) is the time after
 * which it would conform, 1 or more. */
enum rate_verdict rate_table_take(struct rate_table *t, struct hash128 key, struct rate rate, uint64_t now_ns,
                                  uint64_t *wait_ns);
