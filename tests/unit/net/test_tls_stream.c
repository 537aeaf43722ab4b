/* TLS streams on real sockets: a server's and a client's in one loop. */
#include "tls_pair.h"

#include <netinet/tcp.h>

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

static void test_ends(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    struct pair p;
    const size_t n = 1000;

    (void)state;
    /* close_notify of either side, while the other goes on */
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    p.server.reads = p.client.reads = true;
    check_transfer(&p, &p.client, &p.server, &n, 1);
    stream_end_sending(p.io, &p.client.stream);
    assert_true(RUN_UNTIL(p.io, p.server.end != 0));
    assert_int_equal(p.server.end, -ENODATA);
    check_transfer(&p, &p.server, &p.client, &n, 1);
    stream_end_sending(p.io, &p.server.stream);
    assert_true(RUN_UNTIL(p.io, p.client.end != 0));
    assert_int_equal(p.client.end, -ENODATA);
    pair_close(&p);

    /* the end of the TCP stream alone: a client may, a server may not */
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    p.server.reads = p.client.reads = true;
    io_wake(p.io, &p.server.actor.flow);
    io_wake(p.io, &p.client.actor.flow);
    shutdown(p.client.fd, SHUT_WR);
    assert_true(RUN_UNTIL(p.io, p.server.end != 0));
    assert_int_equal(p.server.end, -ENODATA);
    shutdown(p.server.fd, SHUT_WR);
    assert_true(RUN_UNTIL(p.io, p.client.end != 0));
    assert_int_equal(p.client.end, -ECONNRESET);
    assert_non_null(strstr(stream_tls_why(&p.client.stream), "close_notify"));
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* Whatever the turn, a stream can be stopped, and everything is given back. */
static void test_stop_in_any_state(void **state)
{
    struct tls_server *s = make_server("rsa", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);

    (void)state;
    for (unsigned turns = 0; turns < 24; turns++) {
        struct pair p;

        pair_open(&p, NULL);
        start(&p, s, c, "a.example");
        p.server.reads = p.client.reads = true;
        for (unsigned i = 0; i < turns; i++)
            assert_int_equal(io_run_once(p.io, NS_PER_MS), 0);
        if (turns % 2 == 0)
            end_close(&p.client);
        else
            end_close(&p.server);
        pair_close(&p);
    }
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* The peer does not read: the send waits, holds one window, and ends when it is told to. */
static void test_cancelled_send(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    const size_t n = 32u << 20;
    char *bytes = calloc(1, n);
    struct pair p;

    (void)state;
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    begin_send(&p.server, bytes, &n, 1);
    run_for(p.io, 50 * NS_PER_MS);
    assert_false(p.server.sent);
    assert_true(p.local->slabs.in_use <= 1);
    stream_send_cancel(p.io, &p.server.stream, &p.server.send);
    assert_true(RUN_UNTIL(p.io, p.server.sent));
    assert_int_equal(p.server.send_error, -ECANCELED);
    begin_send(&p.server, bytes, &n, 1); /* the stream can send no more */
    assert_true(RUN_UNTIL(p.io, p.server.sent));
    assert_true(p.server.send_error < 0);
    pair_close(&p);
    free(bytes);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* Several sends arrive in one segment. */
static void cork(int fd, int on)
{
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
}

/* What came together with the bytes that were asked for, and after them: who arms is told. An upstream connection would
 * else rest with the next answer's head in it. */
static void test_more_than_was_asked_for(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    static const size_t sizes[] = {100, 50};

    (void)state;
    for (unsigned closes = 0; closes < 2; closes++) {
        char into[100];
        struct pair p;
        int result = 0;

        pair_open(&p, NULL);
        start(&p, s, c, "a.example");
        shake(&p);
        stream_recv_into(p.io, &p.client.stream, &p.client.op, &p.client.actor.flow, into, sizeof into);
        run_for(p.io, 2 * NS_PER_MS);
        assert_true(p.client.op.in_flight);
        cork(p.server.fd, 1);
        for (unsigned i = 0; i < (closes ? 1 : 2); i++) {
            char *bytes = pattern_bytes(sizes[i]);

            begin_send(&p.server, bytes, &sizes[i], 1);
            assert_true(RUN_UNTIL(p.io, p.server.sent));
            free(bytes);
        }
        if (closes) {
            stream_end_sending(p.io, &p.server.stream);
            run_for(p.io, 2 * NS_PER_MS);
        }
        cork(p.server.fd, 0);
        assert_true(RUN_UNTIL(p.io, p.client.op.done));
        assert_true(io_op_take(&p.client.op, &result));
        assert_int_equal(result, 100);
        p.client.reads = true; /* as an idle upstream connection does */
        io_wake(p.io, &p.client.actor.flow);
        run_for(p.io, 10 * NS_PER_MS);
        if (closes)
            assert_int_equal(p.client.end, -ENODATA);
        else
            assert_int_equal(p.client.got, 50);
        pair_close(&p);
    }
    tls_server_unref(&s);
    tls_client_unref(&c);
}

static void test_cancelled_receive(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    char into[100];
    struct pair p;
    int result = 0;

    (void)state;
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    stream_recv_into(p.io, &p.client.stream, &p.client.op, &p.client.actor.flow, into, sizeof into);
    stream_recv_into(p.io, &p.server.stream, &p.server.op, &p.server.actor.flow, into, sizeof into);
    run_for(p.io, 5 * NS_PER_MS);
    assert_true(p.client.op.in_flight && p.server.op.in_flight);
    stream_cancel(p.io, &p.client.stream, &p.client.op);
    stream_cancel(p.io, &p.server.stream, &p.server.op);
    assert_true(RUN_UNTIL(p.io, p.client.op.done && p.server.op.done));
    assert_true(io_op_take(&p.client.op, &result));
    assert_int_equal(result, -ECANCELED);
    assert_true(io_op_take(&p.server.op, &result));
    assert_int_equal(result, -ECANCELED);
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* An idle connection owns no buffer, and of OpenSSL nothing but two cipher contexts. */
static void test_idle_owns_nothing(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    const size_t n = 100000;
    struct pair p;

    (void)state;
    pair_open(&p, NULL);
    start(&p, s, c, "a.example");
    shake(&p);
    p.server.reads = p.client.reads = true;
    check_transfer(&p, &p.client, &p.server, &n, 1);
    check_transfer(&p, &p.server, &p.client, &n, 1);
    run_for(p.io, 5 * NS_PER_MS);
    assert_int_equal(p.local->slabs.in_use + p.local->small.in_use + p.local->handshakes.in_use, 0);
    assert_int_equal(p.local->streams.in_use, 2);
    assert_int_equal(stream_unread_buffers(&p.server.stream), 0);
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

static void test_failed_verification(void **state)
{
    static const struct {
        const char *identity, *name, *why;
        bool trusted;
    } cases[] = {
        {"ec", "a.example", "self-signed certificate in certificate chain", false},
        {"ec", "b.example", "the certificate is for another name than b.example", true},
        {"ec", "192.0.2.1", "the certificate is for another name than 192.0.2.1", true},
        {"expired", "a.example", "certificate has expired", true},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority other = make_authority("other");
        struct tls_server *s = make_server(cases[i].identity, NULL, false);
        struct tls_client *c = make_client(cases[i].trusted ? ca.path : other.path, NULL);
        struct pair p;

        pair_open(&p, NULL);
        start(&p, s, c, cases[i].name);
        assert_true(RUN_UNTIL(p.io, shaken(&p)));
        assert_int_equal(stream_handshake(&p.client.stream), -EPROTO);
        if (strstr(stream_tls_why(&p.client.stream), cases[i].why) == NULL)
            fail_msg("%s", stream_tls_why(&p.client.stream));
        assert_true(RUN_UNTIL(p.io, stream_end(&p.server.stream) != 0)); /* it was told */
        assert_non_null(strstr(stream_tls_why(&p.server.stream), "alert"));
        assert_int_equal(stat_get(&p.stats.client_handshakes_failed), 1);
        pair_close(&p);
        tls_server_unref(&s);
        tls_client_unref(&c);
        free_authority(&other);
    }
}

static void test_address_and_both_certificates(void **state)
{
    struct tls_server *s = make_server("address", ca.path, false);
    struct tls_client *with = make_client(ca.path, "rsa"), *without = make_client(ca.path, NULL);
    struct pair p;

    (void)state;
    pair_open(&p, NULL);
    start(&p, s, with, "192.0.2.7");
    shake(&p);
    pair_close(&p);
    pair_open(&p, NULL);
    start(&p, s, without, "192.0.2.7");
    assert_true(RUN_UNTIL(p.io, stream_handshake(&p.server.stream) != -EAGAIN));
    assert_int_equal(stream_handshake(&p.server.stream), -EPROTO);
    assert_non_null(strstr(stream_tls_why(&p.server.stream), "certificate"));
    assert_int_equal(stat_get(&p.stats.handshakes_failed), 1);
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&with);
    tls_client_unref(&without);
}

/* The log says so: an operator would look for a fault of TLS else. */
static void test_peer_that_goes_during_the_handshake(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);

    (void)state;
    for (unsigned server = 0; server < 2; server++) {
        struct pair p;
        struct end *stays = NULL;

        pair_open(&p, NULL);
        stays = server ? &p.server : &p.client;
        if (server)
            assert_int_equal(stream_tls_accept(p.io, &p.server.stream, p.local, s), 0);
        else
            assert_int_equal(stream_tls_connect(p.io, &p.client.stream, p.local, c, STR("a.example")), 0);
        run_for(p.io, 5 * NS_PER_MS);
        assert_int_equal(shutdown(server ? p.client.fd : p.server.fd, SHUT_WR), 0);
        assert_true(RUN_UNTIL(p.io, stream_handshake(&stays->stream) != -EAGAIN));
        assert_int_equal(stream_handshake(&stays->stream), -ENODATA);
        assert_non_null(strstr(stream_tls_why(&stays->stream), "went during the handshake"));
        pair_close(&p);
    }
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* --- the gate --- */

static void test_time_limits(void **state)
{
    const struct tls_local_options options = {.handshakes_max = 4, .hello_ms = 30, .handshake_ms = 60};
    struct tls_server *s = make_server("ec", NULL, false);
    struct pair p;

    (void)state;
    for (unsigned sends = 0; sends < 2; sends++) {
        pair_open(&p, &options);
        assert_int_equal(stream_tls_accept(p.io, &p.server.stream, p.local, s), 0);
        if (sends)
            assert_int_equal(send(p.client.fd, "\x16\x03\x01", 3, 0), 3);
        assert_true(RUN_UNTIL(p.io, stream_handshake(&p.server.stream) != -EAGAIN));
        assert_int_equal(stream_handshake(&p.server.stream), -ETIMEDOUT);
        assert_int_equal(stat_get(&p.stats.handshakes_timeout), 1);
        assert_int_equal(stat_get(&p.stats.handshaking), 0);
        pair_close(&p);
    }
    tls_server_unref(&s);
}

/* Three stalled ones have all places; the fourth gets one when the first of them has stalled for a second. */
static void test_places(void **state)
{
    const struct tls_local_options options = {.handshakes_max = 3, .hello_ms = 10000, .handshake_ms = 20000};
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    struct end stalled[3];
    int theirs[3];
    struct pair p;
    uint64_t begun_ns;

    (void)state;
    pair_open(&p, &options);
    for (unsigned i = 0; i < 3; i++) {
        memset(&stalled[i], 0, sizeof stalled[i]);
        stalled[i].io = p.io;
        tcp_pair(&stalled[i].fd, &theirs[i]);
        actor_init(&stalled[i].actor, end_run);
        stream_init(&stalled[i].stream, stalled[i].fd, &stalled[i].actor.flow, true);
        assert_int_equal(stream_tls_accept(p.io, &stalled[i].stream, p.local, s), 0);
        assert_int_equal(send(theirs[i], "\x16\x03\x01", 3, 0), 3);
    }
    assert_true(RUN_UNTIL(p.io, stat_get(&p.stats.handshaking) == 3));
    start(&p, s, c, "a.example");
    begun_ns = clock_mono_ns();
    run_for(p.io, 100 * NS_PER_MS);
    assert_int_equal(stream_handshake(&p.server.stream), -EAGAIN);
    assert_null(p.server.stream.tls->handshake->ssl); /* who waits has nothing of OpenSSL, and no buffer */
    assert_int_equal(stream_unread_buffers(&p.server.stream), 0);
    /* Those before it may have waited, too, for their turn to compute. */
    assert_in_range(stat_get(&p.stats.handshakes_delayed), 1, 4);
    shake(&p);
    assert_true(clock_mono_ns() - begun_ns > 500 * NS_PER_MS);
    assert_int_equal(stream_handshake(&stalled[0].stream), -ETIMEDOUT);
    assert_int_equal(stream_handshake(&stalled[1].stream), -EAGAIN);
    for (unsigned i = 0; i < 3; i++) {
        end_close(&stalled[i]);
        close(theirs[i]);
    }
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

/* As before, but each stalled one sends a byte now and then: that is no progress of its handshake, and keeps no place. */
static void test_places_are_not_kept_by_crumbs(void **state)
{
    const struct tls_local_options options = {.handshakes_max = 3, .hello_ms = 10000, .handshake_ms = 20000};
    static const char hello[] = "\x16\x03\x01\x02\x00\x01";
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_client *c = make_client(ca.path, NULL);
    struct end stalled[3];
    int theirs[3];
    struct pair p;

    (void)state;
    pair_open(&p, &options);
    for (unsigned i = 0; i < 3; i++) {
        memset(&stalled[i], 0, sizeof stalled[i]);
        stalled[i].io = p.io;
        tcp_pair(&stalled[i].fd, &theirs[i]);
        actor_init(&stalled[i].actor, end_run);
        stream_init(&stalled[i].stream, stalled[i].fd, &stalled[i].actor.flow, true);
        assert_int_equal(stream_tls_accept(p.io, &stalled[i].stream, p.local, s), 0);
        assert_int_equal(send(theirs[i], hello, 6, 0), 6);
    }
    assert_true(RUN_UNTIL(p.io, stat_get(&p.stats.handshaking) == 3));
    start(&p, s, c, "a.example");
    for (unsigned turn = 0; turn < 30; turn++) { /* for three seconds */
        for (unsigned i = 0; i < 3; i++)
            (void)send(theirs[i], "\x00", 1, MSG_NOSIGNAL);
        run_for(p.io, 100 * NS_PER_MS);
    }
    assert_int_equal(stream_handshake(&p.server.stream), 0);
    assert_int_equal(stream_handshake(&p.client.stream), 0);
    for (unsigned i = 0; i < 3; i++) {
        end_close(&stalled[i]);
        close(theirs[i]);
    }
    pair_close(&p);
    tls_server_unref(&s);
    tls_client_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes_both_ways),
        cmocka_unit_test(test_into_memory),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_stop_in_any_state),
        cmocka_unit_test(test_cancelled_send),
        cmocka_unit_test(test_more_than_was_asked_for),
        cmocka_unit_test(test_cancelled_receive),
        cmocka_unit_test(test_idle_owns_nothing),
        cmocka_unit_test(test_failed_verification),
        cmocka_unit_test(test_address_and_both_certificates),
        cmocka_unit_test(test_peer_that_goes_during_the_handshake),
        cmocka_unit_test(test_time_limits),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_places_are_not_kept_by_crumbs),
    };
    int failures;

    tls_fixture_open();
    ca = make_authority("ca");
    issue(&ca, "ec", KEY_EC, "DNS:a.example", -3600, 86400);
    issue(&ca, "rsa", KEY_RSA, "DNS:a.example", -3600, 86400);
    issue(&ca, "expired", KEY_EC, "DNS:a.example", -7200, -3600);
    issue(&ca, "address", KEY_EC, "IP:192.0.2.7", -3600, 86400);
    failures = cmocka_run_group_tests_name("tls_stream", tests, NULL, NULL);
    free_authority(&ca);
    tls_fixture_close();
    return failures;
}
