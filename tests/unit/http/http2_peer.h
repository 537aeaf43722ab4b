/* A server session under test, an owner that remembers what it was told, and nghttp2's client as the peer. Bytes go
 * between them in pieces of any size. */
#pragma once

#include "http/http2.h"
#include "util/clock.h"

#include "../unit.h"

#include <nghttp2/nghttp2.h>

#define STREAMS_MAX 300
#define WIRE_MAX    (4u << 20)

/* What the server's owner knows of a stream. */
struct served {
    struct http2_stream http2;
    bool there, closed, forgotten, body_ended;
    uint32_t error;
    unsigned taken;
    struct http1_request parsed;
    unsigned refuse;
    bool ended;
    char head[20000];
    size_t head_n;
    char body[200000];
    size_t body_n;
    struct iovec vecs[4];
};

/* What the client knows. */
struct asked {
    char fields[60000]; /* "name: value\n" each */
    size_t fields_n;
    char *body;
    size_t body_n;
    bool head, closed;
    unsigned interim;
    uint32_t error;
    unsigned frames;       /* HEADERS and DATA */
    unsigned ended_as_nth; /* of all streams */
    const char *upload;
    size_t upload_n;
    bool upload_open; /* more follows */
};

struct peers {
    struct http2 *server;
    nghttp2_session *client;
    struct http2_stats stats;
    uint64_t now_ns;
    size_t piece; /* bytes a feed or pull gets at most */
    bool refuse_all;
    bool forget_closed;
    struct served served[STREAMS_MAX]; /* by (id - 1) / 2 */
    struct asked asked[STREAMS_MAX];
    unsigned served_n, ended_n;
    uint32_t goaway_error;
    int32_t goaway_last[4];
    unsigned goaways_n;
    int feed_error;
    size_t down_bytes; /* from the server */
    bool raw;          /* the client is none: what comes down is walked frame by frame */
    struct http2_guard walk;
    uint32_t resets[STREAMS_MAX]; /* their errors, in the order they came */
    unsigned resets_n;
    char wire[WIRE_MAX];
};

static inline struct served *served_of(struct peers *p, int32_t id)
{
    return &p->served[(id - 1) / 2];
}

static inline struct asked *asked_of(struct peers *p, int32_t id)
{
    return &p->asked[(id - 1) / 2];
}

/* --- the owner --- */

static struct http2_stream *own_request(void *owner, const struct http2_request *request)
{
    struct peers *p = owner;
    struct served *s = &p->served[p->served_n];

    if (p->refuse_all)
        return NULL;
    assert_true(p->served_n < STREAMS_MAX);
    p->served_n++;
    s->there = true;
    s->refuse = request->refuse;
    s->ended = request->ended;
    if (request->refuse != 0)
        assert_non_null(request->detail);
    if (request->parsed != NULL) {
        assert_in_range(request->head.n, 1, sizeof s->head);
        memcpy(s->head, request->head.p, request->head.n);
        s->head_n = request->head.n;
        s->parsed = *request->parsed;
    }
    return &s->http2;
}

static struct served *served_by(struct http2_stream *h)
{
    return CONTAINER_OF(h, struct served, http2);
}

static void own_body(void *owner, struct http2_stream *h, struct str bytes)
{
    struct served *s = served_by(h);

    (void)owner;
    assert_in_range(s->body_n + bytes.n, 0, sizeof s->body);
    memcpy(s->body + s->body_n, bytes.p, bytes.n);
    s->body_n += bytes.n;
}

static void own_body_end(void *owner, struct http2_stream *h)
{
    (void)owner;
    assert_false(served_by(h)->body_ended);
    served_by(h)->body_ended = true;
}

static void own_taken(void *owner, struct http2_stream *h)
{
    (void)owner;
    assert_false(served_by(h)->forgotten);
    served_by(h)->taken++;
}

static void own_closed(void *owner, struct http2_stream *h, uint32_t error)
{
    struct served *s = served_by(h);

    (void)owner;
    assert_true(h->closed);
    assert_false(s->closed || s->forgotten);
    s->closed = true;
    s->error = error;
}

static const struct http2_events own_events = {
    .request = own_request,
    .body = own_body,
    .body_end = own_body_end,
    .taken = own_taken,
    .closed = own_closed,
};

/* --- the client --- */

static int client_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user_data)
{
    struct peers *p = user_data;
    struct asked *a = asked_of(p, frame->hd.stream_id);

    (void)session;
    (void)flags;
    a->fields_n += (size_t)snprintf(a->fields + a->fields_n, sizeof a->fields - a->fields_n, "%.*s: %.*s\n",
                                    (int)name_n, name, (int)value_n, value);
    assert_true(a->fields_n < sizeof a->fields);
    return 0;
}

static int client_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct peers *p = user_data;

    (void)session;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        p->goaway_error = frame->goaway.error_code;
        assert_true(p->goaways_n < 4);
        p->goaway_last[p->goaways_n++] = frame->goaway.last_stream_id;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    asked_of(p, frame->hd.stream_id)->frames++;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        struct asked *a = asked_of(p, frame->hd.stream_id);

        if (strncmp(a->fields, ":status: 1", 10) == 0) {
            a->interim++;
            a->fields_n = 0;
        } else {
            a->head = true;
        }
    }
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
        asked_of(p, frame->hd.stream_id)->ended_as_nth = ++p->ended_n;
    return 0;
}

static int client_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n,
                       void *user_data)
{
    struct asked *a = asked_of(user_data, id);

    (void)session;
    (void)flags;
    a->body = realloc(a->body, a->body_n + n + 1);
    assert_non_null(a->body);
    memcpy(a->body + a->body_n, bytes, n);
    a->body_n += n;
    return 0;
}

static int client_closed(nghttp2_session *session, int32_t id, uint32_t error, void *user_data)
{
    struct asked *a = asked_of(user_data, id);

    (void)session;
    a->closed = true;
    a->error = error;
    return 0;
}

static ssize_t client_upload(nghttp2_session *session, int32_t id, uint8_t *to, size_t n, uint32_t *flags,
                             nghttp2_data_source *source, void *user_data)
{
    struct asked *a = asked_of(user_data, id);

    (void)session;
    (void)source;
    if (n > a->upload_n)
        n = a->upload_n;
    if (n == 0 && a->upload_open)
        return NGHTTP2_ERR_DEFERRED;
    memcpy(to, a->upload, n);
    a->upload += n;
    a->upload_n -= n;
    if (a->upload_n == 0 && !a->upload_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* --- both --- */

/* strict: the client checks what it sends and receives as HTTP. */
static struct peers *peers_new(bool strict, const nghttp2_settings_entry *settings, size_t settings_n)
{
    struct peers *p = calloc(1, sizeof *p);
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    struct http2_options options;

    assert_non_null(p);
    p->now_ns = 1000 * NS_PER_S;
    p->piece = 65536;
    options = (struct http2_options){
        .events = &own_events, .owner = p, .stats = &p->stats, .streams_max = 100, .now_ns = p->now_ns};
    assert_int_equal(http2_create(&p->server, &options), 0);
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, client_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, client_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, client_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, client_closed);
    assert_int_equal(nghttp2_option_new(&option), 0);
    nghttp2_option_set_no_http_messaging(option, strict ? 0 : 1);
    assert_int_equal(nghttp2_session_client_new2(&p->client, callbacks, p, option), 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    assert_int_equal(nghttp2_submit_settings(p->client, NGHTTP2_FLAG_NONE, settings, settings_n), 0);
    return p;
}

static inline void forget(struct peers *p, int32_t id, size_t unread)
{
    struct served *s = served_of(p, id);

    if (!s->there || s->forgotten)
        return;
    http2_forget(p->server, &s->http2, unread);
    s->forgotten = true;
    memset(s->vecs, 0xee, sizeof s->vecs); /* nobody may look at them any more */
}

static inline void peers_free(struct peers *p)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        forget(p, (int32_t)i * 2 + 1, 0);
        free(p->asked[i].body);
    }
    http2_destroy(&p->server);
    nghttp2_session_del(p->client);
    free(p);
}

/* Raw bytes to the server. */
static inline void feed_raw(struct peers *p, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n && p->feed_error == 0; at += p->piece) {
        size_t here = n - at < p->piece ? n - at : p->piece;
        char *copy = exact_copy((const char *)bytes + at, here);

        p->feed_error = http2_feed(p->server, str_of(copy, here), p->now_ns);
        free(copy);
    }
}

/* One frame of the client's, whatever it may be. */
static inline void feed_frame(struct peers *p, uint8_t type, uint8_t flags, uint32_t id, const void *payload,
                              size_t n)
{
    uint8_t header[9] = {(uint8_t)(n >> 16),  (uint8_t)(n >> 8),   (uint8_t)n,         type,       flags,
                         (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

    feed_raw(p, header, sizeof header);
    feed_raw(p, payload, n);
}

static inline bool up(struct peers *p)
{
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(p->client, &bytes);

    assert_true(n >= 0);
    if (n > 0)
        feed_raw(p, bytes, (size_t)n);
    return n > 0;
}

static inline uint32_t u32_of(const char *p)
{
    const uint8_t *u = (const uint8_t *)p;

    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

/* Control frames that are sent in one pull lie in it whole. */
static inline void walk_raw(struct peers *p, struct str in)
{
    struct http2_frame frame;

    while (http2_guard_next(&p->walk, &in, &frame)) {
        if (frame.type == HTTP2_GOAWAY && in.n >= 8 && p->goaways_n < 4) {
            p->goaway_last[p->goaways_n++] = (int32_t)u32_of(in.p);
            p->goaway_error = u32_of(in.p + 4);
        } else if (frame.type == HTTP2_RST_STREAM && in.n >= 4 && p->resets_n < STREAMS_MAX) {
            p->resets[p->resets_n++] = u32_of(in.p);
        }
    }
}

/* One pull of at most so many bytes. */
static inline bool down(struct peers *p, size_t room)
{
    char *to = malloc(room);
    int n = p->feed_error != 0 ? 0 : http2_pull(p->server, to, room);

    assert_non_null(to);
    assert_in_range(n, 0, room);
    p->down_bytes += (size_t)n;
    if (n > 0 && p->raw)
        walk_raw(p, str_of(to, (size_t)n));
    else if (n > 0)
        assert_int_equal(nghttp2_session_mem_recv(p->client, (const uint8_t *)to, (size_t)n), n);
    free(to);
    return n > 0;
}

static inline void pump(struct peers *p)
{
    bool moved = true;

    while (moved) {
        moved = false;
        while (up(p))
            moved = true;
        while (down(p, p->piece < 4096 ? 4096 : p->piece))
            moved = true;
    }
}

#define NV(n, v)                                                                                             \
    {                                                                                                        \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), sizeof(n) - 1, sizeof(v) - 1, 0                \
    }

#define GET_FIELDS(path)                                                                                     \
    NV(":method", "GET"), NV(":scheme", "https"), NV(":authority", "audio.test"), NV(":path", path)

static inline int32_t ask_nv(struct peers *p, const nghttp2_nv *nv, size_t n)
{
    int32_t id = nghttp2_submit_request(p->client, NULL, nv, n, NULL, NULL);

    assert_true(id > 0);
    return id;
}

#define ASK(p, ...)                                                                                          \
    ({                                                                                                       \
        const nghttp2_nv fields_[] = {__VA_ARGS__};                                                          \
        ask_nv(p, fields_, ARRAY_LEN(fields_));                                                              \
    })

/* With a body; `open`: more follows. */
static inline int32_t upload(struct peers *p, const nghttp2_nv *nv, size_t n, const char *body, size_t body_n,
                             bool open)
{
    const nghttp2_data_provider provider = {.read_callback = client_upload};
    int32_t id = nghttp2_submit_request(p->client, NULL, nv, n, &provider, NULL);

    assert_true(id > 0);
    *asked_of(p, id) = (struct asked){.upload = body, .upload_n = body_n, .upload_open = open};
    return id;
}

static inline int answer_parts(struct peers *p, int32_t id, const char *head, const void *body, size_t n,
                               bool last)
{
    struct served *s = served_of(p, id);
    unsigned vecs_n = 0, head_n = 0;

    assert_true(s->there);
    if (head != NULL) {
        s->vecs[vecs_n++] = (struct iovec){(void *)(uintptr_t)head, strlen(head)};
        head_n = 1;
    }
    if (n > 0)
        s->vecs[vecs_n++] = (struct iovec){(void *)(uintptr_t)body, n};
    return http2_send(p->server, &s->http2, s->vecs, vecs_n, head_n, last);
}

static inline void answer(struct peers *p, int32_t id, const char *head, const void *body, size_t n)
{
    assert_int_equal(answer_parts(p, id, head, body, n, true), 0);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\n\r\n"
