/* Range, Content-Range, dates and entity tags: ranges lie inside the length and never overlap, what is
 * written parses to the same. The first 8 bytes are the length. */
#include "fuzz.h"

#include "http/conditional.h"
#include "http/date.h"
#include "http/range.h"

static void check_ranges(struct str value, uint64_t length)
{
    struct ranges ranges;
    enum range_result r = ranges_parse(value, length, &ranges);
    char text[4096];
    struct buf b = buf_of(text, sizeof text);

    CHECK((r == RANGE_PARTIAL) == (ranges.n > 0) && ranges.n <= HTTP_RANGES_MAX);
    buf_add_lit(&b, "bytes=");
    for (unsigned i = 0; i < ranges.n; i++) {
        struct range a = ranges.at[i];
        struct content_range parsed;
        char line[80];
        struct buf one = buf_of(line, sizeof line);

        CHECK(a.first <= a.last && a.last < length);
        for (unsigned k = 0; k < i; k++)
            CHECK(a.last + 1 < ranges.at[k].first || ranges.at[k].last + 1 < a.first);
        content_range_add(&one, a, length);
        CHECK(content_range_parse(buf_str(&one), &parsed) == 0 && parsed.first == a.first &&
              parsed.last == a.last && parsed.total == length && parsed.has_total && !parsed.unsatisfied);
        one.n = 0;
        range_part_head_add(&one, STR("x"), STR_NONE, a, length);
        CHECK(one.overflow || one.n == range_part_head_bytes(STR("x"), STR_NONE, a, length));
        buf_add_u64(&b, a.first);
        buf_add_char(&b, '-');
        buf_add_u64(&b, a.last);
        buf_add_char(&b, ',');
    }
    if (r == RANGE_PARTIAL) {
        struct ranges again;

        CHECK(ranges_parse(buf_str(&b), length, &again) == RANGE_PARTIAL && again.n == ranges.n);
        CHECK(memcmp(again.at, ranges.at, ranges.n * sizeof ranges.at[0]) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size), head = fuzz_take(&in, 8);
    uint64_t length = 0;
    char *copy = exact_copy(in.p, in.n), text[DATE_BYTES];
    struct str value = str_of(copy, in.n);
    struct content_range cr;
    struct etag tag;
    int64_t s, again;

    if (head.n > 0)
        memcpy(&length, head.p, head.n);
    check_ranges(value, length);
    if (content_range_parse(value, &cr) == 0 && !cr.unsatisfied)
        CHECK(cr.first <= cr.last && (!cr.has_total || cr.last < cr.total));
    if (date_parse(value, 1790000000, &s) == 0) {
        date_format(s, text);
        CHECK(date_parse(str_of(text, DATE_BYTES), 0, &again) == 0);
        CHECK(again == s || s == 253402300800); /* a leap second at the end of year 9999 has no text */
    }
    if (etag_parse(value, &tag) == 0)
        CHECK(etag_eq_weak(&tag, &tag) && etag_eq_strong(&tag, &tag) != tag.weak);
    free(copy);
    return 0;
}
