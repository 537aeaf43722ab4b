/* IP addresses with ports: the one place that parses, prints and compares them. Pure functions.
 * Without a port, and blocks of them: util/ip.h.
 *
 * An IPv4-mapped IPv6 address (::ffff:192.0.2.1) is its IPv4 one everywhere: what makes a struct address
 * normalises it. */
#pragma once

#include "util/ip.h"
#include "util/str.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct address {
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

#define ADDRESS_TEXT_MAX 56 /* "[" + 45 + "]:65535" + NUL */

/* "127.0.0.1:8080", "[::1]:8080"; without a port (also "::1" bare or in brackets) only when port_absent is
 * not 0, which is then the port. Names, ":8080", zones ("%eth0"), port 0 and leading zeros are refused.
 * Returns 0 or -EINVAL. */
int address_parse(struct str text, uint16_t port_absent, struct address *out);

/* "192.0.2.1" or "2001:db8::1" or "[2001:db8::1]"; the port becomes 0. Returns 0 or -EINVAL. */
int address_parse_ip(struct str text, struct address *out);

/* Splits "host:port", "host", "[v6]:port" and "[v6]"; *host is without brackets and not looked at further
 * than that it is not empty. *port is port_absent when none is given. Returns 0 or -EINVAL. */
int address_split(struct str text, uint16_t port_absent, struct str *host, uint16_t *port);

/* From what the kernel gave. Returns 0, or -EAFNOSUPPORT for another family. */
int address_of_sockaddr(const struct sockaddr *sa, struct address *out);

/* From and to an address without a port (util/ip.h). */
struct address address_of_ip(const struct ip *ip, uint16_t port);
struct ip address_ip(const struct address *a);

/* Bytes of the sockaddr, for connect and bind. */
socklen_t address_bytes(const struct address *a);

uint16_t address_port(const struct address *a);
void address_set_port(struct address *a, uint16_t port);

/* Into `out`, terminated; returns the length. With port: "192.0.2.1:80", "[::1]:80". Without: "::1". */
size_t address_format(const struct address *a, char out[ADDRESS_TEXT_MAX]);
size_t address_format_ip(const struct address *a, char out[ADDRESS_TEXT_MAX]);

/* <0, 0, >0; IPv4 before IPv6, then by address, then by port. */
int address_compare(const struct address *a, const struct address *b);
bool address_eq(const struct address *a, const struct address *b);
