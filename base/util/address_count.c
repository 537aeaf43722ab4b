#include "util/address_count.h"

#include "util/check.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ADDRESS_COUNT_MAGIC 0x41436e74u
#define ENTRIES_MIN         1024u
#define ENTRIES_MAX         (1u << 28)
#define TURNS_MAX           1000u /* as in rate_table.c */

/* One word: the key's tag above, the count below. */
#define COUNT_BITS 20
#define COUNT_MASK ((1ull << COUNT_BITS) - 1)

struct line {
    _Alignas(64) _Atomic uint64_t ways[ADDRESS_COUNT_WAYS];
};

_Static_assert(sizeof(struct line) == 64 && ADDRESS_COUNT_MAX == COUNT_MASK,
               "one cache line, and a count fits");

struct address_count {
    uint32_t magic;
    size_t lines_n; /* a power of two */
    struct line *lines;
};

struct address_count *address_count_create(size_t entries)
{
    struct address_count *t = calloc(1, sizeof *t);
    size_t n = ENTRIES_MIN;

    if (t == NULL)
        return NULL;
    while (n < entries && n < ENTRIES_MAX)
        n *= 2;
    t->magic = ADDRESS_COUNT_MAGIC;
    t->lines_n = n / ADDRESS_COUNT_WAYS;
    t->lines = mmap(NULL, t->lines_n * sizeof t->lines[0], PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->lines == MAP_FAILED) {
        free(t);
        return NULL;
    }
    return t;
}

void address_count_destroy(struct address_count **tp)
{
    struct address_count *t = TAKE(tp);

    if (t == NULL)
        return;
    CHECK_MAGIC(t, ADDRESS_COUNT_MAGIC);
    (void)munmap(t->lines, t->lines_n * sizeof t->lines[0]);
    t->magic = 0;
    free(t);
}

/* The key's word, or a free one, NULL if there is neither. *word is what it held. *total: of all words of the key,
 * since it may have got a second one while the first was being taken. */
static _Atomic uint64_t *place_of(struct line *line, uint64_t tag, uint64_t *word, uint64_t *total)
{
    _Atomic uint64_t *mine = NULL, *unused = NULL;
    uint64_t unused_word = 0;

    *total = 0;
    for (unsigned i = 0; i < ADDRESS_COUNT_WAYS; i++) {
        uint64_t now = atomic_load(&line->ways[i]);

        if ((now & COUNT_MASK) == 0) {
            if (unused == NULL) {
                unused = &line->ways[i];
                unused_word = now;
            }
        } else if (now >> COUNT_BITS == tag) {
            if (mine == NULL) {
                mine = &line->ways[i];
                *word = now;
            }
            *total += now & COUNT_MASK;
        }
    }
    if (mine == NULL)
        *word = unused_word;
    return mine != NULL ? mine : unused;
}

int address_count_enter(struct address_count *t, struct hash128 key, unsigned max, uint32_t *slot)
{
    struct line *line = &t->lines[key.high & (t->lines_n - 1)];
    const uint64_t tag = key.low >> COUNT_BITS;

    CHECK(max > 0 && max <= ADDRESS_COUNT_MAX);
    *slot = 0;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        uint64_t word, total;
        _Atomic uint64_t *place = place_of(line, tag, &word, &total);

        if (total >= max)
            return -EUSERS;
        if (place == NULL)
            return -ENOSPC;
        if (atomic_compare_exchange_strong(place, &word, (tag << COUNT_BITS) | ((word & COUNT_MASK) + 1))) {
            *slot =
                (uint32_t)((size_t)(line - t->lines) * ADDRESS_COUNT_WAYS + (size_t)(place - line->ways)) + 1;
            return 0;
        }
    }
    return -ENOSPC;
}

void address_count_leave(struct address_count *t, uint32_t *slot)
{
    size_t at = *slot;

    if (at == 0)
        return;
    *slot = 0;
    at--;
    CHECK(at / ADDRESS_COUNT_WAYS < t->lines_n);
    uint64_t before = atomic_fetch_sub(&t->lines[at / ADDRESS_COUNT_WAYS].ways[at % ADDRESS_COUNT_WAYS], 1);
    CHECK((before & COUNT_MASK) > 0);
}

uint64_t address_count_sum(const struct address_count *t)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < t->lines_n; i++)
        for (unsigned k = 0; k < ADDRESS_COUNT_WAYS; k++)
            sum += atomic_load(&t->lines[i].ways[k]) & COUNT_MASK;
    return sum;
}
