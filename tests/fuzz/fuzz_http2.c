/* A server session and a client that may do anything. The first byte says how the rest is read: as bytes after the
 * preface, cut into pieces; or as steps, frames with valid HPACK among them, so that what lies behind heads is
 * reached too. An owner answers, breaks off and forgets as the input says. Whatever comes: heads that are served are
 * heads, nothing is taken twice, and what was forgotten is not looked at again. */
#include "fuzz.h"

#include "http/http2.h"
#include "util/clock.h"

#include <nghttp2/nghttp2.h>

#define STREAMS 64

struct served {
    struct http2_stream http2;
    bool in_use, sending, ended;
    size_t unread;
    char *text; /* head and body of an answer: freed as soon as the session may not look at it any more */
    struct iovec vecs[2];
};

struct owner {
    struct http2 *session;
    struct served served[STREAMS];
};

static struct served *served_by(struct http2_stream *h)
{
    return CONTAINER_OF(h, struct served, http2);
}

static void drop_text(struct served *s)
{
    free(s->text);
    s->text = NULL;
    s->sending = false;
}

static struct http2_stream *on_request(void *owner, const struct http2_request *request)
{
    struct owner *o = owner;

    if (request->parsed != NULL) {
        struct http1_request again;

        CHECK(request->refuse == 0);
        CHECK(http1_parse_request(request->head.p, request->head.n, &again) == (int)request->head.n);
        CHECK(memmem(request->head.p, request->head.n, "\r\n\r\n", 4) ==
              request->head.p + request->head.n - 4);
    } else {
        CHECK(request->refuse >= 400 && request->detail != NULL);
    }
    for (unsigned i = 0; i < STREAMS; i++)
        if (!o->served[i].in_use) {
            o->served[i] = (struct served){.in_use = true, .ended = request->ended};
            return &o->served[i].http2;
        }
    return NULL;
}

static void on_body(void *owner, struct http2_stream *h, struct str bytes)
{
    struct served *s = served_by(h);

    (void)owner;
    CHECK(s->in_use && !h->remote_ended);
    free(exact_copy(bytes.p, bytes.n));
    s->unread += bytes.n;
    CHECK(s->unread <= 65535);
}

static void on_body_end(void *owner, struct http2_stream *h)
{
    (void)owner;
    CHECK(served_by(h)->in_use && !served_by(h)->ended);
    served_by(h)->ended = true;
}

static void on_taken(void *owner, struct http2_stream *h)
{
    struct served *s = served_by(h);

    (void)owner;
    CHECK(s->in_use && s->sending && h->left_bytes == 0);
    drop_text(s);
}

static void on_closed(void *owner, struct http2_stream *h, uint32_t error)
{
    (void)owner;
    (void)error;
    CHECK(served_by(h)->in_use && h->closed);
    drop_text(served_by(h));
}

static const struct http2_events events = {
    .request = on_request,
    .body = on_body,
    .body_end = on_body_end,
    .taken = on_taken,
    .closed = on_closed,
};

static void forget(struct owner *o, struct served *s)
{
    if (!s->in_use)
        return;
    http2_forget(o->session, &s->http2, s->unread);
    drop_text(s);
    s->in_use = false;
}

/* A head and n bytes of a body, or the latter alone once the head has gone. */
static void answer(struct owner *o, struct served *s, size_t n, bool last)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\nAge: 1\r\n\r\n";
    size_t head_n = s->http2.begun ? 0 : sizeof head - 1;
    unsigned vecs_n = 0;

    if (!s->in_use || s->sending || (s->http2.begun && s->http2.last))
        return;
    s->text = malloc(head_n + n + 1);
    CHECK(s->text != NULL);
    memcpy(s->text, head, head_n);
    memset(s->text + head_n, 'b', n);
    if (head_n > 0)
        s->vecs[vecs_n++] = (struct iovec){s->text, head_n};
    if (n > 0)
        s->vecs[vecs_n++] = (struct iovec){s->text + head_n, n};
    if (vecs_n == 0 && !last)
        last = true;
    s->sending = true;
    if (http2_send(o->session, &s->http2, s->vecs, vecs_n, head_n > 0, last) != 0)
        drop_text(s);
}

static bool pull(struct owner *o, size_t room)
{
    char *to = malloc(room);
    int n = http2_pull(o->session, to, room);

    CHECK(n <= (int)room);
    free(to);
    return n > 0;
}

static int feed(struct owner *o, const void *bytes, size_t n, uint64_t now_ns)
{
    char *copy = exact_copy(bytes, n);
    int error = http2_feed(o->session, str_of(copy, n), now_ns);

    free(copy);
    return error;
}

static void act(struct owner *o, struct str *in)
{
    struct served *s = &o->served[fuzz_byte(in) % STREAMS];
    unsigned how = fuzz_byte(in);

    switch (how % 6) {
    case 0:
        answer(o, s, how * 97, true);
        break;
    case 1:
        answer(o, s, how, false);
        break;
    case 2:
        forget(o, s);
        break;
    case 3:
        if (s->in_use && s->unread > 0) {
            size_t n = s->unread < how * 64 ? s->unread : how * 64;

            http2_consume(o->session, &s->http2, n);
            s->unread -= n;
        }
        break;
    case 4:
        (void)pull(o, 4096 + how * 200);
        break;
    default:
        if (s->in_use && !s->sending && !s->http2.begun && http2_send_continue(o->session, &s->http2) == 0)
            s->sending = true;
        break;
    }
}

static int raw(struct owner *o, struct str in, uint64_t now_ns)
{
    int error = 0;

    while (in.n > 0 && error == 0) {
        unsigned n = fuzz_byte(&in);
        struct str piece = fuzz_take(&in, n & 0x7f);

        error = feed(o, piece.p, piece.n, now_ns);
        if (n & 0x80 && error == 0)
            act(o, &in);
    }
    return error;
}

/* --- by steps --- */

/* Lines of "name: value". */
static size_t encode(nghttp2_hd_deflater *deflater, struct str *in, uint8_t *to, size_t room)
{
    nghttp2_nv nv[24];
    size_t n = 0;
    ssize_t encoded;
    unsigned lines = fuzz_byte(in) % 24;

    while (n < lines && in->n > 0) {
        struct str line = fuzz_line(in);
        size_t name_n = 0;

        while (name_n < line.n && (name_n == 0 || line.p[name_n] != ':'))
            name_n++;
        nv[n++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)line.p,
                               .namelen = name_n,
                               .value = (uint8_t *)(uintptr_t)(line.p + name_n + (name_n < line.n)),
                               .valuelen = line.n - name_n - (name_n < line.n)};
    }
    encoded = nghttp2_hd_deflate_hd(deflater, to, room, nv, n);
    return encoded < 0 ? 0 : (size_t)encoded;
}

static int feed_frame(struct owner *o, unsigned type, unsigned flags, unsigned id, const void *payload,
                      size_t n, uint64_t now_ns)
{
    uint8_t bytes[9 + 20000] = {
        (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, (uint8_t)type, (uint8_t)flags, 0, 0,
        (uint8_t)(id >> 8), (uint8_t)id};

    CHECK(n <= 20000);
    if (n > 0)
        memcpy(bytes + 9, payload, n);
    return feed(o, bytes, 9 + n, now_ns);
}

static int steps(struct owner *o, struct str in, uint64_t now_ns)
{
    static uint8_t payload[20000];
    nghttp2_hd_deflater *deflater;
    int error = 0;

    CHECK(nghttp2_hd_deflate_new(&deflater, 4096) == 0);
    error = feed_frame(o, HTTP2_SETTINGS, 0, 0, "", 0, now_ns);
    while (in.n > 0 && error == 0) {
        unsigned step = fuzz_byte(&in), id = fuzz_byte(&in) * 2 + 1;
        struct str bytes;
        size_t n;

        switch (step % 8) {
        case 0:
        case 1:
            n = encode(deflater, &in, payload, sizeof payload);
            error =
                feed_frame(o, HTTP2_HEADERS, HTTP2_FLAG_END_HEADERS | (step >> 7), id, payload, n, now_ns);
            break;
        case 2:
            memset(payload, 'd', sizeof payload);
            error = feed_frame(o, HTTP2_DATA, step >> 7, id, payload, fuzz_byte(&in) * 60, now_ns);
            break;
        case 3:
            error = feed_frame(o, HTTP2_RST_STREAM, 0, id, "\0\0\0\x8", 4, now_ns);
            break;
        case 4:
            bytes = fuzz_take(&in, 4);
            error = feed_frame(o, HTTP2_WINDOW_UPDATE, 0, step >> 7 ? id : 0, bytes.p, bytes.n, now_ns);
            break;
        case 5:
            bytes = fuzz_take(&in, fuzz_byte(&in) & 63);
            error = feed_frame(o, fuzz_byte(&in) & 31, fuzz_byte(&in), step >> 7 ? id : 0, bytes.p, bytes.n,
                               now_ns);
            break;
        case 6:
            now_ns += fuzz_byte(&in) * NS_PER_S / 10;
            break;
        default:
            act(o, &in);
            break;
        }
    }
    nghttp2_hd_deflate_del(deflater);
    return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size);
    struct http2_stats stats = {0};
    struct owner o = {0};
    const struct http2_options options = {
        .events = &events, .owner = &o, .stats = &stats, .streams_max = 20, .now_ns = NS_PER_S};
    unsigned how = fuzz_byte(&in);
    int error;

    CHECK(http2_create(&o.session, &options) == 0);
    error = feed(&o, HTTP2_PREFACE, HTTP2_PREFACE_BYTES, NS_PER_S);
    CHECK(error == 0);
    error = how & 1 ? steps(&o, in, NS_PER_S) : raw(&o, in, NS_PER_S);
    for (unsigned i = 0; error == 0 && i < 200 && pull(&o, 65536); i++)
        ;
    for (unsigned i = 0; i < STREAMS; i++)
        forget(&o, &o.served[i]);
    for (unsigned i = 0; error == 0 && i < 200 && pull(&o, 4096); i++)
        ;
    http2_destroy(&o.session);
    return 0;
}
