#include "io/timer.h"
#include "util/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TIMERS_N 300

/* A timer, and what a model that only compares numbers says of it. */
struct item {
    struct flow flow;
    struct timer timer;
    bool set;
    uint64_t deadline_ns; /* not before */
};

struct fixture {
    struct timer_wheel *wheel;
    struct flow_queue ready;
    struct item items[TIMERS_N];
    uint64_t now_ns;
};

static uint64_t random_state;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static enum flow_result step_nothing(struct flow *f)
{
    (void)f;
    return FLOW_WAIT;
}

static const flow_step steps[] = {step_nothing};
static const char *const step_names[] = {"nothing"};
static const struct flow_type type = {"item", steps, step_names, 1, NULL};

static struct fixture *fixture_new(uint64_t now_ns)
{
    struct fixture *x = calloc(1, sizeof(*x));

    assert_non_null(x);
    x->now_ns = now_ns;
    x->wheel = timer_wheel_create(now_ns);
    assert_non_null(x->wheel);
    for (size_t i = 0; i < TIMERS_N; i++)
        flow_init(&x->items[i].flow, &type, 0);
    return x;
}

static void fixture_free(struct fixture *x)
{
    timer_wheel_destroy(x->wheel);
    free(x);
}

static void set(struct fixture *x, struct item *item, uint64_t delay_ms)
{
    timer_set(x->wheel, &item->timer, &item->flow, x->now_ns, delay_ms);
    assert_true(timer_is_set(&item->timer));
    assert_false(item->timer.fired);
    item->set = true;
    item->deadline_ns = x->now_ns + delay_ms * NS_PER_MS;
}

/* Advances and compares: nothing fires early, nothing is more than a tick late, and wakes follow. */
static void advance(struct fixture *x, uint64_t to_ns)
{
    size_t fired_n = 0;

    x->now_ns = to_ns;
    timer_wheel_advance(x->wheel, to_ns, &x->ready);
    for (size_t i = 0; i < TIMERS_N; i++) {
        struct item *item = &x->items[i];

        if (!item->set) {
            assert_false(timer_is_set(&item->timer));
            assert_false(item->timer.fired);
            continue;
        }
        if (item->timer.fired) {
            assert_true(item->deadline_ns <= to_ns);
            assert_false(timer_is_set(&item->timer));
            assert_true(item->flow.queued);
            item->set = false;
            item->timer.fired = false;
            fired_n++;
        } else {
            assert_true(timer_is_set(&item->timer));
            assert_true(item->deadline_ns + NS_PER_MS > to_ns);
        }
    }
    assert_int_equal(fired_n, x->ready.n);
    flow_run_ready(&x->ready);
}

/* Never longer than until the first deadline (a tick more), and when it is followed, progress is made. */
static void check_wait(struct fixture *x)
{
    uint64_t wait_ns = timer_wheel_wait_ns(x->wheel, x->now_ns);
    uint64_t first_ns = UINT64_MAX;

    for (size_t i = 0; i < TIMERS_N; i++)
        if (x->items[i].set && x->items[i].deadline_ns < first_ns)
            first_ns = x->items[i].deadline_ns;
    if (first_ns == UINT64_MAX) {
        assert_true(wait_ns == UINT64_MAX);
        return;
    }
    assert_true(wait_ns != UINT64_MAX);
    assert_true(x->now_ns + wait_ns < first_ns + NS_PER_MS || wait_ns == 0);
}

static uint64_t random_delay_ms(void)
{
    switch (random_u64() % 8) {
    case 0:
        return 0;
    case 1:
        return random_u64() % 3;
    case 2:
        return random_u64() % TIMER_DELAY_MS_MAX;
    case 3:
        return TIMER_DELAY_MS_MAX - random_u64() % 2;
    case 4:
        return 1ull << random_u64() % 31;
    default:
        return random_u64() % 5000;
    }
}

static uint64_t random_step_ns(struct fixture *x)
{
    switch (random_u64() % 16) {
    case 0:
        return random_u64() % (1ull << random_u64() % 50);
    case 1:
        return TIMER_DELAY_MS_MAX / 2 * NS_PER_MS;
    case 2:
    case 3:
    case 4: {
        uint64_t wait_ns = timer_wheel_wait_ns(x->wheel, x->now_ns);

        return wait_ns == UINT64_MAX ? NS_PER_S : wait_ns;
    }
    case 5:
        return 0;
    default:
        return random_u64() % (20 * NS_PER_MS);
    }
}

static void test_against_model(void **state)
{
    struct fixture *x = fixture_new(123456789);

    (void)state;
    random_state = 88172645463325252ull;
    for (int round = 0; round < 60000; round++) {
        for (uint64_t i = random_u64() % 4; i > 0; i--) {
            struct item *item = &x->items[random_u64() % TIMERS_N];

            if (random_u64() % 3 == 0) {
                timer_cancel(x->wheel, &item->timer);
                item->set = false;
            } else {
                set(x, item, random_delay_ms());
            }
        }
        check_wait(x);
        advance(x, x->now_ns + random_step_ns(x));
    }
    assert_true(x->now_ns > (1ull << 33) * NS_PER_MS); /* the tick has wrapped, more than once */
    fixture_free(x);
}

static void test_wraps(void **state)
{
    struct fixture *x = fixture_new(0);
    uint64_t wrap_ns = (1ull << 32) * NS_PER_MS;

    (void)state;
    advance(x, wrap_ns - 10 * NS_PER_MS);
    set(x, &x->items[0], 9);
    set(x, &x->items[1], 10);
    set(x, &x->items[2], 11);
    set(x, &x->items[3], TIMER_DELAY_MS_MAX);
    advance(x, wrap_ns - 2 * NS_PER_MS);
    assert_true(x->items[0].set);
    advance(x, wrap_ns - 1 * NS_PER_MS);
    assert_false(x->items[0].set);
    assert_true(x->items[1].set);
    advance(x, wrap_ns);
    assert_false(x->items[1].set);
    advance(x, wrap_ns + 1 * NS_PER_MS);
    assert_false(x->items[2].set);
    assert_true(x->items[3].set);
    advance(x, wrap_ns + (TIMER_DELAY_MS_MAX - 10) * NS_PER_MS);
    assert_false(x->items[3].set);
    fixture_free(x);
}

static void test_past_and_now(void **state)
{
    struct fixture *x = fixture_new(0);

    (void)state;
    advance(x, 5 * NS_PER_S);
    set(x, &x->items[0], 0);
    assert_true(timer_wheel_wait_ns(x->wheel, x->now_ns) == 0);
    advance(x, x->now_ns); /* no time has passed */
    assert_false(x->items[0].set);

    /* Set with a time that the wheel is past: the caller's clock was read before. */
    x->now_ns -= 100 * NS_PER_MS;
    set(x, &x->items[1], 50);
    x->now_ns += 100 * NS_PER_MS;
    assert_true(timer_wheel_wait_ns(x->wheel, x->now_ns) == 0);
    advance(x, x->now_ns);
    assert_false(x->items[1].set);
    assert_true(timer_wheel_wait_ns(x->wheel, x->now_ns) == UINT64_MAX);
    fixture_free(x);
}

static void test_not_early_within_a_tick(void **state)
{
    struct fixture *x = fixture_new(0);

    (void)state;
    x->now_ns = NS_PER_MS - 1;
    set(x, &x->items[0], 1);
    advance(x, 2 * NS_PER_MS - 2);
    assert_true(x->items[0].set);
    advance(x, 2 * NS_PER_MS);
    assert_false(x->items[0].set);
    fixture_free(x);
}

/* A flow that is run because of one timer cancels another that fired, and one that is still to come. */
static void test_cancel_of_fired(void **state)
{
    struct fixture *x = fixture_new(0);
    struct item *a = &x->items[0], *b = &x->items[1];

    (void)state;
    set(x, a, 5);
    set(x, b, 5);
    x->now_ns = 6 * NS_PER_MS;
    timer_wheel_advance(x->wheel, x->now_ns, &x->ready);
    assert_true(a->timer.fired && b->timer.fired);
    timer_cancel(x->wheel, &b->timer);
    assert_false(b->timer.fired);
    assert_false(timer_is_set(&b->timer));
    timer_cancel(x->wheel, &b->timer); /* again does no harm */
    set(x, b, 5);                      /* while its wake is queued */
    a->set = a->timer.fired = false;
    flow_run_ready(&x->ready);
    advance(x, 11 * NS_PER_MS);
    assert_false(b->set);
    fixture_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),   cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_past_and_now),    cmocka_unit_test(test_not_early_within_a_tick),
        cmocka_unit_test(test_cancel_of_fired),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
