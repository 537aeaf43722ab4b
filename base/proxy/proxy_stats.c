#include "proxy/proxy_stats.h"

#include <stdbool.h>
#include <stddef.h>

#define AT(member) offsetof(struct proxy_stats, member)

#define COUNTER(metric, text, tags, member)                                                                  \
    {                                                                                                        \
        .name = metric, .help = text, .type = METRIC_COUNTER, .labels = tags, .offset = AT(member)           \
    }
#define GAUGE(metric, text, tags, member)                                                                    \
    {                                                                                                        \
        .name = metric, .help = text, .type = METRIC_GAUGE, .labels = tags, .offset = AT(member)             \
    }
#define HISTOGRAM(metric, text, tags, member)                                                                \
    {                                                                                                        \
        .name = metric, .help = text, .type = METRIC_HISTOGRAM, .unit = METRIC_NS, .labels = tags,           \
        .offset = AT(member)                                                                                 \
    }

#define REQUESTS_OF(class_name, class, cache_name, cache)                                                    \
    COUNTER("requests_total", "Requests answered, by status class and what the cache did.",                  \
            "status=\"" class_name "\",result=\"" cache_name "\"", requests[class][cache])
#define REQUESTS(cache_name, cache)                                                                          \
    REQUESTS_OF("none", STAT_CLASS_NONE, cache_name, cache),                                                 \
        REQUESTS_OF("2xx", STAT_CLASS_2XX, cache_name, cache),                                               \
        REQUESTS_OF("3xx", STAT_CLASS_3XX, cache_name, cache),                                               \
        REQUESTS_OF("4xx", STAT_CLASS_4XX, cache_name, cache),                                               \
        REQUESTS_OF("5xx", STAT_CLASS_5XX, cache_name, cache)
#define FIRST_BYTE(cache_name, cache)                                                                        \
    HISTOGRAM("first_byte_seconds",                                                                          \
              "From a request's head to the first bytes of its answer given to the kernel.",                 \
              "result=\"" cache_name "\"", first_byte_ns[cache])
#define DURATION(cache_name, cache)                                                                          \
    HISTOGRAM("request_duration_seconds", "From a request's head to the end of its answer.",                 \
              "result=\"" cache_name "\"", duration_ns[cache])
#define EACH_CACHE(row)                                                                                      \
    row("none", ACCESS_CACHE_NONE), row("hit", ACCESS_CACHE_HIT), row("miss", ACCESS_CACHE_MISS),            \
        row("joined", ACCESS_CACHE_JOINED), row("stale", ACCESS_CACHE_STALE),                                \
        row("revalidated", ACCESS_CACHE_REVALIDATED), row("pass", ACCESS_CACHE_PASS)

#define SIGNATURE(name, result)                                                                              \
    COUNTER("signatures_total", "Signed URLs checked, by result.", "result=\"" name "\"", signatures[result])

#define PROXY_HEADER(name, result)                                                                           \
    COUNTER("proxy_headers_total",                                                                           \
            "Connections from peers named in listen[].proxy_protocol, by what they began with.",             \
            "result=\"" name "\"", proxy_headers[result])

#define HTTP2_ATTACK(name, kind)                                                                             \
    COUNTER("http2_attacks_total", "HTTP/2 connections ended because they were abused, by how.",             \
            "kind=\"" name "\"", http2.attacks[kind])

const struct metric_desc proxy_stats_table[] = {
    EACH_CACHE(REQUESTS),
    EACH_CACHE(FIRST_BYTE),
    EACH_CACHE(DURATION),
    SIGNATURE("ok", STAT_SIGNATURE_OK),
    SIGNATURE("signature", STAT_SIGNATURE_WRONG),
    SIGNATURE("expired", STAT_SIGNATURE_EXPIRED),
    SIGNATURE("address", STAT_SIGNATURE_ADDRESS),
    SIGNATURE("geo", STAT_SIGNATURE_GEO),
    COUNTER("geo_lookups_total", "Addresses whose country was looked up, by whether it is known.",
            "result=\"known\"", geo_known),
    COUNTER("geo_lookups_total", "", "result=\"unknown\"", geo_unknown),
    COUNTER("geo_blocked_total", "Requests from where it may not be heard, by who says so.", "by=\"url\"",
            geo_blocked[STAT_GEO_URL]),
    COUNTER("geo_blocked_total", "", "by=\"rule\"", geo_blocked[STAT_GEO_RULE]),
    COUNTER("geo_blocked_total", "", "by=\"rights\"", geo_blocked[STAT_GEO_RIGHTS]),
    COUNTER("taken_down_total", "Requests for what the rights file has taken down.", NULL, taken_down),
    COUNTER("rate_limited_total", "Requests answered with 429, by whose limit it was.", "by=\"uid\"",
            rate_limited_uid),
    COUNTER("rate_limited_total", "", "by=\"address\"", rate_limited_address),
    COUNTER("rate_limit_uncounted_total", "Let pass without being counted because its table was full.",
            "table=\"requests\"", uncounted_requests),
    COUNTER("rate_limit_uncounted_total", "", "table=\"connections\"", uncounted_connections),
    COUNTER("sent_bytes_total", "Bytes sent to clients, heads included.", NULL, sent_bytes),
    COUNTER("upstream_received_bytes_total", "Body bytes received from upstreams.", NULL, upstream_bytes),
    COUNTER("fills_started_total", "Fetches from above that were begun.", NULL, fills_started),
    COUNTER("fills_total", "Fetches from above that ended, by how.", "result=\"complete\"", fills_completed),
    COUNTER("fills_total", "", "result=\"not_modified\"", fills_not_modified),
    COUNTER("fills_total", "", "result=\"failed\"", fills_failed),
    COUNTER("upstream_bodies_too_long_total", "Answers longer than their Content-Length.", NULL,
            origin_longer),
    COUNTER("connections_accepted_total", "Client connections accepted.", NULL, connections_accepted),
    COUNTER("connections_refused_total", "Client connections closed at once, by which limit was reached.",
            "reason=\"connections_max\"", connections_refused),
    COUNTER("connections_refused_total", "", "reason=\"address\"", connections_refused_address),
    COUNTER("accept_errors_total", "Accepts that failed, such as for want of file descriptors.", NULL,
            accept_errors),
    GAUGE("connections", "Client connections open, by state.", "state=\"open\"", connections_open),
    GAUGE("connections", "", "state=\"active\"", connections_active),
    PROXY_HEADER("ok", STAT_PROXY_HEADER_OK),
    PROXY_HEADER("no_source", STAT_PROXY_HEADER_NO_SOURCE),
    PROXY_HEADER("bad", STAT_PROXY_HEADER_BAD),
    PROXY_HEADER("late", STAT_PROXY_HEADER_LATE),
    COUNTER("paced_requests_total", "Requests whose answers are paced, by who set the rate.", "by=\"token\"",
            paced_requests[false]),
    COUNTER("paced_requests_total", "", "by=\"cmcd\"", paced_requests[true]),
    COUNTER("tls_handshakes_total", "TLS handshakes with clients that ended, by how.", "result=\"full\"",
            tls.handshakes_full),
    COUNTER("tls_handshakes_total", "", "result=\"resumed\"", tls.handshakes_resumed),
    COUNTER("tls_handshakes_total", "", "result=\"failed\"", tls.handshakes_failed),
    COUNTER("tls_handshakes_total", "", "result=\"timeout\"", tls.handshakes_timeout),
    COUNTER("tls_connections_total", "TLS connections with clients, by version.", "version=\"1.2\"",
            tls.handshakes_tls12),
    COUNTER("tls_connections_total", "", "version=\"1.3\"", tls.handshakes_tls13),
    COUNTER("tls_handshakes_delayed_total", "TLS handshakes that waited for a place or their turn.", NULL,
            tls.handshakes_delayed),
    GAUGE("tls_handshakes", "TLS handshakes with clients under way.", NULL, tls.handshaking),
    COUNTER("tls_upstream_handshakes_failed_total", "TLS handshakes with upstreams that failed.", NULL,
            tls.client_handshakes_failed),
    COUNTER("head_timeouts_total", "Request heads that did not come in time.", NULL, head_timeouts),
    COUNTER("slow_clients_total", "Clients cut off because they read too slowly.", NULL, slow_clients),
    COUNTER("bad_requests_total", "Request heads that were refused.", NULL, bad_requests),
    COUNTER("http2_connections_total", "Client connections that spoke HTTP/2.", NULL, http2_connections),
    GAUGE("http2_connections", "HTTP/2 connections open.", NULL, http2_connections_open),
    COUNTER("http2_streams_total", "Requests that came over HTTP/2.", NULL, http2.streams),
    COUNTER("http2_streams_refused_total", "Streams refused for want of a place; clients may try again.",
            NULL, http2.streams_refused),
    GAUGE("http2_requests", "Requests under way over HTTP/2.", NULL, http2_requests),
    COUNTER("http2_resets_total", "Streams reset, by whom.", "by=\"client\"", http2.resets_received),
    COUNTER("http2_resets_total", "", "by=\"server\"", http2.resets_sent),
    COUNTER("http2_goaways_total", "HTTP/2 connections ended, by whom or why.", "reason=\"client\"",
            http2.goaways_received),
    COUNTER("http2_goaways_total", "", "reason=\"graceful\"", http2.goaways_sent),
    COUNTER("http2_goaways_total", "", "reason=\"error\"", http2.goaways_error),
    HTTP2_ATTACK("rapid_reset", HTTP2_ATTACK_RESETS),
    HTTP2_ATTACK("continuation", HTTP2_ATTACK_CONTINUATION),
    HTTP2_ATTACK("header_bomb", HTTP2_ATTACK_HEADERS),
    HTTP2_ATTACK("settings", HTTP2_ATTACK_SETTINGS),
    HTTP2_ATTACK("ping", HTTP2_ATTACK_PINGS),
    HTTP2_ATTACK("priority", HTTP2_ATTACK_PRIORITIES),
    HTTP2_ATTACK("window_update", HTTP2_ATTACK_WINDOW_UPDATES),
    HTTP2_ATTACK("empty_frames", HTTP2_ATTACK_EMPTY_FRAMES),
    HTTP2_ATTACK("unknown_frames", HTTP2_ATTACK_UNKNOWN_FRAMES),
    HTTP2_ATTACK("unread", HTTP2_ATTACK_UNREAD),
    GAUGE("upstream_connections", "Connections to upstreams open.", NULL, upstream_open),
    COUNTER("upstream_connects_total", "Connections to upstreams begun.", NULL, upstream_connects),
    COUNTER("upstream_reuses_total", "Requests sent on a kept connection.", NULL, upstream_reuses),
    COUNTER("upstream_errors_total", "What went wrong with upstreams, by kind.", "kind=\"connect\"",
            upstream_connect_errors),
    COUNTER("upstream_errors_total", "", "kind=\"reset\"", upstream_resets),
    COUNTER("upstream_errors_total", "", "kind=\"timeout\"", upstream_timeouts),
    COUNTER("upstream_retries_total", "Requests repeated because a kept connection had closed.", NULL,
            upstream_retries),
    COUNTER("resolve_queries_total", "Names asked of the resolver.", NULL, resolve.queries),
    COUNTER("resolve_failures_total", "Names that could not be resolved, by why.", "kind=\"failure\"",
            resolve.failures),
    COUNTER("resolve_failures_total", "", "kind=\"missing\"", resolve.missing),
    COUNTER("resolve_stale_total", "Old addresses used because DNS failed.", NULL, resolve.stale),
    GAUGE("resolve_names", "Names kept.", NULL, resolve.names),
};
const size_t proxy_stats_table_n = sizeof proxy_stats_table / sizeof proxy_stats_table[0];
