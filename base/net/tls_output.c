/* What a TLS stream sends: windows of sealed records, and alerts and key updates between them. */
#include "net/tls_internal.h"
#include "net/tls_stream.h"

#include <errno.h>

/* A window that took longer than this to reach the kernel's socket buffer went to a peer that is slower than we are:
 * what waits for it should be small. */
#define SLOW_NS (5ull * 1000 * 1000)

static void put_slab(struct tls_stream *t, char *slab, uint32_t cap)
{
    pool_put(cap == TLS_SLAB_BYTES ? &t->local->slabs : &t->local->small, slab);
}

void tls_output_drop(struct tls_stream *t)
{
    struct tls_output *o = &t->out;

    CHECK(!o->op.in_flight);
    o->sent = o->n = 0;
    if (o->slab != NULL)
        put_slab(t, TAKE(&o->slab), o->cap);
}

/* An empty slab of that size at least. */
static bool get_slab(struct tls_stream *t, bool big)
{
    struct tls_output *o = &t->out;

    if (o->slab != NULL && (!big || o->cap == TLS_SLAB_BYTES))
        return true;
    tls_output_drop(t);
    if (big) {
        o->cap = TLS_SLAB_BYTES;
        o->slab = pool_get(&t->local->slabs);
    }
    if (o->slab == NULL) {
        o->cap = TLS_SMALL_BYTES;
        o->slab = pool_get(&t->local->small);
    }
    return o->slab != NULL;
}

bool tls_output_room(struct tls_stream *t, size_t n)
{
    struct tls_output *o = &t->out;
    char *big;

    CHECK(!o->op.in_flight);
    if (o->slab == NULL && !get_slab(t, false))
        return false;
    if (n <= o->cap - o->n)
        return true;
    if (o->cap == TLS_SLAB_BYTES || n > TLS_SLAB_BYTES - o->n)
        return false;
    big = pool_get(&t->local->slabs);
    if (big == NULL)
        return false;
    memcpy(big, o->slab, o->n);
    put_slab(t, o->slab, o->cap);
    o->slab = big;
    o->cap = TLS_SLAB_BYTES;
    return true;
}

bool tls_output_is_busy(const struct tls_stream *t)
{
    return t->out.op.in_flight || t->out.op.done || t->out.n > t->out.sent;
}

/* --- sealing --- */

static bool seal(struct tls_stream *t, enum tls_record_type type, const struct iovec *vecs, size_t n)
{
    struct tls_output *o = &t->out;
    int sealed = tls_records_seal(&t->records, type, vecs, n, o->slab + o->n);

    if (sealed < 0) {
        o->dead = true;
        o->error = (int16_t)sealed;
        tls_stream_because(t, sealed == -EOVERFLOW ? "the keys of TLS 1.2 are used up" : "sealing failed");
        return false;
    }
    o->n += (uint32_t)sealed;
    return true;
}

static bool seal_small(struct tls_stream *t, enum tls_record_type type, const void *bytes, size_t n)
{
    const struct iovec vec = {(void *)(uintptr_t)bytes, n};

    return seal(t, type, &vec, n);
}

static void advance(struct stream_send *send, size_t n)
{
    send->left_bytes -= n;
    while (n > 0) {
        size_t take = send->vecs->iov_len < n ? send->vecs->iov_len : n;

        send->vecs->iov_base = (char *)send->vecs->iov_base + take;
        send->vecs->iov_len -= take;
        n -= take;
        if (send->vecs->iov_len == 0) {
            send->vecs++;
            send->vecs_n--;
        }
    }
}

static void seal_window(struct tls_stream *t)
{
    struct tls_output *o = &t->out;
    unsigned records_n = o->cap == TLS_SLAB_BYTES && !o->slow ? TLS_WINDOW_BYTES / TLS_RECORD_PLAIN_MAX : 1;

    for (; records_n > 0 && o->send->left_bytes > 0; records_n--) {
        size_t left = o->send->left_bytes, n = left < TLS_RECORD_PLAIN_MAX ? left : TLS_RECORD_PLAIN_MAX;

        if (!seal(t, TLS_RECORD_DATA, o->send->vecs, n))
            return;
        advance(o->send, n);
    }
}

static bool seal_key_update(struct tls_stream *t)
{
    static const uint8_t update_not_requested[] = {24, 0, 0, 1, 0};

    t->out.key_update = false;
    if (!seal_small(t, TLS_RECORD_MESSAGE, update_not_requested, sizeof update_not_requested))
        return false;
    if (tls_records_update(&t->records, &t->records.out) == 0)
        return true;
    t->out.dead = true;
    t->out.error = -ENOMEM;
    return false;
}

static bool seal_alert(struct tls_stream *t)
{
    struct tls_output *o = &t->out;
    const uint8_t alert[2] = {o->alert_is_last ? 2 : 1, o->alert - 1};

    o->goodbye = alert[1] == TLS_ALERT_CLOSE_NOTIFY;
    o->alert = 0;
    return seal_small(t, TLS_RECORD_ALERT, alert, sizeof alert);
}

/* Into an empty slab, what is to be sent next. */
static void fill(struct tls_stream *t)
{
    struct tls_output *o = &t->out;
    bool data = o->error == 0 && o->send != NULL && o->send->left_bytes > 0;

    if (t->handshake != NULL || t->handshake_result != 0 || o->goodbye ||
        !(data || o->alert != 0 || o->key_update))
        return;
    if (!get_slab(t, data && !o->slow && o->send->left_bytes > TLS_RECORD_PLAIN_MAX)) {
        o->dead = true;
        o->error = -ENOMEM;
        return;
    }
    if (tls_records_want_update(&t->records))
        o->key_update = true;
    if (o->key_update && !seal_key_update(t))
        return;
    if (o->alert != 0 && o->alert_is_last) {
        (void)seal_alert(t);
        return;
    }
    if (data)
        seal_window(t);
    if (o->alert != 0 && !o->dead)
        (void)seal_alert(t);
}

/* --- sending --- */

static void sent(struct tls_stream *t, int result)
{
    struct tls_output *o = &t->out;

    if (result <= 0) {
        o->dead = true;
        if (o->error == 0)
            o->error = (int16_t)(result < 0 ? result : -EPIPE);
        return;
    }
    o->sent += (uint32_t)result;
    if (o->sent < o->n)
        return;
    o->sent = o->n = 0;
    o->slow = io_now_ns(t->io) - o->begun_ns > SLOW_NS;
    if (o->alert_is_last && o->alert == 0)
        o->dead = true;
}

static void complete_send(struct tls_stream *t)
{
    struct io_op *op = &TAKE(&t->out.send)->op;

    op->result = t->out.error;
    op->in_flight = false;
    op->done = true;
    io_wake(t->io, op->flow);
}

void tls_output_pump(struct tls_stream *t)
{
    struct tls_output *o = &t->out;
    int result;

    if (o->op.in_flight)
        return;
    if (io_op_take(&o->op, &result))
        sent(t, result);
    if (!o->dead && o->n == 0) {
        fill(t);
        o->begun_ns = io_now_ns(t->io);
    }
    if (!o->dead && o->n > o->sent) {
        io_send(t->io, &o->op, &t->flow, stream_fd(t->stream), o->slab + o->sent, o->n - o->sent);
        return;
    }
    tls_output_drop(t);
    if (o->send != NULL)
        complete_send(t); /* all of it is sent, or no more can be */
    if (o->ending && !o->ended) {
        o->ended = true;
        io_shutdown_send(t->io, stream_fd(t->stream));
    }
}

/* --- as tls_stream.h has it --- */

void tls_stream_send(struct io *io, struct stream *s, struct stream_send *send)
{
    struct tls_stream *t = s->tls;

    (void)io;
    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->handshake == NULL && t->out.send == NULL && !t->out.ending);
    t->out.send = send;
    tls_output_pump(t);
}

void tls_stream_cancel_send(struct io *io, struct stream *s, struct stream_send *send)
{
    struct tls_stream *t = s->tls;

    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->out.send == send);
    t->out.dead = true; /* a record that is cut off cannot be followed by another */
    if (t->out.error == 0)
        t->out.error = -ECANCELED;
    io_cancel(io, &t->out.op);
    tls_output_pump(t);
}

void tls_stream_end_sending(struct io *io, struct stream *s)
{
    struct tls_stream *t = s->tls;

    (void)io;
    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->out.send == NULL);
    if (t->out.ending)
        return;
    t->out.ending = true;
    if (t->out.error == 0 && t->out.alert == 0)
        t->out.alert = 1 + TLS_ALERT_CLOSE_NOTIFY;
    tls_output_pump(t);
}
