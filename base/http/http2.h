/* A client's HTTP/2 session (RFC 9113, with RFC 9218's priorities): bytes in, events out; answers in, bytes out.
 * Pure: no I/O, no time but what it is told. nghttp2 does framing, HPACK, flow control and scheduling; this module
 * adds what nghttp2 leaves open (http2_guard.h, frames on streams that are gone, header bombs) and speaks to its
 * owner as HTTP/1.1 does:
 *
 * A request's head is told as the text of an HTTP/1.1 head that has been parsed, so that all behind it is the same; one
 * that would mean something else as a text is malformed. An answer's head is taken in HTTP/1.1's form too.
 *
 * The owner gives each stream a struct http2_stream, and gets it back with http2_forget. Events are called
 * from within http2_feed and http2_pull; they may call anything here but those two and http2_destroy. */
#pragma once

#include "http/http1.h"
#include "http/http2_guard.h"
#include "util/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define HTTP2_PREFACE       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define HTTP2_PREFACE_BYTES 24u

struct http2;

/* One at a time is being sent on each stream; the owner keeps vectors and bytes until `taken` or http2_forget. */
struct http2_stream {
    int32_t id;
    bool closed;           /* both ends are done, or it was reset: nothing more comes or goes */
    bool remote_ended;     /* the client has sent all of its body */
    bool sending;          /* `taken` is still to come */
    bool begun;            /* the answer's head has been framed */
    bool last;             /* of what is being sent: nothing follows */
    uint64_t framed_bytes; /* of bodies, counts up */
    const struct iovec *vecs;
    unsigned vecs_n;
    size_t vec_at;     /* of the first vector, already framed */
    size_t left_bytes; /* of the body, not yet framed */
};

struct http2_request {
    struct str head;                    /* text, whole; valid during the event */
    const struct http1_request *parsed; /* NULL with `refuse` */
    unsigned refuse;                    /* the status to answer with instead of serving it, or 0 */
    const char *detail;                 /* of `refuse` */
    bool ended;                         /* there is no body */
};

struct http2_events {
    /* NULL: no place for it; it is reset with REFUSED_STREAM, and the client may try again. */
    struct http2_stream *(*request)(void *owner, const struct http2_request *request);
    /* A run of a request's body, to be copied; its window opens again by http2_consume. */
    void (*body)(void *owner, struct http2_stream *s, struct str bytes);
    void (*body_end)(void *owner, struct http2_stream *s);
    /* All of what was sent on the stream has been framed. */
    void (*taken)(void *owner, struct http2_stream *s);
    /* s->closed has become true. error: 0, or RFC 9113, 7. With s->sending, that will not be taken any more. */
    void (*closed)(void *owner, struct http2_stream *s, uint32_t error);
};

struct http2_stats {
    uint64_t streams;                        /* requests that came */
    uint64_t streams_refused;                /* with REFUSED_STREAM */
    uint64_t resets_received, resets_sent;   /* RST_STREAM */
    uint64_t goaways_received, goaways_sent; /* by a graceful end */
    uint64_t goaways_error;                  /* sent because of the client's errors, attacks included */
    uint64_t attacks[HTTP2_ATTACKS];
};

struct http2_options {
    const struct http2_events *events;
    void *owner;
    struct http2_stats *stats;
    unsigned streams_max;
    uint64_t now_ns;
};

/* 0 or -ENOMEM. */
int http2_create(struct http2 **out, const struct http2_options *options);
/* All streams must be forgotten. */
void http2_destroy(struct http2 **h);

/* What came, from the preface on. 0, or -EPROTO / -ENOMEM: the session is broken, and nothing can be sent. Errors
 * and attacks that can be answered (GOAWAY) are not an error here: http2_is_over tells when that was sent. */
int http2_feed(struct http2 *h, struct str bytes, uint64_t now_ns);

/* Up to room bytes to send, which is at least 4 KiB. Above 0, 0: nothing at present, or -EPROTO / -ENOMEM as above. */
int http2_pull(struct http2 *h, char *to, size_t room);
bool http2_wants_pull(const struct http2 *h);

/* Nothing more is to be read or sent, but for what has been pulled. */
bool http2_is_over(const struct http2 *h);

/* An error of the client's, or an attack, is what ends it. */
bool http2_was_wronged(const struct http2 *h);

/* By what it was abused, which is why it ends; HTTP2_ATTACK_NONE: it was not. */
enum http2_attack http2_attack_of(const struct http2 *h);

/* A header block has begun and not ended. */
bool http2_is_in_head(const struct http2 *h);

/* Windows of zero: nothing can go out until the client says so. */
bool http2_is_blocked(const struct http2 *h);
bool http2_stream_is_blocked(const struct http2 *h, const struct http2_stream *s);

/* Of bodies, on all streams; counts up. */
uint64_t http2_framed_bytes(const struct http2 *h);

/* --- streams --- */

/* The first head_n vectors are an answer's head in HTTP/1.1's form (0: it has been sent); the rest is of its body. last:
 * nothing follows. 0, or -EPIPE when the stream is closed, or -ENOMEM; then there is no `taken`. */
int http2_send(struct http2 *h, struct http2_stream *s, const struct iovec *vecs, unsigned vecs_n,
               unsigned head_n, bool last);
/* 100 Continue. As http2_send. */
int http2_send_continue(struct http2 *h, struct http2_stream *s);

/* n bytes of its body were read: the client may send as many. */
void http2_consume(struct http2 *h, struct http2_stream *s, size_t n);

/* It is closed at once, without the event: nothing more of it is sent, and nothing refers to its vectors. */
void http2_reset(struct http2 *h, struct http2_stream *s, uint32_t error);

/* The owner takes the struct back. A stream that is still open is reset: with NO_ERROR if its answer is whole, else
 * with INTERNAL_ERROR. unread: bytes of its body that were told and never consumed. */
void http2_forget(struct http2 *h, struct http2_stream *s, size_t unread);

#define HTTP2_NO_ERROR           0x0u
#define HTTP2_PROTOCOL_ERROR     0x1u
#define HTTP2_INTERNAL_ERROR     0x2u
#define HTTP2_FLOW_CONTROL_ERROR 0x3u
#define HTTP2_FRAME_SIZE_ERROR   0x6u
#define HTTP2_STREAM_CLOSED      0x5u
#define HTTP2_REFUSED_STREAM     0x7u
#define HTTP2_CANCEL             0x8u
#define HTTP2_ENHANCE_YOUR_CALM  0xbu

/* --- the end --- */

/* Graceful (RFC 9113, 6.8): first says that the end is near, so that requests on their way are still served... */
void http2_notice(struct http2 *h);
/* ... then, a round trip later, that nothing above the last stream is. Streams that are open go on to their ends. */
void http2_goaway(struct http2 *h);
/* At once: streams that are open end with it. */
void http2_terminate(struct http2 *h, uint32_t error);
