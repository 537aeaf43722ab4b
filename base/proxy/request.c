#include "proxy/request.h"

#include "cache/freshness.h"
#include "proxy/conn.h"
#include "proxy/fill.h"
#include "proxy/upward.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

/* In a crowd, everybody gets a first piece before anybody gets all (worker_yield): it begins the playing. */
#define CROWD_REQUESTS    64u
#define CROWD_PIECE_BYTES (16u * 1024u)

enum {
    STEP_ADMIT,
    STEP_CONTINUE, /* 100 Continue is being sent */
    STEP_PASS,
    STEP_LOOKUP,
    STEP_FLIGHT, /* waits for a flight's head */
    STEP_ANSWER,
    STEP_BODY,
    STEP_SENDING,
    STEP_END,
};

static const struct flow_type request_type;

static struct request *request_of(struct flow *flow)
{
    struct request *r = CONTAINER_OF(flow, struct request, flow);

    CHECK_MAGIC(r, REQUEST_MAGIC);
    return r;
}

static struct memory *memory_of(const struct request *r)
{
    return r->worker->proxy->memory;
}

static enum flow_result go(struct request *r, uint8_t step)
{
    r->flow.step = step;
    return FLOW_NEXT;
}

static struct request *request_new(struct carrier *c)
{
    struct worker *w = c->conn->worker;
    struct request *r = pool_get(&w->requests);

    if (r == NULL)
        return NULL;
    memset(r, 0, offsetof(struct request, http));
    flow_init(&r->flow, &request_type, STEP_ADMIT);
    r->magic = REQUEST_MAGIC;
    r->worker = w;
    r->carrier = c;
    r->client = c->conn->peer;
    r->site = worker_site_ref(w->site);
    r->begun_ns = worker_now_ns(w);
    r->yielding.flow = &r->flow;
    list_init(&r->yielding.node);
    io_wake(w->io, &r->flow);
    return r;
}

struct request *request_start(struct carrier *c, const char *head, size_t head_n,
                              const struct http1_request *parsed)
{
    struct request *r = request_new(c);

    if (r == NULL)
        return NULL;
    r->http = *parsed;
    r->head = head_n <= sizeof r->head_inline ? r->head_inline : malloc(head_n);
    if (r->head == NULL) {
        r->flow.step = STEP_END;
        r->close_after = true;
        return r;
    }
    memcpy(r->head, head, head_n);
    r->head_n = head_n;
    r->body_left = parsed->content_length;
    http1_chunked_init(&r->chunked_in);
    r->body_over = parsed->framing == HTTP_BODY_NONE ||
                   (parsed->framing == HTTP_BODY_LENGTH && parsed->content_length == 0);
    r->head_only = parsed->method == HTTP_HEAD;
    return r;
}

struct request *request_start_refused(struct carrier *c, unsigned status, const char *detail)
{
    struct request *r = request_new(c);

    if (r == NULL)
        return NULL;
    r->http = (struct http1_request){.method = HTTP_METHOD_OTHER, .minor = 1};
    r->body_over = true;
    request_render_problem(r, status, detail);
    r->flow.step = STEP_BODY;
    return r;
}

void request_abort(struct request *r)
{
    CHECK_MAGIC(r, REQUEST_MAGIC);
    r->aborted = true;
    io_wake(r->worker->io, &r->flow);
}

void request_client_spoke(struct request *r)
{
    CHECK_MAGIC(r, REQUEST_MAGIC);
    if (r->body_to != NULL && !r->body_over)
        fill_wake(r->body_to);
}

/* --- errors --- */

static enum flow_result refuse(struct request *r, unsigned status, const char *detail)
{
    if (r->head_sent) { /* too late for a status: a broken connection is the honest end */
        r->aborted = true;
        return go(r, STEP_END);
    }
    r->cache_status_detail = NULL;
    if (!r->body_over) /* what is left of it must never be read as a request */
        r->close_after = true;
    request_render_problem(r, status, detail);
    return go(r, STEP_BODY);
}

static enum flow_result step_admit(struct flow *flow)
{
    struct request *r = request_of(flow);
    const char *detail = NULL;
    unsigned status = request_admit(r, &detail);

    /* A body that nobody will read makes the rest of the connection's bytes meaningless. */
    if (!r->body_over && (status != 0 || r->rule == NULL || r->cacheable))
        r->close_after = true;
    if (status != 0)
        return refuse(r, status, detail);
    if (r->rule == NULL) {
        request_render_health(r);
        return go(r, STEP_BODY);
    }
    if (r->cacheable)
        return go(r, STEP_LOOKUP);
    if (r->http.method == HTTP_OPTIONS && upward_ends_here(&r->http.fields, r->head)) {
        if (!r->body_over)
            r->close_after = true;
        request_render_options(r);
        return go(r, STEP_BODY);
    }
    if (r->body_over || !r->http.expect_continue)
        return go(r, STEP_PASS);
    r->carrier->ops->send_continue(r->carrier, r);
    io_timer_set(r->worker->io, &r->timer, flow, r->site->site->conf->timeouts.client_send_ms);
    r->flow.step = STEP_CONTINUE;
    return FLOW_WAIT;
}

static enum flow_result step_continue(struct flow *flow)
{
    struct request *r = request_of(flow);
    int error;

    if (!r->carrier->ops->send_take(r->carrier, r, &error)) {
        r->aborted = r->aborted || r->timer.fired;
        if (r->aborted)
            r->carrier->ops->send_cancel(r->carrier, r);
        return FLOW_WAIT;
    }
    io_timer_cancel(r->worker->io, &r->timer);
    if (error != 0 || r->aborted) {
        r->aborted = true;
        return go(r, STEP_END);
    }
    return go(r, STEP_PASS);
}

/* --- upward --- */

/* RFC 9110, 7.6.3. What is fetched for all is asked in nobody's version but ours. */
static const char *via_of(const struct request *r)
{
    if (r->cacheable)
        return "1.1";
    if (r->carrier->ops->http_version == 20)
        return "2";
    return r->http.minor == 0 ? "1.0" : "1.1";
}

static bool order_of(struct request *r, struct fill_order *order, struct buf *fields)
{
    *fields = buf_of(malloc(r->head_n + 512), r->head_n + 512);
    if (fields->p == NULL)
        return false;
    upward_fields(&r->http.fields, r->head,
                  r->cacheable                     ? UPWARD_FILL
                  : r->http.method == HTTP_OPTIONS ? UPWARD_PASS_OPTIONS
                                                   : UPWARD_PASS,
                  fields);
    CHECK(!fields->overflow);
    *order = (struct fill_order){
        .site = r->site,
        .rule = r->rule,
        .method = r->cacheable ? HTTP_GET : r->http.method,
        .method_name = r->cacheable ? STR("GET") : http1_method(&r->http, r->head),
        .path = r->path,
        .query = r->query,
        .fields = buf_str(fields),
        .cacheable = r->cacheable,
        .authorization = r->authorization,
        .via = via_of(r),
    };
    return true;
}

static void start_fill(struct request *r, struct flight **flight, struct object *revalidate,
                       struct request *body_from)
{
    static const struct flight_error no_memory = {
        .status = 503, .reason = "out of memory", .total_bytes = UINT64_MAX};
    struct fill_order order;
    struct buf fields;
    struct fill *fill;

    if (!order_of(r, &order, &fields)) {
        flight_fail(flight, &no_memory, worker_now_ns(r->worker));
        return;
    }
    order.revalidate = revalidate;
    order.body_from = body_from;
    fill = fill_start(r->worker, flight, &order);
    if (body_from != NULL)
        r->body_to = fill;
    free(fields.p);
}

static enum flow_result step_pass(struct flow *flow)
{
    struct request *r = request_of(flow);
    struct worker *w = r->worker;
    struct flight *f;

    if (!r->head_sent) {
        r->cache = ACCESS_CACHE_PASS;
        r->cache_status_detail = "fwd=bypass";
    }
    f = flight_alone(w->proxy->flights, &r->reader, flow, w->index, &r->key, r->slice);
    if (f == NULL)
        return refuse(r, 503, "out of memory");
    start_fill(r, &f, NULL, r->body_over || r->cacheable ? NULL : r);
    return go(r, STEP_FLIGHT);
}

static uint64_t select_variant(void *context, struct str vary)
{
    struct request *r = context;

    r->variant = upward_variant(vary, &r->http.fields, r->head);
    return r->variant;
}

/* What is kept of this slice, in the variant that the request selects, or NULL. */
static struct object *look_up(struct request *r, uint32_t slice)
{
    const struct variant_select select = {.hash = select_variant, .context = r};

    return memory_lookup(memory_of(r), &r->key, slice, &select);
}

static void refresh_behind(struct request *r, uint32_t slice, struct object *revalidate)
{
    struct worker *w = r->worker;
    uint64_t variant = revalidate != NULL ? object_variant(revalidate) : r->variant;
    struct flight_error ignored;
    struct flight *f;

    if (flight_past(w->proxy->flights, &r->key, slice, variant, worker_now_ns(w), &ignored) !=
        FLIGHT_PAST_NONE)
        return; /* it failed, or could not be kept, a moment ago */
    f = flight_background(w->proxy->flights, w->index, &r->key, slice, variant);
    if (f != NULL)
        start_fill(r, &f, revalidate, NULL);
}

static enum flow_result serve_object(struct request *r, struct object **object, enum access_cache cache)
{
    r->object = TAKE(object);
    if (cache == ACCESS_CACHE_HIT || cache == ACCESS_CACHE_STALE)
        object_count_hit(r->object);
    if (!r->head_sent)
        r->cache = cache;
    return go(r, r->head_sent ? STEP_BODY : STEP_ANSWER);
}

/* Only where the stored answer may stand in for the one that could not be had (RFC 5861, 4). */
static bool serve_stale(struct request *r)
{
    if (r->stale == NULL || !r->stale_if_error)
        return false;
    if (r->reader.flight != NULL)
        flight_leave(&r->reader);
    r->cache_status_detail = "fwd=stale; detail=upstream-error";
    (void)serve_object(r, &r->stale, ACCESS_CACHE_STALE);
    return true;
}

static enum flow_result join(struct request *r)
{
    struct worker *w = r->worker;
    struct flight_error error;
    struct flight *f;
    bool made;

    switch (flight_past(w->proxy->flights, &r->key, r->slice, r->variant, worker_now_ns(w), &error)) {
    case FLIGHT_PAST_FAILED:
        return serve_stale(r) ? FLOW_NEXT : refuse(r, error.status, "the origin failed a moment ago");
    case FLIGHT_PAST_SCATTERED:
        return go(r, STEP_PASS);
    case FLIGHT_PAST_NONE:
        break;
    }
    /* Whoever made the flight may have been refused for want of it, and this is one client's own answer. */
    if (r->authorization && !r->rule->store_authorization)
        return go(r, STEP_PASS);
    f = flight_join(w->proxy->flights, &r->reader, &r->flow, w->index, &r->key, r->slice, r->variant, &made);
    if (f == NULL)
        return refuse(r, 503, "out of memory");
    if (!r->head_sent) {
        r->cache = made ? ACCESS_CACHE_MISS : ACCESS_CACHE_JOINED;
        r->cache_status_detail =
            made ? r->stale != NULL ? "fwd=stale" : "fwd=uri-miss" : "fwd=uri-miss; collapsed";
    }
    if (made)
        start_fill(r, &f, r->stale, NULL);
    return go(r, STEP_FLIGHT);
}

static enum flow_result step_lookup(struct flow *flow)
{
    struct request *r = request_of(flow);
    struct object *object = look_up(r, r->slice);
    struct freshness_request ask = {.authorization = r->authorization};
    struct cache_control cc;
    struct freshness_use use;

    if (fields_has(&r->http.fields, FIELD_CACHE_CONTROL)) {
        cache_control_parse(&r->http.fields, r->head, &cc);
        ask.cc = &cc;
    }
    use = freshness_usable(object, &ask, r->rule->client_cache_control, io_now_unix_s(r->worker->io));
    switch (use.verdict) {
    case FRESHNESS_FRESH:
        return serve_object(r, &object, ACCESS_CACHE_HIT);
    case FRESHNESS_STALE:
        return serve_object(r, &object, ACCESS_CACHE_STALE);
    case FRESHNESS_STALE_SWR:
        refresh_behind(r, r->slice, object);
        return serve_object(r, &object, ACCESS_CACHE_STALE);
    case FRESHNESS_GATEWAY_TIMEOUT:
        if (object != NULL)
            object_unref(memory_of(r), &object);
        return refuse(r, 504, "not in the cache, and only-if-cached was asked");
    case FRESHNESS_VALIDATE:
        break;
    }
    if (r->stale != NULL)
        object_unref(memory_of(r), &r->stale);
    r->stale = object;
    r->stale_if_error = use.stale_if_error;
    return join(r);
}

/* --- the flight --- */

static bool is_other_variant(struct request *r, struct str vary, uint64_t variant)
{
    if (vary.n == 0)
        return false;
    r->variant = upward_variant(vary, &r->http.fields, r->head);
    return variant != r->variant;
}

static enum flow_result leave_and(struct request *r, uint8_t step)
{
    flight_leave(&r->reader);
    return go(r, step);
}

static enum flow_result take_flight_object(struct request *r)
{
    struct flight *f = r->reader.flight;
    struct object *object = flight_object(f);
    bool validated = flight_is_validated(f) && r->stale != NULL;

    if (!r->reader.first && is_other_variant(r, object_vary(object), object_variant(object)))
        return leave_and(r, STEP_LOOKUP);
    if (validated)
        r->cache_status_detail = "fwd=stale; fwd-status=304";
    object_ref(object);
    flight_leave(&r->reader);
    return serve_object(r, &object, validated ? ACCESS_CACHE_REVALIDATED : (enum access_cache)r->cache);
}

static enum flow_result flight_failed(struct request *r)
{
    const struct flight_error *error = flight_error(r->reader.flight);

    if (error->status == 416 && !r->head_sent) {
        if (r->slice != 0) { /* If-Range or another range may make an answer of it: the first slice tells */
            r->slice = 0;
            return leave_and(r, STEP_LOOKUP);
        }
        if (error->total_bytes == UINT64_MAX)
            return refuse(r, 416, "no byte of the range exists");
        request_render_unsatisfiable(r, error->total_bytes);
        return go(r, STEP_BODY);
    }
    if (error->status >= 500 && serve_stale(r))
        return FLOW_NEXT;
    return refuse(r, error->status, error->reason);
}

static enum flow_result step_flight(struct flow *flow)
{
    struct request *r = request_of(flow);
    struct flight *f = r->reader.flight;
    enum flight_state state = flight_state(f);

    if (r->aborted)
        return go(r, STEP_END);
    if (state == FLIGHT_ASKED)
        return flight_wait(&r->reader, FLIGHT_ASKED, 0) ? FLOW_WAIT : FLOW_NEXT;
    if (flight_scattered(&r->reader))
        return leave_and(r, STEP_PASS);
    if (state == FLIGHT_FAILED)
        return flight_failed(r);
    if (state == FLIGHT_COMPLETE && flight_object(f) != NULL)
        return take_flight_object(r);
    if (!r->reader.first && is_other_variant(r, flight_answer(f)->spec.vary, flight_answer(f)->spec.variant))
        return leave_and(r, STEP_LOOKUP);
    if (flight_answer(f)->spec.status >= 500 && !r->head_sent && serve_stale(r))
        return FLOW_NEXT;
    return go(r, r->head_sent ? STEP_BODY : STEP_ANSWER);
}

/* --- the answer --- */

static void view_of(const struct request *r, struct answer_view *v)
{
    if (r->object != NULL)
        answer_view_of_object(r->object, v);
    else
        answer_view_of_flight(r->reader.flight, v);
}

static enum flow_result step_answer(struct flow *flow)
{
    struct request *r = request_of(flow);
    struct answer_view v;

    view_of(r, &v);
    if (r->reader.flight != NULL)
        r->upstream_status = v.status;
    /* RFC 9111, 4.4: a method that may have changed something, and succeeded, makes what is stored invalid.
     */
    if (!http_method_is_safe((enum http_method)r->http.method) && v.status < 400)
        (void)memory_remove_key(memory_of(r), &r->key);
    if (!r->body_over)
        r->close_after = true;
    request_render(r, &v);
    r->source_checked = true;
    return go(r, STEP_BODY);
}

static void release_source(struct request *r)
{
    if (r->object != NULL)
        object_unref(memory_of(r), &r->object);
    if (r->reader.flight != NULL)
        flight_leave(&r->reader);
    r->source_checked = false;
}

enum body {
    BODY_ADDED,
    BODY_WAIT,      /* the flight has not brought it yet */
    BODY_ELSEWHERE, /* it lies in another slice */
    BODY_END,
    BODY_BROKEN, /* it will not come */
};

static void add_run(struct request *r, struct str run)
{
    if (r->chunked) {
        struct buf b = buf_of(r->rendered + r->rendered_n, sizeof r->rendered - r->rendered_n);

        http1_add_chunk_head(&b, run.n);
        CHECK(!b.overflow);
        request_add_vec(r, b.p, b.n);
    }
    request_add_vec(r, run.p, run.n);
    if (r->chunked)
        request_add_vec(r, HTTP1_CHUNK_END, 2);
    r->out.body_bytes += run.n;
    r->at += run.n;
}

static enum body add_from_flight(struct request *r, const struct answer_view *v, uint64_t left)
{
    struct flight *f = r->reader.flight;
    uint64_t offset = r->at - v->offset;
    struct str run;

    /* Before the bytes: what came before the end is there, and what comes after this look wakes. */
    r->seen_state = (uint8_t)flight_state(f);
    r->seen_written = flight_written(f);
    if (offset < r->reader.read) /* a ring has overwritten it */
        return BODY_BROKEN;
    flight_read_up_to(&r->reader, offset);
    run = flight_bytes(f, offset, left);
    if (run.n > 0) {
        add_run(r, run);
        return BODY_ADDED;
    }
    if (r->seen_state == FLIGHT_COMPLETE)
        return r->unknown_length ? BODY_END : BODY_BROKEN;
    return r->seen_state == FLIGHT_FAILED ? BODY_BROKEN : BODY_WAIT;
}

/* A carrier that frames bodies has a schedule of its own. */
static bool is_crowded(const struct request *r)
{
    return r->worker->requests.in_use > CROWD_REQUESTS && !r->carrier->ops->frames_body;
}

/* Adds what can be sent next of the range that is under way. */
static enum body add_body(struct request *r)
{
    struct answer_view v;
    uint64_t left = r->end - r->at;

    if (r->head_only)
        return BODY_END;
    if (left == 0)
        return BODY_END;
    view_of(r, &v);
    if (v.total != FLIGHT_LENGTH_UNKNOWN && (r->at < v.offset || r->at - v.offset >= v.length))
        return BODY_ELSEWHERE;
    if (r->sent_bytes == 0 && is_crowded(r) && left > CROWD_PIECE_BYTES)
        left = CROWD_PIECE_BYTES;
    if (r->multipart && r->at == r->ranges.at[r->range_at].first && !r->part_begun) {
        request_render_part(r);
        r->part_begun = true;
    }
    if (r->object == NULL)
        return add_from_flight(r, &v, left);
    if (left > v.offset + v.length - r->at)
        left = v.offset + v.length - r->at;
    add_run(r, str_of(r->object->body + (r->at - v.offset), left));
    return BODY_ADDED;
}

static enum flow_result send_out(struct request *r)
{
    request_send(r);
    r->flow.step = STEP_SENDING;
    return FLOW_WAIT;
}

/* The next slice comes from the cache or a flight of its own. The one after it is fetched meanwhile, so that
 * the client does not wait at each boundary. */
static enum flow_result next_slice(struct request *r)
{
    struct object *next;

    release_source(r);
    r->slice = cache_slice_of(r->at);
    if (r->end > (uint64_t)(r->slice + 1) * CACHE_SLICE_BYTES) {
        next = look_up(r, r->slice + 1);
        if (next != NULL)
            object_unref(memory_of(r), &next);
        else
            refresh_behind(r, r->slice + 1, NULL);
    }
    return go(r, STEP_LOOKUP);
}

/* A slice of another version must never follow one that has been sent. */
static enum flow_result other_version(struct request *r)
{
    static struct log_limiter limiter;

    if (r->object != NULL && r->stale_slices_n++ < 1) {
        memory_remove(memory_of(r), r->object);
        release_source(r);
        return go(r, STEP_LOOKUP);
    }
    log_limited(&limiter, LOG_LEVEL_WARN,
                STR_FMT " changed at the origin while it was being sent; the connection was broken off",
                STR_ARG(r->path));
    (void)memory_remove_key(memory_of(r), &r->key);
    r->aborted = true;
    return go(r, STEP_END);
}

static bool source_fits(struct request *r)
{
    struct answer_view v;

    if (r->source_checked || r->head_only)
        return true;
    view_of(r, &v);
    r->source_checked = true;
    return v.total == r->total && v.status == 200 && answer_version(&v) == r->version;
}

static enum flow_result end_of_range(struct request *r)
{
    if (r->multipart) {
        r->part_begun = false;
        if (++r->range_at < r->ranges.n) {
            r->at = r->ranges.at[r->range_at].first;
            r->end = r->ranges.at[r->range_at].last + 1;
            return r->out.vecs_n > 0 ? send_out(r) : FLOW_NEXT;
        }
        request_render_part(r);
        r->multipart = false;
        r->at = r->end;
    } else if (r->chunked && !r->out.last) {
        request_add_vec(r, HTTP1_CHUNKED_END, sizeof HTTP1_CHUNKED_END - 1);
    }
    r->out.last = true;
    return r->out.vecs_n > 0 || r->carrier->ops->frames_body ? send_out(r) : go(r, STEP_END);
}

static enum flow_result step_body(struct flow *flow)
{
    struct request *r = request_of(flow);

    list_remove(&r->yielding.node);
    if (r->aborted)
        return go(r, STEP_END);
    if (r->head_sent && !r->out.last && !source_fits(r))
        return other_version(r);
    if (r->out.last)
        return go(r, STEP_END);
    switch (add_body(r)) {
    case BODY_ADDED:
        if (r->at == r->end && !r->multipart && !r->chunked)
            r->out.last = true;
        return send_out(r);
    case BODY_WAIT:
        if (r->out.vecs_n > 0)
            return send_out(r);
        return flight_wait(&r->reader, (enum flight_state)r->seen_state, r->seen_written) ? FLOW_WAIT
                                                                                          : FLOW_NEXT;
    case BODY_ELSEWHERE:
        return r->out.vecs_n > 0 ? send_out(r) : next_slice(r);
    case BODY_END:
        return end_of_range(r);
    case BODY_BROKEN:
        break;
    }
    r->aborted = true;
    return go(r, STEP_END);
}

static enum flow_result step_sending(struct flow *flow)
{
    struct request *r = request_of(flow);

    switch (request_sent(r)) {
    case REQUEST_SENDING:
        return FLOW_WAIT;
    case REQUEST_CUT:
        r->aborted = true;
        return go(r, STEP_END);
    case REQUEST_SENT:
        break;
    }
    if (r->out.last)
        return go(r, STEP_END);
    r->flow.step = STEP_BODY;
    if (!is_crowded(r))
        return FLOW_NEXT;
    worker_yield(r->worker, &r->yielding);
    return FLOW_WAIT;
}

/* --- the end --- */

static void count(struct request *r, uint64_t now_ns)
{
    struct proxy_stats *stats = &r->worker->stats;
    unsigned class = r->status / 100 >= 2 && r->status / 100 <= 5 ? r->status / 100 - 1 : STAT_CLASS_NONE;

    stat_inc(&stats->requests[class][r->cache]);
    stat_add(&stats->sent_bytes, r->sent_bytes);
    if (r->first_byte_ns != 0)
        histogram_record(&stats->first_byte_ns[r->cache], r->first_byte_ns - r->begun_ns);
    histogram_record(&stats->duration_ns[r->cache], now_ns - r->begun_ns);
}

static void write_log(struct request *r, uint64_t now_ns)
{
    struct worker *w = r->worker;
    const struct fields *fields = &r->http.fields;
    struct access_record record = {
        .unix_ns = clock_unix_ns() - (clock_mono_ns() - r->begun_ns),
        .ttfb_ns = r->first_byte_ns > r->begun_ns ? r->first_byte_ns - r->begun_ns : 0,
        .total_ns = now_ns - r->begun_ns,
        .body_bytes = r->body_sent_bytes,
        .sent_bytes = r->sent_bytes,
        .client = r->client,
        .country = {r->country[0], r->country[1]},
        .status = r->status,
        .upstream_status = r->upstream_status,
        .worker = w->index,
        .cache = r->cache,
        .http_version = r->carrier->ops->http_version != 0 ? r->carrier->ops->http_version
                        : r->http.minor == 0               ? 10
                                                           : 11,
        .aborted = r->aborted,
        .reason = str_z(r->reason),
        .uid = r->uid,
        .kid = r->kid,
    };

    if (r->head != NULL) {
        record.method = http1_method(&r->http, r->head);
        record.target = http1_target(&r->http, r->head);
        record.host = http1_host(&r->http, r->head);
        record.range = fields_get(fields, r->head, FIELD_RANGE);
        record.user_agent = fields_get(fields, r->head, FIELD_USER_AGENT);
        record.referer = fields_get(fields, r->head, FIELD_REFERER);
    }
    access_log_add(w->access_ring, &record);
}

static enum flow_result step_end(struct flow *flow)
{
    struct request *r = request_of(flow);
    uint64_t now_ns = worker_now_ns(r->worker);

    if (!request_stop_sending(r))
        return FLOW_WAIT;
    if (r->body_to != NULL) { /* it may be sending bytes that lie in the connection's buffers */
        r->close_after = true;
        fill_forget_body(r->body_to);
        return FLOW_WAIT; /* request_body_taken has woken us, or will */
    }
    list_remove(&r->yielding.node);
    io_timer_cancel(r->worker->io, &r->timer);
    release_source(r);
    if (r->stale != NULL)
        object_unref(memory_of(r), &r->stale);
    count(r, now_ns);
    if (r->worker->access_ring != NULL)
        write_log(r, now_ns);
    return FLOW_DONE;
}

static void request_done(struct flow *flow)
{
    struct request *r = CONTAINER_OF(flow, struct request, flow);
    struct worker *w = r->worker;
    struct carrier *c = r->carrier;
    struct request_end end = {
        .aborted = r->aborted,
        .close = r->aborted || r->close_after || !r->http.keep_alive,
        .unread = !r->body_over && !r->aborted,
    };

    if (r->head != r->head_inline)
        free(r->head);
    if (r->text != r->text_inline)
        free(r->text);
    worker_site_unref(&r->site);
    r->magic = 0;
    pool_put(&w->requests, r);
    c->ops->done(c, &end);
}

static const flow_step request_steps[] = {
    [STEP_ADMIT] = step_admit,   [STEP_CONTINUE] = step_continue, [STEP_PASS] = step_pass,
    [STEP_LOOKUP] = step_lookup, [STEP_FLIGHT] = step_flight,     [STEP_ANSWER] = step_answer,
    [STEP_BODY] = step_body,     [STEP_SENDING] = step_sending,   [STEP_END] = step_end,
};
static const char *const request_step_names[] = {
    [STEP_ADMIT] = "admit",   [STEP_CONTINUE] = "continue", [STEP_PASS] = "pass",
    [STEP_LOOKUP] = "lookup", [STEP_FLIGHT] = "flight",     [STEP_ANSWER] = "answer",
    [STEP_BODY] = "body",     [STEP_SENDING] = "sending",   [STEP_END] = "end",
};
static const struct flow_type request_type = {
    .name = "request",
    .steps = request_steps,
    .step_names = request_step_names,
    .steps_n = ARRAY_LEN(request_steps),
    .done = request_done,
};
