#include "http/http2.h"

#include "http/http2_head.h"
#include "http/http2_memory.h"
#include "util/check.h"
#include "util/limits.h"
#include "util/stats.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <pthread.h>
#include <stdlib.h>

#define HTTP2_MAGIC 0x48747032u

/* A DATA frame is not cut shorter than this for want of room: the rest of the slab stays empty instead. */
#define PIECE_BYTES_MIN 2048u

/* SETTINGS_MAX_FRAME_SIZE, which we leave as it is. */
#define FRAME_BYTES_MAX 16384u

/* Frames that wait for a client to read: answers to its PING, and what else it can cause. nghttp2 gives up at 1,000. */
#define QUEUE_MAX 500u

/* That we have no place is not the client's fault, which may ask for all of them again at once; one that goes on and on
 * is a flood all the same. */
#define REFUSALS_A_RESET 16u

struct http2 {
    uint32_t magic;
    bool wronged;
    bool goaway; /* the final one is on its way, or was sent */
    bool attack_answered;
    uint8_t attack;
    unsigned streams_max;
    unsigned refusals;  /* of ours, whose RST_STREAM is on its way */
    unsigned refused_n; /* whose RST_STREAM has been framed */
    nghttp2_session *session;
    const struct http2_events *events;
    void *owner;
    struct http2_stats *stats;
    uint64_t now_ns;
    uint64_t framed_bytes;
    struct http2_guard guard;
    struct http2_head *head; /* of the header block that is being read; NULL: none */
    struct str pending;      /* of a frame that the session gave: what has not been put yet... */
    char *rest;              /* ... and where that lies between two pulls; NULL: there is none */
    char *to;                /* while pulling */
    size_t to_n, to_cap;
    int32_t heard_max;          /* highest stream of the client's */
    int32_t gap_first, gap_end; /* the last ids it skipped: [first, end) */
    int32_t reset_max; /* highest stream that we reset: what is still on its way for it is no error */
};

static struct http2 *http2_of(void *user_data)
{
    struct http2 *h = user_data;

    CHECK_MAGIC(h, HTTP2_MAGIC);
    return h;
}

static struct http2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int error_of(ssize_t nghttp2_error)
{
    return nghttp2_error == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
}

/* --- ending --- */

static void note_reset(struct http2 *h, int32_t id)
{
    if (id > h->reset_max)
        h->reset_max = id;
}

static void reset_id(struct http2 *h, int32_t id, uint32_t error)
{
    note_reset(h, id);
    (void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, id, error);
}

static void attacked(struct http2 *h, enum http2_attack attack)
{
    if (attack == HTTP2_ATTACK_NONE || h->attack != HTTP2_ATTACK_NONE)
        return;
    h->attack = (uint8_t)attack;
    stat_inc(&h->stats->attacks[attack]);
}

static void charge_reset(struct http2 *h)
{
    attacked(h, http2_guard_charge(&h->guard, HTTP2_ATTACK_RESETS, h->now_ns));
}

void http2_terminate(struct http2 *h, uint32_t error)
{
    CHECK_MAGIC(h, HTTP2_MAGIC);
    h->goaway = true;
    if (error != HTTP2_NO_ERROR)
        h->wronged = true;
    (void)nghttp2_session_terminate_session(h->session, error);
}

static void answer_attack(struct http2 *h)
{
    if (h->attack == HTTP2_ATTACK_NONE || h->attack_answered)
        return;
    h->attack_answered = true;
    http2_terminate(h, HTTP2_ENHANCE_YOUR_CALM);
}

void http2_notice(struct http2 *h)
{
    CHECK_MAGIC(h, HTTP2_MAGIC);
    (void)nghttp2_submit_shutdown_notice(h->session);
}

void http2_goaway(struct http2 *h)
{
    CHECK_MAGIC(h, HTTP2_MAGIC);
    if (h->goaway)
        return;
    h->goaway = true;
    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(h->session), HTTP2_NO_ERROR, NULL, 0);
}

/* --- heads of requests --- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct http2 *h = http2_of(user_data);
    bool trailers = frame->headers.cat != NGHTTP2_HCAT_REQUEST;

    (void)session;
    if (h->head == NULL) {
        h->head = malloc(sizeof *h->head);
        if (h->head == NULL)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    http2_head_begin(h->head, trailers);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user_data)
{
    struct http2 *h = http2_of(user_data);

    (void)session;
    (void)frame;
    (void)flags;
    CHECK(h->head != NULL);
    http2_head_add(h->head, str_of((const char *)name, name_n), str_of((const char *)value, value_n));
    if (h->head->listed_bytes <= HTTP2_HEAD_BYTES_MAX)
        return 0;
    /* What follows of the block is decoded without being shown to anybody. */
    attacked(h, HTTP2_ATTACK_HEADERS);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void take_request(struct http2 *h, int32_t id, bool ended)
{
    struct http1_request parsed;
    struct http2_request request = {.ended = ended};
    struct http2_stream *s;

    stat_inc(&h->stats->streams);
    http2_guard_requested(&h->guard);
    if (!http2_head_end(h->head, ended, &parsed, &request.refuse, &request.detail)) {
        reset_id(h, id, HTTP2_PROTOCOL_ERROR);
        return;
    }
    request.head = http2_head_text(h->head);
    request.parsed = request.refuse == 0 ? &parsed : NULL;
    s = h->events->request(h->owner, &request);
    if (s == NULL) {
        stat_inc(&h->stats->streams_refused);
        h->refusals++;
        reset_id(h, id, HTTP2_REFUSED_STREAM);
        return;
    }
    *s = (struct http2_stream){.id = id, .remote_ended = ended};
    (void)nghttp2_session_set_stream_user_data(h->session, id, s);
}

static void end_body(struct http2 *h, int32_t id)
{
    struct http2_stream *s = stream_of(h->session, id);

    if (s == NULL || s->remote_ended)
        return;
    s->remote_ended = true;
    h->events->body_end(h->owner, s);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct http2 *h = http2_of(user_data);
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            take_request(h, frame->hd.stream_id, ended);
        else
            end_body(h, frame->hd.stream_id); /* trailers, which nobody reads */
        break;
    case NGHTTP2_DATA:
        if (ended)
            end_body(h, frame->hd.stream_id);
        break;
    case NGHTTP2_GOAWAY:
        stat_inc(&h->stats->goaways_received);
        break;
    case NGHTTP2_PRIORITY_UPDATE:
        if (((const nghttp2_ext_priority_update *)frame->ext.payload)->stream_id == 0)
            http2_terminate(h, HTTP2_PROTOCOL_ERROR); /* RFC 9218, 7.1 */
        break;
    default:
        break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data)
{
    struct http2 *h = http2_of(user_data);

    (void)session;
    (void)error;
    note_reset(h, frame->hd.stream_id);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n,
                         void *user_data)
{
    struct http2 *h = http2_of(user_data);
    struct http2_stream *s = stream_of(session, id);

    (void)flags;
    if (s != NULL)
        h->events->body(h->owner, s, str_of((const char *)bytes, n));
    else
        (void)nghttp2_session_consume(session, id, n);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user_data)
{
    struct http2 *h = http2_of(user_data);
    struct http2_stream *s = stream_of(session, id);

    if (s == NULL || s->closed)
        return 0;
    s->closed = true;
    h->events->closed(h->owner, s, error);
    return 0;
}

/* --- sending --- */

/* Called when there is nothing of it to frame, or all of it was. */
static void taken(struct http2 *h, struct http2_stream *s)
{
    s->sending = false;
    s->vecs_n = 0;
    h->events->taken(h->owner, s);
}

static void sent_data(struct http2 *h, const nghttp2_frame *frame)
{
    struct http2_stream *s = stream_of(h->session, frame->hd.stream_id);

    http2_guard_sent(&h->guard, (uint32_t)frame->hd.length, (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
    if (s != NULL && s->sending && s->left_bytes == 0)
        taken(h, s);
}

static void sent_headers(struct http2 *h, const nghttp2_frame *frame)
{
    struct http2_stream *s = stream_of(h->session, frame->hd.stream_id);
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    if (s == NULL)
        return;
    if (!s->begun && s->vecs != NULL)
        http2_guard_answered(&h->guard);
    s->begun = s->begun || s->vecs != NULL; /* 100 Continue has none */
    if (s->sending && s->left_bytes == 0 && (end || !s->last))
        taken(h, s);
}

static void sent_reset(struct http2 *h, const nghttp2_frame *frame)
{
    uint32_t error = frame->rst_stream.error_code;

    stat_inc(&h->stats->resets_sent);
    note_reset(h, frame->hd.stream_id);
    if (error == NGHTTP2_REFUSED_STREAM && h->refusals > 0) {
        h->refusals--;
        if (h->refused_n++ % REFUSALS_A_RESET != 0)
            return;
    }
    /* One that an error of the client's made us send costs it as much as its own. */
    if (error != NGHTTP2_NO_ERROR && error != NGHTTP2_INTERNAL_ERROR)
        charge_reset(h);
    /* An overflow that SETTINGS caused is the connection's error (RFC 9113, 6.9.2), and any may be made one. */
    if (error == NGHTTP2_FLOW_CONTROL_ERROR)
        http2_terminate(h, error);
}

static void sent_goaway(struct http2 *h, const nghttp2_frame *frame)
{
    if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
        stat_inc(&h->stats->goaways_error);
        h->wronged = true;
    } else if (frame->goaway.last_stream_id != INT32_MAX) {
        stat_inc(&h->stats->goaways_sent);
    }
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct http2 *h = http2_of(user_data);

    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        sent_data(h, frame);
        break;
    case NGHTTP2_HEADERS:
        sent_headers(h, frame);
        break;
    case NGHTTP2_RST_STREAM:
        sent_reset(h, frame);
        break;
    case NGHTTP2_GOAWAY:
        sent_goaway(h, frame);
        break;
    default:
        break;
    }
    return 0;
}

/* A head that cannot be framed: nothing of the stream will be. */
static int on_frame_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data)
{
    struct http2 *h = http2_of(user_data);

    (void)error;
    if (frame->hd.type == NGHTTP2_HEADERS && stream_of(session, frame->hd.stream_id) != NULL)
        reset_id(h, frame->hd.stream_id, HTTP2_INTERNAL_ERROR);
    return 0;
}

static ssize_t read_data(nghttp2_session *session, int32_t id, uint8_t *unused, size_t n, uint32_t *flags,
                         nghttp2_data_source *source, void *user_data)
{
    struct http2 *h = http2_of(user_data);
    struct http2_stream *s = stream_of(session, id);
    size_t room = h->to_cap - h->to_n;

    (void)unused;
    (void)source;
    if (s == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!s->sending)
        return NGHTTP2_ERR_DEFERRED;
    if (n > s->left_bytes)
        n = s->left_bytes;
    if (room < HTTP2_FRAME_HEADER_BYTES + (n < PIECE_BYTES_MIN ? n : PIECE_BYTES_MIN))
        return NGHTTP2_ERR_PAUSE;
    room -= HTTP2_FRAME_HEADER_BYTES;
    if (n > room)
        n = room;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->last && n == s->left_bytes)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static void put(struct http2 *h, const void *bytes, size_t n)
{
    CHECK(n <= h->to_cap - h->to_n);
    memcpy(h->to + h->to_n, bytes, n);
    h->to_n += n;
}

/* The one time that a body's bytes are copied. */
static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t n,
                     nghttp2_data_source *source, void *user_data)
{
    struct http2 *h = http2_of(user_data);
    struct http2_stream *s = stream_of(session, frame->hd.stream_id);

    (void)source;
    CHECK(s != NULL && n <= s->left_bytes);
    put(h, header, HTTP2_FRAME_HEADER_BYTES);
    s->left_bytes -= n;
    s->framed_bytes += n;
    h->framed_bytes += n;
    while (n > 0) {
        size_t here = s->vecs->iov_len - s->vec_at;

        if (here > n)
            here = n;
        put(h, (const char *)s->vecs->iov_base + s->vec_at, here);
        n -= here;
        s->vec_at += here;
        if (s->vec_at == s->vecs->iov_len) {
            s->vecs++;
            s->vecs_n--;
            s->vec_at = 0;
        }
    }
    return 0;
}

/* The session's buffer is that of all (http2_memory.h): what of a frame did not fit is kept apart. */
static int keep_rest(struct http2 *h)
{
    char *before = h->rest;

    h->rest = NULL;
    if (h->pending.n > 0) {
        h->rest = malloc(h->pending.n);
        if (h->rest != NULL)
            memcpy(h->rest, h->pending.p, h->pending.n);
        h->pending.p = h->rest;
    }
    free(before);
    return h->pending.n > 0 && h->rest == NULL ? -ENOMEM : 0;
}

int http2_pull(struct http2 *h, char *to, size_t room)
{
    ssize_t n = 1;

    CHECK_MAGIC(h, HTTP2_MAGIC);
    CHECK(room >= 2 * PIECE_BYTES_MIN);
    h->to = to;
    h->to_n = 0;
    h->to_cap = room;
    for (;;) {
        const uint8_t *bytes;
        size_t fits = room - h->to_n;

        if (h->pending.n > 0) {
            if (fits > h->pending.n)
                fits = h->pending.n;
            put(h, h->pending.p, fits);
            h->pending = str_skip(h->pending, fits);
            if (h->pending.n > 0)
                break;
        }
        answer_attack(h);
        n = nghttp2_session_mem_send(h->session, &bytes);
        if (n <= 0)
            break;
        h->pending = str_of((const char *)bytes, (size_t)n);
    }
    h->to = NULL;
    h->to_cap = 0;
    if (n < 0)
        return error_of(n);
    if ((h->pending.n > 0 || h->rest != NULL) && keep_rest(h) != 0)
        return -ENOMEM;
    return (int)h->to_n;
}

bool http2_wants_pull(const struct http2 *h)
{
    return h->pending.n > 0 || nghttp2_session_want_write(h->session) != 0;
}

static bool can_send(const struct http2_stream *s)
{
    if (s->closed)
        return false;
    CHECK(!s->sending);
    return true;
}

int http2_send(struct http2 *h, struct http2_stream *s, const struct iovec *vecs, unsigned vecs_n,
               unsigned head_n, bool last)
{
    const nghttp2_data_provider provider = {.read_callback = read_data};
    int error;

    CHECK_MAGIC(h, HTTP2_MAGIC);
    CHECK(head_n <= vecs_n);
    if (!can_send(s))
        return -EPIPE;
    s->sending = true;
    s->last = last;
    s->vecs = vecs + head_n;
    s->vecs_n = vecs_n - head_n;
    s->vec_at = s->left_bytes = 0;
    for (unsigned i = 0; i < s->vecs_n; i++)
        s->left_bytes += s->vecs[i].iov_len;
    if (head_n == 0) {
        (void)nghttp2_session_resume_data(h->session, s->id); /* fails where it was not deferred yet */
        return 0;
    }
    error = http2_head_answer(h->session, s->id, vecs, head_n, last && s->left_bytes == 0 ? NULL : &provider);
    if (error != 0)
        s->sending = false;
    return error;
}

int http2_send_continue(struct http2 *h, struct http2_stream *s)
{
    static const nghttp2_nv status = {.name = (uint8_t *)(uintptr_t) ":status",
                                      .value = (uint8_t *)(uintptr_t) "100",
                                      .namelen = 7,
                                      .valuelen = 3};

    CHECK_MAGIC(h, HTTP2_MAGIC);
    if (!can_send(s))
        return -EPIPE;
    s->sending = true;
    s->last = false;
    s->vecs = NULL;
    s->left_bytes = 0;
    if (nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, s->id, NULL, &status, 1, NULL) == 0)
        return 0;
    s->sending = false;
    return -ENOMEM;
}

void http2_consume(struct http2 *h, struct http2_stream *s, size_t n)
{
    CHECK_MAGIC(h, HTTP2_MAGIC);
    (void)nghttp2_session_consume(h->session, s->id,
                                  n); /* of a closed stream: the connection's window alone */
}

void http2_reset(struct http2 *h, struct http2_stream *s, uint32_t error)
{
    CHECK_MAGIC(h, HTTP2_MAGIC);
    s->sending = false;
    s->vecs_n = 0;
    s->left_bytes = 0;
    if (s->closed)
        return;
    s->closed = true;
    (void)nghttp2_session_set_stream_user_data(h->session, s->id, NULL);
    reset_id(h, s->id, error);
}

void http2_forget(struct http2 *h, struct http2_stream *s, size_t unread)
{
    bool whole = s->begun && s->last && !s->sending;

    CHECK_MAGIC(h, HTTP2_MAGIC);
    if (unread > 0)
        http2_consume(h, s, unread);
    http2_reset(h, s, whole ? HTTP2_NO_ERROR : HTTP2_INTERNAL_ERROR);
}

/* --- receiving --- */

/* A frame for a stream that is gone, which nghttp2 ignores because it does not remember: an error if the client
 * must know that it is gone (RFC 9113, 5.1 and 5.1.1). */
static uint32_t judge_gone(struct http2 *h, const struct http2_frame *frame)
{
    int32_t id = (int32_t)frame->stream;

    if (h->goaway || id > h->heard_max || id <= h->reset_max || id % 2 == 0 ||
        nghttp2_session_find_stream(h->session, id) != NULL)
        return HTTP2_NO_ERROR;
    if (frame->type == HTTP2_HEADERS && id >= h->gap_first && id < h->gap_end)
        return HTTP2_PROTOCOL_ERROR; /* ids only go up */
    return HTTP2_STREAM_CLOSED;
}

static uint32_t judge(struct http2 *h, const struct http2_frame *frame)
{
    struct http2_stream *s;
    uint32_t error;

    if (frame->length > FRAME_BYTES_MAX)
        return HTTP2_FRAME_SIZE_ERROR;
    attacked(h, http2_guard_judge(&h->guard, frame, h->now_ns));
    if (nghttp2_session_get_outbound_queue_size(h->session) > QUEUE_MAX + 2 * h->streams_max)
        attacked(h, HTTP2_ATTACK_UNREAD);
    switch (frame->type) {
    case HTTP2_HEADERS:
    case HTTP2_DATA:
        error = frame->stream != 0 ? judge_gone(h, frame) : HTTP2_NO_ERROR;
        if (error == HTTP2_NO_ERROR && frame->type == HTTP2_HEADERS &&
            (int32_t)frame->stream > h->heard_max && frame->stream % 2 == 1) {
            if ((int32_t)frame->stream > h->heard_max + 2) {
                h->gap_first = h->heard_max + 1;
                h->gap_end = (int32_t)frame->stream;
            }
            h->heard_max = (int32_t)frame->stream;
        }
        return error;
    case HTTP2_PRIORITY:
        return frame->stream == 0 ? HTTP2_PROTOCOL_ERROR : HTTP2_NO_ERROR;
    case HTTP2_RST_STREAM:
        stat_inc(&h->stats->resets_received);
        s = stream_of(h->session, (int32_t)frame->stream);
        if (s == NULL || !s->begun)
            charge_reset(h);
        return HTTP2_NO_ERROR;
    default:
        return HTTP2_NO_ERROR;
    }
}

static int feed(struct http2 *h, const char *bytes, size_t n)
{
    ssize_t taken_n = n > 0 ? nghttp2_session_mem_recv(h->session, (const uint8_t *)bytes, n) : 0;

    return taken_n < 0 ? error_of(taken_n) : 0;
}

static void take_frame(struct http2 *h, const struct http2_frame *frame)
{
    uint32_t error = judge(h, frame);

    if (error != HTTP2_NO_ERROR)
        http2_terminate(h, error);
}

/* The session gets a frame's header in one piece, after the frame has been judged by what the session knows of all
 * that came before. */
static int feed_frames(struct http2 *h, struct str bytes)
{
    struct http2_guard *g = &h->guard;
    struct str in = bytes;
    struct http2_frame frame;
    const char *fed = bytes.p;
    size_t carried = g->header_n; /* bytes of a header that came before */
    int error;

    while (http2_guard_next(g, &in, &frame)) {
        size_t here = HTTP2_FRAME_HEADER_BYTES - carried;

        error = feed(h, fed, (size_t)(in.p - here - fed));
        if (error != 0)
            return error;
        take_frame(h, &frame);
        if (h->attack != HTTP2_ATTACK_NONE)
            return 0;
        if (carried > 0) {
            error = feed(h, (const char *)g->header, sizeof g->header);
            if (error != 0)
                return error;
            here = 0;
        }
        fed = in.p - here;
        carried = 0;
    }
    return feed(h, fed, (size_t)(bytes.p + bytes.n - fed) - (g->header_n - carried));
}

int http2_feed(struct http2 *h, struct str bytes, uint64_t now_ns)
{
    int error;

    CHECK_MAGIC(h, HTTP2_MAGIC);
    h->now_ns = now_ns;
    error = h->attack == HTTP2_ATTACK_NONE ? feed_frames(h, bytes) : 0;
    answer_attack(h);
    if (h->head != NULL && !http2_guard_in_block(&h->guard))
        free(TAKE(&h->head));
    return error;
}

/* --- state --- */

bool http2_is_over(const struct http2 *h)
{
    return h->pending.n == 0 && nghttp2_session_want_read(h->session) == 0 &&
           nghttp2_session_want_write(h->session) == 0;
}

bool http2_was_wronged(const struct http2 *h)
{
    return h->wronged;
}

enum http2_attack http2_attack_of(const struct http2 *h)
{
    return (enum http2_attack)h->attack;
}

bool http2_is_in_head(const struct http2 *h)
{
    return http2_guard_in_block(&h->guard);
}

bool http2_is_blocked(const struct http2 *h)
{
    return nghttp2_session_get_remote_window_size(h->session) <= 0;
}

bool http2_stream_is_blocked(const struct http2 *h, const struct http2_stream *s)
{
    return !s->closed && nghttp2_session_get_stream_remote_window_size(h->session, s->id) <= 0;
}

uint64_t http2_framed_bytes(const struct http2 *h)
{
    return h->framed_bytes;
}

/* --- a session --- */

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *session_options;

static void set_up(void)
{
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&session_options) != 0)
        return;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    nghttp2_option_set_no_auto_window_update(session_options, 1);
    nghttp2_option_set_no_closed_streams(session_options, 1);
    nghttp2_option_set_builtin_recv_extension_type(session_options, NGHTTP2_PRIORITY_UPDATE);
    nghttp2_option_set_max_deflate_dynamic_table_size(session_options, HTTP2_ENCODER_TABLE_BYTES);
    nghttp2_option_set_max_send_header_block_length(session_options, 2 * HTTP_RESPONSE_HEAD_BYTES_MAX);
    nghttp2_option_set_stream_reset_rate_limit(session_options, UINT32_MAX,
                                               UINT32_MAX); /* the guard's work */
}

static int greet(struct http2 *h, unsigned streams_max)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, HTTP2_DECODER_TABLE_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_REQUEST_HEAD_BYTES_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };

    return nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
}

int http2_create(struct http2 **out, const struct http2_options *options)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct http2 *h;
    int error;

    (void)pthread_once(&once, set_up);
    if (callbacks == NULL || session_options == NULL)
        return -ENOMEM;
    h = calloc(1, sizeof *h);
    if (h == NULL)
        return -ENOMEM;
    h->magic = HTTP2_MAGIC;
    h->events = options->events;
    h->owner = options->owner;
    h->stats = options->stats;
    h->now_ns = options->now_ns;
    h->streams_max = options->streams_max;
    http2_guard_init(&h->guard, HTTP2_PREFACE_BYTES, options->now_ns);
    http2_memory_making(true);
    error = nghttp2_session_server_new3(&h->session, callbacks, h, session_options, &http2_memory);
    http2_memory_making(false);
    if (error != 0) {
        free(h);
        return -ENOMEM;
    }
    if (greet(h, options->streams_max) != 0) {
        nghttp2_session_del(h->session);
        free(h);
        return -ENOMEM;
    }
    *out = h;
    return 0;
}

void http2_destroy(struct http2 **hp)
{
    struct http2 *h = TAKE(hp);

    CHECK_MAGIC(h, HTTP2_MAGIC);
    nghttp2_session_del(h->session);
    free(h->head);
    free(h->rest);
    h->magic = 0;
    free(h);
}
