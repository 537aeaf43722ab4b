#include "cache/memory.h"

#include "cache/pages.h"
#include "cache/s3fifo.h"
#include "cache/slab.h"
#include "util/check.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#define MEMORY_MAGIC 0x4d454d54
#define SHARDS_MAX   64u
#define SHARD_BYTES_MIN                                                                                      \
    (16u << 20)                 /* so that small tiers are not cut into shards that hold a few objects       \
                                 */
#define SHARE_MIN_BYTES   4096u /* a shorter body is copied to a renewed object, not shared */
#define SLAB_SMALL        4096u /* in a tier below SLAB_TIER_BYTES: few sizes fill their slabs there */
#define SLAB_LARGE        16384u
#define SLAB_TIER_BYTES   (256u << 20)
#define MARKER_SLICE      UINT32_MAX /* where a key's marker lies among its slices */
#define MARKER_TRIES      8          /* against others who change the same marker */
#define MEMORY_BODY_SHARE 8          /* a body is at most this part of the tier */
#define IDLE_SHARE        32         /* of the tier, evictions leave at most so much idle */
#define IDLE_BYTES_MAX    (256u << 20)
#define IDLE_TIMES        128u /* nor more than so many times what is asked for */
#define RESERVED_TIMES    2u   /* address space, of the tier's size: fragments cost only that */
#define EVICTIONS_MAX     256u /* for want of address space, which should not be */

/* Alone on its cache lines: neighbours are locked by other cores. */
struct shard {
    pthread_mutex_t lock;
    struct s3fifo *index;
    uint64_t own_bytes; /* of the index, as charged */
    uint64_t replacements, removals;
    _Atomic uint64_t hits, misses;
    _Atomic uint64_t bytes; /* of its objects; read by evictors without the lock */
} __attribute__((aligned(128)));

struct memory {
    uint32_t magic;
    unsigned shards_n; /* a power of two */
    uint64_t size_bytes, idle_bytes_max;
    struct shard *shards;
    struct pages *pages; /* of bodies and slabs */
    struct slab *slab;   /* of the objects' small parts and of short bodies */
    _Atomic uint64_t epoch, epoch_floor;
    /* Written by fills and evictions only, so that hits share nothing but their shard. */
    _Atomic uint64_t used_bytes __attribute__((aligned(128)));
    _Atomic uint64_t indexed_bytes;
    _Atomic uint64_t refused;
    _Atomic unsigned hand; /* the shard where the next search for a victim begins */
};

/* What a marker holds in place of a head. */
struct marker {
    uint64_t epoch_min; /* an older object is no longer one of this key's */
    uint32_t variants_n;
    uint32_t unused;
    uint64_t
        variants[OBJECT_VARIANTS_MAX]; /* oldest first; 0 for a representation in slices that does not vary */
};

/* --- the account --- */

static void uncharge(struct memory *m, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub_explicit(&m->used_bytes, bytes, memory_order_relaxed);
    CHECK(before >= bytes);
}

static void slot_free(struct memory *m, void *slot)
{
    char *run = slab_put(m->slab, slot);
    if (!run)
        return;
    uncharge(m, SLAB_META_BYTES);
    pages_put(m->pages, run);
}

static bool in_slab(const struct memory *m, const char *body)
{
    return pages_number(m->pages, body) != 0; /* of a slab; runs of bodies have none */
}

static void body_free(struct memory *m, char *body)
{
    if (in_slab(m, body))
        slot_free(m, body);
    else
        pages_put(m->pages, body); /* charged as long as it is idle */
}

/* What the small part of an object takes, in the slab or, when it is large, from malloc. */
static size_t own_bytes_charged(const struct memory *m, const struct object *o)
{
    size_t n = object_own_bytes(o);
    return n <= slab_slot_max(m->slab) ? slab_rounded(n) : malloc_usable_size((void *)(uintptr_t)o);
}

/* Gives back the small part. */
static void own_free(struct memory *m, void *p, size_t n)
{
    if (n <= slab_slot_max(m->slab)) {
        slot_free(m, p);
    } else {
        uncharge(m, malloc_usable_size(p));
        free(p);
    }
}

/* A body that is only charged has no memory: then its length counts. */
static size_t body_bytes_of(const struct memory *m, const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    if (x && x->body_owner)
        return 0;
    if (!o->body)
        return o->body_bytes;
    return in_slab(m, o->body) ? slab_slot_bytes(m->slab, o->body) : pages_run_bytes(m->pages, o->body);
}

/* What evicting this object would free: of a shared body also the owner, which nothing else holds for long.
 */
static uint32_t charge_of(const struct memory *m, const struct object *o)
{
    const struct object_extra *x = object_extra(o);
    size_t n = own_bytes_charged(m, o) + body_bytes_of(m, o);
    if (x && x->body_owner)
        n += own_bytes_charged(m, x->body_owner) + body_bytes_of(m, x->body_owner);
    CHECK(n < S3FIFO_CHARGE_MAX);
    return (uint32_t)n;
}

static void object_free(struct memory *m, struct object *o)
{
    const struct object_extra *x = object_extra(o);
    struct object *owner = x ? x->body_owner : NULL;

    if (!o->body)
        uncharge(m, body_bytes_of(m, o));
    else if (!owner)
        body_free(m, o->body);
    o->magic = 0;
    own_free(m, o, object_own_bytes(o));
    if (owner)
        object_unref(m, &owner); /* an owner has no owner, so this goes one deep */
}

void object_unref(struct memory *m, struct object **object)
{
    struct object *o = TAKE(object);

    CHECK_MAGIC(o, OBJECT_MAGIC);
    uint32_t before = atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1)
        object_free(m, o);
}

/* --- eviction --- */

/* Under the shard's lock, where alone a reference can be added: one is the index's. */
static bool object_in_use(const void *value)
{
    const struct object *o = value;
    return atomic_load_explicit(&o->refs, memory_order_relaxed) > 1;
}

/* The index no longer holds it: the shard's account, under its lock. */
static void left_index(struct memory *m, struct shard *s, struct s3fifo_victim v)
{
    atomic_fetch_sub_explicit(&s->bytes, v.charge_bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&m->indexed_bytes, v.charge_bytes, memory_order_relaxed);
}

static void entered_index(struct memory *m, struct shard *s, uint32_t charge_bytes)
{
    atomic_fetch_add_explicit(&s->bytes, charge_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->indexed_bytes, charge_bytes, memory_order_relaxed);
}

static bool evict_from(struct memory *m, struct shard *s)
{
    pthread_mutex_lock(&s->lock);
    struct s3fifo_victim v = s3fifo_evict(s->index, object_in_use);
    if (v.value)
        left_index(m, s, v);
    pthread_mutex_unlock(&s->lock);
    if (!v.value)
        return false;
    struct object *o = v.value;
    object_unref(m, &o);
    return true;
}

/* Takes the next shard that holds its share or more, so that all shards stay even though each fills by
 * chance. */
static bool evict_one(struct memory *m)
{
    unsigned from = atomic_fetch_add_explicit(&m->hand, 1, memory_order_relaxed);
    uint64_t share = atomic_load_explicit(&m->indexed_bytes, memory_order_relaxed) / m->shards_n;

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < m->shards_n; i++) {
            struct shard *s = &m->shards[(from + i) & (m->shards_n - 1)];
            uint64_t bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed);
            if (bytes > 0 && (pass > 0 || bytes >= share) && evict_from(m, s))
                return true;
        }
    }
    return false;
}

static bool charge_what_fits(struct memory *m, uint64_t bytes)
{
    uint64_t used = atomic_load_explicit(&m->used_bytes, memory_order_relaxed);

    while (bytes <= m->size_bytes && used <= m->size_bytes - bytes) {
        if (atomic_compare_exchange_weak_explicit(&m->used_bytes, &used, used + bytes, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static bool trim(struct memory *m, uint64_t bytes)
{
    uint64_t gone = pages_trim(m->pages, bytes);
    uncharge(m, gone);
    return gone > 0;
}

/* Charges the bytes; what is idle goes, then what is evicted, until they fit. False when they cannot. */
static bool charge(struct memory *m, uint64_t bytes)
{
    while (!charge_what_fits(m, bytes)) {
        if (bytes > m->size_bytes || (!trim(m, bytes) && !evict_one(m))) {
            atomic_fetch_add_explicit(&m->refused, 1, memory_order_relaxed);
            return false;
        }
    }
    return true;
}

/* --- bodies and objects --- */

/* A run of pages, charged. What is idle is taken first, else memory that is not resident yet, else something
 * is evicted, which leaves more idle. When as much is idle as may be and nothing of it fits, it is fragments,
 * which make room by being trimmed. */
static char *run_new(struct memory *m, size_t bytes)
{
    size_t pages_n = pages_rounded(bytes) / PAGE_BYTES, resident;
    uint64_t most = pages_n * (PAGE_BYTES + PAGES_META_BYTES);
    uint64_t idle_max = m->idle_bytes_max < most * IDLE_TIMES ? m->idle_bytes_max : most * IDLE_TIMES;
    unsigned evictions = 0; /* with memory left, but no addresses */

    for (;;) {
        char *run = pages_take(m->pages, PAGES_IDLE, bytes, &resident);
        if (run)
            return run;
        bool room = charge_what_fits(m, most);
        if (room) {
            run = pages_take(m->pages, PAGES_FRESH, bytes, &resident);
            uncharge(m, run ? most - resident : most);
            if (run)
                return run;
        }
        if (room && ++evictions > EVICTIONS_MAX)
            break;
        bool fragments = pages_idle_bytes(m->pages) >= idle_max;
        if (!(fragments && trim(m, most)) && !evict_one(m) && !trim(m, most))
            break;
    }
    atomic_fetch_add_explicit(&m->refused, 1, memory_order_relaxed);
    return NULL;
}

static void *slot_new(struct memory *m, size_t bytes)
{
    void *slot;

    while (!(slot = slab_get(m->slab, bytes))) {
        if (!charge(m, SLAB_META_BYTES))
            return NULL;
        char *run = run_new(m, slab_run_bytes(m->slab, bytes));
        slot = slab_get(m->slab, bytes); /* an eviction may have freed one of this size */
        if (run && !slot) {
            slab_add(m->slab, bytes, &run);
            continue;
        }
        uncharge(m, SLAB_META_BYTES);
        if (run)
            pages_put(m->pages, run);
        break;
    }
    return slot;
}

char *memory_body_new(struct memory *m, size_t bytes)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    if (bytes == 0)
        bytes = 1;
    if (bytes > CACHE_SLICE_BYTES || bytes > m->size_bytes / MEMORY_BODY_SHARE)
        return NULL;
    return bytes <= slab_slot_max(m->slab) ? slot_new(m, bytes) : run_new(m, bytes);
}

void memory_body_free(struct memory *m, char **body)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    char *b = TAKE(body);
    if (b)
        body_free(m, b);
}

/* Memory for the small part, charged. NULL when it cannot be had. */
static void *own_new(struct memory *m, size_t n)
{
    if (n <= slab_slot_max(m->slab))
        return slot_new(m, n);
    if (!charge(m, n))
        return NULL;
    void *p = malloc(n);
    size_t rounding = p ? malloc_usable_size(p) - n : 0;
    if (p && (rounding == 0 || charge(m, rounding)))
        return p;
    free(p);
    uncharge(m, n);
    return NULL;
}

/* A body is charged already, unless it is only to be charged. */
static int object_make(struct memory *m, const struct object_spec *spec, char **body, size_t body_bytes,
                       struct object *owner, struct object **out)
{
    size_t phantom = owner || *body ? 0 : body_bytes;
    size_t n = object_spec_bytes(spec, body_bytes, owner);

    if (!charge(m, phantom))
        return -ENOMEM;
    void *p = own_new(m, n);
    if (!p) {
        uncharge(m, phantom);
        return -ENOMEM;
    }
    *out = object_init(p, spec, body, body_bytes, owner);
    return 0;
}

int memory_object_new(struct memory *m, const struct object_spec *spec, char **body, size_t body_bytes,
                      struct object **out)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    int rc = object_spec_check(spec);
    if (rc == 0 && (body_bytes > CACHE_SLICE_BYTES || body_bytes > spec->total_bytes))
        rc = -EINVAL;
    return rc < 0 ? rc : object_make(m, spec, body, body_bytes, NULL, out);
}

int memory_object_renew(struct memory *m, const struct object_spec *spec, struct object *old,
                        struct object **out)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    CHECK_MAGIC(old, OBJECT_MAGIC);
    int rc = object_spec_check(spec);
    if (rc == 0 && old->body_bytes > spec->total_bytes)
        rc = -EINVAL;
    if (rc < 0)
        return rc;

    if (old->body && old->body_bytes < SHARE_MIN_BYTES) {
        char *copy = memory_body_new(m, old->body_bytes);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, old->body, old->body_bytes);
        rc = object_make(m, spec, &copy, old->body_bytes, NULL, out);
        if (rc < 0)
            memory_body_free(m, &copy);
        return rc;
    }
    const struct object_extra *x = object_extra(old);
    return object_make(m, spec, NULL, old->body_bytes, x && x->body_owner ? x->body_owner : old, out);
}

/* --- the index --- */

/* The high bits: buckets and ghosts use the low half. */
static struct shard *shard_of(const struct memory *m, uint64_t id)
{
    return &m->shards[(id >> 58) & (m->shards_n - 1)];
}

/* Where one object belongs. */
struct identity {
    uint64_t id;
    struct str key_text;
    uint32_t slice;
    uint64_t variant;
};

static struct identity identity_of(const struct cache_key *key, uint32_t slice, uint64_t variant)
{
    return (struct identity){cache_key_id(key->hash, slice, variant), key->text, slice, variant};
}

static struct identity identity_of_object(const struct object *o)
{
    struct cache_key key = cache_key_of(object_key_text(o));
    return identity_of(&key, object_slice(o), object_variant(o));
}

/* Under the shard's lock. */
static uint32_t find(const struct shard *s, const struct identity *who)
{
    uint32_t e = s3fifo_find(s->index, who->id, S3FIFO_NONE);
    while (e != S3FIFO_NONE && !object_is(s3fifo_value(s->index, e), who->key_text, who->slice, who->variant))
        e = s3fifo_find(s->index, who->id, e);
    return e;
}

static struct object *find_ref(struct memory *m, const struct identity *who)
{
    struct shard *s = shard_of(m, who->id);
    struct object *found = NULL, *purged = NULL;

    pthread_mutex_lock(&s->lock);
    uint32_t e = find(s, who);
    if (e != S3FIFO_NONE) {
        found = s3fifo_value(s->index, e);
        if (UNLIKELY(found->epoch < atomic_load_explicit(&m->epoch_floor, memory_order_acquire))) {
            purged = found;
            found = NULL;
            left_index(m, s, s3fifo_remove(s->index, e));
            s->removals++;
        } else {
            s3fifo_hit(s->index, e);
            object_ref(found);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (purged)
        object_unref(m, &purged);
    return found;
}

/* What the index holds may be `was` only (NULL: nothing), or anything when `any`. Takes out or puts in; see
 * swap. */
struct change {
    struct identity who;
    struct object *was, *becomes; /* becomes NULL: remove */
    bool any;
};

/* Under the lock. Returns 0 with *gone for the caller to drop, -ENOENT when the index holds something else,
 * or -EAGAIN when the index must grow by more than was granted. */
static int change_locked(struct memory *m, struct shard *s, const struct change *c, size_t granted,
                         struct s3fifo_victim *gone)
{
    uint32_t e = find(s, &c->who);
    const struct object *now = e == S3FIFO_NONE ? NULL : s3fifo_value(s->index, e);

    if (!c->any && now != c->was)
        return -ENOENT;
    if (!c->becomes) {
        if (now) {
            *gone = s3fifo_remove(s->index, e);
            left_index(m, s, *gone);
            s->removals++;
        }
        return 0;
    }
    uint32_t bytes = charge_of(m, c->becomes);
    if (now) {
        *gone = s3fifo_replace(s->index, e, c->becomes, bytes);
        left_index(m, s, *gone);
        s->replacements++;
    } else {
        if (s3fifo_growth_bytes(s->index) > granted)
            return -EAGAIN;
        int rc = s3fifo_insert(s->index, c->who.id, c->becomes, bytes);
        if (rc < 0)
            return rc;
    }
    object_ref(c->becomes);
    entered_index(m, s, bytes);
    return 0;
}

/* Compares and swaps. The index grows only by what was charged before, so that the budget holds. */
static int swap(struct memory *m, const struct change *c)
{
    struct shard *s = shard_of(m, c->who.id);
    struct s3fifo_victim gone = {NULL, 0};
    size_t granted = 0, grown, wanted;
    int rc;

    for (;;) {
        pthread_mutex_lock(&s->lock);
        rc = change_locked(m, s, c, granted, &gone);
        wanted = s3fifo_growth_bytes(s->index);
        grown = s3fifo_own_bytes(s->index) - s->own_bytes;
        s->own_bytes += grown;
        pthread_mutex_unlock(&s->lock);
        if (rc != -EAGAIN)
            break;
        if (!charge(m, wanted - granted)) {
            rc = -ENOMEM;
            break;
        }
        granted = wanted;
    }
    CHECK(grown <= granted);
    if (granted > grown)
        uncharge(m, granted - grown);
    if (gone.value) {
        struct object *o = gone.value;
        object_unref(m, &o);
    }
    return rc;
}

static void take_out(struct memory *m, struct identity who)
{
    swap(m, &(struct change){.who = who, .any = true});
}

/* --- markers --- */

/* Found by its key alone, without a marker? */
static bool stands_alone(const struct object *o)
{
    return object_variant(o) == 0 && object_total_bytes(o) <= CACHE_SLICE_BYTES;
}

static struct marker marker_of(const struct object *o)
{
    struct marker k = {0};
    struct str s = object_head(o);
    CHECK(s.n <= sizeof k);
    memcpy(&k, s.p, s.n);
    return k;
}

static bool marker_lists(const struct marker *k, uint64_t variant)
{
    for (uint32_t i = 0; i < k->variants_n; i++) {
        if (k->variants[i] == variant)
            return true;
    }
    return false;
}

static void marker_add(struct marker *k, uint64_t variant)
{
    if (k->variants_n == OBJECT_VARIANTS_MAX) {
        memmove(k->variants, k->variants + 1, (OBJECT_VARIANTS_MAX - 1) * sizeof k->variants[0]);
        k->variants_n--;
    }
    k->variants[k->variants_n++] = variant;
}

static int marker_put(struct memory *m, const struct cache_key *key, const struct object *o,
                      struct object *was, const struct marker *k)
{
    struct object_spec spec = {
        .key = *key,
        .slice = MARKER_SLICE,
        .flags = OBJECT_MARKER,
        .epoch = o->epoch,
        .vary = object_vary(o),
        .head = str_of((const char *)k,
                       offsetof(struct marker, variants) + k->variants_n * sizeof k->variants[0]),
    };
    struct object *marker;
    char *no_body = NULL;
    int rc = object_make(m, &spec, &no_body, 0, NULL, &marker);
    if (rc < 0)
        return rc;
    rc = swap(m, &(struct change){.who = identity_of(key, MARKER_SLICE, 0), .was = was, .becomes = marker});
    object_unref(m, &marker);
    return rc;
}

/* Makes sure that the key's marker lists this object. -EAGAIN when others keep changing it. */
static int marker_admit(struct memory *m, const struct cache_key *key, const struct object *o)
{
    struct identity plain = identity_of(key, 0, 0), who = identity_of(key, MARKER_SLICE, 0);
    int rc = -ENOENT;

    for (int i = 0; i < MARKER_TRIES && rc == -ENOENT; i++) {
        struct object *was = find_ref(m, &who);
        struct marker k = {.epoch_min = o->epoch};
        if (was && str_eq(object_vary(was), object_vary(o)))
            k = marker_of(was);
        if (o->epoch < k.epoch_min) {
            rc = -ESTALE;
        } else if (marker_lists(&k, object_variant(o))) {
            rc = 0;
        } else {
            marker_add(&k, object_variant(o));
            rc = marker_put(m, key, o, was, &k);
        }
        if (was)
            object_unref(m, &was);
    }
    struct object *alone = rc == 0 ? find_ref(m, &plain) : NULL;
    if (alone) { /* it would be found before the marker */
        if (stands_alone(alone))
            swap(m, &(struct change){.who = plain, .was = alone});
        object_unref(m, &alone);
    }
    return rc == -ENOENT ? -EAGAIN : rc;
}

/* Of a key whose objects do not stand alone. `first` is what its plain identity holds, taken over. */
static struct object *lookup_marked(struct memory *m, const struct cache_key *key, uint32_t slice,
                                    const struct variant_select *select, struct object *first)
{
    struct identity who = identity_of(key, MARKER_SLICE, 0);
    struct object *marker = find_ref(m, &who), *found = first;

    if (marker) {
        struct marker k = marker_of(marker);
        struct str vary = object_vary(marker);
        uint64_t variant = 0;

        if (vary.n > 0 && select && select->hash)
            variant = select->hash(select->context, vary);
        else if (vary.n > 0 && select && k.variants_n > 0)
            variant = k.variants[k.variants_n - 1];
        if (variant != 0) {
            if (found)
                object_unref(m, &found);
            who = identity_of(key, slice, variant);
            found = find_ref(m, &who);
        }
        bool counts = found && marker_lists(&k, variant) && found->epoch >= k.epoch_min &&
                      str_eq(object_vary(found), vary);
        object_unref(m, &marker);
        if (counts)
            return found;
    }
    if (found)
        object_unref(m, &found);
    return NULL;
}

/* --- what others call --- */

struct object *memory_lookup(struct memory *m, const struct cache_key *key, uint32_t slice,
                             const struct variant_select *select)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    struct identity who = identity_of(key, slice, 0);
    struct object *o = find_ref(m, &who);

    if (UNLIKELY(!o || !stands_alone(o)))
        o = lookup_marked(m, key, slice, select, o);
    struct shard *s = shard_of(m, who.id);
    atomic_fetch_add_explicit(o ? &s->hits : &s->misses, 1, memory_order_relaxed);
    return o;
}

int memory_insert(struct memory *m, struct object *o)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    CHECK_MAGIC(o, OBJECT_MAGIC);
    struct cache_key key = cache_key_of(object_key_text(o));
    bool alone = stands_alone(o);

    if (o->epoch < atomic_load_explicit(&m->epoch_floor, memory_order_acquire))
        return -ESTALE;
    int rc = alone ? 0 : marker_admit(m, &key, o);
    if (rc < 0)
        return rc;
    rc =
        swap(m, &(struct change){
                    .who = identity_of(&key, object_slice(o), object_variant(o)), .becomes = o, .any = true});
    if (rc == 0 && alone)
        take_out(m, identity_of(&key, MARKER_SLICE, 0));
    return rc;
}

int memory_replace(struct memory *m, struct object *old, struct object *o)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    CHECK_MAGIC(o, OBJECT_MAGIC);
    struct change c = {.who = identity_of_object(old), .was = old, .becomes = o};
    if (!object_is(o, c.who.key_text, c.who.slice, c.who.variant) || stands_alone(o) != stands_alone(old))
        return -EINVAL;
    return swap(m, &c);
}

void memory_remove(struct memory *m, struct object *o)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    CHECK_MAGIC(o, OBJECT_MAGIC);
    swap(m, &(struct change){.who = identity_of_object(o), .was = o});
}

uint64_t memory_remove_key(struct memory *m, const struct cache_key *key)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    uint64_t epoch = atomic_fetch_add_explicit(&m->epoch, 1, memory_order_acq_rel) + 1;
    take_out(m, identity_of(key, 0, 0));
    take_out(m, identity_of(key, MARKER_SLICE, 0));
    return epoch;
}

uint64_t memory_epoch(const struct memory *m)
{
    return atomic_load_explicit(&m->epoch, memory_order_acquire);
}

void memory_purge_all(struct memory *m)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    uint64_t floor = atomic_fetch_add_explicit(&m->epoch, 1, memory_order_acq_rel) + 1;
    uint64_t before = atomic_load_explicit(&m->epoch_floor, memory_order_relaxed);
    while (before < floor &&
           !atomic_compare_exchange_weak_explicit(&m->epoch_floor, &before, floor, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

static unsigned shards_for(const struct memory_config *config)
{
    unsigned n = 1;
    if (config->shards > 0)
        return config->shards;
    while (n < SHARDS_MAX && config->size_bytes / SHARD_BYTES_MIN >= 2 * n)
        n *= 2;
    return n;
}

static int shard_init(struct shard *s)
{
    s->index = s3fifo_new();
    if (!s->index)
        return -ENOMEM;
    s->own_bytes = s3fifo_own_bytes(s->index);
    int rc = pthread_mutex_init(&s->lock, NULL);
    if (rc != 0) {
        s3fifo_free(s->index);
        s->index = NULL;
    }
    return -rc;
}

/* Beside shards and index, which account for themselves. */
static int pages_init(struct memory *m)
{
    uint64_t reserved = m->size_bytes * RESERVED_TIMES + (uint64_t)PAGES_RUN_BYTES;

    if (m->size_bytes > PAGES_RESERVED_MAX / RESERVED_TIMES || reserved > PAGES_RESERVED_MAX)
        reserved = PAGES_RESERVED_MAX;
    m->idle_bytes_max = m->size_bytes / IDLE_SHARE;
    if (m->idle_bytes_max > IDLE_BYTES_MAX)
        m->idle_bytes_max = IDLE_BYTES_MAX;
    m->pages = pages_new(reserved);
    if (m->pages)
        m->slab = slab_new(m->pages, m->size_bytes < SLAB_TIER_BYTES ? SLAB_SMALL : SLAB_LARGE, reserved);
    return m->slab ? 0 : -ENOMEM;
}

struct memory *memory_new(const struct memory_config *config)
{
    unsigned n = shards_for(config);
    CHECK((n & (n - 1)) == 0 && n <= SHARDS_MAX);
    errno = EINVAL;
    if (config->size_bytes < MEMORY_BYTES_MIN)
        return NULL;
    struct memory *m = aligned_alloc(128, sizeof *m);
    struct shard *shards = aligned_alloc(128, n * sizeof *shards);
    if (!m || !shards) {
        free(m);
        free(shards);
        errno = ENOMEM;
        return NULL;
    }
    memset(shards, 0, n * sizeof *shards);
    *m = (struct memory){.magic = MEMORY_MAGIC,
                         .size_bytes = config->size_bytes,
                         .shards = shards,
                         .epoch = 1,
                         .epoch_floor = 1};
    m->used_bytes = sizeof *m + n * sizeof *shards;
    if (pages_init(m) < 0) {
        memory_free(&m);
        errno = ENOMEM;
        return NULL;
    }
    for (; m->shards_n < n; m->shards_n++) {
        struct shard *s = &shards[m->shards_n];
        if (shard_init(s) < 0) {
            memory_free(&m);
            errno = ENOMEM;
            return NULL;
        }
        m->used_bytes += s->own_bytes;
    }
    return m;
}

static void slab_empty(struct memory *m)
{
    for (char *run; (run = slab_take_unused(m->slab)) != NULL;) {
        uncharge(m, SLAB_META_BYTES);
        pages_put(m->pages, run);
    }
    slab_free(m->slab);
}

void memory_free(struct memory **memory)
{
    struct memory *m = TAKE(memory);

    CHECK_MAGIC(m, MEMORY_MAGIC);
    for (unsigned i = 0; i < m->shards_n; i++) {
        struct shard *s = &m->shards[i];
        while (evict_from(m, s)) {
        }
        uncharge(m, s->own_bytes);
        s3fifo_free(s->index); /* which checks that it is empty: nobody may hold a reference now */
        pthread_mutex_destroy(&s->lock);
    }
    if (m->slab)
        slab_empty(m);
    if (m->pages) {
        uncharge(m, pages_trim(m->pages, UINT64_MAX) + pages_own_bytes(m->pages));
        pages_free(m->pages);
    }
    CHECK(m->used_bytes == sizeof *m + m->shards_n * sizeof *m->shards || m->shards_n == 0);
    m->magic = 0;
    free(m->shards);
    free(m);
}

void memory_stats(const struct memory *m, struct memory_stats *out)
{
    CHECK_MAGIC(m, MEMORY_MAGIC);
    uint64_t own =
        sizeof *m + m->shards_n * sizeof *m->shards + slab_unused_bytes(m->slab) + pages_own_bytes(m->pages);
    *out = (struct memory_stats){.size_bytes = m->size_bytes};
    for (unsigned i = 0; i < m->shards_n; i++) {
        struct shard *s = &m->shards[i];
        struct s3fifo_stats x;
        pthread_mutex_lock(&s->lock);
        s3fifo_stats(s->index, &x);
        out->replacements += s->replacements;
        out->removals += s->removals;
        own += s->own_bytes;
        pthread_mutex_unlock(&s->lock);
        out->objects += x.entries;
        out->indexed_bytes += x.bytes;
        out->insertions += x.insertions;
        out->evictions += x.evictions;
        out->ghost_hits += x.ghost_hits;
        out->hits += atomic_load_explicit(&s->hits, memory_order_relaxed);
        out->misses += atomic_load_explicit(&s->misses, memory_order_relaxed);
    }
    out->index_bytes = own;
    out->idle_bytes = pages_idle_bytes(m->pages);
    uint64_t used = atomic_load_explicit(&m->used_bytes, memory_order_relaxed);
    out->bytes = used > out->idle_bytes ? used - out->idle_bytes : 0; /* workers go on meanwhile */
    uint64_t known = out->indexed_bytes + own;
    out->detached_bytes = out->bytes > known ? out->bytes - known : 0;
    out->refused = atomic_load_explicit(&m->refused, memory_order_relaxed);
}
