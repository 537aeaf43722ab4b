#include "cache/key.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct cache_key make(struct buf *b, const char *path, const char *query)
{
    struct cache_key key;
    assert_int_equal(cache_key_make(b, STR("site"), str_z(path), str_z(query), &key), 0);
    return key;
}

static void text_is_site_path_and_query(void **state)
{
    (void)state;
    char memory[100];
    struct buf b = buf_of(memory, sizeof memory);
    assert_true(str_eq(make(&b, "/a", "").text, STR("site /a")));
    assert_true(str_eq(make(&b, "/a", "v=1").text, STR("site /a?v=1"))); /* after the first, not over it */
    struct hash128 one = make(&b, "/a", "v=1").hash, two = make(&b, "/a", "v=2").hash;
    assert_false(hash_eq(one, two));
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    char memory[7];
    struct cache_key key;
    struct buf b = buf_of(memory, sizeof memory);
    assert_int_equal(cache_key_make(&b, STR("site"), STR("/ab"), STR_NONE, &key), -E2BIG);
    b = buf_of(memory, sizeof memory);
    assert_int_equal(cache_key_make(&b, STR("site"), STR("/a"), STR_NONE, &key), 0);
}

static void id_tells_slice_and_variant(void **state)
{
    (void)state;
    struct hash128 h = cache_key_of(STR("site /a")).hash;
    uint64_t plain = cache_key_id(h, 0, 0);
    assert_int_equal(plain, h.low);
    assert_int_not_equal(cache_key_id(h, 1, 0), plain);
    assert_int_not_equal(cache_key_id(h, 0, 1), plain);
    assert_int_not_equal(cache_key_id(h, 0, 1), cache_key_id(h, 1, 0));
    assert_int_not_equal((uint32_t)cache_key_id(h, 1, 0), (uint32_t)cache_key_id(h, 2, 0));
}

static void slices_of_a_length(void **state)
{
    (void)state;
    assert_int_equal(cache_slices_in(0), 1);
    assert_int_equal(cache_slices_in(1), 1);
    assert_int_equal(cache_slices_in(CACHE_SLICE_BYTES), 1);
    assert_int_equal(cache_slices_in(CACHE_SLICE_BYTES + 1), 2);
    assert_int_equal(cache_slice_of(CACHE_SLICE_BYTES - 1), 0);
    assert_int_equal(cache_slice_of(CACHE_SLICE_BYTES), 1);
}

int main(void)
{
    hash_init_fixed(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_site_path_and_query),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(id_tells_slice_and_variant),
        cmocka_unit_test(slices_of_a_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
