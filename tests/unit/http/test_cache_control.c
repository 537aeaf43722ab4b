#include "http/cache_control.h"
#include "http/structured.h"

#include "head.h"

static struct cache_control of(const char *lines)
{
    static struct test_head h;
    struct cache_control cc;
    const struct fields *f = test_fields(&h, lines);

    cache_control_parse(f, h.text, &cc);
    return cc;
}

static int targeted(const char *lines, struct cache_control *cc)
{
    static struct test_head h;
    const struct fields *f = test_fields(&h, lines);

    return cache_control_parse_targeted(f, h.text, cc);
}

static uint32_t flags_of(const char *value)
{
    char line[512];

    snprintf(line, sizeof line, "Cache-Control: %s\r\n", value);
    return of(line).flags;
}

static void flags(void **state)
{
    static const struct {
        const char *value;
        uint32_t flags;
    } cases[] = {
        {"", 0},
        {"public", CC_PUBLIC},
        {"No-Store", CC_NO_STORE},
        {"private,must-revalidate", CC_PRIVATE | CC_MUST_REVALIDATE},
        {" proxy-revalidate , , immutable", CC_PROXY_REVALIDATE | CC_IMMUTABLE},
        {"must-understand, no-store", CC_MUST_UNDERSTAND | CC_NO_STORE},
        {"no-transform, only-if-cached", CC_NO_TRANSFORM | CC_ONLY_IF_CACHED},
        {"no-cache", CC_NO_CACHE},
        {"no-cache=\"Set-Cookie\"", CC_NO_CACHE_FIELDS},
        {"no-cache=Set-Cookie", CC_NO_CACHE_FIELDS},
        {"no-cache=\"\"", CC_NO_CACHE},
        {"no-cache=\"a", CC_NO_CACHE},
        {"no-cache=\"a\\b\"", CC_NO_CACHE},
        {"no-cache=\"a\", no-cache", CC_NO_CACHE | CC_NO_CACHE_FIELDS},
        {"no-cache=\"a\", no-cache=\"b\"", CC_NO_CACHE | CC_NO_CACHE_FIELDS},
        {"private=\"x, y\"", CC_PRIVATE_FIELDS},
        {"no-store=1", CC_NO_STORE},
        {"x-no-store, no-storex, no-stor", 0},
        {"ext=\"no-store, private\"", 0},
        {"\"no-store\"", 0},
        {"max-stale", CC_MAX_STALE_ANY},
        {"max-stale=5, max-stale", CC_HAS_MAX_STALE},
        {"max-stale, max-stale=5", CC_MAX_STALE_ANY},
        {"min-fresh=x, stale-if-error=-1, stale-while-revalidate=", 0},
        {"=", 0},
        {"=5, max-age=1", CC_HAS_MAX_AGE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (flags_of(cases[i].value) != cases[i].flags)
            fail_msg("%s: %#x", cases[i].value, flags_of(cases[i].value));
}

static void numbers(void **state)
{
    struct cache_control cc = of("Cache-Control: max-age=10, s-maxage=\"20\", stale-while-revalidate=30\r\n"
                                 "Cache-Control: stale-if-error=40, min-fresh=50, max-stale=60\r\n");

    (void)state;
    assert_int_equal(cc.flags, CC_HAS_MAX_AGE | CC_HAS_S_MAXAGE | CC_HAS_SWR | CC_HAS_SIE | CC_HAS_MIN_FRESH |
                                   CC_HAS_MAX_STALE);
    assert_int_equal(cc.max_age_s, 10);
    assert_int_equal(cc.s_maxage_s, 20);
    assert_int_equal(cc.stale_while_revalidate_s, 30);
    assert_int_equal(cc.stale_if_error_s, 40);
    assert_int_equal(cc.min_fresh_s, 50);
    assert_int_equal(cc.max_stale_s, 60);
    assert_str(of("Cache-Control: private=\"x, y\"\r\n").private_fields, "x, y");

    assert_int_equal(of("Cache-Control: max-age=0001\r\n").max_age_s, 1);
    assert_int_equal(of("Cache-Control: max-age=2147483647\r\n").max_age_s, 2147483647);
    assert_int_equal(of("Cache-Control: max-age=2147483649\r\n").max_age_s, CACHE_CONTROL_DELTA_MAX);
    assert_int_equal(of("Cache-Control: max-age=99999999999999999999999999\r\n").max_age_s,
                     CACHE_CONTROL_DELTA_MAX);
    /* The first of two holds. */
    assert_int_equal(of("Cache-Control: max-age=5, max-age=10\r\n").max_age_s, 5);
    assert_int_equal(of("Cache-Control: max-age=10\r\nCache-Control: max-age=5\r\n").max_age_s, 10);
}

static void no_numbers_are_stale(void **state)
{
    static const char *const bad[] = {"",   "x",   "-1",  "+1",   "1.5", "1x",     "\"",     "\"1",    "1\"",
                                      " 1", "'1'", "0x1", "\"\"", "1 2", "\"1\"x", "\"-1\"", "\"\\1\""};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char line[64];
        struct cache_control cc;

        snprintf(line, sizeof line, "Cache-Control: max-age=%s, public\r\n", bad[i]);
        cc = of(line);
        if (!strchr(bad[i], '"') || strlen(bad[i]) > 2) /* a lone quote takes the rest of the list with it */
            assert_true(cc.flags & CC_HAS_MAX_AGE);
        assert_int_equal(cc.flags & (CC_HAS_MAX_AGE | CC_FRESHNESS_INVALID),
                         CC_HAS_MAX_AGE | CC_FRESHNESS_INVALID);
        assert_int_equal(cc.max_age_s, 0);
    }
    assert_int_equal(of("Cache-Control: max-age\r\n").flags, CC_HAS_MAX_AGE | CC_FRESHNESS_INVALID);
    assert_int_equal(of("Cache-Control: max-age =5\r\n").flags, CC_HAS_MAX_AGE | CC_FRESHNESS_INVALID);
    assert_int_equal(of("Cache-Control: s-maxage=x, max-age=5\r\n").s_maxage_s, 0);
}

static void targeted_fields(void **state)
{
    struct cache_control cc;

    (void)state;
    assert_int_equal(targeted("Cache-Control: max-age=1\r\n", &cc), 0);
    assert_int_equal(targeted("CDN-Cache-Control: max-age=60, stale-if-error=7;x=1, no-cache=\"a\"\r\n", &cc),
                     1);
    assert_int_equal(cc.flags, CC_HAS_MAX_AGE | CC_HAS_SIE | CC_NO_CACHE_FIELDS);
    assert_int_equal(cc.max_age_s, 60);
    assert_int_equal(cc.stale_if_error_s, 7);
    assert_int_equal(
        targeted("CDN-Cache-Control: no-store\r\nCDN-Cache-Control: private=?1, public=?0\r\n", &cc), 1);
    assert_int_equal(cc.flags, CC_NO_STORE | CC_PRIVATE);
    assert_int_equal(targeted("CDN-Cache-Control: max-age=1, max-age=2\r\n", &cc), 1);
    assert_int_equal(cc.max_age_s, 2); /* in a dictionary the last holds */
    assert_int_equal(targeted("CDN-Cache-Control: max-age=99999999999\r\n", &cc), 1);
    assert_int_equal(cc.max_age_s, CACHE_CONTROL_DELTA_MAX);
    assert_int_equal(
        targeted("CDN-Cache-Control: max-age=60, no-cache=\"a\", max-age=x, no-cache=?0\r\n", &cc), 1);
    assert_int_equal(cc.flags, 0);
    assert_int_equal(cc.max_age_s, 0);
    assert_int_equal(cc.no_cache_fields.n, 0);
    /* Of the wrong type: only that one is ignored. */
    assert_int_equal(targeted("CDN-Cache-Control: max-age=\"60\", no-store=1, s-maxage=1.5, public\r\n", &cc),
                     1);
    assert_int_equal(cc.flags, CC_PUBLIC);
    /* No dictionary: all of it is ignored. */
    assert_int_equal(targeted("CDN-Cache-Control: max-age=60, no store\r\n", &cc), 0);
    assert_int_equal(cc.flags, 0);
    assert_int_equal(targeted("CDN-Cache-Control: Max-Age=60\r\n", &cc), 0);
    assert_int_equal(targeted("CDN-Cache-Control: max-age=60,\r\n", &cc), 0);
    assert_int_equal(targeted("CDN-Cache-Control: max-age=60\r\nCDN-Cache-Control: &\r\n", &cc), 0);
    assert_int_equal(targeted("CDN-Cache-Control:\r\n", &cc), 0);
}

/* The members of a dictionary to its end: 0, or the error. */
static int read_dictionary(const char *text)
{
    char *exact = exact_copy(text, strlen(text));
    struct str rest = str_of(exact, strlen(text));
    struct structured_member m;
    int r = 1;

    while (r > 0)
        r = structured_member_next(&rest, &m);
    free(exact);
    return r;
}

static void dictionaries(void **state)
{
    static const char *const good[] = {
        "a",
        "a=1",
        "a=-999999999999999",
        "a=123456789012.123",
        "a=\"x\\\"\\\\\"",
        "a=t*k:/n",
        "a=*",
        "a=:aGk=:",
        "a=::",
        "a=?0",
        "a=()",
        "a=(1 \"b\";c=d  e)",
        "a=( 1 );x",
        "*a-b_c.d*9=1",
        "a;b;c=1",
        "a; b=1",
        "a , b",
        "a,\tb",
        "a=1;b=?1, c",
    };
    static const char *const bad[] = {
        "A",
        "a=",
        "a= 1",
        "a =1",
        "1",
        "=1",
        "a=1234567890123456",
        "a=1234567890123.1",
        "a=1.",
        "a=1.1234",
        "a=-",
        "a=\"x",
        "a=\"\\x\"",
        "a=\"\t\"",
        "a=\"\x80\"",
        "a=:x",
        "a=:!:",
        "a=?2",
        "a=?",
        "a=(",
        "a=(1",
        "a=(1,2)",
        "a=(1\"b\")",
        "a;B",
        "a;",
        "a;b=",
        "a,",
        ",a",
        "a,,b",
        "a b",
        "a=1 2",
        "a=&",
        "a=((1))",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (read_dictionary(good[i]) < 0)
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (read_dictionary(bad[i]) == 0)
            fail_msg("%s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags),
        cmocka_unit_test(numbers),
        cmocka_unit_test(no_numbers_are_stale),
        cmocka_unit_test(targeted_fields),
        cmocka_unit_test(dictionaries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
