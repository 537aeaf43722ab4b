/* What a TLS stream receives: records out of the receive queue, opened where they lie when they came in one piece,
 * else gathered first; and the messages between the data. */
#include "net/tls_internal.h"
#include "net/tls_stream.h"

#include <errno.h>

/* Records in a row without data (empty ones, key updates, tickets, warnings). Each costs its sender as much as us, but
 * data pays for itself. A TLS 1.3 server sends a few tickets at once; nobody has a reason for more. */
#define EMPTY_RECORDS_MAX 32u

/* A message after the handshake; the largest that is legal is a ticket of 64 KiB. */
#define MESSAGE_BYTES_MAX ((64u << 10) + 1024u)

enum { MESSAGE_HELLO_REQUEST = 0, MESSAGE_NEW_SESSION_TICKET = 4, MESSAGE_KEY_UPDATE = 24, MESSAGE_HEAD = 4 };

static struct str received(struct tls_stream *t)
{
    return io_recv_peek(t->io, &t->stream->recv);
}

static void received_consume(struct tls_stream *t, size_t n)
{
    io_recv_consume(t->io, &t->stream->recv, n);
}

/* --- the gather buffer --- */

static void put_buf(struct tls_stream *t)
{
    struct tls_input *in = &t->in;

    in->head = in->n = 0;
    if (in->buf != NULL)
        pool_put(in->cap == TLS_SLAB_BYTES ? &t->local->slabs : &t->local->small, TAKE(&in->buf));
}

static bool get_buf(struct tls_stream *t, bool big)
{
    struct tls_input *in = &t->in;

    if (in->buf != NULL)
        return true;
    in->head = in->n = 0;
    in->cap = big ? TLS_SLAB_BYTES : TLS_SMALL_BYTES;
    in->buf = pool_get(big ? &t->local->slabs : &t->local->small);
    return in->buf != NULL;
}

static void make_room(struct tls_input *in, size_t n)
{
    if (in->head + n <= in->cap)
        return;
    memmove(in->buf, in->buf + in->head, in->n - in->head);
    in->n -= in->head;
    in->head = 0;
    CHECK(n <= in->cap);
}

void tls_input_drop(struct tls_stream *t)
{
    CHECK(!t->in.op.in_flight);
    t->in.plain = STR_NONE;
    t->in.in_recv = 0;
    put_buf(t);
}

/* --- whole records --- */

static bool too_long(struct tls_stream *t, size_t n)
{
    if (n <= TLS_RECORD_BYTES_MAX)
        return false;
    tls_stream_because(t, "a record of %zu bytes is too long", n);
    tls_stream_break(t, -EPROTO, TLS_ALERT_RECORD_OVERFLOW);
    return true;
}

static char *gathered_record(struct tls_stream *t, size_t *n)
{
    struct tls_input *in = &t->in;

    for (;;) {
        size_t have = in->n - in->head, need = tls_record_bytes(in->buf + in->head, have), take;
        struct str run;

        if (need != 0 && too_long(t, need))
            return NULL;
        if (need != 0 && have >= need) {
            *n = need;
            return in->buf + in->head;
        }
        run = received(t);
        if (run.n == 0)
            return NULL;
        if (need == 0)
            need = TLS_RECORD_HEAD;
        make_room(in, need);
        take = run.n < need - have ? run.n : need - have;
        memcpy(in->buf + in->n, run.p, take);
        in->n += (uint32_t)take;
        received_consume(t, take);
    }
}

/* The next record when all of it has come. What has come of another one is put aside. */
static char *whole_record(struct tls_stream *t, size_t *n)
{
    struct tls_input *in = &t->in;

    in->in_recv = 0;
    if (in->n == in->head) {
        struct str run = received(t);
        size_t need = tls_record_bytes(run.p, run.n);

        if (run.n == 0) {
            put_buf(t);
            return NULL;
        }
        if (need != 0 && too_long(t, need))
            return NULL;
        if (need != 0 && need <= run.n) {
            in->in_recv = (uint32_t)need;
            *n = need;
            return (char *)(uintptr_t)run.p; /* a receive buffer is its reader's to write to */
        }
        if (!get_buf(t, false)) {
            tls_stream_break(t, -ENOMEM, TLS_ALERT_INTERNAL_ERROR);
            return NULL;
        }
    }
    return gathered_record(t, n);
}

/* The record at the front has been used. */
static void record_used(struct tls_stream *t)
{
    struct tls_input *in = &t->in;

    if (in->in_recv > 0) {
        received_consume(t, in->in_recv);
        in->in_recv = 0;
        return;
    }
    in->head += (uint32_t)tls_record_bytes(in->buf + in->head, in->n - in->head);
    CHECK(in->head <= in->n);
    if (in->head == in->n)
        put_buf(t);
}

/* --- what is in them --- */

static bool unexpected(struct tls_stream *t, const char *what)
{
    tls_stream_because(t, "%s", what);
    tls_stream_break(t, -EPROTO, TLS_ALERT_UNEXPECTED_MESSAGE);
    return false;
}

static bool take_alert(struct tls_stream *t, const uint8_t *p, size_t n)
{
    if (n != 2) {
        tls_stream_because(t, "an alert of %zu bytes", n);
        tls_stream_break(t, -EPROTO, TLS_ALERT_DECODE_ERROR);
        return false;
    }
    if (p[1] == TLS_ALERT_CLOSE_NOTIFY) {
        t->in.end = -ENODATA;
        return false;
    }
    if (p[1] == TLS_ALERT_USER_CANCELED || (p[0] == 1 && !t->records.tls13))
        return true;
    tls_stream_because(t, "the peer ended it by alert %u (%s)", p[1],
                       p[1] == SSL_AD_CERTIFICATE_REQUIRED
                           ? "certificate required" /* OpenSSL 3.0 does not know */
                           : SSL_alert_desc_string_long(p[1]));
    tls_stream_break(t, -ECONNRESET, 0);
    return false;
}

/* RFC 8446, 4.6.3: the peer seals with its next key from the next record on. */
static bool take_key_update(struct tls_stream *t, uint8_t request)
{
    if (request > 1)
        return unexpected(t, "a key update that is none");
    if (tls_records_update(&t->records, &t->records.in) != 0) {
        tls_stream_break(t, -ENOMEM, TLS_ALERT_INTERNAL_ERROR);
        return false;
    }
    if (request == 1)
        t->out.key_update = true;
    return true;
}

/* The head of a message is whole. */
static bool begin_message(struct tls_stream *t)
{
    struct tls_input *in = &t->in;
    const uint8_t *head = in->message_head;

    in->message_left = (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    if (in->message_left > MESSAGE_BYTES_MAX)
        return unexpected(t, "a message that is too long");
    if (head[0] == MESSAGE_KEY_UPDATE && t->records.tls13 && in->message_left == 1)
        return true;
    if (!t->server && head[0] == MESSAGE_NEW_SESSION_TICKET && t->records.tls13)
        return true;
    if (!t->server && head[0] == MESSAGE_HELLO_REQUEST && !t->records.tls13 && in->message_left == 0)
        return true; /* a wish to negotiate anew, which may be ignored (RFC 5246, 7.4.1.1) */
    return unexpected(t, head[0] == 1 ? "a wish to negotiate anew" : "an unexpected message");
}

/* What may come after the handshake; it may be cut into records anywhere. */
static bool take_messages(struct tls_stream *t, const uint8_t *p, size_t n)
{
    struct tls_input *in = &t->in;

    if (n == 0)
        return unexpected(t, "an empty message");
    while (n > 0) {
        size_t take;

        if (in->message_head_n < MESSAGE_HEAD) {
            in->message_head[in->message_head_n++] = *p++;
            n--;
            if (in->message_head_n == MESSAGE_HEAD && !begin_message(t))
                return false;
        } else if (in->message_head[0] == MESSAGE_KEY_UPDATE) {
            if (n > 1)
                return unexpected(t, "something follows a key update in its record");
            in->message_head_n = 0;
            in->message_left = 0;
            return take_key_update(t, *p);
        } else {
            take = n < in->message_left ? n : in->message_left;
            p += take;
            n -= take;
            in->message_left -= (uint32_t)take;
        }
        if (in->message_head_n == MESSAGE_HEAD && in->message_left == 0)
            in->message_head_n = 0;
    }
    return true;
}

static bool take_other(struct tls_stream *t, const struct tls_opened *opened)
{
    if (++t->in.empty_n > EMPTY_RECORDS_MAX)
        return unexpected(t, "too many records without data");
    if (opened->type != TLS_RECORD_MESSAGE && t->in.message_head_n > 0)
        return unexpected(t, "something within a message"); /* RFC 8446, 5.1 */
    switch (opened->type) {
    case TLS_RECORD_DATA:
        return true; /* an empty one */
    case TLS_RECORD_ALERT:
        return take_alert(t, (const uint8_t *)opened->p, opened->n);
    case TLS_RECORD_MESSAGE:
        return take_messages(t, (const uint8_t *)opened->p, opened->n);
    default:
        return unexpected(t, "a record of an unexpected type");
    }
}

/* Opens one record. False: no more are to be opened now. */
static bool take_record(struct tls_stream *t, char *record, size_t n)
{
    struct tls_input *in = &t->in;
    struct tls_opened opened;
    char *to = NULL;
    int alert;
    bool more;

    if (in->into != NULL && tls_records_open_room(&t->records, n) <= in->into->n)
        to = (char *)(uintptr_t)in->into->argument;
    alert = tls_records_open(&t->records, record, n, to, &opened);
    if (alert != 0) {
        record_used(t);
        tls_stream_because(t, "%s", SSL_alert_desc_string_long(-alert));
        tls_stream_break(t, -EPROTO, -alert);
        return false;
    }
    if (opened.type != TLS_RECORD_DATA || opened.n == 0 || in->message_head_n > 0) {
        more = take_other(t, &opened);
        record_used(t);
        return more;
    }
    in->empty_n = 0;
    if (to == NULL) {
        in->plain = str_of(opened.p, opened.n);
        return true;
    }
    in->into->argument = to + opened.n;
    in->into->n -= (uint32_t)opened.n;
    in->into->result += (int32_t)opened.n;
    record_used(t);
    return true;
}

/* --- who takes it --- */

static void plain_used(struct tls_stream *t, size_t n)
{
    struct str *plain = &t->in.plain;

    *plain = str_skip(*plain, n);
    if (plain->n == 0) {
        *plain = STR_NONE;
        record_used(t);
    }
}

static void complete_into(struct tls_stream *t, int result)
{
    struct io_op *op = TAKE(&t->in.into);

    t->in.into_cancelled = false;
    op->result = result;
    op->in_flight = false;
    op->done = true;
    io_wake(t->io, op->flow);
}

/* The caller's receive: over, or what else it waits for is asked of the socket. */
static void settle_into(struct tls_stream *t)
{
    struct tls_input *in = &t->in;
    struct io_recv *recv = &t->stream->recv;

    if (in->into->result > 0) {
        complete_into(t, in->into->result);
    } else if (in->end != 0) {
        complete_into(t, in->end == -ENODATA ? 0 : in->end);
    } else if (in->into_cancelled) {
        complete_into(t, -ECANCELED);
    } else if (recv->multishot || recv->op.in_flight || recv->starved) {
        io_recv_arm(t->io, recv);
    } else if (!get_buf(t, true)) {
        complete_into(t, -ENOMEM);
    } else {
        make_room(in, TLS_RECORD_BYTES_MAX);
        io_recv_into(t->io, &in->op, &t->flow, stream_fd(t->stream), in->buf + in->n, in->cap - in->n);
    }
}

static void look_for_the_end(struct tls_stream *t)
{
    struct tls_input *in = &t->in;
    int raw = in->raw_end != 0 ? in->raw_end : io_recv_end(&t->stream->recv);

    if (raw == 0 || received(t).n > 0)
        return;
    if (in->end != 0) {
        if (in->end == -ENODATA && raw != -ENODATA) /* it said goodbye, and then reset */
            in->end = (int16_t)raw;
        return;
    }
    in->end = (int16_t)raw;
    if (raw != -ENODATA || (t->server && in->n == in->head))
        return;
    in->end = -ECONNRESET;
    tls_stream_because(t, "the connection ended without close_notify");
}

/* What a receive into buf has brought. */
static void take_received(struct tls_stream *t)
{
    struct tls_input *in = &t->in;
    int result;

    if (!io_op_take(&in->op, &result))
        return;
    if (result > 0)
        in->n += (uint32_t)result;
    else if (result == 0)
        in->raw_end = -ENODATA;
    else if (result != -ECANCELED)
        in->raw_end = (int16_t)result;
}

void tls_input_process(struct tls_stream *t)
{
    struct tls_input *in = &t->in;

    if (t->handshake != NULL || t->stopping || in->op.in_flight)
        return;
    take_received(t);
    while (in->end == 0) {
        size_t n;
        char *record;

        if (in->plain.n > 0) {
            if (in->into == NULL || in->into->n == 0)
                break;
            n = in->plain.n < in->into->n ? in->plain.n : in->into->n;
            memcpy((char *)(uintptr_t)in->into->argument, in->plain.p, n);
            in->into->argument = (const char *)in->into->argument + n;
            in->into->n -= (uint32_t)n;
            in->into->result += (int32_t)n;
            plain_used(t, n);
            continue;
        }
        if (in->into != NULL && in->into->n == 0)
            break;
        record = whole_record(t, &n);
        if (record == NULL || !take_record(t, record, n))
            break;
    }
    if (in->plain.n == 0) {
        struct str run;

        while (in->end != 0 && (run = received(t)).n > 0)
            received_consume(t, run.n);
        look_for_the_end(t);
        if (in->end != 0)
            put_buf(t);
    }
    if (in->into != NULL)
        settle_into(t);
    if (t->out.key_update || t->out.alert != 0)
        tls_output_pump(t);
}

/* --- as tls_stream.h has it --- */

struct str tls_stream_peek(const struct stream *s)
{
    return s->tls->in.plain;
}

void tls_stream_consume(struct io *io, struct stream *s, size_t n)
{
    struct tls_stream *t = s->tls;

    (void)io;
    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    if (n == 0)
        return;
    CHECK(n <= t->in.plain.n);
    plain_used(t, n);
    if (t->in.plain.n == 0)
        tls_input_process(t); /* so that the next peek finds what is there */
}

int tls_stream_end(const struct stream *s)
{
    return s->tls->in.plain.n > 0 ? 0 : s->tls->in.end;
}

unsigned tls_stream_unread_buffers(const struct stream *s)
{
    return s->recv.queued_n + (s->tls->in.buf != NULL ? 1 : 0);
}

void tls_stream_arm(struct io *io, struct stream *s)
{
    struct tls_stream *t = s->tls;

    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    if (t->handshake != NULL || t->in.end != 0)
        return; /* it arms for itself */
    t->reader_waits = true;
    /* A receive into the reader's memory leaves what came beyond it for whoever reads next. */
    if (t->in.plain.n == 0 && (t->in.n > t->in.head || received(t).n > 0)) {
        tls_input_process(t);
        if (t->in.plain.n > 0 || t->in.end != 0) {
            t->reader_waits = false;
            io_wake(io, t->reader);
            return;
        }
    }
    if (s->recv.multishot || t->in.plain.n == 0)
        io_recv_arm(io, &s->recv);
}

void tls_stream_recv_into(struct io *io, struct stream *s, struct io_op *op)
{
    struct tls_stream *t = s->tls;

    (void)io;
    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->handshake == NULL && t->in.into == NULL && op->n > 0);
    t->in.into = op;
    t->reader_waits = false;
    tls_input_process(t);
}

void tls_stream_cancel_recv(struct io *io, struct stream *s, struct io_op *op)
{
    struct tls_stream *t = s->tls;

    CHECK_MAGIC(t, TLS_STREAM_MAGIC);
    CHECK(t->in.into == op);
    t->in.into_cancelled = true;
    if (t->in.op.in_flight)
        io_cancel(io, &t->in.op);
    else
        tls_input_process(t);
}
