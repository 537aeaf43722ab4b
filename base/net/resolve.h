/* Names of upstreams to addresses, by c-ares on the worker's own ring; one resolver a worker.
 *
 * Answers are kept for their TTL, at least RESOLVE_TTL_MIN_S and at most RESOLVE_TTL_MAX_S. One that ended
 * less than RESOLVE_STALE_AT_ONCE_S ago is given at once while it is asked for anew; an older one is given
 * when DNS fails (timeouts, SERVFAIL, refusals) and counted. That a name does not exist is an answer, not a
 * failure (RFC 8767, 4). IP literals need no query, and /etc/hosts comes before DNS. */
#pragma once

#include "io/io.h"
#include "net/address.h"
#include "util/list.h"

#define RESOLVE_ADDRESSES_MAX   16
#define RESOLVE_NAME_BYTES_MAX  253 /* RFC 1035, 2.3.4 */
#define RESOLVE_NAMES_MAX       1024
#define RESOLVE_TTL_MIN_S       1
#define RESOLVE_TTL_MAX_S       300
#define RESOLVE_TTL_HOSTS_S     60 /* an answer from the hosts file has none of its own */
#define RESOLVE_STALE_AT_ONCE_S 30

struct resolver;

/* Counters, as in util/stats.h. */
struct resolve_stats {
    uint64_t queries;  /* asked of c-ares */
    uint64_t failures; /* of them, by timeout, refusal or server failure */
    uint64_t missing;  /* of them, names that do not exist or have no address */
    uint64_t stale;    /* answers given past their TTL because DNS failed */
    uint64_t names;    /* gauge: names kept */
};

struct resolve_options {
    const char *servers;         /* "127.0.0.1:5353,[::1]:53"; NULL: those of /etc/resolv.conf */
    uint64_t timeout_ms;         /* of a try; 0: 2000 */
    unsigned tries;              /* 0: 2 */
    uint64_t failure_s;          /* how long a failure is not asked again; 0: 1 */
    struct resolve_stats *stats; /* of this worker's struct, or NULL */
};

/* 0 or -errno. May block on /etc/resolv.conf. */
int resolver_create(struct resolver **out, struct io *io, const struct resolve_options *options);

/* Takes resolv.conf anew (at a configuration reload); what is being asked is asked again. 0 or -errno, then
 * the old servers stay. */
int resolver_reload(struct resolver *r);

/* Ends every query with -ECANCELED. True when nothing is in flight any more, and resolver_destroy may be
 * called; else `waiter` is woken when that is so, and calls again. */
bool resolver_stop(struct resolver *r, struct flow *waiter);
void resolver_destroy(struct resolver **r);

/* One question; lives in its owner's struct until it is taken or cancelled. */
struct resolve {
    struct list node; /* of the name's waiters */
    struct flow *flow;
    uint16_t port;
    bool waiting;
    bool done;
    int result; /* addresses, or -errno */
    struct address addresses[RESOLVE_ADDRESSES_MAX];
};

/* Asks for the addresses of `host` (a name or IP literal, no brackets), all with this port. When the answer
 * is at hand it is complete on return, else the flow is woken. */
void resolve_start(struct resolver *r, struct resolve *q, struct flow *f, struct str host, uint16_t port);

/* True once, when it is complete. *result: how many addresses (at least one), or -ENOENT (no such name or no
 * address), -EINVAL (not a name), -ETIMEDOUT, -EAGAIN (server failure), -ENOBUFS (RESOLVE_NAMES_MAX are being
 * asked at once), -ENOMEM, -ECANCELED. */
bool resolve_take(struct resolve *q, int *result);

/* Does nothing when it is not waiting. The answer is kept for others all the same. */
void resolve_cancel(struct resolve *q);
