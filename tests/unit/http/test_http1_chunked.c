#include "http/http1.h"

#include "../unit.h"

/* Decodes in pieces of `step` bytes; returns the result, the body in out, and what was taken of the input. */
static int decode(struct str in, size_t step, struct buf *out, size_t *taken)
{
    struct http1_chunked c;

    http1_chunked_init(&c);
    *taken = 0;
    while (*taken < in.n) {
        size_t n = in.n - *taken < step ? in.n - *taken : step;
        char *copy = exact_copy(in.p + *taken, n);
        struct str piece = str_of(copy, n), body;
        int r;

        while ((r = http1_chunked_next(&c, &piece, &body)) == HTTP1_CHUNKED_BODY) {
            assert_true(body.n > 0 && body.p >= copy && body.p + body.n <= copy + n);
            buf_add_str(out, body);
        }
        *taken += n - piece.n;
        free(copy);
        if (r != HTTP1_CHUNKED_MORE) {
            struct str more = STR("0\r\n\r\n");

            assert_true(http1_chunked_next(&c, &more, &body) ==
                        (r < 0 ? -HTTP1_BAD_CHUNK : HTTP1_CHUNKED_DONE));
            return r;
        }
    }
    return HTTP1_CHUNKED_MORE;
}

static void decodes_to(struct str in, int result, struct str body, size_t expected)
{
    for (size_t step = 1; step <= in.n; step++) {
        char bytes[256];
        struct buf out = buf_of(bytes, sizeof bytes);
        size_t taken;

        assert_int_equal(decode(in, step, &out, &taken), result);
        assert_true(str_eq(buf_str(&out), body));
        if (result >= 0)
            assert_int_equal(taken, expected);
    }
}

static void good(void **state)
{
    (void)state;
    decodes_to(STR("5\r\nhello\r\n0\r\n\r\n"), HTTP1_CHUNKED_DONE, STR("hello"), 15);
    decodes_to(STR("0\r\n\r\nGET /"), HTTP1_CHUNKED_DONE, STR(""), 5);
    decodes_to(STR("00a\r\n0123456789\r\n1\r\nX\r\n000\r\n\r\n"), HTTP1_CHUNKED_DONE, STR("0123456789X"), 30);
    decodes_to(STR("A;x\r\n0123456789\r\n0;a=\"b;c\" \t;d\r\n\r\n"), HTTP1_CHUNKED_DONE, STR("0123456789"),
               34);
    decodes_to(STR("1 ;x\r\nX\r\n0\t;y\r\n\r\n"), HTTP1_CHUNKED_DONE, STR("X"), 17);
    decodes_to(STR("1\r\nX\r\n0\r\nDigest: a\r\nX-Y:\r\n\r\n!"), HTTP1_CHUNKED_DONE, STR("X"), 28);
    decodes_to(STR("5\r\nhel"), HTTP1_CHUNKED_MORE, STR("hel"), 6);
    decodes_to(STR("3\r\n\r\n0\r\n0\r\n\r\n"), HTTP1_CHUNKED_DONE, STR("\r\n0"), 13);
}

static void bad(void **state)
{
    (void)state;
    decodes_to(STR("\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("x\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("-1\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("+1\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("0x1\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR(" 1\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1 \r\nX\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1 1\r\nX\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR(";x\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1\nX\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1\r\r\nX"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1;x\nX\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1;\0\r\nX\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("1\r\nXY\r\n"), -HTTP1_BAD_CHUNK, STR("X"), 0);
    decodes_to(STR("1\r\nX\n0\r\n\r\n"), -HTTP1_BAD_CHUNK, STR("X"), 0);
    decodes_to(STR("1\r\nX\r0\r\n\r\n"), -HTTP1_BAD_CHUNK, STR("X"), 0);
    decodes_to(STR("8000000000000000\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("ffffffffffffffffff\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("10000000000000001\r\n"), -HTTP1_BAD_CHUNK, STR(""), 0);
    decodes_to(STR("0\r\n\n"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\n\rX"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\n x: y\r\n"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\nx y: z\r\n"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\nx: z\n"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\nx: z\ry"), -HTTP1_BAD_TRAILER, STR(""), 0);
    decodes_to(STR("0\r\nx: \0\r\n"), -HTTP1_BAD_TRAILER, STR(""), 0);
}

static void largest_size(void **state)
{
    struct http1_chunked c;
    struct str in = STR("7fffffffffffffff\r\nab"), body;

    (void)state;
    http1_chunked_init(&c);
    assert_int_equal(http1_chunked_next(&c, &in, &body), HTTP1_CHUNKED_BODY);
    assert_str(body, "ab");
    assert_true(c.left == INT64_MAX - 2);
}

static void limits(void **state)
{
    static char in[HTTP_TRAILER_BYTES_MAX + 64];
    char none[1];
    struct buf out = buf_of(none, 0);
    size_t taken;

    (void)state;
    for (unsigned extra = 0; extra < 2; extra++) { /* a size line, its CR included */
        size_t n = HTTP_CHUNK_LINE_BYTES_MAX + extra;

        memset(in, 'x', n);
        memcpy(in, "0;", 2);
        memcpy(in + n - 1, "\r\n\r\n", 4);
        assert_int_equal(decode(str_of(in, n + 3), 7, &out, &taken),
                         extra ? -HTTP1_BAD_CHUNK : HTTP1_CHUNKED_DONE);
        memset(in, '0', n - 1);
        assert_int_equal(decode(str_of(in, n + 3), 7, &out, &taken),
                         extra ? -HTTP1_BAD_CHUNK : HTTP1_CHUNKED_DONE);
    }
    for (unsigned extra = 0; extra < 2; extra++) { /* all trailer lines, up to the CR that ends them */
        size_t n = 3 + HTTP_TRAILER_BYTES_MAX + extra;

        memset(in, 'x', n);
        memcpy(in, "0\r\na:", 5);
        memcpy(in + 20, "\r\nb:", 4);
        memcpy(in + n - 3, "\r\n\r\n", 4);
        assert_int_equal(decode(str_of(in, n + 1), 7, &out, &taken),
                         extra ? -HTTP1_TRAILER_TOO_LONG : HTTP1_CHUNKED_DONE);
    }
}

static void writes_what_it_reads(void **state)
{
    char bytes[64];
    struct buf b = buf_of(bytes, sizeof bytes);

    (void)state;
    http1_add_chunk_head(&b, 26);
    buf_add_lit(&b, "abcdefghijklmnopqrstuvwxyz" HTTP1_CHUNK_END HTTP1_CHUNKED_END);
    decodes_to(buf_str(&b), HTTP1_CHUNKED_DONE, STR("abcdefghijklmnopqrstuvwxyz"), b.n);
    b.n = 0;
    http1_add_chunk_head(&b, UINT64_MAX);
    assert_str(buf_str(&b), "ffffffffffffffff\r\n");
    assert_int_equal(b.n, HTTP1_CHUNK_HEAD_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(bad),
        cmocka_unit_test(limits),
        cmocka_unit_test(largest_size),
        cmocka_unit_test(writes_what_it_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
