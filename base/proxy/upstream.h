/* The upstreams of a worker under one snapshot: choice, passive health, and pooled keep-alive connections.
 *
 * An upstream that fails in a row is left alone for a while that doubles up to UPSTREAM_REST_MS_MAX; the
 * first request after it tries. Among those that are well, the one whose hash with the key is highest is
 * chosen (rendezvous, by weight), so that an object has one place above us; of origins the first in the file. */
#pragma once

#include "io/io.h"
#include "net/address.h"
#include "net/stream.h"
#include "proxy/proxy_conf.h"
#include "util/hash.h"
#include "util/list.h"

struct worker;
struct upstream_set;

#define UPSTREAM_FAILURES_MAX 3u /* in a row, then it rests */
#define UPSTREAM_REST_MS_MIN  1000u
#define UPSTREAM_REST_MS_MAX  30000u

struct upstream {
    const struct proxy_upstream *conf;
    struct upstream_set *set;
    struct list idle; /* struct upstream_conn, the last used first */
    unsigned idle_n;
    unsigned open_n;     /* idle ones included; at most open_max */
    unsigned open_max;   /* this worker's share of connections_max */
    struct list waiting; /* struct upstream_waiter */
    unsigned failures;   /* in a row */
    uint64_t rest_until_ns;
};

/* Who wants a connection while open_max are open. */
struct upstream_waiter {
    struct list node;
    struct flow *flow;
};

/* A connection to an upstream: owned by one fill, or idle in the pool, where it waits for the peer to close
 * it with a receive armed that owns no buffer. */
struct upstream_conn {
    struct flow flow; /* runs while idle */
    struct upstream *upstream;
    struct list node;
    struct stream stream;
    struct timer timer;
    bool reused;
    bool is_awaited; /* somebody waits for it to be fit for reuse */
    uint64_t idle_since_ns;
};

struct upstream_set *upstream_set_create(struct worker *w, const struct proxy_conf *conf);
/* Closes what is idle; the rest goes as it is given back, and the set with the last of it. */
void upstream_set_retire(struct upstream_set **set);

/* The upstream for this path and key, leaving out the ones in *tried (bit i: upstream i). NULL: none is left.
 * Prefers those that are well, then backups, and takes one that rests when there is no other. */
struct upstream *upstream_choose(struct upstream_set *set, struct str path, struct hash128 key,
                                 uint64_t *tried);

/* A pooled connection, with its receive armed for `flow`; NULL: none. */
struct upstream_conn *upstream_take_idle(struct upstream *u, struct flow *flow);

/* A new one, not yet connected. NULL with *error: -EAGAIN at open_max (wait with `waiter`), else -errno. */
struct upstream_conn *upstream_open(struct upstream *u, struct flow *flow, int family,
                                    struct upstream_waiter *waiter, int *error);
void upstream_wait_cancel(struct upstream_waiter *waiter);

/* Back into the pool: the answer was whole and the connection can carry another. */
void upstream_give_back(struct upstream_conn **c);

/* Closes it. Its stream must be stopped (stream_stop). */
void upstream_close(struct upstream_conn **c);

void upstream_failed(struct upstream *u);
void upstream_succeeded(struct upstream *u);
