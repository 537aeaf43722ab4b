/* Time, chance, the order of events, and whose turn it is. */
#include "sim_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct sim_world *sim_current;

/* --- chance: xoshiro256** seeded by splitmix64 --- */

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t rotate(uint64_t x, int n)
{
    return (x << n) | (x >> (64 - n));
}

uint64_t sim_random(struct sim_world *w)
{
    uint64_t *s = w->random, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t sim_below(struct sim_world *w, uint64_t n)
{
    CHECK(n > 0);
    return sim_random(w) % n;
}

uint64_t sim_between(struct sim_world *w, struct sim_range range)
{
    uint64_t width = range.max - range.min;

    CHECK(range.min <= range.max);
    if (width == 0)
        return range.min;
    /* Half of the draws from a wide range have a random number of bits, so that small values are met. */
    if (width > 16 && sim_random(w) & 1) {
        unsigned bits = 64u - (unsigned)__builtin_clzll(width);
        uint64_t low_bits = sim_random(w) >> (64 - (1 + sim_below(w, bits)));
        return range.min + (low_bits > width ? width : low_bits);
    }
    return range.min + (width == UINT64_MAX ? sim_random(w) : sim_below(w, width + 1));
}

bool sim_chance(struct sim_world *w, unsigned ppm)
{
    return ppm > 0 && sim_below(w, 1000000) < ppm;
}

/* --- the trace --- */

static void fold(struct sim_world *w, uint64_t value)
{
    w->hash = (w->hash ^ value) * 0x9fb21c651e98df25ull;
    w->hash ^= w->hash >> 32;
}

void sim_trace(struct sim_world *w, const char *what, uint64_t a, uint64_t b)
{
    fold(w, w->now);
    for (const char *p = what; *p != '\0'; p++)
        fold(w, (unsigned char)*p);
    fold(w, a);
    fold(w, b);
    if (w->trace)
        fprintf(stderr, "%11.6f %-12s %llu %lld\n", (double)w->now / 1e9, what, (unsigned long long)a,
                (long long)b);
}

void sim_trace_bytes(struct sim_world *w, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t word;

    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        fold(w, word);
    }
    for (; n > 0; n--, p++)
        fold(w, *p);
}

void sim_note(struct sim_world *w, const char *what, uint64_t a, uint64_t b)
{
    sim_trace(w, what, a, b);
}

uint64_t sim_trace_hash(const struct sim_world *w)
{
    return w->hash;
}

_Noreturn void sim_fail(const struct sim_world *w, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "sim: seed %llu, %.6f s: ", (unsigned long long)w->options.seed, (double)w->now / 1e9);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* --- events: a binary heap by time, then by the order of their setting --- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_put(struct sim_world *w, size_t i, struct sim_event *e)
{
    w->heap[i] = e;
    e->place = i + 1;
}

static void heap_up(struct sim_world *w, size_t i, struct sim_event *e)
{
    for (; i > 0 && before(e, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap_put(w, i, w->heap[(i - 1) / 2]);
    heap_put(w, i, e);
}

static void heap_down(struct sim_world *w, size_t i, struct sim_event *e)
{
    for (size_t child = 2 * i + 1; child < w->heap_n; child = 2 * i + 1) {
        if (child + 1 < w->heap_n && before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!before(w->heap[child], e))
            break;
        heap_put(w, i, w->heap[child]);
        i = child;
    }
    heap_put(w, i, e);
}

void sim_event_cancel(struct sim_world *w, struct sim_event *e)
{
    size_t i = e->place - 1;
    struct sim_event *last;

    if (e->place == 0)
        return;
    e->place = 0;
    last = w->heap[--w->heap_n];
    if (last == e)
        return;
    heap_up(w, i, last);
    heap_down(w, last->place - 1, last);
}

void sim_event_set(struct sim_world *w, struct sim_event *e, uint64_t delay_ns)
{
    CHECK(e->call != NULL);
    sim_event_cancel(w, e);
    if (w->heap_n == w->heap_cap) {
        w->heap_cap = w->heap_cap ? 2 * w->heap_cap : 256;
        w->heap = realloc(w->heap, w->heap_cap * sizeof(struct sim_event *));
        CHECK(w->heap != NULL);
    }
    e->at = w->now + delay_ns;
    e->order = w->event_order++;
    heap_up(w, w->heap_n++, e);
}

struct call {
    struct list link;
    struct sim_event event;
    struct sim_world *w;
    void (*call)(void *);
    void *context;
};

static void run_call(void *context)
{
    struct call *c = context;
    struct call copy = *c;

    list_remove(&c->link);
    free(c);
    sim_trace(copy.w, "call", 0, 0);
    copy.call(copy.context);
}

void sim_after(struct sim_world *w, uint64_t delay_ns, void (*call)(void *), void *context)
{
    struct call *c = calloc(1, sizeof *c);

    CHECK(c != NULL);
    *c = (struct call){.event = {.call = run_call, .context = c}, .w = w, .call = call, .context = context};
    list_push_back(&w->calls, &c->link);
    sim_event_set(w, &c->event, delay_ns);
}

/* --- bytes in order --- */

void sim_bytes_add(struct sim_bytes *b, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    if (b->head > 0 && b->head + b->n + n > b->cap) {
        memmove(b->p, b->p + b->head, b->n);
        b->head = 0;
    }
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        CHECK(b->p != NULL);
    }
    memcpy(b->p + b->head + b->n, bytes, n);
    b->n += n;
}

void sim_bytes_drop(struct sim_bytes *b, size_t n)
{
    CHECK(n <= b->n);
    b->head += n;
    b->n -= n;
    if (b->n == 0)
        b->head = 0;
}

void sim_bytes_free(struct sim_bytes *b)
{
    free(b->p);
    *b = (struct sim_bytes){0};
}

/* --- the world --- */

struct sim_options sim_options_calm(uint64_t seed)
{
    return (struct sim_options){
        .seed = seed,
        .net = {.latency_ns = {20 * NS_PER_US, 2 * NS_PER_MS},
                .gap_ns = {0, 20 * NS_PER_US},
                .segment_bytes = {1, 65536},
                .send_buffer_bytes = {65536, 262144},
                .receive_buffer_bytes = {65536, 262144},
                .operation_ns = {500, 20 * NS_PER_US},
                .read_bytes = {1, 65536},
                .disk_ns = {20 * NS_PER_US, 5 * NS_PER_MS},
                .turn_ns = {500, 8 * NS_PER_US}},
    };
}

struct sim_options sim_options_rough(uint64_t seed)
{
    struct sim_options o = sim_options_calm(seed);
    struct sim_world chooser = {0};
    static const uint64_t segments_max[] = {1, 3, 100, 1460, 1460, 65536};
    static const uint64_t buffers_max[] = {0, 64, 4096, 65536, 262144, 1048576};
    uint64_t segment_max;
    bool tiny;

    for (unsigned i = 0; i < 4; i++)
        chooser.random[i] = splitmix(&seed);
    segment_max = segments_max[sim_below(&chooser, ARRAY_LEN(segments_max))];
    o.net.segment_bytes = (struct sim_range){1, segment_max};
    /* Buffers of a byte and long ways, or segments of a byte, would only take long. */
    tiny = segment_max >= 1460 && sim_below(&chooser, 3) == 0;
    o.net.send_buffer_bytes = o.net.receive_buffer_bytes = (struct sim_range){tiny ? 1 : 4096, 4096};
    o.net.send_buffer_bytes.max += buffers_max[sim_below(&chooser, ARRAY_LEN(buffers_max))];
    o.net.receive_buffer_bytes.max += buffers_max[sim_below(&chooser, ARRAY_LEN(buffers_max))];
    o.net.latency_ns.max =
        (1 + sim_below(&chooser, 100)) * (tiny ? NS_PER_US : NS_PER_MS) + o.net.latency_ns.min;
    if (segment_max < 100)
        o.net.gap_ns.max = 2 * NS_PER_US;
    o.net.turn_ns.max = (1 + sim_below(&chooser, 200)) * NS_PER_US;
    o.faults = (struct sim_faults){
        .short_send_ppm = (unsigned)sim_below(&chooser, 200000),
        .short_recv_ppm = (unsigned)sim_below(&chooser, 500000),
        .recv_ends_ppm = (unsigned)sim_below(&chooser, 200000),
        .stall_ppm = segment_max < 100 ? 20 : (unsigned)sim_below(&chooser, 10000),
        .stall_ns = {NS_PER_MS, 300 * NS_PER_MS},
        .spurious_wake_ppm = (unsigned)sim_below(&chooser, 200000),
        .cancel_late_ppm = (unsigned)sim_below(&chooser, 500000),
    };
    return o;
}

struct sim_range sim_seeds(uint64_t default_n)
{
    const char *one = getenv("SIM_SEED"), *n = getenv("SIM_SEEDS");

    if (one != NULL)
        return (struct sim_range){strtoull(one, NULL, 10), strtoull(one, NULL, 10)};
    return (struct sim_range){1, n != NULL ? strtoull(n, NULL, 10) : default_n};
}

struct sim_world *sim_create(const struct sim_options *options)
{
    struct sim_world *w = calloc(1, sizeof *w);
    uint64_t seed = options->seed;

    CHECK(w != NULL && sim_current == NULL);
    w->options = *options;
    w->secrets = seed;
    if (w->options.unix_s == 0)
        w->options.unix_s = 1790000000;
    for (unsigned i = 0; i < 4; i++)
        w->random[i] = splitmix(&seed);
    /* Some worlds begin shortly before a 32-bit count of milliseconds wraps. */
    w->mono_base = sim_below(w, 4) == 0 ? ((1ull << 32) - 1 - sim_below(w, 60000)) * NS_PER_MS
                                        : (1 + sim_below(w, 1000000)) * NS_PER_S;
    w->trace = getenv("SIM_TRACE") != NULL;
    w->next_port = 32768;
    list_init(&w->ios);
    list_init(&w->listeners);
    list_init(&w->routes);
    list_init(&w->conns);
    list_init(&w->calls);
    sim_current = w;
    return w;
}

void sim_destroy(struct sim_world **world)
{
    struct sim_world *w = TAKE(world);

    if (!list_empty(&w->ios))
        sim_fail(w, "an io is left");
    sim_check_clean(w);
    LIST_EACH (&w->calls, node) {
        list_remove(node);
        free(LIST_ENTRY(node, struct call, link));
    }
    sim_net_forget(w);
    sim_tls_forget_world(w);
    free(w->heap);
    free(w->fds);
    free(w->ops);
    free(w);
    sim_current = NULL;
}

void sim_check_clean(struct sim_world *w)
{
    if (w->ops_in_flight > 0)
        sim_fail(w, "%zu operations are in flight", w->ops_in_flight);
    for (size_t i = 0; i < w->fds_n; i++)
        if (w->fds[i].kind != SIM_FD_CLOSED)
            sim_fail(w, "%zu descriptors are left open, the first is %zu", w->fds_open, i + SIM_FD_BASE);
}

size_t sim_open_fds(const struct sim_world *w)
{
    return w->fds_open;
}

size_t sim_ops_in_flight(const struct sim_world *w)
{
    return w->ops_in_flight;
}

struct sim_net *sim_net(struct sim_world *w)
{
    return &w->options.net;
}

struct sim_faults *sim_faults(struct sim_world *w)
{
    return &w->options.faults;
}

const struct sim_counts *sim_counts(const struct sim_world *w)
{
    return &w->counts;
}

uint64_t sim_seed(const struct sim_world *w)
{
    return w->options.seed;
}

uint64_t sim_now_ns(const struct sim_world *w)
{
    return w->now;
}

uint64_t sim_unix_s(const struct sim_world *w)
{
    return w->options.unix_s + w->now / NS_PER_S;
}

uint64_t clock_mono_ns(void)
{
    CHECK(sim_current != NULL);
    return sim_current->mono_base + sim_current->now;
}

uint64_t clock_unix_ns(void)
{
    CHECK(sim_current != NULL);
    return sim_current->options.unix_s * NS_PER_S + sim_current->now;
}

/* --- running --- */

static struct io *choose_io(struct sim_world *w)
{
    struct io *chosen = NULL;
    uint64_t n = 0;

    LIST_EACH (&w->ios, node) {
        struct io *io = LIST_ENTRY(node, struct io, link);
        if (sim_io_wants_turn(io) && sim_below(w, ++n) == 0)
            chosen = io;
    }
    return chosen;
}

static uint64_t next_wish(const struct sim_world *w)
{
    uint64_t at = SIM_NEVER;

    LIST_EACH (&w->ios, node) {
        uint64_t io_at = sim_io_next_ns(LIST_ENTRY(node, struct io, link));
        at = io_at < at ? io_at : at;
    }
    return at;
}

static void run_turn(struct sim_world *w, struct io *io)
{
    w->now += sim_between(w, w->options.net.turn_ns);
    sim_trace(w, "turn", 0, io->ready.n);
    io->turn(io->turn_context);
}

/* One event or turn, or a jump of the clock. False: nothing until `end`. */
static bool step(struct sim_world *w, uint64_t end)
{
    struct sim_event *e = w->heap_n > 0 ? w->heap[0] : NULL;
    struct io *io;
    uint64_t next;

    if (e != NULL && e->at <= w->now) {
        sim_event_cancel(w, e);
        e->call(e->context);
        return true;
    }
    io = choose_io(w);
    if (io != NULL) {
        run_turn(w, io);
        return true;
    }
    next = next_wish(w);
    if (e != NULL && e->at < next)
        next = e->at;
    if (next > end) {
        w->now = end > w->now ? end : w->now;
        return false;
    }
    w->now = next > w->now ? next : w->now;
    return true;
}

bool sim_run(struct sim_world *w, bool (*until)(void *), void *context, uint64_t for_ns)
{
    uint64_t end = for_ns > SIM_NEVER - 1 - w->now ? SIM_NEVER - 1 : w->now + for_ns;

    while (until == NULL || !until(context)) {
        if (w->now >= end || !step(w, end))
            return until != NULL && until(context);
    }
    return true;
}

bool sim_run_idle(struct sim_world *w, uint64_t for_ns)
{
    uint64_t end = w->now + for_ns;

    while (w->heap_n > 0 || choose_io(w) != NULL) {
        if (w->now >= end || !step(w, end))
            return false;
    }
    return true;
}
