/* Two ends of a connection in one loop, or one end and OpenSSL itself at the other. */
#pragma once

#include "../io/io_fixture.h"
#include "net/stream.h"
#include "net/tls_internal.h"
#include "tls_fixture.h"

#include <openssl/err.h>

static struct authority ca;

/* --- one end of a connection --- */

struct end {
    struct actor actor;
    struct io *io;
    struct stream stream;
    int fd;
    struct stream_send send;
    struct iovec vecs[4];
    bool sending, sent;
    int send_error;
    /* what has come, if it reads by peeking */
    bool reads;
    size_t got, step; /* step: takes so many at a time; 0: all */
    int end;
    /* or into memory of its own */
    bool reads_into;
    struct io_op op;
    char *into;
    size_t into_n;
    bool stopping, stopped;
};

static inline void read_all(struct end *e)
{
    struct str run;

    while ((run = stream_peek(e->io, &e->stream)).n > 0) {
        size_t n = e->step > 0 && e->step < run.n ? e->step : run.n;

        assert_pattern(run.p, n, e->got);
        e->got += n;
        stream_consume(e->io, &e->stream, n);
    }
    e->end = stream_end(&e->stream);
    if (e->end == 0)
        stream_arm(e->io, &e->stream);
}

static inline void read_into(struct end *e)
{
    int n;

    if (io_op_take(&e->op, &n)) {
        if (n > 0) {
            assert_pattern(e->into, (size_t)n, e->got);
            e->got += (size_t)n;
        } else {
            e->end = n == 0 ? -ENODATA : n;
        }
    }
    if (!e->op.in_flight && e->end == 0)
        stream_recv_into(e->io, &e->stream, &e->op, &e->actor.flow, e->into, e->into_n);
}

static inline void end_run(struct actor *a)
{
    struct end *e = CONTAINER_OF(a, struct end, actor);
    int error;

    if (e->stopping) {
        if (!e->stopped && stream_stop(e->io, &e->stream))
            e->stopped = true;
        return;
    }
    if (e->sending && stream_send_take(e->io, &e->stream, &e->send, &error)) {
        e->sending = false;
        e->sent = true;
        e->send_error = error;
    }
    if (stream_handshake(&e->stream) != 0)
        return;
    if (e->reads)
        read_all(e);
    if (e->reads_into)
        read_into(e);
}

struct pair {
    struct io *io;
    struct tls_stats stats;
    struct tls_local *local;
    struct end server, client;
};

static inline void pair_open(struct pair *p, const struct tls_local_options *options)
{
    struct tls_local_options local =
        options != NULL
            ? *options
            : (struct tls_local_options){.handshakes_max = 16, .hello_ms = 5000, .handshake_ms = 10000};

    memset(p, 0, sizeof *p);
    local.stats = &p->stats;
    p->io = make_io(64, 64, 2048, 0);
    assert_int_equal(tls_local_create(&p->local, p->io, &local), 0);
    tcp_pair(&p->server.fd, &p->client.fd);
    set_nonblocking(p->client.fd);
    p->server.io = p->client.io = p->io;
    actor_init(&p->server.actor, end_run);
    actor_init(&p->client.actor, end_run);
    stream_init(&p->server.stream, p->server.fd, &p->server.actor.flow, true);
    stream_init(&p->client.stream, p->client.fd, &p->client.actor.flow, false);
}

static inline void end_close(struct end *e)
{
    e->stopping = true;
    io_wake(e->io, &e->actor.flow);
    assert_true(RUN_UNTIL(e->io, e->stopped));
    assert_null(e->stream.tls);
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
}

static inline void pair_close(struct pair *p)
{
    if (!p->client.stopped)
        end_close(&p->client);
    if (!p->server.stopped)
        end_close(&p->server);
    run_for(p->io, 2 * NS_PER_MS);
    assert_int_equal(stat_get(&p->stats.handshaking), 0);
    tls_local_destroy(&p->local);
    io_destroy(&p->io);
}

static inline void start(struct pair *p, struct tls_server *s, struct tls_client *c, const char *name)
{
    assert_int_equal(stream_tls_accept(p->io, &p->server.stream, p->local, s), 0);
    assert_int_equal(stream_tls_connect(p->io, &p->client.stream, p->local, c, str_z(name)), 0);
}

#define shaken(p)                                                                                            \
    (stream_handshake(&(p)->server.stream) != -EAGAIN && stream_handshake(&(p)->client.stream) != -EAGAIN)

static inline void shake(struct pair *p)
{
    assert_true(RUN_UNTIL(p->io, shaken(p)));
    if (stream_handshake(&p->server.stream) != 0 || stream_handshake(&p->client.stream) != 0)
        fail_msg("server: %s; client: %s", stream_tls_why(&p->server.stream),
                 stream_tls_why(&p->client.stream));
}

/* Sends the pattern from `at` on, cut as given, until it is given to the kernel. */
static inline void begin_send(struct end *e, const char *bytes, const size_t *cuts, unsigned cuts_n)
{
    for (unsigned i = 0; i < cuts_n; i++) {
        e->vecs[i] = (struct iovec){(void *)(uintptr_t)bytes, cuts[i]};
        bytes += cuts[i];
    }
    e->sending = true;
    e->sent = false;
    stream_send(e->io, &e->stream, &e->send, &e->actor.flow, e->vecs, cuts_n);
}

static inline void check_transfer(struct pair *p, struct end *from, struct end *to, const size_t *cuts,
                                  unsigned cuts_n)
{
    size_t n = 0;
    char *bytes;

    for (unsigned i = 0; i < cuts_n; i++)
        n += cuts[i];
    bytes = pattern_bytes(n);
    to->got = 0;
    to->end = 0;
    io_wake(p->io, &to->actor.flow);
    begin_send(from, bytes, cuts, cuts_n);
    assert_true(RUN_UNTIL(p->io, from->sent && to->got >= n));
    assert_int_equal(from->send_error, 0);
    assert_int_equal(to->got, n);
    assert_int_equal(to->end, 0);
    free(bytes);
}
