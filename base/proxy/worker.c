#include "proxy/worker.h"

#include "http/url.h"
#include "proxy/conn.h"
#include "proxy/fill.h"
#include "proxy/http2_conn.h"
#include "proxy/request.h"
#include "proxy/upstream.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

#define ACCEPT_RETRY_MS 100u
#define ACCEPT_MAX      64 /* in one step, then others get their turn */
#define CONNS_KEEP      256u
#define REQUESTS_KEEP   64u /* 6 KiB each: what a core has under way when it is busy */
#define FILLS_KEEP      16u
#define FILLS_MAX       65536u

/* --- sites --- */

struct site *site_create(struct proxy_conf **conf)
{
    struct site *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->refs = 1;
    s->conf = TAKE(conf);
    return s;
}

void site_unref(struct site **site)
{
    struct site *s = TAKE(site);

    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    proxy_conf_free(&s->conf);
    free(s);
}

struct worker_site *worker_site_create(struct worker *w, struct site *site)
{
    struct worker_site *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->upstreams = upstream_set_create(w, site->conf);
    if (s->upstreams == NULL) {
        free(s);
        return NULL;
    }
    atomic_fetch_add(&site->refs, 1);
    s->site = site;
    s->refs = 1;
    return s;
}

void worker_site_unref(struct worker_site **site)
{
    struct worker_site *s = TAKE(site);

    if (--s->refs > 0)
        return;
    upstream_set_retire(&s->upstreams);
    site_unref(&s->site);
    free(s);
}

/* --- accepting --- */

struct acceptor {
    struct flow flow;
    struct worker *worker;
    struct site *site; /* of `listen`: the newest that has this address */
    const struct proxy_listen *listen;
    struct listener listener;
    struct io_accept accept;
    struct timer timer;
    bool started, over;
};

enum { STEP_START, STEP_ACCEPT, STEP_PAUSE, STEP_STOP };

/* The configuration of its address in this snapshot. An address that is gone from the file stays until the
 * restart, as it was: it must not become another kind of listener meanwhile. */
static void take_listen(struct acceptor *a, struct site *site)
{
    struct str text = a->listen->address.text;

    for (unsigned i = 0; i < site->conf->listen_n; i++)
        if (str_eq(site->conf->listen[i].address.text, text)) {
            struct site *before = a->site;

            atomic_fetch_add(&site->refs, 1);
            a->site = site;
            a->listen = &site->conf->listen[i];
            if (before != NULL)
                site_unref(&before);
            return;
        }
}

static const struct flow_type acceptor_type;

static struct acceptor *acceptor_of(struct flow *flow)
{
    return CONTAINER_OF(flow, struct acceptor, flow);
}

static enum flow_result step_start(struct flow *flow)
{
    struct acceptor *a = acceptor_of(flow);

    if (a->worker->draining) { /* the end came before the beginning */
        flow->step = STEP_STOP;
        return FLOW_NEXT;
    }
    io_accept_start(a->worker->io, &a->accept, flow, a->listener.fd);
    flow->step = STEP_ACCEPT;
    return FLOW_WAIT;
}

static enum flow_result step_accept(struct flow *flow)
{
    struct acceptor *a = acceptor_of(flow);
    struct worker *w = a->worker;
    static struct log_limiter limiter;
    int fd = -EAGAIN;

    for (unsigned i = 0; i < ACCEPT_MAX; i++) {
        fd = io_accept_take(&a->accept);
        if (fd < 0)
            break;
        conn_accept(w, fd, a->listen);
    }
    if (w->draining) {
        flow->step = STEP_STOP;
        return FLOW_NEXT;
    }
    if (fd >= 0) {
        io_wake(w->io, flow);
        return FLOW_WAIT;
    }
    if (fd == -EAGAIN)
        return FLOW_WAIT;
    stat_inc(&w->stats.accept_errors);
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
        log_limited(
            &limiter, LOG_LEVEL_ERROR,
            "no more connections can be accepted: %s; raise LimitNOFILE, or lower limits.connections_max",
            strerror(-fd));
        io_timer_set(w->io, &a->timer, flow, ACCEPT_RETRY_MS);
        flow->step = STEP_PAUSE;
        return FLOW_WAIT;
    }
    flow->step = STEP_START; /* the connection went before it was accepted, or the multishot ended */
    return FLOW_NEXT;
}

static enum flow_result step_pause(struct flow *flow)
{
    struct acceptor *a = acceptor_of(flow);

    if (a->worker->draining) {
        flow->step = STEP_STOP;
        return FLOW_NEXT;
    }
    if (!a->timer.fired)
        return FLOW_WAIT;
    flow->step = STEP_START;
    return FLOW_NEXT;
}

static enum flow_result step_stop(struct flow *flow)
{
    struct acceptor *a = acceptor_of(flow);
    int fd;

    if (a->over)
        return FLOW_WAIT;
    io_timer_cancel(a->worker->io, &a->timer);
    while ((fd = io_accept_take(&a->accept)) >= 0) /* what was in the queue is served */
        conn_accept(a->worker, fd, a->listen);
    if (a->accept.op.in_flight) {
        io_cancel(a->worker->io, &a->accept.op);
        return FLOW_WAIT;
    }
    listener_close(a->worker->io, &a->listener);
    a->over = true;
    return FLOW_WAIT;
}

static const flow_step acceptor_steps[] = {[STEP_START] = step_start,
                                           [STEP_ACCEPT] = step_accept,
                                           [STEP_PAUSE] = step_pause,
                                           [STEP_STOP] = step_stop};
static const char *const acceptor_step_names[] = {
    [STEP_START] = "start", [STEP_ACCEPT] = "accept", [STEP_PAUSE] = "pause", [STEP_STOP] = "stop"};
static const struct flow_type acceptor_type = {
    .name = "acceptor",
    .steps = acceptor_steps,
    .step_names = acceptor_step_names,
    .steps_n = ARRAY_LEN(acceptor_steps),
};

/* --- the worker --- */

int worker_create(struct worker **out, struct proxy *proxy, unsigned index)
{
    const struct proxy_conf *conf = proxy->site->conf;
    struct worker *w = calloc(1, sizeof *w);
    int error = -ENOMEM;

    if (w == NULL)
        return -ENOMEM;
    w->magic = WORKER_MAGIC;
    w->index = (uint16_t)index;
    w->proxy = proxy;
    if (proxy->territory != NULL)
        w->territory = territory_ref(proxy->territory);
    w->connections_max = conf->limits.connections_max / proxy->workers_n;
    if (w->connections_max == 0)
        w->connections_max = 1;
    w->random = hash_of(str_of((const char *)&index, sizeof index)).low;
    list_init(&w->conn_list);
    list_init(&w->fill_list);
    list_init(&w->yielding);
    pool_init(&w->conns, "connections", sizeof(struct conn), w->connections_max, CONNS_KEEP);
    pool_init(&w->http2_streams, "http2 streams", http2_conn_stream_bytes,
              (size_t)w->connections_max * HTTP2_STREAMS_PER_CONNECTION, REQUESTS_KEEP);
    pool_init(&w->http2_slabs, "http2 slabs", HTTP2_SLAB_BYTES, HTTP2_SLABS_MAX, HTTP2_SLABS_KEEP);
    pool_init(&w->requests, "requests", sizeof(struct request),
              w->connections_max + w->http2_streams.in_use_max, REQUESTS_KEEP);
    pool_init(&w->fills, "fills", sizeof(struct fill), FILLS_MAX, FILLS_KEEP);
    w->acceptors = calloc(conf->listen_n, sizeof w->acceptors[0]);
    w->acceptors_n = conf->listen_n;
    if (w->acceptors == NULL)
        goto fail;
    error = mailbox_open(&w->mailbox);
    if (error != 0)
        goto fail;
    if (proxy->access_log != NULL)
        w->access_ring = access_log_ring(proxy->access_log, index);
    *out = w;
    return 0;
fail:
    territory_unref(&w->territory);
    free(w->acceptors);
    free(w);
    return error;
}

void worker_destroy(struct worker **wp)
{
    struct worker *w = TAKE(wp);

    CHECK_MAGIC(w, WORKER_MAGIC);
    (void)mailbox_deliver(&w->mailbox, w); /* what was posted after its end: only freed */
    pool_destroy(&w->conns);
    pool_destroy(&w->requests);
    pool_destroy(&w->http2_streams);
    pool_destroy(&w->http2_slabs);
    pool_destroy(&w->fills);
    mailbox_close(&w->mailbox);
    territory_unref(&w->territory);
    free(w->acceptors);
    free(w);
}

static void options_of_tls(struct worker *w, struct tls_local_options *out)
{
    const struct proxy_conf *conf = worker_conf(w);
    unsigned share = conf->limits.tls_handshakes_max / w->proxy->workers_n;

    *out = (struct tls_local_options){.stats = &w->stats.tls,
                                      .handshakes_max = share > 0 ? share : 1,
                                      .hello_ms = conf->timeouts.client_hello_ms,
                                      .handshake_ms = conf->timeouts.client_handshake_ms};
}

int worker_start(struct worker *w)
{
    const struct proxy_conf *conf = w->proxy->site->conf;
    const struct resolve_options options = {.stats = &w->stats.resolve};
    struct tls_local_options tls;
    int error;

    flight_table_attach(w->proxy->flights, w->index, io_ready(w->io));
    w->site = worker_site_create(w, w->proxy->site);
    if (w->site == NULL)
        return -ENOMEM;
    error = resolver_create(&w->resolver, w->io, &options);
    if (error != 0) {
        log_error("the resolver cannot be set up: %s", strerror(-error));
        return error;
    }
    options_of_tls(w, &tls);
    error = tls_local_create(&w->tls, w->io, &tls);
    if (error != 0) {
        log_error("TLS cannot be set up: %s", strerror(-error));
        return error;
    }
    error = io_attach_mailbox(w->io, &w->mailbox, w);
    if (error != 0)
        return error;
    for (unsigned i = 0; i < conf->listen_n; i++) {
        struct acceptor *a = &w->acceptors[i];
        struct address address;

        CHECK(address_of_sockaddr((const struct sockaddr *)&conf->listen[i].address.addr, &address) == 0);
        error = listener_open(w->io, w->proxy->inherited, &address, (int)conf->limits.listen_backlog,
                              &a->listener);
        if (error != 0) {
            log_error("cannot listen on " STR_FMT ": %s", STR_ARG(conf->listen[i].address.text),
                      strerror(-error));
            return error;
        }
        a->worker = w;
        a->listen = &conf->listen[i];
        take_listen(a, w->proxy->site);
        a->started = true;
        flow_init(&a->flow, &acceptor_type, STEP_START);
        io_wake(w->io, &a->flow);
    }
    return 0;
}

int worker_turn(struct worker *w, uint64_t wait_max_ns)
{
    return io_run_once(w->io, wait_max_ns);
}

bool worker_is_done(const struct worker *w)
{
    if (!w->draining || !list_empty(&w->conn_list) || w->fills.in_use > 0)
        return false;
    for (unsigned i = 0; i < w->acceptors_n; i++)
        if (w->acceptors[i].started && !w->acceptors[i].over)
            return false;
    return true;
}

/* --- mail --- */

struct site_mail {
    struct mail mail;
    struct site *site;
};

static void take_site(struct worker *w, struct site *site)
{
    struct worker_site *next = worker_site_create(w, site);
    struct tls_local_options tls;

    if (next == NULL) {
        log_error("worker %u has no memory for the new configuration and keeps the old", w->index);
        return;
    }
    worker_site_unref(&w->site);
    w->site = next;
    for (unsigned i = 0; i < w->acceptors_n; i++)
        if (w->acceptors[i].started)
            take_listen(&w->acceptors[i], site);
    options_of_tls(w, &tls);
    tls_local_reconfigure(w->tls, &tls);
    (void)resolver_reload(w->resolver);
}

static void site_received(struct mail *mail, void *context)
{
    struct site_mail *m = CONTAINER_OF(mail, struct site_mail, mail);
    struct worker *w = context;

    if (w->io != NULL) /* else it has ended, and its mail is only being freed */
        take_site(w, m->site);
    site_unref(&m->site);
    free(m);
}

void worker_post_site(struct worker *w, struct site *site)
{
    struct site_mail *m = calloc(1, sizeof *m);

    if (m == NULL) {
        log_error("no memory to tell worker %u of the new configuration", w->index);
        return;
    }
    atomic_fetch_add(&site->refs, 1);
    *m = (struct site_mail){.mail.receive = site_received, .site = site};
    mailbox_post(&w->mailbox, &m->mail);
}

struct territory_mail {
    struct mail mail;
    struct territory *territory;
};

static void territory_received(struct mail *mail, void *context)
{
    struct territory_mail *m = CONTAINER_OF(mail, struct territory_mail, mail);
    struct worker *w = context;

    territory_unref(&w->territory);
    w->territory = TAKE(&m->territory);
    free(m);
}

void worker_post_territory(struct worker *w, struct territory *territory)
{
    struct territory_mail *m = calloc(1, sizeof *m);

    if (m == NULL) {
        log_error("no memory to tell worker %u of the new country database or rights", w->index);
        return;
    }
    *m = (struct territory_mail){.mail.receive = territory_received, .territory = territory_ref(territory)};
    mailbox_post(&w->mailbox, &m->mail);
}

struct drain_mail {
    struct mail mail;
    bool hurry;
};

static void drain_received(struct mail *mail, void *context)
{
    struct drain_mail *m = CONTAINER_OF(mail, struct drain_mail, mail);
    struct worker *w = context;

    w->draining = true;
    w->hurry = w->hurry || m->hurry;
    free(m);
    if (w->io == NULL) /* it has ended */
        return;
    for (unsigned i = 0; i < w->acceptors_n; i++)
        if (w->acceptors[i].started)
            io_wake(w->io, &w->acceptors[i].flow);
    LIST_EACH (&w->conn_list, node)
        conn_drain(LIST_ENTRY(node, struct conn, node), w->hurry);
    if (w->hurry)
        LIST_EACH (&w->fill_list, node)
            fill_abort(LIST_ENTRY(node, struct fill, node));
}

void worker_post_drain(struct worker *w, bool hurry)
{
    struct drain_mail *m = calloc(1, sizeof *m);

    if (m == NULL) {
        log_error("no memory to tell worker %u to drain", w->index);
        return;
    }
    *m = (struct drain_mail){.mail.receive = drain_received, .hurry = hurry};
    mailbox_post(&w->mailbox, &m->mail);
}

static enum flow_result stopper_step(struct flow *flow)
{
    (void)flow;
    return FLOW_WAIT; /* it only makes the loop turn; worker_stop looks for itself */
}

bool worker_stop(struct worker *w)
{
    static const flow_step steps[] = {stopper_step};
    static const struct flow_type stopper_type = {.name = "stop", .steps = steps, .steps_n = 1};

    CHECK(worker_is_done(w));
    if (w->site != NULL)
        worker_site_unref(&w->site);
    for (unsigned i = 0; i < w->acceptors_n; i++)
        if (w->acceptors[i].site != NULL)
            site_unref(&w->acceptors[i].site);
    if (w->resolver != NULL) {
        if (w->stopper.magic == 0)
            flow_init(&w->stopper, &stopper_type, 0);
        if (!resolver_stop(w->resolver, &w->stopper))
            return false;
        resolver_destroy(&w->resolver);
    }
    if (w->stats.upstream_open > 0)
        return false;
    if (w->tls != NULL)
        tls_local_destroy(&w->tls);
    return true;
}

/* --- yielding --- */

static enum flow_result yielder_step(struct flow *flow)
{
    struct worker *w = CONTAINER_OF(flow, struct worker, yielder);

    /* The loop's clock stands still within a turn, in which this may run several times. */
    if (!list_empty(&w->yielding) && w->yielded_ns != worker_now_ns(w)) {
        struct worker_yielding *y = LIST_ENTRY(w->yielding.next, struct worker_yielding, node);

        w->yielded_ns = worker_now_ns(w);
        list_remove(&y->node);
        io_wake(w->io, y->flow);
    }
    if (!list_empty(&w->yielding))
        io_wake(w->io, flow);
    return FLOW_WAIT;
}

void worker_yield(struct worker *w, struct worker_yielding *y)
{
    static const flow_step steps[] = {yielder_step};
    static const struct flow_type type = {.name = "yielder", .steps = steps, .steps_n = 1};

    if (w->yielder.magic == 0)
        flow_init(&w->yielder, &type, 0);
    list_push_back(&w->yielding, &y->node);
    io_wake(w->io, &w->yielder);
}

/* --- small things --- */

struct str worker_date(struct worker *w)
{
    uint64_t now_s = io_now_unix_s(w->io);

    if (now_s != w->date_unix_s) {
        w->date_unix_s = now_s;
        date_format((int64_t)now_s, w->date);
    }
    return str_of(w->date, DATE_BYTES);
}

uint64_t worker_random(struct worker *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
