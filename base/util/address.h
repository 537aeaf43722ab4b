/* IP addresses and CIDR blocks as 16 bytes; an IPv4 address is its IPv4-mapped IPv6 one (RFC 4291, 2.5.5.2),
 * so that 192.0.2.1 and ::ffff:192.0.2.1 are the same everywhere. No names, no ports, no zones. */
#pragma once

#include "util/buf.h"

struct address {
    uint8_t bytes[16];
};

struct address_block {
    struct address address;
    uint8_t bits; /* of 128; an IPv4 block's own prefix + 96 */
};

#define ADDRESS_TEXT_MAX 46

/* Dotted quad with no leading zeros, or the forms of RFC 4291, 2.2. Returns 0 or -EINVAL. */
int address_parse(struct str text, struct address *out);

/* An address, or address "/" bits. Bits beyond the prefix may be set; they do not matter. */
int address_block_parse(struct str text, struct address_block *out);

bool address_in_block(const struct address *address, const struct address_block *block);

static inline bool address_is_ipv4(const struct address *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a->bytes, mapped, sizeof mapped) == 0;
}

static inline bool address_eq(const struct address *a, const struct address *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* As RFC 5952 writes it; IPv4 as a dotted quad. */
void address_format(const struct address *address, struct buf *out);

/* From what accept(2) gave: in_addr or in6_addr in network order. */
struct address address_of_ipv4(const void *in_addr);
struct address address_of_ipv6(const void *in6_addr);
