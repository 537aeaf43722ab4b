/* What a worker counts. Written by the worker alone, summed by the control thread (util/stats.h). */
#pragma once

#include "http/http2.h"
#include "net/resolve.h"
#include "net/tls.h"
#include "node/access_log.h"
#include "util/stats.h"

enum stat_class {
    STAT_CLASS_NONE,
    STAT_CLASS_2XX,
    STAT_CLASS_3XX,
    STAT_CLASS_4XX,
    STAT_CLASS_5XX,
    STAT_CLASSES
};

enum stat_signature {
    STAT_SIGNATURE_OK,
    STAT_SIGNATURE_WRONG, /* answered with Segue-Reason: signature */
    STAT_SIGNATURE_EXPIRED,
    STAT_SIGNATURE_ADDRESS,
    STAT_SIGNATURE_GEO,
    STAT_SIGNATURES
};

enum stat_proxy_header {
    STAT_PROXY_HEADER_OK,
    STAT_PROXY_HEADER_NO_SOURCE, /* the proxy's own connection, or it does not know */
    STAT_PROXY_HEADER_BAD,
    STAT_PROXY_HEADER_LATE,
    STAT_PROXY_HEADERS
};

enum stat_geo { STAT_GEO_URL, STAT_GEO_RULE, STAT_GEO_RIGHTS, STAT_GEOS };

struct proxy_stats {
    struct tls_stats tls;
    struct http2_stats http2;
    uint64_t http2_connections;
    uint64_t http2_connections_open, http2_requests; /* gauges; requests under way */
    uint64_t requests[STAT_CLASSES][ACCESS_CACHE_VALUES];
    struct histogram first_byte_ns[ACCESS_CACHE_VALUES];
    struct histogram duration_ns[ACCESS_CACHE_VALUES];
    uint64_t signatures[STAT_SIGNATURES];
    uint64_t geo_known, geo_unknown; /* addresses looked up */
    uint64_t geo_blocked[STAT_GEOS], taken_down;
    uint64_t rate_limited_uid, rate_limited_address;    /* answered with 429 */
    uint64_t uncounted_requests, uncounted_connections; /* let pass because a table was full */
    uint64_t sent_bytes;                                /* to clients, heads included */
    uint64_t upstream_bytes;                            /* bodies from upstreams */

    uint64_t fills_started, fills_completed, fills_failed, fills_not_modified;
    uint64_t origin_longer; /* bodies longer than their Content-Length */

    uint64_t connections_accepted, connections_refused, connections_refused_address, accept_errors;
    uint64_t connections_open, connections_active; /* gauges; active: with a request under way */
    uint64_t proxy_headers[STAT_PROXY_HEADERS];
    uint64_t paced_requests[2]; /* by the token, by the player's own word */
    uint64_t head_timeouts, slow_clients, bad_requests;

    uint64_t upstream_connects, upstream_reuses, upstream_connect_errors, upstream_resets, upstream_timeouts;
    uint64_t upstream_retries, upstream_open; /* gauge */

    struct resolve_stats resolve;
};

extern const struct metric_desc proxy_stats_table[];
extern const size_t proxy_stats_table_n;
