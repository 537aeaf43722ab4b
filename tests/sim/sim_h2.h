/* An HTTP/2 client for simulations, on nghttp2's client session: over plain TCP with prior knowledge, or over TLS by
 * ALPN. Its replies are those of sim_http.h; the head begins with "HTTP/2 STATUS". What nghttp2 finds against the
 * protocol (RFC 9113) is `malformed`. Belongs to the test, and lives until sim_h2_free, which must come before
 * sim_destroy. */
#pragma once

#include "sim_http.h"

struct sim_h2;

struct sim_h2_options {
    const char *from_ip;               /* NULL: 127.0.0.1 */
    const struct sim_tls_options *tls; /* NULL: plain. alpn NULL: h2 */
    uint64_t read_rate, write_rate;    /* bytes/s; 0: without limit */
    uint64_t abort_at_bytes;           /* resets once it has read so many; 0: never */
    bool abort_by_close;               /* ... or closes */
    bool no_window;                    /* streams begin with a window of 0 */
    uint32_t stream_window;            /* of each stream at first; 0: 65535 */
    uint32_t connection_window;        /* 0: 65535, which is the least */
    bool never_opens;                  /* what has come is never given back to the windows */
    struct sim_range hold_ns;          /* ... or after so long; {0, 0}: at once */
    uint32_t frame_bytes_max;          /* 0: 16384, which is the least */
    bool has_table;
    uint32_t table_bytes; /* of HPACK, where it has one other than 4096 */
};

struct sim_h2_request {
    const char *method; /* NULL: GET */
    const char *target;
    const char *authority;   /* NULL: localhost */
    const char *fields;      /* whole lines with CRLF; names go in lower case. NULL: none */
    uint64_t body_id;        /* with body_bytes: */
    uint64_t body_bytes;     /* of that body are sent; 0: no body */
    bool has_length;         /* content-length says how many */
    uint64_t body_stops_at;  /* what comes after so many bytes is never sent; 0: all is */
    uint64_t after_ns;       /* is sent so long from now */
    uint64_t reset_after_ns; /* is cancelled so long after it was sent; 0: never */
    uint64_t reset_at_bytes; /* is cancelled when so much of the answer's body has come; 0: never */
};

struct sim_h2 *sim_h2_new(struct sim_world *w, const char *ip, uint16_t port,
                          const struct sim_h2_options *options); /* NULL: defaults. Connects. */
void sim_h2_free(struct sim_h2 **c);

size_t sim_h2_ask(struct sim_h2 *c, const struct sim_h2_request *request); /* returns its number, from 0 */
size_t sim_h2_get(struct sim_h2 *c, const char *target, const char *fields);

void sim_h2_reset(struct sim_h2 *c, size_t i); /* RST_STREAM with CANCEL, unless it has ended */
/* The frame PRIORITY_UPDATE (RFC 9218): "u=1, i". */
void sim_h2_prioritize(struct sim_h2 *c, size_t i, const char *priority);
/* Gives back all that was held, holds nothing from here on, and makes streams' windows wide (SETTINGS). */
void sim_h2_open_windows(struct sim_h2 *c);
void sim_h2_ping(struct sim_h2 *c);
void sim_h2_bye(struct sim_h2 *c); /* GOAWAY, and the end once the streams under way have ended */

struct sim_conn *sim_h2_conn(struct sim_h2 *c);
size_t sim_h2_asked(const struct sim_h2 *c);
const struct sim_reply *sim_h2_reply(const struct sim_h2 *c, size_t i); /* valid until more is run */
bool sim_h2_was_reset_by_us(const struct sim_h2 *c, size_t i);
uint64_t sim_h2_pongs(const struct sim_h2 *c);

bool sim_h2_said_goaway(const struct sim_h2 *c); /* the program has */
uint32_t sim_h2_goaway_error(const struct sim_h2 *c);
bool sim_h2_gone(
    const struct sim_h2 *c); /* it has ended, or was reset or refused; after GOAWAY we end it, too */
int sim_h2_error(const struct sim_h2 *c); /* 0, or why it is gone */
/* NULL, or how the program broke the protocol on the connection. */
const char *sim_h2_broken(const struct sim_h2 *c);

/* For sim_run: true when all replies asked for have ended or the connection is gone. */
bool sim_h2_settled(void *client);
