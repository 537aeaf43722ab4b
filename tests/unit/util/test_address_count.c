/* Limits, places that are full, and that nothing is ever left over, also when threads race. */
#include "util/address_count.h"

#include "../unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static struct address_count *table;

static int setup(void **state)
{
    (void)state;
    table = address_count_create(1);
    return table == NULL;
}

static int teardown(void **state)
{
    (void)state;
    address_count_destroy(&table);
    return table != NULL;
}

/* The line is in `high`, the tag in the upper bits of `low`. */
static struct hash128 key_of(uint64_t line, uint64_t tag)
{
    return (struct hash128){.low = tag << 20 | 0xabcde, .high = line};
}

static void counts_to_the_maximum(void **state)
{
    uint32_t slots[4], other;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(address_count_enter(table, key_of(1, 1), 3, &slots[i]), 0);
        assert_int_not_equal(slots[i], 0);
    }
    slots[3] = 77;
    assert_int_equal(address_count_enter(table, key_of(1, 1), 3, &slots[3]), -EUSERS);
    assert_int_equal(slots[3], 0);
    assert_int_equal(address_count_enter(table, key_of(1, 2), 3, &other),
                     0); /* another key of the same line */
    assert_int_equal(address_count_sum(table), 4);
    address_count_leave(table, &slots[3]); /* was refused: has nothing to give back */
    assert_int_equal(address_count_sum(table), 4);
    address_count_leave(table, &slots[1]);
    assert_int_equal(slots[1], 0);
    address_count_leave(table, &slots[1]); /* has left */
    assert_int_equal(address_count_sum(table), 3);
    assert_int_equal(address_count_enter(table, key_of(1, 1), 3, &slots[1]), 0);
    assert_int_equal(address_count_enter(table, key_of(1, 1), 3, &slots[3]), -EUSERS);
    /* A maximum that has become another one counts from now on. */
    assert_int_equal(address_count_enter(table, key_of(1, 1), 4, &slots[3]), 0);
    for (unsigned i = 0; i < 4; i++)
        address_count_leave(table, &slots[i]);
    address_count_leave(table, &other);
    assert_int_equal(address_count_sum(table), 0);
}

static void a_line_that_is_full(void **state)
{
    uint32_t slots[ADDRESS_COUNT_WAYS], slot;

    (void)state;
    for (unsigned i = 0; i < ADDRESS_COUNT_WAYS; i++)
        assert_int_equal(address_count_enter(table, key_of(2, i), 9, &slots[i]),
                         0); /* tag 0 is one like others */
    assert_int_equal(address_count_enter(table, key_of(2, 99), 9, &slot), -ENOSPC);
    assert_int_equal(slot, 0);
    assert_int_equal(address_count_enter(table, key_of(3, 99), 9, &slot), 0);
    address_count_leave(table, &slot);
    address_count_leave(table, &slots[5]);
    assert_int_equal(address_count_enter(table, key_of(2, 99), 1, &slot), 0);
    assert_int_equal(address_count_enter(table, key_of(2, 5), 9, &slots[5]), -ENOSPC);
    address_count_leave(table, &slot);
    for (unsigned i = 0; i < ADDRESS_COUNT_WAYS; i++)
        address_count_leave(table, &slots[i]);
    assert_int_equal(address_count_sum(table), 0);
}

static void the_most_that_can_be_counted(void **state)
{
    uint32_t *slots = calloc(ADDRESS_COUNT_MAX, sizeof *slots), slot;

    (void)state;
    assert_non_null(slots);
    for (unsigned i = 0; i < ADDRESS_COUNT_MAX; i++)
        assert_int_equal(address_count_enter(table, key_of(4, 5), ADDRESS_COUNT_MAX, &slots[i]), 0);
    assert_int_equal(address_count_enter(table, key_of(4, 5), ADDRESS_COUNT_MAX, &slot), -EUSERS);
    assert_int_equal(address_count_sum(table), ADDRESS_COUNT_MAX);
    for (unsigned i = 0; i < ADDRESS_COUNT_MAX; i++)
        address_count_leave(table, &slots[i]);
    assert_int_equal(address_count_sum(table), 0);
    free(slots);
}

/* --- threads --- */

#define THREADS 4
#define HELD    8
#define MAX     10
#define TAGS    10 /* more than a line has places */

static _Atomic unsigned inside[TAGS];

struct racer {
    pthread_barrier_t *barrier;
    uint64_t random;
    unsigned highest, entered, refused, full;
};

static uint64_t next(struct racer *r)
{
    r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
    return r->random >> 33;
}

static void *race(void *argument)
{
    struct racer *r = argument;
    uint32_t slots[HELD] = {0};
    unsigned tags[HELD] = {0};

    pthread_barrier_wait(r->barrier);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned at = (unsigned)(next(r) % HELD), tag = (unsigned)(next(r) % TAGS);
        unsigned now;

        if (slots[at] != 0) {
            /* Out of what the test counts first, so that it never shows more than are counted. */
            atomic_fetch_sub(&inside[tags[at]], 1);
            address_count_leave(table, &slots[at]);
            continue;
        }
        switch (address_count_enter(table, key_of(7, tag), MAX, &slots[at])) {
        case 0:
            tags[at] = tag;
            now = atomic_fetch_add(&inside[tag], 1) + 1;
            r->highest = now > r->highest ? now : r->highest;
            r->entered++;
            break;
        case -EUSERS:
            r->refused++;
            break;
        default:
            r->full++;
        }
    }
    for (unsigned i = 0; i < HELD; i++)
        address_count_leave(table, &slots[i]);
    return NULL;
}

static void threads_leave_nothing(void **state)
{
    struct racer racers[THREADS];
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    unsigned entered = 0;

    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){.barrier = &barrier, .random = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        /* The header's bound: one each above the maximum. */
        assert_true(racers[i].highest <= MAX + THREADS);
        entered += racers[i].entered;
    }
    pthread_barrier_destroy(&barrier);
    assert_true(entered > 100000);
    assert_int_equal(address_count_sum(table), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_to_the_maximum, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_that_is_full, setup, teardown),
        cmocka_unit_test_setup_teardown(the_most_that_can_be_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_leave_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
