/* A connected TCP socket, plain or with TLS on it, behind one interface. Plain, every function is a call or two
 * of io/io.h; with TLS a flow of the stream's own (tls_stream.c) stands between socket and owner.
 *
 * Reading is as with io_recv: the reader flow is woken when there is something new, peeks, consumes, and arms
 * before it waits. Writing is one send at a time, which is complete when all of it was given to the kernel.
 * All results are >= 0 or -errno. */
#pragma once

#include "io/io.h"
#include "net/tls.h"

struct stream {
    struct io_recv recv;    /* of what the socket brings: with TLS that is ciphertext */
    struct tls_stream *tls; /* NULL: plain */
};

/* A plain stream on a connected (or, for upstreams, still connecting) socket, which stays the caller's to
 * close. multishot as in io_recv_init. */
void stream_init(struct stream *s, int fd, struct flow *reader, bool multishot);

static inline int stream_fd(const struct stream *s)
{
    return s->recv.fd;
}

/* Who is woken by what comes. */
void stream_set_reader(struct stream *s, struct flow *reader);

/* --- TLS --- */

/* From here on the stream speaks TLS; what has been received and not consumed is its first ciphertext. 0 or
 * -ENOMEM (then it is as it was). The context (server or client) is referenced until the stream is stopped.
 * The handshake begins at once; the reader is woken when it is over. */
int stream_tls_accept(struct io *io, struct stream *s, struct tls_local *local, struct tls_server *server);
/* `name` is what the certificate must be for, and the SNI (an address is verified and not sent). */
int stream_tls_connect(struct io *io, struct stream *s, struct tls_local *local, struct tls_client *client,
                       struct str name);

/* -EAGAIN while the handshake is under way; 0 when it is done, and always for a plain stream; else why it
 * failed: -EPROTO (TLS said so; stream_tls_why), -ECONNRESET or -ENODATA (the peer went), ... */
int stream_handshake(const struct stream *s);

/* In words for a log, of a failed handshake or a broken connection; never NULL. Lives as long as the stream. */
const char *stream_tls_why(const struct stream *s);

/* What ALPN agreed on; empty: nothing, or plain. "h2", "http/1.1". */
struct str stream_alpn(const struct stream *s);

static inline bool stream_is_tls(const struct stream *s)
{
    return s->tls != NULL;
}

/* --- reading --- */

/* Makes sure that the reader is woken by what comes next (io_recv_arm). */
void stream_arm(struct io *io, struct stream *s);

/* The first unread run, or an empty one. It stays valid until consumed. */
struct str stream_peek(struct io *io, const struct stream *s);

/* n: at most what peek gave. */
void stream_consume(struct io *io, struct stream *s, size_t n);

/* 0 while more may come; -ENODATA when the peer has ended its stream; else -errno. Only once all is consumed.
 * A TLS peer that ends without close_notify: -ENODATA of a client, whose requests say how long they are;
 * -ECONNRESET of an upstream, whose body may end with the connection. */
int stream_end(const struct stream *s);

/* Buffers that hold what nobody has consumed: what this stream costs others. */
unsigned stream_unread_buffers(const struct stream *s);

/* Straight into memory of the caller's (at least one byte; 0 at the end). Only while nothing is unread and no receive
 * is armed (stream_init without multishot). `op` is complete as any operation; stream_cancel ends it early. */
void stream_recv_into(struct io *io, struct stream *s, struct io_op *op, struct flow *f, void *to, size_t n);
void stream_cancel(struct io *io, struct stream *s, struct io_op *op);

/* --- writing --- */

struct stream_send {
    struct io_op op;
    struct msghdr message;
    struct iovec *vecs; /* what is left; changed as it goes */
    unsigned vecs_n;
    size_t left_bytes; /* not yet given to the kernel, or not yet encrypted */
    size_t total_bytes;
};

/* Sends all of the vectors, which the caller keeps, with what they point to, until completion. One send at a time a
 * stream. `f` is woken at its end. */
void stream_send(struct io *io, struct stream *s, struct stream_send *send, struct flow *f,
                 struct iovec *vecs, unsigned vecs_n);

static inline void stream_send_bytes(struct io *io, struct stream *s, struct stream_send *send,
                                     struct flow *f, struct iovec *vec, const void *bytes, size_t n)
{
    *vec = (struct iovec){(void *)(uintptr_t)bytes, n};
    stream_send(io, s, send, f, vec, 1);
}

/* True once, when the send is over: *error is 0 when all was sent, else -errno, and the stream can send no
 * more. Goes on with what a short send left. */
bool stream_send_take(struct io *io, struct stream *s, struct stream_send *send, int *error);

/* Ends it early; it completes all the same, and the stream can send no more. */
void stream_send_cancel(struct io *io, struct stream *s, struct stream_send *send);

static inline bool stream_is_sending(const struct stream_send *send)
{
    return send->op.in_flight;
}

/* Nothing more will be sent: close_notify where there is TLS, then the end of the TCP stream. Not while a send is
 * under way. The peer can then tell a whole answer from one that was cut off; do not call it for the latter. */
void stream_end_sending(struct io *io, struct stream *s);

/* --- the end --- */

/* Drops what is unread and cancels what is in flight. True when nothing is any more, and TLS is gone; else the
 * reader is woken when it may be so, and calls again. The socket is then the caller's to close. A send or
 * receive of the caller's must be over before. */
bool stream_stop(struct io *io, struct stream *s);
