#include "proxy/rate_limit.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

struct rate_limits *rate_limits_create(const struct proxy_conf *conf)
{
    struct rate_limits *l = calloc(1, sizeof *l);

    if (l == NULL)
        return NULL;
    l->requests = rate_table_create(conf->rate_limit.table_entries);
    /* Half full when every connection comes from an address of its own: then 1 in 100 finds no place. */
    l->connections = address_count_create(2ul * conf->limits.connections_max);
    if (l->requests == NULL || l->connections == NULL)
        rate_limits_destroy(&l);
    return l;
}

void rate_limits_destroy(struct rate_limits **lp)
{
    struct rate_limits *l = TAKE(lp);

    if (l == NULL)
        return;
    rate_table_destroy(&l->requests);
    address_count_destroy(&l->connections);
    free(l);
}

/* --- requests --- */

/* What makes it another count: whose, and the limit, so that a changed one begins anew. */
struct subject {
    uint64_t name_low, name_high;
    uint64_t interval_ns;
    uint32_t burst;
    uint32_t kind;
};

enum { KIND_UID, KIND_ADDRESS };

/* The hash's secret is this process's own: nobody can choose a name for its place in the table. */
static struct hash128 key_of(uint32_t kind, struct rate rate, struct str name)
{
    const struct hash128 h = hash_of(name);
    const struct subject s = {.name_low = h.low,
                              .name_high = h.high,
                              .interval_ns = rate.interval_ns,
                              .burst = rate.burst,
                              .kind = kind};

    return hash_of(str_of((const char *)&s, sizeof s));
}

/* Nanoseconds to wait; 0: within the limit. */
static uint64_t take(struct worker *w, uint32_t kind, struct rate rate, struct str name)
{
    uint64_t wait_ns;

    if (rate_table_take(w->proxy->rate_limits->requests, key_of(kind, rate, name), rate, worker_now_ns(w),
                        &wait_ns) == RATE_UNKNOWN)
        stat_inc(&w->stats.uncounted_requests);
    return wait_ns;
}

static uint32_t whole_seconds(uint64_t ns)
{
    return (uint32_t)((ns + NS_PER_S - 1) / NS_PER_S);
}

static struct str ip_text(const struct ip *ip, char text[IP_TEXT_MAX])
{
    struct buf b = buf_of(text, IP_TEXT_MAX);

    ip_format(ip, &b);
    return buf_str(&b);
}

static const char *mask_of(const struct ip *network)
{
    return ip_is_ipv4(network) ? "" : "/64";
}

/* The uid first: one who is over his own limit uses nothing up of those who share his address. */
uint32_t rate_limit_request(struct worker *w, const struct proxy_rate_limit *limit, struct str uid,
                            struct address client)
{
    if (limit->per_uid.interval_ns > 0 && uid.n > 0) {
        static struct log_limiter limiter;
        uint64_t wait_ns = take(w, KIND_UID, limit->per_uid, uid);

        if (wait_ns > 0) {
            stat_inc(&w->stats.rate_limited_uid);
            log_limited(&limiter, LOG_LEVEL_WARN, "uid %.*s is over rate_limit.per_uid: 429",
                        (int)(uid.n < 64 ? uid.n : 64), uid.p);
            return whole_seconds(wait_ns);
        }
    }
    if (limit->per_address.interval_ns > 0) {
        static struct log_limiter limiter;
        const struct ip ip = address_ip(&client), network = ip_client_network(&ip);
        uint64_t wait_ns = take(w, KIND_ADDRESS, limit->per_address,
                                str_of((const char *)network.bytes, sizeof network.bytes));

        if (wait_ns > 0) {
            char text[IP_TEXT_MAX];

            stat_inc(&w->stats.rate_limited_address);
            log_limited(&limiter, LOG_LEVEL_WARN, STR_FMT "%s is over rate_limit.per_address: 429",
                        STR_ARG(ip_text(&network, text)), mask_of(&network));
            return whole_seconds(wait_ns);
        }
    }
    return 0;
}

/* --- connections --- */

/* They are counted also while there is no limit, so that one that a reload brings holds at once. */
bool rate_limit_enter(struct worker *w, const struct address *peer, uint32_t *slot)
{
    static struct log_limiter limiter;
    const struct proxy_conf *conf = worker_conf(w);
    const unsigned limit = conf->rate_limit.connections_per_address;
    const struct ip ip = address_ip(peer), network = ip_client_network(&ip);
    char text[IP_TEXT_MAX];

    *slot = 0;
    if (peer->sa.sa_family == AF_UNSPEC || proxy_conf_trusts(conf, &ip))
        return true;
    switch (address_count_enter(w->proxy->rate_limits->connections,
                                hash_of(str_of((const char *)network.bytes, sizeof network.bytes)),
                                limit > 0 ? limit : ADDRESS_COUNT_MAX, slot)) {
    case 0:
        return true;
    case -EUSERS:
        if (limit == 0)
            break;
        stat_inc(&w->stats.connections_refused_address);
        log_limited(&limiter, LOG_LEVEL_WARN,
                    "a connection was refused: " STR_FMT "%s has its %u (rate_limit.connections_per_address)",
                    STR_ARG(ip_text(&network, text)), mask_of(&network), limit);
        return false;
    default:
        break;
    }
    stat_inc(&w->stats.uncounted_connections);
    return true;
}

void rate_limit_leave(struct worker *w, uint32_t *slot)
{
    address_count_leave(w->proxy->rate_limits->connections, slot);
}
