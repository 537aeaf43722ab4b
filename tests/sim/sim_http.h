/* HTTP/1.1 peers for simulations: a client that connects to the program, and an origin that it connects to.
 * Written apart from base/http and as simply as can be, so that both are not wrong in the same way. They
 * belong to the world's test and live until *_free, which must come before sim_destroy. */
#pragma once

#include "sim.h"
#include "sim_tls.h"

/* --- client --- */

struct sim_client;

struct sim_client_options {
    const char *from_ip;               /* NULL: 127.0.0.1 */
    uint64_t read_rate;                /* bytes/s; 0: without limit */
    uint64_t write_rate;               /* bytes/s; 0: without limit */
    uint64_t abort_at_bytes;           /* resets once it has read so many; 0: never */
    bool abort_by_close;               /* ... or closes */
    bool closes_after_replies;         /* closes once every reply expected has come */
    const struct sim_tls_options *tls; /* NULL: plain */
};

enum sim_framing { SIM_FRAMING_NONE, SIM_FRAMING_LENGTH, SIM_FRAMING_CHUNKED, SIM_FRAMING_CLOSE };

struct sim_reply {
    int status;         /* of the final head; 0: none has come */
    unsigned interim_n; /* 1xx heads before it */
    struct str head;    /* status line and fields with the empty line */
    struct str body;    /* without chunk framing; what has come so far */
    enum sim_framing framing;
    uint64_t content_length; /* SIM_FRAMING_LENGTH */
    bool complete;           /* framing says that all has come */
    bool malformed;          /* could not be understood: see sim_reply_why */
    const char *why;
    bool ended;        /* HTTP/2: the stream has, whole or not, */
    uint32_t h2_error; /* and with this code */
    uint64_t asked_ns, first_byte_ns, done_ns;
};

struct sim_client *sim_client_new(struct sim_world *w, const char *ip, uint16_t port,
                                  const struct sim_client_options *options); /* NULL: defaults. Connects. */
void sim_client_free(struct sim_client **c);

/* Raw bytes of one request, for which one reply is expected; `head_only`: it is a HEAD. They may be sent in
 * pieces: sim_client_part sends bytes that bring no further reply; sim_client_pause waits between pieces. */
void sim_client_request(struct sim_client *c, struct str raw, bool head_only);
void sim_client_part(struct sim_client *c, struct str raw);
void sim_client_pause(struct sim_client *c, uint64_t ns);

/* GET with Host: localhost; `fields` are whole lines with CRLF, or NULL. */
void sim_client_get(struct sim_client *c, const char *target, const char *fields);

struct sim_conn *sim_client_conn(struct sim_client *c);
size_t sim_client_asked(const struct sim_client *c);
size_t sim_client_complete(const struct sim_client *c); /* replies that are complete, the first ones */
const struct sim_reply *sim_client_reply(const struct sim_client *c, size_t i); /* valid until more is run */
bool sim_client_gone(const struct sim_client *c); /* the program ended, or it was reset or refused */
int sim_client_error(const struct sim_client *c); /* 0, or why it is gone */

/* Bytes that came beyond the replies expected: always a fault of the program. */
size_t sim_client_surplus(const struct sim_client *c);

/* For sim_run: true when all replies asked for are complete or the connection is gone. */
bool sim_client_settled(void *client);

/* The value of the first field of that name, whatever its case; STR_NONE when there is none. */
struct str sim_head_field(struct str head, const char *name);
unsigned sim_head_field_count(struct str head, const char *name);

/* --- origin --- */

struct sim_origin;

enum sim_cut {
    SIM_CUT_NONE,
    SIM_CUT_BEFORE_HEAD,
    SIM_CUT_IN_HEAD, /* after cut_at bytes of it */
    SIM_CUT_IN_BODY, /* after cut_at bytes of the body; chunked: within or between chunks */
};

/* What a path is answered with, and what goes wrong. Zeroes: an empty 200 without validators. Strings must
 * outlive the origin. */
struct sim_answer {
    int status;          /* 0: 200, 206 or 304, as the request asks */
    uint64_t body_bytes; /* the body is that of sim_body_id(path, version) */
    uint64_t version;
    bool etag, weak_etag;     /* ETag "v<version>" */
    uint64_t last_modified_s; /* 0: none */
    bool no_ranges;           /* ignores Range */
    bool chunked;
    bool by_close;      /* neither Content-Length nor chunked: the end of the connection ends the body */
    bool close_after;   /* Connection: close */
    const char *fields; /* further whole lines with CRLF */
    struct str raw;     /* instead of all of the above: these bytes */

    uint64_t delay_ns;         /* before the first byte of the answer */
    uint64_t body_delay_ns;    /* between head and body */
    uint64_t drip_bytes_per_s; /* 0: without limit */
    enum sim_cut cut;
    uint64_t cut_at;
    bool cut_by_close;  /* FIN in place of a reset, and no close_notify */
    bool never;         /* no answer at all */
    int64_t length_lie; /* added to the Content-Length that is sent */
    unsigned interim_100, interim_103;
    uint64_t head_pad_bytes; /* a field X-Pad as long as this */
};

struct sim_origin_request {
    struct str method, target, head;
    struct str body;         /* without chunk framing */
    uint64_t nth;            /* of this path, from 0 */
    uint64_t nth_connection; /* requests on this connection before it */
};

struct sim_origin *sim_origin_new(struct sim_world *w, const char *ip, uint16_t port);
void sim_origin_free(struct sim_origin **o);

/* Connections that come from now on speak TLS, with these options (copied); NULL: plain. */
void sim_origin_tls(struct sim_origin *o, const struct sim_tls_options *options);

/* The answer for a path (without its query), or NULL: for all others. None: 404. */
void sim_origin_set(struct sim_origin *o, const char *path, const struct sim_answer *answer);

/* Used up first, by the next `times` requests of that path, in the order given. */
void sim_origin_next(struct sim_origin *o, const char *path, const struct sim_answer *answer, unsigned times);

/* Looks at every answer before it is sent and may change it. */
void sim_origin_hook(struct sim_origin *o,
                     void (*hook)(void *context, const struct sim_origin_request *, struct sim_answer *),
                     void *context);

uint64_t sim_origin_requests(const struct sim_origin *o, const char *path); /* NULL: all */
uint64_t sim_origin_connections(const struct sim_origin *o);
struct str sim_origin_last_head(const struct sim_origin *o, const char *path); /* of the last such request */
