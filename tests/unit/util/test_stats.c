#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/clock.h"
#include "util/stats.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void buckets_tile_all_values(void **state)
{
    (void)state;
    assert_int_equal(HISTOGRAM_BUCKETS, 512);
    assert_int_equal(histogram_bucket_start(0), 0);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t start = histogram_bucket_start(i), end = histogram_bucket_end(i);

        assert_true(end > start);
        assert_int_equal(histogram_bucket(start), i);
        assert_int_equal(histogram_bucket(end - 1), i);
        assert_int_equal(histogram_bucket(start + (end - start) / 2), i);
        if (i + 1 < HISTOGRAM_BUCKETS)
            assert_int_equal(histogram_bucket_start(i + 1), end);
        if (start >= 2048) /* beyond the linear part: at most a sixteenth of its values wide */
            assert_true((end - start) * 16 <= start);
    }
    assert_int_equal(histogram_bucket(UINT64_C(1) << 42), 511);
    assert_int_equal(histogram_bucket(UINT64_MAX), 511);
    assert_true(histogram_bucket(3600 * NS_PER_S) < 511); /* an hour is told exactly */
}

static void percentiles_bound_the_true_ones(void **state)
{
    static struct histogram h;

    (void)state;
    memset(&h, 0, sizeof h);
    assert_int_equal(histogram_percentile(&h, 0.5), 0);
    for (uint64_t i = 1; i <= 10000; i++)
        histogram_record(&h, i * 1000);
    assert_int_equal(histogram_count(&h), 10000);
    assert_int_equal(h.sum, 1000ull * 10000 * 10001 / 2);
    static const struct {
        double share;
        uint64_t value;
    } cases[] = {{0, 1000},       {0.0001, 1000},   {0.5, 5000000}, {0.9, 9000000},
                 {0.99, 9900000}, {0.999, 9990000}, {1, 10000000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t got = histogram_percentile(&h, cases[i].share);

        assert_true(got >= cases[i].value);
        assert_true(got <= cases[i].value + cases[i].value / 15 + 128);
    }
}

static void counts_to_a_bound_never_count_above_it(void **state)
{
    static struct histogram h;

    (void)state;
    memset(&h, 0, sizeof h);
    histogram_record(&h, 1000000); /* 1 ms */
    histogram_record(&h, 1000001);
    histogram_record(&h, 2000000);
    histogram_record(&h, UINT64_MAX / 2); /* the open bucket */
    assert_int_equal(histogram_count_to(&h, 0), 0);
    assert_true(histogram_count_to(&h, 1000000) <= 1);
    assert_int_equal(histogram_count_to(&h, 1999999), 2);
    assert_int_equal(histogram_count_to(&h, 2200000), 3);
    assert_int_equal(histogram_count_to(&h, UINT64_MAX), 3);
    /* A power of two less one is where a bucket ends: exact. */
    memset(&h, 0, sizeof h);
    histogram_record(&h, 65535);
    histogram_record(&h, 65536);
    assert_int_equal(histogram_count_to(&h, 65535), 1);
}

static void merge_and_subtract_are_exact(void **state)
{
    static struct histogram a, b, all;

    (void)state;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&all, 0, sizeof all);
    histogram_record(&a, 500);
    histogram_record(&a, 5000000);
    histogram_record(&b, 5000000);
    histogram_merge(&all, &a);
    histogram_merge(&all, &b);
    assert_int_equal(histogram_count(&all), 3);
    assert_int_equal(all.sum, 10000500);
    assert_int_equal(all.buckets[histogram_bucket(5000000)], 2);
    histogram_subtract(&all, &a);
    assert_memory_equal(&all, &b, sizeof b);
}

static void a_gauge_wraps_to_the_right_sum(void **state)
{
    uint64_t here = 0, there = 0;

    (void)state;
    stat_inc(&here);
    stat_inc(&here);
    stat_dec(&there);
    assert_int_equal(here + there, 1);
}

struct shared {
    uint64_t counter;
    struct histogram h;
    bool stop;
};

static void *write_on(void *arg)
{
    struct shared *s = arg;

    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        stat_inc(&s->counter);
        histogram_record(&s->h, 1000);
    }
    return NULL;
}

static void a_reader_sees_counters_only_rise(void **state)
{
    static struct shared s;
    pthread_t thread;
    uint64_t last = 0;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &s), 0);
    for (int i = 0; i < 2000 || last == 0; i++) {
        uint64_t now = stat_get(&s.counter);

        assert_true(now >= last);
        last = now;
        assert_true(histogram_count(&s.h) + 1 >= now); /* counter is written before the histogram */
    }
    __atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    assert_int_equal(histogram_count(&s.h), s.counter);
}

static void say_what_it_costs(void **state)
{
    static struct histogram h;
    uint64_t start_ns = clock_mono_ns(), x = 12345;

    (void)state;
    for (int i = 0; i < 1000000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        histogram_record(&h, x >> 36);
    }
    printf("histogram_record: %.1f ns\n", (double)(clock_mono_ns() - start_ns) / 1e6);
    assert_int_equal(histogram_count(&h), 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_tile_all_values),
        cmocka_unit_test(percentiles_bound_the_true_ones),
        cmocka_unit_test(counts_to_a_bound_never_count_above_it),
        cmocka_unit_test(merge_and_subtract_are_exact),
        cmocka_unit_test(a_gauge_wraps_to_the_right_sum),
        cmocka_unit_test(a_reader_sees_counters_only_rise),
        cmocka_unit_test(say_what_it_costs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
