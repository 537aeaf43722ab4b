#include "http/date.h"

#include "../unit.h"

#include <time.h>

#define NOW 1790000000 /* 2026-09-21 */

/* Against gmtime_r and timegm over every day of 1,200 years, and a stride of seconds. */
static void agrees_with_libc(void **state)
{
    char text[DATE_BYTES], expected[64], asctime_text[64], rfc850[64];
    int64_t back;

    (void)state;
    for (int64_t day = -719162; day < 2932896; day += 1 + (day < -140000 || day > 100000) * 96) {
        int64_t s = day * 86400 + (day * 7919 % 86400 + 86400) % 86400;
        time_t t = (time_t)s;
        struct tm tm;

        gmtime_r(&t, &tm);
        snprintf(expected, sizeof expected, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 &"SunMonTueWedThuFriSat"[tm.tm_wday * 3], tm.tm_mday,
                 &"JanFebMarAprMayJunJulAugSepOctNovDec"[tm.tm_mon * 3], tm.tm_year + 1900, tm.tm_hour,
                 tm.tm_min, tm.tm_sec);
        date_format(s, text);
        assert_memory_equal(text, expected, DATE_BYTES);
        assert_int_equal(date_parse(str_of(text, DATE_BYTES), NOW, &back), 0);
        assert_true(back == s);

        snprintf(asctime_text, sizeof asctime_text, "%.3s %.3s %2d %02d:%02d:%02d %04d",
                 &"SunMonTueWedThuFriSat"[tm.tm_wday * 3],
                 &"JanFebMarAprMayJunJulAugSepOctNovDec"[tm.tm_mon * 3], tm.tm_mday, tm.tm_hour, tm.tm_min,
                 tm.tm_sec, tm.tm_year + 1900);
        assert_int_equal(date_parse(str_z(asctime_text), NOW, &back), 0);
        assert_true(back == s);

        if (tm.tm_year + 1900 > 1976 && tm.tm_year + 1900 <= 2076) {
            snprintf(rfc850, sizeof rfc850, "Monday, %02d-%.3s-%02d %02d:%02d:%02d GMT", tm.tm_mday,
                     &"JanFebMarAprMayJunJulAugSepOctNovDec"[tm.tm_mon * 3], tm.tm_year % 100, tm.tm_hour,
                     tm.tm_min, tm.tm_sec);
            assert_int_equal(date_parse(str_z(rfc850), NOW, &back), 0);
            assert_true(back == s);
        }
    }
}

static void is(const char *text, int64_t expected)
{
    char *exact = exact_copy(text, strlen(text));
    int64_t s = 0;

    assert_int_equal(date_parse(str_of(exact, strlen(text)), NOW, &s), 0);
    assert_true(s == expected);
    free(exact);
}

static void examples_of_the_rfc(void **state)
{
    int64_t s;

    (void)state;
    is("Sun, 06 Nov 1994 08:49:37 GMT", 784111777);
    is("Sunday, 06-Nov-94 08:49:37 GMT", 784111777);
    is("Sun Nov  6 08:49:37 1994", 784111777);
    is("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800); /* a leap second */
    is("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800);
    is("Fri, 01 Jan 0001 00:00:00 GMT", -62135596800);
    is("Saturday, 01-Jan-77 00:00:00 GMT", 220924800); /* 2077 would be more than 50 years ahead */
    assert_int_equal(date_parse(STR("Friday, 01-Jan-10 00:00:00 GMT"), 3471292800, &s),
                     0);          /* as read in 2080 */
    assert_true(s == 4417977600); /* 2110 */
}

static void refused(void **state)
{
    static const char *const bad[] = {
        "",
        "0",
        "-1",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Xxx, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 2023 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sunday Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:-1 GMT",
    };
    int64_t s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *exact = exact_copy(bad[i], strlen(bad[i]));

        assert_int_equal(date_parse(str_of(exact, strlen(bad[i])), NOW, &s), -22);
        free(exact);
    }
}

static void out_of_reach(void **state)
{
    char text[DATE_BYTES];

    (void)state;
    date_format(INT64_MAX, text);
    assert_str(str_of(text, DATE_BYTES), "Fri, 31 Dec 9999 23:59:59 GMT");
    date_format(INT64_MIN, text);
    assert_str(str_of(text, DATE_BYTES), "Mon, 01 Jan 0001 00:00:00 GMT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_libc),
        cmocka_unit_test(examples_of_the_rfc),
        cmocka_unit_test(refused),
        cmocka_unit_test(out_of_reach),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
