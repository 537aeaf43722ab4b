/* Clients and upstreams that are slow, silent or too many: what each costs, and the moment at which each is given
 * up. */
#include "sim_proxy.h"
#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES                                                                                                \
    "rules: [{match: \"/p/**\", cache: false, methods: all}, {match: \"/**\", ttl: 60s, methods: all}]\n"
#define TIMEOUTS                                                                                             \
    "timeouts: {client_head: 5s, client_idle: 20s, client_body: 7s, upstream_connect: 2s, "                  \
    "upstream_first_byte: 4s, upstream_between_bytes: 3s, upstream_idle: 30s}\n"

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};
static const struct sim_answer large = {.body_bytes = 1048576, .version = 1, .etag = true};

static void get_exact(struct sim_bed *bed, const char *path, uint64_t version, uint64_t bytes)
{
    struct sim_client *c = sim_bed_get(bed, path, NULL);

    sim_bed_want_body(bed, c, 0, path, version, bytes);
    sim_client_free(&c);
}

/* --- clients --- */

static void test_one_byte_a_second(void **state)
{
    static const char head[] = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    struct sim_bed bed = sim_bed_open_exact(1, 1, SIM_YAML RULES TIMEOUTS);
    struct sim_client *c = sim_bed_client(&bed, NULL);
    uint64_t began = sim_now_ns(bed.w);

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    sim_client_request(c, str_of(head, 1), false);
    for (size_t i = 1; i < sizeof head - 1; i++) {
        sim_client_pause(c, NS_PER_S);
        sim_client_part(c, str_of(head + i, 1));
    }
    sim_bed_settle(&bed, c, 60);
    sim_bed_want(&bed, c, 0, 408);
    assert_at_ms(sim_bed_ms_since(&bed, began), 5000);
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 0);
    sim_client_free(&c);
    sim_bed_close(&bed);
}

static void client_that_reads_nothing(const char *yaml, uint64_t ms_min, uint64_t ms_max)
{
    struct sim_bed bed = sim_bed_open_exact(2, 1, yaml);
    struct sim_client *c;
    uint64_t began;

    sim_origin_set(bed.origin, "/a", &large);
    for (int cached = 0; cached < 2; cached++) {
        c = sim_bed_client(&bed, NULL);
        sim_conn_read_rate(sim_client_conn(c), 0);
        sim_client_get(c, "/a", NULL);
        began = sim_now_ns(bed.w);
        while (bed.p->proxy.workers[0]->conns.in_use > 0 || sim_bed_ms_since(&bed, began) < 1000)
            sim_bed_run_ms(&bed, 100);
        assert_in_range(sim_bed_ms_since(&bed, began), ms_min, ms_max);
        assert_int_equal(SIM_PROXY_STAT(bed.p, slow_clients), cached + 1);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

static void test_client_that_reads_nothing(void **state)
{
    (void)state;
    client_that_reads_nothing(SIM_YAML RULES TIMEOUTS "limits: {client_rate_grace: 10s}\n", 10000, 20200);
}

/* Without a least rate it is the time limit of a send that holds. */
static void test_client_that_reads_nothing_and_need_not_be_fast(void **state)
{
    (void)state;
    client_that_reads_nothing(
        SIM_YAML RULES
        "timeouts: {client_send: 30s}\nlimits: {client_rate_min: 0/s, client_rate_grace: 5s}\n",
        30000, 60200);
}

static void test_slow_but_steady_is_served(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(
        3, 1, SIM_YAML RULES TIMEOUTS "limits: {client_rate_grace: 10s, client_rate_min: 1KiB/s}\n");
    struct sim_client_options slow = {.read_rate = 1200}, too_slow = {.read_rate = 700};
    struct sim_client *c[2];

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    c[0] = sim_bed_client(&bed, &slow);
    c[1] = sim_bed_client(&bed, &too_slow);
    sim_client_get(c[0], "/a", NULL);
    sim_client_get(c[1], "/a", NULL);
    sim_bed_settle_all(&bed, c, 2, 600);
    sim_bed_want_body(&bed, c[0], 0, "/a", 1, 400000);
    assert_false(sim_client_reply(c[1], 0)->complete);
    assert_int_equal(SIM_PROXY_STAT(bed.p, slow_clients), 1);
    sim_client_free(&c[0]);
    sim_client_free(&c[1]);
    sim_bed_close(&bed);
}

static void test_silent_connections(void **state)
{
    enum { N = 10000 };
    struct sim_bed bed =
        sim_bed_open_exact(4, 2, SIM_YAML RULES TIMEOUTS "limits: {connections_max: 30000}\n");
    static struct sim_client *clients[N];
    uint64_t open_max;

    (void)state;
    for (size_t i = 0; i < N; i++)
        clients[i] = sim_bed_client(&bed, NULL);
    sim_bed_run_ms(&bed, 4900);
    open_max = SIM_PROXY_STAT(bed.p, connections_open);
    assert_int_equal(open_max, N);
    sim_bed_run_ms(&bed, 300);
    assert_int_equal(SIM_PROXY_STAT(bed.p, connections_open), 0);
    for (size_t i = 0; i < N; i++) {
        assert_true(sim_client_gone(clients[i]));
        sim_client_free(&clients[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct worker *w = bed.p->proxy.workers[i];

        assert_int_equal(w->conns.in_use, 0);
        assert_int_equal(w->requests.in_use, 0);
        assert_true(w->conns.kept <= w->conns.keep_max);
    }
    assert_int_equal(sim_open_fds(bed.w), 2); /* the listeners */
    sim_bed_close(&bed);
}

static void test_idle_after_a_request(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(5, 1, SIM_YAML RULES TIMEOUTS);
    struct sim_client *c;
    uint64_t began;

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    c = sim_bed_get(&bed, "/a", NULL);
    began = sim_now_ns(bed.w);
    while (!sim_client_gone(c))
        sim_bed_run_ms(&bed, 5);
    assert_at_ms(sim_bed_ms_since(&bed, began), 20000);
    assert_int_equal(sim_client_error(c), 0);
    sim_client_free(&c);
    sim_bed_close(&bed);
}

static void test_too_many_connections(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(6, 1, SIM_YAML RULES TIMEOUTS "limits: {connections_max: 10}\n");
    struct sim_client *clients[15];
    unsigned gone = 0;

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        clients[i] = sim_bed_client(&bed, NULL);
    sim_bed_run_ms(&bed, 100);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        gone += sim_client_gone(clients[i]);
        sim_client_free(&clients[i]);
    }
    assert_int_equal(gone, 5);
    assert_int_equal(SIM_PROXY_STAT(bed.p, connections_refused), 5);
    sim_bed_run_ms(&bed, 100);
    get_exact(&bed, "/a", 1, 400000);
    sim_bed_close(&bed);
}

static void test_pipelining_and_half_close(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(7, 1, SIM_YAML RULES TIMEOUTS);
    struct sim_client *c;

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    sim_origin_set(bed.origin, "/p/b", &song);
    c = sim_bed_client(&bed, NULL);
    for (unsigned i = 0; i < 20; i++)
        sim_client_get(c, i % 2 ? "/a" : "/p/b", NULL);
    sim_conn_end(sim_client_conn(c));
    sim_bed_settle(&bed, c, 10);
    for (unsigned i = 0; i < 20; i++)
        sim_bed_want_body(&bed, c, i, i % 2 ? "/a" : "/p/b", 1, 400000);
    assert_int_equal(sim_client_surplus(c), 0);
    sim_client_free(&c);
    sim_bed_close(&bed);
}

/* --- upstream timeouts --- */

static uint64_t time_of(struct sim_bed *bed, const char *raw, int status)
{
    struct sim_client *c = sim_bed_client(bed, NULL);
    uint64_t began, ms;

    sim_bed_run_ms(bed, 10);
    began = sim_now_ns(bed->w);
    sim_client_request(c, str_z(raw), false);
    sim_bed_settle(bed, c, 60);
    ms = sim_bed_ms_since(bed, began);
    if (status != 0)
        sim_bed_want(bed, c, 0, status);
    else
        assert_false(sim_client_reply(c, 0)->complete);
    sim_client_free(&c);
    return ms;
}

static void test_upstream_timeouts(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(8, 1, SIM_YAML RULES TIMEOUTS);
    struct sim_answer never = {.never = true}, late = song, stalls = song;

    (void)state;
    late.delay_ns = 3900 * NS_PER_MS;
    stalls.length_lie = 10;
    stalls.no_ranges = true;
    sim_origin_set(bed.origin, "/never", &never);
    sim_origin_set(bed.origin, "/p/never", &never);
    sim_origin_set(bed.origin, "/late", &late);
    sim_origin_set(bed.origin, "/stalls", &stalls);

    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_LOST);
    assert_at_ms(time_of(&bed, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 504), 2000);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_OPEN);
    assert_at_ms(time_of(&bed, "GET /never HTTP/1.1\r\nHost: h\r\n\r\n", 504), 4000);
    assert_at_ms(time_of(&bed, "GET /late HTTP/1.1\r\nHost: h\r\n\r\n", 200), 3900);
    assert_at_ms(time_of(&bed, "POST /p/never HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 504),
                 4000);
    assert_in_range(time_of(&bed, "GET /stalls HTTP/1.1\r\nHost: h\r\n\r\n", 0), 3000, 3040);
    sim_bed_close(&bed);
}

static void test_upstream_waits_for_the_clients_body(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(9, 1, SIM_YAML RULES TIMEOUTS);

    (void)state;
    sim_origin_set(bed.origin, "/p/a", &song);
    /* client_body is the client's time, whatever upstream_first_byte says. */
    assert_at_ms(time_of(&bed, "POST /p/a HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n", 408), 7000);
    assert_at_ms(time_of(&bed, "POST /p/a HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\nabc", 408), 7000);
    /* ... and is no failure of the upstream. */
    assert_int_equal(SIM_PROXY_STAT(bed.p, upstream_timeouts) + SIM_PROXY_STAT(bed.p, upstream_resets), 0);
    sim_bed_close(&bed);
}

static void test_request_bodies_have_a_limit(void **state)
{
    struct sim_bed bed =
        sim_bed_open_exact(10, 1, SIM_YAML RULES TIMEOUTS "limits: {request_body_max: 1KiB}\n");
    char raw[3000];
    int n;

    (void)state;
    sim_origin_set(bed.origin, "/p/a", &song);
    n = snprintf(raw, sizeof raw, "POST /p/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n%01025d", 0);
    assert_in_range(n, 1025, sizeof raw - 1);
    (void)time_of(&bed, raw, 413);
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 0);
    (void)snprintf(
        raw, sizeof raw,
        "POST /p/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n%01025d\r\n0\r\n\r\n", 0);
    (void)time_of(&bed, raw, 413);
    (void)snprintf(raw, sizeof raw, "POST /p/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n%01024d",
                   0);
    (void)time_of(&bed, raw, 200);
    sim_bed_close(&bed);
}

/* --- upstream connections --- */

static void drop_second(void *context, const struct sim_origin_request *request, struct sim_answer *answer)
{
    const bool *by_close = context;

    if (request->nth_connection == 1) {
        answer->cut = SIM_CUT_BEFORE_HEAD;
        answer->cut_by_close = *by_close;
    }
}

static void test_upstream_keep_alive(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(11, 1, SIM_YAML RULES TIMEOUTS);
    bool by_close = false;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    get_exact(&bed, "/a", 1, 400000);
    sim_bed_run_ms(&bed, 29000);
    get_exact(&bed, "/b", 1, 400000);
    assert_int_equal(sim_origin_connections(bed.origin), 1);
    sim_bed_run_ms(&bed, 30100); /* upstream_idle */
    assert_int_equal(SIM_PROXY_STAT(bed.p, upstream_open), 0);
    get_exact(&bed, "/c", 1, 400000);
    assert_int_equal(sim_origin_connections(bed.origin), 2);

    /* Closed at the moment of reuse: the request is sent again, and that is nobody's failure. */
    sim_origin_hook(bed.origin, drop_second, &by_close);
    get_exact(&bed, "/d", 1, 400000); /* over a new connection, which stays */
    for (unsigned i = 0; i < 6; i++) {
        char path[16];

        snprintf(path, sizeof path, "/%u", i);
        by_close = i % 2;
        get_exact(&bed, path, 1, 400000);
    }
    assert_true(SIM_PROXY_STAT(bed.p, upstream_retries) >= 6);
    assert_int_equal(SIM_PROXY_STAT(bed.p, upstream_resets), 0);
    /* What may have been done must not be done twice. */
    sim_bed_run_ms(&bed, 100);
    (void)time_of(&bed, "POST /p/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 502);
    assert_int_equal(sim_origin_requests(bed.origin, "/p/x"), 1);
    sim_bed_close(&bed);
}

static void close_after(void *context, const struct sim_origin_request *request, struct sim_answer *answer)
{
    (void)context;
    (void)request;
    answer->close_after = true;
}

static void test_upstream_that_closes_each_time(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(12, 1, SIM_YAML RULES TIMEOUTS);

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    sim_origin_hook(bed.origin, close_after, NULL);
    for (unsigned i = 0; i < 5; i++) {
        char path[16];

        snprintf(path, sizeof path, "/%u", i);
        get_exact(&bed, path, 1, 400000);
    }
    assert_int_equal(sim_origin_connections(bed.origin), 5);
    assert_int_equal(SIM_PROXY_STAT(bed.p, upstream_retries), 0);
    sim_bed_close(&bed);
}

struct watch {
    struct sim_bed *bed;
    struct sim_client **clients;
    size_t n;
    uint64_t open_max;
};

static bool watch_open(void *context)
{
    struct watch *watch = context;
    uint64_t open = SIM_PROXY_STAT(watch->bed->p, upstream_open);

    watch->open_max = open > watch->open_max ? open : watch->open_max;
    for (size_t i = 0; i < watch->n; i++)
        if (!sim_client_settled(watch->clients[i]))
            return false;
    return true;
}

static void test_upstream_connections_have_a_limit(void **state)
{
    struct sim_bed bed =
        sim_bed_open_exact(13, 1,
                           SIM_YAML_LISTEN SIM_YAML_MEMORY RULES TIMEOUTS
                           "upstreams: [{url: \"http://127.0.0.1:8081\", max_connections: 3}]\n");
    struct sim_client *clients[30];
    struct watch watch = {.bed = &bed, .clients = clients, .n = ARRAY_LEN(clients)};
    struct sim_answer slow = song;

    (void)state;
    slow.delay_ns = 30 * NS_PER_MS;
    sim_origin_set(bed.origin, NULL, &slow);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        char path[16];

        snprintf(path, sizeof path, "/%zu", i);
        clients[i] = sim_bed_client(&bed, NULL);
        sim_client_get(clients[i], path, NULL);
    }
    assert_true(sim_run(bed.w, watch_open, &watch, 30 * NS_PER_S));
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        sim_bed_want(&bed, clients[i], 0, 200);
        sim_client_free(&clients[i]);
    }
    assert_int_equal(watch.open_max, 3);
    sim_bed_close(&bed);
}

static void test_failing_upstream_rests_and_returns(void **state)
{
    struct sim_bed bed =
        sim_bed_open_exact(14, 1,
                           SIM_YAML_LISTEN SIM_YAML_MEMORY RULES TIMEOUTS
                           "upstreams: [{url: \"http://127.0.0.1:8081\"}, {url: \"http://127.0.0.1:8082\"}]\n"
                           "limits: {upstream_idle_max: 0}\n");
    struct sim_origin *other = sim_origin_new(bed.w, "127.0.0.1", 8082);
    uint64_t before;
    unsigned n = 0;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    sim_origin_set(other, NULL, &song);
    for (; n < 40; n++) {
        char path[16];

        snprintf(path, sizeof path, "/%u", n);
        get_exact(&bed, path, 1, 400000);
    }
    assert_in_range(sim_origin_requests(bed.origin, NULL), 10, 30); /* about half of them each */
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    before = SIM_PROXY_STAT(bed.p, upstream_connect_errors);
    for (; n < 80; n++) {
        char path[16];

        snprintf(path, sizeof path, "/%u", n);
        get_exact(&bed, path, 1, 400000); /* the other one answers, and nobody notices */
    }
    assert_in_range(SIM_PROXY_STAT(bed.p, upstream_connect_errors) - before, 3, 4);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_OPEN);
    sim_bed_run_ms(&bed, 1100);
    before = sim_origin_requests(bed.origin, NULL);
    for (; n < 120; n++) {
        char path[16];

        snprintf(path, sizeof path, "/%u", n);
        get_exact(&bed, path, 1, 400000);
    }
    assert_in_range(sim_origin_requests(bed.origin, NULL) - before, 10, 30);
    sim_proxy_close(&bed.p, 100 * NS_PER_S);
    sim_origin_free(&other);
    sim_origin_free(&bed.origin);
    sim_destroy(&bed.w);
}

/* --- descriptors and memory --- */

static void test_no_descriptors(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(15, 1, SIM_YAML RULES TIMEOUTS);
    struct sim_client *c;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    sim_faults(bed.w)->accept_emfile_ppm = 1000000;
    c = sim_bed_client(&bed, NULL);
    sim_client_get(c, "/a", NULL);
    sim_bed_run_ms(&bed, 2000);
    assert_in_range(SIM_PROXY_STAT(bed.p, accept_errors), 5, 25); /* it pauses, and does not spin */
    sim_faults(bed.w)->accept_emfile_ppm = 0;
    sim_bed_settle(&bed, c, 5);
    sim_bed_want_body(&bed, c, 0, "/a", 1, 400000);
    sim_client_free(&c);

    sim_bed_run_ms(&bed, 31000);
    sim_faults(bed.w)->socket_emfile_ppm = 1000000;
    c = sim_bed_get(&bed, "/b", NULL);
    sim_bed_want(&bed, c, 0, 503);
    sim_client_free(&c);
    sim_faults(bed.w)->socket_emfile_ppm = 0;
    sim_bed_run_ms(&bed, 1100);
    get_exact(&bed, "/b", 1, 400000);
    sim_bed_close(&bed);
}

static void test_all_memory_in_use(void **state)
{
    struct sim_bed bed =
        sim_bed_open_exact(16, 2, SIM_YAML_LISTEN SIM_YAML_UPSTREAM "memory: {size: 4MiB}\n" RULES TIMEOUTS);
    struct sim_client_options slow = {.read_rate = 2000};
    struct sim_client *holders[20], *c;
    struct memory_stats stats;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    for (size_t i = 0; i < ARRAY_LEN(holders); i++) {
        char path[16];

        snprintf(path, sizeof path, "/%zu", i);
        holders[i] = sim_bed_client(&bed, &slow);
        sim_client_get(holders[i], path, NULL);
    }
    sim_bed_run_ms(&bed, 5000);
    memory_stats(bed.p->proxy.memory, &stats);
    assert_true(stats.refused > 0 && stats.bytes <= stats.size_bytes);
    get_exact(&bed, "/x", 1, 400000); /* passed through */
    get_exact(&bed, "/x", 1, 400000);
    assert_int_equal(sim_origin_requests(bed.origin, "/x"), 2);
    c = sim_bed_get(&bed, "/x", "Range: bytes=300000-300099\r\n");
    sim_bed_want(&bed, c, 0, 206);
    sim_client_free(&c);
    sim_bed_settle_all(&bed, holders, ARRAY_LEN(holders), 600);
    for (size_t i = 0; i < ARRAY_LEN(holders); i++) {
        char path[16];

        snprintf(path, sizeof path, "/%zu", i);
        sim_bed_want_body(&bed, holders[i], 0, path, 1, 400000);
        sim_client_free(&holders[i]);
    }
    get_exact(&bed, "/y", 1, 400000);
    get_exact(&bed, "/y", 1, 400000);
    assert_int_equal(sim_origin_requests(bed.origin, "/y"), 1);
    sim_bed_close(&bed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte_a_second),
        cmocka_unit_test(test_client_that_reads_nothing),
        cmocka_unit_test(test_client_that_reads_nothing_and_need_not_be_fast),
        cmocka_unit_test(test_slow_but_steady_is_served),
        cmocka_unit_test(test_silent_connections),
        cmocka_unit_test(test_idle_after_a_request),
        cmocka_unit_test(test_too_many_connections),
        cmocka_unit_test(test_pipelining_and_half_close),
        cmocka_unit_test(test_upstream_timeouts),
        cmocka_unit_test(test_upstream_waits_for_the_clients_body),
        cmocka_unit_test(test_request_bodies_have_a_limit),
        cmocka_unit_test(test_upstream_keep_alive),
        cmocka_unit_test(test_upstream_that_closes_each_time),
        cmocka_unit_test(test_upstream_connections_have_a_limit),
        cmocka_unit_test(test_failing_upstream_rests_and_returns),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_all_memory_in_use),
    };

    log_set_level((enum log_level)0);
    cmocka_set_test_filter(getenv("SIM_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
