/* Counters and latency histograms that one thread writes and any other may read while it does: plain words,
 * relaxed stores, nothing shared on the hot path. Each worker has a struct of its own; base/node/metrics.h
 * sums them through a table of descriptors.
 *
 * A reader may see one word of a struct newer than another; each word by itself is exact. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- counters and gauges: a uint64_t in the worker's struct --- */

/* By the owning thread only. */
static inline void stat_add(uint64_t *value, uint64_t n)
{
    __atomic_store_n(value, *value + n, __ATOMIC_RELAXED);
}

static inline void stat_inc(uint64_t *value)
{
    stat_add(value, 1);
}

/* A gauge that one worker raises and another lowers is right in the sum: it wraps. */
static inline void stat_sub(uint64_t *value, uint64_t n)
{
    __atomic_store_n(value, *value - n, __ATOMIC_RELAXED);
}

static inline void stat_dec(uint64_t *value)
{
    stat_sub(value, 1);
}

static inline void stat_set(uint64_t *value, uint64_t to)
{
    __atomic_store_n(value, to, __ATOMIC_RELAXED);
}

/* By any thread. */
static inline uint64_t stat_get(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_RELAXED);
}

/* --- histograms --- */

/* Log-linear: 16 buckets an octave, so a bucket is at most 6.25 % of its values wide. The lowest 16 are one
 * unit (128 ns) wide each; the highest ends at 2^42 ns, 73 minutes, and takes all that is more. 31 octaves
 * and the linear part make 512 buckets, 4 KiB. Values may be bytes as well: up to 4 TiB. */
#define HISTOGRAM_UNIT_BITS 7
#define HISTOGRAM_SUB_BITS  4
#define HISTOGRAM_MAX_BITS  42
#define HISTOGRAM_SUBS      (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS                                                                                    \
    ((HISTOGRAM_MAX_BITS - HISTOGRAM_UNIT_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUBS)

struct histogram {
    uint64_t sum; /* of the values, exact until it wraps */
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
    uint64_t units = value >> HISTOGRAM_UNIT_BITS;

    if (units < HISTOGRAM_SUBS)
        return (unsigned)units;
    if (__builtin_expect(value >> HISTOGRAM_MAX_BITS != 0, 0))
        return HISTOGRAM_BUCKETS - 1;
    unsigned shift = 63u - HISTOGRAM_SUB_BITS - (unsigned)__builtin_clzll(units);
    return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(units >> shift);
}

/* By the owning thread only. */
static inline void histogram_record(struct histogram *h, uint64_t value)
{
    stat_add(&h->sum, value);
    stat_inc(&h->buckets[histogram_bucket(value)]);
}

/* The lowest value of a bucket, and the lowest of the next one. The last bucket's end is where it would end
 * if it were not open. */
uint64_t histogram_bucket_start(unsigned bucket);
uint64_t histogram_bucket_end(unsigned bucket);

/* Adds what `from` holds at this moment, which another thread may be writing. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* into = a - b, bucket by bucket: what was recorded between two copies of one histogram. */
void histogram_subtract(struct histogram *from, const struct histogram *earlier);

uint64_t histogram_count(const struct histogram *h);

/* The highest value that the one at this rank may have had (0 <= share <= 1); 0 of an empty one. */
uint64_t histogram_percentile(const struct histogram *h, double share);

/* How many values are certainly at most `bound`: those in buckets that end at or below it. Never counts a
 * value above the bound, and leaves out at most those in the one bucket that holds it. */
uint64_t histogram_count_to(const struct histogram *h, uint64_t bound);

/* --- descriptors: what a worker's struct holds, for rendering --- */

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

enum metric_unit {
    METRIC_PLAIN, /* as it is: a number, bytes */
    METRIC_NS,    /* nanoseconds, shown as seconds */
};

struct metric_desc {
    const char *name; /* without the program's prefix: "requests_total" */
    const char *help; /* one sentence */
    enum metric_type type;
    enum metric_unit unit;
    const char *labels; /* `cache="hit",class="2xx"`, or NULL */
    size_t offset;      /* of the uint64_t or struct histogram in the worker's struct */
    bool each_worker;   /* a sample for each worker, with the label `worker`, and no sum */
};

/* Rows of one name stand together: they are one family, and the first row's help is shown. */
