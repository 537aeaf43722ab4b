/* The files as libcyaml reads them: strings where a value has a unit or a meaning, NULL where a key is
 * absent. Only the proxy_conf_*.c files include this. What they share of one load is `struct loader`. */
#pragma once

#include "proxy/proxy_conf.h"

struct raw_tls_certificate {
    char *certificate, *key;
};

struct raw_listen_tls {
    char *certificate, *key;
    struct raw_tls_certificate *certificates;
    unsigned certificates_count;
};

struct raw_listen {
    char *address;
    struct raw_listen_tls *tls;
    bool *http2;
    char **proxy_protocol;
    unsigned proxy_protocol_count;
};

struct raw_admin {
    char *socket, *address, *token;
    char **hosts;
    unsigned hosts_count;
};

struct raw_upstream_tls {
    char *ca, *certificate, *key, *name;
    bool *verify;
};

struct raw_upstream {
    struct raw_upstream_tls *tls;
    char *match, *url, *host, *weight, *max_connections, *peer_token;
    bool *backup;
};

struct raw_signing {
    bool *required;
    char *keys, *clock_skew, *lifetime_max, *pfx_depth_min;
};

struct raw_rate_limit {
    char *per_uid, *per_address, *burst, *connections_per_address, *table;
};

struct raw_rule {
    char *match, *ttl, *negative_ttl, *stale_while_revalidate, *stale_if_error, *track;
    bool *cache, *override, *immutable, *is_signed;
    bool *client_cache_control, *store_set_cookie, *store_authorization;
    char **keep_query;
    unsigned keep_query_count;
};

struct raw_geo {
    char *database;
};

struct raw_access_log {
    char *path;
    enum proxy_log_format format;
};

struct raw_pacing {
    bool *cmcd_rtp;
    char *cmcd_rtp_min;
};

struct raw_timeouts {
    char *client_hello, *client_handshake, *client_head, *client_idle, *client_body, *client_send;
    char *upstream_connect, *upstream_first_byte, *upstream_between_bytes, *upstream_idle;
    char *drain;
};

struct raw_limits {
    char *connections_max, *tls_handshakes_max, *http2_streams_max, *client_requests_max, *client_rate_min,
        *client_rate_grace;
    char *upstream_idle_max, *listen_backlog, *request_body_max, *object_max;
};

struct raw_conf {
    char *name, *workers, *rights;
    struct raw_geo *geo;
    struct raw_listen *listen;
    struct raw_admin *admin;
    char **hosts;
    struct {
        char *size;
    } * memory;
    struct raw_upstream *upstreams;
    struct raw_signing *signing;
    struct {
        char *token, *client_ca;
    } * peers;
    struct raw_rate_limit *rate_limit;
    struct raw_rule *rules;
    struct raw_access_log *access_log;
    char **trusted_proxies;
    struct raw_pacing *pacing;
    struct raw_timeouts *timeouts;
    struct raw_limits *limits;
    unsigned listen_count, hosts_count, upstreams_count, rules_count, trusted_proxies_count;
};

extern const cyaml_schema_value_t raw_edge_schema, raw_shield_schema;

struct loader {
    struct conf *conf;
    const struct raw_conf *raw;
    struct proxy_conf *out;
    struct arena *a;   /* out's */
    struct str folder; /* of the file, with a '/' at its end, or empty */
};

/* Each converts one part; errors stay in the conf. */
void load_rules(struct loader *l);
void load_upstreams(struct loader *l);

/* TLS of the listeners, once it is known who may connect, and of one upstream. */
void load_listen_tls(struct loader *l);
void load_upstream_tls(struct loader *l, const char *path, const struct raw_upstream_tls *raw,
                       struct proxy_upstream *out);

/* A path of the file's, taken from its folder when it is relative; kept in the arena. */
struct str load_path(struct loader *l, const char *path);

/* The token in a secret file, kept in the arena; empty after an error. */
struct str load_token(struct loader *l, const char *key, const char *path);

/* A copy in lower case, kept in the arena. */
struct str load_lower(struct loader *l, struct str s);
