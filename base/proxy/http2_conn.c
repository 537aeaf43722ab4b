#include "proxy/http2_conn.h"

#include "proxy/request.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

/* Between the notice of an end and the end (RFC 9113, 6.8: at least a round trip). */
#define NOTICE_MS 500u

/* A connection that is to end at once has so long to take its GOAWAY. */
#define HURRY_MS 100u

/* When streams run short on a worker, a connection that has as many gets no more. */
#define STREAMS_FAIR 8u

/* Bytes of a request's body, as they came, until they are consumed. */
struct chunk {
    struct chunk *next;
    uint32_t from, n, cap;
    char bytes[];
};

#define CHUNK_BYTES_MIN 1024u

/* A stream with its request. */
struct h2_stream {
    struct carrier carrier;
    struct http2_stream http2;
    struct http2_conn *conn;
    struct request *request;
    struct list node;
    struct chunk *body_head, *body_tail;
    size_t body_bytes;
    int body_error;            /* 0, or why it will not be whole */
    bool answering;            /* counted in paced_n or unpaced_n */
    uint64_t pace_bytes_per_s; /* of its answer; 0: none */
    bool cancelled;            /* what was in flight is, and its request does not know yet */
};

const size_t http2_conn_stream_bytes = sizeof(struct h2_stream);

enum timing { TIMING_FIRST, TIMING_NONE, TIMING_IDLE, TIMING_HEAD };

struct http2_conn {
    struct http2 *session;
    struct conn *conn;
    struct list streams;
    unsigned streams_n;
    unsigned cancelled_n;
    unsigned sending_n;          /* sends of requests that are not complete */
    unsigned paced_n, unpaced_n; /* of those that are being answered */
    uint8_t timing;              /* what conn->timer runs for */
    bool broken;                 /* nothing can be sent or received any more */
    bool ended;                  /* the client's stream has ended */
    bool leaving;                /* no new requests are wanted */
    bool noticed;
    bool hurry;
    unsigned timed_requests; /* conn->requests_n when the timer for a head was set */
    struct timer leave;      /* from notice to GOAWAY */
    struct timer look;       /* at what the client takes */
    bool look_was_blocked;   /* the connection's window was zero since the last look */
    uint64_t look_ns, look_acked, look_framed;
    struct stream_send send;
    struct iovec vec;
    char *slab; /* on its way; NULL: none */
    bool slab_is_small;
};

static const struct carrier_ops http2_ops;
static const struct http2_events http2_events;

static struct worker *worker_of(const struct http2_conn *h)
{
    return h->conn->worker;
}

static struct io *io_of(const struct http2_conn *h)
{
    return h->conn->worker->io;
}

static const struct proxy_conf *conf_of(const struct http2_conn *h)
{
    return worker_conf(h->conn->worker);
}

static struct h2_stream *stream_of(struct carrier *c)
{
    return CONTAINER_OF(c, struct h2_stream, carrier);
}

static void wake(struct http2_conn *h)
{
    io_wake(io_of(h), &h->conn->flow);
}

/* --- bodies of requests --- */

static bool body_add(struct h2_stream *s, struct str bytes)
{
    struct chunk *tail = s->body_tail;

    if (tail == NULL || tail->cap - tail->n < bytes.n) {
        size_t cap = bytes.n > CHUNK_BYTES_MIN ? bytes.n : CHUNK_BYTES_MIN;

        tail = malloc(sizeof *tail + cap);
        if (tail == NULL)
            return false;
        *tail = (struct chunk){.cap = (uint32_t)cap};
        if (s->body_tail != NULL)
            s->body_tail->next = tail;
        else
            s->body_head = tail;
        s->body_tail = tail;
    }
    memcpy(tail->bytes + tail->n, bytes.p, bytes.n);
    tail->n += (uint32_t)bytes.n;
    s->body_bytes += bytes.n;
    return true;
}

static void body_drop_first(struct h2_stream *s)
{
    struct chunk *first = s->body_head;

    s->body_head = first->next;
    if (s->body_head == NULL)
        s->body_tail = NULL;
    free(first);
}

static struct str carrier_body_peek(struct carrier *c)
{
    const struct chunk *first = stream_of(c)->body_head;

    return first == NULL ? STR_NONE : str_of(first->bytes + first->from, first->n - first->from);
}

static void carrier_body_consume(struct carrier *c, size_t n)
{
    struct h2_stream *s = stream_of(c);

    CHECK(s->body_head != NULL && n <= s->body_head->n - s->body_head->from);
    s->body_bytes -= n;
    s->body_head->from += (uint32_t)n;
    if (s->body_head->from == s->body_head->n)
        body_drop_first(s);
    http2_consume(s->conn->session, &s->http2, n);
    wake(s->conn); /* a WINDOW_UPDATE may be due */
}

static int carrier_body_end(struct carrier *c)
{
    const struct h2_stream *s = stream_of(c);

    if (s->body_error != 0)
        return s->body_error;
    return s->http2.remote_ended && s->body_head == NULL ? -ENODATA : 0;
}

static void carrier_body_arm(struct carrier *c)
{
    (void)c; /* the connection always reads; windows bound what comes */
}

/* --- answers --- */

static void complete(struct h2_stream *s, int result)
{
    struct stream_send *send = &s->request->out.send;

    if (!send->op.in_flight)
        return;
    s->conn->sending_n--;
    send->op.in_flight = false;
    send->op.done = true;
    send->op.result = result;
    if (result == 0)
        send->left_bytes = 0;
    io_wake(io_of(s->conn), &s->request->flow);
}

static void begin_send(struct h2_stream *s, struct request *r, size_t bytes)
{
    struct stream_send *send = &r->out.send;

    CHECK(!send->op.in_flight);
    s->conn->sending_n++;
    send->op = (struct io_op){.flow = &r->flow, .in_flight = true};
    send->left_bytes = send->total_bytes = bytes;
}

/* A socket has one pace: that of all answers that are under way on it. */
static void set_pace(struct http2_conn *h)
{
    bool first = true;
    uint64_t pace = 0;

    if (h->paced_n == 0 || h->unpaced_n > 0) {
        conn_pace(h->conn, 0);
        return;
    }
    LIST_EACH (&h->streams, node) {
        const struct h2_stream *s = LIST_ENTRY(node, struct h2_stream, node);

        if (!s->answering)
            continue;
        pace = first ? s->pace_bytes_per_s : conn_pace_of_both(pace, s->pace_bytes_per_s);
        first = false;
    }
    conn_pace(h->conn, pace);
}

static void begin_pace(struct h2_stream *s, uint64_t bytes_per_s)
{
    if (s->answering)
        return;
    s->answering = true;
    s->pace_bytes_per_s = bytes_per_s;
    if (bytes_per_s > 0)
        s->conn->paced_n++;
    else
        s->conn->unpaced_n++;
    set_pace(s->conn);
}

static void end_pace(struct h2_stream *s)
{
    if (!s->answering)
        return;
    s->answering = false;
    if (s->pace_bytes_per_s > 0)
        s->conn->paced_n--;
    else
        s->conn->unpaced_n--;
    set_pace(s->conn);
}

static void carrier_send(struct carrier *c, struct request *r)
{
    struct h2_stream *s = stream_of(c);
    int error;

    begin_pace(s, r->rate_bytes_per_s);

    begin_send(s, r, r->out.bytes);
    error =
        http2_send(s->conn->session, &s->http2, r->out.vecs, r->out.vecs_n, r->out.head_vecs_n, r->out.last);
    if (error != 0)
        complete(s, error);
    else
        wake(s->conn); /* which runs after those requests that are to run now: their bytes go together */
}

static void carrier_send_continue(struct carrier *c, struct request *r)
{
    struct h2_stream *s = stream_of(c);
    int error;

    begin_send(s, r, 0);
    error = http2_send_continue(s->conn->session, &s->http2);
    if (error != 0)
        complete(s, error);
    else
        wake(s->conn);
}

static bool carrier_send_take(struct carrier *c, struct request *r, int *error)
{
    (void)c;
    return io_op_take(&r->out.send.op, error);
}

/* The request may be at its end: it is told in the connection's turn, not from within its own. */
static void carrier_send_cancel(struct carrier *c, struct request *r)
{
    struct h2_stream *s = stream_of(c);

    if (!r->out.send.op.in_flight || s->cancelled)
        return;
    http2_reset(s->conn->session, &s->http2, HTTP2_INTERNAL_ERROR);
    s->cancelled = true;
    s->conn->cancelled_n++;
    wake(s->conn);
}

static void complete_cancelled(struct http2_conn *h)
{
    if (h->cancelled_n == 0)
        return;
    h->cancelled_n = 0;
    LIST_EACH (&h->streams, node) {
        struct h2_stream *s = LIST_ENTRY(node, struct h2_stream, node);

        if (s->cancelled)
            complete(s, -ECANCELED);
        s->cancelled = false;
    }
}

/* The connection itself looks at what its client takes of all streams (check_rate). */
static int carrier_taken_bytes(struct carrier *c, struct request *r, uint64_t *bytes)
{
    struct h2_stream *s = stream_of(c);

    (void)r;
    *bytes =
        http2_stream_is_blocked(s->conn->session, &s->http2) ? s->http2.framed_bytes : CARRIER_NOT_ITS_TURN;
    return 0;
}

static bool carrier_will_close(const struct carrier *c)
{
    (void)c;
    return false; /* GOAWAY says it, not the answer */
}

static void carrier_done(struct carrier *c, const struct request_end *end)
{
    struct h2_stream *s = stream_of(c);
    struct http2_conn *h = s->conn;

    (void)end; /* the session knows what was sent and what was read */
    if (s->cancelled)
        h->cancelled_n--;
    http2_forget(h->session, &s->http2, s->body_bytes);
    while (s->body_head != NULL)
        body_drop_first(s);
    list_remove(&s->node);
    end_pace(s);
    pool_put(&worker_of(h)->http2_streams, s);
    stat_dec(&worker_of(h)->stats.http2_requests);
    if (--h->streams_n == 0)
        stat_dec(&worker_of(h)->stats.connections_active);
    wake(h);
}

static const struct carrier_ops http2_ops = {
    .frames_body = true,
    .http_version = 20,
    .send = carrier_send,
    .send_take = carrier_send_take,
    .send_cancel = carrier_send_cancel,
    .taken_bytes = carrier_taken_bytes,
    .send_continue = carrier_send_continue,
    .body_peek = carrier_body_peek,
    .body_consume = carrier_body_consume,
    .body_end = carrier_body_end,
    .body_arm = carrier_body_arm,
    .will_close = carrier_will_close,
    .done = carrier_done,
};

/* --- events of the session --- */

static struct h2_stream *stream_of_http2(struct http2_stream *s)
{
    return CONTAINER_OF(s, struct h2_stream, http2);
}

/* Requests that are under way count, not streams: one that its client has reset keeps its place until it is gone. */
static bool has_place(const struct http2_conn *h)
{
    const struct pool *pool = &worker_of(h)->http2_streams;

    if (h->streams_n >= conf_of(h)->limits.http2_streams_max)
        return false;
    return h->streams_n < STREAMS_FAIR || pool->in_use < pool->in_use_max / 2;
}

static struct http2_stream *on_request(void *owner, const struct http2_request *request)
{
    struct http2_conn *h = owner;
    struct worker *w = worker_of(h);
    struct h2_stream *s;

    h->conn->requests_n++;
    s = has_place(h) ? pool_get(&w->http2_streams) : NULL;
    if (s == NULL)
        return NULL;
    *s = (struct h2_stream){.conn = h};
    s->carrier = (struct carrier){.ops = &http2_ops, .conn = h->conn};
    if (request->refuse != 0)
        stat_inc(&w->stats.bad_requests);
    s->request = request->refuse != 0
                     ? request_start_refused(&s->carrier, request->refuse, request->detail)
                     : request_start(&s->carrier, request->head.p, request->head.n, request->parsed);
    if (s->request == NULL) {
        pool_put(&w->http2_streams, s);
        return NULL;
    }
    list_push_back(&h->streams, &s->node);
    stat_inc(&w->stats.http2_requests);
    if (h->streams_n++ == 0)
        stat_inc(&w->stats.connections_active);
    if (h->conn->requests_n >= conf_of(h)->limits.client_requests_max)
        h->leaving = true;
    return &s->http2;
}

static void on_body(void *owner, struct http2_stream *http2, struct str bytes)
{
    struct http2_conn *h = owner;
    struct h2_stream *s = stream_of_http2(http2);

    if (!body_add(s, bytes)) {
        http2_consume(h->session, http2, bytes.n);
        s->body_error = -ENOMEM;
    }
    request_client_spoke(s->request);
}

static void on_body_end(void *owner, struct http2_stream *http2)
{
    (void)owner;
    request_client_spoke(stream_of_http2(http2)->request);
}

static void on_taken(void *owner, struct http2_stream *http2)
{
    (void)owner;
    complete(stream_of_http2(http2), 0);
}

static void on_closed(void *owner, struct http2_stream *http2, uint32_t error)
{
    struct h2_stream *s = stream_of_http2(http2);

    (void)owner;
    (void)error;
    if (!http2->remote_ended)
        s->body_error = -ECONNRESET;
    if (http2->begun && http2->last && !http2->sending) {
        request_client_spoke(s->request);
        return; /* all of the answer has gone */
    }
    complete(s, -ECONNRESET);
    request_abort(s->request);
}

static const struct http2_events http2_events = {
    .request = on_request,
    .body = on_body,
    .body_end = on_body_end,
    .taken = on_taken,
    .closed = on_closed,
};

/* --- receiving and sending --- */

static void feed(struct http2_conn *h, struct str bytes)
{
    if (http2_feed(h->session, bytes, worker_now_ns(worker_of(h))) != 0)
        h->broken = true;
    if (h->timing == TIMING_FIRST)
        h->timing = TIMING_NONE;
}

static void receive(struct http2_conn *h)
{
    struct io *io = io_of(h);
    struct stream *stream = &h->conn->stream;
    struct str run;
    int end;

    while (!h->broken && (run = stream_peek(io, stream)).n > 0) {
        feed(h, run);
        stream_consume(io, stream, run.n);
    }
    end = h->broken || h->ended ? 0 : stream_end(stream);
    if (end == 0)
        return;
    h->ended = true;
    if (end != -ENODATA)
        h->broken = true;
    LIST_EACH (&h->streams, node) { /* what has not come of a body never will */
        struct h2_stream *s = LIST_ENTRY(node, struct h2_stream, node);

        if (!s->http2.remote_ended)
            s->body_error = -ECONNRESET;
        request_client_spoke(s->request);
    }
}

/* The client has ended its stream: windows that are used up stay so. What they let through is still sent. */
static void give_up_blocked(struct http2_conn *h)
{
    if (!h->ended || h->slab != NULL)
        return;
    LIST_EACH (&h->streams, node) {
        struct h2_stream *s = LIST_ENTRY(node, struct h2_stream, node);

        if (s->http2.sending &&
            (http2_is_blocked(h->session) || http2_stream_is_blocked(h->session, &s->http2)))
            request_abort(s->request);
    }
}

static bool get_slab(struct http2_conn *h)
{
    h->slab = pool_get(&worker_of(h)->http2_slabs);
    h->slab_is_small = h->slab == NULL;
    if (h->slab == NULL)
        h->slab = malloc(HTTP2_SLAB_SMALL_BYTES);
    return h->slab != NULL;
}

static void put_slab(struct http2_conn *h)
{
    char *slab = TAKE(&h->slab);

    if (h->slab_is_small)
        free(slab);
    else
        pool_put(&worker_of(h)->http2_slabs, slab);
}

/* True when the slab is free. */
static bool take_sent(struct http2_conn *h)
{
    int error;

    if (h->slab == NULL)
        return true;
    if (!stream_send_take(io_of(h), &h->conn->stream, &h->send, &error))
        return false;
    put_slab(h);
    if (error != 0)
        h->broken = true;
    return true;
}

static void send_more(struct http2_conn *h)
{
    int n;

    if (!take_sent(h) || h->broken || !http2_wants_pull(h->session))
        return;
    if (!get_slab(h)) {
        h->broken = true;
        return;
    }
    n = http2_pull(h->session, h->slab, h->slab_is_small ? HTTP2_SLAB_SMALL_BYTES : HTTP2_SLAB_BYTES);
    if (n <= 0) {
        put_slab(h);
        h->broken = n < 0;
        return;
    }
    stream_send_bytes(io_of(h), &h->conn->stream, &h->send, &h->conn->flow, &h->vec, h->slab, (size_t)n);
}

/* --- time --- */

static void set_timing(struct http2_conn *h, enum timing timing, uint64_t ms)
{
    h->timing = (uint8_t)timing;
    if (timing == TIMING_NONE)
        io_timer_cancel(io_of(h), &h->conn->timer);
    else
        io_timer_set(io_of(h), &h->conn->timer, &h->conn->flow, ms);
}

/* The client's time to begin, to end a head, and to be silent between requests. Frames that ask for nothing prolong none. */
static void check_silence(struct http2_conn *h)
{
    struct conn *c = h->conn;
    const struct proxy_timeouts *timeouts = &conf_of(h)->timeouts;

    if (http2_is_in_head(h->session)) {
        if (h->timing != TIMING_HEAD || h->timed_requests != c->requests_n) {
            h->timed_requests = c->requests_n;
            set_timing(h, TIMING_HEAD, timeouts->client_head_ms);
        }
    } else if (h->streams_n > 0) {
        if (h->timing != TIMING_NONE)
            set_timing(h, TIMING_NONE, 0);
    } else if (h->timing == TIMING_NONE || h->timing == TIMING_HEAD) {
        set_timing(h, TIMING_IDLE, timeouts->client_idle_ms);
    }
    if (h->timing == TIMING_NONE || !c->timer.fired)
        return;
    c->timer.fired = false;
    if (h->timing == TIMING_IDLE) {
        http2_goaway(h->session);
    } else {
        stat_inc(&worker_of(h)->stats.head_timeouts);
        http2_terminate(h->session, HTTP2_ENHANCE_YOUR_CALM);
    }
    wake(h); /* to send that */
}

/* Between two looks at what is on its way, the client must have taken as much as the least rate asks for: of
 * what its windows let through, or of what lies in the socket. What is only ever held by streams' own windows is their
 * requests' to judge; a client that opens one kind of window by turns with the other is judged here. */
static void check_rate(struct http2_conn *h)
{
    const struct proxy_conf *conf = conf_of(h);
    uint64_t rate_min = conf->limits.client_rate_min, now_ns = worker_now_ns(worker_of(h));
    uint64_t framed = http2_framed_bytes(h->session), acked = 0, least;
    bool first = !timer_is_set(&h->look) && !h->look.fired;

    if (h->slab == NULL && h->sending_n == 0) {
        io_timer_cancel(io_of(h), &h->look);
        h->look_was_blocked = false;
        return;
    }
    if (http2_is_blocked(h->session))
        h->look_was_blocked = true;
    if (!first && !h->look.fired)
        return;
    if (io_acked_bytes(io_of(h), stream_fd(&h->conn->stream), &acked) != 0) {
        h->broken = true;
        return;
    }
    least = conn_least_bytes(rate_min, h->conn->pace_bytes_per_s, (now_ns - h->look_ns) / NS_PER_MS);
    if (!first && (h->slab != NULL || h->look_was_blocked) && framed - h->look_framed < least &&
        (h->slab == NULL || acked - h->look_acked < least)) {
        stat_inc(&worker_of(h)->stats.slow_clients);
        h->broken = true;
        return;
    }
    h->look_was_blocked = false;
    h->look_ns = now_ns;
    h->look_framed = framed;
    h->look_acked = acked;
    io_timer_set(io_of(h), &h->look, &h->conn->flow,
                 rate_min > 0 ? conf->limits.client_rate_grace_ms : conf->timeouts.client_send_ms);
}

static void check_leaving(struct http2_conn *h)
{
    if (h->hurry) {
        if (h->leave.fired)
            h->broken = true;
        return;
    }
    if (h->leaving && !h->noticed) {
        h->noticed = true;
        http2_notice(h->session);
        io_timer_set(io_of(h), &h->leave, &h->conn->flow, NOTICE_MS);
        wake(h);
    }
    if (h->leave.fired) {
        h->leave.fired = false;
        http2_goaway(h->session);
        wake(h);
    }
}

/* --- the connection's flow --- */

static void abort_requests(struct http2_conn *h)
{
    LIST_EACH (&h->streams, node)
        request_abort(LIST_ENTRY(node, struct h2_stream, node)->request);
}

int http2_conn_start(struct conn *c, struct str before)
{
    struct worker *w = c->worker;
    struct http2_conn *h = calloc(1, sizeof *h);
    const struct http2_options options = {.events = &http2_events,
                                          .owner = h,
                                          .stats = &w->stats.http2,
                                          .streams_max = worker_conf(w)->limits.http2_streams_max,
                                          .now_ns = worker_now_ns(w)};

    if (h == NULL)
        return -ENOMEM;
    h->conn = c;
    list_init(&h->streams);
    if (http2_create(&h->session, &options) != 0) {
        free(h);
        return -ENOMEM;
    }
    c->http2 = h;
    h->leaving = c->close_after;
    stat_inc(&w->stats.http2_connections);
    stat_inc(&w->stats.http2_connections_open);
    if (before.n > 0)
        feed(h, before);
    return 0;
}

static void log_attack(const struct http2_conn *h)
{
    static struct log_limiter limiter;
    enum http2_attack attack = http2_attack_of(h->session);
    char peer[ADDRESS_TEXT_MAX];

    if (attack == HTTP2_ATTACK_NONE)
        return;
    (void)address_format(&h->conn->peer, peer);
    log_limited(&limiter, LOG_LEVEL_WARN, "an HTTP/2 connection of %s was closed as abuse: %s", peer,
                http2_attack_name(attack));
}

/* Frees it, once nothing is in flight any more. */
static enum http2_conn_result leave(struct http2_conn *h)
{
    struct conn *c = h->conn;
    bool linger = !h->broken && !h->ended && http2_was_wronged(h->session);

    abort_requests(h);
    if (h->slab != NULL)
        stream_send_cancel(io_of(h), &c->stream, &h->send);
    if (h->streams_n > 0 || !take_sent(h))
        return HTTP2_CONN_WAIT;
    io_timer_cancel(io_of(h), &h->leave);
    io_timer_cancel(io_of(h), &h->look);
    io_timer_cancel(io_of(h), &c->timer);
    log_attack(h);
    http2_destroy(&h->session);
    stat_dec(&c->worker->stats.http2_connections_open);
    c->cut = h->broken;
    free(TAKE(&c->http2));
    return linger ? HTTP2_CONN_LINGER : HTTP2_CONN_CLOSE;
}

enum http2_conn_result http2_conn_step(struct conn *c)
{
    struct http2_conn *h = c->http2;

    complete_cancelled(h);
    if (!h->broken)
        receive(h);
    if (!h->broken)
        send_more(h);
    if (!h->broken)
        give_up_blocked(h);
    if (!h->broken && http2_is_over(h->session) && h->slab == NULL &&
        (h->streams_n == 0 || http2_was_wronged(h->session) || h->hurry))
        return leave(h);
    if (!h->broken && h->ended && h->streams_n == 0 && h->slab == NULL)
        return leave(h);
    if (!h->broken) {
        check_leaving(h);
        check_silence(h);
        check_rate(h);
    }
    if (h->broken)
        return leave(h);
    if (!h->ended)
        stream_arm(io_of(h), &c->stream);
    return HTTP2_CONN_WAIT;
}

void http2_conn_drain(struct conn *c, bool hurry)
{
    struct http2_conn *h = c->http2;

    h->leaving = true;
    if (hurry && !h->hurry) {
        h->hurry = true;
        abort_requests(h);
        http2_terminate(h->session, HTTP2_NO_ERROR);
        io_timer_set(io_of(h), &h->leave, &c->flow, HURRY_MS);
    }
    wake(h);
}
