/* TLS of scripted peers, a client against an origin, without a program between them: that it goes through the
 * network's faults, replays, and that what is wrong in it shows. */
#include "sim_http.h"
#include "sim_tls.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS 150u
#define BYTES 20000u
#define PORT  443

struct exchange {
    bool done, resumed, complete;
    int error;
    uint64_t hash, ciphertext;
};

struct pair {
    struct sim_tls_options client, origin;
    const struct sim_answer *answer;
    bool rough;
};

static struct exchange run(uint64_t seed, const struct pair *p)
{
    struct sim_options options = p->rough ? sim_options_rough(seed) : sim_options_calm(seed);
    struct sim_world *w = sim_create(&options);
    struct sim_origin *origin = sim_origin_new(w, "127.0.0.1", PORT);
    struct sim_answer answer = {.body_bytes = BYTES, .version = 1};
    struct exchange out = {0};
    struct sim_client *c;

    if (p->answer != NULL)
        answer = *p->answer;
    sim_origin_tls(origin, &p->origin);
    sim_origin_set(origin, "/a", &answer);
    c = sim_client_new(w, "127.0.0.1", PORT, &(struct sim_client_options){.tls = &p->client});
    sim_client_get(c, "/a", NULL);
    sim_run(w, sim_client_settled, c, 300 * NS_PER_S);
    (void)sim_run(w, NULL, NULL, NS_PER_S);
    out.done = sim_conn_tls_is_done(sim_client_conn(c));
    out.resumed = sim_conn_tls_was_resumed(sim_client_conn(c));
    out.complete = sim_client_complete(c) == 1;
    out.error = sim_client_error(c);
    out.ciphertext = sim_conn_read_total(sim_client_conn(c));
    if (out.complete) {
        const struct sim_reply *r = sim_client_reply(c, 0);

        assert_int_equal(r->status, 200);
        assert_int_equal(r->body.n, BYTES);
    }
    assert_int_equal(sim_client_surplus(c), 0);
    {
        const struct sim_reply *r = sim_client_reply(c, 0);

        assert_false(r->malformed);
        assert_int_equal(sim_body_differs(sim_body_id(STR("/a"), 1), 0, r->body.p, r->body.n), r->body.n);
    }
    out.hash = sim_trace_hash(w);
    sim_client_free(&c);
    sim_origin_free(&origin);
    sim_destroy(&w);
    return out;
}

static struct pair random_pair(uint64_t seed)
{
    struct sim_options options = sim_options_calm(seed);
    struct sim_world *w = sim_create(&options);
    struct pair p = {.rough = true};

    p.client = sim_tls_options_random(w);
    p.origin = sim_tls_options_random(w);
    p.client.suite = p.origin.suite;
    sim_destroy(&w);
    return p;
}

static void test_goes_through_faults_and_replays(void **state)
{
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
        struct pair p = random_pair(seed);
        struct exchange one = run(seed, &p), two;

        if (!one.done || !one.complete) {
            fprintf(stderr, "seed %llu: done %d, complete %d, error %d\n", (unsigned long long)seed, one.done,
                    one.complete, one.error);
            fail();
        }
        two = run(seed, &p);
        assert_int_equal(one.hash, two.hash);
        assert_true(one.ciphertext > BYTES);
    }
}

static void test_sessions_are_resumed(void **state)
{
    (void)state;
    for (int tls12 = 0; tls12 < 2; tls12++) {
        struct pair p = {.client = {.tls12 = tls12, .sessions = sim_tls_sessions_new()}};
        struct sim_options options = sim_options_calm(1);
        struct sim_world *w = sim_create(&options);
        struct sim_origin *origin = sim_origin_new(w, "127.0.0.1", PORT);

        /* In one world: another has other ticket keys. */
        sim_origin_tls(origin, &p.origin);
        for (int i = 0; i < 2; i++) {
            struct sim_client *c =
                sim_client_new(w, "127.0.0.1", PORT, &(struct sim_client_options){.tls = &p.client});

            sim_client_get(c, "/a", NULL);
            assert_true(sim_run(w, sim_client_settled, c, 10 * NS_PER_S));
            assert_int_equal(sim_client_reply(c, 0)->status, 404);
            assert_int_equal(sim_conn_tls_was_resumed(sim_client_conn(c)), i == 1);
            sim_client_free(&c);
        }
        sim_origin_free(&origin);
        sim_destroy(&w);
        sim_tls_sessions_free(&p.client.sessions);
    }
}

static void test_strangers_are_refused(void **state)
{
    struct pair p = {.origin = {.stranger = true}};
    struct exchange e = run(2, &p);

    (void)state;
    assert_int_equal(e.error, -EPROTO);
    p = (struct pair){.client = {.name = "another.test"}};
    e = run(2, &p);
    assert_int_equal(e.error, -EPROTO);
    p = (struct pair){.client = {.name = "127.0.0.1"}};
    assert_true(run(2, &p).complete);
    p = (struct pair){.client = {.name = "a.example.net"}};
    assert_true(run(2, &p).complete);
}

static void test_a_cut_shows(void **state)
{
    struct sim_answer answer = {.body_bytes = BYTES, .version = 1, .by_close = true};
    struct pair p = {.answer = &answer};
    struct exchange e;

    (void)state;
    e = run(3, &p);
    assert_true(e.complete); /* by close_notify */
    assert_int_equal(e.error, 0);
    answer.cut = SIM_CUT_IN_BODY, answer.cut_at = 1000, answer.cut_by_close = true;
    e = run(3, &p);
    assert_false(e.complete);
    assert_int_equal(e.error, -ECONNABORTED);
    answer.cut = SIM_CUT_NONE;
    p.origin.no_close_notify = true;
    e = run(3, &p);
    assert_false(e.complete);
    assert_int_equal(e.error, -ECONNABORTED);
}

/* Whichever byte: never a wrong one in the answer (run checks that). */
static void test_flipped_bits(void **state)
{
    unsigned broken = 0;

    (void)state;
    for (uint64_t at = 1; at < BYTES + 3000; at += at < 3000 ? 7 : 997) {
        struct pair p = random_pair(at);

        p.client.flip_read_at = at;
        broken += !run(at, &p).complete;
        p.client.flip_read_at = 0;
        p.client.flip_sent_at = at;
        if (at < 800) /* more than a client sends */
            broken += !run(at, &p).complete;
    }
    assert_true(broken > 300);
}

static void test_silence(void **state)
{
    struct pair p = {.client = {.silent_at = 100}};
    struct exchange e = run(4, &p);

    (void)state;
    assert_false(e.done);
    assert_int_equal(e.error, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_through_faults_and_replays),
        cmocka_unit_test(test_sessions_are_resumed),
        cmocka_unit_test(test_strangers_are_refused),
        cmocka_unit_test(test_a_cut_shows),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_silence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
