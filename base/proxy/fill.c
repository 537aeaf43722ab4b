#include "proxy/fill.h"

#include "http/range.h"
#include "proxy/request.h"
#include "proxy/upward.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

enum {
    STEP_CHOOSE,
    STEP_RESOLVE,
    STEP_CONNECT,
    STEP_CONNECTING,
    STEP_HANDSHAKE,
    STEP_SEND,
    STEP_SEND_BODY,
    STEP_HEAD,
    STEP_BODY,
    STEP_FILE, /* fill_file.c */
    STEP_FILE_BODY,
    STEP_DROP,
};

static const struct flow_type fill_type;

static struct fill *fill_of(struct flow *flow)
{
    struct fill *f = CONTAINER_OF(flow, struct fill, flow);

    CHECK_MAGIC(f, FILL_MAGIC);
    return f;
}

static const struct proxy_timeouts *timeouts_of(const struct fill *f)
{
    return &f->site->site->conf->timeouts;
}

static struct io *io_of(const struct fill *f)
{
    return f->worker->io;
}

static bool copy_texts(struct fill *f, const struct fill_order *order)
{
    struct buf b = {.cap = order->method_name.n + order->path.n + order->query.n + order->fields.n + 1};
    const struct str from[] = {order->method_name, order->path, order->query, order->fields};
    struct str *const to[] = {&f->method_name, &f->path, &f->query, &f->fields};

    b.p = malloc(b.cap);
    if (b.p == NULL)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        *to[i] = str_of(b.p + b.n, from[i].n);
        buf_add_str(&b, from[i]);
    }
    f->text = b.p;
    return true;
}

struct fill *fill_start(struct worker *w, struct flight **flight, const struct fill_order *order)
{
    static const struct flight_error no_room = {
        .status = 503, .reason = "too many fills", .total_bytes = UINT64_MAX};
    struct fill *f = w->hurry ? NULL : pool_get(&w->fills);

    if (f == NULL) {
        flight_fail(flight, &no_room, worker_now_ns(w));
        return NULL;
    }
    *f = (struct fill){
        .magic = FILL_MAGIC,
        .worker = w,
        .flight = TAKE(flight),
        .rule = order->rule,
        .method = order->method,
        .via = order->via,
        .cacheable = order->cacheable,
        .authorization = order->authorization,
        .revalidate = order->revalidate,
        .body_from = order->body_from,
        .has_body = order->body_from != NULL,
        .error = {.status = 502, .total_bytes = UINT64_MAX},
        .dir_fd = -1,
        .file_fd = -1,
    };
    f->site = worker_site_ref(order->site);
    if (f->revalidate != NULL)
        object_ref(f->revalidate);
    flow_init(&f->flow, &fill_type, STEP_CHOOSE);
    flight_set_fill(f->flight, &f->flow);
    f->epoch = memory_epoch(w->proxy->memory);
    if (!copy_texts(f, order)) {
        f->error = (struct flight_error){.status = 503, .reason = "out of memory", .total_bytes = UINT64_MAX};
        f->flow.step = STEP_DROP;
    }
    list_push_back(&w->fill_list, &f->node);
    stat_inc(&w->stats.fills_started);
    io_wake(w->io, &f->flow);
    return f;
}

void fill_forget_body(struct fill *f)
{
    CHECK_MAGIC(f, FILL_MAGIC);
    f->body_gone = true;
    if (stream_is_sending(&f->send) && f->body_run_n > 0)
        stream_send_cancel(io_of(f), &f->conn->stream,
                           &f->send); /* it sends from the client's buffers: they stay until it is complete */
    else
        request_body_taken(TAKE(&f->body_from));
    io_wake(io_of(f), &f->flow);
}

void fill_wake(struct fill *f)
{
    CHECK_MAGIC(f, FILL_MAGIC);
    io_wake(io_of(f), &f->flow);
}

/* --- what goes wrong --- */

/* Ends the connection; then either tries again or tells the readers. */
enum flow_result fill_drop(struct fill *f, bool retry, unsigned status, const char *reason)
{
    f->error.status = (uint16_t)status;
    f->error.reason = reason;
    f->after_drop_retry = retry && f->tries < FILL_TRIES_MAX && !f->has_body &&
                          (http_method_is_safe(f->method) || !f->out_begun);
    io_timer_cancel(io_of(f), &f->timer);
    f->flow.step = STEP_DROP;
    return FLOW_NEXT;
}

void fill_abort(struct fill *f)
{
    CHECK_MAGIC(f, FILL_MAGIC);
    (void)fill_drop(f, false, 503, "the server is going down");
    io_wake(io_of(f), &f->flow);
}

static enum flow_result lost_because(struct fill *f, const char *why, unsigned status, const char *reason)
{
    static struct log_limiter limiter;
    struct proxy_stats *stats = &f->worker->stats;
    /* A pooled connection that its peer had just closed says nothing about the peer. */
    bool stale_reuse = f->conn != NULL && f->conn->reused && f->head_n == 0 && status != 504;

    if (stale_reuse) {
        f->tried = 0;
        stat_inc(&stats->upstream_retries);
        return fill_drop(f, true, status, reason);
    }
    if (status == 504)
        stat_inc(&stats->upstream_timeouts);
    else
        stat_inc(&stats->upstream_resets);
    upstream_failed(f->upstream);
    log_limited(&limiter, LOG_LEVEL_WARN, "upstream " STR_FMT ": %s%s%s for " STR_FMT,
                STR_ARG(f->upstream->conf->url), reason, why != NULL ? ": " : "", why != NULL ? why : "",
                STR_ARG(f->path));
    return fill_drop(f, flight_state(f->flight) == FLIGHT_ASKED, status, reason);
}

static enum flow_result lost(struct fill *f, int error, unsigned status, const char *reason)
{
    return lost_because(f, error < 0 ? strerror(-error) : NULL, status, reason);
}

/* What is left to be sent will not come: whatever the upstream made of it would be wrong. */
static enum flow_result body_is_gone(struct fill *f)
{
    return fill_drop(f, false, 502, "the client went while its body was being passed on");
}

/* --- finding somebody to ask --- */

static enum flow_result step_choose(struct flow *flow)
{
    struct fill *f = fill_of(flow);

    if (f->body_gone)
        return body_is_gone(f);
    f->upstream = upstream_choose(f->site->upstreams, f->path, flight_key(f->flight).hash, &f->tried);
    if (f->upstream == NULL)
        return fill_drop(f, false, f->error.reason != NULL ? f->error.status : 502,
                         f->error.reason != NULL ? f->error.reason : "no upstream for this path");
    f->tries++;
    if (f->upstream->conf->scheme == URL_FILE) {
        f->request_unix_s = io_now_unix_s(io_of(f));
        f->flow.step = STEP_FILE;
        return FLOW_NEXT;
    }
    f->conn = upstream_take_idle(f->upstream, &f->flow);
    if (f->conn != NULL) {
        f->flow.step = STEP_SEND;
        return FLOW_NEXT;
    }
    resolve_start(f->worker->resolver, &f->resolve, &f->flow, f->upstream->conf->host,
                  f->upstream->conf->port);
    f->flow.step = STEP_RESOLVE;
    return FLOW_NEXT;
}

static enum flow_result step_resolve(struct flow *flow)
{
    struct fill *f = fill_of(flow);

    if (f->body_gone)
        return body_is_gone(f);
    if (!resolve_take(&f->resolve, &f->addresses_n))
        return FLOW_WAIT;
    if (f->addresses_n <= 0) {
        stat_inc(&f->worker->stats.upstream_connect_errors);
        return lost(f, f->addresses_n, 502, "the upstream's name does not resolve");
    }
    f->address_at = 0;
    f->flow.step = STEP_CONNECT;
    io_timer_set(io_of(f), &f->timer, flow, timeouts_of(f)->upstream_connect_ms);
    return FLOW_NEXT;
}

static enum flow_result step_connect(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    const struct address *to = &f->resolve.addresses[f->address_at];
    int error;

    if (f->body_gone)
        return body_is_gone(f);
    if (f->waiter.flow != NULL) {
        if (!f->timer.fired) /* a wake that was not for us */
            return FLOW_WAIT;
        upstream_wait_cancel(&f->waiter);
        return fill_drop(f, true, 504, "no connection became free in time");
    }
    f->conn = upstream_take_idle(f->upstream, &f->flow);
    if (f->conn != NULL) {
        io_timer_cancel(io_of(f), &f->timer);
        f->flow.step = STEP_SEND;
        return FLOW_NEXT;
    }
    f->conn = upstream_open(f->upstream, flow, to->sa.sa_family, &f->waiter, &error);
    if (f->conn == NULL) {
        if (error == -EAGAIN)
            return FLOW_WAIT;
        stat_inc(&f->worker->stats.upstream_connect_errors);
        return fill_drop(f, false, 503, "no socket for the upstream");
    }
    io_connect(io_of(f), &f->op, flow, stream_fd(&f->conn->stream), &to->sa, address_bytes(to));
    f->flow.step = STEP_CONNECTING;
    return FLOW_WAIT;
}

static enum flow_result step_connecting(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    int result;

    if (f->body_gone)
        return body_is_gone(f);
    if (f->timer.fired) {
        stat_inc(&f->worker->stats.upstream_connect_errors);
        return lost(f, 0, 504, "connecting took too long");
    }
    if (!io_op_take(&f->op, &result))
        return FLOW_WAIT;
    if (result < 0) {
        if (f->address_at + 1 < f->addresses_n) {
            upstream_close(&f->conn); /* nothing was armed on it yet */
            f->address_at++;
            f->flow.step = STEP_CONNECT;
            return FLOW_NEXT;
        }
        stat_inc(&f->worker->stats.upstream_connect_errors);
        return lost(f, result, 502, "cannot connect");
    }
    if (f->upstream->conf->tls == NULL) {
        f->flow.step = STEP_SEND;
        return FLOW_NEXT;
    }
    result = stream_tls_connect(io_of(f), &f->conn->stream, f->worker->tls, f->upstream->conf->tls,
                                f->upstream->conf->tls_name);
    if (result != 0)
        return lost(f, result, 503, "no memory for TLS with the upstream");
    f->flow.step = STEP_HANDSHAKE;
    return FLOW_WAIT;
}

/* Within the time for connecting. */
static enum flow_result step_handshake(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    int result = stream_handshake(&f->conn->stream);

    if (f->body_gone)
        return body_is_gone(f);
    if (result == 0) {
        f->flow.step = STEP_SEND;
        return FLOW_NEXT;
    }
    if (f->timer.fired) {
        stat_inc(&f->worker->stats.upstream_connect_errors);
        stat_inc(&f->worker->stats.tls.client_handshakes_failed);
        return lost(f, 0, 504, "the TLS handshake took too long");
    }
    if (result == -EAGAIN)
        return FLOW_WAIT;
    stat_inc(&f->worker->stats.upstream_connect_errors);
    return lost_because(f, stream_tls_why(&f->conn->stream), 502, "the TLS handshake failed");
}

/* --- asking --- */

/* The whole request is sent, or the upstream answers without wanting the rest of it. */
static enum flow_result await_head(struct fill *f, bool whole)
{
    f->request_whole = whole;
    io_timer_set(io_of(f), &f->timer, &f->flow, timeouts_of(f)->upstream_first_byte_ms);
    f->flow.step = STEP_HEAD;
    return FLOW_NEXT;
}

static enum flow_result send_failed(struct fill *f, int result)
{
    return lost(f, result, 502, "the request could not be sent");
}

static enum flow_result step_send(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    struct stream *stream = &f->conn->stream;
    int error;

    if (f->body_gone)
        return body_is_gone(f);
    if (f->out == NULL) {
        f->request_unix_s = io_now_unix_s(io_of(f));
        if (upward_render(f) != 0)
            return fill_drop(f, false, 503, "out of memory");
        f->out_begun = true;
        stream_send_bytes(io_of(f), stream, &f->send, flow, &f->vecs[0], f->out, f->out_n);
        io_timer_set(io_of(f), &f->timer, flow, timeouts_of(f)->upstream_first_byte_ms);
        stream_arm(io_of(f), stream);
        return FLOW_WAIT;
    }
    if (f->timer.fired)
        return lost(f, 0, 504, "the request could not be sent in time");
    if (!stream_send_take(io_of(f), stream, &f->send, &error))
        return FLOW_WAIT;
    if (error != 0)
        return send_failed(f, error);
    if (f->body_from == NULL)
        return await_head(f, true);
    io_timer_set(io_of(f), &f->timer, flow, timeouts_of(f)->client_body_ms);
    f->flow.step = STEP_SEND_BODY;
    return FLOW_NEXT;
}

/* The head of an answer, or a lost connection, ends the sending: who answers early reads no more. */
static bool answer_begun(struct fill *f)
{
    return stream_peek(io_of(f), &f->conn->stream).n > 0 || stream_end(&f->conn->stream) != 0;
}

static void send_body_run(struct fill *f, struct str run, bool chunked)
{
    struct stream *stream = &f->conn->stream;
    struct buf head = buf_of(f->chunk_head, sizeof f->chunk_head);
    unsigned n = 0;

    io_timer_set(io_of(f), &f->timer, &f->flow, timeouts_of(f)->upstream_between_bytes_ms);
    if (chunked) {
        http1_add_chunk_head(&head, run.n);
        f->vecs[n++] = (struct iovec){head.p, head.n};
    }
    f->vecs[n++] = (struct iovec){(void *)(uintptr_t)run.p, run.n};
    if (chunked)
        f->vecs[n++] = (struct iovec){(void *)(uintptr_t)HTTP1_CHUNK_END, 2};
    stream_send(io_of(f), stream, &f->send, &f->flow, f->vecs, n);
}

static enum flow_result body_end(struct fill *f, bool chunked)
{
    f->body_sent = true;
    request_body_taken(TAKE(&f->body_from));
    if (!chunked)
        return await_head(f, true);
    f->body_run_n = 0;
    stream_send_bytes(io_of(f), &f->conn->stream, &f->send, &f->flow, &f->vecs[0], HTTP1_CHUNKED_END,
                      sizeof HTTP1_CHUNKED_END - 1);
    io_timer_set(io_of(f), &f->timer, &f->flow, timeouts_of(f)->upstream_between_bytes_ms);
    return FLOW_WAIT;
}

static enum flow_result step_send_body(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    size_t run_n = f->body_run_n;
    struct str run;
    bool chunked;
    int result;

    if (f->body_gone)
        return body_is_gone(f);
    if (stream_send_take(io_of(f), &f->conn->stream, &f->send, &result)) {
        f->body_run_n = 0; /* the client's buffers are lent no longer, whatever became of them */
        if (result != 0)
            return answer_begun(f) ? await_head(f, false) : send_failed(f, result);
        if (run_n > 0)
            request_body_consume(f->body_from, run_n);
        if (f->body_sent)
            return await_head(f, true);
        io_timer_set(io_of(f), &f->timer, flow, timeouts_of(f)->client_body_ms);
    }
    if (stream_is_sending(&f->send)) {
        if (f->timer.fired)
            return lost(f, 0, 504, "the upstream does not take the body");
        if (answer_begun(f))
            stream_send_cancel(io_of(f), &f->conn->stream, &f->send);
        return FLOW_WAIT;
    }
    if (answer_begun(f))
        return await_head(f, false);
    if (f->timer.fired)
        return fill_drop(f, false, 408, "the client's body did not come in time");
    chunked = request_body_is_chunked(f->body_from);
    result = request_body_next(f->body_from, &run);
    if (result == -EMSGSIZE)
        return fill_drop(f, false, 413, "the body is too large");
    if (result == -ETIMEDOUT)
        return fill_drop(f, false, 408, "the client's body came too slowly");
    if (result < 0)
        return fill_drop(f, false, 400, "the client's body is malformed");
    if (result == REQUEST_BODY_END)
        return body_end(f, chunked);
    if (result == REQUEST_BODY_WAIT)
        return FLOW_WAIT;
    f->body_run_n = run.n;
    send_body_run(f, run, chunked);
    return FLOW_WAIT;
}

/* --- the answer --- */

static bool head_reserve(struct fill *f, size_t n)
{
    size_t cap = f->head_cap > 0 ? f->head_cap : 4096;
    char *p;

    if (f->head_n + n <= f->head_cap)
        return true;
    while (cap < f->head_n + n)
        cap *= 2;
    p = realloc(f->head, cap);
    if (p == NULL)
        return false;
    f->head = p;
    f->head_cap = cap;
    return true;
}

/* Moves what has come into f->head and parses it. Returns the head's length, 0 for more, or an error; what
 * comes after the head stays with the connection. */
static int read_head(struct fill *f)
{
    struct stream *stream = &f->conn->stream;
    struct str run = stream_peek(io_of(f), stream);
    size_t had = f->head_n, take = run.n;
    int n;

    if (run.n == 0)
        return 0;
    if (take > HTTP_RESPONSE_HEAD_BYTES_MAX + 1 - had)
        take = HTTP_RESPONSE_HEAD_BYTES_MAX + 1 - had;
    if (!head_reserve(f, take))
        return -HTTP1_HEAD_TOO_LONG;
    memcpy(f->head + had, run.p, take);
    f->head_n = had + take;
    n = 0;
    if (http1_head_ready(f->head, f->head_n, HTTP_RESPONSE_HEAD_BYTES_MAX, &f->head_scanned))
        n = http1_parse_response(f->head, f->head_n, f->method == HTTP_HEAD, &f->response);
    if (n <= 0) {
        stream_consume(io_of(f), stream, take);
        return n;
    }
    stream_consume(io_of(f), stream, (size_t)n - had);
    f->head_n = (size_t)n;
    return n;
}

static void forget_head(struct fill *f)
{
    f->head_n = 0;
    f->head_scanned = 0;
}

/* The answer is whole: its connection may carry another, unless something says that it may not. */
static void give_back(struct fill *f)
{
    if (f->conn != NULL && f->request_whole && !f->op.in_flight && !stream_is_sending(&f->send) &&
        f->response.keep_alive && stream_peek(io_of(f), &f->conn->stream).n == 0 &&
        stream_end(&f->conn->stream) == 0)
        upstream_give_back(&f->conn);
}

enum flow_result fill_head_complete(struct fill *f)
{
    bool from_file = f->upstream->conf->scheme == URL_FILE;

    switch (fill_understand(f)) {
    case FILL_MEANS_BODY:
        if (f->response.framing == HTTP_BODY_LENGTH)
            f->body_left = f->response.content_length;
        http1_chunked_init(&f->chunked);
        f->flow.step = from_file ? STEP_FILE_BODY : STEP_BODY;
        io_timer_set(io_of(f), &f->timer, &f->flow, timeouts_of(f)->upstream_between_bytes_ms);
        return FLOW_NEXT;
    case FILL_MEANS_COMPLETE:
        stat_inc(&f->worker->stats.fills_not_modified);
        give_back(f);
        return fill_drop(f, false, 0, NULL);
    case FILL_MEANS_ASK_AGAIN:
        f->tried = 0;
        return fill_drop(f, true, 502, "the upstream's answer does not fit what was asked");
    case FILL_MEANS_ERROR:
        break;
    }
    return fill_drop(f, false, f->error.status, f->error.reason);
}

static enum flow_result step_head(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    struct stream *stream = &f->conn->stream;
    int n;

    if (f->timer.fired)
        return lost(f, 0, 504, "no answer in time");
    do {
        n = read_head(f);
        if (n > 0 && f->response.status < 200 && f->response.status != 101) {
            forget_head(f); /* 100 and 103 are for the one who asked upstream, which is us */
            n = 0;
        } else if (n == 0 && stream_peek(io_of(f), stream).n == 0) {
            break;
        }
    } while (n == 0);
    if (n < 0 || (n > 0 && f->response.status == 101))
        return lost(f, 0, 502, n < 0 ? http1_error_reason(n) : "an upgrade that was not asked for");
    if (n == 0) {
        int end = stream_end(stream);

        if (end != 0 && stream_is_tls(stream)) /* TLS 1.3 refuses our certificate only here */
            return lost_because(f, stream_tls_why(stream), 502,
                                "the connection ended before the answer's head");
        if (end != 0)
            return lost(f, end == -ENODATA ? 0 : end, 502, "the connection ended before the answer's head");
        stream_arm(io_of(f), stream);
        return FLOW_WAIT;
    }
    upstream_succeeded(f->upstream);
    return fill_head_complete(f);
}

enum flow_result fill_whole(struct fill *f, bool reusable)
{
    if (reusable)
        give_back(f);
    stat_inc(&f->worker->stats.fills_completed);
    flight_complete(&f->flight);
    return fill_drop(f, false, 0, NULL);
}

/* Copies body bytes from the connection's buffers. Returns how many bytes, or -1 when the ring is full. */
static long copy_body(struct fill *f, struct str run)
{
    size_t room, done = 0;

    while (done < run.n) {
        char *to = flight_room(f->flight, &room);
        size_t n = run.n - done < room ? run.n - done : room;

        if (n == 0)
            break;
        memcpy(to, run.p + done, n);
        done += n;
        stat_add(&f->worker->stats.upstream_bytes, n);
        flight_wrote(f->flight, n);
    }
    return (long)done;
}

enum flow_result fill_no_room(struct fill *f)
{
    io_timer_cancel(io_of(f), &f->timer); /* it is the readers who are slow; their own limits hold */
    f->no_room = true;
    return FLOW_WAIT;
}

static enum flow_result cut_short(struct fill *f, int error)
{
    return lost(f, error == -ENODATA ? 0 : error, 502, "the connection ended inside the body");
}

static enum flow_result body_chunked(struct fill *f)
{
    struct stream *stream = &f->conn->stream;

    for (;;) {
        struct str in = stream_peek(io_of(f), stream), rest = in, body;
        struct http1_chunked before = f->chunked;
        int result;

        if (in.n == 0)
            break;
        result = http1_chunked_next(&f->chunked, &rest, &body);
        if (result < 0)
            return lost(f, 0, 502, http1_error_reason(result));
        if (result == HTTP1_CHUNKED_BODY) {
            long n = copy_body(f, body);

            if ((size_t)n < body.n) { /* give the decoder only as much as there is room for */
                struct str part = str_of(in.p, (size_t)(body.p - in.p) + (size_t)n);

                f->chunked = before;
                if (part.n > 0) {
                    struct str again = part;
                    (void)http1_chunked_next(&f->chunked, &again, &body);
                    stream_consume(io_of(f), stream, part.n);
                }
                return fill_no_room(f);
            }
        }
        stream_consume(io_of(f), stream, in.n - rest.n);
        if (result == HTTP1_CHUNKED_DONE)
            return fill_whole(f, true);
    }
    if (stream_end(stream) != 0)
        return cut_short(f, stream_end(stream));
    stream_arm(io_of(f), stream);
    return FLOW_WAIT;
}

/* What came in the same buffer as the head. Returns false when the ring is full. */
static bool take_early_body(struct fill *f, uint64_t max)
{
    struct stream *stream = &f->conn->stream;

    while (max > 0) {
        struct str run = stream_peek(io_of(f), stream);
        long n;

        if (run.n == 0)
            return true;
        if (run.n > max)
            run.n = max;
        n = copy_body(f, run);
        stream_consume(io_of(f), stream, (size_t)n);
        if (f->response.framing == HTTP_BODY_LENGTH)
            f->body_left -= (uint64_t)n;
        max -= (uint64_t)n;
        if ((size_t)n < run.n)
            return false;
    }
    return true;
}

static enum flow_result body_plain(struct fill *f)
{
    bool to_length = f->response.framing == HTTP_BODY_LENGTH;
    size_t room;
    char *to;
    int result;

    if (io_op_take(&f->op, &result)) {
        if (result < 0 || (result == 0 && to_length))
            return cut_short(f, result);
        if (result == 0)
            return fill_whole(f, false);
        if (to_length)
            f->body_left -= (uint64_t)result;
        stat_add(&f->worker->stats.upstream_bytes, (uint64_t)result);
        flight_wrote(f->flight, (size_t)result);
    } else if (f->op.in_flight) {
        return FLOW_WAIT;
    }
    if (!take_early_body(f, to_length ? f->body_left : UINT64_MAX))
        return fill_no_room(f);
    if (to_length && f->body_left == 0) {
        if (stream_peek(io_of(f), &f->conn->stream).n > 0)
            stat_inc(&f->worker->stats.origin_longer);
        return fill_whole(f, true);
    }
    if (stream_end(&f->conn->stream) != 0) {
        if (!to_length && stream_end(&f->conn->stream) == -ENODATA)
            return fill_whole(f, false);
        return cut_short(f, stream_end(&f->conn->stream));
    }
    to = flight_room(f->flight, &room);
    if (room == 0)
        return fill_no_room(f);
    if (to_length && room > f->body_left)
        room = (size_t)f->body_left;
    stream_recv_into(io_of(f), &f->conn->stream, &f->op, &f->flow, to, room);
    return FLOW_WAIT;
}

static enum flow_result step_body(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    uint64_t before = flight_written(f->flight);
    enum flow_result result;

    if (f->timer.fired)
        return lost(f, 0, 504, "the body came to a halt");
    /* The head's receive may still be armed: it must have ended before the body is received beside it. */
    if (f->response.framing == HTTP_BODY_NONE)
        return fill_whole(f, true);
    if (flight_deserted(f->flight))
        return fill_drop(f, false, 502, "nobody reads any more");
    f->no_room = false;
    result = f->response.framing == HTTP_BODY_CHUNKED ? body_chunked(f) : body_plain(f);
    if (result == FLOW_WAIT && !f->no_room &&
        (flight_written(f->flight) != before || !timer_is_set(&f->timer)))
        io_timer_set(io_of(f), &f->timer, flow, timeouts_of(f)->upstream_between_bytes_ms);
    return result;
}

/* --- the end --- */

static enum flow_result step_drop(struct flow *flow)
{
    struct fill *f = fill_of(flow);
    int ignored;

    resolve_cancel(&f->resolve);
    upstream_wait_cancel(&f->waiter);
    io_timer_cancel(io_of(f), &f->timer);
    if (f->op.in_flight && f->conn != NULL)
        stream_cancel(io_of(f), &f->conn->stream, &f->op);
    else if (f->op.in_flight) /* of a file */
        io_cancel(io_of(f), &f->op);
    if (stream_is_sending(&f->send))
        stream_send_cancel(io_of(f), &f->conn->stream, &f->send);
    if (f->op.in_flight || stream_is_sending(&f->send))
        return FLOW_WAIT;
    if (f->conn != NULL && !stream_stop(io_of(f), &f->conn->stream))
        return FLOW_WAIT;
    (void)io_op_take(&f->op, &ignored);
    (void)io_op_take(&f->send.op, &ignored);
    if (f->conn != NULL)
        upstream_close(&f->conn);
    fill_file_close(f);
    if (f->after_drop_retry) {
        upward_forget(f);
        forget_head(f);
        f->flow.step = STEP_CHOOSE;
        return FLOW_NEXT;
    }
    if (f->flight != NULL) {
        stat_inc(&f->worker->stats.fills_failed);
        flight_fail(&f->flight, &f->error, worker_now_ns(f->worker));
    }
    return FLOW_DONE;
}

static void fill_done(struct flow *flow)
{
    struct fill *f = CONTAINER_OF(flow, struct fill, flow);
    struct worker *w = f->worker;

    if (f->body_from != NULL)
        request_body_taken(f->body_from);
    if (f->revalidate != NULL)
        object_unref(w->proxy->memory, &f->revalidate);
    list_remove(&f->node);
    worker_site_unref(&f->site);
    free(f->text);
    upward_forget(f);
    free(f->head);
    f->magic = 0;
    pool_put(&w->fills, f);
}

static const flow_step fill_steps[] = {
    [STEP_CHOOSE] = step_choose,
    [STEP_RESOLVE] = step_resolve,
    [STEP_CONNECT] = step_connect,
    [STEP_CONNECTING] = step_connecting,
    [STEP_HANDSHAKE] = step_handshake,
    [STEP_SEND] = step_send,
    [STEP_SEND_BODY] = step_send_body,
    [STEP_HEAD] = step_head,
    [STEP_BODY] = step_body,
    [STEP_FILE] = fill_file_step,
    [STEP_FILE_BODY] = fill_file_body_step,
    [STEP_DROP] = step_drop,
};
static const char *const fill_step_names[] = {
    [STEP_CHOOSE] = "choose",       [STEP_RESOLVE] = "resolve",
    [STEP_CONNECT] = "connect",     [STEP_CONNECTING] = "connecting",
    [STEP_HANDSHAKE] = "handshake", [STEP_SEND] = "send",
    [STEP_SEND_BODY] = "send body", [STEP_HEAD] = "head",
    [STEP_BODY] = "body",           [STEP_FILE] = "file",
    [STEP_FILE_BODY] = "file body", [STEP_DROP] = "drop",
};
static const struct flow_type fill_type = {
    .name = "fill",
    .steps = fill_steps,
    .step_names = fill_step_names,
    .steps_n = ARRAY_LEN(fill_steps),
    .done = fill_done,
};
