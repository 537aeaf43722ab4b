#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"

#include <errno.h>

static void parses_and_prints(void **state)
{
    static const struct {
        const char *text, *printed;
        uint16_t absent;
    } good[] = {
        {"127.0.0.1:8080", "127.0.0.1:8080", 0},
        {"0.0.0.0:80", "0.0.0.0:80", 0},
        {"[::1]:8080", "[::1]:8080", 0},
        {"[2001:DB8:0::1]:65535", "[2001:db8::1]:65535", 0},
        {"[::ffff:192.0.2.1]:80", "192.0.2.1:80", 0},
        {"192.0.2.1", "192.0.2.1:443", 443},
        {"[::1]", "[::1]:443", 443},
        {"::1", "[::1]:443", 443},
    };
    static const char *const bad[] = {
        "",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:080",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 80",
        "127.0.0.1:80 ",
        " 127.0.0.1:80",
        "127.1:80",
        "0127.0.0.1:80",
        "256.0.0.1:80",
        "localhost:80",
        "[::1:80",
        "[::1]80",
        "[::1]:",
        "::1:80x",
        "[127.0.0.1]:80",
        "[]:80",
        "[fe80::1%eth0]:80",
        "[[::1]]:80",
        "1.2.3.4:80:80",
        "1.2.3.4:999999",
        "[::1]]:80",
        "*:80",
    };
    struct address a;
    char text[ADDRESS_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(address_parse(str_z(good[i].text), good[i].absent, &a), 0);
        assert_int_equal(address_format(&a, text), strlen(good[i].printed));
        assert_string_equal(text, good[i].printed);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (address_parse(str_z(bad[i]), 0, &a) != -EINVAL)
            fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(address_parse(str_of("127.0.0.1\0:80", 13), 0, &a), -EINVAL);
}

static void an_address_alone_has_no_port(void **state)
{
    struct address a;
    char text[ADDRESS_TEXT_MAX];

    (void)state;
    assert_int_equal(address_parse_ip(STR("[2001:db8::]"), &a), 0);
    assert_int_equal(address_port(&a), 0);
    address_format_ip(&a, text);
    assert_string_equal(text, "2001:db8::");
    assert_int_equal(address_parse_ip(STR("1.2.3.4:80"), &a), -EINVAL);
    assert_int_equal(address_parse_ip(STR_NONE, &a), -EINVAL);
    /* The longest text fits. */
    assert_int_equal(address_parse(STR("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"), 0, &a), 0);
    assert_int_equal(address_format(&a, text), 47);
    a = (struct address){0}; /* what never had a family */
    assert_int_equal(address_format(&a, text), 1);
    assert_string_equal(text, "-");
}

static void splits_names_from_ports(void **state)
{
    struct str host;
    uint16_t port;

    (void)state;
    assert_int_equal(address_split(STR("example.net:81"), 80, &host, &port), 0);
    assert_true(str_eq(host, STR("example.net")));
    assert_int_equal(port, 81);
    assert_int_equal(address_split(STR("example.net"), 80, &host, &port), 0);
    assert_int_equal(port, 80);
    assert_int_equal(address_split(STR("[::1]:5"), 80, &host, &port), 0);
    assert_true(str_eq(host, STR("::1")));
    assert_int_equal(port, 5);
    assert_int_equal(address_split(STR(":80"), 80, &host, &port), -EINVAL);
    assert_int_equal(address_split(STR("a:"), 80, &host, &port), -EINVAL);
    assert_int_equal(address_split(STR_NONE, 80, &host, &port), -EINVAL);
}

static struct address ip(const char *text)
{
    struct address a;

    assert_int_equal(address_parse_ip(str_z(text), &a), 0);
    return a;
}

static void mapped_addresses_are_ipv4(void **state)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(99)};
    struct sockaddr other = {.sa_family = AF_UNIX};
    struct address a, b = ip("192.0.2.7");

    (void)state;
    memcpy(v6.sin6_addr.s6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7", 16);
    assert_int_equal(address_of_sockaddr((struct sockaddr *)&v6, &a), 0);
    assert_int_equal(a.sa.sa_family, AF_INET);
    assert_int_equal(address_port(&a), 99);
    assert_int_equal(address_bytes(&a), sizeof(struct sockaddr_in));
    assert_false(address_eq(&a, &b)); /* the port */
    assert_int_equal(address_of_sockaddr(&other, &a), -EAFNOSUPPORT);
}

static void addresses_have_an_order(void **state)
{
    static const char *const sorted[] = {"0.0.0.0", "1.2.3.4", "1.2.3.5", "200.0.0.0", "::", "::1", "2001::"};

    (void)state;
    for (size_t i = 0; i < sizeof sorted / sizeof *sorted; i++)
        for (size_t j = 0; j < sizeof sorted / sizeof *sorted; j++) {
            struct address a = ip(sorted[i]), b = ip(sorted[j]);
            int order = address_compare(&a, &b);

            assert_true(i < j ? order < 0 : i > j ? order > 0 : order == 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_and_prints),       cmocka_unit_test(an_address_alone_has_no_port),
        cmocka_unit_test(splits_names_from_ports), cmocka_unit_test(mapped_addresses_are_ipv4),
        cmocka_unit_test(addresses_have_an_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
