/* One fill, many readers: collapsing, what becomes of readers when the origin fails, freshness, and who waits for
 * whom. Each is exact: so many requests upstream, these bytes, this second. */
#include "sim_proxy.h"
#include "util/log.h"

#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define RULES "rules: [{match: \"/**\", ttl: 60s}]\n"

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};

/* --- collapsing --- */

static void collapse(unsigned workers)
{
    struct sim_options options = sim_options_calm(workers);
    struct sim_bed bed = sim_bed_open(&options, workers, SIM_YAML RULES);
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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousand_clients_make_one_request),
    };

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
