/* What stream.c asks of a stream's TLS side. Only those two include it. */
#pragma once

#include "net/stream.h"

void tls_stream_set_reader(struct stream *s, struct flow *reader);
int tls_stream_handshake(const struct stream *s);
const char *tls_stream_why(const struct stream *s);
struct str tls_stream_alpn(const struct stream *s);

void tls_stream_arm(struct io *io, struct stream *s);
struct str tls_stream_peek(const struct stream *s);
void tls_stream_consume(struct io *io, struct stream *s, size_t n);
int tls_stream_end(const struct stream *s);
unsigned tls_stream_unread_buffers(const struct stream *s);
/* op->flow, argument, n are set and op is in flight. */
void tls_stream_recv_into(struct io *io, struct stream *s, struct io_op *op);
void tls_stream_cancel_recv(struct io *io, struct stream *s, struct io_op *op);

/* send is set up and in flight. */
void tls_stream_send(struct io *io, struct stream *s, struct stream_send *send);
void tls_stream_cancel_send(struct io *io, struct stream *s, struct stream_send *send);
void tls_stream_end_sending(struct io *io, struct stream *s);

/* True when s->tls is NULL. */
bool tls_stream_stop(struct io *io, struct stream *s);
