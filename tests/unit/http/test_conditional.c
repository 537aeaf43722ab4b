#include "http/conditional.h"

#include "head.h"

#define NOW    1790000000
#define BEFORE "Mon, 21 Sep 2026 10:00:00 GMT"
#define AT     "Mon, 21 Sep 2026 11:00:00 GMT"
#define AFTER  "Mon, 21 Sep 2026 12:00:00 GMT"

static enum conditional_result evaluate(const char *request, const char *response, enum conditional_role role)
{
    struct test_head asked, stored;
    struct validators v;

    validators_of(test_fields(&stored, response), stored.text, NOW, &v);
    return conditional_evaluate(test_fields(&asked, request), asked.text, &v, role, NOW);
}

#define cache_says(request, response, result)                                                                \
    assert_int_equal(evaluate(request, response, CONDITIONAL_CACHE), CONDITIONAL_##result)
#define origin_says(request, response, result)                                                               \
    assert_int_equal(evaluate(request, response, CONDITIONAL_ORIGIN), CONDITIONAL_##result)

#define TAGGED "ETag: \"a,b\\\"\r\nLast-Modified: " AT "\r\nDate: " AFTER "\r\n"

static void none_match(void **state)
{
    (void)state;
    cache_says("", TAGGED, PROCEED);
    cache_says("If-None-Match: \"a,b\\\"\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-None-Match: W/\"a,b\\\"\r\n", TAGGED, NOT_MODIFIED); /* weakly */
    cache_says("If-None-Match: \"x\", \"a,b\\\"\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-None-Match: \"x\"\r\nIf-None-Match: \"y\" ,, W/\"a,b\\\"\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-None-Match: *\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-None-Match: \"a\"\r\n", TAGGED, PROCEED);
    cache_says("If-None-Match: a,b\r\n", TAGGED, PROCEED);
    cache_says("If-None-Match: \"x\" \"a,b\\\"\r\n", TAGGED, PROCEED);
    cache_says("If-None-Match: w/\"a,b\\\"\r\n", TAGGED, PROCEED); /* W/ has a case */
    cache_says("If-None-Match: \"\"\r\n", "", PROCEED);
    cache_says("If-None-Match: \"x\"\r\n", "ETag: W/\"x\"\r\n", NOT_MODIFIED);
    /* It takes precedence over If-Modified-Since. */
    cache_says("If-None-Match: \"x\"\r\nIf-Modified-Since: " AFTER "\r\n", TAGGED, PROCEED);
}

static void modified_since(void **state)
{
    (void)state;
    cache_says("If-Modified-Since: " BEFORE "\r\n", TAGGED, PROCEED);
    cache_says("If-Modified-Since: " AT "\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-Modified-Since: " AFTER "\r\n", TAGGED, NOT_MODIFIED);
    cache_says("If-Modified-Since: yesterday\r\n", TAGGED, PROCEED);
    cache_says("If-Modified-Since: " AT "\r\nIf-Modified-Since: " AT "\r\n", TAGGED, PROCEED);
    /* No Last-Modified: a cache compares with Date, else with when it got the response. */
    cache_says("If-Modified-Since: " AT "\r\n", "Date: " AT "\r\n", NOT_MODIFIED);
    cache_says("If-Modified-Since: " BEFORE "\r\n", "Date: " AT "\r\n", PROCEED);
    cache_says("If-Modified-Since: Mon, 21 Sep 2026 14:13:20 GMT\r\n", "", NOT_MODIFIED);
    cache_says("If-Modified-Since: Mon, 21 Sep 2026 14:13:19 GMT\r\n", "", PROCEED);
    origin_says("If-Modified-Since: " AT "\r\n", "Date: " AT "\r\n", PROCEED);
}

static void only_for_origins(void **state)
{
    (void)state;
    origin_says("If-Match: \"x\"\r\n", TAGGED, FAILED);
    cache_says("If-Match: \"x\"\r\n", TAGGED, PROCEED);
    origin_says("If-Match: \"x\", \"a,b\\\"\r\n", TAGGED, PROCEED);
    origin_says("If-Match: W/\"a,b\\\"\r\n", TAGGED, FAILED); /* strongly */
    origin_says("If-Match: \"x\"\r\n", "ETag: W/\"x\"\r\n", FAILED);
    origin_says("If-Match: *\r\n", TAGGED, PROCEED);
    origin_says("If-Unmodified-Since: " BEFORE "\r\n", TAGGED, FAILED);
    cache_says("If-Unmodified-Since: " BEFORE "\r\n", TAGGED, PROCEED);
    origin_says("If-Unmodified-Since: " AT "\r\n", TAGGED, PROCEED);
    origin_says("If-Unmodified-Since: x\r\n", TAGGED, PROCEED);
    origin_says("If-Unmodified-Since: " BEFORE "\r\n", "", PROCEED);
    /* If-Match takes precedence, and a precondition that holds leads on to If-None-Match. */
    origin_says("If-Match: *\r\nIf-Unmodified-Since: " BEFORE "\r\n", TAGGED, PROCEED);
    origin_says("If-Match: *\r\nIf-None-Match: *\r\n", TAGGED, NOT_MODIFIED);
}

static bool applies(const char *request, const char *response)
{
    struct test_head asked, stored;
    struct validators v;

    validators_of(test_fields(&stored, response), stored.text, NOW, &v);
    return conditional_range_applies(test_fields(&asked, request), asked.text, &v, NOW);
}

static void if_range(void **state)
{
    (void)state;
    assert_true(applies("", TAGGED));
    assert_true(applies("If-Range: \"a,b\\\"\r\n", TAGGED));
    assert_false(applies("If-Range: W/\"a,b\\\"\r\n", TAGGED));
    assert_false(applies("If-Range: \"x\"\r\n", TAGGED));
    assert_false(applies("If-Range: \"x\"\r\n", "ETag: W/\"x\"\r\n"));
    assert_false(applies("If-Range: *\r\n", TAGGED));
    assert_true(applies("If-Range: " AT "\r\n", TAGGED));
    assert_false(applies("If-Range: " AFTER "\r\n", TAGGED)); /* exactly the same date */
    assert_false(applies("If-Range: " BEFORE "\r\n", TAGGED));
    /* A date is strong only when Date was later than it. */
    assert_false(applies("If-Range: " AT "\r\n", "Last-Modified: " AT "\r\nDate: " AT "\r\n"));
    assert_false(applies("If-Range: " AT "\r\n", "Last-Modified: " AT "\r\n"));
    assert_true(
        applies("If-Range: " AT "\r\n", "Last-Modified: " AT "\r\nDate: Mon, 21 Sep 2026 11:00:01 GMT\r\n"));
    assert_false(applies("If-Range: \"x\"\r\nIf-Range: \"x\"\r\n", "ETag: \"x\"\r\n"));
    assert_false(applies("If-Range: \"x\"\r\n", ""));
}

static void entity_tags(void **state)
{
    static const char *const bad[] = {"",        "x",       "\"",     "\"x",     "x\"",     "W/x",
                                      "w/\"x\"", "\"a b\"", "\"a\"b", "\"a\"\"", "W/ \"a\""};
    struct etag a, b;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(etag_parse(str_z(bad[i]), &a), -22);
    /* The table of RFC 9110, 8.8.3.2. */
    assert_int_equal(etag_parse(STR("W/\"1\""), &a), 0);
    assert_int_equal(etag_parse(STR("W/\"1\""), &b), 0);
    assert_true(!etag_eq_strong(&a, &b) && etag_eq_weak(&a, &b));
    assert_int_equal(etag_parse(STR("W/\"2\""), &b), 0);
    assert_true(!etag_eq_strong(&a, &b) && !etag_eq_weak(&a, &b));
    assert_int_equal(etag_parse(STR("\"1\""), &b), 0);
    assert_true(!etag_eq_strong(&a, &b) && etag_eq_weak(&a, &b));
    assert_int_equal(etag_parse(STR("\"1\""), &a), 0);
    assert_true(etag_eq_strong(&a, &b) && etag_eq_weak(&a, &b));
    assert_int_equal(etag_parse(STR("\"\""), &a), 0);
    assert_true(etag_eq_strong(&a, &a));
    a = (struct etag){.opaque = STR_NONE};
    assert_false(etag_eq_weak(&a, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_match), cmocka_unit_test(modified_since), cmocka_unit_test(only_for_origins),
        cmocka_unit_test(if_range),   cmocka_unit_test(entity_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
