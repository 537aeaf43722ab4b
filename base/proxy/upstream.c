#include "proxy/upstream.h"

#include "proxy/worker.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* How long a connection rests before it is given to somebody who waits: long enough to see what its peer sent
 * beyond the answer, or its end. */
#define REUSE_AFTER_MS 1u

struct upstream_set {
    struct worker *worker;
    bool retired;
    unsigned open_n; /* over all upstreams */
    unsigned n;
    uint64_t idle_ms;
    unsigned idle_max;
    struct upstream items[];
};

enum { STEP_IDLE, STEP_CLOSE };
static const struct flow_type idle_type;

struct upstream_set *upstream_set_create(struct worker *w, const struct proxy_conf *conf)
{
    struct upstream_set *set = calloc(1, sizeof *set + conf->upstreams_n * sizeof set->items[0]);

    if (set == NULL)
        return NULL;
    set->worker = w;
    set->n = conf->upstreams_n;
    set->idle_ms = conf->timeouts.upstream_idle_ms;
    set->idle_max = conf->limits.upstream_idle_max;
    for (unsigned i = 0; i < set->n; i++) {
        struct upstream *u = &set->items[i];
        unsigned share = conf->upstreams[i].connections_max / w->proxy->workers_n;

        u->conf = &conf->upstreams[i];
        u->set = set;
        u->open_max = share > 0 ? share : 1;
        list_init(&u->idle);
        list_init(&u->waiting);
    }
    return set;
}

static void free_if_over(struct upstream_set *set)
{
    if (set->retired && set->open_n == 0)
        free(set);
}

void upstream_set_retire(struct upstream_set **setp)
{
    struct upstream_set *set = TAKE(setp);

    set->retired = true;
    for (unsigned i = 0; i < set->n; i++)
        LIST_EACH (&set->items[i].idle, node) {
            struct upstream_conn *c = LIST_ENTRY(node, struct upstream_conn, node);

            c->flow.step = STEP_CLOSE;
            io_wake(set->worker->io, &c->flow);
        }
    free_if_over(set);
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

/* Weighted rendezvous: the highest -weight / ln(u) for u uniform in (0, 1) wins with probability by weight.
 */
static double rank_of(const struct upstream *u, unsigned index, struct hash128 key)
{
    uint64_t h = mix(key.low ^ mix(key.high + index));
    double uniform = ((double)(h >> 11) + 0.5) / 9007199254740992.0;

    return -(double)u->conf->weight / log(uniform);
}

struct upstream *upstream_choose(struct upstream_set *set, struct str path, struct hash128 key,
                                 uint64_t *tried)
{
    uint64_t now_ns = worker_now_ns(set->worker);
    struct upstream *best = NULL;
    int best_class = -1;
    double best_rank = 0;

    for (unsigned i = 0; i < set->n; i++) {
        struct upstream *u = &set->items[i];
        bool resting = u->rest_until_ns > now_ns;
        int class = (resting ? 0 : 2) + (u->conf->backup ? 0 : 1);
        double rank;

        if (*tried >> i & 1 || !pattern_matches(&u->conf->match, path))
            continue;
        /* Origins are told apart by the order of the file, upstreams by the key. */
        rank = set->worker->proxy->role == PROXY_ROLE_SHIELD ? -(double)i : rank_of(u, i, key);
        if (class > best_class || (class == best_class && rank > best_rank)) {
            best = u;
            best_class = class;
            best_rank = rank;
        }
    }
    if (best != NULL)
        *tried |= 1ull << (best - set->items);
    return best;
}

/* --- connections --- */

static struct upstream_conn *conn_of(struct flow *flow)
{
    return CONTAINER_OF(flow, struct upstream_conn, flow);
}

static void take_out(struct upstream_conn *c)
{
    list_remove(&c->node);
    c->upstream->idle_n--;
    io_timer_cancel(c->upstream->set->worker->io, &c->timer);
}

struct upstream_conn *upstream_take_idle(struct upstream *u, struct flow *flow)
{
    struct worker *w = u->set->worker;

    LIST_EACH (&u->idle, node) {
        struct upstream_conn *c = LIST_ENTRY(node, struct upstream_conn, node);

        /* Not in the turn in which it came back: what its peer sent beyond the answer, or its end, would not
         * have been seen yet. */
        if (c->idle_since_ns == worker_now_ns(w) || c->flow.step != STEP_IDLE ||
            stream_end(&c->stream) != 0 || stream_peek(w->io, &c->stream).n > 0)
            continue;
        take_out(c);
        stream_set_reader(&c->stream, flow);
        c->reused = true;
        stat_inc(&w->stats.upstream_reuses);
        return c;
    }
    return NULL;
}

struct upstream_conn *upstream_open(struct upstream *u, struct flow *flow, int family,
                                    struct upstream_waiter *waiter, int *error)
{
    struct worker *w = u->set->worker;
    struct upstream_conn *c;
    int fd;

    if (u->open_n >= u->open_max) {
        waiter->flow = flow;
        list_push_back(&u->waiting, &waiter->node);
        LIST_EACH (&u->idle, node) /* they came back in this turn, and say when they can be taken */
            io_wake(w->io, &LIST_ENTRY(node, struct upstream_conn, node)->flow);
        *error = -EAGAIN;
        return NULL;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    fd = io_socket(w->io, family);
    if (fd < 0) {
        *error = fd;
        free(c);
        return NULL;
    }
    flow_init(&c->flow, &idle_type, STEP_IDLE);
    c->upstream = u;
    list_init(&c->node);
    stream_init(&c->stream, fd, flow, false);
    u->open_n++;
    u->set->open_n++;
    stat_inc(&w->stats.upstream_open);
    stat_inc(&w->stats.upstream_connects);
    return c;
}

void upstream_wait_cancel(struct upstream_waiter *waiter)
{
    if (waiter->flow != NULL)
        list_remove(&waiter->node);
    waiter->flow = NULL;
}

static void wake_waiter(struct upstream *u)
{
    struct upstream_waiter *waiter;

    if (list_empty(&u->waiting))
        return;
    waiter = LIST_ENTRY(u->waiting.next, struct upstream_waiter, node);
    io_wake(u->set->worker->io, waiter->flow);
    upstream_wait_cancel(waiter);
}

void upstream_give_back(struct upstream_conn **cp)
{
    struct upstream_conn *c = TAKE(cp);
    struct upstream *u = c->upstream;
    struct worker *w = u->set->worker;

    stream_set_reader(&c->stream, &c->flow);
    c->idle_since_ns = worker_now_ns(w);
    list_push_front(&u->idle, &c->node);
    u->idle_n++;
    flow_init(&c->flow, &idle_type, STEP_IDLE);
    if (u->set->retired || w->draining || u->idle_n > u->set->idle_max)
        c->flow.step = STEP_CLOSE;
    c->is_awaited = !list_empty(&u->waiting);
    io_timer_set(w->io, &c->timer, &c->flow, c->is_awaited ? REUSE_AFTER_MS : u->set->idle_ms);
    io_wake(w->io, &c->flow);
}

static void destroy(struct upstream_conn *c)
{
    struct upstream *u = c->upstream;
    struct upstream_set *set = u->set;

    io_close(set->worker->io, stream_fd(&c->stream));
    u->open_n--;
    set->open_n--;
    stat_dec(&set->worker->stats.upstream_open);
    free(c);
    wake_waiter(u);
    free_if_over(set);
}

void upstream_close(struct upstream_conn **c)
{
    destroy(TAKE(c));
}

static enum flow_result step_idle(struct flow *flow)
{
    struct upstream_conn *c = conn_of(flow);
    struct upstream *u = c->upstream;
    struct worker *w = u->set->worker;
    struct io *io = w->io;

    if (c->is_awaited && c->timer.fired) {
        c->is_awaited = false;
        io_timer_set(io, &c->timer, flow, c->upstream->set->idle_ms);
        wake_waiter(c->upstream);
    }
    /* Its end, or bytes that belong to no answer: either way it is of no use any more. */
    if (c->timer.fired || stream_end(&c->stream) != 0 || stream_peek(io, &c->stream).n > 0) {
        flow->step = STEP_CLOSE;
        return FLOW_NEXT;
    }
    stream_arm(io, &c->stream);
    if (!list_empty(&u->waiting)) {
        if (c->idle_since_ns == worker_now_ns(w))
            io_wake(io, flow); /* it can be taken from the next turn on */
        else
            wake_waiter(u);
    }
    return FLOW_WAIT;
}

static enum flow_result step_close(struct flow *flow)
{
    struct upstream_conn *c = conn_of(flow);
    struct io *io = c->upstream->set->worker->io;

    if (!list_empty(&c->node))
        take_out(c);
    return stream_stop(io, &c->stream) ? FLOW_DONE : FLOW_WAIT;
}

static void idle_done(struct flow *flow)
{
    destroy(conn_of(flow));
}

static const flow_step idle_steps[] = {[STEP_IDLE] = step_idle, [STEP_CLOSE] = step_close};
static const char *const idle_step_names[] = {[STEP_IDLE] = "idle", [STEP_CLOSE] = "close"};
static const struct flow_type idle_type = {
    .name = "upstream connection",
    .steps = idle_steps,
    .step_names = idle_step_names,
    .steps_n = ARRAY_LEN(idle_steps),
    .done = idle_done,
};

/* --- health --- */

void upstream_failed(struct upstream *u)
{
    static struct log_limiter limiter;
    uint64_t rest_ms = UPSTREAM_REST_MS_MIN;

    if (++u->failures < UPSTREAM_FAILURES_MAX)
        return;
    for (unsigned i = UPSTREAM_FAILURES_MAX; i < u->failures && rest_ms < UPSTREAM_REST_MS_MAX; i++)
        rest_ms *= 2;
    if (rest_ms > UPSTREAM_REST_MS_MAX)
        rest_ms = UPSTREAM_REST_MS_MAX;
    u->rest_until_ns = worker_now_ns(u->set->worker) + rest_ms * NS_PER_MS;
    log_limited(&limiter, LOG_LEVEL_WARN,
                "upstream " STR_FMT " failed %u times in a row; it is left alone for %llu ms",
                STR_ARG(u->conf->url), u->failures, (unsigned long long)rest_ms);
}

void upstream_succeeded(struct upstream *u)
{
    if (u->rest_until_ns != 0)
        log_info("upstream " STR_FMT " answers again", STR_ARG(u->conf->url));
    u->failures = 0;
    u->rest_until_ns = 0;
}
