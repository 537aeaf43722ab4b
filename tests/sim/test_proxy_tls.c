/* The proxy over TLS, on both sides: peers that leave, fall silent, flip bits or come in crowds at every moment of a
 * connection, what each costs, and that what is cut off is never taken for whole. */
#include "sim_proxy.h"
#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES                                                                                                \
    "rules: [{match: \"/p/**\", cache: false, methods: all}, {match: \"/**\", ttl: 60s, methods: all}]\n"
#define YAML          SIM_YAML_LISTEN_ALL SIM_YAML_UPSTREAM SIM_YAML_MEMORY RULES
#define YAML_UPSTREAM SIM_YAML_LISTEN_ALL SIM_YAML_UPSTREAM_TLS SIM_YAML_MEMORY RULES

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};
static const struct sim_answer small = {.body_bytes = 2000, .version = 1, .etag = true};
static const struct sim_tls_options tls13, tls12 = {.tls12 = true};

static void get_exact(struct sim_bed *bed, const struct sim_tls_options *tls, const char *path,
                      uint64_t bytes)
{
    struct sim_client *c = sim_bed_client(bed, &(struct sim_client_options){.tls = tls});

    sim_client_get(c, path, NULL);
    sim_bed_settle(bed, c, 60);
    sim_bed_want_body(bed, c, 0, path, 1, bytes);
    sim_client_free(&c);
}

static void test_one_of_each(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(1, 1, YAML);
    const struct sim_tls_options *const kinds[] = {NULL, &tls13, &tls12};

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct sim_h2 *h = sim_bed_h2(&bed, &(struct sim_h2_options){.tls = kinds[i]});

        sim_h2_get(h, "/a", NULL);
        sim_bed_settle_h2(&bed, h, 10);
        sim_bed_want_h2_body(&bed, h, 0, "/a", 1, 400000);
        sim_h2_free(&h);
        get_exact(&bed, kinds[i], "/a", 400000);
    }
    assert_int_equal(SIM_PROXY_STAT(bed.p, tls.handshakes_full), 4);
    assert_int_equal(SIM_PROXY_STAT(bed.p, tls.handshakes_tls12), 2);
    sim_bed_close(&bed);
}

/* A session of one worker is resumed at the other, and the keys outlive a reload. */
static void test_sessions_are_resumed(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(2, 2, YAML);
    struct sim_tls_options o[2] = {{.sessions = sim_tls_sessions_new()},
                                   {.tls12 = true, .sessions = sim_tls_sessions_new()}};

    (void)state;
    sim_origin_set(bed.origin, "/a", &small);
    for (unsigned i = 0; i < 20; i++) {
        struct sim_client *c = sim_bed_client(&bed, &(struct sim_client_options){.tls = &o[i % 2]});

        if (i == 10)
            sim_proxy_reload(bed.p, YAML);
        sim_client_get(c, "/a", NULL);
        sim_bed_settle(&bed, c, 60);
        sim_bed_want_body(&bed, c, 0, "/a", 1, 2000);
        if (sim_conn_tls_was_resumed(sim_client_conn(c)) != (i > 1))
            sim_fail(bed.w, "client %u is resumed: %d", i, i <= 1);
        sim_client_free(&c);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_true(bed.p->proxy.workers[i]->stats.tls.handshakes_resumed > 2);
        sim_tls_sessions_free(&o[i].sessions);
    }
    sim_bed_close(&bed);
}

/* ALPN: h2 where both have it, else http/1.1, else nothing; who offers only what is not there is refused (RFC 7301). */
static void test_alpn(void **state)
{
    static const struct {
        const char *offered, *chosen;
        bool http2, refused;
    } cases[] = {{"h2,http/1.1", "h2", true, false},
                 {"http/1.1,h2", "h2", true, false},
                 {"http/1.1", "http/1.1", true, false},
                 {NULL, "", true, false},
                 {"h2,http/1.1", "http/1.1", false, false},
                 {"http/1.1", "http/1.1", false, false},
                 {"spdy/3", "", true, true},
                 {"h2", "", false, true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sim_bed bed = sim_bed_open_exact(
            30, 1,
            cases[i].http2
                ? YAML
                : "listen: [{address: \"127.0.0.1:8443\", http2: false, tls: "
                  "{certificate: cert.pem, key: key.pem}}]\n" SIM_YAML_UPSTREAM SIM_YAML_MEMORY RULES);
        struct sim_tls_options tls = {.alpn = cases[i].offered};
        struct sim_client *c = sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls});

        sim_bed_run_ms(&bed, 100);
        assert_int_equal(sim_conn_tls_is_done(sim_client_conn(c)), !cases[i].refused);
        assert_int_equal(sim_client_gone(c), cases[i].refused);
        assert_string_equal(sim_conn_tls_alpn(sim_client_conn(c)), cases[i].chosen);
        sim_client_free(&c);
        sim_bed_close(&bed);
    }
}

/* --- handshakes that do not end --- */

static uint64_t ms_until_gone(struct sim_bed *bed, const struct sim_client_options *options)
{
    struct sim_client *c = sim_bed_client(bed, options);
    uint64_t began = sim_now_ns(bed->w);

    while (!sim_client_gone(c) && sim_bed_ms_since(bed, began) < 60000)
        sim_bed_run_ms(bed, 1);
    began = sim_bed_ms_since(bed, began);
    sim_client_free(&c);
    return began;
}

/* How many bytes the client sends before it waits for the server. */
static uint64_t hello_bytes(const struct sim_tls_options *tls)
{
    struct sim_options options = sim_options_calm(1);
    struct sim_world *w = sim_create(&options);
    struct sim_origin *o = sim_origin_new(w, "127.0.0.1", 443);
    struct sim_client *c = sim_client_new(w, "127.0.0.1", 443, &(struct sim_client_options){.tls = tls});
    uint64_t n;

    (void)sim_run(w, NULL, NULL, NS_PER_S);
    n = sim_conn_sent_total(sim_client_conn(c));
    sim_client_free(&c);
    sim_origin_free(&o);
    sim_destroy(&w);
    return n;
}

static void test_handshakes_that_do_not_end(void **state)
{
    struct sim_tls_options silent = {0};
    uint64_t hello = hello_bytes(&silent);
    /* Nothing, a byte, half a ClientHello, all but its end; all of it; a bit of what follows. */
    const struct {
        uint64_t bytes, ms;
    } cases[] = {{1, 5000},         {5, 5000},      {hello / 2, 5000},
                 {hello - 1, 5000}, {hello, 10000}, {hello + 10, 10000}};
    struct sim_bed bed =
        sim_bed_open_exact(3, 1, YAML "timeouts: {client_hello: 5s, client_handshake: 10s}\n");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        silent.silent_at = cases[i].bytes;
        assert_at_ms(ms_until_gone(&bed, &(struct sim_client_options){.tls = &silent}), cases[i].ms);
    }
    assert_at_ms(ms_until_gone(&bed, &(struct sim_client_options){.tls = &tls13, .write_rate = 40}), 5000);
    assert_int_equal(SIM_PROXY_STAT(bed.p, tls.handshakes_timeout), ARRAY_LEN(cases) + 1);
    assert_int_equal(SIM_PROXY_STAT(bed.p, tls.handshaking), 0);
    sim_bed_close(&bed);
}

static void test_silence_after_the_handshake(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(4, 1, YAML "timeouts: {client_head: 5s}\n");
    uint64_t ms = ms_until_gone(&bed, &(struct sim_client_options){.tls = &tls13});

    (void)state;
    assert_in_range(ms, 5000, 5050);
    assert_int_equal(SIM_PROXY_STAT(bed.p, tls.handshakes_full), 1);
    sim_bed_close(&bed);
}

/* Those who never end theirs hold all places, and lose them when they have stalled for a second: the others are
 * served all the same. */
static void test_a_crowd_at_the_gate(void **state)
{
    enum { CROWD = 28, HONEST = 20, PLACES = 8 };
    struct sim_tls_options silent = {.silent_at = hello_bytes(&tls13)};
    struct sim_bed bed = sim_bed_open_exact(5, 1, YAML "limits: {tls_handshakes_max: 8}\n");
    struct sim_client *crowd[CROWD], *honest[HONEST];
    uint64_t began = sim_now_ns(bed.w);

    (void)state;
    sim_origin_set(bed.origin, "/a", &small);
    for (size_t i = 0; i < CROWD; i++)
        crowd[i] = sim_bed_client(&bed, &(struct sim_client_options){.tls = &silent});
    for (size_t i = 0; i < HONEST; i++) {
        honest[i] = sim_bed_client(&bed, &(struct sim_client_options){.tls = i % 2 ? &tls13 : &tls12});
        sim_client_get(honest[i], "/a", NULL);
    }
    for (unsigned i = 0; i < 2000; i++) {
        sim_bed_run_ms(&bed, 1);
        assert_true(SIM_PROXY_STAT(bed.p, tls.handshaking) <= PLACES);
    }
    sim_bed_settle_all(&bed, honest, HONEST, 60);
    for (size_t i = 0; i < HONEST; i++) {
        sim_bed_want_body(&bed, honest[i], 0, "/a", 1, 2000);
        sim_client_free(&honest[i]);
    }
    assert_in_range(sim_bed_ms_since(&bed, began), 3000, 4500);
    assert_true(SIM_PROXY_STAT(bed.p, tls.handshakes_delayed) >= HONEST);
    sim_bed_run_ms(&bed, 15000);
    assert_int_equal(SIM_PROXY_STAT(bed.p, connections_open), 0);
    for (size_t i = 0; i < CROWD; i++) {
        assert_true(sim_client_gone(crowd[i]));
        sim_client_free(&crowd[i]);
    }
    sim_bed_close(&bed);
}

/* --- leaving at every moment --- */

/* The client of number n leaves at the n-th byte of those sent, or read. */
static void leave_everywhere(uint64_t seed, const struct sim_tls_options *tls, bool reads, bool closes,
                             uint64_t bytes, uint64_t step)
{
    struct sim_bed bed = sim_bed_open_exact(seed, 1, YAML);
    struct sim_client *c[64];
    size_t n = 0;

    sim_origin_set(bed.origin, "/a", &small);
    for (uint64_t at = 1; at < bytes; at += step) {
        struct sim_client_options o = {
            .tls = tls, .abort_at_bytes = reads ? at : 0, .abort_by_close = closes};

        c[n] = sim_bed_client(&bed, &o);
        if (!reads)
            sim_conn_reset_at(sim_client_conn(c[n]), UINT64_MAX, at);
        sim_client_get(c[n++], "/a", NULL);
        if (n < ARRAY_LEN(c) && at + step < bytes)
            continue;
        sim_bed_settle_all(&bed, c, n, 60);
        while (n > 0)
            sim_client_free(&c[--n]);
    }
    get_exact(&bed, tls, "/a", 2000);
    sim_bed_close(&bed);
}

static void test_resets_everywhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct sim_tls_options *tls = i == 0 ? &tls13 : &tls12;

        leave_everywhere(10 + i, tls, false, false, 700, 3);
        leave_everywhere(12 + i, tls, true, false, 4000, 11);
        leave_everywhere(14 + i, tls, true, true, 4000, 13);
    }
}

/* close_notify at every moment of the exchange. */
static void test_close_notify_everywhere(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(16, 1, YAML);
    unsigned whole = 0;

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (unsigned i = 0; i < 200; i++) {
        struct sim_client *c =
            sim_bed_client(&bed, &(struct sim_client_options){.tls = i % 2 ? &tls13 : &tls12});

        if (i >= 10)
            sim_client_get(c, "/a", NULL);
        sim_client_pause(c, i * 20 * NS_PER_US);
        sim_conn_close(sim_client_conn(c));
        sim_bed_settle(&bed, c, 60);
        whole += sim_client_asked(c) > 0 && sim_client_complete(c) > 0;
        sim_client_free(&c);
    }
    assert_true(whole > 0 && whole < 190);
    get_exact(&bed, &tls13, "/a", 400000);
    sim_bed_close(&bed);
}

/* Who has asked and says that nothing more comes is answered (RFC 8446, 6.1), and told that the answer is whole. */
static void test_half_close(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(17, 1, YAML);

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (unsigned i = 0; i < 2; i++) {
        struct sim_client *c = sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls13});

        sim_client_get(c, "/a", NULL);
        sim_client_get(c, "/a", NULL);
        sim_conn_end(sim_client_conn(c));
        sim_bed_settle(&bed, c, 60);
        sim_bed_want_body(&bed, c, 0, "/a", 1, 400000);
        sim_bed_want_body(&bed, c, 1, "/a", 1, 400000);
        sim_bed_run_ms(&bed, 100);
        assert_true(sim_client_gone(c));
        assert_int_equal(sim_client_error(c), 0); /* by close_notify: else -ECONNABORTED */
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

/* Closing on unread bytes would reset the connection, and take from a slow client what it has not read yet. */
static void test_what_follows_the_last_request(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(32, 1, YAML);
    const struct sim_tls_options *const kinds[] = {NULL, &tls13};

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (unsigned i = 0; i < 2; i++) {
        struct sim_client *c =
            sim_bed_client(&bed, &(struct sim_client_options){.tls = kinds[i], .read_rate = 1000000});

        sim_client_get(c, "/a", "Connection: close\r\n");
        for (unsigned k = 0; k < 1000; k++)
            sim_client_part(c, STR("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
        sim_bed_settle(&bed, c, 60);
        sim_bed_want_body(&bed, c, 0, "/a", 1, 400000);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

/* Who asks for new keys all the time, gets none after the end (the peer's end checks that nothing follows it). */
static void test_new_keys_at_the_end(void **state)
{
    struct sim_tls_options tls = {.key_update_ppm = 1000000, .key_update_asks = true};
    struct sim_bed bed = sim_bed_open_exact(31, 1, YAML);

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (unsigned i = 0; i < 10; i++) {
        /* Slow, so that what is sent at the end waits for room. */
        struct sim_client *c =
            sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls, .read_rate = 1000000});

        sim_client_get(c, "/a", "Connection: close\r\n");
        for (unsigned k = 0; k < 300; k++) {
            sim_client_pause(c, (1000 + i * 100) * NS_PER_US);
            sim_client_part(c, STR("x"));
        }
        sim_bed_settle(&bed, c, 60);
        sim_bed_want_body(&bed, c, 0, "/a", 1, 400000);
        sim_bed_run_ms(&bed, 100);
        sim_client_free(&c);
    }
    sim_bed_close(&bed);
}

/* An answer that breaks off must not end by close_notify, as if it were whole. */
static void test_a_cut_answer_has_no_close_notify(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(18, 1, YAML);
    struct sim_answer cut = song;
    struct sim_client *c;

    (void)state;
    cut.by_close = true, cut.cut = SIM_CUT_IN_BODY, cut.cut_at = 100000;
    sim_origin_set(bed.origin, "/p/a", &cut);
    c = sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls13});
    sim_client_request(c, STR("GET /p/a HTTP/1.0\r\nHost: h\r\n\r\n"), false);
    sim_bed_settle(&bed, c, 60);
    assert_int_equal(sim_client_reply(c, 0)->status, 200);
    assert_false(sim_client_reply(c, 0)->complete);
    assert_true(sim_client_error(c) != 0);
    sim_client_free(&c);
    sim_bed_close(&bed);
}

static void test_drain_among_handshakes(void **state)
{
    (void)state;
    for (unsigned hurry = 0; hurry < 2; hurry++) {
        struct sim_bed bed = sim_bed_open_exact(19 + hurry, 2, YAML);
        struct sim_client *c[40];
        uint64_t began;

        sim_origin_set(bed.origin, "/a", &song);
        for (size_t i = 0; i < ARRAY_LEN(c); i++) {
            struct sim_tls_options tls = {.silent_at = i % 3 == 0 ? 1 + i * 20 : 0};

            c[i] = sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls});
            sim_client_get(c[i], "/a", NULL);
        }
        (void)sim_run(bed.w, NULL, NULL, 700 * NS_PER_US);
        sim_proxy_drain(bed.p, hurry);
        began = sim_now_ns(bed.w);
        assert_true(sim_run(bed.w, sim_proxy_is_over, bed.p, 60 * NS_PER_S));
        assert_true(sim_bed_ms_since(&bed, began) < (hurry ? 3000 : 13000));
        for (size_t i = 0; i < ARRAY_LEN(c); i++)
            sim_client_free(&c[i]);
        sim_bed_close(&bed);
    }
}

/* --- flipped bits --- */

static void test_flipped_bits(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(21, 1, YAML);
    unsigned whole = 0, n = 0;

    (void)state;
    sim_origin_set(bed.origin, "/a", &small);
    for (uint64_t at = 1; at < 4000; at += at < 800 ? 3 : 41, n++) {
        struct sim_tls_options tls = {.tls12 = n % 2};
        struct sim_client *c;
        const struct sim_reply *r;

        *(n % 4 < 2 && at < 800 ? &tls.flip_sent_at : &tls.flip_read_at) = at;
        c = sim_bed_client(&bed, &(struct sim_client_options){.tls = &tls});
        sim_client_get(c, "/a", NULL);
        sim_bed_settle(&bed, c, 60);
        r = sim_client_reply(c, 0);
        whole += r->complete;
        if (r->status == 200 &&
            sim_body_differs(sim_body_id(STR("/a"), 1), 0, r->body.p, r->body.n) != r->body.n)
            sim_fail(bed.w, "a flipped bit, and a wrong byte");
        assert_true(r->status == 0 || r->status == 200);
        sim_client_free(&c);
    }
    assert_true(whole < n / 3);
    get_exact(&bed, &tls13, "/a", 2000);
    sim_bed_close(&bed);
}

/* --- upstreams --- */

static void want_status(struct sim_bed *bed, const char *path, int status)
{
    struct sim_client *c = sim_bed_get(bed, path, NULL);

    sim_bed_want(bed, c, 0, status);
    sim_client_free(&c);
}

static void test_upstreams(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(22, 1, YAML_UPSTREAM);
    char path[16];

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct sim_tls_options tls = {
            .tls12 = i % 2, .alpn = i < 2 ? NULL : "http/1.1", .record_bytes = i * 1000};

        snprintf(path, sizeof path, "/a%u", i);
        sim_origin_tls(bed.origin, &tls);
        sim_origin_set(bed.origin, path, &song);
        get_exact(&bed, &tls13, path, 400000);
        get_exact(&bed, NULL, path, 400000);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 6);
    sim_bed_close(&bed);
}

static void test_strange_upstreams(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(23, 1, YAML_UPSTREAM "timeouts: {upstream_connect: 2s}\n");
    struct sim_tls_options tls = {.stranger = true};

    (void)state;
    sim_origin_set(bed.origin, NULL, &small);
    sim_origin_tls(bed.origin, &tls);
    want_status(&bed, "/a", 502);
    sim_origin_tls(bed.origin, NULL); /* speaks no TLS, and waits for the end of a head */
    want_status(&bed, "/b", 504);
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 0);
    tls = (struct sim_tls_options){.silent_at = 300};
    sim_origin_tls(bed.origin, &tls);
    {
        uint64_t began = sim_now_ns(bed.w);
        struct sim_client *c = sim_bed_get(&bed, "/c", NULL);

        assert_true(sim_client_reply(c, 0)->status == 504 || sim_client_reply(c, 0)->status == 502);
        assert_true(sim_bed_ms_since(&bed, began) < 10000);
        sim_client_free(&c);
    }
    assert_int_equal(sim_origin_requests(bed.origin, NULL), 0);
    assert_true(SIM_PROXY_STAT(bed.p, tls.client_handshakes_failed) >= 2);
    sim_bed_close(&bed);
}

/* Wherever it is cut: not stored, and the client sees it. A body that ends with its connection is never stored. */
static void test_cut_upstream_bodies_are_not_stored(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(24, 1, YAML_UPSTREAM);
    struct sim_tls_options tls = {0};
    struct sim_answer cut = {.body_bytes = 20000, .version = 1, .etag = true, .cut = SIM_CUT_IN_BODY};
    struct sim_answer whole = {.body_bytes = 20000, .version = 1, .etag = true};
    unsigned n = 0;

    (void)state;
    sim_origin_tls(bed.origin, &tls);
    for (uint64_t at = 0; at < 20000; at += 1 + at, n++) {
        for (unsigned kind = 0; kind < 6; kind++) {
            struct sim_client *c;
            char path[32];

            snprintf(path, sizeof path, "/a%u.%u", n, kind);
            cut.cut_at = at;
            cut.by_close = whole.by_close = kind % 3 == 0;
            cut.chunked = whole.chunked = kind % 3 == 1;
            cut.cut_by_close = kind < 3;
            sim_origin_next(bed.origin, path, &cut, 2); /* a retry meets the same */
            sim_origin_set(bed.origin, path, &whole);
            c = sim_bed_get(&bed, path, NULL);
            if (sim_client_reply(c, 0)->status == 200 && sim_client_reply(c, 0)->complete)
                sim_fail(bed.w, "%s: cut at %llu, and taken for whole", path, (unsigned long long)at);
            sim_client_free(&c);
            while (sim_origin_requests(bed.origin, path) < 2) {
                c = sim_bed_get(&bed, path, NULL);
                sim_client_free(&c);
            }
            sim_bed_run_ms(&bed, 12000); /* an upstream that fails has a rest */
            get_exact(&bed, NULL, path, 20000);
            get_exact(&bed, NULL, path, 20000);
            if (kind % 3 != 0 && sim_origin_requests(bed.origin, path) != 3)
                sim_fail(bed.w, "%s, cut at %llu: %llu requests", path, (unsigned long long)at,
                         (unsigned long long)sim_origin_requests(bed.origin, path));
        }
    }
    sim_bed_close(&bed);
}

/* Every bit of what the origin sends, through to the client. */
static void test_bits_flipped_upstream(void **state)
{
    struct sim_bed bed = sim_bed_open_exact(25, 1, YAML_UPSTREAM);
    unsigned whole = 0, n = 0;
    char path[32];

    (void)state;
    sim_origin_set(bed.origin, NULL,
                   &(struct sim_answer){.body_bytes = 3000, .version = 1, .by_close = true});
    for (uint64_t at = 1; at < 5000; at += at < 1000 ? 7 : 31, n++) {
        struct sim_tls_options tls = {.tls12 = n % 2, .flip_sent_at = at};
        struct sim_client *c;
        const struct sim_reply *r;

        sim_origin_tls(bed.origin, &tls);
        snprintf(path, sizeof path, "/a%u", n);
        c = sim_bed_get(&bed, path, NULL);
        r = sim_client_reply(c, 0);
        whole += r->status == 200 && r->complete;
        if (r->status == 200 &&
            (sim_body_differs(sim_body_id(str_z(path), 1), 0, r->body.p, r->body.n) != r->body.n ||
             (r->complete && r->body.n != 3000)))
            sim_fail(bed.w, "a bit flipped at %llu, and a wrong byte", (unsigned long long)at);
        sim_client_free(&c);
        sim_bed_run_ms(&bed, 1000);
    }
    assert_true(whole < n / 4);
    sim_bed_close(&bed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_each),
        cmocka_unit_test(test_sessions_are_resumed),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_handshakes_that_do_not_end),
        cmocka_unit_test(test_silence_after_the_handshake),
        cmocka_unit_test(test_a_crowd_at_the_gate),
        cmocka_unit_test(test_resets_everywhere),
        cmocka_unit_test(test_close_notify_everywhere),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_what_follows_the_last_request),
        cmocka_unit_test(test_new_keys_at_the_end),
        cmocka_unit_test(test_a_cut_answer_has_no_close_notify),
        cmocka_unit_test(test_drain_among_handshakes),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_upstreams),
        cmocka_unit_test(test_strange_upstreams),
        cmocka_unit_test(test_cut_upstream_bodies_are_not_stored),
        cmocka_unit_test(test_bits_flipped_upstream),
    };

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
