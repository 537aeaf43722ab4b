#include "http/range.h"

#include "util/check.h"

#include <errno.h>

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

/* A position; one too big for a number is past every end. */
static bool parse_position(struct str s, uint64_t *out)
{
    if (!all_digits(s))
        return false;
    if (str_to_u64(s, out) < 0)
        *out = UINT64_MAX;
    return true;
}

enum spec { SPEC_BAD, SPEC_UNSATISFIABLE, SPEC_GOOD };

static enum spec parse_spec(struct str s, uint64_t length, struct range *out)
{
    const char *dash = memchr(s.p, '-', s.n);
    struct str first, last;
    uint64_t suffix;

    if (!dash)
        return SPEC_BAD;
    first = str_of(s.p, (size_t)(dash - s.p));
    last = str_skip(s, first.n + 1);
    if (first.n == 0) {
        if (!parse_position(last, &suffix))
            return SPEC_BAD;
        if (suffix == 0 || length == 0)
            return SPEC_UNSATISFIABLE;
        out->first = suffix >= length ? 0 : length - suffix;
        out->last = length - 1;
        return SPEC_GOOD;
    }
    if (!parse_position(first, &out->first))
        return SPEC_BAD;
    out->last = UINT64_MAX;
    if (last.n > 0 && (!parse_position(last, &out->last) || out->last < out->first))
        return SPEC_BAD;
    if (out->first >= length)
        return SPEC_UNSATISFIABLE;
    if (out->last >= length)
        out->last = length - 1;
    return SPEC_GOOD;
}

static bool overlap_or_touch(const struct range *a, const struct range *b)
{
    /* Both lie below a length, so that last + 1 does not overflow. */
    return a->first <= b->last + 1 && b->first <= a->last + 1;
}

/* Adds a range, taking in all that it meets; they become one, in the place of the first of them. */
static void add_coalesced(struct ranges *ranges, struct range r)
{
    unsigned place = ranges->n;

    for (unsigned i = 0; i < ranges->n;) {
        struct range *other = &ranges->at[i];

        if (!overlap_or_touch(other, &r)) {
            i++;
            continue;
        }
        r.first = r.first < other->first ? r.first : other->first;
        r.last = r.last > other->last ? r.last : other->last;
        place = i < place ? i : place;
        memmove(other, other + 1, (ranges->n - i - 1) * sizeof *other);
        ranges->n--;
        i = 0; /* it has grown, and may meet one that it did not before */
    }
    memmove(&ranges->at[place + 1], &ranges->at[place], (ranges->n - place) * sizeof r);
    ranges->at[place] = r;
    ranges->n++;
}

enum range_result ranges_parse(struct str value, uint64_t length, struct ranges *out)
{
    const struct str unit = STR("bytes=");
    unsigned specs = 0;

    out->n = 0;
    if (value.n < unit.n || !str_eq_nocase(str_of(value.p, unit.n), unit))
        return RANGE_WHOLE;
    value = str_skip(value, unit.n);
    while (value.n > 0) {
        const char *comma = memchr(value.p, ',', value.n);
        struct str one = comma ? str_of(value.p, (size_t)(comma - value.p)) : value;
        struct range range;
        enum spec spec;

        value = str_skip(value, one.n + 1);
        one = str_trim_ows(one);
        if (one.n == 0)
            continue; /* empty list members are allowed (5.6.1.2) */
        spec = parse_spec(one, length, &range);
        if (spec == SPEC_BAD || ++specs > HTTP_RANGES_MAX) {
            out->n = 0;
            return RANGE_WHOLE;
        }
        if (spec == SPEC_GOOD)
            add_coalesced(out, range);
    }
    if (specs == 0)
        return RANGE_WHOLE;
    return out->n > 0 ? RANGE_PARTIAL : RANGE_UNSATISFIABLE;
}

int content_range_parse(struct str value, struct content_range *out)
{
    const struct str unit = STR("bytes ");
    struct content_range r = {0};
    struct str range, total;
    const char *p;

    if (value.n < unit.n || !str_eq_nocase(str_of(value.p, unit.n), unit))
        return -EINVAL;
    value = str_skip(value, unit.n);
    p = memchr(value.p, '/', value.n);
    if (!p)
        return -EINVAL;
    range = str_of(value.p, (size_t)(p - value.p));
    total = str_skip(value, range.n + 1);
    r.has_total = !str_eq(total, STR("*"));
    if (r.has_total && str_to_u64(total, &r.total) < 0)
        return -EINVAL;
    if (str_eq(range, STR("*"))) {
        r.unsatisfied = true;
        if (!r.has_total)
            return -EINVAL;
        *out = r;
        return 0;
    }
    p = range.n ? memchr(range.p, '-', range.n) : NULL;
    if (!p || str_to_u64(str_of(range.p, (size_t)(p - range.p)), &r.first) < 0 ||
        str_to_u64(str_skip(range, (size_t)(p - range.p) + 1), &r.last) < 0 || r.first > r.last ||
        r.last == UINT64_MAX || (r.has_total && r.last >= r.total))
        return -EINVAL;
    *out = r;
    return 0;
}

void content_range_add(struct buf *b, struct range range, uint64_t total)
{
    CHECK(range.first <= range.last && range.last < total);
    buf_add_lit(b, "bytes ");
    buf_add_u64(b, range.first);
    buf_add_char(b, '-');
    buf_add_u64(b, range.last);
    buf_add_char(b, '/');
    buf_add_u64(b, total);
}

void content_range_unsatisfied_add(struct buf *b, uint64_t total)
{
    buf_add_lit(b, "bytes */");
    buf_add_u64(b, total);
}

static size_t digits(uint64_t v)
{
    size_t n = 1;

    for (; v >= 10; v /= 10)
        n++;
    return n;
}

#define PART_START     "\r\n--"
#define PART_TYPE      "\r\nContent-Type: "
#define PART_RANGE     "\r\nContent-Range: "
#define PART_END       "\r\n\r\n"
#define PARTS_END      "--\r\n"
#define LIT_N(literal) (sizeof(literal) - 1)

void range_part_head_add(struct buf *b, struct str boundary, struct str content_type, struct range range,
                         uint64_t total)
{
    buf_add_lit(b, PART_START);
    buf_add_str(b, boundary);
    if (content_type.n > 0) {
        buf_add_lit(b, PART_TYPE);
        buf_add_str(b, content_type);
    }
    buf_add_lit(b, PART_RANGE);
    content_range_add(b, range, total);
    buf_add_lit(b, PART_END);
}

size_t range_part_head_bytes(struct str boundary, struct str content_type, struct range range, uint64_t total)
{
    return LIT_N(PART_START) + boundary.n + (content_type.n > 0 ? LIT_N(PART_TYPE) + content_type.n : 0) +
           LIT_N(PART_RANGE) + LIT_N("bytes -/") + digits(range.first) + digits(range.last) + digits(total) +
           LIT_N(PART_END);
}

void range_parts_end_add(struct buf *b, struct str boundary)
{
    buf_add_lit(b, PART_START);
    buf_add_str(b, boundary);
    buf_add_lit(b, PARTS_END);
}

uint64_t range_parts_bytes(const struct ranges *ranges, struct str boundary, struct str content_type,
                           uint64_t total)
{
    uint64_t n = LIT_N(PART_START) + boundary.n + LIT_N(PARTS_END);

    for (unsigned i = 0; i < ranges->n; i++) {
        struct range r = ranges->at[i];

        n += range_part_head_bytes(boundary, content_type, r, total) + (r.last - r.first + 1);
    }
    return n;
}
