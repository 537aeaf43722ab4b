/* Heads of answers, and the plan of which bytes follow. A stored head is sent as it lies in the object; what
 * differs from request to request is rendered into r->rendered beside it. */
#include "proxy/conn.h"
#include "proxy/request.h"

#include <stdio.h>

void answer_view_of_object(const struct object *o, struct answer_view *v)
{
    *v = (struct answer_view){
        .head = object_head(o),
        .tail = object_head_tail(o),
        .etag = object_etag(o),
        .last_modified = object_last_modified(o),
        .total = object_total_bytes(o),
        .offset = (uint64_t)object_slice(o) * CACHE_SLICE_BYTES,
        .length = o->body_bytes,
        .birth_unix_s = o->birth_unix_s,
        .lifetime_s = o->lifetime_s,
        .status = o->status,
        .flags = o->flags,
    };
}

static struct str value_at(struct str head, uint16_t at)
{
    struct str rest = str_skip(head, at);
    const char *end = at == 0 ? NULL : memchr(rest.p, '\r', rest.n);

    return end == NULL ? STR_NONE : str_of(rest.p, (size_t)(end - rest.p));
}

void answer_view_of_flight(const struct flight *f, struct answer_view *v)
{
    const struct flight_answer *a = flight_answer(f);
    const struct object_spec *s = &a->spec;

    *v = (struct answer_view){
        .head = s->head,
        .tail = str_skip(s->head, s->head_tail_at),
        .etag = value_at(s->head, s->etag_at),
        .last_modified = value_at(s->head, s->last_modified_at),
        .total = a->length == FLIGHT_LENGTH_UNKNOWN ? FLIGHT_LENGTH_UNKNOWN : s->total_bytes,
        .offset = a->ranged ? (uint64_t)s->slice * CACHE_SLICE_BYTES : 0,
        .length = a->length,
        .birth_unix_s = s->birth_unix_s,
        .lifetime_s = s->lifetime_s,
        .status = s->status,
        .flags = s->flags,
        .opaque = a->opaque,
    };
}

uint64_t answer_version(const struct answer_view *v)
{
    struct hash128 h = hash_of(v->etag.n > 0 ? v->etag : v->last_modified);

    return (h.low ^ v->total * 0x9e3779b97f4a7c15ull) | 1;
}

/* Connection, and the empty line. */
static void add_end(struct request *r, struct buf *b)
{
    if (r->carrier->ops->frames_body) {
        http1_add_head_end(b);
        return;
    }
    if (r->close_after || r->carrier->ops->will_close(r->carrier) || !r->http.keep_alive) {
        r->close_after = true;
        buf_add_lit(b, "Connection: close\r\n");
    } else if (r->http.minor == 0) {
        buf_add_lit(b, "Connection: keep-alive\r\n");
    }
    http1_add_head_end(b);
}

static const char *x_cache_of(const struct request *r)
{
    switch (r->cache) {
    case ACCESS_CACHE_HIT:
    case ACCESS_CACHE_REVALIDATED:
        return "HIT";
    case ACCESS_CACHE_STALE:
        return "STALE";
    default:
        return "MISS";
    }
}

/* RFC 9211. `ttl` may be negative: then a stale answer was given. */
static void add_cache_status(struct request *r, const struct answer_view *v, struct buf *b)
{
    const struct proxy_conf *conf = r->site->site->conf;
    uint64_t now_s = io_now_unix_s(r->worker->io);
    bool hit = r->cache == ACCESS_CACHE_HIT || r->cache == ACCESS_CACHE_STALE;

    buf_add_lit(b, "Cache-Status: ");
    buf_add_str(b, conf->name);
    if (hit)
        buf_add_lit(b, "; hit");
    if (r->cache_status_detail != NULL) {
        buf_add_lit(b, "; ");
        buf_add_str(b, str_z(r->cache_status_detail));
    }
    if (v != NULL && !v->opaque) {
        int64_t ttl_s = v->lifetime_s - ((int64_t)now_s - (int64_t)v->birth_unix_s);

        buf_add_lit(b, "; ttl=");
        if (ttl_s < 0)
            buf_add_char(b, '-');
        buf_add_u64(b, ttl_s < 0 ? (uint64_t)-ttl_s : (uint64_t)ttl_s);
    }
    buf_add_lit(b, "\r\nX-Cache: ");
    buf_add_str(b, str_z(x_cache_of(r)));
    buf_add_lit(b, "\r\n");
}

/* RFC 9111, 5.1: an answer from storage has an Age; a fresh one only what upstream caches have added. */
static void add_age(struct request *r, const struct answer_view *v, struct buf *b)
{
    uint64_t now_s = io_now_unix_s(r->worker->io);
    uint64_t age_s = now_s > v->birth_unix_s ? now_s - v->birth_unix_s : 0;

    if (v->opaque || (age_s == 0 && r->cache != ACCESS_CACHE_HIT && r->cache != ACCESS_CACHE_STALE))
        return;
    buf_add_lit(b, "Age: ");
    buf_add_u64(b, age_s);
    buf_add_lit(b, "\r\n");
}

static struct buf out_of(struct request *r)
{
    r->out.vecs_n = r->out.head_vecs_n = 0;
    r->out.bytes = r->out.body_bytes = 0;
    return buf_of(r->rendered, sizeof r->rendered);
}

/* What has been added is the head; what follows is body. */
static void end_head(struct request *r, const struct buf *b)
{
    r->rendered_n = b->n;
    r->out.head_vecs_n = r->out.vecs_n;
}

/* The stored fields that a 304 carries (RFC 9110, 15.4.5), line by line. */
static void add_not_modified_fields(struct buf *b, struct str tail)
{
    while (tail.n > 0) {
        const char *nl = memchr(tail.p, '\n', tail.n);
        struct str line = str_of(tail.p, nl == NULL ? tail.n : (size_t)(nl - tail.p) + 1);
        const char *colon = memchr(line.p, ':', line.n);
        enum field_id id = field_id_of(str_of(line.p, colon == NULL ? 0 : (size_t)(colon - line.p)));

        if (id == FIELD_CACHE_CONTROL || id == FIELD_CONTENT_LOCATION || id == FIELD_DATE ||
            id == FIELD_ETAG || id == FIELD_EXPIRES || id == FIELD_VARY || id == FIELD_CDN_CACHE_CONTROL ||
            id == FIELD_LAST_MODIFIED)
            buf_add_str(b, line);
        tail = str_skip(tail, line.n);
    }
}

/* A stored head may be longer than r->rendered; then the connection's answer is the 304 without those fields. */
static void render_not_modified(struct request *r, const struct answer_view *v)
{
    struct buf b = out_of(r), fields;
    size_t first = 0;

    r->status = 304;
    http1_add_status_line(&b, 304);
    fields = b;
    add_not_modified_fields(&fields, v->tail);
    if (!fields.overflow && fields.cap - fields.n > 400) {
        b = fields;
    } else if (v->etag.n > 0) {
        buf_add_lit(&b, "ETag: ");
        request_add_vec(r, b.p, b.n);
        request_add_vec(r, v->etag.p, v->etag.n);
        first = b.n;
        buf_add_lit(&b, "\r\n");
    }
    add_age(r, v, &b);
    add_cache_status(r, v, &b);
    add_end(r, &b);
    CHECK(!b.overflow);
    request_add_vec(r, b.p + first, b.n - first);
    end_head(r, &b);
    r->head_only = true;
}

static struct str content_type_of(struct str tail)
{
    struct str name = STR("Content-Type:");

    while (tail.n > name.n) {
        const char *nl = memchr(tail.p, '\n', tail.n);
        size_t n = nl == NULL ? tail.n : (size_t)(nl - tail.p) + 1;

        if (str_eq_nocase(str_of(tail.p, name.n), name))
            return str_trim_ows(str_of(tail.p + name.n, n - name.n - 2));
        tail = str_skip(tail, n);
    }
    return STR_NONE;
}

/* The tail of a multipart answer has another Content-Type: it is sent in two pieces around the stored one. */
static void add_tail_without_type(struct request *r, struct str tail)
{
    struct str type = content_type_of(tail);
    const char *line;

    if (type.p == NULL) {
        request_add_vec(r, tail.p, tail.n);
        return;
    }
    line = type.p;
    while (line > tail.p && line[-1] != '\n')
        line--;
    if (line > tail.p)
        request_add_vec(r, tail.p, (size_t)(line - tail.p));
    line = type.p + type.n;
    while (*line++ != '\n')
        ;
    if (line < tail.p + tail.n)
        request_add_vec(r, line, (size_t)(tail.p + tail.n - line));
}

static void render_partial(struct request *r, const struct answer_view *v)
{
    struct buf b = out_of(r);
    size_t first;

    r->status = 206;
    r->multipart = r->ranges.n > 1;
    http1_add_status_line(&b, 206);
    if (r->multipart) {
        struct str boundary = str_of(r->boundary, sizeof r->boundary - 1), type = content_type_of(v->tail);

        /* Every part's, whatever the heads of later slices say: the length counts on it. */
        r->part_type_n = (uint8_t)type.n;
        if (type.n > 0)
            memcpy(r->part_type, type.p, type.n);
        (void)snprintf(r->boundary, sizeof r->boundary, "segue%016llx%03x",
                       (unsigned long long)worker_random(r->worker), r->worker->index & 0xfffu);
        http1_add_field_u64(&b, STR("Content-Length"),
                            range_parts_bytes(&r->ranges, boundary, type, v->total));
        buf_printf(&b, "Content-Type: multipart/byteranges; boundary=%s\r\n", r->boundary);
    } else {
        http1_add_field_u64(&b, STR("Content-Length"), r->ranges.at[0].last - r->ranges.at[0].first + 1);
        buf_add_lit(&b, "Content-Range: ");
        content_range_add(&b, r->ranges.at[0], v->total);
        buf_add_lit(&b, "\r\n");
    }
    first = b.n;
    add_age(r, v, &b);
    add_cache_status(r, v, &b);
    add_end(r, &b);
    CHECK(!b.overflow);
    request_add_vec(r, b.p, first);
    if (r->multipart)
        add_tail_without_type(r, v->tail);
    else
        request_add_vec(r, v->tail.p, v->tail.n);
    request_add_vec(r, b.p + first, b.n - first);
    end_head(r, &b);
}

static void render_whole(struct request *r, const struct answer_view *v)
{
    struct buf b = out_of(r);

    r->status = v->status;
    r->unknown_length = v->total == FLIGHT_LENGTH_UNKNOWN && !r->head_only;
    if (v->total == FLIGHT_LENGTH_UNKNOWN && r->http.minor == 0)
        r->close_after = true; /* its end is the end */
    r->chunked = r->unknown_length && r->http.minor > 0 && !r->carrier->ops->frames_body;
    if (v->total == FLIGHT_LENGTH_UNKNOWN && r->http.minor > 0 && !r->carrier->ops->frames_body)
        buf_add_lit(&b, "Transfer-Encoding: chunked\r\n");
    add_age(r, v, &b);
    add_cache_status(r, v, &b);
    add_end(r, &b);
    CHECK(!b.overflow);
    request_add_vec(r, v->head.p, v->head.n);
    request_add_vec(r, b.p, b.n);
    end_head(r, &b);
}

/* Sets r->at and r->end to the range that r->range_at names. */
static void plan(struct request *r, const struct answer_view *v, enum range_result result)
{
    r->total = v->total;
    r->range_at = 0;
    if (result != RANGE_PARTIAL) {
        r->ranges.n = 1;
        r->at = 0;
        r->end = v->opaque ? v->length : v->total; /* UINT64_MAX: until the flight's end */
        return;
    }
    r->at = r->ranges.at[0].first;
    r->end = r->ranges.at[0].last + 1;
}

static void validators_of_view(const struct request *r, const struct answer_view *v, struct validators *out)
{
    int64_t now_s = (int64_t)io_now_unix_s(r->worker->io);

    *out = (struct validators){.date_s = (int64_t)v->birth_unix_s};
    if (v->etag.n > 0)
        (void)etag_parse(v->etag, &out->etag);
    if (v->last_modified.n > 0 && date_parse(v->last_modified, now_s, &out->last_modified_s) == 0) {
        out->has_last_modified = true;
        /* RFC 9110, 8.8.2.2: strong when it was at least a second older than the answer's Date. */
        out->last_modified_strong = out->last_modified_s + 1 <= (int64_t)v->birth_unix_s;
    }
}

/* What is read forwards only cannot be sent in another order, and every part's head must fit r->rendered. */
static bool can_be_sent(const struct request *r, const struct answer_view *v)
{
    bool forwards = true;

    if (r->ranges.n > 1 && content_type_of(v->tail).n > sizeof r->part_type)
        return false;
    for (unsigned i = 1; i < r->ranges.n; i++)
        forwards = forwards && r->ranges.at[i - 1].last < r->ranges.at[i].first;
    return forwards || r->reader.flight == NULL || flight_keeps(r->reader.flight);
}

static const uint64_t conditional_fields = FIELD_BIT(FIELD_RANGE) | FIELD_BIT(FIELD_IF_RANGE) |
                                           FIELD_BIT(FIELD_IF_MATCH) | FIELD_BIT(FIELD_IF_NONE_MATCH) |
                                           FIELD_BIT(FIELD_IF_MODIFIED_SINCE) |
                                           FIELD_BIT(FIELD_IF_UNMODIFIED_SINCE);

void request_render(struct request *r, const struct answer_view *v)
{
    const struct fields *fields = &r->http.fields;
    enum range_result result = RANGE_WHOLE;
    int64_t now_s = (int64_t)io_now_unix_s(r->worker->io);

    r->version = v->opaque ? 1 : answer_version(v);
    if ((fields->present & conditional_fields) != 0 && v->status == 200 && !v->opaque) {
        struct validators validators;
        struct str range = fields_get(fields, r->head, FIELD_RANGE);

        validators_of_view(r, v, &validators);
        switch (conditional_evaluate(fields, r->head, &validators, CONDITIONAL_CACHE, now_s)) {
        case CONDITIONAL_NOT_MODIFIED:
            render_not_modified(r, v);
            return;
        case CONDITIONAL_FAILED:
            request_render_problem(r, 412, "the stored representation does not match");
            return;
        case CONDITIONAL_PROCEED:
            break;
        }
        if (range.p != NULL && r->http.method == HTTP_GET && v->total != FLIGHT_LENGTH_UNKNOWN &&
            conditional_range_applies(fields, r->head, &validators, now_s))
            result = ranges_parse(range, v->total, &r->ranges);
        if (result == RANGE_UNSATISFIABLE) {
            request_render_unsatisfiable(r, v->total);
            return;
        }
        if (result == RANGE_PARTIAL && !can_be_sent(r, v))
            result = RANGE_WHOLE; /* RFC 9110, 14.2: a server may ignore Range */
    }
    plan(r, v, result);
    if (result == RANGE_PARTIAL)
        render_partial(r, v);
    else
        render_whole(r, v);
    if (r->status == 204 || r->status == 304)
        r->head_only = true;
}

void request_render_part(struct request *r)
{
    struct str boundary = str_of(r->boundary, sizeof r->boundary - 1);
    struct buf b = buf_of(r->rendered + r->rendered_n, sizeof r->rendered - r->rendered_n);

    if (r->range_at == r->ranges.n)
        range_parts_end_add(&b, boundary);
    else
        range_part_head_add(&b, boundary, str_of(r->part_type, r->part_type_n), r->ranges.at[r->range_at],
                            r->total);
    CHECK(!b.overflow);
    request_add_vec(r, b.p, b.n);
}

/* An answer of our own: the head's end, and the body, which is whole. */
static void finish_text(struct request *r, struct buf *b, struct str body)
{
    size_t head_n;

    add_end(r, b);
    head_n = b->n;
    if (r->http.method != HTTP_HEAD)
        buf_add_str(b, body);
    CHECK(!b->overflow);
    request_add_vec(r, b->p, head_n);
    end_head(r, b);
    if (b->n > head_n)
        request_add_vec(r, b->p + head_n, b->n - head_n);
    r->head_only = true; /* nothing is to be added to it */
}

static void finish_problem(struct request *r, struct buf *b, unsigned status, const char *detail)
{
    char text[512];
    struct buf body = buf_of(text, sizeof text);

    buf_add_lit(&body, "{\"type\":\"about:blank\",\"title\":");
    buf_add_json(&body, str_z(http_status_reason(status)));
    buf_printf(&body, ",\"status\":%u,\"detail\":", status);
    buf_add_json(&body, str_z(detail));
    buf_add_lit(&body, "}\n");
    CHECK(!body.overflow);
    r->status = (uint16_t)status;
    buf_add_lit(b, "Content-Type: application/problem+json\r\nCache-Control: no-store\r\nDate: ");
    buf_add_str(b, worker_date(r->worker));
    buf_add_lit(b, "\r\n");
    if (r->retry_after_s > 0)
        http1_add_field_u64(b, STR("Retry-After"), r->retry_after_s);
    if (r->reason != NULL)
        http1_add_field(b, STR("Segue-Reason"), str_z(r->reason));
    http1_add_field_u64(b, STR("Content-Length"), body.n);
    add_cache_status(r, NULL, b);
    finish_text(r, b, buf_str(&body));
}

void request_render_problem(struct request *r, unsigned status, const char *detail)
{
    struct buf b = out_of(r);

    http1_add_status_line(&b, status);
    if (status == 405)
        http1_add_field(&b, STR("Allow"), r->rule != NULL ? r->rule->allow : STR("GET, HEAD"));
    finish_problem(r, &b, status, detail);
}

void request_render_unsatisfiable(struct request *r, uint64_t total)
{
    struct buf b = out_of(r);

    http1_add_status_line(&b, 416);
    buf_add_lit(&b, "Content-Range: ");
    content_range_unsatisfied_add(&b, total);
    buf_add_lit(&b, "\r\n");
    finish_problem(r, &b, 416, "no byte of the range exists");
}

void request_render_options(struct request *r)
{
    struct buf b = out_of(r);

    r->status = 204;
    http1_add_status_line(&b, 204);
    http1_add_field(&b, STR("Allow"), r->rule->allow);
    http1_add_field(&b, STR("Date"), worker_date(r->worker));
    add_cache_status(r, NULL, &b);
    finish_text(r, &b, STR_NONE);
}

void request_render_health(struct request *r)
{
    struct worker *w = r->worker;
    bool draining = atomic_load_explicit(&w->proxy->draining, memory_order_relaxed);
    double load = (double)w->conns.in_use / (double)(w->connections_max > 0 ? w->connections_max : 1);
    char text[64];
    struct buf body = buf_of(text, sizeof text), b = out_of(r);

    buf_printf(&body, "{\"status\": \"%s\", \"load\": %.2f}\n", draining ? "draining" : "ok", load);
    r->status = draining ? 503 : 200;
    http1_add_status_line(&b, r->status);
    buf_add_lit(&b, "Content-Type: application/json\r\nCache-Control: no-store\r\n");
    http1_add_field_u64(&b, STR("Content-Length"), body.n);
    finish_text(r, &b, buf_str(&body));
}
