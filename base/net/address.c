#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

static void normalise(struct address *a)
{
    if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) {
        struct in_addr v4;
        in_port_t port = a->v6.sin6_port;

        memcpy(&v4, a->v6.sin6_addr.s6_addr + 12, sizeof v4);
        *a = (struct address){.v4 = {.sin_family = AF_INET, .sin_port = port, .sin_addr = v4}};
    }
}

int address_parse_ip(struct str text, struct address *out)
{
    char z[INET6_ADDRSTRLEN];
    struct address a = {0};

    if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']') {
        text = str_of(text.p + 1, text.n - 2);
        if (memchr(text.p, ':', text.n) == NULL)
            return -EINVAL;
    }
    if (text.n == 0 || text.n >= sizeof z || memchr(text.p, 0, text.n) != NULL)
        return -EINVAL;
    memcpy(z, text.p, text.n);
    z[text.n] = 0;
    if (inet_pton(AF_INET, z, &a.v4.sin_addr) == 1)
        a.v4.sin_family = AF_INET;
    else if (inet_pton(AF_INET6, z, &a.v6.sin6_addr) == 1)
        a.v6.sin6_family = AF_INET6;
    else
        return -EINVAL;
    normalise(&a);
    *out = a;
    return 0;
}

static int parse_port(struct str text, uint16_t *out)
{
    uint64_t port;

    if (text.n == 0 || text.n > 5 || text.p[0] == '0' || str_to_u64(text, &port) != 0 || port > UINT16_MAX)
        return -EINVAL;
    *out = (uint16_t)port;
    return 0;
}

int address_split(struct str text, uint16_t port_absent, struct str *host, uint16_t *port)
{
    struct str name = text, digits = STR_NONE;
    const char *end;

    if (text.n == 0)
        return -EINVAL;
    if (text.p[0] == '[') {
        end = memchr(text.p, ']', text.n);
        if (end == NULL)
            return -EINVAL;
        name = str_of(text.p + 1, (size_t)(end - text.p) - 1);
        text = str_skip(text, (size_t)(end - text.p) + 1);
        if (memchr(name.p, ':', name.n) == NULL || (text.n > 0 && text.p[0] != ':'))
            return -EINVAL;
        digits = text;
    } else {
        end = memchr(text.p, ':', text.n);
        if (end != NULL) {
            name = str_of(text.p, (size_t)(end - text.p));
            digits = str_skip(text, name.n);
            if (digits.n > 1 && memchr(digits.p + 1, ':', digits.n - 1) != NULL) { /* a bare IPv6 address */
                name = text;
                digits = STR_NONE;
            }
        }
    }
    if (name.n == 0)
        return -EINVAL;
    if (digits.n == 0)
        *port = port_absent;
    else if (parse_port(str_skip(digits, 1), port) != 0)
        return -EINVAL;
    *host = name;
    return 0;
}

int address_parse(struct str text, uint16_t port_absent, struct address *out)
{
    struct address a;
    struct str host;
    uint16_t port;

    if (address_split(text, port_absent, &host, &port) != 0 || port == 0 || host.p[0] == '[' ||
        address_parse_ip(host, &a) != 0)
        return -EINVAL;
    address_set_port(&a, port);
    *out = a;
    return 0;
}

/* The address's bytes in network order. */
static struct str ip_bytes(const struct address *a)
{
    return a->sa.sa_family == AF_INET ? str_of((const char *)&a->v4.sin_addr, 4)
                                      : str_of((const char *)&a->v6.sin6_addr, 16);
}

int address_of_sockaddr(const struct sockaddr *sa, struct address *out)
{
    struct address a = {0};

    if (sa->sa_family == AF_INET)
        memcpy(&a.v4, sa, sizeof a.v4);
    else if (sa->sa_family == AF_INET6)
        memcpy(&a.v6, sa, sizeof a.v6);
    else
        return -EAFNOSUPPORT;
    normalise(&a);
    *out = a;
    return 0;
}

struct address address_of_ip(const struct ip *ip, uint16_t port)
{
    struct address a = {0};

    if (ip_is_ipv4(ip)) {
        a.v4.sin_family = AF_INET;
        memcpy(&a.v4.sin_addr, ip->bytes + 12, 4);
    } else {
        a.v6.sin6_family = AF_INET6;
        memcpy(&a.v6.sin6_addr, ip->bytes, 16);
    }
    address_set_port(&a, port);
    return a;
}

struct ip address_ip(const struct address *a)
{
    return a->sa.sa_family == AF_INET6 ? ip_of_ipv6(&a->v6.sin6_addr) : ip_of_ipv4(&a->v4.sin_addr);
}

socklen_t address_bytes(const struct address *a)
{
    return a->sa.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6;
}

uint16_t address_port(const struct address *a)
{
    return ntohs(a->sa.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

void address_set_port(struct address *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET)
        a->v4.sin_port = htons(port);
    else
        a->v6.sin6_port = htons(port);
}

/* inet_ntop takes its time over IPv4, and every line of an access log has one. */
static size_t format_v4(const unsigned char bytes[4], char *out)
{
    char *p = out;

    for (int i = 0; i < 4; i++) {
        unsigned v = bytes[i];

        if (v >= 100)
            *p++ = (char)('0' + v / 100);
        if (v >= 10)
            *p++ = (char)('0' + v / 10 % 10);
        *p++ = (char)('0' + v % 10);
        *p++ = i < 3 ? '.' : 0;
    }
    return (size_t)(p - out) - 1;
}

size_t address_format_ip(const struct address *a, char out[ADDRESS_TEXT_MAX])
{
    if (a->sa.sa_family == AF_INET)
        return format_v4((const unsigned char *)&a->v4.sin_addr, out);
    if (a->sa.sa_family != AF_INET6 || inet_ntop(AF_INET6, &a->v6.sin6_addr, out, ADDRESS_TEXT_MAX) == NULL)
        memcpy(out, "-", 2);
    return strlen(out);
}

size_t address_format(const struct address *a, char out[ADDRESS_TEXT_MAX])
{
    char ip[ADDRESS_TEXT_MAX];
    int n;

    if (address_format_ip(a, ip) == 1)
        return address_format_ip(a, out);
    n = snprintf(out, ADDRESS_TEXT_MAX, a->sa.sa_family == AF_INET ? "%s:%u" : "[%s]:%u", ip,
                 address_port(a));
    return (size_t)n;
}

int address_compare(const struct address *a, const struct address *b)
{
    struct str x, y;
    int order;

    if (a->sa.sa_family != b->sa.sa_family)
        return a->sa.sa_family == AF_INET ? -1 : 1;
    x = ip_bytes(a);
    y = ip_bytes(b);
    order = memcmp(x.p, y.p, x.n);
    return order != 0 ? order : (int)address_port(a) - (int)address_port(b);
}

bool address_eq(const struct address *a, const struct address *b)
{
    return address_compare(a, b) == 0;
}
