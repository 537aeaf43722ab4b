/* What an answer from above means: is it the slice that was asked for, may it be kept and shared, for how
 * long, and under which head. */
#include "cache/freshness.h"
#include "http/conditional.h"
#include "http/date.h"
#include "http/range.h"
#include "http/vary.h"
#include "proxy/fill.h"
#include "proxy/upward.h"
#include "util/clock.h"

#include <errno.h>
#include <stdlib.h>

static enum fill_meaning fail(struct fill *f, unsigned status, const char *reason)
{
    f->error.status = (uint16_t)status;
    f->error.reason = reason;
    return FILL_MEANS_ERROR;
}

/* --- freshness --- */

static void rule_freshness(const struct fill *f, struct freshness_rule *out)
{
    const struct rule *rule = f->rule;

    *out = (struct freshness_rule){
        .has_ttl = rule->ttl_given,
        .override = rule->override,
        .ttl_s = (uint32_t)rule->ttl_s,
        .negative_ttl_s = (uint32_t)rule->negative_ttl_s,
        .swr_s = rule->swr_given ? (uint32_t)rule->stale_while_revalidate_s : 0,
        .sie_s = rule->sie_given ? (uint32_t)rule->stale_if_error_s : 0,
        .store_set_cookie = rule->store_set_cookie,
        .store_authorization = rule->store_authorization,
        .honour_request = rule->client_cache_control,
    };
}

static void freshness_from(const struct fill *f, const struct http1_response *response, const char *base,
                           bool vary_fails, struct freshness *out)
{
    const struct fields *fields = &response->fields;
    int64_t now_s = (int64_t)io_now_unix_s(f->worker->io);
    struct cache_control cc, targeted;
    struct freshness_rule rule;
    struct freshness_request ask = {.authorization = f->authorization};
    struct freshness_response r = {
        .status = response->status == 206 ? 200 : response->status,
        .has_expires = fields_has(fields, FIELD_EXPIRES),
        .has_validator = fields_has(fields, FIELD_ETAG) || fields_has(fields, FIELD_LAST_MODIFIED),
        .has_set_cookie = fields_has(fields, FIELD_SET_COOKIE),
        .vary_fails = vary_fails,
        .request_s = (int64_t)f->request_unix_s,
        .response_s = now_s,
    };

    rule_freshness(f, &rule);
    cache_control_parse(fields, base, &cc);
    r.targeted = cache_control_parse_targeted(fields, base, &targeted) == 1;
    r.cc = r.targeted ? &targeted : &cc;
    if (r.has_expires && (fields_count(fields, FIELD_EXPIRES) != 1 ||
                          date_parse(fields_get(fields, base, FIELD_EXPIRES), now_s, &r.expires_s) != 0))
        r.expires_s = 0;
    r.has_date = fields_has(fields, FIELD_DATE) &&
                 date_parse(fields_get(fields, base, FIELD_DATE), now_s, &r.date_s) == 0;
    r.has_age =
        fields_has(fields, FIELD_AGE) && str_to_u64(fields_get(fields, base, FIELD_AGE), &r.age_s) == 0;
    freshness_of(&ask, &r, &rule, out);
}

/* --- the head --- */

/* What is never part of a kept or relayed head: framing and hops are ours, Age is told anew for each answer.
 * Cache-Status stays, since it says what the caches above did when they gave it (RFC 9211, section 3). */
static const uint64_t dropped = FIELD_BIT(FIELD_CONTENT_LENGTH) | FIELD_BIT(FIELD_TRANSFER_ENCODING) |
                                FIELD_BIT(FIELD_X_CACHE) | FIELD_BIT(FIELD_ACCEPT_RANGES);

struct head_plan {
    unsigned status;
    bool has_length;
    uint64_t length; /* for Content-Length */
    bool keep_age;   /* relayed as it came */
    bool drop_set_cookie, drop_content_range, accept_ranges;
};

static void add_fields(const struct fill *f, const struct http1_response *response, const char *base,
                       const struct head_plan *plan, struct buf *b)
{
    const struct fields *fields = &response->fields;
    struct field_set hop_by_hop = fields_hop_by_hop(fields, base);
    uint64_t without = dropped;

    if (!plan->keep_age)
        without |= FIELD_BIT(FIELD_AGE);
    if (plan->drop_set_cookie)
        without |= FIELD_BIT(FIELD_SET_COOKIE);
    if (plan->drop_content_range)
        without |= FIELD_BIT(FIELD_CONTENT_RANGE);
    if (f->worker->proxy->role == PROXY_ROLE_EDGE) /* for caches, not for listeners */
        without |= FIELD_BIT(FIELD_SURROGATE_KEY) | FIELD_BIT(FIELD_SURROGATE_CONTROL);
    for (unsigned i = 0; i < fields->n; i++)
        if (!(without & FIELD_BIT(fields->at[i].id)) && !field_set_has(&hop_by_hop, i))
            http1_add_field(b, field_name(fields, base, i), field_value(fields, base, i));
    if (!fields_has(fields, FIELD_DATE)) /* RFC 9110, 6.6.1: a recipient with a clock adds it */
        http1_add_field(b, STR("Date"), worker_date(f->worker));
    if (plan->accept_ranges)
        buf_add_lit(b, "Accept-Ranges: bytes\r\n");
    if (f->rule->immutable && !fields_has(fields, FIELD_CACHE_CONTROL) && plan->status == 200)
        buf_printf(b, "Cache-Control: public, max-age=%llu, immutable\r\n",
                   (unsigned long long)f->rule->ttl_s);
}

/* Renders the head as struct object keeps it. The memory at spec->head.p is the caller's to free. */
static int render_head(const struct fill *f, const struct http1_response *response, const char *base,
                       const struct head_plan *plan, struct object_spec *spec)
{
    struct buf b = {.cap = f->head_n + 1024};
    int error;

    b.p = malloc(b.cap);
    if (b.p == NULL)
        return -ENOMEM;
    http1_add_status_line(&b, plan->status);
    if (plan->has_length)
        http1_add_field_u64(&b, STR("Content-Length"), plan->length);
    add_fields(f, response, base, plan, &b);
    spec->head = buf_str(&b);
    error = b.overflow || b.n > OBJECT_HEAD_BYTES_MAX ? -E2BIG : 0;
    return error != 0 ? error : object_head_scan(spec);
}

/* --- which bytes these are --- */

struct part {
    bool ranged;
    uint64_t total; /* of the representation, FLIGHT_LENGTH_UNKNOWN */
};

enum part_result { PART_GOOD, PART_ASK_WHOLE, PART_ERROR };

static bool has_strong_validator(const struct http1_response *response, const char *base)
{
    struct validators v;

    validators_of(&response->fields, base, (int64_t)clock_unix_s(), &v);
    return (v.etag.opaque.n > 0 && !v.etag.weak) || (v.has_last_modified && v.last_modified_strong);
}

static enum part_result part_of_206(const struct fill *f, struct part *out)
{
    const struct http1_response *r = &f->response;
    uint64_t first = (uint64_t)flight_slice(f->flight) * CACHE_SLICE_BYTES;
    struct content_range range;

    if (!f->asked_range)
        return PART_ERROR;
    if (content_range_parse(fields_get(&r->fields, f->head, FIELD_CONTENT_RANGE), &range) != 0 ||
        range.unsatisfied || !range.has_total || range.first != first ||
        range.total > (uint64_t)CACHE_SLICES_MAX * CACHE_SLICE_BYTES)
        return PART_ASK_WHOLE;
    if (range.last + 1 != range.total && range.last + 1 != first + CACHE_SLICE_BYTES)
        return PART_ASK_WHOLE; /* less than was asked for, which a server may send */
    if (range.last >= first + CACHE_SLICE_BYTES || r->framing != HTTP_BODY_LENGTH ||
        r->content_length != range.last - range.first + 1)
        return PART_ASK_WHOLE;
    /* RFC 9110, 15.3.7.3: parts are put together only under one strong validator. */
    if (range.total > CACHE_SLICE_BYTES && !has_strong_validator(r, f->head))
        return PART_ASK_WHOLE;
    *out = (struct part){.ranged = true, .total = range.total};
    return PART_GOOD;
}

/* --- kept answers --- */

static int variant_of(const struct fill *f, struct str names, uint64_t *out)
{
    static const char start[] = "GET / HTTP/1.1\r\nHost: x\r\n";
    struct buf b = {.cap = sizeof start + f->fields.n + 4};
    struct http1_request parsed;
    int n;

    *out = 0;
    if (names.n == 0)
        return 0;
    b.p = malloc(b.cap);
    if (b.p == NULL)
        return -ENOMEM;
    buf_add_lit(&b, "GET / HTTP/1.1\r\nHost: x\r\n");
    buf_add_str(&b, f->fields);
    http1_add_head_end(&b);
    n = http1_parse_request(b.p, b.n, &parsed);
    if (n > 0)
        *out = upward_variant(names, &parsed.fields, b.p);
    free(b.p);
    return n > 0 ? 0 : -EINVAL;
}

/* Renders the head and tells the flight. */
static enum fill_meaning begin(struct fill *f, const struct head_plan *plan, struct flight_answer *a)
{
    int error = render_head(f, &f->response, f->head, plan, &a->spec);

    if (error == 0)
        error = flight_begin(f->flight, a, worker_now_ns(f->worker));
    free((void *)(uintptr_t)a->spec.head.p);
    return error == 0 ? FILL_MEANS_BODY
                      : fail(f, error == -ENOMEM ? 503 : 502, "the answer's head is too long");
}

/* A fill's answer that a cache may look at: to be stored, shared, or neither. */
static enum fill_meaning begin_cacheable(struct fill *f, const struct part *part)
{
    const struct http1_response *r = &f->response;
    char vary_bytes[HTTP_VARY_BYTES_MAX];
    struct buf vary = buf_of(vary_bytes, sizeof vary_bytes);
    int vary_n = vary_names(&r->fields, f->head, &vary);
    struct flight_answer a = {.ranged = part->ranged};
    struct freshness fresh;
    bool has_length = r->framing == HTTP_BODY_LENGTH || r->framing == HTTP_BODY_NONE;
    struct head_plan plan = {
        .status = part->ranged ? 200 : r->status,
        .has_length = has_length && r->status != 204,
        .drop_content_range = part->ranged,
        .accept_ranges = r->status == 200 || part->ranged,
    };

    freshness_from(f, r, f->head, vary_n < 0, &fresh);
    a.length = r->framing == HTTP_BODY_NONE ? 0 : has_length ? r->content_length : FLIGHT_LENGTH_UNKNOWN;
    a.store = fresh.store == FRESHNESS_STORE &&
              (part->ranged || (flight_slice(f->flight) == 0 && a.length <= CACHE_SLICE_BYTES) ||
               (flight_slice(f->flight) == 0 && r->framing == HTTP_BODY_CHUNKED));
    /* An answer that ends with its connection may have been cut short without a sign. */
    if (r->framing == HTTP_BODY_CLOSE ||
        (part->total != FLIGHT_LENGTH_UNKNOWN && part->total > f->site->site->conf->limits.object_bytes_max))
        a.store = false;
    /* What must be asked for each time is one client's; failures of the origin are everybody's. */
    a.shared = fresh.store == FRESHNESS_STORE || fresh.store == FRESHNESS_NOT_FRESH || r->status >= 500;
    if (fresh.store == FRESHNESS_STORE && (fresh.lifetime_s == 0 || fresh.flags & OBJECT_NO_CACHE))
        a.shared = false;
    plan.length = part->ranged ? part->total : a.length;
    plan.drop_set_cookie = a.store;
    a.spec = (struct object_spec){
        .status = (uint16_t)plan.status,
        .flags = fresh.flags,
        .total_bytes = plan.length,
        .birth_unix_s = fresh.birth_unix_s,
        .lifetime_s = fresh.lifetime_s,
        .swr_s = fresh.swr_s,
        .sie_s = fresh.sie_s,
        .epoch = f->epoch,
        .vary = vary_n > 0 ? buf_str(&vary) : STR_NONE,
        .tags = fields_get(&r->fields, f->head, FIELD_SURROGATE_KEY),
    };
    if (variant_of(f, a.spec.vary, &a.spec.variant) != 0)
        a.store = false;
    return begin(f, &plan, &a);
}

static enum fill_meaning begin_passed(struct fill *f)
{
    const struct http1_response *r = &f->response;
    bool has_length = r->framing == HTTP_BODY_LENGTH || r->has_content_length;
    struct flight_answer a = {.length = r->framing == HTTP_BODY_LENGTH ? r->content_length
                                        : r->framing == HTTP_BODY_NONE ? 0
                                                                       : FLIGHT_LENGTH_UNKNOWN,
                              .opaque = true};
    struct head_plan plan = {.status = r->status,
                             /* A 204 that says one is nothing that a client may get (RFC 9110, 8.6). */
                             .has_length = r->status != 204 &&
                                           (has_length || (r->framing == HTTP_BODY_NONE && r->status != 304 &&
                                                           f->method != HTTP_HEAD)),
                             .length = r->content_length,
                             .keep_age = true};

    a.spec = (struct object_spec){
        .status = r->status, .total_bytes = a.length, .birth_unix_s = io_now_unix_s(f->worker->io)};
    return begin(f, &plan, &a);
}

/* --- 304 --- */

/* What a 304 never changes (RFC 9111, 3.2). */
static const uint64_t not_updated = FIELD_BIT(FIELD_CONTENT_LENGTH) | FIELD_BIT(FIELD_CONTENT_ENCODING) |
                                    FIELD_BIT(FIELD_CONTENT_TYPE) | FIELD_BIT(FIELD_CONTENT_RANGE) |
                                    FIELD_BIT(FIELD_ETAG);

/* The stored fields that the 304 does not bring anew, then the 304's: one head, as if it had come so. */
static size_t merge_heads(const struct fill *f, struct buf *b)
{
    const struct fields *fresh = &f->response.fields;
    struct str tail = object_head_tail(f->revalidate);

    http1_add_status_line(b, f->revalidate->status);
    while (tail.n > 0) {
        const char *nl = memchr(tail.p, '\n', tail.n);
        struct str line = str_of(tail.p, nl == NULL ? tail.n : (size_t)(nl - tail.p) + 1);
        const char *colon = memchr(line.p, ':', line.n);
        struct str name = str_of(line.p, colon == NULL ? 0 : (size_t)(colon - line.p));
        enum field_id id = field_id_of(name);

        if ((not_updated & FIELD_BIT(id) && id != FIELD_OTHER) ||
            fields_find(fresh, f->head, name, 0) == FIELD_END)
            buf_add_str(b, line);
        tail = str_skip(tail, line.n);
    }
    for (unsigned i = 0; i < fresh->n; i++)
        if (fresh->at[i].id == FIELD_OTHER || !(not_updated & FIELD_BIT(fresh->at[i].id)))
            http1_add_field(b, field_name(fresh, f->head, i), field_value(fresh, f->head, i));
    http1_add_head_end(b);
    return b->n;
}

static int renew(struct fill *f, const struct http1_response *merged, const char *base, struct object **out)
{
    struct memory *m = f->worker->proxy->memory;
    struct object *old = f->revalidate;
    struct head_plan plan = {.status = old->status,
                             .has_length = true,
                             .length = object_total_bytes(old),
                             .drop_set_cookie = true,
                             .accept_ranges = old->status == 200};
    struct freshness fresh;
    struct object_spec spec;
    int error;

    freshness_from(f, merged, base, false, &fresh);
    if (fresh.store != FRESHNESS_STORE)
        return -ESTALE;
    spec = (struct object_spec){
        .key = flight_key(f->flight),
        .slice = object_slice(old),
        .variant = object_variant(old),
        .status = old->status,
        .flags = fresh.flags,
        .total_bytes = object_total_bytes(old),
        .birth_unix_s = fresh.birth_unix_s,
        .lifetime_s = fresh.lifetime_s,
        .swr_s = fresh.swr_s,
        .sie_s = fresh.sie_s,
        .epoch = f->epoch,
        .vary = object_vary(old),
        .tags = fields_has(&merged->fields, FIELD_SURROGATE_KEY)
                    ? fields_get(&merged->fields, base, FIELD_SURROGATE_KEY)
                    : object_tags(old),
    };
    error = render_head(f, merged, base, &plan, &spec);
    if (error == 0)
        error = memory_object_renew(m, &spec, old, out);
    free((void *)(uintptr_t)spec.head.p);
    if (error == 0)
        (void)memory_insert(m, *out); /* not kept: its readers have it all the same */
    return error;
}

static bool is_for_what_we_have(const struct fill *f)
{
    struct str now = fields_get(&f->response.fields, f->head, FIELD_ETAG), had = object_etag(f->revalidate);
    struct etag a, b;

    if (now.n == 0 || had.n == 0 || etag_parse(now, &a) != 0 || etag_parse(had, &b) != 0)
        return true;
    return etag_eq_weak(&a, &b);
}

static enum fill_meaning not_modified(struct fill *f)
{
    struct str tail;
    struct http1_response merged;
    struct object *object = NULL;
    struct buf b;
    int error = -EINVAL;

    if (f->revalidate == NULL)
        return fail(f, 502, "a 304 for what was not asked to be validated");
    if (!is_for_what_we_have(f)) { /* RFC 9111, 4.3.3: it validates another one; so fetch it */
        object_unref(f->worker->proxy->memory, &f->revalidate);
        return FILL_MEANS_ASK_AGAIN;
    }
    tail = object_head_tail(f->revalidate);
    b = (struct buf){.cap = tail.n + f->head_n + 128};
    b.p = malloc(b.cap);
    if (b.p == NULL)
        return fail(f, 503, "out of memory");
    merge_heads(f, &b);
    if (!b.overflow && http1_parse_response(b.p, b.n, true, &merged) > 0)
        error = renew(f, &merged, b.p, &object);
    free(b.p);
    if (error !=
        0) { /* it may be kept no longer, or there is no room: fetch it as if it had not been there */
        memory_remove(f->worker->proxy->memory, f->revalidate);
        object_unref(f->worker->proxy->memory, &f->revalidate);
        return FILL_MEANS_ASK_AGAIN;
    }
    flight_complete_with(&f->flight, object);
    object_unref(f->worker->proxy->memory, &object);
    return FILL_MEANS_COMPLETE;
}

/* --- all of them --- */

static enum fill_meaning ask_whole(struct fill *f)
{
    if (f->whole)
        return fail(f, 502, "the origin's answer does not fit what was asked");
    f->whole = true;
    return FILL_MEANS_ASK_AGAIN;
}

static enum fill_meaning unsatisfiable(struct fill *f)
{
    struct content_range range;

    if (flight_slice(f->flight) == 0) /* an empty object has no first byte: then it is fetched whole */
        return ask_whole(f);
    if (content_range_parse(fields_get(&f->response.fields, f->head, FIELD_CONTENT_RANGE), &range) == 0 &&
        range.unsatisfied && range.has_total)
        f->error.total_bytes = range.total;
    return fail(f, 416, "beyond the end");
}

enum fill_meaning fill_understand(struct fill *f)
{
    const struct http1_response *r = &f->response;
    struct part part = {.total = r->framing == HTTP_BODY_LENGTH ? r->content_length
                                 : r->framing == HTTP_BODY_NONE ? 0
                                                                : FLIGHT_LENGTH_UNKNOWN};

    if (!f->cacheable)
        return begin_passed(f);
    if (r->status == 304)
        return not_modified(f);
    if (r->status == 416 && f->asked_range)
        return unsatisfiable(f);
    if (r->status == 206) {
        switch (part_of_206(f, &part)) {
        case PART_GOOD:
            break;
        case PART_ASK_WHOLE:
            return ask_whole(f);
        case PART_ERROR:
            return fail(f, 502, "a part that was not asked for");
        }
    }
    return begin_cacheable(f, &part);
}
