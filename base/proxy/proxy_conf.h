/* edge.yaml and shield.yaml as one immutable snapshot. Loading reads the file and the secret files it names,
 * checks that all of it makes sense together, and resolves nothing (names of upstreams stay names). It never
 * opens a socket or a cache, so that `-t` and `seguectl check` run it anywhere.
 *
 * Every struct str here is followed by a NUL. Relative paths were taken from the folder of the file. A
 * snapshot is shared by all threads read-only; who loaded it frees it once no thread uses it.
 *
 * Keys of the contract whose function is not built yet (s3:// URLs, stores) are known and refused with an
 * error that says so. */
#pragma once

#include "http/signed_url.h"
#include "http/url.h"
#include "net/tls.h"
#include "proxy/rules.h"
#include "proxy/territory.h"
#include "util/arena.h"
#include "util/conf.h"
#include "util/ip.h"
#include "util/rate_table.h"

#include <sys/socket.h>

enum proxy_role { PROXY_ROLE_EDGE, PROXY_ROLE_SHIELD };

#define PROXY_WORKERS_MAX   256
#define PROXY_LISTENERS_MAX 64
#define PROXY_UPSTREAMS_MAX 64
#define PROXY_TRUSTED_MAX   256
#define PROXY_HOSTS_MAX     1024

/* Of one listener: a few names in RSA and ECDSA. They are looked through for each full handshake. */
#define PROXY_CERTIFICATES_MAX 64

struct proxy_address {
    struct str text; /* "127.0.0.1:8080", "[::1]:8080" */
    struct sockaddr_storage addr;
    socklen_t addr_len;
    bool loopback;
};

struct proxy_listen {
    struct proxy_address address;
    struct tls_server *tls;                /* NULL: plain */
    bool http2;                            /* with TLS by ALPN; without, who begins with its preface */
    const struct ip_block *proxy_protocol; /* peers that begin with a PROXY header; none: nobody */
    unsigned proxy_protocol_n;
};

struct proxy_admin {
    struct str socket_path; /* empty: no socket */
    bool tcp;
    struct proxy_address address; /* if tcp */
    struct str token;             /* empty: none; then a TCP address is loopback */
    const struct str *hosts;      /* lower case; beside addresses and localhost */
    unsigned hosts_n;
};

/* An upstream of an edge or an origin of a shield. */
struct proxy_upstream {
    struct str url;           /* as configured, for logs and metrics */
    enum url_scheme scheme;   /* URL_HTTP, URL_HTTPS, or URL_FILE of a shield */
    struct str host;          /* name or address, lower case, without brackets; not of file */
    uint16_t port;            /* not of file */
    struct tls_client *tls;   /* https only */
    struct str tls_name;      /* what its certificate must be for, and SNI: `host`, or `tls.name` */
    struct str path;          /* http: put before the path asked for, "" or "/prefix"; file: the folder */
    struct str host_field;    /* the Host to send: `host`, or the URL's authority; never the client's, since
                               * all Hosts share one cache */
    unsigned weight;          /* 1 or more */
    bool backup;              /* only when no other is well */
    unsigned connections_max; /* of one process, over all workers */
    struct str peer_token;    /* empty: none */
    struct pattern match;     /* of an upstream: everything */
};

/* What an edge's file that does not say otherwise means. */
#define PROXY_CLOCK_SKEW_S   5
#define PROXY_LIFETIME_MAX_S (24 * 3600)
#define PROXY_PFX_DEPTH_MIN  2

struct proxy_signing {
    bool given; /* false: all rules have RULE_SIGNING_IGNORED and the rest is empty */
    bool required;
    struct signed_url_keys *keys;
    struct signed_url_policy policy;
};

/* An absent key limits nothing: what is right behind a carrier's NAT only the operator knows. */
#define PROXY_RATE_BURST 100
/* Places of the table: who has just been faster than a rate is in it for the time that he is ahead, 20 ms after
 * one request at 50/s. A million listeners with a request each 10 s are 2,000. */
#define PROXY_RATE_TABLE 65536

struct proxy_rate_limit {
    struct rate per_uid, per_address; /* of requests; interval_ns 0: no limit */
    unsigned connections_per_address; /* 0: no limit */
    unsigned table_entries;           /* read at start */
};

enum proxy_log_format { PROXY_LOG_JSON, PROXY_LOG_COMBINED };

/* Of the edge. A signed `rate` needs no permission: who signs has given it. */
struct proxy_pacing {
    bool cmcd_rtp; /* a player that says how much is of use to it gets no more */
    uint64_t cmcd_rtp_min_bytes_per_s;
};

struct proxy_timeouts {
    uint64_t client_hello_ms;     /* TLS: from the connection to a whole ClientHello */
    uint64_t client_handshake_ms; /* and to the handshake's end */
    uint64_t client_head_ms; /* from the first byte of a request's head (or the connection) to its last */
    uint64_t client_idle_ms; /* keep-alive between requests */
    uint64_t client_body_ms; /* without a byte of a request's body */
    uint64_t client_send_ms; /* without a byte taken, where client_rate_min is 0 */
    uint64_t upstream_connect_ms;
    uint64_t upstream_first_byte_ms;    /* from the whole request sent to the head's end */
    uint64_t upstream_between_bytes_ms; /* without a byte of the body */
    uint64_t upstream_idle_ms;          /* a pooled connection is closed after it */
    uint64_t drain_ms;                  /* SIGTERM to the end, at most */
};

struct proxy_limits {
    unsigned connections_max;     /* clients, over all workers */
    unsigned tls_handshakes_max;  /* under way at once, over all workers; more wait */
    unsigned http2_streams_max;   /* requests under way on one HTTP/2 connection */
    unsigned client_requests_max; /* on one connection, then it closes */
    uint64_t client_rate_min;     /* bytes per second; 0: none. Slower for client_rate_grace is cut off */
    uint64_t client_rate_grace_ms;
    unsigned upstream_idle_max; /* pooled connections an upstream, a worker */
    unsigned listen_backlog;
    uint64_t request_body_bytes_max;
    uint64_t object_bytes_max; /* larger ones are passed, not stored */
};

struct proxy_conf {
    uint32_t magic;
    struct arena arena;
    enum proxy_role role;
    struct str file; /* its own path */
    struct str name; /* for Cache-Status and CDN-Loop: "segue-edge", "segue-shield" or `name` */

    const struct proxy_listen *listen;
    unsigned listen_n;
    struct proxy_admin admin;
    const struct str *hosts; /* lower case, without port; none: any Host */
    unsigned hosts_n;
    unsigned workers; /* 0: one a CPU that the process may use */
    uint64_t memory_bytes;

    /* upstreams of an edge, origins of a shield, in the order of the file */
    const struct proxy_upstream *upstreams;
    unsigned upstreams_n;

    struct proxy_signing signing; /* edge */
    bool has_tokens;              /* or keys, beside signing and listeners: any file of a secret */
    struct str peers_token; /* shield: what its edges send; empty: loopback, or client certificates, only */
    struct str peers_client_ca; /* shield: file of the authorities of client certificates; empty: none */
    struct proxy_rate_limit rate_limit;
    struct rules rules;

    bool access_log;
    struct str access_log_path; /* "-": standard output */
    enum proxy_log_format access_log_format;

    const char *territory_paths[TERRITORY_PARTS]; /* `geo` and `rights`; NULL: not given */
    struct territory *territory; /* as loaded with this; who loaded the snapshot may take it away */

    const struct ip_block *trusted_proxies; /* only they may set X-Forwarded-For */
    unsigned trusted_proxies_n;
    struct proxy_pacing pacing;
    struct proxy_timeouts timeouts;
    struct proxy_limits limits;
};

#define PROXY_CONF_MAGIC 0x70436f6e /* "pCon" */

/* Keys or tokens: nobody else may see the memory of a process that has it. */
bool proxy_conf_holds_secrets(const struct proxy_conf *conf);

/* Returns 0 and a snapshot, or a negative errno and one line in *error. */
int proxy_conf_load(const char *path, enum proxy_role role, struct proxy_conf **out,
                    struct conf_error *error);
/* Whether this peer may say who the client is. */
bool proxy_conf_trusts(const struct proxy_conf *conf, const struct ip *peer);
void proxy_conf_free(struct proxy_conf **conf);

/* keys.yaml alone, for seguectl. `keys` is the caller's, who clears it with signed_url_keys_clear; it is
 * empty after an error. */
int proxy_keys_load(const char *path, struct signed_url_keys *keys, struct conf_error *error);
