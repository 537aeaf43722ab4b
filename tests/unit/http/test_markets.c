#include "http/markets.h"

#include "../unit.h"

#include <errno.h>

static bool allows(const char *markets, const char *country)
{
    struct markets m;
    char *exact = exact_copy(markets, strlen(markets));
    int error = markets_parse(str_of(exact, strlen(markets)), &m);

    free(exact);
    assert_int_equal(error, 0);
    return markets_allow(&m, str_z(country));
}

static void listed_and_all_but(void **state)
{
    (void)state;
    assert_true(allows("SE", "SE"));
    assert_false(allows("SE", "NO"));
    assert_true(allows("SE,NO", "NO"));
    assert_false(allows("SE,NO", "ES")); /* across the comma, and backwards */
    assert_false(allows("SE,NO", "EN"));
    assert_false(allows("-US,CA", "CA"));
    assert_false(allows("-US,CA", "US"));
    assert_true(allows("-US,CA", "SE"));
    assert_true(allows("AA,ZZ,SE,SE", "ZZ"));
    assert_true(allows("AA,ZZ", "AA"));
    assert_false(allows("-AA,ZZ", "ZZ"));
}

static void unknown_is_never_allowed(void **state)
{
    static const char *const unknown[] = {"", "S", "SEE", "se", "S1", "--", "\0\0"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        assert_false(allows("SE", unknown[i]));
        assert_false(allows("-US", unknown[i]));
    }
    assert_false(markets_is_country(str_of("\0\0", 2)));
    assert_false(markets_is_country(STR_NONE));
    assert_true(markets_is_country(STR("SE")));
}

static void malformed(void **state)
{
    static const char *const bad[] = {"",      "-",      "S",     "se",     "SE,",    ",SE",   "SE,,NO",
                                      "SENO",  "SE NO",  "SE;NO", "SE,N",   "SE,-NO", "--SE",  "-SE,",
                                      "SE,no", "SE, NO", "S1",    "SE,NO,", "[SE",    "SE\nN", "@A"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct markets m;
        char *exact = exact_copy(bad[i], strlen(bad[i]));

        if (markets_parse(str_of(exact, strlen(bad[i])), &m) != -EINVAL)
            fail_msg("\"%s\" was taken", bad[i]);
        free(exact);
    }
}

/* Each of the 676 pairs is a market of its own. */
static void every_pair(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 676; i++) {
        char one[3] = {(char)('A' + i / 26), (char)('A' + i % 26)}, but[4] = {'-', one[0], one[1]};
        struct markets m, not_m;
        unsigned allowed = 0, not_allowed = 0;

        assert_int_equal(markets_parse(str_z(one), &m), 0);
        assert_int_equal(markets_parse(str_of(but, 3), &not_m), 0);
        for (unsigned k = 0; k < 676; k++) {
            const char country[2] = {(char)('A' + k / 26), (char)('A' + k % 26)};

            allowed += markets_allow(&m, str_of(country, 2));
            not_allowed += !markets_allow(&not_m, str_of(country, 2));
        }
        assert_int_equal(allowed, 1);
        assert_int_equal(not_allowed, 1);
        assert_true(markets_allow(&m, str_z(one)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listed_and_all_but),
        cmocka_unit_test(unknown_is_never_allowed),
        cmocka_unit_test(malformed),
        cmocka_unit_test(every_pair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
