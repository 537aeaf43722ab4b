/* A client's HTTP/1.1 connection: reads heads, starts one request after another, and keeps order. While idle
 * it owns no buffer and no request: its own memory is this struct. */
#pragma once

#include "io/io.h"
#include "net/address.h"
#include "proxy/worker.h"

struct request;

#define CONN_MAGIC 0x436f6e6eu

struct conn {
    struct flow flow;
    uint32_t magic;
    int fd;
    struct worker *worker;
    struct io_recv recv;
    struct timer timer;
    struct request *request; /* under way, or NULL */
    char *head;              /* a head that came in parts; NULL: none */
    uint32_t head_n;
    uint32_t requests_n;
    size_t head_scanned;
    struct list node; /* in worker->conn_list */
    struct address peer;
    bool close_after; /* the request that is under way is the last */
    bool discarding;  /* lingering: what comes is not read */
    bool head_timing; /* the timer runs for a head, not for idleness */
};

/* An accepted socket becomes a connection, or is closed when there is no place for it. */
void conn_accept(struct worker *w, int fd, const struct proxy_listen *listen);

/* The worker drains: idle connections close now, others after their request; with hurry at once. */
void conn_drain(struct conn *c, bool hurry);

/* --- for its request --- */

/* The request is over and gone. close: the connection cannot carry another. unread: its body was not read to its
 * end, so that what comes is no request. */
void conn_request_done(struct conn *c, bool close, bool unread);

/* Whether the answer has to say that the connection closes. */
bool conn_will_close(const struct conn *c);
