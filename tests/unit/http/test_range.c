#include "http/range.h"

#include "../unit.h"

static void gives(const char *value, uint64_t length, enum range_result result, const char *expected)
{
    char *exact = exact_copy(value, strlen(value)), text[512];
    struct buf b = buf_of(text, sizeof text);
    struct ranges ranges;

    assert_int_equal(ranges_parse(str_of(exact, strlen(value)), length, &ranges), result);
    for (unsigned i = 0; i < ranges.n; i++)
        buf_printf(&b, "%s%llu-%llu", i ? "," : "", (unsigned long long)ranges.at[i].first,
                   (unsigned long long)ranges.at[i].last);
    if (!str_eq(buf_str(&b), str_z(expected)))
        fail_msg("%s of %llu: " STR_FMT, value, (unsigned long long)length, STR_ARG(buf_str(&b)));
    free(exact);
}

static void single(void **state)
{
    (void)state;
    gives("bytes=0-0", 10, RANGE_PARTIAL, "0-0");
    gives("bytes=0-", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=9-", 10, RANGE_PARTIAL, "9-9");
    gives("bytes=3-99", 10, RANGE_PARTIAL, "3-9");
    gives("bytes=-3", 10, RANGE_PARTIAL, "7-9");
    gives("bytes=-10", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=-99", 10, RANGE_PARTIAL, "0-9");
    gives("Bytes=1-2", 10, RANGE_PARTIAL, "1-2");
    gives("bytes= 1-2 ,", 10, RANGE_PARTIAL, "1-2");
    gives("bytes=0-99999999999999999999999", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=-99999999999999999999999", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=18446744073709551613-", UINT64_MAX, RANGE_PARTIAL,
          "18446744073709551613-18446744073709551614");
}

static void unsatisfiable(void **state)
{
    (void)state;
    gives("bytes=10-", 10, RANGE_UNSATISFIABLE, "");
    gives("bytes=10-11,12-", 10, RANGE_UNSATISFIABLE, "");
    gives("bytes=-0", 10, RANGE_UNSATISFIABLE, "");
    gives("bytes=0-", 0, RANGE_UNSATISFIABLE, "");
    gives("bytes=-1", 0, RANGE_UNSATISFIABLE, "");
    gives("bytes=99999999999999999999999-", 10, RANGE_UNSATISFIABLE, "");
    gives("bytes=10-,0-1", 10, RANGE_PARTIAL, "0-1"); /* one that can be is enough */
}

static void ignored(void **state)
{
    static const char *const bad[] = {
        "",          "bytes",      "bytes=",      "bytes=,",     "bytes=a",      "bytes=-",
        "bytes=2-1", "bytes=0-1;", "bytes=+1-2",  "bytes=1--2",  "bytes=0x1-2",  "items=0-1",
        "bytes 0-1", "bytes=1 -2", "bytes=0-1,x", "bytes=0-1 2", "bytes=0-1,5-4"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        gives(bad[i], 10, RANGE_WHOLE, "");
}

static void several(void **state)
{
    (void)state;
    gives("bytes=0-1,4-5", 10, RANGE_PARTIAL, "0-1,4-5");
    gives("bytes=4-5,0-1", 10, RANGE_PARTIAL, "4-5,0-1");
    gives("bytes=0-1, 2-3", 10, RANGE_PARTIAL, "0-3");
    gives("bytes=0-5,3-8", 10, RANGE_PARTIAL, "0-8");
    gives("bytes=6-7,0-1,2-5", 10, RANGE_PARTIAL, "0-7");
    gives("bytes=0-0,8-9,4-4,0-4", 10, RANGE_PARTIAL, "0-4,8-9");
    gives("bytes=8-9,0-0,4-4,0-7", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=0-,0-,0-,0-", 10, RANGE_PARTIAL, "0-9");
    gives("bytes=-1,0-0", 10, RANGE_PARTIAL, "9-9,0-0");
}

static void sixteen_and_no_more(void **state)
{
    char value[256];

    (void)state;
    for (unsigned n = HTTP_RANGES_MAX; n <= HTTP_RANGES_MAX + 1; n++)
        for (unsigned apart = 1; apart <= 2; apart++) {
            struct buf b = buf_of(value, sizeof value);
            struct ranges ranges;

            buf_add_lit(&b, "bytes=");
            for (unsigned i = 0; i < n; i++)
                buf_printf(&b, "%u-%u,", i * apart, i * apart);
            assert_int_equal(ranges_parse(buf_str(&b), 1000, &ranges),
                             n > HTTP_RANGES_MAX ? RANGE_WHOLE : RANGE_PARTIAL);
            assert_int_equal(ranges.n, n > HTTP_RANGES_MAX ? 0 : apart == 1 ? 1 : HTTP_RANGES_MAX);
        }
}

static void content_range(void **state)
{
    static const char *const bad[] = {"",
                                      "bytes",
                                      "bytes 0-4",
                                      "bytes 0-4/",
                                      "bytes 0-4/4",
                                      "bytes 4-0/9",
                                      "bytes */*",
                                      "bytes -4/9",
                                      "bytes 0-/9",
                                      "items 0-4/9",
                                      "bytes 0-4/x",
                                      "bytes=0-4/9",
                                      "bytes +0-4/9",
                                      "bytes 0-4 /9",
                                      "bytes 0-18446744073709551615/*",
                                      "bytes /9",
                                      "bytes 0-99999999999999999999/*"};
    struct content_range r;
    char text[64];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(content_range_parse(str_z(bad[i]), &r), -22);
    content_range_add(&b, (struct range){3, 7}, 10);
    assert_str(buf_str(&b), "bytes 3-7/10");
    assert_int_equal(content_range_parse(buf_str(&b), &r), 0);
    assert_true(!r.unsatisfied && r.has_total && r.first == 3 && r.last == 7 && r.total == 10);
    b.n = 0;
    content_range_unsatisfied_add(&b, 10);
    assert_str(buf_str(&b), "bytes */10");
    assert_int_equal(content_range_parse(buf_str(&b), &r), 0);
    assert_true(r.unsatisfied && r.total == 10);
    assert_int_equal(content_range_parse(STR("Bytes 0-0/*"), &r), 0);
    assert_true(!r.has_total && r.first == 0 && r.last == 0);
}

static void multipart(void **state)
{
    const struct ranges ranges = {.n = 2, .at = {{0, 1}, {95, 104}}};
    const struct str boundary = STR("b0undary"), types[] = {STR_INIT("audio/ogg"), STR_INIT("")};
    char text[512];

    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        struct buf b = buf_of(text, sizeof text);

        for (unsigned i = 0; i < ranges.n; i++) {
            size_t before = b.n;

            range_part_head_add(&b, boundary, types[t], ranges.at[i], 1000);
            assert_int_equal(b.n - before, range_part_head_bytes(boundary, types[t], ranges.at[i], 1000));
            for (uint64_t n = ranges.at[i].first; n <= ranges.at[i].last; n++)
                buf_add_char(&b, 'x');
        }
        range_parts_end_add(&b, boundary);
        assert_true(b.n == range_parts_bytes(&ranges, boundary, types[t], 1000));
        if (t == 0)
            assert_str(buf_str(&b),
                       "\r\n--b0undary\r\nContent-Type: audio/ogg\r\nContent-Range: bytes 0-1/1000\r\n\r\nxx"
                       "\r\n--b0undary\r\nContent-Type: audio/ogg\r\nContent-Range: bytes 95-104/1000\r\n"
                       "\r\nxxxxxxxxxx\r\n--b0undary--\r\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single),    cmocka_unit_test(unsatisfiable),       cmocka_unit_test(ignored),
        cmocka_unit_test(several),   cmocka_unit_test(sixteen_and_no_more), cmocka_unit_test(content_range),
        cmocka_unit_test(multipart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
