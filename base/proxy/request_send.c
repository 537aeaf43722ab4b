/* What a request hands to its carrier, and whether its client takes it fast enough. */
#include "proxy/conn.h"
#include "proxy/request.h"
#include "util/clock.h"

/* How often a send that lasts is looked at: a client must have taken bytes between two looks. */
static uint64_t look_ms(const struct request *r)
{
    const struct proxy_conf *conf = r->site->site->conf;

    return conf->limits.client_rate_min > 0 ? conf->limits.client_rate_grace_ms
                                            : conf->timeouts.client_send_ms;
}

void request_send(struct request *r)
{
    r->carrier->ops->send(r->carrier, r);
    r->head_sent = true;
    if (r->first_byte_ns == 0)
        r->first_byte_ns = worker_now_ns(r->worker);
    r->out.taken_bytes = UINT64_MAX;
    io_timer_set(r->worker->io, &r->timer, &r->flow, look_ms(r));
}

/* A send that takes long is no fault as long as the client takes bytes at the least rate. */
static bool is_too_slow(struct request *r)
{
    const struct proxy_limits *limits = &r->site->site->conf->limits;
    struct outgoing *out = &r->out;
    uint64_t taken = 0, before = out->taken_bytes;
    uint64_t now_ns = worker_now_ns(r->worker), elapsed_ms = (now_ns - out->taken_ns) / NS_PER_MS;

    if (r->carrier->ops->taken_bytes(r->carrier, r, &taken) != 0)
        return true;
    io_timer_set(r->worker->io, &r->timer, &r->flow, look_ms(r));
    if (taken != before) {
        out->taken_bytes = taken;
        out->taken_ns = now_ns;
    }
    /* The first look only remembers. */
    if (before == UINT64_MAX || taken == CARRIER_NOT_ITS_TURN)
        return false;
    return taken - before < conn_least_bytes(limits->client_rate_min, r->rate_bytes_per_s, elapsed_ms);
}

enum request_sent request_sent(struct request *r)
{
    struct outgoing *out = &r->out;
    int error;

    if (!r->carrier->ops->send_take(r->carrier, r, &error)) {
        if (r->timer.fired && is_too_slow(r)) {
            stat_inc(&r->worker->stats.slow_clients);
            r->aborted = true;
        }
        if (r->aborted)
            r->carrier->ops->send_cancel(r->carrier, r);
        return REQUEST_SENDING;
    }
    if (error != 0 || r->aborted) {
        r->sent_bytes += out->bytes - out->send.left_bytes;
        return REQUEST_CUT;
    }
    r->sent_bytes += out->bytes;
    r->body_sent_bytes += out->body_bytes;
    out->vecs_n = out->head_vecs_n = 0;
    out->bytes = out->body_bytes = 0;
    return REQUEST_SENT;
}

bool request_stop_sending(struct request *r)
{
    if (!stream_is_sending(&r->out.send))
        return true;
    r->carrier->ops->send_cancel(r->carrier, r);
    return !stream_is_sending(&r->out.send);
}
