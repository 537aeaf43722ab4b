/* One request, whatever carries it: judged, matched to a rule, its signature checked, looked up, and answered
 * from memory or from a flight. It is a flow of its own beside its connection's, so that a connection can
 * carry several; it hands what it sends to its carrier, heads in HTTP/1.1's form. It owns its copy of the
 * head. */
#pragma once

#include "cache/flight.h"
#include "http/conditional.h"
#include "http/http1.h"
#include "http/range.h"
#include "http/signed_url.h"
#include "http/url.h"
#include "net/stream.h"
#include "proxy/carrier.h"
#include "proxy/worker.h"

struct fill;

#define REQUEST_MAGIC       0x52657175u
#define REQUEST_HEAD_INLINE 1536 /* longer heads are allocated */
#define REQUEST_TEXT_BYTES  1024 /* what is rendered for an answer beside stored heads and bodies */
#define REQUEST_VECS_MAX    6

/* What an answer is made from: a stored object, or a flight that is under way. */
struct answer_view {
    struct str head; /* as struct object's */
    struct str tail;
    struct str etag, last_modified;
    uint64_t total;  /* of the representation; FLIGHT_LENGTH_UNKNOWN */
    uint64_t offset; /* of the first byte of this body within it */
    uint64_t length; /* of this body */
    uint64_t birth_unix_s;
    int64_t lifetime_s;
    uint16_t status, flags;
    bool opaque; /* passed as it came: no ranges or conditionals of ours */
};

/* What is handed to the carrier next, or is on its way (request_send.c). */
struct outgoing {
    struct stream_send send;
    struct iovec vecs[REQUEST_VECS_MAX];
    unsigned vecs_n;
    unsigned head_vecs_n; /* the first so many are the answer's head; 0 once that has gone */
    uint64_t bytes, body_bytes;
    bool last;            /* nothing follows */
    uint64_t taken_bytes; /* by the client, at the last look; UINT64_MAX: none yet */
    uint64_t taken_ns;
};

struct request {
    struct flow flow;
    uint32_t magic;
    struct worker *worker;
    struct carrier *carrier;
    struct worker_site *site;
    const struct rule *rule;

    char *head;
    size_t head_n;
    struct signed_url_parts parts;
    struct str path;  /* canonical; in the head or in `text` */
    struct str query; /* kept; in `text` */
    struct str host;  /* without its port, as the client wrote it */
    struct cache_key key;
    char *text;            /* canonical path, kept query and key; `text_inline` when they fit */
    struct address client; /* who has connected, or whom a trusted proxy names; then without a port */
    char country[2];       /* of the client; NULs: not known, or there is no geo */
    uint64_t rate_bytes_per_s;
    struct str uid, kid; /* in uid_kid, cut to fit */
    bool paced_by_cmcd;  /* the rate is the player's own */
    bool authorization, head_only, close_after, aborted, cacheable;

    struct object *object; /* what is being served, or NULL */
    struct object *stale;  /* what may be served if the flight fails */
    struct flight_reader reader;
    uint64_t seen_written; /* of the flight, with seen_state, when its bytes were last looked for */
    uint8_t seen_state;
    uint32_t slice;
    uint64_t variant;
    uint64_t version; /* of the representation that the head promised; 0 before */
    bool stale_if_error;
    uint8_t cache; /* enum access_cache */
    const char *cache_status_detail;

    uint16_t status;
    const char *reason;     /* Segue-Reason */
    uint32_t retry_after_s; /* of a 429 of ours; 0: none */
    struct ranges ranges;
    unsigned range_at;
    uint64_t at, end; /* in the representation: what is to be sent of this range */
    uint64_t total;
    bool multipart, part_begun, chunked, unknown_length, head_sent;
    bool source_checked; /* object or flight is of the version that the head promised */
    uint8_t stale_slices_n;
    char boundary[25];
    uint8_t part_type_n;
    char part_type[128]; /* Content-Type of the parts; with a longer one there are none */

    struct outgoing out;
    struct timer timer;
    struct worker_yielding yielding;

    uint64_t body_left; /* of the request's own */
    struct http1_chunked chunked_in;
    uint64_t body_bytes; /* of one that does not say its length, so far */
    struct fill *body_to;
    bool body_awaited;        /* since body_awaited_ns */
    uint64_t body_awaited_ns; /* the client had nothing more for us */
    uint64_t body_waited_ns;  /* altogether, and what came meanwhile: for the least rate */
    uint64_t body_window_bytes;
    bool body_over;

    uint64_t begun_ns, begun_unix_ns, first_byte_ns;
    uint64_t sent_bytes, body_sent_bytes;
    uint16_t upstream_status;

    size_t rendered_n;

    /* From here on written before it is read: request_new does not clear it. */
    struct http1_request http;
    char rendered[REQUEST_TEXT_BYTES];
    char uid_kid[96];
    char text_inline[768];
    char head_inline[REQUEST_HEAD_INLINE];
};

/* Takes a complete head (copied) that has been parsed, and starts the flow. NULL: no place. */
struct request *request_start(struct carrier *c, const char *head, size_t head_n,
                              const struct http1_request *parsed);

/* One that is only an error answer, for a head that could not be parsed. */
struct request *request_start_refused(struct carrier *c, unsigned status, const char *detail);

/* The client is gone: the request ends as soon as nothing of it is in flight. */
void request_abort(struct request *r);

/* More bytes, or the end, have come on its connection. */
void request_client_spoke(struct request *r);

/* Its body is still to be taken from the connection. */
bool request_reads_body(const struct request *r);

/* --- its body, pulled by the fill that passes it on --- */

enum { REQUEST_BODY_RUN, REQUEST_BODY_WAIT, REQUEST_BODY_END };

bool request_body_is_chunked(const struct request *r);
uint64_t request_body_length(const struct request *r);
/* REQUEST_BODY_RUN with the next bytes (valid until consumed), WAIT (the fill is woken), END, or -enum http1_error,
 * -EMSGSIZE, or -ETIMEDOUT: it comes slower than the least rate. */
int request_body_next(struct request *r, struct str *run);
void request_body_consume(struct request *r, size_t n);
/* The fill pulls no more. */
void request_body_taken(struct request *r);

/* --- between request.c and its parts --- */

/* The cache key of a canonical path and a query as sent, as the rule keeps it. `kept` gets the query that the
 * key holds, `text` what the key borrows. 0, or -E2BIG. */
int request_key(const struct rule *rule, struct str path, struct str query, struct buf *kept,
                struct buf *text, struct cache_key *key);

/* request_admit.c: from the head to key and rule. 0, or the status to refuse with (r->reason and *detail
 * set). */
unsigned request_admit(struct request *r, const char **detail);

/* request_territory.c: sets r->country, where there is geo. */
void request_find_country(struct request *r);
/* What the rule and the rights file say of the country. 0, or 403 (r->reason and *detail set). */
unsigned request_check_territory(struct request *r, const char **detail);

/* request_answer.c: heads and plans. Each renders into r->rendered and r->out. */
void answer_view_of_object(const struct object *o, struct answer_view *v);
void answer_view_of_flight(const struct flight *f, struct answer_view *v);
uint64_t answer_version(const struct answer_view *v);
void request_render(struct request *r, const struct answer_view *v);
void request_render_problem(struct request *r, unsigned status, const char *detail);
void request_render_unsatisfiable(struct request *r, uint64_t total);
void request_render_health(struct request *r);
/* To OPTIONS that goes no further. */
void request_render_options(struct request *r);
/* The head of the part that begins at range_at, or the end of all parts. */
void request_render_part(struct request *r);

static inline void request_add_vec(struct request *r, const void *p, size_t n)
{
    struct outgoing *out = &r->out;

    CHECK(out->vecs_n < REQUEST_VECS_MAX);
    out->vecs[out->vecs_n++] = (struct iovec){(void *)(uintptr_t)p, n};
    out->bytes += n;
}

/* request_send.c: what r->out holds goes to the carrier. */
void request_send(struct request *r);

enum request_sent {
    REQUEST_SENDING, /* the flow will be woken */
    REQUEST_SENT,
    REQUEST_CUT, /* the client is gone, or too slow */
};

/* Where that stands; cuts off a client that is too slow. */
enum request_sent request_sent(struct request *r);

/* Nothing more of it is wanted. True when nothing is in flight any more; else the flow is woken when it is so. */
bool request_stop_sending(struct request *r);
