#include "proxy/upward.h"

#include "http/vary.h"
#include "proxy/fill.h"
#include "proxy/request.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

/* What we write ourselves, or what is about the client's connection only. */
static const uint64_t never = FIELD_BIT(FIELD_HOST) | FIELD_BIT(FIELD_CONTENT_LENGTH) |
                              FIELD_BIT(FIELD_X_FORWARDED_FOR) | FIELD_BIT(FIELD_CDN_LOOP) |
                              FIELD_BIT(FIELD_VIA) | FIELD_BIT(FIELD_EXPECT);

/* What would make a shared answer depend on who asked first. Cookie: the answer is chosen without it, so one
 * client's cannot become everybody's. Accept-Encoding, Accept-Language and the like stay: Vary covers them.
 */
static const uint64_t not_for_fills =
    FIELD_BIT(FIELD_RANGE) | FIELD_BIT(FIELD_IF_RANGE) | FIELD_BIT(FIELD_IF_MATCH) |
    FIELD_BIT(FIELD_IF_NONE_MATCH) | FIELD_BIT(FIELD_IF_MODIFIED_SINCE) |
    FIELD_BIT(FIELD_IF_UNMODIFIED_SINCE) | FIELD_BIT(FIELD_COOKIE) | FIELD_BIT(FIELD_CACHE_CONTROL) |
    FIELD_BIT(FIELD_PRAGMA) | FIELD_BIT(FIELD_REFERER) | FIELD_BIT(FIELD_FORWARDED);

static const struct str max_forwards = STR_INIT("Max-Forwards");

bool upward_ends_here(const struct fields *fields, const char *base)
{
    unsigned i = fields_find(fields, base, max_forwards, 0);
    uint64_t left;

    return i != FIELD_END && str_to_u64(field_value(fields, base, i), &left) == 0 && left == 0;
}

/* Adds the field as it came, or Max-Forwards one less. */
static void add_field(struct str name, struct str value, enum upward_use use, struct buf *out)
{
    uint64_t left;

    if (use == UPWARD_PASS_OPTIONS && str_eq_nocase(name, max_forwards) && str_to_u64(value, &left) == 0 &&
        left > 0)
        http1_add_field_u64(out, max_forwards, left - 1);
    else
        http1_add_field(out, name, value);
}

/* Names by which an origin could be made to believe that the request was for another host, path, method or
 * client: no key and seldom a Vary holds them, so that one client's would be in everybody's answer. */
static const struct str overrides[] = {
    STR_INIT("X-Forwarded"), STR_INIT("X-Original"), STR_INIT("X-Rewrite"),    STR_INIT("X-Host"),
    STR_INIT("X-HTTP"),      STR_INIT("X-Method"),   STR_INIT("X-Real-IP"),    STR_INIT("X-Client"),
    STR_INIT("X-Override"),  STR_INIT("X-Proxy"),    STR_INIT("True-Client"),  STR_INIT("Front-End-"),
    STR_INIT("X-Cluster"),   STR_INIT("X-URL"),      STR_INIT("Max-Forwards"), STR_INIT("CF-"),
};

static bool is_override(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(overrides); i++)
        if (name.n >= overrides[i].n && str_eq_nocase(str_of(name.p, overrides[i].n), overrides[i]))
            return true;
    return false;
}

/* The fields that go up as they came, as if the request had no others. */
static void those_that_go_up(const struct fields *fields, const char *base, enum upward_use use,
                             struct fields *out)
{
    struct field_set hop_by_hop = fields_hop_by_hop(fields, base);
    uint64_t without = use == UPWARD_FILL ? never | not_for_fills : never;

    fields_init(out);
    for (unsigned i = 0; i < fields->n; i++) {
        struct str name = field_name(fields, base, i);

        if (without & FIELD_BIT(fields->at[i].id) || field_set_has(&hop_by_hop, i) ||
            str_eq_nocase(name, STR(UPWARD_PEER_FIELD)) || (use == UPWARD_FILL && is_override(name)))
            continue;
        (void)fields_add(out, base, fields->at[i].name_off, name.n, fields->at[i].value_off,
                         fields->at[i].value_n); /* no more than there were */
    }
}

void upward_fields(const struct fields *fields, const char *base, enum upward_use use, struct buf *out)
{
    struct fields up;

    those_that_go_up(fields, base, use, &up);
    for (unsigned i = 0; i < up.n; i++)
        add_field(field_name(&up, base, i), field_value(&up, base, i), use, out);
    /* Via and CDN-Loop are lists to which our member is added (RFC 9110, 7.6.3; RFC 8586, 2): earlier
     * members go on as lines of their own. */
    for (unsigned i = fields_first(fields, FIELD_CDN_LOOP); i != FIELD_END; i = fields->at[i].next)
        http1_add_field(out, STR("CDN-Loop"), field_value(fields, base, i));
    for (unsigned i = fields_first(fields, FIELD_VIA); i != FIELD_END; i = fields->at[i].next)
        http1_add_field(out, STR("Via"), field_value(fields, base, i));
}

uint64_t upward_variant(struct str vary, const struct fields *fields, const char *base)
{
    struct fields up;

    /* The fill's own request and every client's must come to the same: what does not go up is not there. */
    those_that_go_up(fields, base, UPWARD_FILL, &up);
    return vary_key(vary, &up, base).low | 1;
}

static void add_conditionals(struct fill *f, struct buf *b)
{
    struct str etag, date;

    if (f->revalidate == NULL)
        return;
    etag = object_etag(f->revalidate);
    date = object_last_modified(f->revalidate);
    if (etag.n > 0)
        http1_add_field(b, STR("If-None-Match"), etag);
    if (date.n > 0)
        http1_add_field(b, STR("If-Modified-Since"), date);
}

/* Cacheable answers are asked for a slice at a time, so that nobody has to know their length beforehand. What
 * is shorter than a slice comes whole. */
static void add_range(struct fill *f, struct buf *b)
{
    uint64_t first = (uint64_t)flight_slice(f->flight) * CACHE_SLICE_BYTES;

    f->asked_range = f->cacheable && !f->whole;
    if (!f->asked_range)
        return;
    buf_add_lit(b, "Range: bytes=");
    buf_add_u64(b, first);
    buf_add_char(b, '-');
    buf_add_u64(b, first + CACHE_SLICE_BYTES - 1);
    buf_add_lit(b, "\r\n");
}

static void add_framing(struct fill *f, struct buf *b)
{
    if (f->body_from == NULL) {
        /* RFC 9110, 8.6: methods that anticipate a body say that there is none. */
        if (f->method == HTTP_POST || f->method == HTTP_PUT || f->method == HTTP_PATCH)
            buf_add_lit(b, "Content-Length: 0\r\n");
    } else if (request_body_is_chunked(f->body_from)) {
        buf_add_lit(b, "Transfer-Encoding: chunked\r\n");
    } else {
        http1_add_field_u64(b, STR("Content-Length"), request_body_length(f->body_from));
    }
}

int upward_render(struct fill *f)
{
    const struct proxy_upstream *to = f->upstream->conf;
    const struct proxy_conf *conf = f->site->site->conf;
    size_t cap = f->method_name.n + to->path.n + f->path.n + f->query.n + to->host_field.n + f->fields.n +
                 to->peer_token.n + 2 * conf->name.n + 1024;
    struct buf b;

    if (f->revalidate != NULL)
        cap += object_etag(f->revalidate).n + object_last_modified(f->revalidate).n;
    b = buf_of(malloc(cap), cap);
    if (b.p == NULL)
        return -ENOMEM;
    buf_add_str(&b, f->method_name);
    buf_add_char(&b, ' ');
    buf_add_str(&b, to->path);
    buf_add_str(&b, f->path);
    if (f->query.n > 0) {
        buf_add_char(&b, '?');
        buf_add_str(&b, f->query);
    }
    buf_add_lit(&b, " HTTP/1.1\r\n");
    http1_add_field(&b, STR("Host"), to->host_field);
    buf_add_str(&b, f->fields);
    add_range(f, &b);
    if (!f->whole || f->asked_range)
        add_conditionals(f, &b);
    add_framing(f, &b);
    buf_printf(&b, "Via: %s " STR_FMT "\r\nCDN-Loop: " STR_FMT "; node=%s\r\n", f->via, STR_ARG(conf->name),
               STR_ARG(conf->name), f->worker->proxy->instance);
    if (to->peer_token.n > 0)
        http1_add_field(&b, STR(UPWARD_PEER_FIELD), to->peer_token);
    http1_add_head_end(&b);
    CHECK(!b.overflow);
    f->out = b.p;
    f->out_n = b.n;
    return 0;
}

void upward_forget(struct fill *f)
{
    if (f->out == NULL)
        return;
    explicit_bzero(f->out, f->out_n);
    free(TAKE(&f->out));
}

bool upward_is_loop(const struct fields *fields, const char *base, struct str name, const char *instance)
{
    struct field_members it = field_members_of(fields, base, FIELD_CDN_LOOP);
    struct str member, node = str_z(instance);

    while (field_members_next(&it, &member)) {
        struct str end = str_skip(member, member.n >= node.n ? member.n - node.n : 0);

        if (str_starts(member, name) && str_eq(end, node))
            return true;
    }
    return false;
}
