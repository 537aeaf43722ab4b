/* A TLS stream: the flow between socket and owner. The parts: tls_handshake.c, tls_input.c, tls_output.c. */
#include "net/tls_stream.h"

#include "net/tls_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* How long a stream that stops goes on with a close_notify that the kernel has no room for yet. Without it the peer
 * could not tell a whole answer from one that was cut off. */
#define LINGER_MS 1000u

enum { STEP_HANDSHAKE, STEP_OPEN, STEP_STOP };

static const struct flow_type stream_type;

static struct tls_stream *stream_of(struct flow *flow)
{
    struct tls_stream *t = CONTAINER_OF(flow, struct tls_stream, flow);

    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    return t;
}

void tls_stream_because(struct tls_stream *t, const char *format, ...)
{
    va_list args;

    if (t->why != NULL)
        return; /* the first reason is the one */
    va_start(args, format);
    if (vasprintf(&t->why, format, args) < 0)
        t->why = NULL;
    va_end(args);
}

void tls_stream_break(struct tls_stream *t, int error, int alert)
{
    if (t->in.end == 0)
        t->in.end = (int16_t)error;
    if (t->out.error == 0)
        t->out.error = (int16_t)error;
    if (alert > 0 && !t->out.alert_is_last) {
        t->out.alert = (uint8_t)(1 + alert);
        t->out.alert_is_last = true;
    }
}

/* --- the flow --- */

static enum flow_result step_handshake(struct flow *flow)
{
    struct tls_stream *t = stream_of(flow);

    if (t->stopping) {
        flow->step = STEP_STOP;
        return FLOW_NEXT;
    }
    tls_output_pump(t);
    if (!tls_handshake_run(t))
        return FLOW_WAIT;
    if (t->handshake_result != 0)
        tls_stream_break(t, t->handshake_result, 0);
    io_wake(t->io, t->reader);
    flow->step = STEP_OPEN;
    return FLOW_NEXT;
}

static enum flow_result step_open(struct flow *flow)
{
    struct tls_stream *t = stream_of(flow);
    bool had = t->in.plain.n > 0;
    int end = t->in.end;

    if (t->stopping) {
        flow->step = STEP_STOP;
        return FLOW_NEXT;
    }
    tls_output_pump(t);
    tls_input_process(t);
    if ((!had && t->in.plain.n > 0) || t->in.end != end) {
        t->reader_waits = false;
        io_wake(t->io, t->reader);
    } else if (t->reader_waits && t->in.plain.n == 0 && t->in.end == 0) {
        io_recv_arm(t->io, &t->stream->recv); /* what came was not for it */
    }
    return FLOW_WAIT;
}

/* A close_notify under way gets its time. */
static bool lingers(struct tls_stream *t)
{
    if (!t->out.ending || t->out.ended || t->out.dead)
        return false;
    if (!t->lingers) {
        t->lingers = true;
        io_timer_set(t->io, &t->timer, &t->flow, LINGER_MS);
    }
    tls_output_pump(t);
    return !t->timer.fired && !t->out.ended && !t->out.dead;
}

static enum flow_result step_stop(struct flow *flow)
{
    struct tls_stream *t = stream_of(flow);
    struct tls_handshake *h = t->handshake;
    bool recv_stopped = io_recv_stop(t->io, &t->stream->recv);

    if (lingers(t))
        return FLOW_WAIT;
    io_timer_cancel(t->io, &t->timer);
    io_cancel(t->io, &t->in.op);
    io_cancel(t->io, &t->out.op);
    if (h != NULL) {
        tls_gate_leave(t);
        io_timer_cancel(t->io, &h->timer);
        io_cancel(t->io, &h->poll);
    }
    if (!recv_stopped || t->in.op.in_flight || t->out.op.in_flight || (h != NULL && h->poll.in_flight) ||
        flow->queued)
        return FLOW_WAIT;
    return FLOW_DONE;
}

static void stream_done(struct flow *flow)
{
    struct tls_stream *t = CONTAINER_OF(flow, struct tls_stream, flow);
    struct stream *s = t->stream;

    if (t->handshake != NULL)
        tls_handshake_leave(t);
    tls_input_drop(t);
    tls_output_drop(t);
    tls_records_wipe(&t->records);
    free(t->why);
    s->tls = NULL;
    s->recv.op.flow = t->reader;
    io_wake(t->io, t->reader);
    t->magic = 0;
    pool_put(&t->local->streams, t);
}

static const flow_step stream_steps[] = {
    [STEP_HANDSHAKE] = step_handshake, [STEP_OPEN] = step_open, [STEP_STOP] = step_stop};
static const char *const stream_step_names[] = {
    [STEP_HANDSHAKE] = "handshake", [STEP_OPEN] = "open", [STEP_STOP] = "stop"};
static const struct flow_type stream_type = {
    .name = "tls",
    .steps = stream_steps,
    .step_names = stream_step_names,
    .steps_n = ARRAY_LEN(stream_steps),
    .done = stream_done,
};

/* --- beginning and end --- */

static struct tls_stream *begin(struct io *io, struct stream *s, struct tls_local *local)
{
    struct tls_stream *t = pool_get(&local->streams);
    struct tls_handshake *h = pool_get(&local->handshakes);

    CHECK(s->tls == NULL);
    CHECK_MAGIC(local, TLS_LOCAL_MAGIC);
    if (t == NULL || h == NULL) {
        if (t != NULL)
            pool_put(&local->streams, t);
        if (h != NULL)
            pool_put(&local->handshakes, h);
        return NULL;
    }
    *t = (struct tls_stream){.magic = TLS_STREAM_MAGIC,
                             .handshake_result = -EAGAIN,
                             .stream = s,
                             .io = io,
                             .local = local,
                             .reader = s->recv.op.flow,
                             .handshake = h};
    *h = (struct tls_handshake){.stream = t, .begun_ns = io_now_ns(io)};
    list_init(&h->node);
    flow_init(&t->flow, &stream_type, STEP_HANDSHAKE);
    s->tls = t;
    s->recv.op.flow = &t->flow;
    io_wake(io, &t->flow);
    return t;
}

int stream_tls_accept(struct io *io, struct stream *s, struct tls_local *local, struct tls_server *server)
{
    struct tls_stream *t = begin(io, s, local);

    if (t == NULL)
        return -ENOMEM;
    t->server = true;
    t->handshake->server = tls_server_ref(server);
    io_timer_set(io, &t->handshake->timer, &t->flow, local->options.hello_ms);
    return 0;
}

int stream_tls_connect(struct io *io, struct stream *s, struct tls_local *local, struct tls_client *client,
                       struct str name)
{
    struct tls_stream *t;
    struct tls_handshake *h;

    if (name.n >= sizeof h->name)
        return -ENAMETOOLONG;
    t = begin(io, s, local);
    if (t == NULL)
        return -ENOMEM;
    h = t->handshake;
    h->client = tls_client_ref(client);
    memcpy(h->name, name.p, name.n);
    io_timer_set(io, &h->timer, &t->flow, local->options.handshake_ms);
    return 0;
}

bool tls_stream_stop(struct io *io, struct stream *s)
{
    struct tls_stream *t = s->tls;

    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->out.send == NULL && t->in.into == NULL);
    if (!t->stopping) {
        t->stopping = true;
        io_wake(io, &t->flow);
    }
    return false;
}

/* --- what its owner asks --- */

void tls_stream_set_reader(struct stream *s, struct flow *reader)
{
    s->tls->reader = reader;
}

int tls_stream_handshake(const struct stream *s)
{
    return s->tls->handshake != NULL ? -EAGAIN : s->tls->handshake_result;
}

const char *tls_stream_why(const struct stream *s)
{
    const struct tls_stream *t = s->tls;
    int error = t->handshake_result != 0 ? t->handshake_result : t->in.end;

    if (t->why != NULL)
        return t->why;
    return error == -ENODATA ? "the peer ended the connection" : strerror(-error);
}

struct str tls_stream_alpn(const struct stream *s)
{
    return s->tls->http2 ? STR(TLS_ALPN_H2) : s->tls->http1 ? STR(TLS_ALPN_HTTP) : STR_NONE;
}
