#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/proxy_protocol.h"
#include "util/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define V2       "\r\n\r\n\0\r\nQUIT\n"
#define V4_PAIR  "\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"
#define V6_LOCAL "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
#define V6_LONG  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
#define UNIX_PATH                                                                                            \
    "/run/a_socket_of_nobody\0........................................................................"      \
    "............"

struct good {
    const char *source; /* NULL: not told */
    struct str bytes;
    bool local;
};

static const struct good goods[] = {
    {"192.0.2.1:56324", STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), false},
    {"255.255.255.255:65535", STR_INIT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), false},
    {"0.0.0.0:0", STR_INIT("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), false},
    {"[2001:db8::1]:1", STR_INIT("PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 1 2\r\n"), false},
    {"192.0.2.1:80", STR_INIT("PROXY TCP6 ::ffff:192.0.2.1 ::1 80 2\r\n"), false},
    {"[" V6_LONG "]:65535", STR_INIT("PROXY TCP6 " V6_LONG " " V6_LONG " 65535 65535\r\n"), false},
    {NULL, STR_INIT("PROXY UNKNOWN\r\n"), false},
    {NULL, STR_INIT("PROXY UNKNOWN " V6_LONG " " V6_LONG " 65535 65535\r\n"), false},
    {NULL, STR_INIT("PROXY UNKNOWN  whatever \x01\xff\r\n"), false},
    /* version 2 */
    {NULL, STR_INIT(V2 "\x20\x00\x00\x00"), true},
    {NULL, STR_INIT(V2 "\x20\x11\x00\x0c" V4_PAIR), true},
    {NULL, STR_INIT(V2 "\x20\xee\x00\x02!!"), true},
    {NULL, STR_INIT(V2 "\x21\x00\x00\x00"), false},
    {NULL, STR_INIT(V2 "\x21\x00\x00\x05\x04\x00\x02\x00\x00"), false},
    {"192.0.2.1:56324", STR_INIT(V2 "\x21\x11\x00\x0c" V4_PAIR), false},
    {"192.0.2.1:56324", STR_INIT(V2 "\x21\x11\x00\x14" V4_PAIR "\x01\x00\x02h2\xee\x00\x00"), false},
    {NULL, STR_INIT(V2 "\x21\x12\x00\x0c" V4_PAIR), false}, /* datagrams: not this connection */
    {"[2001:db8::1]:80",
     STR_INIT(V2 "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                 "\x00\x01" V6_LOCAL "\x00\x50\x01\xbb"),
     false},
    {"192.0.2.1:80",
     STR_INIT(V2 "\x21\x21\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00"
                 "\x02\x01" V6_LOCAL "\x00\x50\x01\xbb"),
     false},
    {NULL, STR_INIT(V2 "\x21\x31\x00\xd8" UNIX_PATH UNIX_PATH), false},
    /* CRC-32C 0x7e56a189, computed bit by bit elsewhere, and a TLV after it */
    {"192.0.2.1:56324", STR_INIT(V2 "\x21\x11\x00\x18" V4_PAIR "\x03\x00\x04\x7e\x56\xa1\x89\x01\x00\x02h2"),
     false},
};

static const struct {
    int error;
    struct str bytes;
} bads[] = {
    {-EPROTO, STR_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {-EPROTO, STR_INIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")}, /* a TLS ClientHello */
    {-EPROTO, STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
    {-EPROTO, STR_INIT("proxy TCP4 192.0.2.1 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY  TCP4 192.0.2.1 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 \r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 \r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4\r\n")},
    {-EPROTO, STR_INIT("PROXY \r\n")},
    {-EPROTO, STR_INIT("PROXY UNKNOWNX\r\n")},
    {-EPROTO, STR_INIT("PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 -1 2\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 99999999999999999999\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n\r\n")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\rGET")},
    {-EPROTO, STR_INIT("PROXY TCP4 192.0.2.1\0x 198.51.100.7 1 2\r\n")},
    /* 108 bytes with its end, and one that has none */
    {-EMSGSIZE, STR_INIT("PROXY UNKNOWN " V6_LONG " " V6_LONG " 65535 65535 \r\n")},
    {-EMSGSIZE, STR_INIT("PROXY UNKNOWN " V6_LONG " " V6_LONG " 65535 65535 and so on")},
    /* version 2 */
    {-EPROTO, STR_INIT("\r\n\r\n\r\n")},
    {-EPROTO, STR_INIT("\r\n\r\n\0\r\nQUIT\r")},
    {-EPROTO, STR_INIT(V2 "\x11\x11\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x31\x11\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x22\x11\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x13\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x10\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x41\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x01\x00\x00")},
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x0b" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x00")},
    {-EPROTO, STR_INIT(V2 "\x21\x21\x00\x0c" V4_PAIR)},
    {-EPROTO, STR_INIT(V2 "\x21\x31\x00\x6c" UNIX_PATH)},
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x0e" V4_PAIR "\x01\x00")},      /* less than a TLV */
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x10" V4_PAIR "\x01\x00\x02h")}, /* longer than the header */
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x10" V4_PAIR "\x01\xff\xffh")},
    {-EPROTO, STR_INIT(V2 "\x21\x11\x00\x12" V4_PAIR "\x03\x00\x03\x7e\x56\xa1")},
    {-EBADMSG, STR_INIT(V2 "\x21\x11\x00\x18" V4_PAIR "\x03\x00\x04\x7e\x56\xa1\x88\x01\x00\x02h2")},
    {-EBADMSG, STR_INIT(V2 "\x21\x11\x00\x18" V4_PAIR "\x03\x00\x04\x7e\x56\xa1\x89\x01\x00\x02h3")},
    {-EMSGSIZE, STR_INIT(V2 "\x21\x11\x02\x19" V4_PAIR)},
    {-EMSGSIZE, STR_INIT(V2 "\x20\x00\xff\xff")},
};

/* The first n bytes of s in memory that ends there. */
static int parse_copy(struct str s, size_t n, struct proxy_protocol *out)
{
    char *copy = malloc(n ? n : 1);
    int rc;

    assert_non_null(copy);
    memcpy(copy, s.p, n);
    rc = proxy_protocol_parse(str_of(copy, n), out);
    free(copy);
    return rc;
}

static void says_whose_connection_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(goods); i++) {
        const struct good *g = &goods[i];
        struct proxy_protocol p;
        char text[ADDRESS_TEXT_MAX], after[512];

        assert_int_equal(parse_copy(g->bytes, g->bytes.n, &p), g->bytes.n);
        assert_int_equal(p.version, g->bytes.p[0] == 'P' ? 1 : 2);
        assert_int_equal(p.local, g->local);
        assert_int_equal(p.has_source, g->source != NULL);
        if (g->source != NULL) {
            address_format(&p.source, text);
            assert_string_equal(text, g->source);
        }
        /* What follows is the client's, whatever it is. */
        memcpy(after, g->bytes.p, g->bytes.n);
        memcpy(after + g->bytes.n, "\r\nPROXY \r\n", 10);
        assert_int_equal(proxy_protocol_parse(str_of(after, g->bytes.n + 10), &p), g->bytes.n);
    }
}

static void waits_for_the_rest(void **state)
{
    struct proxy_protocol p;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(goods); i++)
        for (size_t n = 0; n < goods[i].bytes.n; n++) {
            assert_int_equal(parse_copy(goods[i].bytes, n, &p), 0);
            assert_false(p.has_source);
        }
}

/* And once refused, more bytes change nothing. */
static void refuses_what_is_none(void **state)
{
    struct proxy_protocol p;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bads); i++) {
        bool refused = false;

        for (size_t n = 0; n <= bads[i].bytes.n; n++) {
            int rc = parse_copy(bads[i].bytes, n, &p);

            if (rc != (refused ? bads[i].error : 0)) {
                if (rc != bads[i].error)
                    fail_msg("bad header %zu: %d at byte %zu, not %d", i, rc, n, bads[i].error);
                refused = true;
            }
            assert_false(p.has_source);
        }
        if (!refused)
            fail_msg("bad header %zu was not refused", i);
    }
}

/* A stranger is not heard to the end: what cannot become a header is refused at the byte that says so. */
static void refuses_at_once(void **state)
{
    static const struct {
        struct str bytes;
        size_t at;
    } early[] = {
        {STR_INIT("GET /"), 1},   {STR_INIT("PUT /"), 2},   {STR_INIT("POST /"), 2},
        {STR_INIT("\r\nGET"), 3}, {STR_INIT("PROXY\t"), 6},
    };
    struct proxy_protocol p;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(early); i++) {
        assert_int_equal(parse_copy(early[i].bytes, early[i].at - 1, &p), 0);
        assert_int_equal(parse_copy(early[i].bytes, early[i].at, &p), -EPROTO);
    }
}

static void the_longest_header_is_taken(void **state)
{
    char bytes[PROXY_PROTOCOL_BYTES_MAX + 1] = V2 "\x21\x11\x02\x18" V4_PAIR "\x30\x02\x09";
    struct proxy_protocol p;

    (void)state;
    assert_int_equal(proxy_protocol_parse(str_of(bytes, sizeof bytes), &p), PROXY_PROTOCOL_BYTES_MAX);
    assert_true(p.has_source);
    assert_int_equal(proxy_protocol_parse(str_of(bytes, PROXY_PROTOCOL_BYTES_MAX - 1), &p), 0);
    bytes[15]++;
    assert_int_equal(proxy_protocol_parse(str_of(bytes, sizeof bytes), &p), -EMSGSIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_whose_connection_it_is), cmocka_unit_test(waits_for_the_rest),
        cmocka_unit_test(refuses_what_is_none),        cmocka_unit_test(refuses_at_once),
        cmocka_unit_test(the_longest_header_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
