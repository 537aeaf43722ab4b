#include "net/stream.h"

#include "net/tls_stream.h"
#include "util/check.h"

#include <errno.h>

void stream_init(struct stream *s, int fd, struct flow *reader, bool multishot)
{
    s->tls = NULL;
    io_recv_init(&s->recv, fd, reader, multishot);
}

void stream_set_reader(struct stream *s, struct flow *reader)
{
    if (s->tls != NULL)
        tls_stream_set_reader(s, reader);
    else
        s->recv.op.flow = reader;
}

int stream_handshake(const struct stream *s)
{
    return s->tls != NULL ? tls_stream_handshake(s) : 0;
}

const char *stream_tls_why(const struct stream *s)
{
    return s->tls != NULL ? tls_stream_why(s) : "no TLS";
}

struct str stream_alpn(const struct stream *s)
{
    return s->tls != NULL ? tls_stream_alpn(s) : STR_NONE;
}

/* --- reading --- */

void stream_arm(struct io *io, struct stream *s)
{
    if (s->tls != NULL)
        tls_stream_arm(io, s);
    else
        io_recv_arm(io, &s->recv);
}

struct str stream_peek(struct io *io, const struct stream *s)
{
    return s->tls != NULL ? tls_stream_peek(s) : io_recv_peek(io, &s->recv);
}

void stream_consume(struct io *io, struct stream *s, size_t n)
{
    if (s->tls != NULL)
        tls_stream_consume(io, s, n);
    else
        io_recv_consume(io, &s->recv, n);
}

int stream_end(const struct stream *s)
{
    return s->tls != NULL ? tls_stream_end(s) : io_recv_end(&s->recv);
}

unsigned stream_unread_buffers(const struct stream *s)
{
    return s->tls != NULL ? tls_stream_unread_buffers(s) : s->recv.queued_n;
}

void stream_recv_into(struct io *io, struct stream *s, struct io_op *op, struct flow *f, void *to, size_t n)
{
    if (s->tls == NULL) {
        io_recv_into(io, op, f, s->recv.fd, to, n);
        return;
    }
    CHECK(!op->in_flight);
    *op = (struct io_op){
        .flow = f, .argument = to, .n = (uint32_t)(n < INT32_MAX ? n : INT32_MAX), .in_flight = true};
    tls_stream_recv_into(io, s, op);
}

void stream_cancel(struct io *io, struct stream *s, struct io_op *op)
{
    if (s->tls != NULL && op->in_flight)
        tls_stream_cancel_recv(io, s, op);
    else
        io_cancel(io, op);
}

/* --- writing --- */

static void send_plain(struct io *io, struct stream *s, struct stream_send *send, struct flow *f)
{
    if (send->vecs_n == 1) {
        io_send(io, &send->op, f, s->recv.fd, send->vecs[0].iov_base, send->vecs[0].iov_len);
        return;
    }
    send->message = (struct msghdr){.msg_iov = send->vecs, .msg_iovlen = send->vecs_n};
    io_sendmsg(io, &send->op, f, s->recv.fd, &send->message);
}

void stream_send(struct io *io, struct stream *s, struct stream_send *send, struct flow *f,
                 struct iovec *vecs, unsigned vecs_n)
{
    CHECK(!send->op.in_flight);
    send->vecs = vecs;
    send->vecs_n = vecs_n;
    send->total_bytes = 0;
    for (unsigned i = 0; i < vecs_n; i++)
        send->total_bytes += vecs[i].iov_len;
    send->left_bytes = send->total_bytes;
    CHECK(send->total_bytes > 0);
    if (s->tls == NULL) {
        send_plain(io, s, send, f);
        return;
    }
    send->op = (struct io_op){.flow = f, .in_flight = true};
    tls_stream_send(io, s, send);
}

/* Takes n bytes off the front of what is to be sent. */
static void advance(struct stream_send *send, size_t n)
{
    send->left_bytes -= n;
    while (n > 0 && n >= send->vecs->iov_len) {
        n -= send->vecs->iov_len;
        send->vecs++;
        send->vecs_n--;
    }
    if (n > 0) {
        send->vecs->iov_base = (char *)send->vecs->iov_base + n;
        send->vecs->iov_len -= n;
    }
}

bool stream_send_take(struct io *io, struct stream *s, struct stream_send *send, int *error)
{
    int result;

    if (!io_op_take(&send->op, &result))
        return false;
    *error = result < 0 ? result : 0;
    if (s->tls != NULL) { /* which goes on by itself, and says 0 or an error */
        if (result == 0)
            send->left_bytes = 0;
        return true;
    }
    if (result == 0)
        *error = -EPIPE;
    if (*error != 0)
        return true;
    advance(send, (size_t)result);
    if (send->left_bytes == 0)
        return true;
    send_plain(io, s, send, send->op.flow);
    return false;
}

void stream_send_cancel(struct io *io, struct stream *s, struct stream_send *send)
{
    if (s->tls != NULL && send->op.in_flight)
        tls_stream_cancel_send(io, s, send);
    else
        io_cancel(io, &send->op);
}

void stream_end_sending(struct io *io, struct stream *s)
{
    if (s->tls != NULL)
        tls_stream_end_sending(io, s);
    else
        io_shutdown_send(io, s->recv.fd);
}

/* --- the end --- */

bool stream_stop(struct io *io, struct stream *s)
{
    if (s->tls != NULL && !tls_stream_stop(io, s))
        return false;
    return io_recv_stop(io, &s->recv);
}
