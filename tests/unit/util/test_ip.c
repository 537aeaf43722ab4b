#include "util/ip.h"

#include "../unit.h"

static void text_is(const char *in, const char *out)
{
    char text[IP_TEXT_MAX];
    struct buf b = buf_of(text, sizeof text);
    struct ip a;

    assert_int_equal(ip_parse(str_z(in), &a), 0);
    ip_format(&a, &b);
    assert_false(b.overflow);
    assert_int_equal(b.n, strlen(out));
    assert_memory_equal(b.p, out, b.n);
}

static void parses_and_formats(void **state)
{
    (void)state;
    text_is("192.0.2.10", "192.0.2.10");
    text_is("::ffff:192.0.2.10", "192.0.2.10");
    text_is("2001:DB8:0:0:1::5", "2001:db8::1:0:0:5");
    text_is("::", "::");
    text_is("::1", "::1");
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",           "192.0.2",     "192.0.2.256",
        "192.0.2.1 ", "192.0.2.010", "1.2.3.4.5",
        ":::",        "2001:db8::g", "fe80::1%eth0",
        "[::1]",      "1",           "::ffff:192.0.2.1000000000000000000000000000000000"};
    struct ip a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(ip_parse(str_z(bad[i]), &a), -22);
    assert_int_equal(ip_parse(STR("1.2.3.4\0"), &a), -22);
}

static void client_is(const char *address, const char *network)
{
    struct ip a, n;

    assert_int_equal(ip_parse(str_z(address), &a), 0);
    assert_int_equal(ip_parse(str_z(network), &n), 0);
    a = ip_client_network(&a);
    assert_true(ip_eq(&a, &n));
}

static void client_networks(void **state)
{
    (void)state;
    client_is("192.0.2.255", "192.0.2.255");
    client_is("::ffff:192.0.2.255", "192.0.2.255");
    client_is("2001:db8:1:2:fedc:4:5:6", "2001:db8:1:2::");
    client_is("2001:db8:1:feff::", "2001:db8:1:feff::");
    client_is("2001:db8:1:2::", "2001:db8:1:2::");
    client_is("::1", "::");
}

static bool in_block(const char *address, const char *block)
{
    struct ip a;
    struct ip_block b;

    assert_int_equal(ip_parse(str_z(address), &a), 0);
    assert_int_equal(ip_block_parse(str_z(block), &b), 0);
    return ip_in_block(&a, &b);
}

static void blocks(void **state)
{
    struct ip_block b;

    (void)state;
    assert_true(in_block("192.0.2.255", "192.0.2.0/24"));
    assert_false(in_block("192.0.3.0", "192.0.2.0/24"));
    assert_true(in_block("::ffff:192.0.2.1", "192.0.2.0/24"));
    assert_true(in_block("192.0.2.1", "::ffff:192.0.2.0/120"));
    assert_true(in_block("192.0.2.127", "192.0.2.0/25"));
    assert_false(in_block("192.0.2.128", "192.0.2.0/25"));
    assert_true(in_block("192.0.2.77", "192.0.2.64/26")); /* bits past the prefix do not matter */
    assert_true(in_block("192.0.2.77", "192.0.2.99/26"));
    assert_true(in_block("203.0.113.9", "0.0.0.0/0"));
    assert_false(in_block("2001:db8::1", "0.0.0.0/0"));
    assert_true(in_block("2001:db8:1::5", "2001:db8::/32"));
    assert_false(in_block("2001:db9::", "2001:db8::/32"));
    assert_true(in_block("192.0.2.10", "192.0.2.10"));
    assert_false(in_block("192.0.2.11", "192.0.2.10"));
    assert_true(in_block("2001:db8::1", "::/0"));
    assert_int_equal(ip_block_parse(STR("192.0.2.0/33"), &b), -22);
    assert_int_equal(ip_block_parse(STR("192.0.2.0/"), &b), -22);
    assert_int_equal(ip_block_parse(STR("192.0.2.0/-1"), &b), -22);
    assert_int_equal(ip_block_parse(STR("192.0.2.0/0024"), &b), -22);
    assert_int_equal(ip_block_parse(STR("2001:db8::/129"), &b), -22);
    assert_int_equal(ip_block_parse(STR("/24"), &b), -22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_and_formats),
        cmocka_unit_test(refuses),
        cmocka_unit_test(client_networks),
        cmocka_unit_test(blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
