/* What broken and hostile clients send, byte by byte: RFC 9113 says what must follow. The end-to-end suite asks the same
 * and more of the whole program. */
#include "http2_peer.h"

#include "util/limits.h"

#include <errno.h>

/* A literal field, never indexed, as it is. */
static size_t literal(uint8_t *to, const char *name, size_t name_n, const char *value, size_t value_n)
{
    uint8_t *at = to;

    assert_true(name_n < 127 && value_n < 127);
    *at++ = 0x10;
    *at++ = (uint8_t)name_n;
    memcpy(at, name, name_n);
    at += name_n;
    *at++ = (uint8_t)value_n;
    memcpy(at, value, value_n);
    return (size_t)(at + value_n - to);
}

struct raw_field {
    const char *name, *value;
    size_t value_n; /* 0: as a C string */
};

#define GET_RAW                                                                                              \
    {":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "audio.test", 0},                         \
    {                                                                                                        \
        ":path", "/", 0                                                                                      \
    }

static void feed_headers(struct peers *p, uint32_t id, uint8_t flags, const struct raw_field *fields,
                         size_t n)
{
    uint8_t block[4096];
    size_t at = 0;

    for (size_t i = 0; i < n; i++)
        at += literal(block + at, fields[i].name, strlen(fields[i].name), fields[i].value,
                      fields[i].value_n > 0 ? fields[i].value_n : strlen(fields[i].value));
    feed_frame(p, HTTP2_HEADERS, flags, id, block, at);
}

#define FEED_HEADERS(p, id, flags, ...)                                                                      \
    do {                                                                                                     \
        const struct raw_field fields_[] = {__VA_ARGS__};                                                    \
        feed_headers((p), (id), (flags), fields_, ARRAY_LEN(fields_));                                       \
    } while (0)

#define END_BOTH (HTTP2_FLAG_END_STREAM | HTTP2_FLAG_END_HEADERS)

/* After the preface and both SETTINGS. The client session only reads what the server says. */
static struct peers *begun(void)
{
    struct peers *p = peers_new(false, NULL, 0);

    pump(p);
    p->raw = true;
    http2_guard_init(&p->walk, 0, p->now_ns);
    return p;
}

static void assert_reset(struct peers *p, uint32_t error, unsigned n)
{
    while (down(p, 65536))
        ;
    assert_int_equal(p->stats.resets_sent, n);
    assert_int_equal(p->goaways_n, 0);
    assert_int_equal(p->feed_error, 0);
    assert_int_equal(p->resets_n, n);
    assert_int_equal(p->resets[n - 1], error);
}

static void assert_goaway(struct peers *p, uint32_t error)
{
    while (down(p, 65536))
        ;
    assert_int_equal(p->goaways_n, 1);
    assert_int_equal(p->goaway_error, error);
    assert_true(http2_is_over(p->server));
    assert_true(http2_was_wronged(p->server));
    assert_int_equal(p->stats.goaways_error, 1);
    peers_free(p);
}

/* Each is a head that must not be served, and none takes the connection with it. */
static void test_malformed_heads(void **state)
{
    static const struct raw_field bad[][8] = {
        {GET_RAW, {"x", "a\r\nevil: 1", 0}},
        {GET_RAW, {"x", "a\nb", 0}},
        {GET_RAW, {"x", "a\0b", 3}},
        {GET_RAW, {"Upper", "case", 0}},
        {GET_RAW, {"with space", "x", 0}},
        {GET_RAW, {"a:b", "x", 0}},
        {GET_RAW, {"", "x", 0}},
        {GET_RAW, {"connection", "close", 0}},
        {GET_RAW, {"keep-alive", "x", 0}},
        {GET_RAW, {"proxy-connection", "x", 0}},
        {GET_RAW, {"transfer-encoding", "chunked", 0}},
        {GET_RAW, {"upgrade", "h2c", 0}},
        {GET_RAW, {"te", "gzip", 0}},
        {GET_RAW, {":path", "/twice", 0}},
        {GET_RAW, {":other", "x", 0}},
        {GET_RAW, {":protocol", "websocket", 0}},
        {GET_RAW, {"content-length", "5", 0}}, /* and no body */
        {GET_RAW, {"content-length", "0", 0}, {"content-length", "0", 0}},
        {GET_RAW, {"content-length", "+0", 0}},
        {GET_RAW, {"x", " space before", 0}},
        {GET_RAW, {"host", "a b", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}},
        {{":method", "GET", 0}, {":authority", "a", 0}, {":path", "/", 0}},
        {{":scheme", "https", 0}, {":authority", "a", 0}, {":path", "/", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":path", "/", 0}}, /* nobody's */
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "a", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "/\r\nx: y", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "/a b", 0}},
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "/ HTTP/1.1", 0}},
        {{":method", "GE T", 0}, {":scheme", "https", 0}, {":authority", "a", 0}, {":path", "/", 0}},
        {{":method", "GET", 0},
         {":scheme", "https", 0},
         {"x", "y", 0},
         {":authority", "a", 0},
         {":path", "/", 0}},
        {{":method", "CONNECT", 0}, {":scheme", "https", 0}, {":authority", "a:1", 0}, {":path", "/", 0}},
    };
    struct peers *p = begun();
    uint32_t id = 1;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++, id += 2) {
        size_t n = 0;

        while (n < 8 && bad[i][n].name != NULL)
            n++;
        feed_headers(p, id, END_BOTH, bad[i], n);
        if (p->served_n > 0)
            print_error("head %zu was served\n", i);
        assert_int_equal(p->served_n, 0);
        assert_reset(p, HTTP2_PROTOCOL_ERROR, (unsigned)i + 1);
    }
    FEED_HEADERS(p, id, END_BOTH, GET_RAW);
    assert_int_equal(p->served_n, 1);
    peers_free(p);
}

/* Those that are answered. */
static void test_refused_heads(void **state)
{
    static const struct {
        struct raw_field path;
        unsigned status;
    } heads[] = {
        {{":path", "/a#b", 0}, 400},
    };
    struct peers *p = begun();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        FEED_HEADERS(p, (uint32_t)i * 2 + 1, END_BOTH, {":method", "GET", 0}, {":scheme", "https", 0},
                     {":authority", "a", 0}, heads[i].path);
        assert_int_equal(p->served_n, i + 1);
        assert_int_equal(p->served[i].refuse, heads[i].status);
    }
    peers_free(p);
}

/* Each bound of a head, just kept and just passed, as 431 or 414 or 501. */
static void test_long_heads(void **state)
{
    static char value[HTTP_REQUEST_HEAD_BYTES_MAX + 100];
    nghttp2_nv fields[HTTP_FIELDS_MAX + 10] = {GET_FIELDS("/")}, *more = fields + 4;
    struct peers *p = peers_new(true, NULL, 0);

    (void)state;
    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < HTTP_FIELDS_MAX; i++)
        more[i] = (nghttp2_nv)NV("a", "b");
    ask_nv(p, fields, 4 + HTTP_FIELDS_MAX - 1); /* host is one */
    ask_nv(p, fields, 4 + HTTP_FIELDS_MAX);
    more[0] = (nghttp2_nv){(uint8_t *)(uintptr_t) "long", (uint8_t *)value, 4, 16000, 0};
    ask_nv(p, fields, 5);
    more[0].valuelen = HTTP_REQUEST_HEAD_BYTES_MAX;
    ask_nv(p, fields, 5);
    fields[3].value = (uint8_t *)value;
    value[0] = '/';
    fields[3].valuelen = HTTP_TARGET_BYTES_MAX;
    ask_nv(p, fields, 4);
    fields[3].valuelen = HTTP_TARGET_BYTES_MAX + 1;
    ask_nv(p, fields, 4);
    fields[0].value = (uint8_t *)value + 1;
    fields[0].valuelen = HTTP_METHOD_BYTES_MAX + 1;
    ask_nv(p, fields, 4);
    pump(p);
    assert_int_equal(p->served_n, 7);
    assert_int_equal(p->served[0].refuse, 0);
    assert_int_equal(p->served[0].parsed.fields.n, HTTP_FIELDS_MAX);
    assert_int_equal(p->served[1].refuse, 431);
    assert_int_equal(p->served[2].refuse, 0);
    assert_int_equal(p->served[3].refuse, 431);
    assert_int_equal(p->served[4].refuse, 0);
    assert_int_equal(p->served[5].refuse, 414);
    assert_int_equal(p->served[6].refuse, 501);
    assert_false(http2_was_wronged(p->server));
    peers_free(p);
}

static void test_many_cookies(void **state)
{
    nghttp2_nv fields[4 + HTTP2_COOKIES_MAX + 10] = {GET_FIELDS("/")};
    struct peers *p = peers_new(true, NULL, 0);

    (void)state;
    for (size_t i = 4; i < ARRAY_LEN(fields); i++)
        fields[i] = (nghttp2_nv)NV("cookie", "a=1");
    ask_nv(p, fields, 4 + HTTP2_COOKIES_MAX);
    ask_nv(p, fields, 4 + HTTP2_COOKIES_MAX + 2);
    pump(p);
    assert_int_equal(p->served[0].refuse, 0);
    assert_int_equal(p->served[0].parsed.fields.n, 2);
    assert_int_equal(p->served[1].refuse, 431);
    peers_free(p);
}

/* One long field in the table, named again and again by one byte each. */
static void test_header_bomb(void **state)
{
    static uint8_t block[16384];
    struct peers *p = begun();
    size_t at = 0, begin;

    (void)state;
    begin = at = literal(block, ":method", 7, "GET", 3);
    at += literal(block + at, ":scheme", 7, "https", 5);
    at += literal(block + at, ":authority", 10, "a", 1);
    at += literal(block + at, ":path", 5, "/", 1);
    (void)begin;
    block[at++] = 0x40; /* with indexing */
    block[at++] = 4;
    memcpy(block + at, "bomb", 4);
    at += 4;
    block[at++] = 0x7f; /* 127 + 0xa1 + 0x1e * 128: 4000 */
    block[at++] = 0xa1;
    block[at++] = 0x1e;
    memset(block + at, 'b', 4000);
    at += 4000;
    memset(block + at, 0xbe, sizeof block - at); /* the newest entry of the table */
    feed_frame(p, HTTP2_HEADERS, END_BOTH, 1, block, sizeof block);
    assert_int_equal(p->served_n, 0);
    assert_int_equal(p->stats.attacks[HTTP2_ATTACK_HEADERS], 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

static void test_continuation_flood(void **state)
{
    struct peers *p = begun();

    (void)state;
    feed_frame(p, HTTP2_HEADERS, HTTP2_FLAG_END_STREAM, 1, "\x82", 1);
    assert_true(http2_is_in_head(p->server));
    for (unsigned i = 0; i <= HTTP2_CONTINUATIONS_MAX; i++)
        feed_frame(p, HTTP2_CONTINUATION, 0, 1, "", 0);
    assert_int_equal(p->stats.attacks[HTTP2_ATTACK_CONTINUATION], 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

/* A block in as many pieces as it may come in. */
static void test_continuations(void **state)
{
    uint8_t block[200];
    struct peers *p = begun();
    size_t n = literal(block, ":method", 7, "GET", 3);

    (void)state;
    n += literal(block + n, ":scheme", 7, "https", 5);
    n += literal(block + n, ":authority", 10, "a", 1);
    n += literal(block + n, ":path", 5, "/", 1);
    feed_frame(p, HTTP2_HEADERS, HTTP2_FLAG_END_STREAM, 1, block, 5);
    for (size_t i = 1; i < HTTP2_CONTINUATIONS_MAX; i++)
        feed_frame(p, HTTP2_CONTINUATION, 0, 1, block + 5 * i, 5);
    assert_int_equal(p->served_n, 0);
    assert_true(http2_is_in_head(p->server));
    feed_frame(p, HTTP2_CONTINUATION, HTTP2_FLAG_END_HEADERS, 1, block + 40, n - 40);
    assert_int_equal(p->served_n, 1);
    assert_false(http2_is_in_head(p->server));
    peers_free(p);
}

static void test_rapid_reset(void **state)
{
    struct peers *p = begun();
    unsigned n = 0;

    (void)state;
    for (uint32_t id = 1; n < STREAMS_MAX - 1 && p->stats.attacks[HTTP2_ATTACK_RESETS] == 0; id += 2, n++) {
        FEED_HEADERS(p, id, END_BOTH, GET_RAW);
        feed_frame(p, HTTP2_RST_STREAM, 0, id, "\0\0\0\x8", 4);
        assert_true(p->served[n].closed);
        forget(p, (int32_t)id, 0);
    }
    assert_int_equal(n, STREAMS_MAX - 1); /* the burst */
    for (int i = 0; i < 3; i++)
        feed_frame(p, HTTP2_RST_STREAM, 0, 1, "\0\0\0\x8", 4);
    assert_int_equal(p->stats.attacks[HTTP2_ATTACK_RESETS], 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

/* Streams that errors of the client's make the server reset, which costs as much. */
static void test_made_resets(void **state)
{
    struct peers *p = begun();
    uint32_t id = 1;

    (void)state;
    while (id < 10000 && p->stats.attacks[HTTP2_ATTACK_RESETS] == 0) {
        FEED_HEADERS(p, id, END_BOTH, {":method", "GET", 0}, {":scheme", "https", 0}); /* no :path */
        down(p, 65536);
        id += 2;
    }
    assert_int_equal((id - 1) / 2, HTTP2_RESETS_BURST + 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

/* For want of a place, which is ours: a sixteenth of that. */
static void test_refusals(void **state)
{
    struct peers *p = begun();
    uint32_t id = 1;

    (void)state;
    p->refuse_all = true;
    while (id < 10000 && p->stats.attacks[HTTP2_ATTACK_RESETS] == 0) {
        FEED_HEADERS(p, id, END_BOTH, GET_RAW);
        down(p, 65536);
        id += 2;
    }
    assert_int_equal((id - 1) / 2, 16 * HTTP2_RESETS_BURST + 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

/* Who asks for answers, not fast, and does not read them. */
static void test_unread(void **state)
{
    struct peers *p = begun();
    unsigned n = 0;

    (void)state;
    while (n < 10000 && p->stats.attacks[HTTP2_ATTACK_UNREAD] == 0 && p->feed_error == 0) {
        feed_frame(p, HTTP2_PING, 0, 0, "12345678", 8);
        p->now_ns += NS_PER_S / 20;
        n++;
    }
    assert_int_equal(n, 500 + 2 * 100 + 2);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

static void test_floods(void **state)
{
    static const struct {
        uint8_t type, flags, n;
        uint32_t id;
        const char *payload;
        enum http2_attack attack;
    } floods[] = {
        {HTTP2_SETTINGS, 0, 0, 0, "", HTTP2_ATTACK_SETTINGS},
        {HTTP2_PING, 0, 8, 0, "12345678", HTTP2_ATTACK_PINGS},
        {HTTP2_PRIORITY, 0, 5, 1, "\0\0\0\0\x10", HTTP2_ATTACK_PRIORITIES},
        {HTTP2_PRIORITY_UPDATE, 0, 7, 0, "\0\0\0\1u=1", HTTP2_ATTACK_PRIORITIES},
        {HTTP2_WINDOW_UPDATE, 0, 4, 0, "\0\0\0\1", HTTP2_ATTACK_WINDOW_UPDATES},
        {HTTP2_DATA, 0, 0, 1, "", HTTP2_ATTACK_EMPTY_FRAMES},
        {0x77, 0, 3, 1, "abc", HTTP2_ATTACK_UNKNOWN_FRAMES},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(floods); i++) {
        struct peers *p = begun();
        unsigned n = 0;

        FEED_HEADERS(p, 1, HTTP2_FLAG_END_HEADERS, {":method", "POST", 0}, {":scheme", "https", 0},
                     {":authority", "a", 0}, {":path", "/", 0});
        while (n < 10000 && p->stats.attacks[floods[i].attack] == 0) {
            feed_frame(p, floods[i].type, floods[i].flags, floods[i].id, floods[i].payload, floods[i].n);
            while (down(p, 65536))
                ;
            n++;
        }
        assert_in_range(n, 20, HTTP2_WINDOW_UPDATES_BURST + 5);
        assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
    }
}

/* What nghttp2 does not remember: streams that are gone. */
static void test_gone_streams(void **state)
{
    struct peers *p = begun();

    (void)state;
    FEED_HEADERS(p, 5, END_BOTH, GET_RAW);
    FEED_HEADERS(p, 3, END_BOTH, GET_RAW); /* ids only go up */
    assert_int_equal(p->served_n, 1);
    assert_goaway(p, HTTP2_PROTOCOL_ERROR);

    for (int data = 0; data < 2; data++) {
        p = begun();
        FEED_HEADERS(p, 1, END_BOTH, GET_RAW);
        answer(p, 1, OK_HEAD, "x", 1);
        while (down(p, 65536))
            ;
        assert_true(p->served[0].closed);
        if (data)
            feed_frame(p, HTTP2_DATA, 0, 1, "x", 1);
        else
            FEED_HEADERS(p, 1, END_BOTH, GET_RAW);
        assert_goaway(p, HTTP2_STREAM_CLOSED);
    }

    p = begun(); /* it reset the stream itself */
    FEED_HEADERS(p, 1, HTTP2_FLAG_END_HEADERS, GET_RAW);
    feed_frame(p, HTTP2_RST_STREAM, 0, 1, "\0\0\0\x8", 4);
    feed_frame(p, HTTP2_DATA, 0, 1, "x", 1);
    assert_goaway(p, HTTP2_STREAM_CLOSED);

    p = begun();
    feed_frame(p, HTTP2_PRIORITY_UPDATE, 0, 0, "\0\0\0\0u=1", 7);
    assert_goaway(p, HTTP2_PROTOCOL_ERROR);

    p = begun();
    feed_frame(p, HTTP2_PRIORITY, 0, 0, "\0\0\0\0\x10", 5);
    assert_goaway(p, HTTP2_PROTOCOL_ERROR);
}

/* What is on its way for a stream that we have reset is no error, and costs nobody's window. */
static void test_late_frames(void **state)
{
    static char bytes[16000];
    struct peers *p = begun();

    (void)state;
    FEED_HEADERS(p, 1, HTTP2_FLAG_END_HEADERS, GET_RAW);
    forget(p, 1, 0);
    feed_frame(p, HTTP2_DATA, 0, 1, bytes, sizeof bytes); /* before RST_STREAM is framed */
    while (down(p, 65536))
        ;
    for (int i = 0; i < 20; i++) {
        feed_frame(p, HTTP2_DATA, 0, 1, bytes, sizeof bytes);
        down(p, 65536);
    }
    feed_frame(p, HTTP2_WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4);
    feed_frame(p, HTTP2_RST_STREAM, 0, 1, "\0\0\0\x8", 4);
    FEED_HEADERS(p, 1, END_BOTH, {"trailer", "x", 0});
    FEED_HEADERS(p, 3, END_BOTH, GET_RAW);
    assert_int_equal(p->served_n, 2);
    assert_false(http2_was_wronged(p->server));
    peers_free(p);
}

static void test_trailers(void **state)
{
    struct peers *p = begun();

    (void)state;
    FEED_HEADERS(p, 1, HTTP2_FLAG_END_HEADERS, GET_RAW);
    feed_frame(p, HTTP2_DATA, 0, 1, "body", 4);
    FEED_HEADERS(p, 1, END_BOTH, {"trailer", "x", 0});
    assert_true(p->served[0].body_ended);
    assert_str(str_of(p->served[0].body, p->served[0].body_n), "body");
    assert_false(http2_is_in_head(p->server));
    FEED_HEADERS(p, 3, HTTP2_FLAG_END_HEADERS, GET_RAW);
    FEED_HEADERS(p, 3, HTTP2_FLAG_END_HEADERS, {"trailer", "x", 0}); /* without an end */
    assert_reset(p, HTTP2_PROTOCOL_ERROR, 1);
    assert_true(p->served[1].closed);
    peers_free(p);
}

/* What nghttp2 takes and RFC 9113 does not (4.2, 6.9.2). */
static void test_sizes(void **state)
{
    static const char bytes[16385];
    struct peers *p = begun();

    (void)state;
    feed_frame(p, HTTP2_HEADERS, HTTP2_FLAG_END_STREAM, 1, "\x82", 1);
    feed_frame(p, HTTP2_CONTINUATION, HTTP2_FLAG_END_HEADERS, 1, bytes, sizeof bytes);
    assert_goaway(p, HTTP2_FRAME_SIZE_ERROR);
    p = begun();
    FEED_HEADERS(p, 1, END_BOTH, GET_RAW);
    feed_frame(p, HTTP2_WINDOW_UPDATE, 0, 1, "\x7f\xff\0\0", 4);
    feed_frame(p, HTTP2_SETTINGS, 0, 0, "\0\4\0\1\0\0", 6);
    assert_goaway(p, HTTP2_FLOW_CONTROL_ERROR);
    p = begun();
    feed_frame(p, HTTP2_SETTINGS, 0, 0, bytes, 6 * HTTP2_SETTINGS_ENTRIES_MAX);
    assert_int_equal(p->stats.attacks[HTTP2_ATTACK_SETTINGS], 0);
    feed_frame(p, HTTP2_SETTINGS, 0, 0, bytes, 6 * HTTP2_SETTINGS_ENTRIES_MAX + 6);
    assert_int_equal(p->stats.attacks[HTTP2_ATTACK_SETTINGS], 1);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

static void test_broken(void **state)
{
    struct peers *p = peers_new(false, NULL, 0);

    (void)state;
    feed_raw(p, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    assert_int_equal(p->feed_error, -EPROTO);
    peers_free(p);
    p = peers_new(false, NULL, 0);
    p->raw = true;
    feed_raw(p, HTTP2_PREFACE, HTTP2_PREFACE_BYTES);
    feed_frame(p, HTTP2_PING, 0, 0, "12345678", 8); /* SETTINGS comes first */
    assert_goaway(p, HTTP2_PROTOCOL_ERROR);
    p = begun();
    FEED_HEADERS(p, 1, END_BOTH, GET_RAW);
    http2_terminate(p->server, HTTP2_ENHANCE_YOUR_CALM);
    assert_goaway(p, HTTP2_ENHANCE_YOUR_CALM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_heads), cmocka_unit_test(test_refused_heads),
        cmocka_unit_test(test_long_heads),      cmocka_unit_test(test_many_cookies),
        cmocka_unit_test(test_header_bomb),     cmocka_unit_test(test_continuation_flood),
        cmocka_unit_test(test_continuations),   cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_made_resets),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unread),          cmocka_unit_test(test_floods),
        cmocka_unit_test(test_gone_streams),    cmocka_unit_test(test_late_frames),
        cmocka_unit_test(test_trailers),        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
