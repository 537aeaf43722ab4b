#include "util/stats.h"

#include "util/check.h"

uint64_t histogram_bucket_start(unsigned bucket)
{
    CHECK(bucket < HISTOGRAM_BUCKETS);
    if (bucket < HISTOGRAM_SUBS)
        return (uint64_t)bucket << HISTOGRAM_UNIT_BITS;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t units = HISTOGRAM_SUBS + (bucket & (HISTOGRAM_SUBS - 1));
    return units << (shift + HISTOGRAM_UNIT_BITS);
}

uint64_t histogram_bucket_end(unsigned bucket)
{
    return bucket == HISTOGRAM_BUCKETS - 1 ? UINT64_C(1) << HISTOGRAM_MAX_BITS
                                           : histogram_bucket_start(bucket + 1);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->sum += stat_get(&from->sum);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += stat_get(&from->buckets[i]);
}

void histogram_subtract(struct histogram *from, const struct histogram *earlier)
{
    from->sum -= earlier->sum;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        from->buckets[i] -= earlier->buckets[i];
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        n += stat_get(&h->buckets[i]);
    return n;
}

uint64_t histogram_percentile(const struct histogram *h, double share)
{
    uint64_t n = histogram_count(h), seen = 0, rank;

    if (n == 0)
        return 0;
    if (share <= 0)
        rank = 1;
    else if (share >= 1)
        rank = n;
    else
        rank = (uint64_t)(share * (double)n);
    if (share < 1 && (double)rank < share * (double)n) /* the smallest rank that covers the share */
        rank++;
    if (rank == 0)
        rank = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += stat_get(&h->buckets[i]);
        if (seen >= rank)
            return histogram_bucket_end(i) - 1;
    }
    return histogram_bucket_end(HISTOGRAM_BUCKETS - 1) - 1;
}

uint64_t histogram_count_to(const struct histogram *h, uint64_t bound)
{
    uint64_t n = 0;

    /* The last bucket is open, so it is never certainly below anything. */
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1 && histogram_bucket_end(i) - 1 <= bound; i++)
        n += stat_get(&h->buckets[i]);
    return n;
}
