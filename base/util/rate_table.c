#include "util/rate_table.h"

#include "util/check.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RATE_TABLE_MAGIC 0x52617465u

/* Each turn that is lost is one that another thread has won, on the same line and within a few nanoseconds. */
#define TURNS_MAX 1000u

struct entry {
    _Atomic uint64_t tag;
    _Atomic uint64_t tat_ns;
};

struct line {
    _Alignas(64) struct entry ways[RATE_TABLE_WAYS];
};

_Static_assert(sizeof(struct entry) == RATE_TABLE_ENTRY_BYTES && sizeof(struct line) == 64, "one cache line");

struct rate_table {
    uint32_t magic;
    size_t lines_n; /* a power of two */
    struct line *lines;
};

struct rate_table *rate_table_create(size_t entries)
{
    struct rate_table *t = calloc(1, sizeof *t);
    size_t n = RATE_TABLE_ENTRIES_MIN;

    if (t == NULL)
        return NULL;
    while (n < entries && n < RATE_TABLE_ENTRIES_MAX)
        n *= 2;
    t->magic = RATE_TABLE_MAGIC;
    t->lines_n = n / RATE_TABLE_WAYS;
    t->lines =
        mmap(NULL, n * RATE_TABLE_ENTRY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->lines == MAP_FAILED) {
        free(t);
        return NULL;
    }
    return t;
}

void rate_table_destroy(struct rate_table **tp)
{
    struct rate_table *t = TAKE(tp);

    if (t == NULL)
        return;
    CHECK_MAGIC(t, RATE_TABLE_MAGIC);
    (void)munmap(t->lines, t->lines_n * sizeof t->lines[0]);
    t->magic = 0;
    free(t);
}

/* The key's place: its own, or one that is free and now becomes its own. False: lost to another thread, look
 * again. *out NULL: there is none. */
static bool place_of(struct line *line, uint64_t tag, uint64_t now_ns, struct entry **out)
{
    struct entry *unused = NULL;
    uint64_t unused_tag = 0;

    for (unsigned i = 0; i < RATE_TABLE_WAYS; i++) {
        struct entry *e = &line->ways[i];
        uint64_t e_tag = atomic_load(&e->tag);

        if (e_tag == tag) {
            *out = e;
            return true;
        }
        if (unused == NULL && atomic_load(&e->tat_ns) <= now_ns) {
            unused = e;
            unused_tag = e_tag;
        }
    }
    *out = unused;
    return unused == NULL || atomic_compare_exchange_strong(&unused->tag, &unused_tag, tag);
}

enum rate_verdict rate_table_take(struct rate_table *t, struct hash128 key, struct rate rate, uint64_t now_ns,
                                  uint64_t *wait_ns)
{
    const uint64_t tolerance_ns = (rate.burst - 1) * rate.interval_ns;
    struct line *line = &t->lines[key.high & (t->lines_n - 1)];

    CHECK(rate.interval_ns > 0 && rate.interval_ns <= RATE_INTERVAL_NS_MAX);
    CHECK(rate.burst > 0 && rate.burst <= RATE_BURST_MAX);
    *wait_ns = 0;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        struct entry *e;
        uint64_t tat_ns, begin_ns;

        if (!place_of(line, key.low, now_ns, &e))
            continue;
        if (e == NULL)
            return RATE_UNKNOWN;
        tat_ns = atomic_load(&e->tat_ns);
        begin_ns = tat_ns > now_ns ? tat_ns : now_ns;
        if (begin_ns - now_ns > tolerance_ns) {
            *wait_ns = begin_ns - now_ns - tolerance_ns;
            return RATE_OVER;
        }
        if (atomic_compare_exchange_strong(&e->tat_ns, &tat_ns, begin_ns + rate.interval_ns))
            return RATE_WITHIN;
    }
    return RATE_UNKNOWN;
}
