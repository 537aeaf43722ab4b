#include "proxy/conn.h"

#include "proxy/request.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>

#define LINGER_MS        2000u
#define LINGER_BYTES_MAX (256u * 1024u)
#define AHEAD_BUFFERS    2u

enum { STEP_HEAD, STEP_REQUEST, STEP_LINGER, STEP_CLOSE };

static const struct flow_type conn_type;

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

void conn_accept(struct worker *w, int fd, const struct proxy_listen *listen)
{
    (void)listen;
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
    *c = (struct conn){.magic = CONN_MAGIC, .worker = w, .fd = fd, .close_after = w->draining};
    flow_init(&c->flow, &conn_type, STEP_HEAD);
    if (io_peer_address(w->io, fd, &peer) == 0)
        (void)address_of_sockaddr((const struct sockaddr *)&peer, &c->peer);
    io_recv_init(&c->recv, fd, &c->flow, true);
    list_push_back(&w->conn_list, &c->node);
    stat_inc(&w->stats.connections_accepted);
    stat_inc(&w->stats.connections_open);
    /* Who connects has something to say: a head's time limit, not an idle one's. */
    c->head_timing = true;
    io_timer_set(w->io, &c->timer, &c->flow, conf_of(c)->timeouts.client_head_ms);
    io_wake(w->io, &c->flow);
}

void conn_drain(struct conn *c, bool hurry)
{
    c->close_after = true;
    if (hurry && c->request != NULL)
        request_abort(c->request);
    if (c->request == NULL && c->head == NULL && c->flow.step == STEP_HEAD)
        c->flow.step = STEP_CLOSE;
    else if (hurry && c->request == NULL)
        c->flow.step = STEP_CLOSE;
    io_wake(c->worker->io, &c->flow);
}

bool conn_will_close(const struct conn *c)
{
    return c->close_after || c->requests_n >= conf_of(c)->limits.client_requests_max;
}

void conn_request_done(struct conn *c, bool close, bool unread)
{
    c->request = NULL;
    if (close || unread)
        c->close_after = true;
    if (unread)
        c->discarding = true;
    stat_dec(&c->worker->stats.connections_active);
    io_wake(c->worker->io, &c->flow);
}

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
    c->request = request_start_refused(c, status, detail);
    if (c->request == NULL)
        return go(c, STEP_CLOSE);
    stat_inc(&c->worker->stats.connections_active);
    c->flow.step = STEP_REQUEST;
    return FLOW_WAIT;
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
    c->head_n += (uint32_t)*taken;
    return 0;
}

/* Parses what there is. Above 0: a head of that many bytes at *head, *consume of which are still to be taken
 * from the receive buffers. 0: more is needed, and everything there was has been put aside. */
static int next_head(struct conn *c, struct http1_request *parsed, const char **head, size_t *consume)
{
    struct io *io = c->worker->io;

    for (;;) {
        struct str run = io_recv_peek(io, &c->recv);
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
        if (http1_head_ready(c->head, c->head_n, HTTP_REQUEST_HEAD_BYTES_MAX, &c->head_scanned))
            n = http1_parse_request(c->head, c->head_n, parsed);
        if (n != 0) {
            *head = c->head;
            *consume = n > 0 ? (size_t)n - before : 0;
            return n;
        }
        io_recv_consume(io, &c->recv, taken);
    }
}

static enum flow_result step_head(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct worker *w = c->worker;
    struct http1_request parsed;
    const char *head;
    size_t consume;
    int n = next_head(c, &parsed, &head, &consume);

    if (n < 0)
        return refuse(c, http1_error_status(n), http1_error_reason(n));
    if (n == 0) {
        if (io_recv_end(&c->recv) != 0)
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
        io_recv_arm(w->io, &c->recv);
        return FLOW_WAIT;
    }
    c->requests_n++;
    c->request = request_start(c, head, (size_t)n, &parsed);
    io_recv_consume(w->io, &c->recv, consume);
    forget_head(c);
    if (c->request == NULL)
        return go(c, STEP_CLOSE);
    stat_inc(&w->stats.connections_active);
    c->flow.step = STEP_REQUEST;
    return FLOW_WAIT;
}

/* What a client sends ahead waits in the receive buffers, which are everybody's. When they run out, who holds
 * more than a request or two is let down: its connection ends with the answer that is under way. */
static void let_go_of_buffers(struct conn *c)
{
    struct io *io = c->worker->io;
    struct str run;

    if (!c->discarding && (c->recv.queued_n <= AHEAD_BUFFERS || !io_recv_scarce(io)))
        return;
    c->close_after = true;
    c->discarding = true;
    while ((run = io_recv_peek(io, &c->recv)).n > 0)
        io_recv_consume(io, &c->recv, run.n);
}

static enum flow_result step_request(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct worker *w = c->worker;
    int end = io_recv_end(&c->recv);

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
    if (c->close_after)
        return go(c, c->discarding ? STEP_LINGER : STEP_CLOSE);
    c->head_timing = false;
    io_timer_set(w->io, &c->timer, flow, conf_of(c)->timeouts.client_idle_ms);
    return go(c, STEP_HEAD);
}

/* Closing a socket that holds unread bytes resets it, and the client may never see the answer. So: say that
 * no more comes, and read what it still sends for a bounded while. */
static enum flow_result step_linger(struct flow *flow)
{
    struct conn *c = conn_of(flow);
    struct io *io = c->worker->io;
    struct str run;

    if (!c->head_timing || c->head_n == 0) {
        c->head_timing = true;
        c->head_n = 1; /* counts what is discarded from here on */
        io_shutdown_send(io, c->fd);
        io_timer_set(io, &c->timer, flow, LINGER_MS);
    }
    while ((run = io_recv_peek(io, &c->recv)).n > 0 && c->head_n < LINGER_BYTES_MAX) {
        c->head_n += (uint32_t)run.n;
        io_recv_consume(io, &c->recv, run.n);
    }
    if (c->timer.fired || io_recv_end(&c->recv) != 0)
        return go(c, STEP_CLOSE);
    if (c->head_n < LINGER_BYTES_MAX) /* past it the client has to wait, and may see its answer meanwhile */
        io_recv_arm(io, &c->recv);
    return FLOW_WAIT;
}

static enum flow_result step_close(struct flow *flow)
{
    struct conn *c = conn_of(flow);

    io_timer_cancel(c->worker->io, &c->timer);
    return io_recv_stop(c->worker->io, &c->recv) ? FLOW_DONE : FLOW_WAIT;
}

static void conn_done(struct flow *flow)
{
    struct conn *c = CONTAINER_OF(flow, struct conn, flow);
    struct worker *w = c->worker;

    CHECK(c->request == NULL);
    io_close(w->io, c->fd);
    free(c->head);
    list_remove(&c->node);
    stat_dec(&w->stats.connections_open);
    c->magic = 0;
    pool_put(&w->conns, c);
}

static const flow_step conn_steps[] = {[STEP_HEAD] = step_head,
                                       [STEP_REQUEST] = step_request,
                                       [STEP_LINGER] = step_linger,
                                       [STEP_CLOSE] = step_close};
static const char *const conn_step_names[] = {
    [STEP_HEAD] = "head", [STEP_REQUEST] = "request", [STEP_LINGER] = "linger", [STEP_CLOSE] = "close"};
static const struct flow_type conn_type = {
    .name = "connection",
    .steps = conn_steps,
    .step_names = conn_step_names,
    .steps_n = ARRAY_LEN(conn_steps),
    .done = conn_done,
};
