/* IP addresses and CIDR blocks as 16 bytes; an IPv4 address is its IPv4-mapped IPv6 one (RFC 4291, 2.5.5.2),
 * so that 192.0.2.1 and ::ffff:192.0.2.1 are the same everywhere. No names, no ports, no zones. */
#pragma once

#include "util/buf.h"

struct ip {
    uint8_t bytes[16];
};

struct ip_block {
    struct ip address;
    uint8_t bits; /* of 128; an IPv4 block's own prefix + 96 */
};

#define IP_TEXT_MAX 46

/* Dotted quad with no leading zeros, or the forms of RFC 4291, 2.2. Returns 0 or -EINVAL. */
int ip_parse(struct str text, struct ip *out);

/* An address, or address "/" bits. Bits beyond the prefix may be set; they do not matter. */
int ip_block_parse(struct str text, struct ip_block *out);

bool ip_in_block(const struct ip *address, const struct ip_block *block);

static inline bool ip_is_ipv4(const struct ip *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a->bytes, mapped, sizeof mapped) == 0;
}

static inline bool ip_eq(const struct ip *a, const struct ip *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* Who is one client to limits: an IPv4 address, or the /64 of an IPv6 one, which is the least that one customer
 * gets and may choose from (RFC 6177, RFC 7934). */
struct ip ip_client_network(const struct ip *address);

/* As RFC 5952 writes it; IPv4 as a dotted quad. */
void ip_format(const struct ip *address, struct buf *out);

/* From what accept(2) gave: in_addr or in6_addr in network order. */
struct ip ip_of_ipv4(const void *in_addr);
struct ip ip_of_ipv6(const void *in6_addr);
