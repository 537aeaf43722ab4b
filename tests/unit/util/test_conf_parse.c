#include "util/check.h"
#include "util/conf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct quantity_case {
    const char *text;
    int rc;
    uint64_t value;
};

static void run(int (*parse)(struct str, uint64_t *), const struct quantity_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 4711;
        int rc = parse(str_z(cases[i].text), &value);
        if (rc != cases[i].rc || value != (rc == 0 ? cases[i].value : 4711))
            fail_msg("\"%s\": rc %d, value %llu", cases[i].text, rc, (unsigned long long)value);
    }
}

static void test_durations(void **state)
{
    (void)state;
    static const struct quantity_case cases[] = {
        {"1ms", 0, 1},
        {"30s", 0, 30000},
        {"5m", 0, 300000},
        {"1h", 0, 3600000},
        {"7d", 0, 604800000},
        {"2w", 0, 1209600000},
        {"1y", 0, 31536000000},
        {"0", 0, 0},
        {"0s", 0, 0},
        {"00s", 0, 0},
        {"18446744073709551615ms", 0, UINT64_MAX},
        {"18446744073709551616ms", -ERANGE, 0},
        {"18446744073709551615s", -ERANGE, 0},
        {"99999999999999999999999y", -ERANGE, 0},
        {"30", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {"-1s", -EINVAL, 0},
        {"+1s", -EINVAL, 0},
        {"1.5s", -EINVAL, 0},
        {" 1s", -EINVAL, 0},
        {"1s ", -EINVAL, 0},
        {"1 s", -EINVAL, 0},
        {"1S", -EINVAL, 0},
        {"1M", -EINVAL, 0},
        {"5 minutes", -EINVAL, 0},
        {"1h30m", -EINVAL, 0},
        {"0x1s", -EINVAL, 0},
    };
    run(conf_parse_duration_ms, cases, ARRAY_LEN(cases));
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct quantity_case cases[] = {
        {"1B", 0, 1},
        {"1KiB", 0, 1024},
        {"1KB", 0, 1000},
        {"3MiB", 0, 3145728},
        {"3MB", 0, 3000000},
        {"1GiB", 0, 1073741824},
        {"1GB", 0, 1000000000},
        {"2TiB", 0, 2199023255552},
        {"2TB", 0, 2000000000000},
        {"0", 0, 0},
        {"16777215TiB", 0, 16777215ull << 40},
        {"16777216TiB", -ERANGE, 0},
        {"1024", -EINVAL, 0},
        {"1G", -EINVAL, 0},
        {"1gib", -EINVAL, 0},
        {"GiB", -EINVAL, 0},
        {"1GiBs", -EINVAL, 0},
    };
    run(conf_parse_bytes, cases, ARRAY_LEN(cases));
}

static void test_rates(void **state)
{
    (void)state;
    static const struct quantity_case events[] = {
        {"50/s", 0, 20000000},
        {"3/s", 0, 333333333},
        {"1/m", 0, 60000000000},
        {"1/h", 0, 3600000000000},
        {"3600/h", 0, 1000000000},
        {"1000000000/s", 0, 1},
        {"1000000001/s", -ERANGE, 0},
        {"0/s", 0, 0},
        {"50", -EINVAL, 0},
        {"/s", -EINVAL, 0},
        {"5/d", -EINVAL, 0},
        {"x/s", -EINVAL, 0},
        {"18446744073709551615/s", -ERANGE, 0},
    };
    static const struct quantity_case speeds[] = {
        {"1KiB/s", 0, 1024},  {"0", -EINVAL, 0},  {"0/s", 0, 0},
        {"1KiB", -EINVAL, 0}, {"/s", -EINVAL, 0}, {"1KiB/m", -EINVAL, 0},
    };
    run(conf_parse_rate_ns, events, ARRAY_LEN(events));
    run(conf_parse_bytes_per_s, speeds, ARRAY_LEN(speeds));
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        int64_t value;
    } cases[] = {
        {"0", 0, 0},
        {"1790000000", 0, 1790000000},
        {"2026-09-21T14:13:20Z", 0, 1790000000},
        {"1970-01-01T00:00:00Z", 0, 0},
        {"2028-02-29T00:00:00Z", 0, 1835395200},
        {"2027-02-29T00:00:00Z", -EINVAL, 0},
        {"2027-13-01T00:00:00Z", -EINVAL, 0},
        {"2027-00-01T00:00:00Z", -EINVAL, 0},
        {"2027-01-31T24:00:00Z", -EINVAL, 0},
        {"2027-01-31T12:60:00Z", -EINVAL, 0},
        {"2027-01-31T12:00:00", -EINVAL, 0},
        {"2027-01-31T12:00:00Zx", -EINVAL, 0},
        {"2027-01-31T12:00:00+02:00", -EINVAL, 0},
        {"2027-01-31", -EINVAL, 0},
        {"1969-12-31T23:59:59Z", -EINVAL, 0},
        {"99999999999999999999", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"tomorrow", -EINVAL, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t value = 4711;
        int rc = conf_parse_time_s(str_z(cases[i].text), &value);
        if (rc != cases[i].rc || value != (rc == 0 ? cases[i].value : 4711))
            fail_msg("\"%s\": rc %d, value %lld", cases[i].text, rc, (long long)value);
    }
}

/* Errors of the converters: what was expected, what was got, which bound. */
static void test_converters_report(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"5 minutes", "x.yaml:1: ttl: expected a duration such as 30s, 5m, 1h, 7d or 1y, got \"5 minutes\""},
        {"300",
         "x.yaml:1: ttl: expected a duration such as 30s, 5m, 1h, 7d or 1y, got \"300\", which has no unit"},
        {"1s", "x.yaml:1: ttl: must be at least 2s, got \"1s\""},
        {"91m", "x.yaml:1: ttl: must be at most 90m, got \"91m\""},
        {"99999999999999999999y", "x.yaml:1: ttl: must be at most 90m, got \"99999999999999999999y\""},
        {"2500ms", "x.yaml:1: ttl: expected whole seconds, got \"2500ms\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *conf;
        struct conf_error error;
        assert_int_equal(conf_open_text("x.yaml", STR("ttl: 1"), 0, &conf, &error), 0);
        assert_int_equal(conf_duration_s(conf, "ttl", cases[i].text, 77, 2, 5400), 77);
        assert_string_equal(error.text, cases[i].error);
        assert_int_equal(conf_status(conf), -EINVAL);
        conf_close(&conf);
    }
}

static void test_converters_convert(void **state)
{
    (void)state;
    struct conf *conf;
    struct conf_error error;
    assert_int_equal(conf_open_text("x.yaml", STR("ttl: 1"), 0, &conf, &error), 0);
    assert_int_equal(conf_duration_s(conf, "ttl", "90m", 7, 0, 5400), 5400);
    assert_int_equal(conf_duration_s(conf, "ttl", NULL, 7, 0, 1), 7);
    assert_int_equal(conf_duration_ms(conf, "ttl", "90m", 7, 0, 5400000), 5400000);
    assert_int_equal(conf_bytes(conf, "ttl", "1MiB", 7, 0, 1 << 20), 1 << 20);
    assert_int_equal(conf_bytes_per_s(conf, "ttl", "1MiB/s", 7, 0, 1 << 20), 1 << 20);
    assert_int_equal(conf_number(conf, "ttl", "12", 7, 12, 12), 12);
    assert_int_equal(conf_time_s(conf, "ttl", "12", 7), 12);
    assert_int_equal(conf_time_s(conf, "ttl", NULL, 7), 7);
    assert_int_equal(conf_status(conf), 0);
    assert_int_equal(conf_number(conf, "ttl", "13", 7, 12, 12), 7);
    assert_string_equal(error.text, "x.yaml:1: ttl: must be at most 12, got \"13\"");
    conf_close(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_converters_report),
        cmocka_unit_test(test_converters_convert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
