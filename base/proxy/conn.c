#include "proxy/conn.h"

#include "net/proxy_protocol.h"
#include "proxy/http2_conn.h"
#include "proxy/rate_limit.h"
#include "proxy/request.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

#define LINGER_MS        2000u
#define LINGER_BYTES_MAX (256u * 1024u)
#define AHEAD_BUFFERS    2u
#define PACKET_BYTES_MAX (64u * 1024u) /* as the kernel hands them to a device */

enum { STEP_PROXY, STEP_HANDSHAKE, STEP_HEAD, STEP_REQUEST, STEP_HTTP2, STEP_LINGER, STEP_CLOSE };

static const struct flow_type conn_type;
static const struct carrier_ops http1_ops;

static struct conn *conn_of(struct flow *flow)
{
    struct conn *c = CONTAINER_OF(flow, struct conn, flow);

    CHECK_MAGIC(c, CONN_MAGIC);
    return c;
}

static const struct proxy_conf *conf_of(const struct conn *c)
{
    return worker_conf(c->worker);
}

/* Who connects has something to say: a head's time limit, not an idle one's. */
static void await_first_head(struct conn *c)
{
    c->head_timing = true;
    io_timer_set(c->worker->io, &c->timer, &c->flow, conf_of(c)->timeouts.client_head_ms);
}

/* Who is at the other end is known, and what comes next is the client's. */
static enum flow_result begin(struct conn *c, struct tls_server *tls)
{
    if (!rate_limit_enter(c->worker, &c->peer, &c->address_slot)) {
        c->flow.step = STEP_CLOSE;
    } else if (tls == NULL) {
        await_first_head(c);
        c->flow.step = STEP_HEAD;
    } else if (stream_tls_accept(c->worker->io, &c->stream, c->worker->tls, tls) == 0) {
        c->flow.step = STEP_HANDSHAKE; /* which has its own time limits */
    } else {
        c->flow.step = STEP_CLOSE;
    }
    return FLOW_NEXT;
}

static bool begins_with_proxy_header(const struct conn *c, const struct proxy_listen *listen)
{
    struct ip peer = address_ip(&c->peer);

    for (unsigned i = 0; i < listen->proxy_protocol_n; i++)
        if (ip_in_block(&peer, &listen->proxy_protocol[i]))
            return true;
    return false;
}

void conn_accept(struct worker *w, int fd, const struct proxy_listen *listen)
{
    struct sockaddr_storage peer;
    struct conn *c;

    if (w->hurry) {
        io_close(w->io, fd);
        return;
    }
    c = w->conns.in_use < w->connections_max ? pool_get(&w->conns) : NULL;
    if (c == NULL) {
        static struct log_limiter limiter;

        stat_inc(&w->stats.connections_refused);
        log_limited(&limiter, LOG_LEVEL_WARN,
                    "a connection was refused: worker %u has its %u; raise limits.connections_max", w->index,
                    w->connections_max);
        io_close(w->io, fd);
        return;
    }
    *c = (struct conn){.magic = CONN_MAGIC, .worker = w, .close_after = w->draining};
    c->http2_offered = listen->http2 && listen->tls == NULL;
    c->carrier = (struct carrier){.ops = &http1_ops, .conn = c};
    flow_init(&c->flow, &conn_type, STEP_HEAD);
    if (io_peer_address(w->io, fd, &peer) == 0)
        (void)address_of_sockaddr((const struct sockaddr *)&peer, &c->peer);
    stream_init(&c->stream, fd, &c->flow, true);
    list_push_back(&w->conn_list, &c->node);
    stat_inc(&w->stats.connections_accepted);
    stat_inc(&w->stats.connections_open);
    if (listen->proxy_protocol_n > 0 && begins_with_proxy_header(c, listen)) {
        c->tls_next = listen->tls != NULL ? tls_server_ref(listen->tls) : NULL;
        c->flow.step = STEP_PROXY;
        await_first_head(c);
    } else {
        (void)begin(c, listen->tls);
    }
    io_wake(w->io, &c->flow);
}

void conn_drain(struct conn *c, bool hurry)
{
    c->close_after = true;
    if (c->http2 != NULL) {
        http2_conn_drain(c, hurry);
        return;
    }
    if (hurry && c->request != NULL)
        request_abort(c->request);
    if (c->request == NULL && c->head == NULL && (c->flow.step == STEP_HEAD || c->flow.step == STEP_PROXY))
        c->flow.step = STEP_CLOSE;
    else if (hurry && c->request == NULL)
        c->flow.step = STEP_CLOSE;
    io_wake(c->worker->io, &c->flow);
}

void conn_pace(struct conn *c, uint64_t bytes_per_s)
{
    uint32_t pace = bytes_per_s < UINT32_MAX ? (uint32_t)bytes_per_s : 0; /* 4 GiB a second is no bound */

    if (c->pace_bytes_per_s == pace)
        return;
    c->pace_bytes_per_s = pace;
    io_pace(c->worker->io, stream_fd(&c->stream), pace != 0 ? pace : UINT64_MAX);
}

uint64_t conn_least_bytes(uint64_t rate_min, uint64_t pace_bytes_per_s, uint64_t elapsed_ms)
{
    uint64_t least = rate_min * elapsed_ms / 1000, paced = pace_bytes_per_s / 2 * elapsed_ms / 1000;

    if (least == 0)
        least = 1;
    paced = paced > PACKET_BYTES_MAX ? paced - PACKET_BYTES_MAX : 0;
    return pace_bytes_per_s > 0 && paced < least ? paced : least;
}

/* --- what carries its requests --- */

static struct conn *conn_of_carrier(struct carrier *carrier)
{
    return CONTAINER_OF(carrier, struct conn, carrier);
}

static void carrier_send(struct carrier *carrier, struct request *r)
{
    struct conn *c = conn_of_carrier(carrier);

    conn_pace(c, r->rate_bytes_per_s);
    stream_send(c->worker->io, &c->stream, &r->out.send, &r->flow, r->out.vecs, r->out.vecs_n);
}

static bool carrier_send_take(struct carrier *carrier, struct request *r, int *error)
{
    struct conn *c = conn_of_carrier(carrier);

    return stream_send_take(c->worker->io, &c->stream, &r->out.send, error);
}

static void carrier_send_cancel(struct carrier *carrier, struct request *r)
{
    struct conn *c = conn_of_carrier(carrier);

    stream_send_cancel(c->worker->io, &c->stream, &r->out.send);
}

static int carrier_taken_bytes(struct carrier *carrier, struct request *r, uint64_t *bytes)
{
    struct conn *c = conn_of_carrier(carrier);

    (void)r;
    return io_acked_bytes(c->worker->io, stream_fd(&c->stream), bytes);
}

static void carrier_send_continue(struct carrier *carrier, struct request *r)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct conn *c = conn_of_carrier(carrier);

    stream_send_bytes(c->worker->io, &c->stream, &r->out.send, &r->flow, &r->out.vecs[0], text,
                      sizeof text - 1);
}

static struct str carrier_body_peek(struct carrier *carrier)
{
    struct conn *c = conn_of_carrier(carrier);

    return stream_peek(c->worker->io, &c->stream);
}

static void carrier_body_consume(struct carrier *carrier, size_t n)
{
    struct conn *c = conn_of_carrier(carrier);

    stream_consume(c->worker->io, &c->stream, n);
}

static int carrier_body_end(struct carrier *carrier)
{
    return stream_end(&conn_of_carrier(carrier)->stream);
}

static void carrier_body_arm(struct carrier *carrier)
{
    struct conn *c = conn_of_carrier(carrier);

    stream_arm(c->worker->io, &c->stream);
}

static bool carrier_will_close(const struct carrier *carrier)
{
    const struct conn *c = carrier->conn;

    return c->close_after || c->requests_n >= conf_of(c)->limits.client_requests_max;
}

static void carrier_done(struct carrier *carrier, const struct request_end *end)
{
    struct conn *c = conn_of_carrier(carrier);

    c->request = NULL;
    if (end->close || end->unread)
        c->close_after = true;
    if (end->unread)
        c->discarding = true;
    c->cut = end->aborted;
    stat_dec(&c->worker->stats.connections_active);
    io_wake(c->worker->io, &c->flow);
}

static const struct carrier_ops http1_ops = {
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

/* --- steps --- */

static void forget_head(struct conn *c)
{
    free(TAKE(&c->head));
    c->head_n = 0;
    c->head_scanned = 0;
}

static enum flow_result go(struct conn *c, uint8_t step)
{
    c->flow.step = step;
    return FLOW_NEXT;
}

static enum flow_result refuse(struct conn *c, unsigned status, const char *detail)
{
    c->close_after = true;
    c->discarding = true;
    stat_inc(&c->worker->stats.bad_requests);
    forget_head(c);
    c->request = request_start_refused(&c->carrier, status, detail);
    if (c->request == NULL)
        return go(c, STEP_CLOSE);
    stat_inc(&c->worker->stats.connections_active);
    c->flow.step = STEP_REQUEST;
    return FLOW_WAIT;
}

static bool is_head_ready(struct conn *c)
{
    size_t scanned = c->head_scanned;
    bool ready = http1_head_ready(c->head, c->head_n, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned);

    c->head_scanned = (uint16_t)scanned;
    return ready;
}

/* Adds what has come to c->head. Returns the bytes taken from the run. */
static int collect(struct conn *c, struct str run, size_t *taken)
{
    size_t room = HTTP_REQUEST_HEAD_BYTES_MAX + 1 - c->head_n;

    if (c->head == NULL) {
        c->head = malloc(HTTP_REQUEST_HEAD_BYTES_MAX + 1);
        if (c->head == NULL)
            return -ENOMEM;
    }
    *taken = run.n < room ? run.n : room;
    memcpy(c->head + c->head_n, run.p, *taken);
    c->head_n = (uint16_t)(c->head_n + *taken);
    return 0;
}

/* Parses what there is. Above 0: a head of that many bytes at *head, *consume of which are still to be taken
 * from the receive buffers. 0: more is needed, and everything there was has been put aside. */
static int next_head(struct conn *c, struct http1_request *parsed, const char **head, size_t *consume)
{
    struct io *io = c->worker->io;

    for (;;) {
        struct str run = stream_peek(io, &c->stream);
        size_t taken, before = c->head_n;
        int n;

        if (run.n == 0)
            return 0;
        if (c->head == NULL) {
            n = http1_parse_request(run.p, run.n, parsed);
            if (n != 0) {
                *head = run.p;
                *consume = n > 0 ? (size_t)n : 0;
                return n;
            }
        }
        if (collect(c, run, &taken) != 0)
            return -HTTP1_HEAD_TOO_LONG;
        n = 0;
        if (is_head_ready(c))
            n = http1_parse_request(c->head, c->head_n, parsed);
        if (n != 0) {
            *head = c->head;
            *consume = n > 0 ? (size_t)n - before : 0;
            return n;
        }
        stream_consume(io, &c->stream, taken);
    }
}

/* As next_head. */
static int next_proxy_header(struct conn *c, struct proxy_protocol *header)
{
    struct io *io = c->worker->io;

    for (;;) {
        struct str run = stream_peek(io, &c->stream);
        size_t taken, before = c->head_n;
        int n;

        if (run.n == 0)
            return 0;
        n = c->head == NULL ? proxy_protocol_parse(run, header) : 0;
        if (n == 0 && collect(c, run, &taken) != 0)
            return -ENOMEM;
        if (n == 0)
            n = proxy_protocol_parse(str_of(c->head, c->head_n), header);
        if (n != 0) {
            stream_consume(io, &c->stream, n > 0 ? (size_t)n - before : 0);
            forget_head(c);
            return n;
        }
        stream_consume(io, &c->stream, taken);
    }
}

static enum flow_result refuse_proxy(struct conn *c, enum stat_proxy_header why)
{
    static struct log_limiter limiter;
    char peer[ADDRESS_TEXT_MAX];

    stat_inc(&c->worker->stats.proxy_headers[why]);
    address_format(&c->peer, peer);
    log_limited(&limiter, LOG_LEVEL_WARN,
                "%s is named in listen[].proxy_protocol, but %s; its connection was closed", peer,
                why == STAT_PROXY_HEADER_LATE ? "sent no whole PROXY header in time"
                                              : "began with no PROXY header");
    return go(c, STEP_CLOSE);
}

/* A named peer passes on the connections of others, and says first of all whose each is. */
static enum flow_result step_proxy(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct worker *w = c->worker;
    struct tls_server *tls = c->tls_next;
    struct proxy_protocol header;
    enum flow_result result;
    int n = next_proxy_header(c, &header);

    if (n < 0)
        return refuse_proxy(c, STAT_PROXY_HEADER_BAD);
    if (n == 0) {
        if (stream_end(&c->stream) != 0) /* most often a check whether the port is open */
            return go(c, STEP_CLOSE);
        if (c->timer.fired)
            return refuse_proxy(c, STAT_PROXY_HEADER_LATE);
        stream_arm(w->io, &c->stream);
        return FLOW_WAIT;
    }
    stat_inc(&w->stats.proxy_headers[header.has_source ? STAT_PROXY_HEADER_OK : STAT_PROXY_HEADER_NO_SOURCE]);
    if (header.has_source)
        c->peer = header.source;
    io_timer_cancel(w->io, &c->timer);
    c->head_timing = false;
    result = begin(c, tls);
    if (tls != NULL)
        tls_server_unref(&c->tls_next);
    return result;
}

static enum flow_result start_http2(struct conn *c)
{
    if (http2_conn_start(c, str_of(c->head, c->head_n)) != 0)
        return go(c, STEP_CLOSE);
    forget_head(c);
    return go(c, STEP_HTTP2);
}

/* No HTTP/1.1 head begins as HTTP/2's preface does (RFC 9113, 3.4); four bytes tell. */
static bool begins_http2(struct conn *c)
{
    struct str run = stream_peek(c->worker->io, &c->stream), preface = STR(HTTP2_PREFACE);
    size_t n;

    if (!c->http2_offered || c->requests_n > 0 || c->head_n >= preface.n ||
        memcmp(c->head_n > 0 ? c->head : "", preface.p, c->head_n) != 0)
        return false;
    preface = str_skip(preface, c->head_n);
    n = run.n < preface.n ? run.n : preface.n;
    return n > 0 && memcmp(run.p, preface.p, n) == 0 && c->head_n + n >= 4;
}

static enum flow_result step_handshake(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    int result = stream_handshake(&c->stream);

    if (result == -EAGAIN)
        return FLOW_WAIT;
    if (result != 0)
        return go(c, STEP_CLOSE);
    await_first_head(c);
    return str_eq(stream_alpn(&c->stream), STR("h2")) ? start_http2(c) : go(c, STEP_HEAD);
}

static enum flow_result step_head(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct worker *w = c->worker;
    struct http1_request parsed;
    const char *head;
    size_t consume;
    int n;

    if (begins_http2(c))
        return start_http2(c);
    n = next_head(c, &parsed, &head, &consume);
    if (n < 0)
        return refuse(c, http1_error_status(n), http1_error_reason(n));
    if (n == 0) {
        if (stream_end(&c->stream) != 0)
            return go(c, STEP_CLOSE);
        if (c->head != NULL && !c->head_timing) { /* also when the idle time ended at this very moment */
            c->head_timing = true;
            io_timer_set(w->io, &c->timer, flow, conf_of(c)->timeouts.client_head_ms);
        }
        if (c->timer.fired) {
            if (c->head == NULL && !c->head_timing)
                return go(c, STEP_CLOSE);
            stat_inc(&w->stats.head_timeouts);
            return c->head == NULL ? go(c, STEP_CLOSE) : refuse(c, 408, "the head took too long");
        }
        stream_arm(w->io, &c->stream);
        return FLOW_WAIT;
    }
    c->requests_n++;
    c->request = request_start(&c->carrier, head, (size_t)n, &parsed);
    stream_consume(w->io, &c->stream, consume);
    forget_head(c);
    if (c->request == NULL)
        return go(c, STEP_CLOSE);
    stat_inc(&w->stats.connections_active);
    c->flow.step = STEP_REQUEST;
    return FLOW_WAIT;
}

/* What a client sends ahead waits in the receive buffers, which are everybody's. When they run out, who holds
 * more than a request or two is let down: its connection ends with the answer that is under way. When many hold a
 * request or two, what still comes is nobody's: what is left is for heads that are taken at once. */
static void let_go_of_buffers(struct conn *c)
{
    struct io *io = c->worker->io;
    unsigned held = stream_unread_buffers(&c->stream);
    struct str run;

    if (!c->discarding &&
        (held == 0 || !io_recv_scarce(io) || (held <= AHEAD_BUFFERS && !io_recv_nearly_out(io))))
        return;
    c->close_after = true;
    c->discarding = true;
    while ((run = stream_peek(io, &c->stream)).n > 0)
        stream_consume(io, &c->stream, run.n);
}

static enum flow_result step_request(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct worker *w = c->worker;
    int end = stream_end(&c->stream);

    if (c->request != NULL) {
        /* The end of its stream may be a half-close; a reset is its end. */
        if (end != 0 && end != -ENODATA)
            request_abort(c->request);
        else
            request_client_spoke(c->request);
        if (!request_reads_body(c->request))
            let_go_of_buffers(c);
        return FLOW_WAIT;
    }
    if (c->close_after) /* with more unread in the socket, perhaps, than what has been received */
        return go(c, c->discarding || stream_unread_buffers(&c->stream) > 0 ? STEP_LINGER : STEP_CLOSE);
    c->head_timing = false;
    io_timer_set(w->io, &c->timer, flow, conf_of(c)->timeouts.client_idle_ms);
    return go(c, STEP_HEAD);
}

static enum flow_result step_http2(struct flow *flow)
{
    struct conn *c = conn_of(flow);

    switch (http2_conn_step(c)) {
    case HTTP2_CONN_WAIT:
        return FLOW_WAIT;
    case HTTP2_CONN_LINGER:
        c->head_timing = false;
        return go(c, STEP_LINGER);
    case HTTP2_CONN_CLOSE:
        break;
    }
    return go(c, STEP_CLOSE);
}

/* Only once nothing of an answer is on its way, and only if none was cut short. */
static void end_sending(struct conn *c)
{
    if (!c->ended && !c->cut)
        stream_end_sending(c->worker->io, &c->stream);
    c->ended = true;
}

/* Closing a socket that holds unread bytes resets it, and the client may never see the answer. So: say that
 * no more comes, and read what it still sends for a bounded while. */
static enum flow_result step_linger(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct io *io = c->worker->io;
    struct str run;

    if (!c->ended) {
        c->discarded_bytes = 0;
        end_sending(c);
        io_timer_set(io, &c->timer, flow, LINGER_MS);
    }
    while ((run = stream_peek(io, &c->stream)).n > 0 && c->discarded_bytes < LINGER_BYTES_MAX) {
        c->discarded_bytes += (uint32_t)run.n;
        stream_consume(io, &c->stream, run.n);
    }
    if (c->timer.fired || stream_end(&c->stream) != 0)
        return go(c, STEP_CLOSE);
    if (c->discarded_bytes <
        LINGER_BYTES_MAX) /* past it the client has to wait, and may see its answer meanwhile */
        stream_arm(io, &c->stream);
    return FLOW_WAIT;
}

static enum flow_result step_close(struct flow *flow)
{
    struct conn *c = conn_of(flow);

    io_timer_cancel(c->worker->io, &c->timer);
    if (stream_is_tls(&c->stream)) /* a plain one says so by closing */
        end_sending(c);
    return stream_stop(c->worker->io, &c->stream) ? FLOW_DONE : FLOW_WAIT;
}

static void conn_done(struct flow *flow)
{
    struct conn *c = CONTAINER_OF(flow, struct conn, flow);
    struct worker *w = c->worker;

    CHECK(c->request == NULL && c->http2 == NULL);
    io_close(w->io, stream_fd(&c->stream));
    free(c->head);
    if (c->tls_next != NULL)
        tls_server_unref(&c->tls_next);
    list_remove(&c->node);
    rate_limit_leave(w, &c->address_slot);
    stat_dec(&w->stats.connections_open);
    c->magic = 0;
    pool_put(&w->conns, c);
}

_Static_assert(sizeof(struct conn) <= 256, "an idle connection's memory");
_Static_assert(HTTP_REQUEST_HEAD_BYTES_MAX < UINT16_MAX, "head_n");

static const flow_step conn_steps[] = {
    [STEP_PROXY] = step_proxy,     [STEP_HANDSHAKE] = step_handshake, [STEP_HEAD] = step_head,
    [STEP_REQUEST] = step_request, [STEP_HTTP2] = step_http2,         [STEP_LINGER] = step_linger,
    [STEP_CLOSE] = step_close};
static const char *const conn_step_names[] = {
    [STEP_PROXY] = "proxy", [STEP_HANDSHAKE] = "handshake", [STEP_HEAD] = "head",  [STEP_REQUEST] = "request",
    [STEP_HTTP2] = "http2", [STEP_LINGER] = "linger",       [STEP_CLOSE] = "close"};
static const struct flow_type conn_type = {
    .name = "connection",
    .steps = conn_steps,
    .step_names = conn_step_names,
    .steps_n = ARRAY_LEN(conn_steps),
    .done = conn_done,
};
