#include "http/conditional.h"

#include "http/date.h"

#include <errno.h>

/* One entity-tag off the front of *s. A backslash is a byte like others here (RFC 9110, 8.8.3), so that this
 * is no quoted-string. */
static int take_etag(struct str *s, struct etag *out)
{
    bool weak = str_starts(*s, STR("W/"));
    struct str rest = str_skip(*s, weak ? 2 : 0);
    const char *end;

    if (rest.n < 2 || rest.p[0] != '"')
        return -EINVAL;
    end = memchr(rest.p + 1, '"', rest.n - 1);
    if (!end)
        return -EINVAL;
    out->weak = weak;
    out->opaque = str_of(rest.p, (size_t)(end - rest.p) + 1);
    for (size_t i = 1; i < out->opaque.n - 1; i++)
        if ((unsigned char)rest.p[i] <= ' ' || rest.p[i] == 0x7f)
            return -EINVAL;
    *s = str_skip(rest, out->opaque.n);
    return 0;
}

int etag_parse(struct str text, struct etag *out)
{
    struct str rest = text;
    struct etag tag;

    if (take_etag(&rest, &tag) < 0 || rest.n > 0)
        return -EINVAL;
    *out = tag;
    return 0;
}

bool etag_eq_strong(const struct etag *a, const struct etag *b)
{
    return !a->weak && !b->weak && etag_eq_weak(a, b);
}

bool etag_eq_weak(const struct etag *a, const struct etag *b)
{
    return a->opaque.n > 0 && str_eq(a->opaque, b->opaque);
}

void validators_of(const struct fields *f, const char *base, int64_t received_s, struct validators *out)
{
    int64_t date;

    *out = (struct validators){.date_s = received_s};
    if (fields_has(f, FIELD_ETAG) && etag_parse(fields_get(f, base, FIELD_ETAG), &out->etag) < 0)
        out->etag = (struct etag){.opaque = STR_NONE};
    if (fields_has(f, FIELD_LAST_MODIFIED) &&
        date_parse(fields_get(f, base, FIELD_LAST_MODIFIED), received_s, &out->last_modified_s) == 0)
        out->has_last_modified = true;
    if (fields_has(f, FIELD_DATE) && date_parse(fields_get(f, base, FIELD_DATE), received_s, &date) == 0) {
        out->date_s = date;
        out->last_modified_strong = out->has_last_modified && date > out->last_modified_s;
    }
}

/* Is the tag among those of If-Match or If-None-Match? What comes after a syntax error in a value is not
 * looked at. */
static bool list_matches(const struct fields *f, const char *base, enum field_id id, const struct etag *tag,
                         bool (*eq)(const struct etag *, const struct etag *))
{
    for (unsigned i = fields_first(f, id); i != FIELD_END; i = f->at[i].next) {
        struct str rest = field_value(f, base, i);
        struct etag other;

        if (str_eq(rest, STR("*")))
            return true;
        while (take_etag(&rest, &other) == 0) {
            if (eq(tag, &other))
                return true;
            rest = str_trim_ows(rest);
            if (rest.n > 0 && rest.p[0] != ',')
                break;
            while (rest.n > 0 && (rest.p[0] == ',' || rest.p[0] == ' ' || rest.p[0] == '\t'))
                rest = str_skip(rest, 1);
        }
    }
    return false;
}

/* The date of a field that is there once and is a date. */
static bool date_of(const struct fields *f, const char *base, enum field_id id, int64_t now_s, int64_t *out)
{
    return fields_count(f, id) == 1 && date_parse(fields_get(f, base, id), now_s, out) == 0;
}

static bool origin_preconditions_hold(const struct fields *f, const char *base, const struct validators *v,
                                      int64_t now_s)
{
    int64_t since;

    if (fields_has(f, FIELD_IF_MATCH))
        return list_matches(f, base, FIELD_IF_MATCH, &v->etag, etag_eq_strong);
    if (v->has_last_modified && date_of(f, base, FIELD_IF_UNMODIFIED_SINCE, now_s, &since))
        return v->last_modified_s <= since;
    return true;
}

enum conditional_result conditional_evaluate(const struct fields *f, const char *base,
                                             const struct validators *v, enum conditional_role role,
                                             int64_t now_s)
{
    int64_t since;

    if (role == CONDITIONAL_ORIGIN && !origin_preconditions_hold(f, base, v, now_s))
        return CONDITIONAL_FAILED;
    if (fields_has(f, FIELD_IF_NONE_MATCH))
        return list_matches(f, base, FIELD_IF_NONE_MATCH, &v->etag, etag_eq_weak) ? CONDITIONAL_NOT_MODIFIED
                                                                                  : CONDITIONAL_PROCEED;
    if (!date_of(f, base, FIELD_IF_MODIFIED_SINCE, now_s, &since))
        return CONDITIONAL_PROCEED;
    if (v->has_last_modified ? v->last_modified_s <= since : role == CONDITIONAL_CACHE && v->date_s <= since)
        return CONDITIONAL_NOT_MODIFIED;
    return CONDITIONAL_PROCEED;
}

bool conditional_range_applies(const struct fields *f, const char *base, const struct validators *v,
                               int64_t now_s)
{
    struct etag tag;
    int64_t date;

    if (!fields_has(f, FIELD_IF_RANGE))
        return true;
    if (fields_count(f, FIELD_IF_RANGE) != 1)
        return false;
    if (etag_parse(fields_get(f, base, FIELD_IF_RANGE), &tag) == 0)
        return etag_eq_strong(&v->etag, &tag);
    return v->has_last_modified && v->last_modified_strong &&
           date_of(f, base, FIELD_IF_RANGE, now_s, &date) && date == v->last_modified_s;
}
