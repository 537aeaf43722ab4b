/* A worker: one thread with its ring, listeners, client connections, upstream connections and pools. And the
 * proxy: what the workers of a process share (configuration snapshot, memory tier, flights).
 *
 * The configuration is a `site`, immutable and counted. Each worker holds the current one through a
 * worker_site of its own, so that taking it for a request costs no shared write; a reload gives every worker
 * a new one by mail, and the old one goes with the last request that began under it. */
#pragma once

#include "cache/flight.h"
#include "http/date.h"
#include "http/signed_url.h"
#include "io/io.h"
#include "net/listener.h"
#include "net/resolve.h"
#include "net/tls.h"
#include "node/access_log.h"
#include "proxy/proxy_conf.h"
#include "proxy/proxy_stats.h"
#include "util/list.h"
#include "util/pool.h"

struct upstream_set;
struct rate_limits;

/* A configuration snapshot, counted. */
struct site {
    _Atomic unsigned refs; /* one a worker_site, one the proxy */
    struct proxy_conf *conf;
};

struct worker_site {
    struct site *site;
    unsigned refs; /* requests, fills, and one while it is the worker's current one */
    struct upstream_set *upstreams;
};

struct proxy;

#define WORKER_MAGIC 0x576f726bu

struct worker {
    uint32_t magic;
    uint16_t index;
    bool draining;
    bool hurry; /* drain without waiting for what is under way */
    bool stopped;
    struct proxy *proxy;
    struct io *io;
    struct worker_site *site;
    struct territory *territory; /* NULL: neither geo nor rights */
    struct resolver *resolver;
    struct tls_local *tls;           /* buffers and handshakes of its TLS connections */
    struct access_ring *access_ring; /* NULL: no access log */
    struct mailbox mailbox;

    struct pool conns, requests, fills;
    struct pool http2_streams, http2_slabs;
    struct list conn_list;    /* struct conn */
    struct list fill_list;    /* struct fill */
    unsigned connections_max; /* this worker's share */

    struct acceptor *acceptors;
    unsigned acceptors_n;
    struct flow stopper;
    struct flow yielder; /* wakes those that yielded, one each turn */
    uint64_t yielded_ns; /* the turn in which it last did */
    struct list yielding;

    char date[DATE_BYTES]; /* of date_unix_s */
    uint64_t date_unix_s;
    uint64_t random; /* state of worker_random */
    struct signed_url_scratch scratch;
    char path_scratch[HTTP_TARGET_BYTES_MAX]; /* of url_path_canonical, until the key is made */
    struct proxy_stats stats;
};

struct proxy {
    enum proxy_role role;
    struct memory *memory;
    struct flight_table *flights;
    struct rate_limits *rate_limits;
    struct access_log *access_log;
    struct tls_tickets *tickets; /* keys of TLS sessions, over all reloads */
    struct listener_inheritance *inherited;
    struct site *site;           /* the control thread's reference */
    struct territory *territory; /* likewise; NULL: neither geo nor rights */
    char instance[17];           /* of this process, for CDN-Loop: 16 hex digits */
    _Atomic bool draining;       /* for /.segue/health */
    unsigned workers_n;
    struct worker *workers[PROXY_WORKERS_MAX];
};

/* Takes the snapshot. NULL: no memory. */
struct site *site_create(struct proxy_conf **conf);
void site_unref(struct site **site);

struct worker_site *worker_site_create(struct worker *w,
                                       struct site *site); /* takes a reference of its own */
static inline struct worker_site *worker_site_ref(struct worker_site *s)
{
    s->refs++;
    return s;
}
void worker_site_unref(struct worker_site **site);

/* Sets up everything but the io. Sizes come from proxy->site. 0 or -errno. */
int worker_create(struct worker **out, struct proxy *proxy, unsigned index);
void worker_destroy(struct worker **w); /* after worker_run or once worker_is_done */

/* On the worker's thread: creates resolver and listeners on w->io, which the caller has created. 0 or -errno,
 * logged. */
int worker_start(struct worker *w);

/* Once round the loop. */
int worker_turn(struct worker *w, uint64_t wait_max_ns);

/* Draining, and nothing of clients or fills is left. */
bool worker_is_done(const struct worker *w);

/* Once it is done: closes what idles. False: turn the loop and call again; true: io_destroy and
 * worker_destroy may follow. */
bool worker_stop(struct worker *w);

/* --- for other threads, by mail --- */

void worker_post_site(struct worker *w, struct site *site);                /* takes a reference of its own */
void worker_post_territory(struct worker *w, struct territory *territory); /* likewise */
void worker_post_drain(struct worker *w, bool hurry);

/* --- for the modules of a request --- */

static inline uint64_t worker_now_ns(const struct worker *w)
{
    return io_now_ns(w->io);
}

static inline const struct proxy_conf *worker_conf(const struct worker *w)
{
    return w->site->site->conf;
}

/* The current second as IMF-fixdate. */
struct str worker_date(struct worker *w);

/* A flow that has much left to send lets those go first that have just begun: it is woken after the flows
 * that are ready now, one each time round the loop. A wake for another reason does not take it out;
 * list_remove of its node does. */
struct worker_yielding {
    struct list node;
    struct flow *flow;
};
void worker_yield(struct worker *w, struct worker_yielding *y);

/* Not for secrets. */
uint64_t worker_random(struct worker *w);
