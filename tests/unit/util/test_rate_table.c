/* The algorithm by its formula, places that become free with time, a line that is full, and threads that race. */
#include "util/rate_table.h"

#include "../unit.h"

#include <pthread.h>
#include <stdatomic.h>

#define S 1000000000ull

static struct rate_table *table;

static int setup(void **state)
{
    (void)state;
    table = rate_table_create(RATE_TABLE_ENTRIES_MIN);
    return table == NULL;
}

static int teardown(void **state)
{
    (void)state;
    rate_table_destroy(&table);
    return table != NULL;
}

/* The line is in `high`, the tag in `low`. */
static enum rate_verdict take(uint64_t line, uint64_t tag, struct rate rate, uint64_t now_ns,
                              uint64_t *wait_ns)
{
    return rate_table_take(table, (struct hash128){.low = tag, .high = line}, rate, now_ns, wait_ns);
}

static void burst_then_rate(void **state)
{
    const struct rate rate = {.interval_ns = S / 50, .burst = 100};
    const uint64_t t0 = 12345 * S;
    uint64_t wait;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(take(1, 7, rate, t0, &wait), RATE_WITHIN);
        assert_int_equal(wait, 0);
    }
    assert_int_equal(take(1, 7, rate, t0, &wait), RATE_OVER);
    assert_int_equal(wait, S / 50);
    /* What is refused costs nothing. */
    assert_int_equal(take(1, 7, rate, t0, &wait), RATE_OVER);
    assert_int_equal(wait, S / 50);
    assert_int_equal(take(1, 7, rate, t0 + S / 50 - 1, &wait), RATE_OVER);
    assert_int_equal(wait, 1);
    for (unsigned i = 1; i <= 200; i++) { /* exactly at the rate, for ever */
        assert_int_equal(take(1, 7, rate, t0 + i * (S / 50), &wait), RATE_WITHIN);
        assert_int_equal(take(1, 7, rate, t0 + i * (S / 50), &wait), RATE_OVER);
    }
    /* After rest it is a whole burst again, and not more. */
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(take(1, 7, rate, t0 + 1000 * S, &wait), RATE_WITHIN);
    assert_int_equal(take(1, 7, rate, t0 + 1000 * S, &wait), RATE_OVER);
}

static void part_of_a_burst_comes_back(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 10};
    uint64_t wait;

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(take(2, 1, rate, 100 * S, &wait), RATE_WITHIN);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(take(2, 1, rate, 103 * S, &wait), RATE_WITHIN);
    assert_int_equal(take(2, 1, rate, 103 * S + 1, &wait), RATE_OVER);
    assert_int_equal(wait, S - 1);
}

static void no_burst(void **state)
{
    const struct rate rate = {.interval_ns = 10 * S, .burst = 1};
    uint64_t wait;

    (void)state;
    assert_int_equal(take(3, 1, rate, 5, &wait), RATE_WITHIN);
    assert_int_equal(take(3, 1, rate, 5, &wait), RATE_OVER);
    assert_int_equal(wait, 10 * S);
    assert_int_equal(take(3, 1, rate, 10 * S + 4, &wait), RATE_OVER);
    assert_int_equal(take(3, 1, rate, 10 * S + 5, &wait), RATE_WITHIN);
}

static void the_slowest_and_the_most(void **state)
{
    const struct rate rate = {.interval_ns = RATE_INTERVAL_NS_MAX, .burst = RATE_BURST_MAX};
    const uint64_t now = 30ull * 365 * 86400 * S; /* up for thirty years */
    uint64_t wait;

    (void)state;
    for (unsigned i = 0; i < RATE_BURST_MAX; i++)
        assert_int_equal(take(4, 1, rate, now, &wait), RATE_WITHIN);
    assert_int_equal(take(4, 1, rate, now, &wait), RATE_OVER);
    assert_int_equal(wait, RATE_INTERVAL_NS_MAX);
}

/* Another thread's clock may be a little behind: a key is never better off for it. */
static void time_that_goes_back(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 2};
    uint64_t wait;

    (void)state;
    assert_int_equal(take(5, 1, rate, 100 * S, &wait), RATE_WITHIN);
    assert_int_equal(take(5, 1, rate, 100 * S, &wait), RATE_WITHIN);
    assert_int_equal(take(5, 1, rate, 100 * S - 1000, &wait), RATE_OVER);
    assert_int_equal(wait, S + 1000);
}

static void places_become_free(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 3};
    uint64_t wait;

    (void)state;
    for (uint64_t tag = 1; tag <= RATE_TABLE_WAYS; tag++)
        assert_int_equal(take(6, tag, rate, 100 * S, &wait), RATE_WITHIN);
    /* All are active: another is let pass as often as it likes, and the four stay what they are. */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(take(6, 99, rate, 100 * S, &wait), RATE_UNKNOWN);
    assert_int_equal(wait, 0);
    for (uint64_t tag = 1; tag <= RATE_TABLE_WAYS; tag++) {
        assert_int_equal(take(6, tag, rate, 100 * S, &wait), RATE_WITHIN);
        assert_int_equal(take(6, tag, rate, 100 * S, &wait), RATE_WITHIN);
        assert_int_equal(take(6, tag, rate, 100 * S, &wait), RATE_OVER);
    }
    /* A line beside it has places. */
    assert_int_equal(take(7, 99, rate, 100 * S, &wait), RATE_WITHIN);
    /* Their time is past at 103 s, not before; then all four go to others, who begin anew. */
    assert_int_equal(take(6, 99, rate, 103 * S - 1, &wait), RATE_UNKNOWN);
    for (uint64_t tag = 11; tag < 11 + RATE_TABLE_WAYS; tag++) {
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(take(6, tag, rate, 103 * S, &wait), RATE_WITHIN);
        assert_int_equal(take(6, tag, rate, 103 * S, &wait), RATE_OVER);
    }
    assert_int_equal(take(6, 1, rate, 103 * S, &wait), RATE_UNKNOWN);
}

/* As many keys as places, spread by the real hash: most find one, and each that does is counted by itself. */
static void many_keys(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 2};
    unsigned known = 0;

    (void)state;
    hash_init_fixed(1);
    for (uint32_t i = 0; i < RATE_TABLE_ENTRIES_MIN; i++) {
        struct hash128 key = hash_of(str_of((const char *)&i, sizeof i));
        uint64_t wait;
        enum rate_verdict v = rate_table_take(table, key, rate, 500 * S, &wait);

        if (v == RATE_UNKNOWN)
            continue;
        known++;
        assert_int_equal(v, RATE_WITHIN);
        assert_int_equal(rate_table_take(table, key, rate, 500 * S, &wait), RATE_WITHIN);
        assert_int_equal(rate_table_take(table, key, rate, 500 * S, &wait), RATE_OVER);
    }
    assert_in_range(known, RATE_TABLE_ENTRIES_MIN * 3 / 4, RATE_TABLE_ENTRIES_MIN);
}

static void sizes(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 1};
    struct rate_table *t = rate_table_create(5000); /* becomes 8,192: 2,048 lines */
    uint64_t wait;

    (void)state;
    assert_int_equal(rate_table_take(t, (struct hash128){.high = 0, .low = 1}, rate, S, &wait), RATE_WITHIN);
    assert_int_equal(rate_table_take(t, (struct hash128){.high = 2047, .low = 1}, rate, S, &wait),
                     RATE_WITHIN);
    assert_int_equal(rate_table_take(t, (struct hash128){.high = 2048, .low = 1}, rate, S, &wait), RATE_OVER);
    rate_table_destroy(&t);
    assert_null(t);
}

/* --- threads --- */

#define THREADS 4

struct race {
    pthread_barrier_t *barrier;
    const struct rate *rate;
    uint64_t line, now_ns;
    unsigned tags_n, events_n;
    unsigned within, over, unknown;
};

static void *racer(void *argument)
{
    struct race *r = argument;

    pthread_barrier_wait(r->barrier);
    for (unsigned i = 0; i < r->events_n; i++) {
        uint64_t wait;
        enum rate_verdict v = take(r->line, 1 + i % r->tags_n, *r->rate, r->now_ns, &wait);

        r->within += v == RATE_WITHIN;
        r->over += v == RATE_OVER;
        r->unknown += v == RATE_UNKNOWN;
    }
    return NULL;
}

static struct race run_race(struct race each)
{
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    struct race races[THREADS], sum = {0};

    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    each.barrier = &barrier;
    for (unsigned i = 0; i < THREADS; i++) {
        races[i] = each;
        assert_int_equal(pthread_create(&threads[i], NULL, racer, &races[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum.within += races[i].within;
        sum.over += races[i].over;
        sum.unknown += races[i].unknown;
    }
    pthread_barrier_destroy(&barrier);
    return sum;
}

/* Keys that have their places: what all threads together get is the burst, to the event. */
static void threads_share_one_limit(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 10000};
    uint64_t wait;
    struct race sum;

    (void)state;
    for (uint64_t tag = 1; tag <= RATE_TABLE_WAYS; tag++)
        assert_int_equal(take(9, tag, rate, S, &wait), RATE_WITHIN);
    sum = run_race(
        (struct race){.rate = &rate, .line = 9, .now_ns = S, .tags_n = RATE_TABLE_WAYS, .events_n = 50000});
    assert_int_equal(sum.within, RATE_TABLE_WAYS * (rate.burst - 1));
    assert_int_equal(sum.over, THREADS * 50000 - sum.within);
    assert_int_equal(sum.unknown, 0);
}

/* More keys than places, all new: a place never lets more through than a burst, whoever takes it from whom. */
static void threads_race_for_places(void **state)
{
    const struct rate rate = {.interval_ns = S, .burst = 50};
    const unsigned tags = 2 * RATE_TABLE_WAYS;

    (void)state;
    for (unsigned round = 1; round <= 500; round++) {
        /* Every round is long after the last: all places are free again. */
        struct race sum = run_race((struct race){
            .rate = &rate, .line = 10, .now_ns = round * 1000 * S, .tags_n = tags, .events_n = tags * 100});

        assert_int_equal(sum.within + sum.over + sum.unknown, THREADS * tags * 100);
        /* A key that two threads gave a place each asks only at the first: then it is a little less. */
        assert_in_range(sum.within, RATE_TABLE_WAYS / 2 * rate.burst, RATE_TABLE_WAYS * rate.burst);
        assert_true(sum.unknown > 0 && sum.over > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(burst_then_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(part_of_a_burst_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(no_burst, setup, teardown),
        cmocka_unit_test_setup_teardown(the_slowest_and_the_most, setup, teardown),
        cmocka_unit_test_setup_teardown(time_that_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(places_become_free, setup, teardown),
        cmocka_unit_test_setup_teardown(many_keys, setup, teardown),
        cmocka_unit_test(sizes),
        cmocka_unit_test_setup_teardown(threads_share_one_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_race_for_places, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
