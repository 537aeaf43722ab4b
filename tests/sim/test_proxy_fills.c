/* One fill, many readers: collapsing, what becomes of readers when the origin fails, freshness, and who waits for
 * whom. Each is exact: so many requests upstream, these bytes, this second. */
#include "sim_proxy.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES    "rules: [{match: \"/**\", ttl: 60s, methods: all}]\n"
#define TIMEOUTS "timeouts: {upstream_connect: 3s, upstream_first_byte: 4s, upstream_between_bytes: 5s}\n"
#define MIB      1048576u

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};

static struct sim_bed open_bed(uint64_t seed, unsigned workers, const char *yaml)
{
    struct sim_options options = sim_options_calm(seed);

    return sim_bed_open(&options, workers, yaml);
}

static bool is_exact_start(const struct sim_reply *r, const char *path, uint64_t version)
{
    return sim_body_differs(sim_body_id(str_z(path), version), 0, r->body.p, r->body.n) == r->body.n;
}

static void want_header(struct sim_bed *bed, struct sim_client *c, const char *name, const char *value)
{
    struct str got = sim_head_field(sim_client_reply(c, 0)->head, name);

    if (!str_eq(got, str_z(value)))
        sim_fail(bed->w, "%s: wanted %s, got " STR_FMT, name, value, STR_ARG(got));
}

static void get_exact(struct sim_bed *bed, const char *path, uint64_t version, uint64_t bytes,
                      const char *x_cache)
{
    struct sim_client *c = sim_bed_get(bed, path, NULL);

    sim_bed_want_body(bed, c, 0, path, version, bytes);
    if (x_cache != NULL)
        want_header(bed, c, "X-Cache", x_cache);
    sim_client_free(&c);
}

static void get_status(struct sim_bed *bed, const char *path, int status)
{
    struct sim_client *c = sim_bed_get(bed, path, NULL);

    sim_bed_want(bed, c, 0, status);
    sim_client_free(&c);
}

/* --- collapsing --- */

static void collapse(unsigned workers)
{
    struct sim_bed bed = open_bed(workers, workers, SIM_YAML RULES);
    static struct sim_client *clients[1000];
    struct sim_answer slow = song;

    slow.delay_ns = 50 * NS_PER_MS;
    slow.drip_bytes_per_s = 4000000;
    sim_origin_set(bed.origin, "/a", &slow);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = sim_bed_client(&bed, NULL);
        sim_client_get(clients[i], "/a", NULL);
    }
    sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 60);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        sim_bed_want_body(&bed, clients[i], 0, "/a", 1, 400000);
        sim_client_free(&clients[i]);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 1);
    assert_int_equal(SIM_PROXY_STAT(bed.p, fills_completed), 1);
    sim_bed_close(&bed);
}

static void test_thousand_clients_make_one_request(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 3; workers++)
        collapse(workers);
}

static void test_origin_dies_inside_the_body(void **state)
{
    struct sim_bed bed = open_bed(4, 3, SIM_YAML RULES);
    struct sim_client *clients[12];
    struct sim_answer dying = song;

    (void)state;
    dying.drip_bytes_per_s = 200000;
    dying.cut = SIM_CUT_IN_BODY;
    dying.cut_at = 300000;
    sim_origin_set(bed.origin, "/a", &song);
    sim_origin_next(bed.origin, "/a", &dying, 1);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        struct sim_client_options options = {.read_rate = i % 3 == 0 ? 0 : 100000 * (i % 3)};

        clients[i] = sim_bed_client(&bed, &options);
        sim_client_get(clients[i], "/a", NULL);
        sim_bed_run_ms(&bed, 80);
    }
    sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 20);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        const struct sim_reply *r = sim_client_reply(clients[i], 0);

        assert_int_equal(r->status, 200);
        assert_false(r->complete);
        assert_true(r->body.n > 0 && r->body.n <= 300000 && is_exact_start(r, "/a", 1));
        assert_true(sim_client_gone(clients[i]));
        sim_client_free(&clients[i]);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 1);
    get_exact(&bed, "/a", 1, 400000, "MISS");
    get_exact(&bed, "/a", 1, 400000, "HIT");
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 2);
    sim_bed_close(&bed);
}

static void test_fill_outlives_its_clients(void **state)
{
    struct sim_bed bed = open_bed(5, 2, SIM_YAML RULES);
    struct sim_client_options leaves = {.abort_at_bytes = 20000};
    struct sim_answer slow = song;
    struct sim_client *first, *second;

    (void)state;
    slow.drip_bytes_per_s = 200000;
    sim_origin_set(bed.origin, "/a", &slow);
    sim_origin_set(bed.origin, "/b", &slow);
    first = sim_bed_client(&bed, &leaves);
    sim_client_get(first, "/a", NULL);
    sim_bed_run_ms(&bed, 50);
    second = sim_bed_client(&bed, NULL);
    sim_client_get(second, "/a", NULL);
    sim_bed_settle(&bed, second, 10);
    sim_bed_want_body(&bed, second, 0, "/a", 1, 400000);
    assert_false(sim_client_reply(first, 0)->complete);
    sim_client_free(&first);
    sim_client_free(&second);
    assert_int_equal(sim_origin_requests(bed.origin, "/a"), 1);

    first = sim_bed_client(&bed, &leaves);
    sim_client_get(first, "/b", NULL);
    sim_bed_run_ms(&bed, 5000);
    sim_client_free(&first);
    get_exact(&bed, "/b", 1, 400000, "HIT");
    assert_int_equal(sim_origin_requests(bed.origin, "/b"), 1);
    sim_bed_close(&bed);
}

/* --- freshness --- */

static void test_stale_while_revalidate(void **state)
{
    struct sim_bed bed =
        open_bed(6, 2, SIM_YAML "rules: [{match: \"/**\", ttl: 10s, stale_while_revalidate: 60s}]\n");
    struct sim_answer second = song;
    struct sim_client *clients[50];
    uint64_t began;

    (void)state;
    second.version = 2;
    second.delay_ns = NS_PER_S;
    sim_origin_set(bed.origin, "/a", &song);
    get_exact(&bed, "/a", 1, 400000, "MISS");
    sim_origin_set(bed.origin, "/a", &second);
    sim_bed_run_ms(&bed, 15000);
    began = sim_now_ns(bed.w);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = sim_bed_client(&bed, NULL);
        sim_client_get(clients[i], "/a", NULL);
    }
    sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 10);
    assert_true(sim_now_ns(bed.w) - began < 900 * NS_PER_MS);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        sim_bed_want_body(&bed, clients[i], 0, "/a", 1, 400000);
        want_header(&bed, clients[i], "X-Cache", "STALE");
        sim_client_free(&clients[i]);
    }
    sim_bed_run_ms(&bed, 3000);
    get_exact(&bed, "/a", 2, 400000, "HIT");
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 2);
    sim_bed_close(&bed);
}

static void test_stale_if_error(void **state)
{
    struct sim_bed bed =
        open_bed(7, 1, SIM_YAML "rules: [{match: \"/**\", ttl: 10s, stale_if_error: 100s}]\n" TIMEOUTS);
    struct sim_answer fails = {.status = 500, .body_bytes = 10}, silent = {.never = true};

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    get_exact(&bed, "/a", 1, 400000, "MISS");
    sim_bed_run_ms(&bed, 15000);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    get_exact(&bed, "/a", 1, 400000, "HIT"); /* the pooled connection still works, and validates */
    sim_bed_close(&bed);

    bed = open_bed(8, 1,
                   SIM_YAML "rules: [{match: \"/**\", ttl: 10s, stale_if_error: 100s}]\n" TIMEOUTS
                            "limits: {upstream_idle_max: 0}\n");
    sim_origin_set(bed.origin, "/a", &song);
    get_exact(&bed, "/a", 1, 400000, "MISS");
    sim_bed_run_ms(&bed, 15000);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    get_exact(&bed, "/a", 1, 400000, "STALE");
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_OPEN);
    sim_bed_run_ms(&bed, 2000);
    sim_origin_next(bed.origin, "/a", &fails, 1);
    get_exact(&bed, "/a", 1, 400000, "STALE");
    sim_bed_run_ms(&bed, 2000);
    sim_origin_next(bed.origin, "/a", &silent, 1);
    get_exact(&bed, "/a", 1, 400000, "STALE");
    sim_bed_run_ms(&bed, 100000);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    get_status(&bed, "/a", 502);
    sim_bed_close(&bed);
}

static void test_not_modified_renews(void **state)
{
    struct sim_bed bed = open_bed(9, 1, SIM_YAML "rules: [{match: \"/**\", ttl: 10s}]\n");

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    get_exact(&bed, "/a", 1, 400000, "MISS");
    sim_bed_run_ms(&bed, 15000);
    get_exact(&bed, "/a", 1, 400000, "HIT");
    assert_true(
        str_eq(sim_head_field(sim_origin_last_head(bed.origin, "/a"), "If-None-Match"), STR("\"v1\"")));
    assert_int_equal(SIM_PROXY_STAT(bed.p, fills_not_modified), 1);
    sim_bed_run_ms(&bed, 5000);
    get_exact(&bed, "/a", 1, 400000, "HIT");
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 2);
    sim_bed_run_ms(&bed, 15000);
    get_exact(&bed, "/a", 1, 400000, "HIT");
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 3);
    assert_int_equal(sim_origin_connections(bed.origin),
                     1); /* a 304 leaves its connection good for the next */
    sim_bed_close(&bed);
}

/* --- what an origin should not do --- */

static void test_answers_that_make_no_sense(void **state)
{
    static const struct sim_answer unasked = {.raw = STR_INIT(
                                                  "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")},
                                   giant = {.body_bytes = 10, .head_pad_bytes = MIB},
                                   garbage = {.raw = STR_INIT("SSH-2.0-OpenSSH_9.2\r\n\r\n")},
                                   both = {.raw = STR_INIT("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
                                                           "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
                                   part = {.raw = STR_INIT("HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n"
                                                           "Content-Range: bytes 5-7/100\r\n\r\nabc")},
                                   upgrade = {.raw = STR_INIT("HTTP/1.1 101 Switching\r\n\r\n")},
                                   silent_end = {.cut = SIM_CUT_BEFORE_HEAD, .cut_by_close = true},
                                   reset_head = {.body_bytes = 10, .cut = SIM_CUT_IN_HEAD, .cut_at = 20};
    static const struct sim_answer *const all[] = {&unasked, &giant,   &garbage,    &both,
                                                   &part,    &upgrade, &silent_end, &reset_head};
    struct sim_bed bed = open_bed(10, 1, SIM_YAML RULES TIMEOUTS);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        char path[16];

        snprintf(path, sizeof path, "/%zu", i);
        sim_origin_set(bed.origin, path, all[i]);
        get_status(&bed, path, 502);
        sim_bed_run_ms(&bed, 1500);
        sim_origin_set(bed.origin, path, &song);
        get_exact(&bed, path, 1, 400000, "MISS");
    }
    sim_bed_close(&bed);
}

static void test_stampede_on_a_dead_origin_is_bounded(void **state)
{
    struct sim_bed bed = open_bed(11, 2, SIM_YAML RULES);
    uint64_t began;
    unsigned asked = 0;

    (void)state;
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    began = sim_now_ns(bed.w);
    for (; sim_now_ns(bed.w) - began < 5 * NS_PER_S; asked++)
        get_status(&bed, "/a", 502);
    assert_true(asked > 100);
    assert_in_range(SIM_PROXY_STAT(bed.p, upstream_connects), 4, 6);
    sim_bed_close(&bed);
}

static void test_stale_hits_on_a_dead_origin_are_bounded(void **state)
{
    struct sim_bed bed =
        open_bed(12, 2,
                 SIM_YAML "rules: [{match: \"/**\", ttl: 10s, stale_while_revalidate: 60s}]\n"
                          "limits: {upstream_idle_max: 0}\n");
    struct sim_answer small = {.body_bytes = 100, .version = 1, .etag = true};
    uint64_t began;

    (void)state;
    sim_origin_set(bed.origin, "/a", &small);
    get_exact(&bed, "/a", 1, 100, "MISS");
    sim_bed_run_ms(&bed, 15000);
    sim_route(bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    began = sim_now_ns(bed.w);
    while (sim_now_ns(bed.w) - began < 5 * NS_PER_S)
        get_exact(&bed, "/a", 1, 100, "STALE");
    assert_in_range(SIM_PROXY_STAT(bed.p, upstream_connects), 5, 7);
    sim_bed_close(&bed);
}

/* --- what may not be shared --- */

static void number_them(void *context, const struct sim_origin_request *request, struct sim_answer *answer)
{
    (void)context;
    answer->version = 1 + request->nth;
}

static void test_private_answers_are_ones_own(void **state)
{
    struct sim_bed bed = open_bed(13, 3, SIM_YAML RULES);
    struct sim_answer own = song;
    struct sim_client *clients[100];
    bool seen[101] = {false};

    (void)state;
    own.fields = "Cache-Control: private\r\n";
    own.delay_ns = 100 * NS_PER_MS;
    sim_origin_set(bed.origin, "/a", &own);
    sim_origin_hook(bed.origin, number_them, NULL);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = sim_bed_client(&bed, NULL);
        sim_client_get(clients[i], "/a", NULL);
    }
    sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 30);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        struct str etag = sim_head_field(sim_client_reply(clients[i], 0)->head, "ETag");
        uint64_t version = strtoull(etag.p + 2, NULL, 10);

        assert_in_range(version, 1, 100);
        assert_false(seen[version]);
        seen[version] = true;
        sim_bed_want_body(&bed, clients[i], 0, "/a", version, 400000);
        sim_client_free(&clients[i]);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 100);
    sim_bed_close(&bed);
}

static void test_private_and_longer_than_a_slice(void **state)
{
    struct sim_bed bed = open_bed(14, 1, SIM_YAML RULES);
    struct sim_answer own = {
        .body_bytes = 3500000, .version = 1, .etag = true, .fields = "Cache-Control: private\r\n"};

    (void)state;
    sim_origin_set(bed.origin, "/a", &own);
    get_exact(&bed, "/a", 1, 3500000, "MISS");
    get_exact(&bed, "/a", 1, 3500000, "MISS");
    sim_bed_close(&bed);
}

static void by_encoding(void *context, const struct sim_origin_request *request, struct sim_answer *answer)
{
    struct str want = sim_head_field(request->head, "Accept-Encoding");

    (void)context;
    answer->version = str_eq(want, STR("br")) ? 3 : str_eq(want, STR("gzip")) ? 2 : 1;
}

static void test_vary_under_collapse(void **state)
{
    static const char *const fields[] = {NULL, "Accept-Encoding: gzip\r\n", "Accept-Encoding: br\r\n"};
    struct sim_bed bed = open_bed(15, 3, SIM_YAML RULES);
    struct sim_answer varying = song;
    struct sim_client *clients[90];

    (void)state;
    varying.fields = "Vary: Accept-Encoding\r\n";
    varying.delay_ns = 20 * NS_PER_MS;
    varying.drip_bytes_per_s = 2000000;
    sim_origin_set(bed.origin, "/a", &varying);
    sim_origin_hook(bed.origin, by_encoding, NULL);
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
            clients[i] = sim_bed_client(&bed, NULL);
            sim_client_get(clients[i], "/a", fields[i % 3]);
        }
        sim_bed_settle_all(&bed, clients, ARRAY_LEN(clients), 30);
        for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
            sim_bed_want_body(&bed, clients[i], 0, "/a", 1 + i % 3, 400000);
            sim_client_free(&clients[i]);
        }
        assert_int_equal(sim_origin_requests(bed.origin, NULL), 3);
    }
    sim_bed_close(&bed);
}

/* --- rings --- */

static void test_ring_with_a_fast_and_a_slow_reader(void **state)
{
    struct sim_bed bed = open_bed(16, 2, SIM_YAML RULES TIMEOUTS "limits: {client_rate_grace: 10s}\n");
    struct sim_answer endless = {.body_bytes = 3000000, .version = 1, .etag = true, .chunked = true};
    struct sim_client_options slow = {.read_rate = 40000};
    struct sim_client *clients[2];

    (void)state;
    endless.drip_bytes_per_s = 3000000;
    sim_origin_set(bed.origin, "/a", &endless);
    /* Less than the ring takes a pause of the upstream as long as its reader's: no reason to give up. */
    clients[0] = sim_bed_client(&bed, &slow);
    sim_client_get(clients[0], "/a", NULL);
    clients[1] = sim_bed_client(&bed, NULL);
    sim_client_get(clients[1], "/a", NULL);
    sim_bed_settle_all(&bed, clients, 2, 200);
    for (size_t i = 0; i < 2; i++) {
        sim_bed_want_body(&bed, clients[i], 0, "/a", 1, 3000000);
        sim_client_free(&clients[i]);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 1);
    sim_bed_close(&bed);
}

/* A reader that takes nothing for longer than the upstream may be silent: the ring is full, and that is not the
 * upstream's fault. */
static void test_full_ring_is_not_a_silent_upstream(void **state)
{
    static const bool chunked[] = {true, false};
    struct sim_bed bed = open_bed(17, 1,
                                  SIM_YAML "rules: [{match: \"/**\"}]\n" TIMEOUTS
                                           "limits: {client_rate_grace: 60s, client_rate_min: 0B/s}\n");

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sim_answer a = {
            .body_bytes = 3000000, .version = 1, .chunked = chunked[i], .by_close = !chunked[i]};
        const char *path = i == 0 ? "/a" : "/b";
        struct sim_client *c = sim_bed_client(&bed, NULL);

        sim_origin_set(bed.origin, path, &a);
        sim_client_get(c, path, NULL);
        sim_bed_run_ms(&bed, 20);
        sim_conn_read_rate(sim_client_conn(c), 0);
        sim_bed_run_ms(&bed, 20000);
        sim_conn_read_rate(sim_client_conn(c), UINT64_MAX);
        sim_bed_settle(&bed, c, 30);
        sim_bed_want_body(&bed, c, 0, path, 1, 3000000);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

/* ... but once there is room again, it is. */
static void test_upstream_that_falls_silent_after_a_full_ring(void **state)
{
    static const char *const heads[] = {"Transfer-Encoding: chunked\r\n\r\n1e8480\r\n",
                                        "Content-Length: 2000100\r\n\r\n"};
    static char raw[2000200];
    struct sim_bed bed =
        open_bed(18, 1, SIM_YAML "rules: [{match: \"/**\"}]\n" TIMEOUTS "limits: {client_rate_grace: 60s}\n");

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int n = snprintf(raw, sizeof raw, "HTTP/1.1 200 OK\r\n%s", heads[i]);
        struct sim_answer a = {.raw = str_of(raw, (size_t)n + 2000000)};
        const char *path = i == 0 ? "/a" : "/b";
        struct sim_client *c = sim_bed_client(&bed, NULL);
        uint64_t began;

        memset(raw + n, 'x', 2000000);
        sim_origin_set(bed.origin, path, &a);
        sim_client_get(c, path, NULL);
        sim_bed_run_ms(&bed, 5);
        sim_conn_read_rate(sim_client_conn(c), 0);
        sim_bed_run_ms(&bed, 20000);
        assert_true(sim_client_reply(c, 0)->body.n < 1000000);
        sim_conn_read_rate(sim_client_conn(c), UINT64_MAX);
        began = sim_now_ns(bed.w);
        sim_bed_settle(&bed, c, 30);
        assert_false(sim_client_reply(c, 0)->complete);
        assert_int_equal(sim_client_reply(c, 0)->body.n, 2000000);
        assert_in_range((sim_now_ns(bed.w) - began) / NS_PER_MS, 5000, 5500);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

static void test_ring_that_nobody_reads_ends(void **state)
{
    struct sim_bed bed =
        open_bed(19, 1, SIM_YAML "rules: [{match: \"/p/**\", cache: false}, {match: \"/**\", ttl: 60s}]\n");
    struct sim_client_options leaves = {.abort_at_bytes = 50000};
    struct sim_answer endless = {
        .body_bytes = 1000000000, .version = 1, .chunked = true, .drip_bytes_per_s = 1000000};
    static const char *const paths[] = {"/a", "/p/a"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sim_client *c = sim_bed_client(&bed, &leaves);

        endless.body_bytes = 20000000;
        sim_origin_set(bed.origin, paths[i], &endless);
        sim_client_get(c, paths[i], NULL);
        sim_bed_settle(&bed, c, 30);
        sim_bed_run_ms(&bed, 3000);
        assert_int_equal(bed.p->proxy.workers[0]->fills.in_use, 0);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

/* Ranges that go back where the ring has been overwritten. */
static void test_ranges_against_the_order_of_a_ring(void **state)
{
    struct sim_bed bed = open_bed(20, 1, SIM_YAML "rules: [{match: \"/**\"}]\n");
    struct sim_answer a = {.body_bytes = 900000, .version = 1};
    struct sim_client *c;
    const struct sim_reply *r;
    uint64_t id = sim_body_id(STR("/a"), 1);

    (void)state;
    sim_origin_set(bed.origin, "/a", &a);
    c = sim_bed_get(&bed, "/a", "Range: bytes=899000-899999\r\n");
    sim_bed_want(&bed, c, 0, 206);
    r = sim_client_reply(c, 0);
    assert_int_equal(r->body.n, 1000);
    assert_int_equal(sim_body_differs(id, 899000, r->body.p, 1000), 1000);
    sim_client_free(&c);

    c = sim_bed_get(&bed, "/a", "Range: bytes=600000-600009,0-9\r\n");
    r = sim_client_reply(c, 0);
    if (r->status == 206) { /* multipart: the last bytes before the closing boundary are the second range's */
        const char *mark = memmem(r->body.p, r->body.n, "bytes 0-9/900000\r\n\r\n", 20);

        sim_bed_want(&bed, c, 0, 206);
        assert_non_null(mark);
        assert_int_equal(sim_body_differs(id, 0, mark + 20, 10), 10);
    } else {
        sim_bed_want_body(&bed, c, 0, "/a", 1, 900000);
    }
    sim_client_free(&c);
    sim_bed_close(&bed);
}

/* --- slices --- */

static void test_slices(void **state)
{
    static const struct {
        uint64_t bytes, requests;
    } cases[] = {{0, 2}, {1, 1}, {4096, 1}, {400000, 1}, {MIB - 1, 1}, {MIB, 1}, {MIB + 1, 2}, {3500000, 4}};
    struct sim_bed bed = open_bed(21, 2, SIM_YAML RULES);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sim_answer a = {.body_bytes = cases[i].bytes, .version = i, .etag = true};
        char path[16];

        snprintf(path, sizeof path, "/%zu", i);
        sim_origin_set(bed.origin, path, &a);
        get_exact(&bed, path, i, cases[i].bytes, "MISS");
        assert_int_equal(sim_origin_requests(bed.origin, path), cases[i].requests);
        get_exact(&bed, path, i, cases[i].bytes, "HIT");
        assert_int_equal(sim_origin_requests(bed.origin, path), cases[i].requests);
    }
    sim_bed_close(&bed);
}

/* Looking whether the next slice is kept must find that of the request's own variant. */
static void test_slices_that_vary(void **state)
{
    struct sim_answer a = {
        .body_bytes = 3500000, .version = 1, .etag = true, .fields = "Vary: Accept-Encoding\r\n"};
    struct sim_bed bed = open_bed(23, 1, SIM_YAML RULES);
    uint64_t requests;

    (void)state;
    sim_origin_set(bed.origin, "/a", &a);
    get_exact(&bed, "/a", 1, a.body_bytes, "MISS");
    requests = sim_origin_requests(bed.origin, "/a");
    get_exact(&bed, "/a", 1, a.body_bytes, "HIT");
    sim_bed_run_ms(&bed, 1000);
    assert_int_equal(sim_origin_requests(bed.origin, "/a"), requests);
    sim_bed_close(&bed);
}

static void test_a_seek_fetches_its_slice_only(void **state)
{
    struct sim_bed bed = open_bed(22, 1, SIM_YAML RULES);
    struct sim_answer a = {.body_bytes = 3500000, .version = 1, .etag = true};
    struct sim_client *c;

    (void)state;
    sim_origin_set(bed.origin, "/a", &a);
    c = sim_bed_get(&bed, "/a", "Range: bytes=2500000-2500099\r\n");
    sim_bed_want(&bed, c, 0, 206);
    assert_int_equal(
        sim_body_differs(sim_body_id(STR("/a"), 1), 2500000, sim_client_reply(c, 0)->body.p, 100), 100);
    sim_client_free(&c);
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 1);
    assert_true(str_eq(sim_head_field(sim_origin_last_head(bed.origin, "/a"), "Range"),
                       STR("bytes=2097152-3145727")));
    get_exact(&bed, "/a", 1, 3500000, NULL);
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 4);
    sim_bed_close(&bed);
}

static void change_after_first_slice(void *context, const struct sim_origin_request *request,
                                     struct sim_answer *answer)
{
    (void)context;
    answer->version = request->nth == 0 ? 1 : 2;
}

static void test_versions_never_mix(void **state)
{
    struct sim_bed bed = open_bed(23, 1, SIM_YAML RULES);
    struct sim_answer a = {.body_bytes = 3500000, .version = 1, .etag = true};
    struct sim_client *c;

    (void)state;
    sim_origin_set(bed.origin, "/a", &a);
    sim_origin_hook(bed.origin, change_after_first_slice, NULL);
    c = sim_bed_get(&bed, "/a", NULL);
    assert_false(sim_client_reply(c, 0)->complete);
    assert_true(is_exact_start(sim_client_reply(c, 0), "/a", 1));
    sim_client_free(&c);
    sim_bed_run_ms(&bed, 2000);
    get_exact(&bed, "/a", 2, 3500000, NULL);
    sim_bed_close(&bed);
}

/* --- invalidation --- */

static void test_unsafe_methods_invalidate(void **state)
{
    static const char *const methods[] = {"PUT", "DELETE", "POST"};
    struct sim_bed bed = open_bed(24, 2, SIM_YAML RULES);
    struct sim_answer a = song;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        struct sim_answer done = {.status = 204}, refused = {.status = 403};
        struct sim_client *c;
        char raw[128];
        int n = snprintf(raw, sizeof raw, "%s /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
                         methods[i]);

        a.version = 10 * i + 1;
        sim_origin_set(bed.origin, "/a", &a);
        get_exact(&bed, "/a", a.version, 400000, "MISS");
        a.version++;
        sim_origin_set(bed.origin, "/a", &a);
        sim_origin_next(bed.origin, "/a", &refused, 1);
        c = sim_bed_client(&bed, NULL);
        sim_client_request(c, str_of(raw, (size_t)n), false);
        sim_bed_settle(&bed, c, 10);
        sim_bed_want(&bed, c, 0, 403);
        get_exact(&bed, "/a", a.version - 1, 400000, "HIT");
        sim_origin_next(bed.origin, "/a", &done, 1);
        sim_client_request(c, str_of(raw, (size_t)n), false);
        sim_bed_settle(&bed, c, 10);
        sim_bed_want(&bed, c, 1, 204);
        sim_client_free(&c);
        get_exact(&bed, "/a", a.version, 400000, "MISS");
        c = sim_bed_client(&bed, NULL);
        sim_origin_next(bed.origin, "/a", &done, 1);
        sim_client_request(c, str_of(raw, (size_t)n), false);
        sim_bed_settle(&bed, c, 10);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousand_clients_make_one_request),
        cmocka_unit_test(test_origin_dies_inside_the_body),
        cmocka_unit_test(test_fill_outlives_its_clients),
        cmocka_unit_test(test_stale_while_revalidate),
        cmocka_unit_test(test_stale_if_error),
        cmocka_unit_test(test_not_modified_renews),
        cmocka_unit_test(test_answers_that_make_no_sense),
        cmocka_unit_test(test_stampede_on_a_dead_origin_is_bounded),
        cmocka_unit_test(test_stale_hits_on_a_dead_origin_are_bounded),
        cmocka_unit_test(test_private_answers_are_ones_own),
        cmocka_unit_test(test_private_and_longer_than_a_slice),
        cmocka_unit_test(test_vary_under_collapse),
        cmocka_unit_test(test_ring_with_a_fast_and_a_slow_reader),
        cmocka_unit_test(test_full_ring_is_not_a_silent_upstream),
        cmocka_unit_test(test_upstream_that_falls_silent_after_a_full_ring),
        cmocka_unit_test(test_ring_that_nobody_reads_ends),
        cmocka_unit_test(test_ranges_against_the_order_of_a_ring),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_slices_that_vary),
        cmocka_unit_test(test_a_seek_fetches_its_slice_only),
        cmocka_unit_test(test_versions_never_mix),
        cmocka_unit_test(test_unsafe_methods_invalidate),
    };

    log_set_level((enum log_level)0);
    cmocka_set_test_filter(getenv("SIM_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
