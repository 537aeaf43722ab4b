/* A client's connection: plain or TLS, HTTP/1.1 (here) or HTTP/2 (http2_conn.c). In HTTP/1.1 it reads heads,
 * starts one request after another, and keeps order. While idle it owns no buffer and no request: its own
 * memory is this struct. */
#pragma once

#include "io/io.h"
#include "net/address.h"
#include "net/stream.h"
#include "proxy/carrier.h"
#include "proxy/worker.h"

struct request;
struct http2_conn;

#define CONN_MAGIC 0x436f6e6eu

/* 256 bytes: with what the kernel keeps, all that an idle plain connection costs. */
struct conn {
    struct flow flow;
    uint32_t magic;
    char country[2];        /* NULs: the database did not know */
    bool close_after : 1;   /* the request that is under way is the last */
    bool discarding : 1;    /* lingering: what comes is not read */
    bool head_timing : 1;   /* the timer runs for a head, not for idleness */
    bool cut : 1;           /* an answer was not sent whole: no close_notify may make it look so */
    bool http2_offered : 1; /* without TLS: its preface may come first */
    bool ended : 1;         /* the end of what we send has been said */
    struct worker *worker;
    struct carrier carrier; /* of HTTP/1.1 */
    struct stream stream;
    struct timer timer;
    struct request *request;  /* under way, or NULL */
    struct http2_conn *http2; /* NULL: it speaks HTTP/1.1 */
    char *head;               /* a head that came in parts; NULL: none */
    uint16_t head_n;
    uint16_t head_scanned;
    union {
        uint32_t requests_n;
        uint32_t discarded_bytes; /* lingering */
    };
    struct list node;          /* in worker->conn_list */
    struct address peer;       /* the client's; that of who connected, unless a PROXY header names another */
    uint32_t address_slot;     /* of rate_limit_enter */
    uint32_t geo_serial;       /* of the database that has told the peer's country; 0: none has been asked */
    uint32_t pace_bytes_per_s; /* as set; 0: none */
    struct tls_server *tls_next; /* counted; once the PROXY header is there. NULL: none, or begun */
};

/* An accepted socket becomes a connection, or is closed when there is no place for it. */
void conn_accept(struct worker *w, int fd, const struct proxy_listen *listen);

/* The rate at which the kernel sends from here on; 0: no bound. Costs nothing while it stays the same. With TLS
 * it is the ciphertext's. */
void conn_pace(struct conn *c, uint64_t bytes_per_s);

/* Bytes that a client must take in so long, not to be too slow: the least rate, or what the pace that we set leaves of
 * it. A pace is of packets with their heads, and goes by whole ones: half of it, and the largest packet late, is as asked
 * for. At least 1, but for what a pace leaves. */
uint64_t conn_least_bytes(uint64_t rate_min, uint64_t pace_bytes_per_s, uint64_t elapsed_ms);

/* The pace of a connection that carries several answers at once: the highest of theirs, and none if one has none.
 * Begin with the first's rate. */
static inline uint64_t conn_pace_of_both(uint64_t a_bytes_per_s, uint64_t b_bytes_per_s)
{
    if (a_bytes_per_s == 0 || b_bytes_per_s == 0)
        return 0;
    return a_bytes_per_s > b_bytes_per_s ? a_bytes_per_s : b_bytes_per_s;
}

/* The worker drains: idle connections close now, others after their request; with hurry at once. */
void conn_drain(struct conn *c, bool hurry);
