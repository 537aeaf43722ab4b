#include "cache/s3fifo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Values are numbers; ids spread as hashes do. */
static void *value_of(uint64_t n)
{
    return (void *)(uintptr_t)(n + 1);
}

static uint64_t id_of(uint64_t n)
{
    uint64_t z = (n + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint32_t find(const struct s3fifo *s, uint64_t n)
{
    uint32_t e = s3fifo_find(s, id_of(n), S3FIFO_NONE);
    while (e != S3FIFO_NONE && s3fifo_value(s, e) != value_of(n))
        e = s3fifo_find(s, id_of(n), e);
    return e;
}

static void add(struct s3fifo *s, uint64_t n)
{
    assert_int_equal(s3fifo_insert(s, id_of(n), value_of(n), 100), 0);
}

/* The number that went, or -1. */
static long evict(struct s3fifo *s)
{
    struct s3fifo_victim v = s3fifo_evict(s, NULL);
    return (long)(uintptr_t)v.value - 1;
}

static void empty_out(struct s3fifo *s)
{
    while (evict(s) >= 0) {
    }
    s3fifo_free(s);
}

static struct s3fifo_stats stats_of(const struct s3fifo *s)
{
    struct s3fifo_stats x;
    s3fifo_stats(s, &x);
    return x;
}

static void untouched_entries_go_in_order(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    for (uint64_t n = 0; n < 10; n++)
        add(s, n);
    for (long n = 0; n < 10; n++)
        assert_int_equal(evict(s), n);
    assert_int_equal(evict(s), -1);
    assert_int_equal(stats_of(s).bytes, 0);
    s3fifo_free(s);
}

static void a_hit_moves_on_to_main_and_outlives_a_scan(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    for (uint64_t n = 0; n < 100; n++)
        add(s, n);
    s3fifo_hit(s, find(s, 7));
    for (uint64_t n = 100; n < 5000; n++) {
        assert_int_not_equal(evict(s), 7);
        add(s, n);
    }
    assert_int_not_equal(find(s, 7), S3FIFO_NONE);
    empty_out(s);
}

static void a_ghost_comes_back_to_main(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    for (uint64_t n = 0; n < 1000; n++)
        add(s, n);
    evict(s);
    add(s, 5000); /* makes the table of ghosts */
    assert_int_equal(evict(s), 1);
    assert_int_equal(stats_of(s).ghost_hits, 0);
    uint64_t small_bytes = stats_of(s).small_bytes;
    add(s, 1);
    assert_int_equal(stats_of(s).ghost_hits, 1);
    assert_int_equal(stats_of(s).small_bytes, small_bytes);
    add(s, 6000);
    assert_int_equal(stats_of(s).ghost_hits, 1);
    assert_int_equal(stats_of(s).small_bytes, small_bytes + 100);
    empty_out(s);
}

static void ghosts_are_forgotten_in_time(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    for (uint64_t n = 0; n < 1000; n++)
        add(s, n);
    for (uint64_t n = 1000; n < 20000; n++) { /* twenty times what it holds */
        evict(s);
        add(s, n);
    }
    uint64_t before = stats_of(s).ghost_hits;
    for (uint64_t n = 1; n < 1000; n++) {
        evict(s);
        add(s, n);
    }
    assert_true(stats_of(s).ghost_hits - before < 20);
    before = stats_of(s).ghost_hits;
    for (uint64_t n = 19400; n < 19900; n++) { /* the latest to go are known */
        if (find(s, n) == S3FIFO_NONE) {
            evict(s);
            add(s, n);
        }
    }
    assert_true(stats_of(s).ghost_hits - before > 300);
    empty_out(s);
}

static bool is_odd(const void *value)
{
    return (uintptr_t)value % 2 == 0; /* value_of adds one */
}

static bool is_any(const void *value)
{
    (void)value;
    return true;
}

static void what_is_in_use_is_stepped_over(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    for (uint64_t n = 0; n < 20; n++)
        add(s, n);
    for (long n = 0; n < 20; n += 2)
        assert_int_equal((long)(uintptr_t)s3fifo_evict(s, is_odd).value - 1, n);
    assert_null(s3fifo_evict(s, is_odd).value); /* and it ends */
    assert_null(s3fifo_evict(s, is_any).value);
    assert_int_equal(stats_of(s).entries, 10);
    empty_out(s);
}

static void replacing_keeps_the_place_and_the_account(void **state)
{
    (void)state;
    struct s3fifo *s = s3fifo_new();
    add(s, 0);
    add(s, 1);
    struct s3fifo_victim old = s3fifo_replace(s, find(s, 0), value_of(9), 300);
    assert_ptr_equal(old.value, value_of(0));
    assert_int_equal(old.charge_bytes, 100);
    assert_int_equal(stats_of(s).bytes, 400);
    assert_int_equal(evict(s), 9);
    assert_int_equal(stats_of(s).bytes, 100);
    empty_out(s);
}

/* Against a plain array, with ids of which many share their kept half. */
static void agrees_with_a_plain_array(void **state)
{
    (void)state;
    enum { N = 3000 };
    static bool in[N];
    struct s3fifo *s = s3fifo_new();
    unsigned seed = 3;
    uint64_t count = 0;
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t n = (unsigned)rand_r(&seed) % N,
                 id = n / 2; /* two numbers to an id, and low bits in a row */
        uint32_t e = s3fifo_find(s, id, S3FIFO_NONE);
        while (e != S3FIFO_NONE && s3fifo_value(s, e) != value_of(n))
            e = s3fifo_find(s, id, e);
        assert_int_equal(e != S3FIFO_NONE, in[n]);
        if (!in[n]) {
            size_t allowed = s3fifo_growth_bytes(s);
            uint64_t own = s3fifo_own_bytes(s);
            assert_int_equal(s3fifo_insert(s, id, value_of(n), 1), 0);
            assert_true(s3fifo_own_bytes(s) - own <= allowed);
            in[n] = true;
            count++;
        } else if (i % 3 == 0) {
            s3fifo_hit(s, e);
        } else {
            long gone = i % 2 ? (long)(uintptr_t)s3fifo_remove(s, e).value - 1 : evict(s);
            assert_true(gone >= 0 && in[gone]);
            in[gone] = false;
            count--;
        }
        assert_int_equal(stats_of(s).entries, count);
    }
    assert_int_equal(stats_of(s).bytes, count);
    empty_out(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untouched_entries_go_in_order),
        cmocka_unit_test(a_hit_moves_on_to_main_and_outlives_a_scan),
        cmocka_unit_test(a_ghost_comes_back_to_main),
        cmocka_unit_test(ghosts_are_forgotten_in_time),
        cmocka_unit_test(what_is_in_use_is_stepped_over),
        cmocka_unit_test(replacing_keeps_the_place_and_the_account),
        cmocka_unit_test(agrees_with_a_plain_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
