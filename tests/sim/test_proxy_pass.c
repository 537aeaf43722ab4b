/* What is passed through with its body, and the end of things: clients that go in the middle, upstreams that answer
 * early, reload and drain while requests are under way. */
#include "sim_proxy.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES                                                                                                \
    "rules: [{match: \"/p/**\", cache: false, methods: all}, {match: \"/**\", ttl: 60s}]\n"                  \
    "timeouts: {client_head: 5s, client_idle: 20s, client_body: 7s, upstream_connect: 2s, "                  \
    "upstream_first_byte: 4s, upstream_between_bytes: 3s}\n"

/* --- an upstream that does what it is told with a request's bytes --- */

struct upstream_peer {
    struct sim_world *w;
    char *bytes;
    size_t n, cap;
    unsigned connections, ended, gone;
    size_t answer_at; /* once so many bytes have come */
    bool answered, stops_reading;
    struct str answer;
    struct sim_conn *conn;
};

static void on_data(void *me, struct sim_conn *c, struct str bytes)
{
    struct upstream_peer *u = me;

    if (u->n + bytes.n > u->cap) {
        u->cap = 2 * (u->n + bytes.n);
        u->bytes = realloc(u->bytes, u->cap);
        assert_non_null(u->bytes);
    }
    memcpy(u->bytes + u->n, bytes.p, bytes.n);
    u->n += bytes.n;
    if (!u->answered && u->n >= u->answer_at) {
        u->answered = true;
        if (u->stops_reading) { /* and answers once nothing more goes */
            sim_conn_read_rate(c, 0);
            sim_conn_pause(c, 300 * NS_PER_MS);
        }
        sim_conn_send(c, u->answer);
    }
}

static void on_end(void *me, struct sim_conn *c)
{
    ((struct upstream_peer *)me)->ended++;
    sim_conn_close(c);
}

static void on_gone(void *me, struct sim_conn *c, int error)
{
    (void)c;
    (void)error;
    ((struct upstream_peer *)me)->gone++;
}

static void *on_accept(void *context, struct sim_conn *c)
{
    struct upstream_peer *u = context;

    u->connections++;
    u->conn = c;
    return u;
}

static const struct sim_peer upstream_peer = {.data = on_data, .end = on_end, .gone = on_gone};

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct sim_bed open_bed(uint64_t seed, struct upstream_peer *u)
{
    struct sim_options options = sim_options_calm(seed);
    struct sim_bed bed = {.w = sim_create(&options)};

    *u = (struct upstream_peer){.w = bed.w, .answer = STR(OK_ANSWER), .answer_at = SIZE_MAX};
    sim_listen(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, &upstream_peer, on_accept, u);
    bed.p = sim_proxy_open(bed.w, &(struct sim_proxy_options){.workers = 1, .yaml = SIM_YAML RULES});
    return bed;
}

static void close_bed(struct sim_bed *bed, struct upstream_peer *u)
{
    sim_proxy_close(&bed->p, 100 * NS_PER_S);
    sim_listen_stop(bed->w, "127.0.0.1", SIM_ORIGIN_PORT);
    sim_destroy(&bed->w);
    free(u->bytes);
}

static struct str upstream_body(const struct upstream_peer *u)
{
    const char *end = u->n > 0 ? memmem(u->bytes, u->n, "\r\n\r\n", 4) : NULL;

    return end == NULL ? STR_NONE : str_of(end + 4, (size_t)(u->bytes + u->n - end - 4));
}

static struct sim_client *post(struct sim_bed *bed, uint64_t length)
{
    struct sim_client *c = sim_bed_client(bed, NULL);
    char raw[128];
    int n = snprintf(raw, sizeof raw, "POST /p/a HTTP/1.1\r\nHost: h\r\nContent-Length: %llu\r\n\r\n",
                     (unsigned long long)length);

    sim_client_request(c, str_of(raw, (size_t)n), false);
    return c;
}

/* --- bodies --- */

static void test_a_body_is_passed_exactly(void **state)
{
    struct upstream_peer u;
    struct sim_bed bed = open_bed(1, &u);
    struct sim_client *c = post(&bed, 300000);
    struct str body;

    (void)state;
    u.answer_at = 300000;
    sim_conn_send_body(sim_client_conn(c), 77, 0, 300000);
    sim_bed_run_ms(&bed, 2000);
    body = upstream_body(&u);
    assert_int_equal(body.n, 300000);
    assert_int_equal(sim_body_differs(77, 0, body.p, body.n), body.n);
    if (sim_client_complete(c) == 0)
        sim_bed_settle(&bed, c, 10);
    sim_bed_want(&bed, c, 0, 200);
    sim_client_free(&c);
    close_bed(&bed, &u);
}

static void test_a_chunked_body_is_passed_exactly(void **state)
{
    static const char raw[] = "POST /p/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n";
    char got[64];
    size_t got_n = 0;

    (void)state;
    for (uint64_t seed = 1; seed < 30; seed++) {
        struct upstream_peer u;
        struct sim_bed bed = open_bed(seed, &u);
        struct sim_client *c = sim_bed_client(&bed, NULL);
        struct str body;

        sim_client_request(c, str_of(raw, sizeof raw - 1), false);
        sim_client_get(c, "/.segue/health", NULL); /* what follows the body is the next request */
        sim_bed_run_ms(&bed, 500);
        body = upstream_body(&u);
        for (got_n = 0; body.n > 0;) {
            size_t n = strtoul(body.p, NULL, 16), head = (size_t)((char *)memchr(body.p, '\n', body.n) + 1 - body.p);

            if (n == 0)
                break;
            assert_true(got_n + n <= sizeof got && head + n + 2 <= body.n);
            memcpy(got + got_n, body.p + head, n);
            got_n += n;
            body = str_skip(body, head + n + 2);
        }
        assert_true(str_eq(body, STR("0\r\n\r\n")));
        assert_int_equal(got_n, 11);
        assert_memory_equal(got, "hello world", 11);
        sim_conn_send(u.conn, u.answer);
        sim_bed_settle(&bed, c, 10);
        sim_bed_want(&bed, c, 0, 200);
        sim_bed_want(&bed, c, 1, 200);
        sim_client_free(&c);
        close_bed(&bed, &u);
    }
}

static void test_continue_is_said(void **state)
{
    static const char head[] =
        "PUT /p/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    struct upstream_peer u;
    struct sim_bed bed = open_bed(2, &u);
    struct sim_client *c = sim_bed_client(&bed, NULL);

    (void)state;
    u.answer_at = 10;
    sim_client_request(c, STR(head), false);
    sim_bed_run_ms(&bed, 100);
    assert_int_equal(sim_client_reply(c, 0)->interim_n, 1);
    sim_client_part(c, STR("hello"));
    sim_bed_settle(&bed, c, 10);
    sim_bed_want(&bed, c, 0, 200);
    sim_client_free(&c);
    close_bed(&bed, &u);
}

/* A method that is refused before its body is read: the client sees why. */
static void test_refusal_before_the_body(void **state)
{
    struct upstream_peer u;
    struct sim_bed bed = open_bed(3, &u);
    struct sim_client *c = sim_bed_client(&bed, NULL);

    (void)state;
    sim_client_request(c, STR("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"), false);
    sim_conn_send_body(sim_client_conn(c), 1, 0, 100000);
    sim_bed_settle(&bed, c, 10);
    sim_bed_want(&bed, c, 0, 405);
    assert_int_equal(u.connections, 0);
    sim_client_free(&c);
    close_bed(&bed, &u);
}

static void test_an_early_answer(void **state)
{
    static const struct str answer = STR_INIT("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");

    (void)state;
    for (int stops_reading = 0; stops_reading < 2; stops_reading++) {
        struct upstream_peer u;
        struct sim_bed bed = open_bed(4, &u);
        struct sim_client *c = post(&bed, 10000000);
        uint64_t began;

        u.answer = answer;
        u.answer_at = 10;
        u.stops_reading = stops_reading;
        sim_conn_send_body(sim_client_conn(c), 1, 0, 10000000);
        began = sim_now_ns(bed.w);
        sim_bed_settle(&bed, c, 20);
        sim_bed_want(&bed, c, 0, 413);
        assert_in_range((sim_now_ns(bed.w) - began) / NS_PER_MS, 0, 500);
        sim_client_free(&c);
        close_bed(&bed, &u);
    }
}

/* --- a client that goes in the middle of its body --- */

static uint64_t failures_of(const struct sim_bed *bed)
{
    return SIM_PROXY_STAT(bed->p, upstream_resets) + SIM_PROXY_STAT(bed->p, upstream_timeouts);
}

static void test_client_goes_inside_its_body(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct upstream_peer u;
        struct sim_bed bed = open_bed(seed, &u);
        struct sim_client *c = post(&bed, 200000);
        struct str body;

        if (seed % 2)
            sim_conn_send_body(sim_client_conn(c), 1, 0, seed * 3000);
        sim_bed_run_ms(&bed, seed % 7);
        if (seed % 3 == 0)
            sim_conn_end(sim_client_conn(c));
        else
            sim_conn_reset(sim_client_conn(c));
        sim_bed_run_ms(&bed, 3000);
        /* Whatever was sent up says that a body of 200,000 bytes comes, and less has come. */
        body = upstream_body(&u);
        if (u.n > 0)
            assert_non_null(memmem(u.bytes, u.n, "Content-Length: 200000\r\n", 24));
        assert_true(body.n < 200000);
        assert_int_equal(bed.p->proxy.workers[0]->fills.in_use, 0);
        assert_int_equal(bed.p->proxy.workers[0]->requests.in_use, 0);
        assert_int_equal(failures_of(&bed), 0); /* none of the upstream's */
        sim_client_free(&c);
        close_bed(&bed, &u);
    }
}

static void test_client_goes_while_the_upstream_takes_nothing(void **state)
{
    struct upstream_peer u;
    struct sim_bed bed = open_bed(5, &u);
    struct sim_client *c = post(&bed, 10000000);

    (void)state;
    sim_conn_send_body(sim_client_conn(c), 1, 0, 10000000);
    sim_bed_run_ms(&bed, 10);
    sim_conn_read_rate(u.conn, 0);
    sim_bed_run_ms(&bed, 1000);
    sim_conn_reset_now(sim_client_conn(c));
    sim_bed_run_ms(&bed, 2500); /* the rest of upstream_between_bytes: nothing more is read of the client meanwhile */
    assert_int_equal(bed.p->proxy.workers[0]->fills.in_use, 0);
    assert_int_equal(bed.p->proxy.workers[0]->conns.in_use, 0);
    sim_client_free(&c);
    close_bed(&bed, &u);
}

static void test_client_goes_before_the_connection_is_there(void **state)
{
    struct upstream_peer u;
    struct sim_bed bed = open_bed(6, &u);
    struct sim_client *c;

    (void)state;
    sim_net(bed.w)->latency_ns = (struct sim_range){30 * NS_PER_MS, 30 * NS_PER_MS};
    c = post(&bed, 5);
    for (unsigned i = 0; i < 100 && bed.p->proxy.workers[0]->fills.in_use == 0; i++)
        sim_bed_run_ms(&bed, 1);
    sim_net(bed.w)->latency_ns = (struct sim_range){NS_PER_US, NS_PER_US}; /* the reset overtakes the connect */
    assert_int_equal(bed.p->proxy.workers[0]->fills.in_use, 1);
    sim_conn_reset_now(sim_client_conn(c));
    sim_bed_run_ms(&bed, 3000);
    assert_int_equal(u.n, 0); /* no POST with an empty body has been made of it */
    assert_int_equal(bed.p->proxy.workers[0]->fills.in_use, 0);
    sim_client_free(&c);
    close_bed(&bed, &u);
}

/* --- reload and drain --- */

static struct sim_bed open_song_bed(uint64_t seed, unsigned workers)
{
    static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true, .drip_bytes_per_s = 400000};
    struct sim_options options = sim_options_calm(seed);
    struct sim_bed bed = sim_bed_open(&options, workers, SIM_YAML RULES);

    sim_origin_set(bed.origin, NULL, &song);
    return bed;
}

static void test_reload_under_load(void **state)
{
    struct sim_bed bed = open_song_bed(7, 3);
    struct sim_client *clients[40], *c;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        char path[16];

        snprintf(path, sizeof path, i % 2 ? "/%zu" : "/p/%zu", i / 4);
        clients[i] = sim_bed_client(&bed, NULL);
        sim_client_get(clients[i], path, NULL);
        if (i % 10 == 5) {
            sim_bed_run_ms(&bed, 100);
            sim_proxy_reload(bed.p, i % 20 == 5 ? SIM_YAML "name: other\n" RULES : SIM_YAML RULES);
        }
    }
    sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 20);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        char path[16];

        snprintf(path, sizeof path, i % 2 ? "/%zu" : "/p/%zu", i / 4);
        sim_bed_want_body(&bed, clients[i], 0, path, 1, 400000);
        assert_false(sim_client_gone(clients[i])); /* a reload closes no connection */
        sim_client_free(&clients[i]);
    }
    sim_proxy_reload(bed.p, SIM_YAML "name: last\n" RULES);
    sim_bed_run_ms(&bed, 100);
    c = sim_bed_get(&bed, "/0", NULL);
    assert_true(str_starts(sim_head_field(sim_client_reply(c, 0)->head, "Cache-Status"), STR("last; hit")));
    sim_client_free(&c);
    sim_bed_close(&bed);
}

static void test_drain_with_transfers_under_way(void **state)
{
    struct sim_bed bed = open_song_bed(8, 2);
    struct sim_client *busy[10], *idle, *late;
    uint64_t began;

    (void)state;
    idle = sim_bed_get(&bed, "/.segue/health", NULL);
    for (size_t i = 0; i < ARRAY_LEN(busy); i++) {
        busy[i] = sim_bed_client(&bed, NULL);
        sim_client_get(busy[i], i % 2 ? "/a" : "/p/b", NULL);
    }
    sim_bed_run_ms(&bed, 300);
    began = sim_now_ns(bed.w);
    sim_proxy_drain(bed.p, false);
    sim_bed_run_ms(&bed, 50);
    assert_true(sim_client_gone(idle));
    late = sim_bed_client(&bed, NULL);
    sim_bed_run_ms(&bed, 50);
    assert_true(sim_client_gone(late));
    sim_bed_settle_all(&bed, busy, ARRAY_LEN(busy), 20);
    for (size_t i = 0; i < ARRAY_LEN(busy); i++)
        sim_bed_want_body(&bed, busy[i], 0, i % 2 ? "/a" : "/p/b", 1, 400000);
    assert_true(sim_run(bed.w, sim_proxy_is_over, bed.p, 5 * NS_PER_S));
    assert_true(sim_now_ns(bed.w) - began < 4 * NS_PER_S);
    for (size_t i = 0; i < ARRAY_LEN(busy); i++)
        sim_client_free(&busy[i]);
    sim_client_free(&idle);
    sim_client_free(&late);
    sim_bed_close(&bed);
}

/* Connections that were in the accept queue when the drain began get their answer, and then are closed: nobody
 * waits for them to become idle. */
static void test_drain_with_connections_just_made(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_bed bed = open_song_bed(seed, 2);
        struct sim_client *clients[20];
        uint64_t began;

        sim_net(bed.w)->turn_ns = (struct sim_range){NS_PER_MS, 2 * NS_PER_MS};
        for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
            clients[i] = sim_bed_client(&bed, NULL);
            sim_client_get(clients[i], "/.segue/health", NULL);
        }
        (void)sim_run(bed.w, NULL, NULL, seed * 100 * NS_PER_US);
        began = sim_now_ns(bed.w);
        sim_proxy_drain(bed.p, false);
        if (!sim_run(bed.w, sim_proxy_is_over, bed.p, 60 * NS_PER_S))
            sim_fail(bed.w, "no end");
        if (sim_now_ns(bed.w) - began > 6 * NS_PER_S) /* client_head, for who has said nothing */
            sim_fail(bed.w, "the drain took %llu ms", (unsigned long long)((sim_now_ns(bed.w) - began) / NS_PER_MS));
        for (size_t i = 0; i < ARRAY_LEN(clients); i++)
            sim_client_free(&clients[i]);
        sim_bed_close(&bed);
    }
}

static void test_drain_in_a_hurry(void **state)
{
    static const struct sim_answer never = {.never = true};
    struct sim_bed bed = open_song_bed(9, 2);
    struct sim_client_options slow = {.read_rate = 1000};
    struct sim_client *clients[12];
    uint64_t began;

    (void)state;
    sim_origin_set(bed.origin, "/p/never", &never);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = sim_bed_client(&bed, &slow);
        if (i % 4 == 3)
            sim_client_request(clients[i], STR("POST /p/x HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nabc"), false);
        else
            sim_client_get(clients[i], i % 4 == 2 ? "/p/never" : i % 4 == 1 ? "/a" : "/p/b", NULL);
    }
    sim_bed_run_ms(&bed, 300);
    sim_proxy_drain(bed.p, false);
    sim_bed_run_ms(&bed, 300);
    began = sim_now_ns(bed.w);
    sim_proxy_drain(bed.p, true);
    if (!sim_run(bed.w, sim_proxy_is_over, bed.p, 60 * NS_PER_S))
        sim_fail(bed.w, "no end");
    if (sim_now_ns(bed.w) - began > 200 * NS_PER_MS)
        sim_fail(bed.w, "the hurry took %llu ms", (unsigned long long)((sim_now_ns(bed.w) - began) / NS_PER_MS));
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        sim_client_free(&clients[i]);
    sim_bed_close(&bed);
}

/* Workers wake each other's readers by mail; what is still in the box when a worker ends is not lost. */
static void test_end_with_mail_on_its_way(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sim_bed bed = open_song_bed(seed, 3);
        struct sim_client *clients[12];

        for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
            clients[i] = sim_bed_client(&bed, NULL);
            sim_client_get(clients[i], "/a", NULL);
        }
        sim_bed_run_ms(&bed, 5 + seed);
        sim_proxy_drain(bed.p, true);
        if (!sim_run(bed.w, sim_proxy_is_over, bed.p, 60 * NS_PER_S))
            sim_fail(bed.w, "no end");
        for (size_t i = 0; i < ARRAY_LEN(clients); i++)
            sim_client_free(&clients[i]);
        sim_bed_close(&bed);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_body_is_passed_exactly),
        cmocka_unit_test(test_a_chunked_body_is_passed_exactly),
        cmocka_unit_test(test_continue_is_said),
        cmocka_unit_test(test_refusal_before_the_body),
        cmocka_unit_test(test_an_early_answer),
        cmocka_unit_test(test_client_goes_inside_its_body),
        cmocka_unit_test(test_client_goes_while_the_upstream_takes_nothing),
        cmocka_unit_test(test_client_goes_before_the_connection_is_there),
        cmocka_unit_test(test_reload_under_load),
        cmocka_unit_test(test_drain_with_transfers_under_way),
        cmocka_unit_test(test_drain_with_connections_just_made),
        cmocka_unit_test(test_drain_in_a_hurry),
        cmocka_unit_test(test_end_with_mail_on_its_way),
    };

    log_set_level((enum log_level)0);
    cmocka_set_test_filter(getenv("SIM_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
