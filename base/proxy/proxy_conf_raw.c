/* Schemas only. Keys that are known but refused (proxy_conf.c) are CYAML_IGNORE here, and so are those that
 * are a word or a list (`methods`). Every text has a bound, so that nothing later has to think of it. */
#include "proxy/proxy_conf_raw.h"

#define TEXT_BYTES_MAX  1024
#define WORD_BYTES_MAX  64
#define QUERY_NAMES_MAX 64

#define OPTIONAL CYAML_FLAG_OPTIONAL

/* A text that must be there, one that may be, a number or quantity, a flag, and what is looked at by hand. */
#define TEXT(key, type, member)                                                                              \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER, type, member, 1, TEXT_BYTES_MAX)
#define TEXT_OPT(key, type, member) CYAML_FIELD_STRING_PTR(key, OPTIONAL, type, member, 1, TEXT_BYTES_MAX)
#define WORD_OPT(key, type, member) CYAML_FIELD_STRING_PTR(key, OPTIONAL, type, member, 1, WORD_BYTES_MAX)
#define BOOL_OPT(key, type, member) CYAML_FIELD_BOOL_PTR(key, OPTIONAL, type, member)
#define MAP_OPT(key, type, member, fields)                                                                   \
    CYAML_FIELD_MAPPING_PTR(key, OPTIONAL | CYAML_FLAG_POINTER, type, member, fields)
#define LIST_OPT(key, type, member, entry, max)                                                              \
    CYAML_FIELD_SEQUENCE(key, OPTIONAL | CYAML_FLAG_POINTER, type, member, entry, 0, max)
#define LOOKED_AT(key) CYAML_FIELD_IGNORE(key, OPTIONAL)

static const cyaml_schema_value_t text_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, TEXT_BYTES_MAX)};

static const cyaml_schema_field_t tls_certificate_fields[] = {
    TEXT("certificate", struct raw_tls_certificate, certificate),
    TEXT("key", struct raw_tls_certificate, key), CYAML_FIELD_END};

static const cyaml_schema_value_t tls_certificate_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_tls_certificate, tls_certificate_fields)};

static const cyaml_schema_field_t listen_tls_fields[] = {
    TEXT_OPT("certificate", struct raw_listen_tls, certificate), TEXT_OPT("key", struct raw_listen_tls, key),
    LIST_OPT("certificates", struct raw_listen_tls, certificates, &tls_certificate_entry,
             PROXY_CERTIFICATES_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_field_t listen_fields[] = {
    TEXT("address", struct raw_listen, address), MAP_OPT("tls", struct raw_listen, tls, listen_tls_fields),
    BOOL_OPT("http2", struct raw_listen, http2),
    LIST_OPT("proxy_protocol", struct raw_listen, proxy_protocol, &text_entry, PROXY_TRUSTED_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t listen_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_listen, listen_fields)};

static const cyaml_schema_field_t admin_fields[] = {
    TEXT_OPT("socket", struct raw_admin, socket), TEXT_OPT("address", struct raw_admin, address),
    TEXT_OPT("token", struct raw_admin, token),
    LIST_OPT("hosts", struct raw_admin, hosts, &text_entry, PROXY_HOSTS_MAX), CYAML_FIELD_END};

static const cyaml_schema_field_t memory_fields[] = {
    WORD_OPT("size", __typeof__(*((struct raw_conf *)0)->memory), size), CYAML_FIELD_END};

static const cyaml_schema_field_t geo_fields[] = {TEXT("database", struct raw_geo, database),
                                                  CYAML_FIELD_END};

static const cyaml_schema_field_t peers_fields[] = {
    TEXT_OPT("token", __typeof__(*((struct raw_conf *)0)->peers), token),
    TEXT_OPT("client_ca", __typeof__(*((struct raw_conf *)0)->peers), client_ca), CYAML_FIELD_END};

static const cyaml_schema_field_t upstream_tls_fields[] = {
    TEXT_OPT("ca", struct raw_upstream_tls, ca),
    BOOL_OPT("verify", struct raw_upstream_tls, verify),
    TEXT_OPT("certificate", struct raw_upstream_tls, certificate),
    TEXT_OPT("key", struct raw_upstream_tls, key),
    TEXT_OPT("name", struct raw_upstream_tls, name),
    CYAML_FIELD_END};

static const cyaml_schema_field_t upstream_fields[] = {
    TEXT("url", struct raw_upstream, url),
    TEXT_OPT("host", struct raw_upstream, host),
    WORD_OPT("weight", struct raw_upstream, weight),
    BOOL_OPT("backup", struct raw_upstream, backup),
    WORD_OPT("max_connections", struct raw_upstream, max_connections),
    TEXT_OPT("peer_token", struct raw_upstream, peer_token),
    MAP_OPT("tls", struct raw_upstream, tls, upstream_tls_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t upstream_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_upstream, upstream_fields)};

static const cyaml_schema_field_t origin_fields[] = {
    TEXT_OPT("match", struct raw_upstream, match),
    TEXT("url", struct raw_upstream, url),
    TEXT_OPT("host", struct raw_upstream, host),
    BOOL_OPT("backup", struct raw_upstream, backup),
    WORD_OPT("max_connections", struct raw_upstream, max_connections),
    LOOKED_AT("endpoint"),
    LOOKED_AT("region"),
    LOOKED_AT("credentials"),
    MAP_OPT("tls", struct raw_upstream, tls, upstream_tls_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t origin_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_upstream, origin_fields)};

static const cyaml_schema_field_t signing_fields[] = {
    BOOL_OPT("required", struct raw_signing, required),
    TEXT("keys", struct raw_signing, keys),
    WORD_OPT("clock_skew", struct raw_signing, clock_skew),
    WORD_OPT("lifetime_max", struct raw_signing, lifetime_max),
    WORD_OPT("pfx_depth_min", struct raw_signing, pfx_depth_min),
    CYAML_FIELD_END};

#define RATE_LIMIT_FIELDS                                                                                    \
    WORD_OPT("per_address", struct raw_rate_limit, per_address),                                             \
        WORD_OPT("burst", struct raw_rate_limit, burst),                                                     \
        WORD_OPT("connections_per_address", struct raw_rate_limit, connections_per_address),                 \
        WORD_OPT("table", struct raw_rate_limit, table)

static const cyaml_schema_field_t edge_rate_limit_fields[] = {
    WORD_OPT("per_uid", struct raw_rate_limit, per_uid), RATE_LIMIT_FIELDS, CYAML_FIELD_END};
static const cyaml_schema_field_t shield_rate_limit_fields[] = {LOOKED_AT("per_uid"), RATE_LIMIT_FIELDS,
                                                                CYAML_FIELD_END};

static const cyaml_schema_field_t rule_fields[] = {
    TEXT("match", struct raw_rule, match),
    BOOL_OPT("cache", struct raw_rule, cache),
    WORD_OPT("ttl", struct raw_rule, ttl),
    BOOL_OPT("override", struct raw_rule, override),
    BOOL_OPT("immutable", struct raw_rule, immutable),
    BOOL_OPT("signed", struct raw_rule, is_signed),
    WORD_OPT("negative_ttl", struct raw_rule, negative_ttl),
    WORD_OPT("stale_while_revalidate", struct raw_rule, stale_while_revalidate),
    WORD_OPT("stale_if_error", struct raw_rule, stale_if_error),
    LIST_OPT("keep_query", struct raw_rule, keep_query, &text_entry, QUERY_NAMES_MAX),
    LOOKED_AT("methods"),
    TEXT_OPT("track", struct raw_rule, track),
    BOOL_OPT("client_cache_control", struct raw_rule, client_cache_control),
    BOOL_OPT("store_set_cookie", struct raw_rule, store_set_cookie),
    BOOL_OPT("store_authorization", struct raw_rule, store_authorization),
    LOOKED_AT("markets"),
    CYAML_FIELD_END};

static const cyaml_schema_value_t rule_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_rule, rule_fields)};

static const cyaml_strval_t log_formats[] = {{"json", PROXY_LOG_JSON}, {"combined", PROXY_LOG_COMBINED}};

static const cyaml_schema_field_t access_log_fields[] = {
    TEXT("path", struct raw_access_log, path),
    CYAML_FIELD_ENUM("format", OPTIONAL | CYAML_FLAG_STRICT, struct raw_access_log, format, log_formats, 2),
    CYAML_FIELD_END};

static const cyaml_schema_field_t pacing_fields[] = {
    BOOL_OPT("cmcd_rtp", struct raw_pacing, cmcd_rtp),
    WORD_OPT("cmcd_rtp_min", struct raw_pacing, cmcd_rtp_min), CYAML_FIELD_END};

static const cyaml_schema_field_t timeouts_fields[] = {
    WORD_OPT("client_hello", struct raw_timeouts, client_hello),
    WORD_OPT("client_handshake", struct raw_timeouts, client_handshake),
    WORD_OPT("client_head", struct raw_timeouts, client_head),
    WORD_OPT("client_idle", struct raw_timeouts, client_idle),
    WORD_OPT("client_body", struct raw_timeouts, client_body),
    WORD_OPT("client_send", struct raw_timeouts, client_send),
    WORD_OPT("upstream_connect", struct raw_timeouts, upstream_connect),
    WORD_OPT("upstream_first_byte", struct raw_timeouts, upstream_first_byte),
    WORD_OPT("upstream_between_bytes", struct raw_timeouts, upstream_between_bytes),
    WORD_OPT("upstream_idle", struct raw_timeouts, upstream_idle),
    WORD_OPT("drain", struct raw_timeouts, drain),
    CYAML_FIELD_END};

static const cyaml_schema_field_t limits_fields[] = {
    WORD_OPT("connections_max", struct raw_limits, connections_max),
    WORD_OPT("tls_handshakes_max", struct raw_limits, tls_handshakes_max),
    WORD_OPT("http2_streams_max", struct raw_limits, http2_streams_max),
    WORD_OPT("client_requests_max", struct raw_limits, client_requests_max),
    WORD_OPT("client_rate_min", struct raw_limits, client_rate_min),
    WORD_OPT("client_rate_grace", struct raw_limits, client_rate_grace),
    WORD_OPT("upstream_idle_max", struct raw_limits, upstream_idle_max),
    WORD_OPT("listen_backlog", struct raw_limits, listen_backlog),
    WORD_OPT("request_body_max", struct raw_limits, request_body_max),
    WORD_OPT("object_max", struct raw_limits, object_max),
    CYAML_FIELD_END};

#define COMMON_FIELDS                                                                                        \
    WORD_OPT("name", struct raw_conf, name),                                                                 \
        CYAML_FIELD_SEQUENCE("listen", CYAML_FLAG_POINTER, struct raw_conf, listen, &listen_entry, 1,        \
                             PROXY_LISTENERS_MAX),                                                           \
        MAP_OPT("admin", struct raw_conf, admin, admin_fields),                                              \
        LIST_OPT("hosts", struct raw_conf, hosts, &text_entry, PROXY_HOSTS_MAX),                             \
        WORD_OPT("workers", struct raw_conf, workers),                                                       \
        MAP_OPT("memory", struct raw_conf, memory, memory_fields), LOOKED_AT("stores"),                      \
        MAP_OPT("geo", struct raw_conf, geo, geo_fields), TEXT_OPT("rights", struct raw_conf, rights),       \
        LIST_OPT("rules", struct raw_conf, rules, &rule_entry, RULES_MAX),                                   \
        MAP_OPT("access_log", struct raw_conf, access_log, access_log_fields),                               \
        LIST_OPT("trusted_proxies", struct raw_conf, trusted_proxies, &text_entry, PROXY_TRUSTED_MAX),       \
        MAP_OPT("timeouts", struct raw_conf, timeouts, timeouts_fields),                                     \
        MAP_OPT("limits", struct raw_conf, limits, limits_fields)

static const cyaml_schema_field_t edge_fields[] = {
    COMMON_FIELDS,
    CYAML_FIELD_SEQUENCE("upstreams", CYAML_FLAG_POINTER, struct raw_conf, upstreams, &upstream_entry, 1,
                         PROXY_UPSTREAMS_MAX),
    MAP_OPT("signing", struct raw_conf, signing, signing_fields),
    MAP_OPT("rate_limit", struct raw_conf, rate_limit, edge_rate_limit_fields),
    MAP_OPT("pacing", struct raw_conf, pacing, pacing_fields),
    LOOKED_AT("origins"),
    LOOKED_AT("peers"),
    CYAML_FIELD_END};

static const cyaml_schema_field_t shield_fields[] = {
    COMMON_FIELDS,
    CYAML_FIELD_SEQUENCE_COUNT("origins", CYAML_FLAG_POINTER, struct raw_conf, upstreams, upstreams_count,
                               &origin_entry, 1, PROXY_UPSTREAMS_MAX),
    MAP_OPT("peers", struct raw_conf, peers, peers_fields),
    MAP_OPT("rate_limit", struct raw_conf, rate_limit, shield_rate_limit_fields),
    LOOKED_AT("upstreams"),
    LOOKED_AT("signing"),
    LOOKED_AT("pacing"),
    CYAML_FIELD_END};

const cyaml_schema_value_t raw_edge_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_conf, edge_fields)};
const cyaml_schema_value_t raw_shield_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_conf, shield_fields)};
