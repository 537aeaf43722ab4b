/* A fill fetches one answer from above and writes it into a flight. It belongs to no client: what it needs of
 * the request that caused it is copied into it. */
#pragma once

#include "cache/flight.h"
#include "http/http1.h"
#include "io/io.h"
#include "net/resolve.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

#include <linux/openat2.h>
#include <sys/stat.h>

struct request;

/* What is asked. Strings are copied. */
struct fill_order {
    struct worker_site *site;
    const struct rule *rule;
    enum http_method method;
    struct str method_name;
    struct str path;           /* canonical */
    struct str query;          /* what goes up, without its '?' */
    struct str fields;         /* lines to pass on, each with its CRLF (upward.h) */
    struct object *revalidate; /* a stored answer to be validated, or NULL; a reference is taken */
    bool cacheable;     /* false: passed; the answer is for one client and no range or validator is ours */
    bool authorization; /* the request has the field */
    const char *via;    /* the version that the request came in, for Via: "1.1"; static */
    struct request
        *body_from; /* a request whose body goes up, or NULL; it calls fill_forget_body when it goes */
};

struct fill;

/* Starts it, and takes the flight's reference for the fill. What goes wrong is told to the flight's readers.
 * Returns the fill, which stays valid at least while order->body_from has not been forgotten; NULL when there
 * is no place for it (then the flight has failed). */
struct fill *fill_start(struct worker *w, struct flight **flight, const struct fill_order *order);

/* Its request goes before the body was read to its end; request_body_taken follows. */
void fill_forget_body(struct fill *f);

/* More of the request's body is there. */
void fill_wake(struct fill *f);

/* Ends it as soon as nothing of it is in flight; its readers are told. */
void fill_abort(struct fill *f);

/* --- between fill.c and its parts --- */

#define FILL_MAGIC     0x46696c6cu
#define FILL_TRIES_MAX 4u /* connections for one fill, a failed reuse and a changed question included */

struct fill {
    struct flow flow;
    uint32_t magic;
    struct list node; /* in worker->fill_list */
    struct worker *worker;
    struct worker_site *site;
    struct flight *flight;
    const struct rule *rule;
    enum http_method method;
    const char *via;
    bool cacheable, authorization;
    bool whole;       /* ask without Range */
    bool asked_range; /* what was asked last */
    struct object *revalidate;
    struct request *body_from;
    struct str method_name, path, query, fields; /* in `text` */
    char *text;

    struct upstream *upstream;
    struct upstream_conn *conn;
    struct upstream_waiter waiter;
    uint64_t tried;
    unsigned tries;
    struct resolve resolve;
    int addresses_n, address_at;

    char *out; /* the request as sent */
    size_t out_n;
    bool out_begun; /* some of it may have gone up */
    char *head;     /* the answer's head, as far as it has come */
    size_t head_n, head_cap, head_scanned;
    struct http1_response response;
    struct http1_chunked chunked;
    struct io_op op; /* connect, receive: one at a time beside the connection's own receive */
    struct stream_send send;
    struct iovec vecs[3];
    char chunk_head[HTTP1_CHUNK_HEAD_MAX + 2];
    size_t body_run_n; /* of the request's body, in flight */
    struct timer timer;

    uint64_t body_left; /* with HTTP_BODY_LENGTH */
    bool no_room;       /* waits for the readers of its ring */
    uint64_t epoch;
    uint64_t request_unix_s;
    bool has_body;      /* one goes up; then nothing is asked twice */
    bool body_sent;     /* it went up whole, or its end is on its way */
    bool request_whole; /* all has been sent: the connection may carry another */
    bool body_gone;     /* its request ends before that */

    /* a file origin's (fill_file.c) */
    int dir_fd, file_fd; /* -1: none */
    uint8_t file_phase;
    uint64_t file_at;
    size_t file_last_n;
    char *file_name;
    struct open_how how;
    struct statx stat, stat_before;

    bool after_drop_retry;
    struct flight_error error;
};

/* What an answer's head means for the fill (fill_answer.c). */
enum fill_meaning {
    FILL_MEANS_BODY,      /* flight_begin has been called; the body follows */
    FILL_MEANS_COMPLETE,  /* the flight is complete (304) and f->flight is gone */
    FILL_MEANS_ASK_AGAIN, /* with another question, which has been set up */
    FILL_MEANS_ERROR,     /* f->error says why */
};
enum fill_meaning fill_understand(struct fill *f);

/* Steps' ends, shared by the sources (fill.c). */
enum flow_result fill_head_complete(struct fill *f); /* f->response is parsed from f->head */
enum flow_result fill_whole(struct fill *f, bool reusable);
enum flow_result fill_no_room(struct fill *f);
/* Gives up what the fill holds, then either asks again or, when the flight is still open, fails it. */
enum flow_result fill_drop(struct fill *f, bool retry, unsigned status, const char *reason);

enum flow_result fill_file_step(struct flow *flow);
enum flow_result fill_file_body_step(struct flow *flow);
void fill_file_close(struct fill *f);
