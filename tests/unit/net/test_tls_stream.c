/* TLS streams on real sockets: a server's and a client's in one loop. */
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

static void read_all(struct end *e)
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

static void read_into(struct end *e)
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

static void end_run(struct actor *a)
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

static void pair_open(struct pair *p, const struct tls_local_options *options)
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

static void end_close(struct end *e)
{
    e->stopping = true;
    io_wake(e->io, &e->actor.flow);
    assert_true(RUN_UNTIL(e->io, e->stopped));
    assert_null(e->stream.tls);
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
}

static void pair_close(struct pair *p)
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

static void start(struct pair *p, struct tls_server *s, struct tls_client *c, const char *name)
{
    assert_int_equal(stream_tls_accept(p->io, &p->server.stream, p->local, s), 0);
    assert_int_equal(stream_tls_connect(p->io, &p->client.stream, p->local, c, str_z(name)), 0);
}

#define shaken(p)                                                                                            \
    (stream_handshake(&(p)->server.stream) != -EAGAIN && stream_handshake(&(p)->client.stream) != -EAGAIN)

static void shake(struct pair *p)
{
    assert_true(RUN_UNTIL(p->io, shaken(p)));
    if (stream_handshake(&p->server.stream) != 0 || stream_handshake(&p->client.stream) != 0)
        fail_msg("server: %s; client: %s", stream_tls_why(&p->server.stream),
                 stream_tls_why(&p->client.stream));
}

/* Sends the pattern from `at` on, cut as given, until it is given to the kernel. */
static void begin_send(struct end *e, const char *bytes, const size_t *cuts, unsigned cuts_n)
{
    for (unsigned i = 0; i < cuts_n; i++) {
        e->vecs[i] = (struct iovec){(void *)(uintptr_t)bytes, cuts[i]};
        bytes += cuts[i];
    }
    e->sending = true;
    e->sent = false;
    stream_send(e->io, &e->stream, &e->send, &e->actor.flow, e->vecs, cuts_n);
}

static void check_transfer(struct pair *p, struct end *from, struct end *to, const size_t *cuts,
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

/* --- tests --- */

static void test_all_sizes_both_ways(void **state)
{
    static const size_t sizes[] = {1,     2,     100,   16383, 16384, 16385, 32768,
                                   33068, 65535, 65536, 65537, 81920, 400000};
    struct tls_server *s = make_server("ec", NULL, true);
    struct tls_client *c = make_client(ca.path, NULL);
    struct pair p;

    (void)state;
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    assert_true(str_eq(stream_alpn(&p.server.stream), STR("http/1.1")));
    assert_int_equal(stat_get(&p.stats.handshakes_tls13), 1);
    assert_int_equal(stat_get(&p.stats.handshakes_full), 1);
    p.server.reads = p.client.reads = true;
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        const size_t cuts[] = {300, sizes[i]};

        p.client.step = p.server.step = i % 3 == 2 ? 777 : 0;
        check_transfer(&p, &p.server, &p.client, &sizes[i], 1);
        check_transfer(&p, &p.server, &p.client, cuts, 2);
        check_transfer(&p, &p.client, &p.server, cuts, 2);
    }
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

static void test_into_memory(void **state)
{
    static const size_t rooms[] = {1, 100, 16384, 16385, 17000, 50000, 1000000};
    struct tls_server *s = make_server("ec", NULL, true);
    struct tls_client *c = make_client(ca.path, NULL);
    const size_t n = 300000;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rooms); i++) {
        struct pair p;
        const size_t few = i == 0 ? 20000 : n;

        pair_open(&p, NULL);
        start(&p, s, c, "a.example");
        shake(&p);
        p.client.reads_into = true;
        p.client.into_n = rooms[i];
        p.client.into = malloc(rooms[i]);
        check_transfer(&p, &p.server, &p.client, &few, 1);
        stream_end_sending(p.io, &p.server.stream);
        assert_true(RUN_UNTIL(p.io, p.client.end != 0));
        assert_int_equal(p.client.end, -ENODATA);
        assert_false(p.client.op.in_flight);
        pair_close(&p);
        free(p.client.into);
    }
    tls_server_unref(&s);
    tls_client_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes_both_ways),
        cmocka_unit_test(test_into_memory),
    };
    int failures;

    tls_fixture_open();
    ca = make_authority("ca");
    issue(&ca, "ec", KEY_EC, "DNS:a.example", -3600, 86400);
    issue(&ca, "rsa", KEY_RSA, "DNS:a.example", -3600, 86400);
    failures = cmocka_run_group_tests_name("tls_stream", tests, NULL, NULL);
    free_authority(&ca);
    tls_fixture_close();
    return failures;
}
