#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/grow.h"

static void assert_holds(const struct grow *g, const char *want)
{
    assert_int_equal(g->n, strlen(want));
    assert_memory_equal(g->p, want, g->n);
}

static void writes_all_kinds(void **state)
{
    struct grow g = grow_of(1000);

    (void)state;
    grow_add_lit(&g, "a");
    grow_add_u64(&g, UINT64_MAX);
    grow_printf(&g, "[%s]", "x");
    grow_add_char(&g, '-');
    grow_add_z(&g, "z");
    grow_add_str(&g, STR_NONE);
    grow_add_json(&g, STR("q\"\x01\xff"));
    assert_false(g.failed);
    assert_holds(&g, "a18446744073709551615[x]-z\"q\\\"\\u0001\\ufffd\"");
    grow_free(&g);
    assert_null(g.p);
}

static void long_formats_are_whole(void **state)
{
    struct grow g = grow_of(10000);
    char text[3000];

    (void)state;
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    grow_printf(&g, "%s%s", text, "!");
    assert_int_equal(g.n, 3000);
    assert_int_equal(g.p[2999], '!');
    grow_free(&g);
}

static void stops_at_its_maximum_and_says_so(void **state)
{
    struct grow g = grow_of(10);

    (void)state;
    grow_add_lit(&g, "12345678");
    grow_add_lit(&g, "abc");
    assert_true(g.failed);
    assert_holds(&g, "12345678");
    grow_add_lit(&g, "90");
    assert_holds(&g, "1234567890");
    assert_true(g.failed); /* once failed, it stays so */
    assert_null(grow_reserve(&g, 1));
    g.n = 0;
    g.failed = false;
    grow_add_json(&g, STR("12345678")); /* fits to the byte, though it might have been six times longer */
    assert_false(g.failed);
    assert_holds(&g, "\"12345678\"");
    grow_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_all_kinds),
        cmocka_unit_test(long_formats_are_whole),
        cmocka_unit_test(stops_at_its_maximum_and_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
