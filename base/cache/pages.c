#include "cache/pages.h"

#include "cache/poison.h"
#include "util/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGES_MAGIC 0x50414753
#define LINK_BITS   29 /* of a page's number */
#define LINK_MASK   ((1ull << LINK_BITS) - 1)
#define NONE        0u /* page 0 is never in a run */
#define OPEN_BYTES  (64ull << 20)
#define EXACT_BINS  256u /* of runs of 1 to 256 pages; the longest that are asked for */
#define BINS        (EXACT_BINS + LINK_BITS + 1)
#define BIN_WORDS   ((BINS + 63) / 64)
#define TRIM_RUNS   16u /* taken under one lock */

_Static_assert(PAGES_RUN_BYTES == EXACT_BINS * PAGE_BYTES, "what is asked for has bins of its own");
_Static_assert(PAGES_RESERVED_MAX == (1ull << LINK_BITS) * PAGE_BYTES, "pages are numbered in links");

/* One word a page. Of a run's pages only those are ever looked at that are named here; the others hold what
 * they held before.
 *
 *     HEAD  the first of a run in use; a: its pages, b: its number
 *     PART  any other of a run in use that has a number; b: the number
 *     IDLE, CLEAN  the first of a free run, resident or not; a, b: the next and previous of its bin
 *     EDGE  the second and the last of a free run; a: its pages
 *     PLAIN any other; the last of a run in use and the first that was never used are this one
 *
 * A free run whose second page is no EDGE is one page long. */
enum tag { PLAIN, HEAD, PART, IDLE, CLEAN, EDGE };

struct word {
    uint64_t tag : 6;
    uint64_t a : LINK_BITS;
    uint64_t b : LINK_BITS;
};

_Static_assert(sizeof(struct word) == PAGES_META_BYTES, "what a page costs");

/* Free runs by length, best fit. They are linked through their first pages' words, newest first. */
struct bins {
    uint64_t some[BIN_WORDS]; /* a bit for each that is not empty */
    uint32_t first[BINS];
};

struct pages {
    uint32_t magic;
    pthread_mutex_t lock;
    char *base;
    struct word *words;
    uint32_t pages_n; /* reserved */
    uint32_t opened;  /* may be written to */
    _Atomic uint32_t used_ever;
    uint32_t out; /* in runs in use */
    struct bins idle, clean;
    _Atomic uint64_t idle_pages;
};

static void *reserve(uint64_t bytes, int protection)
{
    void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

struct pages *pages_new(uint64_t bytes)
{
    CHECK(bytes >= PAGES_RUN_BYTES && bytes <= PAGES_RESERVED_MAX);
    struct pages *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->magic = PAGES_MAGIC;
    p->pages_n = (uint32_t)(bytes / PAGE_BYTES);
    p->opened = 1; /* NONE */
    p->used_ever = 1;
    p->base = reserve(bytes, PROT_NONE);
    p->words = reserve((uint64_t)p->pages_n * sizeof *p->words, PROT_READ | PROT_WRITE);
    if (!p->base || !p->words || pthread_mutex_init(&p->lock, NULL) != 0) {
        if (p->base)
            munmap(p->base, bytes);
        if (p->words)
            munmap(p->words, (uint64_t)p->pages_n * sizeof *p->words);
        free(p);
        return NULL;
    }
    /* Where the kernel knows no huge pages these fail, and nothing is lost. */
    (void)madvise(p->base, bytes, MADV_NOHUGEPAGE);
    (void)madvise(p->words, (uint64_t)p->pages_n * sizeof *p->words, MADV_NOHUGEPAGE);
    return p;
}

void pages_free(struct pages *p)
{
    CHECK_MAGIC(p, PAGES_MAGIC);
    CHECK(p->out == 0);
    UNPOISON(p->base, (uint64_t)p->opened * PAGE_BYTES);
    munmap(p->base, (uint64_t)p->pages_n * PAGE_BYTES);
    munmap(p->words, (uint64_t)p->pages_n * sizeof *p->words);
    pthread_mutex_destroy(&p->lock);
    p->magic = 0;
    free(p);
}

static char *address_of(const struct pages *p, uint32_t page)
{
    return p->base + (uint64_t)page * PAGE_BYTES;
}

static uint32_t page_at(const struct pages *p, const void *address)
{
    uint64_t at = (uint64_t)((const char *)address - p->base);
    CHECK(at < (uint64_t)p->pages_n * PAGE_BYTES);
    return (uint32_t)(at / PAGE_BYTES);
}

static uint32_t head_at(const struct pages *p, const char *run)
{
    CHECK_MAGIC(p, PAGES_MAGIC);
    uint32_t page = page_at(p, run);
    CHECK((uintptr_t)run % PAGE_BYTES == 0 && p->words[page].tag == HEAD);
    return page;
}

static struct word word_of(enum tag tag, uint32_t a, uint32_t b)
{
    return (struct word){.tag = (uint64_t)tag & 63, .a = a & LINK_MASK, .b = b & LINK_MASK};
}

/* --- bins --- */

static unsigned bin_of(uint32_t n)
{
    if (n <= EXACT_BINS)
        return n - 1;
    return EXACT_BINS + 31u - (unsigned)__builtin_clz(n);
}

static struct bins *bins_of(struct pages *p, enum tag tag)
{
    return tag == IDLE ? &p->idle : &p->clean;
}

/* The first of the bin with the shortest runs that are all this long or longer. */
static uint32_t bins_find(const struct bins *b, uint32_t n)
{
    unsigned from = n - 1;
    for (unsigned w = from / 64; w < BIN_WORDS; w++) {
        uint64_t some = b->some[w];
        if (w == from / 64)
            some &= ~0ull << (from % 64);
        if (some != 0)
            return b->first[w * 64 + (unsigned)__builtin_ctzll(some)];
    }
    return NONE;
}

static uint32_t free_run_pages(const struct pages *p, uint32_t page)
{
    bool more = page + 1 < p->pages_n && p->words[page + 1].tag == EDGE;
    return more ? (uint32_t)p->words[page + 1].a : 1;
}

static void free_run_add(struct pages *p, uint32_t page, uint32_t n, enum tag tag)
{
    struct bins *b = bins_of(p, tag);
    unsigned bin = bin_of(n);
    uint32_t next = b->first[bin];

    p->words[page] = word_of(tag, next, NONE);
    if (n > 1)
        p->words[page + 1] = p->words[page + n - 1] = word_of(EDGE, n, 0);
    if (next != NONE)
        p->words[next].b = page & LINK_MASK;
    b->first[bin] = page;
    b->some[bin / 64] |= 1ull << (bin % 64);
    if (tag == IDLE)
        p->idle_pages += n;
}

/* Returns its pages. */
static uint32_t free_run_remove(struct pages *p, uint32_t page)
{
    struct word head = p->words[page];
    struct bins *b = bins_of(p, head.tag);
    uint32_t n = free_run_pages(p, page), next = head.a, prev = head.b;
    unsigned bin = bin_of(n);

    if (next != NONE)
        p->words[next].b = prev & LINK_MASK;
    if (prev != NONE)
        p->words[prev].a = next & LINK_MASK;
    else
        b->first[bin] = next;
    if (b->first[bin] == NONE)
        b->some[bin / 64] &= ~(1ull << (bin % 64));
    if (head.tag == IDLE)
        p->idle_pages -= n;
    return n;
}

/* With its neighbours, as far as they are free the same way. */
static void run_join(struct pages *p, uint32_t page, uint32_t n, enum tag tag)
{
    struct word before = p->words[page - 1];
    uint32_t prev = before.tag == EDGE ? page - (uint32_t)before.a : page - 1;

    if (p->words[prev].tag == tag && prev != NONE) {
        n += free_run_remove(p, prev);
        page = prev;
    }
    if (page + n < p->used_ever && p->words[page + n].tag == tag)
        n += free_run_remove(p, page + n);
    free_run_add(p, page, n, tag);
}

static void mark_used(struct pages *p, uint32_t page, uint32_t n)
{
    if (n > 1)
        p->words[page + 1] = p->words[page + n - 1] = word_of(PLAIN, 0, 0);
    p->words[page] = word_of(HEAD, n, 0);
    p->out += n;
}

/* --- runs --- */

/* Pages that were never used. */
static uint32_t run_new(struct pages *p, uint32_t n)
{
    uint32_t page = p->used_ever;
    uint64_t at = (uint64_t)p->opened * PAGE_BYTES, more = OPEN_BYTES;

    if (n > p->pages_n - page)
        return NONE;
    if (n > p->opened - page) {
        if (more > (uint64_t)(p->pages_n - p->opened) * PAGE_BYTES)
            more = (uint64_t)(p->pages_n - p->opened) * PAGE_BYTES;
        if (mprotect(p->base + at, more, PROT_READ | PROT_WRITE) < 0)
            return NONE;
        POISON(p->base + at, more);
        p->opened += (uint32_t)(more / PAGE_BYTES);
    }
    p->used_ever += n;
    return page;
}

char *pages_take(struct pages *p, enum pages_from from, size_t bytes, size_t *resident_bytes)
{
    CHECK_MAGIC(p, PAGES_MAGIC);
    CHECK(bytes > 0 && bytes <= PAGES_RUN_BYTES);
    uint32_t n = (uint32_t)(pages_rounded(bytes) / PAGE_BYTES);
    enum tag tag = from == PAGES_IDLE ? IDLE : CLEAN;

    *resident_bytes = from == PAGES_IDLE ? 0 : (size_t)n * PAGE_BYTES;
    pthread_mutex_lock(&p->lock);
    uint32_t page = bins_find(bins_of(p, tag), n);
    if (page != NONE) {
        uint32_t had = free_run_remove(p, page);
        if (had > n)
            free_run_add(p, page + n, had - n, tag);
    } else if (from == PAGES_FRESH) {
        page = run_new(p, n);
        *resident_bytes += (size_t)n * PAGES_META_BYTES;
    }
    if (page != NONE)
        mark_used(p, page, n);
    pthread_mutex_unlock(&p->lock);
    if (page == NONE)
        return NULL;
    UNPOISON(address_of(p, page), bytes);
    return address_of(p, page);
}

static void put_back(struct pages *p, uint32_t page, enum tag tag)
{
    uint32_t n = (uint32_t)p->words[page].a;

    p->out -= n;
    p->words[page] = word_of(PLAIN, 0, 0); /* no head any more, if it becomes the middle of another */
    run_join(p, page, n, tag);
}

void pages_put(struct pages *p, char *run)
{
    uint32_t page = head_at(p, run);

    POISON(run, pages_run_bytes(p, run));
    pthread_mutex_lock(&p->lock);
    put_back(p, page, IDLE);
    pthread_mutex_unlock(&p->lock);
}

/* The shortest first. They fit the fewest, and kept they would in time be all that is idle, so that each run
 * had to be fresh (measured on bodies of 30 KB to 1 MiB: 72 page faults a body, against 2). */
uint64_t pages_trim(struct pages *p, uint64_t bytes)
{
    uint64_t gone = 0;

    CHECK_MAGIC(p, PAGES_MAGIC);
    for (;;) {
        uint32_t runs[TRIM_RUNS], n = 0, page;
        pthread_mutex_lock(&p->lock);
        while (n < TRIM_RUNS && gone < bytes && (page = bins_find(&p->idle, 1)) != NONE) {
            uint32_t had = free_run_remove(p, page), wanted = had;
            if ((bytes - gone) / PAGE_BYTES < had)
                wanted = (uint32_t)((bytes - gone + PAGE_BYTES - 1) / PAGE_BYTES);
            if (wanted < had)
                free_run_add(p, page + wanted, had - wanted, IDLE);
            else
                wanted = had;
            mark_used(p, page, wanted); /* so that nobody takes it while the lock is not held */
            gone += (uint64_t)wanted * PAGE_BYTES;
            runs[n++] = page;
        }
        pthread_mutex_unlock(&p->lock);
        if (n == 0)
            return gone;
        for (uint32_t i = 0; i < n; i++) {
            /* Of memory that is ours and not locked this cannot fail. */
            CHECK(madvise(address_of(p, runs[i]), (uint64_t)p->words[runs[i]].a * PAGE_BYTES,
                          MADV_DONTNEED) == 0);
        }
        pthread_mutex_lock(&p->lock);
        for (uint32_t i = 0; i < n; i++)
            put_back(p, runs[i], CLEAN);
        pthread_mutex_unlock(&p->lock);
    }
}

uint64_t pages_idle_bytes(const struct pages *p)
{
    return atomic_load_explicit(&p->idle_pages, memory_order_relaxed) * PAGE_BYTES;
}

uint64_t pages_own_bytes(const struct pages *p)
{
    return (uint64_t)(atomic_load_explicit(&p->used_ever, memory_order_relaxed) - 1) * PAGES_META_BYTES;
}

size_t pages_run_bytes(const struct pages *p, const char *run)
{
    return (size_t)p->words[head_at(p, run)].a * PAGE_BYTES;
}

/* --- numbers --- */

void pages_number_set(struct pages *p, char *run, uint32_t number)
{
    uint32_t page = head_at(p, run), n = (uint32_t)p->words[page].a;

    CHECK(number > 0 && number < PAGES_NUMBERS);
    pthread_mutex_lock(&p->lock); /* who joins runs beside it looks at its last word */
    p->words[page].b = number & LINK_MASK;
    for (uint32_t i = 1; i < n; i++)
        p->words[page + i] = word_of(PART, 0, number);
    pthread_mutex_unlock(&p->lock);
}

uint32_t pages_number(const struct pages *p, const void *address)
{
    CHECK_MAGIC(p, PAGES_MAGIC);
    struct word w = p->words[page_at(p, address)];
    CHECK(w.tag == HEAD || w.tag == PART);
    return (uint32_t)w.b;
}
