/* The proxy over TLS and HTTP/2: peers that leave, stall, flip bits or ask for too much at every moment, and what each
 * may cost. */
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
#define YAML SIM_YAML_LISTEN_ALL SIM_YAML_UPSTREAM SIM_YAML_MEMORY RULES

static const struct sim_answer song = {.body_bytes = 400000, .version = 1, .etag = true};
static const struct sim_tls_options tls13, tls12 = {.tls12 = true};

/* No chance in it: what happens at a moment happens at that moment. */
static struct sim_bed open_bed(uint64_t seed, unsigned workers, const char *yaml)
{
    struct sim_options options = sim_options_calm(seed);

    options.net.latency_ns = (struct sim_range){100 * NS_PER_US, 100 * NS_PER_US};
    options.net.send_buffer_bytes = options.net.receive_buffer_bytes = (struct sim_range){65536, 65536};
    options.net.segment_bytes = (struct sim_range){1460, 1460};
    return sim_bed_open(&options, workers, yaml);
}

static void test_one_of_each(void **state)
{
    struct sim_bed bed = open_bed(1, 1, YAML);
    const struct sim_tls_options *const kinds[] = {NULL, &tls13, &tls12};

    (void)state;
    sim_origin_set(bed.origin, "/a", &song);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct sim_client *c = sim_bed_client(&bed, &(struct sim_client_options){.tls = kinds[i]});
        struct sim_h2 *h = sim_bed_h2(&bed, &(struct sim_h2_options){.tls = kinds[i]});

        sim_client_get(c, "/a", NULL);
        sim_h2_get(h, "/a", NULL);
        sim_bed_settle(&bed, c, 10);
        sim_bed_settle_h2(&bed, h, 10);
        sim_bed_want_body(&bed, c, 0, "/a", 1, 400000);
        sim_bed_want_h2_body(&bed, h, 0, "/a", 1, 400000);
        sim_client_free(&c);
        sim_h2_free(&h);
    }
    sim_bed_close(&bed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_each),
    };

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
