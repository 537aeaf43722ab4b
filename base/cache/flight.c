#include "cache/flight.h"

#include "util/clock.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS_N       4096u
#define PAST_N          1024u
#define RING_BYTES      (256u * 1024u)
#define RING_LONG_BYTES CACHE_SLICE_BYTES /* length unknown: what fits is stored at the end */

struct flight_mail {
    struct mail mail;
    struct flight *flight; /* with a reference while posted */
    bool posted;           /* guarded by the flight's lock */
    uint16_t worker;
};

struct flight {
    uint32_t magic;
    _Atomic uint32_t refs; /* the fill, each reader, each posted mail */
    struct flight_table *table;
    struct flight *next_in_bucket; /* guarded by the table's lock */
    bool listed;                   /* the same */

    struct cache_key key;
    uint32_t slice;
    uint64_t variant;
    uint64_t id;

    pthread_mutex_t lock;
    struct list readers;
    _Atomic int state;
    _Atomic uint64_t written;
    bool scattered;
    bool validated;
    bool fill_waiting;  /* for room */
    bool fill_wake_due; /* a mail to the fill's worker is to wake it */
    struct flow *fill;
    uint16_t fill_worker;

    struct flight_answer answer;
    char *answer_text; /* what answer.spec's strings point into */
    struct flight_error error;
    struct object *object;

    char *run;
    uint64_t run_bytes;
    uint64_t start; /* ring: bytes before it are overwritten or may be */
    bool ring;
    bool overwriting;
    enum run_owner { RUN_NOBODYS, RUN_OWN, RUN_MEMORYS, RUN_OBJECTS } run_owner;

    struct flight_mail mails[];
};

struct past {
    uint64_t id;
    uint64_t until_ns;
    enum flight_past what;
    struct flight_error error;
};

struct flight_table {
    struct memory *memory;
    unsigned workers_n;
    pthread_mutex_t lock;
    struct flight *buckets[BUCKETS_N];
    struct past past[PAST_N];
    _Atomic uint64_t flights, readers, joined_total;
    struct flight_worker workers[];
};

struct flight_table *flight_table_create(struct memory *memory, const struct flight_worker *workers,
                                         unsigned workers_n)
{
    struct flight_table *t;

    CHECK(workers_n > 0 && workers_n <= FLIGHT_WORKERS_MAX);
    t = calloc(1, sizeof *t + workers_n * sizeof t->workers[0]);
    if (t == NULL)
        return NULL;
    t->memory = memory;
    t->workers_n = workers_n;
    memcpy(t->workers, workers, workers_n * sizeof t->workers[0]);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void flight_table_attach(struct flight_table *t, unsigned worker, struct flow_queue *ready)
{
    CHECK(worker < t->workers_n);
    t->workers[worker].ready = ready;
}

void flight_table_destroy(struct flight_table **table)
{
    struct flight_table *t = TAKE(table);

    CHECK(atomic_load(&t->flights) == 0);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void flight_stats(const struct flight_table *t, struct flight_stats *out)
{
    out->flights = atomic_load_explicit(&t->flights, memory_order_relaxed);
    out->readers = atomic_load_explicit(&t->readers, memory_order_relaxed);
    out->joined_total = atomic_load_explicit(&t->joined_total, memory_order_relaxed);
}

static void mail_received(struct mail *mail, void *context);

static struct flight *flight_new(struct flight_table *t, unsigned worker, const struct cache_key *key,
                                 uint32_t slice, uint64_t variant)
{
    struct flight *f;
    char *text;

    CHECK(worker < t->workers_n);
    f = calloc(1, sizeof *f + t->workers_n * sizeof f->mails[0] + key->text.n);
    if (f == NULL)
        return NULL;
    text = (char *)&f->mails[t->workers_n];
    memcpy(text, key->text.p, key->text.n);
    f->magic = FLIGHT_MAGIC;
    f->refs = 1; /* the fill's */
    f->table = t;
    f->key = (struct cache_key){.hash = key->hash, .text = str_of(text, key->text.n)};
    f->slice = slice;
    f->variant = variant;
    f->id = cache_key_id(key->hash, slice, variant);
    f->fill_worker = (uint16_t)worker;
    pthread_mutex_init(&f->lock, NULL);
    list_init(&f->readers);
    for (unsigned i = 0; i < t->workers_n; i++)
        f->mails[i] = (struct flight_mail){.mail.receive = mail_received, .flight = f, .worker = (uint16_t)i};
    atomic_fetch_add_explicit(&t->flights, 1, memory_order_relaxed);
    return f;
}

static void flight_unref(struct flight *f)
{
    if (atomic_fetch_sub(&f->refs, 1) != 1)
        return;
    CHECK(list_empty(&f->readers) && !f->listed);
    if (f->object != NULL)
        object_unref(f->table->memory, &f->object);
    if (f->run_owner == RUN_MEMORYS)
        memory_body_free(f->table->memory, &f->run);
    else if (f->run_owner == RUN_OWN)
        free(f->run);
    free(f->answer_text);
    atomic_fetch_sub_explicit(&f->table->flights, 1, memory_order_relaxed);
    pthread_mutex_destroy(&f->lock);
    f->magic = 0;
    free(f);
}

/* --- the table --- */

static struct flight **bucket_of(struct flight_table *t, uint64_t id)
{
    return &t->buckets[id % BUCKETS_N];
}

static struct flight *find_locked(struct flight_table *t, const struct cache_key *key, uint32_t slice,
                                  uint64_t variant)
{
    uint64_t id = cache_key_id(key->hash, slice, variant);

    for (struct flight *f = *bucket_of(t, id); f != NULL; f = f->next_in_bucket)
        if (f->id == id && f->slice == slice && f->variant == variant && str_eq(f->key.text, key->text))
            return f;
    return NULL;
}

static void list_locked(struct flight_table *t, struct flight *f)
{
    struct flight **bucket = bucket_of(t, f->id);

    f->next_in_bucket = *bucket;
    f->listed = true;
    *bucket = f;
}

static void unlist(struct flight *f)
{
    pthread_mutex_lock(&f->table->lock);
    if (f->listed) {
        struct flight **at = bucket_of(f->table, f->id);
        while (*at != f)
            at = &(*at)->next_in_bucket;
        *at = f->next_in_bucket;
        f->listed = false;
    }
    pthread_mutex_unlock(&f->table->lock);
}

static void remember(struct flight *f, enum flight_past what, uint64_t until_ns)
{
    struct flight_table *t = f->table;

    pthread_mutex_lock(&t->lock);
    t->past[f->id % PAST_N] =
        (struct past){.id = f->id, .until_ns = until_ns, .what = what, .error = f->error};
    pthread_mutex_unlock(&t->lock);
}

enum flight_past flight_past(struct flight_table *t, const struct cache_key *key, uint32_t slice,
                             uint64_t variant, uint64_t now_ns, struct flight_error *error)
{
    uint64_t id = cache_key_id(key->hash, slice, variant);
    struct past *p = &t->past[id % PAST_N];
    enum flight_past what = FLIGHT_PAST_NONE;

    pthread_mutex_lock(&t->lock);
    if (p->id == id && now_ns < p->until_ns) {
        what = p->what;
        *error = p->error;
    }
    pthread_mutex_unlock(&t->lock);
    return what;
}

/* --- readers --- */

static void add_reader(struct flight *f, struct flight_reader *r, struct flow *flow, unsigned worker,
                       bool first)
{
    *r = (struct flight_reader){.flight = f, .flow = flow, .worker = (uint16_t)worker, .first = first};
    atomic_fetch_add(&f->refs, 1);
    pthread_mutex_lock(&f->lock);
    list_push_back(&f->readers, &r->node);
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_add_explicit(&f->table->readers, 1, memory_order_relaxed);
}

struct flight *flight_join(struct flight_table *t, struct flight_reader *reader, struct flow *flow,
                           unsigned worker, const struct cache_key *key, uint32_t slice, uint64_t variant,
                           bool *made)
{
    struct flight *f;

    pthread_mutex_lock(&t->lock);
    f = find_locked(t, key, slice, variant);
    *made = f == NULL;
    if (f == NULL) {
        f = flight_new(t, worker, key, slice, variant);
        if (f != NULL)
            list_locked(t, f);
    }
    if (f != NULL) /* under the table's lock: the fill cannot go before the reader is in */
        add_reader(f, reader, flow, worker, *made);
    pthread_mutex_unlock(&t->lock);
    if (f != NULL && !*made)
        atomic_fetch_add_explicit(&t->joined_total, 1, memory_order_relaxed);
    return f;
}

struct flight *flight_alone(struct flight_table *t, struct flight_reader *reader, struct flow *flow,
                            unsigned worker, const struct cache_key *key, uint32_t slice)
{
    struct flight *f = flight_new(t, worker, key, slice, 0);

    if (f != NULL)
        add_reader(f, reader, flow, worker, true);
    return f;
}

struct flight *flight_background(struct flight_table *t, unsigned worker, const struct cache_key *key,
                                 uint32_t slice, uint64_t variant)
{
    struct flight *f = NULL;

    pthread_mutex_lock(&t->lock);
    if (find_locked(t, key, slice, variant) == NULL) {
        f = flight_new(t, worker, key, slice, variant);
        if (f != NULL)
            list_locked(t, f);
    }
    pthread_mutex_unlock(&t->lock);
    return f;
}

enum flight_state flight_state(const struct flight *f)
{
    CHECK_MAGIC(f, FLIGHT_MAGIC);
    return (enum flight_state)atomic_load_explicit(&f->state, memory_order_acquire);
}

const struct flight_answer *flight_answer(const struct flight *f)
{
    CHECK(f->answer_text != NULL);
    return &f->answer;
}

struct object *flight_object(const struct flight *f)
{
    CHECK(flight_state(f) == FLIGHT_COMPLETE);
    return f->object;
}

bool flight_is_validated(const struct flight *f)
{
    return f->validated;
}

const struct flight_error *flight_error(const struct flight *f)
{
    CHECK(flight_state(f) == FLIGHT_FAILED);
    return &f->error;
}

uint64_t flight_written(const struct flight *f)
{
    return atomic_load_explicit(&f->written, memory_order_acquire);
}

bool flight_keeps(const struct flight *f)
{
    return !f->ring;
}

struct str flight_bytes(const struct flight *f, uint64_t offset, uint64_t max)
{
    uint64_t written = flight_written(f);
    uint64_t at, n;

    if (offset >= written)
        return STR_NONE;
    at = f->ring ? offset % f->run_bytes : offset;
    n = written - offset;
    if (n > f->run_bytes - at)
        n = f->run_bytes - at;
    return str_of(f->run + at, n < max ? n : max);
}

/* Wakes whoever waits; called with the lock held, by the thread of `worker`. */
static void wake_readers_locked(struct flight *f, unsigned worker)
{
    LIST_EACH (&f->readers, node) {
        struct flight_reader *r = LIST_ENTRY(node, struct flight_reader, node);
        struct flight_mail *m = &f->mails[r->worker];

        if (!r->waiting)
            continue;
        if (r->worker == worker) {
            r->waiting = false;
            flow_wake(f->table->workers[worker].ready, r->flow);
        } else if (!m->posted) {
            m->posted = true;
            atomic_fetch_add(&f->refs, 1);
            mailbox_post(f->table->workers[r->worker].mailbox, &m->mail);
        }
    }
}

static void wake_fill_locked(struct flight *f, unsigned worker)
{
    struct flight_mail *m = &f->mails[f->fill_worker];

    if (!f->fill_waiting || f->fill == NULL)
        return;
    if (worker == f->fill_worker) {
        f->fill_waiting = false;
        flow_wake(f->table->workers[worker].ready, f->fill);
        return;
    }
    f->fill_wake_due = true;
    if (!m->posted) {
        m->posted = true;
        atomic_fetch_add(&f->refs, 1);
        mailbox_post(f->table->workers[f->fill_worker].mailbox, &m->mail);
    }
}

static void mail_received(struct mail *mail, void *context)
{
    struct flight_mail *m = CONTAINER_OF(mail, struct flight_mail, mail);
    struct flight *f = m->flight;
    struct flow_queue *ready = f->table->workers[m->worker].ready;

    (void)context;
    CHECK_MAGIC(f, FLIGHT_MAGIC);
    pthread_mutex_lock(&f->lock);
    m->posted = false;
    LIST_EACH (&f->readers, node) {
        struct flight_reader *r = LIST_ENTRY(node, struct flight_reader, node);

        if (r->worker == m->worker && r->waiting) {
            r->waiting = false;
            flow_wake(ready, r->flow);
        }
    }
    if (m->worker == f->fill_worker && f->fill_wake_due) {
        f->fill_wake_due = false;
        f->fill_waiting = false;
        if (f->fill != NULL)
            flow_wake(ready, f->fill);
    }
    pthread_mutex_unlock(&f->lock);
    flight_unref(f);
}

void flight_read_up_to(struct flight_reader *r, uint64_t offset)
{
    struct flight *f = r->flight;

    if (!f->ring)
        return;
    pthread_mutex_lock(&f->lock);
    if (offset > r->read)
        r->read = offset;
    wake_fill_locked(f, r->worker);
    pthread_mutex_unlock(&f->lock);
}

bool flight_wait(struct flight_reader *r, enum flight_state seen, uint64_t seen_written)
{
    struct flight *f = r->flight;
    bool same;

    pthread_mutex_lock(&f->lock);
    same = flight_state(f) == seen && flight_written(f) == seen_written;
    r->waiting = same;
    pthread_mutex_unlock(&f->lock);
    return same;
}

void flight_leave(struct flight_reader *r)
{
    struct flight *f = TAKE(&r->flight);

    pthread_mutex_lock(&f->lock);
    list_remove(&r->node);
    r->waiting = false;
    if (list_empty(&f->readers) || r->first) /* the fill may go on for nobody now */
        f->fill_waiting = true;
    wake_fill_locked(f, r->worker);
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_sub_explicit(&f->table->readers, 1, memory_order_relaxed);
    flight_unref(f);
}

bool flight_scattered(const struct flight_reader *r)
{
    return r->flight->scattered && !r->first;
}

/* --- the fill --- */

struct cache_key flight_key(const struct flight *f)
{
    return f->key;
}

uint32_t flight_slice(const struct flight *f)
{
    return f->slice;
}

void flight_set_fill(struct flight *f, struct flow *flow)
{
    f->fill = flow;
}

static bool is_deserted(struct flight *f)
{
    bool deserted = true;

    pthread_mutex_lock(&f->lock);
    LIST_EACH (&f->readers, node)
        deserted = deserted && f->scattered && !LIST_ENTRY(node, struct flight_reader, node)->first;
    pthread_mutex_unlock(&f->lock);
    return deserted;
}

bool flight_deserted(struct flight *f)
{
    if (!f->ring || (f->answer.store && !f->overwriting) || !is_deserted(f))
        return false;
    unlist(f); /* nobody joins what is about to fail; somebody may have, just now */
    return is_deserted(f);
}

static struct str keep(char **to, struct str s)
{
    struct str kept = str_of(*to, s.n);

    if (s.n > 0)
        memcpy(*to, s.p, s.n);
    *to += s.n;
    return kept;
}

static int keep_answer(struct flight *f, const struct flight_answer *answer)
{
    const struct object_spec *spec = &answer->spec;
    char *to = malloc(spec->head.n + spec->vary.n + spec->tags.n + 1);

    if (to == NULL)
        return -ENOMEM;
    f->answer = *answer;
    f->answer_text = to;
    f->answer.spec.head = keep(&to, spec->head);
    f->answer.spec.vary = keep(&to, spec->vary);
    f->answer.spec.tags = keep(&to, spec->tags);
    f->answer.spec.key = f->key;
    f->answer.spec.slice = f->slice;
    return 0;
}

static int take_run(struct flight *f)
{
    const struct flight_answer *a = &f->answer;

    if (a->store && a->length != FLIGHT_LENGTH_UNKNOWN) {
        if (a->length == 0)
            return 0;
        f->run = memory_body_new(f->table->memory, a->length);
        if (f->run != NULL) {
            f->run_bytes = a->length;
            f->run_owner = RUN_MEMORYS;
            return 0;
        }
        f->answer.store = false;
    }
    f->ring = true;
    f->run_bytes = a->store ? RING_LONG_BYTES : RING_BYTES;
    f->run = malloc(f->run_bytes);
    if (f->run == NULL)
        return -ENOMEM;
    f->run_owner = RUN_OWN;
    return 0;
}

static void set_state(struct flight *f, enum flight_state state)
{
    pthread_mutex_lock(&f->lock);
    atomic_store_explicit(&f->state, (int)state, memory_order_release);
    wake_readers_locked(f, f->fill_worker);
    pthread_mutex_unlock(&f->lock);
}

int flight_begin(struct flight *f, const struct flight_answer *answer, uint64_t now_ns)
{
    int error = keep_answer(f, answer);

    CHECK(flight_state(f) == FLIGHT_ASKED);
    if (error == 0)
        error = take_run(f);
    if (error != 0)
        return error;
    if (!f->answer.shared) {
        f->scattered = true;
        unlist(f);
        if (!f->answer.store)
            remember(f, FLIGHT_PAST_SCATTERED, now_ns + FLIGHT_SCATTERED_MS * NS_PER_MS);
    }
    set_state(f, FLIGHT_STREAMING);
    return 0;
}

/* Moves the ring's start to its slowest reader. */
static void give_up_read_bytes_locked(struct flight *f)
{
    uint64_t slowest = flight_written(f);

    LIST_EACH (&f->readers, node) {
        const struct flight_reader *r = LIST_ENTRY(node, struct flight_reader, node);

        if (f->scattered && !r->first)
            continue;
        if (r->read < slowest)
            slowest = r->read;
    }
    f->start = slowest;
}

char *flight_room(struct flight *f, size_t *n)
{
    uint64_t written = flight_written(f);
    uint64_t at, left;

    if (!f->ring) {
        *n = f->run_bytes - written;
        return f->run + written;
    }
    if (written - f->start == f->run_bytes) {
        if (!f->overwriting) { /* from here on nobody can join, and it is too long to be kept */
            unlist(f);         /* outside the lock: the table's is taken first, never second */
            f->overwriting = true;
        }
        pthread_mutex_lock(&f->lock);
        give_up_read_bytes_locked(f);
        f->fill_waiting = written - f->start == f->run_bytes;
        pthread_mutex_unlock(&f->lock);
    }
    at = written % f->run_bytes;
    left = f->run_bytes - (written - f->start);
    *n = left < f->run_bytes - at ? left : f->run_bytes - at;
    return f->run + at;
}

void flight_wrote(struct flight *f, size_t n)
{
    pthread_mutex_lock(&f->lock);
    atomic_store_explicit(&f->written, flight_written(f) + n, memory_order_release);
    CHECK(flight_written(f) - f->start <= f->run_bytes);
    wake_readers_locked(f, f->fill_worker);
    pthread_mutex_unlock(&f->lock);
}

/* Gives the head of a body whose length is known only now its Content-Length. Returns the text that
 * spec->head points into, or NULL. */
static char *add_content_length(struct object_spec *spec, uint64_t n)
{
    struct str tail = str_skip(spec->head, spec->head_tail_at);
    struct buf b = {.cap = spec->head.n + 64};
    size_t added;

    b.p = malloc(b.cap);
    if (b.p == NULL)
        return NULL;
    buf_add(&b, spec->head.p, spec->head_tail_at);
    buf_printf(&b, "Content-Length: %llu\r\n", (unsigned long long)n);
    added = b.n - spec->head_tail_at;
    buf_add_str(&b, tail);
    spec->head = buf_str(&b);
    spec->head_tail_at = (uint16_t)(spec->head_tail_at + added);
    spec->etag_at = spec->etag_at ? (uint16_t)(spec->etag_at + added) : 0;
    spec->last_modified_at = spec->last_modified_at ? (uint16_t)(spec->last_modified_at + added) : 0;
    spec->total_bytes = n;
    return b.p;
}

/* The object, when there is one to be: NULL costs only the cache's keeping it. Readers go on reading the run:
 * an object that takes it stays as long as the flight. */
static struct object *make_object(struct flight *f)
{
    struct memory *m = f->table->memory;
    struct object_spec spec = f->answer.spec;
    struct object *object = NULL;
    uint64_t n = flight_written(f);
    char *head = NULL;

    if (!f->answer.store || f->overwriting)
        return NULL;
    if (f->ring) {
        char *body = n > 0 ? memory_body_new(m, n) : NULL;

        head = add_content_length(&spec, n);
        if (head != NULL && (body != NULL || n == 0)) {
            if (n > 0)
                memcpy(body, f->run, n);
            (void)memory_object_new(m, &spec, &body, n, &object);
        }
        if (body != NULL)
            memory_body_free(m, &body);
        free(head);
    } else {
        char *body = f->run;

        if (memory_object_new(m, &spec, &body, n, &object) == 0 && f->run_owner == RUN_MEMORYS)
            f->run_owner = RUN_OBJECTS;
    }
    return object;
}

static void finish(struct flight **fp, enum flight_state state)
{
    struct flight *f = TAKE(fp);

    unlist(f);
    pthread_mutex_lock(&f->lock);
    f->fill = NULL;
    pthread_mutex_unlock(&f->lock);
    set_state(f, state);
    flight_unref(f);
}

void flight_complete(struct flight **f)
{
    struct object *object = make_object(*f);

    if (object != NULL) {
        (void)memory_insert((*f)->table->memory, object); /* not kept: its readers have it all the same */
        (*f)->object = object;
    }
    finish(f, FLIGHT_COMPLETE);
}

void flight_complete_with(struct flight **f, struct object *object)
{
    object_ref(object);
    (*f)->object = object;
    (*f)->validated = true;
    finish(f, FLIGHT_COMPLETE);
}

void flight_fail(struct flight **f, const struct flight_error *error, uint64_t now_ns)
{
    (*f)->error = *error;
    if (flight_state(*f) == FLIGHT_ASKED && error->status >= 500)
        remember(*f, FLIGHT_PAST_FAILED, now_ns + FLIGHT_FAILED_MS * NS_PER_MS);
    finish(f, FLIGHT_FAILED);
}
