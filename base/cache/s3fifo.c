#include "cache/s3fifo.h"

#include "util/check.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define S3FIFO_MAGIC 0x53334649

/* Of chunks: 14,336 and 16,384 bytes, both exact sizes for the allocator. */
#define CHUNK_ENTRIES     512u
#define CHUNK_BUCKETS     4096u
#define SMALL_PERCENT     5u /* of the bytes; on the audio trace better than 10 at every size that was tried */
#define PROMOTE_HITS      1u /* in the small queue, to move on to main */
#define HITS_MAX          3u
#define GHOST_PERCENT     100u /* ghosts remembered, as a share of the entries */
#define GHOST_WAYS        8u
#define GHOST_BUCKETS_MIN 16u
#define KEEP_MAX          64u /* values in use that one eviction steps over */

/* 4-byte alignment keeps this at 28 bytes. */
struct entry {
    void *value;
    uint32_t tag; /* the low half of the id */
    uint32_t newer, older;
    uint32_t chain; /* the next of the same bucket; of a free entry the next free one */
    uint32_t charge_bytes : 28;
    uint32_t hits : 2;
    uint32_t in_main : 1;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct entry) == 28, "the goal of 96 bytes an object counts on this");

struct queue {
    uint32_t newest, oldest;
    uint64_t bytes;
};

/* A table of numbers in chunks: it grows without moving anything. */
struct chunks {
    void **at;
    uint32_t n, cap;
};

struct s3fifo {
    uint32_t magic;
    uint32_t free_head;
    uint32_t entries, entries_made; /* in use; ever made, number 0 included */
    uint32_t buckets, buckets_low; /* linear hashing: buckets_low is the power of two at or below `buckets` */
    struct chunks entry_chunks, bucket_chunks;
    struct queue small, main;
    uint32_t *ghosts; /* buckets of GHOST_WAYS; a slot is the tag's high half and a time */
    uint32_t ghost_buckets;
    uint64_t ghost_clock; /* ghosts ever made */
    struct s3fifo_stats stats;
};

static struct entry *entry_at(const struct s3fifo *s, uint32_t number)
{
    return (struct entry *)s->entry_chunks.at[number / CHUNK_ENTRIES] + number % CHUNK_ENTRIES;
}

static uint32_t *bucket_at(const struct s3fifo *s, uint32_t number)
{
    return (uint32_t *)s->bucket_chunks.at[number / CHUNK_BUCKETS] + number % CHUNK_BUCKETS;
}

static uint32_t *bucket_of(const struct s3fifo *s, uint32_t tag)
{
    uint32_t b = tag & (2 * s->buckets_low - 1);
    return bucket_at(s, b < s->buckets ? b : b & (s->buckets_low - 1));
}

static int chunk_add(struct s3fifo *s, struct chunks *c, size_t bytes)
{
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? 2 * c->cap : 8;
        void **at = realloc(c->at, cap * sizeof *at);
        if (!at)
            return -ENOMEM;
        s->stats.own_bytes += (cap - c->cap) * sizeof *at;
        c->at = at;
        c->cap = cap;
    }
    void *chunk = calloc(1, bytes);
    if (!chunk)
        return -ENOMEM;
    s->stats.own_bytes += malloc_usable_size(chunk);
    c->at[c->n++] = chunk;
    return 0;
}

struct s3fifo *s3fifo_new(void)
{
    struct s3fifo *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->magic = S3FIFO_MAGIC;
    s->entries_made = 1; /* S3FIFO_NONE */
    s->buckets = s->buckets_low = 1;
    s->stats.own_bytes = malloc_usable_size(s);
    if (chunk_add(s, &s->bucket_chunks, CHUNK_BUCKETS * sizeof(uint32_t)) < 0 ||
        chunk_add(s, &s->entry_chunks, CHUNK_ENTRIES * sizeof(struct entry)) < 0) {
        s3fifo_free(s);
        return NULL;
    }
    return s;
}

static void chunks_free(struct chunks *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free(c->at[i]);
    free(c->at);
}

void s3fifo_free(struct s3fifo *s)
{
    CHECK_MAGIC(s, S3FIFO_MAGIC);
    CHECK(s->entries == 0);
    chunks_free(&s->entry_chunks);
    chunks_free(&s->bucket_chunks);
    free(s->ghosts);
    s->magic = 0;
    free(s);
}

uint32_t s3fifo_find(const struct s3fifo *s, uint64_t id, uint32_t after)
{
    uint32_t tag = (uint32_t)id;
    uint32_t number = after == S3FIFO_NONE ? *bucket_of(s, tag) : entry_at(s, after)->chain;

    while (number != S3FIFO_NONE && entry_at(s, number)->tag != tag)
        number = entry_at(s, number)->chain;
    return number;
}

void *s3fifo_value(const struct s3fifo *s, uint32_t number)
{
    return entry_at(s, number)->value;
}

void s3fifo_hit(struct s3fifo *s, uint32_t number)
{
    struct entry *e = entry_at(s, number);
    if (e->hits < HITS_MAX)
        e->hits++;
}

/* --- queues --- */

static struct queue *queue_of(struct s3fifo *s, const struct entry *e)
{
    return e->in_main ? &s->main : &s->small;
}

static void queue_push(struct s3fifo *s, uint32_t number, bool in_main)
{
    struct entry *e = entry_at(s, number);
    struct queue *q = in_main ? &s->main : &s->small;

    e->in_main = in_main;
    e->older = q->newest;
    e->newer = S3FIFO_NONE;
    if (q->newest != S3FIFO_NONE)
        entry_at(s, q->newest)->newer = number;
    else
        q->oldest = number;
    q->newest = number;
    q->bytes += e->charge_bytes;
}

static void queue_remove(struct s3fifo *s, uint32_t number)
{
    struct entry *e = entry_at(s, number);
    struct queue *q = queue_of(s, e);

    if (e->newer != S3FIFO_NONE)
        entry_at(s, e->newer)->older = e->older;
    else
        q->newest = e->older;
    if (e->older != S3FIFO_NONE)
        entry_at(s, e->older)->newer = e->newer;
    else
        q->oldest = e->newer;
    q->bytes -= e->charge_bytes;
}

/* --- ghosts: a set-associative table of what left the small queue --- */

/* A slot is known while fewer than this many ghosts came after it: most slots of a full table are. */
static uint32_t ghost_window(const struct s3fifo *s)
{
    return s->ghost_buckets * GHOST_WAYS;
}

/* The clock in 16 bits: in steps, of which the window is at most a quarter of their range, so that a slot
 * left over from long ago seldom looks young again. If it does, one object is taken for an old friend. */
static unsigned ghost_shift(const struct s3fifo *s)
{
    unsigned shift = 0;
    while ((ghost_window(s) >> shift) > 0x4000)
        shift++;
    return shift;
}

static uint32_t *ghost_bucket(const struct s3fifo *s, uint32_t tag)
{
    return s->ghosts + (((uint64_t)(tag * 0x9e3779b1u) * s->ghost_buckets) >> 32) * GHOST_WAYS;
}

static uint32_t ghost_age(const struct s3fifo *s, uint32_t slot)
{
    return ((uint32_t)(s->ghost_clock >> ghost_shift(s)) - slot) & 0xffff;
}

static void ghost_add(struct s3fifo *s, uint32_t tag)
{
    if (s->ghost_buckets == 0)
        return;
    uint32_t *slots = ghost_bucket(s, tag), *oldest = slots;
    for (unsigned i = 0; i < GHOST_WAYS && *oldest != 0; i++) {
        if (slots[i] == 0 || ghost_age(s, slots[i]) > ghost_age(s, *oldest))
            oldest = &slots[i];
    }
    s->ghost_clock++;
    *oldest = (tag & 0xffff0000) | ((uint32_t)(s->ghost_clock >> ghost_shift(s)) & 0xffff);
}

/* Was it known? It is not any more. */
static bool ghost_take(struct s3fifo *s, uint32_t tag)
{
    if (s->ghost_buckets == 0)
        return false;
    uint32_t *slots = ghost_bucket(s, tag);
    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (slots[i] != 0 && ((slots[i] ^ tag) & 0xffff0000) == 0 &&
            ghost_age(s, slots[i]) <= ghost_window(s) >> ghost_shift(s)) {
            slots[i] = 0;
            return true;
        }
    }
    return false;
}

/* The buckets of a ghost table that should be made now, or 0. As many ghosts as there are entries; a table
 * made anew forgets, so it is made once the shard is full, with room to spare, and again only when much has
 * changed. */
static uint32_t ghosts_wanted(const struct s3fifo *s)
{
    if (s->stats.evictions == 0 ||
        (uint64_t)s->entries * GHOST_PERCENT / 100 <= (uint64_t)s->ghost_buckets * GHOST_WAYS)
        return 0;
    uint64_t slots = (uint64_t)s->entries * GHOST_PERCENT / 100;
    uint32_t buckets = (uint32_t)((slots + slots / 8) / GHOST_WAYS) + 1;
    return buckets < GHOST_BUCKETS_MIN ? GHOST_BUCKETS_MIN : buckets;
}

static void ghosts_grow(struct s3fifo *s)
{
    uint32_t buckets = ghosts_wanted(s);
    if (buckets == 0)
        return;
    uint32_t *ghosts = calloc((size_t)buckets * GHOST_WAYS, sizeof *ghosts);
    if (!ghosts)
        return; /* it only remembers less */
    if (s->ghosts)
        s->stats.own_bytes -= malloc_usable_size(s->ghosts);
    free(s->ghosts);
    s->ghosts = ghosts;
    s->ghost_buckets = buckets;
    s->stats.own_bytes += malloc_usable_size(ghosts);
}

/* --- buckets --- */

/* Splits one bucket in two, so that there are as many buckets as entries. */
static void bucket_split(struct s3fifo *s)
{
    uint32_t from = s->buckets - s->buckets_low, to = s->buckets;
    uint32_t number = *bucket_at(s, from), *stay = bucket_at(s, from), *go = bucket_at(s, to);

    while (number != S3FIFO_NONE) {
        struct entry *e = entry_at(s, number);
        uint32_t next = e->chain, **tail = (e->tag & s->buckets_low) ? &go : &stay;
        **tail = number;
        *tail = &e->chain;
        number = next;
    }
    *stay = *go = S3FIFO_NONE;
    s->buckets++;
    if (s->buckets == 2 * s->buckets_low)
        s->buckets_low = s->buckets;
}

static bool wants_bucket_chunk(const struct s3fifo *s)
{
    return s->entries >= s->buckets && s->buckets == s->bucket_chunks.n * CHUNK_BUCKETS;
}

static bool wants_entry_chunk(const struct s3fifo *s)
{
    return s->free_head == S3FIFO_NONE && s->entries_made == s->entry_chunks.n * CHUNK_ENTRIES;
}

size_t s3fifo_growth_bytes(const struct s3fifo *s)
{
    size_t n = 0;
    if (wants_bucket_chunk(s))
        n += CHUNK_BUCKETS * sizeof(uint32_t) + (s->bucket_chunks.cap + 8) * sizeof(void *);
    if (wants_entry_chunk(s))
        n += CHUNK_ENTRIES * sizeof(struct entry) + (s->entry_chunks.cap + 8) * sizeof(void *);
    n += (size_t)ghosts_wanted(s) * GHOST_WAYS * sizeof(uint32_t);
    return n + n / 4; /* the allocator's rounding */
}

uint64_t s3fifo_own_bytes(const struct s3fifo *s)
{
    return s->stats.own_bytes;
}

/* --- entries --- */

int s3fifo_insert(struct s3fifo *s, uint64_t id, void *value, uint32_t charge_bytes)
{
    CHECK_MAGIC(s, S3FIFO_MAGIC);
    CHECK(value && charge_bytes < S3FIFO_CHARGE_MAX);
    if (s->entries + 1 >= S3FIFO_ENTRIES_MAX)
        return -ENOMEM;
    if (wants_bucket_chunk(s) && chunk_add(s, &s->bucket_chunks, CHUNK_BUCKETS * sizeof(uint32_t)) < 0)
        return -ENOMEM;
    if (wants_entry_chunk(s) && chunk_add(s, &s->entry_chunks, CHUNK_ENTRIES * sizeof(struct entry)) < 0)
        return -ENOMEM;
    ghosts_grow(s);
    if (s->entries >= s->buckets)
        bucket_split(s);

    uint32_t number = s->free_head;
    if (number != S3FIFO_NONE)
        s->free_head = entry_at(s, number)->chain;
    else
        number = s->entries_made++;
    uint32_t tag = (uint32_t)id, *bucket = bucket_of(s, tag);
    *entry_at(s, number) = (struct entry){
        .value = value, .tag = tag, .chain = *bucket, .charge_bytes = charge_bytes & (S3FIFO_CHARGE_MAX - 1)};
    *bucket = number;
    s->entries++;
    s->stats.insertions++;
    bool known = ghost_take(s, tag);
    s->stats.ghost_hits += known;
    queue_push(s, number, known);
    return 0;
}

struct s3fifo_victim s3fifo_replace(struct s3fifo *s, uint32_t number, void *value, uint32_t charge_bytes)
{
    CHECK(value && charge_bytes < S3FIFO_CHARGE_MAX);
    struct entry *e = entry_at(s, number);
    struct s3fifo_victim old = {e->value, e->charge_bytes};
    struct queue *q = queue_of(s, e);

    q->bytes = q->bytes - e->charge_bytes + charge_bytes;
    e->value = value;
    e->charge_bytes = charge_bytes & (S3FIFO_CHARGE_MAX - 1);
    return old;
}

struct s3fifo_victim s3fifo_remove(struct s3fifo *s, uint32_t number)
{
    struct entry *e = entry_at(s, number);
    struct s3fifo_victim gone = {e->value, e->charge_bytes};
    uint32_t *link = bucket_of(s, e->tag);

    CHECK(number != S3FIFO_NONE && e->value);
    while (*link != number)
        link = &entry_at(s, *link)->chain; /* packed, and aligned to 4 */
    *link = e->chain;
    queue_remove(s, number);
    e->value = NULL;
    e->chain = s->free_head;
    s->free_head = number;
    s->entries--;
    return gone;
}

/* --- eviction --- */

static void requeue(struct s3fifo *s, uint32_t number, uint32_t hits)
{
    queue_remove(s, number);
    entry_at(s, number)->hits = hits & HITS_MAX;
    queue_push(s, number, true);
}

struct s3fifo_victim s3fifo_evict(struct s3fifo *s, bool (*in_use)(const void *value))
{
    CHECK_MAGIC(s, S3FIFO_MAGIC);
    unsigned kept = 0;

    while (s->entries > 0 && kept < KEEP_MAX) {
        bool small = s->main.oldest == S3FIFO_NONE ||
                     (s->small.oldest != S3FIFO_NONE &&
                      s->small.bytes * 100 > (s->small.bytes + s->main.bytes) * SMALL_PERCENT);
        uint32_t number = small ? s->small.oldest : s->main.oldest;
        struct entry *e = entry_at(s, number);
        if (small ? e->hits >= PROMOTE_HITS : e->hits > 0) {
            s->stats.promotions += small;
            requeue(s, number, small ? 0 : e->hits - 1u);
        } else if (in_use && in_use(e->value)) {
            kept++;
            requeue(s, number, 0);
        } else {
            if (small)
                ghost_add(s, e->tag);
            s->stats.evictions++;
            return s3fifo_remove(s, number);
        }
    }
    return (struct s3fifo_victim){NULL, 0};
}

void s3fifo_stats(const struct s3fifo *s, struct s3fifo_stats *out)
{
    *out = s->stats;
    out->entries = s->entries;
    out->small_bytes = s->small.bytes;
    out->bytes = s->small.bytes + s->main.bytes;
}
