#include "net/tls_stream.h"

#include <errno.h>

int stream_tls_accept(struct io *io, struct stream *s, struct tls_local *local, struct tls_server *server)
{
    (void)io, (void)s, (void)local, (void)server;
    return -ENOSYS;
}

int stream_tls_connect(struct io *io, struct stream *s, struct tls_local *local, struct tls_client *client,
                       struct str name)
{
    (void)io, (void)s, (void)local, (void)client, (void)name;
    return -ENOSYS;
}

void tls_stream_set_reader(struct stream *s, struct flow *reader)
{
    (void)s, (void)reader;
}

int tls_stream_handshake(const struct stream *s)
{
    (void)s;
    return -ENOSYS;
}

const char *tls_stream_why(const struct stream *s)
{
    (void)s;
    return "";
}

struct str tls_stream_alpn(const struct stream *s)
{
    (void)s;
    return STR_NONE;
}

void tls_stream_arm(struct io *io, struct stream *s)
{
    (void)io, (void)s;
}

struct str tls_stream_peek(const struct stream *s)
{
    (void)s;
    return STR_NONE;
}

void tls_stream_consume(struct io *io, struct stream *s, size_t n)
{
    (void)io, (void)s, (void)n;
}

int tls_stream_end(const struct stream *s)
{
    (void)s;
    return -ENOSYS;
}

unsigned tls_stream_unread_buffers(const struct stream *s)
{
    (void)s;
    return 0;
}

void tls_stream_recv_into(struct io *io, struct stream *s, struct io_op *op)
{
    (void)io, (void)s, (void)op;
}

void tls_stream_cancel_recv(struct io *io, struct stream *s, struct io_op *op)
{
    (void)io, (void)s, (void)op;
}

void tls_stream_send(struct io *io, struct stream *s, struct stream_send *send)
{
    (void)io, (void)s, (void)send;
}

void tls_stream_cancel_send(struct io *io, struct stream *s, struct stream_send *send)
{
    (void)io, (void)s, (void)send;
}

void tls_stream_end_sending(struct io *io, struct stream *s)
{
    (void)io, (void)s;
}

bool tls_stream_stop(struct io *io, struct stream *s)
{
    (void)io, (void)s;
    return true;
}
