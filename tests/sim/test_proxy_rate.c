/* Rate limits at exact moments, and connections an address, over two workers. */
#include "sim_proxy.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define RULES "rules: [{match: \"/**\", ttl: 60s}]\n"

static const struct sim_answer song = {.body_bytes = 3000, .version = 1, .etag = true};

/* No chance in it: an answer from memory takes no time. */
static struct sim_bed open_bed(uint64_t seed, unsigned workers, const char *yaml)
{
    struct sim_options options = sim_options_calm(seed);
    struct sim_bed bed;
    struct sim_client *c;

    options.net.latency_ns = (struct sim_range){100 * NS_PER_US, 100 * NS_PER_US};
    bed = sim_bed_open(&options, workers, yaml);
    sim_origin_set(bed.origin, "/a", &song);
    c = sim_bed_get(&bed, "/.segue/health", NULL);
    sim_client_free(&c);
    return bed;
}

/* Asks `n` times in one moment, on one connection; the answers have these statuses, and the last this Retry-After. */
static void ask(struct sim_bed *bed, unsigned n, const int *statuses, const char *retry_after)
{
    struct sim_client *c = sim_bed_client(bed, NULL);
    struct str given;

    for (unsigned i = 0; i < n; i++)
        sim_client_get(c, "/a", NULL);
    sim_bed_settle(bed, c, 10);
    for (unsigned i = 0; i < n; i++)
        sim_bed_want(bed, c, i, statuses[i]);
    given = sim_head_field(sim_client_reply(c, n - 1)->head, "Retry-After");
    if (retry_after == NULL)
        assert_null(given.p);
    else
        assert_true(str_eq(given, str_z(retry_after)));
    sim_client_free(&c);
}

static void test_a_rate_by_the_clock(void **state)
{
    struct sim_bed bed =
        open_bed(1, 1, SIM_YAML RULES "rate_limit: {per_address: 30/m, burst: 3}\n"); /* one in 2 s */

    (void)state;
    ask(&bed, 5, (int[]){200, 200, 200, 429, 429}, "2");
    sim_bed_run_ms(&bed, 1100);
    ask(&bed, 1, (int[]){429}, "1");
    sim_bed_run_ms(&bed, 1000);
    ask(&bed, 2, (int[]){200, 429}, "2");
    sim_bed_run_ms(&bed, 4000);
    ask(&bed, 3, (int[]){200, 200, 429}, "2");
    sim_bed_run_ms(&bed, 60000);
    ask(&bed, 4, (int[]){200, 200, 200, 429}, "2");
    assert_int_equal(SIM_PROXY_STAT(bed.p, rate_limited_address), 6);
    assert_int_equal(SIM_PROXY_STAT(bed.p, uncounted_requests), 0);
    sim_bed_close(&bed);
}

/* Retry-After has no parts of seconds, and 0 would be no wait. */
static void test_a_wait_is_rounded_up(void **state)
{
    struct sim_bed bed = open_bed(2, 1, SIM_YAML RULES "rate_limit: {per_address: 1000/s, burst: 1}\n");

    (void)state;
    ask(&bed, 1, (int[]){200}, NULL);
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 2, (int[]){200, 429}, "1");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 1, (int[]){200}, NULL);
    sim_bed_close(&bed);
}

static void test_a_reload_begins_anew(void **state)
{
    struct sim_bed bed = open_bed(3, 2, SIM_YAML RULES "rate_limit: {per_address: 1/h, burst: 1}\n");

    (void)state;
    ask(&bed, 2, (int[]){200, 429}, "3600");
    sim_proxy_reload(bed.p, SIM_YAML RULES "rate_limit: {per_address: 1/h, burst: 1}\n");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 1, (int[]){429}, "3600");
    sim_proxy_reload(bed.p, SIM_YAML RULES "rate_limit: {per_address: 1/m, burst: 1}\n");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 2, (int[]){200, 429}, "60");
    sim_proxy_reload(bed.p, SIM_YAML RULES "rate_limit: {per_address: 1/m, burst: 2}\n");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 3, (int[]){200, 200, 429}, "60");
    sim_proxy_reload(bed.p, SIM_YAML RULES "rate_limit: {per_address: 1/m, burst: 1}\n");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 1, (int[]){429}, "60"); /* as it was left */
    sim_proxy_reload(bed.p, SIM_YAML RULES "rate_limit: {per_address: 1/m, burst: 5}\n");
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 6, (int[]){200, 200, 200, 200, 200, 429}, "60");
    sim_proxy_reload(bed.p, SIM_YAML RULES);
    sim_bed_run_ms(&bed, 10);
    ask(&bed, 3, (int[]){200, 200, 200}, NULL);
    sim_bed_close(&bed);
}

static void test_connections_of_an_address(void **state)
{
    struct sim_bed bed = open_bed(4, 2, SIM_YAML RULES "rate_limit: {connections_per_address: 10}\n");
    struct sim_client *clients[15];
    unsigned gone = 0;

    (void)state;
    for (unsigned round = 1; round <= 20; round++, gone = 0) {
        for (size_t i = 0; i < ARRAY_LEN(clients); i++)
            clients[i] = sim_bed_client(&bed, NULL);
        sim_bed_run_ms(&bed, 100);
        for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
            gone += sim_client_gone(clients[i]);
            sim_client_free(&clients[i]); /* hangs up */
        }
        assert_int_equal(gone, 5);
        assert_int_equal(SIM_PROXY_STAT(bed.p, connections_refused_address), 5 * round);
        sim_bed_run_ms(&bed, 100);
    }
    assert_int_equal(SIM_PROXY_STAT(bed.p, connections_refused), 0);
    sim_bed_close(&bed); /* fails if any is still counted */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_rate_by_the_clock),
        cmocka_unit_test(test_a_wait_is_rounded_up),
        cmocka_unit_test(test_a_reload_begins_anew),
        cmocka_unit_test(test_connections_of_an_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
