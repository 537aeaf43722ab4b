#include "util/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void test_zeroed_and_aligned(void **state)
{
    (void)state;
    struct arena a = {0};
    for (size_t n = 0; n < 3000; n += 7) {
        char *p = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n); /* what overlaps another piece is seen by it */
    }
    assert_true(a.bytes >= 3000 / 7 * 1500);
    arena_free(&a);
    assert_null(a.chunks);
    assert_int_equal(a.bytes, 0);
}

static void test_larger_than_a_chunk(void **state)
{
    (void)state;
    struct arena a = {0};
    char *small = arena_alloc(&a, 10);
    char *large = arena_alloc(&a, 1 << 20);
    large[(1 << 20) - 1] = 'x';
    small[0] = 'y';
    assert_int_equal(large[0], 0);
    arena_free(&a);
}

static void test_strings_end_in_nul(void **state)
{
    (void)state;
    struct arena a = {0};
    struct str s = arena_str(&a, STR("audio"));
    assert_int_equal(s.n, 5);
    assert_string_equal(s.p, "audio");
    assert_string_equal(arena_str(&a, STR_NONE).p, "");
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_aligned),
        cmocka_unit_test(test_larger_than_a_chunk),
        cmocka_unit_test(test_strings_end_in_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
