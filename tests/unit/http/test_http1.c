#include "http/http1.h"

#include "../unit.h"

static int parse(struct str head, struct http1_request *r)
{
    char *copy = exact_copy(head.p, head.n);
    int n = http1_parse_request(copy, head.n, r);

    free(copy);
    return n;
}

#define REQUEST(lines) STR("GET /a HTTP/1.1\r\nHost: a.example\r\n" lines "\r\n")

static const struct {
    struct str head;
    int error;
} refused[] = {
    {STR_INIT("\r\n\r\nGET / HTTP/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("\nGET / HTTP/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("\rGET / HTTP/1.1\r\n"), HTTP1_BAD_LINE_END},
    {STR_INIT("\x16\x03\x01\x02"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT(" GET / HTTP/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET\r\n\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET /\r\n\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET  / HTTP/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET /  HTTP/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP/1.1 \r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP/1.11\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP/1.1\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP/1.1\r\r\n"), HTTP1_BAD_LINE_END},
    {STR_INIT("GET / http/1.1\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP\r\n\r\n"), HTTP1_BAD_REQUEST_LINE},
    {STR_INIT("GET / HTTP/2.0\r\n"), HTTP1_VERSION},
    {STR_INIT("GET / HTTP/0.9\r\n"), HTTP1_VERSION},
    {STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), HTTP1_VERSION},
    {STR_INIT("GET /a\tb HTTP/1.1\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET /a\0b HTTP/1.1\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET /a#b HTTP/1.1\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET /a\x7f HTTP/1.1\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET},
    {STR_INIT("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_HOST_DISAGREES},
    {STR_INIT("GET http://a:81/x HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_HOST_DISAGREES},
    {STR_INIT("GET / HTTP/1.1\r\n\r\n"), HTTP1_HOST_MISSING},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), HTTP1_HOST_REPEATED},
    {STR_INIT("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), HTTP1_HOST_REPEATED},
    {STR_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), HTTP1_HOST_INVALID},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), HTTP1_HOST_INVALID},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), HTTP1_HOST_INVALID},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"), HTTP1_HOST_INVALID},
    {STR_INIT("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), HTTP1_OBS_FOLD},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"), HTTP1_OBS_FOLD},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"), HTTP1_OBS_FOLD},
    {STR_INIT("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), HTTP1_SPACE_BEFORE_COLON},
    {STR_INIT("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"), HTTP1_SPACE_BEFORE_COLON},
    {STR_INIT("GET / HTTP/1.1\r\n: a\r\n\r\n"), HTTP1_BAD_FIELD_NAME},
    {STR_INIT("GET / HTTP/1.1\r\nHost\r\n\r\n"), HTTP1_BAD_FIELD_NAME},
    {STR_INIT("GET / HTTP/1.1\r\nX\0: a\r\n\r\n"), HTTP1_BAD_FIELD_NAME},
    {STR_INIT("GET / HTTP/1.1\r\nX(: a\r\n\r\n"), HTTP1_BAD_FIELD_NAME},
    {STR_INIT("GET / HTTP/1.1\r\nX\xc3\xa9: a\r\n\r\n"), HTTP1_BAD_FIELD_NAME},
    {STR_INIT("GET / HTTP/1.1\r\nX: a\nY: b\r\n\r\n"), HTTP1_BAD_LINE_END},
    {STR_INIT("GET / HTTP/1.1\r\nX: a\rY: b\r\n\r\n"), HTTP1_BAD_LINE_END},
    {STR_INIT("GET / HTTP/1.1\r\nX: a\r\n\n"), HTTP1_BAD_LINE_END},
    {STR_INIT("GET / HTTP/1.1\r\nX: a\r\n\rZ"), HTTP1_BAD_LINE_END},
    {STR_INIT("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n"), HTTP1_BAD_FIELD_VALUE},
    {STR_INIT("GET / HTTP/1.1\r\nX: 0123456789abcdef\x01\r\n\r\n"), HTTP1_BAD_FIELD_VALUE},
    {STR_INIT("GET / HTTP/1.1\r\nX: 0123456789abcdef0123456789\x7f\r\n\r\n"), HTTP1_BAD_FIELD_VALUE},
};

static const struct {
    struct str head;
    int error;
} refused_framing[] = {
    {REQUEST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), HTTP1_LENGTH_AND_ENCODING},
    {REQUEST("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), HTTP1_LENGTH_AND_ENCODING},
    {REQUEST("Content-Length: 5\r\nContent-Length: 5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 5\r\nContent-Length: 6\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 5, 5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: +5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: -5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 0x5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length:\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 5 5\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 9223372036854775808\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Content-Length: 18446744073709551616\r\n"), HTTP1_BAD_CONTENT_LENGTH},
    {REQUEST("Transfer-Encoding: gzip, chunked\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {REQUEST("Transfer-Encoding: chunked, identity\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {REQUEST("Transfer-Encoding: identity\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {REQUEST("Transfer-Encoding: xchunked\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {REQUEST("Transfer-Encoding: \"chunked\"\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {REQUEST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    {STR_INIT("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
};

/* The error comes with the byte that shows it, and stays the same however much follows. */
static void refused_at_every_split(struct str head, int error)
{
    struct http1_request r;
    bool told = false;

    assert_int_equal(parse(head, &r), -error);
    for (size_t n = 0; n <= head.n; n++) {
        int result = parse(str_of(head.p, n), &r);

        assert_true(result == 0 || result == -error);
        assert_true(!told || result != 0);
        told = result != 0;
    }
}

static void every_refusal(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        refused_at_every_split(refused[i].head, refused[i].error);
    for (size_t i = 0; i < ARRAY_LEN(refused_framing); i++)
        refused_at_every_split(refused_framing[i].head, refused_framing[i].error);
    for (int e = 1; e < HTTP1_ERROR_COUNT; e++) {
        assert_in_range(http1_error_status(-e), 400, 505);
        assert_true(strlen(http1_error_reason(-e)) > 3);
    }
    assert_int_equal(http1_error_status(-HTTP1_TARGET_TOO_LONG), 414);
    assert_int_equal(http1_error_status(-HTTP1_HEAD_TOO_LONG), 431);
    assert_int_equal(http1_error_status(-HTTP1_FIELDS_TOO_MANY), 431);
    assert_int_equal(http1_error_status(-HTTP1_VERSION), 505);
    assert_int_equal(http1_error_status(-HTTP1_METHOD_TOO_LONG), 501);
}

static const char player[] = "GET /tracks/3n3Ppam7/320/7.ogg?exp=1790003600&sig=x HTTP/1.1\r\n"
                             "Host: audio.example.net:8080\r\n"
                             "User-Agent: player/1.0 (X11; Linux)\r\n"
                             "Accept: */*\r\n"
                             "Range:bytes=0-  \r\n"
                             "X-Empty:\r\n"
                             "X-Odd: \t a \x80\xff\tb \t\r\n"
                             "accept: audio/ogg\r\n"
                             "\r\n";

static void request_in_parts(void **state)
{
    const size_t head_n = sizeof player - 1;
    struct http1_request r;
    size_t scanned = 0;

    (void)state;
    for (size_t n = 0; n < head_n; n++) {
        assert_int_equal(parse(str_of(player, n), &r), 0);
        assert_false(http1_head_ready(player, n, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    }
    assert_true(http1_head_ready(player, head_n, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    assert_int_equal(parse(str_of(player, head_n), &r), head_n);

    char *elsewhere = exact_copy(player, head_n);
    assert_int_equal(r.method, HTTP_GET);
    assert_int_equal(r.target_form, HTTP_TARGET_ORIGIN);
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive);
    assert_false(r.expect_continue);
    assert_int_equal(r.framing, HTTP_BODY_NONE);
    assert_int_equal(r.content_length, 0);
    assert_str(http1_method(&r, elsewhere), "GET");
    assert_str(http1_target(&r, elsewhere), "/tracks/3n3Ppam7/320/7.ogg?exp=1790003600&sig=x");
    assert_str(http1_host(&r, elsewhere), "audio.example.net:8080");
    assert_int_equal(r.fields.n, 7);
    assert_str(fields_get(&r.fields, elsewhere, FIELD_RANGE), "bytes=0-");
    assert_str(fields_get(&r.fields, elsewhere, FIELD_ACCEPT), "*/*");
    assert_int_equal(fields_count(&r.fields, FIELD_ACCEPT), 2);
    assert_str(field_name(&r.fields, elsewhere, 5), "X-Odd");
    assert_str(field_value(&r.fields, elsewhere, 5), "a \x80\xff\tb");
    assert_str(field_value(&r.fields, elsewhere, 4), "");
    assert_null(fields_get(&r.fields, elsewhere, FIELD_COOKIE).p);
    free(elsewhere);
}

static void pipelined(void **state)
{
    const struct str two = STR("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n");
    struct http1_request r;
    int n;

    (void)state;
    n = parse(two, &r);
    assert_int_equal(n, 28);
    assert_int_equal(parse(str_skip(two, 28), &r), 28);
    assert_str(http1_target(&r, two.p + 28), "/2");
}

static void parsed(struct str head, struct http1_request *r)
{
    assert_int_equal(parse(head, r), head.n);
}

static void forms_of_target(void **state)
{
    struct http1_request r;
    struct str head;

    (void)state;
    head = STR("GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.Example\r\n\r\n");
    parsed(head, &r);
    assert_int_equal(r.target_form, HTTP_TARGET_ABSOLUTE);
    assert_str(http1_target(&r, head.p), "/x?y");
    assert_str(http1_host(&r, head.p), "A.example:80");
    head = STR("GET HTTPS://a HTTP/1.1\r\nHost: a:443\r\n\r\n");
    parsed(head, &r);
    assert_str(http1_target(&r, head.p), "/");
    assert_str(http1_host(&r, head.p), "a");
    head = STR("GET http://a/ HTTP/1.0\r\n\r\n");
    parsed(head, &r);
    assert_str(http1_host(&r, head.p), "a");
    head = STR("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    parsed(head, &r);
    assert_int_equal(r.target_form, HTTP_TARGET_ASTERISK);
    head = STR("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    parsed(head, &r);
    assert_int_equal(r.target_form, HTTP_TARGET_AUTHORITY);
    assert_int_equal(r.method, HTTP_CONNECT);
    head = STR("GET / HTTP/1.0\r\n\r\n");
    parsed(head, &r);
    assert_int_equal(r.host_n, 0);
    head = STR("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    parsed(head, &r);
    assert_str(http1_method(&r, head.p), "GET");
    head = STR("BREW / HTTP/1.9\r\nHost: [2001:db8::1]:80\r\n\r\n");
    parsed(head, &r);
    assert_int_equal(r.method, HTTP_METHOD_OTHER);
    assert_str(http1_method(&r, head.p), "BREW");
    assert_int_equal(r.minor, 1);
}

static bool keeps_alive(struct str head)
{
    struct http1_request r;

    parsed(head, &r);
    return r.keep_alive;
}

static void connection_and_framing(void **state)
{
    struct http1_request r;

    (void)state;
    assert_true(keeps_alive(REQUEST("")));
    assert_true(keeps_alive(REQUEST("Connection: Upgrade\r\n")));
    assert_false(keeps_alive(REQUEST("Connection: x, Close\r\n")));
    assert_false(keeps_alive(REQUEST("Connection: keep-alive\r\nConnection: close\r\n")));
    assert_false(keeps_alive(STR("GET / HTTP/1.0\r\n\r\n")));
    assert_true(keeps_alive(STR("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")));
    assert_false(keeps_alive(STR("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n")));

    parsed(REQUEST("Content-Length: 9223372036854775807\r\n"), &r);
    assert_int_equal(r.framing, HTTP_BODY_LENGTH);
    assert_true(r.content_length == INT64_MAX);
    parsed(REQUEST("Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n"), &r);
    assert_int_equal(r.framing, HTTP_BODY_CHUNKED);
    assert_true(r.expect_continue);
    parsed(STR("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), &r);
    assert_false(r.expect_continue); /* a 1.0 client would not know 100 (RFC 9110, 10.1.1) */
}

/* A request of exactly so many bytes, whose last field is padded. */
static char *request_of(size_t n)
{
    static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    char *p = malloc(n);

    assert_non_null(p);
    memset(p, 'x', n);
    memcpy(p, start, sizeof start - 1);
    memcpy(p + n - 4, "\r\n\r\n", 4);
    return p;
}

static void limit_of_head(void **state)
{
    struct http1_request r;
    size_t scanned = 0;
    char *p = request_of(HTTP_REQUEST_HEAD_BYTES_MAX);

    (void)state;
    assert_int_equal(http1_parse_request(p, HTTP_REQUEST_HEAD_BYTES_MAX, &r), HTTP_REQUEST_HEAD_BYTES_MAX);
    assert_int_equal(http1_parse_request(p, HTTP_REQUEST_HEAD_BYTES_MAX - 1, &r), 0);
    free(p);
    p = request_of(HTTP_REQUEST_HEAD_BYTES_MAX + 1);
    assert_int_equal(http1_parse_request(p, HTTP_REQUEST_HEAD_BYTES_MAX - 1, &r), 0);
    assert_false(http1_head_ready(p, HTTP_REQUEST_HEAD_BYTES_MAX - 1, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    assert_true(http1_head_ready(p, HTTP_REQUEST_HEAD_BYTES_MAX, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    assert_int_equal(http1_parse_request(p, HTTP_REQUEST_HEAD_BYTES_MAX, &r), -HTTP1_HEAD_TOO_LONG);
    assert_int_equal(http1_parse_request(p, HTTP_REQUEST_HEAD_BYTES_MAX + 1, &r), -HTTP1_HEAD_TOO_LONG);
    free(p);
}

static void limit_of_target_and_method(void **state)
{
    static char head[HTTP_REQUEST_HEAD_BYTES_MAX];
    struct http1_request r;

    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        size_t n = HTTP_TARGET_BYTES_MAX + extra;
        size_t total = 4 + n + strlen(" HTTP/1.1\r\nHost: a\r\n\r\n");

        memset(head, 'x', sizeof head);
        memcpy(head, "GET /", 5);
        memcpy(head + 4 + n, " HTTP/1.1\r\nHost: a\r\n\r\n", total - 4 - n);
        assert_int_equal(http1_parse_request(head, total, &r), extra ? -HTTP1_TARGET_TOO_LONG : (int)total);
        /* Told without waiting for the line's end. */
        assert_int_equal(http1_parse_request(head, 4 + n, &r), extra ? -HTTP1_TARGET_TOO_LONG : 0);
    }
    for (size_t extra = 0; extra < 2; extra++) {
        size_t n = HTTP_METHOD_BYTES_MAX + extra;

        memset(head, 'M', n);
        memcpy(head + n, " / HTTP/1.1\r\nHost: a\r\n\r\n", 25);
        assert_int_equal(http1_parse_request(head, n + 25, &r), extra ? -HTTP1_METHOD_TOO_LONG : (int)n + 24);
        assert_int_equal(http1_parse_request(head, n, &r), extra ? -HTTP1_METHOD_TOO_LONG : 0);
    }
}

static void limit_of_fields(void **state)
{
    char head[2048];
    struct http1_request r;

    (void)state;
    for (unsigned n = HTTP_FIELDS_MAX; n <= HTTP_FIELDS_MAX + 1; n++) {
        struct buf b = buf_of(head, sizeof head);

        buf_add_lit(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (unsigned i = 1; i < n; i++)
            http1_add_field(&b, STR("X"), STR("y"));
        http1_add_head_end(&b);
        assert_int_equal(parse(buf_str(&b), &r), n > HTTP_FIELDS_MAX ? -HTTP1_FIELDS_TOO_MANY : (int)b.n);
    }
    for (unsigned n = HTTP_CONNECTION_MEMBERS_MAX; n <= HTTP_CONNECTION_MEMBERS_MAX + 1; n++) {
        struct buf b = buf_of(head, sizeof head);

        buf_add_lit(&b, "GET / HTTP/1.1\r\nHost: a\r\nConnection: ");
        for (unsigned i = 0; i < n; i++)
            buf_add_lit(&b, "x,");
        buf_add_lit(&b, "\r\n\r\n");
        assert_int_equal(parse(buf_str(&b), &r),
                         n > HTTP_CONNECTION_MEMBERS_MAX ? -HTTP1_BAD_CONNECTION : (int)b.n);
    }
}

static void bare_lf_is_not_waited_for(void **state)
{
    static const char head[] = "GET / HTTP/1.1\nHost: a\n\n";
    struct http1_request r;
    size_t scanned = 0;

    (void)state;
    assert_int_equal(http1_parse_request(head, 14, &r), 0);
    assert_false(http1_head_ready(head, 14, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    assert_true(http1_head_ready(head, 15, HTTP_REQUEST_HEAD_BYTES_MAX, &scanned));
    assert_true(http1_parse_request(head, 15, &r) < 0);
}

static int respond(struct str head, bool to_head, struct http1_response *r)
{
    char *copy = exact_copy(head.p, head.n);
    int n = http1_parse_response(copy, head.n, to_head, r);

    for (size_t i = 0; i < head.n; i++) {
        struct http1_response part;
        int got = http1_parse_response(copy, i, to_head, &part);

        assert_true(got == 0 || (got < 0 && got == n));
    }
    free(copy);
    return n;
}

static void framed(struct str head, bool to_head, enum http_framing framing, bool keep_alive)
{
    struct http1_response r;

    assert_int_equal(respond(head, to_head, &r), head.n);
    assert_int_equal(r.framing, framing);
    assert_int_equal(r.keep_alive, keep_alive);
}

static void responses(void **state)
{
    struct http1_response r;
    struct str head = STR("HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nETag: \"x\"\r\n\r\n");

    (void)state;
    assert_int_equal(respond(head, false, &r), head.n);
    assert_int_equal(r.status, 206);
    assert_str(str_of(head.p + r.reason_off, r.reason_n), "Partial Content");
    assert_int_equal(r.content_length, 12);
    assert_str(fields_get(&r.fields, head.p, FIELD_ETAG), "\"x\"");

    framed(head, false, HTTP_BODY_LENGTH, true);
    framed(head, true, HTTP_BODY_NONE, true);
    framed(STR("HTTP/1.1 200 \r\n\r\n"), false, HTTP_BODY_CLOSE, false);
    framed(STR("HTTP/1.1 200\r\n\r\n"), false, HTTP_BODY_CLOSE, false);
    framed(STR("HTTP/1.1 200 OK\r\n\r\n"), true, HTTP_BODY_NONE, true);
    framed(STR("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), false, HTTP_BODY_LENGTH, false);
    framed(STR("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"), false,
           HTTP_BODY_LENGTH, true);
    framed(STR("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"), false,
           HTTP_BODY_CHUNKED, false);
    framed(STR("HTTP/1.1 204 No Content\r\n\r\n"), false, HTTP_BODY_NONE, true);
    framed(STR("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"), false, HTTP_BODY_NONE, true);
    framed(STR("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), false, HTTP_BODY_NONE, true);
    assert_int_equal(respond(STR("HTTP/1.1 304 X\r\nContent-Length: 99\r\n\r\n"), false, &r), 40 - 2);
    assert_true(r.has_content_length);
    assert_int_equal(r.content_length, 99);
}

static void responses_refused(void **state)
{
    static const struct {
        struct str head;
        int error;
    } bad[] = {
        {STR_INIT("HTTP/1.1 099 X\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1 600 X\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1 20 OK\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1 2000 OK\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1  200 OK\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/2.0 200 OK\r\n\r\n"), HTTP1_VERSION},
        {STR_INIT("<html>"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1 200 O\0K\r\n\r\n"), HTTP1_BAD_STATUS_LINE},
        {STR_INIT("HTTP/1.1 200 OK\n\n"), HTTP1_BAD_LINE_END},
        {STR_INIT("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), HTTP1_OBS_FOLD},
        {STR_INIT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
         HTTP1_LENGTH_AND_ENCODING},
        {STR_INIT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
         HTTP1_BAD_CONTENT_LENGTH},
        {STR_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), HTTP1_BAD_TRANSFER_ENCODING},
    };
    struct http1_response r;
    char *large = malloc(HTTP_RESPONSE_HEAD_BYTES_MAX + 1);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(respond(bad[i].head, false, &r), -bad[i].error);
    for (size_t n = HTTP_RESPONSE_HEAD_BYTES_MAX; n <= HTTP_RESPONSE_HEAD_BYTES_MAX + 1; n++) {
        memset(large, 'x', n);
        memcpy(large, "HTTP/1.1 200 OK\r\nX: ", 20);
        memcpy(large + n - 4, "\r\n\r\n", 4);
        assert_int_equal(http1_parse_response(large, n, false, &r),
                         n > HTTP_RESPONSE_HEAD_BYTES_MAX ? -HTTP1_HEAD_TOO_LONG : (int)n);
    }
    free(large);
}

static void writes_what_it_reads(void **state)
{
    char bytes[256];
    struct buf b = buf_of(bytes, sizeof bytes);
    struct http1_request r;
    struct http1_response response;

    (void)state;
    http1_add_request_line(&b, STR("HEAD"), STR("/x"));
    http1_add_field(&b, STR("Host"), STR("a"));
    http1_add_field_u64(&b, STR("Age"), 17);
    http1_add_head_end(&b);
    assert_str(buf_str(&b), "HEAD /x HTTP/1.1\r\nHost: a\r\nAge: 17\r\n\r\n");
    parsed(buf_str(&b), &r);
    assert_int_equal(r.method, HTTP_HEAD);

    b.n = 0;
    http1_add_status_line(&b, 431);
    http1_add_head_end(&b);
    assert_str(buf_str(&b), "HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n");
    assert_int_equal(respond(buf_str(&b), false, &response), b.n);
    b.n = 0;
    http1_add_status_line(&b, 299);
    assert_str(buf_str(&b), "HTTP/1.1 299 \r\n");
    for (int m = 0; m < HTTP_METHOD_OTHER; m++)
        assert_int_equal(http_method_of(http_method_name((enum http_method)m)), m);
    assert_int_equal(http_method_of(STR("get")), HTTP_METHOD_OTHER);
    assert_true(http_method_is_safe(HTTP_HEAD));
    assert_false(http_method_is_safe(HTTP_METHOD_OTHER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_refusal),
        cmocka_unit_test(request_in_parts),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(forms_of_target),
        cmocka_unit_test(connection_and_framing),
        cmocka_unit_test(limit_of_head),
        cmocka_unit_test(limit_of_target_and_method),
        cmocka_unit_test(limit_of_fields),
        cmocka_unit_test(bare_lf_is_not_waited_for),
        cmocka_unit_test(responses),
        cmocka_unit_test(responses_refused),
        cmocka_unit_test(writes_what_it_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
