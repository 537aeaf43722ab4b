/* Cache-Control, CDN-Cache-Control and Vary, each field line a line of the input. What was understood can be
 * written and means the same; a line more of unknown directives changes nothing. */
#include "fuzz.h"

#include "http/cache_control.h"
#include "http/vary.h"

struct head {
    struct fields fields;
    char bytes[8192];
    size_t n;
};

static void add(struct head *h, struct str name, struct str value)
{
    if (h->fields.n == HTTP_FIELDS_MAX || name.n + value.n > sizeof h->bytes - h->n)
        return;
    memcpy(h->bytes + h->n, name.p, name.n);
    if (value.n > 0)
        memcpy(h->bytes + h->n + name.n, value.p, value.n);
    CHECK(fields_add(&h->fields, h->bytes, h->n, name.n, h->n + name.n, value.n) == 0);
    h->n += name.n + value.n;
}

static void check_same(const struct cache_control *a, const struct cache_control *b)
{
    CHECK(a->flags == b->flags && a->max_age_s == b->max_age_s && a->s_maxage_s == b->s_maxage_s);
    CHECK(a->stale_while_revalidate_s == b->stale_while_revalidate_s &&
          a->stale_if_error_s == b->stale_if_error_s);
    CHECK(a->max_stale_s == b->max_stale_s && a->min_fresh_s == b->min_fresh_s);
    CHECK(str_eq(a->no_cache_fields, b->no_cache_fields) && str_eq(a->private_fields, b->private_fields));
}

static void check_numbers(const struct cache_control *cc)
{
    CHECK(cc->max_age_s <= CACHE_CONTROL_DELTA_MAX && cc->s_maxage_s <= CACHE_CONTROL_DELTA_MAX);
    CHECK(cc->stale_while_revalidate_s <= CACHE_CONTROL_DELTA_MAX &&
          cc->stale_if_error_s <= CACHE_CONTROL_DELTA_MAX);
    CHECK((cc->flags & CC_HAS_MAX_AGE) || cc->max_age_s == 0);
    CHECK(!(cc->flags & CC_NO_CACHE_FIELDS) || cc->no_cache_fields.n > 0);
}

static void check_vary(const struct head *h)
{
    char text[HTTP_VARY_BYTES_MAX], again[HTTP_VARY_BYTES_MAX];
    struct buf a = buf_of(text, sizeof text), b = buf_of(again, sizeof again);
    static struct head second;

    if (vary_names(&h->fields, h->bytes, &a) < 0)
        return;
    fields_init(&second.fields);
    second.n = 0;
    add(&second, STR("Vary"), buf_str(&a));
    CHECK(vary_names(&second.fields, second.bytes, &b) >= 0 && str_eq(buf_str(&a), buf_str(&b)));
    CHECK(hash_eq(vary_key(buf_str(&a), &h->fields, h->bytes), vary_key(buf_str(&b), &h->fields, h->bytes)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct str names[] = {STR_INIT("Cache-Control"), STR_INIT("CDN-Cache-Control"),
                                       STR_INIT("Vary")};
    static struct head h, moved;
    static bool ready;
    struct str in = str_of((const char *)data, size);
    struct cache_control cc, after, targeted;

    if (!ready)
        hash_init_fixed(1);
    ready = true;
    fields_init(&h.fields);
    h.n = 0;
    while (in.n > 0) {
        unsigned which = fuzz_byte(&in) % 3;

        add(&h, names[which], str_trim_ows(fuzz_line(&in)));
    }
    cache_control_parse(&h.fields, h.bytes, &cc);
    check_numbers(&cc);
    if (cache_control_parse_targeted(&h.fields, h.bytes, &targeted) == 0)
        CHECK(targeted.flags == 0);
    check_numbers(&targeted);
    check_vary(&h);

    moved = h;
    add(&moved, names[0], STR("x-unknown=\"no-store, max-age=1\", max-agee=3"));
    cache_control_parse(&moved.fields, moved.bytes, &after);
    check_same(&cc, &after);
    return 0;
}
