/* Requests and answers, bodies, windows, priorities and ends. What attackers and broken clients do is in
 * test_http2_hostile.c. */
#include "http2_peer.h"

#include "util/limits.h"

#include <errno.h>

#define HEAD_OF(p, id) str_of(served_of(p, id)->head, served_of(p, id)->head_n)

static char *random_body(size_t n)
{
    char *body = malloc(n);
    uint32_t x = 1;

    assert_non_null(body);
    for (size_t i = 0; i < n; i++)
        body[i] = (char)((x = x * 1664525 + 1013904223) >> 24);
    return body;
}

static void assert_body(struct peers *p, int32_t id, const char *body, size_t n)
{
    assert_int_equal(asked_of(p, id)->body_n, n);
    if (n > 0)
        assert_memory_equal(asked_of(p, id)->body, body, n);
}

/* The same whatever the pieces: the text, and what comes back. */
static void test_get(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 7, 8, 9, 10, 100, 65536};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct peers *p = peers_new(true, NULL, 0);
        int32_t id = ASK(p, GET_FIELDS("/a/b?x=1"), NV("range", "bytes=0-"), NV("accept", "*/*"));

        p->piece = pieces[i];
        pump(p);
        assert_str(HEAD_OF(p, id), "GET /a/b?x=1 HTTP/1.1\r\nhost: audio.test\r\nrange: bytes=0-\r\n"
                                   "accept: */*\r\n\r\n");
        assert_true(served_of(p, id)->ended);
        assert_int_equal(served_of(p, id)->parsed.framing, HTTP_BODY_NONE);
        answer(p, id,
               "HTTP/1.1 206 Partial Content\r\nContent-Type: audio/ogg\r\nConnection: keep-alive\r\n"
               "Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\nX-Own:  spaced out \r\n\r\n",
               "hello", 5);
        pump(p);
        assert_string_equal(asked_of(p, id)->fields,
                            ":status: 206\ncontent-type: audio/ogg\nx-own: spaced out\n");
        assert_body(p, id, "hello", 5);
        assert_int_equal(served_of(p, id)->taken, 1);
        assert_true(served_of(p, id)->closed && asked_of(p, id)->closed);
        assert_int_equal(asked_of(p, id)->error, 0);
        assert_int_equal(served_of(p, id)->http2.framed_bytes, 5);
        assert_int_equal(p->stats.streams, 1);
        peers_free(p);
    }
}

static void test_cookies(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t a = ASK(p, GET_FIELDS("/"), NV("cookie", "a=1"), NV("cookie", "b=2"), NV("cookie", "c=3"));
    int32_t b = ASK(p, GET_FIELDS("/"), NV("cookie", "a=1"), NV("accept", "x"), NV("cookie", "b=2"),
                    NV("x-y", "z"), NV("cookie", "c"));

    (void)state;
    pump(p);
    assert_str(HEAD_OF(p, a), "GET / HTTP/1.1\r\nhost: audio.test\r\ncookie: a=1; b=2; c=3\r\n\r\n");
    assert_str(HEAD_OF(p, b),
               "GET / HTTP/1.1\r\nhost: audio.test\r\ncookie: a=1; b=2; c\r\naccept: x\r\nx-y: z\r\n\r\n");
    peers_free(p);
}

static void test_host(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t same = ASK(p, GET_FIELDS("/"), NV("host", "Audio.TEST"));
    int32_t other = ASK(p, GET_FIELDS("/"), NV("host", "evil.test"));
    int32_t alone =
        ASK(p, NV(":method", "GET"), NV(":scheme", "http"), NV(":path", "/"), NV("host", "a.test:81"));
    int32_t star = ASK(p, NV(":method", "OPTIONS"), NV(":scheme", "https"), NV(":authority", "audio.test"),
                       NV(":path", "*"));
    int32_t scheme =
        ASK(p, NV(":method", "GET"), NV(":scheme", "ftp"), NV(":authority", "audio.test"), NV(":path", "/"));
    int32_t tunnel = ASK(p, NV(":method", "CONNECT"), NV(":authority", "audio.test:443"));

    (void)state;
    pump(p);
    assert_str(HEAD_OF(p, same), "GET / HTTP/1.1\r\nhost: audio.test\r\n\r\n");
    assert_int_equal(served_of(p, other)->refuse, 400);
    assert_str(HEAD_OF(p, alone), "GET / HTTP/1.1\r\nhost: a.test:81\r\n\r\n");
    assert_str(HEAD_OF(p, star), "OPTIONS * HTTP/1.1\r\nhost: audio.test\r\n\r\n");
    assert_int_equal(served_of(p, scheme)->refuse, 400);
    assert_str(HEAD_OF(p, tunnel), "CONNECT audio.test:443 HTTP/1.1\r\nhost: audio.test:443\r\n\r\n");
    assert_int_equal(served_of(p, tunnel)->parsed.method, HTTP_CONNECT);
    peers_free(p);
}

#define POST_FIELDS                                                                                          \
    NV(":method", "POST"), NV(":scheme", "https"), NV(":authority", "audio.test"), NV(":path", "/p")

static void test_upload(void **state)
{
    const nghttp2_nv with[] = {POST_FIELDS, NV("content-length", "5")}, without[] = {POST_FIELDS};
    struct peers *p = peers_new(true, NULL, 0);
    int32_t a = upload(p, with, ARRAY_LEN(with), "hello", 5, false);
    int32_t b = upload(p, without, ARRAY_LEN(without), "world!", 6, false);

    (void)state;
    pump(p);
    assert_str(HEAD_OF(p, a), "POST /p HTTP/1.1\r\nhost: audio.test\r\ncontent-length: 5\r\n\r\n");
    assert_int_equal(served_of(p, a)->parsed.framing, HTTP_BODY_LENGTH);
    assert_str(HEAD_OF(p, b), "POST /p HTTP/1.1\r\nhost: audio.test\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_int_equal(served_of(p, b)->parsed.framing, HTTP_BODY_CHUNKED);
    assert_false(served_of(p, b)->ended);
    assert_true(served_of(p, a)->body_ended && served_of(p, b)->body_ended);
    assert_str(str_of(served_of(p, a)->body, served_of(p, a)->body_n), "hello");
    assert_str(str_of(served_of(p, b)->body, served_of(p, b)->body_n), "world!");
    peers_free(p);
}

/* Who sends more than somebody reads stops at the window, and goes on when it is read. */
static void test_windows_in(void **state)
{
    const nghttp2_nv fields[] = {POST_FIELDS};
    struct peers *p = peers_new(true, NULL, 0);
    char *body = random_body(150000);
    int32_t id = upload(p, fields, ARRAY_LEN(fields), body, 150000, false);
    struct served *s = served_of(p, id);

    (void)state;
    pump(p);
    assert_int_equal(s->body_n, HTTP2_WINDOW_BYTES);
    assert_false(s->body_ended);
    http2_consume(p->server, &s->http2, HTTP2_WINDOW_BYTES);
    pump(p);
    assert_int_equal(s->body_n, 2 * HTTP2_WINDOW_BYTES);
    http2_consume(p->server, &s->http2, HTTP2_WINDOW_BYTES);
    pump(p);
    assert_int_equal(s->body_n, 150000);
    assert_true(s->body_ended);
    assert_memory_equal(s->body, body, 150000);
    peers_free(p);
    free(body);
}

/* A stream that is forgotten with bytes unread does not keep the connection's window. */
static void test_windows_unread(void **state)
{
    const nghttp2_nv fields[] = {POST_FIELDS};
    struct peers *p = peers_new(true, NULL, 0);
    char *body = random_body(100000);
    int32_t a = upload(p, fields, ARRAY_LEN(fields), body, 100000, false), b;

    (void)state;
    pump(p);
    answer(p, a, OK_HEAD, "done", 4);
    pump(p);
    assert_false(asked_of(p, a)->closed); /* it still sends */
    forget(p, a, served_of(p, a)->body_n);
    pump(p);
    assert_true(asked_of(p, a)->closed);
    assert_int_equal(asked_of(p, a)->error, NGHTTP2_NO_ERROR);
    assert_body(p, a, "done", 4);
    b = upload(p, fields, ARRAY_LEN(fields), body, 60000, false);
    pump(p);
    assert_int_equal(served_of(p, b)->body_n, 60000);
    assert_true(served_of(p, b)->body_ended);
    peers_free(p);
    free(body);
}

static void test_no_body(void **state)
{
    static const char *const heads[] = {
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", /* to HEAD */
    };
    struct peers *p = peers_new(true, NULL, 0);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        int32_t id =
            ASK(p, NV(":method", "HEAD"), NV(":scheme", "https"), NV(":authority", "a"), NV(":path", "/"));

        pump(p);
        answer(p, id, heads[i], NULL, 0);
        pump(p);
        assert_int_equal(asked_of(p, id)->frames, 1); /* END_STREAM is on HEADERS */
        assert_true(asked_of(p, id)->closed && served_of(p, id)->closed);
        assert_int_equal(asked_of(p, id)->error, 0);
        assert_int_equal(served_of(p, id)->taken, 1);
    }
    peers_free(p);
}

/* Head first, body as it comes, and the end alone. */
static void test_in_parts(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t id = ASK(p, GET_FIELDS("/"));
    struct served *s = served_of(p, id);

    (void)state;
    pump(p);
    assert_int_equal(answer_parts(p, id, OK_HEAD, NULL, 0, false), 0);
    assert_int_equal(s->taken, 0);
    pump(p);
    assert_int_equal(s->taken, 1);
    assert_true(asked_of(p, id)->head);
    assert_int_equal(answer_parts(p, id, NULL, "one", 3, false), 0);
    pump(p);
    assert_int_equal(answer_parts(p, id, NULL, "two", 3, false), 0);
    pump(p);
    assert_int_equal(s->taken, 3);
    assert_false(asked_of(p, id)->closed);
    assert_int_equal(answer_parts(p, id, NULL, NULL, 0, true), 0);
    pump(p);
    assert_int_equal(s->taken, 4);
    assert_true(asked_of(p, id)->closed && s->closed);
    assert_body(p, id, "onetwo", 6);
    peers_free(p);
}

static void test_continue(void **state)
{
    const nghttp2_nv fields[] = {POST_FIELDS, NV("expect", "100-continue")};
    struct peers *p = peers_new(true, NULL, 0);
    int32_t id = upload(p, fields, ARRAY_LEN(fields), "hello", 5, false);

    (void)state;
    pump(p);
    assert_true(served_of(p, id)->parsed.expect_continue);
    assert_int_equal(http2_send_continue(p->server, &served_of(p, id)->http2), 0);
    pump(p);
    assert_int_equal(asked_of(p, id)->interim, 1);
    assert_int_equal(served_of(p, id)->taken, 1);
    assert_false(served_of(p, id)->http2.begun);
    answer(p, id, OK_HEAD, "done", 4);
    pump(p);
    assert_int_equal(served_of(p, id)->taken, 2);
    assert_body(p, id, "done", 4);
    assert_int_equal(asked_of(p, id)->error, 0);
    peers_free(p);
}

/* Lines that lie in several vectors (as a 304 with a long ETag has them). */
static void test_head_in_vectors(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t id = ASK(p, GET_FIELDS("/")), bad;
    struct served *s = served_of(p, id);

    (void)state;
    pump(p);
    s->vecs[0] = (struct iovec){(void *)(uintptr_t) "HTTP/1.1 304 Not Modified\r\nETag: ", 33};
    s->vecs[1] = (struct iovec){(void *)(uintptr_t) "\"abc\"", 5};
    s->vecs[2] = (struct iovec){(void *)(uintptr_t) "\r\nX-Cache: HIT\r\n\r\n", 18};
    assert_int_equal(http2_send(p->server, &s->http2, s->vecs, 3, 3, true), 0);
    memset(s->vecs, 0, sizeof s->vecs);
    pump(p);
    assert_string_equal(asked_of(p, id)->fields, ":status: 304\netag: \"abc\"\nx-cache: HIT\n");
    bad = ASK(p, GET_FIELDS("/"));
    pump(p);
    assert_int_equal(answer_parts(p, bad, "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NULL, 0, true), -EINVAL);
    assert_int_equal(answer_parts(p, bad, "HTTP/1.1 200 OK\r\nA: b\n\r\n", NULL, 0, true), -EINVAL);
    assert_int_equal(answer_parts(p, bad, "", NULL, 0, true), -EINVAL);
    peers_free(p);
}

/* What repeats costs a byte each the second time, and what does not stays out of the table. */
static void test_heads_are_compressed(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    size_t first = 0, before = 0, tables = 0;
    char head[512];

    (void)state;
    for (int i = 0; i < 200; i++) {
        int32_t id = ASK(p, GET_FIELDS("/"));

        pump(p);
        snprintf(
            head, sizeof head,
            "HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\nServer: somebody/1.0\r\nETag: \"%d\"\r\n"
            "Cache-Control: public, max-age=31536000, immutable\r\nDate: Mon, 01 Jan 2024 00:00:%02d GMT\r\n"
            "Age: %d\r\nCache-Status: segue-edge; hit; ttl=%d\r\nX-Cache: HIT\r\n\r\n",
            i, i % 60, i, 9000 - i);
        before = p->down_bytes;
        answer(p, id, head, NULL, 0);
        pump(p);
        if (i == 0) {
            first = p->down_bytes - before;
            tables = nghttp2_session_get_hd_inflate_dynamic_table_size(p->client);
        }
        forget(p, id, 0);
    }
    /* 136 bytes the first time, then 82: what differs each time. */
    assert_in_range(first, 120, 150);
    assert_in_range(p->down_bytes - before, 50, 90);
    assert_int_equal(nghttp2_session_get_hd_inflate_dynamic_table_size(p->client), tables);
    peers_free(p);
}

/* Rooms of every size give the same body, in whole. */
static void test_pulls(void **state)
{
    char *body = random_body(200000);

    (void)state;
    for (size_t room = 4096; room <= 65536; room += 1531) {
        struct peers *p = peers_new(true, NULL, 0);
        int32_t id = ASK(p, GET_FIELDS("/"));

        p->piece = room;
        assert_int_equal(nghttp2_session_set_local_window_size(p->client, NGHTTP2_FLAG_NONE, 0, 1 << 20), 0);
        pump(p);
        answer(p, id, OK_HEAD, body, 200000);
        pump(p);
        assert_body(p, id, body, 200000);
        assert_int_equal(served_of(p, id)->taken, 1);
        peers_free(p);
    }
    free(body);
}

/* Sessions of a thread share the memory of the frame that is being sent: what of it did not fit is theirs. Heads of all
 * lengths, up to such as take CONTINUATION, on two sessions by turns. */
static void test_frames_in_pieces(void **state)
{
    static const size_t values[] = {10, 1000, 3000, 5000, 9000, 16300, 20000, 50000};
    struct peers *both[] = {peers_new(true, NULL, 0), peers_new(true, NULL, 0)};
    int32_t ids[ARRAY_LEN(values)];
    char *heads[2][ARRAY_LEN(values)];
    bool moved = true;

    (void)state;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < ARRAY_LEN(values); i++)
            ids[i] = ASK(both[k], GET_FIELDS("/"));
        pump(both[k]);
        for (size_t i = 0; i < ARRAY_LEN(values); i++) {
            struct iovec *vec = served_of(both[k], ids[i])->vecs;
            struct buf head = buf_of(malloc(values[i] + 100), values[i] + 100);

            assert_non_null(head.p);
            buf_add_lit(&head, "HTTP/1.1 200 OK\r\nETag: ");
            memset(head.p + head.n, '{' + k, values[i]); /* whose Huffman codes are long */
            head.n += values[i];
            buf_add_lit(&head, "\r\n\r\n");
            heads[k][i] = head.p;
            *vec = (struct iovec){head.p, head.n};
            assert_int_equal(http2_send(both[k]->server, &served_of(both[k], ids[i])->http2, vec, 1, 1, true),
                             0);
        }
    }
    while (moved) {
        moved = down(both[0], 4096);
        moved = down(both[1], 4096) || moved;
    }
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < ARRAY_LEN(values); i++) {
            const char *fields = asked_of(both[k], ids[i])->fields;

            assert_int_equal(strlen(fields), 13 + 6 + values[i] + 1);
            for (size_t at = 19; at < 19 + values[i]; at++)
                assert_int_equal(fields[at], '{' + k);
            free(heads[k][i]);
        }
        peers_free(both[k]);
    }
}

static void test_windows_out(void **state)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 10}};
    struct peers *p = peers_new(true, settings, 1);
    char *body = random_body(100000);
    int32_t id = ASK(p, GET_FIELDS("/"));
    struct served *s = served_of(p, id);

    (void)state;
    nghttp2_session_set_local_window_size(p->client, NGHTTP2_FLAG_NONE, id, 10); /* no updates by itself */
    pump(p);
    answer(p, id, OK_HEAD, body, 100000);
    for (int i = 0; i < 3; i++)
        down(p, 4096);
    assert_int_equal(s->http2.framed_bytes, 10);
    assert_true(http2_stream_is_blocked(p->server, &s->http2));
    assert_false(http2_is_blocked(p->server));
    assert_false(http2_wants_pull(p->server));
    feed_frame(p, HTTP2_WINDOW_UPDATE, 0, (uint32_t)id, "\0\1\0\0", 4);
    assert_false(http2_stream_is_blocked(p->server, &s->http2));
    while (down(p, 65536))
        ;
    assert_int_equal(s->http2.framed_bytes, 65535); /* the connection's */
    assert_int_equal(http2_framed_bytes(p->server), 65535);
    assert_true(http2_is_blocked(p->server));
    assert_int_equal(s->taken, 0);
    peers_free(p);
    free(body);
}

/* RFC 9218: `priority` on three requests whose bodies wait, and the order in which they end. */
static void answer_all(struct peers *p, const int32_t *ids, size_t n, const char *body, size_t body_n)
{
    for (size_t i = 0; i < n; i++)
        answer(p, ids[i], OK_HEAD, body, body_n);
    pump(p);
    for (size_t i = 0; i < n; i++)
        assert_body(p, ids[i], body, body_n);
}

static struct peers *wide_peers(void)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    struct peers *p = peers_new(true, settings, 2);

    assert_int_equal(nghttp2_session_set_local_window_size(p->client, NGHTTP2_FLAG_NONE, 0, 1 << 24), 0);
    return p;
}

static void test_urgency(void **state)
{
    struct peers *p = wide_peers();
    char *body = random_body(100000);
    int32_t ids[4];

    (void)state;
    ids[0] = ASK(p, GET_FIELDS("/prefetch"), NV("priority", "u=6"));
    ids[1] = ASK(p, GET_FIELDS("/usual"));
    ids[2] = ASK(p, GET_FIELDS("/now"), NV("priority", "u=1"));
    ids[3] = ASK(p, GET_FIELDS("/usual too"), NV("priority", "u=9, i=maybe")); /* not well-formed: as usual */
    asked_of(p, ids[3])->closed = false;
    (void)nghttp2_submit_rst_stream(p->client, 0, ids[3], NGHTTP2_CANCEL);
    pump(p);
    answer_all(p, ids, 3, body, 100000);
    assert_int_equal(asked_of(p, ids[2])->ended_as_nth, 1);
    assert_int_equal(asked_of(p, ids[1])->ended_as_nth, 2);
    assert_int_equal(asked_of(p, ids[0])->ended_as_nth, 3);
    peers_free(p);
    free(body);
}

/* Of equal urgency: one after the other in the order of streams, unless they are incremental, which share. */
static void test_incremental(void **state)
{
    struct peers *p = wide_peers();
    char *body = random_body(100000);
    int32_t ids[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        ids[i] = ASK(p, GET_FIELDS("/"));
    pump(p);
    for (int i = 2; i >= 0; i--) /* handed over backwards */
        answer(p, ids[i], OK_HEAD, body, 100000);
    down(p, 65536);
    down(p, 65536);
    assert_int_equal(asked_of(p, ids[0])->body_n, 100000);
    assert_true(asked_of(p, ids[1])->body_n < 50000 && asked_of(p, ids[2])->body_n == 0);
    pump(p);
    for (int i = 0; i < 3; i++)
        ids[i] = ASK(p, GET_FIELDS("/"), NV("priority", "i"));
    pump(p);
    for (int i = 0; i < 3; i++)
        answer(p, ids[i], OK_HEAD, body, 100000);
    down(p, 65536);
    for (int i = 0; i < 3; i++)
        assert_true(asked_of(p, ids[i])->body_n >= 8192 && asked_of(p, ids[i])->body_n < 40000);
    pump(p);
    peers_free(p);
    free(body);
}

/* PRIORITY_UPDATE while both are under way, and before the stream is there. */
static void test_priority_update(void **state)
{
    struct peers *p = wide_peers();
    char *body = random_body(300000);
    int32_t a, b, c;
    static const uint8_t early[] = "\x00\x00\x00\x05u=0";
    uint8_t update[] = "\x00\x00\x00\x00u=2";

    (void)state;
    feed_frame(p, HTTP2_PRIORITY_UPDATE, 0, 0, "", 0);
    peers_free(p);
    p = wide_peers();
    a = ASK(p, GET_FIELDS("/a"));
    b = ASK(p, GET_FIELDS("/b"));
    pump(p);
    answer(p, a, OK_HEAD, body, 300000);
    answer(p, b, OK_HEAD, body, 300000);
    down(p, 65536);
    assert_true(asked_of(p, a)->body_n > 0 && asked_of(p, b)->body_n == 0);
    update[3] = (uint8_t)b;
    feed_frame(p, HTTP2_PRIORITY_UPDATE, 0, 0, update, 7);
    feed_frame(p, HTTP2_PRIORITY_UPDATE, 0, 0, early, 7); /* for stream 5, which is to come */
    c = ASK(p, GET_FIELDS("/c"));
    assert_int_equal(c, 5);
    while (up(p))
        ;
    answer(p, c, OK_HEAD, body, 300000);
    pump(p);
    assert_int_equal(asked_of(p, c)->ended_as_nth, 1);
    assert_int_equal(asked_of(p, b)->ended_as_nth, 2);
    assert_int_equal(asked_of(p, a)->ended_as_nth, 3);
    peers_free(p);
    free(body);
}

/* The notice stops nobody; the GOAWAY after it says which is the last; then it ends. */
static void test_goaway(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t a = ASK(p, GET_FIELDS("/a")), b, c;

    (void)state;
    pump(p);
    http2_notice(p->server);
    b = ASK(p, GET_FIELDS("/b")); /* on its way when the notice came */
    while (up(p))
        ;
    pump(p);
    assert_int_equal(p->goaways_n, 1);
    assert_int_equal(p->goaway_last[0], INT32_MAX);
    assert_true(served_of(p, b)->there);
    http2_goaway(p->server);
    http2_goaway(p->server);
    assert_false(http2_is_over(p->server));
    pump(p);
    assert_int_equal(p->goaways_n, 2);
    assert_int_equal(p->goaway_last[1], b);
    c = nghttp2_submit_request(p->client, NULL, (const nghttp2_nv[]){GET_FIELDS("/c")}, 4, NULL, NULL);
    pump(p);
    assert_true(c < 0 || !served_of(p, c)->there);
    answer(p, a, OK_HEAD, "a", 1);
    answer(p, b, OK_HEAD, "b", 1);
    pump(p);
    assert_body(p, a, "a", 1);
    assert_body(p, b, "b", 1);
    assert_true(http2_is_over(p->server));
    assert_false(http2_was_wronged(p->server));
    assert_int_equal(p->stats.goaways_sent, 1);
    peers_free(p);
}

/* The client goes away in mid answer: nothing looks at the vectors after that. */
static void test_client_resets(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    char *body = random_body(60000), *head = exact_copy(OK_HEAD, sizeof OK_HEAD);
    int32_t before = ASK(p, GET_FIELDS("/")), in_between = ASK(p, GET_FIELDS("/"));

    (void)state;
    pump(p);
    answer(p, before, head, body, 60000);
    answer(p, in_between, head, body, 60000);
    feed_frame(p, HTTP2_RST_STREAM, 0, (uint32_t)before, "\0\0\0\x8",
               4); /* before anything of it is framed */
    assert_true(served_of(p, before)->closed);
    assert_int_equal(served_of(p, before)->error, HTTP2_CANCEL);
    down(p, 4096);
    assert_true(served_of(p, in_between)->http2.framed_bytes > 0);
    feed_frame(p, HTTP2_RST_STREAM, 0, (uint32_t)in_between, "\0\0\0\x8", 4);
    assert_true(served_of(p, in_between)->closed);
    memset(body, 0, 60000);
    free(body);
    free(head);
    forget(p, before, 0);
    forget(p, in_between, 0);
    pump(p);
    assert_int_equal(served_of(p, before)->taken + served_of(p, in_between)->taken, 0);
    assert_int_equal(p->stats.resets_received, 2);
    assert_false(http2_was_wronged(p->server));
    peers_free(p);
}

/* The owner breaks off: the client sees that the answer is not whole, whatever had been framed. */
static void test_owner_forgets(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    char *body = random_body(60000), *head = exact_copy(OK_HEAD, sizeof OK_HEAD);
    int32_t none = ASK(p, GET_FIELDS("/")), queued = ASK(p, GET_FIELDS("/")), begun = ASK(p, GET_FIELDS("/")),
            between = ASK(p, GET_FIELDS("/"));
    const int32_t ids[] = {none, queued, begun, between};

    (void)state;
    pump(p);
    answer(p, begun, head, body, 60000);
    assert_int_equal(answer_parts(p, between, OK_HEAD, "some", 4, false), 0);
    down(p, 4096);
    answer(p, queued, head, body, 60000);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        forget(p, ids[i], 0);
    free(body);
    free(head);
    pump(p);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        assert_true(asked_of(p, ids[i])->closed);
        assert_int_equal(asked_of(p, ids[i])->error, NGHTTP2_INTERNAL_ERROR);
        assert_int_equal(asked_of(p, ids[i])->ended_as_nth, 0);
    }
    assert_false(asked_of(p, queued)->head);
    assert_int_equal(answer_parts(p, none, OK_HEAD, NULL, 0, true), -EPIPE);
    peers_free(p);
}

static void test_refused(void **state)
{
    struct peers *p = peers_new(true, NULL, 0);
    int32_t id = ASK(p, GET_FIELDS("/"));

    (void)state;
    p->refuse_all = true;
    pump(p);
    assert_true(asked_of(p, id)->closed);
    assert_int_equal(asked_of(p, id)->error, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(p->stats.streams_refused, 1);
    p->refuse_all = false;
    (void)ASK(p, GET_FIELDS("/"));
    pump(p);
    assert_true(p->served[0].there);
    peers_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_cookies),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_windows_in),
        cmocka_unit_test(test_windows_unread),
        cmocka_unit_test(test_no_body),
        cmocka_unit_test(test_in_parts),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_head_in_vectors),
        cmocka_unit_test(test_heads_are_compressed),
        cmocka_unit_test(test_pulls),
        cmocka_unit_test(test_frames_in_pieces),
        cmocka_unit_test(test_windows_out),
        cmocka_unit_test(test_urgency),
        cmocka_unit_test(test_incremental),
        cmocka_unit_test(test_priority_update),
        cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_client_resets),
        cmocka_unit_test(test_owner_forgets),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
