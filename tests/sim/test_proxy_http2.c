/* The proxy over HTTP/2, plain and TLS: windows that stay shut, streams that are cancelled, many at once, connections
 * that idle, drain and break, at every operation. */
#include "sim_proxy.h"
#include "util/log.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES                                                                                                \
    "rules: [{match: \"/p/**\", cache: false, methods: all}, {match: \"/**\", ttl: 60s, methods: all}]\n"
#define TIMEOUTS      "timeouts: {client_head: 5s, client_idle: 20s, client_body: 7s}\n"
#define YAML          SIM_YAML_LISTEN_ALL SIM_YAML_UPSTREAM SIM_YAML_MEMORY RULES TIMEOUTS
#define YAML_UPSTREAM SIM_YAML_LISTEN_ALL SIM_YAML_UPSTREAM_TLS SIM_YAML_MEMORY RULES TIMEOUTS

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};
static const struct sim_answer small = {.body_bytes = 2000, .version = 1, .etag = true};
static const struct sim_tls_options tls13;
static const struct sim_tls_options *const kinds[] = {NULL, &tls13}; /* a client's */

static struct sim_h2 *client(struct sim_bed *bed, unsigned kind)
{
    return sim_bed_h2(bed, &(struct sim_h2_options){.tls = kinds[kind]});
}

static uint64_t ms_until_gone(struct sim_bed *bed, struct sim_h2 *c)
{
    uint64_t began = sim_now_ns(bed->w);

    while (!sim_h2_gone(c) && sim_bed_ms_since(bed, began) < 120000)
        sim_bed_run_ms(bed, 1);
    return sim_bed_ms_since(bed, began);
}

static void want_cancelled(struct sim_bed *bed, struct sim_h2 *c, size_t i, bool by_us)
{
    const struct sim_reply *r = sim_h2_reply(c, i);

    if (r->malformed || r->complete || !r->ended || sim_h2_was_reset_by_us(c, i) != by_us)
        sim_fail(bed->w, "reply %zu: malformed %d (%s), complete %d, ended %d", i, r->malformed,
                 r->why != NULL ? r->why : "", r->complete, r->ended);
}

/* --- windows --- */

/* Who opens no window is cut by the least rate, whatever the answer comes from; who opens it in time is not. */
static void test_windows_that_stay_shut(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(1, 1, YAML "limits: {client_rate_grace: 10s}\n");
    uint64_t began, slow = 0;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    for (unsigned i = 0; i < 4; i++) {
        struct sim_h2_options o = {
            .tls = kinds[i % 2], .no_window = i < 2, .stream_window = i < 2 ? 0 : 5000};
        struct sim_h2 *c;

        o.never_opens = true;
        c = sim_bed_h2(&bed, &o);
        sim_h2_get(c, "/a", NULL);
        sim_h2_get(c, "/p/b", NULL);
        began = sim_now_ns(bed.w);
        assert_true(sim_run(bed.w, sim_h2_settled, c, 60 * NS_PER_S));
        assert_in_range(sim_bed_ms_since(&bed, began), 10000, 20200);
        assert_int_equal(sim_h2_reply(c, 0)->status, 200);
        assert_false(sim_h2_reply(c, 0)->complete || sim_h2_reply(c, 1)->complete);
        assert_int_equal(sim_h2_reply(c, 0)->body.n, o.stream_window);
        assert_true(SIM_PROXY_STAT(bed.p, slow_clients) > slow);
        slow = SIM_PROXY_STAT(bed.p, slow_clients);
        sim_h2_free(&c);

        c = sim_bed_h2(&bed, &o);
        sim_h2_get(c, "/a", NULL);
        sim_bed_run_ms(&bed, 9000);
        sim_h2_open_windows(c);
        sim_bed_settle_h2(&bed, c, 10);
        sim_bed_want_h2_body(&bed, c, 0, "/a", 1, 400000);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* Windows of a few bytes, and ones that open late, still let all of it through. */
static void test_small_windows(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(2, 1, YAML "limits: {client_rate_min: 0/s}\n");

    (void)state;
    sim_origin_set(bed.origin, NULL, &small);
    for (unsigned i = 0; i < 4; i++) {
        struct sim_h2_options o = {.tls = kinds[i % 2], .stream_window = i / 2 == 0 ? 20 : 700};
        struct sim_h2 *c;

        if (i / 2 == 1)
            o.hold_ns = (struct sim_range){100 * NS_PER_MS, 300 * NS_PER_MS};
        c = sim_bed_h2(&bed, &o);
        sim_h2_get(c, "/a", NULL);
        sim_h2_get(c, "/p/b", NULL);
        sim_bed_settle_h2(&bed, c, 60);
        sim_bed_want_h2_body(&bed, c, 0, "/a", 1, 2000);
        sim_bed_want_h2_body(&bed, c, 1, "/p/b", 1, 2000);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* One stream whose window is shut holds up none of the others on its connection. */
static void test_a_shut_stream_among_others(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(3, 1, YAML);
    struct sim_h2 *c;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    c = sim_bed_h2(&bed, &(struct sim_h2_options){
                             .connection_window = 10000000, .stream_window = 300000, .never_opens = true});
    sim_h2_get(c, "/a", NULL); /* 400,000 bytes do not fit; small ones do */
    sim_origin_set(bed.origin, "/s", &small);
    for (unsigned i = 0; i < 20; i++)
        sim_h2_ask(c, &(struct sim_h2_request){.target = "/s", .after_ns = i * 100 * NS_PER_MS + NS_PER_MS});
    sim_bed_run_ms(&bed, 3000);
    for (unsigned i = 1; i <= 20; i++)
        sim_bed_want_h2_body(&bed, c, i, "/s", 1, 2000);
    assert_int_equal(sim_h2_reply(c, 0)->body.n, 300000);
    sim_h2_open_windows(c);
    sim_bed_settle_h2(&bed, c, 10);
    sim_bed_want_h2_body(&bed, c, 0, "/a", 1, 400000);
    sim_h2_free(&c);
    sim_bed_close(&bed);
}

/* --- streams --- */

/* The one that began a fill goes; those who joined it get all of it, from one request upstream. */
static void test_a_cancelled_stream_leaves_its_fill(void **state)
{
    struct sim_answer slow = song;
    struct sim_bed bed = sim_bed_open_exact(4, 1, YAML);

    (void)state;
    slow.delay_ns = 50 * NS_PER_MS;
    slow.drip_bytes_per_s = 1000000;
    for (unsigned i = 0; i < 2; i++) {
        const char *path = i == 0 ? "/a" : "/b";
        struct sim_h2 *first = client(&bed, i), *second = client(&bed, i);
        struct sim_client *third;

        sim_origin_set(bed.origin, path, &slow);
        sim_h2_get(first, path, NULL);
        sim_bed_run_ms(&bed, 20);
        third = sim_bed_client(&bed, NULL);
        sim_h2_get(second, path, NULL);
        sim_client_get(third, path, NULL);
        sim_bed_run_ms(&bed, i == 0 ? 10 : 200); /* before the head, in the body */
        sim_h2_reset(first, 0);
        sim_bed_settle_h2(&bed, second, 10);
        sim_bed_settle(&bed, third, 10);
        sim_bed_want_h2_body(&bed, second, 0, path, 1, 400000);
        sim_bed_want_body(&bed, third, 0, path, 1, 400000);
        want_cancelled(&bed, first, 0, true);
        assert_int_equal(sim_origin_requests(bed.origin, path), 1);
        sim_h2_free(&first);
        sim_h2_free(&second);
        sim_client_free(&third);
    }
    sim_bed_close(&bed);
}

/* Who waits for its origin, or has an upload under way, and is cancelled, costs nothing from then on. */
static void test_a_cancelled_stream_costs_nothing(void **state)
{
    struct sim_answer never = {.never = true};
    struct sim_bed bed = sim_bed_open_exact(16, 1, YAML);

    (void)state;
    sim_origin_set(bed.origin, NULL, &never);
    for (unsigned k = 0; k < 2; k++) {
        struct sim_h2 *c = client(&bed, k);

        sim_h2_get(c, k ? "/a" : "/b", NULL);
        sim_h2_get(c, "/p/c", NULL);
        sim_h2_ask(c, &(struct sim_h2_request){
                          .method = "POST", .target = "/p/d", .body_bytes = 100000, .body_stops_at = 50000});
        sim_bed_run_ms(&bed, 100);
        assert_int_equal(bed.p->proxy.workers[0]->requests.in_use, 3);
        for (size_t i = 0; i < 3; i++)
            sim_h2_reset(c, i);
        sim_bed_run_ms(&bed, 10);
        assert_int_equal(bed.p->proxy.workers[0]->requests.in_use, 0);
        assert_int_equal(bed.p->proxy.workers[0]->http2_streams.in_use, 0);
        sim_h2_free(&c);
        sim_bed_run_ms(&bed, 60000); /* the fills that nobody waits for */
    }
    sim_bed_close(&bed);
}

/* Whenever it is cancelled, it is gone, and the connection is as good as before. */
static void test_cancelled_at_every_moment(void **state)
{
    struct sim_answer slow = song;
    struct sim_bed bed = sim_bed_open_exact(5, 1, YAML);
    struct sim_h2 *c[2] = {client(&bed, 0), client(&bed, 1)};

    (void)state;
    slow.delay_ns = NS_PER_MS;
    sim_origin_set(bed.origin, NULL, &slow);
    for (unsigned i = 0; i < 150; i++) {
        char path[32];

        snprintf(path, sizeof path, "%s/%u", i % 3 == 0 ? "/p" : "", i);
        for (unsigned k = 0; k < 2; k++)
            sim_h2_ask(c[k],
                       &(struct sim_h2_request){.target = path, .reset_after_ns = 1 + i * 40 * NS_PER_US});
        sim_bed_run_ms(&bed, 100); /* resets come slowly enough not to be an attack */
    }
    for (unsigned k = 0; k < 2; k++) {
        sim_h2_get(c[k], "/last", NULL);
        sim_bed_settle_h2(&bed, c[k], 10);
        sim_bed_want_h2_body(&bed, c[k], 150, "/last", 1, 400000);
        sim_h2_free(&c[k]);
    }
    sim_bed_run_ms(&bed, 1000);
    assert_int_equal(bed.p->proxy.workers[0]->requests.in_use, 0);
    sim_bed_close(&bed);
}

/* A hundred on one connection, of which one waits for its origin. */
static void test_a_slow_miss_holds_nobody(void **state)
{
    struct sim_answer slow = song;
    struct sim_bed bed = sim_bed_open_exact(6, 1, YAML);

    (void)state;
    slow.delay_ns = 3 * NS_PER_S;
    sim_origin_set(bed.origin, NULL, &small);
    for (unsigned k = 0; k < 2; k++) {
        const char *path = k == 0 ? "/slow0" : "/slow1";
        struct sim_h2 *c = client(&bed, k);
        uint64_t began = sim_now_ns(bed.w);

        sim_origin_set(bed.origin, path, &slow);
        sim_h2_get(c, path, "priority: u=0\r\n");
        for (unsigned i = 1; i < 100; i++)
            sim_h2_get(c, i % 2 ? "/a" : "/p/b", NULL);
        sim_bed_run_ms(&bed, 500);
        for (unsigned i = 1; i < 100; i++)
            sim_bed_want_h2_body(&bed, c, i, i % 2 ? "/a" : "/p/b", 1, 2000);
        assert_int_equal(sim_h2_reply(c, 0)->status, 0);
        sim_bed_settle_h2(&bed, c, 10);
        sim_bed_want_h2_body(&bed, c, 0, path, 1, 400000);
        assert_in_range(sim_bed_ms_since(&bed, began), 3000, 3500);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* RFC 9218: what is urgent is there before what is not begins to take from it; equals that say so take turns. */
static void test_priorities(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(7, 1, YAML);
    struct sim_h2 *c;
    size_t prefetch, next, a, b;

    (void)state;
    sim_origin_set(bed.origin, NULL, &song);
    c = client(&bed, 1);
    sim_h2_get(c, "/a", NULL); /* from here on it is kept */
    sim_bed_settle_h2(&bed, c, 10);
    sim_h2_free(&c);

    c = sim_bed_h2(&bed, &(struct sim_h2_options){.tls = &tls13,
                                                  .read_rate = 1000000,
                                                  .stream_window = 1000000,
                                                  .connection_window = 10000000});
    prefetch = sim_h2_get(c, "/a", "priority: u=6\r\n");
    sim_bed_run_ms(&bed, 50);
    next = sim_h2_get(c, "/a", "priority: u=1\r\n");
    sim_bed_settle_h2(&bed, c, 10);
    assert_true(sim_h2_reply(c, next)->done_ns < sim_h2_reply(c, prefetch)->done_ns);
    /* What was on its way when it was asked for, and then the urgent one alone. */
    assert_true(sim_h2_reply(c, next)->done_ns - sim_h2_reply(c, next)->asked_ns < 800 * NS_PER_MS);

    a = sim_h2_get(c, "/a", "priority: u=3, i\r\n");
    b = sim_h2_get(c, "/a", "priority: u=3, i\r\n");
    sim_bed_settle_h2(&bed, c, 10);
    assert_true(sim_h2_reply(c, b)->first_byte_ns < sim_h2_reply(c, a)->done_ns - 200 * NS_PER_MS);
    a = sim_h2_get(c, "/a", "priority: u=5\r\n");
    b = sim_h2_get(c, "/a", "priority: u=5\r\n");
    sim_bed_run_ms(&bed, 20);
    sim_h2_prioritize(c, b, "u=0"); /* the listener has skipped */
    sim_bed_settle_h2(&bed, c, 10);
    assert_true(sim_h2_reply(c, b)->done_ns < sim_h2_reply(c, a)->done_ns);
    sim_h2_free(&c);
    sim_bed_close(&bed);
}

/* --- uploads --- */

static void test_uploads(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(8, 1, YAML);
    struct sim_h2 *c;

    (void)state;
    sim_origin_set(bed.origin, NULL, &small);
    for (unsigned k = 0; k < 2; k++) {
        size_t stuck, whole;
        uint64_t began = sim_now_ns(bed.w);

        c = client(&bed, k);
        stuck = sim_h2_ask(
            c, &(struct sim_h2_request){
                   .method = "POST", .target = "/p/a", .body_bytes = 100000, .body_stops_at = 30000});
        whole = sim_h2_ask(c, &(struct sim_h2_request){.method = "POST",
                                                       .target = "/p/b",
                                                       .body_bytes = 300000,
                                                       .body_id = 3,
                                                       .has_length = k == 1});
        sim_bed_settle_h2(&bed, c, 20);
        sim_bed_want_h2_body(&bed, c, whole, "/p/b", 1, 2000);
        assert_false(sim_h2_reply(c, stuck)->malformed);
        assert_true(sim_h2_reply(c, stuck)->status == 408 || !sim_h2_reply(c, stuck)->complete);
        assert_in_range(sim_bed_ms_since(&bed, began), 7000, 8000);
        assert_int_equal(sim_origin_requests(bed.origin, "/p/a"), 0);
        whole = sim_h2_get(c, "/p/b", NULL);
        sim_bed_settle_h2(&bed, c, 20);
        sim_bed_want_h2_body(&bed, c, whole, "/p/b", 1, 2000);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* --- the end of connections --- */

static void test_idle(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(9, 1, YAML);

    (void)state;
    sim_origin_set(bed.origin, NULL, &small);
    for (unsigned k = 0; k < 2; k++) {
        struct sim_h2 *c = client(&bed, k);
        uint64_t ms;

        sim_h2_get(c, "/a", NULL);
        sim_bed_settle_h2(&bed, c, 10);
        ms = ms_until_gone(&bed, c);
        assert_in_range(ms, 20000, 20100);
        assert_true(sim_h2_said_goaway(c));
        assert_int_equal(sim_h2_goaway_error(c), NGHTTP2_NO_ERROR);
        assert_int_equal(sim_h2_error(c), 0);
        sim_h2_free(&c);

        c = client(&bed, k); /* asks for nothing */
        ms = ms_until_gone(&bed, c);
        assert_in_range(ms, 4900, 20100);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* The client says goodbye: what is under way is answered, and then the connection ends. */
static void test_goodbye_of_the_client(void **state)
{
    struct sim_answer slow = song;
    struct sim_bed bed = sim_bed_open_exact(10, 1, YAML);

    (void)state;
    slow.delay_ns = NS_PER_S;
    sim_origin_set(bed.origin, NULL, &slow);
    for (unsigned k = 0; k < 2; k++) {
        struct sim_h2 *c = client(&bed, k);

        sim_h2_get(c, k ? "/a" : "/b", NULL);
        sim_h2_get(c, "/p/c", NULL);
        sim_bed_run_ms(&bed, 100);
        sim_h2_bye(c);
        assert_true(ms_until_gone(&bed, c) < 3000);
        sim_bed_want_h2_body(&bed, c, 0, k ? "/a" : "/b", 1, 400000);
        sim_bed_want_h2_body(&bed, c, 1, "/p/c", 1, 400000);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

static void test_drain(void **state)
{
    struct sim_answer slow = song;

    (void)state;
    slow.delay_ns = NS_PER_S;
    for (unsigned i = 0; i < 4; i++) {
        bool hurry = i / 2;
        struct sim_bed bed = sim_bed_open_exact(11 + i, 2, YAML);
        struct sim_h2 *busy = client(&bed, i % 2), *idle = client(&bed, i % 2), *young;
        uint64_t began;

        sim_origin_set(bed.origin, NULL, &small);
        sim_origin_set(bed.origin, "/slow", &slow);
        sim_h2_get(busy, "/slow", NULL);
        sim_h2_get(idle, "/a", NULL);
        sim_bed_run_ms(&bed, 100);
        young = client(&bed, i % 2);
        (void)sim_run(bed.w, NULL, NULL, 250 * NS_PER_US); /* in its handshake, or its preface */
        sim_proxy_drain(bed.p, hurry);
        began = sim_now_ns(bed.w);
        assert_true(sim_run(bed.w, sim_proxy_is_over, bed.p, 60 * NS_PER_S));
        assert_true(sim_bed_ms_since(&bed, began) < (hurry ? 3500 : 6000));
        sim_bed_run_ms(&bed, 100);
        if (!sim_h2_gone(busy) || !sim_h2_gone(idle))
            sim_fail(bed.w, "case %u: busy gone %d, idle gone %d", i, sim_h2_gone(busy), sim_h2_gone(idle));
        assert_null(sim_h2_broken(busy));
        assert_null(sim_h2_broken(idle));
        assert_true(sim_h2_said_goaway(idle));
        if (!hurry) {
            assert_true(sim_h2_said_goaway(busy));
            sim_bed_want_h2_body(&bed, busy, 0, "/slow", 1, 400000);
            assert_int_equal(sim_h2_error(busy), 0);
        }
        sim_h2_free(&busy);
        sim_h2_free(&idle);
        sim_h2_free(&young);
        sim_bed_close(&bed);
    }
}

/* The answer breaks off: the stream says so, and the connection goes on. */
static void test_cut_upstream_bodies(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(15, 1, YAML);
    struct sim_answer cut = song;

    (void)state;
    sim_origin_set(bed.origin, NULL, &small);
    for (unsigned i = 0; i < 12; i++) {
        struct sim_h2 *c = client(&bed, i % 2);
        char path[32];

        snprintf(path, sizeof path, "/%s%u", i < 6 ? "" : "p/", i);
        cut.cut = SIM_CUT_IN_BODY;
        cut.cut_at = 100000;
        cut.cut_by_close = i % 2;
        cut.chunked = i % 3 == 1;
        cut.no_ranges = true;
        cut.etag = false;
        sim_origin_set(bed.origin, path, &cut);
        sim_h2_get(c, path, NULL);
        sim_bed_settle_h2(&bed, c, 60);
        if (sim_h2_reply(c, 0)->status == 200)
            want_cancelled(&bed, c, 0, false);
        assert_false(sim_h2_gone(c));
        sim_bed_run_ms(&bed, 12000); /* an upstream that fails has a rest */
        sim_h2_get(c, "/good", NULL);
        sim_bed_settle_h2(&bed, c, 60);
        sim_bed_want_h2_body(&bed, c, 1, "/good", 1, 2000);
        sim_h2_free(&c);
    }
    sim_bed_close(&bed);
}

/* --- everything breaks once --- */

/* One short exchange by HTTP/1.1 and one by HTTP/2, over TLS on both sides; the n-th try of an operation finds its
 * connection broken. Returns how many tries there were. */
static uint64_t exchange_that_breaks(uint64_t n, bool tls, bool rough)
{
    static const struct sim_faults faults = {.short_send_ppm = 200000,
                                             .short_recv_ppm = 300000,
                                             .recv_ends_ppm = 200000,
                                             .spurious_wake_ppm = 200000,
                                             .cancel_late_ppm = 500000};
    struct sim_bed bed = sim_bed_open_exact(20, 1, tls ? YAML_UPSTREAM : YAML);
    const struct sim_tls_options *kind = tls ? &tls13 : NULL;
    struct sim_h2 *h;
    struct sim_client *c;
    uint64_t tries;

    if (rough)
        *sim_faults(bed.w) = faults;
    sim_faults(bed.w)->break_at_try = n;
    if (tls)
        sim_origin_tls(bed.origin, &tls13);
    sim_origin_set(bed.origin, NULL, &(struct sim_answer){.body_bytes = 50000, .version = 1, .etag = true});
    h = sim_bed_h2(&bed, &(struct sim_h2_options){.tls = kind});
    c = sim_bed_client(&bed, &(struct sim_client_options){.tls = kind});
    sim_h2_get(h, "/a", NULL);
    sim_h2_ask(
        h, &(struct sim_h2_request){.method = "POST", .target = "/p/b", .body_id = 3, .body_bytes = 3000});
    sim_client_get(c, "/a", NULL);
    sim_client_get(c, "/p/c", NULL);
    sim_bed_settle_h2(&bed, h, 120);
    sim_bed_settle(&bed, c, 120);
    tries = sim_counts(bed.w)->tries;
    for (size_t i = 0; i < 4; i++) {
        const struct sim_reply *r = i < 2 ? sim_h2_reply(h, i) : sim_client_reply(c, i - 2);
        const char *path = i % 2 == 0 ? "/a" : i == 1 ? "/p/b" : "/p/c";

        if (r->malformed || (r->status == 200 && (sim_body_differs(sim_body_id(str_z(path), 1), 0, r->body.p,
                                                                   r->body.n) != r->body.n ||
                                                  (r->complete && r->body.n != 50000))))
            sim_fail(bed.w, "operation %llu breaks: reply %zu is wrong (%s)", (unsigned long long)n, i,
                     r->why != NULL ? r->why : "");
        if (n == UINT64_MAX)
            assert_true(r->status == 200 && r->complete);
    }
    sim_faults(bed.w)->break_at_try = 0;
    sim_h2_free(&h);
    sim_client_free(&c);
    sim_bed_run_ms(&bed, 12000);
    c = sim_bed_get(&bed, "/a", NULL);
    sim_bed_want_body(&bed, c, 0, "/a", 1, 50000);
    sim_client_free(&c);
    sim_bed_close(&bed);
    return tries;
}

static void test_every_operation_breaks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t tries = exchange_that_breaks(UINT64_MAX, i % 2, i / 2);

        assert_in_range(tries, 50, 2000);
        for (uint64_t n = 1; n <= tries; n++)
            (void)exchange_that_breaks(n, i % 2, i / 2);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_that_stay_shut),
        cmocka_unit_test(test_small_windows),
        cmocka_unit_test(test_a_shut_stream_among_others),
        cmocka_unit_test(test_a_cancelled_stream_leaves_its_fill),
        cmocka_unit_test(test_a_cancelled_stream_costs_nothing),
        cmocka_unit_test(test_cancelled_at_every_moment),
        cmocka_unit_test(test_a_slow_miss_holds_nobody),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_uploads),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_goodbye_of_the_client),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_cut_upstream_bodies),
        cmocka_unit_test(test_every_operation_breaks),
    };

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
