/* The body of a request that is passed on: pulled by its fill, run by run, out of its carrier's buffers. */
#include "proxy/request.h"
#include "util/clock.h"

#include <errno.h>

bool request_reads_body(const struct request *r)
{
    /* One that is answered without it, and that no fill pulls, never reads it. */
    return !r->body_over && (r->body_to != NULL || !r->close_after);
}

bool request_body_is_chunked(const struct request *r)
{
    return r->http.framing == HTTP_BODY_CHUNKED;
}

uint64_t request_body_length(const struct request *r)
{
    return r->http.content_length;
}

static int next_of_length(struct request *r, struct str in, struct str *run)
{
    *run = str_of(in.p, in.n < r->body_left ? in.n : (size_t)r->body_left);
    return REQUEST_BODY_RUN;
}

static bool is_too_long(const struct request *r, size_t n)
{
    return r->body_bytes + n > r->site->site->conf->limits.request_body_bytes_max;
}

/* Takes the framing before the run out of the buffers, so that the run is at their front. */
static int next_of_chunks(struct request *r, struct str in, struct str *run)
{
    struct carrier *c = r->carrier;
    struct str rest = in;
    int result = http1_chunked_next(&r->chunked_in, &rest, run);

    if (result < 0)
        return result;
    if (result == HTTP1_CHUNKED_BODY) {
        if (is_too_long(r, run->n))
            return -EMSGSIZE;
        r->body_bytes += run->n;
        c->ops->body_consume(c, (size_t)(run->p - in.p));
        return REQUEST_BODY_RUN;
    }
    c->ops->body_consume(c, in.n - rest.n);
    r->body_over = result == HTTP1_CHUNKED_DONE;
    return r->body_over ? REQUEST_BODY_END : REQUEST_BODY_WAIT;
}

static int next_run(struct request *r, struct str in, struct str *run)
{
    if (r->carrier->ops->frames_body) {
        *run = in;
        return is_too_long(r, in.n) ? -EMSGSIZE : REQUEST_BODY_RUN;
    }
    return request_body_is_chunked(r) ? next_of_chunks(r, in, run) : next_of_length(r, in, run);
}

/* n bytes have come at last. Only time in which we waited for the client counts, and not that of the upstream. */
static bool is_too_slow(struct request *r, size_t n)
{
    const struct proxy_limits *limits = &r->site->site->conf->limits;
    uint64_t waited_ms, bytes = r->body_window_bytes + n;

    if (!r->body_awaited)
        return false;
    r->body_awaited = false;
    r->body_waited_ns += worker_now_ns(r->worker) - r->body_awaited_ns;
    waited_ms = r->body_waited_ns / NS_PER_MS;
    if (waited_ms < limits->client_rate_grace_ms)
        return false;
    r->body_waited_ns = r->body_window_bytes = 0;
    if (bytes * 1000 >= limits->client_rate_min * waited_ms)
        return false;
    stat_inc(&r->worker->stats.slow_clients);
    return true;
}

int request_body_next(struct request *r, struct str *run)
{
    struct carrier *c = r->carrier;
    int result = REQUEST_BODY_WAIT, end;

    CHECK_MAGIC(r, REQUEST_MAGIC);
    while (result == REQUEST_BODY_WAIT && !r->body_over) {
        struct str in = c->ops->body_peek(c);

        if (in.n == 0)
            break;
        result = next_run(r, in, run);
    }
    if (r->body_over)
        return REQUEST_BODY_END;
    if (result == REQUEST_BODY_RUN && is_too_slow(r, run->n))
        return -ETIMEDOUT;
    if (result != REQUEST_BODY_WAIT)
        return result;
    end = c->ops->body_end(c);
    if (end == -ENODATA && c->ops->frames_body) {
        r->body_over = true;
        return REQUEST_BODY_END;
    }
    if (end != 0)
        return -HTTP1_BAD_REQUEST_LINE;
    c->ops->body_arm(c);
    if (!r->body_awaited) {
        r->body_awaited = true;
        r->body_awaited_ns = worker_now_ns(r->worker);
    }
    return REQUEST_BODY_WAIT;
}

void request_body_consume(struct request *r, size_t n)
{
    r->carrier->ops->body_consume(r->carrier, n);
    r->body_window_bytes += n;
    if (r->carrier->ops->frames_body)
        r->body_bytes += n;
    if (request_body_is_chunked(r))
        return;
    r->body_left -= n;
    r->body_over = r->body_left == 0;
}

void request_body_taken(struct request *r)
{
    CHECK_MAGIC(r, REQUEST_MAGIC);
    r->body_to = NULL;
    io_wake(r->worker->io, &r->flow);
}
